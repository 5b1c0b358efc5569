"""The writer of the journal: what it tells when, where it begins, what it keeps; row D10."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from engine.config import Journal
from engine.crc32c import CRC_START
from engine.disk import RealDisk
from engine.file_header import FILE_HEADER_BYTES, header_bytes, header_read
from engine.journal import SECOND_NS, JournalWriter
from engine.journal_files import journal_name
from engine.journal_reader import JournalDamage, journal_read
from engine.staging import (
    DURABLE,
    STAGED,
    STORAGE,
    STORAGE_FAILED,
    StagingRings,
)
from tests.sim.journal_run import DIRECTORY, MODES, MS, PLACE, ROOM, SEGMENT_BYTES, JournalRun
from tests.sim.sim_time import STARTS_AT
from tests.sim.stager import RECORD_BYTES, Stager


# ---------------------------------------------------------------------------------- when it syncs
def test_batch_tells_written_at_once_and_durable_after_sync_ms() -> None:
    run = JournalRun(mode="batch", sync_ms=10)
    run.start()
    run.step(5)
    assert run.words == (5, 5, 5)  # nothing was unsynced for long: it syncs at once
    run.step(5)
    assert run.words == (10, 10, 5)
    assert run.writer.due_ns == run.now_ns + 9 * MS
    run.step(0, 8 * MS)
    assert run.words == (10, 10, 5)
    run.step(1, 1 * MS)
    assert run.words == (11, 11, 11)


def test_sync_tells_durable_in_the_step_that_writes() -> None:
    run = JournalRun(mode="sync")
    run.start()
    for count in range(1, 100):
        run.step(1, 1)
        assert run.words == (count, count, count)


def test_os_tells_written_at_once_and_durable_each_second() -> None:
    run = JournalRun(mode="os")
    run.start()
    run.step(1)
    for _ in range(9):
        run.step(100, 100 * MS)
    assert run.words == (901, 901, 1)
    run.step(0, 100 * MS)
    assert run.words == (901, 901, 901)


def test_step_without_work_says_so_and_touches_no_file() -> None:
    run = JournalRun()
    run.start()
    run.step(5)
    run.step(0, 20 * MS)
    run.step(0)
    before = run.disk.operations
    assert not run.writer.step(run.now_ns)
    assert run.disk.operations == before


def test_flush_makes_everything_durable_in_every_mode() -> None:
    for mode in MODES:
        run = JournalRun(mode=mode)
        run.start()
        run.step(1)
        run.stager.stage(100)
        assert run.writer.flush(run.now_ns)
        assert run.words == (101, 101, 101)


def test_ring_wrap_needs_no_more_than_two_writes_in_a_segment() -> None:
    run = JournalRun(capacity=32)
    run.start()
    for _ in range(20):
        start = len(run.disk.store.trace)
        run.step(27, 10 * MS)
        writes = [t for t in run.disk.store.trace[start:] if t.startswith("pwrite")]
        assert len(writes) <= 2 * 2 + 1  # two pieces, two segments, one header
    assert run.read().in_seq == 20 * 27


def test_next_segment_is_made_ahead() -> None:
    run = JournalRun()
    run.start()
    run.step(1)
    start = len(run.disk.store.trace)
    for _ in range(ROOM):
        run.step(1)
    made = [t for t in run.disk.store.trace[start:] if t.startswith("create")]
    assert run.segments == [1, 65]
    assert len(made) == 1, "the rotation itself made no file, only the one for the next"


# ----------------------------------------------------------------------- what a file says of itself
def made_at(run: JournalRun) -> list[int]:
    """When each segment says it was made."""
    paths = [f"{PLACE}/{journal_name(first)}" for first in run.segments]
    return [header_read(run.disk.read(path), "journal", 0).created_ns for path in paths]


def test_every_segment_says_by_the_wall_clock_when_it_was_made() -> None:
    run = JournalRun()
    run.start()
    run.step(ROOM, 5 * MS)
    run.step(1, 5 * MS)
    assert made_at(run) == [STARTS_AT, STARTS_AT + 10 * MS]
    run.now_ns += SECOND_NS
    run.kill()
    run.resume()  # what the dead writer has made stays what it is
    assert made_at(run) == [STARTS_AT, STARTS_AT + 10 * MS]


def test_without_a_clock_of_a_simulation_it_is_the_machines(tmp_path: Path) -> None:
    rings, disk = StagingRings.private(1, 64), RealDisk()
    before = time.time_ns()
    writer = JournalWriter(disk, str(tmp_path), 1, rings, Journal(free_bytes_min=0), 1)
    writer.open(0, 0, CRC_START)
    writer.close()
    page = (tmp_path / "shard0" / journal_name(1)).read_bytes()
    assert before <= header_read(page, "journal", 0).created_ns <= time.time_ns()


# -------------------------------------------------------------------------- staged, but not sound
def test_overrun_ring_is_not_written() -> None:
    run = JournalRun(capacity=32)
    run.start()
    run.rings.set(0, STAGED, 33)
    run.writer.step(run.now_ns)
    assert "overwritten" in run.writer.failed
    assert run.words == (33, 0, 0)


@pytest.mark.parametrize("field", ["amount", "in_seq", "epoch", "layout_version", "crc"])
def test_staged_record_that_does_not_verify_is_not_written(field: str) -> None:
    run = JournalRun()
    run.start()
    run.step(5)
    run.stager.stage(3)
    run.rings.slots[field][6] ^= 1
    before = run.disk.operations
    run.step(0)
    assert "does not continue the chain" in run.writer.failed
    assert run.rings.get(0, STORAGE) == STORAGE_FAILED
    assert run.disk.operations == before
    assert run.read().in_seq == 5


# ------------------------------------------------------------------------------- where it begins
def test_start_refuses_another_end_than_the_files_have() -> None:
    run = JournalRun()
    run.start()
    run.step(10)
    for in_seq, crc in ((10, run.stager.crc ^ 1), (9, run.stager.crc), (11, run.stager.crc)):
        run.kill()
        with pytest.raises(JournalDamage):
            JournalWriter(run.disk, DIRECTORY, 1, run.rings, run.config, 2).open(0, in_seq, crc)
    run.kill()
    assert run.read().in_seq == 10, "nothing was cut before the refusal"


def test_start_may_end_with_a_full_segment() -> None:
    run = JournalRun()
    run.start()
    run.step(ROOM)
    run.kill()
    run.start()
    assert run.stager.in_seq == ROOM
    run.step(1)
    assert run.segments == [1, ROOM + 1]
    assert run.read().in_seq == ROOM + 1


@pytest.mark.parametrize("mode", MODES)
def test_resumed_writer_writes_again_from_durable_and_takes_nothing_back(mode: str) -> None:
    run = JournalRun(mode=mode, sync_ms=50)
    run.start()
    run.step(ROOM - 5)
    run.step(40)
    told = run.words
    run.kill()
    run.stager.stage(7)
    run.resume()
    assert run.words[1:] == told[1:]
    assert run.read().in_seq == ROOM + 35, "a reader behind `written` finds what was told"
    run.step(0)
    run.step(0, SECOND_NS)
    assert run.words == (ROOM + 42,) * 3
    assert run.read().in_seq == ROOM + 42


def test_resumed_writer_repairs_what_never_reached_the_disk(seed: int) -> None:
    run = JournalRun(mode="batch", sync_ms=50)
    run.start()
    run.step(10)
    run.step(30)
    assert run.words[2] == 10
    path = f"{PLACE}/journal-{1:020d}"
    run.kill()
    run.disk.overwrite(path, bytes(8 * RECORD_BYTES), FILE_HEADER_BYTES + 15 * RECORD_BYTES)
    run.resume()
    run.step(1, 60 * MS)
    assert run.words == (41, 41, 41)
    run.power_cut(random.Random(seed))
    assert run.read().in_seq == 41


def test_resumed_writer_of_mode_os_begins_where_slots_were_given_back(seed: int) -> None:
    run = JournalRun(mode="os", capacity=32)
    run.start()
    for _ in range(5):
        run.step(30)
    assert run.words == (150, 150, 30)
    run.kill()
    run.resume()
    run.step(5, SECOND_NS)
    assert run.words == (155, 155, 155), run.writer.failed
    run.power_cut(random.Random(seed))
    assert run.read().in_seq == 155


def test_resumed_writer_refuses_a_segment_of_another_course() -> None:
    run = JournalRun(mode="batch", sync_ms=50)
    run.start()
    run.step(ROOM - 4)
    run.step(10)
    run.kill()
    path = f"{PLACE}/journal-{ROOM + 1:020d}"
    header = header_read(run.disk.read(path), "journal", 0)
    run.disk.overwrite(path, header_bytes(header._replace(chain_crc=7)))
    run.resume()
    run.step(1)
    assert "does not continue" in run.writer.failed
    assert run.words[2] == ROOM - 4


def test_writer_that_runs_locks_out_another() -> None:
    run = JournalRun()
    run.start()
    other = run.disk.process()
    writer = JournalWriter(other, DIRECTORY, 1, run.rings, run.config, 2)
    for begin in (lambda: writer.open(0, 0, CRC_START), lambda: writer.resume(0)):
        with pytest.raises(BlockingIOError, match="locked"):
            begin()
    run.kill()
    writer.resume(0)
    writer.close()


# ------------------------------------------------------------------------------------- recycling
def test_recycled_segments_never_let_old_records_live_again(seed: int) -> None:
    rng = random.Random(seed)
    run = JournalRun(retention_segments=1, segment_bytes=SEGMENT_BYTES)
    run.start()
    recycled = 0
    for _ in range(120):
        run.step(rng.randint(1, 60), 10 * MS)
        run.snapshot = run.rings.get(0, DURABLE)
        last = run.segments[-1]
        content = run.disk.read(f"{PLACE}/journal-{last:020d}")
        end = FILE_HEADER_BYTES + (run.stager.in_seq - last + 1) * RECORD_BYTES
        recycled += any(content[end:])
        found = run.read()
        assert (found.in_seq, found.cut_bytes) == (run.stager.in_seq, 0)
        if rng.random() < 0.2:
            run.power_cut(rng)
            run.start()
    assert recycled > 20, "no segment with old records in it was seen"


def test_retention_keeps_what_is_needed_and_what_was_asked_for() -> None:
    run = JournalRun(retention_segments=2)
    run.start()
    for _ in range(20):
        run.step(ROOM, 10 * MS)
    assert len(run.segments) == 20, "no snapshot: everything is needed"
    run.snapshot = 5 * ROOM + 10
    for _ in range(30):
        run.step(0, 10 * MS)
    assert run.segments[0] == 5 * ROOM + 1
    run.snapshot = 20 * ROOM
    for _ in range(30):
        run.step(0, 10 * MS)
    assert run.segments == [18 * ROOM + 1, 19 * ROOM + 1]


def test_segment_that_is_not_durable_is_not_recycled() -> None:
    run = JournalRun(mode="os", retention_segments=1)
    run.start()
    run.step(1)
    run.snapshot = 10**6
    for _ in range(10):
        run.step(ROOM, 1 * MS)
    assert len(run.segments) == 11
    run.step(0, SECOND_NS)
    for _ in range(15):
        run.step(0, 1 * MS)
    assert len(run.segments) == 1


def test_without_retention_every_segment_is_kept() -> None:
    run = JournalRun()
    run.start()
    run.snapshot = 10**6
    for _ in range(20):
        run.step(ROOM, 10 * MS)
    run.snapshot = 0
    assert len(run.segments) == 20
    assert run.read().in_seq == 20 * ROOM


def test_spares_of_another_writer_go() -> None:
    run = JournalRun()
    run.start()
    run.step(1)
    run.kill()
    run.disk.rename(f"{PLACE}/spare-2", f"{PLACE}/spare-7")
    run.disk.close(run.disk.create(f"{PLACE}/spare-3", 4096))
    run.start()
    assert [n for n in run.disk.listdir(PLACE) if n.startswith("spare")] == []


# -------------------------------------------------------------------------------- D10: slow disks
@pytest.mark.parametrize("mode", MODES)
def test_d10_slow_sync_tells_nothing_that_came_while_it_ran(mode: str) -> None:
    run = JournalRun(mode=mode)
    run.start()
    run.step(1)
    before = []

    def meanwhile() -> None:
        before.append(run.words)
        run.stager.stage(9)

    run.disk.store.sync_ns, run.disk.store.on_sync = 2 * SECOND_NS, meanwhile
    for staged in (5, 18, 31):  # 4 before each sync, 9 while it runs
        run.step(4, SECOND_NS)
        assert run.words == (staged + 9, staged, staged)
    assert before == [(5, 5, 1), (18, 18, 5), (31, 31, 18)]


def test_d10_slow_disk_bounds_what_is_staged_and_loses_nothing(seed: int) -> None:
    rng = random.Random(seed)
    run = JournalRun(mode="batch", sync_ms=10, capacity=32)
    run.start()
    run.step(1)
    taken = [run.stager.stage(20) for _ in range(3)]
    assert taken == [20, 12, 0], "no slot is free before it is durable"
    run.disk.store.on_sync = lambda: taken.append(run.stager.stage(20))
    run.step(0, 10 * MS)
    assert taken[-1] == 0, "nor while the disk is at work"
    run.disk.store.on_sync = None
    assert run.stager.stage(20) == 20
    run.power_cut(rng)
    run.start()
    assert run.stager.in_seq == 33


# ----------------------------------------------------------------------------------- a real disk
@pytest.mark.parametrize("mode", MODES)
def test_two_shards_on_a_real_disk(mode: str, tmp_path: Path) -> None:
    disk, directory = RealDisk(), str(tmp_path / "data")
    config = Journal(mode=mode, segment_bytes=SEGMENT_BYTES, free_bytes_min=0)
    rings = StagingRings.private(2, 256)
    for epoch in (1, 2):
        writer = JournalWriter(disk, directory, 2, rings, config, epoch)
        stagers = []
        for shard in range(2):
            stager = Stager(rings, shard, epoch, mode=mode)
            found = journal_read(disk, directory, shard)
            stager.history += b"".join(chunk.tobytes() for chunk in found)
            stager.crc = found.crc
            writer.open(shard, found.in_seq, found.crc)
            rings.begin(shard, found.in_seq)
            stagers.append(stager)
        for step in range(20):
            for stager in stagers:
                stager.stage(17 + stager.shard)
            writer.step(step * 10 * MS)
        assert writer.flush(SECOND_NS)
        assert not writer.failed
        for stager in stagers:
            assert stager.durable == stager.in_seq == epoch * 20 * (17 + stager.shard)
            found = journal_read(disk, directory, stager.shard)
            assert b"".join(chunk.tobytes() for chunk in found) == stager.history
        writer.close()
    rings.close()
