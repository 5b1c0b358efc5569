"""Becoming the owner of a shard: from a state brought back to a shard that serves (DESIGN §6).

Cold. Three ways end here: the first owner of an instance, a cold restart, a follower that takes
over. The writer lock is taken first (a paused old owner still holds it: then nobody is replaced),
and the shared event ring is only ever continued: what the dead owner committed stays as it is, what
it had not comes out of the replay with the same bytes.
"""

import os
import time
from collections.abc import Callable

import numpy as np

from engine.book_state import DIRTY_COUNT, IN_TS, INTENT, SYMBOLS_USED, ShardState
from engine.command_ring import CONSUMER_POSITION, CTRL_WORDS, PRODUCER_POSITION
from engine.disk import Disk, RealDisk
from engine.event_ring import COMMITTED, EVENT_CTRL_WORDS, event_intend
from engine.event_ring import INTENT as RING_INTENT
from engine.instance import Instance
from engine.jit import kernel, register_warmup
from engine.segment import load_word, store_word
from engine.shard_process import Ownership
from engine.staging import GATE_CLOSED, WRITER_EPOCH
from engine.standby import Standby, StandbyParts


class OwnerAlive(RuntimeError):
    """Another process still owns the shard."""


@kernel
def intend(ctrl, base, position):
    """event_intend for Python."""
    event_intend(ctrl, base, position)


def writer_lock(disk: Disk, directory: str, shard: int) -> int:
    """Fence the shard; held until this process ends."""
    try:
        return disk.lock(os.path.join(directory, f"shard{shard}", "writer.lock"))
    except BlockingIOError as error:
        raise OwnerAlive(f"shard {shard} still has an owner that holds its lock") from error


class RingFill:
    """Puts replayed events that nobody committed into the shared event ring."""

    def __init__(self, instance: Instance, shard: int, standby: Standby) -> None:
        self.rings, self.shard, self.standby = instance.event_rings, shard, standby
        self.slots = instance.shard_events(shard)
        self.begun = self.rings.begun(shard)
        self.committed = self.rings.committed(shard)

    def taken(self, first: int, end: int) -> None:
        """The events at positions first .. end - 1 were replayed."""
        start = max(first, self.committed)
        if not self.begun or start >= end:
            return
        intend(self.rings.ctrl, self.shard * EVENT_CTRL_WORDS, end)
        places = np.arange(start, end) & (self.rings.capacity - 1)
        self.slots[places] = self.standby.slots(start, end)

    def finish(self, *, show: bool) -> int:
        """The replay is at its end; returns the position that readers may see. `show`: all of it
        (mode sync: what the disk has, the shard commits the rest).
        """
        position = self.standby.position
        if not self.begun:
            self.rings.begin(self.shard, position)
            return position
        if self.committed > position:
            raise RuntimeError(
                f"shard {self.shard}: events up to {self.committed} were shown, the journal gives"
                f" only {position}"
            )
        if show:
            store_word(self.rings.ctrl, self.shard * EVENT_CTRL_WORDS + COMMITTED, position)
            return position
        return self.committed


def own(
    instance: Instance,
    shard: int,
    standby: Standby,
    run: Callable[[Callable[[int, int], None]], None],
) -> Ownership:
    """Let `run` replay the rest, then make its outcome the shard's state in shared memory."""
    staging = instance.staging
    assert staging is not None
    fill = RingFill(instance, shard, standby)
    run(fill.taken)
    committed = fill.finish(show=instance.config.journal.mode != "sync")
    state = standby.state
    state.use_events(instance.shard_events(shard))
    base = shard * EVENT_CTRL_WORDS + RING_INTENT
    state.hdr[INTENT] = int(load_word(instance.event_rings.ctrl, base))
    instance.logons_follow(state)
    tops_all(state)
    _rings_continue(instance, shard, state)
    standby.close()
    return Ownership(
        state,
        epoch=staging.get(shard, WRITER_EPOCH),
        chain_crc=standby.crc,
        event_crc=standby.replay.event_crc,
        committed=committed,
        pause_ns=max(time.time_ns() - int(state.hdr[IN_TS]), 0) if state.hdr[IN_TS] else 0,
    )


def shard_recover(
    directory: str, instance: Instance, shard: int, disk: Disk | None = None
) -> Ownership:
    """Bring a shard back from its files and staging ring, and own it."""
    disk = disk or RealDisk()
    writer_lock(disk, directory, shard)
    assert instance.staging is not None
    staging = instance.staging
    memory = instance.state_memory(shard, live=True)
    standby = Standby(StandbyParts(disk, directory, shard, instance.config), memory)
    return own(instance, shard, standby, lambda taken: standby.finish(staging, taken))


def tops_all(state: ShardState) -> None:
    """Have the loop write the tops of all books."""
    used = int(state.hdr[SYMBOLS_USED])
    state.symbols["dirty"][1 : used + 1] = 1
    state.dirty[:used] = np.arange(1, used + 1)
    state.hdr[DIRTY_COUNT] = used


def _rings_continue(instance: Instance, shard: int, state: ShardState) -> None:
    # Behind the last command that the journal has of each producer.
    rings = instance.command_rings
    for producer in range(rings.producers):
        at = rings.ring(shard, producer) * CTRL_WORDS
        position = int(state.producer_seq[producer])
        store_word(rings.ctrl, at + CONSUMER_POSITION, position)
        if int(load_word(rings.ctrl, at + PRODUCER_POSITION)) < position:
            store_word(rings.ctrl, at + PRODUCER_POSITION, position)
    # The dead owner may have closed the gate; the new one closes it when it has to.
    rings.gate(shard, closed=False)
    staging = instance.staging
    assert staging is not None
    staging.set(shard, GATE_CLOSED, 0)


def _warm_up() -> None:
    intend(np.zeros(EVENT_CTRL_WORDS, np.int64), 0, 0)


register_warmup("engine.takeover", _warm_up)
