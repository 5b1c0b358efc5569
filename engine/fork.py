"""Another future: the journal up to some command, then the same commands under other terms.

Cold around a compiled run. What comes out is a data directory like any other, which an exchange can
start from, and the two outcomes side by side.

    old journal   1 .... at | at+1 .............. end      run again: trades, books, order ids
                            |     the same commands,
    new journal   1 .... at | other terms or without        journaled as they are run
                            | one account's orders

How old commands find their orders again: engine/fork_step.py. An account that is left out is not
gone: it says nothing but that it is alive (SESSION_KEEP), so that sessions keep their slots and
every command its place.

Terms that decide what commands do (max_walk, slice_events, the policy for unknown symbols) stand in
the manifest, once for the whole journal. So a fork that changes them at `at` begins its journal
there, behind a snapshot; the commands before it are in the old directory. All other sizes are those
of the memory at `at` and cannot change, unless the fork begins with the first command.
"""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from engine.book_state import (
    ACTIVATIONS,
    EVENT_MASK,
    FATAL,
    IN_SEQ,
    MAX_WALK,
    ORDER_COUNTER,
    OUT_POSITION,
    SLICE_EVENTS,
    SYMBOLS_USED,
    WORK_KIND,
    ShardState,
    allocate_state,
    private_array,
    set_policy,
    state_layout,
)
from engine.config import Config
from engine.crc32c import CRC_START
from engine.disk import Disk, RealDisk
from engine.file_header import FileHeader, header_bytes
from engine.fork_step import (
    CTL_COUNTER,
    CTL_EVENTS,
    CTL_FINISH,
    CTL_ROOM,
    CTL_WORDS,
    ForkPorts,
    fork_ports,
    fork_run,
    silence,
)
from engine.journal import JournalWriter
from engine.journal_files import journal_name, journal_oldest, shard_directory
from engine.kept_directory import KeptDirectory
from engine.loop_words import J_CAPACITY, J_CHAIN, J_EPOCH, J_SHARD, J_WORDS
from engine.manifest import Manifest, boot_id, deciding_limits, symbol_policy
from engine.records import COMMAND, EVENT_SLOT, EventKind
from engine.replay import ReplayError
from engine.rerun import Rerun, nearest, ring_events
from engine.snapshot import SnapshotExtra, snapshot_write
from engine.staging import STAGED, StagingRings
from engine.time_machine import TRADE, BookPicture, PastError, book_pictures, end_at, trades_of

STAGING_SLOTS = 1 << 14
COPY_RECORDS = 1 << 13
CHANGEABLE = frozenset({"max_walk", "slice_events", "batch_max", "events_per_command_max"})
STAGING_OF_A_COPY = "fork"


class ForkError(ValueError):
    """A fork that cannot be made; the message says why."""


# ------------------------------------------------------------------------------------------ outcome
@dataclass
class Outcome:
    """What one run made of the commands behind the fork."""

    in_seq: int
    state: ShardState
    trades: np.ndarray

    def books(self) -> dict[str, BookPicture]:
        """Its final books by symbol."""
        return {picture.terms.symbol: picture for picture in book_pictures(self.state)}

    def trades_by_symbol(self) -> dict[str, np.ndarray]:
        """Its trades since the fork by symbol, in order."""
        return {
            symbol: self.trades[self.trades["symbol"] == book.index]
            for symbol, book in self.books().items()
        }


@dataclass
class ForkedShard:
    """One shard of a fork: the old outcome and the new one."""

    shard: int
    at: int
    at_ts: int
    old: Outcome
    new: Outcome


@dataclass
class Fork:
    """How a fork is to be made."""

    kept: KeptDirectory
    directory: str  # to be made
    at: int  # the last command that stays as it was, of `shard`
    shard: int = 0
    config: Config | None = None  # other terms; None: the same
    without: int = 0  # account whose orders are left out; 0: none
    progress: Callable[[int, int], None] = lambda shard, in_seq: None
    disk: Disk = field(default_factory=RealDisk)


def fork(plan: Fork) -> list[ForkedShard]:
    """Make the new directory and return both outcomes, shard by shard.

    ForkError, PastError: it cannot be made, and nothing of it is left.
    """
    config = _config(plan)
    if plan.disk.listdir(plan.directory) or os.path.isfile(plan.directory):
        raise ForkError(f"{plan.directory} is not empty: name a directory that does not exist")
    plan.kept.shard_checked(plan.shard)
    before = _nearest_at(plan.kept, plan.shard, plan.at)
    ends = [
        plan.at if shard == plan.shard else end_at(plan.kept, shard, before.in_ts)
        for shard in plan.kept.shards
    ]
    existed = plan.disk.exists(plan.directory)
    try:
        return _make(plan, config, ends)
    except BaseException:
        with contextlib.suppress(OSError):
            for name in plan.disk.listdir(plan.directory):
                shutil.rmtree(os.path.join(plan.directory, name), ignore_errors=True)
            if not existed:
                os.rmdir(plan.directory)
        raise


def _config(plan: Fork) -> Config:
    # The terms of the new directory, after a look whether the state at the fork can have them.
    old = plan.kept.config
    if plan.config is None:
        return old
    new = dataclasses.replace(plan.config, shards=old.shards)
    before, after = deciding_limits(old.shard), deciding_limits(new.shard)
    fixed = [n for n in before if before[n] != after[n] and n not in CHANGEABLE]
    if fixed and plan.at > 0:
        said = ", ".join(f"{n} {before[n]} (now {after[n]})" for n in fixed)
        raise ForkError(
            f"these limits of [shard] are sizes of the memory and cannot change on the way: {said};"
            " set them back, or fork at 0"
        )
    room = 1 << (4 * new.shard.events_per_command_max - 1).bit_length()
    rings = dataclasses.replace(new.rings, event_capacity=room)
    return dataclasses.replace(new, rings=rings)


def terms_changed(old: Config, new: Config) -> bool:
    """Whether a journal under the one cannot be replayed under the other."""
    limits = deciding_limits(old.shard) != deciding_limits(new.shard)
    return limits or symbol_policy(old) != symbol_policy(new)


def _nearest_at(kept: KeptDirectory, shard: int, at: int) -> Rerun:
    rerun = nearest(kept, shard, at, copied=False).finish(at)
    if rerun.in_seq < at:
        raise PastError(f"shard {shard} has no command {at}: its journal ends with {rerun.in_seq}")
    return rerun


def _make(plan: Fork, config: Config, ends: list[int]) -> list[ForkedShard]:
    disk, kept = plan.disk, plan.kept
    disk.makedirs(plan.directory)
    changed = terms_changed(kept.config, config)
    staging = StagingRings.private(len(ends), STAGING_SLOTS)
    settings = dataclasses.replace(config.journal, mode="batch")
    epoch = max(kept.manifest.epoch, 1)
    writer = JournalWriter(disk, plan.directory, len(ends), staging, settings, epoch)
    made = []
    try:
        for shard, at in enumerate(ends):
            whole = not changed and journal_oldest(kept.disk, kept.path, shard) <= 1
            made.append(_ShardFork(plan, config, staging, writer, shard, at, whole).run())
        if not writer.flush(0):
            raise OSError(writer.failed)
    finally:
        writer.close()
    _manifest(plan, config, epoch).save(disk, plan.directory)
    return made


def _manifest(plan: Fork, config: Config, epoch: int) -> Manifest:
    # As that of a copied directory: clients of the old run must not resume here as if nothing had
    # happened, so the first start begins a new incarnation.
    old = plan.kept.manifest
    begun = Manifest.begin(config, old.shards, time.time_ns())
    return dataclasses.replace(
        begun,
        epoch=epoch,
        incarnation=old.incarnation,
        mode="batch",
        boot_id=boot_id(),
        staging=STAGING_OF_A_COPY,
        clean=False,
    )


class _ShardFork:
    def __init__(
        self,
        plan: Fork,
        config: Config,
        staging: StagingRings,
        writer: JournalWriter,
        shard: int,
        at: int,
        whole: bool,
    ) -> None:
        self.plan, self.config, self.staging, self.writer = plan, config, staging, writer
        self.shard, self.at, self.whole = shard, at, whole
        self.journal = np.zeros(J_WORDS, np.int64)

    def run(self) -> ForkedShard:
        kept, shard, at = self.plan.kept, self.shard, self.at
        rerun = _nearest_at(kept, shard, at)
        rerun.copied = True
        at_ts, crc, event_crc = rerun.in_ts, rerun.crc, rerun.replay.event_crc
        counter = int(rerun.state.hdr[ORDER_COUNTER])
        state = self._state(rerun)
        self._history(state, crc, event_crc)
        old, seqs, ids = self._old(rerun)
        self.journal[[J_SHARD, J_CAPACITY, J_CHAIN]] = shard, self.staging.capacity, crc
        new = self._new(state, seqs, ids, old, counter)
        return ForkedShard(shard, at, at_ts, old, new)

    def _state(self, rerun: Rerun) -> ShardState:
        # The state at the fork once more, under the new terms.
        old, limits = rerun.state, self.config.shard
        ring = private_array(EVENT_SLOT, self.config.rings.event_capacity)
        state = allocate_state(limits, shard=self.shard, events=ring)
        if self.at:
            mask = int(state.hdr[EVENT_MASK])
            for name, _, _ in state_layout(limits):
                if name != "table":
                    getattr(state, name)[:] = getattr(old, name)
            state.hdr[:] = old.hdr
            state.hdr[EVENT_MASK] = mask
            state.hdr[MAX_WALK], state.hdr[SLICE_EVENTS] = limits.max_walk, limits.slice_events
        set_policy(state, self.config.unknown_symbol, self.config.template)
        return state

    def _history(self, state: ShardState, crc: int, event_crc: tuple[int, int, int]) -> None:
        # The journal up to the fork: the old records, or a snapshot to begin behind.
        shard, at, plan = self.shard, self.at, self.plan
        if self.whole or not at:
            self.writer.open(shard, 0, CRC_START)
            self.staging.begin(shard, 0)
            self._copy(at)
            return
        place = shard_directory(plan.directory, shard)
        plan.disk.makedirs(place)
        size, epoch = self.config.journal.segment_bytes, max(plan.kept.manifest.epoch, 1)
        header = FileHeader("journal", shard, at + 1, crc, epoch, time.time_ns(), size)
        handle = plan.disk.create(f"{place}/{journal_name(at + 1)}", size)
        try:
            plan.disk.pwrite(handle, header_bytes(header), 0)
            plan.disk.fdatasync(handle)
        finally:
            plan.disk.close(handle)
        extra = SnapshotExtra(at, int(state.hdr[OUT_POSITION]), crc, event_crc, at, epoch)
        snapshot_write(plan.disk, plan.directory, shard, state, extra)
        self.staging.begin(shard, at)
        self.writer.open(shard, at, crc)

    def _copy(self, until: int) -> None:
        rings, shard, done = self.staging, self.shard, 0
        mask, base = rings.capacity - 1, self.shard * rings.capacity
        for records in self.plan.kept.read(shard) if until else ():
            for first in range(0, len(records), COPY_RECORDS):
                part = records[first : first + min(COPY_RECORDS, until - done)]
                if not len(part):
                    return
                rings.slots[base + ((part["in_seq"] - 1) & mask)] = part
                done = int(part["in_seq"][-1])
                rings.set(shard, STAGED, done)
                self._write()

    def _write(self) -> None:
        self.writer.step(0)
        if self.writer.failed:
            raise OSError(self.writer.failed)

    def _old(self, rerun: Rerun) -> tuple[Outcome, np.ndarray, np.ndarray]:
        trades, seqs, ids = [np.zeros(0, TRADE)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for found in rerun.follow():
            trades.append(trades_of(found))
            accepted = found[found["kind"] == EventKind.ACCEPTED]
            seqs.append(accepted["in_seq"].astype(np.int64))
            ids.append(accepted["order_id"].astype(np.int64))
            self.plan.progress(self.shard, rerun.in_seq)
        outcome = Outcome(rerun.in_seq, rerun.state, np.concatenate(trades))
        return outcome, np.concatenate(seqs), np.concatenate(ids)

    def _new(
        self, state: ShardState, seqs: np.ndarray, ids: np.ndarray, old: Outcome, counter: int
    ) -> Outcome:
        used = int(old.state.hdr[SYMBOLS_USED])
        old_names = old.state.names[: used + 1].copy()
        new_ids, ctl = np.zeros(len(ids), np.int64), np.zeros(CTL_WORDS, np.int64)
        ctl[CTL_EVENTS] = len(state.events) - self.config.shard.events_per_command_max
        ctl[CTL_COUNTER] = counter
        trades = [np.zeros(0, TRADE)]
        self.journal[J_EPOCH] = 0
        for records in self._rest():
            ctl[CTL_FINISH] = not len(records)
            if not self.journal[J_EPOCH] and len(records):
                self.journal[J_EPOCH] = int(records["epoch"][0])
            ports = fork_ports(records, self.staging, seqs, ids, new_ids, old_names, ctl)
            trades += self._chunk(state, ports)
            self.plan.progress(self.shard, int(state.hdr[IN_SEQ]))
        return Outcome(int(state.hdr[IN_SEQ]), state, np.concatenate(trades))

    def _rest(self) -> Iterator[np.ndarray]:
        # The old commands behind the fork, chunk by chunk, those of one account silenced; then an
        # empty one, for what is left of an open work.
        some = False
        for chunk in self.plan.kept.read(self.shard, self.at):
            records, some = chunk.copy(), True
            if self.plan.without:
                silence(records, self.plan.without)
            yield records
        if some:
            yield np.zeros(0, COMMAND)

    def _chunk(self, state: ShardState, ports: ForkPorts) -> list[np.ndarray]:
        trades, index, hdr = [], 0, state.hdr
        while True:
            first = int(hdr[OUT_POSITION])
            ports.ctl[CTL_ROOM] = COPY_RECORDS
            index = int(fork_run(state.table, self.journal, ports, index))
            if hdr[FATAL]:
                raise ReplayError(
                    f"under the new terms command {int(hdr[IN_SEQ])} of shard {self.shard} breaks"
                    f" invariant {int(hdr[FATAL])}"
                )
            self.staging.set(self.shard, STAGED, int(hdr[IN_SEQ]))
            self._write()
            trades.append(trades_of(ring_events(state, first, int(hdr[OUT_POSITION]))))
            left = hdr[WORK_KIND] or hdr[ACTIVATIONS]
            if index >= len(ports.records) and not (left and ports.ctl[CTL_FINISH]):
                return trades
