"""From events to JSON: one compiled call turns all new events into reports, grouped by destination.

Hot. For every event of an account with live sessions here, one report is written; every live
session of the account gets it (account_seq is per account and shard, so a session that missed one
would see a gap). Reports of one session end up side by side, in the order of the events: one write
per session and call.

    out[0 .. half)        reports in the order of events
    out[half .. 2 half)   the same, gathered per session; unused when only one session got anything
    words, table of writes (H_WRITES rows): session row, first byte, end byte

Events are copied out of the ring in batches and used only after the lap test (engine/shm_ring.py).
The call stops early (SPECIAL) after an event that concerns the gateway itself: ACCOUNT (a session
opened or closed), LISTED, a reject without session; before one of an instrument the directory does
not have (UNKNOWN); after a lap (LAPPED); or when the buffer is full (MORE). Python looks, and calls
again. A lapped shard that has an event log is passed over until Python has read what was lost
(gateway/codec_log.py, gateway/desk_log.py); without one the call goes on at the newest event.

Receipts: a session that asked for them gets `receipt` in front of reports its own command caused.
It stands first so that a copy without it is a suffix: a session that did not ask gets the report
from its comma on, which becomes the brace.
"""

import numpy as np

from engine.atomics import CLOCK_MONOTONIC, clock_ns, cpu_pause, store_release
from engine.counters import HISTOGRAM_WORDS, histogram_record
from engine.jit import helper, kernel, register_warmup
from engine.records import (
    EVENT_SLOT,
)
from engine.shm_ring import (
    EVENT_CTRL_WORDS,
    READER_POSITION,
    events_available,
    events_copy,
    position_add,
    position_diff,
)  # fmt: skip
from gateway.codec_report import (
    FLAG_LAST,
    KIND_FILL,
    KIND_LISTED,
    KIND_REJECTED,
    REASON_MMP,
    ROLE_MAKER,
    SPECIAL_KINDS,
    put_receipt,
    put_report,
    symbol_of,
)
from gateway.codec_tables import at
from gateway.state import (
    GATHER_SLACK_BYTES,
    H_ACCOUNT_BASE,
    H_ACCOUNTS,
    H_EVENT_CAPACITY,
    H_EVENT_SHARD,
    H_GATEWAY_OUT,
    H_GATHERED,
    H_HALF,
    H_HISTOGRAM_BASE,
    H_LINK_BASE,
    H_LINK_COUNT,
    H_LINKS,
    H_READER,
    H_ROW_BASE,
    H_ROW_WORDS,
    H_SCRATCH_INDEX,
    H_SHARD_BASE,
    H_SHARDS,
    H_SPIN_NS,
    H_STAMP_AT,
    H_TOTAL_LAPS,
    H_TOTAL_LOST,
    H_TOTAL_REPORTS,
    H_TOUCHED,
    H_WRITE_BASE,
    H_WRITES,
    L_BYTES,
    L_NEXT,
    L_START,
    LINK_WORDS,
    OUTPUT_SLACK_BYTES,
    R_CHAIN_HEAD,
    R_CHAIN_TAIL,
    R_FLAGS,
    R_NEXT,
    R_SHARDS,
    R_TOUCH_NEXT,
    ROW_RECEIPTS,
    S_CURSOR,
    S_LAPPED,
    S_LOG,
    SHARD_WORDS,
    WRITE_WORDS,
    Y_NAME,
)  # fmt: skip

IDLE, SPECIAL, UNKNOWN, LAPPED, MORE = 0, 1, 2, 3, 4  # results


# ------------------------------------------------------------------------------- who gets it
@helper
def wants_receipt(words, row, event, slot):
    """Whether this session's own command caused the event and it asked for receipts."""
    return (
        (words[row + R_FLAGS] & ROW_RECEIPTS) != 0
        and slot == event["session"]
        and not (event["kind"] == KIND_FILL and event["role"] == ROLE_MAKER)
        and event["receipt_gateway_in"] > 0
    )


@helper
def link_report(words, row, start, size):
    """Append a report to what a session row gets."""
    link = words[H_LINK_BASE] + words[H_LINK_COUNT] * LINK_WORDS
    words[H_LINK_COUNT] += 1
    words[H_GATHERED] += size
    words[link + L_START] = start
    words[link + L_BYTES] = size
    words[link + L_NEXT] = 0
    if words[row + R_CHAIN_HEAD] == 0:
        words[row + R_CHAIN_HEAD] = link
        words[row + R_TOUCH_NEXT] = words[H_TOUCHED]
        words[H_TOUCHED] = row
    else:
        words[words[row + R_CHAIN_TAIL] + L_NEXT] = link
    words[row + R_CHAIN_TAIL] = link


@helper
def event_route(words, event, shard, out, p):
    """Write the event's report and hand it to the account's sessions on this shard; returns the
    place after it.
    """
    account = np.int64(event["account"])
    if account <= 0 or account >= words[H_ACCOUNTS]:
        return p
    first = words[words[H_ACCOUNT_BASE] + account]
    receipt, readers = False, 0
    row = first
    while row != 0:
        slot = words[row + R_SHARDS + 2 * shard]
        readers += slot != 0
        receipt = receipt or (slot != 0 and wants_receipt(words, row, event, slot))
        row = words[row + R_NEXT]
    if readers == 0:
        return p
    start = p
    if receipt:
        p = put_receipt(words, out, p, event)
    plain = p
    p = put_report(words, out, p, event, shard)
    if receipt:
        out[at(plain)] = 44
    row = first
    while row != 0:
        slot = words[row + R_SHARDS + 2 * shard]
        if slot != 0:
            begin = start if receipt and wants_receipt(words, row, event, slot) else plain
            link_report(words, row, begin, p - begin)
        row = words[row + R_NEXT]
    words[H_TOTAL_REPORTS] += 1
    if np.int64(event["flags"]) & FLAG_LAST and event["receipt_gateway_in"] > 0:
        taken = words[H_GATEWAY_OUT] - np.int64(event["receipt_gateway_in"])
        histogram_record(words, words[H_HISTOGRAM_BASE], taken)
    return p


@helper
def write_note(words, row, first, end):
    """One row of the table of writes."""
    place = words[H_WRITE_BASE] + words[H_WRITES] * WRITE_WORDS
    words[place] = (row - words[H_ROW_BASE]) // words[H_ROW_WORDS]
    words[place + 1] = first
    words[place + 2] = end
    words[H_WRITES] += 1


@helper
def reports_gather(words, out, p):
    """Lay each session's reports side by side and list the writes. `p` bytes of reports lie at the
    start of `out`.
    """
    row = words[H_TOUCHED]
    total = words[H_HALF]
    while row != 0:
        link = words[row + R_CHAIN_HEAD]
        first = total
        alone = words[H_TOUCHED] == row and words[row + R_TOUCH_NEXT] == 0
        if alone and words[link + L_START] == 0:
            # One session got all reports, none shortened: they lie side by side already.
            end = (
                words[words[row + R_CHAIN_TAIL] + L_START]
                + words[words[row + R_CHAIN_TAIL] + L_BYTES]
            )
            alone = end == p and reports_whole(words, link)
        if alone:
            write_note(words, row, np.int64(0), p)
        else:
            while link != 0:
                source = words[link + L_START]
                for i in range(words[link + L_BYTES]):
                    out[at(total + i)] = out[at(source + i)]
                out[at(total)] = 123
                total += words[link + L_BYTES]
                link = words[link + L_NEXT]
            write_note(words, row, first, total)
        words[row + R_CHAIN_HEAD] = 0
        row = words[row + R_TOUCH_NEXT]
    words[H_TOUCHED] = 0


@helper
def reports_whole(words, link):
    """Whether the links follow one another without a gap."""
    while words[link + L_NEXT] != 0:
        following = words[link + L_NEXT]
        if words[link + L_START] + words[link + L_BYTES] != words[following + L_START]:
            return False
        link = following
    return True


# ------------------------------------------------------------------------------- the call
@helper
def events_wait(words, ctrl):
    """Wait up to H_SPIN_NS for an event of any shard."""
    start = clock_ns(CLOCK_MONOTONIC)
    while True:
        for shard in range(words[H_SHARDS]):
            cursor = words[words[H_SHARD_BASE] + shard * SHARD_WORDS + S_CURSOR]
            if events_available(ctrl, shard * EVENT_CTRL_WORDS) != cursor:
                return
        waited = clock_ns(CLOCK_MONOTONIC) - start
        if waited >= words[H_SPIN_NS]:
            return
        cpu_pause()


@helper
def lap_note(words, ctrl, shard):
    """The ring came round: leave the shard to the log, or go on at the newest event and count what
    is lost.
    """
    row = words[H_SHARD_BASE] + shard * SHARD_WORDS
    words[H_TOTAL_LAPS] += 1
    words[H_EVENT_SHARD] = shard
    if words[row + S_LOG] != 0:
        words[row + S_LAPPED] = 1
        return
    newest = events_available(ctrl, shard * EVENT_CTRL_WORDS)
    words[H_TOTAL_LOST] += position_diff(newest, words[row + S_CURSOR])
    words[row + S_CURSOR] = newest


@helper
def event_status(words, event, shard):
    """SPECIAL for an event Python has to see, UNKNOWN before one of an unknown instrument, else
    IDLE.
    """
    kind = np.int64(event["kind"])
    special = (SPECIAL_KINDS >> kind) & 1 != 0 and event["reason"] != REASON_MMP
    if special or (kind == KIND_REJECTED and event["session"] == 0):
        return np.int64(SPECIAL)
    row = symbol_of(words, event, shard)
    if row > 0 and words[row + Y_NAME] == 0:
        return np.int64(UNKNOWN)
    return np.int64(IDLE)


@helper
def encode_full(words, p):
    """Whether the next event might not fit."""
    half = words[H_HALF]
    return (
        p > half - OUTPUT_SLACK_BYTES
        or words[H_GATHERED] > half - GATHER_SLACK_BYTES
        or words[H_LINK_COUNT] >= words[H_LINKS]
    )


@helper
def copied_encode(words, copies, count, shard, out, p):
    """Reports of `count` copied events; returns (place, status). The cursor moves with each event
    done.
    """
    place = words[H_SHARD_BASE] + shard * SHARD_WORDS + S_CURSOR
    words[H_EVENT_SHARD] = shard
    for k in range(count):
        words[H_SCRATCH_INDEX] = k
        status = event_status(words, copies[k], shard)
        if encode_full(words, p):
            status = np.int64(MORE)
        if status == UNKNOWN or status == MORE:
            return p, status
        if copies[k]["kind"] != KIND_LISTED:
            p = event_route(words, copies[k], shard, out, p)
        words[place] = position_add(words[place], 1)
        if status == SPECIAL:
            return p, status
    return p, np.int64(IDLE)


@helper
def tables_clear(words):
    """No reports yet; note when they are made."""
    words[H_LINK_COUNT] = 0
    words[H_GATHERED] = 0
    words[H_TOUCHED] = 0
    words[H_WRITES] = 0
    words[H_STAMP_AT] = 0
    words[H_GATEWAY_OUT] = clock_ns(CLOCK_MONOTONIC)


@kernel
def events_encode(words, slot_words, ctrl, copies, copy_words, out):
    """Reports of all new events; returns the status that ended it. `copies` and `copy_words` are
    one scratch array. O(events).
    """
    if words[H_SPIN_NS] > 0:
        events_wait(words, ctrl)
    tables_clear(words)
    status = np.int64(IDLE)
    p = np.int64(0)
    for shard in range(words[H_SHARDS]):
        row = words[H_SHARD_BASE] + shard * SHARD_WORDS
        place = row + S_CURSOR
        count = np.int64(copies.size if words[row + S_LAPPED] == 0 else 0)
        while status == IDLE and count == copies.size:
            count, lapped = events_copy(
                ctrl, slot_words, shard, words[H_EVENT_CAPACITY], words[place], copy_words
            )
            if lapped:
                lap_note(words, ctrl, shard)
                status = np.int64(LAPPED)
            elif count > 0:
                p, status = copied_encode(words, copies, count, shard, out, p)
                reader = shard * EVENT_CTRL_WORDS + READER_POSITION + 8 * words[H_READER]
                store_release(ctrl, reader, words[place])
        if status != IDLE:
            break
    reports_gather(words, out, p)
    return status


def _warm_up() -> None:
    words = np.zeros(256 + HISTOGRAM_WORDS, np.int64)
    words[H_HISTOGRAM_BASE] = 256
    words[H_SHARDS] = 1
    words[H_EVENT_CAPACITY] = 2
    words[H_SHARD_BASE] = 128
    slots, copies = np.zeros(2, EVENT_SLOT), np.zeros(2, EVENT_SLOT)
    ctrl = np.zeros(EVENT_CTRL_WORDS, np.int64)
    events_encode(
        words, slots.view(np.int64), ctrl, copies, copies.view(np.int64), np.zeros(64, np.uint8)
    )


register_warmup("gateway.codec_encode", _warm_up)
