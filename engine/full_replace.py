"""REPLACE of an order of the full rules (RULES §3, §13).

Hot for instruments with RuleSet.FULL. All tests first, on the order as it would be: 0 in the record
keeps a value. It keeps its place unless price or minimum quantity change or the total grows.
"""

import numpy as np

from engine.book_numba import level_find
from engine.book_rows import (
    ORDER_POST_ONLY,
    ORDER_SLIDE,
)
from engine.book_state import (
    IN_TS,
    LEVELS_CAPACITY,
    LEVELS_USED,
    RESIZE_TOTAL,
    RUN_OPEN,
    aside,
    dark,
    levels,
    more,
    orders,
    pending,
    symbols,
)
from engine.emit import event_public, symbol_id_of
from engine.full_aside import aside_join, aside_leave, is_aside, rank_new
from engine.full_bands import static_code
from engine.full_book import full_remove, full_shrink, full_touch
from engine.full_emit import order_total, replaced_open
from engine.full_links import (
    full_expire,
    leg_waits,
    resize_due,
    sibling_of,
    unseen_resize,
)
from engine.full_match import (
    full_dry_run,
    full_fail,
    is_hidden,
    limit_or_any,
    place_crowded,
)
from engine.full_modes import in_batch, trades_now
from engine.full_orders import DAY_NS, full_cancel, may_make, parts_code, slid_px
from engine.full_pegged import stated_px
from engine.full_pending import is_stop, is_trailing, stop_waits
from engine.full_phases import phase_code_replace
from engine.full_rounds import level_crowded
from engine.full_run import full_start
from engine.jit import helper, subroutine
from engine.limit_codes import judged_px, limit_replace_code
from engine.matching import best_crosses
from engine.order_due import due_insert, due_remove
from engine.records import (
    UNSTATED,
    CommandFlag,
    EventFlag,
    OrderType,
    Reason,
    RejectCode,
    TimeInForce,
)

FLAGS_OF_NEW = int(CommandFlag.SLIDE | CommandFlag.HIDDEN | CommandFlag.REDUCE_ONLY)


@helper
def wanted_tif(c, row):
    """Time in force after the replace."""
    return np.int64(row["tif"]) if c["tif"] == UNSTATED else np.int64(c["tif"])


@helper
def wanted_expiry(s, c, slot):
    """When the order will expire by itself, 0: never."""
    row = orders(s)[slot]
    tif = wanted_tif(c, row)
    if c["expire_ts"] == 0 and tif == np.int64(row["tif"]):
        return np.int64(more(s)[slot]["expire_ts"])
    if tif == TimeInForce.DAY:
        return (np.int64(s[IN_TS]) // DAY_NS + 1) * DAY_NS
    return np.int64(c["expire_ts"]) if tif == TimeInForce.GTD else np.int64(0)


@helper
def wanted_peak(s, c, slot):
    """Peak after the replace."""
    return np.int64(c["peak"]) if c["peak"] != 0 else np.int64(more(s)[slot]["peak"])


@helper
def same_unit(s, c, slot):
    """Whether a trailing distance is stated in the unit the order has: ticks or bps."""
    in_bps = np.int64(c["flags"]) & CommandFlag.DISTANCE_BPS.value != 0
    return in_bps == (pending(s)[slot]["in_bps"] != 0)


@helper
def begins_waiting(s, slot):
    """Whether the order is a stop that was not triggered yet; it may be a leg that is not live."""
    is_leg = leg_waits(s, slot)
    return stop_waits(s, slot) or (is_leg and is_stop(np.int64(orders(s)[slot]["order_type"])))


@helper
def change_fits(s, c, slot):
    """104: whether this order can be given what the command states."""
    row = orders(s)[slot]
    tif, kind = wanted_tif(c, row), np.int64(row["order_type"])
    limited = kind == OrderType.LIMIT
    sliced = limited or kind == OrderType.STOP_LIMIT or kind == OrderType.TAKE_PROFIT_LIMIT
    waits = begins_waiting(s, slot)
    quoted = more(s)[slot]["quoter"] != 0
    bad = (
        (quoted and (c["peak"] != 0 or c["min_qty"] != 0 or tif != row["tif"]))
        or (c["peak"] != 0 and (not sliced or is_hidden(s, slot) or row["tif"] == TimeInForce.IOC))
        or (c["min_qty"] != 0 and (not limited or row["tif"] >= TimeInForce.AT_OPEN))
        or (c["px"] != 0 and kind == OrderType.MARKET)
        or (c["px"] != 0 and (kind == OrderType.STOP or kind == OrderType.TAKE_PROFIT))
        or (c["px2"] != 0 and not waits)
        or (c["qty2"] != 0 and not (waits and is_trailing(kind) and same_unit(s, c, slot)))
        or (tif == TimeInForce.GTD and row["tif"] != TimeInForce.GTD and c["expire_ts"] == 0)
        or (c["expire_ts"] != 0 and tif != TimeInForce.GTD)
    )
    return not bad


@helper
def may_stay(tif):
    """Whether orders of this time in force stay until they expire or are cancelled."""
    return tif == TimeInForce.GTC or tif == TimeInForce.DAY or tif == TimeInForce.GTD


@helper
def change_immutable(s, c, slot):
    """313: side, account, symbol, type and the class of the time in force are for life."""
    row = orders(s)[slot]
    tif = wanted_tif(c, row)
    symbol_id = symbol_id_of(s, np.int64(row["symbol"]))
    return (
        (c["side"] != UNSTATED and c["side"] != row["side"])
        or (tif != row["tif"] and not (may_stay(tif) and may_stay(np.int64(row["tif"]))))
        or (c["order_type"] != 0 and c["order_type"] != row["order_type"])
        or (c["symbol_id"] != 0 and np.int64(c["symbol_id"]) != symbol_id)
    )


@helper
def keeps_trigger(s, c, slot):
    """Whether what an order waits for stays as it is."""
    row = pending(s)[slot]
    trails = is_trailing(np.int64(orders(s)[slot]["order_type"]))
    px = np.int64(row["activation"]) if trails else np.int64(row["trigger"])
    same_px = c["px2"] == 0 or np.int64(c["px2"]) == px
    return same_px and (c["qty2"] == 0 or c["qty2"] == row["distance"])


@helper
def only_decreases(s, c, slot, total):
    """Whether nothing but the total changes, to less: as good as a cancel."""
    row, extra = orders(s)[slot], more(s)[slot]
    return (
        total < order_total(s, slot)
        and (c["px"] == 0 or np.int64(c["px"]) == stated_px(s, slot))
        and wanted_peak(s, c, slot) == extra["peak"]
        and (c["min_qty"] == 0 or c["min_qty"] == extra["min_qty"])
        and wanted_tif(c, row) == np.int64(row["tif"])
        and wanted_expiry(s, c, slot) == extra["expire_ts"]
        and keeps_trigger(s, c, slot)
    )


@helper
def change_phase_code(s, c, slot, total):
    """303: what the present phase does not take."""
    row = orders(s)[slot]
    if only_decreases(s, c, slot, total):
        return np.int64(0)
    tif, symbol = np.int64(row["tif"]), np.int64(row["symbol"])
    code = phase_code_replace(s, symbol, tif, c["min_qty"] != 0)
    if code == 0:
        code = phase_code_replace(s, symbol, wanted_tif(c, row), False)
    return code


@helper
def change_code(s, c, slot, total):
    """103, 104, 303, 304, 308, 310, 312, 313 of a replace."""
    row = orders(s)[slot]
    symbol = np.int64(row["symbol"])
    if max(np.int64(c["px"]), np.int64(c["px2"])) > symbols(s)[symbol]["px_max"]:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if max(np.int64(c["peak"]), np.int64(c["min_qty"])) > total:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if not change_fits(s, c, slot):
        return np.int64(RejectCode.BAD_COMBINATION.value)
    code = change_phase_code(s, c, slot, total)
    if code != 0:
        return code
    at_once = c["min_qty"] != 0 and in_batch(s, symbol)
    if np.int64(c["flags"]) & FLAGS_OF_NEW or c["stp"] != 0 or c["amount"] != 0 or at_once:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if c["px"] != 0 and np.int64(c["px"]) != stated_px(s, slot):
        code = static_code(s, symbol, np.int64(row["side"]), np.int64(c["px"]))
    if code == 0:
        code = parts_code(s, symbol, total, wanted_peak(s, c, slot))
    gtd = wanted_tif(c, row) == TimeInForce.GTD
    if code == 0 and gtd and wanted_expiry(s, c, slot) <= s[IN_TS]:
        code = np.int64(RejectCode.EXPIRY_PAST.value)
    if code == 0 and change_immutable(s, c, slot):
        code = np.int64(RejectCode.IMMUTABLE.value)
    return code


@helper
def change_note(s, c, slot):
    """Take over peak, minimum and expiry."""
    row, extra = orders(s)[slot], more(s)[slot]
    expiry = wanted_expiry(s, c, slot)
    extra["peak"] = wanted_peak(s, c, slot)
    if c["min_qty"] != 0:
        extra["min_qty"] = c["min_qty"]
    row["tif"] = wanted_tif(c, row)
    if expiry != np.int64(extra["expire_ts"]):
        due_remove(s, slot)
        extra["expire_ts"] = expiry
        if expiry != 0:
            due_insert(s, slot)


@helper
def full_keep(s, slot, total):
    """Less or as much at the same price: what is held back goes first, then the slice; a smaller
    peak cuts the slice at once.
    """
    extra = more(s)[slot]
    before = np.int64(extra["shown"])
    less = order_total(s, slot) - total
    held = np.int64(orders(s)[slot]["leaves"]) - before
    displayed = max(less - held, np.int64(0))
    if is_aside(s, slot):
        orders(s)[slot]["leaves"] -= less
    else:
        full_shrink(s, slot, displayed, less - displayed)
    full_touch(s, np.int64(orders(s)[slot]["symbol"]))
    cut = np.int64(extra["shown"]) - np.int64(extra["peak"])
    if extra["peak"] != 0 and cut > 0:
        level = np.int64(orders(s)[slot]["level"])
        extra["shown"] -= cut
        levels(s)[level]["qty"] -= cut
        dark(s)[level]["qty"] += cut
    event = replaced_open(s, slot, total, before)
    event["shown"] = extra["shown"]
    event["public_ref"] = orders(s)[slot]["public_ref"]
    event["flags"] |= EventFlag.KEPT.value
    if extra["shown"] < before:
        event_public(s, event)


@helper
def rank_anew(s, slot, px, total):
    """An order that is in no level loses its time there where it waits."""
    row = orders(s)[slot]
    place = np.int64(aside(s)[slot]["row"])
    aside_leave(s, slot)
    row["px"] = px
    row["leaves"] = total - (order_total(s, slot) - np.int64(row["leaves"]))
    event = replaced_open(s, slot, total, np.int64(0))
    event["flags"] |= EventFlag.LEFT_BOOK.value
    rank_new(s, slot)
    aside_join(s, slot, place)
    full_touch(s, np.int64(row["symbol"]))


@helper
def full_move(s, slot, px, total, enough):
    """The order leaves its queue, meets the book as an aggressor, rests at the back."""
    row, extra = orders(s)[slot], more(s)[slot]
    before, ref = np.int64(extra["shown"]), np.int64(row["public_ref"])
    symbol = np.int64(row["symbol"])
    crosses = trades_now(s, symbol) and best_crosses(s, symbol, np.int64(row["side"]), px)
    leaves = total - (order_total(s, slot) - np.int64(row["leaves"]))
    full_remove(s, slot)
    extra["shown"] = 0
    extra["rank"] = 0
    row["px"] = px
    row["leaves"] = leaves
    row["public_ref"] = 0
    event = replaced_open(s, slot, total, before)
    event["old_ref"] = ref
    event["flags"] |= EventFlag.LEFT_BOOK.value
    if crosses:
        event["flags"] |= EventFlag.WILL_TRADE.value
        if before > 0:
            event_public(s, event)
    # A slide's price is known only now, and may have as many orders as it may have.
    crowded = not crosses and place_crowded(s, slot)
    if enough and not crowded:
        full_start(s, slot, np.int64(0) if crosses else ref)
        return
    if not crosses:  # what the public still sees
        row["public_ref"] = ref
        extra["shown"] = before
    full_touch(s, symbol)
    if enough:
        full_fail(s, slot, np.int64(RejectCode.TOO_MANY.value))
    else:
        full_expire(s, slot, np.int64(Reason.MINIMUM.value))


@helper
def move_code(s, c, slot, px, total):
    """5xx and 9xx of a replace that loses priority; returns (code, whether a stated minimum would
    be met).
    """
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    post_only = row["flags"] & ORDER_POST_ONLY != 0 and trades_now(s, symbol)
    if post_only and not may_make(s, symbol, side, px):
        return np.int64(RejectCode.WOULD_TRADE.value), True
    found = np.int64(0)
    if c["min_qty"] != 0:
        who = (symbol, side, np.int64(row["account"]), np.int64(more(s)[slot]["stp"]))
        leaves = total - (order_total(s, slot) - np.int64(row["leaves"]))
        limit = limit_or_any(px, side)
        found = full_dry_run(s, who, limit, leaves, np.int64(c["min_qty"]))
    used = np.int64(s[LEVELS_USED])
    if levels(s)[np.int64(row["level"])]["count"] == 1:
        used -= 1
    if used >= s[LEVELS_CAPACITY] and level_find(s, symbol * 2 + side, px) < 0:
        return np.int64(RejectCode.LEVELS_FULL.value), True
    if found == RejectCode.WALK_TOO_LONG:
        return found, True
    return np.int64(0), found == 0


@helper
def grow_code(s, slot, px, total):
    """403 to 406 of a replace of an order that does not wait for a trigger."""
    row, old = orders(s)[slot], order_total(s, slot)
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    before = old * judged_px(s, symbol, side, np.int64(row["px"]))
    return limit_replace_code(
        s, slot, (old, before), (total, total * judged_px(s, symbol, side, px))
    )


@helper
def sibling_code(s, slot, total):
    """310 of the other leg of an OCO, which takes the new total too."""
    other = sibling_of(s, slot)
    if other < 0 or total == order_total(s, slot):
        return np.int64(0)
    symbol, peak = np.int64(orders(s)[other]["symbol"]), np.int64(more(s)[other]["peak"])
    return parts_code(s, symbol, total, peak)


@helper
def resize_note(s, slot, total):
    """The other leg of an OCO takes the new total behind the run of this one."""
    if sibling_of(s, slot) >= 0 and total != order_total(s, slot):
        s[RESIZE_TOTAL] = total


@subroutine
def sibling_resize(s, slot, total):
    """The other leg of an OCO, which may rest, takes the total of one that has no run."""
    other = sibling_of(s, slot)
    if other < 0 or total == order_total(s, other):
        return
    if orders(s)[other]["level"] < 0:
        unseen_resize(s, other, total)
    elif total < order_total(s, other):
        full_keep(s, other, total)
    else:
        full_move(s, other, np.int64(orders(s)[other]["px"]), total, True)


@helper
def requeue_code(s, c, slot, px, total):
    """A replace that loses its place in the book. Returns a reject code, 0 when done."""
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if level_crowded(s, symbol * 2 + side, px, np.int64(row["level"])):
        return np.int64(RejectCode.TOO_MANY.value)
    code, enough = grow_code(s, slot, px, total), True
    if code == 0:
        code = sibling_code(s, slot, total)
    if np.int64(row["flags"]) & ORDER_SLIDE and trades_now(s, symbol):
        px = slid_px(s, symbol, side, px)
    if code == 0:
        code, enough = move_code(s, c, slot, px, total)
    if code == 0:
        change_note(s, c, slot)
        resize_note(s, slot, total)
        full_move(s, slot, px, total, enough)
        if s[RUN_OPEN] == 0:
            resize_due(s, slot)
    return code


@subroutine
def full_replace(s, c, slot):
    """REPLACE of a live order. Returns a reject code, 0 when done."""
    row = orders(s)[slot]
    px = np.int64(c["px"]) if c["px"] != 0 else np.int64(row["px"])
    before = order_total(s, slot)
    total = np.int64(c["qty"]) if c["qty"] != 0 else before
    code = change_code(s, c, slot, total)
    if code != 0:
        return code
    if total <= before - np.int64(row["leaves"]):
        full_cancel(s, slot, Reason.REPLACED_BELOW_FILLED)
        return code
    minimum = np.int64(c["min_qty"])
    kept = minimum == 0 or minimum == np.int64(more(s)[slot]["min_qty"])
    if kept and px == np.int64(row["px"]) and total <= before:
        code = sibling_code(s, slot, total)
        if code == 0:
            change_note(s, c, slot)
            resize_note(s, slot, total)
            full_keep(s, slot, total)
            resize_due(s, slot)
        return code
    if is_aside(s, slot):
        code = grow_code(s, slot, px, total)
        if code == 0:
            change_note(s, c, slot)
            rank_anew(s, slot, px, total)
        return code
    return requeue_code(s, c, slot, px, total)
