"""One shard's journal from start to start: a shard that stages, a writer, a disk that fails.

`JournalRun` owns what outlives a process (the disk, the staging rings) and what must hold whatever
happens: what is recovered is a prefix of what was staged, and has everything told to be durable.
"""

from __future__ import annotations

import random

import numpy as np

from engine.config import Journal
from engine.crc32c import CRC_START
from engine.file_header import FILE_HEADER_BYTES
from engine.journal import JournalWriter
from engine.journal_reader import JournalRead, journal_read
from engine.records import COMMAND
from engine.staging import DURABLE, STAGED, WRITTEN, StagingRings
from tests.sim.sim_disk import SimDisk
from tests.sim.sim_time import STARTS_AT
from tests.sim.stager import RECORD_BYTES, Stager

DIRECTORY = "/data"
PLACE = f"{DIRECTORY}/shard0"
SEGMENT_BYTES = 16_384
ROOM = (SEGMENT_BYTES - FILE_HEADER_BYTES) // RECORD_BYTES  # records of a segment: 64
MODES = ("os", "batch", "sync")
MS = 1_000_000


class JournalRun:
    """A disk, rings, a shard and the writer of its journal."""

    def __init__(self, disk: SimDisk | None = None, capacity: int = 128, **config: object) -> None:
        self.disk = SimDisk() if disk is None else disk
        settings = {"segment_bytes": SEGMENT_BYTES, "free_bytes_min": 0} | config
        self.config = Journal(**settings)  # type: ignore[arg-type]
        self.rings = StagingRings.private(1, capacity)
        self.stager = Stager(self.rings, mode=self.config.mode, epoch=0)
        self.epoch = 0
        self.now_ns = 0
        self.told = 0  # the highest DURABLE there was
        self.snapshot = 0  # records up to here are in a snapshot
        self.writer = self._new_writer()
        self.disk.makedirs(DIRECTORY)
        self.disk.sync_dir("/")

    def _new_writer(self) -> JournalWriter:
        self.epoch += 1
        return JournalWriter(
            self.disk,
            DIRECTORY,
            1,
            self.rings,
            self.config,
            self.epoch,
            keep_after=lambda shard: self.snapshot,
            clock_ns=lambda: STARTS_AT + self.now_ns,
        )

    # --------------------------------------------------------------------------------- what starts
    def read(self) -> JournalRead:
        """Read everything behind the snapshot and compare it with what was staged."""
        history, after = self.stager.history, self.snapshot
        crc = CRC_START
        if after:
            last = bytes(history[(after - 1) * RECORD_BYTES : after * RECORD_BYTES])
            crc = int(np.frombuffer(last, COMMAND)["crc"][0])
        result = journal_read(self.disk, DIRECTORY, 0, after, after, crc=crc)
        content = b"".join(chunk.tobytes() for chunk in result)
        assert result.in_seq == after + len(content) // RECORD_BYTES
        start = after * RECORD_BYTES
        assert content == history[start : start + len(content)], "a record that was never staged"
        assert result.in_seq >= self.told, "what was told to be durable is lost"
        return result

    def start(self) -> None:
        """Recover from the files alone, as after a power cut."""
        found = self.read()
        self.writer = self._new_writer()
        sure = min(found.mark, found.in_seq)  # the page cache may have more than the disk
        self.writer.open(0, found.in_seq, found.crc, found.mark, sure)
        self.stager.restart(found.in_seq, found.crc)
        self.note()

    def start_with_staging(self) -> None:
        """Recover from files and staging, as after the death of all processes."""
        found = self.read()
        freed = WRITTEN if self.config.mode == "os" else DURABLE
        assert found.in_seq >= self.rings.get(0, freed), "neither in the files nor in the staging"
        self.writer = self._new_writer()
        sure = min(found.mark, found.in_seq)  # the page cache may have more than the disk
        self.writer.open(0, found.in_seq, found.crc, found.mark, sure)
        self.note()

    def resume(self) -> None:
        """Only the writer has died."""
        self.writer = self._new_writer()
        self.writer.resume(0)

    # ----------------------------------------------------------------------------------- what runs
    @property
    def words(self) -> tuple[int, int, int]:
        """What the staging rings say: staged, written, durable."""
        staged, written, durable = (self.rings.get(0, word) for word in (STAGED, WRITTEN, DURABLE))
        return staged, written, durable

    @property
    def segments(self) -> list[int]:
        """First record of every segment."""
        return [int(n[8:]) for n in self.disk.listdir(PLACE) if n.startswith("journal-")]

    def note(self) -> None:
        """Remember what has been told, as a client does."""
        self.told = max(self.told, self.rings.get(0, DURABLE))

    def step(self, count: int, pass_ns: int = 1_000_000) -> None:
        """Time passes, the shard stages, the writer steps."""
        self.now_ns += pass_ns
        self.stager.stage(count)
        try:
            self.writer.step(self.now_ns)
        finally:
            self.note()

    def wander(self, rng: random.Random, steps: int) -> None:
        """Steps of all sizes; now and then a snapshot."""
        for _ in range(steps):
            self.step(rng.choice((0, 1, 1, 3, 10, 40)), rng.choice((10**5, 10**6, 10**7, 10**9)))
            if self.config.retention_segments and rng.random() < 0.2:
                self.snapshot = rng.randint(self.snapshot, self.rings.get(0, DURABLE))

    def power_cut(self, rng: random.Random) -> None:
        """All is gone but the platter."""
        self.note()
        self.disk.crash(rng)
        self.rings.close()
        self.rings = self.stager.rings = StagingRings.private(1, self.rings.capacity)

    def kill(self) -> None:
        """The writer's process ends."""
        self.note()
        self.disk.kill()
