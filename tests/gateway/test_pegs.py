"""Pegged orders at the doors: what a line may say, what their owner hears, the client's picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

import ringbook
from engine.admin import admin_record
from engine.config import Instrument
from engine.records import CommandKind, OrderType, Phase, RejectCode, TimeInForce
from gateway.client_answers import ends
from gateway.client_reports import Order, Report, report_of
from gateway.codec_fields import Context
from gateway.codec_slow import request_of
from gateway.state import C_ORDER_TYPE, C_PX, C_TIF
from tests.gateway.support import INSTRUMENTS, Bench, FakeClient, make_config

GOLD = Instrument("GOLD", "0.01", "1", rules="full")
ORDER = {"symbol": "GOLD", "side": "buy", "qty": 10, "price": "12.50"}
PEG = ORDER | {"type": "peg_primary", "price": "13"}
FIT = RejectCode.BAD_COMBINATION
OWN = {"shard": 0, "order_id": 7, "id": 1, "side": "buy", "symbol": "GOLD", "session": "main"}


@pytest.fixture
def desk() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD)))
    yield made
    made.close()


def told(answers: Sequence[dict[str, Any]], *keys: str) -> list[tuple[Any, ...]]:
    return [(answer["type"], *(answer.get(key) for key in keys)) for answer in answers]


def other(desk: Bench) -> FakeClient:
    client = desk.log_on("alice")
    desk.heard(client)
    return client


@pytest.mark.parametrize("name", ["peg_primary", "peg_market", "peg_mid"])
def test_type_and_cap_of_a_peg_are_read(desk: Bench, name: str) -> None:
    context = Context(desk.config, desk.desk.directory, 1)
    for stated in ({"type": name}, {"order_type": name.upper()}):
        line = ORDER | stated | {"tif": "day", "price": "13"}
        made = request_of(orjson.dumps(line), context)
        assert not made.refusals
        assert made.words[C_ORDER_TYPE] == OrderType[name.upper()]
        assert (made.words[C_PX], made.words[C_TIF]) == (1300, TimeInForce.DAY)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"tif": "ioc"}, "a pegged order can rest"),
        ({"tif": "fok"}, "a pegged order can rest"),
        ({"tif": "at_close"}, "a pegged order can rest"),
        ({"hidden": True}, "hidden is for orders that can rest"),
        ({"post_only": True}, "post_only is for orders that can rest"),
        ({"peak": 5}, "peak is for orders that can rest"),
        ({"min_qty": 5}, "min_qty is for limit and market orders"),
        ({"trigger": 12}, "trigger is for stop"),
        ({"distance": 1}, "distance is for trailing"),
    ],
)
def test_option_that_a_peg_has_not_is_refused_with_a_sentence(
    desk: Bench, more: dict[str, Any], text: str
) -> None:
    made = request_of(orjson.dumps(PEG | more), Context(desk.config, desk.desk.directory, 1))
    assert any(text in refusal.text for refusal in made.refusals if refusal.code == FIT)


def test_peg_without_cap_is_311_and_on_a_plain_instrument_304(desk: Bench) -> None:
    mine = desk.log_on()
    line = {key: value for key, value in PEG.items() if key != "price"}
    assert told(desk.say(mine, line), "code", "reason") == [("rejected", 311, "cap_required")]
    (answer,) = desk.say(mine, PEG | {"symbol": "AAPL"})
    assert answer["code"] == RejectCode.NOT_SUPPORTED_HERE


def test_owner_of_a_peg_hears_where_it_stands_and_when_it_waits(desk: Bench) -> None:
    mine, trader = desk.log_on(), other(desk)
    accepted, parked = desk.say(mine, PEG | {"id": 1})
    assert told([accepted, parked], "order_type", "price", "qty", "leaves", "last") == [
        ("accepted", "peg_primary", "13.00", "10", "10", None),
        ("parked", None, "13.00", None, "10", True),
    ]
    desk.say(trader, ORDER | {"id": 1})
    assert told(desk.heard(mine), "price", "qty", "leaves", "old_ref") == [
        ("repriced", "12.50", "10", "10", None)
    ]
    (status,) = desk.say(mine, {"type": "order", "symbol": "GOLD", "target_id": 1})
    assert told([status], "order_type", "price", "state") == [
        ("status", "peg_primary", "12.50", "new")
    ]
    change = {"type": "replace", "symbol": "GOLD", "target_id": 1, "price": "12.40", "id": 2}
    assert told(desk.say(mine, change), "price", "leaves") == [
        ("replaced", "12.40", "10"),
        ("booked", "12.40", "10"),
    ]
    desk.say(trader, {"type": "cancel", "symbol": "GOLD", "target_id": 1, "id": 2})
    (parked,) = desk.heard(mine)
    assert told([parked], "price", "leaves", "last") == [("parked", "12.40", "10", True)]
    assert parked["ref"] > 0  # the slice that left


def test_peg_is_parked_in_a_call_and_comes_back(desk: Bench) -> None:
    mine, trader = desk.log_on(), other(desk)
    desk.say(trader, ORDER)
    desk.say(mine, PEG | {"id": 1})
    shard = desk.exchange.shards[0]
    for phase, kind in ((Phase.VOLATILITY_CALL, "parked"), (Phase.CONTINUOUS, "repriced")):
        change = admin_record(
            CommandKind.SET_PHASE, symbol_id=shard.symbol_id("GOLD"), order_type=phase
        )
        desk.exchange._publish(0, shard.step(change), None)
        desk.settle()
        assert [answer["type"] for answer in desk.heard(mine)] == [kind]


def test_mid_is_hidden_and_shows_nothing(desk: Bench) -> None:
    mine, trader = desk.log_on(), other(desk)
    desk.say(trader, ORDER)
    desk.say(trader, ORDER | {"side": "sell", "price": "12.55"})
    _, booked = desk.say(mine, PEG | {"type": "peg_mid"})
    assert told([booked], "price", "leaves", "shown", "ref") == [
        ("booked", "12.52", "10", "0", None)
    ]


# ------------------------------------------------------------------------------ the client library
def heard(type: str, leaves: int, **more: Any) -> Report:
    amounts = {"qty": str(leaves), "leaves": str(leaves), "filled": "0"}
    return report_of({"type": type, "seq": 1} | OWN | amounts | more)


def test_client_follows_a_peg_to_where_it_stands() -> None:
    order = Order.of([heard("accepted", 9, price="13", order_type="peg_primary", tif="gtc")])
    parked = heard("parked", 9, price="13")
    assert ends(parked)
    order = order.follow(parked)
    assert (order.type, order.price, order.shown) == ("peg_primary", Decimal(13), 0)
    repriced = heard("repriced", 9, price="12.50", ref=4)
    assert isinstance(repriced, ringbook.Repriced)
    order = order.follow(repriced)
    assert (order.status, order.price, order.shown) == ("open", Decimal("12.50"), 9)
    order = order.follow(heard("repriced", 9, price="12.51", ref=6, old_ref=4))
    assert (order.price, order.amount, order.remaining) == (Decimal("12.51"), 9, 9)
    order = order.follow(heard("canceled", 0, price="12.51", reason="client"))
    assert (order.status, order.shown) == ("canceled", 0)


def test_price_of_other_orders_stays_what_was_stated() -> None:
    order = Order.of([heard("accepted", 9, price="13", order_type="limit", tif="gtc")])
    order = order.follow(heard("booked", 9, price="12.99", ref=4))
    assert order.price == 13


def test_answer_to_a_replace_that_keeps_its_place_ends_with_it() -> None:
    # Pegs of others may be repriced by the same command, and have the last word of it.
    assert ends(heard("replaced", 9, price="13", kept=True))
    assert not ends(heard("replaced", 9, price="13"))
