"""What the engine believes of a decoder, which may have been taken over by the image it decoded."""

from __future__ import annotations

import math
from typing import Any

import pytest

from service.config import Limits
from service.dispatcher.plausible import check
from service.errors import WireError
from service.wire.messages.decoder import Coded, Decoded, Fitting, FromDecoder, Geometry, Undecoded

LIMITS = Limits()
BOX = (0.0, 0.0, 640.0, 480.0)
FITTING = Fitting(fit="crop", height=200, width=224, fill=(0, 0, 0))
ROOM = 1000


def coded(**changes: Any) -> Decoded:
    """An image of 640x480 that a device is to decode: stored upright, unless `changes` say otherwise."""
    told: dict[str, Any] = {
        "size": 1000,
        "width": 640,
        "height": 480,
        "part": (20, 0, 620, 480),
        "turned": False,
        "mirrored": False,
        "flipped": False,
        "source": (51.2, 0.0, 588.8, 480.0),
        "target": (0, 0, 224, 200),
        "down_first": False,
    }
    return Decoded(1, Geometry(640, 480, BOX), 0.01, Coded(**(told | changes)))


@pytest.mark.parametrize(
    "message",
    [
        Decoded(1, Geometry(640, 480, BOX), 0.01),
        Decoded(1, Geometry(1, LIMITS.side, (-8191.5, 0.0, 8192.5, 16384.0)), 0.01),
        Undecoded(1, "undecodable_image", "the image is damaged", 0.0),
        Undecoded(1, "bad_request", "empty body", 0.0),
        coded(),
        coded(turned=True, width=480, height=640, part=(0, 20, 480, 620)),
        coded(source=(0.0, 0.0, 640.0, 480.0), part=(0, 0, 640, 480), target=(0, 30, 224, 170)),
    ],
)
def test_what_a_sound_decoder_says_is_believed(message: FromDecoder) -> None:
    check(message, LIMITS, FITTING, ROOM)


@pytest.mark.parametrize(
    "message",
    [
        Decoded(1, Geometry(640, 480, BOX), math.inf),
        Decoded(1, Geometry(640, 480, BOX), math.nan),
        Decoded(1, Geometry(640, 480, BOX), -1.0),
        Decoded(1, Geometry(640, 480, BOX), 1e300),
        Decoded(1, Geometry(60_000, 60_000, BOX), 0.01),
        Decoded(1, Geometry(16_000, 16_000, BOX), 0.01),
        Decoded(1, Geometry(0, 480, BOX), 0.01),
        Decoded(1, Geometry(640, 480, (0.0, 0.0, math.nan, 480.0)), 0.01),
        Decoded(1, Geometry(640, 480, (0.0, 0.0, 1e9, 480.0)), 0.01),
        Undecoded(1, "made_up", "text", 0.0),
        Undecoded(1, "internal", "text", 0.0),
        Undecoded(1, "undecodable_image", "x" * 201, 0.0),
        Undecoded(1, "undecodable_image", "a\nb", 0.0),
        Undecoded(1, "undecodable_image", "text", math.nan),
        coded(size=1001),
        coded(size=0),
        coded(turned=True),
        coded(width=641),
        coded(width=100_000, height=100_000),
        coded(part=(20, 0, 641, 480)),
        coded(part=(-1, 0, 620, 480)),
        coded(part=(20, 5, 20, 480)),
        coded(source=(51.2, 0.0, math.nan, 480.0)),
        coded(source=(51.2, 0.0, math.inf, 480.0)),
        coded(source=(300.0, 0.0, 200.0, 480.0)),
        coded(target=(0, 0, 225, 200)),
        coded(target=(0, 0, 224, 100_000)),
        coded(target=(0, 0, 0, 0)),
    ],
)
def test_what_none_would_say_is_not(message: FromDecoder) -> None:
    with pytest.raises(WireError):
        check(message, LIMITS, FITTING, ROOM)


def test_nothing_is_handed_on_where_nobody_asked_for_it() -> None:
    with pytest.raises(WireError):
        check(coded(), LIMITS, FITTING, 0)
