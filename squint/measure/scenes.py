"""Fresh test scenes: rendered by several processes, in order, as JPEG files with their labels."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from models.toyscape import SPLITS, Scene, SceneObject, render

_STRIDE = 1_000_003  # apart by more than any evaluation's scenes, so that two seeds share no scene


@dataclass(frozen=True)
class TestScene:
    """A JPEG and what is in it; classes: uint8 [H, W], 0 background, class index + 1."""

    jpeg: bytes
    main: int
    objects: tuple[SceneObject, ...]
    classes: NDArray[np.uint8]


def scene_seeds(seed: int, count: int) -> range:
    """The render seeds of an evaluation: inside the test split, never trained on."""
    test = SPLITS["test"]
    if not 0 < count < _STRIDE:
        raise ValueError(f"an evaluation has 1 to {_STRIDE - 1} scenes, not {count}")
    start = test.start + seed * _STRIDE % (len(test) - count)
    return range(start, start + count)


def _render(seed: int) -> TestScene:
    scene: Scene = render(seed)
    return TestScene(scene.jpeg(), scene.main, scene.objects, scene.class_map())


def test_scenes(seed: int, count: int, processes: int | None = None) -> Generator[TestScene]:
    """`count` scenes of the test split, the same for the same seed."""
    seeds = scene_seeds(seed, count)
    # Spawned, not forked: the caller may hold threads of a runtime library.
    with get_context("spawn").Pool(processes or os.cpu_count() or 1) as pool:
        yield from pool.imap(_render, seeds, chunksize=8)
