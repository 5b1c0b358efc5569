"""What the screens write, from made-up readings; and what the doctor says of sick machines."""

import sys
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cli import doctor
from cli.client import book_lines
from cli.common import count_text, is_operating_error, sentence_of, time_text
from cli.flow import FlowStats
from cli.top import picture
from cli.top_sample import BookLine, Process, Ring, Sample, core_list
from engine.config import Config
from engine.counters import HISTOGRAM_WORDS, histogram_record_many
from engine.segment import SegmentError
from gateway.client_reports import Book, Level


def text_of(shown: Any, width: int = 160) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(shown)
        return console.export_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (4.56e6, "4.56M"),
    ],
)
def test_counts_stay_short(value: float, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(850, "850ns"), (12_345, "12.3µs"), (4.5e6, "4.5ms"), (2e9, "2s")]
)
def test_durations_have_their_unit(value: float, text: str) -> None:
    assert time_text(value) == text


def sample(at: float, commands: int, histogram: np.ndarray) -> Sample:
    process = Process(
        "shard0", 1, "running", 0.1, commands, "0-1", {"commands": commands, "laps": commands}
    )
    return Sample(
        at=at,
        processes=[process],
        commands=[Ring(0, "gateway0", commands, commands - 600, 1000)],
        events=[Ring(0, "feed", 2 * commands, 2 * commands, 1000)],
        books=[BookLine("AAPL", 187.41, 187.43, 0.0, commands)],
        histograms={("shard0", "latency_ns"): histogram},
    )


@pytest.mark.parametrize("width", [80, 160])
def test_top_shows_rates_depths_and_recent_percentiles(width: int) -> None:
    before, now = np.zeros(HISTOGRAM_WORDS, np.int64), np.zeros(HISTOGRAM_WORDS, np.int64)
    histogram_record_many(before, 0, np.full(50, 9_000_000, np.int64))
    now[:] = before
    histogram_record_many(now, 0, np.full(200, 20_000, np.int64))
    shown = text_of(
        picture("demo", sample(12.0, 5000, now), sample(10.0, 1000, before), width), width
    )
    assert "shard0" in shown
    assert "2.00k" in shown  # 4,000 commands in two seconds
    assert "60%" in shown  # of the command ring is waiting
    assert "20.3µs" in shown or "20.5µs" in shown  # the old 9 ms are not in the recent p50
    assert "AAPL" in shown


def test_cores_are_written_as_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 5})
    assert core_list(1) == "0-2,5"


def test_a_book_is_written_in_columns() -> None:
    level = Level(Decimal("187.41"), Decimal(7), 2)
    lines = list(book_lines(Book("AAPL", [level], [], 1, 0, None, {})))
    assert lines[1].split() == ["2", "7", "187.41", "|"]
    assert "(empty)" in list(book_lines(Book("AAPL", [], [], 1, 0, None, {})))[-1]


def test_the_demo_says_rejects_by_code() -> None:
    from cli.demo import Rates, summary

    stats = FlowStats(sent=3, rejects=Counter({501: 2}))
    assert list(summary(stats, Rates(stats)))[-1] == "rejects by code   501: 2"


# ----------------------------------------------------------------------------------------- doctor
def test_another_system_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "runs on Linux x86-64" in doctor.platform_refusal()
    assert doctor.check_platform().mark == "bad"


def test_another_python_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHON_BELOW", (3, 11))
    assert "needs Python 3.11, 3.12 or 3.13" in doctor.platform_refusal()


def test_a_small_shm_is_bad_and_says_how_to_enlarge_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    finding = doctor.check_shared_memory(Config())
    assert finding.mark == "bad"
    assert "--shm-size" in finding.sentence


def test_one_core_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3})
    assert doctor.check_cores().mark == "note"


def test_few_files_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 1 << 20))
    finding = doctor.check_limits()
    assert (finding.mark, "ulimit -n 4096" in finding.sentence) == ("note", True)


def test_multicast_on_an_interface_that_is_none_is_bad() -> None:
    from dataclasses import replace

    network = replace(Config().network, feed_interface="203.0.113.9")
    assert doctor.check_multicast(replace(Config(), network=network)).mark == "bad"


def test_operating_errors_are_told_from_bugs() -> None:
    assert is_operating_error(SegmentError("no"))
    assert is_operating_error(FileNotFoundError(2, "No such file", "x.toml"))
    assert not is_operating_error(KeyError("x"))
    assert sentence_of(FileNotFoundError(2, "No such file", "x.toml")) == "x.toml: No such file"
