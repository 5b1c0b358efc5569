"""Placement: every count of cores gives a plan that can run."""

import dataclasses
import zlib

import pytest

from engine.config import Config, ConfigError
from engine.sharding import SHARDS_MAX, plan_placement, shard_of_symbol


def placed(shards: int, *cores: int):
    return plan_placement(dataclasses.replace(Config(), shards=shards), cores)


def test_two_cores_give_the_shard_one_and_the_doors_the_other() -> None:
    plan = placed(0, 0, 1)
    assert plan.shard_cores == (1,)
    assert plan.door_cores == (0,)
    assert plan.dedicated == (True,)


def test_one_core_is_shared_by_everything() -> None:
    plan = placed(0, 5)
    assert (plan.shard_cores, plan.door_cores, plan.dedicated) == ((5,), (5,), (False,))


def test_more_shards_than_cores_share_and_leave_the_first_core_to_the_doors() -> None:
    plan = placed(4, 2, 3, 7)
    assert plan.shard_cores == (7, 3, 7, 3)
    assert plan.door_cores == (2,)
    assert plan.dedicated == (False, False, False, False)


@pytest.mark.parametrize("count", range(1, 17))
def test_automatic_count_leaves_a_core_for_the_doors_where_there_is_one(count: int) -> None:
    plan = placed(0, *range(count))
    assert len(plan.shard_cores) >= 1
    assert set(plan.shard_cores) | set(plan.door_cores) <= set(range(count))
    if count > 1:
        assert not set(plan.shard_cores) & set(plan.door_cores)
        assert all(plan.dedicated)


@pytest.mark.parametrize("shards", [-1, SHARDS_MAX + 1])
def test_impossible_shard_counts_are_refused(shards: int) -> None:
    with pytest.raises(ConfigError, match="shards must be"):
        placed(shards, 0, 1)


def test_symbol_goes_to_the_shard_of_its_crc() -> None:
    assert shard_of_symbol("AAPL", 3) == zlib.crc32(b"AAPL") % 3
    assert {shard_of_symbol(f"S{i}", 4) for i in range(64)} == {0, 1, 2, 3}
