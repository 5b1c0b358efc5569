"""What would an order trade now? The match itself, done to a copy of the book (RULES §5, §13).

Cold; used by tests only. Own makers count where the taker's mode lets it trade with them, are
passed over under expire_maker, and otherwise end the count.
"""

from __future__ import annotations

import copy

from engine.records import SelfTrade, TimeInForce
from tests.model.full.allocation import Act, steps
from tests.model.full.book import FullBook
from tests.model.full.order import PRICE_MAX, FullOrder


def tradable(book: FullBook, order: FullOrder, needed: int, max_walk: int) -> int | None:
    """Quantity that would trade at once, as far as it matters to know: the count may end when
    `needed` is reached. None: `max_walk` orders do not decide it. A level is looked at as a whole.
    """
    book, taker = book.twin(), copy.copy(order)
    taker.cum = taker.prevented = 0
    taker.total = order.leaves
    walked = 0
    for step in steps(book, taker):
        maker = step.maker
        if step.act == Act.REACH:
            if taker.cum >= needed:
                break
            walked += step.qty
            if walked > max_walk:
                return None
        elif maker is None:
            break
        elif step.act == Act.TRADE:
            book.fill(taker, maker, step.qty)
        elif step.act == Act.REFRESH:
            book.refresh(maker)
        elif taker.stp == SelfTrade.EXPIRE_MAKER:
            book.take_out(maker)
        else:
            break
    return taker.cum


def afford(book: FullBook, order: FullOrder, unit: int, max_walk: int) -> int | None:
    """Whole lots that the order's budget pays for (or that raise it) now. At each level it wants
    what the rest of the budget is worth there. None: undecided.
    """
    book, taker = book.twin(), copy.copy(order)
    money, walked = order.budget, 0
    taker.total = PRICE_MAX
    for step in steps(book, taker):
        maker = step.maker
        if step.act == Act.REACH:
            px = book.best_px(1 - order.side)
            assert px is not None
            lots = min(money // (px * unit), PRICE_MAX - taker.cum)
            taker.total = taker.cum + lots
            walked += step.qty
            if not lots:
                break
            if walked > max_walk:
                return None
        elif maker is None:
            break
        elif step.act == Act.TRADE:
            money -= step.qty * maker.px * unit
            book.fill(taker, maker, step.qty)
        elif step.act == Act.REFRESH:
            book.refresh(maker)
        elif taker.stp == SelfTrade.EXPIRE_MAKER:
            book.take_out(maker)
        else:
            break
    return taker.cum


def cost(book: FullBook, order: FullOrder, unit: int) -> int:
    """What the whole order would cost or raise now."""
    book, taker = book.twin(), copy.copy(order)
    money = 0
    for step in steps(book, taker):
        if step.act == Act.TRADE and step.maker:
            money += step.qty * step.maker.px * unit
            book.fill(taker, step.maker, step.qty)
        elif step.act == Act.REFRESH and step.maker:
            book.refresh(step.maker)
        elif step.maker:
            book.take_out(step.maker)  # passed over, or it would have been no whole fill
    return money


def promise(book: FullBook, order: FullOrder, max_walk: int) -> bool | None:
    """Can it keep what it promises to trade at once (FOK: all, or its minimum)? None: undecided."""
    needed = order.leaves if order.tif == TimeInForce.FOK else order.min_qty
    if not needed:
        return True
    found = tradable(book, order, needed, max_walk)
    return None if found is None else found >= needed
