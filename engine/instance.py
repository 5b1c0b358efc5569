"""The shared things of one running instance: segments, eventfds, their owner and how others get
them.

Cold. The owner (supervisor of the shards) makes everything once. Its children inherit the
descriptors; parts started apart ask for them over the instance's Unix socket. Everybody maps what
he got and checks it (engine/segment.py).

    <runtime>/<instance>.lock    flock of the owner: one instance of a name at a time
    <runtime>/<instance>.sock    answers one line of JSON with the descriptors attached (SCM_RIGHTS)
    /dev/shm/ringbook.<instance>.{commands,events,tops,counters,state<n>}

The kernel frees the lock with its holder, however that died; the next start removes what it left.
"""

import contextlib
import datetime
import fcntl
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.account_view import AccountView, account_view
from engine.atomics import compare_swap, fetch_add, load_acquire
from engine.book_state import ShardState, allocate_state, map_state, state_bytes
from engine.config import Config, config_from_mapping
from engine.counters import Counters
from engine.event_ring import READERS_MAX
from engine.jit import kernel, register_warmup
from engine.records import RejectCode, unpack_name
from engine.segment import Segment, SegmentError, janitor, segment_name
from engine.shm_ring import BookTops, CommandRings, EventRings
from engine.staging import (
    FEED_DATE,
    FEED_EPOCH,
    GATE_CLOSED,
    LIVE_STATE,
    STORAGE,
    STORAGE_FAILED,
    STORAGE_GOOD,
    STORAGE_LOW,
    StagingRings,
)

PRODUCER_GATEWAY = 2
READER_GATEWAY = 0
READER_FEED = 4
SOCKET_MESSAGE_BYTES = 1 << 20
DESCRIPTORS_MAX = 250  # the kernel passes at most 253 in one message
STATES_EACH = 2
LOGON_WORD = 8  # word of shard_ctrl of shard 0 that counts logons

REJECT_LABELS = tuple(f"reject_{int(code)}" for code in RejectCode if code)
SHARD_LABELS = (
    "core",
    "commands",
    "events",
    "committed",
    "batches",
    "trades",
    "feed_seq",
    "orders",
    "levels",
    "symbols",
    "sessions",
    "parks",
    "clock_jumps",
    "fatal",
    *REJECT_LABELS,
)
SHARD_HISTOGRAMS = ("command_to_publish_ns",)
SUPERVISOR_LABELS = ("shards", "ready", "children", "epoch", "restarts")
JOURNAL_LABELS = ("written", "durable", "storage")
FOLLOWER_LABELS = ("followed", "lag", "log_end", "snapshots", "marks")


def runtime_directory() -> Path:
    """Return the 0700 directory of locks and sockets: $RINGBOOK_RUNTIME, $XDG_RUNTIME_DIR/ringbook
    or /tmp/ringbook-<uid>.
    """
    named = os.environ.get("RINGBOOK_RUNTIME")
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = (
        Path(named)
        if named
        else Path(base) / "ringbook"
        if base
        else Path(f"/tmp/ringbook-{os.getuid()}")
    )
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.stat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise SegmentError(f"{path} must belong to you with mode 0700")
    return path


def states_count(shards: int, kept: bool) -> int:
    """How many state segments an instance has."""
    return shards * (STATES_EACH if kept else 1)


Labels = Mapping[str, Sequence[str]]


@kernel
def word_add(words, index, value):
    """fetch_add for Python."""
    return fetch_add(words, index, value)


@kernel
def word_raise(words, index, value):
    """Have words[index] be at least `value`, whoever else counts it up."""
    known = load_acquire(words, index)
    while known < value and not compare_swap(words, index, known, value):
        known = load_acquire(words, index)


@dataclass
class Instance:
    """Everything shared, mapped into this process."""

    config: Config
    epoch: int
    command_rings: CommandRings
    event_rings: EventRings
    tops: BookTops
    counters: Counters
    staging: StagingRings | None  # none: nothing is kept
    states: list[Segment]  # STATES_EACH per shard with a journal: the live one and the follower's
    shard_fds: list[int]
    reader_fds: list[int]
    journal_fds: list[int]  # the journal process, then each shard's follower
    started_ns: int = 0  # CLOCK_REALTIME of its making: names the feed session
    lock: int = -1
    owner: bool = False
    directory: str = ""  # where journal and event log are
    _state_views: dict[int, ShardState] = field(default_factory=dict)  # by place in `states`

    @property
    def shards(self) -> int:
        return self.command_rings.shards

    def descriptors(self) -> list[int]:
        """Return all descriptors in the order `from_descriptors` wants them."""
        segments = [s.fd for s in self._segments()]
        return [*segments, *self.shard_fds, *self.reader_fds, *self.journal_fds]

    def _segments(self) -> list[Any]:
        staging = [self.staging] if self.staging is not None else []
        rings = [self.command_rings, self.event_rings, self.tops, self.counters]
        return [*rings, *self.states, *staging]

    def description(self) -> dict[str, object]:
        """Return what stands beside the descriptors."""
        return {
            "config": orjson.loads(self.config.to_json()),
            "epoch": self.epoch,
            "shards": self.shards,
            "started_ns": self.started_ns,
            "directory": self.directory,
        }

    def next_logon(self) -> int:
        """Return a logon number higher than any before."""
        return int(word_add(self.command_rings.shard_ctrl, LOGON_WORD, 1)) + 1

    def logons_follow(self, state: ShardState) -> None:
        """Give no logon number that a recovered shard would take for an older one: the clock, from
        which they count, may have been set back since.
        """
        highest = int(state.sessions["logon"].max())
        word_raise(self.command_rings.shard_ctrl, LOGON_WORD, highest)

    def _state_place(self, shard: int) -> int:
        # Of the live one: where the shard's owner works, not where a follower replays.
        if self.staging is None:
            return shard
        return shard * STATES_EACH + self.staging.get(shard, LIVE_STATE)

    def shard_state(self, shard: int) -> ShardState:
        """Return an observer's view of a shard's arrays."""
        place = self._state_place(shard)
        if place not in self._state_views:
            memory = self.states[place].view(np.uint8, 0, state_bytes(self.config.shard))
            events = self.shard_events(shard)
            self._state_views[place] = map_state(self.config.shard, memory, events, observe=True)
        return self._state_views[place]

    def session_names(self, shard: int) -> list[tuple[int, str]]:
        """Return (slot, name) of every session the shard knows."""
        names: list[int] = self.shard_state(shard).sessions["name"].tolist()
        return [(slot, unpack_name(name)) for slot, name in enumerate(names) if name]

    def account_views(self, account: int) -> list[AccountView]:
        """Return what each shard holds of an account."""
        return [account_view(self.shard_state(shard), account) for shard in range(self.shards)]

    def feed_date(self, shard: int) -> int:
        """Return the date of the shard's open feed session, yyyymmdd; 0: the day of the start."""
        return self.staging.get(shard, FEED_DATE) if self.staging is not None else 0

    def feed_epoch(self, shard: int) -> int:
        """Return the epoch of the shard's open feed session."""
        known = self.staging.get(shard, FEED_EPOCH) if self.staging is not None else 0
        return known or self.epoch

    def gates(self) -> list[bool]:
        """Return per shard whether its gate is closed."""
        staging = self.staging
        if staging is None:
            return []
        return [bool(staging.get(shard, GATE_CLOSED)) for shard in range(self.shards)]

    def gate_reason(self, shard: int) -> str:
        """Say why the shard's gate is closed."""
        storage = self.staging.get(shard, STORAGE) if self.staging is not None else STORAGE_GOOD
        return {
            STORAGE_LOW: "the disk is almost full",
            STORAGE_FAILED: "the disk failed: nothing more is acknowledged",
        }.get(storage, "the disk is behind: what a power cut could lose is at its limit")

    def shard_events(self, shard: int) -> np.ndarray:
        """Return the shard's slots of the event ring."""
        capacity = self.event_rings.capacity
        return self.event_rings.slots[shard * capacity : (shard + 1) * capacity]

    def state_memory(self, shard: int, *, live: bool) -> np.ndarray:
        """Return zeroed memory for the shard's arrays: never a dead owner's content."""
        place = self._state_place(shard)
        if not live:
            place = shard * STATES_EACH + (1 - place % STATES_EACH)
        memory = self.states[place].view(np.uint8, 0, state_bytes(self.config.shard))
        memory[:] = 0
        return memory

    def fresh_state(self, shard: int) -> ShardState:
        """Initialise the shard's arrays and return them."""
        seed = int.from_bytes(os.urandom(7), "little")
        return allocate_state(
            self.config.shard,
            shard=shard,
            memory=self.state_memory(shard, live=True),
            events=self.shard_events(shard),
            seed=seed,
        )

    def last_logon(self) -> int:
        """Return the highest logon number given so far."""
        return int(self.command_rings.shard_ctrl[LOGON_WORD])

    def close(self, *, keep_staging: bool = False) -> None:
        """Unmap everything; the owner also removes the names (`keep_staging`: but for the staging
        ring, which the next start reads), the socket and the lock.
        """
        self._state_views.clear()
        for segment in self._segments():
            if self.owner and not (keep_staging and segment is self.staging):
                segment.unlink()
            segment.close()
        for fd in [*self.shard_fds, *self.reader_fds, *self.journal_fds]:
            os.close(fd)
        self.shard_fds, self.reader_fds, self.journal_fds = [], [], []
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def take_lock(instance: str) -> int:
    """Own the name of an instance; SegmentError when a running one has it."""
    path = runtime_directory() / f"{instance}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SegmentError(
            f"an instance called {instance!r} is running already;"
            " stop it or give this one another name"
        ) from None
    return lock


def next_epoch(instance: str) -> int:
    """Number this start: higher than any of the same day, so no feed session comes twice."""
    path = runtime_directory() / f"{instance}.epoch"
    now = datetime.datetime.now(datetime.UTC)
    day, by_clock = f"{now:%Y%m%d}", (now.hour * 3600 + now.minute * 60 + now.second) // 2
    last = path.read_text().split() if path.exists() else ["", "0"]
    epoch = max(by_clock, int(last[1]) + 1) if len(last) == 2 and last[0] == day else by_clock
    path.write_text(f"{day} {epoch}")
    return epoch


def counter_labels(shards: int, kept: bool) -> tuple[Labels, Labels]:
    """Return the labels and the histograms of every counters block but the doors'."""
    labels = {
        "supervisor": SUPERVISOR_LABELS,
        **{f"shard{i}": SHARD_LABELS for i in range(shards)},
        **({"journal0": JOURNAL_LABELS} if kept else {}),
        **{f"follow{i}": FOLLOWER_LABELS for i in range(states_count(shards, kept) - shards)},
    }
    return labels, {f"shard{i}": SHARD_HISTOGRAMS for i in range(shards)}


def private_instance(
    config: Config, epoch: int, blocks: Labels, histograms: Labels, started_ns: int
) -> Instance:
    """Everything shared, in memory of this process alone: all processes of a simulation. Nobody
    sleeps there, so nobody is signalled.
    """
    shards, rings = config.shards, config.rings
    labels, measured = counter_labels(shards, kept=True)
    size = state_bytes(config.shard)
    instance = Instance(
        config,
        epoch,
        CommandRings.private(shards, rings.producers, rings.command_capacity),
        EventRings.private(shards, rings.event_capacity),
        BookTops.private(shards, config.shard.symbols_max + 1),
        Counters.private({**labels, **blocks}, {**measured, **histograms}),
        StagingRings.private(shards, config.journal.staging_capacity),
        [Segment.private(f"state{place}", size) for place in range(states_count(shards, True))],
        [-1] * shards,
        [-1] * READERS_MAX,
        [-1] * (1 + shards),
        started_ns,
    )
    instance.command_rings.shard_ctrl[LOGON_WORD] = started_ns // 1_000_000_000
    return instance


def create_instance(
    config: Config,
    shards: int,
    blocks: Labels,
    histograms: Labels,
    *,
    lock: int = -1,
    staging: str = "",
    keep: Collection[str] = (),
) -> Instance:
    """Make all segments and eventfds of a new instance; SegmentError says why it cannot be.

    `blocks`, `histograms`: labels of the doors' counters; those of the shards, the journal, the
    followers and the supervisor are added. `lock`: of the instance, where it is taken already;
    given back when this fails. `staging`: name of the staging segment to make; `keep`:
    segments of a dead instance that the janitor leaves alone, part of its journal.
    """
    lock = take_lock(config.instance) if lock < 0 else lock
    made: list[Any] = []
    fds: list[int] = []
    kept = config.journal.mode != "none"
    try:
        janitor(config.instance, keep)
        rings = config.rings
        made.append(
            CommandRings.create(config.instance, shards, rings.producers, rings.command_capacity)
        )
        made.append(EventRings.create(config.instance, shards, rings.event_capacity))
        made.append(BookTops.create(config.instance, shards, config.shard.symbols_max + 1))
        labels, measured = counter_labels(shards, kept)
        made.append(
            Counters.create(config.instance, {**labels, **blocks}, {**measured, **histograms})
        )
        size = state_bytes(config.shard)
        for place in range(states_count(shards, kept)):
            kind = f"state{place}"
            made.append(Segment.create(segment_name(config.instance, kind), kind, size))
        if kept:
            capacity = config.journal.staging_capacity
            name = staging or segment_name(config.instance, StagingRings.kind)
            made.append(StagingRings.create(name, shards, capacity))
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        fds = [os.eventfd(0, flags) for _ in range(2 * shards + READERS_MAX + 1)]
    except (SegmentError, OSError):
        for segment in made:  # whatever was made before it failed
            segment.unlink()
            segment.close()
        os.close(lock)
        raise
    commands, events, tops, counters = made[:4]
    instance = Instance(
        config,
        next_epoch(config.instance),
        commands,
        events,
        tops,
        counters,
        made[-1] if kept else None,
        made[4:-1] if kept else made[4:],
        fds[:shards],
        fds[shards : shards + READERS_MAX],
        fds[shards + READERS_MAX :],
        time.time_ns(),
        lock,
        True,
    )
    # Logons count on from the seconds since 1970: higher than any before, without a file, at under
    # one logon a second.
    instance.command_rings.shard_ctrl[LOGON_WORD] = int(time.time())
    return instance


def from_descriptors(description: dict[str, Any], fds: list[int]) -> Instance:
    """Map what another process made; SegmentError says what is wrong with it."""
    config = config_from_mapping(description["config"])
    shards = int(description["shards"])
    kept = config.journal.mode != "none"
    states = states_count(shards, kept)
    segments = 4 + states + kept
    if len(fds) != segments + 2 * shards + READERS_MAX + 1:
        raise SegmentError(f"got {len(fds)} descriptors for {shards} shards")
    at = segments
    return Instance(
        config,
        int(description["epoch"]),
        CommandRings.attach(fds[0]),
        EventRings.attach(fds[1]),
        BookTops.attach(fds[2]),
        Counters.attach(fds[3]),
        StagingRings.attach(fds[4 + states]) if kept else None,
        [Segment.attach(fd, f"state{i}") for i, fd in enumerate(fds[4 : 4 + states])],
        fds[at : at + shards],
        fds[at + shards : at + shards + READERS_MAX],
        fds[at + shards + READERS_MAX :],
        int(description["started_ns"]),
        directory=str(description["directory"]),
    )


class DescriptorServer:
    """The owner's Unix socket. `serve_once` answers whoever is waiting; it never blocks longer than
    its timeout.
    """

    def __init__(self, instance: Instance, ready: Callable[[], bool]) -> None:
        self._instance = instance
        self._ready = ready
        self.path = runtime_directory() / f"{instance.config.instance}.sock"
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()  # ours: we hold the lock of this name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(self.path))
        self.path.chmod(0o600)
        self.socket.listen(8)
        self.socket.setblocking(False)

    def serve_once(self) -> None:
        """Hand the descriptors to one caller, if there is one and the shards are ready."""
        try:
            connection, _ = self.socket.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(1.0)
            with contextlib.suppress(OSError):  # a caller that went away is no error of ours
                if self._ready():
                    text = orjson.dumps(self._instance.description())
                    socket.send_fds(connection, [text], self._instance.descriptors())
                else:
                    connection.send(b"{}")

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def connect_instance(name: str) -> Instance | None:
    """Attach to a running instance by its socket; None when there is none, or not ready."""
    path = runtime_directory() / f"{name}.sock"
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.settimeout(1.0)
    try:
        caller.connect(str(path))
        text, fds, _, _ = socket.recv_fds(caller, SOCKET_MESSAGE_BYTES, DESCRIPTORS_MAX)
    except OSError:
        return None
    finally:
        caller.close()
    return from_descriptors(orjson.loads(text), fds) if fds else None


def _warm() -> None:
    word_add(np.zeros(2, np.int64), 0, 1)
    word_raise(np.zeros(2, np.int64), 0, 1)


register_warmup("engine.instance", _warm)
