"""Outlines of regions as rings of points, exact to the pixel.

The region is filled by the even-odd rule over all its rings, so holes need no mark: outer rings turn clockwise as
seen on the screen, holes the other way. Cells that touch at a corner only belong to different rings. A ring is
[x0, y0, x1, y1, ...] in pixels, not closed (the first point is not repeated); every second edge is horizontal.

An outline walks along cells with the region on its right hand. Where it turns is told by the four cells around a point,
and where it turns next by the next such point of the row or column; so only corners are ever looked at one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.tasks.grid import Grid

Numbers = NDArray[np.int64]

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
"""Rows and columns, by direction."""
# The cells around a point: 1 above and left of it, 2 above and right, 4 below and left, 8 below and right.
_FALLING, _RISING = 1 + 8, 2 + 4
"""Two cells that touch here only: two outlines pass."""
_AWAY = np.full(16, -1)
"""Where an outline goes from a point at which it turns, by the cells around; -1 where none turns. Of two outlines the
one in this direction, the other goes the opposite way."""
_AWAY[[1, 2, 4, 8, 7, 11, 13, 14]] = _WEST, _NORTH, _SOUTH, _EAST, _SOUTH, _WEST, _EAST, _NORTH
_AWAY[[_FALLING, _RISING]] = _EAST, _SOUTH


def rings(cells: NDArray[np.bool_], place: Grid) -> list[list[float]]:
    """The rings around set cells [h, w], in the order in which a scan by rows meets them."""
    rows, columns, ring = _walk(cells)
    points, ring = _tidied(np.stack([place.columns[columns], place.rows[rows]], axis=1), ring)
    begins, ends = _bounds(ring)
    values = points.astype(np.float64).ravel().tolist()
    pairs = zip(begins.tolist(), ends.tolist(), strict=True)
    return [values[2 * begin : 2 * end] for begin, end in pairs if end - begin >= 4]


def _walk(cells: NDArray[np.bool_]) -> tuple[Numbers, Numbers, Numbers]:
    """Row and column of every corner, ring after ring, and the number of its ring. A ring begins at the first of its
    points that a scan by rows meets; the last is the one just before, corner or not, since cells that cover no pixel
    may make either of the two the place where the displayed ring begins."""
    framed = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), np.uint8)
    framed[1:-1, 1:-1] = cells
    # An outline turns where an odd number of the cells around is set, or two that touch at this corner only.
    beside, below = framed[:, :-1] ^ framed[:, 1:], (framed[:-1] ^ framed[1:])[:, :-1]
    turns = (beside[:-1] ^ beside[1:]) | (beside[:-1] & beside[1:] & below)
    found = np.flatnonzero(turns.view(bool))
    y, x = np.divmod(found, turns.shape[1])
    kind = framed[y, x] | framed[y, x + 1] << 1 | framed[y + 1, x] << 2 | framed[y + 1, x + 1] << 3
    directions, following = _follow(y, x, kind)

    corners: list[int] = []
    lengths: list[int] = []
    last: list[int] = []
    ahead, seen = following.tolist(), bytearray(len(following))
    for begin in np.flatnonzero(directions[: len(found)] == _EAST).tolist():
        before, at = len(corners), begin
        while not seen[at]:
            seen[at] = 1
            corners.append(at)
            at = ahead[at]
        if len(corners) > before:
            lengths.append(len(corners) - before + 1)
            last.append(corners[-1])
            corners.append(begin)
    at_corner = np.concatenate([np.arange(len(found)), _doubles(kind)])[np.array(corners, np.int64)]
    rows, columns = y[at_corner], x[at_corner]
    ends = np.cumsum(lengths, dtype=np.int64) - 1
    rows[ends] -= _STEPS[directions[last], 0]
    columns[ends] -= _STEPS[directions[last], 1]
    return rows, columns, np.repeat(np.arange(len(lengths)), lengths)


def _follow(y: Numbers, x: Numbers, kind: NDArray[np.uint8]) -> tuple[Numbers, Numbers]:
    """For every outline at every corner, the corners in the order of a scan by rows: the direction in which it goes
    away, and which it is at its next corner. The second outlines of points where two pass come after all first ones."""
    count = len(kind)
    doubles = _doubles(kind)
    second = np.zeros(count, np.int64)
    second[doubles] = count + np.arange(len(doubles))
    first = _AWAY[kind]
    directions = np.concatenate([first, (first[doubles] + 2) % 4])
    corner = np.concatenate([np.arange(count), doubles])

    by_column = np.lexsort((y, x))
    rank = np.empty(count, np.int64)
    rank[by_column] = np.arange(count)
    step = np.where(directions < _WEST, 1, -1)
    vertical = directions % 2 == 1
    target = corner + step
    target[vertical] = by_column[(rank[corner] + step)[vertical]]
    # Outlines turn right where two meet, so that cells which touch there stay apart.
    met = kind[target]
    other = ((met == _FALLING) & (directions == _SOUTH)) | ((met == _RISING) & (directions == _WEST))
    return directions, np.where(other, second[target], target)


def _doubles(kind: NDArray[np.uint8]) -> Numbers:
    """The corners at which two outlines pass."""
    return np.flatnonzero((kind == _FALLING) | (kind == _RISING))


def _bounds(ring: Numbers) -> tuple[Numbers, Numbers]:
    """Where each ring begins, and where it has ended."""
    begins = np.flatnonzero(np.diff(ring, prepend=-1))
    return begins, np.append(begins[1:], len(ring)) if len(ring) else begins


def _tidied(points: Numbers, ring: Numbers) -> tuple[Numbers, Numbers]:
    """Rings without repeated points and points on a straight line; nothing is left of a ring without area."""
    size = -1
    while len(ring) != size:
        size = len(ring)
        before, _ = _neighbours(ring)
        kept = (points != points[before]).any(axis=1)
        points, ring = points[kept], ring[kept]
        before, after = _neighbours(ring)
        kept = ~((points[before] == points) & (points == points[after])).any(axis=1)
        points, ring = points[kept], ring[kept]
    return points, ring


def _neighbours(ring: Numbers) -> tuple[Numbers, Numbers]:
    """The points before and after each in its ring."""
    begins, ends = _bounds(ring)
    before, after = np.arange(-1, len(ring) - 1), np.arange(1, len(ring) + 1)
    before[begins], after[ends - 1] = ends - 1, begins
    return before, after
