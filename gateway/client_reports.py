"""What the client library hands out: reports as typed objects, and the summaries its verbs return.

Cold, no I/O. Prices and quantities are exact `Decimal`s, ids are opaque integers (or text), times
are nanoseconds. `report_of` makes the object of one decoded line; it trusts nothing it does not
need: a key that is missing gives the field's empty value, an unknown `type` gives a plain `Report`.
Every report keeps its line in `raw`, so that nothing the exchange said is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.client_errors import ProtocolError

Id = int | str
ZERO = Decimal(0)


@dataclass(slots=True, eq=False)
class Report:
    """One private report. The classes below say what happened; the fields are the same for all."""

    type: str
    seq: int  # gapless per (account, shard); 0: made by the gateway, or not about the account
    shard: int
    session: str
    symbol: str
    order_id: int
    id: Id  # the order's client id; 0: none
    side: str
    order_type: str
    tif: str
    price: Decimal | None
    qty: Decimal
    leaves: Decimal
    filled: Decimal
    trade_id: int
    role: str
    code: int
    reason: str
    text: str
    last: bool  # last report of its command
    ts: int
    receipt: tuple[int, ...]
    shown: Decimal | None  # displayed quantity, where it is less than `leaves`
    peak: Decimal | None  # of an iceberg
    trigger: Decimal | None  # price that an order waited for (Triggered)
    prevented: Decimal  # lost to orders of one's own account so far (Status)
    stp: str  # mode of a prevented self-trade,
    other_order_id: int  # and the order that was met
    limit: Decimal | None  # of a protection (MmpFired)
    window_ns: int
    raw: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        words = [self.type, self.side, str(self.qty or ""), self.symbol]
        words += [
            f"at {self.price}" if self.price is not None else "",
            self.reason,
            self.text,
            self.stp,
        ]
        words += [
            f"id {self.id}" if self.id else "",
            f"order {self.order_id}" if self.order_id else "",
        ]
        return " ".join(word for word in words if word)


class Accepted(Report):
    """A new order was taken; what it did follows."""


class Rejected(Report):
    """A request was refused: `code`, and a sentence in `text`."""


class Replaced(Report):
    """A replace was done."""


class Canceled(Report):
    """The order's open quantity left on request."""


class Expired(Report):
    """The order's open quantity left by its own terms."""


class Booked(Report):
    """The order, or what remains of it, rests in the book."""


class Fill(Report):
    """A trade of this account's order; `role` says maker, taker or auction."""


class Refreshed(Report):
    """An iceberg shows its next slice, `qty`."""


class Prevented(Report):
    """The order met one of its own account; `qty` is what it lost by that."""


class Triggered(Report):
    """The price came that the order waited for: it runs now, with limit `price` if it has one."""


class Parked(Report):
    """The order waits, unseen: for the auction it is for, or, a peg, for a price to follow."""


class Repriced(Report):
    """A peg stands at a new `price`, or again at one."""


class Activated(Report):
    """The auction that the order waited for begins: it takes part now."""


class MmpFired(Report):
    """More than `limit` was filled on the account's quotes of the instrument within `window_ns`:
    `qty`. The quotes are gone, and new ones are refused until the exchange arms the protection.
    """


class Status(Report):
    """Where an order stands."""


class Summary(Report):
    """End of a mass cancel or of a page."""


PRICE_TELLING = (Accepted, Replaced, Booked, Repriced, Parked, Status)

REPORT_TYPES: dict[str, type[Report]] = {
    kind.__name__.lower(): kind
    for kind in (
        Accepted, Rejected, Replaced, Canceled, Expired, Booked, Fill, Refreshed, Prevented,
        Triggered, Parked, Repriced, Activated, Status, Summary,
    )
} | {"mmp_fired": MmpFired}  # fmt: skip


def decimal_of(value: Any) -> Decimal:
    """Give an exact decimal of what the exchange wrote."""
    if isinstance(value, float):
        value = repr(value)
    try:
        return Decimal(value)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ProtocolError(
            f"the exchange sent {value!r} where a decimal number belongs"
        ) from error


def report_of(line: dict[str, Any]) -> Report:
    """Make the report object of one decoded line."""
    get = line.get
    price, shown, peak, trigger = (get(key) for key in ("price", "shown", "peak", "trigger"))
    limit = get("limit")
    kind = get("type", "")
    return REPORT_TYPES.get(kind, Report)(
        type=kind,
        seq=get("seq", 0) if isinstance(get("seq", 0), int) else 0,
        shard=get("shard", 0),
        session=get("session", ""),
        symbol=get("symbol", ""),
        order_id=get("order_id", 0),
        id=get("id", 0),
        side=get("side", ""),
        order_type=get("order_type", ""),
        tif=get("tif", ""),
        price=None if price is None else decimal_of(price),
        qty=decimal_of(get("qty", 0)),
        leaves=decimal_of(get("leaves", 0)),
        filled=decimal_of(get("filled", 0)),
        trade_id=get("trade_id", 0),
        role=get("role", ""),
        code=get("code", 0),
        reason=get("reason", ""),
        text=get("text", ""),
        last=get("last", False),
        ts=get("ts", 0),
        receipt=tuple(get("receipt", ())),
        shown=None if shown is None else decimal_of(shown),
        peak=None if peak is None else decimal_of(peak),
        trigger=None if trigger is None else decimal_of(trigger),
        prevented=decimal_of(get("prevented", 0)),
        stp=get("stp", ""),
        other_order_id=get("other_order_id", 0),
        limit=None if limit is None else decimal_of(limit),
        window_ns=get("window_ns", 0),
        raw=line,
    )


@dataclass(slots=True)
class Order:
    """An order as `place`, `replace` and `order` return it; names are CCXT's where CCXT has one.

    It is how the order stood then. `follow` gives how it stands after a later report of the stream.
    Always amount = filled + remaining + prevented + what was cancelled or expired.
    """

    id: Id
    order_id: int
    shard: int
    symbol: str
    side: str
    type: str
    tif: str
    price: Decimal | None  # of a peg: where it stands, its cap while it is parked
    amount: Decimal
    filled: Decimal
    remaining: Decimal
    status: str  # open | filled | canceled | expired
    prevented: Decimal  # lost to orders of one's own account
    shown: Decimal  # displayed in the book
    peak: Decimal | None  # of an iceberg
    reports: tuple[Report, ...] = field(repr=False)

    @property
    def fills(self) -> tuple[Fill, ...]:
        """Trades among `reports`: those this request itself caused, and what was followed since."""
        return tuple(report for report in self.reports if isinstance(report, Fill))

    @property
    def average(self) -> Decimal | None:
        """Average price of `fills`; None without one."""
        size = sum((fill.qty for fill in self.fills), ZERO)
        return self.cost / size if size else None

    @property
    def cost(self) -> Decimal:
        """What `fills` came to in the quote asset, without fees: what a budget order spent."""
        return sum((fill.qty * (fill.price or ZERO) for fill in self.fills), ZERO)

    @classmethod
    def of(cls, reports: Sequence[Report]) -> "Order":
        """Read an order from its reports, oldest first."""
        first = reports[0]
        own = [r for r in reports if (r.shard, r.order_id) == (first.shard, first.order_id)]
        totals = [r for r in own if isinstance(r, Accepted | Replaced | Status)]
        head = totals[-1] if totals else first
        return cls(
            id=first.id,
            order_id=first.order_id,
            shard=first.shard,
            symbol=first.symbol,
            side=first.side,
            type=next((report.order_type for report in own if report.order_type), ""),
            tif=next((report.tif for report in own if report.tif), ""),
            price=_price_of(own, head),
            amount=head.qty,
            filled=own[-1].filled,
            remaining=own[-1].leaves,
            status=_status_of(own[-1]),
            prevented=_prevented_of(own),
            shown=_shown_of(own),
            peak=next((report.peak for report in reversed(own) if report.peak is not None), None),
            reports=tuple(reports),
        )

    def follow(self, report: Report) -> "Order":
        """The order after one more of its reports; the same one after any other report."""
        named = (report.shard, report.order_id) == (self.shard, self.order_id)
        return Order.of((*self.reports, report)) if named and report.side else self


def _price_of(own: Sequence[Report], head: Report) -> Decimal | None:
    # What was accepted, or what a peg came to since.
    if not any(report.order_type.startswith("peg_") for report in own):
        return head.price
    told = [r for r in own if isinstance(r, PRICE_TELLING) and r.price is not None]
    return told[-1].price if told else head.price


@dataclass(slots=True)
class Quote:
    """Both sides of a quote as `quote` returns them; None: no order of that side was there, or is
    now. A side that was removed is there once more, canceled.
    """

    symbol: str
    bid: Order | None
    ask: Order | None
    reports: tuple[Report, ...] = field(repr=False)

    @classmethod
    def of(cls, reports: Sequence[Report]) -> "Quote":
        """Read a quote from the reports that answer it."""
        sides = {side: [r for r in reports if r.side == side] for side in ("buy", "sell")}
        bid, ask = (Order.of(own) if own else None for own in sides.values())
        return cls(reports[0].symbol, bid, ask, tuple(reports))

    def follow(self, report: Report) -> "Quote":
        """The quote after one more report of either side; the same after any other."""
        bid = self.bid and self.bid.follow(report)
        return Quote(self.symbol, bid, self.ask and self.ask.follow(report), self.reports)


def _status_of(newest: Report) -> str:
    if isinstance(newest, Status):
        state = str(newest.raw.get("state", newest.role)).lower()
        return {"new": "open", "partially_filled": "open", "": "open"}.get(state, state)
    if isinstance(newest, Canceled | Expired):
        return newest.type
    if isinstance(newest, Prevented) and newest.leaves == 0:
        return "expired"
    return "filled" if newest.leaves == 0 else "open"


def _prevented_of(own: Sequence[Report]) -> Decimal:
    # What a new total, or that of a status, leaves unexplained is all there was before it.
    total = ZERO
    for report in own:
        if isinstance(report, Status | Replaced):
            total = max(report.qty - report.leaves - report.filled, ZERO)
        elif isinstance(report, Prevented):
            total += report.qty
    return total


def _shown_of(own: Sequence[Report]) -> Decimal:
    # What the newest report that tells says; a report that leaves it out means all of `leaves`.
    shown = ZERO
    for report in own:
        kept = isinstance(report, Replaced) and bool(report.raw.get("kept"))
        maker = isinstance(report, Fill) and report.role != "taker"
        if isinstance(report, Booked | Refreshed | Repriced | Status) or kept or maker:
            shown = report.leaves if report.shown is None else report.shown
        elif isinstance(report, Prevented):
            displayed = report.leaves if "ref" in report.raw else min(shown, report.leaves)
            shown = displayed if report.shown is None else report.shown
        else:
            shown = ZERO
    return shown


@dataclass(slots=True)
class Level:
    """One price level of a book."""

    price: Decimal
    qty: Decimal
    orders: int


@dataclass(slots=True)
class Book:
    """A picture of one book, best levels first."""

    symbol: str
    bids: list[Level]
    asks: list[Level]
    seq: int  # out_seq of the last event it contains
    ts: int
    last: Decimal | None
    raw: dict[str, Any] = field(repr=False)

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid; None when a side is empty."""
        return self.asks[0].price - self.bids[0].price if self.bids and self.asks else None

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Book":
        """Read the answer of a `book` request."""
        last = line.get("last_price")
        return cls(
            symbol=line.get("symbol", ""),
            bids=_levels(line.get("bids", ())),
            asks=_levels(line.get("asks", ())),
            seq=line.get("out_seq", 0),
            ts=line.get("ts", 0),
            last=None if last is None else decimal_of(last),
            raw=line,
        )


def _levels(rows: Sequence[Sequence[Any]]) -> list[Level]:
    return [
        Level(decimal_of(row[0]), decimal_of(row[1]), row[2] if len(row) > 2 else 0) for row in rows
    ]


@dataclass(slots=True)
class InstrumentInfo:
    """One tradable symbol as the exchange lists it."""

    symbol: str
    shard: int
    tick: Decimal
    lot: Decimal
    max_price: Decimal
    phase: str
    raw: dict[str, Any] = field(repr=False)
    rules: str = "plain"  # or full: which options orders may have

    @classmethod
    def of(cls, line: dict[str, Any]) -> "InstrumentInfo":
        """Read one row of the answer to `instruments`."""
        return cls(
            symbol=line.get("symbol", ""),
            shard=line.get("shard", 0),
            tick=decimal_of(line.get("tick", 0)),
            lot=decimal_of(line.get("lot", 0)),
            max_price=decimal_of(line.get("max_price", 0)),
            phase=line.get("phase", ""),
            rules=line.get("rules", "plain"),
            raw=line,
        )


@dataclass(slots=True)
class Gap:
    """Reports of this account that did not arrive: `first` to `last`, both included."""

    shard: int
    first: int
    last: int


@dataclass(slots=True)
class Logon:
    """What the exchange said at logon."""

    account: str
    session: str
    ids: str
    shards: int
    last_id: int
    seq: dict[int, int]
    incarnation: int  # another one than before: what was acknowledged last may be lost
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Logon":
        """Read a logon answer."""
        return cls(
            account=str(line.get("account", "")),
            session=line.get("session", ""),
            ids=line.get("ids", "integer"),
            shards=line.get("shards", 1),
            last_id=line.get("last_id", 0),
            seq={int(shard): seq for shard, seq in line.get("seq", {}).items()},
            incarnation=line.get("incarnation", 0),
            raw=line,
        )
