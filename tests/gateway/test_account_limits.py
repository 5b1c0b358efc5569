"""Kill switch and limits of accounts as a client sees them: reports, refusals, `limits`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.account_view import account_view
from engine.admin import account_limit, kill_switch
from engine.records import AccountLimit, KillAction
from gateway.directory import shard_of_name
from tests.gateway.support import Bench, bench

BUY = {"symbol": "AAPL", "side": "buy", "qty": 3, "price": "99"}


@pytest.fixture
def desk() -> Iterator[Bench]:
    with bench() as made:
        exchange = made.exchange
        made.desk.parts.account_views = lambda account: [
            account_view(shard.state, account) for shard in exchange.shards
        ]
        yield made


def admin(desk: Bench, record: np.ndarray, shards: list[int] | None = None) -> None:
    """The supervisor tells the shards."""
    for shard in shards if shards is not None else range(desk.config.shards):
        desk.exchange._publish(shard, desk.exchange.step(shard, record[0]), None)
    desk.settle()


def kinds(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["type"], line.get("reason", "")) for line in lines]


def test_a_blocked_account_is_told_refused_with_a_sentence_and_may_cancel(desk: Bench) -> None:
    client = desk.log_on()
    (accepted, _) = desk.say(client, BUY)
    admin(desk, kill_switch(1, KillAction.BLOCK))
    told = desk.heard(client)
    assert [(line["type"], line["reason"], line["action"]) for line in told] == [
        ("account", "kill", "block")
    ] * desk.config.shards
    assert not any("logon" in line or "session" in line for line in told)
    (refused,) = desk.say(client, BUY)
    assert (refused["type"], refused["code"], refused["reason"]) == (
        "rejected",
        205,
        "account_blocked",
    )
    assert "blocked" in refused["text"]
    cancel = {"type": "cancel", "order_id": accepted["order_id"], "symbol": "AAPL"}
    assert kinds(desk.say(client, cancel)) == [("canceled", "client")]
    answers = desk.say(client, {"type": "mass_cancel"})
    assert ("summary", "mass") in kinds(answers)
    admin(desk, kill_switch(1, KillAction.RELEASE))
    assert desk.heard(client)[0]["action"] == "release"
    assert kinds(desk.say(client, BUY))[0] == ("accepted", "")


def test_block_and_cancel_tells_every_order_and_a_summary_that_answers_nobody(desk: Bench) -> None:
    client, other = desk.log_on(), desk.log_on(session="other")
    desk.say(client, BUY)
    desk.heard(other)
    home = shard_of_name("AAPL", desk.config.shards)
    admin(desk, kill_switch(1, KillAction.BLOCK_AND_CANCEL), [home])
    told = [("account", "kill"), ("canceled", "kill"), ("summary", "kill")]
    assert kinds(desk.heard(client)) == told
    assert kinds(desk.heard(other)) == told


def test_a_blocked_session_is_named(desk: Bench) -> None:
    client, other = desk.log_on(), desk.log_on(session="other")
    desk.heard(client)
    admin(desk, kill_switch(1, KillAction.BLOCK, "other"))
    told = desk.heard(client)
    assert {(line["action"], line["session"]) for line in told} == {("block", "other")}
    desk.heard(other)
    assert kinds(desk.say(other, BUY)) == [("rejected", "account_blocked")]
    desk.heard(client)
    assert kinds(desk.say(client, BUY))[0] == ("accepted", "")


@pytest.mark.parametrize(
    ("limit", "value", "code"),
    [
        (AccountLimit.MAX_QTY, 2, 403),
        (AccountLimit.MAX_NOTIONAL, 9900 * 3 - 1, 404),
        (AccountLimit.MAX_OPEN_ORDERS, 1, 405),
        (AccountLimit.MAX_POSITION, 5, 406),
    ],
)
def test_a_limit_is_told_and_refuses_with_its_own_code(
    desk: Bench, limit: AccountLimit, value: int, code: int
) -> None:
    client = desk.log_on()
    home = shard_of_name("AAPL", desk.config.shards)
    admin(desk, account_limit(1, "AAPL", limit, value), [home])
    (told,) = desk.heard(client)
    assert (told["type"], told["reason"], told["symbol"]) == ("account", "limits", "AAPL")
    assert (told["limit"], told["value"]) == (limit.name.lower(), value)
    answers = [*desk.say(client, BUY), *desk.say(client, BUY)]
    refused = [line for line in answers if line["type"] == "rejected"]
    assert [line["code"] for line in refused] == [code] * len(refused)
    assert refused
    assert all(line["text"] for line in refused)


def test_limits_says_where_the_account_stands(desk: Bench) -> None:
    client = desk.log_on()
    home = shard_of_name("AAPL", desk.config.shards)
    (before,) = desk.say(client, {"type": "limits"})
    assert before["account"] == {"blocked": False, "blocked_sessions": [], "instruments": []}
    admin(desk, account_limit(1, "AAPL", AccountLimit.MAX_POSITION, 9), [home])
    desk.say(client, BUY)
    admin(desk, kill_switch(1, KillAction.BLOCK))
    admin(desk, kill_switch(1, KillAction.BLOCK, "later"))
    desk.heard(client)
    (after,) = desk.say(client, {"type": "limits"})
    row = {"symbol": "AAPL", "max_qty": 0, "max_notional": 0, "max_open_orders": 0}
    row |= {"max_position": 9, "position": 0, "open_orders": 1, "open_buys": 3, "open_sells": 0}
    assert after["account"] == {
        "blocked": True,
        "blocked_sessions": ["later"],
        "instruments": [row],
    }


def test_limits_of_a_gateway_that_cannot_look_says_nothing_of_it() -> None:
    with bench() as made:
        client = made.log_on()
        (answer,) = made.say(client, {"type": "limits"})
        assert "account" not in answer
