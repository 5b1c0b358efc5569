"""The plan of faults, drawn from the seed, and its execution.

The plan says what happens when; whom it hits (which shard) and how long a pause lasts are drawn
too. The same seed gives the same plan; what the exchange was doing at that moment is its own.
Every fault is written to RUN/faults.jsonl with its time (CLOCK_MONOTONIC ns, as in client logs).
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from tests.system.nemesis import settings as s
from tests.system.nemesis.exchange import Exchange, wait_dead
from tests.system.nemesis.settings import Settings

POLL_S = 0.005


@dataclass
class Planned:
    """One fault to come."""

    gap: float  # seconds of load after the fault before it (and its fresh start) is done
    kind: str
    draw: float  # 0 .. 1: which of several processes
    pause_s: float


@dataclass
class Fault:
    """One fault done."""

    kind: str
    names: list[str]
    t: int  # when it was dead, or stopped
    back_s: float = -1.0  # until the process was there again; below 0: it never was
    recovery_s: float = -1.0  # until a request made after the fault was acknowledged
    overtaken: bool = False  # by the next fault: nothing was acknowledged in between
    feed_s: float = -1.0  # until the feed said something new


def plan(settings: Settings) -> list[Planned]:
    """All faults of a run: every kind equally often, at random moments."""
    draw = random.Random(f"faults {settings.seed}")
    kinds = [settings.kinds[n % len(settings.kinds)] for n in range(settings.kills)]
    draw.shuffle(kinds)
    span = max(settings.seconds - s.FIRST_FAULT_S, 0.0)
    moments = [0.0, *sorted(span * draw.random() for _ in kinds)]
    gaps = [after - before for before, after in pairwise(moments)]
    return [
        Planned(gap, kind, draw.random(), draw.uniform(*s.PAUSE_S))
        for gap, kind in zip(gaps, kinds, strict=True)
    ]


class Nemesis:
    """Carries out the plan."""

    def __init__(self, exchange: Exchange, folder: Path, check_alive: Callable[[], None]) -> None:
        self.exchange, self.file = exchange, folder / "faults.jsonl"
        self.check_alive = check_alive  # raises when the load or the recorder died
        self.done: list[Fault] = []
        self.recent: dict[str, deque[float]] = {}  # kills of a child under this supervisor

    def run(self, planned: list[Planned]) -> None:
        """All of it, then everything is whole again."""
        self.wait(time.monotonic() + s.FIRST_FAULT_S)
        for fault in planned:
            self.wait(time.monotonic() + fault.gap)
            self._carry_out(fault)
        self._write()

    def wait(self, moment: float) -> None:
        """Sleep until then, as long as everybody lives."""
        while time.monotonic() < moment:
            self.check_alive()
            if not self.exchange.alive:
                raise RuntimeError("the supervisor ended by itself; its messages stand above")
            time.sleep(min(0.05, max(moment - time.monotonic(), 0.0)))

    def _carry_out(self, fault: Planned) -> None:
        if fault.kind in s.WHOLE_KINDS:
            self._whole(fault)
        else:
            self._child(fault)
        self._write()

    def _whole(self, fault: Planned) -> None:
        names = ["supervisor", *self.exchange.children()]
        self.exchange.kill_all(with_children=fault.kind == "all")
        done = Fault(fault.kind, names, time.monotonic_ns())
        self.done.append(done)
        self.recent.clear()
        done.back_s = self.exchange.start()

    def _child(self, fault: Planned) -> None:
        prefix = s.PROCESS_NAMES.get(fault.kind, "rb-")
        name, pid = self._victim(prefix, fault.draw)
        if fault.kind == s.PAUSE:
            stopped = self.exchange.signal(name, pid, signal.SIGSTOP)
            self.done.append(Fault(s.PAUSE, [name], time.monotonic_ns(), back_s=fault.pause_s))
            if stopped:
                self.wait(time.monotonic() + fault.pause_s)
                self.exchange.signal(name, pid, signal.SIGCONT)
            return
        self._spare(name)
        self.exchange.signal(name, pid, signal.SIGKILL)
        self.recent[name].append(time.monotonic())
        wait_dead([pid])
        done = Fault(fault.kind, [name], time.monotonic_ns())
        self.done.append(done)
        done.back_s = self._wait_back(name, pid)

    def _victim(self, prefix: str, draw: float) -> tuple[str, int]:
        # A child with that name; one that is being started anew is waited for.
        deadline = time.monotonic() + s.RETURN_S_MAX
        while True:
            found = sorted(self.exchange.named(prefix).items())
            if found:
                return found[int(draw * len(found))]
            if time.monotonic() > deadline:
                raise RuntimeError(f"no process called {prefix} for {s.RETURN_S_MAX:.0f} s")
            self.wait(time.monotonic() + POLL_S)

    def _spare(self, name: str) -> None:
        recent = self.recent.setdefault(name, deque(maxlen=s.KILLS_PER_MINUTE_MAX))
        if len(recent) == s.KILLS_PER_MINUTE_MAX:
            self.wait(recent[0] + 60)

    def _wait_back(self, name: str, old: int) -> float:
        began = time.monotonic()
        while time.monotonic() - began < s.RETURN_S_MAX:
            if self.exchange.children().get(name, old) != old:
                return time.monotonic() - began
            self.wait(time.monotonic() + POLL_S)
        return -1.0

    def _write(self) -> None:
        self.file.write_text("".join(json.dumps(asdict(f)) + "\n" for f in self.done))
