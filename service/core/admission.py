"""Whether a request can be answered in time; if not, it is refused before it costs anything."""

from __future__ import annotations

import math

import msgspec

from service.errors import Refusal

MARGIN = 1.1
"""Predictions are believed to about a tenth."""

HELD = 8
"""A client may have this many times as many images in flight as there is room left, so that others always find some
(dynamic thresholds: Choudhury and Hahne, 1998)."""


class Load(msgspec.Struct, frozen=True, gc=False):
    """What stands before a new item, in seconds of work divided by those who do it."""

    decode_seconds: float
    """Decoding everything that goes before this item to a decoder, and this item."""
    infer_seconds: float
    """Running everything that goes before it to a worker."""
    own_seconds: float
    """This item's own run, once its turn comes."""

    @property
    def seconds(self) -> float:
        """Predicted time until the new item's answer: the stages work side by side, so the slower one counts."""
        return max(self.decode_seconds, self.infer_seconds) + self.own_seconds


def check_room(in_flight: int, limit: int, held: int, load: Load) -> None:
    """Raise Refusal `overloaded` when nothing more can be taken in, or nothing more of a client who holds `held`."""
    if held >= HELD * (limit - in_flight):
        full = in_flight >= limit
        message = "too many requests in flight" if full else "too many requests of this client in flight"
        raise Refusal("overloaded", message, retry_after=max(load.seconds, 1.0))


def check_time(now: float, deadline: float, load: Load) -> None:
    """Raise Refusal `overloaded` when the item cannot be on time.

    `Retry-After` is honest: the time after which, at the present rate, the same request would be admitted.
    """
    late = now + MARGIN * load.seconds - deadline
    if late > 0:
        raise Refusal("overloaded", "cannot be answered before its deadline", retry_after=math.ceil(late))
