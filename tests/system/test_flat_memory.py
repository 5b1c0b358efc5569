"""Ten million orders through the running exchange: no process grows, every answer is right.

Counted is what a process owns (Anonymous of smaps_rollup): shared segments have their size from the
start. The follower works when the core is idle, so it is waited for before each look: its ring of
events is touched by its own work, not by the time that passes.
"""

from pathlib import Path

import pytest

from bench.generator import Generator
from bench.system import exchange
from bench.throughput import WINDOW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

RUNS = 10  # of W1: a million operations after the book was filled
GROWTH_MAX = 4 << 20


def own_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this kernel does not tell")


def test_memory_is_flat_over_ten_million_orders() -> None:
    with exchange() as system, Generator(system.cores.shard) as generator:

        def run() -> None:
            found = generator.call(
                "bulk", host=system.host, port=system.port, token=system.token, mix="W1",
                operations=None, window=WINDOW, pids=system.pids,
            )  # fmt: skip
            assert found["fault"] == ""

        run()  # every page and buffer that one run needs
        run()
        system.settle()
        before = {role: own_bytes(pid) for role, pid in system.pids.items()}
        for _ in range(RUNS):
            run()
        system.settle()
        grown = {role: own_bytes(pid) - before[role] for role, pid in system.pids.items()}
    assert set(grown) == {"shard", "gateway", "feed", "journal", "follow"}
    print(grown)
    assert max(grown.values()) <= GROWTH_MAX, grown
