"""Sees all that a shard makes visible, and replays it at once in a state of its own.

Per shard one Story: every record that was staged, every event that was committed, and a replay of
the former, in a fresh state, that must give the latter byte for byte. What was seen stays true:

    owner dies      the recovered state is where the story has it, all that was committed included
    power cut       the journal keeps a prefix of the story; what readers saw and it lost is within
                    the promise of the mode, and everything that was told durable is there

A command whose sender does not own the session is refused without a report to anybody. So what the
owner sends must never be taken for that: it would be lost without a word (`_check_owners`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.book_state import IN_SEQ, ShardState, allocate_state, set_policy
from engine.config import Config
from engine.instance import Instance
from engine.journal_reader import journal_read
from engine.records import COMMAND, EVENT, EventKind, Reason, RejectCode
from engine.replay import Replay
from engine.shard_process import ShardProcess
from engine.staging import DURABLE, STAGED
from engine.state_hash import state_hash, state_parts
from tests.sim.sim_time import SimTime

# Fields of an event that reports tell.
TOLD = (
    "kind", "order_id", "client_order_id", "code", "leaves", "cum", "qty", "public_ref", "px",
    "trade_id", "reason",
)  # fmt: skip
EVENT_WORDS = EVENT.itemsize // 8
ROWS = 1 << 12
MS = 1_000_000


class Violation(AssertionError):
    """The exchange broke a promise."""


def require(held: bool, text: str) -> None:
    """Raise Violation unless it is as it must be."""
    if not held:
        raise Violation(text)


class Rows:
    """Records in order, growing."""

    def __init__(self, dtype: Any) -> None:
        self._rows = np.zeros(ROWS, dtype)
        self.count = 0

    def append(self, rows: np.ndarray) -> None:
        """Add some behind the end."""
        end = self.count + len(rows)
        while end > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self.count : end] = rows
        self.count = end

    def cut(self, count: int) -> None:
        """Keep the first `count`."""
        self.count = count

    @property
    def all(self) -> np.ndarray:
        return self._rows[: self.count]


class Story:
    """What became known of one shard."""

    def __init__(self, config: Config, shard: int) -> None:
        self.config, self.shard = config, shard
        self.records = Rows(COMMAND)
        self.events = Rows(EVENT)  # of the replay
        self.shown_ns = Rows(np.int64)  # per event: when it was committed
        self.committed = 0
        self.told = 0  # of those: seen by readers
        self.producer_seq: dict[int, int] = {}
        self.owners: dict[int, int] = {}  # session slot -> logon
        # (account, account_seq) -> position, then what TOLD names
        self.by_account: dict[tuple[int, int], tuple[int, ...]] = {}
        self.replay = self._fresh()

    def _fresh(self) -> Replay:
        config = self.config
        state: ShardState = allocate_state(config.shard, shard=self.shard, seed=self.shard + 7)
        set_policy(state, config.unknown_symbol, config.template)
        return Replay(state, len(state.events) - config.shard.events_per_command_max)

    def extend(self, records: np.ndarray) -> None:
        """Records were staged: replay them."""
        require(
            bool((records["in_seq"] == np.arange(len(records)) + self.records.count + 1).all()),
            f"shard {self.shard}: staged records are not numbered on from {self.records.count}",
        )
        self._check_producers(records)
        self.records.append(records)
        self._run(np.array(records))

    def _check_producers(self, records: np.ndarray) -> None:
        known = self.producer_seq
        pairs = zip(
            records["producer"].tolist(), records["producer_seq"].tolist(),
            records["in_seq"].tolist(), strict=True,
        )  # fmt: skip
        for producer, sequence, in_seq in pairs:
            if producer == 0:
                continue
            before = known.get(producer, 0)
            require(
                sequence == before + 1,
                f"shard {self.shard}: command {in_seq} is number {sequence} of producer {producer},"
                f" number {before} came before it",
            )
            known[producer] = sequence

    def _run(self, records: np.ndarray) -> None:
        index = 0
        while index < len(records):
            first = self.replay.position
            index = self.replay.run(records, index)
            events = self._taken(first, self.replay.position)
            self.events.append(events)
            self._check_owners(events)
            columns = [events[name].tolist() for name in TOLD]
            keys = zip(events["account"].tolist(), events["account_seq"].tolist(), strict=True)
            rows = zip(range(first, self.replay.position), *columns, strict=True)
            self.by_account.update(zip(keys, rows, strict=True))

    def _check_owners(self, events: np.ndarray) -> None:
        kinds, reasons = events["kind"], events["reason"]
        opened = (kinds == EventKind.ACCOUNT) & (reasons == Reason.SESSION_OPENED)
        closed = (kinds == EventKind.ACCOUNT) & (reasons == Reason.SESSION_CLOSED)
        strange = (kinds == EventKind.REJECTED) & (events["code"] == RejectCode.NOT_LOGGED_ON)
        for event in events[opened | closed | strange]:
            slot, in_seq = int(event["session"]), int(event["in_seq"])
            if event["kind"] == EventKind.REJECTED:
                logon = int(self.records.all["logon"][in_seq - 1])
                require(
                    logon not in self.owners.values(),
                    f"shard {self.shard}: command {in_seq} came from logon {logon}, which owns its"
                    " session, and was refused as a stranger's: nobody is told",
                )
            elif event["reason"] == Reason.SESSION_OPENED:
                self.owners[slot] = int(event["amount"])
            else:
                self.owners.pop(slot, None)

    def _taken(self, first: int, end: int) -> np.ndarray:
        ring = self.replay.state.events
        places = np.arange(first, end) & (len(ring) - 1)
        words = ring.view("<i8").reshape(len(ring), -1)[places, :EVENT_WORDS]
        return np.ascontiguousarray(words).view(EVENT).reshape(-1)

    def cut(self, in_seq: int) -> None:
        """The journal ends with `in_seq`: what came behind it has never been."""
        records = np.array(self.records.all[:in_seq])
        self.records, self.events = Rows(COMMAND), Rows(EVENT)
        self.producer_seq, self.by_account, self.owners = {}, {}, {}
        self.replay = self._fresh()
        if len(records):
            self.extend(records)
        self.committed = min(self.committed, self.events.count)
        self.told = min(self.told, self.events.count)
        self.shown_ns.cut(self.committed)


class Observer:
    """The stories of all shards."""

    def __init__(self, config: Config, clock: SimTime) -> None:
        self.config, self.clock = config, clock
        self.stories = [Story(config, shard) for shard in range(config.shards)]
        self.durable = [0] * config.shards  # as told when the power failed
        self.lost_events = self.recoveries = 0
        self.digest: Any = None  # of everything shown, for the trace
        self._seen: dict[int, Instance] = {}

    def look(self, instance: Instance, shard: int) -> None:
        """Take in what is new in the shared memory of a shard."""
        story, staging = self.stories[shard], instance.staging
        assert staging is not None
        staged = staging.get(shard, STAGED)
        if staged > story.records.count:
            story.extend(staging.records(shard, story.records.count, staged))
        committed = instance.event_rings.committed(shard)
        if committed > story.committed:
            self._take(instance, story, committed)

    def _take(self, instance: Instance, story: Story, committed: int) -> None:
        rings, first = instance.event_rings, story.committed
        require(
            committed <= story.events.count,
            f"shard {story.shard}: events up to {committed} are shown, the staged records give"
            f" {story.events.count}",
        )
        require(committed - first <= rings.capacity, "the observer was lapped: knobs do not fit")
        places = story.shard * rings.capacity + (np.arange(first, committed) & (rings.capacity - 1))
        words = rings.slot_words.reshape(len(rings.slots), -1)[places, :EVENT_WORDS]
        shown = np.ascontiguousarray(words).view(EVENT).reshape(-1)
        wanted = story.events.all[first:committed]
        if shown.tobytes() != wanted.tobytes():
            wrong = next(i for i in range(len(shown)) if shown[i] != wanted[i])
            raise Violation(
                f"shard {story.shard}: event {first + wrong + 1} was shown as {shown[wrong]},"
                f" the journal gives {wanted[wrong]}"
            )
        if self.digest is not None:
            self.digest.update(shown.tobytes())
        story.shown_ns.append(np.full(committed - first, self.clock.steady))
        story.committed = story.told = committed

    def recovered(self, instance: Instance, shard: int, process: ShardProcess) -> None:
        """A shard has a new owner, whose state came out of journal and staging ring."""
        self.recoveries += 1
        story = self.stories[shard]
        if self._seen.get(shard) is not instance:  # its ring begins behind what was replayed
            self._seen[shard] = instance
            begin = instance.event_rings.committed(shard)
            require(
                begin >= story.committed,
                f"shard {shard}: {story.committed} events were shown, the new ring begins at"
                f" {begin}",
            )
            story.shown_ns.append(np.full(begin - story.committed, self.clock.steady))
            story.committed = begin
            # Nobody reads what is before the beginning but in the log, which ends with what is
            # durable: in mode sync that may not be all that the staging ring gave.
            story.told = story.told if self.config.journal.mode == "sync" else begin
        self.look(instance, shard)
        in_seq = int(process.state.hdr[IN_SEQ])
        require(
            in_seq == story.records.count,
            f"shard {shard}: recovered up to command {in_seq},"
            f" {story.records.count} had been staged",
        )
        self.compare(shard, process.state, "recovered")

    def compare(self, shard: int, state: ShardState, what: str) -> None:
        """A state must be what a replay of the journal gives."""
        story = self.stories[shard]
        if state_hash(story.replay.state) == state_hash(state):
            return
        mine, other = state_parts(story.replay.state), state_parts(state)
        names = [n for n in sorted({*mine, *other}) if not np.array_equal(mine[n], other[n])]
        shown = [(n, _difference(mine[n], other[n])) for n in names[:4]]
        raise Violation(
            f"shard {story.shard}: the {what} state at command {story.records.count} differs from"
            f" a replay of the journal: {shown}"
        )

    # ------------------------------------------------------------------------------- power
    def before_power_cut(self, instance: Instance | None) -> None:
        """Note what was told durable."""
        if instance is not None and instance.staging is not None:
            for shard in range(self.config.shards):
                self.durable[shard] = max(self.durable[shard], instance.staging.get(shard, DURABLE))

    def after_power_cut(self, shard: int, in_seq: int) -> None:
        """The journal of a shard was judged: it ends with `in_seq`."""
        story, mode = self.stories[shard], self.config.journal.mode
        require(
            in_seq >= min(self.durable[shard], story.records.count),
            f"shard {shard}: record {self.durable[shard]} was told durable, {in_seq} is the last"
            " after the power cut",
        )
        require(in_seq <= story.records.count, f"shard {shard}: {in_seq} was never staged")
        events = story.events.all
        kept = int(np.searchsorted(events["in_seq"], in_seq, side="right"))
        lost = story.shown_ns.all[kept:]
        self.lost_events += len(lost)
        if mode == "sync":
            gone = max(story.told - kept, 0)
            require(not gone, f"shard {shard}: {gone} shown events are lost (mode sync)")
        if mode == "batch" and len(lost):
            # The span: nobody syncs for an exchange that was killed before the power failed.
            span = int(lost[-1]) - int(lost[0])
            window = self.config.journal.loss_window_ms * MS
            require(
                span <= window,
                f"shard {shard}: lost events were shown over a span of {span / MS:.1f} ms",
            )
        story.cut(in_seq)
        self.durable[shard] = in_seq

    # ------------------------------------------------------------------------------- the files
    def check_files(self, disk: Any, directory: str) -> None:
        """The files hold exactly the story."""
        for story in self.stories:
            read = journal_read(disk, directory, story.shard)
            parts = list(read)
            records = np.concatenate(parts) if parts else np.zeros(0, COMMAND)
            count = min(len(records), story.records.count)
            require(
                records[:count].tobytes() == story.records.all[:count].tobytes(),
                f"shard {story.shard}: the journal's records are not those that were staged",
            )
            require(
                len(records) == story.records.count,
                f"shard {story.shard}: the journal has {len(records)} records,"
                f" {story.records.count} were staged",
            )


def _difference(mine: np.ndarray, other: np.ndarray) -> str:
    # Where two arrays differ first, for people.
    if mine.shape != other.shape:
        return f"{mine.shape} against {other.shape}"
    place = int(np.flatnonzero((mine != other).reshape(len(mine), -1).any(axis=1))[0])
    return f"[{place}]: {mine[place]} against {other[place]}"
