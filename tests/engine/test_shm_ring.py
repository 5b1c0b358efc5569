"""Command rings, event rings and book tops: once, in order, whole, at every edge.

Faults S6 (capacity edges, positions that wrap) and S7 (full ring) of the reliability contract. What
two processes do to each other at once is in test_ring_processes.py and test_ring_model.py.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from engine import shm_ring
from engine.jit import JIT_DISABLED, kernel_signatures, subroutine, warm_up
from engine.records import BOOK_TOP, COMMAND, COMMAND_WORDS, EVENT_SLOT, EVENT_SLOT_WORDS, TOP_WORDS
from engine.shm_ring import (
    COMMITTED,
    CONSUMER_POSITION,
    CTRL_WORDS,
    EVENT_CTRL_WORDS,
    GATE,
    INTENT,
    PRODUCER_POSITION,
    READER_POSITION,
    READER_SLEEPS,
    BookTops,
    CommandRings,
    EventReader,
    EventRings,
    Producer,
    SegmentError,
    command_clear,
    command_publish,
    command_ready,
    command_slot,
    event_commit,
    event_intend,
    event_slot,
    position_add,
    position_diff,
    position_wrapped,
    ring_release,
    ring_room,
    ring_scan,
    top_write_begin,
    top_write_end,
)
from tests.engine.support import instance_name

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

NEAR_WRAP = 2**63 - 10
FIRST_POSITIONS = [0, 1, 7, NEAR_WRAP, 2**63 - 1, -(2**63), -3]
CAPACITIES = [2, 4, 8]


# ------------------------------------------------ the helpers, as the kernels that use them see
@subroutine
def write_event(ctrl, slot_words, shard, capacity, position):
    """Write one event whose every word is its out_seq, and commit it."""
    base = shard * EVENT_CTRL_WORDS
    event_intend(ctrl, base, position_add(position, 1))
    first = event_slot(shard, position, capacity) * EVENT_SLOT_WORDS
    for word in range(EVENT_SLOT_WORDS):
        slot_words[first + word] = position_add(position, 1)
    event_commit(ctrl, base, position_add(position, 1))


@subroutine
def intend(ctrl, base, exclusive_end):
    event_intend(ctrl, base, exclusive_end)


@subroutine
def take_command(ctrl, slot_words, ring, capacity, position):
    """Return the client_order_id of the command at `position`, or -1; gives its slot back."""
    slot = command_slot(ring, position, capacity)
    if not command_ready(slot_words, slot, position):
        return -1
    found = slot_words[slot * COMMAND_WORDS + 2]
    ring_release(ctrl, ring, position_add(position, 1))
    return found


@subroutine
def clear_and_publish(slot_words, slot, position):
    command_clear(slot_words, slot)
    command_publish(slot_words, slot, position)


@subroutine
def room(ctrl, ring, position, capacity, cached):
    return ring_room(ctrl, ring, position, capacity, cached)


@subroutine
def add_and_diff(position, count):
    later = position_add(position, count)
    return later, position_diff(later, position), position_diff(position, later)


@subroutine
def top_begin(words, place):
    top_write_begin(words, place)


@subroutine
def top_end(words, place):
    top_write_end(words, place)


@pytest.fixture
def instance() -> str:
    return instance_name()


@pytest.fixture
def rings(instance: str, request: pytest.FixtureRequest) -> Iterator[CommandRings]:
    """Two shards, three producers, capacity 4; a test may ask for another first position."""
    first = getattr(request, "param", 0)
    made = CommandRings.create(instance, 2, 3, 4, first)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def events(instance: str) -> Iterator[EventRings]:
    made = EventRings.create(instance, 2, 8)
    yield made
    made.close()
    made.unlink()


def commands(*ids: int) -> np.ndarray:
    records = np.zeros(len(ids), COMMAND)
    records["client_order_id"] = ids
    return records


def write(rings: EventRings, shard: int, positions: range) -> None:
    for position in positions:
        write_event(rings.ctrl, rings.slot_words, shard, rings.capacity, position)


# --------------------------------------------------------------------------------------- positions
@pytest.mark.parametrize("position", FIRST_POSITIONS)
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 65_536])
def test_positions_compare_by_difference_across_the_wrap(position: int, count: int) -> None:
    later, ahead, behind = add_and_diff(position, count)
    assert later == (position + count + 2**63) % 2**64 - 2**63
    assert (ahead, behind) == (count, -count)
    assert position_wrapped(position, count) == later


# ------------------------------------------------------------------------------------ command ring
def test_pushed_commands_are_ready_in_their_own_ring_and_in_order(rings: CommandRings) -> None:
    assert Producer(rings, 2, [-1, -1]).push(1, commands(5, 6, 7)) == 3
    ring = rings.ring(1, 2)
    assert ring == 5
    slots = rings.slots[ring * 4 : ring * 4 + 4]
    assert slots["producer_seq"].tolist() == [1, 2, 3, 0]
    assert slots["client_order_id"].tolist() == [5, 6, 7, 0]
    assert slots["producer"].tolist() == [2, 2, 2, 0]
    others = np.delete(rings.slots, range(ring * 4, ring * 4 + 4))
    assert not others.view(np.uint8).any()


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("first", FIRST_POSITIONS)
def test_what_goes_in_comes_out_once_in_order(instance: str, capacity: int, first: int) -> None:
    rings = CommandRings.create(instance, 1, 2, capacity, first)
    try:
        producer, ring, position = Producer(rings, 1, [-1]), rings.ring(0, 1), first
        assert producer.position == [first]
        sent: list[int] = []
        received: list[int] = []
        for turn in range(20):
            batch = [1000 * turn + i for i in range(turn % (capacity + 2))]
            sent += batch[: producer.push(0, commands(*batch))]
            for _ in range(turn % 3 + 1):
                found = take_command(rings.ctrl, rings.slot_words, ring, capacity, position)
                if found >= 0:
                    received.append(found)
                    position = position_wrapped(position, 1)
        assert len(received) > 12
        assert received == sent[: len(received)]
        assert len(sent) - len(received) <= capacity
        assert producer.position == [position_wrapped(first, len(sent))]
    finally:
        rings.close()
        rings.unlink()


@pytest.mark.parametrize("rings", [0, NEAR_WRAP], indirect=True)
def test_ring_full_returns_what_fitted_and_keeps_position(rings: CommandRings) -> None:
    producer = Producer(rings, 1, [-1, -1])
    first = producer.position[0]
    assert producer.push(0, commands(1, 2, 3, 4, 5, 6)) == 4
    kept = rings.slots.copy()
    assert producer.push(0, commands(7)) == 0
    assert producer.position[0] == position_wrapped(first, 4)
    assert np.array_equal(rings.slots, kept)
    ring = rings.ring(0, 1)
    assert take_command(rings.ctrl, rings.slot_words, ring, 4, first) == 1
    assert producer.push(0, commands(7, 8)) == 1
    assert rings.ctrl[ring * CTRL_WORDS + PRODUCER_POSITION] == position_wrapped(first, 5)


def test_no_command_is_no_push(rings: CommandRings) -> None:
    producer = Producer(rings, 1, [-1, -1])
    assert producer.push(0, commands()) == 0
    assert not rings.slot_words.any()


def test_records_need_not_be_contiguous(rings: CommandRings) -> None:
    assert Producer(rings, 1, [-1, -1]).push(0, commands(1, 2, 3, 4)[::2]) == 2
    ring = rings.ring(0, 1)
    assert rings.slots["client_order_id"][ring * 4 : ring * 4 + 2].tolist() == [1, 3]


def test_closed_gate_is_no_room_for_any_producer_of_the_shard_alone(rings: CommandRings) -> None:
    one, two = Producer(rings, 1, [-1, -1]), Producer(rings, 2, [-1, -1])
    rings.gate(0, closed=True)
    assert (one.push(0, commands(1)), two.push(0, commands(1))) == (0, 0)
    assert one.push(1, commands(1)) == 1
    rings.gate(0, closed=False)
    assert one.push(0, commands(1)) == 1


def test_room_reads_the_consumer_only_when_it_must(rings: CommandRings) -> None:
    ctrl = rings.ctrl
    ctrl[CONSUMER_POSITION] = 3
    assert room(ctrl, 0, 3, 4, 1) == (2, 1)  # enough known: the shared line is not read
    assert room(ctrl, 0, 4, 4, 0) == (3, 3)
    assert room(ctrl, 0, 7, 4, 3) == (0, 3)
    ctrl[GATE] = 1
    assert room(ctrl, 0, 3, 4, 1) == (0, 1)


def test_new_producer_goes_on_where_the_dead_one_stopped(rings: CommandRings) -> None:
    old, ring = Producer(rings, 1, [-1, -1]), rings.ring(0, 1)
    old.push(0, commands(1, 2, 3))
    take_command(rings.ctrl, rings.slot_words, ring, 4, 0)
    # The dead one was half way through position 3: payload there, readiness word not.
    rings.slots["client_order_id"][ring * 4 + 3] = 999
    rings.ctrl[ring * CTRL_WORDS + PRODUCER_POSITION] = 1  # stored once per batch: behind
    new = Producer(rings, 1, [-1, -1])
    assert new.position == [3, 0]
    assert new.push(0, commands(4, 5, 6)) == 2
    taken = [take_command(rings.ctrl, rings.slot_words, ring, 4, p) for p in range(1, 6)]
    assert taken == [2, 3, 4, 5, -1]


def test_new_producer_of_a_full_ring_finds_its_end(rings: CommandRings) -> None:
    Producer(rings, 1, [-1, -1]).push(0, commands(1, 2, 3, 4))
    assert ring_scan(rings.ctrl, rings.slot_words, rings.ring(0, 1), 4) == 4
    assert Producer(rings, 1, [-1, -1]).push(0, commands(5)) == 0


def test_new_producer_signals_every_shard_once(rings: CommandRings) -> None:
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
    Producer(rings, 1, fds)
    assert [os.eventfd_read(fd) for fd in fds] == [1, 1]
    for fd in fds:
        os.close(fd)


def test_cleared_slot_keeps_nothing_of_an_older_command(rings: CommandRings) -> None:
    words = rings.slot_words
    words[:] = -1
    clear_and_publish(words, 2, 6)
    assert words[2 * COMMAND_WORDS : 3 * COMMAND_WORDS].tolist() == [7] + [0] * 23
    assert set(np.delete(words, range(48, 72)).tolist()) == {-1}


def test_push_overwrites_the_whole_payload_of_a_used_slot(rings: CommandRings) -> None:
    rings.slot_words[:] = -1
    Producer(rings, 1, [-1, -1]).push(0, commands(5))
    slot = rings.slots[rings.ring(0, 1) * 4]
    expected = commands(5)
    expected["producer"], expected["producer_seq"] = 1, 1
    assert slot.tobytes() == expected.tobytes()


@pytest.mark.parametrize("capacity", [0, 1, 3, 6, -4])
def test_capacity_that_is_no_power_of_two_is_refused(instance: str, capacity: int) -> None:
    with pytest.raises(SegmentError, match="capacity must be a power of two"):
        CommandRings.create(instance, 1, 1, capacity)
    with pytest.raises(SegmentError, match="capacity must be a power of two"):
        EventRings.create(instance, 1, capacity)


def test_lines_of_different_writers_are_different_lines(rings: CommandRings) -> None:
    for array in (rings.ctrl, rings.shard_ctrl, rings.slots):
        assert array.ctypes.data % 64 == 0
    written_apart = [CONSUMER_POSITION, PRODUCER_POSITION, GATE, CTRL_WORDS]
    assert len({word // 8 for word in written_apart}) == 4
    assert len({word // 8 for word in (INTENT, COMMITTED, READER_SLEEPS, READER_POSITION)}) == 4


def test_attached_rings_are_the_same_memory(rings: CommandRings, instance: str) -> None:
    other = CommandRings.attach(os.dup(rings.fd))
    assert (other.shards, other.producers, other.capacity) == (2, 3, 4)
    Producer(other, 1, [-1, -1]).push(0, commands(8))
    assert rings.slots["client_order_id"][rings.ring(0, 1) * 4] == 8
    other.close()
    with pytest.raises(SegmentError, match="kind 'commands', expected 'events'"):
        EventRings.attach(rings.fd)


# -------------------------------------------------------------------------------------- event ring
def test_reader_gets_every_event_once_in_order(events: EventRings) -> None:
    reader, out = EventReader(events, 1, 3), np.zeros(3, EVENT_SLOT)
    write(events, 1, range(5))
    assert reader.pending()
    assert reader.poll(out)["out_seq"].tolist() == [1, 2, 3]
    assert reader.poll(out)["out_seq"].tolist() == [4, 5]
    assert reader.poll(out).size == 0
    assert not reader.pending()
    assert (reader.laps, reader.skipped, reader.cursor) == (0, 0, 5)


def test_readers_are_independent_and_show_their_position(events: EventRings) -> None:
    slow, fast = EventReader(events, 0, 0), EventReader(events, 0, 7)
    write(events, 0, range(4))
    out = np.zeros(8, EVENT_SLOT)
    assert fast.poll(out).size == 4
    assert slow.poll(out[:1])["out_seq"].tolist() == [1]
    shown = [int(events.ctrl[READER_POSITION + 8 * r]) for r in (0, 7)]
    assert shown == [1, 4]


def test_reader_sees_nothing_that_is_not_committed(events: EventRings) -> None:
    reader = EventReader(events, 0, 0)
    intend(events.ctrl, 0, 3)
    events.slots["out_seq"][:3] = [1, 2, 3]
    assert reader.poll(np.zeros(8, EVENT_SLOT)).size == 0


def test_full_ring_behind_is_no_lap(events: EventRings) -> None:
    reader = EventReader(events, 0, 0)
    write(events, 0, range(8))
    assert reader.poll(np.zeros(8, EVENT_SLOT))["out_seq"].tolist() == list(range(1, 9))
    assert reader.laps == 0


@pytest.mark.parametrize("first", [0, NEAR_WRAP, 2**63 - 1, -3])
@pytest.mark.parametrize("ahead", [9, 10, 16, 100])
def test_lapped_reader_counts_and_goes_on_at_the_newest(
    instance: str, first: int, ahead: int
) -> None:
    rings = EventRings.create(instance, 1, 8, first)
    try:
        reader, out = EventReader(rings, 0, 0), np.zeros(8, EVENT_SLOT)
        for count in range(ahead):
            position = position_wrapped(first, count)
            write_event(rings.ctrl, rings.slot_words, 0, 8, position)
        assert reader.poll(out).size == 0
        assert (reader.laps, reader.skipped) == (1, ahead)
        assert reader.cursor == position_wrapped(first, ahead)
        write_event(rings.ctrl, rings.slot_words, 0, 8, reader.cursor)
        assert reader.poll(out)["out_seq"].tolist() == [position_wrapped(first, ahead + 1)]
        assert (reader.laps, reader.skipped) == (1, ahead)
    finally:
        rings.close()
        rings.unlink()


def test_intent_alone_laps_a_reader_of_the_slots_it_names(events: EventRings) -> None:
    # The writer is about to overwrite position 0 (with 8): what a reader at 0 copies may be torn,
    # what one at 1 copies is not.
    write(events, 0, range(8))
    intend(events.ctrl, 0, 9)
    out = np.zeros(8, EVENT_SLOT)
    at_zero, at_one = EventReader(events, 0, 0, cursor=0), EventReader(events, 0, 1, cursor=1)
    assert at_one.poll(out).size == 7
    assert at_zero.poll(out).size == 0
    assert (at_zero.laps, at_zero.skipped, at_zero.cursor) == (1, 8, 8)


def test_intent_only_goes_up(events: EventRings) -> None:
    intend(events.ctrl, 0, 5)
    intend(events.ctrl, 0, 3)
    assert events.ctrl[INTENT] == 5
    events.ctrl[INTENT] = 2**63 - 1
    intend(events.ctrl, 0, -(2**63))
    assert events.ctrl[INTENT] == -(2**63)


def test_new_writer_keeps_both_words_and_readers_notice_nothing(
    events: EventRings, instance: str
) -> None:
    reader, out = EventReader(events, 0, 0), np.zeros(8, EVENT_SLOT)
    write(events, 0, range(2))
    intend(events.ctrl, 0, 4)  # died while it wrote position 2
    events.slots["out_seq"][2] = -99
    successor = EventRings.open(instance)
    write(successor, 0, range(successor.committed(0), 5))
    successor.close()
    assert reader.poll(out)["out_seq"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("index", [-1, 8])
def test_reader_index_out_of_range_is_refused(events: EventRings, index: int) -> None:
    with pytest.raises(SegmentError, match=r"is not 0 \.\. 7"):
        EventReader(events, 0, index)


# --------------------------------------------------------------------------------------- book tops
@pytest.fixture
def tops(instance: str) -> Iterator[BookTops]:
    made = BookTops.create(instance, 1, 4)
    yield made
    made.close()
    made.unlink()


def test_top_is_read_as_written_with_an_even_version(tops: BookTops) -> None:
    top_begin(tops.words, 2)
    tops.records["last_px"][2] = 77
    tops.records["asks"][2][-1] = 5
    top_end(tops.words, 2)
    found = tops.read(2)
    assert found is not None
    assert (found["version"][0], found["last_px"][0], found["asks"][0][-1]) == (2, 77, 5)
    assert tops.records["version"].tolist() == [0, 0, 2, 0]


def test_top_in_flux_is_not_read(tops: BookTops) -> None:
    top_begin(tops.words, 0)
    assert tops.read(0) is None
    assert tops.read(1) is not None


def test_writer_after_a_dead_one_leaves_the_version_even_and_new(tops: BookTops) -> None:
    top_begin(tops.words, 0)  # died here
    top_begin(tops.words, 0)
    assert tops.read(0) is None
    top_end(tops.words, 0)
    found = tops.read(0)
    assert found is not None
    assert found["version"][0] == 2


def test_top_words_are_the_record(tops: BookTops) -> None:
    assert tops.words.size == 4 * TOP_WORDS == 4 * BOOK_TOP.itemsize // 8


# ---------------------------------------------------------------------------------------- compiling
def test_every_kernel_has_one_signature_after_use(rings: CommandRings, events: EventRings) -> None:
    if JIT_DISABLED:
        assert kernel_signatures() == {}
        return
    before = kernel_signatures()  # tests that ran in this process may have passed other types
    warm_up()
    Producer(rings, np.int64(1), [-1, -1]).push(0, commands(1))
    EventReader(events, 0, 0).poll(np.zeros(2, EVENT_SLOT))
    shared = ("segment", "ring_words", "command_ring", "event_ring", "book_top", "counters")
    mine = {k: n for k, n in kernel_signatures().items() if k.split(".")[1] in shared}
    assert {k: n for k, n in mine.items() if n > max(before[k], 1)} == {}
    assert min(mine.values()) >= 1


def test_the_face_exports_what_it_names() -> None:
    assert all(hasattr(shm_ring, name) for name in shm_ring.__all__)
    assert sorted(shm_ring.__all__) == sorted(set(shm_ring.__all__))
