"""Client logs: what every connection said and heard, in the order in which it happened.

One file per connection, JSON lines:

    {"t": CLOCK_MONOTONIC ns, "dir": "out" | "in" | "open" | "lost" | "closed", "data": text}

`out` and `in` hold one protocol line without its end. `out` is written before the bytes leave: what
the exchange got is in the log. `in` holds complete lines only; half a line at the end of a broken
connection was not received. `lost`: the connection broke; `closed`: the client ended it by logout.
Who the connection is (account, session) is read from its logon line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tests.system.checker.findings import Findings

UNITS = 10**9
DIRECTIONS = ("out", "in", "open", "lost", "closed")
Message = dict[str, Any]
ClientId = int | str
Owner = tuple[str, str]  # account, session

# docs/protocol.md, table of keys: the other names of the keys compared with the journal.
OTHER_NAMES = {
    "ticker": "symbol", "market": "symbol", "action": "side", "kind": "side", "shares": "qty",
    "quantity": "qty", "px": "price", "time_in_force": "tif", "client_order_id": "id",
    "client_id": "id", "orig_id": "target_id",
}  # fmt: skip
COMMANDS = {
    "new": 1, "limit": 1, "market": 1, "cancel": 2, "replace": 3, "mass_cancel": 4, "order": 6,
    "open_orders": 7,
}  # fmt: skip

# What a report must say to be judged; kinds that are not listed only need their number.
OF_ORDER = {"order_id": int, "side": str, "qty": str, "leaves": str, "filled": str, "symbol": str}
NEEDS: dict[str, dict[str, type]] = {
    "accepted": OF_ORDER,
    "rejected": {"code": int},
    "replaced": OF_ORDER,
    "canceled": OF_ORDER,
    "expired": OF_ORDER,
    "booked": OF_ORDER | {"ref": int, "price": str},
    "fill": OF_ORDER | {"price": str, "trade_id": int, "role": str},
    "status": OF_ORDER | {"state": str},
}


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of a log."""

    place: str  # file:line
    t: int
    direction: str
    message: Message

    def __str__(self) -> str:
        return f"{self.place} {self.direction} t={self.t} {json.dumps(self.message)}"


@dataclass
class Connection:
    """One TCP connection of a client."""

    name: str
    t: int = 0
    account: str = ""
    session: str = ""
    resume: dict[int, int] | None = None  # what the logon asked to resume from
    lines: list[Line] = field(default_factory=list)  # what was said and heard
    end: str = ""  # "lost", "closed", or "" where the log just ends

    @property
    def owner(self) -> Owner:
        return self.account, self.session


@dataclass
class Instrument:
    """Step sizes of a symbol, in units of 1e-9."""

    tick: int
    lot: int
    price_max: int


@dataclass
class ClientLogs:
    """All connections, by time of opening, and what follows from them."""

    connections: list[Connection] = field(default_factory=list)
    # (account, shard) -> number -> the line that brought it first
    reports: dict[tuple[str, int], dict[int, Line]] = field(default_factory=dict)
    # (account, session, id) -> the lines that sent it
    requests: dict[tuple[str, str, ClientId], list[Line]] = field(default_factory=dict)
    # (account, session, command kind) -> how many lines without an id
    nameless: dict[tuple[str, str, int], int] = field(default_factory=dict)
    # (account, session, id) that a request without an id named: its refusal carries that id
    named: set[tuple[str, str, ClientId]] = field(default_factory=set)
    instruments: dict[str, Instrument] = field(default_factory=dict)
    accounts_with_holes: set[tuple[str, int]] = field(default_factory=set)  # set by streams.py


def units(text: Any) -> int:
    """Exact decimal text (or number) as an integer of 1e-9; ValueError when it is none."""
    try:
        value = Decimal(str(text)) * UNITS
        whole = int(value)
    except (InvalidOperation, OverflowError) as error:
        raise ValueError(f"not a decimal number: {text!r}") from error
    if value != whole:
        raise ValueError(f"finer than 1e-9: {text!r}")
    return whole


def content(message: Message) -> Message:
    """A report without what may differ between connections: the receipt."""
    return {key: value for key, value in message.items() if key != "receipt"}


def is_report(message: Message) -> bool:
    """Whether a line from the exchange is a numbered report of a shard."""
    return type(message.get("seq")) is int and message["seq"] > 0 and "shard" in message


def problem_of(message: Message) -> str:
    """Why a line from the exchange cannot be judged; empty when it can."""
    if not is_report(message):
        return "" if isinstance(message.get("type"), str) else "it has no type"
    needs = {"type": str, "shard": int, "ts": int, **NEEDS.get(str(message.get("type")), {})}
    wrong = [key for key, kind in needs.items() if type(message.get(key)) is not kind]
    try:
        for key in {"qty", "leaves", "filled", "price"} & message.keys():
            units(message[key])
    except ValueError as error:
        return str(error)
    return f"{', '.join(wrong)} missing or of another type" if wrong else ""


def request_of(message: Message) -> Message:
    """A request with canonical keys and listed values in lower case."""
    named = {}
    for key, value in message.items():
        if value is not None:
            low = key.lower()
            named[OTHER_NAMES.get(low, low)] = value
    for key in ("type", "side", "tif", "order_type"):
        if isinstance(named.get(key), str):
            named[key] = named[key].lower()
    named.setdefault("type", "new")
    return named


def parse_resume(value: Any) -> dict[int, int]:
    """The logon key `resume`: "shard:seq,shard:seq"."""
    pairs = [part.partition(":") for part in str(value).split(",") if part]
    return {int(shard): int(number) for shard, _, number in pairs}


def read_logs(folder: Path, findings: Findings) -> ClientLogs:
    """Read every *.jsonl of a folder."""
    logs = ClientLogs()
    for path in sorted(folder.glob("*.jsonl")):
        logs.connections.append(_read_connection(path, findings))
    logs.connections.sort(key=lambda connection: (connection.t, connection.name))
    for connection in logs.connections:
        _collect(connection, logs)
    findings.counts["connections"] += len(logs.connections)
    findings.counts["reports"] += sum(map(len, logs.reports.values()))
    findings.counts["requests"] += len(logs.requests)
    return logs


def _read_connection(path: Path, findings: Findings) -> Connection:
    connection = Connection(path.name)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            place = f"{path.name}:{number}"
            try:
                entry = json.loads(raw)
                t, direction, data = int(entry["t"]), entry["dir"], str(entry["data"])
            except (ValueError, KeyError, TypeError):
                findings.violate("log_unreadable", f"{place} is no entry", raw[:200])
                continue
            if direction not in DIRECTIONS:
                findings.violate("log_unreadable", f"{place}: direction {direction!r}")
            elif direction == "open":
                connection.t = t
            elif direction in ("lost", "closed"):
                connection.end = direction
            else:
                _take(connection, Line(place, t, direction, {}), data, findings)
    return connection


def _take(connection: Connection, line: Line, data: str, findings: Findings) -> None:
    try:
        message = json.loads(data)
        if type(message) is not dict:
            raise ValueError("not an object")
        if line.direction == "out" and message.get("type") == "logon":
            connection.account = str(message["account"])
            connection.session = str(message.get("session", "main"))
            if "resume" in message:
                connection.resume = parse_resume(message["resume"])
        if line.direction == "in" and problem_of(message):
            raise ValueError(problem_of(message))
    except (ValueError, KeyError) as error:
        kind = "answer_unreadable" if line.direction == "in" else "log_unreadable"
        findings.violate(kind, f"{line.place}: {error}", data[:200])
        return
    connection.lines.append(Line(line.place, line.t, line.direction, message))


def _collect(connection: Connection, logs: ClientLogs) -> None:
    for line in connection.lines:
        message = line.message
        if line.direction == "out":
            _collect_request(connection, line, logs)
        elif is_report(message):
            numbers = logs.reports.setdefault((connection.account, message["shard"]), {})
            numbers.setdefault(message["seq"], line)
        elif message.get("type") == "instruments":
            for row in message["instruments"]:
                steps = (units(row["tick"]), units(row["lot"]), units(row["max_price"]))
                logs.instruments[row["symbol"]] = Instrument(*steps)


def _collect_request(connection: Connection, line: Line, logs: ClientLogs) -> None:
    request = request_of(line.message)
    kind = COMMANDS.get(request["type"])
    if kind is None:
        return
    if "id" in request:
        key = (*connection.owner, request["id"])
        logs.requests.setdefault(key, []).append(line)
    else:
        place = (*connection.owner, kind)
        logs.nameless[place] = logs.nameless.get(place, 0) + 1
        if "target_id" in request:
            logs.named.add((*connection.owner, request["target_id"]))
