"""From one line to a request: the slow path, which knows every rule and says every no.

Cold: a line comes here only when gateway/codec_decode.py left it. gateway/codec_fields.py reads it.

All that is wrong is collected and the lowest code wins (RULES §1: checks in ascending order of
code). What a request asks for ends in the same C_ words that the fast path fills.
"""

from collections.abc import Callable

from engine.records import (
    CLIENT_TEXT_BYTES,
    UNSTATED,
    CommandFlag,
    CommandKind,
    RejectCode,
    pack_name,
)  # fmt: skip
from gateway.codec_budget import states_quantity
from gateway.codec_fields import (
    INT64_MAX,
    LEG_KEYS,
    Context,
    NumberText,
    Request,
    client_id_of,
    integer_of,
    keys_of,
    listed_of,
    pairs_of,
    shown,
    text_of,
)
from gateway.codec_lists import build_list
from gateway.codec_numbers import exact_steps
from gateway.codec_options import (
    NEW_OPTIONS,
    REPLACE_OPTIONS,
    new_options,
    quantities_check,
    replace_options,
)
from gateway.codec_tables import (
    BOOK,
    CANCEL,
    CANONICAL,
    HEARTBEAT,
    INSTRUMENTS,
    LIMITS,
    LISTS,
    LOGON,
    LOGOUT,
    MASS_CANCEL,
    NEW,
    NEW_KINDS,
    OPEN_ORDERS,
    ORDER,
    ORDER_TYPES,
    QUOTE,
    REPLACE,
    SIDES,
    TEST_REQUEST,
    TIFS,
    TYPE_NAMES,
    TYPES,
)  # fmt: skip
from gateway.directory import shard_of_name
from gateway.errors import Refusal
from gateway.state import (
    C_FLAGS,
    C_ID,
    C_KIND,
    C_MIN_QTY,
    C_ORDER_ID,
    C_ORDER_TYPE,
    C_PEAK,
    C_PX,
    C_PX2,
    C_QTY,
    C_QTY2,
    C_SIDE,
    C_SYMBOL,
    C_SYMBOL_ID,
    C_TAG,
    C_TARGET_ID,
    C_TIF,
    Y_LOT,
    Y_SHARD,
    Y_SYMBOL_ID,
    Y_TICK,
    Y_TRADED,
)  # fmt: skip

TAG_MAX = 2**32 - 1
PAGE_ROWS_MAX = 500
ID_KEYS = ("id", "order_id", "target_id")
_QUANTITIES = (("qty", C_QTY), ("peak", C_PEAK), ("min_qty", C_MIN_QTY))
_QUOTE_SIDES = (("bid", C_PX, "bid_qty", C_QTY), ("ask", C_PX2, "ask_qty", C_QTY2))
_PRICES = (("price", C_PX), ("trigger", C_PX2), ("activation", C_PX2), ("distance", C_QTY2))
_ORDER = frozenset({"type", "account", "session", "shard", "symbol"})
BELONGS: dict[int, frozenset[str]] = {
    NEW: _ORDER | NEW_OPTIONS | {"id", "side", "qty", "price", "tif", "order_type", "tag"},
    CANCEL: _ORDER | {"id", "order_id", "target_id"},
    REPLACE: _ORDER
    | REPLACE_OPTIONS
    | {"id", "order_id", "target_id", "side", "qty", "price", "tif", "order_type"},
    QUOTE: _ORDER | {"id", "bid", "bid_qty", "ask", "ask_qty", "tag"},
    MASS_CANCEL: _ORDER | {"id", "side", "tag", "scope"},
    ORDER: _ORDER | {"order_id", "target_id"},
    OPEN_ORDERS: _ORDER | {"after", "limit", "order_id", "qty"},
    LOGON: frozenset(
        {
            "type",
            "account",
            "token",
            "session",
            "ids",
            "cancel_on_disconnect",
            "receipts",
            "heartbeat",
            "dead_man",
            "resume",
            "incarnation",
            "request",
        }
    ),
    LOGOUT: frozenset({"type", "request"}),
    HEARTBEAT: frozenset({"type", "request"}),
    TEST_REQUEST: frozenset({"type", "request"}),
    BOOK: frozenset({"type", "symbol", "depth", "request"}),
    INSTRUMENTS: frozenset({"type", "symbol", "after", "limit", "request"}),
    LIMITS: frozenset({"type", "request"}),
}
BELONGS |= dict.fromkeys(NEW_KINDS, BELONGS[NEW])
BELONGS |= dict.fromkeys(LISTS, BELONGS[NEW])
COMMANDS = NEW_KINDS | LISTS | {CANCEL, REPLACE, MASS_CANCEL, QUOTE, ORDER, OPEN_ORDERS}


# ---------------------------------------------------------------------- instrument, price, quantity
def _symbol(request: Request, context: Context) -> str | None:
    # The symbol's name when it can be one; sets the words that carry it and the shard.
    name = text_of(request, "symbol")
    if name is None:
        return None
    try:
        packed = pack_name(name)
    except ValueError:
        if not name:
            request.refuse(RejectCode.BAD_FIELD, "symbol must not be empty")
        elif request.type in NEW_KINDS and context.config.unknown_symbol == "create":
            request.refuse(
                RejectCode.LISTING_REFUSED, "a symbol is 1 to 8 printable ASCII characters"
            )
        else:
            request.refuse(RejectCode.UNKNOWN_SYMBOL, f"no instrument {shown(name)}")
        return None
    request.words[C_SYMBOL] = packed
    if name in context.directory.rows:
        request.words[C_SYMBOL_ID] = context.directory.get(name, Y_SYMBOL_ID)
        request.shards = [context.directory.get(name, Y_SHARD)]
    else:
        request.shards = [shard_of_name(name, context.shards)]
    return name


def _steps(request: Request, key: str, units: int, off: RejectCode, name: str) -> int:
    # Whole ticks or lots under `key`; 0 when absent or wrong.
    value = request.keys.get(key)
    if value is None:
        return 0
    if not isinstance(value, str):
        request.refuse(RejectCode.BAD_FIELD, f"{key} must be a decimal number")
        return 0
    try:
        return exact_steps(value, units, key, off, name)
    except Refusal as refusal:
        request.refusals.append(refusal)
        return 0


def _price_qty(request: Request, context: Context, name: str | None) -> None:
    # Price and quantities in the instrument's steps; of the template for one that is going to be
    # created.
    known = name is not None and name in context.directory.rows
    if known and not context.directory.get(str(name), Y_TRADED):
        request.refuse(
            RejectCode.NOT_SUPPORTED_HERE, "this instrument's tick or lot cannot be carried here"
        )
    template = context.config.template
    tick = context.directory.get(str(name), Y_TICK) if known else template.tick_units
    lot = context.directory.get(str(name), Y_LOT) if known else template.lot_units
    off_tick, off_lot = RejectCode.OFF_TICK, RejectCode.OFF_LOT
    for key, word in _PRICES:
        if key in request.keys:
            request.words[word] = _steps(request, key, tick, off_tick, "tick")
    for key, word in _QUANTITIES:
        request.words[word] = _steps(request, key, lot, off_lot, "lot")
    if not known and context.config.unknown_symbol == "reject":
        # The shard is to say 301: no tick is known, so no price can be off it.
        request.refusals = [r for r in request.refusals if r.code not in (off_tick, off_lot)]
        for key, word in _PRICES:
            if key in request.keys:
                request.words[word] = 1
        for key, word in _QUANTITIES:
            request.words[word] = 1 if key in request.keys else 0
        request.words[C_QTY] = int("budget" not in request.keys or "qty" in request.keys)
    quantities_check(request)


def _route(request: Request, context: Context, *, everywhere: bool) -> None:
    # Which shards: the symbol's, the stated one, the only one, or (if the request allows it) all.
    stated = integer_of(request, "shard", 0, context.shards - 1, RejectCode.BAD_FIELD)
    if request.shards:
        if stated is not None and stated != request.shards[0]:
            request.refuse(
                RejectCode.BAD_FIELD,
                f"shard {stated} is not the symbol's: that is {request.shards[0]}",
            )
    elif stated is not None:
        request.shards = [stated]
    elif everywhere or context.shards == 1:
        request.shards = list(range(context.shards))
    else:
        request.refuse(RejectCode.BAD_FIELD, "name the symbol or the shard")


# ------------------------------------------------------------------------------ one kind of request
def _build_new(request: Request, context: Context) -> None:
    keys, words = request.keys, request.words
    words[C_KIND] = CommandKind.NEW
    words[C_SIDE] = listed_of(request, "side", SIDES) or 0
    new_options(request)
    needed = ("symbol", "side", "qty") if states_quantity(request) else ("symbol", "side")
    for key in needed:
        if key not in keys:
            request.refuse(RejectCode.BAD_FIELD, f"{key} is missing")
    words[C_TAG] = integer_of(request, "tag", 0, TAG_MAX, RejectCode.OUT_OF_RANGE) or 0
    _price_qty(request, context, _symbol(request, context))
    _route(request, context, everywhere=False)


def _build_legs(request: Request, context: Context) -> None:
    build_list(request, context, _build_leg)


def _build_leg(request: Request, context: Context) -> None:
    _build_new(request, context)
    _own_id(request, context)


def _build_target(request: Request, context: Context) -> None:
    # order_id and target of cancel, replace and order query.
    request.words[C_ORDER_ID] = (
        integer_of(request, "order_id", 1, INT64_MAX, RejectCode.OUT_OF_RANGE) or 0
    )
    request.words[C_TARGET_ID], request.text = client_id_of(request, context, "target_id")
    if "order_id" not in request.keys and "target_id" not in request.keys:
        request.refuse(RejectCode.BAD_FIELD, "order_id or target_id must name the order")
    if context.text_ids and "id" in request.keys:
        request.refuse(
            RejectCode.BAD_CLIENT_ID,
            "text ids name orders: this request has none, its order is target_id",
        )


def _build_cancel(request: Request, context: Context) -> None:
    request.words[C_KIND] = (
        CommandKind.CANCEL if request.type == CANCEL else CommandKind.QUERY_ORDER
    )
    _build_target(request, context)
    name = _symbol(request, context)
    if (
        name is not None
        and name not in context.directory.rows
        and context.config.unknown_symbol == "reject"
    ):
        request.refuse(RejectCode.UNKNOWN_SYMBOL, f"no instrument {name}")
    _route(request, context, everywhere=False)


def _build_replace(request: Request, context: Context) -> None:
    words = request.words
    words[C_KIND] = CommandKind.REPLACE
    _build_target(request, context)
    side, tif = listed_of(request, "side", SIDES), listed_of(request, "tif", TIFS)
    words[C_SIDE] = UNSTATED if side is None else side
    words[C_TIF] = UNSTATED if tif is None else tif
    words[C_ORDER_TYPE] = listed_of(request, "order_type", ORDER_TYPES) or 0
    replace_options(request)
    if "symbol" not in request.keys:
        request.refuse(
            RejectCode.BAD_FIELD, "symbol is missing: prices and quantities are read in its steps"
        )
    name = _symbol(request, context)
    if name is not None and name not in context.directory.rows:
        # Its steps are not known, and the order meant is another instrument's.
        request.refuse(RejectCode.UNKNOWN_SYMBOL, f"no instrument {name}")
    _price_qty(request, context, name)
    if "qty" not in request.keys:
        words[C_QTY] = 0
    _route(request, context, everywhere=False)


def _build_quote(request: Request, context: Context) -> None:
    keys, words = request.keys, request.words
    words[C_KIND] = CommandKind.QUOTE
    if "symbol" not in keys:
        request.refuse(RejectCode.BAD_FIELD, "symbol is missing")
    if context.text_ids and "id" in keys:
        request.refuse(RejectCode.BAD_CLIENT_ID, "text ids name orders: a quote, two, has none")
    words[C_TAG] = integer_of(request, "tag", 0, TAG_MAX, RejectCode.OUT_OF_RANGE) or 0
    name = _symbol(request, context)
    known = name is not None and name in context.directory.rows
    if name is not None and not known:
        # A quote creates nothing: its instrument has the full rules.
        request.refuse(RejectCode.UNKNOWN_SYMBOL, f"no instrument {name}")
    if known and not context.directory.get(str(name), Y_TRADED):
        text = "this instrument's tick or lot cannot be carried here"
        request.refuse(RejectCode.NOT_SUPPORTED_HERE, text)
    template = context.config.template
    tick = context.directory.get(str(name), Y_TICK) if known else template.tick_units
    lot = context.directory.get(str(name), Y_LOT) if known else template.lot_units
    for price, px, quantity, qty in _QUOTE_SIDES:
        words[qty] = (
            0
            if _is_zero(keys.get(quantity))
            else _steps(request, quantity, lot, RejectCode.OFF_LOT, "lot")
        )
        words[px] = _steps(request, price, tick, RejectCode.OFF_TICK, "tick")
        if price in keys and quantity not in keys:
            request.refuse(RejectCode.BAD_FIELD, f"{quantity} is missing: how much at this {price}")
        if words[qty] and price not in keys:
            request.refuse(RejectCode.BAD_FIELD, f"{price} is missing: the price of {quantity}")
    if not known:
        off = (RejectCode.OFF_TICK, RejectCode.OFF_LOT)
        request.refusals = [r for r in request.refusals if r.code not in off]
    _route(request, context, everywhere=False)


def _is_zero(value: object) -> bool:
    # A quantity of nothing: the side is to go.
    return isinstance(value, str) and value.strip("0") in ("", ".") and "0" in value


def _build_mass_cancel(request: Request, context: Context) -> None:
    words = request.words
    words[C_KIND] = CommandKind.MASS_CANCEL
    flags = 0
    side = listed_of(request, "side", SIDES)
    if side is not None:
        flags |= CommandFlag.BY_SIDE
        words[C_SIDE] = side
    tag = integer_of(request, "tag", 0, TAG_MAX, RejectCode.OUT_OF_RANGE)
    if tag is not None:
        flags |= CommandFlag.BY_TAG
        words[C_TAG] = tag
    if listed_of(request, "scope", {"account": 0, "session": 1}):
        flags |= CommandFlag.BY_SESSION
    name = _symbol(request, context)
    if name is not None:
        flags |= CommandFlag.BY_SYMBOL
        if name not in context.directory.rows:
            request.refuse(RejectCode.UNKNOWN_SYMBOL, f"no instrument {name}")
    words[C_FLAGS] = flags
    if context.text_ids and "id" in request.keys:
        request.refuse(RejectCode.BAD_CLIENT_ID, "text ids name orders: a mass cancel has none")
    _route(request, context, everywhere=True)


def _build_open_orders(request: Request, context: Context) -> None:
    words = request.words
    words[C_KIND] = CommandKind.QUERY_OPEN_ORDERS
    # The page begins behind `after` (or order_id) and has `limit` (or qty) rows: the command's own
    # field names do as well.
    after = integer_of(request, "after", 0, INT64_MAX, RejectCode.OUT_OF_RANGE)
    words[C_ORDER_ID] = (
        after or integer_of(request, "order_id", 0, INT64_MAX, RejectCode.OUT_OF_RANGE) or 0
    )
    rows = integer_of(request, "limit", 1, PAGE_ROWS_MAX, RejectCode.OUT_OF_RANGE)
    rows = rows or integer_of(request, "qty", 1, PAGE_ROWS_MAX, RejectCode.OUT_OF_RANGE)
    words[C_QTY] = rows or context.config.gateway.page_rows_max
    name = _symbol(request, context)
    if name is not None:
        words[C_FLAGS] = CommandFlag.BY_SYMBOL
        if name not in context.directory.rows:
            request.refuse(RejectCode.UNKNOWN_SYMBOL, f"no instrument {name}")
    _route(request, context, everywhere=not words[C_ORDER_ID])


_BUILDERS: dict[int, Callable[[Request, Context], None]] = {
    CANCEL: _build_cancel, ORDER: _build_cancel, REPLACE: _build_replace,
    MASS_CANCEL: _build_mass_cancel, QUOTE: _build_quote, OPEN_ORDERS: _build_open_orders,
    **dict.fromkeys(NEW_KINDS, _build_new), **dict.fromkeys(LISTS, _build_legs),
}  # fmt: skip


def _own_id(request: Request, context: Context) -> None:
    # The request's own client id: what it uses up, and what a reject repeats.
    value = request.keys.get("id")
    if isinstance(value, NumberText) and value.lstrip("-").isdigit() and len(value) <= 19:
        request.client_id = int(value) if -INT64_MAX <= int(value) <= INT64_MAX else None
    elif isinstance(value, str) and not isinstance(value, NumberText):
        request.client_id = value[:CLIENT_TEXT_BYTES]
    if request.type in NEW_KINDS or not context.text_ids:
        number, text = client_id_of(request, context, "id")
        request.words[C_ID] = number
        if text:
            request.text = text
            request.words[C_FLAGS] = request.words.get(C_FLAGS, 0) | CommandFlag.TEXT_ID


def request_of(line: bytes, context: Context) -> Request:
    """Understand one line (without its LF). Never raises: what is wrong stands in `refusals`."""
    request = Request()
    try:
        keys_of(pairs_of(line), request)
    except Refusal as refusal:
        request.refusals.append(refusal)
        return request
    kind = listed_of(request, "type", TYPES) if "type" in request.keys else NEW
    if kind is None:
        return request
    request.type = kind
    for key in request.keys.keys() - BELONGS[kind]:
        of_leg = key.startswith(LEG_KEYS)
        if (key in CANONICAL.values() or of_leg) and not (of_leg and kind in LISTS):
            request.refuse(RejectCode.BAD_FIELD, f"{key} does not belong to {TYPE_NAMES[kind]}")
    if kind in COMMANDS:
        _BUILDERS[kind](request, context)
        if kind not in LISTS:
            _own_id(request, context)
        if request.text and kind not in NEW_KINDS:
            request.words[C_FLAGS] = request.words.get(C_FLAGS, 0) | CommandFlag.TEXT_ID
    return request


# -------------------------------------------------------------- requests the gateway answers itself
def integer_key(request: Request, key: str, low: int, high: int, default: int) -> int:
    """A whole number under `key`, or the default."""
    number = integer_of(request, key, low, high, RejectCode.OUT_OF_RANGE)
    return default if number is None else number


def name_key(request: Request, key: str) -> str | None:
    """Text under `key`."""
    return text_of(request, key)


def request_mark(request: Request) -> str | int | None:
    """What `request` says, to be repeated in the answer: short text or a whole number."""
    value = request.keys.get("request")
    if value is None:
        return None
    if isinstance(value, NumberText):
        return integer_of(request, "request", -INT64_MAX, INT64_MAX, RejectCode.OUT_OF_RANGE)
    if isinstance(value, str) and len(value) <= CLIENT_TEXT_BYTES:
        return value
    request.refuse(
        RejectCode.BAD_FIELD,
        f"request must be a whole number or text of at most {CLIENT_TEXT_BYTES} characters",
    )
    return None
