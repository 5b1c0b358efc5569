"""Dead-man times, shards that go down and come back, gates that are closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from engine.config import GatewayLimits
from engine.records import CommandKind, EventKind, RejectCode
from gateway.session import Stage
from tests.gateway.logs import LogBench
from tests.gateway.support import PRODUCER, Bench, bench, make_config
from tests.gateway.test_session import LOGON, codes, kinds, order, session_of, ticks

pytestmark = pytest.mark.nojit
NS = 10**9


@pytest.fixture
def desk() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.fixture
def three() -> Iterator[LogBench]:
    made = LogBench(make_config(shards=3))
    yield made
    made.close()


def sent(made: Bench, kind: CommandKind) -> list[Any]:
    """Commands of a kind that the shards have taken."""
    made.exchange.run()
    return [command for command in made.exchange.seen if command["kind"] == kind]


# ------------------------------------------------------------------------------- dead man
@pytest.mark.parametrize(("seconds", "ns"), [("0.5", NS // 2), ("2", 2 * NS), ("3600", 3600 * NS),
                                             ("1.5e1", 15 * NS), ("null", 0)])  # fmt: skip
def test_n5_dead_man_time_goes_to_every_shard(desk: Bench, seconds: str, ns: int) -> None:
    line = b'{"type":"logon","account":"demo","token":"demo","dead_man":%s}' % seconds.encode()
    assert kinds(desk.say(desk.connect(), line)) == ["logon"]
    (opened,) = sent(desk, CommandKind.SESSION_OPEN)
    assert int(opened["amount"]) == ns


@pytest.mark.parametrize(
    ("value", "code"),
    [("0", 103), ("0.49", 103), ("-1", 103), ("3600.1", 103), ("1e999999999", 101),
     ("1e-400", 103), ('"2"', 102), ("true", 102), ("[]", 101)],
)  # fmt: skip
def test_n5_dead_man_time_that_cannot_be_is_refused(desk: Bench, value: str, code: int) -> None:
    line = b'{"type":"logon","account":"demo","token":"demo","dead_man":%s}' % value.encode()
    answers = desk.say(desk.connect(), line)
    assert codes(answers) == [code]
    if code == RejectCode.OUT_OF_RANGE:
        assert "0.5 to 3600" in answers[0]["text"]


def test_n5_least_dead_man_time_is_a_limit_of_the_configuration() -> None:
    with bench(make_config(gateway=GatewayLimits(dead_man_min_s=3))) as made:
        assert codes(made.say(made.connect(), {**LOGON, "dead_man": 2})) == [103]
        assert kinds(made.say(made.connect(), {**LOGON, "dead_man": 3})) == ["logon"]


def beat(made: Bench, client: Any) -> None:
    made.feed(client, b'{"type":"heartbeat"}\n')


def keeps(made: Bench) -> int:
    return len(sent(made, CommandKind.SESSION_KEEP))


def test_n5_shards_are_told_at_most_each_quarter_that_the_client_lives(three: LogBench) -> None:
    client = three.log_on(dead_man=4)
    ticks(three, 0.1)
    assert keeps(three) == 0
    for _ in range(40):
        beat(three, client)
        ticks(three, 0.1)
    assert keeps(three) == 3 * 4  # three shards, four seconds, quarters of four
    last, session = sent(three, CommandKind.SESSION_KEEP)[-1], session_of(client)
    assert (int(last["logon"]), int(last["session"])) == (session.logon, session.slots[2])


def test_n5_nothing_is_said_for_a_client_that_says_nothing(desk: Bench) -> None:
    client = desk.log_on(dead_man=0.5)
    ticks(desk, 0.2)
    before = keeps(desk)
    ticks(desk, 3)
    assert keeps(desk) == before
    beat(desk, client)  # heard in the same tick as the last look
    ticks(desk, 0.1)
    assert keeps(desk) == before + 1


def test_n5_session_without_dead_man_sends_no_signs_of_life(desk: Bench) -> None:
    client = desk.log_on()
    for _ in range(20):
        beat(desk, client)
        ticks(desk, 0.1)
    assert keeps(desk) == 0


def test_n5_client_that_is_not_read_from_is_not_taken_for_dead(desk: Bench) -> None:
    client = desk.log_on(dead_man=0.5)
    ticks(desk, 0.2)
    before = keeps(desk)
    desk.desk.gated = True  # the gateway is behind: lines wait
    desk.feed(client, orjson.dumps(order(1)) + b"\n")
    assert client.paused
    for _ in range(10):
        desk.desk.gated = True
        desk.desk.tick()
    assert keeps(desk) >= before + 4
    before = keeps(desk)
    client.stalled = desk.desk.ticks  # it does not read its reports: that is its own silence
    ticks(desk, 1)
    assert keeps(desk) == before


def test_n5_shard_that_is_down_or_full_is_told_later(three: LogBench) -> None:
    client = three.log_on(dead_man=2)
    three.exchange.up[1] = False
    three.exchange.commands.gate(2, True)
    for _ in range(10):
        beat(three, client)
        ticks(three, 0.1)
    assert {int(c["session"]) for c in three.exchange.take(1, PRODUCER)} == set()
    before = keeps(three)
    three.exchange.commands.gate(2, False)
    three.exchange.up[1] = True
    beat(three, client)
    ticks(three, 0.2)
    assert keeps(three) >= before + 2


# ------------------------------------------------------------------------------- shards come and go
def shard_of(made: Bench, symbol: str = "AAPL") -> int:
    return int(made.desk.directory.get(symbol, 2))


def test_p2_session_opens_once_though_its_shard_dies_meanwhile(three: LogBench) -> None:
    client = three.connect()
    shard = shard_of(three)
    three.feed(client, orjson.dumps(LOGON) + b"\n")
    three.exchange.up[shard] = False
    for other in {0, 1, 2} - {shard}:
        for command in three.exchange.take(other, PRODUCER):
            three.exchange._publish(other, three.exchange.step(other, command), command)
    three.desk.tick()
    three.desk.pump()
    (head,) = three.heard(client)
    assert str(shard) not in head["seq"]
    three.exchange.up[shard] = True
    three.desk.tick()
    three.settle()
    (head,) = three.heard(client)
    assert (head["type"], "text" in head, set(head["seq"])) == ("logon", False, {"0", "1", "2"})
    assert len(sent(three, CommandKind.SESSION_OPEN)) == 1  # of this shard: `take` had the others
    assert kinds(three.say(client, order(1))) == ["accepted", "booked"]


def test_p2_only_shard_dies_while_a_session_opens(desk: Bench) -> None:
    client = desk.connect()
    desk.feed(client, orjson.dumps(LOGON) + b"\n")
    desk.exchange.up[0] = False
    ticks(desk, 0.3)
    assert desk.heard(client) == []
    desk.exchange.up[0] = True
    ticks(desk, 0.1)
    desk.settle()
    assert kinds(desk.heard(client)) == ["logon"]
    assert len(sent(desk, CommandKind.SESSION_OPEN)) == 1


def test_p2_open_that_found_no_room_is_sent_when_there_is_some(three: LogBench) -> None:
    shard = shard_of(three)
    three.exchange.up[shard] = False
    three.desk.tick()
    client = three.log_on()
    three.exchange.commands.gate(shard, True)
    three.exchange.up[shard] = True
    ticks(three, 0.3)
    three.settle()
    assert three.heard(client) == []
    three.exchange.commands.gate(shard, False)
    ticks(three, 0.1)
    three.settle()
    assert kinds(three.heard(client)) == ["logon"]
    assert kinds(three.say(client, order(1))) == ["accepted", "booked"]


def test_p2_order_before_a_returned_shard_has_opened_the_session_is_refused_not_lost(
    three: LogBench,
) -> None:
    """The shard would take it for somebody else's, and tell nobody."""
    shard = shard_of(three)
    three.exchange.up[shard] = False
    three.desk.tick()
    client = three.log_on()
    three.exchange.up[shard] = True
    three.desk.tick()  # SESSION_OPEN is in the ring
    three.feed(client, orjson.dumps(order(1)) + b"\n")
    (refusal,) = three.heard(client)
    assert (refusal["code"], refusal["id"], refusal["shard"]) == (RejectCode.UNAVAILABLE, 1, shard)
    three.settle()
    assert kinds(three.heard(client)) == ["logon"]
    assert sent(three, CommandKind.NEW) == []
    assert kinds(three.say(client, order(2))) == ["accepted", "booked"]


def test_p2_reports_between_crash_and_return_are_not_lost(three: LogBench) -> None:
    client = three.log_on()
    shard = shard_of(three)
    last = three.say(client, order(1))[-1]["seq"]
    three.feed(client, orjson.dumps(order(2)) + b"\n" + orjson.dumps(order(3)) + b"\n")
    three.exchange.up[shard] = False  # dead: two orders wait in its ring
    ticks(three, 0.5)
    refused = three.say(client, order(9))  # its successor takes what lies in the ring
    assert [(a["type"], a.get("code", 0), a["seq"]) for a in refused] == [
        ("rejected", 905, 0),
        *((kind, 0, last + n) for n, kind in enumerate(("accepted", "booked") * 2, 1)),
    ]
    three.exchange.up[shard] = True
    ticks(three, 0.1)
    three.settle()
    assert session_of(client).stage is Stage.LIVE
    assert len(sent(three, CommandKind.SESSION_OPEN)) == 3
    answer = three.say(client, order(10))
    assert [line["seq"] for line in answer] == [last + 5, last + 6]
    assert codes(three.say(client, order(9))) == [RejectCode.DUPLICATE]


def test_p2_returned_shard_that_does_not_know_the_session_ends_it(three: LogBench) -> None:
    client = three.log_on()
    shard = shard_of(three)
    three.exchange.up[shard] = False
    three.desk.tick()
    three.exchange.up[shard] = True
    three.desk.tick()
    shown = [c for c in three.exchange.take(shard, PRODUCER)]
    assert [int(c["kind"]) for c in shown] == [CommandKind.SESSION_KEEP]
    event = three.exchange.shards[shard].step(three.exchange.shards[shard].commands(1))[-1:]
    assert (int(event[0]["kind"]), int(event[0]["session"])) == (EventKind.REJECTED, 0)
    event["code"] = RejectCode.NOT_LOGGED_ON
    three.exchange._publish(shard, event, shown[0])
    three.settle()
    refusal, goodbye = three.heard(client)
    assert (refusal["code"], goodbye["type"]) == (RejectCode.NOT_LOGGED_ON, "logout")
    assert f"shard {shard}" in refusal["text"]
    assert client.hung_up


def test_p1_session_that_a_shard_has_closed_by_itself_ends(three: LogBench) -> None:
    client = three.log_on()
    session, shard = session_of(client), shard_of(three)
    close = three.exchange.shards[shard].commands(1)
    close["kind"], close["account"] = CommandKind.SESSION_CLOSE, 1
    close["session"], close["logon"] = session.slots[shard], session.logon
    close["producer"] = PRODUCER
    three.exchange._publish(shard, three.exchange.step(shard, close[0]), None)
    three.settle()
    goodbye = three.heard(client)[-1]
    assert goodbye["reason"] == f"shard {shard} has closed the session: log on again"
    assert client.hung_up


def test_p1_successor_says_so_before_it_opens_anything(three: LogBench) -> None:
    three.exchange.commands.gate(1, True)
    three.restart(successor=True)
    three.exchange.commands.gate(1, False)
    client = three.connect()
    three.ask(client, LOGON)
    for shard in range(3):
        (reset,) = [c for c in three.exchange.seen if c["kind"] == CommandKind.PRODUCER_RESET][
            shard : shard + 1
        ]
        assert int(reset["client_order_id"]) == int(reset["producer"]) == PRODUCER
        assert int(reset["amount"]) == 10 * NS
    kinds_seen = [int(command["kind"]) for command in three.exchange.seen]
    assert kinds_seen == [CommandKind.PRODUCER_RESET, CommandKind.SESSION_OPEN] * 3


def test_p2_signs_of_life_that_were_not_refused_are_forgotten(three: LogBench) -> None:
    three.log_on()
    for _ in range(5):
        three.exchange.up[0] = False
        three.desk.tick()
        three.exchange.up[0] = True
        three.desk.tick()
    assert len(three.desk.sessions.shown) == 1


def test_p1_mass_of_clients_that_come_back_holds_a_bounded_part_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.desk_log.PIECES_MAX", 3)
    monkeypatch.setattr("gateway.desk_log.EVENTS_PER_TURN", 20)
    made, asked = LogBench(), []
    witness = made.log_on(session="b")
    made.say(witness, *(order(number, price=90) for number in range(1, 20)))
    made.desk.aside = lambda work, then: asked.append((work, then))
    clients = [made.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        made.ask(client, {**LOGON, "session": f"s{number}", "resume": "0:0"})
        made.turn()
    clients[7].stalled = 1  # it does not read, and holds nothing up
    for _ in range(2000):
        held = [missed.holds for s in made.desk.behind for missed in s.behind.missed.values()]
        assert sum(held) <= 3
        while asked:
            work, then = asked.pop()
            then(work())
        made.turn()
        if len(made.desk.behind) == 1:
            clients[7].stalled = 0
    assert not made.desk.behind
    last = int(made.exchange.logs[0].events["account_seq"].max())
    for client in clients:
        head, *reports = made.heard(client)
        numbers = [line["seq"] for line in reports]
        assert numbers == [n for n in range(1, last + 1) if n != head["seq"]["0"]]
    made.close()


# ------------------------------------------------------------------------------- gates
REASONS = ["the disk is behind, the loss window of 100 ms is used up", "the disk is full"]


@pytest.mark.parametrize("reason", REASONS)
def test_p4_closed_gate_says_why(desk: Bench, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.setattr("gateway.desk_orders.FULL_WAIT_NS", 0)
    desk.desk.parts.gate_reason = lambda shard: reason
    client = desk.log_on()
    desk.exchange.commands.gate(0, True)
    desk.feed(client, orjson.dumps(order(1)) + b"\n")
    desk.desk.retry()
    (refusal,) = desk.heard(client)
    assert (refusal["code"], refusal["id"], refusal["shard"]) == (RejectCode.BUSY, 1, 0)
    assert refusal["text"].startswith(f"shard 0 takes nothing for the moment: {reason}; no id")
    stranger = desk.connect()
    desk.feed(stranger, orjson.dumps(LOGON) + b"\n")
    refusal = desk.heard(stranger)[0]
    assert (refusal["code"], reason in refusal["text"]) == (RejectCode.BUSY, True)
    desk.exchange.commands.gate(0, False)
    assert kinds(desk.say(client, order(1))) == ["accepted", "booked"]


def test_full_ring_behind_an_open_gate_is_a_full_queue(
    desk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.desk_orders.FULL_WAIT_NS", 0)
    desk.desk.parts.gate_reason = lambda shard: "not this"
    client = desk.log_on()
    for number in range(1, desk.config.rings.command_capacity + 2):
        desk.feed(client, orjson.dumps(order(number)) + b"\n")
    desk.desk.retry()
    assert desk.heard(client)[0]["text"] == "a queue is full; no id was used, send it again"
