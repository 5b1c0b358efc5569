"""Reports of events that come from the event log: the live encoder's own code, fed by hand.

Warm: runs while a session catches up on what it missed, or a shard has lapped this gateway. Both
kernels take EVENT_SLOTs that Python has laid into the encoder's scratch array, receipts zero, and
make the bytes that gateway/codec_encode.py makes of the same events in the ring.

    logged_encode     as for the ring: all sessions of the account, SPECIAL, UNKNOWN, the cursor
    session_encode    for the one session that missed them: no routing, no cursor
"""

import numpy as np

from engine.jit import helper, kernel, register_warmup
from engine.records import EVENT_SLOT
from gateway.codec_encode import UNKNOWN, copied_encode, event_status, reports_gather, tables_clear
from gateway.codec_report import put_report
from gateway.state import (
    H_EVENT_SHARD,
    H_HALF,
    H_SCRATCH_INDEX,
    H_SHARD_BASE,
    H_TOTAL_REPORTS,
    OUTPUT_SLACK_BYTES,
    S_CURSOR,
    SHARD_WORDS,
)


@kernel
def logged_encode(words, copies, count, shard, out):
    """Reports of the first `count` of `copies`, the next events of a shard; status as
    events_encode. O(events).
    """
    tables_clear(words)
    p, status = copied_encode(words, copies, count, shard, out, np.int64(0))
    reports_gather(words, out, p)
    return status


@helper
def session_piece(words, copies, count, shard, out):
    """(events done, place after their reports)."""
    p = np.int64(0)
    for k in range(count):
        words[H_SCRATCH_INDEX] = k
        if p > words[H_HALF] - OUTPUT_SLACK_BYTES:
            return np.int64(k), p
        if event_status(words, copies[k], shard) == UNKNOWN:
            return np.int64(k), p
        p = put_report(words, out, p, copies[k], shard)
        words[H_TOTAL_REPORTS] += 1
    return np.int64(count), p


@kernel
def session_encode(words, copies, count, shard, out):
    """Write the reports of the first `count` of `copies` side by side; returns (events done,
    bytes). Fewer are done before an event of an unknown instrument and when `out` is full.
    O(events).
    """
    tables_clear(words)
    words[H_EVENT_SHARD] = shard
    return session_piece(words, copies, count, shard, out)


def _warm_up() -> None:
    words, copies = np.zeros(256, np.int64), np.zeros(2, EVENT_SLOT)
    words[H_SHARD_BASE] = 128
    assert S_CURSOR < SHARD_WORDS
    out = np.zeros(64, np.uint8)
    logged_encode(words, copies, 0, 0, out)
    session_encode(words, copies, 0, 0, out)


register_warmup("gateway.codec_log", _warm_up)
