"""`run.py up`: the exchange, or some of its parts, until Ctrl-C. Cold: engine/topology.py works."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.common import CommandError, load
from cli.doctor import platform_refusal

if TYPE_CHECKING:
    from engine.config import Config

ROLES = ("shard", "gateway", "feed")


def roles_of(words: list[str]) -> set[str]:
    """Give the roles that `--role` names; "all" is all of them."""
    for word in words:
        if word not in (*ROLES, "all"):
            raise CommandError(f"--role is all, {', '.join(ROLES)}; not {word!r}")
    return set(ROLES) if "all" in words else set(words)


PROMISES = {
    "none": "nothing is kept: what was acknowledged is gone with the exchange",
    "os": "the end of any process loses nothing; a power cut about a second of acknowledgements",
    "batch": "the end of any process loses nothing; a power cut at most {window} ms of"
    " acknowledgements",
    "sync": "nothing is acknowledged before it is on disk: neither processes nor power lose it",
}


class Options(NamedTuple):
    """The command line."""

    roles: list[str]
    config: Path | None
    shards: int | None
    host: str | None
    port: int | None
    idle: str | None
    data: Path | None
    journal: str | None


def data_directory(config: "Config") -> str:
    """Where an instance keeps its journal: as configured, else a place of its own per user."""
    if config.journal.directory:
        return os.path.abspath(os.path.expanduser(config.journal.directory))
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "ringbook", config.instance)


def promise(config: "Config") -> str:
    """What the journal's mode promises, in a line."""
    return PROMISES[config.journal.mode].format(window=config.journal.loss_window_ms)


def ready_lines(config: "Config", roles: set[str]) -> list[str]:
    """Say where the parts that run can be reached, and what is kept."""
    network = config.network
    lines = [
        f"instance {config.instance}: {config.shards or 'automatic'} shard(s), idle {config.idle}"
    ]
    if "shard" in roles:
        where = config.journal.directory if config.journal.mode != "none" else "none"
        lines.append(f"journal      {where}")
        lines.append(f"             {config.journal.mode}: {promise(config)}")
    if "gateway" in roles:
        lines.append(f"orders       tcp://{network.host}:{network.port}   (run.py client)")
    if "feed" in roles:
        first, last = network.feed_port, network.feed_port + max(config.shards, 1) - 1
        ports = str(first) if first == last else f"{first}..{last}"
        lines.append(f"market data  udp://{network.feed_group}:{ports}   (run.py listen AAPL)")
    lines.append("counters     run.py top        Ctrl-C stops everything")
    return lines


def configure(options: Options) -> "Config":
    """The configuration with the command line applied, and a data directory."""
    config = load(
        options.config, shards=options.shards, host=options.host, port=options.port,
        idle=options.idle, data=str(options.data) if options.data else None, mode=options.journal,
    )  # fmt: skip
    if config.journal.mode == "none":
        if options.data:
            raise CommandError("--journal none keeps nothing: leave --data away, or choose a mode")
        return config
    directory = data_directory(config)
    journal = dataclasses.replace(config.journal, directory=directory)
    return dataclasses.replace(config, journal=journal, shards=config.shards or _kept(directory))


def _kept(directory: str) -> int:
    # The number of shards is fixed when a directory is made; this machine may have other cores now.
    from engine.disk import RealDisk
    from engine.manifest import Manifest

    manifest = Manifest.load(RealDisk(), directory)
    return manifest.shards if manifest is not None else 0


def command(options: Options) -> int:
    """Start and serve; give the exit code."""
    refusal = platform_refusal()
    if refusal:
        raise CommandError(refusal)
    roles = roles_of(options.roles)
    config = configure(options)

    from engine.topology import run_up

    def on_ready(running: "Config") -> None:
        print("\n".join(ready_lines(running, roles)), flush=True)

    return run_up(config, roles, on_ready)
