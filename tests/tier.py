"""Runs a tier of checks as a list of stages and closes with one line. Cold.

usage: python tests/tier.py check | test | ci | test-all | soak       (make does this, after set-up)

A stage is one command with a time limit. Every stage runs even when an earlier one failed, so that
one run shows all there is to mend. Flavours need processes of their own (the compiled code is
chosen at import), hence several pytest stages: all tests as compiled for production, the engine and
the model again with bounds checked, and a part without the JIT. All of them run in one process at a
time: tests of this project start pinned processes and measure time, so parallel workers would
disturb them.

The last line has pytest's form and counts the tests of all stages. Exit status 0 only if all
succeeded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:xdist")
CHECK_BUDGET_S = 120
TEST_BUDGET_S = 600
NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Stage:
    """One command; `environ` adds to the environment, `limit_s` ends it and all its children."""

    name: str
    command: tuple[str, ...]
    limit_s: int
    environ: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a stage gave: its exit status, seconds, counts by pytest's words, reasons of skips."""

    status: int
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


STATIC = (
    Stage("format", _python("ruff", "format", "--check", "."), 30),
    Stage("lint", _python("ruff", "check", "--output-format=concise", "."), 30),
    Stage("types", _python("mypy", "--no-error-summary"), 120),
)
FAST = "not slow and not soak and not service and not chaos"
HURRIED = f"{FAST} and not later"  # `later` tests stay in every flavour of make test
CI = "not soak and not service and not chaos"
ALL = "not soak"
NO_JIT = {"NUMBA_DISABLE_JIT": "1"}
CHECKED = {"RINGBOOK_FLAVOUR": "check"}


def _kernels(name: str, environ: dict[str, str]) -> Stage:
    # Compiled before any test's own time limit runs.
    return Stage(f"kernels, {name}", _python("engine.warmup"), 1500, environ)


def _tests(
    name: str, marks: str, limit_s: int, environ: dict[str, str], extra: str = "-q"
) -> Stage:
    return Stage(name, (*PYTEST, extra, "-m", marks), limit_s, environ)


def stages_of(tier: str) -> tuple[Stage, ...]:
    """List the stages of a tier; KeyError for an unknown one."""
    compiled = (_kernels("as shipped", {}),)
    flavours = (
        _kernels("bounds checked", CHECKED),
        _tests("tests, bounds checked", f"flavour and {FAST}", 1200, CHECKED),
        _tests("tests, no JIT", f"nojit and {CI}", 900, NO_JIT),
    )
    strict = {"RINGBOOK_NO_SKIPS": "1"}
    tiers = {
        "check": (*STATIC, *compiled, _tests("fast tests", HURRIED, 300, {})),
        "test": (*STATIC, *compiled, _tests("tests", CI, 2400, {}), *flavours),
        "ci": (
            *STATIC,
            *compiled,
            _tests("tests", CI, 2400, {}),
            *flavours,
            _kernels("with crash points", {"RINGBOOK_FLAVOUR": "failpoint"}),
            _tests("simulation and kills", "chaos and not soak", 2400, {}),
        ),
        "test-all": (
            *STATIC,
            *compiled,
            _tests("all tests", ALL, 7200, strict),
            _kernels("bounds checked", CHECKED),
            _tests("tests, bounds checked", f"flavour and {ALL}", 3600, CHECKED | strict),
            _tests("tests, no JIT", f"nojit and {ALL}", 3600, NO_JIT | strict),
        ),
        "soak": (_tests("soak", "soak", 8 * 3600, {}, extra="-v"),),
    }
    return tiers[tier]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # The stage leads a process group: its servers and shards go with it.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def run_stage(stage: Stage) -> Outcome:
    """Run one stage with its output shown, within its time limit."""
    print(f"--- {stage.name}: {' '.join(stage.command[1:])}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ringbook-tier-") as folder:
        report = Path(folder) / "report.json"
        environ = os.environ | stage.environ | {"RINGBOOK_REPORT": str(report)}
        with subprocess.Popen(
            stage.command, cwd=ROOT, env=environ, start_new_session=True
        ) as process:
            try:
                status = process.wait(stage.limit_s)
            except subprocess.TimeoutExpired:
                print(f"--- {stage.name}: not done in {stage.limit_s} s, ended", flush=True)
                _end_group(process)
                status = 124
            except KeyboardInterrupt:
                _end_group(process)
                raise
        if status == NO_TESTS_COLLECTED:
            print(f"--- {stage.name}: no test was selected; a stage that checks nothing fails")
        data = json.loads(report.read_text()) if report.exists() else {}
    return Outcome(
        status,
        time.monotonic() - start,
        Counter(data.get("counts", {})),
        Counter(data.get("skips", {})),
    )


def closing_line(outcomes: list[Outcome], seconds: float) -> str:
    """Sum up all stages in the form pytest uses."""
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts.update(outcome.counts)
        # A failed stage that reported no failed test (lint, a crash, a time-out) is an error of its
        # own.
        if outcome.status and not outcome.counts["failed"] + outcome.counts["error"]:
            counts["error"] += 1
    words = {"error": "errors"} if counts["error"] > 1 else {}
    order = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "error")
    told = [f"{counts[w]} {words.get(w, w)}" for w in order if counts[w] and w != "deselected"]
    text = f" {', '.join(told) or 'no tests ran'} in {seconds:.2f}s "
    return text.center(80, "=")


def run_tier(tier: str) -> int:
    """Run all stages of a tier; return the exit status."""
    start = time.monotonic()
    stages = stages_of(tier)
    outcomes = [run_stage(stage) for stage in stages]
    seconds = time.monotonic() - start
    print(f"\n=== {tier}: stages")
    for stage, outcome in zip(stages, outcomes, strict=True):
        word = "ok" if outcome.status == 0 else f"FAILED (exit {outcome.status})"
        print(f"  {stage.name:24} {outcome.seconds:7.1f} s  {word}")
    skips: Counter[str] = Counter()
    for outcome in outcomes:
        skips.update(outcome.skips)
    for reason, count in skips.most_common():
        print(f"  NOT TESTED: {count} skipped: {reason}")
    budget = {"check": CHECK_BUDGET_S, "test": TEST_BUDGET_S}.get(tier)
    if budget and seconds > budget:
        print(f"  slower than its budget: {seconds:.0f} s, meant for {budget} s")
    print(closing_line(outcomes, seconds), flush=True)
    return int(any(outcome.status for outcome in outcomes))


def main(arguments: list[str]) -> int:
    try:
        (tier,) = arguments
        stages_of(tier)
    except (ValueError, KeyError):
        print("usage: python tests/tier.py check | test | ci | test-all | soak", file=sys.stderr)
        return 2
    try:
        return run_tier(tier)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
