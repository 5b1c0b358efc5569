"""Labelled counters and latency histograms in shared memory: what `run.py top` shows.

Written hot, read cold. Every process writes its own block, with relaxed stores of a single writer;
anybody reads at any time and may see one word newer than the next, never a torn one. The labels
stand in the segment as JSON: a reader needs to know nothing but the instance. Kind "counters":

    segment    [0] bytes of JSON | JSON | block | block ...       each block begins on a line
    block      [0] pid  [1] state  [2] heartbeat_ns | own labels | histogram | histogram ...

A histogram is HISTOGRAM_WORDS words: 1024 buckets, then count, sum and maximum. Log-linear like
HdrHistogram: every power of two is cut into 32 equal parts, so a value is known to 1 in 32. Below
64 ns it is exact; from 2**36 ns (69 s) on values count in the last bucket, the maximum is exact.

Limits: nothing guards against overflow; a sum of latencies reaches 2**63 ns after 292 years.

A process with Python's garbage collector (gateway, feed) counts its pauses: `collector_watched`.
"""

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
import orjson

from engine.atomics import leading_zeros, load_relaxed, store_relaxed
from engine.jit import helper, kernel, register_warmup
from engine.records import CACHE_LINE
from engine.segment import Segment, SegmentError, load_word, segment_name, store_word

KIND = "counters"
SUB_BUCKET_BITS = 5
SUB_BUCKETS = 1 << SUB_BUCKET_BITS
VALUE_BITS = 36
BUCKETS = (VALUE_BITS - SUB_BUCKET_BITS + 1) * SUB_BUCKETS
VALUE_MAX = (1 << VALUE_BITS) - 1
COUNT, SUM, MAXIMUM = BUCKETS, BUCKETS + 1, BUCKETS + 2
HISTOGRAM_WORDS = BUCKETS + 8
PID, STATE, HEARTBEAT_NS = 0, 1, 2
STANDARD_LABELS = ("pid", "state", "heartbeat_ns")
COLLECTOR_COUNTERS = ("collections", "collector_ns", "collector_longest_ns")
COLLECTOR_HISTOGRAM = "collector_pause"
_LINE_WORDS = CACHE_LINE // 8

assert BUCKETS == 1024
assert HISTOGRAM_WORDS % _LINE_WORDS == 0

_Array = np.ndarray[Any, Any]


class State(IntEnum):
    """Word `state` of every block."""

    ABSENT = 0
    STARTING = 1
    RUNNING = 2
    DRAINING = 3
    STOPPED = 4
    HALTED = 5


@helper
def counter_add(words, index, count):
    """Add to a counter of the own block (one writer: no locked instruction)."""
    store_relaxed(words, index, load_relaxed(words, index) + count)


@helper
def histogram_bucket(value):
    """Bucket of a value of nanoseconds; negative counts as 0."""
    value = min(max(value, 0), VALUE_MAX)
    if value < SUB_BUCKETS:
        return np.int64(value)
    shift = 63 - leading_zeros(np.uint64(value)) - SUB_BUCKET_BITS
    return np.int64(shift * SUB_BUCKETS + (value >> shift))


@helper
def histogram_record(words, base, value_ns):
    """Count one value in the histogram that begins at words[base]. O(1)."""
    value_ns = max(value_ns, 0)
    counter_add(words, base + histogram_bucket(value_ns), 1)
    counter_add(words, base + COUNT, 1)
    counter_add(words, base + SUM, value_ns)
    if value_ns > load_relaxed(words, base + MAXIMUM):
        store_relaxed(words, base + MAXIMUM, value_ns)


@kernel
def histogram_record_many(words, base, values_ns):
    """Count every value of an int64 array."""
    for index in range(values_ns.size):
        histogram_record(words, base, values_ns[index])


@kernel
def counter_increase(words, index, count):
    """Add to a counter from Python."""
    counter_add(words, index, count)


def bucket_lowest(bucket: int) -> int:
    """Return the smallest value of a bucket."""
    if bucket < SUB_BUCKETS:
        return bucket
    shift = bucket // SUB_BUCKETS - 1
    return (SUB_BUCKETS + bucket % SUB_BUCKETS) << shift


def bucket_highest(bucket: int) -> int:
    """Return the largest value of a bucket."""
    return bucket_lowest(bucket + 1) - 1


def recorded(histogram: _Array) -> list[tuple[int, int]]:
    """Return (highest value, count) of every bucket in use, ascending: food for other tools."""
    counts = np.array(histogram[:BUCKETS])
    return [(bucket_highest(int(b)), int(counts[b])) for b in np.flatnonzero(counts)]


def percentiles(
    histogram: _Array, percents: Sequence[float] = (50, 90, 99, 99.9, 99.99, 100)
) -> dict[float, int]:
    """Return, per percent, a value that this share of all does not exceed.

    Never too low, at most 1 in 32 too high, never above the exact maximum. All zero when empty.
    """
    counts = np.array(histogram[:BUCKETS])  # one copy: a histogram in use goes on changing
    total, maximum = int(counts.sum()), int(histogram[MAXIMUM])
    if total == 0:
        return dict.fromkeys(percents, 0)
    running = np.cumsum(counts)
    result = {}
    for percent in percents:
        # Rounded first: 1000 * 99.9 / 100 is a little more than 999 in floats.
        rank = min(max(math.ceil(round(total * percent / 100, 6)), 1), total)
        bucket = int(np.searchsorted(running, rank))
        highest = maximum if bucket == BUCKETS - 1 else min(bucket_highest(bucket), maximum)
        # The writer stores the maximum after the bucket: it may not have come to it yet.
        result[percent] = max(highest, bucket_lowest(bucket))
    return result


def _padded(words: int) -> int:
    return -(-words // _LINE_WORDS) * _LINE_WORDS


class Block:
    """One process's counters. `words` is the whole block; index() gives places in it."""

    def __init__(
        self, name: str, words: _Array, labels: Sequence[str], histograms: Sequence[str]
    ) -> None:
        self.name = name
        self.words = words
        self.labels = tuple(labels)
        self.histograms = tuple(histograms)
        self._indexes = {label: i for i, label in enumerate(self.labels)}
        first = _padded(len(self.labels))
        self._bases = {
            label: first + i * HISTOGRAM_WORDS for i, label in enumerate(self.histograms)
        }

    def index(self, label: str) -> int:
        """Return the place of a counter in `words`."""
        return self._indexes[label]

    def histogram_base(self, label: str) -> int:
        """Return where a histogram begins in `words`."""
        return self._bases[label]

    def histogram(self, label: str) -> _Array:
        """Return the words of one histogram."""
        base = self._bases[label]
        return self.words[base : base + HISTOGRAM_WORDS]

    def get(self, label: str) -> int:
        """Read one counter."""
        return int(load_word(self.words, self._indexes[label]))

    def set(self, label: str, value: int) -> None:
        """Write one counter."""
        store_word(self.words, self._indexes[label], int(value))

    def indexes(self, labels: Iterable[str]) -> _Array:
        """Return the places of several counters, for `set_many`."""
        return np.array([self._indexes[label] for label in labels], np.intp)

    def set_many(self, indexes: _Array, values: Sequence[Any] | _Array) -> None:
        """Write several counters at once, each whole, for loops that must not wait."""
        self.words[indexes] = values

    def add(self, label: str, count: int = 1) -> None:
        """Add to one counter; only the block's own process may."""
        counter_increase(self.words, self._indexes[label], int(count))

    def snapshot(self) -> dict[str, int]:
        """Read all counters."""
        return {label: self.get(label) for label in self.labels}


class Counters:
    """The counters segment of an instance."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        used = int(segment.words[0])
        if not 0 < used <= segment.words.size * 8 - 8:
            raise SegmentError(f"counters segment: labels of {used} bytes do not fit into it")
        labels = orjson.loads(segment.view(np.uint8, 8, used).tobytes())
        self.blocks: dict[str, Block] = {}
        at = 1 + -(-used // 8)
        for name, (names, histograms) in labels.items():
            at = _padded(at)
            size = _block_words(names, histograms)
            if at + size > segment.words.size:
                raise SegmentError(f"counters segment: block {name} lies outside of it")
            self.blocks[name] = Block(name, segment.view(np.int64, at * 8, size), names, histograms)
            at += size

    @classmethod
    def create(
        cls,
        instance: str,
        blocks: Mapping[str, Sequence[str]],
        histograms: Mapping[str, Sequence[str]] | None = None,
    ) -> "Counters":
        """Make the segment. Each block gets the standard labels in front of its own."""
        text, words = _description(blocks, histograms or {})
        segment = Segment.create(segment_name(instance, KIND), KIND, words * 8)
        return cls._described(segment, text)

    @classmethod
    def private(
        cls, blocks: Mapping[str, Sequence[str]], histograms: Mapping[str, Sequence[str]]
    ) -> "Counters":
        """Blocks in memory of this process alone: simulation and tests."""
        text, words = _description(blocks, histograms)
        return cls._described(Segment.private(KIND, words * 8), text)

    @classmethod
    def _described(cls, segment: Segment, text: bytes) -> "Counters":
        segment.view(np.uint8, 8, len(text))[:] = np.frombuffer(text, np.uint8)
        store_word(segment.words, 0, len(text))
        return cls(segment)

    @classmethod
    def attach(cls, fd: int) -> "Counters":
        """Map what the supervisor made."""
        return cls(Segment.attach(fd, KIND))

    @classmethod
    def open(cls, instance: str) -> "Counters":
        """Attach by name (`run.py top`)."""
        return cls(Segment.open(segment_name(instance, KIND), KIND))

    def block(self, name: str) -> Block:
        """Return one process's block."""
        return self.blocks[name]

    @property
    def fd(self) -> int:
        return self.segment.fd

    def close(self) -> None:
        """Drop the views and the mapping."""
        self.blocks.clear()
        self.segment.close()

    def unlink(self) -> None:
        """Remove the name."""
        self.segment.unlink()


def _description(
    blocks: Mapping[str, Sequence[str]], histograms: Mapping[str, Sequence[str]]
) -> tuple[bytes, int]:
    # The labels as JSON, and how many words they and the blocks take.
    table = {
        name: ([*STANDARD_LABELS, *labels], list(histograms.get(name, ())))
        for name, labels in blocks.items()
    }
    unknown = set(histograms) - set(blocks)
    if unknown:
        raise SegmentError(f"histograms for blocks that do not exist: {', '.join(sorted(unknown))}")
    for name, (labels, names) in table.items():
        if len({*labels, *names}) != len(labels) + len(names):
            raise SegmentError(f"counters block {name} has a label twice")
    text = orjson.dumps(table)
    size = 1 + -(-len(text) // 8)
    for labels, names in table.values():
        size = _padded(size) + _block_words(labels, names)
    return text, size


def _block_words(labels: Sequence[str], histograms: Sequence[str]) -> int:
    return _padded(len(labels)) + len(histograms) * HISTOGRAM_WORDS


@contextmanager
def collector_watched(find: Callable[[], Block | None]) -> Iterator[None]:
    """Count every pause of this process for the garbage collector meanwhile, in the block that
    `find` gives then: how many, together, the longest, and a histogram. They go on counting when
    the process is started again.

    Cold: the interpreter calls before and after a collection. On a busy core what the scheduler
    took meanwhile is in it. A block that lacks the labels is left alone.
    """
    pause = np.zeros(1, np.int64)
    since = 0

    def called(phase: str, info: dict[str, int]) -> None:
        nonlocal since
        if phase == "start":
            since = time.monotonic_ns()
            return
        took, block = time.monotonic_ns() - since, find()
        if block is None or not since or COLLECTOR_HISTOGRAM not in block.histograms:
            return
        pause[0] = took
        histogram_record_many(block.words, block.histogram_base(COLLECTOR_HISTOGRAM), pause)
        block.add("collections")
        block.add("collector_ns", took)
        block.set("collector_longest_ns", max(took, block.get("collector_longest_ns")))

    gc.callbacks.append(called)
    try:
        yield
    finally:
        gc.callbacks.remove(called)


def _warm_up() -> None:
    words = np.zeros(HISTOGRAM_WORDS, np.int64)
    histogram_record_many(words, 0, np.array([5, 70, 1 << 40]))
    counter_increase(words, 0, 1)


register_warmup("engine.counters", _warm_up)
