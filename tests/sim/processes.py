"""The processes of a simulated exchange: the classes that engine/topology.py wires, as steps.

Each has its own view of the disk. It ends as a real one does: by itself, by SIGTERM, or killed:
then its handles and locks go, and all its memory; what it had stored in shared memory and in files
stays. `die_at` kills it inside its n-th disk operation from now, `crash_at` (shards) at the n-th
crash point of its loop.
"""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.child_parts import Running
from engine.follower_process import FollowerProcess
from engine.journal_process import JournalProcess
from engine.loop_words import DEAD, FAIL_AT, FAKE_STEADY, FAKE_WALL, STOP, YIELD_NS
from engine.shard_process import Ownership, ShardProcess
from engine.takeover import shard_recover
from feed.publisher import FeedParts, FeedPublisher
from gateway.desk import TICK_S, Desk
from tests.sim.observer import require
from tests.sim.sim_disk import SimDisk, SimStore
from tests.sim.sim_time import NS

if TYPE_CHECKING:
    from tests.sim.machine import Machine

READER_FEED = 4
KILLED = -int(signal.SIGKILL)
DRAIN_STEPS = 1000


class Killed(BaseException):
    """The process that did this disk operation was killed in it."""


class ProcessDisk(SimDisk):
    """A process's view of the disk."""

    def __init__(self, store: SimStore) -> None:
        super().__init__(store=store)
        self.die_at = 0

    def _operation(self, name: str, path: str) -> None:
        if self.die_at:
            self.die_at -= 1
            if self.die_at == 0:
                raise Killed
        super()._operation(name, path)


class Process:
    """One child of the supervisor; also what it knows as `Child`."""

    pid = 0

    def __init__(self, machine: Machine, role: str, index: int) -> None:
        self.machine, self.role, self.index = machine, role, index
        self.name = f"{role}{index}"
        assert machine.supervisor is not None
        assert machine.supervisor.instance is not None
        self.instance = machine.supervisor.instance
        self.disk = ProcessDisk(machine.store)
        self.returncode: int | None = None
        self.said = ""  # once it is ready
        self.paused_until = 0
        self.begun = False

    # --------------------------------------------------------------- as the supervisor has a child
    def poll(self) -> int | None:
        """The exit code."""
        return self.returncode

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended."""
        return self.returncode is not None

    def send_signal(self, number: int) -> None:
        """SIGTERM lets it finish, SIGKILL does not."""
        if self.returncode is None:
            if number == signal.SIGTERM and self.begun:
                self._guarded(self.finish)
            self.end(0 if number == signal.SIGTERM else KILLED)

    # ------------------------------------------------------------------------------------ its life
    def step(self) -> None:
        """Do one piece of work, if it is alive and not stopped."""
        if self.returncode is None and self.machine.clock.steady >= self.paused_until:
            self._guarded(self.work if self.begun else self._begin)

    def _begin(self) -> None:
        self.start()
        self.begun = True

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Killed:
            self.end(KILLED)
        except OSError:
            if not self.machine.disk_faulty:
                raise
            self.end(1)  # a traceback, in a real one

    def end(self, code: int) -> None:
        """It is gone."""
        if self.returncode is None:
            self.returncode = code
            self.disk.kill()
            self.forget()
            self.machine.ended(self)

    def start(self) -> None:
        """What it does before it serves."""

    def work(self) -> None:
        """One step."""

    def finish(self) -> None:
        """What it does on SIGTERM."""

    def forget(self) -> None:
        """Its memory is gone."""


class SimRunning(Running):
    """A child as the supervisor's table has it."""

    def word(self) -> str:
        return str(getattr(self.child, "said", ""))

    def close(self) -> None:
        """No descriptor to close."""


class ShardRunner:
    """A shard's owner: one call of its loop is one step."""

    def __init__(self, process: Process, own: Ownership) -> None:
        self.process = process
        self.shard = ShardProcess(process.instance, process.index, False, own)
        # One call ends when there is nothing to do: its clock stands still.
        self.shard.ports.loop[STOP] = 1
        self.shard.ports.loop[YIELD_NS] = -1
        self._clock()
        self.shard.begin()

    def _clock(self) -> None:
        clock, loop = self.process.machine.clock, self.shard.ports.loop
        loop[FAKE_STEADY], loop[FAKE_WALL] = clock.monotonic_ns(), clock.time_ns()

    def step(self, crash_at: int) -> int | None:
        """Run; the exit code when it has ended."""
        self._clock()
        loop = self.shard.ports.loop
        loop[FAIL_AT] = crash_at
        code = self.shard.step()
        return KILLED if crash_at or loop[FAIL_AT] == DEAD else code

    def finish(self) -> None:
        """Serve what lies in the rings."""
        self.shard.stop()
        for _ in range(DRAIN_STEPS):
            if self.step(0) is not None:
                return


class ShardSim(Process):
    """A shard from its files."""

    runner: ShardRunner | None = None
    crash_at = 0

    def start(self) -> None:
        directory = self.machine.directory
        own = shard_recover(directory, self.instance, self.index, self.disk)
        self.runner = ShardRunner(self, own)
        self.machine.recovered(self)

    def work(self) -> None:
        assert self.runner is not None
        code = self.runner.step(self.crash_at)
        self.machine.watch_shard(self.index)
        if code is not None:
            self.end(code)
        elif not self.runner.shard.works:
            self.said = "ready"

    def finish(self) -> None:
        if self.runner is not None:
            self.runner.finish()
            self.machine.watch_shard(self.index)

    def forget(self) -> None:
        self.runner = None


class FollowerSim(ShardSim):
    """A follower, and the shard that it may become."""

    follower: FollowerProcess | None = None

    def start(self) -> None:
        self.follower = FollowerProcess(
            self.machine.directory, self.instance, self.index, self.disk
        )
        bad = [
            note
            for note in self.follower.follower.standby.notes
            if "/snapshot-" in note and "[Errno" not in note
        ]
        require(not bad, f"a crash must leave every snapshot whole or absent: {bad}")
        self.said = "ready"

    def work(self) -> None:
        if self.runner is not None:
            super().work()
            return
        assert self.follower is not None
        if self.follower.called:
            own, self.follower = self.follower.take_over(), None
            self.runner = ShardRunner(self, own)
            self.machine.recovered(self)
        else:
            self.follower.step(self.machine.clock.steady)

    def finish(self) -> None:
        if self.follower is not None:
            self.follower.follower.finish()
        super().finish()

    def forget(self) -> None:
        super().forget()
        self.follower = None


class JournalSim(Process):
    """The journal process."""

    journal: JournalProcess | None = None

    def start(self) -> None:
        supervisor = self.machine.supervisor
        assert supervisor is not None
        assert supervisor.directory is not None
        ends = None if supervisor.served else supervisor.directory.ends
        self.journal = JournalProcess(self.disk, self.machine.directory, self.instance, ends)
        self.said = "ready"

    def work(self) -> None:
        assert self.journal is not None
        if not self.journal.writer.failed:
            self.journal.step(self.machine.clock.steady)

    def finish(self) -> None:
        assert self.journal is not None
        self.journal.writer.flush(self.machine.clock.steady)

    def forget(self) -> None:
        self.journal = None


class GatewaySim(Process):
    """A gateway: the desk, and a network in the place of sockets."""

    desk: Desk | None = None

    def start(self) -> None:
        from engine.topology import gateway_parts

        self.later: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = iter(range(1, 1 << 31))
        self._tick_due = 0
        parts = gateway_parts(self.instance.config, self.instance, self.index, self.disk)
        self.desk = Desk(parts, self._call_later)
        self.said = "9100"

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        due = self.machine.clock.steady + int(delay_s * NS)
        heapq.heappush(self.later, (due, next(self._numbers), call))

    def work(self) -> None:
        assert self.desk is not None
        now = self.machine.clock.steady
        while self.later and self.later[0][0] <= now:
            heapq.heappop(self.later)[2]()
        self.machine.net.deliver_up(self.desk)
        self.desk.pump()
        if self.desk.waiting:
            self.desk.retry()
        if now >= self._tick_due:
            self._tick_due = now + int(TICK_S * NS)
            self.desk.tick()

    def finish(self) -> None:
        assert self.desk is not None
        for client in sorted(self.desk.clients, key=lambda link: link.number):  # type: ignore[attr-defined]
            self.desk.drop(client, "the gateway is shutting down")

    def forget(self) -> None:
        self.desk = None
        self.machine.net.gateway_gone()


class FeedSim(Process):
    """The publisher of market data."""

    publisher: FeedPublisher | None = None

    def start(self) -> None:
        instance = self.instance
        self.publisher = FeedPublisher(
            FeedParts(
                config=instance.config,
                event_rings=instance.event_rings,
                reader_index=READER_FEED,
                counters=instance.counters.block("feed"),
                epoch=instance.feed_epoch,
                date=instance.feed_date,
                started_ns=instance.started_ns,
                tops=instance.tops.records,
            )
        )
        self.said = "ready"

    def work(self) -> None:
        assert self.publisher is not None
        self.publisher.step(self.machine.clock.steady)

    def forget(self) -> None:
        self.publisher = None


PROCESSES: dict[str, Any] = {
    "shard": ShardSim,
    "follow": FollowerSim,
    "journal": JournalSim,
    "gateway": GatewaySim,
    "feed": FeedSim,
}
