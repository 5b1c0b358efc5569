"""The exchange under test: started, found in /proc, hit, started again. The one file here that
knows the project.

A supervisor dies with the thread that started it: `start` belongs to the main thread. Signals go to
processes that are children of our supervisor, checked right before, and to nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path

from engine.background import Handle, start_in_background
from engine.config import config_from_mapping
from tests.system.nemesis import settings as s
from tests.system.nemesis.settings import Settings

POLL_S = 0.001
STOP_S_MAX = 20.0


def unique(settings: Settings) -> Settings:
    """The same run under a name, port and multicast group that nobody else of this machine uses."""
    number = uuid.uuid4().int
    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        port = int(probe.getsockname()[1])
    return replace(
        settings,
        instance=f"n{os.getpid()}_{number % 10**8}",
        port=port,
        feed_group=f"239.255.{71 + number % 180}.{1 + number // 180 % 250}",
    )


def children_of(pid: int) -> dict[str, int]:
    """Names and pids of the children of a process; empty when it is gone."""
    found = {}
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return {}
    for child in pids:
        try:
            found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
        except OSError:  # gone meanwhile
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs (an ended one that was not waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_dead(pids: list[int]) -> None:
    """Wait until none of them runs."""
    deadline = time.monotonic() + STOP_S_MAX
    while any(map(is_alive, pids)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still running after a kill: {[p for p in pids if is_alive(p)]}")
        time.sleep(POLL_S)


class Exchange:
    """A running exchange on a data directory."""

    def __init__(self, settings: Settings, data: Path) -> None:
        self.config = config_from_mapping(settings.exchange(data))
        self.handle: Handle | None = None
        self.starts = 0

    def start(self) -> float:
        """Start it; returns the seconds until it served."""
        began = time.monotonic()
        self.handle = start_in_background(self.config, timeout_s=s.START_S_MAX)
        self.starts += 1
        return time.monotonic() - began

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self.handle is not None
        return self.handle.process.pid

    @property
    def alive(self) -> bool:
        return self.handle is not None and self.handle.process.poll() is None

    def children(self) -> dict[str, int]:
        """Names and pids of what the supervisor started."""
        return children_of(self.pid) if self.alive else {}

    def named(self, prefix: str) -> dict[str, int]:
        """Those whose name begins like this."""
        return {name: pid for name, pid in self.children().items() if name.startswith(prefix)}

    @property
    def has_journal(self) -> bool:
        """Whether a process keeps a journal: without it no kill can be survived."""
        return bool(self.named(s.JOURNAL_PROCESS))

    def signal(self, name: str, pid: int, number: signal.Signals) -> bool:
        """Signal a child; False when that pid is not this child any more."""
        if self.children().get(name) != pid:
            return False
        os.kill(pid, number)
        return True

    def kill_all(self, with_children: bool) -> None:
        """SIGKILL the supervisor; its children go with it, or first, all at one instant."""
        children = self.children()
        os.kill(self.pid, signal.SIGSTOP)  # it shall not notice one death before the next
        if with_children:
            for name, pid in children.items():
                self.signal(name, pid, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        assert self.handle is not None
        self.handle.process.wait(STOP_S_MAX)
        wait_dead(list(children.values()))

    def stop(self) -> int:
        """End it in order; returns its exit code."""
        return self.handle.stop(STOP_S_MAX) if self.handle is not None else 0
