"""What an order that waits for a price says: trigger, activation price, trailing distance. Cold.

Part of gateway/codec_options.py. Prices and distances are read in the instrument's ticks
(gateway/codec_slow.py): `trigger` and `activation` are one word of the command, so are `distance`
and `distance_bps`, which counts hundredths of a percent.
"""

from collections.abc import Iterator

from engine.records import QTY_LOTS_MAX, CommandFlag, OrderType, RejectCode, TimeInForce
from gateway.codec_fields import Request, integer_of, listed_of
from gateway.codec_tables import TRIGGERS
from gateway.state import C_ORDER_TYPE, C_QTY2, C_TIF

STOP_CHANGES = frozenset({"trigger", "activation", "distance", "distance_bps"})
STOP_OPTIONS = STOP_CHANGES | {"trigger_on"}
TRAILING = frozenset({OrderType.TRAILING_STOP, OrderType.TRAILING_STOP_LIMIT})
TRIGGERED = frozenset(
    {OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT}
)
UNPRICED = frozenset({OrderType.STOP, OrderType.TAKE_PROFIT})


def stop_options(request: Request) -> int:
    """Flags of a new order that waits; refuses one that does not say what for."""
    keys, kind = request.keys, request.words[C_ORDER_TYPE]
    flags = _distance_bps(request)
    if listed_of(request, "trigger_on", TRIGGERS):
        flags |= CommandFlag.TRIGGER_BEST
    if kind in TRIGGERED and "trigger" not in keys:
        request.refuse(RejectCode.BAD_FIELD, "trigger is missing")
    if kind in TRAILING and not {"distance", "distance_bps"} & keys.keys():
        request.refuse(RejectCode.BAD_FIELD, "distance is missing")
    return int(flags)


def stop_changes(request: Request) -> int:
    """Flags of a replace; what of it the order can be given is the shard's to say."""
    flags = _distance_bps(request)
    if {"trigger", "activation"} <= request.keys.keys():
        request.refuse(
            RejectCode.BAD_COMBINATION, "an order has a trigger or an activation, not both"
        )
    for text in _two_distances(request):
        request.refuse(RejectCode.BAD_COMBINATION, text)
    return flags


def _distance_bps(request: Request) -> int:
    bps = integer_of(request, "distance_bps", 1, QTY_LOTS_MAX, RejectCode.OUT_OF_RANGE)
    if bps is None:
        return 0
    request.words[C_QTY2] = bps
    return int(CommandFlag.DISTANCE_BPS)


def _two_distances(request: Request) -> Iterator[str]:
    if {"distance", "distance_bps"} <= request.keys.keys():
        yield "a distance is stated once, as a price or in bps"


def stop_misfits(request: Request) -> Iterator[str]:
    """What does not go together in a new order, a sentence each."""
    keys = request.keys
    kind, tif = request.words[C_ORDER_TYPE], request.words[C_TIF]
    if kind in UNPRICED and "price" in keys:
        yield "this order has no price: with one it is stop_limit or take_profit_limit"
    if kind in TRIGGERED | TRAILING and tif == TimeInForce.FOK:
        yield "an order that waits is not fok"
    if kind not in TRIGGERED:
        for key in ("trigger", "trigger_on"):
            if key in keys:
                yield f"{key} is for stop and take_profit orders that do not trail"
    if kind not in TRAILING:
        for key in ("activation", "distance", "distance_bps"):
            if key in keys:
                yield f"{key} is for trailing orders"
    yield from _two_distances(request)
