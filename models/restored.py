"""The network that a model directory was exported from, as PyTorch has it, with the weights in its graph.

There is one copy of the weights, the graph's; what the graph computes is not read.
"""

from __future__ import annotations

import onnx
import torch
from torch import nn

from models.backbones.vit import VitConfig
from models.graph.weights import fill, idle
from models.manifest import Manifest
from models.network import Network
from models.served import Levelled, Served
from models.sources.artefact import SourceError
from models.toyscape import CLASSES


class RestoreError(Exception):
    """A model is not known as a PyTorch network; the message is one line."""


def restored(described: Manifest, graph: bytes) -> nn.Module:
    """The network with the weights in the model's graph, verified bytes: one of ours, or of timm. Raises RestoreError.

    It is called with uint8 images [B, H, W, 3] and `arguments` of a level, answers `outputs`, and has `at`.
    """
    source = str(described.training.get("source", ""))
    try:
        if "network" in described.training:
            return _ours(described, graph)
        if source.startswith("timm/") and "built" in described.training:
            from models.sources.timm_graph import rebuilt

            transform = described.transform
            images = torch.zeros(1, transform.height, transform.width, 3, dtype=torch.uint8)
            return rebuilt(source.removeprefix("timm/"), described.training["built"], graph, images)
    except (ValueError, SourceError) as error:
        raise RestoreError(f"{described.name}: {error}") from None
    raise RestoreError(f"{described.name}: its manifest does not say which network it is")


def _ours(described: Manifest, graph: bytes) -> Served:
    """A network of `models.network`, folded."""
    config = VitConfig.recorded(described.training["network"])
    network = Network(config, len(CLASSES), (described.task,))
    levelled = Levelled(Served(network, described.task, described.trunk.shares if described.trunk else ()))
    filled = fill(levelled, onnx.load_from_string(graph))
    missing = set(levelled.unnamed(filled))
    if missing and described.task == "classify":  # LookupViT's last block also writes lookup tokens; nobody reads them
        images = torch.zeros(1, config.side, config.side, 3, dtype=torch.uint8)
        missing -= {f"served.{name}" for name in idle(levelled.served, images)}
    if missing:
        raise ValueError(f"its graph has no weight {min(missing)!r}")
    levelled.join()
    return levelled.served
