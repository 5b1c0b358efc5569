"""Ringbook's one command: `python run.py` lists what it does.

Thin on purpose: each command is declared here with its options and its help, and its body is one
file in cli/. Nothing heavy is imported before a command runs, so that `--help` answers at once.
What goes wrong in ordinary operation (no exchange there, port taken, bad configuration) ends with
one sentence on stderr and exit code 1; a wrong command line with 2; Ctrl-C with 130. A traceback
means a bug.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

from cli.environment import ensure

# Nothing here uses BLAS, NumPy would start a thread for it, and the supervisor forks.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if __name__ == "__main__":
    ensure(sys.argv)

import typer

from cli.common import is_operating_error, sentence_of

EXAMPLES = """
\b
First steps:
  run.py doctor                                is this machine fit for it?
  run.py demo                                  an exchange with generated flow; Ctrl-C ends it
  run.py up                                    the exchange alone, on 127.0.0.1:9100
  run.py client                                (another terminal) place and cancel by hand
  run.py listen AAPL                           (another one) ladder and tape from multicast
  run.py top                                   what every process is doing
  run.py operator                              phases and rules of the running exchange
  run.py verify DIR                            is the journal what it says? replays and compares
\b
Without this program, the exchange speaks JSON lines over TCP (docs/protocol.md):
  printf '%s\\n' '{"type":"logon","account":"demo","token":"demo"}' \\
      '{"symbol":"AAPL","side":"buy","qty":10,"price":"187.42","id":1}' | nc -q1 127.0.0.1 9100
"""

OPERATOR_EXAMPLES = """
\b
Only the user who runs the exchange gets in, on the same machine. What is changed is journaled, and
everybody is told; changes that the configuration contradicts last until the next start.
Exit code 0: done; 3: refused, the sentence says why; 1: no exchange, or no answer.
\b
  run.py operator instruments                  what is listed, in which phase
  run.py operator instruments GOLD             its calendar, references and all rules in force
  run.py operator phase GOLD halted            nothing trades, orders can be cancelled
  run.py operator phase GOLD volatility_call   reopen through a call
  run.py operator phase GOLD continuous        and trade on (by itself after volatility_call_s)
  run.py operator rule GOLD static_band 500    5 % around the static reference
  run.py operator rule GOLD algorithm pro_rata
  run.py operator arm GOLD alice               market-maker protection that has fired, again
"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Ringbook: a stock exchange in Python and Numba.",
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
replay_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Recorded flow into the running exchange, or a journal run again on the side.",
)
app.add_typer(replay_app, name="replay")
operator_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Phases and rules of a running exchange, for whoever runs it.",
    epilog=OPERATOR_EXAMPLES,
)
app.add_typer(operator_app, name="operator")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="RINGBOOK_CONFIG", help="TOML file (default: the built-in demo).",
        exists=True, dir_okay=False,
    ),
]  # fmt: skip
Host = Annotated[str | None, typer.Option(help="Address of the gateway (default: the config's).")]
Port = Annotated[int | None, typer.Option(help="TCP port of the gateway (default: the config's).")]
AccountName = Annotated[str, typer.Option(help="Account of the configuration to log on as.")]
InstanceName = Annotated[
    str | None, typer.Option("--instance", help="Instance name (default: the config's).")
]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as one JSON object, for scripts.")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of a live screen.")]
Seconds = Annotated[float | None, typer.Option(help="Stop after this many seconds.", min=0)]


@app.command()
def up(
    role: Annotated[
        list[str] | None,
        typer.Option(help="all, shard, gateway or feed; may be given several times."),
    ] = None,
    config: ConfigFile = None,
    shards: Annotated[
        int | None, typer.Option(help="Number of shards (0: by cores).", min=0)
    ] = None,
    host: Host = None,
    port: Port = None,
    idle: Annotated[str | None, typer.Option(help="adaptive, spin or park.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data directory: made when it is not there, gone on with when it is (default:"
            " the config's, else $XDG_DATA_HOME/ringbook/<instance>)."
        ),
    ] = None,
    journal: Annotated[
        str | None, typer.Option(help="batch, sync, os or none: what survives a power cut.")
    ] = None,
) -> None:
    """Start the exchange and serve until Ctrl-C.

    All that was acknowledged is in the journal of the data directory; the next start goes on where
    this one ended, however it ended (docs/operations.md).

    \b
    Examples:
      run.py up                                   everything, with the built-in configuration
      run.py up --data /srv/ringbook --journal sync
      run.py up --config ringbook.toml --shards 2
      run.py up --role shard                      parts apart: the shards here ...
      run.py up --role gateway --role feed        ... and the doors there
    """
    from cli.up import Options, command

    options = Options(role or ["all"], config, shards, host, port, idle, data, journal)
    raise typer.Exit(command(options))


@app.command()
def demo(
    config: ConfigFile = None,
    port: Port = None,
    rate: Annotated[
        int, typer.Option(help="Requests per second of the generated flow.", min=1)
    ] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the generated flow.")] = 1,
    seconds: Seconds = None,
    plain: Plain = False,
) -> None:
    """Start everything, with generated flow (Ctrl-C ends it).

    Several accounts quote and trade around a wandering price, as ordinary clients over TCP. Look
    at the same exchange from another terminal with `run.py client`, `listen` and `top`.
    """
    from cli.demo import command

    raise typer.Exit(command(config, port, rate, seed, seconds, plain))


@replay_app.command("lobster")
def replay_lobster(
    messages: Annotated[Path, typer.Argument(help="LOBSTER message file, plain or .xz.")],
    orderbook: Annotated[
        Path | None,
        typer.Argument(help="Order book file: row 0 is the book before the start."),
    ] = None,
    symbol: Annotated[
        str, typer.Option(help="Symbol to trade under; its book must be empty.")
    ] = "AAPL",
    preplace: Annotated[
        bool, typer.Option("--preplace", help="Enter re-announced older orders by id first.")
    ] = False,
    speed: Annotated[
        float,
        typer.Option(help="0: as fast as it goes; 1: as recorded; 10: ten times that.", min=0),
    ] = 0,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare the engine's book with the file after every row (not with --preplace, "
            "which spoils the rows), and start a listener process that follows the same day from "
            "multicast alone.",
        ),
    ] = False,
    depth: Annotated[int, typer.Option(help="Levels to compare.", min=1)] = 40,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the orders in the book at the end.")
    ] = False,
    account: AccountName = "replay",
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Replay a LOBSTER day and count what comes out as recorded.

    \b
    1 -> limit order, 2 -> replace with a lower total, 3 -> cancel, 4 -> immediate-or-cancel from
    the other side, expecting that maker at that price, 5 (hidden) -> skipped.
    Exit code 3: the replay ran, but something was not as recorded (with --compare).
    \b
    Examples:
      run.py replay lobster AAPL_10s_messages_50.csv AAPL_10s_orderbook_50.csv --compare
      run.py replay lobster AAPL_1h_messages_50.csv.xz AAPL_10s_orderbook_50.csv --preplace
    """
    from cli.replay import Options, command

    options = Options(
        messages, orderbook, symbol, preplace, speed, compare, depth, keep, account, json
    )
    raise typer.Exit(command(options, config, host, port))


@replay_app.command("journal")
def replay_journal(
    directory: Annotated[Path, typer.Argument(help="Data directory, in use or not.")],
    until: Annotated[
        int | None, typer.Option(help="Show the shard after this command (in_seq).", min=0)
    ] = None,
    until_time: Annotated[
        str | None, typer.Option(help="Show it at this moment: ISO 8601, UTC unless it says other.")
    ] = None,
    shard: Annotated[int | None, typer.Option(help="Which shard (default: all).", min=0)] = None,
    symbol: Annotated[str | None, typer.Option(help="Show this book only.")] = None,
    book: Annotated[int, typer.Option(help="Levels of a book to show.", min=1)] = 5,
    fork: Annotated[
        tuple[int, Path] | None,
        typer.Option(
            metavar="SEQ NEWDIR",
            help="Make a new data directory: the same up to command SEQ, then the remaining"
            " commands run again under --config or --without.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="With --fork: the other configuration.", exists=True, dir_okay=False
        ),
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="With --fork: leave out this account's orders.")
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="With --fork: say what is different in the new outcome.")
    ] = False,
) -> None:
    """Show any moment of the past, or run another future from there.

    Reads only; of a directory in use, what is on disk. A fork goes on from its own directory with
    `run.py up --data NEWDIR`. Exit code 3: with --diff, the outcomes differ.

    \b
    Examples:
      run.py replay journal DIR --until 120000 --symbol AAPL --book 10
      run.py replay journal DIR --until-time 2026-03-02T14:30:00
      run.py replay journal DIR --fork 120000 /tmp/other --config other.toml --diff
      run.py replay journal DIR --fork 0 /tmp/without-bob --without bob --diff
    """
    from cli.replay_journal import Options, command

    options = Options(
        directory, until, until_time, shard, symbol, book, fork, config, without, diff
    )
    raise typer.Exit(command(options))


@app.command()
def listen(
    symbol: Annotated[str, typer.Argument(help="Symbol to show.")],
    config: ConfigFile = None,
    group: Annotated[
        str | None, typer.Option(help="Multicast group (default: the config's).")
    ] = None,
    interface: Annotated[str | None, typer.Option(help="Interface to join on.")] = None,
    depth: Annotated[int, typer.Option(help="Levels to show.", min=1, max=40)] = 10,
    pcap: Annotated[
        Path | None, typer.Option(help="Record the channel's datagrams, for tshark and others.")
    ] = None,
    itch: Annotated[
        Path | None, typer.Option(help="Record its messages, as Nasdaq's own ITCH files are.")
    ] = None,
    seconds: Seconds = None,
    plain: Plain = False,
) -> None:
    """Show one symbol's ladder and tape, live from multicast.

    \b
    Examples:
      run.py listen AAPL
      run.py listen BTCUSDT --plain --seconds 5 > tape.txt
      run.py listen AAPL --seconds 60 --pcap day.pcap --itch day.itch
    """
    from cli.listen import Files, command

    files = Files(pcap, itch)
    raise typer.Exit(command(symbol, config, group, interface, depth, files, seconds, plain))


@app.command()
def client(
    account: AccountName = "demo",
    token: Annotated[
        str | None, typer.Option(envvar="RINGBOOK_TOKEN", help="Token (default: the config's).")
    ] = None,
    session: Annotated[str, typer.Option(help="Session name.")] = "term",
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Trade by hand: place, cancel, replace, see the reports.

    Reads its commands from standard input when that is a pipe.

    \b
    Examples:
      run.py client
      printf 'buy 10 AAPL 187.42\\nbook AAPL\\n' | run.py client --account alice
    """
    from cli.client import command

    raise typer.Exit(command(account, token, session, config, host, port))


@app.command()
def top(
    config: ConfigFile = None,
    instance: Annotated[
        str | None, typer.Option(help="Instance name (default: the config's).")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between pictures.", min=0.1)] = 1.0,
    seconds: Seconds = None,
) -> None:
    """Show what every process does, live: rates, depths, latencies."""
    from cli.top import command

    raise typer.Exit(command(config, instance, once, every, seconds))


@operator_app.command("instruments")
def operator_instruments(
    symbol: Annotated[str | None, typer.Argument(help="This one only, with all its rules.")] = None,
    json: AsJson = False,
    instance: InstanceName = None,
    config: ConfigFile = None,
) -> None:
    """Show what is listed: phase, next turn of the calendar, algorithm, bands, rules in force."""
    from cli.operator import command

    request = {"verb": "instruments", **({"symbol": symbol} if symbol else {})}
    raise typer.Exit(command(config, instance, json, request))


@operator_app.command("phase")
def operator_phase(
    symbol: Annotated[str, typer.Argument(help="Instrument with the full rules.")],
    phase: Annotated[
        str,
        typer.Argument(
            help="pre_open, opening_call, continuous, volatility_call, closing_call, closed, halted"
            " or cancel_only."
        ),
    ],
    json: AsJson = False,
    instance: InstanceName = None,
    config: ConfigFile = None,
) -> None:
    """Change the phase of an instrument.

    Leaving a call crosses at one price. From halted and closed the way to continuous is a call;
    cancel_only goes back to what was before it. A calendar leaves halted and cancel_only alone and
    goes on when you end them; any other phase lasts until its next turn.
    """
    from cli.operator import command

    request = {"verb": "phase", "symbol": symbol, "phase": phase}
    raise typer.Exit(command(config, instance, json, request))


@operator_app.command("rule")
def operator_rule(
    symbol: Annotated[str, typer.Argument(help="Instrument with the full rules.")],
    key: Annotated[str, typer.Argument(help="A rule, as `operator instruments SYMBOL` lists it.")],
    value: Annotated[
        str, typer.Argument(help="Its value: a number, a word, account:percent of lmm.")
    ],
    json: AsJson = False,
    instance: InstanceName = None,
    config: ConfigFile = None,
) -> None:
    """Set a rule of an instrument.

    Bands are in basis points, 0 for none. A rule that the configuration states is set back by the
    next start.
    """
    from cli.operator import command

    request = {"verb": "rule", "symbol": symbol, "key": key, "value": value}
    raise typer.Exit(command(config, instance, json, request))


@operator_app.command("arm")
def operator_arm(
    symbol: Annotated[str, typer.Argument(help="Instrument with the full rules.")],
    account: Annotated[str, typer.Argument(help="Name of an account of the configuration.")],
    lots: Annotated[
        int | None, typer.Option(help="Lots that may be filled; 0: none any more.", min=0)
    ] = None,
    window_ms: Annotated[int | None, typer.Option(help="Within so many milliseconds.")] = None,
    json: AsJson = False,
    instance: InstanceName = None,
    config: ConfigFile = None,
) -> None:
    """Arm the market-maker protection of an account again, so that its quotes are taken.

    Lots and window are those of the configuration where they are not stated here.
    """
    from cli.operator import command

    request = {"verb": "arm", "symbol": symbol, "account": account}
    stated = {"lots": lots, "window_ms": window_ms}
    given = {key: value for key, value in stated.items() if value is not None}
    raise typer.Exit(command(config, instance, json, request | given))


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Data directory, in use or not.")],
    shard: Annotated[int | None, typer.Option(help="Only this shard.", min=0)] = None,
    from_snapshot: Annotated[
        bool, typer.Option("--from-snapshot", help="Begin with the newest snapshot: quicker.")
    ] = False,
) -> None:
    """Replay a data directory and compare everything in it.

    Journal (checksums, gaps), snapshots, event log and books are held against a replay from the
    first command on. Nothing is changed; a directory in use is read up to what is on disk.
    Exit code 0: all is right; 1: damage, with file and byte; 3: something says other than the
    replay.

    \b
    Examples:
      run.py verify ~/.local/share/ringbook/ringbook
      run.py verify /backup/ringbook --from-snapshot
    """
    from cli.verify import command

    raise typer.Exit(command(directory, shard, from_snapshot))


@app.command("inspect")
def inspect_file(
    path: Annotated[
        str,
        typer.Argument(
            help="A file of a data directory; or commands, events, staging: live rings."
        ),
    ],
    first: Annotated[
        int | None, typer.Option("--from", help="First sequence number to show.", min=1)
    ] = None,
    count: Annotated[int, typer.Option(help="How many records.", min=0)] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    instance: Annotated[
        str | None, typer.Option(help="Instance of a live ring (default: the config's).")
    ] = None,
    shard: Annotated[int | None, typer.Option(help="Ring of this shard only.", min=0)] = None,
    config: ConfigFile = None,
) -> None:
    """Decode a kept file or a live ring, record by record.

    Journal and event log segments, their indexes, snapshots, manifests. A damaged record is shown
    as such, with its byte and the reason; the exit code is 1 then.

    \b
    Examples:
      run.py inspect DIR/manifest.json
      run.py inspect DIR/shard0/journal-00000000000000000001 --from 120 --count 5
      run.py inspect DIR/shard0/events-00000000000000000001 --json | jq .kind_name
      run.py inspect events --instance ringbook --count 50
    """
    from cli.inspect import Options, command

    raise typer.Exit(command(path, Options(first, count, json, instance, shard, config)))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def bench(context: typer.Context) -> None:
    """Measure, each figure beside its floor (bench --help)."""
    from bench.report import main as bench_main

    raise typer.Exit(bench_main(context.args))


@app.command()
def doctor(config: ConfigFile = None) -> None:
    """Say whether this machine, and its disk, are fit for the exchange."""
    from cli.doctor import command

    raise typer.Exit(command(config))


@app.command()
def check() -> None:
    """Run `make check`: lint, types, fast tests (two minutes)."""
    from cli.make import command

    raise typer.Exit(command("check"))


@app.command()
def test() -> None:
    """Run `make test`: lint, types, all tests (half an hour)."""
    from cli.make import command

    raise typer.Exit(command("test"))


@app.command("_supervisor", hidden=True)
def supervisor() -> None:
    """Be an exchange in the background; only the project's own code starts this."""
    from engine.background import supervisor_main

    raise typer.Exit(supervisor_main())


def main() -> None:
    """Run one command; operating errors become one sentence and exit code 1."""
    try:
        app(sys.argv[1:] or ["--help"])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`run.py listen AAPL --plain | head`): not an error.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if not is_operating_error(error):
            raise
        print(f"ringbook: {sentence_of(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
