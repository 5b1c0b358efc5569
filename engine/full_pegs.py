"""Pegged orders: where they belong, entry, repricing, parking, replace (RULES §2, §13).

Hot for instruments with RuleSet.FULL that have pegs. A primary peg stands at the best price of its
own side, a market peg at that of the other, no nearer than a tick to the best opposite order of any
kind; a mid, hidden, between the two. No peg goes beyond its cap. What counts as a *reference* is
displayed and no peg. Without one, or where the book does not trade, the peg is parked: live, in no
level.

Once behind the waves of a command (engine/full_settle.py) all pegs that do not stand where they
belong are taken out, and then each enters at its turn, at the price the book gives by then: a unit.
RULES.peg_next is where that goes on; hdr[SETTLE_INDEX] says that they have been taken out.
"""

import numpy as np

from engine.book_numba import level_displayed, level_find, level_next
from engine.book_rows import ROW_PEGS
from engine.book_state import (
    LEVELS_CAPACITY,
    LEVELS_USED,
    ORDERS_FREE,
    SETTLE_INDEX,
    WORK_COUNT,
    events,
    levels,
    more,
    orders,
    pegs,
    rules,
    sides,
    symbols,
)
from engine.emit import event_order, event_public
from engine.full_aside import aside_join, aside_leave, rank_new
from engine.full_book import full_remove, full_touch
from engine.full_emit import order_total, replaced_open
from engine.full_modes import trades_now
from engine.full_orders import (
    best_opposite,
    full_cancel,
    instrument_code,
    order_accept,
    range_code,
)
from engine.full_pegged import PEG_OUT, PEG_RUNS, PEG_STANDS, is_peg, peg_link, peg_parked
from engine.full_replace import change_code, change_note, full_keep
from engine.full_run import full_enter, full_start
from engine.id_table import id_insert
from engine.jit import helper, subroutine
from engine.limit_codes import limit_replace_code
from engine.matching import slice_full
from engine.order_due import due_insert
from engine.records import EventFlag, EventKind, OrderType, Reason, RejectCode


# ------------------------------------------------------------------------------------------- prices
@helper
def level_leads(s, level):
    """Whether something is displayed on a level that is no peg."""
    slot = np.int64(levels(s)[level]["head"])
    while slot >= 0 and more(s)[slot]["shown"] > 0:
        if not is_peg(np.int64(orders(s)[slot]["order_type"])):
            return True
        slot = np.int64(orders(s)[slot]["next"])
    return False


@subroutine
def peg_reference(s, symbol, side):
    """Best price of a side at which an order is displayed that is no peg, 0: there is none."""
    level = level_displayed(s, np.int64(sides(s)[symbol * 2 + side]["best"]))
    while level >= 0 and not level_leads(s, level):
        level = level_displayed(s, level_next(s, level))
    return np.int64(levels(s)[level]["px"]) if level >= 0 else np.int64(0)


@helper
def less_aggressive(side, one, other):
    return min(one, other) if side == 0 else max(one, other)


@helper
def peg_px(s, symbol, side, kind, cap):
    """Where a peg belongs now, 0: nowhere."""
    own, other = peg_reference(s, symbol, side), peg_reference(s, symbol, 1 - side)
    at = own if kind == OrderType.PEG_PRIMARY else other
    if not trades_now(s, symbol) or at == 0:
        return np.int64(0)
    if kind == OrderType.PEG_MID:
        if own == 0:
            return np.int64(0)
        at = (own + other + side) // 2  # half ticks away from the market
    else:
        best = best_opposite(s, symbol, side)
        if best != 0:
            at = less_aggressive(side, at, best - (1 - 2 * side))
    at = less_aggressive(side, at, cap)
    within = at >= 1 and at <= symbols(s)[symbol]["px_max"]
    return at if within else np.int64(0)


@helper
def peg_target(s, slot):
    """Where a live peg belongs now, 0: nowhere."""
    row = orders(s)[slot]
    kind, cap = np.int64(row["order_type"]), np.int64(pegs(s)[slot]["cap"])
    return peg_px(s, np.int64(row["symbol"]), np.int64(row["side"]), kind, cap)


# ------------------------------------------------------------------------------------------ parking
@helper
def peg_wait(s, slot):
    """The peg, out of the book, is put among those that wait, at its cap."""
    extra = more(s)[slot]
    orders(s)[slot]["px"] = pegs(s)[slot]["cap"]
    orders(s)[slot]["public_ref"] = 0
    extra["shown"] = 0
    pegs(s)[slot]["moves"] = PEG_STANDS
    rank_new(s, slot)
    aside_join(s, slot, ROW_PEGS)


@subroutine
def peg_park(s, slot):
    """PARKED: the slice it showed leaves, and it waits unseen."""
    extra, ref = more(s)[slot], np.int64(orders(s)[slot]["public_ref"])
    shown = np.int64(extra["shown"])
    peg_wait(s, slot)
    id_insert(s, slot)
    if extra["expire_ts"] != 0 and extra["due"] == 0:
        due_insert(s, slot)
    px = np.int64(orders(s)[slot]["px"])
    event = events(s)[event_order(s, EventKind.PARKED, slot, px, np.int64(0))]
    event["public_ref"] = ref
    event["shown_before"] = shown
    if shown > 0:
        event_public(s, event)


@helper
def peg_leave(s, slot):
    """Take the peg out of its level, or from among those that wait; what it showed it remembers."""
    if peg_parked(s, slot):
        aside_leave(s, slot)
    else:
        full_remove(s, slot)
    more(s)[slot]["rank"] = 0


# -------------------------------------------------------------------------------------------- entry
@helper
def peg_capacity_code(s, symbol, side, px, promised):
    """902, 903 of a new peg that would stand at px, 0: that is parked."""
    if s[ORDERS_FREE] <= promised:
        return np.int64(RejectCode.ORDERS_FULL.value)
    full = s[LEVELS_USED] >= s[LEVELS_CAPACITY]
    if full and px != 0 and level_find(s, symbol * 2 + side, px) < 0:
        return np.int64(RejectCode.LEVELS_FULL.value)
    return np.int64(0)


@helper
def peg_plan(s, c, symbol, promised):
    """All tests of NEW of a peg. Returns (reject code, where it would stand). `promised`: slots
    that other legs of its list take.
    """
    side, cap = np.int64(c["side"]), np.int64(c["px"])
    code, px = range_code(s, c, symbol), np.int64(0)
    if code == 0:
        code = instrument_code(s, c, symbol)
    if code == 0:
        px = peg_px(s, symbol, side, np.int64(c["order_type"]), cap)
        code = peg_capacity_code(s, symbol, side, px, promised)
    return code, px


@helper
def peg_begin(s, slot):
    """An accepted peg enters where it belongs, or is parked; returns False when the slice is full
    before it is at rest.
    """
    px = peg_target(s, slot)
    if px == 0:
        peg_park(s, slot)
        return True
    orders(s)[slot]["px"] = px
    return full_enter(s, slot, np.int64(0))


@subroutine
def peg_new(s, c, symbol, text_row):
    """NEW of a peg. Returns the reject code."""
    code, px = peg_plan(s, c, symbol, np.int64(0))
    if code != 0:
        return code
    cap = np.int64(c["px"])
    slot = order_accept(s, c, symbol, text_row, cap, np.int64(c["qty"]))
    peg_link(s, slot, cap)
    full_touch(s, symbol)
    if px == 0:
        peg_park(s, slot)
    else:
        orders(s)[slot]["px"] = px
        full_start(s, slot, np.int64(0))
    return code


# ------------------------------------------------------------------------------------------ replace
@helper
def peg_move(s, c, slot, cap, total):
    """A new cap or a larger total: the peg loses its place and enters anew, or goes on waiting."""
    row, extra = orders(s)[slot], more(s)[slot]
    parked, before = peg_parked(s, slot), np.int64(extra["shown"])
    ref, leaves = np.int64(row["public_ref"]), np.int64(row["leaves"])
    peg_leave(s, slot)
    row["leaves"] = leaves + total - order_total(s, slot)
    pegs(s)[slot]["cap"] = cap
    row["px"] = cap
    row["public_ref"] = 0
    change_note(s, c, slot)
    px = peg_target(s, slot)
    event = replaced_open(s, slot, total, before)
    event["old_ref"] = ref
    event["flags"] |= EventFlag.LEFT_BOOK.value
    row["public_ref"] = ref  # what the public still sees
    full_touch(s, np.int64(row["symbol"]))
    if parked:
        peg_wait(s, slot)
    elif px == 0:
        peg_park(s, slot)
    else:
        row["px"] = px
        full_start(s, slot, ref)


@subroutine
def peg_replace(s, c, slot):
    """REPLACE of a peg: `px` is its cap. Returns a reject code, 0 when done."""
    cap, before = np.int64(pegs(s)[slot]["cap"]), order_total(s, slot)
    px = np.int64(c["px"]) if c["px"] != 0 else cap
    total = np.int64(c["qty"]) if c["qty"] != 0 else before
    over = total <= before - np.int64(orders(s)[slot]["leaves"])
    code = change_code(s, c, slot, total)
    if code == 0 and not over:
        code = limit_replace_code(s, slot, (before, before * cap), (total, total * px))
    if code != 0:
        return code
    if over:
        full_cancel(s, slot, Reason.REPLACED_BELOW_FILLED)
    elif px == cap and total <= before:
        change_note(s, c, slot)
        full_keep(s, slot, total)
    else:
        peg_move(s, c, slot, px, total)
    return code


# ---------------------------------------------------------------------------------------- repricing
@helper
def pegs_take_out(s, symbol):
    """Take out all pegs that do not stand where they belong, judged before the first leaves."""
    first = np.int64(rules(s)[symbol]["peg_first"])
    slot = first
    while slot >= 0:
        stands = np.int64(0) if peg_parked(s, slot) else np.int64(orders(s)[slot]["px"])
        if peg_target(s, slot) != stands:
            pegs(s)[slot]["moves"] = PEG_OUT
        slot = np.int64(pegs(s)[slot]["next"])
    slot = first
    while slot >= 0:
        if pegs(s)[slot]["moves"] == PEG_OUT:
            peg_leave(s, slot)
        slot = np.int64(pegs(s)[slot]["next"])
    rules(s)[symbol]["peg_next"] = first


@helper
def peg_go(s, slot):
    """A peg's turn: it enters at its price or is parked; returns False when the slice is full
    before the end of its run.
    """
    px = peg_target(s, slot)
    if px == 0:
        peg_park(s, slot)
        return True
    orders(s)[slot]["px"] = px
    pegs(s)[slot]["moves"] = PEG_RUNS
    return full_enter(s, slot, np.int64(orders(s)[slot]["public_ref"]))


@subroutine
def pegs_run(s, symbol):
    """All pegs go where they belong; returns False when the slice is full before."""
    row = rules(s)[symbol]
    if row["peg_first"] < 0:
        return True
    if s[SETTLE_INDEX] == 0:
        s[SETTLE_INDEX] = 1
        pegs_take_out(s, symbol)
    while row["peg_next"] >= 0:
        slot = np.int64(row["peg_next"])
        if pegs(s)[slot]["moves"] != PEG_OUT:
            row["peg_next"] = pegs(s)[slot]["next"]
        elif slice_full(s):
            return False
        else:
            row["peg_next"] = pegs(s)[slot]["next"]
            s[WORK_COUNT] += 1
            if not peg_go(s, slot):
                return False
    return True
