"""Where the cells of a mask lie in the displayed image.

A mask of h x w cells covers the network's input; a displayed pixel belongs to the cell that its centre lies in
(nearest neighbour). All that follows from it is two short arrays of edges, so a mask is never blown up to the size of
the image unless somebody wants the pixels themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.wire.messages.decoder import Geometry

Edges = NDArray[np.int64]


class Grid(NamedTuple):
    """Cell i of a row covers displayed columns `columns[i]` up to, not including, `columns[i + 1]`; rows likewise.

    Both rise, start at 0 or later and end at the image's size or earlier; a cell may be empty.
    """

    rows: Edges
    columns: Edges
    height: int
    width: int


def grid(geometry: Geometry, height: int, width: int) -> Grid:
    """The grid of a mask of `height` x `width` cells."""
    x0, y0, x1, y1 = geometry.box
    return Grid(
        _edges(y0, y1, height, geometry.height), _edges(x0, x1, width, geometry.width), geometry.height, geometry.width
    )


def _edges(low: float, high: float, cells: int, size: int) -> Edges:
    """First pixel whose centre is at or beyond each of the `cells` + 1 boundaries between `low` and `high`."""
    boundaries = low + np.arange(cells + 1) * ((high - low) / cells)
    # A boundary that is a pixel's centre but for rounding would otherwise fall to either side by chance.
    first = np.ceil(np.round(boundaries - 0.5, 9))
    return np.clip(first, 0, size).astype(np.int64)


def spread(mask: NDArray[np.integer], place: Grid) -> NDArray[np.integer]:
    """The mask [h, w] as pixels of the displayed image [H, W]; what no cell covers is 0."""
    rows = _owners(place.rows, place.height, mask.shape[0])
    columns = _owners(place.columns, place.width, mask.shape[1])
    framed = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), mask.dtype)
    framed[:-1, :-1] = mask
    return framed.take(columns, axis=1).take(rows, axis=0)


def _owners(edges: Edges, size: int, cells: int) -> Edges:
    """The cell of each of `size` pixels; `cells` where there is none."""
    owners = np.full(size, cells, np.int64)
    owners[edges[0] : edges[-1]] = np.repeat(np.arange(cells), np.diff(edges))
    return owners
