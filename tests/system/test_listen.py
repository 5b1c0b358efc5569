"""The screens against a running exchange, as somebody at a terminal, or a script, has them."""

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.counters import COLLECTOR_COUNTERS, COLLECTOR_HISTOGRAM, Counters
from tests.system.running import ROOT, Running, configuration, running_exchange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_exchange(tmp_path_factory.mktemp("listen")) as running:
        yield running


def test_client_from_a_pipe_prints_every_outcome(exchange: Running) -> None:
    script = "buy 10 AAPL 180.10\nbook AAPL 3\ncancel 1\ncancel 1\nfly\nsell\n"
    result = exchange.run("client", "--session", "pipe", stdin=script)
    lines = result.stdout.splitlines()
    assert result.returncode == 1, "a refused line must show in the exit code"
    assert lines[0].startswith("accepted   buy  10 AAPL at 180.10  id 1")
    assert any(re.search(r" 10 +180\.10 \|$", line) for line in lines)
    assert any(line.startswith("canceled   buy  10 AAPL at 180.10") for line in lines)
    assert any(line.startswith("UNKNOWN_ORDER (501)") for line in lines)
    assert any("unknown command 'fly'" in line for line in lines)
    assert result.stderr == ""


def test_client_from_a_pipe_ends_well_when_all_went_well(exchange: Running) -> None:
    result = exchange.run("client", "--session", "well", stdin="instruments\norders\nquit\nfly\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert "AAPL" in result.stdout


def test_listen_prints_trades_and_book_from_multicast(exchange: Running, tmp_path: Path) -> None:
    words = ["listen", "AAPL", "--plain", "--config", str(exchange.file)]
    words += ["--pcap", str(tmp_path / "day.pcap"), "--itch", str(tmp_path / "day.itch")]
    listener = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    try:
        assert " book AAPL " in listener.stdout.readline()  # it has joined
        with exchange.client(session="listen") as client:
            order = client.limit("AAPL", "buy", 10, "187.42")
            client.market("AAPL", "sell", 4)
            seen = ""
            deadline = time.monotonic() + 20
            while "bid 187.42 6 (1)" not in seen and time.monotonic() < deadline:
                seen += listener.stdout.readline()
            client.cancel(order)
        assert re.search(r"\d\d:\d\d:\d\d\.\d{6} trade AAPL 187\.42 4 sell\n", seen)
        assert "bid 187.42 6 (1)  ask -" in seen
        listener.send_signal(signal.SIGINT)
        assert listener.wait(20) == 0
        assert (tmp_path / "day.pcap").stat().st_size > 24, "no datagram was recorded"
        # A (36 bytes) and E (31 bytes), each behind two bytes of length.
        assert b"\x00\x24A" in (tmp_path / "day.itch").read_bytes()
        assert b"\x00\x1fE" in (tmp_path / "day.itch").read_bytes()
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()


def test_listen_names_the_symbols_there_are(exchange: Running) -> None:
    result = exchange.run("listen", "NOPE", "--plain", connects=False)
    assert result.returncode == 1
    assert "no symbol NOPE on the directory channel; it names AAPL" in result.stderr


def test_top_shows_every_process_and_ring(exchange: Running) -> None:
    result = exchange.run("top", "--once", connects=False)
    assert result.returncode == 0, result.stderr
    for word in (
        "supervisor",
        "shard0",
        "gateway0",
        "feed",
        "running",
        "command rings",
        "reject_501",
    ):
        assert word in result.stdout
    assert "command_to_publish" in result.stdout


def test_top_shows_what_the_collector_takes_of_the_gateway(exchange: Running) -> None:
    counters = Counters.open(exchange.config.instance)
    try:
        gateway, feed = counters.block("gateway0"), counters.block("feed")
        assert set(COLLECTOR_COUNTERS) <= set(gateway.labels) & set(feed.labels)
        assert COLLECTOR_HISTOGRAM in feed.histograms
        # Objects of its own for each client: some 30 are enough for the collector to look at them.
        with contextlib.ExitStack() as clients:
            for account, number in itertools.product(("demo", "alice", "bob"), range(40)):
                if gateway.get("collections"):
                    break
                clients.enter_context(exchange.client(account, session=f"c{number}"))
        count, total, longest = (gateway.get(label) for label in COLLECTOR_COUNTERS)
        assert count > 0
        assert 0 < longest <= total
    finally:
        counters.close()
    result = exchange.run("top", "--once", connects=False)
    assert re.search(r"gateway0 collector_pause( \(ever\))? +\d+ ", result.stdout), result.stdout


def test_demo_is_alive_and_ends_by_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = configuration(tmp_path_factory.mktemp("demo"))
    words = ["demo", "--plain", "--seconds", "5", "--config", str(path)]
    result = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert re.search(r"AAPL 18\d\.\d\d/18\d\.\d\d .* trades [1-9]", last), result.stdout
