"""Independent look at linked orders and unfinished lists: invariants, and words of the digest.

Cold; part of engine/book_check.py. What is tested is described in engine/full_links.py,
engine/activations.py and engine/legs.py.
"""

import numpy as np

from engine.book_rows import (
    LEGS_MAX,
    LINKED_BEGINS,
    LINKED_FIRST,
    LINKED_OCO,
    LINKED_WAITS,
    ORDER_FULL,
    ROW_NONE,
)
from engine.book_state import (
    ACTIVATE_FIRST,
    ACTIVATIONS,
    BEGIN_FIRST,
    NONE,
    RESIZE_TOTAL,
    SESSIONS_USED,
    WORK_KIND,
    ShardState,
)


def linked_slots(state: ShardState, ties: int) -> np.ndarray:
    """Slots of live orders with any of these LINKED_*, in entry order."""
    live = np.flatnonzero(state.owner)
    full = live[state.orders["flags"][live] & ORDER_FULL != 0]
    found = full[state.more["linked"][full] & ties != 0]
    return np.asarray(found[np.argsort(state.orders["order_id"][found])])


def leg_slots(state: ShardState, symbol: int) -> np.ndarray:
    """Slots of a symbol's legs that are not live yet, and of those whose turn comes, in entry
    order.
    """
    found = linked_slots(state, LINKED_WAITS | LINKED_BEGINS)
    return np.asarray(found[state.orders["symbol"][found] == symbol])


def link_columns(state: ShardState, slots: np.ndarray) -> list[np.ndarray]:
    """What the digest says of the ties of orders: how many legs, whether there is a sibling."""
    ties = state.more["linked"][slots]
    legs = np.where(ties & LINKED_FIRST != 0, state.links["legs"][slots], 0)
    return [legs.astype(np.int64), (ties & LINKED_OCO != 0).astype(np.int64)]


def _sibling_faults(state: ShardState) -> list[str]:
    faults = []
    for slot in linked_slots(state, LINKED_OCO):
        other = int(state.links["sibling"][slot])
        names = ["symbol", "side", "account"]
        if not state.hdr[RESIZE_TOTAL]:
            names.append("leaves")
        same = all(state.orders[n][slot] == state.orders[n][other] for n in names)
        ties = int(state.more["linked"][other])
        if not state.owner[other] or not ties & LINKED_OCO or not same:
            faults.append(f"sibling of slot {slot}")
        elif int(state.links["sibling"][other]) != slot or state.orders["cum"][slot]:
            faults.append(f"slot {slot} and its sibling")
    return faults


def _leg_faults(state: ShardState) -> list[str]:
    # A leg that waits is named by a living first order, or is next to go live.
    faults = []
    called = set(_called(state).tolist())
    named = {int(state.links["leg"][slot]) for slot in linked_slots(state, LINKED_FIRST)}
    for slot in linked_slots(state, LINKED_WAITS):
        ids = {int(state.orders["order_id"][slot])}
        if state.more["linked"][slot] & LINKED_OCO:
            ids.add(int(state.orders["order_id"][int(state.links["sibling"][slot])]))
        if not ids & (named | called):
            faults.append(f"nobody calls the leg in slot {slot}")
    for slot in linked_slots(state, LINKED_WAITS | LINKED_BEGINS):
        nowhere = state.orders["level"][slot] == NONE and state.aside["row"][slot] == ROW_NONE
        if not nowhere or state.more["waits"][slot] or state.more["shown"][slot]:
            faults.append(f"the leg in slot {slot} is somewhere")
    if len(linked_slots(state, LINKED_BEGINS)) and not state.hdr[BEGIN_FIRST]:
        faults.append("an order whose turn never comes")
    if state.hdr[BEGIN_FIRST] and not state.hdr[WORK_KIND]:
        faults.append("orders begin without a work")
    return faults


def _called(state: ShardState) -> np.ndarray:
    first, count = int(state.hdr[ACTIVATE_FIRST]), int(state.hdr[ACTIVATIONS])
    return np.asarray(state.activations[(first + np.arange(count)) % len(state.activations)])


def link_faults(state: ShardState) -> list[str]:
    """What is wrong with linked orders and unfinished lists."""
    faults = _sibling_faults(state) + _leg_faults(state)
    lists = state.lists
    used = int(state.hdr[SESSIONS_USED])
    if (lists["count"] < 0).any() or (lists["count"] > LEGS_MAX + 1).any():
        faults.append("length of a list")
    if lists["count"][0] or lists["count"][used + 1 :].any():
        faults.append("a list of no session")
    closed = np.flatnonzero(state.sessions["logon"] == 0)
    if lists["count"][closed].any() or lists["code"][lists["count"] == 0].any():
        faults.append("a list that nobody goes on with")
    return faults


__all__ = ["leg_slots", "link_columns", "link_faults", "linked_slots"]
