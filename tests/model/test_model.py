"""The oracle is checked too: its stream against the grammar, and the checker against lies."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.config import Instrument
from engine.records import COMMAND, CommandKind, EventFlag, EventKind, OrderType, Side
from tests.model.checks_model import BLANK_COMMAND
from tests.model.compare import COMMAND_ROW
from tests.model.desk_model import SUPERVISOR
from tests.model.exchange_model import ExchangeModel, start
from tests.model.flow import INSTRUMENTS, TEMPLATE, Flow, draw_world
from tests.model.stream_check import StreamChecker

Event = dict[str, Any]


@pytest.mark.parametrize("number", range(8))
def test_model_stream_contradicts_itself_nowhere(seed: int, number: int) -> None:
    world = draw_world(random.Random(seed))
    model = ExchangeModel(world.limits, unknown_symbol=world.unknown_symbol, template=TEMPLATE)
    stream = StreamChecker()
    stream.feed(start(model, INSTRUMENTS, world.accounts))
    flow = Flow(seed, world, model)
    for _ in range(500):
        stream.feed(model.apply(flow.next()))
        model.check()
    assert set(stream.lives) == set(model.orders)


def test_model_same_seed_gives_same_events() -> None:
    def run() -> list[Event]:
        world = draw_world(random.Random(5))
        model = ExchangeModel(world.limits, unknown_symbol="create", template=TEMPLATE)
        events = start(model, INSTRUMENTS, world.accounts)
        flow = Flow(5, world, model)
        return events + [event for _ in range(300) for event in model.apply(flow.next())]

    assert run() == run()


def small_story() -> tuple[ExchangeModel, list[Event]]:
    """Two resting sells, a buy that takes one and a half and rests nothing, then a cancel."""
    model = ExchangeModel()
    events = start(model, (Instrument("AA", "1", "1", "100"),), 2)
    new = {"kind": int(CommandKind.NEW), "symbol_id": 1, "order_type": int(OrderType.LIMIT)}
    one = {"account": 1, "session": 1, "logon": 1, "producer": SUPERVISOR}
    two = {"account": 2, "session": 2, "logon": 1, "producer": SUPERVISOR}
    sell = {"side": int(Side.SELL), "px": 50, "qty": 4}
    for fields in (
        new | one | sell,
        new | one | sell,
        new | two | {"side": int(Side.BUY), "px": 51, "qty": 6},
        new | two | {"side": int(Side.BUY), "px": 40, "qty": 1},
        one | {"kind": int(CommandKind.MASS_CANCEL)},
    ):
        events += model.apply(BLANK_COMMAND | fields)
    return model, events


def _nth(events: list[Event], kind: EventKind, n: int = 0) -> Event:
    return [event for event in events if event["kind"] == kind][n]


def _swap_fills(events: list[Event]) -> None:
    maker, taker = (events.index(_nth(events, EventKind.FILL, n)) for n in (0, 1))
    events[maker], events[taker] = events[taker], events[maker]


def _lose_the_last_booked(events: list[Event]) -> None:
    events.remove(_nth(events, EventKind.BOOKED, 2))
    _nth(events, EventKind.ACCEPTED, 3)["flags"] |= int(EventFlag.LAST)


def _set(kind: EventKind, n: int, **fields: int) -> Callable[[list[Event]], None]:
    return lambda events: _nth(events, kind, n).update(fields)


LIES: dict[str, Callable[[list[Event]], None]] = {
    "a gap in out_seq": _set(EventKind.BOOKED, 0, out_seq=99),
    "a gap in feed_seq": _set(EventKind.BOOKED, 0, feed_seq=99),
    "a gap in account_seq": _set(EventKind.FILL, 0, account_seq=99),
    "a gap in trade ids": _set(EventKind.FILL, 2, trade_id=7),
    "a reference used twice": _set(EventKind.BOOKED, 1, public_ref=1),
    "the taker before the maker": _swap_fills,
    "halves that disagree": _set(EventKind.FILL, 1, qty=1),
    "not the maker's price": _set(EventKind.FILL, 0, px=51),
    "the second in the queue first": _set(EventKind.FILL, 0, public_ref=2),
    "open quantity that does not add up": _set(EventKind.FILL, 3, leaves=1),
    "more cancelled than open": _set(EventKind.CANCELED, 0, qty=4),
    "speaking after the last event": _set(EventKind.ACCEPTED, 2, flags=int(EventFlag.LAST)),
    "an order booked at another price": _set(EventKind.BOOKED, 2, px=60),
    "an answer missing": lambda events: events.remove(_nth(events, EventKind.SUMMARY)),
    "accepted, open and nowhere": _lose_the_last_booked,
}


def check_whole(events: list[Event]) -> None:
    """Check a stream that must end where a command ends."""
    checker = StreamChecker()
    checker.feed(events)
    assert not checker.group, "the last command never ended"


def test_stream_checker_accepts_the_truth() -> None:
    _, events = small_story()
    check_whole(events)


@pytest.mark.parametrize("lie", LIES)
def test_stream_checker_sees_lie(lie: str) -> None:
    _, events = small_story()
    LIES[lie](events)
    with pytest.raises((AssertionError, KeyError)):
        check_whole(events)


def test_model_takes_records_as_well_as_dicts() -> None:
    model, _ = small_story()
    twin, _ = small_story()
    who = {"account": 1, "session": 1, "logon": 1, "producer": SUPERVISOR}
    command = BLANK_COMMAND | who | {"kind": int(CommandKind.NEW), "symbol_id": 1, "px": 7}
    command |= {"order_type": int(OrderType.LIMIT), "qty": 3, "flags": 16, "text": b"spring"}
    record = np.array([tuple(command.values())], COMMAND_ROW).view(COMMAND)[0]
    assert model.apply(record) == twin.apply(command)
    assert model.state_digest() == twin.state_digest()


def test_state_digest_sees_priority_but_no_ids() -> None:
    model, _ = small_story()
    digest = model.state_digest()
    (order,) = model.orders.values()
    order.order_id += 1 << 24
    order.public_ref += 1
    assert model.state_digest() == digest
    order.total += 1
    assert model.state_digest() != digest
