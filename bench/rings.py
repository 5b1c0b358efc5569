"""A client of the rings themselves: commands in, events out, no gateway. Compiled loops, runs in
the load generator.

    this process, core A  ──command ring, producer 15──▶  shard, core B
                          ◀──────event ring, reader 7──

Attaches to a running instance by its socket, as any part started apart does, opens a session of
its own and keeps the real protocols: room before a write, readiness word last, wake-up handshake,
lap check after the copy of every batch of events. Latency is open loop: a command is pushed at
its planned time, counted from the plan to the moment its last event (flag LAST, and the command's
own producer_seq beside it) has been copied out. The clock costs its 20 to 50 ns in the floor too.
"""

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.workload import Outcome, TradeTally, symbol_name
from engine.atomics import CLOCK_MONOTONIC, clock_ns, eventfd_signal, load_acquire
from engine.command_ring import (
    CONSUMER_POSITION,
    CTRL_WORDS,
    SHARD_CTRL_WORDS,
    SHARD_SLEEPS,
    command_publish,
    command_slot,
)
from engine.event_ring import EVENT_CTRL_WORDS, event_lapped, event_slot, events_available
from engine.instance import Instance, connect_instance
from engine.jit import helper, kernel, register_warmup
from engine.records import (
    COMMAND,
    COMMAND_WORDS,
    EVENT_SLOT,
    EVENT_SLOT_WORDS,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    OrderType,
    Reason,
    TimeInForce,
    pack_name,
)
from engine.ring_words import wake_needed
from engine.shm_ring import EventReader, Producer

PRODUCER_TOOLS = 15
READER_SPARE = 7
STALL_NS = 10_000_000_000
WINDOW = 4_096
_SHARD = 0


class RingError(RuntimeError):
    """The shard does not answer, or not as it should."""


class RingPorts(NamedTuple):
    """One shard's rings, as the client's kernels see them."""

    command_ctrl: npt.NDArray[np.int64]
    slot_words: npt.NDArray[np.int64]
    shard_ctrl: npt.NDArray[np.int64]
    event_ctrl: npt.NDArray[np.int64]
    event_words: npt.NDArray[np.int64]
    copied: npt.NDArray[np.int64]  # where an event is copied to
    event: npt.NDArray[np.void]  # the same memory as a record
    ring: int
    capacity: int
    event_capacity: int
    shard: int
    shard_fd: int
    session: int  # whose events answer this client's commands


@helper
def ring_command_send(p, command_words, index, position):
    """Push command `index`; the caller knows that there is room."""
    slot = command_slot(p.ring, position, p.capacity)
    for word in range(1, COMMAND_WORDS):
        value = command_words[index * COMMAND_WORDS + word]
        p.slot_words[slot * COMMAND_WORDS + word] = value
    command_publish(p.slot_words, slot, position)
    if wake_needed(p.shard_ctrl, p.shard * SHARD_CTRL_WORDS + SHARD_SLEEPS):
        eventfd_signal(np.int64(p.shard_fd))


@helper
def ring_event_take(p, cursor):
    """Copy one event out; returns the producer_seq of the own command it ends, or 0."""
    first = event_slot(p.shard, cursor, p.event_capacity) * EVENT_SLOT_WORDS
    for word in range(EVENT_SLOT_WORDS):
        p.copied[word] = p.event_words[first + word]
    event = p.event[0]
    if np.int64(event["flags"]) & EventFlag.LAST.value == 0 or event["session"] != p.session:
        return np.int64(0)
    return np.int64(event["receipt_producer_seq"])


@helper
def ring_room_for(p, position):
    """Whether the command ring has a free slot."""
    consumer = load_acquire(p.command_ctrl, p.ring * CTRL_WORDS + CONSUMER_POSITION)
    return position - consumer < p.capacity


@kernel
def ring_paced(p, command_words, plan, latencies, places):
    """Push each command at its planned time, await its last event; returns how many were answered.

    places = [next producer position, event cursor], moved on. A lap or a stall ends it early.
    """
    position, cursor, sent, answered = places[0], places[1], 0, 0
    moved_ns = clock_ns(CLOCK_MONOTONIC)
    while answered < plan.size:
        now = clock_ns(CLOCK_MONOTONIC)
        if sent < plan.size and now >= plan[sent] and ring_room_for(p, position + sent):
            ring_command_send(p, command_words, sent, position + sent)
            sent += 1
            moved_ns = now
        end = events_available(p.event_ctrl, p.shard * EVENT_CTRL_WORDS)
        first = cursor
        while cursor < end:
            if ring_event_take(p, cursor) == position + answered + 1 and answered < sent:
                now = clock_ns(CLOCK_MONOTONIC)
                latencies[answered] = now - plan[answered]
                answered += 1
                moved_ns = now
            cursor += 1
        base = p.shard * EVENT_CTRL_WORDS
        if first < cursor and event_lapped(p.event_ctrl, base, first, p.event_capacity):
            break
        if now - moved_ns > STALL_NS:
            break
    places[0] = position + sent
    places[1] = cursor
    return answered


class RingClient:
    """One session on shard 0 of a running instance."""

    def __init__(self, instance_name: str) -> None:
        instance = connect_instance(instance_name)
        if instance is None:
            raise RingError(f"no instance called {instance_name!r} is up")
        self._instance: Instance = instance
        rings, events = instance.command_rings, instance.event_rings
        self.producer = Producer(rings, PRODUCER_TOOLS, instance.shard_fds)
        self.reader = EventReader(events, _SHARD, READER_SPARE)
        self._out = np.zeros(8192, EVENT_SLOT)
        copied = np.zeros(1, EVENT_SLOT)
        self.ports = RingPorts(
            command_ctrl=rings.ctrl,
            slot_words=rings.slot_words,
            shard_ctrl=rings.shard_ctrl,
            event_ctrl=events.ctrl,
            event_words=events.slot_words,
            copied=copied.view(np.int64),
            event=copied,
            ring=rings.ring(_SHARD, PRODUCER_TOOLS),
            capacity=rings.capacity,
            event_capacity=events.capacity,
            shard=_SHARD,
            shard_fd=instance.shard_fds[_SHARD],
            session=0,
        )
        self.account = next(a.account for a in instance.config.accounts if a.name == "bench")
        self.session = self.logon = 0

    def close(self) -> None:
        """Let the instance go."""
        self.ports = None  # type: ignore[assignment]  # views of the segments
        self.reader = self.producer = None  # type: ignore[assignment]
        self._instance.close()

    def _exchange(
        self, commands: npt.NDArray[np.void], kind: EventKind
    ) -> list[npt.NDArray[np.void]]:
        # Send a few commands; give the own events of one kind up to the end of the last command.
        # Before the session is open, the number of its logon tells them.
        self._push_all(commands)
        last, found = self.producer.position[_SHARD], []
        who, value = ("session", self.session) if self.session else ("amount", self.logon)
        deadline = time.monotonic() + STALL_NS / 1e9
        while time.monotonic() < deadline:
            events = self.reader.poll(self._out)
            wanted = np.isin(events["kind"], (kind, EventKind.REJECTED))
            mine = events[wanted & (events[who] == value)]
            found += list(mine.copy())
            if found and found[-1]["receipt_producer_seq"] == last:
                return found
        raise RingError(f"no answer to {commands.size} commands of kind {commands['kind'][0]}")

    def _push_all(self, commands: npt.NDArray[np.void]) -> None:
        done = 0
        while done < commands.size:
            done += self.producer.push(_SHARD, commands[done:])

    def open_session(self, name: str) -> None:
        """Log on under a new name: client ids begin anew."""
        self.session = 0
        command = np.zeros(1, COMMAND)
        self.logon = self._instance.next_logon()
        command["kind"], command["account"] = CommandKind.SESSION_OPEN, self.account
        command["logon"] = self.logon
        command["text"][0, : len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        for event in self._exchange(command, EventKind.ACCOUNT):
            opened = event["kind"] == EventKind.ACCOUNT and event["amount"] == self.logon
            if opened and event["reason"] == Reason.SESSION_OPENED:
                self.session = int(event["session"])
                self.ports = self.ports._replace(session=self.session)
                return
        raise RingError("the shard refused the session")

    def own(self, commands: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Stamp commands as this session's."""
        commands["account"], commands["session"] = self.account, self.session
        commands["logon"], commands["producer"] = self.logon, PRODUCER_TOOLS
        return commands

    def symbol_ids(self, count: int) -> npt.NDArray[np.int32]:
        """Ids of the workload's first symbols; an unknown name lists it (policy create)."""
        probes = self.own(np.zeros(count, COMMAND))
        probes["kind"], probes["side"], probes["qty"] = CommandKind.NEW, 0, 1
        probes["px"], probes["order_type"], probes["tif"] = 1, OrderType.LIMIT, TimeInForce.IOC
        probes["symbol"] = [pack_name(symbol_name(i)) for i in range(count)]
        found = self._exchange(probes, EventKind.ACCEPTED)
        if len(found) != count or any(event["kind"] != EventKind.ACCEPTED for event in found):
            raise RingError("the shard does not list the benchmark's symbols")
        return np.array([event["symbol_id"] for event in found], np.int32)

    def run(self, commands: npt.NDArray[np.void], tally: TradeTally) -> float:
        """Push everything as fast as the window lets it, fold the fills; returns seconds."""
        start = time.perf_counter()
        first = self.producer.position[_SHARD]
        last, answered = first + commands.size, first
        moved = time.monotonic()
        while answered < last:
            sent = self.producer.position[_SHARD] - first
            room = WINDOW - (first + sent - answered)
            if room >= WINDOW // 4 and sent < commands.size:
                self.producer.push(_SHARD, commands[sent : sent + room])
            events = self.reader.poll(self._out)
            if events.size:
                tally.add_ring(self._out, 0, events.size)
                mine = events[events["session"] == self.session]
                if mine.size:
                    answered = int(mine["receipt_producer_seq"][-1])
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_NS / 1e9:
                raise RingError(f"the shard stopped answering after {answered - first} commands")
        if self.reader.laps:
            raise RingError("this client was lapped: its answers are incomplete")
        return time.perf_counter() - start

    def paced(self, commands: npt.NDArray[np.void], interval_ns: int) -> npt.NDArray[np.int64]:
        """Open loop: one command each interval; latencies from the plan in nanoseconds."""
        words = np.ascontiguousarray(commands).view(np.int64)
        latencies = np.zeros(commands.size, np.int64)
        places = np.array([self.producer.position[_SHARD], self.reader.cursor], np.int64)
        plan = time.monotonic_ns() + 1_000_000 + np.arange(commands.size) * interval_ns
        answered = int(ring_paced(self.ports, words, plan, latencies, places))
        self.producer.position[_SHARD], self.reader.cursor = int(places[0]), int(places[1])
        if answered != commands.size:
            raise RingError(f"{answered} of {commands.size} commands were answered")
        return latencies

    def clear_book(self, symbol_ids: npt.NDArray[np.int32]) -> int:
        """Cancel everything of the account, symbol by symbol; returns how many orders that were.

        One cancel of all symbols may emit more events than the ring holds for this slow reader.
        """
        cleared = 0
        for symbol_id in symbol_ids.tolist():
            command = self.own(np.zeros(1, COMMAND))
            command["kind"], command["symbol_id"] = CommandKind.MASS_CANCEL, symbol_id
            command["flags"] = CommandFlag.BY_SYMBOL
            cleared += int(self._exchange(command, EventKind.SUMMARY)[-1]["qty"])
        return cleared


def outcome_void(found: Outcome, expected: Outcome) -> str:
    """Say why a figure is void; empty when the answer is right."""
    return "" if found == expected else f"wrong answer: {found}, expected {expected}"


def _warm() -> None:
    words = np.zeros(64, np.int64)
    event = np.zeros(1, EVENT_SLOT)
    control = np.zeros(EVENT_CTRL_WORDS, np.int64)
    ports = RingPorts(
        words, words, words, control, words, event.view(np.int64), event, 0, 2, 2, 0, 0, 0
    )
    none = np.zeros(0, np.int64)
    ring_paced(ports, none, none, none, np.zeros(2, np.int64))


register_warmup("bench.rings", _warm)
