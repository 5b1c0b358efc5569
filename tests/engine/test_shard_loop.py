"""The loop of a shard over private rings, call by call: long works and the readers behind them."""

from collections.abc import Callable

import numpy as np
import pytest

from engine.admin import PRODUCER_SUPERVISOR, list_instrument, open_account, open_session
from engine.book_state import (
    FATAL,
    OUT_POSITION,
    WORK_KIND,
    ShardState,
    allocate_state,
    small_limits,
)
from engine.config import Instrument
from engine.event_ring import READER_POSITION
from engine.matching import WORK_NONE
from engine.records import (
    COMMAND,
    CommandFlag,
    CommandKind,
    EventKind,
    OrderType,
    pack_name,
    unpack_name,
)
from engine.shard_loop import (
    COMMANDS,
    RETURN_BUSY,
    RETURN_IDLE,
    SLICE_NS,
    STOP,
    Ports,
    shard_ports_private,
    shard_run,
)

pytestmark = pytest.mark.flavour

ORDERS, SLICE = 3000, 500
CAPACITY = 64


class Shard:
    """A shard whose supervisor ring the test fills."""

    def __init__(self) -> None:
        limits = small_limits(
            orders_max=4096, levels_max=256, slice_events=SLICE, events_per_command_max=1024
        )
        self.state: ShardState = allocate_state(limits)
        self.ports: Ports = shard_ports_private(self.state, capacity=CAPACITY)
        self.ports.loop[STOP] = 1  # a call ends as soon as it finds nothing to do
        self.sent = 0

    @property
    def quarter(self) -> int:
        return len(self.state.events) // 4

    @property
    def position(self) -> int:
        return int(self.state.hdr[OUT_POSITION])

    def reader_at(self, position: int) -> None:
        self.ports.event_ctrl[READER_POSITION] = position

    def send(self, commands: np.ndarray) -> None:
        for command in commands:
            place = PRODUCER_SUPERVISOR * CAPACITY + self.sent % CAPACITY
            self.sent += 1
            self.ports.commands[place] = command
            self.ports.commands[place]["producer_seq"] = self.sent

    def run(self) -> int:
        return int(shard_run(self.state.table, self.ports))

    def follow(self, commands: np.ndarray) -> None:
        """Run commands with a reader that keeps up."""
        for start in range(0, len(commands), CAPACITY // 2):
            self.send(commands[start : start + CAPACITY // 2])
            self.run()
            self.reader_at(self.position)


@pytest.fixture
def shard() -> Shard:
    made = Shard()
    made.follow(open_account(1))
    made.follow(open_session(1, "main", logon=1))
    made.follow(list_instrument(Instrument("AAPL")))
    made.follow(list_instrument(Instrument("MSFT")))
    orders = np.zeros(ORDERS, COMMAND)
    orders["kind"], orders["order_type"], orders["qty"] = CommandKind.NEW, OrderType.LIMIT, 1
    orders["px"], orders["symbol"] = 1 + np.arange(ORDERS) % 100, pack_name("AAPL")
    orders["client_order_id"] = 1 + np.arange(ORDERS)
    orders["account"], orders["session"], orders["logon"] = 1, 1, 1
    made.follow(orders)
    return made


def mass_cancel() -> np.ndarray:
    command = np.zeros(1, COMMAND)
    command["kind"], command["flags"] = CommandKind.MASS_CANCEL, CommandFlag.BY_SESSION
    command["account"], command["session"], command["logon"] = 1, 1, 1
    return command


def test_long_work_waits_for_a_reader_a_quarter_behind_and_goes_on_when_it_follows(
    shard: Shard,
) -> None:
    start = shard.position
    shard.ports.loop[SLICE_NS] = 1 << 62  # patience never ends in this test
    shard.send(mass_cancel())
    rounds = 0
    while shard.state.hdr[WORK_KIND] != WORK_NONE or rounds == 0:
        shard.run()
        shard.ports.loop[SLICE_NS] = 1 << 62
        lag = shard.position - int(shard.ports.event_ctrl[READER_POSITION])
        assert lag <= shard.quarter + SLICE + 2
        shard.reader_at(shard.position)
        rounds += 1
    assert rounds > 1
    places = np.arange(start, shard.position) & (len(shard.state.events) - 1)
    kinds = shard.state.events["kind"][places]
    assert np.count_nonzero(kinds == EventKind.CANCELED) == ORDERS
    assert kinds[-1] == EventKind.SUMMARY


def other_order(shard: Shard, symbol: str, **fields: int) -> np.ndarray:
    """An order of account 1; `symbol` "" names it by name alone."""
    command = np.zeros(1, COMMAND)
    command["kind"], command["order_type"] = CommandKind.NEW, OrderType.LIMIT
    command["qty"], command["px"], command["symbol"] = 1, 5, pack_name(symbol or "MSFT")
    command["symbol_id"] = symbol_ids(shard)[symbol] if symbol else 0
    command["account"], command["session"], command["logon"] = 1, 1, 1
    for name, value in fields.items():
        command[name] = value
    return command


def symbol_ids(shard: Shard) -> dict[str, int]:
    return {unpack_name(int(row["name"])): int(row["symbol_id"]) for row in shard.state.symbols}


def long_cancel(shard: Shard) -> np.ndarray:
    command = mass_cancel()
    command["flags"], command["symbol_id"] = CommandFlag.BY_SYMBOL, symbol_ids(shard)["AAPL"]
    return command


def long_sweep(shard: Shard) -> np.ndarray:
    return other_order(shard, "AAPL", side=1, qty=ORDERS, px=1)


@pytest.mark.parametrize("work", [long_cancel, long_sweep])
@pytest.mark.parametrize(
    ("symbol", "fields", "passes"),
    [
        ("AAPL", {}, False),
        ("", {}, False),
        ("MSFT", {}, True),
        ("MSFT", {"kind": CommandKind.CANCEL, "order_id": 1}, True),
        ("MSFT", {"side": 1, "px": 50}, False),  # meets the bid of 60
        ("MSFT", {"side": 1, "px": 61}, True),
        ("MSFT", {"order_type": OrderType.MARKET, "px": 0}, False),
        ("MSFT", {"kind": CommandKind.REPLACE, "order_id": 1}, False),
        ("MSFT", {"kind": CommandKind.QUERY_OPEN_ORDERS}, False),
    ],
)
def test_what_cannot_be_long_does_not_wait_for_a_long_work_in_another_symbol(
    shard: Shard,
    work: Callable[[Shard], np.ndarray],
    symbol: str,
    fields: dict[str, int],
    passes: bool,
) -> None:
    shard.follow(other_order(shard, "MSFT", px=60))
    first = shard.position
    shard.send(work(shard))
    shard.run()
    shard.ports.loop[SLICE_NS] = 1 << 62
    kind, before = int(shard.state.hdr[WORK_KIND]), int(shard.ports.loop[COMMANDS])
    assert kind != WORK_NONE
    shard.send(other_order(shard, symbol, **fields))
    shard.run()
    assert int(shard.ports.loop[COMMANDS]) - before == passes
    assert shard.state.hdr[WORK_KIND] == kind
    while shard.state.hdr[WORK_KIND] != WORK_NONE:
        shard.reader_at(shard.position)
        shard.run()
    assert int(shard.ports.loop[COMMANDS]) - before == 1
    assert int(shard.state.hdr[FATAL]) == 0
    places = np.arange(first, shard.position) & (len(shard.state.events) - 1)
    ended = (EventKind.CANCELED, EventKind.FILL)
    assert np.count_nonzero(np.isin(shard.state.events["kind"][places], ended)) >= ORDERS


def test_reader_that_never_follows_costs_a_long_work_its_patience_only(shard: Shard) -> None:
    shard.ports.loop[STOP] = 0
    shard.send(mass_cancel())
    outcome = RETURN_BUSY
    while shard.state.hdr[WORK_KIND] != WORK_NONE or outcome == RETURN_BUSY:
        outcome = shard.run()
    assert outcome == RETURN_IDLE
    assert int(shard.ports.event_ctrl[READER_POSITION]) < shard.position - shard.quarter
