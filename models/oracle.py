"""PyTorch's own answers for a model that was exported: what its graph is verified with, where torch is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.checkpoint import read_metadata
from models.export import load_network, numpy_outputs
from models.levels import FULL, Plan, plan
from models.manifest import Manifest
from models.served import Served

Oracle = Callable[[NDArray[np.uint8], str], dict[str, NDArray[Any]]]
BATCH = 8


class OracleError(Exception):
    """PyTorch cannot be asked about this model; the message is one line."""


def trained_weights(described: Manifest, runs: Path) -> Path | None:
    """The weights that a toyscape model was exported from, if `runs` still holds them."""
    for path in sorted(runs.glob("*/best.safetensors")):
        if json.loads(read_metadata(path)["record"]) == _record(described):
            return path
    return None


def _record(described: Manifest) -> dict[str, Any]:
    return {name: value for name, value in described.training.items() if name != "network"}


def oracle(described: Manifest, weights: Path) -> Oracle:
    """The network of a toyscape model with the weights it was exported from. Raises OracleError."""
    if "network" not in described.training:
        raise OracleError(f"{described.name}: its manifest does not say which network it is")
    network, record = load_network(weights, described.task)
    if record != _record(described):
        raise OracleError(f"{weights}: not the weights that {described.name} was exported from")
    served = Served(network, described.task, described.trunk.shares if described.trunk else ())

    def ask(images: NDArray[np.uint8], level: str) -> dict[str, NDArray[Any]]:
        found = plan(level, described.trunk) if described.trunk else Plan(FULL, {}, 0, 0.0)
        parts = [
            numpy_outputs(served.at(torch.from_numpy(images[start : start + BATCH]), found))
            for start in range(0, len(images), BATCH)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return ask
