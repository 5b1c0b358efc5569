"""The Python client of the exchange for asyncio. `ringbook.AsyncClient` is this class. Cold.

    async with AsyncClient("127.0.0.1", 9100, account="demo", token="demo") as client:
        order = await client.limit("AAPL", "buy", 10, "187.42")
        async for report in client.reports():
            ...

The same verbs, errors and reports as gateway/client.py, and the same ways back from a broken
connection (`reconnect`, `reconnect_s`, `state`); many verbs may be in flight at once. Heartbeats
and answers to test requests go out by themselves. All methods belong to the event loop's thread.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from gateway.client import BEATS_PER_DEAD_MAN, RETRY_S, RETRY_S_MAX
from gateway.client_answers import (
    Answer,
    Line,
    Number,
    OrderOptions,
    ReplaceOptions,
    target_line,
)
from gateway.client_core import ClientCore, Conversation
from gateway.client_errors import (
    ConnectionLost,
    ExchangeNotAvailable,
    NetworkError,
    RequestTimeout,
    RingbookError,
    about_order,
)
from gateway.client_reports import Book, Gap, Id, InstrumentInfo, Logon, Order, Quote, Report
from gateway.client_state import ResumeState

T = TypeVar("T")


class _Wire(asyncio.Protocol):
    """Bytes between the loop and the core."""

    def __init__(self, client: "AsyncClient") -> None:
        self.client = client
        self.left = False  # by us: what comes now belongs to nobody

    def data_received(self, data: bytes) -> None:
        if not self.left:
            self.client._received(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.left:
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
        dead_man: float | None = None,
        resume: ResumeState | None = None,
        reconnect_s: float = 0.0,
    ) -> None:
        self.host, self.port = host, port
        self.timeout_s, self.reconnect_s = timeout_s, reconnect_s
        self.heartbeat_s = min(heartbeat_s, (dead_man or heartbeat_s * 4) / BEATS_PER_DEAD_MAN)
        self.core = ClientCore(
            account,
            token,
            session=session,
            ids=ids,
            cancel_on_disconnect=cancel_on_disconnect,
            receipts=receipts,
            resume=resume,
            dead_man=dead_man,
        )
        self._transport: asyncio.Transport | None = None
        self._wire = _Wire(self)
        self._recovery: asyncio.Task[None] | None = None
        self._ready = False  # verbs may be sent
        self._heard = asyncio.Event()
        self._greeting: Answer | None = None  # the logon's, while it is waited for
        self._writable = asyncio.Event()
        self._news = asyncio.Event()
        self._beat: asyncio.TimerHandle | None = None
        self._sent_at = 0.0

    # -------------------------------------------------------------------------- connection
    async def connect(self) -> Logon:
        """Connect and log on. The context manager does it."""
        try:
            await self._dial()
            logon = await self._run(self.core.log_on(), patient=False)
        except RingbookError:
            await self.close()
            raise
        self._ready = True
        self._keep_alive()
        return logon

    async def reconnect(self, *, resume: bool = True) -> Logon:
        """Log on again over a new connection, whatever became of the old one. With `resume` what
        was missed comes first in `reports()`; ResumeRefused says that it cannot be had.
        """
        self._recovery_end()
        self._hang_up()
        self._wake(self.core.connection_lost(ConnectionLost("the client reconnects")))
        self.core.begin_again(resume=resume)
        return await self.connect()

    async def close(self) -> None:
        """Log out and close; safe to call twice."""
        self._recovery_end()
        transport = self._transport
        if transport is not None and self.core.closed is None:
            transport.write(self.core.encode({"type": "logout"}))
        self._hang_up()
        self._wake(self.core.connection_lost(ConnectionLost("the client was closed")))
        if transport is not None:
            await asyncio.sleep(0)  # lets the transport run its close

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        self._writable.set()
        self._wire = wire = _Wire(self)
        try:
            async with asyncio.timeout(self.timeout_s):
                transport, _ = await loop.create_connection(lambda: wire, self.host, self.port)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "no answer"
            raise ConnectionLost(
                f"no exchange at {self.host}:{self.port} ({reason}); start one with: run.py up"
            ) from error
        self._transport = transport

    def _hang_up(self) -> None:
        self._wire.left = True
        self._ready = False
        self._writable.set()  # whoever drains must see that it is over
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _recovery_end(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None

    async def _recover(self) -> None:
        # A new connection, everything that was missed, and again what nobody has heard of.
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self.reconnect_s, RETRY_S
        while True:
            self.core.begin_again()
            try:
                await self._dial()
                await self._run(self.core.log_on(), patient=False)
                await self._await_resumed()
                break
            except (NetworkError, ExchangeNotAvailable) as error:
                if loop.time() + pause > until:
                    return self._give_up(error)
            except RingbookError as error:
                return self._give_up(error)
            self._hang_up()
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_S_MAX)
        self._recovery = None
        self._write(self.core.taken_up())
        self._ready = True
        self._keep_alive()

    def _give_up(self, error: RingbookError) -> None:
        self._recovery = None
        self._hang_up()
        self._wake(self.core.connection_lost(error))

    async def _await_resumed(self) -> None:
        while not self.core.resumed:
            self._heard.clear()
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._heard.wait()
            except TimeoutError as error:
                raise RequestTimeout(f"no missed reports for {self.timeout_s:g} s") from error
            if self.core.closed is not None:
                raise self.core.closed

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
    def state(self) -> ResumeState:
        """What a later client needs to go on from here."""
        return self.core.state

    @property
    def gaps(self) -> list[Gap]:
        """Reports that did not arrive, by shard and number."""
        return self.core.gaps

    # ------------------------------------------------------------------------------- verbs
    async def place(
        self,
        symbol: str,
        side: str,
        qty: Number | None = None,
        price: Number | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Enter an order; without a price it is a market order, with a `budget` a budget order.
        Options: `OrderOptions`.
        """
        line = self.core.order_line(symbol, side, qty, price, **options)
        try:
            return await self._run(self.core.place(line))
        except NetworkError as error:
            raise about_order(error, line["id"]) from error

    async def limit(
        self,
        symbol: str,
        side: str,
        qty: Number,
        price: Number,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Enter a limit order; options as for `place`."""
        return await self.place(symbol, side, qty, price, **options)

    async def market(
        self, symbol: str, side: str, qty: Number | None = None, **options: Unpack[OrderOptions]
    ) -> Order:
        """Enter a market order, of a quantity or of a `budget`; options as for `place`."""
        return await self.place(symbol, side, qty, None, **options)

    async def place_list(self, kind: str, symbol: str, *legs: Line) -> list[Order]:
        """Enter linked orders together: `kind` oco, oto or otoco, each leg what `place` takes as
        keywords, but the symbol. Gives the orders, leg by leg.
        """
        line = self.core.list_line(kind, symbol, legs)
        try:
            return await self._run(self.core.place_list(line))
        except NetworkError as error:
            raise about_order(error, line["leg1_id"]) from error

    async def quote(
        self,
        symbol: str,
        bid: Number | None = None,
        bid_qty: Number | None = None,
        ask: Number | None = None,
        ask_qty: Number | None = None,
        *,
        tag: int | None = None,
    ) -> Quote:
        """Replace both sides of the account's quote in an instrument with the full rules: prices
        and the open quantities wanted. A side that is not stated goes.
        """
        line = self.core.quote_line(symbol, bid, bid_qty, ask, ask_qty, tag=tag)
        try:
            return await self._run(self.core.quote(line))
        except NetworkError as error:
            raise about_order(error, line["id"]) from error

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
        **changes: Unpack[ReplaceOptions],
    ) -> Order:
        """Change price, total quantity, or what `ReplaceOptions` has. A mere decrease keeps the
        place in the queue.
        """
        target = target_line(order, id, symbol, shard)
        return await self._run(self.core.replace(target, qty, price, **changes))

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
        """Send one request line (docs/protocol.md); its reports come through `reports()`. What is
        under way when the connection breaks is not sent again.
        """
        if self.core.closed is not None or not self._ready:
            raise self.core.closed or ConnectionLost("the connection is being made again")
        self._write(self.core.encode(line))

    async def drain(self) -> None:
        """Wait until the connection takes more; call it between bursts of `send_nowait`."""
        await self._writable.wait()

    async def reports(self) -> AsyncIterator[Report]:
        """Yield reports nobody waited for; ends with ConnectionLost when the connection does."""
        while True:
            while self.core.reports:
                yield self.core.reports.popleft()
            if self.core.closed is not None and self._recovery is None:
                raise self.core.closed
            self._news.clear()
            await self._news.wait()

    # -------------------------------------------------------------------------- moving bytes
    async def _run(self, talk: Conversation[T], *, patient: bool = True) -> T:
        # `patient`: over as many connections as it takes.
        try:
            request = next(talk)
            while True:
                answer = request.answer
                if not answer.done:
                    answer.waiter = asyncio.get_running_loop().create_future()
                    if self._recovery is None or not patient:
                        self._write(request.payload)  # else the recovery sends it
                    await self._await(answer, patient)
                request = talk.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _await(self, answer: Answer, patient: bool) -> None:
        # The time in which a new connection is sought does not count.
        self._greeting = self._greeting if patient else answer
        while not answer.done:
            done, _ = await asyncio.wait({answer.waiter}, timeout=self.timeout_s)
            if not done and not (patient and self._recovery is not None):
                self.core.forget(answer)
                raise RequestTimeout(
                    f"no answer within {self.timeout_s:g} s; the request may still have run"
                )

    def _write(self, payload: bytes) -> None:
        if self._transport is None:
            raise self.core.closed or ConnectionLost("not connected: await connect() first")
        self._transport.write(payload)
        self._sent_at = asyncio.get_running_loop().time()

    def _received(self, data: bytes) -> None:
        self._heard.set()
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
        error, ready = ConnectionLost(reason), self._ready
        self._hang_up()
        self.core.suspend(error)
        self._heard.set()
        if self._recovery is not None:  # this attempt failed: nobody but it must know
            if self._greeting is not None and not self._greeting.done:
                self.core.forget(self._greeting)
                self._greeting.failure, self._greeting.done = self.core.closed, True
                self._wake([self._greeting])
        elif ready and self.reconnect_s > 0 and type(self.core.closed) is ConnectionLost:
            self._recovery = asyncio.get_running_loop().create_task(self._recover())
        else:
            self._wake(self.core.connection_lost(error))

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
