"""An image that comes as numbers instead of a file: checked, and fitted into the network's input like any other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.config import Limits
from service.decoder import cost
from service.decoder.fitting import place
from service.decoder.resample import resample
from service.errors import Refusal
from service.wire.messages.decoder import Fitting, Geometry, Shape

_HALF = 0.499 / 255
"""How far beyond 0 to 1 still rounds to a byte."""
_ROWS = 256
"""Rows of floating-point pixels that are turned into bytes at a time, so that the copies between stay small."""


def decode(
    data: memoryview | bytes,
    out: memoryview,
    fitting: Fitting,
    shape: Shape,
    limits: Limits,
    most: float = math.inf,
    pace: float = 1.0,
) -> Geometry:
    """Write the image `data`, whose numbers are as `shape` says, fitted, into the first height * width * 3 bytes of
    `out` as uint8 RGB [H, W, 3]. Nothing is resampled where it has the size of the network's input already.

    Raises Refusal: `image_too_large`, and `undecodable_image` for too few or too many bytes and for values that are
    not within 0 to 1; and TooHeavy as image.decode does.
    """
    height, width = shape.height, shape.width
    if min(height, width) < 1 or max(height, width) > limits.side or height * width > limits.pixels:
        raise Refusal("image_too_large", f"the image is {width}x{height}, which is more than may be, or nothing")
    kind = np.dtype(np.uint8 if shape.kind == "uint8" else "<f4")
    if len(data) != height * width * 3 * kind.itemsize:
        raise Refusal("undecodable_image", "the image has another number of bytes than its shape says")
    placing = place(width, height, fitting)
    if most < math.inf and (seconds := pace * cost.of_numbers(shape, placing)) > most:
        raise cost.TooHeavy(seconds)
    pixels: NDArray[Any] = np.frombuffer(data, kind).reshape(height, width, 3)
    image: NDArray[np.uint8] = pixels if shape.kind == "uint8" else _bytes(pixels)
    canvas = np.frombuffer(out, np.uint8, fitting.height * fitting.width * 3)
    canvas = canvas.reshape(fitting.height, fitting.width, 3)
    x0, y0, x1, y1 = placing.target
    content = canvas[y0:y1, x0:x1]
    if content.shape != canvas.shape:
        canvas[:] = fitting.fill
    if content.shape == image.shape and placing.source == (0.0, 0.0, float(width), float(height)):
        content[:] = image
    else:
        resample(image, placing.source, content, fitting.filter)
    return placing.geometry


def _bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of 0 to 1 as 0 to 255, rounded. Raises Refusal `undecodable_image`."""
    image = np.empty(pixels.shape, np.uint8)
    for row in range(0, len(pixels), _ROWS):
        part = pixels[row : row + _ROWS]
        # Written so that what is no number, which compares false, is refused as well.
        if not (part.min() > -_HALF and part.max() < 1 + _HALF):
            raise Refusal("undecodable_image", "FP32 pixels are finite and from 0 to 1, not normalised")
        image[row : row + _ROWS] = np.rint(part * np.float32(255))
    return image
