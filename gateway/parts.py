"""What a gateway is given from outside.

Cold. `engine/topology.py` builds a GatewayParts and calls serve_gateway; the gateway imports no
wiring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from engine.config import Config
from engine.counters import Block
from engine.shm_ring import CommandRings, EventRings

Events = np.ndarray[Any, Any]


class EventLogLike(Protocol):
    """One shard's event log, as engine/event_log.py reads it. LookupError: not, or no longer, kept;
    other errors: it cannot be read. One thread at a time.
    """

    def read(self, after_out_seq: int, count: int) -> Events:
        """Return at most `count` EVENTs from out_seq after_out_seq + 1 on."""
        ...

    def account(
        self, account: int, after_account_seq: int, until_account_seq: int
    ) -> Iterator[Events]:
        """Yield an account's EVENTs with account_seq above `after`, up to `until`, in order, at
        most some thousand at a time.
        """
        ...

    def oldest(self) -> int:
        """Return the first out_seq kept."""
        ...


class AccountViewLike(Protocol):
    """An account on one shard, as engine/account_view.py has it."""

    @property
    def blocked(self) -> bool: ...

    @property
    def sessions(self) -> Sequence[str]: ...

    @property
    def limits(self) -> Sequence[Mapping[str, str | int]]: ...


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
    gate_reason(shard): why its gate is closed, in words.
    deep_book(symbol_id, depth): rows (price ticks, lots, orders) of both sides, for books deeper
        than BOOK_TOP; or None.
    logs: the event log of each shard, for this gateway alone; None: there are none. Missed reports
        cannot be had then, and a lap loses reports.
    log_end(shard): out_seq up to which its log may be read. Must be there if logs are, and cheap.
    log_wait(shard, +1 or -1): somebody begins, or ends, to wait for that log. Whoever ends with
        waits open is gone: the supervisor sets the count right.
    session_names(shard): (slot, name) of every session the shard knows. Asked at attach and after
        a lap: sessions that other gateways opened are named in reports, too.
    account_views(account): what each shard holds of it; None: `limits` does not say.
    successor: a gateway with this producer number may have run before and died. Its sessions close
        after session_grace_s unless they log on again.
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
    gate_reason: Callable[[int], str] | None = None
    deep_book: Callable[[int, int], tuple[Any, Any] | None] | None = None
    logs: Sequence[EventLogLike] | None = None
    log_end: Callable[[int], int] | None = None
    log_wait: Callable[[int, int], None] | None = None
    session_names: Callable[[int], Iterable[tuple[int, str]]] | None = None
    account_views: Callable[[int], Sequence[AccountViewLike]] | None = None
    successor: bool = False
    on_ready: Callable[[int], None] | None = None
    port: int | None = None  # instead of config.network.port; 0: any free one


# Labels and histograms of a gateway's counters block (Counters.create); a block may have more, or
# lack some.
COUNTER_LABELS = (
    "connections", "sessions", "lines", "commands", "reports", "slow_lines", "rejects", "busy",
    "throttled", "bytes_in",
    "bytes_out", "laps", "events_lost", "output_overflows", "takeovers", "logon_failures",
    "deferrals", "resumes", "resumes_refused",
)  # fmt: skip
HISTOGRAM_LABELS = ("gateway_round_trip",)
