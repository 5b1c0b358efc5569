"""Options of the full rules: what a line may say, what is refused with which sentence, and what the
exchange reports of orders that have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from engine.admin import admin_record
from engine.config import Instrument
from engine.records import (
    CommandFlag,
    CommandKind,
    OrderType,
    Phase,
    RejectCode,
    SelfTrade,
    TimeInForce,
)
from gateway.codec_fields import Context, Request
from gateway.codec_slow import request_of
from gateway.state import (
    C_EXPIRE_TS,
    C_FLAGS,
    C_MIN_QTY,
    C_ORDER_TYPE,
    C_PEAK,
    C_PX,
    C_PX2,
    C_QTY2,
    C_STP,
    C_TIF,
)
from tests.gateway.support import INSTRUMENTS, Bench, FakeClient, make_config

GOLD = Instrument("GOLD", "0.01", "1", rules="full", protection=5, iceberg_parts=10)
SHARES = Instrument("SHARES", rules="full", algorithm="pro_rata", max_level_orders=1)
FINE = Instrument("FINE", "0.01", "0.5", rules="full", stp="expire_maker")
ORDER = {"symbol": "GOLD", "side": "buy", "qty": 10, "price": "12.50"}
REPLACE = {"type": "replace", "symbol": "GOLD", "target_id": 1}
END = 4 * 10**18


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD, FINE, SHARES)))
    yield made
    made.close()


@pytest.fixture
def desk() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD, FINE, SHARES)))
    yield made
    made.close()


def request(bench: Bench, line: dict[str, Any]) -> Request:
    context = Context(bench.config, bench.desk.directory, 1)
    return request_of(orjson.dumps({k: v for k, v in line.items() if v is not None}), context)


# ------------------------------------------------------------------------------ what a line may say
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"peak": "5"}, {C_PEAK: 5}),
        ({"peak": 10}, {C_PEAK: 10}),
        ({"symbol": "FINE", "peak": "2.5"}, {C_PEAK: 5}),
        ({"min_qty": 3}, {C_MIN_QTY: 3}),
        ({"min_qty": 3, "tif": "ioc"}, {C_MIN_QTY: 3, C_TIF: TimeInForce.IOC}),
        ({"min_qty": 3, "price": None}, {C_MIN_QTY: 3, C_ORDER_TYPE: OrderType.MARKET}),
        ({"hidden": True}, {C_FLAGS: CommandFlag.HIDDEN}),
        ({"hidden": False}, {C_FLAGS: 0}),
        ({"slide": True}, {C_FLAGS: CommandFlag.SLIDE | CommandFlag.POST_ONLY}),
        (
            {"slide": True, "post_only": True},
            {C_FLAGS: CommandFlag.SLIDE | CommandFlag.POST_ONLY},
        ),
        ({"slide": False, "post_only": False}, {C_FLAGS: 0}),
        ({"slide": True, "peak": 1, "Tif": "DAY"}, {C_PEAK: 1, C_TIF: TimeInForce.DAY}),
        ({"protected": True, "price": None}, {C_FLAGS: CommandFlag.PROTECTED}),
        ({"tif": "gtd", "expire_time": END}, {C_TIF: TimeInForce.GTD, C_EXPIRE_TS: END}),
        ({"tif": "at_open"}, {C_TIF: TimeInForce.AT_OPEN}),
        ({"tif": "at_close", "price": None}, {C_TIF: TimeInForce.AT_CLOSE}),
        ({"tif": "good_for_auction"}, {C_TIF: TimeInForce.GOOD_FOR_AUCTION}),
        (
            {"type": "market_to_limit", "price": None, "tif": "day"},
            {C_ORDER_TYPE: OrderType.MARKET_TO_LIMIT, C_TIF: TimeInForce.DAY},
        ),
        (
            {"order_type": "Market_To_Limit", "price": None},
            {C_ORDER_TYPE: OrderType.MARKET_TO_LIMIT},
        ),
        (
            {"type": "stop", "price": None, "trigger": "12.60"},
            {C_ORDER_TYPE: OrderType.STOP, C_PX2: 1260, C_QTY2: 0, C_FLAGS: 0},
        ),
        (
            {"order_type": "stop_limit", "trigger": 12.6, "trigger_on": "Best", "peak": 5},
            {
                C_ORDER_TYPE: OrderType.STOP_LIMIT,
                C_PX: 1250,
                C_PX2: 1260,
                C_FLAGS: CommandFlag.TRIGGER_BEST,
            },
        ),
        ({"type": "take_profit_limit", "trigger": "12", "trigger_on": "last"}, {C_PX2: 1200}),
        (
            {"type": "trailing_stop", "distance": "0.05", "activation": "13"},
            {C_ORDER_TYPE: OrderType.TRAILING_STOP, C_PX2: 1300, C_QTY2: 5, C_FLAGS: 0},
        ),
        (
            {"type": "trailing_stop_limit", "distance_bps": 150, "tif": "ioc"},
            {C_PX: 1250, C_PX2: 0, C_QTY2: 150, C_FLAGS: CommandFlag.DISTANCE_BPS},
        ),
        ({}, {C_STP: SelfTrade.DEFAULT, C_PEAK: 0, C_MIN_QTY: 0, C_EXPIRE_TS: 0, C_FLAGS: 0}),
        *(
            ({"stp": mode.name.lower()}, {C_STP: mode})
            for mode in SelfTrade
            if mode is not SelfTrade.DEFAULT
        ),
    ],
)
def test_option_of_a_new_order_is_read(
    shared: Bench, more: dict[str, Any], words: dict[int, int]
) -> None:
    made = request(shared, ORDER | more)
    assert made.refusals == []
    assert {word: made.words.get(word, 0) for word in words} == words


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"peak": 4}, {C_PEAK: 4}),
        ({"trigger": "12.60"}, {C_PX2: 1260}),
        ({"activation": "12.60", "distance": 1}, {C_PX2: 1260, C_QTY2: 100, C_FLAGS: 0}),
        ({"distance_bps": 9}, {C_QTY2: 9, C_FLAGS: CommandFlag.DISTANCE_BPS}),
        ({"min_qty": 2, "qty": 9}, {C_MIN_QTY: 2}),
        ({"expire_time": END}, {C_EXPIRE_TS: END}),
        ({"expire_time": END, "tif": "gtd"}, {C_EXPIRE_TS: END, C_TIF: TimeInForce.GTD}),
        ({"tif": "gtd"}, {C_TIF: TimeInForce.GTD}),
        ({"tif": "day"}, {C_TIF: TimeInForce.DAY}),
    ],
)
def test_option_of_a_replace_is_read(
    shared: Bench, more: dict[str, Any], words: dict[int, int]
) -> None:
    made = request(shared, REPLACE | more)
    assert made.refusals == []
    assert {word: made.words.get(word, 0) for word in words} == words


FIELD, RANGE, FIT = RejectCode.BAD_FIELD, RejectCode.OUT_OF_RANGE, RejectCode.BAD_COMBINATION
BAD: list[tuple[dict[str, Any], RejectCode, str]] = [
    ({"peak": True}, FIELD, "peak must be a decimal number"),
    ({"peak": "x"}, FIELD, "peak must be a decimal number"),
    ({"peak": 0}, RANGE, "peak must be above zero"),
    ({"peak": -1}, RANGE, "peak must be above zero"),
    ({"peak": 2**31}, RANGE, "peak is too large"),
    ({"peak": 11}, RANGE, "peak is more than qty"),
    ({"peak": "1.5"}, RejectCode.OFF_LOT, "peak is not a multiple of the lot 1"),
    ({"peak": 5, "tif": "ioc"}, FIT, "peak is for orders that can rest"),
    ({"peak": 5, "price": None}, FIT, "peak is for orders that can rest"),
    ({"peak": 5, "hidden": True}, FIT, "hidden or shows a peak"),
    ({"min_qty": False}, FIELD, "min_qty must be a decimal number"),
    ({"min_qty": 0}, RANGE, "min_qty must be above zero"),
    ({"min_qty": 11}, RANGE, "min_qty is more than qty"),
    ({"min_qty": "0.5"}, RejectCode.OFF_LOT, "min_qty is not a multiple"),
    ({"min_qty": 5, "tif": "fok"}, FIT, "its whole quantity for a minimum"),
    ({"min_qty": 5, "tif": "at_open"}, FIT, "in an auction"),
    ({"hidden": 1}, FIELD, "hidden must be true or false"),
    ({"hidden": True, "tif": "fok"}, FIT, "hidden is for orders that can rest"),
    ({"slide": "true"}, FIELD, "slide must be true or false"),
    ({"slide": True, "post_only": False}, FIT, "slide is an option of post_only"),
    ({"slide": True, "price": None}, FIT, "post_only is for orders that can rest"),
    ({"post_only": True, "tif": "good_for_auction"}, FIT, "in an auction"),
    ({"protected": 1, "price": None}, FIELD, "protected must be true or false"),
    ({"protected": True}, FIT, "protected is for market orders"),
    ({"stp": "default"}, FIELD, "stp must be one of none, expire_taker"),
    ({"stp": 1}, FIELD, "stp must be one of none, expire_taker"),
    ({"tif": "gtd"}, FIELD, "expire_time is missing"),
    ({"tif": "gtd", "expire_time": "5"}, FIELD, "expire_time must be a whole number"),
    ({"tif": "gtd", "expire_time": 1.5}, FIELD, "expire_time must be a whole number"),
    ({"tif": "gtd", "expire_time": 0}, RANGE, "expire_time must be 1 to"),
    ({"tif": "gtd", "expire_time": -5}, RANGE, "expire_time must be 1 to"),
    ({"tif": "gtd", "expire_time": 2**63}, RANGE, "expire_time must be 1 to"),
    ({"expire_time": END}, FIT, "expire_time is for gtd"),
    ({"tif": "day", "expire_time": END}, FIT, "expire_time is for gtd"),
    ({"tif": "day", "price": None}, FIT, "a market order never rests"),
    ({"type": "market_to_limit"}, FIT, "market_to_limit order has no price"),
    ({"type": "market_to_limit", "price": None, "tif": "ioc"}, FIT, "can rest"),
    ({"type": "market_to_limit", "price": None, "tif": "at_close"}, FIT, "can rest"),
    ({"type": "market_to_limit", "price": None, "min_qty": 1}, FIT, "min_qty is for limit and"),
    ({"type": "market_to_limit", "price": None, "order_type": "limit"}, FIELD, "already"),
    ({"type": "market_to_limit", "price": None, "peak": 2}, FIT, "peak is for orders that"),
    ({"type": "stop", "price": None}, FIELD, "trigger is missing"),
    ({"type": "stop_limit", "trigger": 12, "price": None}, FIELD, "price is missing"),
    ({"type": "trailing_stop"}, FIELD, "distance is missing"),
    ({"type": "trailing_stop_limit", "distance": 1, "price": None}, FIELD, "price is missing"),
    ({"type": "stop", "price": None, "trigger": "high"}, FIELD, "trigger must be a decimal"),
    ({"type": "stop_limit", "trigger": 12, "trigger_on": "mid"}, FIELD, "trigger_on must be one"),
    ({"type": "trailing_stop", "distance_bps": "5"}, FIELD, "distance_bps must be a whole number"),
    ({"type": "trailing_stop", "distance_bps": 0}, RANGE, "distance_bps must be 1 to"),
    ({"type": "trailing_stop", "distance": 0}, RANGE, "distance must be above zero"),
    ({"type": "stop_limit", "trigger": -1}, RANGE, "trigger must be above zero"),
    ({"type": "stop_limit", "trigger": "12.005"}, RejectCode.OFF_TICK, "multiple of the tick"),
    ({"type": "stop", "trigger": 12}, FIT, "this order has no price"),
    ({"type": "stop_limit", "trigger": 12, "tif": "fok"}, FIT, "that waits is not fok"),
    ({"type": "stop_limit", "trigger": 12, "tif": "at_open"}, FIT, "auctions take limit"),
    ({"type": "stop_limit", "trigger": 12, "min_qty": 2}, FIT, "min_qty is for limit and"),
    ({"type": "stop", "price": None, "trigger": 12, "peak": 2}, FIT, "peak is for orders that"),
    ({"trigger": 12}, FIT, "trigger is for stop and take_profit"),
    ({"trigger_on": "last"}, FIT, "trigger_on is for stop and take_profit"),
    ({"type": "trailing_stop", "distance": 1, "trigger": 12}, FIT, "orders that do not trail"),
    ({"type": "trailing_stop", "distance": 1, "distance_bps": 1}, FIT, "stated once"),
    ({"type": "stop_limit", "trigger": 12, "activation": 12}, FIT, "activation is for trailing"),
    ({"distance": 1}, FIT, "distance is for trailing"),
    (REPLACE | {"price": None, "trigger": 12, "activation": 12}, FIT, "not both"),
    (REPLACE | {"price": None, "distance": 1, "distance_bps": 1}, FIT, "stated once"),
    (REPLACE | {"price": None, "trigger_on": "best"}, FIELD, "does not belong to replace"),
    (REPLACE | {"price": None, "stp": "none"}, FIELD, "stp does not belong to replace"),
    (REPLACE | {"price": None, "hidden": True}, FIELD, "hidden does not belong to replace"),
    (REPLACE | {"peak": 11}, RANGE, "peak is more than qty"),
    (REPLACE | {"peak": 0}, RANGE, "peak must be above zero"),
    (REPLACE | {"min_qty": 11}, RANGE, "min_qty is more than qty"),
    (REPLACE | {"tif": "gtc", "expire_time": END}, FIT, "expire_time is for gtd"),
    (REPLACE | {"expire_time": "soon"}, FIELD, "expire_time must be a whole number"),
]


@pytest.mark.parametrize(("more", "code", "text"), BAD)
def test_bad_option_is_refused_with_a_sentence(
    shared: Bench, more: dict[str, Any], code: RejectCode, text: str
) -> None:
    line = ORDER | more
    if line.get("type") == "replace":
        line.pop("side")
    made = request(shared, line)
    lowest = min(made.refusals, key=lambda refusal: refusal.code)
    assert lowest.code == code
    assert any(text in refusal.text for refusal in made.refusals if refusal.code == code)


def test_bad_option_never_reaches_the_ring(shared: Bench) -> None:
    client = shared.log_on()
    before = len(shared.exchange.seen)
    for more, code, _ in BAD:
        line = {k: v for k, v in (ORDER | more).items() if v is not None}
        if line.get("type") == "replace":
            line.pop("side")
        (answer,) = shared.say(client, line)
        assert (answer["code"], answer["seq"]) == (code, 0)
    assert len(shared.exchange.seen) == before


def test_gateway_and_shard_agree_on_what_goes_together(shared: Bench) -> None:
    # Whatever the gateway lets through, the shard does not call a bad field, range or combination.
    client = shared.log_on()
    values: list[dict[str, Any]] = [
        {}, {"peak": 5}, {"min_qty": 5}, {"hidden": True}, {"slide": True}, {"protected": True},
        {"post_only": True}, {"stp": "decrement"},
    ]  # fmt: skip
    tifs = [{"tif": tif.name.lower()} for tif in TimeInForce] + [{"tif": "gtd", "expire_time": END}]
    kinds: list[dict[str, Any]] = [
        {"price": "0.01"}, {"type": "market"}, {"type": "market_to_limit"},
        {"type": "stop", "trigger": "99"}, {"type": "take_profit_limit", "price": 1, "trigger": 1},
        {"type": "trailing_stop", "price": 1, "distance": 1},
        {"type": "trailing_stop_limit", "price": 1, "distance_bps": 1},
    ]  # fmt: skip
    base = {key: value for key, value in ORDER.items() if key != "price"}
    passed = 0
    for kind in kinds:
        for tif in tifs:
            for number, one in enumerate(values):
                for other in values[: number + 1]:
                    first, *_ = shared.say(client, base | kind | tif | one | other)
                    passed += first["seq"] > 0
                    assert first["seq"] == 0 or first.get("code", 999) > FIT, (
                        kind,
                        tif,
                        one,
                        other,
                    )
    assert passed > 50
    shared.say(client, {"type": "mass_cancel"})


def test_plain_instrument_refuses_what_only_the_full_rules_have(shared: Bench) -> None:
    client = shared.log_on()
    order = ORDER | {"symbol": "AAPL"}
    for more in (
        {"peak": 5}, {"min_qty": 5}, {"hidden": True}, {"slide": True}, {"stp": "none"},
        {"tif": "day"}, {"tif": "gtd", "expire_time": END}, {"tif": "at_open"},
        {"type": "stop_limit", "trigger": 200},
    ):  # fmt: skip
        (answer,) = shared.say(client, order | more)
        assert answer["code"] == RejectCode.NOT_SUPPORTED_HERE, more
    assert [a["type"] for a in shared.say(client, order)] == ["accepted", "booked"]


def test_options_of_an_unknown_symbol_leave_301_to_the_shard() -> None:
    bench = Bench(make_config(unknown_symbol="reject"))
    client = bench.log_on()
    (answer,) = bench.say(client, ORDER | {"symbol": "NOSUCH", "peak": "1.5"})
    assert (answer["code"], answer["seq"] > 0) == (RejectCode.UNKNOWN_SYMBOL, True)
    bench.close()


def test_instruments_tell_their_rules(shared: Bench) -> None:
    client = shared.log_on()
    shared.say(client, ORDER | {"symbol": "NEWCO"})
    (answer,) = shared.say(client, {"type": "instruments", "limit": 100})
    rules = {row["symbol"]: row["rules"] for row in answer["instruments"]}
    assert (rules["GOLD"], rules["AAPL"], rules["NEWCO"]) == ("full", "plain", "plain")


# ----------------------------------------------------------------------------- what is reported
def told(answers: list[dict[str, Any]], *keys: str) -> list[tuple[Any, ...]]:
    """Type and some keys of each report."""
    return [(answer["type"], *(answer.get(key) for key in keys)) for answer in answers]


def trader(desk: Bench, name: str = "alice") -> FakeClient:
    client = desk.log_on(name)
    desk.heard(client)
    return client


def test_iceberg_shows_slice_after_slice(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    desk.say(mine, ORDER | {"side": "sell", "qty": 25, "peak": 10, "id": 1})
    desk.say(other, ORDER | {"qty": 12})
    keys = ("qty", "leaves", "shown", "ref", "old_ref")
    assert told(desk.heard(mine), *keys) == [
        ("fill", "10", "15", "0", 1, None),
        ("refreshed", "10", "15", "10", 2, 1),
        ("fill", "2", "13", "8", 2, None),
    ]
    (status,) = desk.say(mine, {"type": "order", "symbol": "GOLD", "target_id": 1})
    assert told([status], "qty", "shown", "prevented") == [("status", "25", "8", None)]
    (changed,) = desk.say(mine, REPLACE | {"peak": 5, "id": 2})
    assert told([changed], "qty", "shown", "peak", "kept") == [("replaced", "25", "5", "5", True)]
    desk.say(other, ORDER | {"qty": 12})
    last = desk.heard(mine)[-1]
    assert told([last], "qty", "leaves", "shown") == [("fill", "2", "1", None)]  # all that is left


def test_too_many_slices_are_310(desk: Bench) -> None:
    (answer,) = desk.say(desk.log_on(), ORDER | {"qty": 101, "peak": 10})
    assert (answer["code"], answer["reason"]) == (310, "iceberg_parts")


def test_order_that_finds_no_place_says_why_it_expired(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    shares = {"symbol": "SHARES", "qty": 1, "price": "12.50"}
    desk.say(mine, shares | {"side": "sell", "id": 1})
    (answer,) = desk.say(mine, shares | {"side": "sell", "id": 2})
    assert (answer["code"], answer["reason"]) == (314, "too_many")
    desk.say(mine, shares | {"side": "buy", "price": "12.40", "id": 3})
    resting = shares | {"side": "sell", "price": "12.30", "slide": True}
    desk.say(other, shares | {"side": "sell", "price": "12.41"})
    accepted, expired = desk.say(mine, resting | {"id": 4})
    assert (accepted["type"], accepted["price"]) == ("accepted", "12.41")
    assert told([expired], "code", "reason", "qty") == [("expired", 314, "too_many", "1")]


def test_hidden_order_shows_nothing_and_is_in_no_book(desk: Bench) -> None:
    client = desk.log_on()
    accepted, booked = desk.say(client, ORDER | {"hidden": True, "id": 1})
    assert told([accepted, booked], "shown", "ref") == [
        ("accepted", None, None),
        ("booked", "0", None),
    ]
    desk.exchange.top(0, "GOLD")
    (book,) = desk.say(client, {"type": "book", "symbol": "GOLD"})
    assert book["bids"] == []
    fills = desk.say(trader(desk), ORDER | {"side": "sell"})
    assert told(fills, "qty", "role")[1] == ("fill", "10", "taker")


def test_minimum_that_is_not_there_expires_whole(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    desk.say(other, ORDER | {"side": "sell", "qty": 4})
    assert told(desk.say(mine, ORDER | {"min_qty": 5}), "qty", "reason") == [
        ("accepted", "10", None),
        ("expired", "10", "minimum"),
    ]
    kinds = [kind for kind, *_ in told(desk.say(mine, ORDER | {"min_qty": 4}))]
    assert kinds == ["accepted", "fill", "booked"]


def test_slide_rests_one_tick_away(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    desk.say(other, ORDER | {"side": "sell"})
    accepted, booked = desk.say(mine, ORDER | {"price": "13.00", "slide": True})
    assert told([accepted, booked], "price", "post_only") == [
        ("accepted", "12.49", True),
        ("booked", "12.49", True),
    ]


def test_market_orders_with_a_limit_of_their_own(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    for price in ("12.50", "12.55", "12.56"):
        desk.say(other, ORDER | {"side": "sell", "qty": 1, "price": price})
    market = {"symbol": "GOLD", "side": "buy", "qty": 9, "protected": True}
    assert told(desk.say(mine, market), "price", "reason") == [
        ("accepted", "12.55", None),
        ("fill", "12.50", None),
        ("fill", "12.55", None),
        ("expired", "12.55", "market_remainder"),
    ]
    line = {"type": "market_to_limit", "symbol": "GOLD", "side": "buy", "qty": 9}
    assert told(desk.say(mine, line), "price", "leaves") == [
        ("accepted", "12.56", "9"),
        ("fill", "12.56", "8"),
        ("booked", "12.56", "8"),
    ]


@pytest.mark.parametrize(("tif", "reason"), [("gtd", "gtd"), ("day", "day")])
def test_order_whose_time_has_come_is_expired(desk: Bench, tif: str, reason: str) -> None:
    client, shard = desk.log_on(), desk.exchange.shards[0]
    end = {"expire_time": END} if tif == "gtd" else {}
    desk.say(client, ORDER | {"tif": tif, "peak": 4} | end)
    desk.exchange._publish(0, shard.advance(END), None)
    desk.settle()
    (answer,) = desk.heard(client)
    assert told([answer], "reason", "qty", "leaves", "ref") == [("expired", reason, "10", "0", 1)]
    (late,) = desk.say(client, ORDER | {"tif": "gtd", "expire_time": END - 1})
    assert late["code"] == RejectCode.EXPIRY_PAST


def test_self_trades_are_prevented_and_told_to_both(desk: Bench) -> None:
    client = desk.log_on()
    (maker, _) = desk.say(client, ORDER | {"side": "sell", "qty": 25, "peak": 10, "id": 1})
    answers = desk.say(client, ORDER | {"stp": "decrement", "qty": 18, "id": 2})
    keys = ("id", "qty", "leaves", "shown", "stp", "reason")
    assert told(answers, *keys) == [
        ("accepted", 2, "18", "18", None, None, None),
        ("prevented", 1, "18", "7", None, "decrement", None),
        ("prevented", 2, "18", "0", None, "decrement", None),
        ("expired", 2, "0", "0", None, None, "self_trade"),
    ]
    assert answers[2]["other_order_id"] == maker["order_id"]
    assert answers[1]["other_order_id"] == answers[0]["order_id"]
    (status,) = desk.say(client, {"type": "order", "symbol": "GOLD", "target_id": 1})
    assert told([status], "qty", "leaves", "filled", "prevented") == [
        ("status", "25", "7", "0", "18")
    ]


def test_absent_stp_is_the_instruments(desk: Bench) -> None:
    client = desk.log_on()
    order = ORDER | {"symbol": "FINE"}
    desk.say(client, order | {"side": "sell", "id": 1})
    answers = desk.say(client, order | {"id": 2})
    assert told(answers, "id", "stp", "qty") == [
        ("accepted", 2, None, "10.0"),
        ("prevented", 1, "expire_maker", "0.0"),
        ("prevented", 2, "expire_maker", "0.0"),
        ("expired", 1, None, "10.0"),
        ("booked", 2, None, "10.0"),
    ]
    desk.say(client, order | {"side": "sell", "stp": "none", "id": 3})
    (status,) = desk.say(client, {"type": "order", "symbol": "FINE", "order_id": 1})
    assert status["code"] == RejectCode.UNKNOWN_ORDER


def test_plain_order_of_a_full_instrument_reads_as_on_a_plain_one(desk: Bench) -> None:
    plain: list[dict[str, Any]] = []
    full: list[dict[str, Any]] = []
    for symbol, lines in (("AAPL", plain), ("GOLD", full)):
        client, other = desk.log_on(session=symbol), trader(desk)
        lines += desk.say(client, ORDER | {"symbol": symbol, "side": "sell", "id": 1})
        desk.say(other, ORDER | {"symbol": symbol, "qty": 3})
        lines += desk.heard(client)
        for more in ({"qty": 8, "id": 2}, {"price": "12.60", "id": 3}):
            lines += desk.say(client, REPLACE | more | {"symbol": symbol})
        lines += desk.say(client, {"type": "order", "symbol": symbol, "target_id": 1})
        lines += desk.say(client, {"type": "cancel", "symbol": symbol, "target_id": 1, "id": 4})
    volatile = ("seq", "session", "symbol", "order_id", "ref", "old_ref")
    assert [list(line) for line in plain] == [list(line) for line in full]
    assert [{k: v for k, v in line.items() if k not in volatile} for line in plain] == [
        {k: v for k, v in line.items() if k not in volatile} for line in full
    ]


# ----------------------------------------------------------------------------- orders that wait
STOP = {"type": "stop_limit", "symbol": "GOLD", "side": "buy", "qty": 5, "price": "12.60"}


def trade(desk: Bench, seller: FakeClient, buyer: FakeClient, price: str) -> None:
    desk.say(seller, ORDER | {"side": "sell", "qty": 1, "price": price})
    desk.say(buyer, ORDER | {"qty": 1, "price": price})


def test_stop_waits_and_tells_when_it_is_triggered(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    (accepted,) = desk.say(mine, STOP | {"trigger": "12.55", "id": 1})
    assert told([accepted], "order_type", "price", "leaves") == [
        ("accepted", "stop_limit", "12.60", "5")
    ]
    (status,) = desk.say(mine, {"type": "order", "symbol": "GOLD", "target_id": 1})
    assert told([status], "state", "shown", "leaves") == [("status", "new", "0", "5")]
    trade(desk, other, other, "12.55")
    triggered, booked = desk.heard(mine)
    assert told([triggered], "trigger", "price", "qty", "leaves", "ref") == [
        ("triggered", "12.55", "12.60", None, "5", None)
    ]
    assert told([booked], "price", "leaves") == [("booked", "12.60", "5")]


def test_stop_that_cannot_go_on_expires_with_the_code_that_says_why(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    desk.say(mine, STOP | {"trigger": "12.55", "post_only": True, "id": 1})
    desk.say(other, ORDER | {"side": "sell", "price": "12.60"})
    trade(desk, other, other, "12.55")
    assert told(desk.heard(mine), "code", "reason")[1:] == [("expired", 502, "would_trade")]


def test_condition_that_holds_already_is_506(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    trade(desk, other, other, "12.55")
    (answer,) = desk.say(mine, STOP | {"trigger": "12.55"})
    assert told([answer], "code", "reason") == [("rejected", 506, "trigger_true")]
    (answer,) = desk.say(mine, STOP | {"trigger": "12.54", "trigger_on": "best", "id": 1})
    assert answer["type"] == "accepted"  # nothing is offered
    desk.say(other, ORDER | {"side": "sell", "price": "12.70"})
    assert [a["type"] for a in desk.heard(mine)] == ["triggered", "booked"]


def test_trailing_stop_keeps_the_unit_of_its_distance(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    trade(desk, other, other, "12.50")
    trail = {"type": "trailing_stop", "symbol": "GOLD", "side": "sell", "qty": 5}
    desk.say(mine, trail | {"distance": "0.05", "id": 1})
    (wrong,) = desk.say(mine, REPLACE | {"distance_bps": 5, "id": 2})
    assert wrong["code"] == FIT
    (answer,) = desk.say(mine, REPLACE | {"distance": "0.04", "id": 3})
    assert answer["type"] == "replaced"
    (answer,) = desk.say(mine, trail | {"side": "buy", "distance": "0.05", "id": 4})
    assert told([answer], "code", "reason") == [("rejected", 311, "cap_required")]
    trade(desk, other, other, "12.46")
    triggered, expired = desk.heard(mine)
    assert told([triggered, expired], "trigger", "price", "reason") == [
        ("triggered", "12.46", "12.41", None),
        ("expired", None, "12.41", "ioc_remainder"),
    ]


# --------------------------------------------------------------------------- orders of an auction
def set_phase(desk: Bench, phase: Phase) -> None:
    shard = desk.exchange.shards[0]
    change = admin_record(
        CommandKind.SET_PHASE, symbol_id=shard.symbol_id("GOLD"), order_type=phase
    )
    desk.exchange._publish(0, shard.step(change), None)
    desk.settle()


def test_owner_of_an_auction_order_hears_when_it_waits_joins_trades_and_ends(desk: Bench) -> None:
    mine, other = desk.log_on(), trader(desk)
    waits = ORDER | {"tif": "at_close", "qty": 5, "price": "12.50"}
    (refused,) = desk.say(mine, waits)
    assert told([refused], "code", "reason") == [("rejected", 305, "no_such_auction")]
    set_phase(desk, Phase.OPENING_CALL)
    (refused,) = desk.say(mine, ORDER | {"tif": "ioc"})
    assert told([refused], "code", "reason") == [("rejected", 303, "not_in_phase")]
    set_phase(desk, Phase.CONTINUOUS)
    accepted, parked = desk.say(mine, waits | {"id": 1})
    assert told([accepted, parked], "tif", "qty", "leaves", "last") == [
        ("accepted", "at_close", "5", "5", None),
        ("parked", None, None, "5", True),
    ]
    set_phase(desk, Phase.CLOSING_CALL)
    assert told(desk.heard(mine), "qty", "leaves") == [
        ("activated", None, "5"),
        ("booked", "5", "5"),
    ]
    desk.say(other, ORDER | {"side": "sell", "qty": 2, "price": "12.50"})
    set_phase(desk, Phase.CLOSED)
    assert told(desk.heard(mine), "role", "qty", "leaves", "reason") == [
        ("fill", "auction", "2", "3", None),
        ("expired", None, "3", "0", "auction_end"),
    ]
