"""The data directory of an instance: who may use it, what it says, how a start begins from it.

Cold. One owner at a time (flock on DIR/lock). A start judges the journals to their end, takes over
what still lies in the staging ring of the last run, and numbers itself (epoch, on disk) before any
owner serves:

    manifest ---> staging ring of the last run, if it can still be believed
    journals ---> torn tail cut and reported; damage refuses the start, naming file and offset
        |
        '-------> a new staging ring that begins there and holds what the old one had beyond

`renewal` is what every shard has to be told: a new incarnation where acknowledgements may be lost
(DESIGN §6). Without a directory in the configuration the instance keeps its journal in a temporary
one, removed before the next start and after a clean end.
"""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.admin import Renewal
from engine.config import Config
from engine.disk import Disk, RealDisk
from engine.instance import Instance, runtime_directory
from engine.journal_files import PREFIX, JournalDamage, shard_directory
from engine.journal_reader import journal_read
from engine.manifest import Manifest, boot_id, directory_identity
from engine.records import COMMAND
from engine.segment import Segment, SegmentError, segment_name
from engine.snapshot import snapshot_list
from engine.staging import (
    DURABLE,
    INCARNATION,
    SNAPSHOT,
    SNAPSHOT_BEFORE,
    STAGED,
    WRITER_EPOCH,
    StagingRings,
)

STAGING_NAMES = 100_000  # segment names have room for five digits of the epoch


class DirectoryBusy(RuntimeError):
    """Another exchange uses the data directory."""


@dataclass
class ShardEnd:
    """Where the journal of one shard ends."""

    in_seq: int
    crc: int
    snapshots: tuple[int, int]  # in_seq of the newest and the one before
    staged: np.ndarray  # COMMANDs the last run had staged beyond
    sure: int  # up to here they are on disk, not only in the page cache


def temporary_path(instance: str) -> str:
    """Return where an instance without a data directory keeps its journal."""
    return str(runtime_directory() / f"{instance}.data")


class DataDirectory:
    """An open data directory, owned by this process."""

    def __init__(self, config: Config, shards: int, disk: Disk | None = None) -> None:
        self.config, self.shards = config, shards
        self.disk = disk or RealDisk()
        self.temporary = not config.journal.directory
        self.path = config.journal.directory or temporary_path(config.instance)
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        self.disk.makedirs(self.path)
        with contextlib.suppress(PermissionError):  # its name has to outlive a power cut as well
            self.disk.sync_dir(os.path.dirname(os.path.abspath(self.path)))
        try:
            self.lock = self.disk.lock(os.path.join(self.path, "lock"))
        except BlockingIOError as error:
            raise DirectoryBusy(
                f"data directory {self.path} is used by a running exchange"
            ) from error
        for shard in range(shards):
            self.disk.makedirs(shard_directory(self.path, shard))
        found = Manifest.load(self.disk, self.path)
        self.fresh = found is None
        self.manifest = found or Manifest.begin(config, shards, time.time_ns())
        self.manifest.check(config, shards)
        self.notes: list[str] = []  # what a person should know
        self.lost = ""  # why acknowledgements of the last run may be missing
        self.ends: list[ShardEnd] = []
        self.renewal: Renewal | None = None
        self._old: StagingRings | None = None

    # ------------------------------------------------------------------------------- the last run
    def read(self) -> None:
        """Find out where the last run ended; JournalDamage refuses the start."""
        self._old = self._last_staging()
        self.ends = [self._journal_end(shard) for shard in range(self.shards)]
        now_s = int(time.time())
        if self.fresh:
            self.renewal = Renewal(now_s, advance=False)
        elif self.lost and self.manifest.mode != "sync":
            self.renewal = Renewal(max(self.manifest.incarnation + 1, now_s), advance=True)
            self.notes.append(
                f"{self.lost}: acknowledgements of its last moments may be missing;"
                " clients that resume are told"
            )
        elif self.manifest.renewing:  # an earlier start had to, and did not come so far
            self.renewal = Renewal(self.manifest.incarnation, advance=self.manifest.orders_lost)
        if self.renewal is not None:
            self._change(
                incarnation=self.renewal.incarnation,
                renewing=True,
                orders_lost=self.renewal.advance or self.manifest.orders_lost,
            )

    def _last_staging(self) -> StagingRings | None:
        # None after a clean end, or when what is there cannot be believed.
        manifest = self.manifest
        if manifest.clean or not manifest.staging:
            return None
        if manifest.boot_id != boot_id():
            self.lost = "the machine was started anew since the last run"
        elif not manifest.staging_lives(boot_id(), directory_identity(self.path)):
            self.lost = "the data directory is a copy of the one that was written"
        else:
            try:
                return self._staging_open(manifest.staging)
            except SegmentError as error:
                self.lost = f"the staging ring of the last run is gone ({error})"
        return None

    def _staging_open(self, name: str) -> StagingRings:
        return StagingRings(Segment.open(name, StagingRings.kind))

    def _journal_end(self, shard: int) -> ShardEnd:
        # A snapshot holds nothing that was not on disk. Whether it is whole is judged by who
        # loads it; the records behind an older one are verified then.
        kept = [*snapshot_list(self.disk, self.path, shard), 0, 0][:2]
        mark, staged = kept[0], np.zeros(0, COMMAND)
        if self._old is not None:
            mark = max(mark, self._old.get(shard, DURABLE))
        read = journal_read(self.disk, self.path, shard, after=kept[0], mark=mark).finish()
        names = self.disk.listdir(shard_directory(self.path, shard))
        if self.manifest.clean and not self.fresh and not any(n.startswith(PREFIX) for n in names):
            raise JournalDamage(
                shard_directory(self.path, shard), 0, "it was closed in order and is empty now"
            )
        if self._old is not None:
            staged_to = self._old.get(shard, STAGED)
            staged = self._old.records(shard, read.in_seq, max(staged_to, read.in_seq))
        elif read.cut_bytes:
            self.lost = self.lost or f"the journal of shard {shard} had a torn tail"
        if read.cut_bytes:
            self.notes.append(
                f"shard {shard}: {read.cut_bytes} bytes of a torn tail cut, from byte"
                f" {read.cut_offset} of {read.cut_file} on"
            )
        # The cache of this boot may hold what a failed sync has not brought to the disk, and count
        # it as clean. Another boot can have read it from nowhere else.
        cached = self._old is not None or self.manifest.boot_id == boot_id()
        sure = min(mark, read.in_seq) if cached and not self.manifest.clean else read.in_seq
        return ShardEnd(read.in_seq, read.crc, (kept[0], kept[1]), staged, sure)

    # ------------------------------------------------------------------------------- this run
    def staging_name(self) -> str:
        """Return the segment name of this run's staging ring."""
        number = (self.manifest.epoch + 1) % STAGING_NAMES
        return segment_name(self.config.instance, f"stg{number}")

    def staging_kept(self) -> frozenset[str]:
        """Return the segments of the last run that must outlive the janitor."""
        return frozenset([self.manifest.staging] if self._old is not None else [])

    def begin(self, instance: Instance) -> None:
        """Hand the journal's end to the instance, and become the owner on disk."""
        staging = instance.staging
        assert staging is not None
        epoch = self.manifest.epoch + 1
        for shard, end in enumerate(self.ends):
            staging.begin(shard, end.in_seq)
            staging.set(shard, DURABLE, end.sure)
            staging.restage(shard, end.staged)
            staging.set(shard, SNAPSHOT, end.snapshots[0])
            staging.set(shard, SNAPSHOT_BEFORE, end.snapshots[1])
            staging.set(shard, WRITER_EPOCH, epoch)
            staging.set(shard, INCARNATION, self.manifest.incarnation)
        device, inode = directory_identity(self.path)
        self._change(
            epoch=epoch,
            staging=staging.segment.name,
            clean=False,
            mode=self.config.journal.mode,
            boot_id=boot_id(),
            device=device,
            inode=inode,
        )
        self.manifest.save(self.disk, self.path)
        if self._old is not None:
            self._old.unlink()
            self._old.close()
            self._old = None

    def _change(self, **values: Any) -> None:
        self.manifest = replace(self.manifest, **values)

    def renewed(self) -> None:
        """Every shard's journal has the incarnation, on disk."""
        self._change(renewing=False, orders_lost=False)
        self.manifest.save(self.disk, self.path)

    def next_epoch(self) -> int:
        """Return the epoch of a shard's next owner, on disk already."""
        self._change(epoch=self.manifest.epoch + 1)
        self.manifest.save(self.disk, self.path)
        return self.manifest.epoch

    def close(self, clean: bool) -> None:
        """Note how this run ended and let go; a temporary directory goes with a clean end."""
        if clean:
            self._change(clean=True, staging="")
            self.manifest.save(self.disk, self.path)
        if self._old is not None:
            self._old.close()
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        self.disk.close(self.lock)
