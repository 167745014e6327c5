"""All that is counted, in one place: what gateways that are processes of their own count comes here in parts.

A gateway counts the requests it answers, whoever dispatches all else. Each part is in the form of the one who counts
it; what was taken is merged once, so that nothing is counted twice and little is lost with a gateway that dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from service import metrics
from service.dispatcher import statistics, triton_metrics
from service.dispatcher.catalogue import Catalogue
from service.dispatcher.statistics import Statistics
from service.dispatcher.triton_metrics import TritonMetrics
from service.errors import WireError
from service.metrics import Metrics

_encode = msgspec.msgpack.Encoder().encode

_Versions = list[tuple[str, int, int]]
"""Keys of units, and how many of their requests were answered and refused."""


class Counting:
    """See the module. `traces` tells how many traces became what, in this process."""

    def __init__(
        self, metrics: Metrics, statistics: Statistics, triton: TritonMetrics | None, catalogue: Catalogue
    ) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._triton = triton
        self._catalogue = catalogue
        self.traces: Callable[[], Mapping[str, int]] = dict
        self._traced: Counter[str] = Counter()
        """What was taken of them, or merged."""

    async def scrape(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return self._metrics.render()

    async def statistics(self) -> Statistics:
        """What was inferred."""
        return self._statistics

    def all_traces(self) -> dict[str, int]:
        """How many traces became what, in all processes."""
        own = self.traces()
        return {outcome: self._traced[outcome] + own.get(outcome, 0) for outcome in {**self._traced, **own}}

    # -- in parts ----------------------------------------------------------------------------------------------

    def take(self) -> dict[str, bytes]:
        """What requests counted since this was called last; only what there is."""
        parts: dict[str, Any] = {"statistics": self._statistics.take(), "versions": self._of_versions()}
        taken = self._metrics.take()
        parts["metrics"] = taken if any(taken.counters) or any(taken.histograms) else None
        if self._triton is not None:
            parts["triton"] = self._triton.take()
        traces = dict(self.traces())
        if traces != self._traced:
            # Those that are still 0 too, so that they are there from the start.
            parts["traces"] = {outcome: count - self._traced[outcome] for outcome, count in traces.items()}
            self._traced = Counter(traces)
        return {name: _encode(part) for name, part in parts.items() if part}

    def merge(self, parts: Mapping[str, bytes]) -> None:
        """Add what a gateway took. Raises WireError for what none would say."""
        try:
            for name, part in parts.items():
                self._merge(name, part)
        except (msgspec.MsgspecError, ValueError, LookupError, UnicodeDecodeError) as error:
            raise WireError("counted otherwise") from error

    def _merge(self, name: str, part: bytes) -> None:
        decode = msgspec.msgpack.decode
        if name == "metrics":
            self._metrics.merge(decode(part, type=metrics.Taken))
        elif name == "statistics":
            # What was counted of a version that is gone meanwhile would stay for good.
            known = {(entry.manifest.name, entry.manifest.version) for entry in self._catalogue.known()}
            taken = decode(part, type=statistics.Counted)
            self._statistics.merge([one for one in taken if one[:2] in known])
        elif name == "versions":
            for key, answered, refused in decode(part, type=_Versions):
                entry = self._catalogue.of(key)
                if entry is not None:
                    entry.answered += answered
                    entry.refused += refused
        elif name == "triton" and self._triton is not None:
            self._triton.merge(decode(part, type=list[triton_metrics.Taken]))
        elif name == "traces":
            self._traced.update(decode(part, type=dict[str, int]))

    def _of_versions(self) -> _Versions:
        taken = []
        for entry in self._catalogue.known():
            if entry.answered or entry.refused:
                taken.append((entry.key, entry.answered, entry.refused))
                entry.answered = entry.refused = 0
        return taken
