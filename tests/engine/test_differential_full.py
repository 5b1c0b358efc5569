"""The full rules against the model, as tests/engine/test_differential.py does for the plain ones.

FEATURES are what the kernel has of the model's; a world draws some of them, so that each meets each
and most also stand alone. RINGBOOK_FULL_OPS sets the commands of a whole run.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from engine.jit import JIT_DISABLED
from engine.records import CommandKind, EventKind, Reason, RejectCode
from tests.conftest import BASE_SEED
from tests.model.compare import KEPT, MOVED, MOVED_INTO_TRADE, Pair
from tests.model.flow import TEMPLATE
from tests.model.full_flow import FEATURES, FullFlow, draw_full_world, full_instruments

PIECES, PIECES_EVERYWHERE = 10, 2  # the latter run in every flavour
OPS = 40_000 if JIT_DISABLED else int(os.environ.get("RINGBOOK_FULL_OPS", "300_000"))
WORLD_OPS, CHECK_EVERY, BATCH = 1000, 50, 8
COVERED_FROM_OPS = 200_000

VISITED: tuple[object, ...] = (
    EventKind.REFRESHED,
    EventKind.PREVENTED,
    (EventKind.EXPIRED, CommandKind.TIME),
    (EventKind.EXPIRED, CommandKind.REPLACE),
    Reason.DAY,
    Reason.GTD,
    Reason.MINIMUM,
    Reason.SELF_TRADE,
    Reason.MARKET_REMAINDER,
    Reason.IOC_REMAINDER,
    (RejectCode.OUT_OF_RANGE, CommandKind.NEW),
    (RejectCode.OUT_OF_RANGE, CommandKind.REPLACE),
    (RejectCode.BAD_COMBINATION, CommandKind.NEW),
    (RejectCode.BAD_COMBINATION, CommandKind.REPLACE),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.NEW),
    (RejectCode.ICEBERG_PARTS, CommandKind.NEW),
    (RejectCode.ICEBERG_PARTS, CommandKind.REPLACE),
    (RejectCode.EXPIRY_PAST, CommandKind.NEW),
    (RejectCode.EXPIRY_PAST, CommandKind.REPLACE),
    (RejectCode.IMMUTABLE, CommandKind.REPLACE),
    (RejectCode.WOULD_TRADE, CommandKind.NEW),
    (RejectCode.WOULD_TRADE, CommandKind.REPLACE),
    (RejectCode.NO_LIQUIDITY, CommandKind.NEW),
    (RejectCode.FOK_UNFILLED, CommandKind.NEW),
    (RejectCode.ORDERS_FULL, CommandKind.NEW),
    (RejectCode.LEVELS_FULL, CommandKind.NEW),
    (RejectCode.LEVELS_FULL, CommandKind.REPLACE),
    (RejectCode.WALK_TOO_LONG, CommandKind.NEW),
    (RejectCode.BUDGET, CommandKind.NEW),
    (EventKind.TRIGGERED, CommandKind.NEW),
    (EventKind.TRIGGERED, CommandKind.REPLACE),
    (EventKind.ACTIVATED, CommandKind.NEW),
    (Reason.OCO, CommandKind.CANCEL),
    (Reason.OCO, CommandKind.MASS_CANCEL),
    (Reason.OTO_FAILURE, CommandKind.NEW),
    ("expired", RejectCode.WOULD_TRADE),
    ("expired", RejectCode.LEVELS_FULL),
    (RejectCode.TRIGGER_TRUE, CommandKind.NEW),
    (RejectCode.TRIGGER_TRUE, CommandKind.REPLACE),
    (RejectCode.CAP_REQUIRED, CommandKind.NEW),
    (RejectCode.TOO_MANY, CommandKind.NEW),
    (EventKind.LISTED, CommandKind.SET_RULE),
    (RejectCode.BAD_FIELD, CommandKind.SET_RULE),
    (RejectCode.OUT_OF_RANGE, CommandKind.SET_RULE),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.SET_RULE),
    (EventKind.PHASE, CommandKind.SET_RULE),
    (EventKind.REPRICED, CommandKind.NEW),
    (EventKind.REPRICED, CommandKind.CANCEL),
    (EventKind.REPRICED, CommandKind.REPLACE),
    (EventKind.REPRICED, CommandKind.SET_PHASE),
    (EventKind.PARKED, CommandKind.CANCEL),
    (EventKind.PARKED, CommandKind.SET_PHASE),
    (EventKind.PARKED, CommandKind.TIME),
    ("a peg takes", CommandKind.NEW),
    ("a peg takes", CommandKind.CANCEL),
    (EventKind.CROSSED, CommandKind.SET_RULE),
    (EventKind.CROSSED, CommandKind.NEW),
    (EventKind.CROSSED, CommandKind.TIME),
    (RejectCode.NO_BAND, CommandKind.NEW),
    ("expired", RejectCode.NO_BAND),
    "shared out",
    "top",
    (RejectCode.TOO_MANY, CommandKind.NEW),
    (RejectCode.TOO_MANY, CommandKind.REPLACE),
    (RejectCode.ACCOUNT_BLOCKED, CommandKind.NEW),
    (RejectCode.ACCOUNT_BLOCKED, CommandKind.REPLACE),
    (RejectCode.MAX_QTY, CommandKind.NEW),
    (RejectCode.MAX_QTY, CommandKind.REPLACE),
    (RejectCode.MAX_NOTIONAL, CommandKind.NEW),
    (RejectCode.MAX_NOTIONAL, CommandKind.REPLACE),
    (RejectCode.MAX_OPEN_ORDERS, CommandKind.NEW),
    (RejectCode.MAX_POSITION, CommandKind.NEW),
    (RejectCode.MAX_POSITION, CommandKind.REPLACE),
    (EventKind.CANCELED, CommandKind.KILL_SWITCH),
    ("replaced", KEPT),
    ("replaced", MOVED),
    ("replaced", MOVED_INTO_TRADE),
    ("booked as ITCH U", True),
    EventKind.MMP_FIRED,
    (EventKind.MMP_FIRED, CommandKind.QUOTE),
    (EventKind.ACCOUNT, CommandKind.SET_LIMITS),
    (Reason.MMP, CommandKind.NEW),
    (Reason.MMP, CommandKind.QUOTE),
    (EventKind.CANCELED, CommandKind.QUOTE),
    (EventKind.EXPIRED, CommandKind.QUOTE),
    (EventKind.PHASE, CommandKind.QUOTE),
    (EventKind.TRIGGERED, CommandKind.QUOTE),
    (RejectCode.BAD_FIELD, CommandKind.QUOTE),
    (RejectCode.OUT_OF_RANGE, CommandKind.QUOTE),
    (RejectCode.BAD_CLIENT_ID, CommandKind.QUOTE),
    (RejectCode.DUPLICATE, CommandKind.QUOTE),
    (RejectCode.UNKNOWN_SYMBOL, CommandKind.QUOTE),
    (RejectCode.NOT_IN_PHASE, CommandKind.QUOTE),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.QUOTE),
    (RejectCode.STATIC_BAND, CommandKind.QUOTE),
    (RejectCode.TOO_MANY, CommandKind.QUOTE),
    (RejectCode.QUOTE_CROSSED, CommandKind.QUOTE),
    (RejectCode.ACCOUNT_BLOCKED, CommandKind.QUOTE),
    (RejectCode.MAX_QTY, CommandKind.QUOTE),
    (RejectCode.MAX_NOTIONAL, CommandKind.QUOTE),
    (RejectCode.MAX_OPEN_ORDERS, CommandKind.QUOTE),
    (RejectCode.MAX_POSITION, CommandKind.QUOTE),
    (RejectCode.MMP_ACTIVE, CommandKind.QUOTE),
    (RejectCode.UNKNOWN_ORDER, CommandKind.QUOTE),
    (RejectCode.ORDERS_FULL, CommandKind.QUOTE),
    (RejectCode.LEVELS_FULL, CommandKind.QUOTE),
    (RejectCode.OUT_OF_RANGE, CommandKind.SET_LIMITS),
    (RejectCode.NOT_AUTHORISED, CommandKind.SET_LIMITS),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.SET_LIMITS),
    (RejectCode.ORDERS_FULL, CommandKind.SET_LIMITS),
    ("sliced", CommandKind.QUOTE),
    ("sliced", CommandKind.NEW),
    ("sliced", CommandKind.REPLACE),
)


seen: dict[int, Counter[object]] = {}  # by piece, of those that ran in this process


def compare_full_world(seed: int, ops: int) -> Counter[object]:
    """Run one random world; return what it visited."""
    rng = random.Random(seed)
    world = draw_full_world(rng)
    pair = Pair(world, full_instruments(rng), TEMPLATE, seed)
    drawn = frozenset(feature for feature in sorted(FEATURES) if rng.random() < 0.7)
    flow = FullFlow(seed, world, pair.model, drawn | {"limit"})
    for number in range(1, ops + 1):
        pair.apply(flow.next())
        if number % CHECK_EVERY == 0:
            pair.check()
        elif number % BATCH == 0:
            pair.flush()
    pair.check()
    return pair.seen


def _pieces() -> list[object]:
    every = (pytest.mark.flavour, pytest.mark.nojit)
    return [
        pytest.param(number, marks=every if number < PIECES_EVERYWHERE else pytest.mark.slow)
        for number in range(PIECES)
    ]


@pytest.mark.timeout(300)  # the first piece of a flavour may have to compile
@pytest.mark.parametrize("piece", _pieces())
def test_engine_and_model_agree_on_every_event_of_the_full_rules(piece: int) -> None:
    seen[piece] = Counter()
    for number in range(max(1, OPS // PIECES // WORLD_OPS)):
        seen[piece] += compare_full_world(BASE_SEED + piece * 100_000 + number, WORLD_OPS)
    if len(seen) == PIECES and COVERED_FROM_OPS <= OPS:  # rare places: all pieces together
        together = sum(seen.values(), Counter[object]())
        missing = [place for place in VISITED if not together[place]]
        assert not missing, f"the random flow no longer goes to {missing}"
