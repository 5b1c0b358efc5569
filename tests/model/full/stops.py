"""Stops, take-profits and trailing stops: pending until the market reaches them (RULES §2, §13).

Cold; used by tests only. A wave looks at what happened since the wave before it: the lowest and the
highest trade, the newest trade, the best displayed prices. All it elects are triggered and run one
after the other, buys by ascending, then sells by descending trigger; then the next wave looks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import EventKind, Reason, RejectCode
from tests.model.book_model import BUY
from tests.model.checks_model import Refused, refuse_if
from tests.model.full import enter, life, links
from tests.model.full.book import FullBook
from tests.model.full.order import STOP_MARKETS, TAKE_PROFITS, TRAILING, FullOrder, Place
from tests.model.full.run import run

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]


# -------------------------------------------------------------------------------------- conditions
def reached(order: FullOrder, low: int, high: int) -> bool:
    """Do prices from `low` to `high` reach the order's trigger? 0: there are none."""
    if not low:
        return False
    upwards = (order.side == BUY) != (order.order_type in TAKE_PROFITS)
    return high >= order.trigger if upwards else low <= order.trigger


def holds_now(book: FullBook, order: FullOrder) -> bool:
    """Is its condition true as the market stands?"""
    if order.order_type in TRAILING:
        return False  # it starts at the last price, and its distance is at least a tick
    px = (book.best_shown(1 - order.side) or 0) if order.on_best else book.last_px
    return reached(order, px, px)


def start_trailing(book: FullBook, order: FullOrder) -> None:
    """The extreme begins with the last price; an activation price may have to be reached first."""
    order.active, order.extreme = order.activation == 0, 0
    _move_extreme(order, book.last_px, book.last_px)


def _move_extreme(order: FullOrder, low: int, high: int) -> None:
    if not low:
        return
    if order.side == BUY:
        order.active = order.active or low <= order.activation
        if order.active:
            order.extreme = min(order.extreme or low, low)
    else:
        order.active = order.active or high >= order.activation
        if order.active:
            order.extreme = max(order.extreme, high)
    if order.active and order.extreme:
        order.trigger = _trailing_trigger(order)


def _trailing_trigger(order: FullOrder) -> int:
    ticks = order.distance
    if order.in_bps:
        ticks = max(-(-order.extreme * order.distance // 10_000), 1)
    # Unclamped: a trigger below the first tick is never reached.
    return order.extreme + (ticks if order.side == BUY else -ticks)


# -------------------------------------------------------------------------------------------- entry
def check(book: FullBook, order: FullOrder) -> None:
    """506 of a new or changed trigger."""
    refuse_if(holds_now(book, order), RejectCode.TRIGGER_TRUE)


def wait(book: FullBook, order: FullOrder) -> None:
    """The order waits, behind those that wait already."""
    order.place = Place.PENDING
    book.pending.append(order)


# -------------------------------------------------------------------------------------------- waves
def waves(model: ExchangeModel, book: FullBook) -> Units:
    """Wave after wave until one elects nothing."""
    while book.elects:
        elected = _elect(book)
        if not elected:
            return
        for order in elected:
            if not book.elects:
                return  # a call began: what did not run stays pending
            if order.place == Place.PENDING:
                yield
                yield from fire(model, book, order)


def _elect(book: FullBook) -> list[FullOrder]:
    low, high = book.wave_low, book.wave_high
    book.wave_low = book.wave_high = 0
    elected = [order for order in book.pending if _is_elected(book, order, low, high)]
    # Sorting is stable: ties stay in the order in which they wait.
    return sorted(elected, key=lambda o: (o.side, o.trigger if o.side == BUY else -o.trigger))


def _is_elected(book: FullBook, order: FullOrder, low: int, high: int) -> bool:
    if order.order_type in TRAILING:
        _move_extreme(order, low, high)
        is_set = order.active and order.extreme and low
        return bool(is_set) and reached(order, book.last_px, book.last_px)
    if order.on_best:
        best = book.best_shown(1 - order.side) or 0
        return reached(order, best, best)
    return reached(order, low, high)


def _trigger(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    book.drop(order)
    order.triggered = True
    if order.order_type in STOP_MARKETS or order.order_type == enter.TRAILING_STOP:
        cap = order.px
        order.px = 0
        if book.protection:
            order.px = enter.beyond(order.side, order.trigger, book.protection)
        if cap:
            tighter = min if order.side == BUY else max
            order.px = tighter(order.px or cap, cap)
    model.writer.add_order(EventKind.TRIGGERED, order, px=order.px, px2=order.trigger)


def fire(model: ExchangeModel, book: FullBook, order: FullOrder) -> Units:
    """TRIGGERED, and its run."""
    _trigger(model, book, order)
    links.moved(model, book, order)
    yield from go(model, book, order)


def go(model: ExchangeModel, book: FullBook, order: FullOrder) -> Units:
    """Run an order that comes to life later than it was entered; post-only is judged now."""
    try:
        if not order.px and not book.trades_now:
            order.px = enter.call_price(book, order.side)
        enter.derive_limit(book, order, protected=False)
    except Refused as refusal:
        life.expire(model, book, order, Reason.NONE, refusal.code)
        return
    yield from run(model, book, order)
