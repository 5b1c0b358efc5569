"""`run.py replay lobster`: recorded orders into the running exchange, as one more client over TCP.
Cold.

The driver (cli/lobster.py) says what to send; `TcpVenue` sends it with the client library, many
requests in flight, and waits only where the next request depends on an answer: after an execution.
With `--compare` two independent witnesses follow. Here, after every row, the engine's own book by
`book` requests; and a process of its own, cli/compare_feed.py, which sees nothing but multicast.
"""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson

from cli.common import CommandError, account_of, load
from cli.lobster import (
    PRICE_SCALE,
    SELL,
    Fill,
    Levels,
    LobsterReplay,
    Message,
    Row,
    Tally,
    read_messages,
    read_rows,
)
from gateway.client import Client
from gateway.client_errors import BadSymbol
from gateway.client_reports import Accepted, Canceled, Expired, Rejected, Replaced, Report
from gateway.client_reports import Fill as FillReport
from gateway.client_reports import Level as BookLevel

if TYPE_CHECKING:
    from engine.config import Config

IN_FLIGHT_MAX = 512  # well below a command ring, so that BUSY is never our own doing
BOOK_PATIENCE_S = 0.25  # a book request may look just before the shard publishes its picture
PATIENT_ROWS = 10  # after so many wrong rows it is not that
FEED_READY_S = 30.0  # the listener compiles or loads its kernels first
FEED_DONE_S = 15.0
NOT_AS_RECORDED = 3


class Options(NamedTuple):
    """The command line."""

    messages: Path
    orderbook: Path | None
    symbol: str
    preplace: bool
    speed: float
    compare: bool
    depth: int
    keep: bool
    account: str
    json: Path | None


def price_text(price: int) -> str:
    """Write a LOBSTER price as an exact decimal without trailing zeros."""
    whole, part = divmod(price, PRICE_SCALE)
    return f"{whole}.{part:04d}".rstrip("0").rstrip(".")


class TcpVenue:
    """The exchange behind the driver's verbs."""

    def __init__(self, client: Client, symbol: str) -> None:
        self.client, self.symbol = client, symbol
        self.requests = 0
        self._in_flight = 0
        self._ids: dict[int, int] = {}  # the driver's key -> client id
        self._keys: dict[int, int] = {}
        self._makers: list[Fill] = []
        self._hit = 0  # client id of the execution that is waited for
        self._hit_done = False

    def new(self, key: int, side: int, price: int, size: int) -> None:
        """Enter a limit order."""
        self._order(key, "sell" if side == SELL else "buy", price, size, None)

    def reduce(self, key: int, total: int) -> None:
        """Lower an order's total quantity."""
        self._send({**self._target("replace", key), "qty": total})

    def cancel(self, key: int) -> None:
        """Cancel an order."""
        self._send(self._target("cancel", key))

    def hit(self, resting_side: int, price: int, size: int) -> list[Fill]:
        """Send an immediate-or-cancel order and wait for its fills."""
        self._makers, self._hit_done = [], False
        side = "buy" if resting_side == SELL else "sell"
        self._hit = self._order(0, side, price, size, "ioc")
        deadline = time.monotonic() + self.client.timeout_s
        while not self._hit_done:
            self._read(0.05)
            if time.monotonic() > deadline:
                raise CommandError(f"no answer to order {self._hit} in {self.client.timeout_s:g} s")
        return self._makers

    def settle(self) -> None:
        """Wait until everything sent is answered."""
        deadline = time.monotonic() + self.client.timeout_s
        while self._in_flight:
            self._read(0.05)
            if time.monotonic() > deadline:
                raise CommandError(f"{self._in_flight} requests unanswered")

    def levels(self, depth: int) -> tuple[Levels, Levels]:
        """Ask the engine for its best levels, in LOBSTER's prices."""
        book = self.client.book(self.symbol, depth)
        return _levels(book.bids), _levels(book.asks)

    def _order(self, key: int, side: str, price: int, size: int, tif: str | None) -> int:
        line = self.client.core.order_line(self.symbol, side, size, price_text(price), tif=tif)
        number = int(line["id"])
        self._ids[key], self._keys[number] = number, key
        self._send(line)
        return number

    def _target(self, kind: str, key: int) -> dict[str, Any]:
        return {"type": kind, "symbol": self.symbol, "target_id": self._ids[key]}

    def _send(self, line: dict[str, Any]) -> None:
        self.client.send_nowait(line)
        self.requests += 1
        self._in_flight += 1
        if self._in_flight >= IN_FLIGHT_MAX:
            self.settle()

    def _read(self, wait_s: float) -> None:
        reports = self.client.reports(wait_s)
        for report in reports:
            self._take(report)
            if self._hit_done or not self._in_flight:
                return

    def _take(self, report: Report) -> None:
        if not self.client.core.own(report):
            return
        if isinstance(report, Rejected):
            what = f"request with id {report.id or '?'}"
            raise CommandError(f"the exchange refused {what}: {report.text} ({report.code})")
        if isinstance(report, Accepted | Replaced | Canceled):
            self._in_flight -= 1
        elif isinstance(report, FillReport) and report.role == "maker":
            price = int((report.price or 0) * PRICE_SCALE)
            self._makers.append(Fill(self._keys[int(report.id)], price, int(report.qty)))
        elif report.id == self._hit and isinstance(report, FillReport | Expired):
            self._hit_done = isinstance(report, Expired) or not report.leaves


def _levels(levels: list[BookLevel]) -> Levels:
    return [(int(level.price * PRICE_SCALE), int(level.qty)) for level in levels]


class FeedWitness:
    """The comparer process: started first, asked for its result last."""

    def __init__(self, options: Options, config: "Config") -> None:
        words = [sys.executable, "-m", "cli.compare_feed", str(options.messages)]
        words += [str(options.orderbook)] if options.orderbook else []
        words += ["--symbol", options.symbol, "--depth", str(options.depth)]
        words += ["--preplace"] if options.preplace else []
        root = Path(__file__).resolve().parent.parent
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=False
        )
        self._pipe(self.process.stdin).write(config.to_json() + b"\n")
        self._pipe(self.process.stdin).flush()
        if self._line() != b"ready":
            self.stop()
            raise CommandError("the listener process did not start; its own message is above")

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None, "Popen was asked for both pipes"
        return pipe

    def _line(self) -> bytes:
        return self._pipe(self.process.stdout).readline().strip()

    def result(self) -> dict[str, Any]:
        """Say that nothing more is sent; give what it saw."""
        try:
            output, _ = self.process.communicate(b"end\n", timeout=FEED_DONE_S)
        except subprocess.TimeoutExpired as error:
            self.stop()
            raise CommandError("the listener process did not end") from error
        if self.process.returncode or not output.strip():
            raise CommandError("the listener process gave no result; its own message is above")
        result: dict[str, Any] = orjson.loads(output.splitlines()[-1])
        return result

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Progress:
    """One line on a terminal's stderr, twice a second; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.shown, self.on = total, 0.0, sys.stderr.isatty()

    def at(self, number: int) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if self.on and now - self.shown > 0.5:
            self.shown = now
            print(f"\r{number:,} of {self.total:,} messages ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self.on and self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _refuse_used_book(client: Client, symbol: str) -> None:
    try:
        book = client.book(symbol)
    except BadSymbol:
        return  # not listed yet: the first order lists it, or is refused with the reason
    if book.bids or book.asks:
        raise CommandError(
            f"the book of {symbol} is not empty: the recorded orders would meet others. "
            "Use a fresh exchange (run.py up, not demo) or another --symbol"
        )


def _wait_until_due(start: float, first: Message, message: Message, speed: float) -> None:
    due = start + (message.time - first.time) / 1e9 / speed
    while (left := due - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))


def _compare_row(venue: TcpVenue, tally: Tally, number: int, row: Row, depth: int) -> None:
    venue.settle()
    patient = tally.rows - tally.rows_exact < PATIENT_ROWS
    deadline = time.monotonic() + (BOOK_PATIENCE_S if patient else 0)
    while True:
        bids, asks = venue.levels(depth)
        same = bids[:depth] == row.bids[:depth] and asks[:depth] == row.asks[:depth]
        if same or time.monotonic() > deadline:
            tally.compare(number, row, bids, asks, depth)
            return


def run(options: Options, client: Client, messages: list[Message], rows: list[Row]) -> Tally:
    """Replay through a connected client."""
    _refuse_used_book(client, options.symbol)
    venue = TcpVenue(client, options.symbol)
    seed = rows[0] if rows else None
    replay = LobsterReplay(venue, messages, seed, preplace=options.preplace)
    progress = Progress(len(messages))
    replay.start()
    venue.settle()
    start = time.monotonic()
    for number, message in enumerate(messages):
        if options.speed:
            client.flush()
            _wait_until_due(start, messages[0], message, options.speed)
        replay.step(number)
        if options.compare and 0 < number < len(rows):
            _compare_row(venue, replay.tally, number, rows[number], options.depth)
        progress.at(number)
    venue.settle()
    progress.end()
    if not options.keep:
        client.mass_cancel(symbol=options.symbol)
    return replay.tally


def as_recorded(tally: dict[str, Any]) -> bool:
    """Whether every price and every compared row came out as recorded."""
    same_rows = tally["rows"] == tally["rows_exact"]
    return bool(tally["at_price"] == tally["executions"] and same_rows)


def command(options: Options, path: Path | None, host: str | None, port: int | None) -> int:
    """Replay, report, compare; give the exit code."""
    config = load(path, host=host, port=port)
    account = account_of(config, options.account)
    messages = read_messages(options.messages)
    # Orders entered ahead of their time are in no row of the file: nothing to compare rows with.
    most = None if options.compare and not options.preplace else 1
    rows = read_rows(options.orderbook, most) if options.orderbook else []
    network = config.network
    client = Client(
        network.host,
        network.port,
        account.name,
        account.token,
        session="lobster",
        cancel_on_disconnect="none" if options.keep else "all",
    )
    with client:
        shards = client.logon.shards if client.logon else 1
        running = dataclasses.replace(config, shards=shards)
        witness = FeedWitness(options, running) if options.compare else None
        try:
            started = time.monotonic()
            tally = run(options, client, messages, rows)
            seconds = time.monotonic() - started
            feed = witness.result() if witness else None
        finally:
            if witness is not None:
                witness.stop()
    return _report(options, tally, feed, seconds, len(client.gaps))


def _report(
    options: Options, tally: Tally, feed: dict[str, Any] | None, seconds: float, gaps: int
) -> int:
    engine = dataclasses.asdict(tally)
    print(f"over TCP, {seconds:.1f} s, {tally.messages / seconds:,.0f} messages/s, gaps {gaps}")
    for sentence in tally.sentences():
        print(f"  {sentence}")
    good = as_recorded(engine) and not gaps
    if feed is not None:
        seen = Tally(**feed["tally"])
        problems = ", ".join(f"{name} {count}" for name, count in feed["problems"].items())
        print(f"from multicast alone: {feed['public_messages']:,} messages; {problems}")
        for sentence in seen.sentences():
            print(f"  {sentence}")
        good = good and as_recorded(feed["tally"]) and not any(feed["problems"].values())
    if options.json is not None:
        result = {"engine": engine, "feed": feed, "seconds": seconds, "as_recorded": good}
        options.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if good or not options.compare else NOT_AS_RECORDED
