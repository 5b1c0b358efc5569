"""What stands in a kept file: header, then its content record by record. Cold; read-only.

Nothing is believed beyond what can be read: a bad header is shown with its reason, and its records
all the same, from where its name says that they begin.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cli.common import whole_time
from cli.inspect import Line, Options
from engine import book_state
from engine.book_state import HDR_WORDS
from engine.crc32c import crc32c
from engine.disk_read import ReadOnlyDisk
from engine.file_header import (
    FILE_HEADER,
    FILE_HEADER_BYTES,
    FILE_MAGIC,
    KINDS,
    FileRefused,
    header_read,
)
from engine.journal_reader import JournalDamage
from engine.kept_directory import open_kept
from engine.manifest import MANIFEST_NAME, Manifest, ManifestError
from engine.record_chain import crcs_wrong, empty_rows
from engine.records import COMMAND, EVENT, RULES_VERSION, SYMBOL_INDEX_BITS
from engine.replay import ReplayError
from engine.rerun import nearest
from engine.snapshot import META_WORDS, PAGE_BYTES
from engine.snapshot import PREFIX as SNAPSHOT_PREFIX
from engine.time_machine import Terms, terms_of
from engine.whole_file import whole_read

CHUNK_RECORDS = 4096
RECORDS_LOOKED_AT = 20_000  # of the journal, for the instruments, where there is no snapshot
LAYOUTS = {"journal": COMMAND, "events": EVENT}
SEQUENCE = {"journal": "in_seq", "events": "out_seq"}
PREFIXES = {"journal-": "journal", "events-": "events", "snapshot-": "snapshot"}
META_NAMES = (
    "in_seq out_seq chain_crc event_crc_1 event_crc_2 event_crc_3 durable epoch limits layout pages"
).split()


def file_lines(path: str, options: Options) -> Iterator[Line]:
    """Everything in a file that was asked for."""
    disk = ReadOnlyDisk()
    handle = disk.open(path)
    try:
        page = disk.pread(handle, FILE_HEADER_BYTES, 0)
        if page[:1] == b"{" or Path(path).name == MANIFEST_NAME:
            yield from _manifest_lines(disk, path)
            return
        header, reason = _header_values(page, path)
        kind = str(header["kind"])
        yield Line(f"{path}: {kind or 'unknown'} file", header)
        if reason:
            yield Line(f"DAMAGED: {reason}", reason=reason)
        if kind in LAYOUTS:
            yield from _record_lines(disk, handle, path, header, options)
        elif kind == "snapshot":
            yield from _snapshot_lines(disk, path, int(header["shard"]))
        elif kind == "index":
            yield from _index_lines(disk, path, int(header["shard"]))
    finally:
        disk.close(handle)


def _header_values(page: bytes, path: str) -> tuple[dict[str, Any], str]:
    # What the page says, whether good or not, and what is wrong with it.
    raw = np.frombuffer(page.ljust(FILE_HEADER_BYTES, b"\0"), FILE_HEADER, 1)[0]
    values: dict[str, Any] = {
        name: int(raw[name])
        for name in ("layout_fingerprint", "rules_version", "shard", "first", "chain_crc", "epoch")
    }
    values["created"] = whole_time(int(raw["created_ns"]))
    values["size"] = int(raw["size"])
    kind = raw["kind"].decode("ascii", "replace")
    name = Path(path).name
    if int(raw["magic"]) != FILE_MAGIC or kind not in KINDS:
        kind = next((k for prefix, k in PREFIXES.items() if name.startswith(prefix)), "")
        kind = "index" if name.endswith(".index") else kind
    reason = ""
    try:
        header_read(page, kind or "journal", values["shard"], path)
    except FileRefused as refused:
        reason = refused.reason
        values["first"] = _number(name) or values["first"]
    return {"kind": kind, **values}, reason


def _number(name: str) -> int:
    digits = name.partition("-")[2].partition(".")[0]
    return int(digits) if digits.isdigit() else 0


# ----------------------------------------------------------------------------------------- records
def _record_lines(
    disk: ReadOnlyDisk, handle: int, path: str, header: dict[str, Any], options: Options
) -> Iterator[Line]:
    kind, first = str(header["kind"]), int(header["first"])
    layout, number = LAYOUTS[kind], SEQUENCE[kind]
    room = max(disk.size(path) - FILE_HEADER_BYTES, 0) // layout.itemsize
    row = 0 if options.first is None else max(options.first - first, 0)
    if row >= room:
        yield Line(f"the file has room for {number} {first} .. {first + room - 1}")
        return
    left, epoch = options.most, 0
    while left > 0 and row < room:
        count = min(left, CHUNK_RECORDS, room - row)
        before = min(row, 1)
        offset = FILE_HEADER_BYTES + (row - before) * layout.itemsize
        raw = disk.pread(handle, (count + before) * layout.itemsize, offset)
        found = np.frombuffer(raw, layout, len(raw) // layout.itemsize)
        crc = int(found["crc"][0]) if before else int(header["chain_crc"])
        epoch = int(found["epoch"][0]) if before else epoch
        records = found[before:]
        wrong, empty = crcs_wrong(records, crc), empty_rows(records)
        for at in range(len(records)):
            if empty[at:].all() and _rest_is_empty(disk, handle, path, row + len(records)):
                yield Line(f"empty from {number} {first + row + at} on: {room - row - at} places")
                return
            record, place = records[at], first + row + at
            reason = _fault(record, number, place, bool(wrong[at]), bool(empty[at]), epoch)
            epoch = epoch if reason else int(record["epoch"])
            byte = FILE_HEADER_BYTES + (row + at) * layout.itemsize
            yield Line(record=record, reason=reason, offset=byte)
        row, left = row + len(records), left - len(records)


def _rest_is_empty(disk: ReadOnlyDisk, handle: int, path: str, row: int) -> bool:
    size, offset = disk.size(path), FILE_HEADER_BYTES + row * COMMAND.itemsize
    while offset < size:
        data = disk.pread(handle, 1 << 20, offset)
        if not data or any(data):
            return not data
        offset += len(data)
    return True


def _fault(record: np.void, number: str, place: int, wrong: bool, empty: bool, epoch: int) -> str:
    # Why a record is not the one that belongs here, in the order a reader finds out.
    if empty:
        return f"{number} {place} is missing: its place is empty"
    if int(record[number]) != place:
        older = number == "in_seq" and 0 < int(record[number]) < place and not wrong
        why = "an older one, the segment was recycled" if older else "another one is in its place"
        return f"{number} {place} is missing: {why}"
    if wrong:
        return f"{number} {place}: the checksum is wrong, of it or of the one before it"
    if number == "in_seq" and int(record["layout_version"]) != RULES_VERSION:
        return f"of rules version {int(record['layout_version'])}, this program has {RULES_VERSION}"
    if int(record["epoch"]) < epoch:
        return f"of epoch {int(record['epoch'])}, behind one of epoch {epoch}"
    return ""


# ------------------------------------------------------------------------------------- other kinds
def _manifest_lines(disk: ReadOnlyDisk, path: str) -> Iterator[Line]:
    try:
        manifest = Manifest.load(disk, str(Path(path).parent))
        assert manifest is not None
        values = dataclasses.asdict(manifest)
        values["created"] = whole_time(values.pop("created_ns"))
        yield Line(f"{path}: manifest", values)
    except ManifestError as damaged:
        text = Path(path).read_bytes()
        try:
            said = orjson.loads(text)
        except orjson.JSONDecodeError:
            said = {}
        yield Line(f"{path}: manifest", said if isinstance(said, dict) else {})
        yield Line(f"DAMAGED: {damaged}", reason=str(damaged))


def hdr_names() -> dict[int, str]:
    """The words of a state's header by number."""
    source = Path(book_state.__file__).read_text().partition("IN_SEQ = 0")[2]
    source = source.partition("HDR_WORDS")[0]
    found = {"IN_SEQ": 0}
    for line in source.splitlines():
        name, equals, rest = line.partition(" = ")
        value = getattr(book_state, name, None) if equals and name.isidentifier() else None
        if isinstance(value, int) and rest.split("#")[0].strip() == str(value):
            found[name] = value
    return {value: name.lower() for name, value in found.items()}


def _snapshot_lines(disk: ReadOnlyDisk, path: str, shard: int) -> Iterator[Line]:
    try:
        _, content = whole_read(disk, path, "snapshot", shard)
    except FileRefused as refused:
        yield Line(f"DAMAGED: byte {refused.offset}: {refused.reason}", reason=refused.reason)
        return
    words = content.view("<i8")
    meta, hdr = words[:META_WORDS], words[META_WORDS : META_WORDS + HDR_WORDS]
    yield Line("position", dict(zip(META_NAMES, meta.tolist(), strict=False)))
    names = hdr_names()
    yield Line("state", {names.get(i, f"word {i}"): int(v) for i, v in enumerate(hdr) if v})
    table: dict[str, Any] = {}
    at = META_WORDS + HDR_WORDS
    for name in _stored_names():
        size, pages = int(words[at]), int(words[at + 1])
        at += 2
        if pages:
            table[name] = f"{pages} of {-(-size // PAGE_BYTES)} pages"
    yield Line("arrays that differ from a fresh state", table)


def _stored_names() -> list[str]:
    from engine.book_state import small_limits, state_layout

    return [name for name, _, _ in state_layout(small_limits()) if name != "table"]


def _index_lines(disk: ReadOnlyDisk, path: str, shard: int) -> Iterator[Line]:
    try:
        _, content = whole_read(disk, path, "index", shard)
    except FileRefused as refused:
        yield Line(f"DAMAGED: byte {refused.offset}: {refused.reason}", reason=refused.reason)
        return
    words = content.view("<i8")
    accounts, rows = int(words[0]), int(words[1])
    table = words[2 : 2 + 4 * accounts].reshape(accounts, 4)
    yield Line("index", {"accounts": accounts, "rows": rows, "checksum": f"{crc32c(content):08x}"})
    yield Line("events by account", {f"account {row[0]}": int(row[2]) for row in table[:100]})


# ------------------------------------------------------------------------------------- instruments
def instruments_beside(path: str) -> dict[int, Terms]:
    """The instruments of the shard whose file this is: from its newest good snapshot, else from the
    beginning of its journal; none where neither can be read.
    """
    folder = Path(path).resolve().parent
    digits = folder.name.removeprefix("shard")
    if not (folder.name.startswith("shard") and digits.isdigit()):
        return {}
    try:
        kept = open_kept(str(folder.parent))
        shard = kept.shard_checked(int(digits))
        snapshots = any(p.name.startswith(SNAPSHOT_PREFIX) for p in folder.iterdir())
        rerun = nearest(kept, shard, copied=False)
        if not (snapshots and rerun.in_seq):
            for _ in rerun.follow(RECORDS_LOOKED_AT):
                continue
    except JournalDamage:
        pass  # what came before the damage is good
    except (ManifestError, FileRefused, ReplayError, OSError):
        return {}
    return {
        (shard << SYMBOL_INDEX_BITS) + index: terms
        for index, terms in enumerate(terms_of(rerun.state), 1)
    }
