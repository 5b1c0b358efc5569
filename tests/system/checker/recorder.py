"""Records multicast groups to a capture file. A process of its own: it must never be late.

    python -m tests.system.checker.recorder FILE GROUP INTERFACE PORT [PORT ...]

Ends when its standard input is closed, so it cannot outlive who started it. Loopback multicast
drops silently when a receiver sleeps: the receive buffer is as large as the system allows, and what
the kernel dropped in spite of that is written to FILE.drops at the end. With 0 there, a number that
is missing in the capture was never sent.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from pathlib import Path

from tests.system.checker.capture import drops_path, pack

BUFFER_BYTES = 8 << 20
DATAGRAM_BYTES = 65_535
BATCH = 256  # datagrams of one socket before the others get their turn
FLUSH_S = 0.5
SO_RCVBUFFORCE = 33  # over the system's limit, for those who may


def join(group: str, port: int, interface: str) -> socket.socket:
    """A non-blocking socket that receives one group and port."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    with contextlib.suppress(PermissionError):
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    receiver.bind((group, port))
    member = socket.inet_aton(group) + socket.inet_aton(interface)
    receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    receiver.setblocking(False)
    return receiver


def drain(receiver: socket.socket) -> bytes:
    """What has arrived, as records."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        for _ in range(BATCH):
            data = receiver.recv(DATAGRAM_BYTES)
            parts.append(pack(time.monotonic_ns(), data))
    return b"".join(parts)


def dropped(receivers: list[socket.socket]) -> int:
    """Datagrams the kernel threw away because a receive buffer was full."""
    inodes = {os.fstat(receiver.fileno()).st_ino for receiver in receivers}
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    counts = [int(row[-1]) for row in rows if int(row[9]) in inodes]
    if len(counts) != len(receivers):
        raise RuntimeError("the kernel does not list our sockets")
    return sum(counts)


def record(path: Path, receivers: list[socket.socket], until: int) -> None:
    """Write what arrives until the descriptor `until` is readable (closed)."""
    poller = select.poll()
    for receiver in receivers:
        poller.register(receiver, select.POLLIN)
    poller.register(until, select.POLLIN | select.POLLHUP)
    by_number = {receiver.fileno(): receiver for receiver in receivers}
    with path.open("ab") as file:
        flushed, ended = time.monotonic(), False
        while not ended:
            ready = [number for number, _ in poller.poll(FLUSH_S * 1000)]
            ended = until in ready
            for number in by_number if ended else [n for n in ready if n in by_number]:
                while data := drain(by_number[number]):
                    file.write(data)
                    if not ended:
                        break  # the other groups' turn
            if time.monotonic() - flushed > FLUSH_S:
                file.flush()
                flushed = time.monotonic()


def main(arguments: list[str]) -> int:
    """Record until standard input ends."""
    path, group, interface, *ports = arguments
    receivers = [join(group, int(port), interface) for port in ports]
    sys.stdout.write("recording\n")
    sys.stdout.flush()
    try:
        record(Path(path), receivers, sys.stdin.fileno())
        drops_path(Path(path)).write_text(f"{dropped(receivers)}\n")
    finally:
        for receiver in receivers:
            receiver.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
