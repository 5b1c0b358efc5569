"""Batch modes: continuous in name, but orders wait for crosses (RULES §4, §13 Calls).

Cold; used by tests only. batch_auction crosses at multiples of n ms while something waits for it;
balanced_batch as soon as both sides have enough, or when it waited long enough. Immediate and
market orders live for one cross.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import Algorithm
from tests.model.book_model import BUY, SELL
from tests.model.full import auctions, phases
from tests.model.full.book import FullBook
from tests.model.full.order import MARKET, FullOrder

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
MS = 10**6


def crossing(book: FullBook, side: int) -> list[FullOrder]:
    """Orders of a side that meet the best price of the other."""
    others = [o.px for o in auctions.orders_of(book, 1 - side)]
    if not others:
        return []
    best = min(others) if side == BUY else max(others)
    own = auctions.orders_of(book, side)
    return [o for o in own if o.order_type == MARKET or o.reaches(best)]


def is_balanced(book: FullBook) -> bool:
    """Is there enough on both sides of a balanced batch?"""
    if not book.in_batch or book.algorithm != Algorithm.BALANCED_BATCH:
        return False
    sides = crossing(book, BUY), crossing(book, SELL)
    smaller, larger = sorted(sum(o.leaves for o in side) for side in sides)
    enough = min(len(side) for side in sides) >= book.min_orders
    return enough and 0 < smaller and smaller * 100 >= larger * book.balance_pct


def cross(model: ExchangeModel, book: FullBook) -> Units:
    """One cross, and what ends with it."""
    book.cross_at = None
    model.touched.add(book.symbol_id)
    yield from phases.leave_call(model, book, once=True)


def watch(model: ExchangeModel, book: FullBook) -> None:
    """Set or clear the time of the next cross."""
    if not book.in_batch or not _something_waits(book):
        book.cross_at = None
    elif book.cross_at is None:
        if book.algorithm == Algorithm.BALANCED_BATCH:
            book.cross_at = max(model.now + book.max_wait_ms * MS, 1)  # 0 is no time
        else:
            every = book.batch_ms * MS
            book.cross_at = (model.now // every + 1) * every


def _something_waits(book: FullBook) -> bool:
    if crossing(book, BUY) and crossing(book, SELL):
        return True
    both = [*auctions.orders_of(book, BUY), *auctions.orders_of(book, SELL)]
    timed = book.algorithm == Algorithm.BATCH_AUCTION
    return timed and any(not o.can_rest for o in both)


def due(model: ExchangeModel, now: int) -> list[FullBook]:
    """Books whose cross is due."""
    books = [b for b in model.books.values() if isinstance(b, FullBook)]
    return [b for b in books if b.cross_at is not None and b.cross_at <= now]
