"""The client's core without sockets: lines in, answers, reports, gaps and errors out."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ringbook
from engine.records import RejectCode
from gateway import client_errors
from gateway.client_answers import decimal_text, target_line
from gateway.client_core import REPORTS_MAX, ClientCore, Conversation
from gateway.client_errors import (
    CODES,
    ConnectionLost,
    DuplicateOrderId,
    ExchangeBusy,
    ExchangeError,
    ExchangeNotAvailable,
    InvalidOrder,
    NetworkError,
    OrderNotFound,
    ProtocolError,
    RingbookError,
    error_of,
)
from gateway.client_reports import Booked, Canceled, Fill, Gap, Order, Status
from gateway.client_state import ResumeState

ROOT = Path(__file__).resolve().parents[2]


class Desk:
    """A core with its conversation partner: `say` gives it lines, `sent` are its requests."""

    def __init__(self, **options: Any) -> None:
        self.core = ClientCore("demo", "demo", **options)
        self.sent: list[dict[str, Any]] = []
        self.talk: Conversation[Any] | None = None
        self.result: Any = None
        self._seq: dict[int, int] = {}

    def ask(self, talk: Conversation[Any]) -> None:
        self.talk = talk
        self._note(next(talk))

    def _note(self, request: Any) -> None:
        self.sent.append(orjson.loads(request.payload))

    def say(self, **line: Any) -> None:
        self.receive(orjson.dumps(line) + b"\n")

    def report(self, type: str, *, shard: int = 0, **line: Any) -> None:
        self._seq[shard] = self._seq.get(shard, 0) + 1
        self.say(type=type, seq=self._seq[shard], shard=shard, **line)

    def receive(self, data: bytes) -> None:
        for answer in self.core.receive(data):
            assert self.talk is not None
            try:
                self._note(self.talk.send(answer))
            except StopIteration as stop:
                self.result, self.talk = stop.value, None

    @property
    def mark(self) -> str:
        return str(self.sent[-1]["request"])


def logged_on(shards: int = 1, **options: Any) -> Desk:
    desk = Desk(**options)
    desk.ask(desk.core.log_on())
    seq = {str(shard): 0 for shard in range(shards)}
    kind = options.get("ids", "integer")
    desk.say(
        type="logon", account="demo", session="main", ids=kind, shards=shards, last_id=40, seq=seq,
        request=desk.mark,
    )  # fmt: skip
    return desk


ORDER = {"symbol": "AAPL", "order_id": 16777217, "id": 41, "side": "buy", "session": "main"}


def order(desk: Desk, price: str | None = "10.00", qty: str = "5", **more: Any) -> None:
    desk.ask(desk.core.place(desk.core.order_line("AAPL", "buy", qty, price, **more)))


# ----------------------------------------------------------------------------------------- answers
def test_logon_continues_the_sessions_ids_and_sequence() -> None:
    desk = logged_on(shards=2)
    assert desk.result.shards == 2
    assert desk.core.next_id() == 41
    assert desk.core.seq == {0: 0, 1: 0}


def test_a_resting_order_is_answered_by_accepted_and_booked() -> None:
    desk = logged_on()
    order(desk)
    assert desk.sent[-1] == {
        "type": "new", "symbol": "AAPL", "side": "buy", "qty": "5", "price": "10.00", "id": 41
    }  # fmt: skip
    amounts = {"price": "10.00", "qty": "5", "leaves": "5", "filled": "0"}
    desk.report("accepted", **ORDER, **amounts, order_type="limit", tif="gtc")
    assert desk.result.shards == 1  # still the logon's: the answer is not complete
    desk.report("booked", **ORDER, **amounts, last=True)
    result = desk.result
    assert isinstance(result, Order)
    assert (result.status, result.remaining, result.type) == ("open", Decimal(5), "limit")
    assert not desk.core.reports


def test_a_trading_order_leaves_the_makers_fill_to_the_stream() -> None:
    desk = logged_on()
    order(desk)
    desk.report("accepted", **ORDER, price="10.00", qty="5", leaves="5", filled="0")
    maker = {**ORDER, "order_id": 16777999, "id": 7, "side": "sell"}
    fill = {"price": "9.99", "qty": "5", "trade_id": 1}
    desk.report("fill", **maker, **fill, leaves="1", filled="5", role="maker")
    desk.report("fill", **ORDER, **fill, leaves="0", filled="5", role="taker", last=True)
    assert desk.result.status == "filled"
    assert desk.result.average == Decimal("9.99")
    assert [type(r) for r in desk.core.reports] == [Fill]
    assert desk.core.reports[0].id == 7


def test_a_market_remainder_ends_expired() -> None:
    desk = logged_on()
    order(desk, price=None)
    assert "price" not in desk.sent[-1]
    desk.report("accepted", **ORDER, qty="5", leaves="5", filled="0", order_type="market")
    fill = {"price": "9.99", "qty": "2", "leaves": "3", "filled": "2", "role": "taker"}
    desk.report("fill", **ORDER, **fill)
    desk.report("expired", **ORDER, qty="3", leaves="0", filled="2", reason="market_remainder")
    assert (desk.result.status, desk.result.filled, desk.result.remaining) == ("expired", 2, 0)
    assert desk.result.price is None


def test_a_refusal_raises_its_class_with_the_exchanges_sentence() -> None:
    desk = logged_on()
    order(desk)
    with pytest.raises(DuplicateOrderId, match=r"DUPLICATE \(203\): used before") as caught:
        desk.report("rejected", id=41, code=203, reason="duplicate", text="used before")
    assert caught.value.report.code == 203


def test_a_refusal_that_names_nothing_belongs_to_the_oldest_request() -> None:
    desk = logged_on()
    order(desk)
    with pytest.raises(InvalidOrder):
        desk.say(type="rejected", seq=0, code=101, text="not JSON")


def test_a_refused_query_is_found_by_its_mark() -> None:
    desk = logged_on()
    desk.ask(desk.core.book("NONE", 5))
    with pytest.raises(ExchangeError, match="301"):
        desk.say(type="rejected", seq=0, code=301, text="no such instrument", request=desk.mark)


def test_cancel_waits_for_its_own_order() -> None:
    desk = logged_on()
    desk.ask(desk.core.cancel(target_line(16777217, None, "AAPL", None)))
    assert desk.sent[-1] == {"type": "cancel", "order_id": 16777217, "symbol": "AAPL"}
    desk.report("canceled", **{**ORDER, "order_id": 5}, qty="1", reason="client")
    desk.report("canceled", **ORDER, qty="5", leaves="0", filled="0", reason="client", last=True)
    assert desk.result.order_id == 16777217
    assert [type(r) for r in desk.core.reports] == [Canceled]


def test_a_replace_that_trades_collects_its_fills() -> None:
    desk = logged_on()
    desk.ask(desk.core.replace(target_line(None, 41, "AAPL", None), 9, "10.10"))
    assert desk.sent[-1]["qty"] == "9"
    desk.report("fill", **ORDER, price="10.00", qty="1", leaves="4", filled="1", role="maker")
    desk.report("replaced", **ORDER, price="10.10", qty="9", leaves="8", filled="1")
    fill = {"price": "10.05", "qty": "3", "leaves": "5", "filled": "4", "role": "taker"}
    desk.report("fill", **ORDER, **fill)
    desk.report("booked", **ORDER, price="10.10", qty="5", leaves="5", filled="4", last=True)
    result = desk.result
    assert (result.amount, result.filled, result.remaining, result.status) == (9, 4, 5, "open")
    assert len(result.fills) == 1
    assert [report.role for report in desk.core.reports] == ["maker"]


def test_summary_of_another_session_does_not_end_a_mass_cancel() -> None:
    desk = logged_on()
    desk.ask(desk.core.mass_cancel({"symbol": "AAPL"}))
    desk.report("summary", count=9, reason="mass", last=True, session="other")
    assert not isinstance(desk.result, list)
    desk.report("canceled", **ORDER, reason="mass", qty="5", leaves="0", filled="0")
    desk.report("summary", count=1, reason="mass", last=True, session="main")
    assert [report.order_id for report in desk.result] == [16777217]


@pytest.mark.parametrize("reason", ["disconnect", "dead_man"])
def test_summary_of_what_nobody_asked_for_answers_no_request(reason: str) -> None:
    desk = logged_on()
    desk.ask(desk.core.mass_cancel({"symbol": "AAPL"}))
    desk.report("summary", count=0, reason=reason, last=True, session="main")
    assert not isinstance(desk.result, list)
    desk.report("summary", count=0, reason="mass", last=True, session="main")
    assert desk.result == []
    desk.ask(desk.core.open_orders("AAPL", 2))
    desk.report("summary", count=0, reason=reason, last=True, session="main")
    assert desk.talk is not None
    desk.report("summary", count=0, last=True, session="main")
    assert desk.talk is None


def test_mass_cancel_is_sent_again_when_only_the_lost_connection_was_summed_up() -> None:
    desk = logged_on()
    desk.ask(desk.core.mass_cancel({"symbol": "AAPL"}))
    desk.core.suspend(ConnectionLost("gone"))
    desk.core.begin_again()
    desk.report("summary", count=0, reason="disconnect", last=True, session="main")
    assert b"mass_cancel" in desk.core.taken_up()


def test_mass_cancel_waits_for_every_shard() -> None:
    desk = logged_on(shards=2)
    desk.ask(desk.core.mass_cancel({}))
    desk.report("canceled", **ORDER, qty="5", reason="mass")
    desk.report("summary", count=1, reason="mass", last=True)
    assert desk.talk is not None
    desk.report("canceled", **ORDER, shard=1, qty="5", reason="mass")
    desk.report("summary", shard=1, count=1, reason="mass", last=True)
    assert len(desk.result) == 2


def test_open_orders_asks_for_all_pages_of_all_shards() -> None:
    desk = logged_on(shards=2)
    desk.ask(desk.core.open_orders(None, 2))
    status = {"price": "10.00", "qty": "5", "leaves": "5", "filled": "0", "state": "new"}
    for number in (1, 2):
        desk.report("status", **{**ORDER, "order_id": number}, **status)
    desk.report("summary", count=2, next=2)
    assert (desk.sent[-1]["shard"], desk.sent[-1]["after"]) == (0, 2)
    desk.report("status", **{**ORDER, "order_id": 3}, **status)
    desk.report("summary", count=1)
    assert desk.sent[-1]["shard"] == 1
    assert "after" not in desk.sent[-1]
    desk.report("summary", shard=1, count=0)
    assert [found.order_id for found in desk.result] == [1, 2, 3]
    assert {found.status for found in desk.result} == {"open"}


def test_instruments_ask_for_all_pages() -> None:
    desk = logged_on()
    desk.ask(desk.core.instruments())
    row = {"tick": "0.01", "lot": "1", "max_price": "100", "phase": "continuous", "shard": 0}
    rows = [{"symbol": "A", **row}]
    desk.say(type="instruments", instruments=rows, next="A", request=desk.mark)
    assert desk.sent[-1]["after"] == "A"
    desk.say(type="instruments", instruments=[{"symbol": "B", **row}], request=desk.mark)
    assert [found.symbol for found in desk.result] == ["A", "B"]
    assert desk.result[0].tick == Decimal("0.01")


def test_a_page_that_never_ends_is_a_protocol_error() -> None:
    desk = logged_on()
    desk.ask(desk.core.instruments())
    with pytest.raises(ProtocolError):
        desk.say(type="instruments", instruments=[], next="A", request=desk.mark)


def test_a_book_has_exact_levels() -> None:
    desk = logged_on()
    desk.ask(desk.core.book("AAPL", 5))
    asks, bids = [["10.02", "7", 2]], [["10.01", "3.5", 1], ["10.00", "1", 1]]
    desk.say(type="book", symbol="AAPL", bids=bids, asks=asks, out_seq=9, request=desk.mark)
    assert desk.result.spread == Decimal("0.01")
    assert desk.result.bids[0].qty == Decimal("3.5")
    assert desk.result.seq == 9


# ------------------------------------------------------------------------- reports and sequence
STATE = ResumeState("demo", "main", 3, {0: 17, 1: 4})


def came_back(seq: dict[str, int], **more: Any) -> Desk:
    """A desk that has resumed from STATE; the shards' answers are `seq`."""
    desk = Desk(resume=STATE, **more)
    desk.ask(desk.core.log_on())
    desk.say(
        type="logon", account="demo", session="main", ids="integer", shards=2, last_id=40, seq=seq,
        incarnation=3, request=desk.mark,
    )  # fmt: skip
    return desk


def test_n2_client_states_what_it_saw_and_counts_on_from_there() -> None:
    desk = came_back({"0": 20, "1": 5}, dead_man=2.5)
    line = desk.sent[0]
    assert (line["resume"], line["incarnation"], line["dead_man"]) == ("0:17,1:4", 3, 2.5)
    assert desk.core.seq == {0: 17, 1: 5}  # shard 1: nothing but the logon itself
    assert not desk.core.resumed
    for seq in (18, 19):
        desk.say(type="booked", seq=seq, shard=0)
    assert desk.core.resumed
    assert desk.core.state == ResumeState("demo", "main", 3, {0: 20, 1: 5})
    desk.say(type="booked", seq=21, shard=0)
    desk.say(type="booked", seq=6, shard=1)
    assert desk.core.gaps == []


def test_n2_number_of_the_logon_is_no_gap_and_missing_ones_around_it_are() -> None:
    desk = came_back({"0": 20, "1": 9})
    desk.say(type="booked", seq=23, shard=0)
    desk.say(type="booked", seq=8, shard=1)
    assert desk.core.gaps == [Gap(0, 18, 19), Gap(0, 21, 22), Gap(1, 5, 7)]


def test_n2_shard_that_was_down_is_resumed_when_the_logon_is_told_again() -> None:
    desk = came_back({"0": 20})
    desk.say(type="booked", seq=18, shard=0)
    desk.say(type="logon", shards=2, last_id=40, seq={"0": 20, "1": 7}, request=desk.mark)
    assert desk.core.seq == {0: 18, 1: 4}
    for seq, shard in ((19, 0), (5, 1), (6, 1), (8, 1)):
        desk.say(type="booked", seq=seq, shard=shard)
    assert (desk.core.gaps, desk.core.resumed) == ([], True)


def test_n2_client_that_starts_anew_forgets_the_old_numbers() -> None:
    desk = came_back({"0": 20, "1": 9})
    desk.core.begin_again(resume=False)
    desk.ask(desk.core.log_on())
    assert not {"resume", "incarnation"} & desk.sent[-1].keys()
    desk.say(type="logon", shards=2, last_id=0, seq={"0": 2, "1": 3}, incarnation=4,
             request=desk.mark)  # fmt: skip
    assert (desk.core.seq, desk.core.incarnation) == ({0: 2, 1: 3}, 4)


def test_n4_only_what_nobody_has_heard_of_is_sent_again() -> None:
    desk = logged_on()
    talks = [desk.core.place(desk.core.order_line("AAPL", "buy", n, "10.00")) for n in (1, 2, 3)]
    payloads = [next(talk).payload for talk in talks]
    desk.say(type="accepted", seq=1, shard=0, id=41, order_id=1, session="main")
    desk.core.suspend(ConnectionLost("gone"))
    fourth = next(desk.core.place(desk.core.order_line("AAPL", "buy", 4, "10.00"))).payload
    desk.core.begin_again()
    desk.ask(desk.core.log_on())
    assert desk.sent[-1]["resume"] == "0:1"
    desk.say(type="logon", shards=1, last_id=42, seq={"0": 6}, request=desk.mark)
    talks[0].close()
    desk.core.receive(
        b'{"type":"booked","seq":2,"shard":0,"id":41,"order_id":1,"session":"main"}\n'
        b'{"type":"accepted","seq":3,"shard":0,"id":42,"order_id":2,"session":"main"}\n'
    )
    assert desk.core.taken_up() == payloads[2] + fourth


def again_without_shard_1() -> Desk:
    """A connection was lost with an order under way; shard 1 is not running at the next logon."""
    desk = logged_on(shards=2)
    order(desk)
    lost, desk.talk = desk.talk, None
    desk.core.suspend(ConnectionLost("gone"))
    desk.core.begin_again()
    desk.ask(desk.core.log_on())
    desk.say(type="logon", shards=2, last_id=40, seq={"0": 1}, request=desk.mark)
    assert b'"id":41' in desk.core.taken_up()
    desk.talk = lost
    return desk


REFUSED = {"type": "rejected", "seq": 0, "session": "main", "id": 41, "last": True}


@pytest.mark.parametrize("more", [{"code": 905, "shard": 1}, {"code": 203}])
def test_n4_refusal_of_a_repetition_tells_nothing_of_what_ran_on_a_shard_that_is_not_back(
    more: dict[str, int],
) -> None:
    desk = again_without_shard_1()
    with pytest.raises(NetworkError, match="not back yet"):
        desk.say(**REFUSED, **more)


def test_n4_refusal_of_a_repetition_is_believed_of_a_shard_that_has_told_all() -> None:
    desk = again_without_shard_1()
    with pytest.raises(ExchangeNotAvailable):
        desk.say(**REFUSED, code=905, shard=0)
    desk = again_without_shard_1()
    desk.say(type="logon", shards=2, last_id=40, seq={"0": 1, "1": 1})
    with pytest.raises(DuplicateOrderId):
        desk.say(**REFUSED, code=203)


def test_n4_refusal_of_what_was_sent_once_is_believed() -> None:
    desk = again_without_shard_1()
    order(desk)
    with pytest.raises(ExchangeNotAvailable):
        desk.say(**(REFUSED | {"id": 42}), code=905, shard=1)


def test_missing_numbers_are_gaps_per_shard() -> None:
    desk = logged_on(shards=2)
    for shard, seq in ((0, 1), (1, 1), (0, 4), (1, 2), (0, 5), (1, 5)):
        desk.say(type="booked", seq=seq, shard=shard, **ORDER)
    assert desk.core.gaps == [Gap(0, 2, 3), Gap(1, 3, 4)]


def test_a_number_told_twice_does_not_move_the_sequence_back() -> None:
    desk = logged_on()
    for seq in (1, 2, 1, 3):
        desk.say(type="booked", seq=seq, shard=0, **ORDER)
    assert desk.core.gaps == []
    assert desk.core.seq[0] == 3


def test_reports_of_an_unknown_type_count_in_the_sequence() -> None:
    desk = logged_on()
    desk.report("account", reason="session_opened")
    desk.report("booked", **ORDER)
    assert desk.core.gaps == []
    assert [type(r) for r in desk.core.reports][1:] == [Booked]


@pytest.mark.later
def test_unread_reports_are_bounded_and_the_loss_is_counted() -> None:
    desk = logged_on()
    line = orjson.dumps({"type": "booked", "seq": 0, "shard": 0, "id": 1}) + b"\n"
    desk.receive(line * (REPORTS_MAX + 3))
    assert len(desk.core.reports) == REPORTS_MAX
    assert desk.core.dropped == 3


def test_a_test_request_is_answered_by_itself() -> None:
    desk = logged_on()
    desk.say(type="test_request")
    assert orjson.loads(desk.core.take_output()) == {"type": "heartbeat"}
    assert desk.core.take_output() == b""


def test_a_logout_closes_with_its_reason() -> None:
    desk = logged_on()
    desk.say(type="logout", reason="takeover", text="another logon owns this session")
    with pytest.raises(ConnectionLost, match="another logon owns"):
        order(desk)


def test_a_lost_connection_fails_what_waits() -> None:
    desk = logged_on()
    order(desk)
    [answer] = desk.core.connection_lost(ConnectionLost("gone"))
    with pytest.raises(ConnectionLost, match="gone"):
        desk.talk.send(answer)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "junk", [b"hello\n", b"[1]\n", b'{"no":1}\n', b"\xff\xfe\n", b'{"type":3}\n']
)
def test_what_is_not_our_protocol_is_refused(junk: bytes) -> None:
    with pytest.raises(ProtocolError):
        logged_on().core.receive(junk)


@given(st.lists(st.integers(1, 40), max_size=20))
def test_the_way_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    lines = b"".join(
        orjson.dumps({"type": "booked", "seq": n, "shard": 0, "id": n, "text": 'ä"}'}) + b"\r\n"
        for n in range(1, 5)
    )
    core = logged_on().core
    at = 0
    for cut in cuts:
        core.receive(lines[at : at + cut])
        at += cut
    core.receive(lines[at:])
    assert [report.id for report in core.reports] == [1, 2, 3, 4]
    assert core.gaps == []


def test_text_ids_begin_with_the_session_and_never_come_twice() -> None:
    made = [logged_on(ids="text").core.next_id() for _ in range(2)]
    assert all(str(own).startswith("main-") and len(str(own)) <= 36 for own in made)
    assert made[0] != made[1]


def test_an_id_refused_busy_is_the_next_one_again() -> None:
    # The gateway refuses every higher id until this one comes again.
    desk = logged_on()
    order(desk)
    desk.core.next_id()
    with pytest.raises(ExchangeBusy):
        desk.say(type="rejected", seq=0, id=41, code=901, text="the queue of shard 0 is full")
    order(desk)
    assert desk.sent[-1]["id"] == 41


def test_the_status_of_a_retransmitted_order_answers_it() -> None:
    desk = logged_on()
    order(desk, id=41)
    terms = {"price": "10.00", "qty": "5", "leaves": "2", "filled": "3"}
    desk.report("status", **ORDER, **terms, state="partially_filled", last=True)
    assert isinstance(desk.result.reports[0], Status)
    assert (desk.result.status, desk.result.filled) == ("open", 3)


# ------------------------------------------------------------------------------ numbers and names
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1E+2"), "100"),
        (Decimal("0.00001"), "0.00001"),
        (1e-05, "0.00001"),
        (0.1, "0.1"),
        (" 187.42 ", "187.42"),
        (7, "7"),
        ("1e3", "1000"),
    ],
)
def test_numbers_are_sent_as_they_were_meant(value: Any, text: str) -> None:
    assert decimal_text(value) == text


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), "1e"])
def test_what_is_no_number_is_refused_here(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, ArithmeticError)):
        decimal_text(value)


def test_every_reject_code_has_its_class_and_name() -> None:
    expected = {int(code): code.name for code in RejectCode if code}
    assert {code: name for code, (name, _) in CODES.items()} == expected
    assert isinstance(error_of(901), ExchangeBusy)
    assert isinstance(error_of(501), OrderNotFound)
    assert type(error_of(599)) is InvalidOrder  # a code of a later version
    assert type(error_of(777)) is ExchangeError


def test_the_error_tree_is_drawn_as_it_is() -> None:
    stack: list[tuple[int, str]] = []
    drawn: dict[str, str] = {}
    for line in (client_errors.__doc__ or "").splitlines():
        bare = line.lstrip(" │├└─")
        name = bare.split(" ")[0]
        if not isinstance(getattr(client_errors, name or "-", None), type):
            continue
        column = len(line) - len(bare)
        while stack and stack[-1][0] >= column:
            stack.pop()
        drawn[name] = stack[-1][1] if stack else "Exception"
        stack.append((column, name))
    classes = [kind for kind in vars(client_errors).values() if isinstance(kind, type)]
    real = {k.__name__: k.__bases__[0].__name__ for k in classes if issubclass(k, RingbookError)}
    assert drawn == real


def test_the_public_face_has_everything_it_names() -> None:
    assert "LocalExchange" in ringbook.__all__
    for name in ringbook.__all__:
        assert getattr(ringbook, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = ringbook.Nothing  # type: ignore[attr-defined]


def test_a_client_starts_without_numpy_and_without_the_compiler() -> None:
    code = "import sys, ringbook; ringbook.Client; ringbook.AsyncClient; print(*sys.modules)"
    words = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert not {"numpy", "numba", "llvmlite", "rich"} & set(words)
