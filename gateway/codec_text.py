"""Writing text into a byte array: literals, names, whole numbers and exact decimals.

Hot. Every helper writes at p and returns the place after. None looks at the array's size: the
caller leaves OUTPUT_SLACK_BYTES free before each report, far more than one can take
(tests/gateway/test_encode.py measures the longest). Copies of tables have a fixed length and may
write rubbish beyond the text; the next piece overwrites it.
"""

from typing import Any

import numpy as np

from engine.atomics import leading_zeros
from engine.jit import helper
from engine.records import (
    AccountLimit,
    EventKind,
    KillAction,
    OrderState,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    Role,
    SelfTrade,
    Side,
    TimeInForce,
)
from gateway.codec_tables import at
from gateway.errors import SENTENCES, reason_of

NAME_BYTES = 24
PREFIX_BYTES = 40
POWERS = 10 ** np.arange(19, dtype=np.int64)
TWO_DIGITS = np.frombuffer("".join(f"{i:02d}" for i in range(100)).encode(), np.uint8).copy()

ONE, TWO, TEN, ZERO, HUNDRED = (
    np.uint64(1),
    np.uint64(2),
    np.uint64(10),
    np.uint64(48),
    np.uint64(100),
)


def literal(text: str) -> np.ndarray[Any, Any]:
    """Text as a constant array."""
    return np.frombuffer(text.encode("ascii"), np.uint8).copy()


def _table(names: dict[int, str], width: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    count = max(names) + 1
    text, length = np.zeros(count * width, np.uint8), np.zeros(count, np.int64)
    for number, name in names.items():
        raw = name.encode("ascii")
        assert len(raw) <= width, name
        text[number * width : number * width + len(raw)] = list(raw)
        length[number] = len(raw)
    return text, length


def report_type(kind: int) -> str:
    """`type` of the report for an event kind."""
    return EventKind(kind).name.lower()


# Names of all lists one after another: a list's first row is its base.
_LISTS = {
    "side": Side, "order_type": OrderType, "tif": TimeInForce, "role": Role, "reason": Reason,
    "state": OrderState,
    "phase": Phase, "stp": SelfTrade, "action": KillAction, "limit": AccountLimit,
}  # fmt: skip
_names: dict[int, str] = {}
_bases: dict[str, int] = {}
for _list, _enum in _LISTS.items():
    _bases[_list] = (max(_names) + 1) if _names else 0
    _names.update({_bases[_list] + int(m): m.name.lower() for m in _enum})
NAMES, NAME_LENGTHS = _table(_names, NAME_BYTES)
SIDE_NAMES, ORDER_TYPE_NAMES, TIF_NAMES = _bases["side"], _bases["order_type"], _bases["tif"]
ROLE_NAMES, REASON_NAMES, STATE_NAMES = _bases["role"], _bases["reason"], _bases["state"]
STP_NAMES, ACTION_NAMES, LIMIT_NAMES = _bases["stp"], _bases["action"], _bases["limit"]
NAME_COUNT = len(NAME_LENGTHS)

PREFIXES, PREFIX_LENGTHS = _table(
    {int(k): f'{{"type":"{report_type(k)}","seq":' for k in EventKind}, PREFIX_BYTES
)
KIND_COUNT = len(PREFIX_LENGTHS)

# What follows "code": in a reject, by code: number, name and sentence, ready to copy.
_refusals = {
    int(c): f'{int(c)},"reason":"{reason_of(c)}","text":"{SENTENCES[c]}"' for c in RejectCode
}
assert not any(set('"\\') & set(sentence) for sentence in SENTENCES.values())
REFUSAL_STARTS = np.zeros(max(RejectCode) + 2, np.int64)
_text = b""
for _code in range(max(RejectCode) + 1):
    REFUSAL_STARTS[_code] = len(_text)
    _text += _refusals.get(_code, "").encode("ascii")
REFUSAL_STARTS[max(RejectCode) + 1] = len(_text)
REFUSALS = np.frombuffer(_text, np.uint8).copy()
REFUSAL_COUNT = max(RejectCode) + 1


@helper
def put(out, p, text):
    """A literal."""
    for i in range(text.size):
        out[at(p + i)] = text[at(i)]
    return p + text.size


@helper
def put_name(out, p, row):
    """A name of NAMES, in quotes."""
    out[at(p)] = 34
    row = row if row < NAME_COUNT else 0
    for i in range(NAME_BYTES):
        out[at(p + 1 + i)] = NAMES[at(row * NAME_BYTES + i)]
    p += NAME_LENGTHS[row] + 1
    out[at(p)] = 34
    return p + 1


@helper
def put_prefix(out, p, kind):
    """The beginning of a report, up to the value of seq."""
    kind = kind if kind < KIND_COUNT else 0
    for i in range(PREFIX_BYTES):
        out[at(p + i)] = PREFIXES[at(kind * PREFIX_BYTES + i)]
    return p + PREFIX_LENGTHS[kind]


@helper
def put_refusal(out, p, code):
    """Number, name and sentence of a reject code."""
    if code < REFUSAL_COUNT:
        for i in range(REFUSAL_STARTS[code], REFUSAL_STARTS[code + 1]):
            out[at(p)] = REFUSALS[at(i)]
            p += 1
    return p


@helper
def put_word(out, p, word):
    """Eight bytes packed in an int64; the caller says how many count."""
    for i in range(8):
        out[at(p + i)] = (word >> (8 * i)) & 0xFF


@helper
def digit_count(value):
    """Decimal digits of a value >= 0; 1 for 0."""
    bits = 64 - leading_zeros(np.uint64(value | 1))
    guess = (bits * 1233) >> 12
    return guess + 1 if guess < 19 and value >= POWERS[at(guess)] else max(guess, 1)


@helper
def put_digits(out, p, value, count):
    """Exactly `count` digits of a value >= 0, zeros in front. p is the first place."""
    i = p + count
    left = np.uint64(value)  # unsigned division has no sign to correct
    while i - p >= 2:
        rest = left // HUNDRED
        pair = (left - rest * HUNDRED) * TWO
        i -= 2
        out[at(i)] = TWO_DIGITS[pair]
        out[at(i + 1)] = TWO_DIGITS[pair + ONE]
        left = rest
    if i > p:
        out[at(p)] = ZERO + left % TEN


@helper
def put_integer(out, p, value):
    """A whole number."""
    if value < 0:
        out[at(p)] = 45
        p += 1
        value = -value
    count = digit_count(value)
    put_digits(out, p, value, count)
    return p + count


@helper
def put_decimal(out, p, steps, mantissa, decimals):
    """steps * mantissa / 10**decimals, in quotes, exactly, with all its decimals. steps < 2**31,
    mantissa < 2**31.
    """
    value = steps * mantissa
    out[at(p)] = 34
    p += 1
    if decimals > 0:
        unit = POWERS[at(decimals)]
        whole = value // unit
        p = put_integer(out, p, whole)
        out[at(p)] = 46
        put_digits(out, p + 1, value - whole * unit, decimals)
        p += 1 + decimals
    else:
        p = put_integer(out, p, value)
    out[at(p)] = 34
    return p + 1


@helper
def put_text(out, p, text, size):
    """Up to `size` bytes of zero padded text as the inside of a JSON string: quotes, backslashes
    and odd bytes escaped.
    """
    for i in range(size):
        c = np.int64(text[at(i)])
        if c == 0:
            break
        if c == 34 or c == 92:
            out[at(p)] = 92
            p += 1
        elif c < 32 or c > 126:
            c = np.int64(63)
        out[at(p)] = c
        p += 1
    return p


def json_name(name: str) -> tuple[int, int, int]:
    """A name as two packed words of its JSON text (without the outer quotes), and the length of
    that text.
    """
    raw = name.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
    padded = raw.ljust(16, b"\0")
    return (
        int.from_bytes(padded[:8], "little", signed=True),
        int.from_bytes(padded[8:16], "little", signed=True),
        len(raw),
    )


def decimal_text(steps: int, mantissa: int, decimals: int) -> str:
    """steps * mantissa / 10**decimals with all its decimals: what put_decimal writes, without the
    quotes, for any size.
    """
    whole, part = divmod(steps * mantissa, 10**decimals)
    return f"{whole}.{part:0{decimals}d}" if decimals else str(whole)
