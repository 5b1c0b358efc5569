"""What of a full book decides the future, as words to be hashed: without ids and sequence numbers.

Cold; used by tests only. First the book, then its orders in priority order, buys before sells, then
those that wait, in entry order.
"""

from __future__ import annotations

from collections.abc import Callable
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
        found += _order_words(model, order)
    for part in sorted(model.built):
        found += PART_WORDS[part](model, book)
    return found


def _stops(model: ExchangeModel, book: FullBook) -> list[int]:
    found = [book.wave_low, book.wave_high, len(book.pending)]
    for order in book.pending:
        found += _order_words(model, order) + _stop_words(order)
    return found


def _phases(model: ExchangeModel, book: FullBook) -> list[int]:
    found = [book.static_ref, book.dynamic_ref, book.extensions, int(book.has_calendar)]
    found += [book.resumes_to if book.phase == Phase.CANCEL_ONLY else 0, len(book.parked)]
    for order in book.parked:
        found += _order_words(model, order)
    found.append(len(book.call_markets))
    for order in sorted(book.call_markets, key=lambda o: o.rank):
        found += _order_words(model, order)
    return found


def _shares(model: ExchangeModel, book: FullBook) -> list[int]:
    resting = [*book.orders(BUY), *book.orders(SELL)]
    tops = [resting.index(order) + 1 if order else 0 for order in book.top]
    return [book.algorithm, *tops]


def _lists(model: ExchangeModel, book: FullBook) -> list[int]:
    found = [len(book.parked_legs)]
    for order in book.parked_legs:
        found += _order_words(model, order) + _stop_words(order)
    return found


def _pegs(model: ExchangeModel, book: FullBook) -> list[int]:
    found = [len(book.parked_pegs)]
    for order in book.parked_pegs:
        found += _order_words(model, order)
    return found


def _quotes(model: ExchangeModel, book: FullBook) -> list[int]:
    found = []
    for account, p in sorted(book.protections.items()):
        found += [account, p.limit, p.window, int(p.fired), p.sum(model.now)]
    return found


PART_WORDS: dict[str, Callable[[ExchangeModel, FullBook], list[int]]] = {
    "stops": _stops,
    "phases": _phases,
    "shares": _shares,
    "batches": lambda _, book: [book.cross_at or 0],
    "budget": lambda *_: [],
    "quotes": _quotes,
    "pegs": _pegs,
    "lists": _lists,
}


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


def _order_words(model: ExchangeModel, o: FullOrder) -> list[int]:
    found = _core_words(o)
    if "lists" in model.built:
        found += [len(o.legs), int(o.sibling > 0)]
    if "pegs" in model.built:
        found.append(o.cap)
    if "quotes" in model.built:
        found.append(int(o.is_quote))
    return found
