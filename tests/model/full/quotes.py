"""Two-sided quotes and market-maker protection (RULES §1, §13 Quotes).

Cold; used by tests only. A quote is up to two DAY limits of an account, replaced together. All
checks first; then sides that lose priority leave, both sides are answered, the bid enters, the ask.

What a protection remembers is bounded: fills are counted in parts of a 63rd of the window, rounded
up, that lie on the clock; one counts until its part has left the window altogether.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.records import (
    QTY_LOTS_MAX,
    EventFlag,
    EventKind,
    Reason,
    RejectCode,
    SelfTrade,
    TimeInForce,
)
from tests.model import limits_model
from tests.model.book_model import BUY, SELL
from tests.model.checks_model import Command, Refused, refuse_if, target_text
from tests.model.full import bands, enter, life
from tests.model.full.book import FullBook
from tests.model.full.order import LIMIT, FullOrder
from tests.model.full.run import run

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
DAY = int(TimeInForce.DAY)


PARTS = 63  # of a window
LONGEST_NS = 2**60
OF_A_START = 1


@dataclass(slots=True)
class Protection:
    """What an account may have filled on its quotes of one instrument within a window."""

    limit: int
    window: int
    fired: bool = False
    parts: dict[int, int] = field(default_factory=dict)  # lots by part of the clock

    @property
    def width(self) -> int:
        """Length of a part."""
        return -(-self.window // PARTS)

    def note(self, now: int, qty: int) -> None:
        """A fill."""
        part = now // self.width
        self.parts[part] = self.parts.get(part, 0) + qty

    def sum(self, now: int) -> int:
        """Lots in the parts that have not left the window altogether."""
        left = {part: n for part, n in self.parts.items() if self._counts(part, now)}
        self.parts = left
        return sum(left.values())

    def _counts(self, part: int, now: int) -> bool:
        return (part + 1) * self.width - 1 > now - self.window


# ------------------------------------------------------------------------------------------ quotes
def check_fields(c: Command) -> None:
    """103, and 105 of its own: two orders cannot share one text."""
    numbers = (c["px"], c["qty"], c["px2"], c["qty2"])
    unpriced = (c["qty"] and not c["px"]) or (c["qty2"] and not c["px2"])
    refuse_if(min(numbers) < 0 or bool(unpriced), RejectCode.OUT_OF_RANGE)
    refuse_if(bool(target_text(c)), RejectCode.BAD_CLIENT_ID)


def quote(model: ExchangeModel, book: FullBook, c: Command) -> Units:
    """Replace both sides of the account's quote."""
    refuse_if(max(c["px"], c["px2"]) > book.px_max, RejectCode.OUT_OF_RANGE)
    sides = ((BUY, c["px"], c["qty"]), (SELL, c["px2"], c["qty2"]))
    wanted = {side: (px, qty) for side, px, qty in sides if qty}
    there = live_quote(model, book, c["account"])
    _check(model, book, c, wanted, there)
    model.touched.add(book.symbol_id)
    entering = []
    for side in (BUY, SELL):
        order = there.get(side)
        if order and not _keeps(order, wanted.get(side)):
            order.old = (order.public_ref, order.shown)
            book.drop(order)
    answered = [side for side in (BUY, SELL) if side in there or side in wanted]
    for side in answered:
        order = _answer(model, book, c, side, there.get(side), wanted.get(side))
        if order:
            entering.append(order)
        if side != answered[-1]:
            model.writer.events[-1]["flags"] |= int(EventFlag.MORE)
    for order in entering:
        if order.order_id in model.orders:  # protection may have fired in between
            old_ref, order.old_ref = order.old_ref, 0
            yield from run(model, book, order, old_ref)


def live_quote(model: ExchangeModel, book: FullBook, account: int) -> dict[int, FullOrder]:
    """The live sides of an account's quote."""
    orders = [o for o in model.orders.values() if isinstance(o, FullOrder) and o.is_quote]
    return {o.side: o for o in orders if (o.symbol_id, o.account) == (book.symbol_id, account)}


def _check(
    model: ExchangeModel,
    book: FullBook,
    c: Command,
    wanted: dict[int, tuple[int, int]],
    there: dict[int, FullOrder],
) -> None:
    if not wanted:
        refuse_if(not there, RejectCode.UNKNOWN_ORDER)
        return  # as good as a cancel
    refuse_if(not (book.trades_now or book.in_batch), RejectCode.NOT_IN_PHASE)
    refuse_if(bool(c["stp"] or c["flags"] & ~16), RejectCode.NOT_SUPPORTED_HERE)
    for side, (px, _) in wanted.items():
        bands.check_static(book, side, px)
    for side, (px, qty) in wanted.items():
        order = there.get(side)
        enters = order is None or not _keeps(order, (px, qty))
        refuse_if(enters and book.is_full(side, px, but=order), RejectCode.TOO_MANY)
    crossed = len(wanted) == 2 and wanted[BUY][0] >= wanted[SELL][0]
    refuse_if(crossed, RejectCode.QUOTE_CROSSED)
    _check_limits(model, book, c["account"], wanted, there)
    protection = book.protections.get(c["account"])
    refuse_if(protection is not None and protection.fired, RejectCode.MMP_ACTIVE)
    # What a side that goes gives back is there for the next command.
    slots = len(model.orders) + sum(side not in there for side in wanted)
    refuse_if(slots > model.limits.orders_max, RejectCode.ORDERS_FULL)
    refuse_if(_is_new_and_too_many(model, book, c["account"]), RejectCode.ORDERS_FULL)
    _check_levels(model, book, wanted, there)


def _check_limits(
    model: ExchangeModel,
    book: FullBook,
    account: int,
    wanted: dict[int, tuple[int, int]],
    there: dict[int, FullOrder],
) -> None:
    # 403 to 406 of both sides, the lowest code first: the quantity of a side is what is open of it.
    more = len(wanted) - len(there)
    refusals = []
    for side, (px, qty) in wanted.items():
        old = there.get(side)
        before = limits_model.Size(old.leaves, old.leaves * old.px) if old else (0, 0)
        sizes = limits_model.Size(*before), limits_model.Size(qty, qty * px)
        try:
            limits_model.check(model, book, account, side, *sizes, orders=max(more, 0))
        except Refused as refusal:
            refusals.append(refusal.code)
    if refusals:
        raise Refused(min(refusals))


def _is_new_and_too_many(model: ExchangeModel, book: FullBook, account: int) -> bool:
    # Accounts that quote an instrument, or are protected there, have a place each.
    quotes = [o for o in model.orders.values() if isinstance(o, FullOrder) and o.is_quote]
    taken = {(o.symbol_id, o.account) for o in quotes}
    for other in model.books.values():
        if isinstance(other, FullBook):
            taken |= {(other.symbol_id, number) for number in other.protections}
    return len(taken) >= model.limits.quoters_max and (book.symbol_id, account) not in taken


def _check_levels(
    model: ExchangeModel,
    book: FullBook,
    wanted: dict[int, tuple[int, int]],
    there: dict[int, FullOrder],
) -> None:
    # As if the sides that leave had left, and those that enter came to rest.
    twin = book.twin()
    before = twin.level_count()
    for side, order in there.items():
        if not _keeps(order, wanted.get(side)):
            level = twin.level_at(side, order.px)
            twin.take_out(next(o for o in level.values() if o.order_id == order.order_id))
    for side, (px, _) in wanted.items():
        if not twin.has_level(side, px):
            probe = FullOrder(0, 0, 0, 0, 0, side, LIMIT, DAY, px, 1, False, 0, b"")
            twin.enter(probe)
    more = twin.level_count() - before
    full = more > 0 and model.level_count() + more > model.limits.levels_max
    refuse_if(full, RejectCode.LEVELS_FULL)


def _keeps(order: FullOrder, wanted: tuple[int, int] | None) -> bool:
    return wanted is not None and wanted[0] == order.px and wanted[1] <= order.leaves


def _answer(
    model: ExchangeModel,
    book: FullBook,
    c: Command,
    side: int,
    order: FullOrder | None,
    wanted: tuple[int, int] | None,
) -> FullOrder | None:
    # One side; returns the order when it enters the book now.
    if order is None:
        return _accept(model, book, c, side, wanted) if wanted else None
    order.client_order_id, order.session = c["client_order_id"], c["session"]
    if wanted is None:
        order.public_ref, shown = order.old
        life.cancel(model, book, order, Reason.CLIENT, shown_before=shown)
        return None
    kept = _keeps(order, wanted)
    order.total = order.gone + wanted[1]
    order.expire_at = enter.expiry(model, DAY, 0)
    if kept:
        shown_before, order.shown = order.shown, order.leaves
        ref = order.public_ref
        life.replaced(model, order, life.KEPT, shown_before, shown=order.shown, public_ref=ref)
        return None
    old_ref, shown_before = order.old
    order.px, order.shown, order.public_ref, order.rank = wanted[0], 0, 0, 0
    trades = book.trades_now and book.meets(order)
    flags = life.LEFT_BOOK | (life.WILL_TRADE if trades else 0)
    life.replaced(model, order, flags, shown_before, old_ref=old_ref)
    order.old_ref = 0 if trades else old_ref
    return order


def _accept(
    model: ExchangeModel, book: FullBook, c: Command, side: int, wanted: tuple[int, int] | None
) -> FullOrder:
    assert wanted is not None
    plain = copy.copy(dict(c)) | {"side": side, "order_type": LIMIT, "tif": DAY, "flags": 0}
    numbers = {"px": wanted[0], "qty": wanted[1], "px2": 0, "qty2": 0, "peak": 0, "min_qty": 0}
    order = enter.order_of(model, book, plain | numbers)
    order.is_quote, order.stp = True, int(SelfTrade.EXPIRE_MAKER)
    life.accept(model, order)
    return order


# -------------------------------------------------------------------------------------- protection
def set_limits(model: ExchangeModel, book: FullBook, c: Command) -> Units:
    """SET_LIMITS: lots (`qty`, 0: unprotected) within a window (`amount`, ns) for `account`, which
    is armed again.
    """
    yield from ()
    timeless = c["qty"] and not c["amount"]
    numbers = c["qty"] < 0 or not 0 <= c["amount"] <= LONGEST_NS or bool(timeless)
    refuse_if(numbers, RejectCode.OUT_OF_RANGE)
    if c["account"] not in model.accounts:
        raise Refused(RejectCode.NOT_AUTHORISED)
    there = book.protections.get(c["account"])
    said = (there.limit, there.window) if there else (0, 0)
    if c["order_type"] == OF_A_START and said == (c["qty"], c["amount"]):
        return
    if c["qty"]:
        too_many = _is_new_and_too_many(model, book, c["account"])
        refuse_if(too_many, RejectCode.ORDERS_FULL)
        book.protections[c["account"]] = Protection(c["qty"], c["amount"])
    else:
        book.protections.pop(c["account"], None)
    model.writer.add(
        EventKind.ACCOUNT,
        account=c["account"],
        symbol_id=book.symbol_id,
        reason=int(Reason.MMP),
        amount=c["qty"],
        amount2=c["amount"],
    )


def note_fill(model: ExchangeModel, book: FullBook, order: FullOrder, qty: int) -> None:
    """A fill counts when it is on a quote."""
    protection = book.protections.get(order.account)
    if order.is_quote and protection is not None:
        protection.note(model.now, qty)


def protect(model: ExchangeModel, book: FullBook) -> Units:
    """Behind an aggressor: whose quotes were filled too much loses them. A unit is an account."""
    for account, protection in sorted(book.protections.items()):
        lots = protection.sum(model.now)
        if protection.fired or lots <= protection.limit:
            continue
        yield
        protection.fired = True
        model.writer.add(
            EventKind.MMP_FIRED,
            account=account,
            symbol_id=book.symbol_id,
            qty=min(lots, QTY_LOTS_MAX),
            amount=protection.limit,
            amount2=protection.window,
        )
        for _, order in sorted(live_quote(model, book, account).items()):
            if order.old_ref:  # it had left, and the public does not know yet
                order.public_ref, order.shown = order.old
            life.cancel(model, book, order, Reason.MMP)
