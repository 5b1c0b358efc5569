"""A small stage for stories about a full instrument: terse commands in, one line per command out.

Cold; used by tests only. `Story` has one exchange with one instrument, every stream it makes goes
through the FullStreamChecker, and the model checks itself after each command. Orders are named #1,
#2, ... as they are accepted. The taker's half of a fill is not told, only checked.
"""

from __future__ import annotations

from typing import Any

from engine.config import Instrument, ShardLimits
from engine.records import (
    SLOT_BITS,
    UNSTATED,
    CommandKind,
    EventFlag,
    EventKind,
    InstrumentRule,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    Role,
    Side,
)
from tests.model.checks_model import BLANK_COMMAND
from tests.model.desk_model import SUPERVISOR
from tests.model.exchange_model import ExchangeModel, start
from tests.model.full.book import FullBook
from tests.model.full_check import FullStreamChecker

Event = dict[str, Any]
SYMBOL = "FX"
REASONED = (EventKind.EXPIRED, EventKind.CANCELED, EventKind.PARKED, EventKind.ACTIVATED)
WITH_PRICE = (EventKind.ACCEPTED, EventKind.REPLACED, EventKind.FILL)


class Story:
    """One exchange with one full instrument, 1 .. 1000 ticks, and five accounts."""

    def __init__(self, limits: ShardLimits | None = None, **terms: Any) -> None:
        self.model = ExchangeModel(limits)
        self.checker = FullStreamChecker()
        instrument = Instrument(SYMBOL, "1", "1", "1000", **({"rules": "full"} | terms))
        self.checker.feed(start(self.model, (instrument,), 5))
        self.now = 0
        self.events: list[Event] = []

    @property
    def book(self) -> FullBook:
        book = self.model.books[1]
        assert isinstance(book, FullBook)
        return book

    # -------------------------------------------------------------------------------- commands
    def apply(self, kind: CommandKind, **fields: Any) -> str:
        """Run one command; tell what happened."""
        command = BLANK_COMMAND | {"kind": int(kind), "in_ts": self.now, "producer": SUPERVISOR}
        command |= {name: int(v) if name != "text" else v for name, v in fields.items()}
        self.events = self.model.apply(command)
        self.checker.feed(self.events)
        self.model.check()
        # What TIME said of a call on the way is left to until().
        self.events = [e for e in self.events if e["kind"] != EventKind.INDICATIVE]
        return self.told()

    def told(self) -> str:
        """What the last command said, in one line."""
        taker = [e["kind"] == EventKind.FILL and e["role"] == Role.TAKER for e in self.events]
        return "; ".join(tell(e) for e, skip in zip(self.events, taker, strict=True) if not skip)

    def _as(self, account: int) -> dict[str, int]:
        return {"account": account, "session": account, "logon": 1}

    def order(self, account: int, side: Side, what: str, **fields: Any) -> str:
        """`what` is "qty@px" or "qty"."""
        qty, _, px = what.partition("@")
        fields = {"order_type": OrderType.LIMIT if px else OrderType.MARKET} | fields
        numbers = {"qty": int(qty), "px": int(px or 0), "side": side, "symbol_id": 1}
        return self.apply(CommandKind.NEW, **(self._as(account) | numbers | fields))

    def buy(self, account: int, what: str, **fields: Any) -> str:
        return self.order(account, Side.BUY, what, **fields)

    def sell(self, account: int, what: str, **fields: Any) -> str:
        return self.order(account, Side.SELL, what, **fields)

    def quote(self, account: int, bid: str, ask: str) -> str:
        """Each side "qty@px", or "" for none."""
        (qty, _, px), (qty2, _, px2) = bid.partition("@"), ask.partition("@")
        numbers = {"qty": qty or 0, "px": px or 0, "qty2": qty2 or 0, "px2": px2 or 0}
        return self.apply(CommandKind.QUOTE, **self._as(account), symbol_id=1, **numbers)

    def replace(self, number: int, **fields: Any) -> str:
        """Replace order #number."""
        order_id = number << SLOT_BITS
        who = self._as(self.model.orders[order_id].account)
        fields = who | {"side": UNSTATED, "tif": UNSTATED, "order_id": order_id} | fields
        return self.apply(CommandKind.REPLACE, **fields)

    def cancel(self, number: int) -> str:
        order_id = number << SLOT_BITS
        who = self._as(self.model.orders[order_id].account)
        return self.apply(CommandKind.CANCEL, **who, order_id=order_id)

    def mass_cancel(self, account: int, **fields: Any) -> str:
        return self.apply(CommandKind.MASS_CANCEL, **(self._as(account) | fields))

    def phase(self, new: Phase) -> str:
        return self.apply(CommandKind.SET_PHASE, symbol_id=1, order_type=new)

    def rule(self, rule: InstrumentRule, value: int) -> str:
        return self.apply(CommandKind.SET_RULE, symbol_id=1, order_type=rule, amount=value)

    def until(self, now: int) -> str:
        """Time passes, and what is due happens."""
        self.now = now
        self.events = self.model.advance(now)
        self.checker.feed(self.events)
        self.model.check()
        return self.told()

    # --------------------------------------------------------------------------------- looking
    def ladder(self, side: Side) -> str:
        """Orders of one side in priority order: name:shown/leaves@px, hidden ones in brackets."""
        rows = []
        for o in self.book.orders(side):
            size = f"{o.shown}/{o.leaves}" if o.peak else f"{o.leaves}"
            rows.append(f"[{name(o.order_id)}:{size}@{o.px}]" if o.hidden else "")
            rows[-1] = rows[-1] or f"{name(o.order_id)}:{size}@{o.px}"
        return " ".join(rows)

    @property
    def bids(self) -> str:
        return self.ladder(Side.BUY)

    @property
    def asks(self) -> str:
        return self.ladder(Side.SELL)


def name(order_id: int) -> str:
    return f"#{order_id >> SLOT_BITS}"


def tell(event: Event) -> str:
    """One event in a few words."""
    kind = EventKind(event["kind"])
    if kind == EventKind.REJECTED:
        return f"REJECTED {RejectCode(event['code']).name}"
    if kind == EventKind.PHASE:
        return f"PHASE {Phase(event['code']).name}"
    words = [kind.name]
    if event["order_id"]:
        words.append(name(event["order_id"]))
    if kind in WITH_PRICE:
        words.append(f"{event['qty']}@{event['px']}")
    elif kind in (EventKind.BOOKED, EventKind.REPRICED):
        partly = event["shown"] != event["qty"]
        shown = f"{event['shown']}/" if partly else ""
        words.append(f"{shown}{event['qty']}@{event['px']}")
    elif event["qty"] or kind == EventKind.EXPIRED:
        words.append(str(event["qty"]))
    if kind == EventKind.TRIGGERED:
        words.append(f"at {event['px2']} limit {event['px']}")
    elif kind in (EventKind.CROSSED, EventKind.INDICATIVE):
        words.append(f"at {event['px']}")
    if kind in REASONED and event["reason"]:
        words.append(Reason(event["reason"]).name)
    if kind == EventKind.EXPIRED and event["code"]:
        words.append(RejectCode(event["code"]).name)
    if event["flags"] & EventFlag.KEPT:
        words.append("kept")
    if kind == EventKind.BOOKED and event["flags"] & EventFlag.TOP:
        words.append("top")
    return " ".join(words)
