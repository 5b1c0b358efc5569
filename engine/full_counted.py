"""The price of a balanced batch: most volume, then most orders completely filled (RULES §4).

Hot for instruments in that mode while market orders wait, else never run. Whoever is better than
the marginal price of a side is filled whole, and at it the smallest are: that is the same at every
price with the most volume, as long as the same orders take part. They do but for market orders,
which come first whatever they reserved at and take part up to there. So the prices in question are
cut into *pieces* where a market order drops out. In a piece the surplus falls, is 0, rises: what is
best there is one *stretch* of prices, or two at once.

A piece is (first price, last price, volume); a stretch (surplus or -1 for none, first, last price).
O(pieces * levels that cross), and there are as many pieces as static bands since the last cross.
"""

import numpy as np

from engine.book_numba import level_next
from engine.book_rows import (
    ROW_BUYS,
)
from engine.book_state import aside, calls, levels, more, orders, sides
from engine.full_book import level_total
from engine.full_lines import market_reaching, reference_of
from engine.full_modes import in_balanced, market_count
from engine.full_shares import link_sort
from engine.jit import helper, subroutine

NEVER = 2**40  # a price that nobody states


@helper
def is_counted(s, symbol):
    """Whether it may depend on the price how many orders are filled completely."""
    some = market_count(s, symbol * 2) + market_count(s, symbol * 2 + 1) > 0
    return some and in_balanced(s, symbol)


# ---------------------------------------------------------------------------- orders by their size
@helper
def market_from(s, slot, side, px):
    """The first market order from `slot` on that trades at px, or NONE."""
    while slot >= 0 and (np.int64(orders(s)[slot]["px"]) - px) * (1 - 2 * side) < 0:
        slot = np.int64(aside(s)[slot]["next"])
    return slot


@helper
def markets_by_size(s, side_index, px):
    """Link the market orders of a side that trade at px, the smallest first; returns the first."""
    side = side_index & 1
    first = market_from(s, np.int64(calls(s)[side_index >> 1]["head"][ROW_BUYS + side]), side, px)
    slot = first
    while slot >= 0:
        behind = market_from(s, np.int64(aside(s)[slot]["next"]), side, px)
        more(s)[slot]["link"] = behind
        slot = behind
    return link_sort(s, first, True)


@helper
def level_by_size(s, level):
    """Link the orders of a level, the smallest first; returns the first."""
    first = np.int64(levels(s)[level]["head"])
    slot = first
    while slot >= 0:
        behind = np.int64(orders(s)[slot]["next"])
        more(s)[slot]["link"] = behind
        slot = behind
    return link_sort(s, first, True)


@helper
def linked_filled(s, slot, lots):
    """How many of a linked list are filled completely by so many lots."""
    count = np.int64(0)
    while slot >= 0 and np.int64(orders(s)[slot]["leaves"]) <= lots:
        lots -= np.int64(orders(s)[slot]["leaves"])
        count += 1
        slot = np.int64(more(s)[slot]["link"])
    return count


@helper
def markets_reaching(s, side_index, px):
    """How many market orders of a side trade at px."""
    side, count = side_index & 1, np.int64(0)
    slot = market_from(s, np.int64(calls(s)[side_index >> 1]["head"][ROW_BUYS + side]), side, px)
    while slot >= 0:
        count += 1
        slot = market_from(s, np.int64(aside(s)[slot]["next"]), side, px)
    return count


@helper
def side_filled(s, side_index, px, lots):
    """How many orders of a side are filled completely when so many lots trade at px."""
    first = market_reaching(s, side_index, px)
    if first > lots:
        return linked_filled(s, markets_by_size(s, side_index, px), lots)
    count = markets_reaching(s, side_index, px)
    lots -= first
    level = np.int64(sides(s)[side_index]["best"])
    while level >= 0 and lots > 0:
        if level_total(s, level) > lots:
            return count + linked_filled(s, level_by_size(s, level), lots)
        lots -= level_total(s, level)
        count += np.int64(levels(s)[level]["count"])
        level = level_next(s, level)
    return count


# ------------------------------------------------------------------------------ what a piece says
@helper
def piece_end(s, symbol, first, last):
    """Where the piece that begins at `first` ends: the same market orders trade up to there."""
    for side in range(2):
        slot = np.int64(calls(s)[symbol]["head"][ROW_BUYS + side])
        while slot >= 0:
            px = np.int64(orders(s)[slot]["px"]) - side
            if px >= first and px < last:
                last = px
            slot = np.int64(aside(s)[slot]["next"])
    return last


@helper
def open_at(s, side_index, px):
    """Quantity of a side that would trade at px."""
    sign, qty = 1 - 2 * (side_index & 1), market_reaching(s, side_index, px)
    level = np.int64(sides(s)[side_index]["best"])
    while level >= 0 and (np.int64(levels(s)[level]["px"]) - px) * sign >= 0:
        qty += level_total(s, level)
        level = level_next(s, level)
    return qty


@helper
def level_beyond(s, side_index, px):
    """Price of the first level of a side that is worse than px; 0 of bids, NEVER of asks: none."""
    side = side_index & 1
    level = np.int64(sides(s)[side_index]["best"])
    while level >= 0:
        at = np.int64(levels(s)[level]["px"])
        if (px - at) * (1 - 2 * side) > 0:
            return at
        level = level_next(s, level)
    return np.int64(NEVER * side)


@helper
def stretch_find(s, symbol, piece, of_sells):
    """Least surplus of a piece where there is one of buys, or of sells; (-1, 0, 0): nowhere. Where
    there is no surplus at all, that is told once, as one of buys.
    """
    first, last, volume = piece
    buys, sells, none = symbol * 2, symbol * 2 + 1, np.int64(0)
    no_more_sells = open_at(s, sells, first) == volume
    no_more_buys = open_at(s, buys, last) == volume
    high = min(last, level_beyond(s, sells, first) - 1) if no_more_sells else none
    low = max(first, level_beyond(s, buys, last) + 1) if no_more_buys else last + 1
    if no_more_sells and no_more_buys and low <= high:
        return (np.int64(-1), none, none) if of_sells else (none, low, high)
    if no_more_sells and not of_sells:
        begin = max(first, level_beyond(s, buys, high) + 1)
        return open_at(s, buys, high) - volume, begin, high
    if no_more_buys and of_sells:
        end = min(last, level_beyond(s, sells, low) - 1)
        return open_at(s, sells, low) - volume, low, end
    return np.int64(-1), none, none


# --------------------------------------------------------------------------------- over all of them
@helper
def stretches_best(s, symbol, lo, hi, volume):
    """The most orders filled completely, and with them the least surplus: (how many, surplus, first
    price, last price, sides of the surplus as bits).
    """
    most, least, lowest, highest, of = np.int64(-1), np.int64(0), lo, hi, np.int64(0)
    first = lo
    while first <= hi:
        last = piece_end(s, symbol, first, hi)
        count = side_filled(s, symbol * 2, first, volume)
        count += side_filled(s, symbol * 2 + 1, first, volume)
        for side in range(2):
            surplus, low, high = stretch_find(s, symbol, (first, last, volume), side == 1)
            if surplus >= 0 and (count > most or (count == most and surplus < least)):
                most, least, lowest, highest, of = count, surplus, low, high, np.int64(0)
            if surplus >= 0 and count == most and surplus == least:
                highest = high
                of |= 1 << side
        first = last + 1
    return most, least, lowest, highest, of


@helper
def stretches_nearest(s, symbol, span, best, wanted):
    """Of the prices of the best stretches the one nearest `wanted`, the lower of two."""
    first, hi, volume = span
    most, least = best
    found = np.int64(-1)
    while first <= hi:
        last = piece_end(s, symbol, first, hi)
        count = side_filled(s, symbol * 2, first, volume)
        count += side_filled(s, symbol * 2 + 1, first, volume)
        for side in range(2):
            surplus, low, high = stretch_find(s, symbol, (first, last, volume), side == 1)
            px = min(max(wanted, low), high)
            if surplus == least and count == most:
                if found < 0 or abs(px - wanted) < abs(found - wanted):
                    found = px
        first = last + 1
    return found


@subroutine
def cross_counted(s, symbol, lo, hi, volume):
    """Which price from `lo` to `hi` a balanced batch crosses at, at each of which it trades the
    volume: (price, volume, surplus, its side).
    """
    most, least, lowest, highest, of = stretches_best(s, symbol, lo, hi, volume)
    if least > 0 and of == 1:
        px = highest
    elif least > 0 and of == 2:
        px = lowest
    else:
        wanted = reference_of(s, symbol)
        if wanted == 0:
            wanted = (lowest + highest) // 2
        px = stretches_nearest(s, symbol, (lo, hi, volume), (most, least), wanted)
    buys, sells = open_at(s, symbol * 2, px), open_at(s, symbol * 2 + 1, px)
    return px, volume, abs(buys - sells), np.int64(buys < sells)
