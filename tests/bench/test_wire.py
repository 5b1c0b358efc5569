"""The load generator: it sends what it plans, and notices when an answer is missing or wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from bench.floors.echo import echo_server
from bench.generator import Generator, GeneratorError
from bench.measure import cores_available
from bench.wire import Echoes, WireError, connect, drive, fresh_answers, ping, stream_of

LINES = stream_of("tiny", None).lines


@contextmanager
def _server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            serve(sock)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(timeout=10)
        listener.close()


def _echo_all(sock: socket.socket) -> None:
    while chunk := sock.recv(65536):
        sock.sendall(chunk)


def test_stream_is_cut_at_the_prefill_and_knows_its_outcome() -> None:
    whole, part = stream_of("tiny", None), stream_of("tiny", 700)
    assert whole.expected == whole.workload.outcome
    assert whole.fill.ends.size == whole.workload.prefill
    assert part.lines.ends.size == 700
    assert part.expected.trades < whole.expected.trades
    assert bytes(part.lines.data) == bytes(whole.lines.data[: len(part.lines.data)])
    assert b"".join(part.lines.each()) == bytes(part.lines.data)


@pytest.mark.parametrize("window", [1, 7, 100_000])
def test_drive_sends_every_byte_and_waits_for_every_answer(window: int) -> None:
    part = LINES.part(0, 300)
    with _server(_echo_all) as port, connect("127.0.0.1", port) as sock:
        assert drive(sock, part, Echoes(part.data, part.ends), window=window) > 0


def test_drive_never_has_more_than_the_window_unanswered() -> None:
    most = 0

    def serve(sock: socket.socket) -> None:
        nonlocal most
        sock.settimeout(5)
        held = b""
        while chunk := sock.recv(65536):
            held += chunk
            most = max(most, held.count(b"\n"))
            end = held.find(b"\n") + 1  # answer one line at a time
            sock.sendall(held[:end])
            held = held[end:]
            while b"\n" in held and most < 8:
                end = held.find(b"\n") + 1
                sock.sendall(held[:end])
                held = held[end:]

    part = LINES.part(0, 4)
    with _server(serve) as port, connect("127.0.0.1", port) as sock:
        drive(sock, part, Echoes(part.data, part.ends), window=4)
    assert 1 <= most <= 4


def test_drive_keeps_to_the_plan() -> None:
    part = LINES.part(0, 20)
    plan = time.monotonic_ns() + np.arange(20) * 2_000_000
    with _server(_echo_all) as port, connect("127.0.0.1", port) as sock:
        drive(sock, part, Echoes(part.data, part.ends), window=100, plan=plan)
        assert time.monotonic_ns() >= plan[-1]


def test_other_bytes_and_a_hang_up_are_errors() -> None:
    part = LINES.part(0, 50)

    def lie(sock: socket.socket) -> None:
        sock.sendall(bytes(sock.recv(64)).upper())
        sock.recv(1 << 20)

    with _server(lie) as port, connect("127.0.0.1", port) as sock:
        with pytest.raises(WireError, match="other bytes"):
            drive(sock, part, Echoes(part.data, part.ends), window=100)
    with _server(lambda sock: None) as port, connect("127.0.0.1", port) as sock:
        with pytest.raises((WireError, OSError)):
            drive(sock, part, Echoes(part.data, part.ends), window=100)


def test_answers_keep_the_text_of_refusals_for_the_report() -> None:
    answers = fresh_answers(stream_of("tiny", None))
    line = b'{"type":"rejected","seq":0,"id":1,"code":301,"text":"unknown symbol"}\n'
    answers.feed(line)
    assert answers.refusals == [line.decode().strip()]


def test_ping_counts_from_the_plan() -> None:
    def slow(sock: socket.socket) -> None:
        chunk = sock.recv(65536)
        time.sleep(0.05)  # a stall: the next orders are late, and their latency must say so
        sock.sendall(chunk)
        _echo_all(sock)

    with _server(slow) as port, connect("127.0.0.1", port) as sock:
        done = ping(sock, LINES.part(0, 10).each(), [b"}\n"] * 10, 1_000_000)
    assert done.latencies_ns[0] > 45_000_000
    assert done.latencies_ns[5] > 35_000_000
    assert [len(c) > 0 for c in done.chunks] == [True] * 10


def test_ping_reads_on_until_the_answer_to_its_own_order_is_there() -> None:
    def chatty(sock: socket.socket) -> None:
        for k in range(3):
            sock.recv(65536)
            sock.sendall(b'{"type":"heartbeat"}\n')
            time.sleep(0.02)
            sock.sendall(b'{"type":"accepted","id":%d,"last":true}\n' % k)

    with _server(chatty) as port, connect("127.0.0.1", port) as sock:
        done = ping(sock, [b"x\n"] * 3, [b'"id":%d,' % k for k in range(3)], 1_000_000)
    assert done.latencies_ns.min() > 15_000_000
    assert b'"id":1,' in done.chunks[1]


@pytest.mark.later
def test_generator_process_measures_the_echo_and_ends_with_its_block() -> None:
    core = cores_available()[0]
    with echo_server(core) as echo, Generator(core) as generator:
        work = {"host": "127.0.0.1", "port": echo.port, "mix": "tiny"}
        pids = {"echo": echo.process.pid}
        bulk = generator.call("echo_bulk", operations=None, window=512, pids=pids, **work)
        paced = generator.call("echo_round_trip", operations=50, per_s=2000, **work)
    assert bulk["per_s"] > 0
    assert not bulk["fault"]
    assert set(bulk["cpu_ns"]) == {"echo", "generator"}
    assert all(ns > 0 for ns in bulk["cpu_ns"].values())
    assert 0 < paced["p50"] <= paced["p99"] <= paced["max"]
    assert not paced["fault"]


@pytest.mark.later
def test_generator_reports_an_error_and_lives_on() -> None:
    core = cores_available()[0]
    with Generator(core) as generator:
        work = {"host": "127.0.0.1", "mix": "tiny", "operations": 10, "window": 4, "pids": {}}
        with pytest.raises(GeneratorError, match="ConnectionRefused"):
            generator.call("echo_bulk", port=9, **work)
        with echo_server(core) as echo:
            result = generator.call("echo_bulk", port=echo.port, **work)
    assert not result["fault"]
