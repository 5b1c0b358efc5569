"""What must be true of every event stream, whoever wrote it (RELIABILITY I1, I5, I6, I15-I17).

Cold; used by tests only. The checker sees events and nothing else, as an outside reader would. It
follows each order from ACCEPTED to its end, rebuilds the queues of the public book from the public
events alone, and holds every command against the grammar of EVENTS §1. It knows none of the rules
about who may trade with whom: it catches what contradicts itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.records import EventFlag, EventKind, OrderType, Role

Event = dict[str, Any]
ANSWERS = {
    int(kind)
    for kind in (
        EventKind.ACCEPTED,
        EventKind.REJECTED,
        EventKind.REPLACED,
        EventKind.CANCELED,
        EventKind.STATUS,
        EventKind.SUMMARY,
        EventKind.ACCOUNT,
        EventKind.SESSION,
        EventKind.LISTED,
    )
}
OPENS = ord("O")
LAST, KEPT, LEFT_BOOK, WILL_TRADE = (
    int(flag)
    for flag in (EventFlag.LAST, EventFlag.KEPT, EventFlag.LEFT_BOOK, EventFlag.WILL_TRADE)
)


@dataclass(slots=True)
class Life:
    """What the events said about one order so far."""

    side: int
    order_type: int
    symbol_id: int
    px: int
    total: int
    cum: int = 0
    gone: int = 0  # cancelled or expired
    public_ref: int = 0


@dataclass
class StreamChecker:
    """Feed it every event of a shard from the first on; it asserts."""

    out_seq: int = 0
    feed_seq: int = 0
    public_ref: int = 0
    in_seq: int = 0
    account_seq: dict[int, int] = field(default_factory=dict)
    trade_ids: dict[int, int] = field(default_factory=dict)
    lives: dict[int, Life] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    # symbol_id -> side -> px -> public_ref -> shown quantity, in queue order
    books: dict[int, tuple[dict[int, dict[int, int]], ...]] = field(default_factory=dict)
    group: list[Event] = field(default_factory=list)  # the command so far, slices joined
    # the same of a feed session that is being opened: what the public is told anew
    image: dict[int, tuple[dict[int, dict[int, int]], ...]] | None = None

    def feed(self, events: list[Event]) -> None:
        """Check a stretch of events that ends where a command ends."""
        for event in events:
            self._check_numbers(event)
            self._follow(event)
            self.group.append(event)
            if event["flags"] & LAST:
                self.in_seq = event["in_seq"]
                if event["kind"] != EventKind.CONTINUED:
                    self._check_image()
                    self._check_grammar()
                    self._check_uncrossed()
                    self.group = []

    # ------------------------------------------------------------------------- gapless numbers
    def _check_numbers(self, event: Event) -> None:
        self.out_seq += 1
        assert event["out_seq"] == self.out_seq
        assert event["in_seq"] > self.in_seq, "a command must not speak after its last event"
        account = event["account"]
        if account:
            self.account_seq[account] = self.account_seq.get(account, 0) + 1
        assert event["account_seq"] == (self.account_seq[account] if account else 0)
        if event["kind"] == EventKind.SESSION and event["code"] == OPENS:
            self.feed_seq = 0  # a feed session counts from 1
        if event["feed_seq"]:
            self.feed_seq += 1
            assert event["feed_seq"] == self.feed_seq

    # ---------------------------------------------------------------------- one order's life
    def _follow(self, event: Event) -> None:
        kind, order_id = event["kind"], event["order_id"]
        if kind == EventKind.SESSION and event["code"] == OPENS:
            self.image = {}
        elif self.image is not None:
            self._see_again(event)
        elif kind == EventKind.LISTED:
            self.books[event["symbol_id"]] = ({}, {})
        elif kind == EventKind.ACCEPTED:
            assert order_id not in self.lives
            assert order_id not in self.ended
            names = ("side", "order_type", "symbol_id", "px")
            self.lives[order_id] = Life(*(event[name] for name in names), total=event["qty"])
        elif kind == EventKind.REPLACED:
            self._replaced(self.lives[order_id], event)
        elif kind == EventKind.BOOKED:
            self._booked(self.lives[order_id], event)
        elif kind == EventKind.FILL:
            self._filled(self.lives[order_id], event)
        elif kind in (EventKind.CANCELED, EventKind.EXPIRED):
            self._ended(self.lives[order_id], event)
        if order_id in self.lives and kind != EventKind.REJECTED:
            life = self.lives[order_id]
            assert event["cum"] == life.cum
            assert event["leaves"] == life.total - life.cum - life.gone >= 0
            if not event["leaves"]:
                del self.lives[order_id]
                self.ended.add(order_id)

    # ------------------------------------------------------------------- a new feed session
    def _see_again(self, event: Event) -> None:
        image = self.image
        assert image is not None
        if event["kind"] == EventKind.LISTED:
            assert not any(any(sides) for sides in image.values()), "instruments come first"
            assert event["symbol_id"] not in image
            image[event["symbol_id"]] = ({}, {})
        elif event["kind"] == EventKind.BOOKED:
            private = ("account", "account_seq", "session", "order_id", "client_order_id", "text")
            assert not any(event[name] for name in private)
            assert event["qty"] == event["shown"] == event["leaves"]
            level = image[event["symbol_id"]][event["side"]].setdefault(event["px"], {})
            level[event["public_ref"]] = event["shown"]

    def _check_image(self) -> None:
        # Told anew, level by level from the best on, is exactly what was known.
        if self.image is None:
            return
        assert list(self.image) == sorted(self.books)
        for symbol_id, sides in self.image.items():
            for side, levels in enumerate(sides):
                known = self.books[symbol_id][side]
                best_first = sorted(known, reverse=side == 0)
                told = [(px, list(queue.items())) for px, queue in levels.items()]
                assert told == [(px, list(known[px].items())) for px in best_first]
        self.image = None

    def _queue(self, life: Life, px: int) -> dict[int, int]:
        return self.books[life.symbol_id][life.side].setdefault(px, {})

    def _leave(self, life: Life, shown: int) -> None:
        queue = self._queue(life, life.px)
        assert queue.pop(life.public_ref) == shown
        if not queue:
            del self.books[life.symbol_id][life.side][life.px]
        life.public_ref = 0

    def _replaced(self, life: Life, event: Event) -> None:
        assert event["shown_before"] == life.total - life.cum
        if event["flags"] & KEPT:
            assert event["px"] == life.px
            assert event["public_ref"] == life.public_ref
            assert event["qty"] <= life.total
            self._queue(life, life.px)[life.public_ref] = event["shown"]
        else:
            assert event["flags"] & LEFT_BOOK
            assert event["old_ref"] == life.public_ref
            self._leave(life, event["shown_before"])
        life.px, life.total = event["px"], event["qty"]

    def _booked(self, life: Life, event: Event) -> None:
        self.public_ref += 1
        assert life.public_ref == 0
        assert event["public_ref"] == self.public_ref
        assert event["px"] == life.px
        assert event["qty"] == event["shown"] == event["leaves"]
        life.public_ref = event["public_ref"]
        self._queue(life, life.px)[life.public_ref] = event["shown"]

    def _filled(self, life: Life, event: Event) -> None:
        life.cum += event["qty"]
        assert event["qty"] > 0
        if event["role"] == Role.TAKER:
            maker = self.group[-1]
            assert (maker["kind"], maker["role"]) == (EventKind.FILL, Role.MAKER)
            assert maker["side"] == 1 - event["side"]
            for name in ("px", "qty", "trade_id", "symbol_id"):
                assert maker[name] == event[name]
            if life.order_type == OrderType.LIMIT:
                inside = event["px"] <= life.px if life.side == 0 else event["px"] >= life.px
                assert inside, "traded beyond its limit"
            return
        ids = self.trade_ids
        ids[life.symbol_id] = ids.get(life.symbol_id, 0) + 1
        assert event["trade_id"] == ids[life.symbol_id]
        assert event["px"] == life.px, "the maker's price"
        levels = self.books[life.symbol_id][life.side]
        assert event["px"] == (min(levels) if life.side else max(levels)), "the best level"
        queue = levels[life.px]
        assert event["public_ref"] == life.public_ref == next(iter(queue)), "the front of it"
        assert event["shown_before"] == queue[life.public_ref]
        assert event["shown"] == event["shown_before"] - event["qty"]
        queue[life.public_ref] = event["shown"]
        if not event["shown"]:
            self._leave(life, 0)

    def _ended(self, life: Life, event: Event) -> None:
        life.gone = event["qty"]
        assert life.gone > 0
        if event["kind"] == EventKind.CANCELED:
            assert event["public_ref"] == life.public_ref
            assert event["shown_before"] == event["qty"]
            self._leave(life, event["shown_before"])
        else:
            assert life.public_ref == 0

    # -------------------------------------------------------------------------- whole commands
    def _check_grammar(self) -> None:
        kinds = [e["kind"] for e in self.group if e["kind"] != EventKind.CONTINUED]
        if kinds[0] == EventKind.SESSION:
            told = len(kinds[1:]) - kinds.count(EventKind.BOOKED)
            pairs = [EventKind.LISTED, EventKind.PHASE] * (told // 2)
            assert kinds[1:] == [*pairs, *[EventKind.BOOKED] * kinds.count(EventKind.BOOKED)]
            assert len(kinds) == 1 or self.group[0]["code"] == OPENS
            return
        if kinds[:2] == [EventKind.LISTED, EventKind.PHASE]:
            kinds = kinds[2:]  # alone, or before the order that made the symbol
        if not kinds:
            return
        answer, rest = kinds[0], kinds[1:]
        assert answer in ANSWERS, kinds
        if answer in (EventKind.ACCEPTED, EventKind.REPLACED):
            end = rest[-1] if len(rest) % 2 else 0
            fills = rest[:-1] if end else rest
            assert set(fills) <= {EventKind.FILL}, kinds
            assert end in (0, EventKind.BOOKED, EventKind.EXPIRED), kinds
            self._check_run_closed()
        elif answer in (EventKind.CANCELED, EventKind.STATUS) and rest:
            assert set(rest[:-1]) <= {answer}, kinds
            assert rest[-1] == EventKind.SUMMARY, kinds
        elif answer == EventKind.ACCOUNT and rest:
            assert set(rest[:-1]) <= {EventKind.CANCELED}, kinds
            assert rest[-1] == EventKind.SUMMARY, kinds
        else:
            assert not rest, kinds

    def _check_run_closed(self) -> None:
        # After the run the order is filled, in the book, or expired: never in between.
        order = next(e for e in self.group if e["kind"] in (EventKind.ACCEPTED, EventKind.REPLACED))
        life = self.lives.get(order["order_id"])
        assert life is None or life.public_ref, "accepted, open, and nowhere"

    def _check_uncrossed(self) -> None:
        for bids, asks in self.books.values():
            assert not bids or not asks or max(bids) < min(asks), "crossed"
