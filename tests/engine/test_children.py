"""Forked children: their exit codes, what they inherit, that they never clean up for the parent."""

import os
import signal
import sys
import time

import pytest

from engine.children import PREFIX, Child, fork_child

# The supervisor has one thread; pytest may have some of OpenBLAS, which Python 3.12 remarks on.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def ended(child: Child) -> int | None:
    assert child.wait(10)
    return child.returncode


def test_result_of_main_is_the_exit_code() -> None:
    assert ended(fork_child("seven", lambda: 7)) == 7


def test_exception_is_told_and_ends_with_1(capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise ValueError("no such thing")

    assert ended(fork_child("broken", main)) == 1
    assert "ValueError: no such thing" in capfd.readouterr().err


def test_sys_exit_keeps_its_code_and_runs_nothing_of_the_parent() -> None:
    cleaned = []
    try:
        assert ended(fork_child("exits", lambda: sys.exit(3))) == 3
    finally:
        cleaned.append(os.getpid())
    assert cleaned == [os.getpid()]


def test_signal_shows_as_a_negative_code_and_the_parents_handlers_are_gone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        child = fork_child("sleeper", lambda: int(time.sleep(30) or 0))
        child.send_signal(signal.SIGTERM)
        assert ended(child) == -signal.SIGTERM
        child.send_signal(signal.SIGTERM)  # to one that is gone: nothing
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == []


def test_child_has_a_name_no_terminal_and_ignores_ctrl_c() -> None:
    read_end, write_end = os.pipe()

    def main() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        with open("/proc/self/comm", encoding="ascii") as comm:
            os.write(write_end, comm.read().encode() + os.read(0, 10))
        return 0

    assert ended(fork_child("gateway0", main)) == 0
    assert os.read(read_end, 100) == f"{PREFIX}gateway0\n".encode()
    os.close(read_end)
    os.close(write_end)
