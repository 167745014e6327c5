"""What the engine believes of a decoder, which may have been taken over by the image it decoded."""

from __future__ import annotations

import math

import pytest

from service.config import Limits
from service.dispatcher.engine import check
from service.errors import WireError
from service.wire.messages.decoder import Decoded, FromDecoder, Geometry, Undecoded

LIMITS = Limits()
BOX = (0.0, 0.0, 640.0, 480.0)


@pytest.mark.parametrize(
    "message",
    [
        Decoded(1, Geometry(640, 480, BOX), 0.01),
        Decoded(1, Geometry(1, LIMITS.side, (-8191.5, 0.0, 8192.5, 16384.0)), 0.01),
        Undecoded(1, "undecodable_image", "the image is damaged", 0.0),
        Undecoded(1, "bad_request", "empty body", 0.0),
    ],
)
def test_what_a_sound_decoder_says_is_believed(message: FromDecoder) -> None:
    check(message, LIMITS)


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
    ],
)
def test_what_none_would_say_is_not(message: FromDecoder) -> None:
    with pytest.raises(WireError):
        check(message, LIMITS)
