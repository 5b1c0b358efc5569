"""Life of every order, from the reports of its account: one accept, then what may follow, one end.

    accepted -> { fill | booked | replaced | status }* -> filled | canceled | expired -> nothing

After every report the numbers add up: accepted quantity (after replaces) = filled + open, and at
the end = filled + what was cancelled or expired. A request that was refused (rejected) is no order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.system.checker.expect import Expect
from tests.system.checker.findings import Findings
from tests.system.checker.logs import ClientLogs, Line, Message, request_of, units

ABOUT_ORDERS = {"accepted", "booked", "replaced", "canceled", "expired", "fill", "status"}
ENDS = {"canceled", "expired"}
ENDED_STATES = {"filled", "canceled", "expired"}
DUPLICATE, BUSY = 203, 901  # refusals up to DUPLICATE, and BUSY, use up no id


@dataclass
class Order:
    """What the reports so far say about one order. Quantities in units of 1e-9."""

    first: Line
    newest: Line
    total: int
    leaves: int
    price: int  # 0: none, a market order
    filled: int = 0
    end: str = ""
    gone: int = 0  # cancelled or expired quantity

    def evidence(self, line: Line) -> tuple[Line, ...]:
        """The accept, the report before, and this one."""
        return tuple(dict.fromkeys((self.first, self.newest, line)))


def check_orders(logs: ClientLogs, expect: Expect, findings: Findings) -> None:
    """All rules of this file."""
    for (account, shard), numbers in sorted(logs.reports.items()):
        if (account, shard) in logs.accounts_with_holes:
            continue
        orders: dict[int, Order] = {}
        for number in sorted(numbers):
            line = numbers[number]
            if line.message["type"] in ABOUT_ORDERS:
                _take(orders, line, findings)
        findings.counts["orders"] += len(orders)
        if expect.flat:
            _check_left(orders, findings)
    _check_ids(logs, findings)


def _take(orders: dict[int, Order], line: Line, findings: Findings) -> None:
    message = line.message
    order = orders.get(message["order_id"])
    if message["type"] == "accepted":
        _accept(orders, order, line, findings)
        return
    if order is None:
        text = f"order {message['order_id']} begins with {message['type']}"
        findings.violate("order_without_accept", text, line)
        orders[message["order_id"]] = _found(line)  # said once, not for every report that follows
        return
    _compare_fields(order, line, findings)
    if order.end:
        told = message["type"] == "status" and message.get("state") == order.end
        if not told or units(message["leaves"]) != 0:
            text = f"order {message['order_id']} ended ({order.end}), then {message['type']}"
            findings.violate("order_after_end", text, *order.evidence(line))
    else:
        _apply(order, line, findings)
    order.newest = line


def _accept(orders: dict[int, Order], order: Order | None, line: Line, findings: Findings) -> None:
    message = line.message
    if order is not None:
        text = f"order {message['order_id']} is accepted again"
        findings.violate("order_two_accepts", text, *order.evidence(line))
        return
    total = units(message["qty"])
    order = orders[message["order_id"]] = Order(line, line, total, total, _price(message))
    _compare_numbers(order, line, total, findings)


def _price(message: Message) -> int:
    return units(message.get("price", 0))


def _found(line: Line) -> Order:
    # An order whose beginning is unknown: believe what this report says.
    message = line.message
    leaves, filled = units(message["leaves"]), units(message["filled"])
    order = Order(line, line, leaves + filled, leaves, _price(message), filled)
    if message["type"] in ENDS or leaves == 0:
        order.end = message["type"] if message["type"] in ENDS else "filled"
    return order


def _apply(order: Order, line: Line, findings: Findings) -> None:
    message, quantity = line.message, units(line.message["qty"])
    kind = message["type"]
    _check_price(order, line, findings)
    wanted = quantity  # what `qty` must be
    if kind == "fill":
        order.filled += quantity
        order.leaves -= quantity
        order.end = "" if order.leaves else "filled"
    elif kind == "replaced":
        order.total = quantity
        order.leaves = quantity - order.filled
    elif kind == "booked":
        wanted = order.leaves
    elif kind == "status":
        wanted = order.total
    else:
        wanted, order.gone = order.leaves, quantity
        order.leaves, order.end = 0, kind
    _compare_numbers(order, line, wanted, findings)


def _compare_numbers(order: Order, line: Line, wanted: int, findings: Findings) -> None:
    message = line.message
    told = (units(message["qty"]), units(message["leaves"]), units(message["filled"]))
    if (
        told != (wanted, order.leaves, order.filled)
        or order.leaves < 0
        or order.total != order.filled + order.leaves + order.gone
    ):
        findings.violate(
            "order_quantity",
            f"order {message['order_id']}, {message['type']}: qty, leaves, filled are {told}"
            f" (1e-9), expected {(wanted, order.leaves, order.filled)} of total {order.total}",
            *order.evidence(line),
        )
        # Go on from what was said: one wrong report is one violation.
        order.leaves, order.filled = told[1:]
        order.total = order.leaves + order.filled + order.gone


def _check_price(order: Order, line: Line, findings: Findings) -> None:
    message, price = line.message, _price(line.message)
    if message["type"] == "replaced":
        order.price = price
        return
    good = price == order.price
    if message["type"] == "fill" and message["role"] == "taker":
        better = price <= order.price if message["side"] == "buy" else price >= order.price
        good = better or not order.price
    if not good:
        text = f"order {message['order_id']}, {message['type']} at {price}, its price is"
        findings.violate("order_price", f"{text} {order.price} (1e-9)", *order.evidence(line))


def _compare_fields(order: Order, line: Line, findings: Findings) -> None:
    for key in ("side", "symbol", "session", "id"):
        if line.message.get(key) != order.first.message.get(key):
            text = f"order {line.message['order_id']}: {key} was {order.first.message.get(key)!r}"
            findings.violate("order_fields", text, *order.evidence(line))


def _check_left(orders: dict[int, Order], findings: Findings) -> None:
    for number, order in orders.items():
        if not order.end:
            text = f"order {number} is open after everything was cancelled"
            findings.violate("order_left", text, *order.evidence(order.newest))


def _check_ids(logs: ClientLogs, findings: Findings) -> None:
    accepted: dict[tuple[str, str, object], Line] = {}
    refused: dict[tuple[str, str, object], Line] = {}
    for (account, _), numbers in sorted(logs.reports.items()):
        for _, line in sorted(numbers.items()):
            message: Message = line.message
            if message["type"] not in ("accepted", "rejected") or "id" not in message:
                continue
            key = (account, message.get("session", ""), message["id"])
            if message["type"] == "accepted":
                if key in accepted:
                    text = f"id {message['id']} of {key[:2]} was accepted twice"
                    findings.violate("id_executed_twice", text, accepted[key], line)
                accepted[key] = line
                _compare_request(logs, key, line, findings)
            elif message["code"] > DUPLICATE and message["code"] != BUSY:
                refused[key] = line
    for key in accepted.keys() & refused.keys():
        if key not in logs.named:
            text = f"id {key[2]} of {key[:2]} was accepted and refused"
            findings.violate("id_two_answers", text, accepted[key], refused[key])


def _compare_request(
    logs: ClientLogs, key: tuple[str, str, object], line: Line, findings: Findings
) -> None:
    # Sent more than once it must be the same request, so any of the lines will do.
    sent = logs.requests.get(key, [])  # type: ignore[call-overload]
    wanted = [_terms(request_of(request.message)) for request in sent]
    told = _terms(line.message | {"type": line.message.get("order_type", "limit")})
    if sent and told not in wanted:
        text = f"id {key[2]} of {key[:2]}: accepted {told}"
        findings.violate("order_not_as_asked", text, sent[0], line)


def _terms(message: Message) -> tuple[object, ...]:
    # What an order is, as its request and its accept both say it.
    kind = message["type"]
    if kind == "new":
        kind = message.get("order_type", "limit" if "price" in message else "market")
    side = {"b": "buy", "bid": "buy", "s": "sell", "ask": "sell"}
    terms = (message["symbol"], side.get(message["side"], message["side"]), kind)
    return (*terms, units(message["qty"]), _price(message), message.get("tif", "gtc"))
