"""Goodput at twice the capacity with and without levels, and how soon a burst is forgotten:
`python -m tests.bench.overload [--models DIR] [--model NAME]`.

The service with one classifier, Poisson arrivals, photos of 500x375, a deadline of so many service times (a service
time: an engine's for one photo at the capacity of `full`).

- capacity: requests per second of a closed loop of 16 connections at `full`.
- twice: goodput at twice that, `level=full` and `level=auto&min_level=fast` in turns, over the capacity of `full`
  measured just before.
- burst: at half the capacity, then three times for a few seconds, then half again; p99 and levels, second by second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import arrivals, bodies, images, machine, plan, process, summary
from loadtest.bodies import Body
from loadtest.samples import Samples
from tests.e2e.service import Service

CONNECTIONS = 16
CALM, BURST, AFTER = 12.0, 6.0, 12.0
AUTO = "/classify?level=auto&min_level=fast"


class Bench:
    """One service and what is sent to it."""

    def __init__(self, service: Service, photos: list[Body], options: argparse.Namespace) -> None:
        self._service = service
        self._photos = photos
        self._options = options
        self.deadline = 0.0

    def sent(self, path: str, times: Any, seconds: float, warmup: float, seed: int, closed: int = 0) -> Samples:
        """What became of an open loop with these times, or of a closed one."""
        rng = np.random.default_rng(seed)
        choice = plan.choose(rng, [1.0], [len(self._photos)], 1000 if closed else len(times))
        headers = [] if closed else [("X-Request-Timeout-Ms", str(round(1000 * self.deadline)))]
        path += f"{'&' if '?' in path else '?'}model={self._options.model}"
        target = plan.target(f"http://127.0.0.1:{self._service.port}", path, self._photos, headers=headers)
        return process.run(plan.Plan(times, choice, seconds, warmup=warmup, closed=closed, timeout=30.0), target)

    def capacity(self) -> float:
        """Of `full`, requests per second."""
        seconds = self._options.seconds / 2
        found = self.sent("/classify?level=full", np.empty(0), 1 + seconds, 1.0, 0, CONNECTIONS)
        return summary.summarise(found, None).answered

    def twice(self) -> dict[str, Any]:
        """Goodput at twice the capacity, in turns."""
        rounds: dict[str, list[dict[str, Any]]] = {"full": [], "auto": []}
        for number in range(self._options.rounds):
            for kind, path in (("full", "/classify?level=full"), ("auto", AUTO)):
                capacity = self.capacity()
                self.deadline = self._options.service_times * len_engines() / capacity
                seconds = 2 + self._options.seconds
                times = arrivals.poisson(np.random.default_rng(number), 2 * capacity, seconds)
                found = summary.summarise(self.sent(path, times, seconds, 2.0, number), self.deadline)
                row = {
                    "capacity": round(capacity, 1),
                    "deadline_ms": round(1000 * self.deadline),
                    "of_capacity": round(found.goodput / capacity, 3),
                    "shares": found.shares,
                    "statuses": found.statuses,
                    "p99_ms": found.latency.p99,
                    "refusal_p99_ms": found.refusal.p99,
                    "levels": found.levels,
                    "sender_share_of_cores": found.sender["cpu_share"],
                }
                print(kind, row, flush=True)
                rounds[kind].append(row)
        middle = {kind: statistics.median(row["of_capacity"] for row in rows) for kind, rows in rounds.items()}
        return {"rounds": rounds, "median_of_capacity": middle}

    def burst(self) -> dict[str, Any]:
        """A burst and what comes after it."""
        capacity = self.capacity()
        self.deadline = self._options.service_times * len_engines() / capacity
        rng = np.random.default_rng(99)
        parts = [(0.5, CALM), (3.0, BURST), (0.5, AFTER)]
        times, start = [], 0.0
        for share, seconds in parts:
            times.append(start + arrivals.poisson(rng, share * capacity, seconds))
            start += seconds
        found = self.sent(AUTO, np.concatenate(times), start, 2.0, 99)
        spans = {"before": (4.0, CALM), "burst": (CALM, CALM + BURST)}
        end = CALM + BURST
        spans |= {f"{k} to {k + 1} s after": (end + k, end + k + 1) for k in range(6)}
        spans["2 s to the end"] = (end + 2, start)
        rows = {}
        for name, (begin, until) in spans.items():
            one = summary.summarise(found, self.deadline, begin, until)
            rows[name] = {"p50": one.latency.p50, "p99": one.latency.p99, "levels": one.levels, "shares": one.shares}
            print(name, rows[name], flush=True)
        return {"capacity": capacity, "deadline_ms": 1000 * self.deadline, "spans": rows}


def len_engines() -> int:
    """Engine threads of the service, by default one for each core."""
    return int(machine.describe()["cores"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="models/zoo")
    parser.add_argument("--model", default="toyscape-classify")
    parser.add_argument("--backend", default="openvino/bf16")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each point")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--service-times", type=float, default=10.0, help="the deadline")
    options = parser.parse_args()
    photos = bodies.encode_all(images.generate("500x375", 16, seed=0), "raw", "500x375")
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--backend", options.backend, "--models", options.models, "--log-level", "warning")
        with Service(Path(folder), *flags, fake=False) as service:
            bench = Bench(service, photos, options)
            report = {"machine": machine.describe(), "twice": bench.twice(), "burst": bench.burst()}
    print(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    main()
