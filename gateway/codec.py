"""The compiled codec as Python sees it: one object that holds the arrays and makes the calls.

Hot in `decode` and `encode` (once per receive and per run of events), cold in the rest. The kernels
are in codec_decode.py and codec_encode.py, what they share with Python in state.py. One receive
buffer serves all connections: a receive is handled before the next one begins, what is left of a
line is carried by its connection (at most a line).
"""

from typing import Any

import numpy as np

from engine.config import Config
from engine.records import EVENT_SLOT
from engine.shm_ring import (
    CTRL_WORDS,
    EVENT_CTRL_WORDS,
    GATE,
    READER_POSITION,
    CommandRings,
    EventRings,
    load_word,
    position_wrapped,
    ring_scan,
    store_word,
)  # fmt: skip
from gateway.codec_command import command_push, ring_rooms
from gateway.codec_decode import ARGUMENT_BITS, SLOW, lines_decode
from gateway.codec_encode import (
    IDLE,
    LAPPED,
    MORE,
    SPECIAL,
    UNKNOWN,
    events_encode,
)
from gateway.codec_rest import ASLEEP, events_behind, sleep_end, sleep_try
from gateway.state import (
    C_END,
    C_KIND,
    C_RECEIPT_TS,
    C_SHARD,
    C_TEXT,
    H_ARGUMENT,
    H_COMMAND_CAPACITY,
    H_EVENT_CAPACITY,
    H_EVENT_SHARD,
    H_PUBLISHED,
    H_SCRATCH_INDEX,
    H_SPIN_NS,
    H_WRITE_BASE,
    H_WRITES,
    OUTPUT_HALF_BYTES,
    S_CONSUMER,
    S_CURSOR,
    S_FD,
    S_POSITION,
    S_RING,
    S_UP,
    WRITE_WORDS,
    GatewayState,
)  # fmt: skip

__all__ = [
    "IDLE",
    "LAPPED",
    "MORE",
    "RECEIVE_BYTES",
    "SLOW",
    "SPECIAL",
    "UNKNOWN",
    "Codec",
    "ReceiveBuffer",
]

COPIES = 256  # events copied out of the ring at a time
RECEIVE_BYTES = 1 << 17
_SENTINEL_BYTES = 64
_Array = np.ndarray[Any, Any]


class ReceiveBuffer:
    """Room for what one connection carries over, one receive, and the LF the scanner puts at the
    end.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self.offset = -(-(line_bytes_max + 2) // 64) * 64
        size = self.offset + RECEIVE_BYTES + _SENTINEL_BYTES
        assert size < 1 << ARGUMENT_BITS, (
            "a place in the buffer must fit into the argument of lines_decode"
        )
        self.array = np.zeros(size, np.uint8)
        self.view = memoryview(self.array)  # type: ignore[arg-type]
        self.room = self.view[self.offset : self.offset + RECEIVE_BYTES]


class Codec:
    """The rings of one instance and the buffers, for one gateway."""

    def __init__(
        self,
        config: Config,
        state: GatewayState,
        commands: CommandRings,
        events: EventRings,
        buffer: ReceiveBuffer,
    ) -> None:
        self.state, self.words, self.view = state, state.words, state.view
        self.commands, self.events, self.buffer = commands, events, buffer
        self.copies = np.zeros(COPIES, EVENT_SLOT)
        self.out = np.zeros(2 * OUTPUT_HALF_BYTES, np.uint8)
        self.out_view = memoryview(self.out)  # type: ignore[arg-type]
        rings = (commands.slots, commands.slot_words, commands.ctrl, commands.shard_ctrl)
        self._decode_arrays = (state.words, buffer.array, *rings)
        self._push_arrays = (state.words, *rings)
        self._encode_arrays = (
            state.words, events.slot_words, events.ctrl, self.copies, self.copies.view(np.int64),
            self.out,
        )  # fmt: skip

    def attach(self, producer: int, reader: int, shard_fds: list[int]) -> None:
        """Take up the rings: commands after the last one published, events from now on."""
        self.view[H_COMMAND_CAPACITY] = self.commands.capacity
        self.view[H_EVENT_CAPACITY] = self.events.capacity
        for shard in range(self.state.shards):
            base, ring = self.state.shard_base(shard), self.commands.ring(shard, producer)
            position = int(
                ring_scan(
                    self.commands.ctrl, self.commands.slot_words, ring, self.commands.capacity
                )
            )
            consumer = int(load_word(self.commands.ctrl, ring * CTRL_WORDS))
            cursor = self.events.committed(shard)
            values = {
                S_RING: ring, S_POSITION: position, S_CONSUMER: consumer, S_FD: shard_fds[shard],
                S_UP: 1, S_CURSOR: cursor,
            }  # fmt: skip
            for word, value in values.items():
                self.view[base + word] = value
            store_word(
                self.events.ctrl, shard * EVENT_CTRL_WORDS + READER_POSITION + 8 * reader, cursor
            )

    # ------------------------------------------------------------------------------- in
    def decode(self, row: int, start: int, end: int) -> int:
        """Take the lines in the receive buffer; result as lines_decode."""
        self.view[H_ARGUMENT] = row << 2 * ARGUMENT_BITS | start << ARGUMENT_BITS | end
        return int(lines_decode(*self._decode_arrays))

    @property
    def published(self) -> int:
        """Commands the last decode or push published."""
        return int(self.view[H_PUBLISHED])

    def push(self, shard: int, values: dict[int, int], text: bytes, receipt_ts: int) -> int:
        """Write one command made by Python; returns its producer_seq, 0 when the ring is full or
        gated.
        """
        view = self.view
        for word in range(C_KIND, C_END):
            view[word] = 0
        for word, value in values.items():
            view[word] = value
        for i in range(0, len(text), 8):
            view[C_TEXT + i // 8] = int.from_bytes(
                text[i : i + 8], "little", signed=len(text) - i >= 8
            )
        view[C_SHARD], view[C_RECEIPT_TS] = shard, receipt_ts
        return int(command_push(*self._push_arrays))

    def rooms(self) -> int:
        """Fewest free slots over the shards that are up."""
        return int(ring_rooms(self.words, self.commands.ctrl))

    def room(self, shard: int) -> int:
        """Free slots of the ring to one shard; 0 also when it is gated."""
        base = self.state.shard_base(shard)
        if load_word(self.commands.ctrl, self.view[base + S_RING] * CTRL_WORDS + GATE):
            return 0
        return self.commands.capacity - position_wrapped(
            self.view[base + S_POSITION], -self.consumed(shard)
        )

    def consumed(self, shard: int) -> int:
        """How far the shard has read this gateway's ring."""
        return int(
            load_word(
                self.commands.ctrl, self.view[self.state.shard_base(shard) + S_RING] * CTRL_WORDS
            )
        )

    # ------------------------------------------------------------------------------- out
    def encode(self, spin_ns: int = 0) -> int:
        """Turn new events into reports (`writes`); result as events_encode."""
        self.view[H_SPIN_NS] = spin_ns
        return int(events_encode(*self._encode_arrays))

    def writes(self) -> list[tuple[int, memoryview]]:
        """(session row, bytes) of the last encode; the bytes are valid until the next."""
        view, base = self.view, self.view[H_WRITE_BASE]
        out = self.out_view
        return [
            (view[place], out[view[place + 1] : view[place + 2]])
            for place in range(base, base + view[H_WRITES] * WRITE_WORDS, WRITE_WORDS)
        ]

    def special(self) -> tuple[int, Any]:
        """(shard, event) that ended the last encode."""
        return int(self.view[H_EVENT_SHARD]), self.copies[self.view[H_SCRATCH_INDEX]].copy()

    def behind(self) -> int:
        """Events committed and not yet read, over the worst shard."""
        return int(events_behind(self.words, self.events.ctrl))

    # ------------------------------------------------------------------------------- sleeping
    def sleep_try(self, force: bool) -> bool:
        """Announce the sleep, unless there are events, or (without `force`) answers are due."""
        return int(sleep_try(self.words, self.commands.ctrl, self.events.ctrl, force)) == ASLEEP

    def sleep_end(self) -> None:
        """No signal needed any more."""
        sleep_end(self.words, self.events.ctrl)
