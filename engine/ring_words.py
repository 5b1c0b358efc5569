"""What all rings share: positions that may wrap, the sleep handshake, and segments with views.

Hot: position_add, position_diff and the handshake are part of the shard's and the gateways' loops.

Positions are int64 and only ever go up. They are compared by difference, so that nothing happens
when one passes 2**63. Compiled int64 addition has no overflow (LLVM may assume that there is none),
so the arithmetic is done as uint64, where wrapping is defined.

Sleep handshake (DESIGN §2), one flag word per sleeper, one eventfd per sleeping process:

    sleeper      flag := 1 -> seq_cst fence -> look for work again -> none: poll(eventfd)
    publisher    publish   -> seq_cst fence -> read flag -> 1: swap to 0, who succeeds signals

Without either fence both sides may read the old value of the other's word and the wake-up is lost
(measured; tests/engine/test_ring_model.py shows the interleaving). Whoever dies between swap and
signal leaves a sleeper that nobody will wake: a new producer or owner therefore signals its peers
once, unasked, and every sleep ends after 100 ms.
"""

import os
from typing import Any, Self

import numpy as np

from engine.atomics import (
    compare_swap,
    eventfd_signal,
    fence_seq_cst,
    load_relaxed,
    store_relaxed,
)
from engine.jit import JIT_DISABLED, helper, kernel, register_warmup
from engine.segment import Segment, SegmentError, segment_name

Array = np.ndarray[Any, Any]


def position_wrapped(position: int, count: int) -> int:
    """Return position + count, wrapping at 2**63; position_add for Python code."""
    return (int(position) + int(count) + 2**63) % 2**64 - 2**63


if JIT_DISABLED:
    # NumPy scalars warn where uint64 wraps.
    position_add = position_wrapped

    def position_diff(later: int, earlier: int) -> int:
        """Return how far `later` is ahead of `earlier`; right across the wrap."""
        return position_wrapped(later, -int(earlier))
else:

    @helper
    def position_add(position, count):
        """Return position + count, wrapping at 2**63."""
        return np.int64(np.uint64(position) + np.uint64(count))

    @helper
    def position_diff(later, earlier):
        """Return how far `later` is ahead of `earlier`; right across the wrap."""
        return np.int64(np.uint64(later) - np.uint64(earlier))


@helper
def words_copy(source, first, target, start, count):
    """target[start : start + count] = source[first : first + count], word by word.

    Unsigned places: with signed ones the compiler tests every word for Python's negative indexes
    (24 ns an event instead of 15).
    """
    for word in range(count):
        target[np.uint64(start + word)] = source[np.uint64(first + word)]


@kernel
def sleep_prepare(words, flag_index):
    """Sleeper: announce the sleep. Then look for work once more, and poll only if there is none."""
    store_relaxed(words, flag_index, 1)
    fence_seq_cst()


@kernel
def sleep_cancel(words, flag_index):
    """Sleeper: awake again (work found, woken or timed out)."""
    store_relaxed(words, flag_index, 0)


@kernel
def wake_needed(words, flag_index):
    """Publisher, after publishing: True when the sleeper must be signalled, by this caller."""
    fence_seq_cst()
    return load_relaxed(words, flag_index) == 1 and compare_swap(words, flag_index, 1, 0)


@kernel
def wake_sleepers(words, first, fds):
    """Publisher of many: signal fds[i] where words[first + i] sleeps; returns how many.

    fds[i] < 0: there is nobody. O(fds.size), one cache line of flags for eight.
    """
    fence_seq_cst()
    woken = 0
    for index in range(fds.size):
        if load_relaxed(words, first + index) == 1 and fds[index] >= 0:
            if compare_swap(words, first + index, 1, 0):
                eventfd_signal(fds[index])
                woken += 1
    return woken


def eventfd_add(fd: int) -> None:
    """Signal an eventfd; one that is at its limit is readable already. fd < 0: there is nobody."""
    if fd < 0:
        return
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        return


def check_capacity(capacity: int) -> None:
    """Raise SegmentError unless slots can be found by masking."""
    if capacity < 2 or capacity & (capacity - 1):
        raise SegmentError(f"capacity must be a power of two of at least 2, not {capacity}")


class RingSegment:
    """A segment with named array views; the kinds of ring derive from it."""

    kind = ""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Map what the supervisor made; SegmentError says why it may not be used."""
        return cls(Segment.attach(fd, cls.kind))

    @classmethod
    def open(cls, instance: str) -> Self:
        """Attach by name (`run.py top`, tools)."""
        return cls(Segment.open(segment_name(instance, cls.kind), cls.kind))

    @property
    def fd(self) -> int:
        return self.segment.fd

    def close(self) -> None:
        """Drop the views and the mapping."""
        for name in [n for n, value in vars(self).items() if isinstance(value, np.ndarray)]:
            delattr(self, name)
        self.segment.close()

    def unlink(self) -> None:
        """Remove the name; whoever is attached keeps the memory."""
        self.segment.unlink()


def _warm_up() -> None:
    words = np.zeros(8, np.int64)
    sleep_prepare(words, 0)
    wake_needed(words, 0)
    sleep_cancel(words, 0)
    wake_sleepers(words, 0, np.full(8, -1, np.int64))


register_warmup("engine.ring_words", _warm_up)
