"""The client library and the full rules: options in, reports and the state of an order out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

import ringbook
from gateway.client_answers import OrderOptions, ReplaceOptions, target_line
from gateway.client_core import ClientCore
from gateway.client_reports import InstrumentInfo, Order, Prevented, Refreshed, Report, report_of
from gateway.codec_options import NEW_OPTIONS, REPLACE_OPTIONS

OWN = {"shard": 0, "order_id": 7, "id": 1, "side": "sell", "symbol": "GOLD", "session": "main"}


def told(type: str, qty: int, leaves: int, filled: int = 0, **more: Any) -> Report:
    amounts = {"qty": str(qty), "leaves": str(leaves), "filled": str(filled)}
    return report_of({"type": type, "seq": 1} | OWN | amounts | more)


def iceberg() -> Order:
    """25 for sale, 10 of them displayed."""
    terms = {"price": "12.50", "order_type": "limit", "tif": "gtd"}
    accepted = told("accepted", 25, 25, peak="10", **terms)
    return Order.of([accepted, told("booked", 25, 25, shown="10", ref=1, last=True)])


def standing(order: Order) -> tuple[str, int, int, int, int]:
    """Status and quantities; they always add up to the amount while the order lives."""
    numbers = (order.remaining, order.filled, order.prevented, order.shown)
    if order.status == "open":
        assert order.amount == order.remaining + order.filled + order.prevented
    return (order.status, *map(int, numbers))  # type: ignore[return-value]


def test_options_are_sent_as_the_page_has_them() -> None:
    core = ClientCore("demo", "demo")
    line = core.order_line(
        "GOLD", "buy", 10, "12.50", tif="gtd", peak=Decimal("2.50"), min_qty=1, hidden=True,
        slide=True, stp="decrement", expire_time=5, protected=True, order_type="limit",
        trigger="12.60", trigger_on="best", activation=13, distance="0.05", distance_bps=20,
    )  # fmt: skip
    assert orjson.loads(core.encode(line)) == {
        "type": "new", "symbol": "GOLD", "side": "buy", "qty": "10", "price": "12.50", "id": 1,
        "order_type": "limit", "tif": "gtd", "peak": "2.50", "min_qty": "1", "hidden": True,
        "slide": True, "stp": "decrement", "expire_time": 5, "protected": True,
        "trigger": "12.60", "trigger_on": "best", "activation": "13", "distance": "0.05",
        "distance_bps": 20,
    }  # fmt: skip
    sent = next(
        core.replace(target_line(7, None, "GOLD", None), peak=3, min_qty="2", tif="day")
    ).payload
    assert orjson.loads(sent) == {
        "type": "replace", "order_id": 7, "symbol": "GOLD", "peak": "3", "min_qty": "2",
        "tif": "day",
    }  # fmt: skip


def test_client_takes_every_option_of_the_gateway() -> None:
    assert set(OrderOptions.__annotations__) >= NEW_OPTIONS
    assert set(ReplaceOptions.__annotations__) >= REPLACE_OPTIONS
    with pytest.raises(TypeError, match="pick"):
        ClientCore("demo", "demo").order_line("GOLD", "buy", 1, pick=5)  # type: ignore[call-arg]


def test_iceberg_is_followed_through_its_slices() -> None:
    order = iceberg()
    assert (order.peak, order.tif, standing(order)) == (10, "gtd", ("open", 25, 0, 0, 10))
    order = order.follow(told("fill", 4, 21, 4, role="maker", shown="6", price="12.50"))
    assert standing(order) == ("open", 21, 4, 0, 6)
    order = order.follow(told("fill", 6, 15, 10, role="maker", shown="0", price="12.50"))
    refreshed = told("refreshed", 10, 15, 10, shown="10", ref=2, old_ref=1)
    assert isinstance(refreshed, Refreshed)
    order = order.follow(refreshed)
    assert standing(order) == ("open", 15, 10, 0, 10)
    order = order.follow(told("refreshed", 5, 5, 20, ref=3, old_ref=2))  # all that is left
    assert standing(order)[-1] == 5
    order = order.follow(told("fill", 5, 0, 25, role="maker", price="12.50"))
    assert (standing(order), order.average) == (("filled", 0, 25, 0, 0), Decimal("12.50"))


def test_prevented_quantity_is_counted_apart() -> None:
    prevented = told("prevented", 18, 7, stp="decrement", other_order_id=9, ref=1)
    assert isinstance(prevented, Prevented)
    assert (prevented.stp, prevented.other_order_id) == ("decrement", 9)
    order = iceberg().follow(prevented)
    assert standing(order) == ("open", 7, 0, 18, 7)
    order = order.follow(told("prevented", 7, 0, stp="decrement", other_order_id=11, ref=1))
    assert standing(order) == ("expired", 0, 0, 25, 0)
    order = order.follow(told("expired", 0, 0, reason="self_trade", ref=1))
    assert standing(order) == ("expired", 0, 0, 25, 0)


def test_prevented_quantity_is_known_from_a_status_and_from_a_new_total() -> None:
    status = told("status", 25, 7, 0, prevented="18", state="new", shown="5", ref=1)
    assert (status.prevented, standing(Order.of([status]))) == (18, ("open", 7, 0, 18, 5))
    replaced = told("replaced", 23, 5, 0, kept=True, ref=1, peak="10")
    assert standing(Order.of([replaced])) == ("open", 5, 0, 18, 5)


def test_aggressor_of_a_prevented_trade_ends_expired_and_shows_nothing() -> None:
    accepted = told("accepted", 12, 12, price="12.50")
    met = told("prevented", 0, 12, stp="expire_taker", other_order_id=9)
    order = Order.of([accepted, met])
    assert standing(order) == ("open", 12, 0, 0, 0)
    order = order.follow(told("expired", 12, 0, reason="self_trade"))
    assert standing(order) == ("expired", 0, 0, 0, 0)


def test_hidden_order_that_loses_by_prevention_goes_on_showing_nothing() -> None:
    order = Order.of([told("accepted", 9, 9), told("booked", 9, 9, shown="0")])
    order = order.follow(told("prevented", 4, 5, stp="decrement", other_order_id=9))
    assert standing(order) == ("open", 5, 0, 4, 0)


@pytest.mark.parametrize("reason", ["day", "gtd", "minimum"])
def test_order_that_expired_by_its_terms(reason: str) -> None:
    order = iceberg().follow(told("expired", 25, 0, reason=reason, ref=1))
    assert standing(order) == ("expired", 0, 0, 0, 0)
    assert order.reports[-1].reason == reason


def test_report_of_another_order_changes_nothing() -> None:
    order = iceberg()
    for other in (
        told("fill", 5, 20, 5, order_id=8),
        told("fill", 5, 20, 5, shard=1),
        report_of({"type": "rejected", "seq": 3, "shard": 0, "order_id": 7, "code": 502}),
    ):
        assert order.follow(other) is order


def test_instrument_tells_its_rules() -> None:
    assert InstrumentInfo.of({"symbol": "GOLD", "rules": "full"}).rules == "full"
    assert ringbook.Prevented is Prevented


def test_stop_is_followed_from_its_wait_to_the_book() -> None:
    terms = {"price": "12.50", "order_type": "stop_limit", "tif": "gtc"}
    order = Order.of([told("accepted", 25, 25, last=True, **terms)])
    assert standing(order) == ("open", 25, 0, 0, 0)
    line = {"type": "triggered", "seq": 2, "leaves": "25", "filled": "0", "trigger": "12.60"}
    triggered = report_of(line | OWN)
    assert isinstance(triggered, ringbook.Triggered)
    assert triggered.trigger == Decimal("12.60")
    order = order.follow(triggered).follow(told("booked", 25, 25, ref=1, last=True))
    assert (standing(order), order.amount) == (("open", 25, 0, 0, 25), 25)


def test_auction_order_is_followed_from_its_wait_into_the_call() -> None:
    terms = {"price": "12.50", "order_type": "limit", "tif": "at_close"}
    order = Order.of([told("accepted", 25, 25, **terms)])
    parked = report_of({"type": "parked", "seq": 2, "leaves": "25", "filled": "0"} | OWN)
    joins = report_of({"type": "activated", "seq": 3, "leaves": "25", "filled": "0"} | OWN)
    assert isinstance(parked, ringbook.Parked)
    assert isinstance(joins, ringbook.Activated)
    order = order.follow(parked)
    assert (standing(order), order.tif) == (("open", 25, 0, 0, 0), "at_close")
    order = order.follow(joins).follow(told("booked", 25, 25, ref=1))
    order = order.follow(told("fill", 5, 20, 5, role="auction", shown="20"))
    assert standing(order) == ("open", 20, 5, 0, 20)
