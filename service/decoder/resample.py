"""Antialiased resampling in numpy, equal to Pillow's to one step of 255 and about twice as fast.

Each axis is a banded matrix. Cut into blocks of a few outputs, a band is a list of small dense matrices, and a pass
is one matrix product per block, which BLAS runs at full vector width. As in Pillow, the result of the first pass is
rounded and clipped, and the kernel reaches beyond the source box into the image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ACROSS = 8
"""Outputs per block of the horizontal pass; its matrices hold each weight for three channels, so they stay small."""
_DOWN = 32
"""Outputs per block of the vertical pass."""
_ROWS = 128
"""Input rows at a time, so that their float32 copy stays in the cache."""

_KEPT = 2048
"""Bands for axes up to this size are kept."""


class _Block(NamedTuple):
    """Outputs `start:stop` are `weights` [stop - start, last - first] times inputs `first:last`."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel with a = -0.5, at distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The triangle, at distances x >= 0."""
    return np.maximum(1 - x, 0.0)


_KERNELS = {"bicubic": (_bicubic, 2), "bilinear": (_bilinear, 1)}
"""Kernel and how far it reaches."""


def _band(size: int, outputs: int, low: float, high: float, filter: str, step: int) -> list[_Block]:
    """The matrix that resamples low..high of an axis of `size` pixels to `outputs` pixels, in blocks of `step`."""
    kernel, reach = _KERNELS[filter]
    scale = (high - low) / outputs
    stretch = max(scale, 1.0)
    centre = low + (np.arange(outputs) + 0.5) * scale
    first = np.maximum((centre - reach * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach * stretch + 0.5).astype(np.int64), size)
    taps = int((last - first).max())
    index = first[:, None] + np.arange(taps)
    weights = kernel(np.abs((index - centre[:, None] + 0.5) / stretch))
    weights[index >= last[:, None]] = 0
    weights /= weights.sum(1, keepdims=True)
    blocks = []
    for start in range(0, outputs, step):
        stop = min(start + step, outputs)
        begin, end = int(first[start]), int(last[start:stop].max())
        dense = np.zeros((stop - start, end - begin + taps), np.float32)
        dense[np.arange(stop - start)[:, None], index[start:stop] - begin] = weights[start:stop]
        blocks.append(_Block(start, stop, begin, end, dense[:, : end - begin]))
    return blocks


def _across(size: int, outputs: int, low: float, high: float, filter: str) -> list[_Block]:
    """The band of the horizontal pass, as right-hand matrices over interleaved RGB: [3 * inputs, 3 * outputs]."""
    blocks = []
    for start, stop, first, last, weights in _band(size, outputs, low, high, filter, _ACROSS):
        spread = np.zeros((last - first, 3, stop - start, 3), np.float32)
        for channel in range(3):
            spread[:, channel, :, channel] = weights.T
        blocks.append(_Block(start, stop, first, last, spread.reshape(3 * (last - first), -1)))
    return blocks


def _down(size: int, outputs: int, low: float, high: float, filter: str) -> list[_Block]:
    """The band of the vertical pass, as left-hand matrices [outputs, inputs]."""
    return _band(size, outputs, low, high, filter, _DOWN)


_kept_across = lru_cache(maxsize=8)(_across)
_kept_down = lru_cache(maxsize=8)(_down)


def resample(
    image: NDArray[np.uint8], box: tuple[float, float, float, float], out: NDArray[np.uint8], filter: str = "bicubic"
) -> None:
    """Fill `out` [h, w, 3] with the part `box` (x0, y0, x1, y1, inside the image) of `image` [H, W, 3].

    Both may be views with any strides. `filter` is `bicubic` or `bilinear`.
    """
    if _vertical_first(image.shape, out.shape):
        image, out = image.transpose(1, 0, 2), out.transpose(1, 0, 2)
        box = (box[1], box[0], box[3], box[2])
    height, width = image.shape[:2]
    rows, columns = out.shape[:2]
    # Cameras and loaders repeat their sizes. Large bands take megabytes, and next to their images no time.
    keep = max(width, height) <= _KEPT
    across = (_kept_across if keep else _across)(width, columns, box[0], box[2], filter)
    down = (_kept_down if keep else _down)(height, rows, box[1], box[3], filter)
    left, right = across[0].first, max(block.last for block in across)
    top, bottom = down[0].first, max(block.last for block in down)
    narrow = np.empty((bottom - top, columns * 3), np.float32)
    strip = np.empty((min(_ROWS, bottom - top), right - left, 3), np.float32)
    flat = strip.reshape(len(strip), -1)
    for row in range(top, bottom, _ROWS):
        count = min(_ROWS, bottom - row)
        np.copyto(strip[:count], image[row : row + count, left:right])
        part = narrow[row - top : row - top + count]
        for start, stop, first, last, weights in across:
            taken = flat[:count, 3 * (first - left) : 3 * (last - left)]
            np.matmul(taken, weights, out=part[:, 3 * start : 3 * stop])
        _round(part)
    final = np.empty((rows, columns * 3), np.float32)
    for start, stop, first, last, weights in down:
        np.matmul(weights, narrow[first - top : last - top], out=final[start:stop])
    _round(final)
    np.copyto(out, final.reshape(rows, columns, 3), casting="unsafe")


def _vertical_first(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether Pillow (13) would do the vertical pass first. The order shows where overshoot is clipped in between."""
    return target[0] < source[0] and source[0] - target[0] > 2 * (source[1] - target[1])


def _round(values: NDArray[Any]) -> None:
    """Round and clip to 0..255 in place."""
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)
