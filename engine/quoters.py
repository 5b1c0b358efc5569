"""Who quotes which instrument: the sides of a quote, and what was filled on it lately (RULES §13).

Hot for instruments with RuleSet.FULL where somebody quotes, else never run. `quoters` has a row for
each pair of instrument and account that has a live quote or a protection; `quoter_index` finds it:
open addressing, linear probing, no graves. A row that serves nothing any more is free again; the
next to be taken is the last that became free.

A protection counts lots in *parts*: the window is divided by 63, rounded up, and parts of this
width lie on the clock. A fill counts until its part has left the window altogether, so what is
remembered is at most 64 numbers however many fills there are, and the window is at most a 63rd too
long. `parts` is a ring by number of the part; `newest` is the newest in it.

Invariants: a row in use has a live side or a limit; MORE.quoter of each side leads to it and no
other order has one; RULES.over is 0 between commands.
"""

import numpy as np

from engine.book_rows import QUOTE_PARTS
from engine.book_state import (
    IN_TS,
    QUOTE_SLOT,
    QUOTERS_FREE,
    QUOTERS_TOP,
    more,
    orders,
    quoter_index,
    quoters,
    rules,
)
from engine.full_book import settle_note
from engine.jit import helper, subroutine

PARTS = QUOTE_PARTS - 1  # of a window
MASK = QUOTE_PARTS - 1


# ------------------------------------------------------------------------------------------- rows
@helper
def quoter_home(s, symbol, account):
    """Where the search for a pair begins."""
    mixed = account * 40503 + symbol * 65599
    return (mixed ^ (mixed >> 15)) & (len(quoter_index(s)) - 1)


@subroutine
def quoter_find(s, symbol, account):
    """Row of an account in an instrument, 0: none."""
    mask = len(quoter_index(s)) - 1
    place = quoter_home(s, symbol, account)
    found = np.int64(quoter_index(s)[place])
    while found != 0:
        row = quoters(s)[found]
        if row["symbol"] == symbol and row["account"] == account:
            break
        place = (place + 1) & mask
        found = np.int64(quoter_index(s)[place])
    return found


@helper
def quoter_room(s):
    """Whether a row is free."""
    return s[QUOTERS_FREE] != 0 or s[QUOTERS_TOP] + 1 < len(quoters(s))


@subroutine
def quoter_take(s, symbol, account):
    """Row of an account in an instrument, a new one where it has none."""
    number = quoter_find(s, symbol, account)
    if number != 0:
        return number
    number = np.int64(s[QUOTERS_FREE])
    if number != 0:
        s[QUOTERS_FREE] = quoters(s)[number]["next"]
    else:
        s[QUOTERS_TOP] += 1
        number = np.int64(s[QUOTERS_TOP])
    row = quoters(s)[number]
    row["symbol"] = symbol
    row["account"] = account
    row["next"] = 0
    mask = len(quoter_index(s)) - 1
    place = quoter_home(s, symbol, account)
    while quoter_index(s)[place] != 0:
        place = (place + 1) & mask
    quoter_index(s)[place] = number
    return number


@helper
def index_close(s, hole):
    """Close the hole that an entry leaves behind."""
    mask = len(quoter_index(s)) - 1
    place = (hole + 1) & mask
    while quoter_index(s)[place] != 0:
        moved = np.int64(quoter_index(s)[place])
        row = quoters(s)[moved]
        home = quoter_home(s, np.int64(row["symbol"]), np.int64(row["account"]))
        if ((place - home) & mask) >= ((place - hole) & mask):
            quoter_index(s)[hole] = moved
            hole = place
        place = (place + 1) & mask
    quoter_index(s)[hole] = 0


@subroutine
def quoter_settle(s, number):
    """Give back the row if it serves nothing any more."""
    row = quoters(s)[number]
    if row["slot"][0] != 0 or row["slot"][1] != 0 or row["limit"] != 0:
        return
    mask = len(quoter_index(s)) - 1
    place = quoter_home(s, np.int64(row["symbol"]), np.int64(row["account"]))
    while quoter_index(s)[place] != number:
        place = (place + 1) & mask
    index_close(s, place)
    row["symbol"] = 0
    row["account"] = 0
    row["next"] = s[QUOTERS_FREE]
    s[QUOTERS_FREE] = number


@subroutine
def quoter_join(s, slot):
    """The new order in `slot` is a side of its account's quote."""
    order = orders(s)[slot]
    number = quoter_take(s, np.int64(order["symbol"]), np.int64(order["account"]))
    quoters(s)[number]["slot"][np.int64(order["side"])] = slot + 1
    more(s)[slot]["quoter"] = number


@subroutine
def quoter_leave(s, slot):
    """The side of a quote in `slot` is over; it does not enter any more either."""
    number, side = np.int64(more(s)[slot]["quoter"]), np.int64(orders(s)[slot]["side"])
    more(s)[slot]["quoter"] = 0
    quoters(s)[number]["slot"][side] = 0
    if s[QUOTE_SLOT + side] == slot + 1:
        s[QUOTE_SLOT + side] = 0
    quoter_settle(s, number)


@helper
def quoter_side(s, number, side):
    """Slot of a live side, -1: none. Row 0 has none."""
    return np.int64(quoters(s)[number]["slot"][side]) - 1


# ------------------------------------------------------------------------------------ protection
@helper
def window_clear(s, number):
    """Nothing was filled."""
    row = quoters(s)[number]
    row["newest"] = 0
    for place in range(QUOTE_PARTS):
        row["parts"][place] = 0


@helper
def window_add(s, number, now, qty):
    """A fill; parts of the clock that were passed without one are empty."""
    row = quoters(s)[number]
    part, newest = now // np.int64(row["width"]), np.int64(row["newest"])
    if part > newest:
        for passed in range(max(newest + 1, part - MASK), part + 1):
            row["parts"][passed & MASK] = 0
        row["newest"] = part
    row["parts"][part & MASK] += qty


@helper
def window_sum(s, number, now):
    """Lots in the parts that have not left the window altogether."""
    row = quoters(s)[number]
    width, newest = np.int64(row["width"]), np.int64(row["newest"])
    first, total = now - np.int64(row["window"]) + 1, np.int64(0)
    for part in range(max(newest - MASK, np.int64(0)), newest + 1):
        if (part + 1) * width > first:
            total += np.int64(row["parts"][part & MASK])
    return total


@helper
def over_note(s, number):
    """The protection is to fire behind the aggressor, those of lower accounts before it."""
    row = quoters(s)[number]
    symbol, account = np.int64(row["symbol"]), np.int64(row["account"])
    before, behind = np.int64(0), np.int64(rules(s)[symbol]["over"])
    while behind != 0 and np.int64(quoters(s)[behind]["account"]) < account:
        before = behind
        behind = np.int64(quoters(s)[behind]["next"])
    row["over"] = 1
    row["next"] = behind
    if before != 0:
        quoters(s)[before]["next"] = number
    else:
        rules(s)[symbol]["over"] = number
    if rules(s)[symbol]["settles"] == 0:
        settle_note(s, symbol)


@subroutine
def quote_filled(s, slot, qty):
    """A fill of the order in `slot`; that of a protected quote counts."""
    number = np.int64(more(s)[slot]["quoter"])
    row = quoters(s)[number]
    if number == 0 or row["limit"] == 0:
        return
    now = np.int64(s[IN_TS])
    window_add(s, number, now, qty)
    if row["over"] == 0 and window_sum(s, number, now) > np.int64(row["limit"]):
        over_note(s, number)
