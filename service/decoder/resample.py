"""Antialiased resampling, equal to Pillow's to one or two steps of 255 and about five times as fast.

The work is done by fast_image_resize (Rust, in the package cykooz-resizer) where that has a wheel, and by numpy
(bands.py) elsewhere. As in Pillow, the result of the first pass is rounded and clipped, and the kernel reaches beyond
the source box into the image.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.decoder import bands
from service.decoder.fitting import Box

try:
    import cykooz_resizer as rust
except ImportError:
    rust = None

_REACH = 2
"""How far the wider of the kernels reaches, in pixels of the result."""


def resample(
    image: NDArray[np.uint8],
    box: Box,
    out: NDArray[np.uint8],
    filter: str = "bicubic",
    whole: tuple[int, int] | None = None,
) -> None:
    """Fill `out` [h, w, 3] with the part `box` (x0, y0, x1, y1, inside the image) of `image` [H, W, 3].

    Both may be views with any strides. `filter` is `bicubic` or `bilinear`. Where `image` is the `reach` of a picture,
    `whole` is the height and width of that.
    """
    if vertical_first(whole or image.shape, out.shape):
        image, out = image.transpose(1, 0, 2), out.transpose(1, 0, 2)
        box = (box[1], box[0], box[3], box[2])
    (by_rust if rust is not None else bands.resample)(image, box, out, filter)


def by_rust(image: NDArray[np.uint8], box: Box, out: NDArray[np.uint8], filter: str) -> None:
    """The same, always with the horizontal pass first. Left to itself, the library would begin with the vertical."""
    rows, columns = out.shape[:2]
    left, top, right, bottom = reach(image.shape, box, out.shape)
    kind = rust.PixelType.U8x3
    # The library takes whole images of its own alone: only what the kernel reads is copied there.
    source = rust.ImageData(right - left, bottom - top, kind, image[top:bottom, left:right].tobytes())
    narrow = rust.ImageData(columns, bottom - top, kind)
    final = rust.ImageData(columns, rows, kind)
    width, height = min(box[2], right) - box[0], min(box[3], bottom) - box[1]
    _RESIZER.resize(source, narrow, _options(filter, box[0] - left, 0, width, bottom - top))
    _RESIZER.resize(narrow, final, _options(filter, 0, box[1] - top, columns, height))
    out[:] = np.frombuffer(final.get_buffer(), np.uint8).reshape(rows, columns, 3)


def reach(shape: tuple[int, ...], box: Box, out: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part (x0, y0, x1, y1) of a picture [H, W, ...] that `resample` looks at, to fill [h, w, ...] with `box`."""
    left, right = _read(shape[1], out[1], box[0], box[2])
    top, bottom = _read(shape[0], out[0], box[1], box[3])
    return left, top, right, bottom


def _read(size: int, outputs: int, low: float, high: float) -> tuple[int, int]:
    """Which pixels of an axis of `size` may be read for `outputs` pixels of low..high."""
    margin = math.ceil(_REACH * max((high - low) / outputs, 1.0)) + 1
    return max(int(low) - margin, 0), min(math.ceil(high) + margin, size)


if rust is not None:
    _RESIZER = rust.Resizer()
    # Pillow's bicubic has a = -0.5, which is Catmull and Rom's.
    _KERNELS = {"bicubic": rust.FilterType.catmull_rom, "bilinear": rust.FilterType.bilinear}

    @lru_cache(maxsize=64)
    def _options(filter: str, left: float, top: float, width: float, height: float) -> rust.ResizeOptions:
        algorithm = rust.ResizeAlg.convolution(_KERNELS[filter])
        return rust.ResizeOptions(algorithm, use_alpha=False, crop_box=rust.CropBox(left, top, width, height))


def vertical_first(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether Pillow (13) would do the vertical pass first. The order shows where overshoot is clipped in between."""
    return target[0] < source[0] and source[0] - target[0] > 2 * (source[1] - target[1])
