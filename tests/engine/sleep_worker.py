"""The two processes of the handshake test: one publishes, one sleeps as often as it can.

    python -m tests.engine.sleep_worker sleeper|publisher FD EVENTFD SLEEPS SECONDS

The publisher publishes the next command as soon as it sees that the last one was taken, 100 ns or
so later; the sleeper lies down a varying moment after it took one. Sweeping that moment in steps
of a nanosecond makes both meet again and again exactly between "nothing there" and "asleep", where
a wake-up can be lost: without the two fences one is, within 50 to 60,000 sleeps. Sleeping is done
by the kernels of engine/ring_words.py around poll(), with the time-out of the product.

A poll that ends by time-out although a command is there is looked at: if no signal follows within
LATE_S the wake-up is lost; if one follows, the publisher was only slow (it has to share a core).
"""

import json
import os
import select
import sys
import time
from typing import Any

import numpy as np

from engine.atomics import cpu_pause, eventfd_signal, load_acquire, load_relaxed
from engine.idle import PARK_TIMEOUT_S, drain
from engine.jit import kernel
from engine.records import COMMAND_WORDS
from engine.shm_ring import (
    CONSUMER_POSITION,
    SHARD_SLEEPS,
    CommandRings,
    command_publish,
    command_ready,
    command_slot,
    load_word,
    position_add,
    ring_release,
    sleep_cancel,
    sleep_prepare,
    store_word,
    wake_needed,
)

LATE_S = 2.0
STOP_WORD = 24  # spare line of the ring's control block
MOMENTS = 4096  # steps of about 1 ns: how long the sleeper dawdles before it lies down
SPINS_MAX = 100_000


@kernel
def publish_run(ctrl, slot_words, shard_ctrl, capacity, eventfd, position):
    """Publish one command each time the last one was taken; returns the next position.

    Ends after a while without progress, so that Python can give the core away.
    """
    waited = 0
    while waited < SPINS_MAX:
        if load_acquire(ctrl, CONSUMER_POSITION) != position:
            waited += 1
            cpu_pause()
            continue
        slot = command_slot(0, position, capacity)
        slot_words[slot * COMMAND_WORDS + 2] = position
        command_publish(slot_words, slot, position)
        if wake_needed(shard_ctrl, SHARD_SLEEPS):
            eventfd_signal(eventfd)
        position = position_add(position, 1)
        waited = 0
        if position & 1023 == 0:
            break
    return position


@kernel
def take_or_lie_down(ctrl, slot_words, shard_ctrl, capacity, position):
    """Take commands until there is none, announce the sleep, look again; returns the position.

    With the flag left at 1 there was nothing on the last look: the caller must poll.
    """
    while True:
        slot = command_slot(0, position, capacity)
        for _ in range((position * 7) % MOMENTS):
            load_relaxed(slot_words, slot * COMMAND_WORDS)
        if not command_ready(slot_words, slot, position):
            sleep_prepare(shard_ctrl, SHARD_SLEEPS)
            if not command_ready(slot_words, slot, position):
                return position
            sleep_cancel(shard_ctrl, SHARD_SLEEPS)
        if slot_words[slot * COMMAND_WORDS + 2] != position:
            return np.int64(-1)
        position = position_add(position, 1)
        ring_release(ctrl, 0, position)


@kernel
def is_ready(slot_words, capacity, position):
    """Whether the command of a position is there."""
    return command_ready(slot_words, command_slot(0, position, capacity), position)


def _sleep(rings: CommandRings, poller: select.poll, eventfd: int, position: int) -> str:
    # One sleep; returns how it ended.
    if poller.poll(PARK_TIMEOUT_S * 1000):
        how = "woken"
    elif not is_ready(rings.slot_words, rings.capacity, position):
        how = "nothing came"
    else:
        how = "late" if poller.poll(LATE_S * 1000) else "lost"
    drain(eventfd)
    sleep_cancel(rings.shard_ctrl, SHARD_SLEEPS)
    return how


def sleeper(rings: CommandRings, eventfd: int, sleeps: int, seconds: float) -> dict[str, Any]:
    """Sleep until there were `sleeps` of them; returns how each ended."""
    poller = select.poll()
    poller.register(eventfd, select.POLLIN)
    counts = {"woken": 0, "nothing came": 0, "late": 0, "lost": 0}
    position, end = 0, time.monotonic() + seconds
    while counts["woken"] < sleeps and counts["lost"] == 0 and time.monotonic() < end:
        position = int(
            take_or_lie_down(
                rings.ctrl, rings.slot_words, rings.shard_ctrl, rings.capacity, position
            )
        )
        if position < 0:
            return {"error": "torn", **counts}
        counts[_sleep(rings, poller, eventfd, position)] += 1
    store_word(rings.ctrl, STOP_WORD, 1)
    return {"error": "", "messages": position, **counts}


def publisher(rings: CommandRings, eventfd: int, sleeps: int, seconds: float) -> dict[str, Any]:
    """Publish until the sleeper has had enough."""
    position, end = 0, time.monotonic() + seconds
    while not load_word(rings.ctrl, STOP_WORD) and time.monotonic() < end:
        before = position
        position = int(
            publish_run(
                rings.ctrl,
                rings.slot_words,
                rings.shard_ctrl,
                rings.capacity,
                eventfd,
                position,
            )
        )
        if position == before:
            os.sched_yield()
    return {"error": "", "published": position}


def main(arguments: list[str]) -> None:
    """Run one of the two."""
    role, fd, eventfd, sleeps, seconds = arguments
    rings = CommandRings.attach(int(fd))
    one = sleeper if role == "sleeper" else publisher
    one(rings, int(eventfd), 0, 0.0)  # compiled and loaded before the other one starts
    store_word(rings.ctrl, STOP_WORD, 0)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(one(rings, int(eventfd), int(sleeps), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
