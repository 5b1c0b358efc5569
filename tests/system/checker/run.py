"""Judges the folder of a run.

    RUN/expect.json     what the run promised (expect.py)
    RUN/clients/*.jsonl one log per connection (logs.py)
    RUN/capture.bin     datagrams of the market data groups (capture.py), and capture.bin.drops
    RUN/data/           data directory of the stopped exchange, with its journal (journal.py)

A witness that is not there is noted and its checks are left out.
"""

from __future__ import annotations

from pathlib import Path

from tests.system.checker.capture import read_capture, read_drops
from tests.system.checker.expect import Expect
from tests.system.checker.feed import read_feed
from tests.system.checker.findings import Findings
from tests.system.checker.inputs import Inputs, check_inputs
from tests.system.checker.journal import read_journal
from tests.system.checker.logs import read_logs
from tests.system.checker.orders import check_orders
from tests.system.checker.streams import check_streams
from tests.system.checker.tape import TapeCheck
from tests.system.checker.trades import check_trades

EXPECT, CLIENTS, CAPTURE, DATA = "expect.json", "clients", "capture.bin", "data"


def check_run(folder: Path) -> Findings:
    """Compare all witnesses of a run."""
    findings = Findings()
    expect = Expect.read(folder / EXPECT)
    logs = read_logs(folder / CLIENTS, findings)
    if not logs.reports:
        findings.note("no client got a report: nothing was checked")
    check_streams(logs, expect, findings)
    check_orders(logs, expect, findings)
    trades = check_trades(logs, expect, findings)
    inputs: dict[int, Inputs] = {}
    if any((folder / DATA).glob("shard*")):
        inputs = check_inputs(logs, read_journal(folder / DATA, findings), expect, findings)
    else:
        findings.note("no journal: acknowledged requests were not looked for on disk")
    if (folder / CAPTURE).exists():
        sessions = read_feed(read_capture(folder / CAPTURE), findings)
        drops = read_drops(folder / CAPTURE)
        if drops != 0:
            findings.note(f"the capture lacks {drops or 'nobody knows how many'} datagrams")
        TapeCheck(logs, trades, inputs, expect, findings, drops).run(sessions)
    else:
        findings.note("no capture: market data was not compared")
    return findings
