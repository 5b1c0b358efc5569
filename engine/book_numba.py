"""The memory of one shard and the structure of its books: levels, queues, order pool.

Hot; all functions below ``allocate_state`` are compiled. One process writes (the shard, or LocalExchange); readers of the
shared copy look at the versioned top only, or recheck ``hdr[BATCH_VERSION]``.

    sides[symbol * 2 + side] --best--> levels[..] --head--> orders[..] <--next/prev--> orders[..]   (time order)
              |                           ^
              +--root--> nodes: 64-way bitmap tree over the 31 bits of the price, six nodes deep, leaf bit = level

Any price 1 .. 2**31-1 may hold a level, without a window: a level costs 32 bytes and at most six tree nodes, and the next
better or worse level is found by bit scans (one per node), never by walking prices. A side remembers the leaf used last, so
most inserts touch no inner node.

Invariants (engine/book_check.py verifies all): a level exists iff it has an order; level qty = sum of its orders; `best` is
the best level; free list + live = pool. Free lists are stacks, so replay gives the same slots.
Limits: ShardLimits. Nodes cannot run out: six per level and two per side are reserved.
"""

import dataclasses
import numpy as np

from engine.atomics import ALL_BITS, leading_zeros, table_array, table_enter, trailing_zeros
from engine.config import Instrument, ShardLimits
from engine.jit import helper
from engine.records import EVENT_SLOT

TREE_BITS = 6
TREE_HEIGHT = 5  # heights of nodes: 0 (leaf) .. 5, 6 bits each: 36 >= 31
NODE_FAN = 1 << TREE_BITS
NONE = -1

# hdr words. State proper first, then the configuration the kernels read, then scratch of the running call.
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
WORK_SYMBOL = 20
WORK_REASON = 21
WORK_REF = 22  # reference replaced by an order that did not trade yet
FATAL = 23  # number of the broken invariant
SHARD = 32
EVENT_MASK = 33
ID_MASK = 34
ID_SEED = 35
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
SLICE_START = 56
RECEIPT_GATEWAY_IN = 57
RECEIPT_SHARD_IN = 58
RECEIPT_PRODUCER_SEQ = 59
DIRTY_COUNT = 60
BATCH_VERSION = 61  # odd while a batch changes the books
INTENT = 62  # highest position announced to readers of the event ring
TOUCHED = 63  # symbol the running command changed
HDR_WORDS = 64
REJECT_CODES = 1000

ORDER = np.dtype(
    [
        ("order_id", "<i8"),
        ("client_order_id", "<i8"),
        ("public_ref", "<i8"),
        ("px", "<i4"),
        ("leaves", "<i4"),
        ("cum", "<i4"),
        ("next", "<i4"),
        ("prev", "<i4"),
        ("level", "<i4"),  # NONE: not in the book
        ("account", "<i4"),
        ("session", "<i4"),
        ("symbol", "<i4"),
        ("side", "u1"),
        ("order_type", "u1"),
        ("tif", "u1"),
        ("flags", "u1"),
    ],
    align=True,
)
ORDER_POST_ONLY = 1
ORDER_TEXT = 2
ORDER_TAG = 4

LEVEL = np.dtype(
    [("qty", "<i8"), ("head", "<i4"), ("tail", "<i4"), ("count", "<i4"), ("px", "<i4"), ("leaf", "<i4"), ("side", "<i4")],
    align=True,
)
SIDE = np.dtype(
    [
        ("best", "<i4"),
        ("root", "<i4"),
        ("leaf", "<i4"),  # last leaf used
        ("leaf_no", "<i4"),  # its price >> 6, NONE when none
        ("levels", "<i4"),
        ("orders", "<i4"),
        ("reserved", "<i8"),
    ],
    align=True,
)
SYMBOL = np.dtype(
    [
        ("name", "<u8"),
        ("tick", "<i8"),
        ("lot", "<i8"),
        ("px_max", "<i8"),
        ("last_px", "<i8"),
        ("last_qty", "<i8"),
        ("trade_id", "<i8"),
        ("volume", "<i8"),
        ("phase", "<i8"),
        ("symbol_id", "<i8"),
        ("dirty", "<i8"),
        ("reserved", "<i8", (5,)),
    ],
    align=True,
)
SESSION = np.dtype(
    [
        ("name", "<u8"),
        ("last_id", "<i8"),
        ("logon", "<i8"),  # 0: nobody owns it
        ("account", "<i4"),
        ("producer", "<i4"),
        ("flags", "<i8"),
        ("reserved", "<i8", (3,)),
    ],
    align=True,
)
ACCOUNT = np.dtype([("account_seq", "<i8"), ("open", "<i8")], align=True)
TEXT = np.dtype([("hash", "<u8"), ("account", "<i4"), ("order", "<i4"), ("text", "u1", (36,)), ("reserved", "<i4")], align=True)
assert (ORDER.itemsize, LEVEL.itemsize, SIDE.itemsize, SYMBOL.itemsize, SESSION.itemsize) == (64, 32, 32, 128, 64)


# Words of the table: hdr first, then (address, length) of every array (engine/atomics.table_array). Kernels get the table alone.
_I4, _I8, _U8 = np.dtype("<i4"), np.dtype("<i8"), np.dtype("<u8")
ARRAYS: dict[str, np.dtype] = {
    "orders": ORDER,
    "owner": _I4,  # account of each live order slot, 0 when free: what a mass cancel scans
    "order_text": _I4,  # row in texts (valid with ORDER_TEXT)
    "order_tag": _I8,  # (valid with ORDER_TAG)
    "free_orders": _I4,
    "levels": LEVEL,
    "free_levels": _I4,
    "node_bits": _U8,
    "node_child": _I4,
    "node_parent": _I4,
    "free_nodes": _I4,
    "sides": SIDE,
    "symbols": SYMBOL,
    "names": _U8,
    "sessions": SESSION,
    "accounts": ACCOUNT,
    "ids": _U8,
    "texts": TEXT,
    "text_index": _I4,
    "scratch": _I4,
    "dirty": _I4,
    "rejects": _I8,  # how many of each RejectCode
    "events": EVENT_SLOT,
    "event_words": _I8,
}
_WORD = {name: HDR_WORDS + 2 * i for i, name in enumerate(ARRAYS)}
TABLE_WORDS = HDR_WORDS + 2 * len(ARRAYS)
_views = {name: table_array(dtype, _WORD[name]) for name, dtype in ARRAYS.items()}
orders, owner, order_text, order_tag = (_views[n] for n in ("orders", "owner", "order_text", "order_tag"))
free_orders, levels, free_levels = (_views[n] for n in ("free_orders", "levels", "free_levels"))
node_bits, node_child, node_parent = (_views[n] for n in ("node_bits", "node_child", "node_parent"))
free_nodes, sides, symbols, names = (_views[n] for n in ("free_nodes", "sides", "symbols", "names"))
sessions, accounts, ids, texts = (_views[n] for n in ("sessions", "accounts", "ids", "texts"))
text_index, scratch, dirty, rejects = (_views[n] for n in ("text_index", "scratch", "dirty", "rejects"))
events, event_words = _views["events"], _views["event_words"]


class ShardState:
    """The arrays of one shard. `table` is what kernels take; `hdr` is its first part; the arrays are attributes by name."""

    def __init__(self, hdr: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        # The owner's table lies over `hdr` in its own memory; an observer of another process's shard gets a copy,
        # because addresses differ between processes.
        self.table = hdr
        self.hdr = hdr[:HDR_WORDS]
        self.arrays = arrays
        for name in ARRAYS:
            table_enter(self.table, _WORD[name], arrays[name])

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 1).bit_length()


def state_layout(limits: ShardLimits) -> list[tuple[str, np.dtype, int]]:
    """Name, dtype and length of every array but the events, in memory order."""
    orders, levels, symbols = limits.orders_max, limits.levels_max, limits.symbols_max + 1
    nodes = levels * (TREE_HEIGHT + 1) + symbols * 2
    lengths = {
        "orders": orders, "owner": orders, "order_text": orders, "order_tag": orders, "free_orders": orders, "levels": levels,
        "free_levels": levels, "node_bits": nodes, "node_child": nodes * NODE_FAN, "node_parent": nodes, "free_nodes": nodes,
        "sides": symbols * 2, "symbols": symbols, "names": symbols, "sessions": limits.sessions_max + 1,
        "accounts": limits.accounts_max, "ids": _power_of_two(orders * 2), "texts": limits.text_ids_max + 1,
        "text_index": _power_of_two(limits.text_ids_max * 2), "scratch": orders, "dirty": symbols, "rejects": REJECT_CODES,
    }  # fmt: skip
    return [("table", _I8, TABLE_WORDS), *((name, ARRAYS[name], length) for name, length in lengths.items())]


def state_bytes(limits: ShardLimits) -> int:
    """Memory that `map_state` needs."""
    return sum(-(-dtype.itemsize * count // 64) * 64 for _, dtype, count in state_layout(limits))


def map_state(limits: ShardLimits, memory: np.ndarray, events: np.ndarray, *, observe: bool = False) -> ShardState:
    """Lay the arrays over `memory` (uint8, at least `state_bytes`); the content is taken as it is.

    `observe`: look at memory that another process writes; hdr is then a copy made now (`live_hdr` gives the shared one).
    """
    arrays, offset = {}, 0
    for name, dtype, count in state_layout(limits):
        size = dtype.itemsize * count
        arrays[name] = memory[offset : offset + size].view(dtype)
        offset += -(-size // 64) * 64
    live = arrays.pop("table")
    state = ShardState(live.copy() if observe else live, {**arrays, "events": events, "event_words": events.view("<i8")})
    state.arrays["live_hdr"] = live[:HDR_WORDS]
    return state


def allocate_state(
    limits: ShardLimits, *, shard: int = 0, memory: np.ndarray | None = None, events: np.ndarray | None = None, seed: int = 0
) -> ShardState:
    """A fresh, empty shard.

    `memory` must be zero (a new segment is); by default private memory is taken. `events` is the event ring, its length a
    power of two. `seed` scatters the client-id table: any value gives the same events.
    """
    if memory is None:
        memory = np.zeros(state_bytes(limits), np.uint8)
    if events is None:
        events = np.zeros(_power_of_two(4 * limits.events_per_command_max), EVENT_SLOT)
    state = map_state(limits, memory, events)
    hdr = state.hdr
    for name in ("free_orders", "free_levels", "free_nodes"):
        free = getattr(state, name)
        free[:] = np.arange(len(free) - 1, -1, -1, dtype=np.int32)
    hdr[ORDERS_FREE], hdr[LEVELS_FREE], hdr[NODES_FREE] = (len(a) for a in (state.free_orders, state.free_levels, state.free_nodes))
    state.node_child[:] = NONE
    state.sides["best"] = state.sides["root"] = state.sides["leaf"] = state.sides["leaf_no"] = NONE
    values = {
        SHARD: shard, EVENT_MASK: len(events) - 1, ID_MASK: len(state.ids) - 1, ID_SEED: seed, TEXT_MASK: len(state.text_index) - 1,
        SLICE_EVENTS: limits.slice_events, MAX_WALK: limits.max_walk, ORDERS_CAPACITY: limits.orders_max,
        LEVELS_CAPACITY: limits.levels_max, SYMBOLS_CAPACITY: limits.symbols_max, SESSIONS_CAPACITY: limits.sessions_max,
        ACCOUNTS_CAPACITY: limits.accounts_max, TEXTS_CAPACITY: limits.text_ids_max,
    }  # fmt: skip
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
    base = ShardLimits(64, 32, 8, 8, 16, 16, 100, 1000, 1064, 64)
    return dataclasses.replace(base, **changes)


# ---------------------------------------------------------------------------------------------- price tree


@helper
def node_allocate(s, parent):
    """Take an empty node; reserved in advance, cannot fail."""
    s[NODES_FREE] -= 1
    node = np.int64(free_nodes(s)[s[NODES_FREE]])
    node_bits(s)[node] = np.uint64(0)
    node_parent(s)[node] = parent
    return node


@helper
def node_release(s, node):
    free_nodes(s)[s[NODES_FREE]] = node
    s[NODES_FREE] += 1


@helper
def leaf_find(s, side_index, px):
    """Leaf node that covers px, NONE when there is none. O(1) in the leaf used last, else five loads."""
    side = sides(s)[side_index]
    if np.int64(side["leaf_no"]) == px >> TREE_BITS:
        return np.int64(side["leaf"])
    node = np.int64(side["root"])
    height = TREE_HEIGHT
    while height > 0 and node >= 0:
        node = np.int64(node_child(s)[(node << TREE_BITS) + ((px >> (TREE_BITS * height)) & (NODE_FAN - 1))])
        height -= 1
    if node >= 0:
        side["leaf"] = node
        side["leaf_no"] = px >> TREE_BITS
    return node


@helper
def leaf_create(s, side_index, px):
    """Leaf node that covers px, with every inner node above it."""
    side = sides(s)[side_index]
    if side["root"] < 0:
        side["root"] = node_allocate(s, NONE)
    node = np.int64(side["root"])
    height = TREE_HEIGHT
    while height > 0:
        place = (px >> (TREE_BITS * height)) & (NODE_FAN - 1)
        child = np.int64(node_child(s)[(node << TREE_BITS) + place])
        if child < 0:
            child = node_allocate(s, node)
            node_child(s)[(node << TREE_BITS) + place] = child
            node_bits(s)[node] |= np.uint64(1) << np.uint64(place)
        node = child
        height -= 1
    side["leaf"] = node
    side["leaf_no"] = px >> TREE_BITS
    return node


@helper
def level_find(s, side_index, px):
    """Level at px on that side, NONE when no order rests there."""
    leaf = leaf_find(s, side_index, px)
    if leaf < 0:
        return np.int64(NONE)
    return np.int64(node_child(s)[(leaf << TREE_BITS) + (px & (NODE_FAN - 1))])


@helper
def bits_beyond(bits, place, is_bid):
    """The bits of worse prices than `place`: lower for bids, higher for asks."""
    if is_bid:
        return bits & ~(ALL_BITS << np.uint64(place))
    return bits & ~(ALL_BITS >> np.uint64(63 - place))


@helper
def bits_first(bits, is_bid):
    """Place of the best price in a non-empty bitmap: highest for bids, lowest for asks."""
    if is_bid:
        return np.int64(63) - np.int64(leading_zeros(bits))
    return np.int64(trailing_zeros(bits))


@helper
def tree_next(s, node, height, px, is_bid):
    """Best level strictly worse than px, climbing from `node` (at `height`, on px's path); NONE when there is none."""
    found = np.int64(NONE)
    while node >= 0 and height <= TREE_HEIGHT:
        place = (px >> (TREE_BITS * height)) & (NODE_FAN - 1)
        bits = bits_beyond(node_bits(s)[node], place, is_bid)
        if bits != np.uint64(0):
            found = np.int64(node_child(s)[(node << TREE_BITS) + bits_first(bits, is_bid)])
            break
        node = np.int64(node_parent(s)[node])
        height += 1
    while found >= 0 and height > 0:
        bits = node_bits(s)[found]
        if bits == np.uint64(0):  # cannot be in a sound tree; a torn read by an observer may see it
            return np.int64(NONE)
        found = np.int64(node_child(s)[(found << TREE_BITS) + bits_first(bits, is_bid)])
        height -= 1
    return found


@helper
def level_next(s, level):
    """The next worse level behind `level`, NONE at the end."""
    row = levels(s)[level]
    return tree_next(s, np.int64(row["leaf"]), 0, np.int64(row["px"]), (row["side"] & 1) == 0)


# ------------------------------------------------------------------------------------- levels and queues


@helper
def level_create(s, side_index, px):
    """New empty level at px (capacity was checked); becomes best if it is better."""
    leaf = leaf_find(s, side_index, px)
    if leaf < 0:
        leaf = leaf_create(s, side_index, px)
    s[LEVELS_FREE] -= 1
    s[LEVELS_USED] += 1
    level = np.int64(free_levels(s)[s[LEVELS_FREE]])
    row = levels(s)[level]
    row["qty"] = 0
    row["head"] = NONE
    row["tail"] = NONE
    row["count"] = 0
    row["px"] = px
    row["leaf"] = leaf
    row["side"] = side_index
    place = px & (NODE_FAN - 1)
    node_child(s)[(leaf << TREE_BITS) + place] = level
    node_bits(s)[leaf] |= np.uint64(1) << np.uint64(place)
    side = sides(s)[side_index]
    side["levels"] += 1
    best = np.int64(side["best"])
    sign = 1 - 2 * (side_index & 1)
    if best < 0 or (px - np.int64(levels(s)[best]["px"])) * sign > 0:
        side["best"] = level
    return level


@helper
def level_remove(s, level):
    """Take an empty level out of the tree, its empty nodes too, and find the new best."""
    row = levels(s)[level]
    side_index = np.int64(row["side"])
    side = sides(s)[side_index]
    px = np.int64(row["px"])
    node = np.int64(row["leaf"])
    height = 0
    while True:
        place = (px >> (TREE_BITS * height)) & (NODE_FAN - 1)
        node_child(s)[(node << TREE_BITS) + place] = NONE
        node_bits(s)[node] &= ~(np.uint64(1) << np.uint64(place))
        if node_bits(s)[node] != np.uint64(0) or height == TREE_HEIGHT:
            break
        if height == 0 and np.int64(side["leaf"]) == node:
            side["leaf_no"] = NONE
        parent = np.int64(node_parent(s)[node])
        node_release(s, node)
        node = parent
        height += 1
    side["levels"] -= 1
    if np.int64(side["best"]) == level:
        side["best"] = tree_next(s, node, height, px, (side_index & 1) == 0)
    free_levels(s)[s[LEVELS_FREE]] = level
    s[LEVELS_FREE] += 1
    s[LEVELS_USED] -= 1


@helper
def queue_append(s, slot):
    """Put the order at the back of its level (created when missing). O(1)."""
    order = orders(s)[slot]
    side_index = np.int64(order["symbol"]) * 2 + np.int64(order["side"])
    px = np.int64(order["px"])
    level = level_find(s, side_index, px)
    if level < 0:
        level = level_create(s, side_index, px)
    row = levels(s)[level]
    tail = np.int64(row["tail"])
    order["prev"] = tail
    order["next"] = NONE
    order["level"] = level
    if tail >= 0:
        orders(s)[tail]["next"] = slot
    else:
        row["head"] = slot
    row["tail"] = slot
    row["qty"] += np.int64(order["leaves"])
    row["count"] += 1
    sides(s)[side_index]["orders"] += 1


@helper
def queue_remove(s, slot):
    """Take the order out of its queue, its open quantity out of the level. O(1)."""
    order = orders(s)[slot]
    level = np.int64(order["level"])
    row = levels(s)[level]
    ahead = np.int64(order["prev"])
    behind = np.int64(order["next"])
    if ahead >= 0:
        orders(s)[ahead]["next"] = behind
    else:
        row["head"] = behind
    if behind >= 0:
        orders(s)[behind]["prev"] = ahead
    else:
        row["tail"] = ahead
    row["qty"] -= np.int64(order["leaves"])
    row["count"] -= 1
    order["level"] = NONE
    sides(s)[np.int64(row["side"])]["orders"] -= 1
    if row["count"] == 0:
        level_remove(s, level)


@helper
def symbol_touch(s, symbol):
    """Remember that the published top of this book must be rewritten after the batch."""
    s[TOUCHED] = symbol
    if symbols(s)[symbol]["dirty"] == 0:
        symbols(s)[symbol]["dirty"] = 1
        dirty(s)[s[DIRTY_COUNT]] = symbol
        s[DIRTY_COUNT] += 1
