"""The demo's flow stays on the grid, near its start, and bounded, without an exchange."""

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from cli.flow import OPEN_MAX, START_PRICES, Bot, FlowStats, Market
from gateway.client_core import ClientCore
from gateway.client_reports import InstrumentInfo, report_of

INSTRUMENTS = [
    ("AAPL", "0.01", "1"),
    ("BTCUSDT", "0.01", "0.00001"),
    ("ODD", "0.25", "5"),
    ("BIG", "50", "1"),
]


def market(symbol: str, tick: str, lot: str) -> Market:
    limits = (Decimal(tick), Decimal(lot), Decimal("1000000"))
    return Market.of(InstrumentInfo(symbol, 0, *limits, "continuous", {}))


@pytest.mark.parametrize(("symbol", "tick", "lot"), INSTRUMENTS)
def test_prices_and_sizes_are_multiples_and_positive(
    symbol: str, tick: str, lot: str, seed: int
) -> None:
    chance, made = random.Random(seed), market(symbol, tick, lot)
    for _ in range(300):
        price = made.on_grid(made.price * chance.uniform(0, 2))
        size = made.size(chance)
        assert price > 0
        assert price % Decimal(tick) == 0
        assert size > 0
        assert size % Decimal(lot) == 0


def test_the_price_wanders_but_comes_back(seed: int) -> None:
    chance, made = random.Random(seed), market("AAPL", "0.01", "1")
    seen = []
    for _ in range(24 * 3600):
        made.wander(1.0, chance)
        seen.append(made.price)
    start = float(START_PRICES["AAPL"])
    assert len({round(price, 2) for price in seen}) > 5
    assert all(abs(price / start - 1) < 0.01 for price in seen)


class DeskClient:
    """Everything that is sent rests at once, cancels always work."""

    def __init__(self) -> None:
        self.core = ClientCore("agents", "agents", session="flow")
        self.sent: list[dict[str, Any]] = []

    def send_nowait(self, line: dict[str, Any]) -> None:
        self.sent.append(line)

    def answers(self) -> Iterator[dict[str, Any]]:
        for line in self.sent:
            head = {"seq": 0, "session": "flow", "symbol": line["symbol"], "qty": "1"}
            if line["type"] == "cancel":
                yield {**head, "type": "canceled", "id": line["target_id"], "leaves": "0"}
            elif line.get("tif") == "ioc":
                yield {**head, "type": "expired", "id": line["id"], "leaves": "0"}
            else:
                yield {**head, "type": "accepted", "id": line["id"], "leaves": "1"}
                yield {**head, "type": "booked", "id": line["id"], "leaves": "1"}
        self.sent = []


def test_a_bot_keeps_its_open_orders_bounded_and_both_sides_quoted(seed: int) -> None:
    markets = {name: market(name, tick, lot) for name, tick, lot in INSTRUMENTS[:2]}
    client = DeskClient()
    bot = Bot(client, markets, FlowStats(), random.Random(seed))  # type: ignore[arg-type]
    for _ in range(4000):
        bot.act()
        for line in client.answers():
            bot._take(report_of(line))
        for symbol in markets:
            assert sum(order.symbol == symbol for order in bot.open.values()) <= OPEN_MAX
    assert {(order.symbol, order.side) for order in bot.open.values()} == {
        (symbol, side) for symbol in markets for side in ("buy", "sell")
    }
    assert bot.stats.sent == 4000


def test_a_bot_ignores_orders_placed_by_hand_on_its_account(seed: int) -> None:
    client = DeskClient()
    stats = FlowStats()
    markets = {"AAPL": market("AAPL", "0.01", "1")}
    bot = Bot(client, markets, stats, random.Random(seed))  # type: ignore[arg-type]
    hand = {"type": "booked", "seq": 3, "session": "term", "symbol": "AAPL", "id": 1}
    bot._take(report_of(hand))
    assert bot.open == {}
    assert stats.reports == 1
