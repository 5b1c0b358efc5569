"""A gateway the ring has come round on reads what it lost from the event log; nobody misses a
report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from engine.config import Rings
from engine.records import COMMAND, CommandKind
from gateway.desk_log import LOG_WAIT_S
from gateway.state import H_TOTAL_LAPS, H_TOTAL_LOST
from tests.gateway.logs import LogBench
from tests.gateway.support import FakeClient, make_config
from tests.gateway.test_session import LOGON, kinds, order, session_of, ticks

CAPACITY = 4096


@pytest.fixture
def desk() -> Iterator[LogBench]:
    made = LogBench(make_config(rings=Rings(4, 256, CAPACITY)))
    yield made
    made.close()


def flood(made: LogBench, events: int, account: int = 1) -> None:
    """At least so many events of an account, behind the gateway's back."""
    shard = made.exchange.shards[0]
    end = made.exchange.events.committed(0) + events
    while made.exchange.events.committed(0) < end:
        commands = shard.commands(100)
        commands["kind"], commands["account"] = CommandKind.CANCEL, account
        commands["order_id"] = 1
        assert commands.dtype == COMMAND
        made.exchange._publish(0, shard.step(commands), None)


def numbers(made: LogBench, client: FakeClient) -> list[int]:
    return [line["seq"] for line in made.heard(client) if line["seq"]]


def totals(made: LogBench) -> tuple[int, int]:
    return made.desk.view[H_TOTAL_LAPS], made.desk.view[H_TOTAL_LOST]


def test_n6_lapped_gateway_gives_every_report_from_the_log(desk: LogBench) -> None:
    one, two, other = desk.log_on(), desk.log_on(session="b"), desk.log_on("alice")
    desk.heard(one)
    last = session_of(two).seq[0]
    flood(desk, 3 * CAPACITY)
    desk.settle()
    assert totals(desk) == (1, 0)
    end = int(desk.exchange.logs[0].events["account_seq"][-1])
    assert end > 3 * CAPACITY
    assert numbers(desk, one) == numbers(desk, two) == list(range(last + 1, end + 1))
    assert desk.heard(other) == []
    assert desk.say(one, order(1))[0]["seq"] == end + 1  # the ring again
    assert (desk.desk.laps, desk.exchange.waits) == ({}, [0])


@pytest.mark.later
def test_n6_no_lines_are_taken_while_a_lap_is_made_good(desk: LogBench) -> None:
    client = desk.log_on()
    flood(desk, 2 * CAPACITY)
    log = desk.exchange.logs[0]
    log.limit = log.end() - CAPACITY
    desk.turn(20)
    assert desk.desk.gated
    assert desk.exchange.waits == [1]
    assert desk.desk.rings.sleep_try(True)  # there is nothing to do but wait
    desk.desk.rings.sleep_end()
    desk.ask(client, order(1))
    assert client.paused
    log.limit = None
    desk.settle()
    assert not client.paused
    assert desk.heard(client)[-1]["id"] == 1
    assert desk.exchange.waits == [0]


@pytest.mark.later
def test_n6_what_the_log_has_no_more_is_counted_as_lost_and_the_rest_given(
    desk: LogBench,
) -> None:
    client = desk.log_on()
    log = desk.exchange.logs[0]
    cursor = desk.desk.rings.cursor(0)
    flood(desk, 3 * CAPACITY)
    log.first = cursor + 1 + 1000
    desk.settle()
    assert totals(desk) == (1, 1000)
    first = session_of(client).seq[0] + 1000 + 1
    got = numbers(desk, client)
    assert got == list(range(first, int(log.events["account_seq"][-1]) + 1))


@pytest.mark.parametrize("trouble", ["stands still", "broken"])
@pytest.mark.later
def test_n6_log_that_does_not_come_is_given_up_and_counted(desk: LogBench, trouble: str) -> None:
    client = desk.log_on()
    log, cursor = desk.exchange.logs[0], desk.desk.rings.cursor(0)
    flood(desk, 2 * CAPACITY)
    log.limit, log.broken = (cursor, False) if trouble == "stands still" else (None, True)
    desk.turn(5)
    assert totals(desk) == (1, 0 if trouble == "stands still" else log.end() - cursor)
    ticks(desk, LOG_WAIT_S - 0.5)
    assert desk.desk.gated == (trouble == "stands still")
    ticks(desk, 1)
    desk.settle()
    assert not desk.desk.gated
    committed = desk.exchange.events.committed(0)
    assert totals(desk) == (1, committed - cursor)
    assert desk.exchange.waits == [0]
    assert kinds(desk.say(client, order(1)))[-2:] == ["accepted", "booked"]


@pytest.mark.later
def test_n6_sessions_and_instruments_that_came_during_the_lap_are_known(desk: LogBench) -> None:
    witness = desk.log_on(session="b")
    client = desk.connect()
    desk.ask(client, LOGON)
    desk.ask(witness, {"symbol": "NEWCO", "side": "buy", "qty": 1, "price": 5, "id": 1})
    flood(desk, 2 * CAPACITY)
    desk.settle()
    head, *rest = desk.heard(client)
    assert (head["type"], totals(desk)) == ("logon", (1, 0))
    assert [line["seq"] for line in rest] == list(
        range(head["seq"]["0"] + 1, head["seq"]["0"] + 1 + len(rest))
    )
    assert [line["symbol"] for line in rest if "symbol" in line] == ["NEWCO", "NEWCO"]


def test_n6_session_that_ended_while_it_was_opened_is_closed_though_its_answer_was_lapped(
    desk: LogBench,
) -> None:
    client = desk.connect()
    desk.ask(client, LOGON)
    desk.desk.on_lost(client)
    flood(desk, 2 * CAPACITY)
    desk.settle()
    seen = [int(command["kind"]) for command in desk.exchange.seen]
    assert seen == [CommandKind.SESSION_OPEN, CommandKind.SESSION_CLOSE]
    assert not desk.desk.sessions.opening


def test_n6_without_logs_a_lap_loses_what_it_always_lost() -> None:
    made = LogBench(make_config(rings=Rings(4, 256, CAPACITY)), logs=None)
    client = made.log_on()
    cursor = made.desk.rings.cursor(0)
    flood(made, 2 * CAPACITY)
    committed = made.exchange.events.committed(0)
    made.settle()
    assert totals(made) == (1, committed - cursor)
    assert made.heard(client) == []
    assert made.desk.laps == {}
    made.close()


def test_n6_other_shards_go_on_while_one_is_lapped() -> None:
    made = LogBench(make_config(shards=2, rings=Rings(4, 256, CAPACITY)))
    symbols = ("AAPL", "BTCUSDT", "TICK5", "BIG")
    other = next(name for name in symbols if made.desk.directory.get(name, 2) == 1)
    client = made.log_on()
    log = made.exchange.logs[0]
    flood(made, 2 * CAPACITY)
    log.limit = 0
    made.turn(3)
    assert made.desk.rings.lapped(0)
    shard = made.exchange.shards[1]
    events = shard.place(other, 0, 1, 1000, account=1)
    made.exchange._publish(1, events, None)
    made.turn(3)
    assert kinds(made.heard(client)) == ["accepted", "booked"]
    log.limit = None
    made.settle()
    assert len(numbers(made, client)) >= 2 * CAPACITY
    made.close()


@pytest.mark.later
def test_n6_gateway_lapped_again_and_again_still_gives_every_number_once(desk: LogBench) -> None:
    client = desk.log_on()
    first = session_of(client).seq[0]
    log, got = desk.exchange.logs[0], []
    rng = np.random.default_rng(5)
    for number in range(8):
        flood(desk, int(rng.integers(100, CAPACITY * 2)))
        log.limit = None
        if number % 3:
            log.limit = int(rng.integers(max(log.end() - CAPACITY, 1), log.end() + 1))
        desk.turn(int(rng.integers(1, 10)))
        got += numbers(desk, client)
    log.limit = None
    desk.settle()
    got += numbers(desk, client)
    assert got == list(range(first + 1, int(log.events["account_seq"][-1]) + 1))
    assert totals(desk)[0] > 1
    assert totals(desk)[1] == 0


def test_names_of_sessions_that_others_opened_are_learned_at_start() -> None:
    names: dict[int, list[tuple[int, str]]] = {0: [(4, "b"), (9, "else")]}
    made = LogBench(session_names=names.__getitem__)
    client = made.log_on()
    slots = made.exchange.shards[0].commands(1)
    slots["kind"], slots["account"], slots["session"] = CommandKind.CANCEL, 1, 4
    event: Any = made.exchange.shards[0].step(slots)
    event["session"], event["account"] = 9, 1
    made.exchange._publish(0, event, None)
    made.settle()
    assert made.heard(client)[0]["session"] == "else"
    made.restart(session_names=names.__getitem__)
    again = made.connect()
    made.feed(again, orjson.dumps(LOGON) + b"\n")
    made.settle()
    assert made.desk.view[made.desk.state.name_base(0, 9) + 2] == 4
    made.close()
