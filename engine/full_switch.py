"""SET_RULE of an instrument with the full rules, and what its time has come for (RULES §4, §9).

Rare but for the crosses of a batch auction. Both may have to cross first, which is a work
(engine/full_phases.change_open).
"""

import numpy as np

from engine.book_state import calls
from engine.emit import emit_listed_terms
from engine.full_batches import algorithm_take, cross_begin, switch_crosses
from engine.full_book import full_touch
from engine.full_indicative import indicative_tell
from engine.full_phases import change_open
from engine.full_uncross import leave_open
from engine.instrument_rules import rule_code, rule_put
from engine.jit import helper, subroutine
from engine.records import InstrumentRule


@helper
def algorithm_change(s, symbol, algorithm):
    """A batch mode that ends crosses first; then the new algorithm is in force."""
    if switch_crosses(s, symbol, algorithm):
        leave_open(s, symbol, False)
        change_open(s, symbol, np.int64(0), algorithm + 1)
    else:
        algorithm_take(s, symbol, algorithm)


@subroutine
def rule_change(s, c, symbol):
    """SET_RULE. Returns the reject code."""
    key, value = np.int64(c["order_type"]), np.int64(c["amount"])
    code = rule_code(s, symbol, key, value)
    if code != 0:
        return code
    full_touch(s, symbol)
    if key == InstrumentRule.ALGORITHM:
        emit_listed_terms(s, symbol)
        algorithm_change(s, symbol, value)
    else:
        rule_put(s, symbol, key, value)
        emit_listed_terms(s, symbol)
    return code


@subroutine
def timed_run(s, symbol):
    """What the symbol waits for is due: the cross of a batch mode, else its indicative price."""
    cross_at, told_at = np.int64(calls(s)[symbol]["cross_at"]), calls(s)[symbol]["indicative_at"]
    if cross_at != 0 and (told_at == 0 or cross_at <= told_at):
        cross_begin(s, symbol)
        change_open(s, symbol, np.int64(0), np.int64(0))
    else:
        indicative_tell(s, symbol)
