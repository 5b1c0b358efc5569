"""Independent look at a shard's state: full invariant check, views, state hash.

Cold, except the two view kernels, which are also used on a live book by other processes (bounded,
every index tested, so a torn read gives rubbish that the version check throws away, never a crash).
"""

import hashlib
from collections.abc import Callable

import numpy as np

from engine.book_numba import level_next
from engine.book_rows import (
    ORDER,
    ORDER_FULL,
    ORDER_HIDDEN,
    ORDER_POST_ONLY,
    ORDER_SLIDE,
    ORDER_TEXT,
    ROW_BUYS,
    ROW_PARKED,
    ROW_PEGS,
    ROW_SELLS,
)
from engine.book_state import (
    DUE_COUNT,
    HDR_WORDS,
    LEVELS_FREE,
    LEVELS_USED,
    NEXT_DEADLINE,
    NODE_FAN,
    NODES_FREE,
    NONE,
    ORDERS_FREE,
    SESSIONS_USED,
    SYMBOLS_USED,
    TEXT_MASK,
    TEXTS_USED,
    TIMED_SYMBOLS,
    TREE_BITS,
    TREE_HEIGHT,
    ShardState,
    dark,
    levels,
    node_bits,
    orders,
    sides,
)
from engine.jit import kernel
from engine.limit_check import limit_faults, limit_words
from engine.link_check import leg_slots, link_columns, link_faults
from engine.pegs_check import peg_column, peg_faults, peg_slots
from engine.pending_check import stop_columns, stop_faults, stop_slots, waiting_slots
from engine.quoter_check import quoted_slots, quoter_faults, quoter_words
from engine.records import Algorithm, InstrumentRule, OrderType, Phase, RuleSet, TimeInForce

STOP_MARKETS = (OrderType.STOP, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP)
CALLS = (Phase.PRE_OPEN, Phase.OPENING_CALL, Phase.VOLATILITY_CALL, Phase.CLOSING_CALL)


class BrokenInvariant(Exception):
    """The state contradicts itself; the message names the invariant and the place."""


@kernel
def levels_walk(s, side_index, out):
    """Fill out[k] = (px, qty, orders), what is displayed, from the best level on; returns how
    many.
    """
    count = 0
    level = np.int64(sides(s)[side_index]["best"])
    while 0 <= level < len(levels(s)) and count < out.shape[0]:
        row = levels(s)[level]
        if row["qty"] > 0:  # else all of it is hidden
            out[count, 0] = row["px"]
            out[count, 1] = row["qty"]
            out[count, 2] = np.int64(row["count"]) - np.int64(dark(s)[level]["count"])
            count += 1
        if not 0 <= np.int64(row["leaf"]) < len(node_bits(s)):
            break
        level = level_next(s, level)
    return count


@kernel
def orders_walk(s, side_index, out):
    """Fill `out` with the order slots of one side in priority order; returns how many."""
    count = 0
    level = np.int64(sides(s)[side_index]["best"])
    while level >= 0 and count < out.shape[0]:
        slot = np.int64(levels(s)[level]["head"])
        while slot >= 0 and count < out.shape[0]:
            out[count] = slot
            count += 1
            slot = np.int64(orders(s)[slot]["next"])
        level = level_next(s, level)
    return count


def book_levels(state: ShardState, symbol: int, side: int, depth: int | None = None) -> np.ndarray:
    """Levels of one side, best first: int64 rows (px ticks, qty lots, orders)."""
    index = symbol * 2 + int(side)
    room = (
        int(state.sides[index]["levels"])
        if depth is None
        else min(depth, int(state.sides[index]["levels"]))
    )
    out = np.zeros((max(room, 1), 3), np.int64)
    return out[: levels_walk(state.table, index, out)] if room else out[:0]


def order_slots(state: ShardState, symbol: int, side: int) -> np.ndarray:
    """Slots of the resting orders of one side in priority order."""
    index = symbol * 2 + int(side)
    out = np.zeros(int(state.sides[index]["orders"]) + 1, np.int64)
    return out[: orders_walk(state.table, index, out)]


def book_orders(state: ShardState, symbol: int, side: int) -> np.ndarray:
    """Copy of the resting orders of one side in priority order, as ORDER rows."""
    rows: np.ndarray = state.orders[order_slots(state, symbol, side)]
    return rows


def state_digest(state: ShardState) -> str:
    """blake2b over what the books hold, without ids and sequence numbers (RULES §12)."""
    parts: list[np.ndarray] = []
    for symbol in range(1, int(state.hdr[SYMBOLS_USED]) + 1):
        row = state.symbols[symbol]
        sides = [order_slots(state, symbol, side) for side in (0, 1)]
        head = [
            int(row["name"].astype(np.int64)),
            int(row["phase"]),
            int(row["last_px"]),
            sum(map(len, sides)),
        ]
        full = bool(row["rules"] == RuleSet.FULL)
        parts.append(np.array(head, np.int64))
        parts += [_digest_orders(state, slots, full=full) for slots in sides]
        if full:
            parts += [part(state, symbol, np.concatenate(sides)) for part in _DIGEST_PARTS]
    parts.append(limit_words(state))
    data = np.concatenate(parts).astype("<i8").tobytes() if parts else b""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _digest_orders(state: ShardState, slots: np.ndarray, *, full: bool) -> np.ndarray:
    return np.column_stack(_digest_columns(state, slots, full=full)).reshape(-1)


def row_slots(state: ShardState, symbol: int, row: int) -> np.ndarray:
    """Slots of the orders of one row of a symbol (engine/full_aside.py), in the order of it."""
    slots: list[int] = []
    slot = int(state.calls[symbol]["head"][row])
    while slot != NONE and len(slots) <= len(state.orders):
        slots.append(slot)
        slot = int(state.aside[slot]["next"])
    return np.array(slots, np.int64)


def _digest_columns(state: ShardState, slots: np.ndarray, *, full: bool) -> list[np.ndarray]:
    rows, extra = state.orders[slots], state.more[slots]
    columns = [
        rows[name].astype(np.int64)
        for name in ("side", "px", "leaves", "cum", "account", "order_type", "tif")
    ]
    columns.append((rows["flags"] & ORDER_POST_ONLY != 0).astype(np.int64))
    if full:
        columns += [extra[name].astype(np.int64) for name in ("shown", "peak", "prevented")]
        marks = (ORDER_HIDDEN, ORDER_SLIDE)
        columns += [(rows["flags"] & mark != 0).astype(np.int64) for mark in marks]
        columns += [extra[name].astype(np.int64) for name in ("stp", "min_qty", "expire_ts")]
        columns += link_columns(state, slots)
        columns.append(peg_column(state, slots))
        columns.append((extra["quoter"] != 0).astype(np.int64))
    return columns


def _digest_pegs(state: ShardState, symbol: int, _: np.ndarray) -> np.ndarray:
    # Pegs that are parked, in the order of their parking.
    slots = row_slots(state, symbol, ROW_PEGS)
    count = np.array([len(slots)], np.int64)
    return np.concatenate([count, _digest_orders(state, slots, full=True)])


def _digest_batches(state: ShardState, symbol: int, _: np.ndarray) -> np.ndarray:
    return np.array([state.calls[symbol]["cross_at"]], np.int64)


def _digest_phases(state: ShardState, symbol: int, _: np.ndarray) -> np.ndarray:
    # References and what limits the phases, then parked orders, then market orders of the call.
    row, terms = state.calls[symbol], state.symbols[symbol]
    reference = terms["last_px"] if row["traded"] else row["dynamic_ref"]
    resumes = row["resumes_to"] if terms["phase"] == Phase.CANCEL_ONLY else 0
    head = [row["static_ref"], reference, row["extensions"], row["has_calendar"], resumes]
    parked, *markets = (row_slots(state, symbol, n) for n in (ROW_PARKED, ROW_BUYS, ROW_SELLS))
    both = np.concatenate(markets)
    both = both[np.argsort(state.more["rank"][both])]
    parts = [
        np.array([*head, len(parked)], np.int64),
        _digest_orders(state, parked, full=True),
        np.array([len(both)], np.int64),
        _digest_orders(state, both, full=True),
    ]
    return np.concatenate(parts)


def _digest_legs(state: ShardState, symbol: int, _: np.ndarray) -> np.ndarray:
    slots = leg_slots(state, symbol)
    columns = _digest_columns(state, slots, full=True) + stop_columns(state, slots)
    return np.concatenate([np.array([len(slots)], np.int64), np.column_stack(columns).reshape(-1)])


def _digest_shares(state: ShardState, symbol: int, slots: np.ndarray) -> np.ndarray:
    # The algorithm, and the places of the top orders among `slots`, from 1 on.
    row = state.rules[symbol]
    tops = [int(np.flatnonzero(slots == top - 1)[0]) + 1 if top else 0 for top in row["top"]]
    return np.array([row["rule"][InstrumentRule.ALGORITHM], *tops], np.int64)


def _digest_quotes(state: ShardState, symbol: int, _: np.ndarray) -> np.ndarray:
    return np.array(quoter_words(state, symbol), np.int64)


def _digest_stops(state: ShardState, symbol: int, _: np.ndarray) -> np.ndarray:
    book, slots = state.rules[symbol], stop_slots(state, symbol)
    # In continuous trading the range is cleared before it is looked at again.
    kept = int(not _trades_now(state, symbol))
    head = [int(book["wave_low"]) * kept, int(book["wave_high"]) * kept, len(slots)]
    columns = _digest_columns(state, slots, full=True) + stop_columns(state, slots)
    return np.concatenate([np.array(head, np.int64), np.column_stack(columns).reshape(-1)])


# Behind the orders of a full book, in the alphabetical order of the parts of the rules.
_DIGEST_PARTS: tuple[Callable[[ShardState, int, np.ndarray], np.ndarray], ...] = (
    _digest_batches,
    _digest_legs,
    _digest_pegs,
    _digest_phases,
    _digest_quotes,
    _digest_shares,
    _digest_stops,
)


def _in_batch(state: ShardState, symbol: int) -> bool:
    # Orders wait for the crosses of a batch mode.
    algorithm = state.rules[symbol]["rule"][InstrumentRule.ALGORITHM]
    continuous = state.symbols[symbol]["phase"] == Phase.CONTINUOUS
    return bool(continuous and algorithm >= Algorithm.BATCH_AUCTION)


def _trades_now(state: ShardState, symbol: int) -> bool:
    continuous = state.symbols[symbol]["phase"] == Phase.CONTINUOUS
    return bool(continuous) and not _in_batch(state, symbol)


def _collects(state: ShardState, symbol: int) -> bool:
    return int(state.symbols[symbol]["phase"]) in CALLS or _in_batch(state, symbol)


def _guests(state: ShardState, symbol: int) -> int:
    # Orders in levels that live for one cross only.
    rows = state.orders[np.concatenate([order_slots(state, symbol, side) for side in (0, 1)])]
    brief = ~np.isin(rows["tif"], (TimeInForce.GTC, TimeInForce.DAY, TimeInForce.GTD))
    return int((brief | np.isin(rows["order_type"], STOP_MARKETS)).sum()) if len(rows) else 0


def _require(condition: bool, invariant: str, where: str) -> None:
    if not condition:
        raise BrokenInvariant(f"{invariant}: {where}")


def check_state(state: ShardState) -> None:
    """Verify I1, I2, I3, I9 and I10 of the reliability contract over the whole state."""
    live = np.flatnonzero(state.owner)
    _require(len(state.hdr) == HDR_WORDS, "layout", "header length")
    _check_pool("orders", state.free_orders, int(state.hdr[ORDERS_FREE]), len(live))
    _check_pool(
        "levels", state.free_levels, int(state.hdr[LEVELS_FREE]), int(state.hdr[LEVELS_USED])
    )
    _require(
        not set(state.free_orders[: int(state.hdr[ORDERS_FREE])]) & set(live),
        "I10",
        "a live order is in the free list",
    )
    resting = levels = nodes = waiting = 0
    for symbol in range(1, int(state.hdr[SYMBOLS_USED]) + 1):
        best = [0, 0]
        for side in (0, 1):
            rows, level_count, node_count = _check_side(state, symbol, side)
            resting, levels, nodes = resting + rows, levels + level_count, nodes + node_count
            level = int(state.sides[symbol * 2 + side]["best"])
            best[side] = int(state.levels[level]["px"]) if level >= 0 else 0
        trades = _trades_now(state, symbol)
        _require(
            not trades or not (best[0] and best[1]) or best[0] < best[1],
            "I1 not crossed",
            f"symbol {symbol}: {best}",
        )
        resting += _check_rows(state, symbol)
        waiting += _check_waiting(state, symbol)
        resting += len(leg_slots(state, symbol))
    _require(
        resting + waiting == len(live),
        "I9",
        f"{len(live)} live orders, {resting} rest, {waiting} wait",
    )
    _require(
        len(waiting_slots(state)) == waiting,
        "I9",
        "an order waits and nothing leads to it",
    )
    _require(levels == int(state.hdr[LEVELS_USED]), "I9", "levels in trees and levels used differ")
    _check_pool("nodes", state.free_nodes, int(state.hdr[NODES_FREE]), nodes)
    faults = limit_faults(state)
    _require(not faults, "I9 limits of accounts", f"{faults[:3]}")
    faults = quoter_faults(state, live)
    _require(not faults, "I9 quotes", f"{faults[:3]}")
    _check_ids(state, live)
    _check_texts(state, live)
    _check_deadlines(state, _check_due(state, live))
    for fault in link_faults(state):
        _require(False, "I9 linked orders", fault)


def _check_rows(state: ShardState, symbol: int) -> int:
    # Orders of a symbol that are in no level; returns how many.
    total = 0
    for row in (ROW_PARKED, ROW_BUYS, ROW_SELLS, ROW_PEGS):
        where = f"symbol {symbol} row {row}"
        slots, call = row_slots(state, symbol, row), state.calls[symbol]
        ranks = state.more["rank"][slots]
        _require(bool((state.owner[slots] > 0).all()), "I9 a row of orders", where)
        _require(bool((state.orders["level"][slots] == NONE).all()), "I9 a row of orders", where)
        _require(bool((state.aside["row"][slots] == row).all()), "I9 a row of orders", where)
        _require(bool((np.diff(ranks) > 0).all()), "I9 rank", where)
        _require(len(slots) == int(call["count"][row]), "I9 a row of orders", where)
        tail = int(slots[-1]) if len(slots) else NONE
        _require(tail == int(call["tail"][row]), "I9 a row of orders", where)
        total += len(slots)
    return total


def _check_waiting(state: ShardState, symbol: int) -> int:
    # Orders that wait for a trigger; returns how many. Pegs watch the symbol as they do.
    slots, faults = stop_faults(state, symbol)
    _require(not faults, "I9 waiting orders", f"symbol {symbol}: {faults[:3]}")
    faults = peg_faults(state, symbol)
    _require(not faults, "I9 pegs", f"symbol {symbol}: {faults[:3]}")
    watched = int(state.rules[symbol]["watched"])
    collects = _collects(state, symbol)
    full = state.symbols[symbol]["rules"] == RuleSet.FULL
    guests = _guests(state, symbol) if full else 0
    _require(guests == int(state.calls[symbol]["guests"]), "I9 guests", f"symbol {symbol}")
    watchers = len(slots) + len(peg_slots(state, symbol))
    _require(watched == watchers + collects, "I9 watched", f"symbol {symbol}: {watched}")
    return len(slots)


def _check_pool(name: str, free: np.ndarray, count: int, used: int) -> None:
    _require(0 <= count <= len(free), "I10", f"{name}: free count {count}")
    _require(count + used == len(free), "I10", f"{name}: {count} free + {used} used != {len(free)}")
    _require(
        len(np.unique(free[:count])) == count, "I10", f"{name}: an index is twice in the free list"
    )


def _check_side(state: ShardState, symbol: int, side: int) -> tuple[int, int, int]:
    # Every level and order of one side; returns (orders, levels, nodes).
    row = state.sides[symbol * 2 + side]
    levels, nodes = _tree_levels(state, int(row["root"]), TREE_HEIGHT, 0)
    where = f"symbol {symbol} side {side}"
    _require(len(levels) == int(row["levels"]), "I9 level count", where)
    prices = [px for px, _ in levels]
    best = (levels[-1] if side == 0 else levels[0])[1] if levels else NONE
    _require(int(row["best"]) == best, "I1 best level", where)
    slots: list[int] = []
    for px, level in levels:
        slots += _check_level(state, symbol, side, px, level)
    _require(len(slots) == int(row["orders"]), "I9 order count", where)
    ordered = levels if side else levels[::-1]
    displayed = [px for px, level in ordered if state.levels[level]["qty"] > 0]
    walked = [int(px) for px in book_levels(state, symbol, side)[:, 0]]
    _require(walked == displayed, "I9 bitmap walk equals tree", f"{where} {prices[:5]}")
    return len(slots), len(levels), nodes


def _tree_levels(
    state: ShardState, node: int, height: int, prefix: int
) -> tuple[list[tuple[int, int]], int]:
    # (px, level) in ascending price below a node, and the number of nodes; checks bitmap against
    # children.
    if node < 0:
        return [], 0
    found: list[tuple[int, int]] = []
    nodes, bits = 1, int(state.node_bits[node])
    for place in range(NODE_FAN):
        child = int(state.node_child[node * NODE_FAN + place])
        _require(
            (child >= 0) == bool(bits >> place & 1), "I9 node bit", f"node {node} place {place}"
        )
        if child >= 0 and height == 0:
            found.append((prefix << TREE_BITS | place, child))
        elif child >= 0:
            _require(int(state.node_parent[child]) == node, "I9 node parent", f"node {child}")
            below, count = _tree_levels(state, child, height - 1, prefix << TREE_BITS | place)
            _require(bool(below), "I9 empty node", f"node {child}")
            found += below
            nodes += count
    return found, nodes


def _check_level(state: ShardState, symbol: int, side: int, px: int, level: int) -> list[int]:
    row = state.levels[level]
    where = f"symbol {symbol} side {side} px {px}"
    _require(
        (int(row["px"]), int(row["side"])) == (px, symbol * 2 + side), "I9 level identity", where
    )
    slots: list[int] = []
    total, slot, before = 0, int(row["head"]), NONE
    while slot != NONE:
        _require(
            0 <= slot < len(state.orders) and len(slots) <= len(state.orders),
            "I3 order index",
            where,
        )
        order = state.orders[slot]
        _require(
            int(order["prev"]) == before and int(order["level"]) == level,
            "I9 links",
            f"{where} slot {slot}",
        )
        _require(
            int(order["leaves"]) > 0 and int(order["px"]) == px and int(order["side"]) == side,
            "I2 open order",
            where,
        )
        _require(int(state.owner[slot]) == int(order["account"]) > 0, "I9 owner", where)
        slots.append(slot)
        total += int(order["leaves"])
        before, slot = slot, int(order["next"])
    _require(before == int(row["tail"]) and len(slots) == int(row["count"]) > 0, "I9 queue", where)
    if state.symbols[symbol]["rules"] == RuleSet.FULL:
        _check_dark(state, level, slots, where)
    else:
        _require(total == int(row["qty"]), "I9 level qty", where)
    return slots


def _check_dark(state: ShardState, level: int, slots: list[int], where: str) -> None:
    # Displayed orders first, each with a slice; then hidden ones; what is not displayed adds up.
    row, dark = state.levels[level], state.dark[level]
    rows, extra = state.orders[slots], state.more[slots]
    hidden = (rows["flags"] & ORDER_HIDDEN) != 0
    first = slots[int(hidden.argmax())] if hidden.any() else NONE
    _require(bool((np.diff(hidden.astype(int)) >= 0).all()), "I9 displayed before hidden", where)
    _require(int(dark["head"]) == first, "I9 first hidden order", where)
    _require(int(dark["count"]) == int(hidden.sum()), "I9 hidden orders", where)
    shown, leaves = extra["shown"].astype(int), rows["leaves"].astype(int)
    rank = extra["rank"].astype(int)
    _require(bool((rank > 0).all()), "I9 rank", where)
    for part in (rank[~hidden], rank[hidden]):
        _require(bool((np.diff(part) > 0).all()), "I9 rank", where)
    _require(int(row["qty"]) == int(shown.sum()), "I9 displayed quantity", where)
    _require(int(dark["qty"]) == int((leaves - shown).sum()), "I9 hidden quantity", where)
    iceberg = extra["peak"] > 0
    crossing = bool(state.calls[int(row["side"]) // 2]["stage"])  # its slices show again behind it
    some = (shown > 0) | (iceberg & crossing)
    good = np.where(hidden, shown == 0, some & (shown <= leaves))
    _require(bool(good.all()), "I2 displayed slice", where)
    _require(bool((shown <= extra["peak"])[iceberg].all()), "I2 slice above peak", where)
    plain = ~iceberg & ~hidden
    _require(bool((shown == leaves)[plain].all()), "I2 all of an order is displayed", where)


def _check_ids(state: ShardState, live: np.ndarray) -> None:
    with_id = {int(slot) for slot in live if state.orders[slot]["client_order_id"] != 0}
    with_id -= set(quoted_slots(state, live).tolist())  # their ids name two orders
    entries = state.ids[state.ids != 0]
    named = [int(e & np.uint64(0xFFFFFFFF)) - 1 for e in entries]
    _require(
        sorted(named) == sorted(with_id),
        "I9 id index",
        f"{len(named)} entries, {len(with_id)} live orders with an id",
    )
    used = int(state.hdr[SESSIONS_USED])
    sessions = state.orders["session"][live]
    _require(
        not len(live) or (sessions.min() >= 1 and sessions.max() <= used),
        "I9 session of an order",
        "",
    )


def _check_texts(state: ShardState, live: np.ndarray) -> None:
    # Every used row is found from its home on, and rows and living orders name each other.
    used, index, mask = int(state.hdr[TEXTS_USED]), state.text_index, int(state.hdr[TEXT_MASK])
    entries = sorted(index[index != 0].tolist())
    _require(entries == list(range(1, used + 1)), "I9 text index", f"{used} rows, {len(entries)}")
    for number in range(1, used + 1):
        place = int(state.texts[number]["hash"]) >> 20 & mask
        while index[place] not in (0, number):
            place = place + 1 & mask
        _require(int(index[place]) == number, "I9 text index", f"row {number} is not found")
    named = [int(n) for n in live if state.orders[n]["flags"] & ORDER_TEXT]
    told = sorted((int(state.order_text[order]), order) for order in named)
    rows = [(n, int(state.texts[n]["order"])) for n in range(1, used + 1)]
    _require(
        told == [(n, order) for n, order in rows if order >= 0],
        "I9 text rows",
        f"{len(told)} living orders with a text id",
    )


def _check_due(state: ShardState, live: np.ndarray) -> list[int]:
    # The heap has exactly the live orders that expire, in heap order; returns their times.
    heap = state.due[: int(state.hdr[DUE_COUNT])]
    full = live[(state.orders["flags"][live] & ORDER_FULL) != 0]
    waiting = full[state.more["expire_ts"][full] != 0]
    _require(sorted(heap) == sorted(waiting), "I9 expiry heap", f"{len(heap)} in it")
    _require(
        [int(place) for place in state.more["due"][heap]] == list(range(1, len(heap) + 1)),
        "I9 expiry heap",
        "an order does not know its place",
    )
    keys = [(int(state.more["expire_ts"][n]), int(state.orders["order_id"][n])) for n in heap]
    ordered = all(keys[(place - 1) // 2] <= keys[place] for place in range(1, len(keys)))
    _require(ordered, "I9 expiry heap", "out of order")
    return [at for at, _ in keys]


def _check_deadlines(state: ShardState, expiries: list[int]) -> None:
    # Only an owned session waits for anything, and the loop's word is not later than any deadline.
    rows = state.sessions[1 : int(state.hdr[SESSIONS_USED]) + 1]
    waits = rows[(rows["dead_man"] != 0) | (rows["dead_man_at"] != 0) | (rows["close_at"] != 0)]
    _require(bool((waits["logon"] != 0).all()), "deadline", "a session without owner has one")
    armed = waits[waits["dead_man_at"] != 0]
    _require(bool((armed["dead_man"] != 0).all()), "deadline", "armed without a dead-man time")
    pending = [int(v) for name in ("dead_man_at", "close_at") for v in waits[name] if v != 0]
    pending += expiries
    told = np.concatenate([state.calls[name] for name in ("indicative_at", "cross_at")])
    pending += told[told != 0].tolist()
    _require(
        int((told != 0).sum()) == int(state.hdr[TIMED_SYMBOLS]), "deadline", "symbols that wait"
    )
    for symbol in np.flatnonzero(state.calls["cross_at"]).tolist():
        _require(_in_batch(state, symbol), "deadline", f"a cross of symbol {symbol}")
    bound = int(state.hdr[NEXT_DEADLINE])
    _require(not pending or 0 < bound <= min(pending), "deadline", f"the next is not {bound}")


__all__ = [
    "ORDER",
    "BrokenInvariant",
    "book_levels",
    "book_orders",
    "check_state",
    "levels_walk",
    "order_slots",
    "orders_walk",
    "state_digest",
]
