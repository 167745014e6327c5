"""What a lone batch gains by the CPUs of idle engines: `python -m tests.bench.wide rules|engines|served MODELS`.

- rules: what may be done with them, in virtual time: as many servers as engines, Poisson arrivals, one image a batch.
  `none` leaves them idle. `wait` gives a lone batch all CPUs, and who comes meanwhile waits until it ends. `beside`
  starts who comes at once, and the threads of both share the CPUs. `shrink` starts who comes at once, and the wide
  batch keeps the CPUs that are left. `--share` is what a batch takes with all CPUs, of its time with one.
- engines: ONNX Runtime alone, in turns of half a second: one batch with one CPU and wide; and both engines busy, with
  a session without a pool, with one whose pool works as the backend has it (`shrink`), with one whose two callers
  share its pool, and with two sessions (`beside`). Milliseconds (the least, the median), and of CPU for each image.
- served: the whole service with and without `--wide`, in turns: p50 and p99 at shares of the capacity, in the same
  order of arrivals, and images per second in a closed loop.

MODELS is a directory of models with one classifier.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from loadtest import machine, summary
from models import manifest
from service.backends import registry
from service.backends.base import Artefact
from service.core.batching import Profile
from tests.bench.capacity import sent
from tests.e2e.service import Service

CORES = len(os.sched_getaffinity(0))
LOADS = (0.1, 0.2, 0.33, 0.5, 0.7, 0.8, 0.9)
Rule = Literal["none", "wait", "beside", "shrink"]


class Servers:
    """Engines under one rule; a batch of one image has work 1 and takes that long with one CPU."""

    def __init__(self, rule: Rule, count: int, share: float) -> None:
        self.rule, self.count = rule, count
        self._shape = Profile(0.0, 1.0, share)
        self._running: dict[int, float] = {}
        """What is left of the work of each."""
        self._queue: deque[int] = deque()
        self._wide = -1
        self._at = 0.0

    def arrive(self, now: float, number: int) -> None:
        """One more."""
        self._advance(now)
        self._queue.append(number)
        self._fill()

    def end(self) -> tuple[float, int]:
        """When the next one ends if nobody comes, and which."""
        return min(
            ((self._at + left / self._pace(number), number) for number, left in self._running.items()),
            default=(float("inf"), -1),
        )

    def leave(self, now: float, number: int) -> None:
        """It has ended."""
        self._advance(now)
        del self._running[number]
        self._fill()

    def _advance(self, now: float) -> None:
        for number in self._running:
            self._running[number] -= (now - self._at) * self._pace(number)
        self._at = now

    def _fill(self) -> None:
        while self._queue and len(self._running) < self.count:
            if self.rule == "wait" and self._wide in self._running:
                return
            number = self._queue.popleft()
            if not self._running and not self._queue and self.rule != "none":
                self._wide = number
            self._running[number] = 1.0

    def _pace(self, number: int) -> float:
        """Work done per second."""
        beside = len(self._running) - 1
        if self.rule == "beside" and self._wide in self._running:
            slice_ = min(1.0, self.count / (self.count + beside))
            return 1 / self._shape.spread(self.count, self.count * slice_) if number == self._wide else slice_
        return 1 / self._shape.spread(self.count, self.count - beside) if number == self._wide else 1.0


def latencies(rule: Rule, count: int, share: float, load: float, arrivals: int, seed: int = 1) -> list[float]:
    """Of all arrivals, sorted; in units of a batch's time with one CPU."""
    rng, servers, at = random.Random(seed), Servers(rule, count, share), 0.0
    began: dict[int, float] = {}
    found = []
    for number in range(arrivals):
        at += rng.expovariate(load * count)
        while (ends := servers.end())[0] <= at:
            servers.leave(*ends)
            found.append(ends[0] - began.pop(ends[1]))
        began[number] = at
        servers.arrive(at, number)
    while began:
        ends = servers.end()
        servers.leave(*ends)
        found.append(ends[0] - began.pop(ends[1]))
    return sorted(found)


def rules(options: argparse.Namespace) -> list[dict[str, Any]]:
    """p50 and p99 of each rule at each load."""
    table = []
    for load in LOADS:
        row: dict[str, Any] = {"load": load}
        for rule in get_args(Rule):
            times = latencies(rule, options.engines, options.share, load, options.arrivals)
            row[rule] = [round(times[int(q * len(times))], 2) for q in (0.5, 0.99)]
        table.append(row)
        print(json.dumps(row), flush=True)
    return table


Run = Callable[[], object]


def turn(runs: list[Run], seconds: float) -> tuple[list[float], float]:
    """All of them over and over, each in a thread of its own: milliseconds of each run, CPU milliseconds per run."""
    taken: list[float] = []
    until, used = time.monotonic() + seconds, time.process_time()

    def loop(run: Run) -> None:
        while (before := time.monotonic()) < until:
            run()
            taken.append(1000 * (time.monotonic() - before))

    threads = [threading.Thread(target=loop, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, 1000 * (time.process_time() - used) / len(taken)


def engines(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Ways of using the CPUs, in turns."""
    described = manifest.load(directory)
    artefact = Artefact(
        manifest=described, graph=manifest.read_file(directory, described, described.graph), engines=CORES
    )
    plain = registry.open_backend("onnxruntime/f32", artefact)
    pooled = registry.open_backend("onnxruntime/f32", replace(artefact, wide=True))
    side = described.transform
    images = np.random.default_rng(0).integers(0, 256, (1, side.height, side.width, 3), np.uint8)

    def narrow() -> object:
        return plain.run(images, "full")

    def given() -> object:
        return pooled.run(images, "full")

    def wide() -> object:
        return pooled.run(images, "full", wide=True)

    ways: dict[str, list[Run]] = {
        "alone": [narrow],
        "alone, wide": [wide],
        "busy": [narrow] * CORES,
        "busy, shrink": [given] * CORES,
        "busy, callers share the pool": [wide] * CORES,
        "busy, beside": [wide] + [narrow] * (CORES - 1),
    }
    found: dict[str, list[tuple[list[float], float]]] = {way: [] for way in ways}
    for runs in ways.values():
        turn(runs, 0.2)
    for _ in tqdm(range(options.rounds), unit="turn"):
        for way, runs in ways.items():
            found[way].append(turn(runs, 0.5))
    return {
        way: {
            "least_ms": round(min(min(taken) for taken, _ in turns), 1),
            "median_ms": round(statistics.median(one for taken, _ in turns for one in taken), 1),
            "cpu_ms": round(statistics.median(cpu for _, cpu in turns), 1),
        }
        for way, turns in found.items()
    }


def served(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The service in two forms, both there all the time, asked in turns."""
    flags = ("--backend", options.backend, "--models", str(directory.parents[1]), "--log-level", "info")
    forms = {"narrow": flags, "wide": (*flags, "--wide")}
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        services = {}
        for form, given in forms.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            services[form] = stack.enter_context(Service(folder, *given, fake=False))
            found[form] = services[form].log_lines("backend_chosen")[0]["why"]
            sent(services[form], 3.0, warmup=1.0)
        rates: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(options.rounds):
            for form, service in services.items():
                rates[form].append(summary.summarise(sent(service, options.seconds / 2), None).answered)
        capacity = statistics.median(rates["narrow"])
        found["saturation"] = rates | {
            "ratio": statistics.median(b / a for a, b in zip(rates["narrow"], rates["wide"], strict=True))
        }
        print(json.dumps(found), flush=True)
        for load in options.loads:
            times: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
            for number in range(options.rounds):
                for form, service in services.items():
                    samples = sent(service, options.seconds, rate=load * capacity, seed=number)
                    latency = summary.summarise(samples, None).latency
                    times[form].append((round(latency.p50 or 0.0, 1), round(latency.p99 or 0.0, 1)))
            ratios = [[b[k] / a[k] for a, b in zip(times["narrow"], times["wide"], strict=True)] for k in range(2)]
            found[str(load)] = times | {"p50, p99: wide / narrow": [round(statistics.median(k), 3) for k in ratios]}
            print(json.dumps({load: found[str(load)]}), flush=True)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rules", "engines", "served"))
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("--share", type=float, default=0.58)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--arrivals", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.1, 0.33, 0.7])
    options = parser.parse_args()
    if options.what == "rules":
        rules(options)
        return
    if options.models is None:
        parser.error("name a directory of models")
    ((_, directory),) = manifest.find([options.models]).items()
    found = {"engines": engines, "served": served}[options.what](directory, options)
    print(json.dumps({"machine": machine.describe(), **found}, indent=1, default=str))


if __name__ == "__main__":
    main()
