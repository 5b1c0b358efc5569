"""Full-depth look into the books of running shards, for queries deeper than the published top.

Cold. Read-only: it walks the shard's own arrays (engine/book_numba.py) in shared memory. A walk
counts only if no batch ran meanwhile (hdr[BATCH_VERSION] even and unchanged); otherwise it is tried
again, TRIES times. Torn reads are harmless: every index is tested before it is used and every walk
is bounded.
"""

import numpy as np

from engine.atomics import fence_acquire, load_acquire
from engine.book_check import levels_walk
from engine.book_state import BATCH_VERSION, SYMBOLS_USED
from engine.instance import Instance
from engine.jit import kernel, register_warmup
from engine.records import SYMBOL_INDEX_BITS, Side

TRIES = 200
DEPTH_MAX = 1000


@kernel
def version_of(hdr):
    """hdr[BATCH_VERSION] before a walk."""
    return load_acquire(hdr, BATCH_VERSION)


@kernel
def version_after(hdr):
    """hdr[BATCH_VERSION] after a walk: no load of the walk moves behind it."""
    fence_acquire()
    return load_acquire(hdr, BATCH_VERSION)


class LiveBooks:
    """Views of all live books of an instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def levels(self, symbol_id: int, depth: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (bids, asks), rows (px ticks, qty lots, orders), best first; None when the book
        never stood still, or is unknown.
        """
        shard, index = symbol_id >> SYMBOL_INDEX_BITS, symbol_id & ((1 << SYMBOL_INDEX_BITS) - 1)
        if not 0 <= shard < self._instance.shards:
            return None
        state = self._instance.shard_state(shard)
        if not 1 <= index <= int(state.live_hdr[SYMBOLS_USED]):
            return None
        rows = [np.zeros((min(max(depth, 1), DEPTH_MAX), 3), np.int64) for _ in Side]
        for _ in range(TRIES):
            version = version_of(state.live_hdr)
            if version & 1 == 0:
                counts = [levels_walk(state.table, index * 2 + side, rows[side]) for side in Side]
                if version_after(state.live_hdr) == version:
                    return rows[0][: counts[0]], rows[1][: counts[1]]
        return None


def _warm() -> None:
    words = np.zeros(64, np.int64)
    version_of(words)
    version_after(words)


register_warmup("engine.live_book", _warm)
