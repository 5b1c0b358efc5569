"""One report as JSON: which fields an event kind has, in which order. Compiled.

Hot, part of gateway/codec_encode.py. docs/protocol.md lists the fields; tests/gateway/reference.py
writes the same from the event alone, in Python.

    {"type":..,"seq":..,"shard":..[,"session"][,"symbol"][,"order_id"][,"id"]
     [,"side"[,"order_type","tif"][,"price"],"qty","leaves","filled"[,"shown"][,"peak"]
      [,"prevented"]] [particulars of the kind] [,"post_only"][,"kept"][,"more"][,"last"],"ts":..}

`shown`, `peak` and `prevented` are what only the full rules know: they are left out where an order
shows all that it has, is no iceberg, and met no order of its own.
"""

import numpy as np

from engine.jit import helper, subroutine
from engine.records import (
    CLIENT_TEXT_BYTES,
    SESSION_NAME_BYTES_MAX,
    SYMBOL_INDEX_BITS,
    EventFlag,
    EventKind,
    Reason,
    Role,
)
from gateway.codec_tables import at
from gateway.codec_text import (
    ACTION_NAMES,
    LIMIT_NAMES,
    ORDER_TYPE_NAMES,
    REASON_NAMES,
    ROLE_NAMES,
    SIDE_NAMES,
    STATE_NAMES,
    STP_NAMES,
    TIF_NAMES,
    literal,
    put,
    put_decimal,
    put_integer,
    put_name,
    put_prefix,
    put_refusal,
    put_text,
    put_word,
)  # fmt: skip
from gateway.state import (
    H_GATEWAY_OUT,
    H_NAME_BASE,
    H_SESSIONS_MAX,
    H_STAMP_AT,
    H_STAMP_VALUE,
    H_SYMBOL_BASE,
    H_SYMBOLS_MAX,
    N_BYTES,
    N_JSON,
    NAME_WORDS,
    SYMBOL_WORDS,
    Y_JSON,
    Y_JSON_BYTES,
    Y_LOT_DECIMALS,
    Y_LOT_MANTISSA,
    Y_TICK_DECIMALS,
    Y_TICK_MANTISSA,
)  # fmt: skip

SHARD_KEY, SESSION_KEY, SYMBOL_KEY = (
    literal(',"shard":'),
    literal(',"session":"'),
    literal(',"symbol":"'),
)
ORDER_ID_KEY, ID_KEY, TEXT_ID_KEY = literal(',"order_id":'), literal(',"id":'), literal(',"id":"')
SIDE_KEY, ORDER_TYPE_KEY, TIF_KEY = (
    literal(',"side":'),
    literal(',"order_type":'),
    literal(',"tif":'),
)
PRICE_KEY, QTY_KEY, LEAVES_KEY, FILLED_KEY = (
    literal(',"price":'),
    literal(',"qty":'),
    literal(',"leaves":'),
    literal(',"filled":'),
)
TRADE_KEY, ROLE_KEY, STATE_KEY, REASON_KEY = (
    literal(',"trade_id":'),
    literal(',"role":'),
    literal(',"state":'),
    literal(',"reason":'),
)
SHOWN_KEY, PEAK_KEY, PREVENTED_KEY, TRIGGER_KEY = (
    literal(',"shown":'),
    literal(',"peak":'),
    literal(',"prevented":'),
    literal(',"trigger":'),
)
STP_KEY, OTHER_KEY = literal(',"stp":'), literal(',"other_order_id":')
REF_KEY, OLD_REF_KEY, CODE_KEY = literal(',"ref":'), literal(',"old_ref":'), literal(',"code":')
LIMIT_KEY, WINDOW_KEY, MORE_TEXT = (
    literal(',"limit":'),
    literal(',"window_ns":'),
    literal(',"more":true'),
)
POST_ONLY_TEXT, KEPT_TEXT, LAST_TEXT = (
    literal(',"post_only":true'),
    literal(',"kept":true'),
    literal(',"last":true'),
)
LOGON_KEY, LAST_ID_KEY = literal(',"logon":'), literal(',"last_id":')
ACTION_KEY, VALUE_KEY = literal(',"action":'), literal(',"value":')
COUNT_KEY, NEXT_KEY, TS_KEY, END_TEXT = (
    literal(',"count":'),
    literal(',"next":'),
    literal(',"ts":'),
    literal("}\n"),
)
RECEIPT_KEY, RECEIPT_END = literal('{"receipt":['), literal("],")


def _kinds(*kinds: EventKind) -> int:
    return sum(1 << kind for kind in kinds)


_K = EventKind
ORDER_KINDS = _kinds(
    _K.ACCEPTED, _K.REPLACED, _K.CANCELED, _K.EXPIRED, _K.BOOKED, _K.FILL, _K.STATUS,
    _K.REFRESHED, _K.PREVENTED, _K.TRIGGERED, _K.PARKED, _K.ACTIVATED, _K.REPRICED,
)  # fmt: skip
# What tells how much of an order is displayed; `shows` has the exceptions.
SHOWN_KINDS = _kinds(
    _K.BOOKED, _K.REFRESHED, _K.STATUS, _K.REPLACED, _K.FILL, _K.PREVENTED, _K.REPRICED,
)  # fmt: skip
PEAK_KINDS = _kinds(_K.ACCEPTED, _K.REPLACED)
TERMS_KINDS = _kinds(_K.ACCEPTED, _K.STATUS)  # order_type and tif
UNSIZED_KINDS = _kinds(_K.TRIGGERED, _K.PARKED, _K.ACTIVATED)  # no quantity of their own
REASON_KINDS = _kinds(_K.CANCELED, _K.EXPIRED, _K.ACCOUNT, _K.SUMMARY)  # that of a page has none
SPECIAL_KINDS = _kinds(_K.ACCOUNT, _K.LISTED)
KIND_FILL, KIND_STATUS, KIND_REJECTED = int(_K.FILL), int(_K.STATUS), int(_K.REJECTED)
KIND_PREVENTED, KIND_TRIGGERED, KIND_EXPIRED = (
    int(_K.PREVENTED),
    int(_K.TRIGGERED),
    int(_K.EXPIRED),
)
KIND_MMP_FIRED, REASON_MMP = int(_K.MMP_FIRED), int(Reason.MMP)
KIND_SUMMARY, KIND_ACCOUNT, KIND_REPLACED, KIND_LISTED = (
    int(_K.SUMMARY),
    int(_K.ACCOUNT),
    int(_K.REPLACED),
    int(_K.LISTED),
)
FLAG_MORE = int(EventFlag.MORE)
FLAG_TEXT, FLAG_POST_ONLY, FLAG_LAST, FLAG_KEPT = (
    int(EventFlag.TEXT_ID), int(EventFlag.POST_ONLY), int(EventFlag.LAST), int(EventFlag.KEPT),
)  # fmt: skip
ROLE_MAKER, ROLE_TAKER = int(Role.MAKER), int(Role.TAKER)
REASON_KILL, REASON_LIMITS = int(Reason.KILL), int(Reason.LIMITS)


# ------------------------------------------------------------------------------- one report
@helper
def symbol_of(words, event, shard):
    """First word of the event's symbol row; 0: it names none."""
    symbol_id = np.int64(event["symbol_id"])
    index = symbol_id & ((1 << SYMBOL_INDEX_BITS) - 1)
    if symbol_id <= 0 or index >= words[H_SYMBOLS_MAX]:
        return np.int64(0)
    return words[H_SYMBOL_BASE] + (shard * words[H_SYMBOLS_MAX] + index) * SYMBOL_WORDS


@helper
def put_quoted(out, p, words, text, size):
    """Up to 16 bytes of ready JSON text from two words, and the closing quote."""
    put_word(out, p, words[text])
    put_word(out, p + 8, words[text + 1])
    p += size
    out[at(p)] = 34
    return p + 1


@helper
def put_names(words, out, p, event, shard):
    """Session and symbol, where the event has one and its name is known."""
    slot = np.int64(event["session"])
    if slot > 0 and slot < words[H_SESSIONS_MAX]:
        name = words[H_NAME_BASE] + (shard * words[H_SESSIONS_MAX] + slot) * NAME_WORDS
        if words[name + N_BYTES] > 0:
            p = put_quoted(
                out, put(out, p, SESSION_KEY), words, name + N_JSON, words[name + N_BYTES]
            )
        elif event["kind"] == KIND_ACCOUNT and event["text"][0] != 0:
            # The event that tells the name: a report must not depend on whether we knew it before.
            p = put_text(out, put(out, p, SESSION_KEY), event["text"], SESSION_NAME_BYTES_MAX)
            out[at(p)] = 34
            p += 1
    row = symbol_of(words, event, shard)
    if row > 0:
        p = put_quoted(out, put(out, p, SYMBOL_KEY), words, row + Y_JSON, words[row + Y_JSON_BYTES])
    return p


@helper
def put_head(words, out, p, event, shard):
    """What every report begins with: type, seq, shard, session, symbol, order_id, id."""
    p = put_integer(out, put_prefix(out, p, np.int64(event["kind"])), event["account_seq"])
    p = put_integer(out, put(out, p, SHARD_KEY), shard)
    p = put_names(words, out, p, event, shard)
    if event["order_id"] != 0:
        p = put_integer(out, put(out, p, ORDER_ID_KEY), event["order_id"])
    if np.int64(event["flags"]) & FLAG_TEXT:
        p = put_text(out, put(out, p, TEXT_ID_KEY), event["text"], CLIENT_TEXT_BYTES)
        out[at(p)] = 34
        p += 1
    elif event["client_order_id"] != 0 and event["kind"] != KIND_ACCOUNT:
        p = put_integer(out, put(out, p, ID_KEY), event["client_order_id"])
    return p


@helper
def shows(event):
    """Whether the event tells of a displayed quantity that is not all of `leaves`."""
    kind = np.int64(event["kind"])
    if (SHOWN_KINDS >> kind) & 1 == 0 or event["shown"] == event["leaves"]:
        return False
    if kind == KIND_FILL:
        return event["role"] != ROLE_TAKER
    if kind == KIND_REPLACED:
        return np.int64(event["flags"]) & FLAG_KEPT != 0
    return kind != KIND_PREVENTED or event["public_ref"] != 0


@helper
def put_extent(out, p, event, lot, decimals):
    """What a plain order never says: displayed quantity, peak, prevented quantity."""
    kind = np.int64(event["kind"])
    if shows(event):
        p = put_decimal(out, put(out, p, SHOWN_KEY), np.int64(event["shown"]), lot, decimals)
    if (PEAK_KINDS >> kind) & 1 and event["amount2"] > 0:
        p = put_decimal(out, put(out, p, PEAK_KEY), np.int64(event["amount2"]), lot, decimals)
    if kind == KIND_STATUS:
        prevented = np.int64(event["qty"]) - np.int64(event["leaves"]) - np.int64(event["cum"])
        if prevented > 0:
            p = put_decimal(out, put(out, p, PREVENTED_KEY), prevented, lot, decimals)
    return p


@helper
def put_order(out, p, event, words, row):
    """What every report about an order says: side, price, qty, leaves, filled; type and tif where
    they are news.
    """
    kind = np.int64(event["kind"])
    p = put_name(out, put(out, p, SIDE_KEY), SIDE_NAMES + np.int64(event["side"]))
    if (TERMS_KINDS >> kind) & 1:
        p = put_name(
            out, put(out, p, ORDER_TYPE_KEY), ORDER_TYPE_NAMES + np.int64(event["order_type"])
        )
        p = put_name(out, put(out, p, TIF_KEY), TIF_NAMES + np.int64(event["tif"]))
    tick, tick_decimals = words[row + Y_TICK_MANTISSA], words[row + Y_TICK_DECIMALS]
    lot, lot_decimals = words[row + Y_LOT_MANTISSA], words[row + Y_LOT_DECIMALS]
    px = np.int64(event["px"])
    if px > 0:
        p = put_decimal(out, put(out, p, PRICE_KEY), px, tick, tick_decimals)
    if kind == KIND_TRIGGERED:
        trigger = np.int64(event["px2"])
        p = put_decimal(out, put(out, p, TRIGGER_KEY), trigger, tick, tick_decimals)
    if (UNSIZED_KINDS >> kind) & 1 == 0:
        p = put_decimal(out, put(out, p, QTY_KEY), np.int64(event["qty"]), lot, lot_decimals)
    p = put_decimal(out, put(out, p, LEAVES_KEY), np.int64(event["leaves"]), lot, lot_decimals)
    p = put_decimal(out, put(out, p, FILLED_KEY), np.int64(event["cum"]), lot, lot_decimals)
    return put_extent(out, p, event, lot, lot_decimals)


@helper
def put_account(out, p, event):
    """What became of an account or of a session."""
    if event["reason"] == REASON_KILL:
        return put_name(out, put(out, p, ACTION_KEY), ACTION_NAMES + np.int64(event["order_type"]))
    if event["reason"] == REASON_LIMITS:
        p = put_name(out, put(out, p, LIMIT_KEY), LIMIT_NAMES + np.int64(event["order_type"]))
        return put_integer(out, put(out, p, VALUE_KEY), event["amount"])
    p = put_integer(out, put(out, p, LOGON_KEY), event["amount"])
    return put_integer(out, put(out, p, LAST_ID_KEY), event["client_order_id"])


@helper
def tells_protection(event):
    """Whether the event is about the protection of quotes."""
    kind = np.int64(event["kind"])
    return kind == KIND_MMP_FIRED or (kind == KIND_ACCOUNT and event["reason"] == REASON_MMP)


@helper
def put_protection(out, p, event, words, row):
    """What was filled on an account's quotes, how much may be, and in which time."""
    lot, decimals = words[row + Y_LOT_MANTISSA], words[row + Y_LOT_DECIMALS]
    if event["kind"] == KIND_MMP_FIRED:
        p = put_decimal(out, put(out, p, QTY_KEY), np.int64(event["qty"]), lot, decimals)
    p = put_decimal(out, put(out, p, LIMIT_KEY), np.int64(event["amount"]), lot, decimals)
    return put_integer(out, put(out, p, WINDOW_KEY), event["amount2"])


@helper
def put_particulars(out, p, event):
    """What only some kinds say."""
    kind = np.int64(event["kind"])
    if kind == KIND_FILL:
        p = put_integer(out, put(out, p, TRADE_KEY), event["trade_id"])
        p = put_name(out, put(out, p, ROLE_KEY), ROLE_NAMES + np.int64(event["role"]))
    elif kind == KIND_STATUS:
        p = put_name(out, put(out, p, STATE_KEY), STATE_NAMES + np.int64(event["role"]))
    elif kind == KIND_PREVENTED:
        p = put_name(out, put(out, p, STP_KEY), STP_NAMES + np.int64(event["stp"]))
        p = put_integer(out, put(out, p, OTHER_KEY), event["amount"])
    elif kind == KIND_REJECTED or (kind == KIND_EXPIRED and event["code"] != 0):
        p = put_refusal(out, put(out, p, CODE_KEY), np.int64(event["code"]))
    elif kind == KIND_SUMMARY:
        p = put_integer(out, put(out, p, COUNT_KEY), np.int64(event["qty"]))
        if event["amount"] != 0:
            p = put_integer(out, put(out, p, NEXT_KEY), event["amount"])
    elif kind == KIND_ACCOUNT and not tells_protection(event):
        p = put_account(out, p, event)
    # An order that cannot go on as it was accepted expires with the code that says why.
    told = kind == KIND_EXPIRED and event["code"] != 0
    if (REASON_KINDS >> kind) & 1 and not told and (kind != KIND_SUMMARY or event["reason"] != 0):
        p = put_name(out, put(out, p, REASON_KEY), REASON_NAMES + np.int64(event["reason"]))
    if event["public_ref"] != 0:
        p = put_integer(out, put(out, p, REF_KEY), event["public_ref"])
    if event["old_ref"] != 0:
        p = put_integer(out, put(out, p, OLD_REF_KEY), event["old_ref"])
    return p


@helper
def put_tail(words, out, p, event):
    """Flags, time stamp and the end. Events of one batch share a stamp: it is copied from the last
    report that had it.
    """
    flags = np.int64(event["flags"])
    if flags & FLAG_POST_ONLY:
        p = put(out, p, POST_ONLY_TEXT)
    if flags & FLAG_KEPT:
        p = put(out, p, KEPT_TEXT)
    if flags & FLAG_MORE:
        p = put(out, p, MORE_TEXT)
    if flags & FLAG_LAST:
        p = put(out, p, LAST_TEXT)
    p = put(out, p, TS_KEY)
    if event["in_ts"] == words[H_STAMP_VALUE] and words[H_STAMP_AT] > 0:
        source = words[H_STAMP_AT]
        for i in range(19):
            out[at(p + i)] = out[at(source + i)]
        p += 19
    else:
        start = p
        p = put_integer(out, p, event["in_ts"])
        words[H_STAMP_VALUE] = event["in_ts"]
        words[H_STAMP_AT] = start if p - start == 19 else 0
    return put(out, p, END_TEXT)


@subroutine
def put_report(words, out, p, event, shard):
    """One whole line; returns the place after it."""
    p = put_head(words, out, p, event, shard)
    row = symbol_of(words, event, shard)
    if (ORDER_KINDS >> np.int64(event["kind"])) & 1 and row > 0:
        p = put_order(out, p, event, words, row)
    if tells_protection(event) and row > 0:
        p = put_protection(out, p, event, words, row)
    p = put_particulars(out, p, event)
    return put_tail(words, out, p, event)


@subroutine
def put_receipt(words, out, p, event):
    """The receipt in front of a report; returns the place where the rest goes on, with a comma
    instead of its brace.
    """
    p = put_integer(out, put(out, p, RECEIPT_KEY), event["receipt_gateway_in"])
    out[at(p)] = 44
    p = put_integer(out, p + 1, event["receipt_shard_in"])
    out[at(p)] = 44
    # The shard stamps a batch when it ends; a zero means that it has not, and its entry is the best
    # known.
    shard_out = max(np.int64(event["receipt_shard_out"]), np.int64(event["receipt_shard_in"]))
    p = put_integer(out, p + 1, shard_out)
    out[at(p)] = 44
    p = put_integer(out, p + 1, words[H_GATEWAY_OUT])
    return put(out, p, RECEIPT_END) - 1
