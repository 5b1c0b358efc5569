"""The event log when its disk fails, its writer is killed or the power goes, at any operation."""

from __future__ import annotations

import errno
import random

import numpy as np
import pytest

from engine.event_log import EventLog, EventLogWriter, EventsGone
from tests.engine.log_kit import (
    ACCOUNTS,
    EVENTS_MAX,
    SEGMENT,
    joined,
    new_disk,
    new_writer,
    of_account,
    put,
    stream,
)
from tests.sim.sim_disk import PowerCut


def append_and_sync(writer: EventLogWriter, events: np.ndarray) -> None:
    put(writer, events)
    writer.sync()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_d4_an_error_of_any_operation_can_be_tried_again_unless_it_was_a_sync(error: int) -> None:
    events = stream(100)
    probe = new_disk()
    writer = new_writer(probe)
    before = probe.operations
    append_and_sync(writer, events)
    failed_syncs = 0
    for at in range(1, probe.operations - before + 1):
        disk = new_disk()
        writer = new_writer(disk)
        disk.fail(at, error)
        with pytest.raises(OSError, match=r"space|error"):
            append_and_sync(writer, events)
        failed = disk.store.trace[-1].split()
        disk.heal()
        if failed[0] == "fdatasync" and not failed[1].endswith(".tmp"):
            failed_syncs += 1
            with pytest.raises(OSError, match="sync of the event log failed"):
                writer.sync()
            with pytest.raises(OSError, match="sync of the event log failed"):
                put(writer, stream(200)[writer.end :])
            with pytest.raises(ValueError, match="up to event"):
                writer.open(writer.durable + 1)
            assert writer.open(writer.durable) == ""
        append_and_sync(writer, events[writer.end :])
        assert (writer.end, writer.durable) == (100, 100)
        oldest = writer.oldest
        disk.crash(random.Random(at))
        reader = EventLog(disk, "d", 2, lambda: 100)
        assert reader.oldest() == oldest <= 100 - 3 * SEGMENT
        assert reader.read(oldest - 1, 100).tobytes() == events[oldest - 1 :].tobytes()
        assert [n for n in disk.listdir("d/shard2") if n.endswith(".tmp")] == []
    assert failed_syncs == 7  # six segments and the end


def test_what_the_failed_sync_of_a_dead_writer_left_clean_is_written_again() -> None:
    disk, events = new_disk(), stream(2 * SEGMENT - 3)
    writer = new_writer(disk)
    put(writer, events[:20])
    writer.sync()
    put(writer, events[20:])
    disk.fail(1, errno.EIO, names=("fdatasync",))
    with pytest.raises(OSError, match="error"):
        writer.sync()
    disk.heal()
    end, sure = writer.end, writer.durable
    assert sure == 20
    disk.kill()
    again = EventLogWriter(disk, "d", 2, SEGMENT, EVENTS_MAX)
    assert again.open(end, sure=sure) == ""
    again.sync()
    disk.crash(random.Random(1))
    reader = EventLog(disk, "d", 2, lambda: end)
    assert reader.read(0, 100).tobytes() == events.tobytes()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.later
def test_d3_random_lives_of_a_log_equal_a_list(seed: int) -> None:
    """Appends, syncs, kills, power cuts in the middle of anything, restarts further back; readers
    that live through all of it.
    """
    choose = random.Random(seed)
    events = stream(4000, seed)
    segment = choose.choice((5, 16, 33))
    most = segment * choose.choice((2, 5, 50))
    disk = new_disk()
    shown, durable, end = 0, 0, 0

    def two_readers() -> list[EventLog]:
        return [EventLog(disk.process(), "d", 2, lambda: shown) for _ in range(2)]

    readers = two_readers()
    writer = new_writer(disk, segment=segment, most=most)
    kept_from = 0
    for _ in range(120):
        kept_from = max(kept_from, writer.oldest)
        action = choose.random()
        if action < 0.6:
            count = choose.choice((1, 2, 5, 30))
            put(writer, events[writer.end : writer.end + count])
            if choose.random() < 0.5:
                writer.sync()
            shown, durable, end = writer.end, max(durable, writer.durable), writer.end
        elif action < 0.75:  # the follower dies and starts again at its last snapshot
            disk.kill()
            shown = choose.randint(max(end - choose.choice((0, 10, 100)), 0), end)
            durable = min(durable, shown)
            writer = EventLogWriter(disk, "d", 2, segment, most, epoch=choose.randrange(9))
            oldest = readers[0].oldest()
            said = writer.open(shown)
            assert bool(said) == (shown > 0 and oldest > shown)
            end, kept_from = writer.end, writer.oldest
        else:  # the power fails in the midst of an append, a sync or a restart
            disk.cut_power(choose.randint(1, 12))
            low = choose.randint(max(durable - choose.choice((0, 30)), 0), durable)
            try:
                while True:
                    if choose.random() < 0.3:
                        writer = EventLogWriter(disk, "d", 2, segment, most)
                        writer.open(low)
                    put(writer, events[writer.end : writer.end + 9])
                    writer.sync()
                    kept_from = max(kept_from, writer.oldest)
            except PowerCut:
                disk.crash(random.Random(choose.random()))
            for reader in readers:
                reader._disk.kill()  # type: ignore[attr-defined]
            readers = two_readers()
            # What a snapshot may name was synced before it: the log must still hold that.
            shown = low
            oldest = readers[0].oldest()
            writer = EventLogWriter(disk, "d", 2, segment, most)
            said = writer.open(low)
            assert not said or oldest > low
            # One more segment may have gone to make room when the power failed.
            assert not said or low < kept_from + segment
            assert said or writer.oldest <= kept_from + segment
            kept_from = writer.oldest
            durable = end = writer.end
        _look(choose, readers, events, shown)
        assert not [n for n in disk.listdir("d/shard2") if n.endswith(".tmp")]


def _look(choose: random.Random, readers: list[EventLog], events: np.ndarray, shown: int) -> None:
    reader = choose.choice(readers)
    oldest = reader.oldest()
    after = choose.randint(oldest - 1, shown) if oldest <= shown else shown
    count = choose.choice((1, 10, 1000))
    last = min(after + count, shown)
    assert reader.read(after, count).tobytes() == events[after:last].tobytes()
    account = choose.randint(1, ACCOUNTS)
    kept = events[oldest - 1 : shown]
    numbers = kept["account_seq"][kept["account"] == account]
    if len(numbers):
        first, until = int(numbers[0]), int(numbers[-1])
        begin = choose.randint(first, until)
        found = joined(reader.account(account, begin - 1, until))
        assert found == of_account(events, account, begin - 1, until).tobytes()
        if first > 1:
            with pytest.raises(EventsGone):
                next(reader.account(account, first - 2, until))
