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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.atomics import fetch_add
from engine.book_state import ShardState, allocate_state, map_state, state_bytes
from engine.config import Config, config_from_mapping
from engine.counters import Counters
from engine.event_ring import READERS_MAX
from engine.jit import kernel, register_warmup
from engine.records import RejectCode
from engine.segment import Segment, SegmentError, janitor, segment_name
from engine.shm_ring import BookTops, CommandRings, EventRings

PRODUCER_GATEWAY = 2
READER_GATEWAY = 0
READER_FEED = 4
SOCKET_MESSAGE_BYTES = 1 << 20
DESCRIPTORS_MAX = 250  # the kernel passes at most 253 in one message
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
SUPERVISOR_LABELS = ("shards", "ready", "children", "epoch")


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


Labels = Mapping[str, Sequence[str]]


@kernel
def word_add(words, index, value):
    """fetch_add for Python."""
    return fetch_add(words, index, value)


@dataclass
class Instance:
    """Everything shared, mapped into this process."""

    config: Config
    epoch: int
    command_rings: CommandRings
    event_rings: EventRings
    tops: BookTops
    counters: Counters
    states: list[Segment]
    shard_fds: list[int]
    reader_fds: list[int]
    started_ns: int = 0  # CLOCK_REALTIME of its making: names the feed session
    lock: int = -1
    owner: bool = False
    _state_views: dict[int, ShardState] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        return self.command_rings.shards

    def descriptors(self) -> list[int]:
        """Return all descriptors in the order `from_descriptors` wants them."""
        segments = [s.fd for s in (self.command_rings, self.event_rings, self.tops, self.counters)]
        return [*segments, *(s.fd for s in self.states), *self.shard_fds, *self.reader_fds]

    def description(self) -> dict[str, object]:
        """Return what stands beside the descriptors."""
        return {
            "config": orjson.loads(self.config.to_json()),
            "epoch": self.epoch,
            "shards": self.shards,
            "started_ns": self.started_ns,
        }

    def next_logon(self) -> int:
        """Return a logon number higher than any before."""
        return int(word_add(self.command_rings.shard_ctrl, LOGON_WORD, 1)) + 1

    def shard_state(self, shard: int) -> ShardState:
        """Return an observer's view of a shard's arrays."""
        if shard not in self._state_views:
            memory = self.states[shard].view(np.uint8, 0, state_bytes(self.config.shard))
            capacity = self.event_rings.capacity
            events = self.event_rings.slots[shard * capacity : (shard + 1) * capacity]
            self._state_views[shard] = map_state(self.config.shard, memory, events, observe=True)
        return self._state_views[shard]

    def fresh_state(self, shard: int) -> ShardState:
        """Initialise the shard's arrays (new segment, all zero) and return them."""
        memory = self.states[shard].view(np.uint8, 0, state_bytes(self.config.shard))
        capacity = self.event_rings.capacity
        events = self.event_rings.slots[shard * capacity : (shard + 1) * capacity]
        seed = int.from_bytes(os.urandom(7), "little")
        return allocate_state(
            self.config.shard, shard=shard, memory=memory, events=events, seed=seed
        )

    def close(self) -> None:
        """Unmap everything; the owner also removes the names, the socket and the lock."""
        self._state_views.clear()
        segments: list[Any] = [
            self.command_rings,
            self.event_rings,
            self.tops,
            self.counters,
            *self.states,
        ]
        for segment in segments:
            if self.owner:
                segment.unlink()
            segment.close()
        for fd in [*self.shard_fds, *self.reader_fds]:
            os.close(fd)
        self.shard_fds, self.reader_fds = [], []
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _take_lock(instance: str) -> int:
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


def create_instance(config: Config, shards: int, blocks: Labels, histograms: Labels) -> Instance:
    """Make all segments and eventfds of a new instance; SegmentError says why it cannot be.

    `blocks`, `histograms`: labels of the doors' counters; those of the shards and the supervisor
    are added.
    """
    lock = _take_lock(config.instance)
    made: list[Any] = []
    fds: list[int] = []
    try:
        janitor(config.instance)
        rings = config.rings
        made.append(
            CommandRings.create(config.instance, shards, rings.producers, rings.command_capacity)
        )
        made.append(EventRings.create(config.instance, shards, rings.event_capacity))
        made.append(BookTops.create(config.instance, shards, config.shard.symbols_max + 1))
        own = {
            "supervisor": SUPERVISOR_LABELS,
            **{f"shard{i}": SHARD_LABELS for i in range(shards)},
        }
        measured = {f"shard{i}": SHARD_HISTOGRAMS for i in range(shards)}
        made.append(Counters.create(config.instance, {**own, **blocks}, {**measured, **histograms}))
        size = state_bytes(config.shard)
        for shard in range(shards):
            kind = f"state{shard}"
            made.append(Segment.create(segment_name(config.instance, kind), kind, size))
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        fds = [os.eventfd(0, flags) for _ in range(shards + READERS_MAX)]
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
        made[4:],
        fds[:shards],
        fds[shards:],
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
    if len(fds) != 4 + 2 * shards + READERS_MAX:
        raise SegmentError(f"got {len(fds)} descriptors for {shards} shards")
    states = [Segment.attach(fd, f"state{i}") for i, fd in enumerate(fds[4 : 4 + shards])]
    return Instance(
        config,
        int(description["epoch"]),
        CommandRings.attach(fds[0]),
        EventRings.attach(fds[1]),
        BookTops.attach(fds[2]),
        Counters.attach(fds[3]),
        states,
        fds[4 + shards : 4 + 2 * shards],
        fds[4 + 2 * shards :],
        int(description["started_ns"]),
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


register_warmup("engine.instance", _warm)
