"""Whether a data directory is what it says: all that is in it, shard by shard, against a replay.

Cold around a compiled replay; reads only, and a directory in use up to what is on disk. For each
shard, from its first record (or a snapshot) on:

    journal        chain of CRCs, no gap, epochs, version: as a start judges it
    replay         every command again; a broken invariant ends it; all are tested at the end
    snapshots      the state at their in_seq is the replayed one, CRCs and counts included
    event log      its events are the replayed ones, byte for byte, with a right chain of CRCs

`damages` are bytes that are not as written (file and offset), `differences` are whole records that
say something else than the replay: a program that is not deterministic, or was tampered with.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from engine.book_check import BrokenInvariant, check_state
from engine.disk import Disk
from engine.file_header import FILE_HEADER_BYTES, FileHeader, FileRefused, header_read
from engine.journal_files import journal_oldest, shard_directory
from engine.kept_directory import KeptDirectory
from engine.record_chain import crcs_wrong, empty_rows
from engine.records import COMMAND, EVENT
from engine.replay import ReplayError
from engine.rerun import Rerun
from engine.snapshot import snapshot_list, snapshot_path, snapshot_read
from engine.state_hash import state_hash, state_parts

LOG_PREFIX = "events-"
EVENT_BYTES = EVENT.itemsize
SPEED_COMMANDS_MIN = 10_000
OWNER_FIELDS = ("crc", "epoch")  # filled by the log, zero in the ring

Progress = Callable[[int, int], None]  # shard, commands so far


@dataclass
class ShardReport:
    """What came of one shard."""

    shard: int
    begun: int = 0  # behind this command the replay began
    commands: int = 0  # in_seq of the last
    events: int = 0
    seconds: float = 0.0
    state_hash: str = ""
    event_crc: tuple[int, int, int] = (0, 0, 0)
    snapshots: list[int] = field(default_factory=list)  # that agree
    log: tuple[int, int] = (0, 0)  # first and last event of the log that agree
    notes: list[str] = field(default_factory=list)
    damages: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Commands replayed per second; 0 when there were too few to tell."""
        ran = self.commands - self.begun
        return ran / self.seconds if self.seconds and ran >= SPEED_COMMANDS_MIN else 0.0


def verify_shard(
    kept: KeptDirectory,
    shard: int,
    *,
    from_snapshot: bool = False,
    progress: Progress | None = None,
) -> ShardReport:
    """Verify one shard; nothing is raised for what is wrong with it, the report says it."""
    return _Verifier(kept, shard, progress or _quiet).run(from_snapshot)


def _quiet(shard: int, commands: int) -> None:
    """Report no progress."""


class _Verifier:
    def __init__(self, kept: KeptDirectory, shard: int, progress: Progress) -> None:
        self.kept, self.shard, self.progress = kept, shard, progress
        self.report = ShardReport(shard)
        self.due: list[int] = []  # in_seq of snapshots to come, the next one last

    def run(self, from_snapshot: bool) -> ShardReport:
        report = self.report
        try:
            rerun = self._begin(from_snapshot)
            log = LogFiles(self.kept, self.shard, rerun.replay.position, report)
            self._replay(rerun, log)
        except (FileRefused, OSError, ReplayError) as error:
            report.damages.append(_sentence(error))
        return report

    def _begin(self, from_snapshot: bool) -> Rerun:
        # Where the replay begins, and which snapshots it will come by.
        kept, shard = self.kept, self.shard
        until = kept.until(shard)
        found = snapshot_list(kept.disk, kept.path, shard)
        found = [in_seq for in_seq in found if until is None or in_seq <= until]
        oldest = journal_oldest(kept.disk, kept.path, shard)
        if not oldest and kept.manifest.epoch:
            self._no_journal()
        starts = list(found) if from_snapshot else []
        if oldest > 1 and not from_snapshot:
            starts = [in_seq for in_seq in reversed(found) if in_seq >= oldest - 1]
            self.report.notes.append(f"the journal is kept from command {oldest} on")
        for in_seq in starts:
            try:
                rerun = Rerun(kept, shard, in_seq)
            except FileRefused as refused:
                self.report.damages.append(str(refused))
                continue
            self.report.begun = in_seq
            self.due = [other for other in found if other > in_seq]
            return rerun
        self.due = list(found)
        return Rerun(kept, shard)

    def _no_journal(self) -> None:
        # The first start makes a segment for every shard right after it has noted its epoch.
        place = shard_directory(self.kept.path, self.shard)
        said = f"{place}: there is no journal, although the directory was in use"
        if self.kept.manifest.clean:
            self.report.damages.append(said)
        else:
            self.report.notes.append(said)

    def _replay(self, rerun: Rerun, log: "LogFiles") -> None:
        report, seconds = self.report, 0.0
        rerun.replay.run(np.zeros(0, COMMAND))  # loads the kernel: not part of the replay's speed
        try:
            while len(rerun.records()):
                begun = time.perf_counter()
                stop = self.due[-1] if self.due else 1 << 62
                events = rerun.step(stop - rerun.in_seq)
                seconds += time.perf_counter() - begun
                log.compare(events)
                if rerun.in_seq == stop:
                    self._snapshot(rerun, self.due.pop())
                self.progress(self.shard, rerun.in_seq)
            log.finish()
        finally:
            report.commands, report.events = rerun.in_seq, rerun.replay.position
            report.seconds, report.event_crc = seconds, rerun.replay.event_crc
            report.log = log.agreed
        report.state_hash = state_hash(rerun.state)
        self._invariants(rerun)
        self._tail(rerun)

    def _invariants(self, rerun: Rerun) -> None:
        try:
            check_state(rerun.state)
        except BrokenInvariant as broken:
            self.report.differences.append(f"after command {rerun.in_seq}: {broken}")

    def _tail(self, rerun: Rerun) -> None:
        read, notes = rerun.read, self.report.notes
        if read is not None and read.cut_bytes:
            notes.append(
                f"torn tail: {read.cut_bytes} bytes from byte {read.cut_offset} of {read.cut_file}"
                " on; the next start cuts them"
            )
        beyond = self.kept.beyond(self.shard)
        if self.kept.live:
            notes.append(f"in use: verified up to command {rerun.in_seq}, which is on disk")
        elif beyond:
            notes.append(
                f"its last owner died: {beyond} commands are still in shared memory, the next start"
                " takes them over"
            )
        notes += [f"snapshot {in_seq} lies behind the journal's end" for in_seq in self.due]

    def _snapshot(self, rerun: Rerun, in_seq: int) -> None:
        kept, report = self.kept, self.report
        path = snapshot_path(kept.path, self.shard, in_seq)
        try:
            state, extra = snapshot_read(
                kept.disk, kept.path, self.shard, in_seq, kept.config.shard
            )
        except FileNotFoundError:
            return  # a running exchange has made a newer one
        except FileRefused as refused:
            report.damages.append(str(refused))
            return
        said = (extra.out_seq, extra.chain_crc, extra.event_crc)
        replayed = (rerun.replay.position, rerun.crc, rerun.replay.event_crc)
        if said != replayed:
            report.differences.append(
                f"{path}: events, record CRC and event CRCs are {said}, replayed {replayed}"
            )
        if state_hash(state) != state_hash(rerun.state):
            mine, theirs = state_parts(rerun.state), state_parts(state)
            names = [n for n in mine if mine[n].tobytes() != theirs[n].tobytes()]
            report.differences.append(
                f"{path}: the state is not the replayed one, it differs in {', '.join(names)}"
            )
        elif said == replayed:
            report.snapshots.append(in_seq)


class LogFiles:
    """The event log of a shard as it lies on disk, held against replayed events."""

    def __init__(self, kept: KeptDirectory, shard: int, position: int, report: ShardReport) -> None:
        self.disk: Disk = kept.disk
        self.report = report
        self._live = kept.live
        self.next = position + 1  # out_seq of the next replayed event
        self.agreed = (0, 0)
        self.ended = False  # the log has no more events
        self.bad = False
        self._handle, self._capacity = -1, 0
        self._header: FileHeader | None = None
        self._path = ""
        place = shard_directory(kept.path, shard)
        self._files: list[tuple[int, str]] = []
        for name in self.disk.listdir(place):
            digits = name.removeprefix(LOG_PREFIX)
            if name.startswith(LOG_PREFIX) and len(digits) == 20 and digits.isdigit():
                self._files.append((int(digits), f"{place}/{name}"))
        self._shard = shard

    def compare(self, events: np.ndarray) -> None:
        """Hold the next replayed events against what the log has of them."""
        done = 0
        while done < len(events) and not (self.ended or self.bad):
            if not self._at(self.next + done):
                done += self._not_there(self.next + done, len(events) - done)
                continue
            done += self._stretch(events[done:], self.next + done)
        self.next += len(events)

    def finish(self) -> None:
        """After the last replayed event."""
        going_on = not (self.ended or self.bad or self._live) and self._at(self.next)
        header = self._header
        if going_on and header is not None:
            offset = FILE_HEADER_BYTES + (self.next - header.first) * EVENT_BYTES
            if any(self.disk.pread(self._handle, EVENT_BYTES, offset)):
                self.report.notes.append(
                    f"the event log goes on behind the journal's end, from byte {offset} of"
                    f" {self._path} on; the next start cuts it"
                )
        self._close()

    def _at(self, out_seq: int) -> bool:
        # Have the segment open that holds this event; False: none does.
        header = self._header
        if header is not None and header.first <= out_seq < header.first + self._capacity:
            return True
        self._close()
        for first, path in reversed(self._files):
            if first <= out_seq:
                return self._open(path, out_seq)
        return False

    def _open(self, path: str, out_seq: int) -> bool:
        try:
            self._handle = self.disk.open(path)
        except FileNotFoundError:
            return False  # a running exchange has just removed it
        try:
            page = self.disk.pread(self._handle, FILE_HEADER_BYTES, 0)
            header = header_read(page, "events", self._shard, path)
            if not path.endswith(f"{header.first:020d}"):
                raise FileRefused(path, f"begins with event {header.first}: renamed")
        except FileRefused as refused:
            self._close()
            self.report.damages.append(str(refused))
            self.bad = True
            return True
        self._header, self._path = header, path
        self._capacity = (header.size - FILE_HEADER_BYTES) // EVENT_BYTES
        return header.first <= out_seq < header.first + self._capacity

    def _close(self) -> None:
        if self._handle >= 0:
            self.disk.close(self._handle)
        self._handle, self._header = -1, None

    def _not_there(self, out_seq: int, count: int) -> int:
        # Events before the log begins, or behind its end: how many to pass over.
        following = [first for first, _ in self._files if first > out_seq]
        if not following:
            self.ended = True
            return count
        if self._live:
            self.ended = True  # a running exchange removes its oldest segments
        elif self.agreed[0]:
            self.bad = True
            self.report.damages.append(
                f"{self._files[0][1].rpartition('/')[0]}: events {out_seq} to {following[0] - 1}"
                " are missing from the event log (gap)"
            )
        return min(count, following[0] - out_seq)

    def _stretch(self, events: np.ndarray, out_seq: int) -> int:
        # As many as the open segment holds; returns how many were looked at.
        header = self._header
        if header is None:
            return len(events)
        row = out_seq - header.first
        count = min(len(events), self._capacity - row)
        before = min(row, 1)  # its stored CRC is what the next one goes on from
        offset = FILE_HEADER_BYTES + (row - before) * EVENT_BYTES
        raw = self.disk.pread(self._handle, (count + before) * EVENT_BYTES, offset)
        found = np.frombuffer(raw, EVENT, len(raw) // EVENT_BYTES)
        crc = int(found["crc"][0]) if before and len(found) else header.chain_crc
        found = found[before:]
        same = _words(found, clear=True) == _words(events[: len(found)])
        wrong = ~same.all(axis=1) | crcs_wrong(found, crc)
        good = int(np.argmax(wrong)) if wrong.any() else len(found)
        if good:
            self.agreed = (self.agreed[0] or out_seq, out_seq + good - 1)
        if good < count:
            self._fault(found, events, good, crc, row)
        return count

    def _fault(self, found: np.ndarray, events: np.ndarray, at: int, crc: int, row: int) -> None:
        offset = FILE_HEADER_BYTES + (row + at) * EVENT_BYTES
        number = int(events["out_seq"][at])
        if at >= len(found) or empty_rows(found[at:]).all():
            self.ended = True  # it lags, as it may
            return
        self.bad = True
        if at:
            crc = int(found["crc"][at - 1])
        if crcs_wrong(found[at : at + 1], crc)[0]:
            self.report.damages.append(
                f"{self._path}, byte {offset}: event {number} is damaged (checksum)"
            )
            return
        self.report.differences.append(
            f"{self._path}, byte {offset}: event {number} is not the replayed one:"
            f" {_field_differences(found[at], events[at])}"
        )


def _words(events: np.ndarray, *, clear: bool = False) -> np.ndarray:
    events = events.copy()
    for name in OWNER_FIELDS if clear else ():
        events[name] = 0
    return events.view(np.int64).reshape(len(events), -1)


def _field_differences(kept: np.void, replayed: np.void) -> str:
    names = [
        name
        for name in EVENT.names or ()
        if name not in OWNER_FIELDS and kept[name].tobytes() != replayed[name].tobytes()
    ]
    return ", ".join(f"{n} {kept[n].tolist()} (replayed {replayed[n].tolist()})" for n in names)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def verify_directory(
    kept: KeptDirectory,
    shards: list[int],
    *,
    from_snapshot: bool = False,
    progress: Progress | None = None,
) -> Iterator[ShardReport]:
    """Verify shard after shard."""
    for shard in shards:
        yield verify_shard(kept, shard, from_snapshot=from_snapshot, progress=progress)
