"""The time of a simulation, and everything else of the machine that the exchange asks Python for.

`installed(...)` puts stand-ins in the place of what engine, gateway and feed take from outside: the
module `time` wherever they imported it, the boot id, the identity of the data directory, today's
date, sockets, scheduling policies. Kernels get their clock by the FAKE words of the loop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import engine.admin
import engine.data_directory
import engine.shard_process
import engine.supervisor

NS = 1_000_000_000
STARTS_AT = 1_790_000_000 * NS  # a wall clock of September 2026
KEPT_REAL = ("engine.jit", "engine.segment", "engine.background", "engine.children")


class SimTime:
    """What the exchange's modules see under the name `time`."""

    def __init__(self) -> None:
        self.steady = 1_000 * NS
        self.shift = STARTS_AT - self.steady  # of the wall clock
        self.on_sleep: Callable[[int], None] = self.pass_

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)  # what depends on no clock

    def pass_(self, ns: int) -> None:
        """Let time go on."""
        self.steady += ns

    def monotonic_ns(self) -> int:
        return self.steady

    def monotonic(self) -> float:
        return self.steady / NS

    def time_ns(self) -> int:
        return self.steady + self.shift

    def time(self) -> float:
        return self.time_ns() / NS

    def sleep(self, seconds: float) -> None:
        self.on_sleep(int(seconds * NS))


class FakeSocket:
    """A multicast socket: `hear` gets its datagrams."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self.hear = hear

    def send(self, data: Any) -> int:
        self.hear(bytes(data))
        return len(data)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def installed(
    clock: SimTime, boot: Callable[[], str], hear: Callable[[int, bytes], None]
) -> Iterator[None]:
    """Put the stand-ins in place, and take them away again. `hear` gets port and datagram of all
    market data.
    """

    def sender(group: str, port: int, interface: str) -> FakeSocket:
        return FakeSocket(lambda data: hear(port, data))

    changes: list[tuple[Any, str, Any]] = [
        (module, "time", clock)
        for name, module in sorted(sys.modules.items())
        if name.startswith(("engine.", "gateway.", "feed."))
        and name not in KEPT_REAL
        and getattr(module, "time", None) is time
    ]
    changes += [
        (engine.data_directory, "boot_id", boot),
        (engine.data_directory, "directory_identity", lambda path: (1, 2)),
        (engine.supervisor, "set_policy", lambda pid, policy: None),
        (engine.shard_process, "save_evidence", lambda *_: None),
    ]
    changes += [
        (module, "today", lambda: 20260921)
        for name, module in sorted(sys.modules.items())
        if name.startswith("engine.") and getattr(module, "today", None) is engine.admin.today
    ]
    changes += [
        (module, "multicast_sender", sender)
        for name, module in sorted(sys.modules.items())
        if name.startswith("feed.") and hasattr(module, "multicast_sender")
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
