"""Commands and events as the lines of a scenario: what player.py reads, written.

Cold; used by tests only. Words where the language has them, `with field=value` for all else.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from engine.records import (
    SLOT_BITS,
    UNSTATED,
    Algorithm,
    CommandFlag,
    CommandKind,
    EventKind,
    InstrumentRule,
    OrderType,
    Phase,
    Reason,
    Role,
    SelfTrade,
    TimeInForce,
)
from tests.scenarios.player import FLAG_WORDS, STYLES

Command = dict[str, Any]
Event = dict[str, Any]
VERBS = {
    CommandKind.NEW: ("buy", "sell"),
    CommandKind.CANCEL: ("cancel", "cancel"),
    CommandKind.REPLACE: ("replace", "replace"),
    CommandKind.MASS_CANCEL: ("mass-cancel", "mass-cancel"),
    CommandKind.SESSION_OPEN: ("logon", "logon"),
    CommandKind.SESSION_CLOSE: ("logoff", "logoff"),
    CommandKind.QUOTE: ("quote", "quote"),
}
TYPE_WORDS = {v["order_type"]: word for word, v in STYLES.items() if "order_type" in v}
LIST_WORDS = {v["decision_code"]: word for word, v in STYLES.items() if "decision_code" in v}
TIF_WORDS = {v["tif"]: word for word, v in STYLES.items() if "tif" in v}
FLAG_OPTIONS = {
    CommandFlag.POST_ONLY: "post-only",
    CommandFlag.HIDDEN: "hidden",
    CommandFlag.PROTECTED: "protected",
    CommandFlag.TRIGGER_BEST: "on-best",
    CommandFlag.DISTANCE_BPS: "bps",
    CommandFlag.LIST: "more",
}
SHOWN = {EventKind.BOOKED, EventKind.REFRESHED, EventKind.PREVENTED}


class Writer:
    """Writes one story."""

    def __init__(self, settings: str) -> None:
        self.settings = settings
        self.names: dict[int, str] = {}  # order -> name

    def story(self, title: str, commands: list[Command], events: list[list[Event]]) -> str:
        """The whole story, a line for each command."""
        lines = [f"\n=== {title}", *self.settings.splitlines()]
        for number, (command, told) in enumerate(zip(commands, events, strict=True), 1):
            text = self._command(command)
            if command["in_ts"] and command["kind"] != CommandKind.TIME:
                text += f" in_ts={command['in_ts']}" if "with" in text else ""
                text += f" with in_ts={command['in_ts']}" if "with" not in text else ""
            accepted = [e for e in told if e["kind"] == EventKind.ACCEPTED]
            label = self._label(number, accepted, command["kind"] == CommandKind.QUOTE)
            text += f" as {label}" if label else ""
            lines += _folded(text, [self._event(event) for event in told])
        return "\n".join(lines) + "\n"

    def _label(self, number: int, accepted: list[Event], quoted: bool) -> str:
        # Names what the command brought: one order, the two of a quote, or the legs of a list.
        if not accepted:
            return ""
        if quoted:
            self.names |= {e["order_id"]: f"q{number}{'ba'[e['side']]}" for e in accepted}
            return f"q{number}"
        legs = "" if len(accepted) == 1 else "abc"
        names = [f"o{number}{legs[n : n + 1]}" for n in range(len(accepted))]
        self.names |= dict(zip((e["order_id"] for e in accepted), names, strict=True))
        return ",".join(names)

    # ------------------------------------------------------------------------------- commands
    def _command(self, c: Command) -> str:
        kind = c["kind"]
        if kind == CommandKind.SET_RULE:
            return self._rule(c)
        if kind == CommandKind.SET_PHASE:
            return f"admin phase {Phase(c['order_type']).name.lower()}"
        if kind == CommandKind.SET_LIMITS:
            who = "ABCDEFGH"[c["account"] - 1]
            return f"admin protect {who} {c['qty']} within {c['amount']}"
        if kind == CommandKind.TIME:
            return f"admin time {c['in_ts']}"
        words = ["ABCDEFGH"[c["account"] - 1], VERBS[kind][c["side"] % 2]]
        if kind in (CommandKind.CANCEL, CommandKind.REPLACE):
            counter = c["order_id"] >> SLOT_BITS
            words.append(self.names.get(c["order_id"], f"order:{counter}"))
        if kind == CommandKind.SESSION_OPEN:
            return " ".join([*words, "cancel-all"])
        if kind == CommandKind.QUOTE:
            words += [f"bid={c['qty']}@{c['px']}"] if c["qty"] or c["px"] else []
            words += [f"ask={c['qty2']}@{c['px2']}"] if c["qty2"] or c["px2"] else []
            return " ".join(words)
        if kind == CommandKind.REPLACE and (c["qty"] or c["px"]):
            words.append("to")
        if c["qty"] or c["px"]:
            words.append(f"{c['qty'] or ''}" + (f"@{c['px']}" if c["px"] else ""))
        return " ".join([*words, *self._options(c)])

    def _rule(self, c: Command) -> str:
        if c["order_type"] not in set(InstrumentRule):
            return f"admin rule stp=1 with order_type={c['order_type']} amount={c['amount']}"
        rule, value = InstrumentRule(c["order_type"]), c["amount"]
        if rule == InstrumentRule.ALGORITHM and value in set(Algorithm):
            value = Algorithm(value).name.lower()
        elif rule == InstrumentRule.LMM:
            value = f"{value >> 32}:{value & 0xFFFFFFFF}"
        return f"admin rule {rule.name.lower()}={value}"

    def _options(self, c: Command) -> list[str]:
        words, flags, rest = [], c["flags"], {}
        if c["kind"] != CommandKind.NEW:
            rest |= {"order_type": c["order_type"]} if c["order_type"] else {}
        elif c["order_type"] == OrderType.BUDGET:
            words.append(f"budget={Decimal(c['amount']).scaleb(-9).normalize():f}")
        elif c["order_type"] in TYPE_WORDS:
            words.append(TYPE_WORDS[c["order_type"]])
        elif c["order_type"] != OrderType.LIMIT:
            rest["order_type"] = c["order_type"]
        if c["kind"] == CommandKind.MASS_CANCEL:
            sides = flags & CommandFlag.BY_SIDE
            return ["sells" if c["side"] else "buys"] if sides else []
        for flag, word in FLAG_OPTIONS.items():
            if flags & flag:
                words.append("slide" if flag == 1 and flags & CommandFlag.SLIDE else word)
        known = sum(FLAG_OPTIONS) | CommandFlag.SLIDE
        if flags & ~known:
            rest["flags"] = flags
        if c["tif"] == TimeInForce.GTD:
            words.append(f"until={c['expire_ts']}")
        elif c["tif"] in TIF_WORDS:
            words.append(TIF_WORDS[c["tif"]])
        elif c["tif"] not in (TimeInForce.GTC, UNSTATED):
            rest["tif"] = c["tif"]
        for name, word in (("peak", "peak"), ("min_qty", "min"), ("px2", "trigger")):
            words += [f"{word}={c[name]}"] if c[name] else []
        words += [f"distance={c['qty2']}"] if c["qty2"] else []
        words += [f"stp={SelfTrade(c['stp']).name.lower()}"] if c["stp"] else []
        words += [LIST_WORDS[c["decision_code"]]] if c["decision_code"] in LIST_WORDS else []
        return words + _raw(rest)

    # --------------------------------------------------------------------------------- events
    def _event(self, event: Event) -> str:
        kind = EventKind(event["kind"])
        words = [kind.name, self.names.get(event["order_id"], "")]
        if kind == EventKind.REJECTED:
            return f"{kind.name} {event['code']}"
        words.append(f"{event['qty'] or ''}" + (f"@{event['px']}" if event["px"] else ""))
        words += [f"code={event['code']}"] if event["code"] else []
        if kind == EventKind.FILL:
            words += [Role(event["role"]).name.lower(), f"leaves={event['leaves']}"]
        if kind in SHOWN and event["shown"] != event["qty"]:
            words.append(f"shown={event['shown']}")
        if kind == EventKind.REPLACED:
            words += [word for word, flag in FLAG_WORDS.items() if event["flags"] & flag]
        words += [Reason(event["reason"]).name.lower()] if event["reason"] else []
        return " ".join(word for word in words if word)


def _raw(fields: Command) -> list[str]:
    return ["with", *(f"{name}={int(value)}" for name, value in fields.items())] if fields else []


def _folded(text: str, events: list[str]) -> list[str]:
    # One line where it fits, else the events below, folded at 100 columns.
    whole = f"{text} -> {'; '.join(events) or 'nothing'}"
    if len(whole) <= 100:
        return [whole]
    lines, line = [text], "   ->"
    for number, event in enumerate(events):
        part = f" {event};" if number < len(events) - 1 else f" {event}"
        if len(line) + len(part) > 100:
            lines.append(line.rstrip(";"))
            line = "   ->"
        line += part
    return [*lines, line.rstrip(";")]
