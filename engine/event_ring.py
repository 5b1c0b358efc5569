"""Event rings: what a shard says, to everybody who listens.

Hot. One ring per shard: one writer (the shard), up to READERS_MAX readers, none of which can make
the shard wait. Segment kind "events":

    ctrl     96 words per shard, twelve lines:
             [0] intent   [8] committed   [16] begun   [24..31] reader r sleeps
             [32 + 8 r] position of reader r, for display; seven words of the reader's own
    slots    EVENT_SLOT[shards * capacity]; position p (from 0) has the event with out_seq p + 1

    writer   raise intent (one past the last slot it is going to write) -> seq_cst fence
             -> overwrite -> store committed (release)
    reader   load committed (acquire) -> copy -> acquire fence -> load intent

intent - capacity > cursor means that the oldest event copied may have been overwritten while it
was read: the copy is thrown away, the lap is counted and the reader goes on at committed (from
step 2 on it reads what it lost from the event log).

intent never goes down and the ring outlives its writer: a new shard process keeps both words and
writes only events above committed. Were intent lowered, a reader could accept a slot that the dead
writer had begun to overwrite.
"""

import numpy as np

from engine.atomics import (
    fence_acquire,
    fence_seq_cst,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from engine.jit import helper, kernel, register_warmup
from engine.records import EVENT_SLOT, EVENT_SLOT_WORDS
from engine.ring_words import (
    Array,
    RingSegment,
    check_capacity,
    position_add,
    position_diff,
    position_wrapped,
    wake_sleepers,
    words_copy,
)
from engine.segment import Segment, SegmentError, load_word, segment_name, store_word

READERS_MAX = 8
INTENT, COMMITTED, BEGUN, READER_SLEEPS, READER_POSITION = 0, 8, 16, 24, 32
BEGINNING = BEGUN + 1  # position at which the ring has begun
EVENT_CTRL_WORDS = READER_POSITION + 8 * READERS_MAX

assert READER_SLEEPS + READERS_MAX == READER_POSITION
assert EVENT_CTRL_WORDS == 96
assert EVENT_SLOT_WORDS == 32


@helper
def event_slot(shard, position, capacity):
    """Slot of a position, in EventRings.slots."""
    return shard * capacity + (position & (capacity - 1))


@helper
def event_intend(ctrl, base, exclusive_end):
    """Writer: slots below `exclusive_end` are going to be overwritten. Only raises."""
    if position_diff(exclusive_end, load_relaxed(ctrl, base + INTENT)) > 0:
        store_relaxed(ctrl, base + INTENT, exclusive_end)
    fence_seq_cst()


@helper
def event_commit(ctrl, base, position):
    """Writer: everything below `position` is visible."""
    store_release(ctrl, base + COMMITTED, position)


@helper
def events_available(ctrl, base):
    """Reader: everything below this position may be read."""
    return load_acquire(ctrl, base + COMMITTED)


@helper
def event_lapped(ctrl, base, position, capacity):
    """Reader, after copying from `position` on: whether the copy may be torn."""
    fence_acquire()
    return position_diff(load_relaxed(ctrl, base + INTENT), position) > capacity


@kernel
def events_copy(ctrl, slot_words, shard, capacity, cursor, out_words):
    """Copy committed events from `cursor` on; returns (count, lapped). O(events).

    Lapped: count is 0 and `out_words` is rubbish.
    """
    base = shard * EVENT_CTRL_WORDS
    available = position_diff(events_available(ctrl, base), cursor)
    if available > capacity:
        return np.int64(0), True
    count = max(min(available, out_words.size // EVENT_SLOT_WORDS), 0)
    for index in range(count):
        first = event_slot(shard, position_add(cursor, index), capacity) * EVENT_SLOT_WORDS
        words_copy(slot_words, first, out_words, index * EVENT_SLOT_WORDS, EVENT_SLOT_WORDS)
    if event_lapped(ctrl, base, cursor, capacity):
        return np.int64(0), True
    return np.int64(count), False


def wake_readers(ctrl: Array, shard: int, reader_fds: Array) -> int:
    """Shard, after event_commit: signal each reader that sleeps; returns how many.

    reader_fds is int64; reader_fds[r] < 0 where there is no such reader.
    """
    return int(wake_sleepers(ctrl, shard * EVENT_CTRL_WORDS + READER_SLEEPS, reader_fds))


class EventRings(RingSegment):
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
        name, size = segment_name(instance, cls.kind), _payload_bytes(shards, capacity)
        made = cls(Segment.create(name, cls.kind, size, (shards, capacity)))
        for shard in range(shards):
            for word in (INTENT, COMMITTED):
                store_word(made.ctrl, shard * EVENT_CTRL_WORDS + word, first_position)
        return made

    @classmethod
    def private(cls, shards: int, capacity: int) -> "EventRings":
        """Rings in memory of this process alone: simulation and tests."""
        size = _payload_bytes(shards, capacity)
        return cls(Segment.private(cls.kind, size, (shards, capacity)))

    def begin(self, shard: int, position: int) -> None:
        """First owner of an instance: the shard's next event has out_seq position + 1."""
        for word in (INTENT, COMMITTED):
            store_word(self.ctrl, shard * EVENT_CTRL_WORDS + word, position)
        store_word(self.ctrl, shard * EVENT_CTRL_WORDS + BEGINNING, position)
        store_word(self.ctrl, shard * EVENT_CTRL_WORDS + BEGUN, 1)

    def begun(self, shard: int) -> bool:
        """Whether an owner has begun this ring."""
        return bool(load_word(self.ctrl, shard * EVENT_CTRL_WORDS + BEGUN))

    def beginning(self, shard: int) -> int:
        """Position at which this ring has begun."""
        return int(load_word(self.ctrl, shard * EVENT_CTRL_WORDS + BEGINNING))

    def committed(self, shard: int) -> int:
        """Everything below this position may be read."""
        return int(load_word(self.ctrl, shard * EVENT_CTRL_WORDS + COMMITTED))


def _payload_bytes(shards: int, capacity: int) -> int:
    check_capacity(capacity)
    return shards * (EVENT_CTRL_WORDS * 8 + capacity * EVENT_SLOT.itemsize)


class EventReader:
    """One reader of one shard's events: a cursor of its own, laps counted and survived."""

    def __init__(
        self, rings: EventRings, shard: int, reader_index: int, cursor: int | None = None
    ) -> None:
        """Begin at `cursor`, by default at what is committed now."""
        if not 0 <= reader_index < READERS_MAX:
            raise SegmentError(f"reader index {reader_index} is not 0 .. {READERS_MAX - 1}")
        base = shard * EVENT_CTRL_WORDS
        self.rings = rings
        self.shard = shard
        self.sleep_flag = base + READER_SLEEPS + reader_index
        self._position_word = base + READER_POSITION + 8 * reader_index
        self.cursor = rings.committed(shard) if cursor is None else cursor
        self.laps = 0
        self.skipped = 0
        store_word(rings.ctrl, self._position_word, self.cursor)

    def poll(self, out: Array) -> Array:
        """Copy new EVENT_SLOTs into `out` and return the part that was filled.

        A lap is counted in `laps` and the events lost in `skipped`; nothing is returned, the next
        call goes on at the newest position.
        """
        rings = self.rings
        count, lapped = events_copy(
            rings.ctrl,
            rings.slot_words,
            self.shard,
            rings.capacity,
            self.cursor,
            out.view(np.int64),
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


def _warm_up() -> None:
    ctrl, words = np.zeros(EVENT_CTRL_WORDS, np.int64), np.zeros(2 * EVENT_SLOT_WORDS, np.int64)
    events_copy(ctrl, words, 0, 2, 0, np.zeros(EVENT_SLOT_WORDS, np.int64))


register_warmup("engine.event_ring", _warm_up)
