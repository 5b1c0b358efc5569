"""Warm-up covers every kernel of the feed with the types it is called with: nothing compiles
later.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from engine.jit import freeze_kernels, kernel_signatures, warm_up
from feed.publisher import FeedPublisher
from feed.listener import FeedListener
from tests.feed.flow import Flow, open_feed, publish_all
from tests.feed.test_publisher import one_top

warm_up()
flow = Flow(1)
events = np.concatenate([flow.exchange.startup_events, flow.run(60)])
freeze_kernels()
for writer, parts in open_feed():
    parts.tops = one_top(5)
    listener = FeedListener.of_shard(parts.config.network, 0)
    publisher = FeedPublisher(parts)
    writer.write(events)
    publish_all(publisher)
    assert listener.poll() and listener.book.valid, listener.book.why_invalid
    assert len(listener.book.orders("AAPL", 0)) and len(listener.book.bids("AAPL"))
    listener.book.reserve(1 << 16)
    listener.close()
    publisher.close()
several = {name: n for name, n in kernel_signatures().items() if name.startswith("feed.") and n > 1}
assert not several, several
"""


@pytest.mark.later
def test_no_kernel_of_the_feed_compiles_after_warm_up() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
