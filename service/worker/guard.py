"""What an engine thread says about itself on the pulse board.

Only the thread's own loop calls this, so a thread that hangs is late. A limit says how long the thread may take until
it is heard of again; the supervisor kills a process with a late thread.
"""

from __future__ import annotations

import time

from service.wire.messages.worker import Timing
from service.wire.pulse import REST_LIMIT, Pulse

LEAST_LIMIT = 2.0
"""No batch is given less than this many seconds."""
PATIENCE = 10.0
"""A batch may take this many times its profile."""
DECODE_LIMIT = 0.2
"""Seconds for each image that the device decodes, besides LEAST_LIMIT: ten times what decoders hand on at most."""
RESULT_LIMIT = 2.0
"""Seconds for one item's outputs to become its result."""
SEND_LIMIT = 10.0
"""Seconds for the gateway to take an answer. A gateway that hangs is replaced sooner, which ends the wait."""


class Guard:
    """One engine thread's record."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def load(self, seconds: float) -> None:
        """A step of loading begins, which takes at most `seconds`."""
        self._beat(seconds)

    def rest(self) -> None:
        """The thread waits for work; to be called at least every REST seconds."""
        self._beat(REST_LIMIT)

    def run(self, timing: Timing, items: int) -> None:
        """A batch of `items` begins."""
        self._beat(max(LEAST_LIMIT, PATIENCE * (timing.a + timing.b * items)))

    def decode(self, items: int) -> None:
        """The device begins to decode `items` images of a batch."""
        self._beat(LEAST_LIMIT + DECODE_LIMIT * items)

    def result(self) -> None:
        """One item's outputs are turned into its result."""
        self._beat(RESULT_LIMIT)

    def send(self) -> None:
        """An answer is sent."""
        self._beat(SEND_LIMIT)

    def done(self) -> None:
        """The thread ends as it should and is not to be waited for."""
        self._pulse.clear()

    def _beat(self, limit: float) -> None:
        self._pulse.beat(time.monotonic(), limit)
