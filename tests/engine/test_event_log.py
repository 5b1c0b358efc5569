"""The event log against a plain list of events: whatever happens to the files, a reader gets what
the list says, or is told that it is gone, or which byte of which file is damaged.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine import event_log
from engine.crc32c import CRC_START, crc32c
from engine.disk import RealDisk
from engine.event_log import EventLog, EventLogWriter, EventsGone
from engine.event_log_writer import CACHED_SEGMENTS
from engine.file_header import FILE_HEADER_BYTES, FileRefused
from engine.jit import JIT_DISABLED, kernel_signatures
from engine.log_format import (
    EVENT_BYTES,
    INDEX,
    events_seal,
    events_verify,
    segment_path,
)
from engine.records import EVENT
from tests.engine.log_kit import (
    ACCOUNTS,
    EVENTS_MAX,
    SEGMENT,
    filled,
    joined,
    new_disk,
    new_writer,
    of_account,
    put,
    ring_of,
    stream,
)
from tests.engine.recorded import Shard, empty_state, recorded
from tests.sim.sim_disk import SimDisk


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
    put(writer, events)
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
        put(writer, parts[-1])
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
        put(writer, more[row : row + 1])
    assert reader.oldest() == writer.oldest == 400 - 16 - 4 * SEGMENT + 1


def test_an_account_whose_events_all_went_is_told_so() -> None:
    disk, events = new_disk(), stream(300).copy()
    events["account"][100:] = 2
    for account in range(1, ACCOUNTS + 1):
        mine = events["account"] == account
        events["account_seq"][mine] = np.arange(1, np.count_nonzero(mine) + 1)
    writer = new_writer(disk)
    put(writer, events)
    reader = EventLog(disk, "d", 2, lambda: writer.end)
    with pytest.raises(EventsGone):
        next(reader.account(1, 3, 5))


def test_only_what_was_published_is_read() -> None:
    disk, events = new_disk(), stream(100)
    writer = new_writer(disk, most=1000)
    put(writer, events)
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
@pytest.mark.later
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
        put(again, events[back:])
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
    put(again, stream(60)[50:])
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
        put(writer, events[done : done + 45 + number])
        done = writer.end
        writer.close()
    reader = EventLog(disk, "d", 2, lambda: done)
    assert reader.read(0, 300).tobytes() == events[:done].tobytes()
    most = int((events["account"][:done] == 2).sum())
    assert joined(reader.account(2, 0, most)) == of_account(events[:done], 2, 0, most).tobytes()


def test_old_segments_leave_the_memory_when_they_are_on_disk_and_read_as_before() -> None:
    disk, events = new_disk(), stream(8 * SEGMENT)
    writer = new_writer(disk, most=1000)
    forgotten: list[str] = []
    forget = disk.forget

    def spy(handle: int) -> None:
        forgotten.append(disk._handle(handle).path)
        forget(handle)

    disk.forget = spy  # type: ignore[method-assign]
    for first in range(0, len(events), 5):
        put(writer, events[first : first + 5])
        full = writer.end // SEGMENT
        assert forgotten == [
            segment_path("d", 2, n * SEGMENT + 1) for n in range(max(full - CACHED_SEGMENTS, 0))
        ]
    assert len(forgotten) == 4
    reader = EventLog(disk, "d", 2, lambda: writer.end)
    assert reader.read(0, 1000).tobytes() == events.tobytes()


def test_wrong_events_are_not_taken() -> None:
    disk = new_disk()
    writer = new_writer(disk)
    events = stream(5)
    for wrong, end in ((events[1:], 5), (events[[0, 2]], 2), (events[:2], 3)):
        with pytest.raises(ValueError, match="goes on with event 1"):
            writer.append(ring_of(wrong), end)
    with pytest.raises(ValueError, match="two segments"):
        EventLogWriter(disk, "d", 2, 16, 31)
    assert writer.end == 0


# ------------------------------------------------------------------------------------------- damage
def damage(disk: SimDisk, path: str, byte: int, bit: int = 4) -> None:
    disk.overwrite(path, bytes([disk.read(path)[byte] ^ 1 << bit]), byte)


@pytest.mark.later
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
        sealed = np.zeros(20, EVENT)
        last = int(events_seal(ring_of(events), 1, sealed.view(np.int64), CRC_START, epoch))
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
