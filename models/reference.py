"""Reference answers at levels: which levels every model is verified at, and how its directory keeps the answers.

The tensors of `reference.safetensors` are `images`, each output at `full` under its own name, and for the first few
images the outputs at other levels, as "LEVEL OUTPUT". Where PyTorch is at hand, it is asked itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.levels import FULL, LevelError, Trunk, plan

KEPT = 4
"""Images whose answers at levels are kept."""
THIN = 4
"""Of a kept mask, every so many pixels in both directions."""
_LEFT_OUT = ("embedding",)
_COUNTS = (1, 7, 8, 13, 16)

Outputs = dict[str, NDArray[Any]]


def standard_levels(trunk: Trunk | None) -> tuple[str, ...]:
    """The explicit levels that a model is verified at besides its named ones, `full` first.

    Few and many tokens, odd counts and even, more than there are, falling schedules, a few blocks alone; each width,
    alone and with merging; every compressed grid.
    """
    if trunk is None:
        return (FULL,)
    if trunk.grid:
        sides = range(trunk.grid[0], trunk.grid[1] + 1)
        return (FULL, *(f"lookup:{rows}x{columns}" for rows, columns in product(sides, sides)))
    merges = []
    if trunk.merge:
        half, third = trunk.patches // 2, trunk.patches // 3
        merges = [f"tome:{count}" for count in (*_COUNTS, half, trunk.patches)]
        merges += ["tome:16,-1", "tome:9,0.5", f"tome:{third}/0/{third // 2 + 1}", f"tome:0/{third | 1}"]
    widths = [f"width:{share}" for share in trunk.shares]
    both = [f"{merge}+{width}" for merge, width in product(("tome:8", "tome:13", "tome:16,-1"), widths) if merges]
    return (FULL, *(level for level in (*merges, *widths, *both) if _possible(level, trunk)))


def _possible(level: str, trunk: Trunk) -> bool:
    try:
        plan(level, trunk)
    except LevelError:
        return False
    return True


def kept_answers(level: str, outputs: Mapping[str, NDArray[Any]]) -> Outputs:
    """Outputs at a level as they are kept: by "LEVEL OUTPUT", masks thinned, groups as int16."""
    return {f"{level} {name}": _small(name, value) for name, value in outputs.items() if name not in _LEFT_OUT}


def _small(name: str, value: NDArray[Any]) -> NDArray[Any]:
    if name == "mask":
        return np.ascontiguousarray(value[:, ::THIN, ::THIN])
    return value.astype(np.int16) if name == "tokens" and value.shape[1] <= np.iinfo(np.int16).max else value


def answers_kept(reference: Mapping[str, NDArray[Any]], level: str) -> Outputs:
    """The outputs that are kept for a level, empty if there are none."""
    begin = f"{level} "
    return {name.removeprefix(begin): value for name, value in reference.items() if name.startswith(begin)}
