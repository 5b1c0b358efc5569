"""Turns of calendars, taken by the loop of a shard under a fake clock (RULES §6, §9, §13 Time)."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest

from engine.admin import (
    PRODUCER_SUPERVISOR,
    admin_record,
    list_instrument,
    list_rules,
    open_account,
    open_session,
)
from engine.book_state import IN_TS, OUT_POSITION, WORK_KIND, allocate_state, small_limits
from engine.config import Instrument
from engine.loop_words import FAKE_STEADY, FAKE_WALL, TURN_AT, YIELD_NS
from engine.matching import WORK_NONE
from engine.phase_clock import PhaseClock
from engine.records import (
    COMMAND,
    CommandKind,
    EventKind,
    InstrumentRule,
    OrderType,
    Phase,
    RejectCode,
    Side,
    TimeInForce,
    pack_name,
)
from engine.shard_loop import STOP, shard_ports_private, shard_run, work_waits

pytestmark = pytest.mark.flavour

SECOND, CAPACITY = 10**9, 64
DAY = (
    "08:00 pre_open", "08:50 opening_call", "09:00 continuous", "17:00 closing_call",
    "17:05 closed",
)  # fmt: skip
GOLD = Instrument("GOLD", rules="full", calendar=DAY)
BUY, SELL = int(Side.BUY), int(Side.SELL)
ACTIVATED, PHASE, REJECTED = EventKind.ACTIVATED, EventKind.PHASE, EventKind.REJECTED


def moment(text: str, day: int = 2) -> int:
    """Nanoseconds of a time of day of March 2026."""
    time = datetime.datetime.fromisoformat(f"2026-03-{day:02d}T{text}+00:00")
    return int(time.timestamp()) * SECOND


class Exchange:
    """A shard with a clock that stands until the test moves it."""

    def __init__(
        self, now: int, instruments: tuple[Instrument, ...] = (GOLD,), slices: int = 1000
    ) -> None:
        limits = small_limits(
            orders_max=1024, levels_max=512, slice_events=slices, events_per_command_max=2048
        )
        self.state = allocate_state(limits)
        self.instruments, self.sent, self.read = instruments, 0, 0
        self.ids = 0
        self.start(now)
        self.say(open_account(1), open_session(1, "main", logon=1))
        self.say(*(list_instrument(each) for each in instruments))
        self.say(*(row for each in instruments for row in list_rules(each)))

    def start(self, now: int) -> list[Any]:
        """A new owner of the same state, as after a restart; what it does at once."""
        self.ports = shard_ports_private(self.state, capacity=CAPACITY)
        self.ports.positions[PRODUCER_SUPERVISOR] = self.sent
        self.ports.loop[STOP], self.ports.loop[YIELD_NS] = 1, -1
        self.at(now)
        self.clock = PhaseClock(self.state, self.ports.loop, self.instruments, now)
        return self.run()

    def at(self, now: int) -> Exchange:
        """Set the clock; nothing runs."""
        self.ports.loop[FAKE_WALL], self.ports.loop[FAKE_STEADY] = now, now - moment("00:00", 1)
        return self

    def send(self, *records: np.ndarray) -> None:
        """Put commands into the ring; nothing runs."""
        for record in records:
            place = PRODUCER_SUPERVISOR * CAPACITY + self.sent % CAPACITY
            self.sent += 1
            self.ports.commands[place] = record[0]
            self.ports.commands[place]["producer_seq"] = self.sent

    def run(self) -> list[Any]:
        """Run until there is nothing to do; the events."""
        for _ in range(200):
            shard_run(self.state.table, self.ports)
            self.clock.step()
            if not work_waits(self.state.table, self.ports):
                break
        else:
            raise AssertionError("the shard does not come to rest")
        places = np.arange(self.read, self.state.hdr[OUT_POSITION]) & (len(self.state.events) - 1)
        self.read = int(self.state.hdr[OUT_POSITION])
        return list(self.state.events[places])

    def say(self, *records: np.ndarray) -> list[Any]:
        self.send(*records)
        return self.run()

    def order(self, side: int, qty: int, px: int, symbol: str = "GOLD", **more: int) -> np.ndarray:
        self.ids += 1
        record = np.zeros(1, COMMAND)
        fields = {
            "kind": CommandKind.NEW, "account": 1, "session": 1, "logon": 1, "side": side,
            "qty": qty, "px": px, "symbol": pack_name(symbol), "order_type": OrderType.LIMIT,
            "client_order_id": self.ids,
        }  # fmt: skip
        for name, value in (fields | more).items():
            record[name] = value
        return record

    def operator(self, phase: Phase, symbol: str = "GOLD") -> list[Any]:
        return self.say(set_phase(phase, symbol))

    def phase(self, symbol: str = "GOLD") -> Phase:
        place = int(np.flatnonzero(self.state.names == pack_name(symbol))[0])
        return Phase(int(self.state.symbols[place]["phase"]))


def set_phase(phase: Phase, symbol: str = "GOLD") -> np.ndarray:
    return admin_record(CommandKind.SET_PHASE, symbol=pack_name(symbol), order_type=phase)


def kinds(events: list[Any]) -> list[str]:
    return [EventKind(int(event["kind"])).name for event in events]


def phases(events: list[Any]) -> list[Phase]:
    return [Phase(int(event["code"])) for event in events if event["kind"] == PHASE]


# -------------------------------------------------------------------------------------- the start
@pytest.mark.parametrize(
    ("time", "phase"),
    [
        ("03:00", Phase.CLOSED),
        ("07:59:59", Phase.CLOSED),
        ("08:00", Phase.PRE_OPEN),
        ("08:55", Phase.OPENING_CALL),
        ("09:00", Phase.CONTINUOUS),
        ("16:59:59", Phase.CONTINUOUS),
        ("17:02", Phase.CLOSING_CALL),
        ("23:00", Phase.CLOSED),
    ],
)
def test_instrument_begins_in_the_phase_its_calendar_has(time: str, phase: Phase) -> None:
    exchange = Exchange(moment(time))
    assert exchange.phase() == phase
    last = exchange.say(exchange.order(BUY, 1, 100, tif=TimeInForce.AT_CLOSE))[0]
    assert last["kind"] == EventKind.ACCEPTED  # it knows that there is a closing call


def test_no_command_comes_between_the_listing_and_the_phase_of_now() -> None:
    exchange = Exchange(moment("03:00"), ())
    exchange.instruments = (GOLD,)
    exchange.start(moment("03:00"))
    early = exchange.order(BUY, 1, 100, tif=TimeInForce.DAY)
    told = exchange.say(list_instrument(GOLD), early)
    assert kinds(told) == ["LISTED", "PHASE", "PHASE", "REJECTED"]
    assert phases(told) == [Phase.CONTINUOUS, Phase.CLOSED]
    assert told[-1]["code"] == RejectCode.NOT_IN_PHASE


def test_instrument_without_calendar_has_no_turns() -> None:
    plain, open_ended = Instrument("AAPL"), Instrument("PURE", rules="full", volatility_call_s=0)
    exchange = Exchange(moment("03:00"), (plain, open_ended))
    assert exchange.ports.loop[TURN_AT] == 0
    exchange = Exchange(moment("03:00"), (Instrument("ROUND", rules="full"),))
    assert exchange.phase("ROUND") == Phase.CONTINUOUS
    assert phases(exchange.at(moment("12:00", 5)).run()) == []


# ------------------------------------------------------------------------------------ taking turns
def test_turn_is_taken_before_the_first_command_of_its_time_and_not_earlier() -> None:
    exchange = Exchange(moment("08:55"))
    exchange.say(exchange.order(SELL, 5, 100), exchange.order(BUY, 3, 101))
    exchange.at(moment("09:00") - 1)
    late = exchange.say(exchange.order(BUY, 2, 101))
    assert "FILL" not in kinds(late)
    exchange.at(moment("09:00"))
    told = exchange.say(exchange.order(BUY, 4, 101, tif=TimeInForce.IOC))
    names = kinds(told)
    assert names[: names.index("PHASE")].count("FILL") == 4
    assert names.index("PHASE") < names.index("ACCEPTED")
    assert all(event["in_ts"] >= moment("09:00") for event in told)
    assert told[names.index("PHASE")]["amount2"] == moment("17:00")  # until when


def test_a_whole_day_goes_by_itself_and_the_next_one_too() -> None:
    exchange = Exchange(moment("03:00"))
    seen = []
    for day in (2, 3):
        for time in ("08:00", "08:50", "09:00", "17:00", "17:05"):
            seen += phases(exchange.at(moment(time, day)).run())
    assert seen == 2 * [
        Phase.PRE_OPEN, Phase.OPENING_CALL, Phase.CONTINUOUS, Phase.CLOSING_CALL, Phase.CLOSED,
    ]  # fmt: skip
    assert exchange.ports.loop[TURN_AT] == moment("08:00", 4)


def test_turns_are_commands_of_the_loop_for_the_journal() -> None:
    exchange = Exchange(moment("08:55"))
    before = int(exchange.state.hdr[IN_TS])
    exchange.at(moment("09:00:01")).run()
    own = exchange.ports.own[0]
    assert (own["kind"], own["producer"], own["order_type"]) == (34, 0, Phase.CONTINUOUS)
    assert own["symbol"] == pack_name("GOLD")
    assert exchange.state.hdr[IN_TS] == moment("09:00:01") > before


def test_instruments_of_one_time_have_all_changed_before_any_command() -> None:
    names = ("GOLD", "TIN", "ZINC")
    exchange = Exchange(
        moment("03:00"), tuple(Instrument(n, rules="full", calendar=DAY) for n in names)
    )
    exchange.at(moment("08:00"))
    orders = [exchange.order(BUY, 1, 100, symbol=name, tif=TimeInForce.DAY) for name in names]
    assert kinds(exchange.say(*orders)) == ["PHASE"] * 3 + ["ACCEPTED", "BOOKED"] * 3


def test_what_expires_at_the_time_of_a_turn_takes_no_part_in_its_auction() -> None:
    exchange = Exchange(moment("08:55"))
    end = {"tif": TimeInForce.GTD, "expire_ts": moment("09:00")}
    exchange.say(exchange.order(SELL, 5, 100, **end), exchange.order(BUY, 3, 101))
    told = kinds(exchange.at(moment("09:00")).run())
    assert told[:3] == ["EXPIRED", "CROSSED", "PHASE"]
    assert "FILL" not in told


def test_indication_of_the_time_of_a_turn_comes_too_late() -> None:
    exchange = Exchange(moment("08:59:59"))
    exchange.say(exchange.order(SELL, 5, 100))
    assert kinds(exchange.say(exchange.order(BUY, 5, 100)))[-1] == "INDICATIVE"
    exchange.say(exchange.order(BUY, 5, 100))  # told a second later, at 09:00
    told = kinds(exchange.at(moment("09:00")).run())
    assert told[-1] == "PHASE"
    assert "INDICATIVE" not in told


def test_commands_wait_for_a_turn_that_waits_for_a_long_work() -> None:
    tin = Instrument(
        "TIN", rules="full", calendar=("08:00 pre_open", "08:30 continuous", "09:00 closing_call")
    )
    exchange = Exchange(moment("08:55"), (GOLD, tin), slices=20)
    for _ in range(4):
        exchange.say(*(exchange.order(SELL, 1, 100) for _ in range(10)))
        exchange.say(*(exchange.order(BUY, 1, 100) for _ in range(10)))
    exchange.at(moment("09:00"))
    # By its number: an order that names its instrument would wait for any long work.
    order = exchange.order(BUY, 1, 100, symbol="TIN", symbol_id=2, tif=TimeInForce.IOC)
    told = exchange.say(order)
    names = kinds(told)
    assert names.count("CONTINUED") > 2  # the uncross of GOLD was long
    assert names[-2:] == ["PHASE", "REJECTED"]  # TIN is in its call by then
    assert phases(told) == [Phase.CONTINUOUS, Phase.CLOSING_CALL]
    assert exchange.state.hdr[WORK_KIND] == WORK_NONE


# ------------------------------------------------------------------------------- starts, downtime
def test_after_a_restart_only_the_phase_of_now_counts_and_missed_auctions_are_not_held() -> None:
    exchange = Exchange(moment("03:00"))
    exchange.say(exchange.order(BUY, 5, 100, tif=TimeInForce.AT_OPEN))
    exchange.say(exchange.order(SELL, 5, 100))
    told = exchange.start(moment("10:00"))
    assert phases(told) == [Phase.VOLATILITY_CALL, Phase.CONTINUOUS]  # closed opens by a call
    assert ACTIVATED not in [event["kind"] for event in told]
    assert exchange.phase() == Phase.CONTINUOUS
    for time in ("17:00", "17:05"):
        exchange.at(moment(time)).run()
    told = exchange.at(moment("08:00", 3)).run()
    assert kinds(told)[:2] == ["PHASE", "ACTIVATED"]  # the order waits for the next opening


def test_auction_that_had_begun_is_ended_at_the_start() -> None:
    exchange = Exchange(moment("08:55"))
    exchange.say(exchange.order(SELL, 5, 100), exchange.order(BUY, 3, 101))
    exchange.start(moment("09:10"))
    assert exchange.phase() == Phase.CONTINUOUS
    assert exchange.state.symbols[1]["volume"] == 3


def test_days_of_downtime_are_one_step() -> None:
    exchange = Exchange(moment("16:00"))
    assert phases(exchange.start(moment("08:55", 9))) == [Phase.OPENING_CALL]
    assert exchange.ports.loop[TURN_AT] == moment("09:00", 9)


def test_restart_between_two_turns_changes_nothing_also_what_an_operator_did() -> None:
    exchange = Exchange(moment("10:00"))
    exchange.operator(Phase.CLOSING_CALL)
    assert exchange.start(moment("10:00:10")) == []
    assert exchange.phase() == Phase.CLOSING_CALL


def test_clock_set_back_over_a_turn_does_not_take_it_twice() -> None:
    exchange = Exchange(moment("08:55"))
    exchange.at(moment("09:00:05")).run()
    exchange.start(moment("08:59"))
    assert exchange.phase() == Phase.CONTINUOUS
    assert exchange.ports.loop[TURN_AT] == moment("17:00")


# ------------------------------------------------------------------------- calls nobody scheduled
BANDED = Instrument("GOLD", rules="full", dynamic_band=100, volatility_call_s=30)


def breach(exchange: Exchange) -> list[Any]:
    """Trade at 1000, then try to at 1100: a volatility call."""
    orders = [(SELL, 1, 1000), (BUY, 1, 1000), (SELL, 1, 1100), (BUY, 1, 1100)]
    return exchange.say(*(exchange.order(*order) for order in orders))


def test_volatility_call_ends_after_its_seconds_with_an_uncross() -> None:
    exchange = Exchange(moment("12:00"), (BANDED,))
    assert phases(breach(exchange)) == [Phase.VOLATILITY_CALL]
    assert exchange.ports.loop[TURN_AT] == moment("12:00:30")
    assert phases(exchange.at(moment("12:00:30") - 1).run()) == []
    told = exchange.at(moment("12:00:30")).run()
    assert phases(told) == [Phase.CONTINUOUS]
    assert kinds(told).count("FILL") == 2
    assert phases(exchange.at(moment("13:00")).run()) == []


def test_volatility_call_without_seconds_waits_for_an_operator() -> None:
    endless = Instrument("GOLD", rules="full", dynamic_band=100, volatility_call_s=0)
    exchange = Exchange(moment("12:00"), (endless,))
    breach(exchange)
    assert phases(exchange.at(moment("20:00")).run()) == []
    assert phases(exchange.operator(Phase.CONTINUOUS)) == [Phase.CONTINUOUS]


def test_call_whose_price_is_outside_the_band_is_extended_until_the_band_is_wide_enough() -> None:
    terms = {"static_band": 100, "volatility_call_s": 20, "reference": "10.00"}
    gold = Instrument("GOLD", rules="full", calendar=DAY, **terms)  # type: ignore[arg-type]
    exchange = Exchange(moment("08:55"), (gold,))
    narrow = admin_record(
        CommandKind.SET_RULE, symbol=pack_name("GOLD"), order_type=InstrumentRule.STATIC_BAND,
        amount=40,
    )  # fmt: skip
    exchange.say(exchange.order(SELL, 5, 1010), exchange.order(BUY, 5, 1010), narrow)
    # 4 ticks, once more 4, 8, then 16 around 1000.
    for time in ("09:00:00", "09:00:20", "09:00:40"):
        assert phases(exchange.at(moment(time) - 1).run()) == []
        assert kinds(exchange.at(moment(time)).run()) == ["BAND"]
    told = exchange.at(moment("09:01")).run()
    assert (phases(told), kinds(told).count("FILL")) == ([Phase.CONTINUOUS], 2)
    assert exchange.ports.loop[TURN_AT] == moment("17:00")


def test_call_of_a_state_that_was_recovered_ends_in_its_time() -> None:
    exchange = Exchange(moment("12:00"), (BANDED,))
    breach(exchange)
    exchange.start(moment("12:00:20"))
    assert exchange.phase() == Phase.VOLATILITY_CALL
    assert exchange.ports.loop[TURN_AT] == moment("12:00:30")
    exchange.start(moment("12:05"))
    assert exchange.phase() == Phase.CONTINUOUS


def test_scheduled_turn_ends_a_volatility_call() -> None:
    gold = Instrument("GOLD", rules="full", calendar=DAY, dynamic_band=100, volatility_call_s=600)
    exchange = Exchange(moment("16:59"), (gold,))
    breach(exchange)
    told = exchange.at(moment("17:00")).run()
    assert (phases(told), kinds(told).count("FILL")) == ([Phase.CLOSING_CALL], 2)
    assert phases(exchange.at(moment("17:04:59")).run()) == []


# --------------------------------------------------------------------------------------- operators
def test_calendar_leaves_a_halt_alone_and_goes_on_behind_the_reopening() -> None:
    exchange = Exchange(moment("16:00"))
    exchange.operator(Phase.HALTED)
    assert phases(exchange.at(moment("17:01")).run()) == []
    assert exchange.operator(Phase.CONTINUOUS)[-1]["code"] == RejectCode.NOT_IN_PHASE
    assert phases(exchange.operator(Phase.VOLATILITY_CALL)) == [Phase.VOLATILITY_CALL]
    assert phases(exchange.at(moment("17:01:30")).run()) == [Phase.CLOSING_CALL]
    assert phases(exchange.at(moment("17:05")).run()) == [Phase.CLOSED]


def test_halt_that_comes_with_a_turn_is_not_ended_by_it() -> None:
    exchange = Exchange(moment("16:59"))
    exchange.at(moment("17:00") - 1)
    exchange.send(set_phase(Phase.HALTED))
    shard_run(exchange.state.table, exchange.ports)  # the clock has not seen it when the turn comes
    assert exchange.ports.loop[TURN_AT] == moment("17:00")
    assert phases(exchange.at(moment("17:00")).run()) == [Phase.HALTED]
    assert exchange.phase() == Phase.HALTED


def test_cancel_only_ends_where_the_calendar_is() -> None:
    exchange = Exchange(moment("16:00"))
    exchange.operator(Phase.CANCEL_ONLY)
    assert phases(exchange.operator(Phase.CONTINUOUS)) == [Phase.CONTINUOUS]  # nothing was missed
    exchange.operator(Phase.CANCEL_ONLY)
    exchange.at(moment("17:02")).run()
    told = exchange.operator(Phase.CONTINUOUS)
    assert phases(told) == [Phase.CONTINUOUS, Phase.CLOSING_CALL]


def test_phase_set_by_hand_stays_until_the_next_turn() -> None:
    exchange = Exchange(moment("08:55"))
    exchange.operator(Phase.CLOSED)
    assert phases(exchange.at(moment("08:59")).run()) == []
    assert phases(exchange.at(moment("09:00")).run()) == [Phase.VOLATILITY_CALL, Phase.CONTINUOUS]
    assert exchange.ports.loop[TURN_AT] == moment("17:00")
