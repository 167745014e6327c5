"""From the points of a run to the figures that a table or a plot shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Point = dict[str, Any]

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131)
"""97.5 % points of Student's t for 1, 2, ... degrees of freedom."""
NORMAL = 1.96


@dataclass(frozen=True)
class Interval:
    """A ratio with its 95 % interval; of a single pair there is none, and the ends are missing."""

    middle: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.middle:.2f}"
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(over: Sequence[float], under: Sequence[float]) -> Interval:
    """The geometric mean of over[i] / under[i] and its interval, the pairs being rounds of one run.

    Raises ValueError for no pairs, or values that are not above 0.
    """
    if not over or len(over) != len(under) or min(*over, *under) <= 0:
        raise ValueError("a ratio needs pairs of values above 0")
    logs = [math.log(a / b) for a, b in zip(over, under, strict=True)]
    middle = statistics.fmean(logs)
    if len(logs) < 2:
        return Interval(math.exp(middle))
    freedom = len(logs) - 1
    factor = STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL
    reach = factor * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def points(record: Record, phase: str, name: str = "", load: float | None = None) -> list[Point]:
    """Points of a phase, of one contender or of all, at one load or at all, in the order of rounds."""
    chosen = [
        point
        for point in record["points"]
        if point["phase"] == phase and name in {"", point["name"]} and load in {None, point["load"]}
    ]
    return sorted(chosen, key=lambda point: int(point["round"]))


def names(record: Record, phase: str) -> list[str]:
    """The contenders that have points in a phase, in the record's order."""
    there = {point["name"] for point in record["points"] if point["phase"] == phase}
    return [name for name in record["contenders"] if name in there]


def loads(record: Record, phase: str) -> list[float]:
    """The loads of a phase, ascending."""
    return sorted({float(point["load"]) for point in record["points"] if point["phase"] == phase})


def rate(point: Point) -> float:
    """Answers per second."""
    return float(point["summary"]["answered"])


def goodput(point: Point) -> float:
    """Answers within the deadline, per second."""
    return float(point["summary"]["goodput"])


def percentile(name: str) -> Callable[[Point], float]:
    """A percentile of the answers' latency in milliseconds; NaN where there was no answer."""

    def read(point: Point) -> float:
        value = point["summary"]["latency"][name]
        return math.nan if value is None else float(value)

    return read


def middle(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else math.nan


def of(record: Record, phase: str, name: str, load: float | None, value: Callable[[Point], float]) -> float:
    """The median over rounds."""
    return middle([value(point) for point in points(record, phase, name, load)])


def against(
    record: Record, phase: str, ours: str, theirs: str, load: float | None, value: Callable[[Point], float]
) -> Interval | None:
    """Ours / theirs over the rounds that both have; None if there are none with values above 0."""
    left = {point["round"]: value(point) for point in points(record, phase, ours, load)}
    right = {point["round"]: value(point) for point in points(record, phase, theirs, load)}
    pairs = [(left[at], right[at]) for at in sorted(left.keys() & right.keys()) if left[at] > 0 and right[at] > 0]
    return ratio([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def best_rival(record: Record, phase: str, load: float | None, value: Callable[[Point], float], least: bool) -> str:
    """The rival with the highest value, or the lowest; empty if there is none."""
    rivals = [name for name in names(record, phase) if not name.startswith("squint")]
    known = {name: figure for name in rivals if not math.isnan(figure := of(record, phase, name, load, value))}
    if not known:
        return ""
    return (min if least else max)(known, key=known.__getitem__)
