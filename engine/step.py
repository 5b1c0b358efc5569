"""One step of a shard: test a command in the documented order, then run it.

Hot. ``step_one`` is a deterministic function of (state, command record): no clock, no randomness,
no floats. First every test, then the first change; a refused command changes nothing but counters
and the consumed client id. Order of tests and codes: protocol 1xx, session 2xx, instrument 3xx,
book 5xx, system 9xx (RULES §1; docs/protocol.md lists them all).

Returns 0, or the number of the broken invariant (FATAL): the loop then halts the shard and keeps
its evidence.
"""

import numpy as np

from engine.admission import admission_code
from engine.book_rows import (
    ORDER_FULL,
    SESSION_FLAGS,
)
from engine.book_state import (
    ACTIVATIONS,
    CREATE_UNKNOWN,
    FATAL,
    FATAL_CROSSED,
    IN_SEQ,
    IN_TS,
    NEXT_DEADLINE,
    OUT_POSITION,
    RUN_OPEN,
    SETTLING,
    SLICE_START,
    TEMPLATE_LOT,
    TEMPLATE_PX_MAX,
    TEMPLATE_TICK,
    TOUCHED,
    WORK_KIND,
    levels,
    orders,
    producer_seq,
    rules,
    sessions,
    sides,
    symbols,
    texts,
)
from engine.bulk import (
    cancels_run,
    emit_status,
    mass_cancel_run,
    order_withdraw,
    page_run,
    rows_run,
)
from engine.deadline import deadline_find
from engine.desk import step_administrative, step_session, time_run
from engine.emit import (
    close_command,
    emit_rejected,
    symbol_id_of,
)  # fmt: skip
from engine.full_entry import full_command, full_go
from engine.full_numbers import (
    FULL_ACTIVATE,
    FULL_NEW,
    FULL_QUOTE,
    FULL_REPLACE,
    FULL_SETTLE,
    FULL_WORK,
)
from engine.id_table import id_find, ids_settle
from engine.image import image_run
from engine.jit import helper, kernel, subroutine
from engine.list_entry import leg_take
from engine.lookahead import (
    LOOK_FAR,
    LOOK_MIDDLE,
    LOOK_NEAR,
    LOOK_RECORDS,
    look_far,
    look_middle,
    look_near,
    look_records,
)
from engine.matching import (
    WORK_CALL,
    WORK_CANCELS,
    WORK_IMAGE,
    WORK_LIST,
    WORK_NONE,
    WORK_QUOTE,
    WORK_ROWS,
    WORK_SETTLE,
    WORK_SWEEP,
    new_code,
    new_run,
    replace_run,
    sweep_run,
)  # fmt: skip
from engine.records import (
    Algorithm,
    CommandFlag,
    CommandKind,
    InstrumentRule,
    Phase,
    Reason,
    RejectCode,
    RuleSet,
    SelfTrade,
)  # fmt: skip
from engine.validate import (
    ICEBERG_PARTS,
    RETRANSMISSION,
    client_id_code,
    owner_code,
    protocol_code,
    replace_immutable,
    symbol_find,
    symbol_list,
    target_find,
    unsupported,
)

ADMINISTRATIVE_FROM = 16  # kinds from here on come from the supervisor or the loop only


@helper
def template_terms(s):
    """Terms of an instrument created on first use: always the plain rules."""
    plain, none = np.int64(RuleSet.PLAIN.value), np.int64(SelfTrade.NONE.value)
    parts, protection = np.int64(ICEBERG_PARTS), np.int64(0)
    tick, lot, px_max = s[TEMPLATE_TICK], s[TEMPLATE_LOT], s[TEMPLATE_PX_MAX]
    reference = np.int64(0)
    return (
        np.int64(tick),
        np.int64(lot),
        np.int64(px_max),
        plain,
        none,
        parts,
        protection,
        reference,
    )


@helper
def step_new(s, c, text_row):
    """NEW after 2xx. Returns (reject code, symbol index)."""
    symbol = symbol_find(s, c)
    if symbol == 0:
        if c["symbol_id"] != 0 or s[CREATE_UNKNOWN] == 0:
            return np.int64(RejectCode.UNKNOWN_SYMBOL.value), symbol
        symbol = symbol_list(s, c["symbol"], template_terms(s))
        if symbol == 0:
            return np.int64(RejectCode.LISTING_REFUSED.value), symbol
    if symbols(s)[symbol]["rules"] != RuleSet.PLAIN or c["decision_code"] != 0:
        return full_command(s, c, FULL_NEW, symbol, text_row), symbol
    if np.int64(c["px"]) > symbols(s)[symbol]["px_max"]:
        return np.int64(RejectCode.OUT_OF_RANGE.value), symbol
    if unsupported(c):
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value), symbol
    code = new_code(s, c, symbol)
    if code == 0:
        new_run(s, c, symbol, text_row)
    return code, symbol


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
    if replace_immutable(s, c, slot):
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
        if orders(s)[slot]["flags"] & ORDER_FULL:
            code = full_command(s, c, FULL_REPLACE, slot, np.int64(0))
        else:
            code = step_replace(s, c, slot)
    elif c["symbol_id"] != 0 and np.int64(c["symbol_id"]) != symbol_id_of(s, symbol):
        code = np.int64(RejectCode.UNKNOWN_ORDER.value)
    elif c["kind"] == CommandKind.CANCEL:
        order_withdraw(s, slot, np.int64(Reason.CLIENT.value))
    else:
        emit_status(s, slot)
    return code, symbol


@subroutine
def step_bulk(s, c):
    """MASS_CANCEL, QUERY_OPEN_ORDERS. Returns (reject code, symbol index)."""
    symbol = np.int64(0)
    if np.int64(c["flags"]) & CommandFlag.BY_SYMBOL.value:
        symbol = symbol_find(s, c)
        if symbol == 0:
            return np.int64(RejectCode.UNKNOWN_SYMBOL.value), symbol
    if c["kind"] == CommandKind.MASS_CANCEL:
        mass_cancel_run(s, c, symbol)
    else:
        page_run(s, c, symbol)
    return np.int64(0), symbol


@helper
def step_quote(s, c):
    """QUOTE. Returns (reject code, symbol index)."""
    symbol = symbol_find(s, c)
    if symbol == 0:  # what a template gives has the plain rules
        return np.int64(RejectCode.UNKNOWN_SYMBOL.value), symbol
    if symbols(s)[symbol]["rules"] == RuleSet.PLAIN:
        return np.int64(RejectCode.NOT_SUPPORTED_HERE.value), np.int64(0)
    return full_command(s, c, FULL_QUOTE, symbol, np.int64(0)), symbol


@subroutine
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
    if code == 0 and sessions(s)[np.int64(c["session"])]["flags"] > SESSION_FLAGS:
        code, symbol = admission_code(s, c)
    if c["decision_code"] != 0 and c["kind"] == CommandKind.NEW:
        code = leg_take(s, c, code, text_row)
    if code == 0:
        kind = np.int64(c["kind"])
        if kind == CommandKind.NEW:
            code, symbol = step_new(s, c, text_row)
        elif (
            kind == CommandKind.CANCEL
            or kind == CommandKind.REPLACE
            or kind == CommandKind.QUERY_ORDER
        ):
            code, symbol = step_target(s, c)
        elif kind == CommandKind.MASS_CANCEL or kind == CommandKind.QUERY_OPEN_ORDERS:
            code, symbol = step_bulk(s, c)
        elif kind == CommandKind.QUOTE:
            code, symbol = step_quote(s, c)
        else:
            code = np.int64(RejectCode.NOT_SUPPORTED_HERE.value)
    if code == RETRANSMISSION:
        emit_retransmission(s, c, text_row)
    elif code > 0:
        emit_rejected(s, c, code, symbol)


@subroutine
def work_run(s):
    """Go on with the open work, if there is one."""
    kind = s[WORK_KIND]
    if kind == WORK_SWEEP:
        if s[RUN_OPEN] != 0:  # the order itself may be over, and its slot another's
            full_go(s, FULL_WORK, np.int64(0), np.int64(0))
        else:
            sweep_run(s)
    elif kind == WORK_CANCELS:
        cancels_run(s)
    elif kind == WORK_ROWS:
        rows_run(s)
    elif kind == WORK_IMAGE:
        image_run(s)
    elif kind == WORK_SETTLE or kind == WORK_CALL or kind == WORK_LIST or kind == WORK_QUOTE:
        full_go(s, FULL_WORK, np.int64(0), np.int64(0))


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
    """Let settle what was touched, flag the last event, test what must hold; returns the broken
    invariant.
    """
    if s[SETTLING] != 0 and s[WORK_KIND] == WORK_NONE:
        full_go(s, FULL_SETTLE, np.int64(0), np.int64(0))
    if s[OUT_POSITION] > s[SLICE_START]:
        close_command(s)
    symbol = np.int64(s[TOUCHED])
    bid, ask = np.int64(sides(s)[symbol * 2]["best"]), np.int64(sides(s)[symbol * 2 + 1]["best"])
    if bid >= 0 and ask >= 0 and levels(s)[bid]["px"] >= levels(s)[ask]["px"]:
        algorithm = rules(s)[symbol]["rule"][InstrumentRule.ALGORITHM.value]
        batch = algorithm >= Algorithm.BATCH_AUCTION  # there it is normal
        if symbols(s)[symbol]["phase"] == Phase.CONTINUOUS and not batch:
            s[FATAL] = FATAL_CROSSED
    return np.int64(s[FATAL])


@helper
def step_continue(s):
    """CONTINUE: the next slice of the open work, a command of its own."""
    command_open(s, np.int64(s[IN_TS]))
    work_run(s)
    return command_close(s)


@helper
def step_activate(s):
    """ACTIVATE: the leg that is next goes live, a command of its own, at the time of its cause."""
    command_open(s, np.int64(s[IN_TS]))
    full_go(s, FULL_ACTIVATE, np.int64(0), np.int64(0))
    return command_close(s)


@helper
def step_one(s, c, in_ts):
    """Apply one command; returns 0 or the broken invariant.

    The loop's own CONTINUE comes here as a record when a journal is replayed.
    """
    if c["producer"] != 0:
        producer_seq(s)[c["producer"]] = c["producer_seq"]
    elif c["kind"] == CommandKind.CONTINUE:
        return step_continue(s)
    command_open(s, in_ts)
    kind = np.int64(c["kind"])
    if kind >= CommandKind.NEW and kind <= CommandKind.QUERY_OPEN_ORDERS:
        step_client(s, c)
    elif kind >= CommandKind.SESSION_OPEN and kind <= CommandKind.SESSION_KEEP:
        step_session(s, c)
    elif kind >= ADMINISTRATIVE_FROM:
        step_administrative(s, c)
    else:
        emit_rejected(s, c, np.int64(RejectCode.BAD_FIELD.value), np.int64(0))
    return command_close(s)


@subroutine
def step_before(s, kind, in_ts):
    """What has to run before a command of `kind` and time: a slice of the open work, ACTIVATE of a
    leg that is called, or TIME(in_ts) for one deadline that is due then. Returns whether there was
    something. A TIME that was given is not preceded by another.
    """
    if s[WORK_KIND] != WORK_NONE:
        step_continue(s)
        return True
    if s[ACTIVATIONS] != 0:
        step_activate(s)
        return True
    now = max(in_ts, np.int64(s[IN_TS]))
    if kind == CommandKind.TIME or now < s[NEXT_DEADLINE]:
        return False
    session, order_id, symbol = deadline_find(s, now)
    if session == 0 and order_id == 0 and symbol == 0:
        return False
    command_open(s, now)
    time_run(s, session, order_id, np.int64(0))
    command_close(s)
    return True


@kernel
def step_batch(s, commands, start, events_max):
    """Apply commands[start:] while at most `events_max` events came; long works run slice by slice
    at once, TIME before the first command whose time a deadline does not outlive.

    Returns the index of the next command. A broken invariant stops it: hdr[FATAL].
    """
    first = s[OUT_POSITION]
    index = start
    while index < commands.shape[0] and s[OUT_POSITION] - first <= events_max and s[FATAL] == 0:
        c = commands[index]
        if s[WORK_KIND] | s[ACTIVATIONS] | s[NEXT_DEADLINE] != 0:
            if step_before(s, np.int64(c["kind"]), np.int64(c["in_ts"])):
                continue
        if index + LOOK_FAR < len(commands):
            look_records(commands, index + LOOK_RECORDS)
            look_far(s, commands[index + LOOK_FAR], index + LOOK_FAR)
            look_middle(s, commands[index + LOOK_MIDDLE], index + LOOK_MIDDLE)
            look_near(s, index + LOOK_NEAR)
        step_one(s, c, np.int64(c["in_ts"]))
        index += 1
    ids_settle(s)
    return index


@kernel
def work_batch(s, events_max):
    """Run the open work on, and let legs go live; returns whether anything is left."""
    first = s[OUT_POSITION]
    while s[WORK_KIND] | s[ACTIVATIONS] != 0:
        if s[OUT_POSITION] - first > events_max or s[FATAL] != 0:
            break
        if s[WORK_KIND] != WORK_NONE:
            step_continue(s)
        else:
            step_activate(s)
    ids_settle(s)
    return s[WORK_KIND] | s[ACTIVATIONS] != 0
