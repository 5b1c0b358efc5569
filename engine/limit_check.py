"""Kill switch and limits as an independent look sees them: what is counted, recounted; the digest.

Cold. Part of engine/book_check.py.
"""

import numpy as np

from engine.book_rows import (
    ACCOUNT_KILLED,
    ORDER_COUNTED,
    SESSION_ACCOUNT_KILLED,
    SESSION_FLAGS,
    SESSION_KILLED,
    SESSION_LIMITED,
)
from engine.book_state import SESSIONS_USED, ShardState
from engine.records import AccountLimit

KILLED_ACCOUNT_WORD, KILLED_SESSION_WORD, LIMITS_WORD = 1, 2, 3


def _rows(state: ShardState) -> list[int]:
    # Places of rows in use, by account and symbol.
    rows = state.limit_rows
    used = np.flatnonzero(rows["account"])
    return sorted(used.tolist(), key=lambda p: (int(rows["account"][p]), int(rows["symbol"][p])))


def limit_words(state: ShardState) -> np.ndarray:
    """What of it decides the future; nothing where nobody is blocked or limited."""
    words: list[int] = []
    for account in np.flatnonzero(state.accounts["open"] & ACCOUNT_KILLED).tolist():
        words += [KILLED_ACCOUNT_WORD, account]
    for slot in np.flatnonzero(state.sessions["flags"] & SESSION_KILLED).tolist():
        words += [KILLED_SESSION_WORD, slot]
    for place in _rows(state):
        row = state.limit_rows[place]
        symbol_id = int(state.symbols[int(row["symbol"])]["symbol_id"])
        words += [LIMITS_WORD, int(row["account"]), symbol_id]
        words += [int(row["limit"][what]) for what in AccountLimit if what >= AccountLimit.MAX_QTY]
        words += [int(row["position"]), int(row["open_orders"]), *row["open_qty"].tolist()]
    return np.array(words, np.int64)


def limit_faults(state: ShardState) -> list[str]:
    """What is not as it should be."""
    return [*_list_faults(state), *_count_faults(state), *_mark_faults(state)]


def _list_faults(state: ShardState) -> list[str]:
    # Each row in use is in the list of its account, once; the others are empty.
    faults, reached = [], 0
    rows = state.limit_rows
    for account in np.flatnonzero(state.account_limits).tolist():
        place = int(state.account_limits[account])
        symbols: set[int] = set()
        while place and len(symbols) < len(rows):
            if int(rows["account"][place]) != account or int(rows["symbol"][place]) in symbols:
                faults.append(f"row {place} in the list of account {account}")
            symbols.add(int(rows["symbol"][place]))
            place = int(rows["next"][place])
        reached += len(symbols)
    used = _rows(state)
    if reached != len(used):
        faults.append(f"{len(used)} rows of limits in use, {reached} in lists")
    written = rows.view(np.uint8).reshape(len(rows), -1).any(axis=1)
    free = np.flatnonzero(written & (rows["account"] == 0))
    faults += [f"free row {place}" for place in free.tolist()]
    faults += [f"row {place} limits nothing" for place in used if not rows["limit"][place].any()]
    return faults


def _count_faults(state: ShardState) -> list[str]:
    live = np.flatnonzero(state.owner)
    orders, counted = state.orders[live], state.counted[live]
    marked = orders["flags"] & ORDER_COUNTED != 0
    faults = []
    for place in _rows(state):
        row = state.limit_rows[place]
        own = (orders["account"] == row["account"]) & (orders["symbol"] == row["symbol"])
        sides = [int(orders["leaves"][own & (orders["side"] == side)].sum()) for side in (0, 1)]
        found = [int(own.sum()), *sides]
        if found != [int(row["open_orders"]), *row["open_qty"].tolist()]:
            faults.append(f"row {place} counts {row}, there are {found}")
        if not (marked[own].all() and (counted["row"][own] == place).all()):
            faults.append(f"orders of row {place} count elsewhere")
        if not (counted["open"][own] == orders["leaves"][own]).all():
            faults.append(f"orders of row {place} count for other quantities than they have")
        marked = marked & ~own
    if counted["row"][marked].any() or counted["open"][marked].any():
        faults.append("an order counts for a row that is not its own")
    return faults


def _mark_faults(state: ShardState) -> list[str]:
    # Sessions carry what their accounts have.
    used = int(state.hdr[SESSIONS_USED]) + 1
    sessions = state.sessions[1:used]
    accounts = sessions["account"]
    killed = state.accounts["open"][accounts] & ACCOUNT_KILLED != 0
    wanted = killed * SESSION_ACCOUNT_KILLED | (state.account_limits[accounts] != 0) * (
        SESSION_LIMITED
    )
    marks = sessions["flags"] & ~np.int64(SESSION_FLAGS | SESSION_KILLED)
    return [f"marks of session {slot + 1}" for slot in np.flatnonzero(marks != wanted).tolist()]
