"""What the supervisor has decided: DIR/admin.log, one COMMAND after the other (DESIGN §6, §7).

Cold. One writer, the supervisor. A command is numbered (admin_seq, in `client_order_id`, rising)
and on disk before any shard hears of it: a start can tell again what a shard may have missed.
Each record carries a CRC that goes on from the one before (`crc`).

    page 0      header (engine/file_header.py)
    then        COMMANDs, 192 bytes each

At most the last record can be torn: it was never told to anybody, and is cut. Anything else that is
not as it was written refuses the start, naming file and offset.
"""

import numpy as np

from engine.crc32c import crc32c
from engine.disk import Disk
from engine.file_header import (
    FILE_HEADER_BYTES,
    FileHeader,
    FileRefused,
    header_bytes,
    header_read,
)
from engine.record_chain import crcs_wrong
from engine.records import COMMAND
from engine.whole_file import replace_file

ADMIN_LOG_NAME = "admin.log"
CHAIN_START = 0x52424144  # not 0: a record of zeros, all that a torn one may be, is then wrong


class AdminLog:
    """The open log of a data directory."""

    def __init__(self, disk: Disk, directory: str, now_ns: int) -> None:
        self.disk, self.path = disk, f"{directory}/{ADMIN_LOG_NAME}"
        if not disk.exists(self.path):
            header = FileHeader("admin", 0, 1, CHAIN_START, 0, now_ns, FILE_HEADER_BYTES)
            replace_file(disk, self.path, [header_bytes(header)])
        self.handle = disk.open(self.path, write=True)
        self.cut_bytes = 0  # of a torn last record
        self.failed = False  # a record may be there or not: nothing more is written behind it
        try:
            self.records = self._read()
        except BaseException:
            disk.close(self.handle)
            raise

    def _read(self) -> np.ndarray:
        disk, size = self.disk, self.disk.size(self.path)
        header_read(disk.pread(self.handle, FILE_HEADER_BYTES, 0), "admin", 0, self.path)
        count, rest = divmod(size - FILE_HEADER_BYTES, COMMAND.itemsize)
        raw = disk.pread(self.handle, count * COMMAND.itemsize, FILE_HEADER_BYTES)
        records = np.frombuffer(raw, COMMAND).copy()
        wrong = np.flatnonzero(crcs_wrong(records, CHAIN_START)) if count else np.zeros(0, np.int64)
        if len(wrong) and (int(wrong[0]) < count - 1 or rest):
            offset = FILE_HEADER_BYTES + int(wrong[0]) * COMMAND.itemsize
            raise FileRefused(self.path, "a record is damaged: its checksum is wrong", offset)
        if len(wrong):
            records, rest = records[:-1], rest + COMMAND.itemsize
        numbers = records["client_order_id"]
        if (np.diff(numbers, prepend=0) < 1).any():
            raise FileRefused(self.path, "its numbers do not rise", FILE_HEADER_BYTES)
        if rest:
            self.cut_bytes = rest
            disk.truncate(self.handle, size - rest)
            disk.fdatasync(self.handle)
        return records

    def append(self, record: np.ndarray) -> None:
        """Put one COMMAND, numbered, on disk; an OSError: nobody knows whether it is there."""
        if self.failed:
            raise OSError(f"{self.path}: an earlier write failed; a new start reads what is there")
        sealed = record.copy()
        before = int(self.records["crc"][-1]) if len(self.records) else CHAIN_START
        sealed["crc"] = 0
        sealed["crc"] = crc32c(sealed.tobytes(), before)
        offset = FILE_HEADER_BYTES + len(self.records) * COMMAND.itemsize
        self.failed = True
        self.disk.pwrite(self.handle, sealed, offset)
        self.disk.fdatasync(self.handle)
        self.failed = False
        self.records = np.concatenate([self.records, sealed])

    def close(self) -> None:
        """Let go of the file."""
        self.disk.close(self.handle)
