"""Floor of the rings: one 64-byte message there and one back between two pinned processes that
spin. Compiled.

     core A  ping ──ring there (sequence in the slot)──▶ pong  core B
             ping ◀──────────────ring back────────────── pong

One cache line per message: seven payload words and, written last with release, the word that says
the slot is ready. It is the copy of the command ring's idea without gating, wake-up, checks or a
second cache line. What the exchange adds to it, ring to ring, is the price of a 192-byte command,
a 256-byte event and the step between. The other process is this module started by exec; the
memory is an anonymous file passed to it, so nothing can be left behind.

Both wait for a bounded time only: a dead peer ends the measurement with an error, not
with a hang.
"""

import mmap
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.atomics import CLOCK_MONOTONIC, clock_ns, load_acquire, store_release
from engine.jit import helper, kernel, register_warmup

SLOT_WORDS = 8
CAPACITY = 1024
_BACK = CAPACITY * SLOT_WORDS  # first word of the ring back
_WORDS = 2 * _BACK
_SPINS_PER_LOOK = 1 << 20  # the clock is read only after about a millisecond of nothing
_STALL_NS = 20_000_000_000
_STOP = -1


class RingTimes(NamedTuple):
    """Round trips in nanoseconds, clock included, and what reading the clock twice costs."""

    latencies: npt.NDArray[np.int64]
    clock_ns: float


@helper
def ring_send(words, base, position, value):
    """Write one message: payload first, then the word that makes it visible."""
    slot = base + (position & (CAPACITY - 1)) * SLOT_WORDS
    for k in range(1, SLOT_WORDS):
        words[slot + k] = value
    store_release(words, slot, position + 1)


@helper
def ring_receive(words, base, position):
    """Wait for message `position`; its first payload word, or the stop value after too long."""
    slot = base + (position & (CAPACITY - 1)) * SLOT_WORDS
    deadline = np.int64(0)
    while True:
        for _ in range(_SPINS_PER_LOOK):
            if load_acquire(words, slot) == position + 1:
                return words[slot + 1]
        now = clock_ns(CLOCK_MONOTONIC)
        if deadline == 0:
            deadline = now + _STALL_NS
        elif now > deadline:
            return np.int64(_STOP)


@kernel
def ring_ping(words, first, interval_ns, latencies):
    """Send latencies.size messages from position `first`, one by one, each at its planned time (at
    once when interval_ns is 0); return how many came back. Latency counts from the plan.
    """
    begin = clock_ns(CLOCK_MONOTONIC)
    for k in range(latencies.size):
        start = clock_ns(CLOCK_MONOTONIC)
        if interval_ns > 0:
            planned = begin + k * interval_ns
            while start < planned:
                start = clock_ns(CLOCK_MONOTONIC)
            start = planned
        ring_send(words, 0, first + k, k)
        if ring_receive(words, _BACK, first + k) != k:
            return k
        latencies[k] = clock_ns(CLOCK_MONOTONIC) - start
    return latencies.size


@kernel
def ring_pong(words):
    """Send every message back until the stop value; return how many."""
    position = 0
    while True:
        value = ring_receive(words, 0, position)
        if value == _STOP:
            return position
        ring_send(words, _BACK, position, value)
        position += 1


@kernel
def clock_cost(samples):
    """Fill samples with the time between two readings of the clock."""
    for k in range(samples.size):
        start = clock_ns(CLOCK_MONOTONIC)
        samples[k] = clock_ns(CLOCK_MONOTONIC) - start


def measure_ring(
    own_core: int, other_core: int, count: int = 200_000, interval_ns: int = 0
) -> RingTimes:
    """Round trips between two cores; the caller's thread is pinned to own_core meanwhile.

    With an interval each message has a planned time and latency counts from it, as for the thing
    measured beside it: what the machine takes from two bare spinners then stands in the floor too.
    """
    _warm()
    fd = os.memfd_create("ring-floor", os.MFD_CLOEXEC)
    os.ftruncate(fd, _WORDS * 8)
    memory = mmap.mmap(fd, _WORDS * 8)
    words = np.frombuffer(memory, np.int64)
    command = [sys.executable, "-m", "bench.floors.ring", str(fd), str(other_core)]
    child = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE)
    assert child.stdout is not None
    before = os.sched_getaffinity(0)
    try:
        child.stdout.read(1)  # the other side has its kernels and is about to wait
        os.sched_setaffinity(0, {own_core})
        warm, latencies = np.zeros(min(count, 20_000), np.int64), np.zeros(count, np.int64)
        done = ring_ping(words, 0, 0, warm)
        done += ring_ping(words, warm.size, interval_ns, latencies)
        _stop(words, done)
        if done != warm.size + count or child.wait(timeout=30) != 0:
            raise RuntimeError(f"the ring floor's other process ended after {done} messages")
        samples = np.zeros(10_000, np.int64)
        clock_cost(samples)
        return RingTimes(latencies, float(np.median(samples)))
    finally:
        os.sched_setaffinity(0, before)
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdout.close()
        os.close(fd)


def _stop(words: npt.NDArray[np.int64], position: int) -> None:
    slot = (position & (CAPACITY - 1)) * SLOT_WORDS
    words[slot + 1] = _STOP
    words[slot] = position + 1


def _other_side(fd: int, core: int) -> int:
    os.sched_setaffinity(0, {core})
    words = np.frombuffer(mmap.mmap(fd, _WORDS * 8), np.int64)
    _warm()
    os.write(1, b"r")
    ring_pong(words)
    return 0


def _warm() -> None:
    words = np.zeros(_WORDS, np.int64)
    _stop(words, 0)
    ring_pong(words)  # finds the stop value at once
    ring_ping(words, 0, 0, np.zeros(0, np.int64))
    clock_cost(np.zeros(0, np.int64))


register_warmup("bench.floors.ring", _warm)

if __name__ == "__main__":
    sys.exit(_other_side(int(sys.argv[1]), int(sys.argv[2])))
