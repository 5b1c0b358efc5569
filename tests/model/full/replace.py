"""Replace of an order of a full instrument (RULES §3, §13 Replace).

Cold; used by tests only. All checks work on a copy with the new values; only when nothing refuses
is the order itself changed. It keeps its place in the queue unless price, minimum or stop price
change or the total grows.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import UNSTATED, Reason, RejectCode
from tests.model import limits_model
from tests.model.checks_model import Command, refuse_if
from tests.model.full import bands, dry_run, enter, life, pegs, phases, stops
from tests.model.full.book import FullBook
from tests.model.full.fields import REPLACE_FLAGS, check_replace
from tests.model.full.order import PEGS, RESTING_TIFS, TRAILING, FullOrder, Place
from tests.model.full.run import run

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
# What a replace may change.
TAKEN = (
    *("px", "total", "peak", "min_qty", "tif", "expire_at"),
    *("trigger", "distance", "activation"),
)


def replace(model: ExchangeModel, book: FullBook, order: FullOrder, c: Command) -> Units:
    """Change what may be changed of a live order."""
    tif = order.tif if c["tif"] == UNSTATED else c["tif"]
    refuse_if(max(c["px"], c["px2"]) > book.px_max, RejectCode.OUT_OF_RANGE)
    check_replace(c, order, tif)
    decreases = _only_decreases(model, order, c, tif)
    phases.check_replace(book, order, c, decreases=decreases)
    unknown = c["flags"] & REPLACE_FLAGS or c["stp"] or c["amount"]
    refuse_if(bool(unknown), RejectCode.NOT_SUPPORTED_HERE)
    refuse_if(bool(book.in_batch and c["min_qty"]), RejectCode.NOT_SUPPORTED_HERE)
    wanted = _wanted(model, order, c, tif)
    if wanted.px != order.stated_px:
        bands.check_static(book, order.side, wanted.px)
    enter.check_terms(model, book, wanted)
    refuse_if(_changes_identity(order, c), RejectCode.IMMUTABLE)
    is_peg = order.order_type in PEGS
    leaves_its_place = wanted.total > order.gone and not _keeps_priority(order, wanted)
    if order.place == Place.BOOK and not is_peg and leaves_its_place:
        refuse_if(book.is_full(order.side, wanted.px, but=order), RejectCode.TOO_MANY)
    if wanted.total > order.gone:
        _check_limits(model, book, order, wanted)
    waits = any(leg is order for leg in book.parked_legs)
    if wanted.trigger != order.trigger and not waits:
        stops.check(book, wanted)
    other, resized = _resized_sibling(model, book, order, wanted.total)
    model.touched.add(book.symbol_id)
    yield from _apply(model, book, order, wanted, minimum=bool(c["min_qty"]))
    if other is not None and resized is not None and other.order_id in model.orders:
        yield from _apply(model, book, other, resized, minimum=False)


def _check_limits(
    model: ExchangeModel, book: FullBook, order: FullOrder, wanted: FullOrder
) -> None:
    # 403 to 406. A triggered stop is what it became.
    def size(one: FullOrder, px: int) -> limits_model.Size:
        waits = (one.activation or one.trigger) if one.is_stop else 0
        if one.order_type in TRAILING and one.is_stop:
            waits = one.activation
        return limits_model.worth(book, one.side, one.total, px, waits)

    before, after = size(order, order.stated_px), size(wanted, wanted.px)
    limits_model.check_replace(model, book, order, before, after)


def _resized_sibling(
    model: ExchangeModel, book: FullBook, order: FullOrder, total: int
) -> tuple[FullOrder | None, FullOrder | None]:
    # A change of quantity applies to both legs of an OCO: the other one, and as it would be.
    other = model.orders.get(order.sibling)
    if not isinstance(other, FullOrder) or other.total == total:
        return None, None
    resized = copy.copy(other)
    resized.px, resized.total = other.stated_px, total
    enter.check_parts(book, resized)
    return other, resized


def _apply(
    model: ExchangeModel, book: FullBook, order: FullOrder, wanted: FullOrder, *, minimum: bool
) -> Units:
    if wanted.total <= order.gone:
        life.cancel(model, book, order, Reason.REPLACED_BELOW_FILLED)
    elif _keeps_priority(order, wanted):
        _keep(model, order, wanted)
    elif any(leg is order for leg in book.parked_legs):
        _take_over(order, wanted)
        life.replaced(model, order, life.LEFT_BOOK, 0)
    elif order.order_type in PEGS:
        yield from pegs.replace(model, book, order, wanted)
    elif order.place in (Place.PARKED, Place.CALL):
        _rank_anew(model, book, order, wanted)
    elif order.place == Place.PENDING:
        _wait_again(model, book, order, wanted)
    else:
        yield from _requeue(model, book, order, wanted, minimum=minimum)


def _wanted(model: ExchangeModel, order: FullOrder, c: Command, tif: int) -> FullOrder:
    # The order as it would be. Zero keeps.
    wanted = copy.copy(order)
    wanted.px = c["px"] or order.stated_px
    wanted.total = c["qty"] or order.total
    wanted.peak = c["peak"] or order.peak
    wanted.min_qty = c["min_qty"] or order.min_qty
    wanted.tif = tif
    wanted.distance = c["qty2"] or order.distance
    if order.order_type in TRAILING:
        wanted.activation = c["px2"] or order.activation
    else:
        wanted.trigger = c["px2"] or order.trigger
    if c["expire_ts"] or tif != order.tif:
        wanted.expire_at = enter.expiry(model, tif, c["expire_ts"])
    return wanted


def _changes_identity(order: FullOrder, c: Command) -> bool:
    # GTC, DAY and GTD are one class: a change between them changes only the expiry.
    same_tif = c["tif"] in (UNSTATED, order.tif)
    return (
        c["side"] not in (UNSTATED, order.side)
        or not (same_tif or {c["tif"], order.tif} <= RESTING_TIFS)
        or c["order_type"] not in (0, order.order_type)
        or c["symbol_id"] not in (0, order.symbol_id)
    )


def _keeps_priority(order: FullOrder, wanted: FullOrder) -> bool:
    names = ("min_qty", "trigger", "distance", "activation")
    same = all(getattr(order, name) == getattr(wanted, name) for name in names)
    same = same and order.stated_px == wanted.px
    return same and wanted.total <= order.total


def _take_over(order: FullOrder, wanted: FullOrder) -> None:
    for name in TAKEN:
        setattr(order, name, getattr(wanted, name))


def _keep(model: ExchangeModel, order: FullOrder, wanted: FullOrder) -> None:
    # A decrease takes the reserve first; a smaller peak cuts the slice at once.
    shown_before = order.shown
    wanted.px = order.px  # a peg stays where it stands
    _take_over(order, wanted)
    order.shown = min(order.shown, order.leaves, order.peak or order.leaves)  # 0 stays 0
    life.replaced(
        model, order, life.KEPT, shown_before, shown=order.shown, public_ref=order.public_ref
    )


def _only_decreases(model: ExchangeModel, order: FullOrder, c: Command, tif: int) -> bool:
    # Nothing but a smaller total: as good as a cancel.
    wanted = _wanted(model, order, c, tif)
    others = [name for name in TAKEN if name not in ("total", "px")]
    same = all(getattr(order, name) == getattr(wanted, name) for name in others)
    return same and order.stated_px == wanted.px and wanted.total < order.total


def _rank_anew(model: ExchangeModel, book: FullBook, order: FullOrder, wanted: FullOrder) -> None:
    # Not in the book: it loses its time there where it is.
    place = order.place
    book.drop(order)
    _take_over(order, wanted)
    life.replaced(model, order, life.LEFT_BOOK, 0)
    if place == Place.PARKED:
        book.park(order)
    else:
        order.rank = book.next_rank()
        book.join_as_market(order)


def _wait_again(model: ExchangeModel, book: FullBook, order: FullOrder, wanted: FullOrder) -> None:
    # A stop goes behind those that wait; a new distance, activation or cap begins its trail anew.
    names = ("px", "distance", "activation")
    restarts = any(getattr(order, name) != getattr(wanted, name) for name in names)
    book.drop(order)
    _take_over(order, wanted)
    if order.order_type in TRAILING and restarts:
        stops.start_trailing(book, order)
    life.replaced(model, order, life.LEFT_BOOK, 0)
    stops.wait(book, order)


def _requeue(
    model: ExchangeModel, book: FullBook, order: FullOrder, wanted: FullOrder, *, minimum: bool
) -> Units:
    # The order leaves its place, may trade, and goes to the back of a level.
    if wanted.post_only:
        enter.derive_limit(book, wanted, protected=False)
    promised: bool | None = True
    if minimum:
        promised = dry_run.promise(book, wanted, model.limits.max_walk)
    if not book.has_level(order.side, wanted.px):
        freed = len(book.level_at(order.side, order.px)) == 1  # it stands alone on its level
        full = model.level_count() - freed >= model.limits.levels_max
        refuse_if(full, RejectCode.LEVELS_FULL)
    refuse_if(promised is None, RejectCode.WALK_TOO_LONG)
    old_ref, shown_before = order.public_ref, order.shown
    book.take_out(order)
    _take_over(order, wanted)
    order.shown = order.public_ref = order.rank = 0
    crosses = book.trades_now and book.meets(order)
    flags = life.LEFT_BOOK | (life.WILL_TRADE if crosses else 0)
    life.replaced(model, order, flags, shown_before, old_ref=old_ref)
    # A slide's price is known only now, and may have as many orders as it may have.
    crowded = not crosses and book.is_full(order.side, order.px)
    if promised and not crowded:
        # Not traded: the public sees one step, old slice to new (ITCH U).
        yield from run(model, book, order, old_ref=0 if crosses else old_ref)
        return
    if not crosses:
        order.public_ref, order.shown = old_ref, shown_before  # what the public still sees
    if promised:
        life.expire(model, book, order, Reason.NONE, RejectCode.TOO_MANY)
    else:
        life.expire(model, book, order, Reason.MINIMUM)
