"""What `run.py bench` prints and stores; the page in docs is generated, not written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.measure import Row, configuration, ratio_at_most

ROWS = [
    Row(
        "matching W1",
        48.25,
        "ns/op",
        floor=12.1,
        baseline=50.0,
        ratio=3.99,
        interval=(3.9, 4.02),
        targets=(ratio_at_most(4),),
        note="floor: bare ladder",
    ),
    Row("broken", 1.0, "µs", ratio=1.0, targets=(ratio_at_most(2),), void="wrong answer: 3"),
    Row("rate", 1_234_567.0, "orders/s"),
]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    def group(name: str) -> object:
        def run(quick: bool, idle: str) -> list[Row]:
            if name == "feed":
                raise RuntimeError("no feed here")
            return {"book": ROWS[:1], "ring": ROWS}[name]

        return run

    monkeypatch.setattr(report, "_group", group)


def test_docs_page_is_what_the_newest_result_gives() -> None:
    newest = report.newest_result()
    assert newest is not None, "bench/results/ has no complete run"
    assert report.PAGE.read_text() == report.page_of(json.loads(newest.read_text()), newest.name)


@pytest.mark.parametrize("path", sorted(report.RESULTS.glob("*.json")), ids=lambda p: p.name)
def test_stored_results_have_the_agreed_form(path: Path) -> None:
    result = json.loads(path.read_text())
    agreed = {"name", "value", "unit", "floor", "baseline", "ratio", "target", "met"}
    assert result["rows"]
    assert all(agreed <= set(row) for row in result["rows"])
    assert {"machine", "kernel", "governor", "cores", "commit", "versions"} <= set(
        result["configuration"]
    )


def test_table_shows_value_floor_ratio_interval_target_and_verdict() -> None:
    text = report.table(ROWS)
    first = next(line for line in text.splitlines() if line.startswith("matching W1"))
    for part in ("48.2 ns/op", "12.1", "50.0", "3.99× [3.90, 4.02]", "≤ 4×", "yes"):
        assert part in first
    assert "VOID: wrong answer: 3" in text
    assert "1,234,567 orders/s" in text
    assert "floor: bare ladder" in text


def test_run_writes_the_json_and_succeeds(
    stubbed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    assert report.main(["book", "--json", str(path), "--quick"]) == 0
    result = json.loads(path.read_text())
    assert [row["name"] for row in result["rows"]] == ["matching W1"]
    assert result["rows"][0]["met"] is True
    assert result["configuration"]["quick"] is True
    printed = capsys.readouterr().out
    assert "1 of 1 targets met" in printed
    assert "quick run" in printed


def test_void_figure_makes_the_run_fail(stubbed: None) -> None:
    assert report.main(["ring"]) == 1


def test_group_that_fails_is_named_and_makes_the_run_fail(
    stubbed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["feed"]) == 1
    assert "FAILED feed: RuntimeError: no feed here" in capsys.readouterr().err


def test_saved_run_becomes_the_page(
    stubbed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "NAMES", ("book", "ring"))
    report.main(["all", "--save"])
    newest = report.newest_result()
    assert newest is not None
    page = (tmp_path / "page.md").read_text()
    assert page == report.page_of(json.loads(newest.read_text()), newest.name)
    assert page.startswith("# Benchmarks\n")
    assert "| matching W1 | 48.2 ns/op | 12.1 | 50.0 |" in page
    assert "| VOID |" in page


def test_figures_have_as_many_digits_as_they_deserve() -> None:
    assert [report.figure(v) for v in (1234567.8, 48.25, 1.2345, 0.0456, None)] == [
        "1,234,568",
        "48.2",
        "1.23",
        "0.0456",
        "",
    ]


def test_unknown_benchmark_is_refused() -> None:
    with pytest.raises(SystemExit):
        report.main(["nothing"])


def test_setting_is_printed_for_people() -> None:
    config = configuration(idle="adaptive", quick=False, pinning="shard 1")
    text = "\n".join(report.setting_lines(config))
    for part in (config["machine"], config["kernel"], config["commit"], "adaptive", "shard 1"):
        assert part in text
