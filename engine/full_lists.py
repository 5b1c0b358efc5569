"""Linked orders: OCO, OTO, OTOCO are accepted together, and legs go live (RULES §2, §13).

Hot for instruments with RuleSet.FULL where lists are used. All legs of a list (engine/legs.py keeps
them) are tested, in their order, before the first change: those that enter now like any new order,
the legs of an OTO by what can be judged without the market. Then all are ACCEPTED, the legs of an
OTO PARKED, and the others enter (engine/full_begin.py). A leg goes live by ACTIVATE: with its
sibling, or both end with the code of the first that fails.

A leg that waits has its row in `pending` filled, whatever its type.
"""

import numpy as np

from engine.activations import activation_first, activation_take
from engine.book_rows import (
    LINKED_FIRST,
    LINKED_OCO,
    LINKED_PROTECTED,
    LINKED_WAITS,
    ORDER_POST_ONLY,
    ORDER_SLIDE,
)
from engine.book_state import (
    NONE,
    ORDERS_FREE,
    events,
    legs,
    links,
    more,
    orders,
    scratch,
    symbols,
)
from engine.emit import event_order
from engine.full_bands import reference_roll, static_limit
from engine.full_begin import BEGIN_UNIT, begin_later, list_open
from engine.full_book import full_touch
from engine.full_links import full_leave, linked, live_slot, sibling_of
from engine.full_match import full_dry_run, level_missing, limit_or_any
from engine.full_modes import in_batch, trades_now
from engine.full_orders import (
    BEGIN_MISSED,
    BEGIN_RUN,
    best_opposite,
    instrument_code,
    new_plan,
    order_accept,
    range_code,
    rule_of,
)
from engine.full_pegged import is_peg, peg_link
from engine.full_pegs import peg_plan
from engine.full_pending import is_stop
from engine.full_phases import phase_code_entry
from engine.full_stops import pending_take, stop_plan
from engine.id_table import id_insert
from engine.jit import helper, subroutine
from engine.legs import OCO, OTO, leg_row, leg_text, list_legs
from engine.matching import best_crosses
from engine.order_due import due_insert
from engine.records import (
    PRICE_TICKS_MAX,
    CommandFlag,
    EventKind,
    InstrumentRule,
    OrderType,
    Reason,
    RejectCode,
    TimeInForce,
)


# -------------------------------------------------------------------------------------------- entry
@helper
def later_code(s, leg, symbol, promised):
    """What can be judged of a leg without the market. Returns the reject code."""
    code = range_code(s, leg, symbol)
    if code == 0:
        code = instrument_code(s, leg, symbol)
    if code == 0 and s[ORDERS_FREE] <= promised:
        code = np.int64(RejectCode.ORDERS_FULL.value)
    return code


@helper
def later_park(s, slot, flags):
    """PARKED: the leg waits for the first order of its list."""
    ties = linked(s, slot) | LINKED_WAITS
    if flags & CommandFlag.PROTECTED.value:
        ties |= LINKED_PROTECTED
    more(s)[slot]["linked"] = ties
    if more(s)[slot]["expire_ts"] != 0:
        due_insert(s, slot)
    event_order(s, EventKind.PARKED, slot, np.int64(orders(s)[slot]["px"]), np.int64(0))


@helper
def pair_link(s, one, other):
    """The two name each other as sibling."""
    links(s)[one]["sibling"] = other
    links(s)[other]["sibling"] = one
    for slot in (one, other):
        more(s)[slot]["linked"] = linked(s, slot) | LINKED_OCO


@helper
def first_link(s, first, leg, count):
    """The end of the first order calls its legs."""
    links(s)[first]["leg"] = orders(s)[leg]["order_id"]
    links(s)[first]["legs"] = count
    more(s)[first]["linked"] = linked(s, first) | LINKED_FIRST


@helper
def leg_accept(s, leg, symbol, px, qty):
    """ACCEPTED; returns the slot. Its client id names it from now on."""
    slot = order_accept(s, leg, symbol, leg_text(s, leg), px, qty)
    row = links(s)[slot]
    row["leg"] = 0
    row["sibling"] = NONE
    row["legs"] = 0
    pending_take(s, leg, slot)
    if is_peg(np.int64(leg["order_type"])):
        peg_link(s, slot, px)
    id_insert(s, slot)
    return slot


@helper
def list_start(s, kind, symbol, how):
    """Tie the accepted orders, scratch[:legs], together and let those enter that do so now: the one
    that is no stop as `how` says.
    """
    full_touch(s, symbol)
    first, second = np.int64(scratch(s)[0]), np.int64(scratch(s)[1])
    last = np.int64(scratch(s)[list_legs(kind) - 1])
    if kind == OCO:
        pair_link(s, first, second)
    else:
        first_link(s, first, second, list_legs(kind) - 1)
    if kind != OCO and kind != OTO:
        pair_link(s, second, last)
    for number in range(2 if kind == OCO else 1):
        slot = np.int64(scratch(s)[number])
        waits = is_stop(np.int64(orders(s)[slot]["order_type"]))
        begin_later(s, slot, np.int64(BEGIN_RUN) if waits else how)
    list_open(s, symbol)


@helper
def legs_accept(s, c, symbol, px, qty):
    """All legs of a list are ACCEPTED, then those of an OTO parked. `px`, `qty`: of the one leg
    that enters now and is no stop.
    """
    kind, session = np.int64(c["decision_code"]), np.int64(c["session"])
    for number in range(list_legs(kind)):
        leg = legs(s)[leg_row(session, number)]
        enters = (kind == OCO or number == 0) and not is_stop(np.int64(leg["order_type"]))
        leg_px, leg_qty = np.int64(leg["px"]), np.int64(leg["qty"])
        if enters:
            leg_px, leg_qty = px, qty
        scratch(s)[number] = leg_accept(s, leg, symbol, leg_px, leg_qty)
    if kind != OCO:
        for number in range(1, list_legs(kind)):
            leg = legs(s)[leg_row(session, number)]
            later_park(s, np.int64(scratch(s)[number]), np.int64(leg["flags"]))


@subroutine
def list_new(s, c, symbol):
    """The last leg of a list is there, and they belong together. Returns the reject code of the
    first that fails.
    """
    kind, session = np.int64(c["decision_code"]), np.int64(c["session"])
    px, qty, how = np.int64(0), np.int64(0), np.int64(BEGIN_RUN)
    for number in range(list_legs(kind)):
        leg = legs(s)[leg_row(session, number)]
        promised = np.int64(number)
        if kind != OCO and number > 0:
            code = later_code(s, leg, symbol, promised)
        elif is_stop(np.int64(leg["order_type"])):
            code = stop_plan(s, leg, symbol, promised)
        elif is_peg(np.int64(leg["order_type"])):
            code = peg_plan(s, leg, symbol, promised)[0]
            px, qty = np.int64(leg["px"]), np.int64(leg["qty"])
        else:
            code, px, qty, how = new_plan(s, leg, symbol, promised)
        if code != 0:
            return code
    legs_accept(s, c, symbol, px, qty)
    list_start(s, kind, symbol, how)
    return np.int64(0)


# -------------------------------------------------------------------------------------- activation
@helper
def slide_code(s, slot):
    """502 of a post-only order that goes live; a sliding one gets its price."""
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if not best_crosses(s, symbol, side, np.int64(row["px"])):
        return np.int64(0)
    bad = np.int64(RejectCode.WOULD_TRADE.value)
    if np.int64(row["flags"]) & ORDER_SLIDE == 0:
        return bad
    row["px"] = best_opposite(s, symbol, side) - (1 - 2 * side)
    within = row["px"] >= 1 and row["px"] <= symbols(s)[symbol]["px_max"]
    return np.int64(0) if within else bad


@helper
def live_px_code(s, slot):
    """309, 502, 503 of a leg that goes live, and the limit it takes from the book."""
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if not trades_now(s, symbol):
        if row["order_type"] == OrderType.MARKET:  # a batch mode: it reserves as at entry
            row["px"] = static_limit(s, symbol, side)
        missing = row["order_type"] == OrderType.MARKET and row["px"] == 0
        return np.int64(RejectCode.NO_BAND.value if missing else 0)
    if np.int64(row["flags"]) & ORDER_POST_ONLY:
        return slide_code(s, slot)
    if row["order_type"] == OrderType.MARKET:
        best = best_opposite(s, symbol, side)
        if best == 0:
            return np.int64(RejectCode.NO_LIQUIDITY.value)
        if linked(s, slot) & LINKED_PROTECTED:
            px = best + (1 - 2 * side) * rule_of(s, symbol, InstrumentRule.PROTECTION)
            row["px"] = min(max(px, np.int64(1)), np.int64(PRICE_TICKS_MAX))
    return np.int64(0)


@helper
def live_offer(s, slot):
    """What a leg is promised to trade at once: 0, FOK_UNFILLED, or WALK_TOO_LONG."""
    row, extra = orders(s)[slot], more(s)[slot]
    qty, side = np.int64(row["leaves"]), np.int64(row["side"])
    wanted = qty if row["tif"] == TimeInForce.FOK else np.int64(extra["min_qty"])
    if wanted == 0:
        return np.int64(0)
    who = (np.int64(row["symbol"]), side, np.int64(row["account"]), np.int64(extra["stp"]))
    return full_dry_run(s, who, limit_or_any(np.int64(row["px"]), side), qty, wanted)


@subroutine
def live_code(s, slot):
    """Whether a leg may go live now. Returns (reject code, BEGIN_*)."""
    row = orders(s)[slot]
    kind, tif, run = np.int64(row["order_type"]), np.int64(row["tif"]), np.int64(BEGIN_RUN)
    at_once = more(s)[slot]["min_qty"] != 0 or np.int64(row["flags"]) & ORDER_POST_ONLY != 0
    code = phase_code_entry(s, np.int64(row["symbol"]), kind, tif, at_once)
    if code != 0 or is_stop(kind):
        return code, run
    immediate = tif == TimeInForce.IOC or tif == TimeInForce.FOK
    batch = in_batch(s, np.int64(row["symbol"]))
    if batch and (at_once or tif == TimeInForce.FOK or linked(s, slot) & LINKED_PROTECTED):
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value), run
    code = live_px_code(s, slot)
    if code != 0:
        return code, run
    found = live_offer(s, slot)
    if tif == TimeInForce.FOK and found == RejectCode.FOK_UNFILLED:
        return found, run
    if kind == OrderType.LIMIT and (batch or not immediate) and level_missing(s, row):
        return np.int64(RejectCode.LEVELS_FULL.value), run
    if found == RejectCode.WALK_TOO_LONG:
        return found, run
    return code, run if found == 0 else np.int64(BEGIN_MISSED)


@helper
def leg_fail(s, slot, code):
    """The leg cannot go live."""
    more(s)[slot]["linked"] = 0
    index = full_leave(s, EventKind.EXPIRED, slot, Reason.OTO_FAILURE)
    events(s)[index]["code"] = code


@helper
def leg_activate(s, slot, how):
    """ACTIVATED: the leg enters when its turn comes."""
    more(s)[slot]["linked"] = linked(s, slot) & LINKED_OCO
    event_order(s, EventKind.ACTIVATED, slot, np.int64(orders(s)[slot]["px"]), np.int64(0))
    begin_later(s, slot, how | BEGIN_UNIT)


@subroutine
def legs_activate(s):
    """ACTIVATE: the leg whose turn it is goes live with its sibling, or both end."""
    first = live_slot(s, activation_first(s))
    activation_take(s)
    if first < 0:
        return
    symbol, second = np.int64(orders(s)[first]["symbol"]), sibling_of(s, first)
    reference_roll(s, symbol)
    full_touch(s, symbol)
    code, how = live_code(s, first)
    how2 = np.int64(BEGIN_RUN)
    if code == 0 and second >= 0:
        code, how2 = live_code(s, second)
    if code != 0:
        leg_fail(s, first, code)
        if second >= 0:
            leg_fail(s, second, code)
        return
    leg_activate(s, first, how)
    if second >= 0:
        leg_activate(s, second, how2)
    list_open(s, symbol)
