"""The order desk, third floor: what a command must pass before it goes into a ring. Sans-I/O.

Cold: only lines that the fast path left come here; it makes the same checks
(gateway/codec_command.py). Order (RULES §1): 1xx, 3xx and what else the line alone tells are found
by codec_slow; here 202, 203 and 206 are added, and the lowest code wins; then 905 and 901. A
refusal by the gateway carries seq 0 and uses up no id, except 905.

A full ring: the line waits (its client is not read from) while the shard goes on taking; a ring
that has not moved for FULL_WAIT_NS is answered BUSY. Then that id is latched: higher ids of the
session get BUSY until it is sent again, so that nothing overtakes the refused order. A bulk sender
is held back before that, at AHEAD_MAX commands in a ring: what is under way would overflow its
output otherwise.

A list is one request with a command for each leg: its ids rise, each leg takes a token, and the
ring has room for all of them or takes none.
"""

from __future__ import annotations

import time
from itertools import pairwise

from engine.records import RejectCode
from gateway.codec_fields import Request
from gateway.connection import Client
from gateway.desk_base import OFF_DUTY
from gateway.desk_log import LogDesk
from gateway.errors import Refusal
from gateway.session import Session
from gateway.state import (
    C_ACCOUNT,
    C_ID,
    C_LOGON,
    C_SESSION,
    R_COMMANDS,
    R_LAST_ID,
    R_LATCH,
    R_SHARDS,
)

# Longer than a busy machine keeps a process off its core; what is dead is found otherwise.
FULL_WAIT_NS = 250_000_000
AHEAD_MAX = 1024  # commands; with about 1.5 reports of 230 bytes each a third of output_bytes_max


class OrderDesk(LogDesk):
    """Commands on the slow path."""

    def _command(self, client: Client, session: Session, request: Request) -> bool:
        # Checks that need the session, then the rings; True when the line has to wait.
        self._authority(session, request)
        if not all(map(self.shard_usable, request.shards)):
            self.shards_poll()  # it may have come back since the last tick
        down = [
            s
            for s in request.shards
            if not session.live or not self.shard_usable(s) or s not in session.slots
        ]
        client_id, count = request.words.get(C_ID, 0), max(len(request.legs), 1)
        latch = self.view[session.base + R_LATCH] if session.row else 0
        latched = client_id > latch > 0
        up = [s for s in request.shards if s not in down]
        full = None
        if not request.refusals and not latched:
            if any(self._holding(shard, count) for shard in up):
                return True
            full = next((shard for shard in up if self.rings.room(shard) < count), None)
        if not self._charge(client, request.is_cancel, count):
            request.refuse(RejectCode.THROTTLED, "more requests than the account's class allows")
        if client.closed:
            return False
        if request.refusals:
            self._refuse(client, request, min(request.refusals, key=lambda refusal: refusal.code))
        elif latched:
            text = f"id {latch} was refused BUSY: send it again first"
            self._refuse(client, request, Refusal(RejectCode.BUSY, text))
        elif full is not None:
            self._latch(session, client_id)
            text = f"{self.full_reason(full)}; no id was used, send it again"
            self._refuse(client, request, Refusal(RejectCode.BUSY, text), full)
        else:
            self._send(client, session, request, up, down)
        return False

    def _authority(self, session: Session, request: Request) -> None:
        # 202 and 203.
        for key, own in (("account", session.account.name), ("session", session.name)):
            if request.keys.get(key, own) != own:
                request.refuse(RejectCode.NOT_AUTHORISED, f"this connection's {key} is {own}")
        ids = [n for leg in request.legs for n in [leg.words.get(C_ID, 0)] if n]
        if any(after <= before for before, after in pairwise(ids)):
            request.refuse(RejectCode.DUPLICATE, "the ids of the legs do not rise")
        client_id = request.words.get(C_ID, 0)
        if not client_id or not session.row or client_id > self.view[session.base + R_LAST_ID]:
            return
        everywhere = len(request.shards) > 1
        if (
            everywhere
            and client_id == session.open_everywhere == self.view[session.base + R_LAST_ID]
        ):
            return  # shards that have it answer it, the others run it
        highest = [self.view[session.base + R_SHARDS + 2 * shard + 1] for shard in request.shards]
        if request.refusals or not highest or everywhere or client_id > highest[0]:
            last = self.view[session.base + R_LAST_ID]
            request.refuse(
                RejectCode.DUPLICATE,
                f"id {client_id} is not above {last}, the last one of this session",
            )

    def _send(
        self, client: Client, session: Session, request: Request, up: list[int], down: list[int]
    ) -> None:
        view, client_id = self.view, request.words.get(C_ID, 0)
        ids = [part.words.get(C_ID, 0) for part in request.legs or [request]]
        now, used = time.monotonic_ns(), bool(down)
        for shard in up:
            slot = session.base + R_SHARDS + 2 * shard
            own = {
                C_ACCOUNT: session.account.account, C_LOGON: session.logon, C_SESSION: view[slot]
            }  # fmt: skip
            if request.legs:
                rows = [(leg.words | own, leg.text) for leg in request.legs]
                pushed = self.rings.push_all(shard, rows, now)
            else:
                pushed = int(self.rings.push(shard, request.words | own, request.text, now) > 0)
            if pushed:
                used = True
                view[session.base + R_COMMANDS] += pushed
                if client_id:
                    view[slot + 1] = max(view[slot + 1], *ids)
            else:  # gated this very moment
                refusal = Refusal(RejectCode.BUSY, self.full_reason(shard))
                self._refuse(client, request, refusal, shard)
        for shard in down:
            text = (
                f"shard {shard} is not running; the id is used up"
                if self.codec is not None
                else OFF_DUTY
            )
            self._refuse(client, request, Refusal(RejectCode.UNAVAILABLE, text), shard)
        if session.row:
            everywhere = len(request.shards) > 1
            for number in filter(None, ids if used else ids[:1]):
                self._note(session, number, used, everywhere=everywhere)

    def _note(self, session: Session, client_id: int, used: bool, *, everywhere: bool) -> None:
        # An id that a shard took, or that is used up without one, or nothing but BUSY.
        view, base = self.view, session.base
        if not used:
            self._latch(session, client_id)
            return
        view[base + R_LAST_ID] = max(view[base + R_LAST_ID], client_id)
        if view[base + R_LATCH] == client_id:
            view[base + R_LATCH] = 0
        if everywhere:
            session.open_everywhere = client_id

    def _latch(self, session: Session, client_id: int) -> None:
        # One that was used already can be overtaken by nobody, and may not be sent again.
        if session.row and client_id > self.view[session.base + R_LAST_ID]:
            self.view[session.base + R_LATCH] = client_id

    def _holding(self, shard: int, room: int) -> bool:
        """Whether the ring has less than `room` slots free, and it is worth waiting for more: the
        shard has taken something within FULL_WAIT_NS.
        """
        if not self.shard_usable(shard) or self.rings.room(shard) >= room:
            return False
        now, consumed = time.monotonic_ns(), self.rings.consumed(shard)
        seen, since = self.full[shard]
        if not since or consumed != seen:
            self.full[shard] = (consumed, now)
            return True
        return now - since <= FULL_WAIT_NS
