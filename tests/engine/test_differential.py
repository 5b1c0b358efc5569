"""Two independent exchanges, one stream of random commands, every field of every event equal.

The model of tests/model/ was written from the rules, the engine for speed; where they differ one of
them is wrong. A piece is a number of small random worlds (tests/model/flow.py), each with its own
sizes and rules. State hash and invariants are compared every CHECK_EVERY commands and at the end.

RINGBOOK_DIFF_OPS sets the commands of a whole run (default 1,000,000). In the check flavour and
without the JIT the first pieces run alone, so those runs are smaller: see OPS.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from engine.jit import JIT_DISABLED
from engine.records import CommandKind, EventKind, OrderState, Reason, RejectCode
from tests.conftest import BASE_SEED
from tests.model.compare import KEPT, MOVED, MOVED_INTO_TRADE, Mismatch, Pair
from tests.model.flow import INSTRUMENTS, TEMPLATE, Flow, draw_world

PIECES, PIECES_EVERYWHERE = 20, 2  # the latter run in every flavour
OPS = 200_000 if JIT_DISABLED else int(os.environ.get("RINGBOOK_DIFF_OPS", "1_000_000"))
WORLD_OPS = 1000
CHECK_EVERY, BATCH = 250, 64
COVERED_FROM_OPS = 400_000  # a run this long must have visited everything in VISITED

LIMIT_CODES = (
    RejectCode.MAX_QTY,
    RejectCode.MAX_NOTIONAL,
    RejectCode.MAX_OPEN_ORDERS,
    RejectCode.MAX_POSITION,
)
VISITED: tuple[object, ...] = (
    EventKind.ACCEPTED,
    EventKind.REJECTED,
    EventKind.REPLACED,
    EventKind.CANCELED,
    EventKind.EXPIRED,
    EventKind.BOOKED,
    EventKind.FILL,
    EventKind.PHASE,
    EventKind.LISTED,
    EventKind.SESSION,
    EventKind.ACCOUNT,
    EventKind.SUMMARY,
    EventKind.STATUS,
    EventKind.CONTINUED,
    # Every refusal the shard can give, from each command that has its own way to it.
    (RejectCode.BAD_FIELD, None),
    (RejectCode.BAD_FIELD, CommandKind.NEW),
    (RejectCode.BAD_FIELD, CommandKind.CANCEL),
    (RejectCode.BAD_FIELD, CommandKind.REPLACE),
    (RejectCode.BAD_FIELD, CommandKind.MASS_CANCEL),
    (RejectCode.BAD_FIELD, CommandKind.QUERY_ORDER),
    (RejectCode.BAD_FIELD, CommandKind.SESSION_OPEN),
    (RejectCode.OUT_OF_RANGE, CommandKind.NEW),
    (RejectCode.OUT_OF_RANGE, CommandKind.REPLACE),
    (RejectCode.OUT_OF_RANGE, CommandKind.QUERY_OPEN_ORDERS),
    (RejectCode.OUT_OF_RANGE, CommandKind.OPEN_ACCOUNT),
    (RejectCode.OUT_OF_RANGE, CommandKind.SESSION_OPEN),
    (RejectCode.OUT_OF_RANGE, CommandKind.TIME),
    (RejectCode.OUT_OF_RANGE, CommandKind.PRODUCER_RESET),
    (RejectCode.OUT_OF_RANGE, CommandKind.INCARNATION),
    (RejectCode.BAD_COMBINATION, CommandKind.NEW),
    (RejectCode.BAD_CLIENT_ID, CommandKind.NEW),
    (RejectCode.BAD_CLIENT_ID, CommandKind.CANCEL),
    (RejectCode.NOT_LOGGED_ON, CommandKind.NEW),
    (RejectCode.NOT_LOGGED_ON, CommandKind.CANCEL),
    (RejectCode.NOT_LOGGED_ON, CommandKind.SESSION_OPEN),
    (RejectCode.NOT_LOGGED_ON, CommandKind.SESSION_CLOSE),
    (RejectCode.NOT_LOGGED_ON, CommandKind.SESSION_KEEP),
    (RejectCode.NOT_AUTHORISED, CommandKind.NEW),
    (RejectCode.NOT_AUTHORISED, CommandKind.SESSION_OPEN),
    (RejectCode.NOT_AUTHORISED, CommandKind.SESSION_KEEP),
    (RejectCode.NOT_AUTHORISED, CommandKind.LIST_INSTRUMENT),
    (RejectCode.NOT_AUTHORISED, CommandKind.PRODUCER_RESET),
    (RejectCode.DUPLICATE, CommandKind.NEW),
    (RejectCode.DUPLICATE, CommandKind.REPLACE),
    (RejectCode.ID_TABLE_FULL, CommandKind.NEW),
    (RejectCode.ID_TABLE_FULL, CommandKind.SESSION_OPEN),
    (RejectCode.UNKNOWN_SYMBOL, CommandKind.NEW),
    (RejectCode.UNKNOWN_SYMBOL, CommandKind.MASS_CANCEL),
    (RejectCode.UNKNOWN_SYMBOL, CommandKind.QUERY_OPEN_ORDERS),
    (RejectCode.LISTING_REFUSED, CommandKind.NEW),
    (RejectCode.LISTING_REFUSED, CommandKind.LIST_INSTRUMENT),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.NEW),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.REPLACE),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.QUOTE),
    (RejectCode.NOT_SUPPORTED_HERE, CommandKind.SET_PHASE),
    (RejectCode.IMMUTABLE, CommandKind.REPLACE),
    (RejectCode.UNKNOWN_ORDER, CommandKind.CANCEL),
    (RejectCode.UNKNOWN_ORDER, CommandKind.REPLACE),
    (RejectCode.UNKNOWN_ORDER, CommandKind.QUERY_ORDER),
    (RejectCode.WOULD_TRADE, CommandKind.NEW),
    (RejectCode.WOULD_TRADE, CommandKind.REPLACE),
    (RejectCode.NO_LIQUIDITY, CommandKind.NEW),
    (RejectCode.FOK_UNFILLED, CommandKind.NEW),
    (RejectCode.ORDERS_FULL, CommandKind.NEW),
    (RejectCode.LEVELS_FULL, CommandKind.NEW),
    (RejectCode.LEVELS_FULL, CommandKind.REPLACE),
    (RejectCode.WALK_TOO_LONG, CommandKind.NEW),
    (RejectCode.ACCOUNT_BLOCKED, CommandKind.NEW),
    (RejectCode.ACCOUNT_BLOCKED, CommandKind.REPLACE),
    *((code, CommandKind.NEW) for code in LIMIT_CODES),
    (RejectCode.MAX_QTY, CommandKind.REPLACE),
    (RejectCode.MAX_NOTIONAL, CommandKind.REPLACE),
    (RejectCode.MAX_POSITION, CommandKind.REPLACE),
    (RejectCode.BAD_FIELD, CommandKind.KILL_SWITCH),
    (RejectCode.NOT_AUTHORISED, CommandKind.KILL_SWITCH),
    (RejectCode.ID_TABLE_FULL, CommandKind.KILL_SWITCH),
    (RejectCode.BAD_FIELD, CommandKind.SET_LIMITS),
    (RejectCode.OUT_OF_RANGE, CommandKind.SET_LIMITS),
    (RejectCode.NOT_AUTHORISED, CommandKind.SET_LIMITS),
    (RejectCode.UNKNOWN_SYMBOL, CommandKind.SET_LIMITS),
    (RejectCode.TOO_MANY, CommandKind.SET_LIMITS),
    # Every way an order ends or moves, every long command cut in slices.
    Reason.CLIENT,
    Reason.MASS,
    Reason.DISCONNECT,
    Reason.REPLACED_BELOW_FILLED,
    Reason.IOC_REMAINDER,
    Reason.MARKET_REMAINDER,
    Reason.SESSION_OPENED,
    Reason.SESSION_CLOSED,
    Reason.ACCOUNT_OPENED,
    Reason.PRODUCER_RESET,
    Reason.INCARNATION,
    (Reason.KILL, CommandKind.KILL_SWITCH),
    (EventKind.CANCELED, CommandKind.KILL_SWITCH),
    (Reason.LIMITS, CommandKind.SET_LIMITS),
    (Reason.DEAD_MAN, CommandKind.TIME),
    (Reason.DISCONNECT, CommandKind.TIME),
    (Reason.SESSION_CLOSED, CommandKind.TIME),
    (EventKind.BOOKED, CommandKind.FEED_STATE),
    "text ids forgotten",
    ("replaced", KEPT),
    ("replaced", MOVED),
    ("replaced", MOVED_INTO_TRADE),
    ("booked as ITCH U", True),
    ("booked as ITCH U", False),
    ("sliced", CommandKind.NEW),
    ("sliced", CommandKind.REPLACE),
    ("sliced", CommandKind.MASS_CANCEL),
    ("sliced", CommandKind.SESSION_CLOSE),
    ("sliced", CommandKind.QUERY_OPEN_ORDERS),
    ("sliced", CommandKind.FEED_STATE),
    ("sliced", CommandKind.TIME),
    ("sliced", CommandKind.KILL_SWITCH),
    (OrderState.NEW, CommandKind.QUERY_ORDER),
    (OrderState.PARTIALLY_FILLED, CommandKind.QUERY_ORDER),
    (OrderState.NEW, CommandKind.NEW),  # a retransmitted id
    "more pages",
)


@pytest.fixture
def overflow_raises() -> Iterator[None]:
    """Without the JIT an integer overflow raises here (compiled code would go on, undefined)."""
    with np.errstate(over="raise"):
        yield


seen: dict[int, Counter[object]] = {}  # by piece, of those that ran in this process


def compare_world(seed: int, ops: int) -> Counter[object]:
    """Run one random world; return what it visited."""
    world = draw_world(random.Random(seed))
    pair = Pair(world, INSTRUMENTS, TEMPLATE, seed)
    flow = Flow(seed, world, pair.model)
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
    first = pytest.param(0, marks=every)
    more = [
        pytest.param(
            number,
            marks=(*every, pytest.mark.later) if number < PIECES_EVERYWHERE else pytest.mark.slow,
        )
        for number in range(1, PIECES)
    ]
    return [first, *more]


@pytest.mark.timeout(300)  # the first piece of a flavour may have to compile
@pytest.mark.usefixtures("overflow_raises")
@pytest.mark.parametrize("piece", _pieces())
def test_engine_and_model_agree_on_every_event(piece: int) -> None:
    seen[piece] = Counter()
    for number in range(max(1, OPS // PIECES // WORLD_OPS)):
        seen[piece] += compare_world(BASE_SEED + piece * 100_000 + number, WORLD_OPS)
    if len(seen) == PIECES and COVERED_FROM_OPS <= OPS:  # rare places: all pieces together
        together = sum(seen.values(), Counter[object]())
        missing = [place for place in VISITED if not together[place]]
        assert not missing, f"the random flow no longer goes to {missing}"


def test_mismatch_report_names_seed_command_and_field() -> None:
    world = draw_world(random.Random(1))
    pair = Pair(world, INSTRUMENTS, TEMPLATE, seed=77)
    flow = Flow(1, world, pair.model)
    for _ in range(50):
        pair.apply(flow.next())
    pair.flush()
    pair.apply(flow.next())
    pair.expected[-1]["px"] += 1
    with pytest.raises(Mismatch) as caught:
        pair.flush()
    text = str(caught.value)
    assert "seed 77" in text
    assert "first difference" in text
    assert "    px: " in text
    assert "last commands" in text
