"""The service on the device, asked from JPEG over HTTP: how much of the bare engine arrives, how late, and what happens
when twice as much is asked as can be done.

The bare engine is the same backend in a process of its own, as many threads feeding it as the service has: images from
memory to answers in memory. The sender runs on the same machine; its share of the CPUs is in every row.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import arrivals, bodies, images, plan, process, summary
from loadtest.summary import Summary
from models import manifest
from service.backends.choose import Report, choose
from tests.bench.turns import cpu
from tests.e2e.service import Service
from tests.gpu import variants
from tests.gpu.plan import Cannot, Network, Settings

PHOTO, PHOTOS = "500x375", 32
WARM = 3.0
BATCHES = 2
"""Batches that a closed loop keeps waiting besides the one that runs."""
DEADLINE_BATCHES = 10.0
"""The deadline under overload, in times of the largest batch."""
START_SECONDS = 1800.0
LAST = "twice_auto"
"""The point that is measured last."""
ROLES = ("gateway", "dispatcher", "decoder", "worker")


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Each network that is served."""
    known = {one["network"]: one for one in settings.remembered("served").get("networks", [])}
    for network in settings.networks:
        if network.served and LAST not in known.get(network.name, {}):
            known[network.name] = {"network": network.name}
            measure(network, settings, known[network.name], lambda: save({"networks": [*known.values()]}))


def measure(network: Network, settings: Settings, data: dict[str, Any], saved: Callable[[], None]) -> None:
    """All of one network, point by point."""
    directory = settings.zoo / network.name / "1"
    if not directory.exists():
        raise Cannot(f"{network.name} was not made: see the step artefacts")
    engine = bare(settings, directory)
    timings = {timing.level: (timing.a, timing.b) for timing in engine.timings}
    per_second = next(one.images_per_second for one in engine.measured if one.variant == engine.chosen)
    data |= {"variant": engine.chosen, "bare": per_second, "why": engine.why, "timings": timings}
    saved()
    a, b = timings["full"]
    largest = 64 if settings.device.startswith("cuda") else 1
    batch_seconds = a + b * largest
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "zoo").mkdir()
        (Path(folder) / "zoo" / network.name).symlink_to(directory.parent.resolve())
        service = Service(Path(folder), *flags(settings, Path(folder) / "zoo"), fake=False)
        service.start()
        try:
            service.wait_ready(START_SECONDS)
            load = Load(service, network.name, settings.seconds)
            closed = largest * (1 + BATCHES) * 2
            data["capacity"] = capacity = load.told("full", closed=closed)
            data["served_of_bare"] = round(capacity["answered"] / per_second, 4)
            saved()
            rate = 0.7 * capacity["answered"]
            data["at_70"] = load.told("full", rate=rate) | {"batch_ms": round(1000 * batch_seconds, 2)}
            data["p99_in_batches"] = round((data["at_70"]["p99_ms"] or 0.0) / (1000 * batch_seconds), 3)
            saved()
            deadline = max(DEADLINE_BATCHES * batch_seconds, 0.1)
            for kind in ("full", "auto"):
                data[f"twice_{kind}"] = load.told(kind, rate=2 * capacity["answered"], deadline=deadline)
                data[f"twice_{kind}"]["of_capacity"] = round(data[f"twice_{kind}"]["goodput"] / capacity["answered"], 4)
                saved()
        finally:
            service.stop()


def flags(settings: Settings, zoo: Path) -> list[str]:
    """Of a service that finds the backend chosen as for the bare engine, with the same threads."""
    given = ["--models", str(zoo), "--backend", settings.backend, "--devices", settings.device]
    given += ["--cache-dir", str(settings.folder / "cache"), "--threads", f"{variants.ENGINES}"]
    given += ["--grpc-port", "off", "--log-level", "warning"]
    given += ["--in-flight", "4096", "--max-connections-per-address", "4096"]
    if settings.device.startswith("cuda"):  # as it would itself: the tests' service has one unless told otherwise
        given += ["--gateways", f"{max(1, min(4, len(os.sched_getaffinity(0)) // 8))}"]
    return [*given, *settings.serve]


def bare(settings: Settings, directory: Path) -> Report:
    """What the service itself measures when it chooses, with nothing beside it. Raises ConfigError."""
    cache = settings.folder / "cache"
    cache.mkdir(exist_ok=True)
    described = manifest.load(directory)
    return choose(
        directory, described, settings.backend, engines=variants.ENGINES, cache_dir=str(cache), device=settings.device
    )


class Load:
    """What is sent to one service, and what came of it."""

    def __init__(self, service: Service, model: str, seconds: float) -> None:
        self._service = service
        self._model = model
        self._seconds = seconds
        self._photos = bodies.encode_all(images.generate(PHOTO, PHOTOS, seed=3), "raw", PHOTO)

    def told(self, level: str, *, rate: float = 0.0, closed: int = 0, deadline: float = 0.0) -> dict[str, Any]:
        """A closed loop of `closed` connections, or an open one with Poisson arrivals of `rate` per second."""
        seconds = self._seconds + WARM
        rng = np.random.default_rng(7)
        times = arrivals.poisson(rng, rate, seconds) if rate else np.empty(0)
        choice = plan.choose(rng, [1.0], [len(self._photos)], len(times) or 4096)
        headers = [("X-Request-Timeout-Ms", str(round(1000 * deadline)))] if deadline else []
        path = f"/classify?model={self._model}&level={level}"
        target = plan.target(f"http://127.0.0.1:{self._service.port}", path, self._photos, headers=headers)
        before, began = self._used(), time.monotonic()
        samples = process.run(plan.Plan(times, choice, seconds, warmup=WARM, closed=closed, timeout=60.0), target)
        taken = time.monotonic() - began
        busy = {role: round((used - before.get(role, 0.0)) / taken, 2) for role, used in self._used().items()}
        return self._row(summary.summarise(samples, deadline or None)) | {"cpus_busy": busy}

    def _row(self, found: Summary) -> dict[str, Any]:
        return {
            "offered": round(found.offered, 1),
            "answered": round(found.answered, 1),
            "goodput": round(found.goodput, 1),
            "p50_ms": _rounded(found.latency.p50),
            "p99_ms": _rounded(found.latency.p99),
            "deadline_ms": found.deadline_ms,
            "statuses": found.statuses,
            "levels": found.levels,
            "errors": found.errors,
            "sender_share_of_cpus": _rounded(found.sender["cpu_share"]),
        }

    def _used(self) -> dict[str, float]:
        """Seconds of CPU by kind of process; a process that was replaced meanwhile has begun again."""
        return {role: sum(cpu(pid) for pid in pids) for role in ROLES if (pids := self._service.pids(role))}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
