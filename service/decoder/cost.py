"""What decoding an image will cost, told from its header before any of it is decoded.

Sums of what was measured per megabyte of coded data and per megapixel (docs/images.md has the table), in seconds of
one core of the machine that they were measured on; `pace` is how much slower this machine is. Pure arithmetic.
"""

from __future__ import annotations

from service.decoder.fitting import Placing
from service.decoder.headers import Header
from service.wire.messages.decoder import Shape

_MILLION = 1e6
_FIXED = 0.0001
# Seconds per million bytes and per million pixels.
_HUFFMAN = 0.0085
_INVERSE, _INVERSE_SCALED = 0.0015, 0.0006
_OWN_HUFFMAN, _OWN_BLOCKS, _OWN_INVERSE = 0.0057, 0.0005, 0.0017
_SCAN_BYTES, _SCAN_PIXELS = 0.027, 0.00035
_CONVERTED = 0.009
_INFLATED, _COPIED, _PNG_PIXELS = 0.0065, 0.0035, 0.0017
_INCOMPRESSIBLE = 0.97
_VP8_BYTES, _VP8_PIXELS = 0.045, 0.003
_VP8L_BYTES, _VP8L_PIXELS = 0.0055, 0.0065
_RESAMPLED, _RESULT = 0.0013, 0.0024
_TOUCHED = 0.0015
_FLOATS = 0.001
_LARGE_PIXELS = 5_000_000
"""Larger pictures live in memory that is fresh from the system each time, whose first touch costs."""


class TooHeavy(Exception):
    """The image was not decoded, since that is expected to take `seconds`, more than was allowed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def estimate(header: Header, placing: Placing, shrink: int, own: bool) -> float:
    """Seconds to decode an image at 1/`shrink` and to resample it, at a pace of 1; `own`: by our own decoder, of which
    only the part that is needed becomes pixels."""
    coded = sum(end - start for start, end in header.parts) / _MILLION
    pixels = header.width * header.height / _MILLION
    (x0, y0, x1, y1), (left, top, right, bottom) = placing.source, placing.target
    taken = (x1 - x0) * (y1 - y0) / shrink**2 / _MILLION
    if own:
        seconds = coded * _OWN_HUFFMAN + pixels * _OWN_BLOCKS + taken * _OWN_INVERSE
    elif header.kind == "jpeg":
        seconds = _jpeg(header, coded, pixels, shrink)
    elif header.kind == "png":
        unpacked = header.unpacked / _MILLION
        rate = _INFLATED if coded < _INCOMPRESSIBLE * unpacked else _COPIED
        seconds = unpacked * rate + pixels * _PNG_PIXELS
    elif header.lossless:
        seconds = coded * _VP8L_BYTES + pixels * _VP8L_PIXELS
    else:
        seconds = coded * _VP8_BYTES + pixels * _VP8_PIXELS
    decoded = taken if own else pixels / shrink**2
    seconds += _FIXED + taken * _RESAMPLED + (right - left) * (bottom - top) / _MILLION * _RESULT
    return seconds + (decoded * _TOUCHED if decoded * _MILLION > _LARGE_PIXELS else 0.0)


def of_numbers(shape: Shape, placing: Placing) -> float:
    """Seconds to fit an image that comes as numbers, at a pace of 1."""
    (x0, y0, x1, y1), (left, top, right, bottom) = placing.source, placing.target
    seconds = _FIXED + (x1 - x0) * (y1 - y0) / _MILLION * _RESAMPLED
    seconds += (right - left) * (bottom - top) / _MILLION * _RESULT
    return seconds + (shape.height * shape.width / _MILLION * _FLOATS if shape.kind == "float32" else 0.0)


def _jpeg(header: Header, coded: float, pixels: float, shrink: int) -> float:
    seconds = pixels * (_INVERSE if shrink == 1 else _INVERSE_SCALED)
    if header.buffered:
        # Each scan passes over all coefficients.
        seconds += coded * _SCAN_BYTES + pixels * header.scans * _SCAN_PIXELS
    else:
        seconds += coded * _HUFFMAN
    return seconds if header.plain else seconds + pixels / shrink**2 * _CONVERTED
