"""What a decoder may say. One that a hostile image has taken over must not bend others' answers, the predictions of the
core, or the metrics, nor have the process that holds the models take memory by its word."""

from __future__ import annotations

from service.config import Limits
from service.errors import STATUS, WireError
from service.wire.messages.decoder import Coded, Decoded, Fitting, FromDecoder, Geometry, Undecoded

_MAX_DECODE_SECONDS = 600.0


def check(message: FromDecoder, limits: Limits, fitting: Fitting | None, coded_bytes: int) -> None:
    """Raise WireError for what no sound decoder says. `fitting` is that of the image, if it is one under way;
    `coded_bytes` is how long an image may be that is handed on for a device to decode."""
    sound = 0 <= message.seconds <= _MAX_DECODE_SECONDS
    if isinstance(message, Decoded):
        place = message.geometry
        sound &= 0 < place.width <= limits.side and 0 < place.height <= limits.side
        sound &= place.width * place.height <= max(limits.pixels, limits.jpeg_pixels)
        sound &= all(abs(edge) <= 2 * limits.side for edge in place.box)
        if message.coded is not None:
            sound &= 0 < message.coded.size <= coded_bytes and _fits(message.coded, place, fitting)
    elif isinstance(message, Undecoded):
        sound &= 400 <= STATUS.get(message.code, 0) < 500 and len(message.message) <= 200
        sound &= message.message.isprintable()
    if not sound:
        raise WireError("implausible message")


def _fits(coded: Coded, place: Geometry, fitting: Fitting | None) -> bool:
    """Whether every box lies in what it is a part of, and is one."""
    inner = (0, 0, fitting.width, fitting.height) if fitting else coded.target
    return (
        coded.displayed == (place.width, place.height)
        and _within(coded.part, coded.width, coded.height)
        and _within(coded.source, place.width, place.height)
        and _within(coded.target, inner[2], inner[3])
    )


def _within(box: tuple[float, float, float, float], width: float, height: float) -> bool:
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
