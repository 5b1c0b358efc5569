"""The client library against a running exchange: every verb, every class of refusal, two loops."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal

import pytest

from gateway.client import Client
from gateway.client_async import AsyncClient
from gateway.client_errors import (
    AuthenticationError,
    BadSymbol,
    ConnectionLost,
    InvalidOrder,
    OrderImmediatelyFillable,
    OrderNotFillable,
    OrderNotFound,
)
from tests.system.running import Running, running_exchange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_exchange(tmp_path_factory.mktemp("client")) as running:
        yield running


def test_every_verb_of_the_client(exchange: Running) -> None:
    with exchange.client(session="verbs") as client:
        bid = client.limit("MSFT", "buy", 10, "415.20")
        assert (bid.status, bid.remaining, bid.price) == ("open", 10, Decimal("415.20"))
        assert client.replace(bid, qty=7).remaining == 7
        assert client.order(bid).amount == 7
        moved = client.replace(bid, price="415.30", qty=9)
        assert (moved.price, moved.remaining) == (Decimal("415.30"), 9)
        sale = client.market("MSFT", "sell", 4)
        assert (sale.status, sale.average) == ("filled", Decimal("415.30"))
        assert [(r.role, r.id) for r in client.reports(0.5)] == [("maker", bid.id)]
        book = client.book("MSFT")
        assert (book.bids[0].price, book.bids[0].qty) == (Decimal("415.30"), 5)
        assert [order.order_id for order in client.open_orders("MSFT")] == [bid.order_id]
        assert client.cancel(id=bid.id, symbol="MSFT").status == "canceled"
        assert {row.symbol for row in client.instruments()} >= {"AAPL", "MSFT"}
        assert client.limits()["limits"]["line_bytes_max"] == 2048
        assert client.gaps == []


def test_every_refusal_has_its_class(exchange: Running) -> None:
    with exchange.client(session="refuse") as client:
        with pytest.raises(InvalidOrder, match="OFF_TICK"):
            client.limit("MSFT", "buy", 1, "1.001")
        with pytest.raises(OrderNotFound):
            client.cancel(16_777_216 * 99, symbol="MSFT")
        with pytest.raises(OrderNotFillable):
            client.market("ETHUSDT", "buy", 1)
        ask = client.limit("ETHUSDT", "sell", 1, "2650")
        with pytest.raises(OrderImmediatelyFillable):
            client.limit("ETHUSDT", "buy", 1, "2650", post_only=True)
        with pytest.raises(OrderNotFillable):
            client.limit("ETHUSDT", "buy", 2, "2650", tif="fok")
        client.cancel(ask)
        with pytest.raises(BadSymbol):
            client.book("NOSUCH")
    with pytest.raises(AuthenticationError):
        Client(port=exchange.port, account="demo", token="wrong").connect()


def test_open_orders_come_whole_over_many_pages(exchange: Running) -> None:
    with exchange.client("agents", session="pages") as client:
        for number in range(25):
            client.limit("BTCUSDT", "buy", "0.001", 100 + number)
        found = client.open_orders("BTCUSDT", page=10)
        assert [int(order.price or 0) for order in found] == [100 + n for n in range(25)]
        assert len(client.mass_cancel(symbol="BTCUSDT")) == 25
        assert client.open_orders("BTCUSDT") == []


def test_a_second_logon_takes_the_session_over(exchange: Running) -> None:
    with exchange.client("bob", session="twice") as first:
        used = first.limit("MSFT", "buy", 1, "1.00")
        with exchange.client("bob", session="twice") as second:
            assert second.limit("MSFT", "buy", 1, "1.00").id == int(used.id) + 1
            second.mass_cancel(symbol="MSFT")
            with pytest.raises(ConnectionLost, match="taken this session over"):
                first.limit("MSFT", "buy", 1, "1.00")


async def test_asyncio_client_trades_with_itself_in_many_tasks(exchange: Running) -> None:
    port, agent = exchange.port, {"account": "agents", "token": "agents"}
    async with (
        AsyncClient(port=port, session="one", receipts=True, **agent) as one,  # type: ignore[arg-type]
        AsyncClient(port=port, account="alice", token="alice") as other,
    ):
        sells = await asyncio.gather(*(one.limit("AAPL", "sell", 1, "187.50") for _ in range(50)))
        assert all(order.status == "open" for order in sells)
        receipt = sells[0].reports[0].receipt
        assert list(receipt) == sorted(receipt)
        assert len(receipt) == 4
        buy = await other.limit("AAPL", "buy", 60, "187.50", tif="ioc")
        assert (buy.status, buy.filled) == ("expired", 50)
        makers = 0
        async for report in one.reports():
            makers += report.role == "maker"
            if makers == 50:
                break
        assert one.gaps == other.gaps == []
