"""One order book, the naive way: a dict of price levels per side, each level a dict of orders.

Cold; used by tests only. A Python dict keeps insertion order, so a level *is* its time queue: a new
order goes to the back, the first key is the front, and taking one out of the middle is `del`. The
best price is found with min() or max() every time it is asked for. Nothing is cached, so nothing
can be out of date.

Rules modelled here: RULES §2 (limit, market, IOC, FOK, post-only) and price-time priority of §4.
Who may do what, numbering and answers are in exchange_model.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from engine.records import OrderType, Phase, RuleSet, SelfTrade, Side, TimeInForce

BUY, SELL = int(Side.BUY), int(Side.SELL)


@dataclass(slots=True)
class Order:
    """One accepted order for as long as it lives."""

    order_id: int
    client_order_id: int
    account: int
    session: int
    symbol_id: int
    side: int
    order_type: int
    tif: int
    px: int  # 0 for market
    total: int  # accepted quantity, after replaces
    post_only: bool
    tag: int
    text: bytes
    cum: int = 0
    public_ref: int = 0  # of the slice it shows now; 0 while it is not in the book

    @property
    def leaves(self) -> int:
        return self.total - self.cum

    @property
    def can_rest(self) -> bool:
        return self.order_type == OrderType.LIMIT and self.tif == TimeInForce.GTC


class Terms(NamedTuple):
    """What was said of an instrument when it was listed."""

    tick: int
    lot: int
    px_max: int
    rules: int = int(RuleSet.PLAIN)
    stp: int = int(SelfTrade.NONE)
    iceberg_parts: int = 100
    protection: int = 0
    reference: int = 0  # price at listing, where the static band begins; 0: none

    @property
    def possible(self) -> bool:
        return (
            min(self.tick, self.lot, self.px_max, self.iceberg_parts) > 0
            and self.rules in (RuleSet.PLAIN, RuleSet.FULL)
            and SelfTrade.NONE <= self.stp <= SelfTrade.TRANSFER
            and self.protection >= 0
            and self.reference >= 0
        )


class Book:
    """The resting orders of one instrument."""

    def __init__(self, symbol_id: int, name: int, terms: Terms) -> None:
        self.symbol_id, self.name = symbol_id, name
        self.terms, self.px_max = terms, terms.px_max
        self.phase = int(Phase.CONTINUOUS)
        self.last_px = 0
        self.trades = 0
        self.levels: tuple[dict[int, dict[int, Order]], ...] = ({}, {})

    # ------------------------------------------------------------------------------ looking
    def best_px(self, side: int) -> int | None:
        prices = self.levels[side]
        if not prices:
            return None
        return max(prices) if side == BUY else min(prices)

    def prices(self, side: int) -> list[int]:
        """Occupied prices, best first."""
        return sorted(self.levels[side], reverse=side == BUY)

    def orders(self, side: int) -> Iterator[Order]:
        """Resting orders in priority order."""
        for px in self.prices(side):
            yield from self.levels[side][px].values()

    def front(self, side: int) -> Order:
        """The order that trades next on this side, which must not be empty."""
        px = self.best_px(side)
        assert px is not None
        return next(iter(self.levels[side][px].values()))

    def accepts(self, side: int, order_type: int, limit: int, px: int) -> bool:
        """Would an order of this side, type and limit trade against somebody at px?"""
        if order_type == OrderType.MARKET:
            return True
        return px <= limit if side == BUY else px >= limit

    def would_trade(self, side: int, order_type: int, limit: int) -> bool:
        best = self.best_px(1 - side)
        return best is not None and self.accepts(side, order_type, limit, best)

    def has_level(self, side: int, px: int) -> bool:
        return px in self.levels[side]

    def level_count(self) -> int:
        return len(self.levels[BUY]) + len(self.levels[SELL])

    def fill_whole(self, order: Order, max_walk: int) -> bool | None:
        """Could all of `order` be filled now? None when max_walk orders do not decide it."""
        found = walked = 0
        for maker in self.orders(1 - order.side):
            if not self.accepts(order.side, order.order_type, order.px, maker.px):
                return False
            if walked == max_walk:
                return None
            walked += 1
            found += maker.leaves
            if found >= order.leaves:
                return True
        return False

    # ----------------------------------------------------------------------------- changing
    def rest(self, order: Order) -> None:
        """Put an order at the back of its level."""
        self.levels[order.side].setdefault(order.px, {})[order.order_id] = order

    def take_out(self, order: Order) -> None:
        """Take an order out of its level, and the level away with its last order."""
        level = self.levels[order.side][order.px]
        del level[order.order_id]
        if not level:
            del self.levels[order.side][order.px]

    def trade(self, taker: Order, maker: Order) -> int:
        """Trade as much as both want; a filled maker leaves the book. Gives the quantity."""
        qty = min(taker.leaves, maker.leaves)
        taker.cum += qty
        maker.cum += qty
        if not maker.leaves:
            self.take_out(maker)
        self.last_px = maker.px
        self.trades += 1
        return qty

    def check(self) -> None:
        """The book is never crossed, and what rests belongs there."""
        bid, ask = self.best_px(BUY), self.best_px(SELL)
        assert bid is None or ask is None or bid < ask, f"crossed: {bid} against {ask}"
        for side, levels in enumerate(self.levels):
            for px, level in levels.items():
                assert level
                assert 1 <= px <= self.px_max
                for order in level.values():
                    assert (order.side, order.px) == (side, px)
                    assert order.can_rest
                    assert 0 < order.leaves <= order.total
                    assert order.public_ref > 0
