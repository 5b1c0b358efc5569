"""Every pair of features that can meet has a story, and docs/pairs.md says which have how many."""

from __future__ import annotations

import pytest

from tests.conftest import BASE_SEED
from tests.scenarios.meetings import FEATURES
from tests.scenarios.pairs import PAGE, met_at_random, met_in_scenarios, page

WORLDS, COMMANDS = 10, 500
OFTEN = 3  # what meets less often in so many commands may have no story yet


def test_page_of_pairs_is_as_the_scenarios_are() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(met_in_scenarios())


def test_every_feature_is_met() -> None:
    met = {feature for pair in met_in_scenarios() for feature in pair}
    assert set(FEATURES) - met == set()


@pytest.mark.slow
def test_pairs_that_meet_at_random_meet_in_a_story() -> None:
    met = met_in_scenarios()
    drawn = met_at_random(range(BASE_SEED, BASE_SEED + WORLDS), COMMANDS)
    assert len(drawn) > len(FEATURES) * 5
    often = {pair for pair, count in drawn.items() if count >= OFTEN}
    assert sorted(often - set(met)) == []
