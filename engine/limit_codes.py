"""What the limits of an account on an instrument refuse, 403 to 406 (RULES §7).

Hot only for accounts that have limits (SESSION_LIMITED, ORDER_COUNTED). An order is measured by its
total lots and its notional, price times lots; of a replace only what it makes larger is looked at.
The position is judged at its worst: what is held, and all that is open on the order's side filled.
px < 2**31 and lots < 2**31: a notional is below 2**62.
"""

import numpy as np

from engine.book_rows import ORDER_COUNTED
from engine.book_state import counted, levels, limit_rows, orders, sides
from engine.jit import helper
from engine.limit_count import limit_find
from engine.records import AccountLimit, RejectCode


@helper
def judged_px(s, symbol, side, px):
    """Price an order is judged by: `px`, or where it has none the best opposite, 0 when there is
    none either.
    """
    if px != 0:
        return px
    level = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    return np.int64(levels(s)[level]["px"]) if level >= 0 else np.int64(0)


@helper
def exceeds(row, what, before, after):
    """Whether a figure that grows passes a limit of the row."""
    limit = np.int64(row["limit"][what])
    return limit != 0 and after > before and after > limit


@helper
def limit_code(s, place, side, before, after):
    """403 to 406 of an order that would grow from `before` to `after`: (lots, notional, orders);
    the lowest code wins.
    """
    row = limit_rows(s)[place]
    if exceeds(row, AccountLimit.MAX_QTY.value, before[0], after[0]):
        return np.int64(RejectCode.MAX_QTY.value)
    if exceeds(row, AccountLimit.MAX_NOTIONAL.value, before[1], after[1]):
        return np.int64(RejectCode.MAX_NOTIONAL.value)
    there = np.int64(row["open_orders"])
    if exceeds(row, AccountLimit.MAX_OPEN_ORDERS.value, there, there + after[2] - before[2]):
        return np.int64(RejectCode.MAX_OPEN_ORDERS.value)
    worst = (1 - 2 * side) * np.int64(row["position"]) + np.int64(row["open_qty"][side])
    if exceeds(row, AccountLimit.MAX_POSITION.value, worst, worst + after[0] - before[0]):
        return np.int64(RejectCode.MAX_POSITION.value)
    return np.int64(0)


@helper
def limit_new_code(s, c, symbol, size, stays):
    """403 to 406 of NEW; size: (lots, notional)."""
    place = limit_find(s, np.int64(c["account"]), symbol)
    if place == 0:
        return np.int64(0)
    none = np.int64(0)
    orders_more = np.int64(1 if stays else 0)
    return limit_code(
        s, place, np.int64(c["side"]), (none, none, none), (size[0], size[1], orders_more)
    )


@helper
def limit_replace_code(s, slot, before, after):
    """403 to 406 of REPLACE; before, after: (lots, notional)."""
    if np.int64(orders(s)[slot]["flags"]) & ORDER_COUNTED == 0:
        return np.int64(0)
    place, none = np.int64(counted(s)[slot]["row"]), np.int64(0)
    if place == 0:
        return np.int64(0)
    side = np.int64(orders(s)[slot]["side"])
    return limit_code(s, place, side, (before[0], before[1], none), (after[0], after[1], none))
