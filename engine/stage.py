"""What the shard's loop does between step and commit: stage the record, chain its CRC, mind the
gate, commit what may be seen (DESIGN §6).

Hot. A record is staged whole before its events are committed, so an acknowledged command is always
in the staging ring, in the files, or in both:

    step -> copy the record into its slot, CRC -> ... end of the batch ...
         -> STAGED (release) -> os, batch: commit      sync: note (in_seq, position), commit when
                                                        DURABLE has passed it

The gate closes when the disk falls behind: less than a batch of slots left, in `batch` the oldest
record that is not on disk older than the loss window allows, or no room on the disk. Closed, the
shard takes nothing, no ring, TIME or CONTINUE; producers see their gate words and answer BUSY.
When it opens, a journaled TIME moves the deadlines by the length of the pause.
"""

import numpy as np

from engine.atomics import (
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from engine.book_state import (
    EVENT_MASK,
    FEED_EPOCH,
    IN_SEQ,
    IN_TS,
    OUT_POSITION,
    TRADING_DATE,
    event_words,
)
from engine.command_ring import CTRL_WORDS, GATE
from engine.crc32c import crc_word
from engine.jit import helper
from engine.loop_words import (
    J_CAPACITY,
    J_CHAIN,
    J_COMMITTED,
    J_CRC,
    J_DURABLE,
    J_EPOCH,
    J_FIRST,
    J_MARK_FIRST,
    J_MARK_NEXT,
    J_MARKED_NS,
    J_MARKS,
    J_MODE,
    J_NEXT,
    J_PAUSE,
    J_PENDING,
    J_RESERVE,
    J_SHARD,
    J_SHUT,
    J_WINDOW_NS,
    MARK_ROWS,
    MODE_BATCH,
    MODE_OS,
    PENDING_ROWS,
    PRODUCERS,
    steady_ns,
)
from engine.records import (
    COMMAND,
    COMMAND_WORDS,
    EVENT,
    EVENT_SLOT_WORDS,
    RULES_VERSION,
    layout_offset,
)
from engine.ring_words import wake_sleepers
from engine.staging import (
    DURABLE,
    FEED_DATE,
    GATE_CLOSED,
    JOURNAL_SLEEPS,
    M_CRC,
    M_IN_SEQ,
    M_OUT_SEQ,
    M_VERSION,
    STAGED,
    STAGING_CTRL_WORDS,
    STORAGE,
    STORAGE_GOOD,
    WRITTEN,
)
from engine.staging import FEED_EPOCH as STAGED_FEED_EPOCH

MARK_PERIOD_NS = 10_000_000
EVENT_LINES, LINE_WORDS = 3, 8
assert EVENT.itemsize == EVENT_LINES * LINE_WORDS * 8

# Words of a COMMAND that the shard fills.
IN_SEQ_W, TAG_W, IN_TS_W, AMOUNT_W, CRC_W, LAG_W = 14, 15, 16, 17, 18, 19
for _name, _offset in (
    ("in_seq", IN_SEQ_W * 8),
    ("tag", TAG_W * 8),
    ("layout_version", TAG_W * 8 + 6),
    ("in_ts", IN_TS_W * 8),
    ("decision_amount", AMOUNT_W * 8),
    ("crc", CRC_W * 8),
    ("epoch", CRC_W * 8 + 4),
    ("durable_lag", LAG_W * 8),
):
    assert layout_offset(COMMAND, _name) == _offset, _name
LOW48, LAG_MAX = (1 << 48) - 1, 0x7FFFFFFF


@helper
def ctrl_at(j, word):
    """Index of a control word of this shard's staging ring."""
    return j[J_SHARD] * STAGING_CTRL_WORDS + word


@helper
def record_stage(s, j, staging_words, command_words, index):
    """Copy the command that was just stepped into its staging slot and chain its CRC."""
    in_seq = np.int64(s[IN_SEQ])
    source = index * COMMAND_WORDS
    slot = j[J_SHARD] * j[J_CAPACITY] + ((in_seq - 1) & (j[J_CAPACITY] - 1))
    base = slot * COMMAND_WORDS
    lag = min(in_seq - j[J_DURABLE], np.int64(LAG_MAX))
    crc = np.uint64(j[J_CHAIN])
    for word in range(COMMAND_WORDS):
        value = np.int64(command_words[np.uint64(source + word)])
        if word == IN_SEQ_W:
            value = in_seq
        elif word == TAG_W:
            value = (value & LOW48) | (np.int64(RULES_VERSION) << 48)  # tag, decision_code
        elif word == IN_TS_W:
            value = np.int64(s[IN_TS])
        elif word == AMOUNT_W:
            value = np.int64(0)
        elif word == CRC_W:
            value = j[J_EPOCH] << 32
        elif word == LAG_W:
            value = ((value >> 32) << 32) | lag
        crc = crc_word(crc, np.uint64(value))
        staging_words[np.uint64(base + word)] = value
    staging_words[np.uint64(base + CRC_W)] = np.int64(crc) | (j[J_EPOCH] << 32)
    j[J_CHAIN] = np.int64(crc)


@helper
def events_crc(s, j, first):
    """Carry the running CRC of all EVENT bytes over the events from position `first` on."""
    words, mask = event_words(s), np.int64(s[EVENT_MASK])
    for position in range(first, np.int64(s[OUT_POSITION])):
        base = (position & mask) * EVENT_SLOT_WORDS
        # Three chains side by side: one alone would wait three cycles for every word.
        one, two, three = np.uint64(j[J_CRC]), np.uint64(j[J_CRC + 1]), np.uint64(j[J_CRC + 2])
        for word in range(LINE_WORDS):
            one = crc_word(one, np.uint64(words[np.uint64(base + word)]))
            two = crc_word(two, np.uint64(words[np.uint64(base + LINE_WORDS + word)]))
            three = crc_word(three, np.uint64(words[np.uint64(base + 2 * LINE_WORDS + word)]))
        j[J_CRC], j[J_CRC + 1], j[J_CRC + 2] = np.int64(one), np.int64(two), np.int64(three)


@helper
def stage_publish(s, j, ctrl, fds, now):
    """Hand the batch's records to the journal process and remember when."""
    store_release(ctrl, ctrl_at(j, STAGED), np.int64(s[IN_SEQ]))
    wake_sleepers(ctrl, ctrl_at(j, JOURNAL_SLEEPS), fds)
    if now - j[J_MARKED_NS] > MARK_PERIOD_NS:
        mark_publish(s, j, ctrl, now)


@helper
def mark_publish(s, j, ctrl, now):
    """Say what the running CRC is as of now, for whoever replays to here."""
    at = ctrl_at(j, M_VERSION)
    version = load_relaxed(ctrl, at)
    store_relaxed(ctrl, at, version + 1)
    fence_release()
    store_relaxed(ctrl, at + M_IN_SEQ - M_VERSION, np.int64(s[IN_SEQ]))
    store_relaxed(ctrl, at + M_OUT_SEQ - M_VERSION, np.int64(s[OUT_POSITION]))
    store_relaxed(ctrl, ctrl_at(j, FEED_DATE), np.int64(s[TRADING_DATE]))
    store_relaxed(ctrl, ctrl_at(j, STAGED_FEED_EPOCH), np.int64(s[FEED_EPOCH]))
    for line in range(EVENT_LINES):
        store_relaxed(ctrl, at + M_CRC - M_VERSION + line, j[J_CRC + line])
    store_release(ctrl, at, version + 2)
    j[J_MARKED_NS] = now


@helper
def pending_push(s, j):
    """The batch's events may be seen when its records are on disk."""
    row = J_PENDING + 2 * (j[J_NEXT] & (PENDING_ROWS - 1))
    j[row], j[row + 1] = np.int64(s[IN_SEQ]), np.int64(s[OUT_POSITION])
    j[J_NEXT] += 1


@helper
def pending_due(j, ctrl):
    """Position up to which events may be committed now."""
    position = j[J_COMMITTED]
    if j[J_FIRST] == j[J_NEXT]:
        return position
    durable = load_acquire(ctrl, ctrl_at(j, DURABLE))
    while j[J_FIRST] < j[J_NEXT]:
        row = J_PENDING + 2 * (j[J_FIRST] & (PENDING_ROWS - 1))
        if j[row] > durable:
            break
        position = j[row + 1]
        j[J_FIRST] += 1
    return position


@helper
def pending_ready(j, ctrl):
    """Whether the oldest pending commit has reached the disk."""
    if j[J_FIRST] == j[J_NEXT]:
        return False
    row = J_PENDING + 2 * (j[J_FIRST] & (PENDING_ROWS - 1))
    return j[row] <= load_acquire(ctrl, ctrl_at(j, DURABLE))


@helper
def window_over(s, j, now):
    """Whether the oldest record that is not on disk is older than the loss window allows."""
    while j[J_MARK_FIRST] < j[J_MARK_NEXT]:
        following = J_MARKS + 2 * ((j[J_MARK_FIRST] + 1) & (MARK_ROWS - 1))
        last = j[J_MARK_FIRST] + 1 == j[J_MARK_NEXT]
        until = np.int64(s[IN_SEQ]) if last else j[following]
        if until > j[J_DURABLE]:
            break
        j[J_MARK_FIRST] += 1
    if j[J_MARK_FIRST] == j[J_MARK_NEXT]:
        return False
    return now - j[J_MARKS + 2 * (j[J_MARK_FIRST] & (MARK_ROWS - 1)) + 1] >= j[J_WINDOW_NS]


@helper
def window_note(s, j, now):
    """Before a batch: what it stages was staged after `now`."""
    newest = J_MARKS + 2 * ((j[J_MARK_NEXT] - 1) & (MARK_ROWS - 1)) + 1
    empty = j[J_MARK_FIRST] == j[J_MARK_NEXT]
    if empty or now - j[newest] >= j[J_WINDOW_NS] // (MARK_ROWS - 2):
        row = J_MARKS + 2 * (j[J_MARK_NEXT] & (MARK_ROWS - 1))
        j[row], j[row + 1] = np.int64(s[IN_SEQ]), now
        j[J_MARK_NEXT] += 1


@helper
def gate_shut(s, j, ctrl, now):
    """Whether nothing may be taken now."""
    j[J_DURABLE] = load_acquire(ctrl, ctrl_at(j, DURABLE))
    freed = j[J_DURABLE]
    if j[J_MODE] == MODE_OS:
        freed = load_acquire(ctrl, ctrl_at(j, WRITTEN))
    if np.int64(s[IN_SEQ]) - freed > j[J_CAPACITY] - j[J_RESERVE]:
        return True
    if j[J_NEXT] - j[J_FIRST] >= PENDING_ROWS - 1:
        return True
    if load_relaxed(ctrl, ctrl_at(j, STORAGE)) != STORAGE_GOOD:
        return True
    return j[J_MODE] == MODE_BATCH and window_over(s, j, now)


@helper
def gate_words(j, ctrl, command_ctrl, producers, value):
    """Tell all producers of this shard."""
    store_release(ctrl, ctrl_at(j, GATE_CLOSED), value)
    for producer in range(producers):
        ring = j[J_SHARD] * producers + producer
        store_release(command_ctrl, ring * CTRL_WORDS + GATE, value)


@helper
def gate_pass(s, p):
    """Test the gate before a batch; opens or closes it for the producers. False: take nothing."""
    j = p.journal
    now = steady_ns(p.loop)
    if gate_shut(s, j, p.staging_ctrl, now):
        if j[J_SHUT] == 0:
            j[J_SHUT] = now
            gate_words(j, p.staging_ctrl, p.command_ctrl, p.loop[PRODUCERS], np.int64(1))
        return False
    if j[J_SHUT] != 0:
        j[J_PAUSE] += now - j[J_SHUT]
        j[J_SHUT] = 0
        gate_words(j, p.staging_ctrl, p.command_ctrl, p.loop[PRODUCERS], np.int64(0))
    if j[J_MODE] == MODE_BATCH:
        window_note(s, j, now)
    return True
