"""The journal as a time machine (F2): any moment as it was, and forks that are what they claim."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engine.admin import list_instrument, open_account, open_session
from engine.book_check import check_state, state_digest
from engine.config import Config, Instrument
from engine.fork import Fork, ForkError, fork
from engine.kept_directory import KeptDirectory, open_kept
from engine.records import (
    COMMAND,
    UNSTATED,
    CommandKind,
    EventKind,
    OrderType,
    RejectCode,
    Side,
    pack_name,
)
from engine.rerun import Rerun, nearest
from engine.state_hash import state_hash
from engine.time_machine import (
    PastError,
    Terms,
    book_pictures,
    decimal_text,
    end_at,
    moment,
    open_orders,
    trades_of,
)
from engine.verify import verify_shard
from tests.engine.kept import (
    add_log,
    add_snapshots,
    all_events,
    config_of_world,
    journal_records,
    make_directory,
    recorded_on,
)

COMMANDS = 700


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptDirectory:
    """A directory with snapshots at 200 and 500."""
    world, commands = recorded_on(5, COMMANDS)
    path = str(tmp_path_factory.mktemp("kept") / "data")
    made = make_directory(path, config_of_world(world), [commands])
    add_snapshots(made, 0, (200, 500))
    return made


# ------------------------------------------------------------------------------------- any moment
@pytest.mark.parametrize("at", [0, 1, 199, 200, 201, 499, 650])
def test_a_moment_is_the_state_of_a_replay_to_there(kept: KeptDirectory, at: int) -> None:
    seen = moment(kept, 0, at)
    whole = Rerun(kept, 0).finish(at)
    assert seen.in_seq == whole.in_seq == at
    assert state_hash(seen.state) == state_hash(whole.state)
    check_state(seen.state)
    assert open_orders(seen.state) == np.count_nonzero(whole.state.owner)
    assert seen.trades_since == (0 if at < 200 else 200 if at < 500 else 500)


def test_a_moment_by_time_is_the_last_command_not_later(kept: KeptDirectory) -> None:
    records = journal_records(kept)
    for at in (50, 333, 600):
        until_ns = int(records["in_ts"][at])
        last = int(records["in_seq"][records["in_ts"] <= until_ns][-1])
        assert moment(kept, 0, until_ns=until_ns).in_seq == end_at(kept, 0, until_ns) == last
    assert moment(kept, 0, until_ns=-1).in_seq == 0
    assert moment(kept, 0).in_seq == len(records)


def test_trades_are_counted_once_and_the_last_ones_kept(kept: KeptDirectory) -> None:
    events = all_events(kept, 0)
    trades = trades_of(events)
    rows = Rerun(kept, 0).finish().state.symbols
    assert len(trades) == rows["trade_id"].sum()
    assert trades["qty"].sum() == rows["volume"].sum()
    for index in np.unique(trades["symbol"]):
        mine = trades[trades["symbol"] == index]
        assert mine["trade_id"].tolist() == list(range(1, len(mine) + 1))
    seen = moment(kept, 0, trades_max=3)
    assert seen.trades.tolist() == trades[-len(seen.trades) :].tolist()
    symbol = book_pictures(seen.state)[0].terms.symbol
    only = moment(kept, 0, 190, trades_max=5, symbol=symbol)
    wanted = trades[(trades["symbol"] == 1) & (trades["in_seq"] <= 190)][-5:]
    assert only.trades.tolist() == wanted.tolist()


def test_what_the_journal_does_not_have_is_refused_with_a_sentence(kept: KeptDirectory) -> None:
    with pytest.raises(PastError, match=r"has no command 99999: its journal ends with"):
        moment(kept, 0, 99_999)
    with pytest.raises(PastError, match=r"no instrument 'NOPE' .* it has FA"):
        moment(kept, 0, symbol="NOPE")


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (0, "0"),
        (10**9, "1"),
        (187_420_000_000, "187.42"),
        (1, "0.000000001"),
        (-25 * 10**8, "-2.5"),
    ],
)
def test_decimals_are_exact(units: int, text: str) -> None:
    assert decimal_text(units) == text
    assert Terms("X", 10**7, 10**4).price(18_742) == "187.42"


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    world, commands = recorded_on(6, 300)
    made = make_directory(str(tmp_path / "d"), config_of_world(world), [commands])
    add_snapshots(made, 0, (100, 200))
    path = tmp_path / "d" / "shard0" / f"snapshot-{200:020d}"
    path.write_bytes(path.read_bytes()[:-8])
    assert nearest(made, 0, 250).in_seq == 100


# ----------------------------------------------------------------------------------------- forks
@pytest.mark.parametrize("at", [0, 1, 150, 500, 640])
def test_a_fork_that_changes_nothing_is_the_same_journal(
    kept: KeptDirectory, tmp_path: Path, at: int
) -> None:
    [made] = fork(Fork(kept, str(tmp_path / "new"), at))
    new = open_kept(str(tmp_path / "new"))
    assert journal_records(new).tobytes() == journal_records(kept).tobytes()
    assert state_hash(made.new.state) == state_hash(made.old.state)
    assert made.new.trades.tobytes() == made.old.trades.tobytes()
    report = verify_shard(new, 0)
    assert (report.damages, report.differences) == ([], [])
    assert report.state_hash == state_hash(Rerun(kept, 0).finish().state)


def test_other_slices_come_to_the_same_books(kept: KeptDirectory, tmp_path: Path) -> None:
    shard = kept.config.shard
    other = 3 if shard.slice_events != 3 else 4
    config = dataclasses.replace(
        config_of_kept(kept), shard=dataclasses.replace(shard, slice_events=other)
    )
    [made] = fork(Fork(kept, str(tmp_path / "new"), 200, config=config))
    assert state_digest(made.new.state) == state_digest(made.old.state)
    assert made.new.trades[["px", "qty"]].tolist() == made.old.trades[["px", "qty"]].tolist()
    new = open_kept(str(tmp_path / "new"))
    assert new.config.shard.slice_events == other
    assert sorted(p.name for p in Path(new.path, "shard0").glob("snapshot-*")) == [
        f"snapshot-{200:020d}"
    ]
    report = verify_shard(new, 0)
    assert (report.damages, report.differences) == ([], [])
    assert report.notes[0] == "the journal is kept from command 201 on"
    assert report.state_hash == state_hash(made.new.state)


def config_of_kept(kept: KeptDirectory) -> Config:
    from tests.engine.kept import SEGMENT_BYTES

    journal = dataclasses.replace(kept.config.journal, segment_bytes=SEGMENT_BYTES)
    return dataclasses.replace(kept.config, journal=journal)


def new_order(account: int, symbol: str, side: Side, qty: int, px: int) -> np.ndarray:
    record = np.zeros(1, COMMAND)
    values = {
        "kind": CommandKind.NEW, "account": account, "session": account, "logon": 1, "producer": 1,
        "symbol": pack_name(symbol), "side": side, "qty": qty, "px": px,
        "order_type": OrderType.LIMIT,
    }  # fmt: skip
    for name, value in values.items():
        record[name] = value
    return record


def on_order(kind: CommandKind, account: int, order_id: int, **fields: int) -> np.ndarray:
    record = new_order(account, "AA", Side.BUY, 0, 0)
    record["kind"], record["order_id"], record["symbol"], record["order_type"] = (
        kind, order_id, 0, 0,
    )  # fmt: skip
    if kind == CommandKind.REPLACE:
        record["side"] = record["tif"] = UNSTATED
    for name, value in fields.items():
        record[name] = value
    return record


@pytest.fixture
def story(tmp_path: Path) -> KeptDirectory:
    """Accounts 1 and 2 side by side; 1 names its orders by the numbers it was given."""
    start = [open_account(1), open_account(2)]
    start += [open_session(1, "one", 1), open_session(2, "two", 1)]
    start.append(list_instrument(Instrument("AA")))
    orders = [
        new_order(2, "NEWCO", Side.BUY, 5, 90),  # lists an unknown symbol
        new_order(2, "AA", Side.BUY, 5, 100),
        new_order(1, "AA", Side.BUY, 7, 99),  # counter 3, slot 2
        new_order(1, "OTHER", Side.SELL, 3, 200),  # counter 4, slot 3: the next unknown symbol
        on_order(CommandKind.REPLACE, 1, 3 << 24 | 2, qty=6, px=98),
        on_order(CommandKind.CANCEL, 1, 4 << 24 | 3),
        new_order(1, "AA", Side.SELL, 4, 98),  # trades with 2 at 100; without 2 with itself at 98
        new_order(1, "OTHER", Side.SELL, 2, 210),
    ]
    world, _ = recorded_on(5, COMMANDS)
    limits = dataclasses.replace(
        world.limits, orders_max=16, levels_max=16, symbols_max=6, max_walk=100, slice_events=32
    )
    config = config_of_world(dataclasses.replace(world, limits=limits, unknown_symbol="create"))
    config = dataclasses.replace(config, template=Instrument("TEMPLATE"))
    return make_directory(str(tmp_path / "story"), config, [np.concatenate(start + orders)])


def test_without_an_account_the_others_still_find_their_orders(
    story: KeptDirectory, tmp_path: Path
) -> None:
    old = all_events(story, 0)
    assert not (old["kind"] == EventKind.REJECTED).any(), old[["in_seq", "code"]].tolist()
    [made] = fork(Fork(story, str(tmp_path / "new"), 5, without=2))
    new = open_kept(str(tmp_path / "new"))
    events = all_events(new, 0)
    assert not (events["kind"] == EventKind.REJECTED).any()
    assert not ((events["account"] == 2) & (events["order_id"] != 0)).any()
    # The replace and the cancel met the orders they were meant for.
    replaced = events[events["kind"] == EventKind.REPLACED]
    canceled = events[events["kind"] == EventKind.CANCELED]
    assert (replaced["order_id"] >> 24).tolist() == [1]
    assert (canceled["order_id"] >> 24).tolist() == [2]
    assert {picture.terms.symbol for picture in book_pictures(made.new.state)} == {"AA", "OTHER"}
    assert made.old.trades["px"].tolist() == [100]
    assert made.new.trades["px"].tolist() == [98]
    records = journal_records(new)
    assert len(records) == len(journal_records(story))  # every command has its place
    silent = records[records["account"] == 2]["kind"][2:]
    assert (silent == CommandKind.SESSION_KEEP).all()
    report = verify_shard(new, 0)
    assert (report.damages, report.differences) == ([], [])


def test_another_policy_for_unknown_symbols(story: KeptDirectory, tmp_path: Path) -> None:
    config = dataclasses.replace(config_of_kept(story), unknown_symbol="reject")
    [made] = fork(Fork(story, str(tmp_path / "new"), 5, config=config))
    new = open_kept(str(tmp_path / "new"))
    events = np.concatenate(list(nearest(new, 0).follow()) or [all_events(story, 0)[:0]])
    if not len(events):  # `nearest` was already at the end
        events = np.concatenate(list(Rerun(new, 0, 5).follow()))
    codes = events["code"][events["kind"] == EventKind.REJECTED].tolist()
    unknown, gone = RejectCode.UNKNOWN_SYMBOL, RejectCode.UNKNOWN_ORDER
    assert codes == [unknown, unknown, gone, unknown]
    assert [p.terms.symbol for p in book_pictures(made.new.state)] == ["AA"]
    assert new.config.unknown_symbol == "reject"
    assert made.new.trades["px"].tolist() == [100]


def test_a_fork_that_cannot_be_is_refused_and_leaves_nothing(
    kept: KeptDirectory, tmp_path: Path
) -> None:
    target = tmp_path / "new"
    limits = dataclasses.replace(kept.config.shard, orders_max=128)
    config = dataclasses.replace(config_of_kept(kept), shard=limits)
    with pytest.raises(ForkError, match=r"orders_max \d+ \(now 128\)"):
        fork(Fork(kept, str(target), 10, config=config))
    with pytest.raises(PastError, match="has no command 99999"):
        fork(Fork(kept, str(target), 99_999))
    assert not target.exists()
    [made] = fork(Fork(kept, str(target), 0, config=config))  # from the first command: any size
    assert made.new.in_seq >= made.old.in_seq - 50
    with pytest.raises(ForkError, match="is not empty"):
        fork(Fork(kept, str(target), 0))


def test_shards_are_cut_at_the_same_time(tmp_path: Path) -> None:
    world, commands = recorded_on(5, 300)
    _, others = recorded_on(7, 300, shard=1)
    config = config_of_world(world, shards=2)
    kept = make_directory(str(tmp_path / "two"), config, [commands, others])
    made = fork(Fork(kept, str(tmp_path / "new"), 120, shard=1, without=1))
    at_ts = made[1].at_ts
    times = journal_records(kept, 0)["in_ts"]
    assert made[1].at == 120
    assert made[0].at == np.count_nonzero(np.maximum.accumulate(times) <= at_ts)
    new = open_kept(str(tmp_path / "new"))
    for shard in (0, 1):
        report = verify_shard(new, shard)
        assert (report.damages, report.differences) == ([], [])


def test_the_first_start_of_a_fork_begins_a_new_incarnation(
    kept: KeptDirectory, tmp_path: Path
) -> None:
    from engine.data_directory import DataDirectory

    fork(Fork(kept, str(tmp_path / "new"), 500))
    config = dataclasses.replace(
        config_of_kept(kept),
        journal=dataclasses.replace(kept.config.journal, directory=str(tmp_path / "new")),
    )
    directory = DataDirectory(config, 1)
    try:
        directory.read()
        assert directory.renewal is not None
        assert directory.renewal.incarnation > kept.manifest.incarnation
        assert directory.renewal.advance
        assert directory.ends[0].in_seq == len(journal_records(kept))
    finally:
        directory.close(clean=False)


@pytest.mark.later
def test_a_journal_of_many_chunks(tmp_path: Path) -> None:
    """Longer than a chunk of the reader, the staging ring and a stretch of the event ring."""
    count, rng = 40_000, np.random.default_rng(8)
    start = [open_account(1), open_account(2)]
    start += [open_session(1, "one", 1), open_session(2, "two", 1)]
    start.append(list_instrument(Instrument("AA")))
    orders = np.repeat(new_order(1, "AA", Side.BUY, 1, 100), count)
    orders["account"] = orders["session"] = 1 + np.arange(count) % 2
    orders["side"] = rng.integers(0, 2, count)
    orders["px"] = 100 + rng.integers(-3, 4, count)
    orders["qty"] = rng.integers(1, 9, count)
    orders["in_ts"] = np.arange(count)
    world, _ = recorded_on(5, COMMANDS)
    limits = dataclasses.replace(
        world.limits, orders_max=1 << 15, levels_max=64, max_walk=1000, slice_events=32
    )
    config = config_of_world(dataclasses.replace(world, limits=limits))
    journal = dataclasses.replace(config.journal, segment_bytes=1 << 20)
    config = dataclasses.replace(config, journal=journal)
    kept = make_directory(str(tmp_path / "long"), config, [np.concatenate([*start, orders])])
    add_snapshots(kept, 0, (20_000, 33_333))
    add_log(kept, 0, all_events(kept, 0))
    report = verify_shard(kept, 0)
    assert (report.damages, report.differences, report.notes) == ([], [], [])
    assert report.snapshots == [20_000, 33_333]
    assert report.log == (1, report.events)
    assert report.speed > 0

    [same] = fork(Fork(kept, str(tmp_path / "same"), 17_000))
    new = open_kept(str(tmp_path / "same"))
    assert journal_records(new).tobytes() == journal_records(kept).tobytes()
    assert state_hash(same.new.state) == report.state_hash
    [without] = fork(Fork(kept, str(tmp_path / "without"), 17_000, without=2))
    assert len(without.new.trades) < len(without.old.trades)
    again = verify_shard(open_kept(str(tmp_path / "without")), 0)
    assert (again.damages, again.differences) == ([], [])
    assert again.state_hash == state_hash(without.new.state)
