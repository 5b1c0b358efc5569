"""Stories about how a level is shared out (RULES §4, §13 Levels)."""

from __future__ import annotations

import pytest

from engine.records import Algorithm, CommandFlag, InstrumentRule, SelfTrade, TimeInForce
from tests.model.full_kit import Story

A, RULE = Algorithm, InstrumentRule
HIDDEN = CommandFlag.HIDDEN


def sharing(algorithm: Algorithm, **terms: str) -> Story:
    s = Story(**terms)
    s.rule(RULE.ALGORITHM, algorithm)
    return s


def fills(told: str) -> dict[str, int]:
    """Quantity per maker, in the order of the fills."""
    words = [word.split() for word in told.split("; ") if word.startswith("FILL")]
    return {name: int(what.split("@")[0]) for _, name, what in words}


def level(s: Story, *sizes: int) -> None:
    for size in sizes:
        s.sell(1, f"{size}@100")


def test_worked_example_pro_rata_with_top() -> None:
    s = sharing(A.PRO_RATA)
    assert s.sell(1, "10@100").endswith("BOOKED #1 10@100 top")
    level(s, 5, 20, 50, 75)
    told = s.buy(2, "60@100")
    assert fills(told) == {"#1": 10, "#2": 3, "#3": 6, "#4": 16, "#5": 25}


@pytest.mark.parametrize(
    ("algorithm", "got"),
    [
        (
            A.FIFO_PRO_RATA,
            {"#2": 17, "#3": 7, "#4": 6},
        ),
        (A.SIZE_PRIORITY, {"#3": 30}),
        # 13.9, 12.8, 3.3; residue 2.
        (A.TIME_PRO_RATA, {"#2": 15, "#3": 12, "#4": 3}),
    ],
)
def test_bases(algorithm: Algorithm, got: dict[str, int]) -> None:
    s = sharing(algorithm)
    s.sell(1, "1@100")
    level(s, 20, 30, 25)
    s.cancel(1)
    assert fills(s.buy(2, "30@100")) == got


def test_lead_market_maker_gets_its_share_after_top_and_not_as_top() -> None:
    s = sharing(A.FIFO)
    s.rule(RULE.LMM, 3 << 32 | 40)
    s.sell(3, "10@100")
    s.sell(1, "20@100")
    s.sell(3, "20@100")
    # 10 top; 40 % of 20 to the market maker, its top order excluded; the rest by time.
    assert fills(s.buy(2, "30@100")) == {"#1": 10, "#2": 12, "#3": 8}
    assert s.rule(RULE.LMM, 4 << 32 | 11) == "REJECTED OUT_OF_RANGE"


@pytest.mark.parametrize("loses", ["bettered", "refreshed", "replaced"])
def test_top_is_lost_for_good(loses: str) -> None:
    s = sharing(A.PRO_RATA)
    s.sell(1, "10@100", peak=5)
    level(s, 20)
    if loses == "bettered":
        s.sell(3, "1@99")
        s.cancel(3)
    elif loses == "refreshed":
        s.buy(2, "5@100")
    else:
        s.replace(1, qty=11)
    assert s.book.top == [None, None]


def test_decrease_keeps_top_and_hidden_is_never_top() -> None:
    s = sharing(A.PRO_RATA)
    s.sell(1, "3@99", flags=HIDDEN)
    assert s.sell(1, "10@100").endswith("top")
    s.replace(2, qty=8)
    assert s.book.top[1] is not None


def test_rounds_over_displayed_then_hidden_then_own() -> None:
    s = sharing(A.PRO_RATA, stp="expire_maker")
    s.sell(4, "1@100")
    s.sell(1, "20@100", peak=10)
    s.sell(2, "5@100")
    s.sell(3, "10@100")
    s.sell(1, "4@100", flags=HIDDEN)
    s.cancel(1)
    told = s.buy(2, "33@100")
    assert told == (
        "ACCEPTED #6 33@100; FILL #2 10@100; FILL #4 10@100; REFRESHED #2 10; FILL #2 10@100;"
        " FILL #5 3@100"
    )
    assert s.asks == "#3:5@100 [#5:1@100]"
    told = s.buy(2, "3@100")
    assert told == (
        "ACCEPTED #7 3@100; FILL #5 1@100; PREVENTED #3; PREVENTED #7; EXPIRED #3 5 SELF_TRADE;"
        " BOOKED #7 2@100 top"
    )


def test_whole_level_of_others_is_taken_in_one_go() -> None:
    s = sharing(A.PRO_RATA, stp="expire_taker")
    s.sell(1, "20@100", peak=10)
    s.sell(2, "5@100")
    s.sell(1, "4@100", flags=HIDDEN)
    told = s.buy(2, "24@100")
    assert told == "ACCEPTED #4 24@100; FILL #1 20@100; FILL #3 4@100"
    told = s.buy(2, "1@100")
    assert told.endswith("PREVENTED #2; PREVENTED #5; EXPIRED #5 1 SELF_TRADE")


def test_fok_passes_over_own_orders_that_come_last() -> None:
    s = sharing(A.PRO_RATA)
    s.sell(2, "5@100")
    s.sell(1, "5@100")
    mode = SelfTrade.EXPIRE_BOTH
    assert s.buy(2, "5@100", tif=TimeInForce.FOK, stp=mode).endswith("FILL #2 5@100")


def test_level_has_a_most_of_orders() -> None:
    s = sharing(A.PRO_RATA)
    s.rule(RULE.MAX_LEVEL_ORDERS, 2)
    level(s, 1, 1)
    assert s.sell(1, "1@100") == "REJECTED TOO_MANY"
    s.sell(1, "1@101")
    assert s.replace(3, px=100) == "REJECTED TOO_MANY"
    assert s.replace(1, qty=2).startswith("REPLACED")
    s.rule(RULE.ALGORITHM, A.FIFO)
    assert s.sell(1, "1@100").startswith("ACCEPTED")
