"""The Python client of the exchange, blocking. `ringbook.Client` is this class. Cold.

    with Client("127.0.0.1", 9100, account="demo", token="demo") as client:
        order = client.limit("AAPL", "buy", 10, "187.42")
        print(order.status, order.filled, order.remaining)
        client.cancel(order)
        iceberg = client.limit("GOLD", "sell", 500, "12.50", peak=50, stp="decrement")
        for report in client.reports(1.0):
            iceberg = iceberg.follow(report)     # what became of it since

Verbs wait for the exchange's answer and return it; a refusal is raised (gateway/client_errors.py
draws the tree). Pipelined: `send_nowait` only queues, `flush` sends, `reports()` yields what comes.
Reports that answer no waiting verb (fills of resting orders, orders of other sessions) are in
`reports()` too.

A connection that breaks is not the end: `reconnect()` logs on again and is given every report that
was missed, in order; so does the client itself where `reconnect_s` says how long it may try. An
order whose answer was lost can be sent again under its id and runs at most once:

    try:
        order = client.limit("AAPL", "buy", 10, "187.42")
    except NetworkError as lost:
        client.reconnect()                       # what was missed is in reports()
        order = client.limit("AAPL", "buy", 10, "187.42", id=lost.client_id)

The second one finds the order as it stands, or raises DuplicateOrderId: then it ran and ended, and
its reports are among those that were missed. With `reconnect_s` all this happens inside the verb. A
program that starts anew resumes from what it has kept of `client.state` (gateway/client_state.py).

A thread keeps the session alive: when nothing was sent for `heartbeat_s` it sends a heartbeat, and
it reads what has come, so that a client that computes for an hour is neither taken for dead nor
drowned. A lock makes every method safe to call from any thread; one verb runs at a time. Whoever
wants many requests in flight uses `send_nowait` or AsyncClient.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

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
RECEIVE_BYTES = 1 << 18
FLUSH_BYTES = 1 << 16
RETRY_S, RETRY_S_MAX = 0.05, 1.0  # between two attempts to reconnect
BEATS_PER_DEAD_MAN = 4


class Client:
    """One logged-on connection. `session` names it; the newest logon under a name owns it.

    `cancel_on_disconnect`: none, day or all. `dead_man`: seconds without a sign of life after which
    the exchange cancels the session's orders by itself. `resume`: go on from the state of an
    earlier client. `reconnect_s`: how long to try to come back when the connection breaks; 0: the
    verb raises ConnectionLost.
    """

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
        self._lock = threading.RLock()
        self._out = bytearray()
        self._sent_at = time.monotonic()
        self._socket: socket.socket | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -------------------------------------------------------------------------- connection
    def connect(self) -> Logon:
        """Connect and log on. The context manager does it."""
        with self._lock:
            try:
                self._dial()
                logon = self._converse(self.core.log_on())
            except RingbookError:
                self._drop()
                raise
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._keep_alive, name="ringbook-heartbeat", daemon=True
                )
                self._thread.start()
            return logon

    def reconnect(self, *, resume: bool = True) -> Logon:
        """Log on again over a new connection, whatever became of the old one. With `resume` what
        was missed comes first in `reports()`; ResumeRefused says that it cannot be had.
        """
        with self._lock:
            self._hang_up()
            self._stop.clear()
            self.core.connection_lost(ConnectionLost("the client reconnects"))
            self.core.begin_again(resume=resume)
            return self.connect()

    def _dial(self) -> None:
        try:
            self._socket = socket.create_connection((self.host, self.port), self.timeout_s)
        except OSError as error:
            reason = error.strerror or error
            raise ConnectionLost(
                f"no exchange at {self.host}:{self.port} ({reason}); start one with: run.py up"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def _comes_back(self) -> bool:
        # Whether a broken connection is to be replaced without asking.
        broken = type(self.core.closed) is ConnectionLost  # and not LoggedOut
        return self.reconnect_s > 0 and broken and not self._stop.is_set()

    def _recover(self) -> None:
        # A new connection, everything that was missed, and again what nobody has heard of.
        until, pause = time.monotonic() + self.reconnect_s, RETRY_S
        while True:
            self.core.begin_again()
            try:
                self._dial()
                self._converse(self.core.log_on())
                self._await_resumed()
                break
            except (NetworkError, ExchangeNotAvailable) as error:
                self._hang_up()
                if time.monotonic() + pause > until:
                    self.core.connection_lost(error)
                    raise
            except RingbookError as error:
                self._hang_up()
                self.core.connection_lost(error)
                raise
            if self._stop.wait(pause):
                raise ConnectionLost("the client was closed")
            pause = min(2 * pause, RETRY_S_MAX)
        self._out += self.core.taken_up()

    def _await_resumed(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not self.core.resumed:
            before = self.core.received
            self._move(self.heartbeat_s)
            if self.core.received != before:
                deadline = time.monotonic() + self.timeout_s
            elif time.monotonic() > deadline:
                raise RequestTimeout(f"no missed reports for {self.timeout_s:g} s")

    def _hang_up(self) -> None:
        self._out.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Log out and close; safe to call twice."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * self.heartbeat_s + 1)
            self._thread = None
        with self._lock:
            if self._socket is not None and self.core.closed is None:
                try:
                    self.send_nowait({"type": "logout"})
                    self._flush(time.monotonic() + min(self.timeout_s, 1.0))
                except (NetworkError, OSError):
                    self._out.clear()  # the other side is gone: there is nobody to log out from
            self._drop()

    def _drop(self) -> None:
        self._hang_up()
        self.core.connection_lost(ConnectionLost("the client was closed"))

    def __enter__(self) -> Self:
        if self._socket is None:
            self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
    def place(
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
        with self._lock:
            line = self.core.order_line(symbol, side, qty, price, **options)
            try:
                return self._run(self.core.place(line))
            except NetworkError as error:
                raise about_order(error, line["id"]) from error

    def limit(
        self,
        symbol: str,
        side: str,
        qty: Number,
        price: Number,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Enter a limit order; options as for `place`."""
        return self.place(symbol, side, qty, price, **options)

    def market(
        self, symbol: str, side: str, qty: Number | None = None, **options: Unpack[OrderOptions]
    ) -> Order:
        """Enter a market order, of a quantity or of a `budget`; options as for `place`."""
        return self.place(symbol, side, qty, None, **options)

    def place_list(self, kind: str, symbol: str, *legs: Line) -> list[Order]:
        """Enter linked orders together: `kind` oco, oto or otoco, each leg what `place` takes as
        keywords, but the symbol. Gives the orders, leg by leg.
        """
        with self._lock:
            line = self.core.list_line(kind, symbol, legs)
            try:
                return self._run(self.core.place_list(line))
            except NetworkError as error:
                raise about_order(error, line["leg1_id"]) from error

    def quote(
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
        with self._lock:
            line = self.core.quote_line(symbol, bid, bid_qty, ask, ask_qty, tag=tag)
            try:
                return self._run(self.core.quote(line))
            except NetworkError as error:
                raise about_order(error, line["id"]) from error

    def cancel(
        self,
        order: Order | int | None = None,
        *,
        id: Id | None = None,
        symbol: str | None = None,
        shard: int | None = None,
    ) -> Order:
        """Cancel an order, named by itself, its order_id, or `id`, its client id."""
        with self._lock:
            return self._run(self.core.cancel(target_line(order, id, symbol, shard)))

    def replace(
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
        with self._lock:
            target = target_line(order, id, symbol, shard)
            return self._run(self.core.replace(target, qty, price, **changes))

    def mass_cancel(
        self,
        *,
        symbol: str | None = None,
        side: str | None = None,
        tag: int | None = None,
        shard: int | None = None,
    ) -> list[Report]:
        """Cancel all orders of the account that fit; gives the cancellations."""
        with self._lock:
            line: Line = {"symbol": symbol, "side": side, "tag": tag, "shard": shard}
            return self._run(self.core.mass_cancel(line))

    def order(
        self,
        order: Order | int | None = None,
        *,
        id: Id | None = None,
        symbol: str | None = None,
        shard: int | None = None,
    ) -> Order:
        """Ask where a live order stands."""
        with self._lock:
            return self._run(self.core.order(target_line(order, id, symbol, shard)))

    def open_orders(self, symbol: str | None = None, *, page: int = 100) -> list[Order]:
        """List the account's live orders, all pages, in entry order per shard."""
        with self._lock:
            return self._run(self.core.open_orders(symbol, page))

    def book(self, symbol: str, depth: int | None = None) -> Book:
        """Ask for the best levels of one book."""
        with self._lock:
            return self._run(self.core.book(symbol, depth))

    def instruments(self) -> list[InstrumentInfo]:
        """List what can be traded."""
        with self._lock:
            return self._run(self.core.instruments())

    def limits(self) -> dict[str, Any]:
        """Ask for the limits of account and gateway."""
        with self._lock:
            return self._run(self.core.limits())

    # --------------------------------------------------------------------------- pipelined
    def send_nowait(self, line: Line) -> None:
        """Queue one request line as docs/protocol.md has it; its reports come through `reports()`.
        What is under way when the connection breaks is not sent again.

        `core.order_line(...)` makes the line of a new order with the next client id.
        """
        with self._lock:
            if self.core.closed is not None:
                raise self.core.closed
            self._out += self.core.encode(line)
            if len(self._out) >= FLUSH_BYTES:
                self._flush(time.monotonic() + self.timeout_s)

    def flush(self) -> None:
        """Send what `send_nowait` has queued."""
        with self._lock:
            self._flush(time.monotonic() + self.timeout_s)

    def reports(self, timeout_s: float | None = 0.0) -> Iterator[Report]:
        """Yield reports nobody waited for, until none came for `timeout_s` (None: for ever)."""
        waited_until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                if self._out:
                    self._flush(time.monotonic() + self.timeout_s)
                if not self.core.reports:
                    self._look_around()
                report = self.core.reports.popleft() if self.core.reports else None
            if report is not None:
                yield report
                if timeout_s is not None:
                    waited_until = time.monotonic() + timeout_s
                continue
            if self.core.closed is not None:
                raise self.core.closed
            left = 0.05 if waited_until is None else waited_until - time.monotonic()
            if left <= 0:
                return
            self._wait_readable(min(left, 0.05))

    def fileno(self) -> int:
        """Give the socket's descriptor, to wait for reports together with other things."""
        return self._open().fileno()

    # -------------------------------------------------------------------------- moving bytes
    def _run(self, talk: Conversation[T]) -> T:
        with self._lock:
            if self._comes_back():
                self._recover()
            return self._converse(talk, again=True)

    def _converse(self, talk: Conversation[T], *, again: bool = False) -> T:
        # `again`: over as many connections as it takes.
        try:
            request = next(talk)
            while True:
                self._out += request.payload
                try:
                    self._await(request.answer)
                except ConnectionLost:
                    if not request.answer.done or request.answer.failure is not None:
                        self._await_again(request.answer, again)
                request = talk.send(request.answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _await_again(self, answer: Answer, again: bool) -> None:
        # The connection broke while this was waited for.
        while again and self._comes_back():
            self._recover()
            try:
                self._await(answer)
                return
            except ConnectionLost:
                continue
        self.core.forget(answer)
        raise self.core.closed or ConnectionLost("the connection ended")

    def _await(self, answer: Answer) -> None:
        deadline = time.monotonic() + self.timeout_s
        self._flush(deadline)
        while not answer.done:
            left = deadline - time.monotonic()
            if left <= 0:
                self.core.forget(answer)
                raise RequestTimeout(
                    f"no answer within {self.timeout_s:g} s; the request may still have run"
                )
            self._move(min(left, self.heartbeat_s))

    def _look_around(self) -> None:
        # Write what can be, read what is there; over a new connection, if there has to be one.
        try:
            self._move(0.0)
        except ConnectionLost:
            if not self._comes_back():
                raise
            self._recover()

    def _flush(self, deadline: float) -> None:
        # Reads while it writes: a gateway whose output to us is full stops reading from us.
        while self._out:
            self._move(0.0)
            if self._out:
                if time.monotonic() > deadline:
                    raise RequestTimeout(f"the exchange took no bytes for {self.timeout_s:g} s")
                select.select([self._open()], [self._open()], [], 0.05)

    def _move(self, wait_s: float) -> None:
        """Write what is due, read what has come; wait at most `wait_s` for something to come."""
        self._out += self.core.take_output()
        if not self._out and time.monotonic() - self._sent_at >= self.heartbeat_s:
            self._out += b'{"type":"heartbeat"}\n'
        connection = self._open()
        try:
            if self._out:
                self._write(connection)
            if wait_s > 0:
                select.select([connection], [], [], wait_s)
            while True:
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionLost("the exchange closed the connection")
                self.core.receive(data)
                if len(data) < RECEIVE_BYTES:
                    return
        except BlockingIOError:
            return
        except ConnectionLost as error:
            self._lost(error)
        except OSError as error:
            self._lost(ConnectionLost(f"the connection broke: {error.strerror or error}"))

    def _write(self, connection: socket.socket) -> None:
        try:
            sent = connection.send(self._out)
        except BlockingIOError:
            return
        self._sent_at = time.monotonic()
        del self._out[:sent]

    def _lost(self, error: RingbookError) -> None:
        self._hang_up()
        self.core.suspend(error)
        if not self._comes_back():
            self.core.connection_lost(error)
        raise self.core.closed or error

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise self.core.closed or ConnectionLost("not connected: call connect() first")
        return self._socket

    def _wait_readable(self, wait_s: float) -> None:
        connection = self._socket
        if connection is not None and connection.fileno() >= 0:
            select.select([connection], [], [], wait_s)

    def _keep_alive(self) -> None:
        while not self._stop.wait(self.heartbeat_s / 2):
            if not self._lock.acquire(blocking=False):
                continue  # a verb is running: it reads and beats itself
            try:
                if self._socket is None and not self._comes_back():
                    return
                self._look_around()
            except RingbookError:
                return  # kept in core.closed, which the next verb raises
            finally:
                self._lock.release()
