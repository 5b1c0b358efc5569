"""What follows from a command of the full rules when it is done: symbol after symbol settles.

Hot for instruments with RuleSet.FULL where something watches. A change of a symbol that is watched
puts it into `settling` (engine/full_book.full_touch); behind the command, and before the SUMMARY of
a mass cancel, each settles in ascending order, stage by stage. It is a work like any other: what
does not fit into the slice goes on with CONTINUE. One order at a time may be running within it
(RUN_OPEN); hdr[SETTLE_*] is the rest of its memory.
"""

import numpy as np

from engine.book_state import (
    RUN_OPEN,
    SETTLE_INDEX,
    SETTLE_STAGE,
    SETTLE_THEN,
    SETTLING,
    WORK_ACCOUNT,
    WORK_COUNT,
    WORK_KIND,
    WORK_REASON,
    WORK_SESSION,
    WORK_SYMBOL,
    rules,
    settling,
)
from engine.emit import emit_continued, emit_summary
from engine.full_bands import reference_roll
from engine.full_batches import balance_run, batch_watch
from engine.full_begin import list_run
from engine.full_indicative import indicative_watch
from engine.full_modes import trades_now
from engine.full_pegs import pegs_run
from engine.full_phases import phase_run
from engine.full_protect import protect_run
from engine.full_quotes import quote_go
from engine.full_run import full_run_on
from engine.full_stops import waves_run
from engine.jit import helper, subroutine
from engine.matching import WORK_CALL, WORK_LIST, WORK_NONE, WORK_QUOTE, WORK_SETTLE

STAGE_PROTECT = 0  # quotes filled too much in an uncross are pulled (engine/full_protect.py)
STAGE_BALANCE = 1  # a balanced batch crosses (engine/full_batches.py)
STAGE_PROTECT_AGAIN = 2
STAGE_WAVES = 3  # stops are elected (engine/full_stops.py)
STAGE_PEGS = 4  # pegs go where they belong (engine/full_pegs.py)
STAGE_WAVES_AGAIN = 5  # no repricing behind them,
STAGE_PARKS = 6  # but where a call has begun meanwhile no peg stays in the book


@helper
def stage_over(s):
    """The next stage begins at its beginning."""
    s[SETTLE_STAGE] += 1
    s[SETTLE_INDEX] = 0


@helper
def stage_run(s, symbol, stage):
    """Run a stage; returns False when the slice is full before its end."""
    if stage == STAGE_PROTECT or stage == STAGE_PROTECT_AGAIN:
        return protect_run(s, symbol)
    if stage == STAGE_BALANCE:
        return balance_run(s, symbol)
    if stage == STAGE_WAVES or stage == STAGE_WAVES_AGAIN:
        return waves_run(s, symbol)
    return (stage == STAGE_PARKS and trades_now(s, symbol)) or pegs_run(s, symbol)


@helper
def symbol_settle(s, symbol):
    """Bring one symbol to rest; returns False when the slice is full before."""
    if s[RUN_OPEN] and not full_run_on(s):
        return False
    while s[SETTLE_STAGE] <= STAGE_PARKS:
        if not stage_run(s, symbol, np.int64(s[SETTLE_STAGE])):
            return False
        stage_over(s)
    reference_roll(s, symbol)
    batch_watch(s, symbol)
    indicative_watch(s, symbol)
    return True


@helper
def settled(s):
    """The first symbol of the list is at rest."""
    rules(s)[np.int64(settling(s)[0])]["settles"] = 0
    for place in range(1, np.int64(s[SETTLING])):
        settling(s)[place - 1] = settling(s)[place]
    s[SETTLING] -= 1
    s[SETTLE_STAGE] = 0
    s[SETTLE_INDEX] = 0


@subroutine
def full_settle(s):
    """Let all that was touched settle, as far as the slice goes; then close the work."""
    while s[SETTLING] > 0:
        s[WORK_KIND] = WORK_SETTLE
        s[WORK_SYMBOL] = settling(s)[0]
        if not symbol_settle(s, np.int64(settling(s)[0])):
            emit_continued(s, np.int64(s[WORK_COUNT]))
            s[WORK_COUNT] = 0
            return
        settled(s)
    s[WORK_KIND] = WORK_NONE
    s[WORK_COUNT] = 0
    if s[SETTLE_THEN] != 0:
        account, session = np.int64(s[WORK_ACCOUNT]), np.int64(s[WORK_SESSION])
        count, reason = np.int64(s[SETTLE_THEN]) - 1, np.int64(s[WORK_REASON])
        s[SETTLE_THEN] = 0
        emit_summary(s, account, session, count, np.int64(0), reason)


@subroutine
def full_work(s):
    """Go on with the open work of an order, or of what follows."""
    if s[WORK_KIND] == WORK_SETTLE:
        full_settle(s)
    elif s[WORK_KIND] == WORK_CALL:
        phase_run(s)
    elif s[WORK_KIND] == WORK_LIST:
        list_run(s)
    elif s[WORK_KIND] == WORK_QUOTE:
        quote_go(s)
    elif not full_run_on(s):
        emit_continued(s, np.int64(s[WORK_COUNT]))
        s[WORK_COUNT] = 0
