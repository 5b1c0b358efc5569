"""The follower of one shard: replays the journal behind it, writes event log and snapshots,
compares, and takes over when the shard dies (DESIGN §6).

Cold around a compiled replay; one process per shard, as a `step` object. It reads no further than
DURABLE, so nothing in log or snapshots can be lost by a power cut that the journal survives.

    journal --> replay --> event log: whoever needs past events reads that
                      |--> snapshot each `snapshot_commands`; the log is synced first
                      |--> MARK of the live shard reached: running CRCs of all EVENT bytes compared
                      `--> take-over: the rest of files and staging ring, then it is the shard

A difference at a mark means that the journal would not give again what clients were told:
`Diverged`, with the place; the supervisor decides what then.
"""

import time
from collections.abc import Callable

import numpy as np

from engine.atomics import fence_acquire, load_acquire, load_relaxed
from engine.event_log import EventLogWriter
from engine.jit import kernel, register_warmup
from engine.loop_words import MARK_WORDS
from engine.snapshot import SnapshotExtra, snapshot_write
from engine.staging import (
    DURABLE,
    FOLLOWED,
    LOG_DURABLE,
    LOG_DURABLE_IN_SEQ,
    LOG_END,
    M_VERSION,
    SNAPSHOT,
    SNAPSHOT_BEFORE,
    STAGING_CTRL_WORDS,
    WRITER_EPOCH,
    StagingRings,
)
from engine.standby import Standby, StandbyParts

LOG_SYNC_NS = 1_000_000_000


class Diverged(Exception):
    """The replay and the live shard disagree."""


@kernel
def mark_read(ctrl, at, out):
    """Copy a MARK (version, in_seq, out_seq, three CRCs) to `out`; False while it is written."""
    out[0] = load_acquire(ctrl, at)
    for word in range(1, MARK_WORDS):
        out[word] = load_relaxed(ctrl, at + word)
    fence_acquire()
    return out[0] & 1 == 0 and load_relaxed(ctrl, at) == out[0]


class Follower:
    """Follows one shard. `step` does a bounded piece of what is due."""

    def __init__(
        self, parts: StandbyParts, staging: StagingRings, memory: np.ndarray | None = None
    ) -> None:
        self.parts, self.staging = parts, staging
        journal = parts.config.journal
        self.standby = Standby(parts, memory)
        self.log = EventLogWriter(
            parts.disk, parts.directory, parts.shard,
            journal.log_segment_events, journal.log_events_max, self._word(WRITER_EPOCH),
            clock_ns=time.time_ns,
        )  # fmt: skip
        self._log_open()
        self.mark = np.zeros(MARK_WORDS, np.int64)
        self.compared = self.snapshots = 0
        self._log_synced_ns = 0
        self._log_synced = self.log.end
        self._log_synced_in_seq = 0
        extra = self.standby.snapshot
        self._snapshot_at = extra.in_seq if extra else 0
        self._publish()

    def _log_open(self) -> None:
        # At the end a follower of this run has left; at a start behind the snapshot, up to where it
        # is surely on disk: what is cut comes out of the replay again, byte for byte.
        end = max(self._word(LOG_END), self.standby.position)
        self.staging.set(self.parts.shard, LOG_END, 0)
        said = self.log.open(end, sure=max(self._word(LOG_DURABLE), self.standby.position))
        if said and end > self.standby.position:
            said = self.log.open(self.standby.position)
        if said:
            self.standby.notes.append(said)

    def _word(self, word: int) -> int:
        return self.staging.get(self.parts.shard, word)

    def _publish(self) -> None:
        for word, value in (
            (FOLLOWED, self.standby.in_seq),
            (LOG_END, self.log.end),
            (LOG_DURABLE, self._log_synced),
            (LOG_DURABLE_IN_SEQ, self._log_synced_in_seq),
        ):
            self.staging.set(self.parts.shard, word, value)

    @property
    def lag(self) -> int:
        """Commands on disk that were not replayed yet."""
        return self._word(DURABLE) - self.standby.in_seq

    # ----------------------------------------------------------------------------- following
    def step(self, now_ns: int) -> bool:
        """Replay one chunk, log its events, compare, keep; returns whether there was work."""
        ran = self.standby.advance(self._target())
        if ran:
            self.log.append(self.standby.state.event_words, self.standby.position)
        self._compare()
        if now_ns - self._log_synced_ns >= LOG_SYNC_NS:
            self._log_sync()
            self._log_synced_ns = now_ns
        if self.standby.in_seq - self._snapshot_at >= self.parts.config.journal.snapshot_commands:
            self.snapshot()
        self._publish()
        return ran > 0

    def _target(self) -> int:
        # A mark lies on the way: stop there.
        at = self.parts.shard * STAGING_CTRL_WORDS + M_VERSION
        if self.mark[1] <= self.standby.in_seq and not mark_read(self.staging.ctrl, at, self.mark):
            self.mark[:] = 0
        durable = self._word(DURABLE)
        if self.mark[1] > self.standby.in_seq:
            return min(durable, int(self.mark[1]))
        return durable

    def _compare(self) -> None:
        if self.mark[0] == 0 or self.mark[1] != self.standby.in_seq:
            return
        self.compared += 1
        live = (int(self.mark[2]), tuple(int(crc) for crc in self.mark[3:6]))
        mine = (self.standby.position, self.standby.replay.event_crc)
        self.mark[:] = 0
        if live != mine:
            raise Diverged(
                f"shard {self.parts.shard} at command {self.standby.in_seq}: live {live},"
                f" replayed {mine} (events, running CRC of their lines)"
            )

    # ----------------------------------------------------------------------------- log, snapshots
    def _log_sync(self) -> None:
        if self._log_synced != self.log.end:
            self.log.sync()
            self._log_synced = self.log.end
        if self.log.end == self.standby.position:
            self._log_synced_in_seq = self.standby.in_seq

    def snapshot(self) -> None:
        """Write a snapshot of where the replay stands; the log is on disk up to there first."""
        standby, shard = self.standby, self.parts.shard
        self._log_sync()
        extra = SnapshotExtra(
            in_seq=standby.in_seq,
            out_seq=standby.position,
            chain_crc=standby.crc,
            event_crc=standby.replay.event_crc,
            durable=self._word(DURABLE),
            epoch=self._word(WRITER_EPOCH),
        )
        snapshot_write(self.parts.disk, self.parts.directory, shard, standby.state, extra)
        self.staging.set(shard, SNAPSHOT_BEFORE, self._word(SNAPSHOT))
        self.staging.set(shard, SNAPSHOT, standby.in_seq)
        self._snapshot_at = standby.in_seq
        self.snapshots += 1

    # ----------------------------------------------------------------------------- end
    def finish(self) -> None:
        """Before a clean end: replay all that is on disk and keep it as a snapshot."""
        while self.lag > 0:
            self.step(0)
        if self.standby.in_seq > self._snapshot_at:
            self.snapshot()
        self._log_sync()
        self._publish()

    def take_over(self, taken: Callable[[int, int], None]) -> None:
        """The shard is dead: run what it had staged. The log is let go of, a fresh follower will
        own it.
        """
        self._log_sync()
        self._publish()
        self.log.close()
        self.standby.finish(self.staging, taken)


def _warm_up() -> None:
    mark_read(np.zeros(8, np.int64), 0, np.zeros(MARK_WORDS, np.int64))


register_warmup("engine.follower", _warm_up)
