"""Outlines of regions as rings of points, exact to the pixel.

The region is filled by the even-odd rule over all its rings, so holes need no mark: outer rings turn clockwise as
seen on the screen, holes the other way. Cells that touch at a corner only belong to different rings. A ring is
[x0, y0, x1, y1, ...] in pixels, not closed (the first point is not repeated); every second edge is horizontal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.tasks.grid import Grid

Point = tuple[int, int]


def rings(cells: NDArray[np.bool_], place: Grid) -> list[list[float]]:
    """The rings around set cells [h, w], in the order in which a scan by rows meets them."""
    found = []
    for ring in _trace(_edges(cells)):
        placed = [(int(place.columns[x]), int(place.rows[y])) for x, y in ring]
        corners = _corners(placed)
        if len(corners) >= 4:
            found.append([float(value) for corner in corners for value in corner])
    return found


def _edges(cells: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Unit edges between set and unset cells, by their first point, with the set cell on their right hand."""
    framed = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), np.int8)
    framed[1:-1, 1:-1] = cells
    across = framed[1:, 1:-1] - framed[:-1, 1:-1]
    down = framed[1:-1, 1:] - framed[1:-1, :-1]
    edges: dict[Point, list[Point]] = {}
    # A top edge runs right, a right edge down, a bottom edge left, a left edge up.
    for y, x in np.argwhere(across == 1).tolist():
        edges.setdefault((x, y), []).append((x + 1, y))
    for y, x in np.argwhere(across == -1).tolist():
        edges.setdefault((x + 1, y), []).append((x, y))
    for y, x in np.argwhere(down == -1).tolist():
        edges.setdefault((x, y), []).append((x, y + 1))
    for y, x in np.argwhere(down == 1).tolist():
        edges.setdefault((x, y + 1), []).append((x, y))
    return edges


def _trace(edges: dict[Point, list[Point]]) -> list[list[Point]]:
    """Rings of corner points; takes the edges apart."""
    found = []
    for start in list(edges):
        while edges.get(start):
            ring = [start]
            here = edges[start].pop(0)
            while here != start:
                ahead = edges[here]
                ring.append(here)
                here = ahead.pop(_right_turn(ring[-2], here, ahead) if len(ahead) > 1 else 0)
            found.append(ring)
    return found


def _right_turn(before: Point, here: Point, ahead: list[Point]) -> int:
    """Which of two ways turns right (clockwise): there the two cells that touch at this corner stay apart."""
    step = (here[0] - before[0], here[1] - before[1])
    right = (here[0] - step[1], here[1] + step[0])
    return ahead.index(right)


def _corners(ring: list[Point]) -> list[Point]:
    """The ring without repeated points and points on a straight line; nothing is left of a ring without area."""
    kept: list[Point] = []
    while kept != ring:
        kept = ring
        apart = [point for i, point in enumerate(kept) if point != kept[i - 1]]
        ring = [b for i, b in enumerate(apart) if not _straight(apart[i - 1], b, apart[(i + 1) % len(apart)])]
    return ring


def _straight(a: Point, b: Point, c: Point) -> bool:
    return (a[0] == b[0] == c[0]) or (a[1] == b[1] == c[1])
