"""Seeds of the simulation: a block of them, and that a seed tells the same story every time.

In processes of their own, because crash points are compiled in (flavour `failpoint`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 1700
PARTS = 2  # processes side by side: the simulation needs one core each
SEEDS = os.environ.get("RINGBOOK_SEEDS", "0-199")
ACTIONS = os.environ.get("RINGBOOK_ACTIONS", "2000")


def simulate(*arguments: str, hash_seed: str = "0") -> str:
    """What `python -m tests.sim` says; fails when a promise was broken."""
    environ = os.environ | {"RINGBOOK_FLAVOUR": "failpoint", "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(LIMIT_S + 60)
def test_seeds_keep_all_promises() -> None:
    """RELIABILITY 4.2: whole exchanges under every fault at once."""
    first, last = map(int, SEEDS.split("-"))
    size = -(-(last - first + 1) // PARTS)
    blocks = [f"{begin}-{min(begin + size - 1, last)}" for begin in range(first, last + 1, size)]
    simulate("--seed", str(first), "--actions", "20")  # kernels: compiled once, not side by side
    with ThreadPoolExecutor(PARTS) as pool:
        said = pool.map(lambda block: simulate("--seeds", block, "--actions", ACTIONS), blocks)
        assert all(" 0 broken" in text for text in said)


@pytest.mark.slow
@pytest.mark.chaos
def test_owners_that_die_at_every_point_of_the_loop() -> None:
    """P2, P3: nothing shown is lost, nothing runs twice."""
    simulate("--seeds", "1000-1011", "--actions", "300", "--set", "kill_shard=0.05",
             "--set", "crash_share=1.0", "--set", "kill_all=0.0", "--set", "power_cut=0.0",
             "--set", "disk_error=0.0")  # fmt: skip


@pytest.mark.slow
@pytest.mark.chaos
def test_power_cuts() -> None:
    """D1, D3, D6: what is left is a clean prefix within the promise of the mode."""
    simulate("--seeds", "2000-2019", "--actions", "300", "--set", "power_cut=0.02",
             "--set", "snapshot_commands=40", "--set", "disk_error=0.0")  # fmt: skip


@pytest.mark.slow
@pytest.mark.chaos
def test_the_same_seed_gives_the_same_trace() -> None:
    """Also where the order of Python's sets is another one."""
    traces = set()
    for hash_seed in ("0", "0", "4711"):
        text = simulate("--seeds", "7-8", "--actions", "300", "--verbose", hash_seed=hash_seed)
        traces.add(tuple(re.findall(r"trace (\w+)", text)))
    assert len(traces) == 1
    assert len(set(*traces)) == 2
