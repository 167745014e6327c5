"""How many batches a device should have ahead of the one that runs: `python -m tests.bench.ahead`, in virtual time.

The very objects of `service/core/` with one device on which runs follow one another: a batch of n computes a + b n;
before that it is uploaded, afterwards its outputs are downloaded and become results, while others compute. The times
are guesses for ViT-L and ViT-B on a large GPU.
"""

from __future__ import annotations

import argparse

import numpy as np

from service.core.actions import StartRun
from service.core.batching import Profile
from service.core.queue import LaneKey
from tests.unit.core.simulation import Simulation, World

LARGEST = 64
NETWORKS = {"like ViT-L": (0.002, 0.00024), "like ViT-B": (0.001, 0.00008)}
"""Seconds a and b of a batch."""
LOADS = (0.3, 0.7, 0.9)
"""Shares of the rate at the largest batch."""
HOP, UPLOAD, RESULTS = 0.0003, 0.0004, 0.004
"""Seconds: of a message, and of the largest batch."""


class OneDevice(Simulation):
    """A worker whose batches pass one device, one after the other."""

    ahead = 0

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._free = [0.0] * world.workers
        """When each device has run what it was given."""

    def _worker_up(self, now: float, worker: int) -> None:
        world = self.world
        profiles = {LaneKey(model, "full"): Profile(world.a, world.b) for model in world.models}
        self.core.worker_up(now, worker, 1, profiles, world.max_batch, self.ahead)

    def _start_run(self, now: float, action: StartRun) -> None:
        count = len(action.items)
        self.out.batches.append(count)
        share = count / LARGEST
        seconds = self.world.a + self.world.b * count
        free = self._free[action.worker] = max(now + HOP + UPLOAD * share, self._free[action.worker]) + seconds
        self._at(free + HOP + RESULTS * share, "ran", action, seconds)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    requests = parser.parse_args().requests
    for name, (a, b) in NETWORKS.items():
        peak = LARGEST / (a + b * LARGEST)
        for load in LOADS:
            world = World(
                requests, load * peak, timeout=2.0, decoders=64, engines=1, max_batch=LARGEST, a=a, b=b, decode=0.001,
                in_flight=4096, models=("m",), clients=(0.25,) * 4,
            )  # fmt: skip
            for ahead in (0, 1, 2):
                simulation = OneDevice(world)
                simulation.ahead = ahead
                found = simulation.run()
                p50, p99 = np.percentile(1000 * np.array(found.latencies), (50, 99))
                rate = found.answers["ok"] / found.seconds / peak
                print(f"{name}, load {load}, {ahead} ahead: {rate:.2f} of the peak, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
