"""The interface to files, and the page every kept file begins with."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from engine.crc32c import crc32c
from engine.disk import Disk, RealDisk
from engine.file_header import (
    FILE_HEADER,
    FILE_HEADER_BYTES,
    FileHeader,
    FileRefused,
    header_bytes,
    header_read,
)
from engine.records import COMMAND
from tests.sim.sim_disk import SimDisk

HEADER = FileHeader("journal", 3, 17, 0xFFFFFFFF, 5, 123, 1 << 20)


# -------------------------------------------------------------------------------------- real files
def test_files_and_directories_are_private_under_any_umask(tmp_path: Path) -> None:
    disk, place = RealDisk(), tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        disk.makedirs(str(place))
        disk.close(disk.create(str(place / "file"), 4096))
        disk.close(disk.lock(str(place / "lock")))
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (place.parent, place)]
    assert modes == [0o700, 0o700]
    assert [stat.S_IMODE(p.stat().st_mode) for p in sorted(place.iterdir())] == [0o600, 0o600]


def test_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o640)
    with pytest.raises(PermissionError, match="0640"):
        RealDisk().open(str(path))


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for call in (RealDisk().open, RealDisk().lock, lambda p: RealDisk().create(p, 1)):
        with pytest.raises(OSError, match="link"):
            call(str(tmp_path / "link"))


def test_directory_others_may_write_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(PermissionError):
        RealDisk().makedirs(str(place))


def test_file_that_gets_no_room_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space|too large"):
        RealDisk().create(str(tmp_path / "huge"), 1 << 60)
    assert RealDisk().listdir(str(tmp_path)) == []


def test_absent_things_are_said_to_be_absent(tmp_path: Path) -> None:
    disk = RealDisk()
    assert disk.listdir(str(tmp_path / "none")) == []
    assert not disk.exists(str(tmp_path / "none"))


# ------------------------------------------------------- one suite for the real and the simulated
@pytest.fixture(params=[RealDisk, SimDisk], ids=["real", "simulated"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return request.param()  # type: ignore[no-any-return]


@pytest.fixture
def place(disk: Disk, tmp_path: Path) -> str:
    path = str(tmp_path / "data" / "shard0")
    disk.makedirs(path)
    disk.makedirs(path)
    return path


@pytest.mark.parametrize("kind", ["bytes", "words", "records"])
def test_whatever_is_written_comes_back(disk: Disk, place: str, kind: str) -> None:
    records = np.arange(48, dtype=np.int64).view(COMMAND)
    data = {"bytes": records.tobytes(), "words": records.view(np.int64), "records": records}[kind]
    handle = disk.create(f"{place}/file", 8192)
    disk.pwrite(handle, data, 4096)
    disk.fdatasync(handle)
    assert disk.pread(handle, records.nbytes, 4096) == records.tobytes()
    assert disk.pread(handle, 8192, 8000) == bytes(192)
    assert disk.pread(handle, 10, 9000) == b""
    disk.close(handle)


def test_writes_behind_the_end_make_the_file_longer(disk: Disk, place: str) -> None:
    handle = disk.create(f"{place}/file", 0)
    disk.pwrite(handle, b"xy", 10)
    assert disk.size(f"{place}/file") == 12
    assert disk.pread(handle, 100, 0) == bytes(10) + b"xy"
    disk.close(handle)


def test_what_was_cut_off_is_zero_when_it_comes_back(disk: Disk, place: str) -> None:
    handle = disk.create(f"{place}/file", 4096)
    disk.pwrite(handle, b"x" * 4096, 0)
    disk.truncate(handle, 1000)
    assert disk.size(f"{place}/file") == 1000
    disk.allocate(handle, 4096)
    disk.allocate(handle, 100)
    assert disk.pread(handle, 5000, 0) == b"x" * 1000 + bytes(3096)
    disk.close(handle)


def test_names_come_go_and_change(disk: Disk, place: str) -> None:
    for name in ("b", "a"):
        disk.close(disk.create(f"{place}/{name}", 8))
    with pytest.raises(FileExistsError):
        disk.create(f"{place}/a", 8)
    disk.rename(f"{place}/b", f"{place}/c")
    assert disk.listdir(place) == ["a", "c"]
    assert (disk.exists(f"{place}/b"), disk.exists(f"{place}/c")) == (False, True)
    disk.unlink(f"{place}/a")
    disk.sync_dir(place)
    assert disk.listdir(place) == ["c"]
    for call in (disk.open, disk.unlink, disk.size):
        with pytest.raises(FileNotFoundError):
            call(f"{place}/a")
    assert disk.free_bytes(place) > 0


def test_handle_for_reading_does_not_write(disk: Disk, place: str) -> None:
    disk.close(disk.create(f"{place}/file", 8))
    handle = disk.open(f"{place}/file")
    with pytest.raises(OSError, match="Bad file"):
        disk.pwrite(handle, b"x", 0)
    disk.close(handle)


def test_lock_is_held_until_its_handle_is_closed(disk: Disk, place: str) -> None:
    handle = disk.lock(f"{place}/lock")
    with pytest.raises(BlockingIOError, match="locked"):
        disk.lock(f"{place}/lock")
    disk.close(handle)
    disk.close(disk.lock(f"{place}/lock"))


# ------------------------------------------------------------------------------------- file header
def test_header_comes_back() -> None:
    raw = header_bytes(HEADER)
    assert len(raw) == FILE_HEADER_BYTES
    assert raw.startswith(b"RBfile01journal\0")
    assert header_read(raw + b"records", "journal", 3) == HEADER


def test_every_changed_byte_of_a_header_is_refused() -> None:
    raw = header_bytes(HEADER)
    for place in range(FILE_HEADER_BYTES):
        bad = bytearray(raw)
        bad[place] ^= 1 << place % 8
        with pytest.raises(FileRefused):
            header_read(bytes(bad), "journal", 3, "a-file")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("magic", 1, "magic"),
        ("layout_fingerprint", 1, "fingerprint"),
        ("rules_version", 99, "rules version 99"),
        ("kind", b"events", "kind"),
        ("shard", 4, "shard 4"),
    ],
)
def test_d9_header_of_something_else_is_refused_with_the_reason(
    field: str, value: object, reason: str
) -> None:
    page = np.frombuffer(header_bytes(HEADER), FILE_HEADER).copy()
    page[field] = value
    page["header_crc"] = 0
    page["header_crc"] = crc32c(page.tobytes())
    with pytest.raises(FileRefused, match=reason) as caught:
        header_read(page.tobytes(), "journal", 3, "some/file")
    assert caught.value.path == "some/file"
    assert "some/file" in str(caught.value)


def test_short_header_is_refused() -> None:
    with pytest.raises(FileRefused, match="100 bytes"):
        header_read(header_bytes(HEADER)[:100], "journal", 3)
