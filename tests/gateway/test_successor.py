"""One session, two connections: what the older one still sends when the newer one has logged on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from engine.records import COMMAND, EVENT, CommandKind, EventKind, RejectCode
from tests.gateway.support import Bench, bench

LOGON = {"type": "logon", "account": "demo", "token": "demo"}
ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "price": "100", "id": 1}


@pytest.fixture
def desk() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.mark.parametrize("late", ["order", "close"])
def test_what_an_older_connection_still_sends_is_not_answered_to_its_successor(
    desk: Bench, late: str
) -> None:
    """Its client has sent it again there: the refusal would pass for the answer to that."""
    witness, older = desk.log_on(session="b"), desk.log_on()
    desk.heard(witness)
    newer = desk.connect()
    desk.feed(newer, orjson.dumps(LOGON) + b"\n")
    if late == "order":
        desk.feed(older, orjson.dumps(ORDER) + b"\n")
    else:
        desk.desk.on_lost(older)
        desk.desk.tick()
    desk.settle()
    assert [line["type"] for line in desk.heard(newer)] == ["logon"]
    assert [line["type"] for line in desk.heard(witness)] == ["account"]
    last = {CommandKind.NEW: "order", CommandKind.SESSION_CLOSE: "close"}
    assert last[desk.exchange.seen[-1]["kind"]] == late
    (taken, booked) = desk.say(newer, ORDER)
    assert (taken["type"], booked["seq"]) == ("accepted", taken["seq"] + 1)
    assert desk.heard(witness)[0]["seq"] == taken["seq"]


def test_refusal_to_the_supervisor_with_the_number_of_a_logon_is_not_taken_for_it(
    desk: Bench,
) -> None:
    # Numbers count per ring: an operator's command may have that of a SESSION_OPEN under way.
    client = desk.connect()
    desk.feed(client, b'{"type":"logon","account":"demo","token":"demo"}\n')
    desk.desk.pump()
    ((shard, sequence),) = desk.desk.sessions.opening
    refusal = np.zeros(1, EVENT)
    refusal["kind"], refusal["code"] = EventKind.REJECTED, RejectCode.NOT_IN_PHASE
    refusal["client_order_id"] = time.time_ns()
    command = np.zeros(1, COMMAND)
    command["producer_seq"] = sequence
    desk.exchange._publish(shard, refusal, command[0])
    desk.settle()
    (answer,) = desk.heard(client)
    assert (answer["type"], client.hung_up) == ("logon", False)
