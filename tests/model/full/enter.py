"""A new order of a full instrument: checks in the order of the codes, then accepted and run.

Cold; used by tests only. Everything is checked before anything changes (RULES §1, EVENTS §2).
Limits that follow from the book at entry (market-to-limit, protection, slide) are derived here, so
that ACCEPTED tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from engine.records import (
    CommandFlag,
    EventKind,
    OrderType,
    Reason,
    RejectCode,
    SelfTrade,
    TimeInForce,
)
from tests.model import limits_model
from tests.model.book_model import BUY
from tests.model.checks_model import Command, Refused, refuse_if, target_text
from tests.model.full import bands, dry_run, life, pegs, phases, stops
from tests.model.full.book import FullBook
from tests.model.full.built import PART_OF_TYPE
from tests.model.full.order import (
    AUCTION_TIFS,
    BUDGET,
    DAY_NS,
    LIMIT,
    MARKET,
    MARKET_TO_LIMIT,
    PEGS,
    PRICE_MAX,
    STOPS,
    TRAILING,
    FullOrder,
)
from tests.model.full.run import run

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
Start = Callable[[], Units]
SUPPORTED = {LIMIT, MARKET, MARKET_TO_LIMIT, BUDGET} | STOPS | PEGS
TRAILING_STOP = int(OrderType.TRAILING_STOP)


def new(model: ExchangeModel, book: FullBook, c: Command) -> Units:
    """Accept an order, let it trade, and book or expire what is left."""
    order, start = prepare(model, book, c)
    life.accept(model, order)
    yield from start()


def prepare(model: ExchangeModel, book: FullBook, c: Command) -> tuple[FullOrder, Start]:
    """All checks; the order, and what it does once it is accepted."""
    order = check_and_make(model, book, c)
    if order.order_type in PEGS:
        return order, pegs.prepare(model, book, order)
    if order.is_stop:
        return order, _prepare_stop(model, book, order)
    if order.tif in AUCTION_TIFS and not phases.joins_now(book, order):
        return order, _prepare_for_a_later_call(model, book, order)
    derive_limit(book, order, bool(c["flags"] & CommandFlag.PROTECTED))
    undecided = order.order_type == BUDGET and _spend(model, book, order)
    promised = dry_run.promise(book, order, model.limits.max_walk)
    missed = promised is False
    refuse_if(missed and order.tif == TimeInForce.FOK, RejectCode.FOK_UNFILLED)
    if order.order_type == BUDGET and order.tif == TimeInForce.FOK and promised:
        money = dry_run.cost(book, order, book.unit)
        missed_it = money > order.budget if order.side == BUY else money < order.budget
        refuse_if(missed_it, RejectCode.BUDGET)
    check_slot(model)
    check_level(model, book, order)
    refuse_if(promised is None or undecided, RejectCode.WALK_TOO_LONG)

    def start() -> Units:
        if missed:
            life.expire(model, book, order, Reason.MINIMUM)
        else:
            yield from run(model, book, order)

    return order, start


def check_and_make(model: ExchangeModel, book: FullBook, c: Command) -> FullOrder:
    """What can be refused without looking at the market's orders; the order."""
    refuse_if(max(c["px"], c["px2"]) > book.px_max, RejectCode.OUT_OF_RANGE)
    phases.check_new(book, c)
    _check_built(model, c)
    _check_supported(book, c)
    later = "phases" not in model.built and c["tif"] in AUCTION_TIFS
    refuse_if(later, RejectCode.NO_SUCH_AUCTION)
    phases.check_auction(book, c["tif"])
    order = order_of(model, book, c)
    bands.check_static(book, order.side, order.px)
    if order.order_type == MARKET and (order.tif in AUCTION_TIFS or book.in_batch):
        order.px = call_price(book, order.side)
    check_terms(model, book, order)
    check_number(model, book, order)
    _check_limits(model, book, order)
    model.touched.add(book.symbol_id)
    return order


def _check_limits(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    # 403 to 406. A budget's quantity is what it is worth now, its notional the budget itself.
    waits = order.activation or order.trigger
    size = limits_model.worth(book, order.side, order.total, order.px, waits)
    if order.order_type == BUDGET:
        qty = order.total
        if order.tif != TimeInForce.FOK:
            qty = dry_run.afford(book, order, book.unit, model.limits.max_walk) or 0
        size = limits_model.Size(qty, order.budget // book.unit)
    stays = order.is_stop or order.tif in AUCTION_TIFS or order.can_rest
    limits_model.check_new(model, book, order.account, order.side, size, stays=stays)


def _spend(model: ExchangeModel, book: FullBook, order: FullOrder) -> bool:
    """505, or the quantity a budget is worth; True: a dry run did not decide it."""
    if order.tif == TimeInForce.FOK:
        return False  # it states its quantity
    lots = dry_run.afford(book, order, book.unit, model.limits.max_walk)
    refuse_if(lots == 0, RejectCode.BUDGET)
    order.total = lots or 0
    return lots is None


def call_price(book: FullBook, side: int) -> int:
    """309, or the price a market order of a call reserves at."""
    limit = bands.static_limit(book, side)
    if limit is None:
        raise Refused(RejectCode.NO_BAND)
    return limit


def _prepare_for_a_later_call(model: ExchangeModel, book: FullBook, order: FullOrder) -> Start:
    # Its level is looked for when it joins.
    check_slot(model)

    def start() -> Units:
        book.park(order)
        model.writer.add_order(EventKind.PARKED, order, px=order.px)
        yield from ()

    return start


def _prepare_stop(model: ExchangeModel, book: FullBook, order: FullOrder) -> Start:
    # Its level is looked for when it comes to rest.
    stops.check(book, order)
    check_slot(model)

    def start() -> Units:
        if order.order_type in TRAILING:
            stops.start_trailing(book, order)
        stops.wait(book, order)
        yield from ()

    return start


# --------------------------------------------------------------------------------------- the checks
def _check_built(model: ExchangeModel, c: Command) -> None:
    part = PART_OF_TYPE.get(c["order_type"])
    refuse_if(bool(part and part not in model.built), RejectCode.NOT_SUPPORTED_HERE)
    unlisted = c["flags"] & CommandFlag.LIST and "lists" not in model.built
    refuse_if(bool(unlisted), RejectCode.NOT_SUPPORTED_HERE)


def _check_supported(book: FullBook, c: Command) -> None:
    refuse_if(c["order_type"] not in SUPPORTED, RejectCode.NOT_SUPPORTED_HERE)
    refuse_if(bool(c["flags"] & CommandFlag.REDUCE_ONLY), RejectCode.NOT_SUPPORTED_HERE)
    if book.in_batch:
        at_once = c["min_qty"] or c["flags"] & (CommandFlag.POST_ONLY | CommandFlag.PROTECTED)
        other = c["order_type"] not in {LIMIT, MARKET} | STOPS or c["tif"] == TimeInForce.FOK
        refuse_if(bool(at_once or other), RejectCode.NOT_SUPPORTED_HERE)
    mode = c["stp"] or book.stp
    if c["order_type"] == BUDGET:
        refuse_if(mode in (SelfTrade.DECREMENT, SelfTrade.TRANSFER), RejectCode.NOT_SUPPORTED_HERE)
    unprotected = c["flags"] & CommandFlag.PROTECTED and not book.protection
    refuse_if(bool(unprotected), RejectCode.NOT_SUPPORTED_HERE)


def order_of(model: ExchangeModel, book: FullBook, c: Command) -> FullOrder:
    """The order a command asks for."""
    flags = c["flags"]
    trails = c["order_type"] in TRAILING
    return FullOrder(
        order_id=model.next_order_id(),
        client_order_id=c["client_order_id"],
        account=c["account"],
        session=c["session"],
        symbol_id=book.symbol_id,
        side=c["side"],
        order_type=c["order_type"],
        tif=c["tif"],
        px=c["px"],
        total=c["qty"],
        post_only=bool(flags & CommandFlag.POST_ONLY),
        tag=c["tag"],
        text=target_text(c),
        slide=bool(flags & CommandFlag.SLIDE),
        hidden=bool(flags & CommandFlag.HIDDEN) or c["order_type"] == OrderType.PEG_MID,
        peak=c["peak"],
        min_qty=c["min_qty"],
        stp=c["stp"] or book.stp,
        expire_at=expiry(model, c["tif"], c["expire_ts"]),
        budget=c["amount"],
        trigger=0 if trails else c["px2"],
        on_best=bool(flags & CommandFlag.TRIGGER_BEST),
        distance=c["qty2"],
        in_bps=bool(flags & CommandFlag.DISTANCE_BPS),
        activation=c["px2"] if trails else 0,
    )


def expiry(model: ExchangeModel, tif: int, expire_ts: int) -> int:
    """When it expires: GTD as told, DAY at the next day roll; 0: never."""
    if tif == TimeInForce.DAY:
        return (model.now // DAY_NS + 1) * DAY_NS
    return expire_ts if tif == TimeInForce.GTD else 0


def check_parts(book: FullBook, order: FullOrder) -> None:
    """310: too many slices."""
    parts = -(-order.total // order.peak) if order.peak else 1
    refuse_if(parts > book.iceberg_parts, RejectCode.ICEBERG_PARTS)


def check_terms(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """310 to 312: what the instrument's terms and the clock say to an order's values."""
    check_parts(book, order)
    trails = order.is_stop and order.order_type in TRAILING
    uncapped = trails and order.side == BUY and not order.px
    uncapped = uncapped or (order.order_type in PEGS and not order.px)
    refuse_if(uncapped, RejectCode.CAP_REQUIRED)
    past = order.tif == TimeInForce.GTD and order.expire_at <= model.now
    refuse_if(past, RejectCode.EXPIRY_PAST)


def check_number(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """314: a new order of a type of which only so many may wait."""
    if order.order_type in TRAILING:
        there = sum(o.order_type in TRAILING for o in book.pending)
        refuse_if(there >= book.max_trailing, RejectCode.TOO_MANY)
    if order.order_type in PEGS:
        live = [o for o in model.orders.values() if o.symbol_id == book.symbol_id]
        there = sum(o.order_type in PEGS for o in live)
        refuse_if(there >= book.max_pegs, RejectCode.TOO_MANY)
    if order.order_type == LIMIT and order.can_rest:
        refuse_if(book.is_full(order.side, order.px), RejectCode.TOO_MANY)


def derive_limit(book: FullBook, order: FullOrder, protected: bool) -> None:
    """502, 503, and the limit that a slide, market-to-limit or protection takes from the book."""
    best = book.best_px(1 - order.side)
    if not book.trades_now:
        return
    if order.post_only and book.meets(order):
        refuse_if(not order.slide, RejectCode.WOULD_TRADE)
        order.px = best + (-1 if order.side == BUY else 1)
        refuse_if(not 1 <= order.px <= book.px_max, RejectCode.WOULD_TRADE)
    if order.order_type in (MARKET, MARKET_TO_LIMIT, BUDGET):
        refuse_if(best is None, RejectCode.NO_LIQUIDITY)
        if order.order_type == MARKET_TO_LIMIT:
            order.px = best
        elif protected:
            order.px = beyond(order.side, best, book.protection)


def beyond(side: int, px: int, ticks: int) -> int:
    """A price so many ticks worse for this side, within the domain."""
    return min(max(px + (ticks if side == BUY else -ticks), 1), PRICE_MAX)


def check_slot(model: ExchangeModel) -> None:
    """902: a slot for one more order."""
    taken = len(model.orders) + model.slots_promised
    refuse_if(taken >= model.limits.orders_max, RejectCode.ORDERS_FULL)


def check_level(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """903: a level if the remainder could rest."""
    joins = order.order_type == LIMIT and (order.tif in AUCTION_TIFS or book.in_batch)
    if (order.can_rest or joins) and not book.has_level(order.side, order.px):
        refuse_if(model.level_count() >= model.limits.levels_max, RejectCode.LEVELS_FULL)
