"""LOBSTER files as orders: which requests make a matching engine repeat a recorded day. Cold, no
I/O but the files.

A LOBSTER message file says what happened to a recorded book; an exchange wants to be told what to
do. `LobsterReplay` turns one into the other: 1 -> new limit order, 2 -> a replace with a lower
total (keeps its place), 3 -> cancel, 4 -> an immediate-or-cancel order on the other side, of that
size and price, *expecting* the maker that the file names, 5 (hidden), 6, 7 -> nothing. It talks to
a `Venue`, and three of them exist: the TCP client of `run.py replay`, the multicast listener of
`cli/compare_feed.py` (there the same calls mean "this is what must come next on the feed"), and
LocalExchange in the tests. So driver and comparer cannot disagree about what a message means, yet
share no data.

What the files leave open, and what is done about it
* The book before the first message: row 0 of the order book file, one order per level. Row 0 is the
  state *after* message 0, so message 0's own size is taken out of its level and placed as an order
  with its id.
* Events on ids older than the file are applied by price to that seeded quantity. Where none is left
  (orders that entered the 50-level window unreported), a cancel is skipped and counted in
  `nothing`; an execution proves that the order was there, so it is placed first and counted in
  `late`.
* Submissions whose id is below the running maximum are old orders coming back into the window.
  Their priority is their id, not their arrival: `preplace=True` puts them in, by id, before the
  start.
* The engine names the maker by price-time priority; a few recorded executions hit another one. Such
  an execution is counted as missed, and that price level is then cancelled and entered again in the
  file's order, so that one difference is counted once.
"""

import csv
import lzma
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

SUBMIT, REDUCE, DELETE, EXECUTE, EXECUTE_HIDDEN = 1, 2, 3, 4, 5
BUY, SELL = 1, -1  # LOBSTER's direction: the side of the resting order
EMPTY_PRICE = 9_999_999_999  # an empty level of the order book file is this, or minus this
PRICE_SCALE = 10_000  # prices are dollars times this

Levels = list[tuple[int, int]]  # (price, size), best first


class LobsterError(ValueError):
    """A file that is not what it should be; the message names file and line."""


class Message(NamedTuple):
    """One line of a message file. `time` is ns since midnight."""

    time: int
    kind: int
    id: int
    size: int
    price: int
    side: int


class Row(NamedTuple):
    """One line of an order book file: the state after the message of the same number."""

    bids: Levels
    asks: Levels


class Fill(NamedTuple):
    """What an execution hit: the key of the resting order as given to Venue.new, price and size."""

    key: int
    price: int
    size: int


class Venue(Protocol):
    """Where the orders go. Keys name orders; one may be used again after its order ended."""

    def new(self, key: int, side: int, price: int, size: int) -> None:
        """Enter a limit order that rests."""

    def reduce(self, key: int, total: int) -> None:
        """Lower the order's total quantity (executed part included) to `total`."""

    def cancel(self, key: int) -> None:
        """Take the order out."""

    def hit(self, resting_side: int, price: int, size: int) -> list[Fill]:
        """Take liquidity of `resting_side` down to `price`, at most `size`; say whose."""


@dataclass
class Tally:
    """What came of it."""

    messages: int = 0
    executions: int = 0
    at_price: int = 0
    known_makers: int = 0
    makers: int = 0
    hidden: int = 0
    older: int = 0  # events on ids older than the file
    nothing: int = 0  # of those, cancels of quantity that was never seen
    late: int = 0  # of those, executions of quantity that was never seen: placed first
    preplaced: int = 0
    requeued: int = 0  # levels entered again after a missed maker
    rows: int = 0
    rows_exact: int = 0
    first_wrong_rows: list[int] = field(default_factory=list)
    missed_makers: list[int] = field(default_factory=list)

    def compare(self, number: int, row: Row, bids: Levels, asks: Levels, depth: int) -> bool:
        """Count one row; True when the best `depth` levels of both sides are the file's."""
        self.rows += 1
        same = bids[:depth] == row.bids[:depth] and asks[:depth] == row.asks[:depth]
        if same:
            self.rows_exact += 1
        elif len(self.first_wrong_rows) < 10:
            self.first_wrong_rows.append(number)
        return same

    def sentences(self) -> Iterator[str]:
        """Yield the result as lines for people."""
        yield f"messages {self.messages:,}; hidden executions skipped {self.hidden:,}"
        yield f"executions at the recorded price: {self.at_price:,} of {self.executions:,}"
        yield f"makers as recorded: {self.makers:,} of the {self.known_makers:,} known by id"
        if self.rows:
            yield f"book rows exact: {self.rows_exact:,} of {self.rows:,}"
        if self.first_wrong_rows:
            yield f"first rows that differ: {', '.join(map(str, self.first_wrong_rows))}"
        yield (
            f"older orders: {self.older} events, {self.nothing} on quantity never shown, "
            f"{self.late} placed late; {self.preplaced} pre-placed, {self.requeued} re-entered"
        )


@dataclass
class _Order:
    key: int
    side: int
    price: int
    leaves: int  # as the file has it
    total: int  # as the venue was told
    at_venue: int  # what is open at the venue


def _open(path: Path) -> TextIO:
    try:
        if path.suffix == ".xz":
            return lzma.open(path, "rt", encoding="ascii")
        return path.open(encoding="ascii")
    except OSError as error:
        raise LobsterError(f"cannot read {path}: {error.strerror}") from error


def _nanoseconds(text: str) -> int:
    # Digit by digit: 34200.004241176 as a float would lose the last ones.
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))


def read_messages(path: Path) -> list[Message]:
    """Read a message file, plain or .xz."""
    messages: list[Message] = []
    with _open(path) as lines:
        try:
            for time, kind, *rest in csv.reader(lines):
                identity, size, price, side = (int(text) for text in rest[:4])
                messages.append(Message(_nanoseconds(time), int(kind), identity, size, price, side))
        except (ValueError, UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
            raise LobsterError(
                f"{path}: line {len(messages) + 1} is not a LOBSTER message: {error}"
            ) from error
    if not messages:
        raise LobsterError(f"{path} is empty")
    return messages


def read_rows(path: Path, most: int | None = None) -> list[Row]:
    """Read an order book file, plain or .xz; at most `most` rows."""
    rows: list[Row] = []
    with _open(path) as lines:
        try:
            for line in csv.reader(lines):
                values = [int(text) for text in line]
                if not values or len(values) % 4:
                    raise ValueError(f"{len(values)} columns, expected four per level")
                asks = [
                    (p, q)
                    for p, q in zip(values[0::4], values[1::4], strict=True)
                    if abs(p) < EMPTY_PRICE
                ]
                bids = [
                    (p, q)
                    for p, q in zip(values[2::4], values[3::4], strict=True)
                    if abs(p) < EMPTY_PRICE
                ]
                rows.append(Row(bids, asks))
                if len(rows) == most:
                    break
        except (ValueError, UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
            raise LobsterError(
                f"{path}: line {len(rows) + 1} is not a LOBSTER order book row: {error}"
            ) from error
    return rows


def reannounced(messages: list[Message]) -> list[Message]:
    """Give the submissions with an id below the running maximum, by id."""
    newest, found = 0, []
    for message in messages:
        if message.kind == SUBMIT:
            if message.id < newest:
                found.append(message)
            newest = max(newest, message.id)
    return sorted(found, key=lambda message: message.id)


class LobsterReplay:
    """Drives one venue through one message file: `start`, then `step` by step; see `tally`."""

    def __init__(
        self, venue: Venue, messages: list[Message], seed: Row | None, *, preplace: bool = False
    ) -> None:
        self.venue, self.messages, self.seed, self.preplace = venue, messages, seed, preplace
        self.tally = Tally()
        self._orders: dict[int, _Order] = {}
        self._levels: dict[
            tuple[int, int], dict[int, _Order]
        ] = {}  # (side, price): key -> order, by priority
        self._older: dict[tuple[int, int], list[int]] = {}  # (side, price): keys of seeded quantity
        self._submitted: set[int] = set()
        self._preplaced: set[int] = set()
        self._next_seed_key = -1  # seeds are negative, LOBSTER's ids positive

    def start(self) -> None:
        """Enter what stood in the book before the first message."""
        if self.seed is not None:
            first = self.messages[0]
            for side, levels in ((SELL, self.seed.asks), (BUY, self.seed.bids)):
                for price, size in levels:
                    if first.kind == SUBMIT and (first.side, first.price) == (side, price):
                        size -= first.size
                    if size > 0:
                        self._enter_older(side, price, size)
        for message in reannounced(self.messages) if self.preplace else ():
            self._enter(message.id, message.side, message.price, message.size)
            self._preplaced.add(message.id)
            self.tally.preplaced += 1

    def step(self, number: int) -> Message:
        """Do message `number`; messages come in order from 0."""
        message = self.messages[number]
        self.tally.messages += 1
        if message.kind == SUBMIT:
            if message.id not in self._preplaced:
                self._enter(message.id, message.side, message.price, message.size)
            self._submitted.add(message.id)
        elif message.kind in (REDUCE, DELETE):
            self._take_out(message)
        elif message.kind == EXECUTE:
            self._execute(number, message)
        elif message.kind == EXECUTE_HIDDEN:
            self.tally.hidden += 1
        return message

    def _enter(self, key: int, side: int, price: int, size: int) -> None:
        order = self._orders[key] = _Order(key, side, price, size, size, size)
        self._levels.setdefault((side, price), {})[key] = order
        self.venue.new(key, side, price, size)

    def _enter_older(self, side: int, price: int, size: int) -> None:
        key, self._next_seed_key = self._next_seed_key, self._next_seed_key - 1
        self._older.setdefault((side, price), []).append(key)
        self._enter(key, side, price, size)

    def _meant(self, message: Message) -> list[_Order]:
        # The order of the message; for an id older than the file, the seeded quantity at its price.
        if message.id in self._submitted:
            keys = [message.id]
        else:
            self.tally.older += 1
            keys = self._older.get((message.side, message.price), [])
        return [self._orders[key] for key in keys if key in self._orders]

    def _take_out(self, message: Message) -> None:
        orders = self._meant(message)
        if not orders:
            self.tally.nothing += 1
            return
        left = message.size
        for order in orders:
            whole = message.kind == DELETE and message.id in self._submitted
            size = order.leaves if whole else min(left, order.leaves)
            left -= size
            if size:
                self._shrink(order, size)
                if order.leaves:
                    order.total -= size
                    order.at_venue -= size
                    self.venue.reduce(order.key, order.total)
                else:
                    self.venue.cancel(order.key)

    def _shrink(self, order: _Order, size: int) -> None:
        order.leaves -= size
        if not order.leaves:
            level = self._levels[order.side, order.price]
            del level[order.key], self._orders[order.key]
            if not level:
                del self._levels[order.side, order.price]

    def _execute(self, number: int, message: Message) -> None:
        tally = self.tally
        orders = self._meant(message)
        known = message.id in self._submitted
        missing = message.size - sum(order.leaves for order in orders)
        if missing > 0:
            tally.late += 1
            self._enter_older(message.side, message.price, missing)
            orders.append(self._orders[self._next_seed_key + 1])
        fills = self.venue.hit(message.side, message.price, message.size)
        tally.executions += 1
        tally.at_price += (
            all(f.price == message.price for f in fills)
            and sum(f.size for f in fills) == message.size
        )
        tally.known_makers += known
        if known:
            if {fill.key for fill in fills} == {message.id}:
                tally.makers += 1
            else:
                tally.missed_makers.append(number)
        self._settle(message, orders, fills)

    def _settle(self, message: Message, orders: list[_Order], fills: list[Fill]) -> None:
        # Put the file's outcome beside the venue's; where they differ, enter those levels again.
        touched = {(message.side, message.price)}
        for fill in fills:
            hit = self._orders.get(fill.key)
            if hit is not None:
                hit.at_venue -= fill.size
                touched.add((hit.side, hit.price))
        ended, left = [], message.size
        for order in orders:
            size = min(left, order.leaves)
            left -= size
            if size:
                self._shrink(order, size)
                if not order.leaves and order.at_venue:
                    ended.append(order)
        for place in touched:
            level = list(self._levels.get(place, {}).values())
            here = [order for order in ended if (order.side, order.price) == place]
            if here or any(order.leaves != order.at_venue for order in level):
                self._requeue(level, here)

    def _requeue(self, level: list[_Order], ended: list[_Order]) -> None:
        self.tally.requeued += 1
        for order in (*level, *ended):
            if order.at_venue:
                self.venue.cancel(order.key)
        for order in level:
            order.total = order.at_venue = order.leaves
            self.venue.new(order.key, order.side, order.price, order.leaves)
