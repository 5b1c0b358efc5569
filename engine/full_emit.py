"""EVENTs of the full rules: what is displayed and what is not (EVENTS.md; docs/protocol.md).

Hot for instruments with RuleSet.FULL. As engine/emit.py, but `shown` is the slice an order displays
and an event is public only where the public sees something. Of a trade the maker's half tells of
the displayed part (ITCH E), the taker's half of the rest (ITCH P, `shown_before`).
"""

import numpy as np

from engine.book_state import EVENT_MASK, OUT_POSITION, events, more, orders, rules
from engine.emit import event_order, event_public
from engine.full_pegged import peg_ran
from engine.jit import helper, subroutine
from engine.records import EventFlag, EventKind, Role

NON_FIFO = int(EventFlag.NON_FIFO | EventFlag.PRINTABLE)


@helper
def order_total(s, slot):
    """Quantity accepted, after replaces."""
    row = orders(s)[slot]
    return np.int64(row["leaves"]) + np.int64(row["cum"]) + np.int64(more(s)[slot]["prevented"])


@helper
def full_emit_accepted(s, slot):
    px, qty = np.int64(orders(s)[slot]["px"]), np.int64(orders(s)[slot]["leaves"])
    event = events(s)[event_order(s, EventKind.ACCEPTED, slot, px, qty)]
    event["amount2"] = more(s)[slot]["peak"]


@helper
def replaced_open(s, slot, total, before):
    """REPLACED, all but what depends on whether the order stays; returns the event."""
    px = np.int64(orders(s)[slot]["px"])
    event = events(s)[event_order(s, EventKind.REPLACED, slot, px, total)]
    event["amount2"] = more(s)[slot]["peak"]
    event["shown_before"] = before
    return event


@helper
def full_emit_fill(s, slot, role, px, qty, trade_id):
    """Half of a trade; returns the index of the event."""
    index = event_order(s, EventKind.FILL, slot, px, qty)
    events(s)[index]["trade_id"] = trade_id
    events(s)[index]["role"] = role
    return index


@helper
def mark_shared(s):
    """The trade just told is not the front of a queue's: ITCH C, to be counted."""
    for back in range(1, 3):
        newest = (np.int64(s[OUT_POSITION]) - back) & np.int64(s[EVENT_MASK])
        events(s)[newest]["flags"] |= NON_FIFO


@helper
def full_emit_trade(s, taker, maker, deal):
    """Both halves of a trade; deal: (px, qty, displayed part of it, trade_id)."""
    px, qty, displayed, trade_id = deal
    event = events(s)[full_emit_fill(s, maker, Role.MAKER, px, qty, trade_id)]
    event["public_ref"] = orders(s)[maker]["public_ref"]
    event["shown"] = more(s)[maker]["shown"]
    event["shown_before"] = np.int64(more(s)[maker]["shown"]) + displayed
    if displayed > 0:
        event_public(s, event)
    event = events(s)[full_emit_fill(s, taker, Role.TAKER, px, qty, trade_id)]
    event["shown_before"] = qty - displayed
    if displayed < qty:
        event_public(s, event)
    if rules(s)[np.int64(orders(s)[maker]["symbol"])]["rounds"] != 0:
        mark_shared(s)


@helper
def full_emit_booked(s, slot, old_ref):
    """BOOKED, or REPRICED of a peg that was taken out to go where it belongs."""
    order, shown = orders(s)[slot], np.int64(more(s)[slot]["shown"])
    px, qty = np.int64(order["px"]), np.int64(order["leaves"])
    kind = np.int64(EventKind.REPRICED.value if peg_ran(s, slot) else EventKind.BOOKED.value)
    event = events(s)[event_order(s, kind, slot, px, qty)]
    event["shown"] = shown
    event["public_ref"] = order["public_ref"]
    event["old_ref"] = old_ref
    if rules(s)[np.int64(order["symbol"])]["top"][np.int64(order["side"])] == slot + 1:
        event["flags"] |= EventFlag.TOP.value
    if shown > 0:
        event_public(s, event)


@helper
def full_emit_refreshed(s, slot, old_ref):
    order, shown = orders(s)[slot], np.int64(more(s)[slot]["shown"])
    event = events(s)[
        event_order(s, EventKind.REFRESHED, slot, np.int64(order["px"]), np.int64(shown))
    ]
    event["shown"] = shown
    event["public_ref"] = order["public_ref"]
    event["old_ref"] = old_ref
    event_public(s, event)


@subroutine
def full_emit_ended(s, kind, slot, reason):
    """CANCELED or EXPIRED of an order that may be displayed, before it leaves its level; returns
    the index of the event.
    """
    order, shown = orders(s)[slot], np.int64(more(s)[slot]["shown"])
    px, qty = np.int64(order["px"]), np.int64(order["leaves"])
    index = event_order(s, kind, slot, px, qty)
    event = events(s)[index]
    event["leaves"] = 0
    event["reason"] = reason
    event["shown_before"] = shown
    event["public_ref"] = order["public_ref"]
    if shown > 0:
        event_public(s, event)
    return index


@helper
def full_emit_triggered(s, slot, trigger):
    """The price it waited for came; `px` is the limit it runs with."""
    px = np.int64(orders(s)[slot]["px"])
    event = events(s)[event_order(s, EventKind.TRIGGERED, slot, px, np.int64(0))]
    event["px2"] = trigger


@helper
def full_emit_prevented(s, slot, other, what):
    """One side of a prevented self-trade; what: (mode, quantity prevented, displayed before)."""
    mode, qty, shown_before = what
    shown = np.int64(more(s)[slot]["shown"])
    event = events(s)[event_order(s, EventKind.PREVENTED, slot, np.int64(0), qty)]
    event["stp"] = mode
    event["amount"] = orders(s)[other]["order_id"]
    event["shown_before"] = shown_before
    event["shown"] = shown
    event["public_ref"] = orders(s)[slot]["public_ref"]
    if shown > 0 and shown < shown_before:
        event_public(s, event)
