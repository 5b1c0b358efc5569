"""The load generator's reader of acknowledgements: a blind one counts anything as an answer."""

from __future__ import annotations

import numpy as np
import pytest

from bench.flow import RECORD
from bench.reports import (
    ANSWERED,
    LINES,
    REJECTED,
    SUMMARY,
    TWICE,
    UNMATCHED,
    Matcher,
    faults_of,
    new_matcher,
    outcome_of,
    reports_read,
)
from bench.workload import TradeTally, named
from engine.records import EVENT, EventKind, Role

RECORDS = np.array(
    [(0, 0, 0, 5, 100, 1), (0, 1, 0, 5, 100, 2), (1, 0, 0, 0, 100, 1), (2, 1, 0, 1, 100, 3)], RECORD
)


def _line(kind: str, order_id: int, tail: str = "") -> bytes:
    head = f'{{"type":"{kind}","seq":7,"shard":0,"session":"b","symbol":"S000","order_id":99,'
    return f'{head}"id":{order_id},"side":"buy"{tail},"last":true,"ts":1}}\n'.encode()


def _read(matcher: Matcher, data: bytes, now: int = 5) -> int:
    matcher.buffer[: len(data)] = np.frombuffer(data, np.uint8)
    with np.errstate(over="ignore"):  # wraps on purpose; NumPy warns without the JIT
        return int(reports_read(matcher, len(data), now))


def test_each_answer_marks_the_operation_it_answers_with_its_time() -> None:
    matcher = new_matcher(RECORDS)
    _read(matcher, _line("accepted", 2), now=11)
    _read(matcher, _line("accepted", 1) + _line("booked", 1), now=12)
    _read(matcher, _line("canceled", 1), now=13)
    assert matcher.answered_ns.tolist() == [12, 11, 13, 0]
    assert matcher.counts[ANSWERED] == 3
    assert faults_of(matcher) == "1 operations without an answer"
    _read(matcher, _line("accepted", 3), now=14)
    assert faults_of(matcher) == ""


def test_id_is_found_wherever_it_stands_and_not_in_longer_keys() -> None:
    lines = [
        b'{"type":"accepted","id":1,"last":true}',
        b'{"type":"accepted","order_id":7,"id":2}',
        b'{"type":"accepted","x":"iid::d","uid":5,"valid":9,"ids":8,"i":4,"d":6,"id":1}',
    ]
    for pad in range(6):
        for line, operation in zip(lines, (0, 1, 0), strict=True):
            matcher = new_matcher(RECORDS)
            _read(matcher, line.replace(b',"', b',"p":"%s","' % (b"i" * pad), 1) + b"\n")
            assert matcher.answered_ns[operation] == 5
            assert not matcher.counts[UNMATCHED]


def test_incomplete_line_is_left_for_the_next_read() -> None:
    matcher = new_matcher(RECORDS)
    whole, half = _line("accepted", 1), _line("accepted", 2)[:-1]
    assert _read(matcher, whole + half) == len(whole)
    assert matcher.counts[LINES] == 1
    assert matcher.answered_ns.tolist() == [5, 0, 0, 0]


@pytest.mark.parametrize("shift", range(9))
def test_newline_is_found_at_every_alignment_and_not_behind_the_end(shift: int) -> None:
    matcher = new_matcher(RECORDS)
    data = b"x" * shift + b"\n" + _line("accepted", 1)
    matcher.buffer[len(data)] = 10  # an older read left a newline here
    assert _read(matcher, data) == len(data)
    assert matcher.counts[LINES] == 2
    assert _read(matcher, data[:-1]) == shift + 1


@pytest.mark.parametrize("tail", range(1, 17))
def test_rest_shorter_than_a_word_is_left_and_never_looked_at_twice(tail: int) -> None:
    matcher = new_matcher(RECORDS)
    for shift in range(8):
        data = b"\n" * shift + _line("accepted", 2)
        assert _read(matcher, data + b"x" * tail) == len(data)


def test_second_unknown_and_rejected_answers_are_faults() -> None:
    matcher = new_matcher(RECORDS)
    _read(matcher, _line("accepted", 1) * 2 + _line("accepted", 70) + _line("canceled", 2))
    assert matcher.counts[TWICE] == 1
    assert matcher.counts[UNMATCHED] == 2
    _read(matcher, _line("rejected", 2, ',"code":301') + _line("rejected", 1, ',"code":501'))
    assert matcher.counts[REJECTED] == 2
    assert (matcher.answered_ns > 0).tolist() == [True, True, True, False]
    for word in ("2 rejects", "2 answers to nothing", "1 second answers"):
        assert word in faults_of(matcher)


@pytest.mark.parametrize("kind", ["replaced", "account", "continued", "booked", "a", "status"])
def test_other_types_with_the_same_first_letters_are_no_answers(kind: str) -> None:
    matcher = new_matcher(RECORDS)
    _read(matcher, _line(kind, 1))
    assert matcher.counts[LINES] == 1
    assert not matcher.counts[[REJECTED, ANSWERED, UNMATCHED]].any()


def test_summary_is_seen_with_its_count() -> None:
    matcher = new_matcher(RECORDS)
    _read(matcher, b'{"type":"summary","seq":3,"qty":"41","last":true}\n')
    assert matcher.counts[SUMMARY] == 42


def test_fills_fold_to_the_checksum_of_the_events() -> None:
    trades = [(1, 3, 9_999, 7), (2, 3, 10_005, 2_000_000)]  # maker, taker, price, quantity
    events = np.zeros(2 * len(trades), EVENT)
    data = b""
    for k, (maker, taker, px, qty) in enumerate(trades):
        for place, (role, order_id) in enumerate(((Role.MAKER, maker), (Role.TAKER, taker))):
            event = events[2 * k + place]
            event["kind"], event["role"], event["client_order_id"] = EventKind.FILL, role, order_id
            event["px"], event["qty"] = px, qty
            tail = f',"price":"{px // 100}.{px % 100:02d}","qty":"{qty}","leaves":"0","filled":"5"'
            data += _line("fill", order_id, f'{tail},"trade_id":1,"role":"{role.name.lower()}"')
    tally, matcher = TradeTally(), new_matcher(RECORDS)
    tally.add(events)
    _read(matcher, data)
    assert outcome_of(matcher) == tally.outcome
    assert tally.outcome.trades == 2


def test_matcher_knows_every_operation_of_a_workload() -> None:
    records = named("tiny").records
    matcher = new_matcher(records)
    found = np.concatenate([matcher.new_of, matcher.cancel_of])
    assert sorted(found[found >= 0].tolist()) == list(range(records.size))
