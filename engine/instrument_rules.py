"""SET_RULE: what the rules of an instrument say from now on (RULES §9).

Rare. RULES.rule of the instrument holds the values in force, by InstrumentRule; a listing gives the
defaults. The terms it was listed with stay in SYMBOL: a start may list it again on those.
"""

import numpy as np

from engine.book_numba import symbol_touch
from engine.book_state import rules
from engine.emit import emit_listed_terms
from engine.jit import helper, subroutine
from engine.records import InstrumentRule, RejectCode, SelfTrade

LARGE = 2**31 - 1
MAX_TRAILING = 100  # trailing stops that may wait at a time, until SET_RULE says otherwise
RULES_COUNT = int(max(InstrumentRule))


@helper
def rules_begin(s, symbol, stp, parts, protection):
    """The rules of an instrument that is being listed."""
    rule = rules(s)[symbol]["rule"]
    rule[InstrumentRule.ICEBERG_PARTS.value] = parts
    rule[InstrumentRule.PROTECTION.value] = protection
    rule[InstrumentRule.STP.value] = stp
    rule[InstrumentRule.MAX_TRAILING.value] = MAX_TRAILING


@helper
def rule_range(key):
    """Lowest and highest value of a rule; (1, 0) for one that is not built."""
    if key == InstrumentRule.ICEBERG_PARTS:
        return np.int64(1), np.int64(LARGE)
    if key == InstrumentRule.PROTECTION or key == InstrumentRule.MAX_TRAILING:
        return np.int64(0), np.int64(LARGE)
    if key == InstrumentRule.STP:
        return np.int64(SelfTrade.NONE.value), np.int64(SelfTrade.TRANSFER.value)
    return np.int64(1), np.int64(0)


@subroutine
def full_rule(s, c, symbol):
    """SET_RULE. Returns the reject code."""
    key, value = np.int64(c["order_type"]), np.int64(c["amount"])
    if key < 1 or key > RULES_COUNT:
        return np.int64(RejectCode.BAD_FIELD.value)
    lowest, highest = rule_range(key)
    if lowest > highest:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if value < lowest or value > highest:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    rules(s)[symbol]["rule"][key] = value
    symbol_touch(s, symbol)
    emit_listed_terms(s, symbol)
    return np.int64(0)
