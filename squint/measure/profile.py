"""What a model's levels cost and are worth on this machine, and which of them deserve a name.

Times are measured in turns, so that whatever else the machine does meets all levels alike. Accuracy is measured on
generated scenes; a model that was not trained on these is judged by how often it decides as it does at `full`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.levels import FULL, plan
from models.manifest import Level, Manifest
from models.reference import candidate_levels
from service.backends import cache
from service.backends.base import Backend
from service.tasks.registry import TASKS
from squint.measure.answers import Reader, answer_in
from squint.measure.backends import opened, pictures
from squint.measure.scenes import TestScene, test_scenes
from squint.measure.scores import SCORES, score_for

TURNS = 5
RUNS = 2
"""Timed runs of each level in each turn; one more before them is not timed."""
BATCH = 8
"""Images per run when accuracy is measured."""
SHARES = {"fast": 1.0, "balanced": 0.15, "high": 0.05}
"""The share of the allowed drop that each name may use."""
APART = 0.95
"""A named level takes at most this share of the time of the one above it."""
AGREEMENT = "agreement"

Images = NDArray[np.uint8]
Progress = Callable[[int], object]


class Point(msgspec.Struct, frozen=True):
    """One level: median seconds by batch size, its time as a share of `full`'s (averaged over batch sizes), scores."""

    level: str
    gmacs: float
    tokens: int
    seconds: dict[int, float]
    share: float
    scores: dict[str, float] = {}

    def score(self, task: str) -> float:
        """What the drop is counted in, 0 to 1."""
        return self.scores.get(SCORES[task][1], self.scores.get(AGREEMENT, 0.0))


class Profile(msgspec.Struct, frozen=True):
    """All that was measured of one model on one variant, `full` first."""

    model: str
    variant: str
    scenes: int
    points: tuple[Point, ...]


def times(
    backend: Backend, images: Images, levels: Sequence[str], batches: Sequence[int], progress: Progress
) -> dict[str, dict[int, float]]:
    """Level -> batch size -> median seconds."""
    found: dict[str, dict[int, float]] = {level: {} for level in levels}
    for size in batches:
        batch = np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))
        taken: dict[str, list[float]] = {level: [] for level in levels}
        for _ in range(TURNS):
            for level in levels:
                backend.run(batch, level)
                for _ in range(RUNS):
                    before = time.perf_counter()
                    backend.run(batch, level)
                    taken[level].append(time.perf_counter() - before)
            progress(1)
        for level in levels:
            found[level][size] = float(np.median(taken[level]))
    return found


def points(model: Manifest, measured: Mapping[str, Mapping[int, float]]) -> list[Point]:
    """Levels with their cost and time; the first one is what the others' times are shares of."""
    base = next(iter(measured.values()))
    found = []
    for level, seconds in measured.items():
        worked_out = plan(level, model.trunk)
        share = float(np.exp(fmean(np.log(seconds[size] / base[size]) for size in base)))
        found.append(Point(level, worked_out.gmacs, worked_out.tokens, dict(seconds), share))
    return found


def scores(
    backend: Backend, model: Manifest, scenes: Iterable[TestScene], levels: Sequence[str], progress: Progress
) -> dict[str, dict[str, float]]:
    """Level -> scores: accuracy where the model knows the scenes' classes, otherwise agreement with `full`."""
    reader, task = Reader(model), TASKS[model.task]
    knows = "network" in model.training
    kept = {level: score_for(model.task, len(model.labels) - (model.task == "segment")) for level in levels}
    agreed: dict[str, list[float]] = {level: [] for level in levels}
    for group in _groups(scenes, BATCH):
        read = [reader.read(scene.jpeg) for scene in group]
        batch = np.concatenate([image for image, _ in read])
        full = backend.run(batch, levels[0])
        for level in levels:
            outputs = full if level == levels[0] else backend.run(batch, level)
            if knows:
                for number, (scene, (_, geometry)) in enumerate(zip(group, read, strict=True)):
                    one = {name: values[number] for name, values in outputs.items()}
                    kept[level].add(scene, answer_in(model.task, one, geometry))
            else:
                agreed[level].append(task.agreement(full, outputs).share)
        progress(len(group))
    return {level: kept[level].result() if knows else {AGREEMENT: fmean(agreed[level])} for level in levels}


def _groups(scenes: Iterable[TestScene], size: int) -> Iterator[list[TestScene]]:
    left = iter(scenes)
    while group := list(islice(left, size)):
        yield group


def front(found: Sequence[Point], task: str) -> list[Point]:
    """The levels that no other beats in time and score at once, slowest first."""
    kept: list[Point] = []
    for point in sorted(found, key=lambda point: (point.share, -point.score(task))):
        if not kept or point.score(task) > kept[-1].score(task):
            kept.append(point)
    return kept[::-1]


def choose(found: Sequence[Point], task: str, max_drop: float) -> dict[str, Point]:
    """Name -> level, highest first: `full`, and of those on the front what is quickest within the drop allowed.

    `max_drop` is in points. The lower a name, the more of it may be used; a name for which no level is distinctly
    quicker than the next higher one, and slower than the next lower, is not given.
    """
    full = found[0]
    names: dict[str, Point] = {}
    quickest: Point | None = None
    for name, share in SHARES.items():
        least = full.score(task) - share * max_drop / 100 - 1e-9
        for point in reversed(front(found, task)):  # quickest first
            slower = quickest is None or point.share * APART > quickest.share
            if point.level != FULL and point.score(task) >= least and point.share < APART and slower:
                names[name] = quickest = point
                break
    return {"full": full, **{name: names[name] for name in reversed(SHARES) if name in names}}


def named_levels(model: Manifest, chosen: Mapping[str, Point]) -> list[Level]:
    """The manifest's levels for what was chosen."""
    before = {level.name: level for level in model.levels}
    levels = []
    for name, point in chosen.items():
        accuracy = point.scores.get(SCORES[model.task][0])
        agreement = point.scores.get(AGREEMENT) if name != FULL else None
        if name == FULL and accuracy is None:
            accuracy = before[FULL].accuracy if FULL in before else None
        levels.append(
            Level(
                name=name,
                gmacs=round(point.gmacs, 4),
                tokens=point.tokens,
                explicit=point.level,
                accuracy=None if accuracy is None else round(accuracy, 4),
                agreement=None if agreement is None else round(agreement, 4),
            )
        )
    return levels


def levels_of(model: Manifest) -> list[str]:
    """What is profiled: `full`, the explicit levels that have a name, and all candidates for one."""
    explicit = [plan(level.explicit, model.trunk).level for level in model.levels] if model.trunk else []
    candidates = candidate_levels(model.trunk) if model.trunk else ()
    return list(dict.fromkeys([FULL, *explicit, *candidates]))


def store_name(model: Manifest, variant: str, *parts: object) -> str:
    """The file of the cache directory that holds a profile."""
    processor, flags = cache.cpu()
    files = repr(sorted((name, file.sha256) for name, file in model.files.items()))
    return f"profile-{cache.key(files, variant, processor, ' '.join(sorted(flags)), repr(parts))}.json"


def stored(cache_dir: str, name: str) -> Profile | None:
    """A profile measured before."""
    data = cache.read(cache_dir, name)
    try:
        return msgspec.json.decode(data, type=Profile) if data else None
    except msgspec.MsgspecError:
        return None


def measured_now(
    directory: Path,
    model: Manifest,
    variant: str,
    levels: Sequence[str],
    batches: Sequence[int],
    scenes: int,
    seed: int,
    cache_dir: str,
    name: str,
) -> Profile:
    """Measure levels, `full` first, on one variant, with progress bars; kept in the cache under `name`.

    Raises LevelError for a level that the model does not have.
    """
    for level in levels:
        plan(level, model.trunk)
    backend = opened(directory, model, variant, cache_dir)
    images = pictures(model, max(batches), seed)
    with tqdm(total=TURNS * len(batches), unit="turn", desc="time", leave=False) as bar:
        measured = times(backend, images, levels, batches, bar.update)
    with tqdm(total=scenes, unit="scene", desc="accuracy", leave=False) as bar:
        judged = scores(backend, model, test_scenes(seed, scenes), levels, bar.update)
    backend.close()
    found = (msgspec.structs.replace(point, scores=judged[point.level]) for point in points(model, measured))
    profile = Profile(model.name, variant, scenes, tuple(found))
    cache.write(cache_dir, name, msgspec.json.encode(profile))
    return profile


def rows(profile: Profile, task: str, chosen: Mapping[str, Point]) -> list[dict[str, Any]]:
    """The table: cost, milliseconds per image by batch size, times as fast as `full`, score, drop in points."""
    names = {point.level: name for name, point in chosen.items()}
    full = profile.points[0]
    return [
        {
            "level": point.level,
            "gmacs": round(point.gmacs, 3),
            "tokens": point.tokens,
            **{f"ms_{size}": round(seconds / size * 1000, 2) for size, seconds in point.seconds.items()},
            "faster": round(1 / point.share, 2),
            "score": round(point.score(task), 4) if point.scores else None,
            "drop": round(100 * (full.score(task) - point.score(task)), 2) if point.scores else None,
            "name": names.get(point.level, ""),
        }
        for point in sorted(profile.points, key=lambda point: -point.share)
    ]
