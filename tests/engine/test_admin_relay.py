"""Administrative commands: on disk before they are told, told to each shard exactly once."""

from __future__ import annotations

import errno
import random
from typing import Any

import numpy as np
import pytest

from engine.admin import (
    PRODUCER_SUPERVISOR,
    account_limit,
    admin_record,
    kill_switch,
    list_instrument,
    open_account,
)
from engine.admin_log import ADMIN_LOG_NAME, AdminLog
from engine.admin_relay import WAITING_MAX, AdminRefused, AdminRelay
from engine.book_state import ADMIN_SEQ, small_limits
from engine.config import Instrument
from engine.file_header import FILE_HEADER_BYTES, FileRefused
from engine.local import LocalExchange
from engine.records import COMMAND, AccountLimit, CommandKind, EventKind, KillAction
from engine.sharding import shard_of_symbol
from engine.state_hash import state_hash
from tests.sim.sim_disk import PowerCut, SimDisk

PATH = f"d/{ADMIN_LOG_NAME}"
BLOCK, RELEASE = KillAction.BLOCK, KillAction.RELEASE
SYMBOLS = ("AAPL", "MSFT", "TSLA", "NVDA")
SHARDS = 2


def new_disk() -> SimDisk:
    disk = SimDisk()
    disk.makedirs("d")
    disk.sync_dir("")
    return disk


def numbered(number: int) -> np.ndarray:
    record = kill_switch(number, BLOCK)
    record["client_order_id"] = number
    return record


def written(disk: SimDisk, count: int) -> AdminLog:
    log = AdminLog(disk, "d", 1)
    for number in range(1, count + 1):
        log.append(numbered(number))
    return log


def numbers(log: AdminLog) -> list[int]:
    return log.records["client_order_id"].tolist()  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------- the log
def test_what_is_appended_is_read() -> None:
    disk = new_disk()
    first = written(disk, 3)
    again = AdminLog(disk, "d", 2)
    assert numbers(again) == [1, 2, 3]
    assert again.records.tobytes() == first.records.tobytes()
    again.append(numbered(9))
    assert numbers(AdminLog(disk, "d", 3)) == [1, 2, 3, 9]


def test_a_last_record_cut_at_any_byte_is_torn_and_cut() -> None:
    for kept in range(COMMAND.itemsize):
        disk = new_disk()
        written(disk, 2).close()
        whole = disk.read(PATH)
        disk.overwrite(PATH, b"", size=len(whole) - COMMAND.itemsize + kept)
        log = AdminLog(disk, "d", 2)
        assert (numbers(log), log.cut_bytes) == ([1], kept)
        log.append(numbered(2))
        assert numbers(AdminLog(disk, "d", 3)) == [1, 2]


def test_a_bad_byte_in_the_last_record_is_torn_elsewhere_it_is_damage() -> None:
    choose = random.Random(5)
    for _ in range(60):
        disk = new_disk()
        written(disk, 3).close()
        place, byte = choose.randrange(3), choose.randrange(COMMAND.itemsize)
        offset = FILE_HEADER_BYTES + place * COMMAND.itemsize + byte
        bad = bytes([disk.read(PATH)[offset] ^ 1 << choose.randrange(8)])
        disk.overwrite(PATH, bad, offset)
        if place == 2:
            assert numbers(AdminLog(disk, "d", 2)) == [1, 2]
        else:
            with pytest.raises(FileRefused, match="damaged") as caught:
                AdminLog(disk, "d", 2)
            assert caught.value.offset <= offset


def test_numbers_that_do_not_rise_are_refused() -> None:
    disk = new_disk()
    log = written(disk, 1)
    log.append(numbered(1))
    with pytest.raises(FileRefused, match="rise"):
        AdminLog(disk, "d", 2)


def test_a_power_cut_keeps_all_that_was_appended() -> None:
    outcomes = set()
    for seed in range(80):
        choose, disk = random.Random(seed), new_disk()
        log, told = AdminLog(disk, "d", 1), 0
        disk.cut_power(at=choose.randrange(1, 14))
        try:
            for number in range(1, 8):
                log.append(numbered(number))
                told = number
        except PowerCut:
            pass
        disk.crash(choose)
        found = numbers(AdminLog(disk, "d", 2))
        assert found in (list(range(1, told + 1)), list(range(1, told + 2)))
        outcomes.add(len(found) - told)
    assert outcomes == {0, 1}


def test_behind_a_failed_write_nothing_is_written() -> None:
    for at in (1, 2):
        disk = new_disk()
        log = written(disk, 1)
        disk.fail(at=at, error=errno.EIO)
        with pytest.raises(OSError, match=r"."):
            log.append(numbered(2))
        with pytest.raises(OSError, match="earlier write failed"):
            log.append(numbered(2))
        assert numbers(AdminLog(disk, "d", 2)) in ([1], [1, 2])


# -------------------------------------------------------------------------------------- the relay
class Rings:
    """Stands in for the supervisor's Producer: rings with so much room."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = [room] * SHARDS
        self.told: list[list[np.ndarray]] = [[] for _ in range(SHARDS)]

    def push(self, shard: int, record: np.ndarray) -> int:
        if len(self.told[shard]) >= self.room[shard]:
            return 0
        self.told[shard].append(record.copy())
        return 1


def relay_on(disk: SimDisk, rings: Any, known: list[int]) -> AdminRelay:
    relay = AdminRelay(SHARDS, AdminLog(disk, "d", 1))
    relay.tell_again(known)
    relay.producer = rings
    relay.flush()
    return relay


def told_numbers(rings: Rings) -> list[list[int]]:
    return [[int(r["client_order_id"][0]) for r in told] for told in rings.told]


def limit_of(symbol: str, value: int = 5) -> np.ndarray:
    return account_limit(1, symbol, AccountLimit.MAX_QTY, value)


def test_an_account_is_told_to_every_shard_an_instrument_to_its_own() -> None:
    rings = Rings()
    relay = relay_on(new_disk(), rings, [0, 0])
    assert relay.admin(kill_switch(1, BLOCK)) == 1
    homes = [shard_of_symbol(symbol, SHARDS) for symbol in SYMBOLS]
    assert set(homes) == {0, 1}
    for number, symbol in enumerate(SYMBOLS, 2):
        assert relay.admin(limit_of(symbol)) == number
    by_number = admin_record(CommandKind.SET_PHASE, symbol_id=1 << 16 | 3)
    assert relay.admin(by_number) == 6
    told = told_numbers(rings)
    for shard in range(SHARDS):
        own = [n for n, home in enumerate(homes, 2) if home == shard]
        assert told[shard] == [1, *own, *([6] if shard == 1 else [])]
    assert all(not record["crc"].any() for told in rings.told for record in told)
    assert all((r["producer"] == PRODUCER_SUPERVISOR).all() for told in rings.told for r in told)


def test_a_full_ring_waits_and_keeps_the_order() -> None:
    rings = Rings(room=2)
    relay = relay_on(new_disk(), rings, [0, 0])
    for account in range(1, 6):
        relay.admin(kill_switch(account, BLOCK))
    assert told_numbers(rings) == [[1, 2], [1, 2]]
    assert not relay.flush()
    rings.room = [4, 9]
    assert not relay.flush()
    assert told_numbers(rings) == [[1, 2, 3, 4], [1, 2, 3, 4, 5]]
    rings.room = [9, 9]
    assert relay.flush()
    assert told_numbers(rings) == [[1, 2, 3, 4, 5]] * 2


def test_what_waits_is_bounded_and_a_refused_command_leaves_no_trace() -> None:
    rings, disk = Rings(room=0), new_disk()
    relay = relay_on(disk, rings, [0, 0])
    for _ in range(WAITING_MAX):
        relay.admin(kill_switch(1, BLOCK))
    with pytest.raises(AdminRefused, match="not taken"):
        relay.admin(kill_switch(1, BLOCK))
    assert relay.number == WAITING_MAX == len(AdminLog(disk, "d", 2).records)


@pytest.mark.parametrize(
    "record",
    [
        admin_record(CommandKind.NEW),
        admin_record(CommandKind.TIME),
        admin_record(CommandKind.SET_PHASE, symbol_id=7 << 16 | 1),
        admin_record(CommandKind.SET_PHASE, symbol=0xFF),
        np.zeros(2, COMMAND),
    ],
)
def test_what_no_shard_can_be_told_is_refused(record: np.ndarray) -> None:
    rings = Rings()
    relay = relay_on(new_disk(), rings, [0, 0])
    with pytest.raises(AdminRefused):
        relay.admin(record)
    assert (relay.number, told_numbers(rings)) == (0, [[], []])


def test_before_the_shards_serve_nothing_is_taken() -> None:
    with pytest.raises(AdminRefused, match="not serve"):
        AdminRelay(SHARDS).admin(kill_switch(1, BLOCK))


def test_a_start_tells_each_shard_what_it_misses() -> None:
    disk = new_disk()
    first = relay_on(disk, Rings(), [0, 0])
    for account in range(1, 5):
        first.admin(kill_switch(account, BLOCK))
    first.close()
    rings = Rings()
    again = relay_on(disk, rings, [3, 1])
    assert told_numbers(rings) == [[4], [2, 3, 4]]
    assert again.admin(kill_switch(1, RELEASE)) == 5


def test_a_shard_that_knows_more_than_the_log_is_numbered_on() -> None:
    rings = Rings()
    relay = relay_on(new_disk(), rings, [0, 17])  # a directory that was forked, or lost its log
    assert relay.admin(kill_switch(1, BLOCK)) == 18


def exchange(shard: int) -> LocalExchange:
    instruments = [Instrument(s) for s in SYMBOLS if shard_of_symbol(s, SHARDS) == shard]
    return LocalExchange(instruments, accounts=3, limits=small_limits(), shard=shard)


def test_a_start_tells_what_a_shard_has_without_harm() -> None:
    records = [kill_switch(1, BLOCK), kill_switch(1, RELEASE)]
    for number, record in enumerate(records, 1):
        record["client_order_id"] = number
    shard = exchange(0)
    for record in (*records, *records):
        events = shard.step(record)
    assert len(events) == 0
    symbol = next(s for s in SYMBOLS if shard_of_symbol(s, SHARDS) == 0)
    assert EventKind.REJECTED not in shard.place(symbol, 0, 1, 5)["kind"]
    shard.step(records[0])
    assert EventKind.REJECTED not in shard.place(symbol, 0, 1, 5)["kind"]


def draw(choose: random.Random) -> np.ndarray:
    verbs = [
        lambda: kill_switch(choose.randint(1, 4), choose.choice(list(KillAction))),
        lambda: kill_switch(choose.randint(1, 3), choose.choice(list(KillAction)), "desk"),
        lambda: limit_of(choose.choice(SYMBOLS), choose.randint(0, 2)),
        lambda: open_account(choose.randint(3, 6)),
        lambda: list_instrument(Instrument("NEW")),
    ]
    return choose.choice(verbs)()


def told_to(shard: int, records: list[np.ndarray]) -> LocalExchange:
    made = exchange(shard)
    for record in records:
        made.step(record)
    return made


@pytest.mark.parametrize("seed", range(8))
def test_shards_that_lose_their_newest_commands_end_as_those_that_lose_none(seed: int) -> None:
    choose, disk = random.Random(seed), new_disk()
    kept: list[list[np.ndarray]] = [[] for _ in range(SHARDS)]  # what each journal has
    every: list[list[np.ndarray]] = [[] for _ in range(SHARDS)]
    for _ in range(5):
        states = [told_to(shard, kept[shard]).state for shard in range(SHARDS)]
        rings = Rings(choose.choice((3, 10**9)))
        relay = relay_on(disk, rings, [int(state.hdr[ADMIN_SEQ]) for state in states])
        for _ in range(choose.randrange(6)):
            before = relay.number
            record = draw(choose)
            assert relay.admin(record) == before + 1
            for shard in relay._concerned(record):
                every[shard].append(record.copy())
                every[shard][-1]["client_order_id"] = before + 1
        if choose.random() < 0.5:
            rings.room = [10**9] * SHARDS
            relay.flush()
        relay.close()
        for shard in range(SHARDS):
            journal = kept[shard] + rings.told[shard]
            lost = choose.choice((0, 0, 1, 3))  # a power cut takes the newest
            kept[shard] = journal[: len(journal) - lost] if lost else journal
    rings = Rings()
    states = [told_to(shard, kept[shard]).state for shard in range(SHARDS)]
    relay_on(disk, rings, [int(state.hdr[ADMIN_SEQ]) for state in states])
    for shard in range(SHARDS):
        ended = told_to(shard, kept[shard] + rings.told[shard])
        wanted = told_to(shard, every[shard])
        assert ended.state_digest() == wanted.state_digest()
        assert ended.position == wanted.position  # once, not twice
        assert state_hash(ended.state) == state_hash(wanted.state)
