"""Where sessions stand: (account, name) keeps its slot for ever (RULES §10).

Hot, but rare.
"""

import numpy as np

from engine.account_limits import session_mark
from engine.book_state import SESSIONS_CAPACITY, SESSIONS_USED, sessions
from engine.jit import helper


@helper
def packed_text(c):
    """First eight bytes of the record's text as a packed name."""
    name = np.uint64(0)
    for i in range(8):
        name |= np.uint64(c["text"][i]) << np.uint64(8 * i)
    return name


@helper
def session_find(s, account, name):
    """Slot of (account, name); the next free one when it is new, 0 when the table is full."""
    used = np.int64(s[SESSIONS_USED])
    for slot in range(1, used + 1):
        if sessions(s)[slot]["account"] == account and sessions(s)[slot]["name"] == name:
            return np.int64(slot)
    return used + 1 if used < s[SESSIONS_CAPACITY] else np.int64(0)


@helper
def session_take(s, slot, account, name):
    """Make the slot that `session_find` gave the session's; one that is known stays as it is."""
    if slot > s[SESSIONS_USED]:
        s[SESSIONS_USED] = slot
        sessions(s)[slot]["name"] = name
        sessions(s)[slot]["account"] = account
        session_mark(s, slot)
