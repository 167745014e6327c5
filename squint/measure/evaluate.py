"""How good a model is on fresh toyscape scenes, offline through a backend or through a running service."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from models import manifest
from squint.measure.answers import Answer, Offline, Service, Source
from squint.measure.scenes import TestScene, test_scenes
from squint.measure.scores import score_for

CONNECTIONS = 2  # to a service; more would queue behind one another on the machines this is run on


def _ask_all(source: Source, scenes: Iterable[TestScene], threads: int) -> Iterator[tuple[TestScene, Answer]]:
    """Scenes with their answers, in order, a few in flight."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[TestScene, Future[Answer]]] = deque()
        for scene in scenes:
            waiting.append((scene, pool.submit(source.ask, scene.jpeg)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def evaluate(
    name: str,
    directory: Path,
    scenes: int = 2000,
    seed: int = 0,
    backend: str = "onnxruntime",
    url: str | None = None,
    level: str = "full",
    progress: bool = True,
) -> dict[str, float]:
    """{"top1"}, {"map", "map50"} or {"miou"} of model `name`, whose directory is `directory`, on fresh test scenes.

    Through `url` the service's answers are judged; the manifest still says which task the model has.
    """
    model = manifest.load(directory)
    source: Source = Service(url, name, model.task, level) if url else Offline(directory, backend, level)
    classes = len(model.labels) - (model.task == "segment")  # background is a label only there
    score = score_for(model.task, classes)
    pairs = _ask_all(source, test_scenes(seed, scenes), CONNECTIONS if url else 1)
    for scene, answer in tqdm(pairs, total=scenes, unit="scene", desc=name, disable=not progress):
        score.add(scene, answer)
    return score.result()
