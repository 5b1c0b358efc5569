"""Leaving a call: all who meet trade at one price, and what ends with it (RULES §6, §13 Calls).

Hot for instruments with RuleSet.FULL in calls and batch modes, else never run. A work in stages
(CALL.stage): the pairs of fills; CROSSED and the slices that show again; that once more while
anything still meets (market orders came before better limits; a batch mode crosses only once); then
what took part and cannot rest expires, in entry order. The memory is CALL of the symbol and the
list in `scratch`; a unit is a pair, a slice, an expiry.

The order of the fills needs no sorting: market orders by rank, then level after level from the
best: CALL.slot goes along what is displayed, in time order; behind it the head of the level is
whoever has a reserve, then the hidden ones. Self-trade prevention is off.

In a balanced batch orders trade as a whole: a *group* (the market orders, or a level) that is
filled completely by time alone, one that is not the smallest first, linked so (MORE.link) when it
is reached; CALL.at is the group, CALL.slot the next of its list, NONE where time decides.
"""

import numpy as np

from engine.book_rows import (
    ROW_BUYS,
    ROW_SELLS,
)
from engine.book_state import (
    NONE,
    WORK_COUNT,
    aside,
    calls,
    dark,
    events,
    levels,
    more,
    orders,
    owner,
    rules,
    scratch,
    sides,
    symbols,
)
from engine.emit import event_new, event_public, symbol_id_of
from engine.full_aside import aside_leave, is_aside
from engine.full_bands import emit_band, full_traded, untraded_reference
from engine.full_book import full_remove, full_shrink, is_guest, level_total
from engine.full_counted import level_by_size, markets_by_size
from engine.full_cross import cross_find
from engine.full_emit import full_emit_fill
from engine.full_lines import market_reaching
from engine.full_links import full_end, full_release, link_ended, link_moved
from engine.full_match import is_hidden, slice_show
from engine.full_modes import in_balanced, market_count
from engine.jit import helper, subroutine
from engine.matching import slice_full
from engine.quoters import quote_filled
from engine.records import (
    QTY_LOTS_MAX,
    EventFlag,
    EventKind,
    InstrumentRule,
    Reason,
    Role,
)
from engine.scratch import scratch_sort

MARKETS = -1  # the group of the market orders
STAGE_NONE, STAGE_FILLS, STAGE_SLICES, STAGE_ENDS, STAGE_ENTERS, STAGE_JOINS = range(6)


@helper
def cross_open(s, symbol):
    """Find the price; its fills begin."""
    row = calls(s)[symbol]
    px, volume, _, _ = cross_find(s, symbol)
    row["px"] = px
    row["volume"] = volume
    row["left"] = volume
    row["pairs"] = 0
    row["listed"] = 0
    row["index"] = 0
    for side in range(2):
        row["at"][side] = 0
        row["slot"][side] = NONE
    row["stage"] = STAGE_FILLS


@helper
def leave_open(s, symbol, once):
    """The call is left: remember what it was like. `once`: a batch mode crosses, and goes on."""
    row = calls(s)[symbol]
    row["once"] = once
    row["trades"] = symbols(s)[symbol]["trade_id"]
    row["old_ref"] = row["dynamic_ref"]
    row["old_extensions"] = row["extensions"]
    cross_open(s, symbol)


@helper
def market_entry(s, symbol, side, px):
    """The first market order of a side that trades at px, NONE when there is none."""
    slot = np.int64(calls(s)[symbol]["head"][ROW_BUYS + side])
    while slot >= 0 and (np.int64(orders(s)[slot]["px"]) - px) * (1 - 2 * side) < 0:
        slot = np.int64(aside(s)[slot]["next"])
    return slot


@helper
def group_open(s, symbol, side, group):
    """A group of a balanced batch is reached: is all of it going to be filled?"""
    row, side_index = calls(s)[symbol], symbol * 2 + side
    row["at"][side] = group
    row["slot"][side] = NONE
    level, px = np.int64(sides(s)[side_index]["best"]), np.int64(row["px"])
    if group == MARKETS:
        if market_reaching(s, side_index, px) > row["left"]:
            row["slot"][side] = markets_by_size(s, side_index, px)
    elif level_total(s, level) > row["left"]:
        row["slot"][side] = level_by_size(s, level)


@helper
def whole_entry(s, symbol, side):
    """Who trades next on a side of a balanced batch."""
    row, level = calls(s)[symbol], np.int64(sides(s)[symbol * 2 + side]["best"])
    slot = market_entry(s, symbol, side, np.int64(row["px"]))
    group = np.int64(MARKETS if slot >= 0 else levels(s)[level]["px"])
    if row["at"][side] != group:
        group_open(s, symbol, side, group)
    if row["slot"][side] >= 0:
        return np.int64(row["slot"][side])
    if group != MARKETS:
        slot, hidden = np.int64(levels(s)[level]["head"]), np.int64(dark(s)[level]["head"])
        if hidden >= 0 and more(s)[hidden]["rank"] < more(s)[slot]["rank"]:
            slot = hidden
    return slot


@helper
def cross_entry(s, symbol, side):
    """Who trades next on a side."""
    if in_balanced(s, symbol):
        return whole_entry(s, symbol, side)
    row = calls(s)[symbol]
    slot = market_entry(s, symbol, side, np.int64(row["px"]))
    if slot >= 0:
        return slot
    level = np.int64(sides(s)[symbol * 2 + side]["best"])
    head = np.int64(levels(s)[level]["head"])
    if row["at"][side] != levels(s)[level]["px"]:
        row["at"][side] = levels(s)[level]["px"]
        row["slot"][side] = NONE if is_hidden(s, head) else head
    slot = np.int64(row["slot"][side])
    return slot if slot >= 0 else head


@helper
def entry_open(s, symbol, side, slot):
    """Quantity with which it takes part now: its slice, or all the rest."""
    if slot == calls(s)[symbol]["slot"][side] and not in_balanced(s, symbol):
        return np.int64(more(s)[slot]["shown"])
    return np.int64(orders(s)[slot]["leaves"])


@helper
def emit_fill_cross(s, slot, deal):
    """One side of a pair; deal: (px, qty, trade_id, displayed before, whether it is a slice)."""
    px, qty, trade_id, before, displayed = deal
    shown = np.int64(more(s)[slot]["shown"])
    event = events(s)[full_emit_fill(s, slot, Role.AUCTION, px, qty, trade_id)]
    event["flags"] |= EventFlag.NON_FIFO.value
    event["shown_before"] = before
    event["shown"] = shown
    if displayed:
        event["public_ref"] = orders(s)[slot]["public_ref"]
    if shown < before:
        event_public(s, event)


@helper
def slice_over(s, symbol, side, slot):
    """The slice that traded is used up: the next order's turn; one with a reserve shows again when
    all is over.
    """
    row, behind = calls(s)[symbol], np.int64(orders(s)[slot]["next"])
    if not in_balanced(s, symbol):
        row["slot"][side] = NONE if behind < 0 or is_hidden(s, behind) else behind
    if orders(s)[slot]["leaves"] != 0:
        scratch(s)[row["listed"]] = slot
        row["listed"] += 1


@helper
def cross_fill(s, slot, qty):
    """One side of a pair, and its end when it is filled."""
    order = orders(s)[slot]
    symbol, side = np.int64(order["symbol"]), np.int64(order["side"])
    row, whole = calls(s)[symbol], in_balanced(s, symbol)
    displayed = whole or slot == row["slot"][side]
    before = np.int64(more(s)[slot]["shown"])
    if is_aside(s, slot):
        order["leaves"] -= qty
    else:
        part = min(qty, before) if displayed else np.int64(0)
        full_shrink(s, slot, part, qty - part)
    order["cum"] += qty
    px, trade_id = np.int64(row["px"]), np.int64(symbols(s)[symbol]["trade_id"])
    emit_fill_cross(s, slot, (px, qty, trade_id, before, displayed))
    if more(s)[slot]["quoter"] != 0:
        quote_filled(s, slot, qty)
    if displayed and more(s)[slot]["shown"] == 0 and before > 0:
        slice_over(s, symbol, side, slot)
    if order["leaves"] == 0:
        if whole and row["slot"][side] == slot:
            row["slot"][side] = more(s)[slot]["link"]
        if is_aside(s, slot):
            aside_leave(s, slot)
        else:
            full_remove(s, slot)
        full_release(s, slot)
        link_ended(s, slot)


@helper
def cross_pair(s, symbol):
    """The next pair of fills."""
    row, terms = calls(s)[symbol], symbols(s)[symbol]
    buy, sell = cross_entry(s, symbol, np.int64(0)), cross_entry(s, symbol, np.int64(1))
    buys, sells = entry_open(s, symbol, 0, buy), entry_open(s, symbol, 1, sell)
    qty = min(buys, sells)
    terms["trade_id"] += 1
    terms["last_qty"] = qty
    terms["volume"] += qty
    row["left"] -= qty
    row["pairs"] += 1
    cross_fill(s, buy, qty)
    cross_fill(s, sell, qty)
    link_moved(s, buy)
    link_moved(s, sell)


@helper
def emit_crossed(s, symbol):
    """CROSSED: the price, also where nothing met."""
    row = calls(s)[symbol]
    event = events(s)[event_new(s, EventKind.CROSSED)]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["px"] = row["px"]
    event["qty"] = min(np.int64(row["volume"]), np.int64(QTY_LOTS_MAX))
    event["amount"] = row["pairs"]
    event["amount2"] = row["volume"]
    event["code"] = symbols(s)[symbol]["phase"]
    if row["volume"] > 0:
        event["trade_id"] = symbols(s)[symbol]["trade_id"]
    event_public(s, event)


@helper
def fills_run(s, symbol):
    """All pairs, then CROSSED; returns False when the slice is full before."""
    row = calls(s)[symbol]
    while row["left"] > 0:
        if slice_full(s):
            return False
        s[WORK_COUNT] += 1
        cross_pair(s, symbol)
    if row["volume"] > 0:
        full_traded(s, symbol, np.int64(row["px"]))
    emit_crossed(s, symbol)
    row["stage"] = STAGE_SLICES
    return True


@helper
def is_exhausted(s, symbol, slot):
    """Whether the order in `slot` is still one of this symbol that shows nothing of what it has."""
    order = orders(s)[slot]
    lives = owner(s)[slot] != 0 and np.int64(order["symbol"]) == symbol
    return lives and np.int64(order["level"]) >= 0 and more(s)[slot]["shown"] == 0


@helper
def slices_run(s, symbol):
    """Used-up slices show again; returns False when the slice of the work is full before."""
    row = calls(s)[symbol]
    while row["index"] < row["listed"]:
        slot = np.int64(scratch(s)[row["index"]])
        if is_exhausted(s, symbol, slot):
            if slice_full(s):
                return False
            s[WORK_COUNT] += 1
            slice_show(s, slot)
        row["index"] += 1
    return True


@helper
def ends_here(s, slot):
    """Whether an order of the symbol that crossed took part and cannot rest."""
    place = np.int64(aside(s)[slot]["row"])
    if orders(s)[slot]["level"] >= 0:
        return is_guest(orders(s)[slot])
    return place == ROW_BUYS or place == ROW_SELLS


@helper
def ends_list(s, symbol):
    """Put all that took part and cannot rest into `scratch`, in entry order. O(order slots) where
    there is any.
    """
    call, count = calls(s)[symbol], np.int64(0)
    there = np.int64(call["guests"])
    there += market_count(s, symbol * 2) + market_count(s, symbol * 2 + 1)
    slot = np.int64(0)
    while count < there:
        if owner(s)[slot] != 0 and np.int64(orders(s)[slot]["symbol"]) == symbol:
            if ends_here(s, slot):
                scratch(s)[count] = slot
                count += 1
        slot += 1
    scratch_sort(s, count)
    call["listed"] = count
    call["index"] = 0
    call["stage"] = STAGE_ENDS


@helper
def ends_run(s, symbol):
    """It expires; returns False when the slice is full before."""
    row = calls(s)[symbol]
    while row["index"] < row["listed"]:
        if slice_full(s):
            return False
        s[WORK_COUNT] += 1
        slot = np.int64(scratch(s)[row["index"]])
        row["index"] += 1
        full_end(s, EventKind.EXPIRED, slot, Reason.AUCTION_END)
    return True


@helper
def leave_close(s, symbol):
    """References behind the uncross; BAND where they changed."""
    row, rule = calls(s)[symbol], rules(s)[symbol]["rule"]
    row["extensions"] = 0
    if symbols(s)[symbol]["trade_id"] > row["trades"]:
        row["dynamic_ref"] = symbols(s)[symbol]["last_px"]
    else:
        row["dynamic_ref"] = untraded_reference(s, symbol)
    banded = (rule[InstrumentRule.STATIC_BAND.value] | rule[InstrumentRule.DYNAMIC_BAND.value]) != 0
    changed = row["old_ref"] != row["dynamic_ref"] or row["old_extensions"] != 0
    if banded and changed:
        emit_band(s, symbol)
    row["stage"] = STAGE_NONE


@subroutine
def leave_run(s, symbol):
    """Go on leaving the call; returns False when the slice is full before its end."""
    row = calls(s)[symbol]
    while row["stage"] < STAGE_ENDS:
        if row["stage"] == STAGE_FILLS and not fills_run(s, symbol):
            return False
        if not slices_run(s, symbol):
            return False
        if row["once"] == 0 and cross_find(s, symbol)[1] > 0:
            cross_open(s, symbol)
        else:
            ends_list(s, symbol)
    if not ends_run(s, symbol):
        return False
    leave_close(s, symbol)
    return True
