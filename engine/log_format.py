"""The files of the event log: what stands in a segment, what in its index (engine/event_log.py).

Hot: `events_seal` and `events_verify`, once per run of events; the rest is cold. A log is written
out of the ring that a replay fills: one pass copies, numbers and seals.

    events-<first out_seq, 20 digits>          page 0 header, then EVENT[capacity], side by side
    events-<first out_seq, 20 digits>.index    a whole file, once the segment is full:
        2 words     rows of the table, rows of the list
        table       INDEX_ROW per account, ascending
        1 word      CRC of what stands before, begun with the header's CRC
        list        uint32 rows of the segment, account by account, each in order

An EVENT in the log is the EVENT of the ring with `crc` and `epoch` filled. `crc` goes on from the
stored CRC of the event before (the first: `chain_crc` of the header), so any run of events can be
verified alone, and an event that belongs elsewhere never looks right. A segment has its whole size
from the beginning; behind the last event it is zero.

An account's events are numbered without gap, so the list of an account is known to be right when
the events it leads to are: only the table carries a CRC that readers look at.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from engine.crc32c import CRC_START, crc32c, crc_word
from engine.disk import Disk
from engine.file_header import (
    FILE_HEADER_BYTES,
    FileHeader,
    FileRefused,
    header_read,
    shard_directory,
)
from engine.jit import helper, kernel, register_warmup
from engine.records import EVENT, EVENT_SLOT_WORDS, layout_offset
from engine.whole_file import whole_write

PREFIX = "events-"
INDEX = ".index"
EVENT_BYTES = EVENT.itemsize
EVENT_WORDS = EVENT_BYTES // 8
CRC_WORD, EPOCH_WORD = 18, 19  # crc: upper half; epoch: lower half
LOW32 = 0xFFFFFFFF
CHUNK_EVENTS = 16_384  # as many are in memory at a time
assert layout_offset(EVENT, "crc") == CRC_WORD * 8 + 4
assert layout_offset(EVENT, "epoch") == EPOCH_WORD * 8

INDEX_ROW = np.dtype(
    [("account", "<i8"), ("first", "<i8"), ("count", "<i8"), ("account_seq", "<i8")]
)


@helper
def event_crc(words, base, crc):
    """CRC of the event at words[base], from that of the event before; its own field counts as 0."""
    for word in range(EVENT_WORDS):
        value = words[base + word]
        if word == CRC_WORD:
            value &= LOW32
        crc = crc_word(crc, value)
    return crc


@kernel
def events_seal(ring, first, out, crc, epoch):
    """Copy events from out_seq `first` on, out of a ring of EVENT_SLOTs, until `out` is full, with
    crc and epoch filled; returns the last CRC, -1 where an event is not the one that follows.
    """
    mask = ring.size // EVENT_SLOT_WORDS - 1
    crc = np.uint64(crc)
    for row in range(out.size // EVENT_WORDS):
        source = np.uint64(((first + row - 1) & mask) * EVENT_SLOT_WORDS)
        base = np.uint64(row * EVENT_WORDS)
        if ring[source] != first + row:
            return np.int64(-1)
        for word in range(np.uint64(EVENT_WORDS)):
            out[base + word] = ring[source + word]
        out[base + np.uint64(EPOCH_WORD)] = (
            ring[source + np.uint64(EPOCH_WORD)] & ~LOW32
        ) | np.int64(epoch)
        crc = np.uint64(event_crc(out, np.int64(base), crc))
        out[base + np.uint64(CRC_WORD)] = (ring[source + np.uint64(CRC_WORD)] & LOW32) | (
            np.int64(crc) << 32
        )
    return np.int64(crc)


@kernel
def events_verify(words, crc, out_seq):
    """How many consecutive events are right: the first has `out_seq` and goes on from `crc`."""
    count = words.size // EVENT_WORDS
    for row in range(count):
        base = row * EVENT_WORDS
        crc = np.int64(event_crc(words, base, np.uint64(crc)))
        if (words[base + CRC_WORD] >> 32) & LOW32 != crc or words[base] != out_seq + row:
            return np.int64(row)
    return np.int64(count)


def event_words(events: np.ndarray) -> np.ndarray:
    """Events as rows of words: copied ten times faster than field by field."""
    return np.ascontiguousarray(events).view(np.int64).reshape(-1, EVENT_WORDS)


class Segment(NamedTuple):
    """One segment in the directory."""

    first: int  # out_seq
    capacity: int

    @property
    def last(self) -> int:
        """The out_seq it ends with when it is full."""
        return self.first + self.capacity - 1


def segment_path(directory: str, shard: int, first: int) -> str:
    """Name of a segment; its index has INDEX behind it."""
    return f"{shard_directory(directory, shard)}/{PREFIX}{first:020d}"


def segment_firsts(disk: Disk, directory: str, shard: int) -> list[int]:
    """First out_seq of every segment there is, ascending."""
    names = disk.listdir(shard_directory(directory, shard))
    numbers = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    return [int(number) for number in numbers if number.isdigit() and len(number) == 20]


def segment_run(disk: Disk, directory: str, shard: int, until: int) -> list[Segment]:
    """The segments that lead to event `until` without a gap between them, ascending.

    A gap is where a crash forgot some of the removals of old segments: what lies before it goes.
    """
    run: list[Segment] = []
    firsts = segment_firsts(disk, directory, shard)
    for first in reversed([first for first in firsts if first <= until]):
        try:
            size = disk.size(segment_path(directory, shard, first))
        except FileNotFoundError:
            break  # removed just now, and so is everything before it
        segment = Segment(first, max(size - FILE_HEADER_BYTES, 0) // EVENT_BYTES)
        if run and segment.last + 1 != run[0].first:
            break
        run.insert(0, segment)
    return run


class SegmentFile:
    """One open segment: its header, and verified runs of its events."""

    def __init__(self, disk: Disk, path: str, shard: int, *, write: bool = False) -> None:
        self.disk, self.path = disk, path
        self.handle = disk.open(path, write)
        try:
            page = disk.pread(self.handle, FILE_HEADER_BYTES, 0)
            self.header: FileHeader = header_read(page, "events", shard, path)
            if not path.endswith(f"{PREFIX}{self.header.first:020d}"):
                raise FileRefused(path, f"begins with out_seq {self.header.first}: renamed")
        except BaseException:
            disk.close(self.handle)
            raise
        self.first = self.header.first
        self.capacity = (self.header.size - FILE_HEADER_BYTES) // EVENT_BYTES

    def close(self) -> None:
        """Close the file."""
        self.disk.close(self.handle)

    def rows(self, row: int, count: int) -> np.ndarray:
        """Events as they are stored, read-only and verified; FileRefused names the first bad one.

        They are one chunk: `count` is at most a few times CHUNK_EVENTS.
        """
        before = min(row, 1)  # the event before tells what the CRC of the first goes on from
        offset = FILE_HEADER_BYTES + (row - before) * EVENT_BYTES
        data = self.disk.pread(self.handle, (count + before) * EVENT_BYTES, offset)
        found = np.frombuffer(data, EVENT, len(data) // EVENT_BYTES)
        crc = int(found["crc"][0]) if before and len(found) else self.header.chain_crc
        events = found[before:]
        good = int(events_verify(events.view(np.int64), crc, self.first + row))
        if good < count:
            place = FILE_HEADER_BYTES + (row + good) * EVENT_BYTES
            reason = f"event {self.first + row + good} is damaged, or was never written"
            raise FileRefused(self.path, reason, place)
        return events

    def last_crc(self) -> int:
        """Stored CRC of the last event of a full segment, not verified; -1 when it is cut short."""
        place = FILE_HEADER_BYTES + (self.capacity - 1) * EVENT_BYTES
        data = self.disk.pread(self.handle, EVENT_BYTES, place)
        return int(np.frombuffer(data, EVENT)["crc"][0]) if len(data) == EVENT_BYTES else -1


class IndexColumns:
    """What the index of a segment is made of: two columns of its events, filled as they come."""

    def __init__(self, capacity: int) -> None:
        self.accounts = np.empty(capacity, np.int32)
        self.numbers = np.empty(capacity, np.int64)

    def put(self, row: int, events: np.ndarray) -> None:
        """Keep the columns of EVENTs that stand in the segment from `row` on."""
        self.accounts[row : row + len(events)] = events["account"]
        self.numbers[row : row + len(events)] = events["account_seq"]

    def read(self, file: SegmentFile, rows: int) -> Iterator[np.ndarray]:
        """Fill in the first rows of a segment, verified; yields them chunk by chunk."""
        for row in range(0, rows, CHUNK_EVENTS):
            events = file.rows(row, min(CHUNK_EVENTS, rows - row))
            self.put(row, events)
            yield events


def index_write(
    disk: Disk, file: SegmentFile, shard: int, created_ns: int, columns: IndexColumns
) -> None:
    """Write the index of a full segment."""
    accounts, numbers = columns.accounts, columns.numbers
    order = np.argsort(accounts, kind="stable").astype("<u4")
    order = order[np.searchsorted(accounts[order], 1) :]  # account 0: nobody asks for those
    found, first, count = np.unique(accounts[order], return_index=True, return_counts=True)
    table = np.zeros(len(found), INDEX_ROW)
    table["account"], table["first"], table["count"] = found, first, count
    table["account_seq"] = numbers[order[first]]
    header = FileHeader(
        "index", shard, file.first, file.last_crc(), file.header.epoch, created_ns, 0
    )
    head = np.concatenate((np.array([len(table), len(order)], "<i8"), table.view("<i8")))
    words = np.zeros(-(-len(order) // 2), "<i8")
    words.view("<u4")[: len(order)] = order
    check = np.array([crc32c(head)], "<i8")
    whole_write(disk, file.path + INDEX, header, [head, check, words])


class SegmentIndex:
    """The index of one full segment: the table in memory, the list on disk."""

    def __init__(self, disk: Disk, path: str, table: np.ndarray, rows: int) -> None:
        self.disk, self.path, self.table, self.rows = disk, path, table, rows

    @classmethod
    def load(cls, disk: Disk, file: SegmentFile, shard: int) -> "SegmentIndex":
        """The index beside a segment; FileRefused when it is damaged or belongs to an earlier
        content of the segment, FileNotFoundError when there is none.
        """
        path = file.path + INDEX
        handle = disk.open(path)
        try:
            header = header_read(disk.pread(handle, FILE_HEADER_BYTES, 0), "index", shard, path)
            if (header.first, header.chain_crc) != (file.first, file.last_crc()):
                raise FileRefused(path, "is not of the segment beside it")
            counts = np.frombuffer(disk.pread(handle, 16, FILE_HEADER_BYTES), "<i8")
            size = 16 + int(counts[0]) * INDEX_ROW.itemsize if len(counts) == 2 else -1
            if not 16 <= size <= header.size:
                raise FileRefused(path, "is damaged: impossible number of accounts")
            head = disk.pread(handle, size + 8, FILE_HEADER_BYTES)
        finally:
            disk.close(handle)
        if len(head) < size + 8 or crc32c(head[:size]) != int(np.frombuffer(head[size:], "<i8")[0]):
            raise FileRefused(path, "is damaged: the checksum of its table is wrong")
        table = np.frombuffer(head[:size], INDEX_ROW, int(counts[0]), 16)
        return cls(disk, path, table, int(counts[1]))

    def account(self, account: int) -> np.void | None:
        """The table's row of an account, None when the segment has nothing of it."""
        place = int(np.searchsorted(self.table["account"], account))
        if place < len(self.table) and self.table["account"][place] == account:
            row: np.void = self.table[place]
            return row
        return None

    def list(self, first: int, count: int) -> np.ndarray:
        """Entries of the list: rows of the segment."""
        begin = FILE_HEADER_BYTES + 16 + self.table.nbytes + 8 + 4 * first
        handle = self.disk.open(self.path)
        try:
            return np.frombuffer(self.disk.pread(handle, 4 * count, begin), "<u4")
        finally:
            self.disk.close(handle)


def _warm_up() -> None:
    ring, out = np.zeros(EVENT_SLOT_WORDS, np.int64), np.zeros(EVENT_WORDS, np.int64)
    ring[0] = 1
    events_seal(ring, 1, out, CRC_START, 1)
    events_verify(np.frombuffer(out.tobytes(), np.int64), CRC_START, 1)


register_warmup("engine.log_format", _warm_up)
