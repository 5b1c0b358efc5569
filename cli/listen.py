"""`run.py listen SYMBOL`: a live ladder and tape, built from multicast alone. Cold.

It needs no account and no connection: the directory channel says on which shard's channel the
symbol is and how its prices travel, feed/listener.py rebuilds the book. Whoever joins an exchange
that already runs cannot know what rested before; the footer says so, and says too when messages
were missed.
"""

import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.common import CommandError, count_text, is_terminal, load
from engine.config import Network
from feed.capture import Recorder
from feed.directory import Directory, DirectoryEntry
from feed.listener import FeedListener
from feed.multicast import MulticastReceiver, wait_readable

DIRECTORY_WAIT_S = 3.0  # every instrument is announced once a second
FRAME_S = 0.125
TAPE_KEPT = 200
BAR_CELLS = 12
_Array = np.ndarray[Any, Any]


def find(network: Network, symbol: str) -> DirectoryEntry:
    """Wait for the directory channel to name the symbol."""
    try:
        receiver = MulticastReceiver(
            network.feed_group, network.directory_port, network.feed_interface
        )
    except OSError as error:
        where = f"{network.feed_group} on {network.feed_interface}"
        raise CommandError(f"cannot join {where}: {error.strerror}") from error
    directory, deadline = Directory(), time.monotonic() + DIRECTORY_WAIT_S
    try:
        while symbol not in directory.by_symbol:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if wait_readable([receiver.fileno()], left):
                for index in range(receiver.receive()):
                    directory.receive(bytes(receiver.datagram(index)))
    finally:
        receiver.close()
    if symbol in directory.by_symbol:
        return directory.by_symbol[symbol]
    if directory.by_symbol:
        known = ", ".join(sorted(directory.by_symbol)[:20])
        raise CommandError(f"no symbol {symbol} on the directory channel; it names {known}")
    where = f"{network.feed_group}:{network.directory_port}"
    raise CommandError(f"no market data on {where}: is an exchange running? (run.py up)")


class Files(NamedTuple):
    """Where the whole channel is recorded, if anywhere."""

    pcap: Path | None = None
    itch: Path | None = None


class Watch:
    """One symbol's listener, its tape, and what is written about it."""

    def __init__(self, network: Network, entry: DirectoryEntry, depth: int, files: Files) -> None:
        self.entry, self.depth = entry, depth
        self.tape: deque[Any] = deque(maxlen=TAPE_KEPT)
        self.fresh: list[Any] = []  # trades since they were last asked for
        self.volume = 0
        self.messages = 0
        self.recorded = 0
        self.recorder: Recorder | None = None
        if any(files):
            port, interface = network.feed_port + entry.shard, network.feed_interface
            self.recorder = Recorder(network.feed_group, port, interface, **files._asdict())
        self.listener = FeedListener.of_shard(network, entry.shard, on_trades=self._trades)

    def _trades(self, trades: _Array) -> None:
        for trade in trades[trades["locate"] == self.entry.locate]:
            self.tape.appendleft(trade)
            self.fresh.append(trade)
            self.volume += int(trade["qty"])

    def poll(self, timeout_s: float) -> None:
        """Take what has come."""
        self.messages += self.listener.poll(timeout_s)
        if self.recorder is not None:
            self.recorded += self.recorder.poll()

    def close(self) -> None:
        """Leave the channel and finish the files."""
        self.listener.close()
        if self.recorder is not None:
            self.recorder.close()

    def levels(self) -> tuple[_Array, _Array]:
        """Give (bids, asks): rows of ITCH price, shares, orders."""
        book, locate = self.listener.book, self.entry.locate
        return book.bids(locate, self.depth), book.asks(locate, self.depth)

    def price(self, price: int) -> str:
        """Write a price with as many decimals as the tick has."""
        text = self.entry.price_text(price)
        decimals = len(_decimals(self.entry.tick))
        whole, _, part = text.partition(".")
        return f"{whole}.{part.ljust(decimals, '0')}" if decimals else whole

    def state(self) -> tuple[str, str]:
        """Say whether the book can be trusted: (sentence, style)."""
        stats = self.listener.stats()
        if self.listener.receiver.ended:
            return "the exchange has ended the session", "yellow"
        if stats["gaps"]:
            return f"{stats['missing']:,} messages missed in {stats['gaps']} gaps: partial", "red"
        why = self.listener.book.why_invalid
        if why.startswith("joined"):
            return f"partial: {why}", "yellow"
        return (why, "red") if why else ("complete since the session began", "green")


def _decimals(units: int) -> str:
    return f"{units:09d}"[-9:].rstrip("0") if units % 10**9 else ""


def clock_text(nanoseconds: int) -> str:
    """Write ns since midnight UTC as a time of day."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest // 1000:06}"


def _bar(share: float, style: str) -> Text:
    cells = round(share * BAR_CELLS)
    return Text("█" * cells if cells else "▏", style=style)


def ladder(watch: Watch) -> Table:
    """Asks above, bids below, sizes as bars; the spread between."""
    bids, asks = watch.levels()
    most = max((int(row[1]) for row in (*bids, *asks)), default=1)
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name, justify in (("orders", "right"), ("size", "right"), ("price", "right"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in range(watch.depth - len(asks)):
        table.add_row("", "", Text("·" if row else "", style="dim"), "")
    for price, size, orders in asks[::-1].tolist():
        table.add_row(*_rung(watch, price, size, orders, most, "red"))
    table.add_row("", "", Text(_spread(watch, bids, asks), style="bold"), "")
    for price, size, orders in bids.tolist():
        table.add_row(*_rung(watch, price, size, orders, most, "green"))
    for _ in range(watch.depth - len(bids)):
        table.add_row("", "", Text("·", style="dim"), "")
    return table


def _rung(
    watch: Watch, price: int, size: int, orders: int, most: int, style: str
) -> tuple[str, str, Text, Text]:
    size_text = watch.entry.qty_text(size)
    return str(orders), size_text, Text(watch.price(price), style=style), _bar(size / most, style)


def _spread(watch: Watch, bids: _Array, asks: _Array) -> str:
    if not len(bids) or not len(asks):
        return "no spread"
    return f"{watch.price(int(asks[0][0]) - int(bids[0][0]))} apart"


def tape(watch: Watch, rows: int) -> Table:
    """Last trades, newest first; coloured by the aggressor."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("price", justify="right", no_wrap=True, min_width=10)
    table.add_column("size", justify="right", no_wrap=True, min_width=8)
    for trade in list(watch.tape)[:rows]:
        style = {"B": "green", "S": "red"}.get(chr(int(trade["side"])), "")
        size = watch.entry.qty_text(int(trade["qty"]))
        price = Text(watch.price(int(trade["px"])), style=style)
        table.add_row(clock_text(int(trade["time"]))[:-3], price, size)
    return table


def screen(watch: Watch, rate: float) -> RenderableType:
    """Compose the picture."""
    entry = watch.entry
    last = watch.tape[0] if watch.tape else None
    words = f"last {watch.price(int(last['px']))}" if last is not None else "no trade seen yet"
    volume = f"volume {entry.qty_text(watch.volume)}"
    head = Text.assemble((f"{entry.symbol}  ", "bold"), f"{words}   {volume}   ")
    head.append(f"shard {entry.shard}   {count_text(rate)} messages/s")
    body = Table.grid(padding=(0, 5))
    body.add_row(ladder(watch), tape(watch, 2 * watch.depth + 1))
    sentence, style = watch.state()
    foot = Text("Ctrl-C ends")
    if watch.recorder is not None:
        foot = Text(f"{watch.recorded:,} datagrams recorded   Ctrl-C ends")
    return Group(head, Text(""), body, Text(""), Text(f"book {sentence}", style=style), foot)


def command(
    symbol: str,
    path: Path | None,
    group: str | None,
    interface: str | None,
    depth: int,
    files: Files,
    seconds: float | None,
    plain: bool,
) -> int:
    """Listen until told to stop; give the exit code."""
    network = load(path, group=group, interface=interface).network
    entry = find(network, symbol.upper() if symbol.islower() else symbol)
    watch = Watch(network, entry, depth, files)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        if plain or not is_terminal():
            return _lines(watch, end)
        return _live(watch, end)
    except KeyboardInterrupt:
        return 0
    finally:
        watch.close()


def _live(watch: Watch, end: float | None) -> int:
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        live.update(Text(f"joining the channel of {watch.entry.symbol} ..."), refresh=True)
        since, counted, rate = time.monotonic(), watch.messages, 0.0
        drawn = 0.0
        while end is None or time.monotonic() < end:
            watch.poll(FRAME_S)
            now = time.monotonic()
            if now - since >= 1.0:
                rate = (watch.messages - counted) / (now - since)
                since, counted = now, watch.messages
            if now - drawn >= FRAME_S:
                live.update(screen(watch, rate), refresh=True)
                watch.fresh.clear()
                drawn = now
    return 0


def _lines(watch: Watch, end: float | None) -> int:
    symbol, next_book = watch.entry.symbol, time.monotonic() + 1.0
    while end is None or time.monotonic() < end:
        watch.poll(FRAME_S)
        for trade in watch.fresh:
            side = {"B": "buy", "S": "sell"}.get(chr(int(trade["side"])), "-")
            size = watch.entry.qty_text(int(trade["qty"]))
            clock = clock_text(int(trade["time"]))
            print(
                f"{clock} trade {symbol} {watch.price(int(trade['px']))} {size} {side}", flush=True
            )
        watch.fresh.clear()
        if time.monotonic() >= next_book:
            next_book += 1.0
            print(_book_line(watch), flush=True)
    print(_book_line(watch))
    print(f"book {watch.state()[0]}", flush=True)
    if watch.recorder is not None:
        print(f"recorded {watch.recorded} datagrams", flush=True)
    return 0


def _book_line(watch: Watch) -> str:
    words = []
    for name, rows in zip(("bid", "ask"), watch.levels(), strict=True):
        if len(rows):
            price, size, orders = (int(value) for value in rows[0])
            words.append(f"{name} {watch.price(price)} {watch.entry.qty_text(size)} ({orders})")
        else:
            words.append(f"{name} -")
    clock = datetime.now(UTC).strftime("%H:%M:%S.%f")
    return f"{clock} book {watch.entry.symbol} {'  '.join(words)}  messages {watch.messages}"
