"""The journal as a process: writes, syncs, sleeps, reports (engine/journal.py does the work).

Cold. While records come it looks every few milliseconds (mode sync: at once, then it waits for
the next signal); with none for a second it sleeps until a shard signals. After a failed write or
sync it stays, reports STORAGE_FAILED and does nothing: gates stay closed, evidence stays.
"""

import os
import time
from collections.abc import Sequence
from typing import Protocol

from engine.counters import State
from engine.data_directory import ShardEnd
from engine.disk import Disk
from engine.idle import park
from engine.instance import Instance
from engine.journal import JournalWriter
from engine.ring_words import eventfd_add, sleep_cancel, sleep_prepare, wake_needed
from engine.shm_ring import SHARD_CTRL_WORDS, SHARD_SLEEPS
from engine.staging import (
    DURABLE,
    GATE_CLOSED,
    JOURNAL_SLEEPS,
    LOG_DURABLE_IN_SEQ,
    SNAPSHOT_BEFORE,
    STAGED,
    STAGING_CTRL_WORDS,
    STORAGE,
    WRITER_EPOCH,
    WRITTEN,
)

LOOK_S = 0.003  # at a million records a second a look costs a quarter of its work
LINGER_NS = 1_000_000_000
REPORT_NS = 100_000_000
SLEEP_S = 0.1


class Stop(Protocol):
    """What tells a loop to end."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...


class JournalProcess:
    """The journal of all shards of an instance, in this process."""

    def __init__(
        self, disk: Disk, directory: str, instance: Instance, ends: Sequence[ShardEnd] | None
    ) -> None:
        """`ends`: where the journals of the last run end; None: take over from a process of this
        run that died.
        """
        assert instance.staging is not None
        self.instance, self.staging = instance, instance.staging
        self.settings = instance.config.journal
        self.shards = range(instance.shards)
        epoch = max(self.staging.get(shard, WRITER_EPOCH) for shard in self.shards)
        self.writer = JournalWriter(
            disk, directory, instance.shards, self.staging, self.settings, epoch,
            keep_after=self._needed, clock_ns=time.time_ns,
        )  # fmt: skip
        for shard in self.shards:
            if ends is None:
                self.writer.resume(shard)
            else:
                end = ends[shard]
                self.writer.open(shard, end.in_seq, end.crc, sure=end.sure)
        self.block = instance.counters.block("journal0")
        self.durable = [self.staging.get(shard, DURABLE) for shard in self.shards]
        self._reported_ns = 0
        self._worked_ns = 0

    def _needed(self, shard: int) -> int:
        # Records up to here are in both snapshots and in the log.
        return min(
            self.staging.get(shard, SNAPSHOT_BEFORE), self.staging.get(shard, LOG_DURABLE_IN_SEQ)
        )

    def step(self, now_ns: int) -> bool:
        """Write, sync, wake who waits for the disk; returns whether there was work."""
        worked = self.writer.step(now_ns)
        for shard in self.shards:
            durable = self.staging.get(shard, DURABLE)
            if durable != self.durable[shard]:
                self.durable[shard] = durable
                self._wake(shard)
        if worked:
            self._worked_ns = now_ns
        if now_ns - self._reported_ns >= REPORT_NS:
            self.report(now_ns, State.HALTED if self.writer.failed else State.RUNNING)
        return worked

    def _wake(self, shard: int) -> None:
        waits = self.settings.mode == "sync" or self.staging.get(shard, GATE_CLOSED)
        word = shard * SHARD_CTRL_WORDS + SHARD_SLEEPS
        if waits and wake_needed(self.instance.command_rings.shard_ctrl, word):
            eventfd_add(self.instance.shard_fds[shard])

    def report(self, now_ns: int, condition: State) -> None:
        """Write the counters block."""
        values = {
            "pid": os.getpid(),
            "state": condition,
            "heartbeat_ns": now_ns,
            "written": sum(self.staging.get(shard, WRITTEN) for shard in self.shards),
            "durable": sum(self.durable),
            "storage": self.staging.get(0, STORAGE),
        }
        self.block.set_many(self.block.indexes(values), list(values.values()))
        self._reported_ns = now_ns

    def behind(self) -> bool:
        """Whether something staged is not on disk."""
        return any(self.staging.get(shard, STAGED) != self.durable[shard] for shard in self.shards)

    def rest(self, now_ns: int) -> None:
        """Wait for the next look, or until a shard signals."""
        if now_ns - self._worked_ns < LINGER_NS and self.settings.mode != "sync":
            time.sleep(LOOK_S)
            return
        for shard in self.shards:
            sleep_prepare(self.staging.ctrl, shard * STAGING_CTRL_WORDS + JOURNAL_SLEEPS)
        if not any(
            self.staging.get(s, STAGED) != self.staging.get(s, WRITTEN) for s in self.shards
        ):
            park(self.instance.journal_fds[0], LOOK_S if self.behind() else SLEEP_S)
        for shard in self.shards:
            sleep_cancel(self.staging.ctrl, shard * STAGING_CTRL_WORDS + JOURNAL_SLEEPS)


def journal_main(process: JournalProcess, stop: Stop) -> int:
    """Serve until told to stop, then put everything staged on disk; returns the exit code."""
    while not stop.is_set():
        now_ns = time.monotonic_ns()
        if process.writer.failed:
            process.report(now_ns, State.HALTED)
            time.sleep(SLEEP_S)
        elif not process.step(now_ns):
            process.rest(now_ns)
    process.writer.flush(time.monotonic_ns())
    process.report(time.monotonic_ns(), State.STOPPED)
    return 0
