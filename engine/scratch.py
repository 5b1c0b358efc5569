"""Lists of order slots in `scratch`, brought into entry order.

Hot, but rare: mass cancels, pages of open orders, what expires behind an uncross. One list at a
time: it belongs to the open work (engine/matching.py).
"""

import numpy as np

from engine.book_state import orders, scratch
from engine.jit import helper


@helper
def heap_sift(s, start, end):
    """Restore the max-heap of order ids below `start` in scratch[:end]."""
    root = start
    while root * 2 + 1 < end:
        child = root * 2 + 1
        if (
            child + 1 < end
            and orders(s)[scratch(s)[child]]["order_id"]
            < orders(s)[scratch(s)[child + 1]]["order_id"]
        ):
            child += 1
        if orders(s)[scratch(s)[root]]["order_id"] >= orders(s)[scratch(s)[child]]["order_id"]:
            break
        kept = scratch(s)[root]
        scratch(s)[root] = scratch(s)[child]
        scratch(s)[child] = kept
        root = child


@helper
def scratch_sort(s, count):
    """Sort scratch[:count] by order_id, that is by entry. O(n log n), in place."""
    start = count // 2
    while start > 0:
        start -= 1
        heap_sift(s, start, count)
    end = count
    while end > 1:
        end -= 1
        top = scratch(s)[0]
        scratch(s)[0] = scratch(s)[end]
        scratch(s)[end] = top
        heap_sift(s, np.int64(0), end)
