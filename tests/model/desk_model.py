"""What a desk asks for beside single orders: mass cancel, queries, sessions, administration.

Cold; used by tests only. Functions over the ExchangeModel; those that may be long yield before each
unit (see exchange_model.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from engine.config import Instrument
from engine.records import (
    AccountLimit,
    CommandFlag,
    CommandKind,
    EventKind,
    OrderState,
    Reason,
    RejectCode,
    TimeInForce,
    pack_name,
)
from tests.model import feed_model, limits_model, orders_model, time_model
from tests.model.book_model import Order, Terms
from tests.model.checks_model import BLANK_COMMAND, KINDS, Command, Refused, is_name, refuse_if
from tests.model.full import aftermath, fields, lists, phases, quotes, rules
from tests.model.full.book import FullBook
from tests.model.session_model import Session

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
PAGE_ROWS = 100
BOOK_COMMANDS: dict[int, Callable[[ExchangeModel, FullBook, Command], Units]] = {
    int(CommandKind.SET_PHASE): phases.set_phase,
    int(CommandKind.SET_RULE): rules.set_rule,
    int(CommandKind.SET_LIMITS): quotes.set_limits,
}
PART_OF_COMMAND = {int(CommandKind.SET_PHASE): "phases", int(CommandKind.SET_LIMITS): "quotes"}
SUPERVISOR = 1


def own_checks(model: ExchangeModel, c: Command) -> Callable[[Command], None] | None:
    """Give what checks the fields of a new order, and of a quote for a full instrument."""
    if c["kind"] == CommandKind.NEW:
        return fields.check_new
    quoted = c["kind"] == CommandKind.QUOTE and "quotes" in model.built
    return quotes.check_fields if quoted else None


def quote(model: ExchangeModel, c: Command) -> Units:
    """A quote for a full instrument."""
    if "quotes" not in model.built:
        raise Refused(RejectCode.NOT_SUPPORTED_HERE)
    book = model.find_book(c)
    if book is None:
        raise Refused(RejectCode.UNKNOWN_SYMBOL)  # what a template gives has the plain rules
    if not isinstance(book, FullBook):
        raise Refused(RejectCode.NOT_SUPPORTED_HERE)
    model.reached = book
    yield from quotes.quote(model, book, c)


# ---------------------------------------------------------------------------- mass cancel, queries
def mass_cancel(model: ExchangeModel, c: Command) -> Units:
    """Cancel the account's orders that pass the filters, oldest first."""
    hit = _chosen(model, c)
    yield from _cancel_all(model, hit, Reason.MASS)
    yield from aftermath.finish(model)
    _summary(model, c, qty=len(hit), reason=int(Reason.MASS))


def _chosen(model: ExchangeModel, c: Command) -> list[Order]:
    # The account's live orders that pass the filters of the command, in entry order.
    flags = c["flags"]
    symbol_id = _symbol_filter(model, c)
    return [
        order
        for order in model.orders.values()
        if order.account == c["account"]
        and (not flags & CommandFlag.BY_SESSION or order.session == c["session"])
        and (not flags & CommandFlag.BY_SIDE or order.side == c["side"])
        and (not flags & CommandFlag.BY_TAG or order.tag == c["tag"])
        and symbol_id in (0, order.symbol_id)
    ]


def _symbol_filter(model: ExchangeModel, c: Command) -> int:
    if not c["flags"] & CommandFlag.BY_SYMBOL:
        return 0
    book = model.reached = model.find_book(c)
    if book is None:
        raise Refused(RejectCode.UNKNOWN_SYMBOL)
    return book.symbol_id


def _cancel_all(model: ExchangeModel, orders: list[Order], reason: Reason) -> Units:
    for order in orders:
        if order.order_id not in model.orders:
            continue  # went with its sibling
        yield
        orders_model.cancel(model, order, reason)


def _summary(model: ExchangeModel, c: Command, **fields: int) -> None:
    model.writer.add(EventKind.SUMMARY, account=c["account"], session=c["session"], **fields)


def status(model: ExchangeModel, order: Order) -> None:
    """Say where a live order stands."""
    state = OrderState.PARTIALLY_FILLED if order.cum else OrderState.NEW
    model.writer.add_order(
        EventKind.STATUS,
        order,
        role=int(state),
        px=order.px,
        qty=order.total,
        public_ref=order.public_ref,
        shown=aftermath.shown(order),
    )


def query_open_orders(model: ExchangeModel, c: Command) -> Units:
    """One page of the account's live orders, oldest first, after the order named."""
    found = [order for order in _chosen(model, c) if order.order_id > c["order_id"]]
    rows = found[: c["qty"] or PAGE_ROWS]
    for order in rows:
        yield
        status(model, order)
    more = len(found) > len(rows)
    _summary(model, c, qty=len(rows), amount=rows[-1].order_id if more else 0)


# ---------------------------------------------------------------------------------------- sessions
def session_open(model: ExchangeModel, c: Command) -> None:
    """Give a producer the (account, name) session; a higher logon takes it over."""
    name = bytes(c["text"])
    refuse_if(not is_name(name), RejectCode.BAD_FIELD)
    time_model.check_delay(c["amount"])
    session = model.sessions.named(c["account"], name)
    refuse_if(c["producer"] < 1 or c["account"] not in model.accounts, RejectCode.NOT_AUTHORISED)
    current_logon = session.logon if session is not None and session.is_open else 0
    refuse_if(c["logon"] <= current_logon, RejectCode.NOT_LOGGED_ON)
    session = session or model.sessions.add(c["account"], name)
    if session is None:
        raise Refused(RejectCode.ID_TABLE_FULL)
    session.is_open = True
    model.unfinished_lists.pop(session.slot, None)
    session.logon, session.producer = c["logon"], c["producer"]
    session.cancel_all_on_close = bool(c["flags"] & CommandFlag.CANCEL_ALL_ON_CLOSE)
    session.cancel_day_on_close = bool(c["flags"] & CommandFlag.CANCEL_DAY_ON_CLOSE)
    session.dead_man, session.close_at, session.dead_man_at = c["amount"], None, None
    time_model.heard(model, session)
    _session_event(model, session, Reason.SESSION_OPENED)


def session_close(model: ExchangeModel, c: Command) -> Units:
    """End of a session, with its orders if it asked for that at logon."""
    session = model.sessions.owned(c["session"], c["logon"], c["producer"])
    if session is None or session.account != c["account"]:
        raise Refused(RejectCode.NOT_LOGGED_ON)
    yield from end_session(model, session)


def end_session(model: ExchangeModel, session: Session) -> Units:
    """Nobody owns the session from now on."""
    session.is_open = False
    model.unfinished_lists.pop(session.slot, None)
    session.dead_man_at = session.close_at = None
    _session_event(model, session, Reason.SESSION_CLOSED)
    if session.cancel_all_on_close or session.cancel_day_on_close:
        day_only = not session.cancel_all_on_close
        yield from cancel_session(model, session, Reason.DISCONNECT, day_only=day_only)


def cancel_session(
    model: ExchangeModel, session: Session, reason: Reason, *, day_only: bool = False
) -> Units:
    """Cancel all orders of one session, or its DAY orders, and say how many."""
    yield from cancel_owned(model, session.account, session.slot, reason, day_only=day_only)


def cancel_owned(
    model: ExchangeModel, account: int, slot: int, reason: Reason, *, day_only: bool = False
) -> Units:
    """Cancel all orders of an account (slot 0) or of one of its sessions, and say how many."""
    hit = [
        order
        for order in model.orders.values()
        if order.account == account
        and slot in (0, order.session)
        and (not day_only or order.tif == TimeInForce.DAY)
    ]
    yield from _cancel_all(model, hit, reason)
    yield from aftermath.finish(model)
    model.writer.add(
        EventKind.SUMMARY, reason=int(reason), account=account, session=slot, qty=len(hit)
    )


def _session_event(model: ExchangeModel, session: Session, reason: Reason) -> None:
    model.writer.add(
        EventKind.ACCOUNT,
        reason=int(reason),
        account=session.account,
        session=session.slot,
        amount=session.logon,
        amount2=model.incarnation,
        client_order_id=session.last_id,
        text=session.name,
    )


# ---------------------------------------------------------------------------------- administration
def run_administrative(model: ExchangeModel, c: Command) -> Units:
    """Commands of the supervisor and of the shard's own loop."""
    kind = c["kind"]
    refuse_if(kind not in KINDS, RejectCode.BAD_FIELD)
    # A producer that takes the place of a lost one may say so itself.
    successor = kind == CommandKind.PRODUCER_RESET and c["client_order_id"] == c["producer"]
    refuse_if(c["producer"] > SUPERVISOR and not successor, RejectCode.NOT_AUTHORISED)
    if kind >= CommandKind.OPEN_ACCOUNT and c["client_order_id"] > 0:
        if c["client_order_id"] <= model.admin_seq:
            return  # told again after a restart
        model.admin_seq = c["client_order_id"]
    if kind == CommandKind.KILL_SWITCH:
        yield from limits_model.kill_switch(model, c)
    elif kind == CommandKind.SET_LIMITS and c["order_type"] >= AccountLimit.MAX_QTY:
        limits_model.set_limits(model, c)
    elif kind == CommandKind.OPEN_ACCOUNT:
        _open_account(model, c["account"])
    elif kind == CommandKind.LIST_INSTRUMENT:
        _list_instrument(model, c)
    elif "lists" not in model.built and kind == CommandKind.ACTIVATE:
        raise Refused(RejectCode.NOT_SUPPORTED_HERE)
    elif kind == CommandKind.ACTIVATE and c["producer"] == time_model.LOOP and c["order_id"]:
        yield from lists.activate(model, c)
    elif kind in BOOK_COMMANDS:
        yield from _rule_a_book(model, c)
    elif kind == CommandKind.FEED_STATE:
        yield from feed_model.feed_state(model, c)
    elif kind == CommandKind.TIME:
        yield from time_model.time(model, c)
    elif kind == CommandKind.PRODUCER_RESET:
        time_model.producer_reset(model, c)
    elif kind == CommandKind.INCARNATION:
        time_model.incarnation(model, c)
    elif kind != CommandKind.CONTINUE or c["producer"] != time_model.LOOP:
        raise Refused(RejectCode.NOT_SUPPORTED_HERE)
    # What is left is CONTINUE of the loop. No work is ever open here: nothing to go on with.


def _rule_a_book(model: ExchangeModel, c: Command) -> Units:
    book = model.find_book(c)
    part = PART_OF_COMMAND.get(c["kind"])
    if not isinstance(book, FullBook) or (part and part not in model.built):
        raise Refused(RejectCode.NOT_SUPPORTED_HERE)  # plain instruments have one phase, one rule
    model.reached = book
    yield from BOOK_COMMANDS[c["kind"]](model, book, c)


def _open_account(model: ExchangeModel, account: int) -> None:
    refuse_if(not 1 <= account < model.limits.accounts_max, RejectCode.OUT_OF_RANGE)
    if account not in model.accounts:
        model.accounts.add(account)
        model.writer.add(EventKind.ACCOUNT, account=account, reason=int(Reason.ACCOUNT_OPENED))


def _list_instrument(model: ExchangeModel, c: Command) -> None:
    # Every start says it again: what is there already, on the same terms, is right.
    names = ("amount", "expire_ts", "px2", "order_type", "stp", "peak", "qty2", "px")
    terms = Terms(*(c[name] for name in names))
    if (c["symbol"], terms) not in [(book.name, book.terms) for book in model.books.values()]:
        model.list_instrument(c["symbol"], terms)


def startup(instruments: Sequence[Instrument], accounts: int) -> Iterator[dict]:
    """Commands that open a local exchange: accounts, their default sessions, instruments."""
    numbers = range(1, accounts + 1)
    for account in numbers:
        opening = {"kind": int(CommandKind.OPEN_ACCOUNT), "account": account}
        yield BLANK_COMMAND | opening | {"producer": SUPERVISOR}
    for account in numbers:
        opening = {"kind": int(CommandKind.SESSION_OPEN), "account": account, "logon": 1}
        yield BLANK_COMMAND | opening | {"producer": SUPERVISOR, "text": b"local"}
    for instrument in instruments:
        yield BLANK_COMMAND | {
            "kind": int(CommandKind.LIST_INSTRUMENT),
            "producer": SUPERVISOR,
            "symbol": pack_name(instrument.symbol),
            "amount": instrument.tick_units,
            "expire_ts": instrument.lot_units,
            "px2": instrument.px_max,
            "order_type": int(instrument.rule_set),
            "stp": int(instrument.self_trade),
            "peak": instrument.iceberg_parts,
            "qty2": instrument.protection,
            "px": instrument.reference_px,
        }
    for instrument in instruments:
        for rule, value in instrument.rule_values:
            yield BLANK_COMMAND | {
                "kind": int(CommandKind.SET_RULE),
                "producer": SUPERVISOR,
                "symbol": pack_name(instrument.symbol),
                "order_type": int(rule),
                "amount": int(value),
            }
