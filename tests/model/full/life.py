"""The events of one order's life: accepted, in the book, shown again, at its end.

Cold; used by tests only. Each function changes the state and tells it in one go. Which slice the
public sees leave or shrink stands in `shown_before`, `shown` and `public_ref` of the event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.records import EventFlag, EventKind, Reason, RejectCode, Role
from tests.model.full import links, quotes
from tests.model.full.book import FullBook
from tests.model.full.order import MARKET, FullOrder, Place

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel


def accept(model: ExchangeModel, order: FullOrder) -> None:
    """The order is one of the shard's from now on."""
    order.order_id = model.next_order_id()
    model.order_count += 1
    model.orders[order.order_id] = order
    if not order.is_quote:
        model.sessions.remember(order)  # two sides share one id: it names neither
    model.writer.add_order(
        EventKind.ACCEPTED, order, px=order.px, qty=order.total, amount2=order.peak
    )


def replaced(
    model: ExchangeModel, order: FullOrder, flags: int, shown_before: int, **fields: int
) -> None:
    """The answer to a replace."""
    model.writer.add_order(
        EventKind.REPLACED,
        order,
        flags=int(flags),
        px=order.px,
        qty=order.total,
        amount2=order.peak,
        shown_before=shown_before,
        **fields,
    )


def rest(model: ExchangeModel, book: FullBook, order: FullOrder, old_ref: int = 0) -> None:
    """The order enters the book; where no level is free for it, it expires instead. A market order
    of a call takes part beside the book.
    """
    if order.order_type == MARKET:
        order.rank = order.rank or book.next_rank()
        book.join_as_market(order)
        model.writer.add_order(EventKind.BOOKED, order, px=order.px, qty=order.leaves)
        return
    if not book.has_level(order.side, order.px):
        if model.level_count() >= model.limits.levels_max:
            expire(model, book, order, Reason.NONE, RejectCode.LEVELS_FULL)
            return
    if book.is_full(order.side, order.px):
        expire(model, book, order, Reason.NONE, RejectCode.TOO_MANY)
        return
    order.rank = order.rank or book.next_rank()
    order.shown = order.slice
    is_top = book.seek_top(order)
    order.public_ref = model.writer.next_public_ref() if order.shown else 0
    book.enter(order)
    kind, order.moves = EventKind.REPRICED if order.moves else EventKind.BOOKED, False
    model.writer.add_order(
        kind,
        order,
        px=order.px,
        qty=order.leaves,
        shown=order.shown,
        public_ref=order.public_ref,
        old_ref=old_ref,
        flags=int(EventFlag.TOP) if is_top else 0,
    )


def refresh(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """An exhausted slice shows again, as a new one."""
    old_ref, order.public_ref = order.public_ref, model.writer.next_public_ref()
    book.refresh(order)
    model.writer.add_order(
        EventKind.REFRESHED,
        order,
        px=order.px,
        qty=order.shown,
        shown=order.shown,
        public_ref=order.public_ref,
        old_ref=old_ref,
    )


def trade(
    model: ExchangeModel, book: FullBook, maker: FullOrder, taker: FullOrder, qty: int, px: int
) -> None:
    """A fill pair at the maker's price, with the end of whoever has nothing left."""
    book.trades += 1
    book.traded_at(px)
    shown_before = maker.shown
    book.fill(taker, maker, qty)
    flags = int(EventFlag.NON_FIFO | EventFlag.PRINTABLE) if book.in_rounds else 0
    common = {"px": px, "qty": qty, "trade_id": book.trades, "flags": flags}
    model.writer.add_order(
        EventKind.FILL,
        maker,
        role=int(Role.MAKER),
        public_ref=maker.public_ref,
        shown_before=shown_before,
        shown=maker.shown,
        **common,
    )
    unseen = qty - (shown_before - maker.shown)
    model.writer.add_order(
        EventKind.FILL, taker, role=int(Role.TAKER), shown_before=unseen, **common
    )
    for order in (maker, taker):
        quotes.note_fill(model, book, order, qty)
        if not order.leaves:
            forget(model, order)
    for order in (maker, taker):
        links.moved(model, book, order)
        if not order.leaves:
            links.ended(model, book, order)


def prevented(
    model: ExchangeModel, order: FullOrder, other: FullOrder, mode: int, qty: int, was: int
) -> None:
    """One side of a self-trade that did not happen."""
    model.writer.add_order(
        EventKind.PREVENTED,
        order,
        stp=mode,
        qty=qty,
        amount=other.order_id,
        public_ref=order.public_ref,
        shown_before=was,
        shown=order.shown,
    )


def expire(
    model: ExchangeModel,
    book: FullBook,
    order: FullOrder,
    reason: Reason,
    code: RejectCode = RejectCode.NONE,
    shown_before: int | None = None,
) -> None:
    """The order ends by the rules; `shown_before` where its slice is no longer what it was."""
    _leave(model, book, order, EventKind.EXPIRED, reason, code, shown_before)


def cancel(
    model: ExchangeModel,
    book: FullBook,
    order: FullOrder,
    reason: Reason,
    shown_before: int | None = None,
) -> None:
    """The order ends because somebody wants it to."""
    _leave(model, book, order, EventKind.CANCELED, reason, RejectCode.NONE, shown_before)


def _leave(
    model: ExchangeModel,
    book: FullBook,
    order: FullOrder,
    kind: EventKind,
    reason: Reason,
    code: RejectCode,
    shown_before: int | None,
) -> None:
    was = order.shown if shown_before is None else shown_before
    book.drop(order)
    forget(model, order)
    model.writer.add_order(
        kind,
        order,
        px=order.px,
        qty=order.leaves,
        leaves=0,
        public_ref=order.public_ref,
        shown_before=was,
        reason=int(reason),
        code=int(code),
    )
    links.moved(model, book, order)
    links.ended(model, book, order)


def forget(model: ExchangeModel, order: FullOrder) -> None:
    """The order is no longer live; its ids stay used."""
    order.place = Place.NOWHERE
    del model.orders[order.order_id]
    if not order.is_quote:
        model.sessions.forget(order)


KEPT, LEFT_BOOK, WILL_TRADE = EventFlag.KEPT, EventFlag.LEFT_BOOK, EventFlag.WILL_TRADE
