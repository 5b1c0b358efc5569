"""What is drawn for one seed: sizes, mode, rates of faults. Small sizes make the edges common."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from engine.config import (
    Account,
    Config,
    GatewayLimits,
    Instrument,
    Journal,
    Rings,
    ShardLimits,
    Throttle,
)

RATES = (0.0, 0.0, 0.002, 0.01)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")


@dataclass
class Knobs:
    """One draw."""

    mode: str
    shards: int
    clients: int
    batch_max: int
    slice_events: int
    command_capacity: int
    staging_capacity: int
    segment_bytes: int
    snapshot_commands: int
    orders_max: int
    sync_ms: int
    split: float
    step_ns: int  # most time that one turn takes
    kill_shard: float
    kill_journal: float
    kill_follow: float
    kill_gateway: float
    kill_feed: float
    kill_all: float
    power_cut: float
    clean_stop: float
    pause: float
    disk_error: float
    net_cut: float
    clock_jump: float
    quiet: float
    crash_share: float  # of a shard's deaths: at a crash point
    in_disk_share: float  # of deaths: inside a disk operation

    def line(self) -> str:
        """For people."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


def draw(rng: random.Random, *, crash_points: bool) -> Knobs:
    """The knobs of a seed."""

    def rate(scale: float = 1.0) -> float:
        return rng.choice(RATES) * scale

    batch_max = rng.choice((1, 2, 8, 32))
    return Knobs(
        mode=rng.choice(("batch", "batch", "sync", "os")),
        shards=rng.choice((1, 1, 2)),
        clients=rng.randint(2, 5),
        batch_max=batch_max,
        slice_events=rng.choice((40, 200, 200)),
        command_capacity=rng.choice((16, 32, 256)),
        staging_capacity=rng.choice((1, 4, 32)) * _power_of_two(2 * (batch_max + 4)),
        segment_bytes=rng.choice((16_384, 32_768, 262_144)),
        snapshot_commands=rng.choice((40, 200, 1000, 10**9)),
        orders_max=rng.choice((64, 512)),
        sync_ms=rng.choice((1, 10, 80)),
        split=rng.choice((0.0, 0.3, 0.9)),
        step_ns=rng.choice((50_000, 500_000, 5_000_000)),
        kill_shard=rate(2),
        kill_journal=rate(),
        kill_follow=rate(),
        kill_gateway=rate(),
        kill_feed=rate(0.5),
        kill_all=rate(0.5),
        power_cut=rate(0.5),
        clean_stop=rate(0.25),
        pause=rate(2),
        disk_error=rate(0.25),
        net_cut=rate(2),
        clock_jump=rate(0.5),
        quiet=rate(),
        crash_share=rng.choice((0.0, 0.5, 1.0)) if crash_points else 0.0,
        in_disk_share=rng.choice((0.0, 0.5)),
    )


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def config_of(knobs: Knobs) -> Config:
    """The configuration of a draw."""
    per_command = knobs.slice_events + 64
    values: dict[str, Any] = {
        "instance": "sim",
        "shards": knobs.shards,
        "idle": "park",
        "unknown_symbol": "reject",
        "instruments": tuple(Instrument(name, "1", "1") for name in SYMBOLS),
        "accounts": tuple(
            Account(f"a{n}", n, f"a{n}-token", "unlimited") for n in range(1, 4)
        ),
        "throttles": (Throttle("unlimited", 0, 0),),
        "shard": ShardLimits(
            orders_max=knobs.orders_max, levels_max=64, symbols_max=8, sessions_max=16,
            accounts_max=16, text_ids_max=16, quoters_max=16, account_limits_max=16,
            max_walk=1000, slice_events=knobs.slice_events, events_per_command_max=per_command,
            batch_max=knobs.batch_max,
        ),
        "rings": Rings(4, knobs.command_capacity, max(2048, _power_of_two(4 * per_command))),
        "gateway": GatewayLimits(session_grace_s=2.0, auth_failure_delay_s=0.01, sessions_max=40),
        "journal": Journal(
            directory="/data",
            mode=knobs.mode,
            sync_ms=knobs.sync_ms,
            segment_bytes=knobs.segment_bytes,
            staging_capacity=knobs.staging_capacity,
            snapshot_commands=knobs.snapshot_commands,
            log_segment_events=256,
            log_events_max=1 << 20,
            free_bytes_min=1 << 20,
        ),
    }  # fmt: skip
    return Config(**values).check()
