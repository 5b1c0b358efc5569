"""MoldUDP64: names, packets, and what the receiver makes of repeated, lost and broken ones."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from feed.moldudp64 import (
    END_OF_SESSION,
    EPOCHS,
    MoldReceiver,
    control_datagram,
    datagram,
    epoch_of_day,
    session_name,
)

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

NOON = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()) * 10**9
SESSION = session_name(NOON, 0, 7)
LATER = session_name(NOON, 0, 8)


def numbered(first: int, count: int, session: bytes = SESSION) -> bytes:
    """A packet whose messages say their own number."""
    return datagram(session, first, [str(n).encode() for n in range(first, first + count)])


def numbers(found: list[tuple[int, bytes]]) -> list[int]:
    """Check that every message says its number, and return the numbers."""
    assert all(str(sequence).encode() == body for sequence, body in found)
    return [sequence for sequence, _ in found]


def test_session_name_is_date_shard_and_epoch() -> None:
    assert session_name(NOON, 0, 0) == b"2606010000"
    assert session_name(NOON, 35, 36 * 36 + 1) == b"260601Z101"
    assert session_name(NOON, 1, EPOCHS + 5) == session_name(NOON, 1, 5)
    with pytest.raises(ValueError, match="shard 36"):
        session_name(NOON, 36, 0)


def test_epoch_of_day_grows_through_the_day_and_fits_its_three_characters() -> None:
    day = NOON - 12 * 3600 * 10**9
    epochs = [epoch_of_day(day + s * 10**9) for s in range(0, 86_400, 2)]
    assert all(a < b for a, b in pairwise(epochs))
    assert epochs[0] == 0
    assert epoch_of_day(day + 86_399 * 10**9) == EPOCHS - 1


def test_packet_has_the_layout_of_the_specification() -> None:
    packet = datagram(b"SESSION001", 0x0102030405060708, [b"ab", b"c"])
    assert packet == b"SESSION001\x01\x02\x03\x04\x05\x06\x07\x08\x00\x02\x00\x02ab\x00\x01c"
    assert control_datagram(b"SESSION001", 9)[-2:] == b"\x00\x00"
    assert control_datagram(b"SESSION001", 9, END_OF_SESSION)[-2:] == b"\xff\xff"


def test_messages_in_order_are_delivered_once_each() -> None:
    receiver = MoldReceiver()
    assert receiver.session == b""
    assert numbers(receiver.receive_one(numbered(1, 3))) == [1, 2, 3]
    assert numbers(receiver.receive_one(numbered(4, 1))) == [4]
    assert (receiver.session, receiver.next_sequence, receiver.joined_at) == (SESSION, 5, 1)
    stats = receiver.stats()
    assert (stats["messages"], stats["datagrams"], stats["gaps"]) == (4, 2, 0)


def test_gap_is_counted_with_its_size_and_not_waited_for() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 2))
    assert numbers(receiver.receive_one(numbered(10, 2))) == [10, 11]
    assert receiver.stats()["gaps"] == 1
    assert receiver.stats()["missing"] == 7


def test_gap_at_the_end_shows_at_the_next_heartbeat() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 2))
    assert receiver.receive_one(control_datagram(SESSION, 3)) == []
    assert receiver.stats()["gaps"] == 0
    receiver.receive_one(control_datagram(SESSION, 6))
    assert receiver.stats()["missing"] == 3
    assert receiver.next_sequence == 6


def test_duplicates_and_overlaps_deliver_only_what_is_new() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 4))
    assert receiver.receive_one(numbered(1, 4)) == []
    assert numbers(receiver.receive_one(numbered(3, 4))) == [5, 6]
    assert receiver.stats()["duplicates"] == 6
    assert receiver.stats()["gaps"] == 0


def test_reordered_packet_is_a_gap_and_then_a_duplicate() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 1))
    assert numbers(receiver.receive_one(numbered(3, 1))) == [3]
    assert receiver.receive_one(numbered(2, 1)) == []
    assert (receiver.stats()["gaps"], receiver.stats()["duplicates"]) == (1, 1)


def test_late_joiner_begins_where_it_hears_something_without_a_gap() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(control_datagram(SESSION, 5_000))
    assert numbers(receiver.receive_one(numbered(5_000, 2))) == [5_000, 5_001]
    assert (receiver.joined_at, receiver.stats()["gaps"]) == (5_000, 0)


def test_end_of_session_is_noticed_and_undone_by_more_messages() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 1))
    receiver.receive_one(control_datagram(SESSION, 2, END_OF_SESSION))
    assert receiver.ended
    receiver.receive_one(numbered(2, 1))
    assert not receiver.ended


def test_later_session_replaces_the_current_one_and_numbers_from_one() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 5))
    assert numbers(receiver.receive_one(numbered(1, 2, LATER))) == [1, 2]
    assert (receiver.session, receiver.sessions, receiver.stats()["gaps"]) == (LATER, 2, 0)
    tomorrow = session_name(NOON + 86_400 * 10**9, 0, 0)
    receiver.receive_one(numbered(3, 1, tomorrow))
    assert (receiver.session, receiver.stats()["missing"]) == (tomorrow, 2)


@pytest.mark.parametrize(
    ("session", "counter"),
    [
        (session_name(NOON, 0, 6), "stale"),
        (session_name(NOON - 86_400 * 10**9, 0, 500), "stale"),
        (session_name(NOON, 1, 8), "foreign"),
        (b"ABCDEF0008", "malformed"),
        (b"260601000a", "malformed"),
        (b"\xff" * 10, "malformed"),
    ],
)
def test_other_session_is_dropped_and_counted(session: bytes, counter: str) -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 1))
    assert receiver.receive_one(numbered(1, 3, session)) == []
    assert receiver.stats()[counter] == 1
    assert (receiver.session, receiver.next_sequence) == (SESSION, 2)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"short",
        numbered(1, 2)[:-1],
        numbered(1, 2)[:19],
        numbered(1, 2) + b"x",
        SESSION + (0).to_bytes(8, "big") + b"\0\0",  # numbers begin at 1
        SESSION + (2**63).to_bytes(8, "big") + b"\0\0",
        SESSION + (1).to_bytes(8, "big") + b"\xff\xfe",
        SESSION + (1).to_bytes(8, "big") + b"\0\1\xff\xff" + bytes(100),
        control_datagram(SESSION, 1, END_OF_SESSION) + b"\0\0",
        bytes(3_000),
    ],
)
def test_malformed_packet_is_dropped_whole(packet: bytes) -> None:
    receiver = MoldReceiver()
    assert receiver.receive_one(packet) == []
    assert receiver.stats()["malformed"] == 1
    assert receiver.sessions == 0


def test_number_absurdly_far_ahead_is_malformed_and_does_not_silence_the_channel() -> None:
    receiver = MoldReceiver()
    receiver.receive_one(numbered(1, 1))
    assert receiver.receive_one(numbered(2**40, 1)) == []
    assert receiver.stats()["malformed"] == 1
    assert numbers(receiver.receive_one(numbered(2, 1))) == [2]


def batch(packets: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Lay packets one after another, with their bounds."""
    ends = np.cumsum([len(p) for p in packets])
    bounds = np.array([(e - len(p), len(p)) for e, p in zip(ends, packets, strict=True)], np.int64)
    return np.frombuffer(b"".join(packets), np.uint8).copy(), bounds


def test_batch_stops_before_a_new_session_so_that_books_can_be_reset() -> None:
    receiver = MoldReceiver()
    packets, bounds = batch([numbered(1, 2), numbered(3, 1), numbered(1, 1, LATER)])
    taken, blocks = receiver.receive(packets, bounds)
    assert (taken, blocks[:, 0].tolist(), receiver.session) == (2, [1, 2, 3], SESSION)
    taken, blocks = receiver.receive(packets, bounds, taken)
    assert (taken, blocks[:, 0].tolist(), receiver.session) == (1, [1], LATER)
    assert receiver.stats()["datagrams"] == 3


def test_batch_stops_before_its_table_is_full() -> None:
    receiver = MoldReceiver(datagram_bytes_max=64, messages_max=64)
    packets, bounds = batch([datagram(SESSION, 1 + 22 * n, [b""] * 22) for n in range(9)])
    at, seen = 0, 0
    while at < 9:
        taken, blocks = receiver.receive(packets, bounds, at)
        assert taken > 0
        at, seen = at + taken, seen + len(blocks)
    assert seen == 22 * 9
    assert receiver.stats()["gaps"] == 0


def mutated(rng: random.Random, packet: bytes) -> bytes:
    """A packet cut, stretched, or with some bytes changed."""
    data = bytearray(packet)
    for _ in range(rng.randrange(1, 4)):
        choice = rng.random()
        if choice < 0.4 and data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        elif choice < 0.7:
            del data[rng.randrange(len(data) + 1) :]
        else:
            at = rng.randrange(len(data) + 1)
            data[at:at] = rng.randbytes(rng.randrange(40))
    return bytes(data)


def test_random_and_mutated_packets_never_raise_and_are_all_accounted_for(seed: int) -> None:
    rng, receiver = random.Random(seed), MoldReceiver()
    receiver.receive_one(numbered(1, 1))
    sent, last = 1, 1
    for _ in range(2_000):
        good = numbered(rng.randrange(1, 50), rng.randrange(5), rng.choice((SESSION, LATER)))
        packet = rng.choice((mutated(rng, good), rng.randbytes(rng.randrange(200))))
        session = receiver.session
        for sequence, _ in receiver.receive_one(packet):
            assert sequence > last or receiver.session != session
            last = sequence
        if receiver.session != session:
            last = receiver.next_sequence - 1
        sent += 1
    stats = receiver.stats()
    assert stats["datagrams"] == sent
    assert stats["malformed"] > 500
    dropped = stats["malformed"] + stats["foreign"] + stats["stale"]
    assert dropped + stats["heartbeats"] <= sent
