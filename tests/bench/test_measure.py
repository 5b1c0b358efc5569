"""Medians, intervals, targets: the arithmetic every claim rests on."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest

from bench.measure import (
    Pairs,
    Row,
    configuration,
    interleave,
    median_interval,
    percentiles_us,
    pinned,
    ratio_at_least,
    ratio_at_most,
    value_at_least,
    value_at_most,
    warnings_of,
)


def test_interval_of_nine_values_is_second_to_eighth() -> None:
    # P(median outside [x2, x8]) = 2 * (1 + 9) / 2**9 = 3.9 %; [x3, x7] would already miss 18 %.
    assert median_interval([9, 1, 8, 2, 7, 3, 6, 4, 5]) == (2, 8)


def test_interval_of_few_values_is_their_range() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert median_interval([5.0]) == (5.0, 5.0)


def test_interval_covers_the_median_of_a_skewed_distribution_as_promised() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(2000):
        low, high = median_interval(rng.exponential(size=11).tolist())
        inside += low <= math.log(2) <= high
    assert inside / 2000 > 0.93


def test_interleaving_alternates_which_side_goes_first() -> None:
    calls: list[str] = []
    pairs = interleave(3, lambda: calls.append("thing"), lambda: calls.append("floor"))
    assert calls == ["thing", "floor", "floor", "thing", "thing", "floor"]
    assert len(pairs) == 3


def test_ratio_is_the_median_of_pair_ratios_not_the_ratio_of_medians() -> None:
    pairs = Pairs([10.0, 40.0, 90.0], [10.0, 20.0, 10.0])
    row = pairs.row("x", "ns", targets=(ratio_at_most(2),))
    assert row.ratio == 2.0
    assert row.value / row.floor == 4.0
    assert row.met is True


@pytest.mark.parametrize(
    ("targets", "met"),
    [
        ((), None),
        ((ratio_at_most(2),), True),
        ((ratio_at_most(1.9),), False),
        ((ratio_at_least(2), value_at_least(10, "/s")), True),
        ((ratio_at_least(2), value_at_least(10.1, "/s")), False),
        ((value_at_most(10, "µs"),), True),
    ],
)
def test_row_meets_its_targets_only_all_together(targets: tuple, met: bool | None) -> None:
    assert Row("x", 10.0, "/s", ratio=2.0, targets=targets).met is met


def test_void_or_missing_figure_meets_nothing() -> None:
    assert (
        Row("x", 1, "ns", ratio=1.0, targets=(ratio_at_most(2),), void="wrong answer").met is False
    )
    assert Row("x", 1, "ns", targets=(ratio_at_most(2),)).met is False
    assert Row("x", math.nan, "ns", targets=(value_at_most(2, "ns"),)).met is False


def test_row_as_json_has_the_agreed_keys() -> None:
    row = Row("x", 1.0, "ns", targets=(value_at_most(2, "ns"),))
    data = json.loads(json.dumps(row.as_json()))
    agreed = {"name", "value", "unit", "floor", "baseline", "ratio", "target", "met"}
    assert agreed <= set(data)
    assert data["target"] == "≤ 2 ns"
    assert data["met"] is True


def test_targets_are_written_out() -> None:
    assert value_at_least(1_000_000, "orders/s").text == "≥ 1,000,000 orders/s"
    assert ratio_at_most(1.6).text == "≤ 1.6×"


def test_percentiles_are_microseconds() -> None:
    found = percentiles_us(np.arange(1, 100_001, dtype=np.int64))
    assert found["p50"] == pytest.approx(50.0, abs=0.01)
    assert found["p99.9"] == pytest.approx(99.9, abs=0.01)
    assert found["max"] == 100.0


def test_pinning_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with pinned(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_configuration_names_what_a_figure_holds_for() -> None:
    config = configuration(idle="adaptive")
    wanted = "machine kernel governor cores versions commit flavour idle load_before time".split()
    assert set(wanted) <= set(config)
    assert config["versions"]["numba"]


def test_warnings_say_when_figures_are_not_to_be_trusted() -> None:
    sound = dict(virtual=False, cores=[0, 1, 2, 3], load_before=0.1, governor="performance")
    sound |= {"flavour": "prod"}
    assert warnings_of(sound, busy_processes=3) == []
    assert any("virtual" in w for w in warnings_of(sound | {"virtual": True}))
    assert any("busy" in w for w in warnings_of(sound, busy_processes=5))
    assert any("load" in w for w in warnings_of(sound | {"load_before": 3.0}))
    assert any("governor" in w for w in warnings_of(sound | {"governor": "powersave"}))
    assert any("flavour" in w for w in warnings_of(sound | {"flavour": "check"}))
