"""Staging rings: where the words and the records are, and rings of one process alone."""

from pathlib import Path

import numpy as np
import pytest

from engine.segment import SegmentError, segment_name
from engine.staging import DURABLE, STAGED, WRITTEN, StagingRings
from tests.engine.support import instance_name


def test_records_are_found_across_the_end_of_the_ring() -> None:
    rings = StagingRings.private(2, 8)
    for shard in range(2):
        for in_seq in range(11, 17):
            rings.slots["in_seq"][shard * 8 + (in_seq - 1 & 7)] = 100 * shard + in_seq
    assert rings.records(1, 12, 16)["in_seq"].tolist() == [113, 114, 115, 116]
    assert rings.slot_words[8 * 24 :].size == 8 * 24
    rings.close()


def test_ring_begins_where_it_is_told() -> None:
    rings = StagingRings.private(2, 8)
    rings.begin(1, 77)
    assert [rings.get(1, word) for word in (STAGED, WRITTEN, DURABLE)] == [77, 77, 77]
    assert not np.any(rings.ctrl[:64])
    rings.close()


def test_private_rings_have_neither_name_nor_descriptor() -> None:
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    rings = StagingRings.private(1, 8)
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
    assert (rings.fd, rings.segment.name) == (-1, "")
    assert (rings.segment.kind, rings.segment.params) == ("staging", (1, 8))
    rings.close()
    rings.close()


def test_shared_rings_have_the_same_layout() -> None:
    made = StagingRings.create(segment_name(instance_name(), StagingRings.kind), 2, 8)
    try:
        private = StagingRings.private(2, 8)
        assert made.segment.size == private.segment.size
        private.close()
    finally:
        made.unlink()
        made.close()


@pytest.mark.parametrize("capacity", [0, 1, 3, 100])
def test_capacity_must_be_a_power_of_two(capacity: int) -> None:
    with pytest.raises(SegmentError):
        StagingRings.private(1, capacity)
