"""Independent look at pegged orders: invariants, and words of the digest.

Cold; part of engine/book_check.py. What engine/full_pegged.py and engine/full_pegs.py promise is
walked here with plain Python, as if nobody had said that it is right.
"""

import numpy as np

from engine.book_rows import ORDER_FULL, ORDER_HIDDEN, ROW_PEGS
from engine.book_state import NONE, ShardState
from engine.records import OrderType, Phase, Side

PEGS = (int(OrderType.PEG_PRIMARY), int(OrderType.PEG_MARKET), int(OrderType.PEG_MID))


def peg_slots(state: ShardState, symbol: int) -> np.ndarray:
    """Slots of all live pegs of a symbol, in entry order."""
    slots = live_pegs(state)
    slots = slots[state.orders["symbol"][slots] == symbol]
    return np.asarray(slots[np.argsort(state.orders["order_id"][slots])])


def live_pegs(state: ShardState) -> np.ndarray:
    """Slots of all live pegs."""
    live = np.flatnonzero(state.owner)
    full = live[state.orders["flags"][live] & ORDER_FULL != 0]
    return np.asarray(full[np.isin(state.orders["order_type"][full], PEGS)])


def peg_faults(state: ShardState, symbol: int) -> list[str]:
    """What is wrong with the pegs of a symbol."""
    slots, book = peg_slots(state, symbol), state.rules[symbol]
    faults: list[str] = []
    listed: list[int] = []
    before, slot = NONE, int(book["peg_first"])
    while slot != NONE and len(listed) <= len(slots):
        if int(state.pegs[slot]["prev"]) != before:
            faults.append(f"slot {slot} does not know who is before it")
        listed.append(slot)
        before, slot = slot, int(state.pegs[slot]["next"])
    if listed != slots.tolist() or int(book["peg_last"]) != before:
        faults.append(f"listed {listed}, live {slots.tolist()}")
    if int(book["peg_count"]) != len(slots):
        faults.append(f"{len(slots)} pegs, told {int(book['peg_count'])}")
    if int(book["peg_next"]) != NONE or state.pegs["moves"][slots].any():
        faults.append("repricing is not over")
    return faults + [fault for slot in slots.tolist() for fault in _peg_faults(state, slot)]


def _peg_faults(state: ShardState, slot: int) -> list[str]:
    # One peg: within its cap where it stands, at its cap where it waits; a mid shows nothing.
    row, cap = state.orders[slot], int(state.pegs[slot]["cap"])
    ahead = (int(row["px"]) - cap) * (1 if int(row["side"]) == Side.BUY else -1)
    parked = int(state.aside[slot]["row"]) == ROW_PEGS
    trades = int(state.symbols[int(row["symbol"])]["phase"]) == Phase.CONTINUOUS
    mid = int(row["order_type"]) == OrderType.PEG_MID
    found = {
        "more aggressive than its cap": ahead > 0,
        "it waits at another price than its cap": parked and ahead != 0,
        "in the book though nothing trades": not parked and not trades,
        "displayed though it waits": parked and int(state.more[slot]["shown"]) != 0,
        "hidden though no mid, or the other way": mid != bool(int(row["flags"]) & ORDER_HIDDEN),
    }
    return [f"slot {slot}: {fault}" for fault, is_so in found.items() if is_so]


def peg_column(state: ShardState, slots: np.ndarray) -> np.ndarray:
    """What the digest says of every order of a full book: its cap if it is a peg, else 0."""
    caps = state.pegs["cap"][slots].astype(np.int64)
    return np.where(np.isin(state.orders["order_type"][slots], PEGS), caps, 0)


__all__ = ["live_pegs", "peg_column", "peg_faults", "peg_slots"]
