"""Hears all market data: a number of a session has one content, for ever (RELIABILITY P5, I24).

Numbers may be missing (the publisher was lapped or killed), and come twice, never with other bytes.
"""

from __future__ import annotations

from engine.config import Config
from feed.moldudp64 import END_OF_SESSION, MOLD_HEADER
from tests.sim.observer import require


class FeedListener:
    """Listens to every channel."""

    def __init__(self, config: Config) -> None:
        first = config.network.feed_port
        self.ports = range(first, first + config.shards)
        self.heard: dict[tuple[bytes, int], bytes] = {}
        self.messages = 0

    def hear(self, port: int, data: bytes) -> None:
        """One datagram."""
        if port not in self.ports:
            return  # the directory
        session, number, count = MOLD_HEADER.unpack_from(data)
        if count == END_OF_SESSION:
            return
        at = MOLD_HEADER.size
        for sequence in range(number, number + count):
            size = int.from_bytes(data[at : at + 2], "big")
            message, at = data[at + 2 : at + 2 + size], at + 2 + size
            known = self.heard.setdefault((session, sequence), message)
            require(
                known == message,
                f"market data: message {sequence} of session {session!r} is {message!r},"
                f" it was {known!r}",
            )
            self.messages += 1
        require(at == len(data), f"market data: {len(data) - at} bytes behind the last message")
