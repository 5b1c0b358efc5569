"""The wiring room: which processes an instance has, what each is given, how they start and end.

Cold. `run_up` is the supervisor and reads as a list; the classes behind it hold the details. Doors
do not know each other or this file: they are handed their parts.

    1 kernels    compiled once, with progress, and loaded            (engine/warmup.py)
    2 instance   segments, eventfds, lock; only with role "shard"    (engine/instance.py)
    3 commands   accounts, instruments, start of session: in the rings before anybody runs
    4 children   shards, gateway, feed: forked, so that 1 is theirs  (engine/children.py);
                 a part started apart asks the owner's socket for the descriptors
    5 watch      until a signal, or a child dies
    6 stop       gateway -> end of session -> shards -> feed -> remove everything
"""

import dataclasses
import datetime
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.admin import feed_state, list_instrument, open_account
from engine.children import Child, die_with_parent, fork_child, name_process
from engine.config import Config, config_from_mapping
from engine.counters import State
from engine.instance import (
    PRODUCER_GATEWAY,
    READER_FEED,
    READER_GATEWAY,
    DescriptorServer,
    Instance,
    connect_instance,
    create_instance,
    from_descriptors,
)  # fmt: skip
from engine.jit import warm_up
from engine.segment import SegmentError
from engine.sharding import Placement, plan_placement, shard_of_symbol
from engine.shm_ring import Producer

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = "RINGBOOK_SUPERVISOR"
START_S_MAX = 120.0
DRAIN_S_MAX = 2.0
WATCH_S = 0.02
HEARTBEAT_DEAD_NS = 2_000_000_000
PRODUCER_SUPERVISOR = 1
DOORS = ("gateway", "feed")
ROLES = ("shard", *DOORS)


class StartError(RuntimeError):
    """The exchange could not be started; the message says why."""


# ------------------------------------------------------------------------------------------
# supervisor


def run_up(
    config: Config,
    roles: set[str],
    on_ready: Callable[[Config], None] | None = None,
    progress: Callable[[int, int, str, float], None] | None = None,
    *,
    background: bool = False,
) -> int:
    """Start the named roles, serve until SIGINT or SIGTERM, leave nothing behind; returns the exit
    code. In the background the terminal's Ctrl-C is for who started us: he says SIGTERM.
    """
    stop = StopSignals(interrupt=not background)
    placement = plan_placement(config)
    config = dataclasses.replace(config, shards=len(placement.shard_cores))
    supervisor = Supervisor(config, roles, placement)
    try:
        supervisor.warm(progress or print_progress)
        supervisor.create()
        supervisor.start()
        if not supervisor.wait_ready(stop):
            return 0
        if on_ready is not None:
            on_ready(supervisor.running_config())
        return supervisor.watch(stop)
    finally:
        supervisor.close()


class StopSignals:
    """SIGINT and SIGTERM as a flag."""

    def __init__(self, *, interrupt: bool = True) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note if interrupt else signal.SIG_IGN)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1

    def is_set(self) -> bool:
        """Whether somebody wants us to stop."""
        return self.count > 0


class Supervisor:
    """Owns the instance (role shard) and the children."""

    def __init__(self, config: Config, roles: set[str], placement: Placement) -> None:
        self.config, self.roles, self.placement = config, roles, placement
        self.instance: Instance | None = None
        self.server: DescriptorServer | None = None
        self.producer: Producer | None = None
        self.children: dict[str, Child] = {}
        self.ready_fds: dict[str, int] = {}
        self.port = config.network.port

    def warm(self, progress: Callable[[int, int, str, float], None]) -> None:
        """Compile and load what the children will use."""
        from engine.warmup import warm_roles

        warm_roles(self.roles, progress)
        warm_up()

    def create(self) -> None:
        """Make the instance and write its first commands."""
        if "shard" not in self.roles:
            return
        from feed.publisher import FEED_COUNTERS
        from gateway.tcp_entry import COUNTER_LABELS, HISTOGRAM_LABELS

        blocks = {"gateway0": COUNTER_LABELS, "feed": FEED_COUNTERS}
        self.instance = create_instance(
            self.config, self.config.shards, blocks, {"gateway0": HISTOGRAM_LABELS}
        )
        self.server = DescriptorServer(self.instance, self._shards_ready)
        self.producer = Producer(
            self.instance.command_rings, PRODUCER_SUPERVISOR, self.instance.shard_fds
        )
        block = self.instance.counters.block("supervisor")
        block.set("pid", os.getpid())
        block.set("shards", self.config.shards)
        block.set("epoch", self.instance.epoch)
        block.set("state", State.STARTING)
        for shard in range(self.config.shards):
            self._push(shard, startup_commands(self.config, shard, self.instance.epoch))

    def _push(self, shard: int, records: np.ndarray) -> None:
        assert self.producer is not None
        if self.producer.push(shard, records) != len(records):
            raise StartError(
                f"command ring of shard {shard} has no room for {len(records)} start commands"
            )

    def start(self) -> None:
        """Start the shards; the doors follow when these serve (`wait_ready`)."""
        gc.collect()
        gc.freeze()  # pages that the collector does not write stay shared
        if "shard" in self.roles:
            for index in range(self.config.shards):
                self._spawn("shard", index)
        else:
            self._start_doors()

    def _start_doors(self) -> None:
        for role in DOORS:
            if role in self.roles:
                self._spawn(role, 0)

    def _spawn(self, role: str, index: int) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        name = f"{role}{index}"
        self.children[name] = fork_child(name, lambda: self._be(role, index, read_end, write_end))
        os.close(write_end)
        self.ready_fds[name] = read_end

    def _be(self, role: str, index: int, read_end: int, write_end: int) -> int:
        # In the child: let go of what is the supervisor's alone, then serve.
        for fd in (read_end, *self.ready_fds.values()):
            os.close(fd)
        if self.server is not None:
            self.server.socket.close()
        instance = None
        if self.instance is not None:
            instance = from_descriptors(self.instance.description(), self.instance.descriptors())
        mains = {"shard": _shard_child, "gateway": _gateway_child, "feed": _feed_child}
        return mains[role](self.config, instance, index, self.placement, _Ready(write_end))

    def _shards_ready(self) -> bool:
        return self.instance is not None and bool(
            self.instance.counters.block("supervisor").get("ready")
        )

    def wait_ready(self, stop: StopSignals) -> bool:
        """Wait until every child serves; False when somebody wants us to stop before that."""
        deadline = time.monotonic() + START_S_MAX
        waiting = set(self.ready_fds)
        while waiting:
            if stop.is_set():
                return False
            self._check_children()
            for name in sorted(waiting):
                text = _read_ready(self.ready_fds[name])
                if text:
                    waiting.remove(name)
                    waiting |= self._note_ready(name, text, waiting)
            if time.monotonic() > deadline:
                raise StartError(
                    f"{', '.join(waiting)} did not become ready within {START_S_MAX:.0f} s"
                )
            self._serve()
            time.sleep(0.002)
        return True

    def _note_ready(self, name: str, text: bytes, waiting: set[str]) -> set[str]:
        # Returns who was started because of it.
        if name.startswith("gateway"):
            self.port = int(text)
        if not name.startswith("shard") or any(other.startswith("shard") for other in waiting):
            return set()
        assert self.instance is not None
        self.instance.counters.block("supervisor").set("ready", 1)
        before = set(self.children)
        self._start_doors()
        return set(self.children) - before

    def running_config(self) -> Config:
        """Return the configuration with the port that was really taken."""
        return dataclasses.replace(
            self.config, network=dataclasses.replace(self.config.network, port=self.port)
        )

    def _check_children(self) -> None:
        for name, child in self.children.items():
            code = child.poll()
            if code is not None:
                raise StartError(
                    f"{name} (pid {child.pid}) ended with {_exit_word(code)};"
                    " its messages stand above"
                )

    def _serve(self) -> None:
        if self.server is not None:
            self.server.serve_once()

    def watch(self, stop: StopSignals) -> int:
        """Serve until a signal (0) or until a child dies (1)."""
        if self.instance is not None:
            block = self.instance.counters.block("supervisor")
            block.set("state", State.RUNNING)
            block.set("children", len(self.children))
        while not stop.is_set():
            try:
                self._check_children()
            except StartError as error:
                tell(f"ringbook: {error}; stopping the others\n")
                return 1
            self._serve()
            if self.instance is not None:
                block.set("heartbeat_ns", time.monotonic_ns())
            time.sleep(WATCH_S)
        return 0

    def close(self) -> None:
        """Stop the children in order and remove everything."""
        self._stop("gateway")
        if self.instance is not None and self._alive("shard"):
            self._end_session()
        self._stop("shard")
        self._stop("feed")
        for fd in self.ready_fds.values():
            os.close(fd)
        self.ready_fds = {}
        if self.server is not None:
            self.server.close()
            self.server = None
        if self.instance is not None:
            self.producer = None
            self.instance.close()
            self.instance = None

    def _alive(self, role: str) -> list[Child]:
        return [
            c for name, c in self.children.items() if name.startswith(role) and c.poll() is None
        ]

    def _end_session(self) -> None:
        assert self.instance is not None
        today = int(f"{datetime.datetime.now(datetime.UTC):%Y%m%d}")
        for shard in range(self.config.shards):
            records = np.concatenate(
                [feed_state(letter, today, self.instance.epoch) for letter in "MEC"]
            )
            assert self.producer is not None
            self.producer.push(shard, records)

    def _stop(self, role: str) -> None:
        alive = self._alive(role)
        for child in alive:
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_S_MAX
        for child in alive:
            if not child.wait(deadline - time.monotonic()):
                child.send_signal(signal.SIGKILL)
                child.wait(DRAIN_S_MAX)


def startup_commands(config: Config, shard: int, epoch: int) -> np.ndarray:
    """Return what a shard has to know before any client: session, accounts, its instruments."""
    today = int(f"{datetime.datetime.now(datetime.UTC):%Y%m%d}")
    rows = [feed_state("O", today, epoch)]
    rows += [open_account(account.account) for account in config.accounts]
    mine = [i for i in config.instruments if shard_of_symbol(i.symbol, config.shards) == shard]
    rows += [list_instrument(instrument) for instrument in mine]
    rows += [feed_state(letter, today, epoch) for letter in "SQ"]
    return np.concatenate(rows)


def tell(text: str) -> None:
    """Say something to the person at the terminal."""
    sys.stderr.write(text)
    sys.stderr.flush()


def print_progress(done: int, total: int, name: str, seconds: float) -> None:
    """Report warm-up progress on stderr, one line that grows."""
    if total == 0:
        return
    end = "\n" if done == total else ""
    bar = "#" * (20 * done // total) + "." * (20 - 20 * done // total)
    tell(f"\rcompiling kernels [{bar}] {done}/{total} {name:<28}{end}")


def _read_ready(fd: int) -> bytes:
    try:
        return os.read(fd, 64)
    except BlockingIOError:
        return b""


def _exit_word(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


# -----------------------------------------------------------------------------------------------
# children


class _Ready:
    """Says once that this child serves."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def tell(self, text: str = "ready") -> None:
        if self.fd >= 0:
            os.write(self.fd, text.encode())
            os.close(self.fd)
            self.fd = -1


def _shard_child(
    config: Config, instance: Instance | None, index: int, placement: Placement, ready: _Ready
) -> int:
    from engine.shard_process import ShardProcess, shard_main

    assert instance is not None
    processes: list[ShardProcess] = []

    def stop(*_: object) -> None:
        for process in processes:
            process.stop()

    signal.signal(signal.SIGTERM, stop)
    return shard_main(instance, index, placement, processes, ready.tell)


def _gateway_child(
    config: Config, instance: Instance | None, index: int, placement: Placement, ready: _Ready
) -> int:
    from engine.shard_process import pin
    from gateway.tcp_entry import serve_gateway

    pin(placement, None)
    parts = gateway_parts(config, instance, index)
    parts.on_ready = lambda port: ready.tell(str(port))
    if instance is None:
        parts.reconnect = lambda: _reconnected(config, index)
    return int(serve_gateway(parts))


def _reconnected(config: Config, index: int) -> Any:
    instance = connect_instance(config.instance)
    return gateway_parts(config, instance, index) if instance is not None else None


def gateway_parts(config: Config, instance: Instance | None, index: int) -> Any:
    """Return what gateway `index` is given; without an instance it can only refuse."""
    from gateway.tcp_entry import GatewayParts

    parts = GatewayParts(
        config=config, producer=PRODUCER_GATEWAY + index, reader=READER_GATEWAY + index
    )
    if instance is None:
        return parts
    from engine.live_book import LiveBooks

    block = instance.counters.block("supervisor")
    shard_blocks = [instance.counters.block(f"shard{i}") for i in range(instance.shards)]

    def shard_up(shard: int) -> bool:
        fresh = time.monotonic_ns() - shard_blocks[shard].get("heartbeat_ns") < HEARTBEAT_DEAD_NS
        return (
            bool(block.get("ready")) and shard_blocks[shard].get("state") == State.RUNNING and fresh
        )

    parts.command_rings, parts.event_rings = instance.command_rings, instance.event_rings
    parts.tops = instance.tops.records
    parts.counters = instance.counters.block(f"gateway{index}")
    parts.shard_fds, parts.reader_fd = (
        instance.shard_fds,
        instance.reader_fds[READER_GATEWAY + index],
    )
    parts.next_logon = instance.next_logon
    parts.shard_up = shard_up
    books = LiveBooks(instance)
    parts.deep_book = books.levels
    return parts


def _feed_child(
    config: Config, instance: Instance | None, index: int, placement: Placement, ready: _Ready
) -> int:
    from engine.shard_process import pin
    from feed.publisher import FeedParts, serve_feed

    pin(placement, None)
    # Private reports first: woken by the same event, the feed does not push the gateway aside.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    stop = StopSignals(interrupt=False)
    ready.tell()
    while instance is None and not stop.is_set():
        instance = connect_instance(config.instance)
        if instance is None:
            time.sleep(0.5)
    if instance is None:
        return 0
    parts = FeedParts(
        config=config,
        event_rings=instance.event_rings,
        reader_index=READER_FEED,
        reader_fd=instance.reader_fds[READER_FEED],
        counters=instance.counters.block("feed"),
        epoch=instance.epoch,
        started_ns=instance.started_ns,
        tops=instance.tops.records,
    )
    return int(serve_feed(parts, stop))


# ------------------------------------------------------------------------------- in the background


class Handle:
    """An exchange running in processes of its own: for tests, the demo and benchmarks."""

    def __init__(self, process: subprocess.Popen[bytes], config: Config) -> None:
        self.process = process
        self.config = config

    def stop(self, timeout_s: float = 10.0) -> int:
        """End it and wait; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_in_background(
    config: Config, roles: Sequence[str] = ROLES, timeout_s: float = START_S_MAX
) -> Handle:
    """Start an exchange under a supervisor process of its own and wait until it serves.

    network.port 0 takes any free port; the handle's config has the real one. It dies with this
    process.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    message = {
        "config": orjson.loads(config.to_json()),
        "roles": list(roles),
        "ready_fd": write_end,
        "parent": os.getpid(),
    }
    environment = {**os.environ, ENVIRONMENT: orjson.dumps(message).decode()}
    command = [sys.executable, str(ROOT / "run.py"), "_supervisor"]
    process = subprocess.Popen(
        command, env=environment, pass_fds=[write_end], stdin=subprocess.DEVNULL, cwd=ROOT
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        deadline, text = time.monotonic() + timeout_s, b""
        while not text.endswith(b"\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                code = Handle(process, config).stop()
                raise StartError(f"the exchange did not start ({_exit_word(code)})")
            text += pipe.read() or b""
            time.sleep(0.005)
    return Handle(process, config_from_mapping(orjson.loads(text)))


def supervisor_main() -> int:
    """Be the supervisor that `start_in_background` started: `run.py _supervisor`."""
    text = os.environ.pop(ENVIRONMENT, "")
    if not text:
        raise StartError("run.py _supervisor is started by the project's own code only")
    message = orjson.loads(text)
    die_with_parent(int(message["parent"]))
    name_process("supervisor")
    ready_fd = int(message["ready_fd"])

    def on_ready(config: Config) -> None:
        os.write(ready_fd, config.to_json() + b"\n")

    try:
        return run_up(
            config_from_mapping(message["config"]),
            set(message["roles"]),
            on_ready,
            _quiet,
            background=True,
        )
    except (StartError, SegmentError) as error:
        tell(f"ringbook: {error}\n")
        return 1


def _quiet(done: int, total: int, name: str, seconds: float) -> None:
    """Report no progress."""
