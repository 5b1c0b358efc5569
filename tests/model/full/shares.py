"""How one round of a level is shared out (RULES §4, §13 Levels).

Cold; used by tests only. Pure functions over what each order displays: top, then lead market
makers, then the base, then the residue in time order. Each step uses what earlier steps left, and
nobody gets more than it displays. `Share.size` is what is left to give to an order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.records import Algorithm
from tests.model.full.book import FullBook
from tests.model.full.order import FullOrder


@dataclass(slots=True)
class Share:
    """What one order displays, and what it gets in this round."""

    order: FullOrder
    got: int = 0

    @property
    def size(self) -> int:
        return self.order.shown - self.got

    def give(self, qty: int) -> int:
        """Give it as much of qty as it can take."""
        given = min(qty, self.size)
        self.got += given
        return given


def share_out(book: FullBook, orders: list[FullOrder], q: int) -> list[Share]:
    """Share q lots, at most what all display, in queue order."""
    shares = [Share(order) for order in orders]
    q -= _fifo((s for s in shares if s.order is book.top[s.order.side]), q)
    q -= _lead_market_makers(book, shares, q)
    q -= BASES[Algorithm(book.algorithm)](book, shares, q)
    _fifo(shares, q)
    return shares


def _fifo(shares: Iterable[Share], q: int) -> int:
    given = 0
    for share in shares:
        given += share.give(q - given)
    return given


def _lead_market_makers(book: FullBook, shares: list[Share], q: int) -> int:
    given = 0
    for account, percent in book.lmm.items():
        own = [s for s in shares if s.order.account == account]
        own = [s for s in own if s.order is not book.top[s.order.side]]
        given += _fifo(own, q * percent // 100)
    return given


def _base_fifo(book: FullBook, shares: list[Share], q: int) -> int:
    return _fifo(shares, q)


def _pro_rata(book: FullBook, shares: list[Share], q: int) -> int:
    total = sum(share.size for share in shares)
    given = 0
    for share in shares:
        part = q * share.size // total if total else 0
        given += share.give(part if part >= 2 else 0)
    return given


def _fifo_pro_rata(book: FullBook, shares: list[Share], q: int) -> int:
    first = _fifo(shares, q * book.fifo_percent // 100)
    return first + _pro_rata(book, shares, q - first)


def _size_priority(book: FullBook, shares: list[Share], q: int) -> int:
    # Sorting is stable: equal sizes stay in queue order.
    return _fifo(sorted(shares, key=lambda share: -share.order.shown), q)


def _time_pro_rata(book: FullBook, shares: list[Share], q: int) -> int:
    total = sum(share.size for share in shares)
    given = before = 0
    for share in shares:
        after = before + share.size
        if total:
            part = q * ((total - before) ** 2 - (total - after) ** 2) // total**2
            given += share.give(part)
        before = after
    return given


BASES = {
    Algorithm.FIFO: _base_fifo,
    Algorithm.PRO_RATA: _pro_rata,
    Algorithm.FIFO_PRO_RATA: _fifo_pro_rata,
    Algorithm.SIZE_PRIORITY: _size_priority,
    Algorithm.TIME_PRO_RATA: _time_pro_rata,
}
