"""How large a batch may be, from the measured cost of a batch of n items: t(n) = a + b * n."""

from __future__ import annotations

import math
from typing import Literal

CloseReason = Literal["cap", "drained", "shared", "deadline", "retry"]
"""Why a batch was closed: it reached the size from which more do not pay; nothing else waited; the rest was left to
another idle engine; one more would have made an item late; or it repeats a batch that failed."""

ENOUGH = 0.9
"""Batches are as small as they can be with this share of the throughput of the largest."""

PREFETCH_BELOW = 0.005
"""A batch shorter than this many seconds is sent ahead of time, so that the worker need not wait for a round trip."""

_DRIFT_WEIGHT = 0.1


class Profile:
    """The measured profile of a lane, refined while serving.

    `a` and `b` are seconds. What is observed moves one common factor, so that a machine that slows down (a busy
    neighbour, a hot CPU) is followed within a few batches while the measured shape stays. `wide` is the share of that
    time that a batch takes which has all CPUs of its worker, 1 where it would gain nothing by them.
    """

    def __init__(self, a: float, b: float, wide: float = 1.0) -> None:
        self.a = max(a, 0.0)
        self.b = max(b, 1e-6)
        self.wide = min(wide, 1.0) if wide > 0 else 1.0
        self.drift = 1.0
        self._cap = (0, 0)

    def seconds(self, n: int) -> float:
        """Predicted time of a batch of n."""
        return self.drift * (self.a + self.b * n)

    def spread(self, engines: int, cpus: float) -> float:
        """The share of its time that a batch takes which has `cpus` of a worker's `engines` CPUs.

        Between one and all of them it goes as Amdahl's law (1967) has it.
        """
        if cpus <= 1 or self.wide == 1.0:
            return 1.0
        return 1.0 - (1.0 - self.wide) * (1.0 - 1.0 / cpus) / (1.0 - 1.0 / engines)

    def observe(self, n: int, seconds: float) -> None:
        """A batch of n took this long, or would have with one CPU."""
        ratio = seconds / (self.a + self.b * n)
        bounded = min(max(ratio, 0.1), 10.0)
        self.drift += _DRIFT_WEIGHT * (bounded - self.drift)

    def relax(self) -> None:
        """Believe a slow machine a little less; for when nothing is observed any more."""
        self.drift += _DRIFT_WEIGHT * (min(self.drift, 1.0) - self.drift)

    def cap(self, limit: int) -> int:
        """The smallest batch, at most `limit`, with ENOUGH of the throughput of a batch of `limit`.

        Throughput is n / (a + b n), so n must be at least q a / (1 - q b) with q = ENOUGH limit / (a + b limit).
        """
        known, cap = self._cap
        if known != limit:
            rate = ENOUGH * limit / (self.a + self.b * limit)
            cap = max(1, min(limit, math.ceil(rate * self.a / (1 - rate * self.b) - 1e-9)))
            self._cap = (limit, cap)
        return cap


def share(queued: int, idle_engines: int, cap: int) -> int:
    """How many of the queued items the next batch takes: idle engines share them before one engine batches them."""
    return min(cap, math.ceil(queued / max(idle_engines, 1)))
