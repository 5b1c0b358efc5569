"""The client library without its sockets: requests to bytes, bytes to reports and answers. Cold.

Client and AsyncClient wrap one `ClientCore` each. They move bytes: `receive(data)` takes what came,
`take_output()` gives what must go out on its own (answers to test requests). A verb is a
*conversation*: a generator that yields `Request`s and gets their `Answer`s back, so that paging and
error raising are written once for both clients.

How an answer is found: queries carry a mark that their answer repeats; reports carry none. The
reports of one command share the order's ids, and a shard answers a session's commands in order; so
each waiting request knows which reports can be its own, and a report goes to the oldest waiting
request that takes it. Everything else (fills of resting orders, other sessions of the account) goes
to `reports`, which is bounded: above `REPORTS_MAX` the oldest are dropped and counted in `dropped`.

Per shard, `seq` must rise by one from the number the logon told; where it does not, the missing
range is in `gaps`. A client that resumes states the last numbers it saw; what it missed comes right
behind the logon answer, whose own numbers are those of the logon itself (`_told`).

A lost connection may be followed by another (`begin_again`). Requests that wait then are answered
by what is resumed, if the exchange had run them; those of which nothing was heard by then did not
run and never will, so they may be sent again (`taken_up`). That is not known of a shard which was
not running at the logon: it tells later what was missed. A refusal by the gateway until then is no
answer to what was sent first (`_doubt`). Not thread safe: the wrappers see to that.
"""

import uuid
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, Final, TypeVar

import orjson

from gateway.client_answers import (
    Answer,
    Line,
    Number,
    Request,
    Takes,
    ends,
    leg_ids,
    number_text,
    of_list,
    of_mark,
    of_mass,
    of_quote,
    raise_refusal,
)
from gateway.client_errors import LoggedOut, NetworkError, ProtocolError, RingbookError
from gateway.client_reports import (
    Book,
    Canceled,
    Gap,
    Id,
    InstrumentInfo,
    Logon,
    Order,
    Quote,
    Rejected,
    Replaced,
    Report,
    Status,
    report_of,
)
from gateway.client_state import ResumeState

REPORTS_MAX: Final = 1 << 16
LINE_BYTES_MAX: Final = 1 << 22  # a page of instruments is the longest line of all
IDS = ("integer", "text")
BUSY: Final = 901
DUPLICATE: Final = 203
UNAVAILABLE: Final = 905
CANCEL_ON_DISCONNECT = ("none", "day", "all")

T = TypeVar("T")
Conversation = Generator[Request, Answer, T]


class ClientCore:
    """State of one logged-on connection."""

    def __init__(
        self,
        account: str,
        token: str,
        *,
        session: str = "main",
        ids: str = "integer",
        cancel_on_disconnect: str = "none",
        receipts: bool = False,
        resume: ResumeState | None = None,
        dead_man: float | None = None,
    ) -> None:
        if ids not in IDS:
            raise ValueError(f"ids must be 'integer' or 'text', not {ids!r}")
        if cancel_on_disconnect not in CANCEL_ON_DISCONNECT:
            raise ValueError(
                f"cancel_on_disconnect must be none, day or all, not {cancel_on_disconnect!r}"
            )
        if dead_man is not None and not dead_man > 0:
            raise ValueError(f"dead_man must be a number of seconds above 0, not {dead_man!r}")
        if resume is not None and (resume.account, resume.session) != (account, session):
            raise ValueError(
                f"the state is of {resume.account}/{resume.session}, not of {account}/{session}"
            )
        self.account, self.token, self.session = account, token, session
        self.dead_man = dead_man
        self.ids, self.receipts = ids, receipts
        self.cancel_on_disconnect = cancel_on_disconnect
        self.logon: Logon | None = None
        self.last_id = 0
        self.incarnation = resume.incarnation if resume else 0
        self.seq: dict[int, int] = dict(resume.seq) if resume else {}
        self._stated: dict[int, int] = {}  # what the logon under way says that it has seen
        self._told: dict[int, int] = {}  # numbers of the logon itself: no reports follow
        self.gaps: list[Gap] = []
        self.reports: deque[Report] = deque()
        self.dropped = 0
        self.received = 0  # reports seen since logon
        self.closed: RingbookError | None = None
        self.suspended = False  # closed, but another connection is being tried
        self._waiting: deque[Answer] = deque()
        self._carry = b""
        self._output = bytearray()
        self._marks = 0
        # Text ids may not come twice in a day, over all connections of the account.
        self._prefix = f"{session}-{uuid.uuid4().hex[:12]}"

    # ------------------------------------------------------------------------------ bytes in
    def receive(self, data: bytes) -> list[Answer]:
        """Take bytes from the connection; give the answers that are now complete."""
        pieces = (self._carry + data).split(b"\n")
        self._carry = pieces.pop()
        if len(self._carry) > LINE_BYTES_MAX:
            raise ProtocolError(f"the exchange sent over {LINE_BYTES_MAX} bytes without a line end")
        complete: list[Answer] = []
        for piece in pieces:
            if piece.strip():
                answer = self._line(piece)
                if answer is not None:
                    complete.append(answer)
        return complete

    def _line(self, piece: bytes) -> Answer | None:
        try:
            line = orjson.loads(piece)
        except orjson.JSONDecodeError as error:
            raise ProtocolError(
                f"the exchange sent a line that is not JSON: {piece[:80]!r}"
            ) from error
        kind = line.get("type") if isinstance(line, dict) else None
        if not isinstance(kind, str):
            raise ProtocolError(f"the exchange sent a line without a type: {piece[:80]!r}")
        if kind == "heartbeat":
            return None
        if kind == "logon":
            self._logged_on(line)
        if kind == "test_request":
            self._output += b'{"type":"heartbeat"}\n'
            return None
        report = None
        if isinstance(line.get("seq"), int):
            report = report_of(line)
            self.received += 1
            self._count(report)
            self._release(report)
        return self._give(line, report)

    def _logged_on(self, line: Line) -> None:
        # Comes a second time when shards that were not running at logon have come up.
        logon = self.logon = Logon.of(line)
        self.session = logon.session or self.session
        self.last_id = max(self.last_id, logon.last_id)
        self.incarnation = logon.incarnation or self.incarnation
        for shard, seq in logon.seq.items():
            if shard in self._stated:
                self._told[shard] = seq
                self._advance(shard, self._stated.pop(shard))
            elif shard not in self._told:
                self.seq[shard] = max(seq, self.seq.get(shard, 0))

    @property
    def _shards(self) -> int:
        # 0 at a gateway whose shards are not running yet: it refuses, once.
        return max(1, self.logon.shards) if self.logon else 1

    def own(self, report: Report) -> bool:
        """Whether a report is about this session's orders, not another session of the account."""
        return report.session in (self.session, "")

    def _count(self, report: Report) -> None:
        if report.seq:
            due = self.seq.get(report.shard, 0) + 1
            if report.seq > due:
                self._gap(report.shard, due, report.seq - 1)
            self._advance(report.shard, max(report.seq, due - 1))

    def _advance(self, shard: int, seq: int) -> None:
        self.seq[shard] = seq + (self._told.get(shard) == seq + 1)

    def _gap(self, shard: int, first: int, last: int) -> None:
        told = self._told.get(shard, 0)
        if first <= told <= last:  # that number is no report
            self.gaps += [Gap(shard, first, told - 1)]
            first = told + 1
        if first <= last:
            self.gaps.append(Gap(shard, first, last))

    @property
    def state(self) -> ResumeState:
        """What a later connection needs to go on from here."""
        return ResumeState(self.account, self.session, self.incarnation, dict(self.seq))

    @property
    def resumed(self) -> bool:
        """Whether all that was missed has come."""
        return all(self.seq.get(shard, 0) >= told for shard, told in self._told.items())

    def _release(self, report: Report) -> None:
        # BUSY used up no id, and the gateway takes no higher one before: it is the next one again.
        if report.code == BUSY and isinstance(report.id, int) and report.id and not report.seq:
            self.last_id = min(self.last_id, report.id - 1)

    def _give(self, line: Line, report: Report | None) -> Answer | None:
        for answer in self._waiting:
            taken, ends = answer.takes(line, report)
            if taken:
                return self._add(answer, line, report, ends)
        if self._waiting and isinstance(report, Rejected) and not (report.id or report.order_id):
            # A refusal that names no order: the request it answers could not be read that far.
            return self._add(self._waiting[0], line, report, True)
        if report is not None:
            self._keep(report)
        elif line["type"] not in ("logon", "logout"):
            self._keep(report_of(line))  # asked for by send_nowait
        elif line["type"] == "logout":
            reason = line.get("text") or line.get("reason") or "no reason given"
            self.closed = LoggedOut(f"the exchange logged this session out: {reason}")
        return None

    def _keep(self, report: Report) -> None:
        if len(self.reports) >= REPORTS_MAX:
            self.reports.popleft()
            self.dropped += 1
        self.reports.append(report)

    def _add(self, answer: Answer, line: Line, report: Report | None, ends: bool) -> Answer | None:
        answer.lines.append(line)
        if report is not None:
            answer.reports.append(report)
        if ends:
            answer.done, answer.failure = True, self._doubt(answer, report)
            self._waiting.remove(answer)
            return answer
        return None

    def _doubt(self, answer: Answer, report: Report | None) -> RingbookError | None:
        # What the gateway refuses of a shard that has not told yet what was missed.
        if not (answer.repeated and isinstance(report, Rejected)) or report.seq:
            return None
        untold = report.code == UNAVAILABLE and report.shard in self._stated
        if not untold and not (report.code == DUPLICATE and self._stated):
            return None
        return NetworkError(
            "the shard of this request is not back yet: whether it ran before the connection was"
            " lost, its reports will tell"
        )

    # ----------------------------------------------------------------------------- bytes out
    def take_output(self) -> bytes:
        """Give what must be sent without anybody having asked."""
        output, self._output = bytes(self._output), bytearray()
        return output

    def connection_lost(self, error: RingbookError) -> list[Answer]:
        """Fail everything that waits; give it."""
        failed, self._waiting, self.suspended = list(self._waiting), deque(), False
        self.closed = self.closed or error
        for answer in failed:
            answer.failure = self.closed
            answer.done = True
        return failed

    def suspend(self, error: RingbookError) -> None:
        """The connection is gone, and another will be tried: who waits goes on waiting, and new
        requests wait behind them. Until `taken_up` or `connection_lost`.
        """
        self.closed, self.suspended = self.closed or error, True
        for answer in self._waiting:
            answer.repeated = True

    def begin_again(self, *, resume: bool = True) -> None:
        """A new connection takes the place of the old one; `log_on` is next."""
        self.closed, self._carry = None, b""
        self._output.clear()
        self._stated, self._told = {}, {}
        if not resume:
            self.seq, self.incarnation = {}, 0

    def taken_up(self) -> bytes:
        """The new connection stands, and all that was missed has come. Gives the requests of which
        nothing was heard, to be sent again.
        """
        self.suspended = False
        return b"".join(answer.payload for answer in self._waiting if not answer.lines)

    def forget(self, answer: Answer) -> None:
        """Stop waiting for an answer: its reports will go to `reports`."""
        if answer in self._waiting:
            self._waiting.remove(answer)

    def next_id(self) -> Id:
        """Take the next client id of this session."""
        self.last_id += 1
        return self.last_id if self.ids == "integer" else f"{self._prefix}-{self.last_id}"

    def encode(self, line: Line) -> bytes:
        """Write one request line; None values are left out."""
        return orjson.dumps({k: v for k, v in line.items() if v is not None}) + b"\n"

    def order_line(
        self,
        symbol: str,
        side: str,
        qty: Number | None,
        price: Number | None = None,
        *,
        tif: str | None = None,
        post_only: bool = False,
        id: Id | None = None,
        tag: int | None = None,
        order_type: str | None = None,
        peak: Number | None = None,
        min_qty: Number | None = None,
        hidden: bool = False,
        slide: bool = False,
        stp: str | None = None,
        expire_time: int | None = None,
        protected: bool = False,
        trigger: Number | None = None,
        trigger_on: str | None = None,
        activation: Number | None = None,
        distance: Number | None = None,
        distance_bps: int | None = None,
        budget: Number | None = None,
    ) -> Line:
        """Give a new order as a line; takes the next client id where none is given. Options as in
        `OrderOptions`.
        """
        own = self.next_id() if id is None else id
        if id is not None and isinstance(id, int):
            self.last_id = max(self.last_id, id)
        return {
            "type": "new",
            "symbol": symbol,
            "side": side,
            "qty": number_text(qty),
            "price": number_text(price),
            "order_type": order_type,
            "tif": tif,
            "post_only": post_only or None,
            "id": own,
            "tag": tag,
            "peak": number_text(peak),
            "min_qty": number_text(min_qty),
            "hidden": hidden or None,
            "slide": slide or None,
            "stp": stp,
            "expire_time": expire_time,
            "protected": protected or None,
            "trigger": number_text(trigger),
            "trigger_on": trigger_on,
            "activation": number_text(activation),
            "distance": number_text(distance),
            "distance_bps": distance_bps,
            "budget": number_text(budget),
        }

    def list_line(self, kind: str, symbol: str, legs: Sequence[Line]) -> Line:
        """Give a list of linked orders as a line: each leg is what `order_line` takes, but the
        symbol.
        """
        line: Line = {"type": kind, "symbol": symbol}
        for number, leg in enumerate(legs, 1):
            fields = self.order_line(symbol, **leg)
            line |= {
                f"leg{number}_{key}": value
                for key, value in fields.items()
                if key not in ("type", "symbol")
            }
        return line

    def quote_line(
        self,
        symbol: str,
        bid: Number | None = None,
        bid_qty: Number | None = None,
        ask: Number | None = None,
        ask_qty: Number | None = None,
        *,
        tag: int | None = None,
    ) -> Line:
        """Give a quote as a line; takes the next client id."""
        if self.ids != "integer":
            raise ValueError("a quote is two orders: it needs a session with integer ids")
        sides = {"bid": bid, "bid_qty": bid_qty, "ask": ask, "ask_qty": ask_qty}
        stated = {key: number_text(value) for key, value in sides.items()}
        return {"type": "quote", "symbol": symbol, **stated, "id": self.next_id(), "tag": tag}

    def _request(self, line: Line, takes: Takes) -> Request:
        if self.closed is not None and not self.suspended:
            raise self.closed
        answer = Answer(takes, payload=self.encode(line))
        self._waiting.append(answer)
        return Request(answer.payload, answer)

    def _query(self, line: Line) -> Request:
        self._marks += 1
        mark = f"q{self._marks}"
        return self._request({**line, "request": mark}, of_mark(line["type"], mark))

    # --------------------------------------------------------------------------------- verbs
    def log_on(self) -> Conversation[Logon]:
        """Log on; must be the first conversation."""
        line = {
            "type": "logon",
            "account": self.account,
            "token": self.token,
            "session": self.session,
            "ids": self.ids,
            "cancel_on_disconnect": self.cancel_on_disconnect,
            "receipts": self.receipts or None,
            "dead_man": self.dead_man,
            "resume": self.state.text or None,
            "incarnation": (self.incarnation or None) if self.seq else None,
        }
        self._stated = dict(self.seq)
        request = self._query(line)
        self._waiting.rotate(1)  # before requests that have been waiting since the last connection
        answer = yield request
        raise_refusal(answer)
        return self.logon or Logon.of(answer.lines[-1])

    def place(self, line: Line) -> Conversation[Order]:
        """Send a new order (a line of `order_line`)."""
        answer = yield self._request(line, self._of_order(line["id"]))
        raise_refusal(answer)
        return Order.of(answer.reports)

    def place_list(self, line: Line) -> Conversation[list[Order]]:
        """Send a list (a line of `list_line`); gives its orders, leg by leg."""
        ids = leg_ids(line)
        answer = yield self._request(line, of_list(line, self.own))
        raise_refusal(answer)
        by_leg = [[report for report in answer.reports if report.id == own] for own in ids]
        return [Order.of(reports) for reports in by_leg if reports]

    def quote(self, line: Line) -> Conversation[Quote]:
        """Enter, change or remove a quote (a line of `quote_line`)."""
        answer = yield self._request(line, of_quote(line["id"], self.own))
        raise_refusal(answer)
        return Quote.of(answer.reports)

    def cancel(self, target: Line) -> Conversation[Order]:
        """Cancel one order (a line of `target_line`)."""
        answer = yield self._request(
            {"type": "cancel", **target}, self._of_target(target, Canceled)
        )
        raise_refusal(answer)
        return Order.of(answer.reports)

    def replace(
        self,
        target: Line,
        qty: Number | None = None,
        price: Number | None = None,
        *,
        peak: Number | None = None,
        min_qty: Number | None = None,
        tif: str | None = None,
        expire_time: int | None = None,
        trigger: Number | None = None,
        activation: Number | None = None,
        distance: Number | None = None,
        distance_bps: int | None = None,
    ) -> Conversation[Order]:
        """Change price, total quantity or options of one order."""
        line = {
            "type": "replace",
            **target,
            "qty": number_text(qty),
            "price": number_text(price),
            "peak": number_text(peak),
            "min_qty": number_text(min_qty),
            "tif": tif,
            "expire_time": expire_time,
            "trigger": number_text(trigger),
            "activation": number_text(activation),
            "distance": number_text(distance),
            "distance_bps": distance_bps,
        }
        answer = yield self._request(line, self._of_target(target, Replaced, Canceled))
        raise_refusal(answer)
        return Order.of(answer.reports)

    def mass_cancel(self, line: Line) -> Conversation[list[Report]]:
        """Cancel many; gives what was cancelled."""
        shards = self._shards
        one = line.get("symbol") is not None or line.get("shard") is not None
        takes = of_mass(1 if one else shards, self.own)
        answer = yield self._request({"type": "mass_cancel", **line}, takes)
        raise_refusal(answer)
        return [report for report in answer.reports if isinstance(report, Canceled)]

    def order(self, target: Line) -> Conversation[Order]:
        """Ask where one order stands."""
        answer = yield self._request({"type": "order", **target}, self._of_target(target, Status))
        raise_refusal(answer)
        return Order.of(answer.reports)

    def open_orders(self, symbol: str | None, page: int) -> Conversation[list[Order]]:
        """List live orders, asking for as many pages as there are, shard after shard."""
        found: list[Order] = []
        shards = range(self._shards)
        for shard in (None,) if symbol is not None else shards:
            after = 0
            while True:
                line = {"type": "open_orders", "symbol": symbol, "shard": shard, "limit": page}
                line["after"] = after or None
                answer = yield self._request(line, of_mass(1, self.own, Status))
                raise_refusal(answer)
                rows = [report for report in answer.reports if isinstance(report, Status)]
                found += [Order.of([row]) for row in rows]
                more = int(answer.lines[-1].get("next") or 0)
                if not more:
                    break
                if not rows or more <= after:
                    raise ProtocolError(
                        "the exchange says that more open orders follow, but not where"
                    )
                after = more
        return found

    def book(self, symbol: str, depth: int | None) -> Conversation[Book]:
        """Ask for one book."""
        answer = yield self._query({"type": "book", "symbol": symbol, "depth": depth})
        raise_refusal(answer)
        return Book.of(answer.lines[-1])

    def instruments(self) -> Conversation[list[InstrumentInfo]]:
        """List all instruments, page by page."""
        found: list[InstrumentInfo] = []
        after: Any = None
        while True:
            answer = yield self._query({"type": "instruments", "after": after})
            raise_refusal(answer)
            reply = answer.lines[-1]
            rows = reply.get("instruments", [])
            found += [InstrumentInfo.of(row) for row in rows]
            after, before = reply.get("next"), after
            if not after:
                return found
            if not rows or after == before:
                raise ProtocolError("the exchange says that more instruments follow, but not where")

    def limits(self) -> Conversation[Line]:
        """Ask for the limits of account and gateway."""
        answer = yield self._query({"type": "limits"})
        raise_refusal(answer)
        return answer.lines[-1]

    # ------------------------------------------------------------- which reports answer a request
    def _of_order(self, own: Id) -> Takes:
        def takes(line: Line, report: Report | None) -> tuple[bool, bool]:
            if report is None or report.id != own or not self.own(report):
                return False, False
            return True, ends(report)

        return takes

    def _of_target(self, target: Line, *begins: type[Report]) -> Takes:
        order_id, client_id = target.get("order_id"), target.get("target_id")
        begun = False

        def takes(line: Line, report: Report | None) -> tuple[bool, bool]:
            nonlocal begun
            if report is None:
                return False, False
            if order_id is not None:
                named = report.order_id == order_id
            else:
                named = self.own(report) and client_id in (report.id, report.raw.get("target_id"))
            if not named or not (begun or isinstance(report, (*begins, Rejected))):
                return False, False
            begun = True
            return True, ends(report)

        return takes
