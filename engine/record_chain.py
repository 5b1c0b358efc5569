"""Record by record: what a kept record's CRC should be, whatever became of its neighbours.

Hot in `chain_crcs`, cold around it. Readers of a journal or log stop at the first bad record; who
looks for damage, or shows it, wants a verdict on every one. Each CRC goes on from the one *stored*
in the record before, so one bad byte spoils one record, and the next one only where it is in the
CRC itself.
"""

from typing import NamedTuple

import numpy as np

from engine.crc32c import crc_word
from engine.jit import kernel, register_warmup
from engine.records import COMMAND, EVENT, layout_offset

RECORD_WORDS = 24
LOW_HALF = 0xFFFFFFFF
assert COMMAND.itemsize == EVENT.itemsize == RECORD_WORDS * 8


class CrcPlace(NamedTuple):
    """Where in a record its CRC stands: a word, and the shift to its half of it."""

    word: int
    shift: int


def _place(layout: np.dtype) -> CrcPlace:
    word, byte = divmod(layout_offset(layout, "crc"), 8)
    return CrcPlace(word, byte * 8)


COMMAND_CRC, EVENT_CRC = _place(COMMAND), _place(EVENT)


@kernel
def chain_crcs(words, place, crc, out):
    """Fill out[n] with the CRC record n should carry; `crc` is stored before the first."""
    word_at, shift = np.int64(place.word), np.uint64(place.shift)
    mask = np.uint64(LOW_HALF) << shift
    before = np.uint64(crc)
    for row in range(out.size):
        value = before
        for word in range(RECORD_WORDS):
            bits = np.uint64(words[np.uint64(row * RECORD_WORDS + word)])
            if word == word_at:
                before = (bits & mask) >> shift
                bits = bits & ~mask
            value = crc_word(value, bits)
        out[np.uint64(row)] = np.int64(value)


def crcs_wrong(records: np.ndarray, crc: int) -> np.ndarray:
    """Which of some neighbouring COMMANDs or EVENTs do not carry the CRC they should."""
    place = COMMAND_CRC if records.dtype == COMMAND else EVENT_CRC
    words = np.ascontiguousarray(records).view(np.int64)
    words.flags.writeable = False  # as those read from files: one compiled version
    out = np.zeros(len(records), np.int64)
    chain_crcs(words, place, np.int64(crc), out)
    return np.asarray(out != records["crc"])


def empty_rows(records: np.ndarray) -> np.ndarray:
    """Which records are nothing but zeros."""
    words = np.ascontiguousarray(records).view(np.int64).reshape(-1, RECORD_WORDS)
    return np.asarray(np.logical_not(words.any(axis=1)))


def _warm_up() -> None:
    for layout in (COMMAND, EVENT):
        crcs_wrong(np.zeros(1, layout), 0)


register_warmup("engine.record_chain", _warm_up)
