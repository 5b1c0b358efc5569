"""BUSY uses up no id, and nothing overtakes what was refused (RULES §10): a session's later ids
are answered BUSY until the refused one is sent again. No shard runs on its own, nothing is waited
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from engine.records import RejectCode
from gateway.state import R_LAST_ID, R_LATCH
from tests.gateway.support import Bench, FakeClient, bench

BUSY = [RejectCode.BUSY]
Noted = Callable[[FakeClient], tuple[int, int]]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """BUSY at the second look at a ring without room."""
    monkeypatch.setattr("gateway.desk_orders.FULL_WAIT_NS", -1)
    with bench() as made:
        yield made


def order(number: int, **more: Any) -> dict[str, Any]:
    return {"symbol": "AAPL", "side": "buy", "qty": 1, "price": "100", "id": number, **more}


def answers(made: Bench, client: FakeClient, *lines: dict[str, Any]) -> list[int | str]:
    """The code of each refusal, the type of everything else."""
    return [line.get("code", line["type"]) for line in made.say(client, *lines)]


@pytest.fixture
def noted(desk: Bench) -> Noted:
    """(last used id, latched id) of a client's session."""

    def look(client: FakeClient) -> tuple[int, int]:
        assert client.session is not None
        view, base = desk.desk.view, client.session.base
        return int(view[base + R_LAST_ID]), int(view[base + R_LATCH])

    return look


def refused(made: Bench, client: FakeClient, *lines: dict[str, Any]) -> list[int | str]:
    """What is answered to lines that come while the shard takes nothing."""
    made.exchange.commands.gate(0, True)
    told = answers(made, client, *lines)
    made.exchange.commands.gate(0, False)
    return told


def taken(made: Bench) -> list[int]:
    """Ids the shard has run, in its order."""
    return [int(row["client_order_id"]) for row in made.exchange.seen if row["client_order_id"]]


def test_a_busy_id_is_not_used_and_every_later_one_is_busy_until_it_comes_again(
    desk: Bench, noted: Noted
) -> None:
    client = desk.log_on()
    assert answers(desk, client, order(1)) == ["accepted", "booked"]
    assert refused(desk, client, order(3)) == BUSY
    assert noted(client) == (1, 3)
    later = [
        order(4),
        {"type": "cancel", "symbol": "AAPL", "target_id": 1, "id": 5},
        {"type": "replace", "symbol": "AAPL", "target_id": 1, "qty": 2, "id": 6},
        {"type": "mass_cancel", "id": 7},
        order(2**62),
    ]
    for line in later + later:
        assert answers(desk, client, line) == BUSY
    assert (noted(client), taken(desk)) == ((1, 3), [1])
    assert answers(desk, client, order(3)) == ["accepted", "booked"]
    assert noted(client) == (3, 0)
    assert answers(desk, client, order(4)) == ["accepted", "booked"]
    assert taken(desk) == [1, 3, 4]


def test_ids_of_one_read_behind_a_busy_one_are_busy_too(desk: Bench) -> None:
    client = desk.log_on()
    bulk = b"".join(orjson.dumps(order(number)) + b"\n" for number in range(1, 50))
    desk.exchange.commands.gate(0, True)
    desk.feed(client, bulk)
    desk.settle()
    desk.exchange.commands.gate(0, False)
    told = [(line["code"], line["id"], line["seq"]) for line in desk.heard(client)]
    assert told == [(RejectCode.BUSY, number, 0) for number in range(1, 50)]
    desk.feed(client, bulk)
    desk.settle()
    assert taken(desk) == list(range(1, 50))


def test_a_used_id_that_is_answered_busy_latches_nothing(desk: Bench, noted: Noted) -> None:
    client = desk.log_on()
    answers(desk, client, order(1), order(2))
    assert refused(desk, client, order(1), order(2)) == BUSY * 2
    assert noted(client) == (2, 0)
    assert answers(desk, client, order(3)) == ["accepted", "booked"]
    assert answers(desk, client, order(1), order(2)) == ["status"] * 2


def test_a_used_id_is_answered_while_another_is_latched_and_frees_it_not(
    desk: Bench, noted: Noted
) -> None:
    client = desk.log_on()
    answers(desk, client, order(1))
    assert refused(desk, client, order(2)) == BUSY
    assert refused(desk, client, order(1)) == BUSY
    assert answers(desk, client, order(1)) == ["status"]
    assert noted(client) == (1, 2)
    assert answers(desk, client, order(3), order(2), order(3)) == [
        *BUSY, "accepted", "booked", "accepted", "booked"
    ]  # fmt: skip


def test_an_id_below_the_latched_one_may_go_and_the_latched_one_still_frees_the_rest(
    desk: Bench, noted: Noted
) -> None:
    client = desk.log_on()
    assert refused(desk, client, order(5)) == BUSY
    assert answers(desk, client, order(3)) == ["accepted", "booked"]
    assert answers(desk, client, order(6)) == BUSY
    assert noted(client) == (3, 5)
    # Refused as well, it is the one that nothing may overtake.
    assert refused(desk, client, order(4)) == BUSY
    assert answers(desk, client, order(5)) == BUSY
    assert answers(desk, client, order(4), order(5), order(6)) == ["accepted", "booked"] * 3
    assert (noted(client), taken(desk)) == ((6, 0), [3, 4, 5, 6])


def test_a_resent_id_that_the_gateway_refuses_stays_latched_until_it_is_sent_right(
    desk: Bench, noted: Noted
) -> None:
    client = desk.log_on()
    assert refused(desk, client, order(1)) == BUSY
    assert answers(desk, client, order(1, price="100.001")) == [RejectCode.OFF_TICK]
    assert answers(desk, client, order(2)) == BUSY
    assert answers(desk, client, order(1), order(2)) == ["accepted", "booked"] * 2
    assert noted(client) == (2, 0)


def test_a_resent_id_whose_shard_is_down_is_used_up_and_the_next_goes_on(
    desk: Bench, noted: Noted
) -> None:
    client = desk.log_on()
    assert refused(desk, client, order(1)) == BUSY
    desk.exchange.up[0] = False
    desk.desk.shards_poll()
    assert answers(desk, client, order(1)) == [RejectCode.UNAVAILABLE]
    assert noted(client) == (1, 0)


def test_a_gate_that_closes_between_look_and_write_uses_up_no_id(
    desk: Bench,
    noted: Noted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = desk.log_on()
    assert refused(desk, client, order(1)) == BUSY
    with monkeypatch.context() as closing:  # latched, so this line takes the slow path
        closing.setattr(desk.desk.rings, "push", lambda *_: 0)
        assert answers(desk, client, order(1)) == BUSY
        assert answers(desk, client, {"type": "mass_cancel", "id": 1}) == BUSY
    assert noted(client) == (0, 1)
    assert answers(desk, client, order(2)) == BUSY
    assert answers(desk, client, order(1), order(2)) == ["accepted", "booked"] * 2
    assert taken(desk) == [1, 2]
