"""ITCH 5.0: the layout of every message used, and the conversion of one EVENT into one message.

Hot: `message_write` runs once per public event in the publisher, the readers (`read_u32` ...) once
per field in the listener. Layouts are big-endian, packed, exactly Nasdaq's: any ITCH 5.0 parser
reads the channel. Offsets and lengths below are taken from these dtypes, so a field is written down
once.

    type locate tracking  time       body
    0    1      3         5 (6 B)    11 ...

Which event is which message (RULES §11, EVENTS §1) is decided by `itch_type` alone; one EVENT is at
most one message, and `feed_seq > 0` says the same as "there is a message".

    LISTED R · PHASE H · SESSION S · CANCELED D · BOOKED A, or U when it replaces a slice · REPRICED
    as BOOKED · PARKED of a displayed peg D
    FILL, maker's half: the displayed part E; taker's half: the part that was not displayed P
    in an uncross C, not to be counted; CROSSED Q, with the volume · INDICATIVE I
    EXPIRED of a displayed order D · REFRESHED A · PREVENTED that leaves less displayed X
    REPLACED in its place and smaller X, about to trade D · everything else is private

How our numbers travel: stock locate = index of the symbol in its shard; timestamp = in_ts as
nanoseconds since UTC midnight; shares = lots; order reference = public_ref; match number =
trade_id. Price = four decimals where the tick is a multiple of 0.0001 and the highest price fits 32
bits, else the integer number of ticks; never rounded; the directory channel says which. No account,
client id or order_id is ever written. F B L are laid out here and made from step 3 on.
"""

from typing import Any

import numpy as np

from engine.config import ITCH_PRICE_MAX, ITCH_TICK_UNIT
from engine.jit import helper, kernel, register_warmup
from engine.records import (
    EVENT_SLOT,
    SYMBOL_INDEX_BITS,
    Algorithm,
    EventFlag,
    EventKind,
    Phase,
    Role,
    Side,
)

HEADER_FIELDS = "message_type S1, locate >u2, tracking >u2, time_high >u2, time_low >u4"
_ORDER_FIELDS = "ref >u8, side S1, shares >u4, stock S8, price >u4"


def _layout(body: str) -> np.dtype[Any]:
    fields = [tuple(field.split()) for field in f"{HEADER_FIELDS}, {body}".split(", ")]
    return np.dtype([(name, code) for name, code in fields])


# The one table of ITCH types. Unused fields carry what the specification has for "not available".
MESSAGES: dict[str, np.dtype[Any]] = {
    "S": _layout("event_code S1"),
    "R": _layout(
        "stock S8, market_category S1, financial_status S1, round_lot_size >u4, round_lots_only S1,"
        " issue_classification S1, issue_sub_type S2, authenticity S1, short_sale_threshold S1,"
        " ipo_flag S1, luld_tier S1, etp_flag S1, etp_leverage >u4, inverse S1"
    ),
    "H": _layout("stock S8, trading_state S1, reserved S1, reason S4"),
    "L": _layout(
        "mpid S4, stock S8, primary_market_maker S1, market_maker_mode S1, participant_state S1"
    ),
    "A": _layout(_ORDER_FIELDS),
    "F": _layout(f"{_ORDER_FIELDS}, attribution S4"),
    "E": _layout("ref >u8, shares >u4, match >u8"),
    "C": _layout("ref >u8, shares >u4, match >u8, printable S1, price >u4"),
    "X": _layout("ref >u8, shares >u4"),
    "D": _layout("ref >u8"),
    "U": _layout("ref >u8, new_ref >u8, shares >u4, price >u4"),
    "P": _layout(f"{_ORDER_FIELDS}, match >u8"),
    "Q": _layout("shares >u8, stock S8, price >u4, match >u8, cross_type S1"),
    "B": _layout("match >u8"),
    "I": _layout(
        "paired >u8, imbalance >u8, imbalance_side S1, stock S8, far_price >u4, near_price >u4,"
        " reference_price >u4, cross_type S1, price_variation S1"
    ),
}
LENGTHS = {letter: layout.itemsize for letter, layout in MESSAGES.items()}
HEADER_BYTES = 11
MESSAGE_BYTES_MAX = max(LENGTHS.values())
STOCK_BYTES = 8

# Lengths of the specification.
assert "".join(LENGTHS) == "SRHLAFECXDUPQBI"
assert list(LENGTHS.values()) == [12, 39, 25, 26, 36, 40, 31, 36, 23, 19, 35, 44, 40, 19, 50]

# Length of a message by its first byte; 0: not a type of this channel. Small enough to be a
# constant of every kernel.
LENGTH_BY_TYPE = np.zeros(256, np.int64)
for _letter, _length in LENGTHS.items():
    LENGTH_BY_TYPE[ord(_letter)] = _length
LENGTH_BY_TYPE.flags.writeable = False

NO_MESSAGE = 0
TYPE_S, TYPE_R, TYPE_H = ord("S"), ord("R"), ord("H")
TYPE_A, TYPE_F, TYPE_E, TYPE_C, TYPE_X = ord("A"), ord("F"), ord("E"), ord("C"), ord("X")
TYPE_D, TYPE_U, TYPE_P, TYPE_Q, TYPE_B = ord("D"), ord("U"), ord("P"), ord("Q"), ord("B")
TYPE_I, TYPE_L = ord("I"), ord("L")
BUY_LETTER, SELL_LETTER, SPACE = ord("B"), ord("S"), ord(" ")
YES, NO = ord("Y"), ord("N")

# RULES §11: the letter of H for each Phase.
STATE_BY_PHASE = np.full(256, ord("H"), np.int64)
STATE_BY_PHASE[Phase.CONTINUOUS] = ord("T")
STATE_BY_PHASE[Phase.VOLATILITY_CALL] = ord("P")
for _phase in (Phase.PRE_OPEN, Phase.OPENING_CALL, Phase.CLOSING_CALL):
    STATE_BY_PHASE[_phase] = ord("Q")
STATE_BY_PHASE.flags.writeable = False
# Type of a cross by the Phase it ends: opening, closing, a reopening, or none of these.
CROSS_BY_PHASE = np.full(256, ord("I"), np.int64)
CROSS_BY_PHASE[Phase.PRE_OPEN] = CROSS_BY_PHASE[Phase.OPENING_CALL] = ord("O")
CROSS_BY_PHASE[Phase.VOLATILITY_CALL] = ord("H")
CROSS_BY_PHASE[Phase.CLOSING_CALL] = ord("C")
CROSS_BY_PHASE.flags.writeable = False
NOTHING_PAIRED = ord("O")

# Body of R behind the stock: not a Nasdaq listing, round lot of 1 (shares are lots), live, no
# threshold, no ETP.
DIRECTORY_BODY = np.frombuffer(
    b"  " + (1).to_bytes(4, "big") + b"N" + b"C" + b"Z " + b"PN  N" + bytes(4) + b"N", np.uint8
)
assert DIRECTORY_BODY.size == LENGTHS["R"] - HEADER_BYTES - STOCK_BYTES

DAY_NS = 86_400 * 10**9


def field_offset(letter: str, name: str) -> int:
    """Where a field starts in a message."""
    return int(MESSAGES[letter].fields[name][1])  # type: ignore[index]


LOCATE_AT, TIME_AT = field_offset("A", "locate"), field_offset("A", "time_high")
STOCK_AT = field_offset("R", "stock")
STATE_AT = field_offset("H", "trading_state")
CODE_AT = field_offset("S", "event_code")
REF_AT = field_offset("A", "ref")
ADD_SIDE_AT, ADD_SHARES_AT = field_offset("A", "side"), field_offset("A", "shares")
ADD_STOCK_AT, ADD_PRICE_AT = field_offset("A", "stock"), field_offset("A", "price")
EXEC_SHARES_AT, EXEC_MATCH_AT = field_offset("E", "shares"), field_offset("E", "match")
EXEC_PRINTABLE_AT, EXEC_PRICE_AT = field_offset("C", "printable"), field_offset("C", "price")
REPLACE_REF_AT, REPLACE_SHARES_AT = field_offset("U", "new_ref"), field_offset("U", "shares")
REPLACE_PRICE_AT = field_offset("U", "price")
TRADE_MATCH_AT = field_offset("P", "match")
CROSS_SHARES_AT, CROSS_STOCK_AT = field_offset("Q", "shares"), field_offset("Q", "stock")
CROSS_PRICE_AT, CROSS_MATCH_AT = field_offset("Q", "price"), field_offset("Q", "match")
CROSS_TYPE_AT, INDICATIVE_CROSS_AT = (
    field_offset("Q", "cross_type"),
    field_offset("I", "cross_type"),
)
PAIRED_AT, IMBALANCE_AT = field_offset("I", "paired"), field_offset("I", "imbalance")
IMBALANCE_SIDE_AT = field_offset("I", "imbalance_side")
INDICATIVE_STOCK_AT, FAR_PRICE_AT = field_offset("I", "stock"), field_offset("I", "far_price")
assert all(field_offset(t, "ref") == REF_AT for t in "AFECXDUP")
assert all(
    field_offset(t, f) == field_offset("A", f)
    for t in "FP"
    for f in ("side", "shares", "stock", "price")
)
assert all(field_offset(t, "shares") == EXEC_SHARES_AT for t in "ECX")
assert all(field_offset("C", f) == field_offset("E", f) for f in ("shares", "match"))

# What the conversion must know of a symbol; row = locate. `stock` 0: nothing known, no message can
# be made.
INSTRUMENT = np.dtype(
    [
        # eight characters as they stand in a message, space padded, read as little endian
        ("stock", "<u8"),
        ("scale", "<i8"),  # ITCH price = px * scale; 1: price in ticks
        ("decimal4", "<i8"),  # 1: prices have four decimals; 0: integer ticks
        ("tick", "<i8"),  # 1e-9 units
        ("lot", "<i8"),
        ("px_max", "<i8"),
    ],
    align=True,
)
LOCATES = 1 << SYMBOL_INDEX_BITS


# --------------------------------------------------------------------- bytes in and out of a buffer
@helper
def put_u16(buffer, at, value):
    """Store 2 bytes, big endian."""
    buffer[at] = (value >> 8) & 255
    buffer[at + 1] = value & 255


@helper
def put_u32(buffer, at, value):
    """Store 4 bytes, big endian."""
    buffer[at] = (value >> 24) & 255
    buffer[at + 1] = (value >> 16) & 255
    buffer[at + 2] = (value >> 8) & 255
    buffer[at + 3] = value & 255


@helper
def put_u64(buffer, at, value):
    """Store 8 bytes, big endian."""
    put_u32(buffer, at, (value >> 32) & 0xFFFFFFFF)
    put_u32(buffer, at + 4, value & 0xFFFFFFFF)


@helper
def put_stock(buffer, at, stock):
    """Store a packed stock name."""
    for i in range(STOCK_BYTES):
        buffer[at + i] = (stock >> np.uint64(8 * i)) & np.uint64(255)


@helper
def read_u16(buffer, at):
    """2 bytes, big endian, as int64."""
    return (np.int64(buffer[at]) << 8) | np.int64(buffer[at + 1])


@helper
def read_u32(buffer, at):
    """4 bytes, big endian, as int64."""
    return (read_u16(buffer, at) << 16) | read_u16(buffer, at + 2)


@helper
def read_u64(buffer, at):
    """8 bytes, big endian, as int64: 2**63 and more come out negative, as no number of ours is."""
    return (read_u32(buffer, at) << 32) | read_u32(buffer, at + 4)


@helper
def read_time(buffer, at):
    """Nanoseconds since midnight of the message at `at`."""
    return (read_u16(buffer, at + TIME_AT) << 32) | read_u32(buffer, at + TIME_AT + 2)


@helper
def read_stock(buffer, at):
    """Inverse of put_stock."""
    stock = np.uint64(0)
    for i in range(STOCK_BYTES):
        stock |= np.uint64(buffer[at + i]) << np.uint64(8 * i)
    return stock


# ---------------------------------------------------------------------------------- the conversion
@helper
def replaced_type(event, less):
    """Message of a REPLACED; `less`: less of it is displayed than before."""
    flags = np.int64(event["flags"])
    if not less:
        return NO_MESSAGE
    if flags & EventFlag.KEPT:
        return TYPE_X
    return TYPE_D if flags & EventFlag.WILL_TRADE else NO_MESSAGE


@helper
def filled_type(event):
    """Message of half a trade. C where it is not the front of the queue that trades."""
    if np.int64(event["role"]) == Role.TAKER:
        return TYPE_P
    return TYPE_C if np.int64(event["flags"]) & EventFlag.NON_FIFO else TYPE_E


@helper
def itch_type(event):
    """ASCII code of the message an EVENT is in public, or NO_MESSAGE."""
    kind = np.int64(event["kind"])
    shown = np.int64(event["shown"])
    less = shown < np.int64(event["shown_before"])
    letter = NO_MESSAGE
    if kind == EventKind.FILL:
        if less:
            letter = filled_type(event)
    elif kind == EventKind.BOOKED or kind == EventKind.REPRICED:
        if shown > 0:
            letter = TYPE_A if np.int64(event["old_ref"]) == 0 else TYPE_U
    elif kind == EventKind.CANCELED or kind == EventKind.EXPIRED or kind == EventKind.PARKED:
        letter = TYPE_D if less else NO_MESSAGE
    elif kind == EventKind.REPLACED:
        letter = replaced_type(event, less)
    elif kind == EventKind.REFRESHED:
        letter = TYPE_A
    elif kind == EventKind.PREVENTED:
        letter = TYPE_X if less and shown > 0 else NO_MESSAGE
    elif kind == EventKind.LISTED:
        letter = TYPE_R
    elif kind == EventKind.PHASE:
        letter = TYPE_H
    elif kind == EventKind.SESSION:
        letter = TYPE_S
    elif kind == EventKind.CROSSED:
        letter = TYPE_Q
    elif kind == EventKind.INDICATIVE:
        letter = TYPE_I
    return letter


@helper
def shown_less(event):
    """How much less is displayed than before; of a taker's fill: how much nobody displayed."""
    return np.int64(event["shown_before"]) - np.int64(event["shown"])


@helper
def needs_instrument(letter):
    """Whether the message carries a name or a price."""
    priced = letter == TYPE_A or letter == TYPE_U or letter == TYPE_P or letter == TYPE_C
    return priced or letter == TYPE_H or letter == TYPE_R or letter == TYPE_Q or letter == TYPE_I


@helper
def instrument_set(row, tick, lot, px_max):
    """Fill a row of the INSTRUMENT table but for its name, and decide how prices travel."""
    row["tick"] = tick
    row["lot"] = lot
    row["px_max"] = px_max
    row["scale"] = 1
    row["decimal4"] = 0
    if tick > 0 and tick % ITCH_TICK_UNIT == 0:
        scale = tick // ITCH_TICK_UNIT
        if px_max <= ITCH_PRICE_MAX // scale:
            row["scale"] = scale
            row["decimal4"] = 1


@helper
def instrument_learn(table, event):
    """Take a LISTED event into the INSTRUMENT table."""
    row = table[np.int64(event["symbol_id"]) & (LOCATES - 1)]
    instrument_set(
        row, np.int64(event["amount"]), np.int64(event["amount2"]), np.int64(event["px2"])
    )
    stock = np.uint64(0)
    for i in range(STOCK_BYTES):
        code = np.uint64(event["text"][i])
        if code == np.uint64(0):
            code = np.uint64(SPACE)
        stock |= code << np.uint64(8 * i)
    row["stock"] = stock


@helper
def _put_header(buffer, at, letter, event):
    locate = np.int64(event["symbol_id"]) & (LOCATES - 1)
    since_midnight = np.int64(event["in_ts"]) % DAY_NS
    buffer[at] = letter
    put_u16(buffer, at + LOCATE_AT, locate)
    put_u16(buffer, at + LOCATE_AT + 2, 0)
    put_u16(buffer, at + TIME_AT, since_midnight >> 32)
    put_u32(buffer, at + TIME_AT + 2, since_midnight & 0xFFFFFFFF)


@helper
def _put_add(buffer, at, event, row):
    # A, and P up to its price: a trade against hidden quantity is public without a side ("B" since
    # 2014) or reference.
    if np.int64(event["kind"]) == EventKind.FILL:
        put_u64(buffer, at + REF_AT, 0)
        buffer[at + ADD_SIDE_AT] = BUY_LETTER
        put_u64(buffer, at + TRADE_MATCH_AT, np.int64(event["trade_id"]))
        put_u32(buffer, at + ADD_SHARES_AT, shown_less(event))
    else:
        put_u64(buffer, at + REF_AT, np.int64(event["public_ref"]))
        buffer[at + ADD_SIDE_AT] = (
            BUY_LETTER if np.int64(event["side"]) == Side.BUY else SELL_LETTER
        )
        put_u32(buffer, at + ADD_SHARES_AT, np.int64(event["shown"]))
    put_stock(buffer, at + ADD_STOCK_AT, np.uint64(row["stock"]))
    put_u32(buffer, at + ADD_PRICE_AT, np.int64(event["px"]) * np.int64(row["scale"]))


@helper
def _put_replace(buffer, at, event, row):
    put_u64(buffer, at + REF_AT, np.int64(event["old_ref"]))
    put_u64(buffer, at + REPLACE_REF_AT, np.int64(event["public_ref"]))
    put_u32(buffer, at + REPLACE_SHARES_AT, np.int64(event["shown"]))
    put_u32(buffer, at + REPLACE_PRICE_AT, np.int64(event["px"]) * np.int64(row["scale"]))


@helper
def _put_execution(buffer, at, letter, event, row):
    # E and C, which adds the price and whether it is to be counted.
    put_u64(buffer, at + REF_AT, np.int64(event["public_ref"]))
    put_u32(buffer, at + EXEC_SHARES_AT, shown_less(event))
    put_u64(buffer, at + EXEC_MATCH_AT, np.int64(event["trade_id"]))
    if letter == TYPE_C:
        printable = np.int64(event["flags"]) & EventFlag.PRINTABLE
        buffer[at + EXEC_PRINTABLE_AT] = YES if printable else NO
        put_u32(buffer, at + EXEC_PRICE_AT, np.int64(event["px"]) * np.int64(row["scale"]))


@helper
def _state_letter(event):
    # A batch mode is an algorithm of the continuous phase, but nothing trades at once.
    phase = np.int64(event["code"])
    if phase == Phase.CONTINUOUS and event["order_type"] >= Algorithm.BATCH_AUCTION:
        return np.int64(STATE_BY_PHASE[Phase.OPENING_CALL.value])
    return np.int64(STATE_BY_PHASE[phase & 255])


@helper
def _put_named(buffer, at, letter, event, row):
    # R and H.
    put_stock(buffer, at + STOCK_AT, np.uint64(row["stock"]))
    if letter == TYPE_R:
        for i in range(DIRECTORY_BODY.size):
            buffer[at + STOCK_AT + STOCK_BYTES + i] = DIRECTORY_BODY[i]
    else:
        buffer[at + STATE_AT] = _state_letter(event)
        for i in range(STATE_AT + 1, HEADER_BYTES + 14):
            buffer[at + i] = SPACE


@helper
def _put_cross(buffer, at, letter, event, row):
    # Q and I: what an uncross did, or would do. The one price stands for all three of I.
    px = np.int64(event["px"]) * np.int64(row["scale"])
    cross = CROSS_BY_PHASE[np.int64(event["code"]) & 255]
    if letter == TYPE_Q:
        put_u64(buffer, at + CROSS_SHARES_AT, np.int64(event["amount2"]))
        put_stock(buffer, at + CROSS_STOCK_AT, np.uint64(row["stock"]))
        put_u32(buffer, at + CROSS_PRICE_AT, px)
        put_u64(buffer, at + CROSS_MATCH_AT, np.int64(event["trade_id"]))
        buffer[at + CROSS_TYPE_AT] = cross
        return
    surplus, side = np.int64(event["amount"]), np.int64(event["side"])
    put_u64(buffer, at + PAIRED_AT, np.int64(event["amount2"]))
    put_u64(buffer, at + IMBALANCE_AT, surplus)
    buffer[at + IMBALANCE_SIDE_AT] = NO
    if np.int64(event["amount2"]) == 0:
        buffer[at + IMBALANCE_SIDE_AT] = NOTHING_PAIRED
    elif surplus != 0:
        buffer[at + IMBALANCE_SIDE_AT] = BUY_LETTER if side == Side.BUY else SELL_LETTER
    put_stock(buffer, at + INDICATIVE_STOCK_AT, np.uint64(row["stock"]))
    for price in range(3):
        put_u32(buffer, at + FAR_PRICE_AT + 4 * price, px)
    buffer[at + INDICATIVE_CROSS_AT] = cross
    buffer[at + INDICATIVE_CROSS_AT + 1] = SPACE  # how far from a reference: not said


@helper
def message_write(buffer, at, letter, event, row):
    """Write the message `letter` of an event at `at`; returns its length.

    `letter` comes from itch_type; `row` is the INSTRUMENT row of the event's symbol. O(1).
    """
    _put_header(buffer, at, letter, event)
    if letter == TYPE_A or letter == TYPE_P:
        _put_add(buffer, at, event, row)
    elif letter == TYPE_E or letter == TYPE_C:
        _put_execution(buffer, at, letter, event, row)
    elif letter == TYPE_D:
        left = np.int64(event["public_ref"])
        if np.int64(event["kind"]) == EventKind.REPLACED:
            left = np.int64(event["old_ref"])
        put_u64(buffer, at + REF_AT, left)
    elif letter == TYPE_X:
        put_u64(buffer, at + REF_AT, np.int64(event["public_ref"]))
        put_u32(buffer, at + EXEC_SHARES_AT, shown_less(event))
    elif letter == TYPE_U:
        _put_replace(buffer, at, event, row)
    elif letter == TYPE_S:
        put_u16(buffer, at + LOCATE_AT, 0)
        buffer[at + CODE_AT] = np.int64(event["code"]) & 255
    elif letter == TYPE_Q or letter == TYPE_I:
        _put_cross(buffer, at, letter, event, row)
    else:
        _put_named(buffer, at, letter, event, row)
    return LENGTH_BY_TYPE[letter]


@kernel
def event_to_message(slots, index, table, buffer):
    """Convert one event to bytes at the start of `buffer`; returns the length, 0 when it is
    private. For cold callers.
    """
    event = slots[index]
    if np.int64(event["kind"]) == EventKind.LISTED:
        instrument_learn(table, event)
    letter = itch_type(event)
    if letter == NO_MESSAGE:
        return np.int64(0)
    return message_write(
        buffer, 0, letter, event, table[np.int64(event["symbol_id"]) & (LOCATES - 1)]
    )


# ------------------------------------------------------------------------------------ Python faces
def instrument_table() -> np.ndarray[Any, Any]:
    """Return an empty INSTRUMENT table: one row per stock locate."""
    return np.zeros(LOCATES, INSTRUMENT)


def pack_stock(name: str) -> int:
    """Symbol as the integer of INSTRUMENT.stock."""
    return int.from_bytes(name.encode("ascii").ljust(STOCK_BYTES)[:STOCK_BYTES], "little")


def unpack_stock(stock: int) -> str:
    """Inverse of pack_stock; characters that are not ASCII come out as "?"."""
    return int(stock).to_bytes(STOCK_BYTES, "little").decode("ascii", "replace").rstrip(" \0")


def _warm_up() -> None:
    event_to_message(np.zeros(1, EVENT_SLOT), 0, np.zeros(1, INSTRUMENT), np.zeros(64, np.uint8))


register_warmup("feed.itch", _warm_up)
