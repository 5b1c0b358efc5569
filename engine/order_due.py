"""Orders that expire by themselves: a heap of DAY and GTD orders by (time, entry) (RULES §2).

Hot for whoever places such orders, else never run. Nothing happens when a time passes, only when
TIME says so (engine/desk.py), one order a TIME. `due[0]` is the first to go; MORE.due is the place
of an order in the heap, so that one that ends otherwise leaves it in O(log n).
"""

import numpy as np

from engine.book_state import DUE_COUNT, NEXT_DEADLINE, due, more, orders
from engine.jit import helper, subroutine


@helper
def due_before(s, one, other):
    """Whether the order in slot `one` goes first."""
    at, by = np.int64(more(s)[one]["expire_ts"]), np.int64(more(s)[other]["expire_ts"])
    if at != by:
        return at < by
    return np.int64(orders(s)[one]["order_id"]) < np.int64(orders(s)[other]["order_id"])


@helper
def due_put(s, place, slot):
    """Write an order at a place of the heap."""
    due(s)[place] = slot
    more(s)[slot]["due"] = place + 1


@helper
def due_rise(s, place):
    """Let the order at `place` rise to where it belongs."""
    slot = np.int64(due(s)[place])
    while place > 0:
        parent = (place - 1) >> 1
        above = np.int64(due(s)[parent])
        if not due_before(s, slot, above):
            break
        due_put(s, place, above)
        place = parent
    due_put(s, place, slot)


@helper
def due_sink(s, place):
    """Let the order at `place` sink to where it belongs."""
    slot = np.int64(due(s)[place])
    count = np.int64(s[DUE_COUNT])
    while place * 2 + 1 < count:
        child = place * 2 + 1
        if child + 1 < count and due_before(
            s, np.int64(due(s)[child + 1]), np.int64(due(s)[child])
        ):
            child += 1
        below = np.int64(due(s)[child])
        if not due_before(s, below, slot):
            break
        due_put(s, place, below)
        place = child
    due_put(s, place, slot)


@subroutine
def due_insert(s, slot):
    """The order expires at its expire_ts."""
    place = np.int64(s[DUE_COUNT])
    s[DUE_COUNT] = place + 1
    due_put(s, place, slot)
    due_rise(s, place)
    deadline = np.int64(more(s)[slot]["expire_ts"])
    if s[NEXT_DEADLINE] == 0 or deadline < s[NEXT_DEADLINE]:
        s[NEXT_DEADLINE] = deadline


@subroutine
def due_remove(s, slot):
    """The order has ended, or another time: nothing when it is not in the heap."""
    place = np.int64(more(s)[slot]["due"]) - 1
    if place < 0:
        return
    more(s)[slot]["due"] = 0
    last = np.int64(s[DUE_COUNT]) - 1
    s[DUE_COUNT] = last
    moved = np.int64(due(s)[last])
    if last != place:
        due_put(s, place, moved)
        due_rise(s, place)
        due_sink(s, np.int64(more(s)[moved]["due"]) - 1)


@helper
def due_now(s, slot, now):
    """Whether `slot` holds an order that should have expired by now."""
    waits = slot >= 0 and slot < len(more(s)) and more(s)[slot]["due"] != 0
    return waits and np.int64(more(s)[slot]["expire_ts"]) <= now


@helper
def due_first(s):
    """Time of the first order to expire, 0 when none does."""
    if s[DUE_COUNT] == 0:
        return np.int64(0)
    return np.int64(more(s)[np.int64(due(s)[0])]["expire_ts"])
