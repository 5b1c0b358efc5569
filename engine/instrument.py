"""One instrument of the configuration: terms, rules, calendar, and what of it cannot be.

Cold; part of engine/config.py, which everybody imports it from. The values are frozen; what a start
makes of them is in engine/admin.py.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from engine.calendars import calendar_of
from engine.records import (
    PRICE_TICKS_MAX,
    QTY_LOTS_MAX,
    Algorithm,
    InstrumentRule,
    RuleSet,
    SelfTrade,
    pack_name,
)

LEAD_MAX, LEAD_PERCENT_MAX = 8, 50  # lead market makers of an instrument, and their percentages
UNITS = 10**9  # tick and lot are carried as integers of 1e-9
ITCH_PRICE_MAX = 2**32 - 1  # ITCH price: uint32, four decimals
ITCH_TICK_UNIT = UNITS // 10**4


ON_BREACH = ("auction", "expire")  # by the value of the rule
BAND_MAX = 10_000
CALL_S_MAX = 86_400


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says which key and why."""


@dataclass(frozen=True)
class Instrument:
    """One tradable symbol. tick and lot are exact decimals in asset units; max_price likewise ("" =
    as high as can be carried).
    """

    symbol: str
    tick: str = "0.01"
    lot: str = "1"
    max_price: str = ""
    rules: str = "plain"  # "full": every order type and instruction of docs/rules.md
    stp: str = "none"  # self-trade prevention of orders that name none
    iceberg_parts: int = 100  # most slices of an iceberg
    protection: int = 0  # ticks a protected market order goes beyond the best opposite price
    algorithm: str = ""  # who trades: fifo, pro_rata, ..., balanced_batch; "": as it was
    fifo_percent: int = -1  # of fifo_pro_rata; -1: as it was
    lmm: str = ""  # lead market makers: "3:40 4:10", account:percent; percent 0 takes one away
    max_level_orders: int = 0  # most orders of a level that is shared out; 0: as it was
    batch_ms: int = 0  # batch_auction crosses at multiples of it; 0: as it was
    min_orders: int = 0  # balanced_batch: crossing orders wanted on each side; 0: as it was
    balance_pct: int = -1  # and the smaller side's quantity, of the larger's; -1: as it was
    max_wait_ms: int = -1  # after which it crosses all the same; -1: as it was
    static_band: int = -1  # basis points around the static reference, 0 none; -1: as it was
    dynamic_band: int = -1  # basis points around the last trade, 0 none; -1: as it was
    on_breach: str = ""  # of the dynamic band: auction or expire; "": as it was
    reference: str = ""  # price at listing, the first static reference; "": the first trade
    calendar: tuple[str, ...] = ()  # "09:00 continuous", ...: phases of a day (engine/calendars.py)
    # Seconds of a volatility or reopening call, and of each extension of a call; 0: until an
    # operator ends it.
    volatility_call_s: int = 30

    @property
    def tick_units(self) -> int:
        return decimal_units(self.tick, f"instrument {self.symbol}: tick")

    @property
    def lot_units(self) -> int:
        return decimal_units(self.lot, f"instrument {self.symbol}: lot")

    @property
    def rule_set(self) -> RuleSet:
        return RuleSet[self.rules.upper()]

    @property
    def self_trade(self) -> SelfTrade:
        return SelfTrade[self.stp.upper()]

    @property
    def rule_values(self) -> list[tuple[InstrumentRule, int]]:
        """What a start sets behind the listing: (rule, value), only what is stated."""
        found: list[tuple[InstrumentRule, int]] = []
        if self.batch_ms:
            found.append((InstrumentRule.BATCH_MS, self.batch_ms))
        if self.min_orders:
            found.append((InstrumentRule.MIN_ORDERS, self.min_orders))
        if self.balance_pct >= 0:
            found.append((InstrumentRule.BALANCE_PCT, self.balance_pct))
        if self.max_wait_ms >= 0:
            found.append((InstrumentRule.MAX_WAIT_MS, self.max_wait_ms))
        if self.algorithm:
            found.append((InstrumentRule.ALGORITHM, Algorithm[self.algorithm.upper()]))
        if self.fifo_percent >= 0:
            found.append((InstrumentRule.FIFO_PERCENT, self.fifo_percent))
        if self.max_level_orders:
            found.append((InstrumentRule.MAX_LEVEL_ORDERS, self.max_level_orders))
        if self.static_band >= 0:
            found.append((InstrumentRule.STATIC_BAND, self.static_band))
        if self.dynamic_band >= 0:
            found.append((InstrumentRule.DYNAMIC_BAND, self.dynamic_band))
        if self.on_breach:
            found.append((InstrumentRule.ON_BREACH, ON_BREACH.index(self.on_breach.lower())))
        pairs = (pair.split(":") for pair in self.lmm.split())
        rows = [(int(account), int(percent)) for account, percent in pairs]
        rows.sort(key=lambda row: row[1] > 0)  # who goes makes room first
        found += [(InstrumentRule.LMM, account << 32 | percent) for account, percent in rows]
        return found

    @property
    def reference_px(self) -> int:
        """Price at listing in ticks, 0: none."""
        if not self.reference:
            return 0
        units = decimal_units(self.reference, f"instrument {self.symbol}: reference")
        if units % self.tick_units or units // self.tick_units > self.px_max:
            raise ConfigError(
                f"instrument {self.symbol}: reference {self.reference} is no multiple of the tick"
                f" {self.tick}, or above the highest price"
            )
        return units // self.tick_units

    @property
    def px_max(self) -> int:
        """Highest price in ticks. By default the highest that ITCH's four decimals carry, where the
        tick allows them.
        """
        if self.max_price:
            units = decimal_units(self.max_price, f"instrument {self.symbol}: max_price")
            if units % self.tick_units:
                raise ConfigError(
                    f"instrument {self.symbol}: max_price {self.max_price} is no multiple"
                    f" of the tick {self.tick}"
                )
            return units // self.tick_units
        if self.tick_units % ITCH_TICK_UNIT == 0:
            return min(PRICE_TICKS_MAX, ITCH_PRICE_MAX // (self.tick_units // ITCH_TICK_UNIT))
        return PRICE_TICKS_MAX


def decimal_units(text: str, what: str) -> int:
    """Exact decimal text as an integer of 1e-9; ConfigError when it is not one or not positive."""
    try:
        value = Decimal(text) * UNITS
        units = int(value)
    except ArithmeticError as error:
        raise ConfigError(f"{what} must be a decimal number, not {text!r}") from error
    if value != units or units < 1 or units >= 2**62:
        raise ConfigError(f"{what} must be a positive multiple of 0.000000001, not {text!r}")
    return units


def check_instrument(instrument: Instrument) -> None:
    """Raise ConfigError naming the first key of the instrument that cannot be."""
    try:
        pack_name(instrument.symbol)
    except ValueError as error:
        raise ConfigError(f"instrument: {error}") from error
    tick, lot, px_max = instrument.tick_units, instrument.lot_units, instrument.px_max
    if not 1 <= px_max <= PRICE_TICKS_MAX:
        raise ConfigError(
            f"instrument {instrument.symbol}: max_price must be 1 .. {PRICE_TICKS_MAX} ticks"
        )
    if tick * lot % UNITS:
        # Quote units are 1e-9: a lot at one tick must be worth a whole number of them (RULES §9).
        raise ConfigError(
            f"instrument {instrument.symbol}: tick x lot must be a whole number of 0.000000001"
        )
    assert px_max * QTY_LOTS_MAX < 2**62
    for key, value, known in (
        ("rules", instrument.rules, RuleSet.__members__),
        ("stp", instrument.stp, list(SelfTrade.__members__)[1:]),
    ):
        if value.upper() not in known:
            raise ConfigError(
                f"instrument {instrument.symbol}: {key} must be one of"
                f" {', '.join(name.lower() for name in known)}, not {value!r}"
            )
    if instrument.iceberg_parts < 1 or instrument.protection < 0:
        raise ConfigError(
            f"instrument {instrument.symbol}: iceberg_parts must be at least 1, protection at least"
            " 0 ticks"
        )
    _check_sharing(instrument)
    _check_batches(instrument)
    _check_bands(instrument)
    _check_calendar(instrument)
    stated = instrument.rule_values or instrument.calendar
    if stated and instrument.rule_set == RuleSet.PLAIN:
        raise ConfigError(
            f"instrument {instrument.symbol}: algorithm, lmm, bands, calendar and their like need"
            ' rules = "full"'
        )


def _check_calendar(instrument: Instrument) -> None:
    where = f"instrument {instrument.symbol}:"
    try:
        calendar_of(instrument.calendar)
    except ValueError as error:
        raise ConfigError(f"{where} calendar: {error}") from error
    if not 0 <= instrument.volatility_call_s <= CALL_S_MAX:
        raise ConfigError(f"{where} volatility_call_s must be 0 .. {CALL_S_MAX}")


def _check_bands(instrument: Instrument) -> None:
    where = f"instrument {instrument.symbol}:"
    for name in ("static_band", "dynamic_band"):
        if not -1 <= getattr(instrument, name) <= BAND_MAX:
            raise ConfigError(f"{where} {name} must be 0 .. {BAND_MAX}, or -1 to leave it")
    if instrument.on_breach.lower() not in ("", *ON_BREACH):
        raise ConfigError(
            f"{where} on_breach must be one of {', '.join(ON_BREACH)}, not {instrument.on_breach!r}"
        )
    _ = instrument.reference_px


def _check_batches(instrument: Instrument) -> None:
    for name, lowest, highest in (
        ("batch_ms", 0, QTY_LOTS_MAX),
        ("min_orders", 0, QTY_LOTS_MAX),
        ("balance_pct", -1, 100),
        ("max_wait_ms", -1, QTY_LOTS_MAX),
    ):
        if not lowest <= getattr(instrument, name) <= highest:
            raise ConfigError(
                f"instrument {instrument.symbol}: {name} must be {lowest + 1} .. {highest}, or"
                f" {lowest} to leave it"
            )


def _check_sharing(instrument: Instrument) -> None:
    # What a start sets by SET_RULE has to be what the engine takes.
    where = f"instrument {instrument.symbol}:"
    known = [a.name.lower() for a in Algorithm]
    if instrument.algorithm.lower() not in ("", *known):
        raise ConfigError(
            f"{where} algorithm must be one of {', '.join(known)}, not {instrument.algorithm!r}"
        )
    most = instrument.max_level_orders
    if not -1 <= instrument.fifo_percent <= 100 or not 0 <= most <= QTY_LOTS_MAX:
        raise ConfigError(
            f"{where} fifo_percent must be 0 .. 100, or -1 to leave it; max_level_orders at least"
            " 1, or 0 to leave it"
        )
    if not re.fullmatch(r"( *\d{1,9}:\d{1,2}\b)* *", instrument.lmm):
        raise ConfigError(
            f'{where} lmm must be like "3:40 4:10" (account:percent), not {instrument.lmm!r}'
        )
    lead = [value for rule, value in instrument.rule_values if rule == InstrumentRule.LMM]
    accounts, percents = [v >> 32 for v in lead], [v & 0xFFFFFFFF for v in lead]
    twice = len(set(accounts)) < len(accounts) or 0 in accounts
    if twice or sum(percents) > LEAD_PERCENT_MAX or sum(p > 0 for p in percents) > LEAD_MAX:
        raise ConfigError(
            f"{where} lmm may name {LEAD_MAX} accounts, each once, with"
            f" {LEAD_PERCENT_MAX} percent together"
        )
