"""Sessions, accounts, instruments: the commands that do not trade (DESIGN §7, §8).

Hot, but rare. A session is (account, name) and keeps its slot and its last id for ever; the highest
logon owns it, commands of an older one are refused. Administrative commands come from the
supervisor's producer or the loop.
"""

import numpy as np

from engine.admin import PRODUCER_SUPERVISOR
from engine.book_state import (
    ACCOUNTS_CAPACITY,
    SESSIONS_CAPACITY,
    SESSIONS_USED,
    accounts,
    events,
    sessions,
)
from engine.bulk import mass_cancel_run
from engine.emit import (
    emit_account_opened,
    emit_rejected,
    emit_session,
    event_new,
    event_public,
)
from engine.jit import helper, subroutine
from engine.records import (
    CommandFlag,
    CommandKind,
    EventKind,
    Reason,
    RejectCode,
)  # fmt: skip
from engine.validate import name_find, name_printable, owner_code, symbol_list


@helper
def packed_text(c):
    """First eight bytes of the record's text as a packed name."""
    name = np.uint64(0)
    for i in range(8):
        name |= np.uint64(c["text"][i]) << np.uint64(8 * i)
    return name


@helper
def session_find(s, account, name):
    """Slot of (account, name); the next free one when it is new, 0 when the table is full."""
    used = np.int64(s[SESSIONS_USED])
    for slot in range(1, used + 1):
        if sessions(s)[slot]["account"] == account and sessions(s)[slot]["name"] == name:
            return np.int64(slot)
    return used + 1 if used < s[SESSIONS_CAPACITY] else np.int64(0)


@subroutine
def step_session_open(s, c):
    """A logon takes the session over from any older one. Returns the reject code."""
    account = np.int64(c["account"])
    name = packed_text(c)
    if not name_printable(name) or c["text"][8] != 0:
        return np.int64(RejectCode.BAD_FIELD.value)
    known = account > 0 and account < s[ACCOUNTS_CAPACITY] and accounts(s)[account]["open"] != 0
    if not known or c["producer"] < PRODUCER_SUPERVISOR:
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
    if slot > s[SESSIONS_USED]:
        s[SESSIONS_USED] = slot
        row["name"] = name
        row["account"] = account
    row["logon"] = logon
    row["producer"] = c["producer"]
    row["flags"] = c["flags"]
    emit_session(s, slot, Reason.SESSION_OPENED)
    return np.int64(0)


@subroutine
def step_session_close(s, c):
    """The owner leaves; CANCEL_ALL_ON_CLOSE takes its orders along. Returns the reject code."""
    code = owner_code(s, c)
    if code != 0:
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    row = sessions(s)[np.int64(c["session"])]
    emit_session(s, np.int64(c["session"]), Reason.SESSION_CLOSED)
    row["logon"] = 0
    if row["flags"] & CommandFlag.CANCEL_ALL_ON_CLOSE.value:
        mass_cancel_run(
            s,
            c,
            np.int64(CommandFlag.BY_SESSION.value),
            np.int64(0),
            np.int64(Reason.DISCONNECT.value),
        )
    return np.int64(0)


@helper
def step_listing(s, c):
    """LIST_INSTRUMENT. Returns the reject code."""
    code = np.int64(RejectCode.LISTING_REFUSED.value)
    sound = c["amount"] > 0 and c["expire_ts"] > 0 and c["px2"] > 0
    if sound and name_find(s, c["symbol"]) == 0:
        if (
            symbol_list(
                s, c["symbol"], np.int64(c["amount"]), np.int64(c["expire_ts"]), np.int64(c["px2"])
            )
            > 0
        ):
            code = np.int64(0)
    return code


@helper
def step_feed_state(s, c):
    """FEED_STATE: one ITCH system event."""
    index = event_new(s, EventKind.SESSION)
    event = events(s)[index]
    event["code"] = c["order_type"]
    event["amount"] = c["amount"]
    event["amount2"] = c["expire_ts"]
    event_public(s, event)


@subroutine
def step_administrative(s, c):
    """Commands of the supervisor and the loop; refused from anybody else."""
    kind = np.int64(c["kind"])
    code = np.int64(0)
    if kind > CommandKind.BUST or (
        kind > CommandKind.FEED_STATE and kind < CommandKind.OPEN_ACCOUNT
    ):
        code = np.int64(RejectCode.BAD_FIELD.value)
    elif c["producer"] > PRODUCER_SUPERVISOR:
        code = np.int64(RejectCode.NOT_AUTHORISED.value)
    elif kind == CommandKind.OPEN_ACCOUNT:
        account = np.int64(c["account"])
        if account < 1 or account >= s[ACCOUNTS_CAPACITY]:
            code = np.int64(RejectCode.OUT_OF_RANGE.value)
        else:
            accounts(s)[account]["open"] = 1
            emit_account_opened(s, account)
    elif kind == CommandKind.LIST_INSTRUMENT:
        code = step_listing(s, c)
    elif kind == CommandKind.FEED_STATE:
        step_feed_state(s, c)
    elif kind != CommandKind.TIME:
        code = np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if code != 0:
        emit_rejected(s, c, code, np.int64(0))
