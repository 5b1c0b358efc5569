"""Writing EVENTs: the only place that fills event slots.

Hot. Each function appends to the event ring at hdr[OUT_POSITION]; nothing is visible to readers
before the loop commits. `event_new` zeroes the slot, so a field that is not set is zero. Every
event of an account takes the next account_seq, every public one the next feed_seq, in the order of
emission.
"""

import numpy as np

from engine.atomics import prefetch_line
from engine.book_rows import (
    ORDER,
    ORDER_COUNTED,
    ORDER_FULL,
    ORDER_POST_ONLY,
    ORDER_TEXT,
)
from engine.book_state import (
    EVENT_MASK,
    FEED_SEQ,
    IN_SEQ,
    IN_TS,
    INCARNATION_NUMBER,
    OUT_POSITION,
    RECEIPT_GATEWAY_IN,
    RECEIPT_PRODUCER_SEQ,
    RECEIPT_SHARD_IN,
    RECEIPT_SHARD_OUT,
    SHARD,
    accounts,
    event_words,
    events,
    more,
    order_text,
    order_words,
    orders,
    rejects,
    rules,
    sessions,
    symbols,
    texts,
)
from engine.jit import helper, subroutine
from engine.limit_count import count_event
from engine.records import (
    CACHE_LINE,
    CLIENT_TEXT_BYTES,
    EVENT_SLOT,
    EVENT_SLOT_WORDS,
    SYMBOL_INDEX_BITS,
    CommandFlag,
    EventFlag,
    EventKind,
    InstrumentRule,
    Phase,
    Reason,
    RejectCode,
    Role,
    layout_offset,
)  # fmt: skip

# Words of an EVENT_SLOT. Events about orders are most of all events: they are written word by word,
# every word once.
(SEQ_W, IN_SEQ_W, ACCOUNT_SEQ_W, FEED_SEQ_W, ORDER_ID_W, CLIENT_ID_W, PX_W, KIND_W, IN_TS_W) = (
    range(9)
)
LEAVES_W, ACCOUNT_W, SYMBOL_W, GATEWAY_IN_W, RECEIPT_WORDS = 12, 14, 15, 24, 4
ORDER_PX_W, ORDER_CUM_W, ORDER_ACCOUNT_W, ORDER_SYMBOL_W = 3, 4, 6, 7
ORDER_WORDS = ORDER.itemsize // 8
LOW32 = 0xFFFFFFFF
TERMS = 0xFFFFFF  # side, order_type, tif: neighbours in ORDER and in EVENT
SLOTS_AHEAD = 8  # the ring is larger than any cache: ask for the lines of a slot before its turn
SLOT_LINES = EVENT_SLOT.itemsize // CACHE_LINE
for _layout, _name, _word in (
    (EVENT_SLOT, "account_seq", ACCOUNT_SEQ_W),
    (EVENT_SLOT, "feed_seq", FEED_SEQ_W),
    (EVENT_SLOT, "px", PX_W),
    (EVENT_SLOT, "kind", KIND_W),
    (EVENT_SLOT, "leaves", LEAVES_W),
    (EVENT_SLOT, "account", ACCOUNT_W),
    (EVENT_SLOT, "symbol_id", SYMBOL_W),
    (EVENT_SLOT, "receipt_gateway_in", GATEWAY_IN_W),
    (EVENT_SLOT, "receipt_producer_seq", GATEWAY_IN_W + RECEIPT_WORDS - 1),
    (ORDER, "px", ORDER_PX_W),
    (ORDER, "cum", ORDER_CUM_W),
    (ORDER, "account", ORDER_ACCOUNT_W),
    (ORDER, "symbol", ORDER_SYMBOL_W),
):
    assert layout_offset(_layout, _name) == _word * 8, _name
assert layout_offset(EVENT_SLOT, "side") + 1 == layout_offset(EVENT_SLOT, "order_type")
assert layout_offset(ORDER, "side") == ORDER_SYMBOL_W * 8 + 4


@helper
def slot_open(s):
    """Number, stamp and clear the next event slot but its words 2 to 15; returns its index."""
    words = event_words(s)
    position = np.int64(s[OUT_POSITION])
    index = position & np.int64(s[EVENT_MASK])
    ahead = (position + SLOTS_AHEAD) & np.int64(s[EVENT_MASK])
    for line in range(SLOT_LINES):
        prefetch_line(events(s), ahead, line)
    base = index * EVENT_SLOT_WORDS
    words[base + SEQ_W] = position + 1
    words[base + IN_SEQ_W] = s[IN_SEQ]
    words[base + IN_TS_W] = s[IN_TS]
    for word in range(SYMBOL_W + 1, GATEWAY_IN_W):
        words[base + word] = 0
    receipts = (
        s[RECEIPT_GATEWAY_IN],
        s[RECEIPT_SHARD_IN],
        s[RECEIPT_SHARD_OUT],
        s[RECEIPT_PRODUCER_SEQ],
    )
    for word in range(RECEIPT_WORDS):
        words[base + GATEWAY_IN_W + word] = receipts[word]
    s[OUT_POSITION] = position + 1
    return index


@subroutine
def event_new(s, kind):
    """Append an event of `kind`, all else zero; returns its slot index."""
    index = slot_open(s)
    words = event_words(s)
    base = index * EVENT_SLOT_WORDS
    for word in range(ACCOUNT_SEQ_W, IN_TS_W):
        words[base + word] = 0
    for word in range(IN_TS_W + 1, SYMBOL_W + 1):
        words[base + word] = 0
    words[base + KIND_W] = kind
    return index


@helper
def event_account(s, index, account, session):
    """Address the event to an account (0: nobody) and number it there."""
    event = events(s)[index]
    event["account"] = account
    event["session"] = session
    if account != 0:
        accounts(s)[account]["account_seq"] += 1
        event["account_seq"] = accounts(s)[account]["account_seq"]


@helper
def event_public(s, event):
    """Mark the event as one market-data message."""
    s[FEED_SEQ] += 1
    event["feed_seq"] = s[FEED_SEQ]


@helper
def symbol_id_of(s, symbol):
    return (np.int64(s[SHARD]) << SYMBOL_INDEX_BITS) | symbol


@helper
def text_copy(source, target):
    for i in range(CLIENT_TEXT_BYTES):
        target[i] = source[i]


@helper
def order_marks(s, index, slot):
    """What few orders have: flags, a text id, an account with limits."""
    flags = np.int64(orders(s)[slot]["flags"])
    event = events(s)[index]
    if flags & ORDER_POST_ONLY:
        event["flags"] |= EventFlag.POST_ONLY.value
    if flags & ORDER_COUNTED:
        count_event(s, index, slot)
    if flags & ORDER_TEXT:
        event["flags"] |= EventFlag.TEXT_ID.value
        text_copy(texts(s)[order_text(s)[slot]]["text"], event["text"])


@helper
def event_order(s, kind, slot, px, qty):
    """Append an event about the order in `slot`, with all that describes it."""
    index = slot_open(s)
    words, order = event_words(s), order_words(s)
    at, base = slot * ORDER_WORDS, index * EVENT_SLOT_WORDS
    # All loads, then all stores: any store might change the order, as far as the compiler knows.
    order_id, client_id = order[at], order[at + 1]
    leaves, cum = np.int64(order[at + ORDER_PX_W]) >> 32, np.int64(order[at + ORDER_CUM_W])
    owner_word, last = np.int64(order[at + ORDER_ACCOUNT_W]), np.int64(order[at + ORDER_SYMBOL_W])
    account, symbol_id = owner_word & LOW32, symbol_id_of(s, last & LOW32)
    account_seq = np.int64(accounts(s)[account]["account_seq"]) + 1
    accounts(s)[account]["account_seq"] = account_seq
    words[base + ACCOUNT_SEQ_W] = account_seq
    words[base + FEED_SEQ_W] = 0
    words[base + ORDER_ID_W] = order_id
    words[base + CLIENT_ID_W] = client_id
    words[base + PX_W] = px | (qty << 32)
    words[base + KIND_W] = kind | (((last >> 32) & TERMS) << 8)
    for word in range(IN_TS_W + 1, LEAVES_W):
        words[base + word] = 0
    words[base + LEAVES_W] = leaves | (cum << 32)
    words[base + LEAVES_W + 1] = 0
    words[base + ACCOUNT_W] = owner_word
    words[base + SYMBOL_W] = symbol_id
    if orders(s)[slot]["flags"] != 0:
        order_marks(s, index, slot)
    return index


@helper
def emit_accepted(s, slot):
    order = orders(s)[slot]
    event_order(s, EventKind.ACCEPTED, slot, np.int64(order["px"]), np.int64(order["leaves"]))


@helper
def emit_rejected(s, c, code, symbol):
    """Refuse command `c`; `symbol` is the index it named, 0 when none is known. Who does not own
    the session is told nothing: its connection ends by the event of the logon that took it over,
    and that one's client must not take this for the answer to what it has sent again.
    """
    index = event_new(s, EventKind.REJECTED)
    event = events(s)[index]
    event["code"] = code
    rejects(s)[code] += 1
    event["order_id"] = c["order_id"]
    own = np.int64(c["client_order_id"])
    event["client_order_id"] = own if own != 0 else np.int64(c["target_client_order_id"])
    if symbol > 0:
        event["symbol_id"] = symbol_id_of(s, symbol)
    if np.int64(c["flags"]) & CommandFlag.TEXT_ID.value and c["text"][0] != 0:
        event["flags"] |= EventFlag.TEXT_ID.value
        text_copy(c["text"], event["text"])
    account = np.int64(c["account"])
    session = np.int64(c["session"])
    if account < 0 or account >= len(accounts(s)) or accounts(s)[account]["open"] == 0:
        account = np.int64(0)
    in_table = (
        session > 0 and session < len(sessions(s)) and account > 0
    )  # a free slot has account 0
    if not in_table or sessions(s)[session]["account"] != account:
        session = np.int64(0)
    if code == RejectCode.NOT_LOGGED_ON:
        account = np.int64(0)
    event_account(s, index, account, session)


@helper
def emit_fill_maker(s, slot, px, qty, trade_id):
    index = event_order(s, EventKind.FILL, slot, px, qty)
    event = events(s)[index]
    event["trade_id"] = trade_id
    event["role"] = Role.MAKER
    event["public_ref"] = orders(s)[slot]["public_ref"]
    event["shown"] = orders(s)[slot]["leaves"]
    event["shown_before"] = np.int64(orders(s)[slot]["leaves"]) + qty
    event_public(s, event)


@helper
def emit_fill_taker(s, slot, px, qty, trade_id):
    index = event_order(s, EventKind.FILL, slot, px, qty)
    event = events(s)[index]
    event["trade_id"] = trade_id
    event["role"] = Role.TAKER


@helper
def emit_booked(s, slot, old_ref):
    order = orders(s)[slot]
    px, qty = np.int64(order["px"]), np.int64(order["leaves"])
    event = events(s)[event_order(s, EventKind.BOOKED, slot, px, qty)]
    event["shown"] = order["leaves"]
    event["public_ref"] = order["public_ref"]
    event["old_ref"] = old_ref
    event_public(s, event)


@helper
def emit_image(s, slot):
    """A resting order as the beginning of a feed session shows it: to the public alone, with
    nothing that would say whose it is.
    """
    order = orders(s)[slot]
    shown = np.int64(order["leaves"])
    if order["flags"] & ORDER_FULL:
        shown = np.int64(more(s)[slot]["shown"])
    event = events(s)[event_new(s, EventKind.BOOKED)]
    event["px"] = order["px"]
    event["qty"] = shown
    event["side"] = order["side"]
    event["leaves"] = shown
    event["shown"] = shown
    event["public_ref"] = order["public_ref"]
    event["symbol_id"] = symbol_id_of(s, np.int64(order["symbol"]))
    event_public(s, event)


@helper
def emit_canceled(s, slot, reason):
    """The order leaves with `leaves` already zero in the event."""
    order = orders(s)[slot]
    px, qty = np.int64(order["px"]), np.int64(order["leaves"])
    event = events(s)[event_order(s, EventKind.CANCELED, slot, px, qty)]
    event["shown_before"] = order["leaves"]
    event["leaves"] = 0
    event["public_ref"] = order["public_ref"]
    event["reason"] = reason
    event_public(s, event)


@helper
def emit_expired(s, slot, reason):
    order = orders(s)[slot]
    px, qty = np.int64(order["px"]), np.int64(order["leaves"])
    event = events(s)[event_order(s, EventKind.EXPIRED, slot, px, qty)]
    event["leaves"] = 0
    event["reason"] = reason


@helper
def emit_listed_terms(s, symbol):
    """LISTED: the terms of the symbol, and its self-trade mode now."""
    row = symbols(s)[symbol]
    index = event_new(s, EventKind.LISTED)
    event = events(s)[index]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["amount"] = row["tick"]
    event["amount2"] = row["lot"]
    event["px2"] = row["px_max"]
    event["order_type"] = row["rules"]
    event["stp"] = rules(s)[symbol]["rule"][InstrumentRule.STP.value]
    name = row["name"]
    for i in range(8):
        event["text"][i] = np.uint8((name >> np.uint64(8 * i)) & np.uint64(0xFF))
    event_public(s, event)


@helper
def emit_listed(s, symbol):
    """LISTED, then PHASE: the public learns of the symbol before any order of it."""
    row = symbols(s)[symbol]
    emit_listed_terms(s, symbol)
    index = event_new(s, EventKind.PHASE)
    event = events(s)[index]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["code"] = row["phase"]
    event["amount"] = Phase.NONE
    event["order_type"] = rules(s)[symbol]["rule"][InstrumentRule.ALGORITHM.value]
    event_public(s, event)


@helper
def emit_summary(s, account, session, count, more, reason):
    """Close cancels or a page: `more` is the last order_id when rows remain, `reason` why orders
    were cancelled. It tells the answer to a mass cancel from the end of what nobody asked for.
    """
    index = event_new(s, EventKind.SUMMARY)
    events(s)[index]["qty"] = count
    events(s)[index]["amount"] = more
    events(s)[index]["reason"] = reason
    event_account(s, index, account, session)


@helper
def emit_continued(s, units):
    index = event_new(s, EventKind.CONTINUED)
    events(s)[index]["qty"] = units


@helper
def emit_session(s, session, reason):
    """ACCOUNT event of a session opened or closed: whoever asked learns account_seq and the last
    id.
    """
    row = sessions(s)[session]
    index = event_new(s, EventKind.ACCOUNT)
    event = events(s)[index]
    event["reason"] = reason
    event["amount"] = row["logon"]
    event["amount2"] = s[INCARNATION_NUMBER]
    event["client_order_id"] = row["last_id"]
    name = row["name"]
    for i in range(8):
        event["text"][i] = np.uint8((name >> np.uint64(8 * i)) & np.uint64(0xFF))
    event_account(s, index, np.int64(row["account"]), session)


@helper
def emit_account_opened(s, account):
    index = event_new(s, EventKind.ACCOUNT)
    events(s)[index]["reason"] = Reason.ACCOUNT_OPENED
    event_account(s, index, account, 0)


@helper
def emit_kill(s, c, session):
    """ACCOUNT event of a kill switch: of an account, or of a session."""
    index = event_new(s, EventKind.ACCOUNT)
    event = events(s)[index]
    event["reason"] = Reason.KILL
    event["order_type"] = c["order_type"]
    event["client_order_id"] = c["client_order_id"]
    text_copy(c["text"], event["text"])
    event_account(s, index, np.int64(c["account"]), session)


@helper
def emit_limits(s, c, symbol):
    """ACCOUNT event of a limit that was set."""
    index = event_new(s, EventKind.ACCOUNT)
    event = events(s)[index]
    event["reason"] = Reason.LIMITS
    event["order_type"] = c["order_type"]
    event["client_order_id"] = c["client_order_id"]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["amount"] = c["amount"]
    event_account(s, index, np.int64(c["account"]), np.int64(0))


@helper
def emit_notice(s, reason, amount):
    """ACCOUNT event of no account: a producer was lost, the exchange was started anew."""
    event = events(s)[event_new(s, EventKind.ACCOUNT)]
    event["reason"] = reason
    event["amount"] = amount


@helper
def emit_feed_state(s, letter, date, epoch):
    """SESSION: one ITCH system event."""
    event = events(s)[event_new(s, EventKind.SESSION)]
    event["code"] = letter
    event["amount"] = date
    event["amount2"] = epoch
    event_public(s, event)


@helper
def close_command(s):
    """Flag the newest event as the last of its command (or slice)."""
    index = (np.int64(s[OUT_POSITION]) - 1) & np.int64(s[EVENT_MASK])
    events(s)[index]["flags"] |= EventFlag.LAST.value
