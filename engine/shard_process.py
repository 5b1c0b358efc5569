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
from pathlib import Path

import numpy as np

from engine.book_state import (
    FATAL,
    FEED_SEQ,
    LEVELS_USED,
    ORDERS_CAPACITY,
    ORDERS_FREE,
    OUT_POSITION,
    SESSIONS_USED,
    SYMBOLS_USED,
    ShardState,
    set_policy,
)
from engine.command_ring import CTRL_WORDS, PRODUCER_POSITION, SHARD_CTRL_WORDS, SHARD_SLEEPS
from engine.counters import Block, State
from engine.idle import PARK_TIMEOUT_S, SPIN_NS, park
from engine.instance import Instance, runtime_directory
from engine.jit import freeze_kernels, warm_up
from engine.records import LAYOUT_FINGERPRINT, RejectCode
from engine.ring_words import eventfd_add, sleep_cancel, sleep_prepare
from engine.shard_loop import (
    BATCH_MAX,
    BATCHES,
    COMMANDS,
    EVENT_CAPACITY,
    EVENTS_PER_COMMAND,
    LATENCY_BASE,
    LOOP_WORDS,
    PRODUCERS,
    RETURN_FATAL,
    RETURN_IDLE,
    RING_CAPACITY,
    SHARD_INDEX,
    SLIPPED,
    STOP,
    SYMBOLS_MAX,
    YIELD_NS,
    Ports,
    rings_pending,
    shard_run,
)  # fmt: skip
from engine.shard_loop import SPIN_NS as SPIN_NS_WORD
from engine.sharding import Placement

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


class ShardProcess:
    """The shard `index` of an instance, in this process."""

    def __init__(self, instance: Instance, index: int, dedicated: bool) -> None:
        self.instance, self.index = instance, index
        self.state = instance.fresh_state(index)
        set_policy(self.state, instance.config.unknown_symbol, instance.config.template)
        self.block = instance.counters.block(f"shard{index}")
        self.ports = self._ports(dedicated)
        self._sleep_word = index * SHARD_CTRL_WORDS + SHARD_SLEEPS
        self._rejects = self.block.indexes(f"reject_{code}" for code in REJECT_CODES)
        self._reported_ns = 0
        self._parks = 0
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
        first = self.index * rings.producers
        positions = rings.ctrl[
            first * CTRL_WORDS : (first + rings.producers) * CTRL_WORDS : CTRL_WORDS
        ].copy()
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
        )

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
        if not rings_pending(self.ports):
            self._parks += 1
            park(self.instance.shard_fds[self.index], PARK_TIMEOUT_S)
        sleep_cancel(self.instance.command_rings.shard_ctrl, self._sleep_word)

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stopping` and the rings are empty; returns the exit code."""
        self.block.set("pid", os.getpid())
        self.report(time.monotonic_ns(), State.RUNNING)
        for fd in self.instance.reader_fds:
            eventfd_add(fd)  # a new owner wakes its readers once
        gc.collect()
        gc.freeze()
        gc.disable()
        started = False
        while True:
            outcome = shard_run(self.state.table, self.ports)
            now_ns = time.monotonic_ns()
            if now_ns - self._reported_ns >= REPORT_NS:
                self.report(now_ns, State.RUNNING)
            if outcome == RETURN_FATAL:
                return self._halt(now_ns)
            if not started and not rings_pending(self.ports):
                started = True  # the supervisor's first commands are done
                on_ready()
            if self.stopping and not rings_pending(self.ports):
                self.report(now_ns, State.STOPPED)
                return 0
            if outcome == RETURN_IDLE and not self.stopping:
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
) -> int:
    """Run a shard; `on_stop` receives it so that a signal handler can stop it."""
    pin(placement, index)
    process = ShardProcess(instance, index, placement.dedicated[index])
    process.block.set("core", placement.shard_cores[index])
    warm_up()
    freeze_kernels()
    on_stop.append(process)
    return process.run(on_ready)
