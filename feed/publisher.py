"""The publisher: events of every shard become ITCH messages in MoldUDP64 datagrams on UDP
multicast.

Hot, one process for all shards. One channel per shard: group feed_group, port feed_port + shard. It
reads the event rings and gates nobody; feed/channel.py tells what happens when it is lapped, and
how a successor goes on where it stopped.

    ring or log --copy--> slots --pack_events, one call per run--> datagrams --send each--> channel

A SESSION event "O" ends the MoldUDP session (END_OF_SESSION_COPIES) and begins the one that it
names, from number 1: all that follows it, an image of the books first, is sent under the new name.

A datagram is at most datagram_bytes_max and takes as many messages as fit: sending costs the same
whatever the size (2 µs measured), so cost per message falls with the load, and at low load a
message leaves at once.

Idle: heartbeats each feed_heartbeat_s (one at once when starting), the directory channel
(feed/directory.py), and sleep on an eventfd by the handshake of engine/shm_ring. A datagram the
kernel refuses is counted; listeners see it as a gap.
"""

import os
import socket
import time
from typing import Protocol

import numpy as np

from engine.counters import State, collector_watched
from engine.idle import PARK_TIMEOUT_S, Idle, Rest, park
from engine.records import EVENT_SLOT
from engine.shm_ring import sleep_cancel, sleep_prepare
from feed.channel import Channel, FeedParts
from feed.directory import entry_of_row
from feed.moldudp64 import END_OF_SESSION
from feed.multicast import multicast_sender, wait_writable
from feed.packer import (
    DATAGRAM_BYTES_EACH,
    P_BEGUN,
    P_FROM,
    P_GAPS,
    P_INCONSISTENT,
    P_LISTED,
    P_MESSAGES,
    P_NEXT,
    P_TAKEN,
    P_UNKNOWN,
    pack_events,
)

__all__ = ["FEED_COUNTERS", "FeedParts", "FeedPublisher", "serve_feed"]

PACKER_COUNTERS = {
    "messages": P_MESSAGES,
    "gaps": P_GAPS,
    "unknown_instrument": P_UNKNOWN,
    "inconsistent": P_INCONSISTENT,
}
FEED_COUNTERS = (
    *PACKER_COUNTERS,
    *("datagrams", "bytes", "heartbeats", "directory", "laps", "skipped_events", "send_failed"),
    "sessions",
)
POLL_EVENTS = 1024  # events per compiled call: 256 KiB, stays in the second-level cache
DIRECTORY_PERIOD_NS = 10**9
DIRECTORY_BURST = 64  # most directory datagrams of one step
END_OF_SESSION_COPIES = 3  # a lost one would leave listeners waiting for heartbeats
# when stopping, events still arriving are published in at most this many steps
DRAIN_STEPS_MAX = 4096
REPORT_NS = 10**8  # how often the counters block is brought up to date
SLEEP_WITHOUT_FD_S = 0.001
LOG_POLL_S = 0.005
SEND_WAIT_S = 0.005  # for room in a full send buffer


class Stop(Protocol):
    """What tells a run loop to end: threading.Event or anything like it."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...


class FeedPublisher:
    """All channels of an instance. `step` does what is due and never waits."""

    def __init__(self, parts: FeedParts) -> None:
        network = parts.config.network
        started_ns = parts.started_ns or time.time_ns()
        self.counts = dict.fromkeys(FEED_COUNTERS, 0)
        self.idle = True  # whether the last step found no event
        self.channels: list[Channel] = []
        self._block = parts.counters
        self._slots = np.zeros(POLL_EVENTS, EVENT_SLOT)
        self._out = np.zeros(POLL_EVENTS * DATAGRAM_BYTES_EACH, np.uint8)
        self._view = memoryview(self._out.data)
        self._ends = np.zeros(POLL_EVENTS, np.int64)
        self._heartbeat_ns = int(network.feed_heartbeat_s * 10**9)
        self._directory_place = 0
        self._directory_due_ns: int | None = None
        self._report_due_ns = 0
        for shard in range(parts.event_rings.shards):
            self.channels.append(Channel(parts, shard, started_ns))
        self._directory = multicast_sender(
            network.feed_group, network.directory_port, network.feed_interface
        )

    # ------------------------------------------------------------------------------------- channels
    def _send(self, sender: socket.socket, data: bytes | memoryview) -> None:
        try:
            sender.send(data)
        except BlockingIOError:
            self._send_again(sender, data)
        except OSError:  # interface gone: these numbers are a gap that listeners see
            self.counts["send_failed"] += 1

    def _send_again(self, sender: socket.socket, data: bytes | memoryview) -> None:
        # The send buffer is full: the network is slower than we are. Wait a little, then give up.
        wait_writable(sender.fileno(), SEND_WAIT_S)
        try:
            sender.send(data)
        except OSError:
            self.counts["send_failed"] += 1

    def _publish(self, channel: Channel, now_ns: int) -> int:
        # One run of one shard: at most POLL_EVENTS events. Returns the datagrams made of it.
        slots = channel.poll(self._slots, now_ns)
        if not len(slots):
            return 0
        self.idle = False
        state = channel.state
        listed, unknown = int(state[P_LISTED]), int(state[P_UNKNOWN])
        state[P_FROM], state[P_BEGUN] = 0, -1
        datagrams = self._pack_and_send(channel, slots)
        while (taken := int(state[P_TAKEN])) < len(slots):
            if channel.changes_to(slots[taken]):
                self._session_change(channel, slots[taken])
            state[P_FROM] = state[P_BEGUN] = taken
            datagrams += self._pack_and_send(channel, slots)
        channel.remember()
        if int(state[P_LISTED]) != listed:
            self._announce_new(channel)
        if int(state[P_UNKNOWN]) != unknown:
            channel.learn_from_tops()
        return datagrams

    def _pack_and_send(self, channel: Channel, slots: np.ndarray) -> int:
        datagrams = int(pack_events(slots, channel.state, channel.table, self._out, self._ends))
        start, failed = 0, self.counts["send_failed"]
        for end in self._ends[:datagrams].tolist():
            self._send(channel.socket, self._view[start:end])
            start = end
        self.counts["datagrams"] += datagrams - (self.counts["send_failed"] - failed)
        self.counts["bytes"] += start
        return datagrams

    def _session_change(self, channel: Channel, event: np.void) -> None:
        if channel.last_sent_ns is not None or int(channel.state[P_NEXT]) > 1:
            self._session_end(channel)  # somebody may have heard of it
        channel.begin(event)
        self.counts["sessions"] += 1

    def _session_end(self, channel: Channel) -> None:
        for _ in range(END_OF_SESSION_COPIES):
            self._send(channel.socket, channel.control(END_OF_SESSION))

    def step(self, now_ns: int) -> int:
        """Publish one run of every shard and what is due at now_ns (CLOCK_MONOTONIC); returns
        datagrams sent to channels.
        """
        self.idle = True
        total = 0
        for channel in self.channels:
            sent = self._publish(channel, now_ns)
            last = channel.last_sent_ns
            if not sent and (last is None or now_ns - last >= self._heartbeat_ns):
                self._send(channel.socket, channel.control())
                self.counts["heartbeats"] += 1
                sent = 1
            if sent:
                channel.last_sent_ns = now_ns
                total += sent
        if self._directory_due_ns is None or now_ns >= self._directory_due_ns:
            self._announce(now_ns)
        if self._block is not None and now_ns >= self._report_due_ns:
            self.report(now_ns)
        return total

    # ------------------------------------------------------------------------------------ directory
    def _announce_new(self, channel: Channel) -> None:
        known = set(channel.locates)
        channel.locates = np.flatnonzero(channel.table["stock"]).tolist()
        for locate in channel.locates:
            if locate not in known:
                self._announce_one(channel, locate)

    def _announce_one(self, channel: Channel, locate: int) -> None:
        entry = entry_of_row(channel.session, channel.shard, locate, channel.table[locate])
        self._send(self._directory, entry.encode())
        self.counts["directory"] += 1

    def _announce(self, now_ns: int) -> None:
        # The next few instruments in turn, at a rate that comes round once per period.
        places = [(channel, locate) for channel in self.channels for locate in channel.locates]
        burst = min(len(places), DIRECTORY_BURST)
        for _ in range(burst):
            self._directory_place = (self._directory_place + 1) % len(places)
            self._announce_one(*places[self._directory_place])
        share = burst / len(places) if places else 1.0
        self._directory_due_ns = now_ns + int(DIRECTORY_PERIOD_NS * share)

    # ----------------------------------------------------------------------------------------- rest
    def report(self, now_ns: int) -> None:
        """Bring the counts, and the counters block if there is one, up to date."""
        self._report_due_ns = now_ns + REPORT_NS
        counts, states = self.counts, [channel.state for channel in self.channels]
        for name, word in PACKER_COUNTERS.items():
            counts[name] = sum(int(state[word]) for state in states)
        counts["laps"] = sum(channel.reader.laps for channel in self.channels)
        counts["skipped_events"] = sum(channel.reader.skipped for channel in self.channels)
        if self._block is not None:
            self._block.set("heartbeat_ns", now_ns)
            for name, value in counts.items():
                self._block.set(name, value)

    def end_session(self) -> None:
        """Tell every channel that no more numbers come."""
        for channel in self.channels:
            self._session_end(channel)

    def close(self) -> None:
        """Close the sockets."""
        for channel in self.channels:
            channel.close()
        self._directory.close()


def _sleep(publisher: FeedPublisher, parts: FeedParts) -> None:
    # Announce the sleep at every ring, look once more, then wait for the eventfd.
    if any(channel.waiting for channel in publisher.channels):
        time.sleep(LOG_POLL_S)  # the ring is full of what is not its turn yet
        return
    ctrl, readers = parts.event_rings.ctrl, [channel.reader for channel in publisher.channels]
    for reader in readers:
        sleep_prepare(ctrl, reader.sleep_flag)
    if not any(reader.pending() for reader in readers):
        if parts.reader_fd >= 0:
            park(parts.reader_fd, PARK_TIMEOUT_S)
        else:
            time.sleep(SLEEP_WITHOUT_FD_S)
    for reader in readers:
        sleep_cancel(ctrl, reader.sleep_flag)


def _run(publisher: FeedPublisher, parts: FeedParts, stop: Stop) -> None:
    idle = Idle(parts.config.idle)
    while not stop.is_set():
        now_ns = time.monotonic_ns()
        publisher.step(now_ns)
        if not publisher.idle:
            idle.worked(now_ns)
            continue
        rest = idle.rest(now_ns)
        if rest == Rest.PARK:
            _sleep(publisher, parts)
        elif rest == Rest.YIELD:
            os.sched_yield()


def serve_feed(parts: FeedParts, stop: Stop) -> int:
    """Publish until `stop`; then what is still in the rings, the end of session, and return 0."""
    block = parts.counters
    if block is not None:
        block.set("pid", os.getpid())
        block.set("state", State.STARTING)
    publisher = FeedPublisher(parts)
    try:
        if block is not None:
            block.set("state", State.RUNNING)
        with collector_watched(lambda: block):
            _run(publisher, parts, stop)
        for _ in range(DRAIN_STEPS_MAX):
            publisher.step(time.monotonic_ns())
            if publisher.idle:
                break
        publisher.end_session()
        publisher.report(time.monotonic_ns())
    finally:
        publisher.close()
        if block is not None:
            block.set("state", State.STOPPED)
    return 0
