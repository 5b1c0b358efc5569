"""The simulated disk does what it says: it keeps what was synced, and loses the rest in any way."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from tests.sim.sim_disk import SECTOR, PowerCut, SimDisk

CASES = 60


def made_disk() -> tuple[SimDisk, int]:
    """A disk with one durable file of eight sectors, all of them `a`."""
    disk = SimDisk()
    disk.makedirs("/d")
    handle = disk.create("/d/file", 8 * SECTOR)
    disk.pwrite(handle, b"a" * 8 * SECTOR, 0)
    disk.fdatasync(handle)
    disk.sync_dir("/d")
    disk.sync_dir("/")
    return disk, handle


def after_crash(change: Callable[[SimDisk, int], None]) -> set[bytes | tuple[str, ...]]:
    """Contents of the file, or the names when it is gone, over many crashes."""
    seen: set[bytes | tuple[str, ...]] = set()
    for seed in range(CASES):
        disk, handle = made_disk()
        change(disk, handle)
        disk.crash(random.Random(seed))
        there = disk.exists("/d/file")
        seen.add(disk.read("/d/file") if there else tuple(disk.listdir("/d")))
    return seen


def test_synced_content_outlives_a_crash() -> None:
    def change(disk: SimDisk, handle: int) -> None:
        disk.pwrite(handle, b"b" * SECTOR, SECTOR)
        disk.fdatasync(handle)

    assert after_crash(change) == {b"a" * SECTOR + b"b" * SECTOR + b"a" * 6 * SECTOR}


def test_unsynced_sectors_are_kept_lost_reordered_and_torn() -> None:
    def change(disk: SimDisk, handle: int) -> None:
        disk.pwrite(handle, b"b" * 3 * SECTOR, 0)

    seen = [content for content in after_crash(change) if isinstance(content, bytes)]
    sectors = {tuple(c[i * SECTOR : (i + 1) * SECTOR] for i in range(3)) for c in seen}
    old, new = b"a" * SECTOR, b"b" * SECTOR
    assert (old, old, old) in sectors
    assert (new, new, new) in sectors
    assert any(first == old and last == new for first, _, last in sectors), "reordered"
    assert any(s not in (old, new) for three in sectors for s in three), "torn"
    assert all(c[3 * SECTOR :] == b"a" * 5 * SECTOR for c in seen)


def test_unsynced_sector_may_keep_any_of_its_contents() -> None:
    def change(disk: SimDisk, handle: int) -> None:
        for letter in (b"b", b"c"):
            disk.pwrite(handle, letter * SECTOR, 0)

    first = {content[:SECTOR] for content in after_crash(change) if isinstance(content, bytes)}
    assert {letter * SECTOR for letter in (b"a", b"b", b"c")} <= first


def test_truncation_counts_after_a_sync_only() -> None:
    def cut(disk: SimDisk, handle: int) -> None:
        disk.truncate(handle, SECTOR)
        disk.allocate(handle, 8 * SECTOR)

    def cut_and_sync(disk: SimDisk, handle: int) -> None:
        cut(disk, handle)
        disk.fdatasync(handle)

    assert len(after_crash(cut)) > 5
    assert after_crash(cut_and_sync) == {b"a" * SECTOR + bytes(7 * SECTOR)}


def test_names_count_after_a_sync_of_the_directory_only() -> None:
    def rename(disk: SimDisk, handle: int) -> None:
        disk.rename("/d/file", "/d/other")

    def rename_and_sync(disk: SimDisk, handle: int) -> None:
        rename(disk, handle)
        disk.sync_dir("/d")

    content = b"a" * 8 * SECTOR
    assert after_crash(rename) == {content, ("other",)}
    assert after_crash(rename_and_sync) == {("other",)}
    assert after_crash(lambda disk, handle: disk.unlink("/d/file")) == {content, ()}


def test_changes_of_a_directory_may_be_reordered() -> None:
    seen = set()
    for seed in range(CASES):
        disk, _ = made_disk()
        for name in ("/d/x", "/d/y"):
            disk.close(disk.create(name, 0))
        disk.crash(random.Random(seed))
        seen.add(tuple(disk.listdir("/d")))
    assert seen == {("file",), ("file", "x"), ("file", "y"), ("file", "x", "y")}


def test_directory_whose_name_was_not_synced_may_be_gone() -> None:
    disk = SimDisk()
    disk.makedirs("/d")
    disk.close(disk.create("/d/file", 8))
    disk.sync_dir("/d")
    seen = set()
    for seed in range(CASES):
        other = SimDisk()
        other.makedirs("/d")
        other.close(other.create("/d/file", 8))
        other.sync_dir("/d")
        other.crash(random.Random(seed))
        seen.add(other.exists("/d/file"))
    assert seen == {False, True}


def test_failed_sync_loses_what_a_later_sync_no_longer_covers() -> None:
    disk, handle = made_disk()
    disk.pwrite(handle, b"b" * SECTOR, 0)
    disk.fail(1, errno.EIO, names=("fdatasync",))
    with pytest.raises(OSError, match="Input/output"):
        disk.fdatasync(handle)
    disk.fdatasync(handle)
    assert disk.pread(handle, 1, 0) == b"b"
    disk.crash(random.Random(1))
    assert disk.read("/d/file")[:1] == b"a"


def test_forgetting_keeps_what_is_dirty_and_drops_what_a_failed_sync_has_left_clean() -> None:
    disk = SimDisk()
    handle = disk.create("f", SECTOR)
    disk.pwrite(handle, b"1" * SECTOR, 0)
    disk.forget(handle)
    assert disk.pread(handle, 1, 0) == b"1"
    disk.fdatasync(handle)
    disk.forget(handle)
    assert disk.pread(handle, 1, 0) == b"1"
    disk.pwrite(handle, b"2" * SECTOR, 0)
    disk.fail(1, errno.EIO)
    with pytest.raises(OSError, match="error"):
        disk.fdatasync(handle)
    disk.heal()
    assert disk.pread(handle, 1, 0) == b"2"
    disk.forget(handle)
    assert disk.pread(handle, 1, 0) == b"1"


def test_failures_come_when_asked_for() -> None:
    disk, handle = made_disk()
    disk.fail(2, errno.ENOSPC)
    disk.pwrite(handle, b"b", 0)
    with pytest.raises(OSError, match="No space"):
        disk.pwrite(handle, b"bb", 1)
    assert disk.pread(handle, 4, 0) == b"bbaa", "half of the failed write was done"
    disk.fail(1, errno.EIO, forever=True)
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            disk.pwrite(handle, b"b", 0)
    disk.heal()
    disk.cut_power(1)
    with pytest.raises(PowerCut):
        disk.pwrite(handle, b"b", 0)


def test_full_disk_refuses_and_a_refused_file_is_not_there() -> None:
    disk = SimDisk(room=4096)
    disk.close(disk.create("/x", 3000))
    with pytest.raises(OSError, match="No space"):
        disk.create("/y", 3000)
    assert disk.listdir("/") == ["x"]
    assert disk.free_bytes("/") == 1096


def test_processes_share_files_but_neither_handles_nor_locks() -> None:
    disk, handle = made_disk()
    other = disk.process()
    other.lock("/d/lock")
    with pytest.raises(BlockingIOError):
        disk.lock("/d/lock")
    disk.pwrite(handle, b"z", 0)
    opened = other.open("/d/file")
    assert other.pread(opened, 1, 0) == b"z"
    other.kill()
    with pytest.raises(OSError, match="Bad file"):
        other.pread(opened, 1, 0)
    assert disk.pread(handle, 1, 0) == b"z"
    disk.lock("/d/lock")
