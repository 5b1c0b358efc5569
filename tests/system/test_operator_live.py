"""A market that opens and closes by its calendar, and an operator at its door: a real exchange,
with real processes and commands.

The calendar's times lie a few seconds behind the start, so one exchange goes through a whole day.
Where the machine is too busy to be up by then, the day is tried again, later.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from engine.background import Handle, start_in_background
from engine.config import Instrument, Journal
from gateway.client import Client
from gateway.client_errors import ExchangeError
from gateway.client_reports import Order
from tests.system.small import child_of, running, small_config, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
NAME, FEED_PORT = "oplive", 19_530
SECOND = 10**9
STEP_S = 2  # between two turns
LEADS_S = (8, 16, 40)  # from the configuration to the first turn
GOLD = Instrument("GOLD", rules="full", calendar=("06:00 pre_open", "18:00 continuous"))
FREE = Instrument("FREE", rules="full", static_band=1000, reference="10.00")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """A command as a person or a script runs it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=ROOT, capture_output=True, text=True,
        timeout=100, check=False, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


def operator(*words: str) -> subprocess.CompletedProcess[str]:
    return command("operator", *words, "--instance", NAME)


@dataclass
class Day:
    """A running exchange and when its instrument GOLD changes its phase, ns since 1970."""

    handle: Handle
    directory: Path
    opening: int
    continuous: int
    closing: int
    closed: int

    def client(self, account: str) -> Client:
        port = self.handle.config.network.port
        return Client(port=port, account=account, token=account, timeout_s=20, reconnect_s=20)

    @property
    def left_s(self) -> float:
        """Until the opening."""
        return (self.opening - time.time_ns()) / SECOND


def calendar(times: list[int]) -> tuple[str, ...]:
    """The lines of a day's calendar, in order of the time of day."""
    names = ("opening_call", "continuous", "closing_call", "closed")
    moments = [datetime.datetime.fromtimestamp(at // SECOND, datetime.UTC) for at in times]
    lines = [f"{at:%H:%M:%S} {name}" for at, name in zip(moments, names, strict=True)]
    return tuple(sorted(lines))


@pytest.fixture
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    for lead_s in LEADS_S:
        directory: Path = tmp_path_factory.mktemp("day")
        first = (time.time_ns() // SECOND + lead_s) * SECOND
        times = [first + STEP_S * SECOND * number for number in range(4)]
        gold = Instrument("GOLD", rules="full", calendar=calendar(times))
        config = small_config(
            f"{NAME}day", FEED_PORT + 10, instruments=(gold,),
            journal=Journal(directory=str(directory)),
        )  # fmt: skip
        handle = start_in_background(config)
        made = Day(handle, directory, *times)
        try:
            if made.left_s > 3 or lead_s == LEADS_S[-1]:
                yield made
                return
        finally:
            handle.stop()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """An exchange that an operator works at."""
    instruments = (GOLD, FREE, Instrument("AAPL"))
    config = small_config(NAME, FEED_PORT, instruments=instruments)
    with running(config) as handle:
        yield handle.config.network.port


@pytest.fixture
def alice(port: int) -> Iterator[Client]:
    with Client(port=port, account="alice", token="alice", timeout_s=20) as client:
        yield client


def followed(client: Client, order: Order, kind: str, due: int) -> Order:
    """The order after the first report of that kind, which is due then."""
    while time.time_ns() < due + 10 * SECOND:
        for report in client.reports(0.05):
            order = order.follow(report)
        if any(report.type == kind for report in order.reports):
            return order
    raise AssertionError(f"no {kind} in time: {[str(report) for report in order.reports]}")


def in_time(at: int, scheduled: int) -> bool:
    """Not early, and not later than a busy machine is."""
    return scheduled <= at < scheduled + 2 * SECOND


def test_auction_orders_live_from_the_calendar_of_the_configuration_alone(day: Day) -> None:
    with day.client("alice") as alice, day.client("bob") as bob:
        (gold,) = [row for row in bob.instruments() if row.symbol == "GOLD"]
        assert gold.phase == "closed"
        with pytest.raises(ExchangeError, match="NOT_IN_PHASE"):
            bob.limit("GOLD", "buy", 1, "10.00", tif="day")
        offer = alice.limit("GOLD", "sell", 5, "10.00")
        at_open = bob.limit("GOLD", "buy", 5, "10.20", tif="at_open")
        ask = alice.limit("GOLD", "sell", 3, "10.30", tif="at_close")
        at_close = bob.limit("GOLD", "buy", 3, "10.50", tif="at_close")
        assert [order.reports[-1].type for order in (offer, at_open, ask, at_close)] == [
            "booked", "parked", "parked", "parked",
        ]  # fmt: skip
        assert day.left_s > 0, "the machine is too busy for this test"

        at_open = followed(bob, at_open, "fill", day.continuous)
        joined, fill = (
            next(report for report in at_open.reports if report.type == kind)
            for kind in ("activated", "fill")
        )
        assert in_time(joined.ts, day.opening)
        assert in_time(fill.ts, day.continuous)
        assert (fill.role, fill.qty, at_open.status) == ("auction", 5, "filled")
        assert offer.follow(fill) is offer

        # The shard dies; the next turn is its successor's.
        os.kill(child_of(day.handle, "shard0"), signal.SIGKILL)
        at_close = followed(bob, at_close, "fill", day.closed)
        joined, fill = (
            next(report for report in at_close.reports if report.type == kind)
            for kind in ("activated", "fill")
        )
        assert in_time(joined.ts, day.closing)
        assert in_time(fill.ts, day.closed)
        assert fill.price in (Decimal("10.30"), Decimal("10.50"))

        def is_closed() -> bool:
            return bob.book("GOLD").raw["phase"] == "closed"

        assert until(is_closed, 10)
    assert day.handle.stop() == 0
    done = command("verify", str(day.directory))  # a replay needs neither calendar nor clock
    assert (done.returncode, "verified" in done.stdout) == (0, True), done.stdout + done.stderr


def test_operator_halts_and_reopens_an_instrument(alice: Client) -> None:
    done = operator("phase", "FREE", "halted")
    assert (done.returncode, done.stdout) == (0, "FREE: continuous -> halted\n"), done.stderr
    with pytest.raises(ExchangeError, match="NOT_IN_PHASE"):
        alice.limit("FREE", "buy", 1, "10.00")
    refused = operator("phase", "FREE", "continuous")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "FREE is halted: it cannot become continuous from there, only through" in (
        refused.stderr
    )
    assert operator("phase", "FREE", "reopening_call").returncode == 0
    order = alice.limit("FREE", "buy", 1, "10.00")
    said = operator("phase", "FREE", "continuous", "--json")
    answer = json.loads(said.stdout)
    assert (answer["ok"], answer["was"], answer["phase"]) == (
        True, "volatility_call", "continuous",
    )  # fmt: skip
    alice.cancel(order)


def test_operator_sets_a_rule_that_clients_feel_at_once(alice: Client) -> None:
    order = alice.limit("FREE", "buy", 1, "10.90")
    alice.cancel(order)
    done = operator("rule", "FREE", "static_band", "500")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the next start sets it back" in done.stdout
    with pytest.raises(ExchangeError, match="STATIC_BAND"):
        alice.limit("FREE", "buy", 1, "10.90")
    refused = operator("rule", "FREE", "static_band", "500000", "--json")
    answer = json.loads(refused.stdout)
    assert (refused.returncode, answer["code"], answer["reason"]) == (3, 103, "out_of_range")


def test_operator_sees_what_is_in_force(port: int) -> None:
    table = operator("instruments").stdout
    assert "GOLD" in table
    assert "pre_open at" in table or "continuous at" in table
    shown = operator("instruments", "GOLD").stdout
    for line in GOLD.calendar:
        assert line in shown
    rows = json.loads(operator("instruments", "--json").stdout)["instruments"]
    assert [row["symbol"] for row in rows] == ["AAPL", "FREE", "GOLD"]
    assert operator("instruments", "NOSUCH").returncode == 3


def test_without_an_exchange_the_operator_is_told_so() -> None:
    lost = command("operator", "instruments", "--instance", "nobody_here")
    assert lost.returncode == 1
    assert "no exchange called 'nobody_here' is running here" in lost.stderr
