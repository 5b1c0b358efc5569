"""The wiring room: which processes an instance has, what each is given.

Cold. `run_up` reads as a list; engine/supervisor.py holds what happens when a child dies. Doors do
not know each other or this file: they are handed their parts.

    1 kernels    compiled once, with progress, and loaded            (engine/warmup.py)
    2 directory  the last run's journals judged, this run numbered   (engine/data_directory.py)
    3 instance   segments, eventfds, lock; only with role "shard"    (engine/instance.py)
    4 journal and shards: forked, so that 1 is theirs                (engine/children.py);
                 every shard is brought back from its files          (engine/standby.py)
    5 commands   incarnation, feed session, accounts, instruments    (engine/admin.py)
    6 gateway, feed, followers; a part started apart asks the owner's socket for the descriptors
    7 watch      until a signal; children that die are brought back
    8 stop       gateway -> end of session -> shards -> feed -> everything on disk -> snapshots ->
                 remove all but the data directory
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.child_parts import ChildParts, Main, StartError, StopSignals
from engine.config import Config
from engine.counters import COLLECTOR_COUNTERS, COLLECTOR_HISTOGRAM, State
from engine.data_directory import DirectoryBusy
from engine.disk import Disk
from engine.file_header import FileRefused
from engine.instance import (
    PRODUCER_GATEWAY,
    READER_FEED,
    READER_GATEWAY,
    Instance,
    connect_instance,
)
from engine.jit import warm_up
from engine.segment import SegmentError
from engine.sharding import plan_placement
from engine.supervisor import Supervisor

HEARTBEAT_DEAD_NS = 2_000_000_000
ROLES = ("shard", "gateway", "feed")


def operating_errors() -> tuple[type[Exception], ...]:
    """Return what may go wrong at a start without a bug: one sentence each."""
    return (StartError, SegmentError, DirectoryBusy, FileRefused)


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
    supervisor = Supervisor(config, roles, placement, MAINS, tell, door_labels())
    try:
        warm(roles, progress or print_progress)
        supervisor.create()
        supervisor.start()
        if not supervisor.wait_ready(stop):
            return 0
        if on_ready is not None:
            network = dataclasses.replace(config.network, port=supervisor.port)
            on_ready(dataclasses.replace(config, network=network))
        return supervisor.watch(stop)
    finally:
        supervisor.close()


def warm(roles: set[str], progress: Callable[[int, int, str, float], None]) -> None:
    """Compile and load what the children will use."""
    from engine.warmup import warm_roles

    warm_roles(roles, progress)
    warm_up()


def door_labels() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return (labels, histograms) of the doors' counters."""
    from feed.publisher import FEED_COUNTERS
    from gateway.tcp_entry import COUNTER_LABELS, HISTOGRAM_LABELS

    own = {"gateway0": (COUNTER_LABELS, HISTOGRAM_LABELS), "feed": (FEED_COUNTERS, ())}
    return {
        door: ((*labels, *COLLECTOR_COUNTERS), (*histograms, COLLECTOR_HISTOGRAM))
        for door, (labels, histograms) in own.items()
    }


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


# -----------------------------------------------------------------------------------------------
# children


def _journal_child(parts: ChildParts) -> int:
    from engine.disk import RealDisk
    from engine.journal_process import JournalProcess, journal_main
    from engine.shard_process import pin

    pin(parts.placement, None)
    assert parts.instance is not None
    stop = StopSignals(interrupt=False)
    process = JournalProcess(RealDisk(), parts.directory, parts.instance, parts.ends)
    parts.ready.tell()
    return journal_main(process, stop)


def _shard_child(parts: ChildParts) -> int:
    from engine.shard_process import ShardProcess, shard_main

    assert parts.instance is not None
    processes: list[ShardProcess] = []
    stop_with(processes)
    own = None
    if parts.directory:
        from engine.takeover import shard_recover

        own = shard_recover(parts.directory, parts.instance, parts.index)
    return shard_main(
        parts.instance, parts.index, parts.placement, processes, parts.ready.tell, own
    )


def stop_with(processes: list[Any]) -> None:
    """Have SIGTERM stop what is in the list by then."""

    def stop(*_: object) -> None:
        for process in processes:
            process.stop()

    signal.signal(signal.SIGTERM, stop)


def _follow_child(parts: ChildParts) -> int:
    from engine.follower_process import FollowerProcess
    from engine.shard_process import pin

    pin(parts.placement, None)
    assert parts.instance is not None
    process = FollowerProcess(parts.directory, parts.instance, parts.index)
    stop_with([process])
    return process.run(parts.placement, parts.ready.tell)


def _gateway_child(parts: ChildParts) -> int:
    from engine.shard_process import pin
    from gateway.tcp_entry import serve_gateway

    pin(parts.placement, None)
    given = gateway_parts(parts.config, parts.instance, parts.index)
    given.port = parts.port
    given.on_ready = lambda port: parts.ready.tell(str(port))
    if parts.instance is None:
        given.reconnect = lambda: _reconnected(parts.config, parts.index)
    return int(serve_gateway(given))


def _reconnected(config: Config, index: int) -> Any:
    instance = connect_instance(config.instance)
    return gateway_parts(config, instance, index) if instance is not None else None


def gateway_parts(
    config: Config, instance: Instance | None, index: int, disk: Disk | None = None
) -> Any:
    """Return what gateway `index` is given; without an instance it can only refuse."""
    from gateway.tcp_entry import GatewayParts

    parts = GatewayParts(
        config=config, producer=PRODUCER_GATEWAY + index, reader=READER_GATEWAY + index
    )
    if instance is None:
        return parts
    from engine.live_book import LiveBooks
    from engine.live_log import live_logs, log_end, log_wait

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
    parts.logs, parts.log_end = live_logs(instance, disk), partial(log_end, instance)
    parts.log_wait = partial(log_wait, instance)
    parts.session_names = instance.session_names
    parts.account_views = instance.account_views
    parts.gate_reason = instance.gate_reason
    return parts


def _feed_child(parts: ChildParts) -> int:
    from engine.live_log import live_logs, log_end, log_wait
    from engine.shard_process import pin
    from feed.publisher import FeedParts, serve_feed

    pin(parts.placement, None)
    # Private reports first: woken by the same event, the feed does not push the gateway aside.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    stop = StopSignals(interrupt=False)
    parts.ready.tell()
    instance = parts.instance
    while instance is None and not stop.is_set():
        instance = connect_instance(parts.config.instance)
        if instance is None:
            time.sleep(0.5)
    if instance is None:
        return 0
    given = FeedParts(
        config=parts.config,
        event_rings=instance.event_rings,
        reader_index=READER_FEED,
        reader_fd=instance.reader_fds[READER_FEED],
        counters=instance.counters.block("feed"),
        epoch=instance.feed_epoch,
        date=instance.feed_date,
        started_ns=instance.started_ns,
        logs=live_logs(instance),
        log_end=partial(log_end, instance),
        log_wait=partial(log_wait, instance),
        tops=instance.tops.records,
    )
    return int(serve_feed(given, stop))


MAINS: dict[str, Main] = {
    "journal": _journal_child,
    "shard": _shard_child,
    "follow": _follow_child,
    "gateway": _gateway_child,
    "feed": _feed_child,
}
