"""`run.py verify`, `inspect` and `replay journal` over made-up data directories; exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli import inspect, record_text, replay_journal, verify
from cli.common import CommandError, time_of, whole_time
from engine.file_header import FILE_HEADER_BYTES
from engine.kept_directory import KeptDirectory, open_kept
from engine.records import COMMAND, EVENT, CommandKind, EventKind, OrderType, pack_name
from engine.time_machine import Terms
from tests.engine.kept import (
    add_log,
    add_snapshots,
    all_events,
    config_of_world,
    flip,
    journal_records,
    make_directory,
    recorded_on,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kept(tmp_path: Path) -> KeptDirectory:
    world, commands = recorded_on(5, 400)
    made = make_directory(str(tmp_path / "data"), config_of_world(world), [commands])
    add_snapshots(made, 0, (100, 300))
    add_log(made, 0, all_events(made, 0))
    return made


def segment(kept: KeptDirectory, kind: str = "journal") -> str:
    return str(min(Path(kept.path, "shard0").glob(f"{kind}-*")))


def options(**changes: object) -> inspect.Options:
    base = inspect.Options(None, 20, False, None, None, None)
    return base._replace(**changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------- verify
def test_verify_says_what_it_found(kept: KeptDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.command(Path(kept.path), None, False) == 0
    text = capsys.readouterr().out
    assert f"shard 0  {len(journal_records(kept))} commands, " in text
    assert "snapshots  100, 300 as replayed" in text
    assert text.endswith("verified: 1 shard, everything is as written and as replayed\n")
    assert verify.command(Path(kept.path), 0, True) == 0
    assert "commands from snapshot 300 on" in capsys.readouterr().out


def test_verify_tells_damage_from_difference(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    events = all_events(kept, 0)
    for path in Path(kept.path, "shard0").glob("events-*"):
        path.unlink()
    events["px"][20] += 1
    add_log(kept, 0, events)
    assert verify.command(Path(kept.path), None, False) == 3
    assert "DIFFERS    " in capsys.readouterr().out
    flip(segment(kept), FILE_HEADER_BYTES + 20 * COMMAND.itemsize + 5)
    assert verify.command(Path(kept.path), None, False) == 1
    assert f"byte {FILE_HEADER_BYTES + 20 * COMMAND.itemsize}: record 21" in capsys.readouterr().out


@pytest.mark.slow
def test_exit_codes_and_sentences_of_the_command_line(kept: KeptDirectory, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "run.py"), *words]
        environ = {**os.environ, "NO_COLOR": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environ)

    done = run("verify", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"ringbook: {tmp_path} is no data directory: it has no manifest.json"
        " (run.py up says at its start where its directory is)\n"
    )
    assert run("verify", kept.path, "--shard", "7").returncode == 1
    assert run("verify", kept.path).returncode == 0
    done = run("replay", "journal", kept.path, "--until", "99999")
    assert done.returncode == 1
    assert "has no command 99999: its journal ends with" in done.stderr
    done = run("inspect", segment(kept), "--count", "1", "--json")
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()][1]["in_seq"] == 1


# --------------------------------------------------------------------------------------- inspect
def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_segment_is_shown_record_by_record(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.command(segment(kept), options(first=5, most=3, json=True)) == 0
    header, *rows = [json.loads(line) for line in lines_of(capsys)]
    assert (header["kind"], header["first"], header["shard"]) == ("journal", 1, 0)
    records = journal_records(kept)
    assert [row["in_seq"] for row in rows] == [5, 6, 7]
    for row, record in zip(rows, records[4:7], strict=True):
        assert row["kind_name"] == CommandKind(record["kind"]).name
        for name in ("account", "px", "qty", "order_id", "crc", "epoch"):
            assert row.get(name, 0) == record[name]
    inspect.command(segment(kept, "events"), options(first=2, most=1, json=True))
    assert json.loads(lines_of(capsys)[1])["out_seq"] == 2


def test_lines_name_codes_and_decimals(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect.command(segment(kept), options(most=10_000))
    text = "\n".join(lines_of(capsys))
    records = journal_records(kept)
    order = records[(records["kind"] == CommandKind.NEW) & (records["px"] == 50)][0]
    [line] = [line for line in text.splitlines() if line.startswith(f"{order['in_seq']}  ")]
    assert "  NEW  " in line
    assert "px=50(" in line
    assert "order_type=limit" in line
    assert "empty from in_seq" in text or "journal-" in text


def test_the_end_of_a_file_is_said_and_what_lies_outside(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = str(max(Path(kept.path, "shard0").glob("journal-*")))
    inspect.command(newest, options(most=100_000))
    assert f"empty from in_seq {len(journal_records(kept)) + 1} on" in lines_of(capsys)[-1]
    inspect.command(segment(kept), options(first=10**9))
    assert "the file has room for in_seq 1 .. " in lines_of(capsys)[-1]


@pytest.mark.parametrize("byte", [0, 8, 115, 144, 150, 191])
def test_a_damaged_record_is_shown_as_such(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str], byte: int
) -> None:
    offset = FILE_HEADER_BYTES + 29 * COMMAND.itemsize
    flip(segment(kept), offset + byte)
    assert inspect.command(segment(kept), options(first=28, most=6, json=True)) == 1
    rows = [json.loads(line) for line in lines_of(capsys)][1:]
    damaged = [row["offset"] for row in rows if "damaged" in row]
    assert damaged[0] == offset
    assert len(damaged) == (2 if byte == 144 else 1)  # in the stored CRC: the next one hangs on it
    assert inspect.command(segment(kept), options(first=28, most=6)) == 1
    assert "DAMAGED: byte " in capsys.readouterr().out


def test_damage_of_every_kind_never_ends_in_a_traceback(kept: KeptDirectory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for path in sorted(Path(kept.path, "shard0").iterdir()):
        if not path.is_file() or path.name.endswith(".lock"):
            continue
        raw = bytearray(path.read_bytes())
        for _ in range(12):
            spoiled = bytearray(raw)
            for place in rng.integers(0, len(raw), 5):
                spoiled[place] = rng.integers(0, 256)
            for place in rng.integers(0, min(len(raw), 6000), 20):
                spoiled[place] = rng.integers(0, 256)
            path.write_bytes(spoiled[: int(rng.integers(0, len(raw)))])
            assert inspect.command(str(path), options(most=60)) in (0, 1)
        path.write_bytes(raw)


def test_snapshot_index_and_manifest(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.command(segment(kept, "snapshot"), options()) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  in_seq +100$", text, re.M)
    assert "order_counter" in text
    manifest = f"{kept.path}/manifest.json"
    assert inspect.command(manifest, options(json=True)) == 0
    assert json.loads(lines_of(capsys)[0])["shards"] == 1
    Path(manifest).write_text(Path(manifest).read_text().replace('"epoch": 3', '"epoch": 4'))
    assert inspect.command(manifest, options()) == 1
    assert "its text and its CRC do not agree" in capsys.readouterr().out


def test_names_that_are_neither_file_nor_ring_are_refused(kept: KeptDirectory) -> None:
    with pytest.raises(CommandError, match="is no file, and no ring"):
        inspect.command("nonsense", options())
    with pytest.raises(CommandError, match="is a directory"):
        inspect.command(kept.path, options())


def test_a_line_speaks_of_prices_in_ticks_and_decimals() -> None:
    event = np.zeros(1, EVENT)
    values = {
        "out_seq": 7, "in_seq": 3, "kind": EventKind.FILL, "px": 18_742, "qty": 10, "side": 0,
        "symbol_id": 65_537, "order_type": OrderType.LIMIT, "role": 2,
    }  # fmt: skip
    for name, value in values.items():
        event[name] = value
    known = {65_537: Terms("AAPL", 10**7, 10**9)}
    line = record_text.record_line(event[0], known)
    assert line == (
        "7  command 3  1970-01-01T00:00:00.000000000Z  FILL  px=18742(187.42) qty=10(10) side=buy"
        " order_type=limit role=taker symbol_id=65537(AAPL)"
    )
    command = np.zeros(1, COMMAND)
    command["kind"], command["symbol"], command["px"] = 1, pack_name("AAPL"), 5
    assert "px=5(0.05)" in record_text.record_line(command[0], known)
    command["kind"] = 250
    assert "  250  " in record_text.record_line(command[0], {})


# ---------------------------------------------------------------------------------- time machine
def journal_options(kept: KeptDirectory, **changes: object) -> replay_journal.Options:
    base = replay_journal.Options(
        Path(kept.path), None, None, None, None, 5, None, None, None, False
    )
    return base._replace(**changes)  # type: ignore[arg-type]


def test_a_moment_shows_books_and_trades(
    kept: KeptDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay_journal.command(journal_options(kept, until=250)) == 0
    text = capsys.readouterr().out
    assert text.startswith("shard 0 after command 250  ")
    assert re.search(r"^FA  [a-z_]+  \d+ trades", text, re.MULTILINE)  # whichever phase it is in
    assert "FB  " in text
    assert replay_journal.command(journal_options(kept, until=250, symbol="FA", depth=1)) == 0
    text = capsys.readouterr().out
    assert "FB  " not in text
    moment = whole_time(int(journal_records(kept)["in_ts"][249]))
    assert replay_journal.command(journal_options(kept, until_time=moment)) == 0


def test_a_fork_is_made_and_the_difference_said(
    kept: KeptDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fork = (150, tmp_path / "same")
    assert replay_journal.command(journal_options(kept, fork=fork, diff=True)) == 0
    text = capsys.readouterr().out
    assert "no difference" in text
    assert f"go on there with: run.py up --data {tmp_path / 'same'}\n" in text
    fork = (150, tmp_path / "other")
    assert replay_journal.command(journal_options(kept, fork=fork, without="1", diff=True)) == 3
    text = capsys.readouterr().out
    assert "first differing trade" in text or "final book, new" in text
    assert verify.command(tmp_path / "other", None, False) == 0
    assert open_kept(str(tmp_path / "other")).manifest.incarnation == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"until": 1, "fork": (1, Path("x"))}, "leave --until away"),
        ({"diff": True}, "go with --fork"),
        ({"until": 1, "until_time": "2026-01-01"}, "give one"),
        ({"fork": (1, Path("x")), "without": "nobody"}, "no account 'nobody'"),
        ({"until_time": "yesterday"}, "is no moment"),
    ],
)
def test_command_lines_that_contradict_themselves(
    kept: KeptDirectory, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        replay_journal.command(journal_options(kept, **changes))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:01", 10**9),
        ("1970-01-01T00:00:01.5Z", 15 * 10**8),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("123456789", 123456789),
    ],
)
def test_moments_are_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert time_of(text) == nanoseconds


def test_moments_are_written_as_they_are_read() -> None:
    for moment in (0, 1, 1_772_000_000_123_456_789):
        assert time_of(whole_time(moment)) == moment
    assert whole_time(2**63 - 1).startswith("2262-04-11T")
    assert whole_time(2**80) == f"{2**80}ns"
