"""The tier runner counts every stage, ends a stage that does not end, and never turns red into
green.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import tier
from tests.tier import Outcome, Stage, closing_line, run_stage, stages_of

ROOT = Path(__file__).resolve().parent.parent


def test_closing_line_sums_stages_in_the_form_of_pytest() -> None:
    outcomes = [
        Outcome(0, 1.0),
        Outcome(0, 1.0, Counter(passed=10, skipped=1, deselected=5)),
        Outcome(1, 1.0, Counter(passed=2, failed=1)),
    ]
    assert closing_line(outcomes, 3.5).strip("=") == " 1 failed, 12 passed, 1 skipped in 3.50s "


def test_failed_stage_without_failed_tests_is_an_error() -> None:
    outcomes = [Outcome(1, 1.0), Outcome(124, 1.0, Counter(passed=3))]
    assert closing_line(outcomes, 1.0).strip("=") == " 3 passed, 2 errors in 1.00s "


def test_stage_is_ended_at_its_limit_with_its_children() -> None:
    child = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    outcome = run_stage(Stage("endless", (sys.executable, "-c", code), 1))
    assert outcome.status == 124
    assert outcome.seconds < 10


def test_stage_environment_reaches_the_command() -> None:
    code = "import os, sys; sys.exit(int(os.environ['RINGBOOK_STAGE_TEST']))"
    stage = Stage("status", (sys.executable, "-c", code), 30, {"RINGBOOK_STAGE_TEST": "7"})
    assert run_stage(stage).status == 7


def test_one_red_stage_makes_the_tier_red(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = ("raise SystemExit(0)", "raise SystemExit(3)", "raise SystemExit(0)")
    stages = tuple(Stage(c, (sys.executable, "-c", c), 30) for c in commands)
    monkeypatch.setattr(tier, "stages_of", lambda name: stages)
    assert tier.main(["anything"]) == 1
    monkeypatch.setattr(tier, "stages_of", lambda name: stages[:1])
    assert tier.main(["anything"]) == 0


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["test", "check"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert tier.main(arguments) == 2


@pytest.mark.parametrize("name", ["check", "test", "ci", "test-all", "soak"])
def test_every_tier_runs_tests_without_parallel_workers(name: str) -> None:
    commands = [stage.command for stage in stages_of(name)]
    assert any("pytest" in command for command in commands)
    assert all("no:xdist" in command for command in commands if "pytest" in command)


def test_what_check_leaves_for_later_is_in_every_stage_of_make_test() -> None:
    (fast,) = (stage for stage in stages_of("check") if "pytest" in stage.command)
    assert fast.command[-1].endswith(" and not later")
    for name in ("test", "ci", "test-all"):
        assert not any("later" in stage.command[-1] for stage in stages_of(name))


def test_test_all_allows_no_skips() -> None:
    stages = [stage for stage in stages_of("test-all") if "pytest" in stage.command]
    assert all(stage.environ.get("RINGBOOK_NO_SKIPS") == "1" for stage in stages)


@pytest.mark.parametrize(
    "target", ["run", "test", "check", "chaos", "test-all", "soak", "bench", "lock"]
)
def test_make_target_exists_and_is_in_the_help(target: str) -> None:
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
