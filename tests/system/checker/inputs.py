"""Journal against clients: what was acknowledged was taken, what was taken had been asked for.

A request is known by (account, session, client id). The journal names the session by the number of
the logon that owns it; its SESSION_OPEN says which session that is. A request that was sent twice
may stand in the journal twice, the second one as a repetition that is answered and not run; never
more often than it was sent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.system.checker import journal as j
from tests.system.checker.expect import Expect
from tests.system.checker.findings import Findings
from tests.system.checker.journal import Record, ShardJournal
from tests.system.checker.logs import (
    ClientId,
    ClientLogs,
    Instrument,
    Line,
    Message,
    request_of,
    units,
)

SIDES = {"buy": 0, "b": 0, "bid": 0, "sell": 1, "s": 1, "ask": 1}
TIFS = {"gtc": 0, "ioc": 1, "fok": 2}
ORDER_TYPES = {"limit": 1, "market": 2}
POST_ONLY, TEXT_ID, BY_SESSION, BY_SIDE, BY_TAG, BY_SYMBOL = 1, 16, 128, 256, 512, 1024
KINDS = {
    "new": j.NEW, "limit": j.NEW, "market": j.NEW, "cancel": j.CANCEL, "replace": j.REPLACE,
    "mass_cancel": j.MASS_CANCEL, "order": j.QUERY_ORDER, "open_orders": j.QUERY_OPEN,
}  # fmt: skip
ANSWERS = ("accepted", "rejected", "status")
Key = tuple[str, str, ClientId]  # account, session, client id


@dataclass
class Inputs:
    """The requests of one shard's journal."""

    journal: ShardJournal
    by_key: dict[Key, list[Record]] = field(default_factory=lambda: defaultdict(list))
    targets: set[Key] = field(default_factory=set)
    times: set[int] = field(default_factory=set)


def check_inputs(
    logs: ClientLogs, journals: dict[int, ShardJournal], expect: Expect, findings: Findings
) -> dict[int, Inputs]:
    """All rules of this file; returns the requests found, per shard."""
    names = {number: name for name, number in expect.accounts.items()}
    inputs = {}
    for shard, journal in sorted(journals.items()):
        inputs[shard] = _read(journal, logs, names, expect, findings)
        _check_counts(inputs[shard], logs, findings)
    _check_acks(inputs, logs, findings)
    return inputs


def _read(
    journal: ShardJournal,
    logs: ClientLogs,
    names: dict[int, str],
    expect: Expect,
    findings: Findings,
) -> Inputs:
    found = Inputs(journal)
    owners = {connection.owner for connection in logs.connections}
    sessions: dict[int, tuple[str, str]] = {}
    nameless: Counter[tuple[str, str, int]] = Counter()
    for record in journal.records:
        found.times.add(record.in_ts)
        if record.kind == j.LIST_INSTRUMENT:
            steps = Instrument(record.amount, record.expire_ts, record.px2 * record.amount)
            logs.instruments.setdefault(record.symbol, steps)
        if not j.NEW <= record.kind <= j.SESSION_KEEP:
            continue
        account = names.get(record.account, f"account number {record.account}")
        if record.kind == j.SESSION_OPEN:
            sessions[record.logon] = (account, record.text)
        owner = sessions.get(record.logon)
        if owner is None:
            if journal.first == 1:
                text = f"logon {record.logon} was never opened on shard {journal.shard}"
                findings.violate("journal_unsent", text, record)
        elif owner[0] != account or owner not in owners:
            text = f"{owner}, account {account}: no client logged on like that"
            findings.violate("journal_unsent", text, record)
        elif record.kind < j.SESSION_OPEN:
            _take(found, record, owner, nameless, logs, expect, findings)
    for place, count in nameless.items():
        if count > logs.nameless.get(place, 0):
            text = f"{count} requests {place} without id, {logs.nameless.get(place, 0)} were sent"
            findings.violate("journal_unsent", text)
    return found


def _take(
    found: Inputs,
    record: Record,
    owner: tuple[str, str],
    nameless: Counter[tuple[str, str, int]],
    logs: ClientLogs,
    expect: Expect,
    findings: Findings,
) -> None:
    if record.target:
        found.targets.add((*owner, record.target))
    text_id = record.flags & TEXT_ID and record.text
    if text_id and record.kind != j.NEW:
        found.targets.add((*owner, record.text))
        text_id = ""
    client_id: ClientId = record.text if text_id else record.client_order_id
    if not client_id:
        nameless[*owner, record.kind] += 1
        return
    key = (*owner, client_id)
    found.by_key[key].append(record)
    lines = logs.requests.get(key, [])
    if not lines:
        findings.violate("journal_unsent", f"nobody sent {key}", record)
        return
    differences = [_difference(record, line, logs, expect) for line in lines]
    if all(differences):
        text = f"{key}: {differences[0]}"
        findings.violate("journal_differs", text, record, lines[0])


def _difference(record: Record, line: Line, logs: ClientLogs, expect: Expect) -> str:
    # What of a record is not as the line asked; empty when all of it is.
    request = request_of(line.message)
    try:
        wanted = _wanted(record, request, _instrument(record.symbol, logs, expect))
    except (ValueError, KeyError) as error:
        return f"the request cannot be understood: {error!r}"
    for name, value in wanted.items():
        if getattr(record, name) != value:
            return f"{name} is {getattr(record, name)}, asked was {value}"
    return ""


def _instrument(symbol: str, logs: ClientLogs, expect: Expect) -> Instrument:
    template = Instrument(units(expect.template_tick), units(expect.template_lot), 0)
    return logs.instruments.get(symbol, template)


def _steps(request: Message, key: str, step: int) -> int:
    if key not in request:
        return 0
    whole, rest = divmod(units(request[key]), step)
    if rest:
        raise ValueError(f"{key} {request[key]} is no multiple")
    return whole


def _wanted(record: Record, request: Message, instrument: Instrument) -> dict[str, object]:
    kind = KINDS[request["type"]]
    wanted: dict[str, object] = {"kind": kind}
    if "symbol" in request:
        wanted["symbol"] = request["symbol"]
    if kind in (j.NEW, j.REPLACE):
        wanted["px"] = _steps(request, "price", instrument.tick)
        wanted["qty"] = _steps(request, "qty", instrument.lot)
    if kind == j.NEW:
        priced = "market" if "price" not in request else "limit"
        stated = request["type"] if request["type"] != "new" else priced
        wanted |= {
            "side": SIDES[request["side"]],
            "order_type": ORDER_TYPES[request.get("order_type", stated)],
            "tif": TIFS[request.get("tif", "gtc")],
            "tag": request.get("tag", 0),
            "flags": (POST_ONLY if request.get("post_only") else 0) | (record.flags & TEXT_ID),
        }
    elif kind in (j.CANCEL, j.REPLACE, j.QUERY_ORDER):
        target = request.get("target_id", 0)
        wanted["order_id"] = request.get("order_id", 0)
        if type(target) is int:
            wanted["target"] = target
    elif kind == j.MASS_CANCEL:
        flags = {"side": BY_SIDE, "tag": BY_TAG, "symbol": BY_SYMBOL}
        wanted["flags"] = sum(bit for key, bit in flags.items() if key in request) | (
            BY_SESSION if request.get("scope") == "session" else 0
        )
    return wanted


def _check_counts(found: Inputs, logs: ClientLogs, findings: Findings) -> None:
    answers: Counter[Key] = Counter()
    shard = found.journal.shard
    for (account, of_shard), numbers in logs.reports.items():
        if of_shard == shard:
            for line in numbers.values():
                message = line.message
                if message["type"] in ANSWERS and "id" in message:
                    answers[account, message.get("session", ""), message["id"]] += 1
    for key, records in found.by_key.items():
        sent = logs.requests.get(key, [])
        if sent and len(records) > len(sent):
            text = f"{key} stands {len(records)} times in shard {shard}, sent {len(sent)} times"
            findings.violate("journal_too_often", text, *records, *sent)
        if (key[0], shard) in logs.accounts_with_holes or records[0].kind != j.NEW:
            continue  # a cancel that was done is reported under the id of its order
        if answers[key] < len(records):
            text = f"{key} was taken {len(records)} times, answered {answers[key]} times"
            findings.violate("journal_unanswered", text, *records)


def _check_acks(inputs: dict[int, Inputs], logs: ClientLogs, findings: Findings) -> None:
    for (account, shard), numbers in sorted(logs.reports.items()):
        found = inputs.get(shard)
        if found is None:
            findings.violate("ack_not_in_journal", f"shard {shard} has no journal")
            continue
        if found.journal.first != 1:
            findings.note(f"shard {shard}: acknowledgements older than the journal are not checked")
            continue
        names = {connection.session for connection in logs.connections}
        for line in numbers.values():
            _check_ack(found, account, names, line, findings)


def _check_ack(
    found: Inputs, account: str, names: set[str], line: Line, findings: Findings
) -> None:
    message = line.message
    findings.counts["acknowledgements"] += message["type"] in ANSWERS
    if message["ts"] not in found.times:
        text = f"{message['type']} of shard {found.journal.shard} at {message['ts']}"
        findings.violate("ack_time", text, line)
    if "id" not in message:
        return
    sessions = [message["session"]] if "session" in message else sorted(names)
    keys = [(account, session, message["id"]) for session in sessions]
    records = [record for key in keys for record in found.by_key.get(key, ())]
    named = message["type"] == "rejected" and any(key in found.targets for key in keys)
    if not records and not named:
        text = f"id {message['id']} of {account} has a report and no input"
        findings.violate("ack_not_in_journal", text, line)
    elif message["type"] == "accepted" and message["ts"] not in {r.in_ts for r in records}:
        text = f"id {message['id']} of {account} was accepted at another time than it was taken"
        findings.violate("ack_time", text, line, *records)
