"""Recorded commands and a shard to run them on, batch by batch: what tests of state, snapshot and
log need.

`recorded(seed, count)` draws a small world, with instruments of the full rules and a plain one, and
the commands of tests/model/full_flow.py as they reach the engine. A `Shard` runs them in calls of
the compiled step that end after any number of events, in the midst of a long work too;
`LocalExchange` always runs works to their end.
"""

from __future__ import annotations

import functools
import random

import numpy as np

from engine.admin import list_instrument, list_rules, open_account, open_session
from engine.book_state import (
    ACTIVATIONS,
    FATAL,
    IN_SEQ,
    OUT_POSITION,
    WORK_KIND,
    ShardState,
    allocate_state,
    set_policy,
)
from engine.config import Instrument
from engine.records import EVENT, EVENT_SLOT
from engine.step import step_batch, work_batch
from tests.model.compare import Pair
from tests.model.flow import TEMPLATE, World
from tests.model.full_flow import FEATURES, FullFlow, draw_full_world, full_instruments

RING = 1 << 12


@functools.cache
def recorded(seed: int, count: int) -> tuple[World, np.ndarray]:
    """A world and its commands, those of the start first."""
    rng = random.Random(seed)
    world, instruments = draw_full_world(rng), full_instruments(rng)
    pair = Pair(world, instruments, TEMPLATE, seed)
    step, taken = pair.engine.step, [startup(world, instruments)]

    def step_and_take(commands: np.ndarray) -> np.ndarray:
        taken.append(commands.copy())
        return step(commands)

    pair.engine.step = step_and_take  # type: ignore[method-assign]
    flow = FullFlow(seed, world, pair.model, FEATURES)
    for number in range(count):
        pair.apply(flow.next())
        if number % 64 == 63:
            pair.flush()
    pair.flush()
    return world, np.concatenate(taken)


def startup(world: World, instruments: tuple[Instrument, ...]) -> np.ndarray:
    """What LocalExchange runs first."""
    accounts = range(1, world.accounts + 1)
    rows = [open_account(account) for account in accounts]
    rows += [open_session(account, "local", logon=1) for account in accounts]
    rows += [list_instrument(instrument) for instrument in instruments]
    rows += [row for instrument in instruments for row in list_rules(instrument)]
    return np.concatenate(rows)


def empty_state(world: World, seed: int = 0, ring: int = RING) -> ShardState:
    """The memory of a shard of this world before its first command."""
    events = np.zeros(ring, EVENT_SLOT)
    state = allocate_state(world.limits, shard=world.shard, events=events, seed=seed)
    set_policy(state, world.unknown_symbol, TEMPLATE)
    return state


class Shard:
    """A state and the commands it has still to run."""

    def __init__(self, state: ShardState, commands: np.ndarray, done: int = 0) -> None:
        self.state, self.commands, self.index = state, commands, done

    @property
    def in_seq(self) -> int:
        return int(self.state.hdr[IN_SEQ])

    @property
    def out_seq(self) -> int:
        return int(self.state.hdr[OUT_POSITION])

    @property
    def more(self) -> bool:
        """Whether anything is left to do."""
        hdr = self.state.hdr
        return self.index < len(self.commands) or bool(hdr[WORK_KIND] or hdr[ACTIVATIONS])

    def run(self, events_max: int, until: int | None = None) -> np.ndarray:
        """One call of the step that ends soon after `events_max` events, or before command `until`;
        returns the events.
        """
        first, table = self.out_seq, self.state.table
        until = len(self.commands) if until is None else until
        if self.index < until:
            self.index = int(step_batch(table, self.commands[:until], self.index, events_max))
        else:
            work_batch(table, events_max)
        assert not self.state.hdr[FATAL]
        return self.events(first, self.out_seq)

    def finish(self, events_max: int = 500) -> np.ndarray:
        """Run all that is left; returns the events."""
        parts = [np.zeros(0, EVENT)]
        while self.more:
            parts.append(self.run(events_max))
        return np.concatenate(parts)

    def events(self, first: int, end: int) -> np.ndarray:
        """Events first+1 .. end, as plain records, from the ring."""
        ring = self.state.events
        places = np.arange(first, end) & (len(ring) - 1)
        words = ring.view("<i8").reshape(len(ring), -1)[places, : EVENT.itemsize // 8]
        return np.ascontiguousarray(words).view(EVENT).reshape(-1)
