"""A machine that runs one exchange: its supervisor, its processes, its disk, its shared memory.

    start       a supervisor opens the data directory and starts the processes
    kill_all    SIGKILL for everybody: shared memory that is part of the journal and the files stay
    power_cut   only what the platter has stays
    stop        SIGTERM: a clean end

Everything runs in one thread, when somebody calls `step`.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from engine.children import Child
from engine.config import Config
from engine.data_directory import DataDirectory
from engine.disk import Disk
from engine.instance import Instance, private_instance
from engine.sharding import Placement
from engine.staging import StagingRings
from engine.supervisor import Supervisor
from engine.topology import MAINS, door_labels
from tests.sim.observer import Observer
from tests.sim.processes import PROCESSES, Killed, Process, ProcessDisk, SimRunning
from tests.sim.sim_disk import PowerCut, SimDisk
from tests.sim.sim_net import SimNet
from tests.sim.sim_time import SimTime

ROLES = {"shard", "gateway", "feed"}


class SimDirectory(DataDirectory):
    """A data directory whose staging rings are in the machine's memory."""

    machine: Machine

    def _staging_open(self, name: str) -> StagingRings:
        return self.machine.memory[name]


class SimSupervisor(Supervisor):
    """The supervisor, with children that are objects."""

    machine: Machine

    def _make_directory(self) -> DataDirectory:
        SimDirectory.machine = self.machine
        disk: Disk = self.machine.own_disk
        return SimDirectory(self.config, self.config.shards, disk)

    def _take_lock(self) -> int:
        return -1

    def _make_instance(
        self, blocks: Any, histograms: Any, lock: int, staging: str, keep: Collection[str]
    ) -> Instance:
        machine = self.machine
        machine.epochs += 1
        machine.judged(self.directory)
        made = private_instance(
            self.config, machine.epochs, blocks, histograms, machine.clock.time_ns()
        )
        assert made.staging is not None
        made.staging.segment.name = staging
        kept = {name: rings for name, rings in machine.memory.items() if name in keep}
        machine.memory = {**kept, staging: made.staging}
        made.close = lambda **_: None  # type: ignore[method-assign,assignment]
        return made

    def _spawn(self, role: str, index: int) -> None:
        process: Process = PROCESSES[role](self.machine, role, index)
        self.machine.processes.append(process)
        child: Any = process
        assert isinstance(child, Process)
        self.running[process.name] = SimRunning(role, index, as_child(child), -1)


def as_child(process: Process) -> Child:
    """A process has what the supervisor asks of a Child."""
    child: Any = process
    return child  # type: ignore[no-any-return]


class Machine:
    """The machine."""

    def __init__(self, config: Config, clock: SimTime, rng: random.Random) -> None:
        self.config, self.clock, self.rng = config, clock, rng
        self.disk = SimDisk()
        self.store = self.disk.store
        self.own_disk = ProcessDisk(self.store)  # the supervisor's
        self.directory = config.journal.directory
        self.memory: dict[str, StagingRings] = {}
        self.boots = 1
        self.epochs = 0
        self.disk_faulty = False
        self.processes: list[Process] = []
        self.supervisor: SimSupervisor | None = None
        self.net = SimNet(self, rng)
        self.observer = Observer(config, clock)
        self.told: list[str] = []
        self.faults: dict[str, int] = {}
        clock.on_sleep = self._slept
        self.store.on_sync = self._during_sync

    # ------------------------------------------------------------------------------------ power
    def boot_id(self) -> str:
        """Names this boot."""
        return f"boot-{self.boots}"

    def start(self) -> None:
        """Start the exchange; a supervisor that dies meanwhile leaves `supervisor` None."""
        placement = Placement((0,), (0,) * self.config.shards, (False,) * self.config.shards, (0,))
        made = SimSupervisor(self.config, ROLES, placement, MAINS, self.told.append, door_labels())
        made.machine = self
        self.supervisor = made
        self.own_disk = ProcessDisk(self.store)
        self.own_disk.die_at, self.next_death = self.next_death, 0
        try:
            made.create()
            made.start()
        except Killed:
            self.kill_all()
        except OSError:
            if not self.disk_faulty:
                raise
            self.kill_all()
            if self.rng.random() < 0.3:
                self.disk.heal()  # somebody made room, or put another one in

    def judged(self, directory: DataDirectory | None) -> None:
        """A start has found out where the journals end."""
        if self.was_cut and directory is not None:
            self.was_cut = False
            for shard, end in enumerate(directory.ends):
                self.observer.after_power_cut(shard, end.in_seq)
            for client in self.net.clients:
                client.after_power_cut(self.observer)

    was_cut = False  # the power failed, and no start has looked at the journals since
    next_death = 0  # disk operation of the next supervisor's start that kills it

    @property
    def instance(self) -> Instance | None:
        """What the processes share."""
        return self.supervisor.instance if self.supervisor is not None else None

    @property
    def serving(self) -> bool:
        """Whether every process was up once since the last start."""
        return self.supervisor is not None and self.supervisor.served

    def kill_all(self) -> None:
        """Everybody dies at the same moment."""
        self.observer.before_power_cut(self.instance)
        for process in self.processes:
            process.end(-9)
        self.processes = []
        self.own_disk.kill()
        self.supervisor = None
        self.net.gateway_gone()

    def power_cut(self) -> None:
        """The power fails."""
        self.kill_all()
        self.was_cut = True
        self.memory = {}
        self.boots += 1
        self.disk_faulty = False
        self.disk.crash(self.rng)

    def stop(self) -> None:
        """SIGTERM for the supervisor."""
        if self.supervisor is not None:
            try:
                self.supervisor.close()
            except Killed:
                pass
            except OSError:
                if not self.disk_faulty:
                    raise
            self.kill_all()

    # ------------------------------------------------------------------------------------ running
    def alive(self, role: str) -> list[Process]:
        """Processes of a role; `shard`: also a follower that has become one."""
        found = [p for p in self.processes if p.returncode is None]
        if role in ("shard", "follow"):
            owners = [p for p in found if p.role == "shard" or getattr(p, "runner", None)]
            return owners if role == "shard" else [
                p for p in found if p.role == "follow" and p not in owners
            ]  # fmt: skip
        return [p for p in found if p.role == role]

    def watch_shard(self, shard: int) -> None:
        """A shard has run: look what it has shown."""
        assert self.instance is not None
        self.observer.look(self.instance, shard)

    def recovered(self, process: Any) -> None:
        """A shard has an owner again."""
        self.observer.recovered(process.instance, process.index, process.runner.shard)

    def ended(self, process: Process) -> None:
        """A process is gone."""

    def step_supervisor(self) -> None:
        """The supervisor looks after its children."""
        supervisor = self.supervisor
        if supervisor is None:
            return
        try:
            if not supervisor.served:
                supervisor.start_step()
            elif not supervisor.step():
                raise AssertionError(f"the supervisor gives up: {self.told[-3:]}")
        except Killed:
            self.kill_all()
        except OSError:
            if not self.disk_faulty:
                raise
            self.kill_all()
        self.processes = [p for p in self.processes if p.returncode is None]

    def step(self, process: Process) -> None:
        """One process does something."""
        process.step()

    def _during_sync(self) -> None:
        # A sync takes its time: shards go on meanwhile.
        if self.rng.random() < 0.2:
            for process in self.alive("shard"):
                if process.begun:
                    process.step()

    def _slept(self, ns: int) -> None:
        # The supervisor waits for somebody: the others go on.
        self.clock.pass_(max(ns, 100_000))
        for process in list(self.processes):
            if process.returncode is None:
                process.step()


__all__ = ["Machine", "PowerCut"]
