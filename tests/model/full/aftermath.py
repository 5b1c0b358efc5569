"""What follows when an order of a full instrument ends from outside, and when a command is done.

Cold; used by tests only. `finish` runs behind each command that touched a full book and before the
SUMMARY of a mass cancel.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import Reason
from tests.model.book_model import Order
from tests.model.full import batches, indicative, life, pegs, quotes, stops
from tests.model.full.book import FullBook
from tests.model.full.order import FullOrder, Place

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]


def cancel(model: ExchangeModel, book: FullBook, order: Order, reason: Reason) -> None:
    """End an order because somebody wants it to."""
    assert isinstance(order, FullOrder)
    model.touched.add(book.symbol_id)
    life.cancel(model, book, order, reason)


def expire(model: ExchangeModel, book: FullBook, order: FullOrder, reason: Reason) -> None:
    """End an order because its time is over."""
    model.touched.add(book.symbol_id)
    life.expire(model, book, order, reason)


def finish(model: ExchangeModel) -> Units:
    """Bring every book that was touched to rest, in the order of their numbers."""
    touched = sorted(model.touched)
    model.touched.clear()
    for symbol_id in touched:
        book = model.books[symbol_id]
        assert isinstance(book, FullBook)
        yield from quotes.protect(model, book)
        if batches.is_balanced(book):
            yield from batches.cross(model, book)
            yield from quotes.protect(model, book)
        yield from stops.waves(model, book)
        yield from pegs.reprice(model, book)
        yield from stops.waves(model, book)
        if not book.trades_now:
            yield from pegs.reprice(model, book)  # a call that began meanwhile parks them all
        book.end_command()
        batches.watch(model, book)
        indicative.watch(model, book)
    model.touched.clear()


def waiting(model: ExchangeModel) -> set[int]:
    """Ids of live orders that are not in a book."""
    orders = [o for o in model.orders.values() if isinstance(o, FullOrder)]
    return {o.order_id for o in orders if o.place in (Place.PENDING, Place.PARKED, Place.CALL)}


def shown(order: Order) -> int:
    """Quantity of an order that the public sees."""
    return order.shown if isinstance(order, FullOrder) else order.leaves
