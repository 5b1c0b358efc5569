"""Command and event rings: what goes in comes out, once, in order, and the edges of capacity and position."""

import numpy as np
import pytest

from engine import shm_ring
from engine.records import COMMAND
from tests.engine.support import instance_name

pytestmark = [pytest.mark.flavour, pytest.mark.nojit]


def test_pushed_commands_are_ready_in_order():
    rings = shm_ring.CommandRings.create(instance_name(), 1, 2, 8)
    try:
        producer = shm_ring.Producer(rings, 1, [-1])
        records = np.zeros(3, COMMAND)
        records["client_order_id"] = [5, 6, 7]
        assert producer.push(0, records) == 3
        slots = rings.slots[8:11]
        assert slots["producer_seq"].tolist() == [1, 2, 3]
        assert slots["client_order_id"].tolist() == [5, 6, 7]
    finally:
        rings.close()
        rings.unlink()
