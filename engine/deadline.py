"""Deadlines: when a silent or an abandoned session is dealt with (RULES §10, §13), and what is due
first of all that waits for a time: orders that expire (engine/order_due.py), crosses of batch modes
(engine/full_batches.py) and indicative prices (engine/full_indicative.py) too.

Hot in `session_heard`, rare elsewhere. A session row has two deadlines, 0 where there is none:

    dead_man_at   moved on by every command of the session; then its orders are cancelled
    close_at      set when its producer is lost, cleared by the next logon; then it is closed

Nothing happens when a deadline passes, only when TIME says so, and TIME is a record like any other
(engine/desk.py): a replay does the same. NEXT_DEADLINE is what the loop looks at: one word that is
never later than the earliest deadline. Moving a deadline on leaves it alone, so it may be too early
by as much; `deadline_find`, which looks at every session, puts it right.

Times are nanoseconds below 2**62 and delays at most DELAY_NS_MAX: no sum here can overflow.
"""

import numpy as np

from engine.book_state import (
    IN_TS,
    NEXT_DEADLINE,
    SESSIONS_USED,
    SYMBOLS_USED,
    TIMED_SYMBOLS,
    calls,
    due,
    orders,
    sessions,
)
from engine.jit import helper, subroutine
from engine.order_due import due_first
from engine.records import RejectCode

DELAY_NS_MAX = 2**60  # 36 years


@helper
def delay_code(delay):
    """103 for a time span that cannot be."""
    if delay < 0 or delay > DELAY_NS_MAX:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    return np.int64(0)


@helper
def deadline_after(s, delay):
    """The moment `delay` from now; 0 means none, so it is never 0."""
    return max(np.int64(s[IN_TS]) + delay, np.int64(1))


@helper
def deadline_note(s, deadline):
    """A deadline was set: NEXT_DEADLINE must not be later."""
    if s[NEXT_DEADLINE] == 0 or deadline < s[NEXT_DEADLINE]:
        s[NEXT_DEADLINE] = deadline


@subroutine
def dead_man_arm(s, slot):
    """The dead-man time of a session that has one begins now."""
    row = sessions(s)[slot]
    row["dead_man_at"] = deadline_after(s, np.int64(row["dead_man"]))
    deadline_note(s, np.int64(row["dead_man_at"]))


@helper
def session_heard(s, slot):
    """A command came from the session's owner."""
    if sessions(s)[slot]["dead_man"] != 0:
        dead_man_arm(s, slot)


@helper
def deadlines_clear(s, slot):
    """Nobody waits for this session any more."""
    row = sessions(s)[slot]
    row["dead_man"] = 0
    row["dead_man_at"] = 0
    row["close_at"] = 0


@helper
def session_deadline(s, slot):
    """The earlier deadline of a session, 0 when it has none."""
    row = sessions(s)[slot]
    deadline, close_at = np.int64(row["dead_man_at"]), np.int64(row["close_at"])
    if deadline == 0 or (close_at != 0 and close_at < deadline):
        deadline = close_at
    return deadline


@helper
def timed_first(s):
    """(time, symbol) of what a symbol waits for first: the cross of a batch mode, before indicative
    prices of the same time; 0: none waits.
    """
    earliest, found = np.int64(0), np.int64(0)
    if s[TIMED_SYMBOLS] == 0:
        return earliest, found
    for turn in range(2):
        for symbol in range(1, np.int64(s[SYMBOLS_USED]) + 1):
            row = calls(s)[symbol]
            at = np.int64(row["cross_at"]) if turn == 0 else np.int64(row["indicative_at"])
            if at != 0 and (earliest == 0 or at < earliest):
                earliest, found = at, np.int64(symbol)
    return earliest, found


@subroutine
def deadline_find(s, now):
    """What is due first at `now`: (session slot, order_id, symbol that crosses or whose indicative
    price is told), all 0 when nothing is. At the same time an order comes first, then a session,
    then crosses, then prices, among equals the lowest. Makes NEXT_DEADLINE exact. O(sessions),
    O(symbols) where any waits.
    """
    earliest, found = np.int64(0), np.int64(0)
    for slot in range(1, np.int64(s[SESSIONS_USED]) + 1):
        deadline = session_deadline(s, slot)
        if deadline != 0 and (earliest == 0 or deadline < earliest):
            earliest, found = deadline, np.int64(slot)
    expiry, order_id = due_first(s), np.int64(0)
    if expiry != 0 and (earliest == 0 or expiry <= earliest):
        earliest, found = expiry, np.int64(0)
        order_id = np.int64(orders(s)[np.int64(due(s)[0])]["order_id"])
    timed_at, symbol = timed_first(s)
    if timed_at != 0 and (earliest == 0 or timed_at < earliest):
        earliest, found, order_id = timed_at, np.int64(0), np.int64(0)
    else:
        symbol = np.int64(0)
    s[NEXT_DEADLINE] = earliest
    if earliest > now:
        return np.int64(0), np.int64(0), np.int64(0)
    return found, order_id, symbol


@subroutine
def deadlines_move(s, pause):
    """Nobody could be heard for `pause`: every pending deadline is that much later. O(sessions)."""
    for slot in range(1, np.int64(s[SESSIONS_USED]) + 1):
        row = sessions(s)[slot]
        if row["dead_man_at"] != 0:
            row["dead_man_at"] += pause
        if row["close_at"] != 0:
            row["close_at"] += pause
    if s[NEXT_DEADLINE] != 0 and due_first(s) == 0 and s[TIMED_SYMBOLS] == 0:
        s[NEXT_DEADLINE] += pause  # with what does not move it stays, too early
