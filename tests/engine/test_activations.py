"""A leg that is called goes live once: in the loop, after a restart, where the journal says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.admin import PRODUCER_SUPERVISOR, list_instrument, open_account, open_session
from engine.book_check import check_state, state_digest
from engine.book_state import (
    ACTIVATIONS,
    EVENT_MASK,
    IN_SEQ,
    OUT_POSITION,
    ShardState,
    allocate_state,
    map_state,
    private_array,
    small_limits,
    state_bytes,
    state_layout,
)
from engine.config import Config, Instrument, Journal, Rings
from engine.event_ring import READER_POSITION
from engine.loop_words import BATCH_MAX, STOP
from engine.records import (
    COMMAND,
    EVENT_SLOT,
    CommandFlag,
    CommandKind,
    EventKind,
    OrderType,
    Side,
    pack_name,
)
from engine.replay import Replay
from engine.rerun import Rerun
from engine.shard_loop import RETURN_IDLE, Ports, shard_ports_private, shard_run, work_waits
from engine.state_hash import state_hash
from engine.step import step_batch, work_batch
from tests.engine.kept import make_directory

pytestmark = [pytest.mark.flavour, pytest.mark.timeout(300)]

LIMITS = small_limits()
RING = 1 << 12
OTO = 2
ACTIVATE = np.uint8(CommandKind.ACTIVATE)


def new_state() -> ShardState:
    return allocate_state(LIMITS, events=private_array(EVENT_SLOT, RING))


def new(account: int, side: Side, px: int, **more: Any) -> np.ndarray:
    row = np.zeros(1, COMMAND)
    row["kind"], row["order_type"], row["qty"] = CommandKind.NEW, OrderType.LIMIT, 1
    row["account"] = row["session"] = account
    row["logon"], row["producer"] = 1, PRODUCER_SUPERVISOR
    row["symbol"], row["side"], row["px"] = pack_name("GOLD"), side, px
    for name, value in more.items():
        row[name] = value
    return row


def oto(account: int, px: int) -> list[np.ndarray]:
    """Buy one at px, then sell one at px + 20."""
    first = new(account, Side.BUY, px, flags=CommandFlag.LIST, decision_code=OTO)
    return [first, new(account, Side.SELL, px + 20, decision_code=OTO)]


def story() -> np.ndarray:
    """Two lists, both called by the last command."""
    return np.concatenate(
        [
            open_account(1),
            open_account(2),
            open_session(1, "main", logon=1),
            open_session(2, "main", logon=1),
            list_instrument(Instrument("GOLD", "1", "1", "1000", rules="full")),
            *oto(1, 100),
            *oto(1, 99),
            new(2, Side.SELL, 99, qty=2),
        ]
    )


def events_of(state: ShardState, first: int) -> np.ndarray:
    mask = int(state.hdr[EVENT_MASK])
    return state.events[np.arange(first, int(state.hdr[OUT_POSITION])) & mask]


def activated(events: np.ndarray) -> list[int]:
    return events["px"][events["kind"] == EventKind.ACTIVATED].tolist()


def finished() -> ShardState:
    state = new_state()
    step_batch(state.table, story(), 0, RING)
    work_batch(state.table, RING)
    return state


@pytest.fixture
def called() -> ShardState:
    """The last command is complete, its legs wait for their ACTIVATE."""
    state = new_state()
    assert step_batch(state.table, story(), 0, RING) == len(story())
    assert state.hdr[ACTIVATIONS] == 2
    assert activated(events_of(state, 0)) == []
    check_state(state)
    return state


def copy_of(state: ShardState) -> ShardState:
    """The state as a snapshot gives it back."""
    other = map_state(
        LIMITS,
        private_array(np.dtype(np.uint8), state_bytes(LIMITS)),
        private_array(EVENT_SLOT, RING),
    )
    for name, _, _ in state_layout(LIMITS):
        if name != "table":
            getattr(other, name)[:] = getattr(state, name)
    other.hdr[:] = state.hdr
    return other


# -------------------------------------------------------------------------------------- in the loop
def loop_over(state: ShardState) -> Ports:
    ports = shard_ports_private(state)
    ports.loop[STOP] = 1
    ports.event_ctrl[READER_POSITION] = int(state.hdr[OUT_POSITION])
    return ports


def test_a_loop_that_begins_with_legs_called_lets_each_go_live_once(called: ShardState) -> None:
    state = copy_of(called)
    first, ports = int(state.hdr[OUT_POSITION]), loop_over(state)
    assert work_waits(state.table, ports)  # it does not fall asleep over them
    while shard_run(state.table, ports) != RETURN_IDLE and work_waits(state.table, ports):
        pass
    assert activated(events_of(state, first)) == [120, 119]
    assert state.hdr[ACTIVATIONS] == 0
    assert not work_waits(state.table, ports)
    assert state.hdr[IN_SEQ] == called.hdr[IN_SEQ] + 2
    assert state_digest(state) == state_digest(finished())
    check_state(state)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_no_command_of_a_ring_runs_before_the_legs_that_are_called(
    called: ShardState, batch: int
) -> None:
    state, ports = called, loop_over(called)
    ports.loop[BATCH_MAX] = batch
    first = int(state.hdr[OUT_POSITION])
    late = new(2, Side.BUY, 120, qty=1)  # would find nothing to buy if it ran first
    ports.commands[PRODUCER_SUPERVISOR * 64] = late[0]
    ports.commands[PRODUCER_SUPERVISOR * 64]["producer_seq"] = 1
    for _ in range(20):
        shard_run(state.table, ports)
    told = events_of(state, first)
    kinds = [EventKind(kind) for kind in told["kind"]]
    assert kinds[:4] == [EventKind.ACTIVATED, EventKind.BOOKED] * 2
    assert EventKind.FILL in kinds[4:]


# ------------------------------------------------------------------------------------- in a journal
def journal_of(state: ShardState) -> np.ndarray:
    """Records of the story, as a loop wrote them: its ACTIVATEs among them."""
    records = story()
    calls = [
        int(order_id)
        for order_id in events_of(state, 0)["order_id"][
            events_of(state, 0)["kind"] == EventKind.ACTIVATED
        ]
    ]
    own = np.zeros(len(calls), COMMAND)
    own["kind"], own["order_id"] = ACTIVATE, calls
    records = np.concatenate([records, own])
    records["in_seq"] = 1 + np.arange(len(records))
    return records


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_the_journal_has_is_not_done_again_and_what_it_lacks_is(lost: int) -> None:
    whole = finished()
    records = journal_of(whole)
    kept = records[: len(records) - lost]
    replay = Replay(new_state(), RING // 2)
    assert replay.run(kept) == len(kept)
    state = replay.state
    assert state.hdr[ACTIVATIONS] == lost
    assert len(activated(events_of(state, 0))) == 2 - lost
    ports = loop_over(state)
    for _ in range(20):
        shard_run(state.table, ports)
    assert activated(events_of(state, 0)) == [120, 119]
    assert state_hash(state) == state_hash(whole)


def test_lists_come_back_from_the_journal_as_the_loop_wrote_it(tmp_path: Path) -> None:
    """Through staging and files: a leg that lost what list it is of would come back alone."""
    commands = story()
    again = Rerun(make_directory(str(tmp_path / "d"), config(), [commands]), 0)
    told = np.concatenate(list(again.follow()))
    assert activated(told) == [120, 119]
    assert (told["kind"] == EventKind.PARKED).sum() == 2
    assert state_digest(again.state) == state_digest(finished())


def config() -> Config:
    """Of a directory with the limits of these tests."""
    return dataclasses.replace(
        Config(),
        instance="lists",
        shards=1,
        shard=LIMITS,
        rings=Rings(event_capacity=RING),
        journal=Journal(segment_bytes=1 << 16, staging_capacity=256, free_bytes_min=0),
    )


def test_an_activate_that_is_repeated_does_nothing() -> None:
    whole = finished()
    records = journal_of(whole)
    again = np.concatenate([records, records[-1:]])
    again["in_seq"] = 1 + np.arange(len(again))
    replay = Replay(new_state(), RING // 2)
    replay.run(again)
    assert activated(events_of(replay.state, 0)) == [120, 119]
    assert state_digest(replay.state) == state_digest(whole)


# ------------------------------------------------------------------------------------- in its words
def test_lists_over_and_over_leave_nothing_behind() -> None:
    state = new_state()
    step_batch(state.table, story()[:5], 0, RING)
    for _ in range(2 * LIMITS.orders_max):
        rows = np.concatenate([*oto(1, 100), *oto(1, 99), new(2, Side.SELL, 99, qty=2)])
        rows = np.concatenate([rows, new(2, Side.BUY, 119), new(2, Side.BUY, 120)])
        step_batch(state.table, rows[:5], 0, RING)
        assert state.hdr[ACTIVATIONS] == 2
        work_batch(state.table, RING)
        step_batch(state.table, rows[5:], 0, RING)
        work_batch(state.table, RING)
    check_state(state)
    assert not state.owner.any()
