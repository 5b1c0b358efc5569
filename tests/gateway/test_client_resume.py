"""The clients' way back: over real sockets, to a real gateway whose exchange is a StandIn."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson
import pytest
import uvloop

from gateway.client import Client
from gateway.client_async import AsyncClient
from gateway.client_errors import (
    ConnectionLost,
    DuplicateOrderId,
    LoggedOut,
    NetworkError,
    ResumeAhead,
    ResumeTooOld,
    WrongIncarnation,
)
from gateway.client_state import ResumeState
from gateway.tcp_entry import Gateway
from tests.gateway.logs import Kept
from tests.gateway.support import make_config
from tests.gateway.test_client import wait_until

Cut = Callable[[bytes], bool]


class Living:
    """A gateway in a thread of its own, and the exchange behind it."""

    def __init__(self) -> None:
        for module in (
            "command",
            "decode",
            "encode",
            "log",
            "rest",
        ):  # compiled before a clock runs
            importlib.import_module(f"gateway.codec_{module}")._warm_up()
        self.exchange = Kept(make_config())
        self.held = False  # the exchange does not work
        self.cut: Cut = lambda data: False  # the connection breaks before these bytes are read
        self.port = 0
        self._started, self._end = threading.Event(), False
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()), daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    async def _main(self) -> None:
        self.loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self.gateway = Gateway(
            self.exchange.parts(port=0, on_ready=lambda port: setattr(self, "port", port)),
            self.loop,
        )
        received = self.gateway.received

        def take(client: Any, count: int) -> None:
            if self.cut(bytes(self.gateway.room[:count])):
                client.transport.abort()
            else:
                received(client, count)

        self.gateway.received = take  # type: ignore[method-assign]
        serving = asyncio.create_task(self.gateway.run(stop))
        while not self._end:
            if self.port:
                self._started.set()
            if not self.held and self.exchange.run():
                self.gateway.awake()
            await asyncio.sleep(0.001)
        stop.set()
        await serving

    def break_connections(self) -> None:
        """Every connection ends without a word."""

        there = set(self.gateway.desk.clients)

        def abort() -> None:
            for client in there:
                client.transport.abort()  # type: ignore[attr-defined]

        self.loop.call_soon_threadsafe(abort)
        wait_until(lambda: not there & self.gateway.desk.clients, "connections remain")

    def orders(self) -> int:
        return len(self.exchange.shards[0].orders("AAPL", 0))

    def close(self) -> None:
        self._end = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.exchange.close()


@pytest.fixture
def living() -> Iterator[Living]:
    made = Living()
    yield made
    made.close()


def once(mark: bytes) -> Cut:
    """Cut the first receive that has these bytes."""
    left = [True]

    def cut(data: bytes) -> bool:
        if left[0] and mark in data:
            left[0] = False
            return True
        return False

    return cut


# ------------------------------------------------------------------------------- by hand
def test_n2_client_that_comes_back_gets_what_it_missed(living: Living) -> None:
    with Client(port=living.port) as client, Client(port=living.port, session="b") as other:
        client.limit("AAPL", "buy", 3, "100")
        living.break_connections()
        with pytest.raises(ConnectionLost):
            client.limit("AAPL", "buy", 1, "99")
        other.reconnect()
        other.limit("AAPL", "buy", 2, "98")
        logon = client.reconnect()
        assert logon.incarnation == 3
        got = [r for r in client.reports(0.3) if r.type != "account"]
        assert [(r.type, r.session) for r in got] == [("accepted", "b"), ("booked", "b")]
        assert client.gaps == []
        assert client.limit("AAPL", "buy", 1, "99").status == "open"


def test_n3_order_whose_answer_was_lost_is_sent_again_under_its_id(living: Living) -> None:
    with Client(port=living.port) as client:
        client.limit("AAPL", "buy", 3, "100")
        living.cut = once(b'"98"')
        with pytest.raises(NetworkError) as lost:
            client.limit("AAPL", "buy", 1, "98")  # never arrived
        assert lost.value.client_id == 2
        client.reconnect()
        assert client.limit("AAPL", "buy", 1, "98", id=lost.value.client_id).status == "open"
        living.held = True
        threading.Timer(0.2, living.break_connections).start()
        with pytest.raises(ConnectionLost) as lost:
            client.limit("AAPL", "buy", 1, "97")  # arrived, its answer did not
        living.held = False
        client.reconnect()
        again = client.limit("AAPL", "buy", 1, "97", id=lost.value.client_id)
        assert (again.status, again.id) == ("open", 3)
        client.cancel(again)
        with pytest.raises(DuplicateOrderId):
            client.limit("AAPL", "buy", 1, "97", id=3)
        assert living.orders() == 2


def test_n2_state_goes_through_a_file_to_another_program(living: Living) -> None:
    with Client(port=living.port, session="s") as client:
        client.limit("AAPL", "buy", 3, "100")
        text = client.state.to_json()
    with Client(port=living.port, session="b") as other:
        other.limit("AAPL", "buy", 2, "98")
    state = ResumeState.from_json(text)
    assert (state.session, state.incarnation) == ("s", 3)
    with Client(port=living.port, session="s", resume=state) as client:
        seen = [r.seq for r in client.reports(0.3)]
        assert seen == list(range(state.seq[0] + 1, state.seq[0] + 1 + len(seen)))
        assert len(seen) >= 5
        assert client.gaps == []
        assert client.core.next_id() == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [({"seq": {0: 10_000}}, ResumeAhead), ({"incarnation": 2}, WrongIncarnation),
     ({"seq": {0: 0}}, ResumeTooOld)],
)  # fmt: skip
def test_n2_refusals_have_their_own_errors_and_a_way_on(
    living: Living, change: dict[str, Any], error: type[Exception]
) -> None:
    with Client(port=living.port) as client:
        client.limit("AAPL", "buy", 3, "100")
    living.exchange.logs[0].first = 5
    state = ResumeState(**{"account": "demo", "seq": {0: 6}, "incarnation": 3, **change})
    client = Client(port=living.port, resume=state)
    with pytest.raises(error, match="without resume"):
        client.connect()
    assert client.reconnect(resume=False).seq[0] > 6
    assert len(client.open_orders()) == 1
    assert client.gaps == []
    client.close()


# ------------------------------------------------------------------------------- by itself
@pytest.mark.parametrize("when", ["before it arrives", "before its answer"])
def test_n4_verb_finds_its_way_through_a_broken_connection(living: Living, when: str) -> None:
    with Client(port=living.port, reconnect_s=5) as client:
        client.limit("AAPL", "buy", 3, "100")
        if when == "before it arrives":
            living.cut = once(b'"98"')
        else:
            living.held = True
            threading.Timer(0.2, living.break_connections).start()
            threading.Timer(0.5, lambda: setattr(living, "held", False)).start()
        order = client.limit("AAPL", "buy", 1, "98")
        assert (order.id, order.status, len(order.reports)) == (2, "open", 2)
        living.cut = once(b"open_orders")
        assert len(client.open_orders()) == 2
        assert (living.orders(), client.gaps) == (2, [])


def test_n2_stream_of_reports_goes_on_over_broken_connections(living: Living) -> None:
    with (
        Client(port=living.port, reconnect_s=5) as client,
        Client(port=living.port, reconnect_s=5, session="b") as other,
    ):
        seen = []
        for number in range(1, 6):
            other.limit("AAPL", "buy", number, 90 + number)
            seen += [(r.type, r.seq) for r in client.reports(0.15)]
            living.break_connections()
        other.limit("AAPL", "buy", 9, "80")
        seen += [(r.type, r.seq) for r in client.reports(0.3)]
        assert [kind for kind, _ in seen if kind != "account"] == ["accepted", "booked"] * 6
        assert client.gaps == []


def test_logged_out_client_does_not_come_back_by_itself(living: Living) -> None:
    with Client(port=living.port, reconnect_s=5) as client:
        client.limit("AAPL", "buy", 3, "100")
        with Client(port=living.port) as thief:
            with pytest.raises(LoggedOut, match="taken this session over"):
                client.limit("AAPL", "buy", 3, "100")
            assert thief.limit("AAPL", "buy", 3, "100").status == "open"


def test_client_gives_up_after_its_time(living: Living) -> None:
    client = Client(port=living.port, reconnect_s=0.4)
    client.connect()
    living.cut = lambda data: True
    with pytest.raises(NetworkError):
        client.limit("AAPL", "buy", 3, "100")
    living.cut = lambda data: False
    assert client.limit("AAPL", "buy", 3, "99").status == "open"
    client.close()


def test_n5_dead_man_client_beats_often_enough(living: Living) -> None:
    with Client(port=living.port, dead_man=0.8) as client:
        assert client.heartbeat_s == 0.2
        (opened,) = [c for c in living.exchange.seen if c["amount"]]
        assert int(opened["amount"]) == 800_000_000
        wait_until(
            lambda: sum(int(c["kind"]) == 10 for c in living.exchange.seen) >= 3, "no signs of life"
        )


# ------------------------------------------------------------------------------- asyncio
@contextlib.asynccontextmanager
async def quick(living: Living, **options: Any) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(port=living.port, **options) as client:
        yield client


async def test_n4_many_verbs_find_their_way_through_broken_connections(living: Living) -> None:
    async with quick(living, reconnect_s=5) as client:
        living.cut = once(b'"id":7')
        asyncio.get_running_loop().call_later(
            0.05, lambda: threading.Thread(target=living.break_connections).start()
        )

        async def one(size: int) -> Any:
            await asyncio.sleep(size * 0.003)
            return await client.limit("AAPL", "buy", size, "100")

        orders = await asyncio.gather(*(one(size) for size in range(1, 60)))
        assert [int(order.amount) for order in orders] == list(range(1, 60))
        assert {order.status for order in orders} == {"open"}
        assert (living.orders(), client.gaps) == (59, [])


async def test_n2_async_client_resumes_by_hand_and_from_a_state(living: Living) -> None:
    async with quick(living) as client:
        await client.limit("AAPL", "buy", 1, "100")
        await asyncio.to_thread(living.break_connections)
        with pytest.raises(ConnectionLost) as lost:
            await client.limit("AAPL", "buy", 1, "98")
        await client.reconnect()
        order = await client.limit("AAPL", "buy", 1, "98", id=lost.value.client_id)
        assert order.status == "open"
        state = client.state
    async with quick(living, resume=state) as client:
        report = await anext(client.reports())
        assert (report.type, report.seq) == ("account", state.seq[0] + 1)
    with pytest.raises(WrongIncarnation):
        await AsyncClient(
            port=living.port, resume=ResumeState("demo", incarnation=9, seq={0: 1})
        ).connect()


async def test_async_client_that_cannot_come_back_tells_everybody(living: Living) -> None:
    client = AsyncClient(port=living.port, reconnect_s=0.3, timeout_s=2)
    await client.connect()
    living.cut = lambda data: True
    with pytest.raises(NetworkError):
        await client.limit("AAPL", "buy", 1, "100")
    with pytest.raises(NetworkError):
        await anext(client.reports())
    living.cut = lambda data: False
    await client.reconnect()
    assert (await client.limit("AAPL", "buy", 1, "100")).status == "open"
    await client.close()


def test_state_text_is_the_key_of_the_protocol() -> None:
    state = ResumeState("demo", "main", 3, {1: 4, 0: 17})
    assert state.text == "0:17,1:4"
    assert ResumeState.from_json(state.to_json()) == state
    assert orjson.loads(state.to_json())["seq"] == {"0": 17, "1": 4}
    for text in (
        "{}",
        '{"seq":[]}',
        "[]",
        "x",
        '{"account":1,"session":"s","incarnation":"?","seq":{}}',
    ):
        with pytest.raises(ValueError, match=r"."):
            ResumeState.from_json(text)
    with pytest.raises(ValueError, match="not of demo/other"):
        Client(session="other", resume=state)
    with pytest.raises(ValueError, match="dead_man"):
        Client(dead_man=0)
