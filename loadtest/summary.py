"""Figures of a run: what became of its requests, and how long they took from the moment they were due."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtest.samples import ERRORS, UNFINISHED, Samples

REFUSALS = (429, 503)
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
Mask = NDArray[np.bool_]


class Latency(msgspec.Struct, omit_defaults=False):
    """Milliseconds, nearest rank: a percentile is a latency that occurred. None where there is nothing to rank."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    max: float | None = None
    p99_low: float | None = None
    """Lower end of the 95 % interval of p99, by ranks n * 0.99 - 1.96 * sqrt(n * 0.0099)."""
    p99_high: float | None = None
    """Upper end; None if the rank lies beyond the slowest: there are too few requests to bound p99 from above."""


class Counts(msgspec.Struct):
    """What became of the counted requests; on_time + late + refused + error = sent."""

    sent: int = 0
    on_time: int = 0
    """Answered 200 within the deadline."""
    late: int = 0
    """Answered 200 after it."""
    refused: int = 0
    """429 or 503."""
    error: int = 0
    """Any other answer, or none."""


class Moment(msgspec.Struct):
    """One interval of the time line; requests belong to the interval they were due in."""

    at: float
    """Its begin, seconds from the start of what is counted."""
    seconds: float
    counts: Counts
    p50: float | None
    p99: float | None
    """Milliseconds, of those answered 200."""
    levels: dict[str, int]


class Summary(msgspec.Struct):
    """A run, or a part of it, in figures. Times in milliseconds unless the name says seconds."""

    seconds: float
    offered: float
    """Requests due per second."""
    answered: float
    """Answers 200 per second, late ones included."""
    goodput: float
    """Answers 200 within the deadline, per second."""
    deadline_ms: float | None
    counts: Counts
    shares: dict[str, float]
    """on_time, late, refused, error as shares of what was sent."""
    statuses: dict[str, int]
    errors: dict[str, int]
    """Requests without an answer, by reason (samples.ERRORS)."""
    unfinished: int
    """Under way when the run was interrupted; counted nowhere else."""
    latency: Latency
    """Of answers 200, from the intended send time."""
    refusal: Latency
    """Of refused requests."""
    retry_after: dict[str, float | int | None]
    """Of refused requests: `share` with the header, and the `low` and `high` of its seconds."""
    levels: dict[str, int]
    """Answers 200 by level served."""
    kinds: dict[str, Latency]
    """Latency of answers 200 by kind of image."""
    lag: dict[str, float | None]
    """How long after its intended time a request was written: p50, p99, max."""
    connections: dict[str, int]
    sender: dict[str, float]
    """cpu_seconds, cpu_share (of all cores), cpu_ms_per_request, machine_busy, steal (shares), nice; whole run."""
    interrupted: bool
    closed: int
    """Connections of a closed loop, whose latencies hide queueing; 0: open loop."""
    first_bodies: dict[str, str]
    """How the first answer of each status other than 200 began."""


def latency_of(seconds: NDArray[np.float64]) -> Latency:
    """Percentiles of latencies in seconds, with the interval of p99."""
    count = len(seconds)
    if not count:
        return Latency()
    ordered = np.sort(seconds) * 1000
    values = {name: float(ordered[_rank(count, share) - 1]) for name, share in PERCENTILES.items()}
    low, high = p99_ranks(count)
    return Latency(
        count=count,
        mean=float(ordered.mean()),
        max=float(ordered[-1]),
        p99_low=float(ordered[low - 1]),
        p99_high=float(ordered[high - 1]) if high <= count else None,
        **values,
    )


def p99_ranks(count: int) -> tuple[int, int]:
    """Ranks, from 1, of the ends of the 95 % interval of the 99th percentile; the upper may lie beyond `count`."""
    middle, reach = count * 0.99, 1.96 * math.sqrt(count * 0.99 * 0.01)
    return max(1, math.floor(middle - reach)), math.ceil(middle + reach)


def _rank(count: int, share: float) -> int:
    """Nearest rank, from 1; the rounding keeps 0.99 * 100 from becoming rank 100."""
    return min(count, max(1, math.ceil(round(share * count, 9))))


def summarise(
    samples: Samples, deadline: float | None, begin: float | None = None, end: float | None = None
) -> Summary:
    """Figures of the requests due in [begin, end), seconds from the run's start.

    Args:
        samples: of one run.
        deadline: seconds from the intended send time; None counts every answer 200 as on time.
        begin: default: the end of the warm-up.
        end: default: the end of the run.
    """
    begin = samples.warmup if begin is None else begin
    end = samples.seconds if end is None else min(end, samples.seconds)
    due = (samples.intended >= begin) & (samples.intended < end)
    unfinished = due & (samples.error == UNFINISHED)
    counted = due & ~unfinished
    good, late, refused, error = _outcomes(samples, deadline)
    counts = _counts(counted, good, late, refused, error)
    seconds = max(end - begin, 1e-9)
    latency = samples.latency
    fine = counted & (good | late)
    return Summary(
        seconds=seconds,
        offered=counts.sent / seconds,
        answered=(counts.on_time + counts.late) / seconds,
        goodput=counts.on_time / seconds,
        deadline_ms=None if deadline is None else deadline * 1000,
        counts=counts,
        shares={name: getattr(counts, name) / max(1, counts.sent) for name in ("on_time", "late", "refused", "error")},
        statuses=_tally(samples.status[counted & (samples.status > 0)], str),
        errors=_tally(samples.error[counted & (samples.error > 0)], lambda number: ERRORS[number]),
        unfinished=int(unfinished.sum()),
        latency=latency_of(latency[fine]),
        refusal=latency_of(latency[counted & refused]),
        retry_after=_retry_after(samples.retry_after[counted & refused]),
        levels=_levels(samples, fine),
        kinds={name: latency_of(latency[fine & (samples.kind == at)]) for at, name in enumerate(samples.kinds)},
        lag=_lag((samples.sent - samples.intended)[counted & ~np.isnan(samples.sent)]),
        connections={"opened": samples.opened, "most_at_once": samples.most_open},
        sender=_sender(samples),
        interrupted=samples.interrupted,
        closed=samples.closed,
        first_bodies={str(status): text for status, text in samples.first_bodies.items() if status != 200},
    )


def timeline(
    samples: Samples, deadline: float | None, begin: float | None = None, end: float | None = None, bins: int = 60
) -> list[Moment]:
    """The run in at most `bins` equal intervals of a second or more; arguments as of `summarise`."""
    begin = samples.warmup if begin is None else begin
    end = samples.seconds if end is None else min(end, samples.seconds)
    number = max(1, min(bins, math.floor(end - begin)))
    edges = np.linspace(begin, end, number + 1)
    outcomes = _outcomes(samples, deadline)
    fine, latency = outcomes[0] | outcomes[1], samples.latency
    moments = []
    for low, high in itertools.pairwise(edges):
        inside = (samples.intended >= low) & (samples.intended < high) & (samples.error != UNFINISHED)
        taken = latency_of(latency[inside & fine])
        levels = _levels(samples, inside & fine)
        counts = _counts(inside, *outcomes)
        moments.append(Moment(float(low - begin), float(high - low), counts, taken.p50, taken.p99, levels))
    return moments


def _outcomes(samples: Samples, deadline: float | None) -> tuple[Mask, Mask, Mask, Mask]:
    """on_time, late, refused, error: every request is exactly one."""
    fine = samples.status == 200
    limit = math.inf if deadline is None else deadline
    with np.errstate(invalid="ignore"):
        in_time = samples.latency <= limit
    refused = np.isin(samples.status, REFUSALS)
    return fine & in_time, fine & ~in_time, refused, ~fine & ~refused


def _counts(inside: Mask, good: Mask, late: Mask, refused: Mask, error: Mask) -> Counts:
    return Counts(int(inside.sum()), *(int((inside & each).sum()) for each in (good, late, refused, error)))


def _tally(values: NDArray[Any], name: Any) -> dict[str, int]:
    found, numbers = np.unique(values, return_counts=True)
    return {name(int(value)): int(number) for value, number in zip(found, numbers, strict=True)}


def _levels(samples: Samples, which: Mask) -> dict[str, int]:
    return _tally(samples.level[which & (samples.level >= 0)], lambda number: samples.levels[number])


def _retry_after(values: NDArray[np.float32]) -> dict[str, float | int | None]:
    present = values[~np.isnan(values)]
    low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
    return {"share": len(present) / len(values) if len(values) else None, "low": low, "high": high}


def _lag(seconds: NDArray[np.float64]) -> dict[str, float | None]:
    taken = latency_of(seconds)
    return {"p50": taken.p50, "p99": taken.p99, "max": taken.max}


def _sender(samples: Samples) -> dict[str, float]:
    usage = samples.usage
    whole = max(usage.wall_seconds * usage.cores, 1e-9)
    return {
        "cpu_seconds": usage.cpu_seconds,
        "cpu_share": usage.cpu_seconds / whole,
        "cpu_ms_per_request": 1000 * usage.cpu_seconds / max(1, len(samples)),
        "machine_busy": usage.machine_busy,
        "steal": usage.steal,
        "nice": usage.nice,
    }


def total(many: Iterable[Counts]) -> Counts:
    """The sum."""
    rows = [(one.sent, one.on_time, one.late, one.refused, one.error) for one in many]
    return Counts(*(sum(column) for column in zip(*rows, strict=True))) if rows else Counts()
