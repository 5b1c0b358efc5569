"""The load: all clients of a run, in a process of its own.

    python -m tests.system.nemesis.load RUN

Says "ready" when every client is logged on. A line on standard input ends it in order: no new
requests, everything answered, a last reconnect with resume, everything cancelled, log off; then
RUN/result.json has the counts and it says "done" or why not. The end of standard input ends it at
once, so it cannot outlive who started it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.system.nemesis import settings as s
from tests.system.nemesis.client import Client
from tests.system.nemesis.flow import Flow
from tests.system.nemesis.settings import Settings

LIFE_S_MAX = 24 * 3600.0
POLL_S = 0.02


async def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


def say(word: str) -> None:
    """One line for who started us."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def standard_input() -> asyncio.StreamReader:
    """Standard input as a stream."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


class Load:
    """All clients."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        clients = folder / "clients"
        clients.mkdir(exist_ok=True)
        self.settings, self.folder = settings, folder
        self.clients = [
            Client(settings, Flow(account, session, settings.seed), clients)
            for account, session in settings.clients
        ]

    async def run(self, orders: asyncio.StreamReader) -> int:
        """Serve until told to stop."""
        deadline = time.monotonic() + LIFE_S_MAX
        tasks = [asyncio.create_task(client.run(deadline)) for client in self.clients]
        try:
            if not await wait_for(lambda: all(c.started for c in self.clients), s.START_S_MAX):
                say("not every client could log on")
                return 1
            self.clients[0].ask_instruments()
            say("ready")
            if not await orders.readline():
                return 1
            problem = await self._end(tasks)
            self._write(problem)
            say(problem or "done")
            return int(bool(problem))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> str:
        # In order; returns what did not come about.
        for client in self.clients:
            client.generating = False
        if not await wait_for(self._quiet, s.QUIET_S_MAX):
            return f"unanswered at the end: {self._unanswered()}"
        if self.settings.resume and not await self._reconnect():
            return "not every client came back at the end"
        for client in self.clients:
            client.flow.cancel_everything()
        if not await wait_for(lambda: all(c.flow.ended for c in self.clients), s.QUIET_S_MAX):
            return f"not every shard cancelled everything: {self._unanswered()}"
        for client in self.clients:
            client.stopping = True
        _, late = await asyncio.wait(tasks, timeout=s.QUIET_S_MAX)
        return "not every client could log off" if late else ""

    async def _reconnect(self) -> bool:
        # Nothing must be due to a client that was there all the time, nor be lost on the way.
        before = [client.connections for client in self.clients]
        for client in self.clients:
            client.leaving = True

        def back() -> bool:
            there = zip(self.clients, before, strict=True)
            return self._quiet() and all(client.connections > count for client, count in there)

        return await wait_for(back, s.QUIET_S_MAX)

    def _quiet(self) -> bool:
        return all(client.flow.logged_on and not client.flow.pending for client in self.clients)

    def _unanswered(self) -> dict[str, list[int]]:
        return {
            client.flow.session: sorted(client.flow.pending)[:5]
            for client in self.clients
            if client.flow.pending or not client.flow.logged_on
        }

    def _write(self, problem: str) -> None:
        counts: Counter[str] = Counter()
        for client in self.clients:
            counts.update(client.flow.counts)
            counts["connections"] += client.connections
        result = {"problem": problem, "counts": dict(counts)}
        (self.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


async def serve(folder: Path) -> int:
    """Run the load of a folder."""
    load = Load(Settings.read(folder / "settings.json"), folder)
    return await load.run(await standard_input())


def main(arguments: list[str]) -> int:
    """Be the load process."""
    return asyncio.run(serve(Path(arguments[0])))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
