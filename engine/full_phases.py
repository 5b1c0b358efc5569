"""Phases of an instrument: what each admits, and SET_PHASE (RULES §6, §13 Calls).

Hot for instruments with RuleSet.FULL in what a new order asks, else rare. SET_PHASE is a work of
its own (WORK_CALL), because leaving a call may be long: the uncross (engine/full_uncross.py), then
PHASE and those who join (engine/full_calls.py). The same work without a phase behind it (CALL.to is
0) is a cross of a batch mode whose time has come, or the uncross before a batch mode is left
(engine/full_switch.py).
"""

import numpy as np

from engine.book_state import (
    FATAL,
    FATAL_SECOND_WORK,
    SETTLING,
    WORK_COUNT,
    WORK_KIND,
    WORK_SYMBOL,
    calls,
)
from engine.emit import emit_continued
from engine.full_bands import emit_band, outside_static
from engine.full_batches import algorithm_take
from engine.full_book import full_touch
from engine.full_calls import joins_run, phase_begin
from engine.full_cross import cross_find
from engine.full_modes import phase_calls, phase_of
from engine.full_uncross import (
    STAGE_ENDS,
    STAGE_ENTERS,
    STAGE_JOINS,
    STAGE_NONE,
    leave_open,
    leave_run,
)
from engine.jit import helper, subroutine
from engine.matching import WORK_CALL, WORK_NONE
from engine.records import (
    CommandFlag,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    TimeInForce,
)


# ------------------------------------------------------------------------------- what is admitted
@helper
def only_continuous(kind, tif, at_once):
    """Whether a new order makes sense only where it may trade at once. `at_once`: it is post-only,
    or has a minimum quantity.
    """
    market = kind == OrderType.MARKET or kind == OrderType.BUDGET
    return (
        kind >= OrderType.PEG_PRIMARY
        or kind == OrderType.MARKET_TO_LIMIT
        or (market and tif < TimeInForce.AT_OPEN)
        or tif == TimeInForce.IOC
        or tif == TimeInForce.FOK
        or at_once
    )


@helper
def overnight(tif):
    """Whether orders of a time in force may be entered, and stay, while the market is closed."""
    return tif == TimeInForce.GTC or tif >= TimeInForce.GTD


@helper
def phase_code_entry(s, symbol, kind, tif, at_once):
    """303 of an order that enters now."""
    phase = phase_of(s, symbol)
    if phase == Phase.CONTINUOUS:
        return np.int64(0)
    refused = (
        phase == Phase.HALTED
        or phase == Phase.CANCEL_ONLY
        or (phase == Phase.CLOSED and not overnight(tif))
        or only_continuous(kind, tif, at_once)
    )
    return np.int64(RejectCode.NOT_IN_PHASE.value if refused else 0)


@helper
def phase_code(s, c, symbol):
    """303 of NEW."""
    at_once = c["min_qty"] != 0 or np.int64(c["flags"]) & CommandFlag.POST_ONLY.value != 0
    return phase_code_entry(s, symbol, np.int64(c["order_type"]), np.int64(c["tif"]), at_once)


@helper
def phase_code_replace(s, symbol, tif, minimum):
    """303 of a replace that is more than a decrease, of an order with this time in force."""
    phase = phase_of(s, symbol)
    refused = (
        phase == Phase.HALTED
        or phase == Phase.CANCEL_ONLY
        or (phase == Phase.CLOSED and not overnight(tif))
        or (phase != Phase.CONTINUOUS and minimum)
    )
    return np.int64(RejectCode.NOT_IN_PHASE.value if refused else 0)


@helper
def auction_code(s, symbol, tif):
    """305 of NEW: without calendar there are volatility and reopening calls only."""
    named = tif == TimeInForce.AT_OPEN or tif == TimeInForce.AT_CLOSE
    missing = named and calls(s)[symbol]["has_calendar"] == 0
    return np.int64(RejectCode.NO_SUCH_AUCTION.value if missing else 0)


# --------------------------------------------------------------------------------------- SET_PHASE
@helper
def may_follow(s, symbol, new):
    """Whether the phase may be changed to `new`."""
    old = phase_of(s, symbol)
    if new == Phase.CONTINUOUS and (old == Phase.CLOSED or old == Phase.HALTED):
        return False  # only through a call
    if old == Phase.CANCEL_ONLY and new != Phase.HALTED and new != Phase.CLOSED:
        return new == np.int64(calls(s)[symbol]["resumes_to"])
    return new != old


@helper
def phase_uncrosses(old, new):
    """Whether a change of phase ends a call with its uncross."""
    if new == Phase.CONTINUOUS:
        return True
    left = phase_calls(old) and old != Phase.PRE_OPEN
    return left and new != Phase.HALTED and new != Phase.CANCEL_ONLY


@helper
def set_phase_code(s, c, symbol):
    """102, 103, 303 of SET_PHASE."""
    new = np.int64(c["order_type"])
    if new < Phase.PRE_OPEN or new > Phase.CANCEL_ONLY:
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["expire_ts"] < 0:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    return np.int64(0 if may_follow(s, symbol, new) else RejectCode.NOT_IN_PHASE.value)


@helper
def phase_enter(s, symbol):
    """The new phase begins."""
    row, old = calls(s)[symbol], phase_of(s, symbol)
    new = np.int64(row["to"])
    if new == Phase.CANCEL_ONLY:
        row["resumes_to"] = old
    volatility = new == Phase.VOLATILITY_CALL
    if new <= Phase.CLOSED and new != Phase.CONTINUOUS and not volatility:
        row["has_calendar"] = 1
    phase_begin(s, symbol, new, np.int64(Reason.NONE.value), np.int64(row["until"]))
    row["stage"] = STAGE_JOINS


@helper
def change_run(s, symbol):
    """Go on with a change of phase; returns False when the slice is full before its end."""
    row = calls(s)[symbol]
    if row["stage"] <= STAGE_ENDS:
        if not leave_run(s, symbol):
            return False
        row["stage"] = STAGE_ENTERS
    if row["to"] == 0:
        row["stage"] = STAGE_NONE
        if row["algorithm"] != 0:
            algorithm_take(s, symbol, np.int64(row["algorithm"]) - 1)
        return True
    if row["stage"] == STAGE_ENTERS:
        phase_enter(s, symbol)
    if not joins_run(s, symbol):
        return False
    row["stage"] = STAGE_NONE
    return True


@subroutine
def phase_run(s):
    """Go on with the open change of phase; closes the work when it is done, else CONTINUED."""
    if change_run(s, np.int64(s[WORK_SYMBOL])):
        s[WORK_KIND] = WORK_NONE
        if s[SETTLING] == 0:
            s[WORK_COUNT] = 0
    else:
        emit_continued(s, np.int64(s[WORK_COUNT]))
        s[WORK_COUNT] = 0


@subroutine
def change_open(s, symbol, to, algorithm):
    """Leaving a call, or changing what is not one, becomes the open work and begins. Behind it
    comes the phase `to`, or (0) the same; and, - 1, a new algorithm, or (0) the same.
    """
    row = calls(s)[symbol]
    row["to"] = to
    row["algorithm"] = algorithm
    if s[WORK_KIND] != WORK_NONE:
        s[FATAL] = FATAL_SECOND_WORK
    s[WORK_KIND] = WORK_CALL
    s[WORK_SYMBOL] = symbol
    s[WORK_COUNT] = 0
    phase_run(s)


@subroutine
def phase_set(s, c, symbol):
    """SET_PHASE: `order_type` is the new phase, `expire_ts` until when (told, not acted upon).
    Returns the reject code.
    """
    code = set_phase_code(s, c, symbol)
    if code != 0:
        return code
    full_touch(s, symbol)
    row, new = calls(s)[symbol], np.int64(c["order_type"])
    row["stage"] = STAGE_ENTERS
    if phase_uncrosses(phase_of(s, symbol), new):
        px, volume, _, _ = cross_find(s, symbol)
        if volume > 0 and outside_static(s, symbol, px):
            row["extensions"] += 1
            row["stage"] = STAGE_NONE
            emit_band(s, symbol)
            return code
        leave_open(s, symbol, False)
    row["until"] = c["expire_ts"]
    change_open(s, symbol, new, np.int64(0))
    return code
