"""How long each fault was felt, from the logs alone: until a request made after it was accepted.

A report that was on its way when the fault struck says nothing; so the request must have been sent
later than the fault. For a shard it must be that shard's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import zip_longest

from tests.system.checker.capture import Datagram
from tests.system.checker.feed import MOLD
from tests.system.checker.logs import ClientLogs
from tests.system.nemesis.faults import Fault
from tests.system.nemesis.settings import PROCESS_NAMES

NS = 10**9
COUNT_AT = 18


def measure(faults: list[Fault], logs: ClientLogs, datagrams: list[Datagram]) -> None:
    """Fill in recovery_s and feed_s of all faults."""
    accepted = _accepted(logs)
    news = [
        d.t for d in datagrams if len(d.data) >= MOLD.size and any(d.data[COUNT_AT : MOLD.size])
    ]
    for fault, following in zip_longest(faults, faults[1:]):
        hit = fault.names[0].removeprefix(PROCESS_NAMES["shard"])
        shard = int(hit) if hit.isdigit() else None
        after = [
            answered
            for sent, answered, of_shard in accepted
            if sent > fault.t and shard in (None, of_shard)
        ]
        fault.recovery_s = (min(after) - fault.t) / NS if after else -1.0
        fault.overtaken = following is not None and min(after, default=math.inf) > following.t
        place = bisect_right(news, fault.t)
        fault.feed_s = (news[place] - fault.t) / NS if place < len(news) else -1.0


def _accepted(logs: ClientLogs) -> list[tuple[int, int, int]]:
    # (first sent, accept heard, shard) of every accepted request of the client that sent it.
    found = []
    for connection in logs.connections:
        for line in connection.lines:
            message = line.message
            if line.direction != "in" or message["type"] != "accepted":
                continue
            if message.get("session") == connection.session and "id" in message:
                sent = logs.requests.get((*connection.owner, message["id"]))
                if sent:
                    found.append((sent[0].t, line.t, message["shard"]))
    return found
