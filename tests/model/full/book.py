"""The book of a full instrument: per price a displayed queue, and behind it the hidden orders.

Cold; used by tests only. The first of the queue trades first. A hidden order is behind everything
displayed and all iceberg reserve of its price (RULES §2). Nothing is cached. `twin` gives a copy
that a dry run may ruin.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.records import Algorithm, Phase
from tests.model.book_model import BUY, SELL, Book, Terms
from tests.model.full.order import PEGS, FullOrder, Place

if TYPE_CHECKING:
    from tests.model.full.quotes import Protection

CALLS = {
    int(phase)
    for phase in (Phase.PRE_OPEN, Phase.OPENING_CALL, Phase.VOLATILITY_CALL, Phase.CLOSING_CALL)
}


SHARED = {
    int(algorithm)
    for algorithm in (
        Algorithm.PRO_RATA,
        Algorithm.FIFO_PRO_RATA,
        Algorithm.SIZE_PRIORITY,
        Algorithm.TIME_PRO_RATA,
    )
}


BATCHES = {int(Algorithm.BATCH_AUCTION), int(Algorithm.BALANCED_BATCH)}


@dataclass(slots=True)
class Level:
    """The orders of one price, each list in time order."""

    queue: list[FullOrder] = field(default_factory=list)
    dark: list[FullOrder] = field(default_factory=list)

    def values(self) -> list[FullOrder]:
        """All orders in priority order."""
        return self.queue + self.dark

    def __len__(self) -> int:
        return len(self.queue) + len(self.dark)

    @property
    def total(self) -> int:
        """Open quantity, reserve and hidden included."""
        return sum(order.leaves for order in self.values())

    def side_of(self, order: FullOrder) -> list[FullOrder]:
        """The list this order stands in."""
        return self.dark if order.hidden else self.queue


class FullBook(Book):
    """Resting orders of one full instrument, and what its rules say now."""

    levels: tuple[dict[int, Level], dict[int, Level]]  # type: ignore[assignment]

    def __init__(self, symbol_id: int, name: int, terms: Terms) -> None:
        super().__init__(symbol_id, name, terms)
        self.levels = ({}, {})
        self.stp = terms.stp
        self.iceberg_parts = terms.iceberg_parts
        self.protection = terms.protection
        self.max_trailing = self.max_pegs = 100
        self.unit = max(terms.tick * terms.lot // 10**9, 1)  # a lot at one tick, in quote units
        self.static_bps = self.dynamic_bps = self.on_breach = 0
        self.static_ref, self.dynamic_ref = terms.reference, 0
        self.extensions = 0  # of the present call
        self.has_calendar = False
        self.resumes_to = 0  # phase behind cancel-only
        self.parked: list[FullOrder] = []  # auction orders whose call is not yet, in entry order
        self.parked_pegs: list[FullOrder] = []
        self.parked_legs: list[FullOrder] = []
        self.call_markets: list[FullOrder] = []  # market orders in a call
        self.algorithm = int(Algorithm.FIFO)
        self.fifo_percent = 50
        self.batch_ms, self.min_orders, self.balance_pct, self.max_wait_ms = 100, 2, 50, 1000
        self.cross_at: int | None = None  # next cross of a batch mode
        self.lmm: dict[int, int] = {}  # account -> percent
        self.max_level_orders = 1000
        self.top: list[FullOrder | None] = [None, None]  # by side; kept where it decides
        self.protections: dict[int, Protection] = {}  # of quotes, by account
        self.ranks = 0
        self.traded = False  # in this command
        self.indicated: tuple[int, ...] = (0, 0, 0, 0)  # last told in this call
        self.told_at: int | None = None
        self.indicative_at: int | None = None
        self.pending: list[FullOrder] = []  # untriggered stops, in the order of their priority
        self.wave_low = self.wave_high = 0  # trades since the last wave; 0: none

    # ------------------------------------------------------------------------------ looking
    @property
    def trades_now(self) -> bool:
        """Does what meets trade at once?"""
        return self.phase == Phase.CONTINUOUS and not self.in_batch

    @property
    def in_batch(self) -> bool:
        """Do orders wait for the crosses of a batch mode?"""
        return self.phase == Phase.CONTINUOUS and self.algorithm in BATCHES

    @property
    def elects(self) -> bool:
        """May stops be triggered now? In a batch mode only a cross elects."""
        return self.trades_now or (self.in_batch and self.traded)

    @property
    def in_rounds(self) -> bool:
        """Are levels shared out, rather than taken in time order?"""
        return self.algorithm in SHARED or bool(self.lmm)

    def is_full(self, side: int, px: int, but: FullOrder | None = None) -> bool:
        """Has this level as many orders as a shared one may have, one of them left out?"""
        there = self.level_at(side, px).values() if self.has_level(side, px) else []
        count = sum(order is not but for order in there)
        return self.in_rounds and count >= self.max_level_orders

    @property
    def is_call(self) -> bool:
        """Is this a phase that collects orders for an uncross?"""
        return self.phase in CALLS

    @property
    def reference(self) -> int:
        """What an auction price should be near: the dynamic reference, else the static one."""
        return self.dynamic_ref or self.static_ref

    def level_at(self, side: int, px: int) -> Level:
        return self.levels[side][px]

    def orders(self, side: int) -> Iterator[FullOrder]:  # type: ignore[override]
        """Resting orders in priority order, hidden ones included."""
        for px in self.prices(side):
            yield from self.level_at(side, px).values()

    def best_shown(self, side: int) -> int | None:
        """Best price at which something is displayed."""
        shown = [order.px for order in self.orders(side) if order.shown]
        return shown[0] if shown else None

    def meets(self, order: FullOrder) -> bool:
        """Would it trade at once, own orders and hidden ones counted?"""
        best = self.best_px(1 - order.side)
        return best is not None and order.reaches(best)

    # ----------------------------------------------------------------------------- changing
    def enter(self, order: FullOrder) -> None:
        """Put an order into its level by its time: at the back, unless it was parked before."""
        level = self.levels[order.side].setdefault(order.px, Level())
        row = level.side_of(order)
        row.insert(sum(other.rank < order.rank for other in row), order)
        order.place = Place.BOOK

    def lose_top(self, order: FullOrder) -> None:
        """It is not the top order, not any more."""
        if self.top[order.side] is order:
            self.top[order.side] = None

    def seek_top(self, order: FullOrder) -> bool:
        """An order is about to be displayed: does it become the top order of its side?"""
        best = self.best_shown(order.side)
        if not order.shown or not (best is None or order.reaches_beyond(best)):
            return False
        is_top = self.in_rounds and self.trades_now and order.order_type not in PEGS
        self.top[order.side] = order if is_top else None
        return is_top

    def next_rank(self) -> int:
        """The time priority of whoever comes now."""
        self.ranks += 1
        return self.ranks

    def park(self, order: FullOrder) -> None:
        """Keep an order for its call; its time counts from now."""
        order.rank = self.next_rank()
        order.place = Place.PARKED
        self.parked.append(order)

    def join_as_market(self, order: FullOrder) -> None:
        """A market order takes part in this call; nobody sees it."""
        order.place = Place.CALL
        self.call_markets.append(order)

    def take_out(self, order: FullOrder) -> None:  # type: ignore[override]
        """Take an order out of its level, and the level away with its last order."""
        level = self.level_at(order.side, order.px)
        level.side_of(order).remove(order)
        self.lose_top(order)
        if not level:
            del self.levels[order.side][order.px]
        order.place = Place.NOWHERE

    def drop(self, order: FullOrder) -> None:
        """Take an order away from wherever it is."""
        if order.place == Place.BOOK:
            self.take_out(order)
        elif order.place == Place.PENDING:
            self.pending.remove(order)
        elif order.place == Place.PARKED:
            for row in (self.parked, self.parked_pegs, self.parked_legs):
                if any(other is order for other in row):
                    row.remove(order)
        elif order.place == Place.CALL:
            self.call_markets.remove(order)
        order.place = Place.NOWHERE

    def traded_at(self, px: int) -> None:
        """Remember a trade for stops."""
        self.last_px = px
        self.static_ref = self.static_ref or px
        self.wave_low = min(self.wave_low or px, px)
        self.wave_high = max(self.wave_high, px)
        self.traded = True

    def end_command(self) -> None:
        """The newest trade is the dynamic reference of the next command."""
        if self.traded:
            self.dynamic_ref, self.traded = self.last_px, False

    def fill(self, taker: FullOrder, maker: FullOrder, qty: int) -> None:
        """Quantity of both that traded; a filled maker leaves the book."""
        taker.cum += qty
        maker.cum += qty
        maker.shown -= min(maker.shown, qty)
        if not maker.leaves:
            self.take_out(maker)

    def decrement(self, taker: FullOrder, maker: FullOrder) -> int:
        """Both lose the smaller open quantity, a reserve before what is displayed."""
        qty = min(taker.leaves, maker.leaves)
        taker.prevented += qty
        maker.prevented += qty
        maker.shown = min(maker.shown, maker.leaves)
        return qty

    def refresh(self, order: FullOrder) -> None:
        """An exhausted slice shows again at the back of its level."""
        queue = self.level_at(order.side, order.px).queue
        queue.remove(order)
        queue.append(order)
        self.lose_top(order)
        order.rank = self.next_rank()
        order.shown = order.slice

    def twin(self) -> FullBook:
        """Copy the book so that trading with the copy leaves no trace here."""
        twin = copy.copy(self)
        twin.levels = ({}, {})
        for side in (BUY, SELL):
            for px, level in self.levels[side].items():
                dark, queue = ([copy.copy(o) for o in row] for row in (level.dark, level.queue))
                twin.levels[side][px] = Level(queue, dark)
        ids = [order.order_id if order else 0 for order in self.top]
        twin.top = [None, None]
        for side in (BUY, SELL):
            for order in twin.orders(side):
                if order.order_id == ids[side]:
                    twin.top[side] = order
        return twin

    def check(self) -> None:
        """What rests belongs there; where trading is continuous the book is not crossed."""
        bid, ask = self.best_px(BUY), self.best_px(SELL)
        free = not self.trades_now
        assert free or bid is None or ask is None or bid < ask, f"crossed: {bid} against {ask}"
        for side in (BUY, SELL):
            for px, level in self.levels[side].items():
                assert len(level)
                assert 1 <= px <= self.px_max
                for order in level.values():
                    self._check_order(order, side, px, order in level.dark)
                for row in (level.queue, level.dark):
                    assert [o.rank for o in row] == sorted(o.rank for o in row)

    def _check_order(self, order: FullOrder, side: int, px: int, dark: bool) -> None:
        assert (order.side, order.px, order.place) == (side, px, Place.BOOK)
        assert order.hidden == dark
        assert order.can_rest or not self.trades_now
        assert 0 < order.leaves <= order.total
        assert (order.shown == 0) == order.hidden
        assert (order.public_ref == 0) == order.hidden
        assert order.shown <= order.leaves
        assert order.shown == order.leaves or 0 <= order.shown <= order.peak
