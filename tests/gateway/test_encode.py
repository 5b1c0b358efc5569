"""Reports: every event kind as the reference writes it, to every session of the account, in order,
whatever the batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.jit import JIT_DISABLED
from engine.records import (
    EVENT,
    EVENT_SLOT,
    EventFlag,
    EventKind,
    OrderState,
    OrderType,
    Reason,
    RejectCode,
    Role,
    SelfTrade,
    TimeInForce,
)
from engine.shm_ring import COMMITTED, EVENT_CTRL_WORDS, INTENT, EventRings
from gateway.codec import IDLE, LAPPED, MORE, SPECIAL, UNKNOWN, Codec
from gateway.codec_text import decimal_text, json_name
from gateway.state import (
    H_ACCOUNT_BASE,
    H_HALF,
    H_TOTAL_LAPS,
    H_TOTAL_LOST,
    R_FLAGS,
    R_NEXT,
    R_SHARDS,
    REPORT_BYTES_MAX,
    ROW_RECEIPTS,
    S_CURSOR,
)
from tests.gateway.reference import report
from tests.gateway.support import INSTRUMENTS, Bench, SessionsOnly, make_config

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

PLAIN_KINDS = (
    EventKind.ACCEPTED, EventKind.REJECTED, EventKind.REPLACED, EventKind.CANCELED,
    EventKind.EXPIRED, EventKind.BOOKED,
    EventKind.FILL, EventKind.STATUS, EventKind.SUMMARY, EventKind.REFRESHED, EventKind.PREVENTED,
    EventKind.TRIGGERED,
)  # fmt: skip
NAMES = {1: "main", 2: "second", 3: 'q"\\', 4: ""}
BIG = 2**63 - 1


class Reports:
    """A codec with made-up events and sessions: account 1 has rows 1 (slot 1) and 2 (slot 2),
    account 2 has row 3 (slot 3).
    """

    def __init__(self, capacity: int = 4096) -> None:
        self.bench = Bench(make_config(), SessionsOnly)
        desk = self.bench.desk
        self.desk, self.state, self.view = desk, desk.state, desk.view
        self.codec: Codec = desk.rings
        self.rings: EventRings = self.codec.events
        for slot, name in NAMES.items():
            base = self.state.name_base(0, slot)
            self.view[base], self.view[base + 1], self.view[base + 2] = json_name(name)
        self.rows: dict[int, int] = {}
        desk.pump()

    def session(self, row: int, account: int, slot: int, receipts: bool = False) -> None:
        """Give an account a live session."""
        base = self.state.row_base(row)
        self.view[base + R_SHARDS] = slot
        self.view[base + R_FLAGS] = ROW_RECEIPTS if receipts else 0
        head = self.view[H_ACCOUNT_BASE] + account
        self.view[base + R_NEXT], self.view[head] = self.view[head], base
        self.rows[row] = account

    def publish(self, events: Any) -> None:
        """Put EVENT_SLOTs into the ring."""
        ctrl, capacity = self.rings.ctrl, self.rings.capacity
        position = int(ctrl[COMMITTED])
        ctrl[INTENT] = position + len(events)
        for index, event in enumerate(events):
            self.rings.slots[(position + index) & (capacity - 1)] = event
        ctrl[COMMITTED] = position + len(events)

    def encode(self) -> tuple[int, dict[int, list[dict[str, Any]]]]:
        """(status, reports per row) of one call."""
        status = self.codec.encode()
        writes = self.codec.writes()
        assert len({row for row, _ in writes}) == len(writes), "one write per session"
        return status, {
            row: [orjson.loads(line) for line in bytes(data).splitlines()] for row, data in writes
        }

    def all(self) -> dict[int, list[dict[str, Any]]]:
        """Everything there is, over as many calls as it takes."""
        got: dict[int, list[dict[str, Any]]] = {}
        for _ in range(100):
            status, writes = self.encode()
            for row, lines in writes.items():
                got.setdefault(row, []).extend(lines)
            if status == IDLE:
                return got
        raise AssertionError("does not come to an end")


@pytest.fixture
def reports() -> Iterator[Reports]:
    made = Reports()
    yield made
    made.bench.close()


def make_event(**fields: Any) -> Any:
    slot = np.zeros(1, EVENT_SLOT)[0]
    text = fields.pop("text", b"")
    for name, value in fields.items():
        slot[name] = value
    slot["text"][: len(text)] = list(text)
    return slot


def expected(event: Any) -> dict[str, Any]:
    """The reference's report, by the tables of this file."""
    instrument = (
        INSTRUMENTS[int(event["symbol_id"]) - 1]
        if 1 <= event["symbol_id"] <= len(INSTRUMENTS)
        else None
    )
    symbol, tick, lot = (
        (instrument.symbol, instrument.tick, instrument.lot) if instrument else ("", "1", "1")
    )
    return report(event, 0, NAMES.get(int(event["session"]), ""), symbol, tick, lot)


small = st.integers(0, 2**31 - 1)
sizes = st.one_of(small, st.integers(0, 3))  # often the same
events = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(PLAIN_KINDS), "account_seq": st.integers(1, BIG),
        "order_id": st.integers(0, BIG),
        "client_order_id": st.integers(0, BIG), "px": small, "qty": sizes, "leaves": sizes,
        "cum": sizes, "shown": sizes, "amount2": sizes, "stp": st.sampled_from(SelfTrade),
        "side": st.integers(0, 1), "order_type": st.sampled_from(OrderType),
        "tif": st.sampled_from(TimeInForce),
        "role": st.sampled_from([role for role in Role if role in set(OrderState)]),
        "reason": st.sampled_from(Reason),
        "flags": st.integers(0, 2**10 - 1), "in_ts": st.sampled_from([0, 1, 10**18,
        1732194270123456789, BIG]),
        "trade_id": st.integers(0, BIG), "public_ref": st.integers(0, BIG),
        "old_ref": st.integers(0, BIG),
        "session": st.integers(1, 5), "symbol_id": st.integers(0, len(INSTRUMENTS)),
        "code": st.sampled_from(RejectCode),
        "amount": st.integers(0, BIG), "text": st.text(st.characters(min_codepoint=32,
        max_codepoint=126), min_size=1, max_size=36)
        .map(lambda text: text.encode().rstrip(b" ") or b"x"),
    }
)  # fmt: skip


@settings(
    max_examples=30 if JIT_DISABLED else 300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fields=st.lists(events, min_size=1, max_size=4))
def test_reports_equal_the_reference(reports: Reports, fields: list[dict[str, Any]]) -> None:
    if not reports.rows:
        reports.session(1, 1, 1)
    made = [make_event(account=1, **values) for values in fields]
    reports.publish(made)
    assert reports.all() == {1: [expected(event) for event in made]}


def logged(made: list[Any]) -> Any:
    """EVENT_SLOTs as the event log gives them: without their receipts."""
    events = np.zeros(len(made), EVENT)
    for name in EVENT.names:
        events[name] = [slot[name] for slot in made]
    return events


@settings(
    max_examples=20 if JIT_DISABLED else 200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fields=st.lists(events, min_size=1, max_size=4))
@pytest.mark.later
def test_n2_reports_of_logged_events_are_byte_for_byte_those_of_the_ring(
    reports: Reports, fields: list[dict[str, Any]]
) -> None:
    if not reports.rows:
        reports.session(1, 1, 1)
    stamps = {"receipt_gateway_in": 5, "receipt_shard_in": 6, "receipt_shard_out": 7}
    made = [make_event(account=1, **values, **stamps) for values in fields]
    reports.publish(made)
    assert reports.codec.encode() == IDLE
    ((_, live),) = [(row, bytes(data)) for row, data in reports.codec.writes()]
    done, data = reports.codec.reports_of(0, logged(made))
    assert (done, bytes(data)) == (len(made), live)


def test_n2_logged_events_stop_at_an_unknown_instrument_and_at_a_full_buffer(
    reports: Reports,
) -> None:
    plain = {"kind": EventKind.BOOKED, "account": 1, "px": 100, "qty": 3, "session": 1}
    made = [make_event(symbol_id=1, **plain), make_event(symbol_id=9, **plain)]
    done, data = reports.codec.reports_of(0, logged(made))
    assert (done, bytes(data).count(b"\n")) == (1, 1)
    assert int(reports.codec.special()[1]["symbol_id"]) == 9
    reports.desk.directory.add(9, "LATE", 10**7, 10**9, 2**31 - 1)
    done, data = reports.codec.reports_of(0, logged(made))
    assert (done, b"LATE" in bytes(data)) == (2, True)
    longest = {**plain, "kind": EventKind.REJECTED, "code": 313, "text": b'"' * 36, "flags": 128}
    made = [make_event(**longest) for _ in range(300)]
    done, data = reports.codec.reports_of(0, logged(made))
    assert (done, bytes(data).count(b"\n")) == (256, 256)
    reports.view[H_HALF] = 20_000
    done, data = reports.codec.reports_of(0, logged(made))
    assert 30 < done == bytes(data).count(b"\n") < 100
    assert len(data) < 20_000


def test_event_that_tells_a_sessions_name_is_reported_with_it(reports: Reports) -> None:
    reports.session(1, 1, 1)
    told = {"kind": EventKind.ACCOUNT, "account": 1, "session": 7, "text": b'ne"w'}
    reports.publish([make_event(**told), make_event(**{**told, "session": 2})])
    got = [reports.encode()[1][1][0] for _ in range(2)]
    assert [line["session"] for line in got] == ['ne"w', "second"]


def test_account_event_is_reported_and_stops_the_call(reports: Reports) -> None:
    reports.session(1, 1, 1)
    event = make_event(
        kind=EventKind.ACCOUNT,
        account=1,
        account_seq=9,
        session=2,
        reason=Reason.SESSION_OPENED,
        amount=7,
        client_order_id=5,
    )
    reports.publish([event, make_event(kind=EventKind.SUMMARY, account=1, account_seq=10)])
    status, writes = reports.encode()
    assert status == SPECIAL
    assert writes == {1: [expected(event)]}
    assert writes[1][0]["reason"] == "session_opened"
    shard, copy = reports.codec.special()
    assert shard == 0
    assert copy.tobytes() == event.tobytes()
    status, writes = reports.encode()
    assert status == IDLE
    assert [line["type"] for line in writes[1]] == ["summary"]


def test_reports_go_to_every_session_of_the_account_and_to_no_other(reports: Reports) -> None:
    reports.session(1, 1, 1)
    reports.session(2, 1, 2)
    reports.session(3, 2, 3)
    made = []
    for number in range(1, 200):
        account = 1 + number % 3  # account 3 has nobody here
        made.append(
            make_event(
                kind=EventKind.FILL,
                account=account,
                account_seq=number,
                session=1 + number % 3,
                symbol_id=1,
                px=number,
                qty=1,
                order_id=number,
                role=Role.TAKER,
                in_ts=number // 7,
            )
        )
    reports.publish(made)
    got = reports.all()
    for row, account in reports.rows.items():
        assert got[row] == [expected(event) for event in made if event["account"] == account]
    assert set(got) == {1, 2, 3}


def test_session_gets_nothing_of_a_shard_that_has_not_answered_it(reports: Reports) -> None:
    reports.session(1, 1, 0)
    reports.session(2, 1, 2)
    reports.publish([make_event(kind=EventKind.SUMMARY, account=1, account_seq=1)])
    assert set(reports.all()) == {2}


def test_receipt_only_for_the_session_that_asked_and_caused_the_event(reports: Reports) -> None:
    reports.session(1, 1, 1, receipts=True)
    reports.session(2, 1, 2, receipts=True)
    reports.session(3, 1, 3)
    stamps = {"receipt_gateway_in": 100, "receipt_shard_in": 200, "receipt_shard_out": 300}
    taker = make_event(
        kind=EventKind.FILL,
        account=1,
        session=1,
        symbol_id=1,
        px=5,
        qty=1,
        role=Role.TAKER,
        **stamps,
    )
    maker = make_event(
        kind=EventKind.FILL,
        account=1,
        session=1,
        symbol_id=1,
        px=5,
        qty=1,
        role=Role.MAKER,
        **stamps,
    )
    late = make_event(
        kind=EventKind.STATUS,
        account=1,
        session=1,
        symbol_id=1,
        px=5,
        qty=1,
        role=1,
        order_type=1,
        **stamps,
    )
    reports.publish([taker, maker, late])
    got = reports.all()
    plain = [expected(event) for event in (taker, maker, late)]
    assert got[2] == got[3] == plain
    receipts = [line.pop("receipt", None) for line in got[1]]
    assert got[1] == plain
    assert receipts[1] is None
    for stamp in (receipts[0], receipts[2]):
        assert stamp[:3] == [100, 200, 300]
        assert stamp[3] > 300


def test_full_buffer_ends_the_call_and_loses_nothing(reports: Reports) -> None:
    for row in range(1, 31):
        reports.session(row, 1, 1 + row % 3)
    made = [
        make_event(kind=EventKind.SUMMARY, account=1, account_seq=n, qty=n, session=3, in_ts=n)
        for n in range(1, 400)
    ]
    reports.publish(made)
    status, first = reports.encode()
    assert status == MORE
    rest = reports.all()
    for row in range(1, 31):
        assert first.get(row, []) + rest[row] == [expected(event) for event in made]


def test_longest_report_fits_what_is_reserved_for_it(reports: Reports) -> None:
    reports.session(1, 1, 3, receipts=True)
    longest = 0
    for kind in EventKind:
        if kind in (EventKind.LISTED, EventKind.ACCOUNT):
            continue
        codes = RejectCode if kind == EventKind.REJECTED else [RejectCode.NONE]
        for code in codes:
            event = make_event(
                kind=kind, account=1, account_seq=BIG, session=3, symbol_id=5, order_id=BIG,
                client_order_id=BIG, px=2**31 - 1,
                qty=2**31 - 1, leaves=2**31 - 1, cum=2**31 - 1, shown=2**31 - 2, amount2=2**31 - 1,
                stp=SelfTrade.EXPIRE_MAKER,
                order_type=OrderType.TRAILING_STOP_LIMIT,
                tif=TimeInForce.GOOD_FOR_AUCTION, role=2, reason=Reason.REPLACED_BELOW_FILLED,
                flags=2**10 - 1, in_ts=BIG,
                trade_id=BIG, public_ref=BIG, old_ref=BIG, amount=BIG, code=code, text=b'"' * 36,
                receipt_gateway_in=BIG,
                receipt_shard_in=BIG, receipt_shard_out=BIG,
            )  # fmt: skip
            reports.publish([event])
            reports.codec.encode()
            longest = max(longest, *(len(data) for _, data in reports.codec.writes()))
    assert (
        500 < longest < REPORT_BYTES_MAX - 64
    )  # 64: what fixed-length copies may write beyond the text


def test_lap_is_counted_and_the_newest_position_taken_up(reports: Reports) -> None:
    reports.session(1, 1, 1)
    rings = reports.rings
    cursor = reports.view[reports.state.shard_base(0) + S_CURSOR]
    newest = cursor + rings.capacity + 10
    rings.ctrl[INTENT] = rings.ctrl[COMMITTED] = newest
    status, writes = reports.encode()
    assert (status, writes) == (LAPPED, {})
    assert reports.view[H_TOTAL_LAPS] == 1
    assert reports.view[H_TOTAL_LOST] == newest - cursor
    reports.publish([make_event(kind=EventKind.SUMMARY, account=1, account_seq=77)])
    assert [line["seq"] for line in reports.all()[1]] == [77]


def test_event_of_unknown_instrument_waits_for_the_directory(reports: Reports) -> None:
    reports.session(1, 1, 1)
    event = make_event(
        kind=EventKind.BOOKED, account=1, account_seq=1, symbol_id=9, px=100, qty=3, session=1
    )
    reports.publish([event])
    status, writes = reports.encode()
    assert (status, writes) == (UNKNOWN, {})
    assert reports.encode()[0] == UNKNOWN
    reports.desk.directory.add(9, "LATE", 10**7, 10**9, 2**31 - 1)
    assert reports.all()[1][0]["price"] == "1.00"


@settings(max_examples=200)
@given(steps=small, mantissa=st.integers(1, 2**31 - 1), decimals=st.integers(0, 9))
def test_decimal_text_is_exact(steps: int, mantissa: int, decimals: int) -> None:
    text = decimal_text(steps, mantissa, decimals)
    whole, _, part = text.partition(".")
    assert len(part) == decimals
    assert int(whole + part) == steps * mantissa


def test_event_layout_is_the_front_of_the_slot() -> None:
    assert EVENT_SLOT.names[: len(EVENT.names)] == EVENT.names
    assert EVENT_CTRL_WORDS > INTENT
    assert EventFlag.LAST == 1
