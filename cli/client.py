"""`run.py client`: trading by hand at a prompt, or by lines from a pipe. Cold.

One loop waits for the keyboard and for the exchange at once, so that a fill of a resting order is
shown the moment it happens. When standard input is a pipe, nothing is prompted, every line's
outcome is printed, and the exit code is 1 if any line was refused.
"""

import functools
import os
import select
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import orjson

from cli.common import CommandError, account_of, load
from gateway.client import Client
from gateway.client_answers import Line
from gateway.client_errors import ExchangeError, NetworkError
from gateway.client_reports import Book, Fill, Order, Rejected, Report

PROMPT = "ringbook> "
READ_BYTES = 1 << 16
WORDS = {"post": "post_only", "hidden": "hidden", "slide": "slide", "protected": "protected"}
TIFS = ("gtc", "ioc", "fok", "day", "gtd", "at_open", "at_close", "good_for_auction")
STATED_TYPES = (
    *("market_to_limit", "stop", "stop_limit", "take_profit", "take_profit_limit"),
    *("trailing_stop", "trailing_stop_limit", "peg_primary", "peg_market", "peg_mid"),
)
TYPES = ("market", "limit", *STATED_TYPES)
TRIGGER_PAIRS = {
    "trigger": "trigger", "activation": "activation", "distance": "distance", "bps": "distance_bps",
}  # fmt: skip
NEW_PAIRS = TRIGGER_PAIRS | {
    "peak": "peak", "min": "min_qty", "stp": "stp", "until": "expire_time", "on": "trigger_on",
    "budget": "budget",
}  # fmt: skip
REPLACE_PAIRS = TRIGGER_PAIRS | {
    "qty": "qty", "price": "price", "peak": "peak", "min": "min_qty", "until": "expire_time",
    "tif": "tif",
}  # fmt: skip
LISTS = {
    "oco": "sell 5 110 / sell 5 stop trigger=90",
    "oto": "buy 5 100 / sell 5 110",
    "otoco": "buy 5 100 / sell 5 110 / sell 5 stop trigger=90",
}
NUMBERS = ("expire_time", "distance_bps")
HELP = """\
  buy  QTY SYMBOL [PRICE] [ioc|fok|post]   no price: market order         buy 10 AAPL 187.42
  sell QTY SYMBOL [PRICE] [ioc|fok|post]                                  sell 5 AAPL
    where the instrument has the full rules also: day gtd until=NS at_open at_close
    good_for_auction market_to_limit hidden slide protected peak=N min=N stp=MODE
    stop trigger=P [on=best]   take_profit trigger=P   with a price: stop_limit, take_profit_limit
    trailing_stop distance=P|bps=N [activation=P]; a buy states a price, its cap
    peg_primary peg_market peg_mid   with a price, the cap
    buy SYMBOL budget=SUM: what that much money buys now, in whole lots   buy GOLD budget=1000
    buy QTY SYMBOL budget=SUM fok: all of it, for no more; sell: raises it
  oco SYMBOL LEG / LEG       oto, otoco: LEG / LEG [/ LEG]   linked orders, each leg as above
    but without the symbol         oco GOLD sell 5 110 / sell 5 stop trigger=90
  quote SYMBOL [BIDQTY@BID|-] [ASKQTY@ASK] both at once; a side that    quote GOLD 5@12.4 5@12.6
                                           is not stated goes           quote GOLD
  cancel ID [SYMBOL]                       ID: your number, or #order_id  cancel 3
  replace ID [qty=N] [price=P] [SYMBOL]    qty: the new total             replace 3 price=187.40
    and peak=N min=N tif=day|gtd|gtc until=NS trigger=P activation=P distance=P bps=N
  cancelall [SYMBOL]                       every order of the account
  orders [SYMBOL]      order ID [SYMBOL]   what is open; where one stands
  book SYMBOL [DEPTH]  instruments         limits
  json {...}                               any line of docs/protocol.md
  help  quit"""


class UsageError(Exception):
    """A line that means nothing; the message says what would."""


class Terminal:
    """The commands, each a method taking the words after its name."""

    def __init__(self, client: Client, colour: bool) -> None:
        self.client, self.colour = client, colour
        self.symbols: dict[str, str] = {}  # "3" or "#16777217" -> symbol of that order
        self.commands: dict[str, Callable[[list[str]], Iterator[str]]] = {
            "buy": lambda words: self._enter("buy", words),
            "sell": lambda words: self._enter("sell", words),
            **{kind: functools.partial(self._list, kind) for kind in LISTS},
            "quote": self._quote,
            "cancel": self._cancel,
            "replace": self._replace,
            "cancelall": self._cancel_all,
            "orders": self._orders,
            "order": self._order,
            "book": self._book,
            "instruments": self._instruments,
            "limits": self._limits,
            "json": self._json,
            "help": lambda words: iter(HELP.split("\n")),
        }

    def do(self, line: str) -> Iterator[str]:
        """Carry out one line; yields what to print. UsageError for what it does not understand."""
        name, *words = line.split()
        action = self.commands.get(name.lower())
        if action is None:
            raise UsageError(f"unknown command {name!r}; help lists them")
        yield from action(words)

    # ------------------------------------------------------------------------------ commands
    def _enter(self, side: str, words: list[str]) -> Iterator[str]:
        # A budget stands for the quantity, and a fill-or-kill one has both.
        spends = any(word.lower().startswith("budget=") for word in words)
        if spends and not words[0][0].isdigit():
            words = ["", *words]
        said = options_of(words[2:])
        if len(words) < 2 or "=" in words[1] or said is None:
            raise UsageError(
                f"{side} QTY SYMBOL [PRICE] [ioc|fok|post], as in: {side} 10 AAPL 187.42;"
                " help lists more"
            )
        order = self.client.place(words[1], side, words[0] or None, **said)
        self._remember(order)
        yield from self._told(order)

    def _list(self, kind: str, words: list[str]) -> Iterator[str]:
        legs: list[Line] = []
        for leg in " ".join(words[1:]).split("/"):
            side, qty, *rest = [*leg.lower().split(), "", ""]
            said = options_of([word for word in rest if word])
            if side not in ("buy", "sell") or not qty or said is None:
                raise UsageError(f"{kind} SYMBOL LEG / LEG, as in: {kind} GOLD {LISTS[kind]}")
            legs.append({"side": side, "qty": qty} | said)
        for order in self.client.place_list(kind, words[0], *legs):
            self._remember(order)
            yield from self._told(order)

    def _quote(self, words: list[str]) -> Iterator[str]:
        sides = [word.partition("@")[::2] if word != "-" else ("", "") for word in words[1:]]
        sides += [("", "")] * (2 - len(sides))
        if not words or len(sides) > 2 or any(bool(qty) != bool(px) for qty, px in sides):
            raise UsageError(
                "quote SYMBOL [BIDQTY@BID|-] [ASKQTY@ASK], as in: quote GOLD 5@12.40 5@12.60"
            )
        (bid_qty, bid), (ask_qty, ask) = sides
        stated = (text or None for text in (bid, bid_qty, ask, ask_qty))
        quote = self.client.quote(words[0], *stated)
        for order in (quote.bid, quote.ask):
            if order is not None:
                self.symbols[f"#{order.order_id}"] = order.symbol
        for report in quote.reports:
            yield self.report_line(report)

    def _cancel(self, words: list[str]) -> Iterator[str]:
        target = self._target(words, "cancel ID [SYMBOL]")
        yield from self._told(self.client.cancel(**target))

    def _replace(self, words: list[str]) -> Iterator[str]:
        changes = pairs_of([word.lower() for word in words], REPLACE_PAIRS)
        if not changes:
            raise UsageError(
                "replace ID [qty=N] [price=P], as in: replace 3 qty=5 price=187.40; help lists more"
            )
        target = self._target([w for w in words if "=" not in w], "replace ID qty=N price=P")
        yield from self._told(self.client.replace(**target, **changes))

    def _cancel_all(self, words: list[str]) -> Iterator[str]:
        gone = self.client.mass_cancel(symbol=words[0] if words else None)
        yield f"{len(gone)} cancelled"

    def _orders(self, words: list[str]) -> Iterator[str]:
        orders = self.client.open_orders(words[0] if words else None)
        for order in orders:
            self._remember(order)
            yield self._order_line(order)
        yield f"{len(orders)} open"

    def _order(self, words: list[str]) -> Iterator[str]:
        order = self.client.order(**self._target(words, "order ID [SYMBOL]"))
        yield self._order_line(order)

    def _book(self, words: list[str]) -> Iterator[str]:
        if not words:
            raise UsageError("book SYMBOL [DEPTH]")
        yield from book_lines(self.client.book(words[0], int(words[1]) if len(words) > 1 else 10))

    def _instruments(self, words: list[str]) -> Iterator[str]:
        yield f"{'symbol':10} {'shard':>5} {'tick':>12} {'lot':>12}  {'rules':6} phase"
        for row in self.client.instruments():
            steps = f"{row.tick:>12f} {row.lot:>12f}"
            yield f"{row.symbol:10} {row.shard:5} {steps}  {row.rules:6} {row.phase}"

    def _limits(self, words: list[str]) -> Iterator[str]:
        for part, values in self.client.limits().items():
            if isinstance(values, dict):
                for key, value in values.items():
                    yield f"{part:10} {key:26} {'without' if value is None else value}"

    def _json(self, words: list[str]) -> Iterator[str]:
        try:
            line = orjson.loads(" ".join(words))
        except orjson.JSONDecodeError as error:
            raise UsageError(f"not JSON: {error}") from error
        if not isinstance(line, dict):
            raise UsageError('one JSON object, as in: json {"type":"limits"}')
        self.client.send_nowait(line)
        for report in self.client.reports(0.2):
            yield orjson.dumps(report.raw).decode()

    # --------------------------------------------------------------------------- small parts
    def _target(self, words: list[str], usage: str) -> Line:
        number = words[0].removeprefix("#") if words else ""
        if not number.isdigit() and not (words and self.client.core.ids == "text"):
            raise UsageError(f"{usage}; ID is your own number, or #order_id")
        symbol = words[1] if len(words) > 1 else self.symbols.get(words[0])
        if words[0].startswith("#"):
            return {"order": int(number), "symbol": symbol}
        own = int(number) if self.client.core.ids == "integer" else words[0]
        return {"id": own, "symbol": symbol}

    def _remember(self, order: Order) -> None:
        self.symbols[str(order.id)] = self.symbols[f"#{order.order_id}"] = order.symbol

    def _told(self, order: Order) -> Iterator[str]:
        for report in order.reports:
            yield self.report_line(report)

    def _paint(self, side: str, text: str) -> str:
        code = {"buy": "32", "sell": "31"}.get(side)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code else text

    def _order_line(self, order: Order) -> str:
        price = "market" if order.price is None else f"{order.price}"
        size = f"{order.remaining} of {order.amount}"
        words = f"{order.side:4} {size:>14} {order.symbol:8} at {price}"
        return (
            self._paint(order.side, words) + f"  id {order.id}  #{order.order_id}  {order.status}"
        )

    def report_line(self, report: Report) -> str:
        """Write one report for a person."""
        if isinstance(report, Rejected):
            return f"rejected   {report.text or report.reason} ({report.code})"
        head = f"{report.type:10}"
        if isinstance(report, Fill):
            head = f"fill {report.role:5}"
        size = report.qty or report.leaves
        price = f" at {report.price}" if report.price else ""
        words = self._paint(report.side, f"{report.side:4} {size} {report.symbol}{price}")
        tail = [
            f"id {report.id}" if report.id else "",
            f"#{report.order_id}" if report.order_id else "",
        ]
        tail += [
            f"open {report.leaves}",
            f"shown {report.shown}" if report.shown is not None else "",
            f"trigger {report.trigger}" if report.trigger is not None else "",
            f"filled {report.filled}" if report.filled else "",
            f"limit {report.limit}" if report.limit is not None else "",
            report.reason,
            report.stp,
        ]
        return f"{head} {words}  {'  '.join(word for word in tail if word)}"


def options_of(words: list[str]) -> Line | None:
    """Price and options behind the quantity of an order; None when a word means nothing."""
    options = [word.lower() for word in words]
    price = options.pop(0) if options and options[0][0].isdigit() else None
    pairs = pairs_of(options, NEW_PAIRS)
    bare = [option for option in options if "=" not in option]
    if pairs is None or set(bare) - {*WORDS, *TIFS, *TYPES}:
        return None
    said: Line = pairs | {WORDS[word]: True for word in bare if word in WORDS}
    said["price"] = price
    said["tif"] = next((word for word in bare if word in TIFS), None)
    said["order_type"] = next((word for word in bare if word in STATED_TYPES), None)
    return said


def pairs_of(words: list[str], known: dict[str, str]) -> Line | None:
    """`key=value` words as arguments of the client; None when a key is unknown, or a time or a
    number of bps is no whole number.
    """
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    said: Line = {known[key]: value for key, value in pairs.items() if key in known}
    whole = {key: said[key] for key in NUMBERS if key in said}
    if set(pairs) - set(known) or not all(text.isdecimal() for text in whole.values()):
        return None
    return said | {key: int(text) for key, text in whole.items()}


def book_lines(book: Book) -> Iterator[str]:
    """Write a book as two columns, best levels on top."""
    head = f"{book.symbol:8} {'orders':>6} {'bid size':>14} {'bid':>12} | "
    yield f"{head}{'ask':<12} {'ask size':<14} orders"
    for at in range(max(len(book.bids), len(book.asks))):
        left, right = " " * 43, ""
        if at < len(book.bids):
            level = book.bids[at]
            left = f"{'':8} {level.orders:6} {_text(level.qty):>14} {_text(level.price):>12}"
        if at < len(book.asks):
            level = book.asks[at]
            right = f"{_text(level.price):<12} {_text(level.qty):<14} {level.orders}"
        yield f"{left} | {right}".rstrip()
    if not book.bids and not book.asks:
        yield "         (empty)"


def _text(number: Decimal) -> str:
    return format(number, "f")


class Lines:
    """Lines of a file descriptor that is also waited on: no buffering behind select's back."""

    def __init__(self, fd: int) -> None:
        self.fd, self.rest, self.ended = fd, b"", False

    def ready(self) -> list[str]:
        """Read once; give the complete lines, and the last one at the end."""
        data = os.read(self.fd, READ_BYTES)
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        if self.ended and self.rest:
            lines.append(self.rest)
        return [line.decode("utf-8", "replace").strip() for line in lines]


def _obey(terminal: Terminal, line: str) -> bool:
    """Carry out one line and print; False when it was refused."""
    try:
        for text in terminal.do(line):
            print(text, flush=True)
    except (ExchangeError, UsageError, ValueError) as error:
        print(f"{error}", flush=True)
        return False
    return True


def _converse(terminal: Terminal, interactive: bool) -> int:
    lines, refused = Lines(sys.stdin.fileno()), 0
    client = terminal.client
    prompted = False
    while not lines.ended:
        if interactive and not prompted:
            print(PROMPT, end="", flush=True)
            prompted = True
        readable, _, _ = select.select([lines.fd, client.fileno()], [], [], 0.5)
        news = [terminal.report_line(report) for report in client.reports(0.0)]
        if news:
            print(("\r" if prompted else "") + "\n".join(news), flush=True)
            prompted = False
        if lines.fd in readable:
            prompted = False
            for line in lines.ready():
                if line.lower() in ("quit", "exit", "q"):
                    return int(refused > 0 and not interactive)
                if line and not line.startswith("//"):
                    refused += not _obey(terminal, line)
    if interactive:
        print()
    return int(refused > 0 and not interactive)


def command(
    account_name: str,
    token: str | None,
    session: str,
    path: Path | None,
    host: str | None,
    port: int | None,
) -> int:
    """Log on and converse; give the exit code."""
    config = load(path, host=host, port=port)
    if token is None:
        token = account_of(config, account_name).token
    interactive = sys.stdin.isatty()
    client = Client(config.network.host, config.network.port, account_name, token, session=session)
    with client:
        logon = client.logon
        if interactive and logon is not None:
            where = f"{config.network.host}:{config.network.port}"
            print(f"{where}: {logon.account}, session {logon.session}; help lists the commands")
        if logon is not None and "text" in logon.raw:
            print(logon.raw["text"], flush=True)
        try:
            return _converse(Terminal(client, sys.stdout.isatty()), interactive)
        except NetworkError as error:
            if interactive:
                print()
            raise CommandError(str(error)) from error
