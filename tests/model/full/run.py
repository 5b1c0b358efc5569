"""The run of an aggressor: it trades, it meets its own orders, and it is closed (RULES §4, §5).

Cold; used by tests only. A run ends with the order filled, in the book, or expired. A unit is a
fill pair with its consequences, or a prevention with the end of the maker.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum, auto
from typing import TYPE_CHECKING

from engine.records import Reason, SelfTrade
from tests.model.full import life, links, phases, quotes
from tests.model.full.allocation import Act, steps
from tests.model.full.book import FullBook
from tests.model.full.order import MARKET, FullOrder

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
TO_CALL = 0  # of the rule ON_BREACH; 1: what breaches expires


class End(Enum):
    """Why a match is over."""

    DONE = auto()
    PREVENTED = auto()  # self-trade prevention ends the taker
    BREACH = auto()


def run(model: ExchangeModel, book: FullBook, order: FullOrder, old_ref: int = 0) -> Units:
    """Trade, close, and protect quotes. `old_ref`: the slice that BOOKED replaces, if the public
    still has it.
    """
    yield from _run(model, book, order, old_ref)
    yield from quotes.protect(model, book)


def _run(model: ExchangeModel, book: FullBook, order: FullOrder, old_ref: int) -> Units:
    end = (yield from _match(model, book, order)) if book.trades_now else End.DONE
    if end == End.PREVENTED:
        life.expire(model, book, order, Reason.SELF_TRADE)
    elif end == End.BREACH:
        yield from _breach(model, book, order)
    elif order.leaves and not book.trades_now:
        life.rest(model, book, order, old_ref)
    elif order.leaves and order.can_rest:
        life.rest(model, book, order, old_ref)
    elif order.leaves:
        life.expire(model, book, order, remainder_reason(order))


def _breach(model: ExchangeModel, book: FullBook, order: FullOrder) -> Units:
    # What may rest joins the call that begins now, unless breaches only end the order.
    to_call = book.on_breach == TO_CALL
    if to_call and order.can_rest and not order.min_qty:
        life.rest(model, book, order)
    else:
        life.expire(model, book, order, Reason.BAND)
    if to_call:
        yield from phases.start_volatility_call(model, book)


def remainder_reason(order: FullOrder) -> Reason:
    """Why what is left of an order that cannot rest expires."""
    unlimited = order.order_type == MARKET or order.px == 0
    return Reason.MARKET_REMAINDER if unlimited else Reason.IOC_REMAINDER


def _match(model: ExchangeModel, book: FullBook, taker: FullOrder) -> Generator[None, None, End]:
    for step in steps(book, taker):
        maker = step.maker
        if step.act == Act.BREACH:
            return End.BREACH
        if maker is None:
            continue
        if step.act == Act.REFRESH:
            if book.in_rounds:
                yield
            life.refresh(model, book, maker)
            continue
        yield
        if step.act == Act.TRADE:
            life.trade(model, book, maker, taker, step.qty, maker.px)
        elif _prevent(model, book, taker, maker):
            return End.PREVENTED
    return End.DONE


def _prevent(model: ExchangeModel, book: FullBook, taker: FullOrder, maker: FullOrder) -> bool:
    """Both sides of a self-trade are told; says whether the taker ends."""
    mode = SelfTrade(taker.stp)
    if mode == SelfTrade.TRANSFER:
        mode = SelfTrade.DECREMENT  # a group is one account: nothing can be moved to another
    was = maker.shown
    qty = book.decrement(taker, maker) if mode == SelfTrade.DECREMENT else 0
    life.prevented(model, maker, taker, mode, qty, was)
    life.prevented(model, taker, maker, mode, qty, 0)
    if mode in (SelfTrade.EXPIRE_MAKER, SelfTrade.EXPIRE_BOTH) or not maker.leaves:
        life.expire(model, book, maker, Reason.SELF_TRADE, shown_before=was)
    for order in (maker, taker):
        links.moved(model, book, order)
    return mode in (SelfTrade.EXPIRE_TAKER, SelfTrade.EXPIRE_BOTH) or not taker.leaves
