"""What the garbage collector takes is counted: every collection, with its time."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from engine.counters import (
    COLLECTOR_COUNTERS,
    COLLECTOR_HISTOGRAM,
    COUNT,
    MAXIMUM,
    SUM,
    Block,
    Counters,
    collector_watched,
)

pytestmark = pytest.mark.nojit


@pytest.fixture(autouse=True)
def by_hand() -> Iterator[None]:
    """Only the collections that a test asks for, and not of what all other tests have left."""
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.fixture
def block() -> Iterator[Block]:
    labels, histograms = {"gateway0": COLLECTOR_COUNTERS}, {"gateway0": (COLLECTOR_HISTOGRAM,)}
    made = Counters.private(labels, histograms)
    yield made.block("gateway0")
    made.close()


def counted(block: Block) -> tuple[int, int, int]:
    count, total, longest = (block.get(label) for label in COLLECTOR_COUNTERS)
    return count, total, longest


def test_every_collection_is_counted_with_its_time(block: Block) -> None:
    with collector_watched(lambda: block):
        assert counted(block) == (0, 0, 0)
        gc.collect()
        one = counted(block)
        gc.collect(0)
        two = counted(block)
    assert (one[0], two[0]) == (1, 2)
    assert one[1] == one[2] > 0
    assert two[1] > one[1]
    assert one[2] <= two[2] <= two[1]
    words = block.histogram(COLLECTOR_HISTOGRAM)
    assert tuple(int(words[word]) for word in (COUNT, SUM, MAXIMUM)) == two


def test_a_collection_with_more_to_look_at_is_the_longest(block: Block) -> None:
    with collector_watched(lambda: block):
        gc.collect(0)  # next to nothing: the rest was looked at a moment ago, or is frozen
        before = counted(block)[2]
        held = [[] for _ in range(300_000)]  # type: list[list[object]]
        gc.collect()
        after = counted(block)[2]
        del held
        gc.collect(0)
    assert after > before
    assert counted(block)[2] >= after


def test_nothing_is_counted_before_and_after(block: Block) -> None:
    before = list(gc.callbacks)
    gc.collect()
    with collector_watched(lambda: block):
        pass
    gc.collect()
    assert counted(block) == (0, 0, 0)
    assert gc.callbacks == before


def test_another_process_goes_on_with_the_counts_of_the_one_before(block: Block) -> None:
    for count in (1, 2, 3):
        with collector_watched(lambda: block):
            gc.collect()
        assert counted(block)[0] == count


def test_a_block_that_is_not_there_or_has_no_place_for_it_is_left_alone() -> None:
    made = Counters.private({"gateway0": ("lines",)}, {})
    bare = made.block("gateway0")
    for found in (None, bare):
        with collector_watched(lambda found=found: found):  # type: ignore[misc]
            gc.collect()
    assert set(bare.snapshot().values()) == {0}
    made.close()
