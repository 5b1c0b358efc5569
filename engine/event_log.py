"""The event log: every EVENT of a shard again, after the ring has forgotten it (DESIGN §6).

Cold. The follower replays the journal and writes what comes out (EventLogWriter); whoever needs
past events reads (EventLog): resuming clients, retransmission, lapped readers, the projector. The
log is derived: it may lag, it is bounded, and when it is lost or damaged the journal gives it
again. It never holds what the journal might lose: it stops at `durable`.

    writer   append -> sync -> publish LOG_END; at seal: fdatasync, index, next segment
    reader   only up to `end()`; every event handed out was verified, and is byte for byte the
             ring's (crc and epoch zero again)

Segments are of a fixed size (engine/log_format.py), removed oldest first; a reader that comes too
late gets EventsGone with the oldest that is left. A restarted writer cuts the log back to where its
state begins and writes the same events again, so readers may find a segment cut, removed or made
anew under their hands: what looks damaged is looked at a second time with nothing remembered.
Before `open` cuts, LOG_END must have been taken back.

Limits: one writer (log.lock); memory of a reader: a few chunks, the tables of the indexes, four
bytes per event of the newest segment.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np

from engine.disk import Disk, RealDisk
from engine.event_log_writer import EventLogWriter
from engine.file_header import FileRefused
from engine.log_format import (
    CHUNK_EVENTS,
    EVENT_WORDS,
    INDEX,
    Segment,
    SegmentFile,
    SegmentIndex,
    event_words,
    segment_path,
    segment_run,
)
from engine.records import EVENT

ACCOUNT_EVENTS = 1024  # events of one account handed out at a time
ROWS_BETWEEN = 256  # rows of others that are read along rather than passed over
FILES_OPEN = 4
INDEXES_KEPT = 256
SCANS_KEPT = 2  # one for the newest segment, one for what lost its index
NO_ROWS = np.zeros(0, np.int64)
ATTEMPTS = 4  # files may go or be made anew while they are read


class EventsGone(LookupError):
    """Asked for events that are not in the log, or no longer; `oldest` is the first that is."""

    def __init__(self, wanted: str, oldest: int) -> None:
        super().__init__(f"the event log does not hold {wanted}; it begins with {oldest}")
        self.oldest = oldest


class _Scan:
    # Accounts of the rows of a segment without an index, as far as they were looked at.
    def __init__(self, capacity: int) -> None:
        self.accounts = np.zeros(capacity, np.int32)
        self.rows = 0

    def go_on(self, file: SegmentFile, rows: int) -> None:
        while self.rows < rows:
            events = file.rows(self.rows, min(CHUNK_EVENTS, rows - self.rows))
            self.accounts[self.rows : self.rows + len(events)] = events["account"]
            self.rows += len(events)


class EventLog:
    """A reader of one shard's log; any number of them, in any process.

    Args: end: gives the out_seq up to which the log may be read (staging word LOG_END).
    """

    def __init__(self, disk: Disk, directory: str, shard: int, end: Callable[[], int]) -> None:
        self._disk, self._directory, self._shard, self._end = disk, directory, shard, end
        self._run: list[Segment] = []
        self._files: dict[int, SegmentFile] = {}
        self._indexes: dict[int, SegmentIndex] = {}
        self._scans: dict[int, _Scan] = {}
        self._bad_indexes: set[str] = set()

    def close(self) -> None:
        """Close every file; the next call opens what it needs."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._indexes.clear()
        self._scans.clear()
        self._run = []

    def oldest(self) -> int:
        """The first out_seq there is; one behind the end when there is none."""
        end = self._end()
        self._run = segment_run(self._disk, self._directory, self._shard, end)
        return self._run[0].first if self._run else end + 1

    # ---------------------------------------------------------------------------------- by out_seq
    def read(self, after_out_seq: int, count: int) -> np.ndarray:
        """Events after_out_seq + 1 and on, at most `count` (all of them are in memory), as many as
        there are up to the end; EventsGone when the first is no longer there.
        """
        for attempt in range(ATTEMPTS):
            last = min(after_out_seq + count, self._end())
            try:
                return self._read(after_out_seq + 1, last)
            except (FileRefused, FileNotFoundError):
                self.close()
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    def _read(self, first: int, last: int) -> np.ndarray:
        found = np.empty((max(last - first + 1, 0), EVENT_WORDS), np.int64)
        done = 0
        while done < len(found):
            segment = self._segment(first + done)
            row = first + done - segment.first
            count = min(len(found) - done, segment.capacity - row, CHUNK_EVENTS)
            found[done : done + count] = event_words(self._file(segment).rows(row, count))
            done += count
        return _as_in_the_ring(found)

    def _segment(self, out_seq: int) -> Segment:
        # The segment that holds this event; looks again when the known ones do not.
        for look in (False, True):
            if look:
                self.oldest()
            place = bisect_right(self._run, out_seq, key=lambda segment: segment.first) - 1
            if place >= 0 and out_seq <= self._run[place].last:
                return self._run[place]
        raise EventsGone(f"event {out_seq}", self._run[0].first if self._run else self._end() + 1)

    def _file(self, segment: Segment) -> SegmentFile:
        file = self._files.pop(segment.first, None)
        if file is None:
            path = segment_path(self._directory, self._shard, segment.first)
            file = SegmentFile(self._disk, path, self._shard)
            while len(self._files) >= FILES_OPEN:
                self._files.pop(next(iter(self._files))).close()
        self._files[segment.first] = file  # the one used last is at the end
        return file

    # ---------------------------------------------------------------------------------- by account
    def account(
        self, account: int, after_account_seq: int, until_account_seq: int
    ) -> Iterator[np.ndarray]:
        """Every event of an account with after < account_seq <= until, in order, in portions.

        Call it when the log's end covers `until`: what is not found then is gone, and EventsGone is
        raised; what was handed out before is right and without a gap.
        """
        if account < 1:
            raise ValueError("only events of accounts are numbered account by account")
        wanted, failures = after_account_seq + 1, 0
        while wanted <= until_account_seq:
            try:
                events = self._account_events(account, wanted, until_account_seq)
            except (FileRefused, FileNotFoundError) as error:
                self.close()
                failures += 1
                if failures == ATTEMPTS:
                    raise
                if isinstance(error, FileRefused) and error.path.endswith(INDEX):
                    self._bad_indexes.add(error.path)
                continue
            yield events
            wanted, failures = wanted + len(events), 0

    def _account_events(self, account: int, wanted: int, until: int) -> np.ndarray:
        # The next portion, from account_seq `wanted` on.
        end, oldest = self._end(), self.oldest()
        until = min(until, wanted + ACCOUNT_EVENTS - 1)
        for segment in self._run:
            file = self._file(segment)
            # An index may speak of events that are not published yet.
            find = self._rows_by_index if segment.last <= end else self._rows_by_scan
            first, rows = find(file, account, wanted, until)
            if len(rows):
                return _as_in_the_ring(self._gather(file, account, wanted, rows))
            if first > wanted:
                break
        raise EventsGone(f"event {wanted} of account {account}", oldest)

    # Both give the number of the account's first event in the segment (0: there is none), and the
    # rows of its events `wanted` .. `until`, as far as they are in this segment.
    def _rows_by_index(
        self, file: SegmentFile, account: int, wanted: int, until: int
    ) -> tuple[int, np.ndarray]:
        index = self._index(file)
        if index is None:
            return self._rows_by_scan(file, account, wanted, until)
        entry = index.account(account)
        if entry is None:
            return 0, NO_ROWS
        first, count = int(entry["account_seq"]), int(entry["count"])
        skip, stop = wanted - first, min(until - first + 1, count)
        if not 0 <= skip < stop:
            return first, NO_ROWS
        return first, index.list(int(entry["first"]) + skip, stop - skip).astype(np.int64)

    def _rows_by_scan(
        self, file: SegmentFile, account: int, wanted: int, until: int
    ) -> tuple[int, np.ndarray]:
        published = min(self._end() - file.first + 1, file.capacity)
        scan = self._scans.get(file.first)
        if scan is None:
            while len(self._scans) >= SCANS_KEPT:
                self._scans.pop(next(iter(self._scans)))
            scan = self._scans[file.first] = _Scan(file.capacity)
        scan.go_on(file, published)
        rows = np.flatnonzero(scan.accounts[:published] == account)
        if not len(rows):
            return 0, NO_ROWS
        first = int(file.rows(int(rows[0]), 1)["account_seq"][0])
        skip = wanted - first
        return first, rows[skip : max(until - first + 1, 0)] if skip >= 0 else NO_ROWS

    def _index(self, file: SegmentFile) -> SegmentIndex | None:
        # A segment whose index is missing or damaged is read through instead: the truth is there.
        if file.first not in self._indexes:
            path = file.path + INDEX
            if path in self._bad_indexes or not self._disk.exists(path):
                return None
            try:
                index = SegmentIndex.load(self._disk, file, self._shard)
            except (FileRefused, FileNotFoundError):
                return None
            while len(self._indexes) >= INDEXES_KEPT:
                self._indexes.pop(next(iter(self._indexes)))
            self._indexes[file.first] = index
            self._scans.pop(file.first, None)
        return self._indexes[file.first]

    def _gather(self, file: SegmentFile, account: int, wanted: int, rows: np.ndarray) -> np.ndarray:
        # The events in these rows; neighbours are read together.
        found = np.empty((len(rows), EVENT_WORDS), np.int64)
        if rows[-1] >= file.capacity or (np.diff(rows) < 1).any():
            raise FileRefused(file.path + INDEX, "its list is damaged")
        for start, stop in _together(rows):
            low, high = int(rows[start]), int(rows[stop - 1])
            events = event_words(file.rows(low, high - low + 1))
            found[start:stop] = events[rows[start:stop] - low]
        events, numbers = found.view(EVENT), np.arange(wanted, wanted + len(rows))
        if (events["account"][:, 0] != account).any() or (
            events["account_seq"][:, 0] != numbers
        ).any():
            raise FileRefused(file.path + INDEX, f"leads to events that are not {account}'s")
        return found


def _together(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    # Parts of ascending `rows` that are read at once: near to each other, a chunk at most.
    gaps = np.flatnonzero(np.diff(rows) > ROWS_BETWEEN) + 1
    start = 0
    while start < len(rows):
        chunk = int(np.searchsorted(rows, rows[start] + CHUNK_EVENTS))
        gap = int(np.searchsorted(gaps, start, "right"))
        stop = min(chunk, int(gaps[gap]) if gap < len(gaps) else len(rows))
        yield start, stop
        start = stop


def _as_in_the_ring(words: np.ndarray) -> np.ndarray:
    events = words.view(EVENT).reshape(-1)
    events["crc"] = 0
    events["epoch"] = 0
    return events


__all__ = ["EventLog", "EventLogWriter", "EventsGone", "FileRefused", "RealDisk"]
