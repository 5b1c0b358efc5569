"""Calendars of instruments: at which times of day which phase begins (RULES §6, §9).

Cold. A calendar is a list of *turns*, each a time of day in UTC and a phase, as the configuration
says them:

    calendar = ["08:00 pre_open", "08:50 opening_call", "09:00 continuous",
                "17:00 closing_call", "17:05 closed"]

Each day is as the one before. An instrument without calendar is continuous for ever. When turns are
taken, and by whom: engine/phase_clock.py.

Invariants of a calendar that was read: times rise within the day; each phase may follow the one
before it (the first follows the last), as SET_PHASE has it: closed becomes continuous only through
a call.
"""

import bisect
import re
from collections.abc import Sequence
from typing import NamedTuple

from engine.codes import Phase

DAY_NS = 86_400 * 10**9
TURNS_MAX = 32
TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
# What a calendar may name, and what else people call it.
SCHEDULED = (
    Phase.PRE_OPEN,
    Phase.OPENING_CALL,
    Phase.CONTINUOUS,
    Phase.CLOSING_CALL,
    Phase.CLOSED,
)
OTHER_NAMES = {
    "opening_auction": Phase.OPENING_CALL,
    "closing_auction": Phase.CLOSING_CALL,
    "volatility_auction": Phase.VOLATILITY_CALL,
    "reopening_call": Phase.VOLATILITY_CALL,
    "reopening_auction": Phase.VOLATILITY_CALL,
}


class Turn(NamedTuple):
    """A phase begins."""

    at: int  # nanoseconds: in a calendar since midnight UTC, of a certain day since 1970
    phase: Phase


def phase_named(text: str) -> Phase:
    """The phase of that name, or ValueError with a sentence."""
    name = text.strip().lower()
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    if name.upper() in Phase.__members__ and name != "none":
        return Phase[name.upper()]
    known = ", ".join(phase.name.lower() for phase in Phase if phase)
    raise ValueError(f"{text!r} is no phase; there are {known}")


def turn_of(text: str) -> Turn:
    """One line of a calendar, or ValueError with a sentence."""
    time, _, name = text.strip().partition(" ")
    match = TIME_OF_DAY.fullmatch(time)
    if match is None or not name:
        raise ValueError(f'{text!r} is not a time of day (UTC) and a phase, as "09:00 continuous"')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    phase = phase_named(name)
    if phase not in SCHEDULED:
        known = ", ".join(each.name.lower() for each in SCHEDULED)
        raise ValueError(f"{text!r}: a calendar has {known}")
    return Turn((hours * 3600 + minutes * 60 + seconds) * 10**9, phase)


def calendar_of(lines: Sequence[str]) -> tuple[Turn, ...]:
    """All turns of a day, or ValueError with a sentence."""
    turns = tuple(turn_of(line) for line in lines)
    if not turns:
        return turns
    if not 2 <= len(turns) <= TURNS_MAX:
        raise ValueError(f"a calendar has 2 to {TURNS_MAX} turns: without one it is continuous")
    for before, turn, line in zip((turns[-1], *turns), turns, lines, strict=False):
        if turn is not turns[0] and turn.at <= before.at:
            raise ValueError(f"{line!r}: times rise within the day")
        if turn.phase == before.phase:
            raise ValueError(f"{line!r}: that is the phase before it already")
        if (before.phase, turn.phase) == (Phase.CLOSED, Phase.CONTINUOUS):
            raise ValueError(f"{line!r}: closed becomes continuous only through a call")
    return turns


def turn_before(turns: Sequence[Turn], now: int) -> Turn:
    """The turn that is in force at `now`, with its own time since 1970."""
    day, time = now - now % DAY_NS, now % DAY_NS
    place = bisect.bisect_right([turn.at for turn in turns], time) - 1
    turn = turns[place]  # -1: the last one of the day before
    return Turn(turn.at + day - (DAY_NS if place < 0 else 0), turn.phase)


def turn_after(turns: Sequence[Turn], now: int) -> Turn:
    """The first turn later than `now`, with its time since 1970."""
    day, time = now - now % DAY_NS, now % DAY_NS
    place = bisect.bisect_right([turn.at for turn in turns], time)
    if place == len(turns):
        return Turn(turns[0].at + day + DAY_NS, turns[0].phase)
    return Turn(turns[place].at + day, turns[place].phase)
