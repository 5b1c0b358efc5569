"""Runs the micro benchmarks under pytest-benchmark and makes rows of them. Cold.

They have no target and no floor: they tell which kernel changed when a row above them moved.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import ROOT, Row

_TIMEOUT_S = 600.0


def bench_micro() -> list[Row]:
    """Return one row per micro benchmark: median nanoseconds per item."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "micro.json"
        command = [sys.executable, "-m", "pytest", "-q", "bench/micro", "--benchmark-enable"]
        command += [f"--benchmark-json={output}", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if done.returncode or not output.exists():
            raise RuntimeError(f"pytest-benchmark failed:\n{done.stdout[-2000:]}")
        found = json.loads(output.read_text())["benchmarks"]
    return [
        Row(
            f"micro: {entry['name'].removeprefix('test_bench_').replace('_', ' ')}",
            entry["stats"]["median"] / entry["extra_info"]["items"] * 1e9,
            "ns/item",
            note=f"{entry['extra_info']['items']:,} items a call, {entry['stats']['rounds']} calls",
        )
        for entry in found
    ]
