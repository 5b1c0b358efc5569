"""One seed: an exchange, its clients, faults, then rest; and whether all promises were kept.

safety      clients trade while everything that may fail does, at the rates of the seed
liveness    no more faults: everybody is answered, everything is on disk, the follower is there
verdict     journal, events, states and what the clients were told are one story
"""

from __future__ import annotations

import errno
import gc
import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.book_check import check_state
from engine.child_parts import StartError
from engine.jit import FAIL_POINTS
from engine.sharding import shard_of_symbol
from engine.staging import DURABLE, FOLLOWED, STAGED, STORAGE, STORAGE_FAILED
from tests.sim.feed_listener import FeedListener
from tests.sim.knobs import SYMBOLS, Knobs, config_of, draw
from tests.sim.machine import Machine
from tests.sim.model_check import model_agrees
from tests.sim.model_client import Identity, ModelClient
from tests.sim.observer import Violation, require
from tests.sim.processes import Process, ShardSim
from tests.sim.sim_disk import PowerCut
from tests.sim.sim_time import NS, SimTime, installed

MODEL_SHARE = 4  # every so manieth seed is compared with the plain-Python model
LIVENESS_TURNS = 6000
LIVENESS_STEP_NS = 5_000_000
STEP_SHARE = {"shard": 0.9, "journal": 0.6, "follow": 0.3, "gateway": 0.9, "feed": 0.2}


@dataclass
class Outcome:
    """What came of a seed."""

    seed: int
    knobs: Knobs
    trace: str = ""
    actions: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    violation: str = ""

    def line(self) -> str:
        """For people."""
        counts = " ".join(f"{name}={count}" for name, count in sorted(self.counts.items()))
        return f"seed {self.seed}: trace {self.trace} actions={self.actions} {counts}"


class World:
    """A running seed."""

    def __init__(self, seed: int, fixed: Mapping[str, Any] | None = None) -> None:
        """`fixed`: knobs that are not drawn."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.knobs = draw(self.rng, crash_points=FAIL_POINTS)
        for name, value in (fixed or {}).items():
            setattr(self.knobs, name, type(getattr(self.knobs, name))(value))
        self.config = config_of(self.knobs)
        self.clock = SimTime()
        self.machine = Machine(self.config, self.clock, self.rng)
        self.machine.net.split = self.knobs.split
        self.observer = self.machine.observer
        self.digest: Any = hashlib.blake2b(digest_size=8)
        self.observer.digest = self.digest
        self.feed = FeedListener(self.config)
        self.counts: Counter[str] = Counter()
        self.clients = [self._client(n) for n in range(self.knobs.clients)]
        self.machine.net.clients = self.clients
        self.down_until = 0
        self.log: list[str] | None = None

    def _client(self, number: int) -> ModelClient:
        rng = self.rng
        symbols = rng.sample(SYMBOLS, rng.randint(1, len(SYMBOLS)))
        account = number % 3 + 1
        identity = Identity(
            f"a{account}", account, f"s{number}", symbols,
            [shard_of_symbol(symbol, self.config.shards) for symbol in symbols],
        )  # fmt: skip
        return ModelClient(self.machine.net, self.observer, identity, rng)

    # ------------------------------------------------------------------------------- running
    def run(self, actions: int) -> Outcome:
        """Everything; the outcome names the promise that was broken, if one was."""
        outcome = Outcome(self.seed, self.knobs)
        with installed(self.clock, self.machine.boot_id, self.feed.hear):
            try:
                self._safety(actions)
                self._liveness()
                self._verdict()
            except Violation as broken:
                outcome.violation = str(broken)
            except Exception as error:  # nothing in the exchange may raise what nobody expects
                place = "".join(traceback.format_exc().splitlines(keepends=True)[-9:])
                outcome.violation = f"{type(error).__name__}: {error}\n{place}"
        gc.unfreeze()  # a supervisor freezes what there is when it starts: this world goes
        outcome.actions = sum(client.actions for client in self.clients)
        outcome.trace = self.digest.hexdigest()
        self.counts["reports"] = sum(client.reports for client in self.clients)
        self.counts["logons"] = sum(client.logons for client in self.clients)
        self.counts["resumed"] = sum(client.resumed for client in self.clients)
        self.counts["in_doubt"] = sum(len(client.in_doubt) for client in self.clients)
        self.counts["messages"] = self.feed.messages
        self.counts["recoveries"] = self.observer.recoveries
        self.counts["lost"] = self.observer.lost_events
        self.counts["records"] = sum(s.records.count for s in self.observer.stories)
        self.counts["events"] = sum(s.events.count for s in self.observer.stories)
        self.counts["unheard"] = sum(len(client.unheard()) for client in self.clients)
        outcome.counts = self.counts
        return outcome

    def note(self, text: str) -> None:
        """A fault, for the trace."""
        self.counts[text.split(" ", 1)[0]] += 1
        self.digest.update(text.encode())
        if self.log is not None:
            self.log.append(f"{self.clock.steady / NS:.6f} {text}")

    def _safety(self, actions: int) -> None:
        done, turns = 0, 0
        while done < actions and turns < 50 * actions:
            turns += 1
            try:
                done += self._turn(act=True)
                self._faults()
            except PowerCut:
                self._power_cut("power_cut in a disk operation")

    def _turn(self, *, act: bool) -> int:
        rng, machine = self.rng, self.machine
        self.clock.pass_(rng.randint(1000, self.knobs.step_ns))
        if machine.supervisor is None:
            self.clock.steady = max(self.clock.steady, self.down_until)
            machine.start()
        try:
            machine.step_supervisor()
        except StartError as error:
            self.note(f"start_failed {error}")
            machine.stop()
        processes = list(machine.processes)
        rng.shuffle(processes)
        for process in processes:
            if rng.random() < STEP_SHARE[process.role]:
                machine.step(process)
        return sum(client.step(act=act) for client in self.clients if not act or rng.random() < 0.7)

    # ------------------------------------------------------------------------------- faults
    def _faults(self) -> None:
        rng, knobs = self.rng, self.knobs
        for role in ("shard", "journal", "follow", "gateway", "feed"):
            if rng.random() < getattr(knobs, f"kill_{role}"):
                self._kill(role)
        if rng.random() < knobs.kill_all:
            self.note("kill_all")
            self.machine.kill_all()
            self._down()
        if rng.random() < knobs.power_cut:
            if rng.random() < 0.5:
                self.machine.disk.cut_power(rng.randint(1, 30))
            else:
                self._power_cut("power_cut")
        if rng.random() < knobs.clean_stop and self.machine.serving:
            self.note("clean_stop")
            self.machine.stop()
            self._down()
        if self._storage_failed() and rng.random() < 0.02:
            self.note("operator")  # another disk, and a start by hand
            self.machine.disk.heal()
            self.machine.kill_all()
            self._down()
        if rng.random() < knobs.disk_error:
            self._disk_error()
        self._small_faults()

    def _small_faults(self) -> None:
        rng, knobs, machine = self.rng, self.knobs, self.machine
        if rng.random() < knobs.pause and machine.processes:
            process = rng.choice(machine.processes)
            turns = rng.choice((10, 100, 400))
            process.paused_until = self.clock.steady + turns * knobs.step_ns
            self.note(f"pause {process.name}")
        if rng.random() < knobs.net_cut and machine.net.links:
            self.note("net_cut")
            machine.net.cut(rng.choice(machine.net.links))
        if rng.random() < knobs.clock_jump:
            self.note("clock_jump")
            self.clock.shift += rng.choice((-1, 1)) * rng.choice((1, 90, 3600)) * NS
        if rng.random() < knobs.quiet:
            self.note("quiet")
            self.clock.pass_(rng.randint(1, 3000) * 1_000_000)

    def _kill(self, role: str) -> None:
        victims = self.machine.alive(role)
        if not victims or self.machine.supervisor is None:
            return
        process: Process = self.rng.choice(victims)
        dice = self.rng.random()
        self.machine.supervisor.restarts.clear()  # as if the last deaths were long ago
        if role == "shard" and dice < self.knobs.crash_share and isinstance(process, ShardSim):
            process.crash_at = self.rng.randint(1, 20)
            self.note(f"crash_point {process.name} {process.crash_at}")
            process.paused_until = 0
            self.machine.step(process)
            process.end(-9)
        elif dice > 1 - self.knobs.in_disk_share:
            process.disk.die_at = self.rng.randint(1, 12)
            self.note(f"kill_in_disk {process.name} {process.disk.die_at}")
        else:
            self.note(f"kill_{role} {process.name}")
            process.end(-9)

    def _down(self) -> None:
        self.down_until = self.clock.steady + self.rng.randint(0, 2000) * 1_000_000
        if self.rng.random() < self.knobs.in_disk_share:
            self.machine.next_death = self.rng.randint(1, 60)

    def _power_cut(self, text: str) -> None:
        self.note(text)
        self.machine.power_cut()
        self._down()

    def _disk_error(self) -> None:
        rng, machine = self.rng, self.machine
        error = rng.choice((errno.EIO, errno.ENOSPC))
        names = rng.choice(((), ("pwrite",), ("fdatasync",), ("create", "allocate", "rename")))
        machine.disk_faulty = True
        machine.disk.fail(rng.randint(1, 40), error, rng.random() < 0.3, names)
        self.note(f"disk_error {errno.errorcode[error]} {'/'.join(names) or 'any'}")

    # ------------------------------------------------------------------------------- at rest
    def _liveness(self) -> None:
        machine = self.machine
        machine.disk.heal()
        machine.next_death = 0
        for process in machine.processes:
            process.paused_until = process.disk.die_at = 0
            if isinstance(process, ShardSim):
                process.crash_at = 0
        if machine.supervisor is not None and self._storage_failed():
            machine.kill_all()  # the operator starts it again once the disk is good
        machine.disk_faulty = True  # what failed before the heal may still come to light
        self.down_until = 0
        for _ in range(LIVENESS_TURNS):
            self.clock.pass_(LIVENESS_STEP_NS)
            self._turn(act=False)
            if self._storage_failed():
                machine.kill_all()
            if self._at_rest():
                return
        raise Violation(f"no rest after the faults ended: {self._unrest()}")

    def _storage_failed(self) -> bool:
        instance = self.machine.instance
        if instance is None or instance.staging is None:
            return False
        return instance.staging.get(0, STORAGE) == STORAGE_FAILED

    def _at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> str:
        machine = self.machine
        if not machine.serving or machine.instance is None:
            return f"the exchange is not up: {machine.told[-3:]}"
        waiting = {c.name: sorted(c.pending)[:5] for c in self.clients if c.pending}
        if waiting:
            return f"requests without an answer: {waiting}"
        staging = machine.instance.staging
        assert staging is not None
        for shard in range(self.config.shards):
            words = [staging.get(shard, word) for word in (STAGED, DURABLE, FOLLOWED)]
            if len(set(words)) > 1:
                return f"shard {shard}: staged, durable, followed {words}"
            if self.observer.stories[shard].committed != self.observer.stories[shard].events.count:
                return f"shard {shard}: events are not committed"
        return ""

    # ------------------------------------------------------------------------------- verdict
    def _verdict(self) -> None:
        machine, observer = self.machine, self.observer
        for process in machine.processes:
            runner, follower = getattr(process, "runner", None), getattr(process, "follower", None)
            if runner is not None:
                observer.compare(process.index, runner.shard.state, "live")
                check_state(runner.shard.state)
            if follower is not None:
                observer.compare(process.index, follower.follower.standby.state, "follower's")
        observer.check_files(machine.disk, machine.directory)
        for client in self.clients:
            client.check_end()
        if self.seed % MODEL_SHARE == 0:
            self.counts["modelled"] = sum(model_agrees(story) for story in observer.stories)
        require(not any(c.pending for c in self.clients), "requests without an answer")


def run_seed(seed: int, actions: int = 2000) -> Outcome:
    """One seed."""
    return World(seed).run(actions)
