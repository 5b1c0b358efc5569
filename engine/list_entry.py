"""A leg of a list comes in (RULES §2): it is kept, and the last one decides.

Rare. Part of the step's tests (engine/step.py), behind 1xx and 2xx of NEW; how legs are kept is
engine/legs.py.
"""

import numpy as np

from engine.book_rows import LEGS_MAX
from engine.book_state import lists, texts
from engine.id_table import TEXT_WAITS
from engine.jit import subroutine
from engine.legs import OTOCO, leg_keep, leg_row, list_code, list_drop
from engine.records import CommandFlag, RejectCode
from engine.validate import RETRANSMISSION, owner_code

LEG_KEPT = -2  # nothing is said before the last leg is there


@subroutine
def leg_take(s, c, code, text_row):
    """Keep a leg that was told `code` so far. Returns how NEW goes on: LEG_KEPT, or with the last
    leg the code of the list. One that repeats a living order is told where that stands.
    """
    if c["decision_code"] > OTOCO or owner_code(s, c) != 0:
        return code
    session, kind = np.int64(c["session"]), np.int64(c["decision_code"])
    row = lists(s)[session]
    failed = np.int64(RejectCode.DUPLICATE.value) if code == RETRANSMISSION else code
    if row["code"] == 0:
        row["code"] = failed
    if row["count"] < LEGS_MAX:
        leg_keep(s, c, leg_row(session, np.int64(row["count"])))
        if failed == 0 and text_row > 0:
            texts(s)[text_row]["order"] = TEXT_WAITS
    row["count"] = min(np.int64(row["count"]), LEGS_MAX) + 1
    if np.int64(c["flags"]) & CommandFlag.LIST.value:
        return code if code == RETRANSMISSION else np.int64(LEG_KEPT)
    found = np.int64(row["code"])
    if found == 0:
        found = list_code(s, session, kind)
    list_drop(s, session)
    return code if code == RETRANSMISSION else found
