"""Client ids: from what the client called an order to its slot, on the matching thread.

Hot. Two tables of one shard, one writer.

* Integer ids, scope (session, id), live orders only: open addressing, linear probing, deletion by
  shifting back, at most half full but for what waits in `gone`. An entry is ``hash32 << 32 | slot
  + 1``. Eight consecutive ids share a cache line (the low three bits stay in place), so a client
  that counts upwards costs one line per eight orders. The rest is multiplied by a private odd
  number: chosen ids cannot make long chains. The layout never shows in an event, so that number
  needs no journal.
* Text ids, scope (account, text), every id of the trading day: a row lasts until a feed session of
  a later day begins, longer while its order lives; the index stays at most half full. A row knows
  its order while that lives.
"""

import numpy as np

from engine.atomics import prefetch_line
from engine.book_rows import (
    ORDER_INDEXED,
    ORDER_TEXT,
)
from engine.book_state import (
    GONE_IN,
    GONE_OUT,
    GONE_WORDS,
    ID_MASK,
    ID_SEED,
    ID_SHIFT,
    TEXT_MASK,
    TEXTS_CAPACITY,
    TEXTS_USED,
    gone,
    ids,
    order_text,
    orders,
    text_index,
    texts,
)
from engine.jit import JIT_DISABLED, helper, subroutine
from engine.records import CLIENT_TEXT_BYTES

TEXT_WAITS = -2  # TEXT.order: of a leg of a list that is not complete yet (engine/legs.py)
MIX_A = np.uint64(0x9E3779B97F4A7C15)
SESSION_SHIFT = np.uint64(40)
LOW32 = np.uint64(0xFFFFFFFF)
IDS_PER_LINE = 8


@helper
def id_hash(s, session, client_id):
    """32-bit home of (session, client_id): the high half of one product with the private
    multiplier, its last bits those of the id.
    """
    x = np.uint64(client_id >> 3) ^ (np.uint64(session) << SESSION_SHIFT)
    x *= np.uint64(s[ID_SEED])
    return ((x >> np.uint64(32)) & np.uint64(0xFFFFFFF8)) | np.uint64(client_id & 7)


@helper
def id_place(s, home):
    """Where the search for `home` begins: its best mixed bits are the first ones."""
    return ((home >> np.uint64(s[ID_SHIFT])) & np.uint64(0xFFFFFFF8)) | (home & np.uint64(7))


@helper
def id_insert(s, slot):
    """Index the order in `slot` by its integer client id, if it has one and is not indexed yet.

    Called when the order rests or its work is interrupted: an order that is over within its own
    command is never looked for.
    """
    order = orders(s)[slot]
    client_id = np.int64(order["client_order_id"])
    if client_id == 0 or order["flags"] & ORDER_INDEXED:
        return
    order["flags"] |= ORDER_INDEXED
    mask = np.uint64(s[ID_MASK])
    home = id_hash(s, np.int64(order["session"]), client_id)
    place = id_place(s, home)
    while ids(s)[place] != np.uint64(0):
        place = (place + np.uint64(1)) & mask
    ids(s)[place] = (home << np.uint64(32)) | np.uint64(slot + 1)


@helper
def id_find(s, session, client_id):
    """Slot of the live order (session, client_id), -1 when there is none."""
    mask = np.uint64(s[ID_MASK])
    home = id_hash(s, session, client_id)
    place = id_place(s, home)
    found = np.int64(-1)
    while ids(s)[place] != np.uint64(0):
        entry = ids(s)[place]
        if entry >> np.uint64(32) == home:
            slot = np.int64(entry & LOW32) - 1
            order = orders(s)[slot]
            if (
                np.int64(order["client_order_id"]) == client_id
                and np.int64(order["session"]) == session
            ):
                found = slot
                break
        place = (place + np.uint64(1)) & mask
    return found


@helper
def id_delete(s, entry):
    """Take an entry out of the table and close the hole."""
    mask = np.uint64(s[ID_MASK])
    hole = id_place(s, entry >> np.uint64(32))
    while ids(s)[hole] != entry:
        hole = (hole + np.uint64(1)) & mask
    place = hole
    while True:
        place = (place + np.uint64(1)) & mask
        moved = ids(s)[place]
        if moved == np.uint64(0):
            break
        if ((place - id_place(s, moved >> np.uint64(32))) & mask) >= ((place - hole) & mask):
            ids(s)[hole] = moved
            hole = place
    ids(s)[hole] = np.uint64(0)


@helper
def id_next_delete(s):
    """Take the oldest entry of `gone` out of the table."""
    id_delete(s, gone(s)[s[GONE_OUT] & (GONE_WORDS - 1)])
    s[GONE_OUT] += 1


@helper
def id_forget(s, slot):
    """The order in `slot` is over: its id names nothing from now on, its entry goes soon.

    The entry's line is likely in no cache. It is asked for now and used GONE_WORDS orders later;
    until then the entry leads to an order without an id, or to a new one with another id, and is
    not found. `ids_settle` ends the wait before anybody else looks.
    """
    order = orders(s)[slot]
    home = id_hash(s, np.int64(order["session"]), np.int64(order["client_order_id"]))
    order["client_order_id"] = 0
    place = np.int64(id_place(s, home))
    prefetch_line(ids(s), place, 0)
    prefetch_line(ids(s), (place | (IDS_PER_LINE - 1)) + 1, 0)
    if s[GONE_IN] - s[GONE_OUT] == GONE_WORDS:
        id_next_delete(s)
    gone(s)[s[GONE_IN] & (GONE_WORDS - 1)] = (home << np.uint64(32)) | np.uint64(slot + 1)
    s[GONE_IN] += 1


@subroutine
def ids_settle(s):
    """Remove what waits in `gone`: at the end of every batch the table holds live orders only."""
    while s[GONE_OUT] != s[GONE_IN]:
        id_next_delete(s)


@helper
def text_hash(account, text):
    """64-bit hash of (account, 36 bytes); FNV-1a with a final mix."""
    x = np.uint64(0xCBF29CE484222325) ^ np.uint64(account)
    for i in range(CLIENT_TEXT_BYTES):
        x = (x ^ np.uint64(text[i])) * np.uint64(0x100000001B3)
    return (x ^ (x >> np.uint64(32))) * MIX_A


@helper
def text_equal(a, b):
    same = True
    for i in range(CLIENT_TEXT_BYTES):
        if a[i] != b[i]:
            same = False
    return same


@helper
def text_find(s, account, text):
    """Row of a text id used today by `account`, 0 when it was not."""
    mask = np.uint64(s[TEXT_MASK])
    wanted = text_hash(account, text)
    place = (wanted >> np.uint64(20)) & mask
    found = np.int64(0)
    while text_index(s)[place] != 0:
        row = np.int64(text_index(s)[place])
        if texts(s)[row]["hash"] == wanted and np.int64(texts(s)[row]["account"]) == account:
            if text_equal(texts(s)[row]["text"], text):
                found = row
                break
        place = (place + np.uint64(1)) & mask
    return found


@helper
def text_enter(s, number):
    """Put a filled row into the index."""
    mask = np.uint64(s[TEXT_MASK])
    place = (texts(s)[number]["hash"] >> np.uint64(20)) & mask
    while text_index(s)[place] != 0:
        place = (place + np.uint64(1)) & mask
    text_index(s)[place] = number


@helper
def text_insert(s, account, text):
    """Take a row for a text id that is not there; 0 when the table is full."""
    if s[TEXTS_USED] >= s[TEXTS_CAPACITY]:
        return np.int64(0)
    s[TEXTS_USED] += 1
    number = np.int64(s[TEXTS_USED])
    row = texts(s)[number]
    row["hash"] = text_hash(account, text)
    row["account"] = account
    row["order"] = -1
    for i in range(CLIENT_TEXT_BYTES):
        row["text"][i] = text[i]
    text_enter(s, number)
    return number


@helper
def text_move(s, source, target):
    """Carry the row of a living order to a place before it, and tell the order."""
    old, new = texts(s)[source], texts(s)[target]
    new["hash"] = old["hash"]
    new["account"] = old["account"]
    new["order"] = old["order"]
    for i in range(CLIENT_TEXT_BYTES):
        new["text"][i] = old["text"][i]
    if new["order"] >= 0:
        order_text(s)[np.int64(new["order"])] = target


@helper
def text_clear(s, number):
    """Make a row what it was before its first use."""
    row = texts(s)[number]
    row["hash"] = 0
    row["account"] = 0
    row["order"] = 0
    for i in range(CLIENT_TEXT_BYTES):
        row["text"][i] = 0


@subroutine
def texts_forget(s):
    """A new trading day: the ids of ended orders may be used again. Living orders keep theirs, and
    so do legs that wait for the rest of their list.

    Rows move together and the index is made anew: taking entries out of it one by one would break
    chains. O(rows + index).
    """
    used, kept = np.int64(s[TEXTS_USED]), np.int64(0)
    for number in range(1, used + 1):
        if texts(s)[number]["order"] != -1:
            kept += 1
            if kept < number:
                text_move(s, np.int64(number), kept)
    for number in range(kept + 1, used + 1):
        text_clear(s, np.int64(number))
    for place in range(len(text_index(s))):
        text_index(s)[place] = 0
    s[TEXTS_USED] = kept
    for number in range(1, kept + 1):
        text_enter(s, np.int64(number))


@helper
def client_id_release(s, slot):
    """The order in `slot` ends: its client id no longer names a live order."""
    order = orders(s)[slot]
    if order["flags"] & ORDER_TEXT:
        texts(s)[order_text(s)[slot]]["order"] = -1
    if order["flags"] & ORDER_INDEXED:
        id_forget(s, slot)


if JIT_DISABLED:
    # Hashes count modulo 2**64 on purpose; NumPy scalars complain where machine words just wrap.
    modulo = np.errstate(over="ignore")
    id_hash, id_delete, text_hash = modulo(id_hash), modulo(id_delete), modulo(text_hash)
