"""Throttles: rates become intervals, two buckets, and limits that tell what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.records import RejectCode
from gateway.session import interval_ns
from tests.gateway.support import Bench, bench
from tests.gateway.test_session import codes, kinds, order


@pytest.fixture
def desk() -> Iterator[Bench]:
    with bench() as made:
        yield made


def test_interval_of_a_rate() -> None:
    assert (interval_ns(0), interval_ns(500), interval_ns(1)) == (0, 2_000_000, 10**9)


def test_over_the_rate_is_refused_and_far_over_logged_out() -> None:
    with bench() as made:
        client = made.log_on("slow")
        results: list[Any] = []
        for number in range(1, 10):
            results += [a.get("code") or a["type"] for a in made.say(client, order(number))]
        assert results == ["accepted", "booked"] * 5 + [206, 206, "logout"]
        assert client.hung_up


def test_cancels_have_a_bucket_of_their_own(desk: Bench) -> None:
    client = desk.log_on("slow")
    for number in range(1, 7):
        last = desk.say(client, order(number))
    assert codes(last) == [RejectCode.THROTTLED]
    for number in range(1, 6):
        answers = desk.say(
            client, {"type": "cancel", "symbol": "AAPL", "target_id": number, "id": 100 + number}
        )
        assert kinds(answers) == ["canceled"]


def test_reconnecting_does_not_refill_the_bucket(desk: Bench) -> None:
    client = desk.log_on("slow")
    for number in range(1, 6):
        desk.say(client, order(number))
    desk.desk.on_lost(client)
    desk.settle()
    assert codes(desk.say(desk.log_on("slow"), order(10))) == [RejectCode.THROTTLED]


def test_limits_tell_what_is_left(desk: Bench) -> None:
    client = desk.log_on("slow")
    before = desk.say(client, {"type": "limits"})[0]["throttle"]
    desk.say(client, order(1))
    after = desk.say(client, {"type": "limits"})[0]["throttle"]
    assert (before["class"], before["orders_per_s"], before["cancels_left"]) == ("slow", 5, 10)
    assert after["orders_left"] < before["orders_left"]
