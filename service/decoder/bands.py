"""The resampler for processors for which cykooz-resizer has no wheel: numpy alone, three times as fast as Pillow.

Each axis is a banded matrix. Cut into blocks of a few outputs, a band is a list of small dense matrices, and a pass
is one matrix product per block, which BLAS runs at full vector width. As in Pillow, the result of the first pass is
rounded and clipped, and the kernel reaches beyond the source box into the image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service import kernels

_ACROSS = 5
"""Outputs per block of the horizontal pass; its matrices hold each weight for three channels, so they stay small, and
15 columns fill a vector register."""
_DOWN = 12
"""Outputs per block of the vertical pass."""
_ROWS = 384
"""Input rows at a time: fewer products for photos of usual size, and memory bounded for large ones."""

_KEPT = 2048
"""Bands for axes up to this size are kept."""


class _Block(NamedTuple):
    """Columns (or rows) `outputs` of the result are those of `inputs` times `weights`."""

    inputs: slice
    outputs: slice
    weights: NDArray[np.float32]


class _Band(NamedTuple):
    """One axis: inputs `first:last` are read, and each block's `inputs` are counted from `first`."""

    first: int
    last: int
    blocks: list[_Block]


def _dense(
    size: int, outputs: int, low: float, high: float, filter: str, step: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The matrix that resamples low..high of an axis of `size` pixels to `outputs` pixels, in blocks of `step` outputs:
    the first input of each block [blocks], and the weights of as many inputs from there on as the widest block needs
    [blocks, step, inputs]. Outputs beyond the last have no weights."""
    first, last, weights = kernels.taps(size, outputs, low, high, filter)
    taps = weights.shape[1]
    index = first[:, None] + np.arange(taps)
    starts = np.arange(0, outputs, step)
    ends = np.minimum(starts + step, outputs) - 1
    width = int((last[ends] - first[starts]).max())
    begin = np.minimum(first[starts], size - width)
    # Where an output has fewer taps than others, the surplus weights are zeros, and may stand beyond the block.
    dense = np.zeros((len(starts) * step, width + taps), np.float32)
    dense[np.arange(outputs)[:, None], index - np.repeat(begin, step)[:outputs, None]] = weights
    return begin, dense[:, :width].reshape(len(starts), step, width)


def _across(size: int, outputs: int, low: float, high: float, filter: str) -> _Band:
    """The band of the horizontal pass, as right-hand matrices over interleaved RGB: [3 * inputs, 3 * outputs]."""
    begin, dense = _dense(size, outputs, low, high, filter, _ACROSS)
    count, step, width = dense.shape
    spread = np.zeros((count, width, 3, step, 3), np.float32)
    for channel in range(3):
        spread[:, :, channel, :, channel] = dense.transpose(0, 2, 1)
    matrices = spread.reshape(count, 3 * width, 3 * step)
    blocks, offset = [], int(begin[0])
    for start, at, weights in zip(range(0, outputs, step), (begin - offset).tolist(), matrices, strict=True):
        stop = min(start + step, outputs)
        inputs = slice(3 * at, 3 * (at + width))
        blocks.append(_Block(inputs, slice(3 * start, 3 * stop), weights[:, : 3 * (stop - start)]))
    return _Band(offset, int(begin[-1]) + width, blocks)


def _down(size: int, outputs: int, low: float, high: float, filter: str) -> _Band:
    """The band of the vertical pass, as left-hand matrices [outputs, inputs]."""
    begin, dense = _dense(size, outputs, low, high, filter, _DOWN)
    _, step, width = dense.shape
    blocks, offset = [], int(begin[0])
    for start, at, weights in zip(range(0, outputs, step), (begin - offset).tolist(), dense, strict=True):
        stop = min(start + step, outputs)
        blocks.append(_Block(slice(at, at + width), slice(start, stop), weights[: stop - start]))
    return _Band(offset, int(begin[-1]) + width, blocks)


_kept_across = lru_cache(maxsize=16)(_across)
_kept_down = lru_cache(maxsize=16)(_down)


def resample(
    image: NDArray[np.uint8], box: tuple[float, float, float, float], out: NDArray[np.uint8], filter: str
) -> None:
    """Fill `out` [h, w, 3] from `box` of `image` [H, W, 3], the horizontal pass first. As resample.resample."""
    height, width = image.shape[:2]
    rows, columns = out.shape[:2]
    # Cameras and loaders repeat their sizes. Large bands take megabytes, and next to their images no time.
    keep = max(width, height) <= _KEPT
    across = (_kept_across if keep else _across)(width, columns, box[0], box[2], filter)
    down = (_kept_down if keep else _down)(height, rows, box[1], box[3], filter)
    left, right, top, bottom = across.first, across.last, down.first, down.last
    # Only a cubic kernel overshoots.
    overshoots = filter == "bicubic"
    narrow = np.empty((bottom - top, columns * 3), np.float32)
    strip = np.empty((min(_ROWS, bottom - top), right - left, 3), np.float32)
    flat = strip.reshape(len(strip), -1)
    for row in range(top, bottom, _ROWS):
        count = min(_ROWS, bottom - row)
        np.copyto(strip[:count], image[row : row + count, left:right])
        taken, part = flat[:count], narrow[row - top : row - top + count]
        for inputs, outputs, weights in across.blocks:
            np.matmul(taken[:, inputs], weights, part[:, outputs])
        _round(part, overshoots)
    final = np.empty((rows, columns * 3), np.float32)
    for inputs, outputs, weights in down.blocks:
        np.matmul(weights, narrow[inputs], final[outputs])
    _round(final, overshoots)
    np.copyto(out, final.reshape(rows, columns, 3), casting="unsafe")


def _round(values: NDArray[Any], clip: bool) -> None:
    """Round in place, and clip to 0..255 where asked."""
    np.rint(values, values)
    if clip:
        np.clip(values, 0, 255, values)
