"""Recordings: what a pcap and an ITCH file hold, read back byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from feed.capture import PcapWriter, Recorder, frame, ipv4_checksum
from feed.publisher import FeedPublisher
from tests.feed.flow import GROUP, Flow, open_feed, publish_all
from tests.feed.itch_reference import Reference


def test_checksum_is_that_of_the_rfc() -> None:
    header = bytes.fromhex("45000073000040004011 0000 c0a80001c0a800c7")
    assert ipv4_checksum(header) == 0xB861
    assert ipv4_checksum(header[:10] + b"\xb8\x61" + header[12:]) == 0


def test_frame_is_ethernet_ipv4_udp_to_the_group() -> None:
    data = frame(b"payload", "127.0.0.1", "239.255.70.99", 9_200)
    assert data[:6] == bytes.fromhex("01005e7f4663")  # the group's low 23 bits
    assert data[12:14] == b"\x08\x00"
    assert ipv4_checksum(data[14:34]) == 0
    assert struct.unpack("!HHHH", data[34:42]) == (49_152, 9_200, 15, 0)
    assert struct.unpack_from("!H", data, 16) == (20 + 8 + 7,)
    assert data[42:] == b"payload"


def read_pcap(path: Path) -> list[tuple[int, bytes]]:
    """Return (time in nanoseconds, UDP payload) of every record."""
    data = path.read_bytes()
    assert struct.unpack_from("<IHHiIII", data) == (0xA1B23C4D, 2, 4, 0, 0, 65_535, 1)
    at, found = 24, []
    while at < len(data):
        seconds, nanoseconds, captured, length = struct.unpack_from("<IIII", data, at)
        assert captured == length
        found.append((seconds * 10**9 + nanoseconds, data[at + 16 + 42 : at + 16 + length]))
        at += 16 + length
    return found


def test_pcap_keeps_payload_and_nanoseconds(tmp_path: Path) -> None:
    writer = PcapWriter(tmp_path / "a.pcap", GROUP, 9_200)
    writer.write(b"one", 1_780_000_000_123_456_789)
    writer.write(b"", 5)
    writer.close()
    assert read_pcap(tmp_path / "a.pcap") == [(1_780_000_000_123_456_789, b"one"), (5, b"")]
    assert writer.datagrams == 2


@pytest.mark.parametrize("repeat", [False, True])
def test_recorder_writes_every_message_once_in_order(
    tmp_path: Path, seed: int, repeat: bool
) -> None:
    flow = Flow(seed)
    events = np.concatenate([flow.exchange.startup_events, flow.run(300)])
    for writer, parts in open_feed():
        network = parts.config.network
        recorder = Recorder(
            network.feed_group,
            network.feed_port,
            pcap=tmp_path / "c.pcap",
            itch=tmp_path / "c.itch",
        )
        publisher = FeedPublisher(parts)
        writer.write(events)
        sent = publish_all(publisher)
        if repeat:  # everything again, as a restarted publisher might
            publisher.channels[0].reader.cursor = 0
            sent += publish_all(publisher)
        publisher.close()
        assert recorder.poll(0.1) == sent
        recorder.close()
    reference = Reference()
    messages = [m for m in map(reference.convert, events) if m]
    expected = b"".join(struct.pack("!H", len(m)) + m for m in messages)
    assert (tmp_path / "c.itch").read_bytes() == expected
    assert len(read_pcap(tmp_path / "c.pcap")) == sent
    assert recorder.stats()["gaps"] == 0
