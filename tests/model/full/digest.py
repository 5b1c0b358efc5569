"""What of a full book decides the future, as words to be hashed: without ids and sequence numbers.

Cold; used by tests only. First the book, then its orders in priority order, buys before sells, then
those that wait, in entry order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.records import Phase
from tests.model.book_model import BUY, SELL
from tests.model.full.book import FullBook
from tests.model.full.order import TRAILING, FullOrder

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel


def words(model: ExchangeModel, book: FullBook) -> list[int]:
    """All words of one book."""
    resting = [*book.orders(BUY), *book.orders(SELL)]
    found = [book.name, book.phase, book.last_px, len(resting)]
    for order in resting:
        found += _core_words(order) if model.core_only else _order_words(order)
    if model.core_only:
        return found
    found += [book.wave_low, book.wave_high, len(book.pending)]
    for order in book.pending:
        found += _order_words(order) + _stop_words(order)
    tops = [resting.index(order) + 1 if order else 0 for order in book.top]
    found += [
        *(book.algorithm, *tops, book.cross_at or 0),
        *(book.static_ref, book.dynamic_ref, book.extensions, int(book.has_calendar)),
        *(book.resumes_to if book.phase == Phase.CANCEL_ONLY else 0, len(book.parked)),
    ]
    for order in book.parked:
        found += _order_words(order)
    found.append(len(book.call_markets))
    for order in book.call_markets:
        found += _order_words(order)
    found.append(len(book.parked_legs))
    for order in book.parked_legs:
        found += _order_words(order) + _stop_words(order)
    found.append(len(book.parked_pegs))
    for order in book.parked_pegs:
        found += _order_words(order)
    for account, p in sorted(book.protections.items()):
        recent = sum(qty for at, qty in p.fills if at > model.now - p.window)
        found += [account, p.limit, p.window, int(p.fired), recent]
    return found


def _stop_words(o: FullOrder) -> list[int]:
    # A trigger that trails lies in its extreme, and may be below the first tick.
    trigger = 0 if o.order_type in TRAILING else o.trigger
    return [trigger, int(o.on_best), o.distance, int(o.in_bps), o.activation, o.extreme]


def _core_words(o: FullOrder) -> list[int]:
    return [
        *(o.side, o.px, o.leaves, o.cum, o.account, o.order_type, o.tif, int(o.post_only)),
        *(o.shown, o.peak, o.prevented, int(o.hidden), int(o.slide), o.stp, o.min_qty),
        o.expire_at,
    ]


def _order_words(o: FullOrder) -> list[int]:
    return [*_core_words(o), len(o.legs), int(o.sibling > 0), o.cap, int(o.is_quote)]
