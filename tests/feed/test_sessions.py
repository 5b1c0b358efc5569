"""Feed sessions that change inside the stream, publishers that die, and laps that the log makes
good: a number of a session never means two different things, and listeners see no gap.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engine.records import EVENT, EventKind
from engine.shm_ring import load_word
from feed.channel import LOG_WAIT_NS, session_word
from feed.listener import FeedListener
from feed.moldudp64 import END_OF_SESSION, session_of_date
from feed.publisher import FeedParts, FeedPublisher
from tests.feed.flow import START_NS, RingWriter, open_feed, publish_all
from tests.feed.test_publisher import Ear, booked, listed, one_top

SECOND = 10**9
DAY_ONE, DAY_TWO = 20260528, 20260529
FIRST = session_of_date(DAY_ONE, 0, 7)


class Log:
    """What the publisher asks of an event log, kept in memory."""

    def __init__(self) -> None:
        self.events = np.zeros(0, EVENT)
        self.first = 1
        self.limit: int | None = None
        self.broken = False
        self.waits = 0

    def end(self) -> int:
        written = int(self.events["out_seq"][-1]) if len(self.events) else 0
        return written if self.limit is None else min(written, self.limit)

    def read(self, after_out_seq: int, count: int) -> np.ndarray:
        if self.broken:
            raise OSError(5, "Input/output error")
        if after_out_seq + 1 < self.first:
            raise LookupError(f"event {after_out_seq + 1}")
        return self.events[after_out_seq : self.end()][:count]

    def wait(self, shard: int, count: int) -> None:
        self.waits += count


class Stream:
    """A shard's events as a shard would number them, in the ring and in a log."""

    def __init__(self, writer: RingWriter, parts: FeedParts) -> None:
        self.writer, self.parts, self.log = writer, parts, Log()
        parts.date, parts.epoch, parts.started_ns = DAY_ONE, 7, START_NS
        parts.tops = one_top()
        self.number = 1

    def with_log(self) -> Stream:
        """Give the publisher the log."""
        self.parts.logs, self.parts.log_wait = [self.log], self.log.wait
        self.parts.log_end = lambda shard: self.log.end()
        return self

    def write(self, *parts: np.ndarray) -> None:
        events = np.concatenate(parts)
        first = self.writer.position[0] + 1
        events["out_seq"] = np.arange(first, first + len(events))
        self.log.events = np.concatenate([self.log.events, events])
        self.writer.write(events)

    def opened(self, date: int, epoch: int) -> np.ndarray:
        """FEED_STATE "O": the numbers begin again."""
        event = np.zeros(1, EVENT)
        event["kind"], event["code"] = EventKind.SESSION, ord("O")
        event["amount"], event["amount2"], event["feed_seq"] = date, epoch, 1
        event["in_ts"] = START_NS
        self.number = 2
        return event

    def public(self, events: np.ndarray) -> np.ndarray:
        """Number events that are public."""
        events["feed_seq"] = np.arange(self.number, self.number + len(events))
        self.number += len(events)
        return events

    def image(self, date: int, epoch: int, orders: int) -> np.ndarray:
        """A new session and the books it begins with."""
        head = self.opened(date, epoch)
        return np.concatenate([head, self.public(listed()), self.public(booked(1, orders))])

    def orders(self, first: int, count: int) -> np.ndarray:
        """New orders with references from `first` on."""
        events = booked(first, count)
        return self.public(events)


@pytest.fixture
def stream() -> Iterator[Stream]:
    for writer, parts in open_feed(capacity=1 << 11):
        yield Stream(writer, parts)


def heard(ear: Ear) -> list[tuple[bytes, int, int]]:
    return [packet[:3] for packet in ear.packets()]


# ------------------------------------------------------------------------------- the change itself
def test_p5_session_event_ends_the_old_session_and_begins_the_one_it_names(stream: Stream) -> None:
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        publisher.step(0)
        stream.write(stream.public(listed()), stream.orders(100, 2), stream.image(DAY_TWO, 8, 3),
                     stream.orders(200, 1))  # fmt: skip
        publish_all(publisher)
        second = session_of_date(DAY_TWO, 0, 8)
        assert heard(ear) == [
            (FIRST, 1, 0), (FIRST, 1, 4), *[(FIRST, 5, END_OF_SESSION)] * 3, (second, 1, 7),
        ]  # fmt: skip
        publisher.step(2 * SECOND)
        assert heard(ear) == [(second, 8, 0)]
        publisher.report(0)
        assert (publisher.counts["sessions"], publisher.counts["gaps"]) == (1, 0)
        publisher.close()


def test_session_named_as_the_present_one_is_no_change(stream: Stream) -> None:
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        publisher.step(0)
        stream.write(stream.image(DAY_ONE, 7, 2))
        publish_all(publisher)
        assert heard(ear) == [(FIRST, 1, 0), (FIRST, 1, 5)]
        assert publisher.counts["sessions"] == 0
        publisher.close()


def test_p5_numbers_of_the_last_run_are_not_sent_under_the_name_of_the_next_session(
    stream: Stream,
) -> None:
    """Mode sync: the publisher starts while the "O" of its run waits for the disk."""
    stream.parts.event_rings.begin(0, 0)
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        publisher.step(0)
        stream.number = 14
        stream.write(stream.orders(100, 2))
        publish_all(publisher)
        stream.write(stream.orders(102, 1), stream.image(DAY_ONE, 7, 2), stream.orders(200, 1))
        publish_all(publisher)
        assert heard(ear) == [(FIRST, 1, 0), (FIRST, 1, 6)]
        publisher.close()


def test_session_of_which_nothing_was_said_is_not_ended(stream: Stream) -> None:
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        stream.write(stream.image(DAY_TWO, 8, 2), stream.image(DAY_TWO, 9, 2))
        publish_all(publisher)
        eight, nine = (session_of_date(DAY_TWO, 0, epoch) for epoch in (8, 9))
        assert heard(ear) == [(eight, 1, 5), *[(eight, 6, END_OF_SESSION)] * 3, (nine, 1, 5)]
        publisher.close()


def test_p5_listener_restarts_its_book_from_the_image(stream: Stream) -> None:
    publisher = FeedPublisher(stream.parts)
    listener = FeedListener.of_shard(stream.parts.config.network, 0)
    try:
        stream.write(stream.image(DAY_ONE, 7, 40))
        publish_all(publisher)
        listener.poll()
        assert listener.book.orders_resting == 40
        stream.write(stream.orders(100, 5), stream.image(DAY_TWO, 8, 3), stream.orders(200, 2))
        publish_all(publisher)
        listener.poll()
        assert listener.book.valid, listener.book.why_invalid
        refs = [row[0] for row in listener.book.orders("AAPL", 0).tolist()]
        assert refs == [1, 2, 3, 200, 201]
        assert listener.stats()["missing"] == 0
        assert listener.receiver.session == session_of_date(DAY_TWO, 0, 8)
    finally:
        listener.close()
        publisher.close()


def test_orders_of_an_image_without_an_owner_are_ordinary_messages(stream: Stream) -> None:
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        image = stream.image(DAY_ONE, 7, 2)
        assert not image["account"].any()
        stream.write(image)
        publish_all(publisher)
        ((_, _, _, messages),) = ear.packets()
        assert [message[:1] for message in messages] == [b"S", b"R", b"H", b"A", b"A"]
        publisher.close()


# ------------------------------------------------------------------------------- successors
class Dies(Exception):
    """The process is gone."""


class Mortal:
    """A socket of a publisher that is killed before its n-th datagram."""

    def __init__(self, below: object, left: int) -> None:
        self.below, self.left = below, left

    def send(self, data: bytes) -> int:
        if self.left == 0:
            raise Dies
        self.left -= 1
        return self.below.send(data)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self.below.close()  # type: ignore[attr-defined]


def kill_while(publisher: FeedPublisher, datagrams: int) -> None:
    """Publish until the process is killed, or has nothing left to do."""
    channel = publisher.channels[0]
    channel.socket = Mortal(channel.socket, datagrams)  # type: ignore[assignment]
    try:
        publish_all(publisher)
    except Dies:
        return
    finally:
        publisher.close()


def meanings(ear: Ear) -> dict[tuple[bytes, int], bytes]:
    """What each number of each session was sent as; it must have been the same every time."""
    found: dict[tuple[bytes, int], bytes] = {}
    for session, sequence, count, messages in ear.packets():
        if count not in (0, END_OF_SESSION):
            for index, message in enumerate(messages):
                key = session, sequence + index
                assert found.setdefault(key, message) == message, key
    return found


@pytest.mark.parametrize("seed", range(5))
def test_p5_number_never_means_two_things_whenever_the_publisher_dies(
    stream: Stream, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feed.publisher.POLL_EVENTS", 16)
    rng, epoch, ref = random.Random(seed), 7, 1000
    stream.write(stream.image(DAY_ONE, epoch, 4))
    sent = {(FIRST, 1 + n) for n in range(7)}
    with Ear(stream.parts) as ear:
        for _ in range(25):
            for _ in range(rng.randrange(3)):
                if rng.random() < 0.3:
                    epoch += 1
                    stream.write(stream.image(DAY_ONE, epoch, 3))
                    sent |= {(session_of_date(DAY_ONE, 0, epoch), n) for n in range(1, 7)}
                count = rng.randrange(1, 60)
                first, name = stream.number, session_of_date(DAY_ONE, 0, epoch)
                stream.write(stream.orders(ref, count))
                sent |= {(name, n) for n in range(first, first + count)}
                ref += count
            kill_while(FeedPublisher(stream.parts), rng.choice((0, 1, 2, 3, 5, 8, 1000)))
        last = FeedPublisher(stream.parts)
        publish_all(last)
        last.close()
        assert set(meanings(ear)) == sent


def test_p5_successor_tells_number_and_session_at_once(stream: Stream) -> None:
    first = FeedPublisher(stream.parts)
    stream.write(stream.image(DAY_TWO, 8, 2))
    publish_all(first)
    first.close()
    with Ear(stream.parts) as ear:
        second = FeedPublisher(stream.parts)  # its parts still say DAY_ONE
        second.step(0)
        assert heard(ear) == [(session_of_date(DAY_TWO, 0, 8), 6, 0)]
        second.close()


def test_first_publisher_begins_with_the_newest_session_of_the_ring(stream: Stream) -> None:
    stream.write(stream.public(listed()), stream.orders(100, 50), stream.image(DAY_TWO, 8, 2))
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        publish_all(publisher)
        assert heard(ear) == [(session_of_date(DAY_TWO, 0, 8), 1, 5)]
        publisher.close()


def test_first_publisher_that_finds_no_beginning_takes_the_name_it_is_given(
    stream: Stream,
) -> None:
    stream.parts.date, stream.parts.epoch = (lambda shard: DAY_TWO), (lambda shard: 9 + shard)
    stream.write(stream.public(listed()), *(stream.orders(n * 1000, 1000) for n in range(1, 4)))
    with Ear(stream.parts) as ear:
        publisher = FeedPublisher(stream.parts)
        publisher.step(0)
        assert heard(ear) == [(session_of_date(DAY_TWO, 0, 9), 3003, 0)]
        publisher.close()


# ------------------------------------------------------------------------------- laps
def test_n6_lapped_publisher_reads_the_log_and_listeners_see_no_gap(stream: Stream) -> None:
    publisher = FeedPublisher(stream.with_log().parts)
    listener = FeedListener.of_shard(stream.parts.config.network, 0)
    try:
        stream.write(stream.image(DAY_ONE, 7, 4))
        publish_all(publisher)
        listener.poll()
        for number in range(8):
            stream.write(stream.orders(1000 * (number + 1), 1000))
        while publisher.step(0):
            listener.poll()
        listener.poll()
        assert listener.book.valid, listener.book.why_invalid
        assert listener.book.orders_resting == 8004
        publisher.report(0)
        counts = publisher.counts
        assert (counts["laps"], counts["skipped_events"], counts["gaps"]) == (1, 0, 0)
    finally:
        listener.close()
        publisher.close()


def test_n6_session_that_changed_during_the_lap_changes_in_its_place(stream: Stream) -> None:
    publisher = FeedPublisher(stream.with_log().parts)
    stream.write(stream.image(DAY_ONE, 7, 2))
    publish_all(publisher)
    stream.write(stream.orders(1000, 1000))
    stream.write(stream.image(DAY_TWO, 8, 3))
    for number in range(3):
        stream.write(stream.orders(10_000 * (number + 1), 1000))
    with Ear(stream.parts) as ear:
        publish_all(publisher)
        found = meanings(ear)
    second = session_of_date(DAY_TWO, 0, 8)
    assert {n for name, n in found if name == FIRST} == set(range(6, 1006))
    assert {n for name, n in found if name == second} == set(range(1, 3007))
    publisher.close()


def test_n6_log_is_waited_for_while_heartbeats_go_on(stream: Stream) -> None:
    publisher = FeedPublisher(stream.with_log().parts)
    stream.write(stream.image(DAY_ONE, 7, 2))
    publish_all(publisher, 1)
    stream.log.limit = stream.log.end()
    for number in range(4):
        stream.write(stream.orders(1000 * (number + 1), 1000))
    with Ear(stream.parts) as ear:
        for now in range(1, 4):
            publisher.step(now * SECOND)
        assert heard(ear) == [(FIRST, 6, 0)] * 2
        assert (stream.log.waits, publisher.idle) == (1, True)
        stream.log.limit = None
        publish_all(publisher, 4 * SECOND)
        assert set(meanings(ear)) == {(FIRST, n) for n in range(6, 4006)}
    assert stream.log.waits == 0
    publisher.close()


def gone(log: Log) -> None:
    log.first = log.end() - 10


def broken(log: Log) -> None:
    log.broken = True


def stands_still(log: Log) -> None:
    log.limit = 0


@pytest.mark.parametrize("trouble", [gone, broken, stands_still])
@pytest.mark.parametrize("changed", [False, True])
def test_n6_log_that_cannot_help_leaves_a_gap_under_the_right_name(
    stream: Stream, trouble: Callable[[Log], None], changed: bool
) -> None:
    epochs = [7]
    stream.parts.date = DAY_ONE
    stream.with_log().parts.epoch = lambda shard: epochs[0]
    publisher = FeedPublisher(stream.parts)
    stream.write(stream.image(DAY_ONE, 7, 2))
    publish_all(publisher, 1)
    stream.write(stream.orders(1000, 1000))
    if changed:
        epochs[0] = 8
        stream.write(stream.image(DAY_ONE, 8, 2))
    for number in range(4):
        stream.write(stream.orders(10_000 * (number + 1), 1000))
    trouble(stream.log)
    name = session_of_date(DAY_ONE, 0, epochs[0])
    with Ear(stream.parts) as ear:
        publisher.step(1)
        publisher.step(1 + LOG_WAIT_NS + 1)
        publisher.step(1 + 2 * LOG_WAIT_NS)
        assert heard(ear)[-1] == (name, stream.number, 0)
        stream.write(stream.orders(90_000, 1))
        publish_all(publisher, 3 * LOG_WAIT_NS)
        assert heard(ear)[-1] == (name, stream.number - 1, 1)
        publisher.report(0)
        assert publisher.counts["skipped_events"] > 4000
    assert stream.log.waits == 0
    publisher.close()


def test_n6_publisher_that_was_down_for_a_lap_reads_the_log(stream: Stream) -> None:
    first = FeedPublisher(stream.with_log().parts)
    stream.write(stream.image(DAY_ONE, 7, 2))
    publish_all(first)
    first.close()
    for number in range(5):
        stream.write(stream.orders(1000 * (number + 1), 1000))
    with Ear(stream.parts) as ear:
        second = FeedPublisher(stream.parts)
        publish_all(second)
        assert set(meanings(ear)) == {(FIRST, n) for n in range(6, 5006)}
        second.close()


def test_what_is_remembered_stands_whole_in_the_line_of_the_reader(stream: Stream) -> None:
    publisher = FeedPublisher(stream.parts)
    stream.write(stream.image(DAY_TWO, 8, 2))
    publish_all(publisher)
    line = 32 + 8 * stream.parts.reader_index
    ctrl = stream.parts.event_rings.ctrl
    version = int(load_word(ctrl, line + 1))
    at = line + 2 + 3 * (version & 1)
    assert [int(load_word(ctrl, at + n)) for n in range(3)] == [session_word(DAY_TWO, 8), 5, 6]
    publisher.close()
