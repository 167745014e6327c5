"""Model directories of tiny toyscape networks, which PyTorch can make again from the weights in their graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import msgspec
import onnx
import torch
from onnx import helper, numpy_helper

from models import manifest
from models.backbones.vit import VitConfig
from models.export import numpy_outputs
from models.levels import plan
from models.manifest import Task
from models.network import Network
from models.served import Levelled, Served
from models.toyscape import CLASSES
from tests.contract import models

Kind = Literal["vit", "lookup"]
SHAPE: dict[str, Any] = {"side": 64, "width": 48, "depth": 3, "heads": 3, "stem": (8, 16, 24)}


def served(task: Task, kind: Kind = "vit") -> Served:
    """A network with weights that make every part count."""
    torch.manual_seed(7)
    config = VitConfig(kind=kind, **SHAPE)
    network = Network(config, len(CLASSES), (task,)).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            scale = 0.3 if weight.ndim == 1 or "positions" in name else weight[0].numel() ** -0.5
            centre = 1.0 if weight.ndim == 1 and name.endswith("weight") else 0.0
            weight.copy_(centre + scale * torch.randn(weight.shape))
    return Served(network, task, () if kind == "lookup" else ("1/2",))


def tiny(root: Path, task: Task, levels: Mapping[str, str] | None = None, kind: Kind = "vit") -> Path:
    """A directory whose graph has the weights and nothing else, with PyTorch's answers as the reference; levels are
    names, beside `full`, of explicit ones."""
    network = served(task, kind)
    pictures = models.images(4, SHAPE["side"])
    trunk = network.levels(torch.from_numpy(pictures))
    answers = numpy_outputs(network.at(torch.from_numpy(pictures), plan("full", trunk)))
    weights = [
        numpy_helper.from_array(value.detach().numpy(), name) for name, value in Levelled(network).named_parameters()
    ]
    graph = onnx.helper.make_model(helper.make_graph([], "weights", [], [], weights))
    named = [models.level(name, level, trunk) for name, level in {"full": "full", **(levels or {})}.items()]
    directory = models.write(
        root,
        f"network-{task}-{kind}",
        task,
        SHAPE["side"],
        graph.SerializeToString(),
        {"images": pictures, **{name: value for name, value in answers.items() if name != "tokens"}},
        models.TOLERANCE,
        named,
        trunk,
    )
    described = msgspec.structs.replace(
        manifest.load(directory),
        labels=["background", *CLASSES] if task == "segment" else list(CLASSES),
        training={"network": asdict(network.trunk.config)},
    )
    manifest.write(directory, described)
    return directory
