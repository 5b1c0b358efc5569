"""Every record layout and every code of the exchange, written down once.

Cold: imported by all processes, executes nothing per record. COMMAND goes from a producer (gateway,
supervisor) to a shard, EVENT comes back to everybody. The same bytes stand in the command ring, the
event ring and, from step 2, the journal and the event log; fields of an owner that has not run yet
are zero. JSON keys, ITCH messages and the tables of docs/protocol.md are derived from this file or
tested against it.

Numbers: price in ticks, quantity in lots, both 1 <= n < 2**31; money in the asset's smallest unit;
time in nanoseconds. A 0 means "none" unless the field says otherwise. Text ids are 36 bytes, zero
padded.

Layout rules, asserted below: little endian, aligned, flat (no sub-records), a multiple of 64 and at
most 192 bytes, no hole. The first 64 bytes hold all that a plain limit order needs.
"""

import hashlib
from typing import Any

import numpy as np

from engine.codes import (
    AccountLimit as AccountLimit,
)
from engine.codes import (
    Algorithm as Algorithm,
)
from engine.codes import (
    CommandFlag as CommandFlag,
)
from engine.codes import (
    CommandKind as CommandKind,
)
from engine.codes import (
    EventFlag as EventFlag,
)
from engine.codes import (
    EventKind as EventKind,
)
from engine.codes import (
    InstrumentRule as InstrumentRule,
)
from engine.codes import (
    KillAction as KillAction,
)
from engine.codes import (
    OrderState as OrderState,
)
from engine.codes import (
    OrderType as OrderType,
)
from engine.codes import (
    Phase as Phase,
)
from engine.codes import (
    Reason as Reason,
)
from engine.codes import (
    RejectCode as RejectCode,
)
from engine.codes import (
    Role as Role,
)
from engine.codes import (
    RuleSet as RuleSet,
)
from engine.codes import (
    SelfTrade as SelfTrade,
)
from engine.codes import (
    Side as Side,
)
from engine.codes import (
    TimeInForce as TimeInForce,
)

PRICE_TICKS_MAX = 2**31 - 1
QTY_LOTS_MAX = 2**31 - 1
NOTIONAL_MAX = 2**62 - 1
SYMBOL_BYTES_MAX = 8
CLIENT_TEXT_BYTES = 36
SESSION_NAME_BYTES_MAX = 8
SLOT_BITS = 24  # order_id = counter << SLOT_BITS | slot
SLOT_MASK = (1 << SLOT_BITS) - 1
SYMBOL_INDEX_BITS = 16  # symbol_id = shard << SYMBOL_INDEX_BITS | index, index >= 1
SYMBOL_INDEX_MASK = (1 << SYMBOL_INDEX_BITS) - 1
UNSTATED = 255  # side or tif of a REPLACE that does not name it
CACHE_LINE = 64
RULES_VERSION = 1  # raised when the hash of any golden journal changes


# One COMMAND. Line 0 is all a plain order needs; line 1 its options; line 2 what the journal and
# text ids add.
COMMAND = np.dtype(
    [
        (
            "producer_seq",
            "<i8",
        ),  # gapless per (producer, shard); the readiness word: written last, with release
        ("receipt_ts", "<i8"),  # CLOCK_MONOTONIC when the producer had read the bytes
        # the request's own integer id; PRODUCER_RESET: the producer; OPEN_ACCOUNT and what stands
        # behind it: admin_seq, 0: none
        ("client_order_id", "<i8"),
        ("order_id", "<i8"),  # target of cancel, replace, query; else 0
        # session slot in this shard (answer of SESSION_OPEN), 0: none; TIME: whose deadline fires;
        # neither this nor an order_id, which expires: whatever is due first
        ("session", "<i4"),
        ("logon", "<u4"),  # number of the logon that owns the session
        ("account", "<i4"),
        ("symbol_id", "<i4"),  # 0: unknown, `symbol` names it
        ("px", "<i4"),  # limit price or cap, ticks; REPLACE: 0 keeps
        # lots; REPLACE: new total, 0 keeps; open-order query: most rows; QUOTE: of the bid;
        # SET_LIMITS: that may be filled on quotes
        ("qty", "<i4"),
        ("kind", "u1"),
        ("producer", "u1"),  # 0 the loop itself, 1 the supervisor, then gateways
        ("side", "u1"),
        # LIST_INSTRUMENT: RuleSet; SET_RULE: InstrumentRule; SET_LIMITS: AccountLimit;
        # KILL_SWITCH: KillAction
        ("order_type", "u1"),
        ("tif", "u1"),
        ("stp", "u1"),  # LIST_INSTRUMENT: what DEFAULT means
        ("flags", "<u2"),
        ("target_client_order_id", "<i8"),  # cancel, replace, query: the order's integer client id
        ("symbol", "<u8"),  # name, 8 ASCII bytes as stored, zero padded
        ("px2", "<i4"),  # trigger; ask of a quote; LIST_INSTRUMENT: highest price
        # trailing distance; ask quantity of a quote; LIST_INSTRUMENT: protection points
        ("qty2", "<i4"),
        ("peak", "<i4"),  # iceberg: shown at a time; LIST_INSTRUMENT: iceberg_parts
        ("min_qty", "<i4"),
        # budget, money; SET_LIMITS: window, ns; LIST_INSTRUMENT: tick size in 1e-9 units;
        # SESSION_OPEN: dead-man time, ns; TIME: length of a pause; PRODUCER_RESET: grace time;
        # INCARNATION: the new number; FEED_STATE: trading day yyyymmdd
        ("amount", "<i8"),
        # LIST_INSTRUMENT: lot size in 1e-9 units; INCARNATION: 1, order ids may be lost;
        # FEED_STATE: epoch
        ("expire_ts", "<i8"),
        ("in_seq", "<i8"),  # filled by the shard loop: gapless per shard from 1
        ("tag", "<u4"),
        ("decision_code", "<u2"),
        ("layout_version", "<u2"),
        ("in_ts", "<i8"),  # filled by the shard loop: CLOCK_REALTIME, never decreasing
        ("decision_amount", "<i8"),
        ("crc", "<u4"),
        ("epoch", "<u4"),
        ("durable_lag", "<u4"),
        # text client id; SESSION_OPEN: session name; KILL_SWITCH: of a session, empty: the account
        ("text", "u1", (CLIENT_TEXT_BYTES,)),
    ],
    align=True,
)

# One EVENT concerns one order. Unused fields are zero; `amount`, `amount2`, `px2` are named per
# kind in EVENT_FIELD_USE.
EVENT = np.dtype(
    [
        ("out_seq", "<i8"),  # gapless per shard from 1
        ("in_seq", "<i8"),  # of the command that caused it
        ("account_seq", "<i8"),  # gapless per (account, shard) from 1; 0: no account
        ("feed_seq", "<i8"),  # gapless per shard from 1; 0: not public
        ("order_id", "<i8"),
        ("client_order_id", "<i8"),
        ("px", "<i4"),
        ("qty", "<i4"),
        ("kind", "u1"),
        ("side", "u1"),
        ("order_type", "u1"),
        ("tif", "u1"),
        ("role", "u1"),
        ("reason", "u1"),
        ("flags", "<u2"),
        ("in_ts", "<i8"),
        ("trade_id", "<i8"),  # gapless per symbol
        ("public_ref", "<i8"),  # per displayed slice, gapless per shard
        ("old_ref", "<i8"),
        ("leaves", "<i4"),  # open quantity after
        ("cum", "<i4"),  # filled quantity after
        ("shown", "<i4"),  # displayed quantity after
        ("shown_before", "<i4"),
        ("account", "<i4"),
        ("session", "<i4"),  # session slot in this shard
        ("symbol_id", "<i4"),
        ("code", "<u2"),  # RejectCode; PHASE: new phase; SESSION: the ITCH letter
        ("stp", "u1"),
        ("producer", "u1"),
        ("amount", "<i8"),
        ("amount2", "<i8"),
        ("px2", "<i4"),
        ("crc", "<u4"),
        ("epoch", "<u4"),
        (
            "text",
            "u1",
            (CLIENT_TEXT_BYTES,),
        ),  # text client id; LISTED: symbol name; ACCOUNT: session name
    ],
    align=True,
)

# What the general fields of EVENT hold, kind by kind (docs/protocol.md prints this table).
EVENT_FIELD_USE = {
    "ACCEPTED": {
        "qty": "accepted quantity",
        "leaves": "accepted quantity",
        "px": "limit, 0 for market",
    },
    "REJECTED": {
        "code": "reject code",
        "order_id": "target, where one was named",
        "account": "0: by somebody who does not own the session (201), or of no known account",
    },
    "REPLACED": {
        "qty": "new total",
        "px": "new price",
        "amount2": "peak",
        "old_ref": "slice that left or shrank",
    },
    "CANCELED": {
        "qty": "quantity cancelled",
        "px": "price it rested at",
        "public_ref": "slice that left",
    },
    "EXPIRED": {"qty": "quantity expired", "code": "why it could not go on, reason is then 0"},
    "TRIGGERED": {"px2": "price it waited for", "px": "limit it runs with, 0: none"},
    "BOOKED": {
        "qty": "quantity entering the book",
        "public_ref": "new slice",
        "old_ref": "slice it replaces (ITCH U)",
        "account": "0: an order shown anew as a feed session begins",
    },
    "FILL": {"qty": "traded", "px": "trade price", "public_ref": "maker's slice", "amount2": "fee"},
    "PHASE": {
        "code": "new phase",
        "amount": "old phase",
        "amount2": "until when, as SET_PHASE told",
        "reason": "BAND: an order would have left the dynamic band",
    },
    "INDICATIVE": {
        "px": "price an uncross would have now",
        "qty": "its volume, at most 2^31 - 1",
        "amount": "surplus",
        "side": "side of the surplus",
        "amount2": "volume",
        "code": "phase",
    },
    "CROSSED": {
        "px": "price of the uncross",
        "qty": "its volume, at most 2^31 - 1",
        "amount": "pairs of fills",
        "amount2": "volume",
        "trade_id": "of the last pair",
        "code": "phase that is left",
    },
    "BAND": {
        "px": "static reference",
        "px2": "dynamic reference",
        "qty": "extensions of the call so far",
        "amount": "static width, ticks",
        "amount2": "dynamic width, ticks",
    },
    "PARKED": {
        "px": "limit; of a peg its cap",
        "shown_before": "displayed quantity that leaves",
        "public_ref": "its slice",
    },
    "REPRICED": {
        "px": "price the peg stands at now",
        "qty": "quantity entering the book",
        "public_ref": "new slice",
        "old_ref": "slice it replaces (ITCH U)",
    },
    "ACTIVATED": {"px": "limit"},
    "LISTED": {
        "amount": "tick in 1e-9",
        "amount2": "lot in 1e-9",
        "px2": "highest price",
        "order_type": "rule set",
        "stp": "default self-trade mode",
        "text": "symbol",
    },
    "SESSION": {
        "code": "ITCH event letter",
        "amount": "trading day yyyymmdd",
        "amount2": "epoch of the feed session",
    },
    "ACCOUNT": {
        "amount": "logon; a producer that was lost; a new incarnation;"
        " MMP: limit, lots; LIMITS: the limit",
        "amount2": "incarnation; MMP: window, ns",
        "client_order_id": "session's last id; KILL, LIMITS: admin_seq of the command",
        "order_type": "KILL: KillAction; LIMITS: AccountLimit",
        "session": "slot",
        "text": "session name",
    },
    "MMP_FIRED": {
        "qty": "lots filled on the account's quotes within the window, at most 2^31 - 1",
        "amount": "limit, lots",
        "amount2": "window, ns",
    },
    "SUMMARY": {
        "qty": "orders cancelled, or rows of the page",
        "amount": "last order_id of a page with more to come",
    },
    "STATUS": {"role": "OrderState", "qty": "total"},
    "CONTINUED": {"qty": "units done in this slice"},
    "REFRESHED": {
        "qty": "new slice",
        "shown": "new slice",
        "public_ref": "its reference",
        "old_ref": "slice that was used up",
    },
    "PREVENTED": {
        "qty": "quantity this order lost by it",
        "stp": "mode",
        "amount": "order_id of the other order",
        "shown_before": "displayed before",
        "shown": "displayed after",
        "public_ref": "slice of the resting order",
    },
}

# Latency receipt: beside EVENT in the ring slot, CLOCK_MONOTONIC; never hashed, logged or replayed.
RECEIPT = np.dtype(
    [
        ("gateway_in", "<i8"),
        ("shard_in", "<i8"),
        ("shard_out", "<i8"),
        ("producer_seq", "<i8"),
        ("reserved", "<i8", (4,)),
    ],
    align=True,
)

# What lies in one slot of the event ring.
_RECEIPT_COLUMNS: list[Any] = [(f"receipt_{row[0]}", *row[1:]) for row in RECEIPT.descr]
EVENT_SLOT = np.dtype([*EVENT.descr, *_RECEIPT_COLUMNS], align=True)

TOP_LEVELS = 20
TOP_WORDS = 16 + TOP_LEVELS * 2 * 3

# Top of one book, written once per batch by the shard under a sequence lock, read by anybody
# (DESIGN §9). bids and asks: TOP_LEVELS rows of (px ticks, qty lots, orders); missing levels are
# zero.
BOOK_TOP = np.dtype(
    [
        ("version", "<i8"),  # odd while being written
        ("symbol", "<u8"),  # name; 0: no instrument in this place
        ("symbol_id", "<i8"),
        ("out_seq", "<i8"),  # last event this picture contains
        ("in_ts", "<i8"),
        ("tick", "<i8"),  # 1e-9 units
        ("lot", "<i8"),  # 1e-9 units
        ("px_max", "<i8"),
        ("phase", "<i8"),
        ("last_px", "<i8"),
        ("last_qty", "<i8"),
        ("trade_count", "<i8"),
        ("volume", "<i8"),  # lots
        ("reserved", "<i8", (3,)),
        ("bids", "<i8", (TOP_LEVELS * 3,)),
        ("asks", "<i8", (TOP_LEVELS * 3,)),
    ],
    align=True,
)

ENUMS = (
    CommandKind,
    EventKind,
    Side,
    OrderType,
    TimeInForce,
    SelfTrade,
    CommandFlag,
    EventFlag,
    Role,
    Reason,
    RuleSet,
    InstrumentRule,
    Algorithm,
    AccountLimit,
    KillAction,
    Phase,
    OrderState,
    RejectCode,
)
LAYOUTS = {
    "COMMAND": COMMAND,
    "EVENT": EVENT,
    "RECEIPT": RECEIPT,
    "EVENT_SLOT": EVENT_SLOT,
    "BOOK_TOP": BOOK_TOP,
}


def layout_offset(layout: np.dtype[np.void], name: str) -> int:
    """Byte offset of a field."""
    assert layout.fields is not None
    return int(layout.fields[name][1])


def layout_holes(layout: np.dtype) -> list[str]:
    """Name the fields of `layout` that do not start where the one before them ends."""
    holes, end = [], 0
    for name in layout.names or ():
        field, offset = layout.fields[name][:2]  # type: ignore[index]
        if offset != end:
            holes.append(name)
        end = offset + field.itemsize
    return holes if end == layout.itemsize else [*holes, "<tail>"]


assert (COMMAND.itemsize, EVENT.itemsize, RECEIPT.itemsize) == (192, 192, 64)
assert (EVENT_SLOT.itemsize, BOOK_TOP.itemsize) == (256, TOP_WORDS * 8)
for _layout, _name, _offset in (
    (COMMAND, "producer_seq", 0),
    (COMMAND, "target_client_order_id", 64),
    (COMMAND, "in_ts", 128),
    (EVENT, "in_ts", 64),
    (EVENT, "amount", 128),
):
    assert layout_offset(_layout, _name) == _offset, _name
for _name, _layout in LAYOUTS.items():
    assert not layout_holes(_layout), (_name, layout_holes(_layout))
    assert _layout.itemsize % CACHE_LINE == 0, _name
assert max(*RejectCode, *EventFlag, *CommandFlag) < 2**16
assert all(max(enum) < 2**8 for enum in ENUMS if enum not in (RejectCode, CommandFlag, EventFlag))

COMMAND_WORDS = COMMAND.itemsize // 8
EVENT_SLOT_WORDS = EVENT_SLOT.itemsize // 8


def layout_fingerprint() -> int:
    """Hash of all layouts and enums as an int64; stands in every header, attach refuses another
    one.
    """
    parts = [f"{name}:{layout.descr}" for name, layout in LAYOUTS.items()]
    parts += [f"{enum.__name__}:{[(m.name, int(m)) for m in enum]}" for enum in ENUMS]
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


LAYOUT_FINGERPRINT = layout_fingerprint()


def pack_name(name: str) -> int:
    """Eight ASCII characters as the integer whose little-endian bytes are the name.

    Raises ValueError for an empty, over-long or non-printable name.
    """
    raw = name.encode("ascii", "strict") if name.isascii() else b""
    if not 1 <= len(raw) <= SYMBOL_BYTES_MAX or any(not 33 <= c <= 126 for c in raw):
        raise ValueError(
            f"name must be 1 to {SYMBOL_BYTES_MAX} printable ASCII characters: {name!r}"
        )
    return int.from_bytes(raw, "little")


def unpack_name(packed: int) -> str:
    """Inverse of pack_name."""
    return int(packed).to_bytes(SYMBOL_BYTES_MAX, "little").rstrip(b"\0").decode("ascii")
