"""At which price a call would cross now, and how much (RULES §6).

Hot for instruments with RuleSet.FULL in calls, else never run. The lines of engine/full_lines.py
end where each side has the most volume there is. Every tick between the two trades as much, so what
is left to decide is the surplus: it falls from the one price and rises towards the other. In a
balanced batch the number of orders that are filled completely comes before the surplus
(engine/full_counted.py).
"""

import numpy as np

from engine.book_state import (
    sides,
)
from engine.full_counted import cross_counted, is_counted
from engine.full_lines import lines_meet, market_reaching, reference_of, side_step
from engine.jit import helper, subroutine

BUYS, SELLS = 0, 1


@helper
def nearest_px(s, symbol, lowest, highest):
    """Of a range of equal prices the one nearest the reference; without one, the middle."""
    reference = reference_of(s, symbol)
    if reference == 0:
        return (lowest + highest) // 2
    return min(max(reference, lowest), highest)


@helper
def cross_balanced(s, symbol, buy, sell):
    """Both lines have exactly the volume: least surplus, then pressure, then nearest."""
    bid, volume, next_bid, next_bids, bid_level = buy
    ask, _, next_ask, next_asks, ask_level = sell
    lowest, highest = max(ask, next_bid + 1), bid
    if next_ask != 0:
        highest = min(bid, next_ask - 1)
    if lowest <= highest:
        return nearest_px(s, symbol, lowest, highest), volume, np.int64(0), np.int64(BUYS)
    if next_bids < next_asks:  # neighbouring ticks, each with a surplus of its own side
        return next_bid, volume, next_bids, np.int64(BUYS)
    if next_asks < next_bids:
        return next_ask, volume, next_asks, np.int64(SELLS)
    after_bid = side_step(s, symbol * 2, bid_level, next_bid)[0]
    after_ask = side_step(s, symbol * 2 + 1, ask_level, next_ask)[0]
    lowest, highest = max(ask, after_bid + 1), bid
    if after_ask != 0:
        highest = min(bid, after_ask - 1)
    px = nearest_px(s, symbol, lowest, highest)
    return px, volume, next_bids, np.int64(BUYS if px <= next_bid else SELLS)


@helper
def cross_markets(s, symbol):
    """Nothing but market orders: they meet at the reference, if there is one."""
    px, none = reference_of(s, symbol), np.int64(0)
    buys, sells = market_reaching(s, symbol * 2, px), market_reaching(s, symbol * 2 + 1, px)
    if px == 0 or buys == 0 or sells == 0:
        return none, none, none, none
    side = np.int64(BUYS if buys >= sells else SELLS)
    return px, min(buys, sells), abs(buys - sells), side


@subroutine
def cross_find(s, symbol):
    """What an uncross would do now: (price, volume, surplus, its side); all 0: nothing meets."""
    none = np.int64(0)
    if sides(s)[symbol * 2]["best"] < 0 and sides(s)[symbol * 2 + 1]["best"] < 0:
        return cross_markets(s, symbol)
    best = np.int64(sides(s)[symbol * 2]["best"])
    bid = side_step(s, symbol * 2, best, none)[0]
    best = np.int64(sides(s)[symbol * 2 + 1]["best"])
    ask = side_step(s, symbol * 2 + 1, best, none)[0]
    if bid == 0 or ask == 0 or bid < ask:
        return none, none, none, none
    buy, sell = lines_meet(s, symbol)
    if is_counted(s, symbol):
        return cross_counted(s, symbol, sell[0], buy[0], min(buy[1], sell[1]))
    if buy[1] > sell[1]:
        return buy[0], sell[1], buy[1] - sell[1], np.int64(BUYS)
    if sell[1] > buy[1]:
        return sell[0], buy[1], sell[1] - buy[1], np.int64(SELLS)
    return cross_balanced(s, symbol, buy, sell)
