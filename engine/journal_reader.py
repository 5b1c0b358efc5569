"""Reading a shard's journal: which records are whole, where a torn tail begins, what is damage.

Recovery, the follower, `run.py verify` and tools read through here; nobody else judges a record.
One compiled call per chunk of 16 Ki records (3 MiB), so a journal of any length needs no memory.

    DIR/shard<N>/journal-<first in_seq, 20 digits>    page 0: header; then COMMAND records, no gap

A record is *valid* when its place says its in_seq, its CRC verifies from the CRC stored in its
predecessor, its epoch is not lower than the predecessor's, and layout_version = RULES_VERSION.
Each record names, by durable_lag, the in_seq known to be on disk when it was appended. *Mark*: the
highest of these in any valid record anywhere, or what the caller knows (snapshots).

The first record that is not valid:
    above the mark     torn tail of a crash: the journal ends before it, whatever follows
    at or below it     damage: JournalDamage names file and byte offset; nothing is ever skipped

Records before that one are handed out at once: the verdict on them cannot change. What no crash can
cause is damage wherever it lies: a bad header, a segment missing between others, one that does not
continue its predecessor, a whole record of an older epoch or another version (why: journal_files).

Bytes behind the end that are zero or a record of the past (segments are recycled) are not reported
as cut.
"""

from collections.abc import Iterator

import numpy as np

from engine.crc32c import CRC_START, crc_word, crc_words
from engine.disk import Disk
from engine.file_header import FILE_HEADER
from engine.jit import helper, kernel, register_warmup
from engine.journal_files import RECORD_BYTES, JournalFile, journal_files, shard_directory
from engine.journal_files import JournalDamage as JournalDamage
from engine.records import COMMAND, COMMAND_WORDS, RULES_VERSION, layout_offset

CHUNK_RECORDS = 16_384

# Words of the chain state that `records_verify` carries from chunk to chunk.
CRC, EPOCH = 0, 1  # as stored in the record before the next one
NEXT = 2  # in_seq that the next place holds
GOOD = 3  # in_seq of the last record before the first fault
FAULT = 4  # of the first record that is not valid; 0: none yet
MARK = 5
SIGN = 6  # last place behind the fault that holds more than zeros or a record of the past
CHAIN_WORDS = 8
FAULT_PLACE, FAULT_CRC, FAULT_VERSION, FAULT_EPOCH, FAULT_MISSING = 1, 2, 3, 4, 5

IN_SEQ_WORD = layout_offset(COMMAND, "in_seq") // 8
VERSION_WORD = layout_offset(COMMAND, "layout_version") // 8  # its high 16 bits
CRC_WORD = layout_offset(COMMAND, "crc") // 8  # low half; the high half is the epoch
LAG_WORD = layout_offset(COMMAND, "durable_lag") // 8  # low half
LOW_HALF = 0xFFFFFFFF
assert layout_offset(COMMAND, "layout_version") % 8 == 6
assert (layout_offset(COMMAND, "crc") % 8, layout_offset(COMMAND, "durable_lag") % 8) == (0, 0)
assert layout_offset(COMMAND, "epoch") == CRC_WORD * 8 + 4


@helper
def record_crc(words, base, crc):
    """CRC of the record at words[base], its crc field taken as zero, from its predecessor's."""
    value = crc_words(np.uint64(crc), words, base, CRC_WORD)
    middle = np.uint64(words[np.uint64(base + CRC_WORD)])
    value = crc_word(value, (middle >> np.uint64(32)) << np.uint64(32))
    return crc_words(value, words, base + CRC_WORD + 1, COMMAND_WORDS - CRC_WORD - 1)


@helper
def record_fault(words, base, chain):
    """Why the record at words[base] does not belong behind the chain; 0 when it does."""
    middle = np.uint64(words[np.uint64(base + CRC_WORD)])
    if words[np.uint64(base + IN_SEQ_WORD)] != chain[NEXT]:
        return FAULT_PLACE
    if record_crc(words, base, chain[CRC]) != middle & np.uint64(LOW_HALF):
        return FAULT_CRC
    version = np.uint64(words[np.uint64(base + VERSION_WORD)]) >> np.uint64(48)
    if version != np.uint64(RULES_VERSION):
        return FAULT_VERSION
    if np.int64(middle >> np.uint64(32)) < chain[EPOCH]:
        return FAULT_EPOCH
    return 0


@helper
def record_is_of_now(words, base, good):
    """Whether the place holds anything but zeros or a record that was journaled before."""
    in_seq = words[np.uint64(base + IN_SEQ_WORD)]
    if in_seq != 0:
        return in_seq < 0 or in_seq > good
    for word in range(COMMAND_WORDS):
        if words[np.uint64(base + word)] != 0:
            return True
    return False


@kernel
def records_verify(words, chain):
    """Judge the records in `words` one by one; the chain state says what came of it. O(records)."""
    for base in range(0, words.size, COMMAND_WORDS):
        fault = record_fault(words, base, chain)
        if fault == 0:
            lag = words[np.uint64(base + LAG_WORD)] & LOW_HALF
            chain[MARK] = max(chain[MARK], chain[NEXT] - lag)
        if chain[FAULT] == 0:
            if fault == 0:
                chain[GOOD] = chain[NEXT]
            else:
                chain[FAULT] = fault
        if chain[FAULT] != 0 and (fault == 0 or record_is_of_now(words, base, chain[GOOD])):
            chain[SIGN] = chain[NEXT]
        middle = np.uint64(words[np.uint64(base + CRC_WORD)])
        chain[CRC] = np.int64(middle & np.uint64(LOW_HALF))
        chain[EPOCH] = np.int64(middle >> np.uint64(32))
        chain[NEXT] += 1


def chain_state(in_seq: int, crc: int, epoch: int = 0, mark: int = 0) -> np.ndarray:
    """State of a chain whose last record is `in_seq`."""
    chain = np.zeros(CHAIN_WORDS, np.int64)
    chain[[CRC, EPOCH, NEXT, GOOD, MARK]] = crc, epoch, in_seq + 1, in_seq, mark
    return chain


class JournalRead:
    """One pass over a journal: iterate over it for arrays of COMMAND, then read the verdict.

    `in_seq`, `crc`: the last record handed out and its CRC. `mark`: everything up to here was on
    disk at some time. `cut_bytes`: how much lies behind the end that is not empty, from byte
    `cut_offset` of `cut_file`; 0 after a clean end.
    """

    def __init__(
        self, disk: Disk, files: list[JournalFile], chain: np.ndarray, until: int | None
    ) -> None:
        self._disk = disk
        self._files = files
        self._chain = chain
        self._until = until
        self._partial = 0  # bytes of a last record that the end of its file cuts
        self.in_seq = int(chain[GOOD])
        self.crc = int(chain[CRC])
        self.mark = int(chain[MARK])
        self.cut_bytes = 0
        self.cut_file = ""
        self.cut_offset = 0

    def finish(self) -> "JournalRead":
        """Judge what has not been read yet without handing it out."""
        for _ in self:
            continue
        return self

    def __iter__(self) -> Iterator[np.ndarray]:
        chain = self._chain
        for file in self._files:
            if not file.first <= chain[NEXT] <= file.last:
                continue  # full, and all of it lies before the start
            self._enter(file)
            handle = self._disk.open(file.path)
            try:
                while chain[NEXT] <= self._end(file):
                    records = self._chunk(file, handle)
                    if records.size:
                        yield records
            finally:
                self._disk.close(handle)
        self._judge()

    def _end(self, file: JournalFile) -> int:
        return file.last if self._until is None else min(file.last, self._until)

    def _enter(self, file: JournalFile) -> None:
        # The header's CRC stands for the predecessor: both were written from the same record.
        chain = self._chain
        if chain[NEXT] != file.first:
            return
        if chain[FAULT] == 0 and chain[CRC] != file.header.chain_crc:
            offset = layout_offset(FILE_HEADER, "chain_crc")
            raise JournalDamage(file.path, offset, "does not continue the records before it")
        chain[CRC] = file.header.chain_crc

    def _chunk(self, file: JournalFile, handle: int) -> np.ndarray:
        # The next records of a file that may be handed out: none behind the first fault.
        chain = self._chain
        begin = int(chain[NEXT])
        count = min(CHUNK_RECORDS, self._end(file) - begin + 1)
        data = self._disk.pread(handle, count * RECORD_BYTES, file.offset(begin))
        whole = len(data) // RECORD_BYTES
        sound = chain[FAULT] == 0
        records_verify(np.frombuffer(data, np.int64, whole * COMMAND_WORDS), chain)
        if whole < count:
            self._file_ends(file, data[whole * RECORD_BYTES :])
        records = np.frombuffer(data, COMMAND, int(chain[GOOD]) - begin + 1 if sound else 0)
        if records.size:
            self.in_seq, self.crc = int(chain[GOOD]), int(records["crc"][-1])
        self.mark = int(chain[MARK])
        if sound and chain[FAULT]:
            self._first_fault(file)
        return records

    def _file_ends(self, file: JournalFile, rest: bytes) -> None:
        # The file is shorter than it was made: a crash while its tail was cut off, or damage.
        chain = self._chain
        if chain[FAULT] == 0:
            chain[FAULT] = FAULT_MISSING
        if any(rest):
            chain[SIGN], self._partial = chain[NEXT], len(rest)
        chain[NEXT], chain[CRC], chain[EPOCH] = file.last + 1, 0, 0

    def _first_fault(self, file: JournalFile) -> None:
        bad = self.in_seq + 1
        self.cut_file, self.cut_offset = file.path, file.offset(bad)
        if self._chain[FAULT] == FAULT_VERSION:
            raise JournalDamage(
                file.path,
                self.cut_offset,
                f"record {bad} is whole, but of another rules version than {RULES_VERSION}:"
                " start the version that wrote it, stop it cleanly, then start this one",
            )
        if self._chain[FAULT] == FAULT_EPOCH:
            raise JournalDamage(
                file.path,
                self.cut_offset,
                f"record {bad} is whole, but of an older epoch than the one before it:"
                " two writers were at work",
            )

    def _judge(self) -> None:
        # All was seen: is the first fault the end of the journal, or damage?
        chain = self._chain
        self.mark = int(chain[MARK])
        bad = self.in_seq + 1
        if self.mark >= bad:
            path, offset = self.cut_file, self.cut_offset
            if not path:
                path, offset = self._files[-1].path, self._files[-1].offset(bad)
            raise JournalDamage(path, offset, f"{self._fault_text(bad)}, and it was on disk once")
        if chain[SIGN]:
            whole = int(chain[SIGN]) - bad
            partial = self._partial or RECORD_BYTES
            self.cut_bytes = whole * RECORD_BYTES + partial

    def _fault_text(self, bad: int) -> str:
        return {
            FAULT_CRC: f"record {bad} is damaged (checksum)",
            FAULT_PLACE: f"record {bad} is missing: another one, or none, is in its place",
        }.get(int(self._chain[FAULT]), f"record {bad} is missing: the journal ends before it")


def journal_read(
    disk: Disk,
    directory: str,
    shard: int,
    after: int = 0,
    mark: int = 0,
    *,
    crc: int | None = None,
    until: int | None = None,
) -> JournalRead:
    """Begin to read the records behind `after`.

    mark: what else is known to have been on disk (snapshots).
    crc: the CRC of record `after`, where the caller knows it: another one in the file is damage.
    until: end there; every record up to it must be whole (the follower, behind a running writer).

    Raises JournalDamage, here or while it is iterated over.
    """
    files = journal_files(disk, directory, shard, after, until)
    mark = max(mark, after, until or 0)
    if not files:
        if mark:
            place = shard_directory(directory, shard)
            raise JournalDamage(place, 0, f"there is no journal, but {mark} records were in it")
        return JournalRead(disk, files, chain_state(0, CRC_START), until)
    stored, epoch = chain_at(disk, files[0], after)
    if crc is not None and crc != stored:
        raise JournalDamage(
            files[0].path,
            files[0].offset(max(after, files[0].first)),
            f"record {after} is another one than the snapshot has seen",
        )
    return JournalRead(disk, files, chain_state(after, stored, epoch, mark), until)


def chain_at(disk: Disk, file: JournalFile, in_seq: int) -> tuple[int, int]:
    """CRC and epoch of a record of `file` that must be whole, or, for the one before its first, the
    CRC its header names (epoch 0: unknown).
    """
    if in_seq == file.first - 1:
        return file.header.chain_crc, 0
    before = max(in_seq - 1, file.first)
    handle = disk.open(file.path)
    try:
        data = disk.pread(handle, (in_seq - before + 1) * RECORD_BYTES, file.offset(before))
    finally:
        disk.close(handle)
    records = np.frombuffer(data, COMMAND, len(data) // RECORD_BYTES)
    chain = chain_state(before - 1, file.header.chain_crc)
    if before > file.first and records.size:
        # The predecessor's own CRC starts from a record further up: take what it stores.
        chain[[CRC, EPOCH, NEXT]] = int(records["crc"][0]), int(records["epoch"][0]), in_seq
        records = records[1:]
    records_verify(records.view(np.int64), chain)
    if chain[FAULT] or chain[NEXT] != in_seq + 1:
        raise JournalDamage(
            file.path,
            file.offset(in_seq),
            f"record {in_seq} is missing or damaged, and it was on disk once",
        )
    return int(chain[CRC]), int(chain[EPOCH])


def _warm_up() -> None:
    records_verify(np.frombuffer(bytes(RECORD_BYTES), np.int64), chain_state(0, CRC_START))


register_warmup("engine.journal_reader", _warm_up)
