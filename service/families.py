"""Counters and histograms that cost little to count, put in the metrics library's form when someone scrapes.

For one thread: the library's own, made for many, cost several times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Amounts = list[tuple[tuple[str, ...], float]]
"""Of a counter, by label values."""
Observed = list[tuple[tuple[str, ...], list[int], float]]
"""Of a histogram, by label values: how many values fell into each bucket, and their sum."""


class Counter(Collector):
    """Amounts by label values."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._named = (name, text, labels)
        self._amounts: dict[tuple[str, ...], float] = {}

    def declare(self, values: Iterable[tuple[str, ...]]) -> None:
        """Show these label values from the start: what a counter had before it was first seen, a rate cannot tell."""
        for labels in values:
            self._amounts.setdefault(labels, 0)

    def add(self, *labels: str, amount: float = 1) -> None:
        """So much more."""
        self._amounts[labels] = self._amounts.get(labels, 0) + amount

    def take(self) -> Amounts:
        """What was added since this was called last, to be merged elsewhere."""
        taken = [(labels, amount) for labels, amount in self._amounts.items() if amount]
        self._amounts = {}
        return taken

    def merge(self, taken: Amounts) -> None:
        """Add what was counted elsewhere."""
        for labels, amount in taken:
            self.add(*labels, amount=amount)

    def describe(self) -> list[Metric]:
        """What it is, without counting."""
        name, text, labels = self._named
        return [CounterMetricFamily(name, text, labels=labels)]

    def collect(self) -> list[Metric]:
        """The family."""
        name, text, names = self._named
        family = CounterMetricFamily(name, text, labels=names)
        for labels, amount in self._amounts.items():
            family.add_metric(labels, amount)
        return [family]


class Distribution:
    """What was observed under one set of label values: how many values up to each bound, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def take(self) -> tuple[list[int], float]:
        """What was observed since this was called last."""
        taken = self.counts, self.sum
        self.counts, self.sum = [0] * len(self.counts), 0.0
        return taken

    def merge(self, counts: list[int], total: float) -> None:
        """Add what was observed elsewhere, in the same buckets. Raises ValueError for others."""
        self.counts = [own + more for own, more in zip(self.counts, counts, strict=True)]
        self.sum += total

    def up_to(self) -> list[int]:
        """How many values were at most each bound, and how many there were."""
        return list(accumulate(self.counts))


class Histogram(Collector):
    """Distributions by label values, in buckets of values up to each of `bounds`."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._named = (name, text, labels)
        self._bounds = bounds
        self._distributions: dict[tuple[str, ...], Distribution] = {}

    def of(self, *labels: str) -> Distribution:
        """The distribution under these label values."""
        found = self._distributions.get(labels)
        if found is None:
            found = self._distributions[labels] = Distribution(self._bounds)
        return found

    def take(self) -> Observed:
        """What was observed since this was called last, to be merged elsewhere."""
        return [(labels, *found.take()) for labels, found in self._distributions.items() if any(found.counts)]

    def merge(self, taken: Observed) -> None:
        """Add what was observed elsewhere. Raises ValueError for other buckets."""
        for labels, counts, total in taken:
            self.of(*labels).merge(counts, total)

    def describe(self) -> list[Metric]:
        """What it is, without counting."""
        name, text, labels = self._named
        return [HistogramMetricFamily(name, text, labels=labels)]

    def collect(self) -> list[Metric]:
        """The family."""
        name, text, names = self._named
        family = HistogramMetricFamily(name, text, labels=names)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, found in self._distributions.items():
            family.add_metric(labels, list(zip(bounds, found.up_to(), strict=True)), found.sum)
        return [family]


class AtScrape(Collector):
    """Families that `collect` makes when someone scrapes."""

    def __init__(self, collect: Callable[[], list[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> list[Metric]:
        """Nothing before anyone scrapes."""
        return []

    def collect(self) -> list[Metric]:
        """As they are now."""
        return self._collect()
