"""One shard's stream: where its events come from, what its session is called, which number is next.

Warm. A channel reads the shard's ring, and the shard's event log for what the ring no longer has,
until it is within half a ring again; so a listener sees no gap as long as the log has it. Without a
log, or when that does not help, it goes on at the newest event, and the numbers it never saw are a
gap that every listener detects, never hidden, because the shard makes them (feed_seq).

The feed session is part of the stream: a SESSION event "O" names the next one (date and epoch), and
numbers begin at 1 again. What was sent last is remembered in the publisher's own line of the ring's
control words, which outlive it, so that its successor never sends other bytes under a number that
was used:

    [0] position, for display (engine/event_ring.py)   [1] version; its lowest bit says which copy
    [2..4] and [5..7]                                   session (date << 16 | epoch), sent, next

`sent` is stored after the datagrams are out: whoever takes over may repeat some, with the same
bytes. A first start has nothing to remember: it begins with the newest session the ring holds from
its beginning, else where today's position is, under the name that FeedParts gives. What a shard
that was started anew shows before its first "O" has numbers of the last run's session: it is not
sent under the name of the next one, nor at all, since a whole image follows (`early`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engine.config import Config
from engine.counters import Block
from engine.event_log import FileRefused
from engine.records import BOOK_TOP, EVENT, EVENT_SLOT, EventKind, unpack_name
from engine.shm_ring import (
    EVENT_CTRL_WORDS,
    READER_POSITION,
    EventReader,
    EventRings,
    events_copy,
    load_word,
    store_word,
    top_copy,
)
from feed.itch import instrument_table, pack_stock
from feed.moldudp64 import EPOCHS, control_datagram, date_of, session_of_date
from feed.multicast import multicast_sender
from feed.packer import (
    CODE_OPEN,
    P_DATAGRAM_MAX,
    P_NEXT,
    P_SESSION_HIGH,
    P_SESSION_LOW,
    PACK_WORDS,
    instrument_fill,
)

LOG_WAIT_NS = 5 * 10**9  # a log that stands still for so long does not help
SCAN_EVENTS = 1024
EPOCH_BITS = 16
VERSION_AT, COPIES_AT, COPY_WORDS = 1, 2, 3

assert EPOCHS <= 1 << EPOCH_BITS
assert COPIES_AT + 2 * COPY_WORDS == 8

_Array = np.ndarray[Any, Any]
_EVENT_WORDS = EVENT.itemsize // 8


class EventLogLike(Protocol):
    """One shard's event log, as engine/event_log.py reads it. Any exception: it does not help."""

    def read(self, after_out_seq: int, count: int) -> _Array:
        """Return at most `count` EVENTs from out_seq after_out_seq + 1 on."""
        ...


@dataclass
class FeedParts:
    """What the publisher is given. It opens its own sockets and nothing else."""

    config: Config
    event_rings: EventRings
    reader_index: int = 4
    reader_fd: int = -1  # eventfd of this reader; -1: sleeps are plain waits
    counters: Block | None = None  # made with the labels FEED_COUNTERS
    # Feed session a shard is in now, for a first start that finds none in the ring: a value for
    # all, or asked by shard. Epochs must grow with every new numbering of a day
    # (feed.moldudp64.epoch_of_day where nothing better exists); date 0: that of started_ns.
    epoch: Callable[[int], int] | int = 0
    date: Callable[[int], int] | int = 0
    # BOOK_TOP[shards * symbols_max]: instruments listed before this process started
    tops: _Array | None = None
    # CLOCK_REALTIME when the session began, the same after a restart of this process; 0: now
    started_ns: int = 0
    # Event log of each shard, for what the ring no longer has; None: that is a gap.
    logs: Sequence[EventLogLike] | None = None
    log_end: Callable[[int], int] | None = None  # out_seq up to which it may be read
    # (shard, +1 or -1): somebody begins, or ends, to wait for that log
    log_wait: Callable[[int, int], None] | None = None


def _of_shard(value: Callable[[int], int] | int, shard: int) -> int:
    return value if isinstance(value, int) else value(shard)


def session_word(date: int, epoch: int) -> int:
    """Date and epoch of a session as one word."""
    return date << EPOCH_BITS | epoch % EPOCHS


class Channel:
    """One shard's stream: its reader, its session and numbers, its instruments and its socket."""

    def __init__(self, parts: FeedParts, shard: int, started_ns: int) -> None:
        network = parts.config.network
        self.shard = shard
        self.table = instrument_table()
        self.locates: list[int] = []  # rows of `table` that are known
        self.state = np.zeros(PACK_WORDS, np.int64)
        self.state[P_DATAGRAM_MAX] = network.datagram_bytes_max
        self.laps = 0  # of the reader, as far as dealt with
        self.lapped = False  # the log is read
        self.waiting = False  # for the log
        self.early = False  # the ring's first session has not begun
        self.last_sent_ns: int | None = None
        self._moved_ns = 0  # when the log last gave something
        self._parts, self._started_ns = parts, started_ns
        self._rings, self._tops = parts.event_rings, parts.tops
        self._line = shard * EVENT_CTRL_WORDS + READER_POSITION + 8 * parts.reader_index
        self._log = parts.logs[shard] if parts.logs is not None else None
        self.session, self._word = b"", 0
        self.reader = EventReader(self._rings, shard, parts.reader_index, self._take_up())
        port = network.feed_port + shard
        self.socket = multicast_sender(network.feed_group, port, network.feed_interface)
        self.learn_from_tops()

    # ------------------------------------------------------------------------------- where to begin
    def _take_up(self) -> int:
        # Name and number to go on with; returns the position.
        committed, capacity = self._rings.committed(self.shard), self._rings.capacity
        version = int(load_word(self._rings.ctrl, self._line + VERSION_AT))
        if version:
            at = self._line + COPIES_AT + COPY_WORDS * (version & 1)
            word, sent, number = (int(load_word(self._rings.ctrl, at + i)) for i in range(3))
            self._name(word, number)
            if committed - sent < capacity:
                return sent
            self.lapped = self._log is not None
            return sent if self.lapped else self._jump(committed)
        opened, position, _ = self._scan(committed - 3 * capacity // 4, committed)
        if opened is not None:
            self._name(_word_of(opened), 1)
            return position
        self._name(self._word_now(), 1)
        seen = committed - self._rings.beginning(self.shard)
        self.early = self._rings.begun(self.shard) and 0 <= seen <= 3 * capacity // 4
        if self.early:
            return committed
        remembered = int(load_word(self._rings.ctrl, self._line))
        cursor = remembered if 0 <= committed - remembered < capacity else committed
        self._find_next_sequence(cursor)
        return cursor

    def _word_now(self) -> int:
        date = _of_shard(self._parts.date, self.shard) or date_of(self._started_ns)
        return session_word(date, _of_shard(self._parts.epoch, self.shard))

    def _name(self, word: int, number: int) -> None:
        # Take a session's name; `number` is the next in it.
        self._word = word
        date, epoch = word >> EPOCH_BITS, word & ((1 << EPOCH_BITS) - 1)
        self.session = session_of_date(date, self.shard, epoch)
        self.state[P_SESSION_HIGH] = int.from_bytes(self.session[:8], "big")
        self.state[P_SESSION_LOW] = int.from_bytes(self.session[8:], "big")
        self.state[P_NEXT] = number

    def _scan(self, first: int, last: int) -> tuple[Any, int, int]:
        # (newest SESSION "O" of the ring's positions first .. last - 1 or None, its position, last
        # number after it). What the shard overwrites meanwhile is passed over.
        rings, scratch = self._rings, np.zeros(SCAN_EVENTS, EVENT_SLOT)
        opened, place, number = None, 0, 0
        at = max(first, 0)
        while at < last:
            words = scratch[: last - at].view(np.int64)
            count, lapped = events_copy(
                rings.ctrl, rings.slot_words, self.shard, rings.capacity, at, words
            )
            events = scratch[: int(count)]
            for index in np.flatnonzero(events["kind"] == EventKind.SESSION).tolist():
                genuine = int(events["out_seq"][index]) == at + index + 1
                if genuine and int(events["code"][index]) == CODE_OPEN:
                    opened, place, number = events[index].copy(), at + index, 0
                    events["feed_seq"][:index] = 0
            numbers = events["feed_seq"]
            number = int(numbers[np.flatnonzero(numbers)[-1]]) if numbers.any() else number
            at += int(count) if not lapped and count else SCAN_EVENTS
        return opened, place, number

    def _find_next_sequence(self, cursor: int) -> None:
        # From the events just before the cursor, so that the next heartbeat shows what was missed.
        # Only a quarter of the ring is looked at, and believed only if the shard is not another
        # quarter further by then: with the quarter it may be writing at, that quarter is whole.
        quarter = self._rings.capacity // 4
        opened, _, number = self._scan(cursor - quarter, cursor)
        if self._rings.committed(self.shard) - cursor >= quarter:
            return
        if opened is not None:
            self._name(_word_of(opened), 1)
        if number:
            self.state[P_NEXT] = number + 1

    def _jump(self, position: int) -> int:
        # Everything up to a position is given up; the session may have changed meanwhile.
        now, self.early = self._word_now(), False
        if now > self._word:
            ahead, _, _ = self._scan(position, self._rings.committed(self.shard))
            if ahead is None or _word_of(ahead) != now:
                self._name(now, 1)
        self._find_next_sequence(position)
        return position

    # ------------------------------------------------------------------------------- events
    def poll(self, out: _Array, now_ns: int) -> _Array:
        """Copy the next EVENT_SLOTs into `out`, from the ring or the log; returns the part that was
        filled and is to be sent.
        """
        slots = self._poll(out, now_ns)
        return self._from_opening(slots) if self.early else slots

    def _from_opening(self, slots: _Array) -> _Array:
        opens = (slots["kind"] == EventKind.SESSION) & (slots["code"] == CODE_OPEN)
        self.early = not opens.any()
        return slots[len(slots) if self.early else int(opens.argmax()) :]

    def _poll(self, out: _Array, now_ns: int) -> _Array:
        if self.lapped:
            return self._poll_log(out, now_ns)
        before, skipped = self.reader.cursor, self.reader.skipped
        slots = self.reader.poll(out)
        if self.reader.laps == self.laps:
            return slots
        self.laps = self.reader.laps
        self.learn_from_tops()
        if self._log is None:
            self._jump(self.reader.cursor)
            return slots
        self.reader.cursor, self.reader.skipped = before, skipped
        self.lapped, self._moved_ns = True, now_ns
        return self._poll_log(out, now_ns)

    def _poll_log(self, out: _Array, now_ns: int) -> _Array:
        cursor, committed = self.reader.cursor, self._rings.committed(self.shard)
        if committed - cursor <= self._rings.capacity // 2:
            self._log_end()
            return self._poll(out, now_ns)
        self._moved_ns = self._moved_ns or now_ns
        events, gone = self._log_read(cursor, len(out))
        if len(events):
            self._wait(False)
            self._moved_ns = now_ns
            self.reader.cursor = cursor + len(events)
            return _slots_fill(out, events)
        if gone or now_ns - self._moved_ns > LOG_WAIT_NS:
            self.reader.skipped += committed - cursor
            self.reader.cursor = self._jump(committed)
            self._log_end()
        else:
            self._wait(True)
        return out[:0]

    def _log_read(self, cursor: int, count: int) -> tuple[_Array, bool]:
        # (the next EVENTs, whether they cannot be had any more).
        log, end, nothing = self._log, self._parts.log_end, np.zeros(0, EVENT)
        if log is None or end is None:
            return nothing, True
        try:
            events = log.read(cursor, count) if end(self.shard) > cursor else nothing
        except (LookupError, OSError, FileRefused):  # gone, disk, damaged: the ring goes on alone
            return nothing, True
        follows = not len(events) or int(events["out_seq"][0]) == cursor + 1
        return (events, False) if follows else (nothing, True)

    def _log_end(self) -> None:
        self.lapped, self._moved_ns = False, 0
        self._wait(False)

    def _wait(self, on: bool) -> None:
        if on != self.waiting and self._parts.log_wait is not None:
            self._parts.log_wait(self.shard, 1 if on else -1)
        self.waiting = on

    # ------------------------------------------------------------------------------- the session
    def changes_to(self, event: np.void) -> bool:
        """Whether this SESSION "O" names another session than the present one."""
        return _word_of(event) != self._word

    def begin(self, event: np.void) -> None:
        """Take the name of the session that this event begins; its numbers start at 1."""
        self._name(_word_of(event), 1)

    def control(self, count: int = 0) -> bytes:
        """Return the heartbeat (or end of session) of this moment."""
        return control_datagram(self.session, int(self.state[P_NEXT]), count)

    def remember(self) -> None:
        """Everything up to the reader's cursor is sent: note it for a successor."""
        ctrl = self._rings.ctrl
        version = int(load_word(ctrl, self._line + VERSION_AT)) + 1
        at = self._line + COPIES_AT + COPY_WORDS * (version & 1)
        for index, value in enumerate((self._word, self.reader.cursor, int(self.state[P_NEXT]))):
            store_word(ctrl, at + index, value)
        store_word(ctrl, self._line + VERSION_AT, version)

    # ------------------------------------------------------------------------------- instruments
    def learn_from_tops(self) -> None:
        """Take instruments whose LISTED event was not seen from the shared tops."""
        if self._tops is not None:
            places = len(self._tops) // self._rings.shards
            first = self.shard * places
            words, copy = self._tops.view(np.int64), np.zeros(1, BOOK_TOP)
            for locate in np.flatnonzero(self._tops["symbol"][first : first + places]).tolist():
                known = self.table[locate]["stock"] != 0
                if not known and top_copy(words, first + locate, copy.view(np.int64)):
                    self._learn(locate, copy[0])
        self.locates = np.flatnonzero(self.table["stock"]).tolist()

    def _learn(self, locate: int, top: np.void) -> None:
        stock = pack_stock(unpack_name(int(top["symbol"])))
        tick, lot, px_max = int(top["tick"]), int(top["lot"]), int(top["px_max"])
        instrument_fill(self.table, locate, stock, tick, lot, px_max)

    def close(self) -> None:
        """Close the socket and wait for nothing."""
        self._wait(False)
        self.socket.close()


def _word_of(event: np.void) -> int:
    return session_word(int(event["amount"]), int(event["amount2"]))


def _slots_fill(out: _Array, events: _Array) -> _Array:
    # EVENTs as EVENT_SLOTs without receipts.
    count = len(events)
    rows = out[:count].view(np.int64).reshape(count, -1)
    rows[:, :_EVENT_WORDS] = np.ascontiguousarray(events).view(np.int64).reshape(count, -1)
    rows[:, _EVENT_WORDS:] = 0
    return out[:count]
