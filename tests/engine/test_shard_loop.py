"""The loop of a shard over private rings, call by call: long works and the readers behind them."""

import numpy as np
import pytest

from engine.admin import PRODUCER_SUPERVISOR, list_instrument, open_account, open_session
from engine.book_state import OUT_POSITION, WORK_KIND, ShardState, allocate_state, small_limits
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
        outcome = shard.run()
        assert outcome == (RETURN_IDLE if shard.state.hdr[WORK_KIND] == WORK_NONE else RETURN_BUSY)
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


@pytest.mark.parametrize(("symbol", "passes"), [("AAPL", False), ("MSFT", True), ("", False)])
@pytest.mark.parametrize("kind", [CommandKind.NEW, CommandKind.CANCEL])
def test_commands_for_other_symbols_do_not_wait_for_a_long_work(
    shard: Shard, kind: CommandKind, symbol: str, passes: bool
) -> None:
    ids = {unpack_name(int(row["name"])): int(row["symbol_id"]) for row in shard.state.symbols}
    shard.ports.loop[SLICE_NS] = 1 << 62
    command = mass_cancel()
    command["flags"], command["symbol_id"] = CommandFlag.BY_SYMBOL, ids["AAPL"]
    shard.send(command)
    shard.run()
    shard.ports.loop[SLICE_NS] = 1 << 62
    assert shard.state.hdr[WORK_KIND] != WORK_NONE
    before = int(shard.ports.loop[COMMANDS])
    other = np.zeros(1, COMMAND)
    other["kind"], other["order_type"], other["qty"], other["px"] = kind, OrderType.LIMIT, 1, 5
    other["symbol"], other["symbol_id"] = pack_name("MSFT"), ids[symbol] if symbol else 0
    other["account"], other["session"], other["logon"], other["order_id"] = 1, 1, 1, 1
    shard.send(other)
    shard.run()
    assert int(shard.ports.loop[COMMANDS]) - before == passes
    assert shard.state.hdr[WORK_KIND] != WORK_NONE


def test_reader_that_never_follows_costs_a_long_work_its_patience_only(shard: Shard) -> None:
    shard.ports.loop[STOP] = 0
    shard.send(mass_cancel())
    outcome = RETURN_BUSY
    while shard.state.hdr[WORK_KIND] != WORK_NONE or outcome == RETURN_BUSY:
        outcome = shard.run()
    assert outcome == RETURN_IDLE
    assert int(shard.ports.event_ctrl[READER_POSITION]) < shard.position - shard.quarter
