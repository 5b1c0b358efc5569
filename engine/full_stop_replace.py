"""REPLACE of an order that waits for its trigger, or of a leg that is not live (RULES §3, §13).

Rare; for instruments with RuleSet.FULL. Only a new trigger is tested anew, only a new distance,
activation or cap lets a trailing stop begin anew. It keeps its turn unless one of these or the
limit changes, or the total grows.
"""

import numpy as np

from engine.book_state import more, orders, pending
from engine.full_book import full_touch
from engine.full_emit import order_total, replaced_open
from engine.full_pending import is_trailing, stop_link, stop_unlink, stop_waits
from engine.full_replace import change_code, change_note, sibling_code, sibling_resize
from engine.full_stops import stop_looks_at, trail_begin, trigger_true
from engine.jit import helper, subroutine
from engine.limit_codes import judged_px, limit_replace_code
from engine.records import EventFlag, RejectCode


@helper
def stated_or(stated, now):
    """A number of a replace; 0 keeps the value there is."""
    return np.int64(stated) if stated != 0 else np.int64(now)


@helper
def wanted_trigger(s, c, slot):
    """Trigger and activation price after the replace."""
    row = pending(s)[slot]
    trigger, activation = np.int64(row["trigger"]), np.int64(row["activation"])
    if is_trailing(np.int64(orders(s)[slot]["order_type"])):
        return trigger, stated_or(c["px2"], activation)
    return stated_or(c["px2"], trigger), activation


@helper
def new_trigger_true(s, slot, trigger):
    """506: whether the condition with this trigger holds already."""
    row = orders(s)[slot]
    if trigger == np.int64(pending(s)[slot]["trigger"]):
        return False
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    px = stop_looks_at(s, symbol, side, pending(s)[slot]["on_best"] != 0)
    return trigger_true(row, px, trigger)


@helper
def wait_grow_code(s, c, slot, px, total):
    """403 to 406 of the replace of an order that nobody can meet yet."""
    row, wait, old = orders(s)[slot], pending(s)[slot], order_total(s, slot)
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    trails = is_trailing(np.int64(row["order_type"]))
    old_px = np.int64(row["px"])
    if old_px == 0:
        old_px = np.int64(wait["activation"]) if trails else np.int64(wait["trigger"])
    if px == 0:
        trigger, activation = wanted_trigger(s, c, slot)
        px = activation if trails else trigger
    before = old * judged_px(s, symbol, side, old_px)
    return limit_replace_code(
        s, slot, (old, before), (total, total * judged_px(s, symbol, side, px))
    )


@helper
def unseen_change(s, c, slot, px, total):
    """Take over what the command states; returns whether a trailing stop begins anew."""
    row, wait = orders(s)[slot], pending(s)[slot]
    trigger, activation = wanted_trigger(s, c, slot)
    distance = stated_or(c["qty2"], wait["distance"])
    changed = (
        px != np.int64(row["px"])
        or distance != np.int64(wait["distance"])
        or activation != np.int64(wait["activation"])
    )
    row["px"] = px
    row["leaves"] = total
    wait["trigger"] = trigger
    wait["activation"] = activation
    wait["distance"] = distance
    change_note(s, c, slot)
    return changed


@helper
def unseen_kept(s, c, slot, px, total):
    """Whether the order keeps its turn: nothing it trades by changes, and it does not grow."""
    row, wait = orders(s)[slot], pending(s)[slot]
    trigger, activation = wanted_trigger(s, c, slot)
    return (
        px == np.int64(row["px"])
        and total <= order_total(s, slot)
        and trigger == np.int64(wait["trigger"])
        and activation == np.int64(wait["activation"])
        and (c["qty2"] == 0 or np.int64(c["qty2"]) == np.int64(wait["distance"]))
        and (c["min_qty"] == 0 or np.int64(c["min_qty"]) == np.int64(more(s)[slot]["min_qty"]))
    )


@subroutine
def stop_replace(s, c, slot):
    """REPLACE of an order that nobody can meet yet: it waits for its trigger, or is a leg that is
    not live. Returns a reject code, 0 when done.
    """
    row, waits = orders(s)[slot], stop_waits(s, slot)
    total, px = stated_or(c["qty"], order_total(s, slot)), stated_or(c["px"], row["px"])
    code = change_code(s, c, slot, total)
    if code == 0:
        code = wait_grow_code(s, c, slot, px, total)
    if code == 0 and waits and new_trigger_true(s, slot, wanted_trigger(s, c, slot)[0]):
        code = np.int64(RejectCode.TRIGGER_TRUE.value)
    if code == 0:
        code = sibling_code(s, slot, total)
    if code != 0:
        return code
    kept = unseen_kept(s, c, slot, px, total)
    turns = waits and not kept
    full_touch(s, np.int64(row["symbol"]))
    if turns:
        stop_unlink(s, slot)
    changed = unseen_change(s, c, slot, px, total)
    if turns:
        if changed and is_trailing(np.int64(row["order_type"])):
            trail_begin(s, slot)
        stop_link(s, slot)
    event = replaced_open(s, slot, total, np.int64(0))
    event["flags"] |= EventFlag.KEPT.value if kept else EventFlag.LEFT_BOOK.value
    sibling_resize(s, slot, total)
    return code
