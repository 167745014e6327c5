"""Segmentation: a mask over the network's input to per-class regions of the displayed image.

Class 0 is the background and is never reported. Whatever the form of the answer, it describes the same pixels: those
of the mask brought to the displayed image by nearest neighbour, after its outlines were made finer where its cells are
large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.tasks import contours, png, runs
from service.tasks.agreement import Agreement, Outputs
from service.tasks.grid import Grid, grid, spread
from service.tasks.outline import refine
from service.tasks.runs import Strips
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options, Segment, Segmentation

OUTPUTS = ("mask",)
COARSE = 2.0
"""A cell of more displayed pixels than this, across or along, gets finer outlines."""


def result(outputs: Outputs, geometry: Geometry, options: Options) -> Segmentation:
    """One image's mask [h, w] of class indices to its regions, by rising index, in the form `options.mask`.

    Raises ValueError for a mask that holds no class indices.
    """
    mask, place = _placed(outputs, geometry)
    strips = runs.strips(mask)
    areas = runs.areas(strips, place)
    size = (geometry.height, geometry.width)
    if options.mask == "png":
        segments = [Segment(index, area) for index, area in areas.items()]
        return Segmentation(size, "png", segments, png=png.encode(spread(mask, place)))
    each = {index: strips.take(strips.label == index) for index in areas}
    if options.mask == "rle":
        segments = [Segment(index, area, rle=_lengths(each[index], place)) for index, area in areas.items()]
        return Segmentation(size, "rle", segments, rle=_lengths(strips, place))
    segments = [Segment(index, area, polygons=_outlines(mask, each[index], place)) for index, area in areas.items()]
    return Segmentation(size, options.mask, segments)


def results(outputs: Outputs, geometries: Sequence[Geometry], options: Sequence[Options]) -> list[Segmentation]:
    """A batch's masks [B, h, w] to one result per image."""
    return [
        result({"mask": outputs["mask"][i]}, geometry, option)
        for i, (geometry, option) in enumerate(zip(geometries, options, strict=True))
    ]


def highest(outputs: Outputs) -> int:
    """The highest class index in masks [B, h, w]."""
    return int(outputs["mask"].max(initial=0))


def pixels(outputs: Outputs, geometry: Geometry) -> NDArray[Any]:
    """One image's mask [h, w] as class indices of the displayed image's pixels [H, W]."""
    return spread(*_placed(outputs, geometry))


def _placed(outputs: Outputs, geometry: Geometry) -> tuple[NDArray[Any], Grid]:
    """The mask, with finer outlines where its cells are large, and where its cells lie."""
    mask = outputs["mask"]
    if mask.dtype not in (np.uint8, np.uint16) or mask.ndim != 2:
        raise ValueError("a mask is uint8 or uint16 [h, w]")
    x0, y0, x1, y1 = geometry.box
    if max((x1 - x0) / mask.shape[1], (y1 - y0) / mask.shape[0]) > COARSE:
        mask = refine(mask)
    return mask, grid(geometry, *mask.shape)


def _lengths(strips: Strips, place: Grid) -> str:
    """COCO run lengths of the displayed pixels of these strips."""
    return runs.compress(*runs.runs(strips, place), place.height, place.width)


def _outlines(mask: NDArray[Any], strips: Strips, place: Grid) -> list[list[float]]:
    """The rings around the cells of one class, whose strips these are."""
    # Only the part of the mask where there are some is looked at.
    top, bottom = int(strips.top.min()), int(strips.bottom.max())
    left, right = int(strips.column.min()), int(strips.column.max()) + 1
    part = Grid(place.rows[top : bottom + 1], place.columns[left : right + 1], place.height, place.width)
    return contours.rings(mask[top:bottom, left:right] == strips.label[0], part)


def agreement(reference: Outputs, outputs: Outputs) -> Agreement:
    """The share of equal pixels of masks [B, h, w]; a mask has no scores to differ."""
    if reference["mask"].shape != outputs["mask"].shape:
        raise ValueError("masks differ in shape")
    return Agreement(float((reference["mask"] == outputs["mask"]).mean()), 0.0)
