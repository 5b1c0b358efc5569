"""Segments are made whole or not at all, refused when anything is odd, removed when orphaned.

The faults S1, S2 and S3 of the reliability contract.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import segment as segments
from engine.records import LAYOUT_FINGERPRINT
from engine.segment import (
    FINGERPRINT,
    HEADER_BYTES,
    KIND,
    MADE_NS,
    MAGIC,
    OWNER,
    OWNER_START,
    PARAMETER_COUNT,
    READY,
    SEGMENT_VERSION,
    SIZE,
    InstanceRunning,
    Segment,
    SegmentError,
    janitor,
    owner_alive,
    process_start_time,
    segment_name,
)
from tests.engine.support import instance_name

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

PAYLOAD = 8192
MAKE_AND_WAIT = (
    "import sys\n"
    "from engine.segment import Segment\n"
    "s = Segment.create(sys.argv[1], 'events', 8192, (1, 8))\n"
    "print('made', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def instance() -> Iterator[str]:
    name = instance_name()
    yield name
    for path in segments.SHM.glob(f"ringbook.{name}.*"):
        path.unlink()


@pytest.fixture
def made(instance: str) -> Iterator[Segment]:
    segment = Segment.create(segment_name(instance, "events"), "events", PAYLOAD, (1, 8))
    yield segment
    segment.close()


@pytest.fixture
def owner(instance: str) -> Iterator[subprocess.Popen[str]]:
    """A live process of its own that owns one segment of the instance."""
    name = segment_name(instance, "events")
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE_AND_WAIT, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    yield process
    process.kill()
    process.communicate()


def shm_path(instance: str, kind: str = "events") -> Path:
    return segments.SHM / segment_name(instance, kind).strip("/")


# ------------------------------------------------------------------------------------------ making
def test_new_segment_is_private_ready_and_names_its_owner(made: Segment, instance: str) -> None:
    info = shm_path(instance).stat()
    assert info.st_mode & 0o777 == 0o600
    assert info.st_size == HEADER_BYTES + PAYLOAD
    header = made.header
    assert header[READY] == SEGMENT_VERSION
    assert header[FINGERPRINT] == LAYOUT_FINGERPRINT
    assert owner_alive(int(header[OWNER]), int(header[OWNER_START]))
    assert header[OWNER] == os.getpid() == made.owner_pid
    assert header[MADE_NS] > 0
    assert (made.kind, made.params, made.size) == ("events", (1, 8), HEADER_BYTES + PAYLOAD)


def test_memory_is_taken_when_the_segment_is_made(made: Segment, instance: str) -> None:
    assert shm_path(instance).stat().st_blocks * 512 >= HEADER_BYTES + PAYLOAD


def test_payload_is_zero_and_views_begin_on_their_offset(made: Segment) -> None:
    assert not made.words.any()
    made.words[8] = 5
    assert made.view(np.int64, 64, 1).tolist() == [5]
    assert made.words.ctypes.data % 4096 == 0


def test_umask_does_not_decide_the_mode(instance: str) -> None:
    before = os.umask(0o777)
    try:
        segment = Segment.create(segment_name(instance, "events"), "events", PAYLOAD)
    finally:
        os.umask(before)
    segment.close()
    assert shm_path(instance).stat().st_mode & 0o777 == 0o600


def test_existing_name_is_refused_and_left_alone(made: Segment, instance: str) -> None:
    made.words[0] = 42
    with pytest.raises(SegmentError, match="exists already"):
        Segment.create(segment_name(instance, "events"), "events", PAYLOAD)
    assert made.words[0] == 42
    assert shm_path(instance).exists()


@pytest.mark.parametrize("bad", ["a.b", "../x", "", "x" * 25, "a b", "1st", "ä"])
def test_instance_that_is_no_identifier_names_no_segment(bad: str) -> None:
    with pytest.raises(SegmentError, match="no segment can be named"):
        segment_name(bad, "events")


@pytest.mark.parametrize(("size", "params"), [(0, ()), (12, ()), (64, range(33))])
def test_segment_that_cannot_be_laid_out_is_refused(
    instance: str, size: int, params: range
) -> None:
    with pytest.raises(SegmentError, match=r"cannot have .* bytes"):
        Segment.create(segment_name(instance, "events"), "events", size, tuple(params))
    assert not shm_path(instance).exists()


FULL = """
import json, os, subprocess, sys
mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"],
                         capture_output=True, text=True)
if mounted.returncode:
    print(json.dumps({"mount": mounted.stderr})); sys.exit()
from engine.segment import Segment, SegmentError
small = Segment.create("/ringbook.full.small", "small", 4096)
try:
    Segment.create("/ringbook.full.events", "events", 2 << 20)
    error = ""
except SegmentError as refused:
    error = str(refused)
small.words[:] = 7  # what was made before is whole
print(json.dumps({"error": error, "left": os.listdir("/dev/shm"),
                  "fds": [os.readlink(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd")
                          if os.path.exists(f"/proc/self/fd/{f}")]}))
"""


@pytest.mark.later
def test_full_shared_memory_is_an_error_and_leaves_nothing(
    require_program: Callable[[str], str],
) -> None:
    unshare = require_program("unshare")
    options = ["-m"] if os.geteuid() == 0 else ["-rm"]
    done = subprocess.run(
        [unshare, *options, sys.executable, "-c", FULL], capture_output=True, text=True, timeout=60
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no private mount namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if "mount" in found:
        pytest.skip(f"no private tmpfs: {found['mount'].strip()}")
    assert found["error"] == (
        f"segment /ringbook.full.events of {HEADER_BYTES + (2 << 20)} bytes cannot be made: "
        "/dev/shm is full"
    )
    assert found["left"] == ["ringbook.full.small"]
    assert not [fd for fd in found["fds"] if "full.events" in fd]


# ---------------------------------------------------------------------------------------- attaching
def test_attach_maps_the_same_memory_without_a_name(made: Segment) -> None:
    other = Segment.attach(os.dup(made.fd), "events")
    other.words[3] = 99
    assert made.words[3] == 99
    assert other.params == (1, 8)
    other.close()


REFUSALS = [
    (READY, 0, "segment is not ready: its maker has not finished, or died before"),
    (READY, 9, "segment has header version 9, this program knows 1"),
    (MAGIC, 0, "this is no Ringbook segment: its magic number is wrong"),
    (MAGIC, int.from_bytes(b"Ringbook", "big"), "this is no Ringbook segment"),
    (FINGERPRINT, LAYOUT_FINGERPRINT ^ 1, "segment has other record layouts"),
    (SIZE, 4096, "segment is 12288 bytes long, its header says 4096"),
    (PARAMETER_COUNT, 33, "segment names 33 parameters, at most 32 fit"),
    (PARAMETER_COUNT, -1, "segment names -1 parameters"),
    (KIND, int.from_bytes(b"tops", "little"), "segment is of kind 'tops', expected 'events'"),
    (KIND, -1, "segment is of an unreadable kind, expected 'events'"),
]


@pytest.mark.parametrize(("word", "value", "sentence"), REFUSALS)
def test_odd_header_is_refused_with_its_reason(
    made: Segment, word: int, value: int, sentence: str
) -> None:
    made.header[word] = value
    fd = os.dup(made.fd)
    with pytest.raises(SegmentError) as refused:
        Segment.attach(fd, "events")
    os.close(fd)  # still the caller's
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [(0, "truncated: 0 bytes"), (100, "truncated: 100 bytes"), (4096, "truncated: 4096 bytes")],
)
def test_truncated_segment_is_refused_before_it_is_mapped(
    made: Segment, size: int, sentence: str
) -> None:
    fd = os.dup(made.fd)
    os.ftruncate(fd, size)
    with pytest.raises(SegmentError, match=sentence):
        Segment.attach(fd)
    os.ftruncate(fd, HEADER_BYTES + PAYLOAD)
    os.close(fd)


def test_shorter_file_than_its_header_says_is_refused(made: Segment) -> None:
    fd = os.dup(made.fd)
    os.ftruncate(fd, HEADER_BYTES + 4096)
    with pytest.raises(SegmentError, match="8192 bytes long, its header says 12288"):
        Segment.attach(fd)
    os.ftruncate(fd, HEADER_BYTES + PAYLOAD)
    os.close(fd)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666, 0o400])
def test_mode_other_than_0600_is_refused(made: Segment, mode: int) -> None:
    os.fchmod(made.fd, mode)
    fd = os.dup(made.fd)
    with pytest.raises(SegmentError, match=f"mode {mode:04o}, expected 0600"):
        Segment.attach(fd)
    os.close(fd)


def test_segment_of_another_user_is_refused(made: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    fd = os.dup(made.fd)
    with pytest.raises(SegmentError, match=f"belongs to user {other - 1}, not to {other}"):
        Segment.attach(fd)
    os.close(fd)


def test_descriptor_that_is_no_segment_is_refused() -> None:
    reader, writer = os.pipe()
    with pytest.raises(SegmentError, match="is no shared memory"):
        Segment.attach(reader)
    os.close(reader)
    os.close(writer)
    with pytest.raises(SegmentError, match=f"descriptor {reader} is not open"):
        Segment.attach(reader)


def test_open_by_a_name_that_is_not_there_says_so(instance: str) -> None:
    with pytest.raises(SegmentError, match="does not exist: is the instance up"):
        Segment.open(segment_name(instance, "events"))


def test_refused_open_closes_its_descriptor(made: Segment, instance: str) -> None:
    made.header[READY] = 0
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(SegmentError, match="not ready"):
        Segment.open(segment_name(instance, "events"))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_close_twice_and_unlink_twice_are_harmless(made: Segment, instance: str) -> None:
    made.close()
    made.close()
    made.unlink()
    made.unlink()
    assert not shm_path(instance).exists()


def test_view_outlives_close_of_its_segment(made: Segment) -> None:
    view = made.view(np.int64, 0, 4)
    made.close()
    view[0] = 3
    assert view[0] == 3


# -------------------------------------------------------------------------------------- the janitor
def test_janitor_removes_what_a_killed_owner_left(
    owner: subprocess.Popen[str], instance: str
) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    assert janitor(instance) == [segment_name(instance, "events")]
    assert not shm_path(instance).exists()
    assert janitor(instance) == []


@pytest.mark.later
def test_janitor_counts_a_zombie_as_dead(owner: subprocess.Popen[str], instance: str) -> None:
    owner.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet reaped
    assert process_start_time(owner.pid) == 0
    assert janitor(instance) == [segment_name(instance, "events")]


@pytest.mark.later
def test_janitor_refuses_a_live_owner_and_removes_nothing(
    owner: subprocess.Popen[str], instance: str
) -> None:
    dead = Segment.create(segment_name(instance, "commands"), "commands", PAYLOAD)
    dead.header[OWNER_START] = 1
    dead.close()
    with pytest.raises(InstanceRunning) as refused:
        janitor(instance)
    assert refused.value.pid == owner.pid
    assert f"running process {owner.pid}" in str(refused.value)
    assert shm_path(instance, "commands").exists()
    assert shm_path(instance, "events").exists()


@pytest.mark.later
def test_janitor_is_not_fooled_by_a_pid_used_again(
    owner: subprocess.Popen[str], instance: str
) -> None:
    # The pid lives, but it started later than the owner the header names.
    fd = os.open(shm_path(instance), os.O_RDWR)
    older = process_start_time(owner.pid) - 1
    os.pwrite(fd, older.to_bytes(8, "little"), OWNER_START * 8)
    os.close(fd)
    assert janitor(instance) == [segment_name(instance, "events")]


def test_janitor_keeps_segments_of_this_process(made: Segment, instance: str) -> None:
    assert janitor(instance) == []
    assert shm_path(instance).exists()


def test_janitor_leaves_other_instances_alone(made: Segment, instance: str) -> None:
    made.header[OWNER_START] = 1
    assert janitor(instance[:-1]) == []
    assert janitor(instance + "x") == []
    assert shm_path(instance).exists()


def test_janitor_removes_a_half_made_segment_of_a_dead_owner(made: Segment, instance: str) -> None:
    made.header[READY] = 0
    made.header[OWNER_START] = 1
    os.ftruncate(made.fd, HEADER_BYTES)  # as left between header and allocation
    assert janitor(instance) == [segment_name(instance, "events")]


def test_janitor_removes_a_layout_it_does_not_know(made: Segment, instance: str) -> None:
    made.header[FINGERPRINT] = 1
    made.header[OWNER_START] = 1
    assert janitor(instance) == [segment_name(instance, "events")]


def test_janitor_removes_a_file_without_header_after_a_moment(
    instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "HEADER_GRACE_S", 0.02)
    shm_path(instance).touch(mode=0o600)
    assert janitor(instance) == [segment_name(instance, "events")]


def test_janitor_leaves_a_stranger_under_our_name(instance: str) -> None:
    shm_path(instance).write_bytes(b"x" * HEADER_BYTES)
    with pytest.raises(SegmentError, match="is no Ringbook segment, it is left alone"):
        janitor(instance)
    assert shm_path(instance).exists()


def test_janitor_follows_no_symbolic_link(instance: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(HEADER_BYTES))
    shm_path(instance).symlink_to(target)
    with pytest.raises(SegmentError, match="cannot be read"):
        janitor(instance)
    assert target.exists()


def test_janitor_refuses_the_segment_of_another_user(
    made: Segment, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(SegmentError, match="choose another instance name"):
        janitor(instance)


def test_start_time_is_of_the_process_itself() -> None:
    own = process_start_time(os.getpid())
    assert own > 0
    assert owner_alive(os.getpid(), own)
    assert not owner_alive(os.getpid(), own + 1)
    assert not owner_alive(0, 0)
