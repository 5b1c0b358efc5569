"""Touching early what the next commands will need, so that their cache misses overlap.

Hot. With more than a few thousand live orders the id table and the order pool no longer fit the
second-level cache: a cancel walks id line, order, two neighbours, each miss waiting for the one
before (half of the time of W1, measured). When more commands lie ready, each is looked at three
times before its turn: LOOK_IDS commands ahead its id line is asked for, LOOK_ORDER ahead the order
it names, LOOK_QUEUE ahead that order's neighbours. Read-only, never changes a result, costs a few
instructions.
"""

import numpy as np

from engine.atomics import prefetch
from engine.book_state import ID_MASK, ids, orders, owner
from engine.id_table import LOW32, id_hash
from engine.jit import helper
from engine.records import CommandKind

LOOK_IDS, LOOK_ORDER, LOOK_QUEUE = 9, 6, 3


@helper
def look_ids(s, c):
    """Ask for the line of the id table that the command will search or fill."""
    client_id = np.int64(c["client_order_id"])
    if c["kind"] != CommandKind.NEW:
        client_id = np.int64(c["target_client_order_id"])
    if client_id != 0:
        place = id_hash(s, np.int64(c["session"]), client_id) & np.uint64(s[ID_MASK])
        prefetch(ids(s), np.int64(place))


@helper
def look_slot(s, c):
    """Slot of the order a command names by client id, if the first probe finds it; else -1."""
    slot = np.int64(-1)
    client_id = np.int64(c["target_client_order_id"])
    if client_id != 0:
        home = id_hash(s, np.int64(c["session"]), client_id)
        entry = ids(s)[home & np.uint64(s[ID_MASK])]
        if entry >> np.uint64(32) == home:
            slot = np.int64(entry & LOW32) - 1
    return slot


@helper
def look_order(s, c):
    """Ask for the order that the command names."""
    slot = look_slot(s, c)
    if slot >= 0:
        prefetch(orders(s), slot)
        prefetch(owner(s), slot)


@helper
def look_queue(s, c):
    """Ask for the neighbours of the order that the command names."""
    slot = look_slot(s, c)
    if slot >= 0:
        ahead, behind = np.int64(orders(s)[slot]["prev"]), np.int64(orders(s)[slot]["next"])
        if ahead >= 0:
            prefetch(orders(s), ahead)
        if behind >= 0:
            prefetch(orders(s), behind)
