"""Snapshots: the whole memory of a shard in one file, so that a start replays only what came after.

Cold; written by the follower, never by the process that trades, and between two batches. The state
is one block of arrays without pointers (engine/book_state.py): every page of every array that is
not as in a fresh state is stored, and put back where it was. Addresses are never stored; the event
ring is not part of the state.

    DIR/shard<N>/snapshot-<in_seq, 20 digits>      a whole file (engine/whole_file.py)

    16 words     META: position, CRCs, what the content was made with, how many pages follow
    64 words     the header of the state
    2 per array  bytes of the array, how many of its pages are stored
    1 per page   its place in its array
    4096 bytes per page

Two are kept: the newest, and the one before in case the newest turns out to be damaged. Another
layout of records or of the state, other rules, other deciding limits or another shard are refused.
"""

import contextlib
import functools
import hashlib
import time
from dataclasses import dataclass, field

import numpy as np

from engine import book_state
from engine.book_state import (
    ARRAYS,
    EVENT_MASK,
    FATAL,
    HDR_WORDS,
    IN_SEQ,
    MAX_WALK,
    OUT_POSITION,
    SHARD,
    SLICE_EVENTS,
    ShardState,
    allocate_state,
    state_layout,
)
from engine.config import ShardLimits
from engine.disk import Disk
from engine.file_header import FileHeader, FileRefused, shard_directory
from engine.manifest import limits_fingerprint
from engine.records import EVENT_SLOT
from engine.whole_file import UNFINISHED, whole_read, whole_write

PAGE_BYTES = 4096
PREFIX = "snapshot-"
KEPT = 2
META_WORDS = 16
(
    M_IN_SEQ,
    M_OUT_SEQ,
    M_CHAIN_CRC,
    M_EVENT_CRC,  # three words
    _,
    _,
    M_DURABLE,
    M_EPOCH,
    M_LIMITS,
    M_LAYOUT,
    M_PAGES,
) = range(11)
EVENT_CRCS = 3


@dataclass(frozen=True)
class SnapshotExtra:
    """What stands beside the state: where in its streams the shard was."""

    in_seq: int
    out_seq: int
    chain_crc: int  # of the journal record in_seq
    event_crc: tuple[int, int, int]  # running CRCs of all events
    durable: int  # highest in_seq known to be on disk
    epoch: int
    limits: int = field(default=0, compare=False)  # fingerprint; the writer takes it from the state


def snapshot_path(directory: str, shard: int, in_seq: int) -> str:
    """Name of a snapshot."""
    return f"{shard_directory(directory, shard)}/{PREFIX}{in_seq:020d}"


def snapshot_list(disk: Disk, directory: str, shard: int) -> list[int]:
    """The in_seq of every snapshot there is, newest first; nothing is said about their content."""
    names = disk.listdir(shard_directory(directory, shard))
    numbers = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    return sorted((int(n) for n in numbers if n.isdigit() and len(n) == 20), reverse=True)


@functools.cache
def state_fingerprint() -> int:
    """Hash of everything that gives the state's memory its meaning: names and types of the arrays,
    numbers of the header's words.
    """
    parts = [f"{name}:{np.dtype(dtype).descr}" for name, dtype in ARRAYS.items()]
    parts += [
        f"{name}={value}"
        for name, value in sorted(vars(book_state).items())
        if name.isupper() and isinstance(value, int)
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _limits_of(state: ShardState) -> ShardLimits:
    # The deciding limits; the others leave no trace in a state.
    return ShardLimits(
        orders_max=len(state.orders),
        levels_max=len(state.levels),
        symbols_max=len(state.symbols) - 1,
        sessions_max=len(state.sessions) - 1,
        accounts_max=len(state.accounts),
        text_ids_max=len(state.texts) - 1,
        quoters_max=len(state.quoters) - 1,
        max_walk=int(state.hdr[MAX_WALK]),
        slice_events=int(state.hdr[SLICE_EVENTS]),
        account_limits_max=len(state.limit_rows) - 1,
    )


def _stored_arrays(limits: ShardLimits) -> list[str]:
    return [name for name, _, _ in state_layout(limits) if name != "table"]


def _pages(array: np.ndarray) -> np.ndarray:
    # The memory of an array as rows of one page, the last one filled up with zeros. A copy only
    # where the array does not end with a page.
    raw = array.view(np.uint8).reshape(-1)
    if raw.size % PAGE_BYTES:
        raw = np.concatenate((raw, np.zeros(-raw.size % PAGE_BYTES, np.uint8)))
    return raw.view("<i8").reshape(-1, PAGE_BYTES // 8)


def _content(state: ShardState, extra: SnapshotExtra) -> list[np.ndarray]:
    limits = _limits_of(state)
    shard = int(state.hdr[SHARD])
    fresh = allocate_state(limits, shard=shard, events=np.zeros(2, EVENT_SLOT))
    meta = np.zeros(META_WORDS, "<i8")
    table, places, pages = [], [], []
    for name in _stored_arrays(limits):
        array = getattr(state, name)
        now = _pages(array)
        changed = np.flatnonzero((now != _pages(getattr(fresh, name))).any(axis=1))
        table.append((array.nbytes, len(changed)))
        places.append(changed.astype("<i8"))
        pages.append(now[changed])
    meta[M_IN_SEQ], meta[M_OUT_SEQ] = extra.in_seq, extra.out_seq
    meta[M_CHAIN_CRC], meta[M_DURABLE] = extra.chain_crc, extra.durable
    meta[M_EVENT_CRC : M_EVENT_CRC + EVENT_CRCS] = extra.event_crc
    meta[M_EPOCH], meta[M_LIMITS] = extra.epoch, limits_fingerprint(limits)
    meta[M_LAYOUT], meta[M_PAGES] = state_fingerprint(), sum(map(len, places))
    return [meta, np.array(state.hdr), np.array(table, "<i8").reshape(-1), *places, *pages]


def snapshot_write(
    disk: Disk, directory: str, shard: int, state: ShardState, extra: SnapshotExtra
) -> int:
    """Write a snapshot of `state` and remove what it makes superfluous; returns its in_seq.

    When this returns, the snapshot is on disk. An OSError leaves the earlier ones as they were.
    """
    hdr = state.hdr
    found = (int(hdr[SHARD]), int(hdr[IN_SEQ]), int(hdr[OUT_POSITION]), int(hdr[FATAL]))
    if found != (shard, extra.in_seq, extra.out_seq, 0):
        raise ValueError(
            f"no snapshot of this: shard, in_seq, out_seq and fatal are {found},"
            f" expected {(shard, extra.in_seq, extra.out_seq, 0)}"
        )
    header = FileHeader(
        "snapshot", shard, extra.in_seq, extra.chain_crc, extra.epoch, time.time_ns(), 0
    )
    path = snapshot_path(directory, shard, extra.in_seq)
    whole_write(disk, path, header, _content(state, extra))
    _remove_superfluous(disk, directory, shard, extra.in_seq)
    return extra.in_seq


def _remove_superfluous(disk: Disk, directory: str, shard: int, written: int) -> None:
    # Keeps two that can be read: a damaged one does not count, else it would push out the one it is
    # kept for. What cannot be removed now goes next time.
    good = 1
    folder = shard_directory(directory, shard)
    for in_seq in snapshot_list(disk, directory, shard):
        path = snapshot_path(directory, shard, in_seq)
        with contextlib.suppress(OSError):
            if in_seq == written:
                continue
            if good < KEPT:
                try:
                    whole_read(disk, path, "snapshot", shard)
                except FileRefused:
                    disk.unlink(path)
                else:
                    good += 1
            else:
                disk.unlink(path)
    for name in disk.listdir(folder):
        if name.startswith(PREFIX) and name.endswith(UNFINISHED):
            with contextlib.suppress(OSError):
                disk.unlink(f"{folder}/{name}")


def snapshot_load(
    disk: Disk,
    directory: str,
    shard: int,
    limits: ShardLimits,
    *,
    memory: np.ndarray | None = None,
    events: np.ndarray | None = None,
    reasons: list[str] | None = None,
) -> tuple[ShardState, SnapshotExtra] | None:
    """The state of the newest snapshot that is good, laid over `memory`; None when there is none.

    Args: memory, events: as for `allocate_state`, but memory need not be zero. reasons: every
    snapshot passed over is named here, with the reason.
    """
    for in_seq in snapshot_list(disk, directory, shard):
        try:
            parts = _parts_of(disk, directory, shard, in_seq, limits)
        except (FileRefused, OSError) as refused:
            if reasons is not None:
                reasons.append(str(refused))
            continue
        return parts.state(memory, events), parts.extra
    return None


def snapshot_read(
    disk: Disk,
    directory: str,
    shard: int,
    in_seq: int,
    limits: ShardLimits,
    *,
    events: np.ndarray | None = None,
) -> tuple[ShardState, SnapshotExtra]:
    """The state of one snapshot; FileRefused says what is wrong with it."""
    parts = _parts_of(disk, directory, shard, in_seq, limits)
    return parts.state(None, events), parts.extra


def _parts_of(disk: Disk, directory: str, shard: int, in_seq: int, limits: ShardLimits) -> "_Parts":
    path = snapshot_path(directory, shard, in_seq)
    header, content = whole_read(disk, path, "snapshot", shard)
    parts = _Parts(path, content.view("<i8"), limits, shard)
    if header.first != in_seq or parts.extra.in_seq != in_seq:
        raise FileRefused(path, f"is of in_seq {header.first}: renamed")
    return parts


class _Parts:
    """The content of a snapshot whose CRC is right, taken apart."""

    def __init__(self, path: str, words: np.ndarray, limits: ShardLimits, shard: int) -> None:
        self.limits, self.shard = limits, shard
        self.names = _stored_arrays(limits)
        ends = np.cumsum([META_WORDS, HDR_WORDS, 2 * len(self.names)]).tolist()
        meta = words[: ends[0]]
        if len(meta) < META_WORDS or int(meta[M_LAYOUT]) != state_fingerprint():
            raise FileRefused(
                path,
                "another layout of the state: another version of the program wrote it; the journal"
                " is replayed instead",
            )
        if int(meta[M_LIMITS]) != limits_fingerprint(limits):
            raise FileRefused(path, "written with other limits ([shard] of the configuration)")
        self.hdr = words[ends[0] : ends[1]]
        self.table = words[ends[1] : ends[2]].reshape(-1, 2)
        count = int(meta[M_PAGES])
        self.places = words[ends[2] : ends[2] + count]
        self.pages = words[ends[2] + count :].reshape(count, PAGE_BYTES // 8)
        sizes = [np.dtype(d).itemsize * n for name, d, n in state_layout(limits) if name != "table"]
        if self.table[:, 0].tolist() != sizes or int(self.table[:, 1].sum()) != count:
            raise FileRefused(path, "its arrays have other sizes than this program's")
        crcs = meta[M_EVENT_CRC : M_EVENT_CRC + EVENT_CRCS].tolist()
        self.extra = SnapshotExtra(
            in_seq=int(meta[M_IN_SEQ]),
            out_seq=int(meta[M_OUT_SEQ]),
            chain_crc=int(meta[M_CHAIN_CRC]),
            event_crc=(crcs[0], crcs[1], crcs[2]),
            durable=int(meta[M_DURABLE]),
            epoch=int(meta[M_EPOCH]),
            limits=int(meta[M_LIMITS]),
        )

    def state(self, memory: np.ndarray | None, events: np.ndarray | None) -> ShardState:
        """The state as it was, in this memory."""
        if memory is not None:
            memory[:] = 0
        state = allocate_state(self.limits, shard=self.shard, memory=memory, events=events)
        mask = int(state.hdr[EVENT_MASK])  # of the ring it has now
        state.hdr[:] = self.hdr
        state.hdr[EVENT_MASK] = mask
        done = 0
        for name, (_, count) in zip(self.names, self.table.tolist(), strict=True):
            places, pages = self.places[done : done + count], self.pages[done : done + count]
            _put_back(getattr(state, name), places, pages)
            done += count
        return state


def _put_back(array: np.ndarray, places: np.ndarray, pages: np.ndarray) -> None:
    raw = array.view(np.uint8).reshape(-1)
    whole = raw.size // PAGE_BYTES
    target = raw[: whole * PAGE_BYTES].view("<i8").reshape(whole, PAGE_BYTES // 8)
    inside = places < whole
    target[places[inside]] = pages[inside]
    if not inside.all():  # the last page, where the array ends within it
        rest = raw[whole * PAGE_BYTES :]
        rest[:] = pages[-1].view(np.uint8)[: rest.size]
