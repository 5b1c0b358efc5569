"""The rings: commands into a shard, events out of it, the top of every book; and how a sleeper is
woken.

Hot. Everything here is called once per batch from Python, or inlined into the kernels of the shard
and the gateway.

COMMAND RINGS, kind "commands": one ring for each (shard, producer), one writer (the producer), one
reader (the shard).

    ctrl        32 words per ring: [0] consumer_position | [8] producer_position | [16] gate | [24]
    spare    one line each shard_ctrl  16 words per shard: [0] the shard sleeps | [8] spare
    slots       COMMAND[rings * capacity]; position p of ring r lies in slot r * capacity + (p &
    (capacity - 1))

  A slot is ready when its first word (= producer_seq) is p + 1, stored last with release: the
  message carries its own readiness, no shared counter is touched per message. The consumer reads,
  works, publishes what it made, and only then stores consumer_position (release), which gives the
  slots back. producer_position is for `top` alone. Never overwritten: a full ring, or a closed
  gate, is "no room" and the producer answers BUSY. A new producer goes on at the first slot, from
  consumer_position, whose word is not its position + 1. A new consumer starts at consumer_position
  and drops what the journal knows already (producer_seq): without that, a crash between work and
  store runs commands twice.

EVENT RINGS, kind "events": one ring per shard, one writer (the shard), up to READERS_MAX readers
that gate nobody.

    ctrl        96 words per shard: [0] intent | [8] committed | [16] spare | [24..31] reader r
    sleeps | [32 + 8 r] position of r slots       EVENT_SLOT[shards * capacity]; position p (from 0)
    holds the event with out_seq p + 1

  Writer: raise intent (one past the last slot it is going to write) -> seq_cst fence -> overwrite
  -> store committed (release). Reader: load committed (acquire) -> copy -> acquire fence -> load
  intent; intent - capacity > cursor means that the copy may be torn: it was lapped, counts that and
  goes on at committed. The ring outlives its writer: a new shard process keeps both words. Cursors
  in ctrl are for display.

BOOK TOPS, kind "tops": BOOK_TOP[shards * symbols_max], a sequence lock per record: version odd
while it is written.

SLEEP (DESIGN §2): sleeper: flag := 1 -> seq_cst fence -> look for work again -> poll(eventfd);
publisher: publish -> seq_cst fence -> read flag -> if 1, swap to 0 and signal. Without the fences
wake-ups are lost (measured).

Positions are int64, compared by difference, and may pass 2**63. tests/engine/test_ring_model.py
explores every interleaving and crash of these protocols; tests/engine/test_ring_memory_order.py
reads the compiled code for the order of the accesses.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.atomics import (
    compare_swap,
    eventfd_signal,
    fence_acquire,
    fence_seq_cst,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from engine.jit import JIT_DISABLED, helper, kernel, register_warmup
from engine.records import BOOK_TOP, COMMAND, COMMAND_WORDS, EVENT_SLOT, EVENT_SLOT_WORDS, TOP_WORDS
from engine.segment import (
    InstanceRunning,
    Segment,
    SegmentError,
    janitor,
    load_word,
    owner_alive,
    process_start_time,
    segment_name,
    store_word,
)

__all__ = [
    "CTRL_WORDS", "EVENT_CTRL_WORDS", "READERS_MAX", "SHARD_CTRL_WORDS", "BookTops", "CommandRings", "EventReader",
    "EventRings", "InstanceRunning", "Producer", "Segment", "SegmentError", "command_clear", "command_publish",
    "command_ready", "command_slot", "event_commit", "event_intend", "event_lapped", "event_slot", "events_available",
    "events_copy", "janitor", "load_word", "owner_alive", "position_add", "position_diff", "process_start_time",
    "ring_push", "ring_release", "ring_room", "ring_scan", "segment_name", "sleep_cancel", "sleep_prepare", "store_word",
    "top_copy", "top_write_begin", "top_write_end", "wake_needed", "wake_readers",
]  # fmt: skip

CTRL_WORDS = 32
CONSUMER_POSITION, PRODUCER_POSITION, GATE = 0, 8, 16
SHARD_CTRL_WORDS = 16
SHARD_SLEEPS = 0
READERS_MAX = 8
INTENT, COMMITTED, READER_SLEEPS, READER_POSITION = 0, 8, 24, 32
EVENT_CTRL_WORDS = READER_POSITION + 8 * READERS_MAX
TOP_READ_TRIES = (
    64  # a write lasts under 1 µs once per batch; a reader that meets it this often reports "busy"
)

assert READER_SLEEPS + READERS_MAX == READER_POSITION and EVENT_CTRL_WORDS == 96
assert COMMAND_WORDS == 24 and EVENT_SLOT_WORDS == 32

_Array = np.ndarray[Any, Any]


# -------------------------------------------------------------------------------------- positions
# Compiled int64 addition has no overflow (LLVM may assume that none happens), so positions are
# added as uint64, where wrapping is defined. NumPy scalars warn about that, hence the second form
# for NUMBA_DISABLE_JIT=1.
if JIT_DISABLED:

    def position_add(position: int, count: int) -> int:
        """Return position + count, wrapping at 2**63."""
        return (int(position) + int(count) + 2**63) % 2**64 - 2**63

    def position_diff(later: int, earlier: int) -> int:
        """Return how far `later` is ahead of `earlier`; right across the wrap."""
        return (int(later) - int(earlier) + 2**63) % 2**64 - 2**63
else:

    @helper
    def position_add(position, count):
        """Return position + count, wrapping at 2**63."""
        return np.int64(np.uint64(position) + np.uint64(count))

    @helper
    def position_diff(later, earlier):
        """Return how far `later` is ahead of `earlier`; right across the wrap."""
        return np.int64(np.uint64(later) - np.uint64(earlier))


# ----------------------------------------------------------------------------------- command ring
@helper
def command_slot(ring, position, capacity):
    """Slot of a position, in CommandRings.slots."""
    return ring * capacity + (position & (capacity - 1))


@helper
def command_ready(slot_words, slot, position):
    """Whether the command of `position` is there; its payload may be read then."""
    return load_acquire(slot_words, slot * COMMAND_WORDS) == position_add(position, 1)


@helper
def command_clear(slot_words, slot):
    """Zero everything but the readiness word: reserved bytes must not carry an older command."""
    first = slot * COMMAND_WORDS
    for word in range(first + 1, first + COMMAND_WORDS):
        slot_words[word] = 0


@helper
def command_publish(slot_words, slot, position):
    """Hand the slot to the shard: the payload is visible before the word."""
    store_release(slot_words, slot * COMMAND_WORDS, position_add(position, 1))


@helper
def ring_room(ctrl, ring, position, capacity, cached_consumer):
    """(free slots, consumer position now known); 0 when full or gated.

    The consumer's line is read only when what is known of it leaves no room.
    """
    base = ring * CTRL_WORDS
    if load_acquire(ctrl, base + GATE) != 0:
        return np.int64(0), cached_consumer
    room = capacity - position_diff(position, cached_consumer)
    if room <= 0:
        cached_consumer = load_acquire(ctrl, base + CONSUMER_POSITION)
        room = capacity - position_diff(position, cached_consumer)
    return room, cached_consumer


@helper
def ring_release(ctrl, ring, position):
    """Consumer: everything below `position` is done with, its slots may be overwritten. Once per batch, after the work."""
    store_release(ctrl, ring * CTRL_WORDS + CONSUMER_POSITION, position)


@kernel
def ring_push(ctrl, slot_words, ring, capacity, record_words, position):
    """Publish as many of the records as fit, from `position` on; returns how many. For cold producers. O(records)."""
    consumer = load_acquire(ctrl, ring * CTRL_WORDS + CONSUMER_POSITION)
    room, consumer = ring_room(ctrl, ring, position, capacity, consumer)
    count = min(room, record_words.size // COMMAND_WORDS)
    for index in range(count):
        at = position_add(position, index)
        slot = command_slot(ring, at, capacity)
        for word in range(1, COMMAND_WORDS):
            slot_words[slot * COMMAND_WORDS + word] = record_words[index * COMMAND_WORDS + word]
        command_publish(slot_words, slot, at)
    if count > 0:
        store_release(ctrl, ring * CTRL_WORDS + PRODUCER_POSITION, position_add(position, count))
    return max(count, 0)


@kernel
def ring_scan(ctrl, slot_words, ring, capacity):
    """Where a new producer goes on: the first position, from the consumer's, that is not published. O(capacity)."""
    position = load_acquire(ctrl, ring * CTRL_WORDS + CONSUMER_POSITION)
    for _ in range(capacity):
        if not command_ready(slot_words, command_slot(ring, position, capacity), position):
            break
        position = position_add(position, 1)
    return position


# ------------------------------------------------------------------------------------- event ring
@helper
def event_slot(shard, position, capacity):
    """Slot of a position, in EventRings.slots."""
    return shard * capacity + (position & (capacity - 1))


@helper
def event_intend(ctrl, base, exclusive_end):
    """Say that slots below `exclusive_end` are going to be overwritten, before the first is. Never lowered."""
    if position_diff(exclusive_end, load_relaxed(ctrl, base + INTENT)) > 0:
        store_relaxed(ctrl, base + INTENT, exclusive_end)
    fence_seq_cst()


@helper
def event_commit(ctrl, base, position):
    """Make everything below `position` visible."""
    store_release(ctrl, base + COMMITTED, position)


@helper
def events_available(ctrl, base):
    """Everything below this position may be read."""
    return load_acquire(ctrl, base + COMMITTED)


@helper
def event_lapped(ctrl, base, position, capacity):
    """Whether what was copied from `position` on may have been overwritten meanwhile."""
    fence_acquire()
    return position_diff(load_relaxed(ctrl, base + INTENT), position) > capacity


@kernel
def events_copy(ctrl, slot_words, shard, capacity, cursor, out_words):
    """Copy committed events from `cursor` on; returns (count, lapped). Lapped: count is 0, `out` is rubbish. O(events)."""
    base = shard * EVENT_CTRL_WORDS
    available = position_diff(events_available(ctrl, base), cursor)
    if available > capacity or event_lapped(ctrl, base, cursor, capacity):
        return np.int64(0), True
    count = max(min(available, out_words.size // EVENT_SLOT_WORDS), 0)
    for index in range(count):
        source = event_slot(shard, position_add(cursor, index), capacity) * EVENT_SLOT_WORDS
        target = index * EVENT_SLOT_WORDS
        for word in range(EVENT_SLOT_WORDS):
            out_words[target + word] = slot_words[source + word]
    if event_lapped(ctrl, base, cursor, capacity):
        return np.int64(0), True
    return np.int64(count), False


# ------------------------------------------------------------------------------------- book tops
@helper
def top_write_begin(words, index):
    """Writer: the record of `index` is in flux from here; words are BookTops.words."""
    version = load_relaxed(words, index * TOP_WORDS)
    store_relaxed(words, index * TOP_WORDS, (version | 1))
    fence_seq_cst()


@helper
def top_write_end(words, index):
    """Writer: the record is whole again, with an even version higher than the last."""
    store_release(words, index * TOP_WORDS, load_relaxed(words, index * TOP_WORDS) + 1)


@kernel
def top_copy(words, index, out_words):
    """Copy one record whole; False when it was in flux at every try (the writer may have died in it)."""
    first = index * TOP_WORDS
    for _ in range(TOP_READ_TRIES):
        version = load_acquire(words, first)
        if version & 1 == 0:
            for word in range(TOP_WORDS):
                out_words[word] = words[first + word]
            fence_acquire()
            if load_relaxed(words, first) == version:
                return True
    return False


# ------------------------------------------------------------------------------ sleeping and waking
@kernel
def sleep_prepare(words, flag_index):
    """Sleeper, first half: announce the sleep. Then look for work once more, and poll only if there is none."""
    store_relaxed(words, flag_index, 1)
    fence_seq_cst()


@kernel
def sleep_cancel(words, flag_index):
    """Sleeper: awake again (work found, woken or timed out)."""
    store_relaxed(words, flag_index, 0)


@kernel
def wake_needed(words, flag_index):
    """Publisher, after publishing: True when the sleeper must be signalled, and by this caller alone."""
    fence_seq_cst()
    return load_relaxed(words, flag_index) == 1 and compare_swap(words, flag_index, 1, 0)


@kernel
def wake_readers(ctrl, shard, reader_fds):
    """Shard, after event_commit: signal each reader that sleeps; returns how many. reader_fds[r] < 0: no such reader."""
    fence_seq_cst()
    first = shard * EVENT_CTRL_WORDS + READER_SLEEPS
    woken = 0
    for reader in range(min(READERS_MAX, reader_fds.size)):
        if load_relaxed(ctrl, first + reader) == 1 and reader_fds[reader] >= 0:
            if compare_swap(ctrl, first + reader, 1, 0):
                eventfd_signal(reader_fds[reader])
                woken += 1
    return woken


# ------------------------------------------------------------------------------------ Python faces
class _Rings:
    # What the three kinds share: they are a segment with named views.
    kind = ""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment

    @classmethod
    def attach(cls, fd: int) -> Any:
        """Map what the supervisor made; raises SegmentError with the reason when it may not be used."""
        return cls(Segment.attach(fd, cls.kind))

    @classmethod
    def open(cls, instance: str) -> Any:
        """Attach by name."""
        return cls(Segment.open(segment_name(instance, cls.kind), cls.kind))

    @property
    def fd(self) -> int:
        return self.segment.fd

    def close(self) -> None:
        """Drop the views and the mapping."""
        for name in [n for n, v in vars(self).items() if isinstance(v, np.ndarray)]:
            delattr(self, name)
        self.segment.close()

    def unlink(self) -> None:
        """Remove the name."""
        self.segment.unlink()


def _check_capacity(capacity: int) -> None:
    if capacity < 2 or capacity & (capacity - 1):
        raise SegmentError(f"ring capacity must be a power of two of at least 2, not {capacity}")


class CommandRings(_Rings):
    """All command rings of an instance."""

    kind = "commands"

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.shards, self.producers, self.capacity = segment.params
        self.rings = self.shards * self.producers
        ctrl, shard_ctrl = self.rings * CTRL_WORDS, self.shards * SHARD_CTRL_WORDS
        self.ctrl = segment.view(np.int64, 0, ctrl)
        self.shard_ctrl = segment.view(np.int64, ctrl * 8, shard_ctrl)
        slots = self.rings * self.capacity
        self.slots = segment.view(COMMAND, (ctrl + shard_ctrl) * 8, slots)
        self.slot_words = segment.view(np.int64, (ctrl + shard_ctrl) * 8, slots * COMMAND_WORDS)

    @classmethod
    def create(
        cls, instance: str, shards: int, producers: int, capacity: int, first_position: int = 0
    ) -> "CommandRings":
        """Make the rings, empty; every ring begins at `first_position`."""
        _check_capacity(capacity)
        rings = shards * producers
        size = (
            rings * CTRL_WORDS + shards * SHARD_CTRL_WORDS
        ) * 8 + rings * capacity * COMMAND.itemsize
        made = cls(
            Segment.create(
                segment_name(instance, cls.kind), cls.kind, size, (shards, producers, capacity)
            )
        )
        for ring in range(rings):
            made.begin(ring, first_position)
        return made

    def begin(self, ring: int, position: int) -> None:
        """Set where a ring goes on (step 2: the last journaled producer_seq). Only before anybody uses it."""
        store_word(self.ctrl, ring * CTRL_WORDS + CONSUMER_POSITION, position)
        store_word(self.ctrl, ring * CTRL_WORDS + PRODUCER_POSITION, position)

    def ring(self, shard: int, producer: int) -> int:
        """Return the ring's index."""
        return shard * self.producers + producer


class Producer:
    """One producer's end of its ring to every shard, for code that sends little (supervisor, tools, tests)."""

    def __init__(self, rings: CommandRings, producer: int, shard_fds: Sequence[int]) -> None:
        self.rings = rings
        self.producer = producer
        self.shard_fds = list(shard_fds)
        self.position = [
            int(ring_scan(rings.ctrl, rings.slot_words, rings.ring(s, producer), rings.capacity))
            for s in range(rings.shards)
        ]

    def push(self, shard: int, records: _Array) -> int:
        """Publish COMMANDs to a shard and wake it; returns how many fitted (fewer: full or gated,
        try again later).

        producer and producer_seq are set here; position[shard] is the producer_seq of the last one
        that fitted.
        """
        records = np.ascontiguousarray(records)
        records["producer"] = self.producer
        rings, position = self.rings, self.position[shard]
        ring = rings.ring(shard, self.producer)
        words = records.view(np.int64)
        count = int(ring_push(rings.ctrl, rings.slot_words, ring, rings.capacity, words, position))
        if count:
            records["producer_seq"][:count] = [
                position_wrapped(position, i + 1) for i in range(count)
            ]
            self.position[shard] = position_wrapped(position, count)
            self.wake(shard)
        return count

    def wake(self, shard: int) -> None:
        """Signal the shard if it sleeps."""
        if wake_needed(self.rings.shard_ctrl, shard * SHARD_CTRL_WORDS + SHARD_SLEEPS):
            eventfd_add(self.shard_fds[shard])


class EventRings(_Rings):
    """All event rings of an instance."""

    kind = "events"

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.shards, self.capacity = segment.params
        ctrl, slots = self.shards * EVENT_CTRL_WORDS, self.shards * self.capacity
        self.ctrl = segment.view(np.int64, 0, ctrl)
        self.slots = segment.view(EVENT_SLOT, ctrl * 8, slots)
        self.slot_words = segment.view(np.int64, ctrl * 8, slots * EVENT_SLOT_WORDS)

    @classmethod
    def create(
        cls, instance: str, shards: int, capacity: int, first_position: int = 0
    ) -> "EventRings":
        """Make the rings, empty; every ring begins at `first_position`."""
        _check_capacity(capacity)
        size = shards * (EVENT_CTRL_WORDS * 8 + capacity * EVENT_SLOT.itemsize)
        made = cls(
            Segment.create(segment_name(instance, cls.kind), cls.kind, size, (shards, capacity))
        )
        for shard in range(shards):
            for word in (INTENT, COMMITTED):
                store_word(made.ctrl, shard * EVENT_CTRL_WORDS + word, first_position)
        return made

    def committed(self, shard: int) -> int:
        """Everything below this position may be read."""
        return int(load_word(self.ctrl, shard * EVENT_CTRL_WORDS + COMMITTED))


class EventReader:
    """One reader of one shard's events: a cursor of its own, laps counted and survived."""

    def __init__(
        self, rings: EventRings, shard: int, reader_index: int, cursor: int | None = None
    ) -> None:
        if not 0 <= reader_index < READERS_MAX:
            raise SegmentError(f"reader index {reader_index} is not 0 .. {READERS_MAX - 1}")
        self.rings = rings
        self.shard = shard
        base = shard * EVENT_CTRL_WORDS
        self.sleep_flag = base + READER_SLEEPS + reader_index
        self._position_word = base + READER_POSITION + 8 * reader_index
        self.cursor = rings.committed(shard) if cursor is None else cursor
        self.laps = 0
        self.skipped = 0
        store_word(rings.ctrl, self._position_word, self.cursor)

    def poll(self, out: _Array) -> _Array:
        """Copy new EVENT_SLOTs into `out` and return the part that was filled.

        A lap is counted in `laps`, the events lost in `skipped`; the reader goes on at the newest
        position, empty-handed.
        """
        rings, words = self.rings, out.view(np.int64)
        count, lapped = events_copy(
            rings.ctrl, rings.slot_words, self.shard, rings.capacity, self.cursor, words
        )
        if lapped:
            newest = rings.committed(self.shard)
            self.laps += 1
            self.skipped += position_wrapped(newest, -self.cursor)
            self.cursor = newest
        elif count:
            self.cursor = position_wrapped(self.cursor, count)
        if lapped or count:
            store_word(rings.ctrl, self._position_word, self.cursor)
        return out[:count]

    def pending(self) -> bool:
        """Whether poll would find something."""
        return self.rings.committed(self.shard) != self.cursor


class BookTops(_Rings):
    """Top of every book. Place of a symbol: shard * symbols_max + index (the low 16 bits of its symbol_id)."""

    kind = "tops"

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.shards, self.symbols_max = segment.params
        self.records = segment.view(BOOK_TOP, 0, self.shards * self.symbols_max)
        self.words = segment.view(np.int64, 0, self.shards * self.symbols_max * TOP_WORDS)

    @classmethod
    def create(cls, instance: str, shards: int, symbols_max: int) -> "BookTops":
        """Make the records, all zero: no instrument anywhere."""
        size = shards * symbols_max * BOOK_TOP.itemsize
        return cls(
            Segment.create(segment_name(instance, cls.kind), cls.kind, size, (shards, symbols_max))
        )

    def read(self, place: int) -> _Array | None:
        """Copy one record whole; None while it cannot be had (writer busy at every try)."""
        out = np.zeros(1, BOOK_TOP)
        return out if top_copy(self.words, place, out.view(np.int64)) else None


def position_wrapped(position: int, count: int) -> int:
    """position_add for Python code."""
    return (int(position) + int(count) + 2**63) % 2**64 - 2**63


def eventfd_add(fd: int) -> None:
    """Add 1 to an eventfd; one that is at its limit is readable already."""
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        return


def _warm_up() -> None:
    one, two = np.int64(1), np.int64(2)
    ctrl, words = np.zeros(CTRL_WORDS, np.int64), np.zeros(2 * COMMAND_WORDS, np.int64)
    ring_push(ctrl, words, 0, int(two), np.zeros(COMMAND_WORDS, np.int64), 0)
    ring_scan(ctrl, words, 0, int(two))
    control, events = np.zeros(EVENT_CTRL_WORDS, np.int64), np.zeros(2 * EVENT_SLOT_WORDS, np.int64)
    events_copy(control, events, 0, 2, 0, np.zeros(EVENT_SLOT_WORDS, np.int64))
    top_copy(np.zeros(TOP_WORDS, np.int64), 0, np.zeros(TOP_WORDS, np.int64))
    sleep_prepare(ctrl, 24)
    wake_needed(ctrl, 24)
    sleep_cancel(ctrl, 24)
    wake_readers(control, 0, np.full(READERS_MAX, -one))


register_warmup("engine.shm_ring", _warm_up)
