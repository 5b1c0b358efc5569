"""The TCP door: uvloop, sockets and sleeping around gateway/desk.py.

Hot in `buffer_updated`, `TcpClient.send` and `_poll`. One process, one thread, one event loop.

    recv -> decode (one compiled call)
         -> a short wait for the shard's answer, if few commands went out
         -> encode (one compiled call) -> one write per session

With every command worked off, the gateway announces its sleep at once and waits in epoll, for a
socket or its eventfd: whoever else needs the core gets it. While answers are due it looks for them
in every turn of the loop (`_poll`) and sleeps when none has come for ANSWER_NS. It never yields:
Linux takes the rest of its slice for that (EEVDF: vruntime := deadline), and a p99 of 0.6 ms became
6 ms on a busy core. `spin` never sleeps, `park` does not wait for answers.

Writing goes straight to the socket while nothing waits in user space: no copy, no turn of the loop
in between. What the kernel does not take is left to uvloop. From STALL_BYTES of that on the client
is not read from; over output_bytes_max when the burst of all clients is used up, or for longer than
STALL_S, and it is dropped: uvloop by itself would buffer without limit. A socket is never written
after its transport began to close, for its number could be another's by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import uvloop

from engine.counters import State, collector_watched
from gateway.codec import Codec
from gateway.connection import Client
from gateway.desk import SPIN_COMMANDS_MAX, SPIN_NS, Desk
from gateway.desk_base import TICK_S
from gateway.parts import COUNTER_LABELS, HISTOGRAM_LABELS, GatewayParts

__all__ = ["COUNTER_LABELS", "HISTOGRAM_LABELS", "Gateway", "GatewayParts", "serve_gateway"]

BACKLOG = 1024
ANSWER_NS = 50_000  # how long answers are looked for: a signal from another core takes 40 to 80 µs
STALL_BYTES = 1 << 16  # more than this waiting in user space: the client is not read from
RECONNECT_S = 0.5
FORSAKEN_TICKS = 20  # without any shard for so long: another instance may be there
DRAIN_S = 1.0
DESCRIPTORS_BESIDE = 128  # rings, eventfds, the server and what Python holds
EOF_GRACE_TICKS = 2  # a client that only stopped sending (a pipe into nc) still gets its answers


class TcpClient(Client, asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.desk = gateway.desk
        self.transport: asyncio.Transport | None = None
        self.fd = -1
        self.held = False  # by the desk: lines wait
        self.ended = 0  # tick at which the other side stopped sending

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.desk.limits.idle_dead_s * 1000)
        )
        self.transport.set_write_buffer_limits(high=STALL_BYTES)
        self.fd = sock.fileno()
        refusal = self.gateway.admit(transport.get_extra_info("peername"))
        self.desk.on_connect(self)
        if refusal:
            self.desk.drop(self, refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fd, self.transport = -1, None
        self.gateway.bursts.pop(self, None)
        self.desk.on_lost(self)
        self.gateway.awake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.gateway.room

    def buffer_updated(self, nbytes: int) -> None:
        self.gateway.received(self, nbytes)

    def eof_received(self) -> bool:
        self.ended = self.desk.ticks + 1
        return True

    def send(self, data: bytes | memoryview) -> None:
        transport = self.transport
        if transport is None or self.fd < 0:
            return
        self.sent = self.desk.ticks
        self.desk.bytes_out += len(data)
        if transport.get_write_buffer_size() == 0:
            try:
                taken = os.write(self.fd, data)
            except BlockingIOError:
                taken = 0
            except OSError:
                self.fd = -1  # the loop will report the loss
                transport.abort()
                return
            if taken == len(data):
                return
            data = data[taken:]
        transport.write(bytes(data))
        if not self.gateway.may_wait(self, transport.get_write_buffer_size()):
            transport.abort()
            self.fd = -1
            self.desk.overflow(self)

    def pause_writing(self) -> None:
        """Reports pile up: nothing more is read from this client until it has taken them."""
        self.stalled = max(self.desk.ticks, 1)
        self._reading()

    def resume_writing(self) -> None:
        """It has."""
        self.stalled = 0
        self.gateway.bursts.pop(self, None)
        self._reading()
        self.gateway.awake()

    def hang_up(self) -> None:
        self.fd = -1
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def pause(self) -> None:
        self.held = True
        self._reading()

    def resume(self) -> None:
        self.held = False
        self._reading()

    def _reading(self) -> None:
        # Read, or do not, as `held` (by the desk) and `stalled` say.
        if self.transport is None or self.fd < 0:
            return
        if self.held or self.stalled:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class Gateway:
    """The event loop's side of a desk."""

    def __init__(self, parts: GatewayParts, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.config = loop, parts.config
        self.readers: ThreadPoolExecutor | None = None  # of event logs, one thread
        self.desk = Desk(parts, self._later, self._aside)
        self.room = self.desk.buffer.room
        self.mode = parts.config.idle
        self.polling = False  # _poll is scheduled
        self.busy_until = 0
        self.reader_fd = -1
        self.arrivals: dict[str, int] = {}  # connections of this second, by address
        self.server: asyncio.Server | None = None
        self.shards_seen = 0  # tick at which a shard was up
        self.bursts: dict[TcpClient, int] = {}  # bytes of clients over output_bytes_max
        self._watch()

    # -------------------------------------------------------------------------- sleeping and waking
    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        # What the desk has put off may give somebody his turn: look around behind it.
        def called() -> None:
            call()
            self.awake()

        self.loop.call_later(delay_s, called)

    def _aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        # Read a log in a thread: a disk may take its time, a segment to be looked through 50 ms.
        def came(result: Any) -> None:
            then(result)
            self.awake()

        def done(future: Future[Any]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            result = error if error is not None else future.result()
            self.loop.call_soon_threadsafe(came, result)

        if self.readers is None:
            self.readers = ThreadPoolExecutor(1, "ringbook-log")
        self.readers.submit(work).add_done_callback(done)

    def _watch(self) -> None:
        if self.desk.codec is None:
            return
        if self.reader_fd >= 0:
            self.loop.remove_reader(self.reader_fd)
        self.reader_fd = self.desk.parts.reader_fd
        if self.reader_fd >= 0:
            self.loop.add_reader(self.reader_fd, self._signalled)
        self.awake()

    def _signalled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.reader_fd)
        self.awake()

    def awake(self) -> None:
        """Something may have come, or is going to: look now, and go on while answers are due."""
        if not self.polling and self.desk.codec is not None:
            self.polling = True
            self.desk.codec.sleep_end()
            self.busy_until = time.monotonic_ns() + ANSWER_NS
            self.loop.call_soon(self._poll)

    def _poll(self) -> None:
        desk = self.desk
        if desk.codec is None:
            self.polling = False
            return
        worked = desk.pump()
        if desk.waiting:
            worked = bool(desk.retry()) or worked
        if worked:
            self.busy_until = time.monotonic_ns() + ANSWER_NS
        elif self._rest():
            self.polling = False
            return
        self.loop.call_soon(self._poll)

    def _rest(self) -> bool:
        # Fall asleep if there is nothing to wait for.
        if self.mode == "spin":
            return False
        if not self.desk.impatient():
            force = self.mode == "park" or time.monotonic_ns() > self.busy_until
            if self.desk.rings.sleep_try(force):
                return True
        return False

    # ------------------------------------------------------------------------------- connections
    def admit(self, peer: object) -> str:
        """Why a new connection may not stay; empty when it may."""
        limits = self.config.gateway
        if len(self.desk.clients) >= limits.connections_max:
            return f"the gateway has {limits.connections_max} connections, no more fit"
        if limits.connections_per_ip_per_s and isinstance(peer, tuple):
            count = self.arrivals[peer[0]] = self.arrivals.get(peer[0], 0) + 1
            if count > limits.connections_per_ip_per_s:
                most = limits.connections_per_ip_per_s
                return f"more than {most} connections a second from {peer[0]}"
        return ""

    def may_wait(self, client: TcpClient, size: int) -> bool:
        """Whether a client may have this many bytes waiting. The answer to one mass cancel may be
        megabytes: it may, while the burst of all clients is bounded, for STALL_S at most.
        """
        limits = self.config.gateway
        if size <= limits.output_bytes_max:
            self.bursts.pop(client, None)
            return True
        self.bursts[client] = size
        return sum(self.bursts.values()) <= limits.output_burst_bytes

    def received(self, client: TcpClient, count: int) -> None:
        """Bytes of a client lie in the receive buffer."""
        codec = self.desk.codec
        if codec is None:
            self.desk.on_bytes(client, count)
            return
        if not self.polling:
            codec.sleep_end()
        published = self.desk.on_bytes(client, count)
        if published:
            # Also after bulk: the loop reads a busy socket many times before it turns to _poll,
            # and the event ring would come round meanwhile.
            self.desk.pump(SPIN_NS if published <= SPIN_COMMANDS_MAX else 0)
        if not self.polling and not self._asleep_again(codec):
            self.awake()

    def _asleep_again(self, codec: Codec) -> bool:
        # The usual end of one request: its answer is out, nobody waits.
        if self.mode == "spin" or self.desk.waiting:
            return False
        return codec.sleep_try(self.mode == "park")

    # ------------------------------------------------------------------------------- running
    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain."""
        network, parts = self.config.network, self.desk.parts
        port = network.port if parts.port is None else parts.port
        self.server = await self.loop.create_server(
            lambda: TcpClient(self), network.host, port, backlog=BACKLOG
        )
        if parts.on_ready is not None:
            parts.on_ready(self.server.sockets[0].getsockname()[1])
        ticker = self.loop.create_task(self._ticker())
        stopping = self.loop.create_task(stop.wait())
        try:
            await asyncio.wait({ticker, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ticker.done():
                ticker.result()  # it never ends by itself: raises what broke it
        finally:
            ticker.cancel()
            stopping.cancel()
            self.server.close()
            await self._drain()
            if self.readers is not None:
                self.readers.shutdown(cancel_futures=True)
            if self.reader_fd >= 0:
                self.loop.remove_reader(self.reader_fd)

    async def _ticker(self) -> None:
        # The desk's clock. Also asks for the shards while there are none.
        due = self.loop.time()
        while True:
            due = max(due + TICK_S, self.loop.time())
            await asyncio.sleep(due - self.loop.time())
            self.desk.tick()
            if self.desk.ticks * TICK_S % 1.0 < TICK_S:
                self.arrivals.clear()
            self._ended_close()
            if self.desk.ticks % round(RECONNECT_S / TICK_S) == 0 and self._forsaken():
                self._reconnect()
            self.awake()

    def _forsaken(self) -> bool:
        # Whether there is no shard, and has not been for a while.
        if self.desk.any_shard_usable():
            self.shards_seen = self.desk.ticks
        return self.desk.codec is None or self.desk.ticks - self.shards_seen > FORSAKEN_TICKS

    def _ended_close(self) -> None:
        for client in list(self.desk.clients):
            if (
                isinstance(client, TcpClient)
                and client.ended
                and self.desk.ticks - client.ended >= EOF_GRACE_TICKS
            ):
                self.desk.drop(client, "end of input")

    def _reconnect(self) -> None:
        ask = self.desk.parts.reconnect
        parts = ask() if ask is not None else None
        if parts is None or parts.command_rings is None:
            return
        codec = self.desk.codec
        if codec is not None and os.path.sameopenfile(codec.commands.fd, parts.command_rings.fd):
            return  # the same instance, whose shards are down
        self.desk.attach(parts)
        self.shards_seen = self.desk.ticks
        self._watch()

    async def _drain(self) -> None:
        # Everybody is told; every session is closed on its shards, however long their rings need
        # (up to DRAIN_S).
        for client in list(self.desk.clients):
            self.desk.drop(client, "the gateway is shutting down")
        until = self.loop.time() + DRAIN_S
        while (
            self.desk.sessions.close_queue
            and self.desk.codec is not None
            and self.loop.time() < until
        ):
            self.desk.sessions.closes_flush(time.monotonic_ns())
            await asyncio.sleep(0.005)
        self.mode = "park"
        await asyncio.sleep(0)  # transports flush what was written


def descriptors_raise(connections: int) -> None:
    """Allow as many open files as the connections need, as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + DESCRIPTORS_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def serve_gateway(parts: GatewayParts) -> int:
    """Be a gateway until SIGTERM or SIGINT; returns the exit code."""
    descriptors_raise(parts.config.gateway.connections_max)

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        gateway = Gateway(parts, loop)

        def broken(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            # uvloop closes the connection whose protocol raised; anything else ends the gateway.
            loop.default_exception_handler(context)
            if context.get("protocol") is None:
                broke.append(context.get("message", ""))
                stop.set()

        loop.set_exception_handler(broken)
        gc.collect()
        gc.freeze()  # what lives from here on is what a collection has to look at
        with collector_watched(lambda: gateway.desk.parts.counters):
            await gateway.run(stop)

    broke: list[str] = []
    if parts.counters is not None:
        parts.counters.set("pid", os.getpid())
        parts.counters.set("state", int(State.STARTING))
    try:
        uvloop.run(serve())
    finally:
        if parts.counters is not None:
            parts.counters.set("state", int(State.STOPPED))
    return 1 if broke else 0
