"""The operator's door: requests in, commands through the supervisor's ring, the shard's own answer
out; all in one thread, the shard is run by the test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from engine import operator_door
from engine.admin import PRODUCER_SUPERVISOR, admin_record, start_commands
from engine.book_state import IN_SEQ, WORK_KIND
from engine.config import Config, Instrument, Journal, Protection, Rings, ShardLimits
from engine.counters import State
from engine.instance import Instance, private_instance
from engine.loop_words import STOP, YIELD_NS
from engine.matching import WORK_NONE
from engine.operator_door import OperatorDoor, ask, door_path
from engine.operator_verbs import VERBS, Errand, Task
from engine.records import (
    COMMAND,
    CommandKind,
    EventKind,
    OrderType,
    Phase,
    RejectCode,
    pack_name,
)
from engine.shard_process import Ownership, ShardProcess
from engine.shm_ring import Producer

LIMITS = ShardLimits(
    orders_max=1024, levels_max=256, symbols_max=128, sessions_max=8, accounts_max=16,
    text_ids_max=16, slice_events=40, events_per_command_max=104,
)  # fmt: skip
GOLD = Instrument(
    "GOLD", rules="full", static_band=1000, reference="10.00", lmm="3:20",
    calendar=("00:00 pre_open", "23:59:59 continuous"),
)  # fmt: skip
FREE = Instrument("FREE", rules="full", volatility_call_s=0)


class Hall:
    """An instance of one process: a shard, the door, and whoever comes."""

    def __init__(
        self,
        instruments: tuple[Instrument, ...],
        protections: tuple[Protection, ...] = (),
    ) -> None:
        self.config = dataclasses.replace(
            Config(), instance="hall", shards=1, instruments=instruments, shard=LIMITS,
            rings=Rings(4, 64, 1024), journal=Journal(mode="none"),
            protections=protections,
        ).check()  # fmt: skip
        self.instance: Instance = private_instance(self.config, 1, {}, {}, time.time_ns())
        own = Ownership(self.instance.fresh_state(0))
        self.shard = ShardProcess(self.instance, 0, False, own)
        self.shard.ports.loop[STOP], self.shard.ports.loop[YIELD_NS] = 1, -1
        self.shard.begin()
        self.said: list[str] = []
        self.ready = True
        self.producer = Producer(self.instance.command_rings, PRODUCER_SUPERVISOR, [-1])
        self.door = OperatorDoor(
            self.instance, lambda: self.producer if self.ready else None, self.said.append
        )
        self.push(start_commands(self.config, 0, 1, None))
        self.callers: list[socket.socket] = []

    def close(self) -> None:
        for caller in self.callers:
            caller.close()
        self.door.close()

    def run(self) -> None:
        """Let the shard do all that waits."""
        for _ in range(200):
            self.shard.step()
            if not self.shard.works:
                return
        raise AssertionError("the shard does not come to rest")

    def push(self, records: np.ndarray, producer: int = PRODUCER_SUPERVISOR) -> None:
        for start in range(0, len(records), 32):
            part = records[start : start + 32]
            Producer(self.instance.command_rings, producer, [-1]).push(0, part)
            self.run()
        self.producer = Producer(self.instance.command_rings, PRODUCER_SUPERVISOR, [-1])

    def call(self) -> socket.socket:
        """Come in."""
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        caller.connect(str(door_path("hall")))
        caller.setblocking(False)
        self.callers.append(caller)
        return caller

    def hear(self, caller: socket.socket, rounds: int = 10, *, runs: bool = True) -> Any:
        """The answer, within so many looks of the supervisor; None: there is none yet."""
        for _ in range(rounds):
            self.door.serve_once()
            with contextlib.suppress(BlockingIOError):
                return orjson.loads(caller.recv(1 << 17))
            if runs:
                self.run()
        return None

    def ask(self, request: Any = None, **more: Any) -> dict[str, Any]:
        caller = self.call()
        raw = request if isinstance(request, bytes) else orjson.dumps(request or more)
        caller.send(raw)
        answer = self.hear(caller)
        assert isinstance(answer, dict)
        caller.close()
        return answer

    def refused(self, request: Any = None, **more: Any) -> tuple[int, str]:
        answer = self.ask(request, **more)
        assert answer["ok"] is False
        assert answer["reason"] == RejectCode(answer["code"]).name.lower()
        return answer["code"], answer["text"]

    def phase(self, symbol: str = "GOLD") -> Phase:
        (row,) = self.ask(verb="instruments", symbol=symbol)["instruments"]
        return Phase[row["phase"].upper()]

    @property
    def in_seq(self) -> int:
        return int(self.shard.state.hdr[IN_SEQ])


@pytest.fixture
def hall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("RINGBOOK_RUNTIME", str(tmp_path))
    made = Hall((Instrument("AAPL"), GOLD, FREE), (Protection("alice", "FREE", 3, 500),))
    yield made
    made.close()


# -------------------------------------------------------------------------------------------- verbs
def test_phase_is_changed_by_a_command_of_the_supervisor_and_told(hall: Hall) -> None:
    before = hall.in_seq
    answer = hall.ask(verb="phase", symbol="FREE", phase="Halted")
    assert answer == {
        "ok": True, "symbol": "FREE", "shard": 0, "phase": "halted", "was": "continuous",
        "next": None,
    }  # fmt: skip
    assert (hall.in_seq - before, hall.phase("FREE")) == (1, Phase.HALTED)
    assert hall.said == [f"ringbook: operator (pid {os.getpid()}): phase FREE Halted\n"]


def test_phase_of_an_instrument_with_a_calendar_tells_when_that_goes_on(hall: Hall) -> None:
    answer = hall.ask(verb="phase", symbol="GOLD", phase="opening_auction")
    assert (answer["was"], answer["phase"]) == ("pre_open", "opening_call")
    assert answer["next"]["phase"] == "continuous"
    assert answer["next"]["at"].endswith("T23:59:59Z")


@pytest.mark.parametrize(
    ("before", "phase", "code", "text"),
    [
        ((), "continuous", 303, "FREE is continuous already"),
        (("halted",), "continuous", 303, "only through a call (volatility_call, then continuous)"),
        (("closed",), "continuous", 303, "only through a call"),
        (("cancel_only",), "pre_open", 303, "only what it was before, halted or closed"),
        ((), "open", 102, "'open' is no phase; there are pre_open, opening_call"),
        ((), "", 102, "phase is missing"),
        ((), 7, 102, "phase is missing"),
    ],
)
def test_phase_that_cannot_be_is_refused_with_a_sentence(
    hall: Hall, before: tuple[str, ...], phase: Any, code: int, text: str
) -> None:
    for each in before:
        assert hall.ask(verb="phase", symbol="FREE", phase=each)["ok"]
    told = hall.refused(verb="phase", symbol="FREE", phase=phase)
    assert told[0] == code
    assert text in told[1]


def test_instrument_that_has_no_phases_is_refused(hall: Hall) -> None:
    code, text = hall.refused(verb="phase", symbol="AAPL", phase="halted")
    assert (code, "AAPL trades by the plain rules" in text) == (304, True)
    assert hall.refused(verb="phase", symbol="NOSUCH", phase="halted")[0] == 301
    assert hall.refused(verb="phase", symbol="MUCH_TOO_LONG", phase="halted")[0] == 301
    assert hall.refused(verb="rule", symbol="AAPL", key="stp", value="none")[0] == 304


@pytest.mark.parametrize(
    ("key", "value", "shown", "until_restart"),
    [
        ("static_band", "500", 500, True),
        ("dynamic_band", "0", 0, False),
        ("Algorithm", "Pro_Rata", "pro_rata", False),
        ("stp", "decrement", "decrement", False),
        ("on_breach", "expire", "expire", False),
        ("iceberg_parts", "7", 7, False),
        ("lmm", "4:30", ["3:20", "4:30"], True),
        ("lmm", "3:0", [], True),
    ],
)
def test_rule_is_set_and_shown(
    hall: Hall, key: str, value: str, shown: Any, until_restart: bool
) -> None:
    answer = hall.ask(verb="rule", symbol="GOLD", key=key, value=value)
    assert answer == {
        "ok": True, "symbol": "GOLD", "shard": 0, "key": key.lower(), "value": value,
        "until_restart": until_restart,
    }  # fmt: skip
    (row,) = hall.ask(verb="instruments", symbol="GOLD")["instruments"]
    assert row["rules"][key.lower()] == shown


@pytest.mark.parametrize(
    ("key", "value", "code", "text"),
    [
        ("bands", "1", 102, "'bands' is no rule; there are algorithm, iceberg_parts"),
        ("static_band", "10001", 103, "static_band of GOLD cannot be 10001"),
        ("static_band", "5%", 102, "static_band is a whole number"),
        ("static_band", "-1", 102, "static_band is a whole number"),
        ("static_band", 5, 102, "value is missing"),
        ("static_band", "9" * 19, 102, "static_band is a whole number"),
        ("algorithm", "lifo", 102, "algorithm is one of fifo, pro_rata"),
        ("stp", "default", 103, "stp of GOLD cannot be default"),
        ("lmm", "4", 102, "account:percent"),
        ("lmm", "4:31", 103, "lmm of GOLD cannot be 4:31"),
    ],
)
def test_rule_that_cannot_be_is_refused_with_a_sentence(
    hall: Hall, key: str, value: Any, code: int, text: str
) -> None:
    told = hall.refused(verb="rule", symbol="GOLD", key=key, value=value)
    assert told[0] == code
    assert text in told[1]


def test_protection_that_has_fired_is_armed_again(hall: Hall) -> None:
    answer = hall.ask(verb="arm", symbol="FREE", account="alice")
    assert answer == {
        "ok": True, "symbol": "FREE", "shard": 0, "account": "alice", "lots": 3, "window_ms": 500,
    }  # fmt: skip
    answer = hall.ask(verb="arm", symbol="FREE", account="bob", lots=7)
    assert (answer["lots"], answer["window_ms"]) == (7, 1000)


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({}, 102, "lots is a whole number; the configuration states none here"),
        ({"account": "nobody"}, 202, "no account 'nobody' in the configuration"),
        ({"account": 5}, 102, "account is missing"),
        ({"lots": -1}, 102, "lots is a whole number"),
        ({"lots": 5, "window_ms": "9"}, 102, "window_ms is a whole number"),
        ({"lots": 5, "window_ms": 0}, 103, "5 lots within 0 ms are no protection of bob"),
        ({"symbol": "AAPL"}, 304, "AAPL trades by the plain rules"),
    ],
)
def test_protection_that_cannot_be_is_refused_with_a_sentence(
    hall: Hall, more: dict[str, Any], code: int, text: str
) -> None:
    told = hall.refused({"verb": "arm", "symbol": "FREE", "account": "bob"} | more)
    assert told[0] == code
    assert text in told[1]


def test_instruments_are_told_with_what_is_in_force(hall: Hall) -> None:
    rows = {row["symbol"]: row for row in hall.ask(verb="instruments")["instruments"]}
    assert list(rows) == ["AAPL", "FREE", "GOLD"]
    assert rows["AAPL"] == {
        "symbol": "AAPL", "shard": 0, "phase": "continuous", "trades_by": "plain",
    }  # fmt: skip
    gold = rows["GOLD"]
    assert (gold["phase"], gold["calendar"]) == ("pre_open", list(GOLD.calendar))
    assert gold["static_reference"] == "10"
    rules = gold["rules"]
    assert (rules["static_band"], rules["algorithm"], rules["lmm"]) == (1000, "fifo", ["3:20"])
    assert rows["FREE"]["static_reference"] is None


def test_instruments_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("RINGBOOK_RUNTIME", str(tmp_path))
    names = [f"S{number:03d}" for number in range(120)]
    hall = Hall(tuple(Instrument(name, rules="full") for name in names))
    found, after = [], None
    for size in (50, 50, 20):
        page = hall.ask(verb="instruments", after=after)
        assert len(page["instruments"]) == size
        found += [row["symbol"] for row in page["instruments"]]
        after = page["next"]
    assert (found, after) == (names, None)
    hall.close()


# ------------------------------------------------------------------------------- what takes longer
def limit(hall: Hall, symbol: str, side: int, qty: int, px: int) -> np.ndarray:
    record = np.zeros(1, COMMAND)
    fields = {
        "kind": CommandKind.NEW, "account": 1, "session": 1, "logon": 1,
        "symbol": pack_name(symbol), "side": side, "qty": qty, "px": px,
        "order_type": OrderType.LIMIT,
    }  # fmt: skip
    for name, value in fields.items():
        record[name] = value
    return record


def log_on(hall: Hall) -> None:
    record = admin_record(CommandKind.SESSION_OPEN, account=1, logon=1)
    record["text"][0, :4] = np.frombuffer(b"main", np.uint8)
    hall.push(record)


def test_answer_to_a_long_uncross_is_waited_for(hall: Hall) -> None:
    log_on(hall)
    assert hall.ask(verb="phase", symbol="FREE", phase="pre_open")["ok"]
    orders = [limit(hall, "FREE", side, 1, 1000) for side in (0, 1) for _ in range(40)]
    hall.push(np.concatenate(orders))
    caller = hall.call()
    caller.send(orjson.dumps({"verb": "phase", "symbol": "FREE", "phase": "continuous"}))
    assert hall.hear(caller, 2, runs=False) is None
    answer = hall.hear(caller)
    assert (answer["was"], answer["phase"]) == ("pre_open", "continuous")
    assert hall.shard.state.hdr[WORK_KIND] == WORK_NONE
    assert int(hall.shard.state.symbols["volume"].sum()) == 40


def test_call_that_is_extended_is_told_as_such(hall: Hall) -> None:
    log_on(hall)
    orders = [limit(hall, "GOLD", 1, 5, 1090), limit(hall, "GOLD", 0, 5, 1090)]
    hall.push(np.concatenate(orders))
    assert hall.ask(verb="rule", symbol="GOLD", key="static_band", value="100")["ok"]
    code, text = hall.refused(verb="phase", symbol="GOLD", phase="continuous")
    assert (code, "GOLD stays in its pre_open, extended" in text) == (308, True)
    assert hall.phase() == Phase.PRE_OPEN


def test_caller_hears_one_answer_to_each_request_in_order(hall: Hall) -> None:
    caller = hall.call()
    for phase in ("halted", "volatility_call", "continuous", "continuous"):
        caller.send(orjson.dumps({"verb": "phase", "symbol": "FREE", "phase": phase}))
    answers = [hall.hear(caller) for _ in range(4)]
    assert [answer.get("phase") for answer in answers] == [
        "halted", "volatility_call", "continuous", None,
    ]  # fmt: skip
    assert answers[-1]["code"] == 303


def test_other_callers_are_served_while_one_waits(hall: Hall) -> None:
    waits = hall.call()
    waits.send(orjson.dumps({"verb": "phase", "symbol": "FREE", "phase": "halted"}))
    assert hall.hear(waits, 2, runs=False) is None
    caller = hall.call()
    caller.send(orjson.dumps({"verb": "instruments", "symbol": "AAPL"}))
    assert hall.hear(caller, 2, runs=False)["ok"]
    assert hall.hear(waits)["phase"] == "halted"


def test_caller_that_goes_away_costs_nobody_anything(hall: Hall) -> None:
    caller = hall.call()
    caller.send(orjson.dumps({"verb": "phase", "symbol": "FREE", "phase": "halted"}))
    hall.door.serve_once()
    caller.close()
    hall.run()
    hall.door.serve_once()
    hall.door.serve_once()
    assert hall.door.callers == []
    assert hall.phase("FREE") == Phase.HALTED


def test_task_of_a_verb_may_go_to_several_shards_and_is_told_as_a_whole(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A verb is a function and a row of the table; this one halts two instruments at once.
    def halt(market: Any, request: Any) -> Task:
        errands = []
        for name in ("FREE", "GOLD"):
            one = market.find({"symbol": name})
            record = admin_record(CommandKind.SET_PHASE, symbol=one.packed, order_type=Phase.HALTED)
            wanted = one.symbol_id

            def ends(event: Any, own: bool, wanted: int = wanted) -> dict[str, Any] | None:
                mine = event["kind"] == EventKind.PHASE and event["symbol_id"] == wanted
                return {"halted": wanted} if own and mine else None

            errands.append(Errand(one.shard, record, ends))
        return Task(errands, lambda answers: {"ok": True, "halted": len(answers)})

    monkeypatch.setitem(VERBS, "halt_all", halt)
    assert hall.ask(verb="halt_all") == {"ok": True, "halted": 2}


# ------------------------------------------------------------------------------------ what is wrong
@pytest.mark.parametrize(
    ("request_bytes", "code", "text"),
    [
        (b"{", 101, "not JSON"),
        (b"[1]", 101, "one JSON object"),
        (b"{}", 102, "no verb 'None'; there are phase, rule, arm, instruments"),
        (b'{"verb":"stop"}', 102, "no verb 'stop'"),
        (b'{"verb":["phase"]}', 102, "no verb"),
        (b'{"verb":"phase"}', 102, "symbol is missing"),
        (b'{"verb":"rule","symbol":"GOLD"}', 102, "key is missing"),
        (b'{"verb":"rule","symbol":"GOLD","key":"stp"}', 102, "value is missing"),
        (b'{"verb":"phase","symbol":5}', 102, "symbol is missing"),
    ],
)
def test_request_that_means_nothing_is_refused_and_nothing_is_sent(
    hall: Hall, request_bytes: bytes, code: int, text: str
) -> None:
    before = list(hall.producer.position)
    told = hall.refused(request_bytes)
    assert told[0] == code
    assert text in told[1]
    assert hall.producer.position == before


@pytest.mark.parametrize(
    ("label", "value", "word"),
    [
        ("state", State.HALTED, "shard 0 is halted"),
        ("state", State.STARTING, "shard 0 is starting"),
        ("heartbeat_ns", 1, "shard 0 is silent"),
    ],
    ids=("halted", "starting", "silent"),
)
def test_shard_that_is_down_is_told_and_gets_no_command(
    hall: Hall, label: str, value: int, word: str
) -> None:
    hall.instance.counters.block("shard0").set(label, value)
    before = list(hall.producer.position)
    code, text = hall.refused(verb="phase", symbol="FREE", phase="halted")
    assert (code, text) == (905, f"{word}: nothing was changed (run.py top)")
    assert hall.producer.position == before


def test_exchange_that_starts_takes_no_requests(hall: Hall) -> None:
    hall.ready = False
    assert hall.refused(verb="instruments")[0] == 905


def test_full_queue_is_busy(hall: Hall) -> None:
    records = np.concatenate([admin_record(CommandKind.TIME) for _ in range(64)])
    hall.producer.push(0, records)
    code, text = hall.refused(verb="phase", symbol="FREE", phase="halted")
    assert (code, text) == (901, "shard 0 takes nothing now, its queue is full")


def test_shard_that_does_not_answer_is_told_and_the_command_may_still_run(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_door, "ANSWER_S", 0.0)
    caller = hall.call()
    caller.send(orjson.dumps({"verb": "phase", "symbol": "FREE", "phase": "halted"}))
    answer = hall.hear(caller, runs=False)
    assert answer["code"] == 905
    assert "no answer of shard 0" in answer["text"]
    hall.run()
    assert hall.phase("FREE") == Phase.HALTED


# ------------------------------------------------------------------------------------- who gets in
def test_door_is_for_its_owner_alone(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stat.S_IMODE(hall.door.path.stat().st_mode) == 0o600
    monkeypatch.setattr(operator_door, "OWNERS", frozenset({os.getuid() + 1}))
    caller = hall.call()
    hall.door.serve_once()
    assert hall.door.callers == []
    assert caller.recv(1) == b""


def test_clients_of_gateways_cannot_change_phases_or_rules(hall: Hall) -> None:
    log_on(hall)
    for kind in (CommandKind.SET_PHASE, CommandKind.SET_RULE):
        record = admin_record(kind, symbol=pack_name("FREE"), order_type=Phase.HALTED, amount=1)
        record["account"], record["session"], record["logon"] = 1, 1, 1
        before = int(hall.shard.state.rejects[RejectCode.NOT_AUTHORISED])
        hall.push(record, producer=2)
        assert int(hall.shard.state.rejects[RejectCode.NOT_AUTHORISED]) == before + 1
    assert hall.phase("FREE") == Phase.CONTINUOUS


def test_more_callers_than_there_is_room_for_wait_outside(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = [hall.call() for _ in range(operator_door.CALLERS_MAX + 1)]
    for caller in callers:
        caller.send(b'{"verb":"instruments","symbol":"AAPL"}')
    assert hall.hear(callers[0])["ok"]
    assert hall.hear(callers[-1], 3) is None
    monkeypatch.setattr(operator_door, "IDLE_S", 0.0)  # who says nothing has to go
    time.sleep(0.001)
    assert hall.hear(callers[-1])["ok"]


def test_ask_says_who_is_not_there(hall: Hall) -> None:
    with pytest.raises(ConnectionError, match="no exchange called 'nobody' is running here"):
        ask("nobody", {"verb": "instruments"})
    stop = threading.Event()

    def serve() -> None:
        while not stop.wait(0.002):
            hall.door.serve_once()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ask("hall", {"verb": "instruments", "symbol": "AAPL"})["ok"]
    finally:
        stop.set()
        thread.join()
    hall.door.close()
    with pytest.raises(ConnectionError, match="no exchange"):
        ask("hall", {"verb": "instruments"})
