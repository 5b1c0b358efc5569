"""The tests a command passes before anything changes, stage by stage (RULES §1), and the
instruments it may name.

Hot. Every function returns the first code that applies, 0 when none does: protocol 1xx, session and
client id 2xx, instrument 3xx; what needs the book (5xx, 9xx) is engine/matching.py. Nothing here
changes state but `client_id_code`, which consumes the id (RULES §10) and notes that the session was
heard of, and `symbol_list`.
"""

import numpy as np

from engine.book_numba import symbol_touch
from engine.book_state import (
    SESSIONS_USED,
    SYMBOLS_CAPACITY,
    SYMBOLS_USED,
    calls,
    names,
    orders,
    owner,
    rules,
    sessions,
    symbols,
    texts,
)
from engine.bulk import PAGE_ROWS_MAX
from engine.deadline import session_heard
from engine.emit import (
    emit_listed,
    symbol_id_of,
)
from engine.id_table import id_find, text_find, text_insert
from engine.instrument_rules import rules_begin
from engine.jit import helper, subroutine
from engine.records import (
    NOTIONAL_MAX,
    SLOT_MASK,
    UNSTATED,
    CommandFlag,
    CommandKind,
    OrderType,
    Phase,
    RejectCode,
    RuleSet,
    SelfTrade,
    TimeInForce,
)

ICEBERG_PARTS = 100  # of an instrument created on first use
POST_ONLY_SLIDE = int(CommandFlag.POST_ONLY | CommandFlag.SLIDE)
LIST_KINDS = 3  # OCO, OTO, OTOCO (engine/legs.py)
RETRANSMISSION = -1  # answer of client_id_code: the id names a live order, say where it stands
OPTION_FLAGS = int(
    CommandFlag.SLIDE
    | CommandFlag.HIDDEN
    | CommandFlag.REDUCE_ONLY
    | CommandFlag.TRIGGER_BEST
    | CommandFlag.DISTANCE_BPS
    | CommandFlag.PROTECTED
    | CommandFlag.LIST
)


@helper
def has_text(c):
    """Whether the record carries a text client id."""
    return (np.int64(c["flags"]) & CommandFlag.TEXT_ID.value) != 0 and c["text"][0] != 0


@helper
def options_stated(c):
    """Whether an order has anything beyond price, quantity and post-only."""
    return (
        (np.int64(c["flags"]) & OPTION_FLAGS) != 0
        or c["tif"] > TimeInForce.FOK
        or c["order_type"] > OrderType.MARKET
        or c["peak"] != 0
        or c["min_qty"] != 0
        or c["px2"] != 0
        or c["qty2"] != 0
        or c["amount"] != 0
        or c["expire_ts"] != 0
    )


@helper
def number_missing(c, kind):
    """Whether a type lacks the number it is named for."""
    trailing = kind == OrderType.TRAILING_STOP or kind == OrderType.TRAILING_STOP_LIMIT
    stop = kind >= OrderType.STOP and kind <= OrderType.TAKE_PROFIT_LIMIT
    priced = (
        kind == OrderType.STOP_LIMIT
        or kind == OrderType.TAKE_PROFIT_LIMIT
        or kind == OrderType.TRAILING_STOP_LIMIT
    )
    return (
        (priced and c["px"] < 1)
        or (stop and c["px2"] < 1)
        or (trailing and c["qty2"] < 1)
        or (kind == OrderType.BUDGET and (c["amount"] < 1 or c["amount"] > NOTIONAL_MAX))
    )


@helper
def unpriced(kind):
    """Whether a type has no price of its own."""
    return (
        kind == OrderType.MARKET
        or kind == OrderType.MARKET_TO_LIMIT
        or kind == OrderType.BUDGET
        or kind == OrderType.STOP
        or kind == OrderType.TAKE_PROFIT
    )


@helper
def options_in_range(c):
    """103: whether every number of NEW is possible, and those its type is named for are there."""
    kind = np.int64(c["order_type"])
    lowest = min(np.int64(c["peak"]), np.int64(c["min_qty"]), np.int64(c["px2"]))
    lowest = min(lowest, np.int64(c["qty2"]), np.int64(c["amount"]), np.int64(c["expire_ts"]))
    above = max(np.int64(c["peak"]), np.int64(c["min_qty"])) > np.int64(c["qty"])
    return lowest >= 0 and (not above or kind == OrderType.BUDGET) and not number_missing(c, kind)


@subroutine
def options_code(c):
    """103, 104 of the options of NEW (RULES §13, combinations)."""
    if not options_in_range(c):
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    kind, tif, flags = np.int64(c["order_type"]), np.int64(c["tif"]), np.int64(c["flags"])
    limited = (
        kind == OrderType.LIMIT
        or kind == OrderType.STOP_LIMIT
        or kind == OrderType.TAKE_PROFIT_LIMIT
    )
    immediate = tif == TimeInForce.IOC or tif == TimeInForce.FOK
    hidden = flags & CommandFlag.HIDDEN.value != 0
    resting = hidden or c["peak"] != 0 or flags & CommandFlag.POST_ONLY.value != 0
    stop = kind >= OrderType.STOP and kind <= OrderType.TRAILING_STOP_LIMIT
    trailing = kind == OrderType.TRAILING_STOP or kind == OrderType.TRAILING_STOP_LIMIT
    peg = kind >= OrderType.PEG_PRIMARY or kind == OrderType.MARKET_TO_LIMIT
    auction = tif > TimeInForce.GTD
    expires = tif == TimeInForce.DAY or tif == TimeInForce.GTD
    bad = (
        (resting and (not limited or immediate))
        or (hidden and c["peak"] != 0)
        or (c["min_qty"] != 0 and (kind > OrderType.MARKET or tif == TimeInForce.FOK))
        or (tif == TimeInForce.FOK and kind > OrderType.MARKET and kind != OrderType.BUDGET)
        or (peg and (immediate or tif > TimeInForce.GTD))
        or (auction and (kind > OrderType.MARKET or c["min_qty"] != 0))
        or (auction and flags & CommandFlag.POST_ONLY.value != 0)
        or (expires and kind == OrderType.MARKET)
        or (flags & CommandFlag.LIST.value != 0 and c["decision_code"] == 0)
        or (flags & POST_ONLY_SLIDE == CommandFlag.SLIDE.value)
        or (c["px"] != 0 and unpriced(kind))
        or (flags & CommandFlag.PROTECTED.value != 0 and kind != OrderType.MARKET)
        or (flags & CommandFlag.TRIGGER_BEST.value != 0 and (not stop or trailing))
        or (flags & CommandFlag.DISTANCE_BPS.value != 0 and not trailing)
        or (c["px2"] != 0 and not stop)
        or (c["qty2"] != 0 and not trailing)
        or (c["amount"] != 0 and kind != OrderType.BUDGET)
        or (c["qty"] != 0 and kind == OrderType.BUDGET and tif != TimeInForce.FOK)
        or (c["expire_ts"] != 0 and tif != TimeInForce.GTD)
    )
    return np.int64(RejectCode.BAD_COMBINATION.value if bad else 0)


@helper
def new_protocol_code(c):
    """1xx of NEW but the client id."""
    side, kind, tif = np.int64(c["side"]), np.int64(c["order_type"]), np.int64(c["tif"])
    if (
        side > 1
        or kind < 1
        or kind > OrderType.PEG_MID
        or tif > TimeInForce.GOOD_FOR_AUCTION
        or c["stp"] > SelfTrade.TRANSFER
        or c["decision_code"] > LIST_KINDS
    ):
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["symbol_id"] == 0 and c["symbol"] == 0:
        return np.int64(RejectCode.BAD_FIELD.value)
    lowest_qty = 0 if kind == OrderType.BUDGET and tif != TimeInForce.FOK else 1
    if c["qty"] < lowest_qty or c["px"] < 0 or (kind == OrderType.LIMIT and c["px"] < 1):
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if options_stated(c):
        return options_code(c)
    post_only = np.int64(c["flags"]) & CommandFlag.POST_ONLY.value
    if kind == OrderType.MARKET and (c["px"] != 0 or post_only):
        return np.int64(RejectCode.BAD_COMBINATION.value)
    if post_only and (tif == TimeInForce.IOC or tif == TimeInForce.FOK):
        return np.int64(RejectCode.BAD_COMBINATION.value)
    return np.int64(0)


@helper
def target_protocol_code(c):
    """1xx of commands about one order: a target must be named."""
    if c["order_id"] == 0 and c["target_client_order_id"] == 0 and not has_text(c):
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["kind"] == CommandKind.REPLACE:
        side, tif = np.int64(c["side"]), np.int64(c["tif"])
        if (side > 1 and side != UNSTATED) or (
            tif > TimeInForce.GOOD_FOR_AUCTION and tif != UNSTATED
        ):
            return np.int64(RejectCode.BAD_FIELD.value)
        if (
            c["px"] < 0
            or c["qty"] < 0
            or c["peak"] < 0
            or c["min_qty"] < 0
            or c["px2"] < 0
            or c["qty2"] < 0
            or c["amount"] < 0
            or c["expire_ts"] < 0
        ):
            return np.int64(RejectCode.OUT_OF_RANGE.value)
    return np.int64(0)


@helper
def quote_protocol_code(c):
    """1xx of QUOTE. Two orders cannot share one text id."""
    if c["symbol_id"] == 0 and c["symbol"] == 0:
        return np.int64(RejectCode.BAD_FIELD.value)
    lowest = min(np.int64(c["px"]), np.int64(c["qty"]), np.int64(c["px2"]), np.int64(c["qty2"]))
    unpriced = (c["qty"] != 0 and c["px"] == 0) or (c["qty2"] != 0 and c["px2"] == 0)
    if lowest < 0 or unpriced:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    return np.int64(RejectCode.BAD_CLIENT_ID.value if has_text(c) else 0)


@helper
def protocol_code(c):
    """1xx of any client command."""
    kind = np.int64(c["kind"])
    code = np.int64(0)
    if kind == CommandKind.NEW:
        code = new_protocol_code(c)
    elif (
        kind == CommandKind.CANCEL or kind == CommandKind.REPLACE or kind == CommandKind.QUERY_ORDER
    ):
        code = target_protocol_code(c)
    elif kind == CommandKind.MASS_CANCEL:
        if np.int64(c["flags"]) & CommandFlag.BY_SIDE.value and c["side"] > 1:
            code = np.int64(RejectCode.BAD_FIELD.value)
    elif kind == CommandKind.QUOTE:
        code = quote_protocol_code(c)
    elif kind == CommandKind.QUERY_OPEN_ORDERS:
        if c["qty"] < 0 or c["qty"] > PAGE_ROWS_MAX:
            code = np.int64(RejectCode.OUT_OF_RANGE.value)
    if code == 0 and (c["client_order_id"] < 0 or c["target_client_order_id"] < 0):
        code = np.int64(RejectCode.BAD_CLIENT_ID.value)
    return code


@helper
def owner_code(s, c):
    """201, 202: the command must come from the session's present owner, for its account."""
    session = np.int64(c["session"])
    if session < 1 or session > s[SESSIONS_USED]:
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    row = sessions(s)[session]
    if (
        row["logon"] == 0
        or row["logon"] != np.int64(c["logon"])
        or row["producer"] != np.int64(c["producer"])
    ):
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    if row["account"] != c["account"]:
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    return np.int64(0)


@helper
def client_id_code(s, c):
    """203, 204: use up the request's own id. RETRANSMISSION when it names a live order. Returns
    (code, text row). Whatever the answer, the session's owner has spoken.
    """
    session_heard(s, np.int64(c["session"]))
    row = sessions(s)[np.int64(c["session"])]
    client_id = np.int64(c["client_order_id"])
    text_row = np.int64(0)
    if client_id > 0:
        if client_id <= row["last_id"]:
            known = id_find(s, np.int64(c["session"]), client_id) >= 0
            return np.int64(RETRANSMISSION if known else RejectCode.DUPLICATE.value), text_row
        row["last_id"] = client_id
    if c["kind"] == CommandKind.NEW and has_text(c):
        text_row = text_find(s, np.int64(c["account"]), c["text"])
        if text_row > 0:
            live = texts(s)[text_row]["order"] >= 0
            return np.int64(RETRANSMISSION if live else RejectCode.DUPLICATE.value), text_row
        text_row = text_insert(s, np.int64(c["account"]), c["text"])
        if text_row == 0:
            return np.int64(RejectCode.ID_TABLE_FULL.value), text_row
    return np.int64(0), text_row


@helper
def name_find(s, name):
    """Index of the symbol called `name`, 0 when there is none."""
    for symbol in range(1, np.int64(s[SYMBOLS_USED]) + 1):
        if names(s)[symbol] == name:
            return np.int64(symbol)
    return np.int64(0)


@helper
def name_printable(name):
    """Whether eight packed bytes are 1 to 8 printable characters, zero padded."""
    ended = False
    good = name != np.uint64(0)
    for i in range(8):
        byte = np.int64((name >> np.uint64(8 * i)) & np.uint64(0xFF))
        if byte == 0:
            ended = True
        elif ended or byte < 33 or byte > 126:
            good = False
    return good


@helper
def terms_of(c):
    """What LIST_INSTRUMENT says of an instrument: a row of TERMS."""
    return (
        np.int64(c["amount"]),
        np.int64(c["expire_ts"]),
        np.int64(c["px2"]),
        np.int64(c["order_type"]),
        np.int64(c["stp"]),
        np.int64(c["peak"]),
        np.int64(c["qty2"]),
        np.int64(c["px"]),
    )


@helper
def terms_equal(s, symbol, terms):
    """Whether a listed instrument has these terms."""
    row = symbols(s)[symbol]
    tick, lot, px_max, rule_set, stp, parts, protection, reference = terms
    return (
        row["tick"] == tick
        and row["lot"] == lot
        and row["px_max"] == px_max
        and row["rules"] == rule_set
        and row["stp"] == stp
        and row["iceberg_parts"] == parts
        and row["protection"] == protection
        and rules(s)[symbol]["reference"] == reference
    )


@helper
def symbol_list(s, name, terms):
    """List an instrument; 0 when the name, the terms or the table forbid it."""
    tick, lot, px_max, rule_set, stp, parts, protection, reference = terms
    if (
        tick < 1
        or lot < 1
        or px_max < 1
        or rule_set > RuleSet.FULL
        or stp < SelfTrade.NONE
        or stp > SelfTrade.TRANSFER
        or parts < 1
        or protection < 0
        or reference < 0
    ):
        return np.int64(0)
    if s[SYMBOLS_USED] >= s[SYMBOLS_CAPACITY] or not name_printable(name):
        return np.int64(0)
    s[SYMBOLS_USED] += 1
    symbol = np.int64(s[SYMBOLS_USED])
    names(s)[symbol] = name
    row = symbols(s)[symbol]
    row["name"] = name
    row["tick"] = tick
    row["lot"] = lot
    row["px_max"] = px_max
    row["rules"] = rule_set
    row["stp"] = stp
    row["iceberg_parts"] = parts
    row["protection"] = protection
    rules_begin(s, symbol, stp, parts, protection)
    rules(s)[symbol]["reference"] = reference
    calls(s)[symbol]["static_ref"] = reference
    row["phase"] = Phase.CONTINUOUS
    row["symbol_id"] = symbol_id_of(s, symbol)
    symbol_touch(s, symbol)
    emit_listed(s, symbol)
    return symbol


@helper
def symbol_find(s, c):
    """Index of the instrument the record names by id or by name; 0 unknown."""
    symbol_id = np.int64(c["symbol_id"])
    if symbol_id == 0:
        return name_find(s, c["symbol"])
    symbol = symbol_id - symbol_id_of(s, np.int64(0))
    if symbol < 1 or symbol > s[SYMBOLS_USED]:
        return np.int64(0)
    return symbol


@helper
def unsupported(c):
    """304: what the plain rules do not have."""
    kind, tif = np.int64(c["order_type"]), np.int64(c["tif"])
    new = c["kind"] == CommandKind.NEW
    return (
        (new and kind != OrderType.LIMIT and kind != OrderType.MARKET)
        or (new and tif > TimeInForce.FOK)
        or (np.int64(c["flags"]) & OPTION_FLAGS) != 0
        or c["stp"] != 0
        or c["peak"] != 0
        or c["min_qty"] != 0
        or c["px2"] != 0
        or c["qty2"] != 0
        or c["amount"] != 0
        or c["expire_ts"] != 0
    )


@helper
def target_find(s, c):
    """Slot of the live order a command names, -1 when there is none it may touch."""
    slot = np.int64(-1)
    if c["order_id"] != 0:
        slot = np.int64(c["order_id"]) & SLOT_MASK
        if (
            c["order_id"] < 0
            or slot >= len(orders(s))
            or owner(s)[slot] == 0
            or orders(s)[slot]["order_id"] != c["order_id"]
        ):
            slot = np.int64(-1)
    elif c["target_client_order_id"] != 0:
        slot = id_find(s, np.int64(c["session"]), np.int64(c["target_client_order_id"]))
    else:
        row = text_find(s, np.int64(c["account"]), c["text"])
        if row > 0:
            slot = np.int64(texts(s)[row]["order"])
    if slot >= 0 and owner(s)[slot] != c["account"]:
        slot = np.int64(-1)
    return slot


@helper
def replace_immutable(s, c, slot):
    """313 of a plain order: what a replace may not state anew."""
    row = orders(s)[slot]
    symbol_id = symbol_id_of(s, np.int64(row["symbol"]))
    return (
        (c["side"] != UNSTATED and c["side"] != row["side"])
        or (c["tif"] != UNSTATED and c["tif"] != row["tif"])
        or (c["order_type"] != 0 and c["order_type"] != row["order_type"])
        or (c["symbol_id"] != 0 and np.int64(c["symbol_id"]) != symbol_id)
    )
