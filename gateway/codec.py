"""The compiled codec as Python sees it: one object that holds the arrays and makes the calls.

Hot in `decode` and `encode` (once per receive and per run of events), cold in the rest. The kernels
are in codec_decode.py and codec_encode.py, what they share with Python in state.py. One receive
buffer serves all connections: a receive is handled before the next one begins, what is left of a
line is carried by its connection (at most a line).
"""

from typing import Any

import numpy as np

from engine.config import Config
from engine.records import EVENT, EVENT_SLOT
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
from gateway.codec_command import command_push, commands_push, ring_rooms
from gateway.codec_decode import ARGUMENT_BITS, SLOW, lines_decode
from gateway.codec_encode import (
    IDLE,
    LAPPED,
    MORE,
    SPECIAL,
    UNKNOWN,
    events_encode,
)
from gateway.codec_log import logged_encode, session_encode
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
    H_READER,
    H_SCRATCH_INDEX,
    H_SPIN_NS,
    H_TOTAL_LOST,
    H_WRITE_BASE,
    H_WRITES,
    OUTPUT_HALF_BYTES,
    S_CONSUMER,
    S_CURSOR,
    S_FD,
    S_LAPPED,
    S_LOG,
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
_EVENT_WORDS = EVENT.itemsize // 8
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
        self._copy_rows = self.copies.view(np.int64).reshape(COPIES, -1)
        self.out = np.zeros(2 * OUTPUT_HALF_BYTES, np.uint8)
        self.out_view = memoryview(self.out)  # type: ignore[arg-type]
        rings = (commands.slots, commands.slot_words, commands.ctrl, commands.shard_ctrl)
        self._decode_arrays = (state.words, buffer.array, *rings)
        self._push_arrays = (state.words, *rings)
        self._encode_arrays = (
            state.words, events.slot_words, events.ctrl, self.copies, self.copies.view(np.int64),
            self.out,
        )  # fmt: skip

    def attach(
        self, producer: int, reader: int, shard_fds: list[int], *, logs: bool = False
    ) -> None:
        """Take up the rings: commands after the last one published, events from now on. `logs`:
        the shards have event logs, so a lap loses nothing.
        """
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
                S_UP: 1, S_CURSOR: cursor, S_LOG: int(logs),
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

    def push_all(
        self, shard: int, rows: list[tuple[dict[int, int], bytes]], receipt_ts: int
    ) -> int:
        """Write commands behind each other, (words, text) each: all of them, or none when the ring
        has no room for all. Returns how many.
        """
        table = np.zeros((len(rows), C_END - C_KIND), np.int64)
        for row, (values, text) in zip(table, rows, strict=True):
            for word, value in values.items():
                row[word - C_KIND] = value
            row[C_SHARD - C_KIND], row[C_RECEIPT_TS - C_KIND] = shard, receipt_ts
            raw = text.ljust(40, b"\0")
            row[C_TEXT - C_KIND : C_TEXT - C_KIND + 5] = np.frombuffer(raw, "<i8")
        words, *rings = self._push_arrays
        return int(commands_push(words, table, *rings))

    def rooms(self) -> int:
        """Fewest free slots over the shards that are up."""
        return int(ring_rooms(self.words, self.commands.ctrl))

    def room(self, shard: int) -> int:
        """Free slots of the ring to one shard; 0 also when it is gated."""
        base = self.state.shard_base(shard)
        if self.gated(shard):
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

    # ------------------------------------------------------------------------- out, from the log
    def _copies_fill(self, events: _Array) -> int:
        count = min(len(events), COPIES)
        words = np.ascontiguousarray(events[:count]).view(np.int64).reshape(count, _EVENT_WORDS)
        self._copy_rows[:count, :_EVENT_WORDS] = words
        self._copy_rows[:count, _EVENT_WORDS:] = 0
        return count

    def encode_logged(self, shard: int, events: _Array) -> int:
        """As `encode`, for the next EVENTs of a lapped shard (at most COPIES are taken): the
        shard's cursor says how far it came.
        """
        count = self._copies_fill(events)
        status = int(logged_encode(self.words, self.copies, count, shard, self.out))
        self._position_tell(shard)
        return status

    def reports_of(self, shard: int, events: _Array) -> tuple[int, memoryview]:
        """(EVENTs done, their reports for one session), byte for byte as `encode` makes them, but
        for receipts; stops before an unknown instrument (`special`). The bytes are valid until the
        next call.
        """
        count = self._copies_fill(events)
        done, size = session_encode(self.words, self.copies, count, shard, self.out)
        return int(done), self.out_view[: int(size)]

    def cursor(self, shard: int) -> int:
        """out_seq of the last event that was made into reports."""
        return int(self.view[self.state.shard_base(shard) + S_CURSOR])

    def lapped(self, shard: int) -> bool:
        """Whether the shard's events have to be read from its log."""
        return bool(self.view[self.state.shard_base(shard) + S_LAPPED])

    def distance(self, shard: int) -> int:
        """Events committed by the shard and not yet read."""
        return position_wrapped(self.events.committed(shard), -self.cursor(shard))

    def lap_end(self, shard: int) -> None:
        """The cursor is within the ring again."""
        self.view[self.state.shard_base(shard) + S_LAPPED] = 0

    def skip_to(self, shard: int, position: int) -> None:
        """Give the events up to a position up as lost."""
        place = self.state.shard_base(shard) + S_CURSOR
        self.view[H_TOTAL_LOST] += position_wrapped(position, -int(self.view[place]))
        self.view[place] = position
        self._position_tell(shard)

    def _position_tell(self, shard: int) -> None:
        word = shard * EVENT_CTRL_WORDS + READER_POSITION + 8 * self.view[H_READER]
        store_word(self.events.ctrl, word, self.cursor(shard))

    def gated(self, shard: int) -> bool:
        """Whether the shard's rings are closed for the moment."""
        ring = self.view[self.state.shard_base(shard) + S_RING]
        return bool(load_word(self.commands.ctrl, ring * CTRL_WORDS + GATE))

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
