"""PyTorch's own answers for a model, with the weights in its graph: what the graph is verified with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models import manifest
from models.export import numpy_outputs
from models.levels import FULL, Plan, plan
from models.manifest import Manifest
from models.restored import RestoreError, restored

Oracle = Callable[[NDArray[np.uint8], str], dict[str, NDArray[Any]]]
BATCH = 8


class OracleError(Exception):
    """PyTorch cannot be asked about this model; the message is one line."""


def oracle(directory: Path, described: Manifest) -> Oracle:
    """The network that a model was exported from. Raises OracleError."""
    try:
        served = restored(described, manifest.read_file(directory, described, described.graph))
    except RestoreError as error:
        raise OracleError(str(error)) from None

    def ask(images: NDArray[np.uint8], level: str) -> dict[str, NDArray[Any]]:
        found = plan(level, described.trunk) if described.trunk else Plan(FULL, {}, 0, 0.0)
        parts = [
            numpy_outputs(served.at(torch.from_numpy(images[start : start + BATCH]), found))
            for start in range(0, len(images), BATCH)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return ask
