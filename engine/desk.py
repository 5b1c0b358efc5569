"""Sessions, time, accounts, instruments: the commands that do not trade (DESIGN §3, §7, §8).

Hot, but rare. A session is (account, name) and keeps its slot and its last id for ever; the highest
logon owns it, commands of an older one are refused. What happens to one that nobody is heard of
happens by TIME, one deadline a command (engine/deadline.py). Administrative commands come from the
supervisor's producer or the loop; those of a start may be repeated and then change nothing.
"""

import numpy as np

from engine.account_limits import account_open, step_limits
from engine.activations import activation_first
from engine.admin import PRODUCER_LOOP, PRODUCER_SUPERVISOR
from engine.admission import step_kill
from engine.book_rows import ACCOUNT_OPEN, SESSION_FLAGS
from engine.book_state import (
    ACCOUNTS_CAPACITY,
    ADMIN_SEQ,
    FEED_EPOCH,
    FEED_SEQ,
    IN_TS,
    INCARNATION_NUMBER,
    ORDER_COUNTER,
    PRODUCER_NUMBERS,
    SESSIONS_USED,
    TRADING_DATE,
    accounts,
    orders,
    sessions,
    symbols,
)
from engine.bulk import session_cancel_run
from engine.deadline import (
    deadline_after,
    deadline_find,
    deadline_note,
    deadlines_clear,
    deadlines_move,
    delay_code,
    session_deadline,
    session_heard,
)
from engine.emit import (
    emit_account_opened,
    emit_feed_state,
    emit_notice,
    emit_rejected,
    emit_session,
)
from engine.full_entry import full_command, full_go
from engine.full_numbers import (
    FULL_ACTIVATE,
    FULL_EXPIRE,
    FULL_LIMITS,
    FULL_PHASE,
    FULL_RULE,
    FULL_TIMED,
)
from engine.id_table import texts_forget
from engine.image import image_open
from engine.jit import helper, subroutine
from engine.legs import list_drop
from engine.order_due import due_now
from engine.records import (
    SLOT_MASK,
    AccountLimit,
    CommandFlag,
    CommandKind,
    Reason,
    RejectCode,
    RuleSet,
)  # fmt: skip
from engine.session_table import packed_text, session_find, session_take
from engine.validate import (
    name_find,
    name_printable,
    owner_code,
    symbol_find,
    symbol_list,
    terms_equal,
    terms_of,
)

FEED_OPENS = ord("O")  # the letter of FEED_STATE that begins a feed session
INCARNATION_ORDERS = 1 << 24  # more orders than can have been lost


@subroutine
def step_session_open(s, c):
    """A logon takes the session over from any older one. Returns the reject code."""
    account = np.int64(c["account"])
    name = packed_text(c)
    if not name_printable(name) or c["text"][8] != 0:
        return np.int64(RejectCode.BAD_FIELD.value)
    code = delay_code(np.int64(c["amount"]))
    if code != 0:
        return code
    if not account_open(s, account) or c["producer"] < PRODUCER_SUPERVISOR:
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    logon = np.int64(c["logon"])
    if logon == 0:  # the number of nobody: a session opened with it would have no owner
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    slot = session_find(s, account, name)
    if slot == 0:
        return np.int64(RejectCode.ID_TABLE_FULL.value)
    row = sessions(s)[slot]
    if slot <= s[SESSIONS_USED] and logon <= row["logon"]:
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    session_take(s, slot, account, name)
    row["logon"] = logon
    row["producer"] = c["producer"]
    row["flags"] = (np.int64(row["flags"]) & ~np.int64(SESSION_FLAGS)) | np.int64(c["flags"])
    deadlines_clear(s, slot)
    list_drop(s, slot)
    row["dead_man"] = c["amount"]
    session_heard(s, slot)
    emit_session(s, slot, Reason.SESSION_OPENED)
    return np.int64(0)


@subroutine
def session_end(s, slot):
    """The session has no owner any more; CANCEL_ALL_ON_CLOSE takes its orders along."""
    row = sessions(s)[slot]
    emit_session(s, slot, Reason.SESSION_CLOSED)
    row["logon"] = 0
    deadlines_clear(s, slot)
    list_drop(s, slot)
    every = row["flags"] & CommandFlag.CANCEL_ALL_ON_CLOSE.value != 0
    if every or row["flags"] & CommandFlag.CANCEL_DAY_ON_CLOSE.value:
        session_cancel_run(s, slot, np.int64(Reason.DISCONNECT.value), not every)


@helper
def step_session_close(s, c):
    """The owner leaves. Returns the reject code."""
    if owner_code(s, c) != 0:
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    session_end(s, np.int64(c["session"]))
    return np.int64(0)


@helper
def step_session_keep(s, c):
    """The owner says that it is there: no event. Returns the reject code."""
    code = owner_code(s, c)
    if code == 0:
        session_heard(s, np.int64(c["session"]))
    return code


@subroutine
def step_session(s, c):
    """SESSION_OPEN, SESSION_CLOSE, SESSION_KEEP."""
    code = np.int64(0)
    if c["kind"] == CommandKind.SESSION_OPEN:
        code = step_session_open(s, c)
    elif c["kind"] == CommandKind.SESSION_CLOSE:
        code = step_session_close(s, c)
    else:
        code = step_session_keep(s, c)
    if code != 0:
        emit_rejected(s, c, code, np.int64(0))


# ------------------------------------------------------------------------------------------- time


@helper
def deadline_fire(s, slot):
    """Deal with the earlier deadline of a session; the dead-man time comes first among equals."""
    row = sessions(s)[slot]
    dead_man_at, close_at = np.int64(row["dead_man_at"]), np.int64(row["close_at"])
    if dead_man_at != 0 and (close_at == 0 or dead_man_at <= close_at):
        row["dead_man_at"] = 0  # until the next command of the session
        session_cancel_run(s, slot, np.int64(Reason.DEAD_MAN.value), False)
    else:
        session_end(s, slot)


@subroutine
def time_run(s, slot, order_id, pause):
    """TIME: let one thing happen if it is due now: the order expires, or a deadline of the session
    `slot` fires; neither named: whatever is due first, a cross of a batch mode or an indicative
    price too. Or move the deadlines of all sessions by a pause: then nothing happens.
    """
    now = np.int64(s[IN_TS])
    if pause != 0:
        deadlines_move(s, pause)
        return
    found, symbol = slot, np.int64(0)
    if slot == 0 and order_id == 0:
        found, order_id, symbol = deadline_find(s, now)
    if symbol != 0:
        full_go(s, FULL_TIMED, symbol, np.int64(0))
    elif order_id != 0:
        order = order_id & SLOT_MASK
        if due_now(s, order, now) and orders(s)[order]["order_id"] == order_id:
            full_go(s, FULL_EXPIRE, order, np.int64(0))
    elif found > 0 and found <= s[SESSIONS_USED]:
        deadline = session_deadline(s, found)
        if deadline != 0 and deadline <= now:
            deadline_fire(s, found)


@helper
def step_time(s, c):
    """TIME. Returns the reject code."""
    code = delay_code(np.int64(c["amount"]))
    if code == 0:
        time_run(s, np.int64(c["session"]), np.int64(c["order_id"]), np.int64(c["amount"]))
    return code


@helper
def step_producer_reset(s, c):
    """PRODUCER_RESET: what was logged on through that producer, up to the logon named (0: all), is
    closed after the grace time, unless it logs on again. Returns the reject code.
    """
    producer, grace = np.int64(c["client_order_id"]), np.int64(c["amount"])
    code = delay_code(grace)
    if producer < PRODUCER_SUPERVISOR or producer >= PRODUCER_NUMBERS:
        code = np.int64(RejectCode.OUT_OF_RANGE.value)
    if code == 0:
        for slot in range(1, np.int64(s[SESSIONS_USED]) + 1):
            row = sessions(s)[slot]
            meant = c["logon"] == 0 or np.int64(row["logon"]) <= np.int64(c["logon"])
            if row["logon"] != 0 and np.int64(row["producer"]) == producer and meant:
                row["close_at"] = deadline_after(s, grace)
                deadline_note(s, np.int64(row["close_at"]))
        emit_notice(s, Reason.PRODUCER_RESET, producer)
    return code


# --------------------------------------------------------------------------------- administration


@helper
def step_open_account(s, c):
    """OPEN_ACCOUNT; one that is open already is left as it is. Returns the reject code."""
    account = np.int64(c["account"])
    if account < 1 or account >= s[ACCOUNTS_CAPACITY]:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if accounts(s)[account]["open"] == 0:
        accounts(s)[account]["open"] = ACCOUNT_OPEN
        emit_account_opened(s, account)
    return np.int64(0)


@helper
def step_listing(s, c):
    """LIST_INSTRUMENT; one that is listed with these terms is left as it is. Returns the reject
    code.
    """
    symbol = name_find(s, c["symbol"])
    if symbol != 0:
        good = terms_equal(s, symbol, terms_of(c))
    else:
        good = symbol_list(s, c["symbol"], terms_of(c)) > 0
    return np.int64(0 if good else RejectCode.LISTING_REFUSED.value)


@helper
def step_incarnation(s, c):
    """INCARNATION: the number a resuming client must know, and a gap in the order ids where some
    that were given out may be lost. Returns the reject code.
    """
    if c["amount"] < 0 or c["expire_ts"] < 0 or c["expire_ts"] > 1:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if c["amount"] != 0:
        s[INCARNATION_NUMBER] = c["amount"]
    if c["expire_ts"] != 0:
        s[ORDER_COUNTER] += INCARNATION_ORDERS
    emit_notice(s, Reason.INCARNATION, np.int64(s[INCARNATION_NUMBER]))
    return np.int64(0)


@helper
def step_feed_state(s, c):
    """FEED_STATE: one ITCH system event; "O" begins a feed session: new numbers, a trading day that
    is never earlier than before, then the image of all books.
    """
    date, epoch = np.int64(c["amount"]), np.int64(c["expire_ts"])
    opens = c["order_type"] == FEED_OPENS
    if opens:
        s[FEED_SEQ] = 0
        s[FEED_EPOCH] = epoch
        if date > s[TRADING_DATE]:
            s[TRADING_DATE] = date
            texts_forget(s)
        date = np.int64(s[TRADING_DATE])
    emit_feed_state(s, np.int64(c["order_type"]), date, epoch)
    if opens:
        image_open(s)


@helper
def administrative_code(c):
    """102, 202: administration comes from the supervisor and the loop, but a producer that takes
    the place of one that was lost says so itself.
    """
    kind = np.int64(c["kind"])
    if kind > CommandKind.SET_RULE or (
        kind > CommandKind.FEED_STATE and kind < CommandKind.OPEN_ACCOUNT
    ):
        return np.int64(RejectCode.BAD_FIELD.value)
    successor = kind == CommandKind.PRODUCER_RESET and c["client_order_id"] == c["producer"]
    if c["producer"] > PRODUCER_SUPERVISOR and not successor:
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    return np.int64(0)


@helper
def step_rules(s, c):
    """SET_RULE, SET_PHASE, SET_LIMITS: of instruments with the full rules. Returns (reject code,
    symbol index).
    """
    symbol = symbol_find(s, c)
    if symbol == 0 or symbols(s)[symbol]["rules"] == RuleSet.PLAIN:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value), np.int64(0)
    what = FULL_PHASE
    if c["kind"] == CommandKind.SET_RULE:
        what = FULL_RULE
    elif c["kind"] == CommandKind.SET_LIMITS:
        what = FULL_LIMITS
    return full_command(s, c, what, symbol, np.int64(0)), symbol


@helper
def told_before(s, c):
    """Whether an administrative command that the supervisor numbers was taken already: after a
    restart it tells again all that may be missing.
    """
    number = np.int64(c["client_order_id"])
    if c["kind"] < CommandKind.OPEN_ACCOUNT or number <= 0:
        return False
    if number <= s[ADMIN_SEQ]:
        return True
    s[ADMIN_SEQ] = number
    return False


@helper
def step_activation(s, c):
    """ACTIVATE: the leg it names goes live if its turn has come. Returns the reject code."""
    if c["producer"] != PRODUCER_LOOP or c["order_id"] == 0:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if np.int64(c["order_id"]) == activation_first(s):
        full_go(s, FULL_ACTIVATE, np.int64(0), np.int64(0))
    return np.int64(0)


@subroutine
def step_administrative(s, c):
    """Commands of the supervisor and the loop; refused from anybody else."""
    kind, symbol = np.int64(c["kind"]), np.int64(0)
    code = administrative_code(c)
    if code != 0 or told_before(s, c):
        pass
    elif kind == CommandKind.TIME:
        code = step_time(s, c)
    elif kind == CommandKind.ACTIVATE:
        code = step_activation(s, c)
    elif kind == CommandKind.OPEN_ACCOUNT:
        code = step_open_account(s, c)
    elif kind == CommandKind.LIST_INSTRUMENT:
        code = step_listing(s, c)
    elif kind == CommandKind.FEED_STATE:
        step_feed_state(s, c)
    elif kind == CommandKind.PRODUCER_RESET:
        code = step_producer_reset(s, c)
    elif kind == CommandKind.INCARNATION:
        code = step_incarnation(s, c)
    elif kind == CommandKind.KILL_SWITCH:
        code = step_kill(s, c)
    elif kind == CommandKind.SET_LIMITS and c["order_type"] >= AccountLimit.MAX_QTY:
        code, symbol = step_limits(s, c)
    elif (
        kind == CommandKind.SET_RULE
        or kind == CommandKind.SET_PHASE
        or kind == CommandKind.SET_LIMITS
    ):
        code, symbol = step_rules(s, c)
    else:
        code = np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if code != 0:
        emit_rejected(s, c, code, symbol)
