"""The models under test, made in the models environment: `.venv-models/bin/python -m loadtest.peers.artefacts`.

free: the mean of each colour and one linear layer, so that all time is the server's own. The others serve it as a
network is exported, with normalised float pixels, or with the normalisation folded, as Squint does.
vit: a ViT-S/16 of timm with random weights. Squint gets it by `squint models add`, with its levels; the others get the
same weights as the plain graph that torch exports, on uint8 pixels [B, 224, 224, 3].
"""

# mypy: disable-error-code="misc"
from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loadtest.images import scene
from loadtest.peers.places import MODELS, ROOT

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, CLASSES, OPSET, SEED, PHOTOS = 224, 1000, 18, 5, 16
VIT = "vit_small_patch16_224"
TRANSFORM = 'fit = "crop"\nkeep = 0.875\nfilter = "bicubic"\n'
LEVELS = {"high": "tome:8", "balanced": "tome:13", "fast": "tome:16"}
"""What the names stand for. Of random weights no level is more accurate than another, so nothing else can choose."""


def free_graphs() -> tuple[bytes, bytes]:
    """The free model as ONNX bytes: as a network is trained and exported, normalised float pixels [B, 3, 224, 224], and
    with the normalisation folded into its layer, for uint8 pixels [B, 224, 224, 3]."""
    rng = np.random.default_rng(SEED)
    weight = rng.normal(0, 0.6, (3, CLASSES)).astype(np.float32)
    bias = rng.normal(0, 1, CLASSES).astype(np.float32)
    last = helper.make_node("Gemm", ["means", "weight", "bias"], ["logits"])
    pooled = helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0)
    exported = _model(
        [pooled, last],
        ("FLOAT", [3, SIDE, SIDE]),
        {"axes": np.array([2, 3], np.int64), "weight": weight, "bias": bias},
    )
    mean, std = np.array(MEAN), np.array(STD)
    folded = (weight.T / (255 * std)).T.astype(np.float32)
    shifted = (bias - (mean / std) @ weight).astype(np.float32)
    # The mean over rows as a product with ones: ReduceMean over this layout takes several times as long.
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "rows"], ["lines"]),
        helper.make_node("MatMul", ["ones", "lines"], ["line"]),
        helper.make_node("Reshape", ["line", "columns"], ["row"]),
        helper.make_node("ReduceMean", ["row", "axis"], ["means"], keepdims=0),
        last,
    ]
    held = {
        "rows": np.array([0, SIDE, SIDE * 3], np.int64),
        "columns": np.array([0, SIDE, 3], np.int64),
        "axis": np.array([1], np.int64),
        "ones": np.full((1, SIDE), 1 / SIDE, np.float32),
        "weight": folded,
        "bias": shifted,
    }
    return exported, _model(nodes, ("UINT8", [SIDE, SIDE, 3]), held)


def _model(nodes: list[Any], given: tuple[str, list[int]], held: dict[str, np.ndarray[Any, Any]]) -> bytes:
    kind, shape = given
    graph = helper.make_graph(
        nodes,
        "free",
        [helper.make_tensor_value_info("images", getattr(TensorProto, kind), ["B", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def plain_vit(folder: Path) -> None:
    """Write `weights.safetensors` and `plain.onnx`, the network as torch exports it with the normalisation folded."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(SEED)
    network: Any = timm.create_model(VIT, num_classes=CLASSES, exportable=True).eval().requires_grad_(False)
    torch.nn.init.normal_(network.head.weight, std=0.3)  # timm's own are so small that all classes tie
    photos = np.stack([scene(SIDE, SIDE, np.random.default_rng(seed)) for seed in range(PHOTOS)])
    seen = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 127.5 - 1
    common = network.forward_head(network.forward_features(seen), pre_logits=True).mean(0)
    network.head.bias.copy_(-network.head.weight @ common)  # without it every photo is the same class
    save_file(network.state_dict(), folder / "weights.safetensors")
    mean, std = (torch.tensor(network.pretrained_cfg[name]) * 255 for name in ("mean", "std"))
    patches = network.patch_embed.proj
    scaled = patches.weight / std.reshape(1, 3, 1, 1)
    patches.bias -= (scaled * mean.reshape(1, 3, 1, 1)).sum((1, 2, 3))
    patches.weight.copy_(scaled)

    class Photos(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Any) -> Any:
            return self.network(images.permute(0, 3, 1, 2).float())

    torch.onnx.export(
        Photos().eval(),
        (torch.zeros((2, SIDE, SIDE, 3), dtype=torch.uint8),),
        folder / "plain.onnx",
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=64)}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
    )


def squint(*words: str) -> None:
    """One command of Squint. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "squint", *words], cwd=ROOT, check=True)


def add(name: str, folder: Path, *source: str) -> None:
    """Bring a model into Squint's form: `folder/zoo/NAME/1`."""
    (folder / "labels.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    (folder / "transform.toml").write_text(TRANSFORM)
    words = ["--name", name, "--labels", str(folder / "labels.txt"), "--transform", str(folder / "transform.toml")]
    squint("models", "add", *source, *words, "--to", str(folder / "zoo"))


def make_free() -> None:
    """All of the free model."""
    folder = MODELS / "free"
    folder.mkdir(parents=True, exist_ok=True)
    exported, folded = free_graphs()
    (folder / "plain.onnx").write_bytes(exported)
    (folder / "plain-uint8.onnx").write_bytes(folded)
    add("free", folder, "onnx", str(folder / "plain-uint8.onnx"), "--task", "classify")


def make_vit() -> None:
    """All of the ViT."""
    folder = MODELS / "vit"
    folder.mkdir(parents=True, exist_ok=True)
    plain_vit(folder)
    add("vit", folder, f"timm/{VIT}", "--weights", str(folder / "weights.safetensors"))
    name_levels(folder / "zoo")


def name_levels(zoo: Path) -> None:
    """Measure the levels and write them into the ViT's manifest under their names."""
    command = [sys.executable, "-m", "squint", "models", "profile", "vit", "--models", str(zoo), "--json"]
    command += ["--backend", "onnxruntime", "--scenes", "60", "--max-drop", "100"]
    command += [word for level in LEVELS.values() for word in ("--level", level)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    measured = {row["level"]: row for row in json.loads(done.stdout)}
    file = zoo / "vit" / "1" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["levels"] = manifest["levels"][:1] + [
        {
            "name": name,
            "explicit": level,
            "accuracy": None,
            "gmacs": measured[level]["gmacs"],
            "tokens": measured[level]["tokens"],
            "agreement": measured[level]["score"],
        }
        for name, level in LEVELS.items()
    ]
    manifest["digest"] = ""
    manifest["digest"] = hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest()
    file.write_text(json.dumps(manifest, indent=1) + "\n")


def main() -> None:
    """Make what is asked for, or both."""
    makers = {"free": make_free, "vit": make_vit}
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers.artefacts", description="Make the models.")
    parser.add_argument("names", nargs="*", choices=[*makers, []], help="default: all")
    for name in parser.parse_args().names or makers:
        makers[name]()


if __name__ == "__main__":
    main()
