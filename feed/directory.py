"""The directory channel: what ITCH cannot say about an instrument, one small JSON datagram each.

Cold. ITCH prices have four decimals and its names eight characters; tick, lot and the meaning of a
price go here, on a UDP multicast port of their own, every instrument about once a second and at
once when it is listed:

    {"type":"instrument","session":"2606010001","shard":0,"locate":3,"symbol":"AAPL","tick":"0.01",
     "lot":"1","price":"decimal4","px_max":42949672}

"price": "decimal4" means ITCH price / 10000 in asset units; "ticks" means ITCH price * tick. Shares
are lots. px_max is in ticks. The publisher writes these, the listener reads them; datagrams that
are not of this form are counted and dropped.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from engine.config import ITCH_TICK_UNIT, UNITS
from feed.itch import LOCATES, unpack_stock
from feed.moldudp64 import SHARDS_MAX

ENTRY_BYTES_MAX = 1400
ENTRIES_MAX = 1 << 20  # a listener's bound; more are counted as malformed


def decimal_text(units: int) -> str:
    """Exact decimal of a number of 1e-9 units, without trailing zeros."""
    sign, units = ("-", -units) if units < 0 else ("", units)
    whole, part = divmod(units, UNITS)
    return f"{sign}{whole}" if part == 0 else f"{sign}{whole}.{part:09d}".rstrip("0")


def _units_of(text: Any) -> int:
    # Inverse of decimal_text for positive numbers; ValueError for anything else.
    whole, _, part = text.partition(".") if type(text) is str else ("", "", "")
    digits = whole + part
    if not (digits.isascii() and digits.isdigit() and 1 <= len(whole) <= 10 and len(part) <= 9):
        raise ValueError("not a decimal number")
    return int(whole) * UNITS + int(part.ljust(9, "0"))


@dataclass(frozen=True)
class DirectoryEntry:
    """One instrument as the public sees it. tick and lot in 1e-9 units."""

    session: str
    shard: int
    locate: int
    symbol: str
    tick: int
    lot: int
    decimal4: bool
    px_max: int

    @property
    def price_unit(self) -> int:
        """Worth of ITCH price 1 in 1e-9 units."""
        return ITCH_TICK_UNIT if self.decimal4 else self.tick

    def price_text(self, price: int) -> str:
        """Exact decimal of an ITCH price."""
        return decimal_text(int(price) * self.price_unit)

    def qty_text(self, shares: int) -> str:
        """Exact decimal of a number of shares."""
        return decimal_text(int(shares) * self.lot)

    def ticks(self, price: int) -> int:
        """ITCH price as ticks."""
        return int(price) * self.price_unit // self.tick

    def encode(self) -> bytes:
        """Return the datagram."""
        return orjson.dumps(
            {
                "type": "instrument",
                "session": self.session,
                "shard": self.shard,
                "locate": self.locate,
                "symbol": self.symbol,
                "tick": decimal_text(self.tick),
                "lot": decimal_text(self.lot),
                "price": "decimal4" if self.decimal4 else "ticks",
                "px_max": self.px_max,
            }
        )


def entry_of_row(session: bytes, shard: int, locate: int, row: np.void) -> DirectoryEntry:
    """Return the entry of one row of the INSTRUMENT table."""
    numbers = (int(row["tick"]), int(row["lot"]), bool(row["decimal4"]), int(row["px_max"]))
    return DirectoryEntry(
        session.decode(), shard, locate, unpack_stock(int(row["stock"])), *numbers
    )


def decode_entry(data: bytes) -> DirectoryEntry | None:
    """Read a datagram; None when it is not a directory entry."""
    if len(data) > ENTRY_BYTES_MAX:
        return None
    try:
        fields = orjson.loads(data)
        if fields["type"] != "instrument" or fields["price"] not in ("decimal4", "ticks"):
            return None
        numbers = [fields[name] for name in ("shard", "locate", "px_max")]
        names = [fields[name] for name in ("session", "symbol")]
        tick, lot = _units_of(fields["tick"]), _units_of(fields["lot"])
    except (ValueError, KeyError, TypeError):
        return None
    if any(type(n) is not int or n < 0 for n in numbers) or any(type(n) is not str for n in names):
        return None
    if numbers[0] >= SHARDS_MAX or numbers[1] >= LOCATES or not 1 <= len(names[1]) <= 64:
        return None
    if tick < 1 or lot < 1:
        return None
    return DirectoryEntry(
        names[0],
        numbers[0],
        numbers[1],
        names[1],
        tick,
        lot,
        fields["price"] == "decimal4",
        numbers[2],
    )


class Directory:
    """What a listener knows of the instruments, by name and by (shard, locate)."""

    def __init__(self) -> None:
        self.by_symbol: dict[str, DirectoryEntry] = {}
        self.by_locate: dict[tuple[int, int], DirectoryEntry] = {}
        self.received = 0
        self.malformed = 0

    def receive(self, data: bytes) -> DirectoryEntry | None:
        """Take one datagram; returns its entry, or None when it was dropped."""
        self.received += 1
        entry = decode_entry(data)
        if entry is None or (
            entry.symbol not in self.by_symbol and len(self.by_symbol) >= ENTRIES_MAX
        ):
            self.malformed += 1
            return None
        self.by_symbol[entry.symbol] = entry
        self.by_locate[entry.shard, entry.locate] = entry
        return entry
