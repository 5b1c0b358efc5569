"""Model and engine side by side: the same commands, every field of every event compared.

Cold; used by tests only. A Pair applies each command to the model at once and to LocalExchange in
batches (a batch ends early when a command names an order whose engine id is not known yet). One
thing differs by design and is taken out: the slot part of order ids, which only the engine has.

On a difference `Mismatch` is raised; its text is the report: the seed, the last commands, the
events of the command in question in both versions, and the model's books.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from engine import records
from engine.book_check import BrokenInvariant
from engine.config import Instrument
from engine.local import LocalExchange
from engine.records import (
    COMMAND,
    EVENT,
    SLOT_BITS,
    CommandKind,
    EventFlag,
    EventKind,
    OrderState,
    OrderType,
    Reason,
    RejectCode,
    Role,
)
from tests.model.book_model import BUY, SELL
from tests.model.exchange_model import ExchangeModel, start
from tests.model.flow import World
from tests.model.full.built import BUILT

Command = dict[str, Any]
Event = dict[str, Any]

PEGS = (OrderType.PEG_PRIMARY, OrderType.PEG_MARKET, OrderType.PEG_MID)
SLOT_MASK = (1 << SLOT_BITS) - 1
COMMANDS_SHOWN = 12
KEPT, MOVED = int(EventFlag.KEPT), int(EventFlag.LEFT_BOOK)
MOVED_INTO_TRADE = int(EventFlag.LEFT_BOOK | EventFlag.WILL_TRADE)
REPLACED_FLAGS = KEPT | MOVED_INTO_TRADE
FIELDS = EVENT.names or ()
IN_SEQ, KIND, ORDER_ID, AMOUNT = (
    FIELDS.index(name) for name in ("in_seq", "kind", "order_id", "amount")
)
NAMED: dict[str, type[IntEnum]] = {
    "order_type": records.OrderType,
    "tif": records.TimeInForce,
    "reason": Reason,
    "code": RejectCode,
}


def _with_byte_text(layout: np.dtype) -> np.dtype:
    """The same bytes, the text as one string of bytes: converts to plain tuples quickly."""
    names = list(layout.names or ())
    places = [layout.fields[name][:2] for name in names]  # type: ignore[index]
    formats = [
        "S36" if name == "text" else place[0] for name, place in zip(names, places, strict=True)
    ]
    offsets = [place[1] for place in places]
    spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": layout.itemsize}
    return np.dtype(spec)  # type: ignore[call-overload]


COMMAND_ROW, EVENT_ROW = _with_byte_text(COMMAND), _with_byte_text(EVENT)


class Mismatch(AssertionError):
    """Model and engine disagree; the text says where."""


class Pair:
    """The model and the engine of one world."""

    command_kinds: ClassVar = {int(kind): kind for kind in CommandKind}

    def __init__(
        self, world: World, instruments: Iterable[Instrument], template: Instrument, seed: int = 0
    ) -> None:
        self.world, self.seed = world, seed
        instruments = tuple(instruments)
        policy: dict[str, Any] = {
            "unknown_symbol": world.unknown_symbol,
            "template": template,
            "shard": world.shard,
        }
        self.model = ExchangeModel(world.limits, built=BUILT, **policy)
        self.engine = LocalExchange(
            instruments, accounts=world.accounts, limits=world.limits, **policy
        )
        self.real_ids: dict[int, int] = {}  # order counter -> the engine's order_id
        self.orders_known = 0  # order counter the engine has come to
        self.waiting: list[Command] = []
        self.expected: list[Event] = []
        self.history: deque[tuple[int, Command]] = deque(maxlen=COMMANDS_SHOWN)
        self.compared = 0  # commands
        self.seen: Counter[object] = Counter()
        self.expected = start(self.model, instruments, world.accounts)
        self._compare(self.engine.startup_events)

    def apply(self, command: Command) -> list[Event]:
        """Apply one command to the model now and to the engine with its batch."""
        named = command["order_id"] >> SLOT_BITS
        if named in self._new_counters():
            self.flush()
        self.history.append((self.model.writer.in_seq + 1, command))
        self.waiting.append(command)
        texts = len(self.model.sessions.used_texts)
        events = self.model.apply(command)
        self.seen["text ids forgotten"] += len(self.model.sessions.used_texts) < texts
        self._visit(command, events)
        self.expected += events
        return events

    def _new_counters(self) -> range:
        return range(self.orders_known + 1, self.model.order_count + 1)

    def flush(self) -> None:
        """Run what waits through the engine and compare."""
        rows = [self._row(command) for command in self.waiting]
        commands = np.array(rows, COMMAND_ROW).view(COMMAND)
        try:
            events = self.engine.step(commands)
        except BrokenInvariant as error:
            raise Mismatch(f"the engine stopped: {error}\n{self._story()}") from error
        self.compared += len(self.waiting)
        self.waiting = []
        self._compare(events)

    def check(self) -> None:
        """Compare the whole state, and check each side's own invariants."""
        self.flush()
        self.model.check()
        try:
            self.engine.check()
        except BrokenInvariant as error:
            raise Mismatch(f"the engine's state is broken: {error}\n{self._story()}") from error
        if self.engine.state_digest() != self.model.state_digest():
            raise Mismatch(f"state digests differ\n{self._story()}")
        if self.engine.position != self.model.writer.out_seq:
            raise Mismatch(f"positions differ\n{self._story()}")

    def _row(self, command: Command) -> tuple[Any, ...]:
        # An id of the model with an empty slot part becomes the engine's; another slot stays wrong.
        named = command["order_id"]
        if named:
            real = self.real_ids.get(named >> SLOT_BITS)
            if real is not None:
                named = real ^ (named & SLOT_MASK)
                command = command | {"order_id": named}
        return tuple(command.values())

    # ------------------------------------------------------------------------------- comparing
    def _compare(self, events: np.ndarray) -> None:
        for order_id in events["order_id"][events["kind"] == EventKind.ACCEPTED].tolist():
            self.real_ids[order_id >> SLOT_BITS] = order_id
        self.orders_known = self.model.order_count
        events["order_id"] &= ~SLOT_MASK
        for kind in (EventKind.SUMMARY, EventKind.PREVENTED):
            events["amount"][events["kind"] == kind] &= ~SLOT_MASK
        got = events.view(EVENT_ROW).tolist()
        expected, self.expected = self.expected, []
        for event in expected:
            if event["kind"] == EventKind.REJECTED:
                event["order_id"] &= ~SLOT_MASK
        want = [tuple(event.values()) for event in expected]
        if got != want:
            raise Mismatch(self._report(want, got))

    def _visit(self, command: Command, events: list[Event]) -> None:
        # What this run has visited; test_differential.py asserts that nothing is missing.
        seen = self.seen
        for event in events:
            kind = event["kind"]
            # What was due before the command happened by TIME.
            own = event["in_seq"] >= self.model.command_in_seq
            request = self.command_kinds.get(command["kind"]) if own else CommandKind.TIME
            seen[EventKind(kind)] += 1
            seen[EventKind(kind), request] += 1
            if kind == EventKind.REJECTED:
                seen[RejectCode(event["code"])] += 1
                seen[RejectCode(event["code"]), request] += 1
            elif kind == EventKind.CONTINUED:
                seen["sliced", request] += 1
            elif kind in (EventKind.CANCELED, EventKind.EXPIRED, EventKind.ACCOUNT):
                seen[Reason(event["reason"])] += 1
                seen[Reason(event["reason"]), request] += 1
                if event["code"] and kind == EventKind.EXPIRED:
                    seen["expired", RejectCode(event["code"])] += 1
            elif kind == EventKind.STATUS:
                seen[OrderState(event["role"]), request] += 1
            elif kind == EventKind.REPLACED:
                seen["replaced", event["flags"] & REPLACED_FLAGS] += 1
            elif kind == EventKind.BOOKED:
                seen["booked as ITCH U", event["old_ref"] > 0] += 1
                seen["top"] += bool(event["flags"] & EventFlag.TOP)
            elif kind == EventKind.FILL:
                seen["shared out"] += bool(event["flags"] & EventFlag.NON_FIFO)
                taken = event["role"] == Role.TAKER and event["order_type"] in PEGS
                seen["a peg takes", request] += taken
            elif kind == EventKind.SUMMARY and event["amount"]:
                seen["more pages"] += 1

    # ------------------------------------------------------------------------------- reporting
    def _report(self, want: list[tuple[Any, ...]], got: list[tuple[Any, ...]]) -> str:
        pairs = zip(want, got, strict=False)
        place = next((i for i, (w, g) in enumerate(pairs) if w != g), min(len(want), len(got)))
        either = (want + got)[-1] if place >= max(len(want), len(got)) else None
        seqs = [rows[place][IN_SEQ] for rows in (want, got) if place < len(rows)]
        in_seq = min(seqs) if seqs else either[IN_SEQ]  # type: ignore[index]
        lines = [f"model and engine differ at command in_seq {in_seq}"]
        for who, rows in (("model", want), ("engine", got)):
            lines.append(f"--- {who}")
            lines += [f"    {show_event(row)}" for row in rows if row[IN_SEQ] == in_seq]
        if place < min(len(want), len(got)):
            lines.append("--- first difference (field: model, engine)")
            fields = zip(FIELDS, want[place], got[place], strict=True)
            lines += [f"    {name}: {w!r}, {g!r}" for name, w, g in fields if w != g]
        return "\n".join([*lines, self._story()])

    def _story(self) -> str:
        lines = [f"--- seed {self.seed}, after {self.compared} commands, {self.world}"]
        lines.append("--- last commands (in_seq: fields that are not zero)")
        lines += [f"    {in_seq}: {show_command(command)}" for in_seq, command in self.history]
        lines += ["--- the model's books now", draw_books(self.model)]
        return "\n".join(lines)


def show_command(command: Mapping[str, Any]) -> str:
    """One line: the kind by name, then the fields that are not zero."""
    known = Pair.command_kinds.get(command["kind"])
    words = [known.name if known else f"kind={command['kind']}"]
    words += [f"{k}={v!r}" for k, v in command.items() if v and k not in ("kind", "in_ts")]
    return " ".join(words)


def show_event(row: tuple[Any, ...]) -> str:
    """One line: the kind by name, then the fields that are not zero, enums by name."""
    words = [EventKind(row[KIND]).name]
    for name, value in zip(FIELDS, row, strict=True):
        if name == "flags" and value:
            words.append(f"flags={EventFlag(value)!r}" if value in set(EventFlag) else f"{value=}")
        elif name in NAMED and value in set(NAMED[name]) and value:
            words.append(f"{name}={NAMED[name](value).name}")
        elif value and name not in ("kind", "in_ts"):
            words.append(f"{name}={value!r}")
    return " ".join(words)


def draw_books(model: ExchangeModel) -> str:
    """Ladders of the books that are not empty: asks above bids, each level in queue order."""
    lines: list[str] = []
    for book in model.books.values():
        name = book.name.to_bytes(8, "little").rstrip(b"\0").decode("latin-1")
        for side, word in ((SELL, "ask"), (BUY, "bid")):
            prices = sorted(book.levels[side], reverse=True)
            for px in prices:
                queue = book.levels[side][px].values()
                orders = "  ".join(f"{o.order_id >> SLOT_BITS}:{o.leaves}" for o in queue)
                lines.append(f"    {name} {word} {px}  {orders}")
    return "\n".join(lines) or "    (empty)"
