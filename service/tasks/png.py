"""Writes PNG images of class indices: 8-bit palette, or 16-bit grey where there are more than 256 classes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_UP = 2
"""The row filter: a row is stored as its difference from the one above, mostly zeros in a mask."""


def encode(indices: NDArray[np.integer]) -> bytes:
    """A mask [H, W], uint8 or uint16, as a PNG whose pixel values are the indices."""
    height, width = indices.shape
    wide = indices.dtype.itemsize > 1
    pixels = np.ascontiguousarray(indices, ">u2" if wide else np.uint8)
    raw = pixels.view(np.uint8).reshape(height, -1)
    rows = np.empty((height, raw.shape[1] + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = raw[0]
    np.subtract(raw[1:], raw[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16 if wide else 8, _GREY if wide else _PALETTE, 0, 0, 0)
    palette = b"" if wide else _chunk(b"PLTE", _palette())
    data = zlib.compress(rows.data, 1)
    return _SIGNATURE + _chunk(b"IHDR", header) + palette + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _palette() -> bytes:
    """256 colours that differ most for small indices: the bits of the index, spread over red, green and blue from
    their highest bit down (the scheme of the PASCAL VOC masks). Index 0 is black."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            if 3 * (7 - bit) + channel < 8:
                colours[:, channel] |= ((index >> (3 * (7 - bit) + channel) & 1) << bit).astype(np.uint8)
    return colours.tobytes()
