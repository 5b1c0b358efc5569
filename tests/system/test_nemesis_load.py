"""The load clients survive cuts, BUSY and repetitions by the rules, and load and checker together
see what a faulty exchange does. Against a stand-in (fake_exchange.py): seconds, no real exchange.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.system.checker.expect import Expect
from tests.system.checker.findings import Findings
from tests.system.checker.run import check_run
from tests.system.fake_exchange import FakeExchange
from tests.system.nemesis.flow import Flow
from tests.system.nemesis.load import Load, wait_for
from tests.system.nemesis.settings import Settings

REQUESTS, SECONDS_MAX = 1200, 30.0


async def played(
    folder: Path, seed: int, cut: float, busy: float, fault: str = ""
) -> tuple[Findings, FakeExchange, Load, str]:
    """Load against the stand-in; what the checker says, and what each side counted."""
    settings = Settings(seed=seed, rate=300, resume=True)
    fake = FakeExchange(settings.accounts, seed, cut, busy, fault)
    settings.port = await fake.start()
    orders = asyncio.StreamReader()
    load = Load(settings, folder)
    Expect(accounts=settings.accounts, flat=not fault).write(folder / "expect.json")
    serving = asyncio.create_task(load.run(orders))
    await wait_for(lambda: fake.did["requests"] >= REQUESTS, SECONDS_MAX)
    fake.cut = fake.busy = 0.0
    orders.feed_data(b"end\n")
    code = await asyncio.wait_for(serving, 60)
    await fake.stop(folder / "data")
    return check_run(folder), fake, load, "" if code == 0 else "the load did not come to its end"


slow = pytest.mark.slow  # two seconds of load each


def counts_of(load: Load, name: str) -> int:
    return sum(client.flow.counts[name] for client in load.clients)


@slow
async def test_quiet_run_has_no_violation(tmp_path: Path) -> None:
    findings, fake, load, problem = await played(tmp_path, 1, cut=0.0, busy=0.0)
    assert problem == ""
    assert findings.good, findings.text()
    assert fake.did["cuts"] == 0
    assert findings.counts["orders"] > 500
    assert sum(client.connections for client in load.clients) == 2 * len(load.clients)


@slow
async def test_cut_connections_and_busy_lose_nothing(tmp_path: Path) -> None:
    findings, fake, load, problem = await played(tmp_path, 2, cut=0.004, busy=0.02)
    assert problem == ""
    assert findings.good, findings.text()
    assert fake.did["cuts"] > 5
    assert fake.did["busy"] > 10
    assert fake.did["repetitions"] > 0
    assert counts_of(load, "sent again") > 20
    assert counts_of(load, "resumes refused") == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("runs twice", "id_executed_twice"),
        ("forgets the journal", "ack_not_in_journal"),
        ("loses a report", "report_gap"),
        ("sends a report twice", "report_doubled"),
    ],
)
@slow
async def test_faulty_exchange_is_seen(fault: str, kind: str, tmp_path: Path) -> None:
    findings, _, _, _ = await played(tmp_path, 3, cut=0.006, busy=0.0, fault=fault)
    assert findings.totals[kind], findings.text()


def test_same_seed_makes_the_same_requests() -> None:
    def requests(seed: int) -> list[dict[str, object]]:
        flow = Flow("demo", "n0", seed)
        flow.logged_on = True
        return [flow.request(1.0) for _ in range(50)]

    assert requests(7) == requests(7)
    assert requests(7) != requests(8)


def test_refused_request_is_repeated_before_anything_new() -> None:
    flow = Flow("demo", "n0", 1)
    flow.take({"type": "logon", "seq": {"0": 1}, "shards": 1, "last_id": 0}, 1.0)
    lines = [flow.request(1.0) for _ in range(5)]
    asked = [line for line in lines if "id" in line]
    for line in asked[1:]:
        flow.take({"type": "rejected", "seq": 0, "id": line["id"], "code": 901}, 1.0)
    assert not flow.may_ask
    assert flow.repeats(1.0) == []
    assert flow.repeats(2.0) == asked[1:]
    assert flow.may_ask


def test_refused_repetition_of_an_answered_request_is_sent_once_more() -> None:
    flow = Flow("demo", "n0", 1)
    flow.take({"type": "logon", "seq": {"0": 1}, "shards": 1, "last_id": 0}, 1.0)
    line = next(line for line in iter(lambda: flow.request(1.0), None) if "id" in line)
    report = {"seq": 2, "shard": 0, "session": "n0", "id": line["id"]}
    flow.take(report | {"type": "accepted"}, 1.0)
    flow.take({"type": "rejected", "seq": 0, "id": line["id"], "code": 901}, 1.0)
    assert line in flow.repeats(2.0)


def test_resume_names_the_last_report_of_every_shard() -> None:
    flow = Flow("demo", "n0", 1)
    assert "resume" not in flow.logon()
    flow.take({"type": "logon", "seq": {"0": 4, "1": 9}, "shards": 2, "incarnation": 3}, 1.0)
    flow.take({"type": "summary", "seq": 5, "shard": 0, "session": "other"}, 1.0)
    again = flow.logon()
    assert (again["resume"], again["incarnation"]) == ("0:5,1:9", 3)
    flow.take({"type": "rejected", "seq": 0, "code": 207}, 1.0)
    assert "resume" not in flow.logon()
