"""Configuration: what cannot run is refused with the key that is wrong."""

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.admin import list_protections
from engine.config import (
    Config,
    ConfigError,
    Instrument,
    Journal,
    Rings,
    ShardLimits,
    config_from_mapping,
    load_config,
)  # fmt: skip
from engine.records import Algorithm, CommandKind, InstrumentRule, pack_name


def test_built_in_configuration_survives_json() -> None:
    config = load_config()
    assert config_from_mapping(orjson.loads(config.to_json())) == config


def test_toml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        'shards = 2\nunknown_symbol = "reject"\n[network]\nport = 9500\n'
        '[[instruments]]\nsymbol = "XYZ"\ntick = "0.5"\n'
        '[[accounts]]\nname = "me"\naccount = 7\ntoken = "t"\n'
    )
    config = load_config(path)
    assert (config.shards, config.network.port) == (2, 9500)
    assert config.instruments == (Instrument("XYZ", "0.5"),)
    assert config.accounts[0].account == 7


def shared(**terms: object) -> dict[str, object]:
    return {"instruments": [{"symbol": "A", "rules": "full"} | terms]}


def test_stated_rules_of_an_instrument_are_what_a_start_sets() -> None:
    instrument = Instrument("A", rules="full", algorithm="fifo_pro_rata", fifo_percent=0)
    assert instrument.rule_values == [
        (InstrumentRule.ALGORITHM, Algorithm.FIFO_PRO_RATA),
        (InstrumentRule.FIFO_PERCENT, 0),
    ]
    # Who goes makes room for who comes.
    instrument = Instrument("A", rules="full", lmm="4:50 3:0", max_level_orders=9)
    assert instrument.rule_values == [
        (InstrumentRule.MAX_LEVEL_ORDERS, 9),
        (InstrumentRule.LMM, 3 << 32),
        (InstrumentRule.LMM, 4 << 32 | 50),
    ]
    assert Instrument("A", rules="full").rule_values == []
    # Before the batch mode that asks for them.
    batch = {"batch_ms": 5, "min_orders": 3, "balance_pct": 0, "max_wait_ms": 0}
    assert Instrument("A", rules="full", algorithm="balanced_batch", **batch).rule_values == [
        (InstrumentRule.BATCH_MS, 5),
        (InstrumentRule.MIN_ORDERS, 3),
        (InstrumentRule.BALANCE_PCT, 0),
        (InstrumentRule.MAX_WAIT_MS, 0),
        (InstrumentRule.ALGORITHM, 6),
    ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"shardz": 1}, "unknown key shardz"),
        ({"shards": "two"}, "whole number"),
        ({"shards": True}, "whole number"),
        ({"idle": "sometimes"}, "adaptive, spin or park"),
        ({"unknown_symbol": "maybe"}, "create or reject"),
        ({"instance": "a/b"}, "short identifier"),
        ({"instruments": [{"symbol": "TOOLONGNAME"}]}, "1 to 8 printable"),
        ({"instruments": [{"symbol": "A"}, {"symbol": "A"}]}, "instrument given twice: A"),
        ({"instruments": [{"symbol": "A", "tick": "0"}]}, "positive multiple"),
        ({"instruments": [{"symbol": "A", "tick": "abc"}]}, "decimal number"),
        ({"instruments": [{"symbol": "A", "tick": "0.0000000001"}]}, "positive multiple"),
        ({"instruments": [{"symbol": "A", "tick": "0.000001", "lot": "0.0001"}]}, "tick x lot"),
        ({"instruments": [{"symbol": "A", "max_price": "0.015"}]}, "multiple"),
        ({"instruments": [{"symbol": "A", "tick": "1", "max_price": "3000000000"}]}, "ticks"),
        ({"accounts": [{"name": "a", "account": 0, "token": ""}]}, "number must be"),
        ({"accounts": [{"name": "a", "account": 1, "token": "", "throttle": "x"}]}, "no throttle"),
        ({"shard": {"orders_max": 1 << 24}}, "orders_max"),
        ({"shard": {"slice_events": 16_384}}, "slice_events"),
        ({"rings": {"command_capacity": 1000}}, "power of two"),
        ({"rings": {"event_capacity": 32_768}}, "4 * events_per_command_max"),
        ({"network": []}, "expected a table"),
        (shared(algorithm="lifo"), "algorithm must be one of fifo, pro_rata"),
        (shared(batch_ms=-1), "batch_ms must be 1"),
        (shared(min_orders=-1), "min_orders"),
        (shared(balance_pct=101), "balance_pct must be 0 .. 100"),
        (shared(max_wait_ms=-2), "max_wait_ms"),
        (shared(rules="plain", batch_ms=5), 'need rules = "full"'),
        (shared(fifo_percent=101), "fifo_percent must be 0 .. 100"),
        (shared(max_level_orders=-1), "max_level_orders"),
        (shared(lmm="alice:40"), "account:percent"),
        (shared(lmm="3:30 4:30"), "50 percent together"),
        (shared(lmm="3:10 3:20"), "each once"),
        (shared(rules="plain", algorithm="pro_rata"), 'need rules = "full"'),
    ],
)
def test_wrong_configuration_names_its_key(data: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("*", r"\*")):
        config_from_mapping(data)


def test_start_states_the_protections_of_a_shards_instruments() -> None:
    config = config_from_mapping(
        {
            "instruments": [{"symbol": "GOLD", "rules": "full"}],
            "protections": [{"account": "alice", "symbol": "GOLD", "lots": 100, "window_ms": 250}],
        }
    )
    (row,) = list_protections(config, {"GOLD"})
    assert row["kind"] == CommandKind.SET_LIMITS
    assert (row["account"], row["qty"], row["amount"]) == (2, 100, 250_000_000)
    assert (row["order_type"], row["symbol"]) == (1, pack_name("GOLD"))
    assert list_protections(config, {"AAPL"}) == []


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"account": "nobody", "symbol": "GOLD", "lots": 1}, "no such account"),
        ({"account": "alice", "symbol": "AAPL", "lots": 1}, "no instrument of that name"),
        ({"account": "alice", "symbol": "GOLD", "lots": -1}, "lots must be"),
        ({"account": "alice", "symbol": "GOLD", "lots": 1, "window_ms": 0}, "window_ms 1 to"),
    ],
)
def test_wrong_protection_names_what_is_wrong(row: dict[str, Any], sentence: str) -> None:
    instruments = [{"symbol": "GOLD", "rules": "full"}, {"symbol": "AAPL"}]
    with pytest.raises(ConfigError, match=sentence):
        config_from_mapping({"instruments": instruments, "protections": [row]})


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


def test_highest_price_is_what_four_decimals_carry_where_the_tick_has_them() -> None:
    assert Instrument("A", "0.01").px_max == 42_949_672
    assert Instrument("A", "0.0001").px_max == 2**31 - 1
    assert Instrument("A", "0.00001").px_max == 2**31 - 1
    assert Instrument("A", "0.01", max_price="100").px_max == 10_000


def test_limits_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(ShardLimits(), batch_max=0).check()
    Rings().check(ShardLimits())
    Config().check()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": "fast"}, "must be one of none, os, batch, sync"),
        ({"sync_ms": 81}, "sync_ms must be 1"),
        ({"sync_ms": 0}, "sync_ms must be 1"),
        ({"staging_capacity": 1000}, "staging_capacity must be a power of two"),
        ({"staging_capacity": 512}, "power of two of at least 520"),
        ({"segment_bytes": 20_000}, "segment_bytes must be a multiple of 4096"),
        ({"log_events_max": 1000}, "log_events_max must be at least two log segments"),
    ],
)
def test_journal_that_cannot_work_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Journal(**changes).check(ShardLimits())
