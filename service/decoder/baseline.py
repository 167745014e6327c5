"""Ordinary JPEGs, of which only the part that is needed becomes pixels: in C (native/), in two thirds of the time.

It is there when a C compiler was when Squint was installed (pyproject.toml), on x86-64 with AVX2. Without it, and for
every file that is not plainly ordinary and whole, libjpeg-turbo does the work, with the same pixels.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Part = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels."""

_MODULE = "service.decoder._baseline"
_KEPT_SCRATCH, _MOST_SCRATCH = 16 << 20, 64 << 20
"""What is kept between images; and what is taken at all. For more, libjpeg-turbo is better, which keeps only rows."""
_DONE = 0
_AROUND, _LINES = 16, 2048
_left_out = False


class Baseline:
    """The decoder, and the memory that it works in."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        library.squint_baseline_state.restype = ctypes.c_size_t
        self.supported = bool(library.squint_baseline_supported())
        self._call = library.squint_baseline_decode
        pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self._call.argtypes = [ctypes.c_char_p, size, *[number] * 7, pointer, pointer, size, pointer]
        self._state = np.zeros(library.squint_baseline_state(), np.uint8)
        self._kept = np.empty(0, np.uint8)

    def decode(self, stream: bytes, width: int, height: int, shrink: int, part: Part) -> Pixels | None:
        """The pixels [h, w, 3] of `part` of the JPEG `stream`, which says that it has `width` x `height`, decoded at
        1/`shrink` (1, 2, 4 or 8). None when it is left to libjpeg-turbo, be it unusual, corrupt, or large."""
        need = scratch_bytes(part, len(stream))
        if need > _MOST_SCRATCH:
            return None
        scratch = self._kept
        if need > scratch.nbytes:
            scratch = np.empty(need, np.uint8)
            if need <= _KEPT_SCRATCH:
                self._kept = scratch
        pixels = np.empty((part[3] - part[1], part[2] - part[0], 3), np.uint8)
        told = self._call(
            stream, len(stream), width, height, shrink, *part,
            pixels.ctypes.data, scratch.ctypes.data, scratch.nbytes, self._state.ctypes.data,
        )  # fmt: skip
        return pixels if told == _DONE else None


def scratch_bytes(part: Part, size: int) -> int:
    """How much memory decoding `part` of a file of `size` bytes takes at most, besides its pixels."""
    columns, rows = part[2] - part[0], part[3] - part[1]
    return 3 * (columns + _AROUND) * (rows + _AROUND) + max(size, 4 * columns) + _LINES


def found() -> Baseline | None:
    """The decoder, where it was built, this processor can run it, and it has not been left out."""
    return None if _left_out else _load()


def leave_out() -> None:
    """Have libjpeg-turbo decode everything from now on."""
    global _left_out
    _left_out = True


@lru_cache(maxsize=1)
def _load() -> Baseline | None:
    """One for each process: its memory is not for threads."""
    path = built()
    try:
        decoder = Baseline(path) if path else None
    except OSError:
        return None
    return decoder if decoder and decoder.supported else None


def built() -> str | None:
    """The path of what was compiled, if it was."""
    found = importlib.util.find_spec(_MODULE)
    return found.origin if found else None
