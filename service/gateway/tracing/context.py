"""Where a request stands in a trace: W3C Trace Context, as `traceparent` headers say it."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_LOW = (1 << 64) - 1


class Context(NamedTuple):
    """One request's place: its trace, its own span in it, and the span that it is part of (0 for none)."""

    trace: int
    span: int
    parent: int
    sampled: bool
    """Its spans are kept."""

    @property
    def header(self) -> str:
        """As a `traceparent`."""
        return f"00-{self.trace:032x}-{self.span:016x}-{self.sampled:02x}"


def read(header: str | None) -> tuple[int, int, bool] | None:
    """Trace, span and whether it is sampled, of a `traceparent`; None for one that is absent or malformed."""
    found = _HEADER.fullmatch(header) if header and len(header) <= 512 else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(span, 16):
        return None
    return int(trace, 16), int(span, 16), bool(int(flags, 16) & _SAMPLED)


class Sampler:
    """Gives every request its place. One that comes in a trace is sampled if that is; of the others `share` are, by
    their trace ids, so that whoever decides by the same rule decides alike."""

    def __init__(self, share: float, source: random.Random | None = None) -> None:
        self._below = round(share * (_LOW + 1))
        self._random = source or random.Random()

    def place(self, header: str | None) -> Context:
        """The place of a request that came with this `traceparent`."""
        came = read(header)
        span = self._random.getrandbits(64) or 1
        if came is not None:
            return Context(came[0], span, came[1], came[2])
        trace = self._random.getrandbits(128) or 1
        return Context(trace, span, 0, trace & _LOW < self._below)

    def span(self) -> int:
        """An id for one more span."""
        return self._random.getrandbits(64) or 1
