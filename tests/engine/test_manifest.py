"""The manifest: whole or not at all, believed only when it is as written, refused with advice."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from engine.config import Config, Instrument, ShardLimits
from engine.disk import RealDisk
from engine.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    boot_id,
    deciding_limits,
    directory_identity,
    limits_fingerprint,
)
from tests.sim.sim_disk import PowerCut, SimDisk

PATH = f"d/{MANIFEST_NAME}"


def manifest(**changes: object) -> Manifest:
    return dataclasses.replace(Manifest.begin(Config(), 3, 1234), **changes)  # type: ignore[arg-type]


def new_disk() -> SimDisk:
    disk = SimDisk()
    disk.makedirs("d")
    disk.sync_dir("")
    return disk


def test_what_is_saved_is_loaded() -> None:
    disk = new_disk()
    assert Manifest.load(disk, "d") is None
    first = manifest(
        epoch=7, staging="/ringbook.x.staging", clean=False, boot_id="b", inode=2**63 - 1
    )
    first.save(disk, "d")
    assert Manifest.load(disk, "d") == first
    second = dataclasses.replace(first, epoch=8, clean=True, staging="")
    second.save(disk, "d")
    assert Manifest.load(disk, "d") == second
    assert disk.listdir("d") == [MANIFEST_NAME]


def test_on_a_real_disk_it_is_private_and_readable_by_people(tmp_path: Path) -> None:
    disk = RealDisk()
    made = manifest()
    made.save(disk, str(tmp_path))
    assert Manifest.load(disk, str(tmp_path)) == made
    path = tmp_path / MANIFEST_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert '"shards": 3' in path.read_text()


def test_same_configuration_may_go_on_whatever_decides_nothing_may_change() -> None:
    made = manifest()
    made.check(Config(), 3)
    made.check(Config(shard=ShardLimits(batch_max=7, events_per_command_max=16_064)), 3)
    made.check(Config(instance="other"), 3)


def test_d9_d11_refusals_say_what_to_do() -> None:
    made, config = manifest(), Config()
    cases = [
        (made, Config(shard=ShardLimits(max_walk=7)), 3, "max_walk 100000 .now 7.; set them back"),
        (made, Config(unknown_symbol="reject"), 3, "unknown_symbol 'create' .now 'reject'."),
        (made, Config(template=Instrument("T", "0.05")), 3, "tick '0.01' .now '0.05'."),
        (made, config, 2, "holds 3 shards, the configuration has 2: set shards = 3"),
        (manifest(layout_fingerprint=1), config, 3, "other record layouts: go on with the version"),
        (manifest(rules_version=77), config, 3, "rules version 77, this program has"),
    ]
    for directory, now, shards, words in cases:
        with pytest.raises(ManifestError, match=words):
            directory.check(now, shards)


def test_every_deciding_limit_is_in_the_fingerprint() -> None:
    limits = ShardLimits()
    found = {limits_fingerprint(limits)}
    for name in deciding_limits(limits):
        found.add(limits_fingerprint(dataclasses.replace(limits, **{name: 5})))
    assert len(found) == 1 + len(deciding_limits(limits))


def test_a_format_of_the_future_is_refused() -> None:
    disk = new_disk()
    manifest(format=2).save(disk, "d")
    with pytest.raises(ManifestError, match="format 2, this program reads 1"):
        Manifest.load(disk, "d")


def test_d2_every_flipped_bit_is_refused_or_changes_nothing() -> None:
    disk, made = new_disk(), manifest(epoch=12345, staging="/ringbook.x.staging")
    made.save(disk, "d")
    text, refused = disk.read(PATH), 0
    for byte in range(len(text)):
        for bit in range(8):
            disk.overwrite(PATH, bytes([text[byte] ^ 1 << bit]), byte)
            try:
                assert Manifest.load(disk, "d") == made  # white space
            except ManifestError:
                refused += 1
        disk.overwrite(PATH, text[byte : byte + 1], byte)
    assert refused > 6 * len(text)
    for cut in range(len(text)):
        disk.overwrite(PATH, text)
        disk.overwrite(PATH, b"", size=cut)
        with pytest.raises(ManifestError, match="restore the whole directory"):
            Manifest.load(disk, "d")


def test_nonsense_is_refused() -> None:
    disk = new_disk()
    manifest().save(disk, "d")
    for text in (b"[]", b'{"format":"1"}', b'{"format":1}', b'{"format":1,"crc":0}', b"\xff", b"1"):
        disk.overwrite(PATH, text, size=len(text))
        with pytest.raises(ManifestError):
            Manifest.load(disk, "d")


def test_d6_a_crash_at_every_operation_leaves_the_old_or_the_new_one() -> None:
    old, new = manifest(epoch=1), manifest(epoch=2, staging="x", clean=False)
    probe = new_disk()
    old.save(probe, "d")
    before = probe.operations
    new.save(probe, "d")
    operations, seen = probe.operations - before, set()
    for cut in range(1, operations + 2):
        for seed in range(20):
            disk = new_disk()
            old.save(disk, "d")
            if cut <= operations:
                disk.cut_power(cut)
                with pytest.raises(PowerCut):
                    new.save(disk, "d")
            else:
                new.save(disk, "d")
            disk.crash(random.Random(cut * 100 + seed))
            found = Manifest.load(disk, "d")
            assert found == new if cut > operations else found in (old, new)
            seen.add(found.epoch if found else None)
            new.save(disk, "d")
            assert disk.listdir("d") == [MANIFEST_NAME]
    assert seen == {1, 2}


def test_d4_a_failing_operation_leaves_the_old_or_the_new_one() -> None:
    old, new = manifest(epoch=1), manifest(epoch=2)
    for at in range(1, 6):
        disk = new_disk()
        old.save(disk, "d")
        disk.fail(at, errno.EIO)
        with pytest.raises(OSError, match="error"):
            new.save(disk, "d")
        assert Manifest.load(disk, "d") in (old, new)
        disk.heal()
        new.save(disk, "d")
        assert Manifest.load(disk, "d") == new


def test_staging_is_looked_for_in_the_same_boot_and_directory_only(tmp_path: Path) -> None:
    here = directory_identity(str(tmp_path))
    made = manifest(staging="/ringbook.x.staging", boot_id=boot_id(), device=here[0], inode=here[1])
    assert made.staging_lives(boot_id(), here)
    copy = shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    assert not made.staging_lives(boot_id(), directory_identity(str(copy)))
    assert not made.staging_lives("another boot", here)
    assert not dataclasses.replace(made, staging="").staging_lives(boot_id(), here)
    moved = tmp_path.with_name("moved")
    os.rename(tmp_path, moved)
    assert made.staging_lives(boot_id(), directory_identity(str(moved)))
    os.rename(moved, tmp_path)


def test_boot_id_is_the_same_for_the_whole_boot() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
