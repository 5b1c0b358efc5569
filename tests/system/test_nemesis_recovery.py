"""How long a fault was felt is taken from what clients and the feed recorded."""

from __future__ import annotations

from tests.system.checker.capture import Datagram
from tests.system.checker.logs import ClientLogs, Connection, Line
from tests.system.nemesis.faults import Fault
from tests.system.nemesis.recovery import measure


def test_recovery_ends_with_the_first_accept_of_a_request_made_after_the_fault() -> None:
    logs = ClientLogs([Connection("c", account="demo", session="n0")])
    second = 10**9
    for own, sent, heard, shard in ((1, 1, 12, 0), (2, 11, 15, 1), (3, 11, 16, 0), (4, 30, 31, 0)):
        request = Line("", sent * second, "out", {"id": own})
        logs.requests["demo", "n0", own] = [request]
        accept = {"type": "accepted", "session": "n0", "id": own, "shard": shard}
        logs.connections[0].lines += [request, Line("", heard * second, "in", accept)]
    faults = [
        Fault("gateway", ["rb-gateway0"], 10 * second),
        Fault("shard", ["rb-shard0"], 10 * second),
        Fault("pause", ["rb-shard1"], 14 * second),
        Fault("all", ["supervisor", "rb-shard0"], 20 * second),
        Fault("feed", ["rb-feed0"], 40 * second),
    ]
    measure(faults, logs, [Datagram(17 * second, bytes(20)), Datagram(18 * second, b"1" * 20)])
    assert [fault.recovery_s for fault in faults] == [5, 6, -1, 11, -1]
    assert [fault.feed_s for fault in faults] == [8, 8, 4, -1, -1]
    assert [fault.overtaken for fault in faults] == [True, True, True, False, False]
