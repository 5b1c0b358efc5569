"""Orders whose time is over: DAY and GTD (RULES §2, §13 Time).

Cold; used by tests only. Each expiry is one TIME command; of what is due at the same instant orders
come first, in entry order, then sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.records import Reason, TimeInForce
from tests.model.full import aftermath
from tests.model.full.book import FullBook
from tests.model.full.order import FullOrder

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel


def due(model: ExchangeModel, now: int) -> list[FullOrder]:
    """Orders whose time is over by `now`, in the order of their turn."""
    orders = [o for o in model.orders.values() if isinstance(o, FullOrder)]
    over = [o for o in orders if 0 < o.expire_at <= now]
    return sorted(over, key=lambda o: (o.expire_at, o.order_id))


def expire(model: ExchangeModel, order: FullOrder) -> None:
    """Its time is over."""
    book = model.books[order.symbol_id]
    assert isinstance(book, FullBook)
    reason = Reason.DAY if order.tif == TimeInForce.DAY else Reason.GTD
    aftermath.expire(model, book, order, reason)
