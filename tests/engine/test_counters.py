"""Labelled counters and histograms: found by label, read by anybody, exact within 1 in 32."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from engine import counters
from engine.counters import (
    BUCKETS,
    HISTOGRAM_WORDS,
    MAXIMUM,
    SUM,
    VALUE_MAX,
    Counters,
    State,
    bucket_highest,
    bucket_lowest,
    histogram_record_many,
    percentiles,
    recorded,
)
from engine.segment import SegmentError, segment_name
from tests.engine.support import instance_name

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

PERCENTS = (0, 1, 25, 50, 90, 99, 99.9, 99.99, 100)


@pytest.fixture
def instance() -> str:
    return instance_name()


@pytest.fixture
def made(instance: str) -> Iterator[Counters]:
    found = Counters.create(
        instance, {"shard0": ["commands", "laps"], "feed": []}, {"shard0": ["step_ns", "wait_ns"]}
    )
    yield found
    found.close()
    found.unlink()


def histogram_of(values: np.ndarray) -> np.ndarray:
    words = np.zeros(HISTOGRAM_WORDS, np.int64)
    histogram_record_many(words, 0, values.astype(np.int64))
    return words


def exact(values: np.ndarray, percent: float) -> int:
    # The smallest value that `percent` of all do not exceed. NumPy's own inverted_cdf computes the
    # rank in floats and is one too high at 99.9 % of 20,000.
    rank = max(math.ceil(Fraction(str(percent)) * values.size / 100), 1)
    return int(np.sort(values)[rank - 1])


# ------------------------------------------------------------------------------------- histogram
def test_buckets_cover_every_value_once_without_gap() -> None:
    assert bucket_lowest(0) == 0
    assert all(bucket_highest(b) + 1 == bucket_lowest(b + 1) for b in range(BUCKETS))
    assert bucket_highest(BUCKETS - 1) == VALUE_MAX


@pytest.mark.parametrize("bucket", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 500, 1022, 1023])
def test_both_ends_of_a_bucket_fall_into_it(bucket: int) -> None:
    for value in (bucket_lowest(bucket), bucket_highest(bucket)):
        assert np.flatnonzero(histogram_of(np.array([value]))[:BUCKETS]).tolist() == [bucket]


def test_buckets_are_no_wider_than_one_in_32() -> None:
    widths = [(bucket_highest(b) - bucket_lowest(b)) / bucket_lowest(b) for b in range(1, BUCKETS)]
    assert max(widths) < 1 / 32


@pytest.mark.parametrize("scale", ["latency", "tiny", "wide"])
def test_percentiles_are_numpys_within_one_bucket(scale: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = {
        "latency": random.lognormal(10, 1.5, 20_000),
        "tiny": random.integers(0, 64, 5_000),
        "wide": 2.0 ** random.uniform(0, 35.9, 20_000),
    }[scale].astype(np.int64)
    found = percentiles(histogram_of(values), PERCENTS)
    for percent in PERCENTS:
        right = exact(values, percent)
        assert right <= found[percent] <= right + right // 32
    assert found[100] == values.max()


def test_values_below_64_are_exact() -> None:
    values = np.arange(64)
    assert percentiles(histogram_of(values), PERCENTS) == {p: exact(values, p) for p in PERCENTS}


def test_percentile_rank_is_not_one_too_high_for_float_reasons() -> None:
    words = histogram_of(np.array([1] * 999 + [50]))
    assert percentiles(words, (99.9,)) == {99.9: 1}


def test_values_beyond_the_range_count_in_the_last_bucket_with_exact_maximum() -> None:
    words = histogram_of(np.array([3, 2**40]))
    assert words[BUCKETS - 1] == 1
    assert percentiles(words, (100,)) == {100: 2**40}


def test_negative_value_counts_as_zero() -> None:
    words = histogram_of(np.array([-5]))
    assert recorded(words) == [(0, 1)]
    assert words[SUM] == 0


def test_empty_histogram_has_zero_percentiles() -> None:
    assert percentiles(np.zeros(HISTOGRAM_WORDS, np.int64), (50, 100)) == {50: 0, 100: 0}


def test_count_sum_and_maximum_are_exact() -> None:
    words = histogram_of(np.array([10, 1000, 123_456_789]))
    assert words[counters.COUNT : MAXIMUM + 1].tolist() == [3, 123_457_799, 123_456_789]


def test_recorded_values_feed_hdrhistogram_to_the_same_percentiles(seed: int) -> None:
    from hdrh.histogram import HdrHistogram

    values = np.random.default_rng(seed).lognormal(9, 1, 5000).astype(np.int64)
    words = histogram_of(values)
    other = HdrHistogram(1, VALUE_MAX, 3)
    for value, count in recorded(words):
        other.record_value(value, count)
    for percent, value in percentiles(words, (50, 90, 99)).items():
        assert other.get_value_at_percentile(percent) == pytest.approx(value, rel=0.001)


# --------------------------------------------------------------------------------------- segment
def test_every_block_begins_with_the_standard_labels_on_its_own_line(made: Counters) -> None:
    for block in made.blocks.values():
        assert block.labels[:3] == ("pid", "state", "heartbeat_ns")
        assert block.words.ctypes.data % 64 == 0
        assert all(block.histogram(h).ctypes.data % 64 == 0 for h in block.histograms)


def test_counters_and_histograms_do_not_overlap(made: Counters) -> None:
    block = made.block("shard0")
    for index, label in enumerate(block.labels):
        block.set(label, 100 + index)
    for number, label in enumerate(block.histograms):
        block.histogram(label)[:] = 7000 + number
    made.block("feed").set("pid", 9)
    assert list(block.snapshot().values()) == [100, 101, 102, 103, 104]
    assert set(block.histogram("step_ns").tolist()) == {7000}
    assert set(block.histogram("wait_ns").tolist()) == {7001}
    assert block.words[block.histogram_base("wait_ns")] == 7001


def test_add_counts_up(made: Counters) -> None:
    block = made.block("shard0")
    block.add("laps")
    block.add("laps", 4)
    assert block.get("laps") == 5
    assert block.index("laps") == 4


def test_unknown_label_is_a_key_error(made: Counters) -> None:
    with pytest.raises(KeyError):
        made.block("shard0").get("lapse")


@pytest.mark.later
def test_another_process_reads_by_label_knowing_only_the_instance(
    made: Counters, instance: str
) -> None:
    made.block("feed").set("state", State.RUNNING)
    block = made.block("shard0")
    histogram_record_many(block.words, block.histogram_base("step_ns"), np.array([500] * 3))
    code = (
        "import json, sys\n"
        "from engine.counters import Counters, percentiles\n"
        "c = Counters.open(sys.argv[1])\n"
        "out = {n: b.snapshot() for n, b in c.blocks.items()}\n"
        "out['p50'] = percentiles(c.block('shard0').histogram('step_ns'), (50,))[50]\n"
        "print(json.dumps(out))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, instance], capture_output=True, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    assert found["feed"]["state"] == State.RUNNING
    assert found["p50"] == 500


def test_attach_by_descriptor_sees_the_same_words(made: Counters) -> None:
    other = Counters.attach(os.dup(made.fd))
    made.block("shard0").set("commands", 77)
    assert other.block("shard0").get("commands") == 77
    other.close()


def test_label_given_twice_is_refused_and_leaves_nothing(instance: str) -> None:
    with pytest.raises(SegmentError, match="shard0 has a label twice"):
        Counters.create(instance, {"shard0": ["pid"]})
    with pytest.raises(SegmentError, match="blocks that do not exist: gateway0"):
        Counters.create(instance, {"shard0": []}, {"gateway0": ["rtt_ns"]})
    assert not os.path.exists("/dev/shm" + segment_name(instance, counters.KIND))


def test_labels_that_do_not_fit_the_segment_are_refused(made: Counters, instance: str) -> None:
    made.segment.words[0] = 2**40
    with pytest.raises(SegmentError, match="do not fit"):
        Counters.open(instance)


def test_several_counters_are_written_at_once(made: Counters) -> None:
    block = made.block("shard0")
    block.set_many(block.indexes(["laps", "commands"]), [7, 9])
    assert (block.get("commands"), block.get("laps")) == (9, 7)
