"""What an operator of a running exchange may ask for: one function a verb, and the table of them.

Cold; in the supervisor, called by engine/operator_door.py. A verb reads a request (a flat JSON
object) and either answers at once, from what the shards have in shared memory, or gives a Task:
commands for the supervisor's rings, and how each shard's answer is told among its events. Whatever
is wrong is a Refused with a code of EVENTS.md and a sentence.

    {"verb": "phase", "symbol": "GOLD", "phase": "halted"}
    {"verb": "rule", "symbol": "GOLD", "key": "static_band", "value": "500"}
    {"verb": "arm", "symbol": "GOLD", "account": "alice"}     its market-maker protection, again
    {"verb": "instruments", "symbol": "GOLD"}          symbol left out: all, `after` pages

A new verb is a function and a row of VERBS; what it sends goes to the shard by the same way as
everything of the supervisor, so it is journaled, and a client who sends it is refused 202.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.admin import admin_record, set_limits
from engine.book_state import SYMBOLS_USED, ShardState
from engine.calendars import calendar_of, phase_named, turn_after
from engine.codes import (
    Algorithm,
    CommandKind,
    EventFlag,
    EventKind,
    InstrumentRule,
    Phase,
    Reason,
    RejectCode,
    RuleSet,
    SelfTrade,
)
from engine.config import ON_BREACH, Config, Instrument
from engine.instance import Instance
from engine.records import QTY_LOTS_MAX, pack_name, unpack_name
from engine.sharding import shard_of_symbol

PAGE_ROWS = 50
UNITS, DECIMALS = 10**9, 9
Answer = dict[str, Any]
Request = Mapping[str, Any]


class Refused(Exception):
    """A request that is not carried out."""

    def __init__(self, code: RejectCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text

    @property
    def answer(self) -> Answer:
        """What the operator is told."""
        reason = self.code.name.lower()
        return {"ok": False, "code": int(self.code), "reason": reason, "text": self.text}


@dataclass
class Errand:
    """One command on its way to one shard.

    `ends(event, own)` gives the answer when this event of the shard tells it; `own`: the event is
    of this very command. A Refused it raises is the answer, too.
    """

    shard: int
    record: np.ndarray
    ends: Callable[[Any, bool], Answer | None]


@dataclass
class Task:
    """What has to be done for a request: errands, and the answer made of theirs."""

    errands: list[Errand]
    whole: Callable[[list[Answer]], Answer] = field(default=lambda answers: answers[0])


@dataclass
class Market:
    """What verbs look at."""

    config: Config
    instance: Instance

    def find(self, request: Request) -> "Listed":
        """The instrument that the request names."""
        name = text_of(request, "symbol")
        try:
            packed = pack_name(name)
        except ValueError as error:
            raise Refused(RejectCode.UNKNOWN_SYMBOL, f"{name!r}: {error}") from error
        shard = shard_of_symbol(name, self.instance.shards)
        for one in self.listed(shard):
            if one.packed == packed:
                return one
        raise Refused(RejectCode.UNKNOWN_SYMBOL, f"no instrument {name} is listed")

    def listed(self, shard: int) -> "list[Listed]":
        """All instruments of a shard, as its memory has them now."""
        state = self.instance.shard_state(shard)
        used = int(state.arrays["live_hdr"][SYMBOLS_USED])
        terms = {pack_name(each.symbol): each for each in self.config.instruments}
        names = [int(name) for name in state.names[1 : used + 1]]
        return [Listed(shard, place, n, state, terms.get(n)) for place, n in enumerate(names, 1)]


@dataclass
class Listed:
    """One instrument, seen from outside while its shard works on it."""

    shard: int
    index: int
    packed: int
    state: ShardState
    terms: Instrument | None  # of the configuration

    @property
    def name(self) -> str:
        return unpack_name(self.packed)

    @property
    def symbol_id(self) -> int:
        return int(self.state.symbols[self.index]["symbol_id"])

    @property
    def phase(self) -> Phase:
        return Phase(int(self.state.symbols[self.index]["phase"]))

    @property
    def is_full(self) -> bool:
        return int(self.state.symbols[self.index]["rules"]) == RuleSet.FULL

    def next_turn(self) -> Answer | None:
        """When its calendar goes on, and how."""
        turns = calendar_of(self.terms.calendar) if self.terms is not None else ()
        if not turns:
            return None
        turn = turn_after(turns, time.time_ns())
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(turn.at // UNITS))
        return {"at": moment, "phase": turn.phase.name.lower()}

    def price(self, px: int) -> str | None:
        """Ticks as decimal text; None for none."""
        return decimal_text(px * int(self.state.symbols[self.index]["tick"])) if px else None


def decimal_text(units: int) -> str:
    """An integer of 1e-9 as decimal text."""
    whole, part = divmod(units, UNITS)
    return f"{whole}.{part:0{DECIMALS}d}".rstrip("0").rstrip(".")


def text_of(request: Request, key: str) -> str:
    """Text that a request has to state."""
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(RejectCode.BAD_FIELD, f"{key} is missing")
    return value


def full_only(one: Listed) -> None:
    """Refuse what only instruments with the full rules have."""
    if not one.is_full:
        raise Refused(
            RejectCode.NOT_SUPPORTED_HERE,
            f"{one.name} trades by the plain rules: it is always continuous, and has no rules to"
            ' set (rules = "full" in the configuration)',
        )


# ------------------------------------------------------------------------------------------- phase
def phase(market: Market, request: Request) -> Task:
    """Change the phase of an instrument."""
    one = market.find(request)
    try:
        new = phase_named(text_of(request, "phase"))
    except ValueError as error:
        raise Refused(RejectCode.BAD_FIELD, str(error)) from error
    full_only(one)
    old = one.phase

    def ends(event: Any, own: bool) -> Answer | None:
        if event["kind"] == EventKind.REJECTED and own:
            code = RejectCode(int(event["code"]))
            raise Refused(code, phase_refused(one.name, one.phase, new))
        mine = int(event["symbol_id"]) == one.symbol_id
        if event["kind"] == EventKind.PHASE and mine and event["code"] == new:
            return {
                "ok": True, "symbol": one.name, "shard": one.shard, "phase": new.name.lower(),
                "was": Phase(int(event["amount"])).name.lower(), "next": one.next_turn(),
            }  # fmt: skip
        extended = event["kind"] == EventKind.BAND and mine and own
        if extended and event["flags"] & EventFlag.LAST:
            raise Refused(
                RejectCode.STATIC_BAND,
                f"{one.name} stays in its {old.name.lower()}, extended: its auction price is"
                " outside the static band",
            )
        return None

    record = admin_record(CommandKind.SET_PHASE, symbol=one.packed, order_type=new)
    return Task([Errand(one.shard, record, ends)])


def phase_refused(name: str, old: Phase, new: Phase) -> str:
    """Why a change of phase is not possible."""
    if old == new:
        return f"{name} is {old.name.lower()} already"
    text = f"{name} is {old.name.lower()}: it cannot become {new.name.lower()} from there"
    if new == Phase.CONTINUOUS:
        return f"{text}, only through a call (volatility_call, then continuous)"
    if old == Phase.CANCEL_ONLY:
        return f"{text}, only what it was before, halted or closed"
    return text


# -------------------------------------------------------------------------------------------- rule
WORDS: dict[InstrumentRule, tuple[str, ...]] = {
    InstrumentRule.ALGORITHM: tuple(each.name.lower() for each in Algorithm),
    InstrumentRule.STP: tuple(each.name.lower() for each in SelfTrade),
    InstrumentRule.ON_BREACH: ON_BREACH,
}


def rule_named(text: str) -> InstrumentRule:
    """The rule of that name."""
    if text.upper() not in InstrumentRule.__members__:
        known = ", ".join(each.name.lower() for each in InstrumentRule)
        raise Refused(RejectCode.BAD_FIELD, f"{text!r} is no rule; there are {known}")
    return InstrumentRule[text.upper()]


def rule_value(key: InstrumentRule, text: str) -> int:
    """A value as an operator writes it."""
    if key in WORDS:
        if text.lower() not in WORDS[key]:
            known = ", ".join(WORDS[key])
            raise Refused(RejectCode.BAD_FIELD, f"{key.name.lower()} is one of {known}")
        return WORDS[key].index(text.lower())
    account, colon, percent = text.partition(":")
    if key == InstrumentRule.LMM:
        if not (colon and account.isdecimal() and percent.isdecimal() and len(text) < 16):
            raise Refused(RejectCode.BAD_FIELD, 'lmm is like "3:40", account:percent')
        return int(account) << 32 | int(percent)
    if not text.isdecimal() or len(text) > 18:
        raise Refused(RejectCode.BAD_FIELD, f"{key.name.lower()} is a whole number")
    return int(text)


def rule(market: Market, request: Request) -> Task:
    """Set a rule of an instrument."""
    one = market.find(request)
    key = rule_named(text_of(request, "key"))
    text = text_of(request, "value")
    value = rule_value(key, text)
    full_only(one)
    name = key.name.lower()

    def ends(event: Any, own: bool) -> Answer | None:
        if event["kind"] == EventKind.REJECTED and own:
            code = RejectCode(int(event["code"]))
            said = {
                RejectCode.OUT_OF_RANGE: f"{name} of {one.name} cannot be {text}",
                RejectCode.NOT_SUPPORTED_HERE: f"{name} {text} is not supported by this version",
            }
            raise Refused(code, said.get(code, f"{name} of {one.name} cannot be set to {text} now"))
        mine = int(event["symbol_id"]) == one.symbol_id
        if event["kind"] == EventKind.LISTED and mine and own:
            stated = one.terms is not None and any(key == each for each, _ in one.terms.rule_values)
            return {
                "ok": True, "symbol": one.name, "shard": one.shard, "key": name, "value": text,
                "until_restart": stated,
            }  # fmt: skip
        return None

    record = admin_record(CommandKind.SET_RULE, symbol=one.packed, order_type=key, amount=value)
    return Task([Errand(one.shard, record, ends)])


# --------------------------------------------------------------------------------------------- arm
def arm(market: Market, request: Request) -> Task:
    """Arm a market-maker protection again that has fired; lots and window as the configuration has
    them, or as the request says.
    """
    one = market.find(request)
    name = text_of(request, "account")
    full_only(one)
    numbers = {account.name: account.account for account in market.config.accounts}
    if name not in numbers:
        raise Refused(RejectCode.NOT_AUTHORISED, f"no account {name!r} in the configuration")
    lots, window_ms = protection_of(market, one.name, name)
    lots = number_of(request, "lots", lots)
    window_ms = number_of(request, "window_ms", window_ms)

    def ends(event: Any, own: bool) -> Answer | None:
        if event["kind"] == EventKind.REJECTED and own:
            code = RejectCode(int(event["code"]))
            raise Refused(code, f"{lots} lots within {window_ms} ms are no protection of {name}")
        mine = int(event["symbol_id"]) == one.symbol_id and event["account"] == numbers[name]
        if event["kind"] == EventKind.ACCOUNT and event["reason"] == Reason.MMP and mine and own:
            return {
                "ok": True, "symbol": one.name, "shard": one.shard, "account": name,
                "lots": int(event["amount"]), "window_ms": int(event["amount2"]) // 10**6,
            }  # fmt: skip
        return None

    record = set_limits(numbers[name], one.name, lots, window_ms * 10**6)
    return Task([Errand(one.shard, record, ends)])


def protection_of(market: Market, symbol: str, account: str) -> tuple[int | None, int]:
    """Lots and window that the configuration has."""
    for each in market.config.protections:
        if (each.symbol, each.account) == (symbol, account):
            return each.lots, each.window_ms
    return None, 1000


def number_of(request: Request, key: str, default: int | None) -> int:
    """A whole number of a request."""
    value = default if request.get(key) is None else request[key]
    if type(value) is not int or not 0 <= value <= QTY_LOTS_MAX:
        raise Refused(
            RejectCode.BAD_FIELD, f"{key} is a whole number; the configuration states none here"
        )
    return value


# ------------------------------------------------------------------------------------- instruments
def instruments(market: Market, request: Request) -> Answer:
    """What is listed, a page in order of name: phase, calendar, references, rules in force."""
    if request.get("symbol") is not None:
        return {"ok": True, "instruments": [row_of(market.find(request))], "next": None}
    after = str(request.get("after") or "")
    found = [one for shard in range(market.instance.shards) for one in market.listed(shard)]
    left = sorted((one for one in found if one.name > after), key=lambda one: one.name)
    page = left[:PAGE_ROWS]
    more = page[-1].name if len(left) > PAGE_ROWS else None
    return {"ok": True, "instruments": [row_of(one) for one in page], "next": more}


def row_of(one: Listed) -> Answer:
    """One instrument for an operator."""
    row: Answer = {
        "symbol": one.name, "shard": one.shard, "phase": one.phase.name.lower(),
        "trades_by": RuleSet.FULL.name.lower() if one.is_full else RuleSet.PLAIN.name.lower(),
    }  # fmt: skip
    if not one.is_full:
        return row
    rules, call = one.state.rules[one.index], one.state.calls[one.index]
    return row | {
        "calendar": list(one.terms.calendar) if one.terms is not None else [],
        "next": one.next_turn(),
        "static_reference": one.price(int(call["static_ref"])),
        "dynamic_reference": one.price(int(call["dynamic_ref"])),
        "extensions": int(call["extensions"]),
        "waiting_for_a_call": int(call["count"][1]),
        "rules": {key.name.lower(): shown_value(rules, key) for key in InstrumentRule},
    }


def shown_value(rules: Any, key: InstrumentRule) -> Any:
    """A rule in force, as an operator would set it."""
    if key == InstrumentRule.LMM:
        pairs = zip(rules["lead_account"], rules["lead_percent"], strict=True)
        return [f"{a}:{p}" for a, p in list(pairs)[: int(rules["lead_count"])]]
    value = int(rules["rule"][key])
    return WORDS[key][value] if key in WORDS and value < len(WORDS[key]) else value


VERBS: dict[str, Callable[[Market, Request], Answer | Task]] = {
    "phase": phase,
    "rule": rule,
    "arm": arm,
    "instruments": instruments,
}
