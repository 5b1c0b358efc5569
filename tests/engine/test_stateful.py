"""Model and engine under Hypothesis: a failing history is shrunk to its shortest form.

The random flow of test_differential.py is faster and goes deeper; this machine exists for what
comes out when something is wrong: a handful of steps instead of a thousand. After every step all
events were compared, the stream was checked on its own terms, and both sides verified their
invariants.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from engine.config import Instrument, ShardLimits
from engine.records import (
    UNSTATED,
    CommandFlag,
    CommandKind,
    EventKind,
    OrderType,
    TimeInForce,
)
from tests.model.checks_model import BLANK_COMMAND
from tests.model.compare import Pair
from tests.model.desk_model import SUPERVISOR
from tests.model.exchange_model import ExchangeModel, start
from tests.model.flow import World
from tests.model.stream_check import StreamChecker

INSTRUMENTS = (Instrument("AA", "1", "1", "9"), Instrument("BB", "1", "1", "9"))
TEMPLATE = Instrument("TEMPLATE", "1", "1", "9")
ACCOUNTS = 3
EXAMPLES, STEPS = 60, 40

accounts = st.integers(1, ACCOUNTS)
sides = st.integers(0, 1)
prices = st.integers(0, 10)  # 1 .. 9 are prices of the instruments
quantities = st.integers(0, 8)
symbols = st.integers(1, 3)  # 3 is not listed
styles = st.sampled_from(
    (
        (OrderType.LIMIT, TimeInForce.GTC, 0),
        (OrderType.LIMIT, TimeInForce.GTC, CommandFlag.POST_ONLY),
        (OrderType.LIMIT, TimeInForce.IOC, 0),
        (OrderType.LIMIT, TimeInForce.FOK, 0),
        (OrderType.MARKET, TimeInForce.GTC, 0),
        (OrderType.MARKET, TimeInForce.FOK, 0),
    )
)


class Exchanges(RuleBasedStateMachine):
    """Model and engine of one small world, and what ends orders whatever they are."""

    orders = Bundle("orders")
    instruments: ClassVar[tuple[Instrument, ...]] = INSTRUMENTS
    checker: ClassVar[type[StreamChecker]] = StreamChecker

    @initialize(
        orders_max=st.integers(2, 6),
        levels_max=st.integers(1, 4),
        slice_events=st.integers(1, 6),
        max_walk=st.integers(1, 3),
    )
    def open_exchange(self, **sizes: int) -> None:
        self.open(**sizes)

    def open(self, **sizes: int) -> None:
        """Begin with an exchange of these limits."""
        limits = ShardLimits(
            symbols_max=4,
            sessions_max=5,
            accounts_max=8,
            text_ids_max=3,
            events_per_command_max=128,
            batch_max=4,
            **sizes,
        )
        world = World(limits, ACCOUNTS, "create", spread=0, qty_max=0, aggression=0)
        self.pair = Pair(world, self.instruments, TEMPLATE)
        self.now = 1
        self.logons = dict.fromkeys(range(1, ACCOUNTS + 1), 1)
        self.stream = self.checker()
        self.stream.feed(start(ExchangeModel(limits), self.instruments, ACCOUNTS))

    def send(self, kind: CommandKind, account: int, **fields: Any) -> list[dict[str, Any]]:
        who = {"account": account, "session": account, "producer": SUPERVISOR, "in_ts": self.now}
        who["logon"] = self.logons.get(account, 0)
        numbers = {k: v if isinstance(v, bytes) else int(v) for k, v in fields.items()}
        events = self.pair.apply(BLANK_COMMAND | who | {"kind": int(kind)} | numbers)
        self.pair.check()
        self.stream.feed(events)
        return events

    @rule(order=consumes(orders))
    def cancel(self, order: tuple[int, int]) -> None:
        self.send(CommandKind.CANCEL, order[0], order_id=order[1])

    @rule(account=accounts, side=sides, by_side=st.booleans())
    def mass_cancel(self, account: int, side: int, by_side: bool) -> None:
        flags = CommandFlag.BY_SIDE if by_side else 0
        self.send(CommandKind.MASS_CANCEL, account, side=side, flags=flags)

    @rule(span=st.integers(0, 6))
    def wait(self, span: int) -> None:
        self.now += span


class TwoExchanges(Exchanges):
    """Whatever clients do, in whatever order, both exchanges say the same."""

    orders = Exchanges.orders

    @rule(
        target=orders,
        account=accounts,
        side=sides,
        px=prices,
        qty=quantities,
        style=styles,
        symbol_id=symbols,
        number=st.integers(0, 12),
        text=st.sampled_from((b"", b"", b"one", b"two")),
    )
    def place(
        self, account: int, style: tuple[int, int, int], number: int, text: bytes, **fields: int
    ) -> Any:
        order_type, tif, flags = style
        if order_type == OrderType.MARKET:
            fields["px"] = 0
        if text:
            flags |= CommandFlag.TEXT_ID
        events = self.send(
            CommandKind.NEW,
            account,
            order_type=order_type,
            tif=tif,
            flags=flags,
            client_order_id=number,
            text=text,
            **fields,
        )
        accepted = [e for e in events if e["kind"] == EventKind.ACCEPTED]
        return multiple(*((account, e["order_id"]) for e in accepted))

    @rule(order=orders, px=prices, qty=quantities, own=st.booleans())
    def replace(self, order: tuple[int, int], px: int, qty: int, own: bool) -> None:
        account, order_id = order
        fields = {"order_id": order_id, "px": px, "qty": qty, "side": UNSTATED, "tif": UNSTATED}
        self.send(CommandKind.REPLACE, account if own else account % ACCOUNTS + 1, **fields)

    @rule(account=accounts, number=st.integers(1, 12))
    def cancel_by_client_id(self, account: int, number: int) -> None:
        self.send(CommandKind.CANCEL, account, target_client_order_id=number)

    @rule(account=accounts, rows=st.integers(0, 3), order=orders)
    def open_orders(self, account: int, rows: int, order: tuple[int, int]) -> None:
        self.send(CommandKind.QUERY_OPEN_ORDERS, account, qty=rows, order_id=order[1])

    # ------------------------------------------------------------------------------- sessions
    @rule(account=accounts, dead_man=st.integers(-1, 6), flags=st.sampled_from((0, 64)))
    def logon(self, account: int, dead_man: int, flags: int) -> None:
        self.logons[account] += dead_man >= 0
        fields = {"logon": self.logons[account], "text": b"local"}
        self.send(CommandKind.SESSION_OPEN, account, amount=dead_man, flags=flags, **fields)

    @rule(account=accounts)
    def logoff(self, account: int) -> None:
        self.send(CommandKind.SESSION_CLOSE, account)

    @rule(account=accounts)
    def keep(self, account: int) -> None:
        self.send(CommandKind.SESSION_KEEP, account)

    @rule(grace=st.integers(0, 6))
    def lose_producer(self, grace: int) -> None:
        producer = {"client_order_id": SUPERVISOR, "amount": grace}
        self.send(CommandKind.PRODUCER_RESET, 0, **producer)

    @rule(slot=st.integers(0, ACCOUNTS + 1), pause=st.sampled_from((0, 0, 3)))
    def time(self, slot: int, pause: int) -> None:
        self.send(CommandKind.TIME, 0, session=slot, amount=pause, producer=0)

    @rule(day=st.integers(0, 2), letter=st.sampled_from(b"OOC"))
    def feed(self, day: int, letter: int) -> None:
        self.send(CommandKind.FEED_STATE, 0, order_type=letter, amount=day, expire_ts=1)

    @rule(number=st.integers(0, 2), lost=st.booleans())
    def begin_anew(self, number: int, lost: bool) -> None:
        self.send(CommandKind.INCARNATION, 0, amount=number, expire_ts=lost)

    @invariant()
    def open_quantity_is_what_the_stream_says(self) -> None:
        if hasattr(self, "pair"):
            live = {o.order_id: (o.total, o.cum) for o in self.pair.model.orders.values()}
            told = {n: (life.total, life.cum) for n, life in self.stream.lives.items()}
            assert live == told


TwoExchanges.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)


# Compiling, where nothing is cached yet, counts for the test.
@pytest.mark.slow
@pytest.mark.timeout(300)
class TestTwoExchanges(TwoExchanges.TestCase):
    """The machine as a test."""
