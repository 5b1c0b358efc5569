"""From bytes to commands: the compiled fast path of order entry.

Hot. One call takes all complete lines of a receive buffer, in order, and writes a COMMAND into its shard's ring for each plain
`new`, `cancel` or `replace`. It refuses nothing and repairs nothing: at the first line that is not plain, or not acceptable as
it stands, it stops and Python handles that one line (gateway/codec_slow.py) and calls again. So there is one place that says
no, and the property to test is simple: where the fast path writes, the slow path would have written the same bytes.

Plain: one flat JSON object of known keys, none twice; strings without escapes; numbers without sign or exponent, at most 18
digits; a symbol in the directory; exact ticks and lots in range; a session that is live, with rising ids, inside its throttle.

Bounds: a byte 10 (LF) is stored at `end`, after the last received byte, so every loop over bytes meets one: each loop stops
at a byte outside its class, and LF is in none. Lengths and digit counts are limited before they are used as shifts or factors.

Ring protocol: engine/shm_ring.py. A shard that sleeps is woken after its first command of the call and looked at once more
at the end.
"""

import numpy as np

from engine.atomics import CLOCK_MONOTONIC, clock_ns, eventfd_signal, store_release
from engine.jit import helper, kernel, subroutine
from engine.records import CLIENT_TEXT_BYTES, UNSTATED, CommandFlag, CommandKind, OrderType
from engine.shm_ring import (
    CTRL_WORDS, PRODUCER_POSITION, SHARD_CTRL_WORDS, SHARD_SLEEPS, command_clear, command_publish, command_slot, position_add,
    ring_room, wake_needed,
)  # fmt: skip
from gateway.codec_numbers import decimal_parse, integer_parse, steps_of
from gateway.codec_tables import CANCEL, MARKET, NEW, REPLACE, at, key_field, value_of
from gateway.state import (
    C_ACCOUNT, C_FLAGS, C_ID, C_KIND, C_LOGON, C_ORDER_ID, C_ORDER_TYPE, C_PX, C_QTY, C_RECEIPT_TS, C_SESSION, C_SHARD, C_SIDE,
    C_SYMBOL, C_SYMBOL_ID, C_TAG, C_TARGET_ID, C_TEXT, C_TIF, F_BASE, F_ID, F_ORDER_ID, F_ORDER_TYPE, F_POST_ONLY, F_PRICE,
    F_QTY, F_SCALE, F_SIDE, F_SYMBOL, F_TAG, F_TARGET_ID, F_TIF, F_TYPE, H_ARGUMENT, H_COMMAND_CAPACITY, H_HASH_BASE,
    H_HASH_MASK, H_LINE_END, H_LINE_MAX, H_PRODUCER, H_PUBLISHED, H_ROW_BASE, H_ROW_WORDS, H_SHARD_BASE, H_SHARDS,
    H_SYMBOL_BASE, H_TOTAL_COMMANDS, H_TOTAL_LINES, R_ACCOUNT, R_CANCEL_TAT, R_COMMANDS, R_FLAGS, R_LAST_ID, R_LATCH, R_LOGON,
    R_ORDER_TAT, R_SHARDS, R_STATE, R_WINDOW_NS, ROW_LIVE, ROW_TEXT_IDS, S_CONSUMER, S_FD, S_POSITION, S_PUBLISHED, S_RING, S_UP,
    SHARD_WORDS, SYMBOL_WORDS, Y_LOT_DECIMALS, Y_LOT_MANTISSA, Y_SHARD, Y_SYMBOL_ID, Y_TICK_DECIMALS, Y_TICK_MANTISSA,
    Y_TRADED,
)  # fmt: skip

DONE, SLOW = 0, 1  # decode results: position << 8 | one of these
TAB, LF, CR, SPACE, QUOTE, COMMA, COLON, BACKSLASH, OPEN, CLOSE = 9, 10, 13, 32, 34, 44, 58, 92, 123, 125
WORD_BYTES_MAX = 16
TAG_MAX = 2**32 - 1
ARGUMENT_BITS = 20
ARGUMENT_MASK = (1 << ARGUMENT_BITS) - 1
HARD_TAT, INTERVAL, HARD_INTERVAL = 2, 4, 6  # from a bucket's R_*_TAT to its other words
POST_ONLY_FLAG = int(CommandFlag.POST_ONLY)
KIND_NEW, KIND_CANCEL, KIND_REPLACE = int(CommandKind.NEW), int(CommandKind.CANCEL), int(CommandKind.REPLACE)
TYPE_LIMIT, TYPE_MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)


def _bits(*fields: int) -> int:
    return sum(1 << field for field in fields)


# Per kind: keys that must be there, and keys that may not.
NEW_NEEDS, NEW_BARS = _bits(F_SYMBOL, F_SIDE, F_QTY), _bits(F_ORDER_ID, F_TARGET_ID)
REPLACE_NEEDS, REPLACE_BARS = _bits(F_SYMBOL), _bits(F_TAG, F_POST_ONLY)
CANCEL_BARS = _bits(F_SIDE, F_QTY, F_PRICE, F_TIF, F_ORDER_TYPE, F_TAG, F_POST_ONLY)
TARGETS = _bits(F_ORDER_ID, F_TARGET_ID)
PRICE_BIT, QTY_BIT, SIDE_BIT, TIF_BIT, SYMBOL_BIT = _bits(F_PRICE), _bits(F_QTY), _bits(F_SIDE), _bits(F_TIF), _bits(F_SYMBOL)
ORDER_TYPE_BIT = _bits(F_ORDER_TYPE)


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
    """Read a plain string of 1 to 16 characters at p; returns (low, high, place after it), place -1 if it is not one."""
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
    """Read true or false at p; returns the place after it, or -1. Byte by byte: the line may end anywhere."""
    if buf[at(p)] == 116 and buf[at(p + 1)] == 114 and buf[at(p + 2)] == 117 and buf[at(p + 3)] == 101:
        words[F_BASE + field] = 1
        return np.int64(p + 4)
    if buf[at(p)] == 102 and buf[at(p + 1)] == 97 and buf[at(p + 2)] == 108 and buf[at(p + 3)] == 115 and buf[at(p + 4)] == 101:
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
    """Read one flat object at p into the F_ words; returns (place after its brace or -1, bit set of the keys seen)."""
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


# ------------------------------------------------------------------------------- from fields to a command
@helper
def name_hash(name):
    """Where the search for a packed name begins, before masking."""
    mixed = name ^ (name >> 31)
    return ((mixed & 0x7FFFFFFF) * 0x4F1BBCDD) >> 20


@helper
def symbol_row(words, name):
    """First word of the symbol's row, 0 when the directory does not have it."""
    mask = words[H_HASH_MASK]
    slot = name_hash(name) & mask
    for _ in range(mask + 1):
        entry = words[words[H_HASH_BASE] + slot]
        if entry == 0:
            return np.int64(0)
        row = words[H_SYMBOL_BASE] + (entry - 1) * SYMBOL_WORDS
        if words[row] == name:
            return np.int64(row)
        slot = (slot + 1) & mask
    return np.int64(0)


@helper
def symbol_apply(words, seen):
    """Name the instrument and turn price and quantity into steps; False when something is not exact or not known."""
    row = symbol_row(words, words[F_BASE + F_SYMBOL])
    if row == 0 or words[row + Y_TRADED] == 0:
        return False
    words[C_SYMBOL] = words[F_BASE + F_SYMBOL]
    words[C_SYMBOL_ID] = words[row + Y_SYMBOL_ID]
    words[C_SHARD] = words[row + Y_SHARD]
    good = True
    words[C_PX] = 0
    words[C_QTY] = 0
    if seen & PRICE_BIT:
        f = F_BASE + F_PRICE
        steps = steps_of(words[f], words[f + F_SCALE], words[row + Y_TICK_MANTISSA], words[row + Y_TICK_DECIMALS])
        words[C_PX] = steps
        good = steps > 0
    if seen & QTY_BIT:
        f = F_BASE + F_QTY
        steps = steps_of(words[f], words[f + F_SCALE], words[row + Y_LOT_MANTISSA], words[row + Y_LOT_DECIMALS])
        words[C_QTY] = steps
        good = good and steps > 0
    return good


@helper
def new_build(words, seen):
    """C_ words of a new order; False: slow path."""
    if (seen & NEW_NEEDS) != NEW_NEEDS or (seen & NEW_BARS) != 0:
        return False
    order_type = words[F_BASE + F_ORDER_TYPE]
    stated = words[F_BASE + F_TYPE]
    priced = (seen & PRICE_BIT) != 0
    if stated != NEW:
        if order_type != 0:
            return False
        order_type = np.int64(TYPE_MARKET if stated == MARKET else TYPE_LIMIT)
    elif order_type == 0:
        order_type = np.int64(TYPE_LIMIT if priced else TYPE_MARKET)
    if (order_type == TYPE_LIMIT) != priced:
        return False
    tif = words[F_BASE + F_TIF]
    post_only = words[F_BASE + F_POST_ONLY]
    if post_only and (order_type == TYPE_MARKET or tif != 0):
        return False
    words[C_KIND] = KIND_NEW
    words[C_SIDE] = words[F_BASE + F_SIDE]
    words[C_ORDER_TYPE] = order_type
    words[C_TIF] = tif
    words[C_FLAGS] = POST_ONLY_FLAG if post_only else 0
    words[C_TAG] = words[F_BASE + F_TAG]
    return words[C_TAG] <= TAG_MAX and symbol_apply(words, seen)


@helper
def target_build(words, seen):
    """C_ words of a cancel or replace; False: slow path."""
    replace = words[F_BASE + F_TYPE] == REPLACE
    if (seen & TARGETS) == 0 or (seen & (REPLACE_BARS if replace else CANCEL_BARS)) != 0:
        return False
    for field in range(F_ORDER_ID, F_TARGET_ID + 1):
        if (seen >> field) & 1 and words[F_BASE + field] < 1:
            return False
    words[C_SIDE] = 0
    words[C_ORDER_TYPE] = 0
    words[C_TIF] = 0
    words[C_FLAGS] = 0
    words[C_TAG] = 0
    if replace:
        words[C_KIND] = KIND_REPLACE
        words[C_SIDE] = words[F_BASE + F_SIDE]
        words[C_ORDER_TYPE] = words[F_BASE + F_ORDER_TYPE]
        words[C_TIF] = words[F_BASE + F_TIF] if seen & TIF_BIT else UNSTATED
        return (seen & SYMBOL_BIT) != 0 and symbol_apply(words, seen)
    words[C_KIND] = KIND_CANCEL
    if seen & SYMBOL_BIT:
        return symbol_apply(words, seen)
    words[C_SYMBOL] = 0
    words[C_SYMBOL_ID] = 0
    words[C_SHARD] = 0
    words[C_PX] = 0
    words[C_QTY] = 0
    return words[H_SHARDS] == 1


@helper
def command_build(words, seen):
    """C_ words from F_ words; False: slow path."""
    words[C_ID] = words[F_BASE + F_ID]
    words[C_ORDER_ID] = words[F_BASE + F_ORDER_ID]
    words[C_TARGET_ID] = words[F_BASE + F_TARGET_ID]
    if (seen >> F_ID) & 1 and words[C_ID] < 1:
        return False
    kind = words[F_BASE + F_TYPE]
    if kind == CANCEL or kind == REPLACE:
        return target_build(words, seen)
    return new_build(words, seen)


# ------------------------------------------------------------------------------- admitting and writing
@helper
def bucket_take(words, row, bucket, now):
    """Take one token from a bucket (R_ORDER_TAT or R_CANCEL_TAT) of a session; False when there is none.

    GCRA: one word, the time at which the bucket would be full again. The hard one runs on every request, refused or not.
    """
    at = row + bucket
    interval = words[at + INTERVAL]
    if interval == 0:
        return True
    soft = max(words[at], now) + interval
    hard = max(words[at + HARD_TAT], now) + words[at + HARD_INTERVAL]
    if soft - now > words[row + R_WINDOW_NS] or hard - now > words[row + R_WINDOW_NS]:
        return False
    words[at] = soft
    words[at + HARD_TAT] = hard
    return True


@helper
def shard_room(words, ctrl, shard_row):
    """Free slots of this gateway's ring to the shard; 0 when full or gated."""
    room, consumer = ring_room(
        ctrl, words[shard_row + S_RING], words[shard_row + S_POSITION], words[H_COMMAND_CAPACITY], words[shard_row + S_CONSUMER]
    )
    words[shard_row + S_CONSUMER] = consumer
    return room


@helper
def session_admits(words, ctrl, row):
    """Whether the command in the C_ words may go out now, as it stands; takes a token if so."""
    shard_row = words[H_SHARD_BASE] + words[C_SHARD] * SHARD_WORDS
    client_id = words[C_ID]
    if words[row + R_FLAGS] & ROW_TEXT_IDS and (client_id != 0 or words[C_TARGET_ID] != 0):
        return False
    if client_id != 0 and (client_id <= words[row + R_LAST_ID] or words[row + R_LATCH] != 0):
        return False
    if words[shard_row + S_UP] == 0 or shard_room(words, ctrl, shard_row) <= 0:
        return False
    bucket = R_CANCEL_TAT if words[C_KIND] == KIND_CANCEL else R_ORDER_TAT
    return bucket_take(words, row, bucket, words[C_RECEIPT_TS])


@helper
def command_fill(words, record):
    """Copy the C_ words into a record that is zero beyond its first word."""
    record["receipt_ts"] = words[C_RECEIPT_TS]
    record["client_order_id"] = words[C_ID]
    record["order_id"] = words[C_ORDER_ID]
    record["session"] = words[C_SESSION]
    record["logon"] = words[C_LOGON]
    record["account"] = words[C_ACCOUNT]
    record["symbol_id"] = words[C_SYMBOL_ID]
    record["px"] = words[C_PX]
    record["qty"] = words[C_QTY]
    record["kind"] = words[C_KIND]
    record["producer"] = words[H_PRODUCER]
    record["side"] = words[C_SIDE]
    record["order_type"] = words[C_ORDER_TYPE]
    record["tif"] = words[C_TIF]
    record["flags"] = words[C_FLAGS]
    record["target_client_order_id"] = words[C_TARGET_ID]
    record["symbol"] = words[C_SYMBOL]
    record["tag"] = words[C_TAG]


@helper
def shard_wake(words, shard_ctrl, shard):
    """Signal the shard if it sleeps. After publishing."""
    if wake_needed(shard_ctrl, shard * SHARD_CTRL_WORDS + SHARD_SLEEPS):
        eventfd_signal(words[words[H_SHARD_BASE] + shard * SHARD_WORDS + S_FD])


@helper
def command_write(words, commands, slot_words, shard_ctrl):
    """Publish the command in the C_ words to its shard, whose ring has room. Returns the slot before it is published.

    The first command of a call wakes the shard at once: it works while the rest of the buffer is read.
    """
    shard_row = words[H_SHARD_BASE] + words[C_SHARD] * SHARD_WORDS
    position = words[shard_row + S_POSITION]
    slot = command_slot(words[shard_row + S_RING], position, words[H_COMMAND_CAPACITY])
    command_clear(slot_words, slot)
    command_fill(words, commands[slot])
    command_publish(slot_words, slot, position)
    words[shard_row + S_POSITION] = position_add(position, 1)
    words[shard_row + S_PUBLISHED] += 1
    words[H_PUBLISHED] += 1
    if words[shard_row + S_PUBLISHED] == 1:
        shard_wake(words, shard_ctrl, words[C_SHARD])


@helper
def session_note(words, row):
    """Whose command it is, and that its id is used."""
    words[C_ACCOUNT] = words[row + R_ACCOUNT]
    words[C_LOGON] = words[row + R_LOGON]
    place = row + R_SHARDS + 2 * words[C_SHARD]
    words[C_SESSION] = words[place]
    words[row + R_COMMANDS] += 1
    if words[C_ID] != 0:
        words[row + R_LAST_ID] = words[C_ID]
        words[place + 1] = words[C_ID]


@helper
def calls_finish(words, ctrl, shard_ctrl):
    """End of a call: positions for display, and a second look at sleeping shards."""
    for shard in range(words[H_SHARDS]):
        shard_row = words[H_SHARD_BASE] + shard * SHARD_WORDS
        if words[shard_row + S_PUBLISHED] != 0:
            if words[shard_row + S_PUBLISHED] > 1:
                shard_wake(words, shard_ctrl, shard)
            store_release(ctrl, words[shard_row + S_RING] * CTRL_WORDS + PRODUCER_POSITION, words[shard_row + S_POSITION])
            words[shard_row + S_PUBLISHED] = 0
    words[H_TOTAL_COMMANDS] += words[H_PUBLISHED]


@helper
def line_accept(words, buf, start, row, ctrl):
    """Read the line at `start` into the C_ words; returns its LF, or -1: not plain, not acceptable, or not complete.

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
    """Take the lines in buf[first:end] (H_ARGUMENT) of a live session; returns place << 8 | DONE or SLOW.

    DONE: the bytes from `place` on are no complete line. SLOW: the line at `place`, up to H_LINE_END, is Python's. O(bytes).
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


@kernel
def command_push(words, commands, slot_words, ctrl, shard_ctrl):
    """Write the one command in the C_ words (and C_TEXT); returns its position + 1, or 0 when the ring is full or gated."""
    words[H_PUBLISHED] = 0
    shard_row = words[H_SHARD_BASE] + words[C_SHARD] * SHARD_WORDS
    if shard_room(words, ctrl, shard_row) <= 0:
        return np.int64(0)
    position = words[shard_row + S_POSITION]
    slot = command_slot(words[shard_row + S_RING], position, words[H_COMMAND_CAPACITY])
    command_clear(slot_words, slot)
    record = commands[slot]
    command_fill(words, record)
    for i in range(CLIENT_TEXT_BYTES):
        record["text"][i] = (words[C_TEXT + i // 8] >> (8 * (i % 8))) & 0xFF
    command_publish(slot_words, slot, position)
    words[shard_row + S_POSITION] = position_add(position, 1)
    words[shard_row + S_PUBLISHED] = 1
    words[H_PUBLISHED] = 1
    shard_wake(words, shard_ctrl, words[C_SHARD])
    calls_finish(words, ctrl, shard_ctrl)
    return position_add(position, 1)


@kernel
def ring_rooms(words, ctrl):
    """Fewest free slots over all shards that are up (0: one is full or gated)."""
    fewest = words[H_COMMAND_CAPACITY]
    for shard in range(words[H_SHARDS]):
        shard_row = words[H_SHARD_BASE] + shard * SHARD_WORDS
        if words[shard_row + S_UP] != 0:
            fewest = min(fewest, shard_room(words, ctrl, shard_row))
    return fewest


def warm_up_decode() -> None:
    """Compile every kernel of this module with its real types."""
    from engine.records import COMMAND, COMMAND_WORDS
    from gateway.state import C_END

    words = np.zeros(C_END + 64, np.int64)
    words[H_COMMAND_CAPACITY] = 2
    words[H_ARGUMENT] = 0
    commands = np.zeros(2, COMMAND)
    arrays = (commands, commands.view(np.int64), np.zeros(CTRL_WORDS, np.int64))
    words[H_ROW_BASE] = words[H_SHARD_BASE] = C_END
    lines_decode(words, np.zeros(8, np.uint8), *arrays, np.zeros(SHARD_CTRL_WORDS, np.int64))
    command_push(words, *arrays, np.zeros(SHARD_CTRL_WORDS, np.int64))
    ring_rooms(words, arrays[2])
    assert commands.view(np.int64)[0] == 1 and COMMAND_WORDS * 8 == COMMAND.itemsize
