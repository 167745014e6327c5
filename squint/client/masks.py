"""Masks and token maps as numpy arrays, from each form in which they travel."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squint.client.errors import Unreadable

if TYPE_CHECKING:
    from squint.client.results import Segmentation

MAX_PIXELS = 1_000_000_000
Pixels = NDArray[np.bool_]


def classes(answer: Segmentation) -> NDArray[Any]:
    """The class index of every pixel, uint8 or uint16 [H, W]. Raises Unreadable."""
    height, width = answer.size
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise Unreadable(f"a mask of {height} x {width} pixels", answer.request_id)
    try:
        if answer.mask.format == "png":
            return _png(answer.mask.data or "", height, width)
        highest = max((segment.index for segment in answer.segments), default=0)
        found = np.zeros((height, width), np.uint8 if highest < 256 else np.uint16)
        for segment in answer.segments:
            if answer.mask.format == "rle":
                found[run_length(segment.counts or "", height, width)] = segment.index
            else:
                found[filled(segment.polygons or [], height, width)] = segment.index
        return found
    except (ValueError, OverflowError, OSError) as error:
        raise Unreadable(f"the mask is malformed: {error}", answer.request_id) from None


def run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths: six bits a character from '0' on, of which one says that more follow; signed,
    and from the fourth on as the difference to the one two before."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def run_length(text: str, height: int, width: int) -> Pixels:
    """Which pixels [H, W] the runs cover: down the columns, what is outside and what is inside in turn."""
    lengths = run_lengths(text)
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError("its runs do not cover the image")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def filled(rings: Sequence[Sequence[float]], height: int, width: int) -> Pixels:
    """Which pixels [H, W] have their centre inside the rings [x0, y0, x1, y1, ...], by the even-odd rule."""
    crossed = np.zeros((height, width + 1), np.bool_)
    for ring in rings:
        points = np.asarray(ring, np.float64)
        if points.size % 2 or not np.isfinite(points).all():
            raise ValueError("a ring of no points")
        corners = points.reshape(-1, 2)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            first, last = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(np.int64)
            rows = np.arange(first, last)
            # An edge turns over everything right of where it crosses a row's middle.
            across = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(across - 0.5), 0, width).astype(np.int64)
            crossed[rows, columns] ^= True
    inside: Pixels = np.logical_xor.accumulate(crossed[:, :-1], axis=1)
    return inside


def groups(runs: Sequence[tuple[int, int]], grid: tuple[int, int]) -> NDArray[np.int64]:
    """The group of each patch [rows, columns]. Raises Unreadable."""
    rows, columns = grid
    lengths = [length for _, length in runs]
    if rows < 1 or columns < 1 or any(length < 0 for length in lengths) or sum(lengths) != rows * columns:
        raise Unreadable("the token map does not cover its grid")
    return np.repeat(np.array([group for group, _ in runs], np.int64), lengths).reshape(rows, columns)


def _png(data: str, height: int, width: int) -> NDArray[Any]:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"])
    except binascii.Error:
        raise ValueError("it is not base64") from None
    if (image.height, image.width) != (height, width):
        raise ValueError("it is of another size than the answer says")
    found = np.asarray(image)
    return found.astype(np.uint8 if found.dtype == np.uint8 else np.uint16)
