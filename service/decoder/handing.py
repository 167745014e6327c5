"""Handing a JPEG on to the device that runs the model, instead of decoding it here (`--decode-on device`).

All that is policy stays with the decoder: what is refused, what is heavy, and which part of the image becomes what.
Handed on is what any library reads alike, at full scale, and ends as it should; the rest is decoded here.
"""

from __future__ import annotations

import math

from service import kernels
from service.config import Limits
from service.decoder import image
from service.decoder.fitting import Placing
from service.decoder.headers import Header
from service.decoder.resample import vertical_first
from service.wire.messages.decoder import Coded, Fitting, Geometry

_START, _END = b"\xff\xd8", b"\xff\xd9"


def hand_on(
    data: memoryview | bytes,
    out: memoryview,
    fitting: Fitting,
    limits: Limits,
    most: float = math.inf,
    pace: float = 1.0,
) -> tuple[Geometry, Coded] | None:
    """Write the JPEG `data`, without what describes it, into `out`; None where it is to be decoded here, since the
    device does not take its kind or `out` is too short. Raises as image.decode does."""
    raw = bytes(data)
    header, placing, shrink = image.judged(raw, fitting, limits, most, pace)
    stream = _stream(raw, header) if header.usual and shrink == 1 else b""
    if not 0 < len(stream) <= len(out):
        return None
    out[: len(stream)] = stream
    return placing.geometry, _told(len(stream), header, placing, fitting)


def _stream(raw: bytes, header: Header) -> bytes:
    """What is needed of the file to decode it, up to its end; nothing where it has none. Of a JPEG with one scan the
    first mark of an end is that; in one with several the same bytes may also stand in a table."""
    end = raw.find(_END, header.parts[-1][0])
    if end < 0:
        return b""
    parts = [raw[start:stop] for start, stop in header.parts[:-1]]
    last = slice(header.parts[-1][0], len(raw) if header.buffered else end + len(_END))
    return b"".join((_START, *parts, raw[last]))


def _told(size: int, header: Header, placing: Placing, fitting: Fitting) -> Coded:
    (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) = placing.source, placing.target
    width, height = header.displayed
    x0, x1 = kernels.span(width, tx1 - tx0, sx0, sx1, fitting.filter)
    y0, y1 = kernels.span(height, ty1 - ty0, sy0, sy1, fitting.filter)
    if header.mirrored:
        x0, x1 = width - x1, width - x0
    if header.flipped:
        y0, y1 = height - y1, height - y0
    return Coded(
        size=size,
        width=header.width,
        height=header.height,
        part=(y0, x0, y1, x1) if header.turned else (x0, y0, x1, y1),
        turned=header.turned,
        mirrored=header.mirrored,
        flipped=header.flipped,
        source=placing.source,
        target=placing.target,
        down_first=vertical_first((height, width), (ty1 - ty0, tx1 - tx0)),
    )
