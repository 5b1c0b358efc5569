"""Start-up: from the start of `run.py up` to an exchange that has answered a logon.

     run.py up ──imports, compiles or loads, forks──▶ shard, gateway, feed ──says where──▶ logon

First start: an empty kernel cache (RINGBOOK_CACHE in a temporary folder). Warm start: the same
again. The time includes the Python interpreter and every import. A regression of the first start
means more to compile; of the warm start, more to import, load or create.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row, value_at_most
from bench.system import bench_config
from bench.wire import logon

FIRST_S, WARM_S = 60.0, 3.0
WARM_STARTS = 5
_STOP_S = 30.0
_RUN = Path(__file__).resolve().parent.parent / "run.py"


def start_once(cache: str) -> float:
    """Seconds until a new exchange with this kernel cache has answered a logon."""
    config = bench_config()
    network = config.network
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(
            f'instance = "{config.instance}"\nshards = 1\n[network]\nport = 0\n'
            f"feed_port = {network.feed_port}\ndirectory_port = {network.directory_port}\n"
        )
        file.flush()
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(_RUN), "up", "--config", file.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RINGBOOK_CACHE": cache},
        )
        try:
            port = _port_said(process)
            account = next(a for a in config.accounts if a.name == "bench")
            logon(network.host, port, "start", account.name, account.token).close()
            return time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port_said(process: "subprocess.Popen[str]") -> int:
    # `run.py up` prints where it serves once it does.
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"tcp://[^:]+:(\d+)", line)
        if found:
            return int(found[1])
    raise RuntimeError("the exchange did not start")


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
