"""What must be true of every event stream of full instruments, whoever wrote it.

Cold; used by tests only. As stream_check.py: the checker sees events and nothing else. It follows
each order's quantities (accepted = filled + cancelled or expired + prevented + open, RULES §1),
rebuilds the displayed book from the public events, and holds each command against the grammar of
EVENTS §1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from engine.records import EventFlag, EventKind, Phase, Role
from tests.model.stream_check import StreamChecker

Event = dict[str, Any]
KEPT, WILL_TRADE = int(EventFlag.KEPT), int(EventFlag.WILL_TRADE)
LETTERS = {
    EventKind.ACCEPTED: "A",
    EventKind.REPLACED: "A",
    EventKind.REJECTED: "X",
    EventKind.CANCELED: "C",
    EventKind.EXPIRED: "E",
    EventKind.BOOKED: "B",
    EventKind.FILL: "F",
    EventKind.REFRESHED: "R",
    EventKind.PREVENTED: "P",
    EventKind.TRIGGERED: "T",
    EventKind.ACTIVATED: "J",
    EventKind.PARKED: "K",
    EventKind.REPRICED: "Q",
    EventKind.MMP_FIRED: "M",
    EventKind.PHASE: "H",
    EventKind.CROSSED: "U",
    EventKind.BAND: "D",
    EventKind.INDICATIVE: "I",
    EventKind.SUMMARY: "S",
    EventKind.STATUS: "Y",
    EventKind.ACCOUNT: "N",
    EventKind.LISTED: "L",
    EventKind.SESSION: "O",
}
CALL = "(?:HK*(?:J(?:B|EC*))*)"  # a call that begins
RUN = f"(?:PPE?C*|FFC*R*)*(?:R*)(?:B|EC*)?{CALL}?"
CROSS = "(?:(?:FFC*)*UR*)+(?:EC*)*D?"
PEG = "(?:(?:PPE?C*|FFC*R*)+|R*(?:Q|EC*))"  # in its parts: what trades away whole is not REPRICED
AFTER = f"(?:{CROSS}(?:MC*)*)?(?:MC*|TC*{RUN}|K|{PEG}|{CALL})*"  # a balanced batch crosses first
UNCROSS = f"L?(?:{CROSS})?(?:{CALL}|H)?{AFTER}|DL?"
GRAMMAR = re.compile(
    "X"
    f"|A+K*{RUN}(?:A?{RUN}){AFTER}"  # a replace of one leg of an OCO may change the other
    f"|[AC]{{1,2}}{RUN}(?:MC*)*{RUN}(?:MC*)*{AFTER}"  # a quote
    f"|JJ?(?:T?C*{RUN})(?:T?C*{RUN}){AFTER}"
    f"|[CE]C*{AFTER}"
    f"|{UNCROSS}"
    f"|N?(?:CC*)*{AFTER}S?"
    "|Y*S?"
    "|N|O(?:LH)*B*|(?:LH)(?:.*)|L|I"
)


@dataclass(slots=True)
class FullLife:
    """What the events said about one order so far."""

    side: int
    symbol_id: int
    total: int
    cum: int = 0
    prevented: int = 0
    gone: int = 0
    public_ref: int = 0
    px: int = 0  # of the slice the public sees


@dataclass
class FullStreamChecker(StreamChecker):
    """Feed it every event of a shard from the first on; it asserts."""

    lives: dict[int, FullLife] = field(default_factory=dict)  # type: ignore[assignment]
    phases: dict[int, int] = field(default_factory=dict)
    crossed_allowed: bool = False

    def _follow(self, event: Event) -> None:
        kind, order_id = event["kind"], event["order_id"]
        if kind == EventKind.LISTED:
            self.books.setdefault(event["symbol_id"], ({}, {}))
        elif kind == EventKind.PHASE:
            self.phases[event["symbol_id"]] = event["code"]
        elif kind == EventKind.ACCEPTED:
            assert order_id not in self.lives
            assert order_id not in self.ended
            self.lives[order_id] = FullLife(event["side"], event["symbol_id"], event["qty"])
        elif order_id in self.lives:
            self._tell(self.lives[order_id], event)
        if order_id in self.lives and kind != EventKind.REJECTED:
            life = self.lives[order_id]
            assert event["cum"] == life.cum
            left = life.total - life.cum - life.prevented - life.gone
            assert event["leaves"] == left >= 0
            if not left and (kind != EventKind.PREVENTED):
                assert not life.public_ref, "ended, and still displayed"
                del self.lives[order_id]
                self.ended.add(order_id)

    def _tell(self, life: FullLife, event: Event) -> None:
        kind = event["kind"]
        if kind == EventKind.REPLACED:
            life.total = event["qty"]
            if event["flags"] & KEPT:
                self._resize(life, event)
            elif event["flags"] & WILL_TRADE:
                self._take_off(life, event["shown_before"])
        elif kind in (EventKind.BOOKED, EventKind.REFRESHED, EventKind.REPRICED):
            self._display(life, event)
        elif kind == EventKind.FILL:
            self._fill(life, event)
        elif kind == EventKind.PREVENTED:
            life.prevented += event["qty"]
            if event["shown_before"] > event["shown"] > 0:
                self._resize(life, event)
        elif kind in (EventKind.CANCELED, EventKind.EXPIRED):
            life.gone += event["qty"]
            assert event["leaves"] == 0
            if event["shown_before"]:
                assert event["public_ref"] == life.public_ref
                self._take_off(life, event["shown_before"])
        elif kind == EventKind.PARKED and event["shown_before"]:
            assert event["public_ref"] == life.public_ref
            self._take_off(life, event["shown_before"])

    # --------------------------------------------------------------------- the displayed book
    def _level(self, life: FullLife) -> dict[int, int]:
        return self.books[life.symbol_id][life.side].setdefault(life.px, {})

    def _take_off(self, life: FullLife, shown: int) -> None:
        if not life.public_ref:
            assert shown == 0
            return
        level = self._level(life)
        assert level.pop(life.public_ref) == shown
        if not level:
            del self.books[life.symbol_id][life.side][life.px]
        life.public_ref = 0

    def _resize(self, life: FullLife, event: Event) -> None:
        assert event["public_ref"] == life.public_ref
        if life.public_ref:
            level = self._level(life)
            assert level[life.public_ref] == event["shown_before"]
            assert event["shown"] <= event["shown_before"]
            level[life.public_ref] = event["shown"]

    def _display(self, life: FullLife, event: Event) -> None:
        if life.public_ref:  # ITCH U
            assert event["old_ref"] == life.public_ref
            self._take_off(life, self._level(life)[life.public_ref])
        if event["shown"]:
            self.public_ref += 1
            assert event["public_ref"] == self.public_ref
            life.public_ref, life.px = event["public_ref"], event["px"]
            self._level(life)[life.public_ref] = event["shown"]
        else:
            assert event["public_ref"] == 0

    def _fill(self, life: FullLife, event: Event) -> None:
        assert event["qty"] > 0
        life.cum += event["qty"]
        ids = self.trade_ids
        first = event["trade_id"] != ids.get(life.symbol_id, 0)
        if first:
            ids[life.symbol_id] = ids.get(life.symbol_id, 0) + 1
            assert event["trade_id"] == ids[life.symbol_id]
        else:
            other = self.group[-1]
            assert other["kind"] == EventKind.FILL
            assert other["side"] == 1 - event["side"]
            assert all(other[n] == event[n] for n in ("px", "qty", "trade_id", "symbol_id"))
        if event["role"] == Role.MAKER:
            assert first
            self._sell_slice(life, event)
        elif event["role"] == Role.TAKER:
            maker = self.group[-1]
            seen = maker["shown_before"] - maker["shown"]
            assert event["shown_before"] == event["qty"] - seen
        else:
            self._sell_slice(life, event)

    def _sell_slice(self, life: FullLife, event: Event) -> None:
        if event["shown_before"]:
            assert event["public_ref"] == life.public_ref
            level = self._level(life)
            assert level[life.public_ref] == event["shown_before"]
            level[life.public_ref] = event["shown"]
            if not event["shown"]:
                self._take_off(life, 0)

    # -------------------------------------------------------------------------- whole commands
    def _check_grammar(self) -> None:
        kinds = [EventKind(e["kind"]) for e in self.group if e["kind"] != EventKind.CONTINUED]
        word = "".join(LETTERS[kind] for kind in kinds)
        assert GRAMMAR.fullmatch(word), [kind.name for kind in kinds]

    def _check_image(self) -> None:
        self.image = None

    def _check_uncrossed(self) -> None:
        for symbol_id, (bids, asks) in self.books.items():
            # A batch mode is told apart by its crosses: phases alone do not say.
            free = self.phases.get(symbol_id) == Phase.CONTINUOUS and not self.crossed_allowed
            assert not free or not bids or not asks or max(bids) < min(asks), "crossed"
