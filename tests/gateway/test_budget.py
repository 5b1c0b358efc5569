"""Budget orders at the doors: the sum is exact to the last digit, what cannot be is refused with a
sentence, and reports and the client library tell what the money bought.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.client import Terminal, UsageError
from engine.config import Config, Instrument
from engine.records import NOTIONAL_MAX, OrderType, RejectCode, TimeInForce
from gateway.client_core import ClientCore
from gateway.client_reports import Order, report_of
from gateway.codec_fields import Context, Request
from gateway.codec_slow import request_of
from gateway.state import C_AMOUNT, C_FLAGS, C_ORDER_TYPE, C_PX, C_QTY, C_SIDE, C_TIF
from tests.gateway.support import INSTRUMENTS, Bench, FakeClient, make_config

GOLD = Instrument("GOLD", "0.01", "1", rules="full")
COIN = Instrument("COIN", "0.01", "0.00001", rules="full", stp="expire_taker")
SPENDS = {"symbol": "GOLD", "side": "buy", "budget": "100"}
MOST = "4611686018.427387903"
BUDGET, FOK = OrderType.BUDGET, TimeInForce.FOK


@pytest.fixture
def desk() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD, COIN)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD, COIN)))
    yield made
    made.close()


def request(bench: Bench, line: dict[str, Any]) -> Request:
    context = Context(bench.config, bench.desk.directory, 1)
    return request_of(orjson.dumps({k: v for k, v in line.items() if v is not None}), context)


# ------------------------------------------------------------------------------ what a line may say
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, {C_AMOUNT: 100 * 10**9, C_ORDER_TYPE: BUDGET, C_QTY: 0, C_PX: 0, C_TIF: 0}),
        ({"type": "budget", "side": "s"}, {C_ORDER_TYPE: BUDGET, C_SIDE: 1, C_FLAGS: 0}),
        ({"order_type": "Budget"}, {C_ORDER_TYPE: BUDGET}),
        ({"budget": "0.000000001"}, {C_AMOUNT: 1}),
        ({"budget": "187.420000000000000"}, {C_AMOUNT: 187_420_000_000}),
        ({"budget": 12.5}, {C_AMOUNT: 12_500_000_000}),
        ({"BUDGET": "1e3", "budget": None}, {C_AMOUNT: 1000 * 10**9}),
        ({"budget": MOST}, {C_AMOUNT: NOTIONAL_MAX}),
        ({"tif": "ioc"}, {C_TIF: TimeInForce.IOC, C_QTY: 0}),
        ({"tif": "fok", "qty": 7}, {C_TIF: FOK, C_QTY: 7, C_AMOUNT: 100 * 10**9}),
        ({"stp": "expire_maker", "tag": 3}, {C_ORDER_TYPE: BUDGET}),
    ],
)
def test_budget_is_read_as_whole_quote_units(
    shared: Bench, more: dict[str, Any], words: dict[int, int]
) -> None:
    made = request(shared, SPENDS | more)
    assert made.refusals == []
    assert {word: made.words.get(word, 0) for word in words} == words


def no_directory() -> Any:
    """A directory that lists nothing."""
    return SimpleNamespace(rows={})


@given(st.integers(1, NOTIONAL_MAX), st.integers(0, 12))
@example(NOTIONAL_MAX - 2, 0)
@example(10**18 + 1, 3)
def test_budget_is_exact_to_the_last_digit(units: int, zeros: int) -> None:
    text = f"{units // 10**9}.{units % 10**9:09d}" + "0" * zeros
    config = Config()
    made = request_of(
        orjson.dumps({"symbol": "X", "side": "buy", "budget": text}),
        Context(config, no_directory(), 1),
    )
    assert made.refusals == []
    assert Fraction(made.words[C_AMOUNT], 10**9) == Fraction(text)


FIELD, RANGE, FIT = RejectCode.BAD_FIELD, RejectCode.OUT_OF_RANGE, RejectCode.BAD_COMBINATION
BAD: list[tuple[dict[str, Any], RejectCode, str]] = [
    ({"budget": True}, FIELD, "budget must be a decimal number"),
    ({"budget": "much"}, FIELD, "budget must be a decimal number"),
    ({"budget": " 5"}, FIELD, "budget must be a decimal number"),
    ({"budget": ""}, FIELD, "budget must be a decimal number"),
    ({"budget": None, "type": "budget"}, FIELD, "budget is missing"),
    ({"budget": None}, FIELD, "qty is missing"),
    ({"symbol": None}, FIELD, "symbol is missing"),
    ({"tif": "fok"}, FIELD, "qty is missing"),
    ({"type": "budget", "order_type": "budget"}, FIELD, "type names the order type already"),
    ({"budget": 0}, RANGE, "budget must be above zero"),
    ({"budget": "-5"}, RANGE, "budget must be above zero"),
    ({"budget": "0.0000000001"}, RANGE, "more than 9 decimals"),
    ({"budget": "1e-400"}, RANGE, "more than 9 decimals"),
    ({"budget": "4611686018.427387904"}, RANGE, f"at most {MOST}"),
    ({"budget": "1e400"}, RANGE, f"at most {MOST}"),
    ({"qty": 3}, FIT, "that is not fok buys what its budget is worth"),
    ({"price": "12.50"}, FIT, "a budget order has no price"),
    ({"tif": "fok", "qty": 3, "price": "1"}, FIT, "a budget order has no price"),
    ({"type": "market", "qty": 3}, FIT, "not with type market"),
    ({"type": "limit", "qty": 3, "price": "1"}, FIT, "not with another order type"),
    ({"order_type": "market", "qty": 3}, FIT, "not with another order type"),
    ({"post_only": True}, FIT, "post_only is for orders that can rest"),
    ({"hidden": True}, FIT, "hidden is for orders that can rest"),
    ({"peak": 1}, FIT, "peak is for orders that can rest"),
    ({"min_qty": 1}, FIT, "min_qty is for limit and market"),
    ({"protected": True}, FIT, "protected is for market orders"),
    ({"tif": "at_open"}, FIT, "auctions take limit and market orders"),
    ({"trigger": 1}, FIT, "trigger is for stop"),
    (
        {"type": "replace", "target_id": 1, "side": None, "qty": 3},
        FIELD,
        "budget does not belong to replace",
    ),
    ({"type": "cancel", "target_id": 1, "side": None}, FIELD, "budget does not belong to cancel"),
]


@pytest.mark.parametrize(("more", "code", "text"), BAD)
def test_bad_budget_is_refused_with_a_sentence_and_reaches_no_ring(
    shared: Bench, more: dict[str, Any], code: RejectCode, text: str
) -> None:
    client = shared.log_on()
    shared.heard(client)
    before = len(shared.exchange.seen)
    line = {key: value for key, value in (SPENDS | more).items() if value is not None}
    made = request(shared, line)
    assert min(refusal.code for refusal in made.refusals) == code
    assert any(text in refusal.text for refusal in made.refusals if refusal.code == code)
    (answer,) = shared.say(client, line)
    assert (answer["code"], answer["seq"]) == (code, 0)
    assert len(shared.exchange.seen) == before


def test_gateway_and_shard_agree_on_what_goes_with_a_budget(shared: Bench) -> None:
    client = shared.log_on()
    heard = set()
    for tif in TimeInForce:
        for more in ({}, {"expire_time": 4 * 10**18}, {"stp": "none"}, {"post_only": True}):
            for qty in ({}, {"qty": 5}):
                line = SPENDS | {"tif": tif.name.lower()} | more | qty
                first, *_ = shared.say(client, line)
                heard.add(first["seq"] > 0)
                assert first["seq"] == 0 or first["code"] > FIT, line
    assert heard == {True, False}


# --------------------------------------------------------------------------------- what is reported
def offers(desk: Bench, *levels: tuple[int, str]) -> FakeClient:
    client = desk.log_on("alice")
    for qty, price in levels:
        desk.say(client, {"symbol": "GOLD", "side": "sell", "qty": qty, "price": price})
    desk.heard(client)
    return client


def test_budget_buys_whole_lots_and_its_reports_say_how_many(desk: Bench) -> None:
    offers(desk, (2, "1.00"), (2, "1.10"), (9, "1.20"))
    accepted, *fills = desk.say(desk.log_on(), SPENDS | {"budget": "5.39", "id": 1})
    told = {key: accepted.get(key) for key in ("type", "order_type", "tif", "qty", "price", "id")}
    assert told == {
        "type": "accepted", "order_type": "budget", "tif": "gtc", "qty": "4", "price": None,
        "id": 1,
    }  # fmt: skip
    assert [(fill["qty"], fill["price"], fill["leaves"]) for fill in fills] == [
        ("2", "1.00", "2"),
        ("2", "1.10", "0"),
    ]
    assert fills[-1]["last"] is True


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"budget": "0.99"}, 505),
        ({"budget": "5", "side": "sell"}, 503),
        ({"budget": "2.19", "qty": 2, "tif": "fok"}, None),
        ({"budget": "5.09", "qty": 5, "tif": "fok"}, 504),
        ({"budget": "4.19", "qty": 4, "tif": "fok"}, 505),
        ({"budget": "5", "stp": "decrement"}, 304),
        ({"budget": "5", "symbol": "AAPL"}, 304),
    ],
)
def test_what_the_money_does_not_buy_is_refused_by_the_shard(
    desk: Bench, line: dict[str, Any], code: int | None
) -> None:
    offers(desk, (2, "1.00"), (2, "1.10"))
    first, *_ = desk.say(desk.log_on(), SPENDS | line)
    assert first.get("code") == code
    assert first["seq"] > 0


def test_a_budget_of_fine_lots_is_spent_to_the_last_one(desk: Bench) -> None:
    seller = desk.log_on("alice")
    desk.say(seller, {"symbol": "COIN", "side": "sell", "qty": "1", "price": "60000.00"})
    accepted, fill = desk.say(desk.log_on(), SPENDS | {"symbol": "COIN", "budget": "100"})
    assert (accepted["qty"], fill["qty"]) == ("0.00166", "0.00166")  # 99.60; one lot more is 100.20


def test_budget_of_an_unknown_symbol_leaves_301_to_the_shard() -> None:
    bench = Bench(make_config(unknown_symbol="reject"))
    client = bench.log_on()
    for more in ({}, {"tif": "fok", "qty": "1.5"}):
        (answer,) = bench.say(client, SPENDS | {"symbol": "NOSUCH"} | more)
        assert (answer["code"], answer["seq"] > 0) == (RejectCode.UNKNOWN_SYMBOL, True)
    bench.close()


# ----------------------------------------------------------------------------------------- clients
def test_client_sends_a_budget_instead_of_a_quantity() -> None:
    core = ClientCore("demo", "demo")
    line = core.order_line("GOLD", "buy", None, budget=Decimal("5.390"))
    assert orjson.loads(core.encode(line)) == {
        "type": "new", "symbol": "GOLD", "side": "buy", "id": 1, "budget": "5.390",
    }  # fmt: skip
    line = core.order_line("GOLD", "buy", 4, budget=0.1, tif="fok")
    assert (line["qty"], line["budget"]) == ("4", "0.1")


def test_order_tells_what_it_cost() -> None:
    own = {"shard": 0, "order_id": 7, "id": 1, "side": "buy", "symbol": "GOLD", "seq": 1}
    sizes = [("2", "1.00", "2", "2"), ("2", "1.10", "0", "4")]
    lines = [own | {"type": "accepted", "order_type": "budget", "qty": "4", "leaves": "4"}]
    lines += [
        own | {"type": "fill", "role": "taker", "qty": q, "price": p, "leaves": left, "filled": f}
        for q, p, left, f in sizes
    ]
    order = Order.of([report_of(line) for line in lines])
    assert (order.type, order.status, order.amount) == ("budget", "filled", 4)
    assert (order.cost, order.average) == (Decimal("4.20"), Decimal("1.05"))


class Placed(Exception):
    """What a terminal would have sent."""


class Listener:
    """A client that keeps what it is told to place."""

    def place(self, *words: Any, **options: Any) -> Order:
        raise Placed(words, {key: value for key, value in options.items() if value is not None})


@pytest.mark.parametrize(
    ("line", "words", "options"),
    [
        ("buy GOLD budget=5.39", ("GOLD", "buy", None), {"budget": "5.39"}),
        ("sell GOLD ioc BUDGET=7", ("GOLD", "sell", None), {"budget": "7", "tif": "ioc"}),
        ("buy 4 GOLD budget=5 fok", ("GOLD", "buy", "4"), {"budget": "5", "tif": "fok"}),
    ],
)
def test_terminal_takes_a_budget(
    line: str, words: tuple[Any, ...], options: dict[str, Any]
) -> None:
    listener: Any = Listener()
    with pytest.raises(Placed) as placed:
        list(Terminal(listener, False).do(line))
    assert placed.value.args == (words, options)


@pytest.mark.parametrize("line", ["buy budget=5", "buy GOLD budjet=5"])
def test_terminal_asks_for_what_a_budget_lacks(line: str) -> None:
    listener: Any = Listener()
    with pytest.raises(UsageError, match="as in: buy"):
        list(Terminal(listener, False).do(line))
