"""The event logs of a running instance, for doors that read while followers write. Cold."""

from functools import partial

from engine.disk import Disk, RealDisk
from engine.event_log import EventLog
from engine.instance import Instance, word_add
from engine.staging import LOG_END, READERS_WAIT, STAGING_CTRL_WORDS


def log_end(instance: Instance, shard: int) -> int:
    """Return the last out_seq of a shard's log that may be read."""
    assert instance.staging is not None
    return instance.staging.get(shard, LOG_END)


def live_logs(instance: Instance, disk: Disk | None = None) -> list[EventLog] | None:
    """Return the logs of all shards; None without a journal."""
    if instance.staging is None or not instance.directory:
        return None
    disk = disk or RealDisk()
    return [
        EventLog(disk, instance.directory, shard, partial(log_end, instance, shard))
        for shard in range(instance.shards)
    ]


def log_wait(instance: Instance, shard: int, change: int) -> None:
    """Count who waits for a shard's log: its follower hurries while somebody does."""
    if instance.staging is not None:
        at = shard * STAGING_CTRL_WORDS + READERS_WAIT
        word_add(instance.staging.ctrl, at, change)
