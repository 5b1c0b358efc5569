"""Reads market data: MoldUDP64 datagrams and ITCH 5.0 messages, from their public descriptions.

    datagram   session (10) · sequence (8, big endian) · count (2) · count x [length (2) · message]
    count      0: heartbeat, 0xFFFF: end of session; both name the next number to come
    session    YYMMDD · shard (one digit base 36) · epoch (three)

The result is, per session, every message by its number, and how many numbers are missing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.system.checker.capture import Datagram
from tests.system.checker.findings import Findings

MOLD = struct.Struct("!10sQH")
END_OF_SESSION = 0xFFFF
SESSION = re.compile(rb"\d{6}[0-9A-Z]{4}")
DAY_NS = 86_400 * 10**9

# Bytes of the types that are used; and where in them the fields stand (header: type, locate at 1,
# time at 5 in six bytes).
LENGTHS = {
    "S": 12, "R": 39, "H": 25, "A": 36, "F": 40, "E": 31, "C": 36, "X": 23, "D": 19, "U": 35,
    "P": 44, "Q": 40, "B": 19, "I": 50, "L": 26,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One ITCH message; fields a type does not have are zero or empty."""

    session: str
    sequence: int
    kind: str
    locate: int
    time: int  # ns since midnight UTC
    ref: int = 0
    new_ref: int = 0
    side: str = ""
    shares: int = 0
    stock: str = ""
    price: int = 0
    match: int = 0

    def __str__(self) -> str:
        return (
            f"feed {self.session} #{self.sequence} {self.kind} locate {self.locate} ref {self.ref}"
            f" new_ref {self.new_ref} shares {self.shares} price {self.price} match {self.match}"
            f" {self.stock} time {self.time}"
        )


@dataclass
class Session:
    """All that was captured of one feed session."""

    name: str
    raw: dict[int, bytes] = field(default_factory=dict)
    next: int = 1  # next number to come, as far as anything says
    ended: bool = False  # its sender said that it is over

    @property
    def shard(self) -> int:
        return int(self.name[6], 36)

    @property
    def missing(self) -> int:
        """Numbers of the session that were not captured."""
        return self.next - 1 - len(self.raw)

    @property
    def first_missing(self) -> int:
        """The lowest of them."""
        return next(n for n in range(1, self.next + 1) if n not in self.raw)

    def messages(self) -> Iterable[Message]:
        """In order of number."""
        for sequence in sorted(self.raw):
            yield decode(self.name, sequence, self.raw[sequence])


def read_feed(datagrams: Iterable[Datagram], findings: Findings) -> list[Session]:
    """Sessions by shard, date and epoch. A number with two contents keeps the first."""
    sessions: dict[str, Session] = {}
    for index, datagram in enumerate(datagrams):
        findings.counts["datagrams"] += 1
        problem = _take(sessions, datagram.data, index, findings)
        if problem:
            text = f"datagram {index} at {datagram.t}: {problem}"
            findings.violate("feed_malformed", text, datagram.data[:64].hex())
    ordered = sorted(sessions.values(), key=lambda s: (s.shard, s.name))
    findings.counts["feed messages"] += sum(len(session.raw) for session in ordered)
    findings.counts["feed numbers missing"] += sum(session.missing for session in ordered)
    return ordered


def _take(sessions: dict[str, Session], data: bytes, index: int, findings: Findings) -> str:
    if len(data) < MOLD.size:
        return f"only {len(data)} bytes"
    raw_name, sequence, count = MOLD.unpack_from(data)
    if not SESSION.fullmatch(raw_name) or sequence < 1:
        return f"session {raw_name!r}, number {sequence}"
    name = raw_name.decode()
    blocks = _blocks(data, 0 if count == END_OF_SESSION else count)
    if blocks is None:
        return "its messages do not fill it"
    session = sessions.setdefault(name, Session(name))
    for offset, message in enumerate(blocks):
        known = session.raw.setdefault(sequence + offset, message)
        if known != message:
            text = f"session {name}, number {sequence + offset}, datagram {index}"
            findings.violate("feed_two_contents", text, known.hex(), message.hex())
        if LENGTHS.get(message[:1].decode("latin-1")) != len(message):
            return f"message {sequence + offset} is {message[:1]!r} with {len(message)} bytes"
    session.next = max(session.next, sequence + len(blocks))
    session.ended = session.ended or count == END_OF_SESSION
    return ""


def _blocks(data: bytes, count: int) -> list[bytes] | None:
    blocks, at = [], MOLD.size
    for _ in range(count):
        if at + 2 > len(data):
            return None
        length = int.from_bytes(data[at : at + 2], "big")
        blocks.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return blocks if at == len(data) else None


def _number(raw: bytes, at: int, size: int) -> int:
    return int.from_bytes(raw[at : at + size], "big")


def decode(session: str, sequence: int, raw: bytes) -> Message:
    """One message from its bytes."""
    kind = raw[:1].decode("latin-1")
    head = (session, sequence, kind, _number(raw, 1, 2), _number(raw, 5, 6))
    if kind in "RH":
        return Message(*head, stock=_text(raw, 11))
    if kind in "AFP":
        return Message(
            *head, ref=_number(raw, 11, 8), side=raw[19:20].decode("latin-1"),
            shares=_number(raw, 20, 4), stock=_text(raw, 24), price=_number(raw, 32, 4),
            match=_number(raw, 36, 8) if kind == "P" else 0,
        )  # fmt: skip
    if kind in "EC":
        return Message(
            *head, ref=_number(raw, 11, 8), shares=_number(raw, 19, 4), match=_number(raw, 23, 8),
            price=_number(raw, 32, 4) if kind == "C" else 0,
        )  # fmt: skip
    if kind == "X":
        return Message(*head, ref=_number(raw, 11, 8), shares=_number(raw, 19, 4))
    if kind == "D":
        return Message(*head, ref=_number(raw, 11, 8))
    if kind == "U":
        return Message(
            *head, ref=_number(raw, 11, 8), new_ref=_number(raw, 19, 8),
            shares=_number(raw, 27, 4), price=_number(raw, 31, 4),
        )  # fmt: skip
    return Message(*head)


def _text(raw: bytes, at: int) -> str:
    return raw[at : at + 8].decode("ascii", "replace").rstrip()
