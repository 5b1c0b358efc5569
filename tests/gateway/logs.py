"""Event logs for the tests of resume and laps: kept in memory, as slow and as forgetful as a test
wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from engine.config import Config
from engine.records import EVENT, EventKind
from gateway.parts import GatewayParts
from tests.gateway.support import Bench, FakeClient, StandIn

PIECE = 5  # events


class FakeLog:
    """What gateway/parts.py asks of an event log."""

    def __init__(self) -> None:
        self.events = np.zeros(0, EVENT)
        self.first = 1  # older ones are not kept
        self.limit: int | None = None  # it has not come further than this
        self.broken = False
        self.pieces = 0  # handed out

    def oldest(self) -> int:
        return self.first

    def end(self) -> int:
        written = int(self.events["out_seq"][-1]) if len(self.events) else 0
        return written if self.limit is None else min(written, self.limit)

    def _kept(self) -> Any:
        if self.broken:
            raise OSError(5, "Input/output error")
        numbers = self.events["out_seq"]
        return self.events[(numbers >= self.first) & (numbers <= self.end())]

    def read(self, after_out_seq: int, count: int) -> Any:
        kept = self._kept()
        if after_out_seq + 1 < self.first:
            raise LookupError(f"event {after_out_seq + 1}")
        return kept[kept["out_seq"] > after_out_seq][:count]

    def account(self, account: int, after: int, until: int) -> Iterator[Any]:
        while after < until:
            kept = self._kept()
            numbers = kept["account_seq"]
            rows = kept[(kept["account"] == account) & (numbers > after) & (numbers <= until)]
            if not len(rows) or int(rows["account_seq"][0]) != after + 1:
                raise LookupError(f"event {after + 1} of account {account}")
            self.pieces += 1
            yield rows[:PIECE].copy()
            after += len(rows[:PIECE])


class Kept(StandIn):
    """A StandIn whose events are kept, and whose shards say which incarnation it is."""

    def __init__(self, config: Config) -> None:
        self.logs = [FakeLog() for _ in range(config.shards)]
        self.waits = [0] * config.shards
        self.incarnation = 3
        super().__init__(config)

    def step(self, shard: int, command: Any) -> Any:
        events = super().step(shard, command)
        events["amount2"][events["kind"] == EventKind.ACCOUNT] = self.incarnation
        return events

    def _publish(self, shard: int, events: Any, command: Any) -> None:
        log = self.logs[shard]
        log.events = np.concatenate([log.events, events])
        super()._publish(shard, events, command)

    def log_wait(self, shard: int, count: int) -> None:
        self.waits[shard] += count

    def parts(self, **changes: Any) -> GatewayParts:
        ours = {
            "logs": self.logs,
            "log_end": lambda shard: self.logs[shard].end(),
            "log_wait": self.log_wait,
        }
        return super().parts(**{**ours, **changes})


class LogBench(Bench):
    """A Bench whose shards keep their events."""

    exchange: Kept

    def __init__(self, config: Config | None = None, **parts: Any) -> None:
        super().__init__(config, Kept, **parts)

    def restart(self, **parts: Any) -> None:
        """The gateway dies, and another takes its place."""
        from gateway.desk import Desk

        self.later = []
        self.desk = Desk(
            self.exchange.parts(**parts), lambda delay, call: self.later.append((delay, call))
        )

    def ask(self, client: FakeClient, line: dict[str, Any]) -> None:
        """Send a line; the exchange works, the gateway does nothing more."""
        self.feed(client, orjson.dumps(line) + b"\n")
        self.exchange.run()

    def turn(self, times: int = 1) -> None:
        """The gateway looks at its rings and logs."""
        for _ in range(times):
            self.desk.pump()


def resumed(last: dict[int, int]) -> str:
    """The logon key `resume`."""
    return ",".join(f"{shard}:{seq}" for shard, seq in last.items())
