"""What `run.py top` looks at: one reading of an instance's shared memory and /proc. Cold, writes
nothing.

A `Sample` is everything at one moment; two of them make rates. Attaching is by name, so `top` sees
an instance it did not start, and nothing it does can slow the exchange but for the cache lines it
reads.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.book_top import BookTops
from engine.command_ring import CONSUMER_POSITION, CTRL_WORDS, PRODUCER_POSITION
from engine.counters import Counters, State
from engine.event_ring import EVENT_CTRL_WORDS, READER_POSITION, READERS_MAX
from engine.records import unpack_name
from engine.segment import Segment, SegmentError, load_word, process_start_time, segment_name
from engine.shm_ring import CommandRings, EventRings

READERS = ("gateway0", "gateway1", "gateway2", "gateway3", "feed", "api", "store", "supervisor")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_Array = np.ndarray[Any, Any]


@dataclass
class Process:
    """One block of counters and what /proc says of its process."""

    name: str
    pid: int
    state: str
    beat_age_s: float
    cpu_ticks: int  # user and system time
    cores: str  # where it may run
    counters: dict[str, int]


@dataclass
class Ring:
    """A command ring, or one reader's view of an event ring."""

    shard: int
    peer: str
    written: int
    read: int
    capacity: int


@dataclass
class BookLine:
    """Best prices of one instrument."""

    symbol: str
    bid: float
    ask: float
    last: float
    trades: int


@dataclass
class Sample:
    """Everything at one moment."""

    at: float
    processes: list[Process] = field(default_factory=list)
    commands: list[Ring] = field(default_factory=list)
    events: list[Ring] = field(default_factory=list)
    books: list[BookLine] = field(default_factory=list)
    histograms: dict[tuple[str, str], _Array] = field(default_factory=dict)


def core_list(pid: int) -> str:
    """Say where a process may run: 0, 0-1, 2,5."""
    try:
        cores = sorted(os.sched_getaffinity(pid))
    except OSError:
        return "-"
    runs: list[list[int]] = []
    for core in cores:
        if runs and runs[-1][-1] == core - 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def cpu_ticks(pid: int) -> int:
    """Processor time a process has used, in clock ticks; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


class Instance:
    """An instance's segments, attached for reading."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters = Counters.open(name)
        self.commands: CommandRings | None = None
        self.events: EventRings | None = None
        self.tops: BookTops | None = None
        self._attach_rings()

    def _attach_rings(self) -> None:
        # A gateway that runs without its shards has counters and no rings yet.
        try:
            if self.commands is None:
                self.commands = CommandRings(self._segment("commands"))
            if self.events is None:
                self.events = EventRings(self._segment("events"))
            if self.tops is None:
                self.tops = BookTops(self._segment("tops"))
        except SegmentError:
            return

    def _segment(self, kind: str) -> Segment:
        return Segment.open(segment_name(self.name, kind), kind)

    @classmethod
    def find(cls, name: str) -> "Instance | None":
        """Attach if there is such an instance."""
        try:
            return cls(name)
        except SegmentError:
            return None

    @property
    def ended(self) -> bool:
        """Whether its owner is gone: what is mapped here will not change any more."""
        return process_start_time(self.counters.segment.owner_pid) == 0

    def close(self) -> None:
        """Unmap everything."""
        self.counters.close()
        for segment in (self.commands, self.events, self.tops):
            if segment is not None:
                segment.close()

    def sample(self) -> Sample:
        """Read everything once."""
        self._attach_rings()
        sample = Sample(time.monotonic())
        for name, block in self.counters.blocks.items():
            values = block.snapshot()
            pid, state, beat = (values.pop(k) for k in ("pid", "state", "heartbeat_ns"))
            if not pid:
                continue
            words = State(state).name.lower() if state in State.__members__.values() else f"{state}"
            age = max(0.0, (time.monotonic_ns() - beat) / 1e9) if beat else 0.0
            process = Process(name, pid, words, age, cpu_ticks(pid), core_list(pid), values)
            sample.processes.append(process)
            for label in block.histograms:
                sample.histograms[name, label] = np.array(block.histogram(label))
        self._sample_commands(sample)
        self._sample_events(sample)
        self._sample_books(sample)
        return sample

    def _sample_commands(self, sample: Sample) -> None:
        rings = self.commands
        if rings is None:
            return
        for shard in range(rings.shards):
            for producer in range(rings.producers):
                base = rings.ring(shard, producer) * CTRL_WORDS
                read = int(load_word(rings.ctrl, base + CONSUMER_POSITION))
                written = int(load_word(rings.ctrl, base + PRODUCER_POSITION))
                if written or read:
                    peer = "supervisor" if producer == 1 else f"gateway{producer - 2}"
                    written = max(written, read)
                    sample.commands.append(Ring(shard, peer, written, read, rings.capacity))

    def _sample_events(self, sample: Sample) -> None:
        rings = self.events
        if rings is None:
            return
        for shard in range(rings.shards):
            committed = rings.committed(shard)
            for reader in range(READERS_MAX):
                word = shard * EVENT_CTRL_WORDS + READER_POSITION + 8 * reader
                read = int(load_word(rings.ctrl, word))
                if read:
                    ring = Ring(
                        shard, READERS[reader], committed, min(read, committed), rings.capacity
                    )
                    sample.events.append(ring)

    def _sample_books(self, sample: Sample) -> None:
        tops = self.tops
        if tops is None:
            return
        for place in np.flatnonzero(tops.records["symbol"]):
            copy = tops.read(int(place))
            if copy is None:
                continue
            row = copy[0]
            unit = int(row["tick"]) / 1e9
            prices = (int(row["bids"][0]) * unit, int(row["asks"][0]) * unit)
            last, trades = int(row["last_px"]) * unit, int(row["trade_count"])
            sample.books.append(BookLine(unpack_name(int(row["symbol"])), *prices, last, trades))
