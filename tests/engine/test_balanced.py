"""balanced_batch against an oracle as naive as can be (RULES §4, §13 Calls).

The oracle below is written from the words of RULES alone: every tick is tried, every order sorted.
It says behind which command there is a cross, at which price, who trades how much in which order,
and who ends with it. It shares no line with the kernels or with tests/model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admin import admin_record
from engine.book_state import small_limits
from engine.config import Instrument
from engine.jit import JIT_DISABLED
from engine.local import LocalExchange
from engine.records import (
    COMMAND,
    CommandFlag,
    CommandKind,
    EventKind,
    InstrumentRule,
    OrderType,
    TimeInForce,
)

pytestmark = [pytest.mark.flavour, pytest.mark.nojit, pytest.mark.timeout(300)]

BUY, SELL = 0, 1
REFERENCE, WIDE = 100, 5000  # price at listing; a static band that admits every limit drawn here
ACCOUNTS = 3


# -------------------------------------------------------------------------------------- the oracle
@dataclass
class Entry:
    """One order; `px` is what it reserves at where it is a market order."""

    number: int
    time: int
    side: int
    px: int
    left: int
    market: bool = False
    immediate: bool = False
    peak: int = 0
    hidden: bool = False
    shown: int = 0

    def takes(self, px: int) -> bool:
        return self.px >= px if self.side == BUY else self.px <= px

    def show(self) -> None:
        self.shown = 0 if self.hidden or self.market else min(self.peak or self.left, self.left)


@dataclass
class Batch:
    """All that waits, and what the instrument says."""

    least_orders: int = 2
    percent: int = 50
    reference: int = REFERENCE
    times: int = 0
    entries: list[Entry] = field(default_factory=list)

    def side(self, side: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.side == side]

    # "crossing = limit meets the best opposite (market: any)"
    def crossing(self, side: int) -> list[Entry]:
        others = [entry.px for entry in self.side(1 - side)]
        if not others:
            return []
        best = min(others) if side == BUY else max(others)
        return [entry for entry in self.side(side) if entry.market or entry.takes(best)]

    # "... number >= min_orders and the smaller side's crossing quantity is >= balance_pct of the
    # larger's"
    def has_enough(self) -> bool:
        buys, sells = self.crossing(BUY), self.crossing(SELL)
        small, large = sorted((sum(e.left for e in buys), sum(e.left for e in sells)))
        if small == 0 or min(len(buys), len(sells)) < self.least_orders:
            return False
        return small * 100 >= large * self.percent

    # "price priority; at the marginal price smallest remaining first, then entry"
    def shares(self, side: int, px: int, lots: int) -> list[tuple[Entry, int]]:
        found: list[tuple[Entry, int]] = []
        who = [entry for entry in self.side(side) if entry.takes(px)]
        prices = sorted({e.px for e in who if not e.market}, reverse=side == BUY)
        rows = [[e for e in who if e.market]]
        rows += [[e for e in who if not e.market and e.px == price] for price in prices]
        for row in rows:
            marginal = sum(e.left for e in row) > lots
            key = (lambda e: (e.left, e.time)) if marginal else (lambda e: (0, e.time))
            for entry in sorted(row, key=key):
                found += [(entry, min(lots, entry.left))] if lots else []
                lots -= min(lots, entry.left)
        return found

    # "most volume, then most orders completely filled, then §6": least surplus, pressure, nearest
    def price(self) -> tuple[int, int]:
        if all(entry.market for entry in self.entries):
            return self.reference, min(
                self._open(BUY, self.reference), self._open(SELL, self.reference)
            )
        limits = [entry.px for entry in self.entries]
        ticks = range(min(limits), max(limits) + 1)
        volume = {px: min(self._open(BUY, px), self._open(SELL, px)) for px in ticks}
        left = [px for px in ticks if volume[px] == max(volume.values())]
        whole = {px: self._whole(px, volume[px]) for px in left}
        left = [px for px in left if whole[px] == max(whole.values())]
        surplus = {px: self._open(BUY, px) - self._open(SELL, px) for px in left}
        least = min(abs(n) for n in surplus.values())
        left = [px for px in left if abs(surplus[px]) == least]
        if least and all(surplus[px] > 0 for px in left):
            return left[-1], volume[left[-1]]
        if least and all(surplus[px] < 0 for px in left):
            return left[0], volume[left[0]]
        px = min(left, key=lambda px: (abs(px - self.reference), px))
        return px, volume[px]

    def _open(self, side: int, px: int) -> int:
        return sum(entry.left for entry in self.side(side) if entry.takes(px))

    def _whole(self, px: int, lots: int) -> int:
        both = self.shares(BUY, px, lots) + self.shares(SELL, px, lots)
        return sum(part == entry.left for entry, part in both)

    def cross(self) -> list[tuple[int, ...]]:
        """(number, lots, price) of every half of a trade, then (price, volume), then who ends."""
        px, volume = self.price()
        told: list[tuple[int, ...]] = []
        sides = [list(map(list, self.shares(side, px, volume))) for side in (BUY, SELL)]
        partial = sum(part < entry.left for side in sides for entry, part in side)
        assert partial <= 1, "at most one partial fill"
        while sides[BUY] and sides[SELL]:
            lots = min(sides[BUY][0][1], sides[SELL][0][1])
            for row in sides:
                entry = row[0][0]
                told.append((entry.number, lots, px))
                entry.left -= lots
                entry.shown -= min(entry.shown, lots)
                row[0][1] -= lots
                if not row[0][1]:
                    row.pop(0)
        told.append((px, volume))
        for entry in [e for e in self.entries if e.peak and e.left and not e.shown]:
            entry.time = self.times = self.times + 1  # the new slice is the last to come
            entry.show()
        gone = [e for e in self.entries if e.left and (e.market or e.immediate)]
        told += [(entry.number,) for entry in sorted(gone, key=lambda e: e.number)]
        self.entries = [e for e in self.entries if e.left and not e.market and not e.immediate]
        self.reference = px
        return told


# ----------------------------------------------------------------------------------- the exchange
class Venue:
    """One exchange that is used for many batches."""

    def __init__(self) -> None:
        terms = {"rules": "full", "reference": "100", "static_band": WIDE, "iceberg_parts": 1000}
        instrument = Instrument(
            "ABC", "1", "1", "1000", algorithm="balanced_batch", max_wait_ms=2**31 - 1, **terms
        )
        self.exchange = LocalExchange(
            [instrument], accounts=6, limits=small_limits(slice_events=5, accounts_max=10)
        )
        self.reference = REFERENCE
        self.numbers: list[int] = []

    def rule(self, rule: InstrumentRule, value: int) -> list[tuple[int, ...]]:
        row = admin_record(CommandKind.SET_RULE, symbol_id=1, order_type=rule, amount=value)
        return self.told(row)

    def order(self, entry: Entry) -> list[tuple[int, ...]]:
        c = np.zeros(1, COMMAND)
        c["kind"], c["account"], c["symbol_id"] = CommandKind.NEW, entry.number % ACCOUNTS + 1, 1
        c["side"], c["qty"], c["peak"] = entry.side, entry.left, entry.peak
        c["order_type"] = OrderType.MARKET if entry.market else OrderType.LIMIT
        c["px"] = 0 if entry.market else entry.px
        c["tif"] = TimeInForce.IOC if entry.immediate else TimeInForce.GTC
        c["flags"] = CommandFlag.HIDDEN if entry.hidden else 0
        return self.told(c)

    def clear(self) -> None:
        for account in range(1, ACCOUNTS + 1):
            c = np.zeros(1, COMMAND)
            c["kind"], c["account"] = CommandKind.MASS_CANCEL, account
            self.exchange.step(c)
        self.numbers = []

    def told(self, command: np.ndarray) -> list[tuple[int, ...]]:
        events = self.exchange.step(command)
        self.exchange.check()
        found: list[tuple[int, ...]] = []
        for event in events:
            assert event["kind"] != EventKind.REJECTED, event["code"]
            if event["kind"] == EventKind.ACCEPTED:
                self.numbers.append(int(event["order_id"]))
            elif event["kind"] == EventKind.FILL:
                number = self.numbers.index(event["order_id"])
                found.append((number, int(event["qty"]), int(event["px"])))
            elif event["kind"] == EventKind.CROSSED:
                found.append((int(event["px"]), int(event["amount2"])))
            elif event["kind"] == EventKind.EXPIRED:
                found.append((self.numbers.index(event["order_id"]),))
        return found


@pytest.fixture(scope="module")
def venue() -> Venue:
    return Venue()


@dataclass
class Wish:
    """An order as it is drawn."""

    side: int
    px: int
    qty: int
    kind: str


def agree(venue: Venue, wishes: list[Wish], least_orders: int, percent: int) -> int:
    """Play the wishes on both; returns how many crosses there were."""
    venue.clear()
    batch = Batch(reference=venue.reference)
    # Nothing is enough while the first half of them comes, so that there is something to decide.
    for rule, value in ((InstrumentRule.MIN_ORDERS, 1000), (InstrumentRule.BALANCE_PCT, percent)):
        assert venue.rule(rule, value) == []
    batch.least_orders, batch.percent = 1000, percent
    crosses = 0
    for number, wish in enumerate(wishes):
        if number == len(wishes) // 2:
            batch.least_orders = least_orders
            crosses += compare(venue, batch, venue.rule(InstrumentRule.MIN_ORDERS, least_orders))
        market = wish.kind == "market"
        if market:  # it reserves so many ticks from the reference as are drawn
            venue.rule(InstrumentRule.STATIC_BAND, 100 * abs(wish.px - REFERENCE))
            wish.px = REFERENCE + abs(wish.px - REFERENCE) * (1 - 2 * wish.side)
        batch.times += 1
        entry = Entry(number, batch.times, wish.side, wish.px, wish.qty, market)
        entry.immediate, entry.hidden = wish.kind == "immediate", wish.kind == "hidden"
        entry.peak = max(1, wish.qty // 2) if wish.kind == "iceberg" else 0
        entry.show()
        batch.entries.append(entry)
        crosses += compare(venue, batch, venue.order(entry))
        if market:
            venue.rule(InstrumentRule.STATIC_BAND, WIDE)
    venue.reference = batch.reference
    return crosses


def compare(venue: Venue, batch: Batch, came: list[tuple[int, ...]]) -> bool:
    crosses = batch.has_enough()
    assert came == (batch.cross() if crosses else [])
    return crosses


KINDS = ("limit", "limit", "limit", "limit", "market", "market", "immediate", "hidden", "iceberg")
WISHES = st.lists(
    st.builds(
        Wish,
        side=st.integers(BUY, SELL),
        px=st.one_of(st.integers(98, 102), st.integers(90, 110)).filter(lambda px: px != 100),
        qty=st.one_of(st.integers(1, 4), st.integers(1, 30)),
        kind=st.sampled_from(KINDS),
    ),
    min_size=4,
    max_size=16,
)


@settings(max_examples=150 if JIT_DISABLED else 300, deadline=None)
@given(wishes=WISHES, least_orders=st.integers(1, 3), percent=st.sampled_from((0, 30, 50, 100)))
def test_any_batch(venue: Venue, wishes: list[Wish], least_orders: int, percent: int) -> None:
    agree(venue, wishes, least_orders, percent)


def test_more_orders_filled_completely_are_worth_a_surplus(venue: Venue) -> None:
    # Up to 101 both market orders are filled, at 102 nothing would be left over.
    wishes = [Wish(BUY, 101, 1, "market"), Wish(BUY, 101, 1, "market"), Wish(BUY, 102, 5, "limit")]
    assert agree(venue, [*wishes, Wish(SELL, 99, 5, "limit")], 1, 0) == 1
    assert venue.reference == 101
