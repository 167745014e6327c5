"""PyTorch's own answers for a toyscape model, with the weights in its graph: what the graph is verified with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from models import manifest
from models.backbones.vit import VitConfig
from models.export import numpy_outputs
from models.graph.weights import fill
from models.levels import FULL, Plan, plan
from models.manifest import Manifest
from models.network import Network
from models.served import Levelled, Served
from models.toyscape import CLASSES

Oracle = Callable[[NDArray[np.uint8], str], dict[str, NDArray[Any]]]
BATCH = 8


class OracleError(Exception):
    """PyTorch cannot be asked about this model; the message is one line."""


def oracle(directory: Path, described: Manifest) -> Oracle:
    """The network that a toyscape model was exported from. Raises OracleError."""
    served = served_network(directory, described)

    def ask(images: NDArray[np.uint8], level: str) -> dict[str, NDArray[Any]]:
        found = plan(level, described.trunk) if described.trunk else Plan(FULL, {}, 0, 0.0)
        parts = [
            numpy_outputs(served.at(torch.from_numpy(images[start : start + BATCH]), found))
            for start in range(0, len(images), BATCH)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return ask


def served_network(directory: Path, described: Manifest) -> Served:
    """The folded network with the weights in the model's graph. Raises OracleError."""
    config: dict[str, Any] | None = described.training.get("network")
    if config is None:
        raise OracleError(f"{described.name}: its manifest does not say which network it is")
    network = Network(VitConfig.recorded(config), len(CLASSES), (described.task,))
    levelled = Levelled(Served(network, described.task, described.trunk.shares if described.trunk else ()))
    try:
        filled = fill(levelled, onnx.load_from_string(manifest.read_file(directory, described, described.graph)))
    except ValueError as error:
        raise OracleError(f"{described.name}: {error}") from None
    missing = set(levelled.unnamed(filled))
    if missing:
        missing -= {f"served.{name}" for name in idle(levelled.served)}
    if missing:
        raise OracleError(f"{described.name}: its graph has no weight {min(missing)!r}")
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
