"""How one round of a level is shared out: top, lead market makers, base, residue (RULES §4).

Hot for instruments whose levels are shared out, never run for others. `share_out` fills in
more[slot].share of each displayed order of others than the aggressor: what it gets of this round.
Each step uses what earlier steps left, and nobody gets more than it displays. Integers only: lots
stay below 2**31, a level below 2**55, and no product leaves 63 bits.

A step costs O(displayed orders); sorting by size O(n log n), in place, by MORE.link.
"""

import numpy as np

from engine.book_state import NONE, dark, levels, more, orders, rules
from engine.full_book import own_met
from engine.jit import helper, subroutine
from engine.records import Algorithm, InstrumentRule

PRO_RATA_LEAST = 2  # lots; a smaller share is none
DIGIT_BITS, DIGITS = 6, 10  # of share_part: a level holds less than 2**55 lots


# -------------------------------------------------------------------------- the orders of a level
@helper
def other_from(s, taker, slot, end):
    """The first order from `slot` on, before `end`, that is not the aggressor's own; or `end`."""
    while slot != end and own_met(s, taker, slot):
        slot = np.int64(orders(s)[slot]["next"])
    return slot


@helper
def other_next(s, taker, slot, end):
    """The next of them."""
    return other_from(s, taker, np.int64(orders(s)[slot]["next"]), end)


@helper
def displayed_first(s, taker, level):
    """The first displayed order of others, and where the displayed ones end."""
    end = np.int64(dark(s)[level]["head"])
    return other_from(s, taker, np.int64(levels(s)[level]["head"]), end), end


@helper
def share_size(s, slot):
    """What may still be given to an order."""
    return np.int64(more(s)[slot]["shown"]) - np.int64(more(s)[slot]["share"])


@helper
def share_give(s, slot, qty):
    """Give it as much of qty as it can take; returns how much."""
    given = min(qty, share_size(s, slot))
    more(s)[slot]["share"] += given
    return given


@helper
def share_left(s, taker, level):
    """What may still be given to all."""
    total = np.int64(0)
    slot, end = displayed_first(s, taker, level)
    while slot != end:
        total += share_size(s, slot)
        slot = other_next(s, taker, slot, end)
    return total


# --------------------------------------------------------------------------------------- the steps
@helper
def share_fifo(s, taker, level, qty):
    """By time."""
    given = np.int64(0)
    slot, end = displayed_first(s, taker, level)
    while slot != end and given < qty:
        given += share_give(s, slot, qty - given)
        slot = other_next(s, taker, slot, end)
    return given


@helper
def share_top(s, taker, level, qty):
    """To the top order of the side, if it stands here and is somebody else's."""
    side_index = np.int64(levels(s)[level]["side"])
    top = np.int64(rules(s)[side_index >> 1]["top"][side_index & 1]) - 1
    if top < 0 or np.int64(orders(s)[top]["level"]) != level or own_met(s, taker, top):
        return np.int64(0)
    return share_give(s, top, qty)


@helper
def share_lead(s, taker, level, qty):
    """To each lead market maker its percentage, its top order excluded."""
    side_index = np.int64(levels(s)[level]["side"])
    row = rules(s)[side_index >> 1]
    top = np.int64(row["top"][side_index & 1]) - 1
    all_given = np.int64(0)
    for place in range(np.int64(row["lead_count"])):
        account = np.int64(row["lead_account"][place])
        rest = qty * np.int64(row["lead_percent"][place]) // 100
        slot, end = displayed_first(s, taker, level)
        while slot != end and rest > 0:
            if slot != top and np.int64(orders(s)[slot]["account"]) == account:
                given = share_give(s, slot, rest)
                rest -= given
                all_given += given
            slot = other_next(s, taker, slot, end)
    return all_given


@helper
def share_pro_rata(s, taker, level, qty):
    """By size; a share of less than two lots is none."""
    total, given = share_left(s, taker, level), np.int64(0)
    slot, end = displayed_first(s, taker, level)
    while slot != end and total > 0:
        part = qty * share_size(s, slot) // total
        if part >= PRO_RATA_LEAST:
            given += share_give(s, slot, part)
        slot = other_next(s, taker, slot, end)
    return given


@helper
def share_split(s, taker, level, qty):
    """A percentage by time, the rest by size."""
    side_index = np.int64(levels(s)[level]["side"])
    percent = np.int64(rules(s)[side_index >> 1]["rule"][InstrumentRule.FIFO_PERCENT.value])
    first = share_fifo(s, taker, level, qty * percent // 100)
    return first + share_pro_rata(s, taker, level, qty - first)


@helper
def times_over(a, b, c):
    """(a * b // c, a * b % c) for 0 <= a < 2**60, 0 <= b < 2**56, 0 < c < 2**55."""
    if a < 1 << 31 and b < 1 << 32:
        return a * b // c, a * b % c
    found, rest = np.int64(0), np.int64(0)
    for place in range(DIGITS):
        digit = (a >> (DIGIT_BITS * (DIGITS - 1 - place))) & ((1 << DIGIT_BITS) - 1)
        rest = (rest << DIGIT_BITS) + digit * b
        found = (found << DIGIT_BITS) + rest // c
        rest %= c
    return found, rest


@helper
def time_part(qty, size, before, total):
    """qty * ((T - A')**2 - (T - A)**2) // T**2 with T all sizes, A' and A those before an order and
    with it: qty * size * (2T - A' - A) // T**2, without a product beyond 63 bits.
    """
    weight = 2 * total - 2 * before - size
    whole, rest = qty * size // total, qty * size % total
    found, over = times_over(whole, weight, total)
    under, _ = times_over(rest, weight, total)
    return found + (over + under) // total


@helper
def share_by_time(s, taker, level, qty):
    """By size, the more the earlier."""
    total, given, before = share_left(s, taker, level), np.int64(0), np.int64(0)
    slot, end = displayed_first(s, taker, level)
    while slot != end and total > 0:
        size = share_size(s, slot)
        given += share_give(s, slot, time_part(qty, size, before, total))
        before += size
        slot = other_next(s, taker, slot, end)
    return given


@helper
def sizes_list(s, taker, level):
    """Link the displayed orders of others in queue order; returns the first."""
    slot, end = displayed_first(s, taker, level)
    first = slot
    while slot != end:
        after = other_next(s, taker, slot, end)
        more(s)[slot]["link"] = after if after != end else NONE
        slot = after
    return first if first != end else np.int64(NONE)


@helper
def stays_before(s, left, right, smallest):
    """Whether an order of the left run is taken before one of the right: the larger slice first,
    or (`smallest`) the smaller open quantity, then the earlier.
    """
    if not smallest:
        return more(s)[left]["shown"] >= more(s)[right]["shown"]
    less = np.int64(orders(s)[right]["leaves"]) - np.int64(orders(s)[left]["leaves"])
    return less > 0 or (less == 0 and more(s)[left]["rank"] < more(s)[right]["rank"])


@helper
def runs_merge(s, first, length, smallest):
    """Merge neighbouring runs of `length` into one; returns (first of the list, how many
    merges).
    """
    head, tail, merges = np.int64(NONE), np.int64(NONE), np.int64(0)
    left = first
    while left >= 0:
        merges += 1
        right, left_count, right_count = left, np.int64(0), length
        while left_count < length and right >= 0:
            right = np.int64(more(s)[right]["link"])
            left_count += 1
        while left_count > 0 or (right_count > 0 and right >= 0):
            from_left = right_count == 0 or right < 0
            if not from_left and left_count > 0:
                from_left = stays_before(s, left, right, smallest)
            taken = left if from_left else right
            if from_left:
                left, left_count = np.int64(more(s)[left]["link"]), left_count - 1
            else:
                right, right_count = np.int64(more(s)[right]["link"]), right_count - 1
            if tail >= 0:
                more(s)[tail]["link"] = taken
            else:
                head = taken
            tail = taken
        left = right
    if tail >= 0:
        more(s)[tail]["link"] = NONE
    return head, merges


@helper
def link_sort(s, slot, smallest):
    """Sort a list that begins at `slot`: the largest slice first, equal ones as they stood, or
    (`smallest`) the smallest open quantity first, then by time. Returns its first.
    """
    length, merges = np.int64(1), np.int64(2)
    while merges > 1:
        slot, merges = runs_merge(s, slot, length, smallest)
        length *= 2
    return slot


@helper
def share_by_size(s, taker, level, qty):
    """The largest displayed first, equal ones by time."""
    slot = link_sort(s, sizes_list(s, taker, level), False)
    given = np.int64(0)
    while slot >= 0 and given < qty:
        given += share_give(s, slot, qty - given)
        slot = np.int64(more(s)[slot]["link"])
    return given


@helper
def share_base(s, taker, level, qty):
    """By the base of the instrument."""
    symbol = np.int64(levels(s)[level]["side"]) >> 1
    base = np.int64(rules(s)[symbol]["rule"][InstrumentRule.ALGORITHM.value])
    given = np.int64(0)
    if base == Algorithm.PRO_RATA:
        given = share_pro_rata(s, taker, level, qty)
    elif base == Algorithm.FIFO_PRO_RATA:
        given = share_split(s, taker, level, qty)
    elif base == Algorithm.SIZE_PRIORITY:
        given = share_by_size(s, taker, level, qty)
    elif base == Algorithm.TIME_PRO_RATA:
        given = share_by_time(s, taker, level, qty)
    return given  # fifo: the residue is all of it


@subroutine
def share_out(s, taker, level):
    """Share out what the aggressor wants of what others display."""
    qty = min(np.int64(orders(s)[taker]["leaves"]), share_left(s, taker, level))
    qty -= share_top(s, taker, level, qty)
    qty -= share_lead(s, taker, level, qty)
    qty -= share_base(s, taker, level, qty)
    share_fifo(s, taker, level, qty)
