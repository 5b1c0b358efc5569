"""Rings between two real processes, each started by exec: messages, sleeps, round trips.

And between two threads, whose kernels run without the GIL, where memory shared is all that matters:
events overwritten and book tops rewritten under a reader's hands.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.atomics import cpu_pause, load_acquire
from engine.jit import JIT_DISABLED, kernel
from engine.records import EVENT_SLOT, EVENT_SLOT_WORDS, TOP_WORDS
from engine.shm_ring import (
    BookTops,
    CommandRings,
    EventReader,
    EventRings,
    event_commit,
    event_intend,
    event_slot,
    store_word,
    top_write_begin,
    top_write_end,
)
from tests.engine.support import instance_name
from tests.soak import ring_soak

ROOT = Path(__file__).resolve().parent.parent.parent
SLEEPS = 200_000
SLEEP_SECONDS = 150.0

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="two interpreted loops need minutes")


@kernel
def write_events(ctrl, slot_words, capacity, stop, first, count):
    """Write events whose words are all their out_seq, in batches of 1 to 5; returns the next."""
    position, end = first, first + count
    while position < end and load_acquire(stop, 0) == 0:
        batch = min(position % 5 + 1, end - position)
        event_intend(ctrl, 0, position + batch)
        for at in range(position, position + batch):
            for word in range(EVENT_SLOT_WORDS):
                slot_words[event_slot(0, at, capacity) * EVENT_SLOT_WORDS + word] = at + 1
        position += batch
        event_commit(ctrl, 0, position)
        for _ in range(10):  # otherwise the writer laps every reader at once
            cpu_pause()
    return position


@kernel
def write_tops(words, stop, count):
    """Write pictures of place 1 whose words are all their number; returns the last number."""
    number = 0
    while number < count and load_acquire(stop, 0) == 0:
        number += 1
        top_write_begin(words, 1)
        for word in range(1, TOP_WORDS):
            words[TOP_WORDS + word] = number
        top_write_end(words, 1)
    return number


@contextmanager
def running(write: Callable[[np.ndarray], int]) -> Iterator[list[int]]:
    """Run `write(stop)` in a thread meanwhile; the list gets what it returned."""
    stop, result = np.zeros(1, np.int64), []
    thread = threading.Thread(target=lambda: result.append(int(write(stop))))
    thread.start()
    try:
        yield result
    finally:
        store_word(stop, 0, 1)
        thread.join(60)


def test_overwritten_events_are_never_accepted_and_every_one_is_accounted_for() -> None:
    rings = EventRings.create(instance_name(), 1, 512)
    rings.unlink()
    reader, out = EventReader(rings, 0, 0), np.zeros(32, EVENT_SLOT)
    reader.poll(out)
    ctrl, words = rings.ctrl, rings.slot_words
    write_events(ctrl, words, 512, np.zeros(1, np.int64), 0, 0)
    accepted, expected, end = 0, 1, time.monotonic() + 30
    with running(lambda stop: write_events(ctrl, words, 512, stop, 0, 10**9)) as written:
        while (reader.laps < 50 or accepted < 1_000) and time.monotonic() < end:
            laps = reader.laps
            got = reader.poll(out)
            if reader.laps != laps:
                expected = reader.cursor + 1
            copied = got.view(np.int64).reshape(-1, EVENT_SLOT_WORDS)
            wanted = np.arange(expected, expected + got.size)
            assert (copied == wanted[:, None]).all()
            accepted, expected = accepted + got.size, expected + got.size
    while reader.pending():
        accepted += reader.poll(out).size
    assert (reader.laps >= 50, accepted >= 1_000) == (True, True), (reader.laps, accepted)
    assert accepted + reader.skipped == reader.cursor == written[0]


@pytest.mark.later
def test_rewritten_top_is_read_whole_and_never_goes_back() -> None:
    tops = BookTops.create(instance_name(), 1, 2)
    tops.unlink()
    tops.read(0)
    write_tops(tops.words, np.zeros(1, np.int64), 0)
    last, whole, end = 0, 0, time.monotonic() + 30
    with running(lambda stop: write_tops(tops.words, stop, 10**9)):
        while whole < 2_000 and time.monotonic() < end:
            picture = tops.read(1)
            if picture is not None:
                words = picture.view(np.int64)
                assert (words[1:] == words[1]).all()
                assert words[0] == 2 * words[1] >= 2 * last
                last, whole = int(words[1]), whole + 1
    assert whole == 2_000


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
