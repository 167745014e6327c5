"""Reference answers at levels: which levels every model is verified at, and how its directory keeps the answers.

The tensors of `reference.safetensors` are `images`, each output at `full` under its own name, and for the first few
images the outputs at other levels, as "LEVEL OUTPUT". Where PyTorch is at hand, it is asked itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from models import manifest
from models.levels import FULL, LevelError, Trunk, plan
from models.manifest import Manifest

KEPT = 4
"""Images whose answers at levels are kept."""
THIN = 4
"""Of a kept mask, every so many pixels in both directions."""
_LEFT_OUT = ("embedding",)

Outputs = dict[str, NDArray[Any]]


def standard_levels(trunk: Trunk | None) -> tuple[str, ...]:
    """The explicit levels that a model is verified at, `full` first.

    Few and many tokens, odd counts and even, more than there are, falling and rising schedules, blocks alone; each
    width, alone and with merging; every compressed grid; and all that may become a named level.
    """
    if trunk is None:
        return (FULL,)
    if trunk.grid:
        sides = range(trunk.grid[0], trunk.grid[1] + 1)
        return (FULL, *(f"lookup:{rows}x{columns}" for rows, columns in product(sides, sides)))
    merges: list[str] = []
    if trunk.merge:
        merges = [f"tome:{count}" for count in (1, 7, 8, 13, 16, trunk.patches // 2, trunk.patches)]
        merges += ["tome:16,-1", "tome:9,0.5", f"tome:0/{trunk.patches // 3 | 1}"]
    widths = [f"width:{share}" for share in trunk.shares]
    both = [f"{merge}+{width}" for merge, width in product(("tome:8", "tome:13", "tome:16,-1"), widths) if merges]
    possible = (level for level in (*merges, *widths, *both) if _possible(level, trunk))
    return tuple(dict.fromkeys((FULL, *possible, *candidate_levels(trunk))))


def candidate_levels(trunk: Trunk) -> tuple[str, ...]:
    """The explicit levels that named ones are chosen from, by time and accuracy.

    Runtimes are quickest with rows in multiples of 32, and keep code for every number of tokens they meet; so most
    candidates merge to the same few such numbers, and differ in the blocks where they do.
    """
    if trunk.grid:
        return tuple(f"lookup:{side}x{side}" for side in range(trunk.grid[0], trunk.grid[1] + 1))
    merges: list[str] = []
    if trunk.merge:
        merges = [f"tome:{count}{slope}" for slope, count in product(("", ",-1"), (4, 8, 13, 16))]
        merges += [_schedule(steps) for steps in _ladders(trunk)]
    widths = [f"width:{share}" for share in trunk.shares]
    both = [f"{merge}+{width}" for width in widths for merge in ("tome:8", *map(_schedule, _ladders(trunk))) if merges]
    found = {plan(level, trunk).level: None for level in (*merges, *widths, *both) if _possible(level, trunk)}
    return tuple(level for level in found if level != FULL)


def _ladders(trunk: Trunk) -> list[dict[int, int]]:
    """Merges of many tokens in the first block, in the third, or in both: block -> count. Always in these two, as
    every block in which one of the named levels merges costs the others memory."""
    tokens = trunk.prefix + trunk.patches
    found: list[dict[int, int]] = []
    for share, again in ((0.82, (0.8, 0.6)), (0.66, (0.8, 0.6)), (0.5, (0.8,))):
        first = _step(tokens, share, trunk.prefix)
        found += [{0: first}, {2: first}]
        found += [{0: first, 2: _step(tokens - first, left, trunk.prefix)} for left in again]
    return found if trunk.blocks > 3 else []


def _step(tokens: int, share: float, prefix: int) -> int:
    """How many to merge so that a multiple of 32 is left, about this share, or as many as can be merged at once."""
    return min(tokens - int(tokens * share) // 32 * 32, (tokens - prefix) // 2)


def _schedule(steps: dict[int, int]) -> str:
    return "tome:" + "/".join(str(steps.get(block, 0)) for block in range(max(*steps, 1) + 1))


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


def read_reference(directory: Path, described: Manifest) -> Outputs:
    """All tensors of a model's reference file. Raises ManifestError."""
    return dict(load(manifest.read_file(directory, described, described.reference)))
