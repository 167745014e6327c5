"""Stopping without losing anyone: not ready any more, but answering for a while; then the port closes.

Whoever got a connection before it closed is still answered, so there is no phase in which requests are refused.
"""

from __future__ import annotations

from typing import Literal

Phase = Literal["serving", "leaving", "closed"]


class Drain:
    """The course of one shutdown; before `begin` the service just serves."""

    def __init__(self) -> None:
        self._closes_at: float | None = None

    def begin(self, now: float, grace: float) -> None:
        """Start leaving; a second call can only shorten the grace."""
        closes_at = now + grace
        self._closes_at = closes_at if self._closes_at is None else min(closes_at, self._closes_at)

    def phase(self, now: float) -> Phase:
        """`leaving`: not ready, each answer closes its connection; `closed`: no new connections."""
        if self._closes_at is None:
            return "serving"
        return "leaving" if now < self._closes_at else "closed"
