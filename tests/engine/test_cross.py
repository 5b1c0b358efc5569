"""The price of an uncross: the walk along the levels against the model, and the model against a
judge that tries every tick (RULES §6).

Prices are spread out, so that levels, gaps between them, market orders with different reserves and
both kinds of surplus meet in every way.
"""

from __future__ import annotations

import random

import pytest

from engine.book_state import small_limits
from engine.config import Instrument
from engine.records import CommandKind, InstrumentRule, OrderType, Phase, TimeInForce
from tests.conftest import BASE_SEED
from tests.model.book_model import BUY, SELL
from tests.model.checks_model import BLANK_COMMAND
from tests.model.compare import Pair
from tests.model.flow import TEMPLATE, World
from tests.model.full.auctions import Cross, cross_at, find_cross, orders_of
from tests.model.full.book import FullBook
from tests.model.full.order import MARKET

BOOKS, ORDERS = 12, 30
SECOND = 10**9
WORLD = World(small_limits(), 2, "reject", 1, 1, 0.5, 0)
INSTRUMENT = Instrument("FA", "1", "1", "1000", rules="full")


class Call:
    """One call of a small exchange, model and engine side by side."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.spread = self.rng.choice((1, 2, 8, 60))
        self.qty_max = self.rng.choice((1, 3, 40))
        self.pair = Pair(WORLD, (INSTRUMENT,), TEMPLATE, seed)
        self.now = SECOND
        if self.rng.random() < 0.7:
            self.rule(InstrumentRule.STATIC_BAND, 5000)
            self.trade(100)
        self.desk(CommandKind.SET_PHASE, order_type=int(Phase.OPENING_CALL))

    def desk(self, kind: CommandKind, **fields: int) -> None:
        supervisor = {"kind": int(kind), "producer": 1, "symbol_id": 1, "in_ts": self.now}
        self.pair.apply(BLANK_COMMAND | supervisor | fields)

    def rule(self, rule: InstrumentRule, value: int) -> None:
        self.desk(CommandKind.SET_RULE, order_type=int(rule), amount=value)

    def order(self, side: int, px: int, qty: int, **fields: int) -> None:
        who = {"account": 1 + side, "session": 1 + side, "logon": 1, "producer": 1}
        what = {"side": side, "px": px, "qty": qty, "order_type": int(OrderType.LIMIT)}
        row = {"kind": int(CommandKind.NEW), "symbol_id": 1, "in_ts": self.now}
        self.pair.apply(BLANK_COMMAND | who | what | row | fields)

    def trade(self, px: int) -> None:
        self.order(SELL, px, 1)
        self.order(BUY, px, 1)

    def draw(self) -> None:
        """One more order, and time enough for the indication."""
        rng = self.rng
        side, qty = rng.randint(0, 1), rng.randint(1, self.qty_max)
        px = 100 + rng.randint(-self.spread, self.spread)
        if rng.random() < 0.1:
            self.rule(InstrumentRule.STATIC_BAND, rng.choice((500, 1000, 4000)))
        elif rng.random() < 0.15:
            auction = {"order_type": MARKET, "tif": int(TimeInForce.GOOD_FOR_AUCTION)}
            self.order(side, 0, qty, **auction)
        else:
            self.order(side, px, qty, **rng.choice(({}, {"peak": 1}, {"flags": 4})))
        self.now += SECOND

    @property
    def book(self) -> FullBook:
        book = self.pair.model.books[1]
        assert isinstance(book, FullBook)
        return book


def judged(book: FullBook) -> Cross:
    """The cross by the words of RULES §6, tick by tick."""
    both = [*orders_of(book, BUY), *orders_of(book, SELL)]
    reference = book.reference
    if all(order.order_type == MARKET for order in both):
        only = cross_at(book, reference) if reference else Cross()
        return only if only.volume else Cross()
    limits = [order.px for order in both]
    left = [cross_at(book, px) for px in range(min(limits), max(limits) + 1)]
    most = max(cross.volume for cross in left)
    if not most:
        return Cross()
    left = [cross for cross in left if cross.volume == most]
    least = min(cross.surplus for cross in left)
    left = [cross for cross in left if cross.surplus == least]
    sides = {cross.side for cross in left}
    if least and len(sides) == 1:
        return left[-1] if sides == {BUY} else left[0]
    wanted = reference or (left[0].px + left[-1].px) // 2
    return min(left, key=lambda cross: (abs(cross.px - wanted), cross.px))


@pytest.mark.nojit
@pytest.mark.flavour
@pytest.mark.timeout(300)  # the first test of a flavour may have to compile
@pytest.mark.parametrize("number", range(BOOKS))
def test_walk_model_and_judge_agree_on_every_cross(number: int) -> None:
    call = Call(BASE_SEED + number)
    crossed = 0
    for _ in range(ORDERS):
        call.draw()
        found = find_cross(call.book)
        assert found == judged(call.book)
        crossed += found.volume > 0
    # Whatever the engine found it told, as INDICATIVE; then the fills, pair by pair.
    call.desk(CommandKind.SET_PHASE, order_type=int(Phase.CONTINUOUS))
    call.pair.check()
    assert crossed
