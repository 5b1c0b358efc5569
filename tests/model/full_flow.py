"""Random commands for full instruments: every option that its set of features names.

Cold; used by tests only. A FullFlow is a Flow (flow.py) whose new orders and replaces draw from the
full rules where the instrument is full. What a feature is not named for is never drawn, so that an
engine which has only some of them can be compared already. `draw_full_world` gives a small
exchange, `full_instruments` its instruments.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from engine.config import Instrument
from engine.records import (
    CommandFlag,
    CommandKind,
    InstrumentRule,
    OrderType,
    Phase,
    SelfTrade,
    TimeInForce,
)
from tests.model.book_model import Order
from tests.model.checks_model import BLANK_COMMAND
from tests.model.exchange_model import ExchangeModel
from tests.model.flow import CENTRE, Fields, Flow, World, draw_world
from tests.model.full import quotes
from tests.model.full.book import FullBook
from tests.model.full.order import DAY_NS, STOP_LIMITS, TAKE_PROFITS, FullOrder

CORE = frozenset(
    {
        "limit",
        "market",
        "market_to_limit",
        "time",
        "hidden",
        "iceberg",
        "minimum",
        "post_only",
        "rules",
        "stp",
    }
)
STOPS = frozenset({"stop", "trailing"})
PHASES = frozenset({"phases", "auction_tif", "bands"})
SHARES = frozenset({"algorithms"})
BATCHES = frozenset({"batches"})
QUOTES = frozenset({"budget", "quotes"})
PEGS = frozenset({"pegs"})
LISTS = frozenset({"lists"})
# What the kernels have.
FEATURES = CORE | STOPS | PHASES | SHARES | PEGS | QUOTES | BATCHES | LISTS
ALL = LISTS | PEGS | QUOTES | CORE | STOPS | PHASES | SHARES | BATCHES
TIF = TimeInForce


def draw_full_world(rng: random.Random) -> World:
    """Draw sizes; unknown symbols are refused, so that most orders are for full instruments."""
    return draw_world(rng)


def full_instruments(rng: random.Random) -> tuple[Instrument, ...]:
    """Two full instruments and a plain one, their terms drawn."""
    modes = [mode.name.lower() for mode in SelfTrade if mode != SelfTrade.DEFAULT]
    terms = [
        {
            "rules": "full",
            "stp": rng.choice(modes),
            "iceberg_parts": rng.choice((2, 5, 100)),
            "protection": rng.choice((0, 1, 3)),
        }
        for _ in range(2)
    ]
    return (
        Instrument("FA", "0.01", "1", "1.00", **terms[0]),
        Instrument("FB", "0.01", "1", "0.60", **terms[1]),
        Instrument("PL", "0.01", "1", "1.00"),
    )


class FullFlow(Flow):
    """An endless seeded stream of commands for one model with full instruments."""

    def __init__(
        self, seed: int, world: World, model: ExchangeModel, features: frozenset[str] = ALL
    ) -> None:
        super().__init__(seed, world, model)
        self.features = features
        # A world of pegs, that they meet and lead each other about.
        self.pegs_often = "pegs" in features and self.rng.random() < 0.4
        self.waiting: list[Fields] = []  # legs of a list, to be sent one after the other
        self.makers: list[tuple[str, Callable[[FullBook, int], Fields], int]] = [
            ("limit", self._limit, 60),
            ("market", self._market, 8),
            ("market_to_limit", self._market_to_limit, 4),
            ("budget", self._budget, 5),
            ("pegs", self._peg, 60 if self.pegs_often else 10),
            ("stop", self._stop, 14),
            ("trailing", self._trailing, 8),
        ]

    def has(self, feature: str, chance: float) -> bool:
        """Draw whether a feature is used now."""
        return feature in self.features and self.rng.random() < chance

    def next(self) -> Fields:
        """Draw the next command; sometimes the day is nearly over first."""
        if self.waiting:
            return self.waiting.pop(0) | {"in_ts": max(self.now, 0)}
        if self.has("time", 0.004):
            self.now = (max(self.now, 0) // DAY_NS + 1) * DAY_NS - self.rng.randint(0, 3)
        if self.has("phases", 0.008):
            self.now += self.rng.choice((10**9 // 2, 10**9))
        if self.has("batches", 0.03):
            self.now += self.rng.choice((10**6, 2 * 10**6))
        fields = super().next()
        change = self._change()
        return fields | change if change else fields

    # ---------------------------------------------------------------------- phases and rules
    def _change(self) -> Fields | None:
        books = [b for b in self.model.books.values() if isinstance(b, FullBook)]
        if not books:
            return None
        book = self._pick(books)
        chance = 0.008 if book.phase == Phase.CONTINUOUS else 0.12
        supervisor = BLANK_COMMAND | {"producer": 1, "symbol_id": book.symbol_id}
        supervisor["in_ts"] = max(self.now, 0)
        if self.has("phases", chance):
            nearer = self._pick((int(Phase.VOLATILITY_CALL), int(Phase.CONTINUOUS)))
            drawn = self._often(self.rng.randint(1, 8), 0, 9)
            phase = drawn if self.rng.random() < 0.3 else nearer
            if book.phase == Phase.CONTINUOUS:
                phase = drawn
            return supervisor | {"kind": int(CommandKind.SET_PHASE), "order_type": phase}
        open_one = any(session.is_open for session in self.model.sessions.slots)
        if open_one and self.has("lists", 0.06):
            return self._list(book)
        if open_one and self.has("quotes", 0.08):
            return self._quote(book)
        if self.has("quotes", 0.015):
            return supervisor | self._limits(book)
        if self.has("algorithms", 0.025):
            return supervisor | {"kind": int(CommandKind.SET_RULE)} | self._sharing(book)
        if self.has("rules", 0.01) or self.has("bands", 0.02):
            return supervisor | {"kind": int(CommandKind.SET_RULE)} | self._rule()
        return None

    def _sharing(self, book: FullBook) -> Fields:
        rng, rules = self.rng, InstrumentRule
        account = self._often(rng.randint(1, self.world.accounts), 0) << 32
        if self.has("batches", 0.8 if book.in_batch else 0.5):  # it stays there for a while
            return self._batch(rules)
        beyond = (7, -1) if "batches" in self.model.built else (5, 6, 7, -1)
        rule, value = self._pick(
            [
                (rules.ALGORITHM, rng.randint(0, 4)),
                (rules.ALGORITHM, self._often(rng.randint(0, 4), *beyond)),
                (rules.FIFO_PERCENT, self._often(rng.randint(0, 100), 101)),
                (rules.LMM, account | self._often(rng.randint(0, 30), 0, 51)),
                (rules.MAX_LEVEL_ORDERS, self._pick((1000, 3, 2))),
                (rules.MAX_LEVEL_ORDERS, self._pick((1000, 1000, 1, self._often(2, 0)))),
            ]
        )
        return {"order_type": int(rule), "amount": value}

    def _batch(self, rules: type[InstrumentRule]) -> Fields:
        algorithm = rules.ALGORITHM
        rows = [
            (algorithm, 5),
            (algorithm, 6),
            (algorithm, 0),
            (rules.BATCH_MS, self.rng.randint(0, 2)),
            (rules.MIN_ORDERS, self._often(1, 2, 3, 0)),
            (rules.MIN_ORDERS, 1),
            (rules.BALANCE_PCT, self._pick((0, 20, 50, 100, 101))),
            (rules.MAX_WAIT_MS, self._pick((0, 1, 2, 2000))),
        ]
        rule, value = self._pick(rows)
        return {"order_type": int(rule), "amount": value}

    def _rule(self) -> Fields:
        rules = InstrumentRule
        values: dict[InstrumentRule, tuple[int, ...]] = {
            rules.STATIC_BAND: (0, 500, 2000, 10_001),
            rules.DYNAMIC_BAND: (0, 200, 500, 1000),
            rules.ON_BREACH: (0, 0, 1, 2),
            rules.ICEBERG_PARTS: (1, 5, 100, 0),
            rules.PROTECTION: (0, 2, -1),
            rules.STP: (1, 2, 3, 4, 5, 6, 7),
            rules.MAX_TRAILING: (0, 1, 2, 100),
            rules.MAX_PEGS: (1, 3, 100, 100),
        }
        often = [rules.MAX_TRAILING] * (3 if "trailing" in self.features else 0)
        rule = self._pick([*values, rules.DYNAMIC_BAND, rules.DYNAMIC_BAND, *often])
        number = 0 if self.rng.random() < 0.1 else int(rule)
        return {"order_type": number, "amount": self._pick(values[rule])}

    # ------------------------------------------------------------------------------ new orders
    def new(self) -> Fields:
        fields = super().new()
        book = self.model.books.get(fields.get("symbol_id", 0))
        if not isinstance(book, FullBook):
            return fields
        fields["flags"] &= int(CommandFlag.TEXT_ID)
        makers = [row for row in self.makers if row[0] in self.features]
        make = self.rng.choices([row[1] for row in makers], [row[2] for row in makers])[0]
        options = make(book, fields["side"])
        flags = fields["flags"] | options.pop("flags", 0)
        fields |= {"px": 0, "tif": 0} | options | {"flags": flags}
        if self.has("stp", 0.4):
            fields["stp"] = int(self._pick(list(SelfTrade)))
        return fields

    def _limit(self, book: FullBook, side: int) -> Fields:
        fields: Fields = {"order_type": int(OrderType.LIMIT), "px": self._price(book, side)}
        qty = fields["qty"] = self.rng.randint(1, self.world.qty_max)
        fields |= self._tif(0.25)
        flags = 0
        if self.has("iceberg", 0.25):
            fields["peak"] = self._often(self.rng.randint(1, qty), qty, qty + 1)
        elif self.has("hidden", 0.15):
            flags |= CommandFlag.HIDDEN
        if self.has("minimum", 0.1):
            fields["min_qty"] = self._often(self.rng.randint(1, qty), qty, qty + 1)
        if self.has("post_only", 0.12):
            flags |= CommandFlag.POST_ONLY | self._pick((0, CommandFlag.SLIDE))
        return fields | {"flags": int(flags)}

    def _market(self, book: FullBook, side: int) -> Fields:
        fields: Fields = {"order_type": int(OrderType.MARKET)} | self._tif(0.6)
        flags = CommandFlag.PROTECTED if self.rng.random() < 0.3 else 0
        if self.has("minimum", 0.2):
            fields["min_qty"] = self.rng.randint(1, self.world.qty_max)
        return fields | {"flags": int(flags)}

    def _market_to_limit(self, book: FullBook, side: int) -> Fields:
        fields: Fields = {"order_type": int(OrderType.MARKET_TO_LIMIT)}
        return fields | (self._rest_tif() if self.rng.random() < 0.5 else {})

    def _stop(self, book: FullBook, side: int) -> Fields:
        kinds = ("STOP", "STOP_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
        fields = {"order_type": int(OrderType[self._pick(kinds)])}
        if fields["order_type"] in STOP_LIMITS:
            fields |= self._limit(book, side) | fields | {"min_qty": 0}
        elif self.rng.random() < 0.2:
            fields |= {"tif": int(TIF.IOC)}
        else:
            fields |= self._rest_tif()
        if self.rng.random() < 0.5:
            fields["flags"] = fields.get("flags", 0) | int(CommandFlag.TRIGGER_BEST)
        rises = (side == 0) != (fields["order_type"] in TAKE_PROFITS)
        ahead = self.rng.randint(1, self.world.spread) * (1 if rises else -1)
        fields["px2"] = self._often(max((book.last_px or CENTRE) + ahead, 1), self._trigger(book))
        limited = fields["order_type"] in STOP_LIMITS
        if limited and fields["tif"] == TIF.GTC and self.has("post_only", 0.3):
            # It may well trade when its time has come.
            fields["px"] = max(fields["px2"] + (3 if side == 0 else -3), 1)
            fields["flags"] = fields.get("flags", 0) | int(CommandFlag.POST_ONLY)
        return fields

    def _budget(self, book: FullBook, side: int) -> Fields:
        lots = self.rng.randint(1, self.world.qty_max)
        money = lots * CENTRE * book.unit + self.rng.randint(-9, 9)
        fields = {"order_type": int(OrderType.BUDGET), "qty": 0, "amount": max(money, 0)}
        if self.rng.random() < 0.4:
            fields |= {"tif": int(TIF.FOK), "qty": self.rng.randint(0, lots)}
        return fields

    def _peg(self, book: FullBook, side: int) -> Fields:
        kinds = [OrderType.PEG_PRIMARY, OrderType.PEG_MARKET, OrderType.PEG_MID]
        kinds += [OrderType.PEG_MID] * (3 if self.pegs_often else 0)
        away = self.rng.randint(0, 30 if self.pegs_often else 8)
        cap = CENTRE + away if side == 0 else CENTRE - away
        fields: Fields = {"order_type": int(self._pick(kinds)), "px": self._often(cap, 0)}
        return fields | self._rest_tif()

    def _quote(self, book: FullBook) -> Fields:
        rng = self.rng
        session, fields = self._who()
        bid, ask = self._price(book, 0), self._price(book, 1)
        if rng.random() < 0.6:
            ask = bid + rng.randint(1, 4)
        live = quotes.live_quote(self.model, book, fields["account"])
        if live and rng.random() < 0.4:  # the same prices once more
            bid, ask = (live[side].px if side in live else px for side, px in ((0, bid), (1, ask)))
        one, other = self._pick((0, 1, 2, 2)), self._pick((0, 1, 2, 2))
        fields.update(
            kind=int(CommandKind.QUOTE),
            symbol_id=self._often(book.symbol_id, *self.model.books, 99),
            px=self._often(bid, 0, book.px_max + 1),
            px2=self._often(ask, bid),
            qty=rng.randint(1, self.world.qty_max) * (one > 0),
            qty2=rng.randint(1, self.world.qty_max) * (other > 0),
            client_order_id=self._client_id(session),
            tag=self._pick((0, 0, 7)),
            stp=self._often(0, 0, 0, 2),
            flags=self._often(0, 0, 0, int(CommandFlag.POST_ONLY), int(CommandFlag.TEXT_ID)),
            text=self._often(b"", b"", b"a quote"),
        )
        return BLANK_COMMAND | fields | {"in_ts": max(self.now, 0)}

    def _list(self, book: FullBook) -> Fields:
        """Legs of one list, usually a sound one; the first is returned, the others wait."""
        session, who = self._who()
        kind = self.rng.randint(1, 3)
        legs = []
        for number in range(self._often({1: 2, 2: 2, 3: 3}[kind], 1, 4)):
            side = int(self.rng.random() * 2)
            paired = bool(legs) and (kind == 1 or number == 2)
            if paired:
                side = legs[-1]["side"]
            make = self._stop if paired else self._limit
            leg = {"qty": self.rng.randint(1, 5), "flags": 0} | make(book, side)
            if paired:
                leg |= {name: legs[-1][name] for name in ("qty", "tif", "expire_ts")}
                leg["peak"] = 0
            elif legs and self.has("post_only", 0.5):
                leg["flags"] |= int(CommandFlag.POST_ONLY)  # which may fail when it goes live
            leg["flags"] |= int(CommandFlag.LIST)
            common = {"kind": int(CommandKind.NEW), "side": side, "symbol_id": book.symbol_id}
            numbered = {"client_order_id": self._client_id(session), "decision_code": kind}
            legs.append(BLANK_COMMAND | leg | common | numbered | who)
        legs[-1]["flags"] &= ~int(CommandFlag.LIST)
        self.waiting = legs[1:]
        return legs[0] | {"in_ts": max(self.now, 0)}

    def _limits(self, book: FullBook) -> Fields:
        return {
            "kind": int(CommandKind.SET_LIMITS),
            "account": self._often(self.rng.randint(1, self.world.accounts), 0),
            "qty": self._often(self.rng.randint(1, 4 + self.world.qty_max), 0, -1),
            "amount": self._often(10**9, 1000, self.rng.randint(1, 5000), 0, 2**61),
            "order_type": self._often(0, 1),
        }

    def _trigger(self, book: FullBook) -> int:
        near = book.last_px or CENTRE
        px = max(1, near + self.rng.randint(-self.world.spread, self.world.spread))
        return int(self._often(px, px, px, 0, 1, book.px_max + 1))

    def _trailing(self, book: FullBook, side: int) -> Fields:
        rng = self.rng
        fields: Fields = {"order_type": int(OrderType.TRAILING_STOP)} | self._rest_tif()
        fields["px"] = self._often(self._price(book, side), 0)
        if rng.random() < 0.4:
            fields["order_type"] = int(OrderType.TRAILING_STOP_LIMIT)
        fields["qty2"] = self._often(rng.randint(1, 3), 0)
        if rng.random() < 0.4:
            fields |= {"flags": int(CommandFlag.DISTANCE_BPS), "qty2": rng.randint(1, 800)}
        if rng.random() < 0.3:
            fields["px2"] = self._trigger(book)
        return fields

    def _tif(self, aggressive: float) -> Fields:
        if self.rng.random() < aggressive:
            return {"tif": int(self._pick((TIF.IOC, TIF.FOK)))}
        return self._rest_tif()

    def _rest_tif(self) -> Fields:
        if self.has("auction_tif", 0.08):
            return {"tif": int(self._pick((TIF.AT_OPEN, TIF.AT_CLOSE, TIF.GOOD_FOR_AUCTION)))}
        if not self.has("time", 0.2):
            return {"tif": int(TIF.GTC)}
        if self.rng.random() < 0.4:
            return {"tif": int(TIF.DAY)}
        after = self._often(self.rng.randint(1, 9) * 10 ** self.rng.randint(1, 10), 0, -3)
        return {"tif": int(TIF.GTD), "expire_ts": max(self.now, 0) + after}

    # --------------------------------------------------------------------- orders that are there
    def replace(self) -> Fields:
        fields = super().replace()
        order: Order | None = None
        if fields["kind"] == CommandKind.REPLACE:
            order = self.model.orders.get(self._named(fields))
        if isinstance(order, FullOrder):
            fields |= self._changes(order)
            if order.in_bps and self.rng.random() < 0.8:
                fields["flags"] = fields.get("flags", 0) | int(CommandFlag.DISTANCE_BPS)
        return fields

    def _named(self, fields: Fields) -> int:
        sessions = self.model.sessions
        order: Order | None
        if fields.get("target_client_order_id"):
            order = sessions.live_ids.get((fields["session"], fields["target_client_order_id"]))
        elif fields.get("text"):
            order = sessions.live_texts.get((fields["account"], fields["text"]))
        else:
            return int(fields.get("order_id", 0))
        return order.order_id if order else 0

    def _changes(self, order: FullOrder) -> Fields:
        rng = self.rng
        fields: Fields = {}
        if self.has("iceberg", 0.5 if order.peak else 0.05):
            fields["peak"] = self._often(rng.randint(1, 5), order.peak, order.total)
        if self.has("minimum", 0.06):
            fields["min_qty"] = self._pick((order.min_qty, rng.randint(1, 5)))
        book = self.model.books[order.symbol_id]
        assert isinstance(book, FullBook)
        if order.post_only and rng.random() < 0.4:
            fields["px"] = book.best_px(1 - order.side) or order.px
        if order.is_stop and rng.random() < 0.3:
            fields["px2"] = self._trigger(book)
            if order.distance and rng.random() < 0.5:
                fields["qty2"] = rng.randint(1, 4)
        if self.has("time", 0.1):
            fields |= self._rest_tif()
        elif self.has("time", 0.3 if order.tif == TIF.GTD else 0):
            fields["expire_ts"] = max(self.now, 0) + self._often(rng.randint(1, 600), 0, -1)
        return fields
