"""A disk in memory that does what disks may do: the Disk of engine/disk.py with every fault.

    disk = SimDisk()                       one process's view
    other = disk.process()                 another process: same files, own handles and locks
    disk.fail(at=7, error=errno.EIO)       the 7th operation from now fails; forever=True: and on
    disk.cut_power(at=9)                   the 9th operation from now raises PowerCut instead
    disk.crash(random.Random(1))           the power fails: the unsynced is kept, lost, torn
    disk.kill()                            this process dies: handles and locks go, nothing else

What a crash keeps. Content counts by sectors of 512 bytes: one written since the last fdatasync
may have any of the contents it had since, or a torn mix; sectors do not wait for each other. The
size of a file is old or new. A directory's changes (create, rename, unlink) that sync_dir has not
covered happen as a prefix of their order or as any subset; a rename is whole or not at all. After
a failed fdatasync the pages count as clean, as on Linux: a later sync does not cover them.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.disk import Data, data_bytes

SECTOR = 512
TORN_SHARE = 0.1  # of the unsynced sectors
VERSIONS_MAX = 4


class PowerCut(Exception):
    """Raised by the operation at which the power fails; the test then calls `crash`."""


@dataclass
class SimFile:
    """Content as programs see it, and as the platter has it."""

    cache: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    sectors: dict[int, list[bytes]] = field(default_factory=dict)  # contents since the last sync
    sizes: list[int] = field(default_factory=list)

    def touch(self, start: int, stop: int) -> None:
        """Note the present content of the sectors of cache[start:stop] as one that may stay."""
        for sector in range(start // SECTOR, -(-stop // SECTOR)):
            content = bytes(self.cache[sector * SECTOR : (sector + 1) * SECTOR])
            versions = self.sectors.setdefault(sector, [])
            versions.append(content.ljust(SECTOR, b"\0"))
            del versions[:-VERSIONS_MAX]

    def resize(self, size: int) -> None:
        """Change the size; what is gained, or lost, is zero."""
        old = len(self.cache)
        if size < old:
            self.cache[size:] = bytes(old - size)
            self.touch(size, old)
            del self.cache[size:]
        else:
            self.cache.extend(bytes(size - old))
        self.sizes.append(size)

    def synced(self, sectors: dict[int, list[bytes]], size: int | None) -> None:
        """Take what a sync began with to the platter."""
        if size is not None:
            del self.durable[size:]
            self.durable.extend(bytes(size - len(self.durable)))
        for sector, versions in sectors.items():
            self.put(sector, versions[-1])

    def put(self, sector: int, content: bytes) -> None:
        """Write one sector of the platter, as far as the file reaches."""
        room = len(self.durable) - sector * SECTOR
        if room > 0:
            self.durable[sector * SECTOR : (sector + 1) * SECTOR] = content[:room]

    def crash(self, rng: random.Random) -> None:
        """Decide what the platter has; the cache is gone."""
        keep = rng.choice((0.0, 0.5, rng.random(), 1.0))
        if self.sizes and rng.random() < max(keep, 0.5):
            self.synced({}, rng.choice(self.sizes))
        for sector, versions in sorted(self.sectors.items()):
            if rng.random() >= keep:
                continue
            content = versions[-1] if rng.random() < 0.7 else rng.choice(versions)
            if rng.random() < TORN_SHARE:
                old = bytes(self.durable[sector * SECTOR : (sector + 1) * SECTOR])
                place = rng.randrange(0, SECTOR + 1, 8)
                content = content[:place] + old.ljust(SECTOR, b"\0")[place:]
            self.put(sector, content)
        self.sectors, self.sizes = {}, []
        self.cache = bytearray(self.durable)


@dataclass
class SimDirectory:
    """Names as programs see them, and those on the platter."""

    names: dict[str, SimNode] = field(default_factory=dict)
    durable: dict[str, SimNode] = field(default_factory=dict)
    pending: list[list[tuple[str, SimNode | None]]] = field(default_factory=list)

    def change(self, *edits: tuple[str, SimNode | None]) -> None:
        """Set or remove names, all at once."""
        self.pending.append(list(edits))
        _edit(self.names, list(edits))

    def synced(self) -> None:
        self.durable, self.pending = dict(self.names), []

    def crash(self, rng: random.Random) -> None:
        """Decide which changes the platter has, here and below."""
        changes = self.pending
        if rng.random() < 0.5:
            changes = changes[: rng.randint(0, len(changes))]
        else:
            changes = [change for change in changes if rng.random() < 0.5]
        for change in changes:
            _edit(self.durable, change)
        self.names, self.pending = dict(self.durable), []
        for name in sorted(self.names):
            self.names[name].crash(rng)


SimNode = SimFile | SimDirectory


def _edit(names: dict[str, SimNode], edits: list[tuple[str, SimNode | None]]) -> None:
    for name, node in edits:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


@dataclass
class SimStore:
    """What all processes share: the files, the clock of the disk, the faults to come."""

    room: int
    root: SimDirectory = field(default_factory=SimDirectory)
    locked: set[str] = field(default_factory=set)
    operations: int = 0
    trace: list[str] = field(default_factory=list)
    fail_at: int = 0
    fail_error: int = 0
    fail_forever: bool = False
    fail_names: frozenset[str] = frozenset()
    cut_at: int = 0
    now_ns: int = 0
    sync_ns: int = 0  # what one sync takes
    on_sync: Callable[[], object] | None = None  # runs while a sync is under way


@dataclass
class SimHandle:
    file: SimFile
    path: str
    write: bool
    lock: bool = False


class SimDisk:
    """One process's view of a simulated disk."""

    def __init__(self, room: int = 1 << 32, store: SimStore | None = None) -> None:
        self.store = SimStore(room) if store is None else store
        self._handles: dict[int, SimHandle] = {}

    # -------------------------------------------------------------------------- what a test does
    def process(self) -> SimDisk:
        """Return the view of another process."""
        return SimDisk(store=self.store)

    @property
    def operations(self) -> int:
        """How many operations there have been."""
        return self.store.operations

    def fail(self, at: int, error: int, forever: bool = False, names: tuple[str, ...] = ()) -> None:
        """Let the `at`-th operation from now (of these names, by default any) fail."""
        store = self.store
        store.fail_at, store.fail_error, store.fail_forever = at, error, forever
        store.fail_names = frozenset(names)

    def heal(self) -> None:
        """No more faults."""
        self.store.fail_at = self.store.cut_at = 0

    def cut_power(self, at: int) -> None:
        """Let the `at`-th operation from now raise PowerCut."""
        self.store.cut_at = at

    def kill(self) -> None:
        """End this process: handles and locks go."""
        for handle in list(self._handles):
            self.close(handle)

    def crash(self, rng: random.Random) -> None:
        """End everything: only the platter is left. Other processes' handles are the caller's."""
        self.kill()
        self.store.locked.clear()
        self.heal()
        self.store.root.crash(rng)

    def read(self, path: str) -> bytes:
        """Content of a file, as programs see it."""
        return bytes(self._file(path).cache)

    def overwrite(self, path: str, data: bytes, offset: int = 0, size: int | None = None) -> None:
        """Change a file behind everybody's back, platter and cache; size: cut it to."""
        file = self._file(path)
        file.cache[offset : offset + len(data)] = data
        if size is not None:
            del file.cache[size:]
        file.durable, file.sectors, file.sizes = bytearray(file.cache), {}, []

    # --------------------------------------------------------------------------- the Disk interface
    def makedirs(self, path: str) -> None:
        self._operation("makedirs", path)
        node = self.store.root
        for part in _parts(path):
            below = node.names.get(part)
            if below is None:
                below = SimDirectory()
                node.change((part, below))
            if not isinstance(below, SimDirectory):
                raise _error(errno.EEXIST, path)
            node = below

    def listdir(self, path: str) -> list[str]:
        node = self._node(path)
        return sorted(node.names) if isinstance(node, SimDirectory) else []

    def exists(self, path: str) -> bool:
        return self._node(path) is not None

    def size(self, path: str) -> int:
        return len(self._file(path).cache)

    def create(self, path: str, size: int) -> int:
        self._operation("create", path)
        parent, name = self._parent(path)
        if name in parent.names:
            raise _error(errno.EEXIST, path)
        file = SimFile()
        parent.change((name, file))
        handle = self._new(SimHandle(file, path, write=True))
        if size:
            try:
                self.allocate(handle, size)
            except OSError:
                self.close(handle)
                parent.change((name, None))
                raise
        return handle

    def open(self, path: str, write: bool = False) -> int:
        self._operation("open", path)
        return self._new(SimHandle(self._file(path), path, write))

    def close(self, handle: int) -> None:
        closed = self._handles.pop(handle, None)
        if closed is None:
            raise _error(errno.EBADF, str(handle))
        if closed.lock:
            self.store.locked.discard(closed.path)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        opened = self._handle(handle)
        self._operation("pread", opened.path)
        return bytes(opened.file.cache[offset : offset + size])

    def pwrite(self, handle: int, data: Data, offset: int) -> None:
        opened, raw = self._handle(handle, write=True), bytes(data_bytes(data))
        try:
            self._operation("pwrite", opened.path)
        except OSError:
            self._write(opened.file, raw[: len(raw) // 2], offset)  # what fitted
            raise
        self._write(opened.file, raw, offset)

    def _write(self, file: SimFile, raw: bytes, offset: int) -> None:
        end = offset + len(raw)
        if end > len(file.cache):
            self._take_room(end - len(file.cache), "")
            file.resize(end)
        file.cache[offset:end] = raw
        file.touch(offset, end)

    def fdatasync(self, handle: int) -> None:
        opened, store = self._handle(handle), self.store
        file = opened.file
        try:
            self._operation("fdatasync", opened.path)
        except OSError:
            file.sectors, file.sizes = {}, []
            raise
        sectors, size = file.sectors, file.sizes[-1] if file.sizes else None
        file.sectors, file.sizes = {}, []
        store.now_ns += store.sync_ns
        if store.on_sync is not None:
            store.on_sync()
        file.synced(sectors, size)

    def forget(self, handle: int) -> None:
        # What is clean is read from the platter again, also where a failed sync has left it so.
        file = self._handle(handle).file
        if not file.sectors and not file.sizes:
            file.cache = bytearray(file.durable)

    def truncate(self, handle: int, size: int) -> None:
        opened = self._handle(handle, write=True)
        self._operation("truncate", opened.path)
        opened.file.resize(size)

    def allocate(self, handle: int, size: int) -> None:
        opened = self._handle(handle, write=True)
        self._operation("allocate", opened.path)
        gained = size - len(opened.file.cache)
        if gained > 0:
            self._take_room(gained, opened.path)
            opened.file.resize(size)

    def rename(self, old: str, new: str) -> None:
        self._operation("rename", old)
        (source, source_name), (target, target_name) = self._parent(old), self._parent(new)
        if source_name not in source.names:
            raise _error(errno.ENOENT, old)
        if source is not target:
            raise _error(errno.EXDEV, new)
        node = source.names[source_name]
        source.change((source_name, None), (target_name, node))

    def unlink(self, path: str) -> None:
        self._operation("unlink", path)
        parent, name = self._parent(path)
        if not isinstance(parent.names.get(name), SimFile):
            raise _error(errno.ENOENT, path)
        parent.change((name, None))

    def sync_dir(self, path: str) -> None:
        self._operation("sync_dir", path)
        node = self._node(path)
        if not isinstance(node, SimDirectory):
            raise _error(errno.ENOENT, path)
        self.store.now_ns += self.store.sync_ns
        node.synced()

    def free_bytes(self, path: str) -> int:
        self._operation("free_bytes", path)
        return self.store.room - _bytes_used(self.store.root)

    def lock(self, path: str) -> int:
        self._operation("lock", path)
        if path in self.store.locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process", path)
        parent, name = self._parent(path)
        if name not in parent.names:
            parent.change((name, SimFile()))
        self.store.locked.add(path)
        return self._new(SimHandle(self._file(path), path, write=True, lock=True))

    # ------------------------------------------------------------------------------------- inside
    def _operation(self, name: str, path: str) -> None:
        store = self.store
        store.operations += 1
        store.trace.append(f"{name} {path}")
        if store.cut_at:
            store.cut_at -= 1
            if store.cut_at == 0:
                raise PowerCut(f"{name} {path}")
        if store.fail_at and (not store.fail_names or name in store.fail_names):
            store.fail_at -= 1
            if store.fail_at == 0:
                store.fail_at = 1 if store.fail_forever else 0
                raise _error(store.fail_error, path)

    def _new(self, handle: SimHandle) -> int:
        number = max(self._handles, default=99) + 1
        self._handles[number] = handle
        return number

    def _handle(self, handle: int, write: bool = False) -> SimHandle:
        opened = self._handles.get(handle)
        if opened is None or (write and not opened.write):
            raise _error(errno.EBADF, str(handle))
        return opened

    def _take_room(self, size: int, path: str) -> None:
        if _bytes_used(self.store.root) + size > self.store.room:
            raise _error(errno.ENOSPC, path)

    def _node(self, path: str) -> SimNode | None:
        node: SimNode | None = self.store.root
        for part in _parts(path):
            node = node.names.get(part) if isinstance(node, SimDirectory) else None
        return node

    def _file(self, path: str) -> SimFile:
        node = self._node(path)
        if not isinstance(node, SimFile):
            raise _error(errno.ENOENT, path)
        return node

    def _parent(self, path: str) -> tuple[SimDirectory, str]:
        place, _, name = path.rpartition("/")
        node = self._node(place)
        if not isinstance(node, SimDirectory):
            raise _error(errno.ENOENT, path)
        return node, name


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _bytes_used(node: SimNode) -> int:
    if isinstance(node, SimFile):
        return len(node.cache)
    return sum(_bytes_used(below) for below in node.names.values())


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
