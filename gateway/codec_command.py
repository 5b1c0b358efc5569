"""From the fields of a line to a command in its shard's ring: compiled.

Hot, part of gateway/codec_decode.py, whose docstring has the rules. Three steps, all on
gateway/state.py: build (fields F_* to command words C_*; exact ticks and lots), admit (ids,
throttle, room in the ring) and write. The slow path fills the same C_ words and writes by
`command_push`: one writer of COMMAND.

Ring protocol: engine/command_ring.py. A shard that sleeps is woken after its first command of a
call, so that it works while the rest of the buffer is read, and looked at once more at the end.
"""

import numpy as np

from engine.atomics import eventfd_signal, load_acquire, store_release
from engine.jit import helper, kernel, register_warmup
from engine.records import CLIENT_TEXT_BYTES, COMMAND, UNSTATED, CommandFlag, CommandKind, OrderType
from engine.shm_ring import (
    CONSUMER_POSITION,
    CTRL_WORDS,
    PRODUCER_POSITION,
    SHARD_CTRL_WORDS,
    SHARD_SLEEPS,
    command_clear,
    command_publish,
    command_slot,
    position_add,
    ring_room,
    wake_needed,
)  # fmt: skip
from gateway.codec_numbers import steps_of
from gateway.codec_tables import CANCEL, MARKET, NEW, REPLACE
from gateway.state import (
    C_ACCOUNT,
    C_AMOUNT,
    C_DECISION,
    C_END,
    C_EXPIRE_TS,
    C_FLAGS,
    C_ID,
    C_KIND,
    C_LOGON,
    C_MIN_QTY,
    C_ORDER_ID,
    C_ORDER_TYPE,
    C_PEAK,
    C_PX,
    C_PX2,
    C_QTY,
    C_QTY2,
    C_RECEIPT_TS,
    C_SESSION,
    C_SHARD,
    C_SIDE,
    C_STP,
    C_SYMBOL,
    C_SYMBOL_ID,
    C_TAG,
    C_TARGET_ID,
    C_TEXT,
    C_TIF,
    F_BASE,
    F_ID,
    F_ORDER_ID,
    F_ORDER_TYPE,
    F_POST_ONLY,
    F_PRICE,
    F_QTY,
    F_SCALE,
    F_SIDE,
    F_SYMBOL,
    F_TAG,
    F_TARGET_ID,
    F_TIF,
    F_TYPE,
    H_COMMAND_CAPACITY,
    H_HASH_BASE,
    H_HASH_MASK,
    H_PRODUCER,
    H_PUBLISHED,
    H_SHARD_BASE,
    H_SHARDS,
    H_SYMBOL_BASE,
    H_TOTAL_COMMANDS,
    R_ACCOUNT,
    R_CANCEL_TAT,
    R_COMMANDS,
    R_FLAGS,
    R_LAST_ID,
    R_LATCH,
    R_LOGON,
    R_ORDER_TAT,
    R_SHARDS,
    R_WINDOW_NS,
    ROW_TEXT_IDS,
    S_CONSUMER,
    S_FD,
    S_POSITION,
    S_PUBLISHED,
    S_RING,
    S_UP,
    SHARD_WORDS,
    SYMBOL_WORDS,
    Y_LOT_DECIMALS,
    Y_LOT_MANTISSA,
    Y_SHARD,
    Y_SYMBOL_ID,
    Y_TICK_DECIMALS,
    Y_TICK_MANTISSA,
    Y_TRADED,
)  # fmt: skip

TAG_MAX = 2**32 - 1
HARD_TAT, INTERVAL, HARD_INTERVAL = 2, 4, 6  # from a bucket's R_*_TAT to its other words
POST_ONLY_FLAG = int(CommandFlag.POST_ONLY)
KIND_NEW, KIND_CANCEL = int(CommandKind.NEW), int(CommandKind.CANCEL)
KIND_REPLACE = int(CommandKind.REPLACE)
TYPE_LIMIT, TYPE_MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)


def _bits(*fields: int) -> int:
    return sum(1 << field for field in fields)


# Per kind: keys that must be there, and keys that may not.
NEW_NEEDS, NEW_BARS = _bits(F_SYMBOL, F_SIDE, F_QTY), _bits(F_ORDER_ID, F_TARGET_ID)
REPLACE_BARS = _bits(F_TAG, F_POST_ONLY)
CANCEL_BARS = _bits(F_SIDE, F_QTY, F_PRICE, F_TIF, F_ORDER_TYPE, F_TAG, F_POST_ONLY)
TARGETS = _bits(F_ORDER_ID, F_TARGET_ID)
PRICE_BIT, QTY_BIT, TIF_BIT, SYMBOL_BIT = (
    _bits(F_PRICE),
    _bits(F_QTY),
    _bits(F_TIF),
    _bits(F_SYMBOL),
)


# ------------------------------------------------------------------------- from fields to a command
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
    """Name the instrument and turn price and quantity into steps; False when something is not exact
    or not known.
    """
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
        steps = steps_of(
            words[f], words[f + F_SCALE], words[row + Y_TICK_MANTISSA], words[row + Y_TICK_DECIMALS]
        )
        words[C_PX] = steps
        good = steps > 0
    if seen & QTY_BIT:
        f = F_BASE + F_QTY
        steps = steps_of(
            words[f], words[f + F_SCALE], words[row + Y_LOT_MANTISSA], words[row + Y_LOT_DECIMALS]
        )
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


# ---------------------------------------------------------------------------- admitting and writing
@helper
def bucket_take(words, row, bucket, now):
    """Take one token from a bucket (R_ORDER_TAT or R_CANCEL_TAT) of a session; False when there is
    none.

    GCRA: one word, the time at which the bucket would be full again. The hard one runs on every
    request, refused or not.
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
        ctrl,
        words[shard_row + S_RING],
        words[shard_row + S_POSITION],
        words[H_COMMAND_CAPACITY],
        words[shard_row + S_CONSUMER],
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
    if words[row + R_SHARDS + 2 * words[C_SHARD]] == 0:  # up, but it has not opened the session yet
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
def options_fill(words, record):
    """Options of the full rules, which the fast path leaves to Python."""
    record["stp"] = words[C_STP]
    record["px2"] = words[C_PX2]
    record["qty2"] = words[C_QTY2]
    record["peak"] = words[C_PEAK]
    record["min_qty"] = words[C_MIN_QTY]
    record["expire_ts"] = words[C_EXPIRE_TS]
    record["decision_code"] = words[C_DECISION]


@helper
def shard_wake(words, shard_ctrl, shard):
    """Signal the shard if it sleeps. After publishing."""
    if wake_needed(shard_ctrl, shard * SHARD_CTRL_WORDS + SHARD_SLEEPS):
        eventfd_signal(words[words[H_SHARD_BASE] + shard * SHARD_WORDS + S_FD])


@helper
def command_write(words, commands, slot_words, shard_ctrl):
    """Publish the command in the C_ words to its shard, whose ring has room. Returns the slot
    before it is published.

    The first command of a call wakes the shard at once: it works while the rest of the buffer is
    read.
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
            store_release(
                ctrl,
                words[shard_row + S_RING] * CTRL_WORDS + PRODUCER_POSITION,
                words[shard_row + S_POSITION],
            )
            words[shard_row + S_PUBLISHED] = 0
    words[H_TOTAL_COMMANDS] += words[H_PUBLISHED]


@helper
def whole_fill(words, commands, slot_words, slot):
    """Everything a command made by Python may say."""
    command_clear(slot_words, slot)
    record = commands[slot]
    command_fill(words, record)
    record["amount"] = words[C_AMOUNT]
    options_fill(words, record)
    for i in range(CLIENT_TEXT_BYTES):
        record["text"][i] = (words[C_TEXT + i // 8] >> (8 * (i % 8))) & 0xFF


@kernel
def command_push(words, commands, slot_words, ctrl, shard_ctrl):
    """Write the one command in the C_ words (and C_TEXT); returns its position + 1, or 0 when the
    ring is full or gated.
    """
    words[H_PUBLISHED] = 0
    shard_row = words[H_SHARD_BASE] + words[C_SHARD] * SHARD_WORDS
    if shard_room(words, ctrl, shard_row) <= 0:
        return np.int64(0)
    position = words[shard_row + S_POSITION]
    slot = command_slot(words[shard_row + S_RING], position, words[H_COMMAND_CAPACITY])
    whole_fill(words, commands, slot_words, slot)
    command_publish(slot_words, slot, position)
    words[shard_row + S_POSITION] = position_add(position, 1)
    words[shard_row + S_PUBLISHED] = 1
    words[H_PUBLISHED] = 1
    shard_wake(words, shard_ctrl, words[C_SHARD])
    calls_finish(words, ctrl, shard_ctrl)
    return position_add(position, 1)


@kernel
def commands_push(words, rows, commands, slot_words, ctrl, shard_ctrl):
    """Write the commands in `rows` (two or more, each the words from C_KIND on) to one ring, behind
    each other: all of them, or none when there is no room for all. Returns how many.

    All slots are filled before the first is published, so that a shard finds the next one when it
    has taken one. A producer that dies between two leaves a list without its end, which goes with
    its session (engine/legs.py).
    """
    words[H_PUBLISHED] = 0
    words[C_SHARD] = rows[0, C_SHARD - C_KIND]
    shard_row = words[H_SHARD_BASE] + words[C_SHARD] * SHARD_WORDS
    count = np.int64(len(rows))
    if shard_room(words, ctrl, shard_row) < count:
        return np.int64(0)
    position, ring = words[shard_row + S_POSITION], words[shard_row + S_RING]
    for i in range(count):
        for word in range(C_END - C_KIND):
            words[C_KIND + word] = rows[i, word]
        slot = command_slot(ring, position_add(position, i), words[H_COMMAND_CAPACITY])
        whole_fill(words, commands, slot_words, slot)
    for i in range(count):
        at = position_add(position, i)
        command_publish(slot_words, command_slot(ring, at, words[H_COMMAND_CAPACITY]), at)
    words[shard_row + S_POSITION] = position_add(position, count)
    words[shard_row + S_PUBLISHED] = count
    words[H_PUBLISHED] = count
    calls_finish(words, ctrl, shard_ctrl)
    return count


@kernel
def ring_rooms(words, ctrl):
    """Fewest free slots over all shards that are up, as of now (0: one is full or gated)."""
    fewest = words[H_COMMAND_CAPACITY]
    for shard in range(words[H_SHARDS]):
        row = words[H_SHARD_BASE] + shard * SHARD_WORDS
        if words[row + S_UP] != 0:
            # Not what was known last: that is read again only when it leaves no room at all.
            consumer = load_acquire(ctrl, words[row + S_RING] * CTRL_WORDS + CONSUMER_POSITION)
            words[row + S_CONSUMER] = consumer
            fewest = min(fewest, shard_room(words, ctrl, row))
    return fewest


def _warm_up() -> None:
    words = np.zeros(C_END + SHARD_WORDS, np.int64)
    words[H_COMMAND_CAPACITY] = 2
    words[H_SHARD_BASE] = C_END
    commands = np.zeros(2, COMMAND)
    rings = (commands, commands.view(np.int64), np.zeros(CTRL_WORDS, np.int64))
    command_push(words, *rings, np.zeros(SHARD_CTRL_WORDS, np.int64))
    rows = np.zeros((2, C_END - C_KIND), np.int64)
    commands_push(words, rows, *rings, np.zeros(SHARD_CTRL_WORDS, np.int64))
    ring_rooms(words, rings[2])


register_warmup("gateway.codec_command", _warm_up)
