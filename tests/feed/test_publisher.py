"""The publisher on real loopback multicast: numbering, packing, heartbeats, laps, directory."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engine.counters import Counters, State
from engine.records import BOOK_TOP, EVENT, EventKind, Phase, pack_name
from engine.shm_ring import EVENT_CTRL_WORDS, READER_SLEEPS, load_word
from feed.directory import Directory
from feed.itch import MESSAGES
from feed.moldudp64 import END_OF_SESSION, MOLD_HEADER, session_name
from feed.multicast import MulticastReceiver
from feed.publisher import FEED_COUNTERS, FeedParts, FeedPublisher, serve_feed
from tests.feed.flow import START_NS, Flow, RingWriter, open_feed, publish_all

SECOND = 10**9
Feed = tuple[RingWriter, FeedParts]


@pytest.fixture
def feed() -> Iterator[Feed]:
    yield from open_feed()


class Ear:
    """Everything one channel sends, as (sequence, count, messages)."""

    def __init__(self, parts: FeedParts, shard: int = 0, port: int = 0) -> None:
        network = parts.config.network
        port = port or network.feed_port + shard
        self.socket = MulticastReceiver(network.feed_group, port, network.feed_interface)

    def raw(self) -> list[bytes]:
        """Return the datagrams since the last call."""
        found: list[bytes] = []
        while count := self.socket.receive():
            found += [bytes(self.socket.datagram(i)) for i in range(count)]
        return found

    def packets(self) -> list[tuple[bytes, int, int, list[bytes]]]:
        """Return the packets since the last call, taken apart."""
        return [take_apart(data) for data in self.raw()]

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def take_apart(data: bytes) -> tuple[bytes, int, int, list[bytes]]:
    """Return (session, sequence, count, messages) of a packet."""
    session, sequence, count = MOLD_HEADER.unpack_from(data)
    messages, at = [], MOLD_HEADER.size
    while at < len(data):
        (length,) = struct.unpack_from("!H", data, at)
        messages.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return session, sequence, count, messages


def listed(name: str = "AAPL", locate: int = 1, tick: int = 10**7, first: int = 1) -> np.ndarray:
    """LISTED and PHASE, numbered from `first`."""
    events = np.zeros(2, EVENT)
    events["kind"] = [EventKind.LISTED, EventKind.PHASE]
    events["symbol_id"], events["feed_seq"] = locate, [first, first + 1]
    events["amount"][0], events["amount2"][0], events["px2"][0] = tick, 10**9, 1_000_000
    events["text"][0, : len(name)] = list(name.encode())
    events["code"][1] = Phase.CONTINUOUS
    events["in_ts"] = START_NS
    return events


def booked(first: int, count: int, locate: int = 1) -> np.ndarray:
    """Orders resting, numbered from `first`."""
    events = np.zeros(count, EVENT)
    events["kind"], events["symbol_id"] = EventKind.BOOKED, locate
    events["feed_seq"] = events["public_ref"] = np.arange(first, first + count)
    events["px"], events["qty"], events["in_ts"] = 1_000, 5, START_NS
    events["shown"] = events["qty"]
    return events


def test_flow_arrives_complete_in_order_and_in_full_datagrams(feed: Feed, seed: int) -> None:
    writer, parts = feed
    flow = Flow(seed)
    events = np.concatenate([flow.exchange.startup_events, flow.run(800)])
    with Ear(parts) as ear:
        publisher = FeedPublisher(parts)
        ear.raw()
        writer.write(events)
        sent = publish_all(publisher)
        packets = ear.packets()
        publisher.close()
    public = events[events["feed_seq"] > 0]
    expected = 1
    sizes = []
    for session, sequence, count, messages in packets:
        assert (session, sequence, count) == (session_name(START_NS, 0, 7), expected, len(messages))
        expected += count
        sizes.append(20 + sum(2 + len(m) for m in messages))
    assert expected == len(public) + 1
    assert max(sizes) <= parts.config.network.datagram_bytes_max
    full = parts.config.network.datagram_bytes_max - 52
    assert sum(size < full for size in sizes) <= 1 + len(events) // 1024
    assert sent == len(packets)


def test_private_events_take_no_number_and_send_nothing(feed: Feed) -> None:
    writer, parts = feed
    private = np.zeros(10, EVENT)
    private["kind"] = EventKind.ACCEPTED
    with Ear(parts) as ear:
        publisher = FeedPublisher(parts)
        publisher.step(0)
        ear.raw()
        writer.write(private)
        assert publish_all(publisher) == 0
        writer.write(np.concatenate([listed(), private, booked(3, 1)]))
        publish_all(publisher)
        assert [p[1:3] for p in ear.packets()] == [(1, 3)]
        publisher.close()


def test_heartbeat_comes_at_once_and_then_each_second_of_silence(feed: Feed) -> None:
    writer, parts = feed
    with Ear(parts) as ear:
        publisher = FeedPublisher(parts)
        for now in (0, SECOND // 2, SECOND, SECOND + 1, 2 * SECOND):
            publisher.step(now)
        assert [p[1:3] for p in ear.packets()] == [(1, 0)] * 3
        writer.write(listed())
        publisher.step(2 * SECOND + SECOND // 2)
        publisher.step(3 * SECOND)  # half a second after a message: silence was not long enough
        publisher.step(3 * SECOND + SECOND // 2)
        assert [p[1:3] for p in ear.packets()] == [(1, 2), (3, 0)]
        publisher.close()


def test_lap_is_counted_and_shows_as_a_gap_at_the_next_heartbeat() -> None:
    for writer, parts in open_feed(capacity=256):
        with Ear(parts) as ear:
            publisher = FeedPublisher(parts)
            writer.write(listed())
            publish_all(publisher)
            ear.raw()
            writer.write(booked(3, 1_000))
            publisher.step(0)
            publisher.step(SECOND)
            assert publisher.channels[0].reader.laps == 1
            assert [p[1:3] for p in ear.packets()] == [(1_003, 0)]
            writer.write(booked(1_003, 1))
            publish_all(publisher)
            assert [p[1:3] for p in ear.packets()] == [(1_003, 1)]
            publisher.report(0)
            assert publisher.counts["laps"] == 1
            assert publisher.counts["skipped_events"] == 1_000
            publisher.close()


def test_jump_of_the_numbers_begins_a_new_datagram(feed: Feed) -> None:
    writer, parts = feed
    with Ear(parts) as ear:
        publisher = FeedPublisher(parts)
        publisher.step(0)
        ear.raw()
        writer.write(np.concatenate([listed(), booked(3, 2), booked(90, 2)]))
        publish_all(publisher)
        publisher.report(0)
        assert [p[1:3] for p in ear.packets()] == [(1, 4), (90, 2)]
        assert publisher.counts["gaps"] == 1
        publisher.close()


def test_restarted_publisher_goes_on_where_the_last_one_stopped(feed: Feed) -> None:
    writer, parts = feed
    with Ear(parts) as ear:
        first = FeedPublisher(parts)
        writer.write(np.concatenate([listed(), booked(3, 3)]))
        publish_all(first)
        first.close()
        ear.raw()
        writer.write(booked(6, 4))
        parts.tops = one_top()
        second = FeedPublisher(parts)
        assert second.channels[0].control()[10:18] == (6).to_bytes(8, "big")
        publish_all(second)
        (packet,) = ear.packets()
        assert packet[1:3] == (6, 4)
        assert {m[:1] for m in packet[3]} == {b"A"}
        assert np.frombuffer(packet[3][0], MESSAGES["A"])["stock"][0] == b"AAPL    "
        second.close()


def one_top(locate: int = 1, tick: int = 10**7) -> np.ndarray:
    """Shared tops with one instrument."""
    tops = np.zeros(8, BOOK_TOP)
    tops["symbol"][locate], tops["symbol_id"][locate] = pack_name("AAPL"), locate
    tops["tick"][locate], tops["lot"][locate], tops["px_max"][locate] = tick, 10**9, 1_000_000
    return tops


def test_unknown_instrument_is_left_out_and_counted_until_the_tops_name_it(feed: Feed) -> None:
    writer, parts = feed
    parts.tops = np.zeros(8, BOOK_TOP)
    with Ear(parts) as ear:
        publisher = FeedPublisher(parts)
        publisher.step(0)
        ear.raw()
        writer.write(booked(1, 2))
        publish_all(publisher)
        publisher.report(0)
        assert publisher.counts["unknown_instrument"] == 2
        assert ear.packets() == []
        parts.tops[:] = one_top()
        writer.write(booked(3, 1))
        publish_all(publisher)  # still unknown, but now looked up
        writer.write(booked(4, 1))
        publish_all(publisher)
        assert [p[1:3] for p in ear.packets()] == [(4, 1)]
        publisher.close()


def test_each_shard_has_its_channel_session_and_numbers() -> None:
    for writer, parts in open_feed(shards=2):
        with Ear(parts, 0) as left, Ear(parts, 1) as right:
            publisher = FeedPublisher(parts)
            writer.write(listed(), shard=0)
            writer.write(np.concatenate([listed("MSFT", (1 << 16) + 1), booked(3, 1)]), shard=1)
            publish_all(publisher)
            (one,), (two,) = left.packets(), right.packets()
            assert (one[0], one[1], one[2]) == (session_name(START_NS, 0, 7), 1, 2)
            assert (two[0], two[1], two[2]) == (session_name(START_NS, 1, 7), 1, 3)
            publisher.close()


def test_directory_says_tick_lot_and_price_meaning_of_every_instrument(feed: Feed) -> None:
    writer, parts = feed
    parts.tops = one_top(3)
    with Ear(parts, port=parts.config.network.directory_port) as ear:
        publisher = FeedPublisher(parts)
        publisher.step(0)
        writer.write(listed("TINY", 4, tick=12_345))
        publisher.step(1)
        directory = Directory()
        for data in ear.raw():
            directory.receive(data)
        assert (directory.received, directory.malformed) == (2, 0)
        aapl, tiny = directory.by_symbol["AAPL"], directory.by_symbol["TINY"]
        assert (aapl.locate, aapl.shard, aapl.decimal4, aapl.px_max) == (3, 0, True, 1_000_000)
        assert (aapl.price_text(1_234_500), aapl.ticks(1_234_500)) == ("123.45", 12_345)
        assert (tiny.decimal4, tiny.tick, tiny.price_text(3)) == (False, 12_345, "0.000037035")
        for now in range(0, 3 * SECOND, SECOND // 4):
            publisher.step(now)
        assert 4 <= len(ear.raw()) <= 6  # two instruments, about once a second each
        publisher.close()


def test_refused_datagrams_are_counted_and_do_not_stop_the_publisher(feed: Feed) -> None:
    writer, parts = feed
    publisher = FeedPublisher(parts)
    publisher.channels[0].socket.close()  # every send now fails with EBADF
    writer.write(np.concatenate([listed(), booked(3, 100)]))
    publish_all(publisher)
    assert publisher.counts["send_failed"] > 2
    publisher.close()


class FullBuffer:
    """A socket whose send buffer is full for the first `refusals` sends."""

    def __init__(self, refusals: int, below: socket.socket) -> None:
        self.refusals, self.below = refusals, below

    def send(self, data: bytes) -> int:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError
        return self.below.send(data)

    def fileno(self) -> int:
        return self.below.fileno()

    def close(self) -> None:
        self.below.close()


@pytest.mark.parametrize(("refusals", "lost"), [(1, 0), (2, 1)])
def test_full_send_buffer_is_waited_for_once_and_then_counted(
    feed: Feed, refusals: int, lost: int
) -> None:
    writer, parts = feed
    publisher = FeedPublisher(parts)
    channel = publisher.channels[0]
    channel.socket = FullBuffer(refusals, channel.socket)  # type: ignore[assignment]
    writer.write(listed())
    publish_all(publisher)
    assert publisher.counts["send_failed"] == lost
    assert publisher.counts["datagrams"] == 1 - lost
    publisher.close()


def test_serve_drains_ends_the_session_and_reports_in_its_counters(feed: Feed) -> None:
    writer, parts = feed
    counters = Counters.create(f"feedcount{os.getpid()}", {"feed": FEED_COUNTERS})
    counters.unlink()
    parts.counters = counters.block("feed")
    parts.reader_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stop, codes = threading.Event(), []
    with Ear(parts) as ear:
        thread = threading.Thread(target=lambda: codes.append(serve_feed(parts, stop)))
        thread.start()
        sleeps = READER_SLEEPS + parts.reader_index
        for _ in range(2_000):
            if load_word(parts.event_rings.ctrl, 0 * EVENT_CTRL_WORDS + sleeps) == 1:
                break
            thread.join(0.005)
        else:
            pytest.fail("the idle publisher never announced that it sleeps")
        writer.write(np.concatenate([listed(), booked(3, 5)]))
        os.eventfd_write(parts.reader_fd, 1)
        stop.set()
        thread.join(10)
        packets = ear.packets()
    assert codes == [0]
    assert [p[1:3] for p in packets] == [(1, 0), (1, 7), *[(8, END_OF_SESSION)] * 3]
    assert parts.counters.get("state") == State.STOPPED
    assert parts.counters.get("messages") == 7
    assert parts.counters.get("heartbeat_ns") > 0
    os.close(parts.reader_fd)
    parts.counters = None
    counters.close()
