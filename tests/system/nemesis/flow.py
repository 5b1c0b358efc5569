"""One client's head: which requests it makes, what it knows of its orders, what it sends again.

Sans-I/O and deterministic but for the answers: lines in, lines out. It follows docs/protocol.md and
believes nothing else:

    ids rise; an unanswered request is sent again with its id after every reconnect, in order
    901 BUSY        no id used: the refused requests are sent again, in order, before anything new
    905 UNAVAILABLE the id is used up, nothing was done
    203 DUPLICATE   it was taken before: what became of it, reports say
    a cancel or replace that was done is answered by the report about its order
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.system.nemesis import settings as s

Message = dict[str, Any]
BUSY, UNAVAILABLE, DUPLICATE = 901, 905, 203
RESUME_REFUSALS = (207, 208, 209)


@dataclass
class Pending:
    """A request that has no answer yet."""

    kind: str
    line: Message
    target: int = 0
    sent: float = 0.0  # 0: waits to be sent (again)
    not_before: float = 0.0


@dataclass
class Open:
    """An order that rests, as far as its owner knows."""

    symbol: str
    price: int  # ticks
    total: str


@dataclass
class Flow:
    """One session, over all its connections."""

    account: str
    session: str
    seed: int
    next_id: int = 1
    pending: dict[int, Pending] = field(default_factory=dict)
    orders: dict[int, Open] = field(default_factory=dict)  # by client id
    last: dict[int, int] = field(default_factory=dict)  # shard -> number of the last report
    incarnation: int | None = None
    shards: int = 1
    logged_on: bool = False
    resume_refused: bool = False
    owed: list[Message] = field(default_factory=list)  # repeats due since the logon
    done: dict[int, Pending] = field(default_factory=dict)  # the newest answered requests
    summaries: int = 0  # of session-wide mass cancels at the end
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed} {self.account} {self.session}")

    # --------------------------------------------------------------------- logon
    def logon(self) -> Message:
        """The first line of a connection."""
        line: Message = {
            "type": "logon", "account": self.account, "token": self.account,
            "session": self.session,
        }  # fmt: skip
        if self.resume_refused:
            self.last.clear()
            self.resume_refused = False
        if self.last:
            line["resume"] = ",".join(f"{shard}:{seq}" for shard, seq in sorted(self.last.items()))
            if self.incarnation is not None:
                line["incarnation"] = self.incarnation
        return line

    def lost(self) -> None:
        """The connection is gone: everything unanswered has to be sent again."""
        self.logged_on = False
        self.owed.clear()
        for pending in self.pending.values():
            pending.sent = pending.not_before = 0.0

    def _logged_on(self, message: Message, now: float) -> None:
        numbers = {int(shard): int(number) for shard, number in message.get("seq", {}).items()}
        if not numbers:
            return  # no shard is running yet: the answer comes again
        if not self.logged_on:
            # All of them, also what a missed report behind this answer answers: that nothing is
            # done twice is what is to be shown.
            self.owed = [self.pending[own].line for own in sorted(self.pending)]
            for pending in self.pending.values():
                pending.sent = now
        self.logged_on = True
        self.shards = int(message.get("shards", 1))
        self.incarnation = message.get("incarnation", self.incarnation)
        for shard, number in numbers.items():
            self.last.setdefault(shard, number)
        self.next_id = max(self.next_id, int(message.get("last_id", 0)) + 1)

    # --------------------------------------------------------------------- what comes in
    def take(self, message: Message, now: float) -> None:
        """One line from the gateway."""
        kind = message.get("type")
        if kind == "logon":
            self._logged_on(message, now)
        elif kind == "rejected":
            self._note_number(message)
            self._rejected(message, now)
        elif type(message.get("seq")) is int:
            self._note_number(message)
            self._report(str(kind), message)

    def _note_number(self, message: Message) -> None:
        if message["seq"] > 0 and "shard" in message:
            self.last[message["shard"]] = message["seq"]

    def _rejected(self, message: Message, now: float) -> None:
        code, own = message["code"], message.get("id")
        if code in RESUME_REFUSALS:
            self.resume_refused = True
            self.counts["resumes refused"] += 1
        if message["seq"] and message.get("session") not in (None, self.session):
            return  # another session of the account
        if code == BUSY and own in self.done:
            # A repetition was refused while a missed report answered the request. Higher ids are
            # held back until it is sent again.
            self.pending[own] = self.done.pop(own)
        pending = self.pending.get(own) if type(own) is int else None
        if pending is None:
            return
        if code == BUSY:
            self.counts["busy"] += 1
            pending.sent, pending.not_before = 0.0, now + s.RETRY_S
            return
        self.counts["unavailable"] += code == UNAVAILABLE
        self.counts["duplicates"] += code == DUPLICATE
        self.counts["acks"] += bool(message["seq"])
        self._done(own)

    def _report(self, kind: str, message: Message) -> None:
        if message.get("session") != self.session:
            return
        own = message.get("id")
        if kind in ("accepted", "status") and own in self.pending:
            self.counts["acks"] += 1
            self._done(own)
        if kind == "summary" and message.get("reason") == "mass":  # not of a lost connection
            self.summaries += 1
            self._answered(0)
            if self.ended:
                self._answered(-1)
        if own is None:
            return
        if kind in ("replaced", "canceled"):
            self._answered(own)
        if kind == "booked":
            price = round(float(message["price"]) * 100)
            self.orders[own] = Open(message["symbol"], price, message["leaves"])
        elif kind == "replaced" and own in self.orders:
            self.orders[own].price = round(float(message["price"]) * 100)
            self.orders[own].total = message["qty"]
        if kind in ("canceled", "expired") or float(message.get("leaves", 1)) == 0:
            self.counts["fills"] += kind == "fill"
            self.orders.pop(own, None)

    def _answered(self, target: int) -> None:
        # The report of an order answers the cancel or replace that names it.
        for own, pending in list(self.pending.items()):
            if pending.kind != "new" and pending.target == target:
                self.counts["acks"] += 1
                self._done(own)
                return

    def _done(self, own: Any) -> None:
        pending = self.pending.pop(own, None)
        if pending is not None:
            self.done[own] = pending
            if len(self.done) > s.ANSWERED_KEPT:
                del self.done[next(iter(self.done))]

    # --------------------------------------------------------------------- what goes out
    def repeats(self, now: float) -> list[Message]:
        """Requests to be sent (again) now, in order of id. While there are any, nothing new goes
        out.
        """
        for pending in self.pending.values():
            if pending.sent and now - pending.sent > s.ANSWER_S:
                pending.sent = 0.0
        lines, self.owed = self.owed, []
        for own in sorted(own for own, pending in self.pending.items() if not pending.sent):
            pending = self.pending[own]
            if pending.not_before > now:
                break  # nothing overtakes a refused one
            pending.sent = now
            lines.append(pending.line)
        self.counts["sent again"] += len(lines)
        return lines

    @property
    def may_ask(self) -> bool:
        """Whether a new request may go out."""
        held = any(not pending.sent for pending in self.pending.values())
        return self.logged_on and not held and len(self.pending) < s.UNANSWERED_MAX

    def request(self, now: float) -> Message:
        """A new request; the caller sends it."""
        kinds, weights = list(s.MIX), list(s.MIX.values())
        kind = self.random.choices(kinds, weights)[0]
        if len(self.orders) > s.OPEN_ORDERS_MAX:
            kind = "cancel"
        free = self._free_orders() if kind in ("cancel", "replace", "query") else []
        if kind == "mass_cancel":
            symbol = self.random.choice(s.SYMBOLS[:-1])[0]
            line = {"type": "mass_cancel", "scope": "session", "symbol": symbol}
            return self._ask(kind, line, now)
        if kind in ("cancel", "replace") and free:
            return self._change(kind, self.random.choice(free), now)
        if kind == "query" and free:
            return self._query(self.random.choice(free))
        return self._new(kind if kind in s.MIX else "limit", now)

    def _ask(self, kind: str, line: Message, now: float, target: int = 0) -> Message:
        line = line | {"id": self.next_id}
        self.pending[self.next_id] = Pending(kind, line, target, now)
        self.next_id += 1
        self.counts["orders" if kind == "new" else kind] += 1
        return line

    def _free_orders(self) -> list[int]:
        # Open orders that no request of ours is about: so that a report names one request.
        busy = {pending.target for pending in self.pending.values()}
        return sorted(own for own in self.orders if own not in busy)

    def _new(self, kind: str, now: float) -> Message:
        symbol, decimals = self.random.choice(s.SYMBOLS)
        side = self.random.choice(("buy", "sell"))
        line: Message = {"symbol": symbol, "side": side, "qty": self._quantity(decimals)}
        if kind != "market":
            line["price"] = price_text(self._price(side))
        if kind in ("ioc", "fok"):
            line["tif"] = kind
        elif kind == "post_only":
            line["post_only"] = True
        return self._ask("new", line, now)

    def _price(self, side: str) -> int:
        # Mostly on the own side of the middle, one in four beyond it.
        away = self.random.randint(-s.SPREAD_TICKS // 4, s.SPREAD_TICKS)
        return s.MIDDLE_TICKS - away if side == "buy" else s.MIDDLE_TICKS + away

    def _quantity(self, decimals: int) -> str:
        lots = self.random.randint(1, 20)
        return f"{lots / 10**decimals:.{decimals}f}"

    def _change(self, kind: str, own: int, now: float) -> Message:
        order = self.orders[own]
        line: Message = {"type": kind, "symbol": order.symbol, "target_id": own}
        if kind == "replace":
            decimals = dict(s.SYMBOLS)[order.symbol]
            if self.random.random() < 0.5:
                line["qty"] = self._quantity(decimals)
            else:
                line["price"] = price_text(order.price + self.random.choice((-2, -1, 1, 2)))
        return self._ask(kind, line, now, own)

    def _query(self, own: int) -> Message:
        self.counts["query"] += 1
        return {"type": "order", "symbol": self.orders[own].symbol, "target_id": own}

    def cancel_everything(self) -> None:
        """The last request: all orders of the session, on every shard. Goes out with the repeats;
        answered by one summary per shard, which `ended` counts.
        """
        self.summaries = 0
        line = {"type": "mass_cancel", "scope": "session", "id": self.next_id}
        self.pending[self.next_id] = Pending("everything", line, -1)
        self.next_id += 1

    @property
    def ended(self) -> bool:
        """Whether every shard has answered `cancel_everything`."""
        return self.summaries >= self.shards


def price_text(ticks: int) -> str:
    """A price in hundredths as text."""
    return f"{ticks // 100}.{ticks % 100:02d}"
