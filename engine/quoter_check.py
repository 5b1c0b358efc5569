"""Independent look at quotes and protections: invariants, and words of the digest.

Cold; part of engine/book_check.py. The structure is described in engine/quoters.py; here every row
is looked at, as if nobody had said that it is right.
"""

import numpy as np

from engine.book_rows import ORDER_FULL, QUOTE_PARTS
from engine.book_state import (
    IN_TS,
    QUOTE_SLOT,
    QUOTERS_FREE,
    QUOTERS_TOP,
    WORK_KIND,
    ShardState,
)
from engine.records import OrderType, TimeInForce


def quoted_slots(state: ShardState, live: np.ndarray) -> np.ndarray:
    """The live orders that are sides of quotes."""
    full = live[(state.orders["flags"][live] & ORDER_FULL) != 0]
    quoted: np.ndarray = full[state.more["quoter"][full] != 0]
    return quoted


def quoter_faults(state: ShardState, live: np.ndarray) -> list[str]:
    """What is wrong with the rows, their index, and the orders they name."""
    rows, top = state.quoters, int(state.hdr[QUOTERS_TOP])
    used = np.flatnonzero(rows["symbol"])
    faults = _pool_faults(state, used.tolist())
    quoted = set(quoted_slots(state, live).tolist())
    for number in used.tolist():
        row = rows[number]
        sides = [int(slot) - 1 for slot in row["slot"]]
        if max(sides) < 0 and not row["limit"]:
            faults.append(f"row {number} serves nothing")
        for side, slot in enumerate(sides):
            if slot >= 0 and not _is_side(state, number, side, slot):
                faults.append(f"row {number} names slot {slot}")
            quoted.discard(slot)
        if row["over"] and not state.hdr[WORK_KIND]:
            faults.append(f"row {number} did not fire")
        if row["limit"] and int(row["width"]) != -(-int(row["window"]) // (QUOTE_PARTS - 1)):
            faults.append(f"row {number}: width of a part")
    if quoted:
        faults.append(f"slots {sorted(quoted)} are sides of no quote")
    if state.hdr[QUOTE_SLOT : QUOTE_SLOT + 2].any() and not state.hdr[WORK_KIND]:
        faults.append("a side was to enter")
    if state.rules["over"].any() and not state.hdr[WORK_KIND]:
        faults.append("somebody was to fire")
    if top >= len(rows):
        faults.append("more rows than there are")
    return faults


def _is_side(state: ShardState, number: int, side: int, slot: int) -> bool:
    row, order, extra = state.quoters[number], state.orders[slot], state.more[slot]
    return bool(
        state.owner[slot] == row["account"]
        and order["symbol"] == row["symbol"]
        and order["side"] == side
        and (order["order_type"], order["tif"]) == (OrderType.LIMIT, TimeInForce.DAY)
        and extra["quoter"] == number
    )


def _pool_faults(state: ShardState, used: list[int]) -> list[str]:
    # Every row below the top is used or free, and each that is used is found from its home on.
    rows, index = state.quoters, state.quoter_index
    faults: list[str] = []
    free: list[int] = []
    number = int(state.hdr[QUOTERS_FREE])
    while number and len(free) <= len(rows):
        free.append(number)
        number = int(rows["next"][number])
    if sorted([*used, *free]) != list(range(1, int(state.hdr[QUOTERS_TOP]) + 1)):
        faults.append(f"{len(used)} rows are used, {len(free)} are free")
    if sorted(index[index != 0].tolist()) != used:
        faults.append("the index names other rows")
        return faults
    for number in used:
        mixed = int(rows["account"][number]) * 40503 + int(rows["symbol"][number]) * 65599
        place = (mixed ^ mixed >> 15) & len(index) - 1
        while index[place] not in (0, number):
            place = place + 1 & len(index) - 1
        if index[place] != number:
            faults.append(f"row {number} is not found")
    return faults


def quoter_words(state: ShardState, symbol: int) -> list[int]:
    """The protections of an instrument, by account, as words of the digest."""
    here = state.quoters[(state.quoters["symbol"] == symbol) & (state.quoters["limit"] != 0)]
    words: list[int] = []
    for row in np.sort(here, order="account"):
        window, width, newest = (int(row[name]) for name in ("window", "width", "newest"))
        parts = range(max(newest - QUOTE_PARTS + 1, 0), newest + 1)
        since = int(state.hdr[IN_TS]) - window
        lots = [int(row["parts"][n % QUOTE_PARTS]) for n in parts if (n + 1) * width - 1 > since]
        words += [int(row[name]) for name in ("account", "limit", "window", "fired")]
        words.append(sum(lots))
    return words


__all__ = ["quoted_slots", "quoter_faults", "quoter_words"]
