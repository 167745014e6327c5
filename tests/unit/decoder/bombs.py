"""Small files that ask for much: memory, time, or both. REFUSED are answered 413 or 422; HARMLESS decode, since what
would explode in them is never read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.unit.decoder.scenes import (
    anmf,
    chunk,
    jpeg_header,
    jpeg_scan,
    photo,
    png_header,
    riff,
    riff_chunks,
    save,
    vp8x,
    with_chunk,
    with_segment,
)

Make = Callable[[], bytes]
REFUSED: dict[str, Make] = {}
HARMLESS: dict[str, Make] = {}

_END = chunk(b"IEND", b"")
_SMALL = photo(40, 30)
_LOOP = (b"ANIM", b"\0\0\0\0\0\0")


def _png(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A PNG that declares a size and holds as many zeros as 1 MB of zlib stream inflate to."""
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return png_header(width, height, depth, colour, interlace) + palette + chunk(b"IDAT", _ZEROS) + _END


_ZEROS = zlib.compress(bytes(50_000_000), 9)


def _vp8(width: int, height: int) -> tuple[bytes, bytes]:
    body = bytearray(riff_body(save(_SMALL, "WEBP")))
    body[6:10] = struct.pack("<HH", width, height)
    return b"VP8 ", bytes(body)


def _vp8l(width: int, height: int) -> tuple[bytes, bytes]:
    bits = (width - 1) | (height - 1) << 14
    return b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(40)


def riff_body(webp: bytes) -> bytes:
    """The body of a simple WebP's only chunk."""
    return webp[20 : 20 + struct.unpack_from("<I", webp, 16)[0]]


def _scans(count: int, width: int, height: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    data = save(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def _jpeg(width: int, height: int, components: int = 3, sof: int = 0xC0, scan: int | None = None) -> bytes:
    """A real small JPEG whose frame header is replaced by one that declares another size."""
    data = save(_SMALL, "JPEG")
    at = data.index(b"\xff\xc0")
    rest = data[at + 19 : data.index(b"\xff\xda")]
    return jpeg_header(width, height, components, sof) + rest + jpeg_scan(scan or components) + data[-500:]


def _pngs() -> None:
    for width, height in [
        (65535, 65535),
        (16384, 16384),
        (5001, 5000),
        (16385, 1),
        (1, 16385),
        (2**31 - 1, 1),
        (1, 2**31 - 1),
    ]:
        REFUSED[f"png-{width}x{height}"] = lambda w=width, h=height: _png(w, h)  # type: ignore[misc]
    REFUSED["png-zero-width"] = lambda: _png(0, 5)
    REFUSED["png-sign-bit"] = lambda: _png(2**32 - 1, 2**32 - 1)
    REFUSED["png-16-bit"] = lambda: _png(6000, 6000, 16, 6)
    REFUSED["png-1-bit"] = lambda: _png(16384, 16384, 1, 0)
    REFUSED["png-palette"] = lambda: _png(12000, 12000, 1, 3)
    REFUSED["png-interlaced"] = lambda: _png(9000, 9000, 8, 2, 1)
    REFUSED["png-legal-size-without-data"] = lambda: png_header(5000, 5000, 16, 6) + chunk(b"IDAT", b"x\x9c") + _END
    REFUSED["png-legal-size-half-its-data"] = lambda: _png(4999, 4999)
    REFUSED["png-many-empty-chunks"] = lambda: png_header(40, 30) + chunk(b"IDAT", b"") * 1_000_000 + _END
    REFUSED["png-many-unknown-chunks"] = lambda: png_header(40, 30) + chunk(b"abCd", b"") * 1_000_000 + _END
    REFUSED["png-chunk-longer-than-file"] = lambda: png_header(40, 30) + struct.pack(">I", 2**31 - 1) + b"IDAT" + b"x"
    REFUSED["png-no-data"] = lambda: png_header(5000, 5000) + _END


def _jpegs() -> None:
    for width, height in [(65535, 65535), (65500, 1), (1, 65500), (8000, 7000), (16384, 3100)]:
        REFUSED[f"jpeg-{width}x{height}"] = lambda w=width, h=height: _jpeg(w, h)  # type: ignore[misc]
    REFUSED["jpeg-height-later"] = lambda: _jpeg(5000, 0)
    REFUSED["jpeg-cmyk"] = lambda: _jpeg(9000, 9000, 4)
    REFUSED["jpeg-progressive"] = lambda: _jpeg(6000, 6000, sof=0xC2)
    REFUSED["jpeg-one-scan-per-component"] = lambda: _jpeg(6000, 6000, scan=1)
    REFUSED["jpeg-arithmetic-progressive"] = lambda: _jpeg(6000, 6000, sof=0xCA)
    REFUSED["jpeg-1000-scans"] = lambda: _scans(1000, 3000, 3000)
    REFUSED["jpeg-101-scans"] = lambda: _scans(101, 64, 64)
    REFUSED["jpeg-30-large-scans"] = lambda: _scans(30, 5000, 4900)
    REFUSED["jpeg-legal-size-without-data"] = lambda: _jpeg(7000, 7000)
    REFUSED["jpeg-many-segments"] = lambda: b"\xff\xd8" + b"\xff\xe5\0\2" * 1_000_000 + save(_SMALL, "JPEG")[2:]
    REFUSED["jpeg-many-markers"] = lambda: b"\xff\xd8\xff" + b"\xd0\xff" * 2_000_000 + b"\xd9"
    REFUSED["jpeg-fill-bytes"] = lambda: b"\xff\xd8" + b"\xff" * 10_000_000
    REFUSED["jpeg-two-frames"] = lambda: jpeg_header(40, 30) + _jpeg(7000, 7000)[2:]


def _webps() -> None:
    REFUSED["webp-lossy"] = lambda: riff(_vp8(16383, 16383))
    REFUSED["webp-lossless"] = lambda: riff(_vp8l(16384, 16384))
    REFUSED["webp-lossless-legal-size-without-data"] = lambda: riff(_vp8l(5000, 5000))
    REFUSED["webp-canvas"] = lambda: riff(vp8x(2**24, 2**24), _vp8(40, 30))
    REFUSED["webp-animated-canvas"] = lambda: riff(vp8x(16000, 16000, 2), _LOOP, anmf(0, 0, 40, 30, riff(_vp8(40, 30))))
    REFUSED["webp-frame-outside"] = lambda: riff(vp8x(64, 64, 2), _LOOP, anmf(60, 60, 40, 30, riff(_vp8(40, 30))))
    REFUSED["webp-frame-larger"] = lambda: riff(vp8x(64, 64, 2), _LOOP, anmf(0, 0, 64, 64, riff(_vp8(9000, 9000))))
    REFUSED["webp-many-chunks"] = lambda: riff(vp8x(40, 30), *[(b"abcd", b"")] * 1_000_000)
    REFUSED["webp-many-chunks-in-frame"] = lambda: riff(
        vp8x(40, 30, 2), (b"ANMF", bytes(16) + riff_chunks((b"abcd", b"")) * 1_000_000)
    )


def _harmless() -> None:
    small = save(_SMALL, "PNG")
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 1)
    HARMLESS["png-ztxt"] = lambda: with_chunk(small, b"zTXt", text)
    HARMLESS["png-itxt"] = lambda: with_chunk(small, b"iTXt", b"Comment\0\1\0\0\0" + text[9:])
    HARMLESS["png-icc"] = lambda: with_chunk(small, b"iCCP", b"profile\0\0" + text[9:])
    HARMLESS["png-data-beyond-the-image"] = lambda: png_header(40, 30) + chunk(b"IDAT", _ZEROS) + _END
    HARMLESS["jpeg-icc"] = lambda: _segments(0xE2, b"ICC_PROFILE\0", 255)
    HARMLESS["jpeg-xmp"] = lambda: _segments(0xE1, b"http://ns.adobe.com/xap/1.0/\0", 255)
    HARMLESS["png-10000-frames"] = lambda: _animation(10_000)
    still = save(_SMALL, "WEBP")
    HARMLESS["webp-10000-frames"] = lambda: riff(vp8x(40, 30, 2), _LOOP, *[anmf(0, 0, 40, 30, still)] * 10_000)
    HARMLESS["png-1-bit-of-25-megapixels"] = lambda: save(Image.new("1", (5000, 5000)), "PNG")
    HARMLESS["jpeg-of-49-megapixels"] = lambda: save(Image.new("L", (7000, 7000)), "JPEG")
    HARMLESS["webp-of-25-megapixels"] = lambda: save(Image.new("RGB", (5000, 5000)), "WEBP", lossless=True, quality=0)
    HARMLESS["png-of-25-megapixels"] = lambda: (
        png_header(5000, 5000, 8, 6) + chunk(b"IDAT", zlib.compress(bytes(5000 * 20_001), 1)) + _END
    )


def _segments(marker: int, start: bytes, count: int) -> bytes:
    data = save(_SMALL, "JPEG")
    segment = with_segment(b"", marker, start + bytes(65_000))
    return data[:2] + segment * count + data[2:]


def _animation(frames: int) -> bytes:
    """An animated PNG whose frames after the first are sound, and declared to be many."""
    still = save(_SMALL, "PNG")
    at = still.index(b"IDAT") - 4
    data = still[at + 8 : still.index(b"IEND") - 8]
    control = struct.pack(">IIIIHHBB", 40, 30, 0, 0, 1, 10, 0, 0)
    more = b"".join(
        chunk(b"fcTL", struct.pack(">I", 2 * index + 1) + control)
        + chunk(b"fdAT", struct.pack(">I", 2 * index + 2) + data)
        for index in range(frames)
    )
    first = chunk(b"acTL", struct.pack(">II", frames + 1, 0)) + chunk(b"fcTL", struct.pack(">I", 0) + control)
    return still[:33] + first + still[33:-12] + more + _END


_pngs()
_jpegs()
_webps()
_harmless()
