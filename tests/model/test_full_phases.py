"""Stories about phases, calls, the uncross, and bands (RULES §6, §7, §13)."""

from __future__ import annotations

import pytest

from engine.records import CommandFlag, InstrumentRule, OrderType, Phase, TimeInForce
from tests.model.full_kit import Story

TIF = TimeInForce
SECOND = 10**9
OPENING, CLOSING = Phase.OPENING_CALL, Phase.CLOSING_CALL
CONTINUOUS, VOLATILITY, CLOSED = Phase.CONTINUOUS, Phase.VOLATILITY_CALL, Phase.CLOSED
HIDDEN = CommandFlag.HIDDEN
STATIC, DYNAMIC = InstrumentRule.STATIC_BAND, InstrumentRule.DYNAMIC_BAND


def in_call(phase: Phase = OPENING) -> Story:
    s = Story()
    s.phase(phase)
    return s


def traded(s: Story, px: int) -> None:
    s.sell(4, f"1@{px}")
    s.buy(5, f"1@{px}")


# ------------------------------------------------------------------------------------- the uncross
def test_call_collects_and_uncrosses_at_the_price_of_most_volume() -> None:
    s = in_call()
    assert s.buy(1, "5@102") == "ACCEPTED #1 5@102; BOOKED #1 5@102"
    assert s.sell(2, "3@100") == "ACCEPTED #2 3@100; BOOKED #2 3@100"
    s.sell(2, "4@101")
    told = s.phase(CONTINUOUS)
    # 101 and 102: volume 5, surplus 2 sell: the lower.
    assert told == (
        "FILL #1 3@101; FILL #2 3@101; FILL #1 2@101; FILL #3 2@101; CROSSED 5 at 101;"
        " PHASE CONTINUOUS"
    )
    assert s.asks == "#3:2@101"
    assert s.events[0]["feed_seq"] > 0
    assert s.book.dynamic_ref == 101


@pytest.mark.parametrize(
    ("buys", "sells", "reference", "px"),
    [
        (["5@102"], ["3@100"], 0, 102),  # surplus buy everywhere: the highest
        (["3@102"], ["5@100"], 0, 100),  # surplus sell: the lowest
        (["5@104"], ["5@100"], 0, 102),  # no surplus, no reference: the middle
        (["5@104"], ["5@101"], 0, 102),  # rounded down
        (["5@104"], ["5@100"], 103, 103),  # nearest the reference
        (["5@104"], ["5@100"], 200, 104),
        (["5@104"], ["5@100"], 1, 100),
        (["2@104", "3@100"], ["2@100", "3@104"], 0, 102),
        (["5@99"], ["5@100"], 0, 0),
    ],
)
def test_price_of_an_uncross(buys: list[str], sells: list[str], reference: int, px: int) -> None:
    s = in_call()
    s.book.dynamic_ref = reference
    for what in buys:
        s.buy(1, what)
    for what in sells:
        s.sell(2, what)
    assert f" at {px};" in s.phase(CONTINUOUS)


def test_order_of_the_fills_is_price_displayed_reserve_hidden_each_by_time() -> None:
    s = in_call()
    s.sell(1, "2@100", flags=HIDDEN)
    s.sell(2, "6@100", peak=2)
    s.sell(3, "2@100")
    s.sell(3, "1@99")
    s.buy(4, "10@100")
    told = s.phase(CONTINUOUS).split("; ")
    assert told == [
        *("FILL #5 1@100", "FILL #4 1@100", "FILL #5 2@100", "FILL #2 2@100"),
        *("FILL #5 2@100", "FILL #3 2@100", "FILL #5 4@100", "FILL #2 4@100"),
        *("FILL #5 1@100", "FILL #1 1@100", "CROSSED 10 at 100", "PHASE CONTINUOUS"),
    ]


def test_slices_show_again_behind_the_last_fill() -> None:
    s = in_call()
    s.sell(2, "6@100", peak=2)
    s.sell(3, "2@100")
    s.buy(4, "5@100")
    told = s.phase(CONTINUOUS)
    assert told.endswith("CROSSED 5 at 100; REFRESHED #1 2; PHASE CONTINUOUS")
    assert s.asks == "#1:2/3@100"


def test_own_orders_trade_in_an_uncross() -> None:
    s = Story(stp="expire_both")
    s.phase(OPENING)
    s.buy(1, "1@100")
    s.sell(1, "1@100")
    assert "PREVENTED" not in s.phase(CONTINUOUS)


# -------------------------------------------------------------------------------- what is allowed
@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("1", {}),
        ("1@100", {"tif": TIF.IOC}),
        ("1@100", {"tif": TIF.FOK}),
        ("1@100", {"min_qty": 1}),
        ("1@100", {"flags": CommandFlag.POST_ONLY}),
        ("1", {"order_type": OrderType.MARKET_TO_LIMIT}),
    ],
)
def test_not_in_a_call(what: str, fields: dict) -> None:
    assert in_call().buy(1, what, **fields) == "REJECTED NOT_IN_PHASE"


def test_closed_takes_what_may_stay_overnight() -> None:
    s = in_call()
    s.buy(1, "2@90")
    s.buy(1, "2@90", tif=TIF.DAY)
    s.phase(CLOSED)
    assert s.buy(1, "1@100", tif=TIF.DAY) == "REJECTED NOT_IN_PHASE"
    assert s.buy(1, "1@100").startswith("ACCEPTED")
    assert s.replace(1, px=91).startswith("REPLACED")
    assert s.replace(2, px=91) == "REJECTED NOT_IN_PHASE"
    assert s.replace(2, qty=1).endswith("kept")
    assert s.phase(CONTINUOUS) == "REJECTED NOT_IN_PHASE"


def test_halted_takes_cancels_and_resumes_through_a_call() -> None:
    s = Story()
    s.buy(1, "2@90")
    s.phase(Phase.HALTED)
    assert s.buy(1, "1@90") == "REJECTED NOT_IN_PHASE"
    assert s.replace(1, px=91) == "REJECTED NOT_IN_PHASE"
    assert s.replace(1, qty=1).endswith("kept")
    assert s.cancel(1).startswith("CANCELED")
    assert s.phase(CONTINUOUS) == "REJECTED NOT_IN_PHASE"
    assert s.phase(VOLATILITY) == "PHASE VOLATILITY_CALL"
    assert s.phase(CONTINUOUS) == "CROSSED at 0; PHASE CONTINUOUS"


def test_cancel_only_resumes_to_where_it_came_from_without_uncross() -> None:
    s = in_call()
    s.buy(1, "1@100")
    s.sell(1, "1@100")
    assert s.phase(Phase.CANCEL_ONLY) == "PHASE CANCEL_ONLY"
    assert s.phase(CONTINUOUS) == "REJECTED NOT_IN_PHASE"
    assert s.phase(OPENING) == "PHASE OPENING_CALL"


def test_pre_open_becomes_the_opening_call_without_uncross() -> None:
    s = in_call(Phase.PRE_OPEN)
    s.buy(1, "1@100")
    s.sell(1, "1@100")
    assert s.phase(OPENING) == "PHASE OPENING_CALL"
    assert "CROSSED 1 at 100" in s.phase(CONTINUOUS)


# ------------------------------------------------------------------------------- auction orders
def test_auction_orders_wait_join_with_their_time_and_expire() -> None:
    s = Story()
    assert s.sell(1, "3@100", tif=TIF.AT_CLOSE) == "REJECTED NO_SUCH_AUCTION"
    s.phase(OPENING)
    s.phase(CONTINUOUS)
    told = s.sell(1, "3@100", tif=TIF.AT_CLOSE)
    assert told == "ACCEPTED #1 3@100; PARKED #1"
    s.sell(2, "3@100")
    assert s.phase(CLOSING) == "PHASE CLOSING_CALL; ACTIVATED #1; BOOKED #1 3@100"
    assert s.asks == "#1:3@100 #2:3@100"  # its time is that of its entry
    s.buy(3, "2@100")
    told = s.phase(CLOSED)
    assert told == (
        "FILL #3 2@100; FILL #1 2@100; CROSSED 2 at 100; EXPIRED #1 1 AUCTION_END; PHASE CLOSED"
    )
    assert s.sell(1, "3@100", tif=TIF.AT_OPEN).endswith("PARKED #4")
    assert s.phase(OPENING).endswith("ACTIVATED #4; BOOKED #4 3@100")
    assert s.sell(1, "3@100", tif=TIF.GOOD_FOR_AUCTION).endswith("BOOKED #5 3@100")


def test_market_order_of_a_call_reserves_at_the_static_band() -> None:
    s = in_call()
    assert s.buy(1, "1", tif=TIF.GOOD_FOR_AUCTION) == "REJECTED NO_BAND"
    s.rule(STATIC, 1000)
    s.book.static_ref = 100
    assert s.buy(1, "3", tif=TIF.GOOD_FOR_AUCTION) == "ACCEPTED #1 3@110; BOOKED #1 0/3@110"
    s.buy(2, "3@110")
    s.sell(3, "4@105")
    told = s.phase(CONTINUOUS)
    assert told.startswith("FILL #1 3@110; FILL #3 3@110; FILL #2 1@110; FILL #3 1@110")
    s.phase(OPENING)
    s.book.dynamic_ref = 103
    s.mass_cancel(2)
    s.buy(1, "3", tif=TIF.AT_OPEN)
    s.sell(2, "2", tif=TIF.AT_OPEN)
    assert s.phase(CONTINUOUS).startswith("FILL #4 2@103; FILL #5 2@103; CROSSED 2 at 103")


# ------------------------------------------------------------------------------------------- bands
def test_static_band_refuses_what_is_more_aggressive() -> None:
    s = Story()
    s.rule(STATIC, 500)
    traded(s, 100)
    assert s.buy(1, "1@106") == "REJECTED STATIC_BAND"
    assert s.sell(1, "1@94") == "REJECTED STATIC_BAND"
    assert s.buy(1, "1@5").startswith("ACCEPTED")
    assert s.replace(3, px=106) == "REJECTED STATIC_BAND"
    assert s.replace(3, px=105).startswith("REPLACED")


def test_breach_starts_a_call_that_the_remainder_joins() -> None:
    s = Story()
    s.rule(DYNAMIC, 500)
    traded(s, 100)
    s.sell(1, "1@104")
    s.sell(1, "1@106")
    told = s.buy(2, "3@107")
    assert told == ("ACCEPTED #5 3@107; FILL #3 1@104; BOOKED #5 2@107; PHASE VOLATILITY_CALL")
    told = s.phase(CONTINUOUS)
    assert told == "FILL #5 1@107; FILL #4 1@107; CROSSED 1 at 107; BAND; PHASE CONTINUOUS"


@pytest.mark.parametrize(
    ("what", "fields"),
    [("3", {}), ("3@107", {"tif": TIF.IOC}), ("3@107", {"min_qty": 1})],
)
def test_breach_expires_what_does_not_join(what: str, fields: dict) -> None:
    s = Story()
    s.rule(DYNAMIC, 500)
    traded(s, 100)
    s.sell(1, "1@104")
    s.sell(1, "1@106")
    told = s.buy(2, what, **fields)
    assert told.endswith("FILL #3 1@104; EXPIRED #5 2 BAND; PHASE VOLATILITY_CALL")


def test_breach_of_a_fok_or_an_unmet_minimum_starts_nothing() -> None:
    s = Story()
    s.rule(DYNAMIC, 500)
    traded(s, 100)
    s.sell(1, "1@104")
    s.sell(1, "1@106")
    assert s.buy(2, "2@107", tif=TIF.FOK) == "REJECTED FOK_UNFILLED"
    assert s.buy(2, "2@107", min_qty=2).endswith("EXPIRED #5 2 MINIMUM")
    s.rule(InstrumentRule.ON_BREACH, 1)
    assert s.buy(2, "2@107").endswith("FILL #3 1@104; EXPIRED #6 1 BAND")


def test_dynamic_reference_is_the_last_trade_before_the_command() -> None:
    s = Story()
    s.rule(DYNAMIC, 500)
    traded(s, 100)
    s.sell(1, "1@104")
    s.sell(1, "1@107")
    assert "PHASE" in s.buy(2, "2@107", tif=TIF.IOC)
    s.phase(CONTINUOUS)
    assert s.book.dynamic_ref == 107  # no trade in the call: the best displayed price


def test_auction_price_outside_the_static_band_extends_then_doubles() -> None:
    s = in_call()
    s.rule(STATIC, 1000)
    s.book.static_ref = 100
    s.buy(1, "1@110")
    s.sell(2, "1@105")
    s.book.static_ref = 90
    widths = []
    while not (told := s.phase(CONTINUOUS)).startswith("FILL"):
        assert told.startswith("BAND")
        widths.append(s.events[0]["amount"])
        assert len(widths) < 9
    assert widths == [9, 18]
    assert s.book.extensions == 0


def test_a_call_leaves_pending_stops_alone_until_it_is_over() -> None:
    s = Story()
    traded(s, 100)
    s.buy(1, "1@120", order_type=OrderType.STOP_LIMIT, px2=105)
    s.phase(VOLATILITY)
    s.buy(2, "1@110")
    s.sell(2, "1@110")
    told = s.phase(Phase.CLOSING_CALL)
    assert told.endswith("CROSSED 1 at 110; PHASE CLOSING_CALL")
    told = s.phase(CONTINUOUS)
    assert told == (
        "CROSSED at 0; PHASE CONTINUOUS; TRIGGERED #3 at 105 limit 120; BOOKED #3 1@120"
    )


def test_what_a_wave_did_not_run_stays_pending_when_a_call_starts() -> None:
    s = Story()
    s.rule(DYNAMIC, 500)
    traded(s, 100)
    s.buy(1, "1", order_type=OrderType.STOP, px2=101)
    s.buy(1, "1", order_type=OrderType.STOP, px2=101)
    s.sell(2, "1@101")
    s.sell(2, "1@110")
    told = s.buy(3, "1@101")
    assert told.endswith("TRIGGERED #3 at 101 limit 0; EXPIRED #3 1 BAND; PHASE VOLATILITY_CALL")
    assert len(s.book.pending) == 1


# -------------------------------------------------------------------------------------- indicative
def test_indicative_is_told_on_change_and_once_a_second() -> None:
    s = in_call()
    s.now = 5
    s.buy(1, "2@100")
    assert s.until(6) == ""
    s.sell(2, "3@100")
    assert s.until(7) == "INDICATIVE 2 at 100"
    event = s.events[0]
    assert (event["amount"], event["side"]) == (1, 1)
    s.sell(2, "1@99")
    assert s.until(6 + SECOND) == ""
    assert s.until(7 + SECOND) == "INDICATIVE 2 at 100"
    s.buy(1, "1@100")
    s.cancel(4)
    assert s.until(8 + 2 * SECOND) == ""


def test_phase_command_is_refused_where_it_means_nothing() -> None:
    s = Story()
    assert s.phase(CONTINUOUS) == "REJECTED NOT_IN_PHASE"
    assert s.rule(InstrumentRule.STATIC_BAND, 10_001) == "REJECTED OUT_OF_RANGE"
