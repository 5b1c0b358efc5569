"""Trades: each is two reports, maker and taker, that agree; numbers are gapless per symbol."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.system.checker.expect import Expect
from tests.system.checker.findings import Findings
from tests.system.checker.logs import ClientLogs, Line, units

Key = tuple[str, int]  # symbol, trade number


@dataclass
class Trade:
    """One trade as its reports tell it. Price and quantity in units of 1e-9."""

    shard: int
    price: int
    qty: int
    ts: int
    sides: list[Line] = field(default_factory=list)
    taker: Line | None = None
    taker_account: str = ""


def check_trades(logs: ClientLogs, expect: Expect, findings: Findings) -> dict[Key, Trade]:
    """All rules of this file; returns the trades."""
    trades = _collect(logs, findings)
    findings.counts["trades"] += len(trades)
    if logs.accounts_with_holes or not expect.whole:
        findings.note("both sides of each trade: not all reports of all accounts are there")
        return trades
    for (symbol, number), trade in trades.items():
        told = sorted((line.message["role"], line.message["side"]) for line in trade.sides)
        if [role for role, _ in told] != ["maker", "taker"] or len({s for _, s in told}) != 2:
            text = f"trade {number} of {symbol} has the sides {told}"
            findings.violate("trade_sides", text, *trade.sides)
    _check_numbers(trades, findings)
    return trades


def _collect(logs: ClientLogs, findings: Findings) -> dict[Key, Trade]:
    trades: dict[Key, Trade] = {}
    for (account, shard), numbers in sorted(logs.reports.items()):
        for _, line in sorted(numbers.items()):
            message = line.message
            if message["type"] != "fill":
                continue
            told = (shard, units(message["price"]), units(message["qty"]), message["ts"])
            key = (message["symbol"], message["trade_id"])
            trade = trades.setdefault(key, Trade(*told))
            trade.sides.append(line)
            if message["role"] == "taker":
                trade.taker, trade.taker_account = line, account
            if told != (trade.shard, trade.price, trade.qty, trade.ts):
                text = f"trade {key[1]} of {key[0]}"
                findings.violate("trade_differs", text, *trade.sides)
    return trades


def _check_numbers(trades: dict[Key, Trade], findings: Findings) -> None:
    by_symbol: dict[str, list[int]] = {}
    for symbol, number in trades:
        by_symbol.setdefault(symbol, []).append(number)
    for symbol, numbers in by_symbol.items():
        missing = set(range(1, max(numbers))) - set(numbers)
        if missing:
            text = f"{symbol}: {len(missing)} of 1 .. {max(numbers)}, first {min(missing)}"
            findings.violate("trade_number_gap", text, trades[symbol, max(numbers)].sides[0])
