"""Legs of a list that is not complete yet (RULES §2; docs/rules.md).

Rare. A list (OCO, OTO, OTOCO) comes leg after leg: NEW with COMMAND.decision_code saying what it
is, and the flag LIST while more legs follow. A leg with the flag answers nothing. It lies in
`legs`, LEGS_MAX rows for each session; LIST of the session counts them and has the code of the
first that failed. The last leg has the one answer (engine/list_entry.py). A leg is tested 1xx and
2xx as it comes, all else when all are there (engine/full_lists.py).

A leg is copied field by field, what the loop and the journal write into a record left out, so that
a replay keeps the same bytes. Its text id is used up already and waits for its order: TEXT_WAITS in
TEXT.order, which a new trading day does not forget.

An unfinished list goes with its session's owner: when the session ends or another logon takes it.
"""

import numpy as np

from engine.book_rows import LEGS_MAX
from engine.book_state import legs, lists, texts
from engine.id_table import TEXT_WAITS, text_find
from engine.jit import helper, subroutine
from engine.records import (
    CLIENT_TEXT_BYTES,
    CommandFlag,
    OrderType,
    RejectCode,
    TimeInForce,
)

OCO, OTO, OTOCO = 1, 2, 3  # COMMAND.decision_code of every leg


@helper
def leg_row(session, number):
    """Place of a leg in `legs`."""
    return session * LEGS_MAX + number


@helper
def leg_keep(s, c, place):
    """Copy what the client said."""
    row = legs(s)[place]
    row["client_order_id"] = c["client_order_id"]
    row["session"] = c["session"]
    row["account"] = c["account"]
    row["symbol_id"] = c["symbol_id"]
    row["symbol"] = c["symbol"]
    row["px"] = c["px"]
    row["qty"] = c["qty"]
    row["kind"] = c["kind"]
    row["side"] = c["side"]
    row["order_type"] = c["order_type"]
    row["tif"] = c["tif"]
    row["stp"] = c["stp"]
    row["flags"] = c["flags"]
    row["px2"] = c["px2"]
    row["qty2"] = c["qty2"]
    row["peak"] = c["peak"]
    row["min_qty"] = c["min_qty"]
    row["amount"] = c["amount"]
    row["expire_ts"] = c["expire_ts"]
    row["tag"] = c["tag"]
    row["decision_code"] = c["decision_code"]
    for i in range(CLIENT_TEXT_BYTES):
        row["text"][i] = c["text"][i]


@helper
def leg_text(s, leg):
    """Row of the text id of a leg, 0 when it has none."""
    if np.int64(leg["flags"]) & CommandFlag.TEXT_ID.value == 0 or leg["text"][0] == 0:
        return np.int64(0)
    return text_find(s, np.int64(leg["account"]), leg["text"])


@subroutine
def list_drop(s, session):
    """Nothing is kept any more; what text ids waited for comes now or never."""
    row = lists(s)[session]
    for number in range(min(np.int64(row["count"]), LEGS_MAX)):
        text_row = leg_text(s, legs(s)[leg_row(session, number)])
        if text_row > 0 and texts(s)[text_row]["order"] == TEXT_WAITS:
            texts(s)[text_row]["order"] = -1
    row["count"] = 0
    row["code"] = 0


@helper
def is_stop_type(kind):
    return kind >= OrderType.STOP and kind <= OrderType.TRAILING_STOP_LIMIT


@helper
def may_be_later(leg):
    """Whether the leg may wait for the first order of its list."""
    kind = np.int64(leg["order_type"])
    plain = kind == OrderType.LIMIT or kind == OrderType.MARKET
    return (plain or is_stop_type(kind)) and leg["tif"] < TimeInForce.AT_OPEN


@helper
def may_pair(one, other):
    """Whether two legs make an OCO: the same side, quantity and time in force, one may rest."""
    first, second = np.int64(one["order_type"]), np.int64(other["order_type"])
    limits = np.int64(first == OrderType.LIMIT) + np.int64(second == OrderType.LIMIT)
    stops = np.int64(is_stop_type(first)) + np.int64(is_stop_type(second))
    same = (
        one["side"] == other["side"] and one["qty"] == other["qty"] and one["tif"] == other["tif"]
    )
    return same and limits <= 1 and limits + stops == 2


@helper
def same_list(one, other):
    """Whether two legs name one list of one instrument."""
    return (
        one["decision_code"] == other["decision_code"]
        and one["symbol_id"] == other["symbol_id"]
        and one["symbol"] == other["symbol"]
    )


@helper
def list_legs(kind):
    """How many legs a list of this kind has."""
    return np.int64(3 if kind == OTOCO else 2)


@subroutine
def list_code(s, session, kind):
    """104: what is kept is no list of this kind."""
    bad, count = np.int64(RejectCode.BAD_COMBINATION.value), list_legs(kind)
    if lists(s)[session]["count"] != count:
        return bad
    first, second = legs(s)[leg_row(session, 0)], legs(s)[leg_row(session, 1)]
    last = legs(s)[leg_row(session, count - 1)]
    if not same_list(first, second) or not same_list(first, last):
        return bad
    if kind == OCO:
        good = may_pair(first, second)
    elif kind == OTO:
        good = may_be_later(second)
    else:
        good = may_be_later(second) and may_be_later(last) and may_pair(second, last)
    return np.int64(0) if good else bad
