"""The journal files of a data directory, read by the description of the format alone.

    shard<N>/journal-<first in_seq, 20 digits>     4096 bytes of header, then records of 192 bytes

Header, little endian words of 8 bytes:
    magic "RBfile01" · kind "journal" · layout fingerprint · rules version · shard · first in_seq ·
    crc the first record starts from · epoch · created ns · size of the file · header crc · zeros

Record: the offsets below. Its crc is CRC32C (Castagnoli, no inversion at the end) of its 192 bytes
with the crc field zero, started from the stored crc of the record before (the first of a shard:
0xFFFFFFFF). A record that does not verify is a torn tail if no valid record says that one at or
behind it was on disk already (in_seq - durable_lag); else the file is damaged.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.checker.findings import Findings

HEADER_BYTES, RECORD_BYTES = 4096, 192
MAGIC = b"RBfile01"
CRC_START = 0xFFFFFFFF
HEADER = struct.Struct("<8s8sqqqqqqqqq")
HEADER_CRC_AT = 80
NAME = re.compile(r"journal-(\d{20})")
SHARD_NAME = re.compile(r"shard(\d+)")

# Everything of a record this program looks at: 16 words of numbers and enums, then the rest.
# producer_seq 0 · receipt_ts 8 · client_order_id 16 · order_id 24 · session 32 · logon 36 ·
# account 40 · symbol_id 44 · px 48 · qty 52 · kind 56 · producer 57 · side 58 · order_type 59 ·
# tif 60 · stp 61 · flags 62 · target_client_order_id 64 · symbol 72 · px2 80 · qty2 84 · peak 88 ·
# min_qty 92 · amount 96 · expire_ts 104 · in_seq 112 · tag 120 · decision_code 124 ·
# layout_version 126 · in_ts 128 · decision_amount 136 · crc 144 · epoch 148 · durable_lag 152 ·
# text 156 .. 191
RECORD = struct.Struct("<qqqqiIiiiiBBBBBBHq8siiiiqqqIHHqqIII36s")
CRC_AT = 144
assert RECORD.size == RECORD_BYTES

TIME, CONTINUE = 16, 17
NEW, CANCEL, REPLACE, MASS_CANCEL, QUERY_ORDER, QUERY_OPEN = 1, 2, 3, 4, 6, 7
SESSION_OPEN, SESSION_CLOSE, SESSION_KEEP = 8, 9, 10
LIST_INSTRUMENT = 33


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One input of a shard."""

    place: str  # file@offset
    shard: int
    producer_seq: int
    client_order_id: int
    order_id: int
    logon: int
    account: int
    px: int
    qty: int
    kind: int
    producer: int
    side: int
    order_type: int
    tif: int
    flags: int
    target: int
    symbol: str
    px2: int
    amount: int
    expire_ts: int
    in_seq: int
    tag: int
    layout_version: int
    in_ts: int
    crc: int
    epoch: int
    durable_lag: int
    text: str

    def __str__(self) -> str:
        return (
            f"{self.place} shard {self.shard} in_seq {self.in_seq} kind {self.kind} account"
            f" {self.account} id {self.client_order_id} target {self.target or self.order_id}"
            f" {self.symbol} px {self.px} qty {self.qty} producer {self.producer}"
            f" #{self.producer_seq} epoch {self.epoch} in_ts {self.in_ts}"
        )


@dataclass
class ShardJournal:
    """All verified records of one shard."""

    shard: int
    first: int = 1  # in_seq of the first record kept
    records: list[Record] = field(default_factory=list)
    crc: int = CRC_START  # stored crc of the last record
    mark: int = 0  # highest in_seq known to have been durable


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes, crc: int = CRC_START) -> int:
    """CRC32C without the final inversion, so that it can be chained."""
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc


def record_crc(raw: bytes, before: int) -> int:
    """What the crc field of a record must be."""
    return crc32c(raw[CRC_AT + 4 :], crc32c(raw[:CRC_AT] + bytes(4), before))


def decode(raw: bytes, place: str, shard: int) -> Record:
    """One record from its bytes."""
    (
        producer_seq, _, client_order_id, order_id, _, logon, account, _, px, qty, kind, producer,
        side, order_type, tif, _, flags, target, symbol, px2, _, _, _, amount, expire_ts, in_seq,
        tag, _, layout_version, in_ts, _, crc, epoch, durable_lag, text,
    ) = RECORD.unpack(raw)  # fmt: skip
    return Record(
        place, shard, producer_seq, client_order_id, order_id, logon, account, px, qty, kind,
        producer, side, order_type, tif, flags, target, _ascii(symbol), px2, amount, expire_ts,
        in_seq, tag, layout_version, in_ts, crc, epoch, durable_lag, _ascii(text),
    )  # fmt: skip


def _ascii(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "backslashreplace")


def read_journal(directory: Path, findings: Findings) -> dict[int, ShardJournal]:
    """Read and verify the journals of all shards of an instance that has stopped."""
    journals = {}
    for folder in sorted(directory.iterdir()):
        found = SHARD_NAME.fullmatch(folder.name)
        if found and folder.is_dir():
            journals[int(found[1])] = _read_shard(folder, int(found[1]), findings)
    findings.counts["journal records"] += sum(len(j.records) for j in journals.values())
    if not journals:
        findings.violate("journal_file", f"no shard folder in {directory.name}")
    return journals


def _read_shard(folder: Path, shard: int, findings: Findings) -> ShardJournal:
    journal = ShardJournal(shard)
    paths = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    if not paths:
        findings.violate("journal_file", f"shard {shard} has no journal file")
        return journal
    for index, path in enumerate(paths):
        data = path.read_bytes()
        place = f"{folder.name}/{path.name}"
        if not _check_header(journal, data, place, index == 0, findings):
            break
        if not _read_segment(journal, data, place, findings):
            _check_ahead(journal, place, paths[index + 1 :], findings)
            break
    _check_records(journal, findings)
    return journal


def _check_ahead(journal: ShardJournal, place: str, later: list[Path], findings: Findings) -> None:
    # Files behind one that is not full were made ahead: no record is in its place there.
    for path in later:
        data = path.read_bytes()
        record = data[HEADER_BYTES : HEADER_BYTES + RECORD_BYTES].ljust(RECORD_BYTES, b"\0")
        found = NAME.fullmatch(path.name)
        if found and decode(record, "", journal.shard).in_seq == int(found[1]):
            text = f"{place} ends at in_seq {_last(journal)}, but {path.name} has records"
            findings.violate("journal_gap", text)


def _last(journal: ShardJournal) -> int:
    return journal.first + len(journal.records) - 1


def _check_header(
    journal: ShardJournal, data: bytes, place: str, first_file: bool, findings: Findings
) -> bool:
    # Whether there is one.
    if len(data) < HEADER_BYTES:
        findings.violate("journal_file", f"{place} has only {len(data)} bytes")
        return False
    # The header's epoch is its maker's and says nothing about the records: not looked at.
    magic, kind, _, rules, shard, first, chain, _, _, size, crc = HEADER.unpack(data[: HEADER.size])
    if first_file:
        journal.first = first
        if first != 1:
            findings.note(f"shard {shard}: the journal begins at in_seq {first}")
            journal.crc = chain
    whole = data[:HEADER_CRC_AT] + bytes(8) + data[HEADER_CRC_AT + 8 : HEADER_BYTES]
    wanted = {
        "magic": (magic, MAGIC),
        "kind": (kind.rstrip(b"\0"), b"journal"),
        "shard": (shard, journal.shard),
        "first in_seq": (first, _last(journal) + 1),
        "name": (place.rpartition("-")[2], f"{first:020d}"),
        "chain crc": (chain, journal.crc),
        "size": (size, len(data)),
        "header crc": (crc, crc32c(whole)),
        "rest": (data[HEADER.size : HEADER_BYTES].strip(b"\0"), b""),
    }
    if journal.records:
        wanted["rules version"] = (rules, journal.records[-1].layout_version)
    wrong = [
        f"{what} is {told!r}, not {due!r}" for what, (told, due) in wanted.items() if told != due
    ]
    for text in wrong:
        findings.violate("journal_file", f"header of {place}: {text}")
    return True  # what the records are worth, their chain tells


def _read_segment(journal: ShardJournal, data: bytes, place: str, findings: Findings) -> bool:
    # Take verified records; whether the file was full of them.
    at = HEADER_BYTES
    while at + RECORD_BYTES <= len(data):
        raw = data[at : at + RECORD_BYTES]
        record = decode(raw, f"{place}@{at}", journal.shard)
        if record.crc != record_crc(raw, journal.crc) or record.in_seq != _last(journal) + 1:
            _judge_tail(journal, data, at, place, findings)
            return False
        journal.records.append(record)
        journal.crc = record.crc
        journal.mark = max(journal.mark, record.in_seq - record.durable_lag)
        at += RECORD_BYTES
    return True


def _judge_tail(
    journal: ShardJournal, data: bytes, at: int, place: str, findings: Findings
) -> None:
    # A record that is not the next one. Behind it only what was never durable may lie: any later
    # record that verifies against its neighbour carries a mark.
    bad = _last(journal) + 1
    before = decode(data[at : at + RECORD_BYTES], "", journal.shard)
    mark = journal.mark
    for later in range(at + RECORD_BYTES, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        raw = data[later : later + RECORD_BYTES]
        if not any(raw):
            break
        record = decode(raw, f"{place}@{later}", journal.shard)
        in_place = record.in_seq == bad + (later - at) // RECORD_BYTES
        if in_place and record.crc == record_crc(raw, before.crc):
            mark = max(mark, record.in_seq - record.durable_lag)
        before = record
    if bad <= mark:
        text = f"record {bad} at {place}@{at} does not verify; {mark} was durable"
        findings.violate("journal_damage", text)
    rest = data[at:]
    if any(rest):
        count = len(rest.rstrip(b"\0"))
        findings.note(f"{place}: {count} bytes behind the last good record ({bad - 1})")
        findings.counts["torn bytes"] += count


def _check_records(journal: ShardJournal, findings: Findings) -> None:
    producers: dict[int, Record] = {}
    before: Record | None = None
    for record in journal.records:
        if before is not None:
            if record.epoch < before.epoch:
                text = f"epoch falls from {before.epoch} to {record.epoch}"
                findings.violate("journal_epoch", text, before, record)
            if record.in_ts < before.in_ts:
                text = f"time falls by {before.in_ts - record.in_ts} ns"
                findings.violate("journal_epoch", text, before, record)
        before = record
        if record.producer:
            _check_producer(producers.get(record.producer), record, journal, findings)
            producers[record.producer] = record


def _check_producer(
    last: Record | None, record: Record, journal: ShardJournal, findings: Findings
) -> None:
    # Within a run (one epoch) gapless. A new run goes on behind what was journaled: higher.
    if last is None:
        good = record.producer_seq == 1 or (journal.first > 1 and record.producer_seq > 0)
    elif last.epoch == record.epoch:
        good = record.producer_seq == last.producer_seq + 1
    else:
        good = record.producer_seq > last.producer_seq
    if not good:
        told = f"{record.producer_seq} after {last.producer_seq if last else 'nothing'}"
        text = f"producer {record.producer} of shard {record.shard}: number {told}"
        findings.violate("journal_producer", text, *([last] if last else []), record)
