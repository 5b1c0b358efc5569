"""The order desk: what happens to every line and every event, without a socket in sight. Sans-I/O.

Hot in `on_bytes` and `pump`, cold elsewhere. A Client is one connection; gateway/tcp_entry.py gives it a socket, tests a list.

    bytes -> Codec.decode -> commands in the rings          lines the fast path leaves -> request_of -> checks -> push, or reject
    events -> Codec.encode -> reports per session           ACCOUNT, LISTED, ... -> SessionTable, Directory

Order of checks (RULES §1): 1xx, 3xx and what else the line alone tells are found by codec_slow; the desk adds 201, 202, 203,
206, and the lowest code wins; then 905 and 901. A refusal by the gateway carries seq 0 and uses up no id, except 905.

Nothing waits inside: a client whose lines cannot be handled now (ring full, session being opened, too many slow lines in one
go, gateway half a ring behind) keeps its bytes in `backlog`, is not read from, and is retried. A ring that stays full without
moving for FULL_WAIT_NS is answered BUSY; then that id is latched: higher ids get BUSY until it is sent again.

Bounds: one receive and one line of backlog per client; SLOW_LINES_MAX lines of Python work per turn; output_bytes_max.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from engine.counters import State
from engine.records import EventKind, Reason, RejectCode
from gateway.codec import IDLE, LAPPED, MORE, RECEIVE_BYTES, SLOW, SPECIAL, UNKNOWN, Codec, ReceiveBuffer
from gateway.codec_slow import COMMANDS, Context, Request, logon_options, request_mark, request_of
from gateway.codec_tables import BOOK, HEARTBEAT, INSTRUMENTS, LIMITS, LOGON, LOGOUT, TEST_REQUEST
from gateway.directory import Directory
from gateway.errors import Refusal, reason_of
from gateway.parts import GatewayParts
from gateway.queries import Queries, limits_table, throttle_table
from gateway.session import Admission, Session, SessionTable, Stage
from gateway.state import (
    C_ACCOUNT, C_ID, C_LOGON, C_SESSION, H_LINE_END, H_TOTAL_COMMANDS, H_TOTAL_LAPS, H_TOTAL_LINES, H_TOTAL_LOST,
    H_TOTAL_REPORTS, R_COMMANDS, R_LAST_ID, R_LATCH, R_SHARDS, S_UP, GatewayState, make_state,
)  # fmt: skip

TICK_S = 0.1
SLOW_LINES_MAX = 64  # about 3 ms of Python
FULL_WAIT_NS = 20_000_000
OVERSIZE_BYTES_MAX = 1 << 16  # an endless line: the connection is closed
STRANGER_REFUSALS_MAX = 20  # refused lines before logon
PUMP_ROUNDS_MAX = 16
SPIN_NS = 10_000
SPIN_COMMANDS_MAX = 8  # more at once is a bulk sender: it does not wait for the first answer
OFF_DUTY = "no shard is running; requests are refused until one is"
_COUNTED = (
    ("lines", H_TOTAL_LINES), ("commands", H_TOTAL_COMMANDS), ("reports", H_TOTAL_REPORTS), ("laps", H_TOTAL_LAPS),
    ("events_lost", H_TOTAL_LOST),
)  # fmt: skip


class Client(ABC):
    """One connection, as the desk knows it."""

    session: Session | None = None
    carry: bytes = b""  # the beginning of a line
    backlog: bytes | None = None  # lines that wait; reading is paused
    skipping: int = 0  # bytes so far of a line that is too long
    born: int = 0  # ticks
    heard: int = 0
    sent: int = 0
    refused: int = 0  # lines before logon
    judging: bool = False  # a failed logon waits for its answer
    closed: bool = False

    @abstractmethod
    def send(self, data: bytes | memoryview) -> None:
        """Send, or drop the client when too much is waiting already. `data` is valid during the call only."""

    @abstractmethod
    def hang_up(self) -> None:
        """Close after what was sent."""

    @abstractmethod
    def pause(self) -> None:
        """Stop reading."""

    @abstractmethod
    def resume(self) -> None:
        """Read again."""


class Desk:
    """All clients of one gateway."""

    def __init__(self, parts: GatewayParts, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self.parts, self.config = parts, parts.config
        self.limits = parts.config.gateway
        self.call_later = call_later
        self.buffer = ReceiveBuffer(self.limits.line_bytes_max)
        self.clients: set[Client] = set()
        self.waiting: deque[Client] = deque()  # with a backlog
        self.ticks = 0
        self.counts = dict.fromkeys(
            ("slow_lines", "rejects", "busy", "throttled", "output_overflows", "takeovers", "logon_failures", "deferrals"), 0
        )
        self.gated = False
        self.codec: Codec | None = None
        self._sessions_new(parts)
        self._context(1)
        if parts.command_rings is not None:
            self.attach(parts)

    # ------------------------------------------------------------------------------- shards come and go
    def _sessions_new(self, parts: GatewayParts) -> None:
        own = iter(range(1, 1 << 31))
        self.sessions = SessionTable(self.config, parts.next_logon or (lambda: next(own)))

    def _context(self, shards: int) -> None:
        self.shards = shards
        self.state: GatewayState = make_state(self.config, shards, self.parts.producer, self.parts.reader)
        self.view = self.state.view
        self.directory = Directory(self.state, self.config)
        self.contexts = tuple(Context(self.config, self.directory, shards, text) for text in (False, True))
        self.queries = Queries(self.config, self.directory, self.parts.tops, self.parts.deep_book)
        self.full = [(0, 0)] * shards  # per shard: consumer position last seen full, since when

    def attach(self, parts: GatewayParts) -> None:
        """Take up the rings of a running instance; waiting sessions are opened."""
        assert parts.command_rings is not None and parts.event_rings is not None
        parts.on_ready, parts.port, parts.reconnect = self.parts.on_ready, self.parts.port, self.parts.reconnect
        for client in [c for c in self.clients if c.session is not None and c.session.row]:
            self.drop(client, "the exchange was started anew: log on again", tell_shards=False)
        self.parts = parts
        self._context(parts.command_rings.shards)
        self.codec = Codec(self.config, self.state, parts.command_rings, parts.event_rings, self.buffer)
        self.codec.attach(parts.producer, parts.reader, list(parts.shard_fds))
        self.directory.load(parts.tops)
        if parts.next_logon is not None:
            self.sessions.next_logon = parts.next_logon
        self.sessions.attach(self.state, self.codec, self.limits.sessions_max + 1)
        self.shards_poll()

    def shard_usable(self, shard: int) -> bool:
        """Whether the shard was up when last asked."""
        return bool(self.view[self.state.shard_base(shard) + S_UP])

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
                    self._welcome(session)
        if any(self.shard_usable(shard) for shard in range(self.shards)):
            for session in [s for s in self.sessions.by_logon.values() if s.stage is Stage.WAITING]:
                self._open(session.client, session)

    # ------------------------------------------------------------------------------- bytes in
    def on_connect(self, client: Client) -> None:
        """A connection is there."""
        client.born = client.heard = client.sent = self.ticks
        self.clients.add(client)

    def on_bytes(self, client: Client, count: int) -> int:
        """`count` bytes lie in the room of the receive buffer; returns how many commands they published."""
        client.heard = self.ticks
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
            if found > self.limits.line_bytes_max or self.buffer.view[start : start + found].tobytes().strip():
                self.view[H_LINE_END] = start + found
                return start, True
            start += found + 1

    def _must_wait(self, client: Client) -> bool:
        session = client.session
        return self.gated or client.judging or (session is not None and session.stage is Stage.OPENING)

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

    def retry(self) -> int:
        """Try the waiting clients once more; returns how many commands that published."""
        published = 0
        if self.gated or not self.waiting or not self._worth_retrying():
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
            if client.backlog is None and not client.closed:
                client.resume()
        return published

    def _worth_retrying(self) -> bool:
        # A ring with a few free slots would take a few lines at a great price.
        if self.codec is None or self.codec.rooms() >= min(256, self.codec.commands.capacity // 4):
            return True
        return any(self._stuck(shard) for shard in range(self.shards))

    def _stuck(self, shard: int) -> bool:
        # Whether a full ring has not moved for FULL_WAIT_NS.
        assert self.codec is not None
        seen, since = self.full[shard]
        if not since:
            return False
        if self.codec.consumed(shard) != seen:
            self.full[shard] = (0, 0)
            return False
        return time.monotonic_ns() - since > FULL_WAIT_NS

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
        assert request.type == LIMITS
        now = time.monotonic_ns()
        left = [self.sessions.tokens_left(session, cancel, now) if session.row else None for cancel in (False, True)]
        throttle = self.sessions.throttles[session.account.throttle]
        return {"type": "limits", "throttle": throttle_table(throttle, *left), "limits": limits_table(self.limits)}

    def _charge(self, client: Client, cancel: bool) -> bool:
        # Take a token of the client's session, if it has one; False when there is none. Over the hard limit: logged out.
        session = client.session
        if session is None or not session.row:
            return True
        admission = self.sessions.admit(session, cancel, time.monotonic_ns())
        if admission is Admission.YES:
            return True
        self.counts["throttled"] += 1
        if admission is Admission.LOGOUT:
            self.drop(client, "throttled: requests went on over the limit")
        return False

    # ------------------------------------------------------------------------------- commands
    def _command(self, client: Client, session: Session, request: Request) -> bool:
        # Checks that need the session, then the rings; True when the line has to wait.
        self._authority(session, request)
        down = [s for s in request.shards if not session.live or not self.shard_usable(s) or s not in session.slots]
        client_id = request.words.get(C_ID, 0)
        latch = self.view[session.base + R_LATCH] if session.row else 0
        latched = client_id > latch > 0
        up = [s for s in request.shards if s not in down]
        full = False
        if not request.refusals and up and not latched and self._ring_full(up):
            if not any(self._stuck(shard) for shard in up):
                return True
            full = True
        if not self._charge(client, request.is_cancel):
            request.refuse(RejectCode.THROTTLED, "more requests than the account's class allows")
        if client.closed:
            return False
        if request.refusals:
            self._refuse(client, request, min(request.refusals, key=lambda refusal: refusal.code))
        elif latched:
            text = f"id {latch} was refused BUSY: send it again first"
            self._refuse(client, request, Refusal(RejectCode.BUSY, text))
        elif full:
            if client_id and session.row:
                self.view[session.base + R_LATCH] = client_id
            self._refuse(client, request, Refusal(RejectCode.BUSY, "a queue is full; no id was used, send it again"))
        else:
            self._send(client, session, request, up, down)
        return False

    def _authority(self, session: Session, request: Request) -> None:
        # 202 and 203.
        for key, own in (("account", session.account.name), ("session", session.name)):
            if request.keys.get(key, own) != own:
                request.refuse(RejectCode.NOT_AUTHORISED, f"this connection's {key} is {own}")
        client_id = request.words.get(C_ID, 0)
        if not client_id or not session.row or client_id > self.view[session.base + R_LAST_ID]:
            return
        everywhere = len(request.shards) > 1
        if everywhere and client_id == session.open_everywhere == self.view[session.base + R_LAST_ID]:
            return  # shards that have it answer it, the others run it
        highest = [self.view[session.base + R_SHARDS + 2 * shard + 1] for shard in request.shards]
        if request.refusals or not highest or everywhere or client_id > highest[0]:
            last = self.view[session.base + R_LAST_ID]
            request.refuse(RejectCode.DUPLICATE, f"id {client_id} is not above {last}, the last one of this session")

    def _ring_full(self, shards: list[int]) -> bool:
        # Whether one of these shards' rings has no room; notes since when.
        assert self.codec is not None
        found = False
        for shard in shards:
            if not self.codec.room(shard):
                found = True
                if not self.full[shard][1]:
                    self.full[shard] = (self.codec.consumed(shard), time.monotonic_ns())
        return found

    def _send(self, client: Client, session: Session, request: Request, up: list[int], down: list[int]) -> None:
        view, client_id = self.view, request.words.get(C_ID, 0)
        now = time.monotonic_ns()
        for shard in up:
            assert self.codec is not None
            slot = session.base + R_SHARDS + 2 * shard
            words = request.words | {
                C_ACCOUNT: session.account.account, C_LOGON: session.logon, C_SESSION: view[slot]
            }  # fmt: skip
            if self.codec.push(shard, words, request.text, now):
                view[session.base + R_COMMANDS] += 1
                if client_id:
                    view[slot + 1] = max(view[slot + 1], client_id)
            else:  # gated this very moment
                self._refuse(client, request, Refusal(RejectCode.BUSY, f"the queue of shard {shard} is full"), shard)
        for shard in down:
            text = f"shard {shard} is not running; the id is used up" if self.codec is not None else OFF_DUTY
            self._refuse(client, request, Refusal(RejectCode.UNAVAILABLE, text), shard)
        if client_id and session.row:
            base = session.base
            view[base + R_LAST_ID] = max(view[base + R_LAST_ID], client_id)
            if view[base + R_LATCH] == client_id:
                view[base + R_LATCH] = 0
            if len(request.shards) > 1:
                session.open_everywhere = client_id

    # ------------------------------------------------------------------------------- logon and the end
    def _logon(self, client: Client, request: Request) -> None:
        mark = request_mark(request)
        options = logon_options(request, self.limits.heartbeat_s)
        account = self.sessions.authenticate(options["account"], options["token"])
        if account is None:
            self.counts["logon_failures"] += 1
            client.judging = True
            self.call_later(self.limits.auth_failure_delay_s, lambda: self._turn_away(client, request))
            return
        session = self.sessions.create(account, options, client)
        session.mark = mark
        client.session = session
        self._open(client, session)

    def _turn_away(self, client: Client, request: Request) -> None:
        if not client.closed:
            self._refuse(client, request, Refusal(RejectCode.NOT_AUTHORISED, "unknown account or wrong token"))
            self.drop(client, "logon refused")

    def _open(self, client: Client, session: Session) -> None:
        if self.codec is None or not any(self.shard_usable(shard) for shard in range(self.shards)):
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
            "ids": "text" if session.text_ids else "integer", "shards": self.shards if self.codec else 0,
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

    def drop(self, client: Client, reason: str, *, tell_shards: bool = True, tell_client: bool = True) -> None:
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

    # ------------------------------------------------------------------------------- saying
    def say(self, client: Client, message: dict[str, Any]) -> None:
        """Send one message made by Python."""
        if not client.closed:
            client.send(orjson.dumps(message) + b"\n")

    def _refuse(self, client: Client, request: Request, refusal: Refusal, shard: int | None = None) -> None:
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
        message |= {"code": refusal.code, "reason": reason_of(refusal.code), "text": refusal.text, "last": True}
        mark = request.keys.get("request")
        if isinstance(mark, str) and len(mark) <= 40:
            message["request"] = str(mark)
        self.say(client, message)

    # ------------------------------------------------------------------------------- events out
    def pump(self, spin_ns: int = 0) -> bool:
        """Send the reports of all new events; returns whether there were any."""
        codec = self.codec
        if codec is None:
            return False
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

    def _deliver(self, row: int, data: memoryview) -> None:
        session = self.sessions.by_row[row]
        if session is None:
            return
        if session.stage is Stage.LIVE:
            session.client.send(data)
            return
        session.pending.append(bytes(data))
        session.pending_bytes += len(data)
        if session.pending_bytes > self.limits.output_bytes_max:
            self.overflow(session.client)

    def _event(self, status: int) -> None:
        # What the encoder stopped for.
        assert self.codec is not None
        if status == MORE:
            return
        shard, event = self.codec.special()
        if status == LAPPED:
            self.directory.load(self.parts.tops)
        elif status == UNKNOWN:
            if not self.directory.load(self.parts.tops) or not self.directory.has(int(event["symbol_id"])):
                self.directory.placeholder(int(event["symbol_id"]))
        elif status == SPECIAL:
            kind = int(event["kind"])
            if kind == EventKind.LISTED:
                name = bytes(event["text"][:8]).rstrip(b"\0").decode("ascii")
                self.directory.add(int(event["symbol_id"]), name, int(event["amount"]), int(event["amount2"]), int(event["px2"]))
            elif kind == EventKind.ACCOUNT and event["reason"] == Reason.SESSION_OPENED:
                self._opened(shard, event)
            elif kind == EventKind.REJECTED:
                self._open_refused(shard, event)

    def _opened(self, shard: int, event: Any) -> None:
        complete, older = self.sessions.answered(shard, event)
        for session in older:
            self.counts["takeovers"] += 1
            self.drop(session.client, "another logon has taken this session over", tell_shards=False)
        if complete is not None:
            self._welcome(complete)
        self.sessions.closes_flush(time.monotonic_ns())

    def _open_refused(self, shard: int, event: Any) -> None:
        session = self.sessions.refused(shard, event)
        if session is not None:
            code = int(event["code"])
            self._refuse(session.client, Request(), Refusal(code, f"shard {shard} refused the session: {reason_of(code)}"))
            self.drop(session.client, "logon refused")

    # ------------------------------------------------------------------------------- time
    def tick(self) -> None:
        """Every TICK_S: deadlines, heartbeats, shards that come and go, counters."""
        self.ticks += 1
        limits, per_s = self.limits, 1 / TICK_S
        deadline, dead = limits.logon_deadline_s * per_s, limits.idle_dead_s / limits.heartbeat_s
        for client in list(self.clients):
            session = client.session
            if session is None or session.stage is Stage.OPENING:
                if self.ticks - client.born > deadline and not client.judging:
                    self.drop(client, f"no logon within {limits.logon_deadline_s:g} s")
                continue
            beat = session.heartbeat_s * per_s
            if self.ticks - client.heard > beat * dead:
                self.drop(client, f"nothing heard for {session.heartbeat_s * dead:g} s")
            elif self.ticks - client.sent >= beat:
                self.say(client, {"type": "heartbeat", "ts": time.time_ns()})
        self.sessions.closes_flush(time.monotonic_ns())
        self.shards_poll()
        self._count()

    def _count(self) -> None:
        block = self.parts.counters
        if block is None:
            return
        values = {**self.counts, "connections": len(self.clients), "sessions": len(self.sessions.by_logon)}
        values |= {label: self.view[word] for label, word in _COUNTED}
        values |= {"heartbeat_ns": time.monotonic_ns(), "state": int(State.RUNNING)}
        for label in values.keys() & set(block.labels):
            block.set(label, values[label])


assert RECEIVE_BYTES > OVERSIZE_BYTES_MAX
