"""ITCH layouts and the conversion of events, against a second implementation and an outsider's."""

from __future__ import annotations

import random

import numpy as np
import pytest
from itch.messages import messages as outside_types

from engine.config import ITCH_PRICE_MAX, Instrument
from engine.records import EVENT_SLOT, Algorithm, EventFlag, EventKind, Phase, Role
from feed.itch import (
    INSTRUMENT,
    LENGTH_BY_TYPE,
    MESSAGES,
    event_to_message,
    instrument_table,
    pack_stock,
    unpack_stock,
)
from tests.feed.flow import WITH_FULL, Flow, slots_of
from tests.feed.itch_reference import Reference

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

PUBLIC_KINDS = (
    *(EventKind.LISTED, EventKind.PHASE, EventKind.SESSION, EventKind.BOOKED, EventKind.FILL),
    *(EventKind.CANCELED, EventKind.REPLACED, EventKind.EXPIRED, EventKind.ACCEPTED),
    *(EventKind.REFRESHED, EventKind.PREVENTED, EventKind.CROSSED, EventKind.INDICATIVE),
    *(EventKind.REPRICED, EventKind.PARKED),
)


def convert(slots: np.ndarray, index: int, table: np.ndarray) -> bytes:
    """Return the kernel's message of one event."""
    buffer = np.zeros(64, np.uint8)
    return buffer[: int(event_to_message(slots, index, table, buffer))].tobytes()


def random_slots(rng: random.Random, count: int) -> np.ndarray:
    """Events whose every field is random within what a field may hold."""
    slots = np.zeros(count, EVENT_SLOT)
    for row in slots:
        row["kind"] = rng.choice(PUBLIC_KINDS)
        for name in ("order_id", "client_order_id", "trade_id", "public_ref", "old_ref"):
            row[name] = rng.choice((0, 1, rng.randrange(2**62)))
        for name in ("px", "qty", "leaves", "shown", "shown_before"):
            row[name] = rng.choice((0, 1, 2**31 - 1, rng.randrange(2**31)))
        row["shown"] = min(row["shown"], row["shown_before"])
        row["in_ts"] = rng.randrange(2**61)
        row["symbol_id"] = rng.randrange(4) << 16 | rng.randrange(1, 5)
        row["side"], row["role"] = rng.randrange(2), rng.choice(list(Role))
        row["flags"] = rng.choice((0, EventFlag.KEPT, EventFlag.LEFT_BOOK, 4 | 8, 512, 1, 16, 48))
        row["code"] = rng.choice([*Phase, ord("O"), ord("C")])
        row["order_type"] = rng.randrange(7)  # of PHASE: the algorithm
        row["amount"] = rng.choice((1, 10**4, 10**5, 10**7, 10**9, 123, rng.randrange(1, 2**40)))
        row["px2"] = rng.choice((1_000, 2**31 - 1, rng.randrange(1_000, 2**31)))
        text = rng.choice((b"A", b"AAPL", b"EIGHTCHR"))
        row["text"][: len(text)] = list(text)
        row["px"] = min(int(row["px"]), 1_000)  # never above any highest price
    return slots


def test_layouts_have_the_lengths_an_outside_parser_expects() -> None:
    for letter, layout in MESSAGES.items():
        assert layout.itemsize == outside_types[letter.encode()].message_size, letter
    assert LENGTH_BY_TYPE[ord("A")] == 36
    assert LENGTH_BY_TYPE[ord("z")] == 0


def test_kernel_and_reference_agree_on_random_events(seed: int) -> None:
    rng = random.Random(seed)
    slots, table, reference = random_slots(rng, 3_000), instrument_table(), Reference()
    for index in range(len(slots)):
        expected = reference.convert(slots[index])
        assert convert(slots, index, table) == (expected or b""), slots[index]


def test_order_flow_has_a_message_exactly_where_feed_seq_says(seed: int) -> None:
    flow, reference, table = Flow(seed, WITH_FULL), Reference(), instrument_table()
    events = np.concatenate([flow.exchange.startup_events, flow.run(1_500)])
    slots = slots_of(events)
    letters = set()
    for index, event in enumerate(events):
        message = convert(slots, index, table)
        assert message == (reference.convert(event) or b"")
        assert bool(message) == (event["feed_seq"] > 0), event
        letters.add(message[:1])
    numbers = events["feed_seq"][events["feed_seq"] > 0]
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert letters == {b"", *(bytes([c]) for c in b"RHAECXDUPQI")}


def test_messages_never_carry_account_client_id_order_id_or_session() -> None:
    marks = {
        "order_id": 0x1122334455667788,
        "client_order_id": 0x2233445566778899,
        "account": 0x3344556B,
        "session": 0x4455667C,
    }
    slots = np.zeros(1, EVENT_SLOT)
    table = instrument_table()
    for kind in PUBLIC_KINDS:
        slots[:] = np.zeros(1, EVENT_SLOT)
        slots["kind"], slots["symbol_id"], slots["role"] = kind, 1, Role.MAKER
        slots["public_ref"], slots["qty"], slots["px"] = 5, 6, 7
        slots["flags"], slots["text"][0, :4] = EventFlag.KEPT, list(b"AAPL")
        slots["shown_before"] = 3
        for name, value in marks.items():
            slots[name] = value
        message = convert(slots, 0, table)
        for name, value in marks.items():
            width = EVENT_SLOT.fields[name][0].itemsize  # type: ignore[index]
            for order in ("big", "little"):
                assert value.to_bytes(width, order) not in message, (kind, name)


@pytest.mark.parametrize(
    ("instrument", "px", "expected"),
    [
        (Instrument("A", "0.01"), 12_345, 1_234_500),
        (Instrument("A", "0.0001"), 12_345, 12_345),
        (Instrument("A", "0.00001"), 12_345, 12_345),  # ticks: four decimals cannot carry it
        (Instrument("A", "0.00015"), 2, 2),  # ticks: not a multiple of 0.0001
        (Instrument("A", "1"), 429_496, 4_294_960_000),
        (Instrument("A", "1", max_price="429496"), 1, 10_000),
        (Instrument("A", "1", max_price="429497"), 429_496, 429_496),  # ticks: 32 bits overflow
    ],
)
def test_price_is_exact_in_four_decimals_or_in_ticks(
    instrument: Instrument, px: int, expected: int
) -> None:
    slots, table = np.zeros(2, EVENT_SLOT), instrument_table()
    slots["symbol_id"] = 1
    slots["kind"] = [EventKind.LISTED, EventKind.BOOKED]
    slots["amount"][0], slots["px2"][0] = instrument.tick_units, instrument.px_max
    slots["text"][0, 0] = ord("A")
    slots["px"][1], slots["public_ref"][1], slots["shown"][1] = px, 1, 1
    assert convert(slots, 0, table)[:1] == b"R"
    message = np.frombuffer(convert(slots, 1, table), MESSAGES["A"])[0]
    assert int(message["price"]) == expected
    unit = 10**5 if table[1]["decimal4"] else instrument.tick_units
    assert int(message["price"]) * unit == px * instrument.tick_units
    assert instrument.px_max * int(table[1]["scale"]) <= ITCH_PRICE_MAX or not table[1]["decimal4"]


def test_batch_modes_are_told_as_calls() -> None:
    slots, table = np.zeros(1, EVENT_SLOT), instrument_table()
    slots["kind"], slots["symbol_id"] = EventKind.PHASE, 1
    told = {}
    for phase in (Phase.CONTINUOUS, Phase.CLOSED, Phase.VOLATILITY_CALL):
        for algorithm in Algorithm:
            slots["code"], slots["order_type"] = phase, algorithm
            message = np.frombuffer(convert(slots, 0, table), MESSAGES["H"])[0]
            told.setdefault(phase, []).append(bytes(message["trading_state"]))
    assert told[Phase.CONTINUOUS] == [b"T"] * 5 + [b"Q"] * 2
    assert told[Phase.CLOSED] == [b"H"] * 7
    assert told[Phase.VOLATILITY_CALL] == [b"P"] * 7


def test_stock_is_left_justified_and_padded_with_spaces() -> None:
    for name in ("A", "AAPL", "EIGHTCHR"):
        assert unpack_stock(pack_stock(name)) == name
        row = np.zeros(1, INSTRUMENT)
        row["stock"] = pack_stock(name)
        assert row["stock"].tobytes() == name.encode().ljust(8)


def test_timestamp_is_nanoseconds_since_utc_midnight() -> None:
    slots, table = np.zeros(1, EVENT_SLOT), instrument_table()
    slots["kind"], slots["code"] = EventKind.SESSION, ord("O")
    slots["in_ts"] = 1_780_012_799 * 10**9 + 999_999_999  # 2026-05-28 23:59:59.999999999 UTC
    message = np.frombuffer(convert(slots, 0, table), MESSAGES["S"])[0]
    time_ns = int(message["time_high"]) << 32 | int(message["time_low"])
    assert time_ns == 86_400 * 10**9 - 1
    assert (int(message["locate"]), bytes(message["event_code"])) == (0, b"O")
