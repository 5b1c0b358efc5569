"""Stories about the core of the full rules: what rests, what trades, what is refused (RULES §2-§5).

The corners a second implementation gets wrong first; the random comparison is elsewhere.
"""

from __future__ import annotations

import pytest

from engine.config import ShardLimits
from engine.records import CommandFlag, CommandKind, EventKind, OrderType, SelfTrade, TimeInForce
from tests.model.full.order import DAY_NS
from tests.model.full_kit import Story

IOC, FOK, DAY, GTD = TimeInForce.IOC, TimeInForce.FOK, TimeInForce.DAY, TimeInForce.GTD
POST_ONLY, HIDDEN = CommandFlag.POST_ONLY, CommandFlag.HIDDEN
SLIDE, PROTECTED = CommandFlag.POST_ONLY | CommandFlag.SLIDE, CommandFlag.PROTECTED
MTL = OrderType.MARKET_TO_LIMIT


# -------------------------------------------------------------------------------- icebergs, hidden
def test_slices_of_an_iceberg_go_to_the_back_within_one_aggressor() -> None:
    s = Story()
    s.sell(1, "10@100", peak=3)
    s.sell(2, "4@100")
    told = s.buy(3, "11@100")
    assert told == (
        "ACCEPTED #3 11@100; FILL #1 3@100; REFRESHED #1 3; FILL #2 4@100; FILL #1 3@100;"
        " REFRESHED #1 3; FILL #1 1@100"
    )
    assert s.asks == "#1:2/3@100"


def test_whole_level_fills_each_order_once_displayed_and_reserve_before_hidden() -> None:
    s = Story()
    s.sell(1, "5@100", flags=HIDDEN)
    s.sell(2, "10@100", peak=3)
    s.sell(3, "4@100")
    told = s.buy(4, "19@101")
    assert told == "ACCEPTED #4 19@101; FILL #2 10@100; FILL #3 4@100; FILL #1 5@100"
    unseen = [e["shown_before"] for e in s.events if e["account"] == 4 and e["trade_id"]]
    assert unseen == [7, 0, 5]


def test_hidden_waits_for_all_reserve() -> None:
    s = Story()
    s.sell(1, "5@100", flags=HIDDEN)
    s.sell(2, "6@100", peak=2)
    told = s.buy(3, "8@100")
    assert told.count("FILL #2 2@100") == 3
    assert told.endswith("FILL #2 2@100; FILL #1 2@100")


def test_exhausted_slice_shows_again_even_when_the_aggressor_is_done() -> None:
    s = Story()
    s.sell(1, "5@100", peak=3)
    assert s.buy(2, "3@100") == "ACCEPTED #2 3@100; FILL #1 3@100; REFRESHED #1 2"
    assert s.asks == "#1:2/2@100"


def test_iceberg_has_no_more_slices_than_allowed() -> None:
    s = Story(iceberg_parts=3)
    assert s.sell(1, "10@100", peak=3) == "REJECTED ICEBERG_PARTS"
    assert s.sell(1, "9@100", peak=3).startswith("ACCEPTED")
    assert s.replace(1, qty=10) == "REJECTED ICEBERG_PARTS"
    assert s.replace(1, peak=2) == "REJECTED ICEBERG_PARTS"


def test_public_sees_displayed_part_only() -> None:
    s = Story()
    s.sell(1, "5@100", flags=HIDDEN)
    assert [e["feed_seq"] > 0 for e in s.events] == [False, False]
    s.buy(2, "2@100")
    accepted, maker, taker = s.events
    assert [e["feed_seq"] > 0 for e in (accepted, maker, taker)] == [False, False, True]
    assert (maker["public_ref"], taker["shown_before"]) == (0, 2)


# ------------------------------------------------------------------------- market, market-to-limit
def test_protected_market_goes_so_far_from_the_best_and_no_further() -> None:
    s = Story(protection=2)
    for px in (100, 102, 103):
        s.sell(1, f"1@{px}")
    told = s.buy(2, "5", flags=PROTECTED)
    assert told == (
        "ACCEPTED #4 5@102; FILL #1 1@100; FILL #2 1@102; EXPIRED #4 3 MARKET_REMAINDER"
    )
    assert Story().sell(1, "1", flags=PROTECTED) == "REJECTED NOT_SUPPORTED_HERE"


def test_market_to_limit_rests_at_the_best_it_saw() -> None:
    s = Story()
    assert s.buy(1, "1", order_type=MTL) == "REJECTED NO_LIQUIDITY"
    s.sell(1, "1@100", flags=HIDDEN)
    s.sell(1, "1@101")
    told = s.buy(2, "3", order_type=MTL)
    assert told == "ACCEPTED #3 3@100; FILL #1 1@100; BOOKED #3 2@100"


# -------------------------------------------------------------------------------- minimum and FOK
def test_minimum_unmet_is_accepted_and_expires_whole() -> None:
    s = Story()
    s.sell(1, "4@100")
    assert s.buy(2, "9@100", min_qty=5) == "ACCEPTED #2 9@100; EXPIRED #2 9 MINIMUM"
    assert s.buy(2, "9@100", min_qty=4) == "ACCEPTED #3 9@100; FILL #1 4@100; BOOKED #3 5@100"
    assert s.sell(1, "6", min_qty=6) == "ACCEPTED #4 6@0; EXPIRED #4 6 MINIMUM"
    assert s.sell(1, "9", min_qty=5).endswith("EXPIRED #5 4 MARKET_REMAINDER")


def test_fok_counts_reserve_and_hidden() -> None:
    s = Story()
    s.sell(1, "9@100", peak=1)
    s.sell(2, "3@101", flags=HIDDEN)
    assert s.buy(3, "13@101", tif=FOK) == "REJECTED FOK_UNFILLED"
    assert s.buy(3, "12@101", tif=FOK).count("FILL") == 2


def test_failed_fok_leaves_no_trace() -> None:
    s = Story()
    s.sell(1, "9@100", peak=4)
    s.buy(2, "5@100")
    before = s.model.state_digest()
    assert s.buy(3, "5@100", tif=FOK) == "REJECTED FOK_UNFILLED"
    assert s.model.state_digest() == before
    assert s.asks == "#1:3/4@100"


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (SelfTrade.NONE, "ACCEPTED #4 4@100; FILL #1 2@100; FILL #2 2@100"),
        (SelfTrade.EXPIRE_TAKER, "REJECTED FOK_UNFILLED"),
        (SelfTrade.EXPIRE_BOTH, "REJECTED FOK_UNFILLED"),
        (SelfTrade.DECREMENT, "REJECTED FOK_UNFILLED"),
        (
            SelfTrade.EXPIRE_MAKER,
            "ACCEPTED #4 4@100; FILL #1 2@100; PREVENTED #2; PREVENTED #4;"
            " EXPIRED #2 2 SELF_TRADE; FILL #3 2@100",
        ),
    ],
)
def test_fok_counts_what_its_mode_lets_it_trade(mode: SelfTrade, told: str) -> None:
    s = Story()
    s.sell(1, "2@100")
    s.sell(2, "2@100")
    s.sell(1, "2@100")
    assert s.buy(2, "4@100", tif=FOK, stp=mode) == told


def test_own_order_ends_the_count_before_reserve_behind_it() -> None:
    s = Story(stp="expire_taker")
    s.sell(1, "9@100", peak=2)
    s.sell(2, "1@100")
    assert s.buy(2, "3@100", tif=FOK) == "REJECTED FOK_UNFILLED"
    # All of the level wanted: the iceberg is met whole, before the own order.
    told = s.buy(2, "10@100", min_qty=9)
    assert told.startswith("ACCEPTED #3 10@100; FILL #1 9@100; PREVENTED #2")
    s.cancel(2)
    s.sell(1, "9@101", peak=2)
    s.sell(2, "1@101")
    assert s.buy(2, "2@101", tif=FOK).startswith("ACCEPTED")


def test_dry_run_looks_at_whole_levels_within_max_walk() -> None:
    s = Story(ShardLimits(max_walk=3))
    s.sell(1, "1@100")
    s.sell(1, "1@100")
    s.sell(1, "1@101")
    s.sell(1, "1@102")
    assert s.buy(2, "4@102", tif=FOK) == "REJECTED WALK_TOO_LONG"
    assert s.buy(2, "4@101", tif=FOK) == "REJECTED FOK_UNFILLED"
    assert s.buy(2, "5@102", min_qty=4) == "REJECTED WALK_TOO_LONG"
    assert s.buy(2, "3@102", tif=FOK).startswith("ACCEPTED")


# ------------------------------------------------------------------------------------- post-only
def test_post_only_is_judged_with_hidden_and_own_orders() -> None:
    s = Story(stp="expire_maker")
    s.sell(1, "1@100", flags=HIDDEN)
    assert s.buy(1, "1@100", flags=POST_ONLY) == "REJECTED WOULD_TRADE"
    assert s.buy(2, "1@103", flags=SLIDE) == "ACCEPTED #2 1@99; BOOKED #2 1@99"
    s.cancel(1)
    assert s.bids == "#2:1@99"  # never slid again


def test_slide_below_the_first_tick_is_refused() -> None:
    s = Story()
    s.sell(1, "1@1")
    assert s.buy(2, "1@1", flags=SLIDE) == "REJECTED WOULD_TRADE"
    s = Story()
    s.buy(1, "1@1000")
    assert s.sell(2, "1@1000", flags=SLIDE) == "REJECTED WOULD_TRADE"


# --------------------------------------------------------------------------- self-trade prevention
def test_fills_before_the_prevention_stand() -> None:
    s = Story(stp="expire_taker")
    s.sell(1, "2@100")
    s.sell(2, "2@100")
    told = s.buy(2, "5@100")
    assert told == (
        "ACCEPTED #3 5@100; FILL #1 2@100; PREVENTED #2; PREVENTED #3; EXPIRED #3 3 SELF_TRADE"
    )
    assert s.asks == "#2:2@100"


def test_expire_both() -> None:
    s = Story(stp="expire_both")
    s.sell(1, "2@100")
    told = s.buy(1, "5@100")
    assert told == (
        "ACCEPTED #2 5@100; PREVENTED #1; PREVENTED #2; EXPIRED #1 2 SELF_TRADE;"
        " EXPIRED #2 5 SELF_TRADE"
    )


def test_decrement_takes_the_reserve_first() -> None:
    s = Story(stp="decrement")
    s.sell(1, "10@100", peak=4)
    told = s.buy(1, "7@100")
    assert told == "ACCEPTED #2 7@100; PREVENTED #1 7; PREVENTED #2 7; EXPIRED #2 0 SELF_TRADE"
    assert s.asks == "#1:3/3@100"
    maker = s.events[1]
    assert (maker["shown_before"], maker["shown"], maker["feed_seq"] > 0) == (4, 3, True)
    told = s.buy(1, "5@100", stp=SelfTrade.TRANSFER)  # one account: nowhere to transfer to
    assert told == (
        "ACCEPTED #3 5@100; PREVENTED #1 3; PREVENTED #3 3; EXPIRED #1 0 SELF_TRADE;"
        " BOOKED #3 2@100"
    )
    assert s.events[1]["stp"] == SelfTrade.DECREMENT
    assert s.events[3]["feed_seq"] > 0


def test_order_mode_governs_over_the_instrument_and_the_maker() -> None:
    s = Story(stp="expire_taker")
    s.sell(1, "2@100", stp=SelfTrade.EXPIRE_BOTH)
    assert s.buy(1, "1@100", stp=SelfTrade.NONE) == "ACCEPTED #2 1@100; FILL #1 1@100"


# ----------------------------------------------------------------------------------------- replace
def test_replace_keeps_priority_for_less_for_peak_and_for_expiry() -> None:
    s = Story()
    s.sell(1, "10@100", peak=4)
    s.sell(2, "5@100")
    assert s.replace(1, qty=6).endswith("kept")
    assert s.asks == "#1:4/6@100 #2:5@100"
    assert s.replace(1, qty=3).endswith("kept")
    assert (s.events[0]["shown_before"], s.events[0]["shown"]) == (4, 3)
    assert s.replace(1, peak=1).endswith("kept")
    assert s.asks == "#1:1/3@100 #2:5@100"
    assert s.replace(1, peak=2).endswith("kept")
    assert s.asks == "#1:1/3@100 #2:5@100"  # a larger peak shows at the next refresh
    assert s.replace(2, tif=DAY).endswith("kept")
    assert s.replace(2, peak=2).endswith("kept")
    assert s.asks == "#1:1/3@100 #2:2/5@100"


def test_replace_loses_priority_for_more_price_and_minimum() -> None:
    s = Story()
    s.sell(1, "5@100")
    s.sell(2, "5@100")
    assert s.replace(1, qty=6) == "REPLACED #1 6@100; BOOKED #1 6@100"
    assert s.asks == "#2:5@100 #1:6@100"
    assert s.replace(2, min_qty=2) == "REPLACED #2 5@100; EXPIRED #2 5 MINIMUM"
    assert s.events[1]["feed_seq"] > 0  # the slice goes with the end of it
    s.buy(3, "2@99")
    assert s.replace(1, px=99, min_qty=2) == ("REPLACED #1 6@99; FILL #3 2@99; BOOKED #1 4@99")


def test_replace_counts_what_was_filled_and_prevented() -> None:
    s = Story(stp="decrement")
    s.sell(1, "10@100")
    s.buy(2, "2@100")
    s.buy(1, "3@100")
    assert s.replace(1, qty=9).startswith("REPLACED #1 9@100 kept")
    assert s.asks == "#1:4@100"
    assert s.replace(1, qty=5) == "CANCELED #1 4 REPLACED_BELOW_FILLED"


def test_replace_refused_leaves_the_order_untouched() -> None:
    s = Story()
    s.sell(1, "5@100", flags=POST_ONLY)
    s.buy(2, "5@98")
    before = s.model.state_digest()
    for fields, code in (
        ({"px": 98}, "WOULD_TRADE"),
        ({"px": 1001}, "OUT_OF_RANGE"),
        ({"peak": 6}, "OUT_OF_RANGE"),
        ({"px2": 1}, "BAD_COMBINATION"),
        ({"expire_ts": 9}, "BAD_COMBINATION"),
        ({"tif": GTD}, "BAD_COMBINATION"),
        ({"tif": IOC}, "IMMUTABLE"),
        ({"side": 0}, "IMMUTABLE"),
        ({"stp": 1}, "NOT_SUPPORTED_HERE"),
        ({"flags": HIDDEN}, "NOT_SUPPORTED_HERE"),
    ):
        assert s.replace(1, **fields) == f"REJECTED {code}", fields
    assert s.model.state_digest() == before


def test_replace_slides_anew() -> None:
    s = Story()
    s.sell(1, "1@100")
    s.buy(2, "1@105", flags=SLIDE)
    s.cancel(1)
    s.sell(1, "1@104")
    assert s.replace(2, px=105) == "REPLACED #2 1@103; BOOKED #2 1@103"


# -------------------------------------------------------------------------------------------- time
def test_day_and_gtd_orders_expire_before_the_command_of_that_moment() -> None:
    s = Story()
    s.sell(1, "1@100", tif=DAY)
    s.sell(1, "1@101", tif=GTD, expire_ts=50)
    s.now = 49
    assert s.buy(2, "1@101", tif=IOC).endswith("FILL #1 1@100")
    s.sell(1, "1@100", tif=DAY)
    s.now = 50
    told = s.buy(2, "2@101", tif=IOC)
    assert told == "EXPIRED #2 1 GTD; ACCEPTED #5 2@101; FILL #4 1@100; EXPIRED #5 1 IOC_REMAINDER"
    s.sell(1, "1@100", tif=DAY)
    s.sell(1, "1@100", tif=GTD, expire_ts=DAY_NS)
    assert s.until(DAY_NS - 1) == ""
    assert s.until(DAY_NS) == "EXPIRED #6 1 DAY; EXPIRED #7 1 GTD"
    assert s.sell(1, "1@100", tif=GTD, expire_ts=DAY_NS) == "REJECTED EXPIRY_PAST"


def test_time_names_an_order_and_expires_that_one_if_it_is_due() -> None:
    s = Story()
    s.sell(1, "1@100", tif=GTD, expire_ts=50)
    s.sell(1, "1@101", tif=GTD, expire_ts=40)
    s.now = 45
    assert s.apply(CommandKind.TIME, order_id=1 << 24) == ""
    assert s.apply(CommandKind.TIME, order_id=2 << 24) == "EXPIRED #2 1 GTD"


# ----------------------------------------------------------------------------- refusals, capacity
@pytest.mark.parametrize(
    ("what", "fields", "code"),
    [
        ("1@100", {"peak": 2}, "OUT_OF_RANGE"),
        ("1@100", {"min_qty": 2}, "OUT_OF_RANGE"),
        ("1@1001", {}, "OUT_OF_RANGE"),
        ("5@100", {"peak": 2, "flags": HIDDEN}, "BAD_COMBINATION"),
        ("5@100", {"peak": 2, "tif": IOC}, "BAD_COMBINATION"),
        ("5@100", {"flags": HIDDEN, "tif": FOK}, "BAD_COMBINATION"),
        ("5@100", {"flags": CommandFlag.SLIDE}, "BAD_COMBINATION"),
        ("5@100", {"min_qty": 2, "tif": FOK}, "BAD_COMBINATION"),
        ("5@100", {"flags": PROTECTED}, "BAD_COMBINATION"),
        ("5@100", {"amount": 2}, "BAD_COMBINATION"),
        ("5@100", {"expire_ts": 2}, "BAD_COMBINATION"),
        ("5@100", {"px2": 2}, "BAD_COMBINATION"),
        ("5@100", {"order_type": OrderType.MARKET}, "BAD_COMBINATION"),
        ("5", {"peak": 1}, "BAD_COMBINATION"),
        ("5", {"order_type": MTL, "tif": IOC}, "BAD_COMBINATION"),
        ("5", {"order_type": MTL, "min_qty": 1}, "BAD_COMBINATION"),
        ("5@100", {"flags": CommandFlag.REDUCE_ONLY}, "NOT_SUPPORTED_HERE"),
        ("5@100", {"tif": GTD, "expire_ts": 0}, "EXPIRY_PAST"),
    ],
)
def test_refused(what: str, fields: dict, code: str) -> None:
    s = Story()
    s.now = 5
    assert s.sell(1, what, **fields) == f"REJECTED {code}"


def test_lowest_code_wins() -> None:
    s = Story(ShardLimits(orders_max=2, levels_max=1, max_walk=1), iceberg_parts=2)
    s.sell(1, "1@100")
    s.sell(1, "1@100")
    assert s.buy(2, "3@100", flags=POST_ONLY, peak=1) == "REJECTED ICEBERG_PARTS"
    assert s.buy(2, "1@100", flags=POST_ONLY) == "REJECTED WOULD_TRADE"
    assert s.buy(2, "1@100", tif=FOK) == "REJECTED ORDERS_FULL"
    s.cancel(2)
    assert s.buy(2, "1@99") == "REJECTED LEVELS_FULL"
    s.cancel(1)
    s.sell(1, "1@100")
    assert s.buy(2, "2@100", min_qty=2) == "REJECTED LEVELS_FULL"
    assert s.buy(2, "1@100", tif=IOC, min_qty=1).endswith("FILL #3 1@100")


def test_mass_cancel_takes_hidden_too() -> None:
    s = Story()
    s.sell(1, "5@100", flags=HIDDEN)
    s.sell(1, "5@100", peak=2)
    assert s.mass_cancel(1) == "CANCELED #1 5 MASS; CANCELED #2 5 MASS; SUMMARY 2"
    assert [e["shown_before"] for e in s.events[:2]] == [0, 2]


def test_listeners_of_a_new_feed_session_see_slices_only() -> None:
    s = Story()
    s.sell(1, "5@100", flags=HIDDEN)
    s.sell(1, "5@100", peak=2)
    s.apply(CommandKind.FEED_STATE, order_type=ord("O"), amount=20120621)
    booked = [e for e in s.events if e["kind"] == EventKind.BOOKED]
    assert [(e["qty"], e["leaves"], e["shown"]) for e in booked] == [(2, 2, 2)]
