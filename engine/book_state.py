"""The memory of one shard: every array of its books, sessions and ids, laid over one block.

Cold (allocation); the layouts are what the hot kernels work on. One process writes (the shard, or
LocalExchange); an observer in another process maps the same memory with addresses of its own.
Kernels get `ShardState.table` alone: the header words, then address and length of every array.

Sizes: ShardLimits. Everything is taken at start, nothing grows. Free lists are stacks, so that
replay gives the same slots.
"""

import contextlib
import dataclasses
import mmap

import numpy as np

from engine.atomics import table_array, table_enter
from engine.book_rows import (
    ACCOUNT,
    ASIDE,
    CALL,
    COUNTED,
    DARK,
    LEGS_MAX,
    LEVEL,
    LIMIT,
    LINK,
    LIST,
    MORE,
    ORDER,
    PEG,
    PENDING,
    QUOTER,
    RULES,
    SESSION,
    SIDE,
    SYMBOL,
    TEXT,
)
from engine.config import Instrument, ShardLimits
from engine.records import COMMAND, EVENT_SLOT

TREE_BITS = 6
TREE_HEIGHT = 5  # heights of nodes: 0 (leaf) .. 5, 6 bits each: 36 >= 31
NODE_FAN = 1 << TREE_BITS
RECENT_LEAVES = 8  # a line of memory; 8 x 64 neighbouring prices
NONE = -1

# hdr words. State proper first, then the configuration the kernels read, then scratch of the
# running call.
IN_SEQ = 0
IN_TS = 1
OUT_POSITION = 2  # events written so far; the next has out_seq = OUT_POSITION + 1
ORDER_COUNTER = 3
PUBLIC_REF = 4
FEED_SEQ = 5
ORDERS_FREE = 6
LEVELS_FREE = 7
NODES_FREE = 8
LEVELS_USED = 9
SYMBOLS_USED = 10
SESSIONS_USED = 11
TEXTS_USED = 12
WORK_KIND = 13  # the open continuation (RULES §1)
WORK_ORDER = 14
WORK_CURSOR = 15
WORK_COUNT = 16
WORK_TOTAL = 17
WORK_ACCOUNT = 18
WORK_SESSION = 19
WORK_SYMBOL = 20  # the only symbol it is about, 0: any
WORK_REASON = 21
WORK_REF = 22  # reference replaced by an order that did not trade yet
FATAL = 23  # number of the broken invariant
FATAL_CROSSED, FATAL_SECOND_WORK = 1, 2
GONE_IN = 24  # entries of ended orders put into `gone`, and taken out of the id table
GONE_OUT = 25
# Lower bound of all pending deadlines, 0: none. When the loop looks is not journaled, so this word
# may differ from that of a replay: nothing the step does depends on it.
NEXT_DEADLINE = 26
INCARNATION_NUMBER = 27
TRADING_DATE = 28  # yyyymmdd of the open feed session, never earlier than before
FEED_EPOCH = 29  # of the open feed session
DUE_COUNT = 30  # orders in `due`
SETTLING = 31  # symbols in `settling`
SHARD = 32
EVENT_MASK = 33
ID_MASK = 34
ID_SEED = 35  # odd: what keys of the id table are multiplied by
TEXT_MASK = 36
SLICE_EVENTS = 37
MAX_WALK = 38
CREATE_UNKNOWN = 39
TEMPLATE_TICK = 40
TEMPLATE_LOT = 41
TEMPLATE_PX_MAX = 42
ORDERS_CAPACITY = 43
LEVELS_CAPACITY = 44
SYMBOLS_CAPACITY = 45
SESSIONS_CAPACITY = 46
ACCOUNTS_CAPACITY = 47
TEXTS_CAPACITY = 48
ID_SHIFT = 49  # from a 32-bit home to its place in the id table
SETTLE_STAGE = 50  # how far the first of `settling` is (engine/full_settle.py)
SETTLE_THEN = 51  # what comes when all are done: the SUMMARY of so many cancels + 1, or nothing
SETTLE_INDEX = 52  # place in the list of the stage
RUN_OPEN = 53  # a run is open within the work
SLICE_START = 54
DIRTY_COUNT = 55
RECEIPT_GATEWAY_IN = 56  # four words as they lie in the slot; shard_out is written at commit
RECEIPT_SHARD_IN = 57
RECEIPT_SHARD_OUT = 58
RECEIPT_PRODUCER_SEQ = 59
TIMED_SYMBOLS = 60  # times that symbols wait for: indicative prices, crosses of batch modes
BATCH_VERSION = 61  # odd while a batch changes the books
INTENT = 62  # highest position announced to readers of the event ring
TOUCHED = 63  # symbol the running command changed
# From here: more state proper.
QUOTERS_TOP = 64  # rows of `quoters` below it were in use
QUOTERS_FREE = 65  # first of those that are free again, 0: none
QUOTE_SLOT = 66  # by side of the quote that is being entered: slot + 1 of what is still to enter
QUOTE_REF = 68  # by side: slice that BOOKED replaces, as the public knows it, 0: none
QUOTE_SHOWN = 70  # by side: what it displays
ACTIVATIONS = 72  # first legs in `activations`: each goes live by an ACTIVATE of its own
ACTIVATE_FIRST = 73  # place of the first of them
BEGIN_FIRST = 74  # orders of a list that enter one after the other (engine/full_begin.py), 0: none
BEGIN_SECOND = 75
RESIZE_TOTAL = 76  # total that the sibling of WORK_ORDER takes behind its run, 0: it keeps its own
ADMIN_SEQ = 77  # of the newest administrative command that was numbered (engine/admin_log.py)
HDR_WORDS = 80
REJECT_CODES = 1000
GONE_WORDS = 16
ID_MULTIPLIER = 0x9E3779B97F4A7C15
PRODUCER_NUMBERS = 256  # all that COMMAND.producer can say
LOOK_WORDS = 32  # two for each of the commands that engine/lookahead.py follows at a time
FREE_AHEAD = 8  # how far below the top of the free list a slot is asked for

# Words of the table: hdr first, then (address, length) of every array (engine/atomics.table_array).
# Kernels get the table alone.
_I4, _I8, _U8 = np.dtype("<i4"), np.dtype("<i8"), np.dtype("<u8")
ARRAYS: dict[str, np.dtype] = {
    "orders": ORDER,
    "order_words": _I8,  # the same memory in words
    "owner": _I4,  # account of each live order slot, 0 when free: what a mass cancel scans
    "order_text": _I4,  # row in texts (valid with ORDER_TEXT)
    "order_tag": _I8,  # (valid with ORDER_TAG)
    "counted": COUNTED,  # (valid with ORDER_COUNTED)
    "more": MORE,
    "aside": ASIDE,
    "pending": PENDING,
    "links": LINK,
    "lists": LIST,
    "legs": COMMAND,  # LEGS_MAX for each session: what is there of its unfinished list
    "activations": _I8,  # ring of order ids (engine/full_links.py)
    "pegs": PEG,
    "due": _I4,  # heap of order slots by (expire_ts, order_id)
    "free_orders": _I4,
    "levels": LEVEL,
    "dark": DARK,
    "free_levels": _I4,
    "node_bits": _U8,
    "node_child": _I4,
    "node_parent": _I4,
    "free_nodes": _I4,
    "recent": _I8,  # per side the leaves used last: price >> 6 in the high half, leaf in the low
    "sides": SIDE,
    "symbols": SYMBOL,
    "rules": RULES,
    "calls": CALL,
    "settling": _I4,  # symbols that something follows for when the command is done, ascending
    "names": _U8,
    "sessions": SESSION,
    "accounts": ACCOUNT,
    "account_limits": _I4,  # by account: its first row in `limit_rows`, 0: none
    "limit_rows": LIMIT,
    "quoters": QUOTER,
    "quoter_index": _I4,  # hash table of (symbol, account): row in `quoters`, 0: empty
    "ids": _U8,
    "gone": _U8,  # entries of `ids` to be removed soon
    "look": _I8,  # what engine/lookahead.py remembers
    "texts": TEXT,
    "text_index": _I4,
    "scratch": _I4,
    "dirty": _I4,
    "rejects": _I8,  # how many of each RejectCode
    "producer_seq": _I8,  # of the last command of each producer; a recovery goes on behind it
    "events": EVENT_SLOT,
    "event_words": _I8,
}
_WORD = {name: HDR_WORDS + 2 * i for i, name in enumerate(ARRAYS)}
TABLE_WORDS = HDR_WORDS + 2 * len(ARRAYS)
_views = {name: table_array(dtype, _WORD[name]) for name, dtype in ARRAYS.items()}
orders, owner, order_text, order_tag = (
    _views[n] for n in ("orders", "owner", "order_text", "order_tag")
)
free_orders, levels, free_levels = (_views[n] for n in ("free_orders", "levels", "free_levels"))
more, pending, due, dark = (_views[n] for n in ("more", "pending", "due", "dark"))
pegs = _views["pegs"]
node_bits, node_child, node_parent = (_views[n] for n in ("node_bits", "node_child", "node_parent"))
free_nodes, recent = (_views[n] for n in ("free_nodes", "recent"))
sides, symbols, names = (_views[n] for n in ("sides", "symbols", "names"))
links, lists, legs, activations = (_views[n] for n in ("links", "lists", "legs", "activations"))
rules, settling = (_views[n] for n in ("rules", "settling"))
aside, calls = (_views[n] for n in ("aside", "calls"))
sessions, accounts, texts = (_views[n] for n in ("sessions", "accounts", "texts"))
counted, account_limits, limit_rows = (
    _views[n] for n in ("counted", "account_limits", "limit_rows")
)
quoters, quoter_index = (_views[n] for n in ("quoters", "quoter_index"))
ids, gone, look = (_views[n] for n in ("ids", "gone", "look"))
text_index, scratch, dirty = (_views[n] for n in ("text_index", "scratch", "dirty"))
rejects, producer_seq = (_views[n] for n in ("rejects", "producer_seq"))
events, event_words, order_words = (_views[n] for n in ("events", "event_words", "order_words"))


class ShardState:
    """The arrays of one shard. `table` is what kernels take; `hdr` is its first part; the arrays
    are attributes by name.
    """

    def __init__(self, hdr: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        # The owner's table lies over `hdr` in its own memory; an observer of another process's
        # shard gets a copy, because addresses differ between processes.
        self.table = hdr
        self.hdr = hdr[:HDR_WORDS]
        self.arrays = arrays
        for name in ARRAYS:
            table_enter(self.table, _WORD[name], arrays[name])

    def use_events(self, events: np.ndarray) -> None:
        """Write events into another ring of the same length from now on."""
        assert len(events) == len(self.arrays["events"])
        for name, array in (("events", events), ("event_words", events.view("<i8"))):
            self.arrays[name] = array
            table_enter(self.table, _WORD[name], array)

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None


def private_array(dtype: np.dtype, count: int) -> np.ndarray:
    """Zeroed memory of this process alone, page-aligned, on huge pages where the kernel has them.

    np.zeros begins 16 bytes into a page: a row of 64 bytes would lie on two cache lines.
    """
    memory = mmap.mmap(-1, max(dtype.itemsize * count, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, count)


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 1).bit_length()


def state_layout(limits: ShardLimits) -> list[tuple[str, np.dtype, int]]:
    """Name, dtype and length of every array but the events, in memory order."""
    orders, levels, symbols = limits.orders_max, limits.levels_max, limits.symbols_max + 1
    nodes = levels * (TREE_HEIGHT + 1) + symbols * 2
    lengths = {
        "orders": orders,
        "owner": orders,
        "order_text": orders,
        "order_tag": orders,
        "counted": orders,
        "more": orders,
        "aside": orders,
        "pending": orders,
        "links": orders,
        "lists": limits.sessions_max + 1,
        "legs": (limits.sessions_max + 1) * LEGS_MAX,
        "activations": orders,
        "pegs": orders,
        "due": orders,
        "free_orders": orders,
        "levels": levels,
        "dark": levels,
        "free_levels": levels,
        "node_bits": nodes,
        "node_child": nodes * NODE_FAN,
        "node_parent": nodes,
        "free_nodes": nodes,
        "recent": symbols * 2 * RECENT_LEAVES,
        "sides": symbols * 2,
        "symbols": symbols,
        "rules": symbols,
        "calls": symbols,
        "settling": symbols,
        "names": symbols,
        "sessions": limits.sessions_max + 1,
        "accounts": limits.accounts_max,
        "account_limits": limits.accounts_max,
        "limit_rows": limits.account_limits_max + 1,
        "quoters": limits.quoters_max + 1,
        "quoter_index": _power_of_two(2 * limits.quoters_max + 2),
        "ids": max(_power_of_two(orders * 2), 4 * GONE_WORDS),
        "gone": GONE_WORDS,
        "look": LOOK_WORDS,
        "texts": limits.text_ids_max + 1,
        "text_index": _power_of_two(limits.text_ids_max * 2),
        "scratch": orders,
        "dirty": symbols,
        "rejects": REJECT_CODES,
        "producer_seq": PRODUCER_NUMBERS,
    }
    return [
        ("table", _I8, TABLE_WORDS),
        *((name, ARRAYS[name], length) for name, length in lengths.items()),
    ]


def state_bytes(limits: ShardLimits) -> int:
    """Memory that `map_state` needs."""
    return sum(-(-dtype.itemsize * count // 64) * 64 for _, dtype, count in state_layout(limits))


def map_state(
    limits: ShardLimits, memory: np.ndarray, events: np.ndarray, *, observe: bool = False
) -> ShardState:
    """Lay the arrays over `memory` (uint8, at least `state_bytes`); the content is taken as it is.

    `observe`: look at memory that another process writes; hdr is then a copy made now (`live_hdr`
    gives the shared one).
    """
    arrays, offset = {}, 0
    for name, dtype, count in state_layout(limits):
        size = dtype.itemsize * count
        arrays[name] = memory[offset : offset + size].view(dtype)
        offset += -(-size // 64) * 64
    live = arrays.pop("table")
    arrays |= {
        "order_words": arrays["orders"].view("<i8"),
        "events": events,
        "event_words": events.view("<i8"),
    }
    state = ShardState(live.copy() if observe else live, arrays)
    state.arrays["live_hdr"] = live[:HDR_WORDS]
    return state


def allocate_state(
    limits: ShardLimits,
    *,
    shard: int = 0,
    memory: np.ndarray | None = None,
    events: np.ndarray | None = None,
    seed: int = 0,
) -> ShardState:
    """A fresh, empty shard.

    `memory` must be zero (a new segment is); by default private memory is taken. `events` is the
    event ring, its length a power of two. `seed` scatters the client-id table: any value gives the
    same events.
    """
    if memory is None:
        memory = private_array(np.dtype(np.uint8), state_bytes(limits))
    if events is None:
        events = private_array(EVENT_SLOT, _power_of_two(4 * limits.events_per_command_max))
    state = map_state(limits, memory, events)
    hdr = state.hdr
    for name in ("free_orders", "free_levels", "free_nodes"):
        free = getattr(state, name)
        free[:] = np.arange(len(free) - 1, -1, -1, dtype=np.int32)
    hdr[ORDERS_FREE], hdr[LEVELS_FREE], hdr[NODES_FREE] = (
        len(a) for a in (state.free_orders, state.free_levels, state.free_nodes)
    )
    state.node_child[:] = NONE
    state.recent[:] = NONE
    state.sides["best"] = state.sides["root"] = NONE
    state.dark["head"] = NONE
    state.calls["head"] = state.calls["tail"] = NONE
    state.rules["triggers"] = state.rules["trail_first"] = NONE
    for name in ("peg_first", "peg_last", "peg_next"):
        state.rules[name] = NONE
    values = {
        SHARD: shard,
        EVENT_MASK: len(events) - 1,
        ID_MASK: len(state.ids) - 1,
        ID_SEED: (ID_MULTIPLIER ^ (seed << 1)) & (2**63 - 1) | 1,
        ID_SHIFT: 32 - (len(state.ids) - 1).bit_length(),
        TEXT_MASK: len(state.text_index) - 1,
        SLICE_EVENTS: limits.slice_events,
        MAX_WALK: limits.max_walk,
        ORDERS_CAPACITY: limits.orders_max,
        LEVELS_CAPACITY: limits.levels_max,
        SYMBOLS_CAPACITY: limits.symbols_max,
        SESSIONS_CAPACITY: limits.sessions_max,
        ACCOUNTS_CAPACITY: limits.accounts_max,
        TEXTS_CAPACITY: limits.text_ids_max,
    }
    for word, value in values.items():
        hdr[word] = value
    return state


def set_policy(state: ShardState, unknown_symbol: str, template: Instrument) -> None:
    """Write the unknown-symbol policy where the step reads it."""
    state.hdr[CREATE_UNKNOWN] = unknown_symbol == "create"
    state.hdr[TEMPLATE_TICK] = template.tick_units
    state.hdr[TEMPLATE_LOT] = template.lot_units
    state.hdr[TEMPLATE_PX_MAX] = template.px_max


def small_limits(**changes: int) -> ShardLimits:
    """Limits for tests and warm-up: a few kilobytes."""
    base = ShardLimits(64, 32, 8, 8, 16, 16, 16, 100, 1000, 1064, 64)
    return dataclasses.replace(base, **changes)
