"""What it takes to make an answer of a mask, in each of its forms: `python -m tests.bench.masks [--rounds N]`.

Masks of blobs in 14 classes, with a few stray cells, are brought to images of several sizes; the forms take turns. It
prints the median CPU time in milliseconds for one mask.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from service.tasks import segment
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options

CLASSES, BLOBS, STRAY = 14, 12, 0.002
CASES = ((224, 640, 480), (224, 1920, 1080), (224, 224, 224), (56, 640, 480))
"""The mask's side, and the image's width and height."""
FORMS = (Options(mask="rle"), Options(mask="png"), Options(mask="polygons"))
MASKS = 4


def blobs(side: int, seed: int) -> NDArray[np.uint8]:
    """A mask [side, side] of wavy blobs and stray cells."""
    source = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    y, x = np.mgrid[:side, :side]
    for _ in range(BLOBS):
        row, column = source.uniform(0, side, 2)
        radius = source.uniform(side * 0.04, side * 0.2) * (1 + 0.2 * np.sin(5 * np.arctan2(y - row, x - column)))
        mask[(y - row) ** 2 + (x - column) ** 2 < radius**2] = source.integers(1, CLASSES)
    stray = source.random((side, side)) < STRAY
    mask[stray] = source.integers(0, CLASSES, stray.sum())
    return mask


def measured(side: int, width: int, height: int, rounds: int) -> dict[str, float]:
    """Milliseconds by form."""
    masks = [blobs(side, seed) for seed in range(MASKS)]
    place = Geometry(width, height, (0.0, 0.0, float(width), float(height)))
    took: dict[str, list[float]] = {options.mask: [] for options in FORMS}
    for number in range(rounds + 1):
        for options in FORMS:
            begin = time.process_time()
            for mask in masks:
                segment.result({"mask": mask}, place, options)
            if number:
                took[options.mask].append((time.process_time() - begin) / MASKS * 1000)
    return {form: round(statistics.median(times), 2) for form, times in took.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    report = {f"{side} to {width}x{height}": measured(side, width, height, rounds) for side, width, height in CASES}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
