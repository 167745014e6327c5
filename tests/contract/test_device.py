"""What is done for a GPU, on a device that is none: levels written into graphs, fixed buffers, a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models import manifest
from models.manifest import Task
from service.backends import cuda, measure, onnxruntime, pipeline
from service.backends.base import Artefact, Backend, BackendError, Outputs
from tests.contract import models
from tests.contract.test_levels import NAMED, NUMBERS, PICTURES, expected
from tests.walls import ROOT

ENGINES = 3
CASES: list[Task] = ["classify", "segment"]
SHIPPED = manifest.find([ROOT / "models" / "zoo"])


def opened(directory: Path) -> Backend:
    described = manifest.load(directory)
    graph = manifest.read_file(directory, described, described.graph)
    return cuda.load(onnxruntime.library(), Artefact(manifest=described, graph=graph, engines=ENGINES), "f32")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Backend, Path]]:
    directory = models.levelled(tmp_path_factory.mktemp("models"), request.param, levels=NAMED)
    backend = opened(directory)
    yield backend, directory
    backend.close()


def close(task: str, given: Outputs, wanted: Outputs) -> bool:
    return np.array_equal(given["tokens"], wanted["tokens"]) and np.allclose(
        given[NUMBERS[task]], wanted[NUMBERS[task]], atol=1e-4
    )


@pytest.mark.parametrize("level", ["full", "balanced", "fast", "tome:7/0/3"])
def test_every_level_answers_as_the_reference_does(case: tuple[Backend, Path], level: str) -> None:
    backend, directory = case
    task = manifest.load(directory).task
    wanted = expected(directory, level)
    for size in (1, 3, len(PICTURES)):
        given = backend.run(PICTURES[:size], level)
        assert set(given) == set(wanted)
        assert close(task, given, {name: value[:size] for name, value in wanted.items()})


def test_levels_and_sizes_at_once_do_not_mix(case: tuple[Backend, Path]) -> None:
    backend, directory = case
    task = manifest.load(directory).task
    wanted = {level: expected(directory, level) for level in ("full", *NAMED)}
    asked = [(level, 1 + number % 6) for number in range(6) for level in wanted]

    def ask(one: tuple[str, int]) -> Outputs:
        level, size = one
        staged = backend.staging(size)
        staged[:] = PICTURES[:size]
        return backend.run(staged, level)

    with ThreadPoolExecutor(ENGINES) as pool:
        for (level, size), given in zip(asked, pool.map(ask, asked), strict=True):
            assert close(task, given, {name: value[:size] for name, value in wanted[level].items()})


def test_an_answer_stays_as_it_was_when_the_next_one_comes(case: tuple[Backend, Path]) -> None:
    backend, _ = case
    first = backend.run(PICTURES[:1], "full")
    kept = {name: value.copy() for name, value in first.items()}
    for number in range(1, 2 * pipeline.DEPTH):
        backend.run(PICTURES[number % len(PICTURES)][None], "full")
    assert all(np.array_equal(kept[name], first[name]) for name in kept)


def test_named_levels_are_prepared_by_their_first_run(case: tuple[Backend, Path]) -> None:
    backend, _ = case
    backend.run(PICTURES[:1], "balanced")
    assert backend.prepared("full") and backend.prepared("balanced") and backend.prepared("tome:3")
    with pytest.raises(BackendError, match="unknown level"):
        backend.run(PICTURES[:1], "tome:99/")


def test_a_device_is_timed_at_the_sizes_that_it_runs(tmp_path: Path) -> None:
    backend = opened(models.tiny(tmp_path, "classify"))
    found = measure.batch_seconds(backend, models.images(2, 64), ["full"], ENGINES)
    backend.close()
    assert set(found["full"]) <= set(pipeline.BUCKETS) and 1 in found["full"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_agree_with_their_reference_at_every_level(name: str) -> None:
    from squint.measure import verify

    directory = SHIPPED[name]
    described = manifest.load(directory)
    stored = models.reference_of(directory)
    images, reference = verify.kept_reference(stored)
    backend = opened(directory)
    rows = list(verify.check(described, backend, images, [one.name for one in described.levels], reference))
    backend.close()
    assert rows and [row.wrong for row in rows] == [""] * len(rows)


def test_closing_twice_and_running_afterwards(tmp_path: Path) -> None:
    backend = opened(models.tiny(tmp_path, "detect"))
    assert backend.run(models.images(2, 64), "full")["boxes"].shape[0] == 2
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(models.images(1, 64), "full")


def test_a_graph_that_is_none_is_an_error_of_ours(tmp_path: Path) -> None:
    described = manifest.load(models.tiny(tmp_path, "classify"))
    for graph in (b"", b"no graph at all", b"\x08\x09" * 1000):
        with pytest.raises(BackendError):
            cuda.load(onnxruntime.library(), Artefact(manifest=described, graph=graph), "f32")


def test_the_build_for_cpus_says_that_it_is_one(tmp_path: Path) -> None:
    directory = models.tiny(tmp_path, "classify")
    described = manifest.load(directory)
    if "CUDAExecutionProvider" in onnxruntime.library().get_available_providers():
        pytest.skip("this is the build for GPUs")
    artefact = Artefact(manifest=described, graph=b"", device="cuda:0")
    with pytest.raises(BackendError, match="the build for CPUs"):
        onnxruntime.load(artefact, "cuda-f32")
