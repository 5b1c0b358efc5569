"""The exchange in one process: the same compiled step, fed with arrays (notebooks, tests,
backtests).

Cold wrapper. No shared memory, no other process: COMMAND records in, EVENT records out, plus views
of the books. Prices are ticks, quantities lots, as in every record. Works under NUMBA_DISABLE_JIT=1
too.

    exchange = LocalExchange((Instrument("AAPL"),))
    exchange.place("AAPL", Side.SELL, 10, 10_050)
    events = exchange.place("AAPL", Side.BUY, 4)          # market: no price
    bids, asks = exchange.book("AAPL")
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.admin import (
    PRODUCER_LOOP,
    PRODUCER_SUPERVISOR,
    admin_record,
    list_instrument,
    list_rules,
    open_account,
    open_session,
)
from engine.book_check import BrokenInvariant, book_levels, book_orders, check_state, state_digest
from engine.book_state import (
    DUE_COUNT,
    FATAL,
    IN_TS,
    OUT_POSITION,
    SYMBOLS_USED,
    ShardState,
    allocate_state,
    private_array,
    set_policy,
    small_limits,
)
from engine.config import Instrument, ShardLimits
from engine.jit import register_warmup
from engine.records import (
    COMMAND,
    EVENT,
    EVENT_SLOT,
    SYMBOL_INDEX_BITS,
    UNSTATED,
    CommandFlag,
    CommandKind,
    OrderType,
    Side,
    TimeInForce,
    pack_name,
)  # fmt: skip
from engine.step import step_batch, work_batch

LOCAL_SESSION = "local"
_EVENT_COLUMNS = EVENT.itemsize // 8


class LocalExchange:
    """A shard without its process.

    Args: instruments: listed at construction. accounts: accounts 1 .. n are opened, each with the
    session "local" in the session slot of its number. limits: sizes of the arrays; the default
    takes about 100 MB. unknown_symbol: "create" lists an unknown symbol from `template`, "reject"
    answers 301.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument] = (Instrument("AAPL"),),
        *,
        accounts: int = 8,
        limits: ShardLimits | None = None,
        unknown_symbol: str = "create",
        template: Instrument | None = None,
        shard: int = 0,
    ) -> None:
        limits = limits or ShardLimits()
        limits.check()
        events = private_array(
            EVENT_SLOT, 1 << (2 * limits.events_per_command_max - 1).bit_length()
        )
        self.limits = limits
        self.state: ShardState = allocate_state(limits, shard=shard, events=events)
        set_policy(self.state, unknown_symbol, template or Instrument("TEMPLATE"))
        self._events_max = len(events) - limits.events_per_command_max
        self.startup_events = self.step(self._startup(instruments, accounts))

    @staticmethod
    def commands(count: int) -> np.ndarray:
        """`count` zeroed COMMAND records."""
        return np.zeros(count, COMMAND)

    def _startup(self, instruments: Sequence[Instrument], accounts: int) -> np.ndarray:
        rows = [open_account(account) for account in range(1, accounts + 1)]
        for account in range(1, accounts + 1):
            rows.append(open_session(account, LOCAL_SESSION, logon=1))
        rows += [list_instrument(instrument) for instrument in instruments]
        rows += [row for instrument in instruments for row in list_rules(instrument)]
        return np.concatenate(rows) if rows else self.commands(0)

    def step(self, commands: np.ndarray) -> np.ndarray:
        """Apply the commands in order; returns a copy of all their events.

        A client command (kind 1 to 7) with session 0 gets its account's local session. in_ts is
        used when it moves time on; what is due by then happens first, by TIME.
        """
        commands = np.ascontiguousarray(commands, COMMAND).copy()
        bare = (commands["session"] == 0) & (commands["kind"] <= CommandKind.QUERY_OPEN_ORDERS)
        commands["session"][bare] = commands["account"][bare]
        commands["logon"][bare] = 1
        commands["producer"][bare] = PRODUCER_SUPERVISOR
        hdr = self.state.hdr
        parts: list[np.ndarray] = []
        index, working = 0, False
        while index < len(commands) or working:
            first = int(hdr[OUT_POSITION])
            index = int(step_batch(self.state.table, commands, index, self._events_max))
            working = bool(
                work_batch(self.state.table, self._events_max - (int(hdr[OUT_POSITION]) - first))
            )
            parts.append(self._events_since(first))
            if hdr[FATAL]:
                raise BrokenInvariant(
                    f"the step stopped at command {index - 1}: invariant {int(hdr[FATAL])}"
                )
        return np.concatenate(parts) if parts else np.zeros(0, EVENT)

    def advance(self, in_ts: int) -> np.ndarray:
        """Move time on without a command; returns the events of all that is due by then."""
        time = admin_record(CommandKind.TIME, producer=PRODUCER_LOOP, in_ts=in_ts)
        parts = [self.step(time)]
        while self._is_due():
            parts.append(self.step(time))
        return np.concatenate(parts)

    def _is_due(self) -> bool:
        deadlines = [self.state.sessions[name] for name in ("dead_man_at", "close_at")]
        now = self.state.hdr[IN_TS]
        waiting = self.state.due[: int(self.state.hdr[DUE_COUNT])]
        deadlines.append(self.state.more["expire_ts"][waiting])
        deadlines += [self.state.calls[name] for name in ("cross_at", "indicative_at")]
        return any(((0 < column) & (column <= now)).any() for column in deadlines)

    def _events_since(self, first: int) -> np.ndarray:
        # A plain record copy of the ring's slots, without their receipts.
        ring = self.state.events
        places = np.arange(first, int(self.state.hdr[OUT_POSITION])) & (len(ring) - 1)
        words = ring.view("<i8").reshape(len(ring), -1)[places, :_EVENT_COLUMNS]
        return np.ascontiguousarray(words).view(EVENT).reshape(-1)

    @property
    def position(self) -> int:
        """Events so far."""
        return int(self.state.hdr[OUT_POSITION])

    def _one(self, kind: CommandKind, account: int, **fields: Any) -> np.ndarray:
        command = self.commands(1)
        command["kind"], command["account"] = kind, account
        for name, value in fields.items():
            command[name] = value
        return self.step(command)

    def place(
        self,
        symbol: str,
        side: int,
        qty: int,
        px: int | None = None,
        *,
        account: int = 1,
        order_type: int | None = None,
        tif: int = TimeInForce.GTC,
        client_order_id: int = 0,
        flags: int = 0,
        tag: int = 0,
    ) -> np.ndarray:
        """A new order; without a price it is a market order."""
        kind = (
            order_type
            if order_type is not None
            else (OrderType.MARKET if px is None else OrderType.LIMIT)
        )
        return self._one(
            CommandKind.NEW,
            account,
            symbol=pack_name(symbol),
            symbol_id=self.symbol_id(symbol),
            side=side,
            qty=qty,
            px=px or 0,
            order_type=kind,
            tif=tif,
            client_order_id=client_order_id,
            flags=flags,
            tag=tag,
        )

    def cancel(
        self, order_id: int = 0, *, client_order_id: int = 0, account: int = 1
    ) -> np.ndarray:
        """Cancel by order id, or by the client id the order was placed with."""
        return self._one(
            CommandKind.CANCEL, account, order_id=order_id, target_client_order_id=client_order_id
        )

    def replace(
        self,
        order_id: int = 0,
        *,
        qty: int = 0,
        px: int = 0,
        client_order_id: int = 0,
        account: int = 1,
    ) -> np.ndarray:
        """Change total quantity and price; 0 keeps."""
        return self._one(
            CommandKind.REPLACE,
            account,
            order_id=order_id,
            target_client_order_id=client_order_id,
            qty=qty,
            px=px,
            side=UNSTATED,
            tif=UNSTATED,
        )

    def mass_cancel(
        self, *, account: int = 1, symbol: str = "", side: int | None = None, tag: int | None = None
    ) -> np.ndarray:
        """Cancel all of the account's orders that match what is given."""
        flags = CommandFlag.BY_SYMBOL * bool(symbol) | CommandFlag.BY_SIDE * (side is not None)
        flags |= CommandFlag.BY_TAG * (tag is not None)
        name = pack_name(symbol) if symbol else 0
        return self._one(
            CommandKind.MASS_CANCEL, account, flags=flags, symbol=name, side=side or 0, tag=tag or 0
        )

    def symbol_id(self, name: str) -> int:
        """Id of a listed symbol, 0 when it is not listed."""
        used = int(self.state.hdr[SYMBOLS_USED])
        found = np.flatnonzero(self.state.names[1 : used + 1] == pack_name(name))
        return int(self.state.symbols[found[0] + 1]["symbol_id"]) if len(found) else 0

    def _symbol_index(self, name: str) -> int:
        symbol_id = self.symbol_id(name)
        if not symbol_id:
            raise KeyError(f"symbol {name!r} is not listed")
        return symbol_id & ((1 << SYMBOL_INDEX_BITS) - 1)

    def book(self, symbol: str, depth: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(bids, asks), best first: int64 rows (px ticks, qty lots, orders)."""
        index = self._symbol_index(symbol)
        return tuple(book_levels(self.state, index, side, depth) for side in (Side.BUY, Side.SELL))  # type: ignore[return-value]

    def orders(self, symbol: str, side: int) -> np.ndarray:
        """Resting orders of one side in priority order (engine.book_numba.ORDER rows)."""
        return book_orders(self.state, self._symbol_index(symbol), side)

    def state_digest(self) -> str:
        """Hash of all books, without ids and sequence numbers."""
        return state_digest(self.state)

    def check(self) -> None:
        """Verify every invariant of the state; raises BrokenInvariant."""
        check_state(self.state)


def _warm() -> None:
    exchange = LocalExchange(limits=small_limits(), accounts=2)
    exchange.place("AAPL", Side.BUY, 10, 100)
    exchange.place("AAPL", Side.SELL, 4, 100, account=2)
    exchange.book("AAPL")
    exchange.orders("AAPL", Side.BUY)


register_warmup("engine.step", _warm)
