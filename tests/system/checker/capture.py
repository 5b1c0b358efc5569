"""The capture of the market data groups: a file of datagrams, and how it is read.

    record = CLOCK_MONOTONIC ns (8 bytes, little endian) · length (2 bytes) · datagram

A record cut short at the end is what a killed recorder leaves; it is ignored. FILE.drops says how
many datagrams never reached the recorder.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = struct.Struct("<QH")


class Datagram(NamedTuple):
    """One datagram as it arrived."""

    t: int
    data: bytes


def pack(t: int, data: bytes) -> bytes:
    """One record."""
    return HEAD.pack(t, len(data)) + data


def drops_path(path: Path) -> Path:
    """Where the number of dropped datagrams stands."""
    return path.with_name(f"{path.name}.drops")


def read_drops(path: Path) -> int | None:
    """Datagrams the capture lacks; None when nobody knows."""
    file = drops_path(path)
    return int(file.read_text()) if file.exists() else None


def read_capture(path: Path) -> Iterator[Datagram]:
    """The datagrams in order of arrival."""
    raw, at = path.read_bytes(), 0
    while at + HEAD.size <= len(raw):
        t, length = HEAD.unpack_from(raw, at)
        at += HEAD.size
        if at + length > len(raw):
            return
        yield Datagram(t, raw[at : at + length])
        at += length
