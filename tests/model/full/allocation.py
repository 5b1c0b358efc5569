"""How an aggressor goes through the book: the next step, and the next, until it has enough.

Cold; used by tests only. `steps` yields what has to happen next and expects that whoever asked has
done it to the book before asking again. The real run does it with events, a dry run does it
silently to a twin of the book: so a dry run cannot differ from the match (RULES §13, Dry runs).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from tests.model.full import bands
from tests.model.full.book import FullBook, Level
from tests.model.full.order import FullOrder
from tests.model.full.shares import share_out


class Act(Enum):
    """What a step is."""

    REACH = auto()  # a level comes next; it has `qty` orders
    BREACH = auto()  # that level is beyond the dynamic band: the run ends here
    TRADE = auto()  # with `maker`, `qty` lots
    OWN = auto()  # `maker` is the taker's own, which its mode does not let it trade with
    REFRESH = auto()  # the slice of `maker` is exhausted and shows again


class Step(NamedTuple):
    act: Act
    maker: FullOrder | None
    qty: int = 0


Steps = Iterator[Step]


def steps(book: FullBook, taker: FullOrder) -> Steps:
    """All steps of a run, best level first."""
    other = 1 - taker.side
    while taker.leaves:
        px = book.best_px(other)
        if px is None or not taker.reaches(px):
            return
        level = book.level_at(other, px)
        yield Step(Act.REACH, None, len(level))
        if bands.breaches(book, px):
            yield Step(Act.BREACH, None)
            return
        yield from (_rounds(book, taker, level) if book.in_rounds else _fifo(taker, level))


def _fifo(taker: FullOrder, level: Level) -> Steps:
    # Tested once, on reaching the level: does the taker want all of it, reserve and hidden too?
    whole = level.total <= taker.leaves
    while level and taker.leaves:
        maker = level.values()[0]
        if taker.refuses(maker):
            yield Step(Act.OWN, maker)
            continue
        offered = maker.leaves if whole or maker.hidden else maker.shown
        yield Step(Act.TRADE, maker, min(taker.leaves, offered))
        if maker.leaves and not maker.hidden and not maker.shown:
            yield Step(Act.REFRESH, maker)


def _rounds(book: FullBook, taker: FullOrder, level: Level) -> Steps:
    # Others first: what they display in rounds, then what they hide. Own orders come last.
    others = [order for order in level.values() if not taker.refuses(order)]
    if sum(order.leaves for order in others) <= taker.leaves:
        for maker in others:
            yield Step(Act.TRADE, maker, maker.leaves)
    while taker.leaves and (displayed := [o for o in level.queue if not taker.refuses(o)]):
        qty = min(taker.leaves, sum(order.shown for order in displayed))
        shares = share_out(book, displayed, qty)
        for share in shares:
            if share.got:
                yield Step(Act.TRADE, share.order, share.got)
        for order in displayed:
            if order.leaves and not order.shown:
                yield Step(Act.REFRESH, order)
    for maker in [order for order in level.dark if not taker.refuses(order)]:
        if taker.leaves:
            yield Step(Act.TRADE, maker, min(taker.leaves, maker.leaves))
    for maker in level.values():
        if taker.leaves and taker.refuses(maker):
            yield Step(Act.OWN, maker)
