"""When requests leave: times drawn before the run from a seed, in seconds from its start, ascending.

Nothing here looks at a server. A plan that reacts to answers would send less to a slow server and so hide how slow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

MOST = 20_000_000
"""Requests in one run; beyond this the plan alone fills the memory."""


def constant(rate: float, seconds: float) -> Times:
    """Evenly spaced, the first at 0."""
    return np.arange(_checked(rate * seconds), dtype=np.float64) / rate


def poisson(rng: np.random.Generator, rate: float, seconds: float) -> Times:
    """Independent arrivals at `rate` per second: exponential gaps."""
    # Given how many there are, the times of a Poisson process are independent and uniform.
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(_checked(rate * seconds, whole=False))))


def bursts(
    rng: np.random.Generator, rate: float, burst_rate: float, off_seconds: float, on_seconds: float, seconds: float
) -> Times:
    """Poisson at `rate` for `off_seconds`, then at `burst_rate` for `on_seconds`, and so on."""
    parts, begin, bursting = [], 0.0, False
    while begin < seconds:
        length = min(on_seconds if bursting else off_seconds, seconds - begin)
        parts.append(begin + poisson(rng, burst_rate if bursting else rate, length))
        begin, bursting = begin + length, not bursting
    return np.concatenate(parts) if parts else np.empty(0)


def diurnal(rng: np.random.Generator, rate: float, swing: float, period_seconds: float, seconds: float) -> Times:
    """Poisson whose rate is a sinusoid around `rate`, from `rate * (1 - swing)` at the start and back each period."""
    candidates = poisson(rng, rate * (1 + swing), seconds)
    wanted = 1 - swing * np.cos(2 * np.pi * candidates / period_seconds)
    return candidates[rng.uniform(0.0, 1 + swing, len(candidates)) < wanted]


def replay(path: Path, speed: float = 1.0) -> Times:
    """Times of a file, one number of seconds a line, counted from the first; `#` begins a comment.

    Raises ValueError with the line's number if a line is no time or times go back, OSError if there is no file.
    """
    times: list[float] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{path.name}, line {number}: not a time in seconds: {text[:40]!r}") from None
        if not np.isfinite(value) or (times and value < times[-1]):
            raise ValueError(f"{path.name}, line {number}: times must not go back")
        times.append(value)
    if not times:
        raise ValueError(f"{path.name} holds no times")
    return (np.array(times) - times[0]) / speed


def _checked(expected: float, *, whole: bool = True) -> int | float:
    if expected > MOST:
        raise ValueError(f"{expected:.3g} requests in one run; at most {MOST}")
    return round(expected) if whole else expected
