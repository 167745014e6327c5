"""One tiny image of each kind through the decoder, so that every lazy import, table and buffer is in place before the
sandbox closes, and the first request is no slower than the second.
"""

from __future__ import annotations

import contextlib
import struct
import time
import zlib

from service.config import Limits
from service.decoder import cost, headers, image, numbers
from service.decoder.fitting import place
from service.errors import Refusal
from service.wire.messages.decoder import Fitting, Shape

_WEBP_LOSSY = (
    b"RIFF(\0\0\0WEBPVP8 \x1c\0\0\0p\x01\0\x9d\x01*\x02\0\x02\0\x07@\x96%\x94\x02t\x01@\0\0\xfe\xee\xa1\xe7\x0e\0\0"
)
_WEBP_LOSSLESS = b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0/\x01@\0\0\x07P\x8a*\xd4\xa3\xff\x81\x88\xe8\x7f\0\0"
_FITTINGS = (
    Fitting(fit="crop", height=32, width=48, fill=(0, 0, 0)),
    Fitting(fit="stretch", height=32, width=48, fill=(0, 0, 0)),
    Fitting(fit="letterbox", height=32, width=48, fill=(0, 0, 0)),
)


def png(colour: int, depth: int, side: int = 2, interlace: int = 0) -> bytes:
    """A black PNG of side x side pixels; `colour` and `depth` as in its header."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = b"\0" * (1 + -(-side * channels * depth // 8))
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlace)
    # Interlaced passes need more row starts than rows; what is left over is ignored.
    chunks = [(b"IHDR", header), (b"PLTE", b"\0\0\0"), (b"IDAT", zlib.compress(row * (side * 3))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
        if name != b"PLTE" or colour == 3
    )


def samples() -> list[bytes]:
    """Small images of every kind, and two broken ones."""
    kinds = [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 8)]
    whole = [png(colour, depth) for colour, depth in kinds]
    whole += [png(2, 8, interlace=1), image.sample_jpeg("RGB"), image.sample_jpeg("GRAY"), image.sample_jpeg("CMYK")]
    whole += [_WEBP_LOSSY, _WEBP_LOSSLESS]
    return whole + [data[:-20] for data in whole]


def run() -> None:
    """Decode every sample, and images that come as numbers, in every fit."""
    for data in samples():
        for fitting in _FITTINGS:
            with contextlib.suppress(Refusal):
                image.decode(data, memoryview(bytearray(32 * 48 * 3)), fitting, Limits())
    for shape in (Shape("uint8", 2, 3), Shape("float32", 2, 3), Shape("float32", 1, 1)):
        for fitting in _FITTINGS:
            with contextlib.suppress(Refusal):
                data = bytes(2 * 3 * 3 * (1 if shape.kind == "uint8" else 4))
                numbers.decode(data, memoryview(bytearray(32 * 48 * 3)), fitting, shape, Limits())


def pace(rounds: int = 8) -> float:
    """How many times longer than cost.py has it this machine takes, from the quickest of some decodes of one image.
    Strangers' images have no part in it, so that nobody can make heavy ones seem light."""
    fitting, limits = Fitting(fit="crop", height=224, width=224, fill=(0, 0, 0)), Limits()
    data, out = image.sample_photo(), memoryview(bytearray(224 * 224 * 3))
    header = headers.read(data, limits)
    expected = cost.estimate(header, place(*header.displayed, fitting), 1, image.own(header) is not None)
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        image.decode(data, out, fitting, limits)
        taken.append(time.process_time() - started)
    return min(taken) / expected
