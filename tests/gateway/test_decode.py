"""The fast path writes what the slow path would have written, or leaves the line alone; and no cut
of the bytes matters.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.jit import JIT_DISABLED
from gateway.state import (
    H_TOTAL_COMMANDS,
    H_TOTAL_LINES,
    R_CANCEL_TAT,
    R_LAST_ID,
    R_LATCH,
    R_ORDER_TAT,
    R_SHARDS,
)
from tests.gateway.lines import ODD_VALUES, line, stream
from tests.gateway.support import PRODUCER, Bench, FakeClient, SessionsOnly, make_config

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]


class Pair:
    """Two gateways with the same session: one as it is, one whose fast path is switched off."""

    def __init__(self, ids: str, **changes: Any) -> None:
        self.benches = [Bench(make_config(**changes), SessionsOnly) for _ in range(2)]
        self.clients = [bench.log_on(ids=ids) for bench in self.benches]
        slow = self.benches[1].desk.rings
        decode = slow.decode
        slow.decode = lambda row, start, end: decode(0, start, end)  # type: ignore[method-assign]

    def reset(self) -> None:
        """As after logon."""
        for bench, client in zip(self.benches, self.clients, strict=True):
            reset_session(bench, client)

    def close(self) -> None:
        for bench in self.benches:
            bench.close()


def reset_session(bench: Bench, client: FakeClient) -> None:
    """Ids, latch and buckets as after logon; nothing half read."""
    assert client.session is not None
    base, view = client.session.base, bench.desk.view
    for word in (R_LAST_ID, R_LATCH, R_ORDER_TAT, R_CANCEL_TAT):
        view[base + word] = 0
    for shard in range(bench.config.shards):
        view[base + R_SHARDS + 2 * shard + 1] = 0
        bench.exchange.take(shard, PRODUCER)
    client.carry, client.skipping, client.output = b"", 0, b""
    client.session.open_everywhere = 0


def outcome(bench: Bench, client: FakeClient, pieces: list[bytes]) -> tuple[Any, ...]:
    """Commands, rejects and session state after these bytes arrived in these pieces."""
    for piece in pieces:
        bench.feed(client, piece)
        while client.backlog is not None:
            bench.desk.retry()
    commands = []
    for shard in range(bench.config.shards):
        for command in bench.exchange.take(shard, PRODUCER):
            command["receipt_ts"] = command["producer_seq"] = 0
            commands.append((shard, command.tobytes()))
    assert client.session is not None
    base, view = client.session.base, bench.desk.view
    ids = [view[base + R_LAST_ID], view[base + R_LATCH]]
    ids += [view[base + R_SHARDS + 2 * shard + 1] for shard in range(bench.config.shards)]
    output, client.output = client.output, b""
    return commands, ids, output


@pytest.fixture(scope="module", params=["integer", "text"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def sharded() -> Iterator[Pair]:
    made = Pair("integer", shards=3, unknown_symbol="reject")
    yield made
    made.close()


def agree(pair: Pair, data: bytes) -> None:
    """Both gateways make the same of these bytes."""
    fast, slow = (
        outcome(bench, client, [data])
        for bench, client in zip(pair.benches, pair.clients, strict=True)
    )
    assert fast == slow, data


def agree_on(pair: Pair, lines: list[bytes]) -> None:
    """Line by line. An odd line may use up all ids (2**63 - 1): begin anew every now and then."""
    for index, data in enumerate(lines):
        if index % 20 == 0:
            pair.reset()
        agree(pair, data + b"\n")


def fast_share(pair: Pair) -> float:
    """How many of the lines the fast path took."""
    desk = pair.benches[0].desk
    return desk.view[H_TOTAL_LINES] / (desk.view[H_TOTAL_LINES] + desk.counts["slow_lines"])


def test_fast_and_slow_path_agree_on_a_large_corpus(pair: Pair, seed: int) -> None:
    text_ids = pair.clients[0].session is not None and pair.clients[0].session.text_ids
    agree_on(pair, stream(seed, 2500, text_ids))
    taken = pair.benches[0].desk.view[H_TOTAL_COMMANDS]
    assert taken > 500
    if not text_ids:
        assert fast_share(pair) > 0.25  # the rest of the corpus is odd on purpose


def test_fast_and_slow_path_agree_with_shards_and_policy_reject(sharded: Pair, seed: int) -> None:
    agree_on(sharded, stream(seed, 1500))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_fast_and_slow_path_agree_on_a_very_large_corpus(pair: Pair, seed: int, part: int) -> None:
    text_ids = pair.clients[0].session is not None and pair.clients[0].session.text_ids
    agree_on(pair, stream(seed + part, 6000, text_ids))


keys = st.sampled_from(
    (
        "type",
        "symbol",
        "SIDE",
        "qty",
        "price",
        "px",
        "tif",
        "id",
        "order_id",
        "target_id",
        "post_only",
        "tag",
        "order_type",
        "peak",
        "MIN_QTY",
        "hidden",
        "slide",
        "protected",
        "stp",
        "expire_time",
        "x",
    )
)
values = st.one_of(
    st.sampled_from(ODD_VALUES),
    st.sampled_from(('"AAPL"', '"new"', '"cancel"', '"replace"', '"buy"', '"ioc"', "100.05", "7")),
    st.integers(-5, 2**66).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=10**7).map(
        str
    ),
    st.text(max_size=9).map(lambda text: f'"{text}"'),
)
lines = st.one_of(
    st.lists(st.tuples(keys, values), max_size=8).map(
        lambda pairs: ("{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}").encode()
    ),
    st.binary(max_size=80),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(lines, min_size=1, max_size=3))
def test_fast_and_slow_path_agree_on_invented_lines(pair: Pair, data: list[bytes]) -> None:
    pair.reset()
    agree(pair, b"\n".join(data) + b"\n")


def test_plain_orders_take_the_fast_path(pair: Pair) -> None:
    if pair.clients[0].session is None or pair.clients[0].session.text_ids:
        return
    pair.reset()
    before = dict(pair.benches[0].desk.counts)
    plain = [
        b'{"type":"new","id":1,"symbol":"AAPL","side":"buy","price":100.05,"qty":10,"tif":"GTC"}',
        b'{"TICKER":"AAPL","Action":"SELL","shares":"10","px":"100.050000","client_id":2,"post_only":true,"tag":7}',
        b' { "type" : "market" , "symbol" : "BTCUSDT", "side":"s","quantity":0.5, "id":3 }\r',
        b'{"type":"limit","symbol":"TICK5","side":"bid","qty":20,"price":1.05,"tif":"fok","id":4}',
        b'{"type":"cancel","symbol":"AAPL","target_id":1,"id":5}',
        b'{"type":"cancel","order_id":16777216,"id":6}',
        b'{"type":"replace","symbol":"AAPL","orig_id":1,"price":"99","qty":5,"id":7}',
    ]
    agree(pair, b"\n".join(plain) + b"\n")
    assert pair.benches[0].desk.counts["slow_lines"] == before["slow_lines"]


def test_options_of_the_full_rules_take_the_slow_path(pair: Pair) -> None:
    if pair.clients[0].session is None or pair.clients[0].session.text_ids:
        return
    pair.reset()
    order = b'{"symbol":"AAPL","side":"buy","qty":10,"price":"1.05",'
    options = [
        b'"peak":5', b'"min_qty":5', b'"hidden":true', b'"slide":true', b'"stp":"none"',
        b'"tif":"day"', b'"tif":"gtd","expire_time":5', b'"tif":"at_open"',
    ]  # fmt: skip
    before = pair.benches[0].desk.counts["slow_lines"]
    agree(pair, b"\n".join(order + option + b"}" for option in options) + b"\n")
    assert pair.benches[0].desk.counts["slow_lines"] == before + len(options)


# ------------------------------------------------------------------------------- cutting the bytes
@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench(exchange=SessionsOnly)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(bench: Bench) -> FakeClient:
    return bench.log_on()


def mixed(seed: int) -> bytes:
    """A short stream of good and bad lines, an over-long one among them."""
    rng = random.Random(seed)
    made = [line(rng, number) for number in range(1, 12)]
    made[3:3] = [b"", b"\r", b"garbage", b'{"type":"limits"}', b"[" * 100]
    return b"\n".join(made) + b"\n" + b"x" * 2100 + b"\n" + line(rng, 50) + b"\n"


@pytest.mark.later
def test_any_cut_of_the_bytes_gives_the_same_result(
    bench: Bench, client: FakeClient, seed: int
) -> None:
    data = mixed(seed)
    reset_session(bench, client)
    whole = outcome(bench, client, [data])
    assert whole[0]
    assert whole[2]
    for cut in range(1, len(data), 11 if JIT_DISABLED else 1):
        reset_session(bench, client)
        assert outcome(bench, client, [data[:cut], data[cut:]]) == whole, cut


def test_byte_by_byte_gives_the_same_result(bench: Bench, client: FakeClient, seed: int) -> None:
    data = mixed(seed + 1)
    reset_session(bench, client)
    whole = outcome(bench, client, [data])
    reset_session(bench, client)
    assert outcome(bench, client, [data[i : i + 1] for i in range(len(data))]) == whole


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 4000), max_size=12), seed=st.integers(0, 50))
def test_any_cuts_give_the_same_result(
    bench: Bench, client: FakeClient, cuts: list[int], seed: int
) -> None:
    data = mixed(seed)
    reset_session(bench, client)
    whole = outcome(bench, client, [data])
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reset_session(bench, client)
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    assert outcome(bench, client, [piece for piece in pieces if piece]) == whole


def test_line_over_64_kib_ends_the_connection_however_it_is_cut() -> None:
    with_cuts = []
    for size in (70_000, 1000):
        bench = Bench(exchange=SessionsOnly)
        client = bench.log_on()
        data = b"y" * 70_000 + b'\n{"type":"limits"}\n'
        for start in range(0, len(data), size):
            if not client.closed:
                bench.feed(client, data[start : start + size])
        with_cuts.append((bench.heard(client), client.hung_up))
        bench.close()
    assert with_cuts[0] == with_cuts[1]
    assert [answer.get("code") for answer in with_cuts[0][0]] == [101, None]
    assert with_cuts[0][1]
