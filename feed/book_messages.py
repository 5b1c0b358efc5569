"""ITCH messages applied to order books: what an outside client would write against our channel.

Hot, compiled. `book_apply` takes a table of messages (sequence, offset, length; feed/moldudp64.py)
and applies them in order to the books of feed/book_store.py, one for each symbol of a channel. It
uses public messages only: nothing here is told what the engine did.

Strict: E must meet the first order of the best level (C need not), references must be known,
nothing may be overfilled, and in continuous trading no new order may stand at or beyond the other
side. What departs from that is counted by name. A message of a wrong length or of no ITCH type is
skipped and counted.
"""

import numpy as np

from engine.jit import (
    helper,
    kernel,
    register_warmup,
    subroutine,
)
from feed.book_store import (
    STATE_TRADING,
    V_BAD_FIELD,
    V_BAD_MESSAGE,
    V_CROSSED,
    V_NOT_HEAD,
    V_UNKNOWN_REF,
    V_WRONG_LOCATE,
    W_CODE,
    W_CROSSING,
    W_MESSAGES,
    W_NEXT,
    W_PARTIAL,
    W_TAPE,
    W_TRADES,
    make_state,
    map_find,
    order_add,
    order_reduce,
    order_remove,
    violation,
)
from feed.itch import (
    ADD_PRICE_AT,
    ADD_SHARES_AT,
    ADD_SIDE_AT,
    ADD_STOCK_AT,
    BUY_LETTER,
    CODE_AT,
    CROSS_MATCH_AT,
    CROSS_PRICE_AT,
    CROSS_SHARES_AT,
    EXEC_MATCH_AT,
    EXEC_PRICE_AT,
    EXEC_PRINTABLE_AT,
    EXEC_SHARES_AT,
    LENGTH_BY_TYPE,
    LOCATE_AT,
    REF_AT,
    REPLACE_PRICE_AT,
    REPLACE_REF_AT,
    REPLACE_SHARES_AT,
    SELL_LETTER,
    STATE_AT,
    STOCK_AT,
    TRADE_MATCH_AT,
    TYPE_A,
    TYPE_C,
    TYPE_D,
    TYPE_E,
    TYPE_F,
    TYPE_H,
    TYPE_P,
    TYPE_Q,
    TYPE_R,
    TYPE_S,
    TYPE_U,
    TYPE_X,
    read_stock,
    read_time,
    read_u16,
    read_u32,
    read_u64,
)
from feed.moldudp64 import (
    BLOCK_COLUMNS,
    BLOCK_LENGTH,
    BLOCK_OFFSET,
    BLOCK_SEQ,
)

CROSS_SHARES_MAX = 2**40 - 1  # what a cross may print; the field itself has 64 bits
UNKNOWN_SIDE, CROSS_SIDE = ord("?"), ord("X")


# ----------------------------------------------------------------------------------------- messages
@helper
def _order_of(s, packets, at):
    # Slot of the order a message speaks of, 0 when there is none.
    slot = map_find(s.order_map, s.order_refs, read_u64(packets, at + REF_AT))
    if slot == 0:
        violation(s, V_UNKNOWN_REF)
    elif s.levels[s.orders[slot]["level"]]["book"] >> 1 != read_u16(packets, at + LOCATE_AT):
        violation(s, V_WRONG_LOCATE)
    return slot


@helper
def _tape_open(s, packets, at, sequence):
    # Begin a row of the tape with what the header says.
    index = s.words[W_TAPE]
    s.words[W_TAPE] = index + 1
    s.tape[index]["sequence"] = sequence
    s.tape[index]["time"] = read_time(packets, at)
    s.tape[index]["locate"] = read_u16(packets, at + LOCATE_AT)
    s.tape[index]["kind"] = packets[at]
    s.tape[index]["printable"] = 1
    s.tape[index]["ref"] = 0
    return index


@helper
def _tape_close(s, index):
    # The trade counts in the symbol's figures, unless it is not printable.
    s.words[W_TRADES] += 1
    trade = s.tape[index]
    if trade["printable"] == 0:
        return
    symbol = s.symbols[np.int64(trade["locate"])]
    symbol["last_px"] = trade["px"]
    symbol["last_qty"] = trade["qty"]
    symbol["last_match"] = trade["match"]
    symbol["last_time"] = trade["time"]
    symbol["volume"] += trade["qty"]
    symbol["trades"] += 1


@subroutine
def message_execute(s, packets, at, sequence):
    """E and C: shares of an order trade."""
    slot = _order_of(s, packets, at)
    if slot == 0:
        return
    priced = packets[at] == TYPE_C
    level = s.levels[s.orders[slot]["level"]]
    book, px = level["book"], level["px"]
    if not priced and (level["oldest"] != slot or level["better"] != 0):
        violation(s, V_NOT_HEAD)
    qty = read_u32(packets, at + EXEC_SHARES_AT)
    index = _tape_open(s, packets, at, sequence)
    s.tape[index]["ref"] = s.order_refs[slot]
    s.tape[index]["match"] = read_u64(packets, at + EXEC_MATCH_AT)
    s.tape[index]["px"] = read_u32(packets, at + EXEC_PRICE_AT) if priced else px
    s.tape[index]["qty"] = qty
    s.tape[index]["side"] = BUY_LETTER if book & 1 else SELL_LETTER
    if priced and packets[at + EXEC_PRINTABLE_AT] != ord("Y"):
        s.tape[index]["printable"] = 0
    _tape_close(s, index)
    order_reduce(s, slot, qty)


@subroutine
def message_trade(s, packets, at, sequence):
    """P and Q: trades of nothing that is displayed."""
    cross = packets[at] == TYPE_Q
    index = _tape_open(s, packets, at, sequence)
    if cross:
        s.tape[index]["qty"] = read_u64(packets, at + CROSS_SHARES_AT) & CROSS_SHARES_MAX
        s.tape[index]["px"] = read_u32(packets, at + CROSS_PRICE_AT)
        s.tape[index]["match"] = read_u64(packets, at + CROSS_MATCH_AT)
        s.tape[index]["side"] = CROSS_SIDE
    else:
        s.tape[index]["qty"] = read_u32(packets, at + ADD_SHARES_AT)
        s.tape[index]["px"] = read_u32(packets, at + ADD_PRICE_AT)
        s.tape[index]["match"] = read_u64(packets, at + TRADE_MATCH_AT)
        s.tape[index]["side"] = UNKNOWN_SIDE
    _tape_close(s, index)


@subroutine
def message_add(s, packets, at):
    """A and F: a new order."""
    locate, letter = read_u16(packets, at + LOCATE_AT), packets[at + ADD_SIDE_AT]
    if letter != BUY_LETTER and letter != SELL_LETTER:
        violation(s, V_BAD_FIELD)
        return
    if s.symbols[locate]["stock"] == 0:
        s.symbols[locate]["stock"] = read_stock(packets, at + ADD_STOCK_AT)
    book = locate * 2 + (0 if letter == BUY_LETTER else 1)
    px, qty = read_u32(packets, at + ADD_PRICE_AT), read_u32(packets, at + ADD_SHARES_AT)
    order_add(s, book, read_u64(packets, at + REF_AT), px, qty)


@subroutine
def message_change(s, packets, at):
    """X, D and U: an order shrinks, leaves, or is replaced by a new one."""
    slot = _order_of(s, packets, at)
    if slot == 0:
        return
    if packets[at] == TYPE_X:
        qty = read_u32(packets, at + EXEC_SHARES_AT)
        if qty < 1:
            violation(s, V_BAD_FIELD)
        order_reduce(s, slot, qty)
        return
    book = s.levels[s.orders[slot]["level"]]["book"]
    order_remove(s, slot)
    if packets[at] == TYPE_U:
        px = read_u32(packets, at + REPLACE_PRICE_AT)
        qty = read_u32(packets, at + REPLACE_SHARES_AT)
        order_add(s, book, read_u64(packets, at + REPLACE_REF_AT), px, qty)


@helper
def _message_other(s, packets, at):
    # R and H name a symbol, S is kept; the rest changes no book.
    letter, locate = packets[at], read_u16(packets, at + LOCATE_AT)
    if letter == TYPE_R or letter == TYPE_H:
        s.symbols[locate]["stock"] = read_stock(packets, at + STOCK_AT)
    if letter == TYPE_H:
        s.symbols[locate]["state"] = packets[at + STATE_AT]
    elif letter == TYPE_S:
        s.words[W_CODE] = packets[at + CODE_AT]


@helper
def _crossing_settle(s, packets, at, letter):
    # The order before this message crosses. It does so where it would have left a band: then the
    # next that is heard of its symbol is that trading is over.
    locate = s.words[W_CROSSING]
    s.words[W_CROSSING] = 0
    ends = letter == TYPE_H and packets[at + STATE_AT] != STATE_TRADING
    if not ends or read_u16(packets, at + LOCATE_AT) != locate:
        violation(s, V_CROSSED)


@kernel
def book_apply(s, packets, blocks):
    """Apply messages blocks[:] = (sequence, offset, length) in order. O(messages)."""
    s.words[W_TAPE] = 0
    for index in range(blocks.shape[0]):
        at = blocks[index, BLOCK_OFFSET]
        length = blocks[index, BLOCK_LENGTH]
        sequence = blocks[index, BLOCK_SEQ]
        if sequence != s.words[W_NEXT]:
            s.words[W_PARTIAL] = 1
        s.words[W_NEXT] = sequence + 1
        s.words[W_MESSAGES] += 1
        letter = packets[at] if length > 0 else 0
        if s.words[W_CROSSING] != 0 and length > 0 and LENGTH_BY_TYPE[letter] == length:
            _crossing_settle(s, packets, at, letter)
        if length == 0 or LENGTH_BY_TYPE[letter] != length:
            violation(s, V_BAD_MESSAGE)
        elif letter == TYPE_A or letter == TYPE_F:
            message_add(s, packets, at)
        elif letter == TYPE_E or letter == TYPE_C:
            message_execute(s, packets, at, sequence)
        elif letter == TYPE_X or letter == TYPE_D or letter == TYPE_U:
            message_change(s, packets, at)
        elif letter == TYPE_P or letter == TYPE_Q:
            message_trade(s, packets, at, sequence)
        else:
            _message_other(s, packets, at)


# -------------------------------------------------------------------------------------------- views
@kernel
def book_levels(s, book, out):
    """Fill rows (px, qty, orders) best first; returns how many. O(rows)."""
    slot, count = s.ends[book, 0], 0
    while slot != 0 and count < out.shape[0]:
        level = s.levels[slot]
        out[count, 0] = level["px"]
        out[count, 1] = level["qty"]
        out[count, 2] = level["orders"]
        slot = level["worse"]
        count += 1
    return count


@kernel
def book_orders(s, book, out):
    """Fill rows (ref, px, qty) in priority order; returns how many. O(rows)."""
    at, count = s.ends[book, 0], 0
    while at != 0:
        slot = s.levels[at]["oldest"]
        while slot != 0 and count < out.shape[0]:
            out[count, 0] = s.order_refs[slot]
            out[count, 1] = s.levels[at]["px"]
            out[count, 2] = s.orders[slot]["qty"]
            slot = s.orders[slot]["newer"]
            count += 1
        at = s.levels[at]["worse"]
    return count


def _warm_up() -> None:
    state, rows = make_state(4, 4, 4), np.zeros((1, 3), np.int64)
    book_apply(state, np.zeros(64, np.uint8), np.zeros((1, BLOCK_COLUMNS), np.int64))
    book_levels(state, 0, rows)
    book_orders(state, 0, rows)


register_warmup("feed.book_messages", _warm_up)
