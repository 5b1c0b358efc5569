"""The run of an order that enters: it meets the book, and comes to its end (RULES §6, §7).

Hot for instruments with RuleSet.FULL. The run is a work of its own, or part of one that settles
(engine/full_settle.py); RUN_OPEN says how far it is. Outside continuous trading nothing is met: the
order rests as it is. An order that would trade beyond the dynamic band is closed there, and a
volatility call begins, which parked orders join.
"""

import numpy as np

from engine.book_state import (
    RESIZE_TOTAL,
    RUN_OPEN,
    SETTLING,
    WORK_COUNT,
    WORK_CURSOR,
    WORK_KIND,
    WORK_ORDER,
    WORK_REF,
    WORK_SYMBOL,
    WORK_TOTAL,
    more,
    orders,
    rules,
)
from engine.emit import emit_continued
from engine.full_book import full_touch
from engine.full_calls import call_rest, joins_run, phase_begin
from engine.full_links import full_expire, full_release, resize_due
from engine.full_match import (
    BREACH,
    ENDED,
    WAITS,
    full_close,
    full_id_insert,
    full_limit,
    full_rest,
    full_sweep,
    remainder_reason,
)
from engine.full_modes import trades_now
from engine.full_protect import protect_run
from engine.jit import helper, subroutine
from engine.matching import WORK_NONE, WORK_SWEEP, best_crosses, sweep_open
from engine.records import InstrumentRule, Phase, Reason

# RUN_OPEN: an order meets the book; others join the call it began; quotes are pulled.
RUN_ORDER, RUN_JOINS, RUN_PROTECTS = 1, 2, 3


@helper
def run_open(s, slot, old_ref):
    """The order begins to meet the book: a work of its own, or part of one that settles."""
    if s[WORK_KIND] == WORK_NONE:
        sweep_open(s, slot, old_ref)
    s[RUN_OPEN] = RUN_ORDER
    s[WORK_ORDER] = slot
    s[WORK_REF] = old_ref
    s[WORK_CURSOR] = 0
    s[WORK_TOTAL] = 0


@helper
def run_breach(s, slot, symbol):
    """The order would leave the dynamic band: what may rest joins the call that begins now, unless
    the instrument only ends the order.
    """
    row = orders(s)[slot]
    to_call = rules(s)[symbol]["rule"][InstrumentRule.ON_BREACH.value] == 0
    if to_call and remainder_reason(row) == 0 and more(s)[slot]["min_qty"] == 0:
        full_rest(s, slot, np.int64(0))
    else:
        full_expire(s, slot, np.int64(Reason.BAND.value))
    if to_call:
        volatility, reason = np.int64(Phase.VOLATILITY_CALL.value), np.int64(Reason.BAND.value)
        phase_begin(s, symbol, volatility, reason, np.int64(0))
        s[RUN_OPEN] = RUN_JOINS


@helper
def run_sweep(s, slot, symbol):
    """The order meets the book on; returns False when the slice is full before its end."""
    found = full_sweep(s, slot)
    if found == WAITS:
        full_id_insert(s, slot)
        return False
    s[RUN_OPEN] = 0
    s[WORK_CURSOR] = 0
    s[WORK_TOTAL] = 0
    if found == ENDED:
        full_release(s, slot)
    elif found == BREACH:
        run_breach(s, slot, symbol)
    else:
        full_close(s, slot, np.int64(s[WORK_REF]))
    return True


@subroutine
def full_run_on(s):
    """Go on with the order that is running; returns False when the slice is full before its end."""
    symbol = np.int64(s[WORK_SYMBOL])
    full_touch(s, symbol)
    if s[RUN_OPEN] == RUN_ORDER and not run_sweep(s, np.int64(s[WORK_ORDER]), symbol):
        return False
    if s[RUN_OPEN] == RUN_JOINS:
        if not joins_run(s, symbol):
            return False
    if rules(s)[symbol]["over"] != 0:
        s[RUN_OPEN] = RUN_PROTECTS
        if not protect_run(s, symbol):
            return False
    s[RUN_OPEN] = 0
    if s[RESIZE_TOTAL] != 0:
        resize_due(s, np.int64(s[WORK_ORDER]))
    if s[WORK_KIND] == WORK_SWEEP:
        s[WORK_KIND] = WORK_NONE
        if s[SETTLING] == 0:
            s[WORK_COUNT] = 0
    return True


@helper
def full_enter(s, slot, old_ref):
    """The order meets the book; returns False when the slice is full before its end."""
    row = orders(s)[slot]
    symbol, side = np.int64(row["symbol"]), np.int64(row["side"])
    if not trades_now(s, symbol):
        full_touch(s, symbol)
        call_rest(s, slot, old_ref)
        return True
    if best_crosses(s, symbol, side, full_limit(s, slot)):
        run_open(s, slot, old_ref)
        return full_run_on(s)
    full_touch(s, symbol)
    full_close(s, slot, old_ref)
    return True


@helper
def full_start(s, slot, old_ref):
    """The order of a command meets the book, as a work where it does not fit into the slice."""
    if not full_enter(s, slot, old_ref):
        emit_continued(s, np.int64(s[WORK_COUNT]))
        s[WORK_COUNT] = 0
