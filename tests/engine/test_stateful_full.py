"""Model and engine under Hypothesis, on instruments with the full rules.

The machine of test_stateful.py with every option of an order beside it: what a flow of thousands of
commands finds (test_differential_full.py) comes out here as the few that matter. Prices, pools and
slices are so small that nearly every step meets something.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, multiple, rule

from engine.config import Instrument
from engine.records import (
    UNSTATED,
    CommandFlag,
    CommandKind,
    EventKind,
    InstrumentRule,
    OrderType,
    Phase,
    SelfTrade,
    TimeInForce,
)
from tests.engine.test_stateful import ACCOUNTS, Exchanges
from tests.model.full_check import FullStreamChecker

TIF, TYPE, FLAG = TimeInForce, OrderType, CommandFlag
EXAMPLES, STEPS = 150, 40
DAY_NS = 86_400 * 10**9
CONTINUOUS = int(Phase.CONTINUOUS)

# Near each other, seldom wrong: what is refused for its fields is the business of other tests.
accounts = st.sampled_from((1, 2, 1, 2, ACCOUNTS))
sides = st.integers(0, 1)
prices = st.sampled_from((5, 4, 6, 5, 4, 6, 3, 7, 1, 9, 0))
quantities = st.sampled_from((2, 1, 3, 4, 2, 3, 6, 1))
symbols = st.sampled_from((1, 1, 1, 1, 2))
phases = st.sampled_from((2, 4, 5, 7, 1, 6, 8, 3))
# Every option alone, and those that may stand together; `options` of an order is one of them.
options = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"peak": st.integers(1, 3)}),
    st.fixed_dictionaries({"min_qty": st.integers(1, 4)}),
    st.sampled_from(
        (
            {"flags": FLAG.HIDDEN},
            {"flags": FLAG.POST_ONLY},
            {"flags": FLAG.POST_ONLY | FLAG.SLIDE},
            {"flags": FLAG.POST_ONLY | FLAG.HIDDEN},
            {"tif": TIF.IOC},
            {"tif": TIF.FOK},
            {"tif": TIF.DAY},
            {"tif": TIF.AT_OPEN},
            {"tif": TIF.AT_CLOSE},
            {"tif": TIF.GOOD_FOR_AUCTION},
        )
    ),
    st.fixed_dictionaries({"tif": st.just(TIF.GTD), "expire_ts": st.integers(1, 20)}),
)
prevention = st.sampled_from((SelfTrade.DEFAULT, SelfTrade.DEFAULT, *SelfTrade))
rule_values = st.one_of(
    st.tuples(st.just(InstrumentRule.STP), st.integers(1, 6)),
    st.tuples(st.just(InstrumentRule.ICEBERG_PARTS), st.integers(1, 3)),
    st.tuples(st.just(InstrumentRule.PROTECTION), st.integers(0, 2)),
    st.tuples(st.just(InstrumentRule.MAX_TRAILING), st.integers(0, 2)),
    st.tuples(st.just(InstrumentRule.MAX_PEGS), st.integers(0, 2)),
    st.tuples(st.just(InstrumentRule.MAX_LEVEL_ORDERS), st.integers(1, 3)),
    st.tuples(st.just(InstrumentRule.ALGORITHM), st.integers(0, 6)),
    st.tuples(st.just(InstrumentRule.FIFO_PERCENT), st.sampled_from((0, 50, 100))),
    st.tuples(st.just(InstrumentRule.LMM), st.sampled_from(((1 << 32) | 30, 1 << 32))),
    st.tuples(st.just(InstrumentRule.STATIC_BAND), st.sampled_from((0, 2000, 5000))),
    st.tuples(st.just(InstrumentRule.DYNAMIC_BAND), st.sampled_from((0, 2000, 3000))),
    st.tuples(st.just(InstrumentRule.ON_BREACH), st.integers(0, 1)),
    st.tuples(st.just(InstrumentRule.BATCH_MS), st.integers(1, 2)),
    st.tuples(st.just(InstrumentRule.MIN_ORDERS), st.integers(1, 2)),
    st.tuples(st.just(InstrumentRule.BALANCE_PCT), st.sampled_from((0, 50, 100))),
    st.tuples(st.just(InstrumentRule.MAX_WAIT_MS), st.integers(0, 2)),
)


class FullExchanges(Exchanges):
    """Whatever options orders have, in whatever order they come, both exchanges say the same."""

    instruments = (
        Instrument("AA", "1", "1", "9", rules="full", iceberg_parts=3, protection=1),
        Instrument("BB", "1", "1", "9", rules="full", stp="decrement", iceberg_parts=2),
    )
    checker = FullStreamChecker

    @initialize(
        orders_max=st.sampled_from((12, 8, 20, 4)),
        levels_max=st.sampled_from((12, 6, 3)),
        slice_events=st.integers(1, 6),
        max_walk=st.sampled_from((8, 2)),
    )
    def open_exchange(self, **sizes: int) -> None:
        self.open(**sizes)

    def placed(self, account: int, **fields: Any) -> Any:
        """Send an order; the ids of those accepted."""
        events = self.send(CommandKind.NEW, account, **fields)
        taken = [e["order_id"] for e in events if e["kind"] == EventKind.ACCEPTED]
        return multiple(*((account, order_id) for order_id in taken))

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        px=prices,
        qty=quantities,
        symbol_id=symbols,
        stp=prevention,
        option=options,
    )
    def limit(self, account: int, option: dict[str, int], **fields: int) -> Any:
        fields |= {"order_type": TYPE.LIMIT}
        if "expire_ts" in option:
            option = option | {"expire_ts": self.now + option["expire_ts"] - 2}
        return self.placed(account, **fields | option)

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        qty=quantities,
        symbol_id=symbols,
        stp=prevention,
        order_type=st.sampled_from((TYPE.MARKET, TYPE.MARKET_TO_LIMIT)),
        tif=st.sampled_from((TIF.GTC, TIF.IOC, TIF.FOK, TIF.AT_OPEN, TIF.GOOD_FOR_AUCTION)),
        flags=st.sampled_from((0, 0, FLAG.PROTECTED)),
        min_qty=st.sampled_from((0, 0, 2)),
    )
    def market(self, account: int, **fields: int) -> Any:
        return self.placed(account, **fields)

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        symbol_id=symbols,
        amount=st.integers(1, 60),
        fill_or_kill=st.one_of(st.none(), st.integers(0, 3)),
    )
    def budget(self, account: int, fill_or_kill: int | None, **fields: int) -> Any:
        if fill_or_kill is not None:
            fields |= {"tif": TIF.FOK, "qty": fill_or_kill}
        return self.placed(account, order_type=TYPE.BUDGET, **fields)

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        px=prices,
        px2=prices,
        qty=quantities,
        symbol_id=symbols,
        order_type=st.sampled_from(
            (TYPE.STOP, TYPE.STOP_LIMIT, TYPE.TAKE_PROFIT, TYPE.TAKE_PROFIT_LIMIT)
        ),
        on_best=st.booleans(),
        option=options,
    )
    def stop(self, account: int, on_best: bool, option: dict[str, int], **fields: int) -> Any:
        if fields["order_type"] in (TYPE.STOP, TYPE.TAKE_PROFIT):
            fields["px"], option = 0, {}
        if "expire_ts" in option:
            option = option | {"expire_ts": self.now + option["expire_ts"]}
        flags = option.get("flags", 0) | (FLAG.TRIGGER_BEST if on_best else 0)
        return self.placed(account, **fields | option | {"flags": flags})

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        px=prices,
        px2=st.sampled_from((0, 0, 3, 5)),
        qty2=st.integers(0, 3),
        qty=quantities,
        symbol_id=symbols,
        order_type=st.sampled_from((TYPE.TRAILING_STOP, TYPE.TRAILING_STOP_LIMIT)),
        bps=st.booleans(),
    )
    def trailing(self, account: int, bps: bool, **fields: int) -> Any:
        if bps:
            fields |= {"flags": FLAG.DISTANCE_BPS, "qty2": fields["qty2"] * 1500}
        return self.placed(account, **fields)

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        px=prices,
        qty=quantities,
        symbol_id=symbols,
        order_type=st.sampled_from((TYPE.PEG_PRIMARY, TYPE.PEG_MARKET, TYPE.PEG_MID)),
    )
    def peg(self, account: int, **fields: int) -> Any:
        return self.placed(account, **fields)

    @rule(
        account=accounts,
        px=prices,
        qty=quantities,
        px2=prices,
        qty2=quantities,
        symbol_id=symbols,
    )
    def quote(self, account: int, **fields: int) -> None:
        self.send(CommandKind.QUOTE, account, **fields)

    @rule(
        target=Exchanges.orders,
        account=accounts,
        side=sides,
        kind=st.integers(1, 3),
        px=st.lists(prices, min_size=3, max_size=3),
        px2=prices,
        qty=quantities,
        symbol_id=symbols,
    )
    def linked(self, account: int, kind: int, px: list[int], px2: int, **fields: int) -> Any:
        limit = {"order_type": TYPE.LIMIT, "decision_code": kind}
        stop = {"order_type": TYPE.STOP, "px": 0, "px2": px2, "decision_code": kind}
        legs = {1: [{}, stop], 2: [{}, {}], 3: [{}, {}, stop]}[kind]
        found: list[Any] = []
        for number, leg in enumerate(legs):
            flags = FLAG.LIST if number < len(legs) - 1 else 0
            both = fields | limit | {"px": px[number], "flags": flags} | leg
            if kind != 1 and number > 0:
                both["side"] = 1 - fields["side"]
            events = self.send(CommandKind.NEW, account, **both)
            taken = [e["order_id"] for e in events if e["kind"] == EventKind.ACCEPTED]
            found += [(account, order_id) for order_id in taken]
        return multiple(*found)

    @rule(
        order=Exchanges.orders,
        px=prices,
        qty=quantities,
        changed=st.one_of(
            st.just({}),
            st.fixed_dictionaries({"peak": st.integers(1, 3)}),
            st.fixed_dictionaries({"min_qty": st.integers(1, 3)}),
            st.fixed_dictionaries({"px2": prices}),
            st.fixed_dictionaries({"qty2": st.integers(1, 3)}),
            st.fixed_dictionaries({"tif": st.just(TIF.DAY)}),
        ),
    )
    def change(self, order: tuple[int, int], changed: dict[str, int], **fields: int) -> None:
        account, order_id = order
        both = {"order_id": order_id, "side": UNSTATED, "tif": UNSTATED} | fields | changed
        self.send(CommandKind.REPLACE, account, **both)

    @rule(
        target=Exchanges.orders,
        queue=st.lists(
            st.tuples(accounts, quantities, options, prevention), min_size=1, max_size=3
        ),
        side=sides,
        px=prices,
        taker=accounts,
        lots=quantities,
    )
    def meet(self, queue: list[Any], side: int, px: int, taker: int, lots: int) -> Any:
        """Orders with options queue up at one price, a plain one comes to them."""
        common = {"symbol_id": 1, "order_type": TYPE.LIMIT, "px": px or 5}
        found = []
        for account, qty, option, stp in queue:
            if "expire_ts" in option:
                option = option | {"expire_ts": self.now + option["expire_ts"]}
            first = common | {"side": side, "qty": qty, "stp": stp} | option
            found += self.send(CommandKind.NEW, account, **first)
        found += self.send(CommandKind.NEW, taker, **common | {"side": 1 - side, "qty": lots})
        taken = [e for e in found if e["kind"] == EventKind.ACCEPTED]
        return multiple(*((e["account"], e["order_id"]) for e in taken))

    # ------------------------------------------------------------------------------ the operator
    @rule(symbol_id=symbols, change=st.one_of(rule_values, rule_values, phases))
    def operator(self, symbol_id: int, change: int | tuple[InstrumentRule, int]) -> None:
        """A rule changes, or the phase; the next change of the phase is back to trading."""
        fields = {"symbol_id": symbol_id}
        if isinstance(change, tuple):
            fields |= {"order_type": change[0], "amount": change[1]}
            self.send(CommandKind.SET_RULE, 0, **fields)
        else:
            phase = change if self.pair.model.books[symbol_id].phase == CONTINUOUS else CONTINUOUS
            self.send(CommandKind.SET_PHASE, 0, order_type=phase, **fields)

    @rule(account=accounts, qty=st.integers(0, 2), symbol_id=symbols)
    def protect_quotes(self, account: int, **fields: int) -> None:
        self.send(CommandKind.SET_LIMITS, account, session=0, logon=0, amount=5, **fields)

    @rule(days=st.integers(0, 1), span=st.sampled_from((10**6, 10**9, 300 * 10**9)))
    def wait_long(self, days: int, span: int) -> None:
        if days:
            self.now = (self.now // DAY_NS + 1) * DAY_NS
        self.now += span

    @invariant()
    def open_quantity_is_what_the_stream_says(self) -> None:
        if hasattr(self, "pair"):
            live = {o.order_id for o in self.pair.model.orders.values()}
            assert live == set(self.stream.lives)


FullExchanges.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)


# Compiling, where nothing is cached yet, counts for the test.
@pytest.mark.slow
@pytest.mark.timeout(300)
class TestFullExchanges(FullExchanges.TestCase):
    """The machine as a test."""
