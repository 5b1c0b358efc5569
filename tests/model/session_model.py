"""Sessions and client ids: who may speak, and which request was already heard (RULES §10).

Cold; used by tests only. A session slot belongs to one (account, name) for ever: slots are given
out 1, 2, 3 ... and never reused. Integer ids must rise within a session and need one number of
memory; text ids belong to the account and are remembered in a bounded set, because "used before"
cannot be told from the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.book_model import Order


@dataclass(slots=True)
class Session:
    slot: int
    account: int
    name: bytes
    logon: int = 0
    producer: int = 0
    is_open: bool = False
    cancel_all_on_close: bool = False
    cancel_day_on_close: bool = False
    last_id: int = 0
    dead_man: int = 0  # ns without a sign of life; 0: for ever
    dead_man_at: int | None = None
    close_at: int | None = None
    killed: bool = False  # it may enter nothing

    def owned_by(self, logon: int, producer: int) -> bool:
        return self.is_open and (self.logon, self.producer) == (logon, producer)


@dataclass(slots=True)
class Sessions:
    """All session slots of a shard, and the client ids of the orders that live."""

    sessions_max: int
    text_ids_max: int
    slots: list[Session] = field(default_factory=list)
    used_texts: set[tuple[int, bytes]] = field(default_factory=set)
    live_ids: dict[tuple[int, int], Order] = field(default_factory=dict)
    live_texts: dict[tuple[int, bytes], Order] = field(default_factory=dict)

    def named(self, account: int, name: bytes) -> Session | None:
        """Find the slot of (account, name), open or not."""
        for session in self.slots:
            if (session.account, session.name) == (account, name):
                return session
        return None

    def add(self, account: int, name: bytes) -> Session | None:
        """Give out the next slot; None when all are in use."""
        if len(self.slots) >= self.sessions_max:
            return None
        self.slots.append(Session(len(self.slots) + 1, account, name))
        return self.slots[-1]

    def belongs(self, slot: int, account: int) -> bool:
        """Is this a slot of that account, open or not?"""
        return 1 <= slot <= len(self.slots) and self.slots[slot - 1].account == account

    def owned(self, slot: int, logon: int, producer: int) -> Session | None:
        """Return the session in this slot if it is open and the speaker owns it."""
        if not 1 <= slot <= len(self.slots):
            return None
        session = self.slots[slot - 1]
        return session if session.owned_by(logon, producer) else None

    def remember(self, order: Order) -> None:
        """Make the order's client id resolve for as long as the order lives."""
        if order.client_order_id:
            self.live_ids[order.session, order.client_order_id] = order
        if order.text:
            self.live_texts[order.account, order.text] = order

    def forget(self, order: Order) -> None:
        """End of the order: its ids no longer resolve (and stay used)."""
        self.live_ids.pop((order.session, order.client_order_id), None)
        self.live_texts.pop((order.account, order.text), None)
