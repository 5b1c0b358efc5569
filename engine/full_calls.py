"""A phase begins: PHASE, and the auction orders that waited for it join (RULES §6).

Hot for instruments with RuleSet.FULL around calls, else never run. A phase begins by SET_PHASE
(engine/full_phases.py), or because an order would have left the dynamic band
(engine/full_run.py). Joining is a work: a unit is an order.
"""

import numpy as np

from engine.book_rows import (
    ROW_PARKED,
)
from engine.book_state import (
    TIMED_SYMBOLS,
    WORK_COUNT,
    aside,
    calls,
    events,
    orders,
    rules,
    symbols,
)
from engine.emit import event_new, event_order, event_public, symbol_id_of
from engine.full_aside import aside_leave, market_join
from engine.full_book import full_touch
from engine.full_match import full_rest
from engine.full_modes import algorithm_of, collects, in_batch, phase_calls, phase_of
from engine.jit import helper, subroutine
from engine.matching import slice_full
from engine.records import EventKind, OrderType, Phase, TimeInForce


@helper
def joins_now(s, symbol, tif):
    """Whether this is the call that orders of an auction time in force are for."""
    phase = phase_of(s, symbol)
    if tif == TimeInForce.AT_OPEN:
        return phase == Phase.PRE_OPEN or phase == Phase.OPENING_CALL
    if tif == TimeInForce.AT_CLOSE:
        return phase == Phase.CLOSING_CALL
    return tif == TimeInForce.GOOD_FOR_AUCTION and phase_calls(phase)


@helper
def indication_clear(s, symbol):
    """Nothing new is to be told of this call."""
    if calls(s)[symbol]["indicative_at"] != 0:
        calls(s)[symbol]["indicative_at"] = 0
        s[TIMED_SYMBOLS] -= 1


@helper
def cross_clear(s, symbol):
    """No time is set for a cross of a batch mode."""
    if calls(s)[symbol]["cross_at"] != 0:
        calls(s)[symbol]["cross_at"] = 0
        s[TIMED_SYMBOLS] -= 1


@subroutine
def phase_begin(s, symbol, phase, reason, until):
    """PHASE. A call is watched: behind each command it is seen whether its price changed."""
    row, old = calls(s)[symbol], phase_of(s, symbol)
    before = np.int64(collects(s, symbol))
    symbols(s)[symbol]["phase"] = phase
    rules(s)[symbol]["watched"] += np.int64(collects(s, symbol)) - before
    for part in range(4):
        row["told"][part] = 0
    if not collects(s, symbol):
        indication_clear(s, symbol)
    if not in_batch(s, symbol):
        cross_clear(s, symbol)
    event = events(s)[event_new(s, EventKind.PHASE)]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["code"] = phase
    event["amount"] = old
    event["amount2"] = until
    event["reason"] = reason
    event["order_type"] = algorithm_of(s, symbol)
    event_public(s, event)
    full_touch(s, symbol)


@subroutine
def call_rest(s, slot, old_ref):
    """An order enters where nothing trades now."""
    if orders(s)[slot]["order_type"] == OrderType.MARKET:
        market_join(s, slot)
    else:
        full_rest(s, slot, old_ref)


@helper
def order_join(s, slot):
    """ACTIVATED: a parked order joins its call."""
    aside_leave(s, slot)
    event_order(s, EventKind.ACTIVATED, slot, np.int64(orders(s)[slot]["px"]), np.int64(0))
    call_rest(s, slot, np.int64(0))


@subroutine
def joins_run(s, symbol):
    """All join who waited for the present phase; returns False when the slice is full before."""
    slot = np.int64(calls(s)[symbol]["head"][ROW_PARKED])
    while slot >= 0:
        behind = np.int64(aside(s)[slot]["next"])
        if joins_now(s, symbol, np.int64(orders(s)[slot]["tif"])):
            if slice_full(s):
                return False
            s[WORK_COUNT] += 1
            order_join(s, slot)
        slot = behind
    return True
