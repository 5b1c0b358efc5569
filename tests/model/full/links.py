"""What happens to linked orders when one of them moves or ends (RULES §2, §13 Linked orders).

Cold; used by tests only. The first fill, trigger, prevention or end of a leg of an OCO cancels its
sibling; the end of the first order of an OTO calls its legs or cancels them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.records import Reason
from tests.model.full import life
from tests.model.full.book import FullBook
from tests.model.full.order import FullOrder

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel


def moved(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """A leg was filled, triggered, prevented or ended: its sibling goes."""
    sibling = model.orders.get(order.sibling)
    order.sibling = 0
    if isinstance(sibling, FullOrder):
        sibling.sibling = 0
        life.cancel(model, book, sibling, Reason.OCO)


def ended(model: ExchangeModel, book: FullBook, order: FullOrder) -> None:
    """The end of a first order: its legs are called, or cancelled if it was not filled whole."""
    legs, order.legs = order.legs, ()
    if not legs:
        return
    if order.cum == order.total:
        model.activations.append(legs[0])
        return
    for leg in legs:
        other = model.orders.get(leg)
        if isinstance(other, FullOrder):
            other.sibling = 0
            life.cancel(model, book, other, Reason.OCO)
