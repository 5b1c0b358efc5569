"""MoldUDP64: how ITCH messages travel in datagrams, and the receiving half without any socket.

    0        10               18          20
    session  sequence u64 BE  count u16   count x (length u16, message)

`sequence` is the number of the first message (for us: feed_seq), the others follow by counting.
Count 0 is a heartbeat and count 0xFFFF the end of the session; both carry the next number to come,
so a listener sees a gap within one heartbeat.

Session: ten characters, YYMMDD + shard (base 36) + epoch (3 x base 36). Numbers begin at 1 in each
session. Within one shard a later (date, epoch) is a later session: that alone may replace the
current one; an earlier one is stale, anything else is foreign and dropped, so a stray sender cannot
reset a listener.

`MoldReceiver` is sans-I/O: datagrams in, table of messages out, in order and each number once.
Everything else is counted and never raised: gaps (and how many numbers), duplicates, stale,
foreign, malformed (a datagram whose blocks do not fill it exactly is dropped whole). Numbers jumped
over are not waited for; the recovery of step 5 will do that. Hot: one compiled call per batch of
datagrams.
"""

import struct
import time
from typing import Any

import numpy as np

from engine.jit import helper, kernel, register_warmup
from feed.itch import put_u16, put_u64, read_u16, read_u64

SESSION_BYTES = 10
SEQUENCE_AT, COUNT_AT, MOLD_HEADER_BYTES = 10, 18, 20
END_OF_SESSION = 0xFFFF
MESSAGES_PER_DATAGRAM_MAX = 0xFFFE
MOLD_HEADER = struct.Struct("!10sQH")
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHARDS_MAX = len(DIGITS)
EPOCHS = len(DIGITS) ** 3
SEQUENCE_MAX = 2**62  # a number above it is not ours: malformed
JUMP_MAX = 2**32  # nor is one this far ahead: it would turn all that follows into duplicates
BLOCK_COLUMNS = 3  # of the message table: sequence, offset, length
BLOCK_SEQ, BLOCK_OFFSET, BLOCK_LENGTH = 0, 1, 2

assert MOLD_HEADER.size == MOLD_HEADER_BYTES

# Words of a receiver's state; the counters are named for `stats`.
R_SESSION_HIGH, R_SESSION_LOW, R_NEXT, R_SESSIONS, R_JOINED, R_ENDED = range(6)
R_DATAGRAMS, R_HEARTBEATS, R_MESSAGES, R_GAPS, R_MISSING = range(6, 11)
R_DUPLICATES, R_STALE, R_FOREIGN, R_MALFORMED = range(11, 15)
RECEIVER_WORDS = 16
RECEIVER_COUNTERS = {
    "datagrams": R_DATAGRAMS,
    "heartbeats": R_HEARTBEATS,
    "messages": R_MESSAGES,
    "gaps": R_GAPS,
    "missing": R_MISSING,
    "duplicates": R_DUPLICATES,
    "stale": R_STALE,
    "foreign": R_FOREIGN,
    "malformed": R_MALFORMED,
    "sessions": R_SESSIONS,
}

_Array = np.ndarray[Any, Any]


def _base36(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text


def session_of_date(date: int, shard: int, epoch: int) -> bytes:
    """Name the feed session of a shard; `date` is yyyymmdd, as SESSION events have it. Raises
    ValueError when the shard has no digit.
    """
    if not 0 <= shard < SHARDS_MAX:
        raise ValueError(f"shard {shard} does not fit the one character a session name has for it")
    return f"{date % 10**6:06d}{_base36(shard, 1)}{_base36(epoch % EPOCHS, 3)}".encode("ascii")


def date_of(time_ns: int) -> int:
    """yyyymmdd, UTC."""
    return int(time.strftime("%Y%m%d", time.gmtime(time_ns // 10**9)))


def session_name(started_ns: int, shard: int, epoch: int) -> bytes:
    """Name the feed session of a shard that began at a moment."""
    return session_of_date(date_of(started_ns), shard, epoch)


def epoch_of_day(started_ns: int) -> int:
    """Return an epoch for an instance that keeps no manifest: grows through the day, a step is 1.85
    s.
    """
    return (started_ns // 10**9 % 86_400) * EPOCHS // 86_400


def datagram(session: bytes, sequence: int, messages: list[bytes]) -> bytes:
    """Return one packet, for cold callers and tests."""
    blocks = b"".join(struct.pack("!H", len(m)) + m for m in messages)
    return MOLD_HEADER.pack(session, sequence, len(messages)) + blocks


def control_datagram(session: bytes, sequence: int, count: int = 0) -> bytes:
    """Return a heartbeat, or with count END_OF_SESSION the last packet of a session."""
    return MOLD_HEADER.pack(session, sequence, count)


# ------------------------------------------------------------------------------------------ kernels
@helper
def header_write(buffer, at, session_high, session_low, sequence):
    """Write a packet header but for its count; session as two integers (8 and 2 characters)."""
    put_u64(buffer, at, session_high)
    put_u16(buffer, at + 8, session_low)
    put_u64(buffer, at + SEQUENCE_AT, sequence)


@helper
def _session_well_formed(packets, at):
    for i in range(SESSION_BYTES):
        code = packets[at + i]
        if not (48 <= code <= 57 or (i >= 6 and 65 <= code <= 90)):
            return False
    return True


@helper
def _session_order(state, high, low):
    # 0 the current session, 1 a later one of this shard (or the first seen), -1 an earlier one, 2
    # not ours.
    known_high, known_low = state[R_SESSION_HIGH], state[R_SESSION_LOW]
    if known_high == high and known_low == low:
        return 0
    if known_high == 0:
        return 1
    if (high >> 8) & 255 != (known_high >> 8) & 255:
        return 2
    date, known_date = high >> 16, known_high >> 16
    epoch, known_epoch = ((high & 255) << 16) | low, ((known_high & 255) << 16) | known_low
    return 1 if date > known_date or (date == known_date and epoch > known_epoch) else -1


@helper
def _blocks_fill(packets, start, length, count):
    # Whether `count` message blocks are in the datagram and end exactly where it does.
    at, end = start + MOLD_HEADER_BYTES, start + length
    for _ in range(count):
        if at + 2 > end:
            return False
        at += 2 + read_u16(packets, at)
    return at == end


@helper
def _session_begin(state, high, low, sequence):
    # The first session seen is joined where it is; a later one is expected from its number 1.
    state[R_NEXT] = sequence if state[R_SESSIONS] == 0 else 1
    state[R_JOINED] = state[R_NEXT]
    state[R_SESSION_HIGH] = high
    state[R_SESSION_LOW] = low
    state[R_SESSIONS] += 1
    state[R_ENDED] = 0


@helper
def _judge(state, packets, start, length):
    # What a datagram is: 0 of the current session, 1 of a new one, -1 dropped and counted.
    state[R_DATAGRAMS] += 1
    if length < MOLD_HEADER_BYTES or not _session_well_formed(packets, start):
        state[R_MALFORMED] += 1
        return -1
    sequence, count = read_u64(packets, start + SEQUENCE_AT), read_u16(packets, start + COUNT_AT)
    blocks = 0 if count == END_OF_SESSION else count
    if sequence < 1 or sequence > SEQUENCE_MAX or not _blocks_fill(packets, start, length, blocks):
        state[R_MALFORMED] += 1
        return -1
    order = _session_order(state, read_u64(packets, start), read_u16(packets, start + 8))
    if order == 0 and sequence - state[R_NEXT] > JUMP_MAX:
        state[R_MALFORMED] += 1
        return -1
    if order == 2:
        state[R_FOREIGN] += 1
    elif order == -1:
        state[R_STALE] += 1
    return order if 0 <= order <= 1 else -1


@helper
def _deliver(state, packets, start, blocks, found):
    # Append the messages of a good datagram that are new; returns how many rows of `blocks` are
    # used then.
    sequence, count = read_u64(packets, start + SEQUENCE_AT), read_u16(packets, start + COUNT_AT)
    if sequence > state[R_NEXT]:
        state[R_GAPS] += 1
        state[R_MISSING] += sequence - state[R_NEXT]
        state[R_NEXT] = sequence
    if count == 0 or count == END_OF_SESSION:
        state[R_HEARTBEATS] += 1 if count == 0 else 0
        state[R_ENDED] = 1 if count == END_OF_SESSION else 0
        return found
    at = start + MOLD_HEADER_BYTES
    for i in range(count):
        length = read_u16(packets, at)
        if sequence + i < state[R_NEXT]:
            state[R_DUPLICATES] += 1
        else:
            blocks[found, BLOCK_SEQ] = sequence + i
            blocks[found, BLOCK_OFFSET] = at + 2
            blocks[found, BLOCK_LENGTH] = length
            found += 1
            state[R_NEXT] += 1
            state[R_MESSAGES] += 1
            state[R_ENDED] = 0
        at += 2 + length
    return found


@kernel
def mold_receive(state, packets, bounds, first, blocks):
    """Take datagrams bounds[first:] = (start, length) in `packets`; returns (datagrams taken,
    messages found).

    Stops before a datagram of a new session unless it is the first one, and before `blocks` might
    overflow. O(bytes).
    """
    found = 0
    for index in range(first, bounds.shape[0]):
        start, length = bounds[index, 0], bounds[index, 1]
        if found + length // 2 > blocks.shape[0] and index > first:
            return np.int64(index - first), np.int64(found)
        verdict = _judge(state, packets, start, length)
        if verdict == 1 and index > first:
            state[R_DATAGRAMS] -= 1
            return np.int64(index - first), np.int64(found)
        if verdict == 1:
            high, low = read_u64(packets, start), read_u16(packets, start + 8)
            _session_begin(state, high, low, read_u64(packets, start + SEQUENCE_AT))
        if verdict >= 0:
            found = _deliver(state, packets, start, blocks, found)
    return np.int64(bounds.shape[0] - first), np.int64(found)


# -------------------------------------------------------------------------------------- Python face
class MoldReceiver:
    """One channel's receiving state. `receive` is fed batches of datagrams and gives tables of
    messages.
    """

    def __init__(self, datagram_bytes_max: int = 2048, messages_max: int = 1 << 14) -> None:
        # A datagram of zero-length messages holds one per two bytes: the table must take the worst
        # of them.
        self.state = np.zeros(RECEIVER_WORDS, np.int64)
        self.datagram_bytes_max = datagram_bytes_max
        self._blocks = np.zeros((max(messages_max, datagram_bytes_max), BLOCK_COLUMNS), np.int64)

    def receive(self, packets: _Array, bounds: _Array, first: int = 0) -> tuple[int, _Array]:
        """Take datagrams bounds[first:] (start, length) lying in `packets`; returns how many were
        taken, and their messages.

        The table (sequence, offset in packets, length) is valid until the next call. Fewer are
        taken where a new session begins: compare `sessions` before and after each call.
        """
        taken, found = mold_receive(self.state, packets, bounds, first, self._blocks)
        return int(taken), self._blocks[:found]

    def receive_one(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take one datagram; returns its new messages as (sequence, bytes). For cold callers."""
        if len(data) > self.datagram_bytes_max:
            self.state[R_DATAGRAMS] += 1
            self.state[R_MALFORMED] += 1
            return []
        packets = np.zeros(max(len(data), 1), np.uint8)
        packets[: len(data)] = np.frombuffer(data, np.uint8)
        _, blocks = self.receive(packets, np.array([[0, len(data)]], np.int64))
        return [(int(s), data[o : o + n]) for s, o, n in blocks.tolist()]

    @property
    def session(self) -> bytes:
        """Name of the current session; empty before the first datagram."""
        if not self.state[R_SESSIONS]:
            return b""
        high, low = int(self.state[R_SESSION_HIGH]), int(self.state[R_SESSION_LOW])
        return high.to_bytes(8, "big") + low.to_bytes(2, "big")

    @property
    def sessions(self) -> int:
        """How many sessions were seen."""
        return int(self.state[R_SESSIONS])

    @property
    def next_sequence(self) -> int:
        """Number of the next message; 0 before the first datagram."""
        return int(self.state[R_NEXT])

    @property
    def joined_at(self) -> int:
        """Number at which the current session was joined; 1: from its beginning."""
        return int(self.state[R_JOINED])

    @property
    def ended(self) -> bool:
        """Whether the sender closed the session."""
        return bool(self.state[R_ENDED])

    def stats(self) -> dict[str, int]:
        """Return all counters by name."""
        return {name: int(self.state[word]) for name, word in RECEIVER_COUNTERS.items()}


def _warm_up() -> None:
    MoldReceiver(64, 64).receive_one(control_datagram(b"0001010000", 1))


register_warmup("feed.moldudp64", _warm_up)
