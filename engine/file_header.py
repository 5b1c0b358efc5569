"""The first page of every file the exchange keeps: what it is, of which shard, made by whom.

Cold. Journal segment, event log segment, snapshot and admin.log begin with the same 4096 bytes; the
reader of a kind refuses everything else with a reason before it looks at a record. The header is
written and synced before the file gets its name, so a bad one is damage, never the trace of a
crash.
"""

from typing import Any, NamedTuple

import numpy as np

from engine.crc32c import crc32c
from engine.records import LAYOUT_FINGERPRINT, RULES_VERSION

FILE_HEADER_BYTES = 4096
FILE_MAGIC = int.from_bytes(b"RBfile01", "little")
KINDS = ("journal", "events", "index", "snapshot", "admin")
_FIELDS: list[Any] = [
    ("magic", "<u8"),
    ("kind", "S8"),
    ("layout_fingerprint", "<i8"),
    ("rules_version", "<i8"),
    ("shard", "<i8"),
    ("first", "<i8"),  # first in_seq or out_seq; snapshot: its in_seq
    ("chain_crc", "<i8"),  # what the CRC of the first record starts from
    ("epoch", "<i8"),
    ("created_ns", "<i8"),  # the wall clock; nothing depends on it
    ("size", "<i8"),  # bytes of the whole file as made
    ("header_crc", "<i8"),  # of this page with header_crc = 0
]
FILE_HEADER = np.dtype([*_FIELDS, ("reserved", "<i8", (FILE_HEADER_BYTES // 8 - len(_FIELDS),))])

assert FILE_HEADER.itemsize == FILE_HEADER_BYTES
assert FILE_MAGIC.to_bytes(8, "little") != FILE_MAGIC.to_bytes(8, "big")


class FileRefused(Exception):
    """A file that may not be used; the message names it, the byte offset and the whole reason."""

    def __init__(self, path: str, reason: str, offset: int = 0) -> None:
        super().__init__(f"{path}, byte {offset}: {reason}")
        self.path = path
        self.reason = reason
        self.offset = offset


def shard_directory(directory: str, shard: int) -> str:
    """Where the files of a shard are."""
    return f"{directory}/shard{shard}"


class FileHeader(NamedTuple):
    """What a good header says."""

    kind: str
    shard: int
    first: int
    chain_crc: int
    epoch: int
    created_ns: int
    size: int


def header_bytes(header: FileHeader) -> bytes:
    """Return the page of a header."""
    assert header.kind in KINDS, header.kind
    page = np.zeros(1, FILE_HEADER)
    page["magic"], page["kind"] = FILE_MAGIC, header.kind.encode()
    page["layout_fingerprint"], page["rules_version"] = LAYOUT_FINGERPRINT, RULES_VERSION
    for name in ("shard", "first", "chain_crc", "epoch", "created_ns", "size"):
        page[name] = getattr(header, name)
    page["header_crc"] = crc32c(page.tobytes())
    return page.tobytes()


def header_read(raw: bytes, kind: str, shard: int, path: str = "") -> FileHeader:
    """Return what the page says, or raise FileRefused."""
    if len(raw) < FILE_HEADER_BYTES:
        raise FileRefused(path, f"only {len(raw)} bytes: no whole header")
    page = np.frombuffer(raw, FILE_HEADER, 1)[0]
    reason = _refusal(page, raw[:FILE_HEADER_BYTES], kind, shard)
    if reason:
        raise FileRefused(path, reason)
    return FileHeader(
        kind,
        shard,
        *(int(page[name]) for name in ("first", "chain_crc", "epoch", "created_ns", "size")),
    )


def _refusal(page: np.void, raw: bytes, kind: str, shard: int) -> str:
    # The magic first: before it nothing else means anything; then whether the page is whole.
    if int(page["magic"]) != FILE_MAGIC:
        return "this is no Ringbook file: its magic number is wrong"
    clean = np.frombuffer(raw, FILE_HEADER, 1).copy()
    clean["header_crc"] = 0
    if crc32c(clean.tobytes()) != int(page["header_crc"]):
        return "the header is damaged: its checksum is wrong"
    if int(page["layout_fingerprint"]) != LAYOUT_FINGERPRINT:
        return (
            "other record layouts (fingerprint): another version of the program wrote it;"
            " stop that version cleanly and start from its last snapshot"
        )
    if int(page["rules_version"]) != RULES_VERSION:
        return (
            f"written under rules version {int(page['rules_version'])}, this program has"
            f" {RULES_VERSION}: start the old version once, stop it cleanly, then start this one"
        )
    if page["kind"] != kind.encode():
        return f"kind is {page['kind'].decode('ascii', 'replace')!r}, expected {kind!r}"
    if int(page["shard"]) != shard:
        return f"belongs to shard {int(page['shard'])}, expected shard {shard}"
    return ""
