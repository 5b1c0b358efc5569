"""Bad input against the running exchange: codes, disconnects, an unchanged book, others served on.

The rows of tests/gateway/test_bad_input.py over real sockets, and what needs a real system: a full
book, a shard that does not take commands, readers that do not read, thousands of idle connections,
a flood beside an honest client.
"""

import contextlib
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from engine.counters import Counters
from tests.gateway.test_bad_input import ROWS
from tests.system.running import Running, running_exchange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ORDERS_MAX = 3000
EXTRA = f"""unknown_symbol = "create"
[shard]
orders_max = {ORDERS_MAX}
[gateway]
output_burst_bytes = 4_000_000
[[instruments]]
symbol = "AAPL"
[[instruments]]
symbol = "TICK5"
tick = "0.05"
lot = "10"
[[accounts]]
name = "demo"
account = 1
token = "demo"
throttle = "unlimited"
[[accounts]]
name = "alice"
account = 2
token = "alice"
throttle = "unlimited"
[[accounts]]
name = "fast"
account = 3
token = "fast"
throttle = "normal"
[[throttles]]
name = "normal"
[[throttles]]
name = "unlimited"
orders_per_s = 0
cancels_per_s = 0
"""
ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "price": "100.00"}
CANCEL = {"type": "cancel", "symbol": "AAPL", "order_id": 5}  # of nothing: 501


class Line:
    """A raw connection, logged on unless told otherwise."""

    def __init__(
        self,
        port: int,
        account: str = "demo",
        session: str = "",
        receive: int = 0,
        **options: Any,
    ) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(20)
        if receive:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        if session:
            logon = {"type": "logon", "account": account, "token": account, "session": session}
            self.send(orjson.dumps({**logon, **options}))
            self.logon = self.hear()
            assert self.logon["type"] == "logon", self.logon

    def send(self, data: bytes | dict[str, Any]) -> None:
        self.sock.sendall((data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n")

    def hear(self) -> dict[str, Any]:
        """The next line that is no heartbeat and not about another session."""
        while True:
            text = self.file.readline()
            if not text:
                raise ConnectionError("closed")
            line = orjson.loads(text)
            if line["type"] not in ("heartbeat", "account"):
                assert isinstance(line, dict)
                return line

    def ask(self, data: bytes | dict[str, Any]) -> dict[str, Any]:
        """Send, and hear the report that ends the answer (or the only line of it)."""
        self.send(data)
        while True:
            line = self.hear()
            if line.get("last") or "seq" not in line:
                return line

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_exchange(tmp_path_factory.mktemp("bad"), EXTRA) as running:
        yield running


@pytest.fixture(scope="module")
def honest(exchange: Running) -> Iterator[Line]:
    """The other client, with an order in the book."""
    with Line(exchange.port, "alice", "honest", heartbeat=60) as line:
        assert line.ask({**ORDER, "price": "90", "qty": 7})["type"] == "booked"
        yield line


def picture(line: Line) -> list[Any]:
    """The book as everybody sees it."""
    book = line.ask({"type": "book", "symbol": "AAPL"})
    return [book["bids"], book["asks"], book["trades"]]


def counter(exchange: Running, block: str, label: str) -> int:
    """One counter of a running process."""
    counters = Counters.open(exchange.config.instance)
    try:
        return counters.block(block).get(label)
    finally:
        counters.close()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that is going to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_every_bad_line_gets_its_code_and_leaves_the_book(exchange: Running, honest: Line) -> None:
    before = picture(honest)
    with Line(exchange.port, "demo", "bad") as line:
        for name, (data, code) in ROWS.items():
            line.send(data)
            answer = line.hear()
            assert (name, answer.get("code")) == (name, code), answer
            assert line.ask({"type": "limits"})["type"] == "limits"
    assert picture(honest) == before


def test_price_beyond_the_instrument_is_103(exchange: Running) -> None:
    with Line(exchange.port, "demo", "bad") as line:
        assert line.ask({**ORDER, "price": "429496.73"})["code"] == 103


def test_garbage_and_endless_lines_end_the_connection(exchange: Running, honest: Line) -> None:
    before = picture(honest)
    stranger = Line(exchange.port)
    stranger.sock.sendall(b"\xff\x00garbage\n" * 30)
    codes = []
    with contextlib.suppress(ConnectionError):
        while True:
            codes.append(stranger.hear().get("code"))
    assert codes == [101] * 20 + [None]
    stranger.close()
    with Line(exchange.port, "demo", "endless") as line:
        with contextlib.suppress(ConnectionError):
            line.sock.sendall(b"z" * 1_000_000)
        answers = []
        with contextlib.suppress(ConnectionError):
            while True:
                answers.append(line.hear())
        assert [answer.get("code", answer["type"]) for answer in answers][:1] == [101]
    assert picture(honest) == before


def test_split_and_coalesced_lines_run_once_each(exchange: Running) -> None:
    with Line(exchange.port, "demo", "split") as line:
        first = int(line.logon["last_id"])
        data = b"".join(
            orjson.dumps({**ORDER, "price": "80", "id": first + n}) + b"\n" for n in range(1, 31)
        )
        for start in range(0, len(data), 37):
            line.sock.sendall(data[start : start + 37])
        heard = [line.hear() for _ in range(60)]
        assert [r["id"] for r in heard if r["type"] == "booked"] == list(
            range(first + 1, first + 31)
        )
        assert line.ask({"type": "mass_cancel", "scope": "session"})["count"] == 30


def test_full_book_is_902_and_serves_again_when_there_is_room(
    exchange: Running, honest: Line
) -> None:
    with Line(exchange.port, "demo", "full") as line:
        answers = []
        for _ in range(ORDERS_MAX + 1):
            line.send({**ORDER, "price": "70"})
            answers.append(line.hear())
            if answers[-1].get("code"):
                break
            line.hear()
        assert answers[-1]["code"] == 902
        assert answers[-1]["seq"] > 0
        before = picture(honest)
        assert line.ask({**ORDER, "price": "70"})["code"] == 902
        assert picture(honest) == before
        assert honest.ask({"type": "order", "symbol": "AAPL", "order_id": 77})["code"] == 501
        assert line.ask({"type": "mass_cancel", "scope": "session"})["count"] == len(answers) - 1
        assert line.ask({**ORDER, "price": "70"})["type"] == "booked"
        assert line.ask({"type": "mass_cancel", "scope": "session"})["count"] == 1


def test_full_ring_is_busy_and_nothing_accepted_is_lost(exchange: Running) -> None:
    shard = counter(exchange, "shard0", "pid")
    capacity = exchange.config.rings.command_capacity
    with Line(exchange.port, "demo", "ring") as line:
        first = int(line.logon["last_id"])
        line.sock.settimeout(30)
        os.kill(shard, signal.SIGSTOP)
        try:
            cancel = '{{"type":"cancel","symbol":"AAPL","order_id":5,"id":{}}}\n'
            data = "".join(cancel.format(first + n) for n in range(1, capacity + 201)).encode()
            line.sock.sendall(data)
            busy = line.hear()
            assert (busy["code"], busy["seq"]) == (901, 0)
            refused = busy["id"]
            assert capacity * 0.9 < refused - first <= capacity + 1
        finally:
            os.kill(shard, signal.SIGCONT)
        seen = {901: 1, 501: 0}
        while sum(seen.values()) < capacity + 200:
            seen[line.hear()["code"]] += 1
        assert seen == {901: capacity + 200 - (refused - first - 1), 501: refused - first - 1}
        assert (
            line.ask({"type": "cancel", "symbol": "AAPL", "order_id": 5, "id": refused})["code"]
            == 501
        )


def test_slow_reader_is_dropped_and_others_go_on(exchange: Running, honest: Line) -> None:
    before = counter(exchange, "gateway0", "output_overflows")
    # Without a small receive buffer the kernel takes up to tcp_rmem for a reader that never reads.
    with Line(exchange.port, "alice", "deaf", receive=4096, cancel_on_disconnect="all"):
        for _ in range(200):  # of the same account: its reports go to the deaf session too
            honest.send(
                b"\n".join(
                    orjson.dumps({"type": "cancel", "symbol": "AAPL", "order_id": 5})
                    for _ in range(1000)
                )
            )
            answered = 0
            while answered < 1000:  # beside them: the summary of the deaf session's end
                answered += honest.hear().get("code") == 501
            if counter(exchange, "gateway0", "output_overflows") > before:
                break
        assert counter(exchange, "gateway0", "output_overflows") == before + 1


def test_flood_over_the_rate_is_refused_then_logged_out(exchange: Running) -> None:
    with Line(exchange.port, "fast", "flood") as line:
        line.sock.sendall(b'{"type":"cancel","symbol":"AAPL","order_id":5}\n' * 12_000)
        codes: dict[Any, int] = {}
        with contextlib.suppress(ConnectionError):
            while True:
                answer = line.hear()
                key = answer.get("code", answer["type"])
                codes[key] = codes.get(key, 0) + 1
        assert set(codes) <= {501, 206, "logout"}
        assert 2900 < codes[501] < 4500  # a bucket of 3 s of 1000, and what refills meanwhile


def round_trips(line: Line, count: int = 150) -> float:
    """The 99th percentile of so many round trips, in seconds."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        line.ask(CANCEL)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[count * 99 // 100]


def ratio_of_pairs(
    line: Line, on: Callable[[], None], off: Callable[[], None], pairs: int
) -> float:
    """Median over interleaved pairs of (p99 with the disturbance / p99 without)."""
    ratios = []
    for _ in range(pairs):
        quiet = round_trips(line)
        on()
        disturbed = round_trips(line)
        off()
        ratios.append(disturbed / quiet)
    return statistics.median(ratios)


def test_thousands_of_idle_connections_are_closed_and_disturb_nobody(
    exchange: Running, honest: Line
) -> None:
    idle: list[socket.socket] = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # many systems give 1024 unasked
    count = min(2000, hard - 300)
    assert count >= 500, f"ulimit -Hn {hard} leaves no room for this test"

    def on() -> None:
        for _ in range(count):
            idle.append(socket.create_connection(("127.0.0.1", exchange.port)))
        until(lambda: counter(exchange, "gateway0", "connections") >= count)

    def off() -> None:
        for sock in idle:
            sock.close()
        idle.clear()
        until(lambda: counter(exchange, "gateway0", "connections") < 10)

    assert ratio_of_pairs(honest, on, off, 9) < 3
    start = time.monotonic()
    on()
    for sock in idle:  # the logon that never comes
        sock.settimeout(20)
        assert b"no logon within" in sock.recv(4096)
        assert sock.recv(4096) == b""
    assert 4 < time.monotonic() - start < 15
    off()


FLOOD = """
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b'{"type":"logon","account":"demo","token":"demo","session":"garbage"}\\n')
s.recv(4096)
s.setblocking(False)
import select
while True:
    readable, writable, _ = select.select([s], [s], [])
    if readable and not s.recv(1 << 20): break
    if writable: s.send(b'{"symbol":"AAPL","side":"sideways"}\\n' * 50)
"""


def test_flood_of_bad_lines_leaves_another_client_its_latency(
    exchange: Running, honest: Line
) -> None:
    before = counter(exchange, "gateway0", "rejects")
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(exchange.port)])
    try:
        until(lambda: counter(exchange, "gateway0", "rejects") > before + 1000)
        flood.send_signal(signal.SIGSTOP)
        ratio = ratio_of_pairs(
            honest,
            lambda: flood.send_signal(signal.SIGCONT),
            lambda: flood.send_signal(signal.SIGSTOP),
            5,
        )
        assert ratio < 3
    finally:
        flood.kill()
        flood.wait()
