"""Child processes of the supervisor: forked from it, with all that it imported and compiled.

Cold. Importing Numba and loading the kernels takes two seconds of a core; done once, before the
fork, it is there for every child at once, and memory that nobody writes is shared. The rules that
make a fork safe here: the supervisor has one thread (run.py keeps OpenBLAS from starting its own),
no event loop and no lock held; signals are blocked across the fork; a child never runs the
supervisor's clean-up, it ends by _exit.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
PREFIX = "rb-"  # of a child's name in ps and /proc/PID/comm
_POLL_S = 0.002


class Child:
    """A forked process, with the part of subprocess.Popen's interface that is used here."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False when time ran out."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def send_signal(self, number: int) -> None:
        """Signal it, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def fork_child(name: str, main: Callable[[], int]) -> Child:
    """Run `main` in a child that dies with this process; its result is the exit code."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        _be_child(name, main, parent, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Child(name, pid)


def _be_child(name: str, main: Callable[[], int], parent: int, mask: Iterable[int]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the supervisor's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with_parent(parent)
        name_process(name)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl
        os._exit(1)


def name_process(name: str) -> None:
    """Show as rb-NAME (at most 15 characters) where processes are listed."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, f"{PREFIX}{name}".encode()[:15], 0, 0, 0)
