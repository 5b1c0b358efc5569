"""The listener: books equal to the engine's, gaps and contradictions noticed, nothing raised."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from engine.jit import JIT_DISABLED
from engine.records import EVENT, EventKind, Phase, Role
from feed.itch import event_to_message, instrument_table
from feed.itch_book import ItchBook
from feed.listener import FeedListener
from feed.moldudp64 import END_OF_SESSION, control_datagram, datagram, session_name
from feed.multicast import PLACE_BYTES
from feed.publisher import FeedParts, FeedPublisher
from tests.feed.flow import (
    START_NS,
    Flow,
    RingWriter,
    config,
    open_feed,
    publish_all,
    slots_of,
)
from tests.feed.itch_reference import Reference

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

SESSION = session_name(START_NS, 0, 1)
LATER = session_name(START_NS, 0, 2)


@pytest.fixture
def feed() -> Iterator[tuple[RingWriter, FeedParts]]:
    yield from open_feed()


@pytest.fixture
def quiet() -> Iterator[FeedListener]:
    """A listener on a channel where nobody sends: tests feed it by `hear`."""
    network = config().network
    listener = FeedListener(network.feed_group, network.feed_port, network.feed_interface)
    yield listener
    listener.close()


def hear(listener: FeedListener, *packets: bytes) -> int:
    """Feed datagrams to a listener as its socket would."""
    places = np.zeros(len(packets) * PLACE_BYTES, np.uint8)
    bounds = np.zeros((len(packets), 2), np.int64)
    for index, packet in enumerate(packets):
        at, data = index * PLACE_BYTES, packet[:PLACE_BYTES]
        places[at : at + len(data)] = np.frombuffer(data, np.uint8)
        bounds[index] = at, len(data)
    return listener.take(places, bounds)


class Script:
    """Writes ITCH messages by way of events, for books told by hand."""

    def __init__(self) -> None:
        self.table = instrument_table()
        self.table[1]["stock"] = int.from_bytes(b"AAPL    ", "little")
        self.table[1]["scale"] = 1
        self.next = 1

    def message(self, kind: EventKind, **fields: object) -> bytes:
        """Return the message of one event about symbol 1."""
        slots = slots_of(np.zeros(1, EVENT))
        slots["kind"], slots["symbol_id"] = kind, 1
        for name, value in fields.items():
            slots[name] = value
        buffer = np.zeros(64, np.uint8)
        return buffer[: int(event_to_message(slots, 0, self.table, buffer))].tobytes()

    def add(self, ref: int, side: int, px: int, qty: int, old: int = 0) -> bytes:
        fields = {"public_ref": ref, "side": side, "px": px, "qty": qty, "old_ref": old}
        return self.message(EventKind.BOOKED, shown=qty, **fields)

    def execute(self, ref: int, qty: int, match: int = 1) -> bytes:
        fields = {"public_ref": ref, "qty": qty, "trade_id": match, "role": Role.MAKER}
        return self.message(EventKind.FILL, shown_before=qty, **fields)

    def delete(self, ref: int) -> bytes:
        return self.message(EventKind.CANCELED, public_ref=ref, shown_before=1)

    def packet(self, *messages: bytes, session: bytes = SESSION) -> bytes:
        """Number messages on and pack them."""
        data = datagram(session, self.next, list(messages))
        self.next += len(messages)
        return data


def told(listener: FeedListener, *messages: bytes) -> FeedListener:
    """Let the listener hear messages from number 1 on."""
    hear(listener, Script().packet(*messages))
    return listener


# ----------------------------------------------------------------------------------- real multicast
def assert_same_books(listener: FeedListener, flow: Flow, factors: dict[str, int]) -> None:
    """Compare every level and every order in its place with the engine's."""
    for symbol, factor in factors.items():
        ours = [listener.book.bids(symbol), listener.book.asks(symbol)]
        for side, (rows, engine) in enumerate(zip(ours, flow.exchange.book(symbol), strict=True)):
            expected = engine * np.array([factor, 1, 1])
            assert rows.tolist() == expected.tolist(), (symbol, side)
            queue = flow.exchange.orders(symbol, side)
            told = [(int(o["public_ref"]), int(o["px"]) * factor, int(o["leaves"])) for o in queue]
            assert [tuple(r) for r in listener.book.orders(symbol, side).tolist()] == told


def test_books_equal_the_engines_at_every_checkpoint(
    feed: tuple[RingWriter, FeedParts], seed: int
) -> None:
    writer, parts = feed
    flow, publisher = Flow(seed), FeedPublisher(parts)
    trades: list[np.ndarray] = []
    listener = FeedListener.of_shard(parts.config.network, 0, trades.append)
    try:
        made = [flow.exchange.startup_events]
        writer.write(made[0])
        for _ in range(12):
            publish_all(publisher)
            listener.poll()
            assert listener.book.valid, listener.book.why_invalid
            factors = {s: 100 if s == "AAPL" else 1 for s in flow.symbols}
            factors["BIG"] = 1 if not publisher.channels[0].table[3]["decimal4"] else 10_000
            assert_same_books(listener, flow, factors)
            made.append(flow.run(150))
            writer.write(made[-1])
        publish_all(publisher)
        listener.poll()
        events = np.concatenate(made)
        fills = events[(events["kind"] == EventKind.FILL) & (events["role"] == Role.MAKER)]
        tape = np.concatenate(trades)
        assert len(tape) == len(fills) > 100
        assert tape["match"].tolist() == fills["trade_id"].tolist()
        assert tape["qty"].tolist() == fills["qty"].tolist()
        last = fills[fills["symbol_id"] == flow.ids[0]][-1]
        assert listener.book.last_trade("AAPL")[:3] == (  # type: ignore[index]
            int(last["px"]) * 100,
            int(last["qty"]),
            int(last["trade_id"]),
        )
        assert listener.entry("AAPL") is not None
    finally:
        listener.close()
        publisher.close()


def test_late_joiner_says_that_its_book_is_partial(
    feed: tuple[RingWriter, FeedParts], seed: int
) -> None:
    writer, parts = feed
    flow, publisher = Flow(seed), FeedPublisher(parts)
    writer.write(flow.exchange.startup_events)
    writer.write(flow.run(200))
    publish_all(publisher)
    listener = FeedListener.of_shard(parts.config.network, 0)
    try:
        assert listener.book.why_invalid == "nothing received yet"
        writer.write(flow.run(200))
        publish_all(publisher)
        assert listener.poll() > 0
        assert not listener.book.valid
        assert "joined at message" in listener.book.why_invalid
        stats = listener.stats()
        assert stats["gaps"] == 0
        assert stats["doubtful"] > 0
        assert not any(listener.book.violations().values())
    finally:
        listener.close()
        publisher.close()


def test_every_message_can_be_seen_by_itself() -> None:
    seen: list[tuple[int, int]] = []
    network = config().network
    listener = FeedListener.of_shard(
        network, 0, on_message=lambda number: seen.append((number, listener.book.orders_resting))
    )
    assert hear(listener, Script().packet(*ADDS, S.delete(1))) == 5
    listener.close()
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3)]


def test_poll_waits_for_a_datagram_and_gives_up_in_time(quiet: FeedListener) -> None:
    assert quiet.poll(0.01) == 0
    assert quiet.socket.buffer_bytes >= 4 << 20


# --------------------------------------------------------------------------- loss, order, sessions
def test_gap_makes_the_book_partial_until_the_next_session(quiet: FeedListener) -> None:
    script = Script()
    hear(quiet, script.packet(script.add(1, 0, 100, 5)))
    assert quiet.book.valid
    script.packet(script.add(2, 0, 101, 5))  # lost
    hear(quiet, script.packet(script.add(3, 0, 102, 5)))
    assert not quiet.book.valid
    assert "missed" in quiet.book.why_invalid
    assert quiet.book.bids("AAPL")[:, 0].tolist() == [102, 100]
    script.next = 1
    hear(quiet, script.packet(script.add(9, 1, 200, 1), session=LATER))
    assert quiet.book.valid
    assert quiet.book.bids("AAPL").tolist() == []
    assert quiet.book.asks("AAPL").tolist() == [[200, 1, 1]]


def test_heartbeat_beyond_the_last_message_makes_the_book_partial(quiet: FeedListener) -> None:
    told(quiet, Script().add(1, 0, 100, 5))
    hear(quiet, control_datagram(SESSION, 2))
    assert quiet.book.valid
    hear(quiet, control_datagram(SESSION, 4, END_OF_SESSION))
    assert not quiet.book.valid
    assert quiet.stats()["missing"] == 2


def test_repeated_datagrams_change_nothing(quiet: FeedListener) -> None:
    script = Script()
    packets = [script.packet(script.add(n, 0, 100, n)) for n in range(1, 5)]
    assert hear(quiet, *packets, *packets, packets[2]) == 4
    assert quiet.book.valid
    assert quiet.book.bids("AAPL").tolist() == [[100, 10, 4]]
    assert quiet.stats()["duplicates"] == 5


def test_session_change_within_one_batch_resets_between_its_datagrams(quiet: FeedListener) -> None:
    old, new = Script(), Script()
    hear(
        quiet,
        old.packet(old.add(1, 0, 100, 5)),
        new.packet(new.add(1, 0, 300, 7), session=LATER),
        old.packet(old.add(2, 0, 101, 5)),
    )
    assert quiet.book.valid
    assert quiet.book.bids("AAPL").tolist() == [[300, 7, 1]]
    assert quiet.stats()["stale"] == 1


# ------------------------------------------------------------------------------ contradictions
S = Script()
ADDS = (S.add(1, 0, 100, 5), S.add(2, 0, 100, 5), S.add(3, 0, 99, 5), S.add(4, 1, 105, 5))


@pytest.mark.parametrize(
    ("message", "violation"),
    [
        (S.execute(2, 1), "not_head"),
        (S.execute(3, 1), "not_head"),
        (S.execute(9, 1), "unknown_ref"),
        (S.delete(9), "unknown_ref"),
        (S.execute(1, 6), "overfill"),
        (S.add(1, 0, 98, 1), "duplicate_ref"),
        (S.add(5, 0, 105, 1), "crossed"),
        (S.add(5, 1, 100, 1), "crossed"),
        (S.add(5, 0, 98, 77).replace(b"\0\0\0\x4d", bytes(4)), "bad_field"),
        (S.add(0, 0, 98, 1), "bad_field"),
        (S.add(5, 0, 106, 1, old=2), "crossed"),
        (S.add(3, 0, 98, 1, old=2), "duplicate_ref"),
        (S.delete(1)[:-1], "bad_message"),
        (S.delete(1) + b"x", "bad_message"),
        (b"", "bad_message"),
        (b"z" + bytes(18), "bad_message"),
        (S.add(5, 0, 98, 1).replace(b"B", b"Q", 1), "bad_field"),
        (b"E\0\2" + S.execute(1, 1)[3:], "wrong_locate"),
    ],
)
def test_contradiction_is_counted_by_name_and_ends_validity(
    quiet: FeedListener, message: bytes, violation: str
) -> None:
    told(quiet, *ADDS)
    assert quiet.book.valid
    script = Script()
    script.next = 5
    hear(quiet, script.packet(message))
    counted = {name: n for name, n in quiet.book.violations().items() if n}
    assert counted == {violation: 1}
    assert violation in quiet.book.why_invalid
    assert not quiet.book.valid


def test_order_that_would_have_left_its_band_crosses_until_the_call_is_told(
    quiet: FeedListener,
) -> None:
    script = Script()
    call = script.message(EventKind.PHASE, code=int(Phase.VOLATILITY_CALL))
    told(quiet, *ADDS, S.add(5, 0, 107, 2))
    assert "crossed" in quiet.book.why_invalid
    script.next = 6
    hear(quiet, script.packet(call, S.add(6, 1, 104, 1)))
    assert quiet.book.valid, quiet.book.why_invalid
    goes_on = script.message(EventKind.PHASE, code=int(Phase.CONTINUOUS))
    hear(quiet, script.packet(S.delete(5), goes_on, S.add(7, 0, 104, 1), S.add(8, 0, 90, 1)))
    assert quiet.book.violations()["crossed"] == 1


def test_queue_keeps_time_order_through_executions_cancels_and_replaces(
    quiet: FeedListener,
) -> None:
    cancel = Script().message(
        EventKind.REPLACED, flags=2, public_ref=2, shown_before=5, shown=2, qty=2
    )
    told(quiet, *ADDS, cancel, S.execute(1, 5, 7), S.add(6, 0, 100, 9, old=3), S.execute(2, 1, 8))
    assert quiet.book.valid, quiet.book.why_invalid
    assert quiet.book.orders("AAPL", 0).tolist() == [[2, 100, 1], [6, 100, 9]]
    trades = quiet.book.take_trades()
    assert trades["match"].tolist() == [7, 8]
    assert {chr(side) for side in trades["side"]} == {"S"}  # bids were hit
    assert len(quiet.book.take_trades()) == 0
    row = quiet.book.symbol_row("AAPL")
    assert (int(row["volume"]), int(row["trades"]), int(row["last_px"])) == (6, 2, 100)


def test_unknown_symbol_has_an_empty_book(quiet: FeedListener) -> None:
    assert quiet.book.bids("NONE").tolist() == []
    assert quiet.book.last_trade("NONE") is None
    with pytest.raises(KeyError):
        quiet.book.locate("NONE")


# ------------------------------------------------------------------------------- growth and bounds
def test_tables_grow_and_shrink_with_random_orders_and_stay_right(seed: int) -> None:
    rng, script, book = random.Random(seed), Script(), ItchBook()
    model: dict[int, tuple[int, int]] = {}
    for round_number in range(6):
        messages = []
        for _ in range(300 if JIT_DISABLED else 4_000):
            if model and rng.random() < (0.3 if round_number < 3 else 0.7):
                ref = rng.choice(list(model)) if len(model) < 50 else next(iter(model))
                messages.append(script.delete(ref))
                del model[ref]
            else:
                ref = len(messages) + 10_000 * (round_number + 1)
                model[ref] = (rng.randrange(1, 3_000), rng.randrange(1, 9))
                messages.append(script.add(ref, 0, *model[ref]))
        apply(book, messages)
        expected: dict[int, list[int]] = {}
        for px, qty in model.values():
            level = expected.setdefault(px, [px, 0, 0])
            level[1] += qty
            level[2] += 1
        rows = [expected[px] for px in sorted(expected, reverse=True)]
        assert book.bids(1).tolist() == rows
        assert book.orders_resting == len(model)
    assert not any(book.violations().values())


def apply(book: ItchBook, messages: list[bytes]) -> None:
    """Apply messages to a book without any transport."""
    data = np.frombuffer(b"".join(messages), np.uint8).copy()
    lengths = np.array([len(m) for m in messages], np.int64)
    blocks = np.zeros((len(messages), 3), np.int64)
    blocks[:, 0] = np.arange(book.next_sequence, book.next_sequence + len(messages))
    blocks[:, 1] = np.cumsum(lengths) - lengths
    blocks[:, 2] = lengths
    book.apply(data, blocks)


def test_book_over_its_bound_is_dropped_and_says_so() -> None:
    book, script = ItchBook(orders_max=100), Script()
    apply(book, [script.add(n, 0, n, 1) for n in range(1, 91)])
    assert book.valid
    apply(book, [script.add(n, 0, n, 1) for n in range(91, 131)])
    assert not book.valid
    assert "100 orders" in book.why_invalid
    assert book.orders_resting == 40


def test_tape_nobody_reads_is_bounded_and_counts_what_it_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("feed.itch_book.TAPE_MAX", 10)
    book, script = ItchBook(), Script()
    apply(book, [script.add(1, 0, 100, 1_000)])
    for _ in range(6):
        apply(book, [script.execute(1, 1) for _ in range(4)])
    assert len(book.take_trades()) == 8
    assert book.tape_lost == 16


# -------------------------------------------------------------------------------------------- fuzz
def test_random_and_mutated_messages_never_raise(quiet: FeedListener, seed: int) -> None:
    rng, flow, reference = random.Random(seed), Flow(seed), Reference()
    events = np.concatenate([flow.exchange.startup_events, flow.run(400)])
    good = [m for m in map(reference.convert, events) if m]
    sequence = 1
    for _ in range(400):
        messages = []
        for _ in range(rng.randrange(1, 12)):
            data = bytearray(rng.choice((rng.choice(good), rng.randbytes(rng.randrange(60)))))
            for _ in range(rng.randrange(3)):
                if data:
                    data[rng.randrange(len(data))] = rng.randrange(256)
            messages.append(bytes(data))
        packet = datagram(SESSION, sequence, messages)
        if rng.random() < 0.1:
            packet = packet[: rng.randrange(len(packet))]
        else:
            sequence += len(messages)
        hear(quiet, packet)
    assert quiet.stats()["malformed"] > 5
    assert sum(quiet.book.violations().values()) > 500
    for symbol in quiet.book.symbols():
        for rows in (quiet.book.bids(symbol), quiet.book.asks(symbol)):
            assert (rows[:, 1] > 0).all()
            assert (rows[:, 2] > 0).all()
    assert not quiet.book.valid


def test_datagram_longer_than_a_place_is_cut_and_counted_as_malformed(quiet: FeedListener) -> None:
    assert hear(quiet, datagram(SESSION, 1, [bytes(40)] * 60)) == 0
    assert quiet.stats()["malformed"] == 1
