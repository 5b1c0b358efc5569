"""Events as dicts, and every number they carry.

Cold; used by tests only. An event is a dict with all fields of the EVENT record, in its order, zero
where unused. Whoever emits states only what the kind defines; the sequence numbers are added here:
out_seq over everything, account_seq per account, feed_seq over what the public may see (RULES §11).
"""

from __future__ import annotations

from typing import Any

from engine.records import EVENT, EventFlag, EventKind
from tests.model.book_model import Order

Event = dict[str, Any]
BLANK: Event = {name: b"" if name == "text" else 0 for name in EVENT.names or ()}

_ALWAYS_PUBLIC = {
    int(kind)
    for kind in (
        EventKind.LISTED,
        EventKind.PHASE,
        EventKind.SESSION,
        EventKind.REFRESHED,
        EventKind.INDICATIVE,
        EventKind.CROSSED,
    )
}
# Public when a displayed slice shrinks or leaves; of a taker's fill: the part nobody displayed.
_PUBLIC_IF_LESS = {
    int(kind) for kind in (EventKind.FILL, EventKind.CANCELED, EventKind.EXPIRED, EventKind.PARKED)
}
_PUBLIC_IF_SHOWN = {int(EventKind.BOOKED), int(EventKind.REPRICED)}
_REPLACED, _PREVENTED = (int(kind) for kind in (EventKind.REPLACED, EventKind.PREVENTED))
_POST_ONLY, _TEXT_ID, _LAST = (
    int(flag) for flag in (EventFlag.POST_ONLY, EventFlag.TEXT_ID, EventFlag.LAST)
)
_KEPT, _WILL_TRADE = int(EventFlag.KEPT), int(EventFlag.WILL_TRADE)


def is_public(event: Event) -> bool:
    """Does this event become an ITCH message? Takers, answers and refusals do not."""
    kind = event["kind"]
    less = event["shown"] < event["shown_before"]
    if kind in _PUBLIC_IF_LESS:
        return less
    if kind in _PUBLIC_IF_SHOWN:
        return event["shown"] > 0
    if kind == _PREVENTED:
        return less and event["shown"] > 0  # an order that ends is told by EXPIRED
    if kind == _REPLACED:
        if event["flags"] & _KEPT:
            return less
        return less and event["flags"] & _WILL_TRADE > 0  # otherwise BOOKED tells it, as ITCH U
    return kind in _ALWAYS_PUBLIC


class EventWriter:
    """Collects the events of one command after the other."""

    def __init__(self) -> None:
        self.in_seq = self.out_seq = self.feed_seq = self.public_refs = 0
        self.account_seq: dict[int, int] = {}
        self.events: list[Event] = []
        self.in_slice = 0  # events since the command or its last CONTINUE began
        self._stamp: Event = BLANK

    def begin(self, in_ts: int) -> None:
        """Start a command, or the next slice of one (which has its own in_seq)."""
        self.in_seq += 1
        self.in_slice = 0
        self._stamp = BLANK | {"in_seq": self.in_seq, "in_ts": in_ts}

    def end(self) -> None:
        """Mark the last event of the command or slice."""
        if self.in_slice:
            self.events[-1]["flags"] |= _LAST

    def next_public_ref(self) -> int:
        self.public_refs += 1
        return self.public_refs

    def add(self, kind: EventKind, **fields: Any) -> None:
        """Emit one event."""
        event = self._stamp.copy()
        event["kind"] = int(kind)
        event.update(fields)
        self.out_seq += 1
        event["out_seq"] = self.out_seq
        account = event["account"]
        if account:
            seq = self.account_seq[account] = self.account_seq.get(account, 0) + 1
            event["account_seq"] = seq
        if is_public(event):
            self.feed_seq += 1
            event["feed_seq"] = self.feed_seq
        self.in_slice += 1
        self.events.append(event)

    def add_order(self, kind: EventKind, order: Order, *, flags: int = 0, **fields: Any) -> None:
        """Emit one event about an order: who, what and how much is left of it come along."""
        if order.post_only:
            flags |= _POST_ONLY
        if order.text:
            flags |= _TEXT_ID
        values: Event = {
            "order_id": order.order_id,
            "client_order_id": order.client_order_id,
            "account": order.account,
            "session": order.session,
            "symbol_id": order.symbol_id,
            "side": order.side,
            "order_type": order.order_type,
            "tif": order.tif,
            "leaves": order.leaves,
            "cum": order.cum,
            "text": order.text,
            "flags": flags,
        }
        values.update(fields)
        self.add(kind, **values)
