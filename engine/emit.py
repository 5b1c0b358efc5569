"""Writing EVENTs: the only place that fills event slots.

Hot. Each function appends to the event ring at hdr[OUT_POSITION]; nothing is visible to readers
before the loop commits. `event_new` zeroes the slot, so a field that is not set is zero. Every
event of an account takes the next account_seq, every public one the next feed_seq, in the order of
emission.
"""

import numpy as np

from engine.book_state import (
    EVENT_MASK,
    FEED_SEQ,
    IN_SEQ,
    IN_TS,
    ORDER_POST_ONLY,
    ORDER_TEXT,
    OUT_POSITION,
    RECEIPT_GATEWAY_IN,
    RECEIPT_PRODUCER_SEQ,
    RECEIPT_SHARD_IN,
    SHARD,
    accounts,
    event_words,
    events,
    order_text,
    orders,
    rejects,
    sessions,
    symbols,
    texts,
)
from engine.jit import helper, subroutine
from engine.records import (
    CLIENT_TEXT_BYTES,
    EVENT_SLOT_WORDS,
    SYMBOL_INDEX_BITS,
    CommandFlag,
    EventFlag,
    EventKind,
    Phase,
    Reason,
    Role,
)  # fmt: skip

SEQ_WORD, IN_SEQ_WORD, IN_TS_WORD = 0, 1, 8
GATEWAY_IN_WORD, SHARD_IN_WORD, PRODUCER_SEQ_WORD = 24, 25, 27


@subroutine
def slot_open(words, hdr):
    """Zero the next event slot, number it and stamp it; returns its index."""
    position = np.int64(hdr[OUT_POSITION])
    index = position & np.int64(hdr[EVENT_MASK])
    base = index * EVENT_SLOT_WORDS
    for i in range(EVENT_SLOT_WORDS):
        words[base + i] = 0
    words[base + SEQ_WORD] = position + 1
    words[base + IN_SEQ_WORD] = hdr[IN_SEQ]
    words[base + IN_TS_WORD] = hdr[IN_TS]
    words[base + GATEWAY_IN_WORD] = hdr[RECEIPT_GATEWAY_IN]
    words[base + SHARD_IN_WORD] = hdr[RECEIPT_SHARD_IN]
    words[base + PRODUCER_SEQ_WORD] = hdr[RECEIPT_PRODUCER_SEQ]
    hdr[OUT_POSITION] = position + 1
    return index


@helper
def event_new(s, kind):
    """Append an event of `kind`; returns its slot index."""
    index = slot_open(event_words(s), s)
    events(s)[index]["kind"] = kind
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
def event_public(s, index):
    """Mark the event as one market-data message."""
    s[FEED_SEQ] += 1
    events(s)[index]["feed_seq"] = s[FEED_SEQ]


@helper
def symbol_id_of(s, symbol):
    return (np.int64(s[SHARD]) << SYMBOL_INDEX_BITS) | symbol


@helper
def text_copy(source, target):
    for i in range(CLIENT_TEXT_BYTES):
        target[i] = source[i]


@helper
def event_order(s, kind, slot):
    """Append an event about the order in `slot`, with all that describes it."""
    index = event_new(s, kind)
    event = events(s)[index]
    order = orders(s)[slot]
    event["order_id"] = order["order_id"]
    event["client_order_id"] = order["client_order_id"]
    event["side"] = order["side"]
    event["order_type"] = order["order_type"]
    event["tif"] = order["tif"]
    event["leaves"] = order["leaves"]
    event["cum"] = order["cum"]
    event["symbol_id"] = symbol_id_of(s, np.int64(order["symbol"]))
    flags = np.int64(order["flags"])
    if flags != 0:
        if flags & ORDER_POST_ONLY:
            event["flags"] |= EventFlag.POST_ONLY.value
        if flags & ORDER_TEXT:
            event["flags"] |= EventFlag.TEXT_ID.value
            text_copy(texts(s)[order_text(s)[slot]]["text"], event["text"])
    event_account(s, index, np.int64(order["account"]), np.int64(order["session"]))
    return index


@helper
def emit_accepted(s, slot):
    index = event_order(s, EventKind.ACCEPTED, slot)
    event = events(s)[index]
    event["px"] = orders(s)[slot]["px"]
    event["qty"] = orders(s)[slot]["leaves"]


@helper
def emit_rejected(s, c, code, symbol):
    """Refuse command `c`; `symbol` is the index it named, 0 when none is known."""
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
    event_account(s, index, account, session)


@helper
def emit_fill_maker(s, slot, px, qty, trade_id):
    index = event_order(s, EventKind.FILL, slot)
    event = events(s)[index]
    event["px"] = px
    event["qty"] = qty
    event["trade_id"] = trade_id
    event["role"] = Role.MAKER
    event["public_ref"] = orders(s)[slot]["public_ref"]
    event["shown"] = orders(s)[slot]["leaves"]
    event["shown_before"] = np.int64(orders(s)[slot]["leaves"]) + qty
    event_public(s, index)


@helper
def emit_fill_taker(s, slot, px, qty, trade_id):
    index = event_order(s, EventKind.FILL, slot)
    event = events(s)[index]
    event["px"] = px
    event["qty"] = qty
    event["trade_id"] = trade_id
    event["role"] = Role.TAKER


@helper
def emit_booked(s, slot, old_ref):
    index = event_order(s, EventKind.BOOKED, slot)
    event = events(s)[index]
    order = orders(s)[slot]
    event["px"] = order["px"]
    event["qty"] = order["leaves"]
    event["shown"] = order["leaves"]
    event["public_ref"] = order["public_ref"]
    event["old_ref"] = old_ref
    event_public(s, index)


@helper
def emit_canceled(s, slot, reason):
    """The order leaves with `leaves` already zero in the event."""
    index = event_order(s, EventKind.CANCELED, slot)
    event = events(s)[index]
    order = orders(s)[slot]
    event["px"] = order["px"]
    event["qty"] = order["leaves"]
    event["shown_before"] = order["leaves"]
    event["leaves"] = 0
    event["public_ref"] = order["public_ref"]
    event["reason"] = reason
    event_public(s, index)


@helper
def emit_expired(s, slot, reason):
    index = event_order(s, EventKind.EXPIRED, slot)
    event = events(s)[index]
    event["px"] = orders(s)[slot]["px"]
    event["qty"] = orders(s)[slot]["leaves"]
    event["leaves"] = 0
    event["reason"] = reason


@helper
def emit_listed(s, symbol):
    """LISTED, then PHASE: the public learns of the symbol before any order of it."""
    row = symbols(s)[symbol]
    index = event_new(s, EventKind.LISTED)
    event = events(s)[index]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["amount"] = row["tick"]
    event["amount2"] = row["lot"]
    event["px2"] = row["px_max"]
    name = row["name"]
    for i in range(8):
        event["text"][i] = np.uint8((name >> np.uint64(8 * i)) & np.uint64(0xFF))
    event_public(s, index)
    index = event_new(s, EventKind.PHASE)
    event = events(s)[index]
    event["symbol_id"] = symbol_id_of(s, symbol)
    event["code"] = row["phase"]
    event["amount"] = Phase.NONE
    event_public(s, index)


@helper
def emit_summary(s, account, session, count, more):
    """Close a mass cancel or a page: `more` is the last order_id when rows remain."""
    index = event_new(s, EventKind.SUMMARY)
    events(s)[index]["qty"] = count
    events(s)[index]["amount"] = more
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
def close_command(s):
    """Flag the newest event as the last of its command (or slice)."""
    index = (np.int64(s[OUT_POSITION]) - 1) & np.int64(s[EVENT_MASK])
    events(s)[index]["flags"] |= EventFlag.LAST.value
