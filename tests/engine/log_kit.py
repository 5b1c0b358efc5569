"""What the tests of the event log share: streams of events, a log on a simulated disk."""

from __future__ import annotations

import functools
import random

import numpy as np

from engine.event_log import EventLog, EventLogWriter
from engine.log_format import EVENT_BYTES, event_words
from engine.records import EVENT, EVENT_SLOT_WORDS
from tests.sim.sim_disk import SimDisk

SEGMENT = 16
EVENTS_MAX = 5 * SEGMENT
ACCOUNTS = 5
STREAM = 5000


@functools.cache
def stream(count: int, seed: int = 1, accounts: int = ACCOUNTS) -> np.ndarray:
    """Events as a shard would number them, everything else random; account 0 is nobody."""
    rng = np.random.default_rng(seed)
    events = np.frombuffer(rng.bytes(STREAM * EVENT_BYTES), EVENT).copy()
    events["out_seq"] = np.arange(1, STREAM + 1)
    events["account"] = rng.choice(accounts + 1, STREAM)
    for account in range(accounts + 1):
        of_account = events["account"] == account
        numbers = np.arange(1, np.count_nonzero(of_account) + 1)
        events["account_seq"][of_account] = numbers if account else 0
    events["crc"] = events["epoch"] = 0
    return events[:count]


def new_disk() -> SimDisk:
    disk = SimDisk()
    disk.makedirs("d/shard2")
    disk.sync_dir("")
    disk.sync_dir("d")
    return disk


def new_writer(
    disk: SimDisk,
    out_seq: int = 0,
    *,
    segment: int = SEGMENT,
    most: int = EVENTS_MAX,
    epoch: int = 3,
) -> EventLogWriter:
    writer = EventLogWriter(disk, "d", 2, segment, most, epoch)
    assert writer.open(out_seq) == ""
    return writer


def put(writer: EventLogWriter, events: np.ndarray) -> None:
    """Give the writer events as a replay leaves them: in a ring of slots, by their out_seq."""
    if len(events):
        writer.append(ring_of(events), int(events["out_seq"][-1]))


def ring_of(events: np.ndarray) -> np.ndarray:
    words = np.zeros((1 << (len(events) - 1).bit_length(), EVENT_SLOT_WORDS), np.int64)
    places = (events["out_seq"] - 1) & (len(words) - 1)
    words[places, : EVENT_BYTES // 8] = event_words(events)
    words[:, EVENT_BYTES // 8 :] = -1  # what a slot has beside its event stays out of the log
    return words.reshape(-1)


def filled(count: int, **sizes: int) -> tuple[SimDisk, np.ndarray, EventLogWriter, EventLog]:
    """A log of `count` events in uneven appends, its events, writer and a reader."""
    disk, events = new_disk(), stream(count)
    writer = new_writer(disk, **sizes)
    done, choose = 0, random.Random(count)
    while done < count:
        step = choose.choice((0, 1, 2, 7, 40))
        put(writer, events[done : done + step])
        done = min(done + step, count)
    return disk, events, writer, EventLog(disk.process(), "d", 2, lambda: writer.end)


def of_account(events: np.ndarray, account: int, after: int, until: int) -> np.ndarray:
    chosen = (events["account"] == account) & (events["account_seq"] > after)
    return events[chosen & (events["account_seq"] <= until)]


def joined(parts: object) -> bytes:
    return b"".join(part.tobytes() for part in parts)  # type: ignore[attr-defined]
