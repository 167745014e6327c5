"""Squint against what its own backend and cores could do: `python -m tests.bench.capacity saturation|ideal MODELS`.

MODELS is a directory of models with one classifier (the peers' ViT-S/16: `.cache/peers/models/...`, or any other).

- saturation: images per second served from JPEG, divided by those of the bare backend in a process of its own with
  its best threads and batch; in turns, the service idle while the backend runs alone.
- ideal: p99 under Poisson arrivals at 0.7 of the capacity, divided by that of an ideal server: as many servers as
  engine threads, first come first served, no time between, fed the same arrivals and the measured service times.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import arrivals, bodies, images, machine, plan, process, summary
from loadtest.samples import Samples
from models import manifest
from service.backends import registry
from service.backends.base import Artefact
from tests.e2e.service import ROOT, Service

CORES = len(os.sched_getaffinity(0))
SETUPS = [(engines, batch) for engines in (CORES, 1) for batch in (1, 2, 4, 8)]
CONNECTIONS = 16


def bare(directory: Path, variant: str, engines: int, batch: int, seconds: float) -> float:
    """Images per second of the backend alone: `engines` threads, each running batches of `batch`."""
    described = manifest.load(directory)
    graph = manifest.read_file(directory, described, described.graph)
    with tempfile.TemporaryDirectory() as cache:
        if engines < CORES and variant.startswith("onnxruntime"):
            return _threaded(graph, described, batch, seconds)
        artefact = Artefact(manifest=described, graph=graph, engines=engines, cache_dir=cache, fake_cost_ms=(0.0, 0.0))
        backend = registry.open_backend(variant, artefact, allow_fake=False)
        side = described.transform
        given = np.random.default_rng(0).integers(0, 256, (batch, side.height, side.width, 3), np.uint8)
        done = [0] * engines
        until = [0.0]

        def loop(number: int) -> None:
            while time.monotonic() < until[0]:
                backend.run(given, "full")
                done[number] += batch

        for length in (1.0, seconds):
            done[:] = [0] * engines
            began = time.monotonic()
            until[0] = began + length
            threads = [threading.Thread(target=loop, args=(number,)) for number in range(engines)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            taken = time.monotonic() - began
        return sum(done) / taken


def _threaded(graph: bytes, described: manifest.Manifest, batch: int, seconds: float) -> float:
    """One session of ONNX Runtime that spreads each batch over all cores."""
    import onnxruntime

    from models.levels import FULL
    from models.levels import plan as worked_out

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    side = described.transform
    feeds: dict[str, Any] = {"images": np.zeros((batch, side.height, side.width, 3), np.uint8)}
    if described.trunk is not None:
        feeds |= {name: np.array(value) for name, value in worked_out(FULL, described.trunk).inputs.items()}
    session.run(None, feeds)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        session.run(None, feeds)
        count += batch
    return count / (time.monotonic() - began)


def apart(directory: Path, variant: str, engines: int, batch: int, seconds: float) -> float:
    """The same in a process of its own."""
    arguments = ["bare", str(directory), "--backend", variant, "--engines", str(engines), "--batch", str(batch)]
    command = [sys.executable, "-m", "tests.bench.capacity", *arguments, "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def sent(service: Service, seconds: float, rate: float = 0.0, warmup: float = 2.0, seed: int = 0) -> Samples:
    """A closed loop, or an open one of `rate`."""
    photos = bodies.encode_all(images.generate("500x375", 16, seed=3), "raw", "500x375")
    rng = np.random.default_rng(seed)
    times = arrivals.poisson(rng, rate, seconds) if rate else np.empty(0)
    choice = plan.choose(rng, [1.0], [len(photos)], len(times) or 4096)
    headers = [("X-Request-Timeout-Ms", "30000")]
    target = plan.target(f"http://127.0.0.1:{service.port}", "/classify?level=full", photos, headers=headers)
    closed = 0 if rate else CONNECTIONS
    return process.run(plan.Plan(times, choice, seconds, warmup=warmup, closed=closed, timeout=40.0), target)


def _named(variant: str) -> str:
    """How a variant is asked for: ONNX Runtime has but one."""
    return "onnxruntime" if variant.startswith("onnxruntime") else variant


def saturation(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Served over bare."""
    tried = {setup: apart(directory, options.backend, *setup, 6.0) for setup in SETUPS}
    best = max(tried, key=lambda setup: tried[setup])
    print(
        "bare, (threads, batch): images/s:", {str(setup): round(rate, 1) for setup, rate in tried.items()}, flush=True
    )
    alone, served, cpu = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--backend", _named(options.backend), "--models", str(directory.parents[1]), "--log-level", "warning")
        with Service(Path(folder), *flags, fake=False) as service:
            sent(service, 5.0)
            for _ in range(options.rounds):
                alone.append(apart(directory, options.backend, *best, options.seconds))
                found = summary.summarise(sent(service, options.seconds), None)
                served.append(found.answered)
                cpu.append(float(found.sender["cpu_share"]))
                print(
                    f"bare {alone[-1]:.2f}, served {found.answered:.2f}: {found.answered / alone[-1]:.3f}", flush=True
                )
    ratios = [ours / theirs for ours, theirs in zip(served, alone, strict=True)]
    return {
        "best": best,
        "bare": alone,
        "served": served,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "sender_cpu_share": statistics.median(cpu),
    }


def ideal(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """p99 over that of an ideal server."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--backend", _named(options.backend), "--models", str(directory.parents[1]))
        with Service(Path(folder), *flags, fake=False) as service:
            capacity = summary.summarise(sent(service, 30.0, warmup=5.0), None).answered
            rate = 0.7 * capacity
            print(f"capacity {capacity:.2f}/s; {options.seconds:g} s at {rate:.2f}/s", flush=True)
            before = len(service.log_lines("request"))
            samples = sent(service, options.seconds, rate=rate, warmup=0.0, seed=7)
            found = summary.summarise(samples, None)
            lines = service.log_lines("request")[before:]
    times = arrivals.poisson(np.random.default_rng(7), rate, options.seconds)
    work = [(line["decode_ms"] + line["infer_ms"] / line["batch"]) / 1000 for line in lines if line["status"] == 200]
    best = ideal_p99(times, work, CORES)
    return {
        "rate": rate,
        "requests": len(times),
        "answered": len(work),
        "p50_ms": found.latency.p50,
        "p99_ms": found.latency.p99,
        "ideal_p99_ms": 1000 * best,
        "ratio": float(found.latency.p99 or 0) / best / 1000,
    }


def ideal_p99(times: Sequence[float] | np.ndarray[Any, Any], work: Sequence[float], servers: int) -> float:
    """p99 in seconds of first come first served by `servers`; `work` are service times in the order of completion."""
    free = [0.0] * servers
    latencies = []
    for at, seconds in zip(times, work, strict=False):
        start = max(at, heapq.heappop(free))
        heapq.heappush(free, start + seconds)
        latencies.append(start + seconds - at)
    return float(np.sort(latencies)[int(0.99 * len(latencies))])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("saturation", "ideal", "bare"))
    parser.add_argument("models", type=Path)
    parser.add_argument("--backend", default="onnxruntime/f32")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--engines", type=int, default=CORES)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    if options.what == "bare":
        print(bare(options.models, options.backend, options.engines, options.batch, options.seconds))
        return
    ((_, directory),) = manifest.find([options.models]).items()
    found = {"saturation": saturation, "ideal": ideal}[options.what](directory, options)
    print(json.dumps({"machine": machine.describe(), "backend": options.backend, **found}, indent=1, default=str))


if __name__ == "__main__":
    main()
