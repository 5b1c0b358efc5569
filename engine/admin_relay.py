"""Administrative commands on their way to the shards: numbered, on disk, then told in order
(DESIGN §7).

Cold. Part of the supervisor, for whoever gives it such a command (`Supervisor.admin`): kill switch,
limits of accounts, phases and rules of instruments, further accounts. Each shard that a command
concerns runs it exactly once:

    admin() ──▶ admin.log (fsync) ──▶ waiting, per shard ──▶ ring ──▶ journal of the shard
                    │                                                      │
                    └── after any restart: all above the number ◀── hdr[ADMIN_SEQ] of the shard

A shard remembers the highest number it took, in its state and so in its snapshots, and passes over
what it is told again. Commands about one instrument go to its shard, all others to every shard. A
ring that is full or gated keeps its commands waiting; more than WAITING_MAX: the next is refused.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from engine.admin_log import AdminLog
from engine.book_state import ADMIN_SEQ
from engine.disk import Disk
from engine.instance import Instance
from engine.records import COMMAND, SYMBOL_INDEX_BITS, CommandKind, unpack_name
from engine.sharding import shard_of_symbol
from engine.shm_ring import Producer

WAITING_MAX = 1024
RELAYED = frozenset(
    {
        int(CommandKind.OPEN_ACCOUNT),
        int(CommandKind.LIST_INSTRUMENT),
        int(CommandKind.SET_PHASE),
        int(CommandKind.SET_LIMITS),
        int(CommandKind.KILL_SWITCH),
        int(CommandKind.SET_RULE),
    }
)


class AdminRefused(RuntimeError):
    """A command that cannot be told now, or never; nothing was written."""


class AdminRelay:
    """The commands of one instance."""

    def __init__(self, shards: int = 0, log: AdminLog | None = None) -> None:
        self.shards, self.log = shards, log
        self.number = int(log.records["client_order_id"].max(initial=0)) if log is not None else 0
        self.waiting: list[deque[np.ndarray]] = []
        self.producer: Producer | None = None

    def begin(self, producer: Producer, instance: Instance) -> None:
        """The shards have recovered: queue all that one of them may have missed."""
        self.shards = instance.shards
        states = [instance.shard_state(shard) for shard in range(self.shards)]
        known = [int(state.live_hdr[ADMIN_SEQ]) for state in states]
        self.tell_again(known)
        self.producer = producer

    def tell_again(self, known: Sequence[int]) -> None:
        """Queue what is above the number that each shard knows; number on above all of them."""
        self.number = max([self.number, *known])
        self.waiting = [deque() for _ in range(self.shards)]
        for index in range(len(self.log.records) if self.log is not None else 0):
            assert self.log is not None
            record = self.log.records[index : index + 1].copy()
            record["crc"] = 0
            for shard in self._concerned(record):
                if int(record["client_order_id"][0]) > known[shard]:
                    self.waiting[shard].append(record)

    def _concerned(self, record: np.ndarray) -> Sequence[int]:
        symbol_id, name = int(record["symbol_id"][0]), int(record["symbol"][0])
        if symbol_id:
            return [symbol_id >> SYMBOL_INDEX_BITS]
        if name:
            return [shard_of_symbol(unpack_name(name), self.shards)]
        return range(self.shards)

    def admin(self, record: np.ndarray) -> int:
        """Number a COMMAND (shape (1,), as engine/admin.py makes them), put it on disk, tell the
        shards; returns its admin_seq, which the answers carry in `client_order_id`.

        AdminRefused: nothing happened. OSError: it may be told after the next start.
        """
        if record.shape != (1,) or record.dtype != COMMAND or int(record["kind"][0]) not in RELAYED:
            raise AdminRefused("no command that is told to shards: engine/admin.py makes them")
        try:
            concerned = self._concerned(record)
        except ValueError as error:
            raise AdminRefused(f"no name of an instrument: {error}") from error
        if self.producer is None:
            raise AdminRefused("the shards do not serve yet")
        if any(not 0 <= shard < self.shards for shard in concerned):
            raise AdminRefused("no shard has such an instrument")
        if any(len(self.waiting[shard]) >= WAITING_MAX for shard in concerned):
            raise AdminRefused("a shard has not taken the last commands yet; try again")
        numbered = record.copy()
        numbered["client_order_id"] = self.number + 1
        if self.log is not None:
            self.log.append(numbered)
        self.number += 1
        for shard in concerned:
            self.waiting[shard].append(numbered)
        self.flush()
        return self.number

    def flush(self) -> bool:
        """Push what fits; returns whether nothing waits any more."""
        if self.producer is None:
            return True
        for shard, waiting in enumerate(self.waiting):
            while waiting and self.producer.push(shard, waiting[0]):
                waiting.popleft()
        return not any(self.waiting)

    def close(self) -> None:
        """The instance ends; what still waits is told by the next start."""
        self.producer = None
        if self.log is not None:
            self.log.close()
            self.log = None


def open_relay(disk: Disk, directory: str, shards: int, tell: Callable[[str], None]) -> AdminRelay:
    """The relay of a data directory; FileRefused when its log is damaged."""
    log = AdminLog(disk, directory, time.time_ns())
    if log.cut_bytes:
        tell(f"ringbook: {log.path}: {log.cut_bytes} bytes of a torn record cut\n")
    return AdminRelay(shards, log)
