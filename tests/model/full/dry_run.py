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
    money, walked, goes_on = order.budget, 0, True
    while goes_on:
        goes_on, px = False, 0
        taker.total = PRICE_MAX  # until it is at a level
        for step in steps(book, taker):
            maker = step.maker
            if step.act == Act.REACH:
                px = book.best_px(1 - order.side) or 0
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
                goes_on = not taker.leaves
            elif step.act == Act.REFRESH:
                book.refresh(maker)
            elif taker.stp == SelfTrade.EXPIRE_MAKER:
                book.take_out(maker)
            else:
                break
        # It has all that it is worth here; a lower price it may still be worth (a sale).
        goes_on = goes_on and _pass_level(book, taker, px)
    return taker.cum


def _pass_level(book: FullBook, taker: FullOrder, px: int) -> bool:
    # Take away own orders that would expire on the way to the next level; False: others are left.
    side = 1 - taker.side
    rest = book.level_at(side, px).values() if book.has_level(side, px) else []
    for order in rest:
        if not taker.refuses(order) or taker.stp != SelfTrade.EXPIRE_MAKER:
            return False
    for order in rest:
        book.take_out(order)
    return True


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
