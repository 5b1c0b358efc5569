"""Rows D3 to D6: the writer of the journal on a disk that loses, fills up and fails.

The rule behind all of them: what is recovered is a prefix of what was staged, record for record,
and has everything the writer has told to be durable (tests/sim/journal_run.py asserts it at every
start).
"""

from __future__ import annotations

import copy
import errno
import random
from collections.abc import Callable

import pytest

from engine.file_header import FILE_HEADER_BYTES
from engine.journal import SECOND_NS
from engine.staging import (
    DURABLE,
    STORAGE,
    STORAGE_FAILED,
    STORAGE_GOOD,
    STORAGE_LOW,
)
from tests.sim.journal_run import MODES, MS, PLACE, ROOM, SEGMENT_BYTES, JournalRun
from tests.sim.sim_disk import PowerCut, SimDisk
from tests.sim.stager import RECORD_BYTES


# ------------------------------------------------------------------------------ D3: lost writes
@pytest.mark.parametrize("mode", MODES)
def test_d3_power_cut_leaves_a_prefix_with_everything_durable(mode: str, seed: int) -> None:
    rng = random.Random(seed)
    lost = 0
    for _ in range(60):
        run = JournalRun(mode=mode, sync_ms=rng.choice((1, 10, 50)))
        run.start()
        for _ in range(3):
            run.wander(rng, rng.randint(1, 25))
            before = run.stager.in_seq
            run.power_cut(rng)
            run.start()
            lost += before - run.stager.in_seq
            if mode == "sync":
                assert run.stager.in_seq == before
        run.rings.close()
    assert (lost > 0) == (mode != "sync")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.later
def test_d3_any_sequence_of_deaths_at_any_operation(mode: str, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        keep = rng.choice((0, 0, 1, 3))
        run = JournalRun(mode=mode, sync_ms=rng.choice((1, 10)), retention_segments=keep)
        begin = run.start
        for _ in range(8):
            run.disk.cut_power(rng.randint(1, 60))
            started = False
            try:
                begin()
                started = True
                run.wander(rng, 30)
            except PowerCut:
                pass
            run.disk.heal()
            begin = death(run, rng, started or begin == run.resume) or begin
        run.rings.close()


def death(run: JournalRun, rng: random.Random, staging: bool) -> Callable[[], None] | None:
    """End the machine, all processes or the writer; returns how to start (None: try again)."""
    kind = rng.choice(("machine", "all", "writer"))
    if kind == "machine":
        run.power_cut(rng)
        return run.start
    run.kill()
    if not staging:  # the start had not come to an end: nothing may be told from the staging
        return None
    return run.start_with_staging if kind == "all" else run.resume


# ------------------------------------------------------------------------- D4, D5: failing disks
def script(run: JournalRun) -> None:
    """A start, three rotations, recycling, syncs: every kind of operation."""
    run.start()
    for count in range(1, 30):
        run.step(count % 11, 4 * MS)
        run.snapshot = run.rings.get(0, DURABLE) // 3


def count_operations() -> int:
    run = JournalRun(retention_segments=1)
    before = run.disk.operations
    script(run)
    assert len(run.segments) + run.writer._segments[0].rotations > 3  # type: ignore[union-attr]
    return run.disk.operations - before


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_d4_error_at_every_operation_stops_for_good_and_loses_nothing(
    error: int, forever: bool, seed: int
) -> None:
    rng = random.Random(seed)
    stopped = refused = 0
    for at in range(1, count_operations() + 1):
        run = JournalRun(retention_segments=1)
        run.disk.fail(at, error, forever)
        try:
            script(run)
        except OSError:
            refused += 1  # the start says so itself
        else:
            stopped += 1
            told = run.words[1:]
            run.disk.heal()
            assert run.writer.failed
            assert run.rings.get(0, STORAGE) == STORAGE_FAILED
            assert not run.writer.step(run.now_ns + SECOND_NS)
            assert not run.writer.flush(run.now_ns + SECOND_NS)
            assert run.words[1:] == told, "something was told after the failure"
        run.disk.heal()
        run.kill()
        if rng.random() < 0.5:
            run.power_cut(rng)
        run.start()
        for _ in range(3):  # also into the segments that were made ahead
            run.step(ROOM)
            run.step(0, 20 * MS)
        assert run.words[2] == run.stager.in_seq
        run.kill()
        run.power_cut(rng)
        run.start()  # checks that all of it is there
        run.rings.close()
    assert stopped > 50
    assert 5 < refused < 30


def test_d4_disk_that_is_full_says_low_before_it_fails() -> None:
    run = JournalRun(SimDisk(room=20 * SEGMENT_BYTES), free_bytes_min=8 * SEGMENT_BYTES)
    run.start()
    seen = set()
    while not run.writer.failed:
        run.step(30, 10 * MS)
        seen.add(run.rings.get(0, STORAGE))
        if seen == {STORAGE_GOOD, STORAGE_LOW}:
            low_at = run.stager.in_seq
            break
    while not run.writer.failed:
        run.step(30, 10 * MS)
    assert seen == {STORAGE_GOOD, STORAGE_LOW}
    assert run.stager.in_seq > low_at + 5 * ROOM, "there was room for all that was on its way"
    assert run.rings.get(0, STORAGE) == STORAGE_FAILED
    assert run.read().in_seq >= run.told


def test_d4_room_that_comes_back_opens_again() -> None:
    disk = SimDisk(room=20 * SEGMENT_BYTES)
    run = JournalRun(disk, free_bytes_min=8 * SEGMENT_BYTES)
    run.start()
    disk.close(disk.create("/data/big", 12 * SEGMENT_BYTES))
    run.step(1, SECOND_NS)
    assert (run.writer.low, run.rings.get(0, STORAGE)) == (True, STORAGE_LOW)
    disk.unlink("/data/big")
    run.step(1, SECOND_NS)
    assert (run.writer.low, run.rings.get(0, STORAGE)) == (False, STORAGE_GOOD)


@pytest.mark.parametrize("mode", MODES)
def test_d5_failed_sync_is_never_repeated_as_a_success(mode: str, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        run = JournalRun(mode=mode)
        run.start()
        run.wander(rng, rng.randint(1, 20))
        run.disk.fail(1, errno.EIO, names=("fdatasync",))
        while not run.writer.failed:
            run.step(5, SECOND_NS)
        durable = run.words[2]
        for _ in range(5):
            run.step(5, SECOND_NS)
        assert run.words[2] == durable
        run.power_cut(rng)
        run.start()
        run.rings.close()


# ------------------------------------------------- D6: crash while rotating, recycling and cutting
def test_d6_power_cut_at_every_operation_of_rotation_and_recycling(seed: int) -> None:
    rng = random.Random(seed)
    for at in range(1, count_operations() + 1):
        for _ in range(3):
            run = JournalRun(retention_segments=1)
            run.disk.cut_power(at)
            with pytest.raises(PowerCut):
                script(run)
            run.power_cut(rng)
            run.start()
            run.step(10)
            run.rings.close()


def test_d6_writer_dies_at_every_operation_of_rotation_and_then_the_power_fails(seed: int) -> None:
    rng = random.Random(seed)
    for at in range(1, 30):
        run = JournalRun(mode="sync", retention_segments=1)
        run.start()
        run.step(ROOM)  # everything is durable, the next record begins a segment
        run.disk.cut_power(at)
        with pytest.raises(PowerCut):
            run.wander(rng, 100)
        run.kill()
        run.resume()
        run.step(1)
        assert run.words == (run.stager.in_seq,) * 3
        for _ in range(5):
            store = copy.deepcopy(run.disk.store)
            run.power_cut(rng)
            assert run.read().in_seq == run.stager.in_seq
            run.disk = SimDisk(store=store)
        run.rings.close()


def torn_run(rng: random.Random) -> JournalRun:
    """A journal whose tail, over several segments, was lost in part."""
    while True:
        run = JournalRun(mode="os", sync_ms=10)
        run.start()
        run.step(20)
        for _ in range(6):
            run.step(40)
        run.power_cut(rng)
        if len(run.segments) > 2 and run.read().cut_bytes:
            return run
        run.rings.close()


@pytest.mark.later
def test_d6_power_cut_at_every_operation_of_cutting(seed: int) -> None:
    for tail in range(6):
        rng = random.Random(seed + tail)
        torn = torn_run(rng)
        for at in range(1, 200):
            run = JournalRun(SimDisk(store=copy.deepcopy(torn.disk.store)), mode="os")
            run.stager.history, run.told = bytearray(torn.stager.history), torn.told
            run.disk.cut_power(at)
            try:
                run.start()
            except PowerCut:
                run.power_cut(rng)
                run.start()
                run.step(70)
                run.power_cut(rng)
                run.start()
            else:
                break
            finally:
                run.rings.close()
        assert at > 8
        torn.rings.close()


def test_d6_nothing_behind_the_cut_is_left(seed: int) -> None:
    run = torn_run(random.Random(seed))
    run.start()
    end = run.stager.in_seq
    last = run.segments[-1]
    assert last <= end + 1
    content = run.disk.read(f"{PLACE}/journal-{last:020d}")
    assert len(content) == SEGMENT_BYTES
    assert not any(content[FILE_HEADER_BYTES + (end - last + 1) * RECORD_BYTES :])
