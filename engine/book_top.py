"""Top of every book, readable by anybody at any time (DESIGN §9).

Written hot (by a shard, once per batch and changed book), read cold. Segment kind "tops":
BOOK_TOP[shards * symbols_max]; the place of an instrument is shard * symbols_max + index, index
being the low 16 bits of its symbol_id. It is the instrument directory as well: symbol 0 means that
there is nobody in this place.

Sequence lock per record: `version` is odd while the record is in flux.

    writer   version := version | 1 -> seq_cst fence -> write -> version + 1 (release)
    reader   load version (acquire); odd: again -> copy -> acquire fence -> load version;
             another: again

A writer that dies inside leaves an odd version; the next one keeps it odd until it is done, hence
`| 1` and not `+ 1`. A reader gives up after TOP_READ_TRIES and says so.
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
from engine.records import BOOK_TOP, TOP_WORDS
from engine.ring_words import Array, RingSegment, words_copy
from engine.segment import Segment, segment_name

TOP_READ_TRIES = 64  # a write takes less than a copy: meeting 64 in a row means a dead writer


@helper
def top_write_begin(words, place):
    """Writer: the record is in flux from here on. `words` are BookTops.words."""
    first = place * TOP_WORDS
    store_relaxed(words, first, load_relaxed(words, first) | 1)
    fence_seq_cst()


@helper
def top_write_end(words, place):
    """Writer: the record is whole again."""
    first = place * TOP_WORDS
    store_release(words, first, load_relaxed(words, first) + 1)


@kernel
def top_copy(words, place, out_words):
    """Copy one record whole; False when it was in flux at every try."""
    first = place * TOP_WORDS
    for _ in range(TOP_READ_TRIES):
        version = load_acquire(words, first)
        if version & 1 == 0:
            words_copy(words, first, out_words, 0, TOP_WORDS)
            fence_acquire()
            if load_relaxed(words, first) == version:
                return True
    return False


class BookTops(RingSegment):
    """The tops of all books of an instance."""

    kind = "tops"

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.shards, self.symbols_max = segment.params
        count = self.shards * self.symbols_max
        self.records = segment.view(BOOK_TOP, 0, count)
        self.words = segment.view(np.int64, 0, count * TOP_WORDS)

    @classmethod
    def create(cls, instance: str, shards: int, symbols_max: int) -> "BookTops":
        """Make the records, all zero: no instrument anywhere."""
        name, size = segment_name(instance, cls.kind), shards * symbols_max * BOOK_TOP.itemsize
        return cls(Segment.create(name, cls.kind, size, (shards, symbols_max)))

    @classmethod
    def private(cls, shards: int, symbols_max: int) -> "BookTops":
        """Records in memory of this process alone: simulation and tests."""
        size = shards * symbols_max * BOOK_TOP.itemsize
        return cls(Segment.private(cls.kind, size, (shards, symbols_max)))

    def read(self, place: int) -> Array | None:
        """Return a whole copy of one record, shape (1,); None when none could be had."""
        out = np.zeros(1, BOOK_TOP)
        return out if top_copy(self.words, place, out.view(np.int64)) else None


def _warm_up() -> None:
    top_copy(np.zeros(TOP_WORDS, np.int64), 0, np.zeros(TOP_WORDS, np.int64))


register_warmup("engine.book_top", _warm_up)
