"""Which tokens of an image were merged with which, as a client is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Transform
from service.wire.messages.results import TokenMap

OUTPUT = "tokens"


def token_map(groups: NDArray[Any], transform: Transform) -> TokenMap:
    """One image's groups [N], the group of each patch row by row, as a TokenMap.

    Groups count from 0 and none is empty. Raises ValueError for what is no such map of square patches.
    """
    grid = _grid(len(groups), transform)
    if groups.min() < 0 or groups.max() >= len(groups):
        raise ValueError("a patch is in no group there can be")
    sizes = np.bincount(groups)
    if not sizes.all():
        raise ValueError("a group is empty")
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(begins, append=len(groups))
    runs = list(zip(groups[begins].tolist(), lengths.tolist(), strict=True))
    return TokenMap(grid, runs, sizes.tolist())


def _grid(patches: int, transform: Transform) -> tuple[int, int]:
    """Rows and columns of square patches that cover the network's input."""
    side = math.sqrt(transform.height * transform.width / max(patches, 1))
    rows, columns = round(transform.height / side), round(transform.width / side)
    if rows * columns != patches:
        raise ValueError(f"{patches} patches are no grid over {transform.height} x {transform.width} pixels")
    return rows, columns
