"""Which parts of the full rules the compiled engine has; the others it refuses (docs/rules.md).

Cold; used by tests only. A model that is to be compared with the engine is told BUILT; for itself
it has all PARTS.
"""

from __future__ import annotations

from engine.records import Algorithm, InstrumentRule, OrderType
from tests.model.full.order import BUDGET, PEGS, STOPS

PARTS = frozenset("stops phases shares batches budget quotes pegs lists".split())
BUILT: frozenset[str] = frozenset(
    {"batches", "budget", "lists", "pegs", "phases", "quotes", "shares", "stops"}
)

PART_OF_TYPE = {
    **dict.fromkeys(STOPS, "stops"),
    **dict.fromkeys(PEGS, "pegs"),
    BUDGET: "budget",
}
CORE_TYPES = {int(OrderType.LIMIT), int(OrderType.MARKET), int(OrderType.MARKET_TO_LIMIT)}
PART_OF_RULE = {
    InstrumentRule.ALGORITHM: "shares",
    InstrumentRule.STATIC_BAND: "phases",
    InstrumentRule.DYNAMIC_BAND: "phases",
    InstrumentRule.ON_BREACH: "phases",
    InstrumentRule.MAX_PEGS: "pegs",
    InstrumentRule.MAX_TRAILING: "stops",
    InstrumentRule.MAX_LEVEL_ORDERS: "shares",
    InstrumentRule.FIFO_PERCENT: "shares",
    InstrumentRule.BATCH_MS: "batches",
    InstrumentRule.MIN_ORDERS: "batches",
    InstrumentRule.BALANCE_PCT: "batches",
    InstrumentRule.MAX_WAIT_MS: "batches",
    InstrumentRule.LMM: "shares",
}
PART_OF_ALGORITHM = dict.fromkeys((Algorithm.BATCH_AUCTION, Algorithm.BALANCED_BATCH), "batches")
