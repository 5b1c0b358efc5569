"""Placement: symbol to shard, shard to core, from the cores this process may really use.

Cold. A shard with a core to itself may spin; where cores are short the doors (gateway, feed,
everything else) share the first core and shards take the others from the last one down. Two cores
work well: shard on one, doors on the other.
"""

import os
import zlib
from dataclasses import dataclass

from engine.config import Config, ConfigError

SHARDS_MAX = 64


@dataclass(frozen=True)
class Placement:
    """Where everything runs. `dedicated[i]`: shard i shares its core with no other process of the
    exchange.
    """

    cores: tuple[int, ...]
    shard_cores: tuple[int, ...]
    dedicated: tuple[bool, ...]
    door_cores: tuple[int, ...]

    def describe(self) -> str:
        """Return one line for people."""
        shards = ", ".join(
            f"shard {i} on core {core}{'' if own else ' (shared)'}"
            for i, (core, own) in enumerate(zip(self.shard_cores, self.dedicated, strict=True))
        )
        doors = ", ".join(map(str, self.door_cores))
        return (
            f"{shards}; gateway and feed on core{'s' if len(self.door_cores) > 1 else ''} {doors}"
        )


def shard_of_symbol(name: str, shards: int) -> int:
    """Return the shard of a symbol (DESIGN §9)."""
    return zlib.crc32(name.encode("ascii")) % shards


def available_cores() -> tuple[int, ...]:
    """Return the cores this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def plan_placement(config: Config, cores: tuple[int, ...] | None = None) -> Placement:
    """Return where shards and doors run; ConfigError when the shard count cannot be served."""
    cores = cores if cores is not None else available_cores()
    wanted = config.shards or max(1, len(cores) - (1 if len(cores) <= 3 else 2))
    if not 1 <= wanted <= SHARDS_MAX:
        raise ConfigError(f"shards must be 1 .. {SHARDS_MAX}, not {wanted}")
    hosts = cores[1:] or cores  # the first core is the doors' own, where there is a choice
    shard_cores = tuple(hosts[-1 - i % len(hosts)] for i in range(wanted))
    door_cores = tuple(core for core in cores if core not in shard_cores) or cores[:1]
    dedicated = tuple(
        shard_cores.count(core) == 1 and core not in door_cores for core in shard_cores
    )
    return Placement(cores, shard_cores, dedicated, door_cores)
