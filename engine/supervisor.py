"""The supervisor: owns the instance and its data directory, starts the children, restarts those
that die, ends them in order (DESIGN §2, §6).

Cold. It trades nothing and holds nothing that a restart needs: the truth is in the journals.

    child      dies                                   meanwhile
    shard      take-over by its follower, else a      what is in the rings waits, the gateway
               cold restart from files and staging    answers UNAVAILABLE; other shards go on
    journal    started again; it rewrites from        gates close after the loss window; BUSY
               DURABLE. Not after a failed write
    follower   started again from its snapshot        past events are late
    gateway    PRODUCER_RESET to every shard (its     clients see a disconnect
               sessions get the grace time), then
               started again on the same port
    feed       started again at its cursor            listeners see heartbeats stop

A halted shard (broken invariant) stays down with its evidence, and so does what dies too often
(engine/restarts.py). Without a journal nothing can be brought back: a death ends everything.
"""

import gc
import math
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.admin import (
    PRODUCER_SUPERVISOR,
    Renewal,
    day_commands,
    end_commands,
    producer_reset,
    start_commands,
    today,
)
from engine.admin_relay import AdminRelay, open_relay
from engine.child_parts import (
    ChildParts,
    Main,
    Plan,
    Ready,
    Running,
    StartError,
    StopSignals,
    exit_word,
)
from engine.children import Child, fork_child
from engine.command_ring import CONSUMER_POSITION, CTRL_WORDS, ring_scan
from engine.config import Config
from engine.counters import State
from engine.data_directory import DataDirectory
from engine.instance import (
    PRODUCER_GATEWAY,
    Instance,
    Labels,
    create_instance,
    from_descriptors,
    take_lock,
)
from engine.owner_sockets import OwnerSockets
from engine.priority import follower_policy, set_policy
from engine.restarts import Restarts
from engine.ring_words import eventfd_add
from engine.segment import load_word
from engine.sharding import Placement
from engine.shm_ring import Producer
from engine.staging import (
    DURABLE,
    LIVE_STATE,
    READERS_WAIT,
    STAGED,
    STORAGE,
    STORAGE_FAILED,
    TAKE_OVER,
    WRITER_EPOCH,
)

START_S_MAX = 240.0
DRAIN_S_MAX = 2.0
KEEP_S_MAX = 10.0  # for the journal to sync and the followers to write snapshots at the end
TAKE_OVER_S_MAX = 20.0
WATCH_S = 0.02
EXIT_HALTED = 3
EXIT_DIVERGED = 4
DOORS = ("gateway", "feed")


@dataclass
class Supervisor:
    """Owns the instance (role shard) and the children."""

    config: Config
    roles: set[str]
    placement: Placement
    mains: Mapping[str, Main]
    tell: Callable[[str], None]
    labels: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # of the doors' counters
    instance: Instance | None = None
    directory: DataDirectory | None = None
    sockets: OwnerSockets | None = None
    producer: Producer | None = None
    relay: AdminRelay = field(default_factory=AdminRelay)  # without a log: forgotten at the end
    running: dict[str, Running] = field(default_factory=dict)
    restarts: dict[str, Restarts] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    taking_over: dict[int, float] = field(default_factory=dict)  # shard -> until when
    diverged: set[int] = field(default_factory=set)
    date: int = 0  # of the open feed sessions, yyyymmdd
    port: int = 0
    served: bool = False  # every child was up once
    _renewal: list[int] = field(default_factory=list)  # last command of the start, per shard
    _start_steps: list[Callable[[], bool]] = field(default_factory=list)  # still to be done

    # ------------------------------------------------------------------------------- start
    @property
    def kept(self) -> bool:
        """Whether there is a journal."""
        return "shard" in self.roles and self.config.journal.mode != "none"

    def create(self) -> None:
        """Open the data directory and make the instance."""
        self.port = self.config.network.port
        if "shard" not in self.roles:
            return
        shards = self.config.shards
        blocks = {name: labels for name, (labels, _) in self.labels.items()}
        histograms = {name: measured for name, (_, measured) in self.labels.items() if measured}
        lock = self._take_lock()
        if self.kept:
            try:
                self.directory = self._make_directory()
                self.directory.read()
                self.relay = open_relay(self.directory.disk, self.directory.path, shards, self.tell)
            except BaseException:
                if lock >= 0:
                    os.close(lock)
                raise
            for note in self.directory.notes:
                self.tell(f"ringbook: {note}\n")
        staging, keep = "", frozenset[str]()
        if self.directory is not None:
            staging, keep = self.directory.staging_name(), self.directory.staging_kept()
        self.instance = self._make_instance(blocks, histograms, lock, staging, keep)
        if self.directory is not None:
            self.instance.directory = self.directory.path
            self.directory.begin(self.instance)
        block = self.instance.counters.block("supervisor")
        block.set("pid", os.getpid())
        block.set("shards", shards)
        block.set("epoch", self.instance.epoch)
        block.set("state", State.STARTING)

    def _make_directory(self) -> DataDirectory:
        return DataDirectory(self.config, self.config.shards)

    def admin(self, record: np.ndarray) -> int:
        """Have every shard concerned run an administrative COMMAND once, whatever dies meanwhile;
        returns its admin_seq (AdminRelay.admin). Call it between steps, in this thread.
        """
        return self.relay.admin(record)

    def _take_lock(self) -> int:
        return take_lock(self.config.instance)

    def _make_instance(
        self, blocks: Labels, histograms: Labels, lock: int, staging: str, keep: Collection[str]
    ) -> Instance:
        shards = self.config.shards
        made = create_instance(
            self.config, shards, blocks, histograms, lock=lock, staging=staging, keep=keep
        )
        self.sockets = OwnerSockets(made, self._shards_ready, lambda: self.producer, self.tell)
        return made

    def start(self) -> None:
        """Start journal and shards; the others follow when these serve (`wait_ready`)."""
        gc.collect()
        gc.freeze()  # pages that the collector does not write stay shared
        self._start_steps = [self._all_ready]
        if "shard" not in self.roles:
            self._start_doors()
            return
        # The journal first: what shards stage names as durable must be.
        if self.kept:
            self._spawn("journal", 0)
        self._start_steps += [self._start_shards, self._all_ready]
        self._start_steps += [self._push_start, self._start_taken, self._all_ready]

    def _start_shards(self) -> bool:
        for index in range(self.config.shards):
            self._spawn("shard", index)
        return True

    def _start_doors(self) -> None:
        for role in DOORS:
            if role in self.roles:
                self._spawn(role, 0)

    def _spawn(self, role: str, index: int) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        name = f"{role}{index}"
        child = fork_child(name, lambda: self._be(role, index, read_end, write_end))
        os.close(write_end)
        self.running[name] = Running(role, index, child, read_end)

    def _be(self, role: str, index: int, read_end: int, write_end: int) -> int:
        # In the child: let go of what is the supervisor's alone, then serve.
        for fd in (read_end, *(other.ready_fd for other in self.running.values())):
            os.close(fd)
        if self.sockets is not None:
            self.sockets.forget()
        instance = None
        if self.instance is not None:
            instance = from_descriptors(self.instance.description(), self.instance.descriptors())
        directory = self.directory.path if self.directory is not None else ""
        port = self.port if role == "gateway" else None
        ends = self.directory.ends if self.directory is not None and not self.served else None
        parts = ChildParts(
            self.config, instance, directory, index, self.placement, Ready(write_end), port, ends
        )
        return self.mains[role](parts)

    def _shards_ready(self) -> bool:
        return self.instance is not None and bool(
            self.instance.counters.block("supervisor").get("ready")
        )

    def wait_ready(self, stop: StopSignals) -> bool:
        """Wait until every child serves; False when somebody wants us to stop before that."""
        deadline = time.monotonic() + START_S_MAX
        while not self.served:
            if stop.is_set():
                return False
            if self.start_step():
                continue
            if time.monotonic() > deadline:
                late = [name for name, child in self.running.items() if not child.ready]
                raise StartError(
                    f"{', '.join(late) or 'a shard'} did not become ready within"
                    f" {START_S_MAX:.0f} s"
                )
            time.sleep(0.002)
        return True

    def start_step(self) -> bool:
        """Look how far the children are; returns whether it went on. `served`: all are up."""
        self._refuse_deaths()
        self._note_ready()
        self._serve()
        if not self._start_steps[0]():
            return False
        self._start_steps.pop(0)
        if not self._start_steps:
            self.served = True
            if self.instance is not None:
                self.instance.counters.block("supervisor").set("state", State.RUNNING)
        return True

    def _all_ready(self) -> bool:
        return all(child.ready for child in self.running.values())

    def _push_start(self) -> bool:
        # Every shard has recovered: its rings begin behind what its journal holds of them.
        assert self.instance is not None
        self.producer = Producer(
            self.instance.command_rings, PRODUCER_SUPERVISOR, self.instance.shard_fds
        )
        for shard in range(self.config.shards):
            renewal: Renewal | None = None
            gateways: Sequence[int] = ()
            if self.directory is not None:
                renewal = self.directory.renewal
                gateways = () if self.directory.fresh else (PRODUCER_GATEWAY,)
            records = start_commands(self.config, shard, self.instance.epoch, renewal, gateways)
            self._push(shard, records)
        self.relay.begin(self.producer, self.instance)
        return True

    def _start_taken(self) -> bool:
        assert self.instance is not None
        assert self.producer is not None
        if not self.relay.flush():
            return False
        rings = self.instance.command_rings
        for shard in range(self.config.shards):
            ring = rings.ring(shard, PRODUCER_SUPERVISOR)
            taken = int(load_word(rings.ctrl, ring * CTRL_WORDS + CONSUMER_POSITION))
            if taken != self.producer.position[shard]:
                return False
        self.instance.counters.block("supervisor").set("ready", 1)
        self._start_doors()
        if self.kept:
            staging = self.instance.staging
            assert staging is not None
            self._renewal = [staging.get(s, STAGED) for s in range(self.config.shards)]
            for shard in range(self.config.shards):
                self._spawn("follow", shard)
        return True

    def _push(self, shard: int, records: np.ndarray) -> None:
        assert self.producer is not None
        if self.producer.push(shard, records) != len(records):
            raise StartError(
                f"command ring of shard {shard} has no room for {len(records)} commands"
            )

    def _note_ready(self) -> None:
        for running in self.running.values():
            if not running.ready:
                text = running.word()
                if text:
                    running.ready = True
                    if running.role == "gateway":
                        self.port = int(text)

    def running_port(self) -> int:
        """Return the port that was really taken."""
        return self.port

    def _refuse_deaths(self) -> None:
        for name, running in self.running.items():
            code = running.child.poll()
            if code is not None:
                raise StartError(
                    f"{name} (pid {running.child.pid}) ended with {exit_word(code)};"
                    " its messages stand above"
                )

    def _serve(self) -> None:
        if self.sockets is not None:
            self.sockets.serve_once()

    # ------------------------------------------------------------------------------- watch
    def watch(self, stop: StopSignals) -> int:
        """Serve until a signal (0), or until a child dies that cannot be brought back (1)."""
        while not stop.is_set():
            if not self.step():
                return 1
            time.sleep(WATCH_S)
        return 0

    def step(self) -> bool:
        """Look after every child once; False: everything has to end."""
        for name in list(self.running):
            code = self.running[name].child.poll()
            if code is not None and not self._ended(name, code):
                return False
        self._note_ready()
        self._take_overs_watch()
        self._followers_watch()
        self._renewal_watch()
        self._day_watch()
        self._plans_run()
        self.relay.flush()
        self._serve()
        if self.instance is not None:
            block = self.instance.counters.block("supervisor")
            block.set("children", len(self.running))
            block.set("heartbeat_ns", time.monotonic_ns())
        return True

    def _renewal_watch(self) -> None:
        # The start is over when what it had to tell the shards is on disk.
        staging = self.instance.staging if self.instance is not None else None
        if staging is not None and self.directory is not None and self.directory.manifest.renewing:
            if all(staging.get(s, DURABLE) >= end for s, end in enumerate(self._renewal)):
                self.directory.renewed()

    def _plans_run(self) -> None:
        now = time.monotonic()
        for plan in [plan for plan in self.plans if plan.due_s <= now]:
            self.plans.remove(plan)
            plan.what()

    def _later(self, wait_s: float, what: Callable[[], None]) -> None:
        self.plans.append(Plan(time.monotonic() + wait_s, what))

    def _ended(self, name: str, code: int) -> bool:
        # A child is dead and reaped. False: everything has to end.
        running = self.running.pop(name)
        running.close()
        word = f"{name} (pid {running.child.pid}) ended with {exit_word(code)}"
        if not self.kept:
            self.tell(f"ringbook: {word}; without a journal nothing is brought back: stopping\n")
            return False
        wait_s = self.restarts.setdefault(name, Restarts()).died(time.monotonic())
        self._count("restarts")
        if self._stays_down(running, code, word, wait_s):
            return True
        assert wait_s is not None
        self.tell(f"ringbook: {word}; it is started again\n")
        after = {"shard": self._shard_again, "gateway": self._gateway_again}
        again = after.get(running.role, lambda index: self._spawn(running.role, index))
        self._later(wait_s, lambda: again(running.index))
        return True

    def _stays_down(self, running: Running, code: int, word: str, wait_s: float | None) -> bool:
        reason = ""
        if running.role == "shard" and code == EXIT_HALTED:
            reason = "a broken invariant halted it; its evidence is kept"
        elif running.role == "journal" and self._storage_failed():
            reason = "the disk failed: HALTED(storage), nothing more is acknowledged"
        elif running.role == "follow" and code == EXIT_DIVERGED and running.index in self.diverged:
            reason = "its shard differs from its journal for the second time: the shard is halted"
            self._halt_shard(running.index)
        elif wait_s is None:
            reason = "it died too often"
        if running.role == "follow" and code == EXIT_DIVERGED:
            self.diverged.add(running.index)
        if reason:
            self.tell(f"ringbook: {word}: {reason}; it stays down\n")
            if running.role == "shard":
                self._block(f"shard{running.index}", State.HALTED)
        return bool(reason)

    def _storage_failed(self) -> bool:
        staging = self.instance.staging if self.instance is not None else None
        return staging is not None and staging.get(0, STORAGE) == STORAGE_FAILED

    def _halt_shard(self, index: int) -> None:
        running = self.running.pop(f"shard{index}", None)
        if running is not None:
            running.child.send_signal(signal.SIGKILL)
            running.child.wait(DRAIN_S_MAX)
            running.close()
        self._block(f"shard{index}", State.HALTED)

    def _block(self, name: str, state: State) -> None:
        if self.instance is not None:
            self.instance.counters.block(name).set("state", state)

    def _count(self, label: str) -> None:
        if self.instance is not None:
            self.instance.counters.block("supervisor").add(label)

    # ------------------------------------------------------------------------------- bring back
    def _new_epoch(self, shard: int) -> None:
        # On disk before its owner serves.
        assert self.directory is not None
        assert self.instance is not None
        assert self.instance.staging is not None
        epoch = self.directory.next_epoch()
        self.instance.staging.set(shard, WRITER_EPOCH, epoch)

    def _shard_again(self, shard: int) -> None:
        assert self.instance is not None
        staging = self.instance.staging
        assert staging is not None
        self._new_epoch(shard)
        self._block(f"shard{shard}", State.STARTING)
        follower = self.running.get(f"follow{shard}")
        alive = follower is not None and follower.child.poll() is None
        if follower is None or not alive or not follower.ready:
            if shard in self.taking_over:
                self.taking_over[shard] = math.inf  # a cold restart takes what it takes
            self._spawn("shard", shard)
            return
        del self.running[f"follow{shard}"]
        follower.role = "shard"
        set_policy(follower.child.pid, os.SCHED_OTHER)
        self.running[f"shard{shard}"] = follower
        staging.set(shard, LIVE_STATE, 1 - staging.get(shard, LIVE_STATE))
        staging.set(shard, TAKE_OVER, staging.get(shard, WRITER_EPOCH))
        eventfd_add(self.instance.journal_fds[1 + shard])
        self.taking_over[shard] = time.monotonic() + TAKE_OVER_S_MAX

    def _take_overs_watch(self) -> None:
        # A fresh follower starts when its shard serves; a take-over that does not end is ended.
        for shard, until in list(self.taking_over.items()):
            assert self.instance is not None
            running = self.running.get(f"shard{shard}")
            serving = self.instance.counters.block(f"shard{shard}").get("state") == State.RUNNING
            if running is None:
                continue  # it died as well; who comes next still has to get its follower
            if serving:
                del self.taking_over[shard]
                self._spawn("follow", shard)
            elif time.monotonic() > until:
                running.child.send_signal(signal.SIGKILL)

    def _day_watch(self) -> None:
        # A new day is a new feed session (RULES §11).
        date = today()
        if self.date and date > self.date and self.instance is not None:
            for shard in range(self.config.shards):
                if self.producer is not None:
                    self.producer.push(shard, day_commands(self.instance.epoch))
        self.date = max(date, self.date)

    def _followers_watch(self) -> None:
        staging = self.instance.staging if self.instance is not None else None
        if staging is None or self.instance is None:
            return
        for running in self.running.values():
            if running.role == "follow":
                set_policy(running.child.pid, follower_policy(staging, running.index))

    def _gateway_again(self, index: int) -> None:
        # Its sessions get the grace time; what it had written is run before that.
        assert self.instance is not None
        assert self.producer is not None
        rings, producer = self.instance.command_rings, PRODUCER_GATEWAY + index
        logon = self.instance.last_logon()
        grace_ns = int(self.config.gateway.session_grace_s * 1e9)
        for shard in range(self.config.shards):
            ring = rings.ring(shard, producer)
            end = int(ring_scan(rings.ctrl, rings.slot_words, ring, rings.capacity))
            self.producer.push(shard, producer_reset(producer, grace_ns, end, logon))
            if self.instance.staging is not None:
                self.instance.staging.set(shard, READERS_WAIT, 0)  # it waited for nothing any more
        self._spawn("gateway", index)

    # ------------------------------------------------------------------------------- end
    def close(self) -> None:
        """Stop the children in order and remove everything that is not the truth."""
        self.plans = []
        self._stop("gateway")
        serving = self.instance is not None and self._shards_ready() and self._alive("shard")
        if serving:
            self._end_session()
        self._stop("shard")
        self._stop("feed")
        clean = self._keep()  # of a start that was broken off, too
        self._stop("follow", KEEP_S_MAX)
        self._stop("journal")
        for running in self.running.values():
            running.close()
        self.running = {}
        self.relay.close()
        if self.sockets is not None:
            self.sockets.close()
            self.sockets = None
        if self.instance is not None:
            self.producer = None
            # The next start reads the staging ring, unless all of it is on disk, or goes with it.
            kept = self.directory is not None and not self.directory.temporary
            self.instance.close(keep_staging=kept and not clean)
            self.instance = None
        if self.directory is not None:
            self.directory.close(clean)
            self.directory = None

    def _keep(self) -> bool:
        # The shards have ended: wait until all they staged is on disk. Whether it is.
        staging = self.instance.staging if self.instance is not None else None
        if staging is None:
            return False
        until = time.monotonic() + DRAIN_S_MAX
        while time.monotonic() < until and self._alive("journal"):
            if all(
                staging.get(shard, DURABLE) >= staging.get(shard, STAGED)
                for shard in range(staging.shards)
            ):
                return True
            time.sleep(WATCH_S / 4)
        return False

    def _alive(self, role: str) -> list[Child]:
        return [
            running.child
            for running in self.running.values()
            if running.role == role and running.child.poll() is None
        ]

    def _end_session(self) -> None:
        assert self.instance is not None
        assert self.producer is not None
        for shard in range(self.config.shards):
            self.producer.push(shard, end_commands(self.instance.epoch))

    def _stop(self, role: str, wait_s: float = DRAIN_S_MAX) -> None:
        alive = self._alive(role)
        for child in alive:
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + wait_s
        for child in alive:
            if not child.wait(max(deadline - time.monotonic(), 0)):
                child.send_signal(signal.SIGKILL)
                child.wait(DRAIN_S_MAX)
