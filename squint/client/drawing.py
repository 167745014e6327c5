"""Results drawn over their images: boxes with labels, classes in colours, merged patches.

Sizes follow the image, so that a drawing reads alike at any size. Colours belong to class indices: the same class has
the same colour in every drawing.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from squint.client.images import ImageLike, picture

if TYPE_CHECKING:
    from squint.client.results import Answer, Classification, Detections, Segmentation

Colour = tuple[int, int, int]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_GOLDEN = 0.618034
"""Hues a golden section apart: any few classes in a row are well told apart."""
_INK, _PAPER, _GROUND = (24, 24, 27), (255, 255, 255), (63, 63, 70)
_PANEL_OPACITY = 205
_MASK_OPACITY = 0.5
_MERGED_OPACITY = 0.85
_LISTED = 5
"""Classes that are written out; more would hide the image."""


def classification(answer: Classification, image: ImageLike, tokens: bool) -> Image.Image:
    """The classes as bars in the upper left corner."""
    drawing = _begun(answer, image, tokens)
    rows = [(found.label, f"{found.score:.2f}", colour(found.index), found.score) for found in answer.predictions]
    return _panel(drawing, rows[:_LISTED])


def detections(answer: Detections, image: ImageLike, tokens: bool) -> Image.Image:
    """Boxes, the best on top, each with its label and score."""
    drawing = _begun(answer, image, tokens)
    canvas = ImageDraw.Draw(drawing)
    font, line = _font(drawing), _line(drawing)
    for found in reversed(answer.predictions):
        x0, y0, x1, y1 = found.box
        ink = colour(found.index)
        canvas.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=ink, width=line)
        _tag(canvas, drawing.width, f"{found.label} {found.score:.2f}", (x0, y0), ink, font, line)
    return drawing


def segmentation(answer: Segmentation, image: ImageLike, tokens: bool) -> Image.Image:
    """Every class in its colour, with an outline, and a list of the largest."""
    drawing = _begun(answer, image, tokens)
    if (drawing.height, drawing.width) != answer.size:
        height, width = answer.size
        raise ValueError(
            f"the answer is for an image of {width} x {height} pixels, not {drawing.width} x {drawing.height}"
        )
    classes = answer.array()
    pixels = np.asarray(drawing).astype(np.float32)
    inside = classes > 0
    table = np.array([colour(index) for index in range(int(classes.max(initial=0)) + 1)], np.float32)
    inks = table[classes]
    pixels[inside] += (inks[inside] - pixels[inside]) * _MASK_OPACITY
    edge = _edges(classes, max(1, _line(drawing) // 2)) & inside
    pixels[edge] = inks[edge]
    drawing = Image.fromarray(pixels.round().astype(np.uint8))
    total = drawing.width * drawing.height
    largest = sorted(answer.segments, key=lambda segment: -segment.area)[:_LISTED]
    return _panel(
        drawing,
        [(one.label, f"{100 * one.area / total:.1f} %", colour(one.index), one.area / total) for one in largest],
    )


def merged(answer: Answer, image: Image.Image) -> Image.Image:
    """What the model saw of the image: patches that were merged in their mean colour, groups outlined."""
    told = answer.explain.tokens if answer.explain else None
    if told is None:
        return image
    groups = told.array()
    rows, columns = groups.shape
    x0, y0, x1, y1 = told.box or (0.0, 0.0, float(image.width), float(image.height))
    # The patch of every pixel; those beyond the grid are in none.
    across = np.floor((np.arange(image.width) + 0.5 - x0) * columns / (x1 - x0)).astype(np.int64)
    down = np.floor((np.arange(image.height) + 0.5 - y0) * rows / (y1 - y0)).astype(np.int64)
    seen = ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))[None, :]
    group = groups[np.clip(down, 0, rows - 1)[:, None], np.clip(across, 0, columns - 1)[None, :]]
    pixels = np.asarray(image).astype(np.float32)
    count = np.bincount(group[seen], minlength=len(told.sizes)).clip(1)
    means = np.stack(
        [np.bincount(group[seen], pixels[..., channel][seen], len(told.sizes)) / count for channel in range(3)], axis=1
    )
    joined = seen & (np.array(told.sizes)[group] > 1)
    pixels[joined] += (means[group[joined]] - pixels[joined]) * _MERGED_OPACITY
    edge = _edges(np.where(seen, group, -1), max(1, _line(image) // 2)) & joined
    pixels[edge] = pixels[edge] * 0.4 + 153
    return Image.fromarray(pixels.round().astype(np.uint8))


def colour(index: int) -> Colour:
    """The colour of a class."""
    hue = (0.02 + index * _GOLDEN) % 1
    # Blues look darker than they count, yellows lighter.
    red, green, blue = colorsys.hls_to_rgb(hue, 0.56 if 0.55 < hue < 0.8 else 0.48, 0.78)
    return (round(255 * red), round(255 * green), round(255 * blue))


def _begun(answer: Answer, image: ImageLike, tokens: bool) -> Image.Image:
    drawing = picture(image)
    return merged(answer, drawing) if tokens else drawing


def _edges(labels: NDArray[np.integer], reach: int) -> NDArray[np.bool_]:
    """Pixels with another label within `reach` pixels to the right, left, below or above."""
    edge = np.zeros(labels.shape, np.bool_)
    for step in range(1, reach + 1):
        across = labels[:, step:] != labels[:, :-step]
        down = labels[step:] != labels[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return edge


def _line(image: Image.Image) -> int:
    """The width of lines."""
    return max(2, round(math.sqrt(image.width * image.height) / 200))


def _font(image: Image.Image) -> Font:
    return ImageFont.load_default(max(11, round(math.sqrt(image.width * image.height) / 32)))


def _tag(
    canvas: ImageDraw.ImageDraw,
    across: int,
    text: str,
    corner: tuple[float, float],
    ink: Colour,
    font: Font,
    line: int,
) -> None:
    """A label on the upper edge of a box; below the edge where there is no room above, and never out of the image, of
    which `across` is the width."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 4 * line, bottom - top + 3 * line
    x = max(0.0, min(corner[0], across - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    canvas.rectangle((x, y, x + width, y + height), fill=ink)
    canvas.text((x + 2 * line - left, y + 1.5 * line - top), text, fill=_readable(ink), font=font)


def _panel(drawing: Image.Image, rows: Iterable[tuple[str, str, Colour, float]]) -> Image.Image:
    """A list on a dark panel: label, figure, and a bar of that share."""
    listed = list(rows)
    if not listed:
        return drawing
    font, line = _font(drawing), _line(drawing)
    layer = Image.new("RGBA", drawing.size)
    canvas = ImageDraw.Draw(layer)
    boxes = [canvas.textbbox((0, 0), text, font=font) for label, figure, _, _ in listed for text in (label, figure)]
    labels = max(box[2] for box in boxes[0::2])
    figures = max(box[2] for box in boxes[1::2])
    size = round(max(box[3] for box in boxes))
    gap, bar, step = round(size * 0.7), round(size * 3.2), round(size * 1.5)
    width = gap + bar + gap + labels + gap + figures + gap
    height = gap // 2 + step * len(listed) + gap // 2
    canvas.rounded_rectangle((gap, gap, gap + width, gap + height), radius=2 * line, fill=(*_INK, _PANEL_OPACITY))
    for position, (label, figure, ink, share) in enumerate(listed):
        y = gap + gap // 2 + step * position + (step - size) // 2
        x = 2 * gap
        # The layer is laid over the image as a whole, so a bar's ground has the panel's opacity.
        canvas.rounded_rectangle((x, y, x + bar, y + size), radius=line, fill=(*_GROUND, _PANEL_OPACITY))
        reach = round(bar * min(1.0, share))
        if reach:
            canvas.rounded_rectangle((x, y, x + reach, y + size), radius=min(line, reach // 2), fill=(*ink, 255))
        canvas.text((x + bar + gap, y), label, fill=(*_PAPER, 255), font=font)
        canvas.text((x + bar + gap + labels + gap, y), figure, fill=(*_PAPER, 200), font=font)
    return Image.alpha_composite(drawing.convert("RGBA"), layer).convert("RGB")


def _readable(ground: Colour) -> Colour:
    """Black or white, whichever stands out."""
    red, green, blue = (channel / 255 for channel in ground)
    return _INK if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.2 else _PAPER
