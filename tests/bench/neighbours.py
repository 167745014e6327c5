"""What one client's greed costs another: `python -m tests.bench.neighbours`.

Two comparisons against a real service with toyscape-classify, rounds in turn with and without the neighbour, who comes
from an address of its own (127.0.0.2):

- large: the p99 of small images while the neighbour sends the largest legal ones in a loop (a JPEG of 50 megapixels, a
  PNG and a WebP of 25);
- greedy: the share of a modest client's requests that are answered in time while the neighbour asks for twenty times
  its own share of the capacity.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from loadtest import arrivals, bodies, images, machine, plan, process, summary
from loadtest.bodies import Body
from loadtest.samples import Samples
from tests.e2e.service import Service

SIDES = {"JPEG": (8160, 6120, 8), "PNG": (5770, 4330, 48), "WEBP": (5770, 4330, 8)}
"""Just below 50 and 25 megapixels, and how coarse their content is, so that none is over 20 MB."""
NEIGHBOUR = "127.0.0.2"
DEADLINE = 1.0


def largest() -> list[Body]:
    """The largest legal images, with content that does not compress to nothing."""
    rng = np.random.default_rng(0)
    made = []
    for kind, (width, height, grain) in SIDES.items():
        coarse = Image.fromarray(rng.integers(0, 256, (height // grain, width // grain, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BILINEAR).save(buffer, kind, quality=70)
        made.append(buffer.getvalue())
    print("largest legal images:", ", ".join(f"{len(one) / 1e6:.1f} MB" for one in made))
    return [body for data in made for body in bodies.encode_all([data], "raw", "largest")]


def sent(
    service: Service, what: list[Body], source: str, rate: float, seconds: float, seed: int, closed: int = 0
) -> Samples:
    """What became of an open loop of `rate`, or of a closed one."""
    rng = np.random.default_rng(seed)
    times = np.empty(0) if closed else arrivals.poisson(rng, rate, seconds)
    choice = plan.choose(rng, [1.0], [len(what)], 1000 if closed else len(times))
    headers = [("X-Request-Timeout-Ms", str(int(1000 * DEADLINE)))] if source != NEIGHBOUR or not closed else []
    target = plan.target(f"http://127.0.0.1:{service.port}", "/classify", what, headers=headers)
    planned = plan.Plan(times, choice, seconds, warmup=1.0, closed=closed, timeout=30.0, source=source)
    return process.run(planned, target)


def beside(service: Service, what: list[Body], rate: float, seconds: float, seed: int, closed: int) -> threading.Thread:
    """The neighbour, while it is at it."""
    thread = threading.Thread(
        target=sent, args=(service, what, NEIGHBOUR, rate, seconds + 2, seed, closed), daemon=True
    )
    thread.start()
    return thread


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--backend", default="openvino/bf16")
    options = parser.parse_args()
    small = bodies.encode_all(images.generate("500x375", 8, seed=0), "raw", "500x375")
    thumbnails = bodies.encode_all(images.generate("thumbnail", 8, seed=1), "raw", "thumbnail")
    large = largest()
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--backend", options.backend, "--log-level", "warning")
        with Service(Path(folder), *flags, fake=False) as service:
            closed = summary.summarise(sent(service, small, "127.0.0.1", 0, 8, 0, closed=16), None)
            capacity = closed.answered
            print(f"capacity: {capacity:.0f} requests/s")
            report = {
                "machine": machine.describe(),
                "capacity": capacity,
                "large": compare_large(service, small, large, 0.3 * capacity, options),
                "greedy": compare_greedy(service, small, thumbnails, capacity, options),
            }
    print(json.dumps(report, indent=1, default=str))


def compare_large(
    service: Service, small: list[Body], large: list[Body], rate: float, options: argparse.Namespace
) -> dict[str, object]:
    """p99 of the small ones alone and beside the largest, at 0.3 of the capacity."""
    seen: dict[str, list[float]] = {"alone": [], "beside": []}
    failed = 0
    for number in range(options.rounds):
        for kind, latencies in seen.items():
            neighbour = beside(service, large, 0, options.seconds, number, 2) if kind == "beside" else None
            found = summary.summarise(sent(service, small, "127.0.0.1", rate, options.seconds, number), DEADLINE)
            if neighbour is not None:
                neighbour.join()
            latencies.append(float(found.latency.p99 or 0))
            failed += found.counts.sent - found.counts.on_time
            print(f"{kind}: p50 {found.latency.p50} p99 {found.latency.p99} ms, {found.counts}", flush=True)
    alone, with_them = np.median(seen["alone"]), np.median(seen["beside"])
    return {"p99_ms": seen, "ratio_of_medians": round(float(with_them / alone), 2), "not_in_time": failed}


def compare_greedy(
    service: Service, small: list[Body], thumbnails: list[Body], capacity: float, options: argparse.Namespace
) -> dict[str, object]:
    """A modest client at a fifth of the capacity beside one at twenty times its share, which is a half of it."""
    good = total = 0
    for number in range(options.rounds):
        neighbour = beside(service, thumbnails, 10 * capacity, options.seconds, 100 + number, 0)
        found = summary.summarise(sent(service, small, "127.0.0.1", capacity / 5, options.seconds, number), DEADLINE)
        neighbour.join()
        good += found.counts.on_time
        total += found.counts.sent
        print(f"modest: p99 {found.latency.p99} ms, {found.counts}", flush=True)
    return {"requests": total, "in_time": round(good / total, 5)}


if __name__ == "__main__":
    main()
