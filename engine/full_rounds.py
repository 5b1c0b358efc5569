"""A level that is shared out, worked off in rounds (RULES §13 Levels).

Hot for instruments whose levels are not taken by time alone (RULES.rounds: any base but fifo, or
lead market makers), never run for others. `share_next` says whom an aggressor meets next and for
how much; engine/full_match.full_sweep does it. On a level: if the aggressor wants all that others
have there, reserve and hidden too, each of them trades once, whole. Otherwise rounds over what
others display, exhausted slices shown again behind each; then what they hide, by time; then the
aggressor's own orders.

A round is planned at once (engine/full_shares.py) and then worked off unit by unit, in as many
slices as that takes:

    more[slot].share       what the order still gets in this round; 0 outside of rounds
    rules[symbol].round_*  fills and exhausted slices still to come, and where to look for the next

An order that is exhausted keeps its place with nothing displayed until its turn to show again.
"""

import numpy as np

from engine.book_numba import level_displayed, level_find
from engine.book_state import (
    NONE,
    WORK_CURSOR,
    WORK_TOTAL,
    dark,
    levels,
    more,
    orders,
    rules,
    sides,
)
from engine.full_modes import trades_now
from engine.full_shares import displayed_first, other_from, other_next, share_out
from engine.jit import helper, subroutine
from engine.records import InstrumentRule, OrderType, SelfTrade


@helper
def round_count(s, taker, level):
    """Note how many trade in the planned round, and how many of them show a new slice then."""
    row = rules(s)[np.int64(levels(s)[level]["side"]) >> 1]
    fills, shows = np.int64(0), np.int64(0)
    slot, end = displayed_first(s, taker, level)
    while slot != end:
        extra = more(s)[slot]
        if extra["share"] > 0:
            fills += 1
            if extra["share"] == extra["shown"] and extra["shown"] < orders(s)[slot]["leaves"]:
                shows += 1
        slot = other_next(s, taker, slot, end)
    row["round_fills"] = fills
    row["round_shows"] = shows
    row["round_next"] = levels(s)[level]["head"]


@subroutine
def round_begin(s, taker, level):
    """Plan a round; nothing when others display nothing."""
    slot, end = displayed_first(s, taker, level)
    if slot != end:
        share_out(s, taker, level)
        round_count(s, taker, level)


@helper
def round_open(s, symbol):
    """Whether something of a round is still to come, when the aggressor has enough too."""
    row = rules(s)[symbol]
    return row["round_fills"] > 0 or row["round_shows"] > 0


@helper
def round_fill(s, symbol):
    """The next trade of the round: (order, lots)."""
    row = rules(s)[symbol]
    slot = np.int64(row["round_next"])
    while more(s)[slot]["share"] == 0:
        slot = np.int64(orders(s)[slot]["next"])
    qty = np.int64(more(s)[slot]["share"])
    more(s)[slot]["share"] = 0
    row["round_fills"] -= 1
    row["round_next"] = orders(s)[slot]["next"]
    return slot, qty


@helper
def round_show(s, symbol, slot):
    """The next exhausted slice of the round, from `slot` on."""
    row = rules(s)[symbol]
    while more(s)[slot]["shown"] > 0:
        slot = np.int64(orders(s)[slot]["next"])
    row["round_shows"] -= 1
    return slot


@helper
def level_reach(s, taker, level):
    """Decide, once per level, whether the aggressor wants all that others have there."""
    px = np.int64(levels(s)[level]["px"])
    if s[WORK_CURSOR] == px:
        return
    total = np.int64(0)
    slot = other_from(s, taker, np.int64(levels(s)[level]["head"]), np.int64(NONE))
    while slot >= 0:
        total += np.int64(orders(s)[slot]["leaves"])
        slot = other_next(s, taker, slot, np.int64(NONE))
    s[WORK_CURSOR] = px
    s[WORK_TOTAL] = total <= np.int64(orders(s)[taker]["leaves"])


@subroutine
def share_next(s, taker, level):
    """Whom the aggressor meets next on its best level: (order, lots). No lots: the order shows its
    next slice. An order of its own: only such are left.
    """
    symbol, head = np.int64(orders(s)[taker]["symbol"]), np.int64(levels(s)[level]["head"])
    level_reach(s, taker, level)
    whole = s[WORK_TOTAL] != 0
    if not whole and not round_open(s, symbol):
        round_begin(s, taker, level)
    row = rules(s)[symbol]
    if row["round_fills"] > 0:
        return round_fill(s, symbol)
    if row["round_shows"] > 0:
        # From the front: a slice that was shown again is at the back.
        return round_show(s, symbol, head), np.int64(0)
    first = head if whole else np.int64(dark(s)[level]["head"])
    slot = other_from(s, taker, first, np.int64(NONE))
    if slot < 0:
        slot = head
    lots = min(np.int64(orders(s)[slot]["leaves"]), np.int64(orders(s)[taker]["leaves"]))
    return slot, lots


@helper
def share_offers(s, level, rest, account, mode):
    """What an order with `rest` open trades on a level, whoever gets how much: (quantity, whether
    an own order ends the run there). Own orders come last.
    """
    found, own = np.int64(0), False
    slot = np.int64(levels(s)[level]["head"])
    while slot >= 0:
        if np.int64(orders(s)[slot]["account"]) == account and mode != SelfTrade.NONE:
            own = True
        else:
            found += np.int64(orders(s)[slot]["leaves"])
        slot = np.int64(orders(s)[slot]["next"])
    return min(found, rest), own and mode != SelfTrade.EXPIRE_MAKER and found < rest


# ------------------------------------------------------------------------- entering such a level
@helper
def top_seek(s, slot):
    """An order is about to be displayed: better than all that is displayed on its side, it becomes
    the top order in continuous trading; whoever was it has lost that.
    """
    order = orders(s)[slot]
    symbol, side = np.int64(order["symbol"]), np.int64(order["side"])
    row = rules(s)[symbol]
    if row["rounds"] == 0 or more(s)[slot]["shown"] == 0:
        return
    best = level_displayed(s, np.int64(sides(s)[symbol * 2 + side]["best"]))
    ahead = np.int64(order["px"]) - np.int64(levels(s)[best]["px"]) if best >= 0 else np.int64(0)
    if best >= 0 and ahead * (1 - 2 * side) <= 0:
        return
    is_top = trades_now(s, symbol) and order["order_type"] < OrderType.PEG_PRIMARY
    row["top"][side] = slot + 1 if is_top else 0


@helper
def level_crowded(s, side_index, px, but):
    """Whether a level has as many orders as one that is shared out may have. `but`: the level of an
    order that is to be left out, or NONE.
    """
    row = rules(s)[side_index >> 1]
    level = level_find(s, side_index, px)
    if row["rounds"] == 0 or level < 0:
        return False
    count = np.int64(levels(s)[level]["count"]) - (1 if level == but else 0)
    return count >= np.int64(row["rule"][InstrumentRule.MAX_LEVEL_ORDERS.value])
