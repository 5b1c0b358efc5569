"""The trading rules: what an order does when it meets the book (RULES §2, §3).

Hot. Price, then time. A command that can be long is a *work*: it is opened, run until it is done or
its slice is full, and continued by CONTINUE; hdr[WORK_*] is its whole memory. Kinds: SWEEP (an
aggressor meets the book), CANCELS and ROWS (a sorted list of order slots in `scratch`,
engine/bulk.py), IMAGE (the public is told all that rests, engine/image.py), SETTLE (what follows
from a command of the full rules, engine/full_settle.py), CALL (a change of phase,
engine/full_phases.py), QUOTE (two sides that enter one after the other, engine/full_quotes.py),
LIST (orders of a list enter one after the other, engine/full_begin.py).

Both sides are one code: `side` is an index, `sign` is +1 for buys and -1 for sells; (limit - px) *
sign >= 0 means "crosses". Nothing here raises; every function assumes its command was validated
(engine/step.py).
"""

import numpy as np

from engine.atomics import prefetch_line
from engine.book_numba import level_find, level_next, queue_append, queue_remove, symbol_touch
from engine.book_rows import (
    LIMITED_SHIFT,
    ORDER_COUNTED,
    ORDER_POST_ONLY,
    ORDER_TAG,
    ORDER_TEXT,
)
from engine.book_state import (
    FATAL,
    FATAL_SECOND_WORK,
    LEVELS_CAPACITY,
    LEVELS_USED,
    MAX_WALK,
    NONE,
    ORDER_COUNTER,
    ORDERS_FREE,
    OUT_POSITION,
    PUBLIC_REF,
    SLICE_EVENTS,
    SLICE_START,
    WORK_COUNT,
    WORK_KIND,
    WORK_ORDER,
    WORK_REF,
    WORK_SYMBOL,
    events,
    free_orders,
    levels,
    order_tag,
    order_text,
    orders,
    owner,
    sessions,
    sides,
    symbols,
    texts,
)
from engine.emit import (
    emit_accepted,
    emit_booked,
    emit_canceled,
    emit_continued,
    emit_expired,
    emit_fill_maker,
    emit_fill_taker,
    event_order,
    event_public,
)  # fmt: skip
from engine.id_table import client_id_release, id_insert
from engine.jit import helper, subroutine
from engine.records import (
    PRICE_TICKS_MAX,
    SLOT_BITS,
    CommandFlag,
    EventFlag,
    EventKind,
    OrderType,
    Reason,
    RejectCode,
    TimeInForce,
)  # fmt: skip

WORK_NONE, WORK_SWEEP, WORK_CANCELS, WORK_ROWS, WORK_IMAGE, WORK_SETTLE, WORK_CALL = range(7)
WORK_QUOTE = 7
WORK_LIST = 8


@helper
def limit_of(s, slot):
    """Worst price the order accepts, ticks."""
    order = orders(s)[slot]
    limit = np.int64(order["px"])
    if order["order_type"] == OrderType.MARKET:
        limit = np.int64(0) if order["side"] else np.int64(PRICE_TICKS_MAX)
    return limit


@helper
def best_crosses(s, symbol, side, limit):
    """Whether an order of `side` with this limit would trade at once."""
    best = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    if best < 0:
        return False
    return (limit - np.int64(levels(s)[best]["px"])) * (1 - 2 * side) >= 0


@helper
def dry_run(s, symbol, side, limit, qty):
    """Whether `qty` is available within `limit`: NONE code, FOK_UNFILLED, or WALK_TOO_LONG when
    max_walk orders did not tell.
    """
    level = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    sign = 1 - 2 * side
    wanted, seen = qty, np.int64(0)
    while level >= 0 and (limit - np.int64(levels(s)[level]["px"])) * sign >= 0:
        slot = np.int64(levels(s)[level]["head"])
        while slot >= 0:
            if seen >= s[MAX_WALK]:
                return np.int64(RejectCode.WALK_TOO_LONG.value)
            seen += 1
            wanted -= np.int64(orders(s)[slot]["leaves"])
            if wanted <= 0:
                return np.int64(0)
            slot = np.int64(orders(s)[slot]["next"])
        level = level_next(s, level)
    return np.int64(RejectCode.FOK_UNFILLED.value)


@helper
def order_release(s, slot):
    """The order is over: its slot and its client id are free again."""
    client_id_release(s, slot)
    owner(s)[slot] = 0
    free_orders(s)[s[ORDERS_FREE]] = slot
    s[ORDERS_FREE] += 1


@helper
def slice_full(s):
    """Whether the next unit has to wait for CONTINUE."""
    return s[OUT_POSITION] - s[SLICE_START] >= s[SLICE_EVENTS]


@helper
def trade(s, taker, maker):
    """One trade at the maker's price: the pair of FILLs, then the maker leaves if it is filled."""
    taker_row, maker_row = orders(s)[taker], orders(s)[maker]
    qty = min(np.int64(taker_row["leaves"]), np.int64(maker_row["leaves"]))
    px = np.int64(maker_row["px"])
    symbol = symbols(s)[np.int64(maker_row["symbol"])]
    symbol["trade_id"] += 1
    symbol["last_px"] = px
    symbol["last_qty"] = qty
    symbol["volume"] += qty
    maker_row["leaves"] -= qty
    maker_row["cum"] += qty
    taker_row["leaves"] -= qty
    taker_row["cum"] += qty
    levels(s)[np.int64(maker_row["level"])]["qty"] -= qty
    if maker_row["next"] >= 0:
        prefetch_line(orders(s), np.int64(maker_row["next"]), 0)
    emit_fill_maker(s, maker, px, qty, symbol["trade_id"])
    emit_fill_taker(s, taker, px, qty, symbol["trade_id"])
    if maker_row["leaves"] == 0:
        queue_remove(s, maker)
        order_release(s, maker)


@helper
def sweep(s, taker):
    """Trade until the order is filled or meets nothing it accepts (True), or the slice is full
    (False).
    """
    row = orders(s)[taker]
    opposite = np.int64(row["symbol"]) * 2 + (1 - np.int64(row["side"]))
    sign = 1 - 2 * np.int64(row["side"])
    limit = limit_of(s, taker)
    while row["leaves"] > 0:
        best = np.int64(sides(s)[opposite]["best"])
        if best < 0 or (limit - np.int64(levels(s)[best]["px"])) * sign < 0:
            break
        if slice_full(s):
            return False
        trade(s, taker, np.int64(levels(s)[best]["head"]))
        s[WORK_COUNT] += 1
    return True


@helper
def order_book(s, slot, old_ref):
    """The rest of the order joins its queue under a new public reference."""
    s[PUBLIC_REF] += 1
    orders(s)[slot]["public_ref"] = s[PUBLIC_REF]
    id_insert(s, slot)
    queue_append(s, slot)
    emit_booked(s, slot, old_ref)


@helper
def sweep_close(s, slot, old_ref):
    """What is left after the sweep: rests, expires, or nothing."""
    row = orders(s)[slot]
    if row["leaves"] == 0:
        order_release(s, slot)
    elif row["order_type"] == OrderType.MARKET:
        emit_expired(s, slot, Reason.MARKET_REMAINDER)
        order_release(s, slot)
    elif row["tif"] != TimeInForce.GTC:
        emit_expired(s, slot, Reason.IOC_REMAINDER)
        order_release(s, slot)
    else:
        order_book(s, slot, old_ref)


@helper
def sweep_run(s):
    """Run the open sweep; closes the work when it is done, else says CONTINUED."""
    slot = np.int64(s[WORK_ORDER])
    symbol_touch(s, np.int64(orders(s)[slot]["symbol"]))
    if sweep(s, slot):
        s[WORK_KIND] = WORK_NONE
        sweep_close(s, slot, np.int64(s[WORK_REF]))
    else:
        id_insert(s, slot)
        emit_continued(s, np.int64(s[WORK_COUNT]))
    s[WORK_COUNT] = 0


@helper
def sweep_open(s, slot, old_ref):
    """Make the sweep the open work. There is one at a time: the loop lets nothing that may trade
    run before it is complete.
    """
    if s[WORK_KIND] != WORK_NONE:
        s[FATAL] = FATAL_SECOND_WORK
    s[WORK_KIND] = WORK_SWEEP
    s[WORK_ORDER] = slot
    s[WORK_SYMBOL] = orders(s)[slot]["symbol"]
    s[WORK_REF] = old_ref
    s[WORK_COUNT] = 0


@helper
def order_enter(s, slot, old_ref):
    """The order meets the book; one that crosses nothing comes to its end without being a work."""
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if best_crosses(s, symbol, side, limit_of(s, slot)):
        sweep_open(s, slot, old_ref)
        sweep_run(s)
    else:
        symbol_touch(s, symbol)
        sweep_close(s, slot, old_ref)


# -------------------------------------------------------------------------------------------------
# commands


@helper
def new_code(s, c, symbol):
    """5xx and 9xx tests of NEW, in order of code."""
    side, qty = np.int64(c["side"]), np.int64(c["qty"])
    market = c["order_type"] == OrderType.MARKET
    limit = np.int64(c["px"])
    if market:
        limit = np.int64(0) if side else np.int64(PRICE_TICKS_MAX)
    if np.int64(c["flags"]) & CommandFlag.POST_ONLY.value and best_crosses(s, symbol, side, limit):
        return np.int64(RejectCode.WOULD_TRADE.value)
    if market and sides(s)[symbol * 2 + (1 - side)]["best"] < 0:
        return np.int64(RejectCode.NO_LIQUIDITY.value)
    too_long = np.int64(0)
    if c["tif"] == TimeInForce.FOK:
        code = dry_run(s, symbol, side, limit, qty)
        if code == RejectCode.FOK_UNFILLED:
            return code
        too_long = code
    if s[ORDERS_FREE] == 0:
        return np.int64(RejectCode.ORDERS_FULL.value)
    rests = not market and c["tif"] == TimeInForce.GTC
    if (
        rests
        and s[LEVELS_USED] >= s[LEVELS_CAPACITY]
        and level_find(s, symbol * 2 + side, limit) < 0
    ):
        return np.int64(RejectCode.LEVELS_FULL.value)
    return too_long


@helper
def order_take(s, c, symbol, text_row):
    """Fill a free slot from the command; returns the slot."""
    s[ORDERS_FREE] -= 1
    slot = np.int64(free_orders(s)[s[ORDERS_FREE]])
    s[ORDER_COUNTER] += 1
    row = orders(s)[slot]
    row["order_id"] = (np.int64(s[ORDER_COUNTER]) << SLOT_BITS) | slot
    row["client_order_id"] = c["client_order_id"]
    row["public_ref"] = 0
    row["px"] = c["px"]
    row["leaves"] = c["qty"]
    row["cum"] = 0
    row["level"] = NONE
    row["account"] = c["account"]
    row["session"] = c["session"]
    row["symbol"] = symbol
    row["side"] = c["side"]
    row["order_type"] = c["order_type"]
    row["tif"] = c["tif"]
    flags = ORDER_POST_ONLY if np.int64(c["flags"]) & CommandFlag.POST_ONLY.value else 0
    flags |= (np.int64(sessions(s)[np.int64(c["session"])]["flags"]) >> LIMITED_SHIFT) & (
        ORDER_COUNTED
    )
    if text_row > 0:
        flags |= ORDER_TEXT
        order_text(s)[slot] = text_row
        texts(s)[text_row]["order"] = slot
    if c["tag"] != 0:
        flags |= ORDER_TAG
        order_tag(s)[slot] = c["tag"]
    row["flags"] = flags
    owner(s)[slot] = c["account"]
    return slot


@helper
def new_run(s, c, symbol, text_row):
    """NEW, all tests passed: ACCEPTED, trades, then the end of the order."""
    slot = order_take(s, c, symbol, text_row)
    emit_accepted(s, slot)
    order_enter(s, slot, np.int64(0))


@helper
def order_cancel(s, slot, reason):
    """Take a resting order out of the market."""
    emit_canceled(s, slot, reason)
    symbol_touch(s, np.int64(orders(s)[slot]["symbol"]))
    queue_remove(s, slot)
    order_release(s, slot)


@helper
def replace_code(s, slot, px, total):
    """5xx and 9xx tests of a replace that loses priority."""
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if row["flags"] & ORDER_POST_ONLY and best_crosses(s, symbol, side, px):
        return np.int64(RejectCode.WOULD_TRADE.value)
    used = np.int64(s[LEVELS_USED])
    if levels(s)[np.int64(row["level"])]["count"] == 1:
        used -= 1
    if used >= s[LEVELS_CAPACITY] and level_find(s, symbol * 2 + side, px) < 0:
        return np.int64(RejectCode.LEVELS_FULL.value)
    return np.int64(0)


@helper
def replace_keep(s, slot, total):
    """Same price, total not larger: the order keeps its place."""
    row = orders(s)[slot]
    before = np.int64(row["leaves"])
    leaves = total - np.int64(row["cum"])
    levels(s)[np.int64(row["level"])]["qty"] += leaves - before
    row["leaves"] = leaves
    event = events(s)[event_order(s, EventKind.REPLACED, slot, np.int64(row["px"]), total)]
    event["shown_before"] = before
    event["shown"] = leaves
    event["public_ref"] = row["public_ref"]
    event["flags"] |= EventFlag.KEPT.value
    if leaves < before:
        symbol_touch(s, np.int64(row["symbol"]))
        event_public(s, event)


@helper
def replace_move(s, slot, px, total):
    """Price changed or total raised: leaves its queue, meets the book as an aggressor, rests at the
    back.
    """
    row = orders(s)[slot]
    before, ref = np.int64(row["leaves"]), np.int64(row["public_ref"])
    queue_remove(s, slot)
    row["px"] = px
    row["leaves"] = total - np.int64(row["cum"])
    row["public_ref"] = 0
    event = events(s)[event_order(s, EventKind.REPLACED, slot, px, total)]
    event["shown_before"] = before
    event["old_ref"] = ref
    event["flags"] |= EventFlag.LEFT_BOOK.value
    if best_crosses(s, np.int64(row["symbol"]), np.int64(row["side"]), px):
        event["flags"] |= EventFlag.WILL_TRADE.value
        event_public(s, event)
        ref = np.int64(0)
    order_enter(s, slot, ref)


@subroutine
def replace_run(s, slot, px, total):
    """REPLACE of a live order; px and total are absolute. Returns a reject code, 0 when done."""
    row = orders(s)[slot]
    code = np.int64(0)
    if total <= np.int64(row["cum"]):
        order_cancel(s, slot, Reason.REPLACED_BELOW_FILLED)
    elif px == np.int64(row["px"]) and total <= np.int64(row["cum"]) + np.int64(row["leaves"]):
        replace_keep(s, slot, total)
    else:
        code = replace_code(s, slot, px, total)
        if code == 0:
            replace_move(s, slot, px, total)
    return code
