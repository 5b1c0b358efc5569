"""The indicative price of a call: told by TIME when it changed, at most once a second (RULES §6).

Cold; used by tests only. Behind each command that touched the book it is seen whether there is
something new to tell, and from when on it may be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.records import QTY_LOTS_MAX, EventKind
from tests.model.full import auctions
from tests.model.full.book import FullBook

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

SECOND = 10**9


def watch(model: ExchangeModel, book: FullBook) -> None:
    """Set or clear the time at which the present indication is due."""
    if not (book.is_call or book.in_batch) or auctions.find_cross(book) == book.indicated:
        book.indicative_at = None
    elif book.indicative_at is None:
        earliest = 0 if book.told_at is None else book.told_at + SECOND
        book.indicative_at = max(model.now, earliest, 1)  # 0 is no time


def due(model: ExchangeModel, now: int) -> list[FullBook]:
    """Books whose indication is due, in the order of their turn."""
    books = [b for b in model.books.values() if isinstance(b, FullBook)]
    found = [b for b in books if b.indicative_at is not None and b.indicative_at <= now]
    return sorted(found, key=lambda b: (b.indicative_at, b.symbol_id))


def tell(model: ExchangeModel, book: FullBook) -> None:
    """INDICATIVE: what an uncross would do now."""
    book.indicated, book.told_at, book.indicative_at = auctions.find_cross(book), model.now, None
    cross = book.indicated
    model.writer.add(
        EventKind.INDICATIVE,
        symbol_id=book.symbol_id,
        px=cross.px,
        qty=min(cross.volume, QTY_LOTS_MAX),
        amount=cross.surplus,
        amount2=cross.volume,
        side=cross.side,
    )
