"""The words of the JSON protocol, once: keys with their aliases, and the closed lists of values.

Cold, built at import. The slow path looks things up in the dictionaries; the compiled scanner in
hash tables made from the same dictionaries, so the two cannot disagree about a word. Keys and
listed values are matched in any letter case.

A word of up to 16 ASCII characters is packed little-endian into two int64 (no sign trouble: every
byte is below 128). The tables are perfect hashes: one multiplication, one look, no chain. The
multiplier is searched at import, always the same.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from engine.jit import helper
from engine.records import OrderType, SelfTrade, Side, TimeInForce
from gateway.state import (
    F_ID,
    F_ORDER_ID,
    F_ORDER_TYPE,
    F_POST_ONLY,
    F_PRICE,
    F_QTY,
    F_SIDE,
    F_SYMBOL,
    F_TAG,
    F_TARGET_ID,
    F_TIF,
    F_TYPE,
)  # fmt: skip

# Canonical key -> all its spellings.
KEYS: dict[str, tuple[str, ...]] = {
    "type": ("type",),
    "symbol": ("symbol", "ticker", "market"),
    "side": ("side", "action", "kind"),
    "qty": ("qty", "shares", "quantity"),
    "price": ("price", "px"),
    "tif": ("tif", "time_in_force"),
    "order_type": ("order_type",),
    "id": ("id", "client_order_id", "client_id"),
    "order_id": ("order_id",),
    "target_id": ("target_id", "orig_id"),
    "post_only": ("post_only",),
    "slide": ("slide",),
    "hidden": ("hidden",),
    "peak": ("peak",),
    "min_qty": ("min_qty",),
    "protected": ("protected",),
    "trigger": ("trigger",),
    "trigger_on": ("trigger_on",),
    "activation": ("activation",),
    "distance": ("distance",),
    "distance_bps": ("distance_bps",),
    "budget": ("budget",),
    "stp": ("stp",),
    "expire_time": ("expire_time",),
    "bid": ("bid", "bid_price"),
    "bid_qty": ("bid_qty", "bid_quantity"),
    "ask": ("ask", "ask_price"),
    "ask_qty": ("ask_qty", "ask_quantity"),
    "tag": ("tag",),
    "account": ("account",),
    "token": ("token",),
    "session": ("session",),
    "shard": ("shard",),
    "ids": ("ids",),
    "cancel_on_disconnect": ("cancel_on_disconnect",),
    "receipts": ("receipts",),
    "heartbeat": ("heartbeat",),
    "dead_man": ("dead_man",),
    "resume": ("resume",),
    "incarnation": ("incarnation",),
    "scope": ("scope",),
    "after": ("after",),
    "limit": ("limit",),
    "depth": ("depth",),
    "request": ("request",),
}
CANONICAL = {spelling: key for key, spellings in KEYS.items() for spelling in spellings}

# Values of `type`; those that name an order type are new orders of it.
NEW, LIMIT, MARKET, CANCEL, REPLACE = 1, 2, 3, 4, 5
(
    MASS_CANCEL,
    LOGON,
    LOGOUT,
    HEARTBEAT,
    TEST_REQUEST,
    ORDER,
    OPEN_ORDERS,
    BOOK,
    INSTRUMENTS,
    LIMITS,
) = 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
MARKET_TO_LIMIT = 16
STOP, STOP_LIMIT, TAKE_PROFIT, TAKE_PROFIT_LIMIT, TRAILING_STOP, TRAILING_STOP_LIMIT = (
    17, 18, 19, 20, 21, 22
)  # fmt: skip
PEG_PRIMARY, PEG_MARKET, PEG_MID = 23, 24, 25
QUOTE = 26
OCO, OTO, OTOCO = 27, 28, 29
BUDGET = 30
TYPES = {
    "new": NEW, "limit": LIMIT, "market": MARKET, "market_to_limit": MARKET_TO_LIMIT,
    "cancel": CANCEL, "replace": REPLACE,
    "mass_cancel": MASS_CANCEL, "quote": QUOTE,
    "logon": LOGON, "logout": LOGOUT, "heartbeat": HEARTBEAT, "test_request": TEST_REQUEST,
    "order": ORDER,
    "open_orders": OPEN_ORDERS, "book": BOOK, "instruments": INSTRUMENTS, "limits": LIMITS,
    "stop": STOP, "stop_limit": STOP_LIMIT, "take_profit": TAKE_PROFIT,
    "take_profit_limit": TAKE_PROFIT_LIMIT,
    "trailing_stop": TRAILING_STOP, "trailing_stop_limit": TRAILING_STOP_LIMIT,
    "peg_primary": PEG_PRIMARY, "peg_market": PEG_MARKET, "peg_mid": PEG_MID,
    "oco": OCO, "oto": OTO, "otoco": OTOCO,
    "budget": BUDGET,
}  # fmt: skip
TYPE_NAMES = {value: name for name, value in TYPES.items()}
NEW_TYPES = {
    LIMIT: OrderType.LIMIT, MARKET: OrderType.MARKET, MARKET_TO_LIMIT: OrderType.MARKET_TO_LIMIT,
    STOP: OrderType.STOP, STOP_LIMIT: OrderType.STOP_LIMIT,
    TAKE_PROFIT: OrderType.TAKE_PROFIT, TAKE_PROFIT_LIMIT: OrderType.TAKE_PROFIT_LIMIT,
    TRAILING_STOP: OrderType.TRAILING_STOP, TRAILING_STOP_LIMIT: OrderType.TRAILING_STOP_LIMIT,
    PEG_PRIMARY: OrderType.PEG_PRIMARY, PEG_MARKET: OrderType.PEG_MARKET,
    PEG_MID: OrderType.PEG_MID,
    BUDGET: OrderType.BUDGET,
}  # fmt: skip
NEW_KINDS = frozenset({NEW, *NEW_TYPES})
LISTS = frozenset({OCO, OTO, OTOCO})  # several new orders in one request
FAST_TYPES = ("new", "limit", "market", "cancel", "replace")
SIDES = {"buy": 0, "b": 0, "bid": 0, "sell": 1, "s": 1, "ask": 1}
TIFS = {member.name.lower(): int(member) for member in TimeInForce}
ORDER_TYPES = {member.name.lower(): int(member) for member in OrderType}
TRIGGERS = {"last": 0, "best": 1}
SELF_TRADES = {m.name.lower(): int(m) for m in SelfTrade if m is not SelfTrade.DEFAULT}
FAST_TIFS = ("gtc", "ioc", "fok")
FAST_ORDER_TYPES = ("limit", "market")
assert set(SIDES.values()) == set(Side)

# Which keys the compiled scanner knows, and as what; every other key takes the slow path.
FAST_KEYS = {
    "type": F_TYPE, "side": F_SIDE, "tif": F_TIF, "order_type": F_ORDER_TYPE, "qty": F_QTY,
    "price": F_PRICE, "id": F_ID,
    "order_id": F_ORDER_ID, "target_id": F_TARGET_ID, "tag": F_TAG, "symbol": F_SYMBOL,
    "post_only": F_POST_ONLY,
}  # fmt: skip
FAST_VALUES = {
    F_TYPE: {name: TYPES[name] for name in FAST_TYPES},
    F_SIDE: SIDES,
    F_TIF: {name: TIFS[name] for name in FAST_TIFS},
    F_ORDER_TYPE: {name: ORDER_TYPES[name] for name in FAST_ORDER_TYPES},
}

TABLE_BITS = 6
TABLE_SIZE = 1 << TABLE_BITS
_LOW31 = (1 << 31) - 1
_LOW56 = (1 << 56) - 1
FIELD_SPREAD = 0x1F123BB5  # keeps the values of different fields apart


def pack_word(word: str) -> tuple[int, int]:
    """Two int64 whose little-endian bytes are the word, zero padded."""
    raw = word.encode("ascii").ljust(16, b"\0")
    assert len(raw) == 16
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


def _fold(low: int, high: int) -> int:
    mixed = low ^ (low >> 29) ^ ((high & _LOW56) << 7) ^ (high >> 23)
    return (mixed ^ (mixed >> 31)) & _LOW31


def _search(folds: Iterable[int]) -> int:
    # A multiplier that gives every word a place of its own. Both factors are below 2**31: no
    # overflow.
    wanted = sorted(set(folds))
    for multiplier in range(0x2545F491, _LOW31, 2):
        places = {(fold * multiplier >> 31) & (TABLE_SIZE - 1) for fold in wanted}
        if len(places) == len(wanted):
            return multiplier
    raise AssertionError("no perfect hash: raise TABLE_BITS")


def _key_tables() -> tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    words = {pack_word(spelling): FAST_KEYS[key] for key in FAST_KEYS for spelling in KEYS[key]}
    multiplier = _search(_fold(*word) for word in words)
    low, high, field = (np.zeros(TABLE_SIZE, np.int64) for _ in range(3))
    for word, value in words.items():
        place = (_fold(*word) * multiplier >> 31) & (TABLE_SIZE - 1)
        low[place], high[place], field[place] = word[0], word[1], value
    return multiplier, low, high, field


def _value_tables() -> tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    words = {
        (pack_word(word)[0], field): value
        for field, values in FAST_VALUES.items()
        for word, value in values.items()
    }
    assert all(not pack_word(word)[1] for values in FAST_VALUES.values() for word in values)
    multiplier = _search(_fold(low, field * FIELD_SPREAD) for low, field in words)
    packed, result = np.zeros(TABLE_SIZE, np.int64), np.full(TABLE_SIZE, -1)
    for (low, field), value in words.items():
        place = (_fold(low, field * FIELD_SPREAD) * multiplier >> 31) & (TABLE_SIZE - 1)
        # 8 bytes of text and the field in one word: texts are at most 7 bytes, the top byte is
        # free.
        assert low < 1 << 56
        packed[place], result[place] = low | field << 56, value
    return multiplier, packed, result


KEY_MULTIPLIER, KEY_LOW, KEY_HIGH, KEY_FIELD = _key_tables()
VALUE_MULTIPLIER, VALUE_WORD, VALUE_RESULT = _value_tables()


@helper
def at(place):
    """An index that is known not to be negative: no test for Python's counting from the end, so
    copies become block moves.
    """
    return np.uint64(place)


@helper
def word_fold(low, high):
    """31 bits of both words; the same as _fold."""
    mixed = low ^ (low >> 29) ^ ((high & _LOW56) << 7) ^ (high >> 23)
    return (mixed ^ (mixed >> 31)) & _LOW31


@helper
def key_field(low, high):
    """F_* of a key in small letters; 0 for one the scanner leaves to the slow path."""
    place = ((word_fold(low, high) * KEY_MULTIPLIER) >> 31) & (TABLE_SIZE - 1)
    return (
        KEY_FIELD[at(place)]
        if KEY_LOW[at(place)] == low and KEY_HIGH[at(place)] == high
        else np.int64(0)
    )


@helper
def value_of(field, low):
    """Number of a listed value in small letters, at most 7 bytes; -1: not known."""
    place = ((word_fold(low, field * FIELD_SPREAD) * VALUE_MULTIPLIER) >> 31) & (TABLE_SIZE - 1)
    return VALUE_RESULT[at(place)] if VALUE_WORD[at(place)] == low | (field << 56) else np.int64(-1)
