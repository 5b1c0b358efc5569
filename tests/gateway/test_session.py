"""Sessions: logon, takeover, ids, BUSY latch, throttle, shards that come and go, closing. No
socket, no waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from engine.config import GatewayLimits
from engine.counters import COUNT, Counters
from engine.records import CommandFlag, CommandKind, RejectCode
from gateway.desk import TICK_S, Desk
from gateway.parts import COUNTER_LABELS, HISTOGRAM_LABELS
from gateway.session import Session, SessionTable, Stage
from gateway.state import R_LAST_ID, R_LATCH
from tests.gateway.support import ACCOUNTS, PRODUCER, Bench, FakeClient, bench, make_config

LOGON = {"type": "logon", "account": "demo", "token": "demo"}
ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "price": "100"}


@pytest.fixture
def desk() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.fixture
def three() -> Iterator[Bench]:
    with bench(make_config(shards=3)) as made:
        yield made


def order(number: int, **more: Any) -> dict[str, Any]:
    return {**ORDER, "id": number, **more}


def codes(answers: list[dict[str, Any]]) -> list[int]:
    return [answer["code"] for answer in answers if answer["type"] == "rejected"]


def kinds(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["type"] for answer in answers]


def session_of(client: FakeClient) -> Session:
    assert client.session is not None
    return client.session


def ticks(made: Bench, seconds: float) -> None:
    for _ in range(round(seconds / TICK_S)):
        made.desk.tick()


# ------------------------------------------------------------------------------- logon
def test_logon_answers_once_every_shard_has(three: Bench) -> None:
    client = three.connect()
    three.feed(client, orjson.dumps(LOGON) + b"\n")
    assert client.output == b""
    three.exchange.run()
    three.desk.pump()
    (answer,) = three.heard(client)
    assert answer["type"] == "logon"
    assert (answer["account"], answer["session"], answer["ids"], answer["shards"]) == (
        "demo",
        "main",
        "integer",
        3,
    )
    assert (answer["last_id"], set(answer["seq"])) == (0, {"0", "1", "2"})
    opens = [c for c in three.exchange.seen if c["kind"] == CommandKind.SESSION_OPEN]
    assert len(opens) == 3
    assert len({int(c["logon"]) for c in opens}) == 1


def test_lines_behind_a_logon_wait_for_its_answer(desk: Bench) -> None:
    client = desk.connect()
    desk.feed(client, orjson.dumps(LOGON) + b"\n" + orjson.dumps(order(1)) + b"\n")
    assert client.paused
    desk.settle()
    assert kinds(desk.heard(client)) == ["logon", "accepted", "booked"]
    assert not client.paused


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"token": "wrong"}, 202), ({"account": "nobody"}, 202), ({"token": "dem"}, 202),
        ({"token": "demo\u00e9"}, 202),
        ({"account": None}, 102), ({"token": ""}, 102), ({"token": 5}, 102),
        ({"session": "too long name"}, 102),
        ({"session": "a b"}, 102), ({"ids": "uuid"}, 102), ({"cancel_on_disconnect": "maybe"},
        102), ({"receipts": 1}, 102),
        ({"heartbeat": 0}, 103), ({"heartbeat": 1.5}, 102), ({"price": 1}, 102),
        ({"request": True}, 102),
    ],
)  # fmt: skip
def test_logon_that_is_wrong_is_refused(desk: Bench, change: dict[str, Any], code: int) -> None:
    client = desk.connect()
    answers = desk.say(client, {**LOGON, **change})
    for _, call in desk.later:
        call()
    answers += desk.heard(client)
    assert codes(answers) == [code]
    assert client.hung_up == (code == 202)
    assert client.session is None
    assert not desk.desk.sessions.by_logon


def test_wrong_token_is_answered_late_and_nothing_is_read_meanwhile(desk: Bench) -> None:
    client = desk.connect()
    assert desk.say(client, {**LOGON, "token": "wrong"}) == []
    assert desk.say(client, LOGON) == []
    ((delay, call),) = desk.later
    assert delay == desk.config.gateway.auth_failure_delay_s
    call()
    assert kinds(desk.heard(client)) == ["rejected", "logout"]
    assert client.hung_up


def test_second_logon_on_one_connection_is_refused(desk: Bench) -> None:
    assert codes(desk.say(desk.log_on(), LOGON)) == [RejectCode.NOT_AUTHORISED]


def test_order_before_logon_is_refused_201(desk: Bench) -> None:
    client = desk.connect()
    assert codes(desk.say(client, order(1))) == [RejectCode.NOT_LOGGED_ON]
    assert not client.hung_up


def test_stranger_who_goes_on_being_refused_is_closed(desk: Bench) -> None:
    client = desk.connect()
    desk.feed(client, b"x\n" * 30)
    desk.settle()
    assert client.hung_up
    assert len(codes(desk.heard(client))) == 20


def test_logon_never_sent_is_closed_at_the_deadline(desk: Bench) -> None:
    client = desk.connect()
    ticks(desk, 4.9)
    assert not client.hung_up
    ticks(desk, 0.3)
    assert client.hung_up
    (goodbye,) = desk.heard(client)
    assert (goodbye["type"], goodbye["reason"]) == ("logout", "no logon within 5 s")


def test_sessions_and_sessions_of_an_account_are_limited() -> None:
    with bench(make_config(gateway=GatewayLimits(sessions_max=2))) as made:
        made.log_on(session="a")
        made.log_on(session="b")
        client = made.connect()
        assert codes(made.say(client, {**LOGON, "session": "c"})) == [RejectCode.BUSY]
    table = SessionTable(make_config(), iter(range(1, 1000)).__next__)
    options = {
        "session": "x",
        "text_ids": False,
        "receipts": False,
        "close_flags": 0,
        "heartbeat_s": 1.0,
        "dead_man_ns": 0,
        "resume": None,
        "incarnation": None,
    }
    for _ in range(50):
        table.create(ACCOUNTS[0], options, None)
    with pytest.raises(Exception, match="50 sessions"):
        table.create(ACCOUNTS[0], options, None)


def test_logon_refused_by_the_shard_is_told_and_closed(desk: Bench) -> None:
    desk.exchange.shards[0].state.accounts[1]["open"] = 0
    client = desk.connect()
    answers = desk.say(client, LOGON)
    assert codes(answers) == [RejectCode.NOT_AUTHORISED]
    assert client.hung_up


def test_last_id_and_seq_survive_the_connection(desk: Bench) -> None:
    first = desk.log_on(session="s")
    got = desk.say(first, order(7))
    desk.desk.on_lost(first)
    desk.settle()
    client = desk.connect()
    (answer,) = desk.say(client, {**LOGON, "session": "s"})
    assert answer["last_id"] == 7
    assert answer["seq"]["0"] == got[-1]["seq"] + 2  # session closed, session opened
    assert desk.say(client, order(8))[0]["seq"] == answer["seq"]["0"] + 1


# ----------------------------------------------------------------------------- takeover and routing
def test_second_logon_takes_the_session_over(desk: Bench) -> None:
    first = desk.log_on(session="s", cancel_on_disconnect="all")
    desk.say(first, order(1))
    second = desk.log_on(session="s")
    goodbye = desk.heard(first)[-1]
    assert (goodbye["type"], first.hung_up) == ("logout", True)
    desk.settle()
    assert desk.say(second, order(2))[0]["type"] == "accepted"
    closes = [c for c in desk.exchange.seen if c["kind"] == CommandKind.SESSION_CLOSE]
    assert closes == []
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == 2  # nothing was cancelled
    assert desk.desk.counts["takeovers"] == 1


def test_logon_elsewhere_takes_the_session_over(desk: Bench) -> None:
    client = desk.log_on(session="s")
    shard = desk.exchange.shards[0]
    command = shard.commands(1)
    command["kind"], command["account"] = CommandKind.SESSION_OPEN, 1
    command["logon"], command["producer"] = 99, 3
    command["text"][0, 0] = ord("s")
    desk.exchange._publish(0, shard.step(command), command[0])
    desk.settle()
    assert client.hung_up


def test_reports_go_to_all_sessions_of_the_account(desk: Bench) -> None:
    one, two, other = desk.log_on(session="a"), desk.log_on(session="b"), desk.log_on("alice")
    desk.heard(one)
    mine = desk.say(one, order(1))
    assert desk.heard(two) == mine
    assert desk.heard(other) == []
    assert {line["session"] for line in mine} == {"a"}


def test_seq_is_gapless_for_every_session(three: Bench) -> None:
    clients = [three.connect() for _ in range(2)]
    seq = [three.say(c, {**LOGON, "session": f"s{n}"})[-1]["seq"] for n, c in enumerate(clients)]
    heard: list[list[dict[str, Any]]] = [three.heard(clients[0]), []]
    for number in range(1, 40):
        symbol, side = ("AAPL", "BTCUSDT", "TICK5", "BIG")[number % 4], ("buy", "sell")[number % 2]
        line = {"symbol": symbol, "side": side, "qty": 10, "price": 1000, "id": number}
        heard[number % 2] += three.say(clients[number % 2], line)
        heard[1 - number % 2] += three.heard(clients[1 - number % 2])
    for reports, last in zip(heard, seq, strict=True):
        for report in reports:
            if report["seq"]:
                assert report["seq"] == last[str(report["shard"])] + 1
                last[str(report["shard"])] += 1
    assert seq[0] == seq[1]


# ------------------------------------------------------------------------------- ids
def test_lower_id_is_answered_with_the_live_order_or_203(desk: Bench) -> None:
    client = desk.log_on()
    desk.say(client, order(5))
    (again,) = desk.say(client, order(5))
    assert (again["type"], again["id"], again["state"]) == ("status", 5, "new")
    assert codes(desk.say(client, order(4))) == [RejectCode.DUPLICATE]
    desk.say(client, {"type": "cancel", "symbol": "AAPL", "target_id": 5, "id": 6})
    assert codes(desk.say(client, order(5))) == [RejectCode.DUPLICATE]
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == 0


def test_id_used_on_one_shard_does_not_run_on_another(three: Bench) -> None:
    client = three.log_on()
    shards = {
        name: three.desk.directory.get(name, 2) for name in ("AAPL", "BTCUSDT", "TICK5", "BIG")
    }
    first, second = next((a, b) for a in shards for b in shards if shards[a] != shards[b])
    assert (
        kinds(
            three.say(client, {"symbol": first, "side": "buy", "qty": 10, "price": 1000, "id": 9})
        )[0]
        == "accepted"
    )
    answers = three.say(
        client, {"symbol": second, "side": "buy", "qty": 10, "price": 1000, "id": 8}
    )
    assert codes(answers) == [RejectCode.DUPLICATE]
    assert answers[0]["seq"] == 0


def test_gateway_reject_uses_up_no_id_and_shard_reject_does(desk: Bench) -> None:
    client = desk.log_on()
    assert codes(desk.say(client, order(1, price="100.001"))) == [RejectCode.OFF_TICK]
    assert kinds(desk.say(client, order(1))) == ["accepted", "booked"]
    assert codes(
        desk.say(client, {"type": "cancel", "symbol": "AAPL", "target_id": 77, "id": 2})
    ) == [RejectCode.UNKNOWN_ORDER]
    assert codes(desk.say(client, order(2))) == [RejectCode.DUPLICATE]


def test_repeat_of_the_last_all_shard_command_is_forwarded(three: Bench) -> None:
    client = three.log_on()
    first = three.say(client, {"type": "mass_cancel", "id": 5})
    assert kinds(first) == ["summary"] * 3
    again = three.say(client, {"type": "mass_cancel", "id": 5})
    assert codes(again) == [RejectCode.DUPLICATE] * 3
    assert all(line["seq"] for line in again)  # the shards said so
    assert codes(three.say(client, {"type": "mass_cancel", "id": 4})) == [RejectCode.DUPLICATE]


def test_text_ids_name_orders(desk: Bench) -> None:
    client = desk.log_on(ids="text")
    answers = desk.say(client, {**ORDER, "id": 'my "first"'})
    assert [line["id"] for line in answers] == ['my "first"'] * 2
    assert kinds(desk.say(client, {**ORDER, "id": 'my "first"'})) == ["status"]
    answers = desk.say(client, {"type": "cancel", "symbol": "AAPL", "target_id": 'my "first"'})
    assert kinds(answers) == ["canceled"]
    assert codes(desk.say(client, {**ORDER, "id": 'my "first"'})) == [RejectCode.DUPLICATE]
    assert codes(desk.say(client, {**ORDER, "id": 5})) == [RejectCode.BAD_CLIENT_ID]
    assert codes(desk.say(client, {**ORDER, "id": "x" * 37})) == [RejectCode.BAD_CLIENT_ID]
    assert codes(
        desk.say(client, {"type": "cancel", "symbol": "AAPL", "order_id": 1, "id": "y"})
    ) == [RejectCode.BAD_CLIENT_ID]


# ------------------------------------------------------------------------------- full rings
def fill_ring(made: Bench, client: FakeClient) -> int:
    """Orders until the ring is full; returns the next id."""
    capacity = made.config.rings.command_capacity
    for number in range(1, capacity + 1):
        made.feed(client, orjson.dumps(order(number)) + b"\n")
    assert made.desk.rings.room(0) == 0
    return capacity + 1


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """BUSY after 10 ms instead of 250; returns how to wait so long."""
    monkeypatch.setattr("gateway.desk_orders.FULL_WAIT_NS", 10_000_000)
    return lambda: time.sleep(0.012)


def test_full_ring_waits_and_goes_on_when_the_shard_does(desk: Bench) -> None:
    client = desk.log_on()
    number = fill_ring(desk, client)
    desk.feed(client, orjson.dumps(order(number)) + b"\n")
    assert client.paused
    desk.settle()
    assert not client.paused
    answers = desk.heard(client)
    assert codes(answers) == []
    assert answers[-1]["id"] == number


def test_ring_that_stays_full_is_busy_and_latches_the_id(
    desk: Bench, hurried: Callable[[], None]
) -> None:
    client = desk.log_on()
    number = fill_ring(desk, client)
    desk.feed(client, orjson.dumps(order(number)) + b"\n" + orjson.dumps(order(number + 1)) + b"\n")
    hurried()
    desk.desk.retry()
    answers = desk.heard(client)
    assert [(a["code"], a["id"], a["seq"]) for a in answers] == [
        (901, number, 0),
        (901, number + 1, 0),
    ]
    desk.settle()  # room again
    desk.heard(client)
    view, base = desk.desk.view, session_of(client).base
    assert (view[base + R_LATCH], view[base + R_LAST_ID]) == (number, number - 1)
    assert codes(desk.say(client, order(number + 1))) == [RejectCode.BUSY]
    assert kinds(desk.say(client, {**ORDER})) == [
        "accepted",
        "booked",
    ]  # without an id nothing can be overtaken
    assert kinds(desk.say(client, order(number))) == ["accepted", "booked"]
    assert kinds(desk.say(client, order(number + 1))) == ["accepted", "booked"]
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == number + 2


def test_closed_gate_is_busy(desk: Bench, hurried: Callable[[], None]) -> None:
    client = desk.log_on()
    desk.exchange.commands.gate(0, True)
    desk.feed(client, orjson.dumps(order(1)) + b"\n")
    hurried()
    desk.desk.retry()
    assert codes(desk.heard(client)) == [RejectCode.BUSY]
    desk.exchange.commands.gate(0, False)
    assert kinds(desk.say(client, order(1))) == ["accepted", "booked"]


def test_full_ring_of_one_client_does_not_stop_another(three: Bench) -> None:
    slow, quick = three.log_on(session="slow"), three.log_on(session="quick")
    shards = {
        name: three.desk.directory.get(name, 2) for name in ("AAPL", "BTCUSDT", "TICK5", "BIG")
    }
    other = next(name for name in shards if shards[name] != shards["AAPL"])
    for number in range(1, three.config.rings.command_capacity + 2):
        three.feed(slow, orjson.dumps(order(number)) + b"\n")
    assert slow.paused
    three.feed(
        quick,
        orjson.dumps({"symbol": other, "side": "buy", "qty": 10, "price": 1000, "id": 1}) + b"\n",
    )
    assert not quick.paused
    assert [int(c["client_order_id"]) for c in three.exchange.take(shards[other], PRODUCER)] == [1]


# ------------------------------------------------------------------------ shards that are not there


def test_without_shards_logon_is_told_and_orders_are_905_until_they_come() -> None:
    with bench() as real:
        parts = real.exchange.parts()
        parts.command_rings = parts.event_rings = None
        real.desk = Desk(parts, lambda delay, call: None)
        client = real.connect()
        real.feed(client, orjson.dumps(LOGON) + b"\n")
        (answer,) = real.heard(client)
        assert (answer["type"], answer["shards"]) == ("logon", 0)
        assert "no shard is running" in answer["text"]
        real.feed(
            client,
            orjson.dumps(order(1)) + b"\n\n  \r\n" + orjson.dumps({"type": "heartbeat"}) + b"\n",
        )
        assert codes(real.heard(client)) == [RejectCode.UNAVAILABLE]
        real.desk.attach(real.exchange.parts())
        real.settle()
        (answer,) = real.heard(client)
        assert (answer["type"], answer["shards"]) == ("logon", 1)
        assert kinds(real.say(client, order(1))) == ["accepted", "booked"]


def test_shard_down_is_905_and_uses_up_the_id_while_others_trade(three: Bench) -> None:
    client = three.log_on()
    shards = {
        name: three.desk.directory.get(name, 2) for name in ("AAPL", "BTCUSDT", "TICK5", "BIG")
    }
    other = next(name for name in shards if shards[name] != shards["AAPL"])
    three.exchange.up[shards["AAPL"]] = False
    three.desk.tick()
    (answer,) = three.say(client, order(1))
    assert (answer["code"], answer["shard"], answer["id"]) == (905, shards["AAPL"], 1)
    assert codes(three.say(client, order(1))) == [RejectCode.DUPLICATE]
    assert (
        kinds(
            three.say(client, {"symbol": other, "side": "buy", "qty": 10, "price": 1000, "id": 2})
        )[0]
        == "accepted"
    )
    answers = three.say(client, {"type": "mass_cancel", "id": 3})
    assert sorted(kinds(answers)) == ["canceled", "rejected", "summary", "summary"]
    three.exchange.up[shards["AAPL"]] = True
    three.desk.tick()
    assert kinds(three.say(client, order(4)))[0] == "accepted"


def test_shard_that_comes_later_is_opened_for_sessions_that_are_there(three: Bench) -> None:
    down = three.desk.directory.get("AAPL", 2)
    three.exchange.up[down] = False
    three.desk.tick()
    client = three.connect()
    (answer,) = three.say(client, LOGON)
    assert str(down) not in answer["seq"]
    assert f"shard {down}" in answer["text"]
    three.exchange.up[down] = True
    three.desk.tick()
    three.settle()
    (again,) = three.heard(client)
    assert (again["type"], set(again["seq"]), "text" in again) == ("logon", {"0", "1", "2"}, False)
    assert kinds(three.say(client, order(1))) == ["accepted", "booked"]


def test_shard_lost_while_a_session_is_opened_does_not_hold_it_up(three: Bench) -> None:
    client = three.connect()
    three.feed(client, orjson.dumps(LOGON) + b"\n")
    for shard in (0, 1):
        for command in three.exchange.take(shard, PRODUCER):
            three.exchange._publish(
                shard, three.exchange.shards[shard].step(np.array([command])), command
            )
    three.desk.pump()
    assert three.heard(client) == []
    three.exchange.up[2] = False
    three.desk.tick()
    assert kinds(three.heard(client)) == ["logon"]
    assert session_of(client).stage is Stage.LIVE


# ----------------------------------------------------------------------------- the end of a session
@pytest.mark.parametrize(("mode", "left"), [("none", 1), ("day", 1), ("all", 0)])
def test_cancel_on_disconnect(desk: Bench, mode: str, left: int) -> None:
    client = desk.log_on(cancel_on_disconnect=mode)
    desk.say(client, order(1))
    desk.desk.on_lost(client)
    desk.settle()
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == left
    opened = next(c for c in desk.exchange.seen if c["kind"] == CommandKind.SESSION_OPEN)
    flags = {
        "none": 0,
        "day": CommandFlag.CANCEL_DAY_ON_CLOSE,
        "all": CommandFlag.CANCEL_ALL_ON_CLOSE,
    }
    assert opened["flags"] == flags[mode]


def test_summaries_say_whether_they_answer_a_mass_cancel(desk: Bench) -> None:
    """A client that comes back gets both kinds, and has to know which one it has waited for."""
    witness, client = desk.log_on(session="b"), desk.log_on(cancel_on_disconnect="all")
    desk.say(client, {"type": "mass_cancel", "symbol": "AAPL", "id": 1})
    desk.desk.on_lost(client)
    desk.settle()
    heard = desk.say(witness, {"type": "open_orders", "symbol": "AAPL"})
    seen = [line for line in heard if line["type"] == "summary"]
    assert [line.get("reason") for line in seen] == ["mass", "disconnect", None]


def test_close_is_not_lost_in_a_full_ring(desk: Bench) -> None:
    client = desk.log_on(cancel_on_disconnect="all")
    fill_ring(desk, client)
    desk.desk.on_lost(client)
    assert len(desk.desk.sessions.close_queue) == 1
    desk.settle()
    desk.desk.tick()
    desk.settle()
    assert not desk.desk.sessions.close_queue
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == 0


def test_connection_lost_while_opening_closes_the_session_later(desk: Bench) -> None:
    client = desk.connect()
    desk.feed(client, orjson.dumps(LOGON) + b"\n")
    desk.desk.on_lost(client)
    desk.settle()
    kinds_seen = [int(c["kind"]) for c in desk.exchange.seen]
    assert kinds_seen == [CommandKind.SESSION_OPEN, CommandKind.SESSION_CLOSE]


def test_silent_client_is_told_and_closed_and_its_orders_cancelled(desk: Bench) -> None:
    client = desk.log_on(cancel_on_disconnect="all")
    desk.say(client, order(1))
    ticks(desk, 14.9)
    assert not client.hung_up
    beats = desk.heard(client)
    assert {line["type"] for line in beats} == {"heartbeat"}
    assert 13 <= len(beats) <= 15 or len(beats) > 100  # a FakeClient does not note what was sent
    ticks(desk, 0.3)
    assert client.hung_up
    desk.settle()
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == 0


def test_heartbeat_keeps_a_session_and_its_interval_can_be_chosen(desk: Bench) -> None:
    client = desk.log_on(heartbeat=10)
    ticks(desk, 140)
    desk.say(client, {"type": "heartbeat"})
    ticks(desk, 140)
    assert not client.hung_up
    ticks(desk, 11)
    assert client.hung_up


def test_test_request_is_answered_with_its_mark(desk: Bench) -> None:
    (beat,) = desk.say(desk.log_on(), {"type": "test_request", "request": "abc"})
    assert (beat["type"], beat["request"]) == ("heartbeat", "abc")


def test_logout_says_goodbye(desk: Bench) -> None:
    client = desk.log_on()
    assert kinds(desk.say(client, {"type": "logout"})) == ["logout"]
    assert client.hung_up
    assert not desk.desk.sessions.by_logon


def test_rows_are_given_back(desk: Bench) -> None:
    free = len(desk.desk.sessions.free_rows)
    for _ in range(30):
        client = desk.log_on()
        desk.desk.on_lost(client)
        desk.settle()
    assert len(desk.desk.sessions.free_rows) == free
    assert not desk.desk.sessions.opening
    assert not desk.desk.clients


# ------------------------------------------------------------------------------- counters
def test_counters_and_round_trips_are_published(desk: Bench) -> None:
    config = desk.config
    counters = Counters.create(
        config.instance, {"gateway0": COUNTER_LABELS}, {"gateway0": HISTOGRAM_LABELS}
    )
    block = desk.desk.parts.counters = counters.block("gateway0")
    client = desk.log_on()
    desk.say(client, order(1), order(2), b"bad")
    desk.desk.tick()
    seen = block.snapshot()
    assert (seen["connections"], seen["sessions"], seen["rejects"]) == (1, 1, 1)
    assert seen["commands"] == 3  # the logon is one
    assert seen["lines"] >= 2
    assert seen["bytes_in"] > 150
    assert block.histogram("gateway_round_trip")[COUNT] == 2
    counters.close()
    counters.unlink()
