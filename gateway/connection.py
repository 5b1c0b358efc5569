"""One connection, as the desk knows it: what it said, what waits, who it is. Sans-I/O.

gateway/tcp_entry.py gives it a socket, tests a list of bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.session import Session


class Client(ABC):
    """One connection, as the desk knows it."""

    session: Session | None = None
    carry: bytes = b""  # the beginning of a line
    backlog: bytes | None = None  # lines that wait; reading is paused
    skipping: int = 0  # bytes so far of a line that is too long
    born: int = 0  # ticks
    heard: int = 0
    sent: int = 0
    refused: int = 0  # lines before logon
    stalled: int = 0  # tick since which its reports pile up: it reads too slowly
    judging: bool = False  # a failed logon waits for its answer
    closed: bool = False

    @abstractmethod
    def send(self, data: bytes | memoryview) -> None:
        """Send, or drop the client when too much is waiting already. `data` is valid during the
        call only.
        """

    @abstractmethod
    def hang_up(self) -> None:
        """Close after what was sent."""

    @abstractmethod
    def pause(self) -> None:
        """Stop reading."""

    @abstractmethod
    def resume(self) -> None:
        """Read again."""
