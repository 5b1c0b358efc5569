"""What time does to sessions: dead-man times, lost producers, and TIME, which makes it happen.

Cold; used by tests only. Functions over the ExchangeModel. A deadline that has passed does nothing
by itself: each TIME deals with one, the earliest first, then the lower session slot, then the
dead-man time before the close (RULES §10, §13).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import CommandKind, EventKind, Reason, RejectCode
from tests.model import desk_model
from tests.model.checks_model import BLANK_COMMAND, Command, refuse_if
from tests.model.full import batches, expiry, indicative
from tests.model.full.book import FullBook
from tests.model.full.order import FullOrder
from tests.model.session_model import Session

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
LOOP = 0
PRODUCERS = range(1, 256)
LONGEST_NS = 2**60
INCARNATION_ORDERS = 2**24
DEAD_MAN, CLOSE = 1, 2  # in the order of their turn
CROSS = 2  # of a batch mode: behind orders (0) and sessions (1), before indicative prices (3)


def check_delay(ns: int) -> None:
    """103 for a time span that is negative or beyond all reason."""
    refuse_if(not 0 <= ns <= LONGEST_NS, RejectCode.OUT_OF_RANGE)


def heard(model: ExchangeModel, session: Session) -> None:
    """The owner gave a sign of life: its dead-man time begins anew."""
    if session.dead_man:
        session.dead_man_at = model.now + session.dead_man


def keep(model: ExchangeModel, c: Command) -> None:
    """SESSION_KEEP: nothing but the sign of life."""
    heard(model, model.speaker(c))


# ---------------------------------------------------------------------------------------- deadlines
def due(model: ExchangeModel, now: int) -> list[tuple[int, int, int]]:
    """(deadline, slot, which) of everything that should have happened to sessions by `now`, in its
    order.
    """
    found = []
    for session in model.sessions.slots:
        for at, which in ((session.dead_man_at, DEAD_MAN), (session.close_at, CLOSE)):
            if at is not None and at <= now:
                found.append((at, session.slot, which))
    return sorted(found)


Work = Session | FullOrder | FullBook


def agenda(model: ExchangeModel, now: int) -> list[tuple[tuple[int, int, int, int], Work]]:
    """Everything that should have happened by `now`, in its order: the deadline, the kind of work,
    then entry order, slot or symbol (RULES §13 Time).
    """
    slots = model.sessions.slots
    found: list[tuple[tuple[int, int, int, int], Work]] = [
        ((at, 1, slot, which), slots[slot - 1]) for at, slot, which in due(model, now)
    ]
    found += [((o.expire_at, 0, o.order_id, 0), o) for o in expiry.due(model, now)]
    found += [((b.indicative_at or 0, 3, b.symbol_id, 0), b) for b in indicative.due(model, now)]
    found += [((b.cross_at or 0, CROSS, b.symbol_id, 0), b) for b in batches.due(model, now)]
    return sorted(found, key=lambda row: row[0])


def time_command(in_ts: int) -> Command:
    """Return the record that lets time pass."""
    return BLANK_COMMAND | {"kind": int(CommandKind.TIME), "producer": LOOP, "in_ts": in_ts}


def time(model: ExchangeModel, c: Command) -> Units:
    """TIME: the first thing that is due happens, or (amount) all deadlines wait longer."""
    pause, slot = c["amount"], c["session"]
    check_delay(pause)
    if pause:
        for session in model.sessions.slots:
            if session.dead_man_at is not None:
                session.dead_man_at += pause
            if session.close_at is not None:
                session.close_at += pause
        return
    todo = [row for row in agenda(model, model.now) if _is_meant(row[1], slot, c["order_id"])]
    if not todo:
        return
    (_, turn, _, which), work = todo[0]
    if isinstance(work, FullOrder):
        expiry.expire(model, work)
    elif isinstance(work, FullBook) and turn == CROSS:
        yield from batches.cross(model, work)
    elif isinstance(work, FullBook):
        indicative.tell(model, work)
    elif which == CLOSE:
        yield from desk_model.end_session(model, work)
    else:
        work.dead_man_at = None
        yield from desk_model.cancel_session(model, work, Reason.DEAD_MAN)


def _is_meant(work: Work, slot: int, order_id: int) -> bool:
    # TIME may name an order or a session; otherwise it means whatever comes first.
    if order_id:
        return isinstance(work, FullOrder) and work.order_id == order_id
    return not slot or (isinstance(work, Session) and work.slot == slot)


# ----------------------------------------------------------------------- what was lost, what begins
def producer_reset(model: ExchangeModel, c: Command) -> None:
    """The sessions of a lost producer close after the grace time, unless they come back. A reset
    that names a logon means those up to it only.
    """
    producer, grace = c["client_order_id"], c["amount"]
    refuse_if(producer not in PRODUCERS, RejectCode.OUT_OF_RANGE)
    check_delay(grace)
    for session in model.sessions.slots:
        meant = c["logon"] == 0 or session.logon <= c["logon"]
        if session.is_open and session.producer == producer and meant:
            session.close_at = max(model.now + grace, 1)  # 0 is no time
    _notice(model, Reason.PRODUCER_RESET, producer)


def incarnation(model: ExchangeModel, c: Command) -> None:
    """A new number for resuming clients; a wide gap in the order ids where some may be lost."""
    bad = c["amount"] < 0 or c["expire_ts"] not in (0, 1)
    refuse_if(bad, RejectCode.OUT_OF_RANGE)
    model.incarnation = c["amount"] or model.incarnation
    model.order_count += INCARNATION_ORDERS * c["expire_ts"]
    _notice(model, Reason.INCARNATION, model.incarnation)


def _notice(model: ExchangeModel, reason: Reason, amount: int) -> None:
    model.writer.add(EventKind.ACCOUNT, reason=int(reason), amount=amount)
