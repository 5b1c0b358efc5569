"""How a level is shared out, against an oracle as naive as can be (RULES §4, §13 Levels).

The oracle below is written from the words of RULES alone, with fractions, and shares no line with
the kernel or with tests/model. It says who trades how much, in which order, round by round.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admin import admin_record, list_instrument, list_rules
from engine.book_state import small_limits
from engine.config import Instrument
from engine.jit import JIT_DISABLED
from engine.local import LocalExchange
from engine.records import (
    COMMAND,
    Algorithm,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    InstrumentRule,
    OrderType,
    Role,
    Side,
    TimeInForce,
)

pytestmark = [pytest.mark.flavour, pytest.mark.nojit, pytest.mark.timeout(300)]

PX, BUYER, LARGEST = 100, 5, 2**31 - 1
BASES = [a for a in Algorithm if a <= Algorithm.TIME_PRO_RATA]


# -------------------------------------------------------------------------------------- the oracle
@dataclass
class Resting:
    """One order of the level; `number` counts them from 0 in order of entry."""

    number: int
    account: int
    total: int
    peak: int = 0
    hidden: bool = False
    shown: int = 0

    def show(self) -> None:
        self.shown = 0 if self.hidden else min(self.peak or self.total, self.total)


@dataclass
class Terms:
    """What the instrument says."""

    base: Algorithm
    percent: int = 50
    lead: dict[int, int] = field(default_factory=dict)  # account -> percent


def shares(terms: Terms, sizes: list[int], owners: list[int], top: int | None, q: int) -> list[int]:
    """Share q lots among orders that display `sizes`, in time order."""
    got = [0] * len(sizes)

    def give(place: int, wish: int, most: int) -> int:
        lots = max(0, min(wish, most, sizes[place] - got[place]))
        got[place] += lots
        return lots

    everyone = range(len(sizes))
    left = q
    if top is not None:
        left -= give(top, left, left)
    behind_top = left
    for account, percent in terms.lead.items():
        share = floor(Fraction(percent, 100) * behind_top)
        for place in everyone:
            if owners[place] == account and place != top:
                lots = give(place, share, share)
                share, left = share - lots, left - lots
    left -= base_shares(terms, sizes, got, left)
    for place in everyone:
        left -= give(place, left, left)
    assert left == 0
    return got


def base_shares(terms: Terms, sizes: list[int], got: list[int], q: int) -> int:
    """Give what the base gives; returns how much it was."""
    before = sum(got)
    if terms.base == Algorithm.FIFO_PRO_RATA:
        first = floor(Fraction(terms.percent, 100) * q)
        for place, size in enumerate(sizes):
            got[place] += min(first - (sum(got) - before), size - got[place])
    q -= sum(got) - before
    rest = [size - have for size, have in zip(sizes, got, strict=True)]
    level = sum(rest)
    if not level:
        return sum(got) - before
    if terms.base in (Algorithm.PRO_RATA, Algorithm.FIFO_PRO_RATA):
        for place, size in enumerate(rest):
            share = floor(Fraction(q * size, level))
            got[place] += 0 if share < 2 else share
    elif terms.base == Algorithm.SIZE_PRIORITY:
        left = q
        for place in sorted(range(len(sizes)), key=lambda place: (-sizes[place], place)):
            lots = min(left, rest[place])
            got[place] += lots
            left -= lots
    elif terms.base == Algorithm.TIME_PRO_RATA:
        for place, size in enumerate(rest):
            a_before, a = sum(rest[:place]), sum(rest[: place + 1])
            share = Fraction(q * ((level - a_before) ** 2 - (level - a) ** 2), level**2)
            got[place] += min(floor(share), size)
    return sum(got) - before


def told_by_oracle(
    terms: Terms, level: list[Resting], top: int | None, q: int
) -> list[tuple[int, int]]:
    """(number, lots) of every trade of an aggressor who wants q, in order."""
    told: list[tuple[int, int]] = []

    def trade(order: Resting, lots: int) -> None:
        told.append((order.number, lots))
        order.total -= lots
        order.shown -= min(order.shown, lots)

    queue = [order for order in level if not order.hidden]
    dark = [order for order in level if order.hidden]
    if q >= sum(order.total for order in level):
        return [(order.number, order.total) for order in queue + dark]
    while q and queue:
        wanted = min(q, sum(order.shown for order in queue))
        numbers = [order.number for order in queue]
        place = numbers.index(top) if top in numbers else None
        owners = [order.account for order in queue]
        got = shares(terms, [order.shown for order in queue], owners, place, wanted)
        for order, lots in zip(list(queue), got, strict=True):
            if lots:
                trade(order, lots)
        q -= wanted
        used_up = [order for order in queue if order.total and not order.shown]
        if any(order.number == top for order in used_up):
            top = None
        for order in used_up:
            order.show()
        queue = [o for o in queue if o.total and o not in used_up] + used_up
    for order in dark:
        if q:
            lots = min(q, order.total)
            trade(order, lots)
            q -= lots
    return told


# ----------------------------------------------------------------------------------- the exchange
class Venue:
    """One exchange that is used for many levels."""

    def __init__(self) -> None:
        self.exchange = LocalExchange(
            [Instrument("ABC", "1", "1", "1000", rules="full", iceberg_parts=1000)],
            accounts=6,
            limits=small_limits(slice_events=5, accounts_max=10),
        )
        self.lead: dict[int, int] = {}

    def rule(self, rule: InstrumentRule, value: int) -> np.ndarray:
        return admin_record(CommandKind.SET_RULE, symbol_id=1, order_type=rule, amount=value)

    def rules(self, terms: Terms) -> list[np.ndarray]:
        gone = [self.rule(InstrumentRule.LMM, account << 32) for account in self.lead]
        self.lead = terms.lead
        return [
            self.rule(InstrumentRule.ALGORITHM, terms.base),
            self.rule(InstrumentRule.FIFO_PERCENT, terms.percent),
            *gone,
            *[self.rule(InstrumentRule.LMM, a << 32 | p) for a, p in terms.lead.items()],
        ]

    def order(self, account: int, side: int, qty: int, **fields: int) -> np.ndarray:
        c = np.zeros(1, COMMAND)
        c["kind"], c["account"], c["symbol_id"] = CommandKind.NEW, account, 1
        c["side"], c["qty"], c["px"], c["order_type"] = side, qty, PX, OrderType.LIMIT
        for name, value in fields.items():
            c[name] = value
        return c

    def mass_cancel(self, account: int) -> np.ndarray:
        c = np.zeros(1, COMMAND)
        c["kind"], c["account"] = CommandKind.MASS_CANCEL, account
        return c

    def told(
        self, terms: Terms, level: list[Resting], *, top: bool, q: int
    ) -> list[tuple[int, int]]:
        """(number, lots) of every trade."""
        parts = self.rules(terms)
        for order in level:
            flags = CommandFlag.HIDDEN if order.hidden else 0
            parts.append(
                self.order(order.account, Side.SELL, order.total, peak=order.peak, flags=flags)
            )
        if not top:  # somebody was better for a moment
            parts += [self.order(6, Side.SELL, 1, px=PX - 1), self.mass_cancel(6)]
        parts.append(self.order(BUYER, Side.BUY, q, tif=TimeInForce.IOC))
        parts += [self.mass_cancel(account) for account in range(1, 5)]
        events = self.exchange.step(np.concatenate(parts))
        self.exchange.check()
        assert len(self.exchange.book("ABC")[1]) == 0
        accepted = events["order_id"][events["kind"] == EventKind.ACCEPTED].tolist()
        fills = events[(events["kind"] == EventKind.FILL) & (events["role"] == Role.MAKER)]
        marked = fills["flags"] & (EventFlag.NON_FIFO | EventFlag.PRINTABLE)
        shared = terms.base != Algorithm.FIFO or bool(terms.lead)
        assert set(marked.tolist()) <= {48 if shared else 0}
        return [(accepted.index(f["order_id"]), int(f["qty"])) for f in fills]


@pytest.fixture(scope="module")
def venue() -> Venue:
    return Venue()


def agree(venue: Venue, terms: Terms, level: list[Resting], *, top: bool, q: int) -> None:
    for order in level:
        order.show()
    first = next((o.number for o in level if not o.hidden), None)
    is_shared = terms.base != Algorithm.FIFO or bool(terms.lead)
    came = venue.told(terms, level, top=top, q=q)
    holder = first if top and is_shared else None
    assert came == told_by_oracle(terms, level, holder, q)


def plain(sizes: tuple[int, ...]) -> list[Resting]:
    return [Resting(n, n % 4 + 1, size) for n, size in enumerate(sizes)]


def test_worked_example_of_the_rules(venue: Venue) -> None:
    level = plain((10, 5, 20, 50, 75))
    came = venue.told(Terms(Algorithm.PRO_RATA), level, top=True, q=60)
    assert came == [(0, 10), (1, 3), (2, 6), (3, 16), (4, 25)]


@pytest.mark.parametrize("lead", [{}, {2: 40}], ids=["", "lead"])
@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_every_small_level_and_quantity(
    venue: Venue, base: Algorithm, lead: dict[int, int]
) -> None:
    terms = Terms(base, 50, lead)
    for sizes in itertools.product((1, 2, 5) if JIT_DISABLED else (1, 2, 3, 5), repeat=3):
        for q in range(1, sum(sizes) + 1):
            agree(venue, terms, plain(sizes), top=sizes[0] == 2, q=q)


ORDERS = st.builds(
    Resting,
    number=st.just(0),
    account=st.integers(1, 4),
    total=st.one_of(st.integers(1, 9), st.integers(1, 300), st.integers(1, LARGEST)),
    peak=st.just(0),
    hidden=st.sampled_from([False, False, False, True]),
)
LEADS = st.dictionaries(st.integers(1, 4), st.integers(1, 16), max_size=3)


@settings(max_examples=60 if JIT_DISABLED else 300, deadline=None)
@given(
    base=st.sampled_from(BASES),
    percent=st.integers(0, 100),
    lead=LEADS,
    level=st.lists(ORDERS, min_size=1, max_size=14),
    slices=st.lists(st.integers(0, 12), min_size=14, max_size=14),
    top=st.booleans(),
    part=st.integers(1, 1000),
)
def test_any_level(
    venue: Venue,
    base: Algorithm,
    percent: int,
    lead: dict[int, int],
    level: list[Resting],
    slices: list[int],
    top: bool,
    part: int,
) -> None:
    for number, (order, parts) in enumerate(zip(level, slices, strict=False)):
        order.number = number
        order.peak = 0 if order.hidden or not parts else -(-order.total // parts)
    q = min(max(sum(order.total for order in level) * part // 1000, 1), LARGEST)
    agree(venue, Terms(base, percent, lead), level, top=top, q=q)


def test_a_start_that_repeats_the_rules_changes_nothing() -> None:
    terms = {"algorithm": "pro_rata", "fifo_percent": 30, "lmm": "2:40", "max_level_orders": 9}
    instrument = Instrument("ABC", "1", "1", "1000", rules="full", **terms)
    exchange = LocalExchange([instrument], accounts=6, limits=small_limits(accounts_max=10))
    exchange.place("ABC", Side.SELL, 10, PX)
    exchange.place("ABC", Side.SELL, 50, PX, account=2)
    book, digest = exchange.state.rules.copy(), exchange.state_digest()
    again = np.concatenate([list_instrument(instrument), *list_rules(instrument)])
    told = exchange.step(again)
    assert set(told["kind"].tolist()) == {EventKind.LISTED, EventKind.PHASE}
    assert (exchange.state.rules == book).all()
    assert exchange.state_digest() == digest
    fills = exchange.place("ABC", Side.BUY, 10, PX, account=3)
    assert fills["qty"][fills["role"] == Role.MAKER].tolist() == [10]  # still the top order
