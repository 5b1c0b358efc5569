"""The structure of the books: price tree, levels, queues.

Hot. One process writes (the shard, or
LocalExchange); readers of the shared copy look at the versioned top only, or recheck
``hdr[BATCH_VERSION]``.

    sides[symbol * 2 + side] --best--> levels[..] --head--> orders[..] <--next/prev--> orders[..]
    (time order) |                           ^ +--root--> nodes: 64-way bitmap tree over the 31 bits
    of the price, six nodes deep, leaf bit = level

Any price 1 .. 2**31-1 may hold a level, without a window: a level costs 32 bytes and at most six
tree nodes, and the next better or worse level is found by bit scans (one per node), never by
walking prices. A side remembers the leaves used last, so most inserts touch no inner node.

Invariants (engine/book_check.py verifies all): a level exists iff it has an order; level qty = sum
of its orders; `best` is the best level; free list + live = pool. Free lists are stacks, so replay
gives the same slots. Limits: ShardLimits. Nodes cannot run out: six per level and two per side are
reserved.
"""

import numpy as np

from engine.atomics import ALL_BITS, leading_zeros, trailing_zeros
from engine.book_state import (
    DIRTY_COUNT,
    LEVELS_FREE,
    LEVELS_USED,
    NODE_FAN,
    NODES_FREE,
    NONE,
    RECENT_LEAVES,
    TOUCHED,
    TREE_BITS,
    TREE_HEIGHT,
    dirty,
    free_levels,
    free_nodes,
    levels,
    node_bits,
    node_child,
    node_parent,
    orders,
    recent,
    sides,
    symbols,
)
from engine.jit import helper, subroutine

# ------------------------------------------------------------------------------- price tree


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
def recent_place(side_index, px):
    """Where a side remembers the leaf that covers px."""
    return side_index * RECENT_LEAVES + ((px >> TREE_BITS) & (RECENT_LEAVES - 1))


@helper
def leaf_peek(s, side_index, px):
    """Leaf node that covers px, NONE when there is none; changes nothing. O(1) in one of the leaves
    used last, else five loads.
    """
    known = recent(s)[recent_place(side_index, px)]
    if known >> 32 == px >> TREE_BITS:
        return known & 0xFFFFFFFF
    node = np.int64(sides(s)[side_index]["root"])
    height = TREE_HEIGHT
    while height > 0 and node >= 0:
        node = np.int64(
            node_child(s)[(node << TREE_BITS) + ((px >> (TREE_BITS * height)) & (NODE_FAN - 1))]
        )
        height -= 1
    return node


@helper
def leaf_find(s, side_index, px):
    """`leaf_peek`, and remember it."""
    node = leaf_peek(s, side_index, px)
    if node >= 0:
        recent(s)[recent_place(side_index, px)] = ((px >> TREE_BITS) << 32) | node
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
    recent(s)[recent_place(side_index, px)] = ((px >> TREE_BITS) << 32) | node
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
    """Best level strictly worse than px, climbing from `node` (at `height`, on px's path); NONE
    when there is none.
    """
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


@helper
def level_displayed(s, level):
    """`level`, or the first one behind it on which something is displayed; NONE when there is none.
    Of plain rules every level is.
    """
    while level >= 0 and levels(s)[level]["qty"] == 0:
        level = level_next(s, level)
    return level


# ------------------------------------------------------------------------ levels and queues


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


@subroutine
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
        if height == 0:
            recent(s)[recent_place(side_index, px)] = NONE
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
