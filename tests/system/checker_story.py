"""A tiny made-up run, told by all three witnesses, for the tests of the checker.

Two accounts trade one symbol on one shard; one client loses its connection, sends a request again
and resumes. `good_story` is such a run without a fault; a test changes something and writes it.
Layouts are those of the checker itself: that they are the exchange's is another test.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.system.checker import capture, feed
from tests.system.checker import journal as j
from tests.system.checker.expect import Expect

START_TS = 1_800_000_000 * 10**9
SYMBOL, TICK, LOT = "AAPL", 10**7, 10**9
ACCOUNTS = {"alice": 2, "bob": 3}
SESSION_NAME = b"2701150001"
EPOCH = 7
RECORD_FIELDS = (
    "producer_seq receipt_ts client_order_id order_id session logon account symbol_id px qty kind"
    " producer side order_type tif stp flags target symbol px2 qty2 peak min_qty amount expire_ts"
    " in_seq tag decision_code layout_version in_ts decision_amount crc epoch durable_lag text"
).split()
Row = dict[str, Any]


class Wire:
    """One connection: its log."""

    def __init__(self, name: str, account: str, session: str) -> None:
        self.name, self.account, self.session = name, account, session
        self.entries: list[Row] = []

    def find(self, direction: str, **wanted: Any) -> Row:
        """The first entry whose message has these values."""
        return next(self.all(direction, **wanted))

    def all(self, direction: str, **wanted: Any) -> Iterator[Row]:
        """Every entry whose message has these values."""
        for entry in self.entries:
            if entry["dir"] == direction:
                message = json.loads(entry["data"])
                if all(message.get(key) == value for key, value in wanted.items()):
                    yield entry


def change(entry: Row, **values: Any) -> None:
    """Change fields of a logged message; None removes one."""
    message = json.loads(entry["data"]) | values
    kept = {key: value for key, value in message.items() if value is not None}
    entry["data"] = json.dumps(kept)


class Story:
    """Clients, journal and feed of one shard."""

    def __init__(self) -> None:
        self.t, self.in_ts = 10**9, START_TS
        self.wires: list[Wire] = []
        self.live: list[Wire] = []
        self.records: list[Row] = []
        self.messages: list[bytes] = []
        self.numbers: Counter[str] = Counter()
        self.producers: Counter[int] = Counter()
        self.history: dict[str, list[Row]] = {name: [] for name in ACCOUNTS}
        self.logons = 0
        self.logon_of: dict[Wire, int] = {}
        self.expect = Expect(accounts=dict(ACCOUNTS))
        self.drops = 0
        self.patch_journal: Callable[[bytearray], object] = len
        self.patch_datagrams: Callable[[list[bytes]], object] = len

    # --------------------------------------------------------------------- one step
    def log(self, wire: Wire, direction: str, data: Row | str) -> None:
        """One entry in a client's log."""
        self.t += 1000
        text = data if isinstance(data, str) else json.dumps(data)
        wire.entries.append({"t": self.t, "dir": direction, "data": text})

    def take(self, kind: int, producer: int = 2, **fields: Any) -> None:
        """The shard takes an input."""
        self.in_ts += 5000
        self.producers[producer] += 1
        row = dict.fromkeys(RECORD_FIELDS, 0) | {"symbol": "", "text": ""} | fields
        row |= {
            "kind": kind, "producer": producer, "producer_seq": self.producers[producer],
            "in_seq": len(self.records) + 1, "in_ts": self.in_ts, "layout_version": 1,
            "epoch": EPOCH, "durable_lag": 1,
        }  # fmt: skip
        self.records.append(row)

    def ask(self, wire: Wire, kind: int, taken: Row | None = None, **message: Any) -> None:
        """A client asks, the shard takes it."""
        self.log(wire, "out", message)
        fields = {
            "client_order_id": message.get("id", 0), "account": ACCOUNTS[wire.account],
            "logon": self.logon_of[wire], "session": 1, "symbol": message.get("symbol", ""),
            "qty": message.get("qty", 0), "target": message.get("target_id", 0),
            "px": round(float(message.get("price", 0)) * 100),
            "side": int(message.get("side") == "sell"),
        }  # fmt: skip
        if kind == j.NEW:
            fields["order_type"] = 1 if "price" in message else 2
        self.take(kind, **fields | (taken or {}))

    def tell(self, account: str, kind: str, **fields: Any) -> None:
        """A report to all connections of an account."""
        self.numbers[account] += 1
        message = {"type": kind, "seq": self.numbers[account], "shard": 0, "session": "main"}
        message |= fields | {"ts": self.in_ts}
        self.history[account].append(message)
        for wire in self.live:
            if wire.account == account:
                self.log(wire, "in", message)

    def order(self, account: str, kind: str, number: int, own: int, side: str, **more: Any) -> None:
        """A report about an order."""
        fields = {"symbol": SYMBOL, "order_id": number, "id": own, "side": side} | more
        for key in ("qty", "leaves", "filled"):
            fields[key] = str(fields[key])
        self.tell(account, kind, **fields)

    def logon(self, account: str, session: str = "main", resume: int | None = None) -> Wire:
        """A client connects; with `resume` it hears what it missed."""
        wire = Wire(f"{account}-{session}-{len(self.wires)}.jsonl", account, session)
        self.wires.append(wire)
        self.log(wire, "open", "127.0.0.1:9100")
        message: Row = {"type": "logon", "account": account, "token": account, "session": session}
        self.log(wire, "out", message | ({} if resume is None else {"resume": f"0:{resume}"}))
        self.logons += 1
        self.logon_of[wire] = self.logons
        own = {"account": ACCOUNTS[account], "logon": self.logons, "text": session}
        self.take(j.SESSION_OPEN, **own)
        opened = {"session": session, "logon": self.logons, "reason": "session_opened"}
        self.tell(account, "account", **opened)
        number = self.numbers[account]
        answer = {"type": "logon", "account": account, "session": session, "incarnation": 1}
        self.log(wire, "in", answer | {"shards": 1, "last_id": 0, "seq": {"0": number}})
        for report in self.history[account] if resume is not None else []:
            if resume is not None and resume < report["seq"] < number:
                self.log(wire, "in", report)
        self.live.append(wire)
        return wire

    def leave(self, wire: Wire, how: str) -> None:
        """A connection ends: "lost" or "closed"."""
        self.log(wire, how, "")
        self.live.remove(wire)

    def public(self, kind: str, body: bytes) -> None:
        """A message of the feed, about the one symbol."""
        time = (self.in_ts % feed.DAY_NS).to_bytes(6, "big")
        self.messages.append(kind.encode() + struct.pack(">HH", 1, 0) + time + body)

    def shown(self, ref: int, side: str, qty: int, ticks: int) -> None:
        """An order appears on the feed."""
        body = struct.pack(
            ">QcI8sI", ref, side.encode(), qty, SYMBOL.encode().ljust(8), ticks * 100
        )
        self.public("A", body)

    # --------------------------------------------------------------------- files
    def write(self, folder: Path) -> Path:
        """Write the witnesses as the checker reads them."""
        (folder / "clients").mkdir(parents=True)
        for wire in self.wires:
            text = "".join(json.dumps(entry) + "\n" for entry in wire.entries)
            (folder / "clients" / wire.name).write_text(text)
        self.expect.write(folder / "expect.json")
        (folder / "data" / "shard0").mkdir(parents=True)
        data = bytearray(journal_bytes(self.records))
        self.patch_journal(data)
        (folder / "data" / "shard0" / f"journal-{1:020d}").write_bytes(data)
        datagrams = datagrams_of(SESSION_NAME, self.messages)
        self.patch_datagrams(datagrams)
        packed = (capture.pack(n, data) for n, data in enumerate(datagrams))
        (folder / "capture.bin").write_bytes(b"".join(packed))
        capture.drops_path(folder / "capture.bin").write_text(str(self.drops))
        return folder


def record_bytes(row: Row, before: int) -> bytes:
    """A journal record with its crc."""
    values = {k: v.encode() if isinstance(v, str) else v for k, v in row.items()}
    raw = bytearray(j.RECORD.pack(*(values[name] for name in RECORD_FIELDS)))
    struct.pack_into("<I", raw, j.CRC_AT, j.record_crc(bytes(raw), before))
    return bytes(raw)


def journal_bytes(
    rows: list[Row], first: int = 1, chain: int = j.CRC_START, spare: int = 4, shard: int = 0
) -> bytes:
    """A segment file with room for `spare` more records."""
    size = j.HEADER_BYTES + (len(rows) + spare) * j.RECORD_BYTES
    head = [j.MAGIC, b"journal", 1, 1, shard, first, chain, EPOCH, START_TS, size, 0]
    raw = bytearray(j.HEADER.pack(*head).ljust(j.HEADER_BYTES, b"\0"))
    struct.pack_into("<q", raw, j.HEADER_CRC_AT, j.crc32c(bytes(raw)))
    for row in rows:
        raw += record_bytes(row, chain)
        chain = int.from_bytes(raw[j.CRC_AT - j.RECORD_BYTES :][:4], "little")
    return bytes(raw).ljust(size, b"\0")


def datagrams_of(session: bytes, messages: list[bytes], per: int = 3) -> list[bytes]:
    """Messages as datagrams, then the end of the session."""
    found = []
    for at in range(0, len(messages), per):
        some = messages[at : at + per]
        blocks = b"".join(struct.pack("!H", len(m)) + m for m in some)
        found.append(feed.MOLD.pack(session, at + 1, len(some)) + blocks)
    return [*found, feed.MOLD.pack(session, len(messages) + 1, feed.END_OF_SESSION)]


def good_story() -> Story:
    """A run without a fault. Order numbers: alice sells 100 and 102, bob buys 101 and 103."""
    story = Story()
    listed = {"symbol": SYMBOL, "amount": TICK, "expire_ts": LOT, "px2": 42_949_672}
    story.take(j.LIST_INSTRUMENT, producer=1, **listed)
    story.public("R", SYMBOL.encode().ljust(8) + bytes(20))
    alice, bob = story.logon("alice"), story.logon("bob")
    watch = story.logon("alice", "watch")
    story.ask(alice, j.NEW, symbol=SYMBOL, side="sell", qty=10, price="100.00", id=1)
    story.order("alice", "accepted", 100, 1, "sell", qty=10, leaves=10, filled=0, price="100.00")
    booked = {"leaves": 10, "filled": 0, "price": "100.00", "ref": 1, "last": True}
    story.order("alice", "booked", 100, 1, "sell", qty=10, **booked)
    story.shown(1, "S", 10, 10_000)
    _trade(story, bob, 101, 1, 4, 4, 6, 1)
    # alice replaces, then her connection breaks; she misses a trade.
    story.ask(
        alice, j.REPLACE, {"tif": 255}, type="replace", symbol=SYMBOL, target_id=1, qty=9, id=2
    )
    replaced = {"price": "100.00", "ref": 1, "kept": True, "leaves": 5, "filled": 4}
    story.order("alice", "replaced", 100, 1, "sell", qty=9, **replaced)
    story.public("X", struct.pack(">QI", 1, 1))
    last = story.numbers["alice"]
    story.log(
        alice, "out", {"symbol": SYMBOL, "side": "sell", "qty": 3, "price": "101.00", "id": 3}
    )
    story.leave(alice, "lost")
    _trade(story, bob, 103, 2, 2, 6, 3, 2)
    # Back again: what was missed, and the request of which nobody knows what became of it.
    alice = story.logon("alice", resume=last)
    story.ask(alice, j.NEW, symbol=SYMBOL, side="sell", qty=3, price="101.00", id=3)
    story.order("alice", "accepted", 102, 3, "sell", qty=3, leaves=3, filled=0, price="101.00")
    booked = {"leaves": 3, "filled": 0, "price": "101.00", "ref": 2}
    story.order("alice", "booked", 102, 3, "sell", qty=3, **booked)
    story.shown(2, "S", 3, 10_100)
    story.ask(alice, j.NEW, symbol=SYMBOL, side="sell", qty=3, price="101.00", id=3)
    state = {"leaves": 3, "filled": 0, "state": "new", "ref": 2, "price": "101.00", "last": True}
    story.order("alice", "status", 102, 3, "sell", qty=3, **state)
    story.ask(bob, j.CANCEL, type="cancel", symbol=SYMBOL, target_id=77, id=3)
    story.tell("bob", "rejected", symbol=SYMBOL, id=3, code=501, reason="unknown_order", last=True)
    story.ask(
        alice, j.MASS_CANCEL, {"flags": j_by_symbol()}, type="mass_cancel", symbol=SYMBOL, id=4
    )
    gone = {"leaves": 0, "reason": "mass"}
    story.order("alice", "canceled", 100, 1, "sell", qty=3, filled=6, price="100.00", ref=1, **gone)
    story.public("D", struct.pack(">Q", 1))
    story.order("alice", "canceled", 102, 3, "sell", qty=3, filled=0, price="101.00", ref=2, **gone)
    story.public("D", struct.pack(">Q", 2))
    story.tell("alice", "summary", count=2, last=True)
    for wire in (alice, bob, watch):
        story.leave(wire, "closed")
    return story


def j_by_symbol() -> int:
    """The flag of a mass cancel that names a symbol."""
    return 1024


def _trade(
    story: Story, bob: Wire, number: int, own: int, qty: int, filled: int, left: int, match: int
) -> None:
    # bob buys from alice's order 100 at 100.00; `filled` and `left` are hers afterwards.
    story.ask(bob, j.NEW, symbol=SYMBOL, side="buy", qty=qty, price="100.00", id=own)
    terms = {"price": "100.00", "trade_id": match}
    price = "100.00"
    story.order("bob", "accepted", number, own, "buy", qty=qty, leaves=qty, filled=0, price=price)
    maker = {"role": "maker", "ref": 1, "leaves": left, "filled": filled}
    story.order("alice", "fill", 100, 1, "sell", qty=qty, **terms, **maker)
    taker = {"role": "taker", "leaves": 0, "filled": qty, "last": True}
    story.order("bob", "fill", number, own, "buy", qty=qty, **terms, **taker)
    story.public("E", struct.pack(">QIQ", 1, qty, match))
