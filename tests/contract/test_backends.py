"""What every backend promises, for every variant this machine can run, over tiny networks and the shipped models."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models import manifest
from models.manifest import Task
from service.backends import cache, registry
from service.backends.base import Artefact, Backend, BackendError, Images, Outputs
from service.backends.measure import agreement
from service.tasks.registry import TASKS
from tests.contract import models

ROOT = Path(__file__).resolve().parents[2]
ENGINES = 2
DEVICE = os.environ.get("SQUINT_TEST_DEVICE", "cpu")
"""`make gpu-check` names a GPU."""
MADE = ("torch/f32", "torch/bf16")
REAL = [one for one in registry.variants("auto", device=DEVICE) if one not in MADE and registry.installed(one)]
NETWORKS: list[Task] = ["classify", "detect", "segment"]
SHIPPED = ["toyscape-classify", "toyscape-detect", "toyscape-segment"]
TORCH = ["torch/f32", "torch/bf16", "torch/jit/f32"]
"""Variants that need the models environment, and networks of their own."""
WITH_TORCH = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the compiler's own deprecations
EVERY = [*REAL, "fake", *(pytest.param(variant, marks=WITH_TORCH) for variant in TORCH)]


def needs_the_cpu_for(variant: str) -> None:
    if variant == "openvino/bf16" and not cache.cpu()[1] & {"avx512_bf16", "amx_bf16"}:
        pytest.skip("this CPU has no bf16")


def opened(directory: Path, variant: str, cache_dir: str = "") -> Backend:
    described = manifest.load(directory)
    graph = manifest.read_file(directory, described, described.graph)
    device = "cpu" if variant.startswith("fake") else DEVICE
    artefact = Artefact(manifest=described, graph=graph, engines=ENGINES, cache_dir=cache_dir, device=device)
    if registry.is_made(variant):
        registry.build(variant, artefact, lambda step: None)
    return registry.open_backend(variant, artefact, allow_fake=True)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    found = {f"real {task}": models.tiny(root, task) for task in NETWORKS}
    return found | {f"fake {task}": models.fake(root, task, side=64) for task in NETWORKS}


Find = Callable[[str, Task], Path]


@pytest.fixture(scope="module")
def find(directories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Find:
    """The directory of a tiny model that a variant can run."""

    @functools.cache
    def found(variant: str, task: Task) -> Path:
        if variant.startswith("torch"):
            from tests.contract import networks

            return networks.tiny(tmp_path_factory.mktemp("networks"), task)
        return directories[f"{'fake' if variant == 'fake' else 'real'} {task}"]

    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where what has to be compiled before is kept."""
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module", params=NETWORKS)
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


@pytest.fixture(scope="module", params=EVERY)
def case(request: pytest.FixtureRequest, task: Task, find: Find, compiled: str) -> Iterator[tuple[Backend, Task, Path]]:
    variant = request.param
    needs_the_cpu_for(variant)
    directory = find(variant, task)
    backend = opened(directory, variant, compiled if variant in TORCH else "")
    yield backend, task, directory
    backend.close()


Case = tuple[Backend, Task, Path]


def close(task: Task, one: Outputs, other: Outputs) -> bool:
    found = TASKS[task].agreement(one, other)
    return found.share >= 0.99 and found.score <= 0.02


def test_outputs_have_the_names_shapes_and_types_of_the_contract(case: Case) -> None:
    backend, task, directory = case
    for n in (1, 3):
        outputs = backend.run(models.images(n, 64), "full")
        assert set(TASKS[task].outputs) <= set(outputs)
        assert {len(value) for value in outputs.values()} == {n}
        if task == "classify":
            assert outputs["logits"].shape == (n, len(manifest.load(directory).labels))
            assert outputs["logits"].dtype == np.float32
            assert outputs["embedding"].ndim == 2
        elif task == "detect":
            kept = outputs["scores"].shape[1]
            assert outputs["boxes"].shape == (n, kept, 4) and outputs["labels"].shape == (n, kept)
            assert outputs["boxes"].dtype == outputs["scores"].dtype == np.float32
            assert outputs["labels"].dtype.kind == "i"
        else:
            assert outputs["mask"].ndim == 3 and outputs["mask"].dtype in (np.uint8, np.uint16)


def test_a_batch_answers_as_its_images_alone_do(case: Case) -> None:
    backend, task, _ = case
    images = models.images(5, 64)
    together = backend.run(images, "full")
    alone = [backend.run(images[i : i + 1], "full") for i in range(5)]
    assert close(task, together, {name: np.concatenate([one[name] for one in alone]) for name in together})


def test_concurrent_callers_get_their_own_answers(case: Case) -> None:
    backend, task, _ = case
    inputs = [models.images(1 + i % 3, 64, seed=i) for i in range(12)]
    expected = [backend.run(images, "full") for images in inputs]
    with ThreadPoolExecutor(ENGINES) as pool:
        for _ in range(3):
            got = list(pool.map(lambda images: backend.run(images, "full"), inputs))
            assert all(close(task, one, other) for one, other in zip(expected, got, strict=True))


def test_an_answer_stays_as_it_was_when_the_next_one_comes(case: Case) -> None:
    backend, _, _ = case
    first = backend.run(models.images(1, 64, seed=1), "full")
    kept = {name: value.copy() for name, value in first.items()}
    for seed in range(2, 5):
        backend.run(models.images(1, 64, seed=seed), "full")
    assert all(np.array_equal(kept[name], first[name]) for name in kept)


def test_pixels_need_not_lie_in_one_piece_and_are_not_changed(case: Case) -> None:
    backend, task, _ = case
    images = models.images(2, 64)
    wide = np.zeros((2, 64, 128, 3), np.uint8)
    wide[:, :, ::2] = images
    scattered = wide[:, :, ::2]
    assert not scattered.flags.c_contiguous
    assert close(task, backend.run(images, "full"), backend.run(scattered, "full"))
    read_only = images.copy()
    read_only.flags.writeable = False
    backend.run(read_only, "full")
    assert np.array_equal(images, models.images(2, 64))


WRONG = {
    "float": np.zeros((1, 64, 64, 3), np.float32),
    "no batch axis": np.zeros((64, 64, 3), np.uint8),
    "channels first": np.zeros((1, 3, 64, 64), np.uint8),
    "another size": np.zeros((1, 32, 32, 3), np.uint8),
    "empty": np.zeros((0, 64, 64, 3), np.uint8),
}


@pytest.mark.parametrize("images", WRONG.values(), ids=list(WRONG))
def test_other_shapes_and_types_are_refused(case: Case, images: Images) -> None:
    backend, _, _ = case
    with pytest.raises(BackendError, match=r"expected uint8 \[B, 64, 64, 3\]") as caught:
        backend.run(images, "full")
    assert caught.value.kind == "batch"


def test_an_unknown_level_is_refused(case: Case) -> None:
    backend, _, _ = case
    with pytest.raises(BackendError, match="unknown level 'fast'; this model has full"):
        backend.run(models.images(1, 64), "fast")


def test_the_name_tells_backend_and_precision(case: Case) -> None:
    backend, _, _ = case
    assert backend.name.partition("/")[0] in registry.VARIANTS
    assert backend.name in registry.variants(backend.name, allow_fake=True)


@pytest.mark.parametrize("variant", EVERY)
def test_close_may_be_called_twice_and_ends_the_use(variant: str, find: Find, compiled: str) -> None:
    needs_the_cpu_for(variant)
    backend = opened(find(variant, "classify"), variant, compiled if variant in TORCH else "")
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed") as caught:
        backend.run(models.images(1, 64), "full")
    assert caught.value.kind == "fatal"


@pytest.mark.parametrize("variant", REAL)
def test_a_graph_that_is_none_is_an_error_of_ours(variant: str, directories: dict[str, Path]) -> None:
    needs_the_cpu_for(variant)
    described = manifest.load(directories["real classify"])
    for graph in (b"", b"no graph at all", b"\x08\x09" * 1000):
        with pytest.raises(BackendError):
            registry.open_backend(variant, Artefact(manifest=described, graph=graph))


@pytest.mark.parametrize("variant", REAL)
def test_a_second_load_from_the_cache_answers_the_same(
    variant: str, directories: dict[str, Path], tmp_path: Path
) -> None:
    needs_the_cpu_for(variant)
    answers = []
    for _ in range(2):
        backend = opened(directories["real classify"], variant, str(tmp_path))
        answers.append(backend.run(models.images(3, 64), "full")["logits"])
        backend.settle()
        assert np.array_equal(backend.run(models.images(3, 64), "full")["logits"], answers[-1])
        backend.close()
    assert np.allclose(answers[0], answers[1], atol=1e-6)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    backend = opened(directories["real classify"], variant, str(tmp_path))
    assert np.allclose(answers[0], backend.run(models.images(3, 64), "full")["logits"], atol=1e-6)
    backend.close()


@pytest.mark.parametrize("variant", [variant for variant in EVERY if variant != "fake"])
def test_tiny_networks_agree_with_their_reference(variant: str, task: Task, find: Find, compiled: str) -> None:
    agrees(find(variant, task), variant, compiled if variant in TORCH else "")


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("variant", REAL)
def test_shipped_models_agree_with_their_reference(variant: str, name: str) -> None:
    agrees(manifest.find([ROOT / "models" / "zoo"])[name], variant)


def agrees(directory: Path, variant: str, cache_dir: str = "") -> None:
    needs_the_cpu_for(variant)
    backend = opened(directory, variant, cache_dir)
    reference = models.reference_of(directory)
    problem, found = agreement(backend, manifest.load(directory), reference.pop("images"), reference)
    backend.close()
    assert not problem
    if variant.endswith("f32"):
        assert found.share > 0.999 and found.score < 1e-3


# --- wide runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=REAL)
def spreading(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Iterator[Backend]:
    needs_the_cpu_for(request.param)
    described = manifest.load(directories["real classify"])
    graph = manifest.read_file(directories["real classify"], described, described.graph)
    backend = registry.open_backend(request.param, Artefact(manifest=described, graph=graph, engines=3, wide=True))
    yield backend
    backend.close()


def test_wide_runs_and_others_answer_the_same_in_any_company(spreading: Backend, directories: dict[str, Path]) -> None:
    plain = opened(directories["real classify"], spreading.name)
    inputs = [models.images(1 + i % 3, 64, seed=i) for i in range(12)]
    expected = [plain.run(images, "full") for images in inputs]
    plain.close()
    with ThreadPoolExecutor(5) as pool:  # more than there are engines
        for wide in (lambda i: True, lambda i: False, lambda i: i % 2 == 0):
            runs = [pool.submit(spreading.run, images, "full", wide=wide(i)) for i, images in enumerate(inputs)]
            for run, right in zip(runs, expected, strict=True):
                assert close("classify", right, run.result())


def test_a_run_that_fails_in_the_pool_is_an_error_of_ours_and_harms_no_other(
    spreading: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = spreading.run(models.images(1, 64), "full", wide=True)["logits"]
    for wide in (False, True):
        with monkeypatch.context() as patched:
            patched.setattr(spreading, "_inputs", lambda level: {"no_such_input": np.zeros(1, np.int64)})
            for _ in range(4):
                with pytest.raises(BackendError) as caught:
                    spreading.run(models.images(1, 64), "full", wide=wide)
                assert caught.value.kind == "batch"
        assert np.allclose(spreading.run(models.images(1, 64), "full", wide=wide)["logits"], right, atol=1e-5)
