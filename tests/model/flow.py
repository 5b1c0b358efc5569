"""Random commands that go where bugs live: tiny books, tiny pools, every kind of nonsense.

Cold; used by tests only. `draw_world(rng)` draws the sizes and rules of one small exchange,
`Flow.next()` one command after the other. A flow looks at the model it will be applied to, so
that it can name live orders, foreign orders, orders that ended, and ids that were never issued; the
same seed gives the same commands as long as the model does not change.

Order ids are the model's (counter << 24, empty slot part); compare.py turns them into the engine's.
A non-empty slot part means "right counter, wrong slot": an id that was never issued.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.config import Instrument, ShardLimits
from engine.records import (
    PRICE_TICKS_MAX,
    QTY_LOTS_MAX,
    SLOT_BITS,
    SYMBOL_INDEX_BITS,
    UNSTATED,
    CommandFlag,
    CommandKind,
    OrderType,
    TimeInForce,
    pack_name,
)
from tests.model.book_model import Book, Order
from tests.model.checks_model import BLANK_COMMAND
from tests.model.exchange_model import ExchangeModel
from tests.model.session_model import Session

Fields = dict[str, Any]
T = TypeVar("T")

CENTRE = 50
LOGON_MAX = 2**32 - 1
EDGE_PRICES = (1, 2, PRICE_TICKS_MAX - 1, PRICE_TICKS_MAX)
# One-billionth ticks: the whole domain 1 .. 2**31-1. The others end at 100 ticks.
INSTRUMENTS = (
    Instrument("AA", "0.01", "1", "1.00"),
    Instrument("EDGE", "0.000000001", "1"),
    Instrument("BB", "0.05", "1", "5.00"),
)
TEMPLATE = Instrument("TEMPLATE", "0.01", "1", "0.80")
DEAD_MAN_TIMES = (1, 40, 3000, 20_000)
DAY = 20120621
SESSION_NAMES = (b"local", b"d1", b"d2", b"desk-003", b"d4")
BAD_NAMES = (b"", b"ninechars", b"sp ace", b"\x07bell", b"caf\xc3\xa9")
ROGUES = ("new", "new", "cancel", "replace", "mass_cancel", "query", "page", "session", "keep")


@dataclass(frozen=True)
class World:
    """One small exchange: what LocalExchange and the model are built with."""

    limits: ShardLimits
    accounts: int
    unknown_symbol: str
    spread: int  # prices lie within CENTRE +- spread
    qty_max: int
    aggression: float  # share of new orders priced to trade
    shard: int = 0


def draw_world(rng: random.Random) -> World:
    """Draw sizes so small that full and empty happen all the time."""
    limits = ShardLimits(
        orders_max=rng.choice((8, 16, 40, 64)),
        levels_max=rng.choice((4, 8, 16, 32)),
        symbols_max=rng.choice((4, 6)),
        sessions_max=rng.choice((8, 12)),
        accounts_max=8,
        text_ids_max=rng.choice((8, 100, 512)),
        account_limits_max=rng.choice((1, 3, 20)),
        quoters_max=rng.choice((2, 16, 16)),
        max_walk=rng.choice((1, 2, 5, 100)),
        slice_events=rng.choice((1, 2, 4, 5, 8, 32)),
        events_per_command_max=256,
        batch_max=rng.choice((1, 7, 64)),
    )
    return World(
        limits=limits,
        accounts=rng.choice((2, 3, 5)),
        unknown_symbol=rng.choice(("create", "reject")),
        spread=rng.choice((1, 3, 8)),
        qty_max=rng.choice((3, 10, 50)),
        aggression=rng.choice((0.3, 0.6)),
        shard=rng.choice((0, 0, 3)),
    )


class Flow:
    """An endless seeded stream of commands for one model."""

    def __init__(self, seed: int, world: World, model: ExchangeModel) -> None:
        self.rng = random.Random(seed)
        self.world, self.model = world, model
        self.now = 0
        self.seen: list[int] = []  # order ids that are or were live
        verbs: dict[Callable[[], Fields], int] = {
            self.new: 54,
            self.cancel: 10,
            self.replace: 18,
            self.mass_cancel: 1,
            self.query: 2,
            self.page: 2,
            self.session: 3,
            self.keep: 1,
            self.administration: 8,
            self.spoiled: 10,
        }
        self.verbs, self.weights = list(verbs), list(verbs.values())

    def next(self) -> Fields:
        """Draw the next command."""
        rng = self.rng
        self.now += 20_000 if rng.random() < 0.003 else rng.choice((0, 1, 1, 300, -5))
        command = BLANK_COMMAND.copy()
        command["in_ts"] = max(self.now, 0)
        if not any(session.is_open for session in self.model.sessions.slots):
            command.update(self._open_session(b"local"))
            return command
        if self.model.orders and rng.random() < 0.3:
            self.seen.append(next(reversed(self.model.orders)))
            del self.seen[:-64]
        verb = rng.choices(self.verbs, self.weights)[0]
        if rng.random() < 0.04 and self._blocked():
            verb = self._release  # a blocked exchange is dull
        if len(self.model.orders) >= self.world.limits.orders_max and rng.random() < 0.5:
            verb = self.cancel  # full is worth a visit, not a stay
        command.update(verb())
        return command

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.random() * len(choices))]

    def _often(self, usual: T, *others: T) -> T:
        return usual if self.rng.random() < 0.85 else self._pick(others)

    # ------------------------------------------------------------------------------ who speaks
    def _who(self) -> tuple[Session, Fields]:
        session = self._pick([s for s in self.model.sessions.slots if s.is_open])
        return session, {
            "session": session.slot,
            "logon": session.logon,
            "producer": session.producer,
            "account": session.account,
        }

    def _client_id(self, session: Session) -> int:
        chance = self.rng.random()
        if chance < 0.3:
            return 0
        if chance < 0.92:
            return session.last_id + 1 + int(chance * 100) % 3
        own = [n for slot, n in self.model.sessions.live_ids if slot == session.slot]
        return self._pick(own) if own else max(session.last_id, 1)

    def _text_share(self) -> float:
        full = len(self.model.sessions.used_texts) >= self.world.limits.text_ids_max
        return 0.05 if full else 0.6

    def _text(self) -> bytes:
        return b"t%d" % self.rng.randint(1, 150) if self.rng.random() < 0.97 else b"x" * 36

    # ------------------------------------------------------------------------------ new orders
    def new(self) -> Fields:
        rng = self.rng
        session, fields = self._who()
        side = int(rng.random() * 2)
        kind, tif, flags = self._style()
        books = list(self.model.books.values())
        book = books[0] if rng.random() < 0.5 else self._pick(books)
        qty = QTY_LOTS_MAX if rng.random() < 0.01 else rng.randint(1, self.world.qty_max)
        if kind == OrderType.MARKET:
            qty *= self._pick((1, 3))
        fields.update(
            kind=int(CommandKind.NEW),
            side=side,
            order_type=int(kind),
            tif=int(tif),
            flags=int(flags),
            qty=min(qty, QTY_LOTS_MAX),
            px=0 if kind == OrderType.MARKET else self._price(book, side),
            tag=self._pick((0, 0, 1, 2)),
        )
        fields.update(self._symbol(book))
        if session.slot % 3 == 0 and rng.random() < self._text_share():
            fields["flags"] |= int(CommandFlag.TEXT_ID)
            fields["text"] = self._text()
        else:
            fields["client_order_id"] = self._client_id(session)
        return fields

    def _style(self) -> tuple[OrderType, TimeInForce, int]:
        limit, tif = OrderType.LIMIT, TimeInForce
        return self.rng.choices(
            (
                (limit, tif.GTC, 0),
                (limit, tif.IOC, 0),
                (limit, tif.FOK, 0),
                (limit, tif.GTC, CommandFlag.POST_ONLY),
                (OrderType.MARKET, tif.GTC, 0),
                (OrderType.MARKET, tif.IOC, 0),
                (OrderType.MARKET, tif.FOK, 0),
            ),
            (60, 9, 9, 10, 4, 4, 4),
        )[0]

    def _symbol(self, book: Book) -> Fields:
        chance = self.rng.random()
        if chance < 0.90:
            return {"symbol_id": book.symbol_id}
        if chance < 0.97:
            return {"symbol": book.name}
        return {"symbol": self._pick((pack_name("U1"), pack_name("U2"), 0x20, 0x0A41, 2**62))}

    def _price(self, book: Book, side: int) -> int:
        if book.px_max == PRICE_TICKS_MAX:
            return self._wide_price(side)
        away = self.rng.randint(0, self.world.spread)
        if self.rng.random() < self.world.aggression:
            away = -away - 1
        px = CENTRE - away if side == 0 else CENTRE + 1 + away
        return self._often(px, px, px, 1, book.px_max, book.px_max + 1)

    def _wide_price(self, side: int) -> int:
        # Ends of the domain, and neighbours of powers of two far apart: every depth of a radix
        # tree. Buys mostly in the lower half of the exponents, sells in the upper.
        rng = self.rng
        if rng.random() < 0.3:
            return self._pick(EDGE_PRICES)
        exponent = rng.randint(0, 16) if side == 0 else rng.randint(14, 31)
        return min(max((1 << exponent) + rng.randint(-1, 1), 1), PRICE_TICKS_MAX)

    # --------------------------------------------------------------------- orders that are there
    def _target(self, session: Session) -> tuple[Fields, Order | None]:
        """Name an order: mostly a live one of the speaker, by each of its three ids."""
        rng, model = self.rng, self.model
        own = [o for o in model.orders.values() if o.account == session.account]
        chance = rng.random()
        if own and chance < 0.85:
            order = self._pick(own)
            mine = order.session == session.slot
            if mine and order.text and rng.random() < 0.7:
                return {"flags": int(CommandFlag.TEXT_ID), "text": order.text}, order
            if mine and order.client_order_id and rng.random() < 0.5:
                return {"target_client_order_id": order.client_order_id}, order
            return {"order_id": order.order_id}, order
        wrong_slot = (model.order_count << SLOT_BITS) | 5
        never = (model.order_count + rng.randint(1, 9)) << SLOT_BITS
        anyone = list(model.orders)
        stale = self.seen or [never]
        choices: list[Fields] = [
            {"order_id": self._pick(stale)},
            {"order_id": self._pick(anyone or stale)},
            {"order_id": self._pick((never, wrong_slot, -1, 1, 2**62))},
            {"target_client_order_id": max(1, session.last_id + rng.randint(-5, 5))},
            {"flags": int(CommandFlag.TEXT_ID), "text": self._text()},
        ]
        return self._pick(choices), None

    def _aim(self) -> tuple[Fields, Order | None]:
        session, fields = self._who()
        target, order = self._target(session)
        fields.update(target)
        if self.rng.random() < 0.4:
            fields["client_order_id"] = self._client_id(session)
        if order is not None and self.rng.random() < 0.5:
            fields["symbol_id"] = self._often(order.symbol_id, 1, 2, 99)
        return fields, order

    def cancel(self) -> Fields:
        fields, order = self._aim()
        if order is None and self.rng.random() < 0.6:
            return self.new()
        return fields | {"kind": int(CommandKind.CANCEL)}

    def replace(self) -> Fields:
        fields, order = self._aim()
        rng = self.rng
        fields.update(kind=int(CommandKind.REPLACE), side=UNSTATED, tif=UNSTATED)
        fields["qty"] = rng.choice((0, 1, rng.randint(1, self.world.qty_max), QTY_LOTS_MAX))
        fields["px"] = 0
        if order is None:
            return fields if rng.random() < 0.3 else self.new()
        book = self.model.books[order.symbol_id]
        near = min(max(1, order.total + rng.randint(-3, 3)), QTY_LOTS_MAX)
        fields["qty"] = self._often(near, order.cum, order.total, 0, fields["qty"])
        fields["px"] = self._pick((0, order.px, order.px, self._price(book, order.side)))
        if rng.random() < 0.1:
            fields["side"] = self._often(order.side, 1 - order.side)
            fields["tif"] = self._often(order.tif, int(TimeInForce.IOC), int(TimeInForce.DAY))
            types = (int(OrderType.MARKET), int(OrderType.STOP), 77)
            fields["order_type"] = self._often(order.order_type, *types)
        return fields

    def mass_cancel(self) -> Fields:
        session, fields = self._who()
        filters = (
            CommandFlag.BY_SESSION,
            CommandFlag.BY_SIDE,
            CommandFlag.BY_TAG,
            CommandFlag.BY_SYMBOL,
        )
        flags = sum(int(flag) for flag in filters if self.rng.random() < 0.35)
        fields.update(
            kind=int(CommandKind.MASS_CANCEL),
            flags=flags,
            side=self._often(int(self.rng.random() * 2), 0, 1, 2, 7),
            tag=self._pick((0, 1, 2)),
            symbol_id=self._often(self._pick(list(self.model.books)), 77),
        )
        fields["client_order_id"] = self._client_id(session)
        return fields

    def query(self) -> Fields:
        fields, _ = self._aim()
        return fields | {"kind": int(CommandKind.QUERY_ORDER)}

    def page(self) -> Fields:
        session, fields = self._who()
        own = [o.order_id for o in self.model.orders.values() if o.account == session.account]
        by_symbol = self.rng.random() < 0.3
        fields.update(
            kind=int(CommandKind.QUERY_OPEN_ORDERS),
            order_id=self._pick([0, 0, *own, *self.seen[:2]]),
            qty=self._often(self.rng.randint(0, 6), 500, 501),
            flags=int(CommandFlag.BY_SYMBOL) if by_symbol else 0,
            symbol_id=self._often(self._pick(list(self.model.books)), 77) if by_symbol else 0,
        )
        return fields

    # ------------------------------------------------------------------ sessions, administration
    def session(self) -> Fields:
        if self.rng.random() < 0.3:
            return self._who()[1] | {"kind": int(CommandKind.SESSION_CLOSE)}
        return self._open_session(self._often(self._pick(SESSION_NAMES), *BAD_NAMES))

    def keep(self) -> Fields:
        return self._who()[1] | {"kind": int(CommandKind.SESSION_KEEP)}

    def _open_session(self, name: bytes) -> Fields:
        account = self._often(self.rng.randint(1, self.world.accounts), 0, -1, 7, 10**6)
        known = self.model.sessions.named(account, name)
        logon = known.logon if known else 0
        cancel_all = CommandFlag.CANCEL_ALL_ON_CLOSE
        flags = (0, cancel_all, cancel_all, CommandFlag.CANCEL_DAY_ON_CLOSE)
        return {
            "kind": int(CommandKind.SESSION_OPEN),
            "account": account,
            "logon": self._often(min(logon + self.rng.randint(1, 3), LOGON_MAX), logon, 0),
            "producer": self._often(self.rng.randint(1, 4), 0),
            "text": name,
            "flags": int(self._pick(flags)),
            "amount": self._often(0, *DEAD_MAN_TIMES, -1, 2**60 + 1),
        }

    def administration(self) -> Fields:
        verbs = (
            self._account,
            self._listing,
            self._feed,
            self._time,
            self._reset,
            self._incarnation,
            self._later,
            self._kill,
            self._account_limit,
        )
        verb = self.rng.choices(verbs, (16, 20, 16, 15, 12, 6, 15, 30, 60))[0]
        return {"producer": self._often(1, 0, 2, 9)} | verb()

    def _admin_seq(self) -> int:
        newest = self.model.admin_seq
        return self._often(0, newest + 1, newest + 1, newest, 1)

    def _kill(self) -> Fields:
        name = b""
        if self.rng.random() < 0.4:
            name = self._often(self._pick(SESSION_NAMES), *BAD_NAMES)
        return {
            "kind": int(CommandKind.KILL_SWITCH),
            "account": self._often(self.rng.randint(1, self.world.accounts), 0, -1, 7, 10**6),
            "order_type": self._often(self.rng.randint(0, 2), 2, 3),
            "text": name,
            "client_order_id": self._admin_seq(),
        }

    def _blocked(self) -> list[tuple[int, bytes]]:
        accounts = [(account, b"") for account in sorted(self.model.killed)]
        sessions = [s for s in self.model.sessions.slots if s.killed]
        return accounts + [(session.account, session.name) for session in sessions]

    def _release(self) -> Fields:
        account, name = self._pick(self._blocked())
        kind = int(CommandKind.KILL_SWITCH)
        return {"kind": kind, "producer": 1, "account": account, "text": name}

    def _account_limit(self) -> Fields:
        rng, model = self.rng, self.model
        what = rng.randint(2, 5)
        size = self.world.qty_max
        values = {
            2: rng.randint(max(size // 2, 1), size),
            3: CENTRE * rng.randint(max(size // 2, 1), size),
            4: rng.randint(1, 5),
            5: rng.randint(1, 4 * size),
        }
        book = self._pick(list(model.books.values()))
        account = rng.randint(1, self.world.accounts)
        value = self._often(values[what], 0, 0, values[what], -1, 2**62)
        if model.limits_of and rng.random() < 0.4:
            (account, number), found = self._pick(list(model.limits_of.items()))
            book = model.books[number]
            what, value = self._pick(list(found.values)), self._pick((0, 0, values[what]))
        return {
            "kind": int(CommandKind.SET_LIMITS),
            "account": self._often(account, 0, -1, 7),
            "order_type": self._often(what, 0, 1, 6),
            "symbol_id": self._often(book.symbol_id, 77),
            "amount": value,
            "client_order_id": self._admin_seq(),
        }

    def _account(self) -> Fields:
        accounts = (self.rng.randint(1, 7), 0, -1, self.world.limits.accounts_max, 2**31 - 1)
        return {"kind": int(CommandKind.OPEN_ACCOUNT), "account": self._often(*accounts)}

    def _listing(self) -> Fields:
        names = (pack_name(f"L{self.rng.randint(0, 2)}"), pack_name("AA"), 0, 0x7F)
        return {
            "kind": int(CommandKind.LIST_INSTRUMENT),
            "symbol": self._often(*names),
            "amount": self._often(10**7, 10**8),
            "expire_ts": self._often(10**9, 10**8),
            "px2": self._often(100, 1, PRICE_TICKS_MAX),
            "order_type": self._often(0, 2),
            "stp": self._often(1, 0, 7),
            "peak": self._often(100, 0, -1),
            "qty2": self._often(0, -1),
        }

    def _feed(self) -> Fields:
        return {
            "kind": int(CommandKind.FEED_STATE),
            "order_type": ord(self._pick("OOOSQMEC")),
            "amount": DAY + self._pick((-1, 0, 0, self.now // 20_000)),
            "expire_ts": self.rng.randint(1, 5),
        }

    def _time(self) -> Fields:
        rng = self.rng
        return {
            "kind": int(CommandKind.TIME),
            "session": self._often(0, 1, 2, 3, 4, 9999, -1),
            "amount": self._often(0, 1, 50, 5000, -1, -(2**62), 2**61),
            "in_ts": max(self.now + self._pick((0, 50, 5000)), 0),
            "producer": self._often(0, rng.randint(1, 3)),
        }

    def _reset(self) -> Fields:
        producer = self._often(self.rng.randint(1, 4), 0, 255, 256, -1)
        fields: Fields = {
            "kind": int(CommandKind.PRODUCER_RESET),
            "client_order_id": producer,
            "amount": self._pick((0, 1, 30, 2000, 2000, -1)),
        }
        if self.rng.random() < 0.3:
            fields["producer"] = max(producer, 0) & 255  # a successor for itself
        if self.rng.random() < 0.3:
            fields["logon"] = self.rng.randint(1, 6)  # later logons are not meant
        return fields

    def _incarnation(self) -> Fields:
        return {
            "kind": int(CommandKind.INCARNATION),
            "amount": self._often(self.rng.randint(0, 9), -1),
            "expire_ts": self._often(self._pick((0, 1)), 2, -1),
        }

    def _later(self) -> Fields:
        return {"kind": self._often(self._pick((17, 18, 34, 35, 36, 37, 38, 39, 40)), 41, 255)}

    # -------------------------------------------------------------------------------- nonsense
    def spoiled(self) -> Fields:
        """Take a sensible request and make one field of it wrong."""
        fields = getattr(self, self._pick(ROGUES))()
        name = self._pick(list(SPOILS))
        fields[name] = self._pick(SPOILS[name])
        if name == "symbol_id":
            fields["symbol"] = 0
        if fields["kind"] < CommandKind.SESSION_OPEN and not fields.get("session"):
            fields["session"] = -1  # LocalExchange would fill in a 0
        return fields


SPOILS: dict[str, Sequence[int]] = {
    "kind": (0, 5, 10, 15, 17, 18, 33, 41, 255),
    "side": (0, 1, 2, 7, 254),
    "order_type": (0, 1, 2, 3, 5, 13, 14, 200),
    "tif": (0, 1, 2, 3, 4, 7, 8, 99),
    "stp": (1, 5, 6, 255),
    "qty": (0, -1, -(2**31), QTY_LOTS_MAX),
    "px": (0, -1, -(2**31), 101, PRICE_TICKS_MAX),
    "flags": (1, 2, 3, 4, 8, 9, 16, 128, 256, 512, 1024, 1920),
    "peak": (1, -1),
    "min_qty": (1, -1),
    "px2": (1, -1),
    "qty2": (1, -1),
    "amount": (1, -(2**62)),
    "expire_ts": (1, 2**62),
    "client_order_id": (-1, -(2**63)),
    "target_client_order_id": (-1, -(2**63)),
    "order_id": (0,),
    "session": (-1, 1, 2, 5, 9999, 2**31 - 1),
    "logon": (0, 1, LOGON_MAX),
    "producer": (0, 1, 2, 3, 255),
    "account": (0, -1, 1, 2, 3, 7, 8, 2**31 - 1),
    "symbol_id": (0, -1, 1, 99, 1 << SYMBOL_INDEX_BITS | 1, 2**31 - 1),
    "symbol": (0, 2**63 - 1),
    "tag": (0, 2**32 - 1),
}
