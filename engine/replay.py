"""Commands from the journal, run again: the same step, the same events (DESIGN §6).

Hot. Recovery, the follower, `run.py verify` and the time machine all come here. A record carries
all that the loop decided when it ran: its in_ts, its place among the others, whether it was the
loop's own (TIME, CONTINUE). So the state and every EVENT byte are what they were.
"""

from dataclasses import dataclass, field

import numpy as np

from engine.book_state import (
    FATAL,
    IN_SEQ,
    OUT_POSITION,
    ShardState,
    allocate_state,
    small_limits,
)
from engine.crc32c import CRC_START
from engine.id_table import ids_settle
from engine.jit import helper, kernel, register_warmup
from engine.lookahead import (
    LOOK_FAR,
    LOOK_MIDDLE,
    LOOK_NEAR,
    LOOK_RECORDS,
    look_far,
    look_middle,
    look_near,
    look_records,
)
from engine.loop_words import J_CRC, J_WORDS
from engine.records import COMMAND
from engine.stage import events_crc
from engine.step import step_one

SETTLE_EVERY = 64  # commands between two clean-ups of the client-id table


class ReplayError(Exception):
    """The journal cannot be run: a record is out of order, or breaks an invariant."""


@helper
def look(s, records, index):
    """Let the cache misses of the records ahead begin."""
    if index + LOOK_RECORDS < len(records):
        look_records(records, index + LOOK_RECORDS)
        look_far(s, records[index + LOOK_FAR], index + LOOK_FAR)
        look_middle(s, records[index + LOOK_MIDDLE], index + LOOK_MIDDLE)
        look_near(s, index + LOOK_NEAR)


@kernel
def replay_run(s, j, records, start, events_max):
    """Run records[start:] until about `events_max` events came; returns the next index.

    j[J_CRC ...] is carried over the events. Stops early at a record whose in_seq is not the next
    one, or where an invariant broke (hdr[FATAL]).
    """
    first = np.int64(s[OUT_POSITION])
    done = first
    index = np.int64(start)
    while index < len(records) and s[OUT_POSITION] - first <= events_max and s[FATAL] == 0:
        c = records[index]
        if np.int64(c["in_seq"]) != s[IN_SEQ] + 1:
            break
        look(s, records, index)
        step_one(s, c, np.int64(c["in_ts"]))
        index += 1
        if index % SETTLE_EVERY == 0:
            ids_settle(s)
            events_crc(s, j, done)
            done = np.int64(s[OUT_POSITION])
    ids_settle(s)
    events_crc(s, j, done)
    return index


@dataclass
class Replay:
    """A shard being replayed: its state and the running CRC of all its EVENT bytes.

    `state.events` is a private ring; the events of one `run` are in it until the next.
    """

    state: ShardState
    events_max: int  # most events of one run: what the ring holds without the longest command
    words: np.ndarray = field(default_factory=lambda: np.zeros(J_WORDS, np.int64))

    def __post_init__(self) -> None:
        if not self.words.any():
            self.words[J_CRC : J_CRC + 3] = CRC_START

    @property
    def in_seq(self) -> int:
        return int(self.state.hdr[IN_SEQ])

    @property
    def position(self) -> int:
        """Events so far."""
        return int(self.state.hdr[OUT_POSITION])

    @property
    def event_crc(self) -> tuple[int, int, int]:
        """One running CRC per cache line of EVENT."""
        one, two, three = (int(word) for word in self.words[J_CRC : J_CRC + 3])
        return one, two, three

    @event_crc.setter
    def event_crc(self, values: tuple[int, int, int]) -> None:
        self.words[J_CRC : J_CRC + 3] = values

    def run(self, records: np.ndarray, start: int = 0) -> int:
        """Run some of the records; returns the index of the next one. ReplayError where the journal
        does not fit the state.
        """
        records.flags.writeable = False  # as those read from files: one compiled version
        index = int(replay_run(self.state.table, self.words, records, start, self.events_max))
        if self.state.hdr[FATAL]:
            raise ReplayError(
                f"command {self.in_seq} breaks invariant {int(self.state.hdr[FATAL])}"
            )
        if index == start and index < len(records):
            raise ReplayError(
                f"record {int(records['in_seq'][index])} follows command {self.in_seq}"
            )
        return index


def _warm_up() -> None:
    Replay(allocate_state(small_limits()), 1000).run(np.zeros(0, COMMAND))


register_warmup("engine.replay", _warm_up)
