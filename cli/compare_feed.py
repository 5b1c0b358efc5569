"""The comparer that sees only market data: a process of its own beside `run.py replay lobster`.

    python -m cli.compare_feed MESSAGES [ORDERBOOK] --symbol AAPL     (replay --compare starts it)

It holds no connection to the exchange, no shared memory, and none of the replay's requests; it
joins the shard's multicast channel and the directory channel, like anybody could. It reads the same
LOBSTER files, and the same driver (cli/lobster.py) tells it what happened on the recorded day; but
where the replay *sends*, this *waits for the public message* and believes nothing else:

    new     the next message of the symbol must be A with that side, price and size; from now on
            its reference is that order
    reduce  X of that reference and just that many shares
    cancel  D of that reference
    hit     E messages until the size is done; whose order and what price: the reference's A

So rows are aligned by the order of public messages alone: a LOBSTER message of type 1 to 4 is
exactly one public message (an execution of several makers: several E), type 5 is none. Each message
is applied to the strict L3 book of feed/itch_book.py when its turn comes, not before, and after
each LOBSTER message the best levels of that book are compared with the file's row. The first
message that is not what the day demands ends the comparison as `misaligned`; gaps, book violations
and doubts are counted.

Protocol with the replay, over pipes: configuration as one JSON line in; "ready" out; "end" in when
nothing more will be sent; one JSON line out.
"""

import argparse
import dataclasses
import os
import select
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from cli.common import is_operating_error, sentence_of
from cli.lobster import Fill, Levels, LobsterReplay, Tally, read_messages, read_rows
from feed.directory import Directory
from feed.itch import (
    ADD_PRICE_AT,
    ADD_SHARES_AT,
    ADD_SIDE_AT,
    ADD_STOCK_AT,
    EXEC_SHARES_AT,
    LOCATE_AT,
    REF_AT,
    STOCK_BYTES,
)
from feed.itch_book import ItchBook
from feed.moldudp64 import MoldReceiver
from feed.multicast import PLACE_BYTES, MulticastReceiver

if TYPE_CHECKING:
    from engine.config import Config

QUIET_S = 1.0  # after "end", so long without a message means that there is none
BUFFER_BYTES = 16 << 20
LETTER = {1: b"B", -1: b"S"}
ORDER_MESSAGES = frozenset(b"AFECXDUPQ")  # what LOBSTER has lines for; R, H and S it has not


class Misaligned(Exception):
    """The feed went another way than the recorded day."""


class FeedEnded(Exception):
    """No more messages."""


class FeedVenue:
    """The driver's verbs as expectations. `take` gives the next message of the symbol's orders."""

    def __init__(self, take: Callable[[], bytes]) -> None:
        self.take = take
        self.messages = 0
        self._held: bytes | None = None
        self._refs: dict[int, int] = {}  # key -> reference
        self._keys: dict[int, int] = {}
        self._prices: dict[int, int] = {}
        self._open: dict[int, int] = {}  # key -> shares open
        self._executed: dict[int, int] = {}

    def new(self, key: int, side: int, price: int, size: int) -> None:
        """Await A."""
        message = self._next(f"an A of {size} at {price}", b"A")
        seen = (message[ADD_SIDE_AT : ADD_SIDE_AT + 1], _u32(message, ADD_PRICE_AT))
        if seen != (LETTER[side], price) or _u32(message, ADD_SHARES_AT) != size:
            raise Misaligned(
                f"an A of {_u32(message, ADD_SHARES_AT)} at {seen}, not {size} at {price}"
            )
        reference = _u64(message, REF_AT)
        self._refs[key], self._keys[reference] = reference, key
        self._prices[key], self._open[key], self._executed[key] = price, size, 0

    def reduce(self, key: int, total: int) -> None:
        """Await X."""
        message = self._of(key, b"X")
        leaves = total - self._executed[key]
        if _u32(message, EXEC_SHARES_AT) != self._open[key] - leaves:
            raise Misaligned(
                f"an X of {_u32(message, EXEC_SHARES_AT)} for {self._open[key] - leaves}"
            )
        self._open[key] = leaves

    def cancel(self, key: int) -> None:
        """Await D."""
        self._of(key, b"D")
        self._open[key] = 0

    def hit(self, resting_side: int, price: int, size: int) -> list[Fill]:
        """Await E until `size` is done, or until something else comes."""
        fills: list[Fill] = []
        while size > 0:
            message = self._next("an E", b"")
            if message[:1] != b"E":
                self._held = message
                self.messages -= 1
                break
            key = self._keys.get(_u64(message, REF_AT), 0)
            shares = _u32(message, EXEC_SHARES_AT)
            size -= shares
            if key in self._open:
                self._open[key] -= shares
                self._executed[key] += shares
            fills.append(Fill(key, self._prices.get(key, 0), shares))
        return fills

    def _next(self, what: str, letter: bytes) -> bytes:
        message, self._held = self._held or self.take(), None
        self.messages += 1
        if letter and message[:1] != letter:
            raise Misaligned(f"{message[:1].decode()} came, {what} was due")
        return message

    def _of(self, key: int, letter: bytes) -> bytes:
        message = self._next(f"{letter.decode()} of order {key}", letter)
        if _u64(message, REF_AT) != self._refs[key]:
            raise Misaligned(f"{letter.decode()} of another order than {key}")
        return message


def _u32(message: bytes, at: int) -> int:
    return int.from_bytes(message[at : at + 4], "big")


def _u64(message: bytes, at: int) -> int:
    return int.from_bytes(message[at : at + 8], "big")


class BookOfMessages:
    """The strict book, fed one message at a time, and the messages of one symbol out of it."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.stock = symbol.encode().ljust(STOCK_BYTES)
        self.book = ItchBook()
        self.locate = 0  # by the directory, or by the first A that spells the symbol

    def apply(self, sequence: int, message: bytes) -> bool:
        """Apply one message; True when it concerns an order of the symbol."""
        packet = np.frombuffer(message, np.uint8)
        self.book.apply(packet, np.array([[sequence, 0, len(message)]], np.int64))
        locate = int.from_bytes(message[LOCATE_AT : LOCATE_AT + 2], "big")
        if message[:1] == b"A" and message[ADD_STOCK_AT : ADD_STOCK_AT + STOCK_BYTES] == self.stock:
            self.locate = locate
        mine = locate == self.locate
        return bool(mine and self.locate and message[0] in ORDER_MESSAGES)

    def levels(self, depth: int) -> tuple[Levels, Levels]:
        """Give the best levels as (price, size)."""
        if not self.locate:
            return [], []
        bids, asks = self.book.bids(self.locate, depth), self.book.asks(self.locate, depth)
        return _levels(bids), _levels(asks)


def _levels(rows: "np.ndarray[Any, Any]") -> Levels:
    return [(int(price), int(shares)) for price, shares, _ in rows]


class Channel:
    """The multicast side: datagrams in, messages out, each applied when its turn comes."""

    def __init__(self, config: "Config", symbol: str) -> None:
        network, shard = config.network, zlib.crc32(symbol.encode()) % max(config.shards, 1)
        group, interface = network.feed_group, network.feed_interface
        self.socket = MulticastReceiver(group, network.feed_port + shard, interface, BUFFER_BYTES)
        self.directory_socket = MulticastReceiver(group, network.directory_port, interface)
        self.directory = Directory()
        self.receiver = MoldReceiver(PLACE_BYTES)
        self.books = BookOfMessages(symbol)
        self.symbol, self.shard = symbol, shard
        self._queue: deque[tuple[int, bytes]] = deque()
        self._ending = False
        self._taken = 0

    def take(self) -> bytes:
        """Give the symbol's next order message, applied to the book."""
        quiet_since = time.monotonic()
        while True:
            self._taken += 1
            if not self._queue or self._taken % 64 == 0:
                self._receive()
            while self._queue:
                sequence, message = self._queue.popleft()
                if self.books.apply(sequence, message):
                    return message
                quiet_since = time.monotonic()
            if self._ending and time.monotonic() - quiet_since > QUIET_S:
                raise FeedEnded
            self._wait()

    def _receive(self) -> None:
        while count := self.socket.receive():
            taken = 0
            while taken < count:
                step, blocks = self.receiver.receive(
                    self.socket.packets, self.socket.bounds[:count], taken
                )
                taken += step
                for sequence, offset, length in blocks.tolist():
                    message = self.socket.packets[offset : offset + length].tobytes()
                    self._queue.append((sequence, message))

    def _wait(self) -> None:
        watched: list[Any] = [self.socket, self.directory_socket]
        watched += [] if self._ending else [sys.stdin]
        readable, _, _ = select.select(watched, [], [], 0.1)
        if self.directory_socket in readable:
            for index in range(self.directory_socket.receive()):
                self.directory.receive(bytes(self.directory_socket.datagram(index)))
            entry = self.directory.by_symbol.get(self.symbol)
            if entry is not None and entry.shard == self.shard:
                self.books.locate = entry.locate
        if not self._ending and sys.stdin in readable:
            os.read(sys.stdin.fileno(), 64)  # "end", or the pipe was closed
            self._ending = True

    def problems(self) -> dict[str, int]:
        """Count what a listener must not meet."""
        stats = self.receiver.stats()
        found = {name: count for name, count in stats.items() if name in ("gaps", "malformed")}
        found["violations"] = sum(self.books.book.violations().values())
        found["doubts"] = self.books.book.doubtful
        return found

    def close(self) -> None:
        """Leave the groups."""
        self.socket.close()
        self.directory_socket.close()


def compare(
    replay: LobsterReplay,
    rows: list[Any],
    levels: Callable[[int], tuple[Levels, Levels]],
    depth: int,
) -> str:
    """Follow the day on the feed; give why it ended early, or nothing."""
    try:
        replay.start()
        for number in range(len(replay.messages)):
            replay.step(number)
            if 0 < number < len(rows):
                replay.tally.compare(number, rows[number], *levels(depth), depth)
    except Misaligned as error:
        return f"at message {replay.tally.messages}: {error}"
    except FeedEnded:
        return f"at message {replay.tally.messages}: the feed ended"
    return ""


def result_of(venue: FeedVenue, tally: Tally, problems: dict[str, int], why: str) -> dict[str, Any]:
    """Compose what is written at the end."""
    return {
        "public_messages": venue.messages,
        "problems": {**problems, "misaligned": int(bool(why))},
        "misaligned": why,
        "tally": dataclasses.asdict(tally),
    }


def main() -> int:
    """Join, say ready, follow, print the result."""
    parser = argparse.ArgumentParser(prog="python -m cli.compare_feed")
    parser.add_argument("messages", type=Path)
    parser.add_argument("orderbook", type=Path, nargs="?")
    parser.add_argument("--symbol", default="AAPL")
    parser.add_argument("--depth", type=int, default=40)
    parser.add_argument("--preplace", action="store_true")
    options = parser.parse_args()
    from engine.config import config_from_mapping

    with FileIO(sys.stdin.fileno(), closefd=False) as unbuffered:
        config = config_from_mapping(orjson.loads(unbuffered.readline()))
    messages = read_messages(options.messages)
    most = 1 if options.preplace else None  # as in the replay: pre-placed orders are in no row
    rows = read_rows(options.orderbook, most) if options.orderbook else []
    channel = Channel(config, options.symbol)
    try:
        venue = FeedVenue(channel.take)
        seed = rows[0] if rows else None
        replay = LobsterReplay(venue, messages, seed, preplace=options.preplace)
        print("ready", flush=True)
        why = compare(replay, rows, channel.books.levels, options.depth)
        result = result_of(venue, replay.tally, channel.problems(), why)
    finally:
        channel.close()
    print(orjson.dumps(result).decode(), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as failure:
        if not is_operating_error(failure):
            raise
        print(f"compare_feed: {sentence_of(failure)}", file=sys.stderr)
        sys.exit(1)
