"""The writer of all shards' journals: staging rings to files, synced when due, then told.

Cold; one process, no thread and no clock of its own: whoever runs it calls `step(now_ns)`, in the
simulator too, and gives the wall clock for what files say of themselves. Every file access goes
through its Disk.

    STAGED (shard) -> pwrite -> WRITTEN -> fdatasync -> DURABLE

DURABLE is the position before the fdatasync began, and only when every file written to, earlier
segments included, has been synced. Modes (DESIGN §6): `sync` syncs at once, `batch` starts a sync
each sync_ms while something is unsynced, `os` each second.

What goes to disk is what the reader will accept: every staged record is verified against the chain
first. After any OSError, or a staged record that does not verify, the writer is `failed` for good:
STORAGE says FAILED and nothing is told any more. A failed fdatasync is never repeated, since the
kernel may have dropped the pages (it counts them as clean). Free room below free_bytes_min, looked
at each second and at each rotation, says LOW: the gate closes before the disk is full.

A record is staged before it is acknowledged and its slot is free only when it is durable (`os`:
written). So a writer that dies costs nothing: the next one writes again from there (`resume`).

Limit: a disk that destroys, in a power cut, old bytes of a sector being rewritten with the same old
bytes and more behind them may take the last durable records with it. The start then refuses or cuts
as the reader's rule says; it never reads them wrong.
"""

import time
from collections.abc import Callable

from engine.config import Journal
from engine.disk import Disk
from engine.file_header import FileRefused
from engine.journal_reader import CRC, FAULT, NEXT, chain_state, records_verify
from engine.journal_segments import JournalSegments
from engine.records import COMMAND_WORDS
from engine.staging import (
    DURABLE,
    STAGED,
    STORAGE,
    STORAGE_FAILED,
    STORAGE_GOOD,
    STORAGE_LOW,
    WRITTEN,
    StagingRings,
)

SECOND_NS = 1_000_000_000


class StagingBroken(Exception):
    """A staged record that does not continue the chain: it must not reach the disk."""


class JournalWriter:
    """Writes the journals of all shards.

    keep_after(shard): every record above this in_seq is still needed (snapshots, event log), so
    that retention leaves its segment alone. By default all are. clock_ns: the wall clock, by which
    files name the time of their making.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        shards: int,
        staging: StagingRings,
        config: Journal,
        epoch: int,
        keep_after: Callable[[int], int] = lambda shard: 0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.failed = ""  # why nothing is written any more
        self.low = False
        self._disk = disk
        self._directory = directory
        self._staging = staging
        self._config = config
        self._epoch = epoch
        self._keep_after = keep_after
        self._clock_ns = clock_ns
        self._segments: list[JournalSegments | None] = [None] * shards
        self._chains = [chain_state(0, 0) for _ in range(shards)]
        self._interval_ns = {"os": SECOND_NS, "batch": config.sync_ms * 1_000_000, "sync": 0}[
            config.mode
        ]
        self._synced_ns: int | None = None  # when the last sync began
        self._looked_ns: int | None = None  # when the free room was looked at
        self._rotations = 0

    # -------------------------------------------------------------------------- where to begin
    def open(
        self, shard: int, in_seq: int, crc: int, durable: int = 0, sure: int | None = None
    ) -> None:
        """Begin behind what recovery has ended with; raises instead of setting `failed`.

        Everything behind `in_seq` is removed first, durably, and everything before it is on disk
        when this returns; what the recovery knows to be there already (`durable`) is not synced
        again. What lies behind `sure` may be in the page cache alone, as clean as a failed sync
        leaves it: that is written again first.
        """
        segments = self._take(shard)
        segments.cut_behind(in_seq, crc, durable, in_seq if sure is None else sure)
        self._begin(shard, segments, in_seq)
        self._staging.set(shard, WRITTEN, in_seq)
        self._staging.set(shard, DURABLE, in_seq)

    def resume(self, shard: int) -> None:
        """Take over from a writer process that died, the staging being as it left it."""
        durable = self._staging.get(shard, DURABLE)
        # In mode os the slots up to WRITTEN may hold newer records; they are in the page cache.
        begin = self._staging.get(shard, WRITTEN) if self._config.mode == "os" else durable
        segments = self._take(shard)
        segments.resume_behind(begin, durable)
        self._begin(shard, segments, begin)

    def _take(self, shard: int) -> JournalSegments:
        assert self._segments[shard] is None, f"shard {shard} is open already"
        segments = JournalSegments(
            self._disk,
            self._directory,
            shard,
            self._config.segment_bytes,
            self._epoch,
            self._clock_ns,
        )
        self._segments[shard] = segments
        return segments

    def _begin(self, shard: int, segments: JournalSegments, in_seq: int) -> None:
        self._chains[shard] = chain_state(in_seq, segments.crc, segments.record_epoch)

    # ------------------------------------------------------------------------------------ work
    def step(self, now_ns: int) -> bool:
        """Write what is staged, sync when it is due, tell; True when there was work."""
        return self._guarded(lambda: self._step(now_ns))

    def flush(self, now_ns: int) -> bool:
        """Write and sync whatever is staged now, in every mode; True when all of it is durable."""
        self._guarded(lambda: self._write() | self._sync(now_ns))
        return not self.failed

    @property
    def due_ns(self) -> int:
        """When step must be called again although nothing new is staged (0: at once)."""
        if self._looked_ns is None:
            return 0
        due = self._looked_ns + SECOND_NS
        if self._synced_ns is not None and any(s and s.unsynced for s in self._segments):
            due = min(due, self._synced_ns + self._interval_ns)
        return due

    def _guarded(self, work: Callable[[], bool]) -> bool:
        if self.failed:
            return False
        try:
            return work()
        except (OSError, StagingBroken, FileRefused) as error:
            self.failed = str(error) or type(error).__name__
            self._say(STORAGE_FAILED)
            return True

    def _step(self, now_ns: int) -> bool:
        worked = self._write()
        if self._synced_ns is None or now_ns - self._synced_ns >= self._interval_ns:
            worked |= self._sync(now_ns)
        return worked | self._look_around(now_ns) | self._keep_house()

    def _write(self) -> bool:
        worked = False
        for shard, segments in enumerate(self._segments):
            if segments is not None:
                staged = self._staging.get(shard, STAGED)
                if staged > segments.position:
                    self._write_shard(shard, segments, staged)
                    worked = True
        return worked

    def _write_shard(self, shard: int, segments: JournalSegments, staged: int) -> None:
        rings = self._staging
        if staged - segments.position > rings.capacity:
            raise StagingBroken(
                f"shard {shard}: records behind {segments.position} were overwritten before they"
                f" were written (staged {staged})"
            )
        while segments.position < staged:
            slot = segments.position & (rings.capacity - 1)
            count = min(staged - segments.position, rings.capacity - slot)
            first = (shard * rings.capacity + slot) * COMMAND_WORDS
            words = rings.slot_words[first : first + count * COMMAND_WORDS]
            words.flags.writeable = False  # as the reader's: one compiled version of the kernel
            chain = self._chains[shard]
            records_verify(words, chain)
            if chain[FAULT]:
                raise StagingBroken(
                    f"shard {shard}: staged record {segments.position + 1} or one of the"
                    f" {count - 1} behind it does not continue the chain (fault {chain[FAULT]})"
                )
            segments.append(words)
        assert (segments.position, segments.crc) == (chain[NEXT] - 1, chain[CRC])
        rings.set(shard, WRITTEN, staged)

    def _sync(self, now_ns: int) -> bool:
        worked = False
        for shard, segments in enumerate(self._segments):
            if segments is not None and segments.unsynced:
                position = segments.position
                segments.sync()
                self._staging.set(shard, DURABLE, position)
                worked = True
        if worked:
            self._synced_ns = now_ns
        return worked

    # ---------------------------------------------------------------------------- housekeeping
    def _look_around(self, now_ns: int) -> bool:
        # How much room is left, each second and after each rotation.
        rotations = sum(s.rotations for s in self._segments if s is not None)
        recent = self._looked_ns is not None and now_ns - self._looked_ns < SECOND_NS
        if recent and rotations == self._rotations:
            return False
        self._looked_ns, self._rotations = now_ns, rotations
        low = self._disk.free_bytes(self._directory) < self._config.free_bytes_min
        if low != self.low:
            self.low = low
            self._say(STORAGE_LOW if low else STORAGE_GOOD)
        return True

    def _keep_house(self) -> bool:
        # At most one act for each shard: records go first.
        worked = False
        for shard, segments in enumerate(self._segments):
            if segments is None:
                continue
            if self._config.retention_segments:
                after = min(self._keep_after(shard), self._staging.get(shard, DURABLE))
                if segments.recycle(self._config.retention_segments, after):
                    worked = True
                    continue
            if segments.needs_spare and not self.low:
                segments.make_spare()
                worked = True
        return worked

    def _say(self, state: int) -> None:
        for shard in range(len(self._segments)):
            self._staging.set(shard, STORAGE, state)

    def close(self) -> None:
        """Close files and locks; what was not synced is left to the kernel."""
        for shard, segments in enumerate(self._segments):
            if segments is not None:
                segments.close()
                self._segments[shard] = None
