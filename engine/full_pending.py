"""Stops that wait for their trigger, so that a trade costs nothing but those it elects (RULES §2).

Hot for instruments with RuleSet.FULL. A waiting order has a slot like any other and lies in no
level; PENDING has its terms and links. Per symbol, with roots in RULES.triggers:

    0, 1           heap by last trade price: elected when it rises to the trigger, when it falls
    2, 3 / 4, 5    the same by best opposite displayed price, of buys / of sells
    trail_first    list of the trailing stops: each trade moves them all (RULES MAX_TRAILING)

The heaps are leftist: a node's left child is at least as deep as its right one, so the way along
right children is O(log n) and with it all that is done here but the collecting of what is elected,
which is O(elected). Even heaps have the lowest trigger on top, odd ones the highest.

Invariants: MORE.waits is STOP_NONE of every order that does not wait; RULES.watched counts those
that do; a parent is not behind its children; rank = 1 + rank of the right child, which is not
greater than that of the left one.
"""

import numpy as np

from engine.book_state import NONE, more, orders, pending, rules, scratch
from engine.jit import helper, subroutine
from engine.records import OrderType, Side

STOP_NONE, STOP_WAITS, STOP_ELECTED = 0, 1, 2  # MORE.waits
BY_LAST, BY_BEST = 0, 2  # first heap of those that look at the last price, at the best price


# ------------------------------------------------------------------------------------------- types
@helper
def is_stop(kind):
    """Whether orders of this type begin by waiting."""
    return kind >= OrderType.STOP and kind <= OrderType.TRAILING_STOP_LIMIT


@helper
def is_trailing(kind):
    """Whether the trigger of this type follows the market."""
    return kind == OrderType.TRAILING_STOP or kind == OrderType.TRAILING_STOP_LIMIT


@helper
def is_stop_market(kind):
    """Whether a triggered order of this type never rests."""
    return (
        kind == OrderType.STOP or kind == OrderType.TAKE_PROFIT or kind == OrderType.TRAILING_STOP
    )


@helper
def stop_waits(s, slot):
    """Whether the order in `slot` waits for its trigger."""
    return more(s)[slot]["waits"] != STOP_NONE


@helper
def trigger_sign(row):
    """1: a price at or above the trigger elects the order, -1: one at or below it."""
    kind = np.int64(row["order_type"])
    takes_profit = kind == OrderType.TAKE_PROFIT or kind == OrderType.TAKE_PROFIT_LIMIT
    return np.int64(1 if (row["side"] == Side.BUY) != takes_profit else -1)


# ------------------------------------------------------------------------------------------- heaps
@helper
def heap_of(s, slot):
    """The heap a waiting order belongs to, NONE for a trailing stop."""
    row = orders(s)[slot]
    if is_trailing(np.int64(row["order_type"])):
        return np.int64(NONE)
    falls = np.int64(trigger_sign(row) < 0)
    if pending(s)[slot]["on_best"]:
        return BY_BEST + 2 * np.int64(row["side"]) + falls
    return BY_LAST + falls


@helper
def heap_rank(s, slot):
    """Steps from `slot` to the nearest empty place below it."""
    return np.int64(pending(s)[slot]["rank"]) if slot >= 0 else np.int64(0)


@helper
def heap_balance(s, slot):
    """Let the deeper child be the left one, and renew the rank; returns whether that changed."""
    row = pending(s)[slot]
    left, right = np.int64(row["left"]), np.int64(row["right"])
    if heap_rank(s, left) < heap_rank(s, right):
        row["left"] = right
        row["right"] = left
    rank = heap_rank(s, np.int64(row["right"])) + 1
    changed = rank != np.int64(row["rank"])
    row["rank"] = rank
    return changed


@helper
def heap_hang(s, above, slot):
    """Make `slot` the right child of `above`; either may be NONE."""
    if above >= 0:
        pending(s)[above]["right"] = slot
    if slot >= 0:
        pending(s)[slot]["parent"] = above


@subroutine
def heap_merge(s, one, other, sign):
    """Join two heaps of one order (sign 1: lowest trigger on top); returns the root."""
    tail = np.int64(NONE)
    while one >= 0 and other >= 0:
        ahead = np.int64(pending(s)[other]["trigger"]) - np.int64(pending(s)[one]["trigger"])
        if ahead * sign < 0:
            one, other = other, one
        heap_hang(s, tail, one)
        tail = one
        one = np.int64(pending(s)[one]["right"])
    rest = one if one >= 0 else other
    heap_hang(s, tail, rest)
    root = rest if tail < 0 else tail
    while tail >= 0:
        heap_balance(s, tail)
        root = tail
        tail = np.int64(pending(s)[tail]["parent"])
    return root


@helper
def heap_insert(s, slot, symbol, heap):
    """Put the order into a heap of the symbol. O(log n)."""
    row = pending(s)[slot]
    row["left"] = NONE
    row["right"] = NONE
    row["parent"] = NONE
    row["rank"] = 1
    roots = rules(s)[symbol]["triggers"]
    roots[heap] = heap_merge(s, np.int64(roots[heap]), slot, 1 - 2 * (heap & 1))


@helper
def heap_remove(s, slot, symbol, heap):
    """Take the order out of its heap, wherever in it. O(log n)."""
    row = pending(s)[slot]
    above = np.int64(row["parent"])
    below = heap_merge(s, np.int64(row["left"]), np.int64(row["right"]), 1 - 2 * (heap & 1))
    if below >= 0:
        pending(s)[below]["parent"] = above
    if above < 0:
        rules(s)[symbol]["triggers"][heap] = below
    elif np.int64(pending(s)[above]["left"]) == slot:
        pending(s)[above]["left"] = below
    else:
        pending(s)[above]["right"] = below
    # Each step up that changes a rank comes to a higher one: at most O(log n).
    while above >= 0 and heap_balance(s, above):
        above = np.int64(pending(s)[above]["parent"])


# ------------------------------------------------------------------------------------ trailing list
@helper
def trail_link(s, slot, symbol):
    """Put the order in front of the trailing stops of its symbol; their order says nothing."""
    book, row = rules(s)[symbol], pending(s)[slot]
    first = np.int64(book["trail_first"])
    row["left"] = NONE
    row["right"] = first
    if first >= 0:
        pending(s)[first]["left"] = slot
    book["trail_first"] = slot
    book["trails"] += 1


@helper
def trail_unlink(s, slot, symbol):
    """Take the order out of the list of trailing stops."""
    row = pending(s)[slot]
    ahead, behind = np.int64(row["left"]), np.int64(row["right"])
    if ahead >= 0:
        pending(s)[ahead]["right"] = behind
    else:
        rules(s)[symbol]["trail_first"] = behind
    if behind >= 0:
        pending(s)[behind]["left"] = ahead
    rules(s)[symbol]["trails"] -= 1


# --------------------------------------------------------------------------------- waiting, elected
@subroutine
def stop_link(s, slot):
    """The order, with all its terms, begins to wait: behind those that do already."""
    symbol = np.int64(orders(s)[slot]["symbol"])
    rules(s)[symbol]["waits"] += 1
    rules(s)[symbol]["watched"] += 1
    pending(s)[slot]["wait"] = rules(s)[symbol]["waits"]
    more(s)[slot]["waits"] = STOP_WAITS
    heap = heap_of(s, slot)
    if heap >= 0:
        heap_insert(s, slot, symbol, heap)
    else:
        trail_link(s, slot, symbol)


@subroutine
def stop_unlink(s, slot):
    """The order does not wait any more."""
    symbol, heap = np.int64(orders(s)[slot]["symbol"]), heap_of(s, slot)
    if heap >= 0:
        heap_remove(s, slot, symbol, heap)
    else:
        trail_unlink(s, slot, symbol)
    more(s)[slot]["waits"] = STOP_NONE
    rules(s)[symbol]["watched"] -= 1


@helper
def wave_note(s, symbol, px):
    """A trade at px: the next wave looks at the lowest and the highest since the one before."""
    row = rules(s)[symbol]
    low = np.int64(row["wave_low"])
    row["wave_low"] = px if low == 0 else min(low, px)
    row["wave_high"] = max(np.int64(row["wave_high"]), px)


@helper
def wave_add(s, slot, count):
    """The order is elected; returns how many are."""
    more(s)[slot]["waits"] = STOP_ELECTED
    scratch(s)[count] = slot
    return count + 1


@helper
def wave_add_reached(s, slot, px, sign, count):
    """Elect an order, if there is one, when px reaches its trigger; returns how many are."""
    if slot >= 0 and (px - np.int64(pending(s)[slot]["trigger"])) * sign >= 0:
        return wave_add(s, slot, count)
    return count


@subroutine
def wave_add_heap(s, symbol, heap, px, count):
    """Elect all of a heap whose trigger px reaches: behind what is collected, children behind
    parents. Returns how many are elected.
    """
    sign = 1 - 2 * (heap & 1)
    place = count
    count = wave_add_reached(s, np.int64(rules(s)[symbol]["triggers"][heap]), px, sign, count)
    while place < count:
        slot = np.int64(scratch(s)[place])
        for child in (np.int64(pending(s)[slot]["left"]), np.int64(pending(s)[slot]["right"])):
            count = wave_add_reached(s, child, px, sign, count)
        place += 1
    return count
