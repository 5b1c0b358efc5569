"""The floors do what they are said to do: a wrong floor flatters everything measured against it."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from bench.floors.echo import echo_server, multicast_receiver
from bench.floors.ladder import run_ladder
from bench.floors.ring import measure_ring
from bench.measure import cores_available
from bench.workload import GOLDEN, named
from engine.jit import JIT_DISABLED

needs_jit = pytest.mark.skipif(JIT_DISABLED, reason="a million operations want compiled code")


@needs_jit
@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.later
def test_ladder_reaches_the_golden_outcome(name: str) -> None:
    _, outcome = run_ladder(named(name))
    assert outcome == GOLDEN[name][1]


def test_ladder_reaches_the_outcome_of_a_small_mix() -> None:
    assert run_ladder(named("tiny"))[1] == named("tiny").outcome


@pytest.mark.skipif(JIT_DISABLED, reason="interpreted spin loops")
@pytest.mark.later
def test_ring_floor_returns_every_message_and_restores_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    cores = cores_available()
    times = measure_ring(cores[0], cores[-1], count=50 if len(cores) == 1 else 2_000)
    assert (times.latencies > 0).all()
    assert times.clock_ns >= 0
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("idle", ["park", "spin"])
def test_echo_floor_returns_the_bytes_and_ends_with_its_block(idle: str) -> None:
    data = np.random.default_rng(1).bytes(300_000)
    with echo_server(cores_available()[0], idle) as server:
        server.pause()
        server.resume()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            back = bytearray()
            for first in range(0, len(data), 30_000):
                client.sendall(data[first : first + 30_000])
                while len(back) < min(first + 30_000, len(data)):
                    chunk = client.recv(1 << 16)
                    assert chunk, "the floor hung up"
                    back += chunk
    assert bytes(back) == data
    assert server.process.returncode == 0


def test_relay_floor_sends_a_datagram_per_chunk() -> None:
    group, port = "239.255.70.9", 30_000 + os.getpid() % 20_000
    with (
        multicast_receiver(group, port) as receiver,
        echo_server(cores_available()[0], relay=f"{group}:{port}") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        receiver.settimeout(10)
        client.sendall(b"one order\n")
        assert receiver.recv(2048) == b"one order\n"
