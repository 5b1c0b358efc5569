"""Data directories made from commands, without processes: journal, and on demand snapshots and
event log, as a shard, its journal and its follower would have left them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from engine.book_state import (
    ACTIVATIONS,
    FATAL,
    IN_SEQ,
    WORK_KIND,
    allocate_state,
    private_array,
    set_policy,
)
from engine.config import Config, Journal, Rings
from engine.crc32c import CRC_START, crc32c
from engine.disk import RealDisk
from engine.file_header import FILE_HEADER_BYTES, FileHeader, header_bytes
from engine.fork_step import (
    CTL_COUNTER,
    CTL_EVENTS,
    CTL_FINISH,
    CTL_ROOM,
    CTL_WORDS,
    fork_ports,
    fork_run,
)
from engine.journal import JournalWriter
from engine.kept_directory import KeptDirectory, open_kept
from engine.loop_words import J_CAPACITY, J_CHAIN, J_EPOCH, J_SHARD, J_WORDS
from engine.manifest import Manifest
from engine.records import COMMAND, EVENT, EVENT_SLOT, SYMBOL_INDEX_BITS
from engine.rerun import Rerun
from engine.snapshot import SnapshotExtra, snapshot_write
from engine.staging import STAGED, StagingRings
from tests.engine.recorded import recorded
from tests.model.flow import TEMPLATE, World

SEGMENT_BYTES = 1 << 16
ROOM = 1 << 12
EPOCH = 3
LOG_EVENTS = 300


def recorded_on(seed: int, count: int, shard: int = 0) -> tuple[World, np.ndarray]:
    """As `recorded`, for another shard: instruments are called by its numbers."""
    world, commands = recorded(seed, count)
    moved = commands.copy()
    moved["symbol_id"][moved["symbol_id"] > 0] += (shard - world.shard) << SYMBOL_INDEX_BITS
    return world, moved


def config_of_world(world: World, shards: int = 1) -> Config:
    """The configuration of a directory of that world."""
    return dataclasses.replace(
        Config(),
        instance="kept",
        shards=shards,
        unknown_symbol=world.unknown_symbol,
        template=TEMPLATE,
        shard=world.limits,
        rings=Rings(event_capacity=1 << 12),
        journal=Journal(segment_bytes=SEGMENT_BYTES, staging_capacity=ROOM, free_bytes_min=0),
    )


def make_directory(path: str, config: Config, commands: Sequence[np.ndarray]) -> KeptDirectory:
    """Journal the commands of each shard, works in slices included, and close the directory."""
    disk = RealDisk()
    disk.makedirs(path)
    shards = len(commands)
    staging = StagingRings.private(shards, ROOM)
    settings = config.journal
    # The same commands give the same bytes: the golden files are made here.
    writer = JournalWriter(disk, path, shards, staging, settings, EPOCH, clock_ns=lambda: 0)
    for shard, records in enumerate(commands):
        writer.open(shard, 0, CRC_START)
        staging.begin(shard, 0)
        _journal(config, shard, records, staging, writer)
    assert writer.flush(0), writer.failed
    writer.close()
    manifest = Manifest.begin(config, shards, 1)
    dataclasses.replace(manifest, epoch=EPOCH).save(disk, path)
    return open_kept(path)


def _journal(
    config: Config, shard: int, commands: np.ndarray, staging: StagingRings, writer: JournalWriter
) -> None:
    events = private_array(EVENT_SLOT, config.rings.event_capacity)
    state = allocate_state(config.shard, shard=shard, events=events)
    set_policy(state, config.unknown_symbol, config.template)
    journal = np.zeros(J_WORDS, np.int64)
    journal[[J_SHARD, J_CAPACITY, J_CHAIN]] = shard, ROOM, CRC_START
    ctl, none = np.zeros(CTL_WORDS, np.int64), np.zeros(0, np.int64)
    ctl[CTL_EVENTS] = len(events) - config.shard.events_per_command_max
    ctl[CTL_COUNTER] = 1 << 40
    for first in range(0, len(commands), 64):
        records = commands[first : first + 64].copy()
        records["epoch"] = 1 + first * EPOCH // len(commands)
        records["durable_lag"] = np.arange(1, len(records) + 1)
        journal[J_EPOCH] = records["epoch"][0]
        ports = fork_ports(records, staging, none, none, none, np.zeros(1, np.uint64), ctl)
        index, last = 0, first + 64 >= len(commands)
        while index < len(records) or (last and (state.hdr[WORK_KIND] or state.hdr[ACTIVATIONS])):
            ctl[CTL_ROOM], ctl[CTL_FINISH] = ROOM // 2, last
            index = int(fork_run(state.table, journal, ports, index))
            assert not state.hdr[FATAL]
            staging.set(shard, STAGED, int(state.hdr[IN_SEQ]))
            writer.step(0)
            assert not writer.failed, writer.failed


def add_snapshots(kept: KeptDirectory, shard: int, at: Sequence[int]) -> None:
    """Write the snapshots that a follower would have written at these commands."""
    rerun = Rerun(kept, shard)
    for in_seq in at:
        rerun.finish(in_seq)
        extra = SnapshotExtra(
            in_seq, rerun.replay.position, rerun.crc, rerun.replay.event_crc, in_seq, EPOCH
        )
        snapshot_write(RealDisk(), kept.path, shard, rerun.state, extra)


def all_events(kept: KeptDirectory, shard: int) -> np.ndarray:
    """Every event of a shard's journal."""
    return np.concatenate([np.zeros(0, EVENT), *Rerun(kept, shard).follow()])


def add_log(kept: KeptDirectory, shard: int, events: np.ndarray) -> list[str]:
    """Write some consecutive events as the follower's log; returns the segments' paths."""
    disk, crc, paths = RealDisk(), CRC_START, []
    size = FILE_HEADER_BYTES + LOG_EVENTS * EVENT.itemsize
    for first in range(0, len(events), LOG_EVENTS):
        part = events[first : first + LOG_EVENTS].copy()
        begin = int(part["out_seq"][0])
        header = FileHeader("events", shard, begin, crc, EPOCH, 1, size)
        for row in range(len(part)):
            part["epoch"][row] = EPOCH
            part["crc"][row] = crc = crc32c(part[row : row + 1].tobytes(), crc)
        paths.append(f"{kept.path}/shard{shard}/events-{begin:020d}")
        handle = disk.create(paths[-1], size)
        disk.pwrite(handle, header_bytes(header) + part.tobytes(), 0)
        disk.close(handle)
    return paths


def flip(path: str, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file over."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def journal_records(kept: KeptDirectory, shard: int = 0) -> np.ndarray:
    """Every record of a shard."""
    return np.concatenate([np.zeros(0, COMMAND), *kept.read(shard)])
