"""Market data against reports: the public saw the trades and orders that their owners were told of.

The feed of each shard is followed message by message with a small book: which reference is shown,
at which price, how much of it is left. Where numbers are missing, unknown references are excused,
and as many trades may be missing as numbers are; nothing else. That they are missing is excused
only where the capture itself lost datagrams. A session
that another one follows without having ended was cut off by a kill: what happened right before it
was never published, and the next session begins with an image of the book.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.system.checker.expect import Expect
from tests.system.checker.feed import DAY_NS, Message, Session
from tests.system.checker.findings import Findings
from tests.system.checker.inputs import Inputs
from tests.system.checker.logs import ClientLogs, Instrument, Line, units
from tests.system.checker.trades import Key, Trade

DECIMAL4 = 100_000  # 0.0001 in units of 1e-9
PRICE_MAX = 2**32 - 1
CUT_OFF_NS = 3 * 10**9  # how long before its death a feed may have been silent
SIDES = {"B": "buy", "S": "sell"}


@dataclass
class Shown:
    """One displayed order: its reference stands for it in public."""

    symbol: str
    side: str
    price: int  # units of 1e-9
    left: int  # lots


@dataclass
class Tape:
    """Where the feed of one shard stands."""

    shard: int
    missing: int = 0  # numbers not captured, all sessions
    shown: dict[int, Shown] = field(default_factory=dict)
    stocks: dict[int, str] = field(default_factory=dict)  # locate -> symbol
    trades: dict[Key, Message] = field(default_factory=dict)
    newest_match: dict[str, int] = field(default_factory=dict)
    may_jump: set[str] = field(default_factory=set)  # symbols whose trades may have been cut off
    cuts: list[int] = field(default_factory=list)  # times after which a session was cut off
    ended: bool = True  # the session before
    newest_time: int = -1
    newest_input: int = 0


class TapeCheck:
    """Follows all feed sessions and compares them with reports, trades and inputs."""

    def __init__(
        self,
        logs: ClientLogs,
        trades: dict[Key, Trade],
        inputs: dict[int, Inputs],
        expect: Expect,
        findings: Findings,
        drops: int | None = 0,  # datagrams the capture lacks; None: not known
    ) -> None:
        self.drops = drops
        self.logs, self.trades, self.inputs = logs, trades, inputs
        self.expect, self.findings = expect, findings
        self.whole = expect.whole and not logs.accounts_with_holes
        self.booked: dict[tuple[int, int], Line] = {}  # (shard, reference) -> report
        for (_, shard), numbers in logs.reports.items():
            for line in numbers.values():
                if line.message["type"] == "booked":
                    self.booked[shard, line.message["ref"]] = line

    def run(self, sessions: list[Session]) -> None:
        """Judge the feed of every shard."""
        tapes: dict[int, Tape] = {}
        for session in sessions:
            tape = tapes.setdefault(session.shard, Tape(session.shard))
            tape.missing += session.missing
            if session.missing and self.expect.feed_gapless and self.drops == 0:
                numbers = f"{session.missing} of {session.next - 1}, first {session.first_missing}"
                text = f"session {session.name}: {numbers}"
                self.findings.violate("feed_gap", text)
            first = not tape.trades and not tape.shown and not tape.stocks
            tape.shown.clear()  # a session begins with an image of the book
            if not tape.ended:
                tape.cuts.append(tape.newest_time)
                tape.may_jump = set(tape.stocks.values())
            tape.ended = session.ended
            for message in session.messages():
                self._take(tape, message, first)
        for tape in tapes.values():
            self._finish(tape)
        if not sessions:
            self.findings.note("the capture is empty: market data was not compared")
        else:
            self._missing_trades(tapes)

    # --------------------------------------------------------------------------- one message
    def _take(self, tape: Tape, message: Message, first: bool) -> None:
        if message.kind in "RAFP":
            tape.stocks[message.locate] = message.stock
        self._check_time(tape, message)
        if message.kind in "AF":
            symbol = message.stock
            self._show(tape, message, message.ref, symbol, SIDES.get(message.side, ""), first)
        elif message.kind == "U":
            old = tape.shown.pop(message.ref, None)
            if old is None:
                self._unknown(tape, message)
                known = self.booked.get((tape.shard, message.new_ref))
                symbol = tape.stocks.get(message.locate, "")
                side = known.message["side"] if known else ""
                old = Shown(symbol, side, 0, 0)
            self._show(tape, message, message.new_ref, old.symbol, old.side, first)
        elif message.kind in "ECXD":
            self._reduce(tape, message)
        if message.kind in "ECP":
            self._trade(tape, message)
        gone = tape.shown.get(message.ref)
        if gone is not None and gone.left <= 0:
            del tape.shown[message.ref]

    def _check_time(self, tape: Tape, message: Message) -> None:
        fall = tape.newest_time - message.time
        if 0 < fall < DAY_NS // 2:  # more is midnight
            text = f"shard {tape.shard}: time falls by {fall} ns"
            self.findings.violate("feed_order", text, message)
        tape.newest_time = message.time

    def _show(
        self, tape: Tape, message: Message, ref: int, symbol: str, side: str, first: bool
    ) -> None:
        instrument = self._instrument(symbol)
        price = self._price(message.price, instrument)
        if ref in tape.shown:
            self.findings.violate("feed_reference", f"reference {ref} is shown twice", message)
        tape.shown[ref] = Shown(symbol, side, price, message.shares)
        report = self.booked.get((tape.shard, ref))
        if report is None:
            if self.whole:
                text = f"reference {ref} of shard {tape.shard} is in nobody's reports"
                self.findings.violate("feed_order_differs", text, message)
            return
        told = report.message
        wanted = (told["symbol"], told["side"], units(told["price"]))
        quantity, shown = units(told["qty"]), message.shares * instrument.lot
        # An image shows what is left of an order that its report describes as it was booked.
        image = not first and message.time != told["ts"] % DAY_NS
        if wanted != (symbol, side, price) or shown > quantity or (shown < quantity and not image):
            text = (
                f"reference {ref}: {(symbol, side, price, shown)}, reported {(*wanted, quantity)}"
            )
            self.findings.violate("feed_order_differs", text, message, report)

    def _reduce(self, tape: Tape, message: Message) -> None:
        shown = tape.shown.get(message.ref)
        if shown is None:
            self._unknown(tape, message)
            return
        shown.left -= shown.left if message.kind == "D" else message.shares
        if shown.left < 0:
            text = f"reference {message.ref}: {-shown.left} more than was shown"
            self.findings.violate("feed_reference", text, message)

    def _unknown(self, tape: Tape, message: Message) -> None:
        if not tape.missing:
            text = f"reference {message.ref} of shard {tape.shard} is not shown"
            self.findings.violate("feed_reference", text, message)

    # --------------------------------------------------------------------------- trades
    def _trade(self, tape: Tape, message: Message) -> None:
        shown = tape.shown.get(message.ref)
        symbol = tape.stocks.get(message.locate, "")
        key = (symbol, message.match)
        price: int | None = shown.price if shown and message.kind == "E" else None
        if message.kind in "CP":
            price = self._price(message.price, self._instrument(symbol))
        if key in tape.trades:
            text = f"trade {message.match} of {symbol}"
            self.findings.violate("feed_trade_doubled", text, tape.trades[key], message)
            return
        tape.trades[key] = message
        self._check_match(tape, message, symbol)
        trade = self.trades.get(key)
        if trade is None:
            if self.whole:
                text = f"trade {message.match} of {symbol} is in nobody's reports"
                self.findings.violate("feed_trade_unknown", text, message)
            return
        told = (trade.qty, trade.ts % DAY_NS)
        seen = (message.shares * self._instrument(symbol).lot, message.time)
        if told != seen or price not in (None, trade.price):
            text = f"trade {message.match} of {symbol}: tape {(price, *seen)}, reports"
            self.findings.violate(
                "feed_trade_differs", f"{text} {(trade.price, *told)}", message, *trade.sides
            )
        self._check_input(tape, message, trade)

    def _check_match(self, tape: Tape, message: Message, symbol: str) -> None:
        before = tape.newest_match.get(symbol, 0)
        gap = message.match != before + 1
        if message.match <= before or (gap and not tape.missing and symbol not in tape.may_jump):
            text = f"{symbol}: trade {message.match} follows {before} on the tape"
            self.findings.violate("feed_order", text, message)
        tape.may_jump.discard(symbol)
        tape.newest_match[symbol] = message.match

    def _check_input(self, tape: Tape, message: Message, trade: Trade) -> None:
        # The tape is in the order of the inputs that caused the trades, where the report tells
        # which input that was: that of a taker that trades at the moment it was taken.
        inputs = self.inputs.get(tape.shard)
        if inputs is None or trade.taker is None:
            return
        taker = trade.taker.message
        key = (trade.taker_account, taker.get("session", ""), taker.get("id", 0))
        records = [r for r in inputs.by_key.get(key, ()) if r.in_ts == trade.ts]
        if not records:
            return
        if records[0].in_seq < tape.newest_input:
            text = f"trade of input {records[0].in_seq} follows one of input {tape.newest_input}"
            self.findings.violate("feed_order", text, message, trade.taker, records[0])
        tape.newest_input = max(tape.newest_input, records[0].in_seq)

    # --------------------------------------------------------------------------- the end
    def _finish(self, tape: Tape) -> None:
        if tape.missing:
            self.findings.note(
                f"shard {tape.shard}: {tape.missing} feed numbers were not captured;"
                " what they said is not compared"
            )
        elif self.expect.flat and tape.shown:
            ref, shown = next(iter(tape.shown.items()))
            text = f"shard {tape.shard}: {len(tape.shown)} references, first {ref}: {shown}"
            self.findings.violate("feed_book_left", text)

    def _missing_trades(self, tapes: dict[int, Tape]) -> None:
        absent: dict[int, list[Key]] = {}
        for key, trade in self.trades.items():
            tape = tapes.get(trade.shard)
            if tape is not None and key in tape.trades:
                continue
            since = [(trade.ts - cut) % DAY_NS for cut in tape.cuts] if tape is not None else []
            if any(passed <= CUT_OFF_NS for passed in since):
                self.findings.counts["trades cut off before the tape"] += 1
            else:
                absent.setdefault(trade.shard, []).append(key)
        for shard, keys in absent.items():
            missing = tapes[shard].missing if shard in tapes else 0
            if len(keys) > missing:
                trade = self.trades[keys[0]]
                text = f"shard {shard}: {len(keys)} trades are not on the tape, first {keys[0]}"
                self.findings.violate(
                    "feed_trade_missing", f"{text}; {missing} numbers were missed", *trade.sides
                )

    # --------------------------------------------------------------------------- numbers
    def _instrument(self, symbol: str) -> Instrument:
        template = Instrument(units(self.expect.template_tick), units(self.expect.template_lot), 0)
        return self.logs.instruments.get(symbol, template)

    @staticmethod
    def _price(price: int, instrument: Instrument) -> int:
        # Four decimals where tick and highest price allow it, else ticks (directory channel).
        if instrument.tick % DECIMAL4 == 0 and instrument.price_max // DECIMAL4 <= PRICE_MAX:
            return price * DECIMAL4
        return price * instrument.tick
