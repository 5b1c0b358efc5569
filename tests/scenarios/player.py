"""Plays a scenario on the model or on the engine, and compares what it says with what came back.

Cold; used by tests only. What a line does not state is not compared here: the differential test
compares every field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Protocol

from engine.records import (
    SLOT_BITS,
    UNSTATED,
    AccountLimit,
    Algorithm,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    InstrumentRule,
    KillAction,
    OrderState,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    Role,
    SelfTrade,
    Side,
    TimeInForce,
    pack_name,
)
from tests.model.checks_model import BLANK_COMMAND
from tests.model.desk_model import SUPERVISOR
from tests.scenarios.language import Line, Scenario, ScenarioError

Event = dict[str, Any]
Command = dict[str, Any]

DEFAULT_SYMBOL = "ABC"
FLAG_WORDS = {"kept": EventFlag.KEPT, "left": EventFlag.LEFT_BOOK, "trades": EventFlag.WILL_TRADE}
# Flags that an event must have, or must not.
SHARED = EventFlag.NON_FIFO | EventFlag.PRINTABLE
MARKS = {
    "top": (EventFlag.TOP, True),
    "not-top": (EventFlag.TOP, False),
    "more": (EventFlag.MORE, True),
    "not-more": (EventFlag.MORE, False),
    "shared": (SHARED, True),
    "not-shared": (SHARED, False),
}
ALIASES = {
    "ref": "public_ref", "old": "old_ref", "was": "shown_before", "id": "client_order_id",
    "trigger": "px2",
}  # fmt: skip
RESERVED = {"maker", "taker", "auction", "public", "private", "nothing", *FLAG_WORDS, *MARKS}
STOPS = (
    *("STOP", "STOP_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"),
    *("TRAILING_STOP", "TRAILING_STOP_LIMIT"),
)
PEGS = ("PEG_PRIMARY", "PEG_MARKET", "PEG_MID")
STYLES: dict[str, dict[str, int]] = {
    "ioc": {"tif": int(TimeInForce.IOC)},
    "fok": {"tif": int(TimeInForce.FOK)},
    "market": {"order_type": int(OrderType.MARKET)},
    "day": {"tif": int(TimeInForce.DAY)},
    "at-open": {"tif": int(TimeInForce.AT_OPEN)},
    "at-close": {"tif": int(TimeInForce.AT_CLOSE)},
    "auction": {"tif": int(TimeInForce.GOOD_FOR_AUCTION)},
    "market-to-limit": {"order_type": int(OrderType.MARKET_TO_LIMIT)},
    "post-only": {"flags": int(CommandFlag.POST_ONLY)},
    "slide": {"flags": int(CommandFlag.POST_ONLY | CommandFlag.SLIDE)},
    "hidden": {"flags": int(CommandFlag.HIDDEN)},
    "protected": {"flags": int(CommandFlag.PROTECTED)},
    **{
        name.lower().replace("_", "-"): {"order_type": int(OrderType[name])}
        for name in (*STOPS, *PEGS)
    },
    "on-best": {"flags": int(CommandFlag.TRIGGER_BEST)},
    "bps": {"flags": int(CommandFlag.DISTANCE_BPS)},
    "oco": {"decision_code": 1},
    "oto": {"decision_code": 2},
    "otoco": {"decision_code": 3},
    "more": {"flags": int(CommandFlag.LIST)},
    "cancel-all": {"flags": int(CommandFlag.CANCEL_ALL_ON_CLOSE)},
    "cancel-day": {"flags": int(CommandFlag.CANCEL_DAY_ON_CLOSE)},
    "own-session": {"flags": int(CommandFlag.BY_SESSION)},
    "buys": {"flags": int(CommandFlag.BY_SIDE), "side": int(Side.BUY)},
    "sells": {"flags": int(CommandFlag.BY_SIDE), "side": int(Side.SELL)},
}
NUMBERS = {
    "id": "client_order_id", "peak": "peak", "min": "min_qty", "until": "expire_ts",
    "trigger": "px2", "activation": "px2", "distance": "qty2",
}  # fmt: skip
ADMINISTRATIVE = {
    "open-account": CommandKind.OPEN_ACCOUNT,
    "list": CommandKind.LIST_INSTRUMENT,
    "rule": CommandKind.SET_RULE,
    "protect": CommandKind.SET_LIMITS,
    "phase": CommandKind.SET_PHASE,
    "feed": CommandKind.FEED_STATE,
    "time": CommandKind.TIME,
    "reset": CommandKind.PRODUCER_RESET,
    "incarnation": CommandKind.INCARNATION,
    "kill": CommandKind.KILL_SWITCH,
    "release": CommandKind.KILL_SWITCH,
    "limit": CommandKind.SET_LIMITS,
}
VERBS = {
    "buy": CommandKind.NEW,
    "sell": CommandKind.NEW,
    "cancel": CommandKind.CANCEL,
    "replace": CommandKind.REPLACE,
    "quote": CommandKind.QUOTE,
    "mass-cancel": CommandKind.MASS_CANCEL,
    "status": CommandKind.QUERY_ORDER,
    "open-orders": CommandKind.QUERY_OPEN_ORDERS,
    "logon": CommandKind.SESSION_OPEN,
    "logoff": CommandKind.SESSION_CLOSE,
    "keep": CommandKind.SESSION_KEEP,
}


def _amount(text: str) -> int:
    # 40, 3:40 (account:percent), or the name of an algorithm or of a self-trade mode.
    if text.upper() in Algorithm.__members__:
        return int(Algorithm[text.upper()])
    if text.upper() in SelfTrade.__members__:
        return int(SelfTrade[text.upper()])
    account, _, percent = text.rpartition(":")
    return int(account or 0) << 32 | int(percent) if account else int(percent)


class Venue(Protocol):
    """What plays a scenario: the model or the engine."""

    def apply(self, command: Command) -> list[Event]: ...

    def advance(self, in_ts: int) -> list[Event]: ...

    def state_digest(self) -> str: ...

    def check(self) -> None: ...

    def level_orders(self, symbol: str, side: int) -> list[tuple[int, int, int, int]]:
        """(price, order counter, account, leaves) in priority order."""
        ...


class Player:
    """Plays one scenario on one venue."""

    def __init__(self, scenario: Scenario, venue: Venue) -> None:
        self.scenario, self.venue = scenario, venue
        self.labels: dict[str, int] = {}  # label -> order counter
        accounts = int(scenario.settings.get("accounts", 3))
        # (account, session name) -> slot, logon number, producer
        self.sessions = {(n, "local"): (n, 1, SUPERVISOR) for n in range(1, accounts + 1)}
        self.symbols = [i.symbol for i in scenario.instruments] or [DEFAULT_SYMBOL]
        self.digest = ""

    def play(self) -> None:
        """Play all lines; ScenarioError says which line expected what."""
        for line in self.scenario.lines:
            try:
                self._play(line)
            except ScenarioError as error:
                place = f"{self.scenario.path.name}:{line.number}"
                raise ScenarioError(f"{place}: {line.text}\n{error}") from None
            except (KeyError, ValueError, IndexError) as error:
                place = f"{self.scenario.path.name}:{line.number}"
                raise ScenarioError(f"{place}: cannot read {line.text!r}: {error!r}") from error

    def _play(self, line: Line) -> None:
        words = line.text.split()
        if words[0] == "book":
            self._check_book(words[1] if len(words) > 1 else self.symbols[0], line)
        elif words == ["remember", "state"]:
            self.digest = self.venue.state_digest()
        elif words == ["same", "state"]:
            if self.venue.state_digest() != self.digest:
                raise ScenarioError("    the state is not what it was")
        elif words[:2] == ["advance", "to"]:
            self._compare(line, self.venue.advance(int(words[2])))
        elif words[0] == "repeat":
            for _ in range(int(words[1])):
                self._command(line, words[2:])
        else:
            self._command(line, words)
        self.venue.check()

    # ------------------------------------------------------------------------------- commands
    def _command(self, line: Line, words: list[str]) -> None:
        label = ""
        if "as" in words:
            label = words.pop(words.index("as") + 1)
            words.remove("as")
            for name in RESERVED.intersection(label.split(",")):
                raise ScenarioError(
                    f"    {name!r} cannot name an order: it is a word of the language"
                )
        command = self._build(words)
        events = self.venue.apply(command)
        accepted = [event for event in events if event["kind"] == EventKind.ACCEPTED]
        names = label.split(",") if "," in label else [label] * len(accepted)
        for name, event in zip(names, accepted, strict=False):
            if name:
                side = "ba"[event["side"]] if command["kind"] == CommandKind.QUOTE else ""
                self.labels[name + side] = event["order_id"] >> SLOT_BITS
        for event in events:
            if event["kind"] == EventKind.ACCOUNT and event["reason"] == Reason.SESSION_OPENED:
                name = event["text"].decode()
                who = (event["account"], name)
                self.sessions[who] = (event["session"], command["logon"], command["producer"])
        self._compare(line, events)

    def _compare(self, line: Line, events: list[Event]) -> None:
        if line.expected is None:
            if any(event["kind"] == EventKind.REJECTED for event in events):
                raise ScenarioError(f"    was refused: {self._told(events)}")
            return
        if len(events) != len(line.expected):
            count = f"    {len(line.expected)} events expected, {len(events)} came"
            raise ScenarioError(f"{count}:\n{self._told(events)}")
        for wanted, event in zip(line.expected, events, strict=True):
            wrong = self._differs(wanted, event)
            if wrong:
                raise ScenarioError(f"    {wanted!r}: {wrong}; came:\n{self._told(events)}")

    def _build(self, words: list[str]) -> Command:
        fields: Command = {}
        if "with" in words:
            at = words.index("with")
            for word in words[at + 1 :]:
                name, value = word.split("=")
                if name not in BLANK_COMMAND:
                    raise ScenarioError(f"    a command has no field {name!r}")
                fields[name] = int(value, 0)
            words = words[:at]
        who, verb, *rest = words
        command = BLANK_COMMAND.copy()
        if who == "admin":
            command.update(self._administrative(verb, rest))
        else:
            command.update(self._who(who, verb))
            for word in self._paired(rest, command):
                self._argument(command, word)
        return command | fields

    def _administrative(self, verb: str, rest: list[str]) -> Command:
        fields: Command = {"kind": int(ADMINISTRATIVE[verb]), "producer": SUPERVISOR}
        if verb == "open-account":
            fields["account"] = int(rest[0])
        elif verb == "list":
            fields |= {"symbol": pack_name(rest[0]), "amount": 10**9, "expire_ts": 10**9}
            fields["px2"] = int(rest[1].removeprefix("max="))
            fields |= {"stp": int(SelfTrade.NONE), "peak": 100}
        elif verb == "rule":
            name, _, value = rest[0].partition("=")
            fields |= {"symbol": pack_name(rest[2] if "on" in rest else self.symbols[0])}
            fields |= {"order_type": int(InstrumentRule[name.upper()]), "amount": _amount(value)}
        elif verb == "phase":
            fields |= {"symbol": pack_name(rest[2] if "on" in rest else self.symbols[0])}
            fields["order_type"] = int(Phase[rest[0].upper()])
        elif verb == "protect":
            fields |= {"symbol": pack_name(self.symbols[0]), "qty": int(rest[1])}
            fields |= {"account": ord(rest[0]) - ord("A") + 1, "amount": int((*rest, 0, 0)[3])}
        elif verb == "feed":
            options = dict(zip(rest[1::2], rest[2::2], strict=True))
            fields["order_type"] = ord(rest[0])
            fields |= {"amount": int(options.get("date", 0))}
            fields |= {"expire_ts": int(options.get("epoch", 0))}
        elif verb == "time" and rest:
            fields["in_ts"] = int(rest[0])
        elif verb == "reset":
            fields |= {"client_order_id": int(rest[0]), "amount": int(rest[2])}
        elif verb == "incarnation":
            fields["amount"] = int(rest[0])
        elif verb in ("kill", "release", "limit"):
            fields |= self._of_account(verb, rest)
        return fields

    def _of_account(self, verb: str, rest: list[str]) -> Command:
        # kill A · kill A/desk2 cancel · release A · limit A max_qty=5 on XYZ
        letter, _, name = rest[0].partition("/")
        fields: Command = {"account": ord(letter) - ord("A") + 1}
        if verb != "limit":
            blocks = KillAction.BLOCK_AND_CANCEL if "cancel" in rest else KillAction.BLOCK
            action = blocks if verb == "kill" else KillAction.RELEASE
            return fields | {"order_type": int(action), "text": name.encode()}
        what, _, value = rest[1].partition("=")
        fields |= {"order_type": int(AccountLimit[what.upper()]), "amount": int(value)}
        return fields | {"symbol": pack_name(rest[3] if "on" in rest else self.symbols[0])}

    def _who(self, who: str, verb: str) -> Command:
        letter, _, name = who.partition("/")
        name = name or "local"
        account = ord(letter) - ord("A") + 1
        slot, logon, producer = self.sessions.get((account, name), (99, 0, SUPERVISOR))
        kind = VERBS[verb]
        fields: Command = {"kind": int(kind), "account": account, "producer": producer}
        if kind == CommandKind.SESSION_OPEN:
            return fields | {"logon": logon + 1, "text": name.encode()}
        fields |= {"session": slot, "logon": logon}
        if kind == CommandKind.QUOTE:
            fields["symbol"] = pack_name(self.symbols[0])
        elif kind == CommandKind.NEW:
            fields |= {"side": int(verb == "sell"), "order_type": int(OrderType.LIMIT)}
            fields["symbol"] = pack_name(self.symbols[0])
        elif kind == CommandKind.REPLACE:
            fields |= {"side": UNSTATED, "tif": UNSTATED}
        return fields

    def _paired(self, words: list[str], command: Command) -> Iterator[str]:
        # Takes out the words that come in pairs: on SYMBOL, after ORDER, rows N, tag N, dead-man N.
        rest = iter(words)
        for word in rest:
            if word == "on":
                command["symbol"] = pack_name(next(rest))
                if command["kind"] not in (CommandKind.NEW, CommandKind.QUOTE):
                    command["flags"] |= int(CommandFlag.BY_SYMBOL)
            elif word == "after":
                command["order_id"] = self.labels[next(rest)] << SLOT_BITS
            elif word == "rows":
                command["qty"] = int(next(rest))
            elif word == "dead-man":
                command["amount"] = int(next(rest))
            elif word == "tag":
                command["tag"] = int(next(rest))
                if command["kind"] == CommandKind.MASS_CANCEL:
                    command["flags"] |= int(CommandFlag.BY_TAG)
            elif word != "to":
                yield word

    def _argument(self, command: Command, word: str) -> None:
        amount = re.fullmatch(r"(-?\d+)?(?:@(-?\d+))?", word)
        if word in STYLES:
            for name, value in STYLES[word].items():
                command[name] = command["flags"] | value if name == "flags" else value
        elif amount:
            command["qty"], command["px"] = int(amount[1] or 0), int(amount[2] or 0)
        elif word.partition("=")[0] in NUMBERS:
            name, _, value = word.partition("=")
            command[NUMBERS[name]] = int(value)
            if name == "until":
                command["tif"] = int(TimeInForce.GTD)
        elif word.startswith(("bid=", "ask=")):
            names = ("qty", "px") if word.startswith("bid") else ("qty2", "px2")
            numbers = (int(number or 0) for number in word[4:].partition("@")[::2])
            command.update(zip(names, numbers, strict=True))
        elif word.startswith("budget="):
            command["order_type"] = int(OrderType.BUDGET)
            command["amount"] = int(Decimal(word[7:]) * 10**9)
        elif word.startswith("stp="):
            command["stp"] = int(SelfTrade[word[4:].upper()])
        elif word.startswith("#"):
            command["target_client_order_id"] = int(word[1:])
        elif word.startswith('"') and word.endswith('"'):
            command["flags"] |= int(CommandFlag.TEXT_ID)
            command["text"] = word[1:-1].encode()
        elif word.startswith("order:"):
            command["order_id"] = int(word[6:]) << SLOT_BITS
        elif word in self.labels:
            command["order_id"] = self.labels[word] << SLOT_BITS
        else:
            raise ScenarioError(f"    what is {word!r}?")

    # ---------------------------------------------------------------------------- expectations
    def _differs(self, wanted: str, event: Event) -> str:
        kind, *words = wanted.split()
        if EventKind(event["kind"]).name != kind:
            return f"it is {EventKind(event['kind']).name}"
        for word in words:
            for name, value in self._meaning(word, event):
                if event[name] != value:
                    return f"{word}: {name} is {event[name]}"
        flags = sum(int(flag) for flag in FLAG_WORDS.values()) & event["flags"]
        if kind == "REPLACED" and flags != sum(
            int(flag) for name, flag in FLAG_WORDS.items() if name in words
        ):
            return f"its flags are {[name for name, flag in FLAG_WORDS.items() if flag & flags]}"
        return ""

    def _meaning(self, word: str, event: Event) -> Iterator[tuple[str, Any]]:
        # The fields and values that a word of an expectation stands for.
        amount = re.fullmatch(r"(\d+)?(?:@(\d+))?", word)
        if event["kind"] == EventKind.REJECTED and word.isdigit():
            yield "code", int(word)
        elif amount:
            yield from [("qty", int(amount[1]))] if amount[1] else []
            yield from [("px", int(amount[2]))] if amount[2] else []
        elif word in FLAG_WORDS:
            return
        elif word in MARKS:
            mask, there = MARKS[word]
            yield "flags", event["flags"] & ~mask | (mask if there else 0)
        elif word in ("maker", "taker", "auction"):
            yield "role", int(Role[word.upper()])
        elif word in ("public", "private"):
            yield (
                "feed_seq",
                event["feed_seq"] if (word == "public") == (event["feed_seq"] > 0) else word,
            )
        elif "=" in word:
            name, value = word.split("=")
            yield ALIASES.get(name, name), value.encode() if name == "text" else int(value)
        elif word in self.labels:
            counter = event["order_id"] >> SLOT_BITS
            yield "order_id", event["order_id"] if counter == self.labels[word] else word
        elif event["kind"] == EventKind.REJECTED:
            yield "code", int(RejectCode[word])
        elif event["kind"] == EventKind.STATUS:
            yield "role", int(OrderState[word.upper()])
        else:
            yield "reason", int(Reason[word.upper()])

    def _told(self, events: list[Event]) -> str:
        return "\n".join(f"        {self._tell(event)}" for event in events)

    def _tell(self, event: Event) -> str:
        # The event in the language of the scenarios, to be read or pasted.
        names = {counter: label for label, counter in self.labels.items()}
        words = [EventKind(event["kind"]).name, names.get(event["order_id"] >> SLOT_BITS, "")]
        if event["code"]:
            words.append(str(event["code"]))
        words.append(f"{event['qty'] or ''}" + (f"@{event['px']}" if event["px"] else ""))
        if event["kind"] == EventKind.FILL:
            words.append(Role(event["role"]).name.lower())
        words += [name for name, flag in FLAG_WORDS.items() if event["flags"] & flag]
        words += [word for word, (mask, there) in MARKS.items() if there and event["flags"] & mask]
        words += [Reason(event["reason"]).name.lower()] if event["reason"] else []
        told = ("leaves", "cum", "trade_id", "public_ref", "old_ref", "shown", "shown_before")
        for name in (*told, "px2"):
            words += [f"{name}={event[name]}"] if event[name] else []
        return " ".join(word for word in words if word)

    def _check_book(self, symbol: str, line: Line) -> None:
        drawn = [self._row(symbol, side, px) for side, px in self._ladder(symbol)]
        wanted = [" ".join(row.split()) for row in line.rows]
        if wanted != (drawn or ["empty"]):
            rows = "\n".join(f"        | {row}" for row in drawn or ["empty"])
            raise ScenarioError(f"    the book is\n{rows}")

    def _ladder(self, symbol: str) -> Iterator[tuple[int, int]]:
        for side in (Side.SELL, Side.BUY):
            orders = self.venue.level_orders(symbol, side)
            for px in sorted({order[0] for order in orders}, reverse=True):
                yield side, px

    def _row(self, symbol: str, side: int, px: int) -> str:
        names = {counter: label for label, counter in self.labels.items()}
        level = [order for order in self.venue.level_orders(symbol, side) if order[0] == px]
        word = "ask" if side == Side.SELL else "bid"
        unnamed = all(counter not in names for _, counter, _, _ in level)
        if unnamed and len(level) > 3:
            return f"{px} {word} {len(level)} orders {sum(order[3] for order in level)}"
        owner = "ABCDEFGH"
        told = [f"{names.get(n, owner[a - 1])}:{leaves}" for _, n, a, leaves in level]
        return f"{px} {word} {' '.join(told)}"
