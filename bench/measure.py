"""How this project measures: rows, targets, interleaved pairs, intervals, pinning, and the
setting they hold for.

Cold. Absolute times drift by 15 % and more between runs of the same machine, so a bar is a ratio
taken in one run: the thing and its floor alternate (A B, B A, A B, ...), each pair gives a ratio,
the median of the ratios is the figure and the interval printed beside it covers that median with
at least 95 % confidence (order statistics, no assumption about the distribution).

A `Row` is what every benchmark returns; bench/report.py prints rows and stores them. `value` and
`floor` are medians in the same unit; `baseline` is a second reference in that unit (the best peer
scaled to this machine's floor, for example).
"""

import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
PAIRS = 9
QUICK_PAIRS = 3
_CONFIDENCE = 0.95
_BUSY_LOAD = 0.7


# -------------------------------------------------------------------------------------- targets
@dataclass(frozen=True)
class Target:
    """A bar on a row's `value` or `ratio`: at most (or at least) `bound`."""

    what: str  # "value" or "ratio"
    at_most: bool
    bound: float
    unit: str = ""

    @property
    def text(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return (
            f"{sign} {self.bound:g}×"
            if self.what == "ratio"
            else f"{sign} {self.bound:,.10g} {self.unit}".strip()
        )

    def met(self, value: float, ratio: float | None) -> bool:
        figure = value if self.what == "value" else ratio
        if figure is None or math.isnan(figure):
            return False
        return figure <= self.bound if self.at_most else figure >= self.bound


def ratio_at_most(bound: float) -> Target:
    return Target("ratio", True, bound)


def ratio_at_least(bound: float) -> Target:
    return Target("ratio", False, bound)


def value_at_most(bound: float, unit: str) -> Target:
    return Target("value", True, bound, unit)


def value_at_least(bound: float, unit: str) -> Target:
    return Target("value", False, bound, unit)


@dataclass(frozen=True)
class Row:
    """One figure of a report. `void` says why it must not be used; empty when it may."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    targets: tuple[Target, ...] = ()
    void: str = ""
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return " and ".join(t.text for t in self.targets)

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None without one. A void figure meets nothing."""
        if not self.targets:
            return None
        return not self.void and all(t.met(self.value, self.ratio) for t in self.targets)

    def as_json(self) -> dict[str, Any]:
        row = asdict(self)
        del row["targets"]
        return row | {"target": self.target, "met": self.met}


# ------------------------------------------------------------------------------------ statistics
def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Interval covering the median with at least 95 % confidence; the range of few values."""
    ordered, n = sorted(values), len(values)
    outside = 0.0
    rank = 0
    for k in range(n // 2):
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 1 - _CONFIDENCE:
            break
        rank = k + 1
    low = max(rank - 1, 0)
    return ordered[low], ordered[n - 1 - low]


@dataclass(frozen=True)
class Pairs:
    """Interleaved measurements of a thing and of its floor."""

    thing: list[float]
    floor: list[float]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.thing, self.floor, strict=True)]

    def row(self, name: str, unit: str, **more: Any) -> Row:
        """Make the row: medians, median ratio and its interval."""
        details = more.pop("details", {}) | {
            "thing": _rounded(self.thing),
            "floor": _rounded(self.floor),
        }
        return Row(
            name,
            statistics.median(self.thing),
            unit,
            floor=statistics.median(self.floor),
            ratio=statistics.median(self.ratios),
            interval=median_interval(self.ratios),
            details=details,
            **more,
        )


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{v:.6g}") for v in values]


def interleave(
    pairs: int, thing: Callable[[], Any], floor: Callable[[], Any]
) -> list[tuple[Any, Any]]:
    """Run both `pairs` times, alternating which goes first, so that a drift hits both alike."""
    results = []
    for k in range(pairs):
        if k % 2:
            second, first = floor(), thing()
            results.append((first, second))
        else:
            results.append((thing(), floor()))
    return results


PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)


def percentiles_us(latencies_ns: npt.NDArray[np.int64]) -> dict[str, float]:
    """p50 .. p99.99 and max in microseconds."""
    values = np.percentile(latencies_ns, PERCENTILES) / 1e3
    named = {f"p{p:g}": round(float(v), 3) for p, v in zip(PERCENTILES, values, strict=True)}
    return named | {"max": round(float(latencies_ns.max()) / 1e3, 3)}


# --------------------------------------------------------------------------------------- setting
def cores_available() -> list[int]:
    return sorted(os.sched_getaffinity(0))


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run this thread on one core for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def thread_cpu_ns(call: Callable[[], Any]) -> tuple[int, Any]:
    """CPU nanoseconds of this thread spent in call(), and what it returned."""
    start = time.thread_time_ns()
    result = call()
    return time.thread_time_ns() - start, result


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> str:
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    changed = [
        line[3:]
        for line in dirty.stdout.splitlines()
        if not line[3:].startswith(("bench/results/", "docs/"))
    ]
    return head.stdout.strip() + (" + uncommitted changes" if changed else "")


def configuration(**more: Any) -> dict[str, Any]:
    """Machine, kernel, governor, cores, versions, commit and time: what a figure holds for."""
    libraries = ("numpy", "numba", "llvmlite", "uvloop", "orjson", "posix_ipc")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": _cpu_model(),
        "architecture": platform.machine(),
        "virtual": "hypervisor" in _read("/proc/cpuinfo"),
        "kernel": platform.release(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not visible",
        "cores": cores_available(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {n: importlib.metadata.version(n) for n in libraries},
        "flavour": os.environ.get("RINGBOOK_FLAVOUR", "prod"),
        "commit": _commit(),
    } | more


def warnings_of(config: dict[str, Any], busy_processes: int = 0) -> list[str]:
    """Reasons not to trust figures of this run in absolute terms."""
    reasons = []
    cores = len(config["cores"])
    if config["virtual"]:
        reasons.append(
            "virtual machine: the host may take cores away; maxima and p99.9 include that"
        )
    if busy_processes > cores:
        reasons.append(
            f"{busy_processes} busy processes on {cores} cores: tails include time slices"
        )
    if config["load_before"] > _BUSY_LOAD:
        reasons.append(
            f"load average {config['load_before']} before the run: something else was running"
        )
    if config["governor"] not in ("performance", "not visible"):
        reasons.append(
            f"frequency governor {config['governor']}: clock speed changes during the run"
        )
    if config["flavour"] != "prod":
        reasons.append(f"flavour {config['flavour']}: not the code that trades")
    if sys.gettrace() is not None:
        reasons.append("a tracer is active")
    return reasons
