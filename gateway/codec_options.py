"""What an order may say beyond side, quantity and price: types, times in force and options. Cold.

Part of the slow path (gateway/codec_slow.py): the compiled scanner leaves every line with one of
these keys to it. They are read here and held against each other, so that 102, 103 and 104 come with
a sentence that names the key. The shard makes the same tests (engine/validate.py) and knows which
instrument trades by the full rules: on others it refuses them 304. What needs the order or the book
(a replace of an order that is not gtd, the number of slices, the time of day) is the shard's alone.
"""

from collections.abc import Iterator

from engine.records import UNSTATED, CommandFlag, OrderType, RejectCode, TimeInForce
from gateway.codec_budget import BUDGET_OPTIONS, budget_misfits, budget_options
from gateway.codec_fields import INT64_MAX, Request, integer_of, listed_of, truth_of
from gateway.codec_stops import (
    STOP_CHANGES,
    STOP_OPTIONS,
    stop_changes,
    stop_misfits,
    stop_options,
)
from gateway.codec_tables import NEW_TYPES, ORDER_TYPES, SELF_TRADES, TIFS
from gateway.state import (
    C_EXPIRE_TS,
    C_FLAGS,
    C_MIN_QTY,
    C_ORDER_TYPE,
    C_PEAK,
    C_QTY,
    C_STP,
    C_TIF,
)

NEW_OPTIONS = STOP_OPTIONS | BUDGET_OPTIONS | {
    "post_only", "slide", "hidden", "peak", "min_qty", "protected", "stp", "expire_time"
}  # fmt: skip
REPLACE_OPTIONS = STOP_CHANGES | {"peak", "min_qty", "expire_time"}
LIMITED = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT_LIMIT})
PRICED = LIMITED | {OrderType.TRAILING_STOP_LIMIT}
IMMEDIATE = frozenset({TimeInForce.IOC, TimeInForce.FOK})
EXPIRING = frozenset({TimeInForce.DAY, TimeInForce.GTD})
AUCTION = frozenset({TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE, TimeInForce.GOOD_FOR_AUCTION})
PEGS = frozenset({OrderType.PEG_PRIMARY, OrderType.PEG_MARKET, OrderType.PEG_MID})
TRADES_OR_RESTS = frozenset({OrderType.LIMIT, OrderType.MARKET})


def order_type_of(request: Request) -> int:
    """The order's type: as `type` or `order_type` states it, else by whether there is a budget or a
    price.
    """
    keys = request.keys
    stated = listed_of(request, "order_type", ORDER_TYPES)
    if request.type in NEW_TYPES:
        if "order_type" in keys:
            request.refuse(RejectCode.BAD_FIELD, "type names the order type already")
        return int(NEW_TYPES[request.type])
    if stated is not None:
        return stated
    if "budget" in keys:
        return int(OrderType.BUDGET)
    return int(OrderType.LIMIT if "price" in keys else OrderType.MARKET)


def new_options(request: Request) -> None:
    """Words of a new order's type, time in force and options, but for its quantities."""
    keys, words = request.keys, request.words
    words[C_ORDER_TYPE] = order_type_of(request)
    words[C_TIF] = listed_of(request, "tif", TIFS) or 0
    words[C_STP] = listed_of(request, "stp", SELF_TRADES) or 0
    words[C_EXPIRE_TS] = expire_time_of(request)
    flags, slide = 0, truth_of(request, "slide")
    for key, flag in (
        ("post_only", CommandFlag.POST_ONLY),
        ("hidden", CommandFlag.HIDDEN),
        ("protected", CommandFlag.PROTECTED),
    ):
        flags |= flag if truth_of(request, key) else 0
    if slide:
        if "post_only" in keys and not flags & CommandFlag.POST_ONLY:
            request.refuse(RejectCode.BAD_COMBINATION, "slide is an option of post_only orders")
        flags |= CommandFlag.SLIDE | CommandFlag.POST_ONLY
    words[C_FLAGS] = flags | stop_options(request)
    budget_options(request)
    if words[C_ORDER_TYPE] in PRICED and "price" not in keys:
        request.refuse(RejectCode.BAD_FIELD, "price is missing")
    if words[C_TIF] == TimeInForce.GTD and "expire_time" not in keys:
        request.refuse(RejectCode.BAD_FIELD, "expire_time is missing: a gtd order names its end")
    for text in (*_misfits(request), *stop_misfits(request), *budget_misfits(request)):
        request.refuse(RejectCode.BAD_COMBINATION, text)


def replace_options(request: Request) -> None:
    """Words of what a replace may change beside price and quantities."""
    request.words[C_EXPIRE_TS] = expire_time_of(request)
    request.words[C_FLAGS] = stop_changes(request)
    if "expire_time" in request.keys and request.words[C_TIF] not in (UNSTATED, TimeInForce.GTD):
        request.refuse(RejectCode.BAD_COMBINATION, "expire_time is for gtd orders")


def expire_time_of(request: Request) -> int:
    """Nanoseconds under `expire_time`; 0 when absent or wrong."""
    return integer_of(request, "expire_time", 1, INT64_MAX, RejectCode.OUT_OF_RANGE) or 0


def quantities_check(request: Request) -> None:
    """Neither a slice nor a minimum is more than the whole."""
    qty = request.words[C_QTY]
    for key, word in (("peak", C_PEAK), ("min_qty", C_MIN_QTY)):
        if request.words[word] > qty > 0:
            request.refuse(RejectCode.OUT_OF_RANGE, f"{key} is more than qty")


def _misfits(request: Request) -> Iterator[str]:
    # What does not go together in a new order, a sentence each (RULES §13; engine/validate.py).
    keys, flags = request.keys, request.words[C_FLAGS]
    kind, tif = request.words[C_ORDER_TYPE], request.words[C_TIF]
    if kind == OrderType.MARKET:
        if "price" in keys:
            yield "a market order has no price"
        if tif in EXPIRING:
            yield "a market order never rests: gtc, ioc or fok"
    elif flags & CommandFlag.PROTECTED:
        yield "protected is for market orders: others have a limit"
    if kind == OrderType.MARKET_TO_LIMIT:
        if "price" in keys:
            yield "a market_to_limit order has no price: it takes the best opposite one"
        if tif in IMMEDIATE or tif in AUCTION:
            yield "a market_to_limit order can rest: gtc, day or gtd"
    if kind in PEGS and (tif in IMMEDIATE or tif in AUCTION):
        yield "a pegged order can rest: gtc, day or gtd"
    if kind not in LIMITED or tif in IMMEDIATE:
        stated = {
            "post_only": flags & CommandFlag.POST_ONLY,
            "hidden": flags & CommandFlag.HIDDEN,
            "peak": "peak" in keys,
        }
        for key, given in stated.items():
            if given:
                yield f"{key} is for orders that can rest"
    if flags & CommandFlag.HIDDEN and "peak" in keys:
        yield "an order is hidden or shows a peak, not both"
    if "min_qty" in keys:
        if kind not in TRADES_OR_RESTS:
            yield "min_qty is for limit and market orders"
        if tif == TimeInForce.FOK:
            yield "a fok order has its whole quantity for a minimum"
    if tif in AUCTION:
        if kind not in TRADES_OR_RESTS:
            yield "auctions take limit and market orders"
        if flags & CommandFlag.POST_ONLY or "min_qty" in keys:
            yield "post_only and min_qty mean nothing in an auction"
    if "expire_time" in keys and tif != TimeInForce.GTD:
        yield "expire_time is for gtd orders"
