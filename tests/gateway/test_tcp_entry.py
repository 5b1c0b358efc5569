"""The door itself: real sockets, uvloop, slow readers, sleeping and waking, draining.

The exchange behind it is a StandIn that runs in the same event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import uvloop

from engine.config import Config, GatewayLimits
from engine.jit import JIT_DISABLED, kernel_signatures
from engine.shm_ring import READER_SLEEPS
from gateway.tcp_entry import Gateway
from tests.gateway.support import READER, StandIn, make_config

LOGON = {"type": "logon", "account": "demo", "token": "demo"}
ORDER = {"symbol": "AAPL", "side": "buy", "qty": 10, "price": "100"}
TIMEOUT_S = 20


class Peer:
    """The other side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *lines: dict[str, Any] | bytes) -> None:
        for line in lines:
            self.writer.write(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n")

    async def hear(self) -> dict[str, Any]:
        """The next line that is no heartbeat and not about another session of the account."""
        while True:
            line = await self.reader.readline()
            assert line, "connection closed"
            answer = orjson.loads(line)
            if answer["type"] not in ("heartbeat", "account"):
                assert isinstance(answer, dict)
                return answer

    async def ask(self, line: dict[str, Any] | bytes, count: int = 1) -> list[dict[str, Any]]:
        self.send(line)
        return [await self.hear() for _ in range(count)]

    async def closed(self) -> list[dict[str, Any]]:
        """Everything up to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            return [orjson.loads(line) for line in (await self.reader.read()).splitlines()]
        return []


class Door:
    """A gateway that is running, and the exchange behind it."""

    def __init__(self, gateway: Gateway, exchange: StandIn, port: int) -> None:
        self.gateway, self.desk, self.exchange, self.port = gateway, gateway.desk, exchange, port
        self.peers: list[Peer] = []
        self.held = False
        self.successors: list[StandIn] = []

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def log_on(self, **more: Any) -> Peer:
        peer = await self.connect()
        assert (await peer.ask({**LOGON, **more}))[0]["type"] == "logon"
        return peer

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(TIMEOUT_S * 500):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("it did not come true")


async def shard_turns(door: Door) -> None:
    # The exchange's turn every millisecond; a reader that sleeps is signalled as the shard would.
    events, flag = door.exchange.events, READER_SLEEPS + READER
    while True:
        await asyncio.sleep(0.001)
        if not door.held and door.exchange.run() and events.ctrl[flag]:
            events.ctrl[flag] = 0
            os.eventfd_write(door.exchange.reader_fd, 1)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Door]:
    exchange = StandIn(config)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[int] = loop.create_future()
    gateway = Gateway(exchange.parts(port=0, on_ready=ready.set_result), loop)
    stop = asyncio.Event()
    serving = asyncio.create_task(gateway.run(stop))
    door = Door(gateway, exchange, await ready)
    turns = asyncio.create_task(shard_turns(door))
    try:
        yield door
    finally:
        for peer in door.peers:
            peer.writer.close()
        stop.set()
        await serving
        turns.cancel()
        for used in (exchange, *door.successors):
            used.close()


def through(test: Callable[[Door], Awaitable[None]], config: Config | None = None) -> None:
    """Run a test against an open door."""

    async def whole() -> None:
        async with opened(config or make_config()) as door:
            await asyncio.wait_for(test(door), TIMEOUT_S)

    uvloop.run(whole())


def test_order_goes_out_and_its_reports_come_back() -> None:
    async def test(door: Door) -> None:
        peer = await door.log_on(receipts=True)
        accepted, booked = await peer.ask({**ORDER, "id": 1}, 2)
        assert (accepted["type"], booked["type"]) == ("accepted", "booked")
        stamps = accepted["receipt"]
        assert stamps == sorted(stamps)
        assert stamps[0] > 0
        other = await door.log_on(account="alice", token="secret")
        answers = await other.ask({"symbol": "AAPL", "side": "sell", "qty": 4, "id": 1}, 2)
        assert [answer["type"] for answer in answers] == ["accepted", "fill"]
        assert (await peer.hear())["role"] == "maker"

    through(test)


@pytest.mark.parametrize("idle", ["adaptive", "park", "spin"])
def test_every_idle_mode_serves(idle: str) -> None:
    async def test(door: Door) -> None:
        peer = await door.log_on()
        for number in range(1, 6):
            assert (await peer.ask({**ORDER, "id": number}, 2))[1]["type"] == "booked"
            await asyncio.sleep(0.005)
        assert door.gateway.polling == (idle == "spin") or idle == "adaptive"

    through(test, make_config(idle=idle))


def test_idle_gateway_sleeps_and_an_event_wakes_it() -> None:
    async def test(door: Door) -> None:
        peer = await door.log_on()
        other = await door.log_on(session="other")
        flag = READER_SLEEPS + READER
        await door.until(lambda: not door.gateway.polling and door.exchange.events.ctrl[flag] == 1)
        assert (await peer.ask({**ORDER, "id": 1}, 2))[1]["type"] == "booked"
        assert (await other.hear())["type"] == "accepted"

    through(test)


def test_bulk_of_orders_is_answered_to_the_last() -> None:
    async def test(door: Door) -> None:
        peer = await door.log_on()
        peer.send(
            b"".join(
                orjson.dumps({**ORDER, "id": n, "price": 100 + n % 7}) + b"\n"
                for n in range(1, 1501)
            )
        )
        seen = [await peer.hear() for _ in range(3000)]
        assert [line["id"] for line in seen if line["type"] == "accepted"] == list(range(1, 1501))
        assert [line["seq"] for line in seen] == list(range(seen[0]["seq"], seen[0]["seq"] + 3000))

    through(test)


def test_pipe_that_ends_after_its_lines_still_gets_the_answers() -> None:
    async def test(door: Door) -> None:
        peer = await door.connect()
        peer.send(LOGON, {**ORDER, "id": 1})
        peer.writer.write_eof()
        answers = await peer.closed()
        assert [a["type"] for a in answers if a["type"] != "heartbeat"] == [
            "logon",
            "accepted",
            "booked",
            "logout",
        ]

    through(test)


async def deaf(door: Door) -> socket.socket:
    """A logged-on connection that will not read its reports."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", door.port))
    logon = {**LOGON, "session": "deaf", "cancel_on_disconnect": "all"}
    await loop.sock_sendall(sock, orjson.dumps(logon) + b"\n")
    await door.until(lambda: any(c.session and c.session.live for c in door.desk.clients))
    return sock


def test_slow_reader_over_the_output_cap_is_dropped_while_others_are_served() -> None:
    async def test(door: Door) -> None:
        sock = await deaf(door)
        other = await door.log_on(session="other")  # of the same account: its reports go to both
        rows = b"".join(orjson.dumps({**ORDER, "id": n}) + b"\n" for n in range(1, 101))
        assert (await other.ask(rows, 200))[-1]["type"] == "booked"
        for _ in range(400):
            if door.desk.counts["output_overflows"]:
                break
            assert (await other.ask({"type": "open_orders"}, 101))[-1]["type"] == "summary"
        assert door.desk.counts["output_overflows"] == 1
        assert len(door.desk.clients) == 1
        sock.close()

    through(
        test, make_config(gateway=GatewayLimits(output_bytes_max=200_000, output_burst_bytes=0))
    )


def test_sender_that_does_not_read_is_not_read_from_and_dropped_after_a_while() -> None:
    async def test(door: Door) -> None:
        sock = await deaf(door)
        (client,) = door.desk.clients
        loop = asyncio.get_running_loop()
        asked = b'{"type":"instruments"}\n' * 400
        sending = loop.create_task(loop.sock_sendall(sock, asked * 400))
        await door.until(lambda: client.stalled > 0)
        quick = await door.log_on(account="alice", token="secret")
        assert (await quick.ask({**ORDER, "id": 1}, 2))[1]["type"] == "booked"
        assert not client.closed
        client.stalled -= 1000  # so long ago
        await door.until(lambda: client.closed)
        sending.cancel()
        sock.close()

    through(test)


def test_logon_never_sent_is_closed() -> None:
    async def test(door: Door) -> None:
        peer = await door.connect()
        answers = await peer.closed()
        assert [answer["type"] for answer in answers] == ["logout"]

    through(test, make_config(gateway=GatewayLimits(logon_deadline_s=0.2)))


def test_wrong_token_is_refused_after_the_delay() -> None:
    async def test(door: Door) -> None:
        loop = asyncio.get_running_loop()
        peer = await door.connect()
        start = loop.time()
        peer.send({**LOGON, "token": "wrong"})
        answers = await peer.closed()
        assert [answer["type"] for answer in answers] == ["rejected", "logout"]
        assert loop.time() - start > 0.1

    through(test, make_config(gateway=GatewayLimits(auth_failure_delay_s=0.12)))


def test_connections_over_the_cap_are_told_and_closed() -> None:
    async def test(door: Door) -> None:
        peers = [await door.log_on(session=f"s{n}") for n in range(3)]
        extra = await door.connect()
        (goodbye,) = await extra.closed()
        assert (goodbye["type"], "3 connections" in goodbye["reason"]) == ("logout", True)
        assert (await peers[0].ask({**ORDER, "id": 1}, 2))[1]["type"] == "booked"

    through(test, make_config(gateway=GatewayLimits(connections_max=3)))


def test_connections_from_one_address_are_limited_by_the_second() -> None:
    async def test(door: Door) -> None:
        door.gateway.arrivals["127.0.0.1"] = 10
        (goodbye,) = await (await door.connect()).closed()
        assert "connections a second" in goodbye["reason"]

    through(test, make_config(gateway=GatewayLimits(connections_per_ip_per_s=10)))


def test_connection_reset_closes_the_session() -> None:
    async def test(door: Door) -> None:
        peer = await door.log_on(cancel_on_disconnect="all")
        await peer.ask({**ORDER, "id": 1}, 2)
        peer.writer.transport.abort()
        await door.until(lambda: len(door.exchange.shards[0].orders("AAPL", 0)) == 0)
        assert not door.desk.clients

    through(test)


def test_takeover_closes_the_older_connection() -> None:
    async def test(door: Door) -> None:
        first = await door.log_on(session="s")
        second = await door.log_on(session="s")
        assert (await first.closed())[-1]["type"] == "logout"
        assert (await second.ask({**ORDER, "id": 1}, 2))[1]["type"] == "booked"

    through(test)


def test_stopping_tells_everybody_and_closes_every_session() -> None:
    async def whole() -> None:
        config = make_config()
        async with opened(config) as door:
            peer = await door.log_on(cancel_on_disconnect="all")
            await peer.ask({**ORDER, "id": 1}, 2)
            exchange, reader = door.exchange, peer
            door.held = True
            goodbye = asyncio.create_task(reader.closed())
            door.peers.clear()
            gateway = door.gateway
            for client in list(gateway.desk.clients):
                gateway.desk.drop(client, "the gateway is shutting down")
            exchange.run()
            answers = await goodbye
            assert answers[-1]["reason"] == "the gateway is shutting down"
            assert len(exchange.shards[0].orders("AAPL", 0)) == 0
            peer.writer.close()

    uvloop.run(whole())


def test_absent_shards_are_asked_for_until_they_come() -> None:
    async def whole() -> None:
        config = make_config()
        exchange = StandIn(config)
        there: list[bool] = []
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        parts = exchange.parts(port=0, on_ready=ready.set_result)
        parts.command_rings = parts.event_rings = None
        parts.reconnect = lambda: exchange.parts() if there else None
        gateway = Gateway(parts, asyncio.get_running_loop())
        stop = asyncio.Event()
        serving = asyncio.create_task(gateway.run(stop))
        door = Door(gateway, exchange, await ready)
        turns = asyncio.create_task(shard_turns(door))
        peer = await door.connect()
        (answer,) = await peer.ask(LOGON)
        assert (answer["shards"], "no shard" in answer["text"]) == (0, True)
        assert (await peer.ask({**ORDER, "id": 1}))[0]["code"] == 905
        there.append(True)
        assert (await asyncio.wait_for(peer.hear(), TIMEOUT_S))["shards"] == 1
        assert (await peer.ask({**ORDER, "id": 1}, 2))[1]["type"] == "booked"
        peer.writer.close()
        stop.set()
        await serving
        turns.cancel()
        exchange.close()

    uvloop.run(whole())


def test_new_instance_is_taken_up_when_the_old_one_is_gone() -> None:
    async def test(door: Door) -> None:
        peer = await door.log_on()
        door.successors.append(StandIn(make_config()))
        door.desk.parts.reconnect = door.successors[0].parts
        door.exchange.up[0] = False
        door.gateway.shards_seen = -1000
        assert "log on again" in (await peer.closed())[-1]["reason"]
        door.exchange = door.successors[0]
        peer = await door.log_on()
        assert (await peer.ask({**ORDER, "id": 1}, 2))[1]["type"] == "booked"
        assert len(door.exchange.shards[0].orders("AAPL", 0)) == 1

    through(test)


def test_error_in_the_clock_ends_the_gateway() -> None:
    async def whole() -> None:
        exchange = StandIn(make_config())
        gateway = Gateway(exchange.parts(port=0), asyncio.get_running_loop())

        def broken() -> None:
            raise ZeroDivisionError

        gateway.desk.tick = broken  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(gateway.run(asyncio.Event()), TIMEOUT_S)
        exchange.close()

    uvloop.run(whole())


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_serving_compiles_nothing_beyond_the_warm_up() -> None:
    for module in ("command", "decode", "encode", "log", "rest"):
        importlib.import_module(f"gateway.codec_{module}")._warm_up()

    async def test(door: Door) -> None:
        peer = await door.log_on(receipts=True)
        await peer.ask({**ORDER, "id": 1}, 2)
        await peer.ask({"type": "book", "symbol": "AAPL"})

    through(test)
    found = {name: n for name, n in kernel_signatures().items() if name.startswith("gateway.")}
    assert len(found) == 10
    assert set(found.values()) == {1}, found
