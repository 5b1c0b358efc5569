"""The comparer sees a wrong feed: messages made from LocalExchange's events, then tampered with.

What the exchange really publishes is compared in tests/system/test_replay_tcp.py; here the
question is whether the comparer would notice.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cli.compare_feed import BookOfMessages, FeedEnded, FeedVenue, compare
from cli.lobster import LobsterReplay, Message, Row, Tally, read_messages, read_rows
from engine.records import EVENT_SLOT
from feed.itch import MESSAGE_BYTES_MAX, event_to_message, instrument_table
from tests.system.test_replay_lobster import LocalVenue


class Taped(LocalVenue):
    """LocalExchange that writes down what a feed would send."""

    def __init__(self) -> None:
        super().__init__()
        self.table = instrument_table()
        self.tape: list[bytes] = []
        self._publish(self.exchange.startup_events)
        step = self.exchange.step

        def taped(commands: np.ndarray) -> np.ndarray:
            events = step(commands)
            self._publish(events)
            return events

        self.exchange.step = taped  # type: ignore[method-assign]

    def _publish(self, events: np.ndarray) -> None:
        slots = np.zeros(len(events), EVENT_SLOT)
        for name in events.dtype.names or ():
            slots[name] = events[name]
        buffer = np.zeros(MESSAGE_BYTES_MAX, np.uint8)
        for index in range(len(slots)):
            length = int(event_to_message(slots, index, self.table, buffer))
            if length:
                self.tape.append(buffer[:length].tobytes())


def follow(tape: list[bytes], messages: list[Message], rows: list[Row]) -> tuple[Tally, str]:
    books = BookOfMessages("AAPL")

    def symbol_messages() -> Iterator[bytes]:
        for sequence, message in enumerate(tape, 1):
            if books.apply(sequence, message):
                yield message

    feed = symbol_messages()

    def take() -> bytes:
        try:
            return next(feed)
        except StopIteration:
            raise FeedEnded from None

    replay = LobsterReplay(FeedVenue(take), messages, rows[0] if rows else None)
    why = compare(replay, rows, books.levels, 40)
    assert sum(books.book.violations().values()) == 0
    return replay.tally, why


def recorded(messages: list[Message], rows: list[Row]) -> list[bytes]:
    venue = Taped()
    replay = LobsterReplay(venue, messages, rows[0] if rows else None)
    replay.start()
    for number in range(len(messages)):
        replay.step(number)
    return venue.tape


@pytest.mark.data
@pytest.mark.later
def test_a_faithful_feed_gives_every_row(data_dir: Path) -> None:
    folder = data_dir / "lobster"
    messages = read_messages(folder / "AAPL_2012-06-21_10s_messages_50.csv")
    rows = read_rows(folder / "AAPL_2012-06-21_10s_orderbook_50.csv")
    tally, why = follow(recorded(messages, rows), messages, rows)
    assert why == ""
    assert (tally.rows_exact, tally.rows, tally.makers, tally.at_price) == (671, 671, 56, 56)


MESSAGES = [
    Message(0, 1, 7, 10, 50_000, 1),
    Message(1, 1, 8, 20, 50_000, 1),
    Message(2, 1, 9, 30, 50_100, -1),
    Message(3, 2, 8, 5, 50_000, 1),
    Message(4, 4, 7, 10, 50_000, 1),
    Message(5, 5, 0, 99, 50_050, 1),
    Message(6, 3, 9, 30, 50_100, -1),
]
ROWS = [
    Row([(50_000, 10)], []),
    Row([(50_000, 30)], []),
    Row([(50_000, 30)], [(50_100, 30)]),
    Row([(50_000, 25)], [(50_100, 30)]),
    Row([(50_000, 15)], [(50_100, 30)]),
    Row([(50_000, 15)], [(50_100, 30)]),
    Row([(50_000, 15)], []),
]


def test_hidden_executions_keep_the_row_without_a_message() -> None:
    tally, why = follow(recorded(MESSAGES, ROWS), MESSAGES, ROWS)
    assert (why, tally.rows_exact, tally.rows, tally.makers) == ("", 6, 6, 1)


@pytest.mark.parametrize(
    ("letter", "expected"), [(b"A", "A"), (b"X", "X"), (b"D", "D"), (b"E", "E")]
)
def test_a_missing_message_ends_the_comparison(letter: bytes, expected: str) -> None:
    tape = recorded(MESSAGES, ROWS)
    at = max(i for i, message in enumerate(tape) if message[:1] == letter)
    tally, why = follow_loosely(tape[:at] + tape[at + 1 :])
    assert why or tally.at_price < tally.executions


def test_a_wrong_size_is_seen_in_the_row_or_the_alignment() -> None:
    tape = recorded(MESSAGES, ROWS)
    at = next(i for i, message in enumerate(tape) if message[:1] == b"A")
    wrong = bytearray(tape[at])
    wrong[23] += 1  # last byte of the shares
    _, why = follow_loosely([*tape[:at], bytes(wrong), *tape[at + 1 :]])
    assert "an A of 11" in why


def follow_loosely(tape: list[bytes]) -> tuple[Tally, str]:
    books = BookOfMessages("AAPL")
    feed = (m for sequence, m in enumerate(tape, 1) if books.apply(sequence, m))
    venue = FeedVenue(lambda: _next(feed))
    replay = LobsterReplay(venue, MESSAGES, ROWS[0])
    return replay.tally, compare(replay, ROWS, books.levels, 40)


def _next(feed: Iterator[bytes]) -> bytes:
    for message in feed:
        return message
    raise FeedEnded
