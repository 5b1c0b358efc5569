"""The uncross of a call: one price for all who meet (RULES §6, §13 Calls).

Cold; used by tests only. An order is one or two entries: its displayed slice, then its reserve; a
hidden one is one entry. Both sides are sorted and paired head to head. Self-trade prevention is
off.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from engine.records import QTY_LOTS_MAX, Algorithm, EventFlag, EventKind, Role
from tests.model.book_model import BUY, SELL
from tests.model.full import life, links, quotes
from tests.model.full.book import FullBook
from tests.model.full.order import MARKET, FullOrder

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]


class Cross(NamedTuple):
    """What an uncross at this moment would do. px 0: nothing meets."""

    px: int = 0
    volume: int = 0
    surplus: int = 0
    side: int = BUY  # of the surplus


@dataclass(slots=True)
class Entry:
    """A part of an order as it takes part."""

    order: FullOrder
    qty: int
    layer: int  # 0 displayed, 1 reserve, 2 hidden

    @property
    def key(self) -> tuple[int, int, int, int]:
        o = self.order
        aggression = -o.px if o.side == BUY else o.px
        if o.order_type == MARKET:
            return (0, 0, 0, o.rank)
        return (1, aggression, self.layer, o.rank)


# ------------------------------------------------------------------------------------ the one price
def orders_of(book: FullBook, side: int) -> list[FullOrder]:
    """All who take part on a side."""
    return [*book.orders(side), *(o for o in book.call_markets if o.side == side)]


def open_at(book: FullBook, side: int, px: int) -> int:
    """Quantity of a side that would trade at px."""
    return sum(o.leaves for o in orders_of(book, side) if o.reaches(px))


def cross_at(book: FullBook, px: int) -> Cross:
    buy, sell = open_at(book, BUY, px), open_at(book, SELL, px)
    return Cross(px, min(buy, sell), abs(buy - sell), BUY if buy >= sell else SELL)


def find_cross(book: FullBook) -> Cross:
    """Most volume, least surplus, pressure, nearest the reference, the middle."""
    both = [*orders_of(book, BUY), *orders_of(book, SELL)]
    reference = book.reference
    if all(o.order_type == MARKET for o in both):
        found = cross_at(book, reference) if reference else Cross()
        return found if found.volume else Cross()
    # Between two limits nothing changes: a stretch of ticks is judged by its lowest.
    stretches = [(cross_at(book, low), high) for low, high in _stretches({o.px for o in both})]
    most = max(cross.volume for cross, _ in stretches)
    if not most:
        return Cross()
    left = [row for row in stretches if row[0].volume == most]
    if book.in_batch and book.algorithm == Algorithm.BALANCED_BATCH:
        done = [completed(book, cross) for cross, _ in left]
        left = [row for row, n in zip(left, done, strict=True) if n == max(done)]
    least = min(cross.surplus for cross, _ in left)
    left = [row for row in left if row[0].surplus == least]
    return cross_at(book, _choose(left, reference))


def _stretches(limits: set[int]) -> Iterator[tuple[int, int]]:
    prices = sorted(limits)
    for px, after in pairwise(prices):
        yield px, px
        if after - px > 1:
            yield px + 1, after - 1
    yield prices[-1], prices[-1]


def _choose(left: list[tuple[Cross, int]], reference: int) -> int:
    lowest, highest = left[0][0].px, left[-1][1]
    sides = {cross.side for cross, _ in left}
    if left[0][0].surplus and len(sides) == 1:
        return highest if sides == {BUY} else lowest
    wanted = reference or (lowest + highest) // 2
    nearest = [min(max(wanted, cross.px), high) for cross, high in left]
    return min(nearest, key=lambda px: (abs(px - wanted), px))


# -------------------------------------------------------------------------------------- the trades
def entries(book: FullBook, side: int, px: int) -> list[Entry]:
    """Who trades at px, in the order of the fills."""
    found = []
    for o in orders_of(book, side):
        if o.reaches(px):
            if o.shown:
                found.append(Entry(o, o.shown, 0))
            if o.leaves > o.shown:
                found.append(Entry(o, o.leaves - o.shown, 1 if o.shown else 2))
    return sorted(found, key=lambda entry: entry.key)


def balanced_entries(book: FullBook, side: int, cross: Cross) -> list[Entry]:
    """Balanced batch: whole orders; at the price that is filled in part the smallest come first."""
    found = [Entry(o, o.leaves, 0) for o in orders_of(book, side) if o.reaches(cross.px)]
    found.sort(key=lambda entry: entry.key)
    before = 0
    for price in sorted({entry.key[:2] for entry in found}):
        row = [entry for entry in found if entry.key[:2] == price]
        size = sum(entry.qty for entry in row)
        if before + size > cross.volume:
            row.sort(key=lambda entry: (entry.qty, entry.order.rank))
            better = [entry for entry in found if entry.key[:2] < price]
            return better + row
        before += size
    return found


def completed(book: FullBook, cross: Cross) -> int:
    """How many orders this cross would fill completely."""
    count = 0
    for side in (BUY, SELL):
        left = cross.volume
        for entry in balanced_entries(book, side, cross):
            left -= entry.qty
            count += left >= 0
    return count


def uncross(model: ExchangeModel, book: FullBook) -> Units:
    """Fill all that meet at one price; CROSSED; then slices show again."""
    cross = find_cross(book)
    exhausted: list[FullOrder] = []
    pairs = 0
    if cross.volume:
        if book.in_batch and book.algorithm == Algorithm.BALANCED_BATCH:
            buys, sells = (balanced_entries(book, side, cross) for side in (BUY, SELL))
        else:
            buys, sells = (entries(book, side, cross.px) for side in (BUY, SELL))
        while buys and sells:
            yield
            buy, sell = buys[0], sells[0]
            qty = min(buy.qty, sell.qty)
            book.trades += 1
            pairs += 1
            for entry in (buy, sell):
                _fill(model, book, entry, cross.px, qty)
            for entry in (buy, sell):
                links.moved(model, book, entry.order)
            for entry in (buy, sell):
                order = entry.order
                if order.peak and order.leaves and not order.shown and order not in exhausted:
                    exhausted.append(order)
            buys = buys if buy.qty else buys[1:]
            sells = sells if sell.qty else sells[1:]
        book.traded_at(cross.px)
    model.writer.add(
        EventKind.CROSSED,
        symbol_id=book.symbol_id,
        px=cross.px,
        qty=min(cross.volume, QTY_LOTS_MAX),
        amount=pairs,
        amount2=cross.volume,
    )
    for order in exhausted:
        if order.leaves:
            yield
            life.refresh(model, book, order)


def _fill(model: ExchangeModel, book: FullBook, entry: Entry, px: int, qty: int) -> None:
    order = entry.order
    shown_before = order.shown
    entry.qty -= qty
    order.cum += qty
    if not entry.layer:
        order.shown -= min(order.shown, qty)
    model.writer.add_order(
        EventKind.FILL,
        order,
        flags=int(EventFlag.NON_FIFO),
        role=int(Role.AUCTION),
        px=px,
        qty=qty,
        trade_id=book.trades,
        public_ref=0 if entry.layer else order.public_ref,
        shown_before=shown_before,
        shown=order.shown,
    )
    quotes.note_fill(model, book, order, qty)
    if not order.leaves:
        book.drop(order)
        life.forget(model, order)
        links.ended(model, book, order)
