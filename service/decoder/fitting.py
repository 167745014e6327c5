"""Geometry: which part of an image becomes the network's input. Pure arithmetic on sizes."""

from __future__ import annotations

from typing import NamedTuple

from service.wire.messages.decoder import Fitting, Geometry

Box = tuple[float, float, float, float]


class Placing(NamedTuple):
    """`source` (x0, y0, x1, y1 in pixels of the displayed image, inside it) is resampled onto `target` (x0, y0, x1,
    y1 in whole pixels of the network's input); what of the input lies outside `target` is filled."""

    source: Box
    target: tuple[int, int, int, int]
    geometry: Geometry


def place(width: int, height: int, fitting: Fitting) -> Placing:
    """Place a displayed image of `width` x `height` pixels.

    crop: the short side fits, the middle is kept. stretch: the whole image, its aspect lost. Of both, the middle
    `keep` of each side. letterbox: the whole image, its aspect kept to whole pixels, centred on the fill.
    """
    across, down = float(width), float(height)
    target = (0, 0, fitting.width, fitting.height)
    if fitting.fit == "crop":
        across = min(across, height * fitting.width / fitting.height)
        down = min(down, width * fitting.height / fitting.width)
    if fitting.fit != "letterbox":
        across, down = across * fitting.keep, down * fitting.keep
    left, top = (width - across) / 2, (height - down) / 2
    box = source = (left, top, left + across, top + down)
    if fitting.fit == "letterbox":
        scale = min(fitting.width / width, fitting.height / height)
        columns = min(fitting.width, max(1, int(width * scale + 0.5)))
        rows = min(fitting.height, max(1, int(height * scale + 0.5)))
        column, row = (fitting.width - columns) // 2, (fitting.height - rows) // 2
        target = (column, row, column + columns, row + rows)
        x, y = width / columns, height / rows
        box = (-column * x, -row * y, (fitting.width - column) * x, (fitting.height - row) * y)
    return Placing(source, target, Geometry(width=width, height=height, box=box))
