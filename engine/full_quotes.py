"""QUOTE: the bid and the ask of an account in an instrument, replaced together (RULES §1, §13).

Hot for instruments with RuleSet.FULL. A quote is up to two DAY limit orders that engine/quoters.py
knows by instrument and account. First all tests, for both sides; then the sides that lose priority
leave, both are answered (ACCEPTED, REPLACED, CANCELED), and what is to enter meets the book: the
bid, then the ask. That is a work of its own (WORK_QUOTE) with the runs as parts of it: QUOTE_SLOT
and its neighbours say which side is still to enter, and how the public knows it.
"""

import numpy as np

from engine.book_numba import level_find
from engine.book_rows import SESSION_LIMITED
from engine.book_state import (
    EVENT_MASK,
    FATAL,
    FATAL_SECOND_WORK,
    IN_TS,
    LEVELS_CAPACITY,
    LEVELS_USED,
    NONE,
    ORDERS_FREE,
    OUT_POSITION,
    QUOTE_REF,
    QUOTE_SHOWN,
    QUOTE_SLOT,
    RUN_OPEN,
    SETTLING,
    WORK_COUNT,
    WORK_KIND,
    WORK_SYMBOL,
    events,
    levels,
    more,
    orders,
    quoters,
    sessions,
    symbols,
)
from engine.emit import emit_continued, event_public
from engine.full_bands import static_code
from engine.full_book import full_remove, full_shrink, full_touch
from engine.full_emit import full_emit_accepted, full_emit_ended, order_total, replaced_open
from engine.full_links import full_release
from engine.full_modes import phase_of, trades_now
from engine.full_orders import DAY_NS, more_take
from engine.full_rounds import level_crowded
from engine.full_run import full_enter, full_run_on
from engine.jit import helper, subroutine
from engine.limit_codes import limit_code
from engine.limit_count import limit_find
from engine.matching import WORK_NONE, WORK_QUOTE, best_crosses, order_take
from engine.order_due import due_insert, due_remove
from engine.quoters import quoter_find, quoter_join, quoter_room, quoter_side
from engine.records import (
    CommandFlag,
    EventFlag,
    EventKind,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    SelfTrade,
    TimeInForce,
)

TEXT_ID = int(CommandFlag.TEXT_ID)


# ------------------------------------------------------------------------------------- the tests
@helper
def quote_px(c, side):
    """Price wanted on a side."""
    return np.int64(c["px"]) if side == 0 else np.int64(c["px2"])


@helper
def quote_qty(c, side):
    """Open quantity wanted on a side, 0: none."""
    return np.int64(c["qty"]) if side == 0 else np.int64(c["qty2"])


@helper
def quote_keeps(s, slot, px, qty):
    """Whether a live side keeps its place."""
    if slot < 0 or qty == 0:
        return False
    return px == np.int64(orders(s)[slot]["px"]) and qty <= np.int64(orders(s)[slot]["leaves"])


@helper
def side_crowded(s, c, symbol, number, side):
    """314: a side that enters finds its level as full as one that is shared out may be."""
    px, qty, slot = quote_px(c, side), quote_qty(c, side), quoter_side(s, number, side)
    if qty == 0 or quote_keeps(s, slot, px, qty):
        return False
    own = np.int64(orders(s)[slot]["level"]) if slot >= 0 else np.int64(NONE)
    return level_crowded(s, symbol * 2 + side, px, own)


@helper
def side_levels(s, c, symbol, number, side):
    """How many levels more a side will take."""
    px, qty, slot = quote_px(c, side), quote_qty(c, side), quoter_side(s, number, side)
    if quote_keeps(s, slot, px, qty):
        return np.int64(0)
    change, alone = np.int64(0), False
    if slot >= 0:
        alone = levels(s)[np.int64(orders(s)[slot]["level"])]["count"] == 1
    if alone:
        change -= 1
    if qty > 0:
        left = alone and np.int64(orders(s)[slot]["px"]) == px
        if left or level_find(s, symbol * 2 + side, px) < 0:
            change += 1
    return change


@helper
def side_limit_code(s, c, place, number, side, growth):
    """403 to 406 of a side; `place`: of the limits, `growth`: orders that the quote adds. What is
    open of a side is what it is measured by.
    """
    slot, qty, none = quoter_side(s, number, side), quote_qty(c, side), np.int64(0)
    old, old_px = none, none
    if slot >= 0:
        old, old_px = np.int64(orders(s)[slot]["leaves"]), np.int64(orders(s)[slot]["px"])
    after = (qty, qty * quote_px(c, side), growth)
    return limit_code(s, place, side, (old, old * old_px, none), after)


@subroutine
def quote_limit_code(s, c, symbol, number):
    """403 to 406 of a quote of an account that has limits; the lowest code of both sides wins."""
    place = limit_find(s, np.int64(c["account"]), symbol)
    lowest, growth = np.int64(0), np.int64(0)
    if place == 0:
        return lowest
    for side in range(2):
        growth += np.int64(quote_qty(c, side) > 0) - np.int64(quoter_side(s, number, side) >= 0)
    growth = max(growth, np.int64(0))
    for side in range(2):
        if quote_qty(c, side) > 0:
            code = side_limit_code(s, c, place, number, np.int64(side), growth)
            if code != 0 and (lowest == 0 or code < lowest):
                lowest = code
    return lowest


@helper
def quote_instrument_code(s, c, symbol, number):
    """3xx and 4xx of a quote that wants something."""
    if phase_of(s, symbol) != Phase.CONTINUOUS:
        return np.int64(RejectCode.NOT_IN_PHASE.value)
    if c["stp"] != 0 or np.int64(c["flags"]) & ~TEXT_ID != 0:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    for side in range(2):
        if quote_qty(c, side) > 0:
            code = static_code(s, symbol, side, quote_px(c, side))
            if code != 0:
                return code
    crowded = side_crowded(s, c, symbol, number, 0) or side_crowded(s, c, symbol, number, 1)
    if crowded:
        return np.int64(RejectCode.TOO_MANY.value)
    if c["qty"] != 0 and c["qty2"] != 0 and c["px"] >= c["px2"]:
        return np.int64(RejectCode.QUOTE_CROSSED.value)
    if np.int64(sessions(s)[np.int64(c["session"])]["flags"]) & SESSION_LIMITED:
        code = quote_limit_code(s, c, symbol, number)
        if code != 0:
            return code
    fired = quoters(s)[number]["fired"] != 0
    return np.int64(RejectCode.MMP_ACTIVE.value if fired else 0)


@helper
def quote_capacity_code(s, c, symbol, number):
    """9xx of a quote. What a side that goes gives back is there for the next command."""
    taken, more_levels = np.int64(0), np.int64(0)
    for side in range(2):
        if quote_qty(c, side) > 0 and quoter_side(s, number, side) < 0:
            taken += 1
        more_levels += side_levels(s, c, symbol, number, side)
    if taken > s[ORDERS_FREE] or (number == 0 and not quoter_room(s)):
        return np.int64(RejectCode.ORDERS_FULL.value)
    if more_levels > 0 and s[LEVELS_USED] + more_levels > s[LEVELS_CAPACITY]:
        return np.int64(RejectCode.LEVELS_FULL.value)
    return np.int64(0)


@helper
def quote_code(s, c, symbol, number):
    """All that a quote can be refused for behind 2xx."""
    if max(np.int64(c["px"]), np.int64(c["px2"])) > symbols(s)[symbol]["px_max"]:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if c["qty"] == 0 and c["qty2"] == 0:  # as good as a cancel
        there = quoter_side(s, number, 0) >= 0 or quoter_side(s, number, 1) >= 0
        return np.int64(0 if there else RejectCode.UNKNOWN_ORDER.value)
    code = quote_instrument_code(s, c, symbol, number)
    if code == 0:
        code = quote_capacity_code(s, c, symbol, number)
    return code


# ----------------------------------------------------------------------------------- the answers
@helper
def day_end(s):
    """When a quote of now expires."""
    return (np.int64(s[IN_TS]) // DAY_NS + 1) * DAY_NS


@helper
def side_accept(s, c, symbol, side):
    """ACCEPTED: a side that was not there; it is to enter."""
    slot = order_take(s, c, symbol, np.int64(0))
    row, extra = orders(s)[slot], more(s)[slot]
    row["order_type"] = OrderType.LIMIT.value  # whatever the record says: a side is no peg
    more_take(s, c, slot, symbol)
    row["side"] = side
    row["tif"] = TimeInForce.DAY.value
    row["px"] = quote_px(c, side)
    row["leaves"] = quote_qty(c, side)
    extra["expire_ts"] = day_end(s)
    extra["peak"] = 0
    extra["min_qty"] = 0
    extra["stp"] = SelfTrade.EXPIRE_MAKER.value
    quoter_join(s, slot)
    full_emit_accepted(s, slot)
    s[QUOTE_SLOT + side] = slot + 1
    s[QUOTE_REF + side] = 0
    s[QUOTE_SHOWN + side] = 0


@helper
def side_stay(s, slot):
    """The side lives until the end of this day."""
    extra = more(s)[slot]
    expiry = day_end(s)
    if expiry != np.int64(extra["expire_ts"]):
        due_remove(s, slot)
        extra["expire_ts"] = expiry
        due_insert(s, slot)


@helper
def side_keep(s, slot, qty):
    """REPLACED: as much or less at the same price."""
    less, before = np.int64(orders(s)[slot]["leaves"]) - qty, np.int64(more(s)[slot]["shown"])
    side_stay(s, slot)
    full_shrink(s, slot, less, np.int64(0))
    event = replaced_open(s, slot, order_total(s, slot), before)
    event["shown"] = more(s)[slot]["shown"]
    event["public_ref"] = orders(s)[slot]["public_ref"]
    event["flags"] |= EventFlag.KEPT.value
    if less > 0:
        event_public(s, event)


@helper
def side_move(s, slot, px, qty):
    """REPLACED: it has left its place, and is to enter."""
    row, extra = orders(s)[slot], more(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    before, ref = np.int64(extra["shown"]), np.int64(row["public_ref"])
    side_stay(s, slot)
    row["px"] = px
    row["leaves"] = qty
    row["public_ref"] = 0
    extra["shown"] = 0
    extra["rank"] = 0
    event = replaced_open(s, slot, order_total(s, slot), before)
    event["old_ref"] = ref
    event["flags"] |= EventFlag.LEFT_BOOK.value
    crosses = trades_now(s, symbol) and best_crosses(s, symbol, side, px)
    if crosses:
        event["flags"] |= EventFlag.WILL_TRADE.value
        event_public(s, event)
    s[QUOTE_SLOT + side] = slot + 1
    s[QUOTE_REF + side] = 0 if crosses else ref
    s[QUOTE_SHOWN + side] = before


@subroutine
def side_answer(s, c, symbol, side, slot):
    """One side; one that lost its place is in no level by now. -1: there was none."""
    px, qty = quote_px(c, side), quote_qty(c, side)
    if slot < 0:
        if qty > 0:
            side_accept(s, c, symbol, side)
        return
    orders(s)[slot]["client_order_id"] = c["client_order_id"]
    orders(s)[slot]["session"] = c["session"]
    if qty == 0:
        full_emit_ended(s, EventKind.CANCELED, slot, Reason.CLIENT)
        full_release(s, slot)
    elif orders(s)[slot]["level"] >= 0:
        side_keep(s, slot, qty)
    else:
        side_move(s, slot, px, qty)


# --------------------------------------------------------------------------------------- the work
@helper
def quote_run(s):
    """The bid meets the book, then the ask; returns False when the slice is full before its end."""
    if s[RUN_OPEN] and not full_run_on(s):
        return False
    for side in range(2):
        slot = np.int64(s[QUOTE_SLOT + side]) - 1
        if slot >= 0:
            s[QUOTE_SLOT + side] = 0
            if not full_enter(s, slot, np.int64(s[QUOTE_REF + side])):
                return False
    return True


@subroutine
def quote_go(s):
    """Go on with the open quote; closes the work when it is done, else CONTINUED."""
    if quote_run(s):
        s[WORK_KIND] = WORK_NONE
        if s[SETTLING] == 0:
            s[WORK_COUNT] = 0
    else:
        emit_continued(s, np.int64(s[WORK_COUNT]))
        s[WORK_COUNT] = 0


@subroutine
def full_quote(s, c, symbol):
    """QUOTE. Returns the reject code."""
    number = quoter_find(s, symbol, np.int64(c["account"]))
    code = quote_code(s, c, symbol, number)
    if code != 0:
        return code
    full_touch(s, symbol)
    slots = (quoter_side(s, number, 0), quoter_side(s, number, 1))
    for side in range(2):
        slot = slots[side]
        if slot >= 0 and not quote_keeps(s, slot, quote_px(c, side), quote_qty(c, side)):
            full_remove(s, slot)
    side_answer(s, c, symbol, 0, slots[0])
    if (slots[0] >= 0 or c["qty"] != 0) and (slots[1] >= 0 or c["qty2"] != 0):
        newest = (np.int64(s[OUT_POSITION]) - 1) & np.int64(s[EVENT_MASK])
        events(s)[newest]["flags"] |= EventFlag.MORE.value
    side_answer(s, c, symbol, 1, slots[1])
    if s[WORK_KIND] != WORK_NONE:
        s[FATAL] = FATAL_SECOND_WORK
    s[WORK_KIND] = WORK_QUOTE
    s[WORK_SYMBOL] = symbol
    s[WORK_COUNT] = 0
    quote_go(s)
    return code
