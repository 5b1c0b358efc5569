"""Orders of a list enter one after the other: a work of its own (WORK_LIST).

Hot for instruments with RuleSet.FULL where lists are used. At most two orders wait for their turn,
in hdr[BEGIN_FIRST] and hdr[BEGIN_SECOND]: ``(slot + 1) << 3 | unit | BEGIN_*``. One that ended
before its turn, because its sibling traded, is passed over. `unit`: that it enters is a unit of the
work (legs that go live); otherwise only what it then trades is.
"""

import numpy as np

from engine.book_rows import LINKED_BEGINS
from engine.book_state import (
    BEGIN_FIRST,
    BEGIN_SECOND,
    FATAL,
    FATAL_SECOND_WORK,
    RUN_OPEN,
    SETTLING,
    WORK_COUNT,
    WORK_KIND,
    WORK_SYMBOL,
    more,
    orders,
    pending,
)
from engine.emit import emit_continued
from engine.full_aside import park_new
from engine.full_links import full_expire, linked
from engine.full_orders import BEGIN_MISSED, BEGIN_PARK
from engine.full_pegged import is_peg
from engine.full_pegs import peg_begin
from engine.full_pending import is_stop, is_trailing
from engine.full_run import full_enter, full_run_on
from engine.full_stops import elects, stop_begin, stop_fire, stop_looks_at, trigger_true
from engine.jit import helper, subroutine
from engine.matching import WORK_LIST, WORK_NONE, slice_full
from engine.records import Reason

BEGIN_UNIT = 4
BEGIN_MASK = 3
BEGIN_BITS = 3


@helper
def begin_later(s, slot, how):
    """The order enters behind those whose turn comes before."""
    more(s)[slot]["linked"] = linked(s, slot) | LINKED_BEGINS
    word = (slot + 1) << BEGIN_BITS | how
    if s[BEGIN_FIRST] == 0:
        s[BEGIN_FIRST] = word
    else:
        s[BEGIN_SECOND] = word


@helper
def holds_now(s, slot):
    """Whether a stop that begins to wait is triggered at once."""
    row, wait = orders(s)[slot], pending(s)[slot]
    symbol = np.int64(row["symbol"])
    if is_trailing(np.int64(row["order_type"])) or not elects(s, symbol):
        return False
    px = stop_looks_at(s, symbol, np.int64(row["side"]), wait["on_best"] != 0)
    return trigger_true(row, px, np.int64(wait["trigger"]))


@helper
def order_begin(s, slot, how):
    """The order enters now; returns False when the slice is full before it is at rest."""
    more(s)[slot]["linked"] = linked(s, slot) & ~LINKED_BEGINS
    if how == BEGIN_MISSED:
        full_expire(s, slot, np.int64(Reason.MINIMUM.value))
        return True
    if how == BEGIN_PARK:
        park_new(s, slot)
        return True
    if is_peg(np.int64(orders(s)[slot]["order_type"])):
        return peg_begin(s, slot)
    if not is_stop(np.int64(orders(s)[slot]["order_type"])):
        return full_enter(s, slot, np.int64(0))
    fires = holds_now(s, slot)
    stop_begin(s, slot)
    if fires:
        return stop_fire(s, slot)
    return True


@helper
def begins_run(s):
    """Whoever has a turn enters; returns False when the slice is full before all are at rest."""
    while True:
        if s[RUN_OPEN] != 0 and not full_run_on(s):
            return False
        word = np.int64(s[BEGIN_FIRST])
        if word == 0:
            return True
        slot = (word >> BEGIN_BITS) - 1
        enters = linked(s, slot) & LINKED_BEGINS != 0
        stop = is_stop(np.int64(orders(s)[slot]["order_type"]))
        unit = word & BEGIN_UNIT != 0 and (not stop or holds_now(s, slot))
        if enters and unit and slice_full(s):
            return False
        s[BEGIN_FIRST] = s[BEGIN_SECOND]
        s[BEGIN_SECOND] = 0
        if enters:
            s[WORK_COUNT] += np.int64(unit)
            if not order_begin(s, slot, word & BEGIN_MASK):
                return False


@subroutine
def list_run(s):
    """Go on with the orders of a list; closes the work when all are at rest, else CONTINUED."""
    if begins_run(s):
        s[WORK_KIND] = WORK_NONE
        if s[SETTLING] == 0:
            s[WORK_COUNT] = 0
    else:
        emit_continued(s, np.int64(s[WORK_COUNT]))
        s[WORK_COUNT] = 0


@helper
def list_open(s, symbol):
    """Make the entering of a list's orders the open work and begin it."""
    if s[WORK_KIND] != WORK_NONE:
        s[FATAL] = FATAL_SECOND_WORK
    s[WORK_KIND] = WORK_LIST
    s[WORK_SYMBOL] = symbol
    s[WORK_COUNT] = 0
    list_run(s)
