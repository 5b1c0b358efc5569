"""Lists of orders in one request: what a line may say, all legs or none, what the client hears."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from engine.config import Instrument
from engine.records import CommandFlag, CommandKind, OrderType, RejectCode
from gateway.client_core import ClientCore
from gateway.codec_fields import Context, Request
from gateway.codec_slow import request_of
from gateway.state import (
    C_DECISION,
    C_FLAGS,
    C_ID,
    C_KIND,
    C_ORDER_TYPE,
    C_PX,
    C_PX2,
    C_QTY,
    C_SIDE,
)
from tests.gateway.support import INSTRUMENTS, Bench, make_config

GOLD = Instrument("GOLD", "0.01", "1", rules="full")
OCO: dict[str, Any] = {
    "type": "oco",
    "symbol": "GOLD",
    "side": "sell",
    "qty": 5,
    "leg1_price": "1.10",
    "leg1_id": 1,
    "leg2_order_type": "stop",
    "leg2_trigger": "0.90",
    "leg2_id": 2,
}
BRACKET: dict[str, Any] = {
    "type": "otoco",
    "symbol": "GOLD",
    "side": "sell",
    "qty": 5,
    "leg1_side": "buy",
    "leg1_price": "1.00",
    "leg1_id": 1,
    "leg2_price": "1.10",
    "leg2_id": 2,
    "leg3_order_type": "stop",
    "leg3_trigger": "0.90",
    "leg3_id": 3,
}
LIST = int(CommandFlag.LIST)


@pytest.fixture
def desk() -> Iterator[Bench]:
    made = Bench(make_config(instruments=(*INSTRUMENTS, GOLD)))
    yield made
    made.close()


def request(bench: Bench, line: dict[str, Any]) -> Request:
    context = Context(bench.config, bench.desk.directory, 1)
    return request_of(orjson.dumps({k: v for k, v in line.items() if v is not None}), context)


def kinds(lines: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(line["type"], line.get("id")) for line in lines]


# ------------------------------------------------------------------------------ what a line may say
def test_keys_without_a_leg_are_for_every_leg_that_states_no_own(desk: Bench) -> None:
    made = request(desk, BRACKET)
    assert not made.refusals
    assert [leg.words[C_SIDE] for leg in made.legs] == [0, 1, 1]
    assert [leg.words[C_QTY] for leg in made.legs] == [5, 5, 5]
    assert [leg.words[C_PX] for leg in made.legs if C_PX in leg.words] == [100, 110]
    assert made.legs[2].words[C_PX2] == 90
    assert [leg.words[C_ID] for leg in made.legs] == [1, 2, 3]
    assert [leg.words[C_KIND] for leg in made.legs] == [CommandKind.NEW] * 3
    assert [leg.words[C_DECISION] for leg in made.legs] == [3, 3, 3]
    assert [leg.words[C_FLAGS] & LIST for leg in made.legs] == [LIST, LIST, 0]
    types = [OrderType.LIMIT, OrderType.LIMIT, OrderType.STOP]
    assert [leg.words[C_ORDER_TYPE] for leg in made.legs] == types


def test_keys_of_legs_have_aliases_and_any_letter_case(desk: Bench) -> None:
    line = {key: value for key, value in OCO.items() if key not in ("leg1_price", "side")}
    made = request(desk, line | {"LEG1_PX": "1.10", "action": "SELL", "type": None, "Type": "OCO"})
    assert not made.refusals
    assert made.legs[0].words[C_PX] == 110


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({"id": 7}, RejectCode.BAD_FIELD, "each leg has its own id"),
        ({"leg3_price": "1"}, RejectCode.BAD_FIELD, "leg3_price does not belong to this list"),
        ({"leg1_symbol": "AAPL"}, RejectCode.BAD_FIELD, "leg1_symbol does not belong"),
        ({"leg1_type": "limit"}, RejectCode.BAD_FIELD, "leg1_type does not belong"),
        ({"leg1_target_id": 3}, RejectCode.BAD_FIELD, "leg1_target_id does not belong"),
        ({"leg2_trigger": None}, RejectCode.BAD_FIELD, "leg 2: trigger is missing"),
        ({"leg2_qty": 4}, RejectCode.BAD_COMBINATION, "have the same qty"),
        ({"leg2_side": "buy"}, RejectCode.BAD_COMBINATION, "have the same side"),
        ({"leg2_tif": "day"}, RejectCode.BAD_COMBINATION, "have the same tif"),
        (
            {"leg2_order_type": None, "leg2_trigger": None, "leg2_price": "1.20"},
            RejectCode.BAD_COMBINATION,
            "one at most is a limit order",
        ),
        (
            {"leg2_order_type": "market", "leg2_trigger": None},
            RejectCode.BAD_COMBINATION,
            "a limit order and a stop, or stops",
        ),
        ({"leg1_price": "1.105"}, RejectCode.OFF_TICK, "leg 1: "),
        ({"leg1_id": "a"}, RejectCode.BAD_CLIENT_ID, "leg 1: "),
        ({"type": "oto", "leg2_tif": "at_close"}, RejectCode.BAD_COMBINATION, "leg 2: "),
    ],
)
def test_what_is_wrong_is_told_with_its_leg(
    desk: Bench, more: dict[str, Any], code: RejectCode, text: str
) -> None:
    made = request(desk, OCO | more)
    found = min(made.refusals, key=lambda refusal: refusal.code)
    assert found.code == code
    assert text in found.text


def test_keys_of_legs_belong_to_lists_only(desk: Bench) -> None:
    line = {"symbol": "GOLD", "side": "buy", "qty": 1, "price": "1", "leg1_tag": 3}
    assert request(desk, line).refusals[0].code == RejectCode.BAD_FIELD
    assert request(desk, {"type": "logout", "leg1_tag": 3}).refusals[0].code == RejectCode.BAD_FIELD


# ------------------------------------------------------------------------------- on the way in, out
def test_one_request_one_answer_group_each_leg_by_its_own_id(desk: Bench) -> None:
    client = desk.log_on()
    told = desk.say(client, OCO)
    assert kinds(told) == [("accepted", 1), ("accepted", 2), ("booked", 1)]
    assert [line["last"] for line in told if line.get("last")] == [True]
    told = desk.say(client, {"type": "cancel", "symbol": "GOLD", "target_id": 2, "id": 3})
    assert [line.get("reason") for line in told] == ["client", "oco"]


def test_bracket_goes_live_when_the_first_order_is_filled(desk: Bench) -> None:
    client, other = desk.log_on(), desk.log_on("alice", "secret")
    told = desk.say(client, BRACKET)
    parked = [("parked", 2), ("parked", 3)]
    assert kinds(told) == [
        ("accepted", 1),
        ("accepted", 2),
        ("accepted", 3),
        *parked,
        ("booked", 1),
    ]
    desk.say(other, {"symbol": "GOLD", "side": "sell", "qty": 5, "price": "1.00", "id": 1})
    told = desk.heard(client)
    assert kinds(told) == [("fill", 1), ("activated", 2), ("activated", 3), ("booked", 2)]


def test_a_refused_list_is_one_reject_that_names_the_last_leg(desk: Bench) -> None:
    client = desk.log_on()
    told = desk.say(client, OCO | {"symbol": "AAPL"})
    assert kinds(told) == [("rejected", 2)]
    assert told[0]["code"] == RejectCode.NOT_SUPPORTED_HERE
    told = desk.say(client, OCO | {"leg1_id": 3, "leg2_id": 4})
    assert kinds(told)[0] == ("accepted", 3)


def test_ids_of_legs_rise_and_are_above_the_last_one(desk: Bench) -> None:
    client = desk.log_on()
    told = desk.say(client, OCO | {"leg1_id": 5, "leg2_id": 5})
    assert (told[0]["code"], told[0]["seq"]) == (RejectCode.DUPLICATE, 0)
    desk.say(client, OCO)
    told = desk.say(client, {"symbol": "GOLD", "side": "buy", "qty": 1, "price": "0.50", "id": 2})
    assert told[0]["type"] == "status"  # the stop
    told = desk.say(client, OCO)
    assert kinds(told) == [("status", 1), ("status", 2)]
    told = desk.say(client, {"symbol": "GOLD", "side": "buy", "qty": 1, "price": "0.50", "id": 3})
    assert kinds(told) == [("accepted", 3), ("booked", 3)]


def test_text_ids_name_the_legs(desk: Bench) -> None:
    client = desk.log_on(ids="text")
    told = desk.say(client, OCO | {"leg1_id": "up", "leg2_id": "down"})
    assert kinds(told) == [("accepted", "up"), ("accepted", "down"), ("booked", "up")]
    told = desk.say(client, {"type": "cancel", "symbol": "GOLD", "target_id": "down"})
    assert kinds(told) == [("canceled", "down"), ("canceled", "up")]


def test_a_ring_without_room_for_all_legs_takes_none(desk: Bench) -> None:
    client = desk.log_on()
    codec = desk.desk.rings
    capacity = codec.commands.capacity
    filler = {"symbol": "GOLD", "side": "buy", "qty": 1, "price": "0.01"}
    lines = [orjson.dumps(filler | {"id": n}) + b"\n" for n in range(1, capacity - 1)]
    desk.feed(client, b"".join(lines))
    while codec.room(0) > 2:
        desk.feed(client, orjson.dumps(filler) + b"\n")
    assert codec.room(0) == 2
    bracket = BRACKET | {"leg1_id": 10**6, "leg2_id": 10**6 + 1, "leg3_id": 10**6 + 2}
    desk.feed(client, orjson.dumps(bracket) + b"\n")
    assert codec.room(0) == 2  # it waits for room, or is refused BUSY; no leg went alone
    rows = [({C_KIND: 1}, b"")] * 3
    assert codec.push_all(0, rows, 1) == 0
    assert codec.room(0) == 2
    desk.settle()
    desk.desk.retry()
    desk.settle()
    told = desk.heard(client)
    assert ("accepted", 10**6 + 2) in kinds(told)


def test_each_leg_takes_a_token(desk: Bench) -> None:
    client = desk.log_on("slow")  # five requests a second
    told = desk.say(client, BRACKET)
    assert told[0]["type"] == "accepted"
    told = desk.say(client, BRACKET | {"leg1_id": 4, "leg2_id": 5, "leg3_id": 6})
    assert kinds(told) == [("rejected", 6)]
    assert told[0]["code"] == RejectCode.THROTTLED
    one = {"symbol": "GOLD", "side": "buy", "qty": 1, "price": "0.50", "id": 4}
    assert desk.say(client, one)[0]["type"] == "accepted"  # the refused list took none


# ------------------------------------------------------------------------------- the client library
def test_client_library_writes_a_list_and_takes_next_ids() -> None:
    core = ClientCore("demo", "token")
    line = core.list_line(
        "oco",
        "GOLD",
        [
            {"side": "sell", "qty": 5, "price": "1.10"},
            {"side": "sell", "qty": 5, "order_type": "stop", "trigger": "0.90"},
        ],
    )
    told = {key: value for key, value in line.items() if value is not None}
    assert told == {
        "type": "oco",
        "symbol": "GOLD",
        "leg1_side": "sell",
        "leg1_qty": "5",
        "leg1_price": "1.10",
        "leg1_id": 1,
        "leg2_side": "sell",
        "leg2_qty": "5",
        "leg2_order_type": "stop",
        "leg2_trigger": "0.90",
        "leg2_id": 2,
    }
