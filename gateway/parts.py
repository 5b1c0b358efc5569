"""What a gateway is given from outside.

Cold. `engine/topology.py` builds a GatewayParts and calls serve_gateway; the gateway imports no
wiring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.config import Config
from engine.counters import Block
from engine.shm_ring import CommandRings, EventRings


@dataclass
class GatewayParts:
    """All that a gateway needs from outside. Rings may be None: the shards are absent, `reconnect`
    is asked each 0.5 s.

    tops: BOOK_TOP[shards * (symbols_max + 1)] (BookTops.records); place of a symbol: shard *
        (symbols_max + 1) + index, index 0 is nobody.
    shard_fds, reader_fd: eventfds; the gateway signals the former when a shard sleeps and sleeps
        on the latter.
    next_logon: a number higher than any it gave before, over all gateways and restarts.
    reconnect: gives the parts with rings once the shards are there, else None.
    shard_up: whether a shard serves (heartbeat); None: always. Asked each 0.1 s, must be cheap.
    deep_book(symbol_id, depth): rows (price ticks, lots, orders) of both sides, for books deeper
        than BOOK_TOP; or None.
    on_ready(port) is called once, when connections are accepted.
    """

    config: Config
    producer: int
    reader: int
    command_rings: CommandRings | None = None
    event_rings: EventRings | None = None
    tops: np.ndarray[Any, Any] | None = None
    counters: Block | None = None
    shard_fds: Sequence[int] = field(default_factory=list)
    reader_fd: int = -1
    next_logon: Callable[[], int] | None = None
    reconnect: Callable[[], GatewayParts | None] | None = None
    shard_up: Callable[[int], bool] | None = None
    deep_book: Callable[[int, int], tuple[Any, Any] | None] | None = None
    on_ready: Callable[[int], None] | None = None
    port: int | None = None  # instead of config.network.port; 0: any free one


# Labels and histograms of a gateway's counters block (Counters.create); a block may have more, or
# lack some.
COUNTER_LABELS = (
    "connections", "sessions", "lines", "commands", "reports", "slow_lines", "rejects", "busy",
    "throttled", "bytes_in",
    "bytes_out", "laps", "events_lost", "output_overflows", "takeovers", "logon_failures",
    "deferrals",
)  # fmt: skip
HISTOGRAM_LABELS = ("gateway_round_trip",)
