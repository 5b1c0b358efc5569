"""Reports made from the event alone, in plain Python: the compiled encoder is held against it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from engine.records import (
    AccountLimit,
    EventFlag,
    EventKind,
    KillAction,
    OrderState,
    OrderType,
    Reason,
    RejectCode,
    Role,
    SelfTrade,
    Side,
    TimeInForce,
)
from gateway.errors import SENTENCES

ORDER_EVENTS = {
    EventKind.ACCEPTED, EventKind.REPLACED, EventKind.CANCELED, EventKind.EXPIRED,
    EventKind.BOOKED, EventKind.FILL, EventKind.STATUS, EventKind.REFRESHED, EventKind.PREVENTED,
    EventKind.TRIGGERED, EventKind.PARKED, EventKind.ACTIVATED, EventKind.REPRICED,
}  # fmt: skip


UNSIZED = {EventKind.TRIGGERED, EventKind.PARKED, EventKind.ACTIVATED}


def decimal_of(steps: int, step: str) -> str:
    """steps * step with the decimals of the step."""
    return str(Decimal(int(steps)) * Decimal(step))


def _shown(event: Any, kind: EventKind) -> bool:
    """Whether the report says what the order displays: not where that is all of it."""
    if event["shown"] == event["leaves"]:
        return False
    return (
        kind in (EventKind.BOOKED, EventKind.REFRESHED, EventKind.STATUS, EventKind.REPRICED)
        or (kind is EventKind.FILL and event["role"] != Role.TAKER)
        or (kind is EventKind.REPLACED and bool(event["flags"] & EventFlag.KEPT))
        or (kind is EventKind.PREVENTED and bool(event["public_ref"]))
    )


def _extent(event: Any, kind: EventKind, lot: str) -> dict[str, Any]:
    made = {}
    if _shown(event, kind):
        made["shown"] = decimal_of(event["shown"], lot)
    if kind in (EventKind.ACCEPTED, EventKind.REPLACED) and event["amount2"]:
        made["peak"] = decimal_of(event["amount2"], lot)
    prevented = int(event["qty"]) - int(event["leaves"]) - int(event["cum"])
    if kind is EventKind.STATUS and prevented > 0:
        made["prevented"] = decimal_of(prevented, lot)
    return made


def _particulars(event: Any, kind: EventKind) -> dict[str, Any]:
    if kind is EventKind.FILL:
        return {"trade_id": int(event["trade_id"]), "role": Role(event["role"]).name.lower()}
    if kind is EventKind.STATUS:
        return {"state": OrderState(event["role"]).name.lower()}
    if kind is EventKind.PREVENTED:
        stp = SelfTrade(event["stp"]).name.lower()
        return {"stp": stp, "other_order_id": int(event["amount"])}
    if kind is EventKind.REJECTED or (kind is EventKind.EXPIRED and event["code"]):
        code = RejectCode(event["code"])
        return {"code": int(code), "reason": code.name.lower(), "text": SENTENCES[code]}
    if kind is EventKind.SUMMARY:
        more, why = int(event["amount"]), Reason(event["reason"])
        paged = {"next": more} if more else {}
        return {"count": int(event["qty"])} | paged | ({"reason": why.name.lower()} if why else {})
    if kind is EventKind.ACCOUNT and event["reason"] == Reason.KILL:
        return {"action": KillAction(event["order_type"]).name.lower()}
    if kind is EventKind.ACCOUNT and event["reason"] == Reason.LIMITS:
        limit = AccountLimit(event["order_type"]).name.lower()
        return {"limit": limit, "value": int(event["amount"])}
    if kind is EventKind.ACCOUNT and event["reason"] != Reason.MMP:
        return {"logon": int(event["amount"]), "last_id": int(event["client_order_id"])}
    return {}


def _protection(event: Any, kind: EventKind, lot: str) -> dict[str, Any]:
    if kind not in (EventKind.MMP_FIRED, EventKind.ACCOUNT):
        return {}
    filled = {"qty": decimal_of(event["qty"], lot)} if kind is EventKind.MMP_FIRED else {}
    limit = decimal_of(event["amount"], lot)
    return filled | {"limit": limit, "window_ns": int(event["amount2"])}


def report(
    event: Any, shard: int, session: str, symbol: str, tick: str, lot: str
) -> dict[str, Any]:
    """The report of one event, without receipt. Empty names: not known, or none."""
    kind, flags = EventKind(event["kind"]), int(event["flags"])
    made: dict[str, Any] = {
        "type": kind.name.lower(),
        "seq": int(event["account_seq"]),
        "shard": shard,
    }
    if session:
        made["session"] = session
    if symbol:
        made["symbol"] = symbol
    if event["order_id"]:
        made["order_id"] = int(event["order_id"])
    if flags & EventFlag.TEXT_ID:
        made["id"] = bytes(event["text"]).rstrip(b"\0").decode("ascii")
    elif event["client_order_id"] and kind is not EventKind.ACCOUNT:
        made["id"] = int(event["client_order_id"])
    if kind in ORDER_EVENTS and symbol:
        made["side"] = Side(event["side"]).name.lower()
        if kind in (EventKind.ACCEPTED, EventKind.STATUS):
            made["order_type"] = OrderType(event["order_type"]).name.lower()
            made["tif"] = TimeInForce(event["tif"]).name.lower()
        if event["px"] > 0:
            made["price"] = decimal_of(event["px"], tick)
        if kind is EventKind.TRIGGERED:
            made["trigger"] = decimal_of(event["px2"], tick)
        for key, field in (("qty", "qty"), ("leaves", "leaves"), ("filled", "cum")):
            if kind in UNSIZED and key == "qty":
                continue
            made[key] = decimal_of(event[field], lot)
        made |= _extent(event, kind, lot)
    if symbol and (kind is EventKind.MMP_FIRED or event["reason"] == Reason.MMP):
        made |= _protection(event, kind, lot)
    made |= _particulars(event, kind)
    told = kind is EventKind.EXPIRED and event["code"]
    if kind in (EventKind.CANCELED, EventKind.EXPIRED, EventKind.ACCOUNT) and not told:
        made["reason"] = Reason(event["reason"]).name.lower()
    if event["public_ref"]:
        made["ref"] = int(event["public_ref"])
    if event["old_ref"]:
        made["old_ref"] = int(event["old_ref"])
    for key, flag in (
        ("post_only", EventFlag.POST_ONLY),
        ("kept", EventFlag.KEPT),
        ("more", EventFlag.MORE),
        ("last", EventFlag.LAST),
    ):
        if flags & flag:
            made[key] = True
    return made | {"ts": int(event["in_ts"])}
