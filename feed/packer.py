"""Packing: a run of events becomes datagrams, in one compiled call.

Hot. `pack_events` goes once over the events of a poll, converts the public ones (feed/itch.py) and
lays MoldUDP64 packets end to end in one buffer. The sequence number of a message is its event's
feed_seq, so the packer invents nothing: state is the number expected next, the session name, and
counters. An event that should be public and cannot be said (its instrument is not known, which only
a lap can cause) is left out: its number is a gap, never a message with a wrong price.

A SESSION event "O" begins a new feed session, under another name and from number 1: the packer
stops before it (P_TAKEN) and goes on (P_FROM) when Python has changed the name (P_BEGUN).
"""

import numpy as np

from engine.jit import helper, kernel, register_warmup
from engine.records import EVENT_SLOT, EventKind
from feed.itch import (
    INSTRUMENT,
    LENGTH_BY_TYPE,
    LOCATES,
    MESSAGE_BYTES_MAX,
    instrument_learn,
    instrument_set,
    itch_type,
    message_write,
    needs_instrument,
    put_u16,
)
from feed.moldudp64 import COUNT_AT, MOLD_HEADER_BYTES, header_write

# Words of a channel's packing state.
P_NEXT, P_SESSION_HIGH, P_SESSION_LOW, P_DATAGRAM_MAX = range(4)
P_MESSAGES, P_LISTED, P_GAPS, P_UNKNOWN, P_INCONSISTENT = range(4, 9)
P_FROM, P_TAKEN, P_BEGUN = range(9, 12)  # places in the run of events
PACK_WORDS = 16
CODE_OPEN = ord("O")
# When every event needs a datagram of its own.
DATAGRAM_BYTES_EACH = MOLD_HEADER_BYTES + 2 + MESSAGE_BYTES_MAX


@helper
def _datagram_close(out, start, messages):
    put_u16(out, start + COUNT_AT, messages)


@helper
def _sequence_begin(state, out, start, sequence):
    # Header of a new datagram; a jump of the numbers is what a lap leaves behind.
    header_write(out, start, state[P_SESSION_HIGH], state[P_SESSION_LOW], sequence)
    if sequence > state[P_NEXT]:
        state[P_GAPS] += 1


@helper
def _message_of(state, table, event):
    # Type of the message to send for an event, 0 for none; learns instruments, counts what cannot
    # be said.
    if np.int64(event["kind"]) == EventKind.LISTED:
        instrument_learn(table, event)
        state[P_LISTED] += 1
    letter, public = itch_type(event), np.int64(event["feed_seq"]) > 0
    if (letter != 0) != public:
        state[P_INCONSISTENT] += 1
        return 0
    if (
        needs_instrument(letter)
        and table[np.int64(event["symbol_id"]) & (LOCATES - 1)]["stock"] == 0
    ):
        state[P_UNKNOWN] += 1
        return 0
    return letter


@helper
def opens_session(event):
    """Whether the event begins a new feed session."""
    return np.int64(event["kind"]) == EventKind.SESSION and np.int64(event["code"]) == CODE_OPEN


@kernel
def pack_events(slots, state, table, out, ends):
    """Turn slots[P_FROM:] into datagrams laid end to end in `out`; returns how many, ends[k] is
    where number k ends, P_TAKEN the first event that was not looked at.

    Numbers in one datagram follow each other, so a jump begins a new one. `out` must hold
    DATAGRAM_BYTES_EACH per event.
    """
    datagrams = start = at = messages = 0
    state[P_TAKEN] = slots.size
    for index in range(state[P_FROM], slots.size):
        event = slots[index]
        if opens_session(event) and index != state[P_BEGUN]:
            state[P_TAKEN] = index
            break
        letter = _message_of(state, table, event)
        if letter == 0:
            continue
        sequence = np.int64(event["feed_seq"])
        full = at + 2 + LENGTH_BY_TYPE[letter] - start > state[P_DATAGRAM_MAX]
        if messages > 0 and (full or sequence != state[P_NEXT]):
            _datagram_close(out, start, messages)
            ends[datagrams] = at
            datagrams += 1
            start, messages = at, 0
        if messages == 0:
            _sequence_begin(state, out, start, sequence)
            at = start + MOLD_HEADER_BYTES
        row = table[np.int64(event["symbol_id"]) & (LOCATES - 1)]
        length = message_write(out, at + 2, letter, event, row)
        put_u16(out, at, length)
        at += 2 + length
        messages += 1
        state[P_MESSAGES] += 1
        state[P_NEXT] = sequence + 1
    if messages > 0:
        _datagram_close(out, start, messages)
        ends[datagrams] = at
        datagrams += 1
    return datagrams


@kernel
def instrument_fill(table, locate, stock, tick, lot, px_max):
    """Set one row of the INSTRUMENT table; `stock` is a packed name, which is below 2**63 because
    it is ASCII.
    """
    row = table[locate]
    row["stock"] = stock
    instrument_set(row, tick, lot, px_max)


def _warm_up() -> None:
    state, table = np.zeros(PACK_WORDS, np.int64), np.zeros(LOCATES, INSTRUMENT)
    instrument_fill(table, 1, 0, 1, 1, 1)
    out, ends = np.zeros(DATAGRAM_BYTES_EACH, np.uint8), np.zeros(1, np.int64)
    pack_events(np.zeros(1, EVENT_SLOT), state, table, out, ends)


register_warmup("feed.packer", _warm_up)
