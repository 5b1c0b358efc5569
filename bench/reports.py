"""Matching acknowledgements to orders at wire speed: the load generator's ear. Compiled.

Fed with the bytes a session receives, it finds complete lines, and in each the type and the
client id (prices have two decimals), and marks the operation they answer with the time of
arrival:

    accepted, id n     answers the new order n
    canceled, id n     answers the cancel of order n
    rejected, id n     answers whichever of the two is open, and is counted: none is expected
    fill               maker and taker line of each trade are folded into trades, volume, checksum

It looks for keys, not for positions, so it does not depend on the order of fields after `"type"`;
lines of other types are skipped by a scan for the newline, eight bytes at a time. About 100 ns
per line: the load generator shares the cores with the system it loads, and must not be what is
measured.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.flow import CANCEL, RECORD, checksum_trade
from bench.workload import Outcome
from engine.atomics import trailing_zeros
from engine.jit import helper, kernel, register_warmup, subroutine

BUFFER_BYTES = 1 << 20

# Words of Matcher.counts.
ANSWERED, REJECTED, UNMATCHED, TWICE, LINES, TRADES, VOLUME, MAKER, SUMMARY = range(9)
COUNTS = 12

_LINE_FEEDS = np.uint64(0x0A0A0A0A0A0A0A0A)
_LOW_BITS = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)


def _key(text: bytes) -> tuple[np.uint64, np.uint64]:
    # A key as it passes through an eight-byte shift register, and the mask of its length.
    return np.uint64(int.from_bytes(text, "big")), np.uint64((1 << 8 * len(text)) - 1)


_QTY, _QTY_MASK = _key(b'"qty":')
_PRICE, _PRICE_MASK = _key(b'"price":')
_ROLE, _ROLE_MASK = _key(b'"role":')
_ACCEPTED, _CANCELED, _REJECTED, _FILL, _SUMMARY = (
    int.from_bytes(word, "big") for word in (b"acce", b"canc", b"reje", b"fill", b"summ")
)
_MAKER_BYTE = ord("m")
_QUOTE, _COLON, _I, _D = (ord(c) for c in '":id')
_TYPE_AT = len(b'{"type":"')


class Matcher(NamedTuple):
    """Receive buffer, the operations by client id, and what was found."""

    buffer: npt.NDArray[np.uint8]
    words: npt.NDArray[np.uint64]  # the same memory
    new_of: npt.NDArray[np.int32]  # client id -> operation that entered it, -1 none
    cancel_of: npt.NDArray[np.int32]  # client id -> operation that cancels it, -1 none
    answered_ns: npt.NDArray[np.int64]  # per operation, 0 while open
    counts: npt.NDArray[np.int64]
    checksum: npt.NDArray[np.uint64]


@helper
def newline_find(matcher, start, size):
    """Position of the next newline in buffer[start:size], or size."""
    at = start
    while at & 7 and at < size:
        if matcher.buffer[at] == 10:
            return at
        at += 1
    word = (at + 7) >> 3  # up: an unaligned end must not look at bytes before `start` again
    while word << 3 < size:
        same = matcher.words[word] ^ _LINE_FEEDS
        hit = (same - _LOW_BITS) & ~same & _HIGH_BITS
        if hit != np.uint64(0):
            return min((word << 3) + (trailing_zeros(hit) >> 3), size)
        word += 1
    return size


@helper
def key_find(buffer, start, size, key, mask):
    """Position after a key (with its colon) in buffer[start:size], or -1."""
    window = np.uint64(0)
    for at in range(start, size):
        window = (window << np.uint64(8)) | np.uint64(buffer[at])
        if window & mask == key:
            return at + 1
    return -1


@helper
def id_find(buffer, start, size):
    """Position after `"id":` in buffer[start:size], or -1; looks at every fifth byte or so.

    The byte where the colon would be says how far the key can be at the nearest.
    """
    at = start + 4
    while at < size:
        byte = np.int64(buffer[at])
        if byte == _COLON:
            if buffer[at - 1] == _QUOTE and buffer[at - 2] == _D and buffer[at - 3] == _I:
                if buffer[at - 4] == _QUOTE:
                    return at + 1
            at += 5
        elif byte == _QUOTE:
            at += 1
        elif byte == _D:
            at += 2
        elif byte == _I:
            at += 3
        else:
            at += 5
    return np.int64(-1)


@helper
def number_read(buffer, start):
    """Digits from start on, quote and decimal point skipped."""
    at = start + 1 if buffer[start] == 34 else start
    value = np.int64(0)
    while True:
        byte = np.int64(buffer[at])
        if 48 <= byte <= 57:
            value = value * 10 + byte - 48
        elif byte != 46:
            return value
        at += 1


@helper
def answer_mark(matcher, operation, now):
    """An operation got its answer."""
    if operation < 0:
        matcher.counts[UNMATCHED] += 1
    elif matcher.answered_ns[operation] != 0:
        matcher.counts[TWICE] += 1
    else:
        matcher.answered_ns[operation] = now
        matcher.counts[ANSWERED] += 1


@helper
def operation_of(table, order_id):
    """Operation in a table of client ids, -1 for an id outside it."""
    if order_id < 0 or order_id >= table.size:
        return np.int64(-1)
    return np.int64(table[order_id])


@helper
def rejected_read(matcher, order_id, now):
    """A reject answers the operation on that id which is still open."""
    matcher.counts[REJECTED] += 1
    operation = operation_of(matcher.new_of, order_id)
    if operation >= 0 and matcher.answered_ns[operation] != 0:
        operation = operation_of(matcher.cancel_of, order_id)
    answer_mark(matcher, operation, now)


@subroutine
def fill_read(matcher, start, end, order_id):
    """One side of a trade: remember the maker, fold at the taker."""
    buffer = matcher.buffer
    role = key_find(buffer, start, end, _ROLE, _ROLE_MASK)
    if role < 0 or buffer[role + 1] == _MAKER_BYTE:
        matcher.counts[MAKER] = order_id
        return
    price = key_find(buffer, start, end, _PRICE, _PRICE_MASK)
    qty = key_find(buffer, start, end, _QTY, _QTY_MASK)
    if price < 0 or qty < 0:
        matcher.counts[UNMATCHED] += 1
        return
    traded = number_read(buffer, qty)
    matcher.counts[TRADES] += 1
    matcher.counts[VOLUME] += traded
    maker = matcher.counts[MAKER]
    checksum_trade(matcher.checksum, maker, order_id, traded, number_read(buffer, price))


@helper
def type_read(buffer, start):
    """First four letters of a line's type."""
    word = np.int64(0)
    for at in range(start + _TYPE_AT, start + _TYPE_AT + 4):
        word = (word << 8) | np.int64(buffer[at])
    return word


@helper
def line_read(matcher, start, end, now):
    """One complete line."""
    buffer = matcher.buffer
    kind = type_read(buffer, start)
    if kind == _SUMMARY:
        qty = key_find(buffer, start, end, _QTY, _QTY_MASK)
        matcher.counts[SUMMARY] = number_read(buffer, qty) + 1 if qty >= 0 else 1
        return
    if kind != _ACCEPTED and kind != _CANCELED and kind != _FILL and kind != _REJECTED:
        return
    at = id_find(buffer, start, end)
    order_id = number_read(buffer, at) if at >= 0 else np.int64(-1)
    if kind == _FILL:
        fill_read(matcher, start, end, order_id)
    elif kind == _REJECTED:
        rejected_read(matcher, order_id, now)
    elif kind == _ACCEPTED:
        answer_mark(matcher, operation_of(matcher.new_of, order_id), now)
    else:
        answer_mark(matcher, operation_of(matcher.cancel_of, order_id), now)


@kernel
def reports_read(matcher, size, now):
    """Read all complete lines of buffer[:size]; returns how many bytes they took. O(size)."""
    start = 0
    while start < size:
        end = newline_find(matcher, start, size)
        if end >= size:
            break
        matcher.counts[LINES] += 1
        if end - start > _TYPE_AT + 4:
            line_read(matcher, start, end, now)
        start = end + 1
    return start


def new_matcher(records: npt.NDArray[np.void]) -> Matcher:
    """Matcher for these operations, none answered."""
    ids = int(records["id"].max()) + 1
    tables = np.full((2, ids), -1, np.int32)
    cancel, operations = records["type"] == CANCEL, np.arange(records.size, dtype=np.int32)
    tables[0][records["id"][~cancel]] = operations[~cancel]
    tables[1][records["id"][cancel]] = operations[cancel]
    buffer = np.zeros(BUFFER_BYTES, np.uint8)
    return Matcher(
        buffer=buffer,
        words=buffer.view(np.uint64),
        new_of=tables[0],
        cancel_of=tables[1],
        answered_ns=np.zeros(records.size, np.int64),
        counts=np.zeros(COUNTS, np.int64),
        checksum=np.zeros(1, np.uint64),
    )


def outcome_of(matcher: Matcher) -> Outcome:
    """Trades, volume and checksum of the fills read so far."""
    counts = matcher.counts
    return Outcome(int(counts[TRADES]), int(counts[VOLUME]), f"{int(matcher.checksum[0]):016x}")


def faults_of(matcher: Matcher) -> str:
    """What is wrong with the answers so far; empty when each operation has exactly one."""
    counts = matcher.counts
    faults = {
        "rejects": int(counts[REJECTED]),
        "answers to nothing": int(counts[UNMATCHED]),
        "second answers": int(counts[TWICE]),
        "operations without an answer": int((matcher.answered_ns == 0).sum()),
    }
    return ", ".join(f"{n} {what}" for what, n in faults.items() if n)


def _warm() -> None:
    reports_read(new_matcher(np.zeros(1, RECORD)), 0, 0)


register_warmup("bench.reports", _warm)
