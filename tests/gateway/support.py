"""An exchange without processes for the tests of the gateway: real rings, the real compiled step,
no loop of its own.

`StandIn.run()` reads every command that is ready, runs it through LocalExchange and publishes its
events with receipts, just as a shard would between two looks of the gateway. Tests decide when that
happens, so nothing has to be waited for.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from engine.config import Account, Config, GatewayLimits, Instrument, Rings, ShardLimits, Throttle
from engine.local import LocalExchange
from engine.records import (
    BOOK_TOP,
    COMMAND,
    EVENT,
    EVENT_SLOT,
    SYMBOL_INDEX_BITS,
    TOP_LEVELS,
    CommandKind,
    EventKind,
    Phase,
    Reason,
    pack_name,
)
from engine.shm_ring import (
    COMMITTED,
    CONSUMER_POSITION,
    CTRL_WORDS,
    EVENT_CTRL_WORDS,
    INTENT,
    CommandRings,
    EventRings,
    load_word,
    store_word,
)
from gateway.connection import Client
from gateway.desk import Desk
from gateway.directory import shard_of_name
from gateway.parts import GatewayParts

LIMITS = ShardLimits(
    orders_max=4096, levels_max=1024, symbols_max=16, sessions_max=64, accounts_max=64,
    text_ids_max=256,
    slice_events=500, events_per_command_max=1024,
)  # fmt: skip
INSTRUMENTS = (
    Instrument("AAPL", "0.01", "1"), Instrument("BTCUSDT", "0.01", "0.00001"), Instrument("TICK5",
    "0.05", "10"),
    Instrument("BIG", "1000", "1"), Instrument('Q"\\', "0.25", "1"),
)  # fmt: skip
ACCOUNTS = (
    Account("demo", 1, "demo", "unlimited"), Account("alice", 2, "secret", "unlimited"),
    Account("slow", 3, "slow", "slow"),
)  # fmt: skip
THROTTLES = (Throttle("unlimited", 0, 0), Throttle("slow", 5, 10, 1, 1.5), Throttle("normal"))
PRODUCER, READER = 2, 0


def make_config(**changes: Any) -> Config:
    """A small configuration."""
    values: dict[str, Any] = {
        "instance": f"t{os.getpid() % 10**6}_{uuid.uuid4().hex[:8]}", "shards": 1,
        "instruments": INSTRUMENTS,
        "accounts": ACCOUNTS, "throttles": THROTTLES, "shard": LIMITS, "rings": Rings(4, 256, 4096),
        "gateway": GatewayLimits(auth_failure_delay_s=0.01),
    }  # fmt: skip
    return Config(**(values | changes)).check()


class StandIn:
    """The shards of an instance, run by hand."""

    def __init__(self, config: Config) -> None:
        self.config = config
        rings = config.rings
        self.commands = CommandRings.create(
            config.instance, config.shards, rings.producers, rings.command_capacity
        )
        self.events = EventRings.create(config.instance, config.shards, rings.event_capacity)
        self.tops = np.zeros(config.shards * (config.shard.symbols_max + 1), BOOK_TOP)
        self.seen: list[Any] = []  # every COMMAND taken
        self.shards: list[Any] = []
        self.start()
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(config.shards)]
        self.reader_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.logons = 0
        self.up = [True] * config.shards

    def start(self) -> None:
        """Make the shards and list the instruments."""
        config = self.config
        for shard in range(config.shards):
            mine = self.instruments_of(shard)
            exchange = LocalExchange(
                mine,
                accounts=len(config.accounts),
                limits=config.shard,
                unknown_symbol=config.unknown_symbol,
                template=config.template,
                shard=shard,
            )
            self.shards.append(exchange)
            self._publish(shard, exchange.startup_events, None)
            for instrument in mine:
                self.top(shard, instrument.symbol)

    def instruments_of(self, shard: int) -> tuple[Instrument, ...]:
        """The configured instruments whose place is this shard."""
        config = self.config
        return tuple(
            i for i in config.instruments if shard_of_name(i.symbol, config.shards) == shard
        )

    def step(self, shard: int, command: Any) -> Any:
        """Run one command; returns its events. A sign of life is noted (`seen`), nothing else."""
        if command["kind"] == CommandKind.SESSION_KEEP:
            return np.zeros(0, EVENT)
        return self.shards[shard].step(np.array([command], COMMAND))

    def parts(self, **changes: Any) -> GatewayParts:
        """What topology would hand to a gateway."""

        def next_logon() -> int:
            self.logons += 1
            return self.logons + 10

        values: dict[str, Any] = {
            "config": self.config, "producer": PRODUCER, "reader": READER,
            "command_rings": self.commands,
            "event_rings": self.events, "tops": self.tops, "shard_fds": self.fds,
            "reader_fd": self.reader_fd,
            "next_logon": next_logon, "shard_up": lambda shard: self.up[shard],
        }  # fmt: skip
        return GatewayParts(**(values | changes))

    def take(self, shard: int, producer: int) -> list[Any]:
        """All ready commands of one ring, which then has room again."""
        rings, ring = self.commands, self.commands.ring(shard, producer)
        place = ring * CTRL_WORDS + CONSUMER_POSITION
        position, taken = int(load_word(rings.ctrl, place)), []
        while True:
            slot = ring * rings.capacity + (position & (rings.capacity - 1))
            if int(rings.slots[slot]["producer_seq"]) != position + 1:
                break
            taken.append(rings.slots[slot].copy())
            position += 1
        store_word(rings.ctrl, place, position)
        return taken

    def run(self) -> int:
        """Do everything that is asked; returns how many commands that was."""
        done = 0
        for shard in range(self.config.shards):
            for producer in range(1, self.config.rings.producers):
                for command in self.take(shard, producer):
                    self.seen.append(command)
                    self._publish(shard, self.step(shard, command), command)
                    done += 1
        return done

    def _publish(self, shard: int, events: Any, command: Any) -> None:
        base, capacity = shard * EVENT_CTRL_WORDS, self.events.capacity
        position = int(load_word(self.events.ctrl, base + COMMITTED))
        store_word(self.events.ctrl, base + INTENT, position + len(events))
        now = time.monotonic_ns()
        for index, event in enumerate(events):
            slot = np.zeros(1, EVENT_SLOT)[0]
            for name in event.dtype.names:
                slot[name] = event[name]
            if command is not None:
                slot["receipt_gateway_in"], slot["receipt_producer_seq"] = (
                    command["receipt_ts"],
                    command["producer_seq"],
                )
                slot["receipt_shard_in"] = slot["receipt_shard_out"] = now
            self.events.slots[shard * capacity + ((position + index) & (capacity - 1))] = slot
        store_word(self.events.ctrl, base + COMMITTED, position + len(events))

    def top(self, shard: int, symbol: str) -> None:
        """Write the book top of a symbol."""
        exchange = self.shards[shard]
        instrument = next(
            (i for i in self.config.instruments if i.symbol == symbol), self.config.template
        )
        symbol_id = exchange.symbol_id(symbol)
        top = self.tops[shard * (self.config.shard.symbols_max + 1) + (symbol_id & 0xFFFF)]
        top["symbol"], top["symbol_id"] = pack_name(symbol), symbol_id
        top["tick"], top["lot"], top["px_max"] = (
            instrument.tick_units,
            instrument.lot_units,
            instrument.px_max,
        )
        top["phase"], top["out_seq"] = Phase.CONTINUOUS, exchange.position
        for name, rows in zip(("bids", "asks"), exchange.book(symbol, TOP_LEVELS), strict=True):
            flat = np.zeros(TOP_LEVELS * 3, np.int64)
            flat[: rows.size] = rows.reshape(-1)
            top[name] = flat

    def digests(self) -> list[str]:
        """State digests of the shards."""
        return [exchange.state_digest() for exchange in self.shards]

    def close(self) -> None:
        """Give everything back."""
        for fd in (*self.fds, self.reader_fd):
            os.close(fd)
        for rings in (self.commands, self.events):
            rings.close()
            rings.unlink()


class SessionsOnly(StandIn):
    """Shards that open sessions and do nothing else: for tests of the codec, without the engine."""

    def start(self) -> None:
        for shard in range(self.config.shards):
            for index, instrument in enumerate(self.instruments_of(shard), 1):
                top = self.tops[shard * (self.config.shard.symbols_max + 1) + index]
                top["symbol"] = pack_name(instrument.symbol)
                top["symbol_id"] = shard << SYMBOL_INDEX_BITS | index
                top["tick"], top["lot"] = instrument.tick_units, instrument.lot_units
                top["px_max"] = instrument.px_max

    def step(self, shard: int, command: Any) -> Any:
        event = np.zeros(1, EVENT)
        if command["kind"] != CommandKind.SESSION_OPEN:
            return event[:0]
        event["kind"], event["reason"] = EventKind.ACCOUNT, Reason.SESSION_OPENED
        event["account"], event["session"] = command["account"], 7
        event["account_seq"], event["amount"] = 1, command["logon"]
        event["text"][0] = command["text"]
        return event


class FakeClient(Client):
    """A connection that is a list."""

    def __init__(self) -> None:
        self.output = b""
        self.paused = self.hung_up = False

    def send(self, data: bytes | memoryview) -> None:
        self.output += bytes(data)

    def hang_up(self) -> None:
        self.hung_up = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Bench:
    """A desk with a stand-in exchange and clients made of lists."""

    def __init__(
        self,
        config: Config | None = None,
        exchange: Callable[[Config], StandIn] = StandIn,
        **parts: Any,
    ) -> None:
        self.config = config or make_config()
        self.exchange = exchange(self.config)
        self.later: list[Any] = []
        self.desk = Desk(
            self.exchange.parts(**parts), lambda delay, call: self.later.append((delay, call))
        )

    def connect(self) -> FakeClient:
        """A new connection."""
        client = FakeClient()
        self.desk.on_connect(client)
        return client

    def feed(self, client: FakeClient, data: bytes) -> None:
        """Bytes arrive; nothing else happens."""
        buffer = self.desk.buffer
        buffer.room[: len(data)] = data
        self.desk.on_bytes(client, len(data))

    def settle(self) -> None:
        """The exchange answers until nothing moves any more."""
        quiet = 0
        for _ in range(1000):
            before = [len(client.backlog or b"") for client in self.desk.clients]
            moved = self.exchange.run()
            moved += self.desk.pump()
            moved += self.desk.retry()
            still = not moved and before == [len(c.backlog or b"") for c in self.desk.clients]
            # A turn may end by its share of time with lines left: several quiet turns are rest.
            quiet = quiet + 1 if still else 0
            if quiet == 3:
                return
        raise AssertionError("does not come to rest")

    def say(self, client: FakeClient, *lines: bytes | dict[str, Any]) -> list[dict[str, Any]]:
        """Send lines, let everything happen, return what the client got."""
        for line in lines:
            self.feed(
                client, line + b"\n" if isinstance(line, bytes) else orjson.dumps(line) + b"\n"
            )
            self.settle()
        return self.heard(client)

    def heard(self, client: FakeClient) -> list[dict[str, Any]]:
        """What a client got since the last call."""
        data, client.output = client.output, b""
        assert data == b"" or data.endswith(b"\n")
        return [orjson.loads(line) for line in data.splitlines()]

    def log_on(self, account: str = "demo", token: str = "", **more: Any) -> FakeClient:
        """A connection that is logged on."""
        client = self.connect()
        token = token or next(a.token for a in self.config.accounts if a.name == account)
        answers = self.say(client, {"type": "logon", "account": account, "token": token, **more})
        assert [a["type"] for a in answers] == ["logon"], answers
        return client

    def close(self) -> None:
        """Give everything back."""
        self.exchange.close()


@contextmanager
def bench(config: Config | None = None, **parts: Any) -> Iterator[Bench]:
    """A Bench that is closed again."""
    made = Bench(config, **parts)
    try:
        yield made
    finally:
        made.close()
