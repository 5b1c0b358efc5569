"""The recorder writes what its groups carry, and how much of it the kernel dropped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.system.checker.capture import drops_path, read_capture, read_drops

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"


def test_recorder_writes_every_datagram_of_its_ports(tmp_path: Path) -> None:
    group = f"239.255.{71 + os.getpid() % 180}.{1 + os.getpid() // 180 % 250}"
    path = tmp_path / "capture.bin"
    command = [sys.executable, "-m", "tests.system.checker.recorder", str(path), group, LOOPBACK]
    with subprocess.Popen(
        [*command, "9531", "9532"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as recorder:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == b"recording\n"
        began = time.monotonic_ns()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            member = socket.inet_aton(LOOPBACK)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, member)
            for number in range(300):
                sender.sendto(b"%d" % number, (group, 9531 + number % 2))
            sender.sendto(b"of another port", (group, 9533))
        recorder.stdin.close()
        assert recorder.wait(20) == 0
    found = list(read_capture(path))
    for port in (0, 1):
        mine = [int(d.data) for d in found if int(d.data) % 2 == port]
        assert mine == list(range(port, 300, 2))
    assert all(began < datagram.t < time.monotonic_ns() for datagram in found)
    assert read_drops(path) == 0
    drops_path(path).unlink()
    assert read_drops(path) is None


def test_record_cut_short_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "capture.bin"
    path.write_bytes(bytes(8) + b"\x03\x00abc" + bytes(8) + b"\x03\x00ab")
    assert [datagram.data for datagram in read_capture(path)] == [b"abc"]
