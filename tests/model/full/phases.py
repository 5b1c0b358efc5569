"""Phases of a full instrument: what they allow, and what a change of phase does (RULES §6, §13).

Cold; used by tests only. Leaving a call: fills, CROSSED, slices shown again, auction orders that
expire, BAND, PHASE, those that join, and then waves and pegs as behind every command.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import EventKind, Phase, Reason, RejectCode, TimeInForce
from tests.model.book_model import BUY, SELL, Order
from tests.model.checks_model import Command, refuse_if
from tests.model.full import auctions, bands, life
from tests.model.full.book import CALLS, FullBook
from tests.model.full.order import (
    AUCTION_TIFS,
    BUDGET,
    MARKET,
    MARKET_TO_LIMIT,
    PEGS,
    FullOrder,
    Place,
)

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
PRE_OPEN, OPENING = int(Phase.PRE_OPEN), int(Phase.OPENING_CALL)
CONTINUOUS, VOLATILITY = int(Phase.CONTINUOUS), int(Phase.VOLATILITY_CALL)
CLOSING, CLOSED = int(Phase.CLOSING_CALL), int(Phase.CLOSED)
HALTED, CANCEL_ONLY = int(Phase.HALTED), int(Phase.CANCEL_ONLY)
NO_ENTRY = {HALTED, CANCEL_ONLY}
OF_A_CALENDAR = {PRE_OPEN, OPENING, CLOSING, CLOSED}
OVERNIGHT = {int(TimeInForce.GTC), int(TimeInForce.GTD)} | AUCTION_TIFS
AT_ONCE = {int(TimeInForce.IOC), int(TimeInForce.FOK)}
CALLS_OF = {
    int(TimeInForce.AT_OPEN): {PRE_OPEN, OPENING},
    int(TimeInForce.AT_CLOSE): {CLOSING},
    int(TimeInForce.GOOD_FOR_AUCTION): CALLS,
}


# -------------------------------------------------------------------------------- what is allowed
def check_new(book: FullBook, c: Command) -> None:
    """303: a new order the present phase does not take."""
    kind, tif = c["order_type"], c["tif"]
    refuse_if(book.phase in NO_ENTRY, RejectCode.NOT_IN_PHASE)
    if book.phase == CLOSED:
        refuse_if(tif not in OVERNIGHT, RejectCode.NOT_IN_PHASE)
    if book.phase != CONTINUOUS:
        plain_market = kind in (MARKET, BUDGET) and tif not in AUCTION_TIFS
        only_live = kind in PEGS or kind == MARKET_TO_LIMIT or plain_market or tif in AT_ONCE
        post_only = c["flags"] & 1
        refuse_if(bool(only_live or c["min_qty"] or post_only), RejectCode.NOT_IN_PHASE)


def check_auction(book: FullBook, tif: int) -> None:
    """305: the calendar has no such call. Without calendar there are volatility and reopening
    calls only.
    """
    named = tif in (TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE)
    refuse_if(named and not book.has_calendar, RejectCode.NO_SUCH_AUCTION)


def check_replace(book: FullBook, order: FullOrder, c: Command, *, decreases: bool) -> None:
    """303: a replace the present phase does not take. One that only decreases is as a cancel."""
    if decreases:
        return
    refuse_if(book.phase in NO_ENTRY, RejectCode.NOT_IN_PHASE)
    overnight = order.tif in OVERNIGHT and c["tif"] in OVERNIGHT | {255}
    refuse_if(book.phase == CLOSED and not overnight, RejectCode.NOT_IN_PHASE)
    refuse_if(bool(book.phase != CONTINUOUS and c["min_qty"]), RejectCode.NOT_IN_PHASE)


def joins_now(book: FullBook, order: FullOrder) -> bool:
    """Is this the call an auction order is for?"""
    return order.tif in AUCTION_TIFS and book.phase in CALLS_OF[order.tif]


# ---------------------------------------------------------------------------------------- changes
def set_phase(model: ExchangeModel, book: FullBook, c: Command) -> Units:
    """SET_PHASE: `order_type` is the new phase, `expire_ts` until when (told, not acted upon)."""
    new, old = c["order_type"], book.phase
    refuse_if(not PRE_OPEN <= new <= CANCEL_ONLY, RejectCode.BAD_FIELD)
    refuse_if(c["expire_ts"] < 0, RejectCode.OUT_OF_RANGE)
    refuse_if(not _may_follow(book, new), RejectCode.NOT_IN_PHASE)
    model.touched.add(book.symbol_id)
    if _uncrosses(old, new):
        cross = auctions.find_cross(book)
        if cross.volume and bands.outside_static(book, cross.px):
            book.extensions += 1
            bands.tell(model, book)
            return
        yield from leave_call(model, book)
    if new == CANCEL_ONLY:
        book.resumes_to = old
    book.has_calendar = book.has_calendar or new in OF_A_CALENDAR
    yield from enter_phase(model, book, new, Reason.NONE, c["expire_ts"])


def _may_follow(book: FullBook, new: int) -> bool:
    old = book.phase
    if old in (CLOSED, HALTED) and new == CONTINUOUS:
        return False  # only through a call
    if old == CANCEL_ONLY:
        return new in (book.resumes_to, HALTED, CLOSED) and new != old
    return new != old


def _uncrosses(old: int, new: int) -> bool:
    if new == CONTINUOUS:
        return True
    left = old in CALLS and old != PRE_OPEN
    return left and new not in (HALTED, CANCEL_ONLY)


def leave_call(model: ExchangeModel, book: FullBook, *, once: bool = False) -> Units:
    """Uncross, and what ends with it: all that takes part and cannot rest."""
    before = (book.dynamic_ref, book.extensions)
    trades = book.trades
    yield from auctions.uncross(model, book)
    while not once and auctions.find_cross(book).volume:
        # Market orders came before better limits, which still meet somebody.
        yield from auctions.uncross(model, book)
    for order in list(model.orders.values()):
        assert isinstance(order, FullOrder) or order.symbol_id != book.symbol_id
        if order.symbol_id == book.symbol_id and _ends_with_a_cross(order):
            yield
            life.expire(model, book, order, Reason.AUCTION_END)
    book.extensions = 0
    book.dynamic_ref = book.last_px if book.trades > trades else _untraded_reference(book)
    has_bands = book.static_bps or book.dynamic_bps
    if has_bands and before != (book.dynamic_ref, book.extensions):
        bands.tell(model, book)


def _ends_with_a_cross(order: Order) -> bool:
    assert isinstance(order, FullOrder)
    return order.place in (Place.BOOK, Place.CALL) and not order.can_rest


def _untraded_reference(book: FullBook) -> int:
    # Best displayed price nearest the old reference; the old one where nothing is displayed.
    old = book.dynamic_ref
    best = [px for px in (book.best_shown(BUY), book.best_shown(SELL)) if px is not None]
    return min(best, key=lambda px: (abs(px - old), px)) if best and old else old


def enter_phase(
    model: ExchangeModel, book: FullBook, new: int, reason: Reason, until: int = 0
) -> Units:
    """PHASE, and auction orders that join."""
    old, book.phase = book.phase, new
    book.indicated = auctions.Cross()
    model.writer.add(
        EventKind.PHASE,
        symbol_id=book.symbol_id,
        code=new,
        amount=old,
        amount2=until,
        reason=int(reason),
        order_type=book.algorithm,
    )
    for order in list(book.parked):
        if joins_now(book, order):
            yield
            book.drop(order)
            model.writer.add_order(EventKind.ACTIVATED, order, px=order.px)
            life.rest(model, book, order)


def start_volatility_call(model: ExchangeModel, book: FullBook) -> Units:
    """A breach of the dynamic band, once the order that would have breached it is closed."""
    model.touched.add(book.symbol_id)
    yield from enter_phase(model, book, VOLATILITY, Reason.BAND)
