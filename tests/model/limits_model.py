"""Kill switch and limits of accounts (RULES §7), the naive way.

Cold; used by tests only. What is open of an account on an instrument is counted among its live
orders each time it is asked for; only the position has to be remembered: lots bought less lots sold
since the account has limits there. `check_*` raise Refused with 205 or 403 to 406.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from engine.records import (
    AccountLimit,
    CommandKind,
    EventKind,
    KillAction,
    Reason,
    RejectCode,
)
from tests.model.book_model import BUY, Book, Order
from tests.model.checks_model import Command, Refused, is_name, refuse_if
from tests.model.events_model import Event
from tests.model.session_model import Session

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
ENTERING = {int(CommandKind.NEW), int(CommandKind.REPLACE), int(CommandKind.QUOTE)}
VALUE_MAX = 2**62 - 1
POSITION_MAX = 2**62


@dataclass(slots=True)
class Limits:
    """Limits of one account on one instrument."""

    values: dict[int, int] = field(default_factory=dict)  # by AccountLimit, all above zero
    position: int = 0


class Size(NamedTuple):
    """What one order is measured by: lots, price times lots."""

    qty: int
    notional: int


# ------------------------------------------------------------------------------------- kill switch
def kill_switch(model: ExchangeModel, c: Command) -> Units:
    """Block, or let go again, an account or one of its sessions; cancel what is live."""
    action, account, name = c["order_type"], c["account"], bytes(c["text"])
    refuse_if(action > KillAction.BLOCK_AND_CANCEL, RejectCode.BAD_FIELD)
    refuse_if(bool(name) and not is_name(name), RejectCode.BAD_FIELD)
    refuse_if(account not in model.accounts, RejectCode.NOT_AUTHORISED)
    blocks = action != KillAction.RELEASE
    slot = 0
    if name:
        # It may come later: the block is there before it.
        session = model.sessions.named(account, name) or model.sessions.add(account, name)
        if session is None:
            raise Refused(RejectCode.ID_TABLE_FULL)
        session.killed, slot = blocks, session.slot
    elif blocks:
        model.killed.add(account)
    else:
        model.killed.discard(account)
    model.writer.add(
        EventKind.ACCOUNT,
        reason=int(Reason.KILL),
        order_type=action,
        account=account,
        session=slot,
        client_order_id=c["client_order_id"],
        text=name,
    )
    if action == KillAction.BLOCK_AND_CANCEL:
        yield from model.cancel_owned(account, slot, Reason.KILL)


def check_block(model: ExchangeModel, session: Session, kind: int) -> None:
    """205: nothing that could trade comes from who is blocked."""
    blocked = session.killed or session.account in model.killed
    refuse_if(blocked and kind in ENTERING, RejectCode.ACCOUNT_BLOCKED)


# ------------------------------------------------------------------------------------------ limits
def set_limits(model: ExchangeModel, c: Command) -> None:
    """One limit of an account on an instrument; without any it is forgotten, position and all."""
    what, value, account = c["order_type"], c["amount"], c["account"]
    refuse_if(what > AccountLimit.MAX_POSITION, RejectCode.BAD_FIELD)
    refuse_if(not 0 <= value <= VALUE_MAX, RejectCode.OUT_OF_RANGE)
    refuse_if(account not in model.accounts, RejectCode.NOT_AUTHORISED)
    book = model.find_book(c)
    if book is None:
        raise Refused(RejectCode.UNKNOWN_SYMBOL)
    model.reached = book
    key = (account, book.symbol_id)
    full = len(model.limits_of) >= model.limits.account_limits_max
    refuse_if(bool(value) and key not in model.limits_of and full, RejectCode.TOO_MANY)
    found = model.limits_of.setdefault(key, Limits())
    found.values.pop(what, None)
    if value:
        found.values[what] = value
    if not found.values:
        del model.limits_of[key]
    model.writer.add(
        EventKind.ACCOUNT,
        reason=int(Reason.LIMITS),
        order_type=what,
        account=account,
        symbol_id=book.symbol_id,
        amount=value,
        client_order_id=c["client_order_id"],
    )


def note_fills(model: ExchangeModel, events: Iterable[Event]) -> None:
    """Every fill of an account with limits moves its position."""
    for event in events:
        found = model.limits_of.get((event["account"], event["symbol_id"]))
        if event["kind"] == EventKind.FILL and found is not None:
            moved = found.position + (event["qty"] if event["side"] == BUY else -event["qty"])
            found.position = min(max(moved, -POSITION_MAX), POSITION_MAX)


def open_orders(model: ExchangeModel, account: int, symbol_id: int) -> list[Order]:
    """Live orders of an account on an instrument, those that wait included."""
    orders = model.orders.values()
    return [o for o in orders if (o.account, o.symbol_id) == (account, symbol_id)]


def worth(book: Book, side: int, qty: int, *prices: int) -> Size:
    """Size of an order at the first price there is: its limit, its trigger, the best opposite."""
    known = [px for px in (*prices, book.best_px(1 - side) or 0) if px]
    return Size(qty, qty * known[0] if known else 0)


def check_new(
    model: ExchangeModel, book: Book, account: int, side: int, size: Size, *, stays: bool
) -> None:
    """403 to 406 of a new order."""
    check(model, book, account, side, Size(0, 0), size, orders=int(stays))


def check_replace(
    model: ExchangeModel, book: Book, order: Order, before: Size, after: Size
) -> None:
    """403 to 406 of a replace: only what it makes larger is looked at."""
    check(model, book, order.account, order.side, before, after, orders=0)


def check(
    model: ExchangeModel,
    book: Book,
    account: int,
    side: int,
    before: Size,
    after: Size,
    *,
    orders: int,
) -> None:
    """The lowest code wins."""
    limits = model.limits_of.get((account, book.symbol_id))
    if limits is None:
        return
    there = open_orders(model, account, book.symbol_id)
    held = limits.position if side == BUY else -limits.position
    worst = held + sum(o.leaves for o in there if o.side == side) + after.qty - before.qty
    tests = (
        (AccountLimit.MAX_QTY, after.qty, after.qty > before.qty, RejectCode.MAX_QTY),
        (
            AccountLimit.MAX_NOTIONAL,
            after.notional,
            after.notional > before.notional,
            RejectCode.MAX_NOTIONAL,
        ),
        (AccountLimit.MAX_OPEN_ORDERS, len(there) + orders, orders > 0, RejectCode.MAX_OPEN_ORDERS),
        (AccountLimit.MAX_POSITION, worst, after.qty > before.qty, RejectCode.MAX_POSITION),
    )
    for what, figure, grows, code in tests:
        limit = limits.values.get(what)
        refuse_if(bool(limit) and grows and figure > (limit or 0), code)


def check_plain_new(model: ExchangeModel, book: Book, order: Order) -> None:
    """403 to 406 of a new order of the plain rules."""
    size = worth(book, order.side, order.total, order.px)
    check_new(model, book, order.account, order.side, size, stays=order.can_rest)


def check_plain_replace(
    model: ExchangeModel, book: Book, order: Order, px: int, total: int
) -> None:
    """403 to 406 of a replace of the plain rules."""
    before, after = Size(order.total, order.total * order.px), Size(total, total * px)
    check_replace(model, book, order, before, after)


# ------------------------------------------------------------------------------------------- state
def words(model: ExchangeModel) -> list[int]:
    """What of it decides the future, as words to be hashed; nothing where there is nothing."""
    found: list[int] = []
    for account in sorted(model.killed):
        found += [1, account]
    for session in model.sessions.slots:
        found += [2, session.slot] if session.killed else []
    names = [int(what) for what in AccountLimit if what >= AccountLimit.MAX_QTY]
    for (account, symbol_id), limits in sorted(model.limits_of.items()):
        there = open_orders(model, account, symbol_id)
        found += [3, account, symbol_id, *(limits.values.get(what, 0) for what in names)]
        found += [limits.position, len(there)]
        found += [sum(o.leaves for o in there if o.side == side) for side in (0, 1)]
    return found
