"""Calendars: what a line may say, and which turn is before and behind a moment."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.calendars import DAY_NS, Turn, calendar_of, phase_named, turn_after, turn_before
from engine.codes import Phase
from engine.config import Config, ConfigError, Instrument, config_from_mapping

DAY = (
    "08:00 pre_open", "08:50 opening_call", "09:00 continuous", "17:00 closing_call",
    "17:05:30 closed",
)  # fmt: skip
SECOND = 10**9


def moment(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()) * SECOND


def test_calendar_is_read_to_the_second_with_either_name_of_a_call() -> None:
    turns = calendar_of(DAY)
    assert [turn.phase for turn in turns] == [
        Phase.PRE_OPEN, Phase.OPENING_CALL, Phase.CONTINUOUS, Phase.CLOSING_CALL, Phase.CLOSED,
    ]  # fmt: skip
    assert turns[-1].at == (17 * 3600 + 5 * 60 + 30) * SECOND
    other = [line.replace("_call", "_Auction") for line in DAY]
    assert calendar_of(other) == turns
    assert phase_named("Reopening_Call") is Phase.VOLATILITY_CALL
    assert calendar_of(()) == ()


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["09:00"], "is not a time of day"),
        (["9:00 continuous", "17:00 closed"], "is not a time of day"),
        (["24:00 continuous", "17:00 closed"], "is not a time of day"),
        (["09:00:60 continuous", "17:00 closed"], "is not a time of day"),
        (["09:00 open", "17:00 closed"], "'open' is no phase; there are pre_open"),
        (["09:00 none", "17:00 closed"], "is no phase"),
        (["09:00 halted", "17:00 closed"], "a calendar has pre_open, opening_call"),
        (["09:00 volatility_call", "17:00 closed"], "a calendar has pre_open"),
        (["09:00 continuous"], "2 to 32 turns"),
        ([f"{h:02d}:{m:02d} closed" for h in range(3) for m in range(12)], "2 to 32 turns"),
        (["09:00 pre_open", "09:00 continuous"], "times rise within the day"),
        (["17:00 closed", "09:00 pre_open"], "times rise within the day"),
        (["09:00 continuous", "17:00 continuous"], "the phase before it already"),
        (["09:00 closed", "10:00 pre_open", "11:00 closed"], "the phase before it already"),
        (["09:00 continuous", "17:00 closed"], "only through a call"),
        (["09:00 closed", "17:00 continuous"], "only through a call"),
    ],
)
def test_calendar_that_cannot_be_is_refused_with_a_sentence(lines: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        calendar_of(lines)
    with pytest.raises(ConfigError, match=f"instrument GOLD: calendar: .*{text}"):
        config_from_mapping(
            {"instruments": [{"symbol": "GOLD", "rules": "full", "calendar": lines}]}
        )


def test_configuration_takes_a_calendar_for_full_instruments_only() -> None:
    row = {"symbol": "GOLD", "rules": "full", "calendar": list(DAY), "volatility_call_s": 5}
    config = config_from_mapping({"instruments": [row]})
    assert config.instruments[0].calendar == DAY
    for wrong, text in (
        ({"rules": "plain"}, 'need rules = "full"'),
        ({"calendar": "09:00 continuous"}, "expected a list of texts"),
        ({"calendar": [900]}, "expected a list of texts"),
        ({"volatility_call_s": -1}, "volatility_call_s must be 0"),
        ({"volatility_call_s": 86_401}, "volatility_call_s must be 0"),
    ):
        with pytest.raises(ConfigError, match=text):
            config_from_mapping({"instruments": [row | wrong]})
    with pytest.raises(ConfigError, match='need rules = "full"'):
        Config(template=Instrument("TEMPLATE", calendar=DAY)).check()


@pytest.mark.parametrize(
    ("now", "before", "after"),
    [
        ("2026-03-02T00:00:00", "2026-03-01T17:05:30", "2026-03-02T08:00:00"),
        ("2026-03-02T07:59:59", "2026-03-01T17:05:30", "2026-03-02T08:00:00"),
        ("2026-03-02T08:00:00", "2026-03-02T08:00:00", "2026-03-02T08:50:00"),
        ("2026-03-02T12:00:00", "2026-03-02T09:00:00", "2026-03-02T17:00:00"),
        ("2026-02-28T23:59:59", "2026-02-28T17:05:30", "2026-03-01T08:00:00"),
    ],
)
def test_turns_around_a_moment(now: str, before: str, after: str) -> None:
    turns = calendar_of(DAY)
    assert turn_before(turns, moment(now)).at == moment(before)
    assert turn_after(turns, moment(now)).at == moment(after)


@given(
    st.lists(st.integers(0, 86_399), min_size=2, max_size=8, unique=True).map(sorted),
    st.integers(3 * DAY_NS, 9 * DAY_NS),
)
def test_turns_around_any_moment_are_those_of_a_long_list(seconds: list[int], now: int) -> None:
    phases = (Phase.PRE_OPEN, Phase.CONTINUOUS)
    turns = tuple(Turn(s * SECOND, phases[i % 2]) for i, s in enumerate(seconds))
    every = [Turn(turn.at + day * DAY_NS, turn.phase) for day in range(12) for turn in turns]
    assert turn_before(turns, now) == max(turn for turn in every if turn.at <= now)
    assert turn_after(turns, now) == min(turn for turn in every if turn.at > now)
