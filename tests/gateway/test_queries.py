"""Answers the gateway gives by itself, and the directory they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.config import Instrument
from engine.records import RejectCode, pack_name
from gateway.directory import shard_of_name
from tests.gateway.support import INSTRUMENTS, Bench, SessionsOnly, bench, make_config

BUY = {"symbol": "AAPL", "side": "buy", "qty": 3}
SELL = {"symbol": "AAPL", "side": "sell", "qty": 2}


@pytest.fixture
def desk() -> Iterator[Bench]:
    with bench() as made:
        yield made


def test_book_shows_the_top_with_prices_as_text(desk: Bench) -> None:
    client = desk.log_on()
    for number in range(5):
        desk.say(client, {**BUY, "price": f"{99 - number}.5"}, {**SELL, "price": f"{101 + number}"})
    desk.say(client, {**SELL, "price": "99.5"})
    desk.exchange.top(0, "AAPL")
    (book,) = desk.say(client, {"type": "book", "symbol": "AAPL", "depth": 2})
    assert book["bids"] == [["99.50", "1", 1], ["98.50", "3", 1]]
    assert book["asks"] == [["101.00", "2", 1], ["102.00", "2", 1]]
    assert (book["symbol"], book["shard"], book["phase"]) == ("AAPL", 0, "continuous")
    assert book["out_seq"] == desk.exchange.shards[0].position


def test_book_deeper_than_the_top_asks_the_live_book() -> None:
    asked: list[tuple[int, int]] = []

    def deep(symbol_id: int, depth: int) -> tuple[Any, Any]:
        asked.append((symbol_id, depth))
        return np.array([[10_000, 5, 1], [9_999, 1, 1]]), np.zeros((0, 3), np.int64)

    with bench(deep_book=deep) as made:
        client = made.log_on()
        (book,) = made.say(client, {"type": "book", "symbol": "AAPL", "depth": 50})
        assert asked == [(made.exchange.shards[0].symbol_id("AAPL"), 50)]
        assert book["bids"] == [["100.00", "5", 1], ["99.99", "1", 1]]
        assert book["asks"] == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"type": "book"}, RejectCode.BAD_FIELD),
        ({"type": "book", "symbol": 5}, RejectCode.BAD_FIELD),
        ({"type": "book", "symbol": "NOSUCH"}, RejectCode.UNKNOWN_SYMBOL),
        ({"type": "book", "symbol": "AAPL", "depth": 0}, RejectCode.OUT_OF_RANGE),
        ({"type": "book", "symbol": "AAPL", "depth": 1001}, RejectCode.OUT_OF_RANGE),
        ({"type": "book", "symbol": "AAPL", "depth": 21}, RejectCode.OUT_OF_RANGE),
        ({"type": "book", "symbol": "AAPL", "depth": True}, RejectCode.BAD_FIELD),
        ({"type": "instruments", "limit": 501}, RejectCode.OUT_OF_RANGE),
        ({"type": "instruments", "after": 5}, RejectCode.BAD_FIELD),
        ({"type": "open_orders", "limit": 501}, RejectCode.OUT_OF_RANGE),
        ({"type": "limits", "symbol": "AAPL"}, RejectCode.BAD_FIELD),
        ({"type": "limits", "request": "x" * 37}, RejectCode.BAD_FIELD),
    ],
)
def test_query_that_is_wrong_is_refused(desk: Bench, line: dict[str, Any], code: int) -> None:
    (answer,) = desk.say(desk.log_on(), line)
    assert (answer["code"], answer["seq"]) == (code, 0)


def test_book_top_in_flux_is_905_and_costs_no_id(desk: Bench) -> None:
    client = desk.log_on()
    desk.exchange.tops[1]["version"] = 1  # its writer died in it
    (answer,) = desk.say(client, {"type": "book", "symbol": "AAPL"})
    assert answer["code"] == RejectCode.UNAVAILABLE
    desk.exchange.tops[1]["version"] = 2
    assert desk.say(client, {"type": "book", "symbol": "AAPL"})[0]["type"] == "book"


def test_instruments_come_in_pages_by_name() -> None:
    with bench(make_config(shards=2)) as made:
        client = made.log_on()
        names, after = [], None
        for _ in range(10):
            line = {"type": "instruments", "limit": 2} | ({"after": after} if after else {})
            (page,) = made.say(client, line)
            assert len(page["instruments"]) <= 2
            names += [row["symbol"] for row in page["instruments"]]
            after = page.get("next")
            if not after:
                break
        assert names == sorted(instrument.symbol for instrument in INSTRUMENTS)
        (page,) = made.say(client, {"type": "instruments", "symbol": "TICK5"})
        (row,) = page["instruments"]
        assert (row["tick"], row["lot"]) == ("0.05", "10")
        assert row["shard"] == shard_of_name("TICK5", 2)


def test_open_orders_come_in_pages(desk: Bench) -> None:
    client = desk.log_on()
    for number in range(7):
        desk.say(client, {**BUY, "price": f"{90 + number}"})
    found, after = [], 0
    for _ in range(5):
        line = {"type": "open_orders", "limit": 3} | ({"after": after} if after else {})
        *rows, summary = desk.say(client, line)
        found += [row["price"] for row in rows]
        assert (summary["type"], summary["count"]) == ("summary", len(rows))
        after = summary.get("next", 0)
        if not after:
            break
    assert found == [f"{90 + number}.00" for number in range(7)]


def test_listing_of_a_new_symbol_reaches_the_fast_path(desk: Bench) -> None:
    client = desk.log_on()
    desk.say(client, {**BUY, "symbol": "NEWCO", "price": "1"})
    before = desk.desk.counts["slow_lines"]
    answers = desk.say(client, {**BUY, "symbol": "NEWCO", "price": "2"})
    assert [answer["type"] for answer in answers] == ["accepted", "booked"]
    assert desk.desk.counts["slow_lines"] == before


def test_symbols_as_many_as_configured_are_all_known() -> None:
    with bench() as made:
        client = made.log_on()
        room = made.config.shard.symbols_max - len(INSTRUMENTS)
        for number in range(room):
            answers = made.say(client, {**BUY, "symbol": f"N{number}", "price": "1"})
            assert [a.get("symbol") for a in answers] == [f"N{number}"] * 2
        (full,) = made.say(client, {**BUY, "symbol": "ONEMORE", "price": "1"})
        assert full["code"] == RejectCode.LISTING_REFUSED


def test_instrument_whose_steps_are_too_fine_is_listed_but_not_traded() -> None:
    exotic = Instrument("EXOTIC", tick="3.000000001", lot="1", max_price="")
    with bench(make_config(instruments=(exotic,)), exchange=SessionsOnly) as made:
        client = made.log_on()
        (answer,) = made.say(client, {"symbol": "EXOTIC", "side": "buy", "qty": 1, "id": 1})
        assert answer["code"] == RejectCode.NOT_SUPPORTED_HERE


def test_directory_takes_what_the_tops_name_once(desk: Bench) -> None:
    directory = desk.desk.directory
    assert directory.load(desk.exchange.tops) == 0
    place = 9
    top = desk.exchange.tops[place]
    top["symbol"], top["symbol_id"], top["tick"], top["lot"] = pack_name("LATE"), 9, 10**7, 10**9
    assert directory.load(desk.exchange.tops) == 1
    assert directory.places["LATE"] == place
    assert directory.has(9)
    assert not directory.has(10)


def test_event_of_an_instrument_nobody_names_goes_out_in_steps(desk: Bench) -> None:
    desk.desk.directory.placeholder(12)
    assert desk.desk.directory.has(12)
    assert "#12" not in desk.desk.directory.rows
