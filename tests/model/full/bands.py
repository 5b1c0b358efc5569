"""Static and dynamic bands (RULES §7, §13 Bands).

Cold; used by tests only. A width is a share of its reference in basis points, rounded down to
ticks. No reference or a share of 0: no band.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.records import EventKind, RejectCode
from tests.model.book_model import BUY
from tests.model.checks_model import refuse_if
from tests.model.full.book import FullBook

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel


def width(reference: int, bps: int) -> int:
    return reference * bps // 10_000


def static_limit(book: FullBook, side: int) -> int | None:
    """The most aggressive price of a side; None without static band."""
    if not book.static_bps or not book.static_ref:
        return None
    ticks = width(book.static_ref, book.static_bps)
    px = book.static_ref + ticks if side == BUY else book.static_ref - ticks
    return min(max(px, 1), book.px_max)


def check_static(book: FullBook, side: int, px: int) -> None:
    """308: a limit or cap more aggressive than the static band."""
    limit = static_limit(book, side)
    if px and limit is not None:
        refuse_if(px > limit if side == BUY else px < limit, RejectCode.STATIC_BAND)


def breaches(book: FullBook, px: int) -> bool:
    """Would a trade at px leave the dynamic band, as it stands for this command?"""
    if not book.dynamic_bps or not book.dynamic_ref:
        return False
    return abs(px - book.dynamic_ref) > width(book.dynamic_ref, book.dynamic_bps)


def outside_static(book: FullBook, px: int) -> bool:
    """Is an auction price outside the static band, widened by the extensions so far?"""
    if not book.static_bps or not book.static_ref:
        return False
    return abs(px - book.static_ref) > static_width(book)


def static_width(book: FullBook) -> int:
    """Of the auction price: the first extension leaves it, each further one doubles it."""
    doublings = max(book.extensions - 1, 0)
    return width(book.static_ref, book.static_bps) << doublings


def tell(model: ExchangeModel, book: FullBook) -> None:
    """BAND: references and widths now."""
    model.writer.add(
        EventKind.BAND,
        symbol_id=book.symbol_id,
        px=book.static_ref,
        px2=book.dynamic_ref,
        qty=book.extensions,
        amount=static_width(book),
        amount2=width(book.dynamic_ref, book.dynamic_bps),
    )
