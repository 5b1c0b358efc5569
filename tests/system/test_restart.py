"""Rows P1 to P11 of the fault table, one by one: a real exchange loses a process and goes on.

Random kills under load, judged by an independent checker: tests/system/nemesis. Here each case is
small and says what has to be true after it.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.background import Handle, start_in_background
from engine.child_parts import StartError
from engine.config import Config, Journal
from engine.counters import Counters, State
from engine.segment import process_start_time
from tests.system.small import (
    WAIT_S,
    Wire,
    child_of,
    children_of,
    running,
    segments_of,
    small_config,
    until,
)

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(400)]  # real processes


@pytest.fixture
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Config]:
    """An exchange that keeps its journal in the test's folder."""
    number = abs(hash(request.node.name)) % 900
    name = f"rst{number}"
    yield small_config(name, 20000 + 10 * number, journal=Journal(directory=str(tmp_path / "data")))
    assert segments_of(name) == []


def log_on(handle: Handle, **more: Any) -> Wire:
    wire = Wire(handle.config.network.port)
    assert wire.logon(**more)["type"] == "logon"
    return wire


def order(wire: Wire, number: int, price: str = "10") -> dict[str, Any]:
    return wire.ask(symbol="AAPL", side="buy", qty=1, price=price, id=number)


def order_until_taken(wire: Wire, first: int) -> int:
    """Send orders until one is accepted again; returns its id."""
    number = first
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = order(wire, number)
        if answer["type"] == "accepted":
            assert wire.hear()["type"] == "booked"
            return number
        assert answer["code"] in (901, 905), answer
        number += answer["code"] == 905  # UNAVAILABLE uses the id up
        time.sleep(0.01)
    raise AssertionError("the shard did not come back")


def open_ids(wire: Wire) -> list[int]:
    """The ids of the session's open orders."""
    found = []
    answer = wire.ask(type="open_orders", limit=100)
    while answer["type"] == "status":
        found.append(int(answer["id"]))
        answer = wire.hear()
    assert answer["type"] == "summary", repr(answer)
    return found


def place(wire: Wire, first: int, count: int) -> list[int]:
    for number in range(first, first + count):
        assert order(wire, number)["type"] == "accepted"
        assert wire.hear()["type"] == "booked"
    return list(range(first, first + count))


def kill(handle: Handle, *names: str) -> None:
    pids = [child_of(handle, name) for name in names]
    assert all(pids), (names, pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert until(lambda: not any(process_start_time(pid) for pid in pids))


def test_p2_shard_killed_its_follower_takes_over(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle)
        placed = place(wire, 1, 20)
        follower = child_of(handle, "follow0")
        kill(handle, "shard0")
        placed.append(order_until_taken(wire, 21))
        assert child_of(handle, "shard0") == follower
        assert open_ids(wire) == placed
        assert until(lambda: child_of(handle, "follow0")), "a fresh follower"
        wire.close()


def test_p2_shard_and_follower_killed_cold_restart(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle)
        placed = place(wire, 1, 20)
        kill(handle, "follow0", "shard0")
        placed.append(order_until_taken(wire, 21))
        assert open_ids(wire) == placed
        wire.close()


def test_p4_journal_killed_nothing_acknowledged_is_missing(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle)
        placed = place(wire, 1, 5)
        kill(handle, "journal0")
        number = order_until_taken(wire, 6)
        placed += [number, *place(wire, number + 1, 5)]
        children = children_of(handle.process.pid)
        handle.process.kill()
        handle.process.wait()
        assert until(lambda: not any(process_start_time(pid) for pid in children))
        wire.close()
    with running(config) as again:
        wire = log_on(again)
        assert open_ids(wire) == placed
        wire.close()


def test_p1_gateway_killed_clients_come_back_and_miss_nothing(config: Config) -> None:
    with running(config) as handle:
        wire = Wire(handle.config.network.port)
        first = wire.logon()
        placed = place(wire, 1, 10)
        seq = int(first["seq"]["0"]) + 10  # type: ignore[index]  # half of the reports were seen
        kill(handle, "gateway0")
        assert wire.hear()["type"] == "closed"
        wire.close()
        assert until(lambda: child_of(handle, "gateway0"))
        wire = _again(handle)
        answer = wire.logon(resume=f"0:{seq}", incarnation=first["incarnation"])
        assert answer["type"] == "logon", answer
        missed = [wire.hear() for _ in range(10)]
        assert [report["seq"] for report in missed] == list(range(seq + 1, seq + 11))
        assert order(wire, 10)["type"] == "status", "a retransmission is answered, not run"
        assert open_ids(wire) == placed
        wire.close()


def _again(handle: Handle) -> Wire:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return Wire(handle.config.network.port)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_p5_feed_killed_matching_goes_on(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle)
        kill(handle, "feed0")
        place(wire, 1, 5)
        assert until(lambda: child_of(handle, "feed0"))
        wire.close()


def test_p7_p8_everything_killed_at_once_every_acknowledged_order_is_there(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle)
        placed = place(wire, 1, 50)
        pids = [handle.process.pid, *children_of(handle.process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        handle.process.wait()
        assert until(lambda: not any(process_start_time(pid) for pid in pids))
        wire.close()
    with running(config) as again:
        wire = Wire(again.config.network.port)
        answer = wire.logon()
        assert answer["last_id"] == 50
        assert open_ids(wire) == placed
        wire.close()


def test_p9_stopped_shard_keeps_its_lock_and_goes_on(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle)
        placed = place(wire, 1, 5)
        shard = child_of(handle, "shard0")
        os.kill(shard, signal.SIGSTOP)
        time.sleep(1.0)
        assert child_of(handle, "shard0") == shard, "nobody takes over from a live owner"
        os.kill(shard, signal.SIGCONT)
        placed.append(order_until_taken(wire, 6))
        assert open_ids(wire) == placed
        wire.close()


def test_p10_what_dies_again_and_again_stays_down(
    config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def given_up() -> bool:
        said.append(capfd.readouterr().err)
        return "it died too often; it stays down" in "".join(said)

    with running(config) as handle:
        counters = Counters.open(config.instance)
        for _ in range(6):
            assert until(lambda: child_of(handle, "feed0"), 15)
            kill(handle, "feed0")
        assert until(given_up, 15), said
        assert child_of(handle, "feed0") == 0
        wire = log_on(handle)
        place(wire, 1, 3)
        assert counters.block("supervisor").get("state") == State.RUNNING
        counters.close()
        wire.close()


def test_p11_stop_under_load_is_clean_and_quick(config: Config) -> None:
    with running(config) as handle:
        wire = log_on(handle, account="agents")
        lines = b"".join(
            b'{"symbol":"AAPL","side":"buy","qty":1,"price":"%d","id":%d}\n' % (1 + n % 50, n)
            for n in range(1, 3001)
        )
        wire.socket.sendall(lines)
        started = time.monotonic()
        assert handle.stop() == 0
        assert time.monotonic() - started < 6
        wire.close()
    folder = Path(config.journal.directory) / "shard0"
    assert any(path.name.startswith("snapshot-") for path in folder.iterdir())
    with running(config) as again:
        wire = log_on(again, account="agents")
        assert len(open_ids(wire)) == 100  # the first page
        wire.close()


def test_directory_in_use_is_refused_with_a_sentence(
    config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    other = small_config("rstother", 29980, journal=config.journal)
    with running(config):
        with pytest.raises(StartError):
            start_in_background(other)
        assert "is used by a running exchange" in capfd.readouterr().err
