"""Every number and name of a nemesis run, in one place. Standard library only: the load reads it.

A run has a folder (tests/system/checker/run.py says what the checker reads of it); beside that:

    RUN/settings.json   what this run is
    RUN/faults.jsonl    what was done to whom, and when        faults.py
    RUN/result.json     counts of the load                     load.py
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

# What a kind of fault hits: the beginning of the names of the processes (/proc/PID/comm).
PROCESS_NAMES = {
    "shard": "rb-shard",
    "gateway": "rb-gateway",
    "feed": "rb-feed",
    "journal": "rb-journal",
    "follower": "rb-follow",
}
WHOLE_KINDS = ("all", "supervisor")  # the supervisor goes too; a fresh start on the same directory
PAUSE = "pause"  # SIGSTOP one process, SIGCONT it later
KINDS = (*PROCESS_NAMES, *WHOLE_KINDS)
ALL_KINDS = (*KINDS, PAUSE)

# A process that must be there for anything but a clean run: without it nothing survives a kill.
JOURNAL_PROCESS = PROCESS_NAMES["journal"]

START_S_MAX = 300.0  # a start that has to compile the kernels first
RETURN_S_MAX = 20.0  # a killed child is there again
RECOVERY_S_MAX = 20.0  # and requests are acknowledged again
QUIET_S_MAX = 30.0  # after the faults: everything answered, everything cancelled
# The supervisor gives up on a child that dies five times in a minute; we must not be the reason.
KILLS_PER_MINUTE_MAX = 4
FIRST_FAULT_S = 1.5
LAST_FAULT_S = 3.0  # load goes on that long after the last one
PAUSE_S = (0.3, 3.0)

# What a client does, per mille.
MIX = {
    "limit": 520,
    "ioc": 60,
    "fok": 20,
    "market": 80,
    "post_only": 30,
    "cancel": 150,
    "replace": 110,
    "mass_cancel": 5,
    "query": 25,
}
# name, decimals of a lot. NEMO is not in the configuration: it is listed on first use.
SYMBOLS = (("AAPL", 0), ("MSFT", 0), ("BTCUSDT", 5), ("ETHUSDT", 4), ("NEMO", 0))
MIDDLE_TICKS, SPREAD_TICKS = 10_000, 8
OPEN_ORDERS_MAX = 120
UNANSWERED_MAX = 24
ANSWERED_KEPT = 256  # answered requests a client can still send again
ANSWER_S = 3.0  # a request without an answer is sent again
SILENCE_S = 8.0  # a connection on which nothing is heard is given up
CONNECT_S = 3.0
LOGON_S = 8.0
RETRY_S = 0.05
HEARTBEAT_S = 1.0


@dataclass
class Settings:
    """One run."""

    seed: int = 1
    seconds: float = 20.0  # of load; fresh starts come on top
    kills: int = 0
    kinds: tuple[str, ...] = KINDS
    shards: int = 2
    rate: float = 80.0  # requests per second of one client
    # account, session name. Two sessions of one account get the same reports.
    clients: tuple[tuple[str, str], ...] = (
        ("demo", "n0"),
        ("demo", "n1"),
        ("alice", "n2"),
        ("bob", "n3"),
    )
    accounts: dict[str, int] = field(default_factory=lambda: {"demo": 1, "alice": 2, "bob": 3})
    instance: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    feed_group: str = ""
    feed_port: int = 9500
    journal_mode: str = "batch"
    resume: bool = False  # whether the exchange has a journal: known once it runs

    @property
    def feed_ports(self) -> list[int]:
        """Shard n publishes on feed_port + n."""
        return [self.feed_port + shard for shard in range(self.shards)]

    def check(self) -> Settings:
        """Return self; ValueError for what cannot be run."""
        unknown = set(self.kinds) - set(ALL_KINDS)
        if unknown:
            raise ValueError(f"unknown kind {', '.join(sorted(unknown))}: {', '.join(ALL_KINDS)}")
        if self.kills and not self.kinds:
            raise ValueError("kills of no kind")
        return self

    def exchange(self, data: Path) -> dict[str, object]:
        """The configuration of the exchange, as its TOML file would have it. Small files and few
        commands between snapshots: rotation and snapshots happen within seconds.
        """
        return {
            "instance": self.instance,
            "shards": self.shards,
            "idle": "park",
            "shard": {
                "orders_max": 16_384,
                "levels_max": 4_096,
                "symbols_max": 64,
                "slice_events": 900,
                "events_per_command_max": 1024,
            },
            "rings": {"event_capacity": 16_384, "command_capacity": 2048},
            "network": {
                "host": self.host,
                "port": self.port,
                "feed_group": self.feed_group,
                "feed_port": self.feed_port,
                "directory_port": self.feed_port - 1,
            },
            "journal": {
                "directory": str(data),
                "mode": self.journal_mode,
                "segment_bytes": 1 << 20,
                "snapshot_commands": 5_000,
                "log_segment_events": 8_192,
                "log_events_max": 1 << 20,
                "staging_capacity": 16_384,
                "free_bytes_min": 16 << 20,
            },
        }

    def write(self, path: Path) -> None:
        """Keep the settings with the run."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read them again."""
        values = json.loads(path.read_text())
        values["clients"] = tuple(tuple(client) for client in values["clients"])
        values["kinds"] = tuple(values["kinds"])
        return cls(**values)
