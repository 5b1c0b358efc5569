"""Stops, take-profits and trailing stops: entry, election in waves, triggering (RULES §2, §13).

Hot for instruments with RuleSet.FULL where something waits. Behind a command, and behind the waves
it causes, a wave looks at what happened since the wave before: the lowest and the highest trade,
the newest one, the best displayed prices. What it elects lies in scratch[:RULES.wave_count]:
buys by ascending, then sells by descending trigger, ties by who waited first. They are triggered
and run one after the other from hdr[SETTLE_INDEX] on; one that ended meanwhile is passed over. Then
the next wave looks, until one elects nothing.

A unit is TRIGGERED; what the order then trades counts as for any other.
"""

import numpy as np

from engine.book_numba import level_displayed
from engine.book_rows import (
    ORDER_POST_ONLY,
    ORDER_SLIDE,
)
from engine.book_state import (
    ORDERS_FREE,
    SETTLE_INDEX,
    WORK_COUNT,
    calls,
    levels,
    more,
    orders,
    pending,
    rules,
    scratch,
    sides,
    symbols,
)
from engine.full_bands import static_limit
from engine.full_book import full_touch
from engine.full_emit import full_emit_triggered
from engine.full_links import link_moved
from engine.full_match import full_fail
from engine.full_modes import in_batch, trades_now
from engine.full_orders import (
    instrument_code,
    may_make,
    order_accept,
    range_code,
    rule_of,
    slid_px,
)
from engine.full_pending import (
    BY_BEST,
    BY_LAST,
    STOP_ELECTED,
    is_stop_market,
    is_trailing,
    stop_link,
    stop_unlink,
    trigger_sign,
    wave_add,
    wave_add_heap,
)
from engine.full_run import full_enter
from engine.id_table import id_insert
from engine.jit import helper, subroutine
from engine.matching import slice_full
from engine.order_due import due_insert
from engine.records import (
    PRICE_TICKS_MAX,
    CommandFlag,
    InstrumentRule,
    RejectCode,
    Side,
)

BPS = 10_000


# -------------------------------------------------------------------------------------- conditions
@helper
def best_displayed(s, symbol, side):
    """Best price of a side at which something is displayed, 0 when nothing is."""
    level = level_displayed(s, np.int64(sides(s)[symbol * 2 + side]["best"]))
    return np.int64(levels(s)[level]["px"]) if level >= 0 else np.int64(0)


@helper
def stop_looks_at(s, symbol, side, on_best):
    """The price that decides whether a stop's condition holds now, 0: there is none."""
    if on_best:
        return best_displayed(s, symbol, 1 - side)
    return np.int64(symbols(s)[symbol]["last_px"])


@helper
def trigger_true(row, px, trigger):
    """Whether the condition of a stop (its type and side are in `row`) holds at px."""
    return px != 0 and (px - trigger) * trigger_sign(row) >= 0


@helper
def trail_follow(s, slot, low, high):
    """Trades from `low` to `high` move a trailing stop."""
    row = pending(s)[slot]
    extreme, activation = np.int64(row["extreme"]), np.int64(row["activation"])
    buys = orders(s)[slot]["side"] == Side.BUY
    if (buys and low <= activation) or (not buys and high >= activation):
        row["active"] = 1
    if row["active"] == 0:
        return
    if buys:
        extreme = low if extreme == 0 else min(extreme, low)
    else:
        extreme = max(extreme, high)
    ticks = np.int64(row["distance"])
    if row["in_bps"]:
        ticks = max((extreme * ticks + BPS - 1) // BPS, np.int64(1))
    row["extreme"] = extreme
    # Not clamped: a trigger below the first tick is never reached.
    row["trigger"] = extreme + (ticks if buys else -ticks)


@helper
def trail_begin(s, slot):
    """A trailing stop begins at the last price; an activation price has to be reached first."""
    row = pending(s)[slot]
    row["active"] = row["activation"] == 0
    row["extreme"] = 0
    last = np.int64(symbols(s)[np.int64(orders(s)[slot]["symbol"])]["last_px"])
    if last != 0:
        trail_follow(s, slot, last, last)


# -------------------------------------------------------------------------------------------- entry
@helper
def pending_take(s, c, slot):
    """Fill the row in `pending` from the command."""
    row, flags = pending(s)[slot], np.int64(c["flags"])
    trails = is_trailing(np.int64(c["order_type"]))
    row["trigger"] = 0 if trails else np.int64(c["px2"])
    row["activation"] = np.int64(c["px2"]) if trails else 0
    row["distance"] = c["qty2"]
    row["extreme"] = 0
    row["on_best"] = flags & CommandFlag.TRIGGER_BEST.value != 0
    row["in_bps"] = flags & CommandFlag.DISTANCE_BPS.value != 0
    row["active"] = 0


@helper
def stop_begin(s, slot):
    """The order begins to wait for its trigger."""
    if is_trailing(np.int64(orders(s)[slot]["order_type"])):
        trail_begin(s, slot)
    id_insert(s, slot)
    if more(s)[slot]["expire_ts"] != 0 and more(s)[slot]["due"] == 0:
        due_insert(s, slot)
    stop_link(s, slot)


@helper
def stop_code(s, c, symbol, promised):
    """506 and 902 of a new stop; its level is looked for when it comes to rest."""
    on_best = np.int64(c["flags"]) & CommandFlag.TRIGGER_BEST.value != 0
    if not is_trailing(np.int64(c["order_type"])):
        px = stop_looks_at(s, symbol, np.int64(c["side"]), on_best)
        if trigger_true(c, px, np.int64(c["px2"])):
            return np.int64(RejectCode.TRIGGER_TRUE.value)
    return np.int64(RejectCode.ORDERS_FULL.value if s[ORDERS_FREE] <= promised else 0)


@helper
def stop_plan(s, c, symbol, promised):
    """All tests of NEW of a stop of any kind. Returns the reject code."""
    code = range_code(s, c, symbol)
    if code == 0:
        code = instrument_code(s, c, symbol)
    if code == 0:
        code = stop_code(s, c, symbol, promised)
    return code


@subroutine
def stop_new(s, c, symbol, text_row):
    """NEW of a stop of any kind. Returns the reject code."""
    code = stop_plan(s, c, symbol, np.int64(0))
    if code == 0:
        px, qty = np.int64(c["px"]), np.int64(c["qty"])
        slot = order_accept(s, c, symbol, text_row, px, qty)
        pending_take(s, c, slot)
        full_touch(s, symbol)
        stop_begin(s, slot)
    return code


# -------------------------------------------------------------------------------------------- waves
@helper
def elects(s, symbol):
    """Whether stops of the symbol may be triggered now: in a batch mode behind a cross only."""
    crossed = calls(s)[symbol]["traded"] != 0 and in_batch(s, symbol)
    return crossed or trades_now(s, symbol)


@helper
def wave_before(s, one, other):
    """Whether the elected order `one` is triggered before `other`."""
    side, side2 = np.int64(orders(s)[one]["side"]), np.int64(orders(s)[other]["side"])
    if side != side2:
        return side < side2
    ahead = np.int64(pending(s)[other]["trigger"]) - np.int64(pending(s)[one]["trigger"])
    if ahead != 0:
        return ahead * (1 - 2 * side) > 0
    return pending(s)[one]["wait"] < pending(s)[other]["wait"]


@helper
def wave_sift(s, start, end):
    """Restore the heap below `start` in scratch[:end], the last in turn on top."""
    root = start
    kept = np.int64(scratch(s)[root])
    while root * 2 + 1 < end:
        child = root * 2 + 1
        if child + 1 < end and wave_before(
            s, np.int64(scratch(s)[child]), np.int64(scratch(s)[child + 1])
        ):
            child += 1
        below = np.int64(scratch(s)[child])
        if not wave_before(s, kept, below):
            break
        scratch(s)[root] = below
        root = child
    scratch(s)[root] = kept


@helper
def wave_sort(s, count):
    """Sort scratch[:count] into the order of triggering. O(n log n), in place."""
    start = count // 2
    while start > 0:
        start -= 1
        wave_sift(s, start, count)
    end = count
    while end > 1:
        end -= 1
        first = scratch(s)[0]
        scratch(s)[0] = scratch(s)[end]
        scratch(s)[end] = first
        wave_sift(s, np.int64(0), end)


@helper
def wave_add_trails(s, symbol, low, high, count):
    """Move all trailing stops, elect those that the newest trade reaches; returns how many are
    elected.
    """
    last = np.int64(symbols(s)[symbol]["last_px"])
    slot = np.int64(rules(s)[symbol]["trail_first"])
    while slot >= 0:
        trail_follow(s, slot, low, high)
        row = pending(s)[slot]
        if row["active"] and trigger_true(orders(s)[slot], last, np.int64(row["trigger"])):
            count = wave_add(s, slot, count)
        slot = np.int64(row["right"])
    return count


@subroutine
def wave_elect(s, symbol):
    """Elect what the market has reached since the last wave; returns how many."""
    row = rules(s)[symbol]
    low, high = np.int64(row["wave_low"]), np.int64(row["wave_high"])
    row["wave_low"] = 0
    row["wave_high"] = 0
    count = np.int64(0)
    if low != 0:
        count = wave_add_heap(s, symbol, np.int64(BY_LAST), high, count)
        count = wave_add_heap(s, symbol, np.int64(BY_LAST + 1), low, count)
        count = wave_add_trails(s, symbol, low, high, count)
    for side in range(2):
        rising = np.int64(BY_BEST + 2 * side)
        if row["triggers"][rising] >= 0 or row["triggers"][rising + 1] >= 0:
            best = best_displayed(s, symbol, np.int64(1 - side))
            if best != 0:
                count = wave_add_heap(s, symbol, rising, best, count)
                count = wave_add_heap(s, symbol, rising + 1, best, count)
    wave_sort(s, count)
    row["wave_count"] = count
    s[SETTLE_INDEX] = 0
    return count


@helper
def waves_run(s, symbol):
    """Wave after wave until one elects nothing; returns False when the slice is full before."""
    row = rules(s)[symbol]
    while elects(s, symbol):
        if s[SETTLE_INDEX] >= row["wave_count"] and wave_elect(s, symbol) == 0:
            return True
        slot = np.int64(scratch(s)[s[SETTLE_INDEX]])
        if more(s)[slot]["waits"] != STOP_ELECTED:
            s[SETTLE_INDEX] += 1  # it ended after it was elected
        elif slice_full(s):
            return False
        else:
            s[SETTLE_INDEX] += 1
            s[WORK_COUNT] += 1
            if not stop_fire(s, slot):
                return False
    row["wave_count"] = 0  # what did not run goes on waiting
    return True


# --------------------------------------------------------------------------------------- triggering
@helper
def fired_px(s, slot):
    """Limit of a triggered order: as stated, or that of the instrument's protection, whichever is
    tighter; 0: none.
    """
    row, symbol = orders(s)[slot], np.int64(orders(s)[slot]["symbol"])
    cap, side = np.int64(row["px"]), np.int64(row["side"])
    points = rule_of(s, symbol, InstrumentRule.PROTECTION)
    if points == 0 or not is_stop_market(np.int64(row["order_type"])):
        return cap
    px = np.int64(pending(s)[slot]["trigger"]) + (1 - 2 * side) * points
    px = min(max(px, np.int64(1)), np.int64(PRICE_TICKS_MAX))
    if cap == 0:
        return px
    return min(px, cap) if side == 0 else max(px, cap)


@helper
def fired_code(s, slot):
    """502 of a post-only order, judged when it is triggered; a sliding one gets its price. 309 in a
    batch mode, where one without limit reserves at the static band.
    """
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if not trades_now(s, symbol):
        if row["px"] == 0:
            row["px"] = static_limit(s, symbol, side)
        return np.int64(RejectCode.NO_BAND.value if row["px"] == 0 else 0)
    if np.int64(row["flags"]) & ORDER_SLIDE:
        row["px"] = slid_px(s, symbol, side, np.int64(row["px"]))
    if np.int64(row["flags"]) & ORDER_POST_ONLY:
        if not may_make(s, symbol, side, np.int64(row["px"])):
            return np.int64(RejectCode.WOULD_TRADE.value)
    return np.int64(0)


@subroutine
def stop_fire(s, slot):
    """TRIGGERED, and the run of the order; returns False when the slice is full before its end."""
    trigger = np.int64(pending(s)[slot]["trigger"])
    orders(s)[slot]["px"] = fired_px(s, slot)
    stop_unlink(s, slot)
    full_emit_triggered(s, slot, trigger)
    link_moved(s, slot)
    code = fired_code(s, slot)
    if code != 0:
        full_touch(s, np.int64(orders(s)[slot]["symbol"]))
        full_fail(s, slot, code)
        return True
    return full_enter(s, slot, np.int64(0))
