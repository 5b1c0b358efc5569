"""Lists of orders in one request: oco, oto, otoco. Cold.

Part of the slow path (gateway/codec_slow.py). One line holds all legs: a key with `leg1_`, `leg2_`
or `leg3_` in front is that leg's, one without is every leg's that does not state its own. Each leg
is then read like a new order, and what is wrong with one is told with its number. The legs become
one COMMAND each, written to the ring together or not at all (gateway/desk_orders.py); the shard
answers when the last one is there, and a refusal names that one.
"""

from collections.abc import Callable

from engine.records import CommandFlag, OrderType, RejectCode, TimeInForce
from gateway.codec_fields import LEG_KEYS, Context, Request
from gateway.codec_options import NEW_OPTIONS
from gateway.codec_stops import TRAILING, TRIGGERED
from gateway.codec_tables import NEW, OCO, OTO, OTOCO
from gateway.errors import Refusal
from gateway.state import C_DECISION, C_FLAGS, C_ID, C_ORDER_TYPE, C_QTY, C_SIDE, C_TIF

Build = Callable[[Request, Context], None]
KINDS = {OCO: 1, OTO: 2, OTOCO: 3}  # COMMAND.decision_code
COUNTS = {OCO: 2, OTO: 2, OTOCO: 3}
WAITING = TRIGGERED | TRAILING
LATER = WAITING | {OrderType.LIMIT, OrderType.MARKET}
# What a leg may state for itself.
OWN = NEW_OPTIONS | {"id", "side", "qty", "price", "tif", "order_type", "tag"}


def build_list(request: Request, context: Context, build: Build) -> None:
    """Read the legs of a list; `build` reads a new order with its client id."""
    count = COUNTS[request.type]
    if "id" in request.keys:
        request.refuse(RejectCode.BAD_FIELD, "each leg has its own id: leg1_id, leg2_id")
    for key in request.keys:
        if key.startswith(LEG_KEYS):
            number, name = int(key[3]), key[5:]
            if number > count or name not in OWN:
                request.refuse(RejectCode.BAD_FIELD, f"{key} does not belong to this list")
    for number in range(1, count + 1):
        _leg(request, context, number, build)
        if number < count:
            request.legs[-1].words[C_FLAGS] |= CommandFlag.LIST
    first, last = request.legs[0], request.legs[-1]
    request.shards, request.client_id = first.shards, last.client_id
    request.words[C_ID] = first.words.get(C_ID, 0)
    if not request.refusals:
        _check(request)


def _leg(request: Request, context: Context, number: int, build: Build) -> None:
    own = f"leg{number}_"
    keys = {k: v for k, v in request.keys.items() if not k.startswith(LEG_KEYS) and k != "id"}
    keys |= {k.removeprefix(own): v for k, v in request.keys.items() if k.startswith(own)}
    del keys["type"]
    leg = Request(type=NEW, keys=keys)
    build(leg, context)
    leg.words[C_DECISION] = KINDS[request.type]
    request.legs.append(leg)
    for refusal in leg.refusals:
        request.refusals.append(Refusal(refusal.code, f"leg {number}: {refusal.text}"))


def _check(request: Request) -> None:
    # What makes legs a list, a sentence each (RULES §13; engine/legs.py).
    legs, bad = request.legs, RejectCode.BAD_COMBINATION
    later = [] if request.type == OCO else legs[1:]
    for leg in later:
        auction = leg.words[C_TIF] > TimeInForce.GTD
        if leg.words[C_ORDER_TYPE] not in LATER or auction:
            request.refuse(bad, "a leg that waits is a limit, market or stop order of no auction")
    if request.type == OTO:
        return
    pair = legs[-2:]
    for word, name in ((C_SIDE, "side"), (C_QTY, "qty"), (C_TIF, "tif")):
        if pair[0].words[word] != pair[1].words[word]:
            request.refuse(bad, f"the two that cancel each other have the same {name}")
    kinds = [leg.words[C_ORDER_TYPE] for leg in pair]
    if any(kind not in WAITING | {OrderType.LIMIT} for kind in kinds):
        request.refuse(bad, "the two that cancel each other are a limit order and a stop, or stops")
    if kinds == [OrderType.LIMIT, OrderType.LIMIT]:
        request.refuse(bad, "of the two that cancel each other one at most is a limit order")
