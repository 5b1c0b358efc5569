"""The order desk, first floor: logon, takeover, and what the shards say to it. Sans-I/O.

Cold. A wrong token is answered after auth_failure_delay_s, nothing more is read until then. Without
shards a logon is taken and told so; the session is opened, and the logon answered again, once there
is a shard. gateway/session.py has the life of a session.
"""

from __future__ import annotations

import time
from typing import Any

from engine.records import RejectCode
from gateway.codec_fields import Request
from gateway.codec_slow import logon_options, request_mark
from gateway.connection import Client
from gateway.desk_base import OFF_DUTY, DeskBase
from gateway.errors import Refusal, reason_of
from gateway.session import Session
from gateway.state import R_LAST_ID


class LogonDesk(DeskBase):
    """Who is logged on."""

    def _logon(self, client: Client, request: Request) -> None:
        mark = request_mark(request)
        options = logon_options(request, self.limits.heartbeat_s)
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
        try:
            self.sessions.open(session, time.monotonic_ns())
        except Refusal as refusal:
            self._refuse(client, Request(), refusal)
            self.drop(client, "logon refused")

    def _logon_head(self, session: Session) -> dict[str, Any]:
        mark = {} if session.mark is None else {"request": session.mark}
        return {
            "type": "logon", "account": session.account.name, "session": session.name,
            "ids": "text" if session.text_ids else "integer",
            "shards": self.shards if self.codec else 0,
            "last_id": self.view[session.base + R_LAST_ID] if session.row else 0,
            "seq": {str(shard): seq for shard, seq in sorted(session.seq.items())},
        } | mark  # fmt: skip

    def _welcome(self, session: Session) -> None:
        # All shards answered: the logon is complete.
        client = session.client
        head = self._logon_head(session)
        down = [shard for shard in range(self.shards) if shard not in session.slots]
        if down:
            head["text"] = f"not running: shard {', '.join(map(str, down))}"
        self.say(client, head)
        for data in session.pending:
            client.send(data)
        session.pending = []

    def _opened(self, shard: int, event: Any) -> None:
        complete, older = self.sessions.answered(shard, event)
        for session in older:
            self.counts["takeovers"] += 1
            self.drop(
                session.client, "another logon has taken this session over", tell_shards=False
            )
        if complete is not None:
            self._welcome(complete)
        self.sessions.closes_flush(time.monotonic_ns())

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
