"""When to ask again, decided without a clock or a network of its own.

Only what may well succeed a moment later is asked again: 429, 503, and connections that break before an answer begins.
Never beyond the call's deadline, never before the service's `Retry-After`, a few times at most; and over all calls of a
client not more often than its budget allows, so that a service in trouble is not asked a multiple of what it is asked
in good times.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from squint.client.errors import ClientError, DeadlineExceeded, Refused, Unreachable

AGAIN = (429, 503)
JITTER = 0.25
"""Share by which waits are stretched, so that clients turned away together do not come back together."""
GRACE = 0.25
"""Seconds beyond the deadline in which the service's own word on it may still arrive; it says more than silence."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How a client asks again. `attempts` counts the first; 1 means never again. Times are seconds."""

    attempts: int = 3
    first_wait: float = 0.1
    """Where the service names no time; doubled with every attempt."""
    longest_wait: float = 5.0
    """A service that names a longer one is not waited for."""
    budget: float = 0.1
    """Retries per call, on average over all calls of the client."""
    reserve: float = 10.0
    """Retries that may be saved up; there are as many in the beginning."""

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 10:
            raise ValueError(f"attempts={self.attempts}: expected 1 to 10")
        if not 0 <= self.budget <= 1 or not 0 <= self.reserve <= 1000:
            raise ValueError("budget is a share from 0 to 1, reserve a number from 0 to 1000")
        if not 0 <= self.first_wait <= 60 or not 0 <= self.longest_wait <= 3600:
            raise ValueError("first_wait is 0 to 60 seconds, longest_wait 0 to 3600")


NEVER = Retries(attempts=1)


class Budget:
    """The retries that a client has left; threads may share it."""

    def __init__(self, policy: Retries) -> None:
        self._policy = policy
        self._left = policy.reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call begins."""
        with self._lock:
            self._left = min(self._policy.reserve, self._left + self._policy.budget)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        with self._lock:
            # A little less than one counts as one: ten tenths do not add up to it.
            if self._left < 1 - 1e-9:
                return False
            self._left = max(0.0, self._left - 1)
            return True


class Course:
    """The course of one call: its deadline, and its attempts."""

    def __init__(
        self,
        policy: Retries,
        budget: Budget,
        timeout: float,
        request_id: str,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._clock = clock
        self._chance = chance
        self._deadline = clock() + timeout
        self._tried = 0
        self.request_id = request_id
        budget.earn()

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._deadline - self._clock())

    @property
    def patience(self) -> float:
        """Seconds to go on waiting for an answer; negative when it is too late even for the service's word on it."""
        return self._deadline + GRACE - self._clock()

    def wait(self, failure: ClientError) -> float:
        """Seconds to wait before the next attempt; raises the failure when there is none."""
        self._tried += 1
        seconds = self._seconds(failure)
        if seconds is None or self._tried >= self._policy.attempts or seconds >= self.left:
            raise failure
        if not self._budget.spend():
            raise failure
        return seconds

    def late(self) -> DeadlineExceeded:
        """The error of a call whose time is over."""
        return DeadlineExceeded("no answer before the deadline", self.request_id)

    def _seconds(self, failure: ClientError) -> float | None:
        """How long to wait after this failure; None: it would fail again."""
        stretched = 1 + JITTER * self._chance()
        if isinstance(failure, Refused):
            if failure.status not in AGAIN:
                return None
            if failure.retry_after is not None:
                return failure.retry_after * stretched if failure.retry_after <= self._policy.longest_wait else None
        elif not isinstance(failure, Unreachable):
            return None
        return min(self._policy.longest_wait, self._policy.first_wait * 2.0 ** (self._tried - 1)) * stretched
