"""EVENT to ITCH in plain Python: written from RULES §11 and Nasdaq's tables alone, with `struct`.

Shares no code and no constant with feed/itch.py. Only tests use it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from engine.records import Algorithm, EventFlag, EventKind, Phase, Role

DAY = 86_400_000_000_000
BATCHES = (Algorithm.BATCH_AUCTION, Algorithm.BALANCED_BATCH)


@dataclass
class Reference:
    """Converts events in order; knows the instruments it was told of by LISTED."""

    instruments: dict[int, tuple[bytes, int]] = field(default_factory=dict)  # stock, price factor

    def convert(self, event: np.void) -> bytes | None:
        """Return the message of an event, or None when it is private."""
        locate = int(event["symbol_id"]) & 0xFFFF
        if event["kind"] == EventKind.LISTED:
            self._learn(locate, event)
        letter = self.letter(event)
        if letter is None:
            return None
        since = int(event["in_ts"]) % DAY
        if letter == "S":
            locate = 0
        header = letter.encode() + struct.pack("!HHHI", locate, 0, since >> 32, since & 0xFFFFFFFF)
        return header + self._body(letter, event, self.instruments.get(locate, (bytes(8), 0)))

    def _learn(self, locate: int, event: np.void) -> None:
        name = bytes(event["text"])[:8].rstrip(b"\0").ljust(8)
        tick, px_max = int(event["amount"]), int(event["px2"])
        factor, rest = divmod(tick, 100_000)
        four_decimals = rest == 0 and px_max * factor < 2**32
        self.instruments[locate] = (name, factor if four_decimals else 1)

    @staticmethod
    def letter(event: np.void) -> str | None:
        """ITCH type of an event."""
        kind, flags = EventKind(int(event["kind"])), int(event["flags"])
        if kind in (EventKind.LISTED, EventKind.PHASE, EventKind.SESSION):
            return {EventKind.LISTED: "R", EventKind.PHASE: "H", EventKind.SESSION: "S"}[kind]
        if kind in (EventKind.CROSSED, EventKind.INDICATIVE):
            return "Q" if kind == EventKind.CROSSED else "I"
        if kind == EventKind.REFRESHED:
            return "A"
        if kind in (EventKind.BOOKED, EventKind.REPRICED):
            if not event["shown"]:
                return None  # hidden
            return "U" if event["old_ref"] else "A"
        if event["shown"] >= event["shown_before"]:
            return None
        if kind == EventKind.FILL:
            executed = "C" if flags & EventFlag.NON_FIFO else "E"
            return "P" if event["role"] == Role.TAKER else executed
        if kind in (EventKind.CANCELED, EventKind.EXPIRED, EventKind.PARKED):
            return "D"
        if kind == EventKind.PREVENTED:
            return "X" if event["shown"] else None
        if kind == EventKind.REPLACED and flags & EventFlag.KEPT:
            return "X"
        return "D" if kind == EventKind.REPLACED and flags & EventFlag.WILL_TRADE else None

    @staticmethod
    def _body(letter: str, event: np.void, instrument: tuple[bytes, int]) -> bytes:
        stock, factor = instrument
        ref, old, qty = (int(event[name]) for name in ("public_ref", "old_ref", "shown"))
        less = int(event["shown_before"]) - qty
        price, match = int(event["px"]) * factor, int(event["trade_id"])
        if letter == "S":
            return bytes([int(event["code"]) & 255])
        if letter == "R":
            parts = (b" ", b" ", 1, b"N", b"C", b"Z ", b"P", b"N", b" ", b" ", b"N", 0, b"N")
            return stock + struct.pack("!ccIcc2scccccIc", *parts)
        if letter == "H":
            states = {
                Phase.CONTINUOUS: b"T",
                Phase.VOLATILITY_CALL: b"P",
                Phase.PRE_OPEN: b"Q",
                Phase.OPENING_CALL: b"Q",
                Phase.CLOSING_CALL: b"Q",
            }
            if event["code"] == Phase.CONTINUOUS and event["order_type"] in BATCHES:
                return stock + b"Q" + b" " * 5
            return stock + states.get(int(event["code"]), b"H") + b" " * 5  # type: ignore[call-overload]
        side = b"B" if event["side"] == 0 else b"S"
        if letter in "QI":
            crosses = {1: b"O", 2: b"O", 4: b"H", 5: b"C"}
            cross, volume = crosses.get(int(event["code"]), b"I"), int(event["amount2"])
            if letter == "Q":
                return struct.pack("!Q8sIQc", volume, stock, price, match, cross)
            surplus = int(event["amount"])
            side = b"O" if not volume else side if surplus else b"N"
            prices = (price, price, price)
            return struct.pack("!QQc8sIIIcc", volume, surplus, side, stock, *prices, cross, b" ")
        if letter == "A":
            return struct.pack("!QcI8sI", ref, side, qty, stock, price)
        if letter == "P":
            return struct.pack("!QcI8sIQ", 0, b"B", less, stock, price, match)
        if letter == "E":
            return struct.pack("!QIQ", ref, less, match)
        if letter == "C":
            counted = b"Y" if event["flags"] & EventFlag.PRINTABLE else b"N"
            return struct.pack("!QIQcI", ref, less, match, counted, price)
        if letter == "U":
            return struct.pack("!QQII", old, ref, qty, price)
        if letter == "X":
            return struct.pack("!QI", ref, less)
        return struct.pack("!Q", old if event["kind"] == EventKind.REPLACED else ref)
