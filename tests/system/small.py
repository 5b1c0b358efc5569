"""A small exchange of a test's own, and a client that says lines and hears lines. Cold."""

import contextlib
import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from engine.background import Handle, start_in_background
from engine.children import PREFIX
from engine.config import Config, GatewayLimits, Network, Rings, ShardLimits
from engine.segment import process_start_time

SHM = Path("/dev/shm")
WAIT_S = 60.0


def small_config(name: str, feed_port: int, **changes: object) -> Config:
    """An exchange of a few megabytes on ports of its own."""
    shard = ShardLimits(orders_max=4096, levels_max=1024, symbols_max=32)
    shard = dataclasses.replace(shard, slice_events=900, events_per_command_max=1024)
    network = Network(port=0, feed_port=feed_port, directory_port=feed_port - 1)
    config = Config(
        instance=name, shard=shard, rings=Rings(event_capacity=8192, command_capacity=1024),
        network=network, gateway=GatewayLimits(),
    )  # fmt: skip
    return dataclasses.replace(config, **changes).check()


def segments_of(name: str) -> list[str]:
    return [p.name for p in SHM.iterdir() if p.name.startswith(f"ringbook.{name}.")]


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]


def child_of(handle: Handle, name: str) -> int:
    """The pid of the child called `name`; 0 when there is none now."""
    for pid in children_of(handle.process.pid):
        with contextlib.suppress(OSError):
            named = Path(f"/proc/{pid}/comm").read_text().strip() == f"{PREFIX}{name}"
            if named and process_start_time(pid):  # a dead one keeps its name until it is reaped
                return pid
    return 0


def until(condition: Callable[[], object], seconds: float = WAIT_S) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


class Wire:
    """A client that says lines and hears lines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")

    def ask(self, **message: object) -> dict[str, object]:
        self.socket.sendall(orjson.dumps(message) + b"\n")
        return self.hear()

    def hear(self) -> dict[str, object]:
        while True:
            line = self.file.readline()
            if not line:
                return {"type": "closed"}
            answer: dict[str, object] = orjson.loads(line)
            if answer["type"] != "heartbeat":
                return answer

    def logon(self, account: str = "demo", **more: object) -> dict[str, object]:
        return self.ask(type="logon", account=account, token=account, **more)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@contextlib.contextmanager
def running(
    config: Config, roles: tuple[str, ...] = ("shard", "gateway", "feed")
) -> Iterator[Handle]:
    handle = start_in_background(config, roles)
    try:
        yield handle
    finally:
        handle.stop()
