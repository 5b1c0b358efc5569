"""A shard run again from its files, on the side: for `run.py verify` and the time machine.

Cold around the compiled replay. The same state and the same events as recovery and follower make,
in memory of its own; nothing is written anywhere.

    rerun = Rerun(kept, shard)                  # or from a snapshot
    for events in rerun.follow(until=1000): ...
    rerun.state                                 # as of command 1000
"""

from collections.abc import Iterator

import numpy as np

from engine.book_state import IN_TS, ShardState, allocate_state, private_array, set_policy
from engine.crc32c import CRC_START
from engine.file_header import FileRefused
from engine.journal_reader import JournalRead
from engine.kept_directory import KeptDirectory
from engine.records import COMMAND, EVENT, EVENT_SLOT
from engine.replay import Replay
from engine.snapshot import SnapshotExtra, snapshot_list, snapshot_read

EVENT_WORDS = EVENT.itemsize // 8
NO_EVENTS = np.zeros(0, EVENT)


def ring_events(state: ShardState, first: int, end: int) -> np.ndarray:
    """Copy of the EVENTs at positions first .. end - 1, which must still be in the state's ring."""
    ring = state.events
    places = np.arange(first, end) & (len(ring) - 1)
    words = ring.view("<i8").reshape(len(ring), -1)[places, :EVENT_WORDS]
    return np.ascontiguousarray(words).view(EVENT).reshape(-1)


class Rerun:
    """One shard at some command of its journal, going on.

    `snapshot`: begin with the state of this in_seq (FileRefused when its file is bad), otherwise
    before the first command. `copied`: whether `follow` hands out the events.
    """

    def __init__(
        self, kept: KeptDirectory, shard: int, snapshot: int = 0, *, copied: bool = True
    ) -> None:
        config = kept.config
        self.kept, self.shard, self.copied = kept, shard, copied
        events = private_array(EVENT_SLOT, config.rings.event_capacity)
        self.extra: SnapshotExtra | None = None
        self.crc = CRC_START  # of the last command's record
        if snapshot:
            state, self.extra = snapshot_read(
                kept.disk, kept.path, shard, snapshot, config.shard, events=events
            )
            self.crc = self.extra.chain_crc
        else:
            state = allocate_state(config.shard, shard=shard, events=events)
        set_policy(state, config.unknown_symbol, config.template)
        self.replay = Replay(state, len(events) - config.shard.events_per_command_max)
        if self.extra is not None:
            self.replay.event_crc = self.extra.event_crc
        self.read: JournalRead | None = None
        self._chunks: Iterator[np.ndarray] = iter(())
        self._rest = np.zeros(0, COMMAND)

    @property
    def state(self) -> ShardState:
        return self.replay.state

    @property
    def in_seq(self) -> int:
        """The last command that was run."""
        return self.replay.in_seq

    @property
    def in_ts(self) -> int:
        """Its time."""
        return int(self.state.hdr[IN_TS])

    def records(self) -> np.ndarray:
        """The next commands to be run, none at the end of the journal."""
        if self.read is None:
            crc = self.crc if self.in_seq else None
            self.read = self.kept.read(self.shard, self.in_seq, crc)
            self._chunks = iter(self.read)
        if not len(self._rest):
            self._rest = next(self._chunks, self._rest)
        return self._rest

    def step(self, count: int) -> np.ndarray:
        """Run at most `count` of `records()`, fewer when they make many events; returns these."""
        records, first, before = self._rest[:count], self.replay.position, self.in_seq
        self.replay.run(records)
        done = self.in_seq - before
        self.crc = int(records["crc"][done - 1])
        self._rest = self._rest[done:]
        return ring_events(self.state, first, self.replay.position) if self.copied else NO_EVENTS

    def follow(self, until: int | None = None, until_ns: int | None = None) -> Iterator[np.ndarray]:
        """Run on, to command `until` or to the last one not later than `until_ns`; yields the
        events of each stretch.
        """
        while len(records := self.records()):
            count = len(records)
            if until is not None:
                count = min(count, until - self.in_seq)
            if until_ns is not None:
                count = min(count, int(np.searchsorted(records["in_ts"], until_ns, side="right")))
            if count <= 0:
                return
            yield self.step(count)

    def finish(self, until: int | None = None) -> "Rerun":
        """Run on without looking at the events."""
        for _ in self.follow(until):
            continue
        return self


def nearest(
    kept: KeptDirectory,
    shard: int,
    until: int | None = None,
    until_ns: int | None = None,
    *,
    copied: bool = True,
) -> Rerun:
    """A rerun that begins as late as good snapshots allow, not behind `until` or `until_ns`."""
    for in_seq in snapshot_list(kept.disk, kept.path, shard):
        limit = kept.until(shard) if until is None else until
        if limit is not None and in_seq > limit:
            continue
        try:
            rerun = Rerun(kept, shard, in_seq, copied=copied)
        except (FileRefused, OSError):
            continue  # as a start would: the one before, or the whole journal
        if until_ns is None or rerun.in_ts <= until_ns:
            return rerun
    return Rerun(kept, shard, copied=copied)
