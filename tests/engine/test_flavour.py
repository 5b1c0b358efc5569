"""The flavour this run claims is the one it runs: an out-of-range read is caught, or is not.

Numba leaves bounds checking out of its cache key, so a warm cache could run unchecked code under a
checked name. This file comes first in every run (tests/conftest.py); where it fails, what follows
in the run says nothing about the flavour.
"""

from __future__ import annotations

import numpy as np
import pytest

from engine.jit import FLAVOUR, JIT_DISABLED, VERIFY, helper, kernel, subroutine

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]


@helper
def read_inlined(values, index):
    return values[index]


@subroutine
def read_called(values, index):
    return values[index]


@kernel
def read_by_helper(values, index):
    return read_inlined(values, index)


@kernel
def read_by_subroutine(values, index):
    return read_called(values, index)


@kernel
def read_directly(values, index):
    return values[index]


@pytest.mark.parametrize(
    "read", [read_directly, read_by_helper, read_by_subroutine], ids=["kernel", "helper", "sub"]
)
def test_read_out_of_range_is_caught_where_bounds_are_checked(read) -> None:
    whole = np.arange(8, dtype=np.int64)
    part = whole[:4]  # the read beyond it stays inside memory we own
    assert read(part, 3) == 3
    if VERIFY or JIT_DISABLED:
        with pytest.raises(IndexError):
            read(part, 6)
    else:
        assert read(part, 6) == 6


def test_verify_is_on_in_the_check_flavour_only() -> None:
    assert VERIFY == (FLAVOUR == "check")
