"""Answers the gateway gives by itself: book, instruments, limits. Cold.

Books come from the shared book tops (20 levels, one consistent picture under a sequence lock);
deeper ones from GatewayParts.deep_book, where it is given. `order` and `open_orders` are not here:
they are commands, the shard answers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.config import Config, GatewayLimits, Throttle
from engine.records import (
    BOOK_TOP,
    PRICE_TICKS_MAX,
    QTY_LOTS_MAX,
    TOP_LEVELS,
    Phase,
    RejectCode,
    RuleSet,
)
from engine.shm_ring import top_copy
from gateway.codec_fields import Request
from gateway.codec_slow import integer_key, name_key
from gateway.codec_text import decimal_text
from gateway.directory import Directory
from gateway.errors import Refusal
from gateway.parts import AccountViewLike
from gateway.state import (
    ROWS_PER_ACCOUNT_MAX,
    Y_LOT_DECIMALS,
    Y_LOT_MANTISSA,
    Y_PX_MAX,
    Y_RULES,
    Y_SHARD,
    Y_SYMBOL_ID,
    Y_TICK_DECIMALS,
    Y_TICK_MANTISSA,
)  # fmt: skip

DEPTH_MAX = 1000
_Rows = Sequence[Sequence[int]]
DeepBook = Callable[[int, int], tuple[Any, Any] | None]


class Queries:
    """Reads the shared book tops for one gateway."""

    def __init__(
        self,
        config: Config,
        directory: Directory,
        tops: np.ndarray[Any, Any] | None,
        deep_book: DeepBook | None,
    ) -> None:
        self.config, self.directory, self.deep_book = config, directory, deep_book
        self.top_words = None if tops is None else tops.view(np.int64).reshape(-1)
        self.copy = np.zeros(1, BOOK_TOP)

    def _top(self, name: str) -> Any:
        # A consistent copy of the book top; None while there is none to be had.
        if self.top_words is None:
            return None
        place = self.directory.places[name]
        if (
            not top_copy(self.top_words, place, self.copy.view(np.int64))
            or not self.copy[0]["symbol"]
        ):
            return None
        return self.copy[0]

    def _price(self, name: str, ticks: int) -> str:
        get = self.directory.get
        return decimal_text(int(ticks), get(name, Y_TICK_MANTISSA), get(name, Y_TICK_DECIMALS))

    def _qty(self, name: str, lots: int) -> str:
        get = self.directory.get
        return decimal_text(int(lots), get(name, Y_LOT_MANTISSA), get(name, Y_LOT_DECIMALS))

    def _levels(self, name: str, rows: _Rows, depth: int) -> list[list[Any]]:
        found = []
        for px, qty, orders in rows[:depth]:
            if qty > 0:
                found.append([self._price(name, px), self._qty(name, qty), int(orders)])
        return found

    def book(self, request: Request) -> dict[str, Any]:
        """Answer `book`."""
        name = name_key(request, "symbol")
        depth = integer_key(request, "depth", 1, DEPTH_MAX, TOP_LEVELS)
        request.raise_lowest()
        if name is None:
            raise Refusal(RejectCode.BAD_FIELD, "symbol is missing")
        if name not in self.directory.rows:
            raise Refusal(RejectCode.UNKNOWN_SYMBOL, "no such instrument")
        top = self._top(name)
        if top is None:
            raise Refusal(RejectCode.UNAVAILABLE, "no picture of this book at the moment")
        bids, asks = top["bids"].reshape(-1, 3), top["asks"].reshape(-1, 3)
        if depth > TOP_LEVELS:
            if self.deep_book is None:
                raise Refusal(RejectCode.OUT_OF_RANGE, f"depth must be 1 to {TOP_LEVELS} here")
            deep = self.deep_book(self.directory.get(name, Y_SYMBOL_ID), depth)
            if deep is None:
                raise Refusal(RejectCode.BUSY, "this book never stood still; ask again")
            bids, asks = deep
        return {
            "type": "book", "symbol": name, "shard": self.directory.get(name, Y_SHARD),
            "phase": phase_name(int(top["phase"])),
            "bids": self._levels(name, bids, depth), "asks": self._levels(name, asks, depth),
            "last_price": self._price(name, top["last_px"]) if top["last_px"] else None,
            "last_qty": self._qty(name, top["last_qty"]) if top["last_px"] else None,
            "trades": int(top["trade_count"]), "volume": self._qty(name, top["volume"]),
            "out_seq": int(top["out_seq"]), "ts": int(top["in_ts"]),
        }  # fmt: skip

    def instruments(self, request: Request) -> dict[str, Any]:
        """Answer `instruments`: one page in order of name; `next` is what the following page goes
        on after.
        """
        name, after = name_key(request, "symbol"), name_key(request, "after")
        limit = integer_key(request, "limit", 1, 500, self.config.gateway.page_rows_max)
        request.raise_lowest()
        if name is not None:
            if name not in self.directory.rows:
                raise Refusal(RejectCode.UNKNOWN_SYMBOL, "no such instrument")
            names: list[str] = [name]
        else:
            names = self.directory.names()
            if after is not None:
                names = [other for other in names if other > after]
        answer: dict[str, Any] = {
            "type": "instruments",
            "instruments": [self._instrument(n) for n in names[:limit]],
        }
        if len(names) > limit:
            answer["next"] = names[limit - 1]
        return answer

    def _instrument(self, name: str) -> dict[str, Any]:
        get, top = self.directory.get, self._top(name)
        return {
            "symbol": name, "shard": get(name, Y_SHARD), "symbol_id": get(name, Y_SYMBOL_ID),
            "tick": self._price(name, 1),
            "lot": self._qty(name, 1), "max_price": self._price(name, get(name, Y_PX_MAX)),
            "phase": phase_name(int(top["phase"])) if top is not None else "",
            "rules": RuleSet(get(name, Y_RULES)).name.lower(),
        }  # fmt: skip


def phase_name(phase: int) -> str:
    """Name of a trading phase, small letters."""
    try:
        return Phase(phase).name.lower()
    except ValueError:
        return f"phase_{phase}"


def limits_table(limits: GatewayLimits) -> dict[str, Any]:
    """The bounds every session lives in, by the names of docs/protocol.md."""
    return {
        "line_bytes_max": limits.line_bytes_max, "output_bytes_max": limits.output_bytes_max,
        "output_burst_bytes": limits.output_burst_bytes,
        "logon_deadline_s": limits.logon_deadline_s, "heartbeat_s": limits.heartbeat_s,
        "idle_dead_s": limits.idle_dead_s,
        "sessions_max": limits.sessions_max, "sessions_per_account_max": ROWS_PER_ACCOUNT_MAX,
        "connections_max": limits.connections_max, "page_rows_max": limits.page_rows_max,
        "price_ticks_max": PRICE_TICKS_MAX,
        "qty_lots_max": QTY_LOTS_MAX, "book_depth_max": DEPTH_MAX,
    }  # fmt: skip


def account_table(views: Sequence[AccountViewLike]) -> dict[str, Any]:
    """What the shards hold of the account; each instrument is of one of them."""
    return {
        "blocked": any(view.blocked for view in views),
        "blocked_sessions": sorted({name for view in views for name in view.sessions}),
        "instruments": sorted(
            (dict(row) for view in views for row in view.limits), key=lambda row: str(row["symbol"])
        ),
    }


def throttle_table(
    throttle: Throttle, orders_left: int | None, cancels_left: int | None
) -> dict[str, Any]:
    """A session's class and what its buckets hold now; null: without limit."""
    return {
        "class": throttle.name, "orders_per_s": throttle.orders_per_s or None,
        "cancels_per_s": throttle.cancels_per_s or None,
        "window_s": throttle.window_s, "logout_factor": throttle.logout_factor,
        "orders_left": orders_left,
        "cancels_left": cancels_left,
    }  # fmt: skip
