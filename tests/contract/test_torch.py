"""What the compiled backend promises beyond the contract of all: nothing compiles while it serves, and nothing runs
that was not made here, whole, and for this."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import manifest  # noqa: E402
from models.levels import plan  # noqa: E402
from models.restored import restored  # noqa: E402
from service.backends import cache, registry  # noqa: E402
from service.backends import torch as ours  # noqa: E402
from service.backends.base import Artefact, Backend, BackendError, Outputs  # noqa: E402
from service.backends.choose import choose  # noqa: E402
from service.backends.store import FOLDER, SEAL, Store  # noqa: E402
from tests.contract import models, networks  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the compiler's own deprecations

ROOT = Path(__file__).resolve().parents[2]
NAMED = {"balanced": "tome:5,-1+width:1/2", "fast": "tome:16"}
PLAIN = ["tome:1", "tome:0/7", "tome:3+width:1/2"]
PICTURES = models.images(5, 64, seed=5)
ENGINES = 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.tiny(tmp_path_factory.mktemp("models"), "classify", NAMED)


@pytest.fixture(scope="module")
def compiled(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory with the libraries of the model in float32."""
    folder = tmp_path_factory.mktemp("compiled")
    registry.build("torch/f32", artefact(directory, folder), lambda step: None)
    return folder


def artefact(directory: Path, cache_dir: Path, **changes: Any) -> Artefact:
    described = msgspec.structs.replace(manifest.load(directory), **changes)
    graph = manifest.read_file(directory, described, described.graph)
    return Artefact(manifest=described, graph=graph, engines=ENGINES, cache_dir=str(cache_dir))


def opened(directory: Path, cache_dir: Path) -> Backend:
    return registry.open_backend("torch/f32", artefact(directory, cache_dir))


def expected(directory: Path, level: str) -> Outputs:
    described = manifest.load(directory)
    network = restored(described, manifest.read_file(directory, described, described.graph))
    explicit = {named.name: named.explicit for named in described.levels}.get(level, level)
    outputs = network.at(torch.from_numpy(PICTURES), plan(explicit, described.trunk))
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.parametrize("level", ["full", *NAMED, *PLAIN])
def test_every_level_answers_as_pytorch_does(directory: Path, compiled: Path, level: str) -> None:
    backend, wanted = opened(directory, compiled), expected(directory, level)
    for size in (1, len(PICTURES)):
        given = backend.run(PICTURES[:size], level)
        assert set(given) == set(wanted)
        assert np.array_equal(given["tokens"], wanted["tokens"][:size]) and given["tokens"].dtype == np.int32
        for name in set(given) - {"tokens"}:
            assert np.allclose(given[name], wanted[name][:size], atol=1e-4), name
    backend.close()


def test_levels_at_once_do_not_mix(directory: Path, compiled: Path) -> None:
    backend = opened(directory, compiled)
    levels = ["full", *NAMED, *PLAIN]
    alone = {level: backend.run(PICTURES, level) for level in levels}
    order = [*levels * 3, *reversed(levels)]
    with ThreadPoolExecutor(ENGINES) as pool:
        for level, given in zip(order, pool.map(lambda level: backend.run(PICTURES, level), order), strict=True):
            assert all(np.array_equal(given[name], alone[level][name]) for name in given)
    backend.close()


def test_answers_are_the_callers_own(directory: Path, compiled: Path) -> None:
    backend = opened(directory, compiled)
    first = backend.run(PICTURES[:1], "full")
    for value in first.values():
        value[:] = 0
    assert backend.run(PICTURES[:1], "full")["tokens"].max() == 15
    backend.close()


def test_a_batch_is_filled_up_where_sizes_are_compiled(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ours.BUCKETS, "cpu", (2,))
    only = artefact(directory, tmp_path, levels=manifest.load(directory).levels[:1])
    registry.build("torch/f32", only, lambda step: None)
    backend, wanted = registry.open_backend("torch/f32", only), expected(directory, "full")
    for size in (1, 2, 5):
        given = backend.run(PICTURES[:size], "full")
        assert all(len(value) == size for value in given.values())
        assert np.allclose(given["logits"], wanted["logits"][:size], atol=1e-4)
    backend.close()


@pytest.fixture(scope="module")
def on_card(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The model as it goes through a GPU, with the CPU in its place, and not all batch sizes compiled."""
    folder = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ours.BUCKETS, "cpu", (1, 2, 4))
        few = artefact(directory, folder, levels=manifest.load(directory).levels[:2])
        registry.build("torch/f32", few, lambda step: None, (4, 1))
        network = ours.Network(few, "f32")
        backend = ours.OnCard("torch/f32", network, *ours.found(network, compiles=False))
    yield backend
    backend.close()


@pytest.mark.parametrize("level", ["full", "balanced", "tome:3"])
def test_a_card_answers_as_pytorch_does(on_card: Backend, directory: Path, level: str) -> None:
    assert on_card.sizes == (1, 4) and on_card.pipelined
    wanted = expected(directory, level)
    for size in (1, 3, len(PICTURES)):
        given = on_card.run(PICTURES[:size], level)
        assert np.array_equal(given["tokens"], wanted["tokens"][:size])
        assert np.allclose(given["logits"], wanted["logits"][:size], atol=1e-4)
        assert 0 < on_card.seconds(1e9) < 1e9
    assert on_card.prepared(level)


def test_batches_on_a_card_do_not_mix(on_card: Backend, directory: Path) -> None:
    wanted = {level: expected(directory, level) for level in ("full", "balanced", "tome:0/7")}
    asked = [(level, 1 + number % 5) for number in range(10) for level in wanted]

    def ask(one: tuple[str, int]) -> Outputs:
        level, size = one
        staged = on_card.staging(size)
        staged[:] = PICTURES[:size]
        return on_card.run(staged, level)

    with ThreadPoolExecutor(3) as pool:
        for (level, size), given in zip(asked, pool.map(ask, asked), strict=True):
            assert np.allclose(given["logits"], wanted[level]["logits"][:size], atol=1e-4), (level, size)


def test_a_batch_size_that_is_never_run_is_not_compiled(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no batch of 3 is run on cpu; there are 1"):
        registry.build("torch/f32", artefact(directory, tmp_path), lambda step: None, (3,))


@pytest.mark.parametrize(
    ("count", "sizes", "parts"),
    [
        (1, (1,), [(0, 1, 1)]),
        (3, (1,), [(0, 1, 1), (1, 2, 1), (2, 3, 1)]),
        (3, (1, 2, 4), [(0, 3, 4)]),
        (4, (1, 2, 4), [(0, 4, 4)]),
        (9, (4, 1, 2), [(0, 4, 4), (4, 8, 4), (8, 9, 1)]),
    ],
)
def test_batches_run_at_the_sizes_that_are_compiled(
    count: int, sizes: tuple[int, ...], parts: list[tuple[int, int, int]]
) -> None:
    assert [(part.start, part.stop, size) for part, size in ours.pieces(count, sizes)] == parts


def test_what_is_there_is_not_compiled_again(directory: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(*_: object) -> None:
        raise AssertionError("compiles")

    monkeypatch.setattr(ours, "compile_ahead", compiles)
    said = list[str]()
    registry.build("torch/f32", artefact(directory, compiled), said.append)
    assert len(said) == 1 + len(NAMED)


WITHOUT = """
import sys
from pathlib import Path
from models import manifest
from service.backends import cache, registry
from service.backends.base import Artefact
from tests.contract import models

directory = Path(sys.argv[1])
described = manifest.load(directory)
graph = manifest.read_file(directory, described, described.graph)
backend = registry.open_backend("torch/f32", Artefact(manifest=described, graph=graph, cache_dir=sys.argv[2]))
for level in ("full", "balanced", "fast", "tome:1"):
    assert backend.run(models.images(3, 64), level)["logits"].shape == (3, 14)
compilers = ("torch._inductor.compile_fx", "torch._inductor.codecache", "torch._dynamo.convert_frame", "triton")
print(sorted(set(compilers) & set(sys.modules)))
"""


def test_loading_and_serving_need_no_compiler(directory: Path, compiled: Path, tmp_path: Path) -> None:
    """None of its modules is loaded, none is found on the PATH, and none could write what it made."""
    environment = {"PATH": str(tmp_path), "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": "/proc/none"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(directory), str(compiled)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def damaged(directory: Path, compiled: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the cache, and the library in it for the level full."""
    subprocess.run(["cp", "-a", str(compiled), str(tmp_path / "copy")], check=True)
    network = ours.Network(artefact(directory, tmp_path / "copy"), "f32")
    found = network.store.find(network.key(ours.named_levels(manifest.load(directory))[0], 1))
    assert found is not None
    return tmp_path / "copy", found


@pytest.mark.parametrize("file", ["model.so", "outputs", SEAL])
def test_a_library_that_was_altered_is_refused_and_made_anew(
    directory: Path, compiled: Path, tmp_path: Path, file: str, capfd: pytest.CaptureFixture[str]
) -> None:
    copy, library = damaged(directory, compiled, tmp_path)
    data = bytearray((library / file).read_bytes())
    data[len(data) // 2] ^= 1
    (library / file).write_bytes(data)
    with pytest.raises(BackendError, match="not compiled for this machine; squint models compile network-classify-vit"):
        opened(directory, copy)
    assert "artefact_refused" in capfd.readouterr().err
    if file == "outputs":
        registry.build("torch/f32", artefact(directory, copy), lambda step: None)
        backend = opened(directory, copy)
        assert np.allclose(backend.run(PICTURES, "full")["logits"], expected(directory, "full")["logits"], atol=1e-4)
        backend.close()


@pytest.mark.parametrize("what", ["version", "code", "hardware", "network", "graph"])
def test_a_library_made_for_something_else_is_not_taken(
    directory: Path, compiled: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = artefact(directory, compiled)
    if what == "version":
        monkeypatch.setattr(torch, "__version__", "2.99.0")
    elif what == "code":
        monkeypatch.setattr(ours, "sources", lambda: "other code")
    elif what == "hardware":
        monkeypatch.setattr(cache, "cpu", lambda: ("another cpu", frozenset({"avx2"})))
    elif what == "network":
        asked = artefact(directory, compiled, training={"network": {"depth": 4}})
    else:
        files = {name: manifest.File("0" * 64, 1) for name in asked.manifest.files}
        asked = Artefact(
            manifest=msgspec.structs.replace(asked.manifest, files=files), graph=b"", cache_dir=str(compiled)
        )
    with pytest.raises(BackendError, match="not compiled for this machine"):
        registry.open_backend("torch/f32", asked)


def test_without_a_cache_there_is_nothing_to_load(directory: Path) -> None:
    described = manifest.load(directory)
    with pytest.raises(BackendError, match="not compiled for this machine"):
        registry.open_backend("torch/f32", Artefact(manifest=described, graph=b""))


@pytest.mark.parametrize("graph", [b"no graph at all", b"\x08\x09" * 1000, b""])
def test_a_graph_that_is_none_is_an_error_of_ours(directory: Path, tmp_path: Path, graph: bytes) -> None:
    asked = Artefact(manifest=manifest.load(directory), graph=graph, cache_dir=str(tmp_path))
    for variant in ("torch/f32", "torch/jit/f32"):
        with pytest.raises(BackendError):
            registry.build(variant, asked, lambda step: None)
            registry.open_backend(variant, asked)


def test_a_model_that_is_no_network_of_ours_says_so(tmp_path: Path) -> None:
    asked = artefact(models.tiny(tmp_path, "classify"), tmp_path / "cache")
    with pytest.raises(BackendError, match="tiny-classify: its manifest does not say which network it is"):
        registry.build("torch/f32", asked, lambda step: None)


def test_a_compressed_grid_is_compiled_too(tmp_path: Path) -> None:
    directory = networks.tiny(tmp_path, "classify", {"fast": "lookup:3x4"}, kind="lookup")
    asked = artefact(directory, tmp_path / "cache", levels=manifest.load(directory).levels[1:])
    registry.build("torch/f32", asked, lambda step: None)
    backend = registry.open_backend("torch/f32", asked)
    for level in ("fast", "lookup:5x3"):
        given = backend.run(PICTURES, level)
        explicit = "lookup:3x4" if level == "fast" else level
        assert np.allclose(given["logits"], expected(directory, explicit)["logits"], atol=1e-4)
    backend.close()


def test_it_is_chosen_among_the_others_once_it_is_compiled(directory: Path, compiled: Path, tmp_path: Path) -> None:
    described = manifest.load(directory)
    report = choose(directory, described, "torch/f32", engines=1, cache_dir=str(compiled))
    assert report.chosen == "torch/f32" and report.measured[0].share == 1.0
    assert report.timings[0].level == "full"
    found = Store(compiled / FOLDER).keys()
    assert [key["backend"] for key in found] == ["torch/f32"] * (1 + len(NAMED))
    assert os.stat(compiled / FOLDER).st_mode & 0o777 == 0o700
