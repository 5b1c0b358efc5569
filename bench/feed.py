"""Market data: from the order's planned send time to the datagram at a listener, against TCP and
UDP one way.

     generator ──TCP──▶ gateway ──ring──▶ shard ──ring──▶ feed ──multicast──▶ generator      thing
     generator ──TCP──▶ relay ──multicast──▶ generator                                    floor

The relay (bench/floors/echo.py) is a bare uvloop server that sends every chunk it receives as one
multicast datagram: exactly one way by TCP plus one way by UDP, with the same client, cores and
idle mode. Every order must come out as the Add message that carries its quantity and price, or
the figure is void. A regression with an unchanged wire latency is the feed's: its wake-up or its
packing.
"""

from typing import Any

from bench.floors.echo import echo_server
from bench.generator import Generator
from bench.latency import _rows
from bench.measure import PAIRS, QUICK_PAIRS, Row, interleave, ratio_at_most
from bench.system import IDLE, exchange

RATE = 4_000.0
OPERATIONS, QUICK = 4_000, 500
_RELAY_GROUP = "239.255.70.77"


def bench_feed(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the rows of `run.py bench feed`."""
    pairs, count = (QUICK_PAIRS, QUICK) if quick else (PAIRS, OPERATIONS)
    with exchange(idle) as system:
        network = system.config.network
        relay_port = network.feed_port + 1
        relay = f"{_RELAY_GROUP}:{relay_port}"
        with (
            echo_server(system.cores.doors, relay=relay) as echo,
            Generator(system.cores.doors) as generator,
        ):
            echo.pause()
            work = {"host": system.host, "operations": count, "per_s": RATE}
            work["interface"] = network.feed_interface

            def thing() -> dict[str, Any]:
                return generator.call(
                    "feed_delay",
                    port=system.port,
                    token=system.token,
                    group=network.feed_group,
                    feed_port=network.feed_port,
                    **work,
                )

            def floor() -> dict[str, Any]:
                echo.resume()
                result = generator.call(
                    "relay_delay", port=echo.port, group=_RELAY_GROUP, feed_port=relay_port, **work
                )
                echo.pause()
                return result

            thing()
            results = interleave(pairs, thing, floor)
    note = f"floor: uvloop relay, TCP in, multicast out; {RATE:,.0f}/s planned, {idle}"
    return _rows(
        "order in → multicast packet", results, {"p50": (ratio_at_most(2),), "p99": ()}, note
    )
