"""What is wrong with a request by its fields alone: 103 and 104 of full instruments.

Cold; used by tests only. The matrix is RULES §13, Combinations: an option a type does not have is
104, and so is a number stated for it.
"""

from __future__ import annotations

from engine.records import CommandFlag, RejectCode, TimeInForce
from tests.model.checks_model import Command, refuse_if
from tests.model.full.order import (
    AUCTION_TIFS,
    BUDGET,
    LIMIT,
    MARKET,
    MARKET_TO_LIMIT,
    OPTION_TYPES,
    PEGS,
    PRICED,
    RESTING_TIFS,
    STOP_MARKETS,
    STOPS,
    TRAILING,
    FullOrder,
)

IOC, FOK = int(TimeInForce.IOC), int(TimeInForce.FOK)
DAY, GTD = int(TimeInForce.DAY), int(TimeInForce.GTD)
NUMBERS = ("px", "px2", "qty2", "peak", "min_qty", "amount", "expire_ts")
UNPRICED = {MARKET, MARKET_TO_LIMIT, BUDGET} | STOP_MARKETS
REPLACE_FLAGS = CommandFlag.SLIDE | CommandFlag.HIDDEN | CommandFlag.REDUCE_ONLY


# --------------------------------------------------------------------------------------- new orders
def check_new(c: Command) -> None:
    """103 and 104 of a new order."""
    refuse_if(c["decision_code"] > 3, RejectCode.BAD_FIELD)
    refuse_if(_out_of_range(c), RejectCode.OUT_OF_RANGE)
    unlisted = c["flags"] & CommandFlag.LIST and not c["decision_code"]
    refuse_if(bool(unlisted), RejectCode.BAD_COMBINATION)
    refuse_if(not _in_matrix(c), RejectCode.BAD_COMBINATION)


def _out_of_range(c: Command) -> bool:
    kind = c["order_type"]
    return (
        any(c[name] < 0 for name in NUMBERS)
        or c["qty"] < (0 if kind == BUDGET and c["tif"] != FOK else 1)
        or (kind == BUDGET and not 1 <= c["amount"] < 2**62)
        or (kind in PRICED and c["px"] < 1)
        or (kind in STOPS - TRAILING and c["px2"] < 1)
        or (kind in TRAILING and c["qty2"] < 1)
        or (kind != BUDGET and max(c["peak"], c["min_qty"]) > c["qty"])
    )


def _in_matrix(c: Command) -> bool:
    return _options_fit(c) and _tif_fits(c) and _numbers_fit(c)


def _options_fit(c: Command) -> bool:
    kind, tif, flags = c["order_type"], c["tif"], c["flags"]
    post_only, hidden = flags & CommandFlag.POST_ONLY, flags & CommandFlag.HIDDEN
    if post_only or hidden or c["peak"]:
        if kind not in OPTION_TYPES or tif in (IOC, FOK):
            return False
    if flags & CommandFlag.SLIDE and not post_only:
        return False
    if hidden and c["peak"]:
        return False
    if c["min_qty"] and (kind not in (LIMIT, MARKET) or tif == FOK):
        return False
    if flags & CommandFlag.TRIGGER_BEST and kind not in STOPS - TRAILING:
        return False
    if flags & CommandFlag.DISTANCE_BPS and kind not in TRAILING:
        return False
    return not flags & CommandFlag.PROTECTED or kind == MARKET


def _tif_fits(c: Command) -> bool:
    kind, tif, post_only = c["order_type"], c["tif"], c["flags"] & CommandFlag.POST_ONLY
    if tif == FOK:
        return kind in (LIMIT, MARKET, BUDGET)
    if tif == IOC:
        return kind not in PEGS | {MARKET_TO_LIMIT}
    if kind == MARKET and tif in (DAY, GTD):
        return False  # it never rests
    if tif in AUCTION_TIFS:
        return kind in (LIMIT, MARKET) and not c["min_qty"] and not post_only
    return tif in RESTING_TIFS


def _numbers_fit(c: Command) -> bool:
    kind = c["order_type"]
    return (
        not (c["px"] and kind in UNPRICED)
        and not (c["px2"] and kind not in STOPS)
        and not (c["qty2"] and kind not in TRAILING)
        and not (c["amount"] and kind != BUDGET)
        and not (kind == BUDGET and c["tif"] != FOK and c["qty"])
        and not (c["expire_ts"] and c["tif"] != GTD)
    )


# ----------------------------------------------------------------------------------------- replaces
def check_replace(c: Command, order: FullOrder, tif: int) -> None:
    """103, 104 and 304 of a replace, once its target is known."""
    total = c["qty"] or order.total
    refuse_if(any(c[name] < 0 for name in NUMBERS), RejectCode.OUT_OF_RANGE)
    refuse_if(max(c["peak"], c["min_qty"]) > total, RejectCode.OUT_OF_RANGE)
    refuse_if(not _replace_fits(c, order, tif), RejectCode.BAD_COMBINATION)


def _replace_fits(c: Command, order: FullOrder, tif: int) -> bool:
    kind = order.order_type
    if order.is_quote and (c["peak"] or c["min_qty"] or tif != order.tif):
        return False
    if c["peak"] and (kind not in OPTION_TYPES or order.hidden or order.tif == IOC):
        return False
    if c["min_qty"] and (kind != LIMIT or order.tif in AUCTION_TIFS):
        return False
    if c["px"] and kind in UNPRICED - {MARKET_TO_LIMIT}:
        return False
    if c["px2"] and not order.is_stop:
        return False
    if c["qty2"] and not (order.is_stop and kind in TRAILING):
        return False
    if c["qty2"] and bool(c["flags"] & CommandFlag.DISTANCE_BPS) != order.in_bps:
        return False  # a distance keeps its unit
    if tif == GTD and order.tif != GTD and not c["expire_ts"]:
        return False
    return not c["expire_ts"] or tif == GTD
