"""Finds what a test left behind: shared-memory segments and processes. Cold, Linux only.

Several runs may share one machine, and one /dev/shm, so "a new segment appeared" is no evidence.
Who has it mapped is: a segment is ours to answer for if it appeared during the test and is mapped
by nobody, by this process, or by a process this run started. Processes of this run are known by a
variable in their environment, which children of children inherit even after their parent died.

Two scopes use the same snapshot and comparison (tests/conftest.py): each test, which must not leave
more than it found once module fixtures were up, and each module, which must leave nothing.

Limits: a process that clears its environment, or a segment that another run maps under our name, is
not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SESSION_VARIABLE = "RINGBOOK_TEST_SESSION"
SEGMENT_PREFIX = "ringbook"
SHM = Path("/dev/shm")
PROC = Path("/proc")
# Dying children need a moment to be gone. Only a leak costs this long, a clean test nothing.
GRACE_S = 2.0
# The interpreter's own helper of multiprocessing; it ends with this process.
_OWN_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


@dataclass(frozen=True)
class Snapshot:
    """What existed at one moment. Segments carry their inode, so a name used again is a new one."""

    segments: frozenset[tuple[str, int]]
    processes: frozenset[int]


def _session_pids(token: str) -> Iterator[int]:
    needle = f"{SESSION_VARIABLE}={token}".encode()
    own = os.getpid()
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        try:
            environ = (entry / "environ").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            # A zombie has no environment left; one of ours was never waited for.
            if needle not in environ.split(b"\0") and not (not environ and parent == own):
                continue
            command = (entry / "cmdline").read_bytes()
        except OSError:  # gone meanwhile, or another user's
            continue
        if not any(helper in command for helper in _OWN_HELPERS):
            yield int(entry.name)


def take_snapshot(token: str) -> Snapshot:
    """List the segments of this product and the processes started by the run `token`."""
    segments = set()
    for path in SHM.glob(f"*{SEGMENT_PREFIX}*"):
        try:
            segments.add((path.name, path.stat().st_ino))
        except FileNotFoundError:  # unlinked between glob and stat
            continue
    return Snapshot(frozenset(segments), frozenset(_session_pids(token)))


def _mapped_by(name: str) -> set[int]:
    path = f"{SHM}/{name}".encode()
    pids = set()
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                if path in (entry / "maps").read_bytes():
                    pids.add(int(entry.name))
            except OSError:
                continue
    return pids


def _describe(pid: int) -> str:
    try:
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"process {pid}: {command.strip() or '(ended, never waited for)'}"
    except OSError:
        return f"process {pid}"


def find_leaks(before: Snapshot, token: str, *, started_too: bool) -> list[str]:
    """Name what appeared since `before` and stays.

    With `started_too`, segments mapped by processes this run started count as well (module scope).
    Without it they belong to a module fixture still at work, and only orphans and our own count.
    """
    deadline = time.monotonic() + GRACE_S
    while True:
        leaks = _compare(before, take_snapshot(token), started_too=started_too)
        if not leaks or time.monotonic() > deadline:
            return leaks
        time.sleep(0.02)


def _compare(before: Snapshot, now: Snapshot, *, started_too: bool) -> list[str]:
    leaks = [_describe(pid) for pid in sorted(now.processes - before.processes)]
    for name, _inode in sorted(now.segments - before.segments):
        users = _mapped_by(name)
        ours = {os.getpid()} | (now.processes if started_too else set())
        if users <= ours:
            holders = f"mapped by {sorted(users)}" if users else "mapped by nobody"
            leaks.append(f"segment {SHM}/{name} ({holders})")
    return leaks
