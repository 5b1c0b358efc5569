"""Orders that are live and in no level: parked for a later call, or market orders within a call.

Hot for instruments with RuleSet.FULL in calls, else never run. Each symbol has three rows, doubly
linked through `aside`, ascending by rank: ROW_PARKED, and the market orders of the present call by
side (ROW_BUYS, ROW_SELLS), which take part beside the book and are seen by nobody.

A *rank* is the time priority of an order within its symbol. Whoever comes now gets the next one; a
parked order brings along that of its parking when it joins.

Invariants: an order is in a level, or in exactly one row, or running; MORE.rank is never 0 then.
"""

import numpy as np

from engine.book_rows import (
    ROW_BUYS,
    ROW_NONE,
    ROW_PARKED,
)
from engine.book_state import (
    NONE,
    aside,
    calls,
    events,
    more,
    orders,
)
from engine.emit import event_order
from engine.id_table import id_insert
from engine.jit import helper, subroutine
from engine.records import EventKind


@helper
def rank_new(s, slot):
    """The order is the last to come now."""
    row = calls(s)[np.int64(orders(s)[slot]["symbol"])]
    row["ranks"] += 1
    more(s)[slot]["rank"] = row["ranks"]


@helper
def is_aside(s, slot):
    """Whether an order waits in a row rather than in a level."""
    return aside(s)[slot]["row"] != ROW_NONE


@subroutine
def aside_join(s, slot, row):
    """Put the order into a row of its symbol, by its rank."""
    symbol = calls(s)[np.int64(orders(s)[slot]["symbol"])]
    rank = np.int64(more(s)[slot]["rank"])
    ahead, behind = np.int64(symbol["tail"][row]), np.int64(NONE)
    while ahead >= 0 and np.int64(more(s)[ahead]["rank"]) > rank:
        behind = ahead
        ahead = np.int64(aside(s)[ahead]["prev"])
    place = aside(s)[slot]
    place["row"] = row
    place["prev"] = ahead
    place["next"] = behind
    if ahead >= 0:
        aside(s)[ahead]["next"] = slot
    else:
        symbol["head"][row] = slot
    if behind >= 0:
        aside(s)[behind]["prev"] = slot
    else:
        symbol["tail"][row] = slot
    symbol["count"][row] += 1


@subroutine
def aside_leave(s, slot):
    """Take the order out of its row."""
    symbol = calls(s)[np.int64(orders(s)[slot]["symbol"])]
    place = aside(s)[slot]
    row = np.int64(place["row"])
    ahead, behind = np.int64(place["prev"]), np.int64(place["next"])
    if ahead >= 0:
        aside(s)[ahead]["next"] = behind
    else:
        symbol["head"][row] = behind
    if behind >= 0:
        aside(s)[behind]["prev"] = ahead
    else:
        symbol["tail"][row] = ahead
    symbol["count"][row] -= 1
    place["row"] = ROW_NONE


@helper
def order_park(s, slot):
    """The order waits for its call; its time counts from now."""
    rank_new(s, slot)
    aside_join(s, slot, ROW_PARKED)
    id_insert(s, slot)


@helper
def park_new(s, slot):
    """PARKED: a new order of a later call."""
    order_park(s, slot)
    event_order(s, EventKind.PARKED, slot, np.int64(orders(s)[slot]["px"]), np.int64(0))


@helper
def market_join(s, slot):
    """A market order takes part in the present call: BOOKED, but nobody sees it."""
    order = orders(s)[slot]
    if more(s)[slot]["rank"] == 0:
        rank_new(s, slot)
    aside_join(s, slot, ROW_BUYS + np.int64(order["side"]))
    id_insert(s, slot)
    px, leaves = np.int64(order["px"]), np.int64(order["leaves"])
    events(s)[event_order(s, EventKind.BOOKED, slot, px, leaves)]["shown"] = 0
