"""The memory of L3 books: orders in queues of levels sorted by price, found by reference in O(1).

Hot, compiled, used by feed/itch_book.py alone. It knows nothing of our engine and nothing of ITCH.

    order_map   hash of the public reference -> order slot      (linear probing, no tombstones)
    level_map   hash of (book, price) -> level slot             book = locate * 2 + side, 0 bids
    orders      linked into the queue of their level, oldest first
    levels      linked by price, best first; the two ends of each book stand in `ends`

Slots and keys begin at 1, so zeroed arrays are empty tables. Slots are handed out from a free list
and above it from a counter. Between batches Python makes room for the worst case of the next one
(ItchBook.reserve), so nothing here can run out.

Strict: a step that a book by our rules cannot take is counted in a word of its own (V_ ...), then
done as far as it makes sense; nothing is ever raised.
"""

from typing import Any, NamedTuple

import numpy as np

from engine.jit import helper, kernel, register_warmup, subroutine
from feed.itch import LOCATES

ORDER = np.dtype(
    [("level", "<i8"), ("qty", "<i8"), ("older", "<i8"), ("newer", "<i8")],
    align=True,
)
LEVEL = np.dtype(
    [
        ("book", "<i8"),  # locate * 2 + side, 0 bids
        ("px", "<i8"),
        ("qty", "<i8"),
        ("orders", "<i8"),
        ("oldest", "<i8"),
        ("newest", "<i8"),
        ("better", "<i8"),
        ("worse", "<i8"),
    ],
    align=True,
)
SYMBOL = np.dtype(
    [
        ("stock", "<u8"),
        ("state", "<i8"),  # letter of H; 0: none seen
        ("last_px", "<i8"),
        ("last_qty", "<i8"),
        ("last_match", "<i8"),
        ("last_time", "<i8"),
        ("volume", "<i8"),
        ("trades", "<i8"),
    ],
    align=True,
)
# One row of the tape. `side` is the aggressor's ("B" or "S"; "X" of a cross, "?" where it is not
# public), `kind` the ITCH letter.
TRADE = np.dtype(
    [
        ("sequence", "<i8"),
        ("time", "<i8"),
        ("match", "<i8"),
        ("ref", "<i8"),
        ("px", "<i8"),
        ("qty", "<i8"),
        ("locate", "<i4"),
        ("kind", "u1"),
        ("side", "u1"),
        ("printable", "u1"),
        ("reserved", "u1"),
    ],
    align=True,
)

# Words of the state.
W_NEXT, W_ORDER_FREE, W_ORDER_FRESH, W_ORDERS, W_LEVEL_FREE, W_LEVEL_FRESH, W_LEVELS = range(7)
W_MESSAGES, W_TRADES, W_TAPE, W_CODE, W_PARTIAL, W_DOUBTFUL = range(7, 13)
W_CROSSING = 13  # locate whose newest order crosses: well if the next message halts its trading
V_BAD_MESSAGE, V_UNKNOWN_REF, V_DUPLICATE_REF, V_NOT_HEAD, V_OVERFILL = range(16, 21)
V_CROSSED, V_WRONG_LOCATE, V_BAD_FIELD = range(21, 24)
BOOK_WORDS = 32
VIOLATIONS = {
    "bad_message": V_BAD_MESSAGE,  # no ITCH type, or not its length
    "unknown_ref": V_UNKNOWN_REF,
    "duplicate_ref": V_DUPLICATE_REF,
    "not_head": V_NOT_HEAD,  # E of an order that is not the first of its best level
    "overfill": V_OVERFILL,  # more executed or cancelled than is there
    # In continuous trading a bid at or over an ask, and no call began with it.
    "crossed": V_CROSSED,
    "wrong_locate": V_WRONG_LOCATE,
    "bad_field": V_BAD_FIELD,  # a side that is none, no shares, no reference
}
STATE_TRADING = ord("T")
PRICE_BITS = 32
KEY_BITS = 31
KEY_MASK = (1 << KEY_BITS) - 1


class BookState(NamedTuple):
    """All memory of the books of one channel."""

    words: np.ndarray[Any, Any]
    orders: np.ndarray[Any, Any]
    order_refs: np.ndarray[Any, Any]  # of slot: the key of order_map
    order_map: np.ndarray[Any, Any]
    levels: np.ndarray[Any, Any]
    level_keys: np.ndarray[Any, Any]  # of slot: book << PRICE_BITS | px
    level_map: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]  # [book]: slots of the best and the worst level
    symbols: np.ndarray[Any, Any]  # [locate]
    tape: np.ndarray[Any, Any]


# -------------------------------------------------------------------------------------- hash tables
@helper
def _home(key, size):
    # Where a key belongs; size is a power of two. Multiplicative, in 31 bits: nothing overflows.
    low, high = key & KEY_MASK, key >> KEY_BITS
    mixed = (((low + high * 0x2545F491) & KEY_MASK) * 0x4F1BBCDD) & KEY_MASK
    return (mixed ^ (mixed >> 15)) & (size - 1)


@helper
def map_find(table, keys, key):
    """Slot of a key, 0 when absent. O(1)."""
    at = _home(key, table.size)
    while table[at] != 0 and keys[table[at]] != key:
        at = (at + 1) & (table.size - 1)
    return table[at]


@helper
def map_insert(table, keys, slot):
    """Enter a slot whose key is in `keys` already. O(1)."""
    at = _home(keys[slot], table.size)
    while table[at] != 0:
        at = (at + 1) & (table.size - 1)
    table[at] = slot


@subroutine
def map_remove(table, keys, slot):
    """Take a slot out; later ones of its run move up, so no tombstone is left. O(1)."""
    mask = table.size - 1
    hole = _home(keys[slot], table.size)
    while table[hole] != slot:
        hole = (hole + 1) & mask
    at = (hole + 1) & mask
    while table[at] != 0:
        home = _home(keys[table[at]], table.size)
        if (at - home) & mask >= (at - hole) & mask:
            table[hole] = table[at]
            hole = at
        at = (at + 1) & mask
    table[hole] = 0


@kernel
def map_rebuild(table, keys, slots):
    """Enter every slot of `slots` into an empty table (after growth)."""
    for index in range(slots.size):
        map_insert(table, keys, slots[index])


# -------------------------------------------------------------------------------- levels and orders
@helper
def violation(s, word):
    """Count a departure. After a gap the book is not whole: what looks wrong then may be our own
    ignorance, and has a counter of its own.
    """
    s.words[W_DOUBTFUL if s.words[W_PARTIAL] != 0 else word] += 1


@helper
def price_rank(book, px):
    """Price as a number of which the smaller is the better, on either side."""
    return px if book & 1 else -px


@helper
def _level_place(s, slot, book, px):
    # Link a new level into its side: searched from both ends at once, most levels open near one.
    better, worse = s.ends[book, 1], s.ends[book, 0]
    rank = price_rank(book, px)
    while worse != 0:
        if price_rank(book, s.levels[worse]["px"]) > rank:
            better = s.levels[worse]["better"]
            break
        if price_rank(book, s.levels[better]["px"]) < rank:
            worse = s.levels[better]["worse"]
            break
        worse = s.levels[worse]["worse"]
        better = s.levels[better]["better"]
    s.levels[slot]["better"] = better
    s.levels[slot]["worse"] = worse
    if better != 0:
        s.levels[better]["worse"] = slot
    else:
        s.ends[book, 0] = slot
    if worse != 0:
        s.levels[worse]["better"] = slot
    else:
        s.ends[book, 1] = slot


@subroutine
def level_open(s, book, px):
    """Slot of the level, made if it is not there. O(1) if it is, else O(distance to an end)."""
    key = (book << PRICE_BITS) | px
    slot = map_find(s.level_map, s.level_keys, key)
    if slot != 0:
        return slot
    slot = s.words[W_LEVEL_FREE]
    if slot != 0:
        s.words[W_LEVEL_FREE] = s.levels[slot]["worse"]
    else:
        s.words[W_LEVEL_FRESH] += 1
        slot = s.words[W_LEVEL_FRESH]
    s.words[W_LEVELS] += 1
    s.levels[slot]["px"] = px
    s.levels[slot]["book"] = book
    s.levels[slot]["qty"] = 0
    s.levels[slot]["orders"] = 0
    s.levels[slot]["oldest"] = 0
    s.levels[slot]["newest"] = 0
    s.level_keys[slot] = key
    map_insert(s.level_map, s.level_keys, slot)
    _level_place(s, slot, book, px)
    return slot


@subroutine
def level_close(s, slot):
    """Unlink an empty level and free its slot. O(1)."""
    level = s.levels[slot]
    book, better, worse = level["book"], level["better"], level["worse"]
    if better != 0:
        s.levels[better]["worse"] = worse
    else:
        s.ends[book, 0] = worse
    if worse != 0:
        s.levels[worse]["better"] = better
    else:
        s.ends[book, 1] = better
    map_remove(s.level_map, s.level_keys, slot)
    s.levels[slot]["worse"] = s.words[W_LEVEL_FREE]
    s.words[W_LEVEL_FREE] = slot
    s.words[W_LEVELS] -= 1


@helper
def _crosses(s, book, px):
    # Whether a new order would stand at or beyond the other side, where that may not be.
    other = s.ends[book ^ 1, 0]
    state = s.symbols[book >> 1]["state"]
    if other == 0 or (state != STATE_TRADING and state != 0):
        return False
    return price_rank(book, px) <= price_rank(book, s.levels[other]["px"])


@subroutine
def order_add(s, book, ref, px, qty):
    """Put an order at the end of its level's queue. O(1) but for a new level."""
    if ref < 1 or qty < 1:
        violation(s, V_BAD_FIELD)
        return
    if map_find(s.order_map, s.order_refs, ref) != 0:
        violation(s, V_DUPLICATE_REF)
        return
    if _crosses(s, book, px):
        s.words[W_CROSSING] = book >> 1
    slot = s.words[W_ORDER_FREE]
    if slot != 0:
        s.words[W_ORDER_FREE] = s.orders[slot]["newer"]
    else:
        s.words[W_ORDER_FRESH] += 1
        slot = s.words[W_ORDER_FRESH]
    s.words[W_ORDERS] += 1
    s.order_refs[slot] = ref
    map_insert(s.order_map, s.order_refs, slot)
    at = level_open(s, book, px)
    newest = s.levels[at]["newest"]
    s.orders[slot]["qty"] = qty
    s.orders[slot]["level"] = at
    s.orders[slot]["older"] = newest
    s.orders[slot]["newer"] = 0
    if newest != 0:
        s.orders[newest]["newer"] = slot
    else:
        s.levels[at]["oldest"] = slot
    s.levels[at]["newest"] = slot
    s.levels[at]["qty"] += qty
    s.levels[at]["orders"] += 1


@subroutine
def order_remove(s, slot):
    """Take an order out of the book. O(1)."""
    at = s.orders[slot]["level"]
    older, newer = s.orders[slot]["older"], s.orders[slot]["newer"]
    if older != 0:
        s.orders[older]["newer"] = newer
    else:
        s.levels[at]["oldest"] = newer
    if newer != 0:
        s.orders[newer]["older"] = older
    else:
        s.levels[at]["newest"] = older
    s.levels[at]["qty"] -= s.orders[slot]["qty"]
    s.levels[at]["orders"] -= 1
    map_remove(s.order_map, s.order_refs, slot)
    s.orders[slot]["newer"] = s.words[W_ORDER_FREE]
    s.words[W_ORDER_FREE] = slot
    s.words[W_ORDERS] -= 1
    if s.levels[at]["orders"] == 0:
        level_close(s, at)


@helper
def order_reduce(s, slot, qty):
    """Take shares off an order; it leaves with the last of them. O(1)."""
    left = s.orders[slot]["qty"]
    if qty > left:
        violation(s, V_OVERFILL)
    if qty >= left:
        order_remove(s, slot)
    else:
        s.orders[slot]["qty"] = left - qty
        s.levels[s.orders[slot]["level"]]["qty"] -= qty


def make_state(orders: int, levels: int, tape: int) -> BookState:
    """Return empty books with room for so many orders, levels and trades of one batch."""
    words = np.zeros(BOOK_WORDS, np.int64)
    words[W_NEXT] = 1
    return BookState(
        words,
        np.zeros(orders + 1, ORDER),
        np.zeros(orders + 1, np.int64),
        np.zeros(map_size(orders), np.int64),
        np.zeros(levels + 1, LEVEL),
        np.zeros(levels + 1, np.int64),
        np.zeros(map_size(levels), np.int64),
        np.zeros((LOCATES * 2, 2), np.int64),
        np.zeros(LOCATES, SYMBOL),
        np.zeros(tape, TRADE),
    )


def map_size(entries: int) -> int:
    """Size of a hash table: a power of two, at most half full."""
    return 1 << (2 * entries).bit_length()


def _warm_up() -> None:
    state = make_state(1, 1, 1)
    map_rebuild(state.order_map, state.order_refs, np.zeros(0, np.int64))


register_warmup("feed.book_store", _warm_up)
