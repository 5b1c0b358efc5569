"""A real exchange's directory, while it runs, after it ended, after it was killed, and forked."""

import dataclasses
import json
import signal
import threading
import time
from pathlib import Path

import pytest

from cli import inspect, replay_journal, verify
from engine.background import start_in_background
from engine.config import Config, Journal
from engine.kept_directory import KeptDirectory, open_kept
from engine.records import CommandKind
from engine.segment import process_start_time
from engine.state_hash import state_hash
from engine.time_machine import moment, open_orders
from engine.verify import verify_shard
from tests.engine.kept import journal_records
from tests.system.small import Wire, children_of, running, segments_of, small_config, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FEED_PORT = 19_700


def config_in(path: Path, name: str, feed_port: int, **changes: object) -> Config:
    journal = Journal(directory=str(path), segment_bytes=1 << 16, free_bytes_min=0)
    return dataclasses.replace(small_config(name, feed_port, journal=journal), **changes)


def place(wire: Wire, count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        side, price = ("buy", "10") if number % 3 else ("sell", "10.02")
        answer = wire.ask(symbol="AAPL", side=side, qty=2, price=price, id=number)
        assert answer["type"] == "accepted"
        assert wire.hear()["type"] == "booked"


def options(**changes: object) -> inspect.Options:
    return inspect.Options(None, 5, True, None, None, None)._replace(**changes)  # type: ignore[arg-type]


def all_on_disk(path: str, wanted: int) -> KeptDirectory:
    kept = open_kept(path)
    assert kept.live
    assert until(lambda: sum(open_kept(path).durable) >= wanted)
    return open_kept(path)


def test_a_running_exchange_is_read_and_not_disturbed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_in(tmp_path / "data", "keptlive", FEED_PORT)
    path = config.journal.directory
    with running(config) as handle:
        wire = Wire(handle.config.network.port)
        assert wire.logon()["type"] == "logon"
        place(wire, 30)
        staged = sum(open_kept(path).staged)
        kept = all_on_disk(path, staged)
        report = verify_shard(kept, 0)
        assert (report.damages, report.differences) == ([], [])
        assert report.commands == kept.durable[0]
        assert report.notes == [
            f"in use: verified up to command {report.commands}, which is on disk"
        ]
        assert open_orders(moment(kept, 0).state) == 30

        # Verified again and again under load: never a false alarm.
        going = threading.Event()
        failures: list[str] = []

        def look() -> None:
            while not going.is_set():
                seen = verify_shard(open_kept(path), 0)
                failures.extend(seen.damages + seen.differences)

        watcher = threading.Thread(target=look)
        watcher.start()
        place(wire, 900, first=100)
        going.set()
        watcher.join()
        assert failures == []

        for ring in ("commands", "events", "staging"):
            assert inspect.command(ring, options(instance="keptlive")) == 0
            rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert any("kind_name" in row for row in rows), ring
        wire.close()
        assert handle.stop() == 0
    kept = open_kept(path)
    assert not kept.live
    assert kept.manifest.clean
    report = verify_shard(kept, 0)
    assert (report.damages, report.differences, report.notes) == ([], [], [])
    assert report.snapshots
    assert report.log[1] == report.events
    assert segments_of("keptlive") == []


def test_after_a_kill_it_verifies_and_a_fork_serves(tmp_path: Path) -> None:
    config = config_in(tmp_path / "data", "keptfork", FEED_PORT + 20)
    path = config.journal.directory
    handle = start_in_background(config)
    wire = Wire(handle.config.network.port)
    assert wire.logon()["type"] == "logon"
    place(wire, 40)
    children = children_of(handle.process.pid)
    handle.process.send_signal(signal.SIGKILL)
    handle.process.wait()
    wire.close()
    assert until(lambda: not any(process_start_time(pid) for pid in children))
    report = verify_shard(open_kept(path), 0)
    assert (report.damages, report.differences) == ([], [])

    records = journal_records(open_kept(path))
    at = int(records["in_seq"][records["kind"] == CommandKind.NEW][9])
    other = dataclasses.replace(
        config, unknown_symbol="reject", journal=dataclasses.replace(config.journal, directory="")
    )
    toml = tmp_path / "other.toml"
    toml.write_text(_toml(other))
    new = tmp_path / "new"
    seen = replay_journal.Options(
        Path(path), None, None, None, None, 5, (at, new), toml, None, False
    )
    assert replay_journal.command(seen) == 0
    assert verify.command(new, None, False) == 0
    forked = open_kept(str(new))
    wanted = state_hash(moment(forked, 0).state)
    assert wanted

    journal = dataclasses.replace(config.journal, directory=str(new))
    with running(dataclasses.replace(other, journal=journal)) as again:
        wire = Wire(again.config.network.port)
        assert wire.logon()["type"] == "logon"
        # Another incarnation: nobody resumes here with numbers of the old run.
        assert open_kept(str(new)).manifest.incarnation > forked.manifest.incarnation
        place(wire, 3, first=500)
        wire.close()
        time.sleep(0.1)
        assert again.stop() == 0
    report = verify_shard(open_kept(str(new)), 0)
    assert (report.damages, report.differences) == ([], [])
    with running(config) as old:  # and the old one goes on as if nothing had been
        assert old.process.poll() is None
    assert segments_of("keptfork") == []


def _toml(config: Config) -> str:
    lines = [f'instance = "{config.instance}"', f'unknown_symbol = "{config.unknown_symbol}"']
    lines.append("[shard]")
    shard = dataclasses.asdict(config.shard)
    lines += [f"{name} = {value}" for name, value in shard.items()]
    lines += ["[rings]", "event_capacity = 8192", "command_capacity = 1024"]
    return "\n".join(lines) + "\n"
