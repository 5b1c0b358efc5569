"""A follower as a process.

Cold. It looks for new records every few milliseconds; how urgent that is, the supervisor decides
(engine/priority.py). On the supervisor's word it becomes the shard: the same process, the same
state, from then on engine/shard_process.py.
"""

import os
import sys
import time
from collections.abc import Callable

from engine.children import name_process
from engine.counters import State
from engine.disk import Disk, RealDisk
from engine.follower import Diverged, Follower
from engine.idle import park
from engine.instance import Instance
from engine.shard_process import Ownership, ShardProcess, shard_main
from engine.sharding import Placement
from engine.staging import TAKE_OVER
from engine.standby import StandbyParts
from engine.takeover import own, writer_lock

EXIT_DIVERGED = 4
LOOK_S = 0.005
IDLE_LOOK_S = 0.02
IDLE_AFTER_NS = 1_000_000_000
REPORT_NS = 100_000_000


class FollowerProcess:
    """The follower of shard `index`, in this process."""

    def __init__(
        self, directory: str, instance: Instance, index: int, disk: Disk | None = None
    ) -> None:
        assert instance.staging is not None
        self.instance, self.index = instance, index
        self.staging = instance.staging
        self.disk, self.directory = disk or RealDisk(), directory
        self._take_over = self.staging.get(index, TAKE_OVER)
        self._log_lock = self.disk.lock(f"{directory}/shard{index}/log.lock")
        parts = StandbyParts(self.disk, directory, index, instance.config)
        memory = instance.state_memory(index, live=False)
        self.follower = Follower(parts, self.staging, memory)
        self.block = instance.counters.block(f"follow{index}")
        self.stopping = False
        self.shard: list[ShardProcess] = []
        self._reported_ns = self._worked_ns = 0

    def stop(self) -> None:
        """End `run` (signal handlers call this)."""
        self.stopping = True
        for process in self.shard:
            process.stop()

    @property
    def called(self) -> bool:
        """Whether the supervisor wants it to become the shard."""
        return self.staging.get(self.index, TAKE_OVER) != self._take_over

    def step(self, now_ns: int) -> bool:
        """One piece of work; returns whether there was any. Diverged: the journal would not give
        again what clients were told.
        """
        worked = self.follower.step(now_ns)
        if worked:
            self._worked_ns = now_ns
        if now_ns - self._reported_ns >= REPORT_NS:
            self.report(now_ns, State.RUNNING)
        return worked

    def run(self, placement: Placement, on_ready: Callable[[], None]) -> int:
        """Follow until told to stop or to take over; returns the exit code."""
        self.report(time.monotonic_ns(), State.RUNNING)
        on_ready()
        try:
            while not self.stopping:
                if self.called:
                    name_process(f"shard{self.index}")
                    own_it = self.take_over()
                    return shard_main(
                        self.instance, self.index, placement, self.shard, lambda: None, own_it
                    )
                now_ns = time.monotonic_ns()
                if not self.step(now_ns):
                    quiet = now_ns - self._worked_ns > IDLE_AFTER_NS
                    park(
                        self.instance.journal_fds[1 + self.index], IDLE_LOOK_S if quiet else LOOK_S
                    )
            self.follower.finish()
        except Diverged as difference:
            sys.stderr.write(f"ringbook: follower {self.index}: {difference}\n")
            self.report(time.monotonic_ns(), State.HALTED)
            return EXIT_DIVERGED
        self.report(time.monotonic_ns(), State.STOPPED)
        return 0

    def report(self, now_ns: int, condition: State) -> None:
        """Write the counters block."""
        values = {
            "pid": os.getpid(),
            "state": condition,
            "heartbeat_ns": now_ns,
            "followed": self.follower.standby.in_seq,
            "lag": self.follower.lag,
            "log_end": self.follower.log.end,
            "snapshots": self.follower.snapshots,
            "marks": self.follower.compared,
        }
        self.block.set_many(self.block.indexes(values), list(values.values()))
        self._reported_ns = now_ns

    def take_over(self) -> Ownership:
        """Replay the rest and own the shard; another process follows it from here on."""
        writer_lock(self.disk, self.directory, self.index)
        own_it = own(self.instance, self.index, self.follower.standby, self.follower.take_over)
        self.disk.close(self._log_lock)  # a fresh follower writes the log from here on
        self.report(time.monotonic_ns(), State.STOPPED)
        return own_it
