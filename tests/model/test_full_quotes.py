"""Stories about quotes, market-maker protection and budget orders (RULES §1, §2, §13)."""

from __future__ import annotations

from engine.records import CommandKind, OrderType, Phase, SelfTrade, TimeInForce
from tests.model.full_kit import Story

BUDGET, FOK = OrderType.BUDGET, TimeInForce.FOK


# ------------------------------------------------------------------------------------------ quotes
def test_quote_enters_changes_and_leaves() -> None:
    s = Story()
    assert s.quote(1, "5@99", "5@101") == (
        "ACCEPTED #1 5@99; ACCEPTED #2 5@101; BOOKED #1 5@99; BOOKED #2 5@101"
    )
    assert (
        s.quote(1, "3@99", "6@101") == "REPLACED #1 3@99 kept; REPLACED #2 6@101; BOOKED #2 6@101"
    )
    assert s.quote(1, "", "6@102") == "CANCELED #1 3 CLIENT; REPLACED #2 6@102; BOOKED #2 6@102"
    assert s.quote(1, "", "") == "CANCELED #2 6 CLIENT"
    assert s.quote(1, "", "") == "REJECTED UNKNOWN_ORDER"


def test_quantity_of_a_quote_is_the_open_quantity_wanted() -> None:
    s = Story()
    s.quote(1, "5@99", "5@101")
    s.buy(2, "3@101")
    assert s.quote(1, "5@99", "5@101").startswith("REPLACED #1 5@99 kept; REPLACED #2 8@101")
    assert s.asks == "#2:5@101"


def test_one_rejected_side_rejects_both() -> None:
    s = Story()
    s.quote(1, "5@99", "5@101")
    assert s.quote(1, "5@100", "5@100") == "REJECTED QUOTE_CROSSED"
    assert s.quote(1, "5@100", "5@1001") == "REJECTED OUT_OF_RANGE"
    assert (s.bids, s.asks) == ("#1:5@99", "#2:5@101")
    s.phase(Phase.CLOSING_CALL)
    assert s.quote(1, "5@98", "5@101") == "REJECTED NOT_IN_PHASE"


def test_moving_a_quote_never_meets_its_own_other_side() -> None:
    s = Story(stp="expire_both")
    s.quote(1, "5@99", "5@101")
    s.sell(2, "1@105")
    told = s.quote(1, "5@103", "5@104")
    assert "PREVENTED" not in told
    s.sell(1, "2@120")
    told = s.quote(1, "5@121", "5@122")  # its own other order: the maker expires
    assert "PREVENTED #4; PREVENTED #1; EXPIRED #4 2 SELF_TRADE; BOOKED #1" in told


def test_protection_pulls_both_sides_behind_the_aggressor_until_armed_again() -> None:
    s = Story()
    limits = {"symbol_id": 1, "account": 1, "qty": 3, "amount": 10}
    s.apply(CommandKind.SET_LIMITS, **limits)
    s.quote(1, "5@99", "5@101")
    assert "MMP" not in s.buy(2, "3@101")
    told = s.sell(2, "1@99")
    assert (
        told == "ACCEPTED #4 1@99; FILL #1 1@99; MMP_FIRED 4; CANCELED #1 4 MMP; CANCELED #2 2 MMP"
    )
    assert s.quote(1, "5@99", "5@101") == "REJECTED MMP_ACTIVE"
    s.apply(CommandKind.SET_LIMITS, **limits)
    assert s.quote(1, "5@99", "5@101").startswith("ACCEPTED")
    s.buy(2, "3@101")
    s.now = 10
    assert "MMP" not in s.sell(2, "1@99")  # what was filled ten ago is out of the window


# ------------------------------------------------------------------------------------------ budgets
def test_budget_buys_whole_lots_for_what_it_has() -> None:
    s = Story()
    unit = s.book.unit
    s.sell(1, "2@100")
    s.sell(1, "5@110")
    told = s.buy(2, "0", order_type=BUDGET, amount=(200 + 2 * 110 + 109) * unit)
    assert told == "ACCEPTED #3 4@0; FILL #1 2@100; FILL #2 2@110"
    assert s.buy(2, "0", order_type=BUDGET, amount=109 * unit) == "REJECTED BUDGET"
    assert s.sell(2, "0", order_type=BUDGET, amount=1) == "REJECTED NO_LIQUIDITY"
    assert s.buy(2, "1", order_type=BUDGET, amount=1) == "REJECTED BAD_COMBINATION"
    mode = SelfTrade.DECREMENT
    told = s.buy(2, "0", order_type=BUDGET, amount=1, stp=mode)
    assert told == "REJECTED NOT_SUPPORTED_HERE"


def test_fok_budget_takes_all_of_it_for_at_most_its_budget() -> None:
    s = Story()
    unit = s.book.unit
    s.sell(1, "2@100")
    s.buy(1, "2@90")
    fok = {"order_type": BUDGET, "tif": FOK}
    assert s.buy(2, "2", amount=200 * unit - 1, **fok) == "REJECTED BUDGET"
    assert s.buy(2, "3", amount=999 * unit, **fok) == "REJECTED FOK_UNFILLED"
    assert s.buy(2, "2", amount=200 * unit, **fok).endswith("FILL #1 2@100")
    assert s.sell(2, "2", amount=180 * unit + 1, **fok) == "REJECTED BUDGET"
    assert s.sell(2, "2", amount=180 * unit, **fok).endswith("FILL #2 2@90")
