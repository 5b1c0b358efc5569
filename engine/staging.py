"""Staging rings: sequenced commands on their way from a shard to the disk (DESIGN §6).

Hot. One ring per shard: the shard writes, the journal process reads and gives slots back at
`durable` (mode os: `written`), so whatever is not on disk yet is here when both die. Part of the
journal: never removed before a recovery has read it. Segment kind "staging":

    ctrl     64 words per shard, eight lines; positions are in_seq of the last record concerned
    slots    COMMAND[shards * capacity]; in_seq n of a shard is in slot (n - 1) & (capacity - 1)

    shard    copy records, chain their CRCs -> store STAGED (release) -> commit their events
    journal  load STAGED (acquire) -> pwrite -> WRITTEN -> fdatasync -> DURABLE (release)

MARK (seven words from M_VERSION on, under a sequence lock) is the shard's running CRC of all EVENT
bytes as of one in_seq: whoever replays to there compares (engine/event_crc.py).
"""

import numpy as np

from engine.records import COMMAND, COMMAND_WORDS
from engine.ring_words import RingSegment, check_capacity
from engine.segment import Segment, load_word, store_word

STAGED = 0  # shard
WRITTEN, DURABLE = 8, 16  # journal process; in the page cache, on disk
JOURNAL_SLEEPS, FOLLOWER_SLEEPS = 24, 25  # flags of the sleep handshake
GATE_CLOSED = 32  # shard, for display
STORAGE = 33  # journal process: STORAGE_*
M_VERSION, M_IN_SEQ, M_OUT_SEQ, M_CRC = 40, 41, 42, 43  # shard; three CRC words, one per line
FOLLOWED = 48  # follower: replayed up to here
LOG_END = 49  # follower: out_seq up to which the event log may be read
LOG_DURABLE = 50
LOG_DURABLE_IN_SEQ = 60  # the last command all of whose events are in it
SNAPSHOT, SNAPSHOT_BEFORE = 51, 52  # in_seq of the two newest snapshots
READERS_WAIT = 53  # count: somebody waits for the log, the follower shall hurry
LIVE_STATE = 54  # supervisor: which of the two state segments is the live one
WRITER_EPOCH = 55  # supervisor: epoch of the shard's present owner
FEED_DATE, FEED_EPOCH = 56, 57  # shard: feed session now (yyyymmdd, epoch)
INCARNATION = 58  # shard: what a resuming client's must equal
TAKE_OVER = 59  # supervisor: the follower shall become the shard, in this epoch
STAGING_CTRL_WORDS = 64
STORAGE_GOOD, STORAGE_LOW, STORAGE_FAILED = 0, 1, 2


class StagingRings(RingSegment):
    """All staging rings of an instance."""

    kind = "staging"

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.shards, self.capacity = segment.params
        ctrl, slots = self.shards * STAGING_CTRL_WORDS, self.shards * self.capacity
        self.ctrl = segment.view(np.int64, 0, ctrl)
        self.slots = segment.view(COMMAND, ctrl * 8, slots)
        self.slot_words = segment.view(np.int64, ctrl * 8, slots * COMMAND_WORDS)

    @classmethod
    def create(cls, name: str, shards: int, capacity: int) -> "StagingRings":
        """Make the rings under a segment name of their own: those of the last run may still be
        there. `begin` says where each starts.
        """
        size = _payload_bytes(shards, capacity)
        return cls(Segment.create(name, cls.kind, size, (shards, capacity)))

    @classmethod
    def private(cls, shards: int, capacity: int) -> "StagingRings":
        """Rings in memory of this process alone: simulation and tests."""
        size = _payload_bytes(shards, capacity)
        return cls(Segment.private(cls.kind, size, (shards, capacity)))

    def begin(self, shard: int, in_seq: int) -> None:
        """Everything up to `in_seq` is on disk; the next record staged is in_seq + 1."""
        for word in (STAGED, WRITTEN, DURABLE):
            self.set(shard, word, in_seq)

    def get(self, shard: int, word: int) -> int:
        """One control word."""
        return int(load_word(self.ctrl, shard * STAGING_CTRL_WORDS + word))

    def set(self, shard: int, word: int, value: int) -> None:
        """Write a control word; each has one writer."""
        store_word(self.ctrl, shard * STAGING_CTRL_WORDS + word, int(value))

    def restage(self, shard: int, records: np.ndarray) -> None:
        """Take over what the last run had staged behind `begin`."""
        places = (records["in_seq"] - 1) & (self.capacity - 1)
        self.slots[shard * self.capacity + places] = records
        self.set(shard, STAGED, self.get(shard, STAGED) + len(records))

    def records(self, shard: int, after: int, until: int) -> np.ndarray:
        """Copy of the records after+1 .. until (at most the capacity)."""
        places = np.arange(after, until) & (self.capacity - 1)
        return np.array(self.slots[shard * self.capacity + places])


def _payload_bytes(shards: int, capacity: int) -> int:
    check_capacity(capacity)
    return shards * (STAGING_CTRL_WORDS * 8 + capacity * COMMAND.itemsize)
