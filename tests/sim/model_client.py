"""A client that does everything right: rising ids, requests sent again until they are answered.

It believes nothing: every report is compared with the event of its number in the observer's story,
numbers must be without gap as long as a connection lasts, and what it was told stays so.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from engine.records import EventKind, Reason, RejectCode
from tests.sim.observer import TOLD, Observer, Violation, require
from tests.sim.sim_net import Link, SimNet

KINDS = {kind.name.lower(): int(kind) for kind in EventKind}
# Keys of a report, and the fields of an event that they tell.
NAMES = (
    ("leaves", "leaves"), ("filled", "cum"), ("qty", "qty"), ("ref", "public_ref"), ("price", "px"),
    ("trade_id", "trade_id"),
)  # fmt: skip
ANSWER_NS = 3_000_000_000  # without an answer for so long, it connects anew
QUIET_NS = 500_000_000  # it says something at least this often
PX, QTY = range(90, 111), range(1, 30)


@dataclass
class Pending:
    """A request without an answer."""

    number: int
    kind: str
    shard: int
    target: int
    line: bytes
    sent_ns: int = 0
    refused: bool = False  # BUSY: to be sent again
    tries: int = 0


@dataclass
class Identity:
    """Who it is."""

    account: str
    account_number: int
    session: str
    symbols: list[str]
    shards: list[int]  # of the symbols


class ModelClient:
    """One client."""

    def __init__(
        self, net: SimNet, observer: Observer, identity: Identity, rng: random.Random
    ) -> None:
        self.net, self.observer, self.rng, self.who = net, observer, rng, identity
        self.clock = observer.clock
        self.link: Link | None = None
        self.logged_on = False
        self.carry = b""
        self.last_id = 0
        self.pending: dict[int, Pending] = {}
        self.orders: dict[int, tuple[str, int]] = {}  # id -> (symbol, order_id) of live ones
        self.accepted: dict[int, tuple[int, int]] = {}  # id -> (shard, order_id): acknowledged
        self.seq: dict[int, int] = {}  # per shard: of the last report on this connection
        self.said_ns = self.next_try = 0
        self.window = rng.choice((1, 8, 20, 50))
        self.options = {
            "cancel_on_disconnect": rng.choice(("none", "none", "all")),
        }
        self.opened: dict[int, int] = {}
        self.actions = self.reports = self.logons = self.duplicates = 0
        self.told: dict[int, int] = {}  # per shard: last report of all connections
        self.incarnation = 0
        self.was_cut = self.resumes = False  # since the last logon; this connection
        self.resume_share = rng.choice((0.0, 0.8, 1.0))
        self.resumed = 0
        self.in_doubt: set[int] = set()  # ids answered 203 that it never saw accepted
        self.late: dict[int, Pending] = {}  # repetition refused, reports of theirs may come yet
        self.ran: dict[int, int] = {}  # id -> shard: answered by a report that names no request

    # ------------------------------------------------------------------------------- connection
    def connect(self) -> None:
        """Log on, if a gateway listens."""
        link = self.net.connect()
        if link is None:
            return
        self.link, self.logged_on, self.carry, self.seq = link, False, b"", {}
        line = {
            "type": "logon", "account": self.who.account, "token": f"{self.who.account}-token",
            "session": self.who.session, **self.options,
        }  # fmt: skip
        self.resumes = bool(self.told) and self.rng.random() < self.resume_share
        if self.resumes:
            stated = sorted(self.told.items())
            line["resume"] = ",".join(f"{shard}:{seq}" for shard, seq in stated)
            line["incarnation"] = self.incarnation
        self._say(line)
        self.said_ns = self.clock.steady

    def lose(self) -> None:
        """The connection is gone; one that was refused is not tried again at once."""
        if not self.logged_on:
            self.next_try = self.clock.steady + self.rng.randint(1, 20) * 1_000_000
        self.link, self.logged_on = None, False

    def _say(self, line: dict[str, Any]) -> None:
        assert self.link is not None
        self.link.up += orjson.dumps(line) + b"\n"
        self.said_ns = self.clock.steady

    def _send(self, request: Pending) -> None:
        assert self.link is not None
        self.link.up += request.line
        request.sent_ns = self.said_ns = self.clock.steady
        request.refused = False
        request.tries += 1

    # ------------------------------------------------------------------------------- a turn
    def step(self, *, act: bool) -> int:
        """Read, answer, and `act`: send new requests; returns how many."""
        link = self.link
        if link is None:
            if self.clock.steady >= self.next_try:
                self.connect()
            return 0
        data = self.net.receive(link)
        if data:
            self._read(data)
        if link is not self.link or (link.cut or (link.ended and not link.down)):
            self.lose()
            return 0
        if not self.logged_on:
            if self.clock.steady - self.said_ns > ANSWER_NS:
                self.net.cut(link)
            return 0
        self._again(link)
        if not act or link.cut:  # what is sent behind a cut would arrive without what it took away
            return 0
        return self._act()

    def _again(self, link: Link) -> None:
        now = self.clock.steady
        # BUSY: once everything under way is answered, so that nothing overtakes what was refused.
        if self.pending and all(request.refused for request in self.pending.values()):
            for number in sorted(self.pending):
                self._send(self.pending[number])
        oldest = min((p.sent_ns for p in self.pending.values()), default=now)
        if now - oldest > ANSWER_NS:
            self.net.cut(link)
        elif now - self.said_ns > QUIET_NS:
            self._say({"type": "heartbeat"})

    def _act(self) -> int:
        room = self.window - len(self.pending)
        if room <= 0 or any(p.refused for p in self.pending.values()):
            return 0
        count = self.rng.randint(1, min(room, 10))
        for _ in range(count):
            self.last_id += self.rng.choice((1, 1, 1, 3))
            request = self._request(self.last_id)
            self.pending[self.last_id] = request
            self._send(request)
        self.actions += count
        return count

    # ------------------------------------------------------------------------------- requests
    def _request(self, number: int) -> Pending:
        rng, dice = self.rng, self.rng.random()
        place = rng.randrange(len(self.who.symbols))
        symbol, shard = self.who.symbols[place], self.who.shards[place]
        kind, target = "new", 0
        line: dict[str, Any] = {"type": "new", "symbol": symbol, "id": number}
        mine = [n for n, (name, _) in self.orders.items() if name == symbol] if dice > 0.6 else []
        if dice > 0.97:
            kind = "mass"
            line["type"] = "mass_cancel"
            if rng.random() < 0.5:
                line["side"] = rng.choice(("buy", "sell"))
        elif dice > 0.6 and mine:
            target = rng.choice(mine[-20:])
            kind = "cancel" if dice > 0.78 else "replace"
            line["type"], line["target_id"] = kind, target
            if kind == "replace":
                line["qty"] = rng.choice(QTY)
                if rng.random() < 0.6:
                    line["price"] = rng.choice(PX)
        else:
            line["side"], line["qty"] = rng.choice(("buy", "sell")), rng.choice(QTY)
            if rng.random() < 0.9:
                line["price"] = rng.choice(PX)
                option = rng.random()
                if option < 0.1:
                    line["tif"] = rng.choice(("ioc", "fok"))
                elif option < 0.2:
                    line["post_only"] = True
        return Pending(number, kind, shard, target, orjson.dumps(line) + b"\n")

    # ------------------------------------------------------------------------------- answers
    def _read(self, data: bytes) -> None:
        pieces = (self.carry + data).split(b"\n")
        self.carry = pieces.pop()
        for piece in pieces:
            if self.observer.digest is not None:
                self.observer.digest.update(piece)
            self._line(orjson.loads(piece))
            if self.link is None:
                return

    def _line(self, line: dict[str, Any]) -> None:
        kind = line["type"]
        if kind == "logon":
            self._logged_on(line)
        elif kind == "logout":
            if self.link is not None:
                self.link.ended = True
                self.link.down.clear()
        elif kind in KINDS:
            if line["seq"]:
                self._check(line)
            if line.get("session", self.who.session) == self.who.session:
                self._match(kind, line)

    def _logged_on(self, line: dict[str, Any]) -> None:
        if not line["seq"]:
            return  # no shard is there; the answer comes again
        told = {int(shard): seq for shard, seq in line["seq"].items()}
        if self.logged_on:  # a shard has come up
            for shard in told.keys() - self.opened.keys():
                self.opened[shard] = told[shard]
                if not (self.resumes and shard in self.told):
                    self.seq[shard] = self.told[shard] = told[shard]
            return
        self.logons += 1
        self.logged_on = True
        self.opened = told
        self.seq = self.opened | (self.told if self.resumes else {})
        self.resumed += self.resumes
        self.told, self.incarnation, self.was_cut = dict(self.seq), line["incarnation"], False
        if not self.resumes:
            self.late.clear()
        self.last_id = max(self.last_id, line["last_id"])
        for number in sorted(self.pending):
            self._send(self.pending[number])

    def _check(self, line: dict[str, Any]) -> None:
        # Against the story: a number has one content, for ever.
        shard, seq = line["shard"], line["seq"]
        self.reports += 1
        if line.get("code") == 201:  # whose owner has gone is told nothing, nor is his successor
            raise Violation(f"{self.name}: {line} answers nothing of this connection")
        story = self.observer.stories[shard]
        row = story.by_account.get((self.who.account_number, seq))
        if row is None:
            raise Violation(f"{self.name}: report {line} has no event")
        if row[0] >= story.committed:
            raise Violation(f"{self.name}: report {line} was not committed")
        event = dict(zip(TOLD, row[1:], strict=True))
        told = {
            "kind": KINDS[line["type"]], "order_id": line.get("order_id", 0),
            "client_order_id": line.get("id", line.get("last_id", 0)), "code": line.get("code", 0),
        }  # fmt: skip
        for key, name in NAMES:
            if key in line:
                told[name] = int(line[key])
        if line["type"] != "rejected" and ("reason" in line or line["type"] == "summary"):
            told["reason"] = Reason[line.get("reason", "none").upper()]
        wrong = {n: (v, event[n]) for n, v in told.items() if event[n] != v}
        if wrong:
            raise Violation(f"{self.name}: report {line} differs from its event: {wrong}")
        if shard in self.seq and self.logged_on:
            due = self.seq[shard] + 1
            if due == self.opened.get(shard) and self.resumes:
                due += 1  # the logon answer has told that one
            if seq != due:
                raise Violation(f"{self.name}: report {line} came where {due} was due")
        if shard in self.seq:
            self.seq[shard] = self.told[shard] = seq

    def _behind(self, shard: int) -> bool:
        # Whether reports of a time before this connection are still to come: as a shard that has
        # not come up yet has told none of them, they may be.
        if not self.resumes or shard not in self.seq:
            return False
        return shard not in self.opened or self.seq[shard] < self.opened[shard] - 1

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.who.account}/{self.who.session}"

    def _match(self, kind: str, line: dict[str, Any]) -> None:
        number = line.get("id", 0)
        if kind == "rejected":
            self._refused(number, line)
        elif kind in ("accepted", "status"):
            if number in self.pending and self.pending[number].kind == "new":
                del self.pending[number]
            if kind == "accepted":
                known = self.accepted.get(number)
                told = (line["shard"], line["order_id"])
                require(known in (None, told), f"{self.name}: id {number} is {known} and {told}")
                self.accepted[number] = told
        elif kind == "summary" and line.get("reason") == "mass":
            self._answered(("mass",), 0, line)
        elif kind == "replaced":
            self._answered(("replace",), number, line)
        elif kind == "canceled" and line["reason"] == "client":
            self._answered(("cancel",), number, line)
        elif kind == "canceled" and line["reason"] == "replaced_below_filled":
            self._answered(("replace",), number, line)
        if kind == "booked" or (kind == "status" and int(line["leaves"])):
            self.orders[number] = (line["symbol"], line["order_id"])
        if kind in ("canceled", "expired") or (kind == "fill" and line["leaves"] == "0"):
            self.orders.pop(number, None)

    def _answered(self, kinds: tuple[str, ...], target: int, line: dict[str, Any]) -> None:
        # No report names the request, but they ran in the order of their ids.
        shard = line["shard"]
        if line["seq"] > self.opened.get(shard, 0):  # live: nothing late is still to come
            self.late = {n: late for n, late in self.late.items() if late.shard != shard}
        found = [
            number
            for number, request in sorted((self.late | self.pending).items())
            if request.kind in kinds and request.target == target and request.shard == shard
        ]
        if found:
            self.pending.pop(found[0], None)
            self.late.pop(found[0], None)
        if len(found) == 1:  # no doubt which one
            self.ran[found[0]] = shard

    def _refused(self, number: int, line: dict[str, Any]) -> None:
        request = self.pending.get(number)
        if line["code"] in (207, 208, 209) and not number:
            fair = line["code"] == 209 and self.was_cut
            require(fair, f"{self.name}: resume of {self.told} was refused: {line}")
            self.told = {}
        if request is None:
            return
        if line["code"] == 901:
            request.refused = True
            return
        del self.pending[number]
        # What refuses the repetition (203, or by the gateway) says nothing of what was sent first.
        first = line["code"] != 203 and (line["seq"] or request.tries == 1)
        if not first and self._behind(request.shard):
            self.late[number] = request
        if line["code"] == 203:
            self.duplicates += 1
            if number not in self.accepted:
                self.in_doubt.add(number)

    # ------------------------------------------------------------------------------- at the end
    def after_power_cut(self, observer: Observer) -> None:
        """What was lost was never said."""
        self.was_cut = True
        self.in_doubt.clear()
        self.late.clear()
        stories = observer.stories
        self.ran = {n: shard for n, shard in self.ran.items() if self._journaled(stories[shard], n)}
        if self.link is not None:
            self.link.down.clear()  # what was still under way is not told any more
        for number, (shard, order_id) in list(self.accepted.items()):
            story = observer.stories[shard]
            if not _known(story, order_id):
                del self.accepted[number]
                self.orders.pop(number, None)

    def unheard(self) -> list[int]:
        """Requests answered 203, already used, of which the journal knows nothing."""
        found = []
        for number in sorted(self.in_doubt - self.accepted.keys()):
            if not any(self._journaled(story, number) for story in self.observer.stories):
                found.append(number)
        return found

    def _journaled(self, story: Any, number: int) -> bool:
        events, records = story.events.all, story.records.all
        opened = events[
            (events["kind"] == EventKind.ACCOUNT) & (events["account"] == self.who.account_number)
        ]
        name = self.who.session.encode()
        slots = {int(e["session"]) for e in opened if bytes(e["text"]).rstrip(b"\0") == name}
        mine = records[
            (records["client_order_id"] == number) & (records["account"] == self.who.account_number)
        ]
        repeated = events["in_seq"][
            (events["kind"] == EventKind.REJECTED) & (events["code"] == RejectCode.DUPLICATE)
        ]
        mine = mine[~np.isin(mine["in_seq"], repeated)]  # the journal has repetitions as well
        return any(int(r["session"]) in slots for r in mine)

    def check_end(self) -> None:
        """Everything acknowledged is in the journal, an order once."""
        for number, shard in self.ran.items():
            ran = self._journaled(self.observer.stories[shard], number)
            require(ran, f"{self.name}: request {number} was answered, and never ran")
        for number, (shard, order_id) in self.accepted.items():
            events = self.observer.stories[shard].events.all
            found = events[
                (events["kind"] == EventKind.ACCEPTED) & (events["order_id"] == order_id)
            ]
            require(
                len(found) == 1 and int(found["client_order_id"][0]) == number,
                f"{self.name}: order {order_id} of id {number} is accepted {len(found)} times",
            )


def _known(story: Any, order_id: int) -> bool:
    events = story.events.all
    return bool(np.any((events["kind"] == EventKind.ACCEPTED) & (events["order_id"] == order_id)))
