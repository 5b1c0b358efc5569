"""Independent look at the orders that wait for their trigger: invariants, and words of the digest.

Cold; part of engine/book_check.py. The structure is described in engine/full_pending.py; here it is
walked from its roots with plain Python, as if nobody had said that it is right.
"""

import numpy as np

from engine.book_rows import (
    ORDER_FULL,
)
from engine.book_state import (
    NONE,
    ShardState,
)
from engine.records import OrderType, Side

TRAILING = (int(OrderType.TRAILING_STOP), int(OrderType.TRAILING_STOP_LIMIT))
TAKE_PROFITS = (int(OrderType.TAKE_PROFIT), int(OrderType.TAKE_PROFIT_LIMIT))


def stop_faults(state: ShardState, symbol: int) -> tuple[list[int], list[str]]:
    """Slots of the orders that wait in a symbol, and what is wrong with them."""
    book = state.rules[symbol]
    faults: list[str] = []
    slots: list[int] = []
    for heap, root in enumerate(book["triggers"].tolist()):
        found: list[int] = []
        _walk(state, int(root), NONE, found, faults)
        faults += [f"slot {slot} is in heap {heap}" for slot in found if _heap(state, slot) != heap]
        slots += found
    trails = _trails(state, int(book["trail_first"]), faults)
    faults += [f"slot {slot} is among the trailing" for slot in trails if _heap(state, slot) >= 0]
    if len(trails) != int(book["trails"]):
        faults.append(f"{len(trails)} trailing stops, told {int(book['trails'])}")
    slots += trails
    rows = state.orders[slots]
    if (rows["symbol"] != symbol).any() or (rows["level"] != NONE).any():
        faults.append("an order of another symbol, or one that rests")
    if len(set(slots)) != len(slots) or (state.more["waits"][slots] == 0).any():
        faults.append("an order is there twice, or does not know that it waits")
    waits = state.pending["wait"][slots]
    if len(set(waits.tolist())) != len(slots) or (waits > book["waits"]).any():
        faults.append("numbers of those that wait")
    if (rows["leaves"] <= 0).any() or state.more["shown"][slots].any():
        faults.append("nothing open, or something displayed")
    return slots, faults


def _heap(state: ShardState, slot: int) -> int:
    order = state.orders[slot]
    if int(order["order_type"]) in TRAILING:
        return NONE
    takes_profit = int(order["order_type"]) in TAKE_PROFITS
    falls = int((int(order["side"]) == Side.BUY) == takes_profit)
    if state.pending[slot]["on_best"]:
        return 2 + 2 * int(order["side"]) + falls
    return falls


def _walk(state: ShardState, slot: int, above: int, found: list[int], faults: list[str]) -> int:
    # All of a heap below `slot`; returns its rank as it should be.
    if slot == NONE:
        return 0
    if not 0 <= slot < len(state.pending) or len(found) > len(state.pending):
        faults.append(f"slot {slot} is none")
        return 0
    row = state.pending[slot]
    found.append(slot)
    if int(row["parent"]) != above:
        faults.append(f"parent of slot {slot}")
    if above != NONE:
        ahead = int(row["trigger"]) - int(state.pending[above]["trigger"])
        if ahead * (-1 if _heap(state, slot) & 1 else 1) < 0:
            faults.append(f"slot {slot} before its parent")
    left = _walk(state, int(row["left"]), slot, found, faults)
    right = _walk(state, int(row["right"]), slot, found, faults)
    if int(row["rank"]) != right + 1 or left < right:
        faults.append(f"rank of slot {slot}")
    return right + 1


def _trails(state: ShardState, slot: int, faults: list[str]) -> list[int]:
    slots: list[int] = []
    before = NONE
    while slot != NONE and len(slots) <= len(state.pending):
        slots.append(slot)
        if int(state.pending[slot]["left"]) != before:
            faults.append(f"slot {slot} does not know who is before it")
        before, slot = slot, int(state.pending[slot]["right"])
    return slots


def waiting_slots(state: ShardState) -> np.ndarray:
    """Slots of all orders that say that they wait for a trigger."""
    live = np.flatnonzero(state.owner)
    full = live[state.orders["flags"][live] & ORDER_FULL != 0]
    return np.asarray(full[state.more["waits"][full] != 0])


def stop_slots(state: ShardState, symbol: int) -> np.ndarray:
    """Slots of the orders that wait in a symbol, in the order in which they wait."""
    waiting = waiting_slots(state)
    waiting = waiting[state.orders["symbol"][waiting] == symbol]
    order = np.argsort(state.pending["wait"][waiting])
    return np.asarray(waiting[order])


def stop_columns(state: ShardState, slots: np.ndarray) -> list[np.ndarray]:
    """What the digest says of waiting orders beside what it says of every order."""
    rows = state.pending[slots]
    trails = np.isin(state.orders["order_type"][slots], TRAILING)
    # A trigger that trails lies in its extreme, and may be below the first tick.
    trigger = np.where(trails, 0, rows["trigger"])
    names = ("on_best", "distance", "in_bps", "activation", "extreme")
    return [trigger, *(rows[name].astype(np.int64) for name in names)]


__all__ = ["stop_columns", "stop_faults", "stop_slots", "waiting_slots"]
