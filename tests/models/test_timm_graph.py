"""timm networks as graphs: they answer as PyTorch does, at every level, on both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")

from safetensors.numpy import load  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from models import manifest  # noqa: E402
from models.levels import FULL, Plan, Trunk, plan  # noqa: E402
from models.manifest import Level, Manifest  # noqa: E402
from models.reference import answers_kept, standard_levels  # noqa: E402
from models.restored import RestoreError, restored  # noqa: E402
from models.sources.artefact import TOLERANCES, SourceError, fill, staged  # noqa: E402
from models.sources.pixels import fold  # noqa: E402
from models.sources.timm_graph import Whole, bring_in, graph_of, macs, serve  # noqa: E402
from service.backends.base import Artefact, Backend  # noqa: E402
from service.backends.registry import open_backend  # noqa: E402
from tests.models.lively import enliven, tiny  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the exporter's own deprecations

HALF = (0.5, 0.5, 0.5)
MERGES = [(0, 0, 0, 0, 0), (1, 1, 1, 1, 1), (0, 5, 0, 2, 0), (7, 3, 1, 0, 0), (100, 100, 100, 100, 100)]
"""The last leaves a single patch after four blocks, so that the fifth has nothing to merge."""


def uint8(count: int, sides: tuple[int, int]) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *sides, 3), dtype=torch.uint8, generator=generator)


def backends(graph: bytes, sides: tuple[int, int], trunk: Trunk | None) -> list[Backend]:
    described = Manifest(
        format=manifest.FORMAT,
        name="x",
        version="1",
        task="classify",
        labels=["a"],
        licence="unknown",
        transform=manifest.Transform(fit="crop", height=sides[0], width=sides[1]),
        graph="g",
        reference="r",
        files={},
        levels=[Level(name=FULL, gmacs=1.0, tokens=1)],
        tolerance=TOLERANCES["classify"],
        trunk=trunk,
    )
    artefact = Artefact(manifest=described, graph=graph)
    return [open_backend(variant, artefact) for variant in ("onnxruntime/f32", "openvino/f32")]


@pytest.mark.parametrize("kind", ["distilled", "registers, mean", "rotary, mixed", "norm of keys"])
def test_every_level_answers_as_pytorch_does(kind: str) -> None:
    model = tiny(kind, depth=5)
    sides = model.patch_embed.img_size
    images = uint8(3, sides)
    served = serve(model, fold(model, "patch_embed.proj", HALF, HALF, images))
    prefix = served.model.prefix
    trunk = Trunk(blocks=5, width=48, hidden=192, patches=16, prefix=prefix, fixed=0, merge=True)
    runs = backends(graph_of(served, images), sides, trunk)
    for counts in MERGES:
        level = "tome:" + "/".join(str(min(count, 16)) for count in counts)
        expected = served.at(images, plan(level, trunk))
        limit = 2e-5 * float(expected["logits"].abs().max())
        for backend in runs:
            for part in (slice(0, 1), slice(0, 3)):
                outputs = backend.run(images[part].numpy(), level)
                assert np.array_equal(outputs["tokens"], expected["tokens"][part].numpy()), (backend.name, level)
                for name in ("logits", "embedding"):
                    error = np.abs(outputs[name] - expected[name][part].numpy()).max()
                    assert error < limit, (backend.name, level, name)


def test_a_network_without_tokens_answers_as_pytorch_does() -> None:
    model = enliven(timm.create_model("test_convnext", num_classes=7))
    images = uint8(3, (160, 160))
    served = serve(model, fold(model, "stem.0", HALF, HALF, images))
    assert type(served) is Whole
    expected = served.at(images, Plan(FULL, {}, 0, 0.0))["logits"].numpy()
    for backend in backends(graph_of(served, images), (160, 160), None):
        assert np.allclose(backend.run(images.numpy(), FULL)["logits"], expected, atol=1e-4 * np.abs(expected).max())


def test_a_model_is_brought_in_whole(tmp_path: Path) -> None:
    save_file(enliven(timm.create_model("test_vit", num_classes=5)).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    source, answers = bring_in("test_vit", str(tmp_path / "w.safetensors"), tmp_path / "labels.txt")
    with staged(tmp_path / "zoo", "added") as directory:
        fill(directory, source, "added", answers)
    described = manifest.load(tmp_path / "zoo" / "added" / "1")
    assert described.labels == list("abcde")
    assert described.training["source"] == "timm/test_vit"
    trunk = described.trunk
    assert trunk is not None
    assert (trunk.blocks, trunk.width, trunk.patches, trunk.prefix, trunk.merge) == (6, 64, 100, 1, True)
    assert described.levels == [Level(name=FULL, gmacs=round(plan(FULL, trunk).gmacs, 4), tokens=101)]
    kept = load(manifest.read_file(tmp_path / "zoo" / "added" / "1", described, described.reference))
    assert kept["images"].shape == (8, 160, 160, 3)
    assert kept["logits"].shape == (8, 5)
    assert "tome:13" in standard_levels(trunk)
    assert all(answers_kept(kept, level).keys() == {"logits", "tokens"} for level in standard_levels(trunk))


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "test_convnext"])
def test_a_network_is_made_again_from_its_graph(name: str, tmp_path: Path) -> None:
    save_file(enliven(timm.create_model(name, num_classes=5)).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    source, answers = bring_in(name, str(tmp_path / "w.safetensors"), tmp_path / "labels.txt")
    with staged(tmp_path / "zoo", "added") as directory:
        fill(directory, source, "added", answers)
    described = manifest.load(tmp_path / "zoo" / "added" / "1")
    network = restored(described, source.graph)
    for level in standard_levels(described.trunk)[:4] if described.trunk else ():
        given = network.at(torch.from_numpy(answers["images"][:4]), plan(level, described.trunk))
        kept = answers_kept(answers, level)
        assert np.array_equal(given["tokens"].numpy(), kept["tokens"])
        assert np.allclose(given["logits"].numpy(), kept["logits"], atol=1e-5 * np.abs(kept["logits"]).max())
    full = network.at(torch.from_numpy(answers["images"]), Plan(FULL, {}, 0, 0.0))["logits"].numpy()
    assert np.allclose(full, answers["logits"], atol=1e-5 * np.abs(full).max())
    with pytest.raises(RestoreError, match="has no weight"):
        restored(described, onnx.ModelProto().SerializeToString())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_fresh_weights_are_all_there_again_though_many_are_alike(name: str, tmp_path: Path) -> None:
    state = timm.create_model(name).state_dict()
    save_file({key: value * 0.5 for key, value in state.items()}, tmp_path / "w.safetensors")  # no network starts so
    source, answers = bring_in(name, str(tmp_path / "w.safetensors"))
    tensors = {tensor.name for tensor in onnx.load_from_string(source.graph).graph.initializer}
    network = restored(source.described("fresh", "1", {}), source.graph)
    norms = [part for part in network.modules() if isinstance(part, torch.nn.LayerNorm)]
    assert len(norms) > sum("norm" in name or "before" in name for name in tensors)
    assert all(norm.weight.eq(0.5).all() and norm.bias.eq(0.0).all() for norm in norms)
    full = network.at(torch.from_numpy(answers["images"]), Plan(FULL, {}, 0, 0.0))["logits"].numpy()
    assert np.allclose(full, answers["logits"], atol=1e-6 * np.abs(full).max())


def test_trained_weights_that_are_alike_are_all_there_again(tmp_path: Path) -> None:
    state = enliven(timm.create_model("test_vit", num_classes=5)).state_dict()
    for part in ("norm1.weight", "norm2.bias", "attn.qkv.weight", "mlp.fc1.weight"):
        state[f"blocks.4.{part}"] = state[f"blocks.1.{part}"].clone()
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    source, answers = bring_in("test_vit", str(tmp_path / "w.safetensors"), tmp_path / "labels.txt")
    network = restored(source.described("tied", "1", {}), source.graph)
    one, other = (dict(network.model.blocks[number].named_parameters()) for number in (1, 4))
    same = {name for name in one if torch.equal(one[name], other[name])}
    assert same == {"before1.weight", "before2.bias", "attn.qkv.weight", "mlp.fc1.weight"}
    full = network.at(torch.from_numpy(answers["images"]), Plan(FULL, {}, 0, 0.0))["logits"].numpy()
    assert np.allclose(full, answers["logits"], atol=1e-6 * np.abs(full).max())


def test_a_fresh_batch_norm_in_the_kernel_before_it_is_refused_not_counted_twice() -> None:
    source, _ = bring_in("test_resnet", "random")
    with pytest.raises(RestoreError, match=r"has no weight 'model\.conv1\.0\.weight'"):
        restored(source.described("fresh", "1", {}), source.graph)


def test_weights_that_answer_no_numbers_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["fc.bias"][0] = torch.nan
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SourceError, match="answers what is no number"):
        bring_in("test_resnet", str(tmp_path / "w.safetensors"))


def test_macs_count_attention_too() -> None:
    model = tiny("class token")
    x = torch.zeros(1, 3, 64, 64)
    blocks = 3 * (4 * 17 * 48**2 + 2 * 17**2 * 48 + 8 * 17 * 48**2)
    assert macs(model, x) == blocks + 16 * 3 * 256 * 48 + 48 * 7
