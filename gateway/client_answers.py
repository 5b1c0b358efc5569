"""Pieces of the client core: what a request waits for, how requests are written. Cold, no I/O."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypedDict

from gateway.client_errors import RingbookError, error_of
from gateway.client_reports import (
    Booked,
    Canceled,
    Expired,
    Fill,
    Id,
    Order,
    Parked,
    Rejected,
    Replaced,
    Report,
    Repriced,
    Status,
    Summary,
)

# Order types that wait for their price, unseen.
WAITING = frozenset(
    "stop stop_limit take_profit take_profit_limit trailing_stop trailing_stop_limit".split()
)
Number = Decimal | int | str | float
Line = dict[str, Any]
Takes = Callable[[Line, Report | None], tuple[bool, bool]]


class OrderOptions(TypedDict, total=False):
    """What an order may say beside symbol, side, quantity and price. From `order_type` on only
    instruments with the full rules know them (docs/protocol.md, "The full rules").
    """

    tif: str | None  # gtc, ioc, fok; day, gtd, at_open, at_close, good_for_auction
    post_only: bool
    id: Id | None
    tag: int | None
    # market_to_limit, stop, stop_limit, take_profit, take_profit_limit, trailing_stop,
    # trailing_stop_limit, peg_primary, peg_market, peg_mid; limit and market follow from the price
    order_type: str | None
    peak: Number | None  # iceberg: displayed at a time
    min_qty: Number | None  # at least so much at once, or nothing
    hidden: bool
    slide: bool  # post-only: one tick from the best opposite price rather than refused
    stp: str | None  # none, expire_taker, expire_maker, expire_both, decrement, transfer
    expire_time: int | None  # nanoseconds since 1970, for gtd
    protected: bool  # market: no further than the instrument's protection
    trigger: Number | None  # stop and take-profit: the price they wait for
    trigger_on: str | None  # last (trade), best (opposite displayed price)
    activation: Number | None  # trailing: the trail begins there
    distance: Number | None  # trailing: behind the best price since
    distance_bps: int | None  # the same in hundredths of a percent
    budget: (
        Number | None
    )  # instead of a quantity: spend, or raise, at most that much; fok states both


class ReplaceOptions(TypedDict, total=False):
    """What a replace may change beside price and quantity."""

    peak: Number | None
    min_qty: Number | None
    tif: str | None
    expire_time: int | None
    trigger: Number | None
    activation: Number | None
    distance: Number | None
    distance_bps: int | None


def number_text(value: Number | None) -> str | None:
    """As `decimal_text`; None stays None."""
    return None if value is None else decimal_text(value)


@dataclass(slots=True, eq=False)
class Answer:
    """What one request waits for. `takes(line, report)`: is it part of it, and does it end it."""

    takes: Takes
    lines: list[Line] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    done: bool = False
    failure: RingbookError | None = None
    waiter: Any = None  # AsyncClient keeps its future here
    payload: bytes = b""  # what it answers, to be sent again on a new connection
    repeated: bool = False  # a lost connection may have sent it before


@dataclass(slots=True, eq=False)
class Request:
    """Bytes to send, and the answer to wait for."""

    payload: bytes
    answer: Answer


def decimal_text(value: Number) -> str:
    """Write a number as the exact decimal text a person would type; never with an exponent."""
    if isinstance(value, bool):
        raise TypeError("a price or quantity is a number, not True or False")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a price or quantity")
        value = repr(value)  # the shortest text that reads back as this float: what was typed
    if isinstance(value, str):
        value = value.strip()
        if "e" not in value.lower():
            return value
    if isinstance(value, int):
        return str(value)
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{value} is not a price or quantity")
    return format(number, "f")


def target_line(
    order: "Order | int | None", id: Id | None, symbol: str | None, shard: int | None
) -> Line:
    """Name an order: an Order, its order_id, or its client id."""
    if isinstance(order, Order):
        return {
            "order_id": order.order_id,
            "symbol": order.symbol or symbol,
            "shard": None if order.symbol else order.shard,
        }
    if order is None and id is None:
        raise ValueError("name the order: an Order, its order_id, or id= its client id")
    return {"order_id": order, "target_id": id, "symbol": symbol, "shard": shard}


def ends(report: Report) -> bool:
    """Whether nothing more follows on the request that caused this report."""
    if isinstance(report, Fill):
        return report.last or report.leaves == 0
    if isinstance(report, Replaced) and report.raw.get("kept"):
        return True  # pegs of others may be repriced behind it
    return report.last or isinstance(
        report, Rejected | Booked | Parked | Repriced | Expired | Canceled | Status
    )


def of_mark(kind: str, mark: str) -> Takes:
    """Give what answers a query: its mark, or its kind where the mark was left out."""

    def takes(line: Line, report: Report | None) -> tuple[bool, bool]:
        mine = line.get("request") == mark
        if report is None:
            mine = mine or (line["type"] == kind and "request" not in line)
        return mine, mine

    return takes


def leg_ids(line: Line) -> list[Id]:
    """Client ids of the legs of a list, in their order."""
    return [line[key] for key in ("leg1_id", "leg2_id", "leg3_id") if key in line]


def of_list(line: Line, own: Callable[[Report], bool]) -> Takes:
    """Give what answers a list: all up to where each leg is at rest. An order that waits for its
    price is told of by ACCEPTED alone; a leg that waits for the first order is parked; a refusal
    names one leg and means all.
    """
    left: dict[Id | None, bool] = {}  # leg -> whether ACCEPTED is not yet the end
    for number, leg in enumerate(leg_ids(line), 1):
        enters = number == 1 or line["type"] == "oco"
        left[leg] = not (enters and line.get(f"leg{number}_order_type") in WAITING)
    legs = set(left)

    def takes(_: Line, report: Report | None) -> tuple[bool, bool]:
        if report is None or report.id not in legs or not own(report):
            return False, False
        if ends(report) or not left.get(report.id, True):
            left.pop(report.id, None)
        return True, report.last or not left or isinstance(report, Rejected)

    return takes


def of_mass(summaries: int, own: Callable[[Report], bool], row: type[Report] = Canceled) -> Takes:
    """Give what answers a request with many rows: all up to the last of its summaries. Another
    session of the account may ask the same at the same time: its summary is not ours. Nor is one of
    this session that ends what the exchange cancelled by itself, when the last connection was lost
    or the client was silent: its reason tells.
    """
    left, why = summaries, "" if row is Status else "mass"

    def takes(line: Line, report: Report | None) -> tuple[bool, bool]:
        nonlocal left
        if isinstance(report, Summary):
            mine = own(report) and report.reason == why
            left -= mine
            return mine, mine and left == 0
        if isinstance(report, Rejected):
            mine = own(report) and not (report.id or report.order_id)
            return mine, mine
        if report is None or not isinstance(report, row):
            return False, False
        return row is Status or report.reason == "mass", False

    return takes


def of_quote(number: int, own: Callable[[Report], bool]) -> Takes:
    """Give what answers a quote: an answer for each side that was or is there, then how what enters
    fares.
    """
    due, running = True, set[str]()

    def takes(line: Line, report: Report | None) -> tuple[bool, bool]:
        nonlocal due
        if report is None or report.id != number or not own(report):
            return False, False
        if isinstance(report, Rejected):
            return True, True
        if due:
            due = bool(report.raw.get("more"))
            if not isinstance(report, Canceled) and not report.raw.get("kept"):
                running.add(report.side)
        elif isinstance(report, Booked | Expired | Canceled) or report.leaves == 0:
            running.discard(report.side)
        return True, not due and not running

    return takes


def raise_refusal(answer: Answer) -> None:
    """Raise what went wrong with a request, if anything did."""
    if answer.failure is not None:
        raise answer.failure
    for report in answer.reports:
        if isinstance(report, Rejected):
            raise error_of(report.code, report.text or report.reason, report)
