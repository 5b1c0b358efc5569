"""Real input: recorded orders through the compiled step give the recorded book, prices and makers.

The book of LocalExchange is the engine's own. The same through TCP and multicast, by processes of
their own, is in test_replay_tcp.py.
"""

from pathlib import Path

import numpy as np
import pytest

from cli.lobster import Fill, Levels, LobsterReplay, Row, Tally, read_messages, read_rows
from engine.config import Instrument
from engine.local import LocalExchange
from engine.records import EventKind, Role, Side, TimeInForce

pytestmark = pytest.mark.data
SYMBOL = "AAPL"
TICK = 100  # LOBSTER's 10,000ths of a dollar in a tick of 0.01
DEPTH = 40


class LocalVenue:
    """LocalExchange behind the replay's verbs; a refused request fails the test."""

    def __init__(self) -> None:
        self.exchange = LocalExchange((Instrument(SYMBOL),))
        self.order_ids: dict[int, int] = {}
        self.keys: dict[int, int] = {}

    def _one(self, events: np.ndarray, kind: EventKind) -> np.void:
        assert events["kind"][0] == kind, events[["kind", "code"]]
        return events[0]

    def new(self, key: int, side: int, price: int, size: int) -> None:
        where = Side.BUY if side == 1 else Side.SELL
        events = self.exchange.place(SYMBOL, where, size, price // TICK)
        self.order_ids[key] = int(self._one(events, EventKind.ACCEPTED)["order_id"])
        self.keys[self.order_ids[key]] = key
        assert events["kind"].tolist() == [EventKind.ACCEPTED, EventKind.BOOKED]

    def reduce(self, key: int, total: int) -> None:
        events = self.exchange.replace(self.order_ids[key], qty=total)
        self._one(events, EventKind.REPLACED)

    def cancel(self, key: int) -> None:
        self._one(self.exchange.cancel(self.order_ids[key]), EventKind.CANCELED)

    def hit(self, resting_side: int, price: int, size: int) -> list[Fill]:
        side = Side.SELL if resting_side == 1 else Side.BUY
        events = self.exchange.place(SYMBOL, side, size, price // TICK, tif=TimeInForce.IOC)
        makers = events[(events["kind"] == EventKind.FILL) & (events["role"] == Role.MAKER)]
        return [
            Fill(self.keys[int(m["order_id"])], int(m["px"]) * TICK, int(m["qty"])) for m in makers
        ]

    def levels(self) -> tuple[Levels, Levels]:
        bids, asks = self.exchange.book(SYMBOL, DEPTH)
        return _levels(bids), _levels(asks)


def _levels(rows: np.ndarray) -> Levels:
    return [(int(px) * TICK, int(qty)) for px, qty, _ in rows]


def run(folder: Path, messages: str, rows: list[Row], *, preplace: bool = False) -> Tally:
    venue = LocalVenue()
    replay = LobsterReplay(venue, read_messages(folder / messages), rows[0], preplace=preplace)
    replay.start()
    for number in range(len(replay.messages)):
        replay.step(number)
        if 0 < number < len(rows):
            replay.tally.compare(number, rows[number], *venue.levels(), DEPTH)
    venue.exchange.check()
    return replay.tally


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    return data_dir / "lobster"


@pytest.mark.later
def test_ten_seconds_through_the_step_give_every_row(folder: Path) -> None:
    rows = read_rows(folder / "AAPL_2012-06-21_10s_orderbook_50.csv")
    tally = run(folder, "AAPL_2012-06-21_10s_messages_50.csv", rows)
    assert (tally.rows_exact, tally.rows) == (671, 671)
    assert (tally.at_price, tally.makers, tally.executions) == (56, 56, 56)


@pytest.mark.slow
@pytest.mark.parametrize(("preplace", "makers"), [(False, 4031), (True, 4046)])
def test_the_hour_through_the_step_gives_prices_and_makers(
    folder: Path, preplace: bool, makers: int
) -> None:
    seed = read_rows(folder / "AAPL_2012-06-21_10s_orderbook_50.csv", 1)
    tally = run(folder, "AAPL_2012-06-21_1h_messages_50.csv.xz", seed, preplace=preplace)
    assert (tally.at_price, tally.executions) == (4_067, 4_067)
    assert (tally.makers, tally.known_makers) == (makers, 4_055)
