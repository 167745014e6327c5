"""How long runs take while all engines run, and whether a model gains by being run wide while they do not.

A wide run has the CPUs of idle engines. What it takes is measured as a share of what the same run takes beside busy
engines, for that is what profiles tell.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from service.backends.base import Backend, Images

TURNS = 3
LEAST_RUNS = 2
"""Of each level in each turn."""
SECONDS_PER_TURN = 0.1
SECONDS = 5.0
"""When this much is used up, `shares` takes no further turn."""

PAYS = 0.8
"""A model is run wide if at its highest level that takes less than this share,"""
COSTS = 1.05
"""and if runs side by side take less than this share of the CPU time that they take on a backend not made for it."""


def under_load(backend: Backend, batch: Images, level: str, engines: int, *, wide: bool = False) -> list[float]:
    """Seconds of runs for a while, by so many engines at once."""
    taken: list[float] = []
    failures: list[Exception] = []
    until = time.monotonic() + SECONDS_PER_TURN

    def engine() -> None:
        runs = 0
        try:
            backend.run(batch, level, wide=wide)  # what a change of level costs is not the level's own
            while runs < LEAST_RUNS or time.monotonic() < until:
                before = time.monotonic()
                backend.run(batch, level, wide=wide)
                taken.append(time.monotonic() - before)
                runs += 1
        except Exception as error:  # raised again below, in the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=engine) for _ in range(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return taken


def shares(plain: Backend, spreading: Backend, images: Images, levels: Sequence[str], engines: int) -> dict[str, float]:
    """Level, highest first -> the share of its time that a wide run takes of `images` [B, H, W, 3], a batch. Empty
    where that gains too little, or where the `spreading` backend takes more CPU time than the `plain` one when all
    engines run.

    All take turns, so that what else the machine does meets them alike; what throughput costs is told by CPU time, on
    which others have the least influence.
    """
    highest = levels[0]
    before: dict[str, list[float]] = {level: [] for level in levels}
    wide: dict[str, list[float]] = {level: [] for level in levels}
    cpu: dict[Backend, list[float]] = {plain: [], spreading: []}
    begun = time.monotonic()
    for turn in range(TURNS):
        if turn and time.monotonic() - begun > SECONDS:
            break
        for backend in (plain, spreading):
            cpu[backend].append(_cpu_seconds(backend, images, highest, engines))
        for level in levels:
            before[level] += under_load(plain, images, level, engines)
            wide[level] += under_load(spreading, images, level, 1, wide=True)
    narrow, spread = ({level: float(np.median(times[level])) for level in levels} for times in (before, wide))
    if spread[highest] >= PAYS * narrow[highest] or np.median(cpu[spreading]) >= COSTS * np.median(cpu[plain]):
        return {}
    return {level: min(spread[level] / narrow[level], 1.0) for level in levels}


def _cpu_seconds(backend: Backend, images: Images, level: str, engines: int) -> float:
    """Of this process for each run, while all engines run."""
    before = time.process_time()
    runs = under_load(backend, images, level, engines)
    return (time.process_time() - before) / (len(runs) + engines)  # each engine ran once before it was timed
