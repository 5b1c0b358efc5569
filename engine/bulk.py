"""Commands about many orders: mass cancel, session close, pages of open orders (RULES §1, §7).

Hot, but rare. The orders concerned are found by one pass over `owner` (four bytes per slot), put in
entry order by a heap sort in `scratch`, then worked off one by one in slices. The list stays in the
state until the work is done: nothing else changes those orders meanwhile, because the loop takes no
command that could.
"""

import numpy as np

from engine.book_rows import (
    ORDER_FULL,
    ORDER_TAG,
)
from engine.book_state import (
    FATAL,
    FATAL_SECOND_WORK,
    SETTLE_THEN,
    SETTLING,
    WORK_ACCOUNT,
    WORK_COUNT,
    WORK_CURSOR,
    WORK_KIND,
    WORK_REASON,
    WORK_REF,
    WORK_SESSION,
    WORK_SYMBOL,
    WORK_TOTAL,
    events,
    more,
    order_tag,
    orders,
    owner,
    scratch,
    sessions,
)
from engine.emit import emit_continued, emit_summary, event_order
from engine.full_emit import order_total
from engine.full_entry import full_go
from engine.full_numbers import FULL_CANCEL, FULL_SETTLE
from engine.jit import helper, subroutine
from engine.matching import WORK_CANCELS, WORK_NONE, WORK_ROWS, order_cancel, slice_full
from engine.records import CommandFlag, EventKind, OrderState, Reason, TimeInForce
from engine.scratch import scratch_sort

PAGE_ROWS_DEFAULT = 100
PAGE_ROWS_MAX = 500


@helper
def selected(s, c, flags, slot, symbol):
    """Whether the order in `slot` passes the filters of mass cancel or page `c`."""
    row = orders(s)[slot]
    passes = True
    if flags & CommandFlag.BY_SESSION.value and row["session"] != c["session"]:
        passes = False
    if flags & CommandFlag.BY_SIDE.value and row["side"] != c["side"]:
        passes = False
    if flags & CommandFlag.BY_SYMBOL.value and np.int64(row["symbol"]) != symbol:
        passes = False
    if flags & CommandFlag.BY_TAG.value:
        tag = np.int64(0)
        if row["flags"] & ORDER_TAG:
            tag = np.int64(order_tag(s)[slot])
        if tag != np.int64(c["tag"]):
            passes = False
    return passes


@helper
def collect(s, c, flags, symbol, after):
    """Put the account's matching orders with order_id > `after` in scratch, in entry order; returns
    how many.
    """
    account = np.int64(c["account"])
    count = np.int64(0)
    for slot in range(len(owner(s))):
        if (
            owner(s)[slot] == account
            and orders(s)[slot]["order_id"] > after
            and selected(s, c, flags, slot, symbol)
        ):
            scratch(s)[count] = slot
            count += 1
    scratch_sort(s, count)
    return count


@helper
def work_list(s, kind, count, account, session):
    """Open a work over scratch[:count], orders that may be in any symbol, for an account and the
    session that hears of its end.
    """
    if s[WORK_KIND] != WORK_NONE:
        s[FATAL] = FATAL_SECOND_WORK
    s[WORK_KIND] = kind
    s[WORK_SYMBOL] = 0
    s[WORK_CURSOR] = 0
    s[WORK_COUNT] = 0
    s[WORK_TOTAL] = count
    s[WORK_ACCOUNT] = account
    s[WORK_SESSION] = session
    s[WORK_REASON] = 0
    s[WORK_REF] = 0


@helper
def order_withdraw(s, slot, reason):
    """Take a resting order out of the market, by whichever rules it lives."""
    if orders(s)[slot]["flags"] & ORDER_FULL:
        full_go(s, FULL_CANCEL, slot, reason)
    else:
        order_cancel(s, slot, reason)


@helper
def cancels_left(s):
    """Whether anything of the list is still to be cancelled. Some went with an order they belong
    to; their slots may be somebody else's by now.
    """
    while s[WORK_CURSOR] < s[WORK_TOTAL]:
        slot = np.int64(scratch(s)[s[WORK_CURSOR]])
        mine = np.int64(owner(s)[slot]) == s[WORK_ACCOUNT]
        if mine and (s[WORK_SYMBOL] == 0 or np.int64(orders(s)[slot]["symbol"]) == s[WORK_SYMBOL]):
            return True
        s[WORK_CURSOR] += 1
    return False


@subroutine
def cancels_run(s):
    """Cancel on until the list or the slice ends."""
    while cancels_left(s) and not slice_full(s):
        order_withdraw(s, np.int64(scratch(s)[s[WORK_CURSOR]]), np.int64(s[WORK_REASON]))
        s[WORK_CURSOR] += 1
        s[WORK_COUNT] += 1
    if s[WORK_CURSOR] < s[WORK_TOTAL]:
        emit_continued(s, np.int64(s[WORK_COUNT]))
    elif s[SETTLING] != 0:
        s[SETTLE_THEN] = s[WORK_TOTAL] + 1
        full_go(s, FULL_SETTLE, np.int64(0), np.int64(0))
        return
    else:
        s[WORK_KIND] = WORK_NONE
        account, session = np.int64(s[WORK_ACCOUNT]), np.int64(s[WORK_SESSION])
        reason = np.int64(s[WORK_REASON])
        emit_summary(s, account, session, np.int64(s[WORK_TOTAL]), np.int64(0), reason)
    s[WORK_COUNT] = 0


@subroutine
def emit_status(s, slot):
    """Where a live order stands."""
    row = orders(s)[slot]
    total, shown = np.int64(row["leaves"]) + np.int64(row["cum"]), np.int64(row["leaves"])
    if row["flags"] & ORDER_FULL:
        total, shown = order_total(s, slot), np.int64(more(s)[slot]["shown"])
    event = events(s)[event_order(s, EventKind.STATUS, slot, np.int64(row["px"]), total)]
    event["public_ref"] = row["public_ref"]
    event["shown"] = shown
    event["role"] = OrderState.PARTIALLY_FILLED.value if row["cum"] > 0 else OrderState.NEW.value


@subroutine
def rows_run(s):
    """Report on until the page or the slice ends."""
    while s[WORK_CURSOR] < s[WORK_TOTAL] and not slice_full(s):
        emit_status(s, np.int64(scratch(s)[s[WORK_CURSOR]]))
        s[WORK_CURSOR] += 1
        s[WORK_COUNT] += 1
    if s[WORK_CURSOR] < s[WORK_TOTAL]:
        emit_continued(s, np.int64(s[WORK_COUNT]))
    else:
        s[WORK_KIND] = WORK_NONE
        account, session = np.int64(s[WORK_ACCOUNT]), np.int64(s[WORK_SESSION])
        more, reason = np.int64(s[WORK_REF]), np.int64(0)
        emit_summary(s, account, session, np.int64(s[WORK_TOTAL]), more, reason)
    s[WORK_COUNT] = 0


@helper
def mass_cancel_run(s, c, symbol):
    """MASS_CANCEL: the account's orders that pass the filters; `symbol` 0: of any symbol."""
    count = collect(s, c, np.int64(c["flags"]), symbol, np.int64(0))
    work_list(s, WORK_CANCELS, count, np.int64(c["account"]), np.int64(c["session"]))
    s[WORK_SYMBOL] = symbol
    s[WORK_REASON] = Reason.MASS.value
    cancels_run(s)


@subroutine
def owned_cancel_run(s, account, session, reason, day_only):
    """Cancel every order of an account (session 0) or of one of its sessions, or its DAY orders, in
    entry order. Its command may be nobody's: TIME.
    """
    count = np.int64(0)
    for slot in range(len(owner(s))):
        mine = owner(s)[slot] == account
        if mine and (session == 0 or np.int64(orders(s)[slot]["session"]) == session):
            if not day_only or orders(s)[slot]["tif"] == TimeInForce.DAY:
                scratch(s)[count] = slot
                count += 1
    scratch_sort(s, count)
    work_list(s, WORK_CANCELS, count, account, session)
    s[WORK_REASON] = reason
    cancels_run(s)


@helper
def session_cancel_run(s, session, reason, day_only):
    """`owned_cancel_run` of a session."""
    account = np.int64(sessions(s)[session]["account"])
    owned_cancel_run(s, account, session, reason, day_only)


@helper
def page_run(s, c, symbol):
    """QUERY_OPEN_ORDERS: the rows after order_id, SUMMARY with the last one when more remain."""
    rows = np.int64(c["qty"]) if c["qty"] > 0 else np.int64(PAGE_ROWS_DEFAULT)
    count = collect(s, c, np.int64(c["flags"]), symbol, np.int64(c["order_id"]))
    # Rows are read slice by slice, of any symbol: whatever else runs might end an order listed.
    work_list(s, WORK_ROWS, min(count, rows), np.int64(c["account"]), np.int64(c["session"]))
    if count > rows:
        s[WORK_REF] = orders(s)[scratch(s)[rows - 1]]["order_id"]
    rows_run(s)
