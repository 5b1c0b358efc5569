"""What a load generator does on a TCP connection; runs in a process of its own
(bench/generator.py). Cold Python.

One session, one socket, no threads. `drive` is the only sending loop, used for the exchange and
for the echo floor alike:

    plan given   open loop: an operation is sent when its planned time has come, answered or not,
                 and its latency counts from the plan: no stall, ours or the system's, is hidden
    no plan      as fast as the window lets it

The window bounds operations sent and not yet answered. It has to: the exchange's own bounds
(command ring, output cap of a session) answer BUSY or hang up beyond, by design. Answers are
matched by client id in compiled code (bench/reports.py).
"""

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import orjson

from bench.floors.ladder import run_ladder
from bench.reports import (
    ANSWERED,
    BUFFER_BYTES,
    REJECTED,
    SUMMARY,
    Matcher,
    new_matcher,
    reports_read,
)
from bench.workload import Outcome, Workload, named, symbol_name, to_json_lines

SEND_BYTES_MAX = 1 << 17
STALL_S = 20.0
_WAIT_MS = 1000


class WireError(RuntimeError):
    """The other side hung up, stalled, or answered what it should not."""


@dataclass(frozen=True)
class Lines:
    """Bytes to send, and where each line ends."""

    data: memoryview
    ends: npt.NDArray[np.int64]

    def part(self, first: int, end: int) -> "Lines":
        """Lines first .. end - 1."""
        begin = int(self.ends[first - 1]) if first else 0
        last = int(self.ends[end - 1]) if end else 0
        return Lines(self.data[begin:last], self.ends[first:end] - begin)

    def each(self) -> list[bytes]:
        """Return every line by itself."""
        begins = [0, *self.ends[:-1].tolist()]
        return [bytes(self.data[a:b]) for a, b in zip(begins, self.ends.tolist(), strict=True)]


@dataclass(frozen=True)
class Stream:
    """A workload encoded for the wire, and what must come of it."""

    workload: Workload
    fill: Lines  # fills the book, untimed
    lines: Lines
    expected: Outcome

    @property
    def symbols(self) -> list[str]:
        return [symbol_name(i) for i in range(self.workload.mix.symbols)]

    @property
    def count(self) -> int:
        return self.fill.ends.size + self.lines.ends.size


@lru_cache(maxsize=2)
def stream_of(name: str, operations: int | None) -> Stream:
    """Encode a named workload (its first `operations` after the prefill) for the wire."""
    workload = named(name)
    count = workload.records.size
    if operations is not None:
        count = min(count, workload.prefill + operations)
    lines = to_json_lines(workload.records[:count])
    expected = workload.outcome
    if count < workload.records.size:
        expected = run_ladder(workload, count - workload.prefill)[1]
    ends = np.fromiter(accumulate(map(len, lines)), np.int64, count)
    every = Lines(memoryview(b"".join(lines)), ends)
    fill = every.part(0, workload.prefill)
    return Stream(workload, fill, every.part(workload.prefill, count), expected)


def connect(host: str, port: int) -> socket.socket:
    """Return a connected socket without Nagle's delay."""
    sock = socket.create_connection((host, port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def logon(
    host: str, port: int, session: str, account: str, token: str, *, receipts: bool = False
) -> socket.socket:
    """Connect and log on; returns the socket once the exchange said yes."""
    sock = connect(host, port)
    request: dict[str, str | bool] = {"type": "logon", "account": account, "token": token}
    request |= {"session": session, "receipts": receipts}
    sock.sendall(orjson.dumps(request) + b"\n")
    received = b""
    while b"\n" not in received:
        chunk = sock.recv(65536)
        if not chunk:
            raise WireError("the gateway hung up at logon")
        received += chunk
    answer = orjson.loads(received.split(b"\n")[0])
    if answer.get("type") != "logon":
        raise WireError(f"logon refused: {answer}")
    return sock


class Answers:
    """The exchange's side of `drive`: matches what comes to the operations."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.refusals: list[str] = []
        self._view = memoryview(matcher.buffer)  # type: ignore[arg-type]
        self._held = 0
        self._rejects = 0

    def room(self) -> memoryview:
        return self._view[self._held :]

    def take(self, size: int, now: int) -> int:
        """Match what came; returns how many operations are answered altogether."""
        end = self._held + size
        used = int(reports_read(self.matcher, end, now))
        if used == 0 and end == BUFFER_BYTES:
            raise WireError("a line longer than the receive buffer")
        if self.matcher.counts[REJECTED] != self._rejects:
            self._rejects = int(self.matcher.counts[REJECTED])
            self._keep_refusal(bytes(self._view[:used]))
        self._held = end - used
        self._view[: self._held] = self._view[used:end]
        return int(self.matcher.counts[ANSWERED])

    def feed(self, chunk: bytes, now: int = 1) -> None:
        """Match bytes that were received elsewhere."""
        self.room()[: len(chunk)] = chunk
        with np.errstate(over="ignore"):
            self.take(len(chunk), now)

    def _keep_refusal(self, text: bytes) -> None:
        if len(self.refusals) < 3:
            found = [line for line in text.split(b"\n") if line.startswith(b'{"type":"rejected"')]
            self.refusals += [line.decode("utf-8", "replace") for line in found[:1]]


class Echoes:
    """The floor's side of `drive`: the same bytes must come back."""

    def __init__(self, data: memoryview, ends: npt.NDArray[np.int64]) -> None:
        self._data, self._ends = data, ends
        self._view = memoryview(bytearray(BUFFER_BYTES))
        self._got = 0

    def room(self) -> memoryview:
        return self._view

    def take(self, size: int, now: int) -> int:
        """Compare what came; returns how many lines are back altogether."""
        if self._view[:size] != self._data[self._got : self._got + size]:
            raise WireError("the echo returned other bytes")
        self._got += size
        return int(np.searchsorted(self._ends, self._got, side="right"))


def drive(
    sock: socket.socket,
    lines: Lines,
    side: Answers | Echoes,
    *,
    window: int,
    plan: npt.NDArray[np.int64] | None = None,
) -> float:
    """Send all lines and await every answer; returns seconds from first byte to last answer.

    `side` may have answers from before; plan is CLOCK_MONOTONIC per line.
    """
    sock.setblocking(False)
    poller = select.poll()
    data, ends, count = lines.data, lines.ends, lines.ends.size
    before = side.take(0, 0)
    answered = sent = sent_bytes = 0
    start = last = time.monotonic_ns()
    with np.errstate(over="ignore"):
        while answered < count:
            now = time.monotonic_ns()
            due = count if plan is None else int(np.searchsorted(plan, now, "right"))
            allowed = min(due, answered + window)
            # In bulk, wait for a quarter of the window: many small sends would measure the kernel.
            if allowed - sent >= (window // 4 if plan is None and allowed < count else 1):
                sent = allowed
            limit = int(ends[sent - 1]) if sent else 0
            moved = 0
            if sent_bytes < limit:
                moved = _send(sock, data[sent_bytes : min(limit, sent_bytes + SEND_BYTES_MAX)])
                sent_bytes += moved
            got = _receive(sock, side)
            if got:
                answered = side.take(got, time.monotonic_ns()) - before
            if moved or got:
                last = now
            elif now - last > STALL_S * 1e9:
                raise WireError(f"no answer for {STALL_S} s: {answered} of {count} operations")
            elif plan is not None:
                os.sched_yield()
            else:
                waiting = select.POLLIN | (select.POLLOUT if sent_bytes < limit else 0)
                poller.register(sock, waiting)
                poller.poll(_WAIT_MS)
    return (time.monotonic_ns() - start) / 1e9


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def _receive(sock: socket.socket, side: Answers | Echoes) -> int:
    try:
        got = sock.recv_into(side.room())
    except BlockingIOError:
        return 0
    if got == 0:
        raise WireError("the other side hung up")
    return got


def clear_book(sock: socket.socket, answers: Answers, symbols: list[str]) -> int:
    """Cancel everything of the account in these symbols; returns how many orders that were.

    Symbol by symbol: one cancel of 64,000 orders would overrun the session's output cap.
    """
    counts = answers.matcher.counts
    cleared = 0
    sock.settimeout(STALL_S)
    with np.errstate(over="ignore"):
        for symbol in symbols:
            counts[SUMMARY] = 0
            sock.sendall(b'{"type":"mass_cancel","symbol":"%s"}\n' % symbol.encode())
            while counts[SUMMARY] == 0:
                got = sock.recv_into(answers.room())
                if got == 0:
                    raise WireError("the gateway hung up during a mass cancel")
                answers.take(got, 1)
            cleared += int(counts[SUMMARY]) - 1
    return cleared


@dataclass
class Ping:
    """One paced series: latencies from the plan, and what came for each line."""

    planned_ns: npt.NDArray[np.int64]
    latencies_ns: npt.NDArray[np.int64]
    chunks: list[bytes]


def ping(sock: socket.socket, lines: list[bytes], answers: list[bytes], interval_ns: int) -> Ping:
    """Send each line at its planned time and read until its answer is there; from the plan on.

    answers[k] must appear in what comes for line k. Between lines this client yields its core.
    """
    sock.settimeout(None)  # a plain blocking recv: with a Python timeout it would poll first
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _seconds(STALL_S))
    latencies = np.zeros(len(lines), np.int64)
    chunks: list[bytes] = []
    clock: Callable[[], int] = time.monotonic_ns
    plan = first = clock() + interval_ns
    for k, (line, answer) in enumerate(zip(lines, answers, strict=True)):
        while clock() < plan:
            os.sched_yield()
        sock.send(line)
        chunk = sock.recv(65536)
        while answer not in chunk:  # a heartbeat, the rest of an earlier answer
            more = sock.recv(65536)
            if not more:
                raise WireError("the other side hung up")
            chunk += more
        latencies[k] = clock() - plan
        chunks.append(chunk)
        plan += interval_ns
    return Ping(first + np.arange(len(lines)) * interval_ns, latencies, chunks)


def _seconds(value: float) -> bytes:
    return int(value).to_bytes(8, "little") + (0).to_bytes(8, "little")  # struct timeval


def fresh_answers(stream: Stream) -> Answers:
    """Matcher of one run of a stream."""
    return Answers(new_matcher(stream.workload.records[: stream.count]))
