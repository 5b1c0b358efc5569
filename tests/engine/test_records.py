"""The record layouts, byte by byte, and the catalogue of kinds and codes, number by number.

A layout that changes must change the examples here: they are what an old journal, another language
or another process would have to read.
"""

import re
from enum import IntEnum
from typing import Any

import numpy as np
import pytest

from engine import records
from engine.records import (
    BOOK_TOP,
    CACHE_LINE,
    COMMAND,
    EVENT,
    EVENT_FIELD_USE,
    EVENT_SLOT,
    LAYOUT_FINGERPRINT,
    RECEIPT,
    TOP_LEVELS,
    CommandKind,
    EventKind,
    OrderType,
    RejectCode,
    Side,
    TimeInForce,
    layout_fingerprint,
    layout_holes,
    pack_name,
    unpack_name,
)

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

TEXT = b"client-order-0000000000000000000001\0"

COMMAND_VALUES = {
    "producer_seq": 1234605616436508552,
    "receipt_ts": 81234567890123,
    "client_order_id": 42,
    "order_id": 117440521,
    "session": 33,
    "logon": 4000000001,
    "account": 55,
    "symbol_id": 65538,
    "px": 585333,
    "qty": 100,
    "kind": 1,
    "producer": 2,
    "side": 3,
    "order_type": 4,
    "tif": 5,
    "stp": 6,
    "flags": 257,
    "target_client_order_id": -2,
    "symbol": 1280328001,
    "px2": 585400,
    "qty2": 11,
    "peak": 12,
    "min_qty": 13,
    "amount": 10000000,
    "expire_ts": 1340280000000000000,
    "in_seq": 91997,
    "tag": 3735928559,
    "decision_code": 401,
    "layout_version": 9,
    "in_ts": 1340271000000000001,
    "decision_amount": 4611686018427387903,
    "crc": 3405705229,
    "epoch": 17,
    "durable_lag": 18,
}
COMMAND_BYTES = (
    "8877665544332211cb0490e5e14900002a000000000000000900000700000000"
    "2100000001286bee370000000200010075ee0800640000000102030405060101"
    "feffffffffffffff4141504c00000000b8ee08000b0000000c0000000d000000"
    "809698000000000000808f138fa199125d67010000000000efbeadde91010900"
    "01f0c1995f999912ffffffffffffff3f0df0feca1100000012000000636c6965"
    "6e742d6f726465722d3030303030303030303030303030303030303030303100"
)
EVENT_VALUES = {
    "out_seq": 123456,
    "in_seq": 91997,
    "account_seq": 77,
    "feed_seq": 1001,
    "order_id": 117440521,
    "client_order_id": 42,
    "px": 585333,
    "qty": 100,
    "kind": 7,
    "side": 1,
    "order_type": 2,
    "tif": 3,
    "role": 4,
    "reason": 16,
    "flags": 513,
    "in_ts": 1340271000000000001,
    "trade_id": 4067,
    "public_ref": 555,
    "old_ref": 554,
    "leaves": 50,
    "cum": 150,
    "shown": 49,
    "shown_before": 148,
    "account": 55,
    "session": 33,
    "symbol_id": 65538,
    "code": 904,
    "stp": 5,
    "producer": 6,
    "amount": -3,
    "amount2": 10000000,
    "px2": 585400,
    "crc": 3405705229,
    "epoch": 17,
}
EVENT_BYTES = (
    "40e20100000000005d670100000000004d00000000000000e903000000000000"
    "09000007000000002a0000000000000075ee0800640000000701020304100102"
    "01f0c1995f999912e30f0000000000002b020000000000002a02000000000000"
    "3200000096000000310000009400000037000000210000000200010088030506"
    "fdffffffffffffff8096980000000000b8ee08000df0feca11000000636c6965"
    "6e742d6f726465722d3030303030303030303030303030303030303030303100"
)
RECEIPT_VALUES = {
    "gateway_in": 1,
    "shard_in": 8589934592,
    "shard_out": 1099511627781,
    "producer_seq": 1234605616436508552,
}
RECEIPT_BYTES = (
    "0100000000000000000000000200000005000000000100008877665544332211"
    "0000000000000000000000000000000000000000000000000000000000000000"
)
TOP_VALUES = {
    "version": 6,
    "symbol": 23719022747145282,
    "symbol_id": 65538,
    "out_seq": 123456,
    "in_ts": 1340271000000000001,
    "tick": 10000000,
    "lot": 10000,
    "px_max": 2147483647,
    "phase": 3,
    "last_px": 585333,
    "last_qty": 100,
    "trade_count": 4067,
    "volume": 1099511627776,
}
TOP_BYTES = (  # the first two lines; then the bids, then the asks
    "06000000000000004254435553445400020001000000000040e2010000000000"
    "01f0c1995f99991280969800000000001027000000000000ffffff7f00000000"
    "030000000000000075ee0800000000006400000000000000e30f000000000000"
    "0000000000010000000000000000000000000000000000000000000000000000"
)
GOLDEN_FINGERPRINT = 8643166821450842089

# EVENTS.md, copied: kinds in the order of its first table, codes of its second.
EVENT_CATALOGUE = """
    ACCEPTED REJECTED REPLACED CANCELED EXPIRED BOOKED FILL REFRESHED PREVENTED TRIGGERED ACTIVATED
    PARKED REPRICED REDUCED MMP_FIRED PHASE INDICATIVE CROSSED BAND LISTED SESSION SETTLED BALANCE
    POSITION BUSTED ACCOUNT SUMMARY STATUS CONTINUED
"""
CODE_CATALOGUE = """
    101 MALFORMED 102 BAD_FIELD 103 OUT_OF_RANGE 104 BAD_COMBINATION 105 BAD_CLIENT_ID
    201 NOT_LOGGED_ON 202 NOT_AUTHORISED 203 DUPLICATE 204 ID_TABLE_FULL 205 ACCOUNT_BLOCKED
    206 THROTTLED 301 UNKNOWN_SYMBOL 302 LISTING_REFUSED 303 NOT_IN_PHASE 304 NOT_SUPPORTED_HERE
    305 NO_SUCH_AUCTION 306 OFF_TICK 307 OFF_LOT 308 STATIC_BAND 309 NO_BAND 310 ICEBERG_PARTS
    311 CAP_REQUIRED 312 EXPIRY_PAST 313 IMMUTABLE 314 TOO_MANY 315 QUOTE_CROSSED
    401 INSUFFICIENT_FUNDS 402 INSUFFICIENT_MARGIN 403 MAX_QTY 404 MAX_NOTIONAL 405 MAX_OPEN_ORDERS
    406 MAX_POSITION 407 NOT_REDUCING 408 MMP_ACTIVE 409 DEBT 501 UNKNOWN_ORDER 502 WOULD_TRADE
    503 NO_LIQUIDITY 504 FOK_UNFILLED 505 BUDGET 506 TRIGGER_TRUE 901 BUSY 902 ORDERS_FULL
    903 LEVELS_FULL 904 WALK_TOO_LONG 905 UNAVAILABLE
"""
LAYOUT_NAMES = ("COMMAND", "EVENT", "RECEIPT", "EVENT_SLOT", "BOOK_TOP")


def made(layout: np.dtype, values: dict[str, int]) -> np.ndarray:
    record = np.zeros(1, layout)
    for name, value in values.items():
        record[name] = value
    if "text" in layout.names:
        record["text"][0] = list(TEXT)
    return record


def read(layout: np.dtype, raw: bytes) -> dict[str, int]:
    record = np.frombuffer(raw, layout)[0]
    return {
        name: int(record[name]) for name in layout.names if layout.fields[name][0].subdtype is None
    }


# ------------------------------------------------------------------------------------ golden bytes
@pytest.mark.parametrize(
    ("layout", "values", "golden"),
    [
        (COMMAND, COMMAND_VALUES, COMMAND_BYTES),
        (EVENT, EVENT_VALUES, EVENT_BYTES),
        (RECEIPT, RECEIPT_VALUES, RECEIPT_BYTES),
    ],
    ids=["COMMAND", "EVENT", "RECEIPT"],
)
def test_record_has_exactly_these_bytes(
    layout: np.dtype, values: dict[str, int], golden: str
) -> None:
    assert made(layout, values).tobytes().hex() == golden
    assert read(layout, bytes.fromhex(golden)) == values
    # Every field has a value of its own, none is zero: no field could have moved unseen.
    assert len(set(values.values()) - {0}) == len(values)


def test_event_slot_is_the_event_and_then_its_receipt() -> None:
    raw = bytes.fromhex(EVENT_BYTES + RECEIPT_BYTES)
    slot = np.frombuffer(raw, EVENT_SLOT)[0]
    assert {name: int(slot[name]) for name in EVENT_VALUES} == EVENT_VALUES
    assert {n: int(slot[f"receipt_{n}"]) for n in RECEIPT_VALUES} == RECEIPT_VALUES


def test_book_top_is_two_lines_then_bids_then_asks() -> None:
    record = made(BOOK_TOP, TOP_VALUES)
    assert record.tobytes()[:128].hex() == TOP_BYTES
    record["bids"][0] = range(1, 61)
    record["asks"][0] = range(101, 161)
    words = record.view(np.int64)
    assert words[16:76].tolist() == list(range(1, 61))
    assert words[76:136].tolist() == list(range(101, 161))
    assert words.size == 136 == 16 + TOP_LEVELS * 3 * 2


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_layout_is_little_endian_aligned_flat_and_without_holes(name: str) -> None:
    layout = getattr(records, name)
    assert layout_holes(layout) == []
    assert layout.isalignedstruct
    assert layout.itemsize % CACHE_LINE == 0
    for field in layout.names:
        kind, offset = layout.fields[field][:2]
        base = kind.subdtype[0] if kind.subdtype else kind
        assert base.names is None
        assert base.str[0] in "<|"
        assert offset % base.itemsize == 0


def test_layout_holes_are_seen() -> None:
    holed = np.dtype([("a", "u1"), ("b", "<i8")], align=True)
    tailed = np.dtype([("a", "<i8"), ("b", "u1")], align=True)
    assert layout_holes(holed) == ["b"]
    assert layout_holes(tailed) == ["<tail>"]


def test_first_line_of_a_command_holds_all_a_plain_order_needs() -> None:
    needed = "producer_seq client_order_id session logon account symbol_id px qty kind side".split()
    needed += ["order_type", "tif", "flags", "receipt_ts", "producer"]
    assert all(COMMAND.fields[name][1] < CACHE_LINE for name in needed)


# ------------------------------------------------------------------------------------- fingerprint
def test_fingerprint_is_the_one_these_bytes_belong_to() -> None:
    assert LAYOUT_FINGERPRINT == layout_fingerprint() == GOLDEN_FINGERPRINT


def changed(layout: np.dtype, index: int, **parts: Any) -> np.dtype:
    entries = [list(entry) for entry in layout.descr]
    if "name" in parts:
        entries[index][0] = parts["name"]
    if "kind" in parts:
        entries[index][1] = parts["kind"]
    if "swap" in parts:
        other = parts["swap"]
        entries[index], entries[other] = entries[other], entries[index]
    return np.dtype([tuple(entry) for entry in entries])


@pytest.mark.parametrize("name", LAYOUT_NAMES)
@pytest.mark.parametrize(
    "change", [{"name": "renamed"}, {"kind": "<u8"}, {"swap": 1}], ids=["name", "type", "order"]
)
def test_fingerprint_changes_with_any_layout(
    monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any]
) -> None:
    other = changed(records.LAYOUTS[name], 0, **change)
    monkeypatch.setitem(records.LAYOUTS, name, other)
    assert layout_fingerprint() != LAYOUT_FINGERPRINT


@pytest.mark.parametrize("index", range(len(records.ENUMS)))
def test_fingerprint_changes_with_any_enum(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    old = records.ENUMS[index]
    members = [(member.name, int(member)) for member in old]
    grown = IntEnum(old.__name__, [*members, ("EXTRA", 200)])  # type: ignore[misc]
    renumbered = IntEnum(old.__name__, [(n, v + 1) for n, v in members])  # type: ignore[misc]
    for other in (grown, renumbered):
        enums = (*records.ENUMS[:index], other, *records.ENUMS[index + 1 :])
        monkeypatch.setattr(records, "ENUMS", enums)
        assert layout_fingerprint() != LAYOUT_FINGERPRINT


# --------------------------------------------------------------------------------------- catalogues
def test_event_kinds_are_the_catalogue_numbered_in_its_order() -> None:
    names = EVENT_CATALOGUE.split()
    assert [(k.name, int(k)) for k in EventKind] == [(n, i + 1) for i, n in enumerate(names)]


def test_reject_codes_are_the_catalogue() -> None:
    pairs = re.findall(r"(\d+) (\w+)", CODE_CATALOGUE)
    catalogue = {name: int(number) for number, name in pairs}
    assert len(catalogue) == len(pairs) == 46
    # Refusals of a resuming logon: RULES §10 asks for three, the catalogue does not number them.
    resume = {"RESUME_TOO_OLD": 207, "RESUME_AHEAD": 208, "WRONG_INCARNATION": 209}
    assert {c.name: int(c) for c in RejectCode} == {"NONE": 0, **catalogue, **resume}
    assert list(RejectCode) == sorted(RejectCode)


def test_reject_codes_are_banded_by_stage() -> None:
    assert {int(code) // 100 for code in RejectCode} == {0, 1, 2, 3, 4, 5, 9}


@pytest.mark.parametrize("enum", records.ENUMS)
def test_no_number_of_an_enum_is_used_twice(enum: type[IntEnum]) -> None:
    assert len(enum.__members__) == len({int(m) for m in enum.__members__.values()})


def test_numbers_that_code_and_wire_rely_on() -> None:
    assert (Side.BUY, Side.SELL) == (0, 1)
    assert (OrderType.LIMIT, OrderType.MARKET) == (1, 2)
    assert (TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK) == (0, 1, 2)
    clients = {k for k in CommandKind if k < 16}
    assert clients == {
        CommandKind.NEW,
        CommandKind.CANCEL,
        CommandKind.REPLACE,
        CommandKind.MASS_CANCEL,
        CommandKind.QUOTE,
        CommandKind.QUERY_ORDER,
        CommandKind.QUERY_OPEN_ORDERS,
        CommandKind.SESSION_OPEN,
        CommandKind.SESSION_CLOSE,
        CommandKind.SESSION_KEEP,
    }


def test_field_use_names_real_kinds_and_fields() -> None:
    assert set(EVENT_FIELD_USE) <= set(EventKind.__members__)
    for fields in EVENT_FIELD_USE.values():
        assert set(fields) <= set(EVENT.names)


# -------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize("name", ["A", "AAPL", "BTCUSDT", "ABCDEFGH", "!", "~", "a.b-c/d"])
def test_name_survives_packing(name: str) -> None:
    assert unpack_name(pack_name(name)) == name
    assert np.uint64(pack_name(name)).tobytes() == name.encode().ljust(8, b"\0")


@pytest.mark.parametrize("name", ["", "ABCDEFGHI", "A B", "A\0", "Ä", "A\n", "\x7f", " A"])
def test_name_that_cannot_be_carried_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 8 printable ASCII"):
        pack_name(name)
