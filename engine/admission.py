"""Who may enter orders: the kill switch, and limits of plain orders before they are looked at
(RULES §7).

`admission_code` is called only where the session's marks say that there is something (engine/
step.py tests one word that it has at hand); every other account pays that test alone. Limits come
behind the tests of the instrument (RULES §1): where one of those will refuse a plain order, nothing
is said here. Orders of the full rules are tested there (engine/full_orders.py).
"""

import numpy as np

from engine.account_limits import account_open, session_mark, sessions_mark
from engine.book_rows import (
    ACCOUNT_KILLED,
    ACCOUNT_OPEN,
    ORDER_FULL,
    SESSION_ACCOUNT_KILLED,
    SESSION_KILLED,
    SESSION_LIMITED,
)
from engine.book_state import accounts, orders, sessions, symbols
from engine.bulk import owned_cancel_run
from engine.emit import emit_kill
from engine.jit import helper, subroutine
from engine.limit_codes import judged_px, limit_new_code, limit_replace_code
from engine.records import (
    CommandKind,
    KillAction,
    OrderType,
    Reason,
    RejectCode,
    RuleSet,
    TimeInForce,
)
from engine.session_table import packed_text, session_find, session_take
from engine.validate import (
    name_printable,
    replace_immutable,
    symbol_find,
    target_find,
    unsupported,
)


@helper
def plain_new_code(s, c):
    """403 to 406 of NEW of a plain instrument. Returns (reject code, symbol index)."""
    symbol = symbol_find(s, c)
    if symbol == 0 or symbols(s)[symbol]["rules"] != RuleSet.PLAIN or unsupported(c):
        return np.int64(0), symbol
    if np.int64(c["px"]) > symbols(s)[symbol]["px_max"]:
        return np.int64(0), symbol
    qty, px = np.int64(c["qty"]), judged_px(s, symbol, np.int64(c["side"]), np.int64(c["px"]))
    stays = c["order_type"] == OrderType.LIMIT and c["tif"] == TimeInForce.GTC
    return limit_new_code(s, c, symbol, (qty, qty * px), stays), symbol


@helper
def plain_replace_code(s, c):
    """403 to 406 of REPLACE of a plain order. Returns (reject code, symbol index)."""
    slot = target_find(s, c)
    if slot < 0:
        return np.int64(0), np.int64(0)
    row = orders(s)[slot]
    symbol = np.int64(row["symbol"])
    old_px, old = np.int64(row["px"]), np.int64(row["leaves"]) + np.int64(row["cum"])
    px = np.int64(c["px"]) if c["px"] != 0 else old_px
    total = np.int64(c["qty"]) if c["qty"] != 0 else old
    if row["flags"] & ORDER_FULL or px > symbols(s)[symbol]["px_max"]:
        return np.int64(0), symbol
    if unsupported(c) or replace_immutable(s, c, slot) or total <= np.int64(row["cum"]):
        return np.int64(0), symbol
    return limit_replace_code(s, slot, (old, old * old_px), (total, total * px)), symbol


@subroutine
def admission_code(s, c):
    """205 of a client's command, 403 to 406 of a plain order; of a session that has marks. Returns
    (reject code, symbol index).
    """
    kind = np.int64(c["kind"])
    marks = np.int64(sessions(s)[np.int64(c["session"])]["flags"])
    enters = kind == CommandKind.NEW or kind == CommandKind.REPLACE or kind == CommandKind.QUOTE
    if enters and marks & (SESSION_KILLED | SESSION_ACCOUNT_KILLED):
        return np.int64(RejectCode.ACCOUNT_BLOCKED.value), np.int64(0)
    if marks & SESSION_LIMITED and c["decision_code"] == 0:  # no legs: not of plain orders
        if kind == CommandKind.NEW:
            return plain_new_code(s, c)
        if kind == CommandKind.REPLACE:
            return plain_replace_code(s, c)
    return np.int64(0), np.int64(0)


# ------------------------------------------------------------------------------------- kill switch
@helper
def kill_session(s, account, name, blocks):
    """Block a session or let it go, one that is yet to come too; returns its slot, 0: no room."""
    slot = session_find(s, account, name)
    if slot == 0:
        return slot
    session_take(s, slot, account, name)
    row = sessions(s)[slot]
    row["flags"] = np.int64(row["flags"]) & ~np.int64(SESSION_KILLED)
    if blocks:
        row["flags"] = np.int64(row["flags"]) | SESSION_KILLED
    session_mark(s, slot)
    return slot


@subroutine
def step_kill(s, c):
    """KILL_SWITCH: of an account, or of one of its sessions. Returns the reject code."""
    account, name = np.int64(c["account"]), packed_text(c)
    named = c["text"][0] != 0
    if c["order_type"] > KillAction.BLOCK_AND_CANCEL:
        return np.int64(RejectCode.BAD_FIELD.value)
    if named and (not name_printable(name) or c["text"][8] != 0):
        return np.int64(RejectCode.BAD_FIELD.value)
    if not account_open(s, account):
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    blocks, slot = c["order_type"] != KillAction.RELEASE, np.int64(0)
    if named:
        slot = kill_session(s, account, name, blocks)
        if slot == 0:
            return np.int64(RejectCode.ID_TABLE_FULL.value)
    else:
        accounts(s)[account]["open"] = ACCOUNT_OPEN | ACCOUNT_KILLED if blocks else ACCOUNT_OPEN
        sessions_mark(s, account)
    emit_kill(s, c, slot)
    if c["order_type"] == KillAction.BLOCK_AND_CANCEL:
        owned_cancel_run(s, account, slot, np.int64(Reason.KILL.value), False)
    return np.int64(0)
