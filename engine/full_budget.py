"""Budget orders: how many whole lots a sum of money buys or raises now (RULES §2, §13).

Hot for instruments with RuleSet.FULL. `amount` is in quote units of 1e-9, and so is a lot at one
tick times tick and lot. At each level the order wants what the rest of the money is worth there; it
stops at the first maker of which no whole lot fits. What was found is the quantity accepted, and
its run an ordinary one. With FOK the order states its quantity, and the money is its limit.
"""

import numpy as np

from engine.book_numba import level_next
from engine.book_state import MAX_WALK, levels, sides, symbols
from engine.full_bands import dynamic_range
from engine.full_match import level_offers
from engine.jit import helper, subroutine
from engine.records import NOTIONAL_MAX, PRICE_TICKS_MAX, RejectCode

UNITS = 10**9


@helper
def lot_price(s, symbol, px):
    """A lot at px, in quote units; no more than NOTIONAL_MAX."""
    tick, lot = np.int64(symbols(s)[symbol]["tick"]), np.int64(symbols(s)[symbol]["lot"])
    rest = tick % UNITS
    unit = tick // UNITS * lot + rest * (lot // UNITS) + rest * (lot % UNITS) // UNITS
    unit = max(unit, np.int64(1))
    return px * unit if unit <= NOTIONAL_MAX // px else np.int64(NOTIONAL_MAX)


@helper
def level_exceeds(s, level, lots, account, mode):
    """Whether an order meets anything on a level behind the lots it trades there."""
    found, ends = level_offers(s, level, lots + 1, account, mode)
    return ends or found > lots


@subroutine
def full_afford(s, who, money):
    """Whole lots that the money pays for, or that raise it, now.

    who: (symbol, side, account, self-trade mode). Returns (lots, 0), (0, BUDGET), or (0,
    WALK_TOO_LONG) when levels of max_walk orders did not tell.
    """
    symbol, side, account, mode = who
    level = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    found, seen = np.int64(0), np.int64(0)
    lowest, highest = dynamic_range(s, symbol)
    while level >= 0:
        price = lot_price(s, symbol, np.int64(levels(s)[level]["px"]))
        lots = min(money // price, PRICE_TICKS_MAX - found)
        seen += np.int64(levels(s)[level]["count"])
        if lots == 0:
            break
        if seen > s[MAX_WALK]:
            return np.int64(0), np.int64(RejectCode.WALK_TOO_LONG.value)
        if levels(s)[level]["px"] < lowest or levels(s)[level]["px"] > highest:
            break
        here, ends = level_offers(s, level, lots, account, mode)
        found += here
        money -= here * price
        if ends or (here == lots and level_exceeds(s, level, lots, account, mode)):
            break
        level = level_next(s, level)
    return found, np.int64(0 if found > 0 else RejectCode.BUDGET.value)


@subroutine
def full_cost_code(s, who, qty, money):
    """505 when `qty`, which the book has, costs a buy more than the money or raises a sell less."""
    symbol, side, account, mode = who
    level = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    while level >= 0 and qty > 0:
        price = lot_price(s, symbol, np.int64(levels(s)[level]["px"]))
        here, _ = level_offers(s, level, qty, account, mode)
        if here > money // price:  # the rest of the money is reached, or passed
            short = side == 0
            return np.int64(RejectCode.BUDGET.value if short else 0)
        money -= here * price
        qty -= here
        level = level_next(s, level)
    missed = side == 1 and money > 0
    return np.int64(RejectCode.BUDGET.value if missed else 0)
