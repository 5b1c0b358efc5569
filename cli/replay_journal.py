"""`run.py replay journal`: the journal as a time machine. Cold: engine/time_machine.py and
engine/fork.py work.

Without `--fork` it shows a moment: books, last trades, open orders. With it, it makes another
future in a directory of its own, and with `--diff` says what is different there. Exit code 3: with
`--diff`, the outcomes differ.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cli.common import CommandError, count_text, load, time_of, warm, whole_time
from cli.verify import Progress

if TYPE_CHECKING:
    from engine.fork import ForkedShard
    from engine.kept_directory import KeptDirectory
    from engine.time_machine import BookPicture, Moment, Terms

OUTCOMES_DIFFER = 3
TRADES_SHOWN = 10


class Options(NamedTuple):
    """The command line."""

    directory: Path
    until: int | None
    until_time: str | None
    shard: int | None
    symbol: str | None
    depth: int
    fork: tuple[int, Path] | None
    config: Path | None
    without: str | None
    diff: bool


def command(options: Options) -> int:
    """Show or fork; give the exit code."""
    from engine.kept_directory import open_kept

    kept = open_kept(str(options.directory))
    if options.shard is not None:
        kept.shard_checked(options.shard)
    if options.fork is not None:
        if options.until is not None or options.until_time is not None:
            raise CommandError("--fork says itself where it begins: leave --until away")
        return _fork(kept, options, *options.fork)
    if options.config or options.without or options.diff:
        raise CommandError("--config, --without and --diff go with --fork SEQ NEWDIR")
    return _show(kept, options)


# -------------------------------------------------------------------------------------- one moment
def _show(kept: "KeptDirectory", options: Options) -> int:
    from engine.time_machine import moment

    if options.until is not None and options.until_time is not None:
        raise CommandError("--until and --until-time are two ways to say the same: give one")
    shards = list(kept.shards) if options.shard is None else [options.shard]
    if options.symbol and options.shard is None:
        from engine.sharding import shard_of_symbol

        shards = [shard_of_symbol(options.symbol, kept.manifest.shards)]
    if options.until is not None and len(shards) > 1:
        raise CommandError(
            f"each shard counts its own commands: say which with --shard 0 .. {len(shards) - 1},"
            " or give --until-time"
        )
    until_ns = None if options.until_time is None else time_of(options.until_time)
    warm()
    for shard in shards:
        seen = moment(
            kept, shard, options.until, until_ns,
            trades_max=TRADES_SHOWN, symbol=options.symbol or "",
        )  # fmt: skip
        print("\n".join(moment_lines(seen, options.symbol or "", options.depth)), flush=True)
    return 0


def moment_lines(seen: "Moment", symbol: str, depth: int) -> list[str]:
    """A shard at one moment."""
    from engine.time_machine import book_pictures, open_orders, terms_of

    state = seen.state
    lines = [
        f"shard {seen.shard} after command {seen.in_seq:,}  {whole_time(seen.in_ts)}"
        f"  {open_orders(state):,} open orders, {seen.rerun.replay.position:,} events"
    ]
    for picture in book_pictures(state, symbol, depth):
        lines += ["", *book_lines(picture)]
    if len(seen.trades):
        lines += ["", "last trades", *trade_lines(seen.trades, terms_of(state))]
    elif seen.trades_since:
        lines += ["", f"no trade since snapshot {seen.trades_since:,}, where the replay began"]
    return lines


def book_lines(picture: "BookPicture") -> list[str]:
    """One book, best prices in the first row."""
    terms = picture.terms
    head = f"{terms.symbol}  {picture.phase}  {picture.trades:,} trades"
    head += f", volume {terms.quantity(picture.volume)}"
    if picture.trades:
        head += f", last {terms.quantity(picture.last_qty)} @ {terms.price(picture.last_px)}"
    rows = []
    for at in range(max(len(picture.bids), len(picture.asks))):
        bid = _level(picture.bids, at, terms)
        ask = _level(picture.asks, at, terms)
        rows.append(f"  {bid[2]:>6} {bid[1]:>12} {bid[0]:>14}   {ask[0]:<14} {ask[1]:<12} {ask[2]}")
    return [head, *[row.rstrip() for row in rows or ["  (empty)"]]]


def _level(side: np.ndarray, at: int, terms: "Terms") -> tuple[str, str, str]:
    if at >= len(side):
        return "", "", ""
    px, qty, orders = (int(value) for value in side[at])
    return terms.price(px), terms.quantity(qty), f"({orders})"


def trade_lines(trades: np.ndarray, terms: "list[Terms]") -> list[str]:
    """Trades, oldest first."""
    return [f"  {trade_text(trade, terms[int(trade['symbol']) - 1])}" for trade in trades]


def trade_text(trade: np.void, terms: "Terms") -> str:
    """One trade."""
    side = "sell" if trade["side"] else "buy"
    return (
        f"{whole_time(int(trade['in_ts']))}  {terms.symbol} #{trade['trade_id']}  {side}"
        f" {terms.quantity(trade['qty'])} @ {terms.price(trade['px'])}  (command {trade['in_seq']})"
    )


# ----------------------------------------------------------------------------------- another future
def account_number(options: Options) -> int:
    """The account to be left out, by number or by its name in the configuration."""
    if options.without is None:
        return 0
    if options.without.isdigit() and int(options.without):
        return int(options.without)
    accounts = {account.name: account.account for account in load(options.config).accounts}
    if options.without not in accounts:
        known = ", ".join(accounts)
        raise CommandError(
            f"no account {options.without!r} in the configuration; there are {known};"
            " a number will do as well"
        )
    return accounts[options.without]


def _fork(kept: "KeptDirectory", options: Options, at: int, directory: Path) -> int:
    from engine.fork import Fork, fork

    if at < 0:
        raise CommandError("--fork begins behind a command: 0 for the whole journal, or its in_seq")
    if options.shard is None and len(kept.shards) > 1:
        raise CommandError(
            "each shard counts its own commands: say with --shard whose SEQ this is; the others"
            " are cut at the same time"
        )
    config = None if options.config is None else load(options.config)
    warm()
    plan = Fork(
        kept, str(directory), at, options.shard or 0, config, account_number(options), Progress()
    )
    made = fork(plan)
    for shard in made:
        print(
            f"shard {shard.shard}: forked after command {shard.at:,} ({whole_time(shard.at_ts)}),"
            f" {shard.old.in_seq - shard.at:,} commands run again, {shard.new.in_seq:,} in all"
        )
    with_config = f" --config {options.config}" if options.config else ""
    print(f"go on there with: run.py up --data {directory}{with_config}")
    if not options.diff:
        return 0
    differ = False
    for shard in made:
        lines, different = diff_lines(shard, options.depth)
        differ |= different
        print("\n".join(lines), flush=True)
    return OUTCOMES_DIFFER if differ else 0


def diff_lines(made: "ForkedShard", depth: int) -> tuple[list[str], bool]:
    """What is different in the new outcome, symbol by symbol; and whether anything is."""
    old_trades, new_trades = made.old.trades_by_symbol(), made.new.trades_by_symbol()
    old_books, new_books = made.old.books(), made.new.books()
    lines, differ = [f"shard {made.shard}, commands behind {made.at:,}: old and new"], False
    none = made.old.trades[:0]
    for symbol in sorted({*old_books, *new_books}):
        book = old_books.get(symbol) or new_books[symbol]
        old, new = old_trades.get(symbol, none), new_trades.get(symbol, none)
        place = first_difference(old, new)
        same_books = _same_books(old_books.get(symbol), new_books.get(symbol))
        if place is None and same_books:
            lines.append(f"  {symbol:8}  {_totals(old, book.terms)}, book: the same")
            continue
        differ = True
        lines.append(f"  {symbol:8}  {_totals(old, book.terms)}  ->  {_totals(new, book.terms)}")
        if place is not None:
            lines.append(f"            first differing trade, number {place + 1} since the fork")
            lines.append(f"              old  {_trade_at(old, place, book.terms)}")
            lines.append(f"              new  {_trade_at(new, place, book.terms)}")
        if not same_books:
            for name, books in (("old", old_books), ("new", new_books)):
                picture = books.get(symbol)
                rows = book_rows(picture, depth) if picture else ["(not listed)"]
                lines.append(f"            final book, {name}")
                lines += [f"              {row}" for row in rows]
    if not differ:
        lines.append("  no difference")
    return lines, differ


def first_difference(old: np.ndarray, new: np.ndarray) -> int | None:
    """Index of the first trade that is not the same in price, quantity or side; None: all are."""
    both = min(len(old), len(new))
    same = np.ones(both, bool)
    for name in ("px", "qty", "side"):
        same &= old[name][:both] == new[name][:both]
    if not same.all():
        return int(np.argmin(same))
    return None if len(old) == len(new) else both


def _totals(trades: np.ndarray, terms: "Terms") -> str:
    volume = terms.quantity(int(trades["qty"].sum()))
    return f"{count_text(len(trades))} trades, volume {volume}"


def _trade_at(trades: np.ndarray, place: int, terms: "Terms") -> str:
    return trade_text(trades[place], terms) if place < len(trades) else "(none)"


def _same_books(old: "BookPicture | None", new: "BookPicture | None") -> bool:
    if old is None or new is None:
        return old is new
    return np.array_equal(old.bids, new.bids) and np.array_equal(old.asks, new.asks)


def book_rows(picture: "BookPicture", depth: int) -> list[str]:
    """The rows of a book, without its head."""
    total = max(len(picture.bids), len(picture.asks))
    rows = [row.strip("\n") for row in book_lines(picture)[1 : depth + 1]]
    return [*rows, *([f"  ... {total - depth} more levels"] if total > depth else [])]
