"""The network that a model directory was exported from, as PyTorch has it, with the weights in its graph.

There is one copy of the weights, the graph's; what the graph computes is not read.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch

from models.backbones.vit import VitConfig
from models.graph.weights import fill
from models.manifest import Manifest
from models.network import Network
from models.served import Levelled, Served
from models.toyscape import CLASSES


class RestoreError(Exception):
    """A model is not known as a PyTorch network; the message is one line."""


def restored(described: Manifest, graph: bytes) -> Served:
    """The folded network with the weights in the model's graph, verified bytes. Raises RestoreError."""
    config: dict[str, Any] | None = described.training.get("network")
    if config is None:
        raise RestoreError(f"{described.name}: its manifest does not say which network it is")
    network = Network(VitConfig.recorded(config), len(CLASSES), (described.task,))
    levelled = Levelled(Served(network, described.task, described.trunk.shares if described.trunk else ()))
    try:
        filled = fill(levelled, onnx.load_from_string(graph))
    except ValueError as error:
        raise RestoreError(f"{described.name}: {error}") from None
    missing = set(levelled.unnamed(filled))
    if missing:
        missing -= {f"served.{name}" for name in idle(levelled.served)}
    if missing:
        raise RestoreError(f"{described.name}: its graph has no weight {min(missing)!r}")
    levelled.join()
    return levelled.served


def idle(served: Served) -> set[str]:
    """The parameters that a classifier's answer does not depend on, which the exporter leaves out: LookupViT's last
    block also writes lookup tokens, and nobody reads them."""
    if served.task != "classify":
        return set()
    names, parameters = zip(*served.named_parameters(), strict=True)
    side = served.trunk.config.side
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        logits = served(torch.zeros(1, side, side, 3, dtype=torch.uint8))[0]
        found = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    served.requires_grad_(False)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is None}
