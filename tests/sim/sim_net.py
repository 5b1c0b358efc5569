"""The network between clients and the gateway: streams that are cut into any pieces, wait, and end.

A Link is one connection, the gateway's Client. Bytes go through it in order and unchanged, in
pieces; a cut loses what is under way, and either end learns of it when it looks.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from gateway.connection import Client
from gateway.desk import Desk

if TYPE_CHECKING:
    from tests.sim.machine import Machine


class Link(Client):
    """One connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.up = bytearray()  # on its way to the gateway
        self.down = bytearray()  # on its way to the client
        self.known = False  # to the gateway
        self.held = False  # the gateway does not read
        self.ended = False  # by the gateway: what is under way still arrives
        self.cut = False
        self.ready_ns = 0  # nothing arrives at the client before

    def send(self, data: bytes | memoryview) -> None:
        if not self.cut and not self.ended:
            self.down += data

    def hang_up(self) -> None:
        self.ended = True

    def pause(self) -> None:
        self.held = True

    def resume(self) -> None:
        self.held = False


class SimNet:
    """All links."""

    def __init__(self, machine: Machine, rng: random.Random) -> None:
        self.machine, self.rng = machine, rng
        self.links: list[Link] = []
        self.clients: list[Any] = []  # tests.sim.model_client.ModelClient
        self.made = 0
        self.split = 0.3  # how often a piece is a part of what is there

    def connect(self) -> Link | None:
        """A new connection; None while no gateway listens."""
        if not any(p.begun for p in self.machine.alive("gateway")):
            return None
        self.made += 1
        link = Link(self.made)
        self.links.append(link)
        return link

    def cut(self, link: Link) -> None:
        """The connection breaks: some of what was sent may still arrive at the gateway."""
        link.cut = True
        keep = self.rng.randint(0, len(link.up)) if self.rng.random() < 0.5 else 0
        del link.up[keep:]
        link.down.clear()

    def gateway_gone(self) -> None:
        """No gateway any more: all connections have ended; what it had sent may arrive."""
        for link in self.links:
            link.ended = True
            link.up.clear()
            if self.rng.random() < 0.5:
                del link.down[self.rng.randint(0, len(link.down)) :]
        self.links = []

    def _piece(self, data: bytearray, most: int) -> int:
        size = min(len(data), most)
        if size > 1 and self.rng.random() < self.split:
            size = self.rng.randint(1, size) if self.rng.random() < 0.8 else 1
        return size

    def deliver_up(self, desk: Desk) -> None:
        """The gateway reads what has come, connection by connection."""
        links = self.links
        if len(links) > 1:
            self.rng.shuffle(links)
        for link in list(links):
            if not link.known:
                link.known = True
                desk.on_connect(link)
            if link.up and not link.held and not link.closed:
                size = self._piece(link.up, len(desk.buffer.room))
                desk.buffer.room[:size] = link.up[:size]
                del link.up[:size]
                desk.on_bytes(link, size)
            if link.cut and not link.closed and (not link.up or link.held):
                desk.on_lost(link)
            if link.closed:
                links.remove(link)

    def receive(self, link: Link) -> bytes:
        """What arrives at a client now."""
        if not link.down or self.machine.clock.steady < link.ready_ns:
            return b""
        size = self._piece(link.down, len(link.down))
        data = bytes(link.down[:size])
        del link.down[:size]
        return data
