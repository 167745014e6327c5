"""What every backend promises about levels, over a tiny network with levels and over models without."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models import manifest
from models.levels import plan
from models.manifest import Task
from service.backends.base import Backend, BackendError, Outputs
from tests.contract import models
from tests.contract.test_backends import ENGINES, REAL, needs_the_cpu_for, opened

EXACT = [one for one in REAL if one.endswith("f32") and not one.endswith("tf32")]
TASKS: list[Task] = ["classify", "segment"]
NAMED = {"balanced": "tome:3", "fast": "tome:5,-1+width:1/2"}
PICTURES = models.images(6, models.LEVELLED.side, seed=5)
NUMBERS = {"classify": "logits", "segment": "mask"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {task: models.levelled(root, task, levels=NAMED) for task in TASKS}


@pytest.fixture(scope="module", params=[(variant, task) for variant in EXACT for task in TASKS], ids=str)
def case(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Iterator[tuple[Backend, Path]]:
    variant, task = request.param
    backend = opened(directories[task], variant)
    yield backend, directories[task]
    backend.close()


def expected(directory: Path, level: str) -> Outputs:
    described = manifest.load(directory)
    explicit = {named.name: named.explicit for named in described.levels}.get(level, level)
    graph = manifest.read_file(directory, described, described.graph)
    return models.answers_at(graph, PICTURES, explicit)


@pytest.mark.parametrize("level", [*models.LEVELS, "tome:7/0/3", "balanced", "fast"])
def test_every_level_answers_as_the_reference_does(case: tuple[Backend, Path], level: str) -> None:
    backend, directory = case
    wanted = expected(directory, level)
    for size in (1, len(PICTURES)):
        given = backend.run(PICTURES[:size], level)
        assert set(given) == set(wanted)
        assert np.array_equal(given["tokens"], wanted["tokens"][:size]) and given["tokens"].dtype == np.int32
        for name in set(given) - {"tokens"}:
            assert np.allclose(given[name], wanted[name][:size], atol=1e-4)


def test_half_precision_merges_as_many(directories: dict[str, Path]) -> None:
    if "openvino/bf16" not in REAL:
        pytest.skip("OpenVINO does not run here")
    needs_the_cpu_for("openvino/bf16")
    backend = opened(directories["classify"], "openvino/bf16")
    for level in models.LEVELS:
        outputs = backend.run(PICTURES, level)
        left = plan(level, models.LEVELLED.trunk).tokens
        assert outputs["tokens"].max() == left - 1 and np.isfinite(outputs["logits"]).all()
    backend.close()


def test_a_name_is_the_level_it_stands_for(case: tuple[Backend, Path]) -> None:
    backend, _ = case
    for name, explicit in NAMED.items():
        one, other = backend.run(PICTURES, name), backend.run(PICTURES, explicit)
        assert all(np.array_equal(one[output], other[output]) for output in one)


def test_groups_are_as_many_as_the_level_leaves(case: tuple[Backend, Path]) -> None:
    backend, _ = case
    for level in models.LEVELS:
        groups = backend.run(PICTURES, level)["tokens"]
        left = plan(level, models.LEVELLED.trunk).tokens
        assert [sorted(set(row)) for row in groups.tolist()] == [list(range(left))] * len(PICTURES)


def test_levels_at_once_do_not_mix(case: tuple[Backend, Path]) -> None:
    backend, directory = case
    name = NUMBERS[manifest.load(directory).task]
    alone = {level: backend.run(PICTURES, level) for level in models.LEVELS}
    order = [*models.LEVELS * 3, *reversed(models.LEVELS)]
    with ThreadPoolExecutor(ENGINES) as pool:
        found = list(pool.map(lambda level: backend.run(PICTURES, level), order))
        for level, given in zip(order, found, strict=True):
            assert np.array_equal(given["tokens"], alone[level]["tokens"])
            assert np.allclose(given[name], alone[level][name], atol=1e-5)


def test_a_level_the_model_does_not_have_is_refused(case: tuple[Backend, Path]) -> None:
    backend, _ = case
    for level in ("high", "tome:17", "width:1/4", "lookup:3x3", "tome:1/1/1/1"):
        with pytest.raises(BackendError, match="unknown level") as caught:
            backend.run(PICTURES[:1], level)
        assert caught.value.kind == "batch"
    assert backend.run(PICTURES[:1], "full")["tokens"].shape == (1, 16)


def test_levels_survive_the_cache(directories: dict[str, Path], tmp_path: Path) -> None:
    for variant in EXACT:
        needs_the_cpu_for(variant)
        answers = []
        for _ in range(2):
            backend = opened(directories["classify"], variant, str(tmp_path))
            answers.append(backend.run(PICTURES, "tome:3+width:1/2"))
            backend.close()
        assert np.array_equal(answers[0]["logits"], answers[1]["logits"])


def test_a_model_without_levels_takes_full_alone(tmp_path: Path) -> None:
    for variant in EXACT:
        backend = opened(models.tiny(tmp_path, "classify", name=variant.replace("/", "-")), variant)
        assert backend.run(PICTURES[:1], "full")["logits"].shape == (1, 5)
        with pytest.raises(BackendError, match="unknown level 'tome:1'"):
            backend.run(PICTURES[:1], "tome:1")
        backend.close()
