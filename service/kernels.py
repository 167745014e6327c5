"""The kernels by which images are resampled: which pixels of an axis make a pixel of the result, and how much of each.

Shared by what resamples in a decoder and what does it on a device, so that both look at the same pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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


def taps(
    size: int, outputs: int, low: float, high: float, filter: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """What makes each of the `outputs` pixels from low..high of an axis of `size` pixels: the first pixel read and the
    one after the last [outputs], and the weights of as many from the first on as the widest needs [outputs, taps]. They
    sum to 1; those beyond the last are 0."""
    kernel, reach = _KERNELS[filter]
    scale = (high - low) / outputs
    stretch = max(scale, 1.0)
    centre = low + (np.arange(outputs) + 0.5) * scale
    first = np.maximum((centre - reach * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach * stretch + 0.5).astype(np.int64), size)
    index = first[:, None] + np.arange(int((last - first).max()))
    weights = kernel(np.abs((index - centre[:, None] + 0.5) / stretch))
    weights[index >= last[:, None]] = 0
    weights /= weights.sum(1, keepdims=True)
    return first, last, weights


def span(size: int, outputs: int, low: float, high: float, filter: str) -> tuple[int, int]:
    """From which to before which pixel of an axis of `size` anything is read for low..high, and one more on each side
    where there is one."""
    scale = (high - low) / outputs
    reach = _KERNELS[filter][1] * max(scale, 1.0) - scale / 2
    return max(int(low - reach + 0.5) - 1, 0), min(int(high + reach + 0.5) + 1, size)


def matrix(size: int, outputs: int, low: float, high: float, filter: str, begin: int, end: int) -> NDArray[np.float32]:
    """The same as one matrix [outputs, end - begin] over the pixels from `begin` to before `end`, which must hold all
    that are read. Raises ValueError if they do not."""
    first, last, weights = taps(size, outputs, low, high, filter)
    if first.min() < begin or last.max() > end:
        raise ValueError("pixels are read that are not there")
    width = weights.shape[1]
    # Where an output has fewer taps than others, the surplus weights are zeros, and may stand beyond the end.
    dense = np.zeros((outputs, end - begin + width), np.float32)
    dense[np.arange(outputs)[:, None], first[:, None] - begin + np.arange(width)] = weights
    return np.ascontiguousarray(dense[:, : end - begin])
