"""How urgent a follower's work is: set from outside, because a process that gets no time cannot ask
for more.

Cold. A follower runs when nobody else wants the core (SCHED_IDLE), until somebody waits for the
event log or a take-over would take too long; then, and for a take-over, like everybody. Where this
user may not come back from SCHED_IDLE it stays SCHED_BATCH.
"""

import contextlib
import os
import resource

from engine.staging import FOLLOWED, READERS_WAIT, STAGED, StagingRings

LAG_MAX = 1 << 22  # commands: a take-over then replays for half a second
NICE_ALLOWED = 20  # RLIMIT_NICE that allows nice 0


def may_return_from_idle() -> bool:
    """Whether this user may leave SCHED_IDLE again."""
    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= NICE_ALLOWED


def set_policy(pid: int, policy: int) -> None:
    """Give a process a scheduling policy; one that is gone needs none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.sched_getscheduler(pid) != policy:
            os.sched_setscheduler(pid, policy, os.sched_param(0))


def follower_policy(staging: StagingRings, shard: int) -> int:
    """Return the policy that a follower should have now."""
    lag = staging.get(shard, STAGED) - staging.get(shard, FOLLOWED)
    hurry = staging.get(shard, READERS_WAIT) > 0 or lag > LAG_MAX
    return os.SCHED_BATCH if hurry or not may_return_from_idle() else os.SCHED_IDLE
