"""Which features meet: those of all orders that have to do with one command, and of the command.

Cold; used by tests only. A Watcher is told commands and their events, in the order in which they
happen, and says for each command what met in it. It knows nothing but records: what an order is
was said by the command that brought it. `docs/pairs.md` is made from the scenario files with it
(python -m tests.scenarios.pairs).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from engine.records import (
    Algorithm,
    CommandFlag,
    CommandKind,
    EventKind,
    InstrumentRule,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    Role,
    TimeInForce,
)

Command = dict[str, Any]
Event = dict[str, Any]
Pair = tuple[str, str]

TOGETHER = {EventKind.FILL, EventKind.CROSSED, EventKind.TRIGGERED, EventKind.PREVENTED}

TYPES = {
    OrderType.MARKET: "market",
    OrderType.MARKET_TO_LIMIT: "market to limit",
    OrderType.BUDGET: "budget",
    OrderType.STOP: "stop",
    OrderType.STOP_LIMIT: "stop",
    OrderType.TAKE_PROFIT: "take profit",
    OrderType.TAKE_PROFIT_LIMIT: "take profit",
    OrderType.TRAILING_STOP: "trailing",
    OrderType.TRAILING_STOP_LIMIT: "trailing",
    OrderType.PEG_PRIMARY: "peg",
    OrderType.PEG_MARKET: "peg",
    OrderType.PEG_MID: "peg",
}
TIMES = {
    TimeInForce.IOC: "ioc",
    TimeInForce.FOK: "fok",
    TimeInForce.DAY: "day, gtd",
    TimeInForce.GTD: "day, gtd",
    TimeInForce.AT_OPEN: "auction tif",
    TimeInForce.AT_CLOSE: "auction tif",
    TimeInForce.GOOD_FOR_AUCTION: "auction tif",
}
FLAGS = {
    CommandFlag.POST_ONLY: "post only",
    CommandFlag.SLIDE: "slide",
    CommandFlag.HIDDEN: "hidden",
    CommandFlag.PROTECTED: "protected",
}
OPTIONS = {"peak": "iceberg", "min_qty": "minimum"}
COMMANDS = {
    CommandKind.REPLACE: "replace",
    CommandKind.MASS_CANCEL: "mass cancel",
    CommandKind.QUOTE: "quote",
    CommandKind.SESSION_CLOSE: "disconnect",
}
EVENTS = {
    EventKind.PREVENTED: "self-trade",
    EventKind.TRIGGERED: "trigger",
    EventKind.REPRICED: "repriced",
    EventKind.PARKED: "parked",
    EventKind.CONTINUED: "slice",
    EventKind.CROSSED: "uncross",
    EventKind.MMP_FIRED: "protection of quotes",
    EventKind.ACTIVATED: "activated",
}
REASONS = {
    Reason.SELF_TRADE: "self-trade",
    Reason.BAND: "dynamic band",
    Reason.DAY: "expiry",
    Reason.GTD: "expiry",
    Reason.OCO: "linked",
    Reason.OTO_FAILURE: "linked",
}
CODES = {RejectCode.STATIC_BAND: "static band", RejectCode.FOK_UNFILLED: "fok"}
ALGORITHMS = {
    Algorithm.PRO_RATA: "pro rata",
    Algorithm.FIFO_PRO_RATA: "pro rata",
    Algorithm.TIME_PRO_RATA: "pro rata",
    Algorithm.SIZE_PRIORITY: "size priority",
    Algorithm.BATCH_AUCTION: "batch",
    Algorithm.BALANCED_BATCH: "batch",
}
ORDER_FEATURES = {*TYPES.values(), *TIMES.values(), *FLAGS.values(), *OPTIONS.values(), "linked"}
FEATURES = sorted(
    ORDER_FEATURES
    | set(COMMANDS.values())
    | set(EVENTS.values())
    | set(REASONS.values())
    | set(CODES.values())
    | set(ALGORITHMS.values())
    | {"call", "halt", "lead market maker"}
)


def pairs_of(met: set[str]) -> set[Pair]:
    """All pairs, the two in the order of FEATURES."""
    return set(itertools.combinations(sorted(met & set(FEATURES)), 2))


def options_of(command: Command) -> set[str]:
    """Features of the order that a command brings or changes."""
    found = {name for flag, name in FLAGS.items() if command["flags"] & flag}
    found |= {name for field, name in OPTIONS.items() if command[field]}
    if command["kind"] == CommandKind.NEW and command["order_type"] in TYPES:
        found.add(TYPES[OrderType(command["order_type"])])
    if command["tif"] in TIMES:
        found.add(TIMES[TimeInForce(command["tif"])])
    if command["decision_code"] and command["kind"] == CommandKind.NEW:
        found.add("linked")
    return found


class Watcher:
    """Told everything that happens, it says what met."""

    def __init__(self) -> None:
        self.orders: dict[int, set[str]] = {}  # order id -> what it is
        self.phases: dict[int, int] = {}
        self.algorithms: dict[int, int] = {}
        self.leads: set[int] = set()
        self.legs: dict[int, list[set[str]]] = {}  # session -> what its unfinished list has
        self.arriving: list[set[str]] = []  # orders of the running command, in order
        self.changes: set[str] = set()

    def watch(self, command: Command, events: Iterable[Event]) -> set[Pair]:
        """The pairs that met in a command, its slices included.

        Where orders trade or trigger each other all that is there meets; where many orders merely
        end, or are answered, each stands alone with what was asked.
        """
        events = list(events)
        asked = self._asked(command)
        told = [asked | self._told(event) for event in events]
        if any(event["kind"] in TOGETHER for event in events):
            told = [asked.union(self._shared(events), *told)]
        if command["kind"] == CommandKind.SET_RULE:
            self._set(command, events)
        return set().union(*(pairs_of(met) for met in told))

    def _asked(self, command: Command) -> set[str]:
        kind = command["kind"]
        self.arriving, self.changes = [], set()
        met = {COMMANDS[kind]} if kind in COMMANDS else set()
        if kind == CommandKind.QUOTE:
            self.arriving = [{"quote", "day, gtd"}] * 2
        elif kind == CommandKind.NEW:
            legs = self.legs.pop(command["session"], []) if command["decision_code"] else []
            legs.append(options_of(command))
            if command["flags"] & CommandFlag.LIST:
                self.legs[command["session"]] = legs
            else:
                self.arriving = legs
                met = met.union(*legs)
        elif kind == CommandKind.REPLACE:
            self.changes = options_of(command)
            met |= self.changes
        return met

    def _told(self, event: Event) -> set[str]:
        kind, order_id, symbol = event["kind"], event["order_id"], event["symbol_id"]
        if kind == EventKind.ACCEPTED:
            self.orders[order_id] = self.arriving.pop(0) if self.arriving else set()
        elif kind == EventKind.REPLACED and self.changes:
            self.orders[order_id] = self.orders.get(order_id, set()) | self.changes
        elif kind == EventKind.PHASE:
            self.phases[symbol] = event["code"]
        met = set(self.orders.get(order_id, ()))
        met |= {EVENTS[kind]} if kind in EVENTS else set()
        met |= {REASONS[event["reason"]]} if event["reason"] in REASONS else set()
        if kind in (EventKind.REJECTED, EventKind.EXPIRED) and event["code"] in CODES:
            met.add(CODES[event["code"]])
        phase = self.phases.get(symbol, int(Phase.CONTINUOUS))
        if phase in (Phase.OPENING_CALL, Phase.CLOSING_CALL, Phase.VOLATILITY_CALL):
            met.add("call")
        elif phase in (Phase.HALTED, Phase.CLOSED, Phase.CANCEL_ONLY):
            met.add("halt")
        if self.algorithms.get(symbol) in (Algorithm.BATCH_AUCTION, Algorithm.BALANCED_BATCH):
            met.add("batch")
        return met

    def _shared(self, events: list[Event]) -> set[str]:
        met = set()
        for event in events:
            if event["kind"] == EventKind.FILL and event["role"] == Role.MAKER:
                algorithm = self.algorithms.get(event["symbol_id"], 0)
                met |= {ALGORITHMS[algorithm]} if algorithm in ALGORITHMS else set()
                met |= {"lead market maker"} if event["symbol_id"] in self.leads else set()
        return met

    def _set(self, command: Command, events: list[Event]) -> None:
        for event in events:
            if event["kind"] != EventKind.LISTED:
                continue
            if command["order_type"] == InstrumentRule.ALGORITHM:
                self.algorithms[event["symbol_id"]] = command["amount"]
            elif command["order_type"] == InstrumentRule.LMM:
                self.leads.add(event["symbol_id"])
