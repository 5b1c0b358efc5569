"""Orders that belong together: OCO, OTO, OTOCO (RULES §2, §13 Linked orders).

Cold; used by tests only. Legs arrive one by one and are answered together when the last is there;
one that fails by its fields or its id fails the list.
The legs of an OCO name each other as sibling; the first order of an OTO names its legs, which are
parked until it is completely filled. Then ACTIVATE, a command of its own, brings them to life.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.records import CommandFlag, CommandKind, EventKind, Reason, RejectCode, TimeInForce
from tests.model import desk_model, limits_model, orders_model, time_model
from tests.model.checks_model import (
    BLANK_COMMAND,
    Command,
    Refused,
    check_fields,
    refuse_if,
    target_text,
)
from tests.model.full import dry_run, enter, fields, life, phases, stops
from tests.model.full.book import FullBook
from tests.model.full.order import AUCTION_TIFS, LIMIT, MARKET, STOPS, TRAILING, FullOrder, Place
from tests.model.full.run import run

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
OCO, OTO, OTOCO = 1, 2, 3
LEGS = {OCO: 2, OTO: 2, OTOCO: 3}
LEG_TYPES = {LIMIT, MARKET} | STOPS


# -------------------------------------------------------------------------------------------- entry
@dataclass
class Unfinished:
    """What is there of a list whose last leg is not."""

    legs: list[dict] = field(default_factory=list)
    code: RejectCode = RejectCode.NONE  # of the first leg that fails
    texts: set[tuple[int, bytes]] = field(default_factory=set)  # ids its orders will have


def is_leg(model: ExchangeModel, c: Command) -> bool:
    """Is this new order a leg of a list?"""
    named = c["kind"] == CommandKind.NEW and 0 < c["decision_code"] <= OTOCO
    return bool(named) and "lists" in model.built


def leg(model: ExchangeModel, c: Command) -> Units:
    """A leg: kept until the last is there; then all are accepted, or all refused by one answer.
    One that repeats a living order is told where that stands.
    """
    code, known = RejectCode.NONE, None
    try:
        check_fields(c, fields.check_new)
        session = model.speaker(c)
        time_model.heard(model, session)
        known = model.heard_before(c, session)
        if known is None:
            limits_model.check_block(model, session, c["kind"])
    except Refused as refusal:
        owner = model.sessions.owned(c["session"], c["logon"], c["producer"])
        if owner is None or owner.account != c["account"]:
            raise
        session, code = owner, refusal.code
    if known is not None:
        desk_model.status(model, known)
        code = RejectCode.DUPLICATE
    found = model.unfinished_lists.setdefault(session.slot, Unfinished())
    found.legs.append(dict(c))
    if not code and target_text(c) and len(found.legs) <= LEGS[OTOCO]:
        found.texts.add((session.account, target_text(c)))
    found.code = found.code or code
    if c["flags"] & CommandFlag.LIST:
        return
    del model.unfinished_lists[session.slot]
    if known is not None:
        return
    refuse_if(found.code != RejectCode.NONE, found.code)
    refuse_if(not _belong_together(found.legs), RejectCode.BAD_COMBINATION)
    book = orders_model.book_of_new(model, c)
    if not isinstance(book, FullBook):
        dear = max(found.legs[0]["px"], found.legs[0]["px2"]) > book.px_max
        raise Refused(RejectCode.OUT_OF_RANGE if dear else RejectCode.NOT_SUPPORTED_HERE)
    yield from new(model, book, found.legs)


def new(model: ExchangeModel, book: FullBook, legs: list[dict]) -> Units:
    """All legs are there and belong together."""
    kind = legs[0]["decision_code"]
    ready: list[tuple[FullOrder, enter.Start]] = []
    for number, c in enumerate(legs):
        model.slots_promised = number
        try:
            later = kind != OCO and number > 0
            ready.append(_later_leg(model, book, c) if later else enter.prepare(model, book, c))
        finally:
            model.slots_promised = 0
    yield from _start(model, book, kind, ready)


def _belong_together(legs: list[dict]) -> bool:
    first, kind = legs[0], legs[-1]["decision_code"]
    same = ("decision_code", "symbol_id", "symbol", "account")
    if len(legs) != LEGS[kind] or any(leg[n] != first[n] for leg in legs for n in same):
        return False
    if kind != OCO and any(not _may_be_later(leg) for leg in legs[1:]):
        return False
    return kind == OTO or _is_oco(*(legs if kind == OCO else legs[1:]))


def _may_be_later(leg: Command) -> bool:
    return leg["order_type"] in LEG_TYPES and leg["tif"] not in AUCTION_TIFS


def _is_oco(one: Command, other: Command) -> bool:
    same = all(one[name] == other[name] for name in ("side", "qty", "tif"))
    types = (one["order_type"], other["order_type"])
    limits = sum(kind == LIMIT for kind in types)
    return same and limits <= 1 and all(kind in STOPS | {LIMIT} for kind in types)


def _later_leg(model: ExchangeModel, book: FullBook, c: Command) -> tuple[FullOrder, enter.Start]:
    # What can be judged without the market is judged now.
    order = enter.check_and_make(model, book, c)
    order.protected = bool(c["flags"] & CommandFlag.PROTECTED)
    enter.check_slot(model)

    def park() -> Units:
        order.place = Place.PARKED
        book.parked_legs.append(order)
        model.writer.add_order(EventKind.PARKED, order, px=order.px)
        yield from ()

    return order, park


def _start(
    model: ExchangeModel, book: FullBook, kind: int, ready: list[tuple[FullOrder, enter.Start]]
) -> Units:
    orders = [order for order, _ in ready]
    for order in orders:
        life.accept(model, order)
    pair = orders if kind == OCO else orders[1:]
    if kind != OTO:
        pair[0].sibling, pair[1].sibling = pair[1].order_id, pair[0].order_id
    # Legs wait before the first order may call them.
    sequence = ready if kind == OCO else [*ready[1:], ready[0]]
    if kind != OCO:
        orders[0].legs = tuple(order.order_id for order in pair)
    for order, start in sequence:
        if order.order_id in model.orders:
            yield from start()


# -------------------------------------------------------------------------------------- activation
def activate_command(leg: int) -> Command:
    """Return the record that brings legs to life."""
    return BLANK_COMMAND | {"kind": int(CommandKind.ACTIVATE), "producer": 0, "order_id": leg}


def activate(model: ExchangeModel, c: Command) -> Units:
    """ACTIVATE: the leg named, if its turn has come, and its sibling go live, or both end with the
    code of the first that fails.
    """
    if model.activations[:1] != [c["order_id"]]:
        return
    del model.activations[0]
    first = model.orders.get(c["order_id"])
    if not isinstance(first, FullOrder):
        return
    book = model.books[first.symbol_id]
    assert isinstance(book, FullBook)
    second = model.orders.get(first.sibling)
    legs = [leg for leg in (first, second) if isinstance(leg, FullOrder)]
    model.touched.add(book.symbol_id)
    try:
        met = [_check_leg(model, book, leg) for leg in legs]
    except Refused as refusal:
        for leg in legs:
            leg.sibling = 0
            life.expire(model, book, leg, Reason.OTO_FAILURE, refusal.code)
        return
    for leg in legs:
        book.drop(leg)
        model.writer.add_order(EventKind.ACTIVATED, leg, px=leg.px)
    for leg, keeps in zip(legs, met, strict=True):
        if leg.order_id in model.orders:
            yield from _go_live(model, book, leg, keeps)


def _check_leg(model: ExchangeModel, book: FullBook, leg: FullOrder) -> bool:
    # False: its minimum is not met.
    request = {"order_type": leg.order_type, "tif": leg.tif, "flags": int(leg.post_only)}
    phases.check_new(book, request | {"min_qty": leg.min_qty})
    if leg.is_stop:
        return True
    impatient = leg.min_qty or leg.post_only or leg.protected or leg.tif == TimeInForce.FOK
    refuse_if(bool(book.in_batch and impatient), RejectCode.NOT_SUPPORTED_HERE)
    if leg.order_type == MARKET and not book.trades_now:
        leg.px = enter.call_price(book, leg.side)  # a batch mode: it reserves as at entry
    enter.derive_limit(book, leg, leg.protected)
    promised = dry_run.promise(book, leg, model.limits.max_walk)
    missed = promised is False
    refuse_if(missed and leg.tif == TimeInForce.FOK, RejectCode.FOK_UNFILLED)
    enter.check_level(model, book, leg)
    refuse_if(promised is None, RejectCode.WALK_TOO_LONG)
    return not missed


def _go_live(model: ExchangeModel, book: FullBook, leg: FullOrder, keeps: bool) -> Units:
    if not leg.is_stop:
        yield
        if keeps:
            yield from run(model, book, leg)
        else:
            life.expire(model, book, leg, Reason.MINIMUM)
        return
    if leg.order_type in TRAILING:
        stops.start_trailing(book, leg)
    if book.elects and stops.holds_now(book, leg):
        yield
        yield from stops.fire(model, book, leg)
    else:
        stops.wait(book, leg)
