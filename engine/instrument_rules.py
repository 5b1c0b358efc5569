"""SET_RULE: what the rules of an instrument say from now on (RULES §9).

Rare. RULES.rule of the instrument holds the values in force, by InstrumentRule; a listing gives the
defaults. Lead market makers have a list of their own there. The terms an instrument was listed with
stay in SYMBOL: a start may list it again on those.
"""

import numpy as np

from engine.book_state import events, rules, symbols
from engine.config import LEAD_MAX, LEAD_PERCENT_MAX
from engine.emit import event_new, event_public, symbol_id_of
from engine.jit import helper
from engine.records import Algorithm, EventKind, InstrumentRule, RejectCode, SelfTrade

LARGE = 2**31 - 1
MAX_TRAILING = 100  # trailing stops that may wait at a time, until SET_RULE says otherwise
RULES_COUNT = int(max(InstrumentRule))
MAX_PEGS = 100  # live pegged orders
# Unless a rule says otherwise:
FIFO_PERCENT, MAX_LEVEL_ORDERS = 50, 1000
BATCH_MS, MIN_ORDERS, BALANCE_PCT, MAX_WAIT_MS = 100, 2, 50, 1000


@helper
def rules_begin(s, symbol, stp, parts, protection):
    """The rules of an instrument that is being listed."""
    rule = rules(s)[symbol]["rule"]
    rule[InstrumentRule.ICEBERG_PARTS.value] = parts
    rule[InstrumentRule.PROTECTION.value] = protection
    rule[InstrumentRule.STP.value] = stp
    rule[InstrumentRule.MAX_PEGS.value] = MAX_PEGS
    rule[InstrumentRule.MAX_TRAILING.value] = MAX_TRAILING
    rule[InstrumentRule.FIFO_PERCENT.value] = FIFO_PERCENT
    rule[InstrumentRule.MAX_LEVEL_ORDERS.value] = MAX_LEVEL_ORDERS
    rule[InstrumentRule.BATCH_MS.value] = BATCH_MS
    rule[InstrumentRule.MIN_ORDERS.value] = MIN_ORDERS
    rule[InstrumentRule.BALANCE_PCT.value] = BALANCE_PCT
    rule[InstrumentRule.MAX_WAIT_MS.value] = MAX_WAIT_MS


@helper
def rule_range(key):
    """Lowest and highest value of a rule; (1, 0) for one that is not built."""
    lowest, highest = np.int64(1), np.int64(0)
    if key == InstrumentRule.ICEBERG_PARTS or key == InstrumentRule.MAX_LEVEL_ORDERS:
        highest = np.int64(LARGE)
    elif key == InstrumentRule.BATCH_MS or key == InstrumentRule.MIN_ORDERS:
        highest = np.int64(LARGE)
    elif key == InstrumentRule.PROTECTION or key == InstrumentRule.MAX_TRAILING:
        lowest, highest = np.int64(0), np.int64(LARGE)
    elif key == InstrumentRule.MAX_PEGS or key == InstrumentRule.MAX_WAIT_MS:
        lowest, highest = np.int64(0), np.int64(LARGE)
    elif key == InstrumentRule.STP:
        highest = np.int64(SelfTrade.TRANSFER.value)
    elif key == InstrumentRule.ALGORITHM:
        lowest, highest = np.int64(0), np.int64(Algorithm.BALANCED_BATCH.value)
    elif key == InstrumentRule.FIFO_PERCENT or key == InstrumentRule.BALANCE_PCT:
        lowest, highest = np.int64(0), np.int64(100)
    elif key == InstrumentRule.STATIC_BAND or key == InstrumentRule.DYNAMIC_BAND:
        lowest, highest = np.int64(0), np.int64(10_000)
    elif key == InstrumentRule.ON_BREACH:
        lowest, highest = np.int64(0), np.int64(1)
    elif key == InstrumentRule.LMM:  # an account and a percentage
        lowest, highest = np.int64(1 << 32), np.int64((LARGE << 32) | LEAD_PERCENT_MAX)
    return lowest, highest


@helper
def lead_find(s, symbol, account):
    """Place of a lead market maker, or the first free one."""
    row = rules(s)[symbol]
    for place in range(np.int64(row["lead_count"])):
        if np.int64(row["lead_account"][place]) == account:
            return place
    return np.int64(row["lead_count"])


@helper
def lead_code(s, symbol, value):
    """103: more for lead market makers, or more of them, than may be."""
    row, percent = rules(s)[symbol], value & 0xFFFFFFFF
    place, count = lead_find(s, symbol, value >> 32), np.int64(row["lead_count"])
    total = percent
    for other in range(count):
        if other != place:
            total += np.int64(row["lead_percent"][other])
    if (
        percent > LEAD_PERCENT_MAX
        or total > LEAD_PERCENT_MAX
        or (place == LEAD_MAX and percent > 0)
    ):
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    return np.int64(0)


@helper
def lead_set(s, symbol, value):
    """Percentage of a lead market maker from now on; 0 takes the account away."""
    row, percent = rules(s)[symbol], value & 0xFFFFFFFF
    place, count = lead_find(s, symbol, value >> 32), np.int64(row["lead_count"])
    if percent > 0:
        row["lead_account"][place] = value >> 32
        row["lead_percent"][place] = percent
        row["lead_count"] = max(count, place + 1)
    elif place < count:
        for other in range(place, count - 1):
            row["lead_account"][other] = row["lead_account"][other + 1]
            row["lead_percent"][other] = row["lead_percent"][other + 1]
        row["lead_account"][count - 1] = 0
        row["lead_percent"][count - 1] = 0
        row["lead_count"] = count - 1


@helper
def rounds_set(s, symbol):
    """Whether levels are shared out now; nobody is top where they are not."""
    row = rules(s)[symbol]
    base = np.int64(row["rule"][InstrumentRule.ALGORITHM.value])
    shared = base > Algorithm.FIFO and base < Algorithm.BATCH_AUCTION
    row["rounds"] = row["lead_count"] > 0 or shared
    if row["rounds"] == 0:
        row["top"][0] = 0
        row["top"][1] = 0


@helper
def emit_algorithm(s, symbol):
    """PHASE, the same as before: the algorithm has changed."""
    event = events(s)[event_new(s, EventKind.PHASE)]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["code"] = symbols(s)[symbol]["phase"]
    event["amount"] = symbols(s)[symbol]["phase"]
    event["order_type"] = rules(s)[symbol]["rule"][InstrumentRule.ALGORITHM.value]
    event_public(s, event)


@helper
def value_code(s, symbol, key, value):
    """103, 304 for a value that a rule may not have."""
    lowest, highest = rule_range(key)
    if lowest > highest:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if value < lowest or value > highest:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if key == InstrumentRule.LMM:
        return lead_code(s, symbol, value)
    return np.int64(0)


@helper
def rule_code(s, symbol, key, value):
    """102, 103, 304 of SET_RULE."""
    if key < 1 or key > RULES_COUNT:
        return np.int64(RejectCode.BAD_FIELD.value)
    return value_code(s, symbol, key, value)


@helper
def rule_put(s, symbol, key, value):
    """What a rule says from now on; the algorithm is not changed here (engine/full_switch.py)."""
    if key == InstrumentRule.LMM:
        lead_set(s, symbol, value)
    else:
        rules(s)[symbol]["rule"][key] = value
    rounds_set(s, symbol)
