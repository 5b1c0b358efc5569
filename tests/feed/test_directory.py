"""The directory channel: exact decimals, round trip, and anything else dropped."""

from __future__ import annotations

import random

import orjson
import pytest

from engine.config import UNITS
from feed.directory import Directory, DirectoryEntry, decimal_text, decode_entry

ENTRY = DirectoryEntry("2606010001", 1, 7, "BTCUSDT", 10**7, 10**4, True, 42_949_672)


@pytest.mark.parametrize(
    ("units", "text"),
    [(UNITS, "1"), (1, "0.000000001"), (10**7, "0.01"), (123 * UNITS + 5 * 10**8, "123.5")],
)
def test_decimals_are_exact_and_without_trailing_zeros(units: int, text: str) -> None:
    assert decimal_text(units) == text
    assert decimal_text(-units) == f"-{text}"


def test_entry_survives_the_wire() -> None:
    assert decode_entry(ENTRY.encode()) == ENTRY
    assert len(ENTRY.encode()) < 300


def test_price_and_quantity_texts_follow_the_meaning_the_entry_states() -> None:
    assert (ENTRY.price_text(1_234_500), ENTRY.ticks(1_234_500)) == ("123.45", 12_345)
    assert ENTRY.qty_text(150_000) == "1.5"
    ticks = DirectoryEntry("s", 0, 1, "SHIB", 1, UNITS, False, 2**31 - 1)
    assert (ticks.price_text(1_234_500), ticks.ticks(1_234_500)) == ("0.0012345", 1_234_500)


IMPOSSIBLE = {
    "type": ["other", None],
    "price": ["float", None],
    "tick": [0.01, "0", "1e3", "-1", "0.0000000001", "9" * 40],
    "lot": ["", "-"],
    "shard": [-1, True, 36],
    "locate": [65_536, "7"],
    "symbol": ["", 5],
    "px_max": [2.5, -1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in IMPOSSIBLE.items() for value in values]
)
def test_entry_with_a_field_that_cannot_be_is_dropped(name: str, value: object) -> None:
    fields = orjson.loads(ENTRY.encode())
    fields[name] = value
    assert decode_entry(orjson.dumps(fields)) is None
    del fields[name]
    assert decode_entry(orjson.dumps(fields)) is None


def test_random_and_mutated_datagrams_never_raise_and_are_counted(seed: int) -> None:
    rng, directory = random.Random(seed), Directory()
    for number in range(1, 3_001):
        data = bytearray(rng.choice((ENTRY.encode(), b"[]", b"null", rng.randbytes(30))))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        directory.receive(bytes(data[: rng.choice((len(data), rng.randrange(len(data) + 1)))]))
        assert directory.received == number
    assert 1_000 < directory.malformed < 3_000
    assert directory.receive(ENTRY.encode() + b" " * 1_400) is None
