"""UDP multicast sockets: one that sends, one that receives datagrams in batches.

Hot in its loop, no protocol inside. The receiver lays datagrams side by side in one buffer, each in
a place of its own, and gives their bounds as an array: one compiled call then reads all of them.

Loopback multicast drops silently when a receiver sleeps (256 of 5,000 datagrams kept with default
buffers, measured), so the receive buffer is raised as far as the system lets us; what is lost in
spite of that shows as a gap in the numbers.
"""

import select
import socket
from typing import Any

import numpy as np

MULTICAST_TTL = 1
SEND_BUFFER_BYTES = 1 << 20
RECEIVE_BUFFER_BYTES = 4 << 20
PLACE_BYTES = 2048  # longer than any datagram of ours; a longer one is cut, and then malformed
BATCH_DATAGRAMS = 128
SO_RCVBUFFORCE = 33  # asm-generic/socket.h: over rmem_max, for those who may

_Array = np.ndarray[Any, Any]


def multicast_sender(group: str, port: int, interface: str) -> socket.socket:
    """Return a non-blocking UDP socket that sends to a group through one interface, and to this
    host too.
    """
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, MULTICAST_TTL)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sender.setblocking(False)
        sender.connect((group, port))
    except OSError:
        sender.close()
        raise
    return sender


def _raise_buffer(receiver: socket.socket, size: int) -> None:
    try:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


class MulticastReceiver:
    """Receives one group and port on one interface, in batches."""

    def __init__(
        self, group: str, port: int, interface: str, buffer_bytes: int = RECEIVE_BUFFER_BYTES
    ) -> None:
        self.packets = np.zeros(BATCH_DATAGRAMS * PLACE_BYTES, np.uint8)
        self.bounds = np.zeros((BATCH_DATAGRAMS, 2), np.int64)
        self.bounds[:, 0] = np.arange(BATCH_DATAGRAMS) * PLACE_BYTES
        view = memoryview(self.packets.data)
        self._places = [view[at : at + PLACE_BYTES] for at in range(0, len(view), PLACE_BYTES)]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _raise_buffer(self.socket, buffer_bytes)
            self.socket.bind((group, port))  # the group's address: other groups stay out
            member = socket.inet_aton(group) + socket.inet_aton(interface)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            self.socket.setblocking(False)
        except OSError:
            self.socket.close()
            raise

    @property
    def buffer_bytes(self) -> int:
        """Return the receive buffer the system granted (Linux counts its own overhead in it)."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def fileno(self) -> int:
        """Return the descriptor, for poll()."""
        return self.socket.fileno()

    def receive(self) -> int:
        """Take what has arrived, at most BATCH_DATAGRAMS; returns how many datagrams.

        Number k is packets[bounds[k, 0] : bounds[k, 0] + bounds[k, 1]], until the next call.
        """
        take, lengths = self.socket.recv_into, []
        try:
            for place in self._places:
                lengths.append(take(place))
        except BlockingIOError:
            if not lengths:
                return 0
        self.bounds[: len(lengths), 1] = lengths
        return len(lengths)

    def datagram(self, index: int) -> memoryview:
        """Return one datagram of the batch."""
        return self._places[index][: int(self.bounds[index, 1])]

    def close(self) -> None:
        """Leave the group and close the socket."""
        self.socket.close()


def wait_readable(descriptors: list[int], timeout_s: float) -> bool:
    """Sleep until one of the sockets has something; False when time ran out."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(max(timeout_s, 0.0) * 1000))


def wait_writable(descriptor: int, timeout_s: float) -> bool:
    """Sleep until a socket takes more; False when time ran out."""
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(max(timeout_s, 0.0) * 1000))
