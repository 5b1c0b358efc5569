"""The gateway's memory that compiled code and Python share: one flat int64 array, `words`.

Hot. One array, because each array argument of a kernel costs 60 to 100 ns a call and a tuple of
arrays several microseconds. One process, one thread: nothing here is atomic. Layout:

    header      0 .. 63      sizes and bases, arguments and results of a call, totals for the
                counters
    fields     64 .. 95      what the scanner found in the line at hand
    command    96 .. 127     the command about to be written (fast and slow path fill the same
               words)
    shards     rows of SHARD_WORDS: ring, positions, eventfd, cursor in the event ring
    accounts   one word per account: first session row of its list; 0 none
    rows       session rows of `row_words` words: R_* then (slot, last id) per shard; row 0 is
               nobody
    symbols    rows of SYMBOL_WORDS at shard * symbols_max + index: name, tick and lot as mantissa
               and decimals
    hash       open addressing, symbol name -> symbol row + 1
    names      rows of NAME_WORDS at shard * sessions_max + slot: session name as JSON text
    links      rows of LINK_WORDS: one report on its way to one session
    writes     rows of WRITE_WORDS: (session row, first byte, end byte) of the encoder's output
    histogram  round trips, in the layout of engine/counters.py

Decimals: a tick of 0.05 is mantissa 5 and 2 decimals, a lot of 1000 is mantissa 1000 and 0
decimals. Mantissas stay below 2**31, so that mantissa * ticks cannot overflow; an instrument beyond
that is known but not traded here (Y_TRADED 0).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.config import Config
from engine.counters import HISTOGRAM_WORDS
from engine.records import CLIENT_TEXT_BYTES

# ------------------------------------------------------------------------------- header
H_SHARDS, H_PRODUCER, H_COMMAND_CAPACITY, H_EVENT_CAPACITY, H_LINE_MAX, H_READER = 0, 1, 2, 3, 4, 5
H_SHARD_BASE, H_ACCOUNT_BASE, H_ROW_BASE, H_SYMBOL_BASE, H_HASH_BASE = 8, 9, 10, 11, 12
H_NAME_BASE, H_LINK_BASE, H_WRITE_BASE = 13, 14, 15
H_ACCOUNTS, H_ROW_WORDS, H_ROWS, H_SYMBOLS_MAX, H_HASH_MASK, H_SESSIONS_MAX, H_LINKS = (
    16,
    17,
    18,
    19,
    20,
    21,
    22,
)
H_HALF = 23  # bytes of the encoder's buffer for reports; the second half gathers them per session
H_ARGUMENT = 24  # decode: row << 40 | first byte << 20 | end byte
H_LINE_END = 25  # decode: where the line ends that needs the slow path
H_SPIN_NS = 26  # encode: how long to wait for the first event
H_SCRATCH_INDEX = 27  # encode: which copied event Python has to look at
H_EVENT_SHARD = 28  # encode: its shard
H_WRITES = 29  # encode: rows of the table of writes
H_TOUCHED = 30  # encode: list of session rows with reports; 0 ends it
H_STAMP_VALUE, H_STAMP_AT = 31, 32  # encode: the last time stamp written, and where
H_GATEWAY_OUT = 33
H_LINK_COUNT, H_GATHERED = 35, 36  # encode: links in use, bytes they stand for
H_HISTOGRAM_BASE = 37  # encode: gateway in to gateway out, of each command's last report
H_PUBLISHED = 34  # decode: commands published in this call
H_TOTAL_LINES, H_TOTAL_COMMANDS, H_TOTAL_REPORTS, H_TOTAL_LAPS, H_TOTAL_LOST = 40, 41, 42, 43, 44

# ------------------------------------------------------------------------------- what a line said
F_BASE = 64
F_TYPE, F_SIDE, F_TIF, F_ORDER_TYPE = 1, 2, 3, 4  # words of a closed list
F_QTY, F_PRICE = 5, 6  # decimals: mantissa here, decimals at + F_SCALE
F_ID, F_ORDER_ID, F_TARGET_ID, F_TAG = 7, 8, 9, 10  # integers
F_SYMBOL, F_POST_ONLY = 11, 12
F_SCALE = 10  # F_QTY + F_SCALE = 15, F_PRICE + F_SCALE = 16
assert F_QTY + F_SCALE > F_POST_ONLY

# ------------------------------------------------------------------------ the command in the making
C_KIND, C_SHARD, C_ID, C_ORDER_ID, C_SYMBOL_ID, C_SYMBOL, C_PX, C_QTY = (
    96,
    97,
    98,
    99,
    100,
    101,
    102,
    103,
)
C_SIDE, C_ORDER_TYPE, C_TIF, C_FLAGS, C_TARGET_ID, C_TAG, C_RECEIPT_TS = (
    104,
    105,
    106,
    107,
    108,
    109,
    110,
)
C_SESSION, C_LOGON, C_ACCOUNT, C_ROW = 111, 112, 113, 114
C_AMOUNT = 115  # from here on only what Python pushes has any
C_STP, C_PEAK, C_MIN_QTY, C_EXPIRE_TS = 116, 117, 118, 119
C_TEXT = 120  # 5 words hold the 36 bytes
C_PX2, C_QTY2, C_DECISION = 125, 126, 127
C_END = C_DECISION + 1
HEADER_WORDS = 128
assert C_TEXT + -(-CLIENT_TEXT_BYTES // 8) <= C_PX2
assert C_END <= HEADER_WORDS

# ------------------------------------------------------------------------------- rows
SHARD_WORDS = 16
S_RING, S_POSITION, S_CONSUMER, S_FD, S_UP, S_CURSOR, S_PUBLISHED = 0, 1, 2, 3, 4, 5, 6
S_LOG = 7  # 1: the shard has an event log
S_LAPPED = 8  # 1: the ring came round; the log is read until the cursor is in the ring again

R_STATE, R_ACCOUNT, R_LOGON, R_NEXT, R_FLAGS, R_LAST_ID, R_LATCH, R_NAME = 0, 1, 2, 3, 4, 5, 6, 7
R_ORDER_TAT, R_CANCEL_TAT, R_ORDER_HARD_TAT, R_CANCEL_HARD_TAT = 8, 9, 10, 11
R_ORDER_NS, R_CANCEL_NS, R_ORDER_HARD_NS, R_CANCEL_HARD_NS, R_WINDOW_NS = 12, 13, 14, 15, 16
R_TOUCH_NEXT, R_CHAIN_HEAD, R_CHAIN_TAIL, R_COMMANDS = 17, 18, 19, 20
R_SHARDS = 24  # per shard: session slot (0: not answered yet), highest id sent there
ROW_FREE, ROW_OPENING, ROW_LIVE = 0, 1, 2
ROW_TEXT_IDS, ROW_RECEIPTS = 1, 2  # R_FLAGS

SYMBOL_WORDS = 16
Y_NAME, Y_SYMBOL_ID, Y_SHARD, Y_TICK_MANTISSA, Y_TICK_DECIMALS, Y_LOT_MANTISSA, Y_LOT_DECIMALS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
)
Y_PX_MAX, Y_TICK, Y_LOT, Y_TRADED, Y_JSON, Y_JSON_BYTES, Y_PHASE = 7, 8, 9, 10, 11, 13, 14
Y_RULES = 15

NAME_WORDS = 4
N_JSON, N_BYTES = 0, 2  # escaped text in 16 bytes, its length
LINK_WORDS = 3
L_START, L_BYTES, L_NEXT = 0, 1, 2
WRITE_WORDS = 3
LINKS = 4096

ROWS_PER_ACCOUNT_MAX = 50  # limits table; also bounds what one report costs the encoder
OUTPUT_HALF_BYTES = 1 << 18
REPORT_BYTES_MAX = 1024  # the longest report, rounded up (tests/gateway/test_encode.py makes it)
OUTPUT_SLACK_BYTES = 2 * REPORT_BYTES_MAX  # the encoder stops when a half has less left
GATHER_SLACK_BYTES = (
    ROWS_PER_ACCOUNT_MAX * REPORT_BYTES_MAX
)  # one event may go to that many sessions
assert OUTPUT_HALF_BYTES > 2 * GATHER_SLACK_BYTES


@dataclass
class GatewayState:
    """`words` and the Python view of it."""

    words: np.ndarray[Any, Any]
    shards: int

    def __post_init__(self) -> None:
        self.view = memoryview(self.words)  # type: ignore[arg-type]  # item access is faster than through NumPy

    def row_base(self, row: int) -> int:
        """Index of a session row's first word."""
        return int(self.view[H_ROW_BASE] + row * self.view[H_ROW_WORDS])

    def shard_base(self, shard: int) -> int:
        """Index of a shard row's first word."""
        return int(self.view[H_SHARD_BASE]) + shard * SHARD_WORDS

    def symbol_base(self, place: int) -> int:
        """Index of a symbol row's first word."""
        return int(self.view[H_SYMBOL_BASE]) + place * SYMBOL_WORDS

    def name_base(self, shard: int, slot: int) -> int:
        """Index of a session name's first word."""
        return (
            int(self.view[H_NAME_BASE])
            + (shard * int(self.view[H_SESSIONS_MAX]) + slot) * NAME_WORDS
        )


def make_state(config: Config, shards: int, producer: int, reader: int) -> GatewayState:
    """Lay out the array for `shards` shards; ring capacities are set by who attaches the rings."""
    places = shards * (config.shard.symbols_max + 1)  # index 0 is nobody
    hash_size = 1 << (4 * places - 1).bit_length()
    row_words = -(-(R_SHARDS + 2 * shards) // 8) * 8
    rows = config.gateway.sessions_max + 1
    sizes = {
        H_SHARD_BASE: shards * SHARD_WORDS,
        H_ACCOUNT_BASE: config.shard.accounts_max,
        H_ROW_BASE: rows * row_words,
        H_SYMBOL_BASE: places * SYMBOL_WORDS,
        H_HASH_BASE: hash_size,
        H_NAME_BASE: shards * (config.shard.sessions_max + 1) * NAME_WORDS,
        H_LINK_BASE: (LINKS + ROWS_PER_ACCOUNT_MAX + 1) * LINK_WORDS,
        H_WRITE_BASE: (rows + 1) * WRITE_WORDS,
        H_HISTOGRAM_BASE: HISTOGRAM_WORDS,
    }
    words = np.zeros(HEADER_WORDS + sum(sizes.values()), np.int64)
    at = HEADER_WORDS
    for base, size in sizes.items():
        words[base] = at
        at += size
    values = {
        H_SHARDS: shards, H_PRODUCER: producer, H_READER: reader,
        H_LINE_MAX: config.gateway.line_bytes_max,
        H_ACCOUNTS: config.shard.accounts_max, H_ROW_WORDS: row_words, H_ROWS: rows,
        H_SYMBOLS_MAX: config.shard.symbols_max + 1,
        H_HASH_MASK: hash_size - 1, H_SESSIONS_MAX: config.shard.sessions_max + 1, H_LINKS: LINKS,
        H_HALF: OUTPUT_HALF_BYTES,
    }  # fmt: skip
    for word, value in values.items():
        words[word] = value
    return GatewayState(words, shards)
