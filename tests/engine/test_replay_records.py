"""A journal is enough: records alone, TIME and CONTINUE among them, give the same bytes again.

The exchange of a differential run (tests/model/compare.py) writes down what the loop would journal:
TIME for the session that is due, each command, CONTINUE for each further slice. Played back one by
one by ``step_one`` into an empty shard, events and the whole memory are equal, byte by byte.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from engine.book_state import (
    EVENT_MASK,
    IN_TS,
    NEXT_DEADLINE,
    OUT_POSITION,
    ShardState,
    allocate_state,
    set_policy,
)
from engine.id_table import ids_settle
from engine.jit import kernel
from engine.local import LocalExchange
from engine.records import COMMAND, EVENT, EVENT_SLOT, CommandKind, EventKind
from engine.step import step_one
from tests.model import compare
from tests.model.flow import INSTRUMENTS, TEMPLATE, Flow, draw_world

COMMANDS = 3000
# What prefetching and sorting leave behind, and words about the ring or about who looked when.
SCRATCH_ARRAYS = ("look", "scratch", "events", "event_words", "live_hdr")
SCRATCH_WORDS = [NEXT_DEADLINE, EVENT_MASK]


@kernel
def replay(s, records):
    """Apply records as a follower does."""
    for index in range(len(records)):
        c = records[index]
        step_one(s, c, np.int64(c["in_ts"]))
    ids_settle(s)
    return 0


class Recorded(LocalExchange):
    """A LocalExchange that keeps its journal and its events."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.records: list[np.ndarray] = []
        self.events: list[np.ndarray] = []
        super().__init__(*arguments, **options)

    def step(self, commands: np.ndarray) -> np.ndarray:
        return np.concatenate([self._step_command(c) for c in commands.reshape(-1, 1)])

    def _step_command(self, command: np.ndarray) -> np.ndarray:
        parts = []
        now = max(int(command["in_ts"][0]), int(self.state.hdr[IN_TS]))
        if command["kind"][0] != CommandKind.TIME:
            while slot := self._due(now):
                parts.append(self._record(_loop(CommandKind.TIME, session=slot, in_ts=now)))
        parts.append(self._record(command))
        return np.concatenate(parts)

    def _due(self, now: int) -> int:
        rows = self.state.sessions
        found = [
            (int(row[name]), slot)
            for slot, row in enumerate(rows)
            for name in ("dead_man_at", "close_at")
            if 0 < row[name] <= now
        ]
        return min(found)[1] if found else 0

    def _record(self, record: np.ndarray) -> np.ndarray:
        events = super().step(record)
        slices = np.count_nonzero(events["kind"] == EventKind.CONTINUED)
        # A slice has the time of its command, whatever its record says.
        self.records += [record, *[_loop(CommandKind.CONTINUE, in_ts=2**61)] * slices]
        self.events.append(events.copy())
        return events


def _loop(kind: CommandKind, **fields: int) -> np.ndarray:
    record = np.zeros(1, COMMAND)
    record["kind"] = kind
    for name, value in fields.items():
        record[name] = value
    return record


def memory_of(state: ShardState) -> dict[str, bytes]:
    words = state.hdr.copy()
    words[SCRATCH_WORDS] = 0
    arrays = {n: a.tobytes() for n, a in state.arrays.items() if n not in SCRATCH_ARRAYS}
    return arrays | {f"hdr[{n}]": word.tobytes() for n, word in enumerate(words)}


@pytest.mark.slow
@pytest.mark.nojit
@pytest.mark.timeout(300)  # the kernel may have to be compiled
@pytest.mark.parametrize("number", range(4))
def test_records_played_back_give_the_same_events_and_the_same_memory(
    monkeypatch: pytest.MonkeyPatch, seed: int, number: int
) -> None:
    monkeypatch.setattr(compare, "LocalExchange", Recorded)
    world = draw_world(random.Random(seed))
    pair = compare.Pair(world, INSTRUMENTS, TEMPLATE, seed)
    flow = Flow(seed, world, pair.model)
    for _ in range(COMMANDS):
        pair.apply(flow.next())
    pair.check()
    live = pair.engine
    assert isinstance(live, Recorded)
    seen = np.concatenate(live.events)
    kinds = {int(r["kind"][0]) for r in live.records}
    assert {CommandKind.TIME, CommandKind.FEED_STATE, CommandKind.PRODUCER_RESET} <= kinds

    ring = np.zeros(1 << len(seen).bit_length(), EVENT_SLOT)
    again = allocate_state(world.limits, shard=world.shard, events=ring)
    set_policy(again, world.unknown_symbol, TEMPLATE)
    told = ring.view("<i8").reshape(len(ring), -1)[:, : EVENT.itemsize // 8]
    want = seen.view("<i8").reshape(len(seen), -1)
    before = 0
    for record in np.concatenate(live.records).reshape(-1, 1):  # stop at the first difference
        replay(again.table, record)
        after = int(again.hdr[OUT_POSITION])
        assert told[before:after].tobytes() == want[before:after].tobytes(), record
        before = after
    assert before == len(seen)
    live_memory, memory = memory_of(live.state), memory_of(again)
    assert [name for name in memory if memory[name] != live_memory[name]] == []
