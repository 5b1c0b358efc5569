"""Throughput over the wire: JSON orders per second through TCP, each acknowledged, against an
echo of the same bytes.

     thing   generator ──TCP──▶ gateway ──ring──▶ shard ──ring──▶ gateway ──TCP──▶ generator
     floor   generator ──TCP──▶ uvloop echo ──TCP──▶ generator

The book is filled first, untimed. Then the operations of W1 (W2) are sent as fast as a window of
unanswered orders lets them; the clock runs from the first byte to the last acknowledgement. Every
acknowledgement is matched to its order by client id, and the fills reported on the wire are
folded to the workload's trades, volume and checksum: a wrong answer voids the figure.

The figure includes the load generator: on two cores it shares one with the shard. The CPU time each
process took per order stands beside it. A regression means more work per order in codec, gateway,
shard or kernel, and those times say where; the shard's contain its spinning. The same through the
rings alone, without gateway and TCP, is the row "through the shard process".
"""

import statistics
from typing import Any

from bench.floors.echo import EchoServer, echo_server
from bench.floors.ladder import run_ladder
from bench.generator import Generator
from bench.measure import (
    PAIRS,
    QUICK_PAIRS,
    Pairs,
    Row,
    interleave,
    ratio_at_least,
    value_at_least,
)
from bench.system import IDLE, System, exchange
from bench.workload import named

WINDOW = 4_096  # half of a command ring: beyond it the exchange answers BUSY
QUICK_OPERATIONS = 100_000
TARGET_PER_S = 1_000_000
TARGET_RATIO = 0.15
MIXES = ("W1", "W2")


def bench_wire_throughput(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the rows of `run.py bench wire-throughput`."""
    pairs, operations = (QUICK_PAIRS, QUICK_OPERATIONS) if quick else (PAIRS, None)
    rows = []
    with exchange(idle) as system, echo_server(system.cores.doors) as echo:
        echo.pause()
        with Generator(system.cores.shard) as generator:
            for mix in MIXES:
                load = _Load(system, echo, generator, mix, operations)
                load.thing()  # everything loaded, pages touched
                results = interleave(pairs, load.thing, load.floor)
                rows.append(_row(mix, results))
    return rows


class _Load:
    """One mix against the exchange and against the echo."""

    def __init__(
        self, system: System, echo: EchoServer, generator: Generator, mix: str, count: int | None
    ) -> None:
        self._system, self._echo, self._generator = system, echo, generator
        self._work = {"mix": mix, "operations": count, "window": WINDOW, "host": system.host}

    def thing(self) -> dict[str, Any]:
        system = self._system
        work = self._work | {"pids": system.pids}
        return self._generator.call("bulk", port=system.port, token=system.token, **work)

    def floor(self) -> dict[str, Any]:
        self._echo.resume()
        work = self._work | {"pids": {"echo": self._echo.process.pid}}
        result = self._generator.call("echo_bulk", port=self._echo.port, **work)
        self._echo.pause()
        return result


def _row(mix: str, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> Row:
    faults = [arm["fault"] for pair in results for arm in pair if arm["fault"]]
    cpu = {
        f"{arm}_cpu_ns_per_order": {
            name: round(statistics.median(pair[k]["cpu_ns"][name] for pair in results))
            for name in results[0][k]["cpu_ns"]
        }
        for k, arm in enumerate(("exchange", "floor"))
    }
    spent = ", ".join(f"{n} {ns:,}" for n, ns in cpu["exchange_cpu_ns_per_order"].items())
    return Pairs([a["per_s"] for a, _ in results], [b["per_s"] for _, b in results]).row(
        f"JSON/TCP orders acknowledged, {mix}",
        "orders/s",
        targets=(value_at_least(TARGET_PER_S, "orders/s"), ratio_at_least(TARGET_RATIO)),
        void=faults[0] if faults else "",
        note=f"floor: echo of the same bytes; window {WINDOW}, generator on the shard's core; "
        f"CPU ns per order: {spent}",
        details=cpu,
    )


def bench_ring_throughput(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the rows of the shard process: a workload ring in, ring out, the answer checked."""
    pairs, operations = (QUICK_PAIRS, QUICK_OPERATIONS) if quick else (PAIRS, None)
    rows = []
    with exchange(idle, ("shard",)) as system, Generator(system.cores.doors) as generator:
        for mix in MIXES:
            workload = named(mix)
            run_ladder(workload, 1000)
            results = []
            for _ in range(pairs):
                thing = generator.call(
                    "ring_bulk", instance=system.config.instance, mix=mix, operations=operations
                )
                results.append((thing, run_ladder(workload, operations)[0]))
            faults = [thing["fault"] for thing, _ in results if thing["fault"]]
            rows.append(
                Pairs([1e9 / thing["per_s"] for thing, _ in results], [f for _, f in results]).row(
                    f"{mix} through the shard process",
                    "ns/op",
                    void=faults[0] if faults else "",
                    note="wall time, ring in and ring out; floor: bare ladder in one process",
                )
            )
    return rows
