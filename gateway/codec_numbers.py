"""Decimal text to whole ticks and lots, exactly, in compiled code and in Python.

Hot. No float anywhere. A decimal is a mantissa and a number of decimals; a tick (or lot) likewise;
the result is their exact quotient or none. Overflow is tested before each multiplication: in
compiled code it would be undefined, not a wrap.

The compiled half takes plain numbers of at most 18 digits and answers -1 for everything it is not
sure of; the Python half takes every JSON number and says what is wrong.
tests/gateway/test_numbers.py holds them against each other and Fraction.
"""

import re

import numpy as np

from engine.jit import helper
from engine.records import QTY_LOTS_MAX, RejectCode
from gateway.codec_tables import at
from gateway.errors import Refusal
from gateway.state import F_BASE, F_SCALE

DIGITS_MAX = 18  # 10**18 - 1 < 2**63
DECIMALS_MAX = 9  # ticks and lots are multiples of 1e-9
STEPS_MAX = 2**31 - 1
assert STEPS_MAX == QTY_LOTS_MAX
POWER = 10 ** np.arange(DECIMALS_MAX + 1, dtype=np.int64)
LARGEST = (2**63 - 1) // POWER  # what may still be multiplied by POWER

QUOTE, DOT, ZERO, NINE = 34, 46, 48, 57
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?\Z")
_EXPONENT_DIGITS = 6  # beyond this no price can be meant; keeps 10 ** exponent small


@helper
def decimal_parse(words, buf, p, field):
    """Read a decimal, quoted or not, at p into the words of `field`; returns the place after it, or
    -1.
    """
    quoted = buf[at(p)] == QUOTE
    p += 1 if quoted else 0
    first = p
    mantissa = np.int64(0)
    c = np.int64(buf[at(p)])
    while c >= ZERO and c <= NINE and p - first < DIGITS_MAX:
        mantissa = mantissa * 10 + (c - ZERO)
        p += 1
        c = np.int64(buf[at(p)])
    whole = p - first
    if whole == 0 or (whole > 1 and buf[at(first)] == ZERO):
        return np.int64(-1)
    scale = np.int64(0)
    if c == DOT:
        p += 1
        c = np.int64(buf[at(p)])
        while c >= ZERO and c <= NINE and whole + scale < DIGITS_MAX:
            mantissa = mantissa * 10 + (c - ZERO)
            scale += 1
            p += 1
            c = np.int64(buf[at(p)])
        if scale == 0:
            return np.int64(-1)
    if quoted:
        if c != QUOTE:
            return np.int64(-1)
        p += 1
    words[F_BASE + field] = mantissa
    words[F_BASE + field + F_SCALE] = scale
    return np.int64(p)


@helper
def integer_parse(words, buf, p, field):
    """Read an integer of at most 18 digits at p into the word of `field`; returns the place after
    it, or -1.
    """
    first = p
    value = np.int64(0)
    c = np.int64(buf[at(p)])
    while c >= ZERO and c <= NINE and p - first < DIGITS_MAX:
        value = value * 10 + (c - ZERO)
        p += 1
        c = np.int64(buf[at(p)])
    if p == first or (p - first > 1 and buf[at(first)] == ZERO):
        return np.int64(-1)
    words[F_BASE + field] = value
    return np.int64(p)


@helper
def steps_of(mantissa, scale, step, decimals):
    """How many steps (ticks, lots) the decimal is: 1 .. 2**31 - 1, or -1 when it is not exactly so
    many.
    """
    while scale > decimals:
        if mantissa % 10 != 0:
            return np.int64(-1)
        mantissa = mantissa // 10
        scale -= 1
    up = decimals - scale
    if mantissa > LARGEST[at(up)]:
        return np.int64(-1)
    steps = mantissa * POWER[at(up)]
    if step != 1:
        units = steps
        steps = units // step
        if steps * step != units:
            return np.int64(-1)
    if steps < 1 or steps > STEPS_MAX:
        return np.int64(-1)
    return np.int64(steps)


def exact_units(text: str) -> tuple[int, int] | None:
    """A JSON number as (numerator, decimals), exponents resolved, zeros stripped; None when the
    text is no JSON number.

    (0, 0) is zero. An exponent too large to be meant gives decimals of the same size, never a huge
    integer.
    """
    match = _NUMBER.match(text)
    if match is None:
        return None
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", match[4] or "0"
    digits = (whole + fraction).lstrip("0")
    mantissa = digits.rstrip("0")
    if not mantissa:
        return 0, 0
    if len(exponent.lstrip("+-").lstrip("0")) > _EXPONENT_DIGITS:
        power = -(10**_EXPONENT_DIGITS) if exponent[0] == "-" else 10**_EXPONENT_DIGITS
    else:
        power = int(exponent)
    decimals = len(fraction) - power - (len(digits) - len(mantissa))
    return (-int(mantissa) if sign else int(mantissa)), decimals


def exact_steps(text: str, step_units: int, what: str, off_code: RejectCode, name: str) -> int:
    """Whole steps of `step_units` (1e-9 each) in a decimal; Refusal 102, 103 or `off_code` with the
    reason.
    """
    number = exact_units(text)
    if number is None:
        raise Refusal(RejectCode.BAD_FIELD, f"{what} must be a decimal number")
    mantissa, decimals = number
    if mantissa <= 0:
        raise Refusal(RejectCode.OUT_OF_RANGE, f"{what} must be above zero")
    # 30 digits before the point are out of range for every tick (2**31 steps of less than 2**62
    # units).
    if len(str(mantissa)) - decimals > 30:
        raise Refusal(RejectCode.OUT_OF_RANGE, f"{what} is too large")
    if decimals > DECIMALS_MAX:
        whole, rest = (
            (0, 1) if decimals > 5000 else divmod(mantissa, 10 ** (decimals - DECIMALS_MAX))
        )
        steps = whole // step_units
        exact = rest == 0 and whole % step_units == 0
    else:
        units = mantissa * 10 ** (DECIMALS_MAX - decimals)
        steps, exact = units // step_units, units % step_units == 0
    if steps > STEPS_MAX:
        raise Refusal(RejectCode.OUT_OF_RANGE, f"{what} is too large: at most {STEPS_MAX} {name}s")
    if not exact:
        raise Refusal(off_code, f"{what} is not a multiple of the {name} {units_text(step_units)}")
    return steps


def units_text(units: int) -> str:
    """An integer of 1e-9 as decimal text without needless zeros."""
    whole, part = divmod(abs(units), 10**DECIMALS_MAX)
    fraction = f"{part:09d}".rstrip("0")
    return ("-" if units < 0 else "") + (f"{whole}.{fraction}" if fraction else str(whole))


def mantissa_decimals(units: int) -> tuple[int, int]:
    """An integer of 1e-9 as (mantissa, decimals) with the fewest decimals."""
    decimals = DECIMALS_MAX
    while decimals and units % 10 == 0:
        units //= 10
        decimals -= 1
    return units, decimals
