"""Generated order flow for the demo: a few accounts that quote and trade around wandering prices.
Cold.

Every bot is an ordinary AsyncClient. Prices wander (a random walk, pulled gently back); most
requests quote near the price with sizes spread like real ones, old quotes are taken back, and now
and then somebody crosses the spread. So the books stay two-sided and bounded (`OPEN_MAX` orders per
bot and symbol) for as long as the demo runs. Nothing here is part of the exchange.
"""

import asyncio
import math
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal

from gateway.client_answers import Line
from gateway.client_async import AsyncClient
from gateway.client_errors import RingbookError
from gateway.client_reports import (
    Accepted,
    Booked,
    Canceled,
    Expired,
    Fill,
    InstrumentInfo,
    Rejected,
    Report,
)

TICK_S = 0.02
OPEN_MAX = 60
START_PRICES = {"AAPL": "187.40", "MSFT": "415.20", "BTCUSDT": "61200", "ETHUSDT": "2650"}
OTHER_PRICE = "100"
TYPICAL_VALUE = 3000.0  # what a typical order is worth
WANDER = 4e-5  # standard deviation of the price per second, as a share of it
PULL = 0.01  # share of the distance from the start taken back per second
STEP_SHARE = 2e-5  # quotes lie on a grid of about this share of the price
TAPE_KEPT = 400
LATENCIES_KEPT = 2000


@dataclass
class Market:
    """One symbol as the bots imagine it."""

    info: InstrumentInfo
    start: float
    price: float
    step: Decimal  # quotes are multiples of it

    @classmethod
    def of(cls, info: InstrumentInfo) -> "Market":
        """Choose a start price and a grid for an instrument."""
        start = Decimal(START_PRICES.get(info.symbol, OTHER_PRICE))
        if info.max_price:
            start = min(start, info.max_price / 2)
        step = info.tick
        for factor in (2, Decimal("2.5"), 2) * 12:
            if step * factor > start * Decimal(STEP_SHARE):
                break
            step *= factor
        return cls(info, float(start), float(start), max(step - step % info.tick, info.tick))

    def wander(self, seconds: float, chance: random.Random) -> None:
        """Move the price."""
        self.price *= 1 + chance.gauss(0, WANDER * math.sqrt(seconds))
        self.price += (self.start - self.price) * PULL * seconds

    def on_grid(self, price: float) -> Decimal:
        """Give the nearest quotable price."""
        steps = (Decimal(price) / self.step).quantize(Decimal(1), ROUND_HALF_EVEN)
        return max(steps, Decimal(1)) * self.step

    def size(self, chance: random.Random) -> Decimal:
        """Draw an order size: log-normal value, often a round number of lots."""
        lots = TYPICAL_VALUE / self.price / float(self.info.lot) * chance.lognormvariate(0, 0.9)
        whole = max(1, round(lots))
        if chance.random() < 0.5:
            unit = 10 ** max(0, int(math.log10(whole)))
            whole = max(unit, round(whole / unit) * unit)
        return whole * self.info.lot


@dataclass
class FlowStats:
    """What all bots did, for the screen."""

    sent: int = 0
    reports: int = 0
    trades: int = 0
    rejects: Counter[int] = field(default_factory=Counter)
    tape: deque[Fill] = field(default_factory=lambda: deque(maxlen=TAPE_KEPT))
    round_trips_ns: deque[int] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    inside_ns: deque[int] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))


@dataclass
class _Open:
    symbol: str
    side: str
    price: Decimal


class Bot:
    """One account's flow."""

    def __init__(
        self,
        client: AsyncClient,
        markets: dict[str, Market],
        stats: FlowStats,
        chance: random.Random,
    ) -> None:
        self.client, self.markets, self.stats, self.chance = client, markets, stats, chance
        self.symbols = list(markets)
        self.open: dict[int, _Open] = {}
        self._placed: dict[int, _Open] = {}
        self._sent_ns: dict[int, int] = {}

    def act(self) -> None:
        """Send one request."""
        market = self.markets[self.chance.choice(self.symbols)]
        symbol = market.info.symbol
        mine = [number for number, order in self.open.items() if order.symbol == symbol]
        draw = self.chance.random()
        if mine and (len(mine) >= OPEN_MAX or draw < 0.36):
            self._cancel(market, mine)
        elif draw < 0.90:
            self._quote(market)
        else:
            self._cross(market)

    def _quote(self, market: Market) -> None:
        side = self.chance.choice(("buy", "sell"))
        away = float(market.step) * (0.6 + self.chance.expovariate(0.28))
        price = market.on_grid(market.price - away if side == "buy" else market.price + away)
        self._place(market, side, price, None)

    def _cross(self, market: Market) -> None:
        side = self.chance.choice(("buy", "sell"))
        reach = float(market.step) * 3
        price = market.on_grid(market.price + reach if side == "buy" else market.price - reach)
        self._place(market, side, price, "ioc")

    def _place(self, market: Market, side: str, price: Decimal, tif: str | None) -> None:
        core, symbol = self.client.core, market.info.symbol
        line = core.order_line(symbol, side, market.size(self.chance), price, tif=tif)
        number = int(line["id"])
        self._placed[number] = _Open(symbol, side, price)
        self._sent_ns[number] = time.perf_counter_ns()
        self._send(line)

    def _cancel(self, market: Market, mine: list[int]) -> None:
        # Those the price has left behind go first, else the oldest.
        grid = float(market.step) * 18
        far = [n for n in mine if abs(float(self.open[n].price) - market.price) > grid]
        number = self.chance.choice(far) if far else mine[0]
        self.open.pop(number)
        self._send({"type": "cancel", "symbol": market.info.symbol, "target_id": number})

    def _send(self, line: Line) -> None:
        self.client.send_nowait(line)
        self.stats.sent += 1

    async def read(self) -> None:
        """Take reports as they come, for as long as the connection lasts."""
        async for report in self.client.reports():
            self._take(report)

    def _take(self, report: Report) -> None:
        stats = self.stats
        stats.reports += 1
        if not self.client.core.own(report):
            return  # somebody trades by hand on this account
        number = int(report.id or 0)
        if isinstance(report, Accepted):
            sent = self._sent_ns.pop(number, 0)
            if sent:
                stats.round_trips_ns.append(time.perf_counter_ns() - sent)
            if len(report.receipt) == 4 and report.receipt[3] > report.receipt[0] > 0:
                stats.inside_ns.append(report.receipt[3] - report.receipt[0])
        elif isinstance(report, Booked):
            order = self._placed.pop(number, None)
            if order is not None:
                self.open[number] = order
        elif isinstance(report, Rejected):
            stats.rejects[report.code] += 1
        elif isinstance(report, Fill) and report.role == "taker":
            stats.trades += 1
            stats.tape.appendleft(report)
        if isinstance(report, Canceled | Expired | Rejected) or (
            isinstance(report, Fill) and not report.leaves
        ):
            self.open.pop(number, None)
            self._placed.pop(number, None)
            self._sent_ns.pop(number, None)


class Flow:
    """All bots, at a common rate; `run` goes on until `stop` is set."""

    def __init__(self, clients: list[AsyncClient], rate: int, seed: int) -> None:
        self.clients, self.rate = clients, rate
        self.chance = random.Random(seed)
        self.stats = FlowStats()
        self.markets: dict[str, Market] = {}
        self.bots: list[Bot] = []
        self.failure = ""

    async def connect(self) -> None:
        """Log all bots on and learn the instruments."""
        for client in self.clients:
            await client.connect()
        rows = await self.clients[0].instruments()
        self.markets = {row.symbol: Market.of(row) for row in rows}
        self.bots = [
            Bot(client, self.markets, self.stats, random.Random(self.chance.random()))
            for client in self.clients
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Act at the rate until told to stop, or until the exchange goes away."""
        last, due = time.monotonic(), 0.0
        readers = [asyncio.create_task(bot.read()) for bot in self.bots]
        try:
            while not stop.is_set():
                await asyncio.sleep(TICK_S)
                now = time.monotonic()
                due = min(due + self.rate * (now - last), float(self.rate))
                for market in self.markets.values():
                    market.wander(now - last, self.chance)
                last = now
                while due >= 1:
                    self.chance.choice(self.bots).act()
                    due -= 1
        except RingbookError as error:
            self.failure = str(error)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            for client in self.clients:
                await client.close()
