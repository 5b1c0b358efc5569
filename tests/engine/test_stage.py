"""The journal's part of the loop: staging, the gate, late commits, time. One call after the other,
on private memory and clocks that the test moves.
"""

from __future__ import annotations

import numpy as np
import pytest

from engine.admin import (
    PRODUCER_SUPERVISOR,
    list_instrument,
    open_account,
    open_session,
    producer_reset,
)
from engine.book_state import (
    FATAL,
    FATAL_CROSSED,
    IN_SEQ,
    IN_TS,
    OUT_POSITION,
    allocate_state,
    small_limits,
)
from engine.command_ring import CTRL_WORDS, GATE
from engine.config import Instrument
from engine.crc32c import CRC_START
from engine.event_ring import COMMITTED
from engine.journal_reader import FAULT, chain_state, records_verify
from engine.loop_words import (
    FAKE_STEADY,
    FAKE_WALL,
    J_CAPACITY,
    J_CHAIN,
    J_COMMITTED,
    J_CRC,
    J_DURABLE,
    J_EPOCH,
    J_MODE,
    J_RESERVE,
    J_WINDOW_NS,
    MODE_BATCH,
    MODE_OS,
    MODE_SYNC,
    SLIPPED,
    journal_inherit,
    journal_ports_none,
)
from engine.records import COMMAND, CommandKind, EventKind, OrderType, Reason, pack_name
from engine.replay import Replay
from engine.shard_loop import RETURN_FATAL, STOP, shard_ports_private, shard_run, work_waits
from engine.staging import (
    DURABLE,
    GATE_CLOSED,
    M_CRC,
    M_IN_SEQ,
    STAGED,
    STORAGE,
    STORAGE_GOOD,
    STORAGE_LOW,
    WRITTEN,
    StagingRings,
)

pytestmark = [pytest.mark.flavour]

CAPACITY, STAGING, RESERVE = 64, 64, 8
MS, SECOND = 1_000_000, 1_000_000_000
WINDOW_NS = 90 * MS
START = 1_700_000_000 * SECOND
EPOCH = 7


class Journaled:
    """A shard with a journal, in one mode."""

    def __init__(self, mode: int) -> None:
        self.limits = small_limits(batch_max=8)
        self.state = allocate_state(self.limits)
        self.staging = StagingRings.private(1, STAGING)
        ports = shard_ports_private(self.state, capacity=CAPACITY)
        journal = ports.journal
        values = {
            J_MODE: mode,
            J_CAPACITY: STAGING,
            J_RESERVE: RESERVE,
            J_WINDOW_NS: WINDOW_NS,
            J_EPOCH: EPOCH,
            J_CHAIN: CRC_START,
        }
        for word, value in values.items():
            journal[word] = value
        journal[J_CRC : J_CRC + 3] = CRC_START
        self.ports = ports._replace(
            staging_ctrl=self.staging.ctrl, staging_words=self.staging.slot_words
        )
        self.ports.loop[STOP] = 1
        self.sent = 0
        self.at(0)
        for row in (
            open_account(1),
            open_session(1, "main", logon=1),
            list_instrument(Instrument("AAPL")),
        ):
            self.send(row)
        self.run()
        self.disk()

    def at(self, ns: int) -> None:
        """Move both clocks to `ns` after the start."""
        self.ports.loop[FAKE_STEADY], self.ports.loop[FAKE_WALL] = SECOND + ns, START + ns

    def send(self, commands: np.ndarray) -> None:
        for command in commands:
            place = PRODUCER_SUPERVISOR * CAPACITY + self.sent % CAPACITY
            self.sent += 1
            self.ports.commands[place] = command
            self.ports.commands[place]["producer_seq"] = self.sent

    def run(self) -> int:
        return int(shard_run(self.state.table, self.ports))

    def disk(self, in_seq: int | None = None) -> None:
        """Everything (or all up to in_seq) is on disk."""
        done = self.staged if in_seq is None else in_seq
        self.staging.set(0, WRITTEN, done)
        self.staging.set(0, DURABLE, done)

    @property
    def staged(self) -> int:
        return self.staging.get(0, STAGED)

    @property
    def shut(self) -> bool:
        """Whether the gate is closed, for the producers too."""
        shut = self.staging.get(0, GATE_CLOSED) != 0
        gates = self.ports.command_ctrl.reshape(-1, CTRL_WORDS)[:, GATE]
        assert (gates != 0).all() == shut
        return shut

    @property
    def committed(self) -> int:
        return int(self.ports.event_ctrl[COMMITTED])

    @property
    def position(self) -> int:
        return int(self.state.hdr[OUT_POSITION])

    def records(self) -> np.ndarray:
        return self.staging.records(0, 0, self.staged)

    def new_owner(self) -> None:
        """The shard's process has died; the next goes on with its state and what was staged."""
        old, journal = self.ports.journal, journal_ports_none()[0]
        kept = (J_MODE, J_CAPACITY, J_RESERVE, J_WINDOW_NS, J_EPOCH, J_CHAIN)
        journal[[*kept]] = old[[*kept]]
        journal[J_CRC : J_CRC + 3] = old[J_CRC : J_CRC + 3]
        journal[J_COMMITTED], journal[J_DURABLE] = self.committed, self.staging.get(0, DURABLE)
        journal_inherit(journal, self.staged, self.position)
        self.ports = self.ports._replace(journal=journal)


def orders(count: int, first: int = 1, logon: int = 1) -> np.ndarray:
    rows = np.zeros(count, COMMAND)
    rows["kind"], rows["order_type"], rows["qty"] = CommandKind.NEW, OrderType.LIMIT, 1
    rows["px"], rows["symbol"] = 100, pack_name("AAPL")
    rows["client_order_id"] = first + np.arange(count)
    rows["account"], rows["session"], rows["logon"] = 1, 1, logon
    return rows


@pytest.fixture(params=[MODE_OS, MODE_BATCH, MODE_SYNC], ids=["os", "batch", "sync"])
def any_mode(request: pytest.FixtureRequest) -> Journaled:
    return Journaled(request.param)


def test_every_command_is_staged_with_its_chain_and_what_the_shard_adds(
    any_mode: Journaled,
) -> None:
    sent = orders(5)
    any_mode.send(sent)
    any_mode.run()
    records = any_mode.records()
    words = records.view(np.int64)
    words.flags.writeable = False
    chain = chain_state(0, CRC_START)
    records_verify(words, chain)
    assert chain[FAULT] == 0
    assert records["in_seq"].tolist() == list(range(1, len(records) + 1))
    assert set(records["epoch"].tolist()) == {EPOCH}
    assert set(records["producer"].tolist()) == {PRODUCER_SUPERVISOR}
    assert (records["client_order_id"][-5:] == sent["client_order_id"]).all()
    assert (records["in_ts"] == START).all()
    assert (records["durable_lag"] <= records["in_seq"]).all()


def test_replay_of_what_was_staged_gives_the_same_events(any_mode: Journaled) -> None:
    any_mode.send(orders(7))
    any_mode.run()
    replay = Replay(allocate_state(any_mode.limits), 1000)
    assert replay.run(any_mode.records()) == any_mode.staged
    assert replay.position == any_mode.position
    journal = any_mode.ports.journal
    assert replay.event_crc == tuple(int(word) for word in journal[J_CRC : J_CRC + 3])


def test_mark_says_what_the_running_crc_is() -> None:
    shard = Journaled(MODE_BATCH)
    shard.at(20 * MS)
    shard.send(orders(2))
    shard.run()
    assert shard.staging.get(0, M_IN_SEQ) == shard.staged
    assert shard.staging.get(0, M_CRC) == int(shard.ports.journal[J_CRC])


@pytest.mark.parametrize("mode", [MODE_OS, MODE_BATCH])
def test_os_and_batch_show_what_is_staged(mode: int) -> None:
    shard = Journaled(mode)
    before = shard.committed
    shard.send(orders(1))
    shard.run()
    assert shard.committed == shard.position > before


def test_d3_sync_shows_nothing_before_the_disk_has_it() -> None:
    shard = Journaled(MODE_SYNC)
    shard.run()
    before = shard.committed
    assert before == shard.position
    for _ in range(3):
        shard.send(orders(1, first=1 + shard.sent))
        shard.run()
    assert shard.committed == before
    assert not work_waits(shard.state.table, shard.ports)
    shard.disk(shard.staged - 1)
    assert work_waits(shard.state.table, shard.ports)
    shard.run()
    assert before < shard.committed < shard.position
    shard.disk()
    shard.run()
    assert shard.committed == shard.position


def test_gate_closes_when_the_staging_ring_is_full_and_opens_when_the_disk_has_it() -> None:
    shard = Journaled(MODE_BATCH)
    while not shard.shut:
        assert shard.staged - shard.staging.get(0, DURABLE) <= STAGING - RESERVE + 8
        shard.send(orders(8, first=1 + shard.sent))
        shard.run()
    staged = shard.staged
    shard.run()
    assert shard.staged == staged, "nothing is taken behind a closed gate"
    assert not work_waits(shard.state.table, shard.ports), "the shard may sleep"
    shard.disk()
    assert work_waits(shard.state.table, shard.ports)
    shard.run()
    assert not shard.shut
    assert shard.staged == staged + 8


def test_os_frees_slots_when_they_are_written() -> None:
    shard = Journaled(MODE_OS)
    for _ in range(20):
        shard.send(orders(8, first=1 + shard.sent))
        shard.run()
        assert not shard.shut
        shard.staging.set(0, WRITTEN, shard.staged)


def test_d3_gate_closes_before_the_loss_window_is_over() -> None:
    shard = Journaled(MODE_BATCH)
    shard.at(10 * MS)
    shard.send(orders(1))
    shard.run()  # not on disk from here on
    shard.at(10 * MS + WINDOW_NS - 1)
    shard.send(orders(1, first=2))
    shard.run()
    assert not shard.shut
    staged = shard.staged
    shard.at(10 * MS + WINDOW_NS)
    shard.send(orders(1, first=3))
    shard.run()
    assert shard.shut
    assert shard.staged == staged
    shard.disk(staged - 1)  # the older of the two is on disk: the window is that of the younger
    shard.run()
    assert not shard.shut
    assert shard.staged == staged + 1


def test_window_counts_from_the_oldest_record_not_on_disk_for_hours() -> None:
    shard = Journaled(MODE_BATCH)
    for step in range(1, 3000):
        shard.at(step * 7 * MS)
        shard.send(orders(1, first=step))
        shard.run()
        assert not shard.shut
        shard.disk(shard.staged - 2)


def test_d3_new_owner_does_not_begin_the_loss_window_anew() -> None:
    shard = Journaled(MODE_BATCH)
    shard.at(10 * MS)
    shard.send(orders(3))
    shard.run()  # shown, and not on disk
    staged = shard.staged
    shard.new_owner()
    shard.at(11 * MS)
    shard.send(orders(1, first=4))
    shard.run()
    assert shard.shut, "nobody knows how long ago they were shown"
    shard.disk(staged - 1)
    shard.run()
    assert (shard.shut, shard.staged) == (True, staged), "the oldest is still not on disk"
    shard.disk(staged)
    shard.run()
    assert (shard.shut, shard.staged) == (False, staged + 1)
    for number, ns in ((5, WINDOW_NS - 1), (6, WINDOW_NS)):  # from here on that of its own
        shard.at(11 * MS + ns)
        shard.send(orders(1, first=number))
        shard.run()
        assert shard.shut == (ns == WINDOW_NS)


def test_new_owner_of_what_is_on_disk_takes_commands_at_once() -> None:
    shard = Journaled(MODE_BATCH)
    shard.send(orders(3))
    shard.run()
    shard.disk()
    shard.new_owner()
    shard.send(orders(1, first=4))
    staged = shard.staged
    shard.run()
    assert (shard.shut, shard.staged) == (False, staged + 1)


def test_d3_sync_new_owner_shows_what_was_staged_when_the_disk_has_it() -> None:
    shard = Journaled(MODE_SYNC)
    shard.run()
    before = shard.committed
    shard.send(orders(3))
    shard.run()
    shard.new_owner()
    shard.run()
    assert shard.committed == before < shard.position
    shard.disk()
    shard.run()
    assert shard.committed == shard.position


def test_d4_low_disk_closes_the_gate() -> None:
    shard = Journaled(MODE_OS)
    shard.staging.set(0, STORAGE, STORAGE_LOW)
    shard.send(orders(1))
    staged = shard.staged
    shard.run()
    assert shard.shut
    assert shard.staged == staged
    shard.staging.set(0, STORAGE, STORAGE_GOOD)
    shard.run()
    assert shard.staged == staged + 1


def test_i1_batch_that_breaks_an_invariant_is_neither_staged_nor_shown() -> None:
    shard = Journaled(MODE_BATCH)
    rows = orders(2)
    rows["px"] = 100, 90
    shard.send(rows)
    shard.run()
    staged, committed = shard.staged, shard.committed
    bids, asks = 2, 3  # of the first symbol
    shard.state.sides["best"][asks] = shard.state.sides["best"][bids]  # no command can do that
    cancel = orders(1, first=3)
    cancel["kind"], cancel["target_client_order_id"] = CommandKind.CANCEL, 2
    shard.send(cancel)
    assert shard.run() == RETURN_FATAL
    assert shard.state.hdr[FATAL] == FATAL_CROSSED
    assert (shard.staged, shard.committed) == (staged, committed)


# ------------------------------------------------------------------------------------------- time
def dead_man_shard() -> Journaled:
    shard = Journaled(MODE_BATCH)
    logon = open_session(1, "main", logon=2)
    logon["amount"] = 2 * SECOND
    shard.send(logon)
    shard.send(orders(2, logon=2))
    shard.run()
    shard.disk()
    return shard


def kinds(shard: Journaled) -> list[int]:
    return shard.records()["kind"].tolist()


def test_deadline_fires_by_a_journaled_time_of_the_loops_own() -> None:
    shard = dead_man_shard()
    shard.at(2 * SECOND - 1)
    shard.run()
    assert CommandKind.TIME not in kinds(shard)
    shard.at(2 * SECOND)
    shard.run()
    newest = shard.records()[-1]
    assert (newest["kind"], newest["producer"], newest["session"]) == (CommandKind.TIME, 0, 1)
    events = shard.state.events[: shard.position]
    gone = events[(events["kind"] == EventKind.CANCELED)]
    assert gone["reason"].tolist() == [Reason.DEAD_MAN] * 2


def test_command_under_way_counts_before_its_sessions_deadline_fires() -> None:
    shard = dead_man_shard()
    shard.at(2 * SECOND + MS)
    shard.send(orders(1, first=3, logon=2))  # lay in the ring when the deadline came
    shard.run()
    assert CommandKind.TIME not in kinds(shard)
    shard.disk()
    shard.at(4 * SECOND + 2 * MS)
    shard.run()
    assert kinds(shard)[-1] == CommandKind.TIME


def test_pause_behind_a_closed_gate_moves_the_deadlines() -> None:
    shard = dead_man_shard()
    shard.staging.set(0, STORAGE, STORAGE_LOW)
    shard.at(SECOND)
    shard.send(orders(1, first=3, logon=2))
    shard.run()
    assert shard.shut
    shard.at(6 * SECOND)
    shard.staging.set(0, STORAGE, STORAGE_GOOD)
    shard.run()
    paused = shard.records()[shard.records()["kind"] == CommandKind.TIME]
    assert paused["amount"].tolist() == [5 * SECOND]
    assert not (shard.state.events["reason"][: shard.position] == Reason.DEAD_MAN).any()


def test_reset_waits_for_the_last_commands_of_its_producer() -> None:
    shard = dead_man_shard()
    shard.ports.loop[1] = 2  # producers 0 and 1
    shard.send(producer_reset(PRODUCER_SUPERVISOR, SECOND, end=shard.sent + 2))
    staged = shard.staged
    shard.run()
    assert shard.staged == staged, "the ring says there is more to come"


@pytest.mark.parametrize("hours", [1, -1])
def test_t1_wall_clock_jumps_are_counted_and_time_never_runs_back(hours: int) -> None:
    shard = Journaled(MODE_BATCH)
    shard.send(orders(1))
    shard.run()
    last = int(shard.state.hdr[IN_TS])
    for step in range(1, 50):
        ns = step * 10 * MS
        shard.ports.loop[FAKE_STEADY] = SECOND + ns
        shard.ports.loop[FAKE_WALL] = START + ns + hours * 3600 * SECOND
        shard.send(orders(1, first=1 + step))
        shard.run()
        shard.disk()
        assert 0 <= int(shard.state.hdr[IN_TS]) - last < SECOND, "slewed, not followed"
        last = int(shard.state.hdr[IN_TS])
    assert (shard.ports.loop[SLIPPED] + 1) // 2 == 1
    assert int(shard.state.hdr[IN_SEQ]) == shard.staged
