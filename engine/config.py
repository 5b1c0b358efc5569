"""Configuration: every limit, default and policy, checked once at start.

Cold. One TOML file (docs/protocol.md lists the keys), or the built-in demo. Values are frozen;
children receive them as JSON. Relations between limits are asserted beside them, with the reason.
"""

import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from engine.calendars import calendar_of
from engine.records import (
    PRICE_TICKS_MAX,
    QTY_LOTS_MAX,
    SLOT_BITS,
    SYMBOL_INDEX_BITS,
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


@dataclass(frozen=True)
class Account:
    """Who may trade. `throttle` names a class of Config.throttles."""

    name: str
    account: int
    token: str
    throttle: str = "normal"


@dataclass(frozen=True)
class Protection:
    """Market-maker protection: what may be filled on the quotes of an account in an instrument with
    the full rules before they are pulled. A start does not arm one again that has fired.
    """

    account: str
    symbol: str
    lots: int  # 0: unprotected
    window_ms: int = 1000


@dataclass(frozen=True)
class Throttle:
    """Token buckets of one class, per session; 0 means without limit. Cancels have their own,
    higher bucket.
    """

    name: str
    orders_per_s: int = 500
    cancels_per_s: int = 1000
    window_s: int = 3
    logout_factor: float = 1.5  # over this share of the rate the session is logged out


@dataclass(frozen=True)
class ShardLimits:
    """Sizes of one shard's arrays; all memory is taken at start."""

    orders_max: int = 1 << 18
    levels_max: int = 1 << 15
    symbols_max: int = 1024
    sessions_max: int = 4096
    accounts_max: int = 4096
    text_ids_max: int = 1 << 16
    quoters_max: int = 4096  # pairs of an account and an instrument that quote or are protected
    max_walk: int = 100_000
    slice_events: int = (
        16_000  # a slice ends before the first unit that would start after this many events
    )
    events_per_command_max: int = 16_384
    batch_max: int = 256

    def check(self) -> None:
        """Raise ConfigError where two limits do not fit."""
        if not 2 <= self.orders_max < 1 << SLOT_BITS:
            raise ConfigError(
                f"orders_max must be 2 .. {(1 << SLOT_BITS) - 1}: the slot is part of order_id"
            )
        if not 1 <= self.symbols_max < 1 << SYMBOL_INDEX_BITS:
            raise ConfigError(
                f"symbols_max must be 1 .. {(1 << SYMBOL_INDEX_BITS) - 1}:"
                " the index is part of symbol_id"
            )
        if self.slice_events + 64 > self.events_per_command_max:
            raise ConfigError(
                "slice_events + 64 must not exceed events_per_command_max: a unit started must fit"
            )
        for name in (
            "levels_max",
            "sessions_max",
            "accounts_max",
            "text_ids_max",
            "quoters_max",
            "max_walk",
            "slice_events",
            "batch_max",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")


@dataclass(frozen=True)
class GatewayLimits:
    """Bounds of order entry (RELIABILITY, limits table)."""

    line_bytes_max: int = 2048
    output_bytes_max: int = 1 << 20  # reports that may wait for one client, for long
    output_burst_bytes: int = 32 << 20  # beyond that, all clients together, while they read on
    sessions_max: int = 1000
    connections_max: int = 4096
    connections_per_ip_per_s: int = 0  # 0: without limit (loopback tests open thousands)
    logon_deadline_s: float = 5.0
    heartbeat_s: float = 1.0
    idle_dead_s: float = 15.0
    auth_failure_delay_s: float = 0.25
    page_rows_max: int = 100
    # How long sessions of a gateway that died stay open for their clients to come back.
    session_grace_s: float = 10.0
    dead_man_min_s: float = 0.5  # shortest dead-man time a client may ask for


@dataclass(frozen=True)
class Network:
    host: str = "127.0.0.1"
    port: int = 9100
    feed_group: str = "239.255.70.1"  # shard n uses port feed_port + n
    feed_port: int = 9200
    feed_interface: str = "127.0.0.1"
    directory_port: int = 9199
    health_host: str = "127.0.0.1"
    health_port: int = 9198  # 0: any free one, as with `port`; -1: no endpoint
    feed_heartbeat_s: float = 1.0
    datagram_bytes_max: int = 1400


@dataclass(frozen=True)
class Rings:
    producers: int = 16
    command_capacity: int = 8192
    event_capacity: int = 65_536

    def check(self, shard: ShardLimits) -> None:
        """Raise ConfigError unless capacities are powers of two and the event ring holds four of
        the longest commands.
        """
        for name in ("command_capacity", "event_capacity"):
            value = getattr(self, name)
            if value < 2 or value & (value - 1):
                raise ConfigError(f"{name} must be a power of two")
        if self.event_capacity < 4 * shard.events_per_command_max:
            raise ConfigError(
                "event_capacity must be at least 4 * events_per_command_max:"
                " half of it is slack for readers"
            )


@dataclass(frozen=True)
class Journal:
    """Where the truth is kept, and when an acknowledgement may go out (DESIGN §6).

    `os`: synced about once a second, a power cut may lose that. `batch`: a sync starts every
    sync_ms, a power cut loses acknowledgements of at most loss_window_ms. `sync`: nothing is
    acknowledged before it is on disk. In all three the end of any process loses nothing. `none`: no
    journal.
    """

    directory: str = ""  # "": a temporary one that goes with the instance
    mode: str = "batch"
    sync_ms: int = 10
    loss_window_ms: int = 100
    segment_bytes: int = 64 << 20
    staging_capacity: int = 1 << 17  # commands between the shard and the disk
    retention_segments: int = 0  # old segments kept behind what is needed; 0: all of them
    snapshot_commands: int = 2_000_000
    log_segment_events: int = 1 << 18
    log_events_max: int = 1 << 23  # reports kept for resuming clients, per shard
    free_bytes_min: int = 256 << 20  # less room on the disk closes the gate

    def check(self, shard: ShardLimits) -> None:
        """Raise ConfigError naming the first key that cannot be."""
        if self.mode not in JOURNAL_MODES:
            raise ConfigError(
                f"journal.mode must be one of {', '.join(JOURNAL_MODES)}, not {self.mode!r}"
            )
        if not 1 <= self.sync_ms <= self.loss_window_ms - 2 * LOSS_MARGIN_MS:
            raise ConfigError(
                f"journal.sync_ms must be 1 .. loss_window_ms - {2 * LOSS_MARGIN_MS}:"
                " the gate closes before the window is over"
            )
        capacity = self.staging_capacity
        least = 2 * (shard.batch_max + GATE_SLOTS)
        if capacity & (capacity - 1) or capacity < least:
            raise ConfigError(
                f"journal.staging_capacity must be a power of two of at least {least}: two batches"
                " and what the gate keeps free"
            )
        for name in ("segment_bytes", "log_segment_events", "snapshot_commands"):
            if getattr(self, name) < 1:
                raise ConfigError(f"journal.{name} must be at least 1")
        if self.segment_bytes % 4096 or self.segment_bytes < 16_384:
            raise ConfigError("journal.segment_bytes must be a multiple of 4096, at least 16384")
        if self.log_events_max < 2 * self.log_segment_events:
            raise ConfigError("journal.log_events_max must be at least two log segments")


JOURNAL_MODES = ("none", "os", "batch", "sync")
GATE_SLOTS = 4  # of the staging ring, beyond a batch: fewer free close the gate
LOSS_MARGIN_MS = 10  # the gate closes this long before the window is over


DEMO_INSTRUMENTS = (
    Instrument("AAPL", "0.01", "1"),
    Instrument("MSFT", "0.01", "1"),
    Instrument("BTCUSDT", "0.01", "0.00001"),
    Instrument("ETHUSDT", "0.01", "0.0001"),
)
DEMO_ACCOUNTS = (
    Account("demo", 1, "demo", "normal"),
    Account("alice", 2, "alice", "normal"),
    Account("bob", 3, "bob", "normal"),
    Account("agents", 4, "agents", "unlimited"),
    Account("replay", 5, "replay", "unlimited"),
    Account("bench", 6, "bench", "unlimited"),
)
DEMO_THROTTLES = (Throttle("normal"), Throttle("unlimited", 0, 0))


@dataclass(frozen=True)
class Config:
    """The whole configuration of one instance."""

    instance: str = "ringbook"
    shards: int = 0  # 0: one less than the cores really available, at least one
    idle: str = "adaptive"  # adaptive | spin | park
    unknown_symbol: str = "create"  # create | reject
    template: Instrument = field(default_factory=lambda: Instrument("TEMPLATE"))
    instruments: tuple[Instrument, ...] = DEMO_INSTRUMENTS
    accounts: tuple[Account, ...] = DEMO_ACCOUNTS
    throttles: tuple[Throttle, ...] = DEMO_THROTTLES
    protections: tuple[Protection, ...] = ()
    shard: ShardLimits = field(default_factory=ShardLimits)
    rings: Rings = field(default_factory=Rings)
    gateway: GatewayLimits = field(default_factory=GatewayLimits)
    network: Network = field(default_factory=Network)
    journal: Journal = field(default_factory=Journal)

    def check(self) -> "Config":
        """Return self, or raise ConfigError naming the first key that cannot be."""
        self.shard.check()
        self.rings.check(self.shard)
        self.journal.check(self.shard)
        if self.idle not in ("adaptive", "spin", "park"):
            raise ConfigError(f"idle must be adaptive, spin or park, not {self.idle!r}")
        if self.unknown_symbol not in ("create", "reject"):
            raise ConfigError(
                f"unknown_symbol must be create or reject, not {self.unknown_symbol!r}"
            )
        if not self.instance.isidentifier() or len(self.instance) > 24:
            raise ConfigError(
                "instance must be a short identifier: it names the shared memory segments"
            )
        _check_unique("instrument", [i.symbol for i in self.instruments])
        _check_unique("account", [a.name for a in self.accounts])
        _check_unique("account number", [a.account for a in self.accounts])
        throttles = {t.name for t in self.throttles}
        for instrument in (*self.instruments, self.template):
            _check_instrument(instrument)
        for account in self.accounts:
            if not 1 <= account.account < self.shard.accounts_max:
                raise ConfigError(
                    f"account {account.name}: number must be 1 .. {self.shard.accounts_max - 1}"
                )
            if account.throttle not in throttles:
                raise ConfigError(f"account {account.name}: no throttle class {account.throttle!r}")
        for protection in self.protections:
            self._check_protection(protection)
        return self

    def _check_protection(self, protection: Protection) -> None:
        where = f"protection of {protection.account} in {protection.symbol}:"
        if protection.account not in {a.name for a in self.accounts}:
            raise ConfigError(f"{where} no such account")
        full = {i.symbol for i in self.instruments if i.rule_set == RuleSet.FULL}
        if protection.symbol not in full:
            raise ConfigError(f'{where} no instrument of that name with rules = "full"')
        longest = 1000 * 86_400 * 365
        if not 0 <= protection.lots <= QTY_LOTS_MAX or not 1 <= protection.window_ms <= longest:
            raise ConfigError(f"{where} lots must be at least 0, window_ms 1 to {longest}")

    def to_json(self) -> bytes:
        return orjson.dumps(dataclasses.asdict(self))


def _check_unique(what: str, values: list[Any]) -> None:
    twice = {v for v in values if values.count(v) > 1}
    if twice:
        raise ConfigError(f"{what} given twice: {', '.join(map(str, sorted(twice)))}")


def _check_instrument(instrument: Instrument) -> None:
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


def config_from_mapping(data: dict[str, Any]) -> Config:
    """Build and check a Config from plain data (TOML or JSON); unknown keys are refused."""
    nested = {
        "shard": ShardLimits,
        "rings": Rings,
        "gateway": GatewayLimits,
        "network": Network,
        "journal": Journal,
        "template": Instrument,
    }
    lists = {
        "instruments": Instrument,
        "accounts": Account,
        "throttles": Throttle,
        "protections": Protection,
    }
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in nested:
            values[key] = _build(nested[key], value, key)
        elif key in lists:
            values[key] = tuple(_build(lists[key], row, key) for row in value)
        else:
            values[key] = value
    config: Config = _build(Config, values, "config")
    return config.check()


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a table")
    names = {f.name: f for f in dataclasses.fields(kind)}
    unknown = set(values) - set(names)
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {', '.join(sorted(unknown))}; known: {', '.join(names)}"
        )
    for name, value in values.items():
        expected = names[name].type
        if expected in ("int", int) and type(value) is not int:
            raise ConfigError(f"{where}.{name}: expected a whole number, not {value!r}")
        if expected in ("str", str) and not isinstance(value, str):
            raise ConfigError(f"{where}.{name}: expected text in quotes, not {value!r}")
        if expected in ("tuple[str, ...]", tuple[str, ...]):
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise ConfigError(f"{where}.{name}: expected a list of texts, not {value!r}")
            values = {**values, name: tuple(value)}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def load_config(path: Path | None = None) -> Config:
    """Read a TOML file, or give the built-in demo configuration."""
    if path is None:
        return Config().check()
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config_from_mapping(data)
