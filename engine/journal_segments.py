"""The files of one shard's journal, as their only writer has them: append, rotate, cut, recycle.

Cold (one call per batch). Owned by the JournalWriter (engine/journal.py), which decides when to
sync and what may be told; the layout is in engine/journal_reader.py, which reads it.

    spare-<k>  --header, fdatasync, rename, fsync of the directory-->  journal-<first>  --records
        ^                                                                     |
        +------------------ retention: rename, fsync of the directory --------+

A segment has its name, durably, before a record goes in, and loses it durably before the next one
does: whatever crash comes, the names are without gap and every header is whole. The next segment is
made ahead, as a spare, so that a rotation waits for no room.

A recycled segment is full of old records: none is where its in_seq says, so none lives again. What
recovery cuts off could (same place, same chain), so that is zeroed and synced before anything new
is written, later segments first and one by one.
"""

import time
from collections.abc import Callable

import numpy as np

from engine.crc32c import CRC_START
from engine.disk import Disk
from engine.file_header import FileHeader, header_bytes
from engine.journal_files import (
    JournalDamage,
    JournalFile,
    journal_files,
    journal_name,
    journal_oldest,
    shard_directory,
)
from engine.journal_reader import chain_at
from engine.records import COMMAND, COMMAND_WORDS

SPARE = "spare-"
SPARES_MAX = 2
AGAIN_RECORDS = 1 << 14
LOCK = "journal.lock"


class JournalSegments:
    """The segments of one shard, open for appending behind `position`."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        shard: int,
        segment_bytes: int,
        epoch: int,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.shard = shard
        self.directory = directory
        self.place = shard_directory(directory, shard)
        self.position = 0  # last record written
        self.crc = CRC_START  # of that record
        self.record_epoch = 0  # of the record it began behind; 0: unknown
        self.rotations = 0
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._epoch = epoch
        self._clock_ns = clock_ns  # only for people who look at a file
        self._current: JournalFile | None = None
        self._handle = -1
        self._unsynced: list[int] = []  # handles written to since the last sync, oldest first
        self._full: list[JournalFile] = []  # before the current one
        self._ahead: dict[int, JournalFile] = {}  # made by a writer that died, behind the current
        self._spares: list[str] = []
        self._spare_next = 1
        disk.makedirs(self.place)
        disk.sync_dir(directory)
        self._lock = disk.lock(f"{self.place}/{LOCK}")

    # ------------------------------------------------------------------------- where to begin
    def cut_behind(self, in_seq: int, crc: int, durable: int, sure: int) -> None:
        """After recovery: remove everything behind `in_seq`, durably, and have all before it on
        disk. What is up to `durable` is there already; what is behind `sure` is written again.
        """
        self._begin(in_seq)
        if (self.position, self.crc) != (in_seq, crc):
            raise JournalDamage(
                self.place, 0, f"record {in_seq} is not the one that recovery has ended with"
            )
        for first in sorted(self._ahead, reverse=True):
            self._disk.unlink(self._ahead.pop(first).path)
            self._disk.sync_dir(self.place)
        for file in self._full:
            if file.last > durable:
                handle = self._disk.open(file.path, write=True)
                try:
                    self._write_again(handle, file, sure, file.last)
                    self._disk.fdatasync(handle)
                finally:
                    self._disk.close(handle)
        if self._current is not None:
            if in_seq < self._current.last:
                self._disk.truncate(self._handle, self._current.offset(in_seq + 1))
                self._disk.allocate(self._handle, self._current.header.size)
            self._write_again(self._handle, self._current, sure, in_seq)
            self._disk.fdatasync(self._handle)
        else:
            self._rotate()
        self._disk.sync_dir(self.place)

    def _write_again(self, handle: int, file: JournalFile, after: int, until: int) -> None:
        # The same bytes: what counts as clean in the page cache is dirty again.
        at = max(after, file.first - 1) + 1
        while at <= until:
            count = min(until - at + 1, AGAIN_RECORDS)
            data = self._disk.pread(handle, count * COMMAND.itemsize, file.offset(at))
            self._disk.pwrite(handle, data, file.offset(at))
            at += count

    def resume_behind(self, in_seq: int, durable: int) -> None:
        """After the death of the process that wrote: go on behind `in_seq`; what it wrote behind
        `durable` counts as unsynced.
        """
        self._begin(in_seq)
        for file in self._full:
            if file.last > durable:
                self._unsynced.append(self._disk.open(file.path, write=True))
        if self._current is None:
            self._rotate()
        self._mark_unsynced()
        self._disk.sync_dir(self.place)  # it may have died between a rename and this

    def _begin(self, in_seq: int) -> None:
        # Find the segment that holds in_seq + 1, or is full with in_seq.
        directory = self.directory
        oldest = journal_oldest(self._disk, directory, self.shard)
        if in_seq and in_seq < oldest - 1:
            raise JournalDamage(self.place, 0, f"the journal begins with record {oldest}")
        files = journal_files(self._disk, directory, self.shard, max(oldest - 1, 0))
        for file in files:
            if file.first > in_seq + 1:
                self._ahead[file.first] = file
            else:
                self._full.append(file)
        if self._full:
            self._current = self._full.pop()
            if self._current.last < in_seq:
                raise JournalDamage(
                    self.place, 0, f"the journal ends with record {self._current.last}"
                )
            self.position = in_seq
            self.crc, self.record_epoch = chain_at(self._disk, self._current, in_seq)
            self._handle = self._disk.open(self._current.path, write=True)
        elif in_seq:
            raise JournalDamage(self.place, 0, f"there is no journal to go on behind {in_seq}")
        for name in self._disk.listdir(self.place):
            if name.startswith(SPARE):
                # Whoever made it may have died of a failed sync, which left its size in the page
                # cache alone: a header would be written behind the end of the file on disk.
                self._disk.unlink(f"{self.place}/{name}")

    # -------------------------------------------------------------------------------- writing
    def append(self, words: np.ndarray) -> None:
        """Write whole records (int64 words) behind `position`; they are in the page cache then."""
        while words.size:
            current = self._current
            if current is None or self.position == current.last:
                self._rotate()
                continue
            count = min(words.size // COMMAND_WORDS, current.last - self.position)
            part, words = words[: count * COMMAND_WORDS], words[count * COMMAND_WORDS :]
            self._mark_unsynced()
            self._disk.pwrite(self._handle, part, current.offset(self.position + 1))
            self.position += count
            self.crc = int(part.view(COMMAND)["crc"][-1])

    @property
    def unsynced(self) -> bool:
        """Whether a file was written to since the last sync."""
        return bool(self._unsynced)

    def sync(self) -> None:
        """Have on disk what was written before the call, in earlier segments too."""
        for handle in self._unsynced:
            self._disk.fdatasync(handle)
        for handle in self._unsynced:
            if handle != self._handle:
                self._disk.close(handle)
        self._unsynced.clear()

    def _mark_unsynced(self) -> None:
        if self._handle not in self._unsynced:
            self._unsynced.append(self._handle)

    def _rotate(self) -> None:
        # Go on in the next segment, whose header and name are on disk before this returns.
        first = self.position + 1
        made = self._ahead.pop(first, None)
        path = f"{self.place}/{journal_name(first)}"
        if made is None:
            size, now_ns = self._segment_bytes, self._clock_ns()
            header = FileHeader("journal", self.shard, first, self.crc, self._epoch, now_ns, size)
            made = JournalFile(path, header)
            if not self._spares:
                self.make_spare()
            handle = self._disk.open(self._spares[0], write=True)
            self._change_to(handle)
            self._disk.pwrite(handle, header_bytes(header), 0)
            self._disk.fdatasync(handle)
            self._disk.rename(self._spares.pop(0), path)
        else:
            if made.header.chain_crc != self.crc:
                raise JournalDamage(path, 0, "does not continue the records staged before it")
            self._change_to(self._disk.open(path, write=True))  # its header is on disk already
        self._disk.sync_dir(self.place)
        if self._current is not None:
            self._full.append(self._current)
        self._current = made
        self.rotations += 1

    def _change_to(self, handle: int) -> None:
        # The old handle is closed by the sync that covers it.
        if self._handle >= 0 and self._handle not in self._unsynced:
            self._disk.close(self._handle)
        self._handle = handle

    # ---------------------------------------------------------------------------- housekeeping
    @property
    def needs_spare(self) -> bool:
        """Whether the next rotation would have to make its segment."""
        return not self._spares

    def make_spare(self) -> None:
        """Take the room of the next segment."""
        path = f"{self.place}/{SPARE}{self._spare_next}"
        self._spare_next += 1
        handle = self._disk.create(path, self._segment_bytes)
        try:
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)
        self._spares.append(path)

    def recycle(self, keep: int, after: int) -> bool:
        """Give the oldest segment back if more than `keep` are there and all of it lies at or below
        `after`; one a call.
        """
        if len(self._full) + 1 <= keep or self._full[0].last > after:
            return False
        oldest = self._full.pop(0)
        fits = oldest.header.size == self._segment_bytes and len(self._spares) < SPARES_MAX
        if fits:
            path = f"{self.place}/{SPARE}{self._spare_next}"
            self._spare_next += 1
            self._disk.rename(oldest.path, path)
        else:
            self._disk.unlink(oldest.path)
        # Before its bytes change, and before the next one goes: see above.
        self._disk.sync_dir(self.place)
        if fits:
            self._spares.append(path)
        return True

    def close(self) -> None:
        """Close the files and let the lock go; nothing is synced."""
        for handle in {*self._unsynced, self._handle, self._lock} - {-1}:
            self._disk.close(handle)
        self._unsynced.clear()
        self._handle = self._lock = -1
