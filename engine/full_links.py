"""Orders that belong together, when one of them moves or ends (RULES §2, §13 Linked orders).

Hot for instruments with RuleSet.FULL in one word per fill (MORE.linked); the rest is for those that
have links, in LINK of the same slot. The legs of an OCO name each other: the first fill, trigger,
prevention or end of one cancels the other at once. The first order of an OTO names its first leg:
when it ends whole the leg is put into `activations` (engine/activations.py), otherwise its legs
are cancelled.

Invariants: siblings name each other and both live; a leg that waits (LINKED_WAITS) is in no level,
no row, no heap; MORE.linked of an order that ended is 0.
"""

import numpy as np

from engine.activations import activation_push
from engine.book_rows import (
    LINKED_FIRST,
    LINKED_OCO,
    LINKED_WAITS,
)
from engine.book_state import (
    RESIZE_TOTAL,
    links,
    more,
    orders,
    owner,
)
from engine.full_aside import aside_leave, is_aside
from engine.full_book import full_remove
from engine.full_emit import full_emit_ended, order_total, replaced_open
from engine.full_pegged import is_peg, peg_unlink
from engine.full_pending import stop_link, stop_unlink, stop_waits
from engine.jit import helper, subroutine
from engine.matching import order_release
from engine.order_due import due_remove
from engine.quoters import quoter_leave
from engine.records import SLOT_MASK, EventFlag, EventKind, Reason


@helper
def linked(s, slot):
    """LINKED_* of an order."""
    return np.int64(more(s)[slot]["linked"])


@helper
def leg_waits(s, slot):
    """Whether the order is a leg that is not live yet."""
    return linked(s, slot) & LINKED_WAITS != 0


@subroutine
def full_release(s, slot):
    """The order is over; it is in no queue any more."""
    if is_peg(np.int64(orders(s)[slot]["order_type"])):
        peg_unlink(s, slot)
    due_remove(s, slot)
    if more(s)[slot]["quoter"] != 0:
        quoter_leave(s, slot)
    order_release(s, slot)


@subroutine
def full_leave(s, kind, slot, reason):
    """A live order leaves the market as CANCELED or EXPIRED, from wherever it is; nothing is done
    about those it belongs to. Returns the index of the event.
    """
    index = full_emit_ended(s, kind, slot, reason)
    if stop_waits(s, slot):
        stop_unlink(s, slot)
    elif is_aside(s, slot):
        aside_leave(s, slot)
    elif orders(s)[slot]["level"] >= 0:
        full_remove(s, slot)
    full_release(s, slot)
    return index


@helper
def link_cancel(s, slot):
    """The order goes because another one of its list moved or ended."""
    more(s)[slot]["linked"] = 0
    full_leave(s, EventKind.CANCELED, slot, Reason.OCO)


@subroutine
def link_moved(s, slot):
    """A leg was filled, triggered, prevented or ended: its sibling goes."""
    ties = linked(s, slot)
    if ties & LINKED_OCO:
        more(s)[slot]["linked"] = ties & ~LINKED_OCO
        link_cancel(s, np.int64(links(s)[slot]["sibling"]))


@helper
def live_slot(s, order_id):
    """Slot of the live order with this number, -1 when there is none."""
    slot = order_id & SLOT_MASK
    lives = slot < len(orders(s)) and owner(s)[slot] != 0
    return slot if lives and orders(s)[slot]["order_id"] == order_id else np.int64(-1)


@subroutine
def link_ended(s, slot):
    """The end of a first order: its legs are called, or cancelled if it was not filled whole."""
    ties = linked(s, slot)
    if ties & LINKED_FIRST == 0:
        return
    more(s)[slot]["linked"] = ties & ~LINKED_FIRST
    leg = np.int64(links(s)[slot]["leg"])
    if orders(s)[slot]["leaves"] == 0 and more(s)[slot]["prevented"] == 0:
        activation_push(s, leg)
        return
    first = live_slot(s, leg)
    if first < 0:
        return
    paired = linked(s, first) & LINKED_OCO
    link_cancel(s, first)
    if paired:
        link_cancel(s, np.int64(links(s)[first]["sibling"]))


@helper
def link_over(s, slot):
    """The order has ended: whoever belongs to it hears of it."""
    if linked(s, slot) != 0:
        link_moved(s, slot)
        link_ended(s, slot)
        more(s)[slot]["linked"] = 0


@subroutine
def links_traded(s, maker, taker):
    """Both traded, and have ended where nothing is open any more."""
    for slot in (maker, taker):
        link_moved(s, slot)
        if orders(s)[slot]["leaves"] == 0:
            link_ended(s, slot)


@subroutine
def full_end(s, kind, slot, reason):
    """A live order leaves the market as CANCELED or EXPIRED, from wherever it is."""
    full_leave(s, kind, slot, reason)
    link_over(s, slot)


@subroutine
def full_expire(s, slot, reason):
    """An order that is in no queue expires."""
    full_emit_ended(s, EventKind.EXPIRED, slot, reason)
    full_release(s, slot)
    link_over(s, slot)


# ----------------------------------------------------------------------------------------- replace
@helper
def sibling_of(s, slot):
    """Slot of the other leg of an OCO, -1: it has none."""
    if linked(s, slot) & LINKED_OCO:
        return np.int64(links(s)[slot]["sibling"])
    return np.int64(-1)


@subroutine
def unseen_resize(s, slot, total):
    """A stop or a leg that waits takes the total of its sibling; with more it loses its turn."""
    grows = total > order_total(s, slot)
    turns = grows and stop_waits(s, slot)
    if turns:
        stop_unlink(s, slot)
    orders(s)[slot]["leaves"] = total
    if turns:
        stop_link(s, slot)
    event = replaced_open(s, slot, total, np.int64(0))
    event["flags"] |= EventFlag.LEFT_BOOK.value if grows else EventFlag.KEPT.value


@helper
def resize_due(s, slot):
    """The run behind a replace is over: the other leg follows, unless it went meanwhile."""
    total, other = np.int64(s[RESIZE_TOTAL]), sibling_of(s, slot)
    s[RESIZE_TOTAL] = 0
    if total != 0 and other >= 0:
        unseen_resize(s, other, total)
