"""What a single order goes through: new, cancel, replace, and the run of an aggressor.

Cold; used by tests only. Functions over the ExchangeModel. Each checks everything before it changes
anything; the order of the checks is the order of the codes (EVENTS §2).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import (
    UNSTATED,
    CommandFlag,
    EventFlag,
    EventKind,
    OrderType,
    Reason,
    RejectCode,
    Role,
    TimeInForce,
)
from tests.model import limits_model
from tests.model.book_model import Book, Order, Terms
from tests.model.checks_model import (
    Command,
    check_later_options,
    check_supported_new,
    refuse_if,
    target_text,
)
from tests.model.full import aftermath, enter
from tests.model.full import replace as full_replace
from tests.model.full.book import FullBook

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]


# -------------------------------------------------------------------------------------- new orders
def new(model: ExchangeModel, c: Command) -> Units:
    """Accept an order, let it trade, and book or expire what is left."""
    book = book_of_new(model, c)
    if isinstance(book, FullBook):
        yield from enter.new(model, book, c)
        return
    refuse_if(c["px"] > book.px_max, RejectCode.OUT_OF_RANGE)
    check_supported_new(c)
    order = _order_of(model, c, book)
    limits_model.check_plain_new(model, book, order)
    decided = _check_against_book(model, order, book)
    _check_capacity(model, order, book)
    refuse_if(not decided, RejectCode.WALK_TOO_LONG)
    model.order_count += 1
    model.orders[order.order_id] = order
    model.sessions.remember(order)
    model.writer.add_order(EventKind.ACCEPTED, order, px=order.px, qty=order.total)
    yield from _trade(model, order, book)
    if order.leaves and order.can_rest:
        _rest(model, order, book)
    elif order.leaves:
        _expire(model, order)


def book_of_new(model: ExchangeModel, c: Command) -> Book:
    """301, or the book a new order is for; unknown names may be listed by it."""
    book = model.reached = model.find_book(c)
    if book is None:
        by_number = c["symbol_id"] != 0
        refuse_if(by_number or not model.creates_symbols, RejectCode.UNKNOWN_SYMBOL)
        like = model.template
        terms = Terms(like.tick_units, like.lot_units, like.px_max)
        book = model.list_instrument(c["symbol"], terms)
        model.reached = book
    return book


def _order_of(model: ExchangeModel, c: Command, book: Book) -> Order:
    return Order(
        order_id=model.next_order_id(),
        client_order_id=c["client_order_id"],
        account=c["account"],
        session=c["session"],
        symbol_id=book.symbol_id,
        side=c["side"],
        order_type=c["order_type"],
        tif=c["tif"],
        px=c["px"],
        total=c["qty"],
        post_only=bool(c["flags"] & CommandFlag.POST_ONLY),
        tag=c["tag"],
        text=target_text(c),
    )


def _check_against_book(model: ExchangeModel, order: Order, book: Book) -> bool:
    # 5xx; False when the dry run of a FOK gave up (904, which stands behind 902 and 903).
    refuse_if(order.post_only and _would_trade(order, book), RejectCode.WOULD_TRADE)
    if order.order_type == OrderType.MARKET:
        refuse_if(book.best_px(1 - order.side) is None, RejectCode.NO_LIQUIDITY)
    if order.tif == TimeInForce.FOK:
        whole = book.fill_whole(order, model.limits.max_walk)
        refuse_if(whole is False, RejectCode.FOK_UNFILLED)
        return whole is not None
    return True


def _check_capacity(model: ExchangeModel, order: Order, book: Book) -> None:
    refuse_if(len(model.orders) >= model.limits.orders_max, RejectCode.ORDERS_FULL)
    if order.can_rest and not book.has_level(order.side, order.px):
        # Even if it will trade completely: nobody knows before the match.
        refuse_if(model.level_count() >= model.limits.levels_max, RejectCode.LEVELS_FULL)


# ----------------------------------------------------------------------------- the run of an order
def _would_trade(order: Order, book: Book) -> bool:
    return book.would_trade(order.side, order.order_type, order.px)


def _trade(model: ExchangeModel, taker: Order, book: Book) -> Units:
    while taker.leaves and _would_trade(taker, book):
        yield
        maker = book.front(1 - taker.side)
        shown_before = maker.leaves
        qty = book.trade(taker, maker)
        trade = {"px": maker.px, "qty": qty, "trade_id": book.trades}
        model.writer.add_order(
            EventKind.FILL,
            maker,
            role=int(Role.MAKER),
            public_ref=maker.public_ref,
            shown_before=shown_before,
            shown=maker.leaves,
            **trade,
        )
        model.writer.add_order(EventKind.FILL, taker, role=int(Role.TAKER), **trade)
        for order in (maker, taker):
            if not order.leaves:
                _end(model, order)


def _rest(model: ExchangeModel, order: Order, book: Book, old_ref: int = 0) -> None:
    order.public_ref = model.writer.next_public_ref()
    book.rest(order)
    model.writer.add_order(
        EventKind.BOOKED,
        order,
        px=order.px,
        qty=order.leaves,
        shown=order.leaves,
        public_ref=order.public_ref,
        old_ref=old_ref,
    )


def _expire(model: ExchangeModel, order: Order) -> None:
    is_market = order.order_type == OrderType.MARKET
    reason = Reason.MARKET_REMAINDER if is_market else Reason.IOC_REMAINDER
    _end(model, order)
    model.writer.add_order(
        EventKind.EXPIRED, order, px=order.px, qty=order.leaves, leaves=0, reason=int(reason)
    )


def _end(model: ExchangeModel, order: Order) -> None:
    del model.orders[order.order_id]
    model.sessions.forget(order)


# ------------------------------------------------------------------------------ cancel and replace
def cancel(model: ExchangeModel, order: Order, reason: Reason) -> None:
    """End a live order before it is filled."""
    book = model.books[order.symbol_id]
    if isinstance(book, FullBook):
        aftermath.cancel(model, book, order, reason)
        return
    book.take_out(order)
    _end(model, order)
    model.writer.add_order(
        EventKind.CANCELED,
        order,
        px=order.px,
        qty=order.leaves,
        leaves=0,
        public_ref=order.public_ref,
        shown_before=order.leaves,
        reason=int(reason),
    )


def replace(model: ExchangeModel, c: Command) -> Units:
    """Change price or total quantity of a resting order (RULES §3)."""
    order = model.target(c)
    book = model.books[order.symbol_id]
    if isinstance(book, FullBook):
        yield from full_replace.replace(model, book, order, c)
        return
    px, total = c["px"] or order.px, c["qty"] or order.total
    refuse_if(px > book.px_max, RejectCode.OUT_OF_RANGE)
    check_later_options(c)
    refuse_if(_changes_identity(order, c), RejectCode.IMMUTABLE)
    if total > order.cum:
        limits_model.check_plain_replace(model, book, order, px, total)
    shown_before = order.leaves
    if total <= order.cum:
        cancel(model, order, Reason.REPLACED_BELOW_FILLED)
    elif px == order.px and total <= order.total:
        order.total = total
        ref, kept = order.public_ref, EventFlag.KEPT
        _replaced(model, order, kept, shown_before, shown=order.leaves, public_ref=ref)
    else:
        yield from _requeue(model, order, px, total)


def _requeue(model: ExchangeModel, order: Order, px: int, total: int) -> Units:
    # The order leaves its place, may trade, and goes to the back of a level.
    book = model.books[order.symbol_id]
    crosses = book.would_trade(order.side, order.order_type, px)
    refuse_if(order.post_only and crosses, RejectCode.WOULD_TRADE)
    if not book.has_level(order.side, px):
        freed = len(book.levels[order.side][order.px]) == 1  # it stands alone on its level
        full = model.level_count() - freed >= model.limits.levels_max
        refuse_if(full, RejectCode.LEVELS_FULL)
    old_ref, shown_before = order.public_ref, order.leaves
    book.take_out(order)
    order.px, order.total, order.public_ref = px, total, 0
    flags = EventFlag.LEFT_BOOK | (EventFlag.WILL_TRADE if crosses else 0)
    _replaced(model, order, flags, shown_before, old_ref=old_ref)
    yield from _trade(model, order, book)
    if order.leaves:
        # Not traded: the public sees one step, old slice to new (ITCH U).
        _rest(model, order, book, old_ref=0 if crosses else old_ref)


def _replaced(
    model: ExchangeModel, order: Order, flags: int, shown_before: int, **fields: int
) -> None:
    model.writer.add_order(
        EventKind.REPLACED,
        order,
        flags=int(flags),
        px=order.px,
        qty=order.total,
        shown_before=shown_before,
        **fields,
    )


def _changes_identity(order: Order, c: Command) -> bool:
    # Side, time in force, type and symbol are for life.
    return (
        c["side"] not in (UNSTATED, order.side)
        or c["tif"] not in (UNSTATED, order.tif)
        or c["order_type"] not in (0, order.order_type)
        or c["symbol_id"] not in (0, order.symbol_id)
    )
