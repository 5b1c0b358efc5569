"""The order desk: what happens to every line and every event, without a socket in sight. Sans-I/O.

Hot in `on_bytes` and `pump`, cold elsewhere. A Client is one connection.

    bytes  -> Codec.decode -> commands in the rings
              lines the fast path leaves -> request_of -> checks -> push, or a reject
    events -> Codec.encode -> reports per session
              ACCOUNT, LISTED, ... -> SessionTable, Directory
    log    -> reports that a session missed, or that the ring no longer has (gateway/desk_log.py)

Nothing waits inside: a client whose lines cannot be handled now (ring full, session being opened,
too many slow lines in one go, gateway half a ring behind) keeps its bytes in `backlog`, is not read
from, and is retried. A line of over line_bytes_max is refused once and skipped up to its end; one
of over OVERSIZE_BYTES_MAX ends the connection. How the bytes were cut on the way makes no
difference.

Bounds: one receive and one line of backlog per client; SLOW_LINES_MAX lines of Python work per
turn; output_bytes_max waiting for a client that does not read.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, cast

from engine.counters import HISTOGRAM_WORDS, State
from engine.records import RejectCode
from engine.shm_ring import CommandRings, EventRings
from gateway.codec import IDLE, RECEIVE_BYTES, SLOW, Codec
from gateway.codec_fields import Request
from gateway.codec_slow import COMMANDS, request_mark, request_of
from gateway.codec_tables import BOOK, HEARTBEAT, INSTRUMENTS, LOGON, LOGOUT, TEST_REQUEST
from gateway.connection import Client
from gateway.desk_base import TICK_S, Later
from gateway.desk_log import Aside, run_now
from gateway.desk_orders import AHEAD_MAX, OrderDesk
from gateway.errors import Refusal
from gateway.parts import HISTOGRAM_LABELS, GatewayParts
from gateway.queries import account_table, limits_table, throttle_table
from gateway.session import NS, Session, Stage
from gateway.state import (
    H_HISTOGRAM_BASE,
    H_LINE_END,
    H_TOTAL_COMMANDS,
    H_TOTAL_LAPS,
    H_TOTAL_LINES,
    H_TOTAL_LOST,
    H_TOTAL_REPORTS,
)  # fmt: skip

BULK_BYTES = 4096  # a receive of more is a bulk sender's
SLOW_LINES_MAX = 8  # 0.1 to 0.3 ms of Python, then it is another client's turn
OVERSIZE_BYTES_MAX = 1 << 16
STRANGER_REFUSALS_MAX = 20  # refused lines before logon
PUMP_ROUNDS_MAX = 16
STALL_S = 5.0  # a client whose reports pile up this long is dropped: it reads under 10 kB/s
KEEPS_PER_TIME = 4  # SESSION_KEEPs in a dead-man time, at most
SPIN_NS = 10_000
SPIN_COMMANDS_MAX = 8  # more at once is a bulk sender: it does not wait for the first answer
(ROUND_TRIP,) = HISTOGRAM_LABELS
_COUNTED = (
    ("lines", H_TOTAL_LINES), ("commands", H_TOTAL_COMMANDS), ("reports", H_TOTAL_REPORTS),
    ("laps", H_TOTAL_LAPS), ("events_lost", H_TOTAL_LOST),
)  # fmt: skip

# A receive may hold a whole line that is too long: cut or whole, it must end the same way.
assert RECEIVE_BYTES > OVERSIZE_BYTES_MAX


class Desk(OrderDesk):
    """All clients of one gateway."""

    def __init__(self, parts: GatewayParts, call_later: Later, aside: Aside = run_now) -> None:
        super().__init__(parts, call_later, aside)
        self.waiting: deque[Client] = deque()  # with a backlog
        self.gated = False
        if parts.command_rings is not None:
            self.attach(parts)

    # ------------------------------------------------------------------- shards come and go
    def attach(self, parts: GatewayParts) -> None:
        """Take up the rings of a running instance; waiting sessions are opened."""
        commands, events = (
            cast(CommandRings, parts.command_rings),
            cast(EventRings, parts.event_rings),
        )
        parts.on_ready, parts.port, parts.reconnect = (
            self.parts.on_ready,
            self.parts.port,
            self.parts.reconnect,
        )
        self._waits_end()
        self.laps.clear()
        for client in [c for c in self.clients if c.session is not None and c.session.row]:
            self.drop(client, "the exchange was started anew: log on again", tell_shards=False)
        self.parts = parts
        self._context(commands.shards)
        self.codec = Codec(self.config, self.state, commands, events, self.buffer)
        self.codec.attach(
            parts.producer, parts.reader, list(parts.shard_fds), logs=parts.logs is not None
        )
        self.directory.load(parts.tops)
        if parts.next_logon is not None:
            self.sessions.next_logon = parts.next_logon
        self.sessions.attach(self.state, self.codec, self.limits.sessions_max + 1)
        for shard in range(self.shards):
            self._names_load(shard)
        if parts.successor:
            self.sessions.producer_reset()
        self.shards_poll()

    # ------------------------------------------------------------------------------- bytes in
    def on_connect(self, client: Client) -> None:
        """A connection is there."""
        client.born = client.heard = client.sent = self.ticks
        self.clients.add(client)

    def on_bytes(self, client: Client, count: int) -> int:
        """`count` bytes lie in the room of the receive buffer; returns how many commands they
        published.
        """
        client.heard = self.ticks
        self.bytes_in += count
        start = self.buffer.offset
        carry = client.carry
        if carry:
            start -= len(carry)
            self.buffer.view[start : self.buffer.offset] = carry
            client.carry = b""
        return self._take(client, start, self.buffer.offset + count)

    def _take(self, client: Client, start: int, end: int) -> int:
        # Handle the lines in the buffer; what cannot be handled now becomes backlog.
        if client.backlog is not None:
            client.backlog += bytes(self.buffer.view[start:end])
            return 0
        if client.skipping:
            start = self._skip(client, start, end)
        before, slow = self.view[H_TOTAL_COMMANDS], 0
        if end - start > BULK_BYTES and self._held_back(self._ahead_max()):
            self._defer(client, start, end)
            return 0
        while not client.closed:
            if self._must_wait(client) or slow >= SLOW_LINES_MAX:
                self._defer(client, start, end)
                break
            place, slow_line = self._decode(client, start, end)
            if not slow_line:
                self._keep(client, place, end)
                break
            line_end = self.view[H_LINE_END]
            if self._line(client, bytes(self.buffer.view[place:line_end])):
                self._defer(client, place, end)
                break
            slow += 1
            start = line_end + 1
        return int(self.view[H_TOTAL_COMMANDS] - before)

    def _decode(self, client: Client, start: int, end: int) -> tuple[int, bool]:
        if self.codec is not None:
            result = self.codec.decode(client.session.row if client.session else 0, start, end)
            return result >> 8, result & 0xFF == SLOW
        while True:  # no rings: lines are cut here
            found = bytes(self.buffer.view[start:end]).find(b"\n")
            if found < 0:
                return start, False
            if (
                found > self.limits.line_bytes_max
                or self.buffer.view[start : start + found].tobytes().strip()
            ):
                self.view[H_LINE_END] = start + found
                return start, True
            start += found + 1

    def _must_wait(self, client: Client) -> bool:
        session = client.session
        opening = session is not None and session.stage is Stage.OPENING
        return self.gated or client.judging or opening or client.stalled != 0

    def _ahead_max(self) -> int:
        return min(AHEAD_MAX, self.rings.commands.capacity // 2) if self.codec is not None else 0

    def _keep(self, client: Client, start: int, end: int) -> None:
        # The beginning of a line: carried over, unless it is too long already.
        rest = end - start
        if rest > self.limits.line_bytes_max + 1:  # + 1: a CR may precede the LF
            client.skipping = rest
            self._oversize(client, rest)
        elif rest:
            client.carry = bytes(self.buffer.view[start:end])

    def _skip(self, client: Client, start: int, end: int) -> int:
        # Drop the rest of a line that was too long.
        found = bytes(self.buffer.view[start:end]).find(b"\n")
        client.skipping += end - start if found < 0 else found
        if client.skipping > OVERSIZE_BYTES_MAX:
            self.drop(client, f"a line of over {OVERSIZE_BYTES_MAX} bytes")
        elif found >= 0:
            client.skipping = 0
            return start + found + 1
        return end

    def _oversize(self, client: Client, size: int) -> None:
        text = f"line over {self.limits.line_bytes_max} bytes"
        self._refuse(client, Request(), Refusal(RejectCode.MALFORMED, text))
        self._charge(client, False)
        if size > OVERSIZE_BYTES_MAX:
            self.drop(client, f"a line of over {OVERSIZE_BYTES_MAX} bytes")

    def _defer(self, client: Client, start: int, end: int) -> None:
        if client.closed:
            return
        self.counts["deferrals"] += 1
        client.backlog = bytes(self.buffer.view[start:end])
        client.pause()
        self.waiting.append(client)

    def impatient(self) -> bool:
        """Whether a client waits for no event, but for room in a ring, or its next turn."""
        return any(not self._must_wait(client) for client in self.waiting)

    def retry(self) -> int:
        """Try the waiting clients once more; returns how many commands that published."""
        published = 0
        if self.gated or not self.waiting or self._held_back(self._ahead_max()):
            return 0
        for _ in range(len(self.waiting)):
            client = self.waiting.popleft()
            data = client.backlog
            if data is None or client.closed:
                continue
            if self._must_wait(client):
                self.waiting.append(client)
                continue
            client.backlog = None
            self.buffer.view[: len(data)] = data
            published += self._take(client, 0, len(data))
            if client not in self.waiting:
                client.resume()
        return published

    def _held_back(self, most: int) -> bool:
        # Whether some ring has more than `most` commands waiting, and is being read.
        if self.codec is None:
            return False
        room = max(self.codec.commands.capacity - most, 1)
        if self.codec.rooms() >= room:
            return False
        return any(self._holding(shard, room) for shard in range(self.shards))

    # ------------------------------------------------------------------------------- one line
    def _line(self, client: Client, line: bytes) -> bool:
        # One line of the slow path; True when it has to wait.
        if len(line) - line.endswith(b"\r") > self.limits.line_bytes_max:
            self._oversize(client, len(line))
            return False
        self.counts["slow_lines"] += 1
        session = client.session
        request = request_of(line, self.contexts[session is not None and session.text_ids])
        if session is None:
            self._stranger(client, request)
        elif request.type in COMMANDS:
            return self._command(client, session, request)
        else:
            self._talk(client, session, request)
        return False

    def _stranger(self, client: Client, request: Request) -> None:
        # A line before logon.
        try:
            request.raise_lowest()
            if request.type == LOGON:
                self._logon(client, request)
            elif request.type in (HEARTBEAT, TEST_REQUEST):
                self._beat(client, request)
            elif request.type == LOGOUT:
                self.drop(client, "logout")
            else:
                raise Refusal(RejectCode.NOT_LOGGED_ON, "log on first")
        except Refusal as refusal:
            self._refuse(client, request, refusal)
            client.refused += 1
            if client.refused >= STRANGER_REFUSALS_MAX:
                self.drop(client, "too many refused lines before logon")

    def _talk(self, client: Client, session: Session, request: Request) -> None:
        # Everything of a session that is no command.
        if request.type not in (HEARTBEAT, LOGOUT) and not self._charge(client, False):
            request.refuse(RejectCode.THROTTLED, "more requests than the account's class allows")
        if client.closed:
            return
        try:
            mark = request_mark(request)
            request.raise_lowest()
            if request.type in (HEARTBEAT, TEST_REQUEST):
                self._beat(client, request)
            elif request.type == LOGOUT:
                self.drop(client, "logout")
            elif request.type == LOGON:
                raise Refusal(RejectCode.NOT_AUTHORISED, "logged on already")
            else:
                answer = self._answer(session, request)
                self.say(client, answer if mark is None else answer | {"request": mark})
        except Refusal as refusal:
            self._refuse(client, request, refusal)

    def _beat(self, client: Client, request: Request) -> None:
        mark = request_mark(request)
        request.raise_lowest()
        if request.type == TEST_REQUEST:
            beat = {"type": "heartbeat", "ts": time.time_ns()}
            self.say(client, beat if mark is None else beat | {"request": mark})

    def _answer(self, session: Session, request: Request) -> dict[str, Any]:
        if request.type == BOOK:
            return self.queries.book(request)
        if request.type == INSTRUMENTS:
            return self.queries.instruments(request)
        now = time.monotonic_ns()
        left = [
            self.sessions.tokens_left(session, cancel, now) if session.row else None
            for cancel in (False, True)
        ]
        throttle = self.sessions.throttles[session.account.throttle]
        answer = {
            "type": "limits",
            "throttle": throttle_table(throttle, *left),
            "limits": limits_table(self.limits),
        }
        if self.parts.account_views is not None:
            answer["account"] = account_table(self.parts.account_views(session.account.account))
        return answer

    # ----------------------------------------------------------------------------- events out
    def pump(self, spin_ns: int = 0) -> bool:
        """Send the reports of all new events, and what is due from the logs; returns whether there
        was anything.
        """
        if self.codec is None:
            return False
        found = self._rounds(self.codec, spin_ns)
        if self.behind or self.laps:
            found = self.log_turn() or found
            self.gated = self.gated or bool(self.laps)
        return found

    def _rounds(self, codec: Codec, spin_ns: int) -> bool:
        any_found = False
        for _ in range(PUMP_ROUNDS_MAX):
            status = codec.encode(spin_ns)
            spin_ns = 0
            for row, data in codec.writes():
                any_found = True
                self._deliver(row, data)
            if status == IDLE:
                self.gated = False
                return any_found
            any_found = True
            self._event(status)
        self.gated = codec.behind() > codec.events.capacity // 2
        return True

    # ----------------------------------------------------------------------------------- time
    def tick(self) -> None:
        """Every TICK_S: deadlines, heartbeats, shards that come and go, counters."""
        self.ticks += 1
        limits, per_s = self.limits, 1 / TICK_S
        deadline, dead = limits.logon_deadline_s * per_s, limits.idle_dead_s / limits.heartbeat_s
        for client in list(self.clients):
            session = client.session
            if client.stalled and self.ticks - client.stalled > STALL_S * per_s:
                self.overflow(client)
                continue
            if session is not None and session.dead_man_ns and session.slots:
                self._life_show(client, session)
            if session is None or session.stage is Stage.OPENING:
                resuming = session is not None and session.behind is not None
                if self.ticks - client.born > deadline and not (client.judging or resuming):
                    self.drop(client, f"no logon within {limits.logon_deadline_s:g} s")
                continue
            beat = session.heartbeat_s * per_s
            if self.ticks - client.heard > beat * dead:
                self.drop(client, f"nothing heard for {session.heartbeat_s * dead:g} s")
            elif self.ticks - client.sent >= beat:
                self.say(client, {"type": "heartbeat", "ts": time.time_ns()})
        self.sessions.closes_flush(time.monotonic_ns())
        self.shards_poll()
        self.log_turn()
        self._count()

    def _life_show(self, client: Client, session: Session) -> None:
        # Tell the shards that the client lives: at most each quarter of its dead-man time, if
        # anything was heard from it since. Silence while we do not read it is not its own.
        held = client.backlog is not None and not client.stalled
        unread = held or session.stage is Stage.OPENING
        for shard in session.slots:
            last = session.kept.setdefault(shard, self.ticks)  # its opening was the first
            if not self.shard_usable(shard) or (client.heard < last and not unread):
                continue
            if (self.ticks - last) * TICK_S * NS * KEEPS_PER_TIME >= session.dead_man_ns:
                if self.sessions.keep(session, shard, time.monotonic_ns()):
                    session.kept[shard] = self.ticks

    def _count(self) -> None:
        block = self.parts.counters
        if block is None:
            return
        values = {
            **self.counts,
            "connections": len(self.clients),
            "sessions": len(self.sessions.by_logon),
        }
        values |= {label: self.view[word] for label, word in _COUNTED}
        values |= {"heartbeat_ns": time.monotonic_ns(), "state": int(State.RUNNING)}
        values |= {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        for label in values.keys() & set(block.labels):
            block.set(label, values[label])
        if ROUND_TRIP in block.histograms:
            base = self.view[H_HISTOGRAM_BASE]
            block.histogram(ROUND_TRIP)[:] = self.state.words[base : base + HISTOGRAM_WORDS]
