"""When a child that died is started again: at once, later, or not any more.

Cold, no clock of its own. The first death costs nothing, each further one within WINDOW_S doubles
the wait; after DEATHS_MAX in WINDOW_S the child stays down: whatever kills it will kill it again.
"""

from collections import deque

WINDOW_S = 60.0
DEATHS_MAX = 5
FIRST_WAIT_S = 0.1
WAIT_S_MAX = 5.0


class Restarts:
    """The deaths of one child."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()

    def died(self, now_s: float) -> float | None:
        """Note a death; returns how long to wait before the next start, None: it stays down."""
        self._deaths.append(now_s)
        while now_s - self._deaths[0] > WINDOW_S:
            self._deaths.popleft()
        count = len(self._deaths)
        if count > DEATHS_MAX:
            return None
        return 0.0 if count == 1 else min(FIRST_WAIT_S * 2 ** (count - 2), WAIT_S_MAX)
