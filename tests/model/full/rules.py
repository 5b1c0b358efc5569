"""SET_RULE: what an instrument's rules say from now on (RULES §9).

Cold; used by tests only. Each rule has its range; the answer is LISTED.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from engine.records import Algorithm, EventKind, InstrumentRule, RejectCode, SelfTrade
from tests.model.checks_model import Command, refuse_if
from tests.model.full import phases
from tests.model.full.book import BATCHES, FullBook
from tests.model.full.built import PART_OF_ALGORITHM, PART_OF_RULE

if TYPE_CHECKING:
    from tests.model.exchange_model import ExchangeModel

Units = Generator[None, None, None]
LARGE = 2**31 - 1
LMM_MAX = 8
# rule -> attribute of the book, lowest and highest value
SIMPLE = {
    InstrumentRule.ICEBERG_PARTS: ("iceberg_parts", 1, LARGE),
    InstrumentRule.PROTECTION: ("protection", 0, LARGE),
    InstrumentRule.STP: ("stp", int(SelfTrade.NONE), int(SelfTrade.TRANSFER)),
    InstrumentRule.STATIC_BAND: ("static_bps", 0, 10_000),
    InstrumentRule.DYNAMIC_BAND: ("dynamic_bps", 0, 10_000),
    InstrumentRule.ON_BREACH: ("on_breach", 0, 1),
    InstrumentRule.MAX_PEGS: ("max_pegs", 0, LARGE),
    InstrumentRule.MAX_TRAILING: ("max_trailing", 0, LARGE),
    InstrumentRule.MAX_LEVEL_ORDERS: ("max_level_orders", 1, LARGE),
    InstrumentRule.BATCH_MS: ("batch_ms", 1, LARGE),
    InstrumentRule.MIN_ORDERS: ("min_orders", 1, LARGE),
    InstrumentRule.BALANCE_PCT: ("balance_pct", 0, 100),
    InstrumentRule.MAX_WAIT_MS: ("max_wait_ms", 0, LARGE),
    InstrumentRule.FIFO_PERCENT: ("fifo_percent", 0, 100),
}


def set_rule(model: ExchangeModel, book: FullBook, c: Command) -> Units:
    """Change one rule."""
    rule, value = c["order_type"], c["amount"]
    refuse_if(rule not in set(InstrumentRule), RejectCode.BAD_FIELD)
    part = PART_OF_RULE.get(InstrumentRule(rule))
    refuse_if(bool(part and part not in model.built), RejectCode.NOT_SUPPORTED_HERE)
    if rule == InstrumentRule.LMM:
        _set_lead_market_maker(book, value)
    elif rule == InstrumentRule.ALGORITHM:
        refuse_if(not 0 <= value <= Algorithm.BALANCED_BATCH, RejectCode.OUT_OF_RANGE)
        part = PART_OF_ALGORITHM.get(Algorithm(value))
        refuse_if(bool(part and part not in model.built), RejectCode.NOT_SUPPORTED_HERE)
    else:
        refuse_if(rule not in SIMPLE, RejectCode.NOT_SUPPORTED_HERE)
        name, lowest, highest = SIMPLE[InstrumentRule(rule)]
        refuse_if(not lowest <= value <= highest, RejectCode.OUT_OF_RANGE)
        setattr(book, name, value)
    model.touched.add(book.symbol_id)
    model.tell_rules(book)
    if rule == InstrumentRule.ALGORITHM:
        if book.in_batch and value not in BATCHES:
            yield from phases.leave_call(model, book)
        book.algorithm, book.cross_at = value, None
        model.writer.add(
            EventKind.PHASE,
            symbol_id=book.symbol_id,
            code=book.phase,
            amount=book.phase,
            order_type=book.algorithm,
        )
    if not book.in_rounds:
        book.top = [None, None]


def _set_lead_market_maker(book: FullBook, value: int) -> None:
    # Account in the high half, percent in the low; 0 percent takes the account away.
    account, percent = value >> 32, value & 0xFFFFFFFF
    refuse_if(not (1 <= account <= LARGE and 0 <= percent <= 50), RejectCode.OUT_OF_RANGE)
    makers = {n: p for n, p in (book.lmm | {account: percent}).items() if p}
    refuse_if(sum(makers.values()) > 50, RejectCode.OUT_OF_RANGE)
    refuse_if(len(makers) > LMM_MAX, RejectCode.OUT_OF_RANGE)
    book.lmm = makers
