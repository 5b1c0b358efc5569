"""All file access of journal, event log, snapshots and manifest: one small interface.

Cold (one call per batch). Whoever keeps files gets a `Disk` and touches nothing else, so that the
simulator can stand in with a disk that tears, loses, delays and fills up (tests/sim/sim_disk.py).
Every failure is an OSError.

Files are 0600 of this user in 0700 directories; a symbolic link is never followed. Room is taken
with posix_fallocate when a file is made: on a full disk that fails, later writes inside it do not.
A write is in the page cache (outlives any process); it outlives a power cut after `fdatasync`. The
name of a new, renamed or removed file outlives a power cut after `sync_dir` of its directory.

Limit: one machine, one file system that keeps what fdatasync has returned for.
"""

import errno
import fcntl
import os
import stat
from typing import Any, Protocol

import numpy as np

Data = bytes | bytearray | memoryview | np.ndarray[Any, Any]
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC


def data_bytes(data: Data) -> memoryview:
    """Return a view of the bytes, without a copy."""
    if isinstance(data, np.ndarray):
        return memoryview(data.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    return memoryview(data)


class Disk(Protocol):
    """What keepers of files may do; paths are strings, handles small integers."""

    def makedirs(self, path: str) -> None: ...

    def listdir(self, path: str) -> list[str]: ...

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int: ...

    def create(self, path: str, size: int) -> int: ...

    def open(self, path: str, write: bool = False) -> int: ...

    def close(self, handle: int) -> None: ...

    def pread(self, handle: int, size: int, offset: int) -> bytes: ...

    def pwrite(self, handle: int, data: Data, offset: int) -> None: ...

    def fdatasync(self, handle: int) -> None: ...

    def forget(self, handle: int) -> None: ...

    def truncate(self, handle: int, size: int) -> None: ...

    def allocate(self, handle: int, size: int) -> None: ...

    def rename(self, old: str, new: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None: ...

    def free_bytes(self, path: str) -> int: ...

    def lock(self, path: str) -> int: ...


class RealDisk:
    """The Disk of this machine."""

    def makedirs(self, path: str) -> None:
        """Make a directory and what is missing above it, each 0700; refuse one others may write."""
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            above = os.path.dirname(path)
            self.makedirs(above)
            os.mkdir(path, 0o700)
            self.sync_dir(os.path.dirname(above) or ".")
        except FileExistsError:
            info = os.stat(path)
            if not stat.S_ISDIR(info.st_mode):
                raise
            _refuse_foreign(info, path, 0o022)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted; none when it is absent."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        """Whether a name is there, whatever it names."""
        return os.path.lexists(path)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return os.stat(path, follow_symlinks=False).st_size

    def create(self, path: str, size: int) -> int:
        """Make a file that must not exist, with room for `size` bytes, all zero; leave none behind
        on an error.
        """
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
        try:
            if size:
                os.posix_fallocate(handle, 0, size)
        except OSError:
            os.close(handle)
            os.unlink(path)
            raise
        return handle

    def open(self, path: str, write: bool = False) -> int:
        """Open a file of this user that nobody else may read."""
        handle = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _OPEN)
        try:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                raise PermissionError(errno.EACCES, "no regular file", path)
            _refuse_foreign(info, path, 0o077)
        except OSError:
            os.close(handle)
            raise
        return handle

    def close(self, handle: int) -> None:
        """Give a handle back; a lock goes with its handle."""
        os.close(handle)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Return `size` bytes, or fewer at the end of the file."""
        data = os.pread(handle, size, offset)
        while 0 < len(data) < size:
            more = os.pread(handle, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pwrite(self, handle: int, data: Data, offset: int) -> None:
        """Write all of `data` (an array: contiguous, of any type), or raise."""
        rest = data_bytes(data)
        while rest:
            done = os.pwrite(handle, rest, offset)
            rest, offset = rest[done:], offset + done

    def fdatasync(self, handle: int) -> None:
        """Wait until all that was written to the file, and its size, is on disk."""
        os.fdatasync(handle)

    def forget(self, handle: int) -> None:
        """Let go of the memory that holds what is on disk of a file: nobody reads it soon.

        Writing on takes the same pages again; without it each takes new ones until the machine has
        no more, three times slower where a hypervisor has yet to find them.
        """
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def truncate(self, handle: int, size: int) -> None:
        """Cut the file; what `allocate` gives back behind the cut is zero."""
        os.ftruncate(handle, size)

    def allocate(self, handle: int, size: int) -> None:
        """Take room so that the file has at least `size` bytes."""
        os.posix_fallocate(handle, 0, size)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what had it."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def sync_dir(self, path: str) -> None:
        """Wait until the names in a directory are on disk."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def free_bytes(self, path: str) -> int:
        """Room left for this user."""
        info = os.statvfs(path)
        return info.f_bavail * info.f_frsize

    def lock(self, path: str) -> int:
        """Hold an exclusive lock until the handle is closed; BlockingIOError: somebody has it.

        The handle is never given to another process: a lock that was passed on fences nothing.
        """
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise BlockingIOError(error.errno, "locked by another process", path) from error
        except OSError:
            os.close(handle)
            raise
        return handle


def _refuse_foreign(info: os.stat_result, path: str, forbidden: int) -> None:
    if info.st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, f"belongs to user {info.st_uid}", path)
    mode = stat.S_IMODE(info.st_mode)
    if mode & forbidden:
        raise PermissionError(errno.EACCES, f"open to others (mode {mode:04o}): chmod it", path)
