"""The publisher: events of every shard become ITCH messages in MoldUDP64 datagrams on UDP
multicast.

Hot, one process for all shards. One channel per shard: group feed_group, port feed_port + shard. It
reads the event rings and gates nobody: when it is lapped it counts that, takes the instruments from
the shared tops and goes on; the numbers it never saw are a gap that every listener detects, never
hidden, because the sequence numbers are made by the shard (feed_seq). So the publisher keeps
nothing a restart could lose: it goes on at the cursor its ring remembers.

    ring --copy--> slots --pack_events, one call per run--> datagrams --send each--> channel

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
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engine.config import Config
from engine.counters import Block, State
from engine.idle import PARK_TIMEOUT_S, Idle, Rest, park
from engine.records import BOOK_TOP, EVENT_SLOT, unpack_name
from engine.shm_ring import (
    EVENT_CTRL_WORDS,
    READER_POSITION,
    EventReader,
    EventRings,
    load_word,
    sleep_cancel,
    sleep_prepare,
    top_copy,
)
from feed.directory import entry_of_row
from feed.itch import instrument_table, pack_stock
from feed.moldudp64 import END_OF_SESSION, control_datagram, session_name
from feed.multicast import multicast_sender, wait_writable
from feed.packer import (
    DATAGRAM_BYTES_EACH,
    P_DATAGRAM_MAX,
    P_GAPS,
    P_INCONSISTENT,
    P_LISTED,
    P_MESSAGES,
    P_NEXT,
    P_SESSION_HIGH,
    P_SESSION_LOW,
    P_UNKNOWN,
    PACK_WORDS,
    instrument_fill,
    pack_events,
)

PACKER_COUNTERS = {
    "messages": P_MESSAGES,
    "gaps": P_GAPS,
    "unknown_instrument": P_UNKNOWN,
    "inconsistent": P_INCONSISTENT,
}
FEED_COUNTERS = (
    *PACKER_COUNTERS,
    *("datagrams", "bytes", "heartbeats", "directory", "laps", "skipped_events", "send_failed"),
)
POLL_EVENTS = 1024  # events per compiled call: 256 KiB, stays in the second-level cache
DIRECTORY_PERIOD_NS = 10**9
DIRECTORY_BURST = 64  # most directory datagrams of one step
END_OF_SESSION_COPIES = 3  # a lost one would leave listeners waiting for heartbeats
# when stopping, events still arriving are published in at most this many steps
DRAIN_STEPS_MAX = 4096
REPORT_NS = 10**8  # how often the counters block is brought up to date
SLEEP_WITHOUT_FD_S = 0.001
SEND_WAIT_S = 0.005  # for room in a full send buffer

_Array = np.ndarray[Any, Any]


class Stop(Protocol):
    """What tells a run loop to end: threading.Event or anything like it."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...


@dataclass
class FeedParts:
    """What the publisher is given. It opens its own sockets and nothing else."""

    config: Config
    event_rings: EventRings
    reader_index: int = 4
    reader_fd: int = -1  # eventfd of this reader; -1: sleeps are plain waits
    counters: Block | None = None  # made with the labels FEED_COUNTERS
    # must grow with every new numbering (feed.moldudp64.epoch_of_day where nothing better exists)
    epoch: int = 0
    # BOOK_TOP[shards * symbols_max]: instruments listed before this process started
    tops: _Array | None = None
    # CLOCK_REALTIME when the session began, the same after a restart of this process; 0: now
    started_ns: int = 0


class Channel:
    """One shard's stream: its reader, its numbering, its instruments and its socket."""

    def __init__(self, parts: FeedParts, shard: int, started_ns: int) -> None:
        network = parts.config.network
        self.shard = shard
        self.session = session_name(started_ns, shard, parts.epoch)
        self.table = instrument_table()
        self.locates: list[int] = []  # rows of `table` that are known
        self.state = np.zeros(PACK_WORDS, np.int64)
        self.state[P_SESSION_HIGH] = int.from_bytes(self.session[:8], "big")
        self.state[P_SESSION_LOW] = int.from_bytes(self.session[8:], "big")
        self.state[P_DATAGRAM_MAX] = network.datagram_bytes_max
        self.state[P_NEXT] = 1
        self.laps = 0  # of the reader, as far as dealt with
        self.last_sent_ns: int | None = None
        self._rings = parts.event_rings
        self._tops = parts.tops
        cursor = self._first_cursor(parts.reader_index)
        self.reader = EventReader(self._rings, shard, parts.reader_index, cursor)
        port = network.feed_port + shard
        self.socket = multicast_sender(network.feed_group, port, network.feed_interface)
        self.resync()

    def _first_cursor(self, reader_index: int) -> int:
        # Where the last publisher stopped, if the ring still has that; else the newest position.
        committed = self._rings.committed(self.shard)
        word = self.shard * EVENT_CTRL_WORDS + READER_POSITION + 8 * reader_index
        remembered = int(load_word(self._rings.ctrl, word))
        return remembered if 0 <= committed - remembered < self._rings.capacity else committed

    def resync(self) -> None:
        """Take up the stream at the reader's cursor, having missed what came before."""
        self.learn_from_tops()
        self._find_next_sequence()

    def _find_next_sequence(self) -> None:
        # From the events just before the cursor, so that the next heartbeat shows what was missed.
        # Only a quarter of the ring is looked at, and believed only if the shard is not another
        # quarter further by then: with the quarter it may be writing at, that quarter is whole.
        cursor, quarter = self.reader.cursor, self._rings.capacity // 4
        positions = np.arange(max(cursor - quarter, 0), cursor) & (self._rings.capacity - 1)
        numbers = self._rings.slots["feed_seq"][self.shard * self._rings.capacity + positions]
        newest = int(numbers.max(initial=0))
        if newest and self._rings.committed(self.shard) - cursor < quarter:
            self.state[P_NEXT] = newest + 1

    def learn_from_tops(self) -> None:
        """Take instruments whose LISTED event was not seen from the shared tops."""
        if self._tops is not None:
            places = len(self._tops) // self._rings.shards
            first = self.shard * places
            words, copy = self._tops.view(np.int64), np.zeros(1, BOOK_TOP)
            for locate in np.flatnonzero(self._tops["symbol"][first : first + places]).tolist():
                known = self.table[locate]["stock"] != 0
                if not known and top_copy(words, first + locate, copy.view(np.int64)):
                    self._learn(locate, copy[0])
        self.locates = np.flatnonzero(self.table["stock"]).tolist()

    def _learn(self, locate: int, top: np.void) -> None:
        stock = pack_stock(unpack_name(int(top["symbol"])))
        tick, lot, px_max = int(top["tick"]), int(top["lot"]), int(top["px_max"])
        instrument_fill(self.table, locate, stock, tick, lot, px_max)

    def control(self, count: int = 0) -> bytes:
        """Return the heartbeat (or end of session) of this moment."""
        return control_datagram(self.session, int(self.state[P_NEXT]), count)


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

    def _publish(self, channel: Channel) -> int:
        # One run of one shard: at most POLL_EVENTS events. Returns the datagrams made of it.
        slots = channel.reader.poll(self._slots)
        if channel.reader.laps != channel.laps:
            channel.laps = channel.reader.laps
            channel.resync()
        if not len(slots):
            return 0
        self.idle = False
        state = channel.state
        listed, unknown = int(state[P_LISTED]), int(state[P_UNKNOWN])
        datagrams = int(pack_events(slots, state, channel.table, self._out, self._ends))
        start, failed = 0, self.counts["send_failed"]
        for end in self._ends[:datagrams].tolist():
            self._send(channel.socket, self._view[start:end])
            start = end
        self.counts["datagrams"] += datagrams - (self.counts["send_failed"] - failed)
        self.counts["bytes"] += start
        if int(state[P_LISTED]) != listed:
            self._announce_new(channel)
        if int(state[P_UNKNOWN]) != unknown:
            channel.learn_from_tops()
        return datagrams

    def step(self, now_ns: int) -> int:
        """Publish one run of every shard and what is due at now_ns (CLOCK_MONOTONIC); returns
        datagrams sent to channels.
        """
        self.idle = True
        total = 0
        for channel in self.channels:
            sent = self._publish(channel)
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
            for _ in range(END_OF_SESSION_COPIES):
                self._send(channel.socket, channel.control(END_OF_SESSION))

    def close(self) -> None:
        """Close the sockets."""
        for channel in self.channels:
            channel.socket.close()
        self._directory.close()


def _sleep(publisher: FeedPublisher, parts: FeedParts) -> None:
    # Announce the sleep at every ring, look once more, then wait for the eventfd.
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
