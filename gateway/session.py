"""Sessions: who is logged on, which ids are used, what may still be sent. Sans-I/O.

Cold, except for the words of gateway/state.py that it sets up and both codecs use. A session is
(account, name); on every shard the highest logon owns it. Its life here:

    WAITING     token good, but no shard is running: requests are refused 905
    OPENING     SESSION_OPEN sent; lines that arrive are kept until every shard that is up has
                answered, and missed reports asked for are found in the event log
    LIVE        trades; while `behind` is set, missed reports go out first (gateway/desk_log.py)
    CLOSED      gone; SESSION_CLOSE was sent, or waits in `close_queue` until the ring has room: a
                close is never dropped

A later logon of the same (account, name), here or at another gateway, is seen as an ACCOUNT event:
the older connection is told and closed, without SESSION_CLOSE (the shard would ignore it). Throttle
buckets outlive the connection: reconnecting does not refill them.

A shard that went down and comes back knows its sessions: they are in its journal, and what was in
its ring is run once. So nothing is opened a second time. A SESSION_OPEN that was under way is
answered late; one that found no room, or no shard, is sent when there is one. Sessions that were
open are shown to the returned shard with SESSION_KEEP, which it refuses if it does not know them:
then the connection ends, and a new logon clears things up.

Bounds: sessions_max rows, ROWS_PER_ACCOUNT_MAX per account, pending reports of an OPENING session
count as output. Buckets are kept per (account, name) that ever logged on: the shard bounds those by
its own session table.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from engine.config import Account, Config, Throttle
from engine.records import CommandKind, RejectCode, pack_name, unpack_name
from gateway.codec_command import HARD_INTERVAL, HARD_TAT, INTERVAL
from gateway.codec_text import json_name
from gateway.errors import Refusal
from gateway.state import (
    C_ACCOUNT,
    C_AMOUNT,
    C_FLAGS,
    C_ID,
    C_KIND,
    C_LOGON,
    C_SESSION,
    H_ACCOUNT_BASE,
    H_PRODUCER,
    R_ACCOUNT,
    R_CANCEL_HARD_NS,
    R_CANCEL_HARD_TAT,
    R_CANCEL_NS,
    R_CANCEL_TAT,
    R_FLAGS,
    R_LAST_ID,
    R_LOGON,
    R_NAME,
    R_NEXT,
    R_ORDER_HARD_NS,
    R_ORDER_HARD_TAT,
    R_ORDER_NS,
    R_ORDER_TAT,
    R_SHARDS,
    R_STATE,
    R_WINDOW_NS,
    ROW_LIVE,
    ROW_OPENING,
    ROW_RECEIPTS,
    ROW_TEXT_IDS,
    ROWS_PER_ACCOUNT_MAX,
    S_UP,
    GatewayState,
)  # fmt: skip

if TYPE_CHECKING:
    from gateway.codec import Codec
    from gateway.resume import Behind

NS = 1_000_000_000
TATS = (R_ORDER_TAT, R_CANCEL_TAT, R_ORDER_HARD_TAT, R_CANCEL_HARD_TAT)
Push = Callable[[int, dict[int, int], bytes], int]


class Stage(IntEnum):
    """Where a session stands."""

    WAITING = 0
    OPENING = 1
    LIVE = 2
    CLOSED = 3


class Admission(IntEnum):
    """What the throttle says to one request."""

    YES = 0
    NO = 1
    LOGOUT = 2


@dataclass(eq=False)
class Session:
    """One logged-on (account, name)."""

    account: Account
    name: str
    logon: int
    text_ids: bool
    receipts: bool
    close_flags: int
    heartbeat_s: float
    client: Any  # the connection; the table never looks into it
    stage: Stage = Stage.WAITING
    row: int = 0
    base: int = 0  # first word of the row
    unanswered: set[int] = field(default_factory=set)  # shards whose ACCOUNT event is due
    opens: dict[int, int] = field(default_factory=dict)  # shard -> producer_seq of the SESSION_OPEN
    slots: dict[int, int] = field(default_factory=dict)  # shard -> session slot there
    seq: dict[int, int] = field(default_factory=dict)  # shard -> account_seq at logon
    opened: dict[int, int] = field(default_factory=dict)  # shard -> out_seq of the event of that
    pending: list[bytes] = field(default_factory=list)  # reports that something else goes before
    pending_bytes: int = 0
    mark: str | int | None = None  # `request` of its logon
    open_everywhere: int = 0  # last id of a command that went to all shards
    resume: dict[int, int] | None = None  # shard -> last report the client has seen
    stated: int | None = None  # the incarnation it saw them in
    incarnation: int = 0  # what the shards say it is
    decided: set[int] = field(default_factory=set)  # shards whose missed reports are known
    behind: Behind | None = None
    dead_man_ns: int = 0
    kept: dict[int, int] = field(default_factory=dict)  # shard -> tick of the last SESSION_KEEP

    @property
    def live(self) -> bool:
        return self.stage is Stage.LIVE


class SessionTable:
    """All sessions of this gateway."""

    state: GatewayState  # from attach on
    codec: Codec

    def __init__(self, config: Config, next_logon: Callable[[], int]) -> None:
        self.config = config
        self.next_logon = next_logon
        self.accounts = {account.name: account for account in config.accounts}
        self.throttles: dict[str, Throttle] = {
            throttle.name: throttle for throttle in config.throttles
        }
        self.by_logon: dict[int, Session] = {}
        self.by_owner: dict[tuple[int, str], list[Session]] = {}
        self.by_row: list[Session | None] = []
        self.free_rows: list[int] = []
        self.counts: dict[int, int] = {}  # account -> sessions
        self.opening: dict[tuple[int, int], Session] = {}  # (shard, producer_seq)
        self.shown: dict[tuple[int, int], Session] = {}  # (shard, producer_seq) of a SESSION_KEEP
        self.unsent: list[tuple[Session, int]] = []  # SESSION_OPENs that found no shard or no room
        self.buckets: dict[tuple[int, str], tuple[int, ...]] = {}
        self.close_queue: deque[tuple[int, dict[int, int]]] = deque()
        self.attached = False

    def attach(self, state: GatewayState, codec: Codec, rows: int) -> None:
        """The shards are there: sessions get rows."""
        self.state, self.codec, self.attached = state, codec, True
        self.opening, self.shown, self.unsent = {}, {}, []
        self.by_row = [None] * rows
        self.free_rows = list(range(rows - 1, 0, -1))

    # ------------------------------------------------------------------------------- logon
    def authenticate(self, name: str, token: str) -> Account | None:
        """Return the account if the token is its own; the time taken does not tell why not."""
        account = self.accounts.get(name)
        expected = account.token if account else "\0" * 16
        good = hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace"))
        return account if good and account else None

    def create(self, account: Account, options: dict[str, Any], client: Any) -> Session:
        """Make a session in stage WAITING; Refusal 901 when the gateway or the account has too
        many.
        """
        if len(self.by_logon) >= self.config.gateway.sessions_max:
            raise Refusal(
                RejectCode.BUSY,
                f"the gateway has {self.config.gateway.sessions_max} sessions, no more fit",
            )
        if self.counts.get(account.account, 0) >= ROWS_PER_ACCOUNT_MAX:
            raise Refusal(
                RejectCode.BUSY,
                f"the account has {ROWS_PER_ACCOUNT_MAX} sessions here, no more fit",
            )
        session = Session(
            account=account, name=options["session"], logon=self.next_logon(), client=client,
            text_ids=options["text_ids"], receipts=options["receipts"],
            close_flags=options["close_flags"], heartbeat_s=options["heartbeat_s"],
            resume=options["resume"], stated=options["incarnation"],
            dead_man_ns=options["dead_man_ns"],
        )  # fmt: skip
        self.by_logon[session.logon] = session
        self.by_owner.setdefault((account.account, session.name), []).append(session)
        self.counts[account.account] = self.counts.get(account.account, 0) + 1
        return session

    def open(self, session: Session, now_ns: int) -> None:
        """Send SESSION_OPEN to every shard that is up."""
        self.closes_flush(now_ns)
        self._row_take(session)
        session.stage = Stage.OPENING
        for shard in range(self.state.shards):
            if not self._up(shard) or not self._open_at(session, shard, now_ns):
                self.unsent.append((session, shard))

    def opens_send(self, now_ns: int) -> None:
        """Send the SESSION_OPENs that found no shard or no room, where there is one now."""
        waiting, self.unsent = self.unsent, []
        for session, shard in waiting:
            if session.stage is Stage.CLOSED:
                continue
            if not self._up(shard) or not self._open_at(session, shard, now_ns):
                self.unsent.append((session, shard))

    def _open_at(self, session: Session, shard: int, now_ns: int) -> bool:
        # False when its ring is full.
        words = {
            C_KIND: int(CommandKind.SESSION_OPEN), C_ACCOUNT: session.account.account,
            C_LOGON: session.logon, C_FLAGS: session.close_flags, C_AMOUNT: session.dead_man_ns,
        }  # fmt: skip
        sequence = self.codec.push(shard, words, session.name.encode("ascii"), now_ns)
        if sequence:
            session.opens[shard] = sequence
            if session.stage is Stage.OPENING:
                session.unanswered.add(shard)
            self.opening[shard, sequence] = session
        return sequence != 0

    def _up(self, shard: int) -> bool:
        return self.state.view[self.state.shard_base(shard) + S_UP] != 0

    def _row_take(self, session: Session) -> None:
        session.row = self.free_rows.pop()
        self.by_row[session.row] = session
        session.base = self.state.row_base(session.row)
        view, base = self.state.view, session.base
        flags = (ROW_TEXT_IDS if session.text_ids else 0) | (
            ROW_RECEIPTS if session.receipts else 0
        )
        throttle = self.throttles[session.account.throttle]
        values = {
            R_STATE: ROW_OPENING, R_ACCOUNT: session.account.account, R_LOGON: session.logon,
            R_FLAGS: flags,
            R_NAME: pack_name(session.name), R_WINDOW_NS: throttle.window_s * NS,
            R_ORDER_NS: interval_ns(throttle.orders_per_s),
            R_CANCEL_NS: interval_ns(throttle.cancels_per_s),
            R_ORDER_HARD_NS: interval_ns(throttle.orders_per_s * throttle.logout_factor),
            R_CANCEL_HARD_NS: interval_ns(throttle.cancels_per_s * throttle.logout_factor),
        }  # fmt: skip
        values.update(
            zip(
                TATS,
                self.buckets.get((session.account.account, session.name), (0, 0, 0, 0)),
                strict=True,
            )
        )
        for word, value in values.items():
            view[base + word] = value

    # ------------------------------------------------------------------------ answers of the shards
    def answered(self, shard: int, event: Any) -> tuple[Session | None, list[Session]]:
        """Take an ACCOUNT event that opened a session: (ours that this shard answered, ours that it
        took over).
        """
        name, slot, logon = (
            unpack_name(int.from_bytes(bytes(event["text"][:8]), "little")),
            int(event["session"]),
            int(event["amount"]),
        )
        account = int(event["account"])
        self.name_note(shard, slot, name)
        older = [
            session for session in self.by_owner.get((account, name), ()) if session.logon < logon
        ]
        session = self.by_logon.get(logon)
        if session is None:
            self._orphan_close(shard, slot, logon)
            return None, older
        self.opening.pop((shard, session.opens.get(shard, 0)), None)
        self._row_answered(session, shard, event)
        return session, older

    def _orphan_close(self, shard: int, slot: int, logon: int) -> None:
        # Its connection ended while it was being opened. An event of the log has no producer_seq:
        # the logon number tells as well.
        for key, orphan in list(self.opening.items()):
            if key[0] == shard and orphan.logon == logon:
                del self.opening[key]
                self._close_at(orphan, shard, slot)

    def go_live(self, session: Session) -> None:
        """It may trade from now on."""
        session.stage = Stage.LIVE
        self.state.view[session.base + R_STATE] = ROW_LIVE

    def shard_lost(self, shard: int) -> list[Session]:
        """A shard went down: nobody waits for its answer any more. Returns the sessions that became
        complete by that.
        """
        waiting = [s for s in self.by_logon.values() if shard in s.unanswered]
        for session in waiting:
            session.unanswered.discard(shard)
        return [session for session in waiting if session.slots and not session.unanswered]

    def shard_found(self, shard: int, now_ns: int) -> None:
        """A shard that was down is back: show it the sessions that it should know."""
        self.shown = {key: session for key, session in self.shown.items() if key[0] != shard}
        for session in list(self.by_logon.values()):
            if shard in session.slots:
                sequence = self.keep(session, shard, now_ns)
                if sequence:
                    self.shown[shard, sequence] = session

    def keep(self, session: Session, shard: int, now_ns: int) -> int:
        """Send SESSION_KEEP to one shard; 0 when its ring is full."""
        words = {
            C_KIND: int(CommandKind.SESSION_KEEP), C_ACCOUNT: session.account.account,
            C_LOGON: session.logon, C_SESSION: session.slots[shard],
        }  # fmt: skip
        return self.codec.push(shard, words, b"", now_ns)

    def _row_answered(self, session: Session, shard: int, event: Any) -> None:
        view, base, slot, last_id = (
            self.state.view,
            session.base,
            int(event["session"]),
            int(event["client_order_id"]),
        )
        if not session.slots:  # the first answer: reports of the account go to it from here on
            head = view[H_ACCOUNT_BASE] + session.account.account
            view[base + R_NEXT] = view[head]
            view[head] = base
        session.slots[shard] = slot
        session.seq[shard] = int(event["account_seq"])
        session.opened[shard] = int(event["out_seq"])
        session.incarnation = max(session.incarnation, int(event["amount2"]))
        session.unanswered.discard(shard)
        view[base + R_SHARDS + 2 * shard] = slot
        view[base + R_SHARDS + 2 * shard + 1] = last_id
        view[base + R_LAST_ID] = max(view[base + R_LAST_ID], last_id)

    def name_note(self, shard: int, slot: int, name: str) -> None:
        """Learn the name of a session slot: reports carry it."""
        if 0 < slot <= self.config.shard.sessions_max:
            place = self.state.name_base(shard, slot)
            low, high, size = json_name(name)
            self.state.view[place], self.state.view[place + 1], self.state.view[place + 2] = (
                low,
                high,
                size,
            )

    def refused(self, shard: int, event: Any) -> Session | None:
        """The session whose SESSION_OPEN or SESSION_KEEP a shard rejected with this event, if it is
        one of ours.
        """
        if event["client_order_id"]:
            return None  # a command of somebody else, with the same number in another ring
        key = shard, int(event["receipt_producer_seq"])
        session = self.opening.pop(key, None) or self.shown.pop(key, None)
        if session is None or session.stage is Stage.CLOSED:
            return None
        return session

    # ------------------------------------------------------------------------------- end
    def close(self, session: Session, *, tell_shards: bool) -> None:
        """End a session. With `tell_shards` its shards get SESSION_CLOSE, at once or as soon as
        their rings have room.
        """
        if session.stage is Stage.CLOSED:
            return
        session.stage = Stage.CLOSED
        del self.by_logon[session.logon]
        owner = (session.account.account, session.name)
        self.by_owner[owner].remove(session)
        if not self.by_owner[owner]:
            del self.by_owner[owner]
        self.counts[session.account.account] -= 1
        if session.row:
            self._row_free(session)
        if tell_shards:
            for shard, slot in session.slots.items():
                self._close_at(session, shard, slot)

    def _close_at(self, session: Session, shard: int, slot: int) -> None:
        words = {
            C_KIND: int(CommandKind.SESSION_CLOSE), C_ACCOUNT: session.account.account,
            C_LOGON: session.logon, C_SESSION: slot,
        }  # fmt: skip
        self.close_queue.append((shard, words))

    def producer_reset(self) -> None:
        """What a dead predecessor opened closes after the grace time, unless it logs on again. Goes
        before every SESSION_OPEN of ours.
        """
        words = {
            C_KIND: int(CommandKind.PRODUCER_RESET), C_ID: self.state.view[H_PRODUCER],
            C_AMOUNT: int(self.config.gateway.session_grace_s * NS),
        }  # fmt: skip
        self.close_queue.extend((shard, words) for shard in range(self.state.shards))

    def closes_flush(self, now_ns: int) -> None:
        """Send waiting SESSION_CLOSEs, oldest first, as far as the rings have room."""
        full: set[int] = set()
        for _ in range(len(self.close_queue)):  # empty until there are rings
            shard, words = self.close_queue.popleft()
            if shard in full or not self.codec.push(shard, words, b"", now_ns):
                full.add(shard)
                self.close_queue.append((shard, words))

    def _row_free(self, session: Session) -> None:
        view, base = self.state.view, session.base
        self.buckets[session.account.account, session.name] = tuple(
            view[base + tat] for tat in TATS
        )
        place = view[H_ACCOUNT_BASE] + session.account.account
        while view[place]:  # unlink from the account's list
            row = view[place]
            if row == base:
                view[place] = view[base + R_NEXT]
                break
            place = row + R_NEXT
        for word in range(R_SHARDS + 2 * self.state.shards):
            view[base + word] = 0
        self.by_row[session.row] = None
        self.free_rows.append(session.row)
        session.row = 0

    # ------------------------------------------------------------------------------- throttle
    def admit(self, session: Session, cancel: bool, now_ns: int, count: int = 1) -> Admission:
        """Take a token for a request on the slow path, or `count` for the legs of a list; the
        compiled twin is codec_decode.bucket_take.

        Every request counts against the hard bucket, refused or not: who goes on over logout_factor
        times the rate is logged out.
        """
        view, at = self.state.view, session.base + (R_CANCEL_TAT if cancel else R_ORDER_TAT)
        interval = view[at + INTERVAL]
        if not interval:
            return Admission.YES
        window = view[session.base + R_WINDOW_NS]
        soft = max(view[at], now_ns) + interval * count
        hard = max(view[at + HARD_TAT], now_ns) + view[at + HARD_INTERVAL] * count
        if hard - now_ns > window:
            return Admission.LOGOUT
        view[at + HARD_TAT] = hard
        if soft - now_ns > window:
            return Admission.NO
        view[at] = soft
        return Admission.YES

    def tokens_left(self, session: Session, cancel: bool, now_ns: int) -> int | None:
        """How many requests the bucket holds now; None without limit."""
        view, at = self.state.view, session.base + (R_CANCEL_TAT if cancel else R_ORDER_TAT)
        interval = view[at + INTERVAL]
        if not interval:
            return None
        used = max(view[at] - now_ns, 0)
        return int(max(view[session.base + R_WINDOW_NS] - used, 0) // interval)


def interval_ns(rate: float) -> int:
    """Nanoseconds between tokens; 0: no limit."""
    return int(NS / rate) if rate else 0


assert (R_ORDER_HARD_TAT, R_ORDER_NS, R_ORDER_HARD_NS) == (
    R_ORDER_TAT + HARD_TAT, R_ORDER_TAT + INTERVAL, R_ORDER_TAT + HARD_INTERVAL,
)  # fmt: skip
assert (R_CANCEL_HARD_TAT, R_CANCEL_NS, R_CANCEL_HARD_NS) == (
    R_CANCEL_TAT + HARD_TAT, R_CANCEL_TAT + INTERVAL, R_CANCEL_TAT + HARD_INTERVAL,
)  # fmt: skip
