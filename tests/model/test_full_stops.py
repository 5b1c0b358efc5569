"""Stories about stops, take-profits and trailing stops (RULES §2, §13)."""

from __future__ import annotations

import pytest

from engine.config import ShardLimits
from engine.records import CommandFlag, OrderType, TimeInForce
from tests.model.full_kit import Story

STOP, STOP_LIMIT = OrderType.STOP, OrderType.STOP_LIMIT
TAKE_PROFIT, TAKE_PROFIT_LIMIT = OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT
TRAILING, TRAILING_LIMIT = OrderType.TRAILING_STOP, OrderType.TRAILING_STOP_LIMIT
BEST, BPS, POST_ONLY = CommandFlag.TRIGGER_BEST, CommandFlag.DISTANCE_BPS, CommandFlag.POST_ONLY
IOC, GTD = TimeInForce.IOC, TimeInForce.GTD


def trade_at(s: Story, px: int) -> str:
    """Two strangers trade one lot; what follows the pair."""
    s.sell(4, f"1@{px}")
    return s.buy(5, f"1@{px}").split("; ", 2)[2:] or [""]


def after_trade(s: Story, px: int) -> str:
    return "; ".join(trade_at(s, px))


# ------------------------------------------------------------------------------- entry and trigger
def test_without_a_last_price_a_stop_waits() -> None:
    s = Story()
    assert s.buy(1, "1", order_type=STOP, px2=1) == "ACCEPTED #1 1@0"
    assert after_trade(s, 50) == "TRIGGERED #1 at 1 limit 0; EXPIRED #1 1 MARKET_REMAINDER"


def test_condition_already_true_is_refused() -> None:
    s = Story()
    after_trade(s, 100)
    assert s.buy(1, "1", order_type=STOP, px2=100) == "REJECTED TRIGGER_TRUE"
    assert s.buy(1, "1", order_type=STOP, px2=101) == "ACCEPTED #3 1@0"
    assert s.sell(1, "1", order_type=STOP, px2=100) == "REJECTED TRIGGER_TRUE"
    assert s.buy(1, "1", order_type=TAKE_PROFIT, px2=100) == "REJECTED TRIGGER_TRUE"
    assert s.sell(1, "1", order_type=TAKE_PROFIT, px2=100) == "REJECTED TRIGGER_TRUE"
    assert s.replace(3, px2=99) == "REJECTED TRIGGER_TRUE"
    assert s.replace(3, qty=2).startswith("REPLACED")  # the same trigger is not tested again


def test_stop_runs_at_its_trigger_with_protection() -> None:
    s = Story(protection=2)
    s.buy(1, "3", order_type=STOP, px2=101)
    s.sell(2, "1@102")
    s.sell(2, "1@104")
    s.sell(2, "1@101")
    told = s.buy(3, "1@101")
    assert told == (
        "ACCEPTED #5 1@101; FILL #4 1@101; TRIGGERED #1 at 101 limit 103; FILL #2 1@102;"
        " EXPIRED #1 2 IOC_REMAINDER"
    )


def test_stop_limit_rests() -> None:
    s = Story()
    s.sell(1, "5@98", order_type=STOP_LIMIT, px2=99, peak=2)
    assert after_trade(s, 99) == "TRIGGERED #1 at 99 limit 98; BOOKED #1 2/5@98"
    assert s.replace(1, px2=97) == "REJECTED BAD_COMBINATION"


def test_post_only_stop_limit_is_judged_when_triggered() -> None:
    s = Story()
    s.sell(1, "5@98", order_type=STOP_LIMIT, px2=99, flags=POST_ONLY)
    s.buy(2, "1@98")
    told = after_trade(s, 99)
    assert told == "TRIGGERED #1 at 99 limit 98; EXPIRED #1 5 WOULD_TRADE"


def test_take_profit_looks_the_other_way() -> None:
    s = Story()
    after_trade(s, 100)
    s.buy(1, "1@90", order_type=TAKE_PROFIT_LIMIT, px2=98)
    s.sell(1, "1@110", order_type=TAKE_PROFIT_LIMIT, px2=102)
    assert after_trade(s, 99) == ""
    assert after_trade(s, 98) == "TRIGGERED #3 at 98 limit 90; BOOKED #3 1@90"
    assert after_trade(s, 102) == "TRIGGERED #4 at 102 limit 110; BOOKED #4 1@110"


def test_best_price_triggers_without_trade_and_empty_side_never() -> None:
    s = Story()
    s.buy(1, "1@120", order_type=STOP_LIMIT, px2=105, flags=BEST)
    s.sell(2, "1@104")
    assert s.sell(2, "1@106").startswith("ACCEPTED")
    assert s.cancel(2) == "CANCELED #2 1 CLIENT; TRIGGERED #1 at 105 limit 120; FILL #3 1@106"
    s.sell(1, "1@90", order_type=STOP_LIMIT, px2=95, flags=BEST)
    assert s.buy(2, "1@95", flags=CommandFlag.HIDDEN).endswith("BOOKED #5 0/1@95")
    assert "TRIGGERED" in s.buy(2, "1@94")


# ------------------------------------------------------------------------------------------- waves
def test_buys_ascending_then_sells_descending_ties_by_entry() -> None:
    s = Story()
    after_trade(s, 100)
    s.sell(1, "1", order_type=STOP, px2=98)
    s.sell(1, "1", order_type=STOP, px2=99)
    s.sell(1, "1", order_type=STOP, px2=99)
    s.buy(1, "1", order_type=STOP, px2=102)
    s.buy(1, "1", order_type=STOP, px2=101)
    s.sell(2, "1@97")
    s.sell(2, "1@103")
    told = s.buy(3, "2@103")
    order = [word for word in told.split("; ") if word.startswith("TRIGGERED")]
    names = [word.split()[1] for word in order]
    assert names == ["#7", "#6", "#4", "#5", "#3"]


def test_aggressor_finishes_first_and_waves_follow_each_other() -> None:
    s = Story()
    after_trade(s, 100)
    s.buy(1, "1", order_type=STOP, px2=101)
    s.buy(1, "1", order_type=STOP, px2=102)
    for px in (101, 101, 102, 103):
        s.sell(2, f"1@{px}")
    told = s.buy(3, "2@101")
    assert told == (
        "ACCEPTED #9 2@101; FILL #5 1@101; FILL #6 1@101; TRIGGERED #3 at 101 limit 0;"
        " FILL #7 1@102; TRIGGERED #4 at 102 limit 0; FILL #8 1@103"
    )


def test_replace_that_loses_priority_goes_behind() -> None:
    s = Story()
    after_trade(s, 100)
    s.buy(1, "1", order_type=STOP, px2=101)
    s.buy(1, "1", order_type=STOP, px2=101)
    assert s.replace(3, qty=2) == "REPLACED #3 2@0"
    told = after_trade(s, 101)
    assert told.index("TRIGGERED #4") < told.index("TRIGGERED #3")


# ---------------------------------------------------------------------------------------- trailing
def test_trailing_follows_the_extreme_and_triggers_on_the_newest_trade() -> None:
    s = Story()
    after_trade(s, 100)
    s.sell(1, "1", order_type=TRAILING, qty2=3)
    for px in (98, 104, 102):
        assert after_trade(s, px) == "", px
    assert after_trade(s, 101).startswith("TRIGGERED #3 at 101")


def test_trade_between_does_not_trigger_only_the_newest_counts() -> None:
    s = Story()
    after_trade(s, 100)
    s.sell(1, "1", order_type=TRAILING, qty2=3)
    s.sell(2, "1@96")
    s.sell(2, "1@99")
    assert "TRIGGERED" not in s.buy(3, "2@99")


def test_trailing_buy_needs_a_cap_and_never_exceeds_it() -> None:
    s = Story(protection=5)
    after_trade(s, 100)
    assert s.buy(1, "1", order_type=TRAILING, qty2=2) == "REJECTED CAP_REQUIRED"
    s.buy(1, "1@103", order_type=TRAILING, qty2=2)
    assert after_trade(s, 102).startswith("TRIGGERED #3 at 102 limit 103")


def test_distance_in_bps_is_rounded_up_and_at_least_a_tick() -> None:
    s = Story()
    after_trade(s, 100)
    s.sell(1, "1@1", order_type=TRAILING_LIMIT, qty2=1, flags=BPS)
    s.sell(1, "1@1", order_type=TRAILING_LIMIT, qty2=101, flags=BPS)
    assert s.book.pending[0].trigger == 99
    assert s.book.pending[1].trigger == 98


def test_activation_starts_the_trail_and_replace_restarts_it() -> None:
    s = Story()
    after_trade(s, 100)
    s.sell(1, "1@1", order_type=TRAILING, qty2=2, px2=105)
    assert after_trade(s, 97) == ""
    assert after_trade(s, 106) == ""
    assert after_trade(s, 105) == ""
    s.replace(3, qty2=3)
    assert s.book.pending[0].extreme == 105
    assert after_trade(s, 102).startswith("TRIGGERED #3 at 102")


def test_so_many_trailing_stops_and_no_more() -> None:
    s = Story()
    s.book.max_trailing = 1
    s.sell(1, "1", order_type=TRAILING, qty2=1)
    assert s.sell(1, "1", order_type=TRAILING, qty2=1) == "REJECTED TOO_MANY"


# ------------------------------------------------------------------------------------ ends, limits
def test_pending_stops_are_cancelled_expired_and_counted_like_others() -> None:
    s = Story(ShardLimits(orders_max=2))
    s.sell(1, "1", order_type=STOP, px2=10, tif=GTD, expire_ts=9)
    s.sell(1, "1", order_type=STOP, px2=10)
    assert s.sell(1, "1", order_type=STOP, px2=10) == "REJECTED ORDERS_FULL"
    assert s.until(9) == "EXPIRED #1 1 GTD"
    assert s.mass_cancel(1) == "CANCELED #2 1 MASS; SUMMARY 1"


def test_no_level_free_when_it_comes_to_rest() -> None:
    s = Story(ShardLimits(levels_max=2))
    s.sell(1, "1@98", order_type=STOP_LIMIT, px2=99)
    s.buy(2, "1@50")
    s.sell(2, "2@99")
    told = s.buy(3, "1@99", tif=IOC)
    assert told.endswith("TRIGGERED #1 at 99 limit 98; EXPIRED #1 1 LEVELS_FULL")


@pytest.mark.parametrize(
    ("what", "fields", "code"),
    [
        ("1@5", {"order_type": STOP, "px2": 5}, "BAD_COMBINATION"),
        ("1", {"order_type": STOP}, "OUT_OF_RANGE"),
        ("1", {"order_type": STOP_LIMIT, "px2": 5}, "OUT_OF_RANGE"),
        ("1", {"order_type": STOP, "px2": 5, "tif": TimeInForce.FOK}, "BAD_COMBINATION"),
        ("2", {"order_type": STOP, "px2": 5, "peak": 1}, "BAD_COMBINATION"),
        ("2@5", {"order_type": STOP_LIMIT, "px2": 5, "peak": 1, "tif": IOC}, "BAD_COMBINATION"),
        ("1", {"order_type": TRAILING, "qty2": 1, "flags": BEST}, "BAD_COMBINATION"),
        ("1", {"order_type": TRAILING}, "OUT_OF_RANGE"),
        ("1", {"order_type": STOP, "px2": 1001}, "OUT_OF_RANGE"),
        ("1@5", {"flags": BEST}, "BAD_COMBINATION"),
    ],
)
def test_refused(what: str, fields: dict, code: str) -> None:
    assert Story().sell(1, what, **fields) == f"REJECTED {code}"
