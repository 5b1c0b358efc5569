"""What the checker says: violations with their evidence, notes on what was not checked, counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN_PER_KIND = 10  # a broken run violates one rule thousands of times

# Every kind of violation, with the sentence that explains it. docs/testing.md prints this table.
KINDS = {
    "log_unreadable": "a line of a client log is not what the load client writes",
    "answer_unreadable": "the exchange sent a client a line that is not one JSON object",
    "client_resume": "a client resumed from another number than it had seen (an error of ours)",
    "resume_refused": "a reconnecting client was refused its missed reports",
    "wrong_incarnation": "the client incarnation changed although nothing may have been lost",
    "report_gap": "a connection did not get a report number that lies between two it got",
    "report_doubled": "a connection got a report number twice",
    "report_reordered": "a connection got a report number after a higher one",
    "report_two_contents": "one report number of an account and shard has two contents",
    "report_hole": "a report number was never seen by any connection of the account",
    "report_time": "the time of an account's reports falls",
    "report_tail": "a connection was told of reports at logon that it never got",
    "order_without_accept": "the first report of an order is not its accept",
    "order_two_accepts": "an order was accepted twice",
    "order_after_end": "something happened to an order that had ended",
    "order_quantity": "quantity, filled and leaves of an order do not add up",
    "order_price": "an order has another price than before, or traded at one it does not accept",
    "order_fields": "side, symbol, owner or client id of an order changed",
    "order_left": "an order is still open after everything was cancelled",
    "order_not_as_asked": "an order was accepted with other terms than its client asked for",
    "id_executed_twice": "one client id became two orders",
    "id_two_answers": "one request was both accepted and refused",
    "trade_sides": "a trade does not have one maker and one taker report on opposite sides",
    "trade_differs": "maker and taker of a trade report another price, quantity or time",
    "trade_number_gap": "trade numbers of a symbol have a gap",
    "journal_file": "a journal file is not what its header and name promise",
    "journal_damage": "a record does not verify, and records behind it were durable",
    "journal_gap": "input numbers of a shard have a gap",
    "journal_epoch": "the epoch, or the time, of journal records falls",
    "journal_producer": "numbers of a producer are not gapless",
    "ack_not_in_journal": "an acknowledged request is not in the journal",
    "ack_time": "a report carries a time at which the journal has no such input",
    "journal_too_often": "a request stands in the journal more often than it was sent",
    "journal_unsent": "the journal has an input that no client sent",
    "journal_differs": "a journal input is not what the client asked for",
    "journal_unanswered": "a journal input was never answered",
    "feed_malformed": "a datagram or message of the feed is malformed",
    "feed_two_contents": "one feed number of a session carries two contents",
    "feed_gap": "feed numbers were never sent: the capture is whole and lacks them",
    "feed_order": "feed numbers and times, or trades and journal inputs, are in different order",
    "feed_trade_unknown": "a trade on the tape is in nobody's reports",
    "feed_trade_missing": "a trade of the reports is not on the tape",
    "feed_trade_differs": "a trade has another price, quantity or time on the tape",
    "feed_trade_doubled": "a trade stands twice on the tape",
    "feed_reference": "the feed names an unknown order reference, or takes too much from one",
    "feed_order_differs": "an order on the feed is not the one its owner's report describes",
    "feed_book_left": "orders are left on the feed after everything was cancelled",
}


@dataclass(frozen=True)
class Violation:
    """One broken rule: what, where, and the lines that show it."""

    kind: str
    text: str
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.kind}: {self.text}", *self.evidence])


@dataclass
class Findings:
    """Collects what the checks say."""

    violations: list[Violation] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)  # violations by kind, all of them
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # what was looked at

    def violate(self, kind: str, text: str, *evidence: object) -> None:
        """Note a broken rule; only the first ones of a kind keep their evidence."""
        assert kind in KINDS, kind
        self.totals[kind] += 1
        if self.totals[kind] <= SHOWN_PER_KIND:
            self.violations.append(Violation(kind, text, tuple(map(str, evidence))))

    def note(self, text: str) -> None:
        """Say once what was not or only partly checked."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def good(self) -> bool:
        return not self.totals

    def text(self) -> str:
        """All of it, for people."""
        parts = [
            f"looked at: {', '.join(f'{n} {what}' for what, n in sorted(self.counts.items()))}"
        ]
        parts += [f"note: {note}" for note in self.notes]
        parts += [str(violation) for violation in self.violations]
        for kind, total in sorted(self.totals.items()):
            if total > SHOWN_PER_KIND:
                parts.append(f"{kind}: {total - SHOWN_PER_KIND} more of them, not shown")
        parts.append(
            "no violation"
            if self.good
            else f"{sum(self.totals.values())} violations: "
            + ", ".join(f"{total} {kind}" for kind, total in sorted(self.totals.items()))
        )
        return "\n".join(parts)
