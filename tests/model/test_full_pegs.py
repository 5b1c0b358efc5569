"""Stories about pegged orders (RULES §2, §13)."""

from __future__ import annotations

from engine.records import CommandFlag, OrderType, Phase
from tests.model.full_kit import Story

PRIMARY, MARKET = OrderType.PEG_PRIMARY, OrderType.PEG_MARKET
MID = OrderType.PEG_MID
HIDDEN = CommandFlag.HIDDEN


def test_peg_needs_a_cap_and_waits_for_a_reference() -> None:
    s = Story()
    assert s.buy(1, "5", order_type=PRIMARY) == "REJECTED CAP_REQUIRED"
    assert s.buy(1, "5@100", order_type=PRIMARY) == "ACCEPTED #1 5@100; PARKED #1"
    told = s.buy(2, "1@90")
    assert told == "ACCEPTED #2 1@90; BOOKED #2 1@90; REPRICED #1 5@90"
    told = s.buy(2, "1@91")
    assert told == "ACCEPTED #3 1@91; BOOKED #3 1@91; REPRICED #1 5@91"
    assert s.events[-1]["old_ref"] == 2
    assert s.cancel(3) == "CANCELED #3 1 CLIENT; REPRICED #1 5@90"
    assert s.cancel(2) == "CANCELED #2 1 CLIENT; PARKED #1"
    assert s.events[-1]["feed_seq"] > 0


def test_cap_and_clamp() -> None:
    s = Story()
    s.buy(2, "1@90")
    s.buy(1, "5@88", order_type=PRIMARY)
    assert s.bids == "#1:1@90 #2:5@88"
    s.sell(3, "1@95", flags=HIDDEN)
    s.sell(3, "1@97")
    s.buy(1, "5@99", order_type=MARKET)
    assert s.bids.startswith("#5:5@94")  # one tick from the hidden best
    s.sell(1, "5@80", order_type=MARKET)
    assert s.asks.startswith("#6:5@95 ") or "#6:5@95" in s.asks


def test_pegs_are_no_references_and_same_price_keeps_priority() -> None:
    s = Story()
    s.buy(2, "1@90")
    s.buy(1, "5@100", order_type=PRIMARY)
    s.buy(2, "2@90")
    assert s.bids == "#1:1@90 #2:5@90 #3:2@90"
    s.cancel(1)
    assert s.bids == "#2:5@90 #3:2@90"
    s.cancel(3)
    assert s.bids == ""


def test_all_move_together_in_entry_order() -> None:
    s = Story()
    s.buy(2, "1@90")
    s.buy(1, "1@100", order_type=PRIMARY)
    s.buy(3, "1@100", order_type=PRIMARY)
    told = s.buy(2, "1@91")
    assert told.endswith("BOOKED #4 1@91; REPRICED #2 1@91; REPRICED #3 1@91")


def test_mid_is_hidden_rounds_away_and_mids_that_meet_trade() -> None:
    s = Story()
    s.buy(2, "1@90")
    s.sell(2, "1@95")
    assert s.buy(1, "5@100", order_type=MID) == "ACCEPTED #3 5@100; BOOKED #3 0/5@92"
    assert s.sell(3, "3@80", order_type=MID).endswith("BOOKED #4 0/3@93")
    told = s.sell(2, "1@94")
    assert told == "ACCEPTED #5 1@94; BOOKED #5 1@94; FILL #3 3@92"


def test_pegs_park_in_a_call_and_come_back() -> None:
    s = Story()
    s.buy(2, "1@90")
    s.buy(1, "5@100", order_type=PRIMARY)
    assert s.phase(Phase.VOLATILITY_CALL) == "PHASE VOLATILITY_CALL; PARKED #2"
    assert s.buy(1, "5@100", order_type=PRIMARY) == "REJECTED NOT_IN_PHASE"
    told = s.phase(Phase.CONTINUOUS)
    assert told == "CROSSED at 0; PHASE CONTINUOUS; REPRICED #2 5@90"


def test_replace_of_a_peg_changes_its_cap() -> None:
    s = Story()
    s.buy(2, "1@90")
    s.buy(1, "5@100", order_type=PRIMARY)
    assert s.replace(2, px=85) == "REPLACED #2 5@85; BOOKED #2 5@85"
    assert s.replace(2, qty=3) == "REPLACED #2 3@85 kept"
    assert s.replace(2, px=101) == "REPLACED #2 3@101; BOOKED #2 3@90"


def test_so_many_pegs_and_no_more() -> None:
    s = Story()
    s.book.max_pegs = 1
    s.buy(1, "5@100", order_type=PRIMARY)
    assert s.buy(1, "5@100", order_type=PRIMARY) == "REJECTED TOO_MANY"
