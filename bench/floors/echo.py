"""Floor of the wire: the least a uvloop server can do with the same bytes. Cold Python, a process
of its own, pinned.

     client ──TCP──▶ echo ──TCP──▶ client             echo: every byte goes back
     client ──TCP──▶ relay ──UDP multicast──▶ client  relay: a chunk becomes a datagram (feed floor)

It uses what the gateway uses: uvloop, BufferedProtocol with one buffer, TCP_NODELAY, one write
per chunk. Idle modes: `park` waits in the kernel, `spin` reschedules itself for ever. While
another arm is measured the floor is stopped (SIGSTOP), so that a spinning floor costs the other
arm nothing. The process ends when its standard input does: it cannot outlive its parent.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import uvloop

_BUFFER_BYTES = 1 << 18
_START_TIMEOUT_S = 20.0


class _Echo(asyncio.BufferedProtocol):
    def __init__(self, relay: socket.socket | None) -> None:
        self._relay = relay
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self._relay is not None:
            self._relay.send(self._view[:nbytes])
        elif self._transport is not None:
            self._transport.write(bytes(self._view[:nbytes]))


def multicast_sender(group: str, port: int, interface: str = "127.0.0.1") -> socket.socket:
    """Return a UDP socket connected to a multicast group on one interface, looped back."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    sender.connect((group, port))
    return sender


def multicast_receiver(group: str, port: int, interface: str = "127.0.0.1") -> socket.socket:
    """Return a UDP socket that has joined a multicast group on one interface."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    receiver.bind((group, port))
    member = socket.inet_aton(group) + socket.inet_aton(interface)
    receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return receiver


@dataclass
class EchoServer:
    """A running floor server."""

    process: subprocess.Popen[bytes]
    port: int

    def pause(self) -> None:
        """Stop it where it stands."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def echo_server(core: int, idle: str = "park", relay: str = "") -> Iterator[EchoServer]:
    """Start the floor on one core (relay: "group:port" or empty); gone when the block ends."""
    command = [sys.executable, "-m", "bench.floors.echo", f"--core={core}", f"--idle={idle}"]
    command += [f"--relay={relay}"] if relay else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the echo floor did not start")
        yield EchoServer(process, int(line))
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def _serve(idle: str, relay: str) -> None:
    loop = asyncio.get_running_loop()
    group, _, port = relay.partition(":")
    sender = multicast_sender(group, int(port)) if relay else None
    server = await loop.create_server(lambda: _Echo(sender), "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)  # standard input closes: the parent is done, or dead
    os.write(1, b"%d\n" % server.sockets[0].getsockname()[1])

    def spin() -> None:
        loop.call_soon(spin)

    if idle == "spin":
        spin()
    await ended.wait()
    server.close()
    if sender is not None:
        sender.close()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--idle", choices=("park", "spin"), default="park")
    parser.add_argument("--relay", default="")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    uvloop.run(_serve(options.idle, options.relay))


if __name__ == "__main__":
    _main()
