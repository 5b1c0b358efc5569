"""CRC32C: the published vectors, a bit-by-bit reference, and table against instruction."""

import numpy as np
import pytest

from engine.crc32c import CRC_START, POLYNOMIAL, crc32c, crc_word_by_table
from engine.jit import kernel

# RFC 3720, B.4
VECTORS = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
}


def bitwise(data: bytes, crc: int) -> int:
    """CRC32C one bit at a time, as the standard defines it."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
    return crc


@pytest.mark.parametrize("data", VECTORS)
def test_published_vectors(data: bytes) -> None:
    assert crc32c(data) ^ CRC_START == VECTORS[data]


def test_agrees_with_the_definition_and_chains() -> None:
    random = np.random.default_rng(1)
    crc = expected = CRC_START
    for words in (1, 2, 24, 25, 511):
        data = random.bytes(8 * words)
        crc, expected = crc32c(data, crc), bitwise(data, expected)
        assert crc == expected


@kernel
def crc_by_table(crc, words):
    """The CRC as a processor without the instruction computes it."""
    for index in range(words.size):
        crc = crc_word_by_table(crc, words[index])
    return crc


def test_table_and_instruction_agree() -> None:
    words = np.random.default_rng(2).integers(-(2**63), 2**63, 500)
    for count in (1, 3, 500):
        assert int(crc_by_table(np.uint64(CRC_START), words[:count])) == crc32c(words[:count])
