"""Shared memory segments: made whole, checked at attach, removed when their owner is dead.

Cold: runs at start, attach and shutdown. One process makes a segment and writes its header.

    page 0     header, 512 int64 words
    page 1..   payload, zero at first; laid out by its users (command_ring, event_ring, counters)

    word 0 version, when ready   1 magic      2 layout fingerprint    3 bytes of the whole segment
         4 kind, 8 ASCII         5 owner pid  6 owner's start time    7 made at, CLOCK_REALTIME ns
         8 number of parameters  16.. parameters

Word 0 is stored last, with release. Names are /ringbook.<instance>.<kind>. Memory is taken with
posix_fallocate: on a full /dev/shm ftruncate succeeds and the first touch is a SIGBUS. Never
resized. Through posix_ipc, because a segment of multiprocessing is deleted when any process that
attached ends.

Attach trusts nothing: a 0600 regular file of this user, as long as its header says, of this layout
fingerprint, and ready. A pid alone does not name an owner (pids are used again): the start time of
the process (/proc/<pid>/stat, field 22) stands beside it.

Limits: processes that share /dev/shm but no pid namespace cannot judge each other's owners. Whether
*children* of a dead owner still run is not known here: the instance lock of the topology decides.
"""

import contextlib
import errno
import mmap
import os
import re
import stat
import struct
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import posix_ipc

from engine.atomics import load_acquire, store_release
from engine.jit import kernel, register_warmup
from engine.records import LAYOUT_FINGERPRINT, pack_name, unpack_name

SHM = Path("/dev/shm")
HEADER_BYTES = 4096
SEGMENT_VERSION = 1
# Not a palindrome in bytes: a machine of the other byte order reads another number.
SEGMENT_MAGIC = int.from_bytes(b"Ringbook", "little")
PARAMETERS_MAX = 32
READY, MAGIC, FINGERPRINT, SIZE, KIND, OWNER, OWNER_START, MADE_NS, PARAMETER_COUNT = range(9)
PARAMETERS = 16
HEADER_GRACE_S = (
    1.0  # between shm_open and the header lie microseconds; later a headless file is a leftover
)
_HEADER = struct.Struct("<512q")
_NAME = re.compile(r"ringbook\.[A-Za-z_][A-Za-z0-9_]{0,23}\.[a-z0-9]{1,8}")

assert _HEADER.size == HEADER_BYTES
assert SEGMENT_MAGIC.to_bytes(8, "little") != SEGMENT_MAGIC.to_bytes(8, "big")


class SegmentError(RuntimeError):
    """A segment that cannot be made or may not be used; the message is the whole reason."""


class InstanceRunning(SegmentError):
    """The instance is owned by a live process."""

    def __init__(self, pid: int, name: str) -> None:
        super().__init__(
            f"segment {name} belongs to the running process {pid}: this instance is up"
        )
        self.pid = pid


@kernel
def load_word(words, index):
    """words[index] with acquire; for Python code, where item access is no promise."""
    return load_acquire(words, index)


@kernel
def store_word(words, index, value):
    """words[index] = value with release."""
    store_release(words, index, value)


def segment_name(instance: str, kind: str) -> str:
    """Return /ringbook.<instance>.<kind>, or raise SegmentError."""
    name = f"ringbook.{instance}.{kind}"
    if not _NAME.fullmatch(name):
        raise SegmentError(f"no segment can be named {name!r}: instance must be a short identifier")
    return "/" + name


def process_start_time(pid: int) -> int:
    """Start time of a live process in clock ticks since boot; 0 when it is dead (a zombie is)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # the command may hold blanks and brackets
    return 0 if fields[0] in "ZX" else int(fields[19])


def owner_alive(pid: int, start_time: int) -> bool:
    """Whether the very process that is named still runs."""
    return pid > 0 and start_time > 0 and process_start_time(pid) == start_time


class Segment:
    """One mapped segment. `words` is the payload as int64, `header` the first page."""

    def __init__(self, fd: int, size: int, name: str = "") -> None:
        # Populated: no process pays for page faults while it trades.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._map: mmap.mmap | None = mmap.mmap(fd, size, flags)
        self.fd = fd
        self.name = name
        self.size = size
        self.header = np.frombuffer(self._map, np.int64, HEADER_BYTES // 8)
        self.words = np.frombuffer(self._map, np.int64, offset=HEADER_BYTES)

    @classmethod
    def create(
        cls, name: str, kind: str, payload_bytes: int, params: Sequence[int] = ()
    ) -> "Segment":
        """Make a segment of exactly this size, or raise SegmentError and leave nothing behind."""
        if not _NAME.fullmatch(name.removeprefix("/")):
            raise SegmentError(f"no segment can be named {name!r}")
        if payload_bytes < 8 or payload_bytes % 8 or len(params) > PARAMETERS_MAX:
            raise SegmentError(
                f"segment {name} cannot have {payload_bytes} bytes, {len(params)} parameters"
            )
        try:
            memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
        except posix_ipc.ExistentialError as error:
            raise SegmentError(
                f"segment {name} exists already: another run, or a leftover for the janitor"
            ) from error
        except OSError as error:
            raise SegmentError(f"segment {name} cannot be made: {error.strerror}") from error
        size = HEADER_BYTES + payload_bytes
        try:
            # The owner stands in the file before the memory is taken: whoever dies here can be told
            # from a live creator.
            os.pwrite(memory.fd, _header_bytes(kind, size, params), 0)
            os.posix_fallocate(memory.fd, 0, size)
            os.fchmod(memory.fd, 0o600)
            made = cls(memory.fd, size, name)
        except OSError as error:
            os.close(memory.fd)
            posix_ipc.unlink_shared_memory(name)
            reason = "/dev/shm is full" if error.errno == errno.ENOSPC else error.strerror
            raise SegmentError(
                f"segment {name} of {size} bytes cannot be made: {reason}"
            ) from error
        store_word(made.header, READY, SEGMENT_VERSION)
        return made

    @classmethod
    def private(cls, kind: str, payload_bytes: int, params: Sequence[int] = ()) -> "Segment":
        """Return memory of this process alone, without name and descriptor: simulation, tests."""
        size = HEADER_BYTES + payload_bytes
        made = cls(-1, size)
        made.header[:] = _HEADER.unpack(_header_bytes(kind, size, params))
        store_word(made.header, READY, SEGMENT_VERSION)
        return made

    @classmethod
    def open(cls, name: str, kind: str = "") -> "Segment":
        """Attach by name (supervisor, `top`, tests)."""
        try:
            fd = posix_ipc.SharedMemory(name).fd
        except posix_ipc.ExistentialError as error:
            raise SegmentError(f"segment {name} does not exist: is the instance up?") from error
        except OSError as error:
            raise SegmentError(f"segment {name} cannot be opened: {error.strerror}") from error
        try:
            segment = cls.attach(fd, kind)
        except SegmentError:
            os.close(fd)
            raise
        segment.name = name
        return segment

    @classmethod
    def attach(cls, fd: int, kind: str = "") -> "Segment":
        """Map a descriptor got from the supervisor and own it; on SegmentError the caller does."""
        try:
            info = os.fstat(fd)
        except OSError as error:
            raise SegmentError(f"descriptor {fd} is not open") from error
        if not stat.S_ISREG(info.st_mode):
            raise SegmentError(f"descriptor {fd} is no shared memory")
        if info.st_uid != os.geteuid():
            raise SegmentError(f"segment belongs to user {info.st_uid}, not to {os.geteuid()}")
        if stat.S_IMODE(info.st_mode) != 0o600:
            raise SegmentError(f"segment has mode {stat.S_IMODE(info.st_mode):04o}, expected 0600")
        if info.st_size <= HEADER_BYTES or info.st_size % 8:
            raise SegmentError(
                f"segment is truncated: {info.st_size} bytes hold no header and payload"
            )
        segment = cls(fd, info.st_size)
        reason = _refusal(segment.header, info.st_size, kind)
        if reason:
            segment._unmap()
            raise SegmentError(reason)
        return segment

    @property
    def kind(self) -> str:
        return unpack_name(int(self.header[KIND]))

    @property
    def params(self) -> tuple[int, ...]:
        count = int(self.header[PARAMETER_COUNT])
        return tuple(int(v) for v in self.header[PARAMETERS : PARAMETERS + count])

    @property
    def owner_pid(self) -> int:
        return int(self.header[OWNER])

    def view(self, dtype: Any, offset: int, count: int) -> np.ndarray[Any, Any]:
        """Return `count` items of the payload from byte `offset` on, without a copy."""
        assert self._map is not None, "segment is closed"
        return np.frombuffer(self._map, dtype, count, HEADER_BYTES + offset)

    def _unmap(self) -> None:
        del self.header, self.words
        mapped, self._map = self._map, None
        if mapped is not None:
            # Arrays of the payload may still be alive: then the mapping goes with the last of them.
            with contextlib.suppress(BufferError):
                mapped.close()

    def close(self) -> None:
        """Unmap, at the latest when the last view dies, and close the descriptor."""
        if self._map is not None:
            self._unmap()
            if self.fd >= 0:
                os.close(self.fd)
            self.fd = -1

    def unlink(self) -> None:
        """Remove the name, if it is still there; whoever has it mapped keeps the memory."""
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_shared_memory(self.name)


def _header_bytes(kind: str, size: int, params: Sequence[int]) -> bytes:
    words = [0] * (HEADER_BYTES // 8)
    words[MAGIC], words[FINGERPRINT], words[SIZE] = SEGMENT_MAGIC, LAYOUT_FINGERPRINT, size
    words[KIND], words[MADE_NS] = pack_name(kind), time.time_ns()
    words[OWNER], words[OWNER_START] = os.getpid(), process_start_time(os.getpid())
    words[PARAMETER_COUNT] = len(params)
    words[PARAMETERS : PARAMETERS + len(params)] = [int(v) for v in params]
    return _HEADER.pack(*words)


def _refusal(header: np.ndarray[Any, Any], size: int, kind: str) -> str:
    # Why this header may not be used; empty when it may. The magic first: before it nothing else
    # means anything.
    if int(header[MAGIC]) != SEGMENT_MAGIC:
        return "this is no Ringbook segment: its magic number is wrong"
    ready = load_word(header, READY)
    if ready == 0:
        return "segment is not ready: its maker has not finished, or died before"
    if ready != SEGMENT_VERSION:
        return f"segment has header version {ready}, this program knows {SEGMENT_VERSION}"
    if int(header[FINGERPRINT]) != LAYOUT_FINGERPRINT:
        return (
            "segment has other record layouts (fingerprint): another version of the program made it"
        )
    if int(header[SIZE]) != size:
        return f"segment is {size} bytes long, its header says {int(header[SIZE])}"
    if not 0 <= int(header[PARAMETER_COUNT]) <= PARAMETERS_MAX:
        return (
            f"segment names {int(header[PARAMETER_COUNT])} parameters, at most {PARAMETERS_MAX} fit"
        )
    if kind and int(header[KIND]) != pack_name(kind):
        return f"segment is of {_kind_text(int(header[KIND]))}, expected {kind!r}"
    return ""


def _kind_text(packed: int) -> str:
    try:
        return f"kind {unpack_name(packed)!r}"
    except (OverflowError, UnicodeDecodeError):
        return "an unreadable kind"


def _read_owner(path: Path) -> tuple[int, int] | None:
    # (pid, start time) of a segment's owner; None when the file is gone. Waits a moment for a
    # header being written.
    deadline = time.monotonic() + HEADER_GRACE_S
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SegmentError(
                f"{path} cannot be read: {error.strerror}; remove it or choose another instance"
            ) from error
        try:
            info, raw = os.fstat(fd), os.pread(fd, HEADER_BYTES, 0)
        finally:
            os.close(fd)
        if info.st_uid != os.geteuid():
            raise SegmentError(
                f"{path} belongs to user {info.st_uid}: choose another instance name"
            )
        if len(raw) == HEADER_BYTES:
            words = _HEADER.unpack(raw)
            if words[MAGIC] != SEGMENT_MAGIC:
                raise SegmentError(
                    f"{path} is no Ringbook segment, it is left alone: remove it by hand"
                )
            return words[OWNER], words[OWNER_START]
        if time.monotonic() > deadline:
            return 0, 0
        time.sleep(0.01)


def janitor(instance: str, keep: Collection[str] = ()) -> list[str]:
    """Remove the segments of an instance whose owner is dead, but those named in `keep`; returns
    their names.

    Raises InstanceRunning, before anything is removed, when another live process owns one; segments
    of this process stay.
    """
    prefix = segment_name(instance, "x").strip("/")[:-1]
    dead = []
    for path in sorted(SHM.glob(prefix + "*")):
        owner = _read_owner(path)
        if owner is None:
            continue
        if not owner_alive(*owner):
            dead.append("/" + path.name)
        elif owner[0] != os.getpid():
            raise InstanceRunning(owner[0], "/" + path.name)
    dead = [name for name in dead if name not in keep]
    for name in dead:
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_shared_memory(name)
    return dead


def _warm_up() -> None:
    words = np.zeros(2, np.int64)
    store_word(words, 1, 7)
    assert load_word(words, 1) == 7


register_warmup("engine.segment", _warm_up)
