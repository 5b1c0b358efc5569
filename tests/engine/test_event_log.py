"""The event log against a plain list of events: whatever happens to the files, a reader gets what
the list says, or is told that it is gone, or which byte of which file is damaged.
"""

from __future__ import annotations

import errno
import functools
import random

import numpy as np
import pytest

from engine import event_log
from engine.crc32c import CRC_START, crc32c
from engine.disk import RealDisk
from engine.event_log import EventLog, EventLogWriter, EventsGone
from engine.file_header import FILE_HEADER_BYTES, FileRefused
from engine.jit import JIT_DISABLED, kernel_signatures
from engine.log_format import EVENT_BYTES, INDEX, events_seal, events_verify, segment_path
from engine.records import EVENT
from tests.engine.recorded import Shard, empty_state, recorded
from tests.sim.sim_disk import PowerCut, SimDisk

SEGMENT = 16
EVENTS_MAX = 5 * SEGMENT
ACCOUNTS = 5
STREAM = 5000


@functools.cache
def stream(count: int, seed: int = 1, accounts: int = ACCOUNTS) -> np.ndarray:
    """Events as a shard would number them, everything else random; account 0 is nobody."""
    rng = np.random.default_rng(seed)
    events = np.frombuffer(rng.bytes(STREAM * EVENT_BYTES), EVENT).copy()
    events["out_seq"] = np.arange(1, STREAM + 1)
    events["account"] = rng.choice(accounts + 1, STREAM)
    for account in range(accounts + 1):
        of_account = events["account"] == account
        numbers = np.arange(1, np.count_nonzero(of_account) + 1)
        events["account_seq"][of_account] = numbers if account else 0
    events["crc"] = events["epoch"] = 0
    return events[:count]


def new_disk() -> SimDisk:
    disk = SimDisk()
    disk.makedirs("d/shard2")
    disk.sync_dir("")
    disk.sync_dir("d")
    return disk


def new_writer(
    disk: SimDisk,
    out_seq: int = 0,
    *,
    segment: int = SEGMENT,
    most: int = EVENTS_MAX,
    epoch: int = 3,
) -> EventLogWriter:
    writer = EventLogWriter(disk, "d", 2, segment, most, epoch)
    assert writer.open(out_seq) == ""
    return writer


def filled(count: int, **sizes: int) -> tuple[SimDisk, np.ndarray, EventLogWriter, EventLog]:
    """A log of `count` events in uneven appends, its events, writer and a reader."""
    disk, events = new_disk(), stream(count)
    writer = new_writer(disk, **sizes)
    done, choose = 0, random.Random(count)
    while done < count:
        step = choose.choice((0, 1, 2, 7, 40))
        writer.append(events[done : done + step])
        done = min(done + step, count)
    return disk, events, writer, EventLog(disk.process(), "d", 2, lambda: writer.end)


def of_account(events: np.ndarray, account: int, after: int, until: int) -> np.ndarray:
    chosen = (events["account"] == account) & (events["account_seq"] > after)
    return events[chosen & (events["account_seq"] <= until)]


def joined(parts: object) -> bytes:
    return b"".join(part.tobytes() for part in parts)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------- reading what is kept
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 79, 80])
def test_every_range_reads_as_the_list(count: int) -> None:
    _, events, writer, reader = filled(count)
    assert (writer.end, writer.oldest, reader.oldest()) == (count, 1, 1)
    for after in range(count + 1):
        for wanted in (0, 1, 2, 15, 16, 17, 33, 1000):
            assert reader.read(after, wanted).tobytes() == events[after : after + wanted].tobytes()
    assert len(reader.read(count + 5, 3)) == 0


def test_an_account_gets_its_events_and_no_others() -> None:
    _, events, _, reader = filled(70)
    for account in range(1, ACCOUNTS + 1):
        most = int(events["account_seq"][events["account"] == account].max(initial=0))
        for after in range(most + 1):
            for until in range(after, most + 1):
                found = joined(reader.account(account, after, until))
                assert found == of_account(events, account, after, until).tobytes()
    with pytest.raises(ValueError, match="only events of accounts"):
        next(reader.account(0, 0, 1))


@pytest.mark.parametrize("seed", range(4))
def test_accounts_in_large_random_streams_equal_a_filter(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "ACCOUNT_EVENTS", 50)
    monkeypatch.setattr(event_log, "ROWS_BETWEEN", 3)
    monkeypatch.setattr("engine.log_format.CHUNK_EVENTS", 64)
    monkeypatch.setattr(event_log, "CHUNK_EVENTS", 64)
    accounts = (1, 3, 40, 300)[seed]
    disk, events = new_disk(), stream(5000, seed, accounts)
    writer = new_writer(disk, segment=700, most=7000)
    writer.append(events)
    reader = EventLog(disk, "d", 2, lambda: writer.end)
    choose = random.Random(seed)
    for account in [1, accounts, *choose.choices(range(1, accounts + 1), k=20)]:
        most = np.count_nonzero(events["account"] == account)
        after = choose.randint(0, most)
        until = choose.randint(after, most)
        portions = list(reader.account(account, after, until))
        assert all(0 < len(portion) <= 50 for portion in portions)
        assert joined(portions) == of_account(events, account, after, until).tobytes()
    assert joined(iter([reader.read(0, 5000)])) == events.tobytes()


def test_events_of_a_real_shard_come_back_as_they_were_in_its_ring(tmp_path: object) -> None:
    world, commands = recorded(2, 300)
    shard, disk = Shard(empty_state(world), commands), RealDisk()
    directory = str(tmp_path)
    disk.makedirs(f"{directory}/shard{world.shard}")
    writer = EventLogWriter(disk, directory, world.shard, 64, 1 << 20, epoch=9)
    assert writer.open(0) == ""
    reader = EventLog(disk, directory, world.shard, lambda: writer.end)
    parts = []
    while shard.more:
        parts.append(shard.run(5))
        writer.append(parts[-1])
    events = np.concatenate(parts)
    assert len(events) > 300
    assert reader.read(0, len(events)).tobytes() == events.tobytes()
    for account in range(1, world.accounts + 1):
        most = int(events["account_seq"][events["account"] == account].max())
        assert (
            joined(reader.account(account, 0, most))
            == of_account(events, account, 0, most).tobytes()
        )
    reader.close()
    writer.close()


# ----------------------------------------------------------------------------- what comes and goes
def test_old_segments_go_and_readers_are_told() -> None:
    disk, events, writer, reader = filled(203)
    assert writer.oldest == reader.oldest() == 129  # 4 full segments and the one being written
    assert reader.read(128, 300).tobytes() == events[128:].tobytes()
    names = disk.listdir("d/shard2")
    assert len(names) == 5 + 4
    assert sum(disk.size(f"d/shard2/{n}") for n in names if INDEX not in n) <= (
        EVENTS_MAX * EVENT_BYTES + 5 * FILE_HEADER_BYTES
    )
    for after in (0, 127):
        with pytest.raises(EventsGone, match=f"event {after + 1}.*begins with 129") as gone:
            reader.read(after, 1)
        assert gone.value.oldest == 129
    for account in range(1, ACCOUNTS + 1):
        numbers = events["account_seq"][128:][events["account"][128:] == account]
        first, last = int(numbers.min()), int(numbers.max())
        assert (
            joined(reader.account(account, first - 1, last))
            == of_account(events, account, first - 1, last).tobytes()
        )
        with pytest.raises(EventsGone, match=f"event {first - 1} of account {account}"):
            next(reader.account(account, first - 2, last))
        beyond = reader.account(account, last - 1, last + 1)
        assert len(next(beyond)) == 1
        with pytest.raises(EventsGone, match=f"event {last + 1} of account"):
            next(beyond)


def test_a_reader_that_holds_files_open_goes_on_while_segments_are_removed() -> None:
    _, events, writer, reader = filled(80)
    more = np.concatenate((events, stream(400)[80:]))
    for row in range(80, 400):
        assert reader.read(row - 60, 100).tobytes() == more[row - 60 : row].tobytes()
        portions = reader.account(1, 0, 10**6)
        with pytest.raises(EventsGone):
            joined(portions)
        writer.append(more[row : row + 1])
    assert reader.oldest() == writer.oldest == 400 - 16 - 4 * SEGMENT + 1


def test_an_account_whose_events_all_went_is_told_so() -> None:
    disk, events = new_disk(), stream(300).copy()
    events["account"][100:] = 2
    for account in range(1, ACCOUNTS + 1):
        mine = events["account"] == account
        events["account_seq"][mine] = np.arange(1, np.count_nonzero(mine) + 1)
    writer = new_writer(disk)
    writer.append(events)
    reader = EventLog(disk, "d", 2, lambda: writer.end)
    with pytest.raises(EventsGone):
        next(reader.account(1, 3, 5))


def test_only_what_was_published_is_read() -> None:
    disk, events = new_disk(), stream(100)
    writer = new_writer(disk, most=1000)
    writer.append(events)
    shown = 0
    reader = EventLog(disk, "d", 2, lambda: shown)
    assert reader.oldest() == 1
    for shown in range(1, 101):
        assert reader.read(0, 1000).tobytes() == events[:shown].tobytes()
        for account in (1, 2):
            most = int(
                events["account_seq"][:shown][events["account"][:shown] == account].max(initial=0)
            )
            assert (
                joined(reader.account(account, 0, most))
                == of_account(events, account, 0, most).tobytes()
            )
            with pytest.raises(EventsGone):
                next(reader.account(account, most, most + 1))


# ---------------------------------------------------------------------------------------- restarts
@pytest.mark.parametrize("count", [0, 1, 16, 23, 32, 70])
def test_a_restart_anywhere_cuts_and_goes_on(count: int) -> None:
    events = stream(120)
    for back in range(count + 1):
        disk, _, writer, reader = filled(count, most=1000)
        reader.read(0, count)
        list(reader.account(1, 0, int((events["account"][:count] == 1).sum())))
        writer.close()
        again = EventLogWriter(disk, "d", 2, SEGMENT, 1000, epoch=4)
        assert again.open(back) == ""
        assert (again.end, again.durable, again.oldest) == (back, back, 1)
        reader._end = lambda again=again: again.end  # type: ignore[misc]
        assert reader.read(0, 1000).tobytes() == events[:back].tobytes()
        again.append(events[back:])
        assert reader.read(0, 1000).tobytes() == events.tobytes()
        fresh = EventLog(disk, "d", 2, lambda: 120)
        for account in range(1, ACCOUNTS + 1):
            most = int((events["account"] == account).sum())
            for log in (reader, fresh):
                assert (
                    joined(log.account(account, 0, most))
                    == of_account(events, account, 0, most).tobytes()
                )


def test_a_log_that_does_not_reach_the_state_begins_anew_and_says_so() -> None:
    disk, _, writer, _ = filled(40)
    writer.close()
    again = EventLogWriter(disk, "d", 2, SEGMENT, EVENTS_MAX)
    assert "begins anew with event 51: " in again.open(50)
    assert (again.end, again.oldest) == (50, 51)
    assert disk.listdir("d/shard2") == []
    again.append(stream(60)[50:])
    reader = EventLog(disk, "d", 2, lambda: 60)
    assert reader.oldest() == 51
    assert reader.read(50, 60).tobytes() == stream(60)[50:].tobytes()
    with pytest.raises(EventsGone):
        reader.read(49, 1)


def test_a_given_crc_must_be_that_of_the_event() -> None:
    disk, _, writer, _ = filled(40)
    crc = writer._crc
    writer.close()
    assert EventLogWriter(disk, "d", 2, SEGMENT, EVENTS_MAX).open(40, crc) == ""
    said = EventLogWriter(disk, "d", 2, SEGMENT, EVENTS_MAX).open(40, crc ^ 1)
    assert "event 40 has another CRC" in said


def test_a_damaged_newest_segment_begins_anew_an_older_one_is_for_its_readers() -> None:
    for row, begins_anew in ((3, False), (33, True), (39, True)):
        disk, _, writer, _ = filled(40)
        writer.close()
        segment, place = row // SEGMENT * SEGMENT, FILE_HEADER_BYTES + row % SEGMENT * EVENT_BYTES
        damage(disk, segment_path("d", 2, segment + 1), place + 77)
        for path in disk.listdir("d/shard2"):
            if path.endswith(INDEX):
                disk.unlink(f"d/shard2/{path}")
        said = EventLogWriter(disk, "d", 2, SEGMENT, EVENTS_MAX).open(40)
        assert bool(said) == begins_anew
        if said:
            assert f"byte {place}" in said


def test_another_segment_size_is_taken_up_from_the_next_segment_on() -> None:
    disk, events = new_disk(), stream(300)
    done = 0
    for number, size in enumerate((16, 7, 50, 3, 16)):
        writer = EventLogWriter(disk, "d", 2, size, 1000)
        assert writer.open(done) == ""
        writer.append(events[done : done + 45 + number])
        done = writer.end
        writer.close()
    reader = EventLog(disk, "d", 2, lambda: done)
    assert reader.read(0, 300).tobytes() == events[:done].tobytes()
    most = int((events["account"][:done] == 2).sum())
    assert joined(reader.account(2, 0, most)) == of_account(events[:done], 2, 0, most).tobytes()


def test_wrong_events_are_not_taken() -> None:
    disk = new_disk()
    writer = new_writer(disk)
    events = stream(5)
    for wrong in (events[1:], events[[0, 2]], events[[0, 0]]):
        with pytest.raises(ValueError, match="goes on with event 1"):
            writer.append(wrong)
    with pytest.raises(ValueError, match="EVENT records"):
        writer.append(np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="two segments"):
        EventLogWriter(disk, "d", 2, 16, 31)
    assert writer.end == 0


# ------------------------------------------------------------------------------------------- damage
def damage(disk: SimDisk, path: str, byte: int, bit: int = 4) -> None:
    disk.overwrite(path, bytes([disk.read(path)[byte] ^ 1 << bit]), byte)


def test_d2_every_flipped_bit_of_a_segment_is_found_with_file_and_offset() -> None:
    disk, events, _, _ = filled(40)
    choose = random.Random(5)
    path = segment_path("d", 2, 17)
    for _ in range(2500):
        byte, bit = choose.randrange(FILE_HEADER_BYTES + SEGMENT * EVENT_BYTES), choose.randrange(8)
        damage(disk, path, byte, bit)
        reader = EventLog(disk, "d", 2, lambda: 40)
        row = max((byte - FILE_HEADER_BYTES) // EVENT_BYTES, 0)
        with pytest.raises(FileRefused) as refused:
            reader.read(0, 40)
        place = FILE_HEADER_BYTES + row * EVENT_BYTES if byte >= FILE_HEADER_BYTES else 0
        assert (refused.value.path, refused.value.offset) == (path, place)
        damage(disk, path, byte, bit)
        assert reader.read(16, 16).tobytes() == events[16:32].tobytes()  # it does not remember
        reader.close()


def test_damage_elsewhere_does_not_hide_what_is_good() -> None:
    disk, events, _, reader = filled(40)
    damage(disk, segment_path("d", 2, 17), FILE_HEADER_BYTES + 5 * EVENT_BYTES)
    assert reader.read(0, 21).tobytes() == events[:21].tobytes()
    assert reader.read(32, 8).tobytes() == events[32:].tobytes()
    with pytest.raises(FileRefused, match="event 22 is damaged"):
        reader.read(20, 5)


def test_a_damaged_index_is_done_without() -> None:
    disk, events, _, _ = filled(40)
    path, choose = segment_path("d", 2, 17) + INDEX, random.Random(7)
    for _ in range(600):
        byte, bit = choose.randrange(disk.size(path)), choose.randrange(8)
        damage(disk, path, byte, bit)
        reader = EventLog(disk, "d", 2, lambda: 40)
        for account in range(1, ACCOUNTS + 1):
            most = int((events["account"] == account).sum())
            assert (
                joined(reader.account(account, 0, most))
                == of_account(events, account, 0, most).tobytes()
            )
        damage(disk, path, byte, bit)
        reader.close()
    for cut in range(0, disk.size(path), 97):
        whole = disk.read(path)
        disk.overwrite(path, b"", size=cut)
        most = int((events["account"] == 1).sum())
        reader = EventLog(disk, "d", 2, lambda: 40)
        assert joined(reader.account(1, 0, most)) == of_account(events, 1, 0, most).tobytes()
        disk.overwrite(path, whole)


def test_d9_foreign_and_renamed_segments_are_refused() -> None:
    disk, _, _, _ = filled(40)
    first, second = (segment_path("d", 2, n) for n in (1, 17))
    good = disk.read(first)
    disk.overwrite(first, disk.read(second))
    with pytest.raises(FileRefused, match="renamed"):
        EventLog(disk, "d", 2, lambda: 40).read(0, 1)
    disk.overwrite(first, good)
    disk.makedirs("d/shard3")
    disk.close(disk.create(segment_path("d", 3, 1), 0))
    disk.overwrite(segment_path("d", 3, 1), good)
    with pytest.raises(FileRefused, match="belongs to shard 2"):
        EventLog(disk, "d", 3, lambda: 16).read(0, 1)


# ------------------------------------------------------------------------------------- the kernels
def sealed_as_defined(events: np.ndarray, crc: int, epoch: int) -> np.ndarray:
    """crc and epoch as engine/log_format.py describes them, event by event."""
    found = events.copy()
    for row in range(len(found)):
        found["epoch"][row], found["crc"][row] = epoch, 0
        crc = crc32c(found[row : row + 1].tobytes(), crc)
        found["crc"][row] = crc
    return found


@pytest.mark.nojit
def test_seal_and_verify_are_as_defined() -> None:
    events, choose = stream(20), random.Random(1)
    for epoch in (0, 2**32 - 1):
        sealed = events.copy()
        last = int(events_seal(sealed.view(np.int64), CRC_START, epoch))
        assert sealed.tobytes() == sealed_as_defined(events, CRC_START, epoch).tobytes()
        assert last == sealed["crc"][-1]

        def good(raw: bytes, crc: int, first: int) -> int:
            return int(events_verify(np.frombuffer(raw, np.int64), crc, first))

        raw = sealed.tobytes()
        assert good(raw, CRC_START, 1) == 20
        assert good(raw[5 * EVENT_BYTES :], int(sealed["crc"][4]), 6) == 15
        assert good(raw, CRC_START ^ 1, 1) == good(raw, CRC_START, 2) == 0
        for _ in range(60):
            byte = choose.randrange(len(raw))
            torn = bytearray(raw)
            torn[byte] ^= 1 << choose.randrange(8)
            assert good(bytes(torn), CRC_START, 1) == byte // EVENT_BYTES


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_each_kernel_was_compiled_for_one_signature() -> None:
    mine = ("engine.log_format.", "engine.crc32c.")
    found = {name: n for name, n in kernel_signatures().items() if name.startswith(mine)}
    assert found == dict.fromkeys(found, 1)
    assert len(found) == 3


# ------------------------------------------------------------------------------- errors and crashes
def append_and_sync(writer: EventLogWriter, events: np.ndarray) -> None:
    writer.append(events)
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
                writer.append(stream(200)[writer.end :])
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


@pytest.mark.parametrize("seed", range(20))
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
            writer.append(events[writer.end : writer.end + count])
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
                    writer.append(events[writer.end : writer.end + 9])
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
