"""The options of the full rules over a running exchange: orders in over TCP, the right reports back
through both clients and the terminal.
"""

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cli.client import Terminal, UsageError
from engine.config import Instrument, Journal, Protection
from gateway.client import Client
from gateway.client_async import AsyncClient
from gateway.client_errors import ExchangeError, InvalidOrder, OrderNotFound, RiskLimitExceeded
from gateway.client_reports import Order
from tests.system.small import running, small_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
GOLD = Instrument("GOLD", rules="full", stp="expire_taker", protection=5)
FEED_PORT = 19_470


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory: Path = tmp_path_factory.mktemp("options")
    config = small_config(
        "optlive",
        FEED_PORT,
        instruments=(Instrument("AAPL"), GOLD),
        protections=(Protection("bob", "GOLD", 3, 600_000),),
        journal=Journal(directory=str(directory)),
    )
    with running(config) as handle:
        yield handle.config.network.port


@pytest.fixture
def alice(port: int) -> Iterator[Client]:
    with Client(port=port, account="alice", token="alice", timeout_s=20) as client:
        yield client


@pytest.fixture
def bob(port: int) -> Iterator[Client]:
    with Client(port=port, account="bob", token="bob", timeout_s=20) as client:
        yield client
        client.mass_cancel()


def followed(client: Client, order: Order, seconds: float = 1.0) -> Order:
    """The order after all that comes in that time; at once when it has ended."""
    for report in client.reports(seconds):
        order = order.follow(report)
        if order.status != "open":
            break
    return order


def test_iceberg_shows_its_slices(alice: Client, bob: Client) -> None:
    order = alice.limit("GOLD", "sell", 25, "12.50", peak=10)
    assert (order.shown, order.peak) == (10, 10)
    time.sleep(0.05)
    assert [level.qty for level in bob.book("GOLD").asks] == [10]
    assert bob.limit("GOLD", "buy", 12, "12.50", tif="ioc").average == Decimal("12.50")
    order = followed(alice, order)
    assert (order.remaining, order.filled, order.shown) == (13, 12, 8)
    order = alice.replace(order, peak=5, qty=20)
    assert (order.remaining, order.shown) == (8, 5)
    assert alice.cancel(order).status == "canceled"


def test_hidden_minimum_slide_and_own_limits(alice: Client, bob: Client) -> None:
    hidden = alice.limit("GOLD", "sell", 4, "12.50", hidden=True)
    assert (hidden.shown, hidden.remaining) == (0, 4)
    assert bob.book("GOLD").asks == []
    short = bob.limit("GOLD", "buy", 9, "12.50", min_qty=5)
    assert (short.status, short.reports[-1].reason) == ("expired", "minimum")
    slid = bob.limit("GOLD", "buy", 9, "12.60", slide=True)
    assert slid.price == Decimal("12.49")
    bob.cancel(slid)
    taken = bob.place("GOLD", "buy", 1, order_type="market_to_limit")
    assert (taken.type, taken.price, taken.status) == (
        "market_to_limit",
        Decimal("12.50"),
        "filled",
    )
    assert bob.market("GOLD", "buy", 1, protected=True).filled == 1
    alice.cancel(hidden)


def test_gtd_order_expires_at_its_time(alice: Client) -> None:
    end = time.time_ns() + 700_000_000
    order = alice.limit("GOLD", "buy", 5, "11.00", tif="gtd", expire_time=end)
    assert (order.status, order.tif) == ("open", "gtd")
    order = followed(alice, order, 10.0)
    last = order.reports[-1]
    assert (order.status, last.reason, last.qty) == ("expired", "gtd", 5)
    assert last.ts >= end
    with pytest.raises(InvalidOrder, match="EXPIRY_PAST"):
        alice.limit("GOLD", "buy", 5, "11.00", tif="gtd", expire_time=end)


def test_self_trade_is_prevented_by_the_instruments_mode_and_by_the_orders(alice: Client) -> None:
    resting = alice.limit("GOLD", "sell", 10, "12.50")
    stopped = alice.limit("GOLD", "buy", 4, "12.50")  # the instrument's: expire_taker
    assert (stopped.status, stopped.reports[-1].reason) == ("expired", "self_trade")
    less = alice.limit("GOLD", "buy", 4, "12.50", stp="decrement")
    assert (less.status, less.prevented, less.filled) == ("expired", 4, 0)
    resting = followed(alice, resting)
    assert (resting.remaining, resting.prevented) == (6, 4)
    assert alice.order(resting).prevented == 4
    alice.cancel(resting)


def test_stop_waits_for_its_price(alice: Client, bob: Client) -> None:
    options = {"order_type": "stop_limit", "trigger": "12.20", "trigger_on": "last"}
    bob.limit("GOLD", "sell", 1, "12.50")
    bob.limit("GOLD", "buy", 1, "12.50", stp="none")
    stop = alice.limit("GOLD", "sell", 2, "12.10", **options)
    assert (stop.status, stop.shown, stop.type) == ("open", 0, "stop_limit")
    stop = alice.replace(stop, trigger="12.30")
    with pytest.raises(InvalidOrder, match="TRIGGER_TRUE"):
        alice.replace(stop, trigger="12.60")
    bob.limit("GOLD", "sell", 1, "12.30")
    bob.limit("GOLD", "buy", 1, "12.30", stp="none")
    stop = followed(alice, stop)
    assert [report.type for report in stop.reports][-2:] == ["triggered", "booked"]
    assert (stop.reports[-2].trigger, stop.shown) == (Decimal("12.30"), 2)
    alice.cancel(stop)


def test_budget_buys_what_it_is_worth(alice: Client, bob: Client) -> None:
    for price in ("12.50", "12.60"):
        alice.limit("GOLD", "sell", 2, price)
    order = bob.market("GOLD", "buy", budget="38.00")
    assert (order.type, order.status, order.filled) == ("budget", "filled", 3)
    assert order.cost == Decimal("37.60")
    with pytest.raises(ExchangeError, match="BUDGET"):
        bob.place("GOLD", "buy", 1, budget="12.59", tif="fok")
    terminal = Terminal(bob, colour=False)
    assert "fill" in "".join(terminal.do("buy GOLD budget=20"))
    alice.mass_cancel()


def test_quote_is_entered_changed_filled_and_pulled(alice: Client, bob: Client) -> None:
    quote = alice.quote("GOLD", "12.40", 5, "12.60", 5)
    assert quote.bid is not None
    assert quote.ask is not None
    assert (quote.bid.shown, quote.ask.shown, quote.bid.tif) == (5, 5, "day")
    quote = alice.quote("GOLD", "12.40", 4, "12.61", 5)
    assert bob.limit("GOLD", "sell", 1, "12.40", tif="ioc").filled == 1
    for report in alice.reports(0.5):
        quote = quote.follow(report)
    assert quote.bid is not None
    assert (quote.bid.remaining, quote.bid.filled) == (3, 1)
    with pytest.raises(InvalidOrder, match="QUOTE_CROSSED"):
        alice.quote("GOLD", "12.61", 1, "12.61", 1)
    # The configuration protects bob's: 3 lots in ten minutes.
    bob.quote("GOLD", "12.50", 5, "12.70", 5)
    assert alice.limit("GOLD", "sell", 4, "12.50", tif="ioc").filled == 4
    seen = {report.type for report in bob.reports(1.0)}
    assert seen >= {"fill", "mmp_fired", "canceled"}
    with pytest.raises(RiskLimitExceeded, match="MMP_ACTIVE"):
        bob.quote("GOLD", "12.50", 5)
    gone = alice.quote("GOLD")
    assert gone.bid is not None
    assert gone.bid.status == "canceled"
    with pytest.raises(OrderNotFound):
        alice.quote("GOLD")


def test_plain_instruments_know_none_of_it(alice: Client) -> None:
    with pytest.raises(ExchangeError, match="NOT_SUPPORTED_HERE"):
        alice.limit("AAPL", "buy", 10, "100", peak=5)
    rules = {row.symbol: row.rules for row in alice.instruments()}
    assert (rules["AAPL"], rules["GOLD"]) == ("plain", "full")


async def test_async_client_has_the_same_options(port: int) -> None:
    async with AsyncClient(port=port, account="demo", token="demo", timeout_s=20) as client:
        order = await client.limit("GOLD", "buy", 10, "10.00", peak=5, tif="day")
        order = await client.replace(order, peak=2, tif="gtc")
        assert (order.peak, order.shown) == (2, 2)
        await client.cancel(order)
        quote = await client.quote("GOLD", bid="10.00", bid_qty=2)
        assert quote.ask is None
        assert quote.bid is not None
        assert (quote.bid.shown, quote.bid.remaining) == (2, 2)
        await client.quote("GOLD")


def test_terminal_takes_the_options(alice: Client) -> None:
    terminal = Terminal(alice, colour=False)
    lines = list(terminal.do("buy 10 GOLD 10.00 day peak=4"))
    assert any("shown 4" in line for line in lines)
    number = alice.core.last_id
    assert "shown 3" in "".join(terminal.do(f"replace {number} peak=3 tif=gtc"))
    assert "self_trade" in "".join(terminal.do("sell 1 GOLD 10.00 stp=expire_taker"))
    assert any("full" in line for line in terminal.do("instruments"))
    assert "accepted" in "".join(terminal.do("buy 1 GOLD 99 trailing_stop_limit bps=50"))
    assert "accepted" in "".join(terminal.do("sell 1 GOLD stop trigger=1 on=best"))
    number = alice.core.last_id
    assert "replaced" in "".join(terminal.do(f"replace {number} trigger=2"))
    told = "".join(terminal.do("quote GOLD 5@10.00 5@99.00"))
    assert told.count("accepted") == told.count("booked") == 2
    assert "canceled" in "".join(terminal.do("quote GOLD - 5@99.00"))
    assert "canceled" in "".join(terminal.do("quote GOLD"))
    for wrong in (
        "quote",
        "quote GOLD 5",
        "quote GOLD 5@1 5@2 5@3",
        "buy 1 GOLD 10 peek=4",
        "buy 1 GOLD 10 gtd until=soon",
        "replace 1 peek=4",
        "sell 1 GOLD trailing_stop bps=1.5",
    ):
        with pytest.raises(UsageError):
            list(terminal.do(wrong))
    alice.mass_cancel()
