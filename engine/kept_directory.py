"""A data directory as a reader sees it: under which terms it was written, how far it may be read.

Cold. For `run.py verify`, `inspect` and the time machine; it takes no lock and changes nothing.

    closed, copied, or its owner dead   the files are judged to their end, as a start would
    in use                              up to what its journal has told to be on disk (DURABLE);
                                        whatever lies behind is still being written
"""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from engine.config import Config, Instrument, Rings, ShardLimits
from engine.disk import Disk
from engine.disk_read import ReadOnlyDisk
from engine.journal_reader import JournalDamage, JournalRead, journal_read
from engine.manifest import MANIFEST_NAME, Manifest, ManifestError, boot_id, directory_identity
from engine.segment import OWNER, OWNER_START, Segment, SegmentError, owner_alive
from engine.snapshot import snapshot_list
from engine.staging import DURABLE, STAGED, StagingRings


@dataclass(frozen=True)
class KeptDirectory:
    """A data directory, to be read."""

    path: str
    manifest: Manifest
    config: Config  # limits and policy as the directory was written with; the rest is not known
    live: bool = False
    durable: tuple[int, ...] = ()  # of each shard, where the staging ring of its last run is there
    staged: tuple[int, ...] = ()
    disk: Disk = field(default_factory=ReadOnlyDisk)

    @property
    def shards(self) -> range:
        """Its shards."""
        return range(self.manifest.shards)

    def until(self, shard: int) -> int | None:
        """How far a shard may be read; None: to the end of its files."""
        return self.durable[shard] if self.live else None

    def beyond(self, shard: int) -> int:
        """How many commands are staged and not yet told to be on disk."""
        return self.staged[shard] - self.durable[shard] if self.staged else 0

    def read(self, shard: int, after: int = 0, crc: int | None = None) -> JournalRead:
        """The records of a shard behind `after`, to be judged as a start would judge them."""
        durable = self.durable[shard] if self.durable else 0
        newest = max(snapshot_list(self.disk, self.path, shard), default=0)
        until = self.until(shard)
        mark = max(newest, durable) if until is None else durable
        return journal_read(self.disk, self.path, shard, after, mark, crc=crc, until=until)

    def shard_checked(self, shard: int) -> int:
        """The shard, or ManifestError when there is none of that number."""
        if shard not in self.shards:
            raise ManifestError(
                f"{self.path} has no shard {shard}: its shards are 0 .. {self.manifest.shards - 1}"
            )
        return shard


def open_kept(path: str) -> KeptDirectory:
    """Read what a data directory says of itself; ManifestError says why it cannot be read."""
    disk = ReadOnlyDisk()
    path = path.rstrip("/") or "/"
    manifest = Manifest.load(disk, path)
    if manifest is None:
        raise ManifestError(
            f"{path} is no data directory: it has no {MANIFEST_NAME}"
            " (run.py up says at its start where its directory is)"
        )
    config = config_of(manifest)
    manifest.check(config, manifest.shards)
    kept = KeptDirectory(path, manifest, config, disk=disk)
    rings = _staging(kept)
    if rings is None:
        return kept
    header = rings.segment.header
    live = owner_alive(int(header[OWNER]), int(header[OWNER_START]))
    durable = tuple(rings.get(shard, DURABLE) for shard in kept.shards)
    staged = tuple(rings.get(shard, STAGED) for shard in kept.shards)
    rings.close()
    return dataclasses.replace(kept, live=live, durable=durable, staged=staged)


def config_of(manifest: Manifest) -> Config:
    """The part of the configuration that decides what a replay does."""
    try:
        limits = ShardLimits(**manifest.limits)
        policy = dict(manifest.policy)
        unknown = policy.pop("unknown_symbol")
        terms: dict[str, Any] = dict(policy)
        template = Instrument("TEMPLATE", **terms)
    except (TypeError, KeyError) as error:
        raise ManifestError(f"the manifest does not say all its limits: {error}") from error
    room = 1 << (4 * limits.events_per_command_max - 1).bit_length()
    return dataclasses.replace(
        Config(),
        instance=manifest.instance,
        shards=manifest.shards,
        shard=limits,
        unknown_symbol=unknown,
        template=template,
        rings=Rings(event_capacity=room),
    )


def _staging(kept: KeptDirectory) -> StagingRings | None:
    # The staging rings of the run that has the directory, or had it last.
    manifest = kept.manifest
    if manifest.clean or not manifest.staging_lives(boot_id(), directory_identity(kept.path)):
        return None
    with contextlib.suppress(SegmentError):
        return StagingRings(Segment.open(manifest.staging, StagingRings.kind))
    return None


__all__ = ["JournalDamage", "KeptDirectory", "config_of", "open_kept"]
