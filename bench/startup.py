"""Start-up: from the start of a process to an exchange that has answered a logon.

     this module started anew ──▶ supervisor ──compiles, starts──▶ shard, gateway, feed ──▶ logon

First start: an empty kernel cache (RINGBOOK_CACHE in a temporary folder). Warm start: the same
again. The time includes the Python interpreter and every import. A regression of the first start
means more to compile; of the warm start, more to load or to create.
"""

import os
import subprocess
import sys
import tempfile
import time

from bench.measure import Row, value_at_most
from bench.system import exchange
from bench.wire import logon

FIRST_S, WARM_S = 60.0, 3.0
WARM_STARTS = 5
_TIMEOUT_S = 300.0


def start_once(cache: str) -> float:
    """Seconds until a new exchange with this kernel cache has answered a logon."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.startup"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RINGBOOK_CACHE": cache},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
    if line != b"ready\n":
        raise RuntimeError("the exchange did not start")
    return seconds


def bench_start(quick: bool = False, idle: str = "") -> list[Row]:
    """Return the rows of `run.py bench start`."""
    with tempfile.TemporaryDirectory(prefix="ringbook-cache-") as cache:
        first = start_once(cache)
        warm = sorted(start_once(cache) for _ in range(1 if quick else WARM_STARTS))
    return [
        Row(
            "first start, empty kernel cache",
            first,
            "s",
            targets=(value_at_most(FIRST_S, "s"),),
            note="process start to logon answered; compiles every kernel",
        ),
        Row(
            "warm start",
            warm[len(warm) // 2],
            "s",
            interval=(warm[0], warm[-1]),
            targets=(value_at_most(WARM_S, "s"),),
            note=f"median of {len(warm)}; process start to logon answered",
        ),
    ]


def _main() -> None:
    with exchange() as system:
        logon(system.host, system.port, "start", "bench", system.token).close()
        os.write(1, b"ready\n")
        sys.stdin.read()  # until the parent has its time


if __name__ == "__main__":
    _main()
