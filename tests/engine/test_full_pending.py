"""Orders that wait for a trigger: hundreds of them, against a list that is simply searched."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from engine.book_check import BrokenInvariant, check_state
from engine.book_state import NONE, ShardState
from engine.config import Instrument, ShardLimits
from engine.local import LocalExchange
from engine.records import COMMAND, CommandFlag, CommandKind, EventKind, OrderType, Side
from engine.state_hash import state_hash

pytestmark = [pytest.mark.flavour]

LIMITS = ShardLimits(
    orders_max=1024, levels_max=64, symbols_max=4, sessions_max=8, accounts_max=8, text_ids_max=8,
    slice_events=64, events_per_command_max=4096, batch_max=64,
)  # fmt: skip
KINDS = (OrderType.STOP, OrderType.TAKE_PROFIT)


@dataclass(frozen=True)
class Waiting:
    """One that waits: what a wave has to know of it."""

    order_id: int
    side: int
    kind: int
    trigger: int
    number: int

    def reached(self, px: int) -> bool:
        upwards = (self.side == Side.BUY) == (self.kind == OrderType.STOP)
        return px >= self.trigger if upwards else px <= self.trigger

    @property
    def turn(self) -> tuple[int, int, int]:
        return (self.side, self.trigger if self.side == Side.BUY else -self.trigger, self.number)


def exchange() -> LocalExchange:
    return LocalExchange(
        (Instrument("AA", "1", "1", "1000", rules="full"),), accounts=3, limits=LIMITS
    )


def command(account: int = 1, **fields: int) -> np.ndarray:
    record = np.zeros(1, COMMAND)
    record["producer"], record["logon"] = 1, 1
    record["session"] = record["account"] = account
    record["symbol_id"] = 1
    for name, value in fields.items():
        record[name] = value
    return record


def new(account: int, kind: OrderType, side: Side, **fields: int) -> np.ndarray:
    return command(account, kind=CommandKind.NEW, order_type=kind, side=side, qty=1, **fields)


def trade(venue: LocalExchange, px: int) -> np.ndarray:
    """Two strangers trade at px; what came of it."""
    venue.step(new(2, OrderType.LIMIT, Side.SELL, px=px))
    return venue.step(new(3, OrderType.LIMIT, Side.BUY, px=px))


def deepest(state: ShardState) -> int:
    """Longest way along right children, over all heaps."""
    longest = 0
    for slot in state.rules[1]["triggers"].tolist():
        steps = 0
        while slot != NONE:
            slot, steps = int(state.pending[slot]["right"]), steps + 1
        longest = max(longest, steps)
    return longest


@pytest.mark.parametrize("seed", range(4))
def test_a_trade_elects_exactly_those_it_reaches_in_their_order(seed: int) -> None:
    choose, venue, number = random.Random(seed), exchange(), 0
    waiting: list[Waiting] = []
    trade(venue, 500)
    last = 500
    for _ in range(250):
        if choose.random() < 0.75 and len(waiting) < 900:
            side, kind = choose.choice(list(Side)), choose.choice(KINDS)
            made = Waiting(0, side, kind, choose.randint(1, 999), number := number + 1)
            events = venue.step(new(1, kind, side, px2=made.trigger))
            assert (events["kind"][0] == EventKind.REJECTED) == made.reached(last)
            if not made.reached(last):
                order_id = int(events["order_id"][0])
                waiting.append(Waiting(order_id, side, kind, made.trigger, number))
        elif waiting and choose.random() < 0.7:
            gone = waiting.pop(choose.randrange(len(waiting)))
            events = venue.step(command(kind=CommandKind.CANCEL, order_id=gone.order_id))
            assert events["kind"].tolist() == [EventKind.CANCELED]
        else:
            last = min(max(last + choose.randint(-60, 60), 1), 999)
            events = trade(venue, last)
            elected = sorted((w for w in waiting if w.reached(last)), key=lambda w: w.turn)
            fired = events[events["kind"] == EventKind.TRIGGERED]["order_id"]
            assert fired.tolist() == [w.order_id for w in elected]
            waiting = [w for w in waiting if not w.reached(last)]
        assert int(venue.state.rules[1]["watched"]) == len(waiting)
        assert 2 ** deepest(venue.state) <= len(waiting) + 1
    check_state(venue.state)


def test_nobody_waits_and_what_was_traded_elects_nobody_who_comes_later() -> None:
    venue = exchange()
    trade(venue, 600)
    trade(venue, 500)
    fresh = state_hash(venue.state)
    assert int(venue.state.rules[1]["watched"]) == 0
    events = venue.step(new(1, OrderType.STOP, Side.BUY, px2=501))
    assert EventKind.TRIGGERED not in events["kind"].tolist()
    assert state_hash(venue.state) != fresh
    venue.step(command(kind=CommandKind.CANCEL, order_id=int(events["order_id"][0])))
    assert int(venue.state.rules[1]["watched"]) == 0
    check_state(venue.state)


def test_the_hash_knows_every_term_of_an_order_that_waits() -> None:
    venues = [exchange() for _ in range(4)]
    terms: list[dict[str, int]] = [
        {"px2": 500}, {"px2": 501}, {"px2": 500, "flags": CommandFlag.TRIGGER_BEST}, {"px2": 500},
    ]  # fmt: skip
    for venue, more in zip(venues, terms, strict=True):
        venue.step(new(1, OrderType.STOP, Side.BUY, **more))
    hashes = [state_hash(venue.state) for venue in venues]
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3
    assert len({venue.state_digest() for venue in venues}) == 3


@pytest.mark.parametrize(
    ("name", "value"), [("trigger", 3), ("parent", 9), ("rank", 7), ("waits", 0), ("wait", 99)]
)
def test_the_check_sees_a_broken_heap(name: str, value: int) -> None:
    venue = exchange()
    for trigger in (700, 600, 500, 650):
        venue.step(new(1, OrderType.STOP, Side.BUY, px2=trigger))
    check_state(venue.state)
    root = int(venue.state.rules[1]["triggers"][0])
    child = int(venue.state.pending[root]["left"])
    rows = venue.state.more if name == "waits" else venue.state.pending
    rows[name][child] = value
    with pytest.raises(BrokenInvariant, match=r"waiting|watched|wait|leads"):
        check_state(venue.state)
