"""Rings between two real processes, each started by exec: messages, sleeps, laps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.jit import JIT_DISABLED
from engine.shm_ring import CommandRings
from tests.engine.support import instance_name
from tests.soak import ring_soak

ROOT = Path(__file__).resolve().parent.parent.parent
SLEEPS = 200_000
SLEEP_SECONDS = 150.0

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="two interpreted loops need minutes")


def run_handshake(sleeps: int, seconds: float) -> tuple[dict[str, int], dict[str, int]]:
    rings = CommandRings.create(instance_name(), 1, 1, 2)
    rings.unlink()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.sleep_worker", role]
            + [str(v) for v in (rings.fd, eventfd, sleeps, seconds)],
            cwd=ROOT,
            pass_fds=[rings.fd, eventfd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for role in ("sleeper", "publisher")
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=seconds + 30)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
        os.close(eventfd)
        rings.close()
    one, other = map(json.loads, outputs)
    return one, other


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_wake_up_is_lost_in_200_000_sleeps() -> None:
    sleeper, publisher = run_handshake(SLEEPS, SLEEP_SECONDS)
    assert sleeper["error"] == ""
    assert sleeper["lost"] == 0, sleeper
    assert sleeper["woken"] >= SLEEPS, f"not enough in {SLEEP_SECONDS} s: {sleeper}"
    assert publisher["published"] >= sleeper["messages"] >= SLEEPS


@pytest.mark.slow
def test_a_million_messages_arrive_once_whole_in_order() -> None:
    producer, consumer = ring_soak.run_pair(("producer", "consumer"), 1_000_000)
    assert consumer["error"] == producer["error"] == ""
    assert consumer["done"] == producer["done"] == 1_000_000


@pytest.mark.slow
def test_messages_arrive_over_the_wrap_of_positions_in_the_smallest_ring() -> None:
    _, consumer = ring_soak.run_pair(
        ("producer", "consumer"), 20_000, capacity=2, first=2**63 - 10_000
    )
    assert (consumer["error"], consumer["done"]) == ("", 20_000)


@pytest.mark.slow
def test_round_trips_answer_every_message() -> None:
    pinger, ponger = ring_soak.run_pair(("pinger", "ponger"), 2_000)
    assert pinger["done"] == ponger["done"] == 2_000


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_hundred_million_messages_arrive_once_whole_in_order() -> None:
    _, consumer = ring_soak.run_pair(("producer", "consumer"), ring_soak.MESSAGES)
    assert (consumer["error"], consumer["done"]) == ("", ring_soak.MESSAGES)
