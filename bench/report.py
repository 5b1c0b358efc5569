"""`run.py bench`: runs benchmarks, prints every figure beside its floor, stores them, writes the
page in docs. Cold.

    run.py bench [ring|book|wire-throughput|wire-latency|feed|start|journal|recovery|micro|all]
                 [--json FILE] [--quick] [--save] [--idle MODE]

The JSON is {"configuration": {...}, "rows": [{name, value, unit, floor, baseline, ratio, target,
met, ...}]}. `--save` keeps it in bench/results/ and generates docs/benchmarks.md from it; a test
proves that the page is what the newest result file gives. A target that is missed is shown, it is
no error: a timing never decides a test. A wrong answer is one (exit code 1), and its figure is
void.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import ROOT, Row, configuration, cores_available, warnings_of
from bench.system import IDLE

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BUSY_PROCESSES = 4  # generator, gateway, shard, feed
NAMES = (
    *("ring", "book", "wire-throughput", "wire-latency", "feed", "start", "journal", "recovery"),
    "micro",
)


def _group(name: str) -> Callable[[bool, str], list[Row]]:
    # Imported when chosen: `run.py bench --help` compiles nothing.
    if name == "book":
        from bench.matching import bench_book

        return lambda quick, idle: bench_book(quick)
    if name == "ring":
        from bench.latency import bench_ring_latency
        from bench.throughput import bench_ring_throughput

        return lambda quick, idle: [
            *bench_ring_latency(quick, idle),
            *bench_ring_throughput(quick, idle),
        ]
    if name == "wire-throughput":
        from bench.throughput import bench_wire_throughput

        return bench_wire_throughput
    if name == "wire-latency":
        from bench.latency import bench_wire_latency

        return bench_wire_latency
    if name == "feed":
        from bench.feed import bench_feed

        return bench_feed
    if name == "journal":
        from bench.journal import bench_journal

        return bench_journal
    if name == "recovery":
        from bench.recovery import bench_recovery

        return bench_recovery
    if name == "start":
        from bench.startup import bench_start

        return bench_start
    from bench.micro.rows import bench_micro

    return lambda quick, idle: bench_micro()


def run_groups(names: Sequence[str], quick: bool, idle: str) -> tuple[list[Row], list[str]]:
    """Run benchmarks one by one; rows of those that worked, a sentence for each that did not."""
    rows: list[Row] = []
    failures = []
    for name in names:
        print(f"{time.strftime('%H:%M:%S')}  {name} ...", file=sys.stderr, flush=True)
        try:
            found = _group(name)(quick, idle)
        except Exception as error:  # the other benchmarks still have their turn
            failures.append(f"{name}: {type(error).__name__}: {error}")
            continue
        rows += found
        print(table(found), flush=True)
    return rows, failures


# --------------------------------------------------------------------------------------- printing
def figure(value: float | None) -> str:
    """Write a figure with as many digits as it deserves."""
    if value is None:
        return ""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def _cells(row: dict[str, Any]) -> list[str]:
    ratio = f"{row['ratio']:.2f}×" if row["ratio"] is not None else ""
    interval = row["interval"]
    if interval and row["ratio"] is not None:
        ratio += f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    met = {True: "yes", False: "no", None: ""}[row["met"]]
    return [
        row["name"],
        f"{figure(row['value'])} {row['unit']}",
        figure(row["floor"]),
        figure(row["baseline"]),
        ratio,
        row["target"],
        "VOID" if row["void"] else met,
    ]


HEADINGS = ["what", "value", "floor", "baseline", "ratio [95 %]", "target", "met"]


def table(rows: Sequence[Row]) -> str:
    """Write rows as aligned text, each one's note below it."""
    lines = [_cells(row.as_json()) for row in rows]
    widths = [max(len(line[k]) for line in [HEADINGS, *lines]) for k in range(len(HEADINGS))]
    written = [_aligned(HEADINGS, widths)]
    for row, line in zip(rows, lines, strict=True):
        written.append(_aligned(line, widths))
        if row.void:
            written.append(f"    VOID: {row.void}")
        if row.note:
            written.append(f"    {row.note}")
    return "\n".join(written) + "\n"


def _aligned(cells: list[str], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]).rstrip()


def setting_lines(config: dict[str, Any]) -> list[str]:
    """Write the configuration for people."""
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    return [
        f"{config['machine']}, {config['architecture']}, cores {config['cores']}"
        f"{', virtual' if config['virtual'] else ''}; governor {config['governor']}",
        f"kernel {config['kernel']}; {versions}",
        f"commit {config['commit']}, flavour {config['flavour']}, idle mode {config['idle']},"
        f" {'quick run' if config['quick'] else 'full run'}, {config['time']}",
        f"pinning: {config['pinning']}",
    ]


# ------------------------------------------------------------------------------------------- page
def page_of(result: dict[str, Any], source: str) -> str:
    """Write docs/benchmarks.md from a stored result."""
    config = result["configuration"]
    lines = [
        "# Benchmarks",
        "",
        f"Generated from `bench/results/{source}` by `run.py bench all --save`, never by hand.",
        "What is measured how: the first lines of each file in `bench/`. A ratio is the median of",
        "interleaved pairs with its floor, in one run; the interval covers that median with 95 %",
        "confidence or more. Floors: `bench/floors/`.",
        "",
        *(f"* {line}" for line in setting_lines(config)),
        *(f"* **{warning}**" for warning in config["warnings"]),
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + " --- |" * len(HEADINGS),
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in result["rows"]]
    lines += ["", "## Notes", ""]
    lines += [
        f"* {row['name']}: {row['note']}{' VOID: ' + row['void'] if row['void'] else ''}"
        for row in result["rows"]
        if row["note"] or row["void"]
    ]
    return "\n".join(lines) + "\n"


def newest_result() -> Path | None:
    """Return the newest result of a complete run."""
    found = sorted(RESULTS.glob("all-*.json"))
    return found[-1] if found else None


def write_page(path: Path) -> None:
    """Generate the page from one result file."""
    PAGE.write_text(page_of(json.loads(path.read_text()), path.name))


def _save(result: dict[str, Any], what: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    stamp = result["configuration"]["time"].replace(":", "").replace("-", "")
    path = RESULTS / f"{what}-{stamp}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return path


# ------------------------------------------------------------------------------------------- main
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py bench", description="Measure, each figure beside its floor in the same run."
    )
    parser.add_argument("what", nargs="?", default="all", choices=(*NAMES, "all"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")
    parser.add_argument(
        "--quick", action="store_true", help="few pairs, short runs: does it work? (not a result)"
    )
    parser.add_argument("--idle", default=IDLE, choices=("adaptive", "spin", "park"))
    parser.add_argument(
        "--save",
        action="store_true",
        help="keep the result in bench/results/; with `all` also write docs/benchmarks.md",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run what the command line names; returns the exit code."""
    options = _parser().parse_args(list(argv))
    # A terminated benchmark takes its exchange, floors and generator with it, in order.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: argparse.Namespace) -> int:
    cores = cores_available()
    config = configuration(
        idle=options.idle,
        quick=options.quick,
        what=options.what,
        pinning=f"shard {cores[-1]}; gateway, feed, floors {cores[0]}; generator as each note says",
    )
    config["warnings"] = warnings_of(config, BUSY_PROCESSES)
    if options.quick:
        config["warnings"].append("quick run: too short to compare with anything")
    print("\n".join(setting_lines(config)))
    print("\n".join(f"NOT TO BE TRUSTED FULLY: {w}" for w in config["warnings"]), flush=True)
    names = NAMES if options.what == "all" else (options.what,)
    rows, failures = run_groups(names, options.quick, options.idle)
    result = {"configuration": config, "rows": [row.as_json() for row in rows], "failed": failures}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if options.save:
        path = _save(result, options.what)
        print(f"stored in {path.relative_to(ROOT)}")
        if options.what == "all" and not failures:
            write_page(path)
    bars = [row for row in rows if row.targets]
    print(f"{sum(bool(row.met) for row in bars)} of {len(bars)} targets met")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures or any(row.void for row in rows) else 0
