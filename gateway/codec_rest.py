"""Whether the gateway may rest: is an answer under way, is there an event, and the sleep handshake.

Hot, once per turn that found nothing to do. A gateway has nothing to wait for when every command it
sent has been worked off: a shard gives the slots back (consumer_position) after it has published
the events. Then it announces its sleep at once and leaves the core to others; the handshake of
engine/ring_words.py makes sure that no event is missed. While answers are under way they are looked
for, for a while: being woken from the other core would take longer.
"""

import numpy as np

from engine.atomics import fence_seq_cst, load_acquire, store_relaxed
from engine.jit import helper, kernel, register_warmup
from engine.shm_ring import (
    CONSUMER_POSITION,
    CTRL_WORDS,
    EVENT_CTRL_WORDS,
    READER_SLEEPS,
    events_available,
    position_diff,
)
from gateway.state import (
    H_READER,
    H_SHARD_BASE,
    H_SHARDS,
    S_CURSOR,
    S_LAPPED,
    S_POSITION,
    S_RING,
    SHARD_WORDS,
)

ASLEEP, EVENTS, ANSWERS_DUE = 0, 1, 2  # results of sleep_try


@helper
def sleep_flags(words, event_ctrl, value):
    """Set this reader's flag on every shard."""
    for shard in range(words[H_SHARDS]):
        flag = shard * EVENT_CTRL_WORDS + READER_SLEEPS + words[H_READER]
        store_relaxed(event_ctrl, flag, value)


@helper
def events_due(words, event_ctrl):
    """Events committed and not yet read, over the worst shard; one that has lapped us has nothing
    for us, its log has.
    """
    most = np.int64(0)
    for shard in range(words[H_SHARDS]):
        row = words[H_SHARD_BASE] + shard * SHARD_WORDS
        committed = events_available(event_ctrl, shard * EVENT_CTRL_WORDS)
        if words[row + S_LAPPED] == 0:
            most = max(most, position_diff(committed, words[row + S_CURSOR]))
    return most


@helper
def answers_due(words, command_ctrl):
    """Whether some shard still has commands of this gateway."""
    for shard in range(words[H_SHARDS]):
        row = words[H_SHARD_BASE] + shard * SHARD_WORDS
        place = words[row + S_RING] * CTRL_WORDS + CONSUMER_POSITION
        if load_acquire(command_ctrl, place) != words[row + S_POSITION]:
            return True
    return False


@kernel
def sleep_try(words, command_ctrl, event_ctrl, force):
    """Announce the sleep and return ASLEEP, or say why not. `force`: even while answers are due."""
    if not force and answers_due(words, command_ctrl):
        return np.int64(ANSWERS_DUE)
    sleep_flags(words, event_ctrl, np.int64(1))
    fence_seq_cst()
    if events_due(words, event_ctrl) == 0:
        return np.int64(ASLEEP)
    sleep_flags(words, event_ctrl, np.int64(0))
    return np.int64(EVENTS)


@kernel
def sleep_end(words, event_ctrl):
    """Awake: no signal is needed any more."""
    sleep_flags(words, event_ctrl, np.int64(0))


@kernel
def events_behind(words, event_ctrl):
    """How many events the slowest cursor is behind."""
    return events_due(words, event_ctrl)


def _warm_up() -> None:
    words = np.zeros(128 + SHARD_WORDS, np.int64)
    words[H_SHARDS], words[H_SHARD_BASE] = 1, 128
    event_ctrl = np.zeros(EVENT_CTRL_WORDS, np.int64)
    sleep_try(words, np.zeros(CTRL_WORDS, np.int64), event_ctrl, False)
    sleep_end(words, event_ctrl)
    events_behind(words, event_ctrl)


register_warmup("gateway.codec_rest", _warm_up)
