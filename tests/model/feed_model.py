"""The feed session: its numbers, its trading day, and the picture of the books it begins with.

Cold; used by tests only. Functions over the ExchangeModel. FEED_STATE is one ITCH system event; the
letter O begins a session, whose listeners know nothing: they are told every instrument, then every
resting order in priority order, with nothing that is not public (RULES §11).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import EventKind
from tests.model.book_model import BUY, SELL, Order
from tests.model.checks_model import Command
from tests.model.full.aftermath import shown

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
OPENS = ord("O")


def feed_state(model: ExchangeModel, c: Command) -> Units:
    """One system event, and what belongs to it."""
    letter, date, epoch = c["order_type"], c["amount"], c["expire_ts"]
    if letter != OPENS:
        _session(model, letter, date, epoch)
        return
    if date > model.trading_date:
        model.trading_date = date
        kept = set(model.sessions.live_texts)
        for unfinished in model.unfinished_lists.values():
            kept |= unfinished.texts
        model.sessions.used_texts = kept
    model.writer.feed_seq = 0
    _session(model, letter, model.trading_date, epoch)
    yield from _image(model)


def _session(model: ExchangeModel, letter: int, date: int, epoch: int) -> None:
    model.writer.add(EventKind.SESSION, code=letter, amount=date, amount2=epoch)


def _image(model: ExchangeModel) -> Units:
    books = [model.books[number] for number in sorted(model.books)]
    for book in books:
        yield
        model.tell_listed(book)
    for book in books:
        for side in (BUY, SELL):
            for order in book.orders(side):
                if not shown(order):
                    continue
                yield
                _show(model, order)


def _show(model: ExchangeModel, order: Order) -> None:
    model.writer.add(
        EventKind.BOOKED,
        symbol_id=order.symbol_id,
        side=order.side,
        px=order.px,
        qty=shown(order),
        leaves=shown(order),
        shown=shown(order),
        public_ref=order.public_ref,
    )
