"""The journal as a time machine: what a shard looked like at any command, and what it would have
looked like under other rules (engine/fork.py).

Cold around a compiled replay. Begins with the newest good snapshot that is early enough; nothing of
the directory is changed.
"""

from dataclasses import dataclass

import numpy as np

from engine.book_check import book_levels
from engine.book_state import ORDERS_CAPACITY, ORDERS_FREE, SYMBOLS_USED, ShardState
from engine.config import UNITS
from engine.kept_directory import KeptDirectory
from engine.records import (
    SYMBOL_INDEX_MASK,
    EventKind,
    Phase,
    Role,
    Side,
    unpack_name,
)
from engine.rerun import Rerun, nearest

TRADE = np.dtype(
    [
        ("symbol", "<i8"),  # its index in the shard
        ("trade_id", "<i8"),
        ("px", "<i8"),
        ("qty", "<i8"),
        ("side", "<i8"),  # of the aggressor
        ("in_seq", "<i8"),
        ("in_ts", "<i8"),
    ]
)


class PastError(LookupError):
    """A moment or instrument that the journal does not have; the message says what it has."""


@dataclass(frozen=True)
class Terms:
    """Tick and lot of an instrument, for showing decimals."""

    symbol: str
    tick: int  # 1e-9 units
    lot: int

    def price(self, ticks: int) -> str:
        """Ticks as an exact decimal."""
        return decimal_text(int(ticks) * self.tick)

    def quantity(self, lots: int) -> str:
        """Lots as an exact decimal."""
        return decimal_text(int(lots) * self.lot)


def decimal_text(units: int) -> str:
    """An integer of 1e-9 as a decimal without superfluous zeros."""
    whole, rest = divmod(abs(units), UNITS)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if units < 0 else text


@dataclass(frozen=True)
class BookPicture:
    """One book at one command."""

    index: int
    terms: Terms
    phase: str
    bids: np.ndarray  # rows (px ticks, qty lots, orders), best first
    asks: np.ndarray
    trades: int  # so far
    volume: int
    last_px: int
    last_qty: int


def trades_of(events: np.ndarray) -> np.ndarray:
    """The trades among some events: one row for each, by its taker's fill, in an uncross by its
    buyer's.
    """
    taker = events["role"] == Role.TAKER
    crossed = (events["role"] == Role.AUCTION) & (events["side"] == Side.BUY)
    rows = events[(events["kind"] == EventKind.FILL) & (taker | crossed)]
    trades = np.zeros(len(rows), TRADE)
    for name in ("trade_id", "px", "qty", "side", "in_seq", "in_ts"):
        trades[name] = rows[name]
    trades["symbol"] = rows["symbol_id"] & SYMBOL_INDEX_MASK
    return trades


def terms_of(state: ShardState) -> list[Terms]:
    """Every instrument of a shard, by index - 1."""
    rows = state.symbols[1 : int(state.hdr[SYMBOLS_USED]) + 1]
    return [Terms(unpack_name(row["name"]), int(row["tick"]), int(row["lot"])) for row in rows]


def open_orders(state: ShardState) -> int:
    """How many orders rest."""
    return int(state.hdr[ORDERS_CAPACITY] - state.hdr[ORDERS_FREE])


def book_pictures(
    state: ShardState, symbol: str = "", depth: int | None = None
) -> list[BookPicture]:
    """All books of a state, or one."""
    pictures = []
    for index, terms in enumerate(terms_of(state), 1):
        if symbol in ("", terms.symbol):
            row = state.symbols[index]
            bids, asks = (book_levels(state, index, side, depth) for side in Side)
            pictures.append(
                BookPicture(
                    index, terms, Phase(int(row["phase"])).name.lower(), bids, asks,
                    int(row["trade_id"]), int(row["volume"]),
                    int(row["last_px"]), int(row["last_qty"]),
                )
            )  # fmt: skip
    return pictures


@dataclass
class Moment:
    """A shard as of one command."""

    shard: int
    rerun: Rerun
    trades: np.ndarray  # the last ones, newest last
    trades_since: int  # trades before this command were not looked at

    @property
    def in_seq(self) -> int:
        return self.rerun.in_seq

    @property
    def in_ts(self) -> int:
        return self.rerun.in_ts

    @property
    def state(self) -> ShardState:
        return self.rerun.state


def moment(
    kept: KeptDirectory,
    shard: int,
    until: int | None = None,
    until_ns: int | None = None,
    *,
    trades_max: int = 10,
    symbol: str = "",
) -> Moment:
    """A shard after command `until`, or after the last command not later than `until_ns`; by
    default at the end. PastError when there is no such command.
    """
    rerun = nearest(kept, shard, until, until_ns)
    since, last = rerun.in_seq, np.zeros(0, TRADE)
    for events in rerun.follow(until, until_ns):
        found = trades_of(events)
        if symbol:
            found = found[found["symbol"] == _index_of(rerun.state, symbol)]
        if len(found):
            last = np.concatenate((last, found))[-trades_max:] if trades_max else last
    if until is not None and rerun.in_seq < until:
        raise PastError(
            f"shard {shard} has no command {until}: its journal ends with {rerun.in_seq}"
        )
    if symbol and _index_of(rerun.state, symbol) == 0:
        known = ", ".join(terms.symbol for terms in terms_of(rerun.state)) or "none"
        raise PastError(
            f"shard {shard} has no instrument {symbol!r} at command {rerun.in_seq}; it has {known}"
        )
    return Moment(shard, rerun, last, since)


def _index_of(state: ShardState, symbol: str) -> int:
    names = [terms.symbol for terms in terms_of(state)]
    return names.index(symbol) + 1 if symbol in names else 0


def end_at(kept: KeptDirectory, shard: int, until_ns: int) -> int:
    """The last command of a shard that is not later than a moment."""
    rerun = nearest(kept, shard, until_ns=until_ns, copied=False)
    for _ in rerun.follow(until_ns=until_ns):
        continue
    return rerun.in_seq
