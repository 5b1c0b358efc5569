"""Benchmarks against the running exchange, with tiny parameters: every answer checked, no time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.generator import STAGES, Generator
from bench.system import System, exchange
from bench.workload import GOLDEN
from engine.jit import JIT_DISABLED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(JIT_DISABLED, reason="processes want compiled code"),
]


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with exchange() as running:
        yield running


@pytest.fixture(scope="module")
def generator(system: System) -> Iterator[Generator]:
    with Generator(system.cores.doors) as process:
        yield process


def _wire(system: System) -> dict[str, object]:
    return {"host": system.host, "port": system.port, "token": system.token}


def test_bulk_over_the_wire_is_answered_order_by_order(
    system: System, generator: Generator
) -> None:
    for _ in range(2):  # the second run finds an empty book again
        result = generator.call(
            "bulk", mix="tiny", operations=None, window=256, pids=system.pids, **_wire(system)
        )
        assert result["fault"] == ""
        processes = {"generator", "shard", "gateway", "feed", "journal", "follow"}
        assert set(result["cpu_ns"]) == processes
        assert result["per_s"] > 0


def test_open_loop_over_the_wire_is_answered_order_by_order(
    system: System, generator: Generator
) -> None:
    result = generator.call(
        "rate", mix="tiny", operations=500, per_s=5_000, window=4_096, **_wire(system)
    )
    assert result["fault"] == ""
    assert result["p50"] <= result["p99.9"] <= result["max"]


def test_round_trips_get_the_answer_to_the_order_just_sent(
    system: System, generator: Generator
) -> None:
    result = generator.call("round_trip", mix="tiny", operations=200, per_s=1_000, **_wire(system))
    assert result["fault"] == ""


def test_receipts_divide_a_round_trip_into_stages(system: System, generator: Generator) -> None:
    result = generator.call("stages", mix="tiny", operations=100, per_s=1_000, **_wire(system))
    assert result["fault"] == ""
    assert list(result["stages"]) == list(STAGES)


def test_every_order_arrives_as_its_add_message_on_multicast(
    system: System, generator: Generator
) -> None:
    network = system.config.network
    result = generator.call(
        "feed_delay",
        group=network.feed_group,
        feed_port=network.feed_port,
        interface=network.feed_interface,
        operations=100,
        per_s=500,
        **_wire(system),
    )
    assert result["fault"] == ""


def test_commands_through_the_rings_are_answered_in_order(
    system: System, generator: Generator
) -> None:
    paced = generator.call(
        "ring_paced", instance=system.config.instance, mix="tiny", operations=500, per_s=5_000
    )
    assert paced["fault"] == ""
    assert 0 < paced["p50"] <= paced["max"]


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_shard_process_reaches_the_golden_outcome(
    system: System, generator: Generator, name: str
) -> None:
    result = generator.call("ring_bulk", instance=system.config.instance, mix=name, operations=None)
    assert result["fault"] == ""
