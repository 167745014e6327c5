"""A mask as runs down its columns, all classes in one pass; and run-length encoding in COCO's form: runs along the
columns, first of what is outside, then inside, in turn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.tasks.grid import Grid

Counts = NDArray[np.int64]


class Strips(NamedTuple):
    """Runs of cells of one class, column by column: cells `top` up to, not including, `bottom` of `column`."""

    label: NDArray[np.integer]
    column: Counts
    top: Counts
    bottom: Counts

    def take(self, which: Any) -> Strips:
        """Some of them, by a mask or by numbers."""
        return Strips(*(values[which] for values in self))


def strips(mask: NDArray[np.integer]) -> Strips:
    """The runs of a mask [h, w] of class indices that are not 0."""
    width, height = mask.shape[1], mask.shape[0]
    columns = np.ascontiguousarray(mask.T)
    begins = np.empty(columns.shape, bool)
    begins[:, 0] = True
    np.not_equal(columns[:, 1:], columns[:, :-1], out=begins[:, 1:])
    begin = np.flatnonzero(begins)
    end = np.append(begin[1:], width * height)
    label = columns.ravel()[begin]
    column = begin // height
    return Strips(label, column, begin - column * height, end - column * height).take(label != 0)


def areas(found: Strips, place: Grid) -> dict[int, int]:
    """Displayed pixels of each class that has some, by rising index."""
    pixels = (place.rows[found.bottom] - place.rows[found.top]) * np.diff(place.columns)[found.column]
    counted = np.bincount(found.label, weights=pixels)
    return {index: int(counted[index]) for index in np.flatnonzero(counted).tolist()}


def runs(found: Strips, place: Grid) -> tuple[Counts, Counts]:
    """Where the runs of these strips begin and end, counting the displayed image's pixels column by column.

    Runs that touch, in a column or across the foot of one and the head of the next, are one.
    """
    top, bottom = place.rows[found.top], place.rows[found.bottom]
    visible = bottom > top
    column, top, bottom = found.column[visible], top[visible], bottom[visible]

    # Each displayed column repeats the runs of its cell: `per` runs in each, those of a cell one after another.
    widths = np.diff(place.columns)
    per = np.bincount(column, minlength=len(widths))
    owner = np.repeat(np.arange(len(widths)), widths)
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
