"""Workloads are golden: the generator's bytes, and what the engine makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.flow import CANCEL, IOC, RECORD
from bench.matching import new_exchange, run_engine
from bench.workload import (
    GOLDEN,
    MIXES,
    TradeTally,
    generate,
    named,
    symbol_name,
    to_commands,
    to_json_lines,
)
from engine.jit import JIT_DISABLED
from engine.local import LocalExchange
from engine.records import EVENT, CommandKind, EventKind, Role, TimeInForce

needs_jit = pytest.mark.skipif(JIT_DISABLED, reason="a million operations want compiled code")

# From bench/workloads.py of the shared folder, where nine engines agree on them.
EXPECTED = {
    "W1": dict(
        adds=557240,
        cancels=392655,
        iocs=50105,
        aggressive_orders_that_traded=52711,
        max_id=617345,
        live_end=9962,
        pmin=9855,
        pmax=10243,
        mean_live=9357.607,
        fills_per_ioc=4.155373715198084,
        ioc_levels=1.2979742540664605,
    ),
    "W2": dict(
        adds=508582,
        cancels=441143,
        iocs=50275,
        aggressive_orders_that_traded=52048,
        max_id=622857,
        live_end=64275,
        pmin=9775,
        pmax=10134,
        mean_live=61288.513,
        fills_per_ioc=2.235425161611139,
        ioc_levels=1.301024365987071,
    ),
}


@needs_jit
@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.later
def test_generator_reproduces_the_golden_workload_byte_for_byte(name: str) -> None:
    workload = generate(MIXES[name])
    digest, outcome = GOLDEN[name]
    assert workload.sha256 == digest
    assert workload.outcome == outcome
    assert workload.statistics == EXPECTED[name]


def test_record_is_the_sixteen_byte_file_format() -> None:
    assert RECORD.itemsize == 16
    assert [RECORD.fields[n][1] for n in RECORD.names] == [0, 1, 2, 4, 8, 12]


def test_generator_gives_the_same_bytes_twice() -> None:
    first, second = generate(MIXES["tiny"]), generate(MIXES["tiny"])
    assert first.sha256 == second.sha256
    assert first.outcome == second.outcome
    assert first.outcome.trades > 0


def test_every_cancel_names_an_order_that_rests_and_no_id_is_used_twice() -> None:
    records = named("tiny").records
    new = records[records["type"] != CANCEL]
    assert (np.diff(new["id"].astype(np.int64)) == 1).all()
    assert new["id"][0] == 1
    resting = set(records[records["type"] == 0]["id"].tolist())
    cancelled = records[records["type"] == CANCEL]["id"].tolist()
    assert len(set(cancelled)) == len(cancelled)
    assert set(cancelled) <= resting


def test_commands_carry_the_records_fields() -> None:
    records = named("tiny").records
    ids = np.array([70, 71, 72], np.int32)
    commands = to_commands(records, ids, account=4)
    cancel = records["type"] == CANCEL
    assert (commands["kind"][cancel] == CommandKind.CANCEL).all()
    assert (commands["target_client_order_id"][cancel] == records["id"][cancel]).all()
    assert not commands["client_order_id"][cancel].any()
    assert (commands["kind"][~cancel] == CommandKind.NEW).all()
    assert (commands["client_order_id"][~cancel] == records["id"][~cancel]).all()
    assert (commands["px"][~cancel] == records["price"][~cancel]).all()
    assert (commands["symbol_id"] == 70 + records["sym"].astype(int)).all()
    assert (commands["account"] == 4).all()
    assert ((commands["tif"] == TimeInForce.IOC) == (records["type"] == IOC)).all()


def test_json_lines_carry_the_records_fields() -> None:
    records = np.array(
        [(0, 0, 1, 7, 10005, 1), (2, 1, 0, 9, 9999, 2), (1, 0, 1, 0, 10005, 1)], RECORD
    )
    assert to_json_lines(records, "X") == [
        b'{"type":"new","id":1,"symbol":"X001","side":"buy","price":100.05,"qty":7}\n',
        b'{"type":"new","id":2,"symbol":"X000","side":"sell","price":99.99,"qty":9,"tif":"ioc"}\n',
        b'{"type":"cancel","symbol":"X001","target_id":1}\n',
    ]
    assert symbol_name(1, "X") == "X001"


def _fill(role: Role, client_order_id: int, px: int, qty: int) -> np.ndarray:
    event = np.zeros(1, EVENT)
    event["kind"], event["role"] = EventKind.FILL, role
    event["client_order_id"], event["px"], event["qty"] = client_order_id, px, qty
    return event


def test_tally_follows_the_checksum_formula_and_the_order_of_trades() -> None:
    trades = [(3, 9, 10_001, 5), (2**31, 10, 2**20, 2**31 - 1)]  # maker, taker, price, quantity
    expected = 0
    for maker, taker, px, qty in trades:
        pair, size = maker | taker << 32, qty | px << 32
        expected = ((expected * 6364136223846793005 + pair) ^ size) & (2**64 - 1)
    fills = [
        event
        for maker, taker, px, qty in trades
        for event in (_fill(Role.MAKER, maker, px, qty), _fill(Role.TAKER, taker, px, qty))
    ]
    one_by_one, reversed_order = TradeTally(), TradeTally()
    for event in fills:
        one_by_one.add(event)
    reversed_order.add(np.concatenate(fills[2:] + fills[:2]))
    assert one_by_one.outcome.checksum == f"{expected:016x}"
    assert (one_by_one.outcome.trades, one_by_one.outcome.volume) == (2, 5 + 2**31 - 1)
    assert reversed_order.outcome.checksum != f"{expected:016x}"


def test_tally_ignores_events_that_are_no_fills() -> None:
    tally = TradeTally()
    event = _fill(Role.TAKER, 1, 1, 1)
    event["kind"] = EventKind.BOOKED
    tally.add(event)
    assert tally.outcome.trades == 0


def _through_local_exchange(name: str) -> tuple[LocalExchange, TradeTally]:
    workload = named(name)
    exchange = new_exchange(workload)
    ids = [exchange.symbol_id(symbol_name(i)) for i in range(workload.mix.symbols)]
    commands = to_commands(workload.records, np.array(ids, np.int32))
    tally = TradeTally()
    for first in range(0, commands.size, 8192):
        tally.add(exchange.step(commands[first : first + 8192]))
    return exchange, tally


@needs_jit
@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.later
def test_local_exchange_reaches_the_golden_outcome(name: str) -> None:
    exchange, tally = _through_local_exchange(name)
    assert tally.outcome == GOLDEN[name][1]
    resting = sum(
        int(side[:, 2].sum())
        for i in range(named(name).mix.symbols)
        for side in exchange.book(symbol_name(i))
    )
    assert resting == EXPECTED[name]["live_end"]


@pytest.mark.flavour
@pytest.mark.nojit
def test_local_exchange_reaches_the_outcome_of_a_small_mix() -> None:
    exchange, tally = _through_local_exchange("tiny")
    assert tally.outcome == named("tiny").outcome
    exchange.check()


@needs_jit
def test_timed_matching_run_checks_the_answer_it_timed() -> None:
    ns_per_operation, outcome = run_engine("tiny")
    assert outcome == named("tiny").outcome
    assert ns_per_operation > 0
