"""A stand-in for the exchange that cuts connections: it proves the load clients and the checker.

One asyncio server, two shards, no matching: limit orders rest, market and FOK are refused, IOC
expires. It keeps ids, report numbers, resume and a journal as docs/protocol.md and the checker's
journal.py describe them. `cut` and `busy` are how often it drops a connection (in the middle of a
line, before or after the request was taken) or says BUSY. `fault` names what it does wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.checker import journal as j
from tests.system.checker.inputs import BY_SESSION, BY_SYMBOL, KINDS, POST_ONLY, TIFS
from tests.system.checker.logs import units
from tests.system.checker_story import RECORD_FIELDS, START_TS, journal_bytes
from tests.system.nemesis.settings import SYMBOLS

Row = dict[str, Any]
TICK = 10**7
LOTS = {name: 10 ** (9 - decimals) for name, decimals in SYMBOLS}
SHARDS = 2
FAULTS = ("runs twice", "forgets the journal", "loses a report", "sends a report twice")


class Cut(Exception):
    """The connection shall break now."""


@dataclass(eq=False)
class Session:
    """One logged-on connection."""

    account: str
    name: str
    logon: int
    writer: asyncio.StreamWriter


@dataclass
class Order:
    """An order that rests."""

    number: int
    own: int
    account: str
    session: str
    symbol: str
    side: str
    price: str
    qty: int  # units of 1e-9
    tif: str


@dataclass
class Shard:
    """What one shard keeps."""

    rows: list[Row] = field(default_factory=list)
    history: dict[str, list[Row]] = field(default_factory=dict)  # account -> reports
    last_ids: dict[tuple[str, str], int] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)


class FakeExchange:
    """The server."""

    def __init__(
        self, accounts: dict[str, int], seed: int, cut: float, busy: float, fault: str = ""
    ) -> None:
        assert fault in ("", *FAULTS)
        self.accounts, self.cut, self.busy, self.fault = accounts, cut, busy, fault
        self.random = random.Random(seed)
        self.shards = [Shard() for _ in range(SHARDS)]
        self.live: list[Session] = []
        self.in_ts, self.logons, self.orders_made, self.refs = START_TS, 0, 0, 0
        self.latches: dict[tuple[str, str], int] = {}
        self.did: Counter[str] = Counter()
        self.server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def stop(self, data: Path) -> None:
        """Stop listening, write the journal."""
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()
        for number, shard in enumerate(self.shards):
            folder = data / f"shard{number}"
            folder.mkdir(parents=True)
            raw = journal_bytes(shard.rows, shard=number)
            (folder / f"journal-{1:020d}").write_bytes(raw)

    # --------------------------------------------------------------------- connections
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session: Session | None = None
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if message.get("type") == "logon":
                    session = self._logon(message, writer)
                elif message.get("type") == "logout":
                    break
                elif message.get("type") == "instruments":
                    self._instruments(writer)
                elif session is not None and message.get("type") != "heartbeat":
                    self._request(session, message)
                await writer.drain()
        except (Cut, ConnectionError):
            self.did["cuts"] += 1
            writer.transport.abort()
        finally:
            if session in self.live:
                self.live.remove(session)
            writer.close()

    def _say(self, writer: asyncio.StreamWriter, message: Row) -> None:
        raw = json.dumps(message).encode() + b"\n"
        if self.random.random() < self.cut:
            writer.write(raw[: self.random.randrange(len(raw))])
            writer.close()  # a half-sent line, and this connection hears no more
        elif not writer.is_closing():
            writer.write(raw)

    def _logon(self, message: Row, writer: asyncio.StreamWriter) -> Session:
        self.logons += 1
        self.latches.pop((message["account"], message["session"]), None)
        session = Session(message["account"], message["session"], self.logons, writer)
        own = {"kind": j.SESSION_OPEN, "text": session.name}
        seq, missed = {}, []
        resume = dict(part.split(":") for part in message.get("resume", "").split(",") if part)
        for number, shard in enumerate(self.shards):
            self._take(number, session, own)
            opened = {"type": "account", "session": session.name, "reason": "session_opened"}
            self._tell(number, session.account, opened | {"logon": session.logon})
            history = shard.history[session.account]
            seq[str(number)] = len(history)
            missed += history[int(resume.get(str(number), len(history))) : -1]
        answer = {"type": "logon", "account": session.account, "session": session.name}
        last = max(s.last_ids.get((session.account, session.name), 0) for s in self.shards)
        answer |= {"shards": SHARDS, "last_id": last, "incarnation": 1, "seq": seq}
        self._say(writer, answer)
        for report in missed:
            if self.fault != "loses a report" or report["type"] != "accepted":
                self._say(writer, report)
        self.live.append(session)
        return session

    def _instruments(self, writer: asyncio.StreamWriter) -> None:
        rows = [
            {"symbol": name, "tick": "0.01", "lot": f"{lot / 10**9:.5f}", "max_price": "1000000"}
            for name, lot in LOTS.items()
        ]
        self._say(writer, {"type": "instruments", "instruments": rows})

    # --------------------------------------------------------------------- journal and reports
    def _take(self, shard: int, session: Session, fields: Row) -> None:
        self.in_ts += 1000
        rows = self.shards[shard].rows
        row = dict.fromkeys(RECORD_FIELDS, 0) | {"symbol": "", "text": ""} | fields
        number = len(rows) + 1
        rows.append(
            row | {
                "account": self.accounts[session.account], "logon": session.logon, "producer": 2,
                "producer_seq": number, "in_seq": number, "in_ts": self.in_ts,
                "layout_version": 1, "epoch": 1, "durable_lag": 1,
            }
        )  # fmt: skip

    def _tell(self, shard: int, account: str, message: Row) -> None:
        history = self.shards[shard].history.setdefault(account, [])
        history.append(message | {"seq": len(history) + 1, "shard": shard, "ts": self.in_ts})
        for session in self.live:
            if session.account == account:
                self._say(session.writer, history[-1])
                if self.fault == "sends a report twice" and message["type"] == "booked":
                    self._say(session.writer, history[-1])

    def _about(self, shard: int, order: Order, kind: str, **more: Any) -> None:
        amounts = {"qty": order.qty, "leaves": order.qty, "filled": 0} | more
        for key in ("qty", "leaves", "filled"):
            amounts[key] = f"{amounts[key] / 10**9:.9f}"
        message = {"type": kind, "session": order.session, "symbol": order.symbol, "id": order.own}
        message |= {"order_id": order.number, "side": order.side, "price": order.price}
        message["tif"] = order.tif
        self._tell(shard, order.account, message | amounts)

    # --------------------------------------------------------------------- requests
    def _request(self, session: Session, message: Row) -> None:
        self.did["requests"] += 1
        if self.random.random() < self.cut:
            raise Cut  # the request is lost
        own, key = message.get("id", 0), (session.account, session.name)
        latch = self.latches.get(key, 0)
        if own and (own > latch > 0 or (own != latch and self.random.random() < self.busy)):
            self.latches[key] = latch or own
            self.did["busy"] += 1
            self._say(session.writer, {"type": "rejected", "seq": 0, "id": own, "code": 901})
            return
        if own == latch:
            self.latches.pop(key, None)
        symbol = message.get("symbol")
        where = range(SHARDS) if symbol is None else [zlib.crc32(symbol.encode()) % SHARDS]
        last = max(shard.last_ids.get(key, 0) for shard in self.shards)
        for number in where:
            known = self.shards[number].last_ids.get(key, 0)
            if known < own <= last and len(where) == 1:
                refused = {"type": "rejected", "seq": 0, "id": own, "code": 203}
                self._say(session.writer, refused)
            else:
                self._run(number, session, message, own)
        if self.random.random() < self.cut:
            raise Cut  # it was taken, its answer may be lost

    def _run(self, number: int, session: Session, message: Row, own: int) -> None:
        shard, key = self.shards[number], (session.account, session.name)
        kind = KINDS[message.get("type", "new")]
        if self.fault != "forgets the journal" or kind != j.NEW or own % 50:
            self._take(number, session, self._record(message, kind, own))
        mine = {o.own: o for o in shard.orders.values() if (o.account, o.session) == key}
        target = mine.get(message.get("target_id", 0))
        if own and own <= shard.last_ids.get(key, 0) and self.fault != "runs twice":
            self.did["repetitions"] += 1
            if own in mine:
                self._about(number, mine[own], "status", state="new")
            else:
                self._refuse(number, session, own, 203)
            return
        shard.last_ids[key] = max(own, shard.last_ids.get(key, 0))
        if kind == j.NEW:
            self._new(number, session, message, own)
        elif kind == j.MASS_CANCEL:
            for order in [o for o in mine.values() if message.get("symbol", o.symbol) == o.symbol]:
                self._cancel(number, order, "mass")
            ended = {"type": "summary", "session": session.name, "reason": "mass"}
            self._tell(number, session.account, ended)
        elif target is None:
            self._refuse(number, session, own or message.get("target_id", 0), 501)
        elif kind == j.CANCEL:
            self._cancel(number, target, "client")
        elif kind == j.REPLACE:
            target.qty = units(message.get("qty", target.qty / 10**9))
            target.price = message.get("price", target.price)
            self._about(number, target, "replaced")
        else:
            self._about(number, target, "status", state="new")

    @staticmethod
    def _record(message: Row, kind: int, own: int) -> Row:
        symbol = message.get("symbol", "")
        row: Row = {"kind": kind, "client_order_id": own, "symbol": symbol}
        row["target"] = message.get("target_id", 0)
        row["px"] = units(message.get("price", 0)) // TICK
        row["qty"] = units(message.get("qty", 0)) // LOTS.get(symbol, 1)
        if kind == j.NEW:
            row["side"] = int(message["side"] == "sell")
            row["order_type"] = 1 if "price" in message else 2
            row["tif"] = TIFS[message.get("tif", "gtc")]
            row["flags"] = POST_ONLY if message.get("post_only") else 0
        elif kind == j.MASS_CANCEL:
            row["flags"] = BY_SESSION | (BY_SYMBOL if symbol else 0)
        return row

    def _new(self, number: int, session: Session, message: Row, own: int) -> None:
        if "price" not in message or message.get("tif") == "fok":
            self._refuse(number, session, own, 503)
            return
        self.orders_made += 1
        order = Order(
            self.orders_made, own, session.account, session.name, message["symbol"],
            message["side"], message["price"], units(message["qty"]), message.get("tif", "gtc"),
        )  # fmt: skip
        self._about(number, order, "accepted")
        if message.get("tif") == "ioc":
            self._about(number, order, "expired", leaves=0)
            return
        self.refs += 1
        self.shards[number].orders[order.number] = order
        self._about(number, order, "booked", ref=self.refs)

    def _cancel(self, number: int, order: Order, reason: str) -> None:
        del self.shards[number].orders[order.number]
        self._about(number, order, "canceled", leaves=0, reason=reason)

    def _refuse(self, number: int, session: Session, own: int, code: int) -> None:
        refused = {"type": "rejected", "session": session.name, "id": own, "code": code}
        self._tell(number, session.account, refused)
