"""Rows D1, D2 and D9: a journal that was cut, damaged or mixed up is cut back or refused, and never
read as something it was not.

What has to come out is worked out here by a second reading of the rule (`expected`), from the
records as they were before and the bytes as they are now.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from engine.config import Journal
from engine.crc32c import CRC_START, crc32c
from engine.file_header import FILE_HEADER, FILE_HEADER_BYTES, FileRefused
from engine.journal import JournalWriter
from engine.journal_reader import JournalDamage, journal_read
from engine.records import COMMAND, RULES_VERSION, layout_offset
from engine.staging import StagingRings
from tests.sim.journal_run import DIRECTORY, PLACE, ROOM, SEGMENT_BYTES
from tests.sim.sim_disk import SimDisk
from tests.sim.stager import RECORD_BYTES, Stager

SPACING = 4  # the tests' durable marks: everything but the last few
FLIPS = 5000
assert ROOM == 64


@dataclass
class Made:
    """A journal of whole segments as it was written."""

    disk: SimDisk
    history: bytes
    files: dict[str, bytes]

    @property
    def count(self) -> int:
        return len(self.history) // RECORD_BYTES

    def restore(self) -> None:
        for path, content in self.files.items():
            self.disk.overwrite(path, content)

    def path(self, in_seq: int) -> tuple[str, int]:
        """File and byte at which a record begins."""
        segment, place = divmod(in_seq - 1, ROOM)
        path = f"{PLACE}/journal-{segment * ROOM + 1:020d}"
        return path, FILE_HEADER_BYTES + place * RECORD_BYTES


def make_journal(count: int, lag: Callable[[int], int], disk: SimDisk | None = None) -> Made:
    """Write `count` records, each with a lag of its own."""
    disk = SimDisk() if disk is None else disk
    disk.makedirs(DIRECTORY)
    config = Journal(segment_bytes=SEGMENT_BYTES, free_bytes_min=0)
    rings = StagingRings.private(1, 256)
    writer = JournalWriter(disk, DIRECTORY, 1, rings, config, epoch=1)
    writer.open(0, 0, CRC_START)
    stager = Stager(rings)
    for in_seq in range(1, count + 1):
        stager.stage(1, lag(in_seq))
        if in_seq % 32 == 0:
            writer.step(in_seq * 10**8)
    assert writer.flush(0)
    writer.close()
    rings.close()
    names = [name for name in disk.listdir(PLACE) if name.startswith("journal-")]
    files = {f"{PLACE}/{name}": disk.read(f"{PLACE}/{name}") for name in names}
    return Made(disk, bytes(stager.history), files)


def read(disk: SimDisk, **options: int) -> tuple[bytes, int]:
    """Everything handed out, and the bytes reported as cut."""
    result = journal_read(disk, DIRECTORY, 0, **options)
    content = b"".join(chunk.tobytes() for chunk in result)
    assert result.in_seq == len(content) // RECORD_BYTES + options.get("after", 0)
    return content, result.cut_bytes


# ---------------------------------------------------------------------------------- D1: torn tails
@pytest.mark.parametrize("zeros", [False, True], ids=["file ends", "zeros follow"])
def test_d1_every_cut_of_a_torn_tail_leaves_the_records_before_it(zeros: bool) -> None:
    made = make_journal(ROOM, lag=lambda in_seq: in_seq)  # nothing was known to be on disk
    (path, content), *rest = made.files.items()
    assert not rest
    for cut in range(FILE_HEADER_BYTES, SEGMENT_BYTES + 1):
        now = content[:cut].ljust(SEGMENT_BYTES if zeros else cut, b"\0")
        made.disk.overwrite(path, now, size=len(now))
        whole, begun = divmod(cut - FILE_HEADER_BYTES, RECORD_BYTES)
        end = FILE_HEADER_BYTES + (whole + 1) * RECORD_BYTES
        if begun and now[:end] == content[:end]:
            whole, begun = whole + 1, 0  # only zeros of the last record were cut off
        got, cut_bytes = read(made.disk)
        assert got == made.history[: whole * RECORD_BYTES], cut
        left = now[FILE_HEADER_BYTES + whole * RECORD_BYTES :]
        assert cut_bytes == (0 if not any(left) else RECORD_BYTES if zeros else begun), cut
        made.disk.overwrite(path, content)


def test_d1_every_cut_through_the_header_is_refused() -> None:
    made = make_journal(ROOM, lag=lambda in_seq: in_seq)
    (path, content), *_ = made.files.items()
    for cut in range(0, FILE_HEADER_BYTES, 7):
        made.disk.overwrite(path, content[:cut], size=cut)
        with pytest.raises(JournalDamage, match=path):
            read(made.disk)
        made.disk.overwrite(path, content)


def test_d1_every_cut_below_a_known_mark_is_refused_with_file_and_offset() -> None:
    made = make_journal(ROOM, lag=lambda in_seq: in_seq)
    (path, content), *_ = made.files.items()
    for cut in range(FILE_HEADER_BYTES, SEGMENT_BYTES + 1, 5):
        made.disk.overwrite(path, content[:cut], size=cut)
        whole = (cut - FILE_HEADER_BYTES) // RECORD_BYTES
        if whole >= 40:
            assert read(made.disk, mark=40)[0] == made.history[: whole * RECORD_BYTES]
        else:
            with pytest.raises(JournalDamage) as caught:
                read(made.disk, mark=40)
            assert caught.value.path == path
            assert caught.value.offset == FILE_HEADER_BYTES + whole * RECORD_BYTES
        made.disk.overwrite(path, content)


def test_d1_cut_goes_on_over_the_following_segments() -> None:
    made = make_journal(3 * ROOM, lag=lambda in_seq: in_seq)
    path, offset = made.path(50)
    made.disk.overwrite(path, b"\xff", offset + 3)
    got, cut_bytes = read(made.disk)
    assert len(got) == 49 * RECORD_BYTES
    assert cut_bytes == (3 * ROOM - 49) * RECORD_BYTES


# ------------------------------------------------------------------------------------ D2: damage
class Expected:
    """What the rule says about a damaged journal: an own reading, record by record."""

    def __init__(self, made: Made) -> None:
        self.made = made
        self.lags = [0, *np.frombuffer(made.history, COMMAND)["durable_lag"].tolist()]

    def valid(self, in_seq: int) -> bool:
        record = self._record(in_seq)
        before = CRC_START
        if (in_seq - 1) % ROOM:
            before = int(self._record(in_seq - 1)["crc"][0])
        elif in_seq > 1:
            before = int(np.frombuffer(self.made.history, COMMAND)["crc"][in_seq - 2])  # header
        crc = int(record["crc"][0])
        record["crc"] = 0
        return (
            int(record["in_seq"][0]) == in_seq
            and crc32c(record.tobytes(), before) == crc
            and int(record["layout_version"][0]) == RULES_VERSION
            and int(record["epoch"][0]) >= 1
        )

    def _record(self, in_seq: int) -> np.ndarray:
        path, offset = self.made.path(in_seq)
        raw = self.made.disk.read(path)[offset : offset + RECORD_BYTES]
        return np.frombuffer(bytes(raw), COMMAND).copy()

    def judge(self, touched: set[int]) -> tuple[int, int]:
        """First record that is not valid, and the mark, when these records were touched."""
        count = self.made.count
        suspects = {n for t in touched for n in (t, t + 1) if 1 <= n <= count}
        bad = {n for n in suspects if not self.valid(n)}
        mark = max((n - self.lags[n] for n in range(1, count + 1) if n not in bad), default=0)
        return min(bad, default=count + 1), mark


def flip(made: Made, rng: random.Random) -> list[tuple[str, int, int]]:
    path, raw = rng.choice(list(made.files.items()))
    place = rng.randrange(FILE_HEADER_BYTES, SEGMENT_BYTES)
    made.disk.overwrite(path, bytes([raw[place] ^ 1 << rng.randrange(8)]), place)
    return [(path, place, place + 1)]


def zero(made: Made, rng: random.Random) -> list[tuple[str, int, int]]:
    path = rng.choice(list(made.files))
    size = rng.choice((512, 4096))
    place = rng.randrange(FILE_HEADER_BYTES // size, SEGMENT_BYTES // size) * size
    made.disk.overwrite(path, bytes(size), place)
    return [(path, place, place + size)]


def duplicate(made: Made, rng: random.Random) -> list[tuple[str, int, int]]:
    source, target = rng.choice(list(made.files)), rng.choice(list(made.files))
    size = rng.choice((RECORD_BYTES, 512, 4096))
    first, room = FILE_HEADER_BYTES, (SEGMENT_BYTES - FILE_HEADER_BYTES) // size
    here, there = (first + rng.randrange(room) * size for _ in range(2))
    made.disk.overwrite(target, made.files[source][here : here + size], there)
    return [(target, there, there + size)]


def several(made: Made, rng: random.Random) -> list[tuple[str, int, int]]:
    return [span for _ in range(3) for span in flip(made, rng)]


def touched_records(spans: list[tuple[str, int, int]]) -> set[int]:
    records: set[int] = set()
    for path, start, stop in spans:
        first = int(path[-20:])
        begin = (start - FILE_HEADER_BYTES) // RECORD_BYTES
        end = (stop - 1 - FILE_HEADER_BYTES) // RECORD_BYTES
        records.update(range(first + begin, first + end + 1))
    return records


@pytest.mark.parametrize("marks", ["near the end", "far behind"])
def test_d2_random_damage_is_cut_or_refused_and_never_read(marks: str, seed: int) -> None:
    lag = (lambda n: min(n, SPACING)) if marks == "near the end" else (lambda n: n - n // 3)
    made = make_journal(3 * ROOM, lag)
    expected, rng = Expected(made), random.Random(seed)
    outcomes = {"cut": 0, "refused": 0, "harmless": 0}
    for _ in range(FLIPS // 2):
        damage = rng.choices((flip, zero, duplicate, several), (6, 1, 2, 1))[0]
        touched = touched_records(damage(made, rng))
        bad, mark = expected.judge(touched)
        path, offset = made.path(bad)
        if mark >= bad:
            with pytest.raises(JournalDamage) as caught:
                read(made.disk)
            assert (caught.value.path, caught.value.offset) == (path, offset)
            assert f"{path}, byte {offset}" in str(caught.value)
            outcomes["refused"] += 1
        else:
            got, _ = read(made.disk)
            assert got == made.history[: (bad - 1) * RECORD_BYTES]
            outcomes["cut" if bad <= made.count else "harmless"] += 1
        made.restore()
    assert outcomes["refused"] > 100
    assert outcomes["cut"] > 20


def test_d2_mark_behind_a_damaged_end_of_segment_counts() -> None:
    made = make_journal(ROOM + 1, lambda n: 1 if n > ROOM else n)  # only the last one knows
    path, offset = made.path(ROOM)
    made.disk.overwrite(path, bytes(RECORD_BYTES), offset)
    with pytest.raises(JournalDamage) as caught:
        read(made.disk)
    assert (caught.value.path, caught.value.offset) == (path, offset)


def test_d2_any_damage_to_a_header_is_refused(seed: int) -> None:
    made, rng = make_journal(2 * ROOM, lambda n: n), random.Random(seed)
    for _ in range(500):
        path, raw = rng.choice(list(made.files.items()))
        place = rng.randrange(FILE_HEADER_BYTES)
        made.disk.overwrite(path, bytes([raw[place] ^ 1 << rng.randrange(8)]), place)
        with pytest.raises(JournalDamage) as caught:
            read(made.disk)
        assert (caught.value.path, caught.value.offset) == (path, 0)
        made.restore()


def test_d2_damage_behind_the_start_is_not_looked_at_and_before_it_is_seen() -> None:
    made = make_journal(3 * ROOM, lambda n: min(n, SPACING))
    path, offset = made.path(10)
    made.disk.overwrite(path, b"\xaa", offset)
    assert read(made.disk, after=100)[0] == made.history[100 * RECORD_BYTES :]
    assert read(made.disk, after=2 * ROOM)[0] == made.history[2 * ROOM * RECORD_BYTES :]
    with pytest.raises(JournalDamage):
        read(made.disk, after=9)


def test_d2_damaged_record_that_a_snapshot_ends_with_is_refused() -> None:
    made = make_journal(2 * ROOM, lambda n: n)
    path, offset = made.path(100)
    for place in (offset, offset + layout_offset(COMMAND, "crc"), offset + RECORD_BYTES - 1):
        made.disk.overwrite(path, bytes([made.files[path][place] ^ 8]), place)
        with pytest.raises(JournalDamage) as caught:
            read(made.disk, after=100)
        assert (caught.value.path, caught.value.offset) == (path, offset)
        made.restore()


def test_d2_journal_of_another_course_than_the_snapshot_is_refused() -> None:
    made = make_journal(2 * ROOM, lambda n: n)
    crc = int(np.frombuffer(made.history, COMMAND)["crc"][99])
    assert read(made.disk, after=100, crc=crc)[0] == made.history[100 * RECORD_BYTES :]
    with pytest.raises(JournalDamage, match="record 100"):
        read(made.disk, after=100, crc=crc ^ 1)


# ------------------------------------------------------------------------------ D9: mixed up files
def rehead(made: Made, path: str, **fields: int) -> None:
    """Change a header and make its checksum fit."""
    page = np.frombuffer(made.disk.read(path)[:FILE_HEADER_BYTES], FILE_HEADER).copy()
    for name, value in fields.items():
        page[name] = value
    page["header_crc"] = 0
    page["header_crc"] = crc32c(page.tobytes())
    made.disk.overwrite(path, page.tobytes())


def rewrite(made: Made, in_seq: int, /, **fields: int) -> None:
    """Change a record and chain it and its successors anew, up to the end of its segment."""
    records = np.frombuffer(made.history, COMMAND).copy()
    crc = int(records["crc"][in_seq - 2]) if in_seq > 1 else CRC_START
    for name, value in fields.items():
        records[name][in_seq - 1] = value
    for n in range(in_seq, -(-in_seq // ROOM) * ROOM + 1):
        record = records[n - 1 : n]
        record["crc"] = 0
        crc = crc32c(record.tobytes(), crc)
        record["crc"] = crc
        path, offset = made.path(n)
        made.disk.overwrite(path, record.tobytes(), offset)


def test_d9_missing_segment_between_others_is_refused_even_above_the_mark() -> None:
    made = make_journal(3 * ROOM, lambda n: n)
    made.disk.unlink(made.path(ROOM + 1)[0])
    with pytest.raises(JournalDamage, match=r"65 to 128 .*missing"):
        read(made.disk)


def test_d9_missing_first_segment_is_refused() -> None:
    made = make_journal(3 * ROOM, lambda n: n)
    made.disk.unlink(made.path(1)[0])
    with pytest.raises(JournalDamage, match="1 to 64 are missing"):
        read(made.disk)
    assert read(made.disk, after=ROOM)[0] == made.history[ROOM * RECORD_BYTES :]


def test_d9_missing_last_segment_is_refused_where_it_was_known() -> None:
    made = make_journal(3 * ROOM, lambda n: n)
    last = made.path(2 * ROOM + 1)[0]
    made.disk.unlink(last)
    assert read(made.disk)[0] == made.history[: 2 * ROOM * RECORD_BYTES]
    with pytest.raises(JournalDamage, match="record 129 is missing"):
        read(made.disk, mark=2 * ROOM + 1)
    with pytest.raises(JournalDamage, match="129 to 150 are missing"):
        read(made.disk, after=150)


def test_d9_no_journal_at_all_is_refused_where_one_was_known() -> None:
    disk = SimDisk()
    assert read(disk) == (b"", 0)
    for options in ({"after": 5}, {"mark": 5}):
        with pytest.raises(JournalDamage, match="5 records"):
            read(disk, **options)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"shard": 1}, "belongs to shard 1"),
        ({"layout_fingerprint": 7}, "fingerprint"),
        ({"rules_version": RULES_VERSION + 1}, "rules version"),
        ({"magic": 7}, "magic"),
        ({"first": 66}, "begins with record 66"),
        ({"size": 8192}, "8192 bytes"),
        ({"epoch": 0}, "epoch 0, after one of epoch 1"),
        ({"chain_crc": 7}, "does not continue"),
    ],
)
def test_d9_segment_of_something_else_is_refused_with_the_reason(
    fields: dict[str, int], reason: str
) -> None:
    made = make_journal(3 * ROOM, lambda n: n)
    path = made.path(ROOM + 1)[0]
    rehead(made, path, **fields)
    with pytest.raises(FileRefused, match=reason) as caught:
        read(made.disk)
    assert caught.value.path == path


def test_d9_segment_under_another_name_is_refused() -> None:
    made = make_journal(3 * ROOM, lambda n: n)
    made.disk.rename(made.path(2 * ROOM + 1)[0], f"{PLACE}/journal-{2 * ROOM + 2:020d}")
    with pytest.raises(JournalDamage, match="begins with record 129"):
        read(made.disk)
    made.disk.rename(f"{PLACE}/journal-{2 * ROOM + 2:020d}", f"{PLACE}/journal-x")
    with pytest.raises(JournalDamage, match="named like this"):
        read(made.disk)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"layout_version": RULES_VERSION + 1}, "another rules version"),
        ({"epoch": 0}, "older epoch"),
    ],
)
def test_d9_whole_record_of_an_older_epoch_or_another_version_is_refused(
    fields: dict[str, int], reason: str
) -> None:
    made = make_journal(ROOM, lambda n: n)
    rewrite(made, 30, **fields)
    with pytest.raises(JournalDamage, match=reason) as caught:
        read(made.disk)
    assert (caught.value.path, caught.value.offset) == made.path(30)


def test_d9_record_in_another_records_place_ends_the_journal() -> None:
    made = make_journal(ROOM, lambda n: n)
    rewrite(made, 30, in_seq=31)
    assert read(made.disk)[0] == made.history[: 29 * RECORD_BYTES]
    made.restore()
    rewrite(made, 30, in_seq=31)
    with pytest.raises(JournalDamage, match="another one, or none, is in its place"):
        read(made.disk, mark=30)


# ----------------------------------------------------------------------------------- what is read
@pytest.mark.parametrize("after", [0, 1, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM - 1, 3 * ROOM])
def test_reading_may_begin_and_end_anywhere(after: int) -> None:
    made = make_journal(3 * ROOM, lambda n: min(n, SPACING))
    assert read(made.disk, after=after)[0] == made.history[after * RECORD_BYTES :]
    for until in {after, after + 1, ROOM, 2 * ROOM, 2 * ROOM + 1, 3 * ROOM}:
        if after <= until <= 3 * ROOM:
            expected = made.history[after * RECORD_BYTES : until * RECORD_BYTES]
            assert read(made.disk, after=after, until=until)[0] == expected


def test_reading_up_to_what_is_not_there_is_refused() -> None:
    made = make_journal(ROOM - 10, lambda n: n)
    with pytest.raises(JournalDamage, match="record 55"):
        read(made.disk, until=ROOM - 9)


def test_reader_goes_on_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_journal(3 * ROOM, lambda n: min(n, SPACING))
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr("engine.journal_reader.CHUNK_RECORDS", size)
        assert read(made.disk)[0] == made.history
