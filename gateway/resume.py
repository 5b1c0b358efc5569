"""What a session has missed, and how far the event log has been read for it. Sans-I/O.

Cold until a client resumes. Reports of an account are numbered per shard without a gap, so a client
that states the last number it saw has missed exactly the numbers behind it, up to the event that
opened its session; those are read from the shard's event log. What happens meanwhile waits as live
reports; if that grows too much it is dropped and read from the log as well (`extend`).

    after     the client has, or has been sent, everything up to this account_seq
    last      and needs everything up to this one
    reach     for that the log must have come to this out_seq
    opened    but not the event that opened its session: the logon answer told that number

Reading the log may take a while (a disk, a segment to be looked through): it is a job of its own,
done aside, a piece at a time (gateway/desk_log.py). Numbers that do not follow, or a log that says
so, mean that what is due cannot be had: LogGap, never a silent hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.records import EVENT, RejectCode
from gateway.errors import Refusal
from gateway.parts import EventLogLike, Events

if TYPE_CHECKING:
    from gateway.session import Session

NOTHING: Events = np.zeros(0, EVENT)


class LogGap(Exception):
    """The log has not, or no longer, the report that is due."""

    def __init__(self, shard: int, due: int) -> None:
        super().__init__(shard, due)
        self.shard, self.due = shard, due


class LogTrouble(Exception):
    """The log cannot be read."""


@dataclass
class Missed:
    """One shard's part of what one session has missed."""

    account: int
    shard: int
    opened: int  # account_seq of the event that opened the session
    after: int
    last: int
    reach: int
    waiting: bool = False  # for the log to come to `reach`
    reading: bool = False  # a piece is on its way
    rest: Events = field(default_factory=lambda: NOTHING)  # read, not sent yet
    failure: Exception | None = None
    _pieces: Iterator[Events] | None = None
    _asked: int = 0  # `last` when _pieces was made
    _gone: int = 0  # times in a row that the log said so

    @property
    def done(self) -> bool:
        """Whether everything has been sent."""
        return self.after >= self.last

    @property
    def holds(self) -> bool:
        """Whether it takes memory for a piece of the log."""
        return self.reading or len(self.rest) > 0

    def release(self) -> None:
        """Forget what is read and not sent: it will be read again."""
        self.rest, self._pieces = NOTHING, None

    def extend(self, last: int, reach: int) -> None:
        """Everything up to `last` is needed too."""
        self.last, self.reach = max(self.last, last), max(self.reach, reach)

    def look(self, end: int) -> bool:
        """Whether `rest` is to be read on, `end` being how far the log has come. Raises what the
        last piece brought instead of events.
        """
        if self.failure is not None:
            raise self.failure
        idle = not (self.done or len(self.rest) or self.reading)
        self.waiting = idle and self._pieces is None and end < self.reach
        return idle and not self.waiting

    def job(self, log: EventLogLike) -> Callable[[], Events | None]:
        """What reads the next piece; it gives None at the end of what was asked for."""
        self.reading = True
        if self._pieces is None:
            self._asked = self.last
        return lambda: self._next(log)

    def _next(self, log: EventLogLike) -> Events | None:
        if self._pieces is None:
            self._pieces = iter(log.account(self.account, self.after, self._asked))
        return next(self._pieces, None)

    def arrived(self, piece: Events | Exception | None) -> None:
        """The job is done."""
        self.reading, due = False, self.after + 1
        if isinstance(piece, LookupError):
            # Gone, or the log's writer has begun anew further back: it is asked once more when the
            # log has come so far again.
            self._pieces, self._gone = None, self._gone + 1
            self.failure = LogGap(self.shard, due) if self._gone > 1 else None
        elif isinstance(piece, Exception):
            self.failure = LogTrouble(getattr(piece, "strerror", None) or str(piece))
        elif piece is None:
            self._pieces = None
            if self.after < self._asked:
                self.failure = LogGap(self.shard, due)
        elif len(piece):
            numbers = piece["account_seq"]
            if int(numbers[0]) != due or int(numbers[-1]) - due != len(piece) - 1:
                self.failure = LogGap(self.shard, due)
            else:
                self.rest, self._gone = piece, 0

    def head(self, count: int) -> Events:
        """At most `count` of `rest` to be sent; passes over the event of the logon."""
        if len(self.rest) and self.after == self.opened - 1:
            self.sent(1)
        before = self.opened - 1 - self.after
        return self.rest[: min(count, before) if before > 0 else count]

    def sent(self, count: int) -> None:
        """The first `count` of `rest` are done with."""
        if count:
            self.after = int(self.rest["account_seq"][count - 1])
            self.rest = self.rest[count:]


@dataclass
class Behind:
    """A session that has to be given reports from the log before anything live."""

    missed: dict[int, Missed] = field(default_factory=dict)  # by shard
    told: bool = False  # the logon answer is out
    moved: int = 0  # tick of the last progress


def missed_by(session: Session, shards: Iterable[int]) -> dict[int, Missed]:
    """What the session states it lacks of these shards, which have answered it."""
    stated, found = session.resume or {}, {}
    for shard in shards:
        last, opened = stated.get(shard), session.seq[shard]
        if last is not None and last < opened - 1:
            found[shard] = Missed(
                session.account.account, shard, opened, last, opened - 1, session.opened[shard]
            )
    return found


def missed_later(session: Session, shard: int) -> Missed:
    """Nothing yet; `extend` says what. For reports that came since the session was opened."""
    opened = session.seq[shard]
    return Missed(session.account.account, shard, opened, opened, opened, 0)


def resume_refusal(session: Session, answered: Iterable[int], shards: int) -> Refusal | None:
    """Why the session cannot be resumed, as far as the shards' answers tell. Numbers of another
    incarnation mean nothing, so that is looked at first.
    """
    stated = session.resume or {}
    if session.stated is not None and session.stated != session.incarnation:
        return Refusal(
            RejectCode.WRONG_INCARNATION,
            f"incarnation {session.stated} is over, this is {session.incarnation}: what was"
            " acknowledged last may be lost; log on without resume and ask for your open orders",
        )
    strange = [shard for shard in stated if shard >= shards]
    if strange:
        return Refusal(
            RejectCode.BAD_FIELD, f"resume names shard {strange[0]}, the last one is {shards - 1}"
        )
    for shard in answered:
        last, opened = stated.get(shard, 0), session.seq[shard]
        if last >= opened:
            return Refusal(
                RejectCode.RESUME_AHEAD,
                f"shard {shard}: you state report {last}, but the last one before this logon was"
                f" {opened - 1}; log on without resume and ask for your open orders",
            )
    return None


def gap_refusal(gap: LogGap) -> Refusal:
    """The sentence for reports that are not kept any more."""
    return Refusal(
        RejectCode.RESUME_TOO_OLD,
        f"shard {gap.shard}: report {gap.due} is due to you, but reports so old are not kept;"
        " log on without resume and ask for your open orders",
    )
