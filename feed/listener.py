"""The listener: joins one channel, finds gaps, rebuilds the books of all its symbols.

Hot when traffic is. Socket (feed/multicast.py) -> MoldReceiver (feed/moldudp64.py) -> ItchBook
(feed/itch_book.py): each runs once per batch of datagrams. Nothing but public multicast comes in,
so what the books show is what any outside client can know.

    listener = FeedListener.of_shard(network, shard)
    while listener.poll(0.1) or True:
        listener.book.bids("AAPL", 5)

`on_trades` is given each batch's trades (TRADE records), `on_message` is called after every single
message with its number, for whoever must see the book in between (slower: 10 µs a message).
With `directory_port` it also reads the directory channel and can say prices and quantities as exact
decimals. A listener that joins late or misses a number says so (`book.why_invalid`) and never
claims more; what went wrong is counted in `stats`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.config import Network
from feed.directory import Directory, DirectoryEntry
from feed.itch_book import ItchBook
from feed.moldudp64 import BLOCK_SEQ, MoldReceiver
from feed.multicast import PLACE_BYTES, RECEIVE_BUFFER_BYTES, MulticastReceiver, wait_readable

__all__ = ["FeedListener", "ItchBook"]

BATCHES_PER_POLL = 64  # bounds one poll: 8,192 datagrams

_Array = np.ndarray[Any, Any]


class FeedListener:
    """One channel: `poll` reads what has arrived; `book` is what it amounts to."""

    def __init__(
        self,
        group: str,
        port: int,
        interface: str = "127.0.0.1",
        *,
        directory_port: int = 0,
        on_trades: Callable[[_Array], None] | None = None,
        on_message: Callable[[int], None] | None = None,
        buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> None:
        self.book = ItchBook()
        self.receiver = MoldReceiver(PLACE_BYTES)
        self.directory = Directory()
        self._on_trades = on_trades
        self._on_message = on_message
        self.socket = MulticastReceiver(group, port, interface, buffer_bytes)
        self._directory_socket: MulticastReceiver | None = None
        if directory_port:
            try:
                self._directory_socket = MulticastReceiver(group, directory_port, interface)
            except OSError:
                self.socket.close()
                raise

    @classmethod
    def of_shard(
        cls,
        network: Network,
        shard: int,
        on_trades: Callable[[_Array], None] | None = None,
        on_message: Callable[[int], None] | None = None,
    ) -> "FeedListener":
        """Listen to a shard's channel, and the directory, as the configuration says."""
        return cls(
            network.feed_group,
            network.feed_port + shard,
            network.feed_interface,
            directory_port=network.directory_port,
            on_trades=on_trades,
            on_message=on_message,
        )

    # -------------------------------------------------------------------------------------- reading
    def poll(self, timeout_s: float = 0.0) -> int:
        """Read all that has arrived, waiting up to timeout_s for something; returns new
        messages.
        """
        messages = datagrams = 0
        for _ in range(BATCHES_PER_POLL):
            count = self.socket.receive()
            if not count:
                break
            datagrams += count
            messages += self.take(self.socket.packets, self.socket.bounds[:count])
        self._poll_directory()
        if not datagrams and timeout_s > 0 and wait_readable(self._descriptors(), timeout_s):
            return self.poll()
        return messages

    def take(self, packets: _Array, bounds: _Array) -> int:
        """Take datagrams (start, length) lying in `packets`, from a socket or a capture."""
        at = messages = 0
        while at < len(bounds):
            session = self.receiver.sessions
            taken, blocks = self.receiver.receive(packets, bounds, at)
            at += taken
            if session and self.receiver.sessions != session:
                self.book.reset()
            messages += self._apply(packets, blocks)
        if self.receiver.sessions:
            self.book.expect(self.receiver.next_sequence)
        if self._on_trades is not None:
            trades = self.book.take_trades()
            if len(trades):
                self._on_trades(trades)
        return messages

    def _apply(self, packets: _Array, blocks: _Array) -> int:
        if self._on_message is None:
            return self.book.apply(packets, blocks)
        for index in range(len(blocks)):
            self.book.apply(packets, blocks[index : index + 1])
            self._on_message(int(blocks[index, BLOCK_SEQ]))
        return len(blocks)

    def _poll_directory(self) -> None:
        receiver = self._directory_socket
        if receiver is not None:
            for index in range(receiver.receive()):
                self.directory.receive(bytes(receiver.datagram(index)))

    def _descriptors(self) -> list[int]:
        sockets = (self.socket, self._directory_socket)
        return [s.fileno() for s in sockets if s is not None]

    def entry(self, symbol: str) -> DirectoryEntry | None:
        """Return what the directory channel says of a symbol; None before it has said anything."""
        return self.directory.by_symbol.get(symbol)

    def stats(self) -> dict[str, int]:
        """Return every counter of the channel and its books by name."""
        book = self.book
        return {
            **self.receiver.stats(),
            **{f"violation_{name}": count for name, count in book.violations().items()},
            "doubtful": book.doubtful,
            "overflows": book.overflows,
            "tape_lost": book.tape_lost,
            "directory_received": self.directory.received,
            "directory_malformed": self.directory.malformed,
        }

    def close(self) -> None:
        """Leave the groups."""
        self.socket.close()
        if self._directory_socket is not None:
            self._directory_socket.close()
