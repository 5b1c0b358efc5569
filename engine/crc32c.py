"""CRC32C (Castagnoli, RFC 3720) of words: what guards journal, event log and snapshots.

Hot: one instruction a word where the processor has SSE4.2 (3 cycles, one chain), eight table steps
elsewhere; both give the same. A chain of records needs no inversion between them, so there is none
here: `crc_words` goes on from the value it is given, a chain starts at CRC_START, and the published
CRC32C of some bytes is `crc_words(CRC_START, ...) ^ CRC_START`.
"""

import numpy as np

from engine.atomics import crc32c_word, has_crc32c
from engine.jit import JIT_DISABLED, helper, kernel, register_warmup

POLYNOMIAL = 0x82F63B78  # reflected
CRC_START = 0xFFFFFFFF


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        table = (table >> np.uint64(1)) ^ ((table & np.uint64(1)) * np.uint64(POLYNOMIAL))
    return table


TABLE = _table()


@helper
def crc_word_by_table(crc, word):
    """The CRC after one more little-endian word."""
    value = np.uint64(crc) ^ np.uint64(word)
    for _ in range(8):
        value = (value >> np.uint64(8)) ^ TABLE[value & np.uint64(0xFF)]
    return value


if has_crc32c() and not JIT_DISABLED:

    @helper
    def crc_word(crc, word):
        """The CRC after one more little-endian word."""
        return crc32c_word(np.uint64(crc), np.uint64(word))
else:
    crc_word = crc_word_by_table


@helper
def crc_words(crc, words, first, count):
    """The CRC after words[first : first + count]."""
    value = np.uint64(crc)
    for index in range(count):
        value = crc_word(value, words[np.uint64(first + index)])
    return value


@kernel
def crc_of_words(crc, words):
    """The CRC after a whole int64 array."""
    return crc_words(np.uint64(crc), words, np.int64(0), np.int64(words.size))


def crc32c(data: bytes | memoryview | np.ndarray, crc: int = CRC_START) -> int:
    """The chain's value after `data`, whose length is a multiple of eight bytes."""
    words = np.frombuffer(data, np.int64)
    words.flags.writeable = False  # as those over bytes are: one kernel for both
    return int(crc_of_words(np.uint64(crc), words))


def _warm_up() -> None:
    crc32c(bytes(8))


register_warmup("engine.crc32c", _warm_up)
