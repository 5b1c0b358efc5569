"""What the loop relies on: the word it looks at, who is due, and that a record alone decides."""

import numpy as np
import pytest

from engine.admin import open_account, open_session, producer_reset
from engine.book_check import BrokenInvariant
from engine.book_state import (
    IN_SEQ,
    NEXT_DEADLINE,
    SESSIONS_USED,
    SYMBOLS_USED,
    TIMED_SYMBOLS,
    ShardState,
    allocate_state,
    small_limits,
)
from engine.deadline import deadline_find
from engine.jit import kernel
from engine.local import LocalExchange
from engine.records import COMMAND, CommandKind, EventKind

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]


@kernel
def due(s, now):
    """`deadline_find` for Python."""
    return deadline_find(s, now)


def waiting(*deadlines: tuple[int, int]) -> ShardState:
    """A shard whose sessions have these (dead_man_at, close_at)."""
    state = allocate_state(small_limits())
    state.hdr[SESSIONS_USED] = len(deadlines)
    for slot, (dead_man_at, close_at) in enumerate(deadlines, 1):
        state.sessions[slot]["dead_man_at"] = dead_man_at
        state.sessions[slot]["close_at"] = close_at
    state.hdr[NEXT_DEADLINE] = 1
    return state


@pytest.mark.parametrize(
    ("deadlines", "now", "slot", "earliest"),
    [
        ((), 100, 0, 0),
        (((0, 0), (0, 0)), 100, 0, 0),
        (((50, 0), (40, 0)), 39, 0, 40),
        (((50, 0), (40, 0)), 40, 2, 40),
        (((50, 0), (40, 0)), 50, 2, 40),
        (((50, 0), (50, 0)), 50, 1, 50),
        (((50, 0), (60, 45)), 50, 2, 45),
        (((0, 50), (50, 0)), 50, 1, 50),
        (((50, 30), (40, 0)), 100, 1, 30),
    ],
)
def test_earliest_session_that_is_due(
    deadlines: tuple[tuple[int, int], ...], now: int, slot: int, earliest: int
) -> None:
    state = waiting(*deadlines)
    assert due(state.table, now) == (slot, 0, 0)
    assert state.hdr[NEXT_DEADLINE] == earliest


@pytest.mark.parametrize(
    ("session_at", "told_at", "now", "found", "earliest"),
    [
        (0, (0, 50), 49, (0, 0, 0), 50),
        (0, (0, 50), 50, (0, 0, 2), 50),
        (0, (60, 50), 60, (0, 0, 2), 50),
        (0, (50, 50), 50, (0, 0, 1), 50),
        (50, (50, 0), 50, (1, 0, 0), 50),
        (51, (50, 0), 60, (0, 0, 1), 50),
    ],
)
def test_an_indicative_price_comes_behind_a_session_of_the_same_time(
    session_at: int, told_at: tuple[int, int], now: int, found: tuple[int, ...], earliest: int
) -> None:
    state = waiting((session_at, 0))
    state.hdr[SYMBOLS_USED] = len(told_at)
    state.hdr[TIMED_SYMBOLS] = sum(at > 0 for at in told_at)
    state.calls["indicative_at"][1:3] = told_at
    assert due(state.table, now) == found
    assert state.hdr[NEXT_DEADLINE] == earliest


@pytest.mark.parametrize(
    ("told_at", "cross_at", "found", "earliest"),
    [
        ((50, 0), (0, 50), (0, 0, 2), 50),
        ((49, 0), (0, 50), (0, 0, 1), 49),
        ((50, 50), (50, 50), (0, 0, 1), 50),
        ((0, 0), (52, 51), (0, 0, 2), 51),
        ((0, 0), (61, 0), (0, 0, 0), 61),
    ],
)
def test_crosses_come_before_indicative_prices_of_the_same_time(
    told_at: tuple[int, int], cross_at: tuple[int, int], found: tuple[int, ...], earliest: int
) -> None:
    state = waiting((0, 0))
    state.hdr[SYMBOLS_USED] = 2
    state.hdr[TIMED_SYMBOLS] = sum(at > 0 for at in told_at + cross_at)
    state.calls["indicative_at"][1:3], state.calls["cross_at"][1:3] = told_at, cross_at
    assert due(state.table, 60) == found
    assert state.hdr[NEXT_DEADLINE] == earliest


def logon(dead_man: int, in_ts: int) -> np.ndarray:
    record = open_session(1, "bot", logon=in_ts)
    record["amount"], record["in_ts"] = dead_man, in_ts
    return record


def keep(in_ts: int, number: int) -> np.ndarray:
    record = np.zeros(1, COMMAND)
    record["kind"], record["account"], record["session"] = CommandKind.SESSION_KEEP, 1, 3
    record["producer"], record["logon"], record["in_ts"] = 1, number, in_ts
    return record


def test_moving_a_deadline_on_leaves_the_word_early_and_looking_puts_it_right() -> None:
    exchange = LocalExchange(limits=small_limits(), accounts=2)
    exchange.step(logon(100, 1000))
    word = exchange.state.hdr[NEXT_DEADLINE : NEXT_DEADLINE + 1]
    assert word == 1100
    exchange.step(keep(1090, 1000))
    assert word == 1100
    assert due(exchange.state.table, 1150) == (0, 0, 0)
    assert word == 1190
    # Moving deadlines on by a pause moves the word along.
    pause = np.zeros(1, COMMAND)
    pause["kind"], pause["amount"], pause["in_ts"] = CommandKind.TIME, 500, 1600
    exchange.step(pause)
    assert word == 1690
    exchange.advance(1690)
    assert due(exchange.state.table, 1690) == (0, 0, 0)
    assert word == 0
    exchange.step(keep(1700, 1000))
    assert word == 1800
    exchange.step(producer_reset(1, 30))
    assert word == 1730


def test_without_deadlines_the_word_stays_zero() -> None:
    exchange = LocalExchange(limits=small_limits(), accounts=2)
    exchange.place("AAPL", 0, 1, 100)
    exchange.step(logon(0, 1000))
    exchange.step(keep(5000, 1000))
    assert exchange.state.hdr[NEXT_DEADLINE] == 0


def test_advance_returns_what_was_due_one_time_after_the_other() -> None:
    exchange = LocalExchange(limits=small_limits(), accounts=2)
    exchange.step(logon(100, 1000))
    exchange.step(producer_reset(1, 50))
    before = int(exchange.state.hdr[IN_SEQ])
    events = exchange.advance(5000)
    # Three sessions of producer 1: those of the two accounts, and the one with a dead-man time.
    assert events["kind"].tolist() == [EventKind.ACCOUNT] * 3
    assert events["session"].tolist() == [1, 2, 3]
    assert events["in_seq"].tolist() == [before + 1, before + 2, before + 3]
    assert len(exchange.advance(9000)) == 0


def test_last_command_of_every_producer_is_remembered_but_the_loops() -> None:
    exchange = LocalExchange(limits=small_limits(), accounts=2)
    for producer, number in ((1, 7), (255, 2**62), (0, 5), (9, 3), (9, 4)):
        record = open_account(1)
        record["producer"], record["producer_seq"] = producer, number
        exchange.step(record)
    remembered = exchange.state.producer_seq
    assert len(remembered) == 256
    assert {n: int(remembered[n]) for n in np.flatnonzero(remembered)} == {1: 7, 255: 2**62, 9: 4}


def test_check_sees_a_word_that_is_too_late_and_a_deadline_nobody_waits_for() -> None:
    exchange = LocalExchange(limits=small_limits(), accounts=2)
    exchange.step(logon(100, 1000))
    exchange.check()
    exchange.state.hdr[NEXT_DEADLINE] = 1101
    with pytest.raises(BrokenInvariant, match="deadline"):
        exchange.check()
    exchange.state.hdr[NEXT_DEADLINE] = 1
    exchange.state.sessions[3]["logon"] = 0
    with pytest.raises(BrokenInvariant, match="without owner"):
        exchange.check()
