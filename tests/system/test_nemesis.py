"""Kill anything, lose nothing: the fault table P1, P2, P4, P5, P7, P8, P9 on real processes.

The clean run proves that load and checker agree with the exchange as it is. The run with faults
kills each kind of process and everything at once under load. `RINGBOOK_SEED=random` draws another
plan. By hand: `python -m tests.system.nemesis`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.system.nemesis.campaign import NoJournalError, Result, run_nemesis
from tests.system.nemesis.faults import plan
from tests.system.nemesis.settings import ALL_KINDS, KINDS, PAUSE, Settings

CLEAN_S = 5.0
FAULTS_S = 70.0  # and eight fresh starts
KILLS, PAUSES = 24, 4

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]


def assert_good(result: Result) -> None:
    assert result.good, result.text()
    counts = result.findings.counts
    assert counts["orders"] > 500, "hardly any load"
    assert counts["trades"] > 100
    assert counts["feed messages"] > 500


def test_run_without_faults_is_one_story(tmp_path: Path, seed: int) -> None:
    result = run_nemesis(Settings(seed=seed, seconds=CLEAN_S), tmp_path / "run")
    assert_good(result)
    assert result.findings.counts["feed numbers missing"] == 0
    expected = set() if result.settings.resume else {"no journal"}
    assert {note.partition(":")[0] for note in result.findings.notes} == expected


def test_killed_processes_lose_nothing_and_come_back(tmp_path: Path, seed: int) -> None:
    kinds = (*KINDS * (KILLS // len(KINDS)), *KINDS[: KILLS % len(KINDS)], *(PAUSE,) * PAUSES)
    settings = Settings(seed=seed, seconds=FAULTS_S, kills=len(kinds), kinds=kinds)
    try:
        result = run_nemesis(settings, tmp_path / "run")
    except NoJournalError as error:
        pytest.skip(f"kill runs (P1 P2 P4 P5 P7 P8 P9): {error}")
    assert_good(result)
    done = Counter(fault.kind for fault in result.faults)
    assert done.total() == KILLS + PAUSES
    assert set(done) == set(ALL_KINDS)


def test_same_seed_gives_the_same_plan() -> None:
    def planned(seed: int) -> list[tuple[float, str]]:
        return [(fault.gap, fault.kind) for fault in plan(Settings(seed=seed, kills=14))]

    assert planned(5) == planned(5)
    assert planned(5) != planned(6)
    assert Counter(kind for _, kind in planned(5)) == dict.fromkeys(KINDS, 2)
