"""The load generator: a process of its own, niced, confined to one core, told what to do line by
line. Cold Python.

    bench process ──one JSON request per line──▶ generator ──TCP, rings, UDP──▶ system, or its floor
                  ◀──one JSON result per line───

The same process, with the same priority on the same core, drives the exchange and the floor it is
compared with. It ends when its standard input does. Every result carries `fault`: why it must not
be used, or an empty text.
"""

import argparse
import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from bench.floors.echo import multicast_receiver
from bench.measure import percentiles_us
from bench.reports import faults_of, outcome_of
from bench.rings import RingClient, outcome_void
from bench.system import cpu_ns
from bench.wire import (
    Answers,
    Echoes,
    Stream,
    clear_book,
    connect,
    drive,
    fresh_answers,
    logon,
    ping,
    stream_of,
)
from bench.workload import TradeTally, named, to_commands
from engine.jit import warm_up

NICE = 5
STAGES = (
    "client to gateway",
    "gateway to shard",
    "shard to event ring",
    "event ring to report",
    "report to client",
)
_RECEIPT = re.compile(rb'"receipt":\[(\d+),(\d+),(\d+),(\d+)\]')
_MOLD_HEADER = struct.Struct(">10sQH")
_SETTLE_S = 0.05


class GeneratorError(RuntimeError):
    """The load generator could not do what it was told."""


class Generator:
    """The parent's end: `call` runs one of OPERATIONS over there."""

    def __init__(self, core: int, nice: int = NICE) -> None:
        command = [sys.executable, "-m", "bench.generator", f"--core={core}", f"--nice={nice}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.core = core

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation and wait for its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(orjson.dumps([operation, arguments]) + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise GeneratorError(f"the load generator ended during {operation}")
        result: dict[str, Any] = orjson.loads(answer)
        if "error" in result:
            raise GeneratorError(f"{operation}: {result['error']}")
        return result

    def close(self) -> None:
        """End it and wait."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --------------------------------------------------------------------------- in the other process
_sessions = iter(range(10_000))


def _session_name() -> str:
    # Never used before on this exchange, by another generator either: client ids begin at 1 again.
    return f"{os.getpid() & 0xFFFF:04x}{next(_sessions):04d}"


def _new_session(host: str, port: int, token: str) -> socket.socket:
    return logon(host, port, _session_name(), "bench", token)


def _answer_fault(answers: Answers, stream: Stream) -> str:
    faults = faults_of(answers.matcher)
    if faults:
        return f"{faults}: {answers.refusals}" if answers.refusals else faults
    return outcome_void(outcome_of(answers.matcher), stream.expected)


class _CpuUse:
    """CPU time per operation of this process and of others, over a block."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = {"generator": os.getpid(), **pids}
        self.ns_per_operation: dict[str, float] = {}

    def start(self) -> None:
        self._before = {name: cpu_ns(pid) for name, pid in self._pids.items()}

    def stop(self, operations: int) -> None:
        for name, pid in self._pids.items():
            used = cpu_ns(pid) - self._before[name]
            self.ns_per_operation[name] = round(used / operations, 1)


def bulk(
    host: str,
    port: int,
    token: str,
    mix: str,
    operations: int | None,
    window: int,
    pids: dict[str, int],
) -> dict[str, Any]:
    """Send a workload as fast as the window lets it; every order acknowledged, answer checked."""
    stream, cpu = stream_of(mix, operations), _CpuUse(pids)
    answers = fresh_answers(stream)
    with _new_session(host, port, token) as sock:
        drive(sock, stream.fill, answers, window=window)
        time.sleep(_SETTLE_S)
        cpu.start()
        seconds = drive(sock, stream.lines, answers, window=window)
        cpu.stop(stream.lines.ends.size)
        fault = _answer_fault(answers, stream)
        clear_book(sock, answers, stream.symbols)
    return {
        "per_s": stream.lines.ends.size / seconds,
        "orders": stream.lines.ends.size,
        "fault": fault,
        "cpu_ns": cpu.ns_per_operation,
    }


def echo_bulk(
    host: str, port: int, mix: str, operations: int | None, window: int, pids: dict[str, int]
) -> dict[str, Any]:
    """Send the same bytes to the echo."""
    lines, cpu = stream_of(mix, operations).lines, _CpuUse(pids)
    with connect(host, port) as sock:
        cpu.start()
        seconds = drive(sock, lines, Echoes(lines.data, lines.ends), window=window)
        cpu.stop(lines.ends.size)
    return {"per_s": lines.ends.size / seconds, "fault": "", "cpu_ns": cpu.ns_per_operation}


def rate(
    host: str, port: int, token: str, mix: str, operations: int, per_s: float, window: int
) -> dict[str, Any]:
    """Open loop at a fixed rate: percentiles from the planned times, and the rate achieved."""
    stream = stream_of(mix, operations)
    answers = fresh_answers(stream)
    count = stream.lines.ends.size
    with _new_session(host, port, token) as sock:
        drive(sock, stream.fill, answers, window=window)
        time.sleep(_SETTLE_S)
        plan = time.monotonic_ns() + 1_000_000 + (np.arange(count) * (1e9 / per_s)).astype(np.int64)
        seconds = drive(sock, stream.lines, answers, window=window, plan=plan)
        fault = _answer_fault(answers, stream)
        clear_book(sock, answers, stream.symbols)
    latencies = answers.matcher.answered_ns[-count:] - plan
    return percentiles_us(latencies) | {"achieved_per_s": count / seconds, "fault": fault}


def round_trip(
    host: str, port: int, token: str, mix: str, operations: int, per_s: float
) -> dict[str, Any]:
    """Send one order after the other at planned times, each awaited."""
    stream = stream_of(mix, operations)
    lines = stream.lines.each()
    answers = fresh_answers(stream)
    with _new_session(host, port, token) as sock:
        drive(sock, stream.fill, answers, window=1024)
        done = ping(sock, lines, [_own_id(line) for line in lines], int(1e9 / per_s))
        for chunk in done.chunks:
            answers.feed(chunk)
        fault = _answer_fault(answers, stream)
        clear_book(sock, answers, stream.symbols)
    return percentiles_us(done.latencies_ns) | {"fault": fault}


def stages(
    host: str, port: int, token: str, mix: str, operations: int, per_s: float
) -> dict[str, Any]:
    """Round trips into an empty book, with receipts: how long each stage had an order."""
    fill = stream_of(mix, None).fill
    lines = fill.part(0, min(operations, fill.ends.size)).each()
    with logon(host, port, _session_name(), "bench", token, receipts=True) as sock:
        done = ping(sock, lines, [_own_id(line) for line in lines], int(1e9 / per_s))
        ping(sock, [b'{"type":"mass_cancel"}\n'], [b'"summary"'], 1)
    found = [_RECEIPT.search(chunk) for chunk in done.chunks]
    missing = sum(match is None for match in found)
    if missing:
        return {"fault": f"{missing} answers without a receipt"}
    stamps = np.array([[int(n) for n in match.groups()] for match in found if match], np.int64)
    received = done.planned_ns + done.latencies_ns
    edges = np.column_stack([done.planned_ns, stamps, received])
    taken = np.diff(edges, axis=1)
    fault = "" if (taken >= 0).all() else "receipts run backwards"
    named_stages = zip(STAGES, taken.T, strict=True)
    return {"stages": {name: percentiles_us(ns) for name, ns in named_stages}, "fault": fault}


def _own_id(line: bytes) -> bytes:
    # The client id as the answer will name it: the order's own, for a cancel its target.
    number = line.partition(b'id":')[2].partition(b",")[0].rstrip(b"}\n")
    return b'"id":%s,' % number


def echo_round_trip(
    host: str, port: int, mix: str, operations: int, per_s: float
) -> dict[str, Any]:
    """Do the same with the echo."""
    lines = stream_of(mix, operations).lines.each()
    with connect(host, port) as sock:
        done = ping(sock, lines, [b"}\n"] * len(lines), int(1e9 / per_s))
    fault = "" if done.chunks == lines else "the echo returned other bytes"
    return percentiles_us(done.latencies_ns) | {"fault": fault}


def feed_delay(
    host: str,
    port: int,
    token: str,
    group: str,
    feed_port: int,
    interface: str,
    operations: int,
    per_s: float,
) -> dict[str, Any]:
    """Send resting orders and await each one's Add message on multicast."""
    with (
        multicast_receiver(group, feed_port, interface) as receiver,
        _new_session(host, port, token) as sock,
    ):
        latencies, packets = _feed_series(sock, receiver, _feed_orders(operations), per_s)
        answers = fresh_answers(stream_of("tiny", None))
        clear_book(sock, answers, ["AAPL"])
    wrong = 0
    for k, packet in enumerate(packets):
        _, _, count = _MOLD_HEADER.unpack_from(packet)
        message = packet[_MOLD_HEADER.size + 2 :]
        shares, price = int.from_bytes(message[20:24]), int.from_bytes(message[32:36])
        wrong += count < 1 or message[:1] != b"A" or shares != k % 90 + 1 or price != 1_000_000
    fault = f"{wrong} datagrams did not carry the order just sent" if wrong else ""
    return percentiles_us(latencies) | {"fault": fault}


def relay_delay(
    host: str, port: int, group: str, feed_port: int, interface: str, operations: int, per_s: float
) -> dict[str, Any]:
    """Send the same bytes to the relay and await each datagram."""
    lines = _feed_orders(operations)
    with (
        multicast_receiver(group, feed_port, interface) as receiver,
        connect(host, port) as sock,
    ):
        latencies, packets = _feed_series(sock, receiver, lines, per_s)
    fault = "" if packets == lines else "the relay sent other bytes"
    return percentiles_us(latencies) | {"fault": fault}


def _feed_orders(count: int) -> list[bytes]:
    line = b'{"type":"new","id":%d,"symbol":"AAPL","side":"buy","price":100.00,"qty":%d}\n'
    return [line % (k + 1, k % 90 + 1) for k in range(count)]


def _feed_series(
    sock: socket.socket, receiver: socket.socket, lines: list[bytes], per_s: float
) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    # One order at each planned time; then the first datagram that is no heartbeat.
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 5, 0))
    sock.setblocking(False)
    latencies, packets = np.zeros(len(lines), np.int64), []
    interval = int(1e9 / per_s)
    plan = time.monotonic_ns() + interval
    for k, line in enumerate(lines):
        while time.monotonic_ns() < plan:
            os.sched_yield()
        sock.send(line)
        packet = receiver.recv(2048)
        while len(packet) == _MOLD_HEADER.size:
            packet = receiver.recv(2048)
        latencies[k] = time.monotonic_ns() - plan
        packets.append(packet)
        with contextlib.suppress(BlockingIOError):
            sock.recv(65536)  # the private reports: not what is measured here
        plan += interval
    return latencies, packets


def ring_paced(instance: str, mix: str, operations: int, per_s: float) -> dict[str, Any]:
    """Commands into the shard's ring at planned times, events out of its ring; no gateway."""
    with _RingRun(instance, mix, operations) as run:
        latencies = run.client.paced(run.commands, int(1e9 / per_s))
        run.end()
    return percentiles_us(latencies) | {"fault": run.fault}


def ring_bulk(instance: str, mix: str, operations: int | None) -> dict[str, Any]:
    """A workload through the shard's rings as fast as the window lets it, the answer checked."""
    stream = stream_of(mix, operations)
    with _RingRun(instance, mix, operations) as run:
        seconds = run.client.run(run.commands, run.tally)
        fault = outcome_void(run.tally.outcome, stream.expected)
        run.end()
    return {"per_s": run.commands.size / seconds, "fault": fault or run.fault}


class _RingRun:
    """A ring client with a fresh session and the workload's book filled."""

    def __init__(self, instance: str, mix: str, operations: int | None) -> None:
        workload, self.tally, self.fault = named(mix), TradeTally(), ""
        self.client = RingClient(instance)
        self.client.open_session(_session_name())
        self._ids = self.client.symbol_ids(workload.mix.symbols)
        end = None if operations is None else workload.prefill + operations
        commands = self.client.own(to_commands(workload.records[:end], self._ids))
        self.client.run(commands[: workload.prefill], self.tally)
        self.commands = commands[workload.prefill :]

    def end(self) -> None:
        """Empty the book for the next run."""
        self.client.clear_book(self._ids)
        if self.client.reader.laps:
            self.fault = f"lapped {self.client.reader.laps} times"

    def __enter__(self) -> "_RingRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()


OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        bulk,
        echo_bulk,
        rate,
        round_trip,
        echo_round_trip,
        stages,
        feed_delay,
        relay_delay,
        ring_paced,
        ring_bulk,
    )
}


def _serve() -> None:
    for line in sys.stdin.buffer:
        operation, arguments = orjson.loads(line)
        try:
            result = OPERATIONS[operation](**arguments)
        except Exception as error:  # told to the parent, who decides
            result = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        sys.stdout.buffer.flush()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--nice", type=int, default=NICE)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    os.nice(options.nice)
    warm_up()  # nothing compiles while something is measured
    _serve()


if __name__ == "__main__":
    _main()
