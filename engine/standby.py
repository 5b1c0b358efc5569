"""A shard brought back from its files: snapshot, journal, and what lies in the staging ring.

Cold around a compiled replay. There is no other way to a state: a start, a restart of one shard and
a take-over by the follower all come here (recovery is start, DESIGN §6).

    load      newest good snapshot, or nothing
    advance   journal records, in order, as far as the journal process has published them
    finish    the owner is dead: the rest of the files, then of the staging ring; what comes out
              owns the shard

While it replays, events go into a ring of its own; `finish` puts those that the dead owner had not
committed into the shared one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.book_state import ShardState, allocate_state, private_array, set_policy
from engine.config import Config
from engine.crc32c import CRC_START
from engine.disk import Disk
from engine.journal_reader import JournalDamage
from engine.journal_tail import CHUNK_RECORDS, JournalTail
from engine.records import COMMAND, EVENT_SLOT
from engine.replay import Replay
from engine.snapshot import SnapshotExtra, snapshot_load
from engine.staging import STAGED, WRITTEN, StagingRings


@dataclass
class StandbyParts:
    """What a shard is brought back from."""

    disk: Disk
    directory: str
    shard: int
    config: Config


class Standby:
    """One shard's state at some in_seq of its journal, going on."""

    def __init__(self, parts: StandbyParts, memory: np.ndarray | None = None) -> None:
        self.parts = parts
        config = parts.config
        self.events = private_array(EVENT_SLOT, config.rings.event_capacity)
        self.notes: list[str] = []  # snapshots passed over, and why
        self.snapshot: SnapshotExtra | None = None
        loaded = snapshot_load(
            parts.disk, parts.directory, parts.shard, config.shard, memory=memory,
            events=self.events, reasons=self.notes,
        )  # fmt: skip
        if loaded is not None:
            state, self.snapshot = loaded
        else:
            seed = int.from_bytes(os.urandom(7), "little")
            state = allocate_state(
                config.shard, shard=parts.shard, memory=memory, events=self.events, seed=seed
            )
        set_policy(state, config.unknown_symbol, config.template)
        self.replay = Replay(state, len(self.events) - config.shard.events_per_command_max)
        in_seq, crc = 0, CRC_START
        if self.snapshot is not None:
            in_seq, crc = self.snapshot.in_seq, self.snapshot.chain_crc
            self.replay.event_crc = self.snapshot.event_crc
        self.tail = JournalTail(parts.disk, parts.directory, parts.shard, in_seq, crc)
        # A segment that will be written over is written faster where it is in memory.
        self.tail.forget = config.journal.retention_segments == 0
        self.crc = crc  # of the last command that was run; the tail may have read further
        self._records = np.zeros(0, COMMAND)
        self._next = 0

    @property
    def state(self) -> ShardState:
        return self.replay.state

    @property
    def in_seq(self) -> int:
        """The last command that was run."""
        return self.replay.in_seq

    @property
    def position(self) -> int:
        """Events so far."""
        return self.replay.position

    def advance(self, until: int) -> int:
        """Run some commands of the files, none behind `until`; returns how many.

        The events of this call are `slots(before, position)` until the next one.
        """
        if self._next >= len(self._records):
            self._records, self._next = self.tail.read(until, CHUNK_RECORDS), 0
        return self._run()

    def _run(self) -> int:
        if self._next >= len(self._records):
            return 0
        before, self._next = self._next, self.replay.run(self._records, self._next)
        self.crc = int(self._records["crc"][self._next - 1])
        return self._next - before

    def slots(self, first: int, end: int) -> np.ndarray:
        """Copy of the EVENT_SLOTs at positions first .. end - 1 of the last call."""
        return np.array(self.events[np.arange(first, end) & (len(self.events) - 1)])

    def finish(self, staging: StagingRings, taken: Callable[[int, int], None]) -> None:
        """Run everything that was staged; `taken(first, end)` is told of each run's events."""
        shard = self.parts.shard
        written, staged = staging.get(shard, WRITTEN), staging.get(shard, STAGED)
        while self.in_seq < written:
            first = self.position
            if not self.advance(written):
                raise JournalDamage(
                    self.parts.directory, 0, f"record {self.in_seq + 1} of shard {shard} is missing"
                )
            taken(first, self.position)
        self._records, self._next = staging.records(shard, self.in_seq, staged), 0
        if not self.tail.take(self._records):
            raise JournalDamage(
                "staging ring", 0, f"record {self.tail.in_seq + 1} of shard {shard} does not verify"
            )
        while self.in_seq < staged:
            first = self.position
            self._run()
            taken(first, self.position)

    def close(self) -> None:
        """Let go of the journal's files."""
        self.tail.close()
