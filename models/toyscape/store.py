"""Scenes rendered ahead into memory-mapped arrays, so that training reads pixels and does not wait for drawing."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from models.toyscape.scene import Scene, render, split

SIDE = 256
MAX_OBJECTS = 8


@dataclass(frozen=True)
class Store:
    """rgb uint8 [N, S, S, 3] and instances uint8 [N, S, S], the whole scene stretched to a square; classes uint8
    [N, 1 + MAX_OBJECTS]: the class index + 1 of every instance number, 0 where there is none."""

    rgb: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    classes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rgb)


def _class_table(scene: Scene) -> NDArray[np.uint8]:
    table = np.zeros(1 + MAX_OBJECTS, dtype=np.uint8)
    for number, item in enumerate(scene.objects, start=1):
        table[number] = item.index + 1
    return table


def training_side(number: int) -> int:
    """The long side, pixels, at which scene `number` is rendered for training: small, and not always the same."""
    return 352 + 16 * (number % 5)


def _render_part(task: tuple[Path, str, int, int, bool]) -> int:
    """Render scenes start..stop of a split into the arrays of a folder."""
    folder, name, start, stop, small = task
    rgb = np.load(folder / "rgb.npy", mmap_mode="r+")
    instances = np.load(folder / "instances.npy", mmap_mode="r+")
    classes = np.load(folder / "classes.npy", mmap_mode="r+")
    for number in range(start, stop):
        scene = render(split(name, number), training_side(number) if small else None)
        size = (rgb.shape[2], rgb.shape[1])
        rgb[number] = np.asarray(Image.fromarray(scene.rgb).resize(size, Image.Resampling.BICUBIC))
        instances[number] = np.asarray(Image.fromarray(scene.instances).resize(size, Image.Resampling.NEAREST))
        classes[number] = _class_table(scene)
    return stop - start


def render_store(folder: Path, name: str, count: int, processes: int = 2, small: bool = True) -> Store:
    """The first `count` scenes of a split, rendered into `folder` unless they are already there."""
    done = folder / f"{name}-{count}.done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        open_memmap(folder / "rgb.npy", "w+", np.uint8, (count, SIDE, SIDE, 3)).flush()
        open_memmap(folder / "instances.npy", "w+", np.uint8, (count, SIDE, SIDE)).flush()
        open_memmap(folder / "classes.npy", "w+", np.uint8, (count, 1 + MAX_OBJECTS)).flush()
        parts = [(folder, name, i, min(i + 64, count), small) for i in range(0, count, 64)]
        with multiprocessing.get_context("fork").Pool(processes) as pool, tqdm(total=count, unit="scene") as bar:
            for finished in pool.imap_unordered(_render_part, parts):
                bar.update(finished)
        done.touch()
    arrays = [np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("rgb", "instances", "classes")]
    return Store(*arrays)
