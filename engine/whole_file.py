"""Files that are there whole or not at all: snapshots, indexes of the event log, the manifest.

Cold. A file is written under a name of its own, synced, renamed over the old one, and the rename is
synced: after a crash at any point the name leads to all of the old or all of the new content.

    page 0      header (engine/file_header.py), with a CRC of its own
    page 1..    content, a whole number of words
    last word   CRC of the content, begun with the header's CRC: the two belong together

Reading verifies size, header and CRC before anybody sees a byte of the content.
"""

import contextlib
from collections.abc import Sequence

import numpy as np

from engine.crc32c import crc32c
from engine.disk import Data, Disk, data_bytes
from engine.file_header import (
    FILE_HEADER_BYTES,
    FileHeader,
    FileRefused,
    header_bytes,
    header_read,
)

UNFINISHED = ".tmp"
CHUNK_BYTES = 8 << 20


def replace_file(disk: Disk, path: str, parts: Sequence[Data]) -> None:
    """Make `path` consist of `parts`, durably. An OSError leaves what was there."""
    written = path + UNFINISHED
    if disk.exists(written):
        disk.unlink(written)
    handle = disk.create(written, sum(data_bytes(part).nbytes for part in parts))
    try:
        offset = 0
        for part in parts:
            disk.pwrite(handle, part, offset)
            offset += data_bytes(part).nbytes
        disk.fdatasync(handle)
    except OSError:
        with contextlib.suppress(OSError):  # it may hold the room that is missing
            disk.unlink(written)
        raise
    finally:
        disk.close(handle)
    disk.rename(written, path)
    disk.sync_dir(path.rpartition("/")[0])


def whole_write(disk: Disk, path: str, header: FileHeader, content: Sequence[np.ndarray]) -> None:
    """Write header, content (each part whole words) and CRC; `header.size` is filled in here."""
    size = FILE_HEADER_BYTES + sum(part.nbytes for part in content) + 8
    page = header_bytes(header._replace(size=size))
    crc = crc32c(page)
    for part in content:
        crc = crc32c(part, crc)
    replace_file(disk, path, [page, *content, np.array([crc], "<i8")])


def whole_read(disk: Disk, path: str, kind: str, shard: int) -> tuple[FileHeader, np.ndarray]:
    """Header and content (bytes), verified; FileRefused when anything is not as it was written."""
    handle = disk.open(path)
    try:
        header = header_read(disk.pread(handle, FILE_HEADER_BYTES, 0), kind, shard, path)
        size = disk.size(path)
        if size != header.size or size % 8 or size < FILE_HEADER_BYTES + 8:
            raise FileRefused(path, f"has {size} bytes, {header.size} were written")
        data = np.empty(size, np.uint8)
        for offset in range(0, size, CHUNK_BYTES):
            chunk = disk.pread(handle, min(CHUNK_BYTES, size - offset), offset)
            if len(chunk) != min(CHUNK_BYTES, size - offset):
                raise FileRefused(path, "ends before its end", offset + len(chunk))
            data[offset : offset + len(chunk)] = np.frombuffer(chunk, np.uint8)
    finally:
        disk.close(handle)
    # The header was read twice: what counts is the copy that is in the CRC.
    crc = crc32c(data[:FILE_HEADER_BYTES])
    crc = crc32c(data[FILE_HEADER_BYTES:-8], crc)
    if crc != int(data[-8:].view("<i8")[0]):
        raise FileRefused(path, "the content is damaged: its checksum is wrong", FILE_HEADER_BYTES)
    return header, data[FILE_HEADER_BYTES:-8]
