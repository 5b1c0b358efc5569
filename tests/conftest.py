"""Fixtures and the session report shared by all tests.

Environment, all optional:
  RINGBOOK_DATA      folder of market data (default ../shared/data beside the repository)
  RINGBOOK_SEED      a number, or "random": the base seed of everything random (default 20120621)
  RINGBOOK_FLAVOUR   prod | check: the flavour of the compiled kernels (read by engine/jit.py)
  RINGBOOK_NO_SKIPS  1: a skipped test fails the run (make test-all)
  RINGBOOK_REPORT    file to which the counts and skips are written as JSON (tests/tier.py reads it)
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.leaks import SESSION_VARIABLE, find_leaks, take_snapshot

# A suite started in the background has Ctrl-C ignored, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
DATA = Path(os.environ.get("RINGBOOK_DATA", ROOT.parent / "shared" / "data")).resolve()
FLAVOUR = os.environ.get("RINGBOOK_FLAVOUR", "prod")
DEFAULT_SEED = 20120621  # the day of the sample data; any number would do


def _read_base_seed() -> int:
    text = os.environ.get("RINGBOOK_SEED", str(DEFAULT_SEED))
    return random.SystemRandom().randrange(2**31) if text == "random" else int(text)


BASE_SEED = _read_base_seed()
os.environ["RINGBOOK_SEED"] = str(BASE_SEED)  # children of this run repeat it
os.environ.setdefault("RINGBOOK_FLAVOUR", FLAVOUR)
TOKEN = os.environ[SESSION_VARIABLE] = uuid.uuid4().hex

# Without a deadline: the first example of a test may load a kernel. Derandomised by default: a red
# run is red again. RINGBOOK_SEED=random explores.
settings.register_profile("steady", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("steady" if BASE_SEED == DEFAULT_SEED else "explore")


def pytest_configure(config: pytest.Config) -> None:
    if sys.flags.optimize:
        pytest.exit("tests need assert statements: do not run them under python -O", returncode=4)
    if FLAVOUR not in ("prod", "check", "failpoint"):
        pytest.exit(f"RINGBOOK_FLAVOUR={FLAVOUR}: prod, check or failpoint", returncode=4)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what every flavour repeats, and let the proof of the flavour come first."""
    for item in items:
        if item.path.is_relative_to(TESTS / "engine") or item.path.is_relative_to(TESTS / "model"):
            item.add_marker(pytest.mark.flavour)
    items.sort(key=lambda item: item.path.name != "test_flavour.py")


def pytest_report_header(config: pytest.Config) -> list[str]:
    jit = "off" if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else "on"
    there = "" if DATA.is_dir() else "  (NOT THERE: tests marked `data` are skipped)"
    return [
        f"ringbook: flavour {FLAVOUR}, jit {jit}, RINGBOOK_SEED={BASE_SEED}",
        f"ringbook: RINGBOOK_DATA={DATA}{there}",
    ]


# ----------------------------------------------------------------------------------------- fixtures
@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this test: the same in every run with the same base seed, alone or not."""
    value = BASE_SEED ^ zlib.crc32(request.node.nodeid.encode())
    request.node.user_properties.append(("seed", value))
    again = f"RINGBOOK_SEED={BASE_SEED} pytest '{request.node.nodeid}'"
    request.node.add_report_section("setup", "seed", f"seed {value}; again: {again}")
    return value


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real market data, or skip and say so."""
    if not DATA.is_dir():
        pytest.skip(f"no market data at {DATA}: set RINGBOOK_DATA")
    return DATA


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Return a function that gives a program's path, or skips and names the missing program."""

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
        if path is None:
            pytest.skip(f"program {name} is not installed")
        return path

    return find


@pytest.fixture(scope="module", autouse=True)
def no_leaks_of_module() -> Iterator[None]:
    """Fail the module whose fixtures leave a segment or a process behind."""
    before = take_snapshot(TOKEN)
    yield
    leaks = find_leaks(before, TOKEN, started_too=True)
    assert not leaks, "this module left behind:\n  " + "\n  ".join(leaks)


@pytest.fixture(autouse=True)
def no_leaks(no_leaks_of_module: None) -> Iterator[None]:
    """Fail the test that leaves a segment or a process behind, beyond what its module runs."""
    before = take_snapshot(TOKEN)
    yield
    leaks = find_leaks(before, TOKEN, started_too=False)
    assert not leaks, "this test left behind:\n  " + "\n  ".join(leaks)


# ----------------------------------------------------------------------------------- session report
def _skips(terminal: pytest.TerminalReporter) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for report in terminal.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    return reasons


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    skips = _skips(terminalreporter)
    if skips:
        terminalreporter.section("NOT TESTED in this run", yellow=True)
        for reason, count in skips.most_common():
            terminalreporter.line(f"{count:5d} skipped: {reason}")
    report = os.environ.get("RINGBOOK_REPORT")
    if report:
        names = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "deselected")
        counts = {name: len(terminalreporter.stats.get(name, [])) for name in names}
        Path(report).write_text(json.dumps({"counts": counts, "skips": dict(skips)}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    no_skips = os.environ.get("RINGBOOK_NO_SKIPS") == "1"
    if no_skips and terminal is not None and exitstatus == 0 and _skips(terminal):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
