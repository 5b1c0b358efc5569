"""Limits of an account on an instrument: SET_LIMITS, and what sessions carry of it (RULES §7).

Rare. A row of `limit_rows` exists while one of its limits does; `account_limits` leads to an
account's rows. The table is bounded: full, a further instrument is refused TOO_MANY. Setting the
first limit, or taking the last away, looks once at every order slot. What is counted, and what is
refused: engine/limit_count.py, engine/limit_codes.py.
"""

import numpy as np

from engine.book_rows import (
    ACCOUNT_KILLED,
    ORDER_COUNTED,
    SESSION_ACCOUNT_KILLED,
    SESSION_FLAGS,
    SESSION_KILLED,
    SESSION_LIMITED,
)
from engine.book_state import (
    ACCOUNTS_CAPACITY,
    SESSIONS_USED,
    account_limits,
    accounts,
    limit_rows,
    orders,
    owner,
    sessions,
)
from engine.emit import emit_limits
from engine.jit import helper, subroutine
from engine.limit_count import count_begin, limit_find
from engine.records import NOTIONAL_MAX, AccountLimit, RejectCode
from engine.validate import symbol_find

LIMITS_KINDS = 6  # of AccountLimit; the first two are engine/quoters.py's


@helper
def account_open(s, account):
    """Whether there is such an account."""
    return account > 0 and account < s[ACCOUNTS_CAPACITY] and accounts(s)[account]["open"] != 0


@helper
def session_mark(s, slot):
    """Have the session carry what its account has, beside its own."""
    row = sessions(s)[slot]
    account = np.int64(row["account"])
    flags = np.int64(row["flags"]) & (SESSION_FLAGS | SESSION_KILLED)
    if np.int64(accounts(s)[account]["open"]) & ACCOUNT_KILLED:
        flags |= SESSION_ACCOUNT_KILLED
    if account_limits(s)[account] != 0:
        flags |= SESSION_LIMITED
    row["flags"] = flags


@helper
def sessions_mark(s, account):
    """`session_mark` for all sessions of an account."""
    for slot in range(1, np.int64(s[SESSIONS_USED]) + 1):
        if np.int64(sessions(s)[slot]["account"]) == account:
            session_mark(s, np.int64(slot))


# ---------------------------------------------------------------------------------------- the rows
@helper
def limit_take(s, account, symbol):
    """A free row for an account and an instrument, 0 when there is none."""
    for place in range(1, len(limit_rows(s))):
        row = limit_rows(s)[place]
        if row["account"] == 0:
            row["account"] = account
            row["symbol"] = symbol
            row["next"] = account_limits(s)[account]
            account_limits(s)[account] = place
            return np.int64(place)
    return np.int64(0)


@helper
def limit_release(s, place):
    """Forget the row; orders that counted for it count for none."""
    row = limit_rows(s)[place]
    account = np.int64(row["account"])
    before, at = np.int64(0), np.int64(account_limits(s)[account])
    while at != place:
        before, at = at, np.int64(limit_rows(s)[at]["next"])
    if before == 0:
        account_limits(s)[account] = row["next"]
    else:
        limit_rows(s)[before]["next"] = row["next"]
    for what in range(LIMITS_KINDS):
        row["limit"][what] = 0
    for side in range(2):
        row["open_qty"][side] = 0
    row["position"] = 0
    row["open_orders"] = 0
    row["account"] = 0
    row["symbol"] = 0
    row["next"] = 0


@helper
def orders_count(s, account, symbol, place):
    """Live orders of the account there count for that row from now on (0: for none)."""
    for slot in range(len(owner(s))):
        if owner(s)[slot] == account and np.int64(orders(s)[slot]["symbol"]) == symbol:
            orders(s)[slot]["flags"] |= ORDER_COUNTED
            count_begin(s, np.int64(slot), place)


@helper
def limits_empty(row):
    """Whether no limit of the row is left."""
    for what in range(LIMITS_KINDS):
        if row["limit"][what] != 0:
            return False
    return True


@helper
def limits_code(s, c):
    """102, 103, 202 of SET_LIMITS."""
    if c["order_type"] > AccountLimit.MAX_POSITION:
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["amount"] < 0 or c["amount"] > NOTIONAL_MAX:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if not account_open(s, np.int64(c["account"])):
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    return np.int64(0)


@subroutine
def step_limits(s, c):
    """SET_LIMITS of an account on an instrument. Returns (reject code, symbol index)."""
    code, symbol = limits_code(s, c), np.int64(0)
    if code != 0:
        return code, symbol
    symbol = symbol_find(s, c)
    if symbol == 0:
        return np.int64(RejectCode.UNKNOWN_SYMBOL.value), symbol
    account, value = np.int64(c["account"]), np.int64(c["amount"])
    place = limit_find(s, account, symbol)
    if place == 0 and value != 0:
        place = limit_take(s, account, symbol)
        if place == 0:
            return np.int64(RejectCode.TOO_MANY.value), symbol
        orders_count(s, account, symbol, place)
    if place != 0:
        row = limit_rows(s)[place]
        row["limit"][np.int64(c["order_type"])] = value
        if limits_empty(row):
            limit_release(s, place)
            orders_count(s, account, symbol, np.int64(0))
    sessions_mark(s, account)
    emit_limits(s, c, symbol)
    return code, symbol
