"""How large a batch may be, from the measured cost of a batch of n items: t(n) = a + b * n."""

from __future__ import annotations

import math

WORTH = 0.05
"""A further item in a batch must raise throughput by at least this share."""

PREFETCH_BELOW = 0.005
"""A batch shorter than this many seconds is sent ahead of time, so that the worker need not wait for a round trip."""

_DRIFT_WEIGHT = 0.1


class Profile:
    """The measured profile of a lane, refined while serving.

    `a` and `b` are seconds. What is observed moves one common factor, so that a machine that slows down (a busy
    neighbour, a hot CPU) is followed within a few batches while the measured shape stays.
    """

    def __init__(self, a: float, b: float) -> None:
        self.a = max(a, 0.0)
        self.b = max(b, 1e-6)
        self.drift = 1.0

    def seconds(self, n: int) -> float:
        """Predicted time of a batch of n."""
        return self.drift * (self.a + self.b * n)

    def observe(self, n: int, seconds: float) -> None:
        """A batch of n took this long."""
        ratio = seconds / (self.a + self.b * n)
        bounded = min(max(ratio, 0.1), 10.0)
        self.drift += _DRIFT_WEIGHT * (bounded - self.drift)

    def cap(self, limit: int) -> int:
        """The batch size, at most `limit`, at which one more item gains less than WORTH in throughput.

        Throughput is n / (a + b n); going from n to n + 1 multiplies it by (1 + 1/n) (a + b n) / (a + b (n + 1)),
        and a / (n (a + b (n + 1))) is the gain.
        """
        if self.a <= 0:
            return 1
        # a / (n (a + b (n + 1))) < WORTH  <=>  b n^2 + (a + b) n - a / WORTH > 0
        p = self.a + self.b
        n = (-p + math.sqrt(p * p + 4 * self.b * self.a / WORTH)) / (2 * self.b)
        return max(1, min(limit, math.ceil(n)))


def share(queued: int, idle_engines: int, cap: int) -> int:
    """How many of the queued items the next batch takes: idle engines share them before one engine batches them."""
    return min(cap, math.ceil(queued / max(idle_engines, 1)))
