"""Quotes over the wire: what a line may say, the reports that answer it, protection, resume, and
both ends of the client library.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest

import ringbook
from engine.admin import set_limits
from engine.config import Instrument
from engine.records import CommandKind, RejectCode
from gateway.client_core import ClientCore
from gateway.client_errors import RiskLimitExceeded
from gateway.client_reports import MmpFired, Quote
from gateway.codec_fields import Context, Request
from gateway.codec_slow import request_of
from gateway.state import C_KIND, C_PX, C_PX2, C_QTY, C_QTY2, C_TAG
from tests.gateway.support import INSTRUMENTS, Bench, FakeClient, make_config
from tests.gateway.test_client_core import Desk, logged_on

GOLD = Instrument("GOLD", "0.01", "1", rules="full")
QUOTE: dict[str, Any] = {
    "type": "quote", "symbol": "GOLD",
    "bid": "12.40", "bid_qty": 5, "ask": "12.60", "ask_qty": 4,
}  # fmt: skip
NS = 10**9


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD)))
    yield made
    made.close()


@pytest.fixture
def desk() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD)))
    yield made
    made.close()


def request(bench: Bench, line: dict[str, Any], *, text_ids: bool = False) -> Request:
    context = Context(bench.config, bench.desk.directory, 1, text_ids)
    return request_of(orjson.dumps({k: v for k, v in line.items() if v is not None}), context)


def numbers(made: Request) -> tuple[int, int, int, int]:
    return tuple(made.words.get(word, 0) for word in (C_PX, C_QTY, C_PX2, C_QTY2))  # type: ignore[return-value]


# ------------------------------------------------------------------------------ what a line may say
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, (1240, 5, 1260, 4)),
        ({"bid_qty": "0"}, (1240, 0, 1260, 4)),
        ({"bid_qty": 0.0}, (1240, 0, 1260, 4)),
        ({"bid": None, "bid_qty": None}, (0, 0, 1260, 4)),
        ({"bid": None, "bid_qty": None, "ask": None, "ask_qty": 0}, (0, 0, 0, 0)),
        ({"bid": None, "Bid_Price": 12.4}, (1240, 5, 1260, 4)),
    ],
)
def test_sides_of_a_quote_are_read(
    shared: Bench, more: dict[str, Any], said: tuple[int, ...]
) -> None:
    made = request(shared, QUOTE | more | {"tag": 7})
    assert made.refusals == []
    assert made.words[C_KIND] == CommandKind.QUOTE
    assert (numbers(made), made.words[C_TAG]) == (said, 7)
    assert made.is_cancel == (not said[1] and not said[3])


FIELD, RANGE = RejectCode.BAD_FIELD, RejectCode.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({"bid": None}, FIELD, "bid is missing: the price of bid_qty"),
        ({"ask_qty": None}, FIELD, "ask_qty is missing"),
        ({"symbol": None}, FIELD, "symbol is missing"),
        ({"bid": "high"}, FIELD, "bid must be a decimal number"),
        ({"bid_qty": True}, FIELD, "bid_qty must be a decimal number"),
        ({"side": "buy"}, FIELD, "side does not belong to quote"),
        ({"tif": "ioc"}, FIELD, "tif does not belong to quote"),
        ({"bid": 0}, RANGE, "bid must be above zero"),
        ({"ask_qty": -1}, RANGE, "ask_qty must be above zero"),
        ({"ask": 10**9}, RANGE, "ask is too large"),
        ({"tag": -1}, RANGE, "tag must be"),
        ({"symbol": "NOSUCH"}, RejectCode.UNKNOWN_SYMBOL, "no instrument NOSUCH"),
        ({"bid": "12.405"}, RejectCode.OFF_TICK, "bid is not a multiple of the tick"),
        ({"ask_qty": "1.5"}, RejectCode.OFF_LOT, "ask_qty is not a multiple of the lot"),
    ],
)
def test_bad_quote_is_refused_with_a_sentence(
    shared: Bench, more: dict[str, Any], code: RejectCode, text: str
) -> None:
    made = request(shared, QUOTE | more)
    assert min(refusal.code for refusal in made.refusals) == code
    assert any(text in refusal.text for refusal in made.refusals if refusal.code == code)


def test_quote_of_a_session_with_text_ids_has_none(shared: Bench) -> None:
    made = request(shared, QUOTE | {"id": "spring"}, text_ids=True)
    assert [refusal.code for refusal in made.refusals] == [RejectCode.BAD_CLIENT_ID]
    assert request(shared, QUOTE, text_ids=True).refusals == []


# ----------------------------------------------------------------------------------------- reports
def told(reports: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Type, side, open quantity, id, and whether the other side's answer follows."""
    return [(r["type"], r["side"], r["leaves"], r.get("id"), "more" in r) for r in reports]


def test_reports_of_a_quote_carry_its_id_and_say_whether_more_follows(desk: Bench) -> None:
    client = desk.log_on()
    assert told(desk.say(client, QUOTE | {"id": 1})) == [
        ("accepted", "buy", "5", 1, True),
        ("accepted", "sell", "4", 1, False),
        ("booked", "buy", "5", 1, False),
        ("booked", "sell", "4", 1, False),
    ]
    answers = desk.say(client, QUOTE | {"ask": "12.61", "bid_qty": 3, "id": 2})
    assert told(answers) == [
        ("replaced", "buy", "3", 2, True),
        ("replaced", "sell", "4", 2, False),
        ("booked", "sell", "4", 2, False),
    ]
    assert (answers[0]["kept"], answers[2]["last"]) == (True, True)
    gone = desk.say(client, {"type": "quote", "symbol": "GOLD", "id": 3})
    assert told(gone) == [("canceled", "buy", "0", 3, True), ("canceled", "sell", "0", 3, False)]
    (none,) = desk.say(client, {"type": "quote", "symbol": "GOLD", "id": 4})
    assert (none["code"], none["id"]) == (RejectCode.UNKNOWN_ORDER, 4)


def test_refusals_of_a_quote(desk: Bench) -> None:
    client = desk.log_on()
    for line, code in (
        (QUOTE | {"ask": "12.40"}, RejectCode.QUOTE_CROSSED),
        (QUOTE | {"symbol": "AAPL"}, RejectCode.NOT_SUPPORTED_HERE),
        (QUOTE | {"account": "alice"}, RejectCode.NOT_AUTHORISED),
    ):
        (answer,) = desk.say(client, line)
        assert answer["code"] == code
    desk.say(client, QUOTE | {"id": 5})
    (twice,) = desk.say(client, QUOTE | {"id": 5})
    assert twice["code"] == RejectCode.DUPLICATE
    (unnamed,) = desk.say(client, {"type": "cancel", "symbol": "GOLD", "target_id": 5})
    assert unnamed["code"] == RejectCode.UNKNOWN_ORDER


def protected(desk: Bench, client: FakeClient) -> list[dict[str, Any]]:
    """What the client hears when the supervisor arms the protection of account 1."""
    events = desk.exchange.shards[0].step(set_limits(1, "GOLD", 3, NS))
    desk.exchange._publish(0, events, None)
    desk.settle()
    return desk.heard(client)


def test_protection_is_reported_and_refuses_until_it_is_armed_again(desk: Bench) -> None:
    maker, taker = desk.log_on(), desk.log_on("alice")
    (armed,) = protected(desk, maker)
    assert (armed["type"], armed["reason"], armed["symbol"]) == ("account", "mmp", "GOLD")
    assert (armed["limit"], armed["window_ns"]) == ("3", NS)
    assert "logon" not in armed
    desk.say(maker, QUOTE | {"id": 1})
    desk.say(taker, {"symbol": "GOLD", "side": "sell", "qty": 4, "price": "12.40"})
    fill, fired, *gone = desk.heard(maker)
    assert (fill["type"], fired["type"]) == ("fill", "mmp_fired")
    assert (fired["symbol"], fired["qty"], fired["limit"]) == ("GOLD", "4", "3")
    assert [(r["type"], r["reason"]) for r in gone] == [("canceled", "mmp")] * 2
    (refused,) = desk.say(maker, QUOTE | {"id": 2})
    assert refused["code"] == RejectCode.MMP_ACTIVE
    protected(desk, maker)
    assert len(desk.say(maker, QUOTE | {"id": 3})) == 4


# ---------------------------------------------------------------------------------- client library
BID = {"symbol": "GOLD", "order_id": 1 << 24, "id": 41, "side": "buy", "session": "main"}
ASK = BID | {"order_id": 2 << 24, "side": "sell"}


def amounts(qty: int, leaves: int, filled: int = 0) -> dict[str, str]:
    return {"qty": str(qty), "leaves": str(leaves), "filled": str(filled)}


def quoting(*sides: Any) -> Desk:
    made = logged_on()
    made.ask(made.core.quote(made.core.quote_line("GOLD", *sides)))
    return made


def test_client_waits_for_both_sides_and_for_how_they_fare() -> None:
    made = quoting("12.40", 5, Decimal("12.60"), 4)
    assert made.sent[-1] == QUOTE | {"bid_qty": "5", "ask_qty": "4", "id": 41}
    made.report("accepted", **BID, **amounts(5, 5), more=True)
    made.report("accepted", **ASK, **amounts(4, 4))
    made.report("fill", **BID, **amounts(5, 0, 5), price="12.40", trade_id=1, role="taker")
    assert made.talk is not None  # the ask has still to enter
    made.report("booked", **ASK, **amounts(4, 4))
    quote = made.result
    assert isinstance(quote, Quote)
    assert quote.bid is not None
    assert quote.ask is not None
    assert (quote.bid.status, quote.ask.status) == ("filled", "open")
    assert (quote.ask.remaining, quote.ask.shown) == (4, 4)


def test_client_knows_a_kept_side_a_side_that_goes_and_one_that_was_not_there() -> None:
    made = quoting("12.40", 3)
    made.report("replaced", **BID, **amounts(3, 3), kept=True, more=True)
    assert made.talk is not None
    made.report("canceled", **ASK, **amounts(4, 0), reason="client")
    assert (made.result.bid.status, made.result.ask.status) == ("open", "canceled")
    made = quoting()
    assert made.sent[-1] == {"type": "quote", "symbol": "GOLD", "id": 41}
    made.report("canceled", **BID, **amounts(4, 0), reason="client")
    assert made.result.ask is None
    # What it sets off is not waited for: it is of other orders.
    made.report("triggered", **(ASK | {"id": 7}), leaves="1", filled="0", trigger="12.60")
    assert [report.type for report in made.core.reports] == ["triggered"]


def test_client_takes_protection_in_the_midst_of_a_quote() -> None:
    made = quoting("12.40", 5, "12.60", 4)
    made.report("replaced", **BID, **amounts(5, 5), more=True)
    made.report("replaced", **ASK, **amounts(4, 4))
    made.report("fill", **BID, **amounts(2, 3, 2), role="taker")
    made.report("booked", **BID, **amounts(3, 3, 2))
    made.report("mmp_fired", symbol="GOLD", qty="2", limit="1", window_ns=NS)
    made.report("canceled", **BID, **amounts(3, 0, 2), reason="mmp")
    assert made.talk is not None
    made.report("canceled", **ASK, **amounts(4, 0), reason="mmp")
    assert (made.result.bid.status, made.result.ask.status) == ("canceled", "canceled")
    (fired,) = made.core.reports
    assert isinstance(fired, MmpFired)
    assert (fired.qty, fired.limit, fired.window_ns) == (2, 1, NS)


def test_client_raises_what_the_exchange_refuses() -> None:
    made = quoting("12.40", 5)
    with pytest.raises(RiskLimitExceeded, match="MMP_ACTIVE"):
        made.report("rejected", symbol="GOLD", id=41, session="main", code=408, text="fired")


def test_quote_is_followed_by_later_reports_of_either_side() -> None:
    made = quoting("12.40", 5, "12.60", 4)
    made.report("accepted", **BID, **amounts(5, 5), more=True)
    made.report("accepted", **ASK, **amounts(4, 4))
    made.report("booked", **BID, **amounts(5, 5))
    made.report("booked", **ASK, **amounts(4, 4))
    quote = made.result
    made.report("fill", **ASK, **amounts(1, 3, 1), role="maker", price="12.60")
    quote = quote.follow(made.core.reports.popleft())
    assert (quote.bid.remaining, quote.ask.remaining, quote.ask.filled) == (5, 3, 1)


def test_client_with_text_ids_says_that_a_quote_needs_integers() -> None:
    with pytest.raises(ValueError, match="integer ids"):
        ClientCore("demo", "demo", ids="text").quote_line("GOLD", 1, 1)
    assert ringbook.Quote is Quote
