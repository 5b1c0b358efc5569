"""When phases change by themselves: calendars, and calls that nobody has scheduled an end for
(RULES §6, §13 Time; docs/decisions/0011).

Cold; one in each shard's process. Between two calls of the loop it reads the shard's state and
writes the TURN_* words (engine/loop_words.py): the one turn that comes next. The loop takes it
before the first command with in_ts at or behind its time, as a SET_PHASE of its own in the journal
(engine/loop_time.py), and ends its batch, so that the next one is planned before any command. So no
command runs in a phase that was over, and a replay needs neither calendar nor clock.

Of an instrument is planned, the first of these that there is at the time:

    steps       on the way to the phase of now: at a start when turns were missed
    call's end  of a volatility or reopening call, or of a call whose auction price was outside its
                band: `volatility_call_s` after it began, to the phase that the calendar has then
    next turn   of its calendar

Nothing of this is state. At a start the newest time of the journal says which turns were taken: all
up to it. Of those since only the newest counts: the phase of now is taken up, auctions missed are
not held. What is closed opens through a reopening call then, which uncrosses at once.

Limits: an instrument that is halted or cancel-only is left alone, until an operator ends that. How
long a call lasts counts from the last command before it was seen, at most a call of the loop
(10 ms) late.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.book_state import IN_TS, SYMBOLS_USED, WORK_KIND, ShardState
from engine.calendars import Turn, calendar_of, turn_after, turn_before
from engine.codes import Phase, RuleSet
from engine.config import Instrument
from engine.loop_words import (
    TURN_AT,
    TURN_INDEX,
    TURN_NAME,
    TURN_NEVER,
    TURN_PHASE,
    TURN_SYMBOLS,
    TURN_TAKEN,
    TURN_UNTIL,
)
from engine.matching import WORK_NONE
from engine.records import pack_name

HELD = (Phase.HALTED, Phase.CANCEL_ONLY)  # by an operator
CALLS = (Phase.PRE_OPEN, Phase.OPENING_CALL, Phase.VOLATILITY_CALL, Phase.CLOSING_CALL)
NOW = 1  # a time that has come already


@dataclass(eq=False)
class Watched:
    """One instrument whose phases change by themselves."""

    name: int  # packed
    turns: tuple[Turn, ...]
    call_ns: int  # how long a call lasts that nobody has scheduled; 0: until an operator ends it
    index: int = 0  # in the state; 0: not listed yet
    phase: Phase = Phase.NONE  # as seen last
    steps: list[Phase] = field(default_factory=list)
    call_end: int = 0  # 0: no call that ends by itself
    next: Turn | None = None  # of its calendar

    def in_force(self, now: int) -> Phase:
        """The phase that its calendar has."""
        return turn_before(self.turns, now).phase if self.turns else Phase.CONTINUOUS

    def planned(self) -> Turn | None:
        """What happens next."""
        if self.index == 0 or self.phase in HELD:
            return None
        if self.steps:
            return Turn(NOW, self.steps[0])
        if self.call_end and (self.next is None or self.call_end < self.next.at):
            return Turn(self.call_end, self.in_force(self.call_end))
        if self.next is not None and self.phase == Phase.CLOSED:
            return Turn(self.next.at, way(self.phase, self.next.phase)[0])
        return self.next

    def taken(self, turn: Turn) -> None:
        """The planned turn was taken, whatever came of it."""
        if self.steps:
            self.steps = self.steps[1:]
        elif self.next is not None and turn.at == self.next.at:
            if turn.phase != self.next.phase:
                self.steps = [self.next.phase]
            self.next = turn_after(self.turns, turn.at)
        self.call_end = 0

    def until(self, at: int) -> int:
        """When its calendar goes on behind a turn at `at`; 0: it has none."""
        return turn_after(self.turns, at).at if self.turns else 0


def way(old: Phase, new: Phase) -> list[Phase]:
    """What an instrument passes from one phase to another: from closed to continuous a call."""
    if (old, new) == (Phase.CLOSED, Phase.CONTINUOUS):
        return [Phase.VOLATILITY_CALL, new]
    return [new]


def watched_of(instruments: Iterable[Instrument]) -> list[Watched]:
    """The instruments whose phases change by themselves."""
    found = []
    for instrument in instruments:
        turns, call_ns = calendar_of(instrument.calendar), instrument.volatility_call_s * 10**9
        if instrument.rule_set == RuleSet.FULL and (turns or call_ns):
            found.append(Watched(pack_name(instrument.symbol), turns, call_ns))
    return found


class PhaseClock:
    """Plans the turns of one shard."""

    def __init__(
        self, state: ShardState, loop: np.ndarray, instruments: Sequence[Instrument], now: int
    ) -> None:
        """`state` as it was recovered; `now`: wall time of the start."""
        self.state, self.loop, self.started = state, loop, now
        self.watched = watched_of(instruments)
        self.owner: Watched | None = None  # of the turn that is planned
        self.turn = Turn(TURN_NEVER, Phase.NONE)
        self.places = np.zeros(0, np.int64)  # of the instruments that are listed
        self.seen = np.zeros(0, np.int64)  # their phases
        if self.watched:
            self._find(self._in_ts())
            self._plan()

    def _in_ts(self) -> int:
        return int(self.state.hdr[IN_TS])

    def step(self) -> None:
        """Look what happened during the last call of the loop, and plan anew if something did."""
        if not self.watched or self.state.hdr[WORK_KIND] != WORK_NONE:
            return  # no turn is taken while a long work is open
        phases = self.state.symbols["phase"][self.places]
        listed = self.loop[TURN_SYMBOLS] != self.state.hdr[SYMBOLS_USED]
        taken = self.loop[TURN_AT] == TURN_TAKEN
        if not (listed or taken) and np.array_equal(phases, self.seen):
            return
        self._observe()
        if taken:
            self._settle()
        if listed:
            self._find(0)
        self._plan()

    # -------------------------------------------------------------------------------------- listing
    def _find(self, since: int) -> None:
        # Instruments that are listed by now; their turns up to `since` were taken.
        used = int(self.state.hdr[SYMBOLS_USED])
        self.loop[TURN_SYMBOLS] = used
        places = {int(name): place for place, name in enumerate(self.state.names[1 : used + 1], 1)}
        for one in self.watched:
            if one.index == 0 and one.name in places:
                one.index = places[one.name]
                self._begin(one, since)
        self.places = np.array([one.index for one in self.watched if one.index], np.int64)
        self.seen = self.state.symbols["phase"][self.places]

    def _begin(self, one: Watched, since: int) -> None:
        one.phase = self._phase(one)
        if one.phase == Phase.VOLATILITY_CALL:
            self._call_begins(one)
        if one.turns:
            now = max(self.started, self._in_ts())
            one.next = turn_after(one.turns, now)
            known = self.state.calls[one.index]["has_calendar"]
            if not known or turn_before(one.turns, now).at > since:
                self._catch_up(one, now)

    def _catch_up(self, one: Watched, now: int) -> None:
        # The way to the phase of now.
        target, calls = one.in_force(now), self.state.calls[one.index]
        if one.phase in HELD:
            return
        if target == Phase.CONTINUOUS and not calls["has_calendar"]:
            one.steps = [Phase.PRE_OPEN, target]  # so that the engine knows that it has one
        elif target != one.phase:
            one.steps = way(one.phase, target)

    # -------------------------------------------------------------------------------- what happened
    def _phase(self, one: Watched) -> Phase:
        return Phase(int(self.state.symbols[one.index]["phase"]))

    def _call_begins(self, one: Watched) -> None:
        one.call_end = self._in_ts() + one.call_ns if one.call_ns else 0

    def _observe(self) -> None:
        # Phases that are others now, by whoever's command.
        for one in self.watched:
            before = one.phase
            if one.index == 0 or (phase := self._phase(one)) == before:
                continue
            one.phase, one.call_end = phase, 0
            if phase == Phase.VOLATILITY_CALL:
                self._call_begins(one)
            if before in HELD and one.next is not None and one.next.at <= self._in_ts():
                one.next = turn_after(one.turns, self._in_ts())
                if before == Phase.CANCEL_ONLY:  # it is where it was, its calendar is not
                    self._catch_up(one, self._in_ts())
        self.seen = self.state.symbols["phase"][self.places]

    def _settle(self) -> None:
        # The turn was taken: what came of it?
        one, turn = self.owner, self.turn
        assert one is not None
        if one.phase in HELD:
            return  # it was not taken: an operator came before it
        one.taken(turn)
        if one.phase != turn.phase and one.phase in CALLS:
            # The auction price was outside the band: this call is longer than it was meant to be.
            one.steps = []
            self._call_begins(one)

    def _plan(self) -> None:
        # The earliest turn of all goes to the loop.
        self.owner, self.turn = None, Turn(TURN_NEVER, Phase.NONE)
        for one in self.watched:
            turn = one.planned()
            if turn is not None and turn.at < self.turn.at:
                self.owner, self.turn = one, turn
        values = {TURN_PHASE: int(self.turn.phase)}
        if self.owner is not None:
            values[TURN_INDEX], values[TURN_NAME] = self.owner.index, self.owner.name
            values[TURN_UNTIL] = self.owner.until(max(self.turn.at, self.started, self._in_ts()))
        for word, value in values.items():
            self.loop[word] = value
        self.loop[TURN_AT] = self.turn.at
