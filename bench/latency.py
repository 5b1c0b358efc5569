"""Latency: ring to ring, and over the wire; open loop, each beside its floor.

     ring    generator on the doors' core ──command ring──▶ shard ──event ring──▶ generator
             floor: bench/floors/ring.py, one 64-byte slot there and one back, same plan
     wire    generator ──TCP──▶ gateway ──ring──▶ shard ──ring──▶ gateway ──TCP──▶ generator
             floor: bench/floors/echo.py, same client, core and idle mode
     ladder  the same at rising rates, up to saturation

Latency counts from the planned send time, so a stall is not hidden. Ring: a core for each
spinner; a regression means more work per command in the shard, or a cache line more between the
cores. Wire: the generator is on the gateway's core, as is the echo's client; both servers wait in
the kernel while nothing comes, so the floor is the kernel's socket path and uvloop, and the ratio
says what codec, rings and the shard's answer add. With fewer cores than busy processes p99.9 and
the maximum contain time slices.
"""

import statistics
from typing import Any

from bench.floors.echo import EchoServer, echo_server
from bench.floors.ring import measure_ring
from bench.generator import Generator
from bench.measure import (
    PAIRS,
    QUICK_PAIRS,
    Pairs,
    Row,
    Target,
    interleave,
    percentiles_us,
    ratio_at_most,
    value_at_most,
)
from bench.system import IDLE, System, exchange
from bench.throughput import WINDOW

RING_RATE = 50_000.0
RING_OPERATIONS, RING_QUICK = 100_000, 10_000
WIRE_RATE = 4_000.0
WIRE_OPERATIONS, WIRE_QUICK = 8_000, 1_000
MIX = "resting_1e4"
LADDER_PER_S = (10e3, 50e3, 100e3, 200e3, 400e3, 600e3, 800e3, 1.0e6, 1.2e6, 1.5e6, 2e6, 3e6)
_LADDER_S = 1.0
_SATURATED = 0.95  # of the offered rate


def _void(results: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    faults = [arm["fault"] for pair in results for arm in pair if arm.get("fault")]
    return faults[0] if faults else ""


def _pairs(results: list[tuple[dict[str, Any], dict[str, Any]]], key: str) -> Pairs:
    return Pairs([thing[key] for thing, _ in results], [floor[key] for _, floor in results])


def _medians(arms: list[dict[str, Any]]) -> dict[str, float]:
    keys = ("p50", "p90", "p99", "p99.9", "max")
    return {key: round(statistics.median(arm[key] for arm in arms), 2) for key in keys}


def _rows(
    title: str,
    results: list[tuple[dict[str, Any], dict[str, Any]]],
    targets: dict[str, tuple[Target, ...]],
    note: str,
) -> list[Row]:
    # One row per percentile that has a target; the others stand in the details of each.
    details = {
        "thing_us": _medians([thing for thing, _ in results]),
        "floor_us": _medians([floor for _, floor in results]),
    }
    return [
        _pairs(results, key).row(
            f"{title} {key}", "µs", targets=target, void=_void(results), note=note, details=details
        )
        for key, target in targets.items()
    ]


# -------------------------------------------------------------------------------- ring to ring
def bench_ring_latency(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the latency rows of `run.py bench ring`."""
    pairs, count = (QUICK_PAIRS, RING_QUICK) if quick else (PAIRS, RING_OPERATIONS)
    with exchange(idle, ("shard",)) as system, Generator(system.cores.doors, nice=0) as generator:
        work = {"instance": system.config.instance, "mix": MIX, "operations": count}

        def floor() -> dict[str, Any]:
            times = measure_ring(
                system.cores.doors, system.cores.shard, count, int(1e9 / RING_RATE)
            )
            return percentiles_us(times.latencies)

        def thing() -> dict[str, Any]:
            return generator.call("ring_paced", per_s=RING_RATE, **work)

        thing()
        results = interleave(pairs, thing, floor)
    targets = {"p50": (value_at_most(1, "µs"),), "p99": (), "p99.9": (value_at_most(10, "µs"),)}
    note = f"floor: a 64-byte slot there and back on the same plan; {RING_RATE:,.0f}/s, {MIX}"
    return _rows("command in → event out, ring to ring,", results, targets, note)


# ------------------------------------------------------------------------------- over the wire
def bench_wire_latency(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the rows of `run.py bench wire-latency`."""
    pairs, count = (QUICK_PAIRS, WIRE_QUICK) if quick else (PAIRS, WIRE_OPERATIONS)
    with exchange(idle) as system, echo_server(system.cores.doors) as echo:
        echo.pause()
        with Generator(system.cores.doors) as generator:
            results = _round_trips(system, echo, generator, pairs, count)
            stages = _stage_rows(system, generator, count)
        targets = {"p50": (ratio_at_most(1.6),), "p99": (ratio_at_most(3),), "p99.9": ()}
        note = (
            f"floor: uvloop echo, same client; {WIRE_RATE:,.0f}/s planned, gateway's core, {idle}"
        )
        rows = _rows("JSON/TCP round trip", results, targets, note) + stages
        with Generator(system.cores.shard) as generator:
            rows += rate_ladder(system, generator, quick)
    return rows


def _round_trips(
    system: System, echo: EchoServer, generator: Generator, pairs: int, count: int
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    work = {"host": system.host, "mix": MIX, "operations": count, "per_s": WIRE_RATE}

    def thing() -> dict[str, Any]:
        return generator.call("round_trip", port=system.port, token=system.token, **work)

    def floor() -> dict[str, Any]:
        echo.resume()
        result = generator.call("echo_round_trip", port=echo.port, **work)
        echo.pause()
        return result

    thing()
    return interleave(pairs, thing, floor)


def _stage_rows(system: System, generator: Generator, count: int) -> list[Row]:
    work = {"host": system.host, "port": system.port, "token": system.token}
    found = generator.call("stages", mix=MIX, operations=count, per_s=WIRE_RATE, **work)
    return [
        Row(
            f"stage: {name} p50",
            times["p50"],
            "µs",
            void=found["fault"],
            note=f"p99 {times['p99']:,.0f}, p99.9 {times['p99.9']:,.0f} µs; from latency receipts",
            details=times,
        )
        for name, times in found.get("stages", {}).items()
    ]


def rate_ladder(system: System, generator: Generator, quick: bool) -> list[Row]:
    """Raise the planned rate until the exchange falls behind; one row per step, no target."""
    rows = []
    for per_s in LADDER_PER_S[:3] if quick else LADDER_PER_S:
        result = generator.call(
            "rate",
            host=system.host,
            port=system.port,
            token=system.token,
            mix="W1",
            operations=int(min(per_s * (_LADDER_S / 4 if quick else _LADDER_S), 1_000_000)),
            per_s=per_s,
            window=WINDOW,
        )
        achieved = result.pop("achieved_per_s")
        fault = result.pop("fault")
        saturated = achieved < _SATURATED * per_s
        tail = ", ".join(f"{key} {result[key]:,.0f}" for key in ("p99", "p99.9", "max"))
        rows.append(
            Row(
                f"JSON/TCP at {per_s:,.0f} orders/s p50",
                result["p50"],
                "µs",
                void=fault,
                note=f"{tail} µs; achieved {achieved:,.0f}/s{', saturated' if saturated else ''}",
                details=result | {"achieved_per_s": round(achieved)},
            )
        )
        if saturated or fault:
            break
    return rows
