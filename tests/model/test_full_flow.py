"""The full model under random commands: it contradicts itself nowhere, whatever comes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from engine.records import EventKind, Reason, RejectCode
from tests.model.exchange_model import ExchangeModel, start
from tests.model.flow import TEMPLATE
from tests.model.full_check import FullStreamChecker
from tests.model.full_flow import FullFlow, draw_full_world, full_instruments

Seen = Counter[object]


def play(seed: int, commands: int, seen: Seen) -> list[dict]:
    """Play a random world; the events of its last command."""
    rng = random.Random(seed)
    world = draw_full_world(rng)
    model = ExchangeModel(world.limits, unknown_symbol="create", template=TEMPLATE)
    stream = FullStreamChecker(crossed_allowed=True)  # batch modes; the model checks the others
    stream.feed(start(model, full_instruments(rng), world.accounts))
    flow = FullFlow(seed, world, model)
    events: list[dict] = []
    for _ in range(commands):
        events = model.apply(flow.next())
        stream.feed(events)
        model.check()
        for event in events:
            seen[EventKind(event["kind"])] += 1
            seen[Reason(event["reason"])] += 1
            if event["kind"] in (EventKind.REJECTED, EventKind.EXPIRED):
                seen[RejectCode(event["code"])] += 1
    assert set(stream.lives) == set(model.orders)
    return events


@pytest.mark.parametrize("number", range(12))
def test_full_model_contradicts_itself_nowhere(seed: int, number: int) -> None:
    play(seed, 500, Counter())


def test_full_model_same_seed_gives_same_events() -> None:
    assert play(5, 300, Counter()) == play(5, 300, Counter())


def test_full_flow_visits_what_there_is() -> None:
    seen: Seen = Counter()
    for seed in range(120):
        play(seed, 400, seen)
    kinds = (EventKind.PREVENTED, EventKind.REFRESHED, EventKind.REPLACED, EventKind.TRIGGERED)
    kinds += (EventKind.CROSSED, EventKind.INDICATIVE, EventKind.BAND, EventKind.ACTIVATED)
    reasons = (Reason.MINIMUM, Reason.DAY, Reason.GTD, Reason.SELF_TRADE, Reason.MARKET_REMAINDER)
    kinds += (EventKind.MMP_FIRED, EventKind.REPRICED, EventKind.PARKED)
    reasons += (Reason.OCO, Reason.OTO_FAILURE, Reason.BAND, Reason.AUCTION_END)
    codes = (
        RejectCode.BAD_COMBINATION,
        RejectCode.ICEBERG_PARTS,
        RejectCode.EXPIRY_PAST,
        RejectCode.WOULD_TRADE,
        RejectCode.NO_LIQUIDITY,
        RejectCode.FOK_UNFILLED,
        RejectCode.TRIGGER_TRUE,
        RejectCode.BUDGET,
        RejectCode.QUOTE_CROSSED,
        RejectCode.MMP_ACTIVE,
        RejectCode.NOT_IN_PHASE,
        RejectCode.NO_SUCH_AUCTION,
        RejectCode.STATIC_BAND,
        RejectCode.NO_BAND,
        RejectCode.TOO_MANY,
        RejectCode.CAP_REQUIRED,
        RejectCode.ORDERS_FULL,
        RejectCode.LEVELS_FULL,
        RejectCode.WALK_TOO_LONG,
    )
    missing = [row for row in (*kinds, *reasons, *codes) if not seen[row]]
    assert not missing
