"""Queues of the full rules: what is displayed stands before what is hidden (RULES §2, §13).

Hot for instruments with RuleSet.FULL, never run for plain ones. A level is one list as in
engine/book_numba.py: displayed orders (icebergs with the slice they show) in time order, then the
hidden ones in time order. LEVEL.qty is what is displayed; DARK of the level knows the rest:

    levels[level]  qty  displayed           count  all orders of the queue
    dark[level]    qty  not displayed       count  hidden orders     head  the first of them

Invariants: an order is hidden iff it has ORDER_HIDDEN, and shows nothing then; one that is not
shows 1 .. leaves, an iceberg at most its peak; DARK of a level that is free is (0, NONE, 0).
"""

import numpy as np

from engine.book_numba import level_create, level_find, level_remove, symbol_touch
from engine.book_rows import (
    ORDER_HIDDEN,
)
from engine.book_state import (
    NONE,
    SETTLING,
    calls,
    dark,
    levels,
    more,
    orders,
    rules,
    settling,
    sides,
)
from engine.jit import helper, subroutine
from engine.records import OrderType, SelfTrade, TimeInForce


@subroutine
def settle_note(s, symbol):
    """Something follows for this symbol when the command is done."""
    rules(s)[symbol]["settles"] = 1
    place = np.int64(s[SETTLING])
    while place > 0 and settling(s)[place - 1] > symbol:
        settling(s)[place] = settling(s)[place - 1]
        place -= 1
    settling(s)[place] = symbol
    s[SETTLING] += 1


@helper
def full_touch(s, symbol):
    """The running command changes this symbol."""
    symbol_touch(s, symbol)
    row = rules(s)[symbol]
    if row["watched"] != 0 and row["settles"] == 0:
        settle_note(s, symbol)


@helper
def own_met(s, taker, maker):
    """Whether self-trade prevention stands between the two."""
    same = orders(s)[taker]["account"] == orders(s)[maker]["account"]
    return same and more(s)[taker]["stp"] != SelfTrade.NONE


@helper
def top_lose(s, slot):
    """Not the top order of its side, not any more."""
    order = orders(s)[slot]
    row, side = rules(s)[np.int64(order["symbol"])], np.int64(order["side"])
    if row["top"][side] == slot + 1:
        row["top"][side] = 0


@helper
def queue_place(s, slot, ahead):
    """Whom an order that was parked stands behind: `ahead`, or the last before it of its kind with
    an earlier rank; NONE: nobody.
    """
    rank, hidden = np.int64(more(s)[slot]["rank"]), orders(s)[slot]["flags"] & ORDER_HIDDEN
    while ahead >= 0 and np.int64(more(s)[ahead]["rank"]) > rank:
        if orders(s)[ahead]["flags"] & ORDER_HIDDEN != hidden:
            break
        ahead = np.int64(orders(s)[ahead]["prev"])
    return ahead


@helper
def queue_link(s, slot, level):
    """Put the order into the list of a level: displayed before the hidden ones, hidden last."""
    order, row = orders(s)[slot], levels(s)[level]
    hidden = np.int64(order["flags"]) & ORDER_HIDDEN
    behind = np.int64(NONE if hidden else dark(s)[level]["head"])
    ahead = np.int64(row["tail"]) if behind < 0 else np.int64(orders(s)[behind]["prev"])
    if more(s)[slot]["rank"] != calls(s)[np.int64(order["symbol"])]["ranks"]:
        ahead = queue_place(s, slot, ahead)
        behind = np.int64(row["head"]) if ahead < 0 else np.int64(orders(s)[ahead]["next"])
    order["prev"] = ahead
    order["next"] = behind
    order["level"] = level
    if ahead >= 0:
        orders(s)[ahead]["next"] = slot
    else:
        row["head"] = slot
    if behind >= 0:
        orders(s)[behind]["prev"] = slot
    else:
        row["tail"] = slot
    if hidden and behind == np.int64(dark(s)[level]["head"]):
        dark(s)[level]["head"] = slot


@helper
def queue_unlink(s, slot):
    """Take the order out of the list of its level."""
    order = orders(s)[slot]
    level = np.int64(order["level"])
    row = levels(s)[level]
    ahead, behind = np.int64(order["prev"]), np.int64(order["next"])
    if ahead >= 0:
        orders(s)[ahead]["next"] = behind
    else:
        row["head"] = behind
    if behind >= 0:
        orders(s)[behind]["prev"] = ahead
    else:
        row["tail"] = ahead
    if np.int64(dark(s)[level]["head"]) == slot:
        dark(s)[level]["head"] = behind


@helper
def is_guest(row):
    """Whether an order that is in a level cannot stay there: the next cross is its last."""
    kind, tif = np.int64(row["order_type"]), np.int64(row["tif"])
    stops = (
        kind == OrderType.STOP or kind == OrderType.TAKE_PROFIT or kind == OrderType.TRAILING_STOP
    )
    immediate = tif == TimeInForce.IOC or tif == TimeInForce.FOK
    return stops or immediate or tif >= TimeInForce.AT_OPEN


@subroutine
def full_append(s, slot):
    """Put the order, with `shown` set, at the back of its level (created when missing)."""
    order = orders(s)[slot]
    side_index = np.int64(order["symbol"]) * 2 + np.int64(order["side"])
    px = np.int64(order["px"])
    level = level_find(s, side_index, px)
    if level < 0:
        level = level_create(s, side_index, px)
    queue_link(s, slot, level)
    shown = np.int64(more(s)[slot]["shown"])
    levels(s)[level]["qty"] += shown
    levels(s)[level]["count"] += 1
    dark(s)[level]["qty"] += np.int64(order["leaves"]) - shown
    if np.int64(order["flags"]) & ORDER_HIDDEN:
        dark(s)[level]["count"] += 1
    sides(s)[side_index]["orders"] += 1
    calls(s)[side_index >> 1]["guests"] += np.int64(is_guest(order))


@subroutine
def full_remove(s, slot):
    """Take the order, with what it has open, out of its level."""
    order = orders(s)[slot]
    level = np.int64(order["level"])
    row = levels(s)[level]
    queue_unlink(s, slot)
    top_lose(s, slot)
    shown = np.int64(more(s)[slot]["shown"])
    row["qty"] -= shown
    row["count"] -= 1
    dark(s)[level]["qty"] -= np.int64(order["leaves"]) - shown
    if np.int64(order["flags"]) & ORDER_HIDDEN:
        dark(s)[level]["count"] -= 1
    order["level"] = NONE
    sides(s)[np.int64(row["side"])]["orders"] -= 1
    calls(s)[np.int64(row["side"]) >> 1]["guests"] -= np.int64(is_guest(order))
    if row["count"] == 0:
        level_remove(s, level)


@helper
def full_shrink(s, slot, displayed, hidden):
    """The order has this much less, displayed and not; it keeps its place."""
    level = np.int64(orders(s)[slot]["level"])
    orders(s)[slot]["leaves"] -= displayed + hidden
    more(s)[slot]["shown"] -= displayed
    levels(s)[level]["qty"] -= displayed
    dark(s)[level]["qty"] -= hidden


@helper
def full_refresh(s, slot):
    """An iceberg whose slice is used up shows the next one, at the back of the displayed queue."""
    order = orders(s)[slot]
    level = np.int64(order["level"])
    shown = min(np.int64(more(s)[slot]["peak"]), np.int64(order["leaves"]))
    more(s)[slot]["shown"] = shown
    levels(s)[level]["qty"] += shown
    dark(s)[level]["qty"] -= shown
    top_lose(s, slot)
    queue_unlink(s, slot)
    queue_link(s, slot, level)


@helper
def level_total(s, level):
    """All that rests on a level, displayed or not."""
    return np.int64(levels(s)[level]["qty"]) + np.int64(dark(s)[level]["qty"])
