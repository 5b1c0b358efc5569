"""Snapshots: exact, small, judged before they are believed, and never lost to a crash (D6, D7)."""

from __future__ import annotations

import dataclasses
import errno
import random
import time

import numpy as np
import pytest

from engine import snapshot
from engine.book_check import check_state
from engine.book_state import (
    ARRAYS,
    EVENT_MASK,
    FATAL,
    IN_SEQ,
    OUT_POSITION,
    WORK_KIND,
    ShardState,
    allocate_state,
    state_bytes,
)
from engine.config import ShardLimits
from engine.disk import RealDisk
from engine.records import EVENT_SLOT
from engine.snapshot import (
    SnapshotExtra,
    limits_fingerprint,
    snapshot_list,
    snapshot_load,
    snapshot_path,
    snapshot_write,
)
from engine.state_hash import state_hash
from tests.engine.recorded import RING, Shard, empty_state, recorded
from tests.model.flow import World
from tests.sim.sim_disk import PowerCut, SimDisk

STORED = [name for name in ARRAYS if name not in ("order_words", "events", "event_words")]
COMMANDS = 300


def extra_of(state: ShardState, **changes: int) -> SnapshotExtra:
    hdr = state.hdr
    made = SnapshotExtra(int(hdr[IN_SEQ]), int(hdr[OUT_POSITION]), 11, (12, 13, 2**32 - 1), 14, 15)
    return dataclasses.replace(made, **changes)


def new_disk(shard: int = 0) -> SimDisk:
    disk = SimDisk()
    disk.makedirs(f"d/shard{shard}")
    disk.sync_dir("")
    disk.sync_dir("d")
    return disk


def load(
    disk: SimDisk, world: World, reasons: list[str] | None = None
) -> tuple[ShardState, SnapshotExtra] | None:
    events = np.zeros(RING, EVENT_SLOT)
    return snapshot_load(disk, "d", world.shard, world.limits, events=events, reasons=reasons)


def assert_equal(one: ShardState, other: ShardState) -> None:
    for name in STORED:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.hdr.tolist() == other.hdr.tolist()


@pytest.fixture(scope="module")
def busy() -> tuple[World, ShardState]:
    """A small shard with something in every corner."""
    world, commands = recorded(3, COMMANDS)
    shard = Shard(empty_state(world, seed=99), commands)
    while shard.index < COMMANDS // 2:
        shard.run(3)
    return world, shard.state


# ------------------------------------------------------------------------------------------- exact
@pytest.mark.parametrize("seed", range(6))
def test_snapshot_and_tail_equal_the_full_run_at_every_stop(seed: int) -> None:
    world, commands = recorded(seed, COMMANDS)
    whole = Shard(empty_state(world, seed=seed), commands)
    stops: list[tuple[SimDisk, int, int]] = []
    choose, works = random.Random(seed), 0
    while whole.more:
        whole.run(choose.choice((0, 2, 9)))
        working = bool(whole.state.hdr[WORK_KIND])
        if choose.random() < 0.12 or (working and works < 5):
            works += working
            disk = new_disk(world.shard)
            snapshot_write(disk, "d", world.shard, whole.state, extra_of(whole.state))
            found = load(disk, world)
            assert found is not None
            assert_equal(found[0], whole.state)
            assert found[1] == extra_of(whole.state)
            assert found[1].limits == limits_fingerprint(world.limits)
            stops.append((disk, whole.index, whole.out_seq))
    assert len(stops) > 2
    end = whole.out_seq
    for disk, index, out_seq in stops:
        found = load(disk, world)
        assert found is not None
        again = Shard(found[0], commands, index)
        events = again.finish()
        assert (again.in_seq, again.out_seq) == (whole.in_seq, end)
        assert state_hash(again.state) == state_hash(whole.state)
        kept = max(out_seq, end - RING)
        assert events[kept - out_seq :].tobytes() == whole.events(kept, end).tobytes()
        check_state(again.state)


def test_memory_is_used_as_given_and_the_ring_may_have_another_size(
    busy: tuple[World, ShardState],
) -> None:
    world, state = busy
    disk = new_disk(world.shard)
    snapshot_write(disk, "d", world.shard, state, extra_of(state))
    memory = np.full(state_bytes(world.limits), 0xA5, np.uint8)
    events = np.zeros(RING // 2, EVENT_SLOT)
    found = snapshot_load(disk, "d", world.shard, world.limits, memory=memory, events=events)
    assert found is not None
    loaded = found[0]
    assert np.shares_memory(loaded.orders, memory)
    assert loaded.hdr[EVENT_MASK] == RING // 2 - 1
    loaded.hdr[EVENT_MASK] = RING - 1
    assert_equal(loaded, state)


def test_an_empty_state_takes_no_pages_and_every_page_is_found_again() -> None:
    world, _ = recorded(3, COMMANDS)
    disk = new_disk(world.shard)
    state = empty_state(world, seed=5)
    snapshot_write(disk, "d", world.shard, state, extra_of(state))
    path = snapshot_path("d", world.shard, 0)
    assert disk.size(path) < 4096 + 2048
    choose = random.Random(8)
    for name in STORED:  # one changed byte anywhere, first and last ones too
        raw = getattr(state, name).view(np.uint8).reshape(-1)
        for place in (0, len(raw) - 1, choose.randrange(len(raw))):
            raw[place] ^= 0xFF
            snapshot_write(disk, "d", world.shard, state, extra_of(state))
            found = load(disk, world)
            assert found is not None
            assert_equal(found[0], state)
            raw[place] ^= 0xFF


@pytest.mark.later
def test_large_state_on_a_real_disk_is_quick(tmp_path: object) -> None:
    limits = ShardLimits()
    state, rng = allocate_state(limits), np.random.default_rng(4)
    for name in ("orders", "node_child", "levels"):
        raw = getattr(state, name).view(np.uint8)[: 1 << 24]
        raw[:] = rng.integers(0, 256, len(raw), np.uint8)
    disk = RealDisk()
    disk.makedirs(f"{tmp_path}/shard0")
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        snapshot_write(disk, str(tmp_path), 0, state, extra_of(state))
        found = snapshot_load(disk, str(tmp_path), 0, limits)
        times.append(time.perf_counter() - begun)
        assert found is not None
    assert min(times) < 3, times  # a tenth of it on a machine with nothing else to do
    for name in STORED:
        assert np.array_equal(
            getattr(found[0], name).view(np.uint8), getattr(state, name).view(np.uint8)
        ), name


# --------------------------------------------------------------------------------- what is refused
def test_a_state_that_is_halted_or_somewhere_else_is_not_written(
    busy: tuple[World, ShardState],
) -> None:
    world, state = busy
    disk, right = new_disk(world.shard), extra_of(state)
    for wrong in (
        dataclasses.replace(right, in_seq=right.in_seq + 1),
        dataclasses.replace(right, out_seq=right.out_seq - 1),
    ):
        with pytest.raises(ValueError, match="no snapshot of this"):
            snapshot_write(disk, "d", world.shard, state, wrong)
    with pytest.raises(ValueError, match="no snapshot of this"):
        snapshot_write(disk, "d", world.shard + 1, state, right)
    state.hdr[FATAL] = 1
    with pytest.raises(ValueError, match="no snapshot of this"):
        snapshot_write(disk, "d", world.shard, state, right)
    state.hdr[FATAL] = 0
    assert snapshot_list(disk, "d", world.shard) == []


def refusal(disk: SimDisk, shard: int, limits: ShardLimits) -> str:
    reasons: list[str] = []
    assert snapshot_load(disk, "d", shard, limits, reasons=reasons) is None
    assert len(reasons) == 1
    return reasons[0]


def test_d9_d11_other_limits_layout_rules_shard_and_names_are_refused(
    busy: tuple[World, ShardState], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, state = busy
    shard, limits = world.shard, world.limits
    disk = new_disk(shard)
    snapshot_write(disk, "d", shard, state, extra_of(state))
    assert load(disk, world) is not None
    for field in dataclasses.fields(limits):
        other = dataclasses.replace(limits, **{field.name: getattr(limits, field.name) + 1})
        if field.name in ("batch_max", "events_per_command_max"):
            assert snapshot_load(disk, "d", shard, other) is not None
        else:
            assert "limits" in refusal(disk, shard, other)
    for name in ("LAYOUT_FINGERPRINT", "RULES_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(f"engine.file_header.{name}", 77)
            assert ("layouts" in refusal(disk, shard, limits)) == (name == "LAYOUT_FINGERPRINT")
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "state_fingerprint", lambda: 77)
        assert "layout of the state" in refusal(disk, shard, limits)
    path = snapshot_path("d", shard, extra_of(state).in_seq)
    disk.rename(path, snapshot_path("d", shard, 1))
    assert "renamed" in refusal(disk, shard, limits)
    disk.makedirs(f"d/shard{shard + 1}")
    handle = disk.create(snapshot_path("d", shard + 1, 1), 0)
    disk.pwrite(handle, disk.read(snapshot_path("d", shard, 1)), 0)
    assert f"shard {shard}" in refusal(disk, shard + 1, limits)


def test_d11_a_moved_word_of_the_header_is_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot.state_fingerprint()
    monkeypatch.setattr("engine.book_state.FEED_SEQ", 6)
    snapshot.state_fingerprint.cache_clear()
    assert snapshot.state_fingerprint() != before
    snapshot.state_fingerprint.cache_clear()


def test_d7_every_flipped_bit_and_every_cut_is_found(busy: tuple[World, ShardState]) -> None:
    world, state = busy
    disk = new_disk(world.shard)
    snapshot_write(disk, "d", world.shard, state, extra_of(state))
    path = snapshot_path("d", world.shard, extra_of(state).in_seq)
    good, choose = disk.read(path), random.Random(6)
    header_and_meta = [(byte, choose.randrange(8)) for byte in range(0, 8192, 7)]
    anywhere = [(choose.randrange(len(good)), choose.randrange(8)) for _ in range(1500)]
    last = [(len(good) - 1 - i // 8, i % 8) for i in range(64)]
    for byte, bit in header_and_meta + anywhere + last:
        disk.overwrite(path, bytes([good[byte] ^ 1 << bit]), byte)
        assert path in refusal(disk, world.shard, world.limits), (byte, bit)
        disk.overwrite(path, good[byte : byte + 1], byte)
    assert load(disk, world) is not None
    for cut in [0, 1, 4095, 4096, 4104, len(good) - 8, len(good) - 1] + [
        choose.randrange(len(good)) for _ in range(200)
    ]:
        disk.overwrite(path, b"", 0, size=cut)
        refusal(disk, world.shard, world.limits)
        disk.overwrite(path, good, 0)
    disk.overwrite(path, bytes(8), len(good))
    assert "were written" in refusal(disk, world.shard, world.limits)


# ------------------------------------------------------------------------------ which ones are kept
def states_of(world: World, commands: np.ndarray, count: int) -> list[tuple[int, Shard]]:
    """The shard at a number of places, as separate states."""
    found = []
    for number in range(1, count + 1):
        shard = Shard(empty_state(world), commands)
        until = len(commands) * number // count
        while shard.index < until or shard.state.hdr[WORK_KIND]:
            shard.run(500, until)
        found.append((shard.in_seq, shard))
    return found


@pytest.fixture(scope="module")
def four() -> tuple[World, list[ShardState]]:
    world, commands = recorded(1, COMMANDS)
    return world, [shard.state for _, shard in states_of(world, commands, 4)]


def write_all(disk: SimDisk, world: World, states: list[ShardState]) -> list[int]:
    return [snapshot_write(disk, "d", world.shard, s, extra_of(s)) for s in states]


def damage(disk: SimDisk, path: str, byte: int = 5000) -> None:
    disk.overwrite(path, bytes([disk.read(path)[byte] ^ 0x10]), byte)


def test_two_are_kept_and_leftovers_go(four: tuple[World, list[ShardState]]) -> None:
    world, states = four
    disk = new_disk(world.shard)
    folder = f"d/shard{world.shard}"
    disk.close(disk.create(f"{folder}/snapshot-00000000000000000007.tmp", 4096))
    disk.close(disk.create(f"{folder}/journal-00000000000000000001", 4096))
    numbers = write_all(disk, world, states[:3])
    assert snapshot_list(disk, "d", world.shard) == [numbers[2], numbers[1]]
    assert disk.listdir(folder)[0].startswith("journal")
    assert len(disk.listdir(folder)) == 3


def test_d7_damaged_newest_leads_to_the_one_before_and_both_damaged_to_none(
    four: tuple[World, list[ShardState]],
) -> None:
    world, states = four
    disk = new_disk(world.shard)
    numbers = write_all(disk, world, states[:2])
    newest, before = (snapshot_path("d", world.shard, n) for n in reversed(numbers))
    reasons: list[str] = []
    damage(disk, newest)
    found = load(disk, world, reasons)
    assert found is not None
    assert found[1].in_seq == numbers[0]
    assert_equal(found[0], states[0])
    assert len(reasons) == 1
    assert newest in reasons[0]
    disk.overwrite(before, b"", size=4096)
    reasons.clear()
    assert load(disk, world, reasons) is None
    assert [newest in reasons[0], before in reasons[1]] == [True, True]


def test_d7_a_damaged_one_does_not_push_out_the_one_it_is_kept_for(
    four: tuple[World, list[ShardState]],
) -> None:
    world, states = four
    disk = new_disk(world.shard)
    numbers = write_all(disk, world, states[:2])
    damage(disk, snapshot_path("d", world.shard, numbers[1]))
    numbers += write_all(disk, world, states[2:3])
    assert snapshot_list(disk, "d", world.shard) == [numbers[2], numbers[0]]


def test_the_same_place_may_be_written_again(four: tuple[World, list[ShardState]]) -> None:
    world, states = four
    disk = new_disk(world.shard)
    numbers = write_all(disk, world, [states[0], states[1], states[1]])
    assert snapshot_list(disk, "d", world.shard) == [numbers[1], numbers[0]]


# ------------------------------------------------------------------------------------ crashes (D6)
def operations_of_a_write(four: tuple[World, list[ShardState]]) -> int:
    world, states = four
    disk = new_disk(world.shard)
    write_all(disk, world, states[:2])
    before = disk.operations
    write_all(disk, world, states[2:3])
    return disk.operations - before


@pytest.mark.later
def test_d6_a_crash_at_every_operation_leaves_a_good_snapshot(
    four: tuple[World, list[ShardState]],
) -> None:
    world, states = four
    operations = operations_of_a_write(four)
    assert operations > 10
    outcomes = set()
    for cut in range(1, operations + 2):
        for seed in range(5):
            disk = new_disk(world.shard)
            numbers = write_all(disk, world, states[:2])
            finished = False
            if cut <= operations:
                disk.cut_power(cut)
                with pytest.raises(PowerCut):
                    write_all(disk, world, states[2:3])
            else:
                numbers += write_all(disk, world, states[2:3])
                finished = True
            disk.crash(random.Random(seed * 1000 + cut))
            reasons: list[str] = []
            found = load(disk, world, reasons)
            assert found is not None
            assert not reasons
            number = found[1].in_seq
            assert number == numbers[2] if finished else number >= numbers[1]
            outcomes.add(number)
            assert_equal(found[0], states[2] if number > numbers[1] else states[1])
            # Life goes on, whatever the crash left lying about.
            last = write_all(disk, world, states[3:])[0]
            assert snapshot_list(disk, "d", world.shard)[0] == last
            names = disk.listdir(f"d/shard{world.shard}")
            assert len(names) == 2, names
    assert len(outcomes) == 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.later
def test_d4_a_failing_operation_is_an_error_and_leaves_the_earlier_ones(
    four: tuple[World, list[ShardState]], error: int
) -> None:
    world, states = four
    failures = 0
    for at in range(1, operations_of_a_write(four) + 1):
        disk = new_disk(world.shard)
        numbers = write_all(disk, world, states[:2])
        disk.fail(at, error)
        failed = 0
        try:
            write_all(disk, world, states[2:3])
        except OSError as raised:
            failed = raised.errno or 0
        assert failed in (0, error)
        failures += failed == error
        found = load(disk, world)
        assert found is not None
        if failed:
            assert found[1].in_seq >= numbers[1]
        else:  # only what removes superfluous files may fail unnoticed
            assert found[1].in_seq > numbers[1]
        disk.heal()
        write_all(disk, world, states[3:])
        assert len(disk.listdir(f"d/shard{world.shard}")) == 2
    assert failures >= 8


def test_a_full_disk_gives_its_room_back(four: tuple[World, list[ShardState]]) -> None:
    world, states = four
    disk = new_disk(world.shard)
    write_all(disk, world, states[:1])
    disk.store.room = disk.size(
        snapshot_path("d", world.shard, snapshot_list(disk, "d", world.shard)[0])
    )
    free = disk.free_bytes("d")
    with pytest.raises(OSError, match="No space"):
        write_all(disk, world, states[1:2])
    assert disk.free_bytes("d") == free
