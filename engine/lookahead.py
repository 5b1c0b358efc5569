"""Touching early what the next commands will need, so that their cache misses overlap.

Hot. With more than a few thousand live orders neither id table nor order pool nor levels fit the
second-level cache: a cancel walks id line, order, neighbours and level, a new order walks leaf,
level and tail, each miss waiting for the one before (half of the time of W2, measured). When more
commands lie ready, each is looked at three times before its turn, LOOK_FAR, LOOK_MIDDLE and
LOOK_NEAR commands ahead, one step of the walk at a time. `look` remembers how far the walk of a
command came; a wrong memory costs a useless line. Nothing here changes a result.
"""

import numpy as np

from engine.atomics import prefetch_line
from engine.book_numba import leaf_peek
from engine.book_state import (
    FREE_AHEAD,
    LOOK_WORDS,
    NODE_FAN,
    ORDERS_FREE,
    SYMBOLS_USED,
    TREE_BITS,
    free_orders,
    ids,
    levels,
    look,
    node_child,
    orders,
    owner,
    sides,
)
from engine.id_table import IDS_PER_LINE, LOW32, id_hash, id_place
from engine.jit import helper
from engine.records import CACHE_LINE, COMMAND, SYMBOL_INDEX_MASK, CommandKind

LOOK_FAR, LOOK_MIDDLE, LOOK_NEAR = 9, 6, 3
LOOK_RECORDS = 32
COMMAND_LINES = COMMAND.itemsize // CACHE_LINE


@helper
def look_records(commands, number):
    """Ask for a command record itself: in a long array it is in no cache before its first look."""
    for line in range(COMMAND_LINES):
        prefetch_line(commands, number, line)


@helper
def look_far(s, c, number):
    """First look at the command with this number: where its id lies, where its price lies."""
    own, target = np.int64(c["client_order_id"]), np.int64(c["target_client_order_id"])
    at = (number << 1) & (LOOK_WORDS - 1)
    look(s)[at] = 0
    look(s)[at + 1] = 0
    if c["kind"] != CommandKind.NEW:
        if target != 0:
            home = id_hash(s, np.int64(c["session"]), target)
            place = np.int64(id_place(s, home))
            prefetch_line(ids(s), place, 0)
            # A deletion looks at what follows; the table ends with the line it began with.
            prefetch_line(ids(s), (place | (IDS_PER_LINE - 1)) + 1, 0)
            look(s)[at] = np.int64(home) + 1
        return
    if own != 0:
        home = id_hash(s, np.int64(c["session"]), own)
        prefetch_line(ids(s), np.int64(id_place(s, home)), 0)
    free = np.int64(s[ORDERS_FREE]) - FREE_AHEAD
    if free >= 0:
        slot = np.int64(free_orders(s)[free])
        prefetch_line(orders(s), slot, 0)
        prefetch_line(owner(s), slot, 0)
    symbol, px = np.int64(c["symbol_id"]) & SYMBOL_INDEX_MASK, np.int64(c["px"])
    if px > 0 and symbol <= s[SYMBOLS_USED]:
        leaf = leaf_peek(s, symbol * 2 + (np.int64(c["side"]) & 1), px)
        if leaf >= 0:
            place = (leaf << TREE_BITS) + (px & (NODE_FAN - 1))
            prefetch_line(node_child(s), place, 0)
            look(s)[at + 1] = place + 1


@helper
def meet_head(s, symbol, side):
    """Ask for the order that stands first on `side`."""
    if symbol <= s[SYMBOLS_USED]:
        best = np.int64(sides(s)[symbol * 2 + side]["best"])
        if best >= 0:
            prefetch_line(orders(s), np.int64(levels(s)[best]["head"]), 0)


@helper
def look_middle(s, c, number):
    """Second look: the order it names, the level it joins, the order it meets."""
    at = (number << 1) & (LOOK_WORDS - 1)
    home, place = look(s)[at] - 1, look(s)[at + 1] - 1
    if home >= 0:
        look(s)[at] = 0
        entry = ids(s)[id_place(s, np.uint64(home & 0xFFFFFFFF))]
        if entry >> np.uint64(32) == np.uint64(home):
            slot = np.int64(entry & LOW32) - 1
            prefetch_line(orders(s), slot, 0)
            prefetch_line(owner(s), slot, 0)
            look(s)[at] = slot + 1
    if place >= 0:
        level = np.int64(node_child(s)[place])
        look(s)[at + 1] = level + 1
        if level >= 0:
            prefetch_line(levels(s), level, 0)
        meet_head(s, np.int64(c["symbol_id"]) & SYMBOL_INDEX_MASK, 1 - (np.int64(c["side"]) & 1))


@helper
def look_near(s, number):
    """Third look: what stands before and behind the order in its queue."""
    at = (number << 1) & (LOOK_WORDS - 1)
    slot, level = look(s)[at] - 1, look(s)[at + 1] - 1
    if slot >= 0 and slot < len(orders(s)):  # the middle look may not have come here
        ahead, behind = np.int64(orders(s)[slot]["prev"]), np.int64(orders(s)[slot]["next"])
        level_of_it = np.int64(orders(s)[slot]["level"])
        if ahead >= 0:
            prefetch_line(orders(s), ahead, 0)
        if behind >= 0:
            prefetch_line(orders(s), behind, 0)
        if level_of_it >= 0:
            prefetch_line(levels(s), level_of_it, 0)
    if level >= 0 and level < len(levels(s)):
        tail = np.int64(levels(s)[level]["tail"])
        if tail >= 0:
            prefetch_line(orders(s), tail, 0)
