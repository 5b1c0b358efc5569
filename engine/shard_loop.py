"""The loop of one shard: read command rings, step, publish events.

Hot. One process, one thread, one core. It writes its event ring, its book tops, its counters block
and the consumer positions of its command rings; it reads the command rings. Per compiled call (at
most CALL_NS):

    poll rings round-robin -> step and stage each command -> stamp receipts -> publish what was
    staged -> commit -> wake sleepers -> release rings -> tops

* A batch ends when the rings are empty or after `batch_max` commands, so one command alone is
  published at once.
* The clock is read once per batch (in_ts, receipts); the step itself never sees it.
* `intent` is announced a chunk ahead, so its fence is paid once per chunk, not per
  batch.
* Journal, gate and mode `sync`: engine/stage.py. A batch that broke an invariant is neither staged
  nor committed.
* While a long work is open, commands it concerns wait at the head of their ring and the other rings
  go on. Its slices wait a little for readers that are far behind.
* Nothing to do: pause, then sched_yield, then sleep on the eventfd (engine/idle.py has the times).
"""

import numpy as np

from engine.atomics import (
    cpu_pause,
    fence_seq_cst,
    load_acquire,
    load_relaxed,
    sched_yield,
    store_relaxed,
    store_release,
)
from engine.book_state import (
    ACTIVATIONS,
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
    event_words,
    rules,
    small_limits,
    symbols,
)
from engine.command_ring import (
    CONSUMER_POSITION,
    CTRL_WORDS,
    command_ready,
    command_slot,
    ring_release,
)
from engine.counters import HISTOGRAM_WORDS, histogram_record
from engine.crash_points import dead, dies
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
from engine.loop_time import (
    own_command,
    own_turn,
    own_waits,
    slot_ahead,
    turn_holds,
    turns_stale,
)
from engine.loop_tops import tops_flush
from engine.loop_words import (
    BATCH_MAX,
    BATCHES,
    CLOCK_OFFSET,
    COMMANDS,
    EVENT_CAPACITY,
    EVENTS_PER_COMMAND,
    J_COMMITTED,
    J_MODE,
    J_SHUT,
    LAST_WORK_NS,
    LATENCY_BASE,
    LOOP_WORDS,
    MODE_NONE,
    MODE_SYNC,
    NEXT_RING,
    PRODUCERS,
    RING_CAPACITY,
    SHARD_INDEX,
    SLICE_NS,
    SLIPPED,
    SPIN_NS,
    STOP,
    SYMBOLS_MAX,
    TOPS_NS,
    YIELD_NS,
    Ports,
    journal_ports_none,
    steady_ns,
    wall_ns,
)
from engine.matching import WORK_NONE, best_crosses
from engine.records import (
    BOOK_TOP,
    COMMAND,
    EVENT_SLOT,
    EVENT_SLOT_WORDS,
    SYMBOL_INDEX_MASK,
    CommandKind,
    OrderType,
    layout_offset,
)
from engine.ring_words import position_add, position_diff, wake_sleepers
from engine.stage import (
    events_crc,
    gate_pass,
    gate_shut,
    mark_publish,
    pending_due,
    pending_push,
    pending_ready,
    record_stage,
    stage_publish,
)
from engine.step import step_continue, step_one

CALL_NS = 10_000_000  # bound of one compiled call: signals and heartbeats wait no longer
# Slots announced beyond the longest command, as a share of the ring: with that command's quarter,
# five eighths of the ring are always safe for readers.
INTENT_AHEAD_SHIFT = 3
BATCH_SHARE_SHIFT = 2  # and a batch ends when it filled this share
TOP_PERIOD_NS = 20_000  # under load a book top is rewritten at most this often
SHARD_OUT_WORD = 26  # EVENT_SLOT.receipt_shard_out
assert layout_offset(EVENT_SLOT, "receipt_shard_out") == SHARD_OUT_WORD * 8

RETURN_BUSY, RETURN_IDLE, RETURN_FATAL = 0, 1, 2
# A wall clock that moves more than this against CLOCK_MONOTONIC is counted and slewed.
JUMP_NS = 1_000_000_000
# A long work waits for readers that are a quarter of the ring behind, but not longer than this for
# each slice: a dead one costs milliseconds, not the exchange.
PATIENCE_NS = 10_000_000
SLEW_SHIFT = 10  # an offset is worked off at 1/1024 of real time


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
    about one symbol, `c` about an order in another that is not watched, and `c` cannot become a
    work itself: there is room for one. While legs are called everything waits.
    """
    kind = c["kind"]
    if s[ACTIVATIONS] != 0 or (kind == CommandKind.NEW and c["decision_code"] != 0):
        return True
    short = kind == CommandKind.CANCEL or kind == CommandKind.QUERY_ORDER or kind == CommandKind.NEW
    symbol = np.int64(s[WORK_SYMBOL])
    if symbol == 0 or not short or c["symbol_id"] == 0:
        return True
    if np.int64(c["symbol_id"]) == np.int64(symbols(s)[symbol]["symbol_id"]):
        return True
    other = np.int64(c["symbol_id"]) & SYMBOL_INDEX_MASK
    if other <= s[SYMBOLS_USED] and rules(s)[other]["watched"] != 0:
        return True  # something follows from any change of it
    return kind == CommandKind.NEW and may_trade(s, c)


@helper
def batch_clock(s, p):
    """in_ts of the batch: wall time, a jump over a second slewed instead of followed."""
    wall, steady = wall_ns(p.loop), steady_ns(p.loop)
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
    if dies(p):
        return False
    end = s[OUT_POSITION] + p.loop[EVENTS_PER_COMMAND]
    # Readers must see events before they are overwritten: a batch ends in time.
    if s[OUT_POSITION] - first > p.loop[EVENT_CAPACITY] >> BATCH_SHARE_SHIFT:
        return False
    if end - p.journal[J_COMMITTED] > p.loop[EVENT_CAPACITY]:
        return False  # what waits for the disk may not be overwritten
    if end > s[INTENT]:
        s[INTENT] = end + (p.loop[EVENT_CAPACITY] >> INTENT_AHEAD_SHIFT)
        event_intend(p.event_ctrl, p.loop[SHARD_INDEX] * EVENT_CTRL_WORDS, s[INTENT])
    return True


@helper
def reset_early(p, c):
    """Whether `c` resets a producer whose last commands were not run yet."""
    if c["kind"] != CommandKind.PRODUCER_RESET:
        return False
    producer = np.int64(c["client_order_id"])
    known = producer > 0 and producer < p.loop[PRODUCERS]
    return known and position_diff(np.int64(c["order_id"]), p.positions[producer]) > 0


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
            if s[WORK_KIND] | s[ACTIVATIONS] == 0 or not work_concerns(s, p.commands[slot]):
                if not reset_early(p, p.commands[slot]):
                    return slot
        p.loop[NEXT_RING] = producer + 1 if producer + 1 < producers else 0
    return np.int64(-1)


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
def events_show(p, position):
    """Commit the events below `position` and wake who waits for them."""
    p.journal[J_COMMITTED] = position
    base = p.loop[SHARD_INDEX] * EVENT_CTRL_WORDS
    event_commit(p.event_ctrl, base, position)
    wake_sleepers(p.event_ctrl, base + READER_SLEEPS, p.reader_fds)


@helper
def commits_due(p):
    """Mode `sync`: commit what has reached the disk."""
    position = pending_due(p.journal, p.staging_ctrl)
    if position != p.journal[J_COMMITTED] and not dies(p):
        events_show(p, position)


@helper
def batch_publish(s, p, first, oldest):
    """Stage the batch, make it visible (`sync`: later), give the command slots back."""
    if dies(p):
        return
    now = steady_ns(p.loop)
    receipts_stamp(s, p, first, now)
    if p.journal[J_MODE] != MODE_NONE:
        events_crc(s, p.journal, first)
        stage_publish(s, p.journal, p.staging_ctrl, p.journal_fds, now)
    if dies(p):
        return
    if p.journal[J_MODE] == MODE_SYNC:
        pending_push(s, p.journal)
    else:
        events_show(p, np.int64(s[OUT_POSITION]))
    if dies(p):
        return
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
            return steady_ns(p.loop) - p.loop[SLICE_NS] > PATIENCE_NS
    return True


@helper
def slice_run(s, p):
    """The next slice of the open work, a command of the loop's own."""
    step_continue(s)
    if p.journal[J_MODE] != MODE_NONE:
        own_command(p, CommandKind.CONTINUE, np.int64(0), np.int64(0), np.int64(0))
        record_stage(s, p.journal, p.staging_words, p.own_words, np.int64(0))
    p.loop[SLICE_NS] = steady_ns(p.loop)


@helper
def command_run(s, p, slot, wall):
    """Step and stage the command in a ring's slot; slot < 0: the loop's own."""
    commands, words, index = p.own, p.own_words, np.int64(0)
    s[RECEIPT_GATEWAY_IN] = 0
    if slot >= 0:
        commands, words, index = p.commands, p.command_words, slot
        producer = p.loop[NEXT_RING]
        commands[index]["producer"] = producer
        s[RECEIPT_GATEWAY_IN] = commands[index]["receipt_ts"]
        p.positions[producer] = position_add(p.positions[producer], 1)
        p.loop[COMMANDS] += 1
    c = commands[index]
    s[RECEIPT_PRODUCER_SEQ] = c["producer_seq"]
    activates = slot < 0 and c["kind"] == CommandKind.ACTIVATE  # at the time of its cause
    step_one(s, c, np.int64(s[IN_TS]) if activates else wall)
    if p.journal[J_MODE] != MODE_NONE:
        record_stage(s, p.journal, p.staging_words, words, index)


@helper
def batch_begin(s, p):
    """Whether a batch may run: somebody has work, and the gate is open."""
    if p.journal[J_MODE] == MODE_SYNC:
        commits_due(p)
    if p.journal[J_SHUT] != 0:
        return gate_pass(s, p)
    return not dead(p)


@helper
def batch_goes_on(s, p, first, count):
    """Whether another command may run in this batch."""
    if count >= p.loop[BATCH_MAX] or s[FATAL] != 0 or turns_stale(s, p):
        return False
    return room_for_command(s, p, first)


@helper
def batch_run(s, p):
    """Poll, step and publish up to batch_max commands; returns how many ran."""
    if not batch_begin(s, p):
        return np.int64(0)
    slot = ring_next(s, p)
    if slot < 0 and not work_turn(s, p) and not own_waits(s, p):
        return np.int64(0)
    if p.journal[J_MODE] != MODE_NONE and not gate_pass(s, p):
        return np.int64(0)
    first, count, oldest = np.int64(s[OUT_POSITION]), np.int64(0), np.int64(0)
    wall = batch_clock(s, p)
    slot = np.int64(-1) if turn_holds(s, p, wall) else slot
    store_relaxed(s, BATCH_VERSION, s[BATCH_VERSION] + 1)
    fence_seq_cst()
    while batch_goes_on(s, p, first, count):
        if (count & 1 == 0 or slot < 0) and work_turn(s, p):
            slice_run(s, p)  # every second turn while other rings have work
        else:
            if own_turn(s, p, wall):
                slot = np.int64(-1)
            elif slot < 0:
                break
            else:
                look_ahead(s, p, p.loop[NEXT_RING])
                oldest = np.int64(p.commands[slot]["receipt_ts"]) if oldest == 0 else oldest
            command_run(s, p, slot, wall)
        count += 1
        slot = np.int64(-1) if turn_holds(s, p, wall) else ring_next(s, p)
    ids_settle(s)
    store_release(s, BATCH_VERSION, s[BATCH_VERSION] + 1)
    if s[FATAL] == 0 and count > 0:
        batch_publish(s, p, first, oldest)
    return count


@kernel
def shard_run(s, p):
    """Serve the rings for at most CALL_NS. RETURN_IDLE: nothing came for so long that the process
    should sleep.
    """
    start = steady_ns(p.loop)
    while not dead(p):
        if batch_run(s, p) > 0:
            if s[FATAL] != 0:
                return RETURN_FATAL
            if p.loop[LAST_WORK_NS] - p.loop[TOPS_NS] > TOP_PERIOD_NS and not dead(p):
                tops_flush(s, p)
            if p.loop[LAST_WORK_NS] - start > CALL_NS or turns_stale(s, p):
                return RETURN_BUSY
            continue
        if dead(p):
            break
        if turns_stale(s, p):
            return RETURN_BUSY
        if s[DIRTY_COUNT] > 0:
            tops_flush(s, p)
            continue
        now = steady_ns(p.loop)
        idle = now - p.loop[LAST_WORK_NS]
        if idle > p.loop[YIELD_NS] and (s[WORK_KIND] == WORK_NONE or p.journal[J_SHUT] != 0):
            if p.journal[J_MODE] != MODE_NONE:
                mark_publish(s, p.journal, p.staging_ctrl, now)
            return RETURN_IDLE
        if now - start > CALL_NS or load_acquire(p.loop, STOP) != 0:
            return RETURN_BUSY
        if idle < p.loop[SPIN_NS]:
            cpu_pause()
        else:
            sched_yield()
    return RETURN_BUSY


@kernel
def work_waits(s, p):
    """Whether the shard has something to do: the recheck of the sleep handshake."""
    if pending_ready(p.journal, p.staging_ctrl):
        return True
    if p.journal[J_SHUT] != 0 and gate_shut(s, p.journal, p.staging_ctrl, steady_ns(p.loop)):
        return False
    for producer in range(p.loop[PRODUCERS]):
        ring = p.loop[SHARD_INDEX] * p.loop[PRODUCERS] + producer
        slot = command_slot(ring, p.positions[producer], p.loop[RING_CAPACITY])
        if command_ready(p.command_words, slot, p.positions[producer]):
            return True
    return s[WORK_KIND] != WORK_NONE or own_waits(s, p)


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
        *journal_ports_none(),
    )


def _warm() -> None:
    state = allocate_state(small_limits())
    ports = shard_ports_private(state)
    ports.commands[0] = np.zeros(1, COMMAND)[0]
    ports.command_words[0] = 1
    shard_run(state.table, ports)
    work_waits(state.table, ports)


register_warmup("engine.shard_loop", _warm)
