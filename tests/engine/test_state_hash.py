"""The state hash: blind for how a state came about, sharp for everything that matters (I20)."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.book_rows import (
    LEGS_MAX,
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
    HDR_WORDS,
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
from engine.link_check import linked_slots
from engine.matching import WORK_CANCELS, WORK_ROWS, WORK_SETTLE
from engine.pegs_check import live_pegs
from engine.pending_check import waiting_slots
from engine.state_hash import PASSING_ARRAYS, PASSING_WORDS, state_hash, state_parts
from tests.engine.recorded import Shard, empty_state, recorded

COMMANDS = 400
OF_LISTS = ("links", "lists", "legs", "activations")
SEEDS = range(6)


def hashes_on_the_way(shard: Shard, choose: random.Random | None) -> dict[int, str]:
    """The hash after every call, by in_seq; calls of one event, or of random length."""
    found = {}
    while shard.more:
        shard.run(choose.choice((0, 1, 3, 20, 200)) if choose else 0)
        found[shard.in_seq] = state_hash(shard.state)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_splits_id_seed_and_ring_size_leave_no_trace(seed: int) -> None:
    world, commands = recorded(seed, COMMANDS)
    every = hashes_on_the_way(Shard(empty_state(world), commands), None)
    shared = 0
    for split in range(3):
        state = empty_state(world, seed=split * 977, ring=2048 << split)
        other = hashes_on_the_way(Shard(state, commands), random.Random(split))
        shared += len(other)
        assert all(every.get(in_seq, found) == found for in_seq, found in other.items())
        assert max(every) == max(other)
        assert every[max(every)] == other[max(other)]
    assert shared > COMMANDS // 20
    assert len(set(every.values())) == len(every)


@pytest.fixture(scope="module")
def full() -> ShardState:
    """A state in the midst of a mass cancel or page, with live orders, texts, tags, expiries,
    orders that wait for a price or a call, some of an account with limits; something is going to
    settle.
    """
    for seed in range(200):
        world, commands = recorded(seed, COMMANDS)
        shard = Shard(empty_state(world), commands)
        while shard.more:
            shard.run(0)
            hdr, orders = shard.state.hdr, shard.state.orders[np.flatnonzero(shard.state.owner)]
            listed = hdr[WORK_KIND] in (WORK_CANCELS, WORK_ROWS) and hdr[TEXTS_USED] > 1
            listed &= (
                hdr[DUE_COUNT] > 0 and hdr[SETTLING] > 0 and waiting_slots(shard.state).size > 0
            )
            listed &= aside_slots(shard.state).size > 0 and live_pegs(shard.state).size > 0
            listed &= (orders["flags"] & ORDER_COUNTED != 0).any()
            if listed and hdr[WORK_TOTAL] - hdr[WORK_CURSOR] > 1:
                if (orders["flags"] & ORDER_TEXT).any() and (orders["flags"] & ORDER_TAG).any():
                    return shard.state
    raise AssertionError("no world came to such a state")


def aside_slots(state: ShardState) -> np.ndarray:
    """Slots of orders that wait for a call, or take part in one beside the book."""
    return np.flatnonzero((state.owner != 0) & (state.aside["row"] != ROW_NONE))


def flipped(state: ShardState, array: np.ndarray, byte: int, bit: int) -> str:
    """The hash with one bit of the array turned over."""
    raw = array.view(np.uint8).reshape(-1)
    raw[byte] ^= 1 << bit
    try:
        return state_hash(state)
    finally:
        raw[byte] ^= 1 << bit


def test_every_word_of_the_header_counts_or_is_named_as_passing(full: ShardState) -> None:
    before = state_hash(full)
    for word in range(HDR_WORDS):
        same = flipped(full, full.hdr, 8 * word, 0) == before
        assert same == (word in PASSING_WORDS), word
    assert len(PASSING_WORDS) >= 13
    assert state_hash(full) == before


def used_places(state: ShardState, name: str) -> np.ndarray:
    """Places of an array that hold something in use."""
    hdr, live = state.hdr, np.flatnonzero(state.owner)
    flags = state.orders["flags"][live]
    count = len(getattr(state, name))

    def taken(free: np.ndarray, word: int) -> np.ndarray:
        return np.setdiff1d(np.arange(len(free)), free[: int(hdr[word])])

    nodes = taken(state.free_nodes, NODES_FREE)
    places = {
        "orders": live,
        "order_text": live[flags & ORDER_TEXT != 0],
        "order_tag": live[flags & ORDER_TAG != 0],
        "counted": live[flags & ORDER_COUNTED != 0],
        "more": live[flags & ORDER_FULL != 0],
        "pending": np.union1d(waiting_slots(state), linked_slots(state, LINKED_WAITS)),
        "pegs": live_pegs(state),
        "aside": aside_slots(state),
        "links": linked_slots(state, -1),
        "legs": leg_places(state),
        "activations": np.arange(hdr[ACTIVATIONS]) + hdr[ACTIVATE_FIRST],
        "settling": np.arange(hdr[SETTLING]),
        "due": np.arange(hdr[DUE_COUNT]),
        "free_orders": np.arange(hdr[ORDERS_FREE]),
        "levels": taken(state.free_levels, LEVELS_FREE),
        "dark": taken(state.free_levels, LEVELS_FREE),
        "free_levels": np.arange(hdr[LEVELS_FREE]),
        "node_bits": nodes,
        "node_parent": nodes,
        "node_child": (nodes[:, None] * NODE_FAN + np.arange(NODE_FAN)).reshape(-1),
        "free_nodes": np.arange(hdr[NODES_FREE]),
        "texts": np.arange(hdr[TEXTS_USED] + 1),
        "scratch": np.arange(hdr[WORK_CURSOR], hdr[WORK_TOTAL]),
    }
    return places.get(name, np.arange(count))


def leg_places(state: ShardState) -> np.ndarray:
    """Places of the legs of unfinished lists that are there."""
    counts = np.minimum(state.lists["count"], LEGS_MAX)
    return np.flatnonzero(np.arange(LEGS_MAX) < counts[:, None])


@pytest.fixture(scope="module")
def listed() -> ShardState:
    """A state with linked orders, an unfinished list and a leg that is called."""
    for seed in range(200):
        world, commands = recorded(seed, COMMANDS)
        shard = Shard(empty_state(world), commands)
        while shard.more:
            shard.run(0)
            hdr = shard.state.hdr
            if hdr[ACTIVATIONS] > 0 and linked_slots(shard.state, -1).size > 0:
                # Nothing is called between two legs of one session; another one's may wait.
                shard.state.lists["count"][1], shard.state.legs["px"][LEGS_MAX] = 1, 7
                return shard.state
    raise AssertionError("no world came to such a state")


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in PASSING_ARRAYS])
def test_every_bit_in_use_counts(full: ShardState, listed: ShardState, name: str) -> None:
    full = listed if name in OF_LISTS else full
    array, choose = getattr(full, name), random.Random(name)
    places, before = used_places(full, name), state_hash(full)
    assert len(places), "nothing to look at"
    for _ in range(120):
        row, byte = choose.choice(places.tolist()), choose.randrange(array.itemsize)
        bit = 0 if name.startswith("free") and byte == 0 else choose.randrange(8)
        if name.startswith("free") and byte:
            continue  # a slot that is not there: not a difference but a broken state
        if name == "symbols":
            start = int(array.dtype.fields["dirty"][1])  # type: ignore[index]
            if start <= byte < start + 8:
                continue
        assert flipped(full, array, row * array.itemsize + byte, bit) != before, (row, byte, bit)


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "events"])
def test_what_nobody_reads_does_not_count(full: ShardState, listed: ShardState, name: str) -> None:
    full = listed if name in OF_LISTS else full
    before, array = state_hash(full), getattr(full, name)
    used = np.arange(0) if name in PASSING_ARRAYS - {"order_words"} else used_places(full, name)
    if name == "order_words":
        used = (used_places(full, "orders")[:, None] * 8 + np.arange(8)).reshape(-1)
    if name in ("pending", "aside", "links"):  # each row of a living order says whether it waits
        used = np.flatnonzero(full.owner)
    unused = np.setdiff1d(np.arange(len(array)), used)
    kept = array[unused].copy()
    try:
        array.view(np.uint8).reshape(len(array), -1)[unused] ^= 0x5A
        assert state_hash(full) == before
    finally:
        array[unused] = kept
    assert state_hash(full) == before


def test_a_dirty_mark_of_a_symbol_does_not_count(full: ShardState) -> None:
    before = state_hash(full)
    full.symbols["dirty"] ^= 1
    assert state_hash(full) == before
    full.symbols["dirty"] ^= 1


def test_parts_name_where_two_states_differ(full: ShardState) -> None:
    before = {name: part.copy() for name, part in state_parts(full).items()}
    full.sessions["last_id"][1] += 1
    after = state_parts(full)
    assert [n for n in before if before[n].tobytes() != after[n].tobytes()] == ["sessions"]
    full.sessions["last_id"][1] -= 1


def rest_of_a_wave(state: ShardState) -> range:
    """Places of `scratch` with elected orders that have not run yet."""
    if state.hdr[WORK_KIND] != WORK_SETTLE:
        return range(0)
    count = int(state.rules[int(state.hdr[WORK_SYMBOL])]["wave_count"])
    return range(int(state.hdr[SETTLE_INDEX]), count)


def test_what_is_left_of_a_wave_counts() -> None:
    for seed in range(200):
        world, commands = recorded(seed, COMMANDS)
        shard = Shard(empty_state(world), commands)
        while shard.more:
            shard.run(0)
            rest = rest_of_a_wave(shard.state)
            if len(rest):
                before = state_hash(shard.state)
                for place in (rest[0], rest[-1]):
                    assert flipped(shard.state, shard.state.scratch, 4 * place, 0) != before
                assert flipped(shard.state, shard.state.scratch, 4 * rest.stop, 0) == before
                return
    raise AssertionError("no slice ended within a wave")
