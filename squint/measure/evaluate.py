"""How good a model is on fresh toyscape scenes, offline through a backend or through a running service."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from models import manifest
from models.levels import FULL
from squint.measure.answers import Answer, Offline, Service, Source
from squint.measure.scenes import TestScene, test_scenes
from squint.measure.scores import SCORES, score_for

CONNECTIONS = 2  # to a service; more would queue behind one another on the machines this is run on


Asked = list[tuple[str, Future[Answer]]]


def _ask_all(
    source: Source, scenes: Iterable[TestScene], levels: Sequence[str], threads: int
) -> Generator[tuple[TestScene, dict[str, Answer]]]:
    """Scenes with their answers by level, in order, a few in flight."""

    def results(asked: Asked) -> dict[str, Answer]:
        return {level: future.result() for level, future in asked}

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[TestScene, Asked]] = deque()
        for scene in scenes:
            waiting.append((scene, [(level, pool.submit(source.ask, scene.jpeg, level)) for level in levels]))
            if len(waiting) > 2 * threads:
                first, asked = waiting.popleft()
                yield first, results(asked)
        for first, asked in waiting:
            yield first, results(asked)


def evaluate(
    name: str,
    directory: Path,
    scenes: int = 2000,
    seed: int = 0,
    backend: str = "onnxruntime",
    url: str | None = None,
    levels: Sequence[str] = ("full",),
    progress: bool = True,
    api_key: str | None = None,
) -> dict[str, dict[str, float]]:
    """By level {"top1"}, {"map", "map50"} or {"miou"} of model `name`, whose directory is `directory`, on fresh test
    scenes, the same for each level.

    Through `url` the service's answers are judged; the manifest still says which task the model has.
    """
    model = manifest.load(directory)
    source: Source = Service(url, name, model.task, api_key) if url else Offline(directory, backend)
    classes = len(model.labels) - (model.task == "segment")  # background is a label only there
    kept = {level: score_for(model.task, classes) for level in levels}
    # Whatever fails: threads, the processes that render, and connections end here, not while the interpreter does.
    with (
        closing(source),
        closing(test_scenes(seed, scenes)) as fresh,
        closing(_ask_all(source, fresh, levels, CONNECTIONS if url else 1)) as pairs,
    ):
        for scene, answers in tqdm(pairs, total=scenes, unit="scene", desc=name, disable=not progress):
            for level, answer in answers.items():
                kept[level].add(scene, answer)
    return {level: score.result() for level, score in kept.items()}


def record(directory: Path, results: Mapping[str, Mapping[str, float]], conditions: Mapping[str, Any]) -> None:
    """Write named levels' accuracy into the manifest, and with that of `full` under which `conditions` it was found."""
    described = manifest.load(directory)
    levels = []
    for level in described.levels:
        found = results.get(level.name, {}).get(SCORES[described.task][0], level.accuracy)
        levels.append(msgspec.structs.replace(level, accuracy=None if found is None else round(found, 4)))
    full = {name: round(value, 4) for name, value in results.get(FULL, {}).items()}
    evaluation = {**conditions, **full} if full else described.evaluation
    manifest.write(directory, msgspec.structs.replace(described, levels=levels, evaluation=evaluation))
