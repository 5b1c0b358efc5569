"""One shard of the exchange as plain Python: commands in, events out (RULES, EVENTS).

Cold; used by tests only: the oracle of tests/engine/test_differential.py and of the scenarios. It
is the second of two independent implementations, so it is written for reading: a handler checks
everything first (a failed check raises Refused), then changes the book and emits events as they
happen. book_model has the books, orders_model the life of an order, desk_model what concerns many
orders or none, time_model what happens by itself, feed_model how the public begins, session_model
the ids, checks_model the refusals by field, events_model the numbers.

Work that may be long is a generator that yields before each unit (a fill pair, a cancel, a row of a
query). `apply` sits between two units: when the slice is full it emits CONTINUED and goes on under
the next in_seq, which is what CONTINUE commands do in the engine. Before a command whose time a
deadline does not outlive, `apply` runs TIME until nothing is due.

Order ids here have an empty slot part: counter << 24.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from typing import Any

from engine.config import Instrument, ShardLimits
from engine.records import (
    SLOT_BITS,
    SYMBOL_INDEX_BITS,
    CommandKind,
    EventFlag,
    EventKind,
    Reason,
    RejectCode,
    RuleSet,
    pack_name,
)
from tests.model import desk_model, limits_model, orders_model, time_model
from tests.model.book_model import BUY, SELL, Book, Order, Terms
from tests.model.checks_model import (
    FIRST_ADMINISTRATIVE_KIND,
    Command,
    Refused,
    check_fields,
    is_name,
    refuse_if,
    target_text,
)
from tests.model.events_model import Event, EventWriter
from tests.model.full import aftermath, digest, lists
from tests.model.full.book import FullBook
from tests.model.full.built import PARTS
from tests.model.session_model import Session, Sessions

Units = Generator[None, None, None]


class ExchangeModel:
    """One shard: books, sessions, open accounts, live orders."""

    def __init__(
        self,
        limits: ShardLimits | None = None,
        *,
        shard: int = 0,
        unknown_symbol: str = "create",
        template: Instrument | None = None,
        built: frozenset[str] = PARTS,
    ) -> None:
        # What the compiled engine does not trade yet is refused as it does (docs/rules.md).
        self.built = built
        self.limits = limits or ShardLimits()
        self.shard = shard
        self.creates_symbols = unknown_symbol == "create"
        self.template = template or Instrument("TEMPLATE")
        self.writer = EventWriter()
        self.books: dict[int, Book] = {}  # by symbol_id
        self.accounts: set[int] = set()
        self.killed: set[int] = set()  # accounts that may enter nothing
        self.limits_of: dict[tuple[int, int], limits_model.Limits] = {}  # by account, symbol_id
        self.admin_seq = 0  # of the newest administrative command that was numbered
        self.sessions = Sessions(self.limits.sessions_max, self.limits.text_ids_max)
        self.orders: dict[int, Order] = {}  # live orders by order_id, in entry order
        self.order_count = 0
        self.touched: set[int] = set()  # full books this command changed
        self.reached: Book | None = None  # instrument the checks of this command came to
        self.unfinished_lists: dict[int, lists.Unfinished] = {}  # by session slot
        self.slots_promised = 0  # to legs of the list that is being checked
        self.activations: list[int] = []  # first legs that go live after this command
        self.now = 0
        self.command_in_seq = 0  # of the newest command itself, behind the TIMEs before it
        self.incarnation = 0
        self.trading_date = 0

    # ----------------------------------------------------------------------------- one command
    def apply(self, command: Any) -> list[Event]:
        """Run one command to its end; all its events, those of its CONTINUE slices included, behind
        those of what was due before it.
        """
        c = command if isinstance(command, dict) else _plain(command)
        self.writer.events = []
        if c["kind"] != CommandKind.TIME:
            self._pass_time(c["in_ts"])
        self.command_in_seq = self.writer.in_seq + 1
        self._apply_one(c)
        return self.writer.events

    def advance(self, in_ts: int) -> list[Event]:
        """Move time on without a command."""
        events = self.apply(time_model.time_command(in_ts))
        self._pass_time(in_ts)
        return events

    def _pass_time(self, in_ts: int) -> None:
        while time_model.agenda(self, max(self.now, in_ts)):
            self._apply_one(time_model.time_command(in_ts))

    def _apply_one(self, c: Command) -> None:
        writer = self.writer
        self.reached = None
        self.touched.clear()
        before = len(writer.events)
        if c["kind"] != CommandKind.CONTINUE or c["producer"] != time_model.LOOP:
            self.now = max(self.now, c["in_ts"])  # a slice has the time of its command
        writer.begin(self.now)
        units = 0
        for _ in self._run(c):
            if writer.in_slice >= self.limits.slice_events:
                writer.add(EventKind.CONTINUED, qty=units)
                writer.end()
                writer.begin(self.now)
                units = 0
            units += 1
        writer.end()
        limits_model.note_fills(self, writer.events[before:])
        while self.activations:
            self._apply_one(lists.activate_command(self.activations[0]))

    def _run(self, c: Command) -> Units:
        try:
            if c["kind"] < FIRST_ADMINISTRATIVE_KIND:
                yield from self._run_client(c)
            else:
                yield from desk_model.run_administrative(self, c)
            yield from aftermath.finish(self)
        except Refused as refusal:
            self._reject(c, refusal.code)

    def _run_client(self, c: Command) -> Units:
        kind = c["kind"]
        if kind == CommandKind.SESSION_OPEN:
            desk_model.session_open(self, c)
            return
        if kind == CommandKind.SESSION_CLOSE:
            yield from desk_model.session_close(self, c)
            return
        if kind == CommandKind.SESSION_KEEP:
            time_model.keep(self, c)
            return
        if lists.is_leg(self, c):
            yield from lists.leg(self, c)
            return
        check_fields(c, desk_model.own_checks(self, c))
        session = self.speaker(c)
        time_model.heard(self, session)
        heard = self.heard_before(c, session)
        if heard is None:
            limits_model.check_block(self, session, kind)
        if heard is not None:
            desk_model.status(self, heard)
        elif kind == CommandKind.NEW:
            yield from orders_model.new(self, c)
        elif kind == CommandKind.CANCEL:
            orders_model.cancel(self, self.target(c), Reason.CLIENT)
        elif kind == CommandKind.REPLACE:
            yield from orders_model.replace(self, c)
        elif kind == CommandKind.QUOTE:
            yield from desk_model.quote(self, c)
        elif kind == CommandKind.MASS_CANCEL:
            yield from desk_model.mass_cancel(self, c)
        elif kind == CommandKind.QUERY_ORDER:
            desk_model.status(self, self.target(c))
        elif kind == CommandKind.QUERY_OPEN_ORDERS:
            yield from desk_model.query_open_orders(self, c)
        else:
            raise Refused(RejectCode.NOT_SUPPORTED_HERE)

    def speaker(self, c: Command) -> Session:
        """201, 202, or the session whose present owner gives this command."""
        session = self.sessions.owned(c["session"], c["logon"], c["producer"])
        if session is None:
            raise Refused(RejectCode.NOT_LOGGED_ON)
        refuse_if(c["account"] != session.account, RejectCode.NOT_AUTHORISED)
        return session

    def heard_before(self, c: Command, session: Session) -> Order | None:
        """203, 204: the live order of a client id that was used, or mark the id as used."""
        number, sessions = c["client_order_id"], self.sessions
        if 0 < number <= session.last_id:
            order = sessions.live_ids.get((session.slot, number))
            if order is None:
                raise Refused(RejectCode.DUPLICATE)
            return order
        if number:
            session.last_id = number
        key = (session.account, target_text(c))
        if c["kind"] == CommandKind.NEW and key[1]:
            if key in sessions.used_texts:
                order = sessions.live_texts.get(key)
                if order is None:
                    raise Refused(RejectCode.DUPLICATE)
                return order
            full = len(sessions.used_texts) >= self.limits.text_ids_max
            refuse_if(full, RejectCode.ID_TABLE_FULL)
            sessions.used_texts.add(key)
        return None

    def _reject(self, c: Command, code: RejectCode) -> None:
        text = target_text(c)
        told = code != RejectCode.NOT_LOGGED_ON and c["account"] in self.accounts
        self.writer.add(
            EventKind.REJECTED,
            code=int(code),
            client_order_id=c["client_order_id"] or c["target_client_order_id"],
            order_id=c["order_id"],
            account=c["account"] if told else 0,
            session=c["session"] if self.sessions.belongs(c["session"], c["account"]) else 0,
            symbol_id=self.reached.symbol_id if self.reached else 0,
            text=text,
            flags=int(EventFlag.TEXT_ID) if text else 0,
        )

    def target(self, c: Command) -> Order:
        """501, or the live order of this account that a command names."""
        order: Order | None
        if c["order_id"]:
            order = self.orders.get(c["order_id"])
        elif c["target_client_order_id"]:
            order = self.sessions.live_ids.get((c["session"], c["target_client_order_id"]))
        else:
            order = self.sessions.live_texts.get((c["account"], target_text(c)))
        if order is None or order.account != c["account"]:
            raise Refused(RejectCode.UNKNOWN_ORDER)
        self.reached = self.books[order.symbol_id]
        if c["kind"] != CommandKind.REPLACE and c["symbol_id"] not in (0, order.symbol_id):
            raise Refused(RejectCode.UNKNOWN_ORDER)  # for a replace that is 313
        return order

    def cancel_owned(self, account: int, slot: int, reason: Reason) -> Units:
        """Cancel all orders of an account, or of one of its sessions, and say how many."""
        yield from desk_model.cancel_owned(self, account, slot, reason)

    # ---------------------------------------------------------------------- instruments, state
    def find_book(self, c: Command) -> Book | None:
        """Return the book a command names by number, or by name where it gives no number."""
        if c["symbol_id"]:
            return self.books.get(c["symbol_id"])
        return next((b for b in self.books.values() if b.name == c["symbol"]), None)

    def list_instrument(self, name: int, terms: Terms) -> Book:
        """302, or a new book: LISTED and PHASE."""
        good = is_name(name.to_bytes(8, "little").rstrip(b"\0")) and terms.possible
        full = len(self.books) >= self.limits.symbols_max
        taken = any(book.name == name for book in self.books.values())
        refuse_if(not good or full or taken, RejectCode.LISTING_REFUSED)
        symbol_id = self.shard << SYMBOL_INDEX_BITS | (len(self.books) + 1)
        kind = FullBook if terms.rules == RuleSet.FULL else Book
        book = self.books[symbol_id] = kind(symbol_id, name, terms)
        self.tell_listed(book)
        return book

    def tell_listed(self, book: Book) -> None:
        """LISTED and PHASE: what the public has to know before any order."""
        self.tell_rules(book)
        algorithm = book.algorithm if isinstance(book, FullBook) else 0
        self.writer.add(
            EventKind.PHASE, symbol_id=book.symbol_id, code=book.phase, order_type=algorithm
        )

    def tell_rules(self, book: Book) -> None:
        """LISTED: the terms of an instrument."""
        text = book.name.to_bytes(8, "little").rstrip(b"\0")
        self.writer.add(
            EventKind.LISTED,
            symbol_id=book.symbol_id,
            text=text,
            amount=book.terms.tick,
            amount2=book.terms.lot,
            px2=book.terms.px_max,
            order_type=book.terms.rules,
            stp=book.stp if isinstance(book, FullBook) else book.terms.stp,
        )

    def next_order_id(self) -> int:
        return (self.order_count + 1) << SLOT_BITS

    def level_count(self) -> int:
        return sum(book.level_count() for book in self.books.values())

    def state_digest(self) -> str:
        """Hash of all books in priority order, without ids and sequence numbers."""
        words: list[int] = []
        for book in self.books.values():
            if isinstance(book, FullBook):
                words += digest.words(self, book)
                continue
            resting = [*book.orders(BUY), *book.orders(SELL)]
            words += [book.name, book.phase, book.last_px, len(resting)]
            for o in resting:
                words += [o.side, o.px, o.leaves, o.cum, o.account]
                words += [o.order_type, o.tif, int(o.post_only)]
        words += limits_model.words(self)
        raw = b"".join(word.to_bytes(8, "little", signed=word < 0) for word in words)
        return hashlib.blake2b(raw, digest_size=16).hexdigest()

    def resting(self, symbol: str, side: int) -> list[Order]:
        """Resting orders of one side in priority order."""
        return list(self.book(symbol).orders(side))

    def book(self, symbol: str) -> Book:
        name = pack_name(symbol)
        return next(book for book in self.books.values() if book.name == name)

    def check(self) -> None:
        """Books sound, and exactly the resting orders are live."""
        for book in self.books.values():
            book.check()
        resting = {
            o.order_id for b in self.books.values() for side in (BUY, SELL) for o in b.orders(side)
        }
        assert resting | aftermath.waiting(self) == set(self.orders)
        assert len(self.orders) <= self.limits.orders_max
        assert self.level_count() <= self.limits.levels_max


def _plain(record: Any) -> dict[str, Any]:
    """Turn a COMMAND record into a dict of plain numbers, its text as bytes without padding."""
    plain = {name: record[name].item() for name in record.dtype.names if name != "text"}
    plain["text"] = bytes(record["text"]).rstrip(b"\0")
    return plain


def start(model: ExchangeModel, instruments: Sequence[Instrument], accounts: int) -> list[Event]:
    """Open accounts 1..n with their default sessions, list instruments: as LocalExchange does."""
    return [event for c in desk_model.startup(instruments, accounts) for event in model.apply(c)]
