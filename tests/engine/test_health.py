"""The health endpoint: what it says, and that nobody can hold the supervisor up through it."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from threading import Thread

import pytest

from engine.counters import Counters, State
from engine.health import HealthServer, readiness

NOW = 10**12


@pytest.fixture
def counters() -> Iterator[Counters]:
    made = Counters.private({"supervisor": (), "shard0": (), "journal0": (), "gateway0": ()}, {})
    for block in made.blocks.values():
        block.set("state", State.RUNNING)
        block.set("heartbeat_ns", NOW)
    yield made
    made.close()


def test_ready_when_every_needed_process_serves_and_no_gate_is_closed(counters: Counters) -> None:
    ready, body = readiness(counters, [False], NOW)
    assert ready
    assert body["processes"]["shard0"] == {"state": "RUNNING", "heartbeat_age_ms": 0}
    ready, body = readiness(counters, [True], NOW)
    assert not ready
    assert body["gated"] == [0]


@pytest.mark.parametrize("name", ["shard0", "journal0", "gateway0"])
@pytest.mark.parametrize("state", [State.STARTING, State.HALTED, State.STOPPED])
def test_not_ready_when_one_does_not_serve(counters: Counters, name: str, state: State) -> None:
    counters.block(name).set("state", state)
    assert not readiness(counters, [False], NOW)[0]


def test_not_ready_when_a_heartbeat_is_old(counters: Counters) -> None:
    assert not readiness(counters, [False], NOW + 3 * 10**9)[0]


@pytest.fixture
def server() -> Iterator[HealthServer]:
    made = HealthServer("127.0.0.1", 0, lambda: (False, {"ready": False}))
    yield made
    made.close()


def ask(server: HealthServer, path: str) -> tuple[int, dict[str, object]]:
    found: list[tuple[int, dict[str, object]]] = []

    def client() -> None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
                found.append((answer.status, json.load(answer)))
        except urllib.error.HTTPError as error:
            found.append((error.code, json.load(error)))
            error.close()

    thread = Thread(target=client)
    thread.start()
    deadline = time.monotonic() + 10
    while thread.is_alive() and time.monotonic() < deadline:
        server.serve_once()
        time.sleep(0.001)
    thread.join()
    return found[0]


def test_answers_live_and_ready_and_nothing_else(server: HealthServer) -> None:
    assert ask(server, "/live") == (200, {"ready": False})
    assert ask(server, "/ready") == (503, {"ready": False})
    assert ask(server, "/")[0] == 404


def test_nobody_there_costs_nothing_and_a_silent_prober_little(server: HealthServer) -> None:
    start = time.monotonic()
    server.serve_once()
    assert time.monotonic() - start < 0.1
    with socket.create_connection(("127.0.0.1", server.port)):
        start = time.monotonic()
        server.serve_once()
        assert time.monotonic() - start < 1
