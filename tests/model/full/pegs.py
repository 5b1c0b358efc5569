"""Pegged orders: their price follows displayed prices, once per command (RULES §2, §13).

Cold; used by tests only. References are displayed orders that are no pegs. Behind the waves of a
command all pegs whose price changes are taken out, then each enters again in entry order; one
without reference is parked.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import EventKind, OrderType, RejectCode
from tests.model.book_model import BUY
from tests.model.checks_model import refuse_if
from tests.model.full import enter, life
from tests.model.full.book import FullBook
from tests.model.full.order import PEGS, FullOrder, Place
from tests.model.full.run import run

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
PRIMARY, MID = int(OrderType.PEG_PRIMARY), int(OrderType.PEG_MID)


# ------------------------------------------------------------------------------------------- prices
def reference(book: FullBook, side: int) -> int | None:
    """Best price of a side at which a displayed order is no peg."""
    found = [o.px for o in book.orders(side) if o.shown and o.order_type not in PEGS]
    return found[0] if found else None


def target(book: FullBook, order: FullOrder) -> int | None:
    """The price the peg has to have now; None: there is none for it."""
    if not book.trades_now:
        return None
    own, other = reference(book, order.side), reference(book, 1 - order.side)
    towards = 1 if order.side == BUY else -1
    if order.order_type == MID:
        if own is None or other is None:
            return None
        px = (own + other) // 2 if order.side == BUY else -(-(own + other) // 2)
    else:
        at = own if order.order_type == PRIMARY else other
        if at is None:
            return None
        best = book.best_px(1 - order.side)
        px = at if best is None else _less(order.side, at, best - towards)
    px = _less(order.side, px, order.cap)
    return px if 1 <= px <= book.px_max else None


def _less(side: int, one: int, other: int) -> int:
    # The less aggressive of two prices.
    return min(one, other) if side == BUY else max(one, other)


# -------------------------------------------------------------------------------------------- entry
def prepare(model: ExchangeModel, book: FullBook, order: FullOrder) -> enter.Start:
    """Accepted at its cap; then it enters at its price, or is parked."""
    order.cap = order.px
    px = target(book, order)
    enter.check_slot(model)
    if px is not None and not book.has_level(order.side, px):
        refuse_if(model.level_count() >= model.limits.levels_max, RejectCode.LEVELS_FULL)

    def start() -> Units:
        if px is None:
            park(model, book, order)
        else:
            order.px = px
            yield from run(model, book, order)

    return start


def park(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """No reference, or no continuous trading: it waits unseen."""
    order.px = order.cap
    shown_before, ref = order.shown, order.public_ref
    order.shown = order.public_ref = order.rank = 0
    order.place = Place.PARKED
    book.parked_pegs.append(order)
    model.writer.add_order(
        EventKind.PARKED, order, px=order.px, public_ref=ref, shown_before=shown_before
    )


def replace(model: ExchangeModel, book: FullBook, order: FullOrder, wanted: FullOrder) -> Units:
    """A new cap or a larger total: it loses its place and enters again at its price."""
    parked = order.place == Place.PARKED
    shown_before, old_ref = order.shown, order.public_ref
    book.drop(order)
    order.cap, order.total, order.px = wanted.px, wanted.total, wanted.px
    order.tif, order.expire_at = wanted.tif, wanted.expire_at
    order.rank = 0
    px = target(book, order)
    order.shown = order.public_ref = 0
    life.replaced(model, order, life.LEFT_BOOK, shown_before, old_ref=old_ref)
    order.shown, order.public_ref = shown_before, old_ref
    if parked:
        order.place = Place.PARKED
        book.parked_pegs.append(order)
    elif px is None:
        park(model, book, order)
    else:
        yield from _enter(model, book, order, px)


# --------------------------------------------------------------------------------------- repricing
def reprice(model: ExchangeModel, book: FullBook) -> Units:
    """All pegs of the book to where they belong."""
    live = [o for o in model.orders.values() if isinstance(o, FullOrder)]
    pegs = [o for o in live if o.symbol_id == book.symbol_id and o.order_type in PEGS]
    moving = [o for o in pegs if target(book, o) != _present(o)]
    for order in moving:
        book.drop(order)
    for order in moving:
        if order.order_id not in model.orders:
            continue
        yield
        px = target(book, order)
        if px is None:
            park(model, book, order)
        else:
            yield from _enter(model, book, order, px, repriced=True)


def _present(order: FullOrder) -> int | None:
    return None if order.place == Place.PARKED else order.px


def _enter(
    model: ExchangeModel,
    book: FullBook,
    order: FullOrder,
    px: int,
    *,
    repriced: bool = False,
) -> Units:
    # What the public still sees is replaced by REPRICED or BOOKED, or leaves with the end.
    order.px, order.rank, order.moves = px, 0, repriced
    yield from run(model, book, order, order.public_ref)
