"""The idle policy: spin, yield, park by the time since the last work; parking on an eventfd."""

import os
import time
from collections.abc import Iterator

import pytest

from engine import idle
from engine.idle import SPIN_NS, YIELD_NS, Idle, Rest, park, rest_kind
from engine.jit import subroutine

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]

EDGES = (0, 1, SPIN_NS - 1, SPIN_NS, SPIN_NS + 1, YIELD_NS - 1, YIELD_NS, YIELD_NS + 1, 10**12)
EXPECTED = {
    "adaptive": [Rest.SPIN] * 3 + [Rest.YIELD] * 3 + [Rest.PARK] * 3,
    "spin": [Rest.SPIN] * 9,
    "park": [Rest.SPIN] * 3 + [Rest.PARK] * 6,
}


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@subroutine
def _rest_kind_compiled(mode, idle_ns):
    return rest_kind(mode, idle_ns)


@pytest.mark.parametrize("mode", idle.MODES)
def test_rest_follows_time_since_last_work(mode: str) -> None:
    policy = Idle(mode)
    policy.worked(1000)
    assert [policy.rest(1000 + edge) for edge in EDGES] == EXPECTED[mode]


@pytest.mark.parametrize("mode", idle.MODES)
def test_compiled_policy_equals_python_policy(mode: str) -> None:
    found = [_rest_kind_compiled(idle.MODES.index(mode), edge) for edge in EDGES]
    assert found == EXPECTED[mode]


def test_work_resets_to_spinning() -> None:
    policy = Idle()
    policy.worked(0)
    assert policy.rest(YIELD_NS) is Rest.PARK
    policy.worked(YIELD_NS)
    assert policy.rest(YIELD_NS + 1) is Rest.SPIN


def test_first_rest_after_start_spins_whatever_the_clock_says() -> None:
    assert Idle().rest(10**18) is Rest.SPIN


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="adaptive, spin, park, not 'lazy'"):
        Idle("lazy")


def test_park_returns_at_once_when_signalled_and_takes_the_signal(eventfd: int) -> None:
    os.eventfd_write(eventfd, 3)
    assert park(eventfd, 5.0)
    assert not park(eventfd, 0.0)


def test_park_ends_when_time_is_over(eventfd: int) -> None:
    before = time.monotonic()
    assert not park(eventfd, 0.02)
    assert time.monotonic() - before >= 0.019


def test_park_timeout_is_the_bound_the_design_promises() -> None:
    assert idle.PARK_TIMEOUT_S == 0.1


def test_drain_of_an_unsignalled_eventfd_does_not_block(eventfd: int) -> None:
    idle.drain(eventfd)
    os.eventfd_write(eventfd, 1)
    idle.drain(eventfd)
    assert not park(eventfd, 0.0)
