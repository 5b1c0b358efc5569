"""Real input through the running system: over TCP in, and out of multicast by a process of its own.

`run.py replay lobster --compare` is the whole claim: the driver is one more TCP client; the rows
are compared with the engine's book and, in cli/compare_feed.py, with a book built from multicast
alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.system.running import Running, running_exchange

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(300)]
TEN_SECONDS = "AAPL_2012-06-21_10s_messages_50.csv"
HOUR = "AAPL_2012-06-21_1h_messages_50.csv.xz"
ROWS = "AAPL_2012-06-21_10s_orderbook_50.csv"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_exchange(tmp_path_factory.mktemp("replay")) as running:
        yield running


def replay(exchange: Running, folder: Path, name: str, out: Path, *options: str) -> dict[str, Any]:
    files = (str(folder / name), str(folder / ROWS))
    words = ("replay", "lobster", *files, "--compare", "--json", str(out), *options)
    result = exchange.run(*words, timeout_s=280)
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = orjson.loads(out.read_bytes())
    return found


def expect(tally: dict[str, Any], **numbers: int) -> None:
    assert {name: tally[name] for name in numbers} == numbers


def test_ten_seconds_give_every_row_in_the_engine_and_from_multicast(
    exchange: Running, data_dir: Path, tmp_path: Path
) -> None:
    found = replay(exchange, data_dir / "lobster", TEN_SECONDS, tmp_path / "result.json")
    for who in (found["engine"], found["feed"]["tally"]):
        expect(who, rows=671, rows_exact=671, executions=56, at_price=56, makers=56)
    assert not any(found["feed"]["problems"].values())
    assert found["as_recorded"]


@pytest.mark.parametrize(("option", "makers", "rows"), [("", 4031, 671), ("--preplace", 4046, 0)])
def test_the_hour_gives_prices_and_makers_in_the_engine_and_from_multicast(
    exchange: Running, data_dir: Path, tmp_path: Path, option: str, makers: int, rows: int
) -> None:
    options = [option] if option else []
    found = replay(exchange, data_dir / "lobster", HOUR, tmp_path / "result.json", *options)
    for who in (found["engine"], found["feed"]["tally"]):
        expect(who, messages=91_997, executions=4_067, at_price=4_067, known_makers=4_055)
        expect(who, makers=makers, rows=rows, rows_exact=rows)
    assert not any(found["feed"]["problems"].values())


def test_a_book_in_use_is_refused(exchange: Running, data_dir: Path) -> None:
    folder = data_dir / "lobster"
    with exchange.client() as client:
        order = client.limit("USED", "buy", 1, "1.00")
        result = exchange.run(
            "replay", "lobster", str(folder / TEN_SECONDS), str(folder / ROWS), "--symbol", "USED"
        )
        client.cancel(order)
    assert result.returncode == 1
    assert "the book of USED is not empty" in result.stderr
