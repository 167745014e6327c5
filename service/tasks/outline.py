"""Finer outlines for a coarse mask.

A mask cell covers several displayed pixels, and its edges show as stairs. Here every cell on an outline is cut into
FINE x FINE parts, and each part takes the class that weighs most among the four cells around it, by bilinear weights:
corners are cut, slopes become slopes, and a line of one cell's width stays. Inside a region nothing changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FINE = 4

# A part lies 1/8 or 3/8 of a cell from the cell's centre, towards one of its corners. Per part of a quadrant, nearest
# to the centre first: the weights of the cell itself, of its neighbours across and along, and of the diagonal one.
_WEIGHTS = np.array(
    [[(1 - y) * (1 - x), y * (1 - x), (1 - y) * x, y * x] for y in (0.125, 0.375) for x in (0.125, 0.375)], np.float32
).T


def refine(mask: NDArray[np.integer]) -> NDArray[np.integer]:
    """A mask [h, w] of class indices as one of [FINE h, FINE w] with finer outlines."""
    framed = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    parts = np.empty((height, FINE, width, FINE), mask.dtype)
    parts[:] = mask[:, None, :, None]
    fine = parts.reshape(FINE * height, FINE * width)
    y, x = np.nonzero(_on_outline(framed))
    own = mask[y, x]
    for down in (-1, 1):
        for right in (-1, 1):
            across, along = framed[y + 1 + down, x + 1], framed[y + 1, x + 1 + right]
            around = np.stack([own, across, along, framed[y + 1 + down, x + 1 + right]], axis=1)
            same = (around[:, :, None] == around[:, None, :]).astype(np.float32)
            # One product of matrices for all cells: many small ones take several times as long.
            best = (same.reshape(-1, 4) @ _WEIGHTS).reshape(-1, 4, 4).argmax(axis=1)
            chosen = np.take_along_axis(around, best, axis=1)
            for part, (far_y, far_x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                fine[FINE * y + _place(down, far_y), FINE * x + _place(right, far_x)] = chosen[:, part]
    return fine


def _place(side: int, far: int) -> int:
    """Row or column of a part inside its cell: the two before the centre count backwards."""
    return 2 + far if side > 0 else 1 - far


def _on_outline(framed: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Cells with a neighbour of another class, of a mask framed by one cell."""
    low = np.minimum(np.minimum(framed[:-2], framed[1:-1]), framed[2:])
    high = np.maximum(np.maximum(framed[:-2], framed[1:-1]), framed[2:])
    low = np.minimum(np.minimum(low[:, :-2], low[:, 1:-1]), low[:, 2:])
    high = np.maximum(np.maximum(high[:, :-2], high[:, 1:-1]), high[:, 2:])
    differ: NDArray[np.bool_] = low != high
    return differ
