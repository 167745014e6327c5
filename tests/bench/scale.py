"""The scheduler at internet scale, in virtual time: `python -m tests.bench.scale [--requests N]`.

Eight accelerators of the class of an H200 (a batch of n takes 2 ms + 0.1 ms * n at `full`, the order of a ViT-B in
bf16), 96 decoders, 2,000 clients of very unequal size, a deadline of 100 ms, and a load that rises from 0.7 to 5 times
what `full` can do and falls again. The very objects of `service.core` decide; what they cost is measured by timing
one in every hundred of the calls to them. Prints goodput, outcomes and levels for each phase, writes them with --out.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.core.actions import Action
from service.core.dispatch import Dispatcher
from tests.unit.core.simulation import Simulation, World

A, B, MAX_BATCH, WORKERS = 0.002, 0.0001, 64, 8
CAPACITY = WORKERS * MAX_BATCH / (A + B * MAX_BATCH)
PHASES = (0.7, 1.0, 2.0, 5.0, 0.7)
EVERY = 100
CALLS = ("auto", "admit", "submit", "decoded", "ran", "tick", "next_deadline")


class Timed:
    """A dispatcher that times one in EVERY of its calls."""

    def __init__(self, core: Dispatcher) -> None:
        self._core = core
        self.calls: Counter[str] = Counter()
        self.seconds = dict.fromkeys(CALLS, 0.0)
        self.timed: Counter[str] = Counter()
        for name in CALLS:
            setattr(self, name, self._wrap(name, getattr(core, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def take_actions(self) -> list[Action]:
        """Not timed: it only hands over."""
        return self._core.take_actions()

    def _wrap(self, name: str, call: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            self.calls[name] += 1
            if self.calls[name] % EVERY:
                return call(*arguments)
            before = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.seconds[name] += time.thread_time() - before
                self.timed[name] += 1

        return timed

    def microseconds(self) -> dict[str, float]:
        """Mean microseconds of each kind of call."""
        return {name: 1e6 * self.seconds[name] / self.timed[name] for name in CALLS if self.timed[name]}

    def total(self) -> float:
        """Seconds of all calls, extrapolated from those that were timed."""
        return sum(self.calls[name] * self.seconds[name] / self.timed[name] for name in CALLS if self.timed[name])


class Scale(Simulation):
    """The simulation in phases, with a progress bar."""

    def __init__(self, world: World, phase_seconds: float, bar: tqdm[Any]) -> None:
        super().__init__(world)
        self.core = Timed(self.core)  # type: ignore[assignment]
        self._phase_seconds = phase_seconds
        self._bar = bar
        self.outcomes = [Counter[str]() for _ in PHASES]
        self.levels = [Counter[str]() for _ in PHASES]
        self.latest = [list[float]() for _ in PHASES]

    def _phase(self, at: float) -> int:
        return min(int(at / self._phase_seconds), len(PHASES) - 1)

    def _note(self, number: int, code: str, now: float, deadline: float) -> None:
        at = self._requests[number].at
        super()._note(number, code, now, deadline)
        del self.out.answered[number]
        self.outcomes[self._phase(at)][code] += 1
        if code == "ok":
            self.latest[self._phase(at)].append(self.out.latencies.pop())
        if number % 10_000 == 0:
            self._bar.update(10_000)

    def _start_run(self, now: float, action: Any) -> None:
        super()._start_run(now, action)
        self.levels[self._phase(now)][action.lane.level] += len(action.items)
        self.out.batches.clear()
        self.out.history.clear()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = options.requests / (CAPACITY * sum(PHASES))
    world = World(
        requests=options.requests,
        rate=CAPACITY,
        timeout=0.1,
        decoders=96,
        workers=WORKERS,
        engines=1,
        max_batch=MAX_BATCH,
        decode=0.0003,
        a=A,
        b=B,
        models=("classify",),
        levels=(("full", 1.0), ("balanced", 0.75), ("fast", 0.5)),
        auto="fast",
        in_flight=65_536,
        priorities=(0.05, 0.85, 0.1),
        clients=tuple(1 / rank for rank in range(1, 2001)),
        bursts=tuple((number * seconds, times) for number, times in enumerate(PHASES)),
    )
    began = time.process_time()
    with tqdm(total=options.requests, unit="request") as bar:
        run = Scale(world, seconds, bar)
        run.run()
    report = describe(run, seconds, time.process_time() - began)
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def describe(run: Scale, seconds: float, cpu: float) -> dict[str, Any]:
    """The report."""
    timed: Any = run.core
    phases = []
    for times, outcomes, levels, latencies in zip(PHASES, run.outcomes, run.levels, run.latest, strict=True):
        ranked = sorted(latencies)
        phases.append(
            {
                "offered_of_capacity": times,
                "goodput_of_capacity": round(outcomes["ok"] / seconds / CAPACITY, 3),
                "outcomes": {code: round(count / outcomes.total(), 4) for code, count in outcomes.most_common()},
                "levels": {level: round(count / max(levels.total(), 1), 3) for level, count in levels.most_common()},
                "p50_ms": round(1000 * ranked[len(ranked) // 2], 1),
                "p99_ms": round(1000 * ranked[int(0.99 * len(ranked))], 1),
            }
        )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "requests": run.world.requests,
        "capacity_at_full": round(CAPACITY),
        "virtual_seconds": round(seconds * len(PHASES), 1),
        "phases": phases,
        "microseconds_per_call": {name: round(value, 1) for name, value in timed.microseconds().items()},
        "microseconds_per_request": round(1e6 * timed.total() / run.world.requests, 1),
        "cpu_seconds_of_the_simulation": round(cpu, 1),
    }


if __name__ == "__main__":
    main()
