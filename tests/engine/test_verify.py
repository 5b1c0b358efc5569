"""`verify_shard`: what is right passes, what is wrong is found and said where (I20, I22, D2)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.disk_read import ReadOnlyDisk
from engine.file_header import FILE_HEADER_BYTES
from engine.kept_directory import KeptDirectory, open_kept
from engine.manifest import ManifestError
from engine.records import COMMAND, EVENT
from engine.rerun import Rerun
from engine.snapshot import snapshot_path
from engine.state_hash import state_hash
from engine.verify import verify_shard
from tests.engine.kept import (
    add_log,
    add_snapshots,
    all_events,
    config_of_world,
    flip,
    journal_records,
    make_directory,
    recorded_on,
)

COMMANDS = 700


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> KeptDirectory:
    """A directory with two snapshots and a whole event log."""
    world, commands = recorded_on(3, COMMANDS)
    path = str(tmp_path_factory.mktemp("kept") / "data")
    kept = make_directory(path, config_of_world(world), [commands])
    add_snapshots(kept, 0, (300, 600))
    add_log(kept, 0, all_events(kept, 0))
    return kept


@pytest.fixture
def kept(original: KeptDirectory, tmp_path: Path) -> KeptDirectory:
    """A copy to be spoiled."""
    shutil.copytree(original.path, tmp_path / "copy")
    return open_kept(str(tmp_path / "copy"))


def log_paths(kept: KeptDirectory) -> list[str]:
    return sorted(map(str, Path(kept.path, "shard0").glob("events-*")))


def test_all_that_is_there_is_held_against_the_replay(original: KeptDirectory) -> None:
    report = verify_shard(original, 0)
    assert (report.damages, report.differences, report.notes) == ([], [], [])
    assert report.commands == len(journal_records(original)) >= COMMANDS
    assert report.snapshots == [300, 600]
    assert report.log == (1, report.events)
    rerun = Rerun(original, 0).finish()
    assert report.state_hash == state_hash(rerun.state)
    assert report.event_crc == rerun.replay.event_crc
    assert report.seconds > 0
    assert report.speed == 0  # too few to tell


def test_from_a_snapshot_it_comes_to_the_same_end(original: KeptDirectory) -> None:
    whole, tail = verify_shard(original, 0), verify_shard(original, 0, from_snapshot=True)
    assert tail.begun == 600
    assert (tail.damages, tail.differences) == ([], [])
    assert (tail.state_hash, tail.event_crc, tail.commands, tail.events) == (
        whole.state_hash,
        whole.event_crc,
        whole.commands,
        whole.events,
    )
    assert tail.log[1] == whole.events


def test_nothing_in_the_directory_is_touched(kept: KeptDirectory) -> None:
    def picture() -> dict[str, tuple[int, bytes]]:
        files = [path for path in Path(kept.path).rglob("*") if path.is_file()]
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    for path in Path(kept.path).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)  # a backup's modes
    before = picture()
    assert not verify_shard(kept, 0).damages
    assert picture() == before


def test_a_flipped_bit_of_a_record_is_named_with_its_byte(kept: KeptDirectory) -> None:
    path = f"{kept.path}/shard0/journal-{1:020d}"
    offset = FILE_HEADER_BYTES + 99 * COMMAND.itemsize + 20
    flip(path, offset, 3)
    [damage] = verify_shard(kept, 0).damages
    assert f"{path}, byte {FILE_HEADER_BYTES + 99 * COMMAND.itemsize}: record 100" in damage


def test_a_torn_tail_is_reported_not_refused(kept: KeptDirectory) -> None:
    for path in (snapshot_path(kept.path, 0, 600), *log_paths(kept)):
        Path(path).unlink()
    last = len(journal_records(kept))
    newest = max(Path(kept.path, "shard0").glob("journal-*"))
    first = int(newest.name.removeprefix("journal-"))
    flip(str(newest), FILE_HEADER_BYTES + (last - first) * COMMAND.itemsize + 30)
    report = verify_shard(kept, 0)
    assert report.damages == []
    assert report.commands == last - 1
    assert any("torn tail: 192 bytes" in note for note in report.notes)


def test_a_missing_segment_is_a_gap(kept: KeptDirectory) -> None:
    segments = sorted(Path(kept.path, "shard0").glob("journal-*"))
    assert len(segments) > 2
    segments[1].unlink()
    [damage] = verify_shard(kept, 0).damages
    assert "(gap)" in damage


def test_a_damaged_snapshot_is_damage_and_the_rest_is_verified(kept: KeptDirectory) -> None:
    flip(snapshot_path(kept.path, 0, 600), 5000)
    report = verify_shard(kept, 0)
    assert len(report.damages) == 1
    assert "snapshot" in report.damages[0]
    assert report.snapshots == [300]
    again = verify_shard(kept, 0, from_snapshot=True)
    assert again.begun == 300


def test_a_snapshot_of_another_history_differs(kept: KeptDirectory) -> None:
    rerun = Rerun(kept, 0).finish(300)
    rerun.state.symbols["volume"][1] += 1
    path = snapshot_path(kept.path, 0, 300)
    from engine.disk import RealDisk
    from engine.snapshot import SnapshotExtra, snapshot_write
    from tests.engine.kept import EPOCH

    Path(path).unlink()
    extra = SnapshotExtra(300, rerun.replay.position, rerun.crc, rerun.replay.event_crc, 300, EPOCH)
    snapshot_write(RealDisk(), kept.path, 0, rerun.state, extra)
    [difference] = verify_shard(kept, 0).differences
    assert path in difference
    assert "symbols" in difference


@pytest.mark.parametrize("row", [0, 10, 299, 300, 450])
def test_a_flipped_bit_of_the_log_is_named_with_its_byte(kept: KeptDirectory, row: int) -> None:
    path = log_paths(kept)[row // 300]
    offset = FILE_HEADER_BYTES + row % 300 * EVENT.itemsize
    flip(path, offset + 41)
    report = verify_shard(kept, 0)
    assert report.damages == [f"{path}, byte {offset}: event {row + 1} is damaged (checksum)"]
    assert report.differences == []
    assert report.log == ((1, row) if row else (0, 0))


def test_a_whole_event_that_says_something_else_differs(kept: KeptDirectory) -> None:
    events = all_events(kept, 0)
    for path in log_paths(kept):
        Path(path).unlink()
    events["qty"][450] += 1
    paths = add_log(kept, 0, events)
    report = verify_shard(kept, 0)
    [difference] = report.differences
    offset = FILE_HEADER_BYTES + 150 * EVENT.itemsize
    assert f"{paths[1]}, byte {offset}: event 451 is not the replayed one: qty " in difference


def test_a_log_that_lags_or_has_lost_its_beginning_is_no_fault(kept: KeptDirectory) -> None:
    events = all_events(kept, 0)
    for path in log_paths(kept):
        Path(path).unlink()
    add_log(kept, 0, events[100:550])
    report = verify_shard(kept, 0)
    assert (report.damages, report.differences) == ([], [])
    assert report.log == (101, 550)


def test_a_hole_in_the_log_is_damage(kept: KeptDirectory) -> None:
    Path(log_paths(kept)[1]).unlink()
    [damage] = verify_shard(kept, 0).damages
    assert "events 301 to 600 are missing" in damage


def test_a_log_that_goes_on_behind_the_journal_is_said(kept: KeptDirectory) -> None:
    events = all_events(kept, 0)
    for path in log_paths(kept):
        Path(path).unlink()
    more = np.concatenate((events, events[-5:]))
    more["out_seq"] = np.arange(1, len(more) + 1)
    add_log(kept, 0, more)
    report = verify_shard(kept, 0)
    assert (report.damages, report.differences) == ([], [])
    assert any("behind the journal's end" in note for note in report.notes)


def test_what_is_no_data_directory_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is no data directory"):
        open_kept(str(tmp_path))


def test_a_shard_that_is_gone_is_damage(kept: KeptDirectory) -> None:
    shutil.rmtree(f"{kept.path}/shard0")
    [damage] = verify_shard(kept, 0).damages
    assert "there is no journal, although the directory was in use" in damage


def test_the_readers_disk_changes_nothing(tmp_path: Path) -> None:
    disk, path = ReadOnlyDisk(), str(tmp_path / "file")
    Path(path).write_bytes(bytes(8))
    handle = disk.open(path)
    refused: list[Callable[[], object]] = [
        lambda: disk.open(path, write=True),
        lambda: disk.create(path + "x", 1),
        lambda: disk.makedirs(path + "d"),
        lambda: disk.pwrite(handle, b"x", 0),
        lambda: disk.truncate(handle, 0),
        lambda: disk.allocate(handle, 99),
        lambda: disk.rename(path, path + "y"),
        lambda: disk.unlink(path),
        lambda: disk.lock(path + "l"),
    ]
    for act in refused:
        with pytest.raises(PermissionError, match="never written"):
            act()
    disk.close(handle)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        disk.open(str(tmp_path / "link"))
