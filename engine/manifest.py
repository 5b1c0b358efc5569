"""What a data directory is: manifest.json, written whole or not at all.

Cold. The supervisor writes it, always under DIR/lock; everybody may read it. It says for which
layouts, rules, number of shards and sizes the files beside it were written (others are refused with
a sentence that says what to do), which epoch may write, and where the staging rings of the last
owner are: shared memory of one boot of one machine, so the boot id and the directory's own device
and inode stand beside their name. A copied directory, or one found after a reboot, has no staging.

    staging  clean
    ""       true    closed in order: everything is in the files
    name     false   in use, or its owner died: recovery reads that segment first

The text ends with a CRC of itself: a flipped digit in `epoch` would otherwise be believed. A change
of `batch_max` and `events_per_command_max` is welcome at any time, they decide nothing; every other
limit, and the policy for unknown symbols, decides what a replay of old commands does.
"""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from engine.config import Config, ShardLimits
from engine.crc32c import CRC_START, crc32c
from engine.disk import Disk
from engine.records import LAYOUT_FINGERPRINT, RULES_VERSION
from engine.whole_file import replace_file

MANIFEST_FORMAT = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_BYTES_MAX = 1 << 16
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LIMITS_FREE = frozenset({"batch_max", "events_per_command_max"})


class ManifestError(Exception):
    """A directory this program may not go on with; the message says why and what to do."""


def boot_id() -> str:
    """Name of this boot of this machine: shared memory does not outlive it."""
    return BOOT_ID.read_text().strip()


def directory_identity(path: str) -> tuple[int, int]:
    """Device and inode of a directory: what tells it from a copy."""
    info = os.stat(path)
    return info.st_dev, info.st_ino


def deciding_limits(limits: ShardLimits) -> dict[str, int]:
    """The limits that decide what commands do, by name."""
    values = dataclasses.asdict(limits)
    return {name: value for name, value in values.items() if name not in LIMITS_FREE}


def limits_fingerprint(limits: ShardLimits) -> int:
    """Hash of the deciding limits, a positive 32-bit number."""
    return _text_crc(orjson.dumps(deciding_limits(limits)))


def symbol_policy(config: Config) -> dict[str, str]:
    """What happens to unknown symbols; commands are replayed under the same policy."""
    template = dataclasses.asdict(config.template)
    return {"unknown_symbol": config.unknown_symbol} | {
        name: template[name] for name in ("tick", "lot", "max_price")
    }


def _text_crc(text: bytes) -> int:
    return crc32c(text + bytes(-len(text) % 8), CRC_START)


@dataclass(frozen=True)
class Manifest:
    """The manifest of one directory; `dataclasses.replace` and `save` change it."""

    instance: str
    shards: int
    limits: dict[str, int]  # ShardLimits
    policy: dict[str, str] = field(default_factory=dict)
    epoch: int = 0  # of the last owner; the next takes one more, and saves it before it serves
    incarnation: int = 1  # clients resume within one incarnation
    mode: str = "batch"
    boot_id: str = ""
    device: int = 0
    inode: int = 0
    staging: str = ""
    clean: bool = True
    created_ns: int = 0
    # The incarnation is not in every journal yet: a start was begun that had to tell the shards,
    # and, with `orders_lost`, to let order ids jump.
    renewing: bool = False
    orders_lost: bool = False
    format: int = MANIFEST_FORMAT
    layout_fingerprint: int = LAYOUT_FINGERPRINT
    rules_version: int = RULES_VERSION

    @classmethod
    def begin(cls, config: Config, shards: int, now_ns: int) -> "Manifest":
        """The manifest of a directory that holds nothing yet."""
        return cls(
            instance=config.instance,
            shards=shards,
            limits=dataclasses.asdict(config.shard),
            policy=symbol_policy(config),
            mode=config.journal.mode,
            created_ns=now_ns,
        )

    @staticmethod
    def load(disk: Disk, directory: str) -> "Manifest | None":
        """Read the manifest of a directory, None when it has none; ManifestError when it is
        damaged or of another format.
        """
        path = f"{directory}/{MANIFEST_NAME}"
        if not disk.exists(path):
            return None
        handle = disk.open(path)
        try:
            text = disk.pread(handle, MANIFEST_BYTES_MAX, 0)
        finally:
            disk.close(handle)
        return _parse(text, path)

    def save(self, disk: Disk, directory: str) -> None:
        """Make it durable: when this returns, whoever loads finds exactly this one; before, the one
        before. OSError leaves the one before.
        """
        values = dataclasses.asdict(self)
        text = orjson.dumps(values, option=orjson.OPT_INDENT_2)
        text = orjson.dumps(values | {"crc": _text_crc(text)}, option=orjson.OPT_INDENT_2)
        replace_file(disk, f"{directory}/{MANIFEST_NAME}", [text])

    def check(self, config: Config, shards: int) -> None:
        """Raise ManifestError unless this program, with this configuration, may go on with the
        directory.
        """
        if self.layout_fingerprint != LAYOUT_FINGERPRINT:
            raise ManifestError(
                "the directory was written with other record layouts: go on with the version that"
                " wrote it, or start in an empty directory"
            )
        if self.rules_version != RULES_VERSION:
            raise ManifestError(
                f"the directory was written under rules version {self.rules_version}, this program"
                f" has {RULES_VERSION}: go on with the version that wrote it, or start in an empty"
                " directory"
            )
        if self.shards != shards:
            raise ManifestError(
                f"the directory holds {self.shards} shards, the configuration has {shards}:"
                f" set shards = {self.shards}, or start in an empty directory"
            )
        kept = {name: value for name, value in self.limits.items() if name not in LIMITS_FREE}
        _check_same("shard", kept, deciding_limits(config.shard))
        _check_same("symbol policy", self.policy, symbol_policy(config))

    def staging_lives(self, boot: str, identity: tuple[int, int]) -> bool:
        """Whether the staging rings named here can still be there: same boot, same directory."""
        return bool(self.staging) and (self.boot_id, self.device, self.inode) == (boot, *identity)


def _check_same(what: str, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = [name for name in {**kept, **wanted} if kept.get(name) != wanted.get(name)]
    if names:
        said = ", ".join(
            f"{name} {kept.get(name)!r} (now {wanted.get(name)!r})" for name in sorted(names)
        )
        raise ManifestError(
            f"the directory was written with other values of {what}: {said}; set them back, or"
            " start in an empty directory"
        )


def _parse(text: bytes, path: str) -> Manifest:
    damaged = f"{path} is damaged; restore the whole directory from a backup"
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ManifestError(f"{damaged}: {error}") from error
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise ManifestError(f"{damaged}: it is no manifest")
    if values["format"] != MANIFEST_FORMAT:
        raise ManifestError(
            f"{path} has format {values['format']}, this program reads {MANIFEST_FORMAT}:"
            " go on with the version that wrote it"
        )
    crc = values.pop("crc", None)
    if crc != _text_crc(orjson.dumps(values, option=orjson.OPT_INDENT_2)):
        raise ManifestError(f"{damaged}: its text and its CRC do not agree (was it edited?)")
    try:
        return Manifest(**values)
    except TypeError as error:
        raise ManifestError(f"{damaged}: {error}") from error
