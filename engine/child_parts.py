"""What passes between the supervisor and its children: parts, the word that one serves, its end.

Cold.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.children import Child
from engine.config import Config
from engine.data_directory import ShardEnd
from engine.instance import Instance
from engine.sharding import Placement


class StartError(RuntimeError):
    """The exchange could not be started; the message says why."""


class Ready:
    """A child's word that it serves."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def tell(self, text: str = "ready") -> None:
        """Say it, once."""
        if self.fd >= 0:
            os.write(self.fd, text.encode())
            os.close(self.fd)
            self.fd = -1


@dataclass
class ChildParts:
    """What a child's main is given."""

    config: Config
    instance: Instance | None
    directory: str  # "": no journal
    index: int
    placement: Placement
    ready: Ready
    port: int | None = None
    ends: Sequence[ShardEnd] | None = None  # journal, at the start: where those of the last run end


Main = Callable[[ChildParts], int]


class StopSignals:
    """SIGINT and SIGTERM as a flag."""

    def __init__(self, *, interrupt: bool = True) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note if interrupt else signal.SIG_IGN)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1

    def is_set(self) -> bool:
        """Whether somebody wants us to stop."""
        return self.count > 0


@dataclass
class Running:
    """A child that is up, or on its way."""

    role: str
    index: int
    child: Child
    ready_fd: int
    ready: bool = False

    def word(self) -> str:
        """Return what it said when it was ready, empty before that."""
        try:
            return os.read(self.ready_fd, 64).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        """Let go of its descriptor."""
        os.close(self.ready_fd)


@dataclass
class Plan:
    """Something to do at a time."""

    due_s: float
    what: Callable[[], None]


def exit_word(code: int) -> str:
    """Say how a process ended."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
