"""Folding changes nothing but the speed, and the exported graph answers as PyTorch does."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from safetensors.torch import save_file  # noqa: E402

from models import manifest  # noqa: E402
from models.backbones.vit import Block, VitConfig, normalise  # noqa: E402
from models.cost import count_macs  # noqa: E402
from models.export import export, narrowed  # noqa: E402
from models.levels import plan  # noqa: E402
from models.manifest import Task  # noqa: E402
from models.network import TASKS, Network  # noqa: E402
from models.oracle import OracleError, oracle  # noqa: E402
from models.reference import KEPT, answers_kept, kept_answers, read_reference, standard_levels  # noqa: E402
from models.served import Served, fold_batch_norms, fold_normalisation  # noqa: E402

SMALL = VitConfig(side=64, width=48, depth=3, heads=3, stem=(8, 16, 24))

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the exporter's own deprecations


def lively(network: Network) -> Network:
    """Give batch norms statistics that are not the identity, as training would."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
    network.eval()
    return network


def saved(tmp_path: Path, task: Task) -> Path:
    """Weights of a small network, no two alike, as training writes them."""
    torch.manual_seed(0)
    network = lively(Network(SMALL, 14, (task,)))
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter) * 1e-3
    metadata = {"config": json.dumps(asdict(SMALL)), "record": json.dumps({"recipe": [{"narrow": 0.3}]})}
    save_file(network.state_dict(), tmp_path / "weights", metadata)
    return tmp_path / "weights"


def images() -> Any:
    return torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_folded_stem_equals_the_plain_one_borders_included() -> None:
    torch.manual_seed(0)
    network = lively(Network(VitConfig(depth=1), 3))
    # Weights that fp16 holds once divided by STD: then nothing but folding differs.
    conv = network.trunk.stem.conv1[0]
    norm = network.trunk.stem.conv1[1]
    norm.weight.data.fill_(1.0)
    norm.running_var.fill_(1.0 - norm.eps)
    conv.weight.data.copy_((conv.weight.data / 64).half().float() * 64)
    with torch.no_grad():
        plain = network.trunk.stem(normalise(images()))
        stem = network.trunk.stem
        fold_batch_norms(stem)
        fold_normalisation(stem)
        pixels = torch.nn.functional.pad(images().permute(0, 3, 1, 2), (1, 0, 1, 0), value=118).float()
        folded = stem(pixels)
    for ours, theirs in zip(folded, plain, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-4


@pytest.mark.parametrize("task", TASKS)
def test_rounding_and_folding_keep_the_answers(task: str) -> None:
    torch.manual_seed(0)
    network = lively(Network(VitConfig(depth=2), 5, (task,)))
    with torch.no_grad():
        plain = network(normalise(images()), task)
        served = Served(network, task)(images())
    if task == "segment":
        assert float((plain[0] == served[0]).float().mean()) > 0.99
    else:
        first = 0 if task == "classify" else 1
        assert torch.allclose(plain[first], served[first], atol=5e-3)


@pytest.mark.parametrize("task", TASKS)
def test_an_exported_directory_is_whole_and_answers_as_torch_does(task: Task, tmp_path: Path) -> None:
    directory = export(task, saved(tmp_path, task), tmp_path / "zoo", "a-name")
    described = manifest.load(directory)
    assert (described.name, described.task) == ("a-name", task)
    trunk = described.trunk
    assert trunk is not None and trunk.merge and trunk.shares == ("1/2",) and trunk.prefix == 1
    (full,) = described.levels
    counted = count_macs(Served(Network(SMALL, 14, (task,)), task), torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert full.tokens == 17 and full.gmacs == pytest.approx(sum(counted.values()) / 1e9, abs=1e-4)
    reference = read_reference(directory, described)
    graph = manifest.read_file(directory, described, described.graph)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["images", "merge", "hidden"]
    for level in standard_levels(trunk):
        inputs = {name: np.array(values) for name, values in plan(level, trunk).inputs.items()}
        kept = answers_kept(reference, level)
        answers = session.run(None, {"images": reference["images"][:4], **inputs})
        given = kept_answers(level, dict(zip([node.name for node in session.get_outputs()], answers, strict=True)))
        for name, expected in kept.items():
            answer = given[f"{level} {name}"]
            assert answer.dtype == expected.dtype and answer.shape == expected.shape
            if task == "detect" and name != "tokens":  # which of no boxes come first is chance
                answer, expected = (values[kept["scores"] > 1e-6] for values in (answer, expected))
            if name in ("logits", "scores", "boxes"):
                assert np.abs(answer - expected).max() < 1e-4
            else:
                assert (answer == expected).mean() > 0.999
    ask = oracle(directory, described)
    for level in ("full", "tome:3", "width:1/2"):
        again = kept_answers(level, ask(reference["images"][:KEPT], level))
        assert all(
            np.array_equal(again[f"{level} {name}"], kept) for name, kept in answers_kept(reference, level).items()
        )


def test_a_lookup_vit_is_an_oracle_without_the_weights_that_nothing_reads(tmp_path: Path) -> None:
    small = replace(SMALL, kind="lookup")
    torch.manual_seed(0)
    network = lively(Network(small, 14, ("classify",)))
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter) * 1e-3
    save_file(network.state_dict(), tmp_path / "weights", {"config": json.dumps(asdict(small)), "record": "{}"})
    directory = export("classify", tmp_path / "weights", tmp_path, "toyscape-lookup")
    described = manifest.load(directory)
    reference = read_reference(directory, described)
    ask = oracle(directory, described)
    for level in ("lookup:3x3", "lookup:3x4"):
        again = kept_answers(level, ask(reference["images"][:KEPT], level))
        assert np.array_equal(again[f"{level} logits"], answers_kept(reference, level)["logits"])


def test_a_graph_without_one_of_the_weights_is_no_oracle(tmp_path: Path) -> None:
    directory = export("classify", saved(tmp_path, "classify"), tmp_path)
    described = manifest.load(directory)
    path = directory / described.graph
    graph = onnx.load(path)
    name = "served.trunk.blocks.0.attn.qkv.weight.T.half"
    (matrix,) = (tensor for tensor in graph.graph.initializer if tensor.name == name)
    matrix.name = "unknown"
    data = graph.SerializeToString()
    path.write_bytes(data)
    files = {**described.files, described.graph: manifest.File(hashlib.sha256(data).hexdigest(), len(data))}
    with pytest.raises(OracleError, match=r"no weight 'served.trunk.blocks.0.attn.qkv.weight'"):
        oracle(directory, msgspec.structs.replace(described, files=files))
    with pytest.raises(OracleError, match="does not say which network"):
        oracle(directory, msgspec.structs.replace(described, files=files, training={}))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"note": "untrained"}, False),
        ({"recipe": [{"narrow": 0.0}, {"seed": 1}]}, False),
        ({"recipe": [{"narrow": 0.0}, {"narrow": 0.5}]}, True),
        ({"recipe": [{}], "start": {"recipe": [{"narrow": 0.2}]}}, True),
    ],
)
def test_narrow_mlps_are_served_where_they_were_trained(record: dict[str, Any], expected: bool) -> None:
    assert narrowed(record) is expected


def test_costs_match_the_formula() -> None:
    config = VitConfig()
    served = Served(Network(config, 14, ("classify",)).eval(), "classify")
    macs = count_macs(served, images())
    tokens, width = 197, config.width
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    assert macs["blocks"] == config.depth * block
    assert macs["stem"] <= 60e6
    assert macs["head"] == 14 * width


def test_a_block_is_its_two_halves() -> None:
    torch.manual_seed(0)
    block, x = Block(48, 3, 4), torch.randn(2, 9, 48)
    half, keys = block.attend(x)
    assert keys.shape == (2, 3, 9, 16)
    assert torch.equal(block.feed(half), block(x))
    # proportional attention: a key of size 2 counts as the key twice (log 2 more)
    twice = torch.cat([x, x[:, 4:5]], dim=1)
    size = torch.ones(2, 9)
    size[:, 4] = 2.0
    assert torch.allclose(block.attend(x, size.log())[0], block.attend(twice)[0][:, :9], atol=1e-5)
