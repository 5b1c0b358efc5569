"""What is counted for the limits of an account on an instrument: open quantity, open orders,
position (RULES §7).

Hot only for accounts that have limits: orders of others lack ORDER_COUNTED and never come here. All
of it follows from the events of an order, so it is done where they are written (engine/emit.py):
nothing in the trading rules has to know. ACCEPTED finds the row of the instrument and notes it with
the order; from then on the lots counted of an order are brought to its `leaves` by each event, and
a FILL moves the position. What is counted is right between any two events, in the midst of a long
work too.
"""

import numpy as np

from engine.book_state import account_limits, counted, events, limit_rows, orders
from engine.jit import helper, subroutine
from engine.records import EventKind

POSITION_MAX = 2**62  # it stays there: nobody trades so much


@helper
def limit_find(s, account, symbol):
    """Row of the limits of an account on an instrument, 0: there are none. O(its instruments)."""
    place = np.int64(account_limits(s)[account])
    while place != 0 and np.int64(limit_rows(s)[place]["symbol"]) != symbol:
        place = np.int64(limit_rows(s)[place]["next"])
    return place


@helper
def count_begin(s, slot, place):
    """The order in `slot` counts for this row, 0: for none."""
    entry, open_qty = counted(s)[slot], np.int64(0)
    if place != 0:
        row, order = limit_rows(s)[place], orders(s)[slot]
        open_qty = np.int64(order["leaves"])
        row["open_qty"][np.int64(order["side"])] += open_qty
        row["open_orders"] += 1
    entry["row"] = place
    entry["open"] = open_qty


@subroutine
def count_event(s, index, slot):
    """Take over what the event in slot `index` of the ring says of the order in `slot`."""
    event, order, entry = events(s)[index], orders(s)[slot], counted(s)[slot]
    kind, side = np.int64(event["kind"]), np.int64(order["side"])
    if kind == EventKind.ACCEPTED:
        found = limit_find(s, np.int64(order["account"]), np.int64(order["symbol"]))
        count_begin(s, slot, found)
        return
    place = np.int64(entry["row"])
    if place == 0:
        return
    row = limit_rows(s)[place]
    ended = kind == EventKind.CANCELED or kind == EventKind.EXPIRED
    left = np.int64(0) if ended else np.int64(order["leaves"])
    row["open_qty"][side] += left - np.int64(entry["open"])
    entry["open"] = left
    if kind == EventKind.FILL:
        moved = np.int64(row["position"]) + (1 - 2 * side) * np.int64(event["qty"])
        row["position"] = min(max(moved, np.int64(-POSITION_MAX)), np.int64(POSITION_MAX))
        ended = left == 0
    if ended:
        row["open_orders"] -= 1
