"""The LOBSTER driver against a plain-Python book: the figures of the data folder's README come out.

The book here is the plainest one possible (dicts in arrival order), so that a wrong figure is the
driver's fault.
"""

from pathlib import Path

import pytest

from cli.lobster import (
    BUY,
    Fill,
    LobsterError,
    LobsterReplay,
    Message,
    Row,
    Tally,
    read_messages,
    read_rows,
    reannounced,
)

DEPTH = 40


class PlainBook:
    """Price-time priority in dicts: price -> {key: open size} in arrival order."""

    def __init__(self) -> None:
        self.levels: dict[int, dict[int, dict[int, int]]] = {1: {}, -1: {}}
        self.where: dict[int, tuple[int, int]] = {}
        self.done: dict[int, int] = {}
        self.requests = 0

    def best(self, side: int) -> int | None:
        return max(self.levels[side], key=lambda price: side * price, default=None)

    def new(self, key: int, side: int, price: int, size: int) -> None:
        opposite = self.best(-side)
        assert opposite is None or side * price < side * opposite, f"order {key} would trade"
        assert key not in self.where, f"key {key} is still live"
        self.requests += 1
        self.where[key], self.done[key] = (side, price), 0
        self.levels[side].setdefault(price, {})[key] = size

    def _lower(self, key: int, size: int) -> None:
        side, price = self.where[key]
        level = self.levels[side][price]
        level[key] -= size
        assert level[key] >= 0
        if not level[key]:
            del level[key], self.where[key]
            if not level:
                del self.levels[side][price]

    def reduce(self, key: int, total: int) -> None:
        side, price = self.where[key]
        leaves = total - self.done[key]
        assert 0 < leaves < self.levels[side][price][key]
        self.requests += 1
        self.levels[side][price][key] = leaves

    def cancel(self, key: int) -> None:
        side, price = self.where[key]
        self.requests += 1
        self._lower(key, self.levels[side][price][key])

    def hit(self, resting_side: int, price: int, size: int) -> list[Fill]:
        self.requests += 1
        fills: list[Fill] = []
        while size:
            best = self.best(resting_side)
            if best is None or resting_side * best < resting_side * price:
                break
            key = next(iter(self.levels[resting_side][best]))
            part = min(size, self.levels[resting_side][best][key])
            fills.append(Fill(key, best, part))
            self.done[key] += part
            self._lower(key, part)
            size -= part
        return fills

    def view(self, side: int) -> list[tuple[int, int]]:
        levels = self.levels[side]
        return [(p, sum(levels[p].values())) for p in sorted(levels, reverse=side == BUY)]


def run(messages: list[Message], rows: list[Row], *, preplace: bool = False) -> Tally:
    book = PlainBook()
    replay = LobsterReplay(book, messages, rows[0] if rows else None, preplace=preplace)
    replay.start()
    for number in range(len(messages)):
        replay.step(number)
        if 0 < number < len(rows):
            replay.tally.compare(number, rows[number], book.view(1), book.view(-1), DEPTH)
    return replay.tally


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    return data_dir / "lobster"


@pytest.mark.data
def test_ten_seconds_give_every_row_at_forty_levels(folder: Path) -> None:
    rows = read_rows(folder / "AAPL_2012-06-21_10s_orderbook_50.csv")
    tally = run(read_messages(folder / "AAPL_2012-06-21_10s_messages_50.csv"), rows)
    assert (tally.rows_exact, tally.rows) == (671, 671)
    assert (tally.at_price, tally.makers, tally.executions) == (56, 56, 56)
    assert (tally.late, tally.requeued) == (
        0,
        0,
    )  # one public message per row: what the feed's comparer counts on


@pytest.mark.data
@pytest.mark.parametrize(("preplace", "makers"), [(False, 4031), (True, 4046)])
@pytest.mark.later
def test_the_hour_gives_prices_and_makers_of_the_readme(
    folder: Path, preplace: bool, makers: int
) -> None:
    seed = read_rows(folder / "AAPL_2012-06-21_10s_orderbook_50.csv", 1)
    tally = run(
        read_messages(folder / "AAPL_2012-06-21_1h_messages_50.csv.xz"), seed, preplace=preplace
    )
    assert (tally.messages, tally.executions, tally.hidden, tally.older) == (
        91_997,
        4_067,
        2_201,
        84,
    )
    assert tally.at_price == 4_067
    assert (tally.makers, tally.known_makers) == (makers, 4_055)
    assert tally.preplaced == (229 if preplace else 0)
    if preplace:
        assert tally.missed_makers == [2410, 2418, 2419, 36331, 42574, 42575, 42576, 63788, 87999]


def test_a_reduction_names_the_total_with_what_was_executed() -> None:
    book = PlainBook()
    messages = [
        Message(0, 1, 7, 100, 5000, 1),
        Message(1, 4, 7, 30, 5000, 1),
        Message(2, 2, 7, 20, 5000, 1),
    ]
    replay = LobsterReplay(book, messages, None)
    replay.start()
    for number in range(3):
        replay.step(number)
    assert book.view(1) == [(5000, 50)]
    assert (replay.tally.makers, replay.tally.at_price) == (1, 1)


def test_message_zero_is_taken_out_of_the_seed() -> None:
    book = PlainBook()
    seed = Row(bids=[(5000, 30), (4900, 5)], asks=[(5100, 7)])
    replay = LobsterReplay(book, [Message(0, 1, 7, 10, 5000, 1)], seed)
    replay.start()
    replay.step(0)
    assert book.view(1) == seed.bids
    assert book.view(-1) == seed.asks
    assert book.levels[1][5000] == {-2: 20, 7: 10}


def test_a_missed_maker_is_counted_once_and_the_level_put_in_the_files_order() -> None:
    # The file says that 8 was hit while 7 stood before it; then 7 is hit, which is what a queue
    # expects.
    messages = [
        Message(0, 1, 7, 10, 5000, 1),
        Message(1, 1, 8, 10, 5000, 1),
        Message(2, 1, 9, 10, 5000, 1),
        Message(3, 4, 8, 10, 5000, 1),
        Message(4, 4, 7, 10, 5000, 1),
        Message(5, 4, 9, 10, 5000, 1),
    ]
    book = PlainBook()
    replay = LobsterReplay(book, messages, None)
    replay.start()
    for number in range(len(messages)):
        replay.step(number)
    assert (replay.tally.makers, replay.tally.known_makers, replay.tally.missed_makers) == (
        2,
        3,
        [3],
    )
    assert replay.tally.requeued == 1
    assert book.where == {}


def test_an_execution_of_quantity_never_shown_is_placed_first() -> None:
    book = PlainBook()
    replay = LobsterReplay(
        book, [Message(0, 4, 3, 10, 5000, -1), Message(1, 3, 4, 5, 5100, -1)], None
    )
    replay.start()
    replay.step(0)
    replay.step(1)
    assert (replay.tally.late, replay.tally.nothing, replay.tally.at_price) == (1, 1, 1)


def test_reannounced_orders_are_those_below_the_running_maximum() -> None:
    messages = [Message(0, 1, k, 1, 1, 1) for k in (5, 9, 2, 7, 10)]
    assert [message.id for message in reannounced(messages)] == [2, 7]


@pytest.mark.parametrize("text", ["", "34200.1,1,2,3\n", "x,1,2,3,4,1\n", "34200.1,1,2,3,4.5,1\n"])
def test_a_file_that_is_not_lobster_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "messages.csv"
    path.write_text(text)
    with pytest.raises(LobsterError, match=r"messages\.csv"):
        read_messages(path)


def test_times_keep_their_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "messages.csv"
    path.write_text("34200.004241176,1,1,1,1,1\n34200.00426064,1,2,1,1,1\n")
    assert [message.time for message in read_messages(path)] == [34200_004241176, 34200_004260640]
