"""Where a benchmark's exchange runs, and that nothing of a killed one stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.system import bench_config, cores_of, cpu_ns, remove_dead
from engine.segment import SHM, Segment, segment_name

_MAKER = """
from engine.segment import Segment, segment_name
Segment.create(segment_name({instance!r}, "events"), "events", 4096)
"""


@pytest.mark.later
def test_segments_of_a_dead_benchmark_are_removed_and_of_a_live_one_stay() -> None:
    dead, live = f"bench_dead{os.getpid()}", f"bench_live{os.getpid()}"
    subprocess.run([sys.executable, "-c", _MAKER.format(instance=dead)], check=True, timeout=60)
    own = Segment.create(segment_name(live, "events"), "events", 4096)
    try:
        assert (SHM / f"ringbook.{dead}.events").exists()
        assert segment_name(dead, "events") in remove_dead()
        assert not (SHM / f"ringbook.{dead}.events").exists()
        assert (SHM / f"ringbook.{live}.events").exists()
    finally:
        own.unlink()
        own.close()


def test_benchmark_exchange_disturbs_no_other() -> None:
    config = bench_config()
    assert str(os.getpid()) in config.instance
    assert config.network.port == 0
    assert config.shards == 1
    assert cores_of(config).shared == (len(os.sched_getaffinity(0)) == 1)


def test_cpu_time_of_a_process_grows_with_its_work() -> None:
    before = cpu_ns(os.getpid())
    sum(range(3_000_000))
    assert cpu_ns(os.getpid()) > before
