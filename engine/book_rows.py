"""The rows of a shard's memory: one dtype for each array of engine/book_state.py.

Cold; the hot kernels work on what is laid out here. Sizes are whole lines of memory where a row is
touched for every order.
"""

import numpy as np

from engine.config import LEAD_MAX

ORDER = np.dtype(
    [
        ("order_id", "<i8"),
        ("client_order_id", "<i8"),
        ("public_ref", "<i8"),
        ("px", "<i4"),
        ("leaves", "<i4"),
        ("cum", "<i4"),
        ("next", "<i4"),
        ("prev", "<i4"),
        ("level", "<i4"),  # NONE: not in the book
        ("account", "<i4"),
        ("session", "<i4"),
        ("symbol", "<i4"),
        ("side", "u1"),
        ("order_type", "u1"),
        ("tif", "u1"),
        ("flags", "u1"),
    ],
    align=True,
)
ORDER_POST_ONLY = 1
ORDER_TEXT = 2
ORDER_TAG = 4
ORDER_INDEXED = 8  # its integer client id is in `ids`
ORDER_FULL = 16  # of an instrument with the full rules: it has a row in `more`
ORDER_HIDDEN = 32
ORDER_SLIDE = 64
ORDER_COUNTED = 128  # its account has limits: it has a row in `counted`

# What an order of the full rules has beside ORDER; in the same slot.
MORE = np.dtype(
    [
        ("expire_ts", "<i8"),  # when it expires by itself, 0: never
        ("shown", "<i4"),  # displayed now; the rest of `leaves` is hidden
        ("peak", "<i4"),  # iceberg: shown at a time; 0: no iceberg
        ("prevented", "<i4"),  # lots that self-trade prevention took
        ("min_qty", "<i4"),
        ("due", "<i4"),  # place in `due` + 1, 0: not there
        ("stp", "<i4"),  # SelfTrade, never DEFAULT
        ("share", "<i4"),  # what it still gets in the round that is open (engine/full_shares.py)
        ("link", "<i4"),  # next in a list by size, while a round is planned
        ("waits", "<i8"),  # for its trigger: STOP_NONE, STOP_WAITS, STOP_ELECTED
        ("rank", "<i8"),  # time priority within the symbol, 0: none yet
        ("linked", "<i4"),  # LINKED_*: what ties it to other orders, and how it waits for them
        ("quoter", "<i4"),  # side of a quote: its row in `quoters`, 0: none
    ],
    align=True,
)
LINKED_OCO = 1  # LINK.sibling goes with it
LINKED_FIRST = 2  # LINK.leg goes live behind it
LINKED_WAITS = 4  # a leg that is not live yet
LINKED_PROTECTED = 8  # a market order that gets the instrument's protection when it goes live
LINKED_BEGINS = 16  # accepted, its turn to enter has not come yet
# The other orders of a list (engine/full_links.py), in the same slot. Of an order without
# MORE.linked this is rubbish.
LINK = np.dtype(
    [
        ("leg", "<i8"),  # order_id of the first leg of an OTO whose first order this is
        ("sibling", "<i4"),  # slot of the other leg of an OCO
        ("legs", "<i4"),  # how many legs were parked with it
    ],
    align=True,
)
# A list whose last leg is not there yet, by session slot (engine/legs.py).
LIST = np.dtype(
    [
        ("count", "<i4"),  # legs so far
        ("code", "<i4"),  # RejectCode of the first of them that fails
    ],
    align=True,
)
LEGS_MAX = 3
# What an order that waits for its trigger (MORE.waits) has beside MORE, in the same slot
# (engine/full_pending.py). Of any other order this is rubbish.
PENDING = np.dtype(
    [
        ("trigger", "<i8"),  # of a trailing stop it follows from `extreme`, and may be below 1
        ("wait", "<i8"),  # RULES.waits when it began to wait: ties go by it
        ("extreme", "<i4"),  # trailing: best price seen, 0: none yet
        ("distance", "<i4"),
        ("activation", "<i4"),
        ("left", "<i4"),  # children in its heap; list of trailing stops: before, behind
        ("right", "<i4"),
        ("parent", "<i4"),
        ("rank", "<i4"),  # steps to the nearest empty place below it
        ("on_best", "u1"),
        ("in_bps", "u1"),
        ("active", "u1"),  # trailing: the activation price was reached
        ("reserved", "u1"),
    ],
    align=True,
)
# Where a live order of the full rules is that is in no level: one of the rows of its symbol.
ASIDE = np.dtype(
    [
        ("next", "<i4"),
        ("prev", "<i4"),
        ("row", "<i4"),  # one of ROW_*; ROW_NONE: it is not aside
        ("reserved", "<i4"),
    ],
    align=True,
)
ROW_NONE, ROW_PARKED, ROW_BUYS, ROW_SELLS, ROW_PEGS = 0, 1, 2, 3, 4
# What a pegged order has beside MORE, in the same slot (engine/full_pegged.py). Of any other order
# this is rubbish.
PEG = np.dtype(
    [
        ("cap", "<i4"),  # ticks; ORDER.px is where it stands, its cap while it is parked
        ("next", "<i4"),  # among the pegs of its symbol, in entry order
        ("prev", "<i4"),
        ("moves", "<i4"),  # PEG_STANDS, PEG_OUT, PEG_RUNS: how far its repricing is
    ],
    align=True,
)
# What a level of the full rules has beside LEVEL, whose qty is then what is displayed. Its queue
# has displayed orders first, then the hidden ones.
DARK = np.dtype(
    [
        ("qty", "<i8"),  # not displayed: hidden orders and what icebergs hold back
        ("head", "<i4"),  # first hidden order
        ("count", "<i4"),  # hidden orders
    ],
    align=True,
)

LEVEL = np.dtype(
    [
        ("qty", "<i8"),
        ("head", "<i4"),
        ("tail", "<i4"),
        ("count", "<i4"),
        ("px", "<i4"),
        ("leaf", "<i4"),
        ("side", "<i4"),
    ],
    align=True,
)
SIDE = np.dtype(
    [
        ("best", "<i4"),
        ("root", "<i4"),
        ("levels", "<i4"),
        ("orders", "<i4"),
        ("reserved", "<i8", (2,)),
    ],
    align=True,
)
SYMBOL = np.dtype(
    [
        ("name", "<u8"),
        ("tick", "<i8"),
        ("lot", "<i8"),
        ("px_max", "<i8"),
        ("last_px", "<i8"),
        ("last_qty", "<i8"),
        ("trade_id", "<i8"),
        ("volume", "<i8"),
        ("phase", "<i8"),
        ("symbol_id", "<i8"),
        ("dirty", "<i8"),
        ("rules", "<i8"),  # RuleSet
        ("stp", "<i8"),  # SelfTrade of orders that name none
        ("iceberg_parts", "<i8"),
        ("protection", "<i8"),  # ticks
        ("reserved", "<i8"),
    ],
    align=True,
)
# What an instrument of the full rules has beside SYMBOL, where stp, iceberg_parts and protection
# are the terms it was listed with.
RULES = np.dtype(
    [
        ("rule", "<i8", (32,)),  # by InstrumentRule: in force now
        ("reference", "<i8"),  # static band reference, ticks; 0: none
        ("settles", "<i8"),  # it is in `settling`
        ("watched", "<i8"),  # how much looks at every change: stops that wait, pegs, a call
        ("triggers", "<i8", (6,)),  # roots of the heaps of waiting stops (engine/full_pending.py)
        ("trail_first", "<i8"),  # list of waiting trailing stops
        ("trails", "<i8"),  # how many
        ("waits", "<i8"),  # numbers given to those that wait: they break ties
        ("wave_low", "<i8"),  # trades since the last wave while something is watched; 0: none
        ("wave_high", "<i8"),
        ("wave_count", "<i8"),  # elected by the present wave: scratch[SETTLE_INDEX : wave_count]
        ("rounds", "<i8"),  # 1: levels are shared out (engine/full_rounds.py)
        ("top", "<i4", (2,)),  # by side: slot of the top order + 1, 0: none
        ("round_fills", "<i4"),  # of the open round: trades still to come
        ("round_shows", "<i4"),  # slices to be shown again behind them
        ("round_next", "<i4"),  # where to look for the next trade
        ("lead_count", "<i4"),  # lead market makers: how many, who, and their percentages
        ("lead_account", "<i4", (LEAD_MAX,)),
        ("lead_percent", "<i4", (LEAD_MAX,)),
        ("peg_first", "<i4"),  # list of the pegs, in entry order (engine/full_pegged.py)
        ("peg_last", "<i4"),
        ("peg_next", "<i4"),  # while they are repriced: where to look for the next that moves
        ("peg_count", "<i4"),
        ("over", "<i8"),  # first of the `quoters` whose protection is to fire, 0: none
        ("reserved", "<i8", (10,)),
    ],
    align=True,
)
# Phases of an instrument with the full rules: bands, who waits for a call, what the public was told
# of it, and the memory of the uncross that is under way (engine/full_uncross.py).
CALL = np.dtype(
    [
        ("static_ref", "<i8"),  # ticks, 0: none; RULES.reference, else the first trade
        ("dynamic_ref", "<i8"),  # of the running command
        ("traded", "<i8"),  # since then: the next command has last_px instead
        ("extensions", "<i8"),  # of the present call
        ("has_calendar", "<i8"),
        ("resumes_to", "<i8"),  # phase behind cancel-only
        ("ranks", "<i8"),  # last one given out
        ("head", "<i8", (5,)),  # by row: parked orders, market orders of a call by side, pegs
        ("tail", "<i8", (5,)),
        ("count", "<i8", (5,)),
        ("told", "<i8", (4,)),  # price, volume, surplus and its side as last told in this call
        ("indicative_at", "<i8"),  # something else is to be told then, 0: nothing
        ("indicative_from", "<i8"),  # not before
        ("stage", "<i8"),  # of leaving a call, 0: nothing is under way
        ("to", "<i8"),  # phase that comes then
        ("until", "<i8"),
        ("px", "<i8"),  # of the cross
        ("volume", "<i8"),
        ("left", "<i8"),  # of it
        ("pairs", "<i8"),
        ("at", "<i8", (2,)),  # by side: price of the level that trades, 0: none yet
        ("slot", "<i8", (2,)),  # its displayed order that trades, NONE: what is not displayed
        ("listed", "<i8"),  # orders in `scratch`: slices to be shown again, then what expires
        ("index", "<i8"),  # the next of them
        ("trades", "<i8"),  # trade_id as it began
        ("old_ref", "<i8"),
        ("old_extensions", "<i8"),
        ("cross_at", "<i8"),  # batch modes: the next cross, 0: nothing waits for one
        ("once", "<i8"),  # the cross under way is that of a batch mode: one, and no more
        ("algorithm", "<i8"),  # that comes behind it, + 1; 0: it stays
        ("guests", "<i8"),  # orders in levels that cannot rest: the next cross is their last
    ],
    align=True,
)
SESSION = np.dtype(
    [
        ("name", "<u8"),
        ("last_id", "<i8"),
        ("logon", "<i8"),  # 0: nobody owns it
        ("account", "<i4"),
        ("producer", "<i4"),
        ("flags", "<i8"),
        ("dead_man", "<i8"),  # ns without a command after which its orders go; 0: never
        ("dead_man_at", "<i8"),  # deadlines (engine/deadline.py), 0: none
        ("close_at", "<i8"),
    ],
    align=True,
)
# Beside the flags of its SESSION_OPEN a session carries what there is to know of every order, so
# that one word tells it: whether it is blocked, or its account is, and whether that has limits.
SESSION_FLAGS = 0xFFFF
SESSION_KILLED = 1 << 16
SESSION_ACCOUNT_KILLED = 1 << 17
SESSION_LIMITED = 1 << 18
LIMITED_SHIFT = 11  # from there to ORDER_COUNTED
ACCOUNT = np.dtype([("account_seq", "<i8"), ("open", "<i8")], align=True)
ACCOUNT_OPEN, ACCOUNT_KILLED = 1, 2  # bits of `open`
# Limits of an account on an instrument, and what they are measured against
# (engine/account_limits.py). A free row is all zeros; row 0 is nobody's.
LIMIT = np.dtype(
    [
        ("limit", "<i8", (8,)),  # by AccountLimit, 0: none
        ("position", "<i8"),  # lots bought less lots sold since there are limits
        ("open_qty", "<i8", (2,)),  # lots of live orders, by side
        ("open_orders", "<i8"),
        ("account", "<i4"),  # 0: the row is free
        ("symbol", "<i4"),
        ("next", "<i4"),  # row of the account's next instrument, 0: none
        ("reserved", "<i4"),
        ("reserved2", "<i8", (2,)),
    ],
    align=True,
)
# What is counted of an order with ORDER_COUNTED.
COUNTED = np.dtype(
    [
        ("row", "<i4"),  # in `limit_rows`, 0: none on this instrument
        ("open", "<i4"),  # lots of it that are in open_qty
    ],
    align=True,
)
# Who quotes an instrument, or is protected there (engine/quoters.py): the live sides of the quote,
# and what was filled on it lately. Row 0 stays empty.
QUOTE_PARTS = 64  # of the clock, of which one more than a window has
QUOTER = np.dtype(
    [
        ("symbol", "<i4"),  # 0: nobody's row
        ("account", "<i4"),
        ("slot", "<i4", (2,)),  # of the side + 1, 0: none
        ("limit", "<i4"),  # lots that may be filled within the window, 0: unprotected
        ("fired", "<i4"),  # until the protection is armed again
        ("window", "<i8"),  # ns
        ("width", "<i8"),  # of a part
        ("newest", "<i8"),  # number of the newest part of the clock with a fill
        ("next", "<i4"),  # of those to fire, by account; of rows that are free
        ("over", "<i4"),  # it is to fire
        ("reserved", "<i8"),
        ("parts", "<i8", (QUOTE_PARTS,)),  # lots, by number of the part
    ],
    align=True,
)
TEXT = np.dtype(
    [
        ("hash", "<u8"),
        ("account", "<i4"),
        ("order", "<i4"),
        ("text", "u1", (36,)),
        ("reserved", "<i4"),
    ],
    align=True,
)
assert QUOTER.itemsize == 64 + 8 * QUOTE_PARTS
assert (ORDER.itemsize, LEVEL.itemsize, SIDE.itemsize, SYMBOL.itemsize, SESSION.itemsize) == (
    64,
    32,
    32,
    128,
    64,
)
assert LIMIT.itemsize == 128
assert SESSION_LIMITED >> LIMITED_SHIFT == ORDER_COUNTED
