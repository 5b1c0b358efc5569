"""The system under test, and where everything of a benchmark runs. Cold.

     doors' core    gateway, feed; echo floor
     last core      shard
     either         load generator, niced, on the core its benchmark says
     asleep         supervisor, and this process while others are measured

The exchange is the real one: engine.topology in processes of its own, with the built-in accounts
("bench" has no throttle), any free port, a feed on ports of its own, so that an exchange that is
already up is not disturbed.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.background import start_in_background
from engine.children import PREFIX
from engine.config import Config, Journal
from engine.instance import connect_instance
from engine.segment import SHM, InstanceRunning, janitor
from engine.sharding import plan_placement
from engine.staging import FOLLOWED, STAGED
from engine.topology import ROLES

ACCOUNT = "bench"
IDLE = "adaptive"
SETTLE_S = 60.0
_INSTANCE = "bench_"


@dataclass(frozen=True)
class Cores:
    """Who runs where."""

    doors: int
    shard: int

    @property
    def shared(self) -> bool:
        """Whether the machine has one core only: nothing measured there means much."""
        return self.doors == self.shard


@dataclass(frozen=True)
class System:
    """A running exchange."""

    config: Config
    cores: Cores
    pids: dict[str, int]  # role -> process of the exchange
    supervisor: int

    @property
    def host(self) -> str:
        return self.config.network.host

    @property
    def port(self) -> int:
        return self.config.network.port

    @property
    def token(self) -> str:
        return next(a.token for a in self.config.accounts if a.name == ACCOUNT)

    def settle(self) -> float:
        """Wait until the follower has replayed whatever the shard has run; returns the seconds.

        It works when the core is idle: what it has left to do would disturb what comes next.
        """
        begin = time.monotonic()
        instance = connect_instance(self.config.instance)
        assert instance is not None
        if instance.staging is not None:
            while instance.staging.get(0, FOLLOWED) != instance.staging.get(0, STAGED):
                if time.monotonic() - begin > SETTLE_S:
                    raise RuntimeError(f"the follower did not arrive within {SETTLE_S:g} s")
                time.sleep(0.005)
        instance.close()
        return time.monotonic() - begin


def bench_config(idle: str = IDLE, journal: Journal | None = None, number: int = 0) -> Config:
    """Built-in configuration under a name and on ports of this process, with one shard. `number`:
    of several exchanges at a time.
    """
    config = Config()
    offset = (os.getpid() + 7 * number) % 20_000
    network = dataclasses.replace(
        config.network, port=0, feed_port=30_000 + offset, directory_port=50_001 + offset % 10_000
    )
    return dataclasses.replace(
        config,
        instance=f"{_INSTANCE}{os.getpid()}_{number}",
        shards=1,
        idle=idle,
        network=network,
        journal=journal or config.journal,
    ).check()


def cores_of(config: Config) -> Cores:
    """Return the cores the topology gives to the shard and to the doors."""
    placement = plan_placement(config)
    return Cores(placement.door_cores[0], placement.shard_cores[0])


def cpu_ns(pid: int) -> int:
    """CPU nanoseconds a process has used, all its threads; 0 where the kernel does not tell."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(path.read_text().split()[0])
    return total


def _role_pids(supervisor: int) -> dict[str, int]:
    # The supervisor's children by role: rb-ROLE and a number.
    roles = {}
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    for pid in children.read_text().split() if children.exists() else []:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name.startswith(PREFIX):
            roles[name.removeprefix(PREFIX).rstrip("0123456789")] = int(pid)
    return roles


def remove_dead() -> list[str]:
    """Remove what benchmarks that were killed left in shared memory; returns the segments' names.

    Instances are named by process, so no later start of the same name would do it.
    """
    names = {path.name.split(".")[1] for path in SHM.glob(f"ringbook.{_INSTANCE}*.*")}
    removed = []
    for name in sorted(names):
        with contextlib.suppress(InstanceRunning):
            removed += janitor(name)
    return removed


@contextmanager
def exchange(
    idle: str = IDLE,
    roles: Sequence[str] = ROLES,
    journal: Journal | None = None,
    number: int = 0,
) -> Iterator[System]:
    """Run the exchange for a while; it is stopped, in order, when the block ends."""
    remove_dead()
    config = bench_config(idle, journal, number)
    cores = cores_of(config)
    with start_in_background(config, roles) as handle:
        yield System(handle.config, cores, _role_pids(handle.process.pid), handle.process.pid)
