"""The order desk, first floor: logon, takeover, and what the shards say to it. Sans-I/O.

Cold. A wrong token is answered after auth_failure_delay_s, nothing more is read until then. Without
shards a logon is taken and told so; the session is opened, and the logon answered again, once there
is a shard; also when one more has come up. gateway/session.py has the life of a session.
"""

from __future__ import annotations

import time
from typing import Any

from engine.records import RejectCode
from gateway.codec_fields import Request
from gateway.codec_logon import logon_options
from gateway.codec_slow import request_mark
from gateway.connection import Client
from gateway.desk_base import OFF_DUTY, DeskBase
from gateway.errors import Refusal, reason_of
from gateway.session import Session, Stage
from gateway.state import R_LAST_ID, S_UP


class LogonDesk(DeskBase):
    """Who is logged on."""

    def shards_poll(self) -> None:
        """Ask which shards are up."""
        if self.codec is None:
            return
        up = self.parts.shard_up
        for shard in range(self.shards):
            place, now_up = self.state.shard_base(shard) + S_UP, up is None or bool(up(shard))
            if now_up and not self.view[place]:
                self.view[place] = 1
                self.directory.load(self.parts.tops)
                self.sessions.shard_found(shard, time.monotonic_ns())
            elif not now_up and self.view[place]:
                self.view[place] = 0
                for session in self.sessions.shard_lost(shard):
                    self._completed(session)
        if self.sessions.unsent:
            self.sessions.opens_send(time.monotonic_ns())
        if self.any_shard_usable():
            for session in [s for s in self.sessions.by_logon.values() if s.stage is Stage.WAITING]:
                self._open(session.client, session)

    def _logon(self, client: Client, request: Request) -> None:
        mark = request_mark(request)
        options = logon_options(request, self.limits)
        account = self.sessions.authenticate(options["account"], options["token"])
        if account is None:
            self.counts["logon_failures"] += 1
            client.judging = True
            self.call_later(
                self.limits.auth_failure_delay_s, lambda: self._turn_away(client, request)
            )
            return
        session = self.sessions.create(account, options, client)
        session.mark = mark
        client.session = session
        self._open(client, session)

    def _turn_away(self, client: Client, request: Request) -> None:
        if not client.closed:
            self._refuse(
                client,
                request,
                Refusal(RejectCode.NOT_AUTHORISED, "unknown account or wrong token"),
            )
            self.drop(client, "logon refused")

    def _open(self, client: Client, session: Session) -> None:
        if not self.any_shard_usable():
            self.say(client, {**self._logon_head(session), "text": OFF_DUTY})
            return
        usable = filter(self.shard_usable, range(self.shards))
        full = next((shard for shard in usable if self.rings.room(shard) < 1), None)
        if full is None:
            self.sessions.open(session, time.monotonic_ns())
        else:
            text = f"{self.full_reason(full)}; log on again in a moment"
            self._refuse(client, Request(), Refusal(RejectCode.BUSY, text), full)
            self.drop(client, "logon refused")

    def _logon_head(self, session: Session) -> dict[str, Any]:
        mark = {} if session.mark is None else {"request": session.mark}
        return {
            "type": "logon", "account": session.account.name, "session": session.name,
            "ids": "text" if session.text_ids else "integer",
            "shards": self.shards if self.codec else 0,
            "incarnation": session.incarnation,
            "last_id": self.view[session.base + R_LAST_ID] if session.row else 0,
            "seq": {str(shard): seq for shard, seq in sorted(session.seq.items())},
        } | mark  # fmt: skip

    def _completed(self, session: Session) -> None:
        # All shards that are up have answered, or one more has.
        self.sessions.go_live(session)
        self._greet(session)
        for data in session.pending:
            session.client.send(data)
        session.pending, session.pending_bytes = [], 0

    def _greet(self, session: Session) -> None:
        head = self._logon_head(session)
        down = [shard for shard in range(self.shards) if shard not in session.slots]
        if down:
            head["text"] = f"not running: shard {', '.join(map(str, down))}"
        self.say(session.client, head)

    def _opened(self, shard: int, event: Any) -> None:
        ours, older = self.sessions.answered(shard, event)
        for session in older:
            self.counts["takeovers"] += 1
            self.drop(
                session.client, "another logon has taken this session over", tell_shards=False
            )
        if ours is not None and not ours.unanswered:
            self._completed(ours)
        self.sessions.closes_flush(time.monotonic_ns())

    def _closed(self, shard: int, event: Any) -> None:
        # Not by us: a session that we ended is not in the table any more.
        session = self.sessions.by_logon.get(int(event["amount"]))
        if session is not None:
            self.drop(session.client, f"shard {shard} has closed the session: log on again")

    def _open_refused(self, shard: int, event: Any) -> None:
        session = self.sessions.refused(shard, event)
        if session is not None:
            code = int(event["code"])
            self._refuse(
                session.client,
                Request(),
                Refusal(code, f"shard {shard} refused the session: {reason_of(code)}"),
            )
            self.drop(session.client, "logon refused")
