"""The Python client of the exchange for asyncio. `ringbook.AsyncClient` is this class. Cold.

    async with AsyncClient("127.0.0.1", 9100, account="demo", token="demo") as client:
        order = await client.limit("AAPL", "buy", 10, "187.42")
        async for report in client.reports():
            ...

The same verbs, errors and reports as gateway/client.py; many may be in flight at once. Heartbeats
and answers to test requests go out by themselves. All methods belong to the event loop's thread.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.client_answers import Line, Number, target_line
from gateway.client_core import ClientCore, Conversation
from gateway.client_errors import ConnectionLost, RequestTimeout, RingbookError
from gateway.client_reports import Book, Gap, Id, InstrumentInfo, Logon, Order, Report

T = TypeVar("T")


class _Wire(asyncio.Protocol):
    """Bytes between the loop and the core."""

    def __init__(self, client: "AsyncClient") -> None:
        self.client = client

    def data_received(self, data: bytes) -> None:
        self.client._received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.client._lost(
            f"the connection broke: {error}" if error else "the exchange closed the connection"
        )

    def pause_writing(self) -> None:
        self.client._writable.clear()

    def resume_writing(self) -> None:
        self.client._writable.set()


class AsyncClient:
    """One logged-on connection. `session` names it; the newest logon under a name owns it."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 9100,
        account: str = "demo",
        token: str = "demo",  # noqa: S107 - the demo account's, as the built-in configuration has it
        *,
        session: str = "main",
        cancel_on_disconnect: str = "none",
        ids: str = "integer",
        receipts: bool = False,
        timeout_s: float = 5.0,
        heartbeat_s: float = 1.0,
    ) -> None:
        self.host, self.port = host, port
        self.timeout_s, self.heartbeat_s = timeout_s, heartbeat_s
        self.core = ClientCore(
            account,
            token,
            session=session,
            ids=ids,
            cancel_on_disconnect=cancel_on_disconnect,
            receipts=receipts,
        )
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._news = asyncio.Event()
        self._beat: asyncio.TimerHandle | None = None
        self._sent_at = 0.0

    # -------------------------------------------------------------------------- connection
    async def connect(self) -> Logon:
        """Connect and log on. The context manager does it."""
        loop = asyncio.get_running_loop()
        self._writable.set()
        try:
            async with asyncio.timeout(self.timeout_s):
                transport, _ = await loop.create_connection(
                    lambda: _Wire(self), self.host, self.port
                )
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "no answer"
            raise ConnectionLost(
                f"no exchange at {self.host}:{self.port} ({reason}); start one with: run.py up"
            ) from error
        self._transport = transport
        try:
            logon = await self._run(self.core.log_on())
        except RingbookError:
            await self.close()
            raise
        self._keep_alive()
        return logon

    async def close(self) -> None:
        """Log out and close; safe to call twice."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        transport, self._transport = self._transport, None
        if transport is not None:
            if self.core.closed is None:
                transport.write(self.core.encode({"type": "logout"}))
            transport.close()
            self._lost("the client was closed")
            await asyncio.sleep(0)  # lets the transport run its close

    async def __aenter__(self) -> Self:
        if self._transport is None:
            await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def logon(self) -> Logon | None:
        """What the exchange said at logon."""
        return self.core.logon

    @property
    def gaps(self) -> list[Gap]:
        """Reports that did not arrive, by shard and number."""
        return self.core.gaps

    # ------------------------------------------------------------------------------- verbs
    async def place(
        self,
        symbol: str,
        side: str,
        qty: Number,
        price: Number | None = None,
        *,
        tif: str | None = None,
        post_only: bool = False,
        id: Id | None = None,
        tag: int | None = None,
    ) -> Order:
        """Enter an order; without a price it is a market order."""
        line = self.core.order_line(
            symbol, side, qty, price, tif=tif, post_only=post_only, id=id, tag=tag
        )
        return await self._run(self.core.place(line))

    async def limit(
        self, symbol: str, side: str, qty: Number, price: Number, **options: Any
    ) -> Order:
        """Enter a limit order; options as for `place`."""
        return await self.place(symbol, side, qty, price, **options)

    async def market(self, symbol: str, side: str, qty: Number, **options: Any) -> Order:
        """Enter a market order; options as for `place`."""
        return await self.place(symbol, side, qty, None, **options)

    async def cancel(
        self,
        order: Order | int | None = None,
        *,
        id: Id | None = None,
        symbol: str | None = None,
        shard: int | None = None,
    ) -> Order:
        """Cancel an order, named by itself, its order_id, or `id`, its client id."""
        return await self._run(self.core.cancel(target_line(order, id, symbol, shard)))

    async def replace(
        self,
        order: Order | int | None = None,
        *,
        qty: Number | None = None,
        price: Number | None = None,
        id: Id | None = None,
        symbol: str | None = None,
        shard: int | None = None,
    ) -> Order:
        """Change price or total quantity. A mere decrease keeps the place in the queue."""
        return await self._run(self.core.replace(target_line(order, id, symbol, shard), qty, price))

    async def mass_cancel(
        self,
        *,
        symbol: str | None = None,
        side: str | None = None,
        tag: int | None = None,
        shard: int | None = None,
    ) -> list[Report]:
        """Cancel all orders of the account that fit; gives the cancellations."""
        line: Line = {"symbol": symbol, "side": side, "tag": tag, "shard": shard}
        return await self._run(self.core.mass_cancel(line))

    async def order(
        self,
        order: Order | int | None = None,
        *,
        id: Id | None = None,
        symbol: str | None = None,
        shard: int | None = None,
    ) -> Order:
        """Ask where a live order stands."""
        return await self._run(self.core.order(target_line(order, id, symbol, shard)))

    async def open_orders(self, symbol: str | None = None, *, page: int = 100) -> list[Order]:
        """List the account's live orders, all pages, in entry order per shard."""
        return await self._run(self.core.open_orders(symbol, page))

    async def book(self, symbol: str, depth: int | None = None) -> Book:
        """Ask for the best levels of one book."""
        return await self._run(self.core.book(symbol, depth))

    async def instruments(self) -> list[InstrumentInfo]:
        """List what can be traded."""
        return await self._run(self.core.instruments())

    async def limits(self) -> dict[str, Any]:
        """Ask for the limits of account and gateway."""
        return await self._run(self.core.limits())

    # --------------------------------------------------------------------------- pipelined
    def send_nowait(self, line: Line) -> None:
        """Send one request line (docs/protocol.md); its reports come through `reports()`."""
        if self.core.closed is not None:
            raise self.core.closed
        self._write(self.core.encode(line))

    async def drain(self) -> None:
        """Wait until the connection takes more; call it between bursts of `send_nowait`."""
        await self._writable.wait()

    async def reports(self) -> AsyncIterator[Report]:
        """Yield reports nobody waited for; ends with ConnectionLost when the connection does."""
        while True:
            while self.core.reports:
                yield self.core.reports.popleft()
            if self.core.closed is not None:
                raise self.core.closed
            self._news.clear()
            await self._news.wait()

    # -------------------------------------------------------------------------- moving bytes
    async def _run(self, talk: Conversation[T]) -> T:
        try:
            request = next(talk)
            while True:
                answer = request.answer
                if not answer.done:
                    answer.waiter = asyncio.get_running_loop().create_future()
                    self._write(request.payload)
                    try:
                        await asyncio.wait_for(answer.waiter, self.timeout_s)
                    except TimeoutError as error:
                        self.core.forget(answer)
                        raise RequestTimeout(
                            f"no answer within {self.timeout_s:g} s; the request may still have run"
                        ) from error
                request = talk.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _write(self, payload: bytes) -> None:
        if self._transport is None:
            raise self.core.closed or ConnectionLost("not connected: await connect() first")
        self._transport.write(payload)
        self._sent_at = asyncio.get_running_loop().time()

    def _received(self, data: bytes) -> None:
        try:
            complete = self.core.receive(data)
        except RingbookError as error:
            complete = self.core.connection_lost(error)
            if self._transport is not None:
                self._transport.abort()
        self._wake(complete)
        output = self.core.take_output()
        if output and self._transport is not None:
            self._write(output)

    def _lost(self, reason: str) -> None:
        self._wake(self.core.connection_lost(ConnectionLost(reason)))
        self._writable.set()  # whoever drains must see that it is over

    def _wake(self, complete: list[Any]) -> None:
        for answer in complete:
            if answer.waiter is not None and not answer.waiter.done():
                answer.waiter.set_result(None)
        if self.core.reports or self.core.closed is not None:
            self._news.set()

    def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        if self._transport is None or self.core.closed is not None:
            return
        if loop.time() - self._sent_at >= self.heartbeat_s:
            self._write(b'{"type":"heartbeat"}\n')
        self._beat = loop.call_later(self.heartbeat_s / 2, self._keep_alive)
