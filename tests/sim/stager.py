"""A shard's side of the journal, without matching: it stages chained records and remembers them."""

from __future__ import annotations

import random

import numpy as np

from engine.crc32c import CRC_START, crc32c
from engine.records import COMMAND, RULES_VERSION
from engine.staging import DURABLE, STAGED, WRITTEN, StagingRings

RECORD_BYTES = COMMAND.itemsize


def chain_record(record: np.ndarray, crc: int) -> int:
    """Fill the CRC of one record (an array of one) behind a predecessor's; returns it."""
    record["crc"] = 0
    record["crc"] = crc32c(record.tobytes(), crc)
    return int(record["crc"][0])


class Stager:
    """Stages records of one shard, each with what was durable then."""

    def __init__(
        self,
        rings: StagingRings,
        shard: int = 0,
        epoch: int = 1,
        seed: int = 1,
        mode: str = "batch",
    ) -> None:
        self.rings = rings
        self.shard = shard
        self.epoch = epoch
        self.mode = mode
        self.history = bytearray()  # every record since in_seq 1
        self.crc = CRC_START
        self._random = random.Random(seed)

    @property
    def in_seq(self) -> int:
        return len(self.history) // RECORD_BYTES

    @property
    def durable(self) -> int:
        return self.rings.get(self.shard, DURABLE)

    @property
    def room(self) -> int:
        """Records that may be staged before a slot is free again."""
        freed = self.rings.get(self.shard, WRITTEN if self.mode == "os" else DURABLE)
        return self.rings.capacity - (self.in_seq - freed)

    def stage(self, count: int = 1, lag: int | None = None) -> int:
        """Stage up to `count` records, as many as fit; returns how many."""
        count = min(count, self.room)
        for _ in range(count):
            record = np.zeros(1, COMMAND)
            record["in_seq"], record["epoch"] = self.in_seq + 1, self.epoch
            record["layout_version"] = RULES_VERSION
            record["amount"], record["account"] = self._random.getrandbits(60), self.in_seq % 97
            record["durable_lag"] = record["in_seq"] - self.durable if lag is None else lag
            self.crc = chain_record(record, self.crc)
            slot = self.in_seq & (self.rings.capacity - 1)
            self.rings.slots[self.shard * self.rings.capacity + slot] = record[0]
            self.history += record.tobytes()
        self.rings.set(self.shard, STAGED, self.in_seq)
        return count

    def restart(self, in_seq: int, crc: int) -> None:
        """Recovery has ended with `in_seq`: a new owner goes on, in new rings."""
        del self.history[in_seq * RECORD_BYTES :]
        self.crc = crc
        self.epoch += 1
        self.rings.begin(self.shard, in_seq)
