"""Pegged orders of an instrument: their list, and how far each one's repricing is (RULES §2, §13).

Hot for instruments with RuleSet.FULL; of an order that is no peg only its type is looked at. PEG
holds in the slot of the order what a peg has beside MORE; RULES.peg_* are the ends of the list and
its length. The list is in entry order, which is that of repricing: a peg keeps its turn through
replaces, parking and price changes.

Invariants: every live peg is in the list of its symbol, ascending by order_id; RULES.watched counts
them; between commands each stands in a level or is parked (ROW_PEGS), with PEG_STANDS.
"""

import numpy as np

from engine.book_rows import ROW_PEGS
from engine.book_state import NONE, aside, orders, pegs, rules
from engine.jit import helper, subroutine
from engine.records import OrderType

# PEG.moves: where it belongs; taken out, to enter at its turn; running, REPRICED when it rests.
PEG_STANDS, PEG_OUT, PEG_RUNS = 0, 1, 2


@helper
def is_peg(kind):
    """Whether orders of this type follow the market."""
    return kind >= OrderType.PEG_PRIMARY


@helper
def stated_px(s, slot):
    """The price the owner of an order stated: of a peg its cap."""
    row = orders(s)[slot]
    if is_peg(np.int64(row["order_type"])):
        return np.int64(pegs(s)[slot]["cap"])
    return np.int64(row["px"])


@helper
def peg_parked(s, slot):
    """Whether a peg waits unseen for its reference."""
    return aside(s)[slot]["row"] == ROW_PEGS


@subroutine
def peg_link(s, slot, cap):
    """A new peg: the last of its symbol."""
    row, peg = rules(s)[np.int64(orders(s)[slot]["symbol"])], pegs(s)[slot]
    last = np.int64(row["peg_last"])
    peg["cap"] = cap
    peg["moves"] = PEG_STANDS
    peg["next"] = NONE
    peg["prev"] = last
    if last >= 0:
        pegs(s)[last]["next"] = slot
    else:
        row["peg_first"] = slot
    row["peg_last"] = slot
    row["peg_count"] += 1
    row["watched"] += 1


@subroutine
def peg_unlink(s, slot):
    """The peg has ended."""
    row, peg = rules(s)[np.int64(orders(s)[slot]["symbol"])], pegs(s)[slot]
    ahead, behind = np.int64(peg["prev"]), np.int64(peg["next"])
    if ahead >= 0:
        pegs(s)[ahead]["next"] = behind
    else:
        row["peg_first"] = behind
    if behind >= 0:
        pegs(s)[behind]["prev"] = ahead
    else:
        row["peg_last"] = ahead
    if row["peg_next"] == slot:
        row["peg_next"] = behind
    row["peg_count"] -= 1
    row["watched"] -= 1


@helper
def peg_ran(s, slot):
    """Whether the order that comes to rest is a peg that is repriced; it stands from now on."""
    if not is_peg(np.int64(orders(s)[slot]["order_type"])):
        return False
    ran = pegs(s)[slot]["moves"] == PEG_RUNS
    pegs(s)[slot]["moves"] = PEG_STANDS
    return ran
