"""What a live instance's rings hold: positions, then the newest records. Cold; writes nothing.

Records are copied while their owners go on: what was overwritten meanwhile is left out, and said.
"""

from collections.abc import Iterator

import numpy as np

from cli.inspect import Line, Options
from cli.top_sample import READERS
from engine import staging as staging_words
from engine.book_top import BookTops
from engine.command_ring import CONSUMER_POSITION, CTRL_WORDS, GATE, PRODUCER_POSITION
from engine.event_ring import COMMITTED, EVENT_CTRL_WORDS, INTENT, READER_POSITION, READERS_MAX
from engine.records import COMMAND_WORDS, EVENT, unpack_name
from engine.segment import Segment, SegmentError, load_word, segment_name
from engine.shm_ring import CommandRings, EventRings
from engine.staging import STAGED, STAGING_CTRL_WORDS, StagingRings
from engine.time_machine import Terms

EVENT_WORDS = EVENT.itemsize // 8
STAGING_NAMES = {
    getattr(staging_words, name): name.lower()
    for name in (
        "STAGED WRITTEN DURABLE GATE_CLOSED STORAGE M_IN_SEQ M_OUT_SEQ FOLLOWED LOG_END LOG_DURABLE"
        " SNAPSHOT SNAPSHOT_BEFORE READERS_WAIT WRITER_EPOCH FEED_DATE FEED_EPOCH INCARNATION"
    ).split()
}


def instruments_live(instance: str) -> dict[int, Terms]:
    """The instruments that a running instance shows."""
    try:
        tops = BookTops.open(instance)
    except SegmentError:
        return {}
    rows = tops.records[tops.records["symbol"] != 0].copy()
    tops.close()
    return {
        int(row["symbol_id"]): Terms(unpack_name(row["symbol"]), int(row["tick"]), int(row["lot"]))
        for row in rows
    }


def ring_lines(instance: str, name: str, options: Options) -> Iterator[Line]:
    """Positions and newest records of all rings of a kind, or of one shard's."""
    lines = {"commands": _commands, "events": _events, "staging": _staging}[name]
    yield from lines(instance, options)


def _shards(options: Options, shards: int) -> range:
    if options.shard is None:
        return range(shards)
    if not 0 <= options.shard < shards:
        raise SegmentError(f"the instance has the shards 0 .. {shards - 1}, no {options.shard}")
    return range(options.shard, options.shard + 1)


def _range(options: Options, end: int, capacity: int) -> tuple[int, int]:
    # Sequence numbers to show, within what the ring can still hold.
    oldest = max(end - capacity + 1, 1)
    first = max(end - options.most + 1, oldest)
    if options.first is not None:
        first = min(max(options.first, oldest), end + 1)
    return first, min(first + options.most - 1, end)


def _commands(instance: str, options: Options) -> Iterator[Line]:
    rings = CommandRings.open(instance)
    try:
        for shard in _shards(options, rings.shards):
            for producer in range(rings.producers):
                ring = rings.ring(shard, producer)
                words = {
                    label: int(load_word(rings.ctrl, ring * CTRL_WORDS + word))
                    for label, word in (
                        ("consumer", CONSUMER_POSITION),
                        ("producer", PRODUCER_POSITION),
                        ("gate", GATE),
                    )
                }
                if not words["producer"]:
                    continue
                yield Line(f"commands of producer {producer} to shard {shard}", words)
                first, last = _range(options, words["producer"], rings.capacity)
                for number in range(first, last + 1):
                    slot = ring * rings.capacity + ((number - 1) & (rings.capacity - 1))
                    record = rings.slots[slot : slot + 1].copy()
                    if int(load_word(rings.slot_words, slot * COMMAND_WORDS)) == number:
                        yield Line(record=record[0])
    finally:
        rings.close()


def _events(instance: str, options: Options) -> Iterator[Line]:
    rings = EventRings.open(instance)
    try:
        for shard in _shards(options, rings.shards):
            base = shard * EVENT_CTRL_WORDS
            words = {
                "committed": int(load_word(rings.ctrl, base + COMMITTED)),
                "intent": int(load_word(rings.ctrl, base + INTENT)),
            }
            for reader in range(READERS_MAX):
                position = int(load_word(rings.ctrl, base + READER_POSITION + 8 * reader))
                if position:
                    words[f"reader {READERS[reader]}"] = position
            yield Line(f"events of shard {shard}", words)
            first, last = _range(options, words["committed"], rings.capacity)
            yield from _slots(rings, shard, first, last)
    finally:
        rings.close()


def _slots(rings: EventRings, shard: int, first: int, last: int) -> Iterator[Line]:
    places = np.arange(first - 1, last) & (rings.capacity - 1)
    rows = rings.slot_words.reshape(len(rings.slots), -1)[shard * rings.capacity + places]
    events = np.ascontiguousarray(rows[:, :EVENT_WORDS]).view(EVENT).reshape(-1)
    intent = int(load_word(rings.ctrl, shard * EVENT_CTRL_WORDS + INTENT))
    safe = intent - rings.capacity  # events up to here may be torn
    good = events[events["out_seq"] > safe]
    if len(good) < len(events):
        yield Line(f"{len(events) - len(good)} were overwritten while they were read")
    for event in good:
        yield Line(record=event)


def _staging(instance: str, options: Options) -> Iterator[Line]:
    rings = _staging_rings(instance)
    try:
        for shard in _shards(options, rings.shards):
            base = shard * STAGING_CTRL_WORDS
            words = {
                label: int(load_word(rings.ctrl, base + word))
                for word, label in STAGING_NAMES.items()
            }
            yield Line(f"staging of shard {shard}", words)
            first, last = _range(options, rings.get(shard, STAGED), rings.capacity)
            for record in rings.records(shard, first - 1, last):
                number = first
                first += 1
                if int(record["in_seq"]) == number:
                    yield Line(record=record)
    finally:
        rings.close()


def _staging_rings(instance: str) -> StagingRings:
    # Each run has a segment of its own; the newest is the live one.
    from engine.segment import MADE_NS, SHM

    prefix = segment_name(instance, "stg")[1:]
    found = [Segment.open("/" + path.name, StagingRings.kind) for path in SHM.glob(prefix + "*")]
    if not found:
        raise SegmentError(f"instance {instance} has no staging ring: is it up, with a journal?")
    found.sort(key=lambda segment: int(segment.header[MADE_NS]))
    for segment in found[:-1]:
        segment.close()
    return StagingRings(found[-1])
