"""Atomics do what they say, between threads and processes too; bit tricks equal Python's."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.atomics import (
    CLOCK_MONOTONIC,
    clock_ns,
    compare_swap,
    cpu_pause,
    eventfd_signal,
    fence_acquire,
    fence_release,
    fence_seq_cst,
    fetch_add,
    leading_zeros,
    load_acquire,
    load_relaxed,
    sched_yield,
    store_relaxed,
    store_release,
    trailing_zeros,
)
from engine.jit import JIT_DISABLED, kernel
from engine.segment import Segment, segment_name
from tests.engine.support import instance_name

ROOT = Path(__file__).resolve().parent.parent.parent
SPINS_MAX = 2_000_000_000
ADDS = 200_000


@kernel
def use_loads_and_stores(words):
    """Every access once; returns what the loads saw."""
    store_release(words, 0, 5)
    store_relaxed(words, 1, -7)
    fence_acquire()
    fence_release()
    fence_seq_cst()
    cpu_pause()
    return load_acquire(words, 0), load_relaxed(words, 1)


@kernel
def use_fetch_add(words, index, value):
    return fetch_add(words, index, value)


@kernel
def use_compare_swap(words, index, expected, value):
    return compare_swap(words, index, expected, value)


@kernel
def add_many(words, count):
    """Add one to words[0], `count` times."""
    for _ in range(count):
        fetch_add(words, 0, 1)


@kernel
def take_many(words, count):
    """Take the lock words[1], add one to words[2] without atomics, give it back; `count` times."""
    done = 0
    while done < count:
        if compare_swap(words, 1, 0, 1):
            words[2] += 1
            store_release(words, 1, 0)
            done += 1


@kernel
def spin_until_set(words, index, spins_max):
    """Wait for another thread's store; False if it never was seen."""
    for _ in range(spins_max):
        if load_acquire(words, index) != 0:
            return True
    return False


@kernel
def use_trailing_zeros(bits):
    return trailing_zeros(bits)


@kernel
def use_leading_zeros(bits):
    return leading_zeros(bits)


@kernel
def use_clock(which):
    return clock_ns(which)


@kernel
def use_eventfd(fd):
    return eventfd_signal(fd)


@kernel
def use_yield():
    sched_yield()
    return 1


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


# ------------------------------------------------------------------------------------- one thread
@pytest.mark.nojit
def test_loads_see_what_stores_wrote() -> None:
    words = np.zeros(4, np.int64)
    assert use_loads_and_stores(words) == (5, -7)
    assert words.tolist() == [5, -7, 0, 0]


@pytest.mark.nojit
def test_fetch_add_returns_the_value_before() -> None:
    words = np.array([10, 20], np.int64)
    assert use_fetch_add(words, 1, -5) == 20
    assert words.tolist() == [10, 15]


@pytest.mark.nojit
def test_compare_swap_writes_only_what_was_expected() -> None:
    words = np.array([3], np.int64)
    assert not use_compare_swap(words, 0, 4, 9)
    assert words[0] == 3
    assert use_compare_swap(words, 0, 3, 9)
    assert words[0] == 9


BITS = [1, 2, 3, 8, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF, 0x0010_0000_0000_0000, 6 << 31]


@pytest.mark.nojit
@pytest.mark.parametrize("bits", BITS)
def test_bit_positions_equal_pythons(bits: int) -> None:
    value = np.uint64(bits)
    assert use_trailing_zeros(value) == (bits & -bits).bit_length() - 1
    assert use_leading_zeros(value) == 64 - bits.bit_length()


@pytest.mark.nojit
@pytest.mark.parametrize(
    ("which", "clock"), [(CLOCK_MONOTONIC, time.monotonic_ns), (0, time.time_ns)]
)
def test_clock_is_pythons_clock(which: int, clock: object) -> None:
    assert callable(clock)
    use_clock(which)
    before, found, after = clock(), use_clock(which), clock()
    assert before <= found <= after


@pytest.mark.nojit
def test_eventfd_signal_adds_one(eventfd: int) -> None:
    assert use_eventfd(eventfd) == 8
    assert use_eventfd(eventfd) == 8
    assert os.eventfd_read(eventfd) == 2


@pytest.mark.nojit
def test_yield_returns() -> None:
    assert use_yield() == 1


@pytest.mark.skipif(JIT_DISABLED, reason="it is the compiler that refuses")
def test_strided_array_is_refused() -> None:
    # An address that is not a multiple of eight is not: Numba's types do not know it. Segments are
    # mapped at pages and laid out in words, so there is none.
    with pytest.raises(Exception, match="must be an aligned C-contiguous array"):
        use_fetch_add(np.zeros(8, np.int64)[::2], 0, 1)


# ------------------------------------------------------------------------- threads and processes
@pytest.mark.nojit
def test_spinning_load_sees_the_store_of_another_thread() -> None:
    # A plain NumPy load is hoisted out of such a loop, which then never ends.
    words = np.zeros(2, np.int64)
    spin_until_set(words, 0, 1)
    seen: list[bool] = []
    spinner = threading.Thread(target=lambda: seen.append(spin_until_set(words, 1, SPINS_MAX)))
    spinner.start()
    time.sleep(0.02)
    words[1] = 1
    spinner.join(60)
    assert seen == [True]


CHILD = """
import json, os, sys
from engine.segment import Segment
from tests.engine.test_atomics import add_many, take_many
words = Segment.attach(int(sys.argv[1])).words
add_many(words, 0); take_many(words, 0)
print("ready", flush=True)
sys.stdin.readline()
add_many(words, int(sys.argv[2]))
take_many(words, int(sys.argv[2]))
"""


@pytest.mark.skipif(JIT_DISABLED, reason="plain Python stands in for one thread only")
@pytest.mark.slow
def test_two_processes_lose_no_addition_and_no_lock() -> None:
    segment = Segment.create(segment_name(instance_name(), "test"), "test", 64)
    segment.unlink()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(segment.fd), str(ADDS)],
            pass_fds=[segment.fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [p.wait(60) for p in processes] == [0, 0]
        found = segment.words[:3].tolist()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        segment.close()
    assert found == [2 * ADDS, 0, 2 * ADDS]


# --------------------------------------------------------------------------------- the flavours
OUT_OF_RANGE = """
import json
import numpy as np
import outside
from engine import jit
outside.read(np.zeros(4, np.int64), 3)
try:
    outside.read(np.arange(8)[:4], 5)
    caught = False
except IndexError:
    caught = True
print(json.dumps({"caught": caught, "verify": jit.VERIFY}))
"""
KERNEL = """
from engine.jit import kernel

@kernel
def read(values, index):
    return values[index]
"""


@pytest.mark.skipif(JIT_DISABLED, reason="it is compiled code that is checked")
@pytest.mark.slow
def test_check_flavour_catches_what_prod_does_not_from_one_warm_cache(tmp_path: Path) -> None:
    # Numba's own cache key does not contain bounds checking: a warm cache of the one flavour would
    # serve the other.
    (tmp_path / "outside.py").write_text(KERNEL)
    found = []
    for flavour in ("prod", "check", "prod"):
        environ = os.environ | {
            "RINGBOOK_FLAVOUR": flavour,
            "RINGBOOK_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
        }
        done = subprocess.run(
            [sys.executable, "-c", OUT_OF_RANGE], env=environ, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        found.append(json.loads(done.stdout))
    assert [f["caught"] for f in found] == [False, True, False]
    assert [f["verify"] for f in found] == [False, True, False]
