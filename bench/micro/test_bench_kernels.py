"""The kernels under an order, each by itself, warm and on one core.

As tests (the normal suite) they run once with tiny parameters and check the answer, never a time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.floors.ladder import ladder_run, new_ladder
from bench.matching import new_exchange
from bench.reports import ANSWERED, new_matcher, reports_read
from bench.workload import (
    MIXES,
    TradeTally,
    Workload,
    generate,
    named,
    symbol_name,
    to_commands,
    to_json_lines,
)
from engine.command_ring import CONSUMER_POSITION, CTRL_WORDS, ring_push
from engine.event_ring import COMMITTED, EVENT_CTRL_WORDS, events_copy
from engine.records import COMMAND, COMMAND_WORDS, EVENT, EVENT_SLOT, EventKind, Role


@pytest.fixture
def workload(benchmark: Any) -> Workload:
    """The tiny mix as a test, a real one when measuring."""
    return named("tiny" if benchmark.disabled else "resting_1e4")


def _measure(benchmark: Any, items: int, call: Callable[..., Any], setup: Any = None) -> Any:
    benchmark.extra_info["items"] = items
    if setup is None:
        return benchmark(call)
    return benchmark.pedantic(call, setup=setup, rounds=1 if benchmark.disabled else 5)


def test_bench_workload_generation(benchmark: Any, workload: Workload) -> None:
    mix = MIXES[workload.mix.name]
    made = _measure(benchmark, workload.records.size, lambda: generate(mix))
    assert made.sha256 == workload.sha256


def test_bench_bare_ladder(benchmark: Any, workload: Workload) -> None:
    records = workload.records
    books = []

    def setup() -> None:
        books.append(new_ladder(records, workload.mix.symbols))

    with np.errstate(over="ignore"):
        _measure(
            benchmark, records.size, lambda: ladder_run(books[-1], records, 0, records.size), setup
        )
    assert int(books[-1].totals[0]) == workload.outcome.trades


def test_bench_local_exchange(benchmark: Any, workload: Workload) -> None:
    half = min(workload.records.size, 40_000) // 2
    prepared, answers = [], []

    def setup() -> None:
        exchange = new_exchange(workload)
        ids = [exchange.symbol_id(symbol_name(i)) for i in range(workload.mix.symbols)]
        commands = to_commands(workload.records[: 2 * half], np.array(ids, np.int32))
        exchange.step(commands[:half])  # memory is touched once before
        prepared.append((exchange, commands[half:]))

    def run() -> None:
        exchange, commands = prepared[-1]
        answers.append(exchange.step(commands))

    _measure(benchmark, half, run, setup)
    assert (answers[-1]["in_seq"][-1] - answers[-1]["in_seq"][0]) == half - 1
    assert not (answers[-1]["kind"] == EventKind.REJECTED).any()


def test_bench_command_ring_push(benchmark: Any) -> None:
    capacity, count = 1024, 256
    ctrl = np.zeros(CTRL_WORDS, np.int64)
    slots = np.zeros(capacity * COMMAND_WORDS, np.int64)
    words = np.zeros(count, COMMAND).view(np.int64)

    def push() -> int:
        position = int(ctrl[CONSUMER_POSITION])
        pushed = int(ring_push(ctrl, slots, 0, capacity, words, position))
        ctrl[CONSUMER_POSITION] = position + pushed
        return pushed

    assert _measure(benchmark, count, push) == count


def test_bench_event_ring_copy(benchmark: Any) -> None:
    capacity, count = 1024, 256
    ctrl = np.zeros(EVENT_CTRL_WORDS, np.int64)
    ctrl[COMMITTED] = count
    slots = np.zeros(capacity, EVENT_SLOT)
    slots["out_seq"] = np.arange(1, capacity + 1)
    out = np.zeros(count, EVENT_SLOT)
    words, out_words = slots.view(np.int64), out.view(np.int64)
    copied = _measure(benchmark, count, lambda: events_copy(ctrl, words, 0, capacity, 0, out_words))
    assert (int(copied[0]), bool(copied[1])) == (count, False)
    assert (out["out_seq"] == np.arange(1, count + 1)).all()


def test_bench_trade_checksum(benchmark: Any) -> None:
    fills = np.zeros(2_000, EVENT)
    fills["kind"], fills["qty"], fills["px"] = EventKind.FILL, 1, 10_000
    fills["role"] = np.tile([Role.MAKER, Role.TAKER], 1_000)
    fills["client_order_id"] = np.arange(1, 2_001)

    def fold() -> TradeTally:
        tally = TradeTally()
        tally.add(fills)
        return tally

    assert _measure(benchmark, fills.size, fold).outcome.trades == 1_000


def test_bench_report_matching(benchmark: Any, workload: Workload) -> None:
    records = workload.records[:1_000]
    lines = [
        b'{"type":"accepted","seq":%d,"shard":0,"symbol":"S000","order_id":%d,"id":%d}\n'
        % (k, k << 24, order_id)
        for k, order_id in enumerate(records["id"][records["type"] != 1].tolist())
    ]
    data = np.frombuffer(b"".join(lines), np.uint8)
    matcher = new_matcher(records)
    matcher.buffer[: data.size] = data

    def read() -> int:
        matcher.answered_ns[:] = 0
        matcher.counts[:] = 0
        with np.errstate(over="ignore"):
            return int(reports_read(matcher, data.size, 1))

    assert _measure(benchmark, len(lines), read) == data.size
    assert matcher.counts[ANSWERED] == len(lines)


def test_bench_json_lines(benchmark: Any, workload: Workload) -> None:
    records = workload.records[:5_000]
    lines = _measure(benchmark, records.size, lambda: to_json_lines(records))
    assert len(lines) == records.size
