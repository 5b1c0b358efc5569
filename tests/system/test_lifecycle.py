"""Start, stop, death: real processes. Nothing is left behind, whoever dies and however."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from engine.background import start_in_background
from engine.child_parts import StartError
from engine.children import PREFIX
from engine.config import Journal
from engine.instance import connect_instance
from engine.segment import process_start_time
from tests.system.small import WAIT_S, Wire, children_of, running, segments_of, small_config, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # each starts real processes


def test_stop_ends_every_process_and_removes_every_segment() -> None:
    with running(small_config("lifea", 19211)) as handle:
        wire = Wire(handle.config.network.port)
        assert wire.logon()["type"] == "logon"
        assert wire.ask(symbol="AAPL", side="buy", qty=1, price="10", id=1)["type"] == "accepted"
        children = children_of(handle.process.pid)
        assert len(children) == 5  # shard, gateway, feed, journal, follower
        # commands, events, tops, counters, staging, the shard's state and its follower's
        assert len(segments_of("lifea")) == 7
        started = time.monotonic()
        assert handle.stop() == 0
        assert time.monotonic() - started < 6
        wire.close()
    assert segments_of("lifea") == []
    assert not any(process_start_time(pid) for pid in children)


def test_killed_supervisor_takes_the_children_with_it_and_the_next_start_cleans_up() -> None:
    config = small_config("lifeb", 19221)
    handle = start_in_background(config)
    children = children_of(handle.process.pid)
    handle.process.kill()
    handle.process.wait()
    assert until(lambda: not any(process_start_time(pid) for pid in children))
    assert segments_of("lifeb"), "a killed owner cannot clean up"
    with running(config) as again:
        wire = Wire(again.config.network.port)
        assert wire.logon()["type"] == "logon"
        wire.close()
    assert segments_of("lifeb") == []


def test_second_instance_of_a_name_is_refused_and_the_first_goes_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = small_config("lifec", 19231)
    with running(config) as handle:
        with pytest.raises(StartError):
            start_in_background(config)
        assert "is running already" in capfd.readouterr().err
        wire = Wire(handle.config.network.port)
        assert wire.logon()["type"] == "logon"
        wire.close()


@pytest.mark.parametrize("role", ["shard", "gateway", "feed"])
def test_without_a_journal_the_death_of_a_child_stops_the_others_with_a_sentence(
    role: str, capfd: pytest.CaptureFixture[str]
) -> None:
    handle = start_in_background(small_config("lifed", 19241, journal=Journal(mode="none")))
    victims = [
        pid
        for pid in children_of(handle.process.pid)
        if Path(f"/proc/{pid}/comm").read_text().strip() == f"{PREFIX}{role}0"
    ]
    assert len(victims) == 1
    os.kill(victims[0], signal.SIGKILL)
    assert handle.process.wait(WAIT_S) == 1
    assert f"{role}0 (pid {victims[0]}) ended with signal SIGKILL" in capfd.readouterr().err
    assert segments_of("lifed") == []


def test_gateway_apart_refuses_until_its_shards_are_there() -> None:
    config = small_config("lifee", 19251)
    with running(config, ("gateway",)) as door:
        wire = Wire(door.config.network.port)
        refused = wire.logon()
        if refused["type"] == "logon":
            refused = wire.ask(symbol="AAPL", side="buy", qty=1, price="10", id=1)
        assert refused["code"] == 905
        assert str(refused["text"])
        wire.close()
        with running(config, ("shard", "feed")):
            answers = []

            def served() -> bool:
                wire = Wire(door.config.network.port)
                answers.append(wire.logon())
                if answers[-1]["type"] == "logon":
                    answers.append(wire.ask(symbol="AAPL", side="buy", qty=1, price="10", id=1))
                wire.close()
                return bool(answers[-1]["type"] == "accepted")

            assert until(served), answers[-1]


def test_descriptors_come_by_socket_and_only_when_the_shards_are_ready() -> None:
    config = small_config("lifef", 19261)
    assert connect_instance("lifef") is None
    with running(config, ("shard",)):
        instance = connect_instance("lifef")
        assert instance is not None
        assert instance.config.shard == config.shard
        block = instance.counters.block("shard0")
        assert until(lambda: block.get("symbols") == len(config.instruments))
        assert instance.next_logon() < instance.next_logon()
        instance.close()
    assert connect_instance("lifef") is None


def test_two_shards_serve_their_own_symbols() -> None:
    config = small_config("lifeg", 19271, shards=2)
    with running(config) as handle:
        wire = Wire(handle.config.network.port)
        assert wire.logon()["shards"] == 2
        seen = set()
        for number, instrument in enumerate(config.instruments, 1):
            wire.socket.sendall(
                orjson.dumps(
                    {
                        "symbol": instrument.symbol,
                        "side": "buy",
                        "qty": 1,
                        "price": 10,
                        "id": number,
                    }
                )
                + b"\n"
            )
            accepted = wire.hear()
            assert (accepted["type"], accepted["symbol"]) == ("accepted", instrument.symbol)
            assert wire.hear()["type"] == "booked"
            seen.add(accepted["shard"])
            book = wire.ask(type="book", symbol=instrument.symbol)
            assert [row[::2] for row in book["bids"]] == [["10.00", 1]], "the top of another book"
        assert seen == {0, 1}
        wire.close()


def test_run_py_up_says_where_it_is_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    config = small_config("lifeh", 19281)
    text = f"""
instance = "lifeh"
network = {{ port = {_free_port()}, feed_port = 19281, directory_port = 19280 }}
shard = {{ orders_max = 4096, slice_events = 900, events_per_command_max = 1024 }}
rings = {{ event_capacity = {config.rings.event_capacity} }}
journal = {{ directory = "{tmp_path}/data" }}
"""
    path = tmp_path / "lifeh.toml"
    path.write_text(text)
    up = subprocess.Popen(
        [sys.executable, "run.py", "up", "--config", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert up.stdout is not None
    lines = [up.stdout.readline() for _ in range(4)]
    assert any("tcp://127.0.0.1:" in line for line in lines), lines
    up.send_signal(signal.SIGINT)
    assert up.wait(WAIT_S) == 0
    up.stdout.close()
    assert segments_of("lifeh") == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
