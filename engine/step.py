"""One step of a shard: test a command in the documented order, then run it.

Hot. ``step_one`` is a deterministic function of (state, command record): no clock, no randomness, no floats. First every test,
then the first change; a refused command changes nothing but counters and the consumed client id. Order of tests and codes:
protocol 1xx, session 2xx, instrument 3xx, book 5xx, system 9xx (RULES §1; docs/protocol.md lists them all).

Returns 0, or the number of the broken invariant (FATAL): the loop then halts the shard and keeps its evidence.
"""

import numpy as np

from engine.book_numba import (
    ACCOUNTS_CAPACITY, CREATE_UNKNOWN, FATAL, IN_SEQ, IN_TS, OUT_POSITION, SESSIONS_CAPACITY, SESSIONS_USED, SLICE_START, SYMBOLS_CAPACITY, SYMBOLS_USED, TEMPLATE_LOT, TEMPLATE_PX_MAX, TEMPLATE_TICK, TOUCHED, WORK_KIND, accounts, events, levels, names, orders, owner, sessions, sides, symbol_touch, symbols, texts,
)  # fmt: skip
from engine.bulk import PAGE_ROWS_MAX, cancels_run, emit_status, mass_cancel_run, page_run, rows_run
from engine.emit import (
    close_command, emit_account_opened, emit_listed, emit_rejected, emit_session, event_new, event_public, symbol_id_of,
)  # fmt: skip
from engine.id_table import id_find, text_find, text_insert
from engine.jit import helper, kernel, subroutine
from engine.matching import (
    WORK_CANCELS, WORK_NONE, WORK_ROWS, WORK_SWEEP, new_code, new_run, order_cancel, replace_run, sweep_run,
)  # fmt: skip
from engine.records import (
    SLOT_BITS, SYMBOL_INDEX_BITS, UNSTATED, CommandFlag, CommandKind, EventKind, OrderType, Phase, Reason, RejectCode,
    SelfTrade, TimeInForce,
)  # fmt: skip

ADMINISTRATIVE_FROM = 16  # kinds from here on come from the supervisor or the loop only
PRODUCER_SUPERVISOR = 1
RETRANSMISSION = -1  # answer of session_code: the id names a live order, say where it stands
UNSUPPORTED_FLAGS = int(CommandFlag.SLIDE | CommandFlag.HIDDEN | CommandFlag.REDUCE_ONLY)
FATAL_CROSSED = 1
SLOT_MASK = (1 << SLOT_BITS) - 1


@helper
def has_text(c):
    """Whether the record carries a text client id."""
    return (np.int64(c["flags"]) & CommandFlag.TEXT_ID.value) != 0 and c["text"][0] != 0


@helper
def new_protocol_code(c):
    """1xx of NEW but the client id."""
    side, kind, tif = np.int64(c["side"]), np.int64(c["order_type"]), np.int64(c["tif"])
    if side > 1 or kind < 1 or kind > OrderType.PEG_MID or tif > TimeInForce.GOOD_FOR_AUCTION or c["stp"] > SelfTrade.TRANSFER:
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["symbol_id"] == 0 and c["symbol"] == 0:
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["qty"] < 1 or c["px"] < 0 or (kind == OrderType.LIMIT and c["px"] < 1):
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    flags = np.int64(c["flags"])
    post_only = flags & CommandFlag.POST_ONLY.value
    immediate = tif == TimeInForce.IOC or tif == TimeInForce.FOK
    if kind == OrderType.MARKET and (c["px"] != 0 or post_only or not (immediate or tif == TimeInForce.GTC)):
        return np.int64(RejectCode.BAD_COMBINATION.value)
    if kind == OrderType.LIMIT and post_only and immediate:
        return np.int64(RejectCode.BAD_COMBINATION.value)
    if flags & CommandFlag.SLIDE.value and not post_only:
        return np.int64(RejectCode.BAD_COMBINATION.value)
    return np.int64(0)


@helper
def target_protocol_code(c):
    """1xx of commands about one order: a target must be named."""
    if c["order_id"] == 0 and c["target_client_order_id"] == 0 and not has_text(c):
        return np.int64(RejectCode.BAD_FIELD.value)
    if c["kind"] == CommandKind.REPLACE:
        side, tif = np.int64(c["side"]), np.int64(c["tif"])
        if (side > 1 and side != UNSTATED) or (tif > TimeInForce.GOOD_FOR_AUCTION and tif != UNSTATED):
            return np.int64(RejectCode.BAD_FIELD.value)
        if c["px"] < 0 or c["qty"] < 0:
            return np.int64(RejectCode.OUT_OF_RANGE.value)
    return np.int64(0)


@subroutine
def protocol_code(c):
    """1xx of any client command."""
    kind = np.int64(c["kind"])
    code = np.int64(0)
    if kind == CommandKind.NEW:
        code = new_protocol_code(c)
    elif kind == CommandKind.CANCEL or kind == CommandKind.REPLACE or kind == CommandKind.QUERY_ORDER:
        code = target_protocol_code(c)
    elif kind == CommandKind.MASS_CANCEL:
        if np.int64(c["flags"]) & CommandFlag.BY_SIDE.value and c["side"] > 1:
            code = np.int64(RejectCode.BAD_FIELD.value)
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
    if row["logon"] == 0 or row["logon"] != np.int64(c["logon"]) or row["producer"] != np.int64(c["producer"]):
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    if row["account"] != c["account"]:
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    return np.int64(0)


@helper
def client_id_code(s, c):
    """203, 204: use up the request's own id. RETRANSMISSION when it names a live order. Returns (code, text row)."""
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
def symbol_list(s, name, tick, lot, px_max):
    """List an instrument; 0 when the name or the table forbids it."""
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
    """304: what this version of the rules does not have yet."""
    kind, tif = np.int64(c["order_type"]), np.int64(c["tif"])
    new = c["kind"] == CommandKind.NEW
    return (
        (new and kind != OrderType.LIMIT and kind != OrderType.MARKET)
        or (new and tif > TimeInForce.FOK)
        or (np.int64(c["flags"]) & UNSUPPORTED_FLAGS) != 0
        or c["stp"] != 0
        or c["peak"] != 0
        or c["min_qty"] != 0
        or c["px2"] != 0
        or c["qty2"] != 0
        or c["amount"] != 0
        or c["expire_ts"] != 0
    )


@helper
def step_new(s, c, text_row):
    """NEW after 2xx. Returns (reject code, symbol index)."""
    symbol = symbol_find(s, c)
    if symbol == 0:
        if c["symbol_id"] != 0 or s[CREATE_UNKNOWN] == 0:
            return np.int64(RejectCode.UNKNOWN_SYMBOL.value), symbol
        symbol = symbol_list(s, c["symbol"], s[TEMPLATE_TICK], s[TEMPLATE_LOT], s[TEMPLATE_PX_MAX])
        if symbol == 0:
            return np.int64(RejectCode.LISTING_REFUSED.value), symbol
    if np.int64(c["px"]) > symbols(s)[symbol]["px_max"]:
        return np.int64(RejectCode.OUT_OF_RANGE.value), symbol
    if unsupported(c):
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value), symbol
    code = new_code(s, c, symbol)
    if code == 0:
        new_run(s, c, symbol, text_row)
    return code, symbol


@helper
def target_find(s, c):
    """Slot of the live order a command names, -1 when there is none it may touch."""
    slot = np.int64(-1)
    if c["order_id"] != 0:
        slot = np.int64(c["order_id"]) & SLOT_MASK
        if c["order_id"] < 0 or slot >= orders(s).shape[0] or owner(s)[slot] == 0 or orders(s)[slot]["order_id"] != c["order_id"]:
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
def step_replace(s, c, slot):
    """REPLACE of a live order. Returns the reject code."""
    row = orders(s)[slot]
    symbol = np.int64(row["symbol"])
    px = np.int64(c["px"]) if c["px"] != 0 else np.int64(row["px"])
    total = np.int64(c["qty"]) if c["qty"] != 0 else np.int64(row["leaves"]) + np.int64(row["cum"])
    if px > symbols(s)[symbol]["px_max"]:
        return np.int64(RejectCode.OUT_OF_RANGE.value)
    if unsupported(c):
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    same = (
        (c["side"] == UNSTATED or c["side"] == row["side"])
        and (c["tif"] == UNSTATED or c["tif"] == row["tif"])
        and (c["order_type"] == 0 or c["order_type"] == row["order_type"])
        and (c["symbol_id"] == 0 or np.int64(c["symbol_id"]) == symbol_id_of(s, symbol))
    )
    if not same:
        return np.int64(RejectCode.IMMUTABLE.value)
    return replace_run(s, slot, px, total)


@helper
def step_target(s, c):
    """CANCEL, REPLACE, QUERY_ORDER. Returns (reject code, symbol index)."""
    slot = target_find(s, c)
    if slot < 0:
        return np.int64(RejectCode.UNKNOWN_ORDER.value), np.int64(0)
    symbol = np.int64(orders(s)[slot]["symbol"])
    code = np.int64(0)
    if c["kind"] == CommandKind.REPLACE:
        code = step_replace(s, c, slot)
    elif c["symbol_id"] != 0 and np.int64(c["symbol_id"]) != symbol_id_of(s, symbol):
        code = np.int64(RejectCode.UNKNOWN_ORDER.value)
    elif c["kind"] == CommandKind.CANCEL:
        order_cancel(s, slot, Reason.CLIENT)
    else:
        emit_status(s, slot)
    return code, symbol


@helper
def step_bulk(s, c):
    """MASS_CANCEL, QUERY_OPEN_ORDERS. Returns (reject code, symbol index)."""
    symbol = np.int64(0)
    if np.int64(c["flags"]) & CommandFlag.BY_SYMBOL.value:
        symbol = symbol_find(s, c)
        if symbol == 0:
            return np.int64(RejectCode.UNKNOWN_SYMBOL.value), symbol
    if c["kind"] == CommandKind.MASS_CANCEL:
        mass_cancel_run(s, c, np.int64(c["flags"]), symbol, np.int64(Reason.MASS.value))
    else:
        page_run(s, c, symbol)
    return np.int64(0), symbol


@helper
def emit_retransmission(s, c, text_row):
    """Answer a client id seen before with the state of its live order."""
    if text_row > 0:
        emit_status(s, np.int64(texts(s)[text_row]["order"]))
    else:
        emit_status(s, id_find(s, np.int64(c["session"]), np.int64(c["client_order_id"])))


@helper
def step_client(s, c):
    """Commands 1 to 7: tests 1xx and 2xx, then by kind."""
    symbol = np.int64(0)
    text_row = np.int64(0)
    code = protocol_code(c)
    if code == 0:
        code = owner_code(s, c)
    if code == 0:
        code, text_row = client_id_code(s, c)
    if code == 0:
        kind = np.int64(c["kind"])
        if kind == CommandKind.NEW:
            code, symbol = step_new(s, c, text_row)
        elif kind == CommandKind.CANCEL or kind == CommandKind.REPLACE or kind == CommandKind.QUERY_ORDER:
            code, symbol = step_target(s, c)
        elif kind == CommandKind.MASS_CANCEL or kind == CommandKind.QUERY_OPEN_ORDERS:
            code, symbol = step_bulk(s, c)
        else:
            code = np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if code == RETRANSMISSION:
        emit_retransmission(s, c, text_row)
    elif code != 0:
        emit_rejected(s, c, code, symbol)


# -------------------------------------------------------------------------------- sessions and administration


@helper
def packed_text(c):
    """First eight bytes of the record's text as a packed name."""
    name = np.uint64(0)
    for i in range(8):
        name |= np.uint64(c["text"][i]) << np.uint64(8 * i)
    return name


@helper
def session_find(s, account, name):
    """Slot of (account, name); the next free one when it is new, 0 when the table is full."""
    used = np.int64(s[SESSIONS_USED])
    for slot in range(1, used + 1):
        if sessions(s)[slot]["account"] == account and sessions(s)[slot]["name"] == name:
            return np.int64(slot)
    return used + 1 if used < s[SESSIONS_CAPACITY] else np.int64(0)


@helper
def step_session_open(s, c):
    """A logon takes the session over from any older one. Returns the reject code."""
    account = np.int64(c["account"])
    name = packed_text(c)
    if not name_printable(name) or c["text"][8] != 0:
        return np.int64(RejectCode.BAD_FIELD.value)
    known = account > 0 and account < s[ACCOUNTS_CAPACITY] and accounts(s)[account]["open"] != 0
    if not known or c["producer"] < PRODUCER_SUPERVISOR:
        return np.int64(RejectCode.NOT_AUTHORISED.value)
    logon = np.int64(c["logon"])
    if logon == 0:  # the number of nobody: a session opened with it would have no owner
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    slot = session_find(s, account, name)
    if slot == 0:
        return np.int64(RejectCode.ID_TABLE_FULL.value)
    row = sessions(s)[slot]
    if slot <= s[SESSIONS_USED] and logon <= row["logon"]:
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    if slot > s[SESSIONS_USED]:
        s[SESSIONS_USED] = slot
        row["name"] = name
        row["account"] = account
    row["logon"] = logon
    row["producer"] = c["producer"]
    row["flags"] = c["flags"]
    emit_session(s, slot, Reason.SESSION_OPENED)
    return np.int64(0)


@helper
def step_session_close(s, c):
    """The owner leaves; with CANCEL_ALL_ON_CLOSE its orders leave with it. Returns the reject code."""
    code = owner_code(s, c)
    if code != 0:
        return np.int64(RejectCode.NOT_LOGGED_ON.value)
    row = sessions(s)[np.int64(c["session"])]
    emit_session(s, np.int64(c["session"]), Reason.SESSION_CLOSED)
    row["logon"] = 0
    if row["flags"] & CommandFlag.CANCEL_ALL_ON_CLOSE.value:
        mass_cancel_run(s, c, np.int64(CommandFlag.BY_SESSION.value), np.int64(0), np.int64(Reason.DISCONNECT.value))
    return np.int64(0)


@helper
def step_listing(s, c):
    """LIST_INSTRUMENT. Returns the reject code."""
    code = np.int64(RejectCode.LISTING_REFUSED.value)
    sound = c["amount"] > 0 and c["expire_ts"] > 0 and c["px2"] > 0
    if sound and name_find(s, c["symbol"]) == 0:
        if symbol_list(s, c["symbol"], np.int64(c["amount"]), np.int64(c["expire_ts"]), np.int64(c["px2"])) > 0:
            code = np.int64(0)
    return code


@helper
def step_feed_state(s, c):
    """FEED_STATE: one ITCH system event."""
    index = event_new(s, EventKind.SESSION)
    event = events(s)[index]
    event["code"] = c["order_type"]
    event["amount"] = c["amount"]
    event["amount2"] = c["expire_ts"]
    event_public(s, index)


@helper
def step_administrative(s, c):
    """Commands of the supervisor and the loop; refused from anybody else."""
    kind = np.int64(c["kind"])
    code = np.int64(0)
    if kind > CommandKind.BUST or (kind > CommandKind.FEED_STATE and kind < CommandKind.OPEN_ACCOUNT):
        code = np.int64(RejectCode.BAD_FIELD.value)
    elif c["producer"] > PRODUCER_SUPERVISOR:
        code = np.int64(RejectCode.NOT_AUTHORISED.value)
    elif kind == CommandKind.OPEN_ACCOUNT:
        account = np.int64(c["account"])
        if account < 1 or account >= s[ACCOUNTS_CAPACITY]:
            code = np.int64(RejectCode.OUT_OF_RANGE.value)
        else:
            accounts(s)[account]["open"] = 1
            emit_account_opened(s, account)
    elif kind == CommandKind.LIST_INSTRUMENT:
        code = step_listing(s, c)
    elif kind == CommandKind.FEED_STATE:
        step_feed_state(s, c)
    elif kind != CommandKind.TIME:
        code = np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if code != 0:
        emit_rejected(s, c, code, np.int64(0))


@helper
def work_run(s):
    """Go on with the open work."""
    kind = s[WORK_KIND]
    if kind == WORK_SWEEP:
        sweep_run(s)
    elif kind == WORK_CANCELS:
        cancels_run(s)
    elif kind == WORK_ROWS:
        rows_run(s)


@helper
def command_open(s, in_ts):
    """Number and stamp the next command. Time never runs back."""
    s[IN_SEQ] += 1
    if in_ts > s[IN_TS]:
        s[IN_TS] = in_ts
    s[SLICE_START] = s[OUT_POSITION]
    s[TOUCHED] = 0


@helper
def command_close(s):
    """Flag the last event, test what must hold; returns the broken invariant."""
    if s[OUT_POSITION] > s[SLICE_START]:
        close_command(s)
    symbol = np.int64(s[TOUCHED])
    bid, ask = np.int64(sides(s)[symbol * 2]["best"]), np.int64(sides(s)[symbol * 2 + 1]["best"])
    if bid >= 0 and ask >= 0 and levels(s)[bid]["px"] >= levels(s)[ask]["px"]:
        s[FATAL] = FATAL_CROSSED
    return np.int64(s[FATAL])


@helper
def step_one(s, c, in_ts):
    """Apply one command; returns 0 or the broken invariant."""
    command_open(s, in_ts)
    kind = np.int64(c["kind"])
    if kind >= CommandKind.NEW and kind <= CommandKind.QUERY_OPEN_ORDERS:
        step_client(s, c)
    elif kind == CommandKind.SESSION_OPEN or kind == CommandKind.SESSION_CLOSE:
        code = step_session_open(s, c) if kind == CommandKind.SESSION_OPEN else step_session_close(s, c)
        if code != 0:
            emit_rejected(s, c, code, np.int64(0))
    elif kind >= ADMINISTRATIVE_FROM:
        step_administrative(s, c)
    else:
        emit_rejected(s, c, np.int64(RejectCode.BAD_FIELD.value), np.int64(0))
    return command_close(s)


@helper
def step_continue(s):
    """CONTINUE: the next slice of the open work, a command of its own."""
    command_open(s, np.int64(s[IN_TS]))
    work_run(s)
    return command_close(s)


@kernel
def step_batch(s, commands, start, events_max):
    """Apply commands[start:] while at most `events_max` events came; long works run slice by slice at once.

    Returns the index of the next command. A broken invariant stops it: hdr[FATAL].
    """
    first = s[OUT_POSITION]
    index = start
    while index < commands.shape[0] and s[OUT_POSITION] - first <= events_max and s[FATAL] == 0:
        if s[WORK_KIND] != WORK_NONE:
            step_continue(s)
        else:
            c = commands[index]
            step_one(s, c, np.int64(c["in_ts"]))
            index += 1
    return index


@kernel
def work_batch(s, events_max):
    """Run the open work on; returns whether any is left."""
    first = s[OUT_POSITION]
    while s[WORK_KIND] != WORK_NONE and s[OUT_POSITION] - first <= events_max and s[FATAL] == 0:
        step_continue(s)
    return s[WORK_KIND] != WORK_NONE
