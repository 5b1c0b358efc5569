"""One client on TCP: logs on, keeps asking, writes down every line, comes back after a loss.

The head is Flow; here are the socket and the log. A log line is written before its bytes leave, so
the exchange cannot have a request that the log does not show.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TextIO

from tests.system.nemesis import settings as s
from tests.system.nemesis.flow import Flow, Message
from tests.system.nemesis.settings import Settings

LINE_BYTES_MAX = 1 << 20
TURN_S = 0.005  # how often a client looks for something to send
BURST_MAX = 10  # requests owed after a pause are not all made up for


class Client:
    """A session and its present connection."""

    def __init__(self, settings: Settings, flow: Flow, folder: Path) -> None:
        self.settings, self.flow, self.folder = settings, flow, folder
        self.connections = 0
        self.generating = True
        self.leaving = False  # log out, then come back
        self.stopping = False  # log out and end
        self.heard = 0.0
        self.said = 0.0
        self.started = False  # logged on once
        self._log: TextIO | None = None
        self._writer: asyncio.StreamWriter | None = None

    # --------------------------------------------------------------------- log and socket
    def _note(self, direction: str, data: str) -> None:
        assert self._log is not None
        entry = {"t": time.monotonic_ns(), "dir": direction, "data": data}
        self._log.write(json.dumps(entry) + "\n")

    def _send(self, *lines: Message) -> None:
        assert self._writer is not None
        if lines and self._writer.is_closing():
            raise ConnectionResetError("the connection is gone")
        for line in lines:
            text = json.dumps(line, separators=(",", ":"))
            self._note("out", text)
            self._writer.write(text.encode() + b"\n")
        self.said = time.monotonic()

    async def run(self, deadline: float) -> None:
        """Connect again and again until told to stop."""
        while not self.stopping and time.monotonic() < deadline:
            try:
                async with asyncio.timeout(s.CONNECT_S):
                    reader, self._writer = await asyncio.open_connection(
                        self.settings.host, self.settings.port, limit=LINE_BYTES_MAX
                    )
            except (OSError, TimeoutError):
                await asyncio.sleep(s.RETRY_S)
                continue
            await self._connection(reader, deadline)
            self.leaving = False
            await asyncio.sleep(s.RETRY_S)

    async def _connection(self, reader: asyncio.StreamReader, deadline: float) -> None:
        name = f"{self.flow.account}-{self.flow.session}-{self.connections:04d}.jsonl"
        self.connections += 1
        assert self._writer is not None
        with (self.folder / name).open("w") as self._log:
            self._note("open", f"{self.settings.host}:{self.settings.port}")
            hearing = asyncio.create_task(self._hear(reader))
            why = "log off"
            try:
                why = await self._talk(hearing, deadline)
            except OSError as error:
                why = repr(error)
            finally:
                hearing.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await hearing
                self._writer.transport.abort()
                self._note("closed" if why == "" else "lost", why)
                self.flow.lost()

    async def _hear(self, reader: asyncio.StreamReader) -> str:
        # Until the connection ends; returns why.
        while True:
            try:
                line = await reader.readline()
            except (OSError, ValueError) as error:
                return repr(error)
            if not line.endswith(b"\n"):
                return f"ended by the exchange, {len(line)} bytes of a line"
            self.heard = time.monotonic()
            text = line.decode("utf-8", "backslashreplace").rstrip("\n")
            self._note("in", text)
            try:
                self.flow.take(json.loads(text), self.heard)
            except (ValueError, KeyError, TypeError) as error:  # the checker sees the line, too
                self.flow.counts[f"not understood: {error!r}"] += 1

    # --------------------------------------------------------------------- talking
    async def _talk(self, hearing: asyncio.Task[str], deadline: float) -> str:
        # One connection from logon to its end; "" when it was we who ended it, in order.
        began = self.heard = time.monotonic()
        self._send(self.flow.logon())
        owed, before = 0.0, began
        while not hearing.done():
            now = time.monotonic()
            if now > deadline:
                return "out of time"
            if now - self.heard > s.SILENCE_S:
                return "nothing heard"
            if not self.flow.logged_on and now - began > s.LOGON_S:
                return "no logon answer"
            self.started = self.started or self.flow.logged_on
            owed = min(owed + (now - before) * self.settings.rate, BURST_MAX)
            before = now
            if self.flow.logged_on:
                owed = self._ask(owed, now)
                if (self.stopping or self.leaving) and not self.flow.pending:
                    return await self._log_off(hearing)
            await self._flushed()
            await asyncio.wait({hearing}, timeout=TURN_S)
        return hearing.result()

    def _ask(self, owed: float, now: float) -> float:
        self._send(*self.flow.repeats(now))
        while self.generating and owed >= 1 and self.flow.may_ask:
            self._send(self.flow.request(now))
            owed -= 1
        if now - self.said > s.HEARTBEAT_S:
            self._send({"type": "heartbeat"})
        return owed

    async def _flushed(self) -> None:
        assert self._writer is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(s.SILENCE_S):
                await self._writer.drain()

    async def _log_off(self, hearing: asyncio.Task[str]) -> str:
        self._send({"type": "logout"})
        await self._flushed()
        done, _ = await asyncio.wait({hearing}, timeout=s.LOGON_S)
        return "" if done else "the logout was not answered"

    def ask_instruments(self) -> None:
        """Ask for step sizes, which the checker reads from the log."""
        if self.flow.logged_on:
            self._send({"type": "instruments"})
