"""One number for all that decides what a shard will do next (invariant I20).

Cold. Two states with equal hashes answer every further command alike, whichever way they came
about: in other batches, from a snapshot and the commands after it, in another process with other
addresses, another event ring and another `seed`. What is left out has no say in that: caches
(`recent`, `look`), where an entry lies in the id table (scattered by `seed`), which entries wait
to leave it, which book tops wait to be published, receipts and marks of a batch. Everything else
goes in by default, so a new array or word of the header is hashed until somebody says why not.

Of pools only what is in use goes in, beside the free lists in their order: the next slot comes from
their end. Rows of ended orders are rubbish that nobody reads.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from engine import book_state
from engine.book_rows import (
    LEGS_MAX,
    LINKED_BEGINS,
    LINKED_WAITS,
    ORDER_COUNTED,
    ORDER_FULL,
    ORDER_TAG,
    ORDER_TEXT,
    ROW_NONE,
)
from engine.book_state import (
    ACTIVATE_FIRST,
    ACTIVATIONS,
    ARRAYS,
    DUE_COUNT,
    LEVELS_FREE,
    NODE_FAN,
    NODES_FREE,
    ORDERS_FREE,
    SETTLE_INDEX,
    SETTLING,
    TEXTS_USED,
    WORK_CURSOR,
    WORK_KIND,
    WORK_SYMBOL,
    WORK_TOTAL,
    ShardState,
)
from engine.matching import WORK_CALL, WORK_CANCELS, WORK_ROWS, WORK_SETTLE
from engine.pegs_check import live_pegs

# Words of the header that say nothing about what comes next. NEXT_DEADLINE says when the loop looks
# for deadlines again, and when it looked is in no journal.
PASSING_WORDS = tuple(
    word
    for name, word in vars(book_state).items()
    if name.startswith("RECEIPT_")
    or name
    in (
        "GONE_IN",
        "GONE_OUT",
        "NEXT_DEADLINE",
        "EVENT_MASK",
        "ID_SEED",
        "SLICE_START",
        "DIRTY_COUNT",
        "BATCH_VERSION",
        "INTENT",
        "TOUCHED",
    )
)
# Arrays without a say: other views of the same memory, caches, and what is yet to be published.
# Ids of live orders are in their rows, `ids` only finds them.
PASSING_ARRAYS = frozenset(
    ("order_words", "ids", "gone", "look", "recent", "dirty", "events", "event_words")
)


def _used(free: np.ndarray, count: int) -> np.ndarray:
    # Places of a pool that are not in the first `count` of its free list.
    used = np.ones(len(free), bool)
    used[free[:count]] = False
    return np.flatnonzero(used)


def _orders(state: ShardState) -> dict[str, np.ndarray]:
    live = np.flatnonzero(state.owner)
    rows = state.orders[live]
    full = live[rows["flags"] & ORDER_FULL != 0]
    legs = state.more["linked"][full] & (LINKED_WAITS | LINKED_BEGINS) != 0
    return {
        "slots": live,
        "owner": state.owner[live],
        "orders": rows,
        "order_text": state.order_text[live[rows["flags"] & ORDER_TEXT != 0]],
        "order_tag": state.order_tag[live[rows["flags"] & ORDER_TAG != 0]],
        "counted": state.counted[live[rows["flags"] & ORDER_COUNTED != 0]],
        "more": state.more[full],
        "aside": state.aside[full[state.aside["row"][full] != ROW_NONE]],
        "pending": state.pending[full[(state.more["waits"][full] != 0) | legs]],
        "links": state.links[full[state.more["linked"][full] != 0]],
        "pegs": state.pegs[live_pegs(state)],
        "due": state.due[: int(state.hdr[DUE_COUNT])],
        "free_orders": state.free_orders[: int(state.hdr[ORDERS_FREE])],
    }


def _levels(state: ShardState) -> dict[str, np.ndarray]:
    free = int(state.hdr[LEVELS_FREE])
    used = _used(state.free_levels, free)
    return {
        "levels": state.levels[used],
        "dark": state.dark[used],
        "free_levels": state.free_levels[:free],
    }


def _nodes(state: ShardState) -> dict[str, np.ndarray]:
    free = int(state.hdr[NODES_FREE])
    used = _used(state.free_nodes, free)
    return {
        "node_bits": state.node_bits[used],
        "node_parent": state.node_parent[used],
        "node_child": state.node_child.reshape(-1, NODE_FAN)[used],
        "free_nodes": state.free_nodes[:free],
    }


def _symbols(state: ShardState) -> dict[str, np.ndarray]:
    rows = state.symbols.copy()
    rows["dirty"] = 0
    return {"symbols": rows}


def _settling(state: ShardState) -> dict[str, np.ndarray]:
    return {"settling": state.settling[: int(state.hdr[SETTLING])]}


def _lists(state: ShardState) -> dict[str, np.ndarray]:
    # Of the legs those that are there; the list of a leg's session knows how many.
    counts = np.minimum(state.lists["count"], LEGS_MAX)
    there = (np.arange(LEGS_MAX) < counts[:, None]).reshape(-1)
    return {"lists": state.lists, "legs": state.legs[there]}


def _activations(state: ShardState) -> dict[str, np.ndarray]:
    first, count = int(state.hdr[ACTIVATE_FIRST]), int(state.hdr[ACTIVATIONS])
    places = (first + np.arange(count)) % len(state.activations)
    return {"activations": state.activations[places]}


def _texts(state: ShardState) -> dict[str, np.ndarray]:
    return {"texts": state.texts[: int(state.hdr[TEXTS_USED]) + 1]}


def _scratch(state: ShardState) -> dict[str, np.ndarray]:
    # The rest of the list of an open work that has one, of the cross or the wave it is in.
    hdr, call = state.hdr, state.calls[int(state.hdr[WORK_SYMBOL])]
    crosses = hdr[WORK_KIND] == WORK_SETTLE and call["stage"] != 0
    if hdr[WORK_KIND] == WORK_CALL or crosses:
        return {"scratch": state.scratch[int(call["index"]) : int(call["listed"])]}
    if hdr[WORK_KIND] == WORK_SETTLE:
        end = int(state.rules[int(hdr[WORK_SYMBOL])]["wave_count"])
        return {"scratch": state.scratch[int(hdr[SETTLE_INDEX]) : end]}
    listed = hdr[WORK_KIND] in (WORK_CANCELS, WORK_ROWS)
    return {"scratch": state.scratch[int(hdr[WORK_CURSOR]) : int(hdr[WORK_TOTAL]) * listed]}


# Who speaks for an array that does not go in as it lies.
_SPEAKERS: dict[str, Callable[[ShardState], dict[str, np.ndarray]]] = {
    "orders": _orders,
    "owner": _orders,
    "order_text": _orders,
    "order_tag": _orders,
    "counted": _orders,
    "more": _orders,
    "aside": _orders,
    "pending": _orders,
    "links": _orders,
    "lists": _lists,
    "legs": _lists,
    "activations": _activations,
    "pegs": _orders,
    "due": _orders,
    "free_orders": _orders,
    "levels": _levels,
    "dark": _levels,
    "settling": _settling,
    "free_levels": _levels,
    "node_bits": _nodes,
    "node_child": _nodes,
    "node_parent": _nodes,
    "free_nodes": _nodes,
    "symbols": _symbols,
    "texts": _texts,
    "scratch": _scratch,
}


def state_parts(state: ShardState) -> dict[str, np.ndarray]:
    """What is hashed, by name: for whoever has two hashes that differ and wants to know where."""
    hdr = np.array(state.hdr)
    hdr[list(PASSING_WORDS)] = 0
    parts = {"hdr": hdr}
    for name in ARRAYS:
        speaker = _SPEAKERS.get(name)
        if name in PASSING_ARRAYS or name in parts:
            continue
        parts |= speaker(state) if speaker else {name: getattr(state, name)}
    return parts


def state_hash(state: ShardState) -> str:
    """SHA-256 of everything that decides what the shard will do next; call it between batches."""
    digest = hashlib.sha256()
    for name, part in state_parts(state).items():
        digest.update(f"{name} {part.nbytes};".encode())
        digest.update(np.ascontiguousarray(part).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


__all__ = ["PASSING_ARRAYS", "PASSING_WORDS", "state_hash", "state_parts"]
