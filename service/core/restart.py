"""When to start a dead child again, and when to give up.

A child that was healthy for a while starts again at once. One that dies young waits, twice as long each time; after
`max_crashes` such deaths in a row the breaker opens and the service stops rather than crash for ever.
"""

from __future__ import annotations

HEALTHY_AFTER = 2.0
FIRST_DELAY = 0.1
MAX_DELAY = 5.0


class Restart:
    """The restart policy of one child."""

    def __init__(self, max_crashes: int) -> None:
        self._max_crashes = max_crashes
        self._ready_at: float | None = None
        self.crashes = 0
        self.restarts = 0

    def ready(self, now: float) -> None:
        """The child finished starting."""
        self._ready_at = now

    def died(self, now: float) -> float | None:
        """Seconds to wait before the next start, or None to give up."""
        healthy = self._ready_at is not None and now - self._ready_at >= HEALTHY_AFTER
        self._ready_at = None
        self.crashes = 0 if healthy else self.crashes + 1
        if self.crashes >= self._max_crashes:
            return None
        self.restarts += 1
        if self.crashes == 0:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** (self.crashes - 1), MAX_DELAY))
