"""One shard as a process: maps its memory, pins itself, runs the loop, sleeps, reports, halts.

Cold around a hot call: Python runs once per compiled call (at most 10 ms), never per record.
Everything a shard knows is made by its command rings: the supervisor's first commands open accounts
and list instruments.

A broken invariant (FATAL) halts it: state HALTED in the counters, evidence beside the runtime lock,
exit code 3. It is never repaired in place.
"""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.book_state import (
    FATAL,
    FEED_SEQ,
    IN_SEQ,
    LEVELS_USED,
    NEXT_DEADLINE,
    ORDERS_CAPACITY,
    ORDERS_FREE,
    OUT_POSITION,
    SESSIONS_USED,
    SYMBOLS_USED,
    ShardState,
    set_policy,
)
from engine.command_ring import CTRL_WORDS, PRODUCER_POSITION, SHARD_CTRL_WORDS, SHARD_SLEEPS
from engine.config import GATE_SLOTS, JOURNAL_MODES, LOSS_MARGIN_MS
from engine.counters import Block, State
from engine.crc32c import CRC_START
from engine.idle import PARK_TIMEOUT_S, SPIN_NS, park
from engine.instance import Instance, runtime_directory
from engine.jit import freeze_kernels, warm_up
from engine.loop_words import (
    BATCH_MAX,
    BATCHES,
    COMMANDS,
    EVENT_CAPACITY,
    EVENTS_PER_COMMAND,
    FAKE_WALL,
    J_CAPACITY,
    J_CHAIN,
    J_COMMITTED,
    J_CRC,
    J_DURABLE,
    J_EPOCH,
    J_MODE,
    J_PAUSE,
    J_RESERVE,
    J_SHARD,
    J_WINDOW_NS,
    LATENCY_BASE,
    LOOP_WORDS,
    PRODUCERS,
    RING_CAPACITY,
    SHARD_INDEX,
    SLIPPED,
    STOP,
    SYMBOLS_MAX,
    TURN_AT,
    YIELD_NS,
    Ports,
    journal_inherit,
    journal_ports_none,
)
from engine.loop_words import SPIN_NS as SPIN_NS_WORD
from engine.phase_clock import PhaseClock
from engine.records import LAYOUT_FINGERPRINT, RejectCode
from engine.ring_words import eventfd_add, sleep_cancel, sleep_prepare
from engine.shard_loop import RETURN_BUSY, RETURN_FATAL, RETURN_IDLE, shard_run, work_waits
from engine.sharding import Placement
from engine.staging import DURABLE

EXIT_HALTED = 3
# A shard on its own core stays awake this long after the last command: a wake-up costs 50 µs.
LINGER_NS = 20_000_000
LINGER_SHARED_NS = 1_000_000
REPORT_NS = 100_000_000
REJECT_CODES = [int(code) for code in RejectCode if code]
_NEVER_NS = 1 << 62


def linger_ns(mode: str, dedicated: bool) -> tuple[int, int]:
    """Return (spin, yield) times after the last command for an idle mode."""
    if mode == "park":
        return 0, 0
    if mode == "spin":
        return (_NEVER_NS if dedicated else SPIN_NS), _NEVER_NS
    # It yields even on a core of its own: with few cores the clients run there too, and without the
    # yield their p99 was a scheduler slice, 3 ms instead of 0.7 (measured).
    return SPIN_NS, LINGER_NS if dedicated else LINGER_SHARED_NS


@dataclass
class Ownership:
    """What a shard's owner begins with: the state as recovered, and where the journal stands."""

    state: ShardState
    epoch: int = 0
    chain_crc: int = CRC_START
    event_crc: tuple[int, int, int] = (CRC_START, CRC_START, CRC_START)
    committed: int | None = None  # position readers may see; None: all of the state's
    pause_ns: int = 0  # how long nobody owned it


class ShardProcess:
    """The shard `index` of an instance, in this process."""

    def __init__(
        self, instance: Instance, index: int, dedicated: bool, own: Ownership | None = None
    ) -> None:
        self.instance, self.index = instance, index
        self.own = own or Ownership(instance.fresh_state(index))
        self.state = self.own.state
        set_policy(self.state, instance.config.unknown_symbol, instance.config.template)
        self.block = instance.counters.block(f"shard{index}")
        self.ports = self._ports(dedicated)
        self._sleep_word = index * SHARD_CTRL_WORDS + SHARD_SLEEPS
        self._rejects = self.block.indexes(f"reject_{code}" for code in REJECT_CODES)
        self._clock: PhaseClock | None = None  # from `begin` on
        self._reported_ns = 0
        self._parks = 0
        self._outcome = RETURN_BUSY
        self.stopping = False

    def _ports(self, dedicated: bool) -> Ports:
        rings, events, tops = (
            self.instance.command_rings,
            self.instance.event_rings,
            self.instance.tops,
        )
        limits = self.instance.config.shard
        loop = np.zeros(LOOP_WORDS, np.int64)
        spin, linger = linger_ns(self.instance.config.idle, dedicated)
        values = {
            SHARD_INDEX: self.index,
            PRODUCERS: rings.producers,
            RING_CAPACITY: rings.capacity,
            EVENT_CAPACITY: events.capacity,
            EVENTS_PER_COMMAND: limits.events_per_command_max,
            BATCH_MAX: limits.batch_max,
            SPIN_NS_WORD: spin,
            YIELD_NS: linger,
            SYMBOLS_MAX: tops.symbols_max,
            LATENCY_BASE: self.block.histogram_base("command_to_publish_ns"),
        }
        for word, value in values.items():
            loop[word] = value
        # A ring goes on behind the last command that the journal has of it: what was run is not run
        # again, what was not is.
        positions = self.state.producer_seq[: rings.producers].copy()
        return Ports(
            rings.ctrl,
            rings.slots,
            rings.slot_words,
            events.ctrl,
            tops.records,
            tops.words,
            self.block.words,
            np.array(self.instance.reader_fds, np.int64),
            positions,
            loop,
            *self._journal_ports(),
        )

    def _journal_ports(self) -> tuple[np.ndarray, ...]:
        staging = self.instance.staging
        ports = journal_ports_none()
        journal = ports[0]
        position = int(self.state.hdr[OUT_POSITION])
        journal[J_COMMITTED] = position if self.own.committed is None else self.own.committed
        if staging is None:
            return ports
        settings, limits = self.instance.config.journal, self.instance.config.shard
        values = {
            J_MODE: JOURNAL_MODES.index(settings.mode),
            J_SHARD: self.index,
            J_CAPACITY: staging.capacity,
            J_RESERVE: limits.batch_max + GATE_SLOTS,
            J_WINDOW_NS: (settings.loss_window_ms - LOSS_MARGIN_MS) * 1_000_000,
            J_EPOCH: self.own.epoch,
            J_CHAIN: self.own.chain_crc,
            J_DURABLE: staging.get(self.index, DURABLE),
            J_PAUSE: self.own.pause_ns,
        }
        for word, value in values.items():
            journal[word] = value
        journal[J_CRC : J_CRC + 3] = self.own.event_crc
        journal_inherit(journal, int(self.state.hdr[IN_SEQ]), position)
        fds = np.array(self.instance.journal_fds[:1], np.int64)
        return (journal, staging.ctrl, staging.slot_words, fds, *ports[4:])

    def report(self, now_ns: int, condition: State) -> None:
        """Write the counters block."""
        hdr, loop, block = self.state.hdr, self.ports.loop, self.block
        values = {
            "heartbeat_ns": now_ns,
            "state": condition,
            "commands": loop[COMMANDS],
            "events": hdr[OUT_POSITION],
            "committed": self.instance.event_rings.committed(self.index),
            "batches": loop[BATCHES],
            "trades": self.state.symbols["trade_id"].sum(),
            "feed_seq": hdr[FEED_SEQ],
            "orders": hdr[ORDERS_CAPACITY] - hdr[ORDERS_FREE],
            "levels": hdr[LEVELS_USED],
            "symbols": hdr[SYMBOLS_USED],
            "sessions": hdr[SESSIONS_USED],
            "parks": self._parks,
            "clock_jumps": (loop[SLIPPED] + 1) // 2,
            "fatal": hdr[FATAL],
        }
        # At once, because the shard serves nobody meanwhile: one by one took 200 µs.
        block.set_many(block.indexes(values), list(values.values()))
        block.set_many(self._rejects, self.state.rejects[REJECT_CODES])
        self._reported_ns = now_ns

    def _sleep(self) -> None:
        sleep_prepare(self.instance.command_rings.shard_ctrl, self._sleep_word)
        if not work_waits(self.state.table, self.ports):
            self._parks += 1
            park(self.instance.shard_fds[self.index], self._sleep_s())
        sleep_cancel(self.instance.command_rings.shard_ctrl, self._sleep_word)

    def _sleep_s(self) -> float:
        deadlines = int(self.state.hdr[NEXT_DEADLINE]), int(self.ports.loop[TURN_AT])
        deadline = min((at for at in deadlines if at > 0), default=0)
        if deadline == 0:
            return PARK_TIMEOUT_S
        return min(max((deadline - time.time_ns()) / 1e9, 0.0), PARK_TIMEOUT_S)

    def begin(self) -> None:
        """Say that there is an owner."""
        now = int(self.ports.loop[FAKE_WALL]) or time.time_ns()
        instruments = self.instance.config.instruments
        self._clock = PhaseClock(self.state, self.ports.loop, instruments, now)
        self.block.set("pid", os.getpid())
        self.report(time.monotonic_ns(), State.RUNNING)
        for fd in self.instance.reader_fds:
            eventfd_add(fd)  # a new owner wakes its readers once

    @property
    def works(self) -> bool:
        """Whether something waits that may be done now."""
        return bool(work_waits(self.state.table, self.ports))

    def step(self) -> int | None:
        """One call of the loop; returns the exit code when it has ended."""
        self._outcome = shard_run(self.state.table, self.ports)
        if self._clock is not None:
            self._clock.step()
        now_ns = time.monotonic_ns()
        if now_ns - self._reported_ns >= REPORT_NS:
            self.report(now_ns, State.RUNNING)
        if self._outcome == RETURN_FATAL:
            return self._halt(now_ns)
        if self.stopping and not self.works:
            self.report(now_ns, State.STOPPED)
            return 0
        return None

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stopping` and the rings are empty; returns the exit code."""
        self.begin()
        gc.collect()
        gc.freeze()
        gc.disable()
        started = False
        while True:
            code = self.step()
            if code is not None:
                return code
            if not started and not self.works:
                started = True  # the supervisor's first commands are done
                on_ready()
            if self._outcome == RETURN_IDLE and not self.stopping:
                self._sleep()

    def stop(self) -> None:
        """Finish what lies in the rings, then end `run` (signal handlers call this)."""
        self.stopping = True
        self.ports.loop[STOP] = 1
        self.ports.loop[YIELD_NS] = 0

    def _halt(self, now_ns: int) -> int:
        self.report(now_ns, State.HALTED)
        path = runtime_directory() / f"{self.instance.config.instance}.shard{self.index}.halted.npz"
        save_evidence(path, self.state, self.block, self.ports)
        return EXIT_HALTED


def save_evidence(path: Path, state: ShardState, block: Block, ports: Ports) -> None:
    """Write what a halted shard knew: header, newest events, positions, counters."""
    newest = int(state.hdr[OUT_POSITION])
    places = np.arange(max(newest - 4096, 0), newest) & (len(state.events) - 1)
    counters = np.array(list(block.snapshot().values()), np.int64)
    np.savez_compressed(
        path,
        hdr=state.hdr,
        events=state.event_words.reshape(len(state.events), -1)[places],
        positions=ports.positions,
        loop=ports.loop,
        counters=counters,
        producer_positions=ports.command_ctrl[PRODUCER_POSITION::CTRL_WORDS],
        layout=np.array([LAYOUT_FINGERPRINT]),
    )


def pin(placement: Placement, index: int | None) -> None:
    """Pin this process: a shard to its core, a door (index None) to the doors' cores."""
    cores = placement.door_cores if index is None else (placement.shard_cores[index],)
    os.sched_setaffinity(0, cores)


def shard_main(
    instance: Instance,
    index: int,
    placement: Placement,
    on_stop: list[ShardProcess],
    on_ready: Callable[[], None],
    own: Ownership | None = None,
) -> int:
    """Run a shard; `on_stop` receives it so that a signal handler can stop it."""
    pin(placement, index)
    process = ShardProcess(instance, index, placement.dedicated[index], own)
    process.block.set("core", placement.shard_cores[index])
    warm_up()
    freeze_kernels()
    on_stop.append(process)
    return process.run(on_ready)
