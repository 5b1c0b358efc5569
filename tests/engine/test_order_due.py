"""Orders that expire by themselves: the heap against a sorted list, and who goes first."""

import random

import numpy as np
import pytest

from engine.book_check import check_state
from engine.book_state import DUE_COUNT
from engine.config import Instrument, ShardLimits
from engine.local import LocalExchange
from engine.records import COMMAND, CommandKind, EventKind, OrderType, Reason, TimeInForce

pytestmark = [pytest.mark.flavour]

LIMITS = ShardLimits(
    orders_max=64, levels_max=32, symbols_max=4, sessions_max=8, accounts_max=8, text_ids_max=8,
    slice_events=32, events_per_command_max=256, batch_max=64,
)  # fmt: skip


def exchange() -> LocalExchange:
    return LocalExchange(
        (Instrument("AA", "1", "1", "1000", rules="full"),), accounts=2, limits=LIMITS
    )


def command(in_ts: int, **fields: int) -> np.ndarray:
    record = np.zeros(1, COMMAND)
    record["producer"], record["session"], record["logon"], record["account"] = 1, 1, 1, 1
    record["symbol_id"], record["in_ts"] = 1, in_ts
    for name, value in fields.items():
        record[name] = value
    return record


def order(in_ts: int, px: int, expire_ts: int) -> np.ndarray:
    return command(
        in_ts, kind=CommandKind.NEW, order_type=OrderType.LIMIT, tif=TimeInForce.GTD, px=px, qty=1,
        expire_ts=expire_ts,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_random_lives_expire_in_the_order_of_time_and_entry(seed: int) -> None:
    choose, venue = random.Random(seed), exchange()
    waiting: list[tuple[int, int]] = []  # (time, order_id)
    now = 1
    for _ in range(400):
        now += choose.choice((0, 1, 5))
        gone = sorted(row for row in waiting if row[0] <= now)
        waiting = [row for row in waiting if row[0] > now]
        if len(waiting) < 50 and choose.random() < 0.7:
            at = now + choose.randint(1, 60)
            events = venue.step(order(now, choose.randint(1, 20), at))
            accepted = events[events["kind"] == EventKind.ACCEPTED]
            assert len(accepted) == 1
            waiting.append((at, int(accepted["order_id"][0])))
        elif waiting:
            at, target = waiting.pop(choose.randrange(len(waiting)))
            if choose.random() < 0.5:
                at = now + choose.randint(1, 60)
                fields = {"kind": CommandKind.REPLACE, "side": 255, "tif": 255, "expire_ts": at}
                waiting.append((at, target))
            else:
                fields = {"kind": CommandKind.CANCEL}
            events = venue.step(command(now, order_id=target, symbol_id=0, **fields))
        else:
            events = venue.advance(now)
        expired = events[events["kind"] == EventKind.EXPIRED]
        assert expired["order_id"].tolist() == [order_id for _, order_id in gone]
        assert (expired["reason"] == Reason.GTD).all()
        assert int(venue.state.hdr[DUE_COUNT]) == len(waiting)
        check_state(venue.state)
    events = venue.advance(now + 1000)
    assert events["order_id"].tolist() == [order_id for _, order_id in sorted(waiting)]
    assert len(venue.advance(now + 1001)) == venue.state.hdr[DUE_COUNT] == 0


def test_an_order_goes_before_a_session_of_the_same_time() -> None:
    venue = exchange()
    opening = command(1, kind=CommandKind.SESSION_OPEN, logon=2, symbol_id=0, session=0, amount=99)
    opening["text"][0, :5] = np.frombuffer(b"local", np.uint8)
    venue.step(opening)
    stays = order(1, 10, 500)
    goes = order(1, 11, 100)
    for record in (stays, goes):
        record["logon"] = 2
        venue.step(record)
    events = venue.advance(100)  # dead-man time of the session: 1 + 99
    assert [EventKind(kind).name for kind in events["kind"]] == ["EXPIRED", "CANCELED", "SUMMARY"]
    assert (events["px"][0], events["px"][1]) == (11, 10)


def test_a_pause_moves_no_expiry() -> None:
    venue = exchange()
    venue.step(order(1, 10, 100))
    venue.step(command(50, kind=CommandKind.TIME, producer=0, session=0, logon=0, account=0,
                       symbol_id=0, amount=1000))  # fmt: skip
    check_state(venue.state)
    assert venue.advance(100)["kind"].tolist() == [EventKind.EXPIRED]


@pytest.mark.parametrize("order_id", [-1, 1, 2**40, 5 << 24])
def test_a_time_that_names_no_waiting_order_does_nothing(order_id: int) -> None:
    venue = exchange()
    venue.step(order(1, 10, 100))
    time = command(50, kind=CommandKind.TIME, producer=0, session=0, logon=0, account=0,
                   symbol_id=0)  # fmt: skip
    time["order_id"] = order_id
    assert len(venue.step(time)) == 0
