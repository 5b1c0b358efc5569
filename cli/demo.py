"""`run.py demo`: an exchange with generated flow, and a screen that shows it. Cold.

The exchange runs in processes of its own (engine/topology.py); the flow runs in a thread of this
one, as ordinary clients; the screen asks for books like any client. Ctrl-C stops all three.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.common import CommandError, account_of, count_text, is_terminal, load, time_text
from cli.doctor import platform_refusal
from cli.flow import Flow, FlowStats
from gateway.client import Client
from gateway.client_async import AsyncClient
from gateway.client_errors import RingbookError
from gateway.client_reports import Book, Fill

if TYPE_CHECKING:
    from engine.config import Config

FRAME_S = 0.25
BOT_ACCOUNTS = ("agents", "alice", "bob")
BOT_RATE_MAX = 300  # requests per second that a throttled account's bot stays below
LEVELS = 5
SYMBOLS_SHOWN = 4
LISTED_WAIT_S = 5.0


class FlowThread:
    """The bots' event loop beside the screen."""

    def __init__(self, config: "Config", rate: int, seed: int) -> None:
        names = [account.name for account in config.accounts]
        bots = [name for name in BOT_ACCOUNTS if name in names] or names[:1]
        if rate > BOT_RATE_MAX * len(bots) and "agents" in bots:
            bots = ["agents"]  # the one without a throttle
        host, port = config.network.host, config.network.port
        clients = []
        for name in bots:
            token = account_of(config, name).token
            options = {"session": "flow", "cancel_on_disconnect": "all"}
            clients.append(AsyncClient(host, port, name, token, receipts=True, **options))  # type: ignore[arg-type]
        self.flow = Flow(clients, rate, seed)
        self.connected = threading.Event()
        self.error: RingbookError | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="ringbook-flow", daemon=True)

    def start(self) -> None:
        """Start, and wait until the bots are logged on."""
        self._thread.start()
        self.connected.wait()
        if self.error is not None:
            raise self.error

    def _main(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        try:
            await self.flow.connect()
        except RingbookError as error:
            self.error = error
            return
        finally:
            self.connected.set()
        await self.flow.run(self._stop)

    def stop(self) -> None:
        """End the flow and log the bots out."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(5)


class Rates:
    """Counts per second over the last frames."""

    def __init__(self, stats: FlowStats) -> None:
        self.stats = stats
        self._old = (time.monotonic(), 0, 0, 0)
        self.sent = self.reports = self.trades = 0.0

    def update(self) -> None:
        """Take new counts, once a second."""
        now, old = time.monotonic(), self._old
        if now - old[0] >= 1.0:
            new = (now, self.stats.sent, self.stats.reports, self.stats.trades)
            seconds = now - old[0]
            self.sent, self.reports, self.trades = (
                (n - o) / seconds for n, o in zip(new[1:], old[1:], strict=True)
            )
            self._old = new


def _percentiles(values: list[int]) -> str:
    if not values:
        return "-"
    p50, p99 = np.percentile(values, (50, 99))
    return f"p50 {time_text(float(p50))}  p99 {time_text(float(p99))}"


def summary(stats: FlowStats, rates: Rates) -> Iterator[str]:
    """Write the numbers of the flow."""
    yield "   ".join(
        f"{name} {count_text(rate)}/s"
        for name, rate in (
            ("requests", rates.sent),
            ("reports", rates.reports),
            ("trades", rates.trades),
        )
    )
    yield f"total    {stats.sent:,} requests   {stats.reports:,} reports   {stats.trades:,} trades"
    yield f"order to acknowledgement, at the client   {_percentiles(list(stats.round_trips_ns))}"
    yield f"of that inside the exchange (receipts)    {_percentiles(list(stats.inside_ns))}"
    if stats.rejects:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(stats.rejects.items()))
        yield f"rejects by code   {codes}"


def book_table(book: Book) -> Table:
    """A small ladder, bids left and asks right, best on top."""
    table = Table(
        title=book.symbol, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for name, justify in (("size", "right"), ("bid", "right"), ("ask", "left"), ("size", "left")):
        table.add_column(name, justify=justify, min_width=9, no_wrap=True)  # type: ignore[arg-type]
    for at in range(LEVELS):
        bid = book.bids[at] if at < len(book.bids) else None
        ask = book.asks[at] if at < len(book.asks) else None
        table.add_row(
            f"{bid.qty:f}" if bid else "",
            Text(f"{bid.price:f}" if bid else "", style="green"),
            Text(f"{ask.price:f}" if ask else "", style="red"),
            f"{ask.qty:f}" if ask else "",
        )
    return table


def tape_table(stats: FlowStats, rows: int) -> Table:
    """The last trades, newest first."""
    table = Table(
        title="trades", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for name, justify in (("symbol", "left"), ("price", "right"), ("size", "right")):
        table.add_column(name, justify=justify, min_width=8, no_wrap=True)  # type: ignore[arg-type]
    for fill in _newest(stats, rows):
        style = "green" if fill.side == "buy" else "red"
        table.add_row(fill.symbol, Text(f"{fill.price:f}", style=style), f"{fill.qty:f}")
    return table


def _newest(stats: FlowStats, rows: int) -> list[Fill]:
    while True:
        try:
            return list(stats.tape)[:rows]
        except RuntimeError:  # the flow's thread appended meanwhile
            continue


def screen(config: "Config", books: list[Book], stats: FlowStats, rates: Rates) -> RenderableType:
    """Compose the picture."""
    grid = Table.grid(padding=(0, 4))
    pairs = [books[at : at + 2] for at in range(0, len(books), 2)]
    left = Table.grid(padding=(0, 4))
    for pair in pairs:
        left.add_row(*(book_table(book) for book in pair))
        left.add_row("")
    grid.add_row(left, tape_table(stats, len(pairs) * (LEVELS + 3) - 2))
    lines = Text("\n".join(summary(stats, rates)))
    network = config.network
    head = Text("ringbook demo", style="bold")
    head.append(f"   orders tcp://{network.host}:{network.port}", style="not bold")
    head.append(f"   market data udp://{network.feed_group}:{network.feed_port}", style="not bold")
    foot = Text(
        "in another terminal: run.py client · run.py listen AAPL · run.py top     Ctrl-C stops",
        style="dim",
    )
    return Group(head, Text(""), grid, lines, Text(""), foot)


def _show(
    config: "Config", client: Client, thread: FlowThread, end: float | None, plain: bool
) -> int:
    stats, rates = thread.flow.stats, Rates(thread.flow.stats)
    symbols = list(thread.flow.markets)[:SYMBOLS_SHOWN]
    live = (
        None
        if plain or not is_terminal()
        else Live(console=Console(), screen=True, auto_refresh=False)
    )
    if live is None:
        print("\n".join(f"{word}" for word in _where(config)), flush=True)
    else:
        live.start()
    next_line = time.monotonic() + 1
    try:
        while end is None or time.monotonic() < end:
            time.sleep(FRAME_S)
            rates.update()
            if thread.flow.failure:
                raise CommandError(thread.flow.failure)
            if live is not None:
                books = [client.book(symbol, LEVELS) for symbol in symbols]
                live.update(screen(config, books, stats, rates), refresh=True)
            elif time.monotonic() >= next_line:
                next_line += 1
                print(_plain_line(client, symbols, rates, stats), flush=True)
    finally:
        if live is not None:
            live.stop()
    return 0


def _where(config: "Config") -> Iterator[str]:
    network = config.network
    yield f"orders tcp://{network.host}:{network.port}"
    yield f"market data udp://{network.feed_group}:{network.feed_port}"


def _plain_line(client: Client, symbols: list[str], rates: Rates, stats: FlowStats) -> str:
    words = []
    for symbol in symbols:
        book = client.book(symbol, 1)
        bid = f"{book.bids[0].price:f}" if book.bids else "-"
        ask = f"{book.asks[0].price:f}" if book.asks else "-"
        words.append(f"{symbol} {bid}/{ask}")
    tail = f"requests {count_text(rates.sent)}/s trades {count_text(rates.trades)}/s"
    acks = _percentiles(list(stats.round_trips_ns))
    return f"{time.strftime('%H:%M:%S')} {'  '.join(words)}  {tail}  ack {acks}"


def command(
    path: Path | None, port: int | None, rate: int, seed: int, seconds: float | None, plain: bool
) -> int:
    """Start, show, stop; give the exit code."""
    refusal = platform_refusal()
    if refusal:
        raise CommandError(refusal)
    config = load(path, port=port)

    from engine.background import start_in_background
    from engine.topology import ROLES, print_progress
    from engine.warmup import warm_roles

    warm_roles(set(ROLES), print_progress)
    with start_in_background(config) as handle:
        thread = FlowThread(handle.config, rate, seed)
        screen_account = handle.config.accounts[0]
        network = handle.config.network
        try:
            thread.start()
            end = None if seconds is None else time.monotonic() + seconds
            with Client(
                network.host,
                network.port,
                screen_account.name,
                screen_account.token,
                session="screen",
            ) as client:
                return _show(handle.config, client, thread, end, plain)
        except KeyboardInterrupt:
            return 0
        finally:
            thread.stop()
