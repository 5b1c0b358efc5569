"""Batch modes: orders wait for crosses at one price, again and again (RULES §4, §13 Calls).

Hot for instruments with RuleSet.FULL in a batch mode, else never run. batch_auction crosses at
multiples of `batch_ms` while something waits for it; balanced_batch behind the command that brings
enough to both sides, or `max_wait_ms` after the first crossing order. CALL.cross_at is the time of
the next cross, and TIME makes it happen (engine/deadline.py). A cross is the uncross of a call
(engine/full_uncross.py), done once.

What is enough is judged behind each command from counts and sums of levels, O(levels that cross)
and the market orders that wait; no order of a level is looked at.
"""

import numpy as np

from engine.book_numba import level_next
from engine.book_rows import (
    ROW_BUYS,
)
from engine.book_state import (
    IN_TS,
    SETTLE_INDEX,
    TIMED_SYMBOLS,
    aside,
    calls,
    levels,
    orders,
    rules,
    sides,
)
from engine.deadline import deadline_note
from engine.full_book import full_touch, level_total
from engine.full_calls import cross_clear
from engine.full_lines import side_step
from engine.full_modes import collects, in_balanced, in_batch, market_count
from engine.full_uncross import leave_open, leave_run
from engine.instrument_rules import emit_algorithm, rounds_set
from engine.jit import helper, subroutine
from engine.records import Algorithm, InstrumentRule

MS = 10**6


# ------------------------------------------------------------------------------- is there a cross
@helper
def best_limit(s, side_index):
    """The best price of a side, of market orders what they reserved at; 0: nobody is there."""
    return side_step(s, side_index, np.int64(sides(s)[side_index]["best"]), np.int64(0))[0]


@helper
def crossing_any(s, symbol):
    """Whether somebody on each side meets the best price of the other; market orders any."""
    bid, ask = best_limit(s, symbol * 2), best_limit(s, symbol * 2 + 1)
    if bid == 0 or ask == 0:
        return False
    both = market_count(s, symbol * 2) > 0 and market_count(s, symbol * 2 + 1) > 0
    return bid >= ask or both


@helper
def crossing_sum(s, side_index, px):
    """(orders, lots) of a side that meet px, the best of the other; market orders any."""
    side = side_index & 1
    count, lots = market_count(s, side_index), np.int64(0)
    slot = np.int64(calls(s)[side_index >> 1]["head"][ROW_BUYS + side])
    while slot >= 0:
        lots += np.int64(orders(s)[slot]["leaves"])
        slot = np.int64(aside(s)[slot]["next"])
    level = np.int64(sides(s)[side_index]["best"])
    while level >= 0 and (np.int64(levels(s)[level]["px"]) - px) * (1 - 2 * side) >= 0:
        count += np.int64(levels(s)[level]["count"])
        lots += level_total(s, level)
        level = level_next(s, level)
    return count, lots


@subroutine
def is_balanced(s, symbol):
    """Whether a balanced batch has enough on both sides."""
    if not in_balanced(s, symbol) or not crossing_any(s, symbol):
        return False
    buys, bought = crossing_sum(s, symbol * 2, best_limit(s, symbol * 2 + 1))
    sells, sold = crossing_sum(s, symbol * 2 + 1, best_limit(s, symbol * 2))
    rule = rules(s)[symbol]["rule"]
    enough = min(buys, sells) >= rule[InstrumentRule.MIN_ORDERS.value]
    percent = np.int64(rule[InstrumentRule.BALANCE_PCT.value])
    return enough and min(bought, sold) * 100 >= max(bought, sold) * percent


# ------------------------------------------------------------------------------------- its time
@helper
def cross_awaited(s, symbol):
    """Whether something waits for a cross: what crosses, and in a batch auction what lives for one
    cross only.
    """
    guests = np.int64(calls(s)[symbol]["guests"])
    guests += market_count(s, symbol * 2) + market_count(s, symbol * 2 + 1)
    return (guests > 0 and not in_balanced(s, symbol)) or crossing_any(s, symbol)


@subroutine
def batch_watch(s, symbol):
    """Set or clear the time of the next cross."""
    row, rule = calls(s)[symbol], rules(s)[symbol]["rule"]
    if not in_batch(s, symbol) or not cross_awaited(s, symbol):
        cross_clear(s, symbol)
    elif row["cross_at"] == 0:
        now = np.int64(s[IN_TS])
        if in_balanced(s, symbol):
            at = max(now + np.int64(rule[InstrumentRule.MAX_WAIT_MS.value]) * MS, np.int64(1))
        else:
            every = np.int64(rule[InstrumentRule.BATCH_MS.value]) * MS
            at = (now // every + 1) * every
        row["cross_at"] = at
        s[TIMED_SYMBOLS] += 1
        deadline_note(s, at)


# ------------------------------------------------------------------------------------- the crosses
@helper
def cross_begin(s, symbol):
    """One cross begins; engine/full_uncross.leave_run does it."""
    cross_clear(s, symbol)
    full_touch(s, symbol)
    leave_open(s, symbol, True)


@helper
def balance_run(s, symbol):
    """Cross if a balanced batch has enough now; returns False when the slice is full before the end
    of the cross.
    """
    if s[SETTLE_INDEX] == 0:
        if not is_balanced(s, symbol):
            return True
        cross_begin(s, symbol)
        s[SETTLE_INDEX] = 1
    return leave_run(s, symbol)


# --------------------------------------------------------------------------------------- a switch
@helper
def switch_crosses(s, symbol, algorithm):
    """Whether a change of the algorithm ends a batch mode with an uncross."""
    return in_batch(s, symbol) and algorithm < Algorithm.BATCH_AUCTION


@helper
def algorithm_take(s, symbol, algorithm):
    """The new algorithm is in force: PHASE, the same as before."""
    full_touch(s, symbol)
    before = np.int64(collects(s, symbol))
    rules(s)[symbol]["rule"][InstrumentRule.ALGORITHM.value] = algorithm
    rounds_set(s, symbol)
    rules(s)[symbol]["watched"] += np.int64(collects(s, symbol)) - before
    cross_clear(s, symbol)
    emit_algorithm(s, symbol)
    full_touch(s, symbol)
