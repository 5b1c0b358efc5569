"""The files of a shard's journal: names, headers, order. Cold; for its reader and its writer.

    DIR/shard<N>/journal-<first in_seq, 20 digits>    page 0: header; then COMMAND records, no gap
    DIR/shard<N>/spare-<k>                            room for a segment to come

A header and a name are synced before the first record goes in, and names are removed from the ends
of the row only, one at a time. So a crash leaves neither a gap nor a bad header: both are damage.
"""

from typing import NamedTuple

from engine.disk import Disk
from engine.file_header import FILE_HEADER_BYTES, FileHeader, FileRefused, header_read
from engine.records import COMMAND

RECORD_BYTES = COMMAND.itemsize
PREFIX = "journal-"


class JournalDamage(FileRefused):
    """A journal that a start must refuse: which file, which byte, why."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, reason, offset)


class JournalFile(NamedTuple):
    """One segment with a good header."""

    path: str
    header: FileHeader

    @property
    def first(self) -> int:
        return self.header.first

    @property
    def room(self) -> int:
        """Records that fit."""
        return (self.header.size - FILE_HEADER_BYTES) // RECORD_BYTES

    @property
    def last(self) -> int:
        return self.first + self.room - 1

    def offset(self, in_seq: int) -> int:
        """Byte at which a record begins."""
        return FILE_HEADER_BYTES + (in_seq - self.first) * RECORD_BYTES


def shard_directory(directory: str, shard: int) -> str:
    """Directory of a shard's files."""
    return f"{directory}/shard{shard}"


def journal_name(first: int) -> str:
    """File name of the segment that begins with a record."""
    return f"{PREFIX}{first:020d}"


def journal_files(
    disk: Disk, directory: str, shard: int, after: int = 0, until: int | None = None
) -> list[JournalFile]:
    """Segments in order, from the one that holds after + 1 to the last (or the one that holds
    `until`); JournalDamage when one is missing, bad, or of another journal.
    """
    place = shard_directory(directory, shard)
    firsts = _firsts(disk, place)
    begin = max((i for i, first in enumerate(firsts) if first <= after + 1), default=None)
    if begin is None:
        if firsts:
            raise JournalDamage(
                place, 0, f"records {after + 1} to {firsts[0] - 1} are missing: no segment has them"
            )
        if after:
            raise JournalDamage(place, 0, f"there is no journal, but {after} records were in it")
        return []
    files: list[JournalFile] = []
    for first in firsts[begin:]:
        if until is not None and first > until and files:
            break
        file = _open_header(disk, f"{place}/{journal_name(first)}", shard)
        _check_order(files[-1] if files else None, file)
        files.append(file)
    if after > files[-1].last:
        raise JournalDamage(
            place, 0, f"records {files[-1].last + 1} to {after} are missing: no segment has them"
        )
    return files


def journal_oldest(disk: Disk, directory: str, shard: int) -> int:
    """First in_seq of the oldest segment; 0: there is none."""
    return min(_firsts(disk, shard_directory(directory, shard)), default=0)


def _firsts(disk: Disk, place: str) -> list[int]:
    # First in_seq of every segment, by name.
    firsts = []
    for name in disk.listdir(place):
        if name.startswith(PREFIX):
            digits = name.removeprefix(PREFIX)
            if not (len(digits) == 20 and digits.isascii() and digits.isdigit() and int(digits)):
                raise JournalDamage(f"{place}/{name}", 0, "no segment is named like this")
            firsts.append(int(digits))
    return firsts


def _open_header(disk: Disk, path: str, shard: int) -> JournalFile:
    handle = disk.open(path)
    try:
        raw = disk.pread(handle, FILE_HEADER_BYTES, 0)
    finally:
        disk.close(handle)
    try:
        file = JournalFile(path, header_read(raw, "journal", shard, path))
    except FileRefused as refused:
        raise JournalDamage(path, refused.offset, refused.reason) from refused
    if not path.endswith(journal_name(file.first)):
        raise JournalDamage(path, 0, f"its header says it begins with record {file.first}")
    if file.room < 1 or disk.size(path) > file.header.size:
        raise JournalDamage(path, 0, f"its header says it has {file.header.size} bytes")
    return file


def _check_order(before: JournalFile | None, file: JournalFile) -> None:
    if before is None:
        return
    if file.first > before.last + 1:
        missing = f"{before.last + 1} to {file.first - 1}"
        raise JournalDamage(file.path, 0, f"records {missing} before it are missing (gap)")
    if file.first <= before.last:
        raise JournalDamage(file.path, 0, f"begins inside {before.path}")
    if file.header.epoch < before.header.epoch:
        raise JournalDamage(
            file.path,
            0,
            f"made in epoch {file.header.epoch}, after one of epoch {before.header.epoch}",
        )
