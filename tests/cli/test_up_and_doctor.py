"""Where `run.py up` keeps its journal and what it promises; what the doctor says of disks."""

import dataclasses
import os
from pathlib import Path

import pytest

from cli import doctor, doctor_disk, up
from cli.common import CommandError
from engine.config import JOURNAL_MODES, Config, ConfigError, Journal
from engine.disk import RealDisk
from engine.manifest import Manifest

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 21 0:25 / /dev/shm rw,nosuid - tmpfs tmpfs rw
31 21 0:26 / /mnt/with\\040blank rw - xfs /dev/b rw
32 21 0:27 / /mnt rw - nfs4 host:/x rw
33 21 0:28 broken
"""


def options(**changes: object) -> up.Options:
    return up.Options(["all"], None, None, None, None, None, None, None)._replace(**changes)  # type: ignore[arg-type]


def test_without_a_word_each_instance_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert up.configure(options()).journal.directory == str(tmp_path / "ringbook" / "ringbook")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = up.configure(options()).journal.directory
    assert directory == str(tmp_path / ".local" / "share" / "ringbook" / "ringbook")
    assert list(tmp_path.iterdir()) == []  # nothing is made before the exchange starts


def test_data_and_journal_come_from_the_command_line(tmp_path: Path) -> None:
    config = up.configure(options(data=tmp_path / "d", journal="sync", shards=1))
    assert (config.journal.directory, config.journal.mode) == (str(tmp_path / "d"), "sync")
    config = up.configure(options(journal="none"))
    assert (config.journal.directory, config.journal.mode) == ("", "none")
    with pytest.raises(CommandError, match="leave --data away"):
        up.configure(options(data=tmp_path, journal="none"))
    with pytest.raises(ConfigError, match=r"journal.mode must be one of none, os, batch, sync"):
        up.configure(options(journal="fast"))


def test_the_configured_directory_counts(tmp_path: Path) -> None:
    toml = tmp_path / "x.toml"
    toml.write_text(f'[journal]\ndirectory = "{tmp_path}/there"\n')
    assert up.configure(options(config=toml)).journal.directory == f"{tmp_path}/there"
    assert up.configure(options(config=toml, data=tmp_path / "d")).journal.directory == str(
        tmp_path / "d"
    )


def test_a_directory_is_gone_on_with_its_own_number_of_shards(tmp_path: Path) -> None:
    disk, path = RealDisk(), str(tmp_path / "d")
    disk.makedirs(path)
    Manifest.begin(Config(), 5, 1).save(disk, path)
    assert up.configure(options(data=Path(path))).shards == 5
    assert up.configure(options(data=Path(path), shards=2)).shards == 2  # refused by the start


@pytest.mark.parametrize("mode", JOURNAL_MODES)
def test_the_ready_lines_say_where_and_what_is_promised(mode: str) -> None:
    journal = Journal(directory="/data/x", mode=mode, loss_window_ms=70)
    config = dataclasses.replace(Config(), shards=2, journal=journal)
    text = "\n".join(up.ready_lines(config, {"shard", "gateway", "feed"}))
    assert f"{mode}: " in text
    assert ("/data/x" in text) == (mode != "none")
    assert ("70 ms" in text) == (mode == "batch")
    assert max(map(len, text.splitlines())) <= 110
    assert "journal" not in "\n".join(up.ready_lines(config, {"gateway"}))


# ------------------------------------------------------------------------------------------ disks
def test_the_file_system_of_a_path_is_that_of_the_deepest_mount() -> None:
    def system(path: str) -> str:
        return doctor_disk.system_of(Path(path), MOUNTS)

    assert system("/srv/x") == "ext4"
    assert system("/dev/shm/x") == "tmpfs"
    assert system("/dev/shmx") == "ext4"
    assert system("/mnt/with blank/y") == "xfs"
    assert system("/mnt") == "nfs4"


def seen(**changes: object) -> doctor_disk.Disk:
    base = doctor_disk.Disk(Path("/srv"), "ext4", 1 << 40, [0.0002, 0.0003, 0.002])
    return base._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "mark", "word"),
    [
        ({}, "ok", "fdatasync 0.3 ms, at worst 2 ms"),
        ({"system": "tmpfs"}, "note", "this is memory"),
        ({"system": "nfs4"}, "note", "over a network"),
        ({"free": 1 << 20}, "bad", "are needed"),
        ({"syncs_s": [0.0002, 0.0003, 0.2]}, "note", "close the gate"),
        ({"syncs_s": [0.02, 0.02, 0.03]}, "note", "slow"),
        ({"syncs_s": [], "trouble": "Permission denied"}, "bad", "Permission denied"),
    ],
)
def test_disks_are_judged(changes: dict[str, object], mark: str, word: str) -> None:
    config = dataclasses.replace(Config(), shards=1)
    found = doctor_disk.judge(config, "/srv/ringbook", seen(**changes))
    assert found[0] == mark
    assert word in found[1]


def test_a_real_directory_is_tried_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = doctor_disk.look(str(tmp_path / "not" / "there" / "yet"))
    assert disk.place == tmp_path
    assert disk.syncs_s
    assert disk.syncs_s == sorted(disk.syncs_s)
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    finding = doctor.check_disk(Config())
    assert finding.name == "data directory"
    assert str(tmp_path / "ringbook" / "ringbook") in finding.sentence
