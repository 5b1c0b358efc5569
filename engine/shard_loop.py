"""The loop of one shard: read command rings, step, publish events.

Hot. One process, one thread, one core. It writes its event ring, its book tops, its counters block
and the consumer positions of its command rings; it reads the command rings. Per compiled call (at
most CALL_NS):

    poll rings round-robin -> step each command -> stamp receipts -> commit -> wake sleepers ->
    release rings -> tops

* A batch ends when the rings are empty or after `batch_max` commands, so one command alone is
  published at once.
* The clock is read once per batch (in_ts, receipts); the step itself never sees it.
* `intent` is announced a chunk ahead, so its fence is paid once per chunk, not per
  batch.
* While a long work is open, commands it concerns wait at the head of their ring and the other rings
  go on. Its slices wait a little for readers that are far behind.
* Nothing to do: pause, then sched_yield, then sleep on the eventfd (engine/idle.py has the times).
"""

from typing import NamedTuple

import numpy as np

from engine.atomics import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    clock_ns,
    cpu_pause,
    fence_seq_cst,
    load_acquire,
    load_relaxed,
    sched_yield,
    store_relaxed,
    store_release,
)  # fmt: skip
from engine.book_numba import level_next
from engine.book_state import (
    BATCH_VERSION,
    DIRTY_COUNT,
    EVENT_MASK,
    FATAL,
    IN_TS,
    INTENT,
    OUT_POSITION,
    RECEIPT_GATEWAY_IN,
    RECEIPT_PRODUCER_SEQ,
    RECEIPT_SHARD_IN,
    SYMBOLS_USED,
    WORK_KIND,
    WORK_SYMBOL,
    ShardState,
    allocate_state,
    dirty,
    event_words,
    levels,
    sides,
    small_limits,
    symbols,
)
from engine.book_top import top_write_begin, top_write_end
from engine.command_ring import (
    CONSUMER_POSITION,
    CTRL_WORDS,
    command_ready,
    command_slot,
    ring_release,
)  # fmt: skip
from engine.counters import HISTOGRAM_WORDS, histogram_record
from engine.event_ring import (
    EVENT_CTRL_WORDS,
    READER_POSITION,
    READER_SLEEPS,
    READERS_MAX,
    event_commit,
    event_intend,
)
from engine.id_table import ids_settle
from engine.jit import helper, kernel, register_warmup
from engine.lookahead import LOOK_FAR, LOOK_MIDDLE, LOOK_NEAR, look_far, look_middle, look_near
from engine.matching import WORK_NONE, best_crosses
from engine.records import (
    BOOK_TOP,
    COMMAND,
    EVENT_SLOT,
    EVENT_SLOT_WORDS,
    SYMBOL_INDEX_MASK,
    TOP_LEVELS,
    TOP_WORDS,
    CommandKind,
    OrderType,
    layout_offset,
)
from engine.ring_words import position_add, wake_sleepers
from engine.step import step_continue, step_one

CALL_NS = 10_000_000  # bound of one compiled call: signals and heartbeats wait no longer
# Slots announced beyond the longest command, as a share of the ring: with that command's quarter,
# five eighths of the ring are always safe for readers.
INTENT_AHEAD_SHIFT = 3
BATCH_SHARE_SHIFT = 2  # and a batch ends when it filled this share
TOP_PERIOD_NS = 20_000  # under load a book top is rewritten at most this often
SHARD_OUT_WORD = 26  # EVENT_SLOT.receipt_shard_out
assert layout_offset(EVENT_SLOT, "receipt_shard_out") == SHARD_OUT_WORD * 8

# Words of `loop`: parameters, then what the loop remembers between calls.
(
    SHARD_INDEX,
    PRODUCERS,
    RING_CAPACITY,
    EVENT_CAPACITY,
    EVENTS_PER_COMMAND,
    BATCH_MAX,
    SPIN_NS,
    YIELD_NS,
    SYMBOLS_MAX,
) = range(9)
LAST_WORK_NS, NEXT_RING, TOPS_NS, COMMANDS, BATCHES, SLIPPED, STOP, CLOCK_OFFSET, LATENCY_BASE = (
    range(16, 25)
)
SLICE_NS = 25  # when the open work ran last
LOOP_WORDS = 32

RETURN_BUSY, RETURN_IDLE, RETURN_FATAL = 0, 1, 2
# A wall clock that moves more than this against CLOCK_MONOTONIC is counted and slewed.
JUMP_NS = 1_000_000_000
# A long work waits for readers that are a quarter of the ring behind, but not longer than this for
# each slice: a dead one costs milliseconds, not the exchange.
PATIENCE_NS = 10_000_000
SLEW_SHIFT = 10  # an offset is worked off at 1/1024 of real time


class Ports(NamedTuple):
    """What the loop touches outside its own state."""

    command_ctrl: np.ndarray
    commands: np.ndarray
    command_words: np.ndarray
    event_ctrl: np.ndarray
    tops: np.ndarray
    top_words: np.ndarray
    counters: np.ndarray
    reader_fds: np.ndarray
    positions: np.ndarray
    loop: np.ndarray


@helper
def may_trade(s, c):
    """Whether a NEW would meet an order."""
    symbol, side = np.int64(c["symbol_id"]) & SYMBOL_INDEX_MASK, np.int64(c["side"])
    if symbol > s[SYMBOLS_USED] or side > 1:
        return False  # it will be refused
    return c["order_type"] != OrderType.LIMIT or best_crosses(s, symbol, side, np.int64(c["px"]))


@helper
def work_concerns(s, c):
    """Whether the open work must be complete before `c` may run (RULES §1). Not if the work is
    about one symbol, `c` about an order in another, and `c` cannot become a work itself: there is
    room for one.
    """
    kind = c["kind"]
    short = kind == CommandKind.CANCEL or kind == CommandKind.QUERY_ORDER or kind == CommandKind.NEW
    symbol = np.int64(s[WORK_SYMBOL])
    if symbol == 0 or not short or c["symbol_id"] == 0:
        return True
    if np.int64(c["symbol_id"]) == np.int64(symbols(s)[symbol]["symbol_id"]):
        return True
    return kind == CommandKind.NEW and may_trade(s, c)


@helper
def batch_clock(s, p):
    """in_ts of the batch: wall time, a jump over a second slewed instead of followed."""
    wall, steady = clock_ns(np.int64(CLOCK_REALTIME)), clock_ns(np.int64(CLOCK_MONOTONIC))
    drift = wall - steady - p.loop[CLOCK_OFFSET]
    if p.loop[CLOCK_OFFSET] == 0:
        p.loop[CLOCK_OFFSET] = wall - steady
    elif drift > JUMP_NS or drift < -JUMP_NS:
        if p.loop[SLIPPED] & 1 == 0:
            p.loop[SLIPPED] += 1
        elapsed = max(steady - p.loop[LAST_WORK_NS], np.int64(0))
        p.loop[CLOCK_OFFSET] += (
            min(elapsed >> SLEW_SHIFT, drift) if drift > 0 else max(-(elapsed >> SLEW_SHIFT), drift)
        )
        wall = steady + p.loop[CLOCK_OFFSET]
    else:
        if p.loop[SLIPPED] & 1:
            p.loop[SLIPPED] += 1
        p.loop[CLOCK_OFFSET] = wall - steady
    s[RECEIPT_SHARD_IN] = steady
    return wall


@helper
def room_for_command(s, p, first):
    """Announce and check the slots of the longest command; False ends the batch."""
    end = s[OUT_POSITION] + p.loop[EVENTS_PER_COMMAND]
    # Readers must see events before they are overwritten: a batch ends in time.
    if s[OUT_POSITION] - first > p.loop[EVENT_CAPACITY] >> BATCH_SHARE_SHIFT:
        return False
    if end > s[INTENT]:
        s[INTENT] = end + (p.loop[EVENT_CAPACITY] >> INTENT_AHEAD_SHIFT)
        event_intend(p.event_ctrl, p.loop[SHARD_INDEX] * EVENT_CTRL_WORDS, s[INTENT])
    return True


@helper
def ring_next(s, p):
    """Slot of the next command in turn, -1 when no ring has one that may run now. Moves the turn
    on.
    """
    producers = p.loop[PRODUCERS]
    for _ in range(producers):
        producer = p.loop[NEXT_RING]
        ring = p.loop[SHARD_INDEX] * producers + producer
        slot = command_slot(ring, p.positions[producer], p.loop[RING_CAPACITY])
        if command_ready(p.command_words, slot, p.positions[producer]):
            if s[WORK_KIND] == WORK_NONE or not work_concerns(s, p.commands[slot]):
                return slot
        p.loop[NEXT_RING] = producer + 1 if producer + 1 < producers else 0
    return np.int64(-1)


@helper
def slot_ahead(p, producer, distance):
    """Slot of the command `distance` behind the next one of a ring, -1 when it is not there yet."""
    position = position_add(p.positions[producer], distance)
    ring = p.loop[SHARD_INDEX] * p.loop[PRODUCERS] + producer
    slot = command_slot(ring, position, p.loop[RING_CAPACITY])
    return slot if command_ready(p.command_words, slot, position) else np.int64(-1)


@helper
def look_ahead(s, p, producer):
    """When more commands lie ready, let their cache misses begin (engine/lookahead.py)."""
    position = p.positions[producer]
    near = slot_ahead(p, producer, LOOK_NEAR)
    if near >= 0:
        look_near(s, position + LOOK_NEAR)
        middle = slot_ahead(p, producer, LOOK_MIDDLE)
        if middle >= 0:
            look_middle(s, p.commands[middle], position + LOOK_MIDDLE)
            far = slot_ahead(p, producer, LOOK_FAR)
            if far >= 0:
                look_far(s, p.commands[far], position + LOOK_FAR)


@helper
def receipts_stamp(s, p, first, now):
    """Write shard_out beside every event of the batch."""
    mask = s[EVENT_MASK]
    for position in range(first, s[OUT_POSITION]):
        event_words(s)[(position & mask) * EVENT_SLOT_WORDS + SHARD_OUT_WORD] = now


@helper
def batch_publish(s, p, first, oldest):
    """Make the batch visible, wake who sleeps, give the command slots back."""
    now = clock_ns(np.int64(CLOCK_MONOTONIC))
    receipts_stamp(s, p, first, now)
    base = p.loop[SHARD_INDEX] * EVENT_CTRL_WORDS
    event_commit(p.event_ctrl, base, s[OUT_POSITION])
    wake_sleepers(p.event_ctrl, base + READER_SLEEPS, p.reader_fds)
    for producer in range(p.loop[PRODUCERS]):
        ring = p.loop[SHARD_INDEX] * p.loop[PRODUCERS] + producer
        at = ring * CTRL_WORDS + CONSUMER_POSITION
        if load_relaxed(p.command_ctrl, at) != p.positions[producer]:
            ring_release(p.command_ctrl, ring, p.positions[producer])
    p.loop[LAST_WORK_NS] = now
    p.loop[BATCHES] += 1
    if oldest > 0:
        histogram_record(p.counters, p.loop[LATENCY_BASE], now - oldest)


@helper
def work_turn(s, p):
    """Whether the next slice of the open work may run: its readers follow, or were waited for."""
    if s[WORK_KIND] == WORK_NONE:
        return False
    base = p.loop[SHARD_INDEX] * EVENT_CTRL_WORDS + READER_POSITION
    capacity = p.loop[EVENT_CAPACITY]
    for reader in range(READERS_MAX):
        behind = s[OUT_POSITION] - load_relaxed(p.event_ctrl, base + 8 * reader)
        if behind > capacity >> BATCH_SHARE_SHIFT and behind <= capacity:
            return clock_ns(np.int64(CLOCK_MONOTONIC)) - p.loop[SLICE_NS] > PATIENCE_NS
    return True


@helper
def batch_run(s, p):
    """Poll, step and publish up to batch_max commands; returns how many ran."""
    slot = ring_next(s, p)
    if slot < 0 and not work_turn(s, p):
        return np.int64(0)
    first, count, oldest = np.int64(s[OUT_POSITION]), np.int64(0), np.int64(0)
    wall = batch_clock(s, p)
    store_relaxed(s, BATCH_VERSION, s[BATCH_VERSION] + 1)
    fence_seq_cst()
    while count < p.loop[BATCH_MAX] and s[FATAL] == 0 and room_for_command(s, p, first):
        if (count & 1 == 0 or slot < 0) and work_turn(s, p):
            step_continue(s)  # every second turn while other rings have work
            p.loop[SLICE_NS] = clock_ns(np.int64(CLOCK_MONOTONIC))
        elif slot >= 0:
            look_ahead(s, p, p.loop[NEXT_RING])
            c = p.commands[slot]
            c["producer"] = p.loop[NEXT_RING]
            s[RECEIPT_GATEWAY_IN] = c["receipt_ts"]
            s[RECEIPT_PRODUCER_SEQ] = c["producer_seq"]
            oldest = np.int64(c["receipt_ts"]) if oldest == 0 else oldest
            step_one(s, c, wall)
            producer = p.loop[NEXT_RING]
            p.positions[producer] = position_add(p.positions[producer], 1)
            p.loop[COMMANDS] += 1
        else:
            break
        count += 1
        slot = ring_next(s, p)
    ids_settle(s)
    store_release(s, BATCH_VERSION, s[BATCH_VERSION] + 1)
    batch_publish(s, p, first, oldest)
    return count


@helper
def top_side(s, side_index, top_words, at):
    """Write the best TOP_LEVELS levels of one side at word `at`; the rest is zero."""
    level = np.int64(sides(s)[side_index]["best"])
    for row in range(TOP_LEVELS):
        px, qty, count = np.int64(0), np.int64(0), np.int64(0)
        if level >= 0:
            px, qty, count = (
                np.int64(levels(s)[level]["px"]),
                np.int64(levels(s)[level]["qty"]),
                np.int64(levels(s)[level]["count"]),
            )
            level = level_next(s, level)
        top_words[at + row * 3] = px
        top_words[at + row * 3 + 1] = qty
        top_words[at + row * 3 + 2] = count


@helper
def top_write(s, p, symbol):
    """Rewrite the published top of one book under its sequence lock."""
    place = p.loop[SHARD_INDEX] * p.loop[SYMBOLS_MAX] + symbol
    row = symbols(s)[symbol]
    top_write_begin(p.top_words, place)
    top = p.tops[place]
    top["symbol"] = row["name"]
    top["symbol_id"] = row["symbol_id"]
    top["out_seq"] = s[OUT_POSITION]
    top["in_ts"] = s[IN_TS]
    top["tick"] = row["tick"]
    top["lot"] = row["lot"]
    top["px_max"] = row["px_max"]
    top["phase"] = row["phase"]
    top["last_px"] = row["last_px"]
    top["last_qty"] = row["last_qty"]
    top["trade_count"] = row["trade_id"]
    top["volume"] = row["volume"]
    top_side(s, symbol * 2, p.top_words, place * TOP_WORDS + 16)
    top_side(s, symbol * 2 + 1, p.top_words, place * TOP_WORDS + 16 + TOP_LEVELS * 3)
    top_write_end(p.top_words, place)


@helper
def tops_flush(s, p):
    """Rewrite the tops of all changed books."""
    for i in range(s[DIRTY_COUNT]):
        symbol = np.int64(dirty(s)[i])
        symbols(s)[symbol]["dirty"] = 0
        top_write(s, p, symbol)
    s[DIRTY_COUNT] = 0
    p.loop[TOPS_NS] = p.loop[LAST_WORK_NS]


@kernel
def shard_run(s, p):
    """Serve the rings for at most CALL_NS. RETURN_IDLE: nothing came for so long that the process
    should sleep.
    """
    start = clock_ns(np.int64(CLOCK_MONOTONIC))
    while True:
        if batch_run(s, p) > 0:
            if s[FATAL] != 0:
                return RETURN_FATAL
            if p.loop[LAST_WORK_NS] - p.loop[TOPS_NS] > TOP_PERIOD_NS:
                tops_flush(s, p)
            if p.loop[LAST_WORK_NS] - start > CALL_NS:
                return RETURN_BUSY
            continue
        if s[DIRTY_COUNT] > 0:
            tops_flush(s, p)
            continue
        now = clock_ns(np.int64(CLOCK_MONOTONIC))
        idle = now - p.loop[LAST_WORK_NS]
        if idle > p.loop[YIELD_NS] and s[WORK_KIND] == WORK_NONE:
            return RETURN_IDLE
        if now - start > CALL_NS or load_acquire(p.loop, STOP) != 0:
            return RETURN_BUSY
        if idle < p.loop[SPIN_NS]:
            cpu_pause()
        else:
            sched_yield()


@kernel
def rings_pending(p):
    """Whether any ring of the shard has a command: the recheck of the sleep handshake."""
    for producer in range(p.loop[PRODUCERS]):
        ring = p.loop[SHARD_INDEX] * p.loop[PRODUCERS] + producer
        slot = command_slot(ring, p.positions[producer], p.loop[RING_CAPACITY])
        if command_ready(p.command_words, slot, p.positions[producer]):
            return True
    return False


def shard_ports_private(
    state: ShardState, producers: int = 2, capacity: int = 64, symbols: int = 8
) -> Ports:
    """Ports over private memory: warm-up and tests of the loop without processes."""
    commands = np.zeros(producers * capacity, COMMAND)
    tops = np.zeros(symbols, BOOK_TOP)
    loop = np.zeros(LOOP_WORDS, np.int64)
    values = {
        PRODUCERS: producers,
        RING_CAPACITY: capacity,
        EVENT_CAPACITY: len(state.events),
        BATCH_MAX: 64,
        SYMBOLS_MAX: symbols,
    }
    for word, value in values.items():
        loop[word] = value
    loop[EVENTS_PER_COMMAND] = len(state.events) // 4
    return Ports(
        np.zeros(producers * CTRL_WORDS, np.int64),
        commands,
        commands.view(np.int64),
        np.zeros(EVENT_CTRL_WORDS, np.int64),
        tops,
        tops.view(np.int64),
        np.zeros(HISTOGRAM_WORDS, np.int64),
        np.full(8, -1, np.int64),
        np.zeros(producers, np.int64),
        loop,
    )


def _warm() -> None:
    state = allocate_state(small_limits())
    ports = shard_ports_private(state)
    ports.commands[0] = np.zeros(1, COMMAND)[0]
    ports.command_words[0] = 1
    shard_run(state.table, ports)
    rings_pending(ports)


register_warmup("engine.shard_loop", _warm)
