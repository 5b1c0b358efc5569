"""Following a journal that is being written: verified records, as far as they may be read.

Cold (a compiled check per chunk). Readers of a live journal (follower, recovery of one shard) go no
further than its writer has published, so what does not verify there is damage, never a torn tail;
judging the end of a journal that nobody writes is engine/journal_reader.py.
"""

import numpy as np

from engine.disk import Disk
from engine.journal_files import RECORD_BYTES, JournalDamage, JournalFile, journal_files
from engine.journal_reader import CRC, FAULT, GOOD, chain_state, records_verify
from engine.records import COMMAND

CHUNK_RECORDS = 2048  # their events fit the nearest caches: a third less time per command


class JournalTail:
    """A place in one shard's journal: everything up to `in_seq` was read, its CRC is `crc`."""

    def __init__(self, disk: Disk, directory: str, shard: int, in_seq: int, crc: int) -> None:
        self.disk, self.directory, self.shard = disk, directory, shard
        self.in_seq = in_seq
        self.forget = False  # files that were read to their end: nobody else wants them in memory
        self._chain = chain_state(in_seq, crc)
        self._file: JournalFile | None = None
        self._handle = -1

    @property
    def crc(self) -> int:
        """CRC stored in the last record."""
        return int(self._chain[CRC])

    def read(self, until: int, most: int = CHUNK_RECORDS) -> np.ndarray:
        """Return the next verified records, none behind `until`, none when there are none yet.

        JournalDamage where a record that was published does not verify.
        """
        if until <= self.in_seq:
            return np.zeros(0, COMMAND)
        file = self._open()
        count = min(until, file.last, self.in_seq + most) - self.in_seq
        raw = self.disk.pread(self._handle, count * RECORD_BYTES, file.offset(self.in_seq + 1))
        records = np.frombuffer(raw, COMMAND, len(raw) // RECORD_BYTES)
        before = self.in_seq
        if not self.take(records) or self.in_seq < before + count:
            raise JournalDamage(
                file.path,
                file.offset(self.in_seq + 1),
                f"record {self.in_seq + 1} was published and does not verify",
            )
        return records

    def take(self, records: np.ndarray) -> bool:
        """Go on over records that come from elsewhere (the staging ring); False: they do not
        follow, `in_seq` is the last one that does.
        """
        words = np.ascontiguousarray(records).view(np.int64)
        words.flags.writeable = False  # as those read from files: one compiled version
        records_verify(words, self._chain)
        self.in_seq = int(self._chain[GOOD])
        return int(self._chain[FAULT]) == 0

    def _open(self) -> JournalFile:
        file = self._file
        if file is None or self.in_seq + 1 > file.last:
            if file is not None and self.forget:
                self.disk.forget(self._handle)
            self.close()
            following = self.in_seq + 1
            file = journal_files(self.disk, self.directory, self.shard, self.in_seq, following)[0]
            if file.first == following and file.header.chain_crc != self.crc:
                raise JournalDamage(file.path, 0, "it does not continue the segment before it")
            self._handle, self._file = self.disk.open(file.path), file
        return file

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            self.disk.close(self._handle)
        self._handle, self._file = -1, None
