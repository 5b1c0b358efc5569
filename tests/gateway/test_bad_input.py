"""Bad input, one row each: its code or its disconnect, an unchanged book, and another client that
is served on.

Codec and session level, with the real compiled step behind real rings;
tests/system/test_bad_input_system.py asks the running exchange the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from engine.config import ShardLimits
from engine.records import RejectCode
from gateway.connection import Client
from tests.gateway.support import LIMITS, Bench, FakeClient, bench, make_config

GOOD = {"symbol": "AAPL", "side": "buy", "qty": 10, "price": "100.05"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.fixture(scope="module")
def strict() -> Iterator[Bench]:
    with bench(make_config(unknown_symbol="reject")) as made:
        yield made


def raw(**changes: str | None) -> bytes:
    """The good order with some raw JSON values changed, added or (None) left out."""
    fields = {
        "symbol": '"AAPL"',
        "side": '"buy"',
        "qty": "10",
        "price": '"100.05"',
        "id": "1000",
    } | changes
    return (
        "{"
        + ",".join(f'"{key}":{value}' for key, value in fields.items() if value is not None)
        + "}"
    ).encode()


ROWS: dict[str, tuple[bytes, int]] = {
    "garbage bytes": (b"\x00\x01\x02\xfe\xff garbage", 101),
    "not an object": (b"[1,2,3]", 101),
    "a bare number": (b"7", 101),
    "a NUL byte": (b'{"symbol":"AA\x00PL"}', 101),
    "bad UTF-8 in a value": (b'{"symbol":"\xc3\x28","side":"buy","qty":1}', 101),
    "bad UTF-8 in a key": (b'{"\xff":1}', 101),
    "nested object": (raw(price='{"amount":5}'), 101),
    "nested array": (raw(qty="[10]"), 101),
    "nested 900 deep": (b'{"a":' * 300 + b"1" + b"}" * 300, 101),
    "brackets without end": (b"[" * 2000, 101),
    "nested under a duplicate key": (b'{"qty":[1],"qty":1}', 101),
    "duplicate key": (b'{"symbol":"AAPL","side":"buy","qty":1,"qty":2,"price":1}', 101),
    "duplicate key under another name": (b'{"symbol":"AAPL","ticker":"MSFT","side":"buy","qty":1}',
    101),
    "duplicate key in another case": (b'{"symbol":"AAPL","side":"buy","qty":1,"QTY":1}', 101),
    "NaN": (raw(price="NaN"), 101),
    "Infinity": (raw(price="-Infinity"), 101),
    "leading zero": (raw(qty="010"), 101),
    "plus sign": (raw(qty="+10"), 101),
    "two objects on a line": (raw() + raw(), 101),
    "comma at the end": (raw()[:-1] + b",}", 101),
    "single quotes": (b"{'symbol':'AAPL'}", 101),
    "half an object": (raw()[:-1], 101),
    "oversize line": (raw(price='"' + "1" * 2100 + '"'), 101),
    "oversize line of blanks": (raw() + b" " * 2100, 101),
    "unknown key": (raw(colour='"red"'), 102),
    "key of another request": (raw(depth="5"), 102),
    "quantity in a cancel": (b'{"type":"cancel","symbol":"AAPL","target_id":1,"qty":5}', 102),
    "unknown type": (raw(type='"place"'), 102),
    "type is a number": (raw(type="1"), 102),
    "unknown side": (raw(side='"long"'), 102),
    "side is a number": (raw(side="0"), 102),
    "unknown time in force": (raw(tif='"forever"'), 102),
    "side is missing": (raw(side=None), 102),
    "symbol is missing": (raw(symbol=None), 102),
    "quantity is missing": (raw(qty=None), 102),
    "limit without price": (raw(type='"limit"', price=None), 102),
    "cancel of nothing": (b'{"type":"cancel","symbol":"AAPL"}', 102),
    "boolean quantity": (raw(qty="true"), 102),
    "boolean price": (raw(price="false"), 102),
    "boolean id": (raw(id="true"), 102),
    "boolean as text": (raw(post_only='"true"'), 102),
    "number as boolean": (raw(post_only="1"), 102),
    "float id": (raw(id="1000.0"), 102),
    "exponent id": (raw(id="1e3"), 102),
    "float order_id": (b'{"type":"cancel","symbol":"AAPL","order_id":1.5}', 102),
    "price is no number": (raw(price='"cheap"'), 102),
    "price with blanks": (raw(price='" 100"'), 102),
    "price in Arabic digits": (raw(price='"\u0661\u0660\u0660"'), 102),
    "stated shard is not the symbol's": (raw(shard="5"), 102),
    "empty symbol": (raw(symbol='""'), 102),
    "quantity zero": (raw(qty="0"), 103),
    "quantity negative": (raw(qty="-10"), 103),
    "quantity 2**31": (raw(qty="2147483648"), 103),
    "quantity 2**63": (raw(qty="9223372036854775808"), 103),
    "quantity 2**64": (raw(qty="18446744073709551616"), 103),
    "price zero": (raw(price="0"), 103),
    "price negative": (raw(price='"-100.05"'), 103),
    "price too high for 31 bits": (raw(price="21474836.48"), 103),
    "price 2**63": (raw(price="9223372036854775808"), 103),
    "price over what a double holds": (raw(price="1e400"), 101),
    "price 1e400 as text": (raw(price='"1e400"'), 103),
    "tag over 32 bits": (raw(tag="4294967296"), 103),
    "tag negative": (raw(tag="-1"), 103),
    "order_id zero": (b'{"type":"cancel","symbol":"AAPL","order_id":0}', 103),
    "order_id 2**63": (b'{"type":"cancel","symbol":"AAPL","order_id":9223372036854775808}', 103),
    "market with price": (raw(type='"market"'), 104),
    "post-only that may not rest": (raw(post_only="true", tif='"ioc"'), 104),
    "post-only market": (raw(post_only="true", price=None), 104),
    "id zero": (raw(id="0"), 105),
    "id negative": (raw(id="-1"), 105),
    "id 2**63": (raw(id="9223372036854775808"), 105),
    "id 2**64": (raw(id="18446744073709551616"), 105),
    "text id in a session of integers": (raw(id='"abc"'), 105),
    "target 2**63": (b'{"type":"cancel","symbol":"AAPL","target_id":9223372036854775808}', 105),
    "wrong account": (raw(account='"alice"'), 202),
    "wrong session": (raw(session='"other"'), 202),
    "symbol over eight characters": (raw(symbol='"TOOLONGNAME"'), 302),
    "symbol with a blank": (raw(symbol='"A B"'), 302),
    "symbol outside ASCII": (raw(symbol='"\u00c4"'), 302),
    "off tick": (raw(price="100.055"), 306),
    "off tick by 1e-9": (raw(price="100.050000001"), 306),
    "price below one tick": (raw(price="0.001"), 306),
    "off lot": (raw(qty="10.5"), 307),
    "off lot of ten": (raw(symbol='"TICK5"', qty="15", price="1"), 307),
    "replace of an unknown symbol": (b'{"type":"replace","symbol":"NOSUCH","target_id":1}', 301),
    "open orders of an unknown symbol": (b'{"type":"open_orders","symbol":"NOSUCH"}', 301),
    "book of an unknown symbol": (b'{"type":"book","symbol":"NOSUCH"}', 301),
    "order never issued": (b'{"type":"cancel","symbol":"AAPL","order_id":77}', 501),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_bad_line_gets_its_code_and_changes_nothing(shared: Bench, name: str) -> None:
    line, code = ROWS[name]
    client = shared.log_on(session="bad")
    before = shared.exchange.digests()
    answers = shared.say(client, line)
    assert [answer.get("code") for answer in answers] == [code], answers
    answer = answers[0]
    assert (answer["type"], answer["reason"]) == ("rejected", RejectCode(code).name.lower())
    assert answer["text"]
    assert shared.exchange.digests() == before
    assert not client.hung_up
    assert [a["type"] for a in shared.say(client, {"type": "test_request"})] == ["heartbeat"]
    shared.desk.on_lost(client)
    shared.settle()


@pytest.mark.parametrize("name", ROWS)
def test_bad_line_in_pieces_gets_the_same_answer(shared: Bench, name: str) -> None:
    line, code = ROWS[name]
    client = shared.log_on(session="bad")
    for start in range(0, len(line), 7):
        shared.feed(client, line[start : start + 7])
    shared.feed(client, b"\r\n")
    shared.settle()
    assert [answer.get("code") for answer in shared.heard(client)] == [code]
    shared.desk.on_lost(client)
    shared.settle()


def test_unknown_symbol_under_policy_reject_is_301_from_the_shard(strict: Bench) -> None:
    client = strict.log_on()
    before = strict.exchange.digests()
    for number, order in enumerate(
        (
            {**GOOD, "symbol": "NOSUCH"},
            {**GOOD, "symbol": "NOSUCH", "price": "0.00000001", "qty": "0.5"},
        ),
        1,
    ):
        (answer,) = strict.say(client, {**order, "id": number})
        assert (answer["code"], answer["seq"] > 0) == (RejectCode.UNKNOWN_SYMBOL, True)
    assert strict.exchange.digests() == before


def test_price_over_the_instruments_highest_is_103_from_the_shard(shared: Bench) -> None:
    client = shared.log_on(session="high")
    (answer,) = shared.say(client, {**GOOD, "price": "429496.73"})
    assert (answer["code"], answer["seq"] > 0) == (RejectCode.OUT_OF_RANGE, True)
    assert (
        shared.say(client, {**GOOD, "price": "429496.72", "side": "sell"})[0]["type"] == "accepted"
    )


def full_book(limits: ShardLimits, orders: list[dict[str, Any]], code: int) -> None:
    """These orders fill the book; the last one is refused and changes nothing."""
    with bench(make_config(shard=limits)) as made:
        client = made.log_on()
        for number, order in enumerate(orders[:-1], 1):
            assert made.say(client, {**order, "id": number})[-1]["type"] == "booked"
        before = made.exchange.digests()
        (answer,) = made.say(client, {**orders[-1], "id": len(orders)})
        assert (answer["code"], answer["seq"] > 0) == (code, True)
        assert made.exchange.digests() == before
        other = made.log_on("alice")
        assert (
            made.say(other, {"type": "cancel", "symbol": "AAPL", "order_id": 1})[0]["code"]
            == RejectCode.UNKNOWN_ORDER
        )
        assert (
            made.say(client, {"type": "cancel", "symbol": "AAPL", "target_id": 1})[0]["type"]
            == "canceled"
        )
        assert made.say(client, {**orders[-1]})[0]["type"] == "accepted"


def test_full_order_pool_is_902() -> None:
    full_book(dataclasses.replace(LIMITS, orders_max=4), [GOOD] * 5, RejectCode.ORDERS_FULL)


def test_full_level_pool_is_903() -> None:
    orders = [{**GOOD, "price": f"{100 + number}"} for number in range(5)]
    full_book(dataclasses.replace(LIMITS, levels_max=4), orders, RejectCode.LEVELS_FULL)


def test_full_table_of_text_ids_is_204() -> None:
    with bench(make_config(shard=dataclasses.replace(LIMITS, text_ids_max=4))) as made:
        client = made.log_on(ids="text")
        seen = [
            made.say(client, {**GOOD, "id": f"id{number}"})[0].get("code") for number in range(8)
        ]
        assert seen[0] is None
        assert seen[-1] == RejectCode.ID_TABLE_FULL


def test_endless_line_is_refused_once_and_then_disconnected(shared: Bench) -> None:
    client = shared.log_on(session="endless")
    for _ in range(100):
        if not client.closed:
            shared.feed(client, b"z" * 1000)
    answers = shared.heard(client)
    assert [a.get("code", a["type"]) for a in answers] == [101, "logout"]
    assert client.hung_up
    assert len(client.carry) == 0


class Stubborn(FakeClient):
    """A client that does not read: what waits for it is counted, not sent."""

    def __init__(self, made: Bench, most: int) -> None:
        super().__init__()
        self.made, self.most, self.waiting = made, most, 0

    def send(self, data: bytes | memoryview) -> None:
        self.waiting += len(data)
        if self.waiting > self.most:
            self.made.desk.overflow(self)


def test_slow_reader_is_dropped_and_its_orders_follow_its_wish() -> None:
    with bench() as made:
        other = made.log_on("alice")
        client = Stubborn(made, 20_000)
        made.desk.on_connect(client)
        made.say(
            client,
            {"type": "logon", "account": "demo", "token": "demo", "cancel_on_disconnect": "all"},
        )
        for number in range(1, 200):
            if not client.closed:
                made.say(client, {**GOOD, "id": number})
            assert made.say(other, {"type": "test_request"})[0]["type"] == "heartbeat"
        assert client.hung_up
        assert made.desk.counts["output_overflows"] == 1
        made.settle()
        assert len(made.exchange.shards[0].orders("AAPL", 0)) == 0
        assert made.say(other, {**GOOD, "id": 1})[0]["type"] == "accepted"


def test_thousands_of_idle_connections_cost_one_deadline() -> None:
    with bench() as made:
        served = made.log_on()
        idle: list[Client] = [made.connect() for _ in range(2000)]
        assert made.say(served, {**GOOD, "id": 1})[0]["type"] == "accepted"
        for _ in range(52):
            made.desk.tick()
        assert all(client.closed for client in idle)
        assert len(made.desk.clients) == 1
        assert made.say(served, {**GOOD, "id": 2})[-1]["type"] == "booked"


def test_flood_of_bad_lines_takes_turns_with_another_client(shared: Bench) -> None:
    client, other = shared.log_on(session="flood"), shared.log_on("alice")
    shared.feed(client, b"bad\n" * 5000)
    assert client.paused  # after SLOW_LINES_MAX lines the rest waits
    shared.feed(other, orjson.dumps({**GOOD, "id": 1}) + b"\n")
    assert shared.exchange.run() == 1
    shared.settle()
    assert len(shared.heard(client)) == 5000
    assert not client.paused
