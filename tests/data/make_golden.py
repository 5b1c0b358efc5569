"""Makes tests/data/golden: a small journal with every kind of command, and what it must give. Cold.

usage: python -m tests.data.make_golden

The same script gives the same bytes. It is run again only on purpose: when the record layouts
change before a release (the fingerprint in the headers), or with a new RULES_VERSION. The event
CRCs in expected.json are the promise: they may not change while RULES_VERSION stays. The state hash
may, with the layout of a shard's memory.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np

from engine.admin import (
    admin_record,
    feed_state,
    incarnation,
    list_instrument,
    open_account,
    open_session,
    producer_reset,
)
from engine.config import Config, Instrument, Journal, Rings, ShardLimits
from engine.kept_directory import KeptDirectory
from engine.records import (
    COMMAND,
    LAYOUT_FINGERPRINT,
    RULES_VERSION,
    UNSTATED,
    CommandFlag,
    CommandKind,
    OrderType,
    TimeInForce,
    pack_name,
)
from engine.rerun import Rerun
from engine.state_hash import state_hash
from tests.engine.kept import make_directory

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = "expected.json"
SEED = 2026
ORDERS = 330
BEGIN_NS = 1_772_000_000_000_000_000
DAY = 20260225
LIMITS = ShardLimits(
    orders_max=128, levels_max=64, symbols_max=8, sessions_max=8, accounts_max=8, text_ids_max=64,
    max_walk=12, slice_events=8, events_per_command_max=128, batch_max=16,
)  # fmt: skip
CONFIG = Config(
    instance="golden",
    shards=1,
    template=Instrument("TEMPLATE", "0.05", "1", "50"),
    instruments=(Instrument("AAPL"), Instrument("BTCUSDT", "0.01", "0.00001")),
    shard=LIMITS,
    rings=Rings(event_capacity=1 << 10),
    journal=Journal(segment_bytes=1 << 15, staging_capacity=1 << 12, free_bytes_min=0),
)


class Script:
    """Draws the commands one after the other."""

    def __init__(self) -> None:
        self.rng = random.Random(SEED)
        self.rows: list[np.ndarray] = []
        self.now = BEGIN_NS
        self.ids = [0, 0, 0, 0]  # last client id by session
        self.logons = [0, 0, 0, 0]

    def add(self, record: np.ndarray, wait_ns: int = 1000) -> None:
        """One more command."""
        self.now += wait_ns
        record["in_ts"] = self.now
        record["producer_seq"] = len(self.rows) + 1
        self.rows.append(record)

    def client(self, kind: CommandKind, session: int, **fields: int) -> None:
        """A client's command. Session 3 has text ids, and belongs to account 1 as well."""
        record = np.zeros(1, COMMAND)
        owner = {
            "session": session,
            "account": (0, 1, 2, 1)[session],
            "logon": self.logons[session],
        }
        for name, value in {"kind": kind, "producer": 2, **owner, **fields}.items():
            record[name] = value
        if session == 3 and kind == CommandKind.NEW:
            record["flags"] += int(CommandFlag.TEXT_ID)
            text = f"text-{self.rng.randrange(60)}".encode()
            record["text"][0, : len(text)] = np.frombuffer(text, np.uint8)
        elif session != 3 and kind <= CommandKind.QUERY_OPEN_ORDERS:
            self.ids[session] += 1
            record["client_order_id"] = self.ids[session]
        self.add(record, self.rng.choice((0, 100, 20_000)))

    def start(self) -> None:
        """What the supervisor says first, and three logons."""
        for record in (incarnation(7, orders_lost=False), feed_state("O", DAY, 1)):
            self.add(record)
        for account in (1, 2, 3):
            self.add(open_account(account))
        for instrument in CONFIG.instruments:
            self.add(list_instrument(instrument))
        for letter in "SQ":
            self.add(feed_state(letter, DAY, 1))
        for session in (1, 2, 3):
            self.logon(session)

    def logon(self, session: int) -> None:
        """A session opens, or opens again."""
        self.logons[session] = max(self.logons) + 1
        name = ("quotes", "hits", "texts")[session - 1]
        record = open_session((1, 2, 1)[session - 1], name, self.logons[session])
        record["producer"] = 2
        if session == 2:
            record["amount"] = 50_000_000  # dead man
        if session == 3:
            record["flags"] = CommandFlag.TEXT_ID | CommandFlag.CANCEL_ALL_ON_CLOSE
        self.add(record)

    def order(self) -> None:
        """A new order: resting, trading, immediate, refused."""
        rng = self.rng
        session = rng.choice((1, 1, 2, 3))
        symbol = rng.choice(("AAPL", "AAPL", "AAPL", "BTCUSDT", "NEWCO"))
        side, market = rng.randrange(2), rng.random() < 0.1
        px = 0 if market else 100 + rng.randint(-6, 2) * (1 - 2 * side)
        tif = rng.choice((0, 0, 0, 0, TimeInForce.IOC, TimeInForce.FOK))
        self.client(
            CommandKind.NEW, session, symbol=pack_name(symbol), side=side, px=px,
            qty=rng.randint(1, 40) if rng.random() < 0.97 else 0,
            order_type=OrderType.MARKET if market else OrderType.LIMIT,
            tif=TimeInForce.IOC if market else tif,
            flags=CommandFlag.POST_ONLY if rng.random() < 0.2 and not market and not tif else 0,
            tag=rng.choice((0, 0, 1, 2)),
        )  # fmt: skip

    def touch(self) -> None:
        """Cancel, replace or ask about an earlier order."""
        rng = self.rng
        session = rng.choice((1, 2))
        target = max(self.ids[session] - rng.randrange(12), 1)
        kind = rng.choice((CommandKind.CANCEL, CommandKind.REPLACE, CommandKind.QUERY_ORDER))
        fields = {"target_client_order_id": target}
        if rng.random() < 0.2:
            counter = rng.randint(1, 12)
            fields = {"order_id": counter << 24 | counter - 1}
        if kind == CommandKind.REPLACE:
            fields |= {"side": UNSTATED, "tif": UNSTATED}
            fields |= {"qty": rng.choice((0, rng.randint(1, 50)))}
            fields |= {"px": rng.choice((0, rng.randint(92, 108)))}
        self.client(kind, session, **fields)

    def rare(self, number: int) -> None:
        """Everything else, in turn."""
        kinds = CommandKind
        turn = number % 16
        if turn < 2:
            fields = (
                {"flags": CommandFlag.BY_SIDE, "side": 1},
                {"flags": CommandFlag.BY_SYMBOL, "symbol": pack_name("AAPL")},
            )[turn]
            self.client(kinds.MASS_CANCEL, 1 + turn, **fields)
        elif turn < 4:
            self.client(kinds.QUERY_OPEN_ORDERS, turn - 1, qty=10)
        elif turn == 4:
            self.client(kinds.QUOTE, 1, symbol=pack_name("AAPL"), px=99, px2=101, qty=1, qty2=1)
        elif turn == 5:
            self.client(kinds.SESSION_KEEP, 2)
        elif turn == 6:
            self.add(admin_record(kinds.TIME, producer=0, amount=5000))
        elif turn == 7:
            self.add(admin_record(kinds.TIME, producer=0, session=2), 60_000_000)
        elif turn == 8:
            for kind in range(kinds.SET_PHASE, kinds.SET_RULE + 1):
                # Refused when this was written; since then the kill switch is not.
                kind = kinds.SET_LIMITS if kind == kinds.KILL_SWITCH else kind
                self.add(admin_record(kinds(kind), account=1, symbol=pack_name("AAPL")))
            self.add(admin_record(kinds.ACTIVATE, producer=0))
        elif turn == 9:
            self.add(producer_reset(2, 10_000_000))
            self.logon(1)
            self.logon(2)
            self.add(admin_record(kinds.TIME, producer=0), 20_000_000)  # the grace time is over
            self.logon(3)
        elif turn == 10:
            self.add(incarnation(0, orders_lost=True))
        elif turn == 11:
            self.client(kinds.SESSION_CLOSE, 3)
        elif turn == 12:
            for letter in "MEC":
                self.add(feed_state(letter, DAY, 1))
            self.add(feed_state("O", DAY + number // 16 + 1, 2))
        elif turn == 13:
            self.logon(3)
        elif turn == 14:
            self.add(admin_record(kinds.CONTINUE))  # from the supervisor: refused
        else:
            self.add(open_account(4))


def commands() -> np.ndarray:
    """All commands but the CONTINUEs, which come of running them."""
    script = Script()
    script.start()
    for number in range(ORDERS):
        script.touch() if script.rng.random() < 0.3 else script.order()
        if number % 6 == 5:
            script.rare(number // 6)
    return np.concatenate(script.rows)


def outcome(kept: KeptDirectory) -> dict[str, object]:
    """What a replay of the directory gives."""
    rerun = Rerun(kept, 0, copied=False).finish()
    return {
        "rules_version": RULES_VERSION,
        "layout_fingerprint": LAYOUT_FINGERPRINT,
        "commands": rerun.in_seq,
        "events": rerun.replay.position,
        "state_hash": state_hash(rerun.state),
        "event_crc": list(rerun.replay.event_crc),
    }


def make(path: Path) -> None:
    """Make the directory and the expected outcome."""
    kept = make_directory(str(path), CONFIG, [commands()])
    for spare in (path / "shard0").glob("spare-*"):
        spare.unlink()
    (path / "shard0" / "journal.lock").unlink()
    (path / EXPECTED).write_text(json.dumps(outcome(kept), indent=2) + "\n")


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    make(GOLDEN)
