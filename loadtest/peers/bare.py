"""The model without a server, in one of the other servers' environments: what a request costs at least.

`python -m loadtest.peers.bare MODEL PHOTO` prints JSON: seconds for one photo from JPEG to answer with all cores, and
images per second of the network alone by threads and batch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtest.peers.textbook import Network, pixels

SECONDS, LEAST, BATCHES = 3.0, 5, (1, 2, 8)


def timed(work: Callable[[], object]) -> float:
    """The median of some seconds' runs."""
    work()
    taken: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(taken) < LEAST or time.perf_counter() < until:
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers.bare", description="The model without a server.")
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument("photo", type=Path, help="a JPEG")
    asked = parser.parse_args()
    photo = asked.photo.read_bytes()
    network, image = Network(asked.model, len(os.sched_getaffinity(0))), pixels(photo)
    found = {
        "best": network.answers([image])[0],
        "service_seconds": timed(lambda: network.answers([pixels(photo)])),
        "decode_seconds": timed(lambda: pixels(photo)),
        "images_per_second": {str(size): size / timed(partial(network.answers, [image] * size)) for size in BATCHES},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
