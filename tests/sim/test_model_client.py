"""What the simulation's client takes for the answer to which request."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sim.model_client import ANSWER_NS, Identity, ModelClient, Pending
from tests.sim.sim_net import Link
from tests.sim.sim_time import SimTime

ORDER, FIRST, SECOND = 2, 3, 4
CANCELED = {"seq": 8, "shard": 1, "id": ORDER, "reason": "client", "leaves": "0"}


def refused(number: int, code: int) -> dict[str, Any]:
    return {"type": "rejected", "seq": 0, "session": "s", "id": number, "code": code}


def logon(**seq: int) -> dict[str, Any]:
    numbers = {shard[1:]: number for shard, number in seq.items()}
    return {"type": "logon", "seq": numbers, "last_id": FIRST, "incarnation": 1}


def cut(link: Link) -> None:
    link.cut = True


def cancel(number: int) -> Pending:
    return Pending(number, "cancel", 1, ORDER, b"{}\n")


@pytest.fixture
def client() -> ModelClient:
    """It comes back, but not yet the shard to which it has sent a cancel before."""
    observer: Any = SimpleNamespace(clock=SimTime(), digest=None, stories=[])
    net: Any = SimpleNamespace(connect=lambda: Link(1), cut=cut, receive=lambda link: b"")
    identity = Identity("a1", 1, "s", ["AAA"], [1])
    made = ModelClient(net, observer, identity, random.Random(1))
    made.resume_share, made.told, made.last_id = 1.0, {0: 5, 1: 7}, FIRST
    made.connect()
    made.pending[FIRST] = cancel(FIRST)
    made._send(made.pending[FIRST])
    made.connect()
    made._line(logon(s0=9))
    return made


@pytest.mark.parametrize("code", [203, 905])
def test_the_answer_to_what_was_sent_first_is_not_the_answer_to_a_later_request(
    client: ModelClient, code: int
) -> None:
    client._line(refused(FIRST, code))
    client.pending[SECOND] = cancel(SECOND)
    client._send(client.pending[SECOND])
    client._line(logon(s0=9, s1=12))
    client._match("canceled", CANCELED)
    assert (list(client.pending), client.late, client.ran) == ([SECOND], {}, {})


def test_what_was_sent_once_and_refused_by_the_gateway_is_answered(client: ModelClient) -> None:
    client._line(refused(FIRST, 905))
    client.pending[SECOND] = cancel(SECOND)
    client._send(client.pending[SECOND])
    client._line(refused(SECOND, 905))
    assert (client.pending, list(client.late)) == ({}, [FIRST])


@pytest.mark.parametrize(
    ("reason", "left"), [("client", "replace"), ("replaced_below_filled", "cancel")]
)
def test_the_reason_of_a_cancellation_says_what_was_asked(
    client: ModelClient, reason: str, left: str
) -> None:
    client._line(logon(s0=9, s1=12))
    client.pending[SECOND] = Pending(SECOND, "replace", 1, ORDER, b"{}\n")
    client._match("canceled", CANCELED | {"reason": reason})
    assert [request.kind for request in client.pending.values()] == [left]


def test_nothing_is_sent_behind_a_cut(client: ModelClient) -> None:
    link = client.link
    assert link is not None
    sent = bytes(link.up)
    client.clock.pass_(ANSWER_NS + 1)
    assert client.step(act=True) == 0
    assert (link.cut, bytes(link.up)) == (True, sent)
