"""A disk that is only looked at: for tools that read a data directory which is not theirs.

Cold. Nothing here writes, locks or makes anything, so a running exchange never notices. A directory
restored from a backup, or checked out, often has files that others may read; a start refuses them,
a reader need not. A symbolic link is still not followed.
"""

import errno
import os

from engine.disk import Data, RealDisk


class ReadOnlyDisk(RealDisk):
    """The Disk of this machine, without the part that changes anything."""

    def makedirs(self, path: str) -> None:
        """Refuse."""
        raise _refused(path)

    def create(self, path: str, size: int) -> int:
        """Refuse."""
        raise _refused(path)

    def open(self, path: str, write: bool = False) -> int:
        """Open a file for reading, whoever else may read it."""
        if write:
            raise _refused(path)
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def pwrite(self, handle: int, data: Data, offset: int) -> None:
        """Refuse."""
        raise _refused("")

    def truncate(self, handle: int, size: int) -> None:
        """Refuse."""
        raise _refused("")

    def allocate(self, handle: int, size: int) -> None:
        """Refuse."""
        raise _refused("")

    def rename(self, old: str, new: str) -> None:
        """Refuse."""
        raise _refused(old)

    def unlink(self, path: str) -> None:
        """Refuse."""
        raise _refused(path)

    def lock(self, path: str) -> int:
        """Refuse."""
        raise _refused(path)


def _refused(path: str) -> OSError:
    return PermissionError(errno.EROFS, "only looked at, never written", path)
