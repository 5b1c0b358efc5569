"""Two processes pass checksummed commands through one ring: nothing lost, doubled, torn, reordered.

    python -m tests.soak.ring_soak [--messages N] [--capacity C]     what `make soak` runs
    python -m tests.soak.ring_soak --round-trips N                   latency there and back

Cold as a test, hot inside. The parent makes the rings and starts two children by exec, which get
the segment by descriptor and are pinned to the first and the last core there is.

    one way       producer --ring 1--> consumer
    round trip    pinger   --ring 1--> ponger --ring 2--> pinger

Every word of a message follows from its position, the last is the sum of the others. The consumer
adds up what it read (a torn message has another sum) and compares the second word with the
position it expects (a lost, doubled or stale one has another). A kernel call ends after CALL_MAX
messages or when it has found nothing for a while; then Python yields the core: with fewer cores
than processes the run is slow, not stuck. No progress for STALL_S ends it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.atomics import CLOCK_MONOTONIC, clock_ns, cpu_pause
from engine.jit import helper, kernel
from engine.records import COMMAND_WORDS
from engine.shm_ring import (
    CommandRings,
    command_publish,
    command_ready,
    command_slot,
    janitor,
    position_add,
    ring_release,
    ring_room,
)

ROOT = Path(__file__).resolve().parent.parent.parent
PRODUCERS = 3
THERE, BACK = 1, 2
CALL_MAX = 100_000
SPINS_MAX = 2_000
STALL_S = 20.0
ANSWER_NS = 5_000_000_000
MESSAGES = 100_000_000
TORN, REORDERED = -1, -2


@helper
def message_write(slot_words, slot, position):
    """Fill words 1 to 23 of a slot; the last is the sum of the others."""
    first = np.uint64(slot * COMMAND_WORDS)
    value = np.uint64(position) * np.uint64(0x9E3779B97F4A7C15)
    total = np.uint64(position)
    slot_words[first + np.uint64(1)] = position
    for word in range(2, COMMAND_WORDS - 1):
        value ^= value >> np.uint64(29)
        value += np.uint64(word)
        slot_words[first + np.uint64(word)] = np.int64(value)
        total += value
    slot_words[first + np.uint64(COMMAND_WORDS - 1)] = np.int64(total)


@helper
def message_check(slot_words, slot, position):
    """0, TORN or REORDERED."""
    first = np.uint64(slot * COMMAND_WORDS)
    total = np.uint64(0)
    for word in range(1, COMMAND_WORDS - 1):
        total += np.uint64(slot_words[first + np.uint64(word)])
    if np.int64(total) != slot_words[first + np.uint64(COMMAND_WORDS - 1)]:
        return TORN
    return 0 if slot_words[first + np.uint64(1)] == position else REORDERED


@kernel
def soak_produce(ctrl, slot_words, ring, capacity, position, limit):
    """Publish up to `limit` messages; returns how many, 0 after a while without room."""
    consumer = position_add(position, -capacity)
    done, spins = 0, 0
    while done < limit and spins < SPINS_MAX:
        at = position_add(position, done)
        room, consumer = ring_room(ctrl, ring, at, capacity, consumer)
        if room <= 0:
            spins += 1
            cpu_pause()
            continue
        slot = command_slot(ring, at, capacity)
        message_write(slot_words, slot, at)
        command_publish(slot_words, slot, at)
        done += 1
        spins = 0
    return done


@kernel
def soak_consume(ctrl, slot_words, ring, capacity, position, limit):
    """Check up to `limit` messages; returns how many, or TORN or REORDERED."""
    done, spins = 0, 0
    while done < limit and spins < SPINS_MAX:
        at = position_add(position, done)
        slot = command_slot(ring, at, capacity)
        if not command_ready(slot_words, slot, at):
            ring_release(ctrl, ring, at)
            spins += 1
            cpu_pause()
            continue
        wrong = message_check(slot_words, slot, at)
        if wrong != 0:
            return wrong
        done += 1
        spins = 0
        if done & 63 == 0:
            ring_release(ctrl, ring, position_add(at, 1))
    ring_release(ctrl, ring, position_add(position, done))
    return done


@helper
def _send(slot_words, ring, capacity, position):
    slot = command_slot(ring, position, capacity)
    message_write(slot_words, slot, position)
    command_publish(slot_words, slot, position)


@helper
def _wait(slot_words, ring, capacity, position):
    # Whether the message came before ANSWER_NS were over.
    slot = command_slot(ring, position, capacity)
    give_up, spins = clock_ns(CLOCK_MONOTONIC) + ANSWER_NS, 0
    while not command_ready(slot_words, slot, position):
        spins += 1
        if spins & 4095 == 0 and clock_ns(CLOCK_MONOTONIC) > give_up:
            return False
    return True


@kernel
def soak_ping(slot_words, capacity, position, times):
    """Send, wait for the answer, note the time; returns how many before one did not come."""
    for index in range(times.size):
        at = position_add(position, index)
        start = clock_ns(CLOCK_MONOTONIC)
        _send(slot_words, THERE, capacity, at)
        if not _wait(slot_words, BACK, capacity, at):
            return index
        times[index] = clock_ns(CLOCK_MONOTONIC) - start
    return times.size


@kernel
def soak_pong(slot_words, capacity, position, limit):
    """Answer `limit` messages; returns how many before one did not come."""
    for index in range(limit):
        at = position_add(position, index)
        if not _wait(slot_words, THERE, capacity, at):
            return index
        _send(slot_words, BACK, capacity, at)
    return limit


# ----------------------------------------------------------------------------------------- children
def _run(step: Callable[[int, int], int], first: int, messages: int) -> dict[str, Any]:
    # Call `step` until all is done; yield when it has nothing, give up when that lasts.
    position, done, start = first, 0, time.monotonic()
    last = start
    while done < messages:
        count = int(step(position, min(CALL_MAX, messages - done)))
        if count < 0:
            return {"error": "torn" if count == TORN else "lost or doubled", "done": done}
        now = time.monotonic()
        if count:
            done, last = done + count, now
            position = (position + count + 2**63) % 2**64 - 2**63
        elif now - last > STALL_S:
            return {"error": "stalled", "done": done}
        else:
            os.sched_yield()
    return {"error": "", "done": done, "seconds": time.monotonic() - start}


def _child(role: str, fd: int, first: int, messages: int) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0] if role in ("producer", "pinger") else cores[-1]})
    rings = CommandRings.attach(fd)
    ctrl, words, capacity = rings.ctrl, rings.slot_words, rings.capacity
    times = np.zeros(messages if role == "pinger" else 0, np.int64)
    soak_produce(ctrl, words, THERE, capacity, first, 0)
    soak_consume(ctrl, words, THERE, capacity, first, 0)
    soak_pong(words, capacity, first, 0)
    soak_ping(words, capacity, first, times[:0])
    # Compiled and loaded: from here on nobody waits for a compiler.
    print("ready", flush=True)
    sys.stdin.readline()
    if role in ("producer", "consumer"):
        one = soak_produce if role == "producer" else soak_consume
        return _run(lambda p, n: one(ctrl, words, THERE, capacity, p, n), first, messages)
    if role == "ponger":
        return {"done": int(soak_pong(words, capacity, first, messages))}
    done = int(soak_ping(words, capacity, first, times))
    figures = np.percentile(times[:done], [50, 99, 99.9]).astype(int).tolist() if done else []
    return {"done": done, "p50_p99_p999_ns": figures}


def _start(role: str, rings: CommandRings, first: int, messages: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.soak.ring_soak", "--child", role]
    command += [f"--fd={rings.fd}", f"--first={first}", f"--messages={messages}"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        pass_fds=[rings.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_pair(
    roles: tuple[str, str], messages: int, capacity: int = 1024, first: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run two children over new rings and return what they report."""
    instance = f"soak{os.getpid()}"
    janitor(instance)
    rings = CommandRings.create(instance, 1, PRODUCERS, capacity, first)
    rings.unlink()  # both children have it by descriptor: whatever happens, nothing is left
    children = [_start(role, rings, first, messages) for role in roles]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        outputs = [child.communicate()[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
        rings.close()
    one, other = (json.loads(text) if text else {"error": "died"} for text in outputs)
    return one, other


def main(arguments: list[str]) -> int:
    """Run the soak, or a child of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--capacity", type=int, default=1024)
    parser.add_argument("--round-trips", type=int, default=0)
    parser.add_argument("--child", default="")
    parser.add_argument("--fd", type=int, default=-1)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.child:
        print(json.dumps(_child(given.child, given.fd, given.first, given.messages)))
        return 0
    if given.round_trips:
        found = run_pair(("pinger", "ponger"), given.round_trips, given.capacity)
        print(json.dumps(found[0]))
        return 0 if found[0].get("done") == given.round_trips else 1
    _, consumer = run_pair(("producer", "consumer"), given.messages, given.capacity)
    if not consumer["error"]:
        consumer["messages_per_s"] = round(consumer["done"] / consumer["seconds"])
    print(json.dumps(consumer))
    return 1 if consumer["error"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
