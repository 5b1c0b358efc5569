"""Market-maker protection: who was filled too much loses the quote (RULES §1, §13 Quotes).

Hot for instruments with RuleSet.FULL where somebody is protected. What was filled is counted trade
by trade (engine/quoters.py); whose sum is over the limit waits in RULES.over, by account, and fires
behind the aggressor, or behind the uncross. A unit is an account: MMP_FIRED and the ends of both
sides. From then on its quotes are refused until SET_LIMITS arms the protection again.
"""

import numpy as np

from engine.book_state import (
    ACCOUNTS_CAPACITY,
    IN_TS,
    QUOTE_REF,
    QUOTE_SHOWN,
    QUOTE_SLOT,
    WORK_COUNT,
    accounts,
    events,
    more,
    orders,
    quoters,
    rules,
)
from engine.deadline import delay_code
from engine.emit import event_account, event_new, symbol_id_of
from engine.full_book import full_touch
from engine.full_emit import full_emit_ended
from engine.full_links import full_end, full_release
from engine.jit import helper, subroutine
from engine.matching import slice_full
from engine.quoters import (
    PARTS,
    quoter_find,
    quoter_room,
    quoter_settle,
    quoter_side,
    quoter_take,
    window_clear,
    window_sum,
)
from engine.records import QTY_LOTS_MAX, EventKind, Reason, RejectCode


@helper
def quote_pull(s, slot):
    """A side of the quote ends; one that is still to enter as the public knows it."""
    side = np.int64(orders(s)[slot]["side"])
    if s[QUOTE_SLOT + side] != slot + 1:
        full_end(s, EventKind.CANCELED, slot, Reason.MMP)
        return
    if s[QUOTE_REF + side] != 0:
        orders(s)[slot]["public_ref"] = s[QUOTE_REF + side]
        more(s)[slot]["shown"] = s[QUOTE_SHOWN + side]
    full_emit_ended(s, EventKind.CANCELED, slot, Reason.MMP)
    full_release(s, slot)


@subroutine
def protect_fire(s, symbol):
    """MMP_FIRED of the first who is over the limit, and the end of both sides."""
    number = np.int64(rules(s)[symbol]["over"])
    row = quoters(s)[number]
    rules(s)[symbol]["over"] = row["next"]
    row["next"] = 0
    row["over"] = 0
    row["fired"] = 1
    lots = window_sum(s, number, np.int64(s[IN_TS]))
    index = event_new(s, EventKind.MMP_FIRED)
    event = events(s)[index]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["qty"] = min(lots, np.int64(QTY_LOTS_MAX))
    event["amount"] = row["limit"]
    event["amount2"] = row["window"]
    event_account(s, index, np.int64(row["account"]), np.int64(0))
    for side in range(2):
        slot = quoter_side(s, number, side)
        if slot >= 0:
            quote_pull(s, slot)


@subroutine
def protect_run(s, symbol):
    """All fire that are over the limit; returns False when the slice is full before."""
    while rules(s)[symbol]["over"] != 0:
        if slice_full(s):
            return False
        s[WORK_COUNT] += 1
        full_touch(s, symbol)
        protect_fire(s, symbol)
    return True


# ------------------------------------------------------------------------------------- SET_LIMITS
OF_A_START = 1  # COMMAND.order_type: what is so already stays as it is, fired too


@helper
def limits_code(s, c, symbol):
    """103, 202, 902 of SET_LIMITS."""
    lots, window, account = np.int64(c["qty"]), np.int64(c["amount"]), np.int64(c["account"])
    if lots < 0 or delay_code(window) != 0 or (lots > 0 and window == 0):
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if account < 1 or account >= s[ACCOUNTS_CAPACITY] or accounts(s)[account]["open"] == 0:
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    if lots > 0 and quoter_find(s, symbol, account) == 0 and not quoter_room(s):
        return np.int64(RejectCode.ORDERS_FULL.value)
    return np.int64(0)


@subroutine
def limits_set(s, c, symbol):
    """SET_LIMITS: lots (`qty`, 0: unprotected) that may be filled on the quote of `account` within
    a window (`amount`, ns); arms the protection again. That of a start (`order_type` 1) leaves as
    it is what it says already. Returns the reject code.
    """
    code = limits_code(s, c, symbol)
    if code != 0:
        return code
    lots, window, account = np.int64(c["qty"]), np.int64(c["amount"]), np.int64(c["account"])
    number = quoter_find(s, symbol, account)
    row = quoters(s)[number]  # row 0 has no limit
    if c["order_type"] == OF_A_START and row["limit"] == lots and row["window"] == window:
        return code
    if number != 0 or lots > 0:
        number = quoter_take(s, symbol, account)
        row = quoters(s)[number]
        row["limit"] = lots
        row["fired"] = 0
        row["window"] = window if lots > 0 else 0
        row["width"] = (window + PARTS - 1) // PARTS if lots > 0 else 0
        window_clear(s, number)
        quoter_settle(s, number)
    index = event_new(s, EventKind.ACCOUNT)
    event = events(s)[index]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["reason"] = Reason.MMP.value
    event["amount"] = lots
    event["amount2"] = window
    event_account(s, index, account, np.int64(0))
    return code
