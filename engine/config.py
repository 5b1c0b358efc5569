"""Configuration: every limit, default and policy, checked once at start.

Cold. One TOML file (docs/protocol.md lists the keys), or the built-in demo. Values are frozen;
children receive them as JSON. Relations between limits are asserted beside them, with the reason.
"""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from engine.instrument import ITCH_PRICE_MAX as ITCH_PRICE_MAX
from engine.instrument import ITCH_TICK_UNIT as ITCH_TICK_UNIT
from engine.instrument import LEAD_MAX as LEAD_MAX
from engine.instrument import LEAD_PERCENT_MAX as LEAD_PERCENT_MAX
from engine.instrument import ON_BREACH as ON_BREACH
from engine.instrument import UNITS as UNITS
from engine.instrument import ConfigError as ConfigError
from engine.instrument import Instrument as Instrument
from engine.instrument import check_instrument
from engine.records import QTY_LOTS_MAX, SLOT_BITS, SYMBOL_INDEX_BITS, RuleSet


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
    account_limits_max: int = 4096  # (account, instrument) with limits

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
            "account_limits_max",
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
            check_instrument(instrument)
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
