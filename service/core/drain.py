"""Stopping without losing anyone: accept for a while, then refuse, then leave when nothing is in flight."""

from __future__ import annotations

from typing import Literal

Phase = Literal["serving", "leaving", "refusing", "done"]


class Drain:
    """The course of one shutdown; before `begin` the service just serves."""

    def __init__(self) -> None:
        self._closes_at: float | None = None

    def begin(self, now: float, grace: float) -> None:
        """Start leaving; a second call can only shorten the grace."""
        closes_at = now + grace
        self._closes_at = closes_at if self._closes_at is None else min(closes_at, self._closes_at)

    def phase(self, now: float, in_flight: int) -> Phase:
        """`leaving`: not ready any more, but answers; `refusing`: new requests get 503; `done`: the process may end."""
        if self._closes_at is None:
            return "serving"
        if now < self._closes_at:
            return "leaving"
        return "refusing" if in_flight else "done"
