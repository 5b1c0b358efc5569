"""One order of a full instrument, and the families its type belongs to.

Cold; used by tests only. An order is in exactly one place: nowhere yet (it is being run), in the
book, pending as an untriggered stop, or parked. `leaves` is what may still trade; `shown` the slice
the public sees of it; the difference of an iceberg is its reserve, of a hidden order everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from engine.records import OrderType, SelfTrade, TimeInForce
from tests.model.book_model import BUY, Order

DAY_NS = 86_400 * 10**9
PRICE_MAX = 2**31 - 1
RESTING_TIFS = {int(TimeInForce.GTC), int(TimeInForce.DAY), int(TimeInForce.GTD)}
AUCTION_TIFS = {
    int(TimeInForce.AT_OPEN),
    int(TimeInForce.AT_CLOSE),
    int(TimeInForce.GOOD_FOR_AUCTION),
}
LIMIT, MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
MARKET_TO_LIMIT, BUDGET = int(OrderType.MARKET_TO_LIMIT), int(OrderType.BUDGET)
STOP_MARKETS = {int(OrderType.STOP), int(OrderType.TAKE_PROFIT)}
STOP_LIMITS = {int(OrderType.STOP_LIMIT), int(OrderType.TAKE_PROFIT_LIMIT)}
TAKE_PROFITS = {int(OrderType.TAKE_PROFIT), int(OrderType.TAKE_PROFIT_LIMIT)}
TRAILING = {int(OrderType.TRAILING_STOP), int(OrderType.TRAILING_STOP_LIMIT)}
STOPS = STOP_MARKETS | STOP_LIMITS | TRAILING
PEGS = {int(OrderType.PEG_PRIMARY), int(OrderType.PEG_MARKET), int(OrderType.PEG_MID)}
# Types that may be post-only, iceberg or hidden (RULES §13, Combinations).
OPTION_TYPES = {LIMIT} | STOP_LIMITS
# Types whose px the client must state.
PRICED = {LIMIT, int(OrderType.TRAILING_STOP_LIMIT)} | STOP_LIMITS
# Types that may stay in the book after their run.
LIMITED = PRICED | {MARKET_TO_LIMIT} | PEGS


class Place(Enum):
    """Where an order is."""

    NOWHERE = auto()
    BOOK = auto()
    CALL = auto()  # a market order that takes part in a call
    PENDING = auto()  # a stop that waits for its trigger
    PARKED = auto()  # a peg without reference, an order of a later auction, a leg of a later step


@dataclass(slots=True)
class FullOrder(Order):
    """One accepted order for as long as it lives."""

    slide: bool = False
    hidden: bool = False
    peak: int = 0
    min_qty: int = 0
    stp: int = int(SelfTrade.NONE)
    expire_at: int = 0  # 0: never
    trigger: int = 0  # of a stop; of a trailing one what follows from its extreme
    on_best: bool = False  # it looks at the best opposite displayed price
    distance: int = 0  # of a trailing stop
    in_bps: bool = False
    activation: int = 0
    active: bool = False
    extreme: int = 0  # 0: no trade yet
    triggered: bool = False
    budget: int = 0
    protected: bool = False  # a leg of an OTO: its limit follows when it goes live
    sibling: int = 0  # order_id of the other leg of an OCO
    legs: tuple[int, ...] = ()  # of the OTO whose first order this is
    cap: int = 0  # of a peg; px is where it stands
    moves: bool = False  # a peg that enters the book again: REPRICED, not BOOKED
    is_quote: bool = False
    old: tuple[int, int] = (0, 0)  # slice and quantity of a quote side that leaves its place
    old_ref: int = 0  # slice that BOOKED of a quote side replaces
    rank: int = 0  # time priority: smaller comes first
    shown: int = 0
    prevented: int = 0
    place: Place = Place.NOWHERE

    @property
    def leaves(self) -> int:
        """Quantity that may still trade."""
        return self.total - self.cum - self.prevented

    @property
    def gone(self) -> int:
        """Quantity that was filled or prevented: below it no new total can go."""
        return self.cum + self.prevented

    @property
    def is_stop(self) -> bool:
        """Is it a stop that was not triggered yet?"""
        return self.order_type in STOPS and not self.triggered

    @property
    def can_rest(self) -> bool:
        return self.order_type in LIMITED and self.tif in RESTING_TIFS

    @property
    def slice(self) -> int:
        """What it shows when it enters the book or shows again."""
        if self.hidden:
            return 0
        return min(self.peak or self.leaves, self.leaves)

    @property
    def stated_px(self) -> int:
        """The price its owner stated."""
        return self.cap if self.order_type in PEGS else self.px

    def reaches(self, px: int) -> bool:
        """Would it trade with somebody at px? A price of 0 is no limit."""
        if self.px == 0:
            return True
        return px <= self.px if self.side == BUY else px >= self.px

    def reaches_beyond(self, px: int) -> bool:
        """Is its price better than px of its own side?"""
        return self.px > px if self.side == BUY else self.px < px

    def refuses(self, other: FullOrder) -> bool:
        """Is trading with this maker self-trading, which this taker's mode prevents?"""
        return self.account == other.account and self.stp != SelfTrade.NONE
