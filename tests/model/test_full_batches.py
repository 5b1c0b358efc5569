"""Stories about the two batch modes (RULES §4, §13 Calls)."""

from __future__ import annotations

import pytest

from engine.records import Algorithm, CommandFlag, InstrumentRule, OrderType, TimeInForce
from tests.model.full_kit import Story

IOC, FOK = TimeInForce.IOC, TimeInForce.FOK
MS = 10**6


def batch(algorithm: Algorithm, **rules: int) -> Story:
    s = Story()
    s.checker.crossed_allowed = True
    for rule, value in rules.items():
        s.rule(InstrumentRule[rule.upper()], value)
    s.rule(InstrumentRule.ALGORITHM, algorithm)
    return s


def test_batch_auction_crosses_at_multiples_of_its_time_while_something_waits() -> None:
    s = batch(Algorithm.BATCH_AUCTION, batch_ms=10)
    s.now = 3 * MS
    assert s.buy(1, "5@101") == "ACCEPTED #1 5@101; BOOKED #1 5@101"
    assert s.until(25 * MS) == ""
    assert s.sell(2, "2@100", tif=IOC).endswith("BOOKED #2 2@100")
    assert s.sell(2, "9@101", tif=IOC).endswith("BOOKED #3 9@101")
    told = s.until(30 * MS)
    assert told == (
        "FILL #1 2@101; FILL #2 2@101; FILL #1 3@101; FILL #3 3@101; CROSSED 5 at 101;"
        " EXPIRED #3 6 AUCTION_END"
    )


@pytest.mark.parametrize(
    ("what", "fields", "code"),
    [
        ("1@100", {"tif": FOK}, "NOT_SUPPORTED_HERE"),
        ("1@100", {"min_qty": 1}, "NOT_SUPPORTED_HERE"),
        ("1@100", {"flags": CommandFlag.POST_ONLY}, "NOT_SUPPORTED_HERE"),
        ("1", {"order_type": OrderType.MARKET_TO_LIMIT}, "NOT_SUPPORTED_HERE"),
        ("1", {}, "NO_BAND"),
    ],
)
def test_not_in_a_batch_mode(what: str, fields: dict, code: str) -> None:
    assert batch(Algorithm.BATCH_AUCTION).buy(1, what, **fields) == f"REJECTED {code}"


def test_balanced_batch_crosses_when_both_sides_have_enough() -> None:
    s = batch(Algorithm.BALANCED_BATCH)
    s.buy(1, "10@100")
    s.sell(2, "2@100")
    s.buy(1, "4@100")
    told = s.sell(2, "5@100")
    # 7 against 14; at the marginal price the smallest first: one order is filled in part.
    assert told == (
        "ACCEPTED #4 5@100; BOOKED #4 5@100; FILL #3 2@100; FILL #2 2@100; FILL #3 2@100;"
        " FILL #4 2@100; FILL #1 3@100; FILL #4 3@100; CROSSED 7 at 100"
    )


def test_balanced_batch_crosses_when_it_waited_long_enough() -> None:
    s = batch(Algorithm.BALANCED_BATCH, max_wait_ms=5)
    s.buy(1, "10@100")
    s.now = 2 * MS
    s.sell(2, "1@100")
    assert "CROSSED" not in s.until(7 * MS - 1)
    assert "CROSSED 1 at 100" in s.until(7 * MS)


def test_a_switch_out_of_a_batch_mode_uncrosses_first() -> None:
    s = batch(Algorithm.BALANCED_BATCH)
    s.buy(1, "1@101")
    s.sell(2, "1@100")
    told = s.rule(InstrumentRule.ALGORITHM, Algorithm.FIFO)
    assert told.startswith("LISTED; FILL #1 1@100; FILL #2 1@100; CROSSED 1 at 100; PHASE")


def test_stops_elect_on_the_cross_price_after_the_cross() -> None:
    s = batch(Algorithm.BATCH_AUCTION, batch_ms=1)
    s.sell(3, "1@99", order_type=OrderType.STOP_LIMIT, px2=100)
    s.buy(1, "1@100")
    s.sell(2, "1@100")
    assert s.until(MS).endswith("CROSSED 1 at 100; TRIGGERED #1 at 100 limit 99; BOOKED #1 1@99")
