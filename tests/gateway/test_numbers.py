"""Decimals to ticks and lots: what the slow path says, held against exact fractions.

The compiled half is held against the slow path by test_decode.py, on whole lines.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import RejectCode
from gateway.codec_numbers import exact_steps, exact_units, mantissa_decimals, units_text
from gateway.directory import hash_start
from gateway.errors import Refusal

UNITS = 10**9
numbers = st.builds(
    lambda whole, part, exponent: f"{whole}{'.' + part if part else ''}{exponent}",
    st.integers(-(10**6), 10**20),
    st.text("0123456789", max_size=14),
    st.one_of(
        st.just(""),
        st.integers(-12, 12).map(lambda e: f"e{e}"),
        st.integers(0, 12).map(lambda e: f"E+{e}"),
    ),
)
steps_of_units = st.one_of(
    st.sampled_from((1, 10, 10**7, 5 * 10**7, UNITS, 10**12, 3)), st.integers(1, 2**62 - 1)
)


def code_of(text: str, step: int) -> int:
    """The refusal's code, or minus the steps."""
    try:
        return -exact_steps(text, step, "price", RejectCode.OFF_TICK, "tick")
    except Refusal as refusal:
        return refusal.code


@settings(max_examples=1500)
@given(text=numbers, step=steps_of_units)
@pytest.mark.later
def test_steps_are_the_exact_quotient_or_a_refusal(text: str, step: int) -> None:
    quotient = Fraction(text) * UNITS / step
    if quotient <= 0 or quotient >= 2**31:
        # What is both out of range and off tick may be called either, but never taken.
        assert code_of(text, step) in (RejectCode.OUT_OF_RANGE, RejectCode.OFF_TICK)
        if quotient <= 0 or quotient.denominator == 1:
            assert code_of(text, step) == RejectCode.OUT_OF_RANGE
    elif quotient.denominator == 1:
        assert code_of(text, step) == -quotient
    else:
        assert code_of(text, step) == RejectCode.OFF_TICK


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 102), ("abc", 102), ("1.", 102), (".5", 102), ("01", 102), ("+1", 102), (" 1", 102),
        ("1 ", 102), ("0x10", 102),
        ("1e", 102), ("1_000", 102), ("\u0661", 102), ("NaN", 102), ("Infinity", 102), ("-", 102),
        ("0", 103), ("-1", 103), ("-0", 103), ("0.0", 103), ("0e999999999999", 103),
        ("1e999999999999", 103), ("9" * 1500, 103),
        ("21474836.48", 103), ("1e31", 103), ("1e-999999999999", 306), ("0.001", 306),
        ("1" + "0" * 5 + "." + "0" * 1500 + "1", 306),
        ("0." + "0" * 1800 + "1", 306),
        ("21474836.47", -(2**31 - 1)), ("0.01", -1), ("1E2", -10000), ("1000000e-4", -10000),
        ("1." + "0" * 1500, -100),
    ],
)  # fmt: skip
def test_odd_numbers(text: str, code: int) -> None:
    assert code_of(text, 10**7) == code


@given(units=st.integers(1, 2**62 - 1))
def test_mantissa_and_decimals_are_the_shortest_form(units: int) -> None:
    mantissa, decimals = mantissa_decimals(units)
    assert Fraction(mantissa, 10**decimals) == Fraction(units, UNITS)
    assert decimals == 0 or mantissa % 10
    assert Fraction(units_text(units)) == Fraction(units, UNITS)


def test_zero_has_one_form() -> None:
    assert exact_units("0") == exact_units("-0.000e7") == (0, 0)


def test_names_spread_over_the_directory() -> None:
    names = [f"SYM{i:04d}" for i in range(1000)]
    places = {hash_start(int.from_bytes(name.encode(), "little")) & 4095 for name in names}
    assert len(places) > 600  # 1000 in 4096 places, at random: about 890
