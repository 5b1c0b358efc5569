"""A client that comes back gets what it missed, once, in order, before anything else; or hears why
not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from engine.records import CommandKind, RejectCode
from gateway.desk import Desk
from gateway.desk_log import LOG_WAIT_S
from gateway.resume import Missed
from gateway.session import Stage
from tests.gateway.logs import LogBench, resumed
from tests.gateway.support import FakeClient, make_config
from tests.gateway.test_session import LOGON, codes, kinds, order, session_of, ticks

pytestmark = pytest.mark.nojit


@pytest.fixture
def desk() -> Iterator[LogBench]:
    made = LogBench()
    yield made
    made.close()


@pytest.fixture
def three() -> Iterator[LogBench]:
    made = LogBench(make_config(shards=3))
    yield made
    made.close()


def place(made: LogBench, client: FakeClient, first: int, count: int) -> list[dict[str, Any]]:
    """Orders first .. first + count - 1 of a client; its reports."""
    return made.say(client, *(order(number, price=90) for number in range(first, first + count)))


def away(made: LogBench, client: FakeClient) -> None:
    """The connection is lost and the exchange knows."""
    made.desk.on_lost(client)
    made.settle()


def come_back(made: LogBench, last: dict[int, int], **more: Any) -> FakeClient:
    """Log on to session `main` again; nothing is waited for."""
    client = made.connect()
    made.ask(client, {**LOGON, "resume": resumed(last), **more})
    return client


def missed_part(answers: list[dict[str, Any]]) -> list[int]:
    """Numbers of the reports behind the logon answer."""
    assert answers[0]["type"] == "logon", answers
    return [line["seq"] for line in answers[1:] if line["type"] != "heartbeat"]


# ------------------------------------------------------------------------------- what is given
def test_n2_missed_reports_follow_the_logon_answer_and_equal_the_live_ones(desk: LogBench) -> None:
    client, witness = desk.log_on(), desk.log_on(session="b")
    last = place(desk, client, 1, 2)[-1]["seq"]
    desk.heard(witness)
    away(desk, client)
    place_more = [order(n, side="sell", price=80 + n, qty=2) for n in range(1, 9)]
    desk.feed(witness, b"".join(orjson.dumps(line) + b"\n" for line in place_more))
    desk.settle()
    live = witness.output
    witness.output = b""
    client = come_back(desk, {0: last})
    desk.settle()
    answer, rest = client.output.split(b"\n", 1)
    opened = orjson.loads(answer)["seq"]["0"]
    assert rest == live
    numbers = [orjson.loads(line)["seq"] for line in rest.splitlines()]
    assert numbers == list(range(last + 1, opened))
    client.output = b""
    assert place(desk, client, 3, 1)[0]["seq"] == opened + 1
    assert (desk.desk.counts["resumes"], desk.exchange.waits) == (1, [0])


def test_n2_nothing_missed_is_nothing_sent(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 2)[-1]["seq"]
    away(desk, client)
    closed = last + 1  # its own report, of the session's end
    client = come_back(desk, {0: closed})
    desk.settle()
    assert missed_part(desk.heard(client)) == []
    assert desk.exchange.logs[0].pieces == 0


def test_n2_every_shard_is_resumed_from_its_own_number(three: LogBench) -> None:
    symbols = ("AAPL", "BTCUSDT", "TICK5", "BIG")
    client, witness = three.log_on(), three.log_on(session="b")
    three.heard(client)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    line = {"side": "buy", "qty": 10, "price": 1000}
    for line_read in three.say(
        client, *({**line, "symbol": symbols[n % 4], "id": n + 1} for n in range(12))
    ):
        seen[line_read["shard"]].append(line_read["seq"])
    last = {shard: numbers[len(numbers) // 2] for shard, numbers in seen.items() if numbers}
    away(three, client)
    three.say(witness, *({**line, "symbol": symbols[n % 4], "id": n + 1} for n in range(12)))
    client = come_back(three, last)
    three.settle()
    head, *missed = three.heard(client)
    for shard, number in last.items():
        got = [line["seq"] for line in missed if line["shard"] == shard]
        assert got == list(range(number + 1, head["seq"][str(shard)]))
    assert {line["shard"] for line in missed} <= last.keys()


def test_n2_own_logon_is_not_reported_and_other_sessions_are(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 1)[-1]["seq"]
    away(desk, client)
    desk.log_on(session="b")
    client = come_back(desk, {0: last})
    desk.settle()
    head, *missed = desk.heard(client)
    reasons = [(line["session"], line["reason"]) for line in missed if line["type"] == "account"]
    assert reasons == [("main", "session_closed"), ("b", "session_opened")]
    assert missed[-1]["seq"] == head["seq"]["0"] - 1


def test_p1_gateway_that_died_is_followed_by_one_that_knows_what_was_missed(
    desk: LogBench,
) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 2)[-1]["seq"]
    desk.feed(client, b"".join(orjson.dumps(order(n, price=90)) + b"\n" for n in (3, 4, 5)))
    desk.restart()  # three orders are in the ring, nobody has heard of them
    client = come_back(desk, {0: last})
    desk.settle()
    head, *missed = desk.heard(client)
    assert head["last_id"] == 5
    assert [line["id"] for line in missed] == [3, 3, 4, 4, 5, 5]
    assert [line["seq"] for line in missed] == list(range(last + 1, last + 7))
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == 5


# ------------------------------------------------------------------------------- refusals
REFUSED = [
    ({}, +1, RejectCode.RESUME_AHEAD, "you state report {last}"),
    ({}, +1000, RejectCode.RESUME_AHEAD, "you state report {last}"),
    ({"incarnation": 2}, -1, RejectCode.WRONG_INCARNATION, "incarnation 2 is over, this is 3"),
    ({"incarnation": 4}, +1000, RejectCode.WRONG_INCARNATION, "incarnation 4 is over, this is 3"),
]


@pytest.mark.parametrize(("more", "beyond", "code", "words"), REFUSED)
def test_n2_too_new_a_number_or_another_incarnation_is_refused_with_a_reason(
    desk: LogBench, more: dict[str, Any], beyond: int, code: int, words: str
) -> None:
    client = desk.log_on(cancel_on_disconnect="all")
    place(desk, client, 1, 1)
    away(desk, client)
    last = int(desk.exchange.logs[0].events["account_seq"].max())
    client = come_back(desk, {0: last + beyond}, request="r1", **more)
    desk.settle()
    refusal, goodbye = desk.heard(client)
    assert (refusal["code"], refusal["seq"], refusal["request"]) == (code, 0, "r1")
    assert words.format(last=last + beyond) in refusal["text"]
    assert "without resume" in refusal["text"]
    assert (goodbye["type"], client.hung_up) == ("logout", True)
    desk.settle()
    assert int(desk.exchange.seen[-1]["kind"]) == CommandKind.SESSION_CLOSE
    assert desk.desk.counts["resumes_refused"] == 1


def test_n2_number_of_the_opening_itself_cannot_have_been_seen(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 1)[-1]["seq"]
    away(desk, client)
    for stated, accepted in ((last + 1, True), (last + 2 + 2, False)):
        client = come_back(desk, {0: stated})
        desk.settle()
        assert (desk.heard(client)[0]["type"] == "logon") is accepted
        away(desk, client)


def test_n2_reports_that_are_not_kept_any_more_are_refused_with_their_numbers(
    desk: LogBench,
) -> None:
    client = desk.log_on()
    reports = place(desk, client, 1, 10)
    away(desk, client)
    log = desk.exchange.logs[0]
    number = reports[9]["seq"]
    log.first = int(log.events["out_seq"][log.events["account_seq"] == number][-1])
    for last, good in ((number - 1, True), (number - 2, False), (0, False)):
        client = come_back(desk, {0: last})
        desk.settle()
        head = desk.heard(client)[0]
        assert (head["type"] == "logon") is good
        if not good:
            assert head["code"] == RejectCode.RESUME_TOO_OLD
            assert f"report {last + 1} is due" in head["text"]
            assert "are not kept" in head["text"]
        away(desk, client)


def test_n2_without_a_log_only_who_missed_nothing_is_resumed() -> None:
    made = LogBench(logs=None)
    client = made.log_on()
    last = place(made, client, 1, 1)[-1]["seq"]
    away(made, client)
    client = come_back(made, {0: last})
    made.settle()
    refusal = made.heard(client)[0]
    assert (refusal["code"], "are not kept" in refusal["text"]) == (207, True)
    made.settle()
    opened = made.exchange.logs[0].events["account_seq"][-1]
    client = come_back(made, {0: int(opened)})
    made.settle()
    assert kinds(made.heard(client)) == ["logon"]
    made.close()


@pytest.mark.parametrize(
    "text",
    ["", "0", "0:", ":1", "0:-1", "0:1,", "0:1,0:2", "0:01", "0:1;1:2", "a:1", "0:1.5", " 0:1",
     "0:9223372036854775808", "0:1\u0661", "00:1", ",".join(f"{n}:1" for n in range(70))],
)  # fmt: skip
def test_n2_malformed_resume_is_a_bad_field(desk: LogBench, text: str) -> None:
    client = desk.connect()
    assert codes(desk.say(client, {**LOGON, "resume": text})) == [RejectCode.BAD_FIELD]
    assert not client.hung_up
    assert client.session is None


def test_n2_resume_of_a_shard_that_is_not_there_is_a_bad_field(three: LogBench) -> None:
    client = three.connect()
    answers = three.say(client, {**LOGON, "resume": "0:0,3:1"})
    assert codes(answers) == [RejectCode.BAD_FIELD]
    assert "shard 3" in answers[0]["text"]
    assert client.hung_up


@pytest.mark.parametrize(
    ("change", "code"),
    [({"resume": 5}, 102), ({"incarnation": "3"}, 102), ({"incarnation": -1}, 103),
     ({"incarnation": 1.5}, 102)],
)  # fmt: skip
def test_n2_wrong_kinds_of_values_are_refused(
    desk: LogBench, change: dict[str, Any], code: int
) -> None:
    assert codes(desk.say(desk.connect(), {**LOGON, **change})) == [code]


# ---------------------------------------------------------------------------- waiting for the log
def behind(made: LogBench, client: FakeClient) -> bool:
    return session_of(client).behind is not None


def test_n2_log_is_waited_for_and_the_follower_told_so(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 3)[0]["seq"]
    away(desk, client)
    log = desk.exchange.logs[0]
    log.limit = log.end() - 1
    client = come_back(desk, {0: last})
    desk.ask(client, order(9, price=90))
    desk.turn(3)
    assert (client.output, client.paused, desk.exchange.waits) == (b"", True, [1])
    assert session_of(client).stage is Stage.OPENING
    ticks(desk, 4)
    assert not client.hung_up
    log.limit = None
    desk.settle()
    assert desk.exchange.waits == [0]
    head, *rest = desk.heard(client)
    assert [line["seq"] for line in rest] == [
        number for number in range(last + 1, last + 1 + len(rest) + 1) if number != head["seq"]["0"]
    ]
    assert rest[-1]["id"] == 9


@pytest.mark.parametrize("trouble", ["stands still", "broken"])
def test_n2_log_that_does_not_come_or_cannot_be_read_ends_the_logon(
    desk: LogBench, trouble: str
) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 3)[0]["seq"]
    away(desk, client)
    log = desk.exchange.logs[0]
    log.limit, log.broken = log.end() - 1 if trouble == "stands still" else None, True
    client = come_back(desk, {0: last})
    desk.turn(3)
    ticks(desk, LOG_WAIT_S + 0.3)
    refusal = desk.heard(client)[0]
    assert refusal["code"] == (901 if trouble == "stands still" else 905)
    assert "log on again" in refusal["text"]
    assert client.hung_up
    desk.desk.tick()
    assert desk.exchange.waits == [0]
    assert not desk.desk.behind


def test_n2_client_lost_while_it_is_resumed_leaves_nothing_behind(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 3)[0]["seq"]
    away(desk, client)
    log = desk.exchange.logs[0]
    log.limit = log.end() - 1
    client = come_back(desk, {0: last})
    desk.turn(3)
    assert desk.exchange.waits == [1]
    desk.desk.on_lost(client)
    desk.desk.tick()
    assert (desk.exchange.waits, len(desk.desk.behind), desk.desk.waits) == ([0], 0, set())


def test_n2_log_is_looked_at_again_soon_without_being_called(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 3)[0]["seq"]
    away(desk, client)
    log = desk.exchange.logs[0]
    log.limit = log.end() - 1
    client = come_back(desk, {0: last})
    desk.turn(3)
    log.limit = None
    for _ in range(20):
        assert len(desk.later) <= 1
        for delay, call in desk.later[:]:
            desk.later.clear()
            assert delay <= 0.01
            call()
    assert kinds(desk.heard(client))[0] == "logon"
    assert not behind(desk, client)
    assert desk.later == []


# -------------------------------------------------------------------- live reports meanwhile
def resuming(made: LogBench, orders: int) -> tuple[FakeClient, FakeClient, int]:
    """(client that has just come back and does not read, witness, last number stated)."""
    client, witness = made.log_on(), made.log_on(session="b")
    last = place(made, client, 1, 1)[-1]["seq"]
    away(made, client)
    place(made, witness, 1, orders)
    client = come_back(made, {0: last})
    client.stalled = 1
    made.turn(2)
    assert client.output == b""
    assert behind(made, client)
    return client, witness, last


def everything(made: LogBench, client: FakeClient, last: int) -> None:
    """It got the logon answer and every number behind `last` but that one's, in order."""
    head, *rest = made.heard(client)
    end = int(made.exchange.logs[0].events["account_seq"].max())
    assert [line["seq"] for line in rest] == [
        number for number in range(last + 1, end + 1) if number != head["seq"]["0"]
    ]
    assert not behind(made, client)


@pytest.mark.parametrize("told", [False, True])
def test_n2_live_reports_wait_behind_the_missed_ones(
    desk: LogBench, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr("gateway.desk_log.EVENTS_PER_TURN", 8)
    client, witness, last = resuming(desk, 20)
    if told:  # the logon answer and a few reports are out
        client.stalled = 0
        desk.turn(3)
        client.stalled = 1
        assert 1 < client.output.count(b"\n") < 30
    place(desk, witness, 30, 5)
    assert len(session_of(client).pending) > 0
    client.stalled = 0
    desk.settle()
    everything(desk, client, last)


def test_n2_too_many_live_reports_are_dropped_and_read_from_the_log(
    desk: LogBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.desk_log.PENDING_BYTES_MAX", 2000)
    client, witness, last = resuming(desk, 20)
    for number in range(30, 60):
        place(desk, witness, number, 1)
        assert session_of(client).pending_bytes <= 2000
    desk.exchange.logs[0].limit = desk.exchange.logs[0].end() - 3
    client.stalled = 0
    desk.turn(30)
    assert behind(desk, client)  # the log has not come so far
    assert desk.exchange.waits == [1]
    place(desk, witness, 60, 2)
    desk.exchange.logs[0].limit = None
    desk.settle()
    everything(desk, client, last)
    assert desk.desk.counts["output_overflows"] == 0


def test_n6_slow_reader_is_not_read_for_until_it_reads(desk: LogBench) -> None:
    client, _, last = resuming(desk, 200)
    client.stalled = 0
    desk.turn(1)
    taken, client.stalled = client.output, 1
    pieces = desk.exchange.logs[0].pieces
    desk.turn(20)
    assert (client.output, desk.exchange.logs[0].pieces) == (taken, pieces)
    client.stalled = 0
    desk.settle()
    everything(desk, client, last)


def test_n2_turn_does_no_more_than_its_share(
    desk: LogBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.desk_log.EVENTS_PER_TURN", 16)
    one, witness, _ = resuming(desk, 100)
    other = desk.connect()
    desk.ask(other, {**LOGON, "session": "c", "resume": "0:0"})
    one.stalled = 0
    lines = 0
    for _ in range(400):
        desk.turn()
        now = one.output.count(b"\n") + other.output.count(b"\n")
        assert now - lines <= 16 + 2  # and the logon answers
        lines = now
    assert not desk.desk.behind
    assert min(one.output.count(b"\n"), other.output.count(b"\n")) > 190
    place(desk, witness, 200, 1)
    assert one.output.endswith(witness.output.split(b"\n")[-2] + b"\n" if witness.output else b"")


def test_n2_orders_are_taken_while_missed_reports_go_out(
    desk: LogBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.desk_log.EVENTS_PER_TURN", 16)
    client, _, _ = resuming(desk, 200)
    client.stalled = 0
    desk.turn(3)
    assert session_of(client).stage is Stage.LIVE
    assert behind(desk, client)
    desk.ask(client, order(5, price=91))
    desk.desk.retry()
    desk.exchange.run()
    assert len(desk.exchange.shards[0].orders("AAPL", 0)) == 202
    desk.settle()
    assert desk.heard(client)[-1]["id"] == 5


def test_n2_shard_that_comes_late_gives_its_missed_reports_then(three: LogBench) -> None:
    client = three.log_on()
    shard = three.desk.directory.get("AAPL", 2)
    last = place(three, client, 1, 2)[0]["seq"]
    away(three, client)
    three.exchange.up[shard] = False
    three.desk.tick()
    client = come_back(three, {shard: last})
    three.settle()
    (head,) = three.heard(client)
    assert str(shard) not in head["seq"]
    three.exchange.up[shard] = True
    three.desk.tick()
    three.settle()
    head, *missed = three.heard(client)
    assert [line["seq"] for line in missed] == list(range(last + 1, head["seq"][str(shard)]))
    assert place(three, client, 3, 1)[0]["seq"] == head["seq"][str(shard)] + 1


def test_n2_log_that_loses_reports_while_they_are_sent_ends_the_connection(
    desk: LogBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.desk_log.EVENTS_PER_TURN", 16)
    client, _, _ = resuming(desk, 200)
    client.stalled = 0
    desk.turn(3)
    assert 1 < client.output.count(b"\n") < 400
    behind_of = session_of(client).behind
    assert behind_of is not None
    missed = behind_of.missed[0]
    missed._pieces = iter([desk.exchange.logs[0].events[-3:]])
    missed.rest = missed.rest[:0]
    desk.turn(2)
    refusal = desk.heard(client)[-2]
    assert (refusal["code"], client.hung_up) == (RejectCode.RESUME_TOO_OLD, True)


@pytest.mark.parametrize("seed", range(6))
def test_n2_any_interleaving_gives_every_report_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("gateway.desk_log.PENDING_BYTES_MAX", 3000)
    monkeypatch.setattr("gateway.desk_log.EVENTS_PER_TURN", 7)
    rng, made = random.Random(seed), LogBench()
    log = made.exchange.logs[0]
    witness = made.log_on(session="b")
    made.heard(witness)
    client, seen, told, number = made.log_on(), [], set(), 0
    seen += range(1, made.desk.sessions.by_logon[session_of(client).logon].seq[0] + 1)
    client.output = b""

    def listen() -> None:
        for line in made.heard(client):
            if line["type"] == "logon":
                told.add(line["seq"]["0"])
            elif line["type"] not in ("heartbeat", "logout"):
                assert line["seq"], line
                seen.append(line["seq"])

    for _ in range(300):
        step = rng.random()
        if step < 0.5:
            number += 1
            made.ask(
                witness, order(number, price=rng.randint(90, 99), side=rng.choice(("buy", "sell")))
            )
        elif step < 0.6:
            log.limit = rng.choice((None, max(log.end() - rng.randint(0, 20), 0)))
        elif step < 0.7:
            client.stalled = rng.choice((0, 0, 1))
        elif step < 0.75:
            listen()
            made.desk.on_lost(client)
            made.exchange.run()
            client = come_back(made, {0: max([0, *seen, *(n for n in told if n - 1 in seen)])})
        else:
            made.turn()
    log.limit, client.stalled = None, 0
    made.settle()
    assert not client.hung_up
    listen()
    end = int(log.events["account_seq"].max())
    assert sorted([*seen, *(told - set(seen))]) == list(range(1, end + 1))
    assert seen == sorted(seen)
    made.close()


# --------------------------------------------------------------------------- the reader by itself
def test_missed_is_done_only_when_the_log_has_been_read_so_far(desk: LogBench) -> None:
    client = desk.log_on()
    place(desk, client, 1, 5)
    log = desk.exchange.logs[0]
    last, reach = int(log.events["account_seq"].max()), log.end()
    missed = Missed(1, 0, 3, 3, 3, 0)
    assert (missed.done, missed.look(0)) == (True, False)
    missed.extend(last - 2, reach - 2)
    assert (missed.look(reach - 3), missed.waiting) == (False, True)
    numbers = []
    while not missed.done:
        if missed.look(reach):
            missed.arrived(missed.job(log)())
        missed.extend(last, reach)
        numbers += missed.head(100)["account_seq"].tolist()
        missed.sent(len(missed.head(100)))
    assert numbers == list(range(4, last + 1))


def test_n2_piece_on_its_way_is_waited_for_and_not_asked_for_twice(desk: LogBench) -> None:
    asked: list[Any] = []
    client = desk.log_on()
    last = place(desk, client, 1, 20)[0]["seq"]
    away(desk, client)
    desk.desk.aside = lambda work, then: asked.append((work, then))
    client = come_back(desk, {0: last})
    desk.turn(5)
    for number in range(1, 100):
        if not behind(desk, client):
            break
        assert len(asked) == 1, number
        work, then = asked.pop()
        then(work())
        desk.turn(5)
    head, *missed = desk.heard(client)
    assert [line["seq"] for line in missed] == list(range(last + 1, head["seq"]["0"]))
    assert asked == []


def test_attach_to_a_new_exchange_lets_go_of_the_old_logs(desk: LogBench) -> None:
    client = desk.log_on()
    last = place(desk, client, 1, 3)[0]["seq"]
    away(desk, client)
    log = desk.exchange.logs[0]
    log.limit = log.end() - 1
    client = come_back(desk, {0: last})
    desk.turn(3)
    assert desk.exchange.waits == [1]
    desk.desk.attach(desk.exchange.parts())
    assert desk.exchange.waits == [0]
    desk.turn(1)
    assert isinstance(desk.desk, Desk)
    assert client.hung_up
    assert not desk.desk.behind
