"""`ItchBook`: the order books of one channel, rebuilt from public messages, and whether to trust
them.

Python face of feed/book_messages.py; compiled once per batch of messages, memory grown in between.

`valid` is claimed only if every number since 1 of the session was seen and no message contradicted
the book. Whoever joins late, or misses a number, has a partial book and is told so; `why_invalid`
says in words which. Recovery comes with step 5; until then a new session makes the books whole.

Bounded: over orders_max resting orders the books are dropped and said to be invalid; the tape keeps
the last TAPE_MAX trades for a reader that does not come and counts what it lost.
"""

from typing import Any

import numpy as np

from feed.book_messages import book_apply, book_levels, book_orders
from feed.book_store import (
    TRADE,
    VIOLATIONS,
    W_CROSSING,
    W_DOUBTFUL,
    W_LEVELS,
    W_MESSAGES,
    W_NEXT,
    W_ORDERS,
    W_PARTIAL,
    W_TAPE,
    make_state,
    map_rebuild,
    map_size,
)
from feed.itch import (
    unpack_stock,
)
from feed.moldudp64 import (
    BLOCK_SEQ,
)

FIRST_ORDERS, FIRST_LEVELS = 1 << 12, 1 << 10
TAPE_MAX = 1 << 16  # trades kept for a reader that does not come; older ones are counted as lost
DEPTH_MAX = 1 << 20

_Array = np.ndarray[Any, Any]


def _grown(array: _Array, size: int) -> _Array:
    larger = np.zeros(size, array.dtype)
    larger[: array.size] = array
    return larger


def _slots_in_use(table: _Array) -> _Array:
    found: _Array = table[table != 0]
    return found


class ItchBook:
    """The books of all symbols of one channel. A symbol is named by its text or its stock
    locate.
    """

    def __init__(self, orders_max: int = 1 << 22) -> None:
        self.orders_max = orders_max
        self.overflows = 0  # times the books were dropped because they outgrew orders_max
        self.tape_lost = 0
        self.joined_at = 0
        self._dropped = False  # in this session
        self._locates: dict[str, int] = {}
        self._state = make_state(FIRST_ORDERS, FIRST_LEVELS, 1)
        self._trades: list[_Array] = []
        self._trades_kept = 0

    # -------------------------------------------------------------------------------------- feeding
    def reset(self) -> None:
        """Forget everything: a new session numbers from 1."""
        orders, levels = self._state.orders.size - 1, self._state.levels.size - 1
        self._state = make_state(orders, levels, self._state.tape.size)
        self._locates.clear()
        self.joined_at = 0
        self._dropped = False

    def expect(self, sequence: int) -> None:
        """Say which number comes next; if others were due, the books are partial."""
        words = self._state.words
        if not self.joined_at:
            self.joined_at = sequence
        if sequence != int(words[W_NEXT]):
            words[W_PARTIAL] = 1
            words[W_NEXT] = sequence

    def apply(self, packets: _Array, blocks: _Array) -> int:
        """Apply messages blocks[:] = (sequence, offset in packets, length); returns how many."""
        count = len(blocks)
        if not count:
            return 0
        if not self.joined_at:
            self.joined_at = int(blocks[0, BLOCK_SEQ])
        self.reserve(count)
        book_apply(self._state, packets, blocks)
        trades = int(self._state.words[W_TAPE])
        if trades:
            self._keep(self._state.tape[:trades].copy())
        return count

    def reserve(self, messages: int) -> None:
        """Make room for the worst that so many messages can bring: an order, a level and a trade
        each.
        """
        state = self._state
        if int(state.words[W_ORDERS]) + messages > self.orders_max:
            joined_at, expected = self.joined_at, int(state.words[W_NEXT])
            self.reset()
            state = self._state
            state.words[W_NEXT], state.words[W_PARTIAL] = expected, 1
            self.joined_at, self._dropped = joined_at, True
            self.overflows += 1
        orders, levels, tape = state.orders.size - 1, state.levels.size - 1, state.tape.size
        while int(state.words[W_ORDERS]) + messages > orders:
            orders *= 2
        while int(state.words[W_LEVELS]) + messages > levels:
            levels *= 2
        if orders == state.orders.size - 1 and levels == state.levels.size - 1 and messages <= tape:
            return
        grown = state._replace(
            orders=_grown(state.orders, orders + 1),
            order_refs=_grown(state.order_refs, orders + 1),
            order_map=np.zeros(map_size(orders), np.int64),
            levels=_grown(state.levels, levels + 1),
            level_keys=_grown(state.level_keys, levels + 1),
            level_map=np.zeros(map_size(levels), np.int64),
            tape=np.zeros(max(tape, 1 << messages.bit_length()), TRADE),
        )
        map_rebuild(grown.order_map, grown.order_refs, _slots_in_use(state.order_map))
        map_rebuild(grown.level_map, grown.level_keys, _slots_in_use(state.level_map))
        self._state = grown

    def _keep(self, trades: _Array) -> None:
        self._trades.append(trades)
        self._trades_kept += len(trades)
        while self._trades_kept > TAPE_MAX and len(self._trades) > 1:
            dropped = len(self._trades.pop(0))
            self._trades_kept -= dropped
            self.tape_lost += dropped

    # -------------------------------------------------------------------------------------- reading
    @property
    def next_sequence(self) -> int:
        """Number of the message the books wait for."""
        return int(self._state.words[W_NEXT])

    @property
    def messages(self) -> int:
        """How many messages were applied in this session."""
        return int(self._state.words[W_MESSAGES])

    @property
    def orders_resting(self) -> int:
        """How many orders stand in all books."""
        return int(self._state.words[W_ORDERS])

    @property
    def why_invalid(self) -> str:
        """What keeps the books from being whole; empty when they are."""
        words = self._state.words
        broken = {name: count for name, count in self.violations().items() if count}
        if not self.joined_at:
            return "nothing received yet"
        if self._dropped:
            return f"over {self.orders_max} orders: the books were dropped"
        if self.joined_at != 1:
            return f"joined at message {self.joined_at}: what rested before is not known"
        if int(words[W_PARTIAL]):
            return "messages were missed: the books are partial until the next session"
        return f"the messages contradict the book: {broken}" if broken else ""

    @property
    def valid(self) -> bool:
        """Whether the books are those of the exchange, as of next_sequence - 1."""
        return not self.why_invalid

    def violations(self) -> dict[str, int]:
        """Return how often a message contradicted the book while it was whole, by kind."""
        words = self._state.words
        found = {name: int(words[word]) for name, word in VIOLATIONS.items()}
        # The newest order crosses: so it stands until trading is said to be over.
        found["crossed"] += int(words[W_CROSSING] != 0 and not words[W_PARTIAL])
        return found

    @property
    def doubtful(self) -> int:
        """How often a message contradicted a partial book."""
        return int(self._state.words[W_DOUBTFUL])

    def symbols(self) -> dict[str, int]:
        """Return every symbol seen and its stock locate."""
        stocks = self._state.symbols["stock"]
        return {unpack_stock(int(stocks[at])): int(at) for at in np.flatnonzero(stocks)}

    def locate(self, symbol: str | int) -> int:
        """Return the stock locate of a symbol; KeyError when the channel has not named it."""
        if not isinstance(symbol, str):
            return symbol
        known = self._locates.get(symbol)
        if known is None:
            self._locates = self.symbols()
            known = self._locates[symbol]
        return known

    def _rows(self, view: Any, symbol: str | int, side: int, rows: int) -> _Array:
        try:
            book = self.locate(symbol) * 2 + side
        except KeyError:
            return np.zeros((0, 3), np.int64)
        out = np.zeros((min(rows, DEPTH_MAX), 3), np.int64)
        return out[: int(view(self._state, book, out))]

    def bids(self, symbol: str | int, depth: int | None = None) -> _Array:
        """Return rows (ITCH price, shares, orders), best first; none for a symbol not seen."""
        return self._rows(book_levels, symbol, 0, self._depth(depth))

    def asks(self, symbol: str | int, depth: int | None = None) -> _Array:
        """Return rows (ITCH price, shares, orders), best first; none for a symbol not seen."""
        return self._rows(book_levels, symbol, 1, self._depth(depth))

    def _depth(self, depth: int | None) -> int:
        return int(self._state.words[W_LEVELS]) if depth is None else depth

    def orders(self, symbol: str | int, side: int) -> _Array:
        """Return rows (reference, ITCH price, shares) of a side (0 bids, 1 asks) in priority
        order.
        """
        return self._rows(book_orders, symbol, side, self.orders_resting)

    def symbol_row(self, symbol: str | int) -> np.void:
        """Return the SYMBOL record: state, last trade, volume."""
        row: np.void = self._state.symbols[self.locate(symbol)]
        return row

    def last_trade(self, symbol: str | int) -> tuple[int, int, int, int] | None:
        """Return (ITCH price, shares, match, nanoseconds since midnight), or None before any."""
        try:
            row = self.symbol_row(symbol)
        except KeyError:
            return None
        if not row["trades"]:
            return None
        return (
            int(row["last_px"]),
            int(row["last_qty"]),
            int(row["last_match"]),
            int(row["last_time"]),
        )

    def take_trades(self) -> _Array:
        """Return the trades (TRADE records) since the last call, oldest first."""
        kept, self._trades, self._trades_kept = self._trades, [], 0
        return np.concatenate(kept) if kept else np.zeros(0, TRADE)
