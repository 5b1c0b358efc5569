"""How long an exchange is gone: a shard killed under load, and the replay of a journal.

     take-over     load ──▶ SIGKILL of the shard ──▶ its follower serves ──▶ first new answer
     cold restart  shard and follower killed at once, a million commands behind the last snapshot
     replay        the same journal through engine/standby.py, with nobody waiting

The gap is what a client sees: from the kill to the first order accepted that was sent after it,
orders going out on a fixed plan all the time. A regression of the take-over means a follower that
lags or a supervisor that looks late; of the other two, a slower step or slower reading.
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import orjson

from bench.generator import Generator
from bench.measure import Row, value_at_least, value_at_most
from bench.system import ACCOUNT, IDLE, System, exchange
from bench.throughput import WINDOW
from bench.wire import logon
from engine.config import Journal
from engine.disk import RealDisk
from engine.instance import connect_instance
from engine.journal_reader import journal_read
from engine.staging import DURABLE
from engine.standby import Standby, StandbyParts

RATE_PER_S = 50_000
TICK_S = 0.001
TAIL_COMMANDS = 1_000_000
TAKE_OVERS = 5
TAKE_OVER_S, COLD_S, REPLAY_PER_S = 1.0, 5.0, 5_000_000
GIVE_UP_S = 30.0


class Load:
    """Orders on a fixed plan over one connection; remembers when each was sent and answered."""

    def __init__(self, system: System) -> None:
        self.socket = logon(system.host, system.port, "gap", ACCOUNT, system.token)
        self.socket.setblocking(False)
        self.sent: list[float] = [0.0]  # by client id
        self.last = b""
        self._rest = b""
        self._pending = b""

    def run(self, seconds: float, answered_since: float = 0.0) -> bool:
        """Send for a while; True as soon as an order sent after `answered_since` is accepted."""
        start = due = time.perf_counter()
        while time.perf_counter() - start < seconds:
            now = time.perf_counter()
            if now >= due:
                self._send(int(RATE_PER_S * TICK_S), now)
                due = max(due + TICK_S, now)
            if self._receive(answered_since):
                return True
            time.sleep(TICK_S / 10)
        return False

    def _send(self, count: int, now: float) -> None:
        first = len(self.sent)
        self.sent += [now] * count
        self._pending += b"".join(
            b'{"symbol":"AAPL","side":"%s","qty":1,"price":"%d","tif":"ioc","id":%d}\n'
            % ((b"buy", b"sell")[n & 1], 100 + n % 3, n)
            for n in range(first, first + count)
        )
        try:
            done = self.socket.send(self._pending)
        except BlockingIOError:
            done = 0
        self._pending = self._pending[done:]

    def _receive(self, since: float) -> bool:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        if not data:
            raise RuntimeError(f"the exchange hung up on the load; it said {self.last!r}")
        lines = (self._rest + data).split(b"\n")
        self.last = lines[-2] if len(lines) > 1 else self.last
        self._rest = lines.pop()
        if since:
            for line in lines:
                if b'"accepted"' in line and self.sent[orjson.loads(line)["id"]] > since:
                    return True
        return False

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def gap_s(system: System, names: tuple[str, ...]) -> float:
    """Kill these children under load; seconds until an order sent later is accepted."""
    load = Load(system)
    load.run(1.0)
    pids = [pid for name, pid in _children(system.supervisor).items() if name in names]
    if len(pids) != len(names):
        raise RuntimeError(f"not all of {names} are running")
    killed = time.perf_counter()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    found = load.run(GIVE_UP_S, killed)
    gap = time.perf_counter() - killed
    load.close()
    return gap if found else float("inf")


def _children(supervisor: int) -> dict[str, int]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in children}


def replay_per_s(directory: str, system: System) -> tuple[float, int]:
    """Replay shard 0 of a directory nobody uses; (commands per second, commands)."""
    for path in Path(directory, "shard0").glob("snapshot-*"):
        path.unlink()
    standby = Standby(StandbyParts(RealDisk(), directory, 0, system.config))
    until = _last_in_seq(directory)
    start = time.perf_counter()
    while standby.in_seq < until:
        standby.advance(until)
    seconds = time.perf_counter() - start
    standby.close()
    return until / seconds, until


def _last_in_seq(directory: str) -> int:
    return journal_read(RealDisk(), directory, 0).finish().in_seq


def bench_recovery(quick: bool = False, idle: str = IDLE) -> list[Row]:
    """Return the rows of `run.py bench recovery`."""
    tail = TAIL_COMMANDS // 10 if quick else TAIL_COMMANDS
    # An exchange of its own for each kill: what dies often is restarted later and later.
    takeovers = sorted(_take_over(idle) for _ in range(1 if quick else TAKE_OVERS))
    with tempfile.TemporaryDirectory(prefix="ringbook-bench-") as folder:
        journal = Journal(f"{folder}/data", snapshot_commands=1 << 40)
        with exchange(idle, journal=journal) as system:
            staged = _fill(system, tail)
            cold = gap_s(system, ("rb-shard0", "rb-follow0"))
        speed, commands = replay_per_s(f"{folder}/data", system)
    note = f"{RATE_PER_S:,} orders/s all the time; kill to first new acknowledgement"
    return [
        Row(
            "shard killed, take-over", takeovers[len(takeovers) // 2], "s",
            interval=(takeovers[0], takeovers[-1]), targets=(value_at_most(TAKE_OVER_S, "s"),),
            note=f"median of {len(takeovers)}; {note}",
        ),
        Row(
            "shard and follower killed, cold restart", cold, "s",
            targets=(value_at_most(COLD_S, "s"),),
            note=f"{staged:,} commands behind the last snapshot; {note}",
        ),
        Row(
            "replay of a journal", speed, "commands/s",
            targets=(value_at_least(REPLAY_PER_S, "commands/s"),),
            note=f"{commands:,} commands, verified, every event made and its CRC carried",
        ),
    ]  # fmt: skip


def _take_over(idle: str) -> float:
    with tempfile.TemporaryDirectory(prefix="ringbook-bench-") as folder:
        with exchange(idle, journal=Journal(f"{folder}/data")) as system:
            return gap_s(system, ("rb-shard0",))


def _fill(system: System, commands: int) -> int:
    # Bring at least so many commands behind the last snapshot; returns how many there are.
    instance = connect_instance(system.config.instance)
    assert instance is not None
    assert instance.staging is not None
    with Generator(system.cores.shard) as generator:
        while instance.staging.get(0, DURABLE) < commands:
            generator.call(
                "bulk", host=system.host, port=system.port, token=system.token, mix="W1",
                operations=None, window=WINDOW, pids={},
            )  # fmt: skip
    found = int(instance.staging.get(0, DURABLE))
    instance.close()
    return found
