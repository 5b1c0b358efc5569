"""Static and dynamic bands, and the references they lie around (RULES §7, §13 Bands).

Hot for instruments with RuleSet.FULL. A width is a share of its reference in basis points, rounded
down to ticks; no reference or a share of 0: no band. The static band tests limits at entry and the
price of an uncross, the dynamic one every trade, before it happens.

The dynamic reference is the last trade before the running command. So nothing is done when a
command ends: `reference_roll` runs before the next one of the symbol, CALL.traded says whether
there is something to roll.
"""

import numpy as np

from engine.book_numba import level_displayed
from engine.book_state import calls, events, levels, rules, sides, symbols
from engine.emit import event_new, symbol_id_of
from engine.full_pending import wave_note
from engine.jit import helper, subroutine
from engine.records import PRICE_TICKS_MAX, EventKind, InstrumentRule, Phase, RejectCode

BPS = 10_000
DOUBLINGS_MAX = 32  # wider than all prices


@helper
def reference_roll(s, symbol):
    """A command begins that may trade here: the reference is the last trade before it, and no wave
    looks back further, unless a call keeps what was traded for the first one behind it.
    """
    row = calls(s)[symbol]
    if row["traded"] != 0:
        row["dynamic_ref"] = symbols(s)[symbol]["last_px"]
        row["traded"] = 0
        if symbols(s)[symbol]["phase"] == Phase.CONTINUOUS:
            rules(s)[symbol]["wave_low"] = 0
            rules(s)[symbol]["wave_high"] = 0


@helper
def full_traded(s, symbol, px):
    """There was a trade at px."""
    symbols(s)[symbol]["last_px"] = px
    wave_note(s, symbol, px)
    row = calls(s)[symbol]
    row["traded"] = 1
    if row["static_ref"] == 0:
        row["static_ref"] = px


@helper
def static_limit(s, symbol, side):
    """The most aggressive price the static band leaves to a side, 0: no band."""
    reference = np.int64(calls(s)[symbol]["static_ref"])
    bps = np.int64(rules(s)[symbol]["rule"][InstrumentRule.STATIC_BAND.value])
    if bps == 0 or reference == 0:
        return np.int64(0)
    px = reference + (1 - 2 * side) * (reference * bps // BPS)
    return min(max(px, np.int64(1)), np.int64(symbols(s)[symbol]["px_max"]))


@helper
def static_code(s, symbol, side, px):
    """308: a limit more aggressive than the static band."""
    limit = static_limit(s, symbol, side)
    if px != 0 and limit != 0 and (px - limit) * (1 - 2 * side) > 0:
        return np.int64(RejectCode.STATIC_BAND.value)
    return np.int64(0)


@helper
def dynamic_width(s, symbol):
    """Of the dynamic band, in ticks; 0 too where there is none."""
    bps = np.int64(rules(s)[symbol]["rule"][InstrumentRule.DYNAMIC_BAND.value])
    return np.int64(calls(s)[symbol]["dynamic_ref"]) * bps // BPS


@helper
def dynamic_range(s, symbol):
    """Lowest and highest price at which the running command may trade."""
    reference = np.int64(calls(s)[symbol]["dynamic_ref"])
    if rules(s)[symbol]["rule"][InstrumentRule.DYNAMIC_BAND.value] == 0 or reference == 0:
        return np.int64(0), np.int64(PRICE_TICKS_MAX)
    width = dynamic_width(s, symbol)
    return reference - width, reference + width


@helper
def static_width(s, symbol):
    """Of the price of an uncross: the first extension leaves it, each further one doubles it."""
    bps = np.int64(rules(s)[symbol]["rule"][InstrumentRule.STATIC_BAND.value])
    doublings = min(max(np.int64(calls(s)[symbol]["extensions"]) - 1, 0), DOUBLINGS_MAX)
    return (np.int64(calls(s)[symbol]["static_ref"]) * bps // BPS) << doublings


@helper
def outside_static(s, symbol, px):
    """Whether an uncross at px would be outside the static band, widened as it is by now."""
    if static_limit(s, symbol, np.int64(0)) == 0:
        return False
    return abs(px - np.int64(calls(s)[symbol]["static_ref"])) > static_width(s, symbol)


@subroutine
def emit_band(s, symbol):
    """BAND: references and widths now. Told to nobody outside; it is in the audit."""
    row = calls(s)[symbol]
    event = events(s)[event_new(s, EventKind.BAND)]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["px"] = row["static_ref"]
    event["px2"] = row["dynamic_ref"]
    event["qty"] = row["extensions"]
    event["amount"] = static_width(s, symbol)
    event["amount2"] = dynamic_width(s, symbol)


@helper
def displayed_px(s, side_index):
    """Best price at which something is displayed, 0: nowhere."""
    level = level_displayed(s, np.int64(sides(s)[side_index]["best"]))
    return np.int64(levels(s)[level]["px"]) if level >= 0 else np.int64(0)


@helper
def untraded_reference(s, symbol):
    """Dynamic reference behind an uncross without a trade: the best displayed price nearest the old
    one, the lower of two.
    """
    old = np.int64(calls(s)[symbol]["dynamic_ref"])
    bid, ask = displayed_px(s, symbol * 2), displayed_px(s, symbol * 2 + 1)
    if old == 0 or (bid == 0 and ask == 0):
        return old
    if bid == 0 or ask == 0:
        return max(bid, ask)
    if abs(bid - old) == abs(ask - old):
        return min(bid, ask)
    return bid if abs(bid - old) < abs(ask - old) else ask
