"""`run.py top`: what every process of a running instance does, live. Cold, reads only.

Rates are over the last interval; `--once` takes two readings a third of a second apart and prints
one picture. On a terminal the screen is redrawn in place; into a pipe, picture after picture is
written.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.common import count_text, is_terminal, load, time_text
from cli.top_sample import CLOCK_TICKS, Instance, Process, Ring, Sample
from engine.counters import COUNT, MAXIMUM, percentiles

FIRST_INTERVAL_S = 0.35
BOOKS_SHOWN = 12
STALE_S = 3.0
COUNTERS_SHOWN = 40


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def processes_table(now: Sample, before: Sample) -> Table:
    """One line per process: alive, where, how busy."""
    table = _table("processes", "name", "pid", "state", "beat", "cpu", "cores")
    ticks = {process.name: process.cpu_ticks for process in before.processes}
    seconds = max(now.at - before.at, 1e-6)
    for process in now.processes:
        used = process.cpu_ticks - ticks.get(process.name, process.cpu_ticks)
        stale = process.beat_age_s > STALE_S and process.state != "stopped"
        table.add_row(
            process.name,
            str(process.pid),
            Text(process.state, style="green" if process.state == "running" else "yellow"),
            Text(f"{process.beat_age_s:.1f}s", style="red" if stale else ""),
            f"{100 * used / CLOCK_TICKS / seconds:.0f}%",
            process.cores,
        )
    return table


def _ring_rows(table: Table, now: list[Ring], before: list[Ring], seconds: float) -> None:
    written = {(ring.shard, ring.peer): ring.written for ring in before}
    for ring in now:
        depth = ring.written - ring.read
        rate = (ring.written - written.get((ring.shard, ring.peer), ring.written)) / seconds
        share = depth / ring.capacity
        style = "red" if share > 0.5 else "yellow" if share > 0.1 else ""
        place = f"{ring.shard} {ring.peer}"
        table.add_row(
            place,
            count_text(rate),
            Text(f"{depth:,}", style=style),
            f"{share:.0%}",
            count_text(ring.written),
        )


def rings_tables(now: Sample, before: Sample) -> list[Table]:
    """Depth and rate of every ring that was ever used."""
    seconds = max(now.at - before.at, 1e-6)
    columns = ("per s", "waiting", "full", "total")
    commands = _table("command rings", "shard, from", *columns)
    _ring_rows(commands, now.commands, before.commands, seconds)
    events = _table("event rings", "shard, to", *columns)
    _ring_rows(events, now.events, before.events, seconds)
    return [table for table in (commands, events) if table.row_count]


def latency_table(now: Sample, before: Sample) -> Table:
    """Percentiles of what was recorded since the last picture, or ever where nothing was."""
    columns = ("samples", "p50", "p90", "p99", "p99.9", "max")
    table = _table("latencies (since the last picture)", "what", *columns)
    for (block, label), words in now.histograms.items():
        if not int(words[COUNT]):
            continue
        earlier = before.histograms.get((block, label))
        recent = np.array(words) if earlier is None else words - earlier
        recent[MAXIMUM] = words[MAXIMUM]
        quiet = not int(recent[COUNT])
        if quiet:
            recent = words
        found = percentiles(recent, (50, 90, 99, 99.9, 100))
        cells = [time_text(found[p]) for p in (50, 90, 99, 99.9, 100)]
        name = f"{block} {label}" + (" (ever)" if quiet else "")
        table.add_row(name, count_text(int(recent[COUNT])), *cells)
    return table


def counters_table(now: Sample, before: Sample) -> Table:
    """Every counter that is not zero: total and rate."""
    table = _table("counters", "counter", "per s", "total")
    earlier = {process.name: process.counters for process in before.processes}
    seconds = max(now.at - before.at, 1e-6)
    for process in now.processes:
        for label, value in process.counters.items():
            if value and table.row_count < COUNTERS_SHOWN:
                rate = (value - earlier.get(process.name, {}).get(label, value)) / seconds
                alarming = _alarming(label) and rate > 0
                name = Text(f"{process.name} {label}", style="red" if alarming else "")
                table.add_row(name, count_text(rate) if rate else "", f"{value:,}")
    return table


def _alarming(label: str) -> bool:
    return any(word in label for word in ("lap", "lost", "overflow", "fatal", "gap"))


def rejects_of(processes: list[Process]) -> Iterator[tuple[str, int]]:
    """Give the reject counters: those whose label ends in a code."""
    for process in processes:
        for label, value in process.counters.items():
            if value and label.startswith("reject") and label[-3:].isdigit():
                yield f"{process.name} {label}", value


def books_table(now: Sample, before: Sample) -> Table:
    """Best prices of the most traded instruments."""
    table = _table("books", "symbol", "bid", "ask", "last", "trades", "per s")
    earlier = {book.symbol: book.trades for book in before.books}
    seconds = max(now.at - before.at, 1e-6)
    for book in sorted(now.books, key=lambda book: -book.trades)[:BOOKS_SHOWN]:
        rate = (book.trades - earlier.get(book.symbol, book.trades)) / seconds
        prices = [f"{price:,.8g}" if price else "-" for price in (book.bid, book.ask, book.last)]
        table.add_row(book.symbol, *prices, f"{book.trades:,}", count_text(rate))
    return table


def picture(name: str, now: Sample, before: Sample, width: int) -> RenderableType:
    """Compose the screen; two columns where the terminal is wide enough."""
    rings = rings_tables(now, before)
    left: list[RenderableType] = [processes_table(now, before), Text(""), *_spaced(rings)]
    right: list[RenderableType] = [latency_table(now, before), Text(""), books_table(now, before)]
    head = Text(f"ringbook {name}   {time.strftime('%H:%M:%S')}   Ctrl-C ends\n", style="bold")
    if width < 120:
        return Group(head, *left, *right, Text(""), counters_table(now, before))
    columns = Table.grid(padding=(0, 4))
    columns.add_row(Group(*left), Group(*right), counters_table(now, before))
    return Group(head, columns)


def _spaced(tables: list[Table]) -> Iterator[RenderableType]:
    for table in tables:
        yield table
        yield Text("")


def command(
    path: Path | None, instance: str | None, once: bool, every: float, seconds: float | None
) -> int:
    """Show pictures until told to stop; give the exit code."""
    name = instance or load(path).instance
    console = Console()
    watched = Instance(name)
    try:
        before = watched.sample()
        time.sleep(FIRST_INTERVAL_S)
        now = watched.sample()
        if once:
            console.print(picture(name, now, before, console.width))
            return 0
        return _watch(watched, console, before, now, every, seconds)
    finally:
        watched.close()


def _watch(
    watched: Instance,
    console: Console,
    before: Sample,
    now: Sample,
    every: float,
    seconds: float | None,
) -> int:
    end = None if seconds is None else time.monotonic() + seconds
    live = Live(console=console, screen=True, auto_refresh=False) if is_terminal() else None
    if live is not None:
        live.start()
    try:
        while True:
            name = f"{watched.name} (ended)" if watched.ended else watched.name
            shown = picture(name, now, before, console.width)
            if live is not None:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            if end is not None and time.monotonic() >= end:
                return 0
            time.sleep(every)
            if watched.ended and (successor := Instance.find(watched.name)) is not None:
                watched.close()
                watched = successor
                now = watched.sample()
            before, now = now, watched.sample()
    except KeyboardInterrupt:
        return 0
    finally:
        if live is not None:
            live.stop()
