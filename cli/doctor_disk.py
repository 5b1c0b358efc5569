"""What `run.py doctor` says of the data directory's file system. Cold.

A file is made beside the directory for some milliseconds, and removed: how long a sync takes is
not to be learned otherwise.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.config import Config

SYNCS = 40
SYNC_S_MAX = 1.0  # in all
SYNC_BYTES = 4096
SLOW_S = 0.010  # one of a `batch` mode's sync intervals
MEMORY_SYSTEMS = frozenset({"tmpfs", "ramfs"})
REMOTE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"})
MIB = 1 << 20


class Disk(NamedTuple):
    """What was found out about a directory's file system."""

    place: Path  # the directory, or the nearest one above it that exists
    system: str
    free: int
    syncs_s: list[float]  # seconds of each, sorted; none: it could not be tried
    trouble: str = ""


def existing(path: Path) -> Path:
    """The directory itself, or the nearest one above that exists."""
    while not path.is_dir():
        path = path.parent
    return path


def system_of(path: Path, mounts: str) -> str:
    """Type of the file system a path is on, from the text of /proc/self/mountinfo."""
    best, system = "", "unknown"
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].encode().decode("unicode_escape")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, system = point, right.split()[0]
    return system


def syncs(place: Path) -> list[float]:
    """Seconds of some fdatasyncs of a page each, as the journal does them, ascending."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=place) as file:
        os.posix_fallocate(file.fileno(), 0, SYNCS * SYNC_BYTES)
        os.fsync(file.fileno())
        while len(times) < SYNCS and sum(times) < SYNC_S_MAX:
            os.pwrite(file.fileno(), os.urandom(SYNC_BYTES), len(times) * SYNC_BYTES)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return sorted(times)


def look(directory: str) -> Disk:
    """Find out about the file system of a data directory, whether it exists yet or not."""
    place = existing(Path(directory).absolute())
    system = system_of(place.resolve(), Path("/proc/self/mountinfo").read_text())
    free = shutil.disk_usage(place).free
    try:
        return Disk(place, system, free, syncs(place))
    except OSError as error:
        return Disk(place, system, free, [], error.strerror or str(error))


def judge(config: "Config", directory: str, disk: Disk) -> tuple[str, str]:
    """The mark (ok, note, bad) and the sentence."""
    journal = config.journal
    if disk.trouble:
        return "bad", f"{directory}: nothing can be written in {disk.place}: {disk.trouble}"
    middle, worst = disk.syncs_s[len(disk.syncs_s) // 2], disk.syncs_s[-1]
    words = (
        f"{directory} ({disk.system}): {disk.free // MIB:,} MiB free, fdatasync"
        f" {middle * 1e3:.2g} ms, at worst {worst * 1e3:.2g} ms"
    )
    shards = config.shards or max(1, len(os.sched_getaffinity(0)) - 1)
    need = journal.free_bytes_min + 3 * journal.segment_bytes * shards
    if disk.free < need:
        return "bad", f"{words}; at least {need // MIB:,} MiB are needed"
    if disk.system in MEMORY_SYSTEMS:
        return "note", f"{words}; this is memory: a restart of the machine loses everything"
    if disk.system in REMOTE_SYSTEMS:
        return "note", f"{words}; over a network a sync may promise more than it keeps"
    if worst * 1e3 > journal.loss_window_ms / 2:
        return "note", f"{words}; so slow a sync will close the gate now and then (BUSY)"
    if middle > SLOW_S:
        return "note", f"{words}; slow: mode sync acknowledges no faster than that"
    return "ok", words
