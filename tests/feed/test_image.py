"""The beginning of a feed session, as a listener that knows nothing sees it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.admin import feed_state
from engine.records import SYMBOL_INDEX_MASK, Side
from feed.itch import MESSAGES, event_to_message, instrument_table
from tests.feed.flow import INSTRUMENTS, Flow, slots_of

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]


def messages_of(events: np.ndarray) -> list[bytes]:
    """The ITCH messages of public events, for somebody whose table of instruments is empty."""
    slots, table, buffer = slots_of(events), instrument_table(), np.zeros(64, np.uint8)
    found = []
    for index in range(len(slots)):
        length = int(event_to_message(slots, index, table, buffer))
        if length:
            found.append(buffer[:length].tobytes())
    return found


def test_image_is_a_whole_book_in_priority_order(seed: int) -> None:
    flow = Flow(seed)
    flow.run(600)
    exchange = flow.exchange
    image = exchange.step(feed_state("O", 20260102, 3))
    messages = messages_of(image)
    letters = b"".join(message[:1] for message in messages)
    adds = letters.count(b"A")
    assert adds > 10
    assert letters == b"S" + b"RH" * len(INSTRUMENTS) + b"A" * adds
    assert image["feed_seq"].tolist() == list(range(1, len(letters) + 1))
    told = [np.frombuffer(m, MESSAGES["A"])[0] for m in messages if m[:1] == b"A"]
    expected = [
        (exchange.symbol_id(i.symbol) & SYMBOL_INDEX_MASK, b"BS"[side], row)
        for i in INSTRUMENTS
        for side in (Side.BUY, Side.SELL)
        for row in exchange.orders(i.symbol, side)
    ]
    got = [(int(m["locate"]), bytes(m["side"])[0], int(m["ref"]), int(m["shares"])) for m in told]
    assert got == [
        (locate, side, int(row["public_ref"]), int(row["leaves"])) for locate, side, row in expected
    ]
