"""Run-length encoding in COCO's form: runs along the columns, first of what is outside, then inside, in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.tasks.grid import Grid

Counts = NDArray[np.int64]


def runs(cells: NDArray[np.bool_], place: Grid) -> tuple[Counts, Counts]:
    """Where the runs of set cells [h, w] begin and end, counting the displayed image's pixels column by column.

    Runs that touch across the foot of one column and the head of the next are one.
    """
    height, width = cells.shape
    framed = np.zeros((width, height + 2), np.int8)
    framed[:, 1:-1] = cells.T
    steps = np.diff(framed, axis=1)
    column, first = np.nonzero(steps == 1)
    _, last = np.nonzero(steps == -1)
    top, bottom = place.rows[first], place.rows[last]
    visible = bottom > top
    column, top, bottom = column[visible], top[visible], bottom[visible]

    # Each displayed column repeats the runs of its cell: `per` runs in each, those of a cell one after another.
    widths = np.diff(place.columns)
    per = np.bincount(column, minlength=width)
    owner = np.repeat(np.arange(width), widths)
    pixels = np.arange(place.columns[0], place.columns[-1])
    amount = per[owner]
    start_of_owner = np.cumsum(per) - per
    within = np.arange(amount.sum()) - np.repeat(np.cumsum(amount) - amount, amount)
    source = np.repeat(start_of_owner[owner], amount) + within
    offset = np.repeat(pixels * place.height, amount)
    return _joined(offset + top[source], offset + bottom[source])


def _joined(begin: Counts, end: Counts) -> tuple[Counts, Counts]:
    if not len(begin):
        return begin, end
    apart = begin[1:] > end[:-1]
    return begin[np.concatenate([[True], apart])], end[np.concatenate([apart, [True]])]


def compress(begin: Counts, end: Counts, height: int, width: int) -> str:
    """The text that COCO tools read as `counts`, with `size` [height, width]."""
    edges = np.empty(2 * len(begin) + 1, np.int64)
    edges[0:-1:2], edges[1::2], edges[-1] = begin, end, height * width
    counts = np.diff(edges, prepend=0)
    if len(begin) and counts[-1] == 0:
        counts = counts[:-1]
    encoded = coco.frPyObjects({"counts": counts.tolist(), "size": [height, width]}, height, width)
    text: bytes = encoded["counts"]
    return text.decode("ascii")
