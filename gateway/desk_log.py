"""The order desk, second floor: events on their way out, and what must be read from the event log.
Sans-I/O.

Hot in `_deliver`, cold in the rest. Two things need the log, both in turns of at most
EVENTS_PER_TURN, and the reading itself is done aside, so that nobody else waits for them:

    a session that resumes    logon answer, then the reports it missed, then live ones. The latter
                              wait in `pending`; over PENDING_BYTES_MAX they are thrown away, and
                              read from the log as well. A client that reads slowly is waited for.
    a shard that lapped us    its events are read from the log, for all sessions, until the cursor
                              is within half a ring of the shard again. Meanwhile no lines are
                              taken (`gated`). What the log cannot give is counted as lost.

The log is behind the shard, by a few milliseconds or by what the disk needs. It is waited for, and
told so (log_wait); for LOG_WAIT_S without progress, then a session is told to come back, and a lap
is given up. A turn follows at once while there is something to do, else after LOG_POLL_S.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from engine.records import EventKind, Reason, RejectCode, unpack_name
from gateway.codec import COPIES, IDLE, LAPPED, MORE, SPECIAL, UNKNOWN
from gateway.codec_fields import Request, shown
from gateway.desk_base import TICK_S, Later
from gateway.desk_logon import LogonDesk
from gateway.errors import Refusal
from gateway.parts import EventLogLike, GatewayParts
from gateway.resume import (
    Behind,
    LogGap,
    LogTrouble,
    Missed,
    gap_refusal,
    missed_by,
    missed_later,
    resume_refusal,
)
from gateway.session import Session, Stage

EVENTS_PER_TURN = 2048  # 0.5 to 1 ms
PENDING_BYTES_MAX = 1 << 18
PIECES_MAX = 64  # of logs in memory, each some thousand events at most
LOG_WAIT_S = 5.0
LOG_POLL_S = 0.005
Aside = Callable[[Callable[[], Any], Callable[[Any], None]], object]
NUMBERS = re.compile(rb'"seq":([0-9]+),"shard":([0-9]+)')  # how a report begins (codec_report.py)
LAP = 0  # who waits for a log: a logon number, or the gateway itself


def run_now(work: Callable[[], Any], then: Callable[[Any], None]) -> None:
    """Do it at once, and hand on what it gave: a result, or an exception."""
    try:
        result = work()
    except Exception as error:
        result = error
    then(result)


@dataclass(eq=False)
class Lap:
    """A shard whose ring has come round on us."""

    moved: int  # tick of the last progress
    reading: bool = False
    found: Any = None  # EVENTs, the oldest out_seq that is left, or an exception

    def arrived(self, found: Any) -> None:
        """The log has been read."""
        self.reading, self.found = False, found


def next_events(log: EventLogLike, after: int) -> Any:
    """The next EVENTs of a shard, or the oldest out_seq that is left."""
    try:
        return log.read(after, EVENTS_PER_TURN)
    except LookupError:
        return log.oldest()


class LogDesk(LogonDesk):
    """Who gets which report, and from where."""

    def __init__(self, parts: GatewayParts, call_later: Later, aside: Aside = run_now) -> None:
        super().__init__(parts, call_later)
        self.aside = aside
        self.behind: deque[Session] = deque()
        self.waits: set[tuple[int, int]] = set()  # (shard, who)
        self.laps: dict[int, Lap] = {}  # by shard
        self.pieces = 0  # of logs in memory, as of this turn
        self.alarmed = False  # the next turn is ordered

    def _log(self, shard: int) -> EventLogLike:
        return cast(Sequence[EventLogLike], self.parts.logs)[shard]

    def _log_end(self, shard: int) -> int:
        return cast(Callable[[int], int], self.parts.log_end)(shard)

    # ------------------------------------------------------------------------------- events out
    def _deliver(self, row: int, data: memoryview) -> None:
        session = self.sessions.by_row[row]
        if session is None:
            return
        if session.stage is Stage.LIVE and session.behind is None:
            session.client.send(data)
            return
        session.pending.append(bytes(data))
        session.pending_bytes += len(data)
        if session.behind is not None and session.pending_bytes > PENDING_BYTES_MAX:
            self._pending_drop(session, session.behind)
        elif session.pending_bytes > self.limits.output_bytes_max:
            self.overflow(session.client)

    def _event(self, status: int) -> None:
        # What the encoder stopped for.
        if status == MORE:
            return
        shard, event = self.rings.special()
        if status == LAPPED:
            self.directory.load(self.parts.tops)
            self._names_load(shard)
            if self.rings.lapped(shard):  # there is a log
                self.laps[shard] = Lap(self.ticks)
        elif status == UNKNOWN:
            self._instrument_learn(event)
        elif status == SPECIAL:
            kind = int(event["kind"])
            if kind == EventKind.LISTED:
                name = bytes(event["text"][:8]).rstrip(b"\0").decode("ascii")
                self.directory.add(
                    int(event["symbol_id"]),
                    name,
                    int(event["amount"]),
                    int(event["amount2"]),
                    int(event["px2"]),
                    int(event["order_type"]),
                )
            elif kind == EventKind.ACCOUNT and event["reason"] == Reason.SESSION_OPENED:
                self._opened(shard, event)
            elif kind == EventKind.ACCOUNT and event["reason"] == Reason.SESSION_CLOSED:
                self._closed(shard, event)
            elif kind == EventKind.ACCOUNT:
                self._name_learn(shard, event)
            elif kind == EventKind.REJECTED:
                self._open_refused(shard, event)

    def _name_learn(self, shard: int, event: Any) -> None:
        # An ACCOUNT event about a session names it.
        packed = int.from_bytes(bytes(event["text"][:8]), "little")
        if event["session"] > 0 and packed:
            self.sessions.name_note(shard, int(event["session"]), unpack_name(packed))

    def _instrument_learn(self, event: Any) -> None:
        symbol_id = int(event["symbol_id"])
        if not self.directory.load(self.parts.tops) or not self.directory.has(symbol_id):
            self.directory.placeholder(symbol_id)

    def _names_load(self, shard: int) -> None:
        if self.parts.session_names is not None:
            for slot, name in self.parts.session_names(shard):
                self.sessions.name_note(shard, slot, name)

    # ------------------------------------------------------------------------ sessions that resume
    def _completed(self, session: Session) -> None:
        # Shards have answered: the session goes live, or gets what it missed first, or is refused.
        fresh = sorted(session.slots.keys() - session.decided)
        session.decided.update(fresh)
        refusal = resume_refusal(session, fresh, self.shards)
        missed = missed_by(session, fresh)
        if refusal is None and missed and self.parts.logs is None:
            due = next(iter(missed.values()))
            refusal = gap_refusal(LogGap(due.shard, due.after + 1))
        if refusal is not None:
            self._resume_refused(session, refusal)
        elif missed or session.behind is not None:
            if session.behind is None:
                session.behind = Behind()
                self.behind.append(session)
            session.behind.missed.update(missed)
            session.behind.told, session.behind.moved = False, self.ticks
        else:
            super()._completed(session)

    def _resume_refused(self, session: Session, refusal: Refusal) -> None:
        self.counts["resumes_refused"] += 1
        request = Request()
        if session.mark is not None:
            request.keys["request"] = str(session.mark)
        self._refuse(session.client, request, refusal)
        self.drop(session.client, "resume refused")

    def _pending_drop(self, session: Session, behind: Behind) -> None:
        # Too much has come meanwhile: all of it will be read from the log. Shards mix in what is
        # pending, but each one's numbers rise.
        newest: dict[int, int] = {}
        for data in session.pending:
            newest |= {int(shard): int(seq) for seq, shard in NUMBERS.findall(data)}
        session.pending, session.pending_bytes = [], 0
        for shard, last in newest.items():
            missed = behind.missed.setdefault(shard, missed_later(session, shard))
            missed.extend(last, self.rings.cursor(shard))

    def _catch_up(self, session: Session, behind: Behind, budget: int) -> int:
        # One session's part of a turn; returns how much was done, 0: it has to wait.
        client, done = session.client, 0
        if not behind.told:
            if not all([self._look(session, missed) for missed in behind.missed.values()]):
                return 0
            self.sessions.go_live(session)
            behind.told = True
            self._greet(session)
            done += 1
        while done < budget and not client.stalled and not client.closed:
            missed = next((m for m in behind.missed.values() if not m.done), None)
            if missed is None:
                self._caught_up(session)
                return done + 1
            if not self._look(session, missed):
                return done
            done += self._piece_send(session, missed, budget - done)
        return done

    def _look(self, session: Session, missed: Missed) -> bool:
        # Whether there is something to send, or nothing more to come. Else the log is read, or
        # waited for.
        if missed.look(self._log_end(missed.shard)) and self.pieces < PIECES_MAX:
            self.pieces += 1
            self.aside(missed.job(self._log(missed.shard)), missed.arrived)
        self._wait(missed.shard, session.logon, missed.waiting)
        return missed.done or len(missed.rest) > 0

    def _piece_send(self, session: Session, missed: Missed, most: int) -> int:
        events = missed.head(min(most, COPIES))
        if not len(events):
            return 0  # the log had nothing more
        for event in events[events["kind"] == EventKind.ACCOUNT]:
            self._name_learn(missed.shard, event)
        done, data = self.rings.reports_of(missed.shard, events)
        if done:
            session.client.send(data)
            missed.sent(done)
        else:
            self._instrument_learn(self.rings.special()[1])
        return done

    def _caught_up(self, session: Session) -> None:
        self.counts["resumes"] += 1
        session.behind = None
        self._waits_end(session.logon)
        for data in session.pending:
            session.client.send(data)
        session.pending, session.pending_bytes = [], 0

    def _session_turn(self, session: Session, budget: int) -> int:
        behind = session.behind
        if session.stage is Stage.CLOSED or behind is None:
            return 0
        if session.client.stalled:
            behind.moved = self.ticks
            for missed in behind.missed.values():
                if not missed.reading:
                    missed.release()
            return 0
        try:
            done = self._catch_up(session, behind, budget)
        except LogGap as gap:
            self._resume_refused(session, gap_refusal(gap))
            return 1
        except LogTrouble as trouble:
            text = f"the event log cannot be read ({shown(trouble)}); log on again"
            self._resume_refused(session, Refusal(RejectCode.UNAVAILABLE, text))
            return 1
        if done:
            behind.moved = self.ticks
        elif self.ticks - behind.moved > LOG_WAIT_S / TICK_S:
            text = "what you missed is not in the event log yet; log on again in a moment"
            self._resume_refused(session, Refusal(RejectCode.BUSY, text))
        return done

    # --------------------------------------------------------------------------- shards that lapped
    def _lap_turn(self, shard: int, lap: Lap) -> bool:
        # One lapped shard's part of a turn; whether anything was done.
        codec = self.rings
        cursor, (found, lap.found) = codec.cursor(shard), (lap.found, None)
        if isinstance(found, np.ndarray) and not len(found):
            found = None
        if isinstance(found, np.ndarray) and found["out_seq"][0] == cursor + 1:
            self._lap_encode(shard, found)
        elif found is not None:  # what is due is gone, or cannot be read
            committed = codec.events.committed(shard)
            left = found - 1 if isinstance(found, int) and found > cursor + 1 else committed
            codec.skip_to(shard, min(left, committed))
        elif codec.distance(shard) <= codec.events.capacity // 2:
            self._lap_end(shard)
        elif self.ticks - lap.moved > LOG_WAIT_S / TICK_S:
            codec.skip_to(shard, codec.events.committed(shard))
        else:
            self._lap_read(shard, lap, cursor)
            return lap.found is not None
        lap.moved = self.ticks
        return True

    def _lap_read(self, shard: int, lap: Lap, cursor: int) -> None:
        there = self._log_end(shard) > cursor
        self._wait(shard, LAP, not there)
        if there and not lap.reading:
            lap.reading, log = True, self._log(shard)
            self.aside(lambda: next_events(log, cursor), lap.arrived)

    def _lap_encode(self, shard: int, events: Any) -> None:
        codec = self.rings
        first = codec.cursor(shard)
        while codec.cursor(shard) - first < len(events):
            status = codec.encode_logged(shard, events[codec.cursor(shard) - first :])
            for row, data in codec.writes():
                self._deliver(row, data)
            if status != IDLE:
                self._event(status)

    def _lap_end(self, shard: int) -> None:
        self.rings.lap_end(shard)
        self.laps.pop(shard, None)
        self._wait(shard, LAP, False)

    # ------------------------------------------------------------------------------- turns
    def log_turn(self) -> bool:
        """Read on from the logs, for whoever needs it; whether anything was done."""
        if self.codec is None or not (self.behind or self.laps):
            return False
        worked, budget = False, EVENTS_PER_TURN
        held = (s.behind.missed.values() for s in self.behind if s.behind is not None)
        self.pieces = sum(missed.holds for shards in held for missed in shards)
        for shard, lap in list(self.laps.items()):
            worked = self._lap_turn(shard, lap) or worked
        for _ in range(len(self.behind)):
            if budget <= 0:
                break  # who was not served is first at the next turn
            session = self.behind.popleft()
            done = self._session_turn(session, budget)
            budget -= done
            worked = worked or done > 0
            if session.stage is Stage.CLOSED:
                self._waits_end(session.logon)
            elif session.behind is not None:
                self.behind.append(session)
        self._alarm(worked)
        return worked

    def _alarm(self, soon: bool) -> None:
        if not self.alarmed and (self.behind or self.laps):
            self.alarmed = True
            self.call_later(0 if soon else LOG_POLL_S, self._alarm_rings)

    def _alarm_rings(self) -> None:
        self.alarmed = False
        self.log_turn()

    def _wait(self, shard: int, who: int, on: bool) -> None:
        if on == ((shard, who) in self.waits):
            return
        (self.waits.add if on else self.waits.discard)((shard, who))
        if self.parts.log_wait is not None:
            self.parts.log_wait(shard, 1 if on else -1)

    def _waits_end(self, who: int | None = None) -> None:
        for shard, waiter in list(self.waits):
            if who is None or waiter == who:
                self._wait(shard, waiter, False)
