"""Recording a channel: a pcap for packet tools, an ITCH file for market-data tools.

Cold. `PcapWriter` wraps each datagram as Ethernet + IPv4 + UDP, as a tap would have seen it, in the
nanosecond pcap format that tshark and Wireshark read. `ItchWriter` writes the messages alone, each
behind two bytes of length: the form of Nasdaq's own files, in order and each number once.
`Recorder` does both for a live channel.

    pcap    magic a1b23c4d, version 2.4, 0, 0, snap length, 1 (Ethernet) | records
    record  seconds, nanoseconds, captured length, length, frame
"""

import socket
import struct
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from feed.moldudp64 import BLOCK_LENGTH, BLOCK_OFFSET, MoldReceiver
from feed.multicast import PLACE_BYTES, MulticastReceiver, wait_readable

PCAP_MAGIC_NS = 0xA1B23C4D
PCAP_ETHERNET = 1
SNAP_BYTES = 65_535
BATCHES_PER_POLL = 64
SOURCE_PORT = 49_152
SOURCE_MAC = bytes.fromhex("020000000001")  # locally administered
ETHERTYPE_IPV4 = b"\x08\x00"

_Array = np.ndarray[Any, Any]


def ipv4_checksum(header: bytes) -> int:
    """Ones' complement sum of 16-bit words (RFC 791)."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(payload: bytes, source: str, group: str, port: int) -> bytes:
    """Return a datagram as the Ethernet frame that carries it to a multicast group."""
    address = socket.inet_aton(group)
    mac = bytes([0x01, 0x00, 0x5E, address[1] & 0x7F, address[2], address[3]])
    udp = struct.pack("!HHHH", SOURCE_PORT, port, 8 + len(payload), 0)  # checksum 0: none
    length = 20 + len(udp) + len(payload)
    parts = [0x45, 0, length, 0, 0x4000, 1, socket.IPPROTO_UDP]
    ends = socket.inet_aton(source) + address
    checksum = ipv4_checksum(struct.pack("!BBHHHBBH", *parts, 0) + ends)
    ip = struct.pack("!BBHHHBBH", *parts, checksum) + ends
    return mac + SOURCE_MAC + ETHERTYPE_IPV4 + ip + udp + payload


class PcapWriter:
    """A pcap file of the datagrams of one channel."""

    def __init__(self, path: Path, group: str, port: int, source: str = "127.0.0.1") -> None:
        self._file: BinaryIO = open(path, "wb")
        self._route = (source, group, port)
        self.datagrams = 0
        header = (PCAP_MAGIC_NS, 2, 4, 0, 0, SNAP_BYTES, PCAP_ETHERNET)
        self._file.write(struct.pack("<IHHiIII", *header))

    def write(self, payload: bytes, time_ns: int) -> None:
        """Append one datagram received at time_ns (CLOCK_REALTIME)."""
        data = frame(payload, *self._route)
        seconds, nanoseconds = divmod(time_ns, 10**9)
        self._file.write(struct.pack("<IIII", seconds, nanoseconds, len(data), len(data)) + data)
        self.datagrams += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class ItchWriter:
    """An ITCH file: messages behind their two-byte lengths."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "wb")
        self.messages = 0

    def write(self, packets: _Array, blocks: _Array) -> None:
        """Append the messages of a table of MoldReceiver.receive."""
        data = packets.data
        parts = [
            bytes(data[offset - 2 : offset + length])  # a message block is length and message
            for offset, length in blocks[:, [BLOCK_OFFSET, BLOCK_LENGTH]].tolist()
        ]
        self._file.write(b"".join(parts))
        self.messages += len(parts)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class Recorder:
    """Writes what a channel sends to a pcap, an ITCH file, or both."""

    def __init__(
        self,
        group: str,
        port: int,
        interface: str = "127.0.0.1",
        *,
        pcap: Path | None = None,
        itch: Path | None = None,
    ) -> None:
        self.socket = MulticastReceiver(group, port, interface)
        self.receiver = MoldReceiver(PLACE_BYTES)
        self._pcap = PcapWriter(pcap, group, port, interface) if pcap else None
        self._itch = ItchWriter(itch) if itch else None

    def poll(self, timeout_s: float = 0.0) -> int:
        """Record what has arrived, waiting up to timeout_s; returns datagrams recorded."""
        recorded = 0
        if timeout_s > 0:
            wait_readable([self.socket.fileno()], timeout_s)
        for _ in range(BATCHES_PER_POLL):
            count = self.socket.receive()
            if not count:
                break
            recorded += count
            self._take(count)
        return recorded

    def _take(self, count: int) -> None:
        if self._pcap is not None:
            now_ns = time.time_ns()
            for index in range(count):
                self._pcap.write(bytes(self.socket.datagram(index)), now_ns)
        at, bounds = 0, self.socket.bounds[:count]
        while at < count:
            taken, blocks = self.receiver.receive(self.socket.packets, bounds, at)
            at += taken
            if self._itch is not None:
                self._itch.write(self.socket.packets, blocks)

    def stats(self) -> dict[str, int]:
        """Return the channel's counters: a recording with gaps is not the whole channel."""
        return self.receiver.stats()

    def close(self) -> None:
        """Leave the group and finish the files."""
        self.socket.close()
        for writer in (self._pcap, self._itch):
            if writer is not None:
                writer.close()
