"""What the journal costs: the same load on exchanges that differ in nothing but journal.mode.

     thing   generator ──TCP──▶ exchange with a journal (batch, os, sync)
     floor   generator ──TCP──▶ exchange without (mode none); the same minute, the same machine

All run at once and sleep while another is measured. `batch` and `os` acknowledge what is staged, so
what is measured is the copy, the two CRCs and the journal process, which shares the doors' core.
The follower works when nobody else does: each exchange is left alone until its follower is through,
before the next is measured. What it costs when it must keep up for ever is a row of its own: orders
over the time until all of them are replayed and logged.

`sync` waits for the disk, its floor is the disk alone: one fdatasync of a preallocated file. A
regression of `batch` means more work per record in engine/stage.py, or a journal process that takes
time from the doors; of the row with the follower, a slower replay or log.
"""

import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from bench.generator import Generator
from bench.measure import (
    PAIRS,
    QUICK_PAIRS,
    Pairs,
    Row,
    interleave,
    percentiles_us,
    ratio_at_least,
)
from bench.system import IDLE, System, exchange
from bench.throughput import QUICK_OPERATIONS, WINDOW
from engine.config import Journal

MODES = ("none", "os", "batch", "sync")
TARGET_RATIO = 0.8
SYNC_RATE, SYNC_OPERATIONS = 500.0, 2_000
SYNC_BYTES = 4096


def bench_journal(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the rows of `run.py bench journal`."""
    pairs, operations = (QUICK_PAIRS, QUICK_OPERATIONS) if quick else (PAIRS, None)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ringbook-bench-"))
        systems = {
            mode: stack.enter_context(
                exchange(idle, journal=Journal(f"{folder}/{mode}", mode=mode), number=number)
            )
            for number, mode in enumerate(MODES)
        }
        generator = stack.enter_context(Generator(systems["none"].cores.shard))

        def load(mode: str) -> dict[str, Any]:
            found = _bulk(generator, systems[mode], operations)
            found["settle_s"] = systems[mode].settle()
            return found

        rows = []
        for mode in MODES[1:]:
            load(mode)  # everything loaded, pages touched
            results = interleave(pairs, partial(load, mode), partial(load, "none"))
            rows.append(_row(mode, results))
            if mode == "batch":
                rows.append(_followed_row(results))
        rows += _sync_rows(generator, systems["sync"], folder, quick)
    return rows


def _bulk(generator: Generator, system: System, operations: int | None) -> dict[str, Any]:
    return generator.call(
        "bulk", host=system.host, port=system.port, token=system.token, mix="W1",
        operations=operations, window=WINDOW, pids=system.pids,
    )  # fmt: skip


def _row(mode: str, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> Row:
    faults = [arm["fault"] for pair in results for arm in pair if arm["fault"]]
    cpu = {
        name: round(statistics.median(pair[0]["cpu_ns"][name] for pair in results))
        for name in results[0][0]["cpu_ns"]
    }
    spent = ", ".join(f"{name} {ns:,}" for name, ns in cpu.items())
    return Pairs([a["per_s"] for a, _ in results], [b["per_s"] for _, b in results]).row(
        f"JSON/TCP orders acknowledged, W1, journal {mode}",
        "orders/s",
        targets=(ratio_at_least(TARGET_RATIO),) if mode == "batch" else (),
        void=faults[0] if faults else "",
        note=f"floor: no journal, same run; CPU ns per order: {spent}",
        details={"cpu_ns_per_order": cpu},
    )


def _followed_row(results: list[tuple[dict[str, Any], dict[str, Any]]]) -> Row:
    def per_s(arm: dict[str, Any]) -> float:
        orders = arm["orders"]
        return float(orders / (orders / arm["per_s"] + arm["settle_s"]))

    return Pairs([per_s(a) for a, _ in results], [b["per_s"] for _, b in results]).row(
        "the same until the follower has replayed and logged all of it",
        "orders/s",
        note="floor: no journal, same run",
    )


def disk_sync_us(folder: str, count: int) -> dict[str, float]:
    """Percentiles of pwrite + fdatasync of one block into a preallocated file."""
    path = os.path.join(folder, "disk-floor")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(fd, 0, SYNC_BYTES * 1024)
        block, times = bytes(SYNC_BYTES), np.zeros(count, np.int64)
        for index in range(count):
            start = time.perf_counter_ns()
            os.pwrite(fd, block, index % 1024 * SYNC_BYTES)
            os.fdatasync(fd)
            times[index] = time.perf_counter_ns() - start
    finally:
        os.close(fd)
        os.unlink(path)
    return percentiles_us(times)


def _sync_rows(generator: Generator, system: System, folder: str, quick: bool) -> list[Row]:
    count = SYNC_OPERATIONS // 10 if quick else SYNC_OPERATIONS
    trip = generator.call(
        "round_trip", host=system.host, port=system.port, token=system.token, mix="W1",
        operations=count, per_s=SYNC_RATE,
    )  # fmt: skip
    fault = trip.pop("fault", "")
    floor = disk_sync_us(folder, count)
    return [
        Row(
            f"JSON/TCP round trip, journal sync, {key}",
            trip[key],
            "µs",
            floor=floor[key],
            ratio=trip[key] / floor[key],
            void=fault,
            note=f"floor: pwrite + fdatasync of {SYNC_BYTES} bytes alone; {SYNC_RATE:,.0f}/s",
        )
        for key in ("p50", "p99")
    ]
