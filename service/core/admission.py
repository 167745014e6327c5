"""Whether a request can be answered in time; if not, it is refused before it costs anything."""

from __future__ import annotations

import math

import msgspec

from service.errors import Refusal


class Load(msgspec.Struct, frozen=True, gc=False):
    """What stands before a new item, in seconds of work divided by those who do it."""

    decode_seconds: float
    """Decoding everything that waits for a decoder, and this item."""
    infer_seconds: float
    """Running everything that is decoded or will be, on all engines."""
    own_seconds: float
    """This item's own run, once its turn comes."""

    @property
    def seconds(self) -> float:
        """Predicted time until the new item's answer: the stages work side by side, so the slower one counts."""
        return max(self.decode_seconds, self.infer_seconds) + self.own_seconds


def try_admit(now: float, deadline: float, in_flight: int, limit: int, load: Load) -> None:
    """Raise Refusal `overloaded` when the item cannot be on time or there is no room.

    `Retry-After` is honest: the time after which, at the present rate, the same request would be admitted.
    """
    if in_flight >= limit:
        raise Refusal("overloaded", "too many requests in flight", retry_after=max(load.seconds, 1.0))
    late = now + load.seconds - deadline
    if late > 0:
        raise Refusal("overloaded", "cannot be answered before its deadline", retry_after=math.ceil(late))
