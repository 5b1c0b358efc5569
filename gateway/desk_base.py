"""The order desk, ground floor: what it works with, how it speaks, and how a connection ends.
Sans-I/O.

Cold. Five floors, each a class on top of the one below: DeskBase, LogonDesk (who is logged on),
LogDesk (events out, missed reports), OrderDesk (what a command must pass), Desk (bytes, time).
gateway/desk.py tells the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import orjson

from engine.records import RejectCode
from gateway.codec import Codec, ReceiveBuffer
from gateway.codec_fields import Context, Request
from gateway.connection import Client
from gateway.directory import Directory
from gateway.errors import Refusal, reason_of
from gateway.parts import GatewayParts
from gateway.queries import Queries
from gateway.session import Admission, SessionTable
from gateway.state import S_UP, GatewayState, make_state

TICK_S = 0.1
COUNTS = (
    "slow_lines", "rejects", "busy", "throttled", "output_overflows", "takeovers", "logon_failures",
    "deferrals", "resumes", "resumes_refused",
)  # fmt: skip
Later = Callable[[float, Callable[[], None]], object]
OFF_DUTY = "no shard is running; requests are refused until one is"


class DeskBase:
    """Parts, state and voice of a desk."""

    def __init__(self, parts: GatewayParts, call_later: Later) -> None:
        self.parts, self.config = parts, parts.config
        self.limits = parts.config.gateway
        self.call_later = call_later
        self.buffer = ReceiveBuffer(self.limits.line_bytes_max)
        self.clients: set[Client] = set()
        self.ticks = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.bytes_in = self.bytes_out = 0
        self.codec: Codec | None = None
        own = iter(range(1, 1 << 31))
        self.sessions = SessionTable(self.config, parts.next_logon or (lambda: next(own)))
        self._context(1)

    def _context(self, shards: int) -> None:
        self.shards = shards
        self.state: GatewayState = make_state(
            self.config, shards, self.parts.producer, self.parts.reader
        )
        self.view = self.state.view
        self.directory = Directory(self.state, self.config)
        self.contexts = tuple(
            Context(self.config, self.directory, shards, text) for text in (False, True)
        )
        self.queries = Queries(self.config, self.directory, self.parts.tops, self.parts.deep_book)
        self.full = [(0, 0)] * shards  # per shard: consumer position last seen full, since when

    @property
    def rings(self) -> Codec:
        """The codec, where it is certain that the shards are there."""
        return cast(Codec, self.codec)

    def any_shard_usable(self) -> bool:
        """Whether at least one shard was up when last asked."""
        return self.codec is not None and any(map(self.shard_usable, range(self.shards)))

    def shard_usable(self, shard: int) -> bool:
        """Whether the shard was up when last asked."""
        return bool(self.view[self.state.shard_base(shard) + S_UP])

    def full_reason(self, shard: int) -> str:
        """Why a shard's ring has no room."""
        if not self.rings.gated(shard):
            return "a queue is full"
        words = self.parts.gate_reason(shard) if self.parts.gate_reason is not None else ""
        return f"shard {shard} takes nothing for the moment" + (f": {words}" if words else "")

    # --------------------------------------------------------------------------------- speaking
    def say(self, client: Client, message: dict[str, Any]) -> None:
        """Send one message made by Python."""
        if not client.closed:
            client.send(orjson.dumps(message) + b"\n")

    def _refuse(
        self, client: Client, request: Request, refusal: Refusal, shard: int | None = None
    ) -> None:
        self.counts["rejects"] += 1
        if refusal.code == RejectCode.BUSY:
            self.counts["busy"] += 1
        message: dict[str, Any] = {"type": "rejected", "seq": 0}
        if shard is not None:
            message["shard"] = shard
        if client.session is not None:
            message["session"] = client.session.name
        for key, value in (("symbol", request.keys.get("symbol")), ("id", request.client_id)):
            if isinstance(value, int) or (isinstance(value, str) and len(value) <= 64):
                message[key] = value
        for key in ("order_id", "target_id"):
            number = request.keys.get(key)
            if isinstance(number, str) and number.isdigit() and len(number) < 19:
                message[key] = int(number)
        message |= {
            "code": refusal.code,
            "reason": reason_of(refusal.code),
            "text": refusal.text,
            "last": True,
        }
        mark = request.keys.get("request")
        if isinstance(mark, str) and len(mark) <= 40:
            message["request"] = str(mark)
        self.say(client, message)

    def _charge(self, client: Client, cancel: bool, count: int = 1) -> bool:
        # Take `count` tokens of the client's session, if it has one; False when they are not there.
        # Over the hard limit: logged out.
        session = client.session
        if session is None or not session.row:
            return True
        admission = self.sessions.admit(session, cancel, time.monotonic_ns(), count)
        if admission is Admission.YES:
            return True
        self.counts["throttled"] += 1
        if admission is Admission.LOGOUT:
            self.drop(client, "throttled: requests went on over the limit")
        return False

    # --------------------------------------------------------------------------------- ending
    def drop(
        self, client: Client, reason: str, *, tell_shards: bool = True, tell_client: bool = True
    ) -> None:
        """End a connection: say why, close it, and close its session on every shard."""
        if client.closed:
            return
        if tell_client:
            self.say(client, {"type": "logout", "reason": reason})
        client.closed = True
        client.backlog, client.carry = None, b""
        self.clients.discard(client)
        if client.session is not None:
            self.sessions.close(client.session, tell_shards=tell_shards)
            self.sessions.closes_flush(time.monotonic_ns())
            client.session = None
        client.hang_up()

    def on_lost(self, client: Client) -> None:
        """The connection is gone."""
        self.drop(client, "", tell_client=False)

    def overflow(self, client: Client) -> None:
        """A client does not read: what it missed it can ask for later."""
        self.counts["output_overflows"] += 1
        self.drop(client, "", tell_client=False)
