"""Random order flow through a LocalExchange, and a test's own event rings to publish it from."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator

import numpy as np

from engine.config import Config, Instrument, Network
from engine.local import LocalExchange
from engine.records import (
    COMMAND,
    EVENT,
    EVENT_SLOT,
    UNSTATED,
    CommandFlag,
    CommandKind,
    EventKind,
    OrderType,
    Phase,
    RuleSet,
    SelfTrade,
    TimeInForce,
)
from engine.shm_ring import COMMITTED, EVENT_CTRL_WORDS, INTENT, EventRings, store_word
from feed.publisher import FeedParts, FeedPublisher

GROUP = "239.255.70.99"
# Four decimals; five (integer ticks); a tick of a whole unit.
INSTRUMENTS = (
    Instrument("AAPL", "0.01"),
    Instrument("TINY", "0.00001"),
    Instrument("BIG", "1", "0.001"),
)
WITH_FULL = (
    *INSTRUMENTS,
    Instrument("FULL", "0.01", rules="full", stp="decrement", protection=3),
    Instrument("SHARED", "0.01", rules="full", algorithm="pro_rata", lmm="2:30"),
    Instrument("CALLED", "0.01", rules="full", static_band=5000, dynamic_band=60, reference="10"),
)
CALLED = "CALLED"  # goes through phases
PEGS = (OrderType.PEG_PRIMARY, OrderType.PEG_MARKET, OrderType.PEG_MID)
START_NS = 1_780_000_000 * 10**9
_numbers = itertools.count()


class Flow:
    """A LocalExchange driven at random; `run` returns the events of so many commands."""

    def __init__(self, seed: int, instruments: tuple[Instrument, ...] = INSTRUMENTS) -> None:
        self.rng = random.Random(seed)
        self.exchange = LocalExchange(instruments, accounts=4)
        self.symbols = [i.symbol for i in instruments]
        self.ids = [self.exchange.symbol_id(s) for s in self.symbols]
        self.full = {
            self.exchange.symbol_id(i.symbol) for i in instruments if i.rule_set == RuleSet.FULL
        }
        self.called = self.exchange.symbol_id(CALLED)  # 0: it is not there
        self.live: list[tuple[int, int]] = []  # (order_id, account), may have ended
        self.time_ns = START_NS

    def _command(self, row: np.void) -> None:
        rng = self.rng
        self.time_ns += rng.randrange(10**6)
        row["in_ts"], row["account"] = self.time_ns, rng.randrange(1, 5)
        kind = rng.random()
        if self.called and rng.random() < 0.02:
            row["kind"], row["producer"], row["account"] = CommandKind.SET_PHASE, 1, 0
            row["symbol_id"] = self.called
            row["order_type"] = rng.choice((Phase.VOLATILITY_CALL, Phase.CONTINUOUS, *Phase))
            self.time_ns += rng.choice((0, 10**9))
        elif kind < 0.002:
            row["kind"] = CommandKind.MASS_CANCEL
        elif kind < 0.4 and self.live:
            row["order_id"], row["account"] = rng.choice(self.live)
            row["kind"] = CommandKind.CANCEL
            if kind < 0.2:
                row["kind"], row["side"], row["tif"] = CommandKind.REPLACE, UNSTATED, UNSTATED
                row["px"] = rng.choice((0, 0, 1_000 + rng.randrange(-15, 16)))
                row["qty"] = rng.choice((0, rng.randrange(1, 60)))
        else:
            side = rng.randrange(2)
            row["kind"], row["side"] = CommandKind.NEW, side
            row["symbol_id"] = rng.choice(self.ids)
            row["qty"], row["order_type"] = rng.randrange(1, 50), OrderType.LIMIT
            row["px"] = 1_000 + rng.randrange(-20, 12) * (1 if side == 0 else -1)
            if rng.random() < 0.1:
                row["px"], row["order_type"] = 0, OrderType.MARKET
            elif rng.random() < 0.1:
                row["tif"] = TimeInForce.IOC
            elif int(row["symbol_id"]) in self.full:
                self._options(row)

    def _options(self, row: np.void) -> None:
        rng = self.rng
        row["stp"] = rng.choice((SelfTrade.DEFAULT, SelfTrade.NONE, SelfTrade.EXPIRE_MAKER))
        choice = rng.random()
        if choice < 0.3:
            row["peak"] = rng.randrange(1, int(row["qty"]) + 1)
        elif choice < 0.45:
            row["flags"] = CommandFlag.HIDDEN
        elif choice < 0.6:
            row["flags"] = CommandFlag.POST_ONLY | CommandFlag.SLIDE
        elif choice < 0.7:
            row["min_qty"] = rng.randrange(1, int(row["qty"]) + 1)
        elif choice < 0.72:
            row["order_type"] = rng.choice(PEGS)
        elif choice < 0.75:
            row["tif"] = rng.choice((TimeInForce.AT_OPEN, TimeInForce.GOOD_FOR_AUCTION))
        elif choice < 0.8:
            row["tif"], row["expire_ts"] = TimeInForce.GTD, self.time_ns + rng.randrange(1, 10**8)

    def run(self, count: int) -> np.ndarray:
        """Step `count` random commands; returns their events."""
        parts = [self._run_some(min(50, count - done)) for done in range(0, count, 50)]
        return np.concatenate(parts)

    def _run_some(self, count: int) -> np.ndarray:
        commands = np.zeros(count, COMMAND)
        for row in commands:
            self._command(row)
        events = self.exchange.step(commands)
        entered = (events["kind"] == EventKind.BOOKED) | (events["kind"] == EventKind.PARKED)
        for event in events[entered]:
            self.live.append((int(event["order_id"]), int(event["account"])))
        self.live = self.live[-200:]
        return events


def free_port() -> int:
    """Return a UDP port nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def config(**network: object) -> Config:
    """Return a configuration whose channels nobody else uses."""
    ports = {"feed_port": free_port(), "directory_port": free_port(), "feed_group": GROUP}
    return Config(network=Network(**{**ports, **network}))  # type: ignore[arg-type]


class RingWriter:
    """Event rings without a name, and a writer that puts events into them as a shard does."""

    def __init__(self, shards: int = 1, capacity: int = 1 << 13) -> None:
        name = f"feedtest{os.getpid()}x{next(_numbers)}"
        self.rings = EventRings.create(name, shards, capacity)
        self.rings.unlink()
        self.position = [0] * shards

    def write(self, events: np.ndarray, shard: int = 0) -> None:
        """Commit EVENTs in batches that keep half the ring free."""
        rings, batch = self.rings, self.rings.capacity // 2
        words = rings.slots.view(np.int64).reshape(len(rings.slots), -1)
        for first in range(0, len(events), batch):
            part = np.ascontiguousarray(events[first : first + batch])
            at = self.position[shard]
            end = at + len(part)
            base = shard * EVENT_CTRL_WORDS
            store_word(rings.ctrl, base + INTENT, end)
            places = shard * rings.capacity + (np.arange(at, end) & (rings.capacity - 1))
            words[places, : EVENT.itemsize // 8] = part.view(np.int64).reshape(len(part), -1)
            store_word(rings.ctrl, base + COMMITTED, end)
            self.position[shard] = end

    def close(self) -> None:
        """Unmap the rings."""
        self.rings.close()


def publish_all(publisher: FeedPublisher, now_ns: int = 0) -> int:
    """Step until the rings are empty; returns datagrams sent."""
    sent = publisher.step(now_ns)
    while not publisher.idle:
        sent += publisher.step(now_ns)
    return sent


def open_feed(
    shards: int = 1, capacity: int = 1 << 13, **network: object
) -> Iterator[tuple[RingWriter, FeedParts]]:
    """Yield rings and the parts of a publisher on them; closes the rings."""
    writer = RingWriter(shards, capacity)
    yield writer, FeedParts(config(**network), writer.rings, epoch=7, started_ns=START_NS)
    writer.close()


def slots_of(events: np.ndarray) -> np.ndarray:
    """EVENTs as EVENT_SLOTs without receipts."""
    slots = np.zeros(len(events), EVENT_SLOT)
    for name in EVENT.names:
        slots[name] = events[name]
    return slots
