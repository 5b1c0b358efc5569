"""Writing the event log of one shard: the follower's side of engine/event_log.py.

Cold; one writer, which holds log.lock. What was appended is in the page cache (it outlives the
process) and on disk after `sync`. An OSError leaves the log at `end`: the same call, with the
events after it, may be tried again; but not after a sync that failed. What it was to cover may be
gone though it can still be read, so the log must be opened anew where it was durable before.
"""

import contextlib
import errno
import time
from collections.abc import Callable

import numpy as np

from engine.crc32c import CRC_START
from engine.disk import Disk
from engine.file_header import (
    FILE_HEADER_BYTES,
    FileHeader,
    FileRefused,
    header_bytes,
    shard_directory,
)
from engine.log_format import (
    CHUNK_EVENTS,
    EVENT_BYTES,
    EVENT_WORDS,
    INDEX,
    PREFIX,
    IndexColumns,
    Segment,
    SegmentFile,
    events_seal,
    index_write,
    segment_firsts,
    segment_path,
    segment_run,
)
from engine.records import EVENT
from engine.whole_file import UNFINISHED

CACHED_SEGMENTS = 4  # behind the one being written: what who is a little late asks for
PIECE_EVENTS = 2048  # sealed, then written, while the nearest cache holds them


class EventLogWriter:
    """Appends to the log of one shard.

    Args: segment_events: events per segment. events_max: room for as many is never exceeded; older
    segments go. epoch: written into every event.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        shard: int,
        segment_events: int,
        events_max: int,
        epoch: int = 0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if segment_events < 1 or events_max < 2 * segment_events:
            raise ValueError("a log needs room for two segments of at least one event")
        self._disk, self._directory, self._shard = disk, directory, shard
        self._segment_events, self._events_max = segment_events, events_max
        self._epoch, self._clock_ns = epoch, clock_ns
        self._folder = shard_directory(directory, shard)
        self._full: list[Segment] = []
        self._tail: SegmentFile | None = None
        self._columns = IndexColumns(0)  # of the tail
        self._piece = np.zeros(PIECE_EVENTS * EVENT_WORDS, np.int64)
        self._crc = CRC_START
        self._failed = False  # a sync did
        self.end = 0  # out_seq of the last event written
        self.durable = 0  # and of the last one on disk

    @property
    def oldest(self) -> int:
        """First out_seq kept; one behind the end when there is none."""
        if self._full:
            return self._full[0].first
        return self._tail.first if self._tail is not None else self.end + 1

    def close(self) -> None:
        """Close the file; nothing is synced."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    # ------------------------------------------------------------------------------------- opening
    def open(self, out_seq: int, crc: int | None = None, sure: int | None = None) -> str:
        """Go on behind event `out_seq`; whatever the log has beyond is cut. What lies behind `sure`
        may be in the page cache alone, as clean as the failed sync of a writer that died has left
        it: that is written again.

        A log that does not hold that event, or whose newest segment is damaged before it, or whose
        event has another CRC than `crc` (where one is given), begins anew with out_seq + 1; the
        sentence returned says why, and is empty otherwise.
        """
        self.close()
        if self._failed and out_seq > self.durable:
            raise ValueError(f"the log is known to be on disk up to event {self.durable} only")
        self._remove_leftovers()
        run = segment_run(self._disk, self._directory, self._shard, out_seq)
        reason = "the log has no event yet" if not run else ""
        if run:
            try:
                self._take_up(run[-1], out_seq, crc)
            except FileRefused as refused:
                reason = str(refused)
        keep = [] if reason else run
        self._remove([f for f in self._firsts() if f not in {segment.first for segment in keep}])
        self._full = keep[:-1]
        self.end = self.durable = out_seq
        self._failed = False
        if reason:
            self.close()
            self._crc = CRC_START if crc is None else crc
            begun = f"the event log begins anew with event {out_seq + 1}: {reason}"
            return begun if out_seq or run else ""
        self._cut(out_seq if sure is None else sure)
        self._index_missing()
        return ""

    def _firsts(self) -> list[int]:
        return segment_firsts(self._disk, self._directory, self._shard)

    def _path(self, first: int) -> str:
        return segment_path(self._directory, self._shard, first)

    def _remove_leftovers(self) -> None:
        firsts = {f"{PREFIX}{first:020d}{INDEX}" for first in self._firsts()}
        for name in self._disk.listdir(self._folder):
            orphan = name.endswith(INDEX) and name not in firsts
            if name.startswith(PREFIX) and (orphan or name.endswith(UNFINISHED)):
                self._disk.unlink(f"{self._folder}/{name}")

    def _take_up(self, segment: Segment, out_seq: int, crc: int | None) -> None:
        # Open the segment that shall end with out_seq for now, and verify what it keeps.
        self._tail = file = SegmentFile(
            self._disk, self._path(segment.first), self._shard, write=True
        )
        rows, last = out_seq - file.first + 1, file.header.chain_crc
        if rows > file.capacity:
            raise FileRefused(file.path, f"ends before event {out_seq}")
        self._columns = IndexColumns(file.capacity)
        for events in self._columns.read(file, rows):
            last = int(events["crc"][-1])
        if crc is not None and last != crc:
            place = FILE_HEADER_BYTES + (rows - 1) * EVENT_BYTES
            raise FileRefused(file.path, f"event {out_seq} has another CRC than expected", place)
        self._crc = last

    def _remove(self, firsts: list[int]) -> None:
        # Newest first, and on disk before anything else changes: what is left is without a gap.
        # What an error left half done is done now.
        for first in reversed(firsts):
            for path in (self._path(first) + INDEX, self._path(first)):
                if self._disk.exists(path):
                    self._disk.unlink(path)
        self._disk.sync_dir(self._folder)

    def _cut(self, sure: int) -> None:
        # Zeros behind the end, and room for the rest of the segment.
        file = self._tail
        assert file is not None
        rows = self.end - file.first + 1
        for row in range(max(sure + 1 - file.first, 0), rows, CHUNK_EVENTS):
            place = FILE_HEADER_BYTES + row * EVENT_BYTES
            size = min(CHUNK_EVENTS, rows - row) * EVENT_BYTES
            self._disk.pwrite(file.handle, self._disk.pread(file.handle, size, place), place)
        if rows < file.capacity:
            if self._disk.exists(file.path + INDEX):
                self._disk.unlink(file.path + INDEX)
                self._disk.sync_dir(self._folder)
            self._disk.truncate(file.handle, FILE_HEADER_BYTES + rows * EVENT_BYTES)
            self._disk.allocate(file.handle, file.header.size)
        self._sync(file)

    def _index_missing(self) -> None:
        for segment in self._full:
            if self._disk.exists(self._path(segment.first) + INDEX):
                continue
            with contextlib.suppress(FileRefused):  # a damaged one has none: its readers are told
                file = SegmentFile(self._disk, self._path(segment.first), self._shard)
                try:
                    columns = IndexColumns(file.capacity)
                    for _ in columns.read(file, file.capacity):
                        continue
                    index_write(self._disk, file, self._shard, self._clock_ns(), columns)
                finally:
                    file.close()

    # ------------------------------------------------------------------------------------- writing
    def append(self, ring: np.ndarray, end: int) -> None:
        """Write the events that follow, up to out_seq `end`.

        ring: words of EVENT_SLOTs, a power of two of them; the event with out_seq n is at n - 1.
        ValueError where it is not, with everything before its piece written.
        """
        while self.end < end:
            file = self._open_tail()
            row = self.end + 1 - file.first
            count = min(end - self.end, file.capacity - row, PIECE_EVENTS)
            piece = self._piece[: count * EVENT_WORDS]
            crc = int(events_seal(ring, self.end + 1, piece, self._crc, self._epoch))
            if crc < 0:
                raise ValueError(f"the log goes on with event {self.end + 1}: not in the ring")
            self._disk.pwrite(file.handle, piece, FILE_HEADER_BYTES + row * EVENT_BYTES)
            self._columns.put(row, piece.view(EVENT))
            self._crc = crc
            self.end += count
            if self.end - file.first + 1 == file.capacity:
                self._seal(file)

    def sync(self) -> None:
        """Wait until every event appended is on disk."""
        if self._tail is not None:
            if self.end - self._tail.first + 1 == self._tail.capacity:
                self._seal(self._tail)
            else:
                self._sync(self._tail)
        self.durable = self.end

    def _refuse_after_failure(self) -> None:
        if self._failed:
            raise OSError(errno.EIO, "a sync of the event log failed before", self._folder)

    def _sync(self, file: SegmentFile) -> None:
        self._refuse_after_failure()
        try:
            self._disk.fdatasync(file.handle)
        except OSError:
            self._failed = True
            raise

    def _open_tail(self) -> SegmentFile:
        self._refuse_after_failure()
        if self._tail is not None and self.end - self._tail.first + 1 == self._tail.capacity:
            self._seal(self._tail)  # an error came in between
        if self._tail is None:
            self._make_room()
            self._tail = self._new_segment()
            self._columns = IndexColumns(self._tail.capacity)
        return self._tail

    def _seal(self, file: SegmentFile) -> None:
        # The index says "full" only when all of it is on disk.
        self._sync(file)
        self.durable = self.end
        index_write(self._disk, file, self._shard, self._clock_ns(), self._columns)
        self._full.append(Segment(file.first, file.capacity))
        self.close()
        if len(self._full) > CACHED_SEGMENTS:
            handle = self._disk.open(self._path(self._full[-1 - CACHED_SEGMENTS].first))
            self._disk.forget(handle)
            self._disk.close(handle)

    def _make_room(self) -> None:
        while self._full and (
            sum(s.capacity for s in self._full) + self._segment_events > self._events_max
        ):
            self._remove([self._full[0].first])
            del self._full[0]

    def _new_segment(self) -> SegmentFile:
        # Its header is on disk before it has its name: a bad header is damage.
        path = self._path(self.end + 1)
        if self._disk.exists(path + UNFINISHED):
            self._disk.unlink(path + UNFINISHED)
        size = FILE_HEADER_BYTES + self._segment_events * EVENT_BYTES
        header = FileHeader(
            "events", self._shard, self.end + 1, self._crc, self._epoch, self._clock_ns(), size
        )
        handle = self._disk.create(path + UNFINISHED, size)
        try:
            self._disk.pwrite(handle, header_bytes(header), 0)
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)
        self._disk.rename(path + UNFINISHED, path)
        self._disk.sync_dir(self._folder)
        return SegmentFile(self._disk, path, self._shard, write=True)
