"""An aggressor of the full rules meets the book: icebergs, hidden quantity, self-trades (RULES §2).

Hot for instruments with RuleSet.FULL. The same work as engine/matching.py (SWEEP in slices), level
by level from the front of its queue. On reaching a level it is decided once whether the aggressor
takes all of it: then each order fills once, whole; otherwise an iceberg trades slice by slice, each
shown again at the back of the level. WORK_CURSOR is the price this was decided for, WORK_TOTAL the
answer.

A unit is one pair of fills with what follows from it, or one prevention.
"""

import numpy as np

from engine.atomics import prefetch_line
from engine.book_numba import level_find, level_next
from engine.book_rows import (
    ORDER_HIDDEN,
)
from engine.book_state import (
    LEVELS_CAPACITY,
    LEVELS_USED,
    MAX_WALK,
    NONE,
    PUBLIC_REF,
    WORK_COUNT,
    WORK_CURSOR,
    WORK_TOTAL,
    events,
    levels,
    more,
    orders,
    rules,
    sides,
    symbols,
)
from engine.full_aside import rank_new
from engine.full_bands import dynamic_range, full_traded
from engine.full_book import (
    full_append,
    full_refresh,
    full_remove,
    full_shrink,
    level_total,
    own_met,
)
from engine.full_emit import (
    full_emit_booked,
    full_emit_ended,
    full_emit_prevented,
    full_emit_refreshed,
    full_emit_trade,
)
from engine.full_links import (
    full_end,
    full_expire,
    full_release,
    link_ended,
    link_moved,
    link_over,
    links_traded,
)
from engine.full_pending import is_stop_market
from engine.full_rounds import level_crowded, round_open, share_next, share_offers, top_seek
from engine.id_table import id_insert
from engine.jit import helper, subroutine
from engine.matching import slice_full
from engine.order_due import due_insert
from engine.quoters import quote_filled
from engine.records import (
    PRICE_TICKS_MAX,
    EventKind,
    OrderType,
    Reason,
    RejectCode,
    SelfTrade,
    TimeInForce,
)  # fmt: skip

# What a sweep comes to: nothing more to meet, slice full, prevented, beyond the dynamic band.
DONE, WAITS, ENDED, BREACH = 0, 1, 2, 3


@helper
def full_id_insert(s, slot):
    """Index the order by its client id; that of a quote names two orders, and so neither."""
    if more(s)[slot]["quoter"] == 0:
        id_insert(s, slot)


@subroutine
def full_fail(s, slot, code):
    """An order that is in no queue expires, because it cannot go on as it was accepted."""
    index = full_emit_ended(s, EventKind.EXPIRED, slot, Reason.NONE)
    events(s)[index]["code"] = code
    full_release(s, slot)
    link_over(s, slot)


@helper
def full_trade(s, taker, maker, qty):
    """One trade at the maker's price, and what follows for the maker."""
    taker_row, maker_row = orders(s)[taker], orders(s)[maker]
    px = np.int64(maker_row["px"])
    symbol = symbols(s)[np.int64(maker_row["symbol"])]
    symbol["trade_id"] += 1
    full_traded(s, np.int64(maker_row["symbol"]), px)
    symbol["last_qty"] = qty
    symbol["volume"] += qty
    displayed = min(qty, np.int64(more(s)[maker]["shown"]))
    full_shrink(s, maker, displayed, qty - displayed)
    maker_row["cum"] += qty
    taker_row["leaves"] -= qty
    taker_row["cum"] += qty
    full_emit_trade(s, taker, maker, (px, qty, displayed, np.int64(symbol["trade_id"])))
    if (more(s)[maker]["quoter"] | more(s)[taker]["quoter"]) != 0:
        quote_filled(s, maker, qty)
        quote_filled(s, taker, qty)
    if maker_row["leaves"] == 0:
        full_remove(s, maker)
        full_release(s, maker)
    if more(s)[maker]["linked"] | more(s)[taker]["linked"] != 0:
        links_traded(s, maker, taker)
    if maker_row["leaves"] == 0:
        return
    if more(s)[maker]["shown"] == 0 and np.int64(maker_row["flags"]) & ORDER_HIDDEN == 0:
        if rules(s)[np.int64(maker_row["symbol"])]["rounds"] == 0:  # else behind the round
            slice_show(s, maker)


@helper
def slice_show(s, slot):
    """The next slice of an iceberg, under a new public reference."""
    old_ref = np.int64(orders(s)[slot]["public_ref"])
    rank_new(s, slot)
    full_refresh(s, slot)
    s[PUBLIC_REF] += 1
    orders(s)[slot]["public_ref"] = s[PUBLIC_REF]
    full_emit_refreshed(s, slot, old_ref)


@helper
def maker_prevented(s, maker, qty):
    """Take `qty` from a resting order, what it holds back first."""
    held = np.int64(orders(s)[maker]["leaves"]) - np.int64(more(s)[maker]["shown"])
    displayed = max(qty - held, np.int64(0))
    full_shrink(s, maker, displayed, qty - displayed)
    more(s)[maker]["prevented"] += qty


@subroutine
def prevent(s, taker, maker):
    """The aggressor meets an order of its own; returns whether the aggressor has ended."""
    mode = np.int64(more(s)[taker]["stp"])
    decrement = mode >= SelfTrade.DECREMENT  # between two orders of one account nothing moves
    qty, shown = np.int64(0), np.int64(more(s)[maker]["shown"])
    if decrement:
        mode = np.int64(SelfTrade.DECREMENT.value)
        qty = min(np.int64(orders(s)[taker]["leaves"]), np.int64(orders(s)[maker]["leaves"]))
        maker_prevented(s, maker, qty)
        orders(s)[taker]["leaves"] -= qty
        more(s)[taker]["prevented"] += qty
    full_emit_prevented(s, maker, taker, (mode, qty, shown))
    full_emit_prevented(s, taker, maker, (mode, qty, np.int64(0)))
    if decrement and orders(s)[maker]["leaves"] == 0:
        more(s)[maker]["shown"] = shown  # as the public knows it
        full_emit_ended(s, EventKind.EXPIRED, maker, Reason.SELF_TRADE)
        more(s)[maker]["shown"] = 0
        full_remove(s, maker)
        full_release(s, maker)
        link_over(s, maker)
    elif mode == SelfTrade.EXPIRE_MAKER or mode == SelfTrade.EXPIRE_BOTH:
        full_end(s, EventKind.EXPIRED, maker, Reason.SELF_TRADE)
    link_moved(s, maker)
    link_moved(s, taker)
    ends = orders(s)[taker]["leaves"] == 0 if decrement else mode != SelfTrade.EXPIRE_MAKER
    if ends:
        full_emit_ended(s, EventKind.EXPIRED, taker, Reason.SELF_TRADE)
        link_ended(s, taker)
    return ends


@helper
def full_limit(s, slot):
    """Worst price the order accepts, ticks."""
    return limit_or_any(np.int64(orders(s)[slot]["px"]), np.int64(orders(s)[slot]["side"]))


@helper
def limit_or_any(px, side):
    """A stated limit; a price of 0 is none."""
    return px if px != 0 or side != 0 else np.int64(PRICE_TICKS_MAX)


@helper
def is_hidden(s, slot):
    return np.int64(orders(s)[slot]["flags"]) & ORDER_HIDDEN != 0


@helper
def level_begin(s, level, leaves):
    """Decide, once per level, whether the aggressor takes all of it."""
    px = np.int64(levels(s)[level]["px"])
    if s[WORK_CURSOR] != px:
        s[WORK_CURSOR] = px
        s[WORK_TOTAL] = leaves >= level_total(s, level)


@helper
def fifo_next(s, level, leaves):
    """Whom an aggressor with so much open meets next where time decides: (order, lots)."""
    level_begin(s, level, leaves)
    maker = np.int64(levels(s)[level]["head"])
    if orders(s)[maker]["next"] >= 0:
        prefetch_line(orders(s), np.int64(orders(s)[maker]["next"]), 0)
    qty = np.int64(orders(s)[maker]["leaves"])
    if s[WORK_TOTAL] == 0 and not is_hidden(s, maker):
        qty = np.int64(more(s)[maker]["shown"])
    return maker, min(qty, leaves)


@helper
def full_sweep(s, taker):
    """Trade until the order meets nothing it accepts, is prevented, or the slice is full."""
    row = orders(s)[taker]
    symbol = np.int64(row["symbol"])
    opposite = symbol * 2 + (1 - np.int64(row["side"]))
    sign = 1 - 2 * np.int64(row["side"])
    limit = full_limit(s, taker)
    lowest, highest = dynamic_range(s, symbol)
    rounds = rules(s)[symbol]["rounds"] != 0
    while row["leaves"] > 0 or (rounds and round_open(s, symbol)):
        level = np.int64(sides(s)[opposite]["best"])
        if level < 0 or (limit - np.int64(levels(s)[level]["px"])) * sign < 0:
            break
        if levels(s)[level]["px"] < lowest or levels(s)[level]["px"] > highest:
            return BREACH
        if slice_full(s):
            return WAITS
        if rounds:
            maker, qty = share_next(s, taker, level)
        else:
            maker, qty = fifo_next(s, level, np.int64(row["leaves"]))
        s[WORK_COUNT] += 1
        if qty == 0:
            slice_show(s, maker)
        elif own_met(s, taker, maker):
            if prevent(s, taker, maker):
                return ENDED
        else:
            full_trade(s, taker, maker, qty)
    return DONE


@helper
def full_book(s, slot, old_ref):
    """The rest of the order joins its queue."""
    row, extra = orders(s)[slot], more(s)[slot]
    leaves, peak = np.int64(row["leaves"]), np.int64(extra["peak"])
    shown = leaves
    if is_hidden(s, slot):
        shown = np.int64(0)
    elif peak > 0:
        shown = min(peak, leaves)
    extra["shown"] = shown
    if shown > 0:
        s[PUBLIC_REF] += 1
        row["public_ref"] = s[PUBLIC_REF]
    if extra["rank"] == 0:
        rank_new(s, slot)
    top_seek(s, slot)
    full_id_insert(s, slot)
    full_append(s, slot)
    if extra["expire_ts"] != 0 and extra["due"] == 0:
        due_insert(s, slot)
    full_emit_booked(s, slot, old_ref)


@helper
def remainder_reason(row):
    """Why what is left of an order expires behind its run; 0: it rests."""
    kind = np.int64(row["order_type"])
    unlimited = kind == OrderType.MARKET or kind == OrderType.BUDGET
    if unlimited or (is_stop_market(kind) and row["px"] == 0):
        return np.int64(Reason.MARKET_REMAINDER.value)
    if is_stop_market(kind) or row["tif"] == TimeInForce.IOC or row["tif"] == TimeInForce.FOK:
        return np.int64(Reason.IOC_REMAINDER.value)
    return np.int64(0)


@helper
def level_missing(s, row):
    """Whether the order's price has no level and none is free: what was a stop or waited for its
    call finds out only now, others were refused at entry.
    """
    if s[LEVELS_USED] < s[LEVELS_CAPACITY]:
        return False
    side_index = np.int64(row["symbol"]) * 2 + np.int64(row["side"])
    return level_find(s, side_index, np.int64(row["px"])) < 0


@helper
def place_crowded(s, slot):
    """Whether the level of the order's price has as many orders as it may have."""
    row = orders(s)[slot]
    side_index = np.int64(row["symbol"]) * 2 + np.int64(row["side"])
    return level_crowded(s, side_index, np.int64(row["px"]), np.int64(NONE))


@helper
def full_rest(s, slot, old_ref):
    """The order enters the book, unless there is no place for it any more."""
    if level_missing(s, orders(s)[slot]):
        full_fail(s, slot, np.int64(RejectCode.LEVELS_FULL.value))
    elif place_crowded(s, slot):
        full_fail(s, slot, np.int64(RejectCode.TOO_MANY.value))
    else:
        full_book(s, slot, old_ref)


@helper
def full_close(s, slot, old_ref):
    """What is left after the sweep: rests, expires, or nothing."""
    row = orders(s)[slot]
    reason = remainder_reason(row)
    if row["leaves"] == 0:
        full_release(s, slot)
    elif reason != 0:
        full_expire(s, slot, reason)
    else:
        full_rest(s, slot, old_ref)


@helper
def level_offers(s, level, rest, account, mode):
    """What an order with `rest` open trades on a level, as `full_sweep` would; returns (quantity,
    whether an own order ends the run there).
    """
    if rules(s)[np.int64(levels(s)[level]["side"]) >> 1]["rounds"] != 0:
        return share_offers(s, level, rest, account, mode)
    whole = rest >= level_total(s, level)
    found, displayed = np.int64(0), np.int64(0)
    slot = np.int64(levels(s)[level]["head"])
    while slot >= 0:
        own = np.int64(orders(s)[slot]["account"]) == account and mode != SelfTrade.NONE
        if own and mode != SelfTrade.EXPIRE_MAKER:
            # An iceberg in front has shown one slice only when the own order is met.
            met = found if whole or is_hidden(s, slot) else displayed
            return min(met, rest), met < rest
        if not own:
            found += np.int64(orders(s)[slot]["leaves"])
            displayed += np.int64(more(s)[slot]["shown"])
        slot = np.int64(orders(s)[slot]["next"])
    return min(found, rest), False


@subroutine
def full_dry_run(s, who, limit, qty, wanted):
    """Whether an order of `qty` would trade `wanted` of it at once within `limit`.

    who: (symbol, side, account, self-trade mode). Returns 0, FOK_UNFILLED, or WALK_TOO_LONG when
    levels of max_walk orders did not tell. Own orders count where nothing prevents them, are passed
    over where the maker would expire, and else end the count.
    """
    symbol, side, account, mode = who
    level = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    sign, seen, found, ends = 1 - 2 * side, np.int64(0), np.int64(0), False
    lowest, highest = dynamic_range(s, symbol)
    while (
        level >= 0
        and found < wanted
        and not ends
        and (limit - np.int64(levels(s)[level]["px"])) * sign >= 0
    ):
        seen += np.int64(levels(s)[level]["count"])
        if seen > s[MAX_WALK]:
            return np.int64(RejectCode.WALK_TOO_LONG.value)
        if levels(s)[level]["px"] < lowest or levels(s)[level]["px"] > highest:
            break
        here, ends = level_offers(s, level, qty - found, account, mode)
        found += here
        level = level_next(s, level)
    return np.int64(0 if found >= wanted else RejectCode.FOK_UNFILLED.value)
