"""Both clients over real sockets, against a scripted exchange: waiting, pipelining, loss."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from gateway.client import Client
from gateway.client_async import AsyncClient
from gateway.client_errors import ConnectionLost, OrderNotFound, RequestTimeout

Line = dict[str, Any]


class ScriptedExchange:
    """A server in a thread; `answer(line)` gives the lines to send back, None hangs up."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[Line] = []
        self.answer: Callable[[Line], list[Line] | None] = self.usual
        self.seq = 0
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        assert self._started.wait(5)

    def _main(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while text := await reader.readline():
                line = orjson.loads(text)
                self.heard.append(line)
                answers = self.answer(line)
                if answers is None:
                    break
                writer.write(b"".join(orjson.dumps(answer) + b"\n" for answer in answers))
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    def report(self, type: str, line: Line, **more: Any) -> Line:
        self.seq += 1
        head = {"type": type, "seq": self.seq, "shard": 0, "session": "main", "symbol": "AAPL"}
        own = {"order_id": 1000 + line["id"], "id": line["id"]} if "id" in line else {}
        return {**head, **own, **more}

    def usual(self, line: Line) -> list[Line]:
        """Everything rests; nothing is known."""
        kind = line["type"]
        if kind == "logon":
            seq = {"0": self.seq}
            return [{**line, "shards": 1, "last_id": 0, "seq": seq}]
        if kind == "new":
            amounts = {"price": line["price"], "qty": line["qty"], "leaves": line["qty"]}
            accepted = self.report("accepted", line, **amounts)
            return [accepted, self.report("booked", line, **amounts, last=True)]
        if kind == "cancel":
            target = {"order_id": line["order_id"]}
            return [self.report("rejected", line, **target, code=501, text="gone", last=True)]
        return []

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def exchange() -> Iterator[ScriptedExchange]:
    scripted = ScriptedExchange()
    yield scripted
    scripted.close()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


# -------------------------------------------------------------------------------------- blocking
def test_verbs_wait_and_return_what_happened(exchange: ScriptedExchange) -> None:
    with Client(port=exchange.port) as client:
        order = client.limit("AAPL", "buy", 10, "187.42")
        assert (order.id, order.status, order.remaining) == (1, "open", 10)
        with pytest.raises(OrderNotFound, match="gone"):
            client.cancel(order)
    assert [line["type"] for line in exchange.heard][:3] == ["logon", "new", "cancel"]
    wait_until(lambda: exchange.heard[-1]["type"] == "logout", "no logout was sent")


def test_nobody_there_is_said_with_the_address() -> None:
    with pytest.raises(ConnectionLost, match=r"no exchange at 127\.0\.0\.1:1 "):
        Client(port=1).connect()


def test_an_idle_client_beats_by_itself(exchange: ScriptedExchange) -> None:
    with Client(port=exchange.port, heartbeat_s=0.05):
        wait_until(lambda: {"type": "heartbeat"} in exchange.heard, "no heartbeat came")


def test_no_answer_in_time_says_that_it_may_have_run(exchange: ScriptedExchange) -> None:
    with Client(port=exchange.port, timeout_s=0.2) as client:
        exchange.answer = lambda line: []
        with pytest.raises(RequestTimeout, match="may still have run"):
            client.limit("AAPL", "buy", 10, "187.42")
        exchange.answer = exchange.usual
        assert client.limit("AAPL", "buy", 10, "187.42").id == 2


def test_a_late_answer_goes_to_the_stream(exchange: ScriptedExchange) -> None:
    with Client(port=exchange.port, timeout_s=0.2) as client:
        exchange.answer = lambda line: []
        with pytest.raises(RequestTimeout):
            client.limit("AAPL", "buy", 10, "187.42")
        late = exchange.heard[1]
        exchange.answer = lambda line: exchange.usual(late) + exchange.usual(line)
        assert client.limit("AAPL", "buy", 5, "187.42").id == 2
        assert [(r.type, r.id) for r in client.reports()] == [("accepted", 1), ("booked", 1)]
        assert client.gaps == []


def test_a_closed_connection_is_told_to_the_verb_that_waits(exchange: ScriptedExchange) -> None:
    with Client(port=exchange.port) as client:
        exchange.answer = lambda line: None
        with pytest.raises(ConnectionLost, match="closed the connection"):
            client.limit("AAPL", "buy", 10, "187.42")
        with pytest.raises(ConnectionLost):
            client.limit("AAPL", "buy", 10, "187.42")
        with pytest.raises(ConnectionLost):
            client.send_nowait({"type": "heartbeat"})


def test_a_refused_logon_closes_and_says_why(exchange: ScriptedExchange) -> None:
    refusal = {"type": "rejected", "seq": 0, "code": 202, "text": "unknown account or wrong token"}
    exchange.answer = lambda line: [{**refusal, "request": line["request"]}]
    client = Client(port=exchange.port, token="wrong")
    with pytest.raises(Exception, match="wrong token"):
        client.connect()
    with pytest.raises(ConnectionLost):
        client.limits()


@pytest.mark.later
def test_a_flood_of_requests_and_reports_does_not_lock_up(exchange: ScriptedExchange) -> None:
    # Far more than both socket buffers hold in either direction.
    count = 20_000
    with Client(port=exchange.port) as client:
        for _ in range(count):
            client.send_nowait(client.core.order_line("AAPL", "buy", 10, "187.42"))
        client.flush()
        booked = 0
        for report in client.reports(2.0):
            booked += report.type == "booked"
            if booked == count:
                break
        assert (booked, client.gaps, client.core.dropped) == (count, [], 0)


# --------------------------------------------------------------------------------------- asyncio
async def test_many_verbs_in_flight_each_get_their_own_answer(exchange: ScriptedExchange) -> None:
    async with AsyncClient(port=exchange.port) as client:
        orders = await asyncio.gather(
            *(client.limit("AAPL", "buy", size, "187.42") for size in range(1, 101))
        )
        assert [int(order.amount) for order in orders] == list(range(1, 101))
        assert [order.id for order in orders] == list(range(1, 101))
        with pytest.raises(OrderNotFound):
            await client.cancel(orders[0])


async def test_asyncio_reports_are_a_stream(exchange: ScriptedExchange) -> None:
    async with AsyncClient(port=exchange.port) as client:
        for _ in range(3):
            client.send_nowait(client.core.order_line("AAPL", "buy", 10, "187.42"))
        await client.drain()
        seen = []
        async for report in client.reports():
            seen.append((report.type, report.id))
            if len(seen) == 6:
                break
        assert seen == [(t, n) for n in (1, 2, 3) for t in ("accepted", "booked")]


async def test_asyncio_beats_and_times_out(exchange: ScriptedExchange) -> None:
    async with AsyncClient(port=exchange.port, heartbeat_s=0.05, timeout_s=0.2) as client:
        exchange.answer = lambda line: []
        with pytest.raises(RequestTimeout):
            await client.limit("AAPL", "buy", 10, "187.42")
        assert {"type": "heartbeat"} in exchange.heard


async def test_asyncio_tells_the_loss_to_verbs_and_stream(exchange: ScriptedExchange) -> None:
    async with AsyncClient(port=exchange.port) as client:
        exchange.answer = lambda line: None
        with pytest.raises(ConnectionLost):
            await client.limit("AAPL", "buy", 10, "187.42")
        with pytest.raises(ConnectionLost):
            await anext(client.reports())


async def test_asyncio_nobody_there() -> None:
    with pytest.raises(ConnectionLost, match=r"no exchange at 127\.0\.0\.1:1 "):
        await AsyncClient(port=1).connect()
