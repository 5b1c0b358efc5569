"""The publisher: events of every shard become ITCH messages in MoldUDP64 datagrams on UDP multicast.

Hot, one process for all shards. One channel per shard: group feed_group, port feed_port + shard. It reads the event rings
and gates nobody: when it is lapped it counts that, takes the instruments from the shared tops and goes on; the numbers it
never saw are a gap that every listener detects, never hidden, because the sequence numbers are made by the shard (feed_seq).
So the publisher keeps nothing a restart could lose: it goes on at the cursor its ring remembers.

    ring --copy--> slots --pack_events (one compiled call per run)--> datagrams --sock.send each--> channel

A datagram is at most datagram_bytes_max and takes as many messages as fit: sending costs the same whatever the size (2 µs
measured), so cost per message falls with the load, and at low load a message leaves at once.

Idle: heartbeats each feed_heartbeat_s (one at once when starting), the directory channel (feed/directory.py), and sleep on
an eventfd by the handshake of engine/shm_ring. A datagram the kernel refuses is counted; listeners see it as a gap.
An event whose instrument is not known (only after a lap) is left out and counted rather than sent with a wrong price.
"""

import os
import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engine.config import Config
from engine.counters import Block, State
from engine.idle import Idle, park
from engine.jit import helper, kernel, register_warmup
from engine.records import BOOK_TOP, EVENT_SLOT, TOP_WORDS, EventKind
from engine.shm_ring import (
    EVENT_CTRL_WORDS,
    READER_POSITION,
    EventReader,
    EventRings,
    load_word,
    sleep_cancel,
    sleep_prepare,
    top_copy,
)
from feed.directory import entry_of_row
from feed.itch import (
    INSTRUMENT,
    LENGTH_BY_TYPE,
    LOCATES,
    MESSAGE_BYTES_MAX,
    instrument_learn,
    instrument_set,
    instrument_table,
    itch_type,
    message_write,
    needs_instrument,
    put_u16,
)
from feed.moldudp64 import (
    COUNT_AT,
    END_OF_SESSION,
    MOLD_HEADER_BYTES,
    control_datagram,
    header_write,
    session_name,
)

FEED_COUNTERS = (
    "messages", "datagrams", "bytes", "heartbeats", "directory", "laps", "skipped_events", "gaps", "send_failed",
    "unknown_instrument", "inconsistent",
)  # fmt: skip
POLL_EVENTS = 1024  # events per compiled call: 256 KiB, stays in the second-level cache
DIRECTORY_PERIOD_NS = 10**9
DIRECTORY_BURST = 64  # most directory datagrams of one step
END_OF_SESSION_COPIES = 3
DRAIN_S_MAX = 2.0  # when stopping, events still arriving are published for at most this long
MULTICAST_TTL = 1
SLEEP_S_MAX = 0.1

# Words of a channel's packing state.
(
    P_NEXT, P_SESSION_HIGH, P_SESSION_LOW, P_DATAGRAM_MAX, P_MESSAGES, P_LISTED, P_GAPS, P_UNKNOWN, P_INCONSISTENT,
) = range(9)  # fmt: skip
PACK_WORDS = 16

_Array = np.ndarray[Any, Any]


class Stop(Protocol):
    """What tells a run loop to end: threading.Event or anything like it."""

    def is_set(self) -> bool: ...


@dataclass
class FeedParts:
    """What the publisher is given. It opens its own sockets and nothing else."""

    config: Config
    event_rings: EventRings
    reader_index: int = 4
    reader_fd: int = -1  # eventfd of this reader; -1: sleeps are plain waits
    counters: Block | None = None  # made with the labels FEED_COUNTERS
    epoch: int = 0  # must grow with every new numbering (feed.moldudp64.epoch_of_day where nothing better exists)
    tops: _Array | None = None  # BOOK_TOP[shards * symbols_max]: instruments listed before this process started
    started_ns: int = 0  # CLOCK_REALTIME when the session began, the same after a restart of this process; 0: now
