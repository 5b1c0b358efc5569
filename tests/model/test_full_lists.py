"""Stories about linked orders: OCO, OTO, OTOCO (RULES §2, §13 Linked orders)."""

from __future__ import annotations

from typing import Any

from engine.records import CommandFlag, CommandKind, OrderType, Side, TimeInForce
from tests.model.full_kit import Story

OCO, OTO, OTOCO = 1, 2, 3
LIST = int(CommandFlag.LIST)
STOP, STOP_LIMIT = OrderType.STOP, OrderType.STOP_LIMIT
TAKE_PROFIT = OrderType.TAKE_PROFIT
Leg = tuple[Side, str, dict[str, Any]]


def send(s: Story, account: int, kind: int, *legs: Leg) -> str:
    """All legs of a list; what the last one was answered."""
    told = ""
    for number, (side, what, fields) in enumerate(legs):
        assert told == "", "a leg with more to follow answers nothing"
        more = LIST if number < len(legs) - 1 else 0
        flags = fields.get("flags", 0) | more
        told = s.order(account, side, what, **(fields | {"flags": flags, "decision_code": kind}))
    return told


def sell(what: str, **fields: Any) -> Leg:
    return Side.SELL, what, fields


def buy(what: str, **fields: Any) -> Leg:
    return Side.BUY, what, fields


def traded(s: Story, px: int) -> str:
    s.sell(4, f"1@{px}")
    return s.buy(5, f"1@{px}")


PAIR = (sell("5@110"), sell("5", order_type=STOP, px2=90))


# --------------------------------------------------------------------------------------------- OCO
def test_first_fill_cancels_the_sibling_even_a_partial_one() -> None:
    s = Story()
    assert send(s, 1, OCO, *PAIR) == "ACCEPTED #1 5@110; ACCEPTED #2 5@0; BOOKED #1 5@110"
    assert s.buy(2, "2@110") == "ACCEPTED #3 2@110; FILL #1 2@110; CANCELED #2 5 OCO"
    assert s.asks == "#1:3@110"


def test_activation_cancels_the_sibling() -> None:
    s = Story()
    send(s, 1, OCO, *PAIR)
    told = traded(s, 90)
    assert told.endswith(
        "TRIGGERED #2 at 90 limit 0; CANCELED #1 5 OCO; EXPIRED #2 5 MARKET_REMAINDER"
    )


def test_cancel_of_one_cancels_both_and_mass_cancel_counts_both() -> None:
    s = Story()
    send(s, 1, OCO, *PAIR)
    assert s.cancel(2) == "CANCELED #2 5 CLIENT; CANCELED #1 5 OCO"
    send(s, 1, OCO, *PAIR)
    assert s.mass_cancel(1) == "CANCELED #3 5 MASS; CANCELED #4 5 OCO; SUMMARY 2"


def test_replace_applies_to_one_leg_and_its_quantity_to_both() -> None:
    s = Story()
    send(s, 1, OCO, *PAIR)
    assert s.replace(1, px=111) == "REPLACED #1 5@111; BOOKED #1 5@111"
    assert s.replace(1, qty=4) == "REPLACED #1 4@111 kept; REPLACED #2 4@0 kept"
    assert s.replace(2, qty=6) == "REPLACED #2 6@0; REPLACED #1 6@111; BOOKED #1 6@111"


def test_what_is_no_oco() -> None:
    s = Story()
    assert send(s, 1, OCO, sell("5@110"), sell("5@111")) == "REJECTED BAD_COMBINATION"
    assert send(s, 1, OCO, sell("5@110"), sell("4", order_type=STOP, px2=9)).endswith("COMBINATION")
    assert send(s, 1, OCO, sell("5@110")) == "REJECTED BAD_COMBINATION"
    assert not s.model.orders


def test_one_refused_leg_refuses_the_list_with_its_code() -> None:
    s = Story()
    traded(s, 80)
    assert send(s, 1, OCO, *PAIR) == "REJECTED TRIGGER_TRUE"
    assert not s.model.orders


def test_end_of_the_session_drops_an_unfinished_list() -> None:
    s = Story()
    s.sell(1, "5@110", flags=LIST, decision_code=OCO)
    s.apply(CommandKind.SESSION_CLOSE, account=1, session=1, logon=1)
    assert not s.model.unfinished_lists


# --------------------------------------------------------------------------------------------- OTO
def test_legs_go_live_by_activate_behind_the_command_that_completes() -> None:
    s = Story()
    told = send(s, 1, OTOCO, buy("5@100"), *PAIR)
    assert told == (
        "ACCEPTED #1 5@100; ACCEPTED #2 5@110; ACCEPTED #3 5@0; PARKED #2; PARKED #3;"
        " BOOKED #1 5@100"
    )
    assert s.sell(2, "2@100").endswith("FILL #1 2@100")
    told = s.sell(2, "4@100")
    assert told == (
        "ACCEPTED #5 4@100; FILL #1 3@100; BOOKED #5 1@100; ACTIVATED #2; ACTIVATED #3;"
        " BOOKED #2 5@110"
    )
    assert s.events[-1]["in_seq"] == s.events[0]["in_seq"] + 1
    assert s.buy(3, "6@110").endswith("FILL #2 5@110; CANCELED #3 5 OCO")


def test_first_order_that_ends_unfilled_cancels_its_legs() -> None:
    s = Story(stp="expire_taker")
    s.sell(2, "2@100")
    leg = sell("5@110")
    told = send(s, 1, OTO, buy("5@100", tif=TimeInForce.IOC), leg)
    assert told.endswith("FILL #1 2@100; EXPIRED #2 3 IOC_REMAINDER; CANCELED #3 5 OCO")
    send(s, 1, OTO, buy("5@100"), leg)
    assert s.cancel(4) == "CANCELED #4 5 CLIENT; CANCELED #5 5 OCO"


def test_failure_of_a_leg_expires_it_and_its_sibling_with_the_true_code() -> None:
    s = Story()
    post_only = sell("5@95", flags=int(CommandFlag.POST_ONLY))
    stop = sell("5", order_type=STOP, px2=90)
    send(s, 1, OTOCO, buy("1@100"), post_only, stop)
    s.buy(2, "9@96")
    told = s.sell(3, "1@100")
    assert told.endswith(
        "FILL #1 1@100; EXPIRED #2 5 OTO_FAILURE WOULD_TRADE; EXPIRED #3 5 OTO_FAILURE WOULD_TRADE"
    )


def test_pending_stop_already_beyond_its_trigger_fires_at_once() -> None:
    s = Story()
    send(s, 1, OTO, buy("1@100"), sell("5@94", order_type=STOP_LIMIT, px2=105))
    told = s.sell(3, "1@100")
    assert told.endswith("ACTIVATED #2; TRIGGERED #2 at 105 limit 94; BOOKED #2 5@94")


def test_parked_leg_may_be_replaced_and_cancelled() -> None:
    s = Story()
    send(s, 1, OTO, buy("1@100"), sell("5@110"))
    assert s.replace(2, px=111, qty=6) == "REPLACED #2 6@111"
    assert s.cancel(2) == "CANCELED #2 6 CLIENT"
    assert s.sell(3, "1@100").endswith("FILL #1 1@100")
