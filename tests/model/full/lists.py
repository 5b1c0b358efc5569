"""Orders that belong together: OCO, OTO, OTOCO (RULES §2, §13 Linked orders).

Cold; used by tests only. Legs arrive one by one and are answered together when the last is there.
The legs of an OCO name each other as sibling; the first order of an OTO names its legs, which are
parked until it is completely filled. Then ACTIVATE, a command of its own, brings them to life.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import CommandFlag, CommandKind, EventKind, Reason, RejectCode, TimeInForce
from tests.model.checks_model import BLANK_COMMAND, Command, Refused, refuse_if
from tests.model.full import dry_run, enter, life, phases, stops
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
def new(model: ExchangeModel, book: FullBook, c: Command) -> Units:
    """A leg: kept until the last is there, then all are accepted or all refused."""
    legs = model.unfinished_lists.setdefault(c["session"], [])
    legs.append(dict(c))
    if c["flags"] & CommandFlag.LIST:
        return
    del model.unfinished_lists[c["session"]]
    refuse_if(not _belong_together(legs), RejectCode.BAD_COMBINATION)
    kind = c["decision_code"]
    ready: list[tuple[FullOrder, enter.Start]] = []
    for number, leg in enumerate(legs):
        model.slots_promised = number
        try:
            later = kind != OCO and number > 0
            ready.append(_later_leg(model, book, leg) if later else enter.prepare(model, book, leg))
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
    """ACTIVATE: the leg named and its sibling go live, or both end with the code of the first
    that fails.
    """
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
