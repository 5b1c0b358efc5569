"""What the commands share: configuration, the words for a failure, numbers for people. Cold."""

import dataclasses
import datetime
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.config import Account, Config

# Exceptions whose message is a sentence for the person at the terminal: shown without a traceback.
# Named, not imported: `run.py --help` must not load what raises them.
OPERATING_ERRORS = frozenset(
    "CommandError RingbookError ConfigError SegmentError InstanceRunning LobsterError StartError"
    " FeedError UnsupportedPlatform DirectoryBusy FileRefused JournalDamage ReplayError"
    " ManifestError PastError ForkError".split()
)


class CommandError(Exception):
    """A command that cannot go on; the message says why and what to do."""


def is_operating_error(error: BaseException) -> bool:
    """Whether the message of `error` says all there is to say."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & OPERATING_ERRORS) or isinstance(error, OSError)


def sentence_of(error: BaseException) -> str:
    """Give an operating error as one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split())


def load(path: Path | None, **changes: Any) -> "Config":
    """Read the configuration and apply what the command line changes (None: not given).

    `port`, `host`, `group`, `interface` go to the network table, `data` and `mode` to the journal
    table, the rest to the top level.
    """
    from engine.config import load_config

    config = load_config(path)
    given = {key: value for key, value in changes.items() if value is not None}
    keys = {"group": "feed_group", "interface": "feed_interface"}
    network = {keys.get(k, k): given.pop(k) for k in ("host", "port", *keys) if k in given}
    names = {"data": "directory", "mode": "mode"}
    journal = {name: given.pop(key) for key, name in names.items() if key in given}
    if journal:
        given["journal"] = dataclasses.replace(config.journal, **journal)
    if network:
        given["network"] = dataclasses.replace(config.network, **network)
    return dataclasses.replace(config, **given).check() if given else config


def account_of(config: "Config", name: str) -> "Account":
    """Find an account of the configuration by name."""
    for account in config.accounts:
        if account.name == name:
            return account
    known = ", ".join(account.name for account in config.accounts)
    raise CommandError(f"no account {name!r} in the configuration; there are {known}")


def count_text(value: float) -> str:
    """Write a count in at most six characters: 950, 12.3k, 4.56M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            scaled = value / limit
            digits = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
            return f"{scaled:.{digits}f}{unit}"
    return f"{value:.0f}"


def time_text(nanoseconds: float) -> str:
    """Write a duration with its unit: 850ns, 12.3µs, 4.5ms."""
    for limit, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= limit:
            return f"{nanoseconds / limit:.3g}{unit}"
    return f"{nanoseconds:.0f}ns"


def is_terminal() -> bool:
    """Whether a person looks at standard output (NO live screen into a pipe or a dumb terminal)."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def warm() -> None:
    """Compile the kernels of what was imported by now, with progress, when they never were."""
    from engine.jit import warm_pending, warm_up

    pending = warm_pending()
    if pending:
        warm_up(_warm_progress, pending)


def _warm_progress(done: int, total: int, name: str, seconds: float) -> None:
    end = "\n" if done == total else ""
    bar = "#" * (20 * done // total) + "." * (20 - 20 * done // total)
    print(f"\rcompiling kernels [{bar}] {done}/{total} {name:<28}", file=sys.stderr, end=end)
    sys.stderr.flush()


def whole_time(nanoseconds: int) -> str:
    """Write a moment as ISO 8601 in UTC, with every nanosecond; one that cannot be as a number."""
    seconds, rest = divmod(int(nanoseconds), 10**9)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{int(nanoseconds)}ns"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def time_of(text: str) -> int:
    """Nanoseconds of an ISO 8601 moment (UTC unless it says otherwise), or of a plain number."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        head, dot, tail = text.partition(".")
        digits = len(tail) - len(tail.lstrip("0123456789"))
        moment = datetime.datetime.fromisoformat(head + tail[digits:])
    except ValueError as error:
        raise CommandError(
            f"{text!r} is no moment: write 2026-03-01T14:30:00 (UTC), or nanoseconds since 1970"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    fraction = int((tail[:digits] + "0" * 9)[:9]) if dot else 0
    return int(moment.timestamp()) * 10**9 + fraction
