"""What decoding large JPEGs at 1/2, 1/4 or 1/8 does to answers: `python -m tests.bench.scaled_decode [--scenes N]`.

Scenes of the test split, as JPEGs of a camera's size, through the shipped models on ONNX Runtime: once decoded whole,
once as the service decodes them. A scene is rendered at half its size, enlarged twice by a Lanczos filter, and given
fresh grain at the full size, since rendering at 12 megapixels takes four times as long.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from models.toyscape import SceneObject, render
from service.decoder import image
from squint.measure.answers import Offline, Top
from squint.measure.scenes import TestScene, scene_seeds
from squint.measure.scores import score_for

ZOO = Path(__file__).parents[2] / "models" / "zoo"
TASKS = ("classify", "detect", "segment")
CLASSES = 14
GRAIN = 4.0


def _doubled(found: SceneObject) -> SceneObject:
    x0, y0, x1, y1 = found.box
    return SceneObject(found.index, (2 * x0, 2 * y0, 2 * x1, 2 * y1), 4 * found.area)


def _photo(job: tuple[int, int]) -> TestScene:
    """The scene of a seed, its long side as asked, with labels in its own pixels."""
    seed, long_side = job
    scene = render(seed, long_side // 2)
    height, width = scene.rgb.shape[:2]
    large = Image.fromarray(scene.rgb).resize((2 * width, 2 * height), Image.Resampling.LANCZOS)
    rng = np.random.default_rng(seed)
    # One tile of noise repeated: its statistics are what counts, and 36 million normal numbers take seconds.
    tile = np.round(rng.standard_normal((250, 250, 3), np.float32) * GRAIN).astype(np.int16)
    repeats = (-(-2 * height // 250), -(-2 * width // 250), 1)
    grain = np.tile(tile, repeats)[: 2 * height, : 2 * width]
    pixels = np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=scene.quality)
    objects = tuple(map(_doubled, scene.objects))
    return TestScene(out.getvalue(), scene.main, objects, scene.class_map())


def photos(count: int, long_side: int, processes: int) -> Iterator[TestScene]:
    """`count` large scenes of the test split."""
    jobs = [(seed, long_side) for seed in scene_seeds(0, count)]
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_photo, jobs, chunksize=2)


def main() -> None:
    """Print scores either way, and how many answers differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--long-side", type=int, default=4000)
    parser.add_argument("--every", type=int, default=5, help="detect and segment see every so many scenes")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    sources = {task: Offline(ZOO / f"toyscape-{task}" / "1", "onnxruntime") for task in TASKS}
    scores = {(task, whole): score_for(task, CLASSES) for task in TASKS for whole in (True, False)}
    exact, flipped, pixels, size = image.EXACT_PIXELS, 0, 0, 0
    for number, scene in enumerate(photos(given.scenes, given.long_side, given.processes), 1):
        with Image.open(io.BytesIO(scene.jpeg)) as header:
            pixels += header.width * header.height
        size += len(scene.jpeg)
        tops = []
        for task in TASKS if number % given.every == 0 else TASKS[:1]:
            for whole in (True, False):
                image.EXACT_PIXELS = image.LARGE_PIXELS if whole else exact
                answer = sources[task].ask(scene.jpeg, "full")
                if isinstance(answer, Top):
                    tops.append(answer.index)
                if task == "segment":
                    truth = scene.classes.repeat(2, 0).repeat(2, 1)
                    scores[task, whole].add(replace(scene, classes=truth), answer)
                else:
                    scores[task, whole].add(scene, answer)
        flipped += tops[0] != tops[1]
        if number % 50 == 0:
            top1 = [scores["classify", whole].result()["top1"] for whole in (True, False)]
            print(f"{number} scenes, top-1 {top1[0]:.4f} whole, {top1[1]:.4f} scaled, {flipped} differ", flush=True)
    print(f"{given.scenes} scenes of {pixels / given.scenes / 1e6:.1f} Mpx and {size / given.scenes / 1e6:.1f} MB")
    for task in TASKS:
        for name in (found := {whole: scores[task, whole].result() for whole in (True, False)})[True]:
            print(f"{task} {name}: {found[True][name]:.4f} whole, {found[False][name]:.4f} scaled")
    print(f"classify: {flipped} answers of {given.scenes} differ")


if __name__ == "__main__":
    main()
