"""From bytes to commands: the compiled fast path of order entry.

Hot. One call takes all complete lines of a receive buffer, in order, and writes a COMMAND into its
shard's ring for each plain `new`, `cancel` or `replace`. It refuses nothing and repairs nothing: at
the first line that is not plain, or not acceptable as it stands, it stops and Python handles that
one line (gateway/codec_slow.py) and calls again. So there is one place that says no, and the
property to test is simple: where the fast path writes, the slow path would have written the same
bytes.

Plain: one flat JSON object of known keys, none twice; strings without escapes; numbers without sign
or exponent, at most 18 digits; a symbol in the directory; exact ticks and lots in range; a session
that is live, with rising ids, inside its throttle.

Bounds: a byte 10 (LF) is stored at `end`, after the last received byte, so every loop over bytes
meets one: each loop stops at a byte outside its class, and LF is in none. Lengths and digit counts
are limited before they are used as shifts or factors.
"""

import numpy as np

from engine.atomics import CLOCK_MONOTONIC, clock_ns
from engine.jit import helper, kernel, register_warmup, subroutine
from engine.records import COMMAND, UNSTATED
from engine.shm_ring import (
    CTRL_WORDS,
    SHARD_CTRL_WORDS,
)  # fmt: skip
from gateway.codec_command import (
    calls_finish,
    command_build,
    command_write,
    session_admits,
    session_note,
)
from gateway.codec_numbers import decimal_parse, integer_parse
from gateway.codec_tables import NEW, at, key_field, value_of
from gateway.state import (
    C_END,
    C_RECEIPT_TS,
    F_BASE,
    F_ID,
    F_POST_ONLY,
    F_PRICE,
    F_QTY,
    F_SIDE,
    F_SYMBOL,
    F_TAG,
    F_TYPE,
    H_ARGUMENT,
    H_COMMAND_CAPACITY,
    H_LINE_END,
    H_LINE_MAX,
    H_PUBLISHED,
    H_ROW_BASE,
    H_ROW_WORDS,
    H_SHARD_BASE,
    H_TOTAL_LINES,
    R_SHARDS,
    R_STATE,
    ROW_LIVE,
)  # fmt: skip

DONE, SLOW = 0, 1  # decode results: position << 8 | one of these
TAB, LF, CR, SPACE, QUOTE = 9, 10, 13, 32, 34
COMMA, COLON, BACKSLASH, OPEN, CLOSE = 44, 58, 92, 123, 125
WORD_BYTES_MAX = 16
ARGUMENT_BITS = 20
ARGUMENT_MASK = (1 << ARGUMENT_BITS) - 1


# ------------------------------------------------------------------------------- scanning
@helper
def blank_skip(buf, p):
    """First place from p on that is no blank; LF is none."""
    c = buf[at(p)]
    while c == SPACE or c == TAB or c == CR:
        p += 1
        c = buf[at(p)]
    return p


@helper
def line_end(buf, p):
    """Place of the next LF; there is always one at the buffer's end."""
    while buf[at(p)] != LF:
        p += 1
    return p


@helper
def word_parse(buf, p, small):
    """Read a plain string of 1 to 16 characters at p; returns (low, high, place after it), place -1
    if it is not one.
    """
    low, high, count = np.int64(0), np.int64(0), np.int64(0)
    if buf[at(p)] != QUOTE:
        return low, high, np.int64(-1)
    p += 1
    c = np.int64(buf[at(p)])
    while c > SPACE and c < 127 and c != QUOTE and c != BACKSLASH and count < WORD_BYTES_MAX:
        if small and c >= 65 and c <= 90:
            c += 32
        if count < 8:
            low |= c << (8 * count)
        else:
            high |= c << (8 * (count - 8))
        count += 1
        p += 1
        c = np.int64(buf[at(p)])
    if c != QUOTE or count == 0:
        return low, high, np.int64(-1)
    return low, high, np.int64(p + 1)


@helper
def truth_parse(words, buf, p, field):
    """Read true or false at p; returns the place after it, or -1. Byte by byte: the line may end
    anywhere.
    """
    if (
        buf[at(p)] == 116
        and buf[at(p + 1)] == 114
        and buf[at(p + 2)] == 117
        and buf[at(p + 3)] == 101
    ):
        words[F_BASE + field] = 1
        return np.int64(p + 4)
    if (
        buf[at(p)] == 102
        and buf[at(p + 1)] == 97
        and buf[at(p + 2)] == 108
        and buf[at(p + 3)] == 115
        and buf[at(p + 4)] == 101
    ):
        words[F_BASE + field] = 0
        return np.int64(p + 5)
    return np.int64(-1)


@helper
def value_parse(words, buf, p, field):
    """Read the value of `field` at p into its word; returns the place after it, or -1."""
    if field == F_QTY or field == F_PRICE:
        return decimal_parse(words, buf, p, field)
    if field >= F_ID and field <= F_TAG:
        return integer_parse(words, buf, p, field)
    if field == F_POST_ONLY:
        return truth_parse(words, buf, p, field)
    if field == F_SYMBOL:
        low, high, p = word_parse(buf, p, 0)
        words[F_BASE + F_SYMBOL] = low
        return p if high == 0 else np.int64(-1)
    low, high, p = word_parse(buf, p, 1)
    if p < 0 or high != 0 or low >> 56 != 0:
        return np.int64(-1)
    number = value_of(field, low)
    words[F_BASE + field] = number
    return p if number >= 0 else np.int64(-1)


@subroutine
def object_parse(words, buf, p):
    """Read one flat object at p into the F_ words; returns (place after its brace or -1, bit set of
    the keys seen).
    """
    seen = np.int64(0)
    p = blank_skip(buf, p)
    if buf[at(p)] != OPEN:
        return np.int64(-1), seen
    for field in range(1, F_POST_ONLY + 1):
        words[F_BASE + field] = 0
    words[F_BASE + F_TYPE] = NEW
    words[F_BASE + F_SIDE] = UNSTATED
    p = blank_skip(buf, p + 1)
    while True:
        low, high, p = word_parse(buf, p, 1)
        if p < 0:
            return np.int64(-1), seen
        field = key_field(low, high)
        p = blank_skip(buf, p)
        if buf[at(p)] != COLON or field == 0 or (seen >> field) & 1:
            return np.int64(-1), seen
        seen |= np.int64(1) << field
        p = value_parse(words, buf, blank_skip(buf, p + 1), field)
        if p < 0:
            return np.int64(-1), seen
        p = blank_skip(buf, p)
        c = buf[at(p)]
        p += 1
        if c == CLOSE:
            return np.int64(p), seen
        if c != COMMA:
            return np.int64(-1), seen
        p = blank_skip(buf, p)


@helper
def line_accept(words, buf, start, row, ctrl):
    """Read the line at `start` into the C_ words; returns its LF, or -1: not plain, not acceptable,
    or not complete.

    Nothing is changed on -1 but scratch words.
    """
    p, seen = object_parse(words, buf, start)
    if p < 0:
        return np.int64(-1)
    p = blank_skip(buf, p)
    end = words[H_ARGUMENT] & ARGUMENT_MASK
    if buf[at(p)] != LF or p >= end or p - start > words[H_LINE_MAX]:
        return np.int64(-1)
    if not command_build(words, seen) or not session_admits(words, ctrl, row):
        return np.int64(-1)
    return np.int64(p)


@kernel
def lines_decode(words, buf, commands, slot_words, ctrl, shard_ctrl):
    """Take the lines in buf[first:end] (H_ARGUMENT) of a live session; returns place << 8 | DONE or
    SLOW.

    DONE: the bytes from `place` on are no complete line. SLOW: the line at `place`, up to
    H_LINE_END, is Python's. O(bytes).
    """
    argument = words[H_ARGUMENT]
    row = words[H_ROW_BASE] + (argument >> (2 * ARGUMENT_BITS)) * words[H_ROW_WORDS]
    start = (argument >> ARGUMENT_BITS) & ARGUMENT_MASK
    end = argument & ARGUMENT_MASK
    buf[end] = LF
    words[C_RECEIPT_TS] = clock_ns(CLOCK_MONOTONIC)
    words[H_PUBLISHED] = 0
    status = DONE
    lines = 0
    live = words[row + R_STATE] == ROW_LIVE
    while True:
        p = line_accept(words, buf, start, row, ctrl) if live else np.int64(-1)
        if p >= 0:
            session_note(words, row)
            command_write(words, commands, slot_words, shard_ctrl)
        else:
            p = line_end(buf, start)
            if p >= end:
                break
            if blank_skip(buf, start) != p or p - start > words[H_LINE_MAX]:
                words[H_LINE_END] = p
                status = SLOW
                break
        lines += 1
        start = p + 1
    words[H_TOTAL_LINES] += lines
    calls_finish(words, ctrl, shard_ctrl)
    return start << 8 | status


def _warm_up() -> None:
    words = np.zeros(C_END + R_SHARDS, np.int64)
    words[H_COMMAND_CAPACITY] = 2
    words[H_ROW_BASE] = words[H_SHARD_BASE] = C_END
    commands = np.zeros(2, COMMAND)
    rings = (commands, commands.view(np.int64), np.zeros(CTRL_WORDS, np.int64))
    lines_decode(words, np.zeros(8, np.uint8), *rings, np.zeros(SHARD_CTRL_WORDS, np.int64))


register_warmup("gateway.codec_decode", _warm_up)
