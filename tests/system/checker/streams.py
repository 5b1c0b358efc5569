"""Report numbers: per account and shard gapless, each once, in order, with one content everywhere.

A connection hears the reports of its account from the number after the one its logon answer names;
one that resumes hears first what it missed. The report of its own logon is the answer itself: that
number alone may be absent. What the connections of one client (account, session) heard in a row is
judged by the number it asked to resume from, which must be the last one it had.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.system.checker.expect import Expect
from tests.system.checker.findings import Findings
from tests.system.checker.logs import (
    ClientLogs,
    Connection,
    Line,
    Owner,
    content,
    is_report,
)

RESUME_REFUSALS = {207: "too old", 208: "ahead", 209: "wrong incarnation"}
Seen = dict[int, int]  # shard -> last number


def check_streams(logs: ClientLogs, expect: Expect, findings: Findings) -> None:
    """All rules of this file."""
    own = _own_logons(logs)
    clients: dict[Owner, list[Connection]] = {}
    for connection in logs.connections:
        if connection.account:
            clients.setdefault(connection.owner, []).append(connection)
    for owner, connections in clients.items():
        _check_client(owner, connections, own, expect, findings)
    _check_contents(logs, findings)
    _check_times(logs, findings)
    _check_holes(logs, own, findings)
    _check_incarnation(logs, expect, findings)


def _answers(connection: Connection) -> Iterator[tuple[Line, Seen]]:
    # Logon answers: one says more shards than the one before where some came up later.
    for line in connection.lines:
        if line.direction == "in" and line.message.get("type") == "logon":
            yield line, {int(s): n for s, n in line.message.get("seq", {}).items()}


def _own_logons(logs: ClientLogs) -> dict[tuple[str, str, int], set[int]]:
    # (account, session, shard) -> numbers of the reports of that session's own logons.
    own: dict[tuple[str, str, int], set[int]] = {}
    for connection in logs.connections:
        for _, seq in _answers(connection):
            for shard, number in seq.items():
                own.setdefault((*connection.owner, shard), set()).add(number)
    for (account, shard), numbers in logs.reports.items():
        for number, line in numbers.items():
            if line.message.get("reason") == "session_opened":
                key = (account, line.message.get("session", ""), shard)
                own.setdefault(key, set()).add(number)
    return own


def _check_client(
    owner: Owner,
    connections: list[Connection],
    own: dict[tuple[str, str, int], set[int]],
    expect: Expect,
    findings: Findings,
) -> None:
    seen: Seen = {}
    for connection in connections:
        refusals = [
            line for line in connection.lines if line.message.get("code") in RESUME_REFUSALS
        ]
        for line in refusals:
            if expect.resumable:
                why = RESUME_REFUSALS[line.message["code"]]
                findings.violate("resume_refused", f"{owner} was refused a resume: {why}", line)
        answered = any(seq for _, seq in _answers(connection))
        if seen and answered and connection.resume is None:
            findings.note(f"{owner} came back without resume: reports between are not compared")
            findings.counts["connections without resume"] += 1
        for shard, number in (connection.resume or {}).items():
            if seen.get(shard, number) != number:
                findings.violate(
                    "client_resume",
                    f"{connection.name} resumes shard {shard} from {number}, had {seen[shard]}",
                )
        stream = _Stream(connection, own, findings)
        for line in connection.lines:
            stream.take(line)
        stream.finish()
        seen |= stream.last


class _Stream:
    """The reports of one connection, line by line."""

    def __init__(
        self, connection: Connection, own: dict[tuple[str, str, int], set[int]], findings: Findings
    ) -> None:
        self.connection, self.own, self.findings = connection, own, findings
        self.last: Seen = {}
        self.told: Seen = {}  # number of the own logon, as the answer says
        self.answer: Line | None = None
        self.got: dict[int, set[int]] = {}

    def take(self, line: Line) -> None:
        """Judge one line."""
        message = line.message
        if line.direction != "in":
            return
        if message.get("type") == "logon":
            self.answer = line
            for shard, number in message.get("seq", {}).items():
                self._begin(int(shard), number)
        elif is_report(message):
            self._report(line, message["shard"], message["seq"])

    def _begin(self, shard: int, number: int) -> None:
        if shard not in self.told:
            self.told[shard] = number
            resume = self.connection.resume
            if shard not in self.last:
                self.last[shard] = number if resume is None else resume.get(shard, number)

    def _report(self, line: Line, shard: int, number: int) -> None:
        got = self.got.setdefault(shard, set())
        where = f"{self.connection.name}, shard {shard}"
        if shard not in self.last:  # the shard came up after the logon was answered
            resume = self.connection.resume or {}
            self.last[shard] = resume.get(shard, number - 1)
        last = self.last[shard]
        if number in got:
            self.findings.violate("report_doubled", f"{where}: number {number} again", line)
        elif number <= last:
            text = f"{where}: number {number} after {last}"
            self.findings.violate("report_reordered", text, line)
        else:
            missing = [n for n in range(last + 1, number) if not self._is_own(shard, n)]
            if missing:
                text = f"{where}: {len(missing)} numbers missing, {missing[0]} .. {missing[-1]}"
                self.findings.violate("report_gap", text, self.answer or "", line)
        got.add(number)
        self.last[shard] = max(last, number)

    def _is_own(self, shard: int, number: int) -> bool:
        if shard in self.told:
            return number == self.told[shard]
        # Not told: any logon of this session, as another session of the account saw it.
        return number in self.own.get((*self.connection.owner, shard), ())

    def finish(self) -> None:
        """After the last line: what the logon promised has come."""
        if self.connection.end != "closed":
            return
        for shard, told in self.told.items():
            if self.last[shard] < told - 1:
                self.findings.violate(
                    "report_tail",
                    f"{self.connection.name}, shard {shard}: reports up to {told - 1} were due,"
                    f" the last one is {self.last[shard]}",
                    self.answer,
                )


def _check_contents(logs: ClientLogs, findings: Findings) -> None:
    for connection in logs.connections:
        for line in connection.lines:
            message = line.message
            if line.direction != "in" or not is_report(message):
                continue
            first = logs.reports[connection.account, message["shard"]][message["seq"]]
            if first is not line and content(first.message) != content(message):
                findings.violate(
                    "report_two_contents",
                    f"account {connection.account}, shard {message['shard']},"
                    f" number {message['seq']}",
                    first,
                    line,
                )


def _check_times(logs: ClientLogs, findings: Findings) -> None:
    for (account, shard), numbers in logs.reports.items():
        before: Line | None = None
        for number in sorted(numbers):
            line = numbers[number]
            if before is not None and line.message["ts"] < before.message["ts"]:
                text = f"account {account}, shard {shard}, number {number}"
                findings.violate("report_time", text, before, line)
            before = line


def _check_holes(
    logs: ClientLogs, own: dict[tuple[str, str, int], set[int]], findings: Findings
) -> None:
    for (account, shard), numbers in logs.reports.items():
        known = set(numbers)
        for (name, _, of_shard), logons in own.items():
            if (name, of_shard) == (account, shard):
                known |= logons
        low, high = min(numbers), max(numbers)
        holes = [number for number in range(low, high) if number not in known]
        if holes:
            logs.accounts_with_holes.add((account, shard))
            findings.violate(
                "report_hole",
                f"account {account}, shard {shard}: {len(holes)} numbers between {low} and {high}"
                f" were seen by nobody, first {holes[:5]}",
            )
            findings.note(f"orders of account {account} on shard {shard}: reports are missing")


def _check_incarnation(logs: ClientLogs, expect: Expect, findings: Findings) -> None:
    first: Line | None = None
    for connection in logs.connections:
        for line, _ in _answers(connection):
            if "incarnation" not in line.message or not expect.resumable:
                continue
            first = first or line
            if line.message["incarnation"] != first.message["incarnation"]:
                findings.violate("wrong_incarnation", f"{connection.name}", first, line)
