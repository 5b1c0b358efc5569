"""A command of very many events over the running system: a mass cancel of 60,000 orders.

Its events are more than the event ring holds at once and many times what one session's output may
be: the shard works in slices, the gateway must keep up, and the client who reads gets every report.
"""

import time
from collections.abc import Iterator

import orjson
import pytest

from engine.counters import Counters
from tests.system.running import Running, running_exchange
from tests.system.test_bad_input_system import Line

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ORDERS = 60_000
WINDOW = 1_000
EXTRA = """
[[instruments]]
symbol = "AAPL"
[[accounts]]
name = "demo"
account = 1
token = "demo"
throttle = "unlimited"
[[throttles]]
name = "unlimited"
orders_per_s = 0
cancels_per_s = 0
"""


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_exchange(tmp_path_factory.mktemp("long"), EXTRA) as running:
        yield running


def fill_book(line: Line, count: int) -> None:
    first = int(line.logon["last_id"]) + 1
    for start in range(first, first + count, WINDOW):
        ids = range(start, start + WINDOW)
        line.send(
            b"\n".join(
                b'{"symbol":"AAPL","side":"buy","qty":1,"price":"%d.00","id":%d}' % (1 + n % 90, n)
                for n in ids
            )
        )
        booked = 0
        while booked < WINDOW:
            booked += line.hear()["type"] == "booked"


def test_mass_cancel_of_60000_orders_reaches_the_client_whole(exchange: Running) -> None:
    with Line(exchange.port, "demo", "long", cancel_on_disconnect="none") as line:
        fill_book(line, ORDERS)
        line.send({"type": "mass_cancel", "symbol": "AAPL"})
        start, canceled, seqs = time.monotonic(), 0, []
        while True:
            report = orjson.loads(line.file.readline())
            if report["type"] in ("canceled", "summary"):
                seqs.append(report["seq"])
            canceled += report["type"] == "canceled"
            if report["type"] == "summary":
                break
        assert (canceled, report["count"]) == (ORDERS, ORDERS)
        assert seqs == list(range(seqs[0], seqs[0] + ORDERS + 1))
        assert time.monotonic() - start < 60
    counters = Counters.open(exchange.config.instance)
    try:
        assert counters.block("gateway0").get("laps") == 0
        assert counters.block("feed").get("laps") == 0
    finally:
        counters.close()
