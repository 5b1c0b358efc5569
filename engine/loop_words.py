"""What the loop of a shard remembers between calls, and what it touches: words and ports.

Hot (layout only). engine/shard_loop.py is the loop, engine/stage.py its journal's part.
"""

from typing import NamedTuple

import numpy as np

from engine.atomics import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_ns
from engine.jit import helper
from engine.records import COMMAND
from engine.staging import STAGING_CTRL_WORDS

# Words of `loop`: parameters, then what the loop remembers between calls.
(
    SHARD_INDEX,
    PRODUCERS,
    RING_CAPACITY,
    EVENT_CAPACITY,
    EVENTS_PER_COMMAND,
    BATCH_MAX,
    SPIN_NS,
    YIELD_NS,
    SYMBOLS_MAX,
) = range(9)
LAST_WORK_NS, NEXT_RING, TOPS_NS, COMMANDS, BATCHES, SLIPPED, STOP, CLOCK_OFFSET, LATENCY_BASE = (
    range(16, 25)
)
SLICE_NS = 25  # when the open work ran last
# Clocks of a simulation; 0: the machine's.
FAKE_STEADY, FAKE_WALL = 26, 27
# Flavour `failpoint`: at how many crash points from now the process is as if killed; then DEAD.
FAIL_AT, DEAD = 28, -1
# The turn that comes next: when which instrument changes to which phase by itself. Written by
# engine/phase_clock.py between two calls; the loop writes TURN_AT alone, TURN_TAKEN.
(
    TURN_AT,  # its time; 0: no instrument has any, TURN_NEVER: none now
    TURN_INDEX,
    TURN_NAME,
    TURN_PHASE,
    TURN_UNTIL,  # when its calendar goes on
    TURN_SYMBOLS,  # instruments listed when it was planned
) = range(32, 38)
TURN_TAKEN, TURN_NEVER = -1, 1 << 62
LOOP_WORDS = 40


MODE_NONE, MODE_OS, MODE_BATCH, MODE_SYNC = range(4)  # index in config.JOURNAL_MODES

# Words of `j`, the journal's part of the loop's memory.
(
    J_MODE,
    J_SHARD,
    J_CAPACITY,  # slots of the staging ring
    J_RESERVE,  # slots that must be free before a batch
    J_WINDOW_NS,  # age of the oldest record not on disk at which the gate closes
    J_EPOCH,
    J_CHAIN,  # stored CRC of the last record
    J_DURABLE,  # as known
    J_SHUT,  # since when the gate is closed (CLOCK_MONOTONIC), 0: open
    J_PAUSE,  # length of a pause that deadlines have to be told of
    J_FIRST,  # oldest pending commit, and the next free place
    J_NEXT,
    J_MARK_FIRST,
    J_MARK_NEXT,
    J_MARKED_NS,  # when the last MARK was published
    J_COMMITTED,  # position last committed
    J_CRC,  # running CRC of all EVENT bytes: one word per cache line
) = range(17)
J_PENDING = 64  # rows (in_seq, position): commits that wait for the disk
PENDING_ROWS = 512
J_MARKS = J_PENDING + 2 * PENDING_ROWS  # rows (in_seq, ns): records above were staged after that
MARK_ROWS = 128
J_WORDS = J_MARKS + 2 * MARK_ROWS
MARK_WORDS = 6  # of the published MARK: version, in_seq, out_seq, three CRCs


class Ports(NamedTuple):
    """What the loop touches outside its own state."""

    command_ctrl: np.ndarray
    commands: np.ndarray
    command_words: np.ndarray
    event_ctrl: np.ndarray
    tops: np.ndarray
    top_words: np.ndarray
    counters: np.ndarray
    reader_fds: np.ndarray
    positions: np.ndarray
    loop: np.ndarray
    journal: np.ndarray  # J_* words
    staging_ctrl: np.ndarray
    staging_words: np.ndarray
    journal_fds: np.ndarray
    own: np.ndarray  # COMMAND[1]: what the loop itself commands
    own_words: np.ndarray


@helper
def steady_ns(loop):
    """CLOCK_MONOTONIC, or the simulation's."""
    if loop[FAKE_STEADY] != 0:
        return np.int64(loop[FAKE_STEADY])
    return clock_ns(np.int64(CLOCK_MONOTONIC))


@helper
def wall_ns(loop):
    """CLOCK_REALTIME, or the simulation's."""
    if loop[FAKE_WALL] != 0:
        return np.int64(loop[FAKE_WALL])
    return clock_ns(np.int64(CLOCK_REALTIME))


def journal_ports_none() -> tuple[np.ndarray, ...]:
    """The last six ports of a shard without a journal."""
    own = np.zeros(1, COMMAND)
    return (
        np.zeros(J_WORDS, np.int64),
        np.zeros(STAGING_CTRL_WORDS, np.int64),
        np.zeros(COMMAND.itemsize // 8, np.int64),
        np.full(1, -1, np.int64),
        own,
        own.view(np.int64),
    )


def journal_inherit(journal: np.ndarray, in_seq: int, position: int) -> None:
    """A new owner begins behind `in_seq` with what an owner before has staged: J_DURABLE and
    J_COMMITTED say what of it is on disk and shown.
    """
    if journal[J_DURABLE] < in_seq:
        # Shown before, nobody knows how long ago: the window is over until the disk has it.
        journal[J_MARKS], journal[J_MARK_NEXT] = journal[J_DURABLE], 1
    if journal[J_COMMITTED] != position:  # mode sync: the rest when the disk has it
        journal[J_PENDING : J_PENDING + 2] = in_seq, position
        journal[J_NEXT] = 1
