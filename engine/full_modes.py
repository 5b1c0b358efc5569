"""Whether what meets trades at once, or waits: for the uncross of a call, or a batch mode's cross.

Hot for instruments with RuleSet.FULL. A batch mode is an algorithm of an instrument whose phase is
continuous; in any other phase it says nothing.
"""

import numpy as np

from engine.book_rows import (
    ROW_BUYS,
)
from engine.book_state import calls, rules, symbols
from engine.jit import helper
from engine.records import Algorithm, InstrumentRule, Phase


@helper
def phase_of(s, symbol):
    return np.int64(symbols(s)[symbol]["phase"])


@helper
def algorithm_of(s, symbol):
    return np.int64(rules(s)[symbol]["rule"][InstrumentRule.ALGORITHM.value])


@helper
def phase_calls(phase):
    """Whether a phase collects orders for an uncross."""
    return (
        phase == Phase.PRE_OPEN
        or phase == Phase.OPENING_CALL
        or phase == Phase.VOLATILITY_CALL
        or phase == Phase.CLOSING_CALL
    )


@helper
def in_batch(s, symbol):
    """Whether orders wait for the crosses of a batch mode."""
    return (
        phase_of(s, symbol) == Phase.CONTINUOUS
        and algorithm_of(s, symbol) >= Algorithm.BATCH_AUCTION
    )


@helper
def in_balanced(s, symbol):
    """Whether they wait until both sides have enough."""
    return (
        phase_of(s, symbol) == Phase.CONTINUOUS
        and algorithm_of(s, symbol) == Algorithm.BALANCED_BATCH
    )


@helper
def trades_now(s, symbol):
    """Whether what meets trades at once."""
    return phase_of(s, symbol) == Phase.CONTINUOUS and not in_batch(s, symbol)


@helper
def collects(s, symbol):
    """Whether a cross is to be expected: then every change is looked at behind its command."""
    return phase_calls(phase_of(s, symbol)) or in_batch(s, symbol)


@helper
def market_count(s, side_index):
    """How many market orders wait for a cross on a side."""
    return np.int64(calls(s)[side_index >> 1]["count"][ROW_BUYS + (side_index & 1)])
