"""What a process does when it finds no work: spin, yield, park.

Hot when busy, cold when idle. A process with a core to itself may spin for ever. Any other spins
briefly (an answer is often under way), then gives its core away call by call while there is
traffic and shortly after, then sleeps on its eventfd until somebody signals or PARK_TIMEOUT_S is
over. Two busy processes on one core alternate by sched_yield; an idle exchange uses no core.

    last work   +SPIN_NS      +YIELD_NS
    |  SPIN     |   YIELD     |   PARK ...

The policy is a function of the time since the last work alone: no I/O, no clock of its own. `Idle`
is its form for Python loops, `rest_kind` for kernels; the two agree (tested). Sleeping safely takes
the handshake of engine/ring_words.py around park().
"""

import os
import select
from enum import IntEnum

from engine.jit import helper

# A signalled sleeper needs 5 to 50 µs to run again: shorter than that, spinning costs less.
SPIN_NS = 20_000
# While orders come this often, nobody sleeps and no producer pays the system call of a signal.
YIELD_NS = 1_000_000
# Bounds what a lost signal or a dead peer can cost; heartbeats are written at least this often.
PARK_TIMEOUT_S = 0.1

MODES = ("adaptive", "spin", "park")


class Rest(IntEnum):
    """What to do now."""

    SPIN = 0
    YIELD = 1
    PARK = 2


SPIN, YIELD, PARK = int(Rest.SPIN), int(Rest.YIELD), int(Rest.PARK)
MODE_ADAPTIVE, MODE_SPIN, MODE_PARK = range(3)


@helper
def rest_kind(mode, idle_ns):
    """SPIN, YIELD or PARK, `idle_ns` after the last work; mode is an index into MODES."""
    if mode == MODE_SPIN or idle_ns < SPIN_NS:
        return SPIN
    if mode == MODE_PARK or idle_ns >= YIELD_NS:
        return PARK
    return YIELD


class Idle:
    """The policy for one loop: tell it when there was work, ask it when there was none."""

    def __init__(self, mode: str = "adaptive") -> None:
        if mode not in MODES:
            raise ValueError(f"idle mode must be one of {', '.join(MODES)}, not {mode!r}")
        self.mode = mode
        self._last_work_ns: int | None = None

    def worked(self, now_ns: int) -> None:
        """Note that there was work at this time (CLOCK_MONOTONIC, or any clock that goes up)."""
        self._last_work_ns = now_ns

    def rest(self, now_ns: int) -> Rest:
        """Say what to do, there being no work now. The first call after the start spins."""
        if self._last_work_ns is None:
            self._last_work_ns = now_ns
        idle_ns = now_ns - self._last_work_ns
        if self.mode == "spin" or idle_ns < SPIN_NS:
            return Rest.SPIN
        if self.mode == "park" or idle_ns >= YIELD_NS:
            return Rest.PARK
        return Rest.YIELD


def park(fd: int, timeout_s: float = PARK_TIMEOUT_S) -> bool:
    """Sleep until the eventfd is signalled, and take the signal; False when time ran out."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(max(timeout_s, 0.0) * 1000):
        return False
    drain(fd)
    return True


def drain(fd: int) -> None:
    """Take the signals that lie in a non-blocking eventfd, if any."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return
