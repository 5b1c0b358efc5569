"""The indicative price of a call: told by TIME when it changed, at most once a second (RULES §6).

Hot for instruments with RuleSet.FULL in calls and batch modes, else never run. Behind each command
that touched one it is seen whether there is something new to tell; CALL.indicative_at is when it
may be told, hdr[TIMED_SYMBOLS] how many wait for that (engine/deadline.py).
"""

import numpy as np

from engine.book_state import IN_TS, TIMED_SYMBOLS, calls, events
from engine.deadline import deadline_note
from engine.emit import event_new, event_public, symbol_id_of
from engine.full_calls import indication_clear
from engine.full_cross import cross_find
from engine.full_modes import collects, phase_of
from engine.jit import helper, subroutine
from engine.records import QTY_LOTS_MAX, EventKind

INDICATIVE_EVERY_NS = 10**9


@helper
def told_equals(s, symbol, cross):
    """Whether this is what was told last in this call."""
    told = calls(s)[symbol]["told"]
    px, volume, surplus, side = cross
    return told[0] == px and told[1] == volume and told[2] == surplus and told[3] == side


@subroutine
def indicative_watch(s, symbol):
    """Set or clear the time at which the present indication is due."""
    row = calls(s)[symbol]
    if not collects(s, symbol):
        indication_clear(s, symbol)
    elif told_equals(s, symbol, cross_find(s, symbol)):
        indication_clear(s, symbol)
    elif row["indicative_at"] == 0:
        at = max(np.int64(s[IN_TS]), np.int64(row["indicative_from"]), np.int64(1))
        row["indicative_at"] = at
        s[TIMED_SYMBOLS] += 1
        deadline_note(s, at)


@subroutine
def indicative_tell(s, symbol):
    """INDICATIVE: what an uncross would do now."""
    row = calls(s)[symbol]
    px, volume, surplus, side = cross_find(s, symbol)
    row["told"][0] = px
    row["told"][1] = volume
    row["told"][2] = surplus
    row["told"][3] = side
    row["indicative_from"] = s[IN_TS] + INDICATIVE_EVERY_NS
    indication_clear(s, symbol)
    event = events(s)[event_new(s, EventKind.INDICATIVE)]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["px"] = px
    event["qty"] = min(volume, np.int64(QTY_LOTS_MAX))
    event["amount"] = surplus
    event["amount2"] = volume
    event["side"] = side
    event["code"] = phase_of(s, symbol)
    event_public(s, event)
