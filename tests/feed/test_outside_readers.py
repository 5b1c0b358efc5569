"""Clients written by others read our channel: itchfeed, MeatPy and tshark.

A random flow goes through the publisher onto real loopback multicast and is recorded as any tap
would record it. The packages are told nothing but the files.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from itch.parser import MessageParser
from meatpy.itch50 import ITCH50MarketProcessor, ITCH50MessageReader

from engine.book_check import order_slots
from engine.records import SYMBOL_INDEX_MASK, EventFlag, EventKind, Role
from feed.capture import Recorder
from feed.listener import FeedListener
from feed.moldudp64 import session_name
from feed.publisher import FeedPublisher
from tests.feed.flow import START_NS, WITH_FULL, Flow, open_feed, publish_all
from tests.feed.itch_reference import Reference

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

MIDNIGHT = datetime(2026, 5, 28)  # naive: MeatPy wants it so
ROUNDS = 12


@dataclass
class Recording:
    """One recorded flow, and what the engine's books were at each checkpoint."""

    pcap: Path
    itch: Path
    port: int
    events: np.ndarray
    messages: int
    # After how many messages: per symbol, (reference, ITCH price, shares) of both sides in
    # priority.
    checkpoints: dict[int, dict[str, list[list[tuple[int, int, int]]]]]
    factors: dict[str, int]


def engine_books(
    flow: Flow, factors: dict[str, int]
) -> dict[str, list[list[tuple[int, int, int]]]]:
    """Every resting order of the engine, as the public may see it."""
    return {
        symbol: [displayed(flow, symbol, side, factor) for side in (0, 1)]
        for symbol, factor in factors.items()
    }


def displayed(flow: Flow, symbol: str, side: int, factor: int) -> list[tuple[int, int, int]]:
    """What one side of a book shows: (reference, ITCH price, shares) in priority order."""
    state, symbol_id = flow.exchange.state, flow.exchange.symbol_id(symbol)
    slots = order_slots(state, symbol_id & SYMBOL_INDEX_MASK, side)
    rows, full = state.orders[slots], symbol_id in flow.full
    shown = state.more["shown"][slots] if full else rows["leaves"]
    return [
        (int(o["public_ref"]), int(o["px"]) * factor, int(qty))
        for o, qty in zip(rows, shown, strict=True)
        if qty > 0
    ]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("feed")
    flow, parts_of_events = Flow(20_120_621, WITH_FULL), []
    for writer, parts in open_feed():
        network = parts.config.network
        recorder = Recorder(
            network.feed_group,
            network.feed_port,
            pcap=folder / "feed.pcap",
            itch=folder / "feed.itch",
        )
        listener = FeedListener.of_shard(network, 0)
        publisher = FeedPublisher(parts)
        checkpoints: dict[int, dict[str, list[list[tuple[int, int, int]]]]] = {}
        factors: dict[str, int] = {}
        events = flow.exchange.startup_events
        for _ in range(ROUNDS):
            parts_of_events.append(events)
            writer.write(events)
            publish_all(publisher)
            recorder.poll(0.1)
            listener.poll()
            assert listener.book.valid, listener.book.why_invalid
            table = publisher.channels[0].table
            factors = {
                symbol: int(table[locate]["scale"])
                for symbol, locate in listener.book.symbols().items()
            }
            books = engine_books(flow, factors)
            for symbol, sides in books.items():
                for side in (0, 1):
                    ours = listener.book.orders(symbol, side).tolist()
                    assert [tuple(row) for row in ours] == sides[side]
            checkpoints[listener.book.messages] = books
            events = flow.run(120)
        publisher.end_session()
        recorder.poll(0.1)
        assert recorder.stats()["gaps"] == recorder.stats()["malformed"] == 0
        messages = recorder.stats()["messages"]
        for thing in (publisher, recorder, listener):
            thing.close()
    return Recording(
        folder / "feed.pcap",
        folder / "feed.itch",
        network.feed_port,
        np.concatenate(parts_of_events),
        messages,
        checkpoints,
        factors,
    )


def test_itchfeed_decodes_every_message_to_what_was_sent(recording: Recording) -> None:
    reference = Reference()
    sent = [m for m in map(reference.convert, recording.events) if m]
    with recording.itch.open("rb") as file:
        read = list(MessageParser().parse_file(file))
    assert len(read) == len(sent) == recording.messages > 700
    assert [m.to_bytes() for m in read] == sent
    assert {m.message_type for m in read} >= {b"R", b"H", b"A", b"E", b"C", b"X", b"D", b"U"}
    assert {m.printable for m in read if m.message_type == b"C"} == {b"Y"}
    directory = next(m for m in read if m.message_type == b"R" and m.stock == b"AAPL    ")
    decoded = directory.decode()
    assert (decoded.stock, decoded.round_lot_size) == ("AAPL", 1)
    fills = recording.events[recording.events["kind"] == EventKind.FILL]
    fills = fills[fills["shown_before"] > fills["shown"]]
    shared = (fills["flags"] & EventFlag.NON_FIFO) != 0
    takers = fills["role"] == Role.TAKER
    whose = ((b"E", ~takers & ~shared), (b"C", ~takers & shared), (b"P", takers))
    for letter, of_letter in whose:
        told = fills[of_letter]
        executed = [m for m in read if m.message_type == letter]
        shares = [m.shares if letter == b"P" else m.executed_shares for m in executed]
        assert len(told) > 5
        assert [m.match_number for m in executed] == told["trade_id"].tolist()
        assert shares == (told["shown_before"] - told["shown"]).tolist()


def meatpy_book(processor: ITCH50MarketProcessor) -> list[list[tuple[int, int, int]]]:
    """Both sides of MeatPy's book as (reference, price, shares) in priority order."""
    book = processor.current_lob
    if book is None:
        return [[], []]
    return [
        [(order.order_id, level.price, order.volume) for level in levels for order in level.queue]
        for levels in (book.bid_levels, book.ask_levels)
    ]


@pytest.mark.parametrize("symbol", ["AAPL", "TINY", "BIG", "SHARED"])
def test_meatpy_rebuilds_the_engines_book_at_every_checkpoint(
    recording: Recording, symbol: str
) -> None:
    processor = ITCH50MarketProcessor(symbol, MIDNIGHT)
    compared = orders = 0
    with ITCH50MessageReader(recording.itch) as reader:
        for number, message in enumerate(reader, 1):
            processor.process_message(message)
            if number in recording.checkpoints:
                expected = recording.checkpoints[number][symbol]
                assert meatpy_book(processor) == expected, number
                compared, orders = compared + 1, orders + len(expected[0]) + len(expected[1])
    assert compared == ROUNDS
    assert orders > 50
    # MeatPy keeps executions that did not meet the first order of the best level in this list.
    assert processor.current_lob is not None
    assert processor.current_lob.execution_errors_buffer == []


@pytest.mark.outside
def test_tshark_decodes_the_moldudp64_framing(
    recording: Recording, require_program: Callable[[str], str]
) -> None:
    fields = ("session", "sequence", "count", "msgblock", "msglen", "msgseq")
    command = [require_program("tshark"), "-r", str(recording.pcap), "-T", "fields"]
    command += ["-d", f"udp.port=={recording.port},moldudp64", "-E", "occurrence=a"]
    for name in (*(f"moldudp64.{name}" for name in fields), "_ws.malformed", "_ws.expert.message"):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    expected, seen = 1, 0
    for session, sequence, count, _, lengths, numbers, malformed, expert in rows:
        assert session.encode() == session_name(START_NS, 0, 7)
        assert malformed == ""
        assert int(sequence, 0) == expected
        if int(count, 0) in (0, 0xFFFF):
            # A packet of a header alone looks like a request too: tshark remarks on that, no more.
            assert expert in ("", "Number of Requested Messages")
            continue
        assert expert == ""
        assert numbers.split(",") == [str(n) for n in range(expected, expected + int(count, 0))]
        assert len(lengths.split(",")) == int(count, 0)
        expected += int(count, 0)
        seen += 1
    assert expected == recording.messages + 1
    assert seen > ROUNDS
    assert [int(row[2], 0) for row in rows[-3:]] == [0xFFFF] * 3


def test_midnight_of_the_recording_is_that_of_its_timestamps() -> None:
    assert (
        datetime.fromtimestamp(START_NS / 10**9, UTC).replace(tzinfo=None).date() == MIDNIGHT.date()
    )
