"""The images of a batch that come as JPEGs: decoded on the device, and resampled to the network's input as a decoder
does it.

Each pass of the resampling is a product with a matrix of weights, and its result is rounded and clipped, as in
`service/decoder/bands.py`. An orientation that reverses rows or columns reverses the matrix instead.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Transform
from service import kernels
from service.backends import pipeline
from service.backends.arrays import OnCpu
from service.backends.base import BackendError
from service.backends.failure import error_from_library
from service.wire.messages.decoder import Coded
from service.worker.codec import Codec

BELIEVED = 0.5
"""Seconds for which an image that was decoded, or a trial, clears the device: refused images must not cost it much."""
_KEPT = 32
"""Matrices that are kept: cameras and loaders repeat their sizes. One of a usual photo takes half a megabyte."""


class Unpacker:
    """What turns coded images into pixels. Engine threads share it."""

    def __init__(self, codec: Codec, arrays: OnCpu) -> None:
        self._codec = codec
        self._arrays = arrays
        self._axis = lru_cache(_KEPT)(self._made)
        self._well = 0.0

    def decode(self, asked: Sequence[tuple[bytes, Coded]]) -> list[Any | None]:
        """The needed part of each image on the device; None for those that are refused.

        Raises BackendError: of kind `fatal` where the device is to blame for it.
        """
        with pipeline.in_use():
            found = self._codec.decode(asked)
            if any(one is not None for one in found):
                self._well = time.monotonic()
            elif time.monotonic() - self._well > BELIEVED:
                if not self._codec.sound():
                    raise BackendError("fatal", "the device decodes no image any more")
                self._well = time.monotonic()
        return found

    def fit(self, decoded: Sequence[tuple[Any, Coded, NDArray[np.uint8]]], transform: Transform) -> None:
        """Resample each image onto its target within its canvas [H, W, 3], and fill the rest. Raises BackendError."""
        try:
            with pipeline.in_use():
                # All of them are begun before the first is waited for.
                values = [self._resampled(pixels, coded, transform.filter) for pixels, coded, _ in decoded]
                for result, (_, coded, canvas) in zip(values, decoded, strict=True):
                    x0, y0, x1, y1 = coded.target
                    if (y1 - y0, x1 - x0) != canvas.shape[:2]:
                        canvas[:] = transform.fill
                    self._arrays.given(result, canvas[y0:y1, x0:x1])
        except Exception as error:  # a library's own derive from Exception only
            raise error_from_library(error) from error

    def _resampled(self, pixels: Any, coded: Coded, filter: str) -> Any:
        """The target [h, w, 3], as whole numbers from 0 to 255."""
        (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) = coded.source, coded.target
        width, height = coded.displayed
        x0, y0, x1, y1 = coded.window
        across = self._axis(width, tx1 - tx0, sx0, sx1, filter, x0, x1, coded.mirrored)
        down = self._axis(height, ty1 - ty0, sy0, sy1, filter, y0, y1, coded.flipped)
        planes = self._arrays.taken(pixels)
        if coded.turned:
            planes = planes.swapaxes(1, 2)
        if coded.down_first:
            done = self._rounded(self._rounded(down @ planes) @ across.T)
        else:
            done = self._rounded(down @ self._rounded(planes @ across.T))
        return done.swapaxes(0, 2).swapaxes(0, 1)

    def _rounded(self, values: Any) -> Any:
        return self._arrays.library.clip(self._arrays.library.round(values), 0, 255)

    def _made(
        self, size: int, outputs: int, low: float, high: float, filter: str, begin: int, end: int, reverse: bool
    ) -> Any:
        weights = kernels.matrix(size, outputs, low, high, filter, begin, end)
        return self._arrays.held(np.ascontiguousarray(weights[:, ::-1]) if reverse else weights)
