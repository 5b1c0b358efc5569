"""How far the two sides of a call cross: lines along their prices (RULES §6).

Hot for instruments with RuleSet.FULL in calls and batch modes, else never run. No order is looked
at, only levels (and the market orders of the call, each with the limit it reserved at), from the
best of both sides towards each other, as far as they cross: O(levels that cross), no memory.

A *line* is how far a side was taken: (price, quantity up to there, price behind it, quantity there,
level behind that). With V the most volume there is, the lines stop at the first price of each side
where it has V: every tick between the two trades V.
"""

import numpy as np

from engine.book_numba import level_next
from engine.book_rows import (
    ROW_BUYS,
)
from engine.book_state import (
    aside,
    calls,
    levels,
    orders,
    sides,
)
from engine.full_book import level_total
from engine.jit import helper


@helper
def market_step(s, side_index, beyond):
    """Best limit of the call's market orders of a side that is worse than `beyond` (0: any), and
    the quantity there; (0, 0): none. O(these orders).
    """
    side = side_index & 1
    slot = np.int64(calls(s)[side_index >> 1]["head"][ROW_BUYS + side])
    sign, best, qty = 1 - 2 * side, np.int64(0), np.int64(0)
    while slot >= 0:
        px, leaves = np.int64(orders(s)[slot]["px"]), np.int64(orders(s)[slot]["leaves"])
        if beyond == 0 or (beyond - px) * sign > 0:
            if best == 0 or (px - best) * sign > 0:
                best = px
                qty = leaves
            elif px == best:
                qty += leaves
        slot = np.int64(aside(s)[slot]["next"])
    return best, qty


@helper
def side_step(s, side_index, level, beyond):
    """The next price of a side behind `beyond` (0: its best), `level` being the first level there;
    returns (price or 0, quantity, first level behind it).
    """
    px, qty = market_step(s, side_index, beyond)
    if level >= 0:
        at = np.int64(levels(s)[level]["px"])
        better = (at - px) * (1 - 2 * (side_index & 1)) > 0
        if px == 0 or better:
            px = at
            qty = np.int64(0)
        if px == at:
            qty += level_total(s, level)
            level = level_next(s, level)
    return px, qty, level


@helper
def line_begin(s, side_index):
    """The best price of a side, and what is behind it."""
    px, qty, level = side_step(s, side_index, np.int64(sides(s)[side_index]["best"]), np.int64(0))
    behind, more_qty, level = side_step(s, side_index, level, px)
    return px, qty, behind, more_qty, level


@helper
def line_on(s, side_index, line):
    """Take the price behind along."""
    _, total, px, qty, level = line
    behind, more_qty, level = side_step(s, side_index, level, px)
    return px, total + qty, behind, more_qty, level


@helper
def lines_meet(s, symbol):
    """Both lines, up to where there is no more volume. They must cross at their best."""
    buys, sells = symbol * 2, symbol * 2 + 1
    buy, sell = line_begin(s, buys), line_begin(s, sells)
    while True:
        wants_buy, wants_sell = buy[1] <= sell[1], sell[1] <= buy[1]
        bid = buy[2] if wants_buy else buy[0]
        ask = sell[2] if wants_sell else sell[0]
        if bid == 0 or ask == 0 or bid < ask:
            return buy, sell
        if wants_buy:
            buy = line_on(s, buys, buy)
        if wants_sell:
            sell = line_on(s, sells, sell)


@helper
def reference_of(s, symbol):
    """What an auction price should be near: the dynamic reference, else the static one, else 0."""
    row = calls(s)[symbol]
    dynamic = np.int64(row["dynamic_ref"])
    return dynamic if dynamic != 0 else np.int64(row["static_ref"])


@helper
def market_reaching(s, side_index, px):
    """Quantity of the call's market orders of a side that would trade at px."""
    side = side_index & 1
    slot, qty = np.int64(calls(s)[side_index >> 1]["head"][ROW_BUYS + side]), np.int64(0)
    while slot >= 0:
        if (np.int64(orders(s)[slot]["px"]) - px) * (1 - 2 * side) >= 0:
            qty += np.int64(orders(s)[slot]["leaves"])
        slot = np.int64(aside(s)[slot]["next"])
    return qty
