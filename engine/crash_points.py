"""Crash points: places in the loop of a shard at which a simulation lets the process die.

Hot, but nothing in every flavour except `failpoint`: the test of FAIL_POINTS is decided when the
kernel is compiled. A process that died at one returns from its call at once and touches nothing any
more that others see; whoever simulates drops it then (tests/sim/).
"""

from engine.jit import FAIL_POINTS, helper
from engine.loop_words import DEAD, FAIL_AT


@helper
def dies(p):
    """A crash point, flavour `failpoint` only: whether the process has died here, at the FAIL_AT-th
    one that it came to. What it does afterwards must touch nothing that others see.
    """
    if not FAIL_POINTS:
        return False
    if p.loop[FAIL_AT] > 0:
        p.loop[FAIL_AT] -= 1
        if p.loop[FAIL_AT] == 0:
            p.loop[FAIL_AT] = DEAD
    return p.loop[FAIL_AT] == DEAD


@helper
def dead(p):
    """Whether it died at a crash point before."""
    return FAIL_POINTS and p.loop[FAIL_AT] == DEAD
