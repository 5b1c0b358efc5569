"""`run.py up`: the exchange, or some of its parts, until Ctrl-C. Cold: engine/topology.py works."""

from pathlib import Path
from typing import TYPE_CHECKING

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


def ready_lines(config: "Config", roles: set[str]) -> list[str]:
    """Say where the parts that run can be reached."""
    network = config.network
    lines = [
        f"instance {config.instance}: {config.shards or 'automatic'} shard(s), idle {config.idle}"
    ]
    if "gateway" in roles:
        lines.append(f"orders       tcp://{network.host}:{network.port}   (run.py client)")
    if "feed" in roles:
        first, last = network.feed_port, network.feed_port + max(config.shards, 1) - 1
        ports = str(first) if first == last else f"{first}..{last}"
        lines.append(f"market data  udp://{network.feed_group}:{ports}   (run.py listen AAPL)")
    lines.append("counters     run.py top        Ctrl-C stops everything")
    return lines


def command(
    words: list[str],
    path: Path | None,
    shards: int | None,
    host: str | None,
    port: int | None,
    idle: str | None,
) -> int:
    """Start and serve; give the exit code."""
    refusal = platform_refusal()
    if refusal:
        raise CommandError(refusal)
    roles = roles_of(words)
    config = load(path, shards=shards, host=host, port=port, idle=idle)

    from engine.topology import run_up

    def on_ready(running: "Config") -> None:
        print("\n".join(ready_lines(running, roles)), flush=True)

    return run_up(config, roles, on_ready)
