"""Arrays on a device, as far as images are resampled there: PyTorch's on a GPU, numpy's elsewhere.

Both have the few operations that are needed by the same names. Without PyTorch what a GPU has decoded comes back to the
CPU, which is right but slow.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OnCpu:
    """numpy's."""

    name = "numpy"
    on_device = False
    library: Any = np

    def taken(self, pixels: Any) -> Any:
        """Decoded pixels [h, w, 3] as planes [3, h, w] of numbers to compute with."""
        return np.ascontiguousarray(np.asarray(pixels.cpu()).transpose(2, 0, 1), np.float32)

    def held(self, weights: NDArray[np.float32]) -> Any:
        """A matrix where it is used."""
        return weights

    def given(self, values: Any, out: NDArray[np.uint8]) -> None:
        """Write whole numbers from 0 to 255 into `out`, of the same shape."""
        np.copyto(out, values, casting="unsafe")


class ByTorch(OnCpu):
    """PyTorch's. Raises ImportError where there is none."""

    def __init__(self, device: str) -> None:
        import torch

        self.name = "torch"
        self.on_device = True
        self.library = torch
        self._device = torch.device(device)

    def taken(self, pixels: Any) -> Any:
        """They stay where they are."""
        # Of pixels in the CPU's memory nvImageCodec gives no DLPack without a driver.
        on_gpu = self._device.type == "cuda"
        found = self.library.from_dlpack(pixels) if on_gpu else self.library.from_numpy(np.array(pixels))
        return found.to(self._device).permute(2, 0, 1).to(self.library.float32).contiguous()

    def held(self, weights: NDArray[np.float32]) -> Any:
        """On the device."""
        return self.library.from_numpy(weights).to(self._device)

    def given(self, values: Any, out: NDArray[np.uint8]) -> None:
        """Downloaded as bytes."""
        np.copyto(out, values.to(self.library.uint8).contiguous().cpu().numpy())


def on(device: str) -> OnCpu:
    """Those to use for what a device has decoded."""
    if device.startswith("cuda"):
        with contextlib.suppress(ImportError):
            return ByTorch(device)
    return OnCpu()
