"""Orders of the full rules: NEW, REPLACE, CANCEL, expiry (RULES §2, §3, §13).

Hot for instruments with RuleSet.FULL. First all tests in the order of the codes, then the first
change. Derived prices (market-to-limit, protection, slide) come from the best opposite price,
hidden orders and own ones included.
"""

import numpy as np

from engine.book_numba import level_find
from engine.book_rows import (
    ORDER_FULL,
    ORDER_HIDDEN,
    ORDER_SLIDE,
    SESSION_LIMITED,
)
from engine.book_state import (
    IN_TS,
    LEVELS_CAPACITY,
    LEVELS_USED,
    NONE,
    ORDERS_FREE,
    levels,
    more,
    orders,
    rules,
    sessions,
    sides,
    symbols,
)
from engine.full_aside import park_new
from engine.full_bands import static_code, static_limit
from engine.full_book import full_touch
from engine.full_budget import full_afford, full_cost_code, lot_price
from engine.full_calls import joins_now
from engine.full_emit import full_emit_accepted
from engine.full_links import full_end, full_expire
from engine.full_match import full_dry_run, limit_or_any
from engine.full_modes import in_batch, trades_now
from engine.full_pegged import is_peg
from engine.full_pending import STOP_NONE, is_stop, is_trailing
from engine.full_phases import auction_code, phase_code
from engine.full_rounds import level_crowded
from engine.full_run import full_start
from engine.jit import helper, subroutine
from engine.limit_codes import judged_px, limit_new_code
from engine.matching import best_crosses, order_take
from engine.records import (
    PRICE_TICKS_MAX,
    CommandFlag,
    EventKind,
    InstrumentRule,
    OrderType,
    Reason,
    RejectCode,
    RuleSet,
    SelfTrade,
    Side,
    TimeInForce,
)

DAY_NS = 86_400 * 10**9
BEGIN_RUN, BEGIN_MISSED, BEGIN_PARK = range(3)  # how an accepted order enters
AT_ONCE_FLAGS = int(CommandFlag.POST_ONLY | CommandFlag.PROTECTED)  # not in a batch mode


@helper
def rule_of(s, symbol, key):
    """What a rule of the instrument says now."""
    return np.int64(rules(s)[symbol]["rule"][key])


@helper
def best_opposite(s, symbol, side):
    """Best price an order of `side` could trade at, 0 when there is none."""
    level = np.int64(sides(s)[symbol * 2 + (1 - side)]["best"])
    return np.int64(levels(s)[level]["px"]) if level >= 0 else np.int64(0)


@helper
def slid_px(s, symbol, side, px):
    """Price of a sliding post-only order: one tick from the best opposite price where it would
    trade.
    """
    if not best_crosses(s, symbol, side, px):
        return px
    return best_opposite(s, symbol, side) - (1 - 2 * side)


@helper
def reserves(s, c, symbol):
    """Whether it is a market order that takes part in a call or batch: at the static band."""
    waits = c["tif"] >= TimeInForce.AT_OPEN or in_batch(s, symbol)
    return c["order_type"] == OrderType.MARKET and waits


@helper
def entry_px(s, c, symbol):
    """Limit price the order will have: as stated, derived, or 0 for market. A market order of a
    call reserves at the static band.
    """
    side, px = np.int64(c["side"]), np.int64(c["px"])
    flags, best = np.int64(c["flags"]), best_opposite(s, symbol, side)
    if reserves(s, c, symbol):
        px = static_limit(s, symbol, side)
    elif c["order_type"] == OrderType.MARKET_TO_LIMIT:
        px = best
    elif flags & CommandFlag.PROTECTED.value and best > 0:
        px = best + (1 - 2 * side) * rule_of(s, symbol, InstrumentRule.PROTECTION)
        px = min(max(px, np.int64(1)), np.int64(PRICE_TICKS_MAX))
    elif flags & CommandFlag.SLIDE.value:
        px = slid_px(s, symbol, side, px)
    return px


@helper
def may_make(s, symbol, side, px):
    """Whether a post-only order may rest at px."""
    within = px >= 1 and px <= symbols(s)[symbol]["px_max"]
    return within and not best_crosses(s, symbol, side, px)


@helper
def parts_code(s, symbol, qty, peak):
    """310: an iceberg of too many slices."""
    if peak > 0 and (qty + peak - 1) // peak > rule_of(s, symbol, InstrumentRule.ICEBERG_PARTS):
        return np.int64(RejectCode.ICEBERG_PARTS.value)
    return np.int64(0)


@helper
def band_code(s, c, symbol):
    """308, 309 of NEW."""
    side = np.int64(c["side"])
    if reserves(s, c, symbol):
        missing = static_limit(s, symbol, side) == 0
        return np.int64(RejectCode.NO_BAND.value if missing else 0)
    return static_code(s, symbol, side, np.int64(c["px"]))


@helper
def cap_missing(c):
    """311: a peg, or a trailing buy, without limit."""
    kind = np.int64(c["order_type"])
    capped = is_peg(kind) or (is_trailing(kind) and c["side"] == Side.BUY)
    return capped and c["px"] == 0


@helper
def waiting_full(s, symbol, kind):
    """314: whether there are as many orders of a type as may be: trailing stops, pegs."""
    row = rules(s)[symbol]
    if is_trailing(kind):
        return np.int64(row["trails"]) >= rule_of(s, symbol, InstrumentRule.MAX_TRAILING)
    return is_peg(kind) and np.int64(row["peg_count"]) >= rule_of(
        s, symbol, InstrumentRule.MAX_PEGS
    )


@helper
def can_rest(c):
    """Whether a remainder of the new order would rest."""
    immediate = c["tif"] == TimeInForce.IOC or c["tif"] == TimeInForce.FOK
    spends = c["order_type"] == OrderType.BUDGET
    return c["order_type"] != OrderType.MARKET and not immediate and not spends


@helper
def fits_batch(c):
    """Whether the new order may wait for a cross of a batch mode."""
    kind = np.int64(c["order_type"])
    waits = kind == OrderType.LIMIT or kind == OrderType.MARKET or is_stop(kind)
    at_once = c["min_qty"] != 0 or np.int64(c["flags"]) & AT_ONCE_FLAGS != 0
    return waits and not at_once and c["tif"] != TimeInForce.FOK


@helper
def support_code(s, c, symbol):
    """304 of NEW."""
    flags = np.int64(c["flags"])
    unprotected = (
        rule_of(s, symbol, InstrumentRule.PROTECTION) == 0
        and flags & CommandFlag.PROTECTED.value != 0
    )
    spends = c["order_type"] == OrderType.BUDGET and stp_of(s, c, symbol) >= SelfTrade.DECREMENT
    impatient = in_batch(s, symbol) and not fits_batch(c)
    reduces = flags & CommandFlag.REDUCE_ONLY.value != 0
    if reduces or unprotected or spends or impatient:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    return np.int64(0)


@helper
def terms_code(s, c, symbol):
    """3xx of NEW, in order of code."""
    code = phase_code(s, c, symbol)
    if code == 0:
        code = support_code(s, c, symbol)
    if code != 0:
        return code
    tif = np.int64(c["tif"])
    code = auction_code(s, symbol, tif)
    if code == 0:
        code = band_code(s, c, symbol)
    if code == 0:
        code = parts_code(s, symbol, np.int64(c["qty"]), np.int64(c["peak"]))
    if code == 0 and cap_missing(c):
        code = np.int64(RejectCode.CAP_REQUIRED.value)
    if code == 0 and tif == TimeInForce.GTD and np.int64(c["expire_ts"]) <= s[IN_TS]:
        code = np.int64(RejectCode.EXPIRY_PAST.value)
    crowded = waiting_full(s, symbol, np.int64(c["order_type"]))
    side_index = symbol * 2 + np.int64(c["side"])
    limited = c["order_type"] == OrderType.LIMIT and can_rest(c) and tif < TimeInForce.AT_OPEN
    if limited and level_crowded(s, side_index, np.int64(c["px"]), np.int64(NONE)):
        crowded = True
    if code == 0 and crowded:
        code = np.int64(RejectCode.TOO_MANY.value)
    return code


@helper
def stp_of(s, c, symbol):
    """Self-trade mode of a new order."""
    mode = np.int64(c["stp"])
    return mode if mode != SelfTrade.DEFAULT else rule_of(s, symbol, InstrumentRule.STP)


@helper
def book_code(s, c, symbol, px):
    """5xx of NEW. Returns (code, whether its minimum quantity is there, too long a walk: 904)."""
    side, flags = np.int64(c["side"]), np.int64(c["flags"])
    limited = c["order_type"] == OrderType.LIMIT
    enough, too_long = True, np.int64(0)
    if not trades_now(s, symbol) or c["tif"] >= TimeInForce.AT_OPEN:
        return np.int64(0), enough, too_long
    if flags & CommandFlag.POST_ONLY.value and not may_make(s, symbol, side, px):
        return np.int64(RejectCode.WOULD_TRADE.value), enough, too_long
    if not limited and best_opposite(s, symbol, side) == 0:
        return np.int64(RejectCode.NO_LIQUIDITY.value), enough, too_long
    wanted = np.int64(c["qty"]) if c["tif"] == TimeInForce.FOK else np.int64(c["min_qty"])
    if wanted > 0:
        who = (symbol, side, np.int64(c["account"]), stp_of(s, c, symbol))
        limit, qty = limit_or_any(px, side), np.int64(c["qty"])
        code = full_dry_run(s, who, limit, qty, wanted)
        if code == RejectCode.WALK_TOO_LONG:
            too_long = code
        elif code != 0 and c["tif"] == TimeInForce.FOK:
            return code, enough, too_long
        enough = code == 0
    return np.int64(0), enough, too_long


@helper
def spend_code(s, c, symbol):
    """505 of a budget order. Returns (code, its quantity, too long a walk: 904)."""
    side, qty, money = np.int64(c["side"]), np.int64(c["qty"]), np.int64(c["amount"])
    who = (symbol, side, np.int64(c["account"]), stp_of(s, c, symbol))
    if c["tif"] == TimeInForce.FOK:
        return full_cost_code(s, who, qty, money), qty, np.int64(0)
    found, code = full_afford(s, who, money)
    if code == RejectCode.WALK_TOO_LONG:
        return np.int64(0), found, code
    return code, found, np.int64(0)


@helper
def capacity_code(s, c, symbol, px, waits, promised):
    """9xx of NEW but 904. One that waits for its call looks for a level then. In a batch mode an
    immediate order rests too.
    """
    if s[ORDERS_FREE] <= promised:
        return np.int64(RejectCode.ORDERS_FULL.value)
    side_index = symbol * 2 + np.int64(c["side"])
    full = s[LEVELS_USED] >= s[LEVELS_CAPACITY]
    rests = can_rest(c) or (c["order_type"] == OrderType.LIMIT and in_batch(s, symbol))
    if full and not waits and rests and level_find(s, side_index, px) < 0:
        return np.int64(RejectCode.LEVELS_FULL.value)
    return np.int64(0)


@helper
def expiry_of(s, c):
    """When the order expires by itself: the next day roll, the stated time, or 0."""
    if c["tif"] == TimeInForce.DAY:
        return (np.int64(s[IN_TS]) // DAY_NS + 1) * DAY_NS
    return np.int64(c["expire_ts"])


@helper
def more_take(s, c, slot, symbol):
    """Fill the row in `more` from the command."""
    extra = more(s)[slot]
    extra["expire_ts"] = expiry_of(s, c)
    extra["shown"] = 0
    extra["peak"] = c["peak"]
    extra["prevented"] = 0
    extra["min_qty"] = c["min_qty"]
    extra["due"] = 0
    extra["share"] = 0
    extra["link"] = 0
    extra["stp"] = stp_of(s, c, symbol)
    extra["waits"] = STOP_NONE
    extra["rank"] = 0
    extra["linked"] = 0
    extra["quoter"] = 0
    flags = np.int64(c["flags"])
    marks = ORDER_FULL
    if flags & CommandFlag.HIDDEN.value or orders(s)[slot]["order_type"] == OrderType.PEG_MID:
        marks |= ORDER_HIDDEN
    if flags & CommandFlag.SLIDE.value:
        marks |= ORDER_SLIDE
    orders(s)[slot]["flags"] |= marks


@helper
def limit_size(s, c, symbol, waits):
    """What the limits of an account measure a new order by: (lots, notional). A budget's quantity
    is what it is worth now; its notional is the budget.
    """
    side, qty = np.int64(c["side"]), np.int64(c["qty"])
    if c["order_type"] == OrderType.BUDGET:
        who = (symbol, side, np.int64(c["account"]), stp_of(s, c, symbol))
        if c["tif"] != TimeInForce.FOK:
            qty = full_afford(s, who, np.int64(c["amount"]))[0]
        return qty, np.int64(c["amount"]) // lot_price(s, symbol, np.int64(1))
    px = np.int64(c["px"])
    if reserves(s, c, symbol):
        px = static_limit(s, symbol, side)
    if px == 0 and waits:
        px = np.int64(c["px2"])
    return qty, qty * judged_px(s, symbol, side, px)


@subroutine
def full_limit_code(s, c, symbol):
    """403 to 406 of NEW, of an account that has limits."""
    waits = is_stop(np.int64(c["order_type"]))
    stays = waits or can_rest(c) or c["tif"] >= TimeInForce.AT_OPEN
    return limit_new_code(s, c, symbol, limit_size(s, c, symbol, waits), stays)


@helper
def instrument_code(s, c, symbol):
    """3xx and 4xx of NEW, in order of code."""
    code = terms_code(s, c, symbol)
    if code == 0 and np.int64(sessions(s)[np.int64(c["session"])]["flags"]) & SESSION_LIMITED:
        code = full_limit_code(s, c, symbol)
    return code


@helper
def range_code(s, c, symbol):
    """103 of a price beyond the highest; 304 of a list where only the plain rules are."""
    if max(np.int64(c["px"]), np.int64(c["px2"])) > symbols(s)[symbol]["px_max"]:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    plain = symbols(s)[symbol]["rules"] == RuleSet.PLAIN
    return np.int64(RejectCode.NOT_SUPPORTED_HERE.value if plain else 0)


@subroutine
def new_plan(s, c, symbol, promised):
    """All tests of NEW, but of stops. Returns (reject code, its limit, its quantity, BEGIN_*).
    `promised`: slots that other legs of its list take.
    """
    px, qty, begins = np.int64(c["px"]), np.int64(c["qty"]), np.int64(BEGIN_RUN)
    code = range_code(s, c, symbol)
    if code == 0:
        code = instrument_code(s, c, symbol)
    if code != 0:
        return code, px, qty, begins
    px = entry_px(s, c, symbol)
    code, enough, too_long = book_code(s, c, symbol, px)
    tif = np.int64(c["tif"])
    waits = tif >= TimeInForce.AT_OPEN and not joins_now(s, symbol, tif)
    if code == 0 and too_long == 0 and c["order_type"] == OrderType.BUDGET:
        code, qty, too_long = spend_code(s, c, symbol)
    if code == 0:
        code = capacity_code(s, c, symbol, px, waits, promised)
    if code == 0:
        code = too_long
    if waits:
        begins = np.int64(BEGIN_PARK)
    elif not enough:
        begins = np.int64(BEGIN_MISSED)
    return code, px, qty, begins


@helper
def order_accept(s, c, symbol, text_row, px, qty):
    """ACCEPTED: the order is one of the shard's from now on. Returns its slot."""
    slot = order_take(s, c, symbol, text_row)
    orders(s)[slot]["px"] = px
    orders(s)[slot]["leaves"] = qty
    more_take(s, c, slot, symbol)
    full_emit_accepted(s, slot)
    return slot


@subroutine
def full_new(s, c, symbol, text_row):
    """NEW of an instrument with the full rules. Returns the reject code."""
    code, px, qty, begins = new_plan(s, c, symbol, np.int64(0))
    if code != 0:
        return code
    slot = order_accept(s, c, symbol, text_row, px, qty)
    if begins == BEGIN_PARK:
        full_touch(s, symbol)
        park_new(s, slot)
    elif begins == BEGIN_RUN:
        full_start(s, slot, np.int64(0))
    else:
        full_touch(s, symbol)
        full_expire(s, slot, np.int64(Reason.MINIMUM.value))
    return code


@subroutine
def full_cancel(s, slot, reason):
    """Take a live order out of the market."""
    full_touch(s, np.int64(orders(s)[slot]["symbol"]))
    full_end(s, EventKind.CANCELED, slot, reason)


@subroutine
def order_expire(s, slot):
    """The time of a DAY or GTD order has come."""
    full_touch(s, np.int64(orders(s)[slot]["symbol"]))
    day = orders(s)[slot]["tif"] == TimeInForce.DAY
    reason = np.int64(Reason.DAY.value if day else Reason.GTD.value)
    full_end(s, EventKind.EXPIRED, slot, reason)
